/*-------------------------------------------------------------------------
 * harness.c
 *	  Checks, and an attempt that a test leads through its exchanges
 *-------------------------------------------------------------------------
 */
#include "harness.h"

int			checks_passed;
int			checks_failed;

/* What kinds allocate belongs to nobody here */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

bool
check_true(bool ok, const char *file, int line, const char *fmt,...)
{
	va_list		args;

	if (ok)
	{
		checks_passed++;
		return true;
	}
	checks_failed++;
	printf("%s:%d: failed: ", file, line);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	return false;
}

bool
check_int(int64 actual, int64 expected, const char *file, int line, const char *what)
{
	return check_true(actual == expected, file, line,
					  "%s is " INT64_FORMAT ", not " INT64_FORMAT, what, actual, expected);
}

bool
check_str(const char *actual, const char *expected, const char *file, int line, const char *what)
{
	bool		same = actual == NULL || expected == NULL ? actual == expected : strcmp(actual, expected) == 0;

	return check_true(same, file, line, "%s is \"%s\", not \"%s\"", what,
					  actual ? actual : "(null)", expected ? expected : "(null)");
}

bool
check_has(const char *text, const char *part, const char *file, int line, const char *what)
{
	if (*part == '!')
		return check_true(text == NULL || strstr(text, part + 1) == NULL, file, line,
						  "%s is \"%s\", with \"%s\"", what, text ? text : "(null)", part + 1);
	return check_true(text != NULL && strstr(text, part) != NULL, file, line,
					  "%s is \"%s\", without \"%s\"", what, text ? text : "(null)", part);
}

bool
check_json(const cJSON *actual, const char *expected, const char *file, int line, const char *what)
{
	cJSON	   *tree = from_text(expected);

	return check_true(actual != NULL && cJSON_Compare(actual, tree, true), file, line, "%s is %s, not %s",
					  what, actual ? json_text(actual) : "(null)", json_text(tree));
}

cJSON *
from_text(const char *text)
{
	char	   *copy = mem_strdup(text);
	char	   *error;
	cJSON	   *tree;

	for (char *p = copy; *p != '\0'; p++)
	{
		if (*p == '\'')
			*p = '"';
	}
	tree = json_parse(copy, strlen(copy), 64 * 1024 * 1024, &error);
	if (tree == NULL)
	{
		printf("bad JSON in a test: %s\n%s\n", error, copy);
		abort();
	}
	return tree;
}

void
attempt_init(Attempt *attempt, const char *kind, const char *spec, const char *options,
			 const char *base_url)
{
	memset(attempt, 0, sizeof(*attempt));
	attempt->kind = kind_find(kind);
	attempt->call.token = "weir-k1-42-1";
	attempt->call.spec = from_text(spec);
	attempt->call.options = from_text(options);
	attempt->call.base_url = base_url;
	attempt->call.kind_state = cJSON_CreateObject();
	attempt->call.scratch = cJSON_CreateObject();
	attempt->call.intended_at_ms = NOW_MS;
	attempt->call.now_ms = NOW_MS;
	attempt->committed = cJSON_CreateObject();
}

static void
commit(Attempt *attempt)
{
	cJSON	   *copy = from_text(json_text(attempt->call.kind_state));

	attempt->committed = copy;
	attempt->committed_step = attempt->call.step;
}

void
attempt_begin(Attempt *attempt)
{
	attempt->call.step = attempt->kind->first_step(&attempt->call);
	commit(attempt);
}

void
attempt_crash(Attempt *attempt)
{
	attempt->call.kind_state = from_text(json_text(attempt->committed));
	attempt->call.scratch = cJSON_CreateObject();
	attempt->call.step = attempt->kind->resume_step(&attempt->call);
	attempt->call.step_tries = 0;
	attempt->call.after_crash = true;
	kind_verdict_init(&attempt->verdict);
}

bool
attempt_request(Attempt *attempt)
{
	memset(&attempt->request, 0, sizeof(attempt->request));
	memset(&attempt->problem, 0, sizeof(attempt->problem));
	attempt->problem.is_rendered = true;
	return attempt->kind->request(&attempt->call, &attempt->request, &attempt->problem);
}

/* As the conductor does it, minus the database */
void
attempt_response(Attempt *attempt, const KindResponse *response)
{
	KindVerdict *verdict = &attempt->verdict;
	KindStep	step = attempt->call.step;
	char	   *before = json_text(attempt->call.kind_state);

	kind_verdict_init(verdict);
	attempt->kind->response(&attempt->call, response, verdict);
	if (verdict->outcome != KIND_CONTINUE)
		return;
	CHECK(verdict->state_changed || strcmp(before, json_text(attempt->call.kind_state)) == 0);
	CHECK(verdict->state_changed || !verdict->external_run_over);
	if (verdict->external_run_over)
		attempt->call.external_run_id = NULL;
	if (verdict->external_run_id != NULL)
		attempt->call.external_run_id = mem_strdup(verdict->external_run_id);
	if (verdict->external_url != NULL)
		attempt->external_url = mem_strdup(verdict->external_url);
	attempt->call.step_tries = verdict->next_step != step || verdict->reset_tries ? 0 : attempt->call.step_tries + 1;
	attempt->call.step = verdict->next_step;
	if (verdict->state_changed || verdict->next_step != step || verdict->external_run_id != NULL)
		commit(attempt);
	attempt->call.now_ms += verdict->delay_ms >= 0 ? verdict->delay_ms : 200;
}

bool
answer_after(Attempt *attempt, int http_status, const char *body, int64 retry_after_ms)
{
	return answer_with(attempt, http_status, "", body, retry_after_ms);
}

bool
answer_with(Attempt *attempt, int http_status, const char *headers, const char *body, int64 retry_after_ms)
{
	KindResponse response;
	char	   *copy = mem_strdup(body);

	if (!attempt_request(attempt))
	{
		CHECK_STR(attempt->problem.message, NULL);
		return false;
	}
	for (char *p = copy; *p != '\0'; p++)
	{
		if (*p == '\'')
			*p = '"';
	}
	memset(&response, 0, sizeof(response));
	response.http_status = http_status;
	response.body = copy;
	response.body_len = strlen(copy);
	response.retry_after_ms = retry_after_ms;
	response.headers = headers;
	response.content_type = "application/json";
	response.request_sent = true;
	attempt_response(attempt, &response);
	return true;
}

bool
answer(Attempt *attempt, int http_status, const char *body)
{
	return answer_after(attempt, http_status, body, -1);
}

bool
lose(Attempt *attempt, bool request_sent)
{
	KindResponse response;

	if (!attempt_request(attempt))
	{
		CHECK_STR(attempt->problem.message, NULL);
		return false;
	}
	memset(&response, 0, sizeof(response));
	response.body = "";
	response.retry_after_ms = -1;
	response.transport_error = request_sent ? "connection reset by peer" : "could not connect";
	response.request_sent = request_sent;
	attempt_response(attempt, &response);
	return true;
}

cJSON *
sent(const Attempt *attempt)
{
	return attempt->request.body ? from_text(attempt->request.body) : NULL;
}
