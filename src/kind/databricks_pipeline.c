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
 * kind_state: before, before_ms, refusals, starts, looking_since_ms,
 * started_ms, has_url, created_ms, may_stop, stage (latest, candidate, events),
 * candidate, failed_ms, unsure, end, and what databricks_flows.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define SETTLE_SECONDS		30	/* that a new update may take to be listed */
#define RETRY_SECONDS		120 /* that a pipeline that recovers may take to begin again */
#define MAX_REFUSALS		20
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

static const char *const flags[] = {"full_refresh", "validate_only"};
static const char *const selections[] = {"refresh_selection", "full_refresh_selection"};

/* --- the spec -------------------------------------------------------------- */

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	static const char *const policies[] = {"wait", "fail", NULL};

	if (!kind_check_members(spec, members, lengthof(members), problem) || !kind_check_filled(spec, "pipeline_id", problem))
		return false;
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		if (!kind_check_texts(spec, selections[i], "the name of a table", MAX_SELECTION, problem))
			return false;
		if (cJSON_GetArraySize(kind_member(spec, selections[i])) > 0 && cJSON_IsTrue(kind_member(spec, "full_refresh")))
			return kind_problem(problem, mem_printf("$.%s", selections[i]), "\"full_refresh\" is of all tables",
								"Leave out \"full_refresh\", or the selection.");
	}
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

static bool
stage_is(const KindCall *call, const char *stage)
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
	else if (stage_is(call, "events"))
		return databricks_events_request(call, request, problem);
	else if (stage_is(call, "candidate"))
		request->url = pipeline_url(call, "/updates", kind_state_string(call, "candidate"));
	else
		request->url = pipeline_url(call, "", NULL);
	return true;
}

/* --- updates --------------------------------------------------------------- */

/* A closed list: what is not on it goes on */
static bool
is_ended(const cJSON *update)
{
	const char *state = kind_string(update, "state");

	return state != NULL && (strcmp(state, "COMPLETED") == 0 || strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELED") == 0);
}

/* Is there the same in the spec and in the update?  Absent is empty. */
static bool
same_selection(const cJSON *one, const cJSON *other)
{
	const cJSON *a;
	const cJSON *b;

	if (cJSON_GetArraySize(one) != cJSON_GetArraySize(other))
		return false;
	cJSON_ArrayForEach(a, one)
	{
		bool		found = false;

		cJSON_ArrayForEach(b, other)
			found |= cJSON_Compare(a, b, true);
		if (!found)
			return false;
	}
	return true;
}

static bool
is_of_our_shape(const KindCall *call, const cJSON *update)
{
	const char *cause = kind_string(update, "cause");

	if (cause != NULL && strcmp(cause, "API_CALL") != 0)
		return false;
	for (size_t i = 0; i < lengthof(flags); i++)
	{
		if (cJSON_IsTrue(kind_member(update, flags[i])) != cJSON_IsTrue(kind_member(call->spec, flags[i])))
			return false;
	}
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		if (!same_selection(kind_member(call->spec, selections[i]), kind_member(update, selections[i])))
			return false;
	}
	return true;
}

static void
show_link(KindCall *call, const char *update_id, KindVerdict *verdict)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/#joblist/pipelines/", call->base_url);
	kind_url_encode(&url, kind_string(call->spec, "pipeline_id"));
	strbuf_addstr(&url, "/updates/");
	kind_url_encode(&url, update_id);
	kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	verdict->external_url = kind_link(cJSON_CreateString(url.data));
}

/* From here on there is an update, or another one took its place */
static void
follow(KindCall *call, const char *update_id, KindVerdict *verdict)
{
	/* it may be part of what is dropped below */
	update_id = mem_strdup(update_id);
	show_link(call, update_id, verdict);
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	kind_state_drop(call, verdict, "stage");
	kind_state_drop(call, verdict, "candidate");
	kind_state_drop(call, verdict, "failed_ms");
	kind_state_drop(call, verdict, "created_ms");
	verdict->external_run_id = update_id;
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

/* The earlier attempt's update, if it goes on or ended well */
static const char *
earlier_update(const KindCall *call, const cJSON *list)
{
	const char *earlier = kind_string(call->reference, "external_run_id");
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		char	   *id = kind_id(item, "update_id");
		const char *state = kind_string(item, "state");

		if (earlier != NULL && id != NULL && state != NULL && strcmp(id, earlier) == 0 &&
			(!is_ended(item) || strcmp(state, "COMPLETED") == 0))
			return id;
	}
	return NULL;
}

/* The first update after the one that PREPARE saw that can be ours, or NULL; the list is newest first */
static const char *
begun_update(const KindCall *call, const cJSON *list)
{
	const char *before = kind_state_string(call, "before");
	int64		before_ms = kind_state_int64(call, "before_ms", 0);
	const cJSON *item;
	const char *found = NULL;

	if (!cJSON_IsArray(list))
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		char	   *id = kind_id(item, "update_id");

		if (id == NULL || (before != NULL && strcmp(id, before) == 0) ||
			kind_int64(item, "creation_time", INT64_MAX) < before_ms)
			break;
		if (is_of_our_shape(call, item))
			found = id;
	}
	return found;
}

static void
prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *body;
	const cJSON *list;
	const cJSON *newest;
	const char *when = kind_string(call->spec, "when_active");
	const char *earlier;
	char	   *id;

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	body = databricks_read_object(call, response, "lists no updates", KIND_LOOK_TRIES, verdict);
	if (body == NULL)
		return;
	list = kind_member(body, "updates");
	newest = cJSON_IsArray(list) ? list->child : NULL;
	id = kind_id(newest, "update_id");
	earlier = earlier_update(call, cJSON_IsArray(list) ? list : NULL);
	/* a START that was given up for lost may show up after all */
	if (earlier == NULL && kind_state_get(call, "before_ms") != NULL)
		earlier = begun_update(call, list);
	if (earlier != NULL)
		follow(call, earlier, verdict);
	else if (id != NULL && !is_ended(newest))
	{
		if (when != NULL && strcmp(when, "fail") == 0)
		{
			kind_fail(verdict, false, true, "update_active",
					  mem_printf("update %s of the pipeline is active", id));
			return;
		}
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_PREPARE, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
	}
	else
	{
		kind_state_drop(call, verdict, "maybe_started");
		kind_state_set_string(call, verdict, "before", id ? id : "");
		kind_state_set_int64(call, verdict, "before_ms", kind_int64(newest, "creation_time", 0));
		kind_continue(verdict, KIND_STEP_START, 0);
	}
}

static void
start_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		refusals = kind_state_int64(call, "refusals", 0);
	char	   *code;
	char	   *message;
	char	   *id;

	if (databricks_common_response(call, response, true, false, KIND_START_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_body_error(response, &code, &message);
		if (refusals >= MAX_REFUSALS ||
			(response->http_status != 409 && strstr(message, "active update") == NULL))
		{
			kind_fail_status(call, response, verdict);
			return;
		}
		/* another update is active; if an earlier START was lost, it may be that one */
		kind_state_set_int64(call, verdict, "refusals", refusals + 1);
		if (kind_state_bool(call, "maybe_started") || kind_state_int64(call, "starts", 0) > 0)
		{
			kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, response->retry_after_ms));
			return;
		}
		/* nothing of ours can have begun: the next update seen is not taken for it */
		kind_state_drop(call, verdict, "before");
		kind_state_drop(call, verdict, "before_ms");
		kind_continue(verdict, KIND_STEP_PREPARE, kind_retry_delay(call, response->retry_after_ms));
		return;
	}
	id = kind_id(kind_parse_object(response), "update_id");
	if (id != NULL)
		follow(call, id, verdict);
	else
		kind_bad_answer(call, response, "names no update", true, false, KIND_START_TRIES, verdict);
}

static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);
	int64		since;
	const cJSON *body;
	const char *id;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	body = databricks_read_object(call, response, "lists no updates", KIND_POLL_TRIES, verdict);
	if (body == NULL)
		return;
	id = begun_update(call, kind_member(body, "updates"));
	since = kind_state_int64(call, "looking_since_ms", -1);
	if (id != NULL)
		follow(call, id, verdict);
	else if (since < 0)
	{
		kind_state_set_int64(call, verdict, "looking_since_ms", call->now_ms);
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
	}
	else if (call->now_ms < since + databricks_settle_ms(call, SETTLE_SECONDS))
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
	else if (starts >= KIND_MAX_STARTS)
		kind_fail_unknown(verdict, mem_printf("an update was asked for %d times and never answered; look at the updates of the pipeline before it is started again",
											  KIND_MAX_STARTS));
	else
	{
		kind_state_drop(call, verdict, "looking_since_ms");
		kind_state_set_int64(call, verdict, "starts", starts + 1);
		kind_continue(verdict, KIND_STEP_PREPARE, 0);
	}
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
		if (call->now_ms < kind_state_int64(call, "started_ms", call->intended_at_ms) + databricks_settle_ms(call, SETTLE_SECONDS))
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
		show_link(call, call->external_run_id, verdict);
	if (kind_state_get(call, "created_ms") == NULL)
		kind_state_set_int64(call, verdict, "created_ms", kind_int64(update, "creation_time", call->intended_at_ms));
	if (!is_ended(update))
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

	if (stage_is(call, "events"))
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
	if (stage_is(call, "candidate"))
	{
		const char *cause = kind_string(kind_member(body, "update"), "cause");

		if (cause != NULL && strcmp(cause, "RETRY_ON_FAILURE") == 0)
		{
			kind_state_drop(call, verdict, "end");
			follow(call, kind_state_string(call, "candidate"), verdict);
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
	if (kind_string(update, "state") == NULL || is_ended(update))
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
			prepare_response(call, response, verdict);
			break;
		case KIND_STEP_START:
			start_response(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
			lookup_response(call, response, verdict);
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
	return kind_state_get(call, "before_ms") != NULL ? KIND_STEP_LOOKUP : KIND_STEP_PREPARE;
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
};
