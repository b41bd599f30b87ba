-- How long runs stay in the log: what definitions may say, and what a sweep
-- removes.  Rows are made up in transactions that end without a commit, so
-- that the conductor's own sweep sees none of them, and without the triggers
-- that know which changes of status there are.

-- definitions
SELECT weir.create_pipeline('bad', '{"retention": "30 days", "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"retention": {"age": "soon"}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"retention": {"age": "20 years"}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"retention": {"runs": -1}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"retention": {"runs": 1.5}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"retention": {"run": 5}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('default', '{"tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT weir.create_pipeline('number', '{"retention": {"runs": 3, "age": null}, "tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT weir.create_pipeline('age', '{"retention": {"age": "30 days", "runs": 0}, "tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT weir.create_pipeline('both', '{"retention": {"age": 86400, "runs": 3}, "tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT weir.create_pipeline('half', '{"retention": {"age": "1 day"}, "tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT weir.create_pipeline('for_ever', '{"retention": null, "tasks": [{"name": "a", "kind": "noop"}]}') > 0 AS created;
SELECT p.name, v.retention_age, v.retention_runs FROM weir.pipeline p JOIN weir.pipeline_version v USING (pipeline_id) ORDER BY p.name COLLATE "C";
SELECT weir.describe_pipeline('half')->'retention' AS described;
SHOW weir.retention_age;
SHOW weir.retention_runs;
SET weir.retention_runs = 5;

-- who may, and how
SELECT weir.prune(0);
SELECT weir.prune(NULL);
CREATE ROLE regress_weir_clerk IN ROLE weir_operator;
SET ROLE regress_weir_clerk;
SELECT weir.prune();
RESET ROLE;
DROP ROLE regress_weir_clerk;

-- Runs 1 to n of a pipeline, a day apart, the last one today; each with a row
-- in every table of the log.
CREATE FUNCTION pg_temp.log_runs(pipeline text, n integer, first_id bigint, status text DEFAULT 'succeeded', external boolean DEFAULT false)
	RETURNS void LANGUAGE sql AS $$
	INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, is_external, status, row_audit_id, triggered_by, owner, queued_at, started_at, ended_at)
	SELECT first_id + i, p.pipeline_id, p.name, external, status, first_id + i, 'test', p.owner,
		now() - (n - i) * interval '24 hours', now() - (n - i) * interval '24 hours', now() - (n - i) * interval '24 hours'
	FROM weir.pipeline p, generate_series(1, n) i WHERE p.name = pipeline;
	INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status)
	SELECT first_id + i, first_id + i, 1, 'a', 'noop', 'land', 'succeeded' FROM generate_series(1, n) i;
	INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status) SELECT first_id + i, 1, first_id + i, 't', 'succeeded' FROM generate_series(1, n) i;
	INSERT INTO weir.error (run_id, message) SELECT first_id + i, 'e' FROM generate_series(1, n) i;
	INSERT INTO weir.activity (run_id, activity, phase, status) SELECT first_id + i, 'a', 'land', 'succeeded' FROM generate_series(1, n) i;
	INSERT INTO weir.row_count (run_id, component, object_name, count_type, row_count) SELECT first_id + i, 'c', 'o', 'Insert', 1 FROM generate_series(1, n) i;
	UPDATE weir.pipeline_state s SET last_run_id = first_id + n, last_success_run_id = CASE WHEN status = 'succeeded' THEN first_id + n END
	FROM weir.pipeline p WHERE p.name = pipeline AND p.pipeline_id = s.pipeline_id;
$$;
-- What is left: runs by pipeline, and that nothing is left of the others.
CREATE FUNCTION pg_temp.left_over() RETURNS TABLE (pipeline_name text, runs text) LANGUAGE sql AS $$
	SELECT * FROM (
	SELECT r.pipeline_name, string_agg((r.run_id % 1000)::text, ' ' ORDER BY r.run_id) FROM weir.run r GROUP BY r.pipeline_name
	UNION ALL SELECT 'complete: ' || t.name, bool_and(t.ids = (SELECT array_agg(run_id ORDER BY run_id) FROM weir.run))::text
	FROM (SELECT 'task_run', array_agg(run_id ORDER BY run_id) FROM weir.task_run UNION ALL SELECT 'attempt', array_agg(run_id ORDER BY run_id) FROM weir.attempt
		UNION ALL SELECT 'error', array_agg(run_id ORDER BY run_id) FROM weir.error UNION ALL SELECT 'activity', array_agg(run_id ORDER BY run_id) FROM weir.activity
		UNION ALL SELECT 'row_count', array_agg(run_id ORDER BY run_id) FROM weir.row_count) t (name, ids) GROUP BY t.name
	) x (name, runs) ORDER BY x.name COLLATE "C";
$$;

-- the limits: the number, the age, whichever is reached first, the defaults, none
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT pg_temp.log_runs('number', 200, 1000000), pg_temp.log_runs('age', 60, 1001000), pg_temp.log_runs('both', 60, 1002000),
	pg_temp.log_runs('half', 60, 1003000), pg_temp.log_runs('for_ever', 5, 1004000), pg_temp.log_runs('default', 120, 1005000) \gset
UPDATE weir.run SET queued_at = queued_at - interval '20 years', started_at = started_at - interval '20 years', ended_at = ended_at - interval '20 years'
WHERE pipeline_name IN ('for_ever', 'number');
SELECT state, detail LIKE '% are past their age, 0 were removed so far' AS detail FROM weir.status WHERE component = 'retention';
SELECT weir.prune(10);
SELECT count(*) FROM weir.run;
SELECT weir.prune();
SELECT pipeline_name, CASE WHEN length(runs) < 50 THEN runs ELSE split_part(runs, ' ', 1) || ' and later' END AS runs FROM pg_temp.left_over();
SELECT weir.prune();
SELECT state, detail, since IS NOT NULL AS since FROM weir.status WHERE component = 'retention';
-- a pipeline that was dropped keeps nothing for ever, not even its latest run
SET LOCAL session_replication_role = origin;
SELECT weir.drop_pipeline('age');
UPDATE weir.run SET ended_at = now() - interval '91 days', queued_at = now() - interval '91 days' WHERE pipeline_name = 'age';
SELECT weir.prune() > 0 AS pruned, count(*) FILTER (WHERE pipeline_name = 'age') AS runs FROM weir.run;
SELECT count(*) FROM weir.run WHERE pipeline_name = 'age';
ROLLBACK;

-- what somebody may still need stays
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT pg_temp.log_runs('half', 40, 1000000) \gset
UPDATE weir.run SET status = 'running', ended_at = NULL WHERE run_id = 1000001;
UPDATE weir.run SET status = 'queued', ended_at = NULL, started_at = NULL WHERE run_id = 1000002;
-- the run before a live one, and where its rows were landed
UPDATE weir.run SET last_run_id = 1000003, row_audit_id = 1000004 WHERE run_id = 1000001;
-- what the restart state names
UPDATE weir.pipeline_state SET next_load_status = 'D', last_run_id = 1000005, last_success_run_id = 1000006, origin_row_audit_id = 1000007
WHERE pipeline_id = (SELECT pipeline_id FROM weir.pipeline WHERE name = 'half');
-- both ends of a live family
UPDATE weir.run SET parent_run_id = 1000001 WHERE run_id = 1000008;
UPDATE weir.run SET parent_run_id = 1000009 WHERE run_id = 1000002;
-- somebody asked something
INSERT INTO weir.request (run_id, action, requested_by) VALUES (1000010, 'repair', 'test'), (5, 'cancel', 'test');
-- a change of a config variable that can still be undone, and one that cannot
INSERT INTO weir.config_variable (system_name, object_name, variable_name, type, value, changed_by) VALUES ('s', 'o', 'v', 'bigint', '9', 'test');
INSERT INTO weir.config_variable_history (system_name, object_name, variable_name, change_no, value, run_id, changed_by, changed_at)
SELECT 's', 'o', 'v', n, n, CASE n WHEN 3 THEN 1000003 WHEN 6 THEN 1000020 END, 'test', now() - (120 - n) * interval '24 hours' FROM generate_series(1, 9) n;
UPDATE weir.run SET status = 'failed' WHERE run_id BETWEEN 1000020 AND 1000030;
-- backfills with and without runs
INSERT INTO weir.backfill (backfill_id, pipeline_id, pipeline_name, window_from, window_to, step, concurrency, created_by)
SELECT n, pipeline_id, name, '2020-01-01', '2020-01-02', '1 day', 1, 'test' FROM weir.pipeline, generate_series(1, 2) n WHERE name = 'half';
UPDATE weir.run SET backfill_id = 1 WHERE run_id = 1000001;
UPDATE weir.run SET backfill_id = 2 WHERE run_id = 1000012;
SELECT weir.prune();
SELECT * FROM pg_temp.left_over();
SELECT string_agg(backfill_id::text, ' ') AS backfills FROM weir.backfill;
SELECT string_agg(run_id::text, ' ') AS requests FROM weir.request;
-- the change that undoing goes back to stays too
SELECT string_agg(change_no::text, ' ' ORDER BY change_no) AS changes FROM weir.config_variable_history;
-- after a success nothing can be undone any more: the latest stays
UPDATE weir.pipeline_state SET last_success_run_id = 1000040 WHERE pipeline_id = (SELECT pipeline_id FROM weir.pipeline WHERE name = 'half');
SELECT weir.prune();
SELECT string_agg(change_no::text, ' ' ORDER BY change_no) AS changes FROM weir.config_variable_history;
ROLLBACK;

-- executions of outside orchestrators: since the last success they stay until
-- they are too old, for weir.rollback_execution() names the rows they landed;
-- what restart needs stays, and what changed a config variable
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT "ExecutionID" > 0 AS started FROM weir.log_execution_start('outside', project => 'p');
UPDATE weir.run SET status = 'failed', ended_at = now() WHERE pipeline_name = 'outside';
SELECT pg_temp.log_runs('outside', 200, 1000000, 'failed', true) \gset
UPDATE weir.run SET status = 'succeeded' WHERE run_id = 1000050;
UPDATE weir.run SET status = 'aborted' WHERE run_id = 1000060;
UPDATE weir.pipeline_state SET last_success_run_id = 1000050 WHERE last_run_id = 1000200;
DELETE FROM weir.run WHERE run_id < 1000000;
INSERT INTO weir.config_variable_history (system_name, object_name, variable_name, change_no, value, run_id, changed_by) VALUES ('s', 'o', 'w', 1, 1, 1000070, 'test');
INSERT INTO weir.landing (row_audit_id, pipeline_id, run_id, params) SELECT 1000071, pipeline_id, 1000072, '{}' FROM weir.pipeline WHERE name = 'outside';
UPDATE weir.pipeline_state SET next_load_status = 'D', origin_row_audit_id = 1000071 WHERE last_run_id = 1000200;
SELECT weir.prune();
SELECT string_agg(run_id::text, ' ' ORDER BY run_id) FILTER (WHERE run_id < 1000110) AS old, min(run_id) FILTER (WHERE run_id > 1000105) AS first_young, max(run_id), count(*)
FROM weir.run WHERE pipeline_name = 'outside';
-- never a success: what is too old goes all the same, but for the last one
UPDATE weir.pipeline_state SET last_success_run_id = NULL, next_load_status = 'R', origin_row_audit_id = NULL WHERE last_run_id = 1000200;
UPDATE weir.run SET queued_at = queued_at - interval '1 year', ended_at = ended_at - interval '1 year' WHERE pipeline_name = 'outside' AND run_id > 1000110;
UPDATE weir.run SET status = 'failed' WHERE run_id = 1000050;
SELECT weir.prune();
SELECT string_agg(run_id::text, ' ' ORDER BY run_id) FILTER (WHERE run_id < 1000110 OR run_id > 1000197) AS old FROM weir.run WHERE pipeline_name = 'outside';
-- because of their number alone they do not go
SELECT pg_temp.log_runs('number', 200, 1001000, 'failed', true) \gset
SELECT weir.prune();
SELECT count(*) FROM weir.run WHERE pipeline_name = 'number';
UPDATE weir.run SET is_external = false WHERE pipeline_name = 'number';
SELECT weir.prune();
SELECT count(*) < 200 AS fewer FROM weir.run WHERE pipeline_name = 'number';
UPDATE weir.run SET status = 'succeeded' WHERE run_id = 1000200;
UPDATE weir.pipeline_state SET last_success_run_id = 1000200, last_run_id = 1000200 WHERE last_run_id = 1000200;
SELECT weir.prune();
SELECT min(run_id), count(*) FROM weir.run WHERE pipeline_name = 'outside';
ROLLBACK;

-- children by which a batch knows what belongs to it
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT "ExecutionID" AS batch FROM weir.log_execution_start('nightly', is_batch => true) \gset
SELECT "ExecutionID" AS child FROM weir.log_execution_start('table', parent_execution_id => :batch) \gset
SELECT "ExecutionStatus" FROM weir.log_execution_end(:child);
SELECT "ExecutionStatus" FROM weir.log_execution_end(:batch);
SELECT "ExecutionID" AS alone FROM weir.log_execution_start('table') \gset
SELECT "ExecutionStatus" FROM weir.log_execution_end(:alone);
UPDATE weir.run SET queued_at = now() - interval '1 year', ended_at = now() - interval '1 year';
SELECT weir.prune();
SELECT string_agg(pipeline_name, ' ' ORDER BY run_id) FROM weir.run;
ROLLBACK;

SELECT count(*) FROM weir.run;
