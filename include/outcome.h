/*-------------------------------------------------------------------------
 * outcome.h
 *	  Outcomes of attempts and all that follows from them.
 *
 * Called by the conductor and by SQL workers, inside their transaction, SPI
 * connected as the owner of the extension.  The caller commits: outcome,
 * successors, run status and next_load_status become visible together.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OUTCOME_H
#define WEIR_OUTCOME_H

#include <cjson/cJSON.h>

#include "status.h"

#define RUN_TIMEOUT_REASON "run timeout exceeded"

typedef struct TaskOutcome
{
	int64		task_run_id;
	int			attempt_no;
	AttemptStatus status;		/* final */
	bool		is_retryable;	/* another attempt may help, budget permitting */
	bool		may_go_on;		/* its work may still be under way in the engine: never another attempt */
	int64		retry_after_ms; /* what the engine asked for, or 0 */
	const cJSON *output;		/* or NULL */
	const char *items;			/* a for_each that succeeded in listing them: JSON array; else NULL */
	int64		rows_read;		/* -1 unknown */
	int64		rows_written;	/* -1 unknown */
	const cJSON *activities;	/* see kind.h, or NULL */
	int			http_status;	/* 0 none */
	const char *sqlstate;
	const char *error_code;
	const char *error_message;	/* NULL: no error */
	const char *error_detail;
	bool		is_user_error;
} TaskOutcome;

/*
 * Lock what an outcome of this run changes: the pipeline's state, then the
 * run.  wait false: give up (false) when somebody holds one of them, such as a
 * client with an open transaction in log_execution_start.  Clients that log or
 * set something for the run hold it FOR KEY SHARE and stop nobody.
 */
extern bool outcome_lock_run(int64 run_id, bool wait);

/*
 * The same for many runs, waiting for nobody.  Returns how many could be
 * locked; their ids, ascending, are in locked, which has room for n.
 */
extern int	outcome_lock_runs(const int64 *run_ids, int n, int64 *locked);

/*
 * Write an outcome and what follows from it.  The run is locked.  False, and
 * nothing changed, if the attempt has an outcome already: the caller must
 * then roll back whatever the attempt did.
 */
extern bool outcome_apply(TaskOutcome *outcome);

/*
 * The same for many outcomes, of runs that are all locked.  Returns how many
 * were written; the others had an outcome already.
 */
extern int	outcome_apply_all(TaskOutcome *const *outcomes, int n);

/* Task runs of the run whose task timeout is over while they wait for a retry.  Run locked. */
extern void outcome_time_out_waiting(int64 run_id);

/* Task runs of kind noop that are running: all succeed at once.  Runs locked. */
extern void outcome_succeed_noops(Datum task_run_ids);

/*
 * Dependents of ended task runs (arrays of run_id and task_no) become ready,
 * blocked or skipped, and what follows from that.  all_succeeded spares the
 * search below failures.
 */
extern void advance_ended(Datum run_ids, Datum task_nos, bool all_succeeded);

/* Task runs of a starting or repaired run that wait for nothing are decided. */
extern void advance_undecided(int64 run_id);

/* After a failure: in a pipeline with on_failure "fail_fast" nothing new starts. */
extern void advance_fail_fast(int64 run_id);

/* Then runs that have nothing left to do end. */
extern void advance_finish_run(int64 run_id);	/* ends it if nothing in it is live */

#endif							/* WEIR_OUTCOME_H */
