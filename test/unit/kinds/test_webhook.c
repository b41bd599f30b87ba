/*-------------------------------------------------------------------------
 * test_webhook.c
 *	  Kind webhook: queues, whose message is whose, events of storage
 *-------------------------------------------------------------------------
 */
#include "harness.h"
#include "queue.h"
#include "webhook_int.h"

#define QUEUE "https://acct.queue.core.windows.net/callbacks/messages"

static Attempt a;

static void
begin(const char *spec)
{
	attempt_init(&a, "webhook", spec, "{}", "https://acct.queue.core.windows.net");
	a.call.other_base_url = "https://api.example.com/v1";
	a.call.other_options = from_text("{}");
	attempt_begin(&a);
}

#define CALLBACK "'queue': 'callbacks', 'request': {'connection': 'svc', 'method': 'POST', 'path': '/jobs', 'id': '$.id', 'body': {'cb': {'token': '{token}'}}}"

/* One message as XML; text as it stands in it */
static char *
message(const char *id, int dequeued, const char *text)
{
	return mem_printf("<QueueMessage><MessageId>%s</MessageId><InsertionTime>x</InsertionTime><PopReceipt>r+%s=</PopReceipt>"
					  "<DequeueCount>%d</DequeueCount><MessageText>%s</MessageText></QueueMessage>", id, id, dequeued, text);
}

static char *
list(const char *messages)
{
	return mem_printf("\xEF\xBB\xBF<?xml version=\"1.0\"?><QueueMessagesList>%s</QueueMessagesList>", messages);
}

/* The tokens of messages as &quot;, so that answer() leaves them alone */
#define JSON(token, state) "{&quot;token&quot;: &quot;" token "&quot;, &quot;state&quot;: &quot;" state "&quot;, &quot;rows&quot;: 5}"

static void
test_reading(void)
{
	static const char *const broken[] = {
		"", "<html></html>", "<QueueMessagesList>", "<QueueMessagesList><QueueMessage></QueueMessagesList>",
		"<QueueMessagesList><QueueMessage><MessageId>1</MessageId><PopReceipt>r</PopReceipt><MessageText>a<b></MessageText></QueueMessage></QueueMessagesList>",
		"<QueueMessagesList><QueueMessage><MessageId>1</MessageId><PopReceipt>r</PopReceipt><MessageText>&bogus;</MessageText></QueueMessage></QueueMessagesList>",
		"<QueueMessagesList><QueueMessage><MessageId>1</MessageId><MessageText>a</MessageText></QueueMessage></QueueMessagesList>",
	};
	QueueMessage messages[QUEUE_MAX_MESSAGES];
	KindResponse response = {.http_status = 200};

	for (size_t i = 0; i < lengthof(broken); i++)
	{
		response.body = broken[i];
		response.body_len = strlen(response.body);
		CHECK_INT(queue_read(&response, messages), -1);
	}
	response.body = "<QueueMessagesList/>";
	response.body_len = strlen(response.body);
	CHECK_INT(queue_read(&response, messages), 0);
	response.body = list(message("m1", 3, "&lt;&amp;&gt;&quot;&apos;&#65;&#xe9;&#x20AC;&#128512;"));
	response.body_len = strlen(response.body);
	CHECK_INT(queue_read(&response, messages), 1);
	CHECK_STR(messages[0].text, "<&>\"'A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
	CHECK_STR(messages[0].receipt, "r+m1=");
	CHECK_INT(messages[0].dequeued, 3);
	CHECK_JSON(queue_payload("{\"a\": 1}"), "{'a': 1}");
	CHECK_JSON(queue_payload("eyJhIjogMX0="), "{'a': 1}");
	CHECK_JSON(queue_payload("eyJh\nIjogMX0"), "{'a': 1}");
	CHECK_JSON(queue_payload(" [1] "), "[1]");
	CHECK(queue_payload("eyJhIjogMX0=x") == NULL && queue_payload("hello") == NULL && queue_payload("5") == NULL && queue_payload("") == NULL);
}

/* Where the queues of a connection are */
static void
test_service(void)
{
	static const char *const cases[][3] = {
		{"https://acct.queue.core.windows.net", "{}", "https://acct.queue.core.windows.net"},
		{"https://acct.blob.core.windows.net", "{}", "https://acct.queue.core.windows.net"},
		{"https://acct.dfs.core.chinacloudapi.cn", "{}", "https://acct.queue.core.chinacloudapi.cn"},
		{"https://acct.z07.blob.storage.azure.net:443/x", "{}", "https://acct.z07.queue.storage.azure.net:443/x"},
		{"https://acct.blob.core.windows.net", "{'queue_url': 'https://queues.example.com/acct'}", "https://queues.example.com/acct"},
		{"http://127.0.0.1:10000/devstoreaccount1", "{'queue_url': 'http://127.0.0.1:10001/devstoreaccount1'}", "http://127.0.0.1:10001/devstoreaccount1"},
		{"http://127.0.0.1:10001/devstoreaccount1", "{'dfs_url': 'https://acct.dfs.core.windows.net'}", "http://127.0.0.1:10001/devstoreaccount1"},
		{"https://gateway.example.com/acct.blob.core.windows.net", "{}", "https://gateway.example.com/acct.blob.core.windows.net"},
		{"https://a.blob.example.com", "{}", "https://a.blob.example.com"},
	};
	KindCall	call = {0};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		call.base_url = cases[i][0];
		call.options = from_text(cases[i][1]);
		CHECK_STR(queue_url(&call, "in"), mem_printf("%s/in/messages", cases[i][2]));
	}
}

static void
test_callback(void)
{
	begin("{" CALLBACK ", 'every': 2, 'status': '$.state', 'succeeded': ['done'], 'outputs': {'rows': '$.rows'}, 'rows_written': '$.rows'}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 202, "{'id': 17}");
	CHECK_STR(a.request.url, "https://api.example.com/v1/jobs");
	CHECK(a.request.via_other);
	CHECK_JSON(sent(&a), "{'cb': {'token': 'weir-k1-42-1'}}");
	CHECK_STR(a.call.external_run_id, "17");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, list(""));
	CHECK_STR(a.request.url, QUEUE "?numofmessages=32&visibilitytimeout=15");
	CHECK(!a.request.via_other);
	CHECK_STR(kind_string(a.request.headers, "x-ms-date"), "Sat, 21 Nov 2026 02:00:00 GMT");
	CHECK_INT(a.verdict.delay_ms, 2000);

	/* another database's, one without a token: left alone; a stale one goes */
	answer(&a, 200, list(mem_printf("%s%s%s%s", message("m1", 1, JSON("weir-k2-42-1", "done")), message("m2", 1, "{&quot;x&quot;: 1}"),
								   message("m3", 1, JSON("weir-k1-41-1", "done")), message("m4", 99, "garbage"))));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_INT(a.verdict.delay_ms, 0);
	answer(&a, 204, "");
	CHECK_STR(a.request.method, "DELETE");
	CHECK_STR(a.request.url, QUEUE "/m3?popreceipt=r%2Bm3%3D");
	answer(&a, 201, "");
	CHECK_STR(a.request.url, "https://acct.queue.core.windows.net/callbacks-poison/messages");
	CHECK_STR(a.request.body, "<QueueMessage><MessageText>garbage</MessageText></QueueMessage>");
	answer(&a, 204, "");
	CHECK_STR(a.request.url, QUEUE "/m4?popreceipt=r%2Bm4%3D");
	CHECK_INT(a.verdict.delay_ms, 2000);

	/* ours: committed, deleted, done; the crash in between changes nothing */
	answer(&a, 200, list(message("m5", 1, JSON("weir-k1-42-1", "done"))));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK(a.verdict.state_changed && a.verdict.once_key == NULL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 404, "");
	CHECK_STR(a.request.url, QUEUE "/m5?popreceipt=r%2Bm5%3D");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(kind_member(a.verdict.output, "outputs"), "{'rows': 5}");
	CHECK_INT(a.verdict.rows_written, 5);
}

/* More events than are looked at: what is behind them may be somebody's */
static void
test_long_message(void)
{
	StrBuf		text;

	for (int n = 1000; n <= 1001; n++)
	{
		strbuf_init(&text);
		for (int i = 0; i < n; i++)
			strbuf_printf(&text, "%s{&quot;token&quot;:&quot;weir-k1-41-1&quot;}", i == 0 ? "[" : ",");
		strbuf_addstr(&text, "]");
		begin("{" CALLBACK "}");
		answer(&a, 202, "{}");
		answer(&a, 200, list(message("m1", 1, text.data)));
		CHECK_INT(kind_member(a.call.scratch, "discard") != NULL, n == 1000);
	}
}

static void
test_failures(void)
{
	begin("{" CALLBACK ", 'status': '$.state', 'failed': ['bad'], 'error': {'message': '$.token'}}");
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, list(message("m5", 1, JSON("weir-k1-42-1", "bad"))));
	answer(&a, 204, "");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_message, "weir-k1-42-1");
	/* a gateway's word is none of the service's: the callback tells; who is told when to come back comes back */
	begin("{" CALLBACK "}");
	answer(&a, 503, "busy");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK(kind_state_bool(&a.call, "maybe_started"));
	begin("{" CALLBACK "}");
	answer_after(&a, 503, "busy", 2000);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin("{" CALLBACK "}");
	answer(&a, 400, "{'message': 'no'}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	begin("{" CALLBACK "}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 404, "<Error><Code>QueueNotFound</Code></Error>");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(a.verdict.may_go_on);
}

#define EVENT(path, api) "{&quot;id&quot;: &quot;e1&quot;, &quot;eventType&quot;: &quot;Microsoft.Storage.BlobCreated&quot;, &quot;subject&quot;: &quot;/blobServices/default/containers/landing/blobs/" path "&quot;, " \
	"&quot;data&quot;: {&quot;api&quot;: &quot;" api "&quot;, &quot;url&quot;: &quot;https://acct/landing/" path "&quot;, &quot;eTag&quot;: &quot;0x1&quot;, &quot;contentLength&quot;: 12}}"

static void
test_events(void)
{
	static const char spec[] = "{'queue': 'callbacks', 'event': {'container': 'landing', 'prefix': 'day/', 'suffix': '.csv'}}";

	begin(spec);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, list(mem_printf("%s%s%s", message("m1", 1, EVENT("day/a.txt", "PutBlob")), message("m2", 1, EVENT("day/a.csv", "CreateFile")),
								   message("m3", 1, EVENT("other/a.csv", "PutBlob")))));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK(kind_member(a.call.scratch, "discard") == NULL);
	answer(&a, 200, list(message("m4", 1, EVENT("day/a.csv", "FlushWithClose"))));
	CHECK_STR(a.verdict.once_key, "https://acct/landing/day/a.csv 0x1");
	/* another attempt had it: this message goes, and the wait goes on */
	cJSON_AddTrueToObject(cJSON_GetObjectItem(a.call.kind_state, "callback"), "duplicate");
	answer(&a, 204, "");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK(kind_state_get(&a.call, "callback") == NULL);
	answer(&a, 200, list(message("m5", 1, mem_printf("[%s]", EVENT("day/b.csv", "PutBlob")))));
	answer(&a, 204, "");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(kind_string(a.verdict.output, "path"), "day/b.csv");
	CHECK_INT(kind_int64(a.verdict.output, "bytes", 0), 12);

	/* who waits has begun nothing: what passes may be tried again, what does not is an error and no riddle */
	begin(spec);
	answer(&a, 409, "<Error><Code>QueueBeingDeleted</Code><Message>Wait.</Message></Error>");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(a.verdict.is_retryable && !a.verdict.may_go_on);
	begin(spec);
	answer(&a, 404, "<Error><Code>QueueNotFound</Code><Message>The specified queue does not exist.</Message></Error>");
	CHECK_STR(a.verdict.error_code, "QueueNotFound");
	CHECK_STR(a.verdict.error_message, "HTTP 404: The specified queue does not exist.");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable && !a.verdict.may_go_on);
	begin(spec);
	for (int i = 0; i < 2; i++)
	{
		answer_with(&a, 403, "x-ms-error-code: AuthenticationFailed\n", "<Error><Code>AuthenticationFailed</Code><Message>Not signed.</Message></Error>", -1);
		CHECK_INT(a.call.step, KIND_STEP_POLL);
		CHECK_INT(a.verdict.outcome, i == 0 ? KIND_CONTINUE : KIND_FAILED);
	}
	CHECK_STR(a.verdict.error_message, "HTTP 403: Not signed.");
	CHECK(a.verdict.is_user_error && !a.verdict.may_go_on);
	begin(spec);
	lose(&a, true);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
}

static void
test_others(void)
{
	static Attempt b;
	KindOther	others[2] = {{&b.call, true, false}, {NULL, true, false}};
	static Attempt c;
	KindVerdict verdict;

	begin("{" CALLBACK "}");
	b = a;
	b.call.token = "weir-k1-43-1";
	c = a;
	c.call.token = "weir-k1-44-1";
	others[1].call = &c.call;
	others[1].can_take = false;
	answer(&a, 202, "{}");
	a.call.others = others;
	a.call.n_others = 2;
	answer(&a, 200, list(mem_printf("%s%s%s", message("m1", 1, JSON("weir-k1-43-1", "x")), message("m2", 1, JSON("weir-k1-44-1", "x")),
								   message("m3", 1, JSON("weir-k1-43-1", "again")))));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_INT(cJSON_GetArraySize(a.verdict.deliveries), 1);
	CHECK_INT(kind_int64(a.verdict.deliveries->child, "other", -1), 0);
	kind_verdict_init(&verdict);
	b.call.kind_state = cJSON_CreateObject();
	b.kind->deliver(&b.call, kind_member(a.verdict.deliveries->child, "callback"), &verdict);
	CHECK_INT(verdict.next_step, KIND_STEP_DETAIL);
	CHECK(verdict.state_changed);
	CHECK_STR(kind_string(kind_member(b.call.kind_state, "callback"), "id"), "m1");
	/* the second for the same token is thrown away; the one that cannot be taken now is not */
	CHECK_INT(cJSON_GetArraySize(kind_member(a.call.scratch, "discard")), 1);
	CHECK_STR(kind_string(kind_member(a.call.scratch, "discard")->child, "id"), "m3");

	/* two in one message: both get theirs, the message stays */
	answer(&a, 204, "");
	others[1].can_take = true;
	answer(&a, 200, list(message("m6", 1, "[" JSON("weir-k1-44-1", "x") "," JSON("weir-k1-42-1", "y") "]")));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK_INT(cJSON_GetArraySize(a.verdict.deliveries), 1);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, QUEUE "?peekonly=true&numofmessages=1");
}

/* A queue may have two names: what is for who waits at the other is neither taken, thrown away nor poison */
static void
test_elsewhere(void)
{
	static Attempt b;
	KindOther	others[1] = {{&b.call, false, true}};

	begin("{" CALLBACK ", 'poison_after': 3}");
	b = a;
	b.call.token = "weir-k1-43-1";
	answer(&a, 202, "{}");
	a.call.others = others;
	a.call.n_others = 1;
	answer(&a, 200, list(mem_printf("%s%s", message("m1", 1, JSON("weir-k1-43-1", "x")), message("m2", 9, JSON("weir-k1-43-1", "x")))));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK(a.verdict.deliveries == NULL);
	CHECK(kind_member(a.call.scratch, "discard") == NULL);
	/* nobody's are still nobody's */
	answer(&a, 200, list(message("m3", 1, JSON("weir-k1-44-1", "x"))));
	CHECK_INT(cJSON_GetArraySize(kind_member(a.call.scratch, "discard")), 1);
}

/* Whoever is found by the table is who would be found one after the other */
static void
test_waiters(void)
{
	static const char *const specs[] = {
		"{" CALLBACK "}",
		"{" CALLBACK ", 'token': '$.data.token'}",
		"{'queue': 'callbacks', 'event': {}}",
		"{'queue': 'callbacks', 'event': {'type': 'Other'}}",
		"{'queue': 'callbacks', 'event': {'container': 'lake'}}",
		"{'queue': 'callbacks', 'event': {'container': 'lake', 'prefix': 'in/a'}}",
		"{'queue': 'callbacks', 'event': {'prefix': 'in/', 'suffix': '.csv'}}",
		"{'queue': 'callbacks', 'event': {'prefix': 'in/', 'suffix': '/a.csv'}}",
		"{'queue': 'callbacks', 'event': {'suffix': '.csv'}}",
	};
	static const char *const events[] = {
		"{'token': 'weir-k1-7-1'}", "{'data': {'token': 'weir-k1-8-1'}}", "{'token': 'weir-k1-9-1', 'data': {'token': 'weir-k1-10-1'}}", "{'token': 5}",
		"{'eventType': 'Microsoft.Storage.BlobCreated'}", "{'type': 'Other', 'subject': '/x'}",
		"{'type': 'Microsoft.Storage.BlobCreated', 'subject': '/blobServices/default/containers/lake/blobs/in/a.csv'}",
		"{'type': 'Microsoft.Storage.BlobCreated', 'subject': '/blobServices/default/containers/pond/blobs/in/a.csv'}",
		"{'type': 'Microsoft.Storage.BlobCreated', 'subject': '/blobServices/default/containers/lake/blobs/.csv'}",
		"{'type': 'Microsoft.Storage.BlobCreated', 'data': {'api': 'CreateFile'}}",
	};
	enum {N = 4000};
	static KindCall calls[N];
	static KindOther others[N];
	static bool given[N];
	KindCall	asker = {.others = others, .n_others = N};
	Waiters    *waiters;
	int			found = 0;

	for (int i = 0; i < N; i++)
	{
		calls[i].spec = from_text(specs[i % lengthof(specs)]);
		calls[i].token = mem_printf("weir-k1-%d-1", i % 20);
		others[i].call = &calls[i];
	}
	waiters = waiters_create(&asker);
	for (int round = 0; round < 200; round++)
	{
		const cJSON *event = from_text(events[round % lengthof(events)]);
		int			expected = -1;
		int			other = waiters_find(waiters, event);

		for (int i = 0; i < N && expected < 0; i++)
		{
			if (!given[i] && webhook_awaits(&calls[i], event))
				expected = i;
		}
		CHECK_INT(other, expected);
		if (other < 0)
			continue;
		waiters_give(waiters, other);
		given[other] = true;
		found++;
	}
	CHECK(found > 100);
	waiters_free(waiters);

	/* one after the other these would be sixty-four million looks */
	for (int i = 0; i < N; i++)
		calls[i].token = mem_printf("weir-k1-%d-1", i);
	waiters = waiters_create(&asker);
	for (int round = 0; round < 16 * 1000; round++)
	{
		const cJSON *event = from_text(mem_printf("{'token': 'weir-k1-%d-1'}", round));

		CHECK(waiters_find(waiters, event) == (round < N && round % lengthof(specs) == 0 ? round : -1));
		cJSON_Delete((cJSON *) event);
	}
	waiters_free(waiters);
}

static void
test_definitions(void)
{
	static const char *const cases[][2] = {
		{"{'queue': 'callbacks'}", "$ give either"},
		{"{'queue': 'Call', 'event': {}}", "$.queue not the name"},
		{"{'queue': 'callbacks', 'event': {'x': 1}}", "$.event.x unknown member"},
		{"{'queue': 'callbacks', 'event': {}, 'token': '$.t'}", "$.token \"token\" does not go"},
		{"{'queue': 'callbacks', 'event': {}, 'every': 0}", "$.every"},
		{"{'queue': 'callbacks', 'request': {'connection': 'c', 'path': '/x'}}", "$.request the request does not say the token"},
		{"{'queue': 'callbacks', 'request': {'path': '/{token}'}}", "$.request \"connection\" is missing"},
		{"{'queue': 'callbacks', 'request': {'connection': 'c', 'path': '/{token}', 'headers': {'Cookie': 'x'}}}", "$.request.headers.Cookie"},
		{"{" CALLBACK ", 'status': '$.s'}", "$ \"status\" goes with"},
		{"{" CALLBACK ", 'token': 'x'}", "$.token not a JSON path"},
		{"{" CALLBACK ", 'poison_after': 0}", "$.poison_after"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindProblem problem = {0};

		kind_find("webhook")->validate(from_text(cases[i][0]), &problem);
		CHECK_HAS(problem.message ? mem_printf("%s %s", problem.path, problem.message) : "no problem", cases[i][1]);
	}
}

void
test_webhook(void)
{
	test_reading();
	test_service();
	test_callback();
	test_failures();
	test_long_message();
	test_events();
	test_others();
	test_elsewhere();
	test_waiters();
	test_definitions();
}
