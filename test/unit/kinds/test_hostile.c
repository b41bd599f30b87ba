/*-------------------------------------------------------------------------
 * test_hostile.c
 *	  Answers that nobody meant: cut off, mutilated, of the wrong type, huge
 *
 * Every step of every kind is fed damaged versions of good answers.  What is
 * checked is that nothing crashes (the program runs under sanitizers), that
 * every verdict is one the conductor can act upon, and that no sequence of
 * them goes on for ever without waiting.
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define GUID "00000000-0000-4000-8000-000000000001"

typedef struct Start
{
	const char *kind;
	const char *spec;
	const char *options;
	const char *reference;
} Start;

static const Start starts[] = {
	{"http", "{'path': '/a', 'method': 'POST', 'idempotent': true}", "{}", NULL},
	{"adf_pipeline", "{'pipeline': 'p', 'parameters': {'a': 1}}",
	"{'subscription_id': 's', 'resource_group': 'r', 'factory': 'f', 'settle_seconds': 1}", NULL},
	{"adf_pipeline", "{'pipeline': 'p', 'on_restart': 'recover'}",
	"{'subscription_id': 's', 'resource_group': 'r', 'factory': 'f', 'settle_seconds': 1}", "{'external_run_id': 'r0'}"},
	{"databricks_job", "{'job_id': 101}", "{}", NULL},
	{"fabric_item", "{'item': '" GUID "', 'job_type': 'Pipeline'}", "{'workspace_id': '" GUID "', 'settle_seconds': 1}", NULL},
	{"fabric_item", "{'call': {'path': '/x'}, 'idempotent': true}", "{}", NULL},
	{"http", "{'path': '/a', 'method': 'POST', 'id': '$.id', 'poll': {'path': '/jobs/{id}', 'status': '$.status', 'succeeded': ['InProgress'], 'failed': ['Failed']},"
	"'lookup': {'path': '/jobs', 'id': '$.value[0].runId', 'settle': 1}, 'cancel': {'path': '/c/{id}'}, 'outputs': {'x': '$.value[*]'}, 'error': {'code': '$.error_code', 'message': '$.message'}}", "{}", NULL},
	{"webhook", "{'queue': 'abc', 'event': {}}", "{}", NULL},
	{"http", "{'path': '/a', 'poll': {'header': 'Location'}, 'result': {'json': '$.next_page_token'}}", "{}", NULL},
	{"http", "{'path': '/a', 'pages': {'items': '$.value', 'next': {'json': '$.continuationToken'}, 'max_pages': 5, 'truncate': true}}", "{}", NULL},
	{"http", "{'path': '/a', 'pages': {'items': '$.value', 'cursor': {'json': '$.continuationToken', 'parameter': 'c'}, 'max_bytes': 500}}", "{}", NULL},
	{"storage", "{'operation': 'list', 'container': 'lake'}", "{}", NULL},
	{"storage", "{'operation': 'wait', 'container': 'lake', 'min_count': 9, 'stable': true, 'min_age_seconds': 60}", "{}", NULL},
	{"storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/', 'to': 'out/', 'files': ['in/a', 'in/b']}", "{}", NULL},
	{"storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/', 'to': 'out/', 'files': ['in/a', 'in/b']}", "{'dfs_url': 'https://dfs'}", NULL},
	{"storage", "{'operation': 'delete', 'container': 'lake', 'files': ['in/a', 'in/b']}", "{}", NULL},
	{"storage", "{'operation': 'put', 'container': 'lake', 'name': 'n', 'text': 't'}", "{}", NULL},
	{"keyvault", "{'operation': 'check', 'secrets': ['a', 'b']}", "{}", NULL},
	{"keyvault", "{'operation': 'list'}", "{}", NULL},
	{"keyvault", "{'operation': 'set', 'name': 'a', 'from_secret': 's'}", "{}", NULL},
	{"databricks_job", "{'job_id': 101}", "{}", "{'external_run_id': '5'}"},
	{"databricks_notebook", "{'notebook_path': '/a'}", "{}", NULL},
	{"databricks_notebook", "{'notebook_path': '/a'}", "{}", "{'external_run_id': '5'}"},
	{"databricks_sql", "{'statement': 's', 'warehouse_id': 'w'}", "{'settle_seconds': 1}", NULL},
	{"databricks_sql", "{'statement': 's', 'warehouse_id': 'w', 'idempotent': true}", "{'settle_seconds': 1}", NULL},
	{"databricks_pipeline", "{'pipeline_id': 'p'}", "{'settle_seconds': 1}", NULL},
	{"databricks_pipeline", "{'pipeline_id': 'p'}", "{'settle_seconds': 1}", "{'external_run_id': 'u1'}"},
	{"databricks_serving", "{'endpoint': 'e', 'inputs': [1], 'idempotent': true}", "{}", NULL},
};

static const char *const bodies[] = {
	"{\"runId\":\"r1\",\"run_id\":9007199254740993,\"repair_id\":7,\"number_in_job\":1}",
	"{\"runId\":\"r1\",\"pipelineName\":\"p\",\"status\":\"InProgress\",\"runStart\":\"2018-06-16T00:37:44Z\",\"message\":\"\"}",
	"{\"runId\":\"r1\",\"pipelineName\":\"p\",\"runGroupId\":\"r0\",\"status\":\"Failed\",\"runStart\":\"2018-06-16T00:37:44Z\",\"message\":\"bad\"}",
	"{\"value\":[{\"runId\":\"r1\",\"runGroupId\":\"r0\",\"runStart\":\"2018-06-16T00:39:44Z\",\"parameters\":{\"weir_token\":\"weir-k1-42-1\"}}],\"continuationToken\":\"t\"}",
	"{\"value\":[{\"activityName\":\"Copy\",\"activityType\":\"Copy\",\"status\":\"Failed\",\"activityRunEnd\":\"2018-06-16T00:38:11.5Z\","
	"\"output\":{\"rowsRead\":1,\"rowsCopied\":9007199254740993},\"error\":{\"errorCode\":\"2200\",\"message\":\"m\",\"failureType\":\"UserError\"}}]}",
	"{\"run_id\":5,\"job_id\":101,\"end_time\":3,\"status\":{\"state\":\"TERMINATED\",\"termination_details\":{\"code\":\"RUN_EXECUTION_ERROR\",\"type\":\"CLIENT_ERROR\",\"message\":\"m\"}},"
	"\"state\":{\"life_cycle_state\":\"TERMINATED\",\"result_state\":\"FAILED\"},\"run_page_url\":\"https://x/\","
	"\"tasks\":[{\"task_key\":\"t\",\"run_id\":6,\"attempt_number\":0,\"start_time\":1,\"end_time\":2,\"status\":{\"state\":\"TERMINATED\",\"termination_details\":{\"code\":\"X\"}}}],"
	"\"repair_history\":[{\"type\":\"REPAIR\",\"id\":7,\"start_time\":2,\"status\":{\"state\":\"TERMINATED\",\"termination_details\":{\"code\":\"SUCCESS\"}}}],\"next_page_token\":\"n\"}",
	"{\"run_id\":5,\"status\":{\"state\":\"RUNNING\"}}",
	"{\"statement_id\":\"s1\",\"status\":{\"state\":\"PENDING\"}}",
	"{\"statement_id\":\"s1\",\"status\":{\"state\":\"SUCCEEDED\"},\"manifest\":{\"total_row_count\":2,\"schema\":{\"columns\":[{\"name\":\"i\",\"type_name\":\"LONG\"},"
	"{\"name\":\"a\",\"type_name\":\"ARRAY\"}]}},\"result\":{\"data_array\":[[\"1\",\"[1]\"],[null,\"x\"]],\"next_chunk_index\":1,"
	"\"next_chunk_internal_link\":\"/api/2.0/sql/statements/s1/result/chunks/1\"}}",
	"{\"data_array\":[[\"2\",null]],\"next_chunk_index\":2}",
	"{\"statement_id\":\"s1\",\"status\":{\"state\":\"FAILED\",\"error\":{\"error_code\":\"BAD_REQUEST\",\"message\":\"m\"},\"sql_state\":\"42P01\"}}",
	"{\"res\":[{\"query_id\":\"s1\",\"query_tags\":[{\"key\":\"weir_token\",\"value\":\"weir-k1-42-1\"}]}],\"next_page_token\":\"n\"}",
	"{\"updates\":[{\"update_id\":\"u1\",\"state\":\"RUNNING\",\"cause\":\"API_CALL\",\"creation_time\":1795226400500},{\"update_id\":\"u0\",\"state\":\"COMPLETED\",\"creation_time\":5}]}",
	"{\"updates\":[{\"update_id\":\"u0\",\"state\":\"COMPLETED\",\"creation_time\":5}]}",
	"{\"update_id\":\"u1\"}",
	"{\"update\":{\"update_id\":\"u1\",\"state\":\"FAILED\",\"cause\":\"RETRY_ON_FAILURE\",\"creation_time\":1795226400500}}",
	"{\"update\":{\"update_id\":\"u1\",\"state\":\"COMPLETED\"}}",
	"{\"state\":\"RECOVERING\",\"latest_updates\":[{\"update_id\":\"u2\"},{\"update_id\":\"u1\"}]}",
	"{\"events\":[{\"level\":\"ERROR\",\"message\":\"m\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"origin\":{\"update_id\":\"u1\",\"flow_name\":\"f\"},"
	"\"error\":{\"exceptions\":[{\"class_name\":\"c\",\"message\":\"e\"}]},\"details\":{\"flow_progress\":{\"status\":\"FAILED\",\"metrics\":{\"num_output_rows\":5},"
	"\"data_quality\":{\"dropped_records\":1,\"expectations\":[{\"name\":\"x\",\"dataset\":\"d\",\"passed_records\":4,\"failed_records\":1}]}}}}],\"next_page_token\":\"n\"}",
	"{\"predictions\":[1],\"usage\":{}}",
	"{\"notebook_output\":{\"result\":\"{\\\"rows_read\\\":1}\"},\"logs\":\"l\",\"sql_output\":{\"query_output\":{\"output_link\":\"https://x/\"}}}",
	"{\"id\":\"" GUID "\",\"status\":\"Running\",\"value\":[{\"id\":\"" GUID "\",\"status\":\"InProgress\",\"startTimeUtc\":\"2018-06-16T00:37:44.1234567\"}]}",
	"{\"id\":\"a\",\"status\":\"Completed\",\"failureReason\":{\"errorCode\":\"x\",\"message\":\"m\"},\"next_page_token\":\"/r\"}",
	"{\"error\":\"boom\",\"error_trace\":\"trace\",\"metadata\":{}}",
	"{\"error\":{\"code\":\"C\",\"message\":\"M\",\"details\":[{\"error\":{\"message\":\"D\"}}]}}",
	"{\"error_code\":\"INVALID_PARAMETER_VALUE\",\"message\":\"Run 5 does not exist.\"}",
	"<QueueMessagesList><QueueMessage><MessageId>1</MessageId><PopReceipt>r</PopReceipt><DequeueCount>30</DequeueCount><MessageText>{&quot;type&quot;:&quot;Microsoft.Storage.BlobCreated&quot;}</MessageText></QueueMessage></QueueMessagesList>",
	"<html><head><title>502</title></head><pre>x</pre></html>",
	"<?xml version=\"1.0\"?><EnumerationResults><Blobs><Blob><Name>in/a</Name><Properties><Last-Modified>Sat, 21 Nov 2026 01:00:00 GMT</Last-Modified>"
	"<Etag>0x1</Etag><Content-Length>12</Content-Length></Properties></Blob></Blobs><NextMarker>m</NextMarker></EnumerationResults>",
	"<?xml version=\"1.0\"?><Error><Code>BlobAlreadyExists</Code><Message>There.\nRequestId:1</Message></Error>",
	"{\"value\":[{\"id\":\"https://base/secrets/a/1\",\"attributes\":{\"enabled\":true,\"created\":5,\"exp\":9},\"tags\":{\"weir_token\":\"weir-k1-42-1\"}}],"
	"\"nextLink\":\"https://base/secrets?x=1\"}",
	"CODE: text",
	"",
	"null", "true", "5", "\"s\"", "[]", "{}",
};

static const int statuses[] = {0, 200, 200, 200, 200, 200, 202, 204, 301, 400, 400, 401, 403, 404, 409, 429, 500, 502, 503};

static const char *const headers[] = {
	"", "Location: https://base/v1/operations/" GUID "\n", "location:/x\nRetry-After: 1\n", "Location: https://evil.example/\n",
	"Location:\n", "x-ms-job-id: " GUID "\n", ":\nLocation", "Link: <https://base/n>; rel=\"next\"\n", "Link: <<>>;rel=next", "Location: //\xff\n",
	NULL, "", "\n\n:\n", "ETag", "ETag: \"0x1\"\nContent-Length: 12\n", "etag: \"0x1\"\ncontent-length: 12\nx-ms-copy-source: https://base/lake/in/a\nx-ms-copy-status: success\n",
	"ETag: 0x2\nContent-Length: -1\nx-ms-copy-status: pending\n", "x-ms-error-code: BlobNotFound\n", "x-ms-error-code: RenameDestinationParentPathNotFound\n",
	"x-ms-error-code: PathAlreadyExists\n", "Date: Sat, 21 Nov 2026 02:00:00 GMT\n", "Location: ://\nLink: <",
};

static uint64 random_state = 88172645463325252u;

static unsigned
random_below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned) ((random_state >> 20) % n);
}

/* Another value in the place of some value of the tree */
static void
mutate(cJSON *tree)
{
	static const char *const values[] = {
		"null", "true", "-1", "9223372036854775807", "1e300", "\"\"", "\"x\"", "[]", "{}", "[[[]]]", "0.5",
		"\"2018-06-16T99:99:99Z\"", "99999999999999999999999999",
	};
	cJSON	   *at = tree;

	while (at->child != NULL && random_below(4) != 0)
	{
		int			n = cJSON_GetArraySize(at);
		cJSON	   *child = cJSON_GetArrayItem(at, (int) random_below((unsigned) n));

		if (child->child == NULL || random_below(3) == 0)
		{
			cJSON	   *value = from_text(values[random_below(lengthof(values))]);

			if (cJSON_IsObject(at))
				cJSON_ReplaceItemInObjectCaseSensitive(at, mem_strdup(child->string), value);
			else
				cJSON_ReplaceItemViaPointer(at, child, value);
			return;
		}
		at = child;
	}
}

/* A damaged answer */
static void
make_response(KindResponse *response)
{
	const char *body = bodies[random_below(lengthof(bodies))];
	char	   *text = mem_strdup(body);
	size_t		len = strlen(text);

	memset(response, 0, sizeof(*response));
	response->http_status = statuses[random_below(lengthof(statuses))];
	response->retry_after_ms = random_below(4) == 0 ? (int64) random_below(100000) : -1;
	response->request_sent = random_below(4) != 0;
	response->headers = random_below(2) ? NULL : headers[random_below(lengthof(headers))];
	response->content_type = random_below(2) ? "application/json" : NULL;
	switch (random_below(5))
	{
		case 0:
			if (len > 0)
				text[len = random_below((unsigned) len)] = '\0';
			break;
		case 1:
			if (len > 0)
				text[random_below((unsigned) len)] = (char) random_below(256);
			break;
		case 2:
		case 3:
			if (*body == '{' && len > 2)
			{
				cJSON	   *tree = from_text(body);

				for (unsigned i = random_below(3); i < 3; i++)
					mutate(tree);
				text = json_text(tree);
				len = strlen(text);
			}
			break;
		default:
			break;
	}
	response->body = len == 0 && random_below(2) ? NULL : text;
	response->body_len = response->body ? len : 0;
	if (response->http_status == 0 || random_below(20) == 0)
		response->transport_error = "broke off";
}

/* Could the conductor act upon it? */
static bool
is_sound(const Attempt *attempt)
{
	const KindVerdict *verdict = &attempt->verdict;
	const cJSON *item;

	if (verdict->outcome == KIND_CONTINUE)
		return verdict->delay_ms >= -1 && verdict->delay_ms <= 2 * 86400000 &&
			(verdict->next_step != KIND_STEP_POLL || attempt->call.external_run_id != NULL || attempt->kind->place != NULL);
	if (verdict->outcome == KIND_FAILED &&
		(verdict->error_code == NULL || verdict->error_message == NULL || *verdict->error_code == '\0' ||
		 strlen(verdict->error_message) > KIND_MAX_MESSAGE))
		return false;
	cJSON_ArrayForEach(item, verdict->activities)
	{
		const char *name = kind_string(item, "activity");
		const cJSON *other;
		int64		ms;

		if (name == NULL || kind_string(item, "status") == NULL ||
			(kind_member(item, "started_at") != NULL && !kind_time_parse(kind_string(item, "started_at"), &ms)))
			return false;
		for (other = item->next; other != NULL; other = other->next)
		{
			if (strcmp(kind_string(other, "activity"), name) == 0)
				return false;
		}
	}
	return true;
}

static void
test_damaged(void)
{
	bool		sound = true;
	int			longest = 0;
	int			ended = 0;

	for (int i = 0; i < 12000 && sound; i++)
	{
		const Start *start = &starts[random_below(lengthof(starts))];
		Attempt		a;
		int			n = 0;

		attempt_init(&a, start->kind, start->spec, start->options, "https://base");
		if (start->reference != NULL)
			a.call.reference = from_text(start->reference);
		attempt_begin(&a);
		for (; n < 60; n++)
		{
			KindResponse response;
			char	   *error;

			if (random_below(12) == 0)
				attempt_crash(&a);
			else if (random_below(25) == 0 && a.call.external_run_id != NULL)
				a.call.step = KIND_STEP_CANCEL;
			if (!attempt_request(&a))
			{
				sound &= a.problem.message != NULL;
				break;
			}
			make_response(&response);
			attempt_response(&a, &response);
			sound &= is_sound(&a);
			if (a.verdict.outcome != KIND_CONTINUE)
			{
				ended++;
				break;
			}
			/* must survive being stored */
			error = json_text(a.call.kind_state);
			sound &= json_parse(error, strlen(error), 1 << 30, &error) != NULL;
			if (!sound)
				break;
		}
		longest = Max(longest, n);
	}
	CHECK(sound);
	CHECK(ended > 2500);
	CHECK(longest > 15);
}

/* Ten megabytes, of the right shape and of none */
static void
test_huge(void)
{
	const char *one = "{\"activityName\":\"Copy\",\"activityType\":\"Copy\",\"status\":\"Succeeded\",\"output\":{\"rowsRead\":1,\"rowsCopied\":1,\"text\":\"%0*d\"}},";
	StrBuf		buf;
	KindResponse response = {.http_status = 200, .retry_after_ms = -1, .request_sent = true};
	Attempt		a;

	attempt_init(&a, "adf_pipeline", "{'pipeline': 'p'}", starts[1].options, "https://base");
	attempt_begin(&a);
	answer(&a, 200, "{'runId': 'r1'}");
	answer(&a, 200, "{'status': 'Succeeded'}");
	strbuf_init(&buf);
	strbuf_addstr(&buf, "{\"value\":[");
	while (buf.len < 10 * 1024 * 1024)
		strbuf_printf(&buf, one, 5000, 1);
	buf.data[buf.len - 1] = ']';
	strbuf_addchar(&buf, '}');
	response.body = buf.data;
	response.body_len = buf.len;
	CHECK(attempt_request(&a));
	attempt_response(&a, &response);
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(cJSON_GetArraySize(a.verdict.activities), 1000);
	CHECK_INT(a.verdict.rows_read, 1000);
	CHECK(strlen(json_text(a.verdict.output)) < 2 * 1024 * 1024);

	/* the same, cut off; then no JSON at all */
	response.body_len -= 10;
	buf.data[response.body_len] = '\0';
	attempt_init(&a, "http", "{'path': '/a'}", "{}", "https://base");
	attempt_begin(&a);
	CHECK(attempt_request(&a));
	attempt_response(&a, &response);
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK(cJSON_IsTrue(json_get(a.verdict.output, "truncated")));
	attempt_init(&a, "databricks_job", "{'job_id': 1}", "{}", "https://base");
	attempt_begin(&a);
	for (int i = 0; i < 3; i++)
	{
		CHECK(attempt_request(&a));
		attempt_response(&a, &response);
		CHECK_INT(a.call.step, KIND_STEP_START);
	}
	memset(buf.data, '[', response.body_len);
	CHECK(attempt_request(&a));
	attempt_response(&a, &response);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
}

void
test_hostile(void)
{
	test_damaged();
	test_huge();
}
