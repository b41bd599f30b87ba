-- Runs: start one, stop one, mend one, wait for one, and ask what one waits
-- for.  The functions know the true caller, check the right themselves and
-- then work as the owner of the extension.  An owner of a pipeline who has
-- none of weir's roles may use them on his own runs if he is granted EXECUTE.

CREATE FUNCTION weir.trigger(pipeline text, params jsonb DEFAULT '{}', nominal_time timestamptz DEFAULT NULL,
	trigger_type text DEFAULT 'manual', trigger_name text DEFAULT NULL, tasks text[] DEFAULT NULL,
	priority integer DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.trigger(text, jsonb, timestamptz, text, text, text[], integer) IS
	'Queue a run of the pipeline''s current version and return its id; it starts when the transaction commits, a rollback leaves nothing. With tasks, a partial run of those selected: NAME, +NAME with all upstream, NAME+ with all downstream';

CREATE FUNCTION weir.cancel(run_id bigint, reason text DEFAULT NULL) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_cancel' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.cancel(bigint, text) IS
	'Ask for a run to be cancelled; false if it has ended already. It is cancelled after the transaction commits';

CREATE FUNCTION weir.repair(run_id bigint, params jsonb DEFAULT NULL, tasks text[] DEFAULT NULL,
	downstream boolean DEFAULT false) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_repair' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.repair(bigint, jsonb, text[], boolean) IS
	'Ask for a run that failed, timed out or was cancelled to repeat the tasks that did not succeed; returns the run id. It is the latest of its pipeline, or one of those that go on side by side; it goes on as soon as there is a place for it. params corrects parameters, tasks says which ones instead, downstream adds everything that depends on them';

CREATE FUNCTION weir.rerun_from(run_id bigint, task text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_rerun_from' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.rerun_from(bigint, text) IS
	'Ask for a run that has ended to repeat a task and everything downstream, whether or not they succeeded; returns the run id. The row audit id stays';

CREATE FUNCTION weir.restart(run_id bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_restart' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.restart(bigint) IS
	'Queue a new run with the parameters, times and selection of one that has ended, and return its id; whether it starts over (R) or resumes after landing (D) the pipeline''s state decides, as for every start';

CREATE FUNCTION weir.backfill(pipeline text, window_from timestamptz, window_to timestamptz, step interval,
	params jsonb DEFAULT '{}', concurrency integer DEFAULT 1, tasks text[] DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_backfill' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.backfill(text, timestamptz, timestamptz, interval, jsonb, integer, text[]) IS
	'Queue a run for each window of the past and return the id of the backfill; the windows are run.window_start and run.window_end, the oldest goes first, behind ordinary runs of the pipeline';

CREATE FUNCTION weir.cancel_backfill(backfill_id bigint, reason text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_cancel_backfill' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.cancel_backfill(bigint, text) IS
	'Ask for all runs of a backfill that have not ended to be cancelled; returns how many';

CREATE FUNCTION weir.wait(run_id bigint, timeout interval DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_wait' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.wait(bigint, interval) IS
	'Wait until a run has ended and return its status; after the timeout, the status it has then. The statement that calls it holds its snapshot while it waits, so vacuum cannot remove what died since: do not wait for hours';

CREATE FUNCTION weir.signal(name text, payload jsonb DEFAULT '{}', run_id bigint DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_signal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.signal(text, jsonb, bigint) IS
	'Wake the tasks that wait for a signal of this name, of all runs the caller may operate or of one, and return how many; the payload becomes their output. With run_id the signal stays with the run: a task of it that comes to wait later does not wait. It is delivered when the transaction commits';

CREATE FUNCTION weir.approve(run_id bigint, task text, comment text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_approve' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.approve(bigint, text, text) IS
	'Let a task that waits for an approval go on; who approved and the comment are in its output and in weir.activities';

CREATE FUNCTION weir.reject(run_id bigint, task text, comment text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_reject' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.reject(bigint, text, text) IS
	'Let a task that waits for an approval fail, as a user error; who rejected and the comment are in its output and in weir.activities';

CREATE FUNCTION weir.adopt(task_run_id bigint, external_run_id text, reason text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_adopt' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.adopt(bigint, text, text) IS
	'Let a task run that is uncertain, or that ended without success in a run that has ended, go on with a run that is in the engine already: it is followed to its end instead of being started. The run of an ended one is repaired. Returns the run id';

CREATE FUNCTION weir.resolve(task_run_id bigint, decision text, reason text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_resolve' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.resolve(bigint, text, text) IS
	'Say what became of a task run that is uncertain: succeeded, failed, or send_again if nothing was started. Returns the run id';

-- What the SQL below cannot see.

CREATE FUNCTION weir._conductor_state() RETURNS text
	AS 'MODULE_PATHNAME', 'weir_conductor_state' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir._conductor_state() IS 'Conductor of this database: running, not running or not preloaded';

CREATE FUNCTION weir._sql_worker_wait(OUT detail text, OUT hint text, OUT is_failing boolean)
	AS 'MODULE_PATHNAME', 'weir_sql_worker_wait' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir._sql_worker_wait() IS 'Why a SQL task cannot have a SQL worker now, null when it can; is_failing: none can be started';

CREATE FUNCTION weir._run_list(run_ids bigint[]) RETURNS text
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $list$
SELECT CASE WHEN count(*) = 0 THEN 'nobody' WHEN count(*) = 1 THEN 'run ' || min(r)
	ELSE 'runs ' || string_agg(r::text, ', ' ORDER BY r) FILTER (WHERE n <= 5) || CASE WHEN count(*) > 5 THEN ' and others' ELSE '' END END
FROM (SELECT r, row_number() OVER (ORDER BY r) AS n FROM unnest(run_ids) r WHERE r IS NOT NULL) x
$list$;
COMMENT ON FUNCTION weir._run_list(bigint[]) IS 'Up to five runs in words';

CREATE FUNCTION weir._expected(run_ids bigint[], OUT run_id bigint, OUT task_no integer, OUT expected_start timestamptz, OUT expected_end timestamptz)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_expected' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir._expected(bigint[]) IS 'When runs (task_no 0) and what has not ended of them are expected to start and end, from the medians of successful runs before; null where that cannot be known';

-- The tables' own story.  Runs given in $1; with $2, the pipeline itself.
-- Names of columns are those of weir.why.
CREATE FUNCTION weir._why(run_ids bigint[], pipeline_id bigint)
	RETURNS TABLE (run_id bigint, task text, waiting_for text, detail text, since timestamptz, hint text, expected_start timestamptz, deadline timestamptz)
	LANGUAGE SQL VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $why$
WITH given AS MATERIALIZED (
	SELECT r.*, p.is_paused, p.is_enabled, p.changed_at, v.max_concurrent_runs,
		s.last_run_id AS latest_run_id, s.next_load_status AS next_start, s.skip_once, s.origin_row_audit_id,
		r.status IN ('queued', 'running', 'cancelling') AS is_live,
		(SELECT array_agg(a.run_id ORDER BY a.run_id) FROM weir._active a
		 WHERE r.status = 'queued' AND a.pipeline_id = r.pipeline_id) AS active
	FROM weir.run r
		LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id
		LEFT JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version
		LEFT JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id
	WHERE r.run_id = ANY ($1)
), conductor AS MATERIALIZED (
	SELECT weir._conductor_state() AS state, w.detail AS worker_detail, w.hint AS worker_hint, w.is_failing
	FROM weir._sql_worker_wait() w
), startable AS MATERIALIZED (
	-- ready tasks whose time has come, and what they need
	SELECT r.run_id, t.task_run_id, t.task_no, t.task_name, t.item_no, t.pool, t.pool_slots, t.run_limit, t.connection_name, t.ready_at, r.pipeline_name,
		t.lane LIKE 'sql%' AS needs_worker
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
	WHERE r.is_live AND t.status = 'ready' AND t.not_before > clock_timestamp() IS NOT TRUE
		-- of items the first one speaks
		AND (t.item_no = 0 OR NOT EXISTS (SELECT FROM weir.task_run e WHERE e.parent_task_run_id = t.parent_task_run_id
			AND e.live_item = 'a' AND e.status = 'ready' AND e.item_no < t.item_no))
), place AS MATERIALIZED (
	-- as the conductor orders them: what is overdue first
	SELECT t.task_run_id,
		row_number() OVER (PARTITION BY t.pool ORDER BY o.since, t.priority DESC, t.ready_at, t.task_run_id) - 1 AS in_pool,
		row_number() OVER (PARTITION BY t.connection_name ORDER BY o.since, t.priority DESC, t.ready_at, t.task_run_id) - 1 AS in_connection,
		row_number() OVER (PARTITION BY t.lane LIKE 'sql%' ORDER BY o.since, t.priority DESC, t.ready_at, t.task_run_id) - 1 AS for_worker,
		row_number() OVER (PARTITION BY t.run_id, t.run_limit IS NULL ORDER BY o.since, t.priority DESC, t.ready_at, t.task_run_id) - 1 AS in_run
	FROM weir._active_task_run t
		CROSS JOIN LATERAL (SELECT CASE WHEN t.ready_at + nullif(current_setting('weir.overdue_after'), '0')::interval < clock_timestamp()
			THEN t.ready_at END AS since) o
	WHERE t.status = 'ready' AND t.not_before IS NULL
), limited (run_id, task_run_id, task_no, task_name, waiting_for, detail, since, hint) AS MATERIALIZED (
	SELECT t.run_id, t.task_run_id, t.task_no, t.task_name, 'pool',
		CASE WHEN p.slots IS NULL THEN format('pool "%s" does not exist', t.pool)
			WHEN t.pool_slots > p.slots THEN format('it needs %s slots of pool "%s", which has %s', t.pool_slots, t.pool, p.slots)
			ELSE format('%s of %s slots of pool "%s" are taken by %s and it needs %s; task runs waiting before it: %s',
				u.used, p.slots, t.pool, weir._run_list(u.runs), t.pool_slots, coalesce(a.in_pool, 0)) END,
		t.ready_at,
		CASE WHEN p.slots IS NULL THEN format('SELECT weir.create_pool(%L, 1);', t.pool)
			ELSE format('Wait, or raise the slots with weir.alter_pool(%L, %s).', t.pool, greatest(p.slots + 1, t.pool_slots)) END
	FROM startable t LEFT JOIN place a USING (task_run_id)
		JOIN (SELECT n.pool, coalesce(sum(h.pool_slots), 0) AS used, array_agg(DISTINCT h.run_id) AS runs
			FROM (SELECT DISTINCT s.pool FROM startable s WHERE s.pool IS NOT NULL) n
				LEFT JOIN weir._active_task_run h ON h.status = 'running' AND h.pool = n.pool
			GROUP BY n.pool) u ON u.pool = t.pool
		LEFT JOIN weir.pool p ON p.name = t.pool
	WHERE p.slots IS NULL OR u.used + t.pool_slots > p.slots
	UNION ALL
	SELECT t.run_id, t.task_run_id, t.task_no, t.task_name, 'connection',
		CASE WHEN u.going_on >= u.max_concurrency THEN
			format('%s attempts of %s go on through connection "%s" and its max_concurrency is %s; task runs waiting before it: %s',
				u.going_on, weir._run_list(u.runs), t.connection_name, u.max_concurrency, coalesce(a.in_connection, 0))
		ELSE format('%s attempts were started through connection "%s" within a minute and its max_starts_per_minute is %s; the next one starts at %s; task runs waiting before it: %s',
				u.started, t.connection_name, u.per_minute, u.next_at, coalesce(a.in_connection, 0)) END,
		t.ready_at, format('Wait, or change its options with weir.alter_connection(%L, ...).', t.connection_name)
	FROM startable t LEFT JOIN place a USING (task_run_id)
		JOIN (SELECT k.name, (k.options->>'max_concurrency')::numeric::bigint AS max_concurrency, (k.options->>'max_starts_per_minute')::numeric::bigint AS per_minute,
				g.going_on, g.runs, m.started, m.next_at
			FROM weir.connection k
				CROSS JOIN LATERAL (SELECT count(*) AS going_on, array_agg(DISTINCT h.run_id) AS runs
					FROM weir._active_task_run x JOIN weir.attempt h USING (task_run_id, attempt_no)
					WHERE x.status = 'running' AND h.status IN ('intended', 'started') AND x.connection_name = k.name) g
				CROSS JOIN LATERAL (SELECT count(*) AS started, min(b.intended_at) + interval '1 minute' AS next_at
					FROM (SELECT h.intended_at FROM weir.attempt h
						WHERE h.rated_connection = k.name AND h.intended_at > clock_timestamp() - interval '1 minute'
						ORDER BY h.intended_at DESC LIMIT (k.options->>'max_starts_per_minute')::numeric::bigint) b) m
			WHERE k.options ?| '{max_concurrency,max_starts_per_minute}'
				AND k.name IN (SELECT s.connection_name FROM startable s)) u ON u.name = t.connection_name
	WHERE u.going_on >= u.max_concurrency OR u.started >= u.per_minute
	UNION ALL
	SELECT t.run_id, t.task_run_id, t.task_no, t.task_name, 'run',
		format('%s tasks of the run are running and max_concurrent_tasks is %s; task runs waiting before it: %s', u.running, t.run_limit, coalesce(a.in_run, 0)),
		t.ready_at, format('Wait; weir.alter_pipeline(%L, ...) changes it for later runs.', t.pipeline_name)
	FROM startable t LEFT JOIN place a USING (task_run_id)
		JOIN (SELECT h.run_id, count(*) AS running FROM weir.task_run h
			WHERE h.run_id IN (SELECT s.run_id FROM startable s WHERE s.run_limit IS NOT NULL) AND h.status = 'running' AND h.run_limit IS NOT NULL
			GROUP BY h.run_id) u ON u.run_id = t.run_id
	WHERE u.running >= t.run_limit
	UNION ALL
	SELECT t.run_id, t.task_run_id, t.task_no, t.task_name, 'SQL worker',
		format('%s%s; task runs waiting before it: %s', c.worker_detail, ' of ' ||
			(SELECT weir._run_list(array_agg(DISTINCT h.run_id)) FROM weir._active_task_run x JOIN weir.attempt h USING (task_run_id, attempt_no)
			 WHERE x.status = 'running' AND h.status IN ('intended', 'started') AND x.lane LIKE 'sql%' AND NOT c.is_failing HAVING count(*) > 0), coalesce(a.for_worker, 0)),
		t.ready_at, c.worker_hint
	FROM startable t LEFT JOIN place a USING (task_run_id) CROSS JOIN conductor c
	WHERE t.needs_worker AND c.worker_detail IS NOT NULL
), answer (rank, run_id, task_no, task, waiting_for, detail, since, hint) AS (
	-- the pipeline
	SELECT 1, NULL::bigint, 0, NULL::text, 'pipeline', 'it is paused: new runs stay queued', p.changed_at,
		format('SELECT weir.resume_pipeline(%L);', p.name)
	FROM weir.pipeline p WHERE p.pipeline_id = $2 AND p.is_paused
	UNION ALL
	SELECT 1, NULL, 0, NULL, 'pipeline', 'it is disabled: it cannot be triggered, and a start is answered C (skip)', p.changed_at,
		format('SELECT * FROM weir.set_pipeline_enabled(%L, true);', p.name)
	FROM weir.pipeline p WHERE p.pipeline_id = $2 AND NOT p.is_enabled
	UNION ALL
	SELECT 2, l.run_id, 0, NULL, 'nothing',
		concat_ws('; ', coalesce('no run is queued or running; the latest ended as ' || l.status, 'it has never run'),
			CASE WHEN s.skip_once THEN 'the next start is skipped (C), once'
				 WHEN s.next_load_status = 'R' THEN 'the next start reruns from the start (R)'
				 WHEN s.next_load_status = 'D' AND v.max_concurrent_runs > 1 THEN 'landings are to be resumed (D), see weir.landings'
				 WHEN s.next_load_status = 'D' THEN format('the next start resumes after landing (D), with row_audit_id %s', s.origin_row_audit_id)
				 WHEN s.next_load_status = 'C' THEN 'the next start is skipped (C)'
				 ELSE 'the next start processes (P)' END),
		l.ended_at,
		CASE WHEN p.current_version IS NULL THEN 'An outside orchestrator starts it with weir.log_execution_start.'
			ELSE format('SELECT weir.trigger(%L);', p.name) END
	FROM weir.pipeline p
		LEFT JOIN weir.pipeline_state s ON s.pipeline_id = p.pipeline_id
		LEFT JOIN weir.pipeline_version v ON v.pipeline_id = p.pipeline_id AND v.version = p.current_version
		LEFT JOIN weir.run l ON l.run_id = s.last_run_id
	WHERE p.pipeline_id = $2 AND cardinality($1) = 0
	UNION ALL
	-- runs, before they start
	SELECT 3, r.run_id, 0, NULL, 'pipeline', format('pipeline "%s" is paused', r.pipeline_name), r.changed_at,
		format('SELECT weir.resume_pipeline(%L);', r.pipeline_name)
	FROM given r WHERE r.status = 'queued' AND r.is_paused
	UNION ALL
	SELECT 3, r.run_id, 0, NULL, 'pipeline', format('pipeline "%s" is disabled: the run will be skipped', r.pipeline_name), r.changed_at,
		format('SELECT * FROM weir.set_pipeline_enabled(%L, true);', r.pipeline_name)
	FROM given r WHERE r.status = 'queued' AND NOT r.is_enabled
	UNION ALL
	SELECT 3, r.run_id, 0, NULL, 'run',
		format('%s of pipeline "%s" %s not ended and max_concurrent_runs is %s',
			CASE WHEN cardinality(r.active) = 1 THEN 'run ' ELSE 'runs ' END || array_to_string(r.active, ', '),
			r.pipeline_name, CASE WHEN cardinality(r.active) = 1 THEN 'has' ELSE 'have' END, r.max_concurrent_runs),
		r.queued_at, 'Wait for it with weir.wait, stop it with weir.cancel, or raise max_concurrent_runs with weir.alter_pipeline.'
	FROM given r WHERE r.status = 'queued' AND cardinality(r.active) >= r.max_concurrent_runs
	UNION ALL
	SELECT 3, r.run_id, 0, NULL, 'run',
		format('backfill %s runs %s at a time: %s going on, %s queued before this one', b.backfill_id, b.concurrency, n.active, n.before),
		r.queued_at, format('SELECT * FROM weir.backfills WHERE backfill_id = %s;', b.backfill_id)
	FROM given r JOIN weir.backfill b ON b.backfill_id = r.backfill_id
		CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE o.status IN ('running', 'cancelling')) AS active,
			count(*) FILTER (WHERE o.status = 'queued' AND o.run_id < r.run_id) AS before
			FROM weir.run o WHERE o.backfill_id = r.backfill_id) n
	WHERE r.status = 'queued' AND n.active + n.before >= b.concurrency
	UNION ALL
	SELECT 3, r.run_id, 0, NULL, 'conductor',
		'it has not been taken in yet' || coalesce(
			(SELECT format('; %s queued before it', count(*)) FROM weir.run b
			 WHERE b.pipeline_id = r.pipeline_id AND b.live = 'q' AND b.run_id < r.run_id
			 HAVING count(*) > 0), ''),
		r.queued_at, NULL
	FROM given r, conductor c
	WHERE r.status = 'queued' AND r.is_paused IS NOT TRUE AND c.state = 'running' AND r.backfill_id IS NULL
		AND coalesce(cardinality(r.active), 0) < coalesce(r.max_concurrent_runs, 1)
	UNION ALL
	-- who should move them
	SELECT 4, r.run_id, 0, NULL, 'conductor',
		CASE c.state WHEN 'not preloaded' THEN 'weir is not preloaded: nobody moves runs forward'
			ELSE 'the conductor of this database is not running' END,
		NULL,
		CASE c.state WHEN 'not preloaded' THEN 'Add weir to shared_preload_libraries and restart the server, or CALL weir.conduct().'
			ELSE 'See the server log, and that weir.enabled is on; or CALL weir.conduct().' END
	FROM given r, conductor c
	WHERE c.state <> 'running' AND NOT r.is_external
		AND (r.is_live OR EXISTS (SELECT FROM weir.request q WHERE q.run_id = r.run_id))
	UNION ALL
	SELECT 5, r.run_id, 0, NULL, CASE WHEN w.before IS NULL THEN 'conductor' ELSE 'run' END,
		format('%s was asked for by %s%s', q.action, q.requested_by, ': ' || q.reason) || coalesce('; ' || w.before, ''), q.requested_at,
		CASE WHEN w.before IS NOT NULL THEN format('It goes before what is queued; SELECT weir.cancel(%s); gives it up.', r.run_id) END
	FROM given r JOIN weir.request q ON q.run_id = r.run_id
		LEFT JOIN LATERAL (SELECT CASE p.waits_for
			WHEN 'pipeline' THEN format('%s of pipeline "%s" %s not ended and max_concurrent_runs is %s',
				weir._run_list(p.active), r.pipeline_name, CASE WHEN cardinality(p.active) = 1 THEN 'has' ELSE 'have' END, p.max_concurrent_runs)
			WHEN 'landing' THEN format('run %s goes on with the same landing', p.landing_run_id)
			WHEN 'backfill' THEN format('%s windows of backfill %s go on and its concurrency is %s', p.windows, p.backfill_id, p.concurrency) END
			FROM weir._repair_place p WHERE p.run_id = r.run_id) w (before) ON q.action = 'repair'
	UNION ALL
	SELECT 5, r.run_id, 0, NULL, 'task', 'it is being cancelled' || coalesce(' (' || r.cancel_reason || ')', '')
		|| ': what runs has still to end', NULL, NULL
	FROM given r WHERE r.status = 'cancelling' AND NOT r.is_external
	UNION ALL
	SELECT 5, r.run_id, 0, NULL, 'conductor', 'all its tasks have ended; its outcome is to be written', NULL, NULL
	FROM given r
	WHERE r.status IN ('running', 'cancelling') AND NOT r.is_external
		AND NOT EXISTS (SELECT FROM weir.task_run t WHERE t.run_id = r.run_id AND t.status IN ('waiting', 'ready', 'running'))
	UNION ALL
	SELECT 5, r.run_id, 0, NULL, 'outside orchestrator',
		concat_ws(' ', coalesce(r.external_system, 'an outside orchestrator'), 'runs it', 'as ' || r.external_run_id), r.started_at,
		format('If it is dead: SELECT * FROM weir.reset_execution(%s);', r.run_id)
	FROM given r WHERE r.is_external AND r.is_live
	UNION ALL
	-- tasks
	SELECT 6, r.run_id, t.task_no, t.task_name, 'task',
		coalesce((SELECT string_agg(format('"%s" (%s)', u.task_name, u.status), ', ' ORDER BY u.task_no)
			FROM weir.task_dependency d
				JOIN weir.task_run u ON u.run_id = r.run_id AND u.task_no = d.upstream_no
			WHERE d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no
				AND u.status NOT IN ('succeeded', 'reused', 'skipped')),
			format('%s upstream tasks', t.pending_upstream)),
		NULL, NULL
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
	WHERE r.is_live AND t.status = 'waiting' AND t.item_no = 0
	UNION ALL
	-- what can only run again by a repair
	SELECT 6, r.run_id, t.task_no, t.task_name, 'repair', y.reason, t.ended_at,
		format('SELECT weir.repair(%s); when the run has ended repeats what did not succeed and what that blocked.', r.run_id)
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id JOIN weir._reason y USING (task_run_id)
	WHERE r.is_live AND t.status = 'blocked' AND t.item_no = 0
	UNION ALL
	SELECT 6, r.run_id, t.task_no, t.task_name, 'retry',
		format('attempt %s %s%s; tried again at %s', t.attempt_no, coalesce(a.status, 'ended'),
			': ' || coalesce(a.error_message, t.error_message), t.not_before), a.ended_at, NULL
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
		LEFT JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
	WHERE r.is_live AND t.status = 'ready' AND t.item_no = 0 AND t.not_before > clock_timestamp()
	UNION ALL
	SELECT 6, l.run_id, l.task_no, l.task_name, l.waiting_for, l.detail, l.since, l.hint
	FROM limited l
	UNION ALL
	SELECT 6, t.run_id, t.task_no, t.task_name, 'conductor', 'it is ready to start', t.ready_at, NULL
	FROM startable t
	WHERE t.item_no = 0 AND t.task_run_id NOT IN (SELECT l.task_run_id FROM limited l)
	UNION ALL
	SELECT 6, r.run_id, t.task_no, t.task_name, 'SQL worker', c.worker_detail, a.intended_at, c.worker_hint
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id CROSS JOIN conductor c
		JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
	WHERE r.is_live AND t.status = 'running' AND a.status = 'intended' AND t.lane LIKE 'sql%' AND c.is_failing
	UNION ALL
	SELECT 6, r.run_id, t.task_no, t.task_name, 'decision',
		format('nobody knows whether attempt %s began in the engine: %s', t.attempt_no, a.kind_state->'uncertain'->>'message'),
		(a.kind_state->'uncertain'->>'at')::timestamptz,
		format('Look for %s in the engine; then SELECT weir.adopt(%s, ''its run id''); or weir.resolve(%s, ''send_again'' | ''succeeded'' | ''failed'').',
			a.token, t.task_run_id, t.task_run_id)
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
		JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
	WHERE r.is_live AND t.status = 'running' AND a.status IN ('intended', 'started') AND a.kind_state ? 'uncertain'
	UNION ALL
	SELECT 6, r.run_id, t.task_no, t.task_name, CASE WHEN t.kind IN ('sql', 'redis_publish') THEN 'statement' ELSE 'engine' END,
		format('attempt %s of kind %s %s%s%s', t.attempt_no, t.kind,
			CASE a.status WHEN 'intended' THEN 'is being started' ELSE 'is running' END,
			' in process ' || a.worker_pid,
			' as ' || coalesce(a.external_run_id, t.external_run_id))
			|| coalesce(CASE WHEN o.is_asked THEN format(', and the service asked for no request before %s (%s); SELECT weir.resume_connection(%L) ends that',
					o.retry_at, o.last_error, o.connection_name)
				ELSE ', and the service cannot be reached since ' || o.opened_at || ': ' || o.last_error || '; next try at ' || o.retry_at END, '')
			|| coalesce(', and ' || q.requests || ' through connection "' || t.connection_name || '" take turns, ' || q.per_second
				|| ' a second (request_limits), until ' || q.until, '')
			|| coalesce(', and waits for attempt ' || n.attempt_no || ' of task run ' || n.task_run_id || ', which begins at the same place: whose run is whose could not be told otherwise', '')
			|| coalesce(', blocked by process ' ||
				nullif(array_to_string(CASE WHEN a.worker_pid IS NOT NULL THEN pg_blocking_pids(a.worker_pid) END, ', '), ''), ''),
		coalesce(a.started_at, a.intended_at, t.started_at),
		coalesce('See ' || t.external_url || '.', 'See pg_stat_activity for process ' || a.worker_pid || '.')
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
		LEFT JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
		LEFT JOIN weir.circuit o ON o.connection_name = t.connection_name AND (NOT o.is_asked OR o.retry_at > clock_timestamp())
		LEFT JOIN LATERAL (SELECT h.requests, h.per_second, h.until FROM weir.throttle h
			WHERE h.connection_name = t.connection_name AND h.until > clock_timestamp() ORDER BY h.until DESC LIMIT 1) q ON true
		-- at one place starts take turns (TaskKind.start_place)
		LEFT JOIN LATERAL (SELECT b.attempt_no, b.task_run_id FROM weir._active_task_run x JOIN weir.attempt b USING (task_run_id, attempt_no)
			WHERE a.step = 'prepare' AND a.start_place IS NULL AND t.kind IN ('fabric_item', 'databricks_pipeline') AND x.connection_name = t.connection_name
				AND b.start_place IS NOT NULL AND b.external_run_id IS NULL AND b.status = 'intended'
				AND (b.request->>'item', b.request->>'pipeline_id') IS NOT DISTINCT FROM (a.request->>'item', a.request->>'pipeline_id') LIMIT 1) n ON true
		CROSS JOIN conductor c
	WHERE r.is_live AND t.status = 'running' AND t.kind NOT IN ('wait', 'pipeline') AND t.item_no = 0
		AND NOT (t.kind = 'for_each' AND a.status = 'succeeded')
		AND (a.kind_state ? 'uncertain') IS NOT TRUE
		AND (c.is_failing AND t.lane LIKE 'sql%' AND a.status = 'intended') IS NOT TRUE
	UNION ALL
	-- tasks that wait for something in the database
	SELECT 6, r.run_id, t.task_no, t.task_name,
		CASE k.wait WHEN 'for' THEN 'time' WHEN 'until' THEN 'time' WHEN 'sql' THEN 'condition' ELSE coalesce(k.wait, 'conductor') END,
		CASE k.wait
			WHEN 'signal' THEN format('signal "%s"', a.kind_state->>'signal')
			WHEN 'approval' THEN format('approval by an operator: %s', a.kind_state->>'approval')
			WHEN 'sql' THEN format('its condition is looked at again and again; %s looks so far, the next at %s',
				a.kind_state->>'looks', to_timestamp((a.kind_state->>'next_ms')::double precision / 1000))
			ELSE coalesce(format('until %s', to_timestamp((a.kind_state->>'due_ms')::double precision / 1000)), 'it is being started') END,
		a.intended_at,
		CASE k.wait
			WHEN 'signal' THEN format('SELECT weir.signal(%L, run_id => %s);', a.kind_state->>'signal', r.run_id)
			WHEN 'approval' THEN format('SELECT weir.approve(%s, %L); or weir.reject.', r.run_id, t.task_name) END
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
		JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
		CROSS JOIN LATERAL (SELECT a.kind_state->>'wait' AS wait) k
	WHERE r.is_live AND t.status = 'running' AND t.kind = 'wait' AND (t.item_no = 0 OR k.wait = 'approval')
	UNION ALL
	SELECT 6, r.run_id, t.task_no, t.task_name, 'run',
		CASE WHEN c.run_id IS NULL THEN 'its run of another pipeline is being queued'
			ELSE format('run %s of pipeline "%s", which is %s%s', c.run_id, c.pipeline_name, c.status,
				CASE WHEN c.status = 'queued' AND p.is_paused THEN ': the pipeline is paused' END) END,
		coalesce(c.started_at, c.queued_at, a.intended_at),
		CASE WHEN c.status = 'queued' AND p.is_paused THEN format('SELECT weir.resume_pipeline(%L);', c.pipeline_name)
			ELSE format('SELECT * FROM weir.why(%s);', c.run_id) END
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id
		JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no
		LEFT JOIN weir.run c ON c.run_id = (a.kind_state->>'run_id')::bigint
		LEFT JOIN weir.pipeline p ON p.pipeline_id = c.pipeline_id
	WHERE r.is_live AND t.status = 'running' AND t.kind = 'pipeline' AND t.item_no = 0
	UNION ALL
	-- items: their task speaks for all of them
	SELECT 6, r.run_id, t.task_no, t.task_name, 'items',
		concat_ws('; ', format('%s of %s items have ended', n.ended, n.items),
			n.failed || ' failed', n.running || ' running', n.retrying || ' waiting for a retry',
			CASE WHEN n.wants_worker THEN c.worker_detail END,
			(SELECT 'expected to have ended at ' || e.expected_end FROM weir._expected(ARRAY[r.run_id]) e WHERE e.task_no = t.task_no)),
		t.started_at, format('SELECT * FROM weir.task_runs WHERE run_id = %s AND item_no > 0;', t.run_id)
	FROM given r JOIN weir.task_run t ON t.run_id = r.run_id CROSS JOIN conductor c
		JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.parent_no = t.task_no
		CROSS JOIN LATERAL (SELECT count(*) AS items,
				count(*) FILTER (WHERE i.status NOT IN ('waiting', 'ready', 'running')) AS ended,
				nullif(count(*) FILTER (WHERE i.status IN ('failed', 'timed_out')), 0) AS failed,
				nullif(count(*) FILTER (WHERE i.status = 'running'), 0) AS running,
				nullif(count(*) FILTER (WHERE i.status = 'ready' AND i.not_before > clock_timestamp()), 0) AS retrying,
				bool_or(i.status = 'ready' AND i.kind IN ('sql', 'redis_publish')) AS wants_worker
			FROM weir.task_run i WHERE i.run_id = t.run_id AND i.task_no = d.task_no) n
	WHERE r.is_live AND t.status = 'running' AND t.item_no = 0 AND n.items > 0
	UNION ALL
	-- runs that have ended
	SELECT 7, r.run_id, 0, NULL, 'nothing',
		concat_ws('; ', 'it ended as ' || r.status || coalesce(': ' || coalesce(r.error_message, r.cancel_reason,
				CASE WHEN r.status = 'skipped' AND r.start_status = 'C' THEN 'its start was to be skipped (C), by weir.skip_once or the run before' END), ''),
			CASE WHEN r.latest_run_id <> r.run_id THEN format('run %s started last', r.latest_run_id) END,
			CASE WHEN r.skip_once THEN 'the next start is skipped (C), once'
				 WHEN r.next_start = 'R' THEN 'the next start reruns from the start (R)'
				 WHEN r.next_start = 'D' AND r.max_concurrent_runs > 1 THEN 'landings are to be resumed (D), see weir.landings'
				 WHEN r.next_start = 'D' THEN format('the next start resumes after landing (D), with row_audit_id %s', r.origin_row_audit_id)
				 WHEN r.next_start = 'C' THEN 'the next start is skipped (C)'
				 WHEN r.next_start = 'P' THEN 'the next start processes (P)'
				 ELSE 'its pipeline was dropped' END),
		r.ended_at,
		CASE WHEN NOT r.is_external AND (r.latest_run_id = r.run_id OR r.is_apart OR r.max_concurrent_runs > 1) AND r.started_at IS NOT NULL
				AND r.status IN ('failed', 'timed_out', 'cancelled')
			THEN format('SELECT weir.repair(%s); repeats what did not succeed, weir.trigger starts a new run.', r.run_id) END
	FROM given r WHERE NOT r.is_live
)
SELECT a.run_id, a.task, a.waiting_for, a.detail || coalesce('; the ' || d.what || ' timeout strikes at ' || d.at, ''),
	a.since, a.hint, CASE WHEN a.waiting_for <> 'conductor' THEN e.expected_start END, d.at
FROM answer a
	-- what strikes first, for a run and for a task that is running or ready to
	LEFT JOIN LATERAL (SELECT k.what, k.at
		FROM given g
			LEFT JOIN weir.task_run t ON t.run_id = g.run_id AND t.task_no = a.task_no AND t.item_no = 0 AND t.status IN ('ready', 'running')
			LEFT JOIN weir.attempt x ON x.task_run_id = t.task_run_id AND x.attempt_no = t.attempt_no AND x.status IN ('intended', 'started')
			CROSS JOIN LATERAL (VALUES ('run', g.deadline, 1), ('task', coalesce(x.task_deadline, t.deadline), 2), ('attempt', x.deadline, 3)) k (what, at, n)
		WHERE g.run_id = a.run_id AND g.status = 'running' AND (a.task_no = 0 OR t.task_run_id IS NOT NULL) AND k.at IS NOT NULL
		ORDER BY k.at, k.n LIMIT 1) d ON true
	LEFT JOIN weir._expected(ARRAY(SELECT g.run_id FROM given g WHERE g.is_live AND NOT g.is_external)) e
		ON e.run_id = a.run_id AND e.task_no = a.task_no
ORDER BY a.run_id NULLS FIRST, a.rank, a.task_no
$why$;
COMMENT ON FUNCTION weir._why(bigint[], bigint) IS 'What runs, and with an id a pipeline, wait for; asks nobody who he is';

CREATE FUNCTION weir.why(run_id bigint,
	OUT run_id bigint, OUT task text, OUT waiting_for text, OUT detail text, OUT since timestamptz, OUT hint text, OUT expected_start timestamptz, OUT deadline timestamptz)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_why_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.why(bigint) IS 'What a run waits for, one row for each thing; when that is expected to be over, if it can be known, and when a timeout strikes, if there is one';

CREATE FUNCTION weir.why(pipeline text,
	OUT run_id bigint, OUT task text, OUT waiting_for text, OUT detail text, OUT since timestamptz, OUT hint text, OUT expected_start timestamptz, OUT deadline timestamptz)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_why_pipeline' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.why(text) IS 'What a pipeline and its unfinished runs (at most the oldest hundred) wait for, one row for each thing';

REVOKE ALL ON FUNCTION
	weir.trigger(text, jsonb, timestamptz, text, text, text[], integer),
	weir.cancel(bigint, text),
	weir.repair(bigint, jsonb, text[], boolean),
	weir.rerun_from(bigint, text),
	weir.restart(bigint),
	weir.backfill(text, timestamptz, timestamptz, interval, jsonb, integer, text[]),
	weir.cancel_backfill(bigint, text),
	weir.signal(text, jsonb, bigint),
	weir.approve(bigint, text, text),
	weir.reject(bigint, text, text),
	weir.adopt(bigint, text, text),
	weir.resolve(bigint, text, text),
	weir.wait(bigint, interval),
	weir.why(bigint),
	weir.why(text),
	weir._why(bigint[], bigint),
	weir._conductor_state(),
	weir._run_list(bigint[]),
	weir._sql_worker_wait(),
	weir._expected(bigint[])
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	weir.trigger(text, jsonb, timestamptz, text, text, text[], integer),
	weir.cancel(bigint, text),
	weir.repair(bigint, jsonb, text[], boolean),
	weir.rerun_from(bigint, text),
	weir.restart(bigint),
	weir.backfill(text, timestamptz, timestamptz, interval, jsonb, integer, text[]),
	weir.cancel_backfill(bigint, text),
	weir.signal(text, jsonb, bigint),
	weir.approve(bigint, text, text),
	weir.reject(bigint, text, text),
	weir.adopt(bigint, text, text),
	weir.resolve(bigint, text, text)
	TO weir_operator, weir_admin;
GRANT EXECUTE ON FUNCTION
	weir.wait(bigint, interval),
	weir.why(bigint),
	weir.why(text)
	TO weir_reader, weir_operator, weir_admin;
