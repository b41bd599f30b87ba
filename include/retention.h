/*-------------------------------------------------------------------------
 * retention.h
 *	  How long the run log is kept, and a sweep that removes what is older.
 *
 * A sweep goes through all pipelines, then config variables, backfills and
 * requests, in steps of bounded work.  Between two steps the caller may
 * commit: a sweep is a position in memory and nothing else, so one that is
 * given up in the middle is simply begun again.
 *
 * Times are milliseconds since 1970.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RETENTION_H
#define WEIR_RETENTION_H

#define RETENTION_NEVER		PG_INT64_MAX

extern int	retention_age_s;	/* weir.retention_age, seconds; 0 = for ever */
extern int	retention_runs;		/* weir.retention_runs, ended runs of a pipeline; 0 = all */

extern void retention_define_gucs(void);	/* from _PG_init */

typedef struct Sweep Sweep;

/* Allocated in the current context, with what it grows by.  max_runs: remove no more than so many. */
extern Sweep *sweep_begin(int64 max_runs);

/*
 * The next step; false when there is nothing left.  SPI connected as the
 * owner of the extension, inside a transaction.  Locks runs that are removed
 * FOR UPDATE, ids ascending, and takes none that somebody else holds.
 */
extern bool sweep_step(Sweep *sweep);

/* Write down when it was, and what was removed since the last note.  Waits for nobody. */
extern void sweep_note(Sweep *sweep);

extern int64 sweep_removed(const Sweep *sweep); /* runs */

/* When the next run or change of a variable gets too old; in the past: one that is kept for now. */
extern int64 sweep_next_old(const Sweep *sweep);

/* Is there any limit, so that runs that are still to end may get too old or too many? */
extern bool sweep_has_limits(const Sweep *sweep);

/* So that statements find rows by index, until the caller's GUC nest level ends. */
extern void sweep_prefer_indexes(void);

#endif							/* WEIR_RETENTION_H */
