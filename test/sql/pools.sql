-- Pools and limits: definitions, who may, what is refused, what why says.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_other LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_reader LOGIN IN ROLE weir_reader;
CREATE ROLE regress_weir_nobody LOGIN;

SET ROLE regress_weir_admin;
SELECT weir.create_pool('etl', 3, 'of the warehouse');
SELECT weir.create_pool('none', 0);
SELECT weir.create_pool('etl', 5);
SELECT weir.create_pool(NULL, 5);
SELECT weir.create_pool('a b', 5);
SELECT weir.create_pool('', 5);
SELECT weir.create_pool(repeat('a', 64), 5);
SELECT weir.create_pool('x', NULL);
SELECT weir.create_pool('x', -1);
SELECT weir.create_pool('x', 100001);
SELECT weir.create_pool('x', 1, repeat('x', 10001));
SELECT weir.alter_pool('nowhere', 5);
SELECT weir.alter_pool('etl', -1);
SELECT weir.alter_pool('etl', new_owner => 'nowhere');
SELECT weir.alter_pool('etl', new_owner => 'regress_weir_other');
SELECT weir.drop_pool('nowhere');
SELECT name, slots, used, running, waiting, description, owner FROM weir.pools;
SELECT weir.alter_pool('etl', 4);
SELECT weir.alter_pool('etl', description => 'of the new warehouse');
SELECT name, slots, description FROM weir.pools WHERE name = 'etl';

-- others
SET ROLE regress_weir_other;
SELECT weir.alter_pool('etl', 5);
SELECT weir.drop_pool('etl');
SET ROLE regress_weir_reader;
SELECT count(*) FROM weir.pools;
SELECT weir.create_pool('x', 1);
SELECT * FROM weir.pool;
SET ROLE regress_weir_nobody;
SELECT count(*) FROM weir.pools;
SELECT weir.drop_pool('etl');
RESET ROLE;
SELECT weir.alter_pool('etl', new_owner => 'regress_weir_other');
SELECT weir.alter_pool('etl', new_owner => 'regress_weir_admin');
SET ROLE regress_weir_admin;

-- tasks
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": "nowhere", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": "etl", "pool_slots": 5, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": "etl", "pool_slots": 0, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": "etl", "pool_slots": "1", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool_slots": 1, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": 1, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "noop", "pool": "etl"}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "pipeline", "pool": "etl", "spec": {"pipeline": "q"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "if", "pool": "etl", "spec": {"left": 1, "op": "==", "right": 1}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "for_each", "pool": "etl", "spec": {"items": [1], "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "for_each", "pool": "etl", "spec": {"items": [1], "task": {"kind": "pipeline", "spec": {"pipeline": "q"}}}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "priority": 1001, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "priority": "high", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "pool": "none", "pool_slots": 2, "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('stopped', '{"tasks": [{"name": "a", "kind": "sql", "pool": "none", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('p', '{"priority": 10, "tasks": [{"name": "a", "kind": "sql", "pool": "etl", "pool_slots": 4, "priority": -7, "spec": {"sql": "SELECT 1"}}, {"name": "b", "kind": "noop"}]}');
RESET ROLE;
SELECT t.name, pool, pool_slots, t.priority FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'p' ORDER BY task_no;
SET ROLE regress_weir_admin;
SELECT weir.drop_pool('etl');
-- a pool may shrink below what a task needs, and may be dropped when only old versions name it
SELECT weir.alter_pool('etl', 2);
SELECT weir.alter_pipeline('p', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.drop_pool('etl');
SELECT name FROM weir.pools ORDER BY name;

-- limits of connections
SELECT weir.create_connection('c', 'http', 'https://localhost', '{}', '{"max_concurrency": 0}');
SELECT weir.create_connection('c', 'http', 'https://localhost', '{}', '{"max_concurrency": "5"}');
SELECT weir.create_connection('c', 'http', 'https://localhost', '{}', '{"max_concurrency": 1.5}');
SELECT weir.create_connection('c', 'databricks', 'https://localhost', '{}', '{"max_starts_per_minute": 1000001}');
SELECT weir.create_connection('c', 'databricks', 'https://localhost', '{}', '{"max_starts_per_hour": 1}');
SELECT weir.create_connection('c', 'databricks', 'https://localhost', '{}', '{"max_concurrency": 5, "max_starts_per_minute": 100}');
SELECT weir.create_connection('d', 'http', 'https://localhost', '{}', '{"max_concurrency": 2, "max_starts_per_minute": 3}');

-- lanes, and what why says
SELECT weir.create_pool('lake', 3);
SELECT weir.create_pipeline('w', '{"max_concurrent_runs": 9, "tasks": [
	{"name": "a", "kind": "sql", "pool": "lake", "pool_slots": 2, "spec": {"sql": "SELECT 1"}},
	{"name": "b", "kind": "http", "connection": "d", "spec": {"path": "/x"}},
	{"name": "c", "kind": "http", "connection": "d", "pool": "lake", "spec": {"path": "/x"}},
	{"name": "d", "kind": "noop"}]}');
RESET ROLE;
-- (not committed: no conductor shall see them)
BEGIN;
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner)
SELECT n, pipeline_id, name, 1, 'running', 'regress', owner FROM weir.pipeline, generate_series(101, 108) n WHERE name = 'w';
INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status, pool, pool_slots, connection_name, ready_at, priority) VALUES
	(1001, 101, 1, 'a', 'sql', 'land', 'running', 'lake', 2, NULL, now() - interval '3 seconds', 0),
	(1002, 101, 2, 'b', 'http', 'land', 'running', NULL, 1, 'd', now() - interval '3 seconds', 0),
	(1003, 102, 2, 'b', 'http', 'land', 'running', NULL, 1, 'd', now() - interval '3 seconds', 0),
	(1004, 103, 1, 'a', 'sql', 'land', 'ready', 'lake', 2, NULL, now() - interval '2 seconds', 0),
	(1005, 104, 1, 'a', 'sql', 'land', 'ready', 'lake', 2, NULL, now() - interval '3 seconds', 0),
	(1006, 105, 1, 'a', 'sql', 'land', 'ready', 'lake', 4, NULL, now() - interval '1 second', 5),
	(1007, 106, 2, 'b', 'http', 'land', 'ready', NULL, 1, 'd', now() - interval '1 second', 0),
	(1008, 107, 3, 'c', 'http', 'land', 'ready', 'lake', 1, 'd', now() - interval '2 seconds', 0),
	(1009, 107, 4, 'd', 'noop', 'land', 'ready', NULL, 1, NULL, now() - interval '2 seconds', 0),
	(1010, 108, 1, 'a', 'sql', 'land', 'ready', 'gone', 1, NULL, now() - interval '2 seconds', 0);
UPDATE weir.task_run SET attempt_no = 1 WHERE status = 'running';
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status, rated_connection) VALUES
	(1001, 1, 101, 't1', 'started', NULL), (1002, 1, 101, 't2', 'started', 'd'), (1003, 1, 102, 't3', 'intended', 'd');
SELECT task_run_id, lane FROM weir.task_run ORDER BY 1;
SELECT name, slots, used, running, waiting FROM weir.pools WHERE name = 'lake';
SELECT w.run_id, w.task, w.waiting_for, w.detail, w.hint FROM generate_series(103, 108) n CROSS JOIN LATERAL weir.why(n) w WHERE w.task IS NOT NULL ORDER BY 1, 2, 3;
-- below its concurrency, but started too often within the minute
UPDATE weir.attempt SET status = 'succeeded' WHERE task_run_id = 1003;
SELECT w.waiting_for, w.detail FROM weir.why(106) w WHERE w.task IS NOT NULL;
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status, rated_connection) VALUES (1003, 2, 102, 't4', 'succeeded', 'd');
SELECT w.waiting_for, regexp_replace(w.detail, 'at [^;]*;', 'at TIME;') AS detail FROM weir.why(106) w WHERE w.task IS NOT NULL;
-- held by more than five runs
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner)
SELECT n, pipeline_id, name, 1, 'running', 'regress', owner FROM weir.pipeline, generate_series(201, 207) n WHERE name = 'w';
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, pool, ready_at)
SELECT n, 1, 'a', 'sql', 'land', 'running', 'lake', now() - interval '3 seconds' FROM generate_series(201, 207) n;
SELECT w.detail FROM weir.why(103) w WHERE w.waiting_for = 'pool';
SELECT used, slots FROM weir.pools WHERE name = 'lake';
SELECT weir.drop_pool('lake');
ROLLBACK;

SELECT weir.drop_pipeline(name) FROM weir.pipeline ORDER BY name;
SELECT weir.drop_connection(name) FROM weir.connection ORDER BY name;
SELECT weir.drop_pool(name) FROM weir.pool ORDER BY name;
DROP ROLE regress_weir_admin, regress_weir_other, regress_weir_reader, regress_weir_nobody;
