/*-------------------------------------------------------------------------
 * attempts.c
 *	  Whole attempts against the local cloud: nothing starts twice
 *
 *	attempts http://127.0.0.1:PORT
 *
 * Every kind of attempt is run through once, and then again and again with
 * one mishap at each of its exchanges: the connection reset before or after
 * the work, half of an answer, a gateway's page, refusals, lost tokens, a
 * crash of the conductor before or after sending, a cancel.  Each time the
 * ledger of the cloud says how much was really started.
 *-------------------------------------------------------------------------
 */
#include "drive.h"

#define JOB_ID		9007199254740777
#define MAX_STEPS	12

static const char *address;
static char *arm_token;

static const char *
arm(bool fresh)
{
	if (fresh || arm_token == NULL)
	{
		cJSON	   *answer = cloud_call(address, "POST", "/t1/oauth2/v2.0/token",
										"grant_type=client_credentials&client_id=weir-client&client_secret=weir-secret"
										"&scope=https%3A%2F%2Fmanagement.azure.com%2F.default");

		arm_token = mem_strdup(kind_string(answer, "access_token") ? kind_string(answer, "access_token") : "none");
	}
	return arm_token;
}

static char *workspace_token;

static const char *
workspace(bool fresh)
{
	if (fresh || workspace_token == NULL)
	{
		cJSON	   *answer = cloud_call(address, "POST", "/t1/oauth2/v2.0/token",
										"grant_type=client_credentials&client_id=weir-client&client_secret=weir-secret"
										"&scope=2ff814a6-3304-4ab8-85cb-cd0e6f879c1d%2F.default");

		workspace_token = mem_strdup(kind_string(answer, "access_token") ? kind_string(answer, "access_token") : "none");
	}
	return workspace_token;
}

typedef struct Scenario
{
	const char *name;
	const char *kind;
	const char *path;			/* of the base URL */
	const char *spec;
	const char *options;
	const char *(*token) (bool fresh);
	const char *operations;		/* faults are for these */
	const char *counted;		/* operation that starts work */
	bool		is_repair;		/* of a run that failed before */
	KindOutcome outcome;		/* with no mishap, or one that is overcome */
	bool		unrepeatable;	/* outcome_unknown is allowed */
} Scenario;

static const Scenario scenarios[] = {
	{"adf copy", "adf_pipeline", "/adf", "{'pipeline': 'copy_flights', 'parameters': {'row_audit_id': 7, 'limit': 20}}",
	"{'subscription_id': 's1', 'resource_group': 'rg', 'factory': 'df', 'settle_seconds': 2}",
	arm, "adf.*", "adf.createRun", false, KIND_SUCCEEDED, false},
	{"adf fail", "adf_pipeline", "/adf", "{'pipeline': 'fail'}",
	"{'subscription_id': 's1', 'resource_group': 'rg', 'factory': 'df', 'settle_seconds': 2}",
	arm, "adf.*", "adf.createRun", false, KIND_FAILED, false},
	{"job", "databricks_job", "/dbx", "{'job_id': 9007199254740777, 'job_parameters': {'row_audit_id': 7}}", "{}",
	workspace, "databricks.*", "databricks.run-now", false, KIND_SUCCEEDED, false},
	{"job fail", "databricks_job", "/dbx", "{'job_id': 103}", "{}",
	workspace, "databricks.*", "databricks.run-now", false, KIND_FAILED, false},
	{"repair", "databricks_job", "/dbx", "{'job_id': 9007199254740777, 'job_parameters': {'row_audit_id': 7}}", "{}",
	workspace, "databricks.*", "databricks.repair", true, KIND_SUCCEEDED, false},
	{"notebook", "databricks_notebook", "/dbx", "{'notebook_path': '/Shared/echo', 'base_parameters': {'row_audit_id': 7}}", "{}",
	workspace, "databricks.*", "databricks.submit", false, KIND_SUCCEEDED, false},
	{"python fail", "databricks_python", "/dbx", "{'python_file': '/Shared/fail.py', 'environment': {'environment_version': '2'}}", "{}",
	workspace, "databricks.*", "databricks.submit", false, KIND_FAILED, false},
	{"statement", "databricks_sql", "/dbx", "{'statement': 'CREATE TABLE IF NOT EXISTS t (a)', 'warehouse_id': 'wh1'}", "{'settle_seconds': 2}",
	workspace, "databricks.*", "databricks.execute", false, KIND_SUCCEEDED, true},
	{"idempotent statement", "databricks_sql", "/dbx", "{'statement': 'SELECT :a AS a', 'parameters': {'a': 1}, 'warehouse_id': 'wh1', 'idempotent': true}",
	"{'settle_seconds': 2}", workspace, "databricks.*", "databricks.execute", false, KIND_SUCCEEDED, false},
	{"update", "databricks_pipeline", "/dbx", "{'pipeline_id': 'flights'}", "{'settle_seconds': 2}",
	workspace, "databricks.*", "databricks.pipeline-start", false, KIND_SUCCEEDED, false},
	{"retried update", "databricks_pipeline", "/dbx", "{'pipeline_id': 'shaky'}", "{'settle_seconds': 2}",
	workspace, "databricks.*", "databricks.pipeline-start", false, KIND_SUCCEEDED, false},
	{"broken update", "databricks_pipeline", "/dbx", "{'pipeline_id': 'broken'}", "{'settle_seconds': 2}",
	workspace, "databricks.*", "databricks.pipeline-start", false, KIND_FAILED, false},
	{"model", "databricks_serving", "/dbx", "{'endpoint': 'adder', 'dataframe_records': [{'a': 1, 'b': 2}]}", "{}",
	workspace, "databricks.*", "databricks.invoke", false, KIND_SUCCEEDED, true},
	{"http once", "http", "/http", "{'method': 'POST', 'path': '/json/a', 'body': {'a': 1}}", "{}",
	NULL, "http.*", "http.json", false, KIND_SUCCEEDED, true},
	{"http keyed", "http", "/http", "{'method': 'POST', 'path': '/json/a', 'body': {'a': 1}, 'idempotent': true}", "{}",
	NULL, "http.*", "http.json", false, KIND_SUCCEEDED, false},
};

static int64
started(const char *operation)
{
	cJSON	   *counts = cloud_call(address, "GET", "/_cloud/counts", NULL);

	return kind_int64(kind_member(counts, operation), "started", 0);
}

static void
control(const char *path, const char *body)
{
	char	   *text = json_text(from_text(body));

	CHECK(cloud_call(address, "POST", path, text) != NULL);
}

static void
init_attempt(const Scenario *scenario, Attempt *attempt)
{
	static int	number;

	attempt_init(attempt, scenario->kind, scenario->spec, scenario->options,
				 mem_printf("%s%s", address, scenario->path));
	attempt->call.token = mem_printf("weir-test-%d-1", ++number);
}

/* A run of the job that fails half-way, as the attempt before did */
static const cJSON *
fail_before(const Scenario *scenario)
{
	Drive		drive = {.address = address, .token = scenario->token};
	Attempt		attempt;
	cJSON	   *reference = cJSON_CreateObject();

	control("/_cloud/faults", "{'fault': 'task_fails', 'job_id': 9007199254740777, 'task_key': 'two'}");
	init_attempt(scenario, &attempt);
	CHECK(drive_attempt(&drive, &attempt));
	CHECK_INT(attempt.verdict.outcome, KIND_FAILED);
	CHECK_HAS(attempt.verdict.error_message, "task two: ");
	CHECK_INT(started("databricks.run-now"), 1);
	if (attempt.call.external_run_id != NULL)
		cJSON_AddStringToObject(reference, "external_run_id", attempt.call.external_run_id);
	return reference;
}

/* One attempt with one mishap.  Returns the number of exchanges. */
static int
run(const Scenario *scenario, const char *fault, Mishap mishap, int at)
{
	Drive		drive = {.address = address, .token = scenario->token, .mishap = mishap, .mishap_at = at};
	Attempt		attempt;
	const cJSON *reference = NULL;
	char	   *label = mem_printf("%s, %s at %d", scenario->name,
								   fault ? fault : mishap == MISHAP_NONE ? "nothing" :
								   mishap == MISHAP_CANCEL ? "cancel" :
								   mishap == MISHAP_CRASH_BEFORE ? "crash before" : "crash after", at);
	bool		done;
	int64		count;

	(void) cloud_call(address, "POST", "/_cloud/reset", "{}");
	if (scenario->is_repair)
		reference = fail_before(scenario);
	init_attempt(scenario, &attempt);
	attempt.call.reference = reference;
	if (fault != NULL && strcmp(fault, "revoke") == 0)
		control("/_cloud/config", "{'revoke_tokens': true}");
	else if (fault != NULL)
		control("/_cloud/faults", mem_printf("{%s, 'operation': '%s', 'after': %d}", fault, scenario->operations, at));
	done = drive_attempt(&drive, &attempt);
	count = started(scenario->counted);

	check_true(done, __FILE__, __LINE__, "%s: no end: %s", label, drive.trace);
	if (mishap == MISHAP_CANCEL)
	{
		check_true(count <= 1, __FILE__, __LINE__, "%s: started " INT64_FORMAT " times: %s", label, count, drive.trace);
		check_true(!drive.cancelled || count == 0, __FILE__, __LINE__, "%s: cancelled, but it runs: %s", label, drive.trace);
		return drive.exchanges + 1;
	}
	if (scenario->unrepeatable && attempt.verdict.outcome == KIND_FAILED &&
		attempt.verdict.error_code && strcmp(attempt.verdict.error_code, "outcome_unknown") == 0)
	{
		check_true(count <= 1 && !attempt.verdict.is_retryable, __FILE__, __LINE__, "%s: unknown, started " INT64_FORMAT " times", label, count);
		return drive.exchanges + 1;
	}
	if (scenario->unrepeatable && fault != NULL && attempt.verdict.outcome == KIND_FAILED)
	{
		check_true(count <= 1 && !attempt.verdict.is_retryable, __FILE__, __LINE__, "%s: failed, started " INT64_FORMAT " times", label, count);
		return drive.exchanges + 1;
	}
	check_true(count == 1, __FILE__, __LINE__, "%s: started " INT64_FORMAT " times: %s", label, count, drive.trace);
	check_true(attempt.verdict.outcome == scenario->outcome, __FILE__, __LINE__, "%s: outcome %d %s: %s", label,
			   attempt.verdict.outcome, attempt.verdict.error_message ? attempt.verdict.error_message : "", drive.trace);
	if (scenario->is_repair)
		check_true(started("databricks.run-now") == 1, __FILE__, __LINE__, "%s: another run was started: %s", label, drive.trace);
	return drive.exchanges + 1;
}

/* What a run that nothing disturbs tells */
static void
test_outcomes(void)
{
	Drive		drive = {.address = address, .token = arm};
	Drive		job = {.address = address, .token = workspace};
	Attempt		a;

	(void) cloud_call(address, "POST", "/_cloud/reset", "{}");
	init_attempt(&scenarios[0], &a);
	CHECK(drive_attempt(&drive, &a));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(a.verdict.rows_read, 20);
	CHECK_INT(a.verdict.rows_written, 20);
	CHECK_INT(cJSON_GetArraySize(a.verdict.activities), 2);
	CHECK_INT(kind_int64(a.verdict.output, "rowsCopied", -1), 20);
	CHECK(json_get(a.verdict.output, "activities.Lookup.firstRow") != NULL);
	CHECK_STR(json_string(json_get(a.verdict.output, "runId")), a.call.external_run_id);

	init_attempt(&scenarios[1], &a);
	memset(drive.trace, 0, sizeof(drive.trace));
	CHECK(drive_attempt(&drive, &a));
	CHECK_STR(a.verdict.error_code, "2200");
	CHECK(a.verdict.is_user_error);
	CHECK_HAS(a.verdict.error_message, "UserErrorFileNotFound");

	init_attempt(&scenarios[2], &a);
	CHECK(drive_attempt(&job, &a));
	CHECK_JSON(json_get(a.verdict.output, "tasks"), "{'one': 'SUCCESS', 'two': 'SUCCESS'}");
	CHECK_STR(json_text(json_get(a.verdict.output, "run_id")), a.call.external_run_id);
	CHECK(strlen(a.call.external_run_id) == 16);
	CHECK_HAS(a.external_url, "/run/");

	init_attempt(&scenarios[3], &a);
	CHECK(drive_attempt(&job, &a));
	CHECK_STR(a.verdict.error_message, "task fail: ValueError: this notebook always fails");
	CHECK_HAS(a.verdict.error_detail, "Traceback");
}

/* Two pages of runs and activities */
static void
test_pages(void)
{
	Drive		drive = {.address = address, .token = arm};
	Attempt		a;

	(void) cloud_call(address, "POST", "/_cloud/reset", "{}");
	for (int i = 0; i < 3; i++)
	{
		init_attempt(&scenarios[0], &a);
		CHECK(drive_attempt(&drive, &a));
	}
	control("/_cloud/config", "{'page_size': 1}");
	control("/_cloud/faults", "{'fault': 'reset_after', 'operation': 'adf.createRun'}");
	init_attempt(&scenarios[0], &a);
	memset(drive.trace, 0, sizeof(drive.trace));
	CHECK(drive_attempt(&drive, &a));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(cJSON_GetArraySize(a.verdict.activities), 2);
	CHECK_HAS(drive.trace, "start lookup lookup lookup lookup poll");
	CHECK_HAS(drive.trace, "detail detail");
	CHECK_INT(started("adf.createRun"), 4);
	control("/_cloud/config", "{'page_size': 100}");
}

/* The earlier run is gone, goes on, or ended well: no repair */
static void
test_references(void)
{
	Drive		drive = {.address = address, .token = workspace};
	Attempt		a;
	const char *run_id;

	(void) cloud_call(address, "POST", "/_cloud/reset", "{}");
	init_attempt(&scenarios[2], &a);
	a.call.reference = from_text("{'external_run_id': '9007199254999999'}");
	CHECK(drive_attempt(&drive, &a));
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(started("databricks.run-now"), 1);
	CHECK_HAS(drive.trace, "prepare start poll");

	run_id = a.call.external_run_id;
	init_attempt(&scenarios[2], &a);
	a.call.reference = from_text(mem_printf("{'external_run_id': '%s'}", run_id));
	memset(drive.trace, 0, sizeof(drive.trace));
	CHECK(drive_attempt(&drive, &a));
	CHECK_STR(drive.trace, "prepare poll ");
	CHECK_STR(a.call.external_run_id, run_id);
	CHECK_INT(started("databricks.run-now"), 1);
	CHECK_INT(started("databricks.repair"), 0);
}

/* A run that never ends is cancelled, and says so */
static void
test_cancelled(void)
{
	/* copy, job, notebook, update */
	static const int which[] = {0, 2, 5, 9};

	for (size_t i = 0; i < lengthof(which); i++)
	{
		const Scenario *scenario = &scenarios[which[i]];
		Drive		drive = {.address = address, .token = scenario->token, .mishap = MISHAP_CANCEL, .mishap_at = 4};
		Attempt		a;

		(void) cloud_call(address, "POST", "/_cloud/reset", "{}");
		control("/_cloud/faults", "{'fault': 'never_ends'}");
		init_attempt(scenario, &a);
		CHECK(drive_attempt(&drive, &a));
		CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
		CHECK_HAS(drive.trace, "cancel poll");
	}
}

int
main(int argc, char **argv)
{
	static const char *const faults[] = {
		"'fault': 'reset_before'", "'fault': 'reset_after'", "'fault': 'half_body'", "'fault': 'not_json'",
		"'fault': 'html'", "'fault': 'status', 'status': 500", "'fault': 'status', 'status': 503, 'do_work': true",
		"'fault': 'status', 'status': 429, 'retry_after': 1", "revoke",
	};
	static const Mishap mishaps[] = {MISHAP_CRASH_BEFORE, MISHAP_CRASH_AFTER, MISHAP_CANCEL};

	if (argc != 2 || strncmp(argv[1], "http://", 7) != 0)
	{
		fprintf(stderr, "usage: attempts http://127.0.0.1:PORT\n");
		return 2;
	}
	address = argv[1];
	control("/_cloud/jobs", "{'job_id': 9007199254740777, 'name': 'two tasks', 'parameters': {'row_audit_id': ''}, 'tasks': ["
			"{'task_key': 'one', 'action': 'wait', 'seconds': 1}, {'task_key': 'two', 'action': 'wait', 'seconds': 1, 'depends_on': ['one']}]}");
	test_outcomes();
	test_pages();
	test_references();
	test_cancelled();
	for (size_t s = 0; s < lengthof(scenarios); s++)
	{
		int			before = checks_passed + checks_failed;
		int			runs = 1;
		int			steps = Min(run(&scenarios[s], NULL, MISHAP_NONE, 0), MAX_STEPS);

		for (int at = 0; at < steps; at++)
		{
			for (size_t f = 0; f < lengthof(faults); f++, runs++)
				(void) run(&scenarios[s], faults[f], MISHAP_NONE, at);
			for (size_t m = 0; m < lengthof(mishaps); m++, runs++)
				(void) run(&scenarios[s], NULL, mishaps[m], at);
		}
		printf("%-20s %4d attempts, %5d checks\n", scenarios[s].name, runs, checks_passed + checks_failed - before);
		fflush(stdout);
	}
	printf("%d passed, %d failed\n", checks_passed, checks_failed);
	return checks_failed > 0 ? 1 : 0;
}
