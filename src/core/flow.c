/*-------------------------------------------------------------------------
 * flow.c
 *	  Whether a task runs when everything upstream of it has ended
 *
 * Runs in the conductor, in SQL workers and in sessions that define
 * pipelines; pure functions over constant tables.
 *
 * The words are those of Lakeflow Jobs ("Run if dependencies"), the
 * conditions of a single dependency those of Azure Data Factory (Succeeded,
 * Failed, Skipped, Completed).  Where the two leave a case open:
 *
 *	- a task that could not run because of a failure above it ("blocked")
 *	  counts as failed, so that a handler at the end of a chain hears of a
 *	  failure at its start;
 *	- a task without an executed dependency has nothing to react to: with
 *	  all_done it is skipped (blocked if a failure is the reason), while
 *	  always runs even then.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "flow.h"

static const char *const run_if_texts[RUN_IF_COUNT] = {
	[RUN_IF_ALL_SUCCESS] = "all_success",
	[RUN_IF_ALL_DONE] = "all_done",
	[RUN_IF_NONE_FAILED] = "none_failed",
	[RUN_IF_AT_LEAST_ONE_SUCCESS] = "at_least_one_success",
	[RUN_IF_AT_LEAST_ONE_FAILED] = "at_least_one_failed",
	[RUN_IF_ALL_FAILED] = "all_failed",
	[RUN_IF_ALWAYS] = "always",
};

static const char *const condition_texts[EDGE_CONDITION_COUNT] = {
	[EDGE_SUCCESS] = "success",
	[EDGE_FAILED] = "failed",
	[EDGE_SKIPPED] = "skipped",
	[EDGE_DONE] = "done",
};

static int
find_name(const char *const *names, int count, const char *name)
{
	for (int i = 0; name != NULL && i < count; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

bool
run_if_parse(const char *name, RunIf *run_if)
{
	int			found = find_name(run_if_texts, RUN_IF_COUNT, name);

	if (found < 0)
		return false;
	*run_if = (RunIf) found;
	return true;
}

bool
edge_condition_parse(const char *name, EdgeCondition *condition)
{
	int			found = find_name(condition_texts, EDGE_CONDITION_COUNT, name);

	if (found < 0)
		return false;
	*condition = (EdgeCondition) found;
	return true;
}

const char *
run_if_name(RunIf run_if)
{
	return (unsigned) run_if < RUN_IF_COUNT ? run_if_texts[run_if] : "unknown";
}

const char *
edge_condition_name(EdgeCondition condition)
{
	return (unsigned) condition < EDGE_CONDITION_COUNT ? condition_texts[condition] : "unknown";
}

const char *
run_if_names(void)
{
	return "all_success, all_done, none_failed, at_least_one_success, at_least_one_failed, all_failed, always";
}

const char *
edge_condition_names(void)
{
	return "success, failed, skipped, done";
}

EdgeResult
flow_edge_result(EdgeCondition condition, TaskStatus status, bool took_branch)
{
	bool		succeeded = status == TASK_SUCCEEDED || status == TASK_REUSED;
	bool		failed = status == TASK_FAILED || status == TASK_TIMED_OUT || status == TASK_CANCELLED;

	if (condition == EDGE_DONE ||
		(condition == EDGE_SUCCESS && succeeded && took_branch) ||
		(condition == EDGE_FAILED && failed) ||
		(condition == EDGE_SKIPPED && status == TASK_SKIPPED))
		return EDGE_IS_MET;
	if (failed)
		return EDGE_IS_FAILED;
	return status == TASK_BLOCKED ? EDGE_IS_BLOCKED : EDGE_IS_SKIPPED;
}

TaskStatus
flow_decide(RunIf run_if, const FlowTally *tally)
{
	int			bad = tally->failed + tally->blocked;
	int			met = tally->upstream - bad - tally->skipped;
	bool		runs = false;

	if (tally->upstream == 0)
		return TASK_READY;
	switch (run_if)
	{
		case RUN_IF_ALL_SUCCESS:
			runs = met == tally->upstream;
			break;
		case RUN_IF_ALL_DONE:
			runs = met + tally->failed > 0;
			break;
		case RUN_IF_NONE_FAILED:
			runs = bad == 0 && met > 0;
			break;
		case RUN_IF_AT_LEAST_ONE_SUCCESS:
			runs = met > 0;
			break;
		case RUN_IF_AT_LEAST_ONE_FAILED:
			/* Nothing failed: that is no reason to call the task blocked. */
			return bad > 0 ? TASK_READY : TASK_SKIPPED;
		case RUN_IF_ALL_FAILED:
			return bad == tally->upstream ? TASK_READY : TASK_SKIPPED;
		case RUN_IF_ALWAYS:
			runs = true;
			break;
	}
	if (runs)
		return TASK_READY;
	return bad > 0 ? TASK_BLOCKED : TASK_SKIPPED;
}

bool
run_if_handles_failure(RunIf run_if)
{
	return run_if == RUN_IF_AT_LEAST_ONE_FAILED || run_if == RUN_IF_ALL_FAILED;
}
