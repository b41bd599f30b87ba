/*-------------------------------------------------------------------------
 * databricks_follow.c
 *	  What the Databricks kinds ask and read alike, and a job run from its
 *	  start to its end
 *
 * Runs in the conductor.  A run of the Jobs API is followed in the same way
 * whoever started it: run-now, a repair, or a one-time run.
 *
 * kind_state: started_ms, has_url, and what databricks_run.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define DEFAULT_SETTLE_SECONDS	30
#define MAX_TOKEN				64

char *
databricks_url(const KindCall *call, const char *method)
{
	return mem_printf("%s/api/2.2/jobs/%s", call->base_url, method);
}

void
databricks_json_body(KindRequest *request, cJSON *body)
{
	request->method = "POST";
	request->body = json_text(body);
	request->content_type = "application/json";
	cJSON_Delete(body);
}

void
databricks_add_strings(cJSON *body, const char *name, const cJSON *values)
{
	cJSON	   *strings;
	const cJSON *item;

	if (!cJSON_IsObject(values) || values->child == NULL)
		return;
	strings = cJSON_AddObjectToObject(body, name);
	cJSON_ArrayForEach(item, values)
	{
		/* null: the default of whoever declares the parameter */
		if (!cJSON_IsNull(item))
			cJSON_AddStringToObject(strings, item->string, kind_scalar_text(item));
	}
}

bool
databricks_check_call(const KindCall *call, KindProblem *problem)
{
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	return true;
}

bool
databricks_check_token(const KindCall *call, KindProblem *problem)
{
	if (call->token == NULL || *call->token == '\0' || strlen(call->token) > MAX_TOKEN)
		return kind_problem(problem, "$", "the token of the attempt must have 1 to 64 characters", NULL);
	return true;
}

double
databricks_settle_ms(const KindCall *call, double default_seconds)
{
	double		seconds = default_seconds;

	(void) json_double(kind_member(call->options, "settle_seconds"), &seconds);
	return seconds * 1000;
}

/* A run that was deleted, or is too old: 404, or 400 with a text */
bool
databricks_is_missing(const KindResponse *response)
{
	char	   *code;
	char	   *message;

	if (response->http_status == 404)
		return true;
	if (response->http_status != 400)
		return false;
	kind_body_error(response, &code, &message);
	return strcmp(code, "RESOURCE_DOES_NOT_EXIST") == 0 || strstr(message, "does not exist") != NULL;
}

/* Refusals that a cluster or a control plane in transition gives */
static bool
is_passing(const KindResponse *response)
{
	static const char *const texts[] = {
		"does not have any associated worker environments", "There is no worker environment with id",
		"Unknown worker environment", "ClusterNotReadyException", "Timed out after ", "deadline exceeded",
	};
	char	   *code;
	char	   *message;

	if (response->http_status < 400 || response->http_status > 499)
		return false;
	kind_body_error(response, &code, &message);
	for (size_t i = 0; i < lengthof(texts); i++)
	{
		if (strstr(message, texts[i]) != NULL)
			return true;
	}
	return strstr(message, "worker env") != NULL && strstr(message, "not found") != NULL;
}

bool
databricks_common_response(const KindCall *call, const KindResponse *response, bool starts_work,
						   bool is_repeatable, int max_tries, KindVerdict *verdict)
{
	char	   *code;
	char	   *message;

	if (kind_common_response(call, response, starts_work, is_repeatable, max_tries, verdict))
		return true;
	if (!is_passing(response))
		return false;
	kind_body_error(response, &code, &message);
	kind_unanswered(call, response->retry_after_ms, true, starts_work, is_repeatable, max_tries,
					code, mem_printf("HTTP %d: %s", response->http_status, message), verdict);
	return true;
}

cJSON *
databricks_read_object(const KindCall *call, const KindResponse *response, const char *what,
					   int max_tries, KindVerdict *verdict)
{
	cJSON	   *body;

	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return NULL;
	}
	body = kind_parse_object(response);
	if (body == NULL)
		kind_bad_answer(call, response, what, false, true, max_tries, verdict);
	return body;
}

bool
databricks_read_run(const KindCall *call, const KindResponse *response, int max_tries,
					const cJSON **run, JobState *state, KindVerdict *verdict)
{
	static const char what[] = "describes no job run";

	*run = databricks_read_object(call, response, what, max_tries, verdict);
	if (*run == NULL)
		return false;
	if (databricks_read_state(*run, state))
		return true;
	kind_bad_answer(call, response, what, false, true, max_tries, verdict);
	return false;
}

/* From here on there is a run */
void
databricks_follow(KindCall *call, int64 run_id, KindVerdict *verdict)
{
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	verdict->external_run_id = mem_printf(INT64_FORMAT, run_id);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

void
databricks_started(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		run_id;

	if (databricks_common_response(call, response, true, true, KIND_START_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	run_id = kind_int64(kind_parse_object(response), "run_id", 0);
	if (run_id > 0)
		databricks_follow(call, run_id, verdict);
	else
		kind_bad_answer(call, response, "names no run", true, true, KIND_START_TRIES, verdict);
}

void
databricks_get_run(const KindCall *call, int64 run_id, bool with_history, KindRequest *request)
{
	request->is_repeatable = true;
	request->method = "GET";
	request->url = mem_printf("%s?run_id=" INT64_FORMAT "%s", databricks_url(call, "runs/get"), run_id,
							  with_history ? "&include_history=true" : "");
}

bool
databricks_run_request(const KindCall *call, bool with_history, KindRequest *request, KindProblem *problem)
{
	cJSON	   *text = cJSON_CreateString(call->external_run_id ? call->external_run_id : "");
	int64		run_id;
	bool		known = json_int64(text, &run_id);

	cJSON_Delete(text);
	if (!known)
		return kind_problem(problem, "$", mem_printf("there is no job run for step \"%s\"", kind_step_name(call->step)), NULL);
	if (call->step == KIND_STEP_CANCEL)
	{
		cJSON	   *body = cJSON_CreateObject();

		cJSON_AddItemToObject(body, "run_id", json_from_int64(run_id));
		request->is_repeatable = true;
		request->url = databricks_url(call, "runs/cancel");
		databricks_json_body(request, body);
	}
	else
		databricks_get_run(call, run_id, with_history, request);
	return true;
}

KindStep
databricks_resume_run(const KindCall *call)
{
	if (kind_state_get(call, "task_token") != NULL || kind_state_get(call, "output_run_id") != NULL)
		return KIND_STEP_DETAIL;
	return KIND_STEP_POLL;
}

bool
databricks_poll_run(KindCall *call, const KindResponse *response, const cJSON **run, JobState *state,
					KindVerdict *verdict)
{
	int64		started_ms = kind_state_int64(call, "started_ms", call->intended_at_ms);
	const char *url;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return false;
	if (databricks_is_missing(response))
	{
		if (call->now_ms < started_ms + databricks_settle_ms(call, DEFAULT_SETTLE_SECONDS))
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, -1));
		else
			kind_fail_unknown(verdict, mem_printf("job run %s does not exist", call->external_run_id));
		return false;
	}
	if (!databricks_read_run(call, response, KIND_POLL_TRIES, run, state, verdict))
		return false;
	verdict->reset_tries = true;
	if (!cJSON_HasObjectItem(call->scratch, "polled"))
		cJSON_AddTrueToObject(call->scratch, "polled");
	url = kind_link(kind_member(*run, "run_page_url"));
	if (url != NULL && !kind_state_bool(call, "has_url"))
	{
		verdict->external_url = url;
		kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	}
	return true;
}

void
databricks_polled(KindCall *call, const cJSON *run, const JobState *state, KindVerdict *verdict)
{
	if (state->end == JOB_END_NONE)
		kind_continue(verdict, KIND_STEP_POLL, -1);
	else
		databricks_ended(call, run, state, verdict);
}

/* Asynchronous, and nothing for what has ended: its state says what came of it */
void
databricks_cancelled(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (databricks_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}
