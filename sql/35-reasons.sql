-- Why a task run does not move, or never ran: weir.task_runs shows it, and
-- weir.why where the run still lives.  Nothing is written for it; whoever
-- asks for the column pays for it, row by row.

CREATE VIEW weir._reason AS
SELECT t.task_run_id,
	CASE t.status
	WHEN 'waiting' THEN CASE WHEN t.item_no > 0 THEN 'it waits for its turn among the items of its task'
		ELSE coalesce('it waits for ' || (SELECT string_agg(format('task "%s" (%s)', u.task_name, u.status), ', ' ORDER BY u.task_no)
			FROM weir.task_dependency d JOIN weir.task_run u ON u.run_id = t.run_id AND u.task_no = d.upstream_no AND u.item_no = 0
			WHERE d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no
				AND u.status IN ('waiting', 'ready', 'running')), 'it is to be decided') END
	WHEN 'ready' THEN CASE WHEN t.not_before > clock_timestamp()
		THEN format('attempt %s ended without success; it is tried again at %s', t.attempt_no, t.not_before)
		ELSE concat_ws(' ', 'it is ready to start', format('with %s slots of pool "%s"', t.pool_slots, t.pool),
			'through connection "' || t.connection_name || '"', CASE WHEN t.lane LIKE 'sql%' THEN 'in a SQL worker' END)
			|| format('; weir.why(%s) says what it waits for', t.run_id) END
	WHEN 'running' THEN (SELECT CASE WHEN a.kind_state ? 'uncertain'
			THEN format('nobody knows whether attempt %s began in the engine; weir.why(%s) says what to do', a.attempt_no, t.run_id)
			WHEN t.kind = 'wait' THEN CASE a.kind_state->>'wait'
				WHEN 'signal' THEN format('it waits for signal "%s"', a.kind_state->>'signal')
				WHEN 'approval' THEN 'it waits for an approval'
				WHEN 'sql' THEN 'it waits until its condition is true'
				ELSE 'it waits until ' || to_timestamp((a.kind_state->>'due_ms')::double precision / 1000) END
			WHEN t.kind = 'pipeline' THEN 'it waits for run ' || (a.kind_state->>'run_id') END
		FROM weir.attempt a WHERE a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no AND a.status IN ('intended', 'started'))
	WHEN 'blocked' THEN CASE WHEN t.item_no > 0 THEN 'a task of its run failed before its turn came: the pipeline fails fast'
		-- the failures above it, through others that they blocked
		ELSE coalesce('blocked by ' || (WITH RECURSIVE up (task_no) AS (
				SELECT d.upstream_no FROM weir.task_dependency d
				WHERE d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no
				UNION SELECT d.upstream_no FROM up
					JOIN weir.task_run b ON b.run_id = t.run_id AND b.task_no = up.task_no AND b.item_no = 0 AND b.status = 'blocked'
					JOIN weir.task_dependency d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = up.task_no)
			SELECT string_agg(format('task "%s" (%s)', u.task_name, u.status), ', ' ORDER BY u.task_no)
			FROM up JOIN weir.task_run u ON u.run_id = t.run_id AND u.task_no = up.task_no AND u.item_no = 0
			WHERE u.status IN ('failed', 'timed_out', 'cancelled')),
			'blocked by ' || (SELECT format('task "%s" (%s): the pipeline fails fast', u.task_name, u.status)
				FROM weir.task_run u WHERE u.run_id = t.run_id AND u.item_no = 0 AND u.status IN ('failed', 'timed_out', 'cancelled')
				ORDER BY u.ended_at, u.task_no LIMIT 1),
			'blocked: what it needs cannot be any more') END
	WHEN 'skipped' THEN CASE t.skip_reason WHEN 'disabled' THEN 'the task is disabled' WHEN 'not_selected' THEN 'it is not selected'
		ELSE coalesce('not taken after ' || (SELECT string_agg(format('task "%s" (%s)', u.task_name, u.status), ', ' ORDER BY u.task_no)
			FROM weir.task_dependency d JOIN weir.task_run u ON u.run_id = t.run_id AND u.task_no = d.upstream_no AND u.item_no = 0
			WHERE d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no), 'not taken') END
	WHEN 'reused' THEN 'what an earlier run landed is taken over'
	WHEN 'cancelled' THEN coalesce(t.error_message, r.cancel_reason) END AS reason
FROM weir.task_run t
	JOIN LATERAL (SELECT n.pipeline_id, n.version, n.cancel_reason FROM weir.run n WHERE n.run_id = t.run_id OFFSET 0) r ON true;
COMMENT ON VIEW weir._reason IS 'Why task runs do not move, or never ran; asks nobody who he is';
COMMENT ON COLUMN weir._reason.task_run_id IS 'The task run';
COMMENT ON COLUMN weir._reason.reason IS 'In words; null for one that runs or ran';
