/*-------------------------------------------------------------------------
 * planpace.c
 *	  What the tasks of a plan have to share, and when they will run.
 *
 * Runs in the session of a client; only reads and locks nothing.  The run is
 * played as if it started now, among what runs and is ready at this moment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "plan.h"

static char *
limits_of(Foresight *foresight, const PlanTask *task)
{
	char	   *own = foresight_limits(foresight, &task->needs);
	char	   *items;

	if (task->concurrency == 0)
		return own;
	items = foresight_limits(foresight, &task->item_needs);
	return psprintf("%s%s%d items at a time%s%s", own ? own : "", own ? "; " : "", task->concurrency,
					items ? ", each: " : "", items ? items : "");
}

static bool
will_run(const ForecastTask *forecast)
{
	return forecast->fate == FORECAST_RUNS || forecast->fate == FORECAST_FAILS || forecast->fate == FORECAST_DEPENDS;
}

double
plan_foresee(PlanTasks *plan, const ForecastEdge *edges, int nedges)
{
	Foresight  *foresight = foresight_begin();
	PaceTask   *pace = palloc0(sizeof(PaceTask) * Max(plan->ntasks, 1));
	PaceEdge   *pace_edges = palloc(sizeof(PaceEdge) * Max(nedges, 1));
	double		end = 0;

	for (int t = 0; t < plan->ntasks; t++)
	{
		PlanTask   *task = &plan->tasks[t];

		task->limits = limits_of(foresight, task);
		pace[t].state = will_run(&plan->forecast[t]) ? PACE_WAITING : PACE_ENDED;
		pace[t].seconds = foresight_seconds(foresight, plan->run.pipeline_id, task->name);
		pace[t].priority = task->priority;
		foresight_room(foresight, 0, &task->needs, &pace[t]);
	}
	for (int e = 0; e < nedges; e++)
		pace_edges[e] = (PaceEdge) {edges[e].from, edges[e].to};
	foresight_pace(foresight, 0, pace, plan->ntasks, pace_edges, nedges);
	for (int t = 0; t < plan->ntasks; t++)
	{
		PlanTask   *task = &plan->tasks[t];

		task->starts_after = pace[t].start;
		task->ends_after = pace[t].state == PACE_ENDED ? PACE_UNKNOWN : pace[t].end;
		if (pace[t].state != PACE_ENDED)
			end = end < 0 || task->ends_after < 0 ? PACE_UNKNOWN : Max(end, task->ends_after);
	}
	return end;
}
