-- The job format of metadata-driven frameworks, taken as it is.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_reader LOGIN IN ROLE weir_reader;
SET ROLE regress_weir_admin;
\set job '{"job_id": 101, "stages": [{"id": 1, "type": "ETL", "source": "SQL Server", "destination": "ADLS Gen2", "object": "customer_transactions"}, {"id": 2, "type": "Inference", "source": "ADLS Gen2", "script": "predict_churn.py", "output": "Delta Table"}, {"id": 3, "type": "Storage", "source": "Delta Table", "destination": "Azure SQL", "table": "churn_predictions"}]}'

-- nothing says yet what its stages do
SELECT weir.create_pipeline('job_churn', :'job');
SELECT weir.create_connection('job_http', 'http', 'https://localhost');
SELECT weir.set_stage_mapping('ETL', NULL, NULL, 'noop');
SELECT weir.set_stage_mapping('ETL', NULL, 'ADLS Gen2', 'noop', phase => 'publish');
SELECT weir.set_stage_mapping('ETL', 'SQL Server', NULL, 'http', 'job_http', 'land',
	'{"method": "POST", "path": "/copy/{{stage.object}}", "body": {"stage": "{{stage.id}}", "whole": "{{ stage }}", "run": "{{run.id}}"}}');
SELECT weir.create_pipeline('job_churn', :'job');
SELECT weir.set_stage_mapping('ETL', 'SQL Server', NULL, 'http', 'job_http', 'land',
	'{"method": "POST", "path": "/copy/{{stage.object}}", "body": {"stage": "{{stage.id}}", "run": "{{run.id}}"}}');
SELECT weir.create_pipeline('job_churn', :'job');
SELECT weir.set_stage_mapping('Inference', NULL, NULL, 'http', 'job_http', 'transform',
	'{"method": "POST", "path": "/infer", "body": {"script": "{{stage.script}}", "output": "to {{stage.output}}", "after": "{{tasks.stage_1_etl.status}}"}}');
SELECT weir.set_stage_mapping('Storage', 'Delta Table', 'Azure SQL', 'sql', NULL, 'publish',
	'{"sql": "SELECT {{stage.table}}::text, {{ run.id }}, {{stage.id}}::int -- {{stage.table}}"}');
SELECT weir.create_pipeline('job_churn', :'job');

RESET ROLE;
SELECT t.task_no, t.name, t.kind, t.connection_name, t.phase, t.wave, t.upstream_count, t.spec
FROM weir.task t JOIN weir.pipeline p ON p.pipeline_id = t.pipeline_id AND p.current_version = t.version
WHERE p.name = 'job_churn' ORDER BY t.task_no;
-- the document comes back as it was given
SELECT weir.describe_pipeline('job_churn') = :'job'::jsonb AS same;
-- a mapping is read when a pipeline is defined, not later
SET ROLE regress_weir_admin;
SELECT weir.set_stage_mapping('Inference', NULL, NULL, 'noop');
SELECT weir.alter_pipeline('job_churn', :'job');
RESET ROLE;
SELECT t.version, t.kind FROM weir.task t JOIN weir.pipeline p USING (pipeline_id)
WHERE p.name = 'job_churn' AND t.name = 'stage_2_inference' ORDER BY t.version;

-- settings: what a task has beside its spec, checked when the mapping is set and when a pipeline is made
SET ROLE regress_weir_admin;
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', phase => 'land', spec => '{"sql": "SELECT 1"}',
	settings => '{"pool": "job_pool", "pool_slots": 2, "priority": 7, "timeout": "10 minutes", "task_timeout": "1 hour", "retry": {"max_attempts": 3}}');
SELECT weir.create_pipeline('job_settings', '{"stages": [{"id": 1, "type": "Load"}]}');
SELECT weir.create_pool('job_pool', 1);
SELECT weir.create_pipeline('job_settings', '{"stages": [{"id": 1, "type": "Load"}]}');
SELECT weir.alter_pool('job_pool', 2);
SELECT weir.create_pipeline('job_settings', '{"stages": [{"id": 1, "type": "Load"}]}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"pol": "x"}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"pool_slots": 2}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"priority": 1001}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"timeout": "soon"}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"retry": {"max_attempts": 0}}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '{"on_uncertain": "ask"}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'noop', settings => '{"pool": "job_pool"}');
SELECT weir.set_stage_mapping('Load', NULL, NULL, 'sql', spec => '{"sql": "SELECT 1"}', settings => '[]');
SELECT weir.alter_pipeline('job_settings', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.drop_pool('job_pool');
RESET ROLE;
SELECT t.name, t.pool, t.pool_slots, t.priority, t.attempt_timeout, t.task_timeout, t.max_attempts, t.phase
FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'job_settings' AND t.version = 1;

-- the most specific mapping wins, the source before the destination
SET ROLE regress_weir_admin;
SELECT weir.set_stage_mapping('S', NULL, NULL, 'noop', phase => 'transform', spec => '{}');
SELECT weir.set_stage_mapping('S', NULL, 'd', 'sql', phase => 'publish', spec => '{"sql": "SELECT 1"}');
SELECT weir.set_stage_mapping('S', 's', NULL, 'sql', phase => 'land', spec => '{"sql": "SELECT 2"}');
SELECT weir.set_stage_mapping('S', 's', 'd', 'sql', phase => 'land', spec => '{"sql": "SELECT 3"}');
SELECT weir.create_pipeline('job_specific', '{"stages": [{"id": 1, "type": "S"}, {"id": 2, "type": "S", "destination": "d"},
	{"id": 3, "type": "S", "source": "s", "destination": "other"}, {"id": 4, "type": "S", "source": "s", "destination": "d"}, {"id": "five", "type": "S", "source": null}],
	"name": "kept, not used", "timeout": "1 hour", "retry": {"max_attempts": 2}}');
RESET ROLE;
SELECT t.name, t.phase, t.spec, t.max_attempts FROM weir.task t JOIN weir.pipeline p USING (pipeline_id)
WHERE p.name = 'job_specific' ORDER BY t.task_no;
SELECT run_timeout FROM weir.pipeline_version JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'job_specific';

-- a stage's value is data: it cannot become SQL or a reference
SET ROLE regress_weir_admin;
SELECT weir.set_stage_mapping('Data', NULL, NULL, 'sql', spec => '{"sql": "SELECT {{stage.v}} AS v -- {{stage.v}}\n/* {{stage.v}} */"}');
SELECT weir.set_stage_mapping('Call', NULL, NULL, 'http', 'job_http', spec => '{"method": "POST", "path": "/x", "body": {"text": "<{{stage.v}}>", "value": "{{stage.v}}", "literal": "{{\"{{\"}}stage.v}}"}}');
SELECT weir.create_pipeline('job_data', $json$
{"stages": [
  {"id": 1, "type": "Data", "v": "plain"},
  {"id": 2, "type": "Data", "v": "it's"},
  {"id": 3, "type": "Data", "v": "back\\slash"},
  {"id": 4, "type": "Data", "v": "line\n; DROP TABLE t; --"},
  {"id": 5, "type": "Data", "v": "*/ ; DROP TABLE t; /*"},
  {"id": 6, "type": "Data", "v": "{{ run.id }}"},
  {"id": 7, "type": "Data", "v": {"a": [1, "two"]}},
  {"id": 8, "type": "Data", "v": null},
  {"id": 9, "type": "Data", "v": -5},
  {"id": 10, "type": "Call", "v": "{{ run.id }}"},
  {"id": 11, "type": "Call", "v": {"k": ["{{ params.x }}", true]}}
]}
$json$);
RESET ROLE;
SELECT t.name, t.spec ->> 'sql' AS sql, t.spec -> 'body' AS body
FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'job_data' ORDER BY t.task_no;

-- wrong documents
SET ROLE regress_weir_admin;
SELECT weir.create_pipeline('bad', '{"stages": []}');
SELECT weir.create_pipeline('bad', '{"stages": {}}');
SELECT weir.create_pipeline('bad', '{"stages": [], "tasks": []}');
SELECT weir.create_pipeline('bad', '{"job_id": [], "stages": [{"id": 1, "type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S"}], "schedule": "daily"}');
SELECT weir.create_pipeline('bad', '{"stages": ["S"]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": -1, "type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": "a b", "type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": {}, "type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": 2}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S", "source": 2}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S"}, {"id": 2, "type": "S"}, {"id": "1", "type": "S"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S"}, {"id": 2, "type": "Train", "source": "x", "destination": "y"}]}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S"}, {"id": 2, "type": "Data"}]}');
SELECT weir.set_stage_mapping('Later', NULL, NULL, 'sql', spec => '{"sql": "SELECT {{params.x}}"}');
SELECT weir.create_pipeline('bad', '{"stages": [{"id": 1, "type": "S"}, {"id": 2, "type": "Later"}]}');
SELECT weir.create_pipeline('job_later', '{"stages": [{"id": 1, "type": "Later"}], "parameters": {"x": {"type": "text"}}}');

-- wrong mappings
SELECT weir.set_stage_mapping(NULL, NULL, NULL, 'noop');
SELECT weir.set_stage_mapping('', NULL, NULL, 'noop');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'nop');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'noop', phase => 'load');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'noop', 'job_http');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'http');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'http', 'nowhere', spec => '{"method": "GET", "path": "/"}');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'databricks_job', 'job_http', spec => '{"job_id": 1}');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'noop', spec => '[]');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'sql', spec => '{"sql": "SELECT ''{{stage.x}}''"}');
SELECT weir.set_stage_mapping('M', NULL, NULL, 'http', 'job_http', spec => '{"method": "GET", "path": "/{{stage"}');
SELECT weir.drop_stage_mapping('M');
SELECT weir.drop_stage_mapping('S', 's', 'x');
SET ROLE regress_weir_reader;
SELECT weir.set_stage_mapping('M', NULL, NULL, 'noop');
RESET ROLE;

SELECT count(weir.drop_pipeline(name)) AS dropped FROM (SELECT name FROM weir.pipeline WHERE name LIKE 'job_%' ORDER BY name) AS p;
SELECT count(weir.drop_stage_mapping(stage_type, source, destination)) AS dropped FROM (SELECT * FROM weir.stage_mapping) AS m;
SELECT weir.drop_connection('job_http');
SELECT count(*) FROM weir.pipeline;
DROP ROLE regress_weir_admin, regress_weir_reader;
