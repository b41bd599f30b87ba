/*-------------------------------------------------------------------------
 * engine.h
 *	  What the rest of weir may ask of the engine.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ENGINE_H
#define WEIR_ENGINE_H

/* What changed, so that the conductor looks only where something is new. */
#define ENGINE_WAKE_RUN			1	/* a run was queued, or a run ended elsewhere */
#define ENGINE_WAKE_REQUEST		2	/* a row in weir.request */
#define ENGINE_WAKE_DEFINITION	4	/* pipeline created, altered, paused, resumed, ... */
#define ENGINE_WAKE_TASK		8	/* a SQL worker wrote an outcome */
#define ENGINE_WAKE_QUEUES		256 /* runs were queued or ended, and nobody said of which pipelines */
#define ENGINE_WAKE_READY		512 /* notes were lost: what is ready, and what is known of queues, is to be read anew */
#define ENGINE_WAKE_LOOK		(ENGINE_WAKE_RUN | ENGINE_WAKE_REQUEST | ENGINE_WAKE_TASK)	/* what was put off */
#define ENGINE_WAKE_ALL			(ENGINE_WAKE_LOOK | ENGINE_WAKE_DEFINITION | ENGINE_WAKE_QUEUES | ENGINE_WAKE_READY)
#define ENGINE_WAKE_INSTALLED	16	/* CREATE EXTENSION; set beside the others, for the launcher's sake */
#define ENGINE_WAKE_WAITERS		32	/* nothing for the conductor: sessions in weir.wait() look again */
#define ENGINE_WAKE_LIMITS	64	/* how long runs stay in the log was changed */
#define ENGINE_WAKE_ENDED	128 /* a run ended, and the conductor asked to be told of the first one */

/*
 * Wake this database's conductor when the current transaction commits; a
 * rollback forgets it.  Cheap, may be called any number of times.
 */
extern void engine_wake_at_commit(uint32 what);

/*
 * What this transaction changed, for a conductor that keeps it in memory
 * instead of searching tables for it (notes.c).  Told to it at commit,
 * together with engine_wake_at_commit(), which the caller calls too; one note
 * too many costs a look-up, one too few and a task run is never started.
 *
 * A task run became ready, at once or after a pause; or it ended in a pause,
 * which nobody has to wait for then.
 */
extern void engine_note_ready(int64 task_run_id);
/* Those of an array in the first row of what SPI just returned; null: none. */
extern void engine_note_ready_column(int column);
/* A run of this pipeline ended, so that one in its queue may start. */
extern void engine_note_queue(int64 pipeline_id);
/*
 * A run of this pipeline was queued, of several of one priority the one with
 * the lowest id; or one goes on after it had ended.  Without it the conductor
 * may never look at it.
 */
extern void engine_note_queued(int64 pipeline_id, int64 run_id, int priority);
extern void engine_note_going_on(int64 pipeline_id, int64 run_id);

/* From _PG_init. */
extern void engine_init(void);

#endif							/* WEIR_ENGINE_H */
