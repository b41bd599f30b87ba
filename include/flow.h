/*-------------------------------------------------------------------------
 * flow.h
 *	  Whether a task runs when everything upstream of it has ended
 *
 * Pure functions; include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FLOW_H
#define WEIR_FLOW_H

#include "status.h"

/* On what a task starts; stored by name. */
typedef enum RunIf
{
	RUN_IF_ALL_SUCCESS,			/* every dependency is met */
	RUN_IF_ALL_DONE,			/* all ended, and at least one was executed */
	RUN_IF_NONE_FAILED,			/* none failed or is blocked, at least one succeeded */
	RUN_IF_AT_LEAST_ONE_SUCCESS,
	RUN_IF_AT_LEAST_ONE_FAILED,
	RUN_IF_ALL_FAILED,
	RUN_IF_ALWAYS				/* all ended, whatever they ended as */
} RunIf;

#define RUN_IF_COUNT (RUN_IF_ALWAYS + 1)

/* Which end of the upstream task meets a dependency; stored by name. */
typedef enum EdgeCondition
{
	EDGE_SUCCESS,				/* it succeeded; with a branch: and chose that branch */
	EDGE_FAILED,				/* it failed, timed out or was cancelled */
	EDGE_SKIPPED,				/* it was skipped */
	EDGE_DONE					/* it ended in any way */
} EdgeCondition;

#define EDGE_CONDITION_COUNT (EDGE_DONE + 1)

/* What a dependency contributes once its upstream task has ended. */
typedef enum EdgeResult
{
	EDGE_IS_MET,
	EDGE_IS_FAILED,				/* not met: the upstream task was executed and failed */
	EDGE_IS_BLOCKED,			/* not met: it never ran, because of a failure above it */
	EDGE_IS_SKIPPED				/* not met: nothing went wrong, this path is not taken */
} EdgeResult;

/* The dependencies of a task, all of them ended. */
typedef struct FlowTally
{
	int			upstream;		/* all of them */
	int			failed;
	int			blocked;
	int			skipped;		/* the rest is met */
} FlowTally;

/* false, and the result untouched, when the name (or NULL) is none */
extern bool run_if_parse(const char *name, RunIf *run_if);
extern bool edge_condition_parse(const char *name, EdgeCondition *condition);
extern const char *run_if_name(RunIf run_if);
extern const char *edge_condition_name(EdgeCondition condition);
extern const char *run_if_names(void);	/* "all_success, all_done, ..." for hints */
extern const char *edge_condition_names(void);

/*
 * status: final, of the upstream task.  took_branch: the dependency names no
 * branch, or the one the task chose.
 */
extern EdgeResult flow_edge_result(EdgeCondition condition, TaskStatus status, bool took_branch);

/* TASK_READY, TASK_BLOCKED (a failure is why it does not run) or TASK_SKIPPED */
extern TaskStatus flow_decide(RunIf run_if, const FlowTally *tally);

/* The task is there for failures: they are dealt with when it succeeds. */
extern bool run_if_handles_failure(RunIf run_if);

#endif							/* WEIR_FLOW_H */
