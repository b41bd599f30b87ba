-- weir.plan and weir.progress: what will happen, and how far it is.  No
-- conductor is needed: nothing starts here.

SET client_min_messages = warning;
CREATE ROLE regress_plan_owner LOGIN;
CREATE ROLE regress_plan_operator IN ROLE weir_operator;
CREATE ROLE regress_plan_reader IN ROLE weir_reader;
RESET client_min_messages;

SELECT weir.create_connection('pl_http', 'http', 'https://localhost/api');
SELECT weir.create_pipeline('pl_daily', '{
	"parameters": {"day": {"type": "date", "required": true}, "n": {"type": "bigint", "default": 5}, "mode": {"type": "text", "default": "full"}},
	"max_concurrent_runs": 1, "timeout": "2 hours",
	"tasks": [
		{"name": "copy", "kind": "http", "connection": "pl_http", "phase": "land", "retry": {"max_attempts": 3, "initial_delay": "5 seconds"},
		 "spec": {"method": "POST", "path": "/load/{{params.day}}", "body": {"n": "{{params.n}}", "audit": "{{row_audit_id}}", "run": "run {{run.id}} of {{pipeline.name}}"}}},
		{"name": "check", "kind": "sql", "depends_on": ["copy"], "timeout": "30 seconds",
		 "spec": {"sql": "SELECT {{params.n}} > 3 AS x, {{tasks.copy.status}} AS y -- {{not.a.reference}}\n, {{row_audit_id}} AS z"}},
		{"name": "choose", "kind": "if", "depends_on": ["check"], "spec": {"left": "{{params.mode}}", "op": "==", "right": "full"}},
		{"name": "full", "kind": "noop", "depends_on": [{"task": "choose", "branch": "true"}], "spec": {}},
		{"name": "delta", "kind": "noop", "depends_on": [{"task": "choose", "branch": "false"}], "spec": {}},
		{"name": "pick", "kind": "switch", "depends_on": ["check"], "spec": {"on": "{{tasks.check.output.rows[0].x}}", "cases": ["a", "b"]}},
		{"name": "on_a", "kind": "noop", "depends_on": [{"task": "pick", "branch": "a"}], "spec": {}},
		{"name": "join", "kind": "noop", "depends_on": ["full", "delta", "on_a"], "run_if": "at_least_one_success", "spec": {}},
		{"name": "alarm", "kind": "noop", "depends_on": ["copy", "check"], "run_if": "at_least_one_failed", "spec": {}},
		{"name": "off", "kind": "noop", "enabled": false, "spec": {}},
		{"name": "last", "kind": "noop", "depends_on": ["off", "join"], "phase": "publish", "spec": {}}]}');
SELECT weir.alter_pipeline_owner('pl_daily', 'regress_plan_owner');
SELECT weir.create_pipeline('pl_plain', '{"tasks": [{"name": "only", "kind": "noop", "spec": {}}]}');

-- the start first, then the tasks by wave
SELECT wave, task, kind, phase, action, reason, waits_for, limits, connection, timeout FROM weir.plan('pl_daily', '{"day": "2026-07-01"}');
SELECT task, retry, jsonb_pretty(spec) FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE wave < 3;
-- another parameter, another branch; a selection
SELECT task, action, reason FROM weir.plan('pl_daily', '{"day": "2026-07-01", "mode": "delta"}') WHERE task IN ('choose', 'full', 'delta', 'join');
SELECT task, action, reason, waits_for FROM weir.plan('pl_daily', '{"day": "2026-07-01"}', '{+check}');
SELECT spec->'params' AS params FROM weir.plan('pl_daily', '{"day": "2026-07-01", "n": 7}') WHERE wave = 0;

-- errors are those of a trigger
SELECT * FROM weir.plan('pl_nowhere');
SELECT * FROM weir.plan(NULL);
SELECT * FROM weir.plan('pl_daily');
SELECT * FROM weir.plan('pl_daily', '{"day": "2026-07-01", "m": 1}');
SELECT * FROM weir.plan('pl_daily', '{"day": "tomorrow"}');
SELECT * FROM weir.plan('pl_daily', '[]');
SELECT * FROM weir.plan('pl_daily', '{"day": "2026-07-01"}', '{nowhere}');
SELECT * FROM weir.plan('pl_daily', '{"day": "2026-07-01"}', '{}');
BEGIN;
SELECT count(*) FROM weir.set_pipeline_enabled('pl_plain', false);
SELECT * FROM weir.plan('pl_plain');
ROLLBACK;

-- nothing changed, also where nothing can
BEGIN READ ONLY;
SELECT count(*) FROM weir.plan('pl_daily', '{"day": "2026-07-01"}');
SELECT mode FROM pg_locks WHERE locktype = 'relation' AND relation = 'weir.pipeline'::regclass AND pid = pg_backend_pid();
COMMIT;
SELECT count(*) AS runs, (SELECT last_value FROM weir.run_id_seq) = 1 AND NOT (SELECT is_called FROM weir.run_id_seq) AS no_id_used FROM weir.run;

-- what is known to fail
BEGIN;
SELECT weir.create_pipeline('pl_fails', '{"parameters": {"j": {"type": "json", "default": {"a": 1}}}, "tasks": [
	{"name": "a", "kind": "sql", "spec": {"sql": "SELECT {{params.j.b}}"}},
	{"name": "b", "kind": "noop", "depends_on": ["a"], "spec": {}},
	{"name": "c", "kind": "noop", "depends_on": ["a"], "run_if": "at_least_one_failed", "spec": {}},
	{"name": "d", "kind": "noop", "depends_on": ["b"], "run_if": "all_done", "spec": {}}]}') > 0 AS created;
SELECT task, action, reason FROM weir.plan('pl_fails');
SELECT task, action, reason FROM weir.plan('pl_fails', '{"j": {"b": 2}}');
ROLLBACK;

-- the state of the pipeline decides
CREATE FUNCTION pg_temp.state(text) RETURNS void LANGUAGE sql AS
	$$UPDATE weir.pipeline_state s SET next_load_status = $1::"char", origin_row_audit_id = CASE $1 WHEN 'D' THEN 41 END, last_run_id = 42
	  FROM weir.pipeline p WHERE p.pipeline_id = s.pipeline_id AND p.name = 'pl_daily'$$;
BEGIN;
SELECT pg_temp.state('R');
SELECT task, action, reason FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE wave = 0;
SELECT pg_temp.state('D');
SELECT task, action, reason, waits_for, spec->'row_audit_id' AS row_audit_id, spec->'values' AS values, spec->'body' AS body
FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE wave < 3;
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, output, external_run_id)
VALUES (42, 1, 'copy', 'http', 'land', 'succeeded', '{"rowsCopied": 3}', NULL), (42, 2, 'check', 'sql', 'transform', 'failed', NULL, 'x-1');
SELECT task, action, reason, spec->'values' AS values FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE task IN ('copy', 'check', 'alarm');
SELECT pg_temp.state('C');
SELECT task, action, reason, waits_for FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE wave < 2;
SELECT pg_temp.state('P');
UPDATE weir.pipeline_state SET skip_once = true;
SELECT action, reason FROM weir.plan('pl_daily', '{"day": "2026-07-01"}') WHERE wave = 0;
ROLLBACK;

-- and so does what is queued and running
BEGIN;
SELECT weir.pause_pipeline('pl_plain');
SELECT action, reason FROM weir.plan('pl_plain') WHERE wave = 0;
SELECT weir.trigger('pl_plain') AS first, weir.trigger('pl_plain') AS second \gset
SELECT weir.resume_pipeline('pl_plain');
SELECT action, reason, spec FROM weir.plan('pl_plain') WHERE wave = 0;
UPDATE weir.run SET status = 'running', started_at = now() WHERE run_id = :first;
SELECT action, regexp_replace(reason, '\d+ has', 'N has') AS reason FROM weir.plan('pl_plain') WHERE wave = 0;
SELECT weir.alter_pipeline('pl_plain', '{"on_overlap": "skip", "tasks": [{"name": "only", "kind": "noop", "spec": {}}]}');
SELECT action, regexp_replace(reason, '\d+ has', 'N has') AS reason FROM weir.plan('pl_plain');
SELECT weir.alter_pipeline('pl_plain', '{"on_overlap": "cancel_older", "tasks": [{"name": "only", "kind": "noop", "spec": {}}]}');
SELECT action, regexp_replace(reason, '\d+, \d+', 'N, M') AS reason FROM weir.plan('pl_plain');
ROLLBACK;

-- progress
SELECT * FROM weir.progress(1);
SELECT * FROM weir.progress(NULL);
BEGIN;
SELECT weir.pause_pipeline('pl_daily');
SELECT weir.trigger('pl_daily', '{"day": "2026-07-01"}') AS r \gset
SELECT pipeline, status, tasks, ended, by_status, percent, elapsed, expected_end, slowest_task, slowest_elapsed FROM weir.progress(:r);
UPDATE weir.run SET status = 'running', started_at = clock_timestamp() - interval '10 seconds' WHERE run_id = :r;
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, pending_upstream, started_at)
VALUES (:r, 1, 'copy', 'http', 'land', 'succeeded', 0, now()), (:r, 2, 'check', 'sql', 'transform', 'running', 0, clock_timestamp() - interval '4 seconds'),
	(:r, 3, 'choose', 'if', 'transform', 'waiting', 1, NULL);
SELECT pipeline, status, tasks, ended, by_status, percent, elapsed > '9 s' AS elapsed, expected_end, slowest_task, slowest_elapsed > '3 s' AS slowest FROM weir.progress(:r);
-- three successful runs: check took 10, 20 and 60 seconds, choose 5
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner, started_at, ended_at)
SELECT -n, pipeline_id, name, 1, 'succeeded', 'x', owner, now(), now() FROM weir.pipeline, generate_series(1, 3) n WHERE name = 'pl_daily';
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, started_at, ended_at)
SELECT -n, t, name, 'noop', 'transform', 'succeeded', now(), now() + make_interval(secs => s[n])
FROM generate_series(1, 3) n, (VALUES (1, 'copy', ARRAY[1, 1, 1]), (2, 'check', ARRAY[60, 10, 20]), (3, 'choose', ARRAY[5, 5, 5])) x (t, name, s);
SELECT round(extract(epoch FROM expected_end - clock_timestamp())) BETWEEN 19 AND 21 AS sixteen_and_five FROM weir.progress(:r);
SELECT task, waiting_for, round(extract(epoch FROM expected_start - clock_timestamp())) BETWEEN 14 AND 16 AS after_sixteen FROM weir.why(:r) WHERE task = 'choose';
-- a task nothing is known of makes the end unknown
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, pending_upstream) VALUES (:r, 4, 'full', 'noop', 'transform', 'waiting', 1);
SELECT expected_end FROM weir.progress(:r);
DELETE FROM weir.task_run WHERE run_id = :r AND task_no = 4;
-- a retry is exact; a queued run starts when the one before it ends
UPDATE weir.task_run SET status = 'succeeded', ended_at = now() WHERE run_id = :r AND task_no = 2;
UPDATE weir.task_run SET status = 'ready', not_before = now() + interval '1 hour' WHERE run_id = :r AND task_no = 3;
SELECT task, waiting_for, expected_start = now() + interval '1 hour' AS exact FROM weir.why(:r) WHERE task = 'choose';
SELECT expected_end = now() + interval '1 hour 5 seconds' AS exact FROM weir.progress(:r);
SELECT weir.trigger('pl_daily', '{"day": "2026-07-02"}') AS r2 \gset
SELECT waiting_for, expected_start FROM weir.why(:r2) WHERE waiting_for <> 'conductor';
SELECT weir.resume_pipeline('pl_daily');
SELECT waiting_for, expected_start = now() + interval '1 hour 5 seconds' AS behind FROM weir.why(:r2) WHERE waiting_for <> 'conductor';
UPDATE weir.task_run SET status = 'cancelled', ended_at = now() WHERE run_id = :r AND task_no = 3;
UPDATE weir.run SET status = 'failed', ended_at = now() WHERE run_id = :r;
SELECT status, percent, elapsed > '9 s' AS elapsed, expected_end, slowest_task FROM weir.progress(:r);
ROLLBACK;

-- simulate: choices are made, engines answered, nothing remains
SELECT task, kind, status, attempts, output, error FROM weir.simulate('pl_daily', '{"day": "2026-07-01", "n": 4}', '{
	"copy": {"status": "succeeded", "output": {"rowsCopied": 9}}, "pick": {"output": {"branch": "a"}}}');
SELECT task, status, error, request FROM weir.simulate('pl_daily', '{"day": "2026-07-01"}', '{"copy": {"status": "failed", "error": "no such table"}}');
CREATE TABLE public.pl_did (n bigint PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
SELECT weir.create_pipeline('pl_sql', '{"parameters": {"n": {"type": "bigint"}}, "tasks": [
	{"name": "one", "kind": "sql", "spec": {"sql": "INSERT INTO public.pl_did VALUES ({{params.n}}) RETURNING n"}},
	{"name": "two", "kind": "sql", "depends_on": ["one"], "spec": {"sql": "SELECT count(*), {{tasks.one.output.rowsWritten}} AS w FROM public.pl_did"}},
	{"name": "three", "kind": "sql", "depends_on": ["two"], "retry": {"max_attempts": 2}, "spec": {"sql": "SELECT 1 / (SELECT count(*) - 1 FROM public.pl_did)"}}]}') > 0 AS created;
SELECT task, status, attempts, output, error FROM weir.simulate('pl_sql', '{"n": 1}');
BEGIN;
INSERT INTO public.pl_did VALUES (1);
SELECT task, status, output, error FROM weir.simulate('pl_sql', '{"n": 2}');
SELECT task, status, error FROM weir.simulate('pl_sql', '{"n": 1}') WHERE task = 'one';
INSERT INTO public.pl_did VALUES (1);
SAVEPOINT s;
SELECT task, status FROM weir.simulate('pl_sql', '{"n": 2}');
ROLLBACK TO s;
DELETE FROM public.pl_did;
COMMIT;
SELECT (SELECT count(*) FROM weir.run) AS runs, (SELECT count(*) FROM weir.task_run) AS task_runs, (SELECT count(*) FROM weir.attempt) AS attempts,
	(SELECT count(*) FROM weir.error) AS errors, (SELECT count(*) FROM public.pl_did) AS did,
	(SELECT string_agg(DISTINCT next_load_status::text, '') FROM weir.pipeline_state) AS next;
-- items of a for_each
SELECT weir.create_pipeline('pl_each', '{"parameters": {"n": {"type": "bigint", "default": 2}}, "tasks": [
	{"name": "list", "kind": "for_each", "spec": {"items": {"sql": "SELECT g AS i FROM generate_series(1, {{params.n}}) g"}, "concurrency": 2,
		"task": {"kind": "sql", "spec": {"sql": "SELECT {{item.i}} * {{params.n}} AS x"}}}},
	{"name": "each", "kind": "for_each", "depends_on": ["list"], "spec": {"items": ["a", "{{params.n}}"], "task": {"kind": "noop", "spec": {}}}}]}') AS version;
SELECT task, action, waits_for, limits, spec FROM weir.plan('pl_each') WHERE wave > 0;
SELECT task, kind, status, output FROM weir.simulate('pl_each');
SELECT task, status, error FROM weir.simulate('pl_each', '{"n": 3}', '{"list[]": {"output": {"x": 0}}, "list[2]": {"status": "failed", "error": "no"}}');
-- bad results are refused
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '{"four": {}}');
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '{"one": 1}');
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '{"one": {"status": "fine"}}');
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '{"one": {"stats": "failed"}}');
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '{"one": {"rows_read": -1}}');
SELECT * FROM weir.simulate('pl_sql', '{"n": 1}', '[]');
SELECT * FROM weir.simulate('pl_sql', '{}');
SET statement_timeout = '200ms';
SELECT weir.alter_pipeline('pl_sql', '{"tasks": [{"name": "one", "kind": "sql", "spec": {"sql": "SELECT pg_sleep(100)"}}]}');
SELECT * FROM weir.simulate('pl_sql');
RESET statement_timeout;
SELECT weir.alter_pipeline('pl_sql', '{"tasks": [{"name": "one", "kind": "sql", "spec": {"sql": "SELECT set_config(''work_mem'', ''77kB'', false)"}}]}');
SELECT task, status, error FROM weir.simulate('pl_sql');
SELECT current_setting('work_mem') <> '77kB' AS mine;
SELECT current_user = session_user AS still_me;

-- watch
CALL weir.watch(1);
CALL weir.watch(NULL);
BEGIN;
CALL weir.watch(1);
ROLLBACK;

-- who may
SET ROLE regress_plan_reader;
SELECT * FROM weir.plan('pl_plain');
SELECT * FROM weir.simulate('pl_plain');
SELECT * FROM weir.progress(1);
SET ROLE regress_plan_operator;
SELECT count(*) FROM weir.plan('pl_daily', '{"day": "2026-07-01"}');
SELECT * FROM weir.simulate('pl_daily', '{"day": "2026-07-01"}');
RESET ROLE;
GRANT USAGE ON SCHEMA weir TO regress_plan_owner;
GRANT EXECUTE ON FUNCTION weir.plan(text, jsonb, text[]), weir.simulate(text, jsonb, jsonb), weir.progress(bigint) TO regress_plan_owner;
SET ROLE regress_plan_owner;
SELECT count(*) FROM weir.plan('pl_daily', '{"day": "2026-07-01"}');
SELECT count(*) FROM weir.simulate('pl_daily', '{"day": "2026-07-01"}', '{"pick": {"output": {"branch": "a"}}}') WHERE status = 'succeeded';
SELECT * FROM weir.plan('pl_plain');
SELECT * FROM weir.simulate('pl_plain');
RESET ROLE;

SHOW weir.notify;

SELECT weir.drop_pipeline('pl_daily'), weir.drop_pipeline('pl_plain'), weir.drop_pipeline('pl_sql'), weir.drop_pipeline('pl_each');
SELECT weir.drop_connection('pl_http');
DROP TABLE public.pl_did;
DROP OWNED BY regress_plan_owner;
DROP ROLE regress_plan_owner, regress_plan_operator, regress_plan_reader;
