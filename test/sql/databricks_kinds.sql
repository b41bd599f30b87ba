-- Databricks kinds: what a definition may say, and what is wrong with it when it is made
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT weir.create_connection('dk', 'databricks', 'https://localhost');
CREATE FUNCTION define(kind text, spec jsonb) RETURNS integer
  LANGUAGE sql AS $$SELECT weir.create_pipeline('dk', jsonb_build_object('tasks', jsonb_build_array(jsonb_build_object('name', 'a', 'kind', kind, 'connection', 'dk', 'spec', spec))))::integer$$;

-- no connection
SELECT weir.create_pipeline('dk', '{"tasks": [{"name": "a", "kind": "databricks_sql", "spec": {"statement": "SELECT 1", "warehouse_id": "w"}}]}');

-- one-time runs
SELECT define('databricks_notebook', '{}');
SELECT define('databricks_notebook', '{"notebook_path": "Shared/a"}');
SELECT define('databricks_notebook', '{"notebook_path": "/Shared/a", "notebook_params": {}}');
SELECT define('databricks_notebook', '{"notebook_path": "/Shared/a", "existing_cluster_id": "c", "new_cluster": {"spark_version": "15"}}');
SELECT define('databricks_notebook', '{"notebook_path": "/Shared/a", "new_cluster": {"num_workers": 2}}');
SELECT define('databricks_notebook', '{"notebook_path": "/Shared/a", "libraries": [{"pypi": {"package": "p"}}]}');
SELECT define('databricks_notebook', '{"notebook_path": "a", "git_source": {"git_url": "https://example.com/a.git"}}');
SELECT define('databricks_python', '{"python_file": "/a.py"}');
SELECT define('databricks_python', '{"package_name": "p", "environment": {}}');
SELECT define('databricks_python', '{"python_file": "/a.py", "environment": {}, "parameters": ["a", {"b": 1}]}');
SELECT define('databricks_jar', '{"main_class_name": "a.B", "existing_cluster_id": "c"}');
SELECT define('databricks_sql_file', '{"path": "/a.sql"}');

-- a statement that nobody asks for may be dropped after a quarter of an hour; a job goes on
SELECT weir.alter_connection('dk', options => '{"poll": {"min": 601}}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT 1"}');
SELECT define('databricks_job', '{"job_id": 1}') > 0 AS job;
SELECT weir.drop_pipeline('dk');
SELECT weir.alter_connection('dk', options => '{"poll": {"min": 600}}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT 1"}') > 0 AS statement;
SELECT weir.drop_pipeline('dk');
SELECT weir.alter_connection('dk', options => '{}');

-- statements: what comes from outside is a parameter
SELECT define('databricks_sql', '{"warehouse_id": "w"}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "DELETE FROM t WHERE day = ''{{params.day}}''"}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT :a", "parameters": {"a": [1, 2]}}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT :a", "parameters": {"a": {"value": 1, "type": "SERIAL"}}}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT 1", "max_rows": 5000}');
SELECT define('databricks_sql', '{"warehouse_id": "w", "statement": "SELECT 1", "wait_seconds": 60}');

-- declarative pipelines
SELECT define('databricks_pipeline', '{"full_refresh": true}');
SELECT define('databricks_pipeline', '{"pipeline_id": "p", "full_refresh": true, "refresh_selection": ["t"]}');
SELECT define('databricks_pipeline', '{"pipeline_id": "p", "when_active": "queue"}');

-- models
SELECT define('databricks_serving', '{"endpoint": "e"}');
SELECT define('databricks_serving', '{"endpoint": "e", "inputs": [1], "instances": [1]}');
SELECT define('databricks_serving', '{"endpoint": "e", "messages": [{"content": "hello"}]}');
SELECT define('databricks_serving', '{"endpoint": "e", "messages": [], "stream": true}');

-- a reference passes for a value of any type
SELECT weir.create_pipeline('dk', '{"parameters": {"day": {"type": "date"}, "rows": {"type": "json"}}, "tasks": [
  {"name": "a", "kind": "databricks_notebook", "connection": "dk", "spec": {"notebook_path": "/Shared/{{params.day}}", "base_parameters": {"id": "{{row_audit_id}}"}}},
  {"name": "b", "kind": "databricks_sql", "connection": "dk", "depends_on": ["a"], "spec": {"warehouse_id": "w", "statement": "SELECT :n", "parameters": {"n": "{{tasks.a.output.exit_value.n}}"}}},
  {"name": "c", "kind": "databricks_serving", "connection": "dk", "spec": {"endpoint": "e", "dataframe_records": "{{params.rows}}"}},
  {"name": "d", "kind": "databricks_pipeline", "connection": "dk", "spec": {"pipeline_id": "p", "refresh_selection": "{{params.rows}}"}}]}') AS version;
SELECT t.name, t.kind FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'dk' ORDER BY t.task_no;
SELECT weir.drop_pipeline('dk');
SELECT weir.drop_connection('dk');
DROP FUNCTION define(text, jsonb);
