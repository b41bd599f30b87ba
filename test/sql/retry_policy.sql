-- What a definition may say of retries, time and the way SQL runs; what it
-- may not is refused with its place.
SET client_min_messages = warning;
CREATE ROLE retry_loader LOGIN IN ROLE weir_admin;
CREATE ROLE retry_stage;
CREATE ROLE retry_secret;
GRANT retry_stage TO retry_loader;
RESET client_min_messages;

-- retries
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"backoff": "quadratic"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"on": {}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"on": {"sqlstates": ["08"]}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"on": {"sqlstate": ["08", "4"]}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "retry": {"on": {"http": [429, "teapot"]}}}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "retry": {"on": {"failure": "user"}}}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "task_timeout": 0}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "task_timeout": "1 hour"}');

-- a task inherits what it does not say itself from the pipeline, then from its connection
SELECT weir.create_connection('retry_api', 'http', 'http://127.0.0.1:1', '{}', '{"retry": {"max_attempts": 4, "backoff": "linear", "on": {"http": [418]}}}');
SELECT weir.create_connection('retry_bad', 'http', 'http://127.0.0.1:1', '{}', '{"retry": {"attempts": 4}}');
SELECT weir.create_connection('retry_bad', 'http', 'http://127.0.0.1:1', '{}', '{"retry": 4}');
SELECT weir.create_pipeline('retry_inherits', '{"retry": {"backoff": "fixed", "initial_delay": "10 minutes"}, "tasks": [
	{"name": "all", "kind": "http", "connection": "retry_api", "spec": {"path": "/"}},
	{"name": "own", "kind": "http", "connection": "retry_api", "spec": {"path": "/"}, "task_timeout": "2 hours",
	 "retry": {"max_attempts": 2, "on": {"failure": "any"}}},
	{"name": "other", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}');
SELECT t.name, t.max_attempts, t.retry_initial_ms, t.retry_max_ms, t.retry_backoff, t.retry_on, t.task_timeout
FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'retry_inherits' ORDER BY t.task_no;
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "retry_api", "spec": {"path": "/"}, "retry": {"max_delay": "1 second"}}]}');

-- SQL tasks
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": ["work_mem"]}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"role": "postgres"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"Session_Authorization": "postgres"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"statement_timeout": "1s"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"work_mem; DROP": "1"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"work_memory": "1GB"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"work_mem": "much"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "set": {"work_mem": "{{params.none}}"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "statement_timeout": "soon 1"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "max_rows": 1001}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "transaction": "none"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "transaction": "own"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "CALL p(); CALL p()", "transaction": "own"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "CALL p()", "transaction": "own", "role": "retry_stage"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "role": "{{params.who}}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "role": "retry_nobody"}}]}');
SET SESSION AUTHORIZATION retry_loader;
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "role": "retry_secret"}}]}');
SELECT weir.create_pipeline('retry_role', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1", "role": "retry_stage",
	"set": {"work_mem": "1GB", "search_path": "public", "my.own": "{{run.id}}"}, "statement_timeout": "15 minutes", "max_rows": 0}}]}');
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM weir.pipeline WHERE name = 'bad';
