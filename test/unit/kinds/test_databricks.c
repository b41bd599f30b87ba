/*-------------------------------------------------------------------------
 * test_databricks.c
 *	  Kind databricks_job
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define BASE "https://adb-1.azuredatabricks.net"
#define RUN "9007199254740995"

#define FAILED_STATE \
	"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'RUN_EXECUTION_ERROR', 'type': 'CLIENT_ERROR', 'message': 'Task load failed'}}"
#define RUNNING_STATE "'status': {'state': 'RUNNING'}, 'state': {'life_cycle_state': 'RUNNING'}"
#define SUCCESS_STATE \
	"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'SUCCESS', 'type': 'SUCCESS', 'message': ''}}"

static Attempt a;

static void
begin(const char *spec, const char *reference)
{
	attempt_init(&a, "databricks_job", spec, "{}", BASE);
	if (reference != NULL)
		a.call.reference = from_text(reference);
	attempt_begin(&a);
}

static void
begin_running(void)
{
	begin("{'job_id': 101}", NULL);
	answer(&a, 200, "{'run_id': " RUN ", 'number_in_job': " RUN "}");
}

static void
begin_repair(void)
{
	begin("{'job_id': 101, 'job_parameters': {'row_audit_id': 7}}", "{'external_run_id': '" RUN "'}");
}

/* PREPARE finds a failed run that was never repaired */
static void
begin_prepared(void)
{
	begin_repair();
	answer(&a, 200, "{'run_id': " RUN ", 'job_id': 101, 'end_time': 1000, " FAILED_STATE ","
		   "'repair_history': [{'type': 'ORIGINAL', 'start_time': 1, 'end_time': 1000}]}");
	CHECK_INT(a.call.step, KIND_STEP_START);
}

static void
test_run_now(void)
{
	begin("{'job_id': 9007199254740993, 'job_parameters': {'s': 'x', 'n': 9007199254740993, 'f': 1.5, 'b': true, 'z': null, 'o': {'a': [1]}}, 'only': ['t']}", NULL);
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");
	CHECK_STR(a.request.body, "{\"job_id\":9007199254740993,\"idempotency_token\":\"weir-k1-42-1\",\"job_parameters\":"
			  "{\"s\":\"x\",\"n\":\"9007199254740993\",\"f\":\"1.5\",\"b\":\"true\",\"o\":\"{\\\"a\\\":[1]}\"},\"only\":[\"t\"],\"queue\":{\"enabled\":true}}");
	CHECK(a.request.starts_work && a.request.is_repeatable);

	/* lost, crashed, garbled: the same request again */
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_START);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 200, "<html>");
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 200, "{'run_id': " RUN ", 'number_in_job': " RUN "}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);

	answer(&a, 200, "{'run_id': " RUN ", " RUNNING_STATE ", 'run_page_url': 'https://adb/?o=1#job/101/run/1'}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=" RUN);
	CHECK_STR(a.external_url, "https://adb/?o=1#job/101/run/1");
	CHECK(a.verdict.state_changed);
	answer(&a, 200, "{'run_id': " RUN ", " RUNNING_STATE ", 'run_page_url': 'https://adb/?o=1#job/101/run/1'}");
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	answer(&a, 200, "{'status': {'state': 'TERMINATING', 'termination_details': {'code': 'SUCCESS'}}}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer(&a, 200, "{'status': {'state': 'BRAND_NEW'}, 'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'SUCCESS'}}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer(&a, 200, "{'number_in_job': " RUN ", " SUCCESS_STATE ", 'tasks': ["
		   "{'task_key': 'clean', 'run_id': 11, 'attempt_number': 0, 'start_time': 1529109464625, 'end_time': 1529109465625, 'notebook_task': {}, " FAILED_STATE "},"
		   "{'task_key': 'clean', 'run_id': 12, 'attempt_number': 1, 'start_time': 1529109466625, 'end_time': 1529109467625, 'notebook_task': {}, " SUCCESS_STATE "},"
		   "{'task_key': 'load', 'run_id': 13, 'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'SUCCESS'}}, 7, {}]}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(json_text(a.verdict.output), "{\"run_id\":" RUN ",\"number_in_job\":" RUN ",\"result\":\"SUCCESS\",\"tasks\":{\"clean\":\"SUCCESS\",\"load\":\"SUCCESS\"}}");
	CHECK_JSON(json_get(a.verdict.activities, "0"), "{'activity': 'clean', 'activity_type': 'notebook_task', 'status': 'succeeded',"
			   "'started_at': '2018-06-16T00:37:46.625Z', 'ended_at': '2018-06-16T00:37:47.625Z'}");

	/* outputs of tasks, one after the other, a crash between them; what is not to be had is null */
	begin("{'job_id': 5, 'outputs': ['load', 'gone', 'shy', 'clean']}", NULL);
	answer(&a, 200, "{'run_id': 5}");
	answer(&a, 200, "{" SUCCESS_STATE ", 'tasks': [{'task_key': 'clean', 'run_id': 12, " SUCCESS_STATE "}, {'task_key': 'load', 'run_id': 13, " SUCCESS_STATE "},"
		   "{'task_key': 'shy', 'run_id': 14, " SUCCESS_STATE "}]}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'notebook_output': {'result': '{\\'n\\': 1}'}}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get-output?run_id=13");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 403, "{'error_code': 'PERMISSION_DENIED', 'message': 'no'}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get-output?run_id=14");
	answer(&a, 200, "{'logs': 'done'}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get-output?run_id=12");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(kind_member(a.verdict.output, "outputs"), "{'load': {'exit_value': {'n': 1}}, 'gone': null, 'shy': null, 'clean': {'logs': 'done'}}");

	/* refused */
	begin("{'job_id': 5}", NULL);
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'Job 5 does not exist.'}");
	CHECK_STR(a.verdict.error_code, "INVALID_PARAMETER_VALUE");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	begin("{'job_id': 5}", NULL);
	answer(&a, 400, "{'error_code': 'INVALID_STATE', 'message': 'ClusterNotReadyException: wait'}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);

	a.call.token = "a-token-that-is-longer-than-the-sixty-four-characters-databricks-takes";
	CHECK(!attempt_request(&a));
}

static void
test_states(void)
{
	static const struct
	{
		const char *state;
		KindOutcome outcome;
		const char *code;
		bool		is_user_error;
		bool		is_retryable;
	}			cases[] = {
		{"'state': {'life_cycle_state': 'RUNNING'}", KIND_CONTINUE, NULL, false, false},
		{"'state': {'life_cycle_state': 'WAITING_FOR_RETRY'}", KIND_CONTINUE, NULL, false, false},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'SUCCESS'}", KIND_SUCCEEDED, NULL, false, false},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'SUCCESS_WITH_FAILURES'}", KIND_SUCCEEDED, NULL, false, false},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'FAILED'}", KIND_FAILED, "FAILED", true, false},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'TIMEDOUT'}", KIND_FAILED, "TIMEDOUT", false, true},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'CANCELED'}", KIND_CANCELLED, "cancelled", false, false},
		{"'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'NEW_ONE'}", KIND_FAILED, "NEW_ONE", true, false},
		{"'state': {'life_cycle_state': 'TERMINATED'}", KIND_FAILED, "TERMINATED", false, true},
		{"'state': {'life_cycle_state': 'INTERNAL_ERROR', 'result_state': 'FAILED'}", KIND_FAILED, "FAILED", true, false},
		{"'state': {'life_cycle_state': 'INTERNAL_ERROR'}", KIND_FAILED, "INTERNAL_ERROR", false, true},
		{"'state': {'life_cycle_state': 'SKIPPED', 'result_state': 'MAXIMUM_CONCURRENT_RUNS_REACHED'}", KIND_FAILED, "MAXIMUM_CONCURRENT_RUNS_REACHED", false, true},
		{"'status': {'state': 'TERMINATED'}", KIND_FAILED, "no_result", false, true},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'USER_CANCELED', 'type': 'SUCCESS'}}", KIND_CANCELLED, "cancelled", false, false},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'CANCELED', 'type': 'CLIENT_ERROR'}}, 'state': {'life_cycle_state': 'TERMINATED', 'result_state': 'TIMEDOUT'}", KIND_FAILED, "TIMEDOUT", false, true},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'MAX_CONCURRENT_RUNS_EXCEEDED', 'type': 'CLIENT_ERROR'}}", KIND_FAILED, "MAX_CONCURRENT_RUNS_EXCEEDED", false, true},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'CLOUD_FAILURE', 'type': 'CLOUD_FAILURE'}}", KIND_FAILED, "CLOUD_FAILURE", false, true},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'INTERNAL_ERROR', 'type': 'INTERNAL_ERROR'}}", KIND_FAILED, "INTERNAL_ERROR", false, true},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'RESOURCE_NOT_FOUND', 'type': 'CLIENT_ERROR'}}", KIND_FAILED, "RESOURCE_NOT_FOUND", true, false},
		{"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'SOMETHING_NEW', 'type': 'SUCCESS'}}", KIND_FAILED, "SOMETHING_NEW", false, true},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		begin_running();
		answer(&a, 200, mem_printf("{'run_id': " RUN ", %s}", cases[i].state));
		check_true(a.verdict.outcome == cases[i].outcome, __FILE__, __LINE__, "%s: outcome %d", cases[i].state, a.verdict.outcome);
		CHECK_STR(a.verdict.error_code, cases[i].code);
		check_true(a.verdict.is_user_error == cases[i].is_user_error, __FILE__, __LINE__, "%s: user error", cases[i].state);
		check_true(a.verdict.is_retryable == cases[i].is_retryable, __FILE__, __LINE__, "%s: retryable", cases[i].state);
	}
}

static void
test_failure(void)
{
	/* over two pages; the first to fail explains it */
	begin_running();
	answer(&a, 200, "{'run_id': " RUN ", " FAILED_STATE ", 'next_page_token': 'p2', 'tasks': ["
		   "{'task_key': 'late', 'run_id': 21, 'end_time': 3000, " FAILED_STATE "},"
		   "{'task_key': 'skipped', 'run_id': 22, 'end_time': 100, 'status': {'state': 'TERMINATED', 'termination_details': {'code': 'SKIPPED', 'type': 'CLIENT_ERROR'}}}]}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'run_id': " RUN ", " FAILED_STATE ", 'tasks': [{'task_key': 'load_flights', 'run_id': 9007199254740999, 'end_time': 2000, " FAILED_STATE "}]}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=" RUN "&page_token=p2");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'metadata': {}, 'notebook_output': {}, 'error': 'ValueError: bad', 'error_trace': 'Traceback\\n  line 7'}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get-output?run_id=9007199254740999");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "RUN_EXECUTION_ERROR");
	CHECK_STR(a.verdict.error_message, "task load_flights: ValueError: bad");
	CHECK_STR(a.verdict.error_detail, "Traceback\n  line 7");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_INT(cJSON_GetArraySize(a.verdict.activities), 3);
	CHECK_STR(json_string(json_get(a.verdict.activities, "1.status")), "skipped");
	CHECK_STR(json_string(json_get(a.verdict.activities, "2.error_message")), "ValueError: bad");

	/* the text is not to be had */
	begin_running();
	answer(&a, 200, "{'run_id': " RUN ", " FAILED_STATE ", 'tasks': [{'task_key': 't', 'run_id': 1, " FAILED_STATE "}]}");
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'no'}");
	CHECK_STR(a.verdict.error_message, "task t: Task load failed");
	begin_running();
	answer(&a, 200, "{'run_id': " RUN ", " FAILED_STATE ", 'tasks': [{'task_key': 't', 'run_id': 1, " FAILED_STATE "}]}");
	while (lose(&a, true) && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK_STR(a.verdict.error_message, "task t: Task load failed");
	CHECK(a.verdict.is_user_error);

	/* deleted while we watched */
	begin_running();
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'Run 5 does not exist.'}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	a.call.now_ms += 31000;
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'Run 5 does not exist.'}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");

	begin_running();
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 200, "{}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/cancel");
	CHECK_STR(a.request.body, "{\"run_id\":" RUN "}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
}

static void
test_prepare(void)
{
	begin("{'job_id': 101, 'repair': false}", "{'external_run_id': '" RUN "'}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin("{'job_id': 101}", "{'external_run_id': null}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin("{'job_id': 101}", "{'external_run_id': 'not a run'}");
	CHECK_INT(a.call.step, KIND_STEP_START);

	/* gone, of another job, never ran: a new run, with the token */
	begin_repair();
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'Run " RUN " does not exist.'}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=" RUN "&include_history=true");
	CHECK_INT(a.call.step, KIND_STEP_START);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");
	CHECK_HAS(a.request.body, "weir-k1-42-1");
	begin_repair();
	answer(&a, 200, "{'job_id': 102, " FAILED_STATE "}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");
	begin_repair();
	answer(&a, 200, "{'job_id': 101, 'state': {'life_cycle_state': 'SKIPPED'}}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");

	/* goes on, or ended well meanwhile: adopted */
	begin_repair();
	answer(&a, 200, "{'job_id': 101, " RUNNING_STATE "}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN);
	begin_repair();
	answer(&a, 200, "{'job_id': 101, " SUCCESS_STATE "}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "{'job_id': 101, " SUCCESS_STATE "}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	begin_repair();
	answer(&a, 403, "{'error_code': 'PERMISSION_DENIED', 'message': 'no'}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK(a.verdict.is_user_error);
	begin_repair();
	while (answer(&a, 200, "garbage") && a.verdict.outcome == KIND_CONTINUE)
		CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	CHECK(a.verdict.is_retryable);
}

static void
test_repair(void)
{
	const char *history = "'repair_history': [{'type': 'ORIGINAL', 'start_time': 1}, {'type': 'REPAIR', 'id': 9007199254740997, 'start_time': 5, %s}]";
	char	   *ours_running = mem_printf(history, RUNNING_STATE);
	char	   *ours_done = mem_printf(history, SUCCESS_STATE);

	/* the first repair names no latest one */
	begin_prepared();
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/repair");
	CHECK_STR(a.request.body, "{\"run_id\":" RUN ",\"rerun_all_failed_tasks\":true,\"job_parameters\":{\"row_audit_id\":\"7\"}}");
	CHECK(a.request.starts_work && !a.request.is_repeatable);
	answer(&a, 200, "{'repair_id': 9007199254740997}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, RUN);

	/* its old end does not count: history without ours, then ours still running */
	answer(&a, 200, "{'job_id': 101, 'end_time': 1000, " FAILED_STATE ", 'repair_history': [{'type': 'ORIGINAL'}]}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=" RUN "&include_history=true");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, mem_printf("{'job_id': 101, 'end_time': 1000, " FAILED_STATE ", %s}", ours_running));
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, mem_printf("{'job_id': 101, 'end_time': 2000, " SUCCESS_STATE ", %s}", ours_done));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	/* no history at all: the end time tells */
	begin_prepared();
	answer(&a, 200, "{'repair_id': 7}");
	answer(&a, 200, "{'end_time': 1000, " FAILED_STATE "}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer(&a, 200, "{'end_time': 2000, " SUCCESS_STATE "}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin_prepared();
	answer(&a, 200, "{'repair_id': 7}");
	a.call.now_ms += 3600000;
	answer(&a, 200, "{'end_time': 1000, " FAILED_STATE "}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");

	/* a later repair names the latest one, exactly */
	begin_repair();
	answer(&a, 200, mem_printf("{'job_id': 101, 'end_time': 9, " FAILED_STATE ", %s}", ours_done));
	CHECK(attempt_request(&a));
	CHECK_HAS(a.request.body, "\"latest_repair_id\":9007199254740997");
}

static void
test_lost_repair(void)
{
	const char *unrepaired = "{'job_id': 101, 'end_time': 1000, " FAILED_STATE ", 'repair_history': [{'type': 'ORIGINAL', 'start_time': 1}]}";
	const char *repaired = "{'job_id': 101, 'end_time': 2000, " FAILED_STATE ", 'repair_history': [{'type': 'REPAIR', 'id': 8, 'start_time': 5, " FAILED_STATE "}, {'type': 'ORIGINAL', 'start_time': 1}]}";

	/* it had arrived */
	begin_prepared();
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, repaired);
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=" RUN "&include_history=true");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(kind_state_string(&a.call, "repair_id"), "8");

	/* it had not, as far as can be seen; the next one is refused because it had, and that shows */
	begin_prepared();
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, unrepaired);
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/repair");
	lose(&a, true);
	answer(&a, 200, unrepaired);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 400, "{'error_code': 'INVALID_PARAMETER_VALUE', 'message': 'latest_repair_id must be ...'}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, repaired);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(kind_state_string(&a.call, "repair_id"), "8");

	/* the run goes on, whatever the history says */
	begin_prepared();
	lose(&a, true);
	answer(&a, 200, "{'job_id': 101, " RUNNING_STATE "}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);

	/* deleted meanwhile */
	begin_prepared();
	lose(&a, true);
	answer(&a, 400, "{'message': 'Run does not exist.'}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");

	/* refused twice although nothing goes on: a new run */
	begin_prepared();
	answer(&a, 400, "{'message': 'There are no tasks to rerun in this run.'}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, unrepaired);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 400, "{'message': 'There are no tasks to rerun in this run.'}");
	answer(&a, 200, unrepaired);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/run-now");

	/* never without end */
	begin_prepared();
	for (int i = 0; i < 20 && a.verdict.outcome == KIND_CONTINUE; i++)
	{
		lose(&a, true);
		answer(&a, 200, unrepaired);
	}
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(!a.verdict.is_retryable);
}

void
test_databricks(void)
{
	test_run_now();
	test_states();
	test_failure();
	test_prepare();
	test_repair();
	test_lost_repair();
}
