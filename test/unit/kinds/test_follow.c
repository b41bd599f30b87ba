/*-------------------------------------------------------------------------
 * test_follow.c
 *	  Kind http beyond one exchange: looks, results, pages, cancels, links
 *-------------------------------------------------------------------------
 */
#include "harness.h"

static Attempt a;

static void
begin(const char *spec)
{
	attempt_init(&a, "http", spec, "{'default_headers': {'X-Team': 'lake'}}", "https://api.example.com/v1");
	attempt_begin(&a);
}

static const char *
problem_of(const char *spec)
{
	KindProblem problem = {0};

	kind_find("http")->validate(from_text(spec), &problem);
	return problem.message ? mem_printf("%s %s", problem.path, problem.message) : NULL;
}

#define POLL "'poll': {'path': '/jobs/{id}', 'every': '5 seconds', 'status': '$.state', 'succeeded': ['done', 7], 'failed': ['bad'], 'cancelled': ['stopped']}"

static void
test_values(void)
{
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.job.id', " POLL ", 'outputs': {'rows': '$.r.rows', 'all': '$.r.list[*].n', 'none': '$.x'},"
		  "'rows_read': '$.r.rows', 'rows_written': '$.r.no'}");
	answer_after(&a, 202, "{'job': {'id': 9007199254740993}}", 7000);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, "9007199254740993");
	CHECK_INT(a.verdict.delay_ms, 7000);
	CHECK(a.verdict.state_changed);
	answer(&a, 200, "{'state': 'new'}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/jobs/9007199254740993");
	CHECK_STR(a.request.method, "GET");
	CHECK(!a.request.without_auth && a.request.idempotency_key == NULL);
	CHECK_JSON(a.request.headers, "{'X-Team': 'lake'}");
	CHECK_INT(a.verdict.delay_ms, 5000);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "<html>");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 503, "");
	answer(&a, 200, "{'state': 'DONE', 'r': {'rows': 12, 'list': [{'n': 1}, {'n': 2}]}}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(kind_member(a.verdict.output, "outputs"), "{'rows': 12, 'all': [1, 2], 'none': null}");
	CHECK_INT(a.verdict.rows_read, 12);
	CHECK_INT(a.verdict.rows_written, -1);
}

static void
test_ends(void)
{
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL ", 'error': {'code': '$.e.kind', 'message': '$.e.text'}}");
	answer(&a, 202, "{'id': 'a/b'}");
	answer(&a, 200, "{'state': 'bad', 'e': {'kind': 17, 'text': 'no disk'}}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/jobs/a%2Fb");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "17");
	CHECK_STR(a.verdict.error_message, "no disk");
	CHECK(a.verdict.is_retryable);

	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL "}");
	answer(&a, 200, "{'id': 'a', 'state': 7}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL "}");
	answer(&a, 202, "{'id': 'a', 'state': 'stopped'}");
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL "}");
	answer(&a, 202, "{'ID': 'a'}");
	CHECK_STR(a.verdict.error_code, "link_not_followed");
	CHECK(a.verdict.may_go_on && !a.verdict.is_retryable);

	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', 'poll': {'path': '/j', 'status': '$.s', 'succeeded': ['y'], 'running': ['r']}}");
	answer(&a, 202, "{'id': 'a', 's': 'r'}");
	answer(&a, 200, "{'s': 'strange'}");
	CHECK_STR(a.verdict.error_code, "unexpected_status");
	CHECK(a.verdict.may_go_on);
}

/* The page of what was started: from the first answer that has one, if it is an address */
static void
test_link(void)
{
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', 'link': '$.ui.page', " POLL "}");
	answer(&a, 202, "{'id': 'a', 'ui': {'page': 'javascript:alert(1)'}}");
	CHECK_STR(a.verdict.external_url, NULL);
	answer(&a, 200, "{'state': 'busy', 'ui': {'page': 'https://ui.example.com/a?b=1'}}");
	CHECK_STR(a.verdict.external_url, "https://ui.example.com/a?b=1");
	CHECK(a.verdict.state_changed);
	answer(&a, 200, "{'state': 'busy', 'ui': {'page': 'https://ui.example.com/other'}}");
	CHECK_STR(a.verdict.external_url, NULL);
	begin("{'method': 'POST', 'path': '/jobs', 'link': '$.page'}");
	answer(&a, 200, "{'page': 'https://ui.example.com/1'}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(a.verdict.external_url, "https://ui.example.com/1");
}

/* By HTTP status: 202, 202, 303 to the result */
static void
test_headers(void)
{
	begin("{'method': 'PUT', 'path': '/x?a=1', 'poll': {'header': 'Location'}, 'result': {'header': 'location'}, 'cancel': {'json': '$.stop', 'method': 'DELETE'}}");
	answer_with(&a, 202, "Date: x\nLOCATION:  ops/1?sig=s \n", "{'stop': '/v1/ops/1/stop'}", 3000);
	CHECK_STR(a.call.external_run_id, "1");
	CHECK_INT(a.verdict.delay_ms, 3000);
	answer_with(&a, 202, "Location: /v1/ops/2\n", "", -1);
	CHECK_STR(a.request.url, "https://api.example.com/v1/ops/1?sig=s");
	CHECK(a.verdict.state_changed);
	CHECK_INT(a.verdict.delay_ms, -1);
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 202, "");
	CHECK_STR(a.request.method, "DELETE");
	CHECK_STR(a.request.url, "https://api.example.com/v1/ops/1/stop");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer_with(&a, 303, "Location: ../results/1\n", "", -1);
	CHECK_STR(a.request.url, "https://api.example.com/v1/ops/2");
	CHECK_STR(a.verdict.error_code, "link_not_followed");

	begin("{'method': 'PUT', 'path': '/x', 'poll': {'header': 'Location', 'failed_status': [500]}, 'result': {'header': 'Location'}}");
	answer_with(&a, 201, "Location: https://api.example.com/ops/1\n", "", -1);
	answer_with(&a, 303, "Location: https://api.example.com:443/r\n", "", -1);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer_with(&a, 303, "Location: /r\n", "", -1);
	answer(&a, 200, "{'n': 1}");
	CHECK_STR(a.request.url, "https://api.example.com/r");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(kind_member(a.verdict.output, "body"), "{'n': 1}");
	begin("{'method': 'PUT', 'path': '/x', 'poll': {'header': 'Location', 'failed_status': [500]}}");
	answer_with(&a, 202, "Location: /ops/1\n", "", -1);
	answer(&a, 500, "{'message': 'broken'}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
}

static void
test_links(void)
{
	static const struct
	{
		const char *link;
		const char *url;		/* NULL: not followed */
		bool		without_auth;
	}			cases[] = {
		{"https://api.example.com/other", "https://api.example.com/other", false},
		{"/abs?x=1#frag", "https://api.example.com/abs?x=1", false},
		{"rel", "https://api.example.com/v1/rel", false},
		{"?page=2", "https://api.example.com/v1/a?page=2", false},
		{"HTTPS://API.example.com/x", "HTTPS://API.example.com/x", false},
		{"https://mirror.example.org:8443/x", "https://mirror.example.org:8443/x", true},
		{"https://mirror.example.org/x", NULL, false},
		{"http://api.example.com/x", NULL, false},
		{"https://api.example.com:444/x", NULL, false},
		{"https://api.example.com.evil.net/x", NULL, false},
		{"https://api.example.com@evil.net/x", NULL, false},
		{"https://evil.net\\@api.example.com/x", NULL, false},
		{"//evil.net/x", NULL, false},
		{"/\\evil.net", NULL, false},
		{"ftp://api.example.com/", NULL, false},
		{"javascript:alert(1)", NULL, false},
		{"../up", NULL, false},
		{"/a b", NULL, false},
		{"https://169.254.169.254/metadata", NULL, false},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		begin("{'path': '/a', 'poll': {'json': '$.next'}, 'allow_hosts': ['mirror.example.org:8443']}");
		answer(&a, 202, mem_printf("{\"next\": \"%s\"}", strchr(cases[i].link, '\\') ? "/\\\\\\\\evil.net" : cases[i].link));
		if (cases[i].url == NULL)
		{
			check_true(a.verdict.outcome == KIND_FAILED, __FILE__, __LINE__, "%s is followed", cases[i].link);
			CHECK_STR(a.verdict.error_code, "link_not_followed");
			continue;
		}
		if (!check_true(a.verdict.outcome == KIND_CONTINUE, __FILE__, __LINE__, "%s is not followed: %s", cases[i].link, a.verdict.error_message))
			continue;
		CHECK(attempt_request(&a));
		CHECK_STR(a.request.url, cases[i].url);
		CHECK_INT(a.request.without_auth, cases[i].without_auth);
		CHECK_INT(a.request.headers == NULL, cases[i].without_auth);
	}
}

static void
test_lookup(void)
{
	begin("{'method': 'POST', 'path': '/jobs', 'idempotency_header': 'X-Key', 'id': '$.id', " POLL ","
		  "'lookup': {'path': '/jobs', 'query': {'key': '{token}'}, 'id': '$.jobs[0].id', 'settle': 10}}");
	lose(&a, true);
	CHECK_JSON(a.request.headers, "{'X-Team': 'lake', 'X-Key': 'weir-k1-42-1'}");
	CHECK(a.request.idempotency_key == NULL);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'jobs': []}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/jobs?key=weir-k1-42-1");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	a.call.now_ms += 20000;
	answer(&a, 200, "{'jobs': []}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'jobs': [{'id': 'j1'}]}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, "j1");

	/* without it a person decides */
	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL "}");
	lose(&a, true);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(a.verdict.may_go_on);
}

static void
test_cancel(void)
{
	KindVerdict verdict;

	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL ", 'cancel': {'path': '/jobs/{id}/stop', 'body': {'why': 'token {token}', 'n': [1, '{id}']}}}");
	CHECK(a.kind->can_cancel(&a.call));
	answer(&a, 202, "{'id': 'j1'}");
	a.call.step = KIND_STEP_CANCEL;
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, "https://api.example.com/v1/jobs/j1/stop");
	CHECK_STR(a.request.method, "POST");
	CHECK_JSON(sent(&a), "{'why': 'token weir-k1-42-1', 'n': [1, 'j1']}");
	answer(&a, 409, "{}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);

	begin("{'method': 'POST', 'path': '/jobs', 'id': '$.id', " POLL "}");
	CHECK(!a.kind->can_cancel(&a.call));
	answer(&a, 202, "{'id': 'j1'}");
	kind_verdict_init(&verdict);
	a.kind->abandon(&a.call, false, &verdict);
	CHECK_STR(verdict.error_code, "outcome_unknown");
	CHECK_HAS(verdict.error_message, "j1 may still be going on");
}

static void
test_pages(void)
{
	/* links in the body, then a crash: from the first page again */
	begin("{'path': '/a?x=1', 'pages': {'items': '$.value', 'next': {'json': '$.next'}}}");
	answer(&a, 200, "{'value': [1, 2], 'next': '/v1/a?x=1&skip=2'}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 500, "");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'value': [{'n': 3}], 'next': null}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/a?x=1&skip=2");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(a.verdict.output, "{'status': 200, 'content_type': 'application/json', 'pages': 2, 'items': [1, 2, {'n': 3}]}");
	CHECK_INT(a.verdict.rows_read, 3);
	begin("{'path': '/a', 'pages': {'items': '$.value', 'next': {'json': '$.next'}}}");
	answer(&a, 200, "{'value': [1], 'next': '/v1/a?2'}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 200, "{'value': [1]}");
	CHECK_JSON(kind_member(a.verdict.output, "items"), "[1]");

	/* Link, and a page that names itself */
	begin("{'path': '/a', 'pages': {'items': '$', 'next': {'header': 'Link'}}}");
	answer_with(&a, 200, "Link: <https://api.example.com/l>; rel=\"last\", <https://api.example.com/n>; rel=\"next\"\n", "[1]", -1);
	answer_with(&a, 200, "Link: <https://api.example.com/n>; rel=\"next\"\n", "[2]", -1);
	CHECK_STR(a.request.url, "https://api.example.com/n");
	CHECK_HAS(a.verdict.error_message, "names itself");

	/* a cursor in the query replaces the one that is there; in the body */
	begin("{'path': '/a?c=old&k=1', 'pages': {'items': '$.v', 'cursor': {'json': '$.c', 'parameter': 'c'}}}");
	answer(&a, 200, "{'v': [1], 'c': 'a b'}");
	answer(&a, 200, "{'v': [2], 'c': 'a b'}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/a?k=1&c=a%20b");
	CHECK_HAS(a.verdict.error_message, "same cursor");
	begin("{'method': 'POST', 'path': '/q', 'idempotent': true, 'body': {'q': 1}, 'pages': {'items': '$.v', 'cursor': {'json': '$.c', 'parameter': 'after', 'in': 'body'}}}");
	answer(&a, 200, "{'v': [1], 'c': 5}");
	answer(&a, 200, "{'v': [2], 'c': ''}");
	CHECK_STR(a.request.method, "POST");
	CHECK_JSON(sent(&a), "{'q': 1, 'after': '5'}");
	CHECK(a.request.idempotency_key == NULL);
	CHECK_JSON(kind_member(a.verdict.output, "items"), "[1, 2]");

	/* numbers, until a page is empty */
	begin("{'path': '/a', 'pages': {'items': '$.v', 'number': {'parameter': 'page', 'first': 0}}}");
	answer(&a, 200, "{'v': [1]}");
	answer(&a, 200, "{'v': [2]}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/a?page=1");
	answer(&a, 200, "{'v': []}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/a?page=2");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	/* bounds */
	begin("{'path': '/a', 'pages': {'items': '$.v', 'number': {'parameter': 'p'}, 'max_pages': 2}}");
	answer(&a, 200, "{'v': [1]}");
	answer(&a, 200, "{'v': [1]}");
	CHECK_STR(a.verdict.error_code, "too_many_pages");
	begin("{'path': '/a', 'pages': {'items': '$.v', 'number': {'parameter': 'p'}, 'max_bytes': 5, 'truncate': true}}");
	answer(&a, 200, "{'v': [11, 22, 33]}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(kind_member(a.verdict.output, "items"), "[11]");
	CHECK(cJSON_IsTrue(kind_member(a.verdict.output, "truncated")));
	begin("{'path': '/a', 'pages': {'items': '$.v', 'next': {'json': '$.n'}}}");
	answer(&a, 200, "{'x': 1}");
	CHECK_STR(a.verdict.error_code, "bad_answer");
	begin("{'path': '/a', 'pages': {'items': '$.v', 'next': {'json': '$.n'}}}");
	answer(&a, 200, "{'v': [1], 'n': 'https://evil.net/?token=x'}");
	CHECK_STR(a.verdict.error_code, "link_not_followed");
	CHECK_HAS(a.verdict.error_message, "!token");
}

static void
test_definitions(void)
{
	static const char *const cases[][2] = {
		{"{'path': '/a', 'poll': {}}", "$.poll give exactly one of"},
		{"{'path': '/a', 'poll': {'header': 'Location', 'json': '$.x'}}", "$.poll give exactly one of"},
		{"{'path': '/a', 'poll': {'json': 'x'}}", "$.poll.json not a JSON path"},
		{"{'path': '/a', 'poll': {'path': '/../x'}}", "$.poll.path not a path"},
		{"{'path': '/a', 'poll': {'path': '/x', 'every': 'soon'}}", "$.poll.every not a duration"},
		{"{'path': '/a', 'poll': {'path': '/x', 'status': '$.s'}}", "$.poll \"succeeded\" is missing"},
		{"{'path': '/a', 'poll': {'path': '/x', 'succeeded': ['y']}}", "$.poll \"succeeded\" needs \"status\""},
		{"{'path': '/a', 'poll': {'path': '/x', 'status': '$.s', 'succeeded': []}}", "$.poll.succeeded a list"},
		{"{'path': '/a', 'poll': {'path': '/x', 'what': 1}}", "$.poll.what unknown member"},
		{"{'path': '/a', 'poll': {'path': '/x', 'failed_status': [200]}}", "$.poll.failed_status"},
		{"{'path': '/a', 'cancel': {'path': '/x'}}", "$.cancel \"cancel\" needs \"poll\""},
		{"{'path': '/a', 'poll': {'path': '/x'}, 'cancel': {'path': '/x', 'method': 'STOP'}}", "$.cancel.method"},
		{"{'path': '/a', 'lookup': {'path': '/x'}}", "$.lookup \"id\" is missing"},
		{"{'path': '/a', 'pages': {'items': '$.v'}}", "$.pages give exactly one of"},
		{"{'path': '/a', 'pages': {'items': '$.v', 'number': {}}}", "$.pages.number \"parameter\" is missing"},
		{"{'path': '/a', 'pages': {'items': '$.v', 'next': {'json': '$..x'}}}", "$.pages.next.json not a JSON path"},
		{"{'path': '/a', 'method': 'POST', 'pages': {'items': '$.v', 'number': {'parameter': 'p'}}}", "$.pages pages by"},
		{"{'path': '/a', 'pages': {'items': '$.v', 'number': {'parameter': 'p'}, 'max_pages': 0}}", "$.pages.max_pages"},
		{"{'path': '/a', 'outputs': {'x': '$['}}", "$.outputs.x not a JSON path"},
		{"{'path': '/a', 'error': {'text': '$.x'}}", "$.error.text unknown member"},
		{"{'path': '/a', 'allow_hosts': ['https://x/']}", "$.allow_hosts[0] not a host"},
		{"{'path': '/a', 'idempotency_header': 'Authorization'}", "$.idempotency_header header"},
		{"{'path': '/a', 'idempotency_header': 'X Key'}", "$.idempotency_header invalid"},
		{"{'path': '/a', 'headers': {'Upgrade': 'h2c'}}", "$.headers.Upgrade header"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
		CHECK_HAS(problem_of(cases[i][0]), cases[i][1]);
	CHECK_STR(problem_of("{'path': '/a', 'id': '{{params.id}}', 'poll': {'path': '/{{params.p}}', 'every': '{{params.e}}', 'status': '$.s', 'succeeded': ['{{params.v}}']}}"), NULL);
}

void
test_follow(void)
{
	test_values();
	test_ends();
	test_link();
	test_headers();
	test_links();
	test_lookup();
	test_cancel();
	test_pages();
	test_definitions();
}
