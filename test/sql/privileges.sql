-- Who may do what: the three roles, an owner, and somebody with no rights.
-- The matrices list everything there is, so that a new function or view shows
-- up here and its place is a decision.
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset format unaligned
CREATE ROLE regress_priv_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_priv_operator LOGIN IN ROLE weir_operator;
CREATE ROLE regress_priv_reader LOGIN IN ROLE weir_reader;
CREATE ROLE regress_priv_owner LOGIN;
CREATE ROLE regress_priv_team LOGIN IN ROLE regress_priv_owner;
CREATE ROLE regress_priv_nobody LOGIN;

-- Functions and procedures
SELECT p.oid::regprocedure AS function,
	concat_ws(' ', CASE WHEN has_function_privilege('regress_priv_reader', p.oid, 'EXECUTE') THEN 'reader' END,
		CASE WHEN has_function_privilege('regress_priv_operator', p.oid, 'EXECUTE') THEN 'operator' END,
		CASE WHEN has_function_privilege('regress_priv_admin', p.oid, 'EXECUTE') THEN 'admin' END,
		CASE WHEN has_function_privilege('regress_priv_nobody', p.oid, 'EXECUTE') THEN 'everybody' END) AS may_be_called_by
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'weir'
ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- Tables and sequences are nobody's; views are read
SELECT c.relkind, c.oid::regclass AS relation,
	concat_ws(' ', CASE WHEN has_table_privilege('regress_priv_reader', c.oid, 'SELECT') THEN 'reader' END,
		CASE WHEN has_table_privilege('regress_priv_operator', c.oid, 'SELECT') THEN 'operator' END,
		CASE WHEN has_table_privilege('regress_priv_admin', c.oid, 'SELECT') THEN 'admin' END,
		CASE WHEN has_table_privilege('regress_priv_nobody', c.oid, 'SELECT') THEN 'everybody' END) AS may_be_read_by,
	has_table_privilege('regress_priv_admin', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS admin_may_write
FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'weir'
WHERE c.relkind IN ('r', 'v', 'm', 'p') AND (c.relkind <> 'r' OR has_table_privilege('regress_priv_admin', c.oid, 'SELECT')
	OR has_table_privilege('regress_priv_admin', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_table_privilege('regress_priv_nobody', c.oid, 'SELECT'))
ORDER BY c.relkind, c.oid::regclass::text COLLATE "C";

-- Rows: who sees which runs.  Paused: the runs stay where they are.
SELECT setval('weir.run_id_seq', 7700000) > 0 AS set, setval('weir.task_run_id_seq', 7700000) > 0 AS set_too;
SET ROLE regress_priv_admin;
SELECT weir.create_pipeline('pr_mine', '{"tasks": [{"name": "a", "kind": "noop"}]}'), weir.create_pipeline('pr_theirs', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.pause_pipeline('pr_mine'), weir.pause_pipeline('pr_theirs');
RESET ROLE;
SELECT weir.alter_pipeline_owner('pr_mine', 'regress_priv_owner');
SET ROLE regress_priv_operator;
SELECT weir.trigger('pr_mine') AS mine, weir.trigger('pr_theirs') AS theirs \gset
RESET ROLE;
INSERT INTO weir.error (run_id, message) VALUES (:mine, 'of mine'), (:theirs, 'of theirs');
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status) VALUES (:mine, 1, 'a', 'noop', 'land', 'waiting'), (:theirs, 1, 'a', 'noop', 'land', 'waiting');
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status) SELECT task_run_id, 1, run_id, 'token of run ' || run_id, 'succeeded' FROM weir.task_run;
INSERT INTO weir.activity (run_id, activity, phase, status) VALUES (:mine, 'copy', 'land', 'succeeded'), (:theirs, 'copy', 'land', 'succeeded');
INSERT INTO weir.row_count (run_id, component, object_name, count_type, row_count) VALUES (:mine, 'copy', 'x', 'Insert', 1), (:theirs, 'copy', 'x', 'Insert', 1);
INSERT INTO weir.config_variable (system_name, variable_name, type, value, run_id, changed_by)
VALUES ('pr', 'of mine', 'text', 'known', :mine, 'x'), ('pr', 'of theirs', 'text', 'hidden', :theirs, 'x'), ('pr', 'of nobody', 'text', 'hidden', NULL, 'x');
INSERT INTO weir.landing (row_audit_id, pipeline_id, run_id, params) SELECT run_id, pipeline_id, run_id, '{}' FROM weir.run;
INSERT INTO weir.backfill (backfill_id, pipeline_id, pipeline_name, window_from, window_to, step, concurrency, created_by)
SELECT -run_id, pipeline_id, pipeline_name, '2026-01-01', '2026-01-02', '1 day', 1, 'x' FROM weir.run;
GRANT USAGE ON SCHEMA weir TO regress_priv_owner, regress_priv_nobody;
CREATE VIEW rows_seen WITH (security_invoker = true) AS
SELECT 'runs' AS relation, pipeline_name AS pipeline FROM weir.runs
	UNION ALL SELECT 'task_runs', pipeline_name FROM weir.task_runs
	UNION ALL SELECT 'attempts', pipeline_name FROM weir.attempts
	UNION ALL SELECT 'errors', pipeline_name FROM weir.errors
	UNION ALL SELECT 'activities', pipeline_name FROM weir.activities
	UNION ALL SELECT 'row_counts', pipeline_name FROM weir.row_counts
	UNION ALL SELECT 'config_variables', coalesce(pipeline_name, '(none)') FROM weir.config_variables
	UNION ALL SELECT 'pipelines', name FROM weir.pipelines
	UNION ALL SELECT 'backfills', pipeline_name FROM weir.backfills
	UNION ALL SELECT 'landings', pipeline_name FROM weir.landings;
-- of which pipelines there are rows, and in which views
CREATE VIEW seen WITH (security_invoker = true) AS
SELECT pipelines, string_agg(relation, ' ' ORDER BY relation) AS in_views
FROM (SELECT relation, string_agg(pipeline, ' ' ORDER BY pipeline) AS pipelines FROM rows_seen GROUP BY relation) r GROUP BY pipelines ORDER BY pipelines DESC;
GRANT SELECT ON seen, rows_seen TO PUBLIC;
-- what else everybody may read has tests of its own: catalog_views and pools
SELECT c.oid::regclass AS not_here FROM pg_class c WHERE c.relnamespace = 'weir'::regnamespace AND c.relkind = 'v' AND has_table_privilege('regress_priv_nobody', c.oid, 'SELECT')
	AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
		WHERE w.ev_class = 'rows_seen'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
ORDER BY c.relname COLLATE "C";
GRANT USAGE ON SCHEMA public TO PUBLIC;
SET ROLE regress_priv_reader;
SELECT * FROM seen;
SET ROLE regress_priv_operator;
SELECT * FROM seen;
SET ROLE regress_priv_owner;
SELECT * FROM seen;
SET ROLE regress_priv_team;
SELECT * FROM seen;
SET ROLE regress_priv_nobody;
SELECT * FROM seen;
-- a function of the caller's does not see rows the view hides
CREATE FUNCTION pg_temp.tell(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'sees %', $1; RETURN true; END $$;
SELECT count(*) FROM weir.runs WHERE pg_temp.tell(pipeline_name);
RESET ROLE;
-- what the views ask about a pipeline, asked directly: an answer about the caller, and nothing to guess by
UPDATE weir.pipeline SET project = 'lake of ' || name;
SELECT pipeline_id AS theirs_id FROM weir.pipeline WHERE name = 'pr_theirs' \gset
SELECT pipeline_id AS mine_id FROM weir.pipeline WHERE name = 'pr_mine' \gset
SET ROLE regress_priv_reader;
SELECT pipeline_name, project FROM weir.runs ORDER BY run_id;
SET ROLE regress_priv_team;
SELECT pipeline_name, project FROM weir.runs ORDER BY run_id;
SELECT weir._project(:mine_id) AS mine, weir._project(:theirs_id) AS theirs,
	weir._may_see(:mine_id, 'regress_priv_admin') AS see_mine, weir._may_see(:theirs_id, 'regress_priv_team') AS see_theirs,
	weir._may_see(0, 'regress_priv_owner') AS see_dropped_mine, weir._may_see(0, 'regress_priv_admin') AS see_dropped_theirs;
RESET ROLE;

-- Defining and changing
SET ROLE regress_priv_reader;
SELECT weir.create_pipeline('pr_x', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.pause_pipeline('pr_mine');
SELECT weir.backfill('pr_mine', '2026-01-01', '2026-01-02', '1 day');
SELECT weir.rerun_from(:mine, 'a');
SET ROLE regress_priv_operator;
SELECT weir.create_pipeline('pr_x', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.alter_pipeline('pr_mine', '{"tasks": [{"name": "b", "kind": "noop"}]}');
SELECT weir.drop_pipeline('pr_mine');
SELECT weir.alter_pipeline_owner('pr_mine', 'regress_priv_operator');
SELECT weir.create_secret('pr_secret', 'value');
SELECT weir.create_connection('pr_connection', 'http', 'https://example.com', '{"type": "none"}');
-- an admin is not the owner of everything: SQL tasks would run as somebody else
SET ROLE regress_priv_admin;
SELECT weir.alter_pipeline('pr_mine', '{"tasks": [{"name": "b", "kind": "noop"}]}');
SELECT weir.drop_pipeline('pr_mine');
SELECT weir.alter_pipeline_owner('pr_theirs', 'regress_priv_owner');
-- restarting takes the right to trigger, of whoever does it
SET ROLE regress_priv_nobody;
SELECT weir.restart(:mine);
RESET ROLE;
SELECT count(*) AS requests FROM weir.request;

-- the right to call a function, given away, is not a right to what it does: somebody else's
-- pipelines, runs, backfills and connections stay theirs, and what is an operator's or admin's remains so
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA weir TO regress_priv_owner;
UPDATE weir.task_run SET status = 'ready' WHERE run_id IN (:mine, :theirs);
UPDATE weir.run SET status = 'running', started_at = now() WHERE run_id IN (:mine, :theirs);
UPDATE weir.task_run SET status = 'running', attempt_no = 1, started_at = now() WHERE run_id IN (:mine, :theirs);
UPDATE weir.task_run SET status = 'failed', ended_at = now() WHERE run_id IN (:mine, :theirs);
UPDATE weir.run SET status = 'failed', ended_at = now() WHERE run_id IN (:mine, :theirs);
SELECT max(task_run_id) FILTER (WHERE run_id = :mine) AS task_of_mine, max(task_run_id) FILTER (WHERE run_id = :theirs) AS task_of_theirs FROM weir.task_run \gset
SET ROLE regress_priv_admin;
SELECT weir.create_connection('pr_connection', 'http', 'http://127.0.0.1:1', '{"type": "none"}');
SELECT weir.create_secret('pr_secret', 'value'), weir.create_pool('pr_pool', 1), weir.set_stage_mapping('pr', NULL, NULL, 'noop');
SELECT weir.backfill('pr_theirs', '2026-01-01', '2026-01-03', '1 day') AS backfill_of_theirs, weir.backfill('pr_mine', '2026-01-01', '2026-01-02', '1 day') AS backfill_of_mine \gset
RESET ROLE;
SELECT max(run_id) AS queued FROM weir.run WHERE pipeline_name = 'pr_theirs' \gset
INSERT INTO weir.circuit (connection_name, opened_at, retry_at, failures, last_error) VALUES ('pr_connection', now(), 'infinity', 5, 'away');
CREATE VIEW everything AS SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) AS rows FROM (
	SELECT r::text FROM weir.run r UNION ALL SELECT r::text FROM weir.task_run r UNION ALL SELECT r::text FROM weir.request r
	UNION ALL SELECT r::text FROM weir.backfill r UNION ALL SELECT r::text FROM weir.circuit r UNION ALL SELECT r::text FROM weir.pipeline r
	UNION ALL SELECT r::text FROM weir.secret r UNION ALL SELECT r::text FROM weir.pool r UNION ALL SELECT r::text FROM weir.stage_mapping r
	UNION ALL SELECT r::text FROM weir.connection r UNION ALL SELECT r::text FROM weir.run_signal r) t;
SELECT rows AS before FROM everything \gset
SET ROLE regress_priv_team;
SELECT weir.trigger('pr_theirs');
SELECT weir.restart(:theirs);
SELECT weir.repair(:theirs);
SELECT weir.rerun_from(:theirs, 'a');
SELECT weir.cancel(:queued);
SELECT weir.backfill('pr_theirs', '2026-01-01', '2026-01-02', '1 day');
SELECT weir.adopt(:task_of_theirs, '42');
SELECT weir.resolve(:task_of_theirs, 'succeeded');
SELECT weir.cancel_backfill(:backfill_of_theirs);
SELECT weir.resume_connection('pr_connection');
SELECT weir.pause_pipeline('pr_theirs');
SELECT weir.resume_pipeline('pr_theirs');
SELECT weir.signal('go', run_id => :theirs);
SELECT weir.approve(:theirs, 'a');
SELECT weir.reject(:theirs, 'a');
-- nor a right to know what the views hide
SELECT * FROM weir.progress(:theirs);
CALL weir.watch(:theirs);
SELECT * FROM weir.why(:theirs);
SELECT * FROM weir.why('pr_theirs');
SELECT weir.wait(:theirs);
SELECT weir.describe_pipeline('pr_theirs');
SELECT * FROM weir.plan('pr_theirs');
SELECT * FROM weir.simulate('pr_theirs');
SELECT * FROM weir.get_config_variable('pr', NULL, 'of theirs');
SELECT * FROM weir.get_config_variable('pr', NULL, 'of nobody');
-- of an operator, whoever owns the pipeline
SELECT * FROM weir.set_pipeline_enabled('pr_mine', false);
SELECT * FROM weir.skip_once('pr_mine');
SELECT * FROM weir.log_execution_start('pr_outside');
SELECT weir.log_execution_end(:mine);
SELECT weir.log_execution_error(:mine, 'x');
SELECT weir.log_activity(:mine, 'x', 'land');
SELECT weir.log_row_count(:mine, 'x', 'x', 'Insert', 1);
SELECT weir.reset_execution(:mine);
SELECT weir.rollback_execution(:mine);
SELECT weir.set_config_variable('x', 'x', 'x', 'x');
SELECT weir.test_connection('pr_connection');
-- of an admin, too
SELECT weir.create_pipeline('pr_x', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.alter_pipeline('pr_mine', '{"tasks": [{"name": "b", "kind": "noop"}]}');
SELECT weir.alter_pipeline_owner('pr_mine', 'regress_priv_team');
SELECT weir.drop_pipeline('pr_mine');
SELECT weir.create_connection('pr_x', 'http', 'http://127.0.0.1:1', '{"type": "none"}');
SELECT weir.alter_connection('pr_connection', 'http://127.0.0.1:2');
SELECT weir.drop_connection('pr_connection');
SELECT weir.create_secret('pr_secret', 'value');
SELECT weir.alter_secret('pr_secret', 'another');
SELECT weir.drop_secret('pr_secret');
SELECT weir.create_pool('pr_pool', 1);
SELECT weir.alter_pool('pr_pool', 2);
SELECT weir.alter_pool('pr_pool', new_owner => 'regress_priv_team');
SELECT weir.drop_pool('pr_pool');
SELECT weir.set_stage_mapping('x', 'x', 'x', 'x');
SELECT weir.drop_stage_mapping('pr');
SELECT weir.prune();
CALL weir.conduct();
RESET ROLE;
SELECT rows = :'before' AS nothing_changed FROM everything;
-- an owner's member does with what is the owner's
BEGIN;
SET LOCAL ROLE regress_priv_team;
SELECT weir.trigger('pr_mine') > :mine AS triggered, weir.restart(:mine) > :mine AS restarted, weir.cancel_backfill(:backfill_of_mine) AS cancelled,
	weir.backfill('pr_mine', '2026-02-01', '2026-02-02', '1 day') > :backfill_of_mine AS backfilled;
SELECT weir.resume_pipeline('pr_mine'), weir.pause_pipeline('pr_mine');
SELECT status, by_status FROM weir.progress(:mine);
SELECT count(*) > 0 AS why_run FROM weir.why(:mine);
SELECT count(*) > 0 AS why_pipeline FROM weir.why('pr_mine');
SELECT weir.wait(:mine);
SELECT weir.describe_pipeline('pr_mine');
SELECT count(*) AS planned FROM weir.plan('pr_mine');
SELECT "VariableValue" FROM weir.get_config_variable('pr', NULL, 'of mine');
SELECT "VariableValue" FROM weir.get_config_variable('pr', NULL, 'of a new one', 'the default');
ROLLBACK;
-- and a reader knows everything
SET ROLE regress_priv_reader;
SELECT status FROM weir.progress(:theirs);
SELECT weir.describe_pipeline('pr_theirs');
SELECT "VariableName", "VariableValue" FROM unnest(ARRAY['of mine', 'of theirs', 'of nobody']) AS n ("VariableName"), weir.get_config_variable('pr', NULL, n."VariableName");
RESET ROLE;

DROP VIEW seen, rows_seen, everything;
DELETE FROM weir.backfill;
DELETE FROM weir.error;
DELETE FROM weir.activity;
DELETE FROM weir.row_count;
DELETE FROM weir.attempt;
DELETE FROM weir.task_run;
DELETE FROM weir.config_variable;
DELETE FROM weir.run;
SELECT weir.drop_pipeline('pr_mine'), weir.drop_pipeline('pr_theirs'), weir.drop_connection('pr_connection'), weir.drop_secret('pr_secret'),
	weir.drop_pool('pr_pool'), weir.drop_stage_mapping('pr');
DROP OWNED BY regress_priv_admin, regress_priv_operator, regress_priv_reader, regress_priv_owner, regress_priv_team, regress_priv_nobody;
DROP ROLE regress_priv_admin, regress_priv_operator, regress_priv_reader, regress_priv_owner, regress_priv_team, regress_priv_nobody;
