/*-------------------------------------------------------------------------
 * test_common.c
 *	  Names, specs, error texts, times and what all kinds answer alike
 *-------------------------------------------------------------------------
 */
#include "harness.h"

static void
test_names(void)
{
	KindStep	step;
	const char *names = kind_names();

	for (int i = KIND_STEP_PREPARE; i <= KIND_STEP_CANCEL; i++)
	{
		CHECK(kind_step_parse(kind_step_name((KindStep) i), &step));
		CHECK_INT(step, i);
	}
	CHECK(!kind_step_parse("Start", &step));
	CHECK(!kind_step_parse(NULL, &step));
	CHECK(kind_find("nothing") == NULL);
	CHECK(kind_find(NULL) == NULL);
	while (*names != '\0')
	{
		size_t		len = strcspn(names, ",");
		const TaskKind *kind = kind_find(mem_strndup(names, len));

		CHECK(kind != NULL && kind->validate != NULL);
		CHECK(kind != NULL && kind->is_http == (kind->request != NULL && kind->response != NULL &&
												kind->first_step != NULL && kind->resume_step != NULL));
		names += len + (names[len] == ',' ? 2 : 0);
	}
}

/* A for_each accepts any list up to the limit, and nothing else. */
static void
test_for_each(void)
{
	Attempt		attempt;
	KindVerdict verdict;
	cJSON	   *items;

	attempt_init(&attempt, "for_each", "{'items': [1, 'x', null]}", "{}", "");
	kind_verdict_init(&verdict);
	kind_for_each.decide(&attempt.call, &verdict);
	CHECK_INT(verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(verdict.items, "[1, 'x', null]");

	attempt_init(&attempt, "for_each", "{'items': {'a': 1}}", "{}", "");
	kind_verdict_init(&verdict);
	kind_for_each.decide(&attempt.call, &verdict);
	CHECK_INT(verdict.outcome, KIND_FAILED);
	CHECK_STR(verdict.error_code, "invalid_items");
	CHECK(verdict.items == NULL && verdict.is_user_error && !verdict.is_retryable);

	attempt_init(&attempt, "for_each", "{'items': []}", "{}", "");
	items = cJSON_GetObjectItem((cJSON *) attempt.call.spec, "items");
	for (int i = 0; i < FOR_EACH_MAX_ITEMS; i++)
		cJSON_AddItemToArray(items, cJSON_CreateNull());
	kind_verdict_init(&verdict);
	kind_for_each.decide(&attempt.call, &verdict);
	CHECK(verdict.items == items);
	cJSON_AddItemToArray(items, cJSON_CreateNull());
	kind_verdict_init(&verdict);
	kind_for_each.decide(&attempt.call, &verdict);
	CHECK(verdict.items == NULL);
	CHECK_STR(verdict.error_code, "too_many_items");
	CHECK_HAS(verdict.error_message, "100001 items");
}

static void
test_specs(void)
{
	static const struct
	{
		const char *kind;
		const char *spec;
		const char *path;		/* NULL: it is right */
		const char *message;
	}			cases[] = {
		{"noop", "{}", NULL, NULL},
		{"noop", "{'a': 1}", "$.a", "unknown member"},
		{"noop", "[]", "$", "must be an object"},
		{"for_each", "{'items': [1, {'a': 2}], 'task': {}}", NULL, NULL},
		{"for_each", "{'items': '{{params.x}}', 'concurrency': 1000, 'task': {}}", NULL, NULL},
		{"for_each", "{'items': {'sql': 'SELECT 1'}, 'concurrency': 1, 'task': {}}", NULL, NULL},
		{"for_each", "{'items': 'a', 'task': {}}", "$.items", "must be"},
		{"for_each", "{'task': {}}", "$", "\"items\" is missing"},
		{"for_each", "{'items': [1]}", "$", "\"task\" is missing"},
		{"for_each", "{'items': {}, 'task': {}}", "$.items", "\"sql\" is missing"},
		{"for_each", "{'items': {'sql': ''}, 'task': {}}", "$.items.sql", "empty"},
		{"for_each", "{'items': {'sql': 'SELECT 1', 'x': 1}, 'task': {}}", "$.items.x", "unknown member"},
		{"for_each", "{'items': [1], 'concurrency': 0, 'task': {}}", "$.concurrency", "from 1 to 1000"},
		{"for_each", "{'items': [1], 'concurrency': 1001, 'task': {}}", "$.concurrency", "from 1 to 1000"},
		{"for_each", "{'items': [1], 'concurrency': 1.5, 'task': {}}", "$.concurrency", "must be an integer"},
		{"for_each", "{'items': [1], 'concurrency': '{{params.n}}', 'task': {}}", "$.concurrency", "from 1 to 1000"},
		{"wait", "{'for': 5}", NULL, NULL},
		{"wait", "{'for': '{{params.x}}', 'signal': null}", NULL, NULL},
		{"wait", "{'sql': 'SELECT true', 'every': '1 minute'}", NULL, NULL},
		{"wait", "{}", "$", "exactly one"},
		{"wait", "{'for': 5, 'signal': 'x'}", "$", "exactly one"},
		{"wait", "{'for': []}", "$.for", "must be"},
		{"wait", "{'signal': ''}", "$.signal", "1 to 260 bytes"},
		{"wait", "{'signal': 'x', 'every': 1}", "$.every", "goes with"},
		{"wait", "{'sql': 'SELECT true', 'every': '{{params.x}}'}", "$.every", "references"},
		{"pipeline", "{'pipeline': 'p', 'params': {'a': '{{params.x}}'}, 'wait': false}", NULL, NULL},
		{"pipeline", "{}", "$", "\"pipeline\" is missing"},
		{"pipeline", "{'pipeline': '{{params.p}}'}", "$.pipeline", "without references"},
		{"pipeline", "{'pipeline': 'p', 'wait': '{{params.w}}'}", "$.wait", "references"},
		{"pipeline", "{'pipeline': 'p', 'params': '{{params.w}}'}", "$.params", "object"},
		{"sql", "{'sql': 'SELECT 1'}", NULL, NULL},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': '15 minutes'}", NULL, NULL},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': 30}", NULL, NULL},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': '{{params.t}}'}", NULL, NULL},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': 0}", "$.statement_timeout", "duration"},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': 'soon'}", "$.statement_timeout", "duration"},
		{"sql", "{'sql': 'SELECT 1', 'statement_timeout': []}", "$.statement_timeout", "must be"},
		{"sql", "{}", "$", "\"sql\" is missing"},
		{"sql", "{'sql': ''}", "$.sql", "empty"},
		{"sql", "{'sql': 5}", "$.sql", "must be a string"},
		{"http", "{'url': 'https://x/'}", NULL, NULL},
		{"http", "{'path': '/a', 'method': 'PATCH', 'query': {'a': 1, 'b': ['x', null]}, 'headers': {'X-A': 'b', 'X-N': 3}, 'body': {'x': [1]}, 'expect_status': [200, 404], 'idempotent': true}", NULL, NULL},
		{"http", "{'path': '/a', 'idempotent': '{{params.i}}', 'method': '{{params.m}}', 'expect_status': '{{params.e}}'}", NULL, NULL},
		{"http", "{}", "$", "either"},
		{"http", "{'url': 'https://x/', 'path': '/a'}", "$", "either"},
		{"http", "{'path': '/a', 'method': 'get'}", "$.method", "not a method of a request"},
		{"http", "{'path': '/a', 'headers': {'authorization': 'x'}}", "$.headers.authorization", "cannot be set"},
		{"http", "{'path': '/a', 'headers': {'a b': 'x'}}", "$.headers.a b", "invalid name"},
		{"http", "{'path': '/a', 'headers': {'A': 'x\\r\\nB: c'}}", "$.headers.A", "control"},
		{"http", "{'path': '/a', 'headers': {'A': {}}}", "$.headers.A", "must be a string"},
		{"http", "{'path': '/a', 'content_type': 'a/b\\r\\nX: y'}", "$.content_type", "content type"},
		{"http", "{'path': '/a', 'query': {'a': {}}}", "$.query", "scalar"},
		{"http", "{'path': '/a', 'expect_status': [99]}", "$.expect_status[0]", "200 to 599"},
		{"http", "{'path': '/a', 'expect_status': []}", "$.expect_status", "empty"},
		{"http", "{'path': '/a', 'expect_status': 200}", "$.expect_status", "an array"},
		{"http", "{'path': '/a', 'timeout': 5}", "$.timeout", "unknown member"},
		{"adf_pipeline", "{'pipeline': 'copy flights'}", NULL, NULL},
		{"adf_pipeline", "{'pipeline': 'p', 'parameters': {'a': [1, {}]}, 'on_restart': 'recover'}", NULL, NULL},
		{"adf_pipeline", "{'pipeline': '{{params.p}}', 'on_restart': '{{params.r}}'}", NULL, NULL},
		{"adf_pipeline", "{'pipeline': 'a/b'}", "$.pipeline", "not a valid name"},
		{"adf_pipeline", "{'pipeline': 'p', 'on_restart': 'maybe'}", "$.on_restart", "rerun"},
		{"adf_pipeline", "{'parameters': {}}", "$", "\"pipeline\" is missing"},
		{"adf_pipeline", "{'pipeline': 'p', 'parameters': []}", "$.parameters", "an object"},
		{"databricks_job", "{'job_id': 101}", NULL, NULL},
		{"databricks_job", "{'job_id': 9007199254740993, 'job_parameters': {'a': 1}, 'repair': false, 'only': ['t']}", NULL, NULL},
		{"databricks_job", "{'job_id': '{{params.job}}'}", NULL, NULL},
		{"databricks_job", "{'job_id': '101'}", NULL, NULL},
		{"databricks_job", "{'job_id': 'x'}", "$.job_id", "positive integer"},
		{"databricks_job", "{'job_id': 0}", "$.job_id", "positive integer"},
		{"databricks_job", "{'job_id': 1.5}", "$.job_id", "integer"},
		{"databricks_job", "{'job_id': 1, 'only': [1]}", "$.only[0]", "a string"},
		{"databricks_job", "{'job_id': 1, 'repair': 'no'}", "$.repair", "true or false"},
		{"databricks_job", "{}", "$", "\"job_id\" is missing"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindProblem problem = {0};

		kind_find(cases[i].kind)->validate(from_text(cases[i].spec), &problem);
		if (!check_true((problem.message == NULL) == (cases[i].path == NULL), __FILE__, __LINE__, "%s %s: %s",
						cases[i].kind, cases[i].spec, problem.message ? problem.message : "no problem"))
			continue;
		if (cases[i].path != NULL)
		{
			CHECK_STR(problem.path, cases[i].path);
			CHECK_HAS(problem.message, cases[i].message);
		}
	}
}

static void
test_errors(void)
{
	static const struct
	{
		const char *body;
		const char *code;
		const char *message;
	}			cases[] = {
		{"{\"error\":{\"code\":\"AuthorizationFailed\",\"message\":\"no\"}}", "AuthorizationFailed", "no"},
		{"{\"error\":{\"code\":\"A\",\"message\":\"\",\"details\":[{\"error\":{\"message\":\"deep\"}}]}}", "A", "deep"},
		{"{\"error_code\":\"INVALID_PARAMETER_VALUE\",\"message\":\"Run 5 does not exist\"}", "INVALID_PARAMETER_VALUE", "Run 5 does not exist"},
		{"{\"error_code\":403,\"message\":\"Invalid access token.\"}", "403", "Invalid access token."},
		{"{\"error\":\"old form\"}", "http_400", "old form"},
		{"{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000222: x\"}", "invalid_client", "AADSTS7000222: x"},
		{"{\"errorCode\":\"TooMany\",\"message\":\"slow\"}", "TooMany", "slow"},
		{"{\"detail\":\"scim\",\"status\":\"404\"}", "404", "scim"},
		{"{\"a\":1}", "http_400", "{\"a\":1}"},
		{"MALFORMED_REQUEST: expected a map", "MALFORMED_REQUEST", "expected a map"},
		{"<html><head><title>502 Bad Gateway</title></head><body></body></html>", "http_400", "502 Bad Gateway"},
		{"<!DOCTYPE html><body><pre>stack <b>here</b></pre></body>", "http_400", "stack here"},
		{"<html", "http_400", "<html"},
		{"<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate.\nRequestId:1\nTime:2</Message>"
		"<AuthenticationErrorDetail>Signature not valid in the specified time frame</AuthenticationErrorDetail></Error>",
		"AuthenticationFailed", "Server failed to authenticate. Signature not valid in the specified time frame"},
		{"\xEF\xBB\xBF<?xml version=\"1.0\"?><Error><Code>QueueNotFound</Code><Message>no queue</Message></Error>", "QueueNotFound", "no queue"},
		{"<?xml version=\"1.0\"?><other/>", "http_400", "<?xml version=\"1.0\"?><other/>"},
		{"", "http_400", "the answer has no text"},
		{"[1, 2", "http_400", "[1, 2"},
		{"\xff\x01 bytes", "http_400", "?  bytes"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindResponse response = {.http_status = 400, .body = cases[i].body, .body_len = strlen(cases[i].body)};
		char	   *code;
		char	   *message;

		kind_body_error(&response, &code, &message);
		CHECK_STR(code, cases[i].code);
		CHECK_STR(message, cases[i].message);
	}
}

static void
test_text(void)
{
	KindResponse response = {.http_status = 200};
	char	   *error;
	int64		ms = 0;
	StrBuf		buf;

	CHECK_STR(kind_time_text(INT64_C(1529109464625)), "2018-06-16T00:37:44.625Z");
	CHECK_STR(kind_time_text(0), NULL);
	CHECK_STR(kind_time_text(INT64_MAX), NULL);
	CHECK_STR(kind_time_text(INT64_MIN), NULL);
	CHECK(kind_time_parse("2018-06-16T00:37:44.6257014Z", &ms));
	CHECK_INT(ms, INT64_C(1529109464625));
	CHECK(kind_time_parse("2024-02-29T23:59:59+02:00", &ms));
	CHECK_STR(kind_time_text(ms), "2024-02-29T21:59:59.000Z");
	CHECK(kind_time_parse("2024-12-31 00:00:00", &ms));
	CHECK_STR(kind_time_text(ms), "2024-12-31T00:00:00.000Z");
	CHECK(!kind_time_parse(NULL, &ms));
	CHECK(!kind_time_parse("", &ms));
	CHECK(!kind_time_parse("2018-13-16T00:37:44Z", &ms));
	CHECK(!kind_time_parse("2018-06-16T00:37:44Zx", &ms));
	CHECK(!kind_time_parse("2018-06-16", &ms));
	CHECK(!kind_time_parse("2018-06-16T00:37:44.", &ms));

	response.body = "{\"a\":\"x\\u0000y\",\"b\":\"\\\\u0000\",\"c\":\"\xff\"}";
	response.body_len = strlen(response.body);
	CHECK_JSON(kind_parse_body(&response, &error), "{'a':'x\\ufffdy','b':'\\\\u0000','c':'?'}");
	response.body = "\xEF\xBB\xBF[1]";
	response.body_len = 6;
	CHECK_JSON(kind_parse_body(&response, &error), "[1]");
	CHECK(kind_parse_object(&response) == NULL);

	CHECK_STR(kind_clean_text("gr\xc3\xbc\xc3\x9f\x65", 7, 4), "gr\xc3\xbc");
	CHECK_STR(kind_clean_text("a\0b\nc", 5, 100), "a b\nc");
	CHECK_STR(kind_clean_text("\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80", 9, 100), "?????????");
	CHECK_STR(kind_clean_text(NULL, 5, 100), "");

	strbuf_init(&buf);
	kind_url_encode(&buf, "a b/\xc3\xa9~");
	CHECK_STR(buf.data, "a%20b%2F%C3%A9~");

	CHECK_STR(kind_id(from_text("{'id': 9007199254740993}"), "id"), "9007199254740993");
	CHECK_STR(kind_id(from_text("{'id': '9007199254740993'}"), "id"), "9007199254740993");
	CHECK_STR(kind_id(from_text("{'id': 'a b'}"), "id"), NULL);
	CHECK_STR(kind_id(from_text("{'id': 1.5}"), "id"), NULL);
	CHECK_STR(kind_id(from_text("{'id': null}"), "id"), NULL);
	CHECK_STR(kind_id(from_text("[]"), "id"), NULL);
	CHECK_STR(kind_scalar_text(from_text("9007199254740993")), "9007199254740993");
	CHECK_STR(kind_scalar_text(from_text("[1,'a']")), "[1,\"a\"]");
	CHECK_STR(kind_link(from_text("'https://a/b?c#d'")), "https://a/b?c#d");
	CHECK_STR(kind_link(from_text("'javascript:alert(1)'")), NULL);
	CHECK_STR(kind_link(from_text("'https://a/<b>'")), NULL);
}

/* Refusals, outages and tokens, on the kind with the simplest steps */
static void
test_retries(void)
{
	Attempt		a;
	int64		previous = 0;
	int			tries = 0;

	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	while (answer(&a, 429, "{}") && a.verdict.outcome == KIND_CONTINUE)
	{
		CHECK_INT(a.call.step, KIND_STEP_START);
		CHECK(a.verdict.delay_ms >= 800 && a.verdict.delay_ms <= 60000);
		CHECK(tries > 5 || a.verdict.delay_ms > previous);
		previous = a.verdict.delay_ms;
		tries++;
	}
	CHECK_INT(tries, KIND_START_TRIES - 1);
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(a.verdict.is_retryable && !a.verdict.is_user_error);

	/* Retry-After is a minimum */
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	answer_after(&a, 429, "{}", 120000);
	CHECK(a.verdict.delay_ms >= 120000);
	CHECK(!a.verdict.state_changed);

	/* never reached it: another attempt may help */
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	while (lose(&a, false) && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK_STR(a.verdict.error_code, "no_answer");
	CHECK(a.verdict.is_retryable);

	/* reached it once, perhaps: nobody may start another one */
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	lose(&a, true);
	CHECK(a.verdict.state_changed);
	while (lose(&a, false) && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_retryable && !a.verdict.is_user_error);
	CHECK_HAS(a.verdict.error_message, "weir-k1-42-1");

	/* 401 once, and again after a while, but not twice in a row */
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	answer(&a, 401, "{}");
	CHECK(a.verdict.forget_token && a.verdict.state_changed);
	CHECK_INT(a.verdict.delay_ms, 0);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 200, "{'run_id': 5}");
	CHECK(!a.verdict.forget_token);
	a.call.now_ms += 3600000;
	answer(&a, 403, "{'error_code': 403, 'message': 'Invalid access token.'}");
	CHECK(a.verdict.forget_token);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 401, "{'message': 'still not'}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_HAS(a.verdict.error_message, "run 5 may still be going on");
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	answer(&a, 403, "{'error_code': 403, 'message': 'Token is expiring within 30 seconds. (token expired)'}");
	CHECK(a.verdict.forget_token);
	answer(&a, 403, "{'error_code': 403, 'message': 'Token is expiring within 30 seconds. (token expired)'}");
	CHECK_HAS(a.verdict.error_detail, "wrong, expired or revoked");

	/* while polling, patience is long and giving up says that the run may go on */
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://dbx");
	attempt_begin(&a);
	answer(&a, 200, "{'run_id': 5}");
	tries = 0;
	while (answer(&a, 503, "<html>gateway</html>") && a.verdict.outcome == KIND_CONTINUE)
		tries++;
	CHECK_INT(tries, KIND_POLL_TRIES - 1);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK_HAS(a.verdict.error_message, "run 5 may still be going on");
	CHECK(!a.verdict.is_retryable);
}

void
test_common(void)
{
	test_names();
	test_specs();
	test_for_each();
	test_errors();
	test_text();
	test_retries();
}
