-- Every change of status of a run, a task run and an attempt that is tried,
-- by a superuser and past all functions: what is not in the state diagrams is
-- an error and changes nothing.
\set SHOW_CONTEXT never
\pset format unaligned
\pset fieldsep ' | '
\pset footer off

-- The statuses; the tables hold no others, and no other codes.
CREATE VIEW statuses AS
SELECT v.tbl, u.n, u.status
FROM (VALUES ('run', '{queued,running,cancelling,succeeded,failed,timed_out,cancelled,skipped,aborted}'::text[]),
		('task_run', '{waiting,ready,running,succeeded,failed,timed_out,cancelled,blocked,reused,skipped}'),
		('attempt', '{intended,started,succeeded,failed,timed_out,cancelled,lost}')) AS v (tbl, list),
	unnest(v.list) WITH ORDINALITY AS u (status, n);
SELECT conname, pg_get_constraintdef(oid) AS asks FROM pg_constraint
WHERE contype = 'c' AND conname IN ('run_status_check', 'task_run_status_check', 'attempt_status_check') ORDER BY conname;
SELECT weir._is_run('finished', NULL, NULL) OR weir._is_run('', 'E', 'P') OR weir._is_run('queued', 'X', NULL)
	OR weir._is_run('queued', NULL, 'E') OR weir._is_task_run('queued', NULL) OR weir._is_task_run('ready', 'bored')
	OR weir._is_attempt('running', NULL) OR weir._is_attempt('failed', 'nobody') AS anything_goes;
SELECT tbl, string_agg(status, ' ' ORDER BY n) AS statuses FROM statuses GROUP BY tbl ORDER BY tbl;

-- One row for each pair (from, to); id of the row, and of the run, is its number.
CREATE TABLE pair AS
SELECT row_number() OVER (ORDER BY f.tbl, f.n, t.n) AS id, f.tbl, f.n, f.status AS old, t.n AS m, t.status AS new
FROM statuses f JOIN statuses t USING (tbl);
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, status, triggered_by, owner)
SELECT id, 0, 'transitions', old, current_user, current_user::regrole FROM pair WHERE tbl = 'run';
INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status)
SELECT id, id, 1, 'a', 'noop', 'land', old FROM pair WHERE tbl = 'task_run';
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status)
SELECT id, 1, id, 'token', old FROM pair WHERE tbl = 'attempt';

CREATE VIEW status_now AS
SELECT 'run' AS tbl, run_id AS id, status, xmin FROM weir.run
UNION ALL SELECT 'task_run', task_run_id, status, xmin FROM weir.task_run
UNION ALL SELECT 'attempt', task_run_id, status, xmin FROM weir.attempt;

-- SQLSTATE of the change, 00000 when there was none
CREATE FUNCTION try_change(tbl text, id bigint, new text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('UPDATE weir.%I SET status = %L WHERE %I = %L', tbl, new,
		CASE tbl WHEN 'run' THEN 'run_id' ELSE 'task_run_id' END, id);
	RETURN '00000';
EXCEPTION WHEN others THEN
	RETURN SQLSTATE;
END $$;
CREATE TABLE tried AS
SELECT p.*, s.xmin::text AS version, try_change(p.tbl, p.id, p.new) AS sqlstate
FROM pair p JOIN status_now s USING (tbl, id);

-- The law: these changes and no others.
SELECT tbl, old, coalesce(string_agg(new, ' ' ORDER BY m) FILTER (WHERE sqlstate = '00000' AND old <> new), '-') AS may_become
FROM tried GROUP BY tbl, n, old ORDER BY tbl, n;
-- The others are errors of one kind; a status may be written again as it is.
SELECT tbl, old = new AS same, sqlstate, count(*) FROM tried GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
-- What was refused is as it was, to the row version; what was not, is changed.
SELECT count(*) AS wrong FROM tried t JOIN status_now s USING (tbl, id)
WHERE s.status <> CASE t.sqlstate WHEN '00000' THEN t.new ELSE t.old END
	OR t.sqlstate <> '00000' AND s.xmin::text <> t.version;

-- What is final, is so for good: no path leads out of it, except by a repair.
WITH RECURSIVE path AS (
	SELECT tbl, old AS origin, new FROM tried WHERE sqlstate = '00000' AND old <> new
	UNION SELECT p.tbl, p.origin, t.new FROM path p JOIN tried t ON t.tbl = p.tbl AND t.old = p.new WHERE t.sqlstate = '00000' AND t.old <> t.new)
SELECT tbl, string_agg(status, ' ' ORDER BY n) AS ends FROM statuses s
WHERE NOT EXISTS (SELECT FROM path p WHERE p.tbl = s.tbl AND p.origin = s.status) GROUP BY tbl ORDER BY tbl;

-- What an error says, and that no other way to write a status goes around it.
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, status, triggered_by, owner)
VALUES (1000, 0, 'transitions', 'skipped', current_user, current_user::regrole);
INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status)
VALUES (1000, 1000, 1, 'a', 'noop', 'land', 'reused'), (1001, 1000, 2, 'b', 'noop', 'land', 'failed');
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status)
VALUES (1000, 1, 1000, 'token', 'lost');
UPDATE weir.run SET status = 'running' WHERE run_id = 1000;
UPDATE weir.run SET error_message = 'x', status = 'failed', ended_at = now() WHERE run_id = 1000;
UPDATE weir.run SET status = 'finished' WHERE run_id = 1000;
UPDATE weir.run SET status = NULL WHERE run_id = 1000;
UPDATE weir.task_run SET status = 'ready' WHERE run_id = 1000;
UPDATE weir.attempt SET status = 'succeeded' WHERE task_run_id = 1000;
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, status, triggered_by, owner)
VALUES (1000, 0, 'transitions', 'running', current_user, current_user::regrole)
ON CONFLICT (run_id) DO UPDATE SET status = excluded.status;
MERGE INTO weir.task_run t USING (VALUES (1000)) v (id) ON t.task_run_id = v.id
WHEN MATCHED THEN UPDATE SET status = 'running';
WITH x AS (UPDATE weir.attempt SET status = 'started' WHERE task_run_id = 1000 RETURNING status) SELECT * FROM x;
SELECT tbl, id, status FROM status_now WHERE id >= 1000 ORDER BY tbl, id;
-- one illegal row takes the whole statement with it
UPDATE weir.task_run SET status = 'waiting' WHERE task_run_id IN (1000, 1001);
SELECT tbl, id, status FROM status_now WHERE id = 1001;

-- The guard stands at every status that has a diagram, for every change.
SELECT t.tgrelid::regclass, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid) LIKE '%BEFORE UPDATE OF status%FOR EACH ROW%' AS before_update
FROM pg_trigger t WHERE t.tgfoid = 'weir._check_transition()'::regprocedure ORDER BY t.tgrelid::regclass::text;
SELECT weir._check_transition();
SELECT p.proacl FROM pg_proc p WHERE p.oid = 'weir._check_transition()'::regprocedure AND has_function_privilege('public', p.oid, 'EXECUTE');

-- A column of another table named status has no diagram; a wrong use is refused.
CREATE TABLE other (status text);
CREATE TRIGGER wrong BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION weir._check_transition('run');
INSERT INTO other VALUES ('queued');
DROP TRIGGER wrong ON other;
INSERT INTO other VALUES ('queued');
CREATE TRIGGER unknown BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION weir._check_transition('other');
UPDATE other SET status = 'running';
DROP TABLE other;
