/*-------------------------------------------------------------------------
 * launcher.h
 *	  The launcher, and what a conductor owes it (attach.c).
 *
 * A conductor calls launcher_attach() first of all and only then connects to
 * its database.  Attaching registers an exit callback (before_shmem_exit), so
 * whatever goes wrong after that, the launcher hears of it; a conductor that
 * has more to say calls launcher_detach() itself, before that.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LAUNCHER_H
#define WEIR_LAUNCHER_H

/* In the postmaster, while it preloads libraries. */
extern void launcher_register(void);

/* Entry point of the background worker. */
extern PGDLLEXPORT void launcher_main(Datum main_arg);

/* Let the launcher look around; rescan: read pg_database too.  No-op without launcher. */
extern void launcher_wake(bool rescan);

/*
 * Called by a conductor with bgw_main_arg and the uint32 found in
 * bgw_extra.  False: it is no longer wanted, and must exit with code 0.
 * True: its slot carries its pid, all wake bits are set and so is its latch.
 */
extern bool launcher_attach(Oid databaseid, uint32 generation);

/*
 * Clear the slot, if it is ours.  extension_absent: nothing to do here until
 * CREATE EXTENSION.  Any other exit is a failure that the launcher answers
 * with a restart (at once, then with a growing delay), unless DDL asked the
 * process to leave.  error: for weir.status, may be NULL.
 */
extern void launcher_detach(bool extension_absent, const char *error);

/*
 * The lock that decides who conducts this database; held by the session
 * until conductor_unlock() or its end.  False: somebody else holds it
 * (never with wait).  May be called outside a transaction.
 */
extern bool conductor_lock(bool wait);
extern void conductor_unlock(void);

#endif							/* WEIR_LAUNCHER_H */
