/*-------------------------------------------------------------------------
 * test_http.c
 *	  Kind http
 *-------------------------------------------------------------------------
 */
#include "harness.h"

static Attempt a;

static void
begin(const char *spec, const char *options)
{
	attempt_init(&a, "http", spec, options, "https://api.example.com/v1");
	attempt_begin(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
}

static void
test_requests(void)
{
	static const struct
	{
		const char *spec;
		const char *url;		/* NULL: cannot be built */
		bool		without_auth;
	}			cases[] = {
		{"{'path': '/a'}", "https://api.example.com/v1/a", false},
		{"{'path': 'a', 'query': {'x': 'a b&c', 'n': 9007199254740993, 'l': [1, true], 'no': null}}",
		"https://api.example.com/v1/a?x=a%20b%26c&n=9007199254740993&l=1&l=true", false},
		{"{'path': '?a=1', 'query': {'b': 2}}", "https://api.example.com/v1?a=1&b=2", false},
		{"{'path': '/a/../../admin'}", NULL, false},
		{"{'path': '/a/%2e%2E/admin'}", NULL, false},
		{"{'path': '/a/.%2e'}", NULL, false},
		{"{'path': '/a/..b/...'}", "https://api.example.com/v1/a/..b/...", false},
		{"{'path': '/a#b'}", NULL, false},
		{"{'path': '/a b'}", NULL, false},
		{"{'path': '@evil.example'}", "https://api.example.com/v1/@evil.example", false},
		{"{'url': 'https://api.example.com/v1/b'}", "https://api.example.com/v1/b", false},
		{"{'url': 'https://api.example.com/v1'}", "https://api.example.com/v1", false},
		{"{'url': 'https://api.example.com/v1/../v2'}", "https://api.example.com/v1/../v2", true},
		{"{'url': 'https://api.example.com/v10'}", "https://api.example.com/v10", true},
		{"{'url': 'https://other.example.com/'}", "https://other.example.com/", true},
		{"{'url': 'https://api.example.com/v1@evil.example/'}", "https://api.example.com/v1@evil.example/", true},
		{"{'url': 'file:///etc/passwd'}", NULL, false},
		{"{'path': '/a', 'method': 'TRACE'}", NULL, false},
		{"{'path': '/a', 'method': '{{x}}'}", NULL, false},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		begin(cases[i].spec, "{}");
		if (!check_true(attempt_request(&a) == (cases[i].url != NULL), __FILE__, __LINE__, "%s: %s", cases[i].spec,
						a.problem.message ? a.problem.message : "no problem"))
			continue;
		if (cases[i].url != NULL)
		{
			CHECK_STR(a.request.url, cases[i].url);
			CHECK_INT(a.request.without_auth, cases[i].without_auth);
		}
		else
			CHECK(a.problem.path != NULL && a.problem.message != NULL && !a.problem.is_system_error);
	}

	begin("{'path': '/a', 'method': 'POST', 'body': {'n': 9007199254740993}, 'headers': {'x-a': 'mine', 'X-N': 5}}",
		  "{'default_headers': {'X-A': 'theirs', 'X-B': 'b'}}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.body, "{\"n\":9007199254740993}");
	CHECK_STR(a.request.content_type, "application/json");
	CHECK_STR(a.request.idempotency_key, "weir-k1-42-1");
	CHECK_JSON(a.request.headers, "{'X-B': 'b', 'x-a': 'mine', 'X-N': '5'}");
	CHECK(a.request.starts_work && !a.request.is_repeatable);

	begin("{'path': '/a', 'method': 'PUT', 'body': 'a,b', 'content_type': 'text/csv'}", "{}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.body, "a,b");
	CHECK_STR(a.request.content_type, "text/csv");
	CHECK(a.request.starts_work && a.request.is_repeatable);

	begin("{'path': '/a'}", "{}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "GET");
	CHECK(a.request.body == NULL && a.request.headers == NULL);
	CHECK(!a.request.starts_work && a.request.is_repeatable);

	begin("{'path': '/a', 'method': 'POST'}", "{'idempotent': true}");
	CHECK(attempt_request(&a) && a.request.is_repeatable);
	begin("{'path': '/a', 'method': 'POST', 'idempotent': false}", "{'idempotent': true}");
	CHECK(attempt_request(&a) && !a.request.is_repeatable);
}

static void
test_answers(void)
{
	begin("{'path': '/a'}", "{}");
	answer(&a, 200, "{'id': 9007199254740993}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(json_text(a.verdict.output), "{\"status\":200,\"content_type\":\"application/json\",\"body\":{\"id\":9007199254740993}}");
	begin("{'path': '/a'}", "{}");
	answer(&a, 204, "");
	CHECK_JSON(a.verdict.output, "{'status': 204, 'content_type': 'application/json', 'body': null}");
	begin("{'path': '/a'}", "{}");
	answer(&a, 200, "plain \xff text");
	CHECK_STR(json_string(json_get(a.verdict.output, "body")), "plain ? text");
	begin("{'path': '/a', 'expect_status': [404, 503]}", "{}");
	answer(&a, 503, "{}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin("{'path': '/a', 'expect_status': [404]}", "{}");
	answer(&a, 200, "{}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	begin("{'path': '/a'}", "{}");
	answer(&a, 404, "{'error': {'code': 'NotFound', 'message': 'gone'}}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "NotFound");
	CHECK_STR(a.verdict.error_message, "HTTP 404: gone");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_INT((int64) cJSON_GetNumberValue(json_get(a.verdict.output, "status")), 404);
	begin("{'path': '/a'}", "{}");
	answer(&a, 302, "");
	CHECK_STR(a.verdict.error_code, "http_302");
	begin("{'path': '/a'}", "{}");
	answer(&a, 501, "");
	CHECK(!a.verdict.is_user_error && a.verdict.is_retryable);
}

static void
test_lost(void)
{
	/* must not be repeated */
	begin("{'path': '/charge?card=4111', 'method': 'POST'}", "{}");
	lose(&a, true);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_HAS(a.verdict.error_message, "POST /charge took effect");
	CHECK_HAS(a.verdict.error_message, "!4111");
	CHECK_HAS(a.verdict.error_message, "weir-k1-42-1");

	/* did not arrive */
	begin("{'path': '/a', 'method': 'POST'}", "{}");
	lose(&a, false);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.verdict.next_step, KIND_STEP_START);
	answer(&a, 429, "{}");
	CHECK_INT(a.verdict.next_step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	attempt_response(&a, &(KindResponse){.http_status = 503, .body = "{}", .body_len = 2, .retry_after_ms = 2000, .request_sent = true});
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.verdict.next_step, KIND_STEP_START);
	answer(&a, 500, "{'message': 'oops'}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(!a.verdict.is_retryable && !a.verdict.is_user_error);
	CHECK_HAS(a.verdict.error_message, "idempotent");

	/* a gateway may have lost the answer of a service that did it */
	for (int status = 502; status <= 504; status++)
	{
		begin("{'path': '/a', 'method': 'POST', 'error': {'code': '$.code'}}", "{}");
		answer(&a, status, "{'code': 'Busy'}");
		CHECK_INT(a.verdict.outcome, KIND_FAILED);
		CHECK_STR(a.verdict.error_code, "outcome_unknown");
		CHECK(a.verdict.may_go_on && !a.verdict.is_retryable);
		begin("{'path': '/a', 'method': 'POST', 'idempotent': true}", "{}");
		answer(&a, status, "{}");
		CHECK_INT(a.verdict.next_step, KIND_STEP_START);
	}

	/* what belongs to the connection does not leave its address */
	begin("{'url': 'https://elsewhere.example/a', 'headers': {'X-Spec': '1'}}", "{'default_headers': {'X-Key': 'k'}}");
	CHECK(attempt_request(&a));
	CHECK(a.request.without_auth);
	CHECK_JSON(a.request.headers, "{'X-Spec': '1'}");

	/* half of an answer is a lost answer */
	begin("{'path': '/a', 'method': 'POST'}", "{}");
	CHECK(attempt_request(&a));
	attempt_response(&a, &(KindResponse){.http_status = 200, .body = "{", .body_len = 1, .retry_after_ms = -1,
										 .transport_error = "broke off", .request_sent = true});
	CHECK_STR(a.verdict.error_code, "outcome_unknown");

	/* may be repeated */
	begin("{'path': '/a', 'method': 'POST', 'idempotent': true}", "{}");
	lose(&a, true);
	CHECK_INT(a.verdict.next_step, KIND_STEP_START);
	answer(&a, 201, "{}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin("{'path': '/a', 'method': 'POST', 'idempotent': true}", "{}");
	while (lose(&a, true) && a.verdict.outcome == KIND_CONTINUE)
		;
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_retryable);
	begin("{'path': '/a', 'method': 'PUT'}", "{}");
	while (lose(&a, true) && a.verdict.outcome == KIND_CONTINUE)
		;
	CHECK_STR(a.verdict.error_code, "no_answer");
	CHECK(a.verdict.is_retryable);

	/* crash */
	begin("{'path': '/a', 'method': 'PUT'}", "{}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin("{'path': '/a', 'method': 'POST'}", "{}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK(!attempt_request(&a));
	CHECK_STR(a.problem.code, "outcome_unknown");
	CHECK(a.problem.is_system_error);
	CHECK_HAS(a.problem.message, "took effect");
}

void
test_http(void)
{
	test_requests();
	test_answers();
	test_lost();
}
