/*-------------------------------------------------------------------------
 * fabric_item.c
 *	  Kind fabric_item: a job of an item of Microsoft Fabric
 *
 * Runs in the conductor.  Talks to the Fabric REST API, version 1.
 *
 *	  PREPARE ... --> START --> POLL ... --> [DETAIL ...] --> outcome
 *	  (the list)      |  ^       ^
 *	             lost |  |       | found in the list
 *	                  v  |       |
 *	                 LOOKUP -----+
 *
 * A start is answered 202 with Location and Retry-After and has no body: the
 * instance is the last part of Location, or in x-ms-job-id, or has to be
 * looked for in the list (fabric_list.c), as after a lost answer.  Location
 * is only read for that id, never followed.  Retry-After is the least time
 * to wait before the next look.  DETAIL reads the activities of a data
 * pipeline (they look like Data Factory's) or the result of an operation.
 *
 * With "call" another request is sent, and a 202 is followed as a
 * long-running operation (/operations/{id}); nothing can look for that
 * one or cancel it, so it is kept apart: without PREPARE and LOOKUP.
 *
 * kind_state: what fabric_list.c keeps; started_ms; has_url; final {status, code,
 * message, run_start_ms, seen_ms, item}; and what adf_activities.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "adf_int.h"
#include "fabric_int.h"

#define HTTP_TOO_MANY_OF_CAPACITY	430 /* Spark's own 429 */
#define UNSEEN_MS		((int64) 120000)	/* a new instance may be unknown so long */

static void
fabric_validate(const cJSON *spec, KindProblem *problem)
{
	(void) fabric_check_spec(spec, problem);
}

static bool
is_pipeline(const KindCall *call)
{
	const char *type = kind_string(call->spec, "job_type");

	return type != NULL && strcasecmp(type, "Pipeline") == 0;
}

static const char *
call_method(const KindCall *call)
{
	const char *method = kind_string(kind_member(call->spec, "call"), "method");

	return method ? method : "POST";
}

static bool
call_is_repeatable(const KindCall *call)
{
	const char *method = call_method(call);

	return strcmp(method, "GET") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "DELETE") == 0 ||
		cJSON_IsTrue(kind_member(call->spec, "idempotent"));
}

static bool
repeatable(const KindCall *call)
{
	return fabric_is_call(call->spec) && call_is_repeatable(call);
}

static void
call_request(const KindCall *call, KindRequest *request)
{
	const cJSON *other = kind_member(call->spec, "call");
	const char *path = kind_string(other, "path");
	const cJSON *body = kind_member(other, "body");

	request->method = call_method(call);
	request->url = mem_printf("%s%s%s", call->base_url, *path == '/' ? "" : "/", path);
	request->starts_work = strcmp(request->method, "GET") != 0;
	request->is_repeatable = call_is_repeatable(call);
	if (body == NULL || cJSON_IsNull(body))
		return;
	request->body = json_text(body);
	request->content_type = "application/json";
}

static void
start_request(const KindCall *call, KindRequest *request)
{
	cJSON	   *body = fabric_body(call);
	StrBuf		rest;

	strbuf_init(&rest);
	strbuf_addchar(&rest, '/');
	kind_url_encode(&rest, kind_string(call->spec, "job_type"));
	strbuf_addstr(&rest, "/instances");
	request->method = "POST";
	request->url = fabric_jobs_url(call, rest.data);
	request->starts_work = true;
	if (body == NULL)
		return;
	request->body = json_text(body);
	request->content_type = "application/json";
	cJSON_Delete(body);
}

static void
poll_request(const KindCall *call, KindRequest *request, const char *action)
{
	StrBuf		rest;

	strbuf_init(&rest);
	if (fabric_is_call(call->spec))
	{
		strbuf_printf(&rest, "%s/operations/", call->base_url);
		kind_url_encode(&rest, call->external_run_id);
		strbuf_addstr(&rest, action);
		request->url = rest.data;
	}
	else
	{
		strbuf_addstr(&rest, "/instances/");
		kind_url_encode(&rest, call->external_run_id);
		strbuf_addstr(&rest, action);
		request->url = fabric_jobs_url(call, rest.data);
	}
	request->method = "GET";
	request->is_repeatable = true;
}

/* The activities of a data pipeline: asked for as in Data Factory */
static void
activities_request(const KindCall *call, KindRequest *request)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/workspaces/", call->base_url);
	kind_url_encode(&url, fabric_workspace(call));
	strbuf_addstr(&url, "/datapipelines/pipelineruns/");
	kind_url_encode(&url, call->external_run_id);
	strbuf_addstr(&url, "/queryactivityruns");
	adf_activities_request(call, request);
	request->url = url.data;
}

static bool
no_lookup(const KindCall *call, KindProblem *problem)
{
	problem->code = "outcome_unknown";
	problem->is_system_error = true;
	return kind_problem(problem, "$", mem_printf("the answer was lost: whether %s %s took effect is not known; look in Fabric before the task is run again, or mark it \"idempotent\" if it may be repeated",
												 call_method(call), kind_string(kind_member(call->spec, "call"), "path")), NULL);
}

static bool
fabric_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	bool		is_call = fabric_is_call(call->spec);

	if (!fabric_check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (!is_call && fabric_workspace(call) == NULL)
		return kind_problem(problem, "$.workspace", "no workspace is given",
							"Give \"workspace\" in the spec, or \"workspace_id\" in the connection's options.");
	if (call->step == KIND_STEP_START)
	{
		if (is_call)
			call_request(call, request);
		else
			start_request(call, request);
		return true;
	}
	if (call->step == KIND_STEP_PREPARE || call->step == KIND_STEP_LOOKUP)
	{
		if (is_call)
			return no_lookup(call, problem);
		fabric_list_request(call, request);
		return true;
	}
	if (call->external_run_id == NULL)
		return kind_problem(problem, "$", mem_printf("there is no job for step \"%s\"", kind_step_name(call->step)), NULL);
	if (call->step == KIND_STEP_DETAIL && !is_call)
		activities_request(call, request);
	else if (call->step == KIND_STEP_CANCEL)
	{
		poll_request(call, request, "/cancel");
		request->method = "POST";
	}
	else
		poll_request(call, request, call->step == KIND_STEP_DETAIL ? "/result" : "");
	return true;
}

static KindStep
fabric_first_step(const KindCall *call)
{
	return fabric_is_call(call->spec) ? KIND_STEP_START : KIND_STEP_PREPARE;
}

static KindStep
fabric_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
		return kind_state_get(call, "final") != NULL ? KIND_STEP_DETAIL : KIND_STEP_POLL;
	if (fabric_is_call(call->spec))
		return call_is_repeatable(call) ? KIND_STEP_START : KIND_STEP_LOOKUP;
	return kind_state_get(call, "start_place") != NULL ? KIND_STEP_LOOKUP : KIND_STEP_PREPARE;
}

/* The id at the end of a Location, the query left out; NULL if it is another word of the path */
static char *
last_segment(const char *location)
{
	size_t		end = location ? strcspn(location, "?#") : 0;
	size_t		start = end;
	char	   *id;

	while (start > 0 && location[start - 1] != '/')
		start--;
	if (end - start < 8 || end - start > 100)
		return NULL;
	id = mem_strndup(location + start, end - start);
	if (strspn(id, "0123456789abcdefABCDEF-") == strlen(id))
		return id;
	mem_free(id);
	return NULL;
}

static char *
named_id(const KindCall *call, const KindResponse *response)
{
	char	   *id = last_segment(kind_header(response, "Location"));

	if (id == NULL)
		id = last_segment(kind_header(response, fabric_is_call(call->spec) ? "x-ms-operation-id" : "x-ms-job-id"));
	return id;
}

/* Where a person can look at it, if anywhere; told once.  Also of a job that somebody named: nobody else may take it. */
static void
link_job(KindCall *call, const char *id, KindVerdict *verdict)
{
	fabric_mark_place(call, verdict);
	kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	verdict->external_url = fabric_page(call, id);
}

/* From here on there is an instance or an operation */
static void
follow(KindCall *call, const char *id, int64 retry_after_ms, KindVerdict *verdict)
{
	static const char *const done[] = {"list_token", "list_pages", "candidates", "settle_from_ms", "settled", "earlier", "newest_ms"};

	for (size_t i = 0; i < lengthof(done); i++)
		kind_state_drop(call, verdict, done[i]);
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	verdict->external_run_id = mem_strdup(id);
	link_job(call, id, verdict);
	kind_continue(verdict, KIND_STEP_POLL, retry_after_ms > 0 ? retry_after_ms : -1);
}

/* The outcome of a request that was answered at once, and of an operation's result */
static void
succeed(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *output = cJSON_CreateObject();
	size_t		len = response && response->body ? response->body_len : 0;
	char	   *error;
	cJSON	   *body = len > 0 && len <= KIND_MAX_OUTPUT ? kind_parse_body(response, &error) : NULL;

	if (call->external_run_id != NULL)
		cJSON_AddStringToObject(output, "id", call->external_run_id);
	cJSON_AddStringToObject(output, "status", "Succeeded");
	if (body != NULL)
		cJSON_AddItemToObject(output, "result", body);
	else if (len > KIND_MAX_OUTPUT)
		cJSON_AddTrueToObject(output, "truncated");
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = output;
}

/* What Fabric itself says about trying again counts more than the status */
static void
fail_start(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *body = kind_parse_object(response);
	const cJSON *retriable = kind_member(body, "isRetriable");

	kind_fail_status(call, response, verdict);
	kind_leave_place(call, verdict);
	if (cJSON_IsTrue(retriable) && !verdict->may_go_on)
	{
		verdict->is_user_error = false;
		verdict->is_retryable = true;
	}
	cJSON_Delete(body);
}

static void
start_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		is_call = fabric_is_call(call->spec);
	bool		starts = !is_call || strcmp(call_method(call), "GET") != 0;
	char	   *id;

	if (response->http_status == HTTP_TOO_MANY_OF_CAPACITY && response->transport_error == NULL)
		kind_unanswered(call, response->retry_after_ms, false, true, repeatable(call), KIND_START_TRIES,
						"TooManyRequestsForCapacity", "HTTP 430: the capacity takes no further jobs at the moment", verdict);
	else if (!kind_common_response(call, response, starts, repeatable(call), KIND_START_TRIES, verdict))
	{
		if (response->http_status < 200 || response->http_status > 299)
		{
			fail_start(call, response, verdict);
			return;
		}
		id = named_id(call, response);
		if (is_call && response->http_status != 202)
			succeed(call, response, verdict);
		else if (id != NULL)
			follow(call, id, response->retry_after_ms, verdict);
		else if (is_call)
			kind_fail_unknown(verdict, "Fabric accepted the request but named no operation to follow");
		else
		{
			kind_state_set(call, verdict, "accepted", cJSON_CreateTrue());
			kind_state_set(call, verdict, "maybe_started", cJSON_CreateTrue());
			kind_state_set_int64(call, verdict, "settle_from_ms", call->now_ms);
			kind_continue(verdict, KIND_STEP_LOOKUP, 0);
		}
		return;
	}
	kind_leave_place(call, verdict);
	if (verdict->outcome != KIND_CONTINUE || is_call)
		return;
	if (verdict->next_step == KIND_STEP_LOOKUP)
		kind_state_set_int64(call, verdict, "settle_from_ms", call->now_ms);
	else
		kind_state_set_int64(call, verdict, "start_due_ms", call->now_ms + verdict->delay_ms);
}

static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	char	   *id;

	fabric_lookup_response(call, response, verdict, &id);
	if (id != NULL)
		follow(call, id, -1, verdict);
}

/* What went into the outcome by what the job itself is */
static void
add_facts(const KindCall *call, cJSON *output)
{
	const cJSON *facts = kind_member(kind_state_get(call, "final"), "facts");
	const cJSON *item;

	cJSON_DeleteItemFromObjectCaseSensitive(output, "runId");
	cJSON_ArrayForEach(item, facts)
	{
		cJSON_DeleteItemFromObjectCaseSensitive(output, item->string);
		cJSON_AddItemToObject(output, item->string, cJSON_Duplicate(item, true));
	}
}

/* The outcome "final" says, when there are no activities to be read */
static void
finish(KindCall *call, KindVerdict *verdict)
{
	const cJSON *final = kind_state_get(call, "final");
	const char *status = kind_string(final, "status");
	const char *code = kind_string(final, "code");
	const char *message = kind_string(final, "message");

	verdict->output = cJSON_CreateObject();
	add_facts(call, verdict->output);
	if (strcmp(status, "Succeeded") == 0)
		verdict->outcome = KIND_SUCCEEDED;
	else if (strcmp(status, "Failed") == 0)
	{
		bool		is_user_error = cJSON_IsFalse(kind_member(final, "is_retriable"));

		kind_fail(verdict, is_user_error, !is_user_error, code ? code : "job_failed",
				  message ? message : mem_printf("job %s failed and gave no reason", call->external_run_id));
	}
	else
	{
		kind_fail(verdict, false, false, "cancelled",
				  message ? message : mem_printf("job %s was cancelled", call->external_run_id));
		verdict->outcome = KIND_CANCELLED;
	}
}

static void
copy_text(cJSON *to, const char *name, const cJSON *from, const char *member)
{
	const char *text = kind_string(from, member);

	if (text != NULL)
		cJSON_AddStringToObject(to, name, kind_clean_text(text, strlen(text), KIND_MAX_MESSAGE));
}

/* An instance or operation that has ended, as the words of adf_activities.c */
static cJSON *
make_final(const KindCall *call, const cJSON *body, const char *status)
{
	static const char *const facts[] = {"status", "jobType", "itemId", "startTimeUtc", "endTimeUtc", "rootActivityId"};
	const cJSON *reason = kind_member(body, fabric_is_call(call->spec) ? "error" : "failureReason");
	const cJSON *retriable = kind_member(reason, "isRetriable");
	cJSON	   *final = cJSON_CreateObject();
	cJSON	   *kept;
	int64		start_ms;

	cJSON_AddStringToObject(final, "status", strcasecmp(status, "Completed") == 0 || strcasecmp(status, "Succeeded") == 0 ? "Succeeded" :
							strcasecmp(status, "Failed") == 0 ? "Failed" : "Cancelled");
	copy_text(final, "code", reason, "errorCode");
	copy_text(final, "message", reason, "message");
	if (cJSON_IsBool(retriable))
		cJSON_AddItemToObject(final, "is_retriable", cJSON_Duplicate(retriable, true));
	if (kind_time_parse(kind_string(body, "startTimeUtc"), &start_ms))
		cJSON_AddItemToObject(final, "run_start_ms", json_from_int64(start_ms));
	cJSON_AddItemToObject(final, "seen_ms", json_from_int64(call->now_ms));
	kept = cJSON_AddObjectToObject(final, "facts");
	cJSON_AddStringToObject(kept, "id", call->external_run_id);
	for (size_t i = 0; i < lengthof(facts); i++)
		copy_text(kept, facts[i], body, facts[i]);
	return final;
}

static void
ended(KindCall *call, const cJSON *body, const char *status, KindVerdict *verdict)
{
	bool		is_call = fabric_is_call(call->spec);
	bool		well;

	if (!is_call && strcasecmp(status, "Deduped") == 0)
	{
		kind_fail(verdict, false, true, "Deduped",
				  mem_printf("Fabric did not run job %s because another run of the item was going on", call->external_run_id));
		return;
	}
	kind_state_set(call, verdict, "final", make_final(call, body, status));
	well = strcmp(kind_string(kind_state_get(call, "final"), "status"), "Succeeded") == 0;
	if (is_call ? well : is_pipeline(call))
		kind_continue(verdict, KIND_STEP_DETAIL, 0);
	else
		finish(call, verdict);
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		seen_by = kind_state_int64(call, "started_ms", call->intended_at_ms) + UNSEEN_MS;
	bool		is_call = fabric_is_call(call->spec);
	const char *status;
	cJSON	   *body;

	if (kind_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (response->http_status == 404)
	{
		if (call->now_ms < seen_by)
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, response->retry_after_ms));
		else
			kind_fail_unknown(verdict, mem_printf("job %s is not known to Fabric", call->external_run_id));
		return;
	}
	if (response->http_status != 200 && response->http_status != 202)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	body = kind_parse_object(response);
	status = kind_string(body, "status");
	if (status == NULL && response->http_status == 200)
		kind_bad_answer(call, response, "has no status", false, true, KIND_POLL_TRIES, verdict);
	else
	{
		verdict->reset_tries = true;
		/* a job that somebody named was not followed here */
		if (!kind_state_bool(call, "has_url"))
			link_job(call, call->external_run_id, verdict);
		if (status != NULL && (is_call ? strcasecmp(status, "Succeeded") == 0 || strcasecmp(status, "Failed") == 0 :
							   fabric_is_terminal(status)))
			ended(call, body, status, verdict);
		else
			kind_continue(verdict, KIND_STEP_POLL, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
	}
	cJSON_Delete(body);
}

/* Details may be missing; the outcome is known */
static void
detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (!fabric_is_call(call->spec))
	{
		adf_activities_response(call, response, verdict);
		if (verdict->outcome != KIND_CONTINUE)
			add_facts(call, verdict->output);
		return;
	}
	if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	succeed(call, response->http_status == 200 && response->transport_error == NULL ? response : NULL, verdict);
}

/*
 * 202 is only a promise, and a job that has ended cannot be cancelled: its
 * own status says what came of it.
 */
static void
cancel_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	kind_continue(verdict, KIND_STEP_POLL, response->retry_after_ms > 0 ? Min(response->retry_after_ms, 5000) : -1);
}

static void
fabric_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			fabric_prepare_response(call, response, verdict);
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

static bool
fabric_can_cancel(const KindCall *call)
{
	return !fabric_is_call(call->spec);
}

/* An operation cannot be told to stop. */
static void
fabric_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	if (call->external_run_id != NULL)
		kind_fail_unknown(verdict, mem_printf("given up; operation %s goes on, Fabric's operations cannot be cancelled", call->external_run_id));
	else if ((is_sent || kind_state_bool(call, "maybe_started")) && strcmp(call_method(call), "GET") != 0)
		kind_fail_unknown(verdict, "given up before it was answered; whether it took effect is not known");
	else
	{
		kind_fail(verdict, false, true, "cancelled", "given up before it was answered");
		verdict->outcome = KIND_CANCELLED;
	}
}

const TaskKind kind_fabric_item = {
	.name = "fabric_item",
	.connection_kind = "fabric",
	.is_http = true,
	.has_runs = true,
	.validate = fabric_validate,
	.first_step = fabric_first_step,
	.resume_step = fabric_resume_step,
	.request = fabric_request,
	.response = fabric_response,
	.abandon = fabric_abandon,
	.can_cancel = fabric_can_cancel,
	.start_place = fabric_start_place,
};
