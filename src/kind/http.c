/*-------------------------------------------------------------------------
 * http.c
 *	  Kind http: an exchange with any HTTP service, and what follows from it
 *
 * Runs in the conductor.  This file has the first request and its answer; a
 * spec may say that the work goes on behind it (http_poll.c), that the answer
 * comes in pages (http_pages.c), and what of it to keep (http_output.c).
 *
 * GET, HEAD, PUT, DELETE and OPTIONS may be repeated
 * by the definition of HTTP, POST and PATCH only when the spec (or the
 * connection) says "idempotent": true; Idempotency-Key is sent in every case.
 * There is no way to ask a service we know nothing about whether a request
 * arrived, unless the spec says one ("lookup"): after a crash or a lost answer
 * a request that must not be repeated ends as outcome_unknown, and a person
 * decides.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "http_int.h"
#include "retry.h"

#define MAX_HEADERS		50
#define MAX_METHOD		24

static const KindMember members[] = {
	{"method", KIND_TYPE_STRING, false},
	{"url", KIND_TYPE_STRING, false},
	{"path", KIND_TYPE_STRING, false},
	{"query", KIND_TYPE_OBJECT, false},
	{"headers", KIND_TYPE_OBJECT, false},
	{"body", KIND_TYPE_ANY, false},
	{"content_type", KIND_TYPE_STRING, false},
	{"expect_status", KIND_TYPE_ARRAY, false},
	{"idempotent", KIND_TYPE_BOOLEAN, false},
	{"idempotency_header", KIND_TYPE_STRING, false},
	{"id", KIND_TYPE_STRING, false},
	{"link", KIND_TYPE_STRING, false},
	{"poll", KIND_TYPE_OBJECT, false},
	{"result", KIND_TYPE_OBJECT, false},
	{"cancel", KIND_TYPE_OBJECT, false},
	{"lookup", KIND_TYPE_OBJECT, false},
	{"pages", KIND_TYPE_OBJECT, false},
	{"outputs", KIND_TYPE_OBJECT, false},
	{"rows_read", KIND_TYPE_STRING, false},
	{"rows_written", KIND_TYPE_STRING, false},
	{"error", KIND_TYPE_OBJECT, false},
	{"allow_hosts", KIND_TYPE_ARRAY, false},
};

typedef struct Method
{
	const char *name;
	bool		changes;		/* something at the service */
	bool		is_repeatable;
} Method;

/* What is not here, such as PROPFIND, is taken for one that changes something. */
static const Method methods[] = {
	{"GET", false, true},
	{"HEAD", false, true},
	{"OPTIONS", false, true},
	{"PUT", true, true},
	{"DELETE", true, true},
	{"POST", true, false},
	{"PATCH", true, false},
};

/* False if the spec's is none, or none for a task: CONNECT is for proxies, TRACE says credentials back. */
static bool
method_of(const cJSON *spec, Method *method)
{
	static const char *const refused[] = {"CONNECT", "TRACE", "TRACK"};
	const char *name = kind_string(spec, "method");
	size_t		len = name ? strlen(name) : 0;

	*method = methods[0];
	if (name == NULL)
		return true;
	for (size_t i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i].name, name) == 0)
		{
			*method = methods[i];
			return true;
		}
	}
	for (size_t i = 0; i < lengthof(refused); i++)
	{
		if (strcmp(refused[i], name) == 0)
			return false;
	}
	*method = (Method) {name, true, false};
	return len >= 2 && len <= MAX_METHOD && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == len;
}

bool
http_is_repeatable(const KindCall *call)
{
	const cJSON *said = kind_member(call->spec, "idempotent");
	Method		method;

	if (!method_of(call->spec, &method))
		return false;
	if (method.is_repeatable)
		return true;
	if (!cJSON_IsBool(said))
		said = kind_member(call->options, "idempotent");
	return cJSON_IsTrue(said);
}

static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
	{
		if (((unsigned char) *text < ' ' && *text != '\t') || *text == 0x7F)
			return true;
	}
	return false;
}

/* Headers a spec cannot set; the first three hold credentials */
static const char *const reserved[] = {
	"Authorization", "Proxy-Authorization", "Cookie", "Host", "Content-Length",
	"Content-Type", "Transfer-Encoding", "Connection", "Idempotency-Key", "Expect",
	"TE", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Connection", "Metadata",
};

static const char token_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";

/* The header that carries the attempt's token, if it is not Idempotency-Key */
static bool
check_key_header(const char *name, KindProblem *problem)
{
	if (name == NULL || kind_text_may_become(problem, name) || strcasecmp(name, "Idempotency-Key") == 0)
		return true;
	for (size_t i = 0; i < lengthof(reserved); i++)
	{
		if (strcasecmp(reserved[i], name) == 0)
			return kind_problem(problem, "$.idempotency_header", mem_printf("header \"%s\" cannot be set by a spec", reserved[i]), NULL);
	}
	return (strlen(name) <= 64 && strspn(name, token_chars) == strlen(name)) ||
		kind_problem(problem, "$.idempotency_header", "invalid name of a header", NULL);
}

static bool
check_headers(const cJSON *headers, KindProblem *problem)
{
	const cJSON *item;

	if (cJSON_GetArraySize(headers) > MAX_HEADERS)
		return kind_problem(problem, "$.headers", "more than 50 headers", NULL);
	cJSON_ArrayForEach(item, headers)
	{
		char	   *name = kind_clean_text(item->string, strlen(item->string), 64);
		char	   *path = mem_printf("$.headers.%s", name);

		if (*name == '\0' || strspn(item->string, token_chars) != strlen(item->string))
			return kind_problem(problem, path, "invalid name of a header", NULL);
		for (size_t i = 0; i < lengthof(reserved); i++)
		{
			if (strcasecmp(reserved[i], name) == 0)
				return kind_problem(problem, path, mem_printf("header \"%s\" cannot be set by a spec", name),
									i < 3 ? "Credentials belong to the connection: use its auth with the name of a secret." :
									i == 5 ? "Use \"content_type\"." : NULL);
		}
		if (cJSON_IsObject(item) || cJSON_IsArray(item) || cJSON_IsNull(item))
			return kind_problem(problem, path, "the value of a header must be a string or a number", NULL);
		if (has_control(kind_scalar_text(item)))
			return kind_problem(problem, path, "the value of a header must not contain control characters", NULL);
	}
	return true;
}

static bool
check_statuses(const cJSON *statuses, KindProblem *problem)
{
	const cJSON *item;
	int			i = 0;

	cJSON_ArrayForEach(item, statuses)
	{
		int64		status;

		if (!kind_may_become(problem, item) &&
			(!json_int64(item, &status) || status < 200 || status > 599))
			return kind_problem(problem, mem_printf("$.expect_status[%d]", i),
								"an expected status must be an integer from 200 to 599", NULL);
		i++;
	}
	return i > 0 || kind_problem(problem, "$.expect_status", "\"expect_status\" is empty",
								 "Leave it out to expect any of 200 to 299.");
}

static bool
check_query(const cJSON *query, KindProblem *problem)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, query)
	{
		const cJSON *one = cJSON_IsArray(item) ? item->child : item;

		for (; one != NULL; one = cJSON_IsArray(item) ? one->next : NULL)
		{
			if (cJSON_IsObject(one) || cJSON_IsArray(one))
				return kind_problem(problem, "$.query", "a query parameter must be a scalar or an array of scalars", NULL);
		}
	}
	return true;
}

bool
http_check_request(const cJSON *spec, KindProblem *problem)
{
	const cJSON *name = kind_member(spec, "method");
	Method		method;
	const char *type = kind_string(spec, "content_type");
	const cJSON *headers;
	const cJSON *statuses;

	if (!kind_may_become(problem, name) && !method_of(spec, &method))
		return kind_problem(problem, "$.method", "not a method of a request",
							"Methods are GET, HEAD, OPTIONS, PUT, DELETE, POST, PATCH and others of capital letters, but not CONNECT and TRACE.");
	if ((kind_string(spec, "url") == NULL) == (kind_string(spec, "path") == NULL))
		return kind_problem(problem, "$", "give either \"url\" or \"path\"",
							"\"path\" is joined to the base URL of the connection.");
	if (kind_member(spec, "path") != NULL &&
		!kind_check_path(kind_member(spec, "path"), "$.path", "It has no \"..\", \"#\" or spaces. Give parameters in \"query\": they are percent-encoded.", problem))
		return false;
	if (type != NULL && (has_control(type) || strlen(type) > 200))
		return kind_problem(problem, "$.content_type", "not a content type", NULL);
	headers = kind_member(spec, "headers");
	if (cJSON_IsObject(headers) && !check_headers(headers, problem))
		return false;
	if (!check_query(kind_member(spec, "query"), problem) ||
		!check_key_header(kind_string(spec, "idempotency_header"), problem))
		return false;
	statuses = kind_member(spec, "expect_status");
	return !cJSON_IsArray(statuses) || check_statuses(statuses, problem);
}

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	return kind_check_members(spec, members, lengthof(members), problem) &&
		http_check_request(spec, problem) && http_check_rest(spec, problem);
}

static void
http_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

void
http_add_query(StrBuf *url, const cJSON *query)
{
	char		separator = strchr(url->data, '?') ? '&' : '?';
	const cJSON *item;

	cJSON_ArrayForEach(item, query)
	{
		const cJSON *one = cJSON_IsArray(item) ? item->child : item;

		for (; one != NULL; one = cJSON_IsArray(item) ? one->next : NULL)
		{
			if (cJSON_IsNull(one))
				continue;
			strbuf_addchar(url, separator);
			kind_url_encode(url, item->string);
			strbuf_addchar(url, '=');
			kind_url_encode(url, kind_scalar_text(one));
			separator = '&';
		}
	}
}

/* Is url the base address or something below it?  Only there go the connection's credentials. */
static bool
is_below(const char *url, const char *base)
{
	size_t		len = base ? strlen(base) : 0;

	return len > 0 && strncmp(url, base, len) == 0 &&
		(url[len] == '\0' || strchr("/?#", url[len]) != NULL) && !kind_path_climbs(url + len);
}

bool
http_build_url(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *path = kind_string(call->spec, "path");
	const char *given = kind_string(call->spec, "url");
	StrBuf		url;

	strbuf_init(&url);
	if (path != NULL)
	{
		if (call->base_url == NULL || *call->base_url == '\0')
			return kind_problem(problem, "$.path", "\"path\" needs a connection with a base URL", NULL);
		if (strchr(path, '#') != NULL || kind_path_climbs(path))
			return kind_problem(problem, "$.path", "\"path\" must not contain \"#\" or segments \"..\"", NULL);
		strbuf_addstr(&url, call->base_url);
		if (*path != '/' && *path != '?')
			strbuf_addchar(&url, '/');
		strbuf_addstr(&url, path);
	}
	else
	{
		if (strncasecmp(given, "http://", 7) != 0 && strncasecmp(given, "https://", 8) != 0)
			return kind_problem(problem, "$.url", "\"url\" must begin with http:// or https://", NULL);
		if (strchr(given, '#') != NULL)
			return kind_problem(problem, "$.url", "\"url\" must not contain \"#\"", NULL);
		strbuf_addstr(&url, given);
		request->without_auth = !is_below(given, call->base_url);
	}
	http_add_query(&url, kind_member(call->spec, "query"));
	if (url.len > HTTP_MAX_URL)
		return kind_problem(problem, "$", "the URL is longer than 8192 bytes", NULL);
	for (size_t i = 0; i < url.len; i++)
	{
		if ((unsigned char) url.data[i] <= ' ' || url.data[i] == 0x7F)
			return kind_problem(problem, path ? "$.path" : "$.url",
								"a URL must not contain white space or control characters",
								"Give parameters in \"query\": they are percent-encoded.");
	}
	request->url = url.data;
	return true;
}

void
http_build_body(const cJSON *spec, KindRequest *request)
{
	const cJSON *body = kind_member(spec, "body");
	const char *type = kind_string(spec, "content_type");

	if (body == NULL || cJSON_IsNull(body))
		return;
	if (cJSON_IsString(body))
	{
		request->body = body->valuestring;
		request->content_type = type ? type : "text/plain; charset=utf-8";
		return;
	}
	request->body = json_text(body);
	request->content_type = type ? type : "application/json";
}

/*
 * The connection's default headers, then the spec's, which win.  What belongs
 * to the connection stays where its credentials stay.
 */
const cJSON *
http_build_headers(const KindCall *call, const KindRequest *request)
{
	const char *key = kind_string(call->spec, "idempotency_header");
	const cJSON *sources[2];
	cJSON	   *headers = cJSON_CreateObject();

	sources[0] = request->without_auth ? NULL : kind_member(call->options, "default_headers");
	sources[1] = kind_member(call->spec, "headers");
	for (int i = 0; i < 2; i++)
	{
		const cJSON *item;

		if (!cJSON_IsObject(sources[i]))
			continue;
		cJSON_ArrayForEach(item, sources[i])
		{
			cJSON	   *value = cJSON_CreateString(kind_scalar_text(item));

			/* header names have no case, so neither has this */
			cJSON_DeleteItemFromObject(headers, item->string);
			cJSON_AddItemToObject(headers, item->string, value);
		}
	}
	if (key != NULL && call->step == KIND_STEP_START)
	{
		cJSON_DeleteItemFromObject(headers, key);
		cJSON_AddStringToObject(headers, key, call->token ? call->token : "");
	}
	return headers->child != NULL ? headers : NULL;
}

static char *
unknown_message(const KindCall *call, const char *reason)
{
	const char *where = kind_string(call->spec, "path");

	if (where == NULL)
		where = kind_string(call->spec, "url");
	/* what follows the path may be confidential */
	where = where ? mem_strndup(where, strcspn(where, "?#")) : "";
	return mem_printf("%s: whether %s %s took effect is not known; check the service (Idempotency-Key \"%s\") before the task is run again, or mark the task \"idempotent\" if it may be repeated",
					  reason, kind_string(call->spec, "method") ? kind_string(call->spec, "method") : "GET",
					  where, call->token ? call->token : "");
}

static KindStep
http_first_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_START;
}

static KindStep
http_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL && kind_member(call->spec, "poll") != NULL)
		return KIND_STEP_POLL;
	return http_is_repeatable(call) ? KIND_STEP_START : KIND_STEP_LOOKUP;
}

bool
http_method(const cJSON *spec, KindRequest *request)
{
	Method		method;

	if (!method_of(spec, &method))
		return false;
	request->method = method.name;
	request->starts_work = method.changes;
	return true;
}

static bool
http_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	bool		has_lookup = kind_member(call->spec, "lookup") != NULL;

	if (call->step == KIND_STEP_LOOKUP && !has_lookup)
	{
		/* after a crash: there is nobody to ask */
		problem->code = "outcome_unknown";
		problem->is_system_error = true;
		return kind_problem(problem, "$", unknown_message(call, "the conductor was interrupted"), NULL);
	}
	if (!check_spec(call->spec, problem))
		return false;
	if (call->step != KIND_STEP_START)
		return http_poll_request(call, request, problem);
	if (!http_build_url(call, request, problem))
		return false;
	if (!http_method(call->spec, request))
		return kind_problem(problem, "$.method", "unknown method", NULL);
	request->is_repeatable = http_is_repeatable(call);
	if (kind_string(call->spec, "idempotency_header") == NULL)
		request->idempotency_key = call->token;
	request->headers = http_build_headers(call, request);
	http_build_body(call->spec, request);
	return true;
}

bool
http_is_expected(const cJSON *spec, int status)
{
	const cJSON *statuses = kind_member(spec, "expect_status");
	const cJSON *item;

	if (!cJSON_IsArray(statuses))
		return status >= 200 && status <= 299;
	cJSON_ArrayForEach(item, statuses)
	{
		int64		value;

		if (json_int64(item, &value) && value == status)
			return true;
	}
	return false;
}

/*
 * A 503 may come from the service, which did nothing, or from a gateway that
 * lost its answer; only one that says when to come back is the word of somebody
 * who sent us away.
 */
bool
http_is_refusal(const KindResponse *response)
{
	int			status = response->http_status;

	return status == 401 || status == 429 || (status == 503 && response->retry_after_ms >= 0);
}

/* Not sent, or refused before anything was done, if the request may not be repeated. */
static void
unrepeatable_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	bool		answered = status > 0 && response->transport_error == NULL;
	bool		arrived = response->request_sent || status > 0;
	bool		refused = answered ? http_is_refusal(response) : !arrived;
	bool		transient = answered && retry_http_status_is_transient(status) && !refused;

	/* what may have been started can be looked for */
	if (((!answered && arrived) || transient) && kind_member(call->spec, "lookup") != NULL)
	{
		kind_state_set(call, verdict, "maybe_started", cJSON_CreateTrue());
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, response->retry_after_ms));
	}
	else if (!answered && arrived)
	{
		kind_fail_unknown(verdict, unknown_message(call, response->transport_error ? response->transport_error : "no answer"));
		kind_hopeless(call, response, verdict);
	}
	else if (!refused || !kind_common_response(call, response, false, true, HTTP_TRIES, verdict))
		kind_fail_unrepeatable(call, response, verdict);
}

void
http_not_expected(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	Method		method;
	int			status = response->http_status;
	bool		answered = status > 0 && response->transport_error == NULL;

	if (!http_is_repeatable(call))
		unrepeatable_response(call, response, verdict);
	else
	{
		/*
		 * POST is repeatable for the sake of its key, which the next attempt
		 * will not have; PUT by nature.
		 */
		bool		by_key = method_of(call->spec, &method) && !method.is_repeatable &&
			(!answered || status == 502 || status == 504);

		if (!kind_common_response(call, response, by_key, true, HTTP_TRIES, verdict))
			kind_fail_status(call, response, verdict);
	}
	if (answered && verdict->outcome == KIND_FAILED)
	{
		/* a gateway's words are not the service's */
		if (strcmp(verdict->error_code, "outcome_unknown") != 0)
			http_say_error(call, response, verdict);
		verdict->output = http_output(response);
	}
}

static void
http_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		answered = response->http_status > 0 && response->transport_error == NULL;

	if (call->step != KIND_STEP_START)
		http_poll_response(call, response, verdict);
	else if (answered && http_is_expected(call->spec, response->http_status))
		http_started(call, response, verdict);
	else
		http_not_expected(call, response, verdict);
}

/* Only a spec that says how can have its work stopped. */
static bool
http_can_cancel(const KindCall *call)
{
	return kind_member(call->spec, "cancel") != NULL;
}

/* A service we know nothing about cannot be told to stop; what was sent may take effect. */
static void
http_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	static const char reason[] = "given up before it was answered";
	Method		method;

	if (call->external_run_id != NULL)
		kind_fail_unknown(verdict, mem_printf("given up; %s may still be going on, as the task has no \"cancel\"", call->external_run_id));
	else if ((is_sent || kind_state_bool(call, "maybe_started")) &&
		(!method_of(call->spec, &method) || !method.is_repeatable))
		kind_fail_unknown(verdict, unknown_message(call, reason));
	else
	{
		kind_fail(verdict, false, true, "cancelled", reason);
		verdict->outcome = KIND_CANCELLED;
	}
}

static const char *
http_named_url(const cJSON *spec, const char **member)
{
	*member = ".url";
	return kind_string(spec, "url");
}

const TaskKind kind_http = {
	.name = "http",
	.connection_kind = "http",
	.is_http = true,
	.validate = http_validate,
	.first_step = http_first_step,
	.resume_step = http_resume_step,
	.request = http_request,
	.response = http_response,
	.abandon = http_abandon,
	.can_cancel = http_can_cancel,
	.named_url = http_named_url,
};
