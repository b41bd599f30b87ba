/*-------------------------------------------------------------------------
 * status.h
 *	  Statuses of runs, task runs and attempts, and the legal transitions
 *
 * Text names are what the tables hold ('queued', 'timed_out', ...).  Every
 * status change asks X_status_can(); a status never "changes" to itself.
 * State diagrams are in core/status.c.  Pure functions; include postgres.h
 * or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STATUS_H
#define WEIR_STATUS_H

typedef enum RunStatus
{
	RUN_QUEUED,
	RUN_RUNNING,
	RUN_CANCELLING,
	RUN_SUCCEEDED,
	RUN_FAILED,
	RUN_TIMED_OUT,
	RUN_CANCELLED,
	RUN_SKIPPED,
	RUN_ABORTED
} RunStatus;

#define RUN_STATUS_COUNT (RUN_ABORTED + 1)

typedef enum TaskStatus
{
	TASK_WAITING,
	TASK_READY,
	TASK_RUNNING,
	TASK_SUCCEEDED,
	TASK_FAILED,
	TASK_TIMED_OUT,
	TASK_CANCELLED,
	TASK_BLOCKED,
	TASK_REUSED,
	TASK_SKIPPED
} TaskStatus;

#define TASK_STATUS_COUNT (TASK_SKIPPED + 1)

typedef enum AttemptStatus
{
	ATTEMPT_INTENDED,
	ATTEMPT_STARTED,
	ATTEMPT_SUCCEEDED,
	ATTEMPT_FAILED,
	ATTEMPT_TIMED_OUT,
	ATTEMPT_CANCELLED,
	ATTEMPT_LOST
} AttemptStatus;

#define ATTEMPT_STATUS_COUNT (ATTEMPT_LOST + 1)

/* false, and *status untouched, when the name (or NULL) is no status */
extern bool run_status_parse(const char *name, RunStatus *status);
extern bool task_status_parse(const char *name, TaskStatus *status);
extern bool attempt_status_parse(const char *name, AttemptStatus *status);

/* static text; "unknown" for a value outside the enum */
extern const char *run_status_name(RunStatus status);
extern const char *task_status_name(TaskStatus status);
extern const char *attempt_status_name(AttemptStatus status);

extern bool run_status_can(RunStatus from, RunStatus to);
extern bool task_status_can(TaskStatus from, TaskStatus to);
extern bool attempt_status_can(AttemptStatus from, AttemptStatus to);

/* ended; only a repair leaves a final status of a run or a task run */
extern bool run_status_is_final(RunStatus status);
extern bool task_status_is_final(TaskStatus status);
extern bool attempt_status_is_final(AttemptStatus status);

/* ExecutionStatus of the reference: Q queued, E, S, F, C skipped, A aborted */
extern char run_status_execution_code(RunStatus status);

#endif							/* WEIR_STATUS_H */
