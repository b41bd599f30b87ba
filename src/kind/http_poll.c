/*-------------------------------------------------------------------------
 * http_poll.c
 *	  Kind http: requests that are answered before the work is done
 *
 * Runs in the conductor.
 *
 *	  START --> POLL ... --> [DETAIL: the result, pages] --> outcome
 *	   |  ^      ^
 *	   v  |      |              (LOOKUP only if the spec says how to look)
 *	  LOOKUP ----+
 *
 * Where to look is committed before the first look, so a crash goes on with
 * POLL.  Without "status" the HTTP status says how it is: 202 goes on, any
 * other success is the end.  With it only the values listed as succeeded are
 * success, and everything that is in no list goes on, unless "running" lists
 * what does.
 *
 * kind_state: poll_url, cancel_url, started_ms, starts, settle_from_ms.
 * scratch: result_url.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"

#define DEFAULT_SETTLE_MS	30000
#define SETTLE_PAUSE_MS		2000

typedef enum State
{
	STATE_NONE,					/* the answer does not say */
	STATE_RUNNING,
	STATE_SUCCEEDED,
	STATE_FAILED,
	STATE_CANCELLED,
	STATE_UNKNOWN				/* "running" is listed, and this is in no list */
} State;

static bool
has_status(const cJSON *list, int status)
{
	const cJSON *item;
	int64		value;

	cJSON_ArrayForEach(item, list)
	{
		if (json_int64(item, &value) && value == status)
			return true;
	}
	return false;
}

/* *said: the value found, for messages */
static State
read_state(const cJSON *poll, const KindResponse *response, const cJSON *body, const char **said)
{
	const char *path = kind_string(poll, "status");
	const cJSON *item;

	*said = NULL;
	if (path == NULL)
		return response->http_status == 202 ? STATE_RUNNING : STATE_SUCCEEDED;
	item = jsonpath_find(body, path);
	if (item == NULL || cJSON_IsObject(item) || cJSON_IsArray(item))
		return response->http_status == 202 ? STATE_RUNNING : STATE_NONE;
	*said = kind_scalar_text(item);
	*said = kind_clean_text(*said, strlen(*said), 200);
	if (kind_is_listed(kind_member(poll, "succeeded"), *said))
		return STATE_SUCCEEDED;
	if (kind_is_listed(kind_member(poll, "failed"), *said))
		return STATE_FAILED;
	if (kind_is_listed(kind_member(poll, "cancelled"), *said))
		return STATE_CANCELLED;
	if (kind_member(poll, "running") != NULL && !kind_is_listed(kind_member(poll, "running"), *said))
		return STATE_UNKNOWN;
	return STATE_RUNNING;
}

/* The pause before the next look: Retry-After is the least */
static int64
pause_ms(const KindCall *call, const KindResponse *response)
{
	int64		every = kind_duration_ms(kind_member(kind_member(call->spec, "poll"), "every"));

	if (every < 0)
		return response->retry_after_ms > 0 ? response->retry_after_ms : -1;
	return Max(every, response->retry_after_ms);
}

/* Something was started, and cannot be followed */
static void
fail_link(const KindCall *call, const char *problem, KindVerdict *verdict)
{
	kind_fail(verdict, true, false, "link_not_followed", problem);
	verdict->may_go_on = kind_member(call->spec, "poll") != NULL;
}

/* The end: the result is somewhere else, or this is it */
static void
ended_well(KindCall *call, const KindResponse *response, const cJSON *body, const char *asked, KindVerdict *verdict)
{
	const cJSON *result = kind_member(call->spec, "result");
	const char *problem = NULL;
	char	   *url = NULL;

	if (cJSON_IsObject(result))
	{
		url = http_where(call, result, response, body, asked, &problem);
		if (url == NULL)
		{
			kind_fail(verdict, true, false, problem ? "link_not_followed" : "no_result",
					  problem ? problem : "the work has ended, but the answer does not say where its result is");
			return;
		}
		cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, "result_url");
		cJSON_AddStringToObject(call->scratch, "result_url", url);
		kind_continue(verdict, KIND_STEP_DETAIL, 0);
		return;
	}
	http_finish(call, response, body, asked, verdict);
}

static void
ended_badly(const KindCall *call, const KindResponse *response, State state, const char *said, KindVerdict *verdict)
{
	const char *id = call->external_run_id ? call->external_run_id : "";

	if (state == STATE_CANCELLED)
	{
		kind_fail(verdict, false, false, "cancelled", mem_printf("%s was cancelled", id));
		verdict->outcome = KIND_CANCELLED;
	}
	else if (state == STATE_UNKNOWN)
	{
		kind_fail_unknown(verdict, mem_printf("the service says \"%s\" of %s, which is in no list of \"poll\"", said, id));
		verdict->error_code = "unexpected_status";
	}
	else
	{
		kind_fail(verdict, false, true, "failed", mem_printf("the service says \"%s\" of %s", said ? said : "failed", id));
		http_say_error(call, response, verdict);
	}
	verdict->output = http_output(response);
}

/* The last part of a URL's path as a name for what is followed */
static char *
name_of(const char *url)
{
	size_t		end = strcspn(url, "?#");
	size_t		start;

	while (end > 0 && url[end - 1] == '/')
		end--;
	start = end;
	while (start > 0 && url[start - 1] != '/')
		start--;
	return mem_strndup(url + start, Min(end - start, 200));
}

/* From here on there is something to look at */
static void
follow(KindCall *call, const KindResponse *response, const cJSON *body, const char *asked, const char *id, KindVerdict *verdict)
{
	const cJSON *cancel = kind_member(call->spec, "cancel");
	const char *problem;
	const char *known = call->external_run_id;
	char	   *url;

	call->external_run_id = id;	/* for {id} */
	url = http_where(call, kind_member(call->spec, "poll"), response, body, asked, &problem);
	if (url == NULL)
	{
		call->external_run_id = known;
		fail_link(call, problem ? problem : "the request was accepted, but the answer does not say where to look", verdict);
		return;
	}
	kind_state_set_string(call, verdict, "poll_url", url);
	if (cJSON_IsObject(cancel) && kind_member(cancel, "path") == NULL)
	{
		char	   *cancel_url = http_where(call, cancel, response, body, asked, &problem);

		if (cancel_url != NULL)
			kind_state_set_string(call, verdict, "cancel_url", cancel_url);
	}
	call->external_run_id = known;
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	verdict->external_run_id = id ? mem_strdup(id) : name_of(url);
	if (*verdict->external_run_id == '\0')
		verdict->external_run_id = mem_strdup(call->token);
	kind_continue(verdict, KIND_STEP_POLL, pause_ms(call, response));
}

/* The id an answer gives what it started, fit for columns and addresses, or NULL */
static char *
id_at(const cJSON *body, const char *path)
{
	const cJSON *item = jsonpath_find(body, path);
	cJSON	   *holder;
	char	   *id;

	if (item == NULL || cJSON_IsNull(item))
		return NULL;
	holder = cJSON_CreateObject();
	cJSON_AddItemToObject(holder, "id", cJSON_Duplicate(item, true));
	id = kind_id(holder, "id");
	cJSON_Delete(holder);
	return id;
}

/* START was answered as expected */
void
http_started(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *poll = kind_member(call->spec, "poll");
	char	   *asked = http_start_url(call);
	char	   *error;
	cJSON	   *body = kind_parse_body(response, &error);
	const char *path = kind_string(call->spec, "id");
	const char *said;
	char	   *id = path ? id_at(body, path) : NULL;
	State		state;

	if (!cJSON_IsObject(poll))
		ended_well(call, response, body, asked, verdict);
	else
	{
		state = read_state(poll, response, body, &said);
		if (kind_string(poll, "status") == NULL && response->http_status == 201)
			state = STATE_RUNNING;
		if (path != NULL && id == NULL && (state == STATE_RUNNING || state == STATE_NONE))
		{
			fail_link(call, mem_printf("the request was accepted, but the answer has no id at %s", path), verdict);
			kind_hopeless(call, response, verdict);
		}
		else if (state == STATE_RUNNING || state == STATE_NONE)
			follow(call, response, body, asked, id, verdict);
		else
		{
			if (id != NULL)
				verdict->external_run_id = id;
			if (state == STATE_SUCCEEDED)
				ended_well(call, response, body, asked, verdict);
			else
				ended_badly(call, response, state, said, verdict);
		}
	}
	http_note_link(call, call->spec, body, verdict);
	cJSON_Delete(body);
}

static bool
cancel_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *cancel = kind_member(call->spec, "cancel");
	const char *url = kind_state_string(call, "cancel_url");
	const char *method = kind_string(cancel, "method");
	const cJSON *body = kind_member(cancel, "body");
	const char *why;

	if (url == NULL && kind_member(cancel, "path") != NULL)
		url = http_where(call, cancel, NULL, NULL, NULL, &why);
	if (url == NULL)
		return kind_problem(problem, "$.cancel", "the service did not say how to cancel", NULL);
	http_get(call, url, request);
	request->method = method ? method : "POST";
	if (body != NULL && !cJSON_IsNull(body))
	{
		cJSON	   *holder = cJSON_CreateObject();

		cJSON_AddItemToObject(holder, "body", http_fill_in_all(call, body));
		http_build_body(holder, request);
	}
	return true;
}

/*
 * Where to look.  A run that was taken over by its id has no address yet, but
 * a pattern gives it one.
 */
static const char *
poll_url(const KindCall *call)
{
	const cJSON *poll = kind_member(call->spec, "poll");
	const char *url = kind_state_string(call, "poll_url");
	const char *why;

	if (url == NULL && kind_member(poll, "path") != NULL && call->external_run_id != NULL)
		url = http_where(call, poll, NULL, NULL, NULL, &why);
	return url;
}

bool
http_poll_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *lookup = kind_member(call->spec, "lookup");
	const char *url = NULL;
	const char *why = NULL;

	switch (call->step)
	{
		case KIND_STEP_CANCEL:
			return cancel_request(call, request, problem);
		case KIND_STEP_LOOKUP:
			url = cJSON_IsObject(lookup) ? http_where(call, lookup, NULL, NULL, NULL, &why) : NULL;
			break;
		case KIND_STEP_DETAIL:
			if (http_page_request(call, request, problem))
				return true;
			if (problem->message != NULL)
				return false;
			url = kind_string(call->scratch, "result_url");
			break;
		default:
			url = poll_url(call);
			break;
	}
	if (url == NULL)
		return kind_problem(problem, "$", mem_printf("there is no address for step \"%s\"", kind_step_name(call->step)), NULL);
	http_get(call, url, request);
	return true;
}

/* Nothing of ours is there: not yet, or it never arrived */
static void
not_found(KindCall *call, KindVerdict *verdict)
{
	const cJSON *given = kind_member(kind_member(call->spec, "lookup"), "settle");
	int64		settle = given ? kind_duration_ms(given) : DEFAULT_SETTLE_MS;
	int64		from = kind_state_int64(call, "settle_from_ms", -1);
	int64		starts = kind_state_int64(call, "starts", 0);

	verdict->reset_tries = true;
	if (from < 0)
	{
		from = call->now_ms;
		kind_state_set_int64(call, verdict, "settle_from_ms", from);
	}
	if (call->now_ms < from + settle)
	{
		kind_continue(verdict, KIND_STEP_LOOKUP, Min(Max(settle / 5, 100), Min(SETTLE_PAUSE_MS, from + settle - call->now_ms)));
		return;
	}
	kind_state_drop(call, verdict, "settle_from_ms");
	kind_state_drop(call, verdict, "maybe_started");
	if (starts >= KIND_MAX_STARTS)
	{
		kind_fail(verdict, false, true, "no_answer",
				  mem_printf("the request was sent %d times, was not answered and started nothing", KIND_MAX_STARTS));
		return;
	}
	kind_state_set_int64(call, verdict, "starts", starts + 1);
	kind_continue(verdict, KIND_STEP_START, 0);
}

static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *lookup = kind_member(call->spec, "lookup");
	char	   *error;
	cJSON	   *body;
	char	   *id;
	const char *why;

	if (kind_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	if (response->http_status == 404)
	{
		not_found(call, verdict);
		return;
	}
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	body = kind_parse_body(response, &error);
	if (body == NULL)
	{
		kind_bad_answer(call, response, "is no JSON", false, true, KIND_LOOK_TRIES, verdict);
		return;
	}
	id = id_at(body, kind_string(lookup, "id"));
	if (id != NULL)
		follow(call, response, body, http_where(call, lookup, NULL, NULL, NULL, &why), id, verdict);
	else
		not_found(call, verdict);
	cJSON_Delete(body);
}

/* A moved address, as long-running operations have it */
static void
note_moved(KindCall *call, const KindResponse *response, const cJSON *body, KindVerdict *verdict)
{
	const cJSON *poll = kind_member(call->spec, "poll");
	const char *current = poll_url(call);
	const char *problem;
	char	   *url;

	if (kind_member(poll, "header") == NULL)
		return;
	url = http_where(call, poll, response, body, current, &problem);
	if (url != NULL && strcmp(url, current) != 0)
		kind_state_set_string(call, verdict, "poll_url", url);
}

/* It was there, or its id would not be known: nobody can say any more what came of it */
static void
gone(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	char	   *code;
	char	   *message;

	kind_body_error(response, &code, &message);
	kind_fail_unknown(verdict, mem_printf("HTTP %d: %s; %s is not known to the service (any more): whether its work was done is not known",
										  response->http_status, message, call->external_run_id ? call->external_run_id : "the work"));
	verdict->output = http_output(response);
}

static void
look_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *poll = kind_member(call->spec, "poll");
	int			status = response->http_status;
	bool		answered = status > 0 && response->transport_error == NULL;
	bool		fails = answered && has_status(kind_member(poll, "failed_status"), status);
	bool		moved = answered && status >= 300 && status <= 399 && kind_member(call->spec, "result") != NULL;
	const char *asked = poll_url(call);
	const char *said;
	char	   *error;
	cJSON	   *body;
	State		state;

	if (!fails && kind_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	body = kind_parse_body(response, &error);
	state = fails ? STATE_FAILED : moved ? STATE_SUCCEEDED : STATE_NONE;
	said = NULL;
	if (!fails && !moved)
	{
		if (status == 404 || status == 410)
		{
			gone(call, response, verdict);
			return;
		}
		if (status < 200 || status > 299)
		{
			kind_fail_status(call, response, verdict);
			http_say_error(call, response, verdict);
			verdict->output = http_output(response);
			return;
		}
		state = read_state(poll, response, body, &said);
	}
	if (state == STATE_NONE)
		kind_bad_answer(call, response, "has no status", false, true, KIND_POLL_TRIES, verdict);
	else if (state == STATE_RUNNING)
	{
		verdict->reset_tries = true;
		note_moved(call, response, body, verdict);
		kind_continue(verdict, KIND_STEP_POLL, pause_ms(call, response));
	}
	else if (state == STATE_SUCCEEDED)
		ended_well(call, response, body, asked, verdict);
	else
		ended_badly(call, response, state, said, verdict);
	http_note_link(call, call->spec, body, verdict);
	cJSON_Delete(body);
}

/* A page, or the result */
static void
detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *asked = kind_string(call->scratch, "page_url");
	char	   *error;
	cJSON	   *body;

	if (kind_common_response(call, response, false, true, HTTP_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		http_say_error(call, response, verdict);
		return;
	}
	body = kind_parse_body(response, &error);
	http_finish(call, response, body, asked ? asked : kind_string(call->scratch, "result_url"), verdict);
	cJSON_Delete(body);
}

void
http_poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_LOOKUP:
			lookup_response(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			look_response(call, response, verdict);
			break;
		case KIND_STEP_DETAIL:
			detail_response(call, response, verdict);
			break;
		default:
			/* CANCEL: whatever the answer is, the work's own status says what came of it */
			if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
				verdict->outcome == KIND_CONTINUE)
				break;
			kind_verdict_init(verdict);
			kind_continue(verdict, KIND_STEP_POLL, -1);
			break;
	}
}
