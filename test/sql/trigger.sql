-- weir.trigger, cancel, repair, wait and why as the client sees them.  The
-- pipelines are paused, so that runs stay queued whether or not a conductor
-- works here; what would make it act is rolled back.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_trigger_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_trigger_operator LOGIN IN ROLE weir_operator;
CREATE ROLE regress_trigger_reader LOGIN IN ROLE weir_reader;
CREATE ROLE regress_trigger_owner LOGIN;
CREATE ROLE regress_trigger_nobody LOGIN;
SELECT setval('weir.run_id_seq', 7600000) > 0 AS set;

SET ROLE regress_trigger_admin;
SELECT weir.create_pipeline('tr_load', '{
  "parameters": {
    "day": {"type": "date", "required": true},
    "limit": {"type": "bigint", "default": 9007199254740993},
    "note": {"type": "text"}
  },
  "tasks": [
    {"name": "land", "kind": "noop", "phase": "land"},
    {"name": "merge", "kind": "noop", "depends_on": ["land"]},
    {"name": "publish", "kind": "noop", "phase": "publish", "depends_on": ["land", "merge"]}
  ]}');
SELECT weir.create_pipeline('tr_plain', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.pause_pipeline('tr_load'), weir.pause_pipeline('tr_plain');
RESET ROLE;
SELECT weir.alter_pipeline_owner('tr_load', 'regress_trigger_owner');

--
-- trigger
--
SET ROLE regress_trigger_operator;
SELECT weir.trigger('tr_load', '{"day": "2026-07-01"}') AS r1 \gset
SELECT weir.trigger('tr_load', '{"limit": "7", "day": "2026-07-02", "note": null}', '2026-07-02 00:00Z', 'schedule', 'nightly') AS r2 \gset
RESET ROLE;
SELECT run_id, pipeline_name, version, status, is_external, start_status, params, nominal_time > '2026-07-02' AS now,
	trigger_type, trigger_name, triggered_by, owner, queued_at >= nominal_time AS queued, started_at
FROM weir.run ORDER BY run_id;
-- nothing else is decided yet
SELECT count(*) FROM weir.task_run;
SELECT s.last_run_id, s.next_load_status FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'tr_load';
-- a run is pinned to the version it was triggered with
SELECT weir.alter_pipeline('tr_plain', '{"tasks": [{"name": "b", "kind": "noop"}]}');
SELECT weir.trigger('tr_plain', NULL) AS r3, weir.trigger('tr_plain', trigger_type => NULL) AS r4 \gset
SELECT run_id = :r3 AS third, version, params, trigger_type FROM weir.run WHERE pipeline_name = 'tr_plain' ORDER BY run_id;

-- bad input leaves nothing, not even a gap in the ids
SELECT weir.trigger('tr_nowhere');
SELECT weir.trigger(NULL);
SELECT weir.trigger('');
SELECT weir.trigger(repeat('x', 2000));
SELECT weir.trigger('tr_load');
SELECT weir.trigger('tr_load', '{"day": null}');
SELECT weir.trigger('tr_load', '{"day": "2026-02-30"}');
SELECT weir.trigger('tr_load', '{"day": "2026-07-01", "limit": 1.5}');
SELECT weir.trigger('tr_load', '{"day": "2026-07-01", "note": 1}');
SELECT weir.trigger('tr_load', '{"dya": "2026-07-01"}');
SELECT weir.trigger('tr_plain', '{"day": 1}');
SELECT weir.trigger('tr_plain', '[]');
SELECT weir.trigger('tr_plain', '"text"');
SELECT weir.trigger('tr_plain', nominal_time => 'infinity');
SELECT weir.trigger('tr_plain', trigger_type => repeat('x', 261));
SELECT weir.trigger('tr_plain', trigger_name => repeat('x', 261));
SELECT "IsEnabled" FROM weir.set_pipeline_enabled('tr_plain', false) AS s ("PipelineName", "IsEnabled");
SELECT weir.trigger('tr_plain');
SELECT count(*) = 1 AS enabled FROM weir.set_pipeline_enabled('tr_plain', true);
SELECT "ExecutionStatus", "ExecutionID" AS x1 FROM weir.log_execution_start('tr_outside', external_system => 'adf', external_run_id => 'r-1') \gset
SELECT weir.trigger('tr_outside');
SELECT count(*), max(run_id) = :x1 AS no_gap FROM weir.run;

-- a rolled-back trigger leaves nothing
BEGIN;
SELECT weir.trigger('tr_plain') > 0 AS triggered;
SAVEPOINT s;
SELECT weir.trigger('tr_plain') > 0 AS triggered;
ROLLBACK TO s;
SELECT count(*) FROM weir.run WHERE pipeline_name = 'tr_plain';
ROLLBACK;
SELECT count(*) FROM weir.run WHERE pipeline_name = 'tr_plain';
BEGIN READ ONLY;
SELECT weir.trigger('tr_plain');
ROLLBACK;
-- a caller's search_path is of no use against it
BEGIN;
CREATE SCHEMA trap;
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE SQL AS $$ SELECT 'infinity'::timestamptz $$;
SET LOCAL search_path = trap, pg_catalog;
SELECT weir.trigger('tr_plain') AS trapped \gset
SELECT nominal_time < 'infinity' AS finite FROM weir.run WHERE run_id = :trapped;
ROLLBACK;

--
-- who may
--
SET ROLE regress_trigger_reader;
SELECT weir.trigger('tr_plain');
SELECT weir.cancel(:r1);
SELECT weir.repair(:r1);
SELECT weir.wait(:r1, '0');
SELECT count(*) > 0 AS answered FROM weir.why(:r1);
SELECT count(*) > 0 AS answered FROM weir.why('tr_load');
SET ROLE regress_trigger_nobody;
SELECT weir.trigger('tr_plain');
SELECT weir.wait(:r1, '0');
SELECT * FROM weir.why(:r1);
RESET ROLE;
-- EXECUTE alone lets an owner at his own pipelines, and nobody else's
GRANT USAGE ON SCHEMA weir TO regress_trigger_owner, regress_trigger_nobody;
GRANT EXECUTE ON FUNCTION weir.trigger(text, jsonb, timestamptz, text, text, text[], integer), weir.cancel(bigint, text), weir.repair(bigint, jsonb, text[], boolean),
	weir.wait(bigint, interval), weir.why(bigint), weir.why(text) TO regress_trigger_owner, regress_trigger_nobody;
SET ROLE regress_trigger_owner;
BEGIN;
SELECT weir.trigger('tr_load', '{"day": "2026-07-03"}') > 0 AS triggered;
SELECT weir.cancel(:r1, 'mine');
SELECT triggered_by FROM weir.runs WHERE run_id > :x1;
ROLLBACK;
SELECT weir.wait(:r1, '0');
SELECT count(*) > 0 AS answered FROM weir.why(:r1);
SELECT weir.trigger('tr_plain');
SELECT weir.cancel(:r3);
SELECT weir.repair(:r3);
SELECT weir.wait(:r3, '0');
SELECT * FROM weir.why(:r3);
SELECT * FROM weir.why('tr_plain');
SET ROLE regress_trigger_nobody;
SELECT weir.trigger('tr_load', '{"day": "2026-07-03"}');
SELECT weir._conductor_state();
SELECT * FROM weir._why(ARRAY[1], 1);
RESET ROLE;

--
-- cancel
--
BEGIN;
SET LOCAL ROLE regress_trigger_operator;
SELECT weir.cancel(:r1, 'wrong day');
SELECT weir.cancel(:r1, 'again');
SELECT weir.cancel(:r2);
SET LOCAL ROLE NONE;
SELECT run_id = :r1 AS first, action, reason, requested_by FROM weir.request ORDER BY request_id;
SELECT status FROM weir.run WHERE run_id IN (:r1, :r2);
SELECT task, waiting_for, detail, hint FROM weir.why(:r1) WHERE waiting_for <> 'conductor' OR detail LIKE 'cancel%';
SELECT weir.wait(:r1, '0');
ROLLBACK;
SELECT count(*) FROM weir.request;
SELECT weir.cancel(1);
SELECT weir.cancel(NULL);
SELECT weir.cancel(:r1, repeat('x', 1001));
SELECT weir.cancel(:x1);

--
-- repair
--
SELECT weir.repair(1);
SELECT weir.repair(NULL);
SELECT weir.repair(:r1);
SELECT weir.repair(:x1);
BEGIN;
UPDATE weir.run SET status = 'cancelled', ended_at = now() WHERE run_id = :r1;
SELECT weir.cancel(:r1);
SAVEPOINT s;
SELECT weir.repair(:r1);
ROLLBACK TO s;
UPDATE weir.run SET status = 'running', started_at = now() WHERE run_id = :r2;
UPDATE weir.run SET status = 'failed', ended_at = now(), error_message = 'table is full' WHERE run_id = :r2;
UPDATE weir.pipeline_state SET last_run_id = :r2, next_load_status = 'R'
WHERE pipeline_id = (SELECT pipeline_id FROM weir.pipeline WHERE name = 'tr_load');
SELECT task, waiting_for, detail, hint FROM weir.why(:r2);
SELECT weir.repair(:r2) = :r2 AS repaired, weir.repair(:r2) = :r2 AS again;
SELECT run_id = :r2 AS second, action, requested_by = current_user AS requested_by FROM weir.request;
-- it runs again as soon as the conductor sees it, so it can be cancelled, and has not ended
SELECT weir.cancel(:r2);
SAVEPOINT s;
SELECT weir.wait(:r2, '0');
ROLLBACK TO s;
DELETE FROM weir.request;
SELECT weir.wait(:r2, '0'), weir.cancel(:r2);
-- another one started since; or the pipeline is gone, disabled
SAVEPOINT s;
UPDATE weir.pipeline_state SET last_run_id = :r2 + 1
WHERE pipeline_id = (SELECT pipeline_id FROM weir.pipeline WHERE name = 'tr_load');
SELECT weir.repair(:r2);
ROLLBACK TO s;
SELECT count(*) FROM weir.set_pipeline_enabled('tr_load', false);
SELECT weir.repair(:r2);
ROLLBACK TO s;
SELECT weir.drop_pipeline('tr_load');
SELECT weir.repair(:r2);
ROLLBACK TO s;
SELECT weir.drop_pipeline('tr_load');
SELECT task, waiting_for, detail, hint FROM weir.why(:r2);
ROLLBACK;
BEGIN;
UPDATE weir.run SET status = 'running', started_at = now() WHERE run_id = :r2;
UPDATE weir.run SET status = 'succeeded', ended_at = now() WHERE run_id = :r2;
SELECT weir.repair(:r2);
ROLLBACK;

--
-- wait
--
SELECT weir.wait(:r1, '10 milliseconds');
SELECT weir.wait(1);
SELECT weir.wait(NULL);
SELECT weir.wait(:r1, '-1 second');
SELECT weir.wait(:r1, '300000 years');
BEGIN;
SELECT weir.trigger('tr_plain') AS own \gset
SELECT weir.wait(:own);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT weir.trigger('tr_plain') AS own \gset
RELEASE s;
SELECT weir.wait(:own);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT weir.wait(:r1, '0');
ROLLBACK;
SET statement_timeout = '50ms';
SELECT weir.wait(:r1);
RESET statement_timeout;
-- the error left no trace: the next one waits as well as the first
SELECT weir.wait(:r1, '1 millisecond');
SELECT weir.wait(:x1, '0');
SELECT "ExecutionStatus" FROM weir.log_execution_end(:x1);
SELECT weir.wait(:x1);
SELECT weir.cancel(:x1);

--
-- why
--
SELECT * FROM weir.why(1);
SELECT * FROM weir.why(NULL::bigint);
SELECT * FROM weir.why('tr_nowhere');
SELECT run_id, task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why(:r1) WHERE waiting_for <> 'conductor';
SELECT run_id, task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why('tr_load') WHERE waiting_for <> 'conductor';
SELECT run_id, task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why(:x1);
SELECT run_id, task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why('tr_outside');
SELECT "ExecutionID" AS x2 FROM weir.log_execution_start('tr_outside', external_system => 'adf', external_run_id => 'r-2') \gset
SELECT run_id = :x2 AS second, task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why('tr_outside');
-- in the middle of a run
BEGIN;
UPDATE weir.pipeline SET is_paused = false;
UPDATE weir.run SET status = 'running', started_at = now() WHERE run_id = :r1;
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, pending_upstream, attempt_no, not_before, external_run_id, external_url, error_message, started_at)
VALUES (:r1, 1, 'land', 'adf_pipeline', 'land', 'running', 0, 2, NULL, 'adf-77', 'https://adf.example/77', NULL, now()),
	(:r1, 2, 'merge', 'noop', 'transform', 'waiting', 1, 0, NULL, NULL, NULL, NULL, NULL),
	(:r1, 3, 'publish', 'noop', 'publish', 'waiting', 2, 0, NULL, NULL, NULL, NULL, NULL);
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status, external_run_id, started_at)
SELECT task_run_id, 2, run_id, 't', 'started', 'adf-77', now() FROM weir.task_run WHERE task_name = 'land';
SELECT task, waiting_for, detail, since IS NOT NULL AS since, hint FROM weir.why(:r1) WHERE waiting_for <> 'conductor';
SELECT run_id = :r2 AS second, task, waiting_for, detail, hint FROM weir.why(:r2) WHERE waiting_for <> 'conductor';
UPDATE weir.task_run SET status = 'succeeded' WHERE task_name = 'land';
SET LOCAL timezone = 'UTC';
UPDATE weir.task_run SET status = 'ready', attempt_no = 1, not_before = '2999-01-01 00:00Z', error_message = 'deadlock detected' WHERE task_name = 'merge';
SELECT task, waiting_for, detail, hint FROM weir.why(:r1) WHERE waiting_for <> 'conductor';
UPDATE weir.task_run SET not_before = '2000-01-01 00:00Z' WHERE task_name = 'merge';
SELECT task, waiting_for, detail, hint FROM weir.why(:r1) WHERE task = 'merge';
UPDATE weir.run SET status = 'cancelling', cancel_reason = 'no longer needed' WHERE run_id = :r1;
SELECT task, waiting_for, detail, hint FROM weir.why(:r1) WHERE waiting_for <> 'conductor';
SELECT weir.cancel(:r1), count(*) FROM weir.request;
ROLLBACK;
-- the conductor's own state is one of three words
SELECT weir._conductor_state() IN ('running', 'not running', 'not preloaded') AS known;

DELETE FROM weir.run;
SELECT weir.drop_pipeline('tr_load'), weir.drop_pipeline('tr_plain'), weir.drop_pipeline('tr_outside');
DROP OWNED BY regress_trigger_owner, regress_trigger_nobody;
DROP ROLE regress_trigger_admin, regress_trigger_operator, regress_trigger_reader, regress_trigger_owner, regress_trigger_nobody;
