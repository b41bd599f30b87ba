/*-------------------------------------------------------------------------
 * databricks_pipeline.c
 *	  Kind databricks_pipeline: an update of a Lakeflow declarative pipeline
 *
 * Runs in the conductor.  Talks to the Pipelines API.
 *
 *	  PREPARE --> START (updates) -----> POLL ... --> DETAIL --> outcome
 *	   ^  |  ^      |    |                ^             |
 *	   |  |  |refused    |lost            |             | retried by the
 *	   |  |  +------+    v                |             | pipeline: follow
 *	   |  |            LOOKUP ------------+<------------+ the new update
 *	   +--+ an update is active: wait
 *
 * The API has no idempotency token.  But a pipeline has one active update at
 * a time, and updates are listed: PREPARE remembers the newest update, and
 * that is committed before START is sent.  An update of the wanted shape that
 * is newer than it, asked for through the API, is the one START began.
 *
 * An update that fails may be tried again by the pipeline itself, as a new
 * update whose cause says so.  It takes the place of the one that failed.
 *
 * Stopping is of the pipeline, whatever its active update is.  So CANCEL
 * first sees that ours is still the active one.
 *
 * kind_state: start_place, before, before_ms, refusals, starts, looking_since_ms,
 * started_ms, has_url, created_ms, may_stop, stage (latest, candidate, events),
 * candidate, failed_ms, unsure, end, and what databricks_flows.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define RETRY_SECONDS		120 /* that a pipeline that recovers may take to begin again */
#define MAX_SELECTION		1000

static const KindMember members[] = {
	{"pipeline_id", KIND_TYPE_STRING, true},
	{"full_refresh", KIND_TYPE_BOOLEAN, false},
	{"refresh_selection", KIND_TYPE_ARRAY, false},
	{"full_refresh_selection", KIND_TYPE_ARRAY, false},
	{"validate_only", KIND_TYPE_BOOLEAN, false},
	{"parameters", KIND_TYPE_OBJECT, false},
	{"when_active", KIND_TYPE_STRING, false},
};

static const char *const flags[] = {DATABRICKS_UPDATE_FLAGS};
static const char *const selections[] = {DATABRICKS_UPDATE_SELECTIONS};

/* --- the spec -------------------------------------------------------------- */

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	static const char *const policies[] = {"wait", "fail", NULL};
	const char *empty = NULL;
	int			selected = 0;

	if (!kind_check_members(spec, members, lengthof(members), problem) ||
		!kind_check_id(spec, "pipeline_id", "It is in the address of the pipeline's page: .../pipelines/PIPELINE_ID", problem))
		return false;
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		if (!kind_check_texts(spec, selections[i], "the name of a table", MAX_SELECTION, problem))
			return false;
		if (cJSON_GetArraySize(kind_member(spec, selections[i])) > 0 && cJSON_IsTrue(kind_member(spec, "full_refresh")))
			return kind_problem(problem, mem_printf("$.%s", selections[i]), "\"full_refresh\" is of all tables",
								"Leave out \"full_refresh\", or the selection.");
		selected += kind_member(spec, selections[i]) == NULL ? 0 : cJSON_IsArray(kind_member(spec, selections[i])) ?
			cJSON_GetArraySize(kind_member(spec, selections[i])) : 1;
		if (empty == NULL && kind_member(spec, selections[i]) != NULL)
			empty = selections[i];
	}
	if (empty != NULL && selected == 0)
		return kind_problem(problem, mem_printf("$.%s", empty), "no table is selected",
							"Databricks takes an empty selection for all tables: leave it out for these, or skip the task when there is nothing to refresh.");
	return kind_check_scalars(spec, "parameters", "a parameter", problem) &&
		kind_check_choice(spec, "when_active", policies,
						  "A pipeline has one active update at a time; this says what happens when there is another one.", problem);
}

static void
pipeline_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

/* --- requests -------------------------------------------------------------- */

static char *
pipeline_url(const KindCall *call, const char *what, const char *update_id)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/api/2.0/pipelines/", call->base_url);
	kind_url_encode(&url, kind_string(call->spec, "pipeline_id"));
	strbuf_addstr(&url, what);
	if (update_id != NULL)
	{
		strbuf_addchar(&url, '/');
		kind_url_encode(&url, update_id);
	}
	return url.data;
}

static void
start_request(const KindCall *call, KindRequest *request)
{
	cJSON	   *body = cJSON_CreateObject();

	for (size_t i = 0; i < lengthof(flags); i++)
	{
		if (cJSON_IsTrue(kind_member(call->spec, flags[i])))
			cJSON_AddTrueToObject(body, flags[i]);
	}
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		const cJSON *list = kind_member(call->spec, selections[i]);

		if (cJSON_IsArray(list) && list->child != NULL)
			cJSON_AddItemToObject(body, selections[i], cJSON_Duplicate(list, true));
	}
	databricks_add_strings(body, "parameters", kind_member(call->spec, "parameters"));
	cJSON_AddStringToObject(body, "cause", "API_CALL");
	request->url = pipeline_url(call, "/updates", NULL);
	request->starts_work = true;
	databricks_json_body(request, body);
}

bool
databricks_stage_is(const KindCall *call, const char *stage)
{
	const char *current = kind_state_string(call, "stage");

	return current != NULL && strcmp(current, stage) == 0;
}

static bool
pipeline_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	if (!check_spec(call->spec, problem) || !databricks_check_call(call, problem))
		return false;
	if (call->step == KIND_STEP_START)
	{
		start_request(call, request);
		return true;
	}
	request->method = "GET";
	request->is_repeatable = true;
	if (call->step == KIND_STEP_PREPARE || call->step == KIND_STEP_LOOKUP)
	{
		request->url = mem_printf("%s?max_results=25", pipeline_url(call, "/updates", NULL));
		return true;
	}
	if (call->external_run_id == NULL)
		return kind_problem(problem, "$", mem_printf("there is no update for step \"%s\"", kind_step_name(call->step)), NULL);
	if (call->step == KIND_STEP_CANCEL && kind_state_bool(call, "may_stop"))
	{
		request->url = pipeline_url(call, "/stop", NULL);
		databricks_json_body(request, cJSON_CreateObject());
	}
	else if (call->step != KIND_STEP_DETAIL)
		request->url = pipeline_url(call, "/updates", call->external_run_id);
	else if (databricks_stage_is(call, "events"))
		return databricks_events_request(call, request, problem);
	else if (databricks_stage_is(call, "candidate"))
		request->url = pipeline_url(call, "/updates", kind_state_string(call, "candidate"));
	else
		request->url = pipeline_url(call, "", NULL);
	return true;
}

/* --- the end --------------------------------------------------------------- */

static void
begin_stage(KindCall *call, const char *stage, int64 delay_ms, KindVerdict *verdict)
{
	kind_state_set_string(call, verdict, "stage", stage);
	/* counts begin anew, should they have been interrupted by a cancel */
	kind_state_drop(call, verdict, "event_token");
	kind_state_drop(call, verdict, "event_pages");
	kind_state_drop(call, verdict, "flows");
	kind_state_drop(call, verdict, "error");
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_DETAIL, delay_ms);
}

/* All that can be known is: the outcome */
static void
finish(KindCall *call, KindVerdict *verdict)
{
	const char *end = kind_state_string(call, "end");
	cJSON	   *output = cJSON_CreateObject();

	kind_verdict_init(verdict);
	cJSON_AddStringToObject(output, "update_id", call->external_run_id);
	cJSON_AddStringToObject(output, "state", end ? end : "");
	if (end != NULL && strcmp(end, "COMPLETED") == 0)
		verdict->outcome = KIND_SUCCEEDED;
	else if (end != NULL && strcmp(end, "CANCELED") == 0)
	{
		kind_fail(verdict, false, false, "cancelled", mem_printf("update %s was cancelled", call->external_run_id));
		verdict->outcome = KIND_CANCELLED;
	}
	else
		kind_fail(verdict, false, true, "FAILED", mem_printf("update %s failed without a message", call->external_run_id));
	/* counts, and the text of the error */
	databricks_flows_into(call, output, verdict);
	verdict->output = output;
	if (verdict->outcome == KIND_FAILED && kind_state_bool(call, "unsure"))
	{
		verdict->is_retryable = false;
		verdict->may_go_on = true;
	}
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *update;
	const char *state;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (databricks_is_missing(response))
	{
		if (call->now_ms < kind_state_int64(call, "started_ms", call->intended_at_ms) + databricks_settle_ms(call, UPDATE_SETTLE_SECONDS))
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, -1));
		else
			kind_fail_unknown(verdict, mem_printf("update %s does not exist", call->external_run_id));
		return;
	}
	update = kind_member(databricks_read_object(call, response, "describes no update", KIND_POLL_TRIES, verdict), "update");
	if (verdict->outcome != KIND_CONTINUE)
		return;
	state = kind_string(update, "state");
	if (state == NULL)
	{
		kind_bad_answer(call, response, "describes no update", false, true, KIND_POLL_TRIES, verdict);
		return;
	}
	verdict->reset_tries = true;
	kind_state_drop(call, verdict, "may_stop");
	/* an update that somebody named was not followed here */
	if (!kind_state_bool(call, "has_url"))
		databricks_update_link(call, call->external_run_id, verdict);
	if (kind_state_get(call, "created_ms") == NULL)
		kind_state_set_int64(call, verdict, "created_ms", kind_int64(update, "creation_time", call->intended_at_ms));
	if (!databricks_update_is_ended(update))
	{
		kind_continue(verdict, KIND_STEP_POLL, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
		return;
	}
	kind_state_set_string(call, verdict, "end", state);
	if (strcmp(state, "FAILED") == 0)
	{
		kind_state_set_int64(call, verdict, "failed_ms", call->now_ms);
		begin_stage(call, "latest", 0, verdict);
	}
	else
		begin_stage(call, "events", 0, verdict);
}

/* The update right after ours among the pipeline's latest ones, or NULL */
static char *
next_update(const KindCall *call, const cJSON *pipeline)
{
	const cJSON *list = kind_member(pipeline, "latest_updates");
	const cJSON *item;
	char	   *newer = NULL;

	if (!cJSON_IsArray(list))
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		char	   *id = kind_id(item, "update_id");

		if (id != NULL && strcmp(id, call->external_run_id) == 0)
			return newer;
		newer = id;
	}
	return NULL;
}

/* It failed: does the pipeline try again? */
static void
latest_response(KindCall *call, const cJSON *pipeline, KindVerdict *verdict)
{
	static const char *const active[] = {"RECOVERING", "STARTING", "DEPLOYING", "RESETTING", "RUNNING"};
	const char *state = kind_string(pipeline, "state");
	char	   *newer = next_update(call, pipeline);
	bool		is_active = false;

	for (size_t i = 0; state != NULL && i < lengthof(active); i++)
		is_active |= strcmp(active[i], state) == 0;
	if (newer != NULL)
	{
		kind_state_set_string(call, verdict, "candidate", newer);
		begin_stage(call, "candidate", 0, verdict);
	}
	else if (is_active && call->now_ms < kind_state_int64(call, "failed_ms", 0) + RETRY_SECONDS * 1000)
	{
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_DETAIL, kind_retry_delay(call, -1));
	}
	else
		begin_stage(call, "events", 0, verdict);
}

static void
detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *body;

	if (databricks_stage_is(call, "events"))
	{
		if (databricks_events_response(call, response, verdict))
			finish(call, verdict);
		return;
	}
	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	body = response->http_status == 200 && response->transport_error == NULL ? kind_parse_object(response) : NULL;
	if (body == NULL && response->http_status == 200 && response->transport_error == NULL)
	{
		kind_bad_answer(call, response, "describes no pipeline", false, true, KIND_LOOK_TRIES, verdict);
		if (verdict->outcome == KIND_CONTINUE)
			return;
		kind_verdict_init(verdict);
	}
	if (body == NULL)
	{
		/* whether the pipeline tries again is not known */
		kind_state_set(call, verdict, "unsure", cJSON_CreateTrue());
		begin_stage(call, "events", 0, verdict);
		return;
	}
	if (databricks_stage_is(call, "candidate"))
	{
		const char *cause = kind_string(kind_member(body, "update"), "cause");

		if (cause != NULL && strcmp(cause, "RETRY_ON_FAILURE") == 0)
		{
			kind_state_drop(call, verdict, "end");
			databricks_update_follow(call, kind_state_string(call, "candidate"), verdict);
		}
		else
			begin_stage(call, "events", 0, verdict);
	}
	else
		latest_response(call, body, verdict);
}

/* Stopping stops whatever update is active: only if it is ours */
static void
cancel_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *update;

	if (databricks_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	if (kind_state_bool(call, "may_stop"))
	{
		kind_state_drop(call, verdict, "may_stop");
		kind_continue(verdict, KIND_STEP_POLL, -1);
		return;
	}
	update = kind_member(response->transport_error == NULL ? kind_parse_object(response) : NULL, "update");
	if (kind_string(update, "state") == NULL || databricks_update_is_ended(update))
	{
		kind_continue(verdict, KIND_STEP_POLL, -1);
		return;
	}
	kind_state_set(call, verdict, "may_stop", cJSON_CreateTrue());
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_CANCEL, 0);
}

static void
pipeline_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			databricks_update_prepared(call, response, verdict);
			break;
		case KIND_STEP_START:
			databricks_update_started(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
			databricks_update_looked_up(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			poll_response(call, response, verdict);
			break;
		case KIND_STEP_DETAIL:
			detail_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			cancel_response(call, response, verdict);
			break;
	}
}

static KindStep
pipeline_first_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_PREPARE;
}

static KindStep
pipeline_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
		return kind_state_get(call, "stage") != NULL ? KIND_STEP_DETAIL : KIND_STEP_POLL;
	return kind_state_get(call, "start_place") != NULL ? KIND_STEP_LOOKUP : KIND_STEP_PREPARE;
}

const TaskKind kind_databricks_pipeline = {
	.name = "databricks_pipeline",
	.connection_kind = "databricks",
	.is_http = true,
	.validate = pipeline_validate,
	.first_step = pipeline_first_step,
	.resume_step = pipeline_resume_step,
	.request = pipeline_request,
	.response = pipeline_response,
	.start_place = databricks_update_place,
};
