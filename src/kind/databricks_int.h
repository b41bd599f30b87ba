/*-------------------------------------------------------------------------
 * databricks_int.h
 *	  What the files of the Databricks kinds share
 *
 * Ownership and errors as in kind_int.h.
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

/* databricks_follow.c: requests */
extern char *databricks_url(const KindCall *call, const char *method);	/* of the Jobs API, e.g. "runs/get" */
extern void databricks_json_body(KindRequest *request, cJSON *body);	/* a POST; frees body */
extern void databricks_add_strings(cJSON *body, const char *name, const cJSON *values); /* an object's values, as text */
extern bool databricks_check_call(const KindCall *call, KindProblem *problem);	/* there is a base URL */
extern bool databricks_check_token(const KindCall *call, KindProblem *problem); /* it fits an idempotency_token */
extern double databricks_settle_ms(const KindCall *call, double default_seconds);

/* ... and answers */
extern bool databricks_is_missing(const KindResponse *response);
/* kind_common_response, and what only Databricks says */
extern bool databricks_common_response(const KindCall *call, const KindResponse *response, bool starts_work,
									   bool is_repeatable, int max_tries, KindVerdict *verdict);
/* Of an exchange that starts nothing: its object, or NULL and the verdict says how to go on; "what" as in kind_bad_answer */
extern cJSON *databricks_read_object(const KindCall *call, const KindResponse *response, const char *what,
									 int max_tries, KindVerdict *verdict);

/* ... and a run of the Jobs API */
extern void databricks_follow(KindCall *call, int64 run_id, KindVerdict *verdict);
extern void databricks_started(KindCall *call, const KindResponse *response, KindVerdict *verdict); /* of run-now, submit */
extern void databricks_get_run(const KindCall *call, int64 run_id, bool with_history, KindRequest *request);
extern bool databricks_run_request(const KindCall *call, bool with_history, KindRequest *request,
								   KindProblem *problem);	/* POLL and CANCEL */
extern KindStep databricks_resume_run(const KindCall *call);	/* of a run with an id */
/* The state of a run that was asked for, or false and the verdict says how to go on */
extern bool databricks_read_run(const KindCall *call, const KindResponse *response, int max_tries,
								const cJSON **run, JobState *state, KindVerdict *verdict);
/* POLL: the same; then, of what was read, databricks_polled */
extern bool databricks_poll_run(KindCall *call, const KindResponse *response, const cJSON **run, JobState *state,
								KindVerdict *verdict);
extern void databricks_polled(KindCall *call, const cJSON *run, const JobState *state, KindVerdict *verdict);
extern void databricks_cancelled(KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* databricks_run.c.  False if it says nothing about its state */
extern bool databricks_read_state(const cJSON *run, JobState *state);
/* The run has ended: keep what is said about it, go on to DETAIL or give the outcome */
extern void databricks_ended(KindCall *call, const cJSON *run, const JobState *state, KindVerdict *verdict);
extern bool databricks_detail_request(const KindCall *call, KindRequest *request, KindProblem *problem);
extern void databricks_detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* databricks_list.c: of all runs of the Jobs API, whatever started them */
extern const KindListing databricks_listing;

#define DATABRICKS_MAX_TASKS 2000 /* of a job that are kept */

/* databricks_output.c: what get-output says of a one-time run, into the verdict */
extern void databricks_add_result(const cJSON *result, cJSON *output, KindVerdict *verdict);
/* ... and of the tasks of a job that the spec names: the run to be asked next, or NULL when all were */
extern const char *databricks_next_output(KindCall *call, KindVerdict *verdict);
/* ... and which of them the job run does not have: in the output and among the activities */
extern void databricks_note_unknown(const KindCall *call, cJSON *output, cJSON *activities);
/* What that run answered, NULL if nothing of use; false: it was not asked for this */
extern bool databricks_keep_output(KindCall *call, const cJSON *result, KindVerdict *verdict);

/* databricks_statement.c: what came of a SQL statement */
extern void databricks_statement_ended(KindCall *call, const cJSON *statement, KindVerdict *verdict);
extern bool databricks_chunk_request(const KindCall *call, KindRequest *request, KindProblem *problem);
extern void databricks_chunk_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

#define UPDATE_SETTLE_SECONDS	30	/* that a new update may take to be listed */
/* Members of the spec that an update shows again */
#define DATABRICKS_UPDATE_FLAGS			"full_refresh", "validate_only"
#define DATABRICKS_UPDATE_SELECTIONS	"refresh_selection", "full_refresh_selection"

/* databricks_pipeline.c: of several exchanges in one step, is it this one's turn? */
extern bool databricks_stage_is(const KindCall *call, const char *stage);
/* databricks_update.c: which update of a pipeline is ours; answers of PREPARE, START and LOOKUP */
extern bool databricks_update_is_ended(const cJSON *update);
extern char *databricks_update_place(const KindCall *call, int64 *lag_ms);	/* TaskKind.start_place */
extern void databricks_update_link(KindCall *call, const char *update_id, KindVerdict *verdict);
extern void databricks_update_follow(KindCall *call, const char *update_id, KindVerdict *verdict);
extern void databricks_update_prepared(KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern void databricks_update_started(KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern void databricks_update_looked_up(KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* databricks_flows.c: what the events say of an update of a pipeline */
extern bool databricks_events_request(const KindCall *call, KindRequest *request, KindProblem *problem);
/* False: go on with the verdict; true: all events were read, or cannot be */
extern bool databricks_events_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern void databricks_flows_into(const KindCall *call, cJSON *output, KindVerdict *verdict);

#endif							/* WEIR_DATABRICKS_INT_H */
