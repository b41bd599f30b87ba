/*-------------------------------------------------------------------------
 * databricks_int.h
 *	  What databricks_job.c and databricks_run.c share
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DATABRICKS_INT_H
#define WEIR_DATABRICKS_INT_H

#include "kind_int.h"

typedef enum JobEnd
{
	JOB_END_NONE,				/* not ended */
	JOB_END_SUCCEEDED,
	JOB_END_FAILED,
	JOB_END_CANCELLED,
	JOB_END_SKIPPED				/* did not run at all */
} JobEnd;

/* How a run, a task run or a repair is; points into what was read */
typedef struct JobState
{
	JobEnd		end;
	const char *code;			/* of what it ended with, or NULL */
	const char *type;			/* SUCCESS, CLIENT_ERROR, INTERNAL_ERROR, CLOUD_FAILURE, or NULL */
	const char *message;		/* or NULL */
} JobState;

/* False if it says nothing about its state */
extern bool databricks_read_state(const cJSON *run, JobState *state);

/* The run has ended: keep what is said about it, go on to DETAIL or give the outcome */
extern void databricks_ended(KindCall *call, const cJSON *run, const JobState *state, KindVerdict *verdict);
extern bool databricks_detail_request(const KindCall *call, KindRequest *request, KindProblem *problem);
extern void databricks_detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

extern char *databricks_url(const KindCall *call, const char *method);	/* e.g. "runs/get" */

#endif							/* WEIR_DATABRICKS_INT_H */
