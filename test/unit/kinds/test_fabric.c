/*-------------------------------------------------------------------------
 * test_fabric.c
 *	  Kind fabric_item, on answers like those of the published examples
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define WS "cfafbeb1-8037-4d0c-896e-a46fb27ff227"
#define ITEM "431e8d7b-4a95-4c02-8ccd-6faef5ba1bd7"
#define ONE "a8de4a1f-7a4e-4f9a-a8b5-0c8d8f0a5a01"
#define TWO "b8de4a1f-7a4e-4f9a-a8b5-0c8d8f0a5a02"
#define THREE "c8de4a1f-7a4e-4f9a-a8b5-0c8d8f0a5a03"
#define JOBS "https://api.fabric.microsoft.com/v1/workspaces/" WS "/items/" ITEM "/jobs"
#define INSTANCE(id, status, start) "{'id': '" id "', 'itemId': '" ITEM "', 'jobType': 'RunNotebook', 'invokeType': 'Manual', 'status': '" status "', 'startTimeUtc': '" start "', 'failureReason': null}"

static Attempt a;

static void
begin(const char *spec)
{
	attempt_init(&a, "fabric_item", spec, "{'workspace_id': '" WS "', 'settle_seconds': 10}", "https://api.fabric.microsoft.com/v1");
	attempt_begin(&a);
}

static void
begin_notebook(void)
{
	begin("{'item': '" ITEM "', 'job_type': 'RunNotebook', 'parameters': {'day': '2026-01-01', 'n': 3, 'x': 0.5, 'b': true, 'o': {'k': 1}, 't': {'value': 1, 'type': 'float'}}}");
	answer(&a, 200, "{'value': [" INSTANCE(ONE, "Completed", "2026-11-20T10:00:00.1234567") ", " INSTANCE(TWO, "InProgress", "2026-11-20T11:00:00.1234567") "]}");
}

static void
test_life(void)
{
	begin_notebook();
	CHECK_STR(a.request.url, JOBS "/instances");
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer_with(&a, 202, "Location: https://x.example/v1/workspaces/" WS "/items/" ITEM "/jobs/instances/" THREE "\nRetry-After: 60\n", "", 60000);
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.url, JOBS "/RunNotebook/instances");
	CHECK_JSON(sent(&a), "{'executionData': {'parameters': {'day': {'value': '2026-01-01', 'type': 'string'}, 'n': {'value': 3, 'type': 'int'}, 'x': {'value': 0.5, 'type': 'float'},"
			   "'b': {'value': true, 'type': 'bool'}, 'o': {'value': '{\\\"k\\\":1}', 'type': 'string'}, 't': {'value': 1, 'type': 'float'}}}}");
	CHECK_STR(a.call.external_run_id, THREE);
	CHECK_INT(a.verdict.delay_ms, 60000);
	CHECK_HAS(a.external_url, "https://app.fabric.microsoft.com/groups/" WS "/synapsenotebooks/" ITEM);
	answer_after(&a, 200, INSTANCE(THREE, "NotStarted", "0001-01-01T00:00:00"), 5000);
	CHECK_STR(a.request.url, JOBS "/instances/" THREE);
	CHECK_INT(a.verdict.delay_ms, 5000);
	answer(&a, 200, INSTANCE(THREE, "SomethingNew", "2026-11-21T02:00:00"));
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 400, "{'errorCode': 'JobAlreadyCompleted'}");
	CHECK_STR(a.request.url, JOBS "/instances/" THREE "/cancel");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, INSTANCE(THREE, "Completed", "2026-11-21T02:00:00.0000000"));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(kind_string(a.verdict.output, "status"), "Completed");
	CHECK_STR(kind_string(a.verdict.output, "id"), THREE);
}

static void
test_lost(void)
{
	/* one that is new: ours, once the list counts */
	begin_notebook();
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'value': [" INSTANCE(TWO, "Completed", "2026-11-21T12:00:00") ", " INSTANCE(THREE, "NotStarted", "0001-01-01T00:00:00") "]}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	a.call.now_ms += 20000;
	answer(&a, 200, "{'value': []}");
	answer(&a, 200, "{'value': [" INSTANCE(TWO, "Completed", "2026-11-21T12:00:00") "], 'continuationToken': 'p 2'}");
	answer(&a, 200, "{'value': [" INSTANCE(THREE, "InProgress", "2026-11-21T12:00:00") "]}");
	CHECK_STR(a.request.url, JOBS "/instances?continuationToken=p%202");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, THREE);

	/* two: nobody knows; none: it goes out again */
	begin_notebook();
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	a.call.now_ms += 3600000;
	answer(&a, 200, "{'value': []}");
	answer(&a, 200, "{'value': [" INSTANCE(ONE, "Completed", "2026-11-20T10:00:00") ", " INSTANCE(THREE, "Failed", "2026-11-21T12:00:00") ", " INSTANCE("d8de4a1f-7a4e-4f9a-a8b5-0c8d8f0a5a04", "InProgress", "2026-11-21T12:00:01") "]}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK_HAS(a.verdict.error_message, THREE);
	begin_notebook();
	attempt_crash(&a);
	a.call.now_ms += 3600000;
	answer(&a, 200, "{'value': []}");
	answer(&a, 200, "{'value': []}");
	CHECK_INT(a.call.step, KIND_STEP_START);

	/* accepted, but nameless: never sent again */
	begin_notebook();
	answer_with(&a, 202, "Location: " JOBS "/instances?jobType=RunNotebook\n", "", -1);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	a.call.now_ms += 20000;
	answer(&a, 200, "{'value': []}");
	answer(&a, 200, "{'value': []}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	begin_notebook();
	answer_with(&a, 202, "x-ms-job-id: " THREE "\n", "", -1);
	CHECK_STR(a.call.external_run_id, THREE);
}

#define FOUR "d8de4a1f-7a4e-4f9a-a8b5-0c8d8f0a5a04"
#define PAGE(rows) "{'value': [" rows "]}"

static void
lose_and_settle(void)
{
	begin_notebook();
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), "fabric_item/" ITEM);
	lose(&a, true);
	a.call.now_ms += 20000;
	answer(&a, 200, PAGE(""));
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
}

/* What other attempts have, or may have */
static void
test_others(void)
{
	/* one of two is another attempt's: the other one is ours */
	lose_and_settle();
	a.call.taken = from_text("['" FOUR "']");
	answer(&a, 200, PAGE(INSTANCE(THREE, "InProgress", "2026-11-21T12:00:00") ", " INSTANCE(FOUR, "InProgress", "2026-11-21T12:00:01")));
	CHECK_STR(a.call.external_run_id, THREE);
	/* the only one is: ours did not arrive */
	lose_and_settle();
	a.call.taken = from_text("['" FOUR "']");
	answer(&a, 200, PAGE(INSTANCE("D8DE4A1F-7A4E-4F9A-A8B5-0C8D8F0A5A04", "InProgress", "2026-11-21T12:00:01")));
	CHECK_INT(a.call.step, KIND_STEP_START);
	/* the only one may be */
	lose_and_settle();
	a.call.n_unknown = 1;
	answer(&a, 200, PAGE(INSTANCE(THREE, "InProgress", "2026-11-21T12:00:00")));
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK_HAS(a.verdict.error_message, "job " THREE " of this item, which was started since, may be of another attempt");
	CHECK(a.verdict.may_go_on);
	/* there is none: whoever else does not know, ours did not arrive */
	lose_and_settle();
	a.call.n_unknown = 1;
	answer(&a, 200, PAGE(""));
	CHECK_INT(a.call.step, KIND_STEP_START);
	/* taken between two pages: the list is read again */
	lose_and_settle();
	answer(&a, 200, "{'value': [" INSTANCE(THREE, "InProgress", "2026-11-21T12:00:00") "], 'continuationToken': 'p'}");
	a.call.taken = from_text("['" THREE "']");
	answer(&a, 200, PAGE(INSTANCE(FOUR, "InProgress", "2026-11-21T12:00:01")));
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK_STR(a.call.external_run_id, NULL);
	answer(&a, 200, PAGE(INSTANCE(FOUR, "InProgress", "2026-11-21T12:00:01") ", " INSTANCE(THREE, "InProgress", "2026-11-21T12:00:00")));
	CHECK_STR(a.call.external_run_id, FOUR);
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), "fabric_item/" ITEM);

	/* refused: nothing of this attempt can be found by others; unless an earlier start was lost */
	begin_notebook();
	answer(&a, 400, "{'errorCode': 'InvalidJobType'}");
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), NULL);
	lose_and_settle();
	a.call.step = KIND_STEP_START;
	answer(&a, 400, "{'errorCode': 'InvalidJobType'}");
	CHECK(kind_string(a.call.kind_state, "start_place") != NULL);
}

/* Somebody decided to send again what several jobs could be: what is there by then is not ours, and counts no more */
static void
test_sent_again(void)
{
	lose_and_settle();
	answer(&a, 200, PAGE(INSTANCE(THREE, "Completed", "2026-11-21T12:00:00") ", " INSTANCE(FOUR, "InProgress", "2026-11-21T12:00:01")));
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	cJSON_DeleteItemFromObject(a.call.kind_state, "start_place");
	cJSON_DeleteItemFromObject(a.call.kind_state, "maybe_started");
	a.call.step = a.kind->first_step(&a.call);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, PAGE(INSTANCE(THREE, "Completed", "2026-11-21T12:00:00") ", " INSTANCE(FOUR, "InProgress", "2026-11-21T12:00:01")));
	CHECK_INT(a.call.step, KIND_STEP_START);
	lose(&a, true);
	/* the list that counts is one of after that */
	answer(&a, 200, PAGE(INSTANCE(FOUR, "Completed", "2026-11-21T12:00:01")));
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	a.call.now_ms += 20000;
	answer(&a, 200, PAGE(""));
	answer(&a, 200, PAGE(INSTANCE(FOUR, "Completed", "2026-11-21T12:00:01")));
	CHECK_INT(a.call.step, KIND_STEP_START);
}

static void
test_failures(void)
{
	begin_notebook();
	answer_with(&a, 202, "Location: /" THREE "\n", "", -1);
	answer(&a, 200, "{'id': '" THREE "', 'status': 'Failed', 'failureReason': {'errorCode': 'RunNotebookFailed', 'message': 'boom', 'isRetriable': false}}");
	CHECK_STR(a.verdict.error_code, "RunNotebookFailed");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	begin_notebook();
	answer_with(&a, 202, "Location: /" THREE "\n", "", -1);
	answer(&a, 200, INSTANCE(THREE, "Deduped", "2026-11-21T02:00:00"));
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "Deduped");
	CHECK(a.verdict.is_retryable);
	begin_notebook();
	answer(&a, 404, "{'errorCode': 'ItemNotFound', 'message': 'gone'}");
	CHECK_STR(a.verdict.error_code, "ItemNotFound");
	CHECK(a.verdict.is_user_error);
	begin_notebook();
	answer(&a, 409, "{'errorCode': 'X', 'message': 'm', 'isRetriable': true}");
	CHECK(a.verdict.is_retryable);
	begin_notebook();
	answer(&a, 430, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
}

static void
test_operations(void)
{
	begin("{'call': {'path': 'workspaces/x/refresh', 'body': {'a': 1}}}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer_with(&a, 202, "x-ms-operation-id: " ONE "\nLocation: https://x/y\n", "", 20000);
	CHECK_STR(a.request.url, "https://api.fabric.microsoft.com/v1/workspaces/x/refresh");
	CHECK_INT(a.verdict.delay_ms, 20000);
	answer(&a, 200, "{'status': 'Running', 'percentComplete': 3}");
	CHECK_STR(a.request.url, "https://api.fabric.microsoft.com/v1/operations/" ONE);
	answer(&a, 200, "{'status': 'Undefined'}");
	answer(&a, 200, "{'status': 'Succeeded'}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 400, "{'errorCode': 'OperationHasNoResult'}");
	CHECK_STR(a.request.url, "https://api.fabric.microsoft.com/v1/operations/" ONE "/result");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK(!a.kind->can_cancel(&a.call));
	begin("{'call': {'path': '/x'}}");
	answer(&a, 200, "{'done': 1}");
	CHECK_JSON(a.verdict.output, "{'status': 'Succeeded', 'result': {'done': 1}}");
	begin("{'call': {'path': '/x'}}");
	lose(&a, true);
	CHECK(!attempt_request(&a));
	CHECK_STR(a.problem.code, "outcome_unknown");
}

static void
test_definitions(void)
{
	static const char *const cases[][2] = {
		{"{}", "$ give \"item\" and"},
		{"{'item': 'x', 'job_type': 'Pipeline'}", "$.item \"item\" must be an id"},
		{"{'item': '" ITEM "', 'job_type': 'a/b'}", "$.job_type"},
		{"{'item': '" ITEM "', 'job_type': 'Pipeline', 'parameters': [{'name': 'x'}]}", "$.parameters[0]"},
		{"{'item': '" ITEM "', 'job_type': 'Pipeline', 'idempotent': true}", "$.idempotent"},
		{"{'call': {'path': '/x'}, 'item': '" ITEM "'}", "$.item \"item\" does not go"},
		{"{'call': {'path': '/../x'}}", "$.call.path"},
		{"{'call': {'path': '/x', 'method': 'RUN'}}", "$.call.method"},
		{"{'call': {'url': '/x'}}", "$.call.url unknown member"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindProblem problem = {0};

		kind_find("fabric_item")->validate(from_text(cases[i][0]), &problem);
		CHECK_HAS(problem.message ? mem_printf("%s %s", problem.path, problem.message) : "no problem", cases[i][1]);
	}
	begin("{'item': '" ITEM "', 'job_type': 'Refresh', 'parameters': {'day': 1}}");
	answer(&a, 200, "{'value': []}");
	CHECK(attempt_request(&a));
	CHECK_JSON(sent(&a), "{'parameters': [{'name': 'day', 'type': 'Automatic', 'value': 1}]}");
	begin("{'item': '" ITEM "', 'job_type': 'Pipeline', 'execution_data': {'OwnerUserObjectId': 'x'}, 'parameters': {'day': 1}}");
	answer(&a, 200, "{'value': []}");
	CHECK(attempt_request(&a));
	CHECK_JSON(sent(&a), "{'executionData': {'OwnerUserObjectId': 'x', 'parameters': {'day': 1}}}");
}

/* A job that somebody started: its id is all there is */
static void
begin_adopted(const char *spec)
{
	attempt_init(&a, "fabric_item", spec, "{'workspace_id': '" WS "', 'settle_seconds': 10}", "https://api.fabric.microsoft.com/v1");
	a.call.external_run_id = THREE;
	a.call.step = a.kind->resume_step(&a.call);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
}

static void
test_adopted(void)
{
	begin_adopted("{'item': '" ITEM "', 'job_type': 'Pipeline'}");
	answer(&a, 404, "{'errorCode': 'EntityNotFound'}");
	CHECK_STR(a.external_url, NULL);
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), NULL);
	answer_after(&a, 200, INSTANCE(THREE, "InProgress", "2026-11-21T02:00:00"), 5000);
	CHECK_STR(a.request.url, JOBS "/instances/" THREE);
	CHECK_STR(a.external_url, "https://app.fabric.microsoft.com/workloads/data-pipeline/monitoring/workspaces/" WS "/pipelines/" ITEM "/" THREE);
	CHECK(a.verdict.state_changed && a.verdict.reset_tries);
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), "fabric_item/" ITEM);
	CHECK_INT(a.verdict.delay_ms, 5000);
	/* told once, also over a crash */
	answer(&a, 200, INSTANCE(THREE, "InProgress", "2026-11-21T02:00:00"));
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	attempt_crash(&a);
	answer(&a, 200, INSTANCE(THREE, "InProgress", "2026-11-21T02:00:00"));
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	answer(&a, 200, INSTANCE(THREE, "Completed", "2026-11-21T02:00:00"));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);

	/* it has ended by the first look, well or not */
	begin_adopted("{'item': '" ITEM "', 'job_type': 'RunNotebook'}");
	answer(&a, 200, INSTANCE(THREE, "Completed", "2026-11-21T02:00:00"));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK(a.verdict.state_changed);
	CHECK_STR(a.verdict.external_url, "https://app.fabric.microsoft.com/groups/" WS "/synapsenotebooks/" ITEM);
	begin_adopted("{'item': '" ITEM "', 'job_type': 'RunNotebook'}");
	answer(&a, 200, INSTANCE(THREE, "Deduped", "2026-11-21T02:00:00"));
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_HAS(a.verdict.external_url, "/synapsenotebooks/");

	/* what was started here has its link already; an operation has no page */
	begin_notebook();
	answer_with(&a, 202, "Location: /" THREE "\n", "", -1);
	answer(&a, 200, INSTANCE(THREE, "InProgress", "2026-11-21T02:00:00"));
	CHECK(a.external_url != NULL && a.verdict.external_url == NULL && !a.verdict.state_changed);
	begin_adopted("{'call': {'path': 'workspaces/x/refresh'}}");
	answer(&a, 200, "{'status': 'Running'}");
	CHECK(a.external_url == NULL && a.call.step == KIND_STEP_POLL);
	answer(&a, 200, "{'status': 'Running'}");
	CHECK(!a.verdict.state_changed);
}

void
test_fabric(void)
{
	test_life();
	test_lost();
	test_others();
	test_sent_again();
	test_failures();
	test_operations();
	test_definitions();
	test_adopted();
}
