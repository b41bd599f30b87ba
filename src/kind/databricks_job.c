/*-------------------------------------------------------------------------
 * databricks_job.c
 *	  Kind databricks_job: a run of a Databricks job
 *
 * Runs in the conductor.  Talks to the Jobs API, version 2.2.
 *
 *	  START (run-now) ------------------> POLL ... --> [DETAIL] --> outcome
 *	                                       ^
 *	  PREPARE --> START (repair) ----------+
 *	    |  ^        |  ^                   |
 *	    |  |refused |  |lost, not there    |
 *	    |  +--------+--LOOKUP--------------+
 *	    +--> the earlier run goes on, or ended well: POLL it
 *	    +--> it is gone: START (run-now)
 *
 * run-now is given the attempt's token: sent again, it answers with the same
 * run.  repair has no such thing, but latest_repair_id makes it a
 * compare-and-set: what PREPARE saw is committed before START sends it, so a
 * second START cannot repair twice, and LOOKUP tells from the repair history
 * whether the first one arrived.
 *
 * A repaired run keeps its id and leaves its terminal state again: its end
 * counts only when the history knows our repair, or its end time changed.
 *
 * kind_state: mode (run_now, repair, adopt), latest_repair_id,
 * earlier_end_ms, repair_id, refusals, starts, started_ms, has_url, and what
 * databricks_run.c keeps.  Ids are kept as text: they do not fit a double.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define DEFAULT_SETTLE_SECONDS	30
#define MAX_TOKEN				64
#define MAX_REFUSALS			2	/* of repair, then a new run is started */
#define MAX_UNSEEN_MS			((int64) 15 * 60 * 1000)

static const KindMember members[] = {
	{"job_id", KIND_TYPE_INTEGER | KIND_TYPE_STRING, true},
	{"job_parameters", KIND_TYPE_OBJECT, false},
	{"repair", KIND_TYPE_BOOLEAN, false},
	{"only", KIND_TYPE_ARRAY, false},
};

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	const cJSON *job = kind_member(spec, "job_id");
	const cJSON *only = kind_member(spec, "only");
	const cJSON *item;
	int64		id;
	int			i = 0;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!kind_has_reference(job) && (!json_int64(job, &id) || id <= 0))
		return kind_problem(problem, "$.job_id", "\"job_id\" must be a positive integer",
							"It is the number at the end of the job's address.");
	if (!cJSON_IsArray(only))
		return true;
	cJSON_ArrayForEach(item, only)
	{
		if (json_string(item) == NULL)
			return kind_problem(problem, mem_printf("$.only[%d]", i), "a task key must be a string", NULL);
		i++;
	}
	return true;
}

static void
databricks_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

char *
databricks_url(const KindCall *call, const char *method)
{
	return mem_printf("%s/api/2.2/jobs/%s", call->base_url, method);
}

/* The earlier run, if it may be repaired */
static bool
earlier_run(const KindCall *call, int64 *run_id)
{
	if (cJSON_IsFalse(kind_member(call->spec, "repair")))
		return false;
	return json_int64(kind_member(call->reference, "external_run_id"), run_id) && *run_id > 0;
}

static bool
mode_is(const KindCall *call, const char *mode)
{
	const char *current = kind_state_string(call, "mode");

	return current != NULL && strcmp(current, mode) == 0;
}

static KindStep
databricks_first_step(const KindCall *call)
{
	int64		earlier;

	return earlier_run(call, &earlier) ? KIND_STEP_PREPARE : KIND_STEP_START;
}

static KindStep
databricks_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
	{
		if (kind_state_get(call, "task_token") != NULL || kind_state_get(call, "output_run_id") != NULL)
			return KIND_STEP_DETAIL;
		return KIND_STEP_POLL;
	}
	/* PREPARE changes nothing, and run-now recognises its token */
	if (kind_state_string(call, "mode") == NULL)
		return databricks_first_step(call);
	return mode_is(call, "repair") ? KIND_STEP_LOOKUP : KIND_STEP_START;
}

static void
request_json(KindRequest *request, cJSON *body)
{
	request->method = "POST";
	request->body = json_text(body);
	request->content_type = "application/json";
	cJSON_Delete(body);
}

/* All values of job parameters are strings there */
static void
add_parameters(cJSON *body, const cJSON *parameters)
{
	cJSON	   *strings;
	const cJSON *item;

	if (!cJSON_IsObject(parameters) || parameters->child == NULL)
		return;
	strings = cJSON_AddObjectToObject(body, "job_parameters");
	cJSON_ArrayForEach(item, parameters)
	{
		/* null: the job's own default */
		if (!cJSON_IsNull(item))
			cJSON_AddStringToObject(strings, item->string, kind_scalar_text(item));
	}
}

static bool
run_now_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *only = kind_member(call->spec, "only");
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *queue;
	int64		job_id;

	if (!json_int64(kind_member(call->spec, "job_id"), &job_id) || job_id <= 0)
		return kind_problem(problem, "$.job_id", "\"job_id\" must be a positive integer", NULL);
	if (call->token == NULL || *call->token == '\0' || strlen(call->token) > MAX_TOKEN)
		return kind_problem(problem, "$", "the token of the attempt must have 1 to 64 characters", NULL);
	cJSON_AddItemToObject(body, "job_id", json_from_int64(job_id));
	cJSON_AddStringToObject(body, "idempotency_token", call->token);
	add_parameters(body, kind_member(call->spec, "job_parameters"));
	if (cJSON_IsArray(only) && only->child != NULL)
		cJSON_AddItemToObject(body, "only", cJSON_Duplicate(only, true));
	queue = cJSON_AddObjectToObject(body, "queue");
	cJSON_AddTrueToObject(queue, "enabled");
	request->url = databricks_url(call, "run-now");
	request->starts_work = true;
	request->is_repeatable = true;
	request_json(request, body);
	return true;
}

static void
repair_request(const KindCall *call, int64 run_id, KindRequest *request)
{
	cJSON	   *body = cJSON_CreateObject();
	int64		latest;

	cJSON_AddItemToObject(body, "run_id", json_from_int64(run_id));
	cJSON_AddTrueToObject(body, "rerun_all_failed_tasks");
	if (json_int64(kind_state_get(call, "latest_repair_id"), &latest))
		cJSON_AddItemToObject(body, "latest_repair_id", json_from_int64(latest));
	add_parameters(body, kind_member(call->spec, "job_parameters"));
	request->url = databricks_url(call, "runs/repair");
	request->starts_work = true;
	request_json(request, body);
}

static bool
databricks_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	int64		run_id = 0;
	bool		known;

	if (!check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (call->step == KIND_STEP_START && !mode_is(call, "repair"))
		return run_now_request(call, request, problem);
	if (call->step == KIND_STEP_DETAIL)
		return databricks_detail_request(call, request, problem);

	if (call->step == KIND_STEP_POLL || call->step == KIND_STEP_CANCEL)
	{
		cJSON	   *text = cJSON_CreateString(call->external_run_id ? call->external_run_id : "");

		known = json_int64(text, &run_id);
		cJSON_Delete(text);
	}
	else
		known = earlier_run(call, &run_id);
	if (!known)
		return kind_problem(problem, "$", mem_printf("there is no job run for step \"%s\"", kind_step_name(call->step)), NULL);

	if (call->step == KIND_STEP_START)
	{
		repair_request(call, run_id, request);
		return true;
	}
	request->is_repeatable = true;
	if (call->step == KIND_STEP_CANCEL)
	{
		cJSON	   *body = cJSON_CreateObject();

		cJSON_AddItemToObject(body, "run_id", json_from_int64(run_id));
		request->url = databricks_url(call, "runs/cancel");
		request_json(request, body);
		return true;
	}
	request->method = "GET";
	request->url = mem_printf("%s?run_id=" INT64_FORMAT "%s", databricks_url(call, "runs/get"), run_id,
							  call->step != KIND_STEP_POLL || mode_is(call, "repair") ? "&include_history=true" : "");
	return true;
}

/* A run that was deleted, or is too old: 404, or 400 with a text */
static bool
is_missing(const KindResponse *response)
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

/* kind_common_response, and what only Databricks says */
static bool
common_response(const KindCall *call, const KindResponse *response, bool starts_work,
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

/* Entry of the repair history that began last, not counting the original run; or NULL */
static const cJSON *
newest_repair(const cJSON *run)
{
	const cJSON *history = kind_member(run, "repair_history");
	const cJSON *item;
	const cJSON *newest = NULL;

	if (!cJSON_IsArray(history))
		return NULL;
	cJSON_ArrayForEach(item, history)
	{
		const char *type = kind_string(item, "type");

		if (kind_id(item, "id") == NULL || (type != NULL && strcmp(type, "ORIGINAL") == 0))
			continue;
		if (newest == NULL || kind_int64(item, "start_time", 0) >= kind_int64(newest, "start_time", 0))
			newest = item;
	}
	return newest;
}

static bool
same_text(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

/* The state of a run that was asked for, or false and the verdict says how to go on */
static bool
read_run(const KindCall *call, const KindResponse *response, int max_tries,
		 const cJSON **run, JobState *state, KindVerdict *verdict)
{
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return false;
	}
	*run = kind_parse_object(response);
	if (*run != NULL && databricks_read_state(*run, state))
		return true;
	kind_bad_answer(call, response, "describes no job run", false, true, max_tries, verdict);
	return false;
}

/* From here on there is a run */
static void
follow(KindCall *call, int64 run_id, KindVerdict *verdict)
{
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	verdict->external_run_id = mem_printf(INT64_FORMAT, run_id);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

static void
follow_repair(KindCall *call, const char *repair_id, KindVerdict *verdict)
{
	int64		run_id = 0;

	(void) earlier_run(call, &run_id);
	kind_state_set_string(call, verdict, "repair_id", repair_id);
	follow(call, run_id, verdict);
}

static void
start_anew(KindCall *call, KindVerdict *verdict)
{
	kind_state_set_string(call, verdict, "mode", "run_now");
	kind_state_drop(call, verdict, "latest_repair_id");
	kind_state_drop(call, verdict, "maybe_started");
	kind_continue(verdict, KIND_STEP_START, 0);
}

static void
prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *run;
	const cJSON *newest;
	JobState	state;
	char	   *latest;
	int64		earlier = 0;
	int64		wanted = 0;

	if (common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	if (is_missing(response))
	{
		start_anew(call, verdict);
		return;
	}
	if (!read_run(call, response, KIND_LOOK_TRIES, &run, &state, verdict))
		return;
	(void) earlier_run(call, &earlier);
	(void) json_int64(kind_member(call->spec, "job_id"), &wanted);
	newest = newest_repair(run);
	latest = newest ? kind_id(newest, "id") : NULL;

	if (kind_int64(run, "job_id", wanted) != wanted)
		start_anew(call, verdict);	/* the task was pointed at another job */
	else if (mode_is(call, "repair") && kind_state_bool(call, "maybe_started") &&
			 latest != NULL && !same_text(latest, kind_state_string(call, "latest_repair_id")))
		follow_repair(call, latest, verdict);
	else if (state.end == JOB_END_NONE || state.end == JOB_END_SUCCEEDED)
	{
		kind_state_set_string(call, verdict, "mode", "adopt");
		follow(call, earlier, verdict);
	}
	else if (state.end == JOB_END_SKIPPED || kind_state_int64(call, "refusals", 0) >= MAX_REFUSALS)
		start_anew(call, verdict);
	else
	{
		kind_state_set_string(call, verdict, "mode", "repair");
		kind_state_drop(call, verdict, "latest_repair_id");
		kind_state_drop(call, verdict, "maybe_started");
		if (latest != NULL)
			kind_state_set_string(call, verdict, "latest_repair_id", latest);
		kind_state_set_int64(call, verdict, "earlier_end_ms", kind_int64(run, "end_time", 0));
		kind_continue(verdict, KIND_STEP_START, 0);
	}
}

static void
run_now_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		run_id;

	if (common_response(call, response, true, true, KIND_START_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	run_id = kind_int64(kind_parse_object(response), "run_id", 0);
	if (run_id > 0)
		follow(call, run_id, verdict);
	else
		kind_bad_answer(call, response, "names no run", true, true, KIND_START_TRIES, verdict);
}

static void
repair_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	char	   *repair_id;

	if (common_response(call, response, true, false, KIND_START_TRIES, verdict))
		return;
	if (response->http_status == 400 || response->http_status == 404 || response->http_status == 409)
	{
		/* somebody else was faster, or it cannot be repaired: look again */
		kind_state_set_int64(call, verdict, "refusals", kind_state_int64(call, "refusals", 0) + 1);
		kind_continue(verdict, KIND_STEP_PREPARE, kind_retry_delay(call, response->retry_after_ms));
		return;
	}
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	repair_id = kind_id(kind_parse_object(response), "repair_id");
	if (repair_id != NULL)
		follow_repair(call, repair_id, verdict);
	else
		kind_bad_answer(call, response, "names no repair", true, false, KIND_START_TRIES, verdict);
}

/* Did our repair arrive? */
static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);
	int64		earlier = 0;
	const cJSON *run;
	const cJSON *newest;
	JobState	state;
	char	   *latest;

	if (common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (is_missing(response))
	{
		start_anew(call, verdict);
		return;
	}
	if (!read_run(call, response, KIND_POLL_TRIES, &run, &state, verdict))
		return;
	(void) earlier_run(call, &earlier);
	newest = newest_repair(run);
	latest = newest ? kind_id(newest, "id") : NULL;
	if (latest != NULL && !same_text(latest, kind_state_string(call, "latest_repair_id")))
		follow_repair(call, latest, verdict);
	else if (state.end == JOB_END_NONE)
	{
		/* it had ended, and goes on: being repaired, even if the history does not say so yet */
		kind_state_set_string(call, verdict, "mode", "adopt");
		follow(call, earlier, verdict);
	}
	else if (starts >= KIND_MAX_STARTS)
		kind_fail_unknown(verdict, mem_printf("repair of run " INT64_FORMAT " was sent %d times and never answered; look at the run before it is started again",
											  earlier, KIND_MAX_STARTS));
	else
	{
		/* maybe_started stays: latest_repair_id guards the next one */
		kind_state_set_int64(call, verdict, "starts", starts + 1);
		kind_continue(verdict, KIND_STEP_START, kind_retry_delay(call, -1));
	}
}

/* Does the end of a repaired run include our repair? */
static bool
repair_counts(const KindCall *call, const cJSON *run)
{
	const char *ours = kind_state_string(call, "repair_id");
	const cJSON *history = kind_member(run, "repair_history");
	int64		end_ms = kind_int64(run, "end_time", 0);
	const cJSON *item;
	JobState	state;

	if (cJSON_IsArray(history))
	{
		cJSON_ArrayForEach(item, history)
		{
			if (ours != NULL && same_text(kind_id(item, "id"), ours))
				return !databricks_read_state(item, &state) || state.end != JOB_END_NONE;
		}
	}
	return end_ms > 0 && end_ms != kind_state_int64(call, "earlier_end_ms", 0);
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		started_ms = kind_state_int64(call, "started_ms", call->intended_at_ms);
	double		settle = DEFAULT_SETTLE_SECONDS;
	const cJSON *run;
	const char *url;
	JobState	state;

	if (common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (is_missing(response))
	{
		(void) json_double(kind_member(call->options, "settle_seconds"), &settle);
		if (call->now_ms < started_ms + settle * 1000)
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, -1));
		else
			kind_fail_unknown(verdict, mem_printf("job run %s does not exist", call->external_run_id));
		return;
	}
	if (!read_run(call, response, KIND_POLL_TRIES, &run, &state, verdict))
		return;
	verdict->reset_tries = true;
	url = kind_link(kind_member(run, "run_page_url"));
	if (url != NULL && !kind_state_bool(call, "has_url"))
	{
		verdict->external_url = url;
		kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	}
	if (state.end != JOB_END_NONE && mode_is(call, "repair") && !repair_counts(call, run))
	{
		if (call->now_ms > started_ms + MAX_UNSEEN_MS)
		{
			kind_fail_unknown(verdict, mem_printf("repair %s of job run %s does not show up in the run",
												  kind_state_string(call, "repair_id"), call->external_run_id));
			return;
		}
		state.end = JOB_END_NONE;
	}
	if (state.end == JOB_END_NONE)
		kind_continue(verdict, KIND_STEP_POLL, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
	else
		databricks_ended(call, run, &state, verdict);
}

/* Asynchronous, and nothing for a run that has ended: its state says what came of it */
static void
cancel_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

static void
databricks_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			prepare_response(call, response, verdict);
			break;
		case KIND_STEP_START:
			if (mode_is(call, "repair"))
				repair_response(call, response, verdict);
			else
				run_now_response(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
			lookup_response(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			poll_response(call, response, verdict);
			break;
		case KIND_STEP_DETAIL:
			databricks_detail_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			cancel_response(call, response, verdict);
			break;
	}
}

const TaskKind kind_databricks_job = {
	.name = "databricks_job",
	.connection_kind = "databricks",
	.is_http = true,
	.validate = databricks_validate,
	.first_step = databricks_first_step,
	.resume_step = databricks_resume_step,
	.request = databricks_request,
	.response = databricks_response,
};
