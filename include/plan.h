/*-------------------------------------------------------------------------
 * plan.h
 *	  What weir.plan knows of a task, and its spec as far as it can be known.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PLAN_H
#define WEIR_PLAN_H

#include "context.h"
#include "status.h"

#include "forecast.h"
#include "foresee.h"

typedef struct PlanTask
{
	int			task_no;
	int			wave;
	char	   *name;
	char	   *kind;
	char	   *phase;
	char	   *connection;		/* NULL for none */
	bool		connection_exists;
	bool		reused;
	char	   *skip_reason;	/* NULL; disabled or not_selected */
	char	   *run_if;
	cJSON	   *output;			/* that, or NULL */
	cJSON	   *spec;			/* as defined; rendered by plan_render */
	char	   *resumes;		/* earlier run of the engine, or NULL */
	char	   *problem;		/* why it is known to fail, or NULL */
	char	   *note;			/* what else is to be known of the pipeline it calls, or NULL */
	int			concurrency;	/* of a for_each, else 0 */
	int			priority;		/* with that of the run */
	TaskNeeds	needs;			/* of a for_each: to list its items */
	TaskNeeds	item_needs;		/* of each of its items */
	char	   *limits;			/* what it will have to share, in words; NULL nothing */
	double		starts_after;	/* seconds from the start of the run; PACE_UNKNOWN */
	double		ends_after;
	Datum		retry;			/* jsonb */
	Datum		timeout;		/* interval */
	bool		no_timeout;
} PlanTask;

typedef struct PlanTasks
{
	PlanTask   *tasks;
	ForecastTask *forecast;		/* of the same index */
	int			ntasks;
	TaskContext run;			/* what references to the run stand for; members missing in run are not known */
} PlanTasks;

/*
 * Renders the spec of task t, chooses its branch if that is known, and notes
 * what is known to fail.  Reads no table.
 */
extern void plan_render(PlanTasks *plan, int t);

/*
 * After plan_render: whether the pipeline the task calls is there, enabled
 * and not paused, in problem or note.
 */
extern void plan_call(PlanTask *task, ForecastTask *forecast);

/*
 * Limits the tasks will meet, and when they will start and end if they take
 * as long as before; forecast() has said which of them run.  Returns when the
 * last one ends, in seconds from the start of the run; PACE_UNKNOWN.
 */
extern double plan_foresee(PlanTasks *plan, const ForecastEdge *edges, int nedges);

#endif							/* WEIR_PLAN_H */
