-- What tasks have to share, how much of it is taken, and when they are
-- expected to run because of it: weir.plan, weir.why, weir.progress.  No
-- conductor is needed: the log is written by hand.

SELECT weir.create_pool('fs_pool', 2) IS NOT NULL AS pool;
SELECT weir.create_connection('fs_http', 'http', 'https://localhost/api', options => '{"max_concurrency": 3, "max_starts_per_minute": 20}') IS NOT NULL AS connection;
SELECT weir.create_pipeline('fs_load', '{"timeout": "2 hours", "tasks": [
	{"name": "a", "kind": "http", "connection": "fs_http", "pool": "fs_pool", "spec": {"path": "/a"}},
	{"name": "b", "kind": "http", "connection": "fs_http", "pool": "fs_pool", "spec": {"path": "/b"}},
	{"name": "c", "kind": "http", "connection": "fs_http", "pool": "fs_pool", "spec": {"path": "/c"}, "timeout": "30 minutes", "task_timeout": "1 hour"},
	{"name": "d", "kind": "http", "connection": "fs_http", "pool": "fs_pool", "priority": 5, "spec": {"path": "/d"}},
	{"name": "big", "kind": "http", "connection": "fs_http", "pool": "fs_pool", "pool_slots": 2, "depends_on": ["a", "b", "c", "d"], "spec": {"path": "/e"}},
	{"name": "last", "kind": "sql", "depends_on": ["big"], "spec": {"sql": "SELECT 1"}},
	{"name": "alarm", "kind": "noop", "depends_on": ["last"], "run_if": "at_least_one_failed", "spec": {}}]}');
CREATE VIEW fs_plan AS SELECT wave, task, action, starts_after, ends_after, limits FROM weir.plan('fs_load') ORDER BY wave, task;

-- without a history nobody knows how long anything takes
SELECT task, starts_after, ends_after, limits FROM fs_plan;

-- a history: a minute each, half a minute for the last
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner, queued_at, started_at, ended_at, row_audit_id)
	SELECT 900001, pipeline_id, name, 1, 'succeeded', 'x', 'weir_admin'::regrole, '2026-01-01 00:00', '2026-01-01 00:00', '2026-01-01 00:03', 900001
	FROM weir.pipeline WHERE name = 'fs_load';
INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status, skip_reason, ready_at, started_at, ended_at)
	SELECT 900000 + d.task_no, 900001, d.task_no, d.name, d.kind, d.phase, CASE WHEN d.name = 'alarm' THEN 'skipped' ELSE 'succeeded' END,
		CASE WHEN d.name = 'alarm' THEN 'condition' END, '2026-01-01 00:00', CASE WHEN d.name <> 'alarm' THEN '2026-01-01 00:00'::timestamptz END,
		'2026-01-01 00:00'::timestamptz + CASE d.name WHEN 'last' THEN interval '30 seconds' ELSE '1 minute' END
	FROM weir.task d JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'fs_load';
-- two slots: the tasks run in waves, the higher priority first
SELECT task, starts_after, ends_after FROM fs_plan;
-- more slots, fewer waves; then the connection bounds them
SELECT weir.alter_pool('fs_pool', 10);
SELECT task, starts_after, ends_after FROM fs_plan;
SELECT weir.alter_connection('fs_http', options => '{"max_concurrency": 1}');
SELECT task, starts_after, ends_after, limits FROM fs_plan WHERE task IN ('a', 'd', 'big');
SELECT weir.alter_connection('fs_http', options => '{}');
SELECT task, starts_after, ends_after, limits FROM fs_plan WHERE task IN ('a', 'd', 'big');
-- less than one of them needs: never
SELECT weir.alter_pool('fs_pool', 1);
SELECT task, starts_after, ends_after FROM fs_plan;

-- another run takes a slot, has run for half a minute, and is ready for another one
SELECT weir.alter_pool('fs_pool', 2);
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner, queued_at, started_at, deadline, row_audit_id)
	SELECT 900002, pipeline_id, name, 1, 'running', 'x', 'weir_admin'::regrole, now(), now(), '2100-01-01', 900002 FROM weir.pipeline WHERE name = 'fs_load';
INSERT INTO weir.task_run (task_run_id, run_id, task_no, task_name, kind, phase, status, priority, pool, pool_slots, connection_name, pending_upstream, attempt_no, ready_at, started_at)
	SELECT 900100 + d.task_no, 900002, d.task_no, d.name, d.kind, d.phase, CASE WHEN d.name IN ('a', 'b') THEN 'running' WHEN d.upstream_count = 0 THEN 'ready' ELSE 'waiting' END,
		d.priority, d.pool, d.pool_slots, d.connection_name, d.upstream_count, CASE WHEN d.name IN ('a', 'b') THEN 1 ELSE 0 END,
		now() - interval '30 seconds', CASE d.name WHEN 'a' THEN now() - interval '30 seconds' WHEN 'b' THEN now() - interval '5 seconds' END
	FROM weir.task d JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'fs_load';
INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status, intended_at, deadline, task_deadline)
	SELECT t.task_run_id, 1, t.run_id, 't' || t.task_run_id, 'started', t.started_at, '2099-01-01', CASE t.task_name WHEN 'a' THEN '2098-01-01'::timestamptz END
	FROM weir.task_run t WHERE t.run_id = 900002 AND t.status = 'running';
SELECT task, limits, round(extract(epoch FROM starts_after) / 30) * 30 AS about_seconds FROM fs_plan WHERE task IN ('a', 'd', 'last');
-- that run itself: c and d wait for the slots of a and b
SELECT task, waiting_for, CASE WHEN waiting_for = 'pool' THEN detail END AS detail, round(extract(epoch FROM expected_start - now()) / 30) * 30 AS about_seconds, deadline
	FROM weir.why(900002) WHERE task IS NOT NULL;
SELECT round(extract(epoch FROM expected_end - now()) / 30) * 30 AS about_seconds, deadline, deadline_of FROM weir.progress(900002);

-- timeouts are seen: that of the task, of the attempt, of the run
SELECT task_name, deadline FROM weir.task_runs WHERE run_id = 900002 ORDER BY task_no;
SELECT task_name, deadline, task_deadline FROM weir.attempts WHERE run_id = 900002 ORDER BY 1;
SELECT task, detail FROM weir.why(900002) WHERE task IN ('a', 'b');
UPDATE weir.attempt SET deadline = '2098-01-01' WHERE run_id = 900002;
SELECT deadline, deadline_of FROM weir.progress(900002);
UPDATE weir.run SET deadline = '2097-01-01' WHERE run_id = 900002;
SELECT deadline, deadline_of FROM weir.progress(900002);
SELECT task, detail, deadline FROM weir.why(900002) WHERE task = 'a';

-- a task without a history behind the same slots makes the rest unknown
UPDATE weir.task_run SET task_name = 'new' WHERE run_id = 900002 AND task_name IN ('a', 'b');
SELECT task, starts_after FROM fs_plan;


DROP VIEW fs_plan;
