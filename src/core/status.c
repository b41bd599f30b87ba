/*-------------------------------------------------------------------------
 * status.c
 *	  Statuses of runs, task runs and attempts, and the legal transitions
 *
 * Runs in any process; pure functions over constant tables.  No locks.
 * The tables below are the law: the functions that write a status ask them
 * and raise an error for anything that is not there.
 *
 * Run
 *
 *	  queued --+--> running --+--> succeeded --+
 *	           |      |  ^    +--> failed    --+
 *	           |      |  |    +--> timed_out --+ repair: back to running
 *	           |      |  |    +--> cancelled --+
 *	           |      |  |    +--> aborted     (another execution is running)
 *	           |      |  +-----------------------+
 *	           |      +--> cancelling --> cancelled | succeeded | failed | timed_out
 *	           +--> skipped | cancelled | aborted | failed
 *
 * A cancelling run may still end on its own: the engine can be faster than
 * the cancel.
 *
 * Task run
 *
 *	  waiting --> ready --> running --+--> succeeded --+
 *	     |          |  ^       |      +--> failed    --+
 *	     |          |  |retry  |      +--> timed_out --+ repair: back to
 *	     |          |  +-------+      +--> cancelled --+ waiting or ready
 *	     |          +--> failed | timed_out | cancelled | blocked | skipped
 *	     +--> blocked | skipped (repair: waiting or ready) | cancelled | reused
 *
 * ready --> failed is an error before any attempt could be started, such as
 * a reference that has no value; ready --> timed_out is a task timeout that
 * strikes while a retry waits.
 *
 * Attempt
 *
 *	  intended --> started --> succeeded | failed | timed_out | cancelled | lost
 *
 * intended may go straight to any of these ends: the engine can answer
 * before we have seen it start, and a crash can leave only the intent.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "status.h"

typedef struct StatusInfo
{
	const char *name;
	unsigned	next;			/* bits of the statuses it may change to */
	bool		is_final;
} StatusInfo;

#define BIT(status) (1u << (status))

static const StatusInfo run_info[RUN_STATUS_COUNT] = {
	[RUN_QUEUED] = {"queued",
		BIT(RUN_RUNNING) | BIT(RUN_SKIPPED) | BIT(RUN_CANCELLED) |
		BIT(RUN_ABORTED) | BIT(RUN_FAILED), false},
	[RUN_RUNNING] = {"running",
		BIT(RUN_SUCCEEDED) | BIT(RUN_FAILED) | BIT(RUN_TIMED_OUT) |
		BIT(RUN_CANCELLED) | BIT(RUN_CANCELLING) | BIT(RUN_ABORTED), false},
	[RUN_CANCELLING] = {"cancelling",
		BIT(RUN_CANCELLED) | BIT(RUN_SUCCEEDED) | BIT(RUN_FAILED) |
		BIT(RUN_TIMED_OUT), false},
	[RUN_SUCCEEDED] = {"succeeded", BIT(RUN_RUNNING), true},
	[RUN_FAILED] = {"failed", BIT(RUN_RUNNING), true},
	[RUN_TIMED_OUT] = {"timed_out", BIT(RUN_RUNNING), true},
	[RUN_CANCELLED] = {"cancelled", BIT(RUN_RUNNING), true},
	[RUN_SKIPPED] = {"skipped", 0, true},
	[RUN_ABORTED] = {"aborted", 0, true},
};

static const StatusInfo task_info[TASK_STATUS_COUNT] = {
	[TASK_WAITING] = {"waiting",
		BIT(TASK_READY) | BIT(TASK_BLOCKED) | BIT(TASK_CANCELLED) |
		BIT(TASK_SKIPPED) | BIT(TASK_REUSED), false},
	[TASK_READY] = {"ready",
		BIT(TASK_RUNNING) | BIT(TASK_FAILED) | BIT(TASK_CANCELLED) |
		BIT(TASK_BLOCKED) | BIT(TASK_SKIPPED) | BIT(TASK_TIMED_OUT), false},
	[TASK_RUNNING] = {"running",
		BIT(TASK_READY) | BIT(TASK_SUCCEEDED) | BIT(TASK_FAILED) |
		BIT(TASK_TIMED_OUT) | BIT(TASK_CANCELLED), false},
	[TASK_SUCCEEDED] = {"succeeded", BIT(TASK_WAITING) | BIT(TASK_READY), true},
	[TASK_FAILED] = {"failed", BIT(TASK_WAITING) | BIT(TASK_READY), true},
	[TASK_TIMED_OUT] = {"timed_out", BIT(TASK_WAITING) | BIT(TASK_READY), true},
	[TASK_CANCELLED] = {"cancelled", BIT(TASK_WAITING) | BIT(TASK_READY), true},
	[TASK_BLOCKED] = {"blocked", BIT(TASK_WAITING) | BIT(TASK_READY), true},
	[TASK_REUSED] = {"reused", 0, true},
	[TASK_SKIPPED] = {"skipped", BIT(TASK_WAITING) | BIT(TASK_READY), true},
};

static const StatusInfo attempt_info[ATTEMPT_STATUS_COUNT] = {
	[ATTEMPT_INTENDED] = {"intended",
		BIT(ATTEMPT_STARTED) | BIT(ATTEMPT_SUCCEEDED) | BIT(ATTEMPT_FAILED) |
		BIT(ATTEMPT_TIMED_OUT) | BIT(ATTEMPT_CANCELLED) | BIT(ATTEMPT_LOST), false},
	[ATTEMPT_STARTED] = {"started",
		BIT(ATTEMPT_SUCCEEDED) | BIT(ATTEMPT_FAILED) | BIT(ATTEMPT_TIMED_OUT) |
		BIT(ATTEMPT_CANCELLED) | BIT(ATTEMPT_LOST), false},
	[ATTEMPT_SUCCEEDED] = {"succeeded", 0, true},
	[ATTEMPT_FAILED] = {"failed", 0, true},
	[ATTEMPT_TIMED_OUT] = {"timed_out", 0, true},
	[ATTEMPT_CANCELLED] = {"cancelled", 0, true},
	[ATTEMPT_LOST] = {"lost", 0, true},
};

/* The index of name in the table, or -1 */
static int
info_find(const StatusInfo *info, unsigned count, const char *name)
{
	if (name == NULL)
		return -1;
	for (unsigned i = 0; i < count; i++)
	{
		if (strcmp(info[i].name, name) == 0)
			return (int) i;
	}
	return -1;
}

/* A value from outside the enum (a damaged row) can do and be nothing */
static const char *
info_name(const StatusInfo *info, unsigned count, unsigned status)
{
	return status < count ? info[status].name : "unknown";
}

static bool
info_can(const StatusInfo *info, unsigned count, unsigned from, unsigned to)
{
	return from < count && to < count && (info[from].next & BIT(to)) != 0;
}

static bool
info_is_final(const StatusInfo *info, unsigned count, unsigned status)
{
	return status < count && info[status].is_final;
}

bool
run_status_parse(const char *name, RunStatus *status)
{
	int			found = info_find(run_info, RUN_STATUS_COUNT, name);

	if (found < 0)
		return false;
	*status = (RunStatus) found;
	return true;
}

bool
task_status_parse(const char *name, TaskStatus *status)
{
	int			found = info_find(task_info, TASK_STATUS_COUNT, name);

	if (found < 0)
		return false;
	*status = (TaskStatus) found;
	return true;
}

bool
attempt_status_parse(const char *name, AttemptStatus *status)
{
	int			found = info_find(attempt_info, ATTEMPT_STATUS_COUNT, name);

	if (found < 0)
		return false;
	*status = (AttemptStatus) found;
	return true;
}

const char *
run_status_name(RunStatus status)
{
	return info_name(run_info, RUN_STATUS_COUNT, (unsigned) status);
}

const char *
task_status_name(TaskStatus status)
{
	return info_name(task_info, TASK_STATUS_COUNT, (unsigned) status);
}

const char *
attempt_status_name(AttemptStatus status)
{
	return info_name(attempt_info, ATTEMPT_STATUS_COUNT, (unsigned) status);
}

bool
run_status_can(RunStatus from, RunStatus to)
{
	return info_can(run_info, RUN_STATUS_COUNT, (unsigned) from, (unsigned) to);
}

bool
task_status_can(TaskStatus from, TaskStatus to)
{
	return info_can(task_info, TASK_STATUS_COUNT, (unsigned) from, (unsigned) to);
}

bool
attempt_status_can(AttemptStatus from, AttemptStatus to)
{
	return info_can(attempt_info, ATTEMPT_STATUS_COUNT, (unsigned) from, (unsigned) to);
}

bool
run_status_is_final(RunStatus status)
{
	return info_is_final(run_info, RUN_STATUS_COUNT, (unsigned) status);
}

bool
task_status_is_final(TaskStatus status)
{
	return info_is_final(task_info, TASK_STATUS_COUNT, (unsigned) status);
}

bool
attempt_status_is_final(AttemptStatus status)
{
	return info_is_final(attempt_info, ATTEMPT_STATUS_COUNT, (unsigned) status);
}

/*
 * The reference knows running, succeeded, failed, skipped and aborted.  A
 * run that timed out or was cancelled is a failed one to it: the next start
 * has the same work to do.
 */
char
run_status_execution_code(RunStatus status)
{
	switch (status)
	{
		case RUN_QUEUED:
			return 'Q';
		case RUN_RUNNING:
		case RUN_CANCELLING:
			return 'E';
		case RUN_SUCCEEDED:
			return 'S';
		case RUN_FAILED:
		case RUN_TIMED_OUT:
		case RUN_CANCELLED:
			return 'F';
		case RUN_SKIPPED:
			return 'C';
		case RUN_ABORTED:
			return 'A';
	}
	return '?';
}
