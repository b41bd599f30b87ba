/*-------------------------------------------------------------------------
 * test_adf.c
 *	  Kind adf_pipeline, on the answers of the API's published examples
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define OPTIONS "{'subscription_id': 's 1', 'resource_group': 'rg', 'factory': 'df', 'settle_seconds': 30}"
#define FACTORY "https://arm.example/subscriptions/s%201/resourceGroups/rg/providers/Microsoft.DataFactory/factories/df"
#define RUN_ID "2f7fdb90-5df1-4b8e-ac2f-064cfa58202b"

static Attempt a;

static const char *const run_example =
"{'runId': '" RUN_ID "', 'pipelineName': 'copy flights', 'parameters': {'OutputBlobNameList': '[\\\"x.csv\\\"]'},"
"'invokedBy': {'id': '80a01654a9d34ad18b3fcac5d5d76b67', 'name': 'Manual'}, 'runStart': '2018-06-16T00:37:44.6257014Z',"
"'runEnd': null, 'durationInMs': null, 'status': '%s', 'message': '%s', 'lastUpdated': '2018-06-16T00:38:12.7314495Z',"
"'annotations': [], 'runGroupId': '" RUN_ID "'}";

static const char *const activities_example =
"{'value': [{'activityRunEnd': '2018-06-16T00:38:11.5445431Z', 'activityName': 'ForEach', 'activityRunStart': '2018-06-16T00:37:49.4804925Z',"
"'activityType': 'ForEach', 'durationInMs': 22064, 'retryAttempt': null, 'error': {'errorCode': '', 'message': '', 'failureType': '', 'target': 'ForEach'},"
"'activityRunId': 'f30c5514', 'input': {}, 'linkedServiceName': '', 'output': {}, 'status': 'Succeeded'},"
"{'activityRunEnd': '2018-06-16T00:38:07.4188923Z', 'activityName': 'Copy', 'activityRunStart': '2018-06-16T00:37:50.2460952Z',"
"'activityType': 'Copy', 'error': {'errorCode': '', 'message': '', 'failureType': ''}, 'output': {'dataRead': 142000, 'dataWritten': 142001,"
"'filesRead': 1, 'filesWritten': 1, 'rowsRead': 4334, 'rowsCopied': 4330, 'rowsSkipped': 4, 'copyDuration': 6, 'errors': []}, 'status': 'Succeeded'}]";

static const char *const failed_example =
"{'value': [{'activityName': 'Loop', 'activityType': 'ForEach', 'status': 'Failed', 'activityRunEnd': '2018-06-16T00:39:00Z',"
"'error': {'errorCode': 'BadRequest', 'message': 'inner failed', 'failureType': 'UserError'}},"
"{'activityName': 'Copy', 'activityType': 'Copy', 'status': 'Failed', 'activityRunEnd': '2018-06-16T00:38:00Z', 'output': {'rowsRead': 7, 'rowsCopied': 5},"
"'error': {'errorCode': '2200', 'message': 'no such file', 'failureType': '%s'}},"
"{'activityName': 'After', 'activityType': 'Wait', 'status': 'Skipped'}, {'activityName': 'Copy', 'status': 'Weird', 'activityType': 'Copy'}]}";

static void
begin(const char *spec)
{
	attempt_init(&a, "adf_pipeline", spec, OPTIONS, "https://arm.example");
	attempt_begin(&a);
}

static void
begin_default(void)
{
	begin("{'pipeline': 'copy flights', 'parameters': {'row_audit_id': 9007199254740993, 'list': ['a']}}");
}

static char *
run(const char *status, const char *message)
{
	return mem_printf(run_example, status, message);
}

/* START, and a run in progress */
static void
begin_running(void)
{
	begin_default();
	answer(&a, 200, "{'runId': '" RUN_ID "'}");
	answer(&a, 200, run("InProgress", ""));
}

static void
test_success(void)
{
	cJSON	   *body;

	begin_default();
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.url, FACTORY "/pipelines/copy%20flights/createRun?api-version=2018-06-01");
	CHECK_STR(a.request.body, "{\"row_audit_id\":9007199254740993,\"list\":[\"a\"],\"weir_token\":\"weir-k1-42-1\"}");
	CHECK(a.request.starts_work && !a.request.is_repeatable);
	answer(&a, 200, "{'runId': '" RUN_ID "'}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN_ID);
	CHECK_HAS(a.external_url, "https://adf.azure.com/en/monitoring/pipelineruns/" RUN_ID "?factory=%2Fsubscriptions%2Fs%2520");
	CHECK(a.verdict.state_changed);
	a.call.base_url = "https://management.usgovcloudapi.net";
	attempt_begin(&a);
	answer(&a, 200, "{'runId': '" RUN_ID "'}");
	CHECK_HAS(a.external_url, "https://adf.azure.us/en/monitoring/pipelineruns/" RUN_ID);
	begin_default();
	CHECK(attempt_request(&a));
	answer(&a, 200, "{'runId': '" RUN_ID "'}");

	/* not yet to be seen */
	answer(&a, 404, "{'error': {'code': 'PipelineRunNotFound'}}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.request.method, "GET");
	CHECK_STR(a.request.url, FACTORY "/pipelineruns/" RUN_ID "?api-version=2018-06-01");
	answer(&a, 200, run("Queued", ""));
	answer(&a, 200, run("InProgress", ""));
	CHECK(!a.verdict.state_changed && a.verdict.reset_tries);
	CHECK_INT(a.verdict.delay_ms, -1);
	answer(&a, 200, run("SomethingNew", ""));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, run("Canceling", ""));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, run("Succeeded", ""));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);

	/* two pages, a crash between them */
	answer(&a, 200, mem_printf("%s, 'continuationToken': 'abc=='}", activities_example));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK_STR(a.request.url, FACTORY "/pipelineruns/" RUN_ID "/queryActivityruns?api-version=2018-06-01");
	body = sent(&a);
	CHECK_STR(json_string(json_get(body, "lastUpdatedAfter")), "2018-06-15T00:37:44.625Z");
	CHECK(json_get(body, "lastUpdatedBefore") != NULL && json_get(body, "continuationToken") == NULL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'value': [{'activityName': 'Copy', 'activityType': 'Copy', 'status': 'Succeeded', 'output': {'rowsRead': 6, 'rowsCopied': 6, 'filesWritten': 2}}]}");
	CHECK_STR(json_string(json_get(sent(&a), "continuationToken")), "abc==");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(a.verdict.rows_read, 4340);
	CHECK_INT(a.verdict.rows_written, 4336);
	CHECK_STR(json_string(json_get(a.verdict.output, "runId")), RUN_ID);
	CHECK_INT(kind_int64(a.verdict.output, "rowsCopied", -1), 4336);
	CHECK_INT(kind_int64(a.verdict.output, "filesWritten", -1), 3);
	CHECK_INT(kind_int64(json_get(a.verdict.output, "activities.Copy"), "rowsRead", -1), 4334);
	CHECK_INT(kind_int64(json_get(a.verdict.output, "activities.Copy[2]"), "rowsRead", -1), 6);
	CHECK_INT(cJSON_GetArraySize(a.verdict.activities), 3);
	CHECK_STR(json_string(json_get(a.verdict.activities, "1.started_at")), "2018-06-16T00:37:50.246Z");
	CHECK_STR(json_string(json_get(a.verdict.activities, "1.status")), "succeeded");
	CHECK_INT(kind_int64(json_get(a.verdict.activities, "1"), "bytes_written", -1), 142001);
	CHECK_INT(kind_int64(json_get(a.verdict.activities, "1"), "rows_skipped", -1), 4);
	CHECK_STR(json_string(json_get(a.verdict.activities, "2.activity")), "Copy[2]");
}

static void
test_failure(void)
{
	begin_running();
	answer(&a, 200, run("Failed", "Operation on target Copy failed: no such file"));
	answer(&a, 200, mem_printf(failed_example, "UserError"));
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "2200");
	CHECK_STR(a.verdict.error_message, "Operation on target Copy failed: no such file");
	CHECK_STR(a.verdict.error_detail, "activity Copy: no such file");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_INT(a.verdict.rows_read, -1);
	CHECK_STR(json_string(json_get(a.verdict.activities, "2.status")), "skipped");
	CHECK_STR(json_string(json_get(a.verdict.activities, "3.status")), "running");

	begin_running();
	answer(&a, 200, run("Failed", ""));
	answer(&a, 200, mem_printf(failed_example, "SystemError"));
	CHECK_STR(a.verdict.error_message, "activity Copy: no such file");
	CHECK(!a.verdict.is_user_error && a.verdict.is_retryable);

	/* details are not to be had: the outcome stands */
	begin_running();
	answer(&a, 200, run("Failed", "it broke"));
	while (answer(&a, 200, "<html></html>") && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK_STR(a.verdict.error_message, "it broke");
	CHECK_STR(a.verdict.error_code, "pipeline_failed");
	begin_running();
	answer(&a, 200, run("Succeeded", ""));
	answer(&a, 404, "{}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(a.verdict.rows_read, -1);
	begin_running();
	answer(&a, 200, run("Succeeded", ""));
	while (lose(&a, true) && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	/* refused: nothing was started */
	begin_default();
	answer(&a, 404, "{'error': {'code': 'ResourceNotFound', 'message': 'no pipeline'}}");
	CHECK_STR(a.verdict.error_code, "ResourceNotFound");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);

	/* gone */
	begin_running();
	a.call.now_ms += 31000;
	answer(&a, 404, "{}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_retryable);

	/* unset options, reserved parameter */
	attempt_init(&a, "adf_pipeline", "{'pipeline': 'p'}", "{}", "https://arm.example");
	attempt_begin(&a);
	CHECK(!attempt_request(&a));
	CHECK_HAS(a.problem.message, "subscription_id");
	begin("{'pipeline': 'p', 'parameters': {'weir_token': 'x'}}");
	CHECK(!attempt_request(&a));
	CHECK_STR(a.problem.path, "$.parameters.weir_token");
}

static void
test_cancel(void)
{
	begin_running();
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 200, "");
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.url, FACTORY "/pipelineruns/" RUN_ID "/cancel?api-version=2018-06-01&isRecursive=true");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, run("Cancelled", ""));
	answer(&a, 200, "{'value': []}");
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
	CHECK(a.verdict.activities == NULL);

	/* too late */
	begin_running();
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 400, "{'error': {'code': 'PipelineRunNotInProgress'}}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	begin_running();
	a.call.step = KIND_STEP_CANCEL;
	while (lose(&a, true) && a.call.step == KIND_STEP_CANCEL)
		;
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
}

/* A START without an answer is looked for until it would have to be there */
static void
test_lookup(void)
{
	const char *other = "{'value': [{'runId': 'other', 'parameters': {'weir_token': 'weir-k1-42-2'}}, {'runId': 'none', 'parameters': null}, 5, null]}";
	cJSON	   *body;
	int			lookups = 0;
	int64		lost_at;

	begin_default();
	a.call.now_ms += 90000;
	lost_at = a.call.now_ms;
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	while (a.call.step == KIND_STEP_LOOKUP && lookups < 100)
	{
		answer(&a, 200, other);
		if (lookups++ == 0)
		{
			CHECK_STR(a.request.url, FACTORY "/queryPipelineRuns?api-version=2018-06-01");
			CHECK(!a.request.starts_work && a.request.is_repeatable);
			body = sent(&a);
			CHECK_STR(json_string(json_get(body, "lastUpdatedAfter")), kind_time_text(NOW_MS - INT64_C(86400000)));
			CHECK_JSON(json_get(body, "filters"), "[{'operand': 'PipelineName', 'operator': 'Equals', 'values': ['copy flights']}]");
		}
	}
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(a.call.now_ms >= lost_at + 30000);
	CHECK(lookups >= 3 && lookups <= 20);
	CHECK(kind_state_get(&a.call, "maybe_started") == NULL);

	/* again, and found at last on the second page */
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'value': [], 'continuationToken': 'T1'}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'value': [{'runId': '" RUN_ID "', 'parameters': {'weir_token': 'weir-k1-42-1'}, 'status': 'InProgress'}]}");
	CHECK_STR(json_string(json_get(sent(&a), "continuationToken")), "T1");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN_ID);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);

	/* a gateway's 502 may hide a run; so may an answer without an id */
	begin_default();
	answer(&a, 502, "<html>");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	begin_default();
	answer(&a, 200, "{}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	begin_default();
	answer(&a, 200, "{\"runId\": \"2f7f");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	/* a refusal does not */
	begin_default();
	answer(&a, 429, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin_default();
	lose(&a, false);
	CHECK_INT(a.call.step, KIND_STEP_START);

	/* nobody can say: a person must */
	begin_default();
	lose(&a, true);
	while (answer(&a, 503, "{}") && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_retryable);
	begin_default();
	lose(&a, true);
	answer(&a, 403, "{'error': {'code': 'AuthorizationFailed', 'message': 'no'}}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(!a.verdict.is_retryable);

	/* a stale token starts the search over */
	begin_default();
	lose(&a, true);
	answer(&a, 200, "{'value': [], 'continuationToken': 'T1'}");
	answer(&a, 400, "{'error': {'code': 'BadRequest'}}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK(attempt_request(&a));
	CHECK(json_get(sent(&a), "continuationToken") == NULL);

	/* pages without an end */
	begin_default();
	lose(&a, true);
	while (answer(&a, 200, "{'value': [], 'continuationToken': 'T'}") && a.verdict.outcome == KIND_CONTINUE)
		;
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
}

static void
test_crash(void)
{
	int64		resumed_at;

	/* right after the intent: START was sent, or not */
	begin_default();
	a.call.now_ms += 5000;
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	resumed_at = a.call.now_ms;
	while (a.call.step == KIND_STEP_LOOKUP)
		answer(&a, 200, "{'value': []}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(a.call.now_ms >= resumed_at + 30000);

	/* after a long time the first complete search counts */
	begin_default();
	a.call.now_ms += 3600000;
	attempt_crash(&a);
	answer(&a, 200, "{'value': []}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK_INT(a.verdict.delay_ms, 0);
	answer(&a, 200, "{'value': []}");
	CHECK_INT(a.call.step, KIND_STEP_START);

	/* and never without end */
	for (int i = 1; i < 10 && a.verdict.outcome == KIND_CONTINUE; i++)
	{
		lose(&a, true);
		while (a.verdict.outcome == KIND_CONTINUE && a.call.step == KIND_STEP_LOOKUP)
			answer(&a, 200, "{'value': []}");
	}
	CHECK_STR(a.verdict.error_code, "no_answer");
	CHECK(a.verdict.is_retryable);
}

static void
test_recover(void)
{
	begin("{'pipeline': 'copy flights', 'on_restart': 'recover'}");
	CHECK_INT(a.call.step, KIND_STEP_START);	/* nothing to recover */

	attempt_init(&a, "adf_pipeline", "{'pipeline': 'copy flights', 'on_restart': 'recover'}", OPTIONS, "https://arm.example");
	a.call.reference = from_text("{'external_run_id': '" RUN_ID "'}");
	attempt_begin(&a);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, run("Failed", "x"));
	CHECK_INT(a.call.step, KIND_STEP_START);
	lose(&a, true);
	CHECK_STR(a.request.url, FACTORY "/pipelines/copy%20flights/createRun?api-version=2018-06-01&referencePipelineRunId="
			  RUN_ID "&isRecovery=true&startFromFailure=true");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'value': [{'runId': '" RUN_ID "', 'runGroupId': '" RUN_ID "', 'runStart': '2018-06-16T00:37:44.6257014Z'},"
		   "{'runId': 'new', 'runGroupId': '" RUN_ID "', 'runStart': '2018-06-16T00:40:00Z'}]}");
	CHECK_JSON(json_get(sent(&a), "filters"), "[{'operand': 'RunGroupId', 'operator': 'Equals', 'values': ['" RUN_ID "']}]");
	CHECK_STR(a.call.external_run_id, "new");

	/* an earlier attempt's recovery of the same run is not ours; and one may be, but of another attempt that does not know */
	for (int unknown = 0; unknown < 2; unknown++)
	{
		a.call.external_run_id = NULL;
		a.call.kind_state = cJSON_CreateObject();
		a.call.step = KIND_STEP_PREPARE;
		answer(&a, 200, run("Failed", "x"));
		CHECK_STR(kind_string(a.call.kind_state, "start_place"), "adf_pipeline/" RUN_ID);
		lose(&a, true);
		a.call.taken = from_text("['NEW']");
		a.call.n_unknown = unknown;
		answer(&a, 200, "{'value': [{'runId': 'new', 'runGroupId': '" RUN_ID "', 'runStart': '2018-06-16T00:40:00Z'}]}");
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		answer(&a, 200, "{'value': [{'runId': 'new', 'runGroupId': '" RUN_ID "', 'runStart': '2018-06-16T00:40:00Z'},"
			   "{'runId': 'newer', 'runGroupId': '" RUN_ID "', 'runStart': '2018-06-16T00:50:00Z'}]}");
		CHECK_STR(a.call.external_run_id, unknown ? NULL : "newer");
		CHECK_STR(a.verdict.error_code, unknown ? "outcome_unknown" : NULL);
	}
	a.call.taken = NULL;
	a.call.n_unknown = 0;

	/* it cannot be recovered, it is gone, it goes on */
	a.call.external_run_id = NULL;
	a.call.kind_state = cJSON_CreateObject();
	a.call.step = KIND_STEP_PREPARE;
	answer(&a, 200, run("Failed", "x"));
	answer(&a, 400, "{'error': {'code': 'ReferencedPipelineRunNotValid'}}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), NULL);
	CHECK(attempt_request(&a));
	CHECK_HAS(a.request.url, "!referencePipelineRunId");
	CHECK_HAS(a.request.body, "weir_token");
	a.call.kind_state = cJSON_CreateObject();
	a.call.step = KIND_STEP_PREPARE;
	answer(&a, 404, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_HAS(a.request.url, "!referencePipelineRunId");
	a.call.kind_state = cJSON_CreateObject();
	a.call.step = KIND_STEP_PREPARE;
	answer(&a, 200, run("InProgress", ""));
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN_ID);
}

/* A run that somebody started: its id is all there is */
static void
begin_adopted(void)
{
	attempt_init(&a, "adf_pipeline", "{'pipeline': 'copy flights'}", OPTIONS, "https://arm.example");
	a.call.external_run_id = RUN_ID;
	a.call.step = a.kind->resume_step(&a.call);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
}

static void
test_adopted(void)
{
	begin_adopted();
	answer(&a, 503, "{}");
	CHECK_STR(a.external_url, NULL);
	answer(&a, 200, run("InProgress", ""));
	CHECK_STR(a.request.method, "GET");
	CHECK_HAS(a.external_url, "https://adf.azure.com/en/monitoring/pipelineruns/" RUN_ID "?factory=%2Fsubscriptions%2Fs%2520");
	CHECK(a.verdict.state_changed && a.verdict.reset_tries);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	/* told once, also over a crash */
	answer(&a, 200, run("InProgress", ""));
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	attempt_crash(&a);
	answer(&a, 200, run("InProgress", ""));
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	answer(&a, 200, run("Succeeded", ""));
	answer(&a, 200, mem_printf("%s}", activities_example));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	/* it has ended by the first look */
	begin_adopted();
	answer(&a, 200, run("Cancelled", ""));
	CHECK_HAS(a.external_url, RUN_ID);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);

	/* what was started here has its link already */
	begin_running();
	CHECK(a.external_url != NULL && a.verdict.external_url == NULL);
}

void
test_adf(void)
{
	test_success();
	test_failure();
	test_cancel();
	test_lookup();
	test_crash();
	test_recover();
	test_adopted();
}
