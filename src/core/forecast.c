/*-------------------------------------------------------------------------
 * forecast.c
 *	  What the tasks of a start will do if nothing fails
 *
 * Runs in sessions that ask weir.plan.  Pure functions; decides with flow.c,
 * as the conductor will.  Where a branch is not known yet, a task is decided
 * all the same if it does the same either way.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "status.h"

#include "forecast.h"

/* The same dependencies if what is open turns out well, and if not. */
typedef struct Outlook
{
	FlowTally	good;
	FlowTally	bad;
	int			open;			/* first edge that is not known, -1 none */
	int			unmet;			/* first edge that is not met, -1 none */
} Outlook;

static void
count(FlowTally *tally, EdgeResult result)
{
	tally->upstream++;
	tally->failed += result == EDGE_IS_FAILED;
	tally->blocked += result == EDGE_IS_BLOCKED;
	tally->skipped += result == EDGE_IS_SKIPPED;
}

/* What a dependency contributes: *good at best, *bad at worst. */
static void
edge_results(const ForecastTask *from, const ForecastEdge *edge, EdgeResult *good, EdgeResult *bad)
{
	bool		any_branch = edge->branch == NULL;
	bool		took = any_branch || (from->branch != NULL && strcmp(from->branch, edge->branch) == 0);
	bool		is_open = !any_branch && from->is_choice && from->branch == NULL;
	EdgeResult	ran = flow_edge_result(edge->condition, TASK_SUCCEEDED, took || is_open);
	EdgeResult	skipped = flow_edge_result(edge->condition, TASK_SKIPPED, any_branch);

	*good = *bad = EDGE_IS_MET;
	switch (from->fate)
	{
		case FORECAST_ENDED:
			*good = *bad = flow_edge_result(edge->condition, TASK_REUSED, true);
			break;
		case FORECAST_RUNS:
			*good = ran;
			*bad = is_open ? flow_edge_result(edge->condition, TASK_SUCCEEDED, false) : ran;
			break;
		case FORECAST_FAILS:
			*good = *bad = flow_edge_result(edge->condition, TASK_FAILED, took);
			break;
		case FORECAST_BLOCKED:
			*good = *bad = flow_edge_result(edge->condition, TASK_BLOCKED, any_branch);
			break;
		case FORECAST_SKIPPED:
			*good = *bad = skipped;
			break;
		case FORECAST_DEPENDS:
			*good = ran == EDGE_IS_MET ? ran : skipped;
			*bad = ran == EDGE_IS_MET ? skipped : ran;
			break;
	}
}

static void
decide(ForecastTask *task, const Outlook *outlook)
{
	TaskStatus	good = flow_decide(task->run_if, &outlook->good);
	TaskStatus	bad = flow_decide(task->run_if, &outlook->bad);

	if (good != bad)
		task->fate = FORECAST_DEPENDS;
	else if (good == TASK_READY)
		task->fate = task->will_fail ? FORECAST_FAILS : FORECAST_RUNS;
	else
		task->fate = good == TASK_BLOCKED ? FORECAST_BLOCKED : FORECAST_SKIPPED;
	task->because = task->fate == FORECAST_DEPENDS ? outlook->open :
		task->fate == FORECAST_BLOCKED || task->fate == FORECAST_SKIPPED ? outlook->unmet : -1;
}

void
forecast(ForecastTask *tasks, int ntasks, const ForecastEdge *edges, int nedges)
{
	int			e = 0;

	for (int t = 0; t < ntasks; t++)
	{
		Outlook		outlook = {{0}, {0}, -1, -1};

		for (; e < nedges && edges[e].to == t; e++)
		{
			EdgeResult	good,
						bad;

			edge_results(&tasks[edges[e].from], &edges[e], &good, &bad);
			count(&outlook.good, good);
			count(&outlook.bad, bad);
			if (good != bad && outlook.open < 0)
				outlook.open = e;
			if (good != EDGE_IS_MET && outlook.unmet < 0)
				outlook.unmet = e;
		}
		tasks[t].because = -1;
		tasks[t].fate = FORECAST_ENDED;
		if (!tasks[t].has_ended)
			decide(&tasks[t], &outlook);
	}
}
