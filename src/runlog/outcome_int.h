/*-------------------------------------------------------------------------
 * outcome_int.h
 *	  What the files of outcomes share.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OUTCOME_INT_H
#define WEIR_OUTCOME_INT_H

#include "datatype/timestamp.h"

#include "outcome.h"

/* An outcome and what it makes of its task run. */
typedef struct DecidedOutcome
{
	const TaskOutcome *outcome;
	int64		run_id;
	int			task_no;
	int64		parent_id;		/* of an item: the task run of the for_each; else 0 */
	TaskStatus	status;			/* TASK_READY: there is another attempt; TASK_RUNNING: items were listed */
	int64		delay_ms;		/* until that; -1 if there is none */
	TimestampTz deadline;		/* when the task timeout strikes; DT_NOEND for never */
} DecidedOutcome;

/* outcomewrite.c: n may be 0 nowhere but in outcome_write_errors */

/* Attempts that succeeded and end their task runs; fills in decided and returns how many had no outcome yet. */
extern int	outcome_write_successes(TaskOutcome *const *outcomes, int n, DecidedOutcome *decided);
extern void outcome_write_attempts(const DecidedOutcome *decided, int n);
extern void outcome_write_task_runs(const DecidedOutcome *decided, int n);
extern void outcome_write_errors(const DecidedOutcome *decided, int n);	/* of those that have one */
extern void outcome_write_activities(const TaskOutcome *outcome);	/* and row counts */

#endif							/* WEIR_OUTCOME_INT_H */
