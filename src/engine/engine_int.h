/*-------------------------------------------------------------------------
 * engine_int.h
 *	  What the files of engine/ know of each other.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ENGINE_INT_H
#define WEIR_ENGINE_INT_H

/* From engine_init, in the postmaster only: register callbacks and hooks. */
extern void wake_init(void);
extern void ddlhooks_init(void);
/* notes.c, at the end of a transaction: tell the conductor; the result is what to wake it for. */
extern uint32 notes_commit(uint32 wake);
extern void notes_forget(void);
/* notes.c, from the conductor: this process conducts from now on, or no more. */
extern void notes_conduct(bool conducts);
/* Its own notes and those of others since the last time, in the current context. */
struct WeirNote;
extern struct WeirNote *notes_take(int *n);
/* From workers that are connected: transactions see what is committed by then, and may write. */
extern void engine_settle_transactions(void);
/* workerlimit.c, from the launcher, at its start and when settings were read again: log if not all SQL workers have room. */
extern void engine_check_workers(void);

/*
 * A conductor is gone, or could not be started: when may the next one start?
 * error: for weir.status, NULL keeps the last one.  Caller holds weir_shmem_lock.
 */
struct DatabaseSlot;
extern void attach_note_failure(struct DatabaseSlot *slot, const char *error);
#define ATTACH_BACKOFF_MAX_MS 60000

#endif							/* WEIR_ENGINE_INT_H */
