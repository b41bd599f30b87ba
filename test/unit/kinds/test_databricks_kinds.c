/*-------------------------------------------------------------------------
 * test_databricks_kinds.c
 *	  The Databricks kinds beside databricks_job
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define BASE "https://adb-1.azuredatabricks.net"
#define RUN "9007199254740995"
#define SUCCESS_STATE \
	"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'SUCCESS', 'type': 'SUCCESS', 'message': ''}}"
#define FAILED_STATE \
	"'status': {'state': 'TERMINATED', 'termination_details': {'code': 'RUN_EXECUTION_ERROR', 'type': 'CLIENT_ERROR', 'message': 'Workload failed'}}"
#define CLUSTER "'existing_cluster_id': 'c1'"

static Attempt a;

static void
begin(const char *kind, const char *spec)
{
	attempt_init(&a, kind, spec, "{'settle_seconds': 20}", BASE);
	attempt_begin(&a);
}

/* --- specs ----------------------------------------------------------------- */

static void
test_specs(void)
{
	static const struct
	{
		const char *kind;
		const char *spec;
		const char *path;		/* NULL: it is good */
		const char *message;
	}			cases[] = {
		{"databricks_notebook", "{'notebook_path': '/a'}", NULL, NULL},
		{"databricks_notebook", "{'notebook_path': '{{params.p}}', 'base_parameters': {'a': 1}}", NULL, NULL},
		{"databricks_notebook", "{}", "$", "\"notebook_path\" is missing"},
		{"databricks_notebook", "{'notebook_path': 'a'}", "$.notebook_path", "absolute"},
		{"databricks_notebook", "{'notebook_path': '/a', 'git_source': {'git_url': 'u', 'git_provider': 'gitHub', 'git_tag': 't'}}", "$.notebook_path", "relative"},
		{"databricks_notebook", "{'notebook_path': 'a', 'git_source': {'git_url': 'u', 'git_provider': 'gitHub', 'git_tag': 't'}}", NULL, NULL},
		{"databricks_notebook", "{'notebook_path': 'a', 'git_source': {'git_url': 'u', 'git_provider': 'gitHub'}}", "$.git_source", "exactly one"},
		{"databricks_notebook", "{'notebook_path': '/a', 'existing_cluster_id': 'c', 'environment': {}}", "$", "one place"},
		{"databricks_notebook", "{'notebook_path': '/a', 'new_cluster': {'num_workers': 1}}", "$.new_cluster", "spark_version"},
		{"databricks_notebook", "{'notebook_path': '/a', 'libraries': []}", "$.libraries", "clusters only"},
		{"databricks_notebook", "{'notebook_path': '/a', 'performance_target': 'FAST'}", "$.performance_target", "STANDARD"},
		{"databricks_notebook", "{'notebook_path': '/a', 'parameters': {}}", "$.parameters", "unknown member"},
		{"databricks_python", "{'python_file': 's3://b/a.py', " CLUSTER "}", NULL, NULL},
		{"databricks_python", "{'python_file': '/a.py'}", "$", "where it runs"},
		{"databricks_python", "{" CLUSTER "}", "$", "either"},
		{"databricks_python", "{'python_file': '/a.py', 'package_name': 'p', 'entry_point': 'e', " CLUSTER "}", "$", "either"},
		{"databricks_python", "{'package_name': 'p', " CLUSTER "}", "$", "entry_point"},
		{"databricks_python", "{'package_name': 'p', 'entry_point': 'e', 'named_parameters': {'a': 1}, 'environment': {}}", NULL, NULL},
		{"databricks_python", "{'python_file': '/a.py', 'named_parameters': {}, " CLUSTER "}", "$.named_parameters", "for a wheel"},
		{"databricks_python", "{'python_file': '/a.py', 'parameters': ['a', null], " CLUSTER "}", "$.parameters[1]", "must be a string"},
		{"databricks_jar", "{'main_class_name': 'a.B', 'libraries': [{'jar': '/x.jar'}], " CLUSTER "}", NULL, NULL},
		{"databricks_jar", "{'main_class_name': 'a.B', " CLUSTER "}", "$.libraries", "where the JAR is"},
		{"databricks_sql_file", "{'path': '/a.sql', 'warehouse_id': 'w', 'parameters': {'a': 1}}", NULL, NULL},
		{"databricks_sql_file", "{'path': '/a.sql'}", "$", "\"warehouse_id\" is missing"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w'}", NULL, NULL},
		{"databricks_sql", "{'statement': 'SELECT {{params.a}}', 'warehouse_id': 'w'}", "$.statement", "references"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'parameters': {'a b': 1}}", "$.parameters.a b", "name of a parameter"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'parameters': {'a': [1]}}", "$.parameters.a", "scalar"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'parameters': {'a': {'value': 1, 'type': 'ARRAY<INT>'}}}", "$.parameters.a.type", "unknown type"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'parameters': {'a': {'value': '1', 'type': 'decimal(10,2)'}, 'b': {'value': null}}}", NULL, NULL},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'max_rows': 1001}", "$.max_rows", "0 to 1000"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'wait_seconds': 3}", "$.wait_seconds", "0 or from 5"},
		{"databricks_sql", "{'statement': 'SELECT 1', 'warehouse_id': 'w', 'query_tags': {'weir_token': 'x'}}", "$.query_tags.weir_token", "own"},
		{"databricks_pipeline", "{'pipeline_id': 'p', 'refresh_selection': ['a'], 'full_refresh_selection': ['b']}", NULL, NULL},
		{"databricks_pipeline", "{'pipeline_id': 'p', 'refresh_selection': ['a', 1]}", "$.refresh_selection[1]", "string"},
		{"databricks_pipeline", "{'pipeline_id': 'p', 'full_refresh': true, 'refresh_selection': ['a']}", "$.refresh_selection", "all tables"},
		{"databricks_pipeline", "{'pipeline_id': 'p', 'when_active': 'queue'}", "$.when_active", "wait"},
		{"databricks_pipeline", "{'pipeline_id': 'p', 'parameters': {'a': {}}}", "$.parameters.a", "scalar"},
		{"databricks_serving", "{'endpoint': 'e', 'dataframe_records': [{'a': 1}]}", NULL, NULL},
		{"databricks_serving", "{'endpoint': 'e'}", "$", "nothing is asked"},
		{"databricks_serving", "{'endpoint': 'e', 'inputs': [1], 'prompt': 'p'}", "$", "more than one way"},
		{"databricks_serving", "{'endpoint': 'e', 'messages': [{'role': 'user'}]}", "$.messages[0]", "content"},
		{"databricks_serving", "{'endpoint': 'e', 'dataframe_split': {'columns': ['a', 'b'], 'data': [[1, 2], [3]]}}", "$.dataframe_split.data[1]", "each of"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindProblem problem = {0};

		kind_find(cases[i].kind)->validate(from_text(cases[i].spec), &problem);
		check_str(problem.message ? problem.path : NULL, cases[i].path, __FILE__, __LINE__, cases[i].spec);
		if (cases[i].message != NULL)
			CHECK_HAS(problem.message, cases[i].message);
	}
}

/* --- one-time runs --------------------------------------------------------- */

static void
test_bodies(void)
{
	begin("databricks_notebook", "{'notebook_path': '/a', 'base_parameters': {'n': 1, 'z': null}, 'environment': {'environment_version': '2'}}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/submit");
	CHECK(a.request.starts_work && a.request.is_repeatable);
	CHECK_JSON(sent(&a), "{'run_name': 'weir-k1-42-1', 'idempotency_token': 'weir-k1-42-1', 'queue': {'enabled': true},"
			   "'tasks': [{'task_key': 'weir', 'environment_key': 'weir', 'notebook_task': {'notebook_path': '/a', 'base_parameters': {'n': '1'}, 'source': 'WORKSPACE'}}],"
			   "'environments': [{'environment_key': 'weir', 'spec': {'environment_version': '2'}}]}");
	begin("databricks_python", "{'python_file': 'dbfs:/a.py', 'parameters': [1, 'x', true], 'run_name': 'r', 'new_cluster': {'spark_version': '15'}, 'libraries': [{'pypi': {'package': 'p'}}]}");
	CHECK(attempt_request(&a));
	CHECK_JSON(json_get(sent(&a), "tasks.0"), "{'task_key': 'weir', 'spark_python_task': {'python_file': 'dbfs:/a.py', 'parameters': ['1', 'x', 'true']},"
			   "'new_cluster': {'spark_version': '15'}, 'libraries': [{'pypi': {'package': 'p'}}]}");
	begin("databricks_python", "{'package_name': 'p', 'entry_point': 'e', 'named_parameters': {'a': 1}, " CLUSTER "}");
	CHECK(attempt_request(&a));
	CHECK_JSON(json_get(sent(&a), "tasks.0"), "{'task_key': 'weir', 'existing_cluster_id': 'c1',"
			   "'python_wheel_task': {'package_name': 'p', 'entry_point': 'e', 'named_parameters': {'a': '1'}}}");
	begin("databricks_jar", "{'main_class_name': 'a.B', 'parameters': ['x'], 'libraries': [{'jar': '/x.jar'}], " CLUSTER "}");
	CHECK(attempt_request(&a));
	CHECK_JSON(json_get(sent(&a), "tasks.0.spark_jar_task"), "{'main_class_name': 'a.B', 'parameters': ['x']}");
	begin("databricks_sql_file", "{'path': 'q/a.sql', 'warehouse_id': 'w', 'parameters': {'d': '2026-01-01'},"
		  "'git_source': {'git_url': 'u', 'git_provider': 'gitHub', 'git_commit': 'abc'}}");
	CHECK(attempt_request(&a));
	CHECK_JSON(json_get(sent(&a), "tasks.0.sql_task"), "{'file': {'path': 'q/a.sql', 'source': 'GIT'}, 'warehouse_id': 'w', 'parameters': {'d': '2026-01-01'}}");
	CHECK_JSON(json_get(sent(&a), "git_source"), "{'git_url': 'u', 'git_provider': 'gitHub', 'git_commit': 'abc'}");
}

static void
run_notebook(const char *state)
{
	begin("databricks_notebook", "{'notebook_path': '/a'}");
	answer(&a, 200, "{'run_id': " RUN "}");
	answer(&a, 200, mem_printf("{'run_id': " RUN ", 'run_page_url': 'https://adb/#r', %s, 'tasks': [{'task_key': 'weir', 'run_id': 77, %s}]}", state, state));
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
}

static void
test_one_time(void)
{
	begin("databricks_notebook", "{'notebook_path': '/a'}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_START);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);

	run_notebook(SUCCESS_STATE);
	answer(&a, 200, "{'notebook_output': {'result': '{\\u0022rows_read\\u0022: 5, \\u0022rows_written\\u0022: 4, \\u0022a\\u0022: [1]}'}}");
	CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get-output?run_id=77");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(a.verdict.output, "{'run_id': " RUN ", 'result': 'SUCCESS', 'exit_value': {'rows_read': 5, 'rows_written': 4, 'a': [1]}}");
	CHECK_INT(a.verdict.rows_read, 5);
	CHECK_INT(a.verdict.rows_written, 4);
	CHECK_STR(a.external_url, "https://adb/#r");
	CHECK(a.verdict.activities == NULL);

	/* text; nothing; not to be had */
	run_notebook(SUCCESS_STATE);
	answer(&a, 200, "{'notebook_output': {'result': 'all is well', 'truncated': true}}");
	CHECK_JSON(a.verdict.output, "{'run_id': " RUN ", 'result': 'SUCCESS', 'exit_value': 'all is well', 'truncated': true}");
	run_notebook(SUCCESS_STATE);
	answer(&a, 200, "{'notebook_output': {}}");
	CHECK_JSON(a.verdict.output, "{'run_id': " RUN ", 'result': 'SUCCESS'}");
	run_notebook(SUCCESS_STATE);
	answer(&a, 400, "{'message': 'no'}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	run_notebook(FAILED_STATE);
	answer(&a, 200, "{'error': 'ValueError: bad', 'error_trace': 'line 7', 'logs': 'begin\\nend\\n', 'logs_truncated': true}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_message, "ValueError: bad");
	CHECK_STR(a.verdict.error_detail, "line 7");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_JSON(a.verdict.output, "{'run_id': " RUN ", 'result': 'RUN_EXECUTION_ERROR', 'logs': 'begin\\nend\\n', 'logs_truncated': true}");
}

/* After D or a repair: what goes on, or ended well, is not started again */
static void
test_references(void)
{
	static const struct
	{
		int			status;
		const char *body;
		KindStep	step;
	}			cases[] = {
		{200, "{'run_id': 5, 'status': {'state': 'RUNNING'}}", KIND_STEP_POLL},
		{200, "{'run_id': 5, " SUCCESS_STATE "}", KIND_STEP_POLL},
		{200, "{'run_id': 5, " FAILED_STATE "}", KIND_STEP_START},
		{400, "{'message': 'Run 5 does not exist.'}", KIND_STEP_START},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		attempt_init(&a, "databricks_notebook", "{'notebook_path': '/a'}", "{}", BASE);
		a.call.reference = from_text("{'external_run_id': '5'}");
		attempt_begin(&a);
		CHECK_INT(a.call.step, KIND_STEP_PREPARE);
		answer(&a, cases[i].status, cases[i].body);
		CHECK_STR(a.request.url, BASE "/api/2.2/jobs/runs/get?run_id=5");
		CHECK_INT(a.call.step, cases[i].step);
		attempt_crash(&a);
		CHECK_INT(a.call.step, cases[i].step);
	}
}

/* --- statements ------------------------------------------------------------ */

#define ID "01f0-1"

static void
begin_statement(const char *spec)
{
	begin("databricks_sql", spec);
	answer(&a, 200, "{'statement_id': '" ID "', 'status': {'state': 'PENDING'}}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, ID);
}

static void
test_statement(void)
{
	begin("databricks_sql", "{'statement': 'SELECT :a', 'warehouse_id': 'w 1', 'catalog': 'main', 'schema': 's', 'max_rows': 3, 'query_tags': {'team': 'eng'},"
		  "'parameters': {'i': 9007199254740993, 'f': 1.5, 'b': true, 's': 'x', 'z': null, 'd': {'value': '2026-01-01', 'type': 'DATE'}}}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/statements");
	CHECK(a.request.starts_work && !a.request.is_repeatable);
	CHECK_JSON(sent(&a), "{'statement': 'SELECT :a', 'warehouse_id': 'w 1', 'catalog': 'main', 'schema': 's', 'wait_timeout': '0s', 'on_wait_timeout': 'CONTINUE',"
			   "'disposition': 'INLINE', 'format': 'JSON_ARRAY', 'row_limit': 3, 'byte_limit': 1048576,"
			   "'query_tags': [{'key': 'weir_token', 'value': 'weir-k1-42-1'}, {'key': 'team', 'value': 'eng'}],"
			   "'parameters': [{'name': 'i', 'value': '9007199254740993', 'type': 'BIGINT'}, {'name': 'f', 'value': '1.5', 'type': 'DOUBLE'},"
			   "{'name': 'b', 'value': 'true', 'type': 'BOOLEAN'}, {'name': 's', 'value': 'x'}, {'name': 'z'}, {'name': 'd', 'value': '2026-01-01', 'type': 'DATE'}]}");

	/* rows in two chunks, typed by their columns */
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	CHECK_STR(a.external_url, BASE "/sql/history?queryId=" ID);
	answer(&a, 200, "{'statement_id': '" ID "', 'status': {'state': 'RUNNING'}}");
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/statements/" ID);
	answer(&a, 200, "{'statement_id': '" ID "', 'status': {'state': 'SUCCEEDED'}, 'manifest': {'total_row_count': 3, 'schema': {'columns': ["
		   "{'name': 'i', 'type_name': 'LONG'}, {'name': 'i', 'type_name': 'DECIMAL'}, {'name': 'b', 'type_name': 'BOOLEAN'}, {'name': 'a', 'type_name': 'ARRAY'}, {'name': 's', 'type_name': 'STRING'}]}},"
		   "'result': {'data_array': [['9007199254740993', '123456789012345678901.25', 'true', '[1,2]', null]], 'next_chunk_index': 1,"
		   "'next_chunk_internal_link': '/api/2.0/sql/statements/" ID "/result/chunks/1?row_offset=1'}}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	lose(&a, true);
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/statements/" ID "/result/chunks/1?row_offset=1");
	/* a link that leads elsewhere is not followed, the number of the chunk is */
	answer(&a, 200, "{'data_array': [['2', 'NaN', 'false', 'x', 'y']], 'next_chunk_index': 2, 'next_chunk_internal_link': 'https://elsewhere/'}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/statements/" ID "/result/chunks/2");
	answer(&a, 200, "{'data_array': [['3', '0', 'false', '[]', '']]}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(json_text(json_get(a.verdict.output, "rows")), "[{\"i\":9007199254740993,\"i_2\":123456789012345678901.25,\"b\":true,\"a\":[1,2],\"s\":null},"
			  "{\"i\":2,\"i_2\":\"NaN\",\"b\":false,\"a\":\"x\",\"s\":\"y\"},{\"i\":3,\"i_2\":0,\"b\":false,\"a\":[],\"s\":\"\"}]");
	CHECK_INT(a.verdict.rows_read, 3);
	CHECK_INT(a.verdict.rows_written, -1);

	/* no more rows than asked for; a chunk that cannot be had costs its rows */
	begin_statement("{'statement': 's', 'warehouse_id': 'w', 'max_rows': 1}");
	answer(&a, 200, "{'status': {'state': 'SUCCEEDED'}, 'manifest': {'schema': {'columns': [{'name': 'i', 'type_name': 'INT'}]}}, 'result': {'data_array': [['1'], ['2']], 'next_chunk_index': 1}}");
	CHECK_JSON(a.verdict.output, "{'statement_id': '" ID "', 'rows': [{'i': 1}], 'truncated': true}");
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	answer(&a, 200, "{'status': {'state': 'SUCCEEDED'}, 'manifest': {'schema': {'columns': [{'name': 'i', 'type_name': 'INT'}]}}, 'result': {'data_array': [['1']], 'next_chunk_index': 1}}");
	answer(&a, 404, "{'message': 'gone'}");
	CHECK_JSON(a.verdict.output, "{'statement_id': '" ID "', 'rows': [{'i': 1}], 'truncated': true}");

	/* what was changed */
	begin_statement("{'statement': 's', 'warehouse_id': 'w', 'max_rows': 0}");
	answer(&a, 200, "{'status': {'state': 'SUCCEEDED'}, 'manifest': {'schema': {'columns': [{'name': 'num_affected_rows', 'type_name': 'LONG'}]}}, 'result': {'data_array': [['12']]}}");
	CHECK_INT(a.verdict.rows_written, 12);
	CHECK_INT(a.verdict.rows_read, -1);
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	answer(&a, 200, "{'status': {'state': 'CLOSED'}}");
	CHECK_JSON(a.verdict.output, "{'statement_id': '" ID "', 'truncated': true}");
}

static void
test_statement_fails(void)
{
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	answer(&a, 200, "{'status': {'state': 'FAILED', 'error': {'error_code': 'BAD_REQUEST', 'message': '[TABLE_OR_VIEW_NOT_FOUND] t'}, 'sql_state': '42P01'}}");
	CHECK_STR(a.verdict.error_code, "BAD_REQUEST");
	CHECK_STR(a.verdict.error_message, "[TABLE_OR_VIEW_NOT_FOUND] t");
	CHECK_STR(a.verdict.error_detail, "SQLSTATE 42P01.");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	answer(&a, 200, "{'status': {'state': 'FAILED', 'error': {'error_code': 'TEMPORARILY_UNAVAILABLE', 'message': 'm'}}}");
	CHECK(!a.verdict.is_user_error && a.verdict.is_retryable);
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 200, "{}");
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/statements/" ID "/cancel");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "{'status': {'state': 'CANCELED'}}");
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w'}");
	answer(&a, 404, "{'error_code': 'RESOURCE_DOES_NOT_EXIST', 'message': 'no warehouse'}");
	CHECK(a.verdict.outcome == KIND_FAILED && a.verdict.is_user_error);
	begin_statement("{'statement': 's', 'warehouse_id': 'w'}");
	a.call.now_ms += 3600000;
	answer(&a, 404, "{'message': 'gone'}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
}

/* The answer that names the statement is lost: only the query history can tell */
static void
test_lost_statement(void)
{
	const char *others = "{'res': [{'query_id': 'x', 'query_tags': [{'key': 'weir_token', 'value': 'weir-k1-42-2'}]}, {'query_id': 'y'}], 'next_page_token': 'p2'}";

	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w/1'}");
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, others);
	CHECK_STR(a.request.url, BASE "/api/2.0/sql/history/queries?filter_by.query_start_time_range.start_time_ms=1795140000000"
			  "&filter_by.warehouse_ids=w%2F1&max_results=100");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'res': [{'query_id': '" ID "', 'query_tags': [{'key': 'a'}, {'key': 'weir_token', 'value': 'weir-k1-42-1'}]}]}");
	CHECK_HAS(a.request.url, "&page_token=p2");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, ID);

	/* it does not show up: nobody knows */
	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w'}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	for (int i = 0; i < 50 && a.verdict.outcome == KIND_CONTINUE; i++)
	{
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		answer(&a, 200, "{}");
	}
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(a.verdict.may_go_on && !a.verdict.is_retryable);
	CHECK_HAS(a.verdict.error_message, "weir-k1-42-1");

	/* ... unless it does no harm */
	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w', 'idempotent': true}");
	lose(&a, true);
	for (int i = 0; i < 50 && a.call.step == KIND_STEP_LOOKUP; i++)
		answer(&a, 200, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);

	/* no history for us */
	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w'}");
	lose(&a, true);
	answer(&a, 403, "{'message': 'not allowed'}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");

	/* never left: again, without asking */
	begin("databricks_sql", "{'statement': 's', 'warehouse_id': 'w'}");
	lose(&a, false);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 429, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
}

/* --- pipelines ------------------------------------------------------------- */

#define EARLIER "{'update_id': 'u0', 'state': 'COMPLETED', 'cause': 'USER_ACTION', 'creation_time': 1000}"
#define OURS "{'update_id': 'u1', 'state': 'RUNNING', 'cause': 'API_CALL', 'creation_time': 2000}"

static void
begin_update(const char *spec)
{
	begin("databricks_pipeline", spec);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, "{'updates': [" EARLIER "]}");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/updates?max_results=25");
	CHECK_INT(a.call.step, KIND_STEP_START);
}

static void
begin_running_update(void)
{
	begin_update("{'pipeline_id': 'p-1'}");
	answer(&a, 200, "{'update_id': 'u1'}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.external_url, BASE "/#joblist/pipelines/p-1/updates/u1");
	answer(&a, 200, "{'update': " OURS "}");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/updates/u1");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
}

static void
test_update(void)
{
	begin_update("{'pipeline_id': 'p-1', 'refresh_selection': ['a'], 'full_refresh_selection': ['b'], 'validate_only': true, 'parameters': {'n': 1}}");
	CHECK(attempt_request(&a));
	CHECK(a.request.starts_work && !a.request.is_repeatable);
	CHECK_JSON(sent(&a), "{'cause': 'API_CALL', 'refresh_selection': ['a'], 'full_refresh_selection': ['b'], 'validate_only': true, 'parameters': {'n': '1'}}");

	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'BRAND_NEW'}}");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "{'update': {'state': 'COMPLETED'}}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/events?max_results=100&order_by=timestamp%20asc&filter=timestamp%20%3E%3D%20%271970-01-01T00%3A00%3A02.000Z%27");
	answer(&a, 200, "{'events': [{'origin': {'update_id': 'u0', 'flow_name': 'f'}, 'details': {'flow_progress': {'metrics': {'num_output_rows': 99}}}},"
		   "{'origin': {'update_id': 'u1', 'flow_name': 'f'}, 'timestamp': '2026-01-01T00:00:00Z', 'details': {'flow_progress': {'status': 'RUNNING', 'metrics': {'num_output_rows': 5}}}}], 'next_page_token': 't2'}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'events': [{'origin': {'update_id': 'u1', 'flow_name': 'f'}, 'timestamp': '2026-01-01T00:00:05Z', 'details': {'flow_progress': {'status': 'COMPLETED', 'metrics': {'num_output_rows': 2},"
		   "'data_quality': {'dropped_records': 3, 'expectations': [{'name': 'e', 'dataset': 'd', 'passed_records': 7, 'failed_records': 3}]}}}},"
		   "{'origin': {'update_id': 'u1', 'flow_name': 'g'}, 'details': {'flow_progress': {'status': 'EXCLUDED'}}}]}");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/events?max_results=100&page_token=t2");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(a.verdict.rows_written, 7);
	CHECK_JSON(a.verdict.output, "{'update_id': 'u1', 'state': 'COMPLETED', 'flows': {'f': 'COMPLETED', 'g': 'EXCLUDED'}, 'rows_written': 7, 'expectations': {'passed': 7, 'failed': 3}}");
	CHECK_JSON(json_get(a.verdict.activities, "0"), "{'activity': 'f', 'activity_type': 'flow', 'status': 'succeeded', 'rows_copied': 7, 'rows_skipped': 3,"
			   "'started_at': '2026-01-01T00:00:00.000Z', 'ended_at': '2026-01-01T00:00:05.000Z', 'output': {'expectations': {'e': {'dataset': 'd', 'passed': 7, 'failed': 3}}}}");
	CHECK_STR(json_string(json_get(a.verdict.activities, "1.status")), "skipped");

	/* no events: no counts */
	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'COMPLETED'}}");
	answer(&a, 403, "{}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_INT(a.verdict.rows_written, -1);
}

/* An update that somebody started: its id is all there is */
static void
test_adopted_update(void)
{
	attempt_init(&a, "databricks_pipeline", "{'pipeline_id': 'p-1'}", "{}", BASE);
	a.call.external_run_id = "u1";
	a.call.step = a.kind->resume_step(&a.call);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "{'update': " OURS "}");
	CHECK_STR(a.external_url, BASE "/#joblist/pipelines/p-1/updates/u1");
	CHECK(a.verdict.state_changed);
	answer(&a, 200, "{'update': " OURS "}");
	CHECK(!a.verdict.state_changed && a.verdict.external_url == NULL);
	attempt_init(&a, "databricks_pipeline", "{'pipeline_id': 'p-1'}", "{}", BASE);
	a.call.external_run_id = "u1";
	a.call.step = KIND_STEP_POLL;
	answer(&a, 200, "{'update': {'state': 'COMPLETED'}}");
	CHECK_HAS(a.external_url, "/updates/u1");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
}

static void
test_active_update(void)
{
	begin("databricks_pipeline", "{'pipeline_id': 'p'}");
	answer(&a, 200, "{'updates': [{'update_id': 'u9', 'state': 'RUNNING'}]}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, "{'updates': [{'update_id': 'u9', 'state': 'FAILED'}]}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	/* somebody was faster: theirs is not ours, not even after a crash */
	answer(&a, 409, "{'error_code': 'CONFLICT', 'message': 'An active update u10 already exists'}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, "{'updates': [{'update_id': 'u10', 'state': 'RUNNING', 'cause': 'API_CALL', 'creation_time': 5}]}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	CHECK_STR(a.call.external_run_id, NULL);
	begin("databricks_pipeline", "{'pipeline_id': 'p', 'when_active': 'fail'}");
	answer(&a, 200, "{'updates': [{'update_id': 'u9', 'state': 'RUNNING'}]}");
	CHECK_STR(a.verdict.error_code, "update_active");
	CHECK(a.verdict.is_retryable);
}

/* After D or a repair: an earlier update that goes on, or ended well, is this one */
static void
test_earlier_update(void)
{
	static const struct
	{
		const char *state;
		bool		followed;
	}			cases[] = {{"RUNNING", true}, {"COMPLETED", true}, {"FAILED", false}, {"CANCELED", false}};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		attempt_init(&a, "databricks_pipeline", "{'pipeline_id': 'p'}", "{}", BASE);
		a.call.reference = from_text("{'external_run_id': 'u1'}");
		attempt_begin(&a);
		answer(&a, 200, mem_printf("{'updates': [{'update_id': 'u2', 'state': 'COMPLETED'}, {'update_id': 'u1', 'state': '%s'}]}", cases[i].state));
		CHECK_STR(a.call.external_run_id, cases[i].followed ? "u1" : NULL);
		CHECK_INT(a.call.step, cases[i].followed ? KIND_STEP_POLL : KIND_STEP_START);
	}
}

static void
test_lost_update(void)
{
	static const struct
	{
		const char *spec;
		const char *listed;
		const char *ours;
	}			cases[] = {
		{"{'pipeline_id': 'p-1'}", OURS ", " EARLIER, "u1"},
		/* a scheduled one, one of another shape, one from before */
		{"{'pipeline_id': 'p-1'}", "{'update_id': 'u2', 'cause': 'JOB_TASK', 'creation_time': 3000}, " EARLIER, NULL},
		{"{'pipeline_id': 'p-1', 'full_refresh': true}", OURS ", " EARLIER, NULL},
		{"{'pipeline_id': 'p-1'}", EARLIER ", " OURS, NULL},
		/* ours, and its retry */
		{"{'pipeline_id': 'p-1'}", "{'update_id': 'u2', 'cause': 'RETRY_ON_FAILURE', 'creation_time': 3000}, " OURS ", " EARLIER, "u1"},
		{"{'pipeline_id': 'p-1', 'refresh_selection': ['a', 'b']}",
		"{'update_id': 'u3', 'cause': 'API_CALL', 'creation_time': 3000, 'refresh_selection': ['b', 'a']}, " EARLIER, "u3"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		begin_update(cases[i].spec);
		if (i % 2)
			attempt_crash(&a);
		else
			lose(&a, true);
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		answer(&a, 200, mem_printf("{'updates': [%s]}", cases[i].listed));
		check_str(a.call.external_run_id, cases[i].ours, __FILE__, __LINE__, cases[i].listed);
		CHECK_INT(a.call.step, cases[i].ours ? KIND_STEP_POLL : KIND_STEP_LOOKUP);
	}

	/* not there for long: once more, but an update that shows up then is ours */
	begin_update("{'pipeline_id': 'p-1'}");
	lose(&a, true);
	for (int i = 0; i < 50 && a.call.step == KIND_STEP_LOOKUP; i++)
		answer(&a, 200, "{'updates': [" EARLIER "]}");
	CHECK_INT(a.call.step, KIND_STEP_PREPARE);
	answer(&a, 200, "{'updates': [" OURS ", " EARLIER "]}");
	CHECK_STR(a.call.external_run_id, "u1");

	/* refused because the lost one is active */
	begin_update("{'pipeline_id': 'p-1'}");
	lose(&a, true);
	a.call.step = KIND_STEP_START;
	answer(&a, 409, "{'message': 'conflict'}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
}

/* One may be ours and may be not: it shows no parameters, or more than ours */
static void
test_parameters_of_update(void)
{
	static const struct
	{
		const char *parameters;
		const char *shown;
		const char *outcome;	/* of the look that counts */
	}			cases[] = {
		{"{'day': 2, 'x': true, 'none': null}", ", 'parameters': {'day': '2', 'x': 'true'}", "ours"},
		{"{'day': 2}", ", 'parameters': {'day': '1'}", "not ours"},
		{"{'day': 2}", ", 'parameters': {'night': '2'}", "not ours"},
		{"{'day': 2, 'x': true}", ", 'parameters': {'day': '2'}", "not ours"},
		{"{'day': 2}", "", "unknown"},
		{"{'day': 2}", ", 'parameters': {}", "unknown"},
		{"{'day': 2}", ", 'parameters': {'day': '2', 'more': '1'}", "unknown"},
		{"{}", ", 'parameters': {'day': '1'}", "unknown"},
		{"{}", "", "ours"},
		{"{'none': null}", "", "ours"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char	   *list = mem_printf("{'updates': [{'update_id': 'u1', 'state': 'RUNNING', 'cause': 'API_CALL', 'creation_time': 2000%s}, " EARLIER "]}", cases[i].shown);

		begin_update(mem_printf("{'pipeline_id': 'p-1', 'parameters': %s}", cases[i].parameters));
		lose(&a, true);
		answer(&a, 200, list);
		if (strcmp(cases[i].outcome, "ours") != 0)
			CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		for (int n = 0; n < 50 && a.verdict.outcome == KIND_CONTINUE && a.call.step == KIND_STEP_LOOKUP; n++)
			answer(&a, 200, list);
		check_str(a.call.external_run_id ? "ours" : a.verdict.outcome == KIND_FAILED ? "unknown" : "not ours", cases[i].outcome,
				  __FILE__, __LINE__, list);
		if (strcmp(cases[i].outcome, "unknown") != 0)
			continue;
		CHECK_STR(a.verdict.error_code, "outcome_unknown");
		CHECK_HAS(a.verdict.error_message, "update u1 of the pipeline");
	}
}

/* What other attempts have, or may have */
static void
test_updates_of_others(void)
{
	begin_update("{'pipeline_id': 'p-1'}");
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), "databricks_pipeline/p-1");
	lose(&a, true);
	a.call.taken = from_text("['u1']");
	answer(&a, 200, "{'updates': [" OURS ", " EARLIER "]}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	/* what was tried again as another attempt's was that attempt's */
	a.call.taken = from_text("['u3']");
	answer(&a, 200, "{'updates': [{'update_id': 'u3', 'cause': 'RETRY_ON_FAILURE', 'creation_time': 4000}, "
		   "{'update_id': 'u2', 'cause': 'RETRY_ON_FAILURE', 'creation_time': 3000}, " OURS ", " EARLIER "]}");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	CHECK_STR(a.call.external_run_id, NULL);
	/* but not what began before it */
	answer(&a, 200, "{'updates': [{'update_id': 'u3', 'cause': 'API_CALL', 'creation_time': 3000}, " OURS ", " EARLIER "]}");
	CHECK_STR(a.call.external_run_id, "u1");
	/* however long it is, it has to fit into an index */
	begin("databricks_pipeline", mem_printf("{'pipeline_id': 'P%0250d'}", 1));
	answer(&a, 200, "{'updates': []}");
	CHECK_INT(strlen(kind_string(a.call.kind_state, "start_place")), 220);
	CHECK_HAS(kind_string(a.call.kind_state, "start_place"), "databricks_pipeline/p000");
	/* another attempt does not know either */
	begin_update("{'pipeline_id': 'p-1'}");
	lose(&a, true);
	a.call.n_unknown = 1;
	answer(&a, 200, "{'updates': [" OURS ", " EARLIER "]}");
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK_HAS(a.verdict.error_message, "may be of another attempt");
	/* refused: nothing began; nor after somebody decided to send it again is anything there ours */
	begin_update("{'pipeline_id': 'p-1'}");
	answer(&a, 409, "{'message': 'conflict'}");
	CHECK_STR(kind_string(a.call.kind_state, "start_place"), NULL);
	begin_update("{'pipeline_id': 'p-1'}");
	cJSON_DeleteItemFromObject(a.call.kind_state, "start_place");
	a.call.step = a.kind->first_step(&a.call);
	answer(&a, 200, "{'updates': [{'update_id': 'u1', 'state': 'COMPLETED', 'cause': 'API_CALL', 'creation_time': 2000}, " EARLIER "]}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK_STR(kind_string(a.call.kind_state, "before"), "u1");
}

static void
test_failed_update(void)
{
	/* for good */
	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'FAILED'}}");
	answer(&a, 200, "{'state': 'IDLE', 'latest_updates': [{'update_id': 'u1', 'state': 'FAILED'}]}");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1");
	answer(&a, 200, "{'events': [{'level': 'ERROR', 'origin': {'update_id': 'u1'}, 'message': 'Update failed.'},"
		   "{'level': 'ERROR', 'origin': {'update_id': 'u1', 'flow_name': 'f'}, 'message': 'Flow f FAILED fatally.', 'details': {'flow_progress': {'status': 'FAILED'}},"
		   "'error': {'exceptions': [{'class_name': 'org.apache.spark.sql.AnalysisException', 'message': 'no table'}]}}]}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_message, "flow f: no table");
	CHECK_STR(a.verdict.error_detail, "Flow f FAILED fatally.");
	CHECK(a.verdict.is_user_error && !a.verdict.is_retryable);
	CHECK_STR(json_string(json_get(a.verdict.activities, "0.error_message")), "no table");

	/* the pipeline tries again, after a while */
	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'FAILED'}}");
	answer(&a, 200, "{'state': 'RECOVERING', 'latest_updates': [{'update_id': 'u1'}]}");
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'state': 'RUNNING', 'latest_updates': [{'update_id': 'u3'}, {'update_id': 'u2'}, {'update_id': 'u1'}]}");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 200, "{'update': {'update_id': 'u2', 'cause': 'RETRY_ON_FAILURE', 'state': 'RUNNING'}}");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/updates/u2");
	CHECK_STR(a.call.external_run_id, "u2");
	CHECK_HAS(a.external_url, "/updates/u2");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);

	/* somebody else's update after it changes nothing */
	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'FAILED'}}");
	answer(&a, 200, "{'state': 'RUNNING', 'latest_updates': [{'update_id': 'u2'}, {'update_id': 'u1'}]}");
	answer(&a, 200, "{'update': {'update_id': 'u2', 'cause': 'USER_ACTION', 'state': 'RUNNING'}}");
	answer(&a, 200, "{'events': []}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.call.external_run_id, "u1");
	CHECK(a.verdict.is_retryable);

	/* whether it tries again cannot be known: then nor do we */
	begin_running_update();
	answer(&a, 200, "{'update': {'state': 'FAILED'}}");
	answer(&a, 403, "{}");
	answer(&a, 200, "{'events': []}");
	CHECK(a.verdict.outcome == KIND_FAILED && !a.verdict.is_retryable && a.verdict.may_go_on);
}

/* Stop is of the pipeline: nobody else's update is stopped */
static void
test_stop(void)
{
	begin_running_update();
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 200, "{'update': {'state': 'COMPLETED'}}");
	CHECK_STR(a.request.method, "GET");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	begin_running_update();
	a.call.step = KIND_STEP_CANCEL;
	answer(&a, 200, "{'update': {'state': 'RUNNING'}}");
	CHECK_INT(a.call.step, KIND_STEP_CANCEL);
	answer(&a, 200, "{}");
	CHECK_STR(a.request.method, "POST");
	CHECK_STR(a.request.url, BASE "/api/2.0/pipelines/p-1/stop");
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer(&a, 200, "{'update': {'state': 'CANCELED'}}");
	answer(&a, 200, "{'events': []}");
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
}

/* --- serving --------------------------------------------------------------- */

static void
test_serving(void)
{
	begin("databricks_serving", "{'endpoint': 'e-1', 'messages': [{'role': 'user', 'content': 'hi'}], 'max_tokens': 5, 'idempotent': false}");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/serving-endpoints/e-1/invocations");
	CHECK_JSON(sent(&a), "{'messages': [{'role': 'user', 'content': 'hi'}], 'max_tokens': 5}");
	answer(&a, 200, "{'id': 'x', 'choices': [{'message': {'content': 'ho'}}], 'usage': {'total_tokens': 7}}");
	CHECK_JSON(a.verdict.output, "{'choices': [{'message': {'content': 'ho'}}], 'usage': {'total_tokens': 7}}");
	CHECK_STR(a.verdict.external_url, BASE "/ml/endpoints/e-1");
	begin("databricks_serving", "{'endpoint': 'e', 'dataframe_records': [{'a': 1}]}");
	answer(&a, 200, "{'predictions': [1, 2]}");
	CHECK_INT(a.verdict.rows_read, 2);

	/* once, unless the spec says otherwise */
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1]}");
	attempt_crash(&a);
	CHECK(!attempt_request(&a));
	CHECK_STR(a.problem.code, "outcome_unknown");
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1]}");
	lose(&a, true);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1]}");
	answer(&a, 503, "{'message': 'busy'}");
	CHECK(a.verdict.outcome == KIND_FAILED && a.verdict.may_go_on && !a.verdict.is_retryable);
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1]}");
	answer(&a, 429, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1]}");
	answer(&a, 400, "{'error_code': 'BAD_REQUEST', 'message': 'Model is missing inputs'}");
	CHECK_STR(a.verdict.error_code, "BAD_REQUEST");
	CHECK(a.verdict.is_user_error);
	begin("databricks_serving", "{'endpoint': 'e', 'inputs': [1], 'idempotent': true}");
	lose(&a, true);
	CHECK_INT(a.call.step, KIND_STEP_START);
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 503, "{}");
	CHECK_INT(a.call.step, KIND_STEP_START);
}

void
test_databricks_kinds(void)
{
	test_specs();
	test_bodies();
	test_one_time();
	test_references();
	test_statement();
	test_statement_fails();
	test_lost_statement();
	test_update();
	test_adopted_update();
	test_active_update();
	test_earlier_update();
	test_lost_update();
	test_parameters_of_update();
	test_updates_of_others();
	test_failed_update();
	test_stop();
	test_serving();
}
