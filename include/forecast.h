/*-------------------------------------------------------------------------
 * forecast.h
 *	  What the tasks of a start will do if nothing fails
 *
 * Pure; linear in tasks + edges.  Include postgres.h or mem.h, then status.h,
 * before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FORECAST_H
#define WEIR_FORECAST_H

#include "flow.h"

typedef enum ForecastFate
{
	FORECAST_ENDED,				/* reused, disabled or not selected: counts as met */
	FORECAST_RUNS,
	FORECAST_FAILS,				/* it runs, and is known to fail */
	FORECAST_SKIPPED,
	FORECAST_BLOCKED,
	FORECAST_DEPENDS			/* on a branch that is not known yet */
} ForecastFate;

typedef struct ForecastTask
{
	RunIf		run_if;
	bool		has_ended;		/* before it could start */
	bool		will_fail;
	bool		is_choice;		/* chooses a branch when it runs: */
	const char *branch;			/* that one; NULL if not known yet */
	ForecastFate fate;			/* the answer */
	int			because;		/* edge that says so, when skipped, blocked or depending; -1 none */
} ForecastTask;

typedef struct ForecastEdge
{
	int			from;
	int			to;				/* above from: tasks come in an order of the DAG */
	EdgeCondition condition;
	const char *branch;			/* NULL for any */
} ForecastEdge;

/* Edges come ordered by "to". */
extern void forecast(ForecastTask *tasks, int ntasks, const ForecastEdge *edges, int nedges);

#endif							/* WEIR_FORECAST_H */
