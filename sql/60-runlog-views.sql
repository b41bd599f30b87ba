-- The run log as people read it.  The tables are nobody's; these views are
-- granted to PUBLIC, which is safe because of their row rule: a member of
-- weir_reader, weir_operator or weir_admin sees every row, anybody else only
-- rows of pipelines of an owner he is a member of (and needs USAGE on the
-- schema to get here at all).  The sub-select asks for the roles once per
-- query, not once per row; security_barrier keeps a caller's own functions
-- away from rows he may not see.
--
-- A security barrier also hides the caller's ORDER BY ... LIMIT from the
-- planner.  Views that are mostly asked for the latest rows are therefore in
-- that order already: the latest 50 runs of a million are 50 steps backwards
-- in an index.  For the same reason the run of a row is looked up, row by row
-- (OFFSET 0 keeps it from being joined first), and the pipeline of a run by a
-- function: for a day's rows, and for a page, that is always little, where
-- hashing or merging a million runs or thousands of pipelines is not.
--
-- A report asks for a period by the column that has an index for it:
-- runs.queued_at, task_runs.started_at, attempts.intended_at,
-- errors.occurred_at, activities.logged_at, row_counts.logged_at.

CREATE FUNCTION weir._may_see(pipeline_id bigint, run_owner regrole) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_may_see' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION weir._may_see(bigint, regrole) IS 'Is the caller a member of the owner of the pipeline, or of the run''s owner if the pipeline was dropped?';
CREATE FUNCTION weir._project(pipeline_id bigint) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_project' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION weir._project(bigint) IS 'Project of a pipeline that the caller may see';
GRANT EXECUTE ON FUNCTION weir._may_see(bigint, regrole), weir._project(bigint) TO PUBLIC;

-- No index names the status of a run, see weir.run.  What is queued or goes on
-- is looked up all the same, in an index each and in the pipelines' states.
-- The last arm is the table itself, without a condition of its own, and the
-- one outside on ended_as is true of the others: so the planner sees that
-- status = 'running' contradicts it, and does not read the million runs that
-- have ended.
CREATE VIEW weir.runs WITH (security_barrier) AS
SELECT r.run_id,
	r.pipeline_id,
	r.pipeline_name,
	weir._project(r.pipeline_id) AS project,
	r.version,
	r.status,
	CASE r.status WHEN 'queued' THEN 'Q' WHEN 'running' THEN 'E' WHEN 'cancelling' THEN 'E'
		WHEN 'succeeded' THEN 'S' WHEN 'skipped' THEN 'C' WHEN 'aborted' THEN 'A' ELSE 'F' END AS execution_status,
	r.start_status,
	r.next_load_status,
	r.row_audit_id,
	r.last_run_id,
	r.parent_run_id,
	r.parent_task_run_id,
	r.is_external,
	r.is_batch,
	r.params,
	r.selected_tasks,
	r.backfill_id,
	r.priority,
	r.nominal_time,
	r.window_start,
	r.window_end,
	r.trigger_type,
	r.trigger_name,
	r.triggered_by,
	pg_get_userbyid(r.owner) AS owner,
	r.external_system,
	r.external_run_id,
	r.source_name,
	r.target_name,
	r.queued_at,
	r.started_at,
	r.ended_at,
	r.deadline,
	extract(epoch FROM coalesce(r.started_at, r.ended_at, clock_timestamp()) - r.queued_at)::double precision AS queue_seconds,
	extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.started_at)::double precision AS run_seconds,
	r.cancel_reason,
	r.error_message,
	r.repair_no,
	r.restart_of,
	r.repairs
FROM (SELECT q.*, NULL::text AS ended_as FROM weir.run q WHERE q.live = 'q' AND q.status = 'queued'
	UNION ALL
	SELECT a.*, NULL FROM weir.run a WHERE a.live = 'a' AND a.status IN ('running', 'cancelling')
	UNION ALL
	SELECT e.*, NULL FROM weir.pipeline_state s JOIN weir.run e ON e.run_id = s.execution_id AND e.pipeline_id = s.pipeline_id
	WHERE s.execution_id IS NOT NULL AND e.live IS NULL AND e.status IN ('running', 'cancelling')
	UNION ALL
	SELECT f.*, f.status FROM weir.run f) r
WHERE (r.ended_as IS NULL OR r.ended_as NOT IN ('queued', 'running', 'cancelling'))
	AND ((SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
		OR weir._may_see(r.pipeline_id, r.owner))
ORDER BY r.run_id DESC;
COMMENT ON VIEW weir.runs IS 'Runs: what weir runs itself and what outside orchestrators log';
COMMENT ON COLUMN weir.runs.run_id IS 'Id of the run, the execution id';
COMMENT ON COLUMN weir.runs.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.runs.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.runs.project IS 'Project that an outside orchestrator gave';
COMMENT ON COLUMN weir.runs.version IS 'The version the run is pinned to; null for an execution of an outside orchestrator';
COMMENT ON COLUMN weir.runs.status IS 'queued, running, cancelling, succeeded, failed, timed_out, cancelled, skipped or aborted';
COMMENT ON COLUMN weir.runs.execution_status IS 'The same as a letter: Q queued, E running, S succeeded, F failed, C skipped, A aborted';
COMMENT ON COLUMN weir.runs.start_status IS 'Decision at start: E run, R run from the start, D resume after landing, C skip, A another is running';
COMMENT ON COLUMN weir.runs.next_load_status IS 'What the next start must do, decided when this run ended: P, R, D or C; of a partial run or a window of a backfill what its own restart must do';
COMMENT ON COLUMN weir.runs.row_audit_id IS 'Id stamped on landed rows: this run, or after D the origin';
COMMENT ON COLUMN weir.runs.last_run_id IS 'The run of the pipeline before this one';
COMMENT ON COLUMN weir.runs.parent_run_id IS 'The run it belongs to: of a batch, or whose task started it';
COMMENT ON COLUMN weir.runs.parent_task_run_id IS 'The task run of kind pipeline that started it';
COMMENT ON COLUMN weir.runs.is_external IS 'Driven by an outside orchestrator';
COMMENT ON COLUMN weir.runs.is_batch IS 'Its children are runs of other pipelines';
COMMENT ON COLUMN weir.runs.params IS 'Parameters, defaults filled in';
COMMENT ON COLUMN weir.runs.selected_tasks IS 'A partial run: only these tasks run; null for all';
COMMENT ON COLUMN weir.runs.backfill_id IS 'The backfill it belongs to';
COMMENT ON COLUMN weir.runs.priority IS 'Of the queued runs of a pipeline the highest priority starts first, then the oldest';
COMMENT ON COLUMN weir.runs.nominal_time IS 'The moment the run is for';
COMMENT ON COLUMN weir.runs.window_start IS 'Start of the window the run covers';
COMMENT ON COLUMN weir.runs.window_end IS 'End of the window, exclusive';
COMMENT ON COLUMN weir.runs.trigger_type IS 'manual, schedule, ... or what the outside orchestrator said';
COMMENT ON COLUMN weir.runs.trigger_name IS 'Name of the trigger';
COMMENT ON COLUMN weir.runs.triggered_by IS 'Role that triggered it';
COMMENT ON COLUMN weir.runs.owner IS 'Owner of the pipeline when the run was triggered';
COMMENT ON COLUMN weir.runs.external_system IS 'Outside orchestrator that drives the execution';
COMMENT ON COLUMN weir.runs.external_run_id IS 'Its id of this execution';
COMMENT ON COLUMN weir.runs.source_name IS 'Scoped name of the source';
COMMENT ON COLUMN weir.runs.target_name IS 'Scoped name of the target';
COMMENT ON COLUMN weir.runs.queued_at IS 'When it was triggered; reports ask for a period by this column';
COMMENT ON COLUMN weir.runs.started_at IS 'When it started';
COMMENT ON COLUMN weir.runs.ended_at IS 'When it reached its final state';
COMMENT ON COLUMN weir.runs.deadline IS 'When the run timeout strikes';
COMMENT ON COLUMN weir.runs.queue_seconds IS 'Seconds from trigger to start, so far if it has not started';
COMMENT ON COLUMN weir.runs.run_seconds IS 'Seconds from start to end, so far if it has not ended';
COMMENT ON COLUMN weir.runs.cancel_reason IS 'Who cancelled it and why';
COMMENT ON COLUMN weir.runs.error_message IS 'First error of the run, in one line';
COMMENT ON COLUMN weir.runs.repair_no IS 'How often it was repaired';
COMMENT ON COLUMN weir.runs.repairs IS 'Its last hundred repairs: who asked, when, for which tasks, and the parameters before it, if they were corrected';
COMMENT ON COLUMN weir.runs.restart_of IS 'The run it repeats, if weir.restart made it';

CREATE VIEW weir.task_runs WITH (security_barrier) AS
SELECT t.task_run_id,
	t.run_id,
	r.pipeline_id,
	r.pipeline_name,
	r.status AS run_status,
	t.task_no,
	t.task_name,
	t.kind,
	t.phase,
	t.status,
	t.pending_upstream,
	t.skip_reason,
	CASE WHEN t.status NOT IN ('succeeded', 'failed', 'timed_out')
		THEN (SELECT y.reason FROM weir._reason y WHERE y.task_run_id = t.task_run_id) END AS reason,
	t.item_no,
	t.item,
	t.parent_task_run_id,
	t.attempt_no,
	t.lost_count,
	t.not_before,
	CASE WHEN t.status = 'running' THEN (SELECT a.task_deadline FROM weir.attempt a
		WHERE a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no) ELSE t.deadline END AS deadline,
	t.output,
	t.rows_read,
	t.rows_written,
	t.external_run_id,
	t.external_url,
	t.error_message,
	t.ready_at,
	t.started_at,
	t.ended_at,
	extract(epoch FROM coalesce(t.started_at, t.ended_at, clock_timestamp()) - t.ready_at)::double precision AS wait_seconds,
	extract(epoch FROM coalesce(t.ended_at, clock_timestamp()) - t.started_at)::double precision AS run_seconds
FROM weir.task_run t
	JOIN LATERAL (SELECT n.pipeline_id, n.pipeline_name, n.status, n.owner
		FROM weir.run n WHERE n.run_id = t.run_id OFFSET 0) r ON true
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR weir._may_see(r.pipeline_id, r.owner)
ORDER BY t.run_id DESC, t.task_no DESC;
COMMENT ON VIEW weir.task_runs IS 'Task runs';
COMMENT ON COLUMN weir.task_runs.task_run_id IS 'Id of the task run';
COMMENT ON COLUMN weir.task_runs.run_id IS 'The run';
COMMENT ON COLUMN weir.task_runs.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.task_runs.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.task_runs.run_status IS 'Status of the run';
COMMENT ON COLUMN weir.task_runs.task_no IS 'The task in the run''s version';
COMMENT ON COLUMN weir.task_runs.task_name IS 'Name of the task; of an item: name[item_no]';
COMMENT ON COLUMN weir.task_runs.kind IS 'Kind of the task';
COMMENT ON COLUMN weir.task_runs.phase IS 'land, transform or publish';
COMMENT ON COLUMN weir.task_runs.status IS 'waiting, ready, running, succeeded, failed, timed_out, cancelled, blocked, reused or skipped';
COMMENT ON COLUMN weir.task_runs.pending_upstream IS 'Upstream tasks that have not ended yet';
COMMENT ON COLUMN weir.task_runs.skip_reason IS 'Why it was skipped: condition (run_if or a branch not taken), disabled, or not_selected in a partial run';
COMMENT ON COLUMN weir.task_runs.reason IS 'Why it does not move, or never ran: what it waits for, what blocked it, why it was skipped or cancelled; null for one that runs or ran';
COMMENT ON COLUMN weir.task_runs.item_no IS '0, or the number of the item of a for_each task';
COMMENT ON COLUMN weir.task_runs.item IS 'The item of a for_each task';
COMMENT ON COLUMN weir.task_runs.parent_task_run_id IS 'With an item: the task run of the for_each';
COMMENT ON COLUMN weir.task_runs.attempt_no IS 'Number of the latest attempt, 0 before the first';
COMMENT ON COLUMN weir.task_runs.lost_count IS 'Attempts in a row that were lost to a crash';
COMMENT ON COLUMN weir.task_runs.not_before IS 'A retry waits until then';
COMMENT ON COLUMN weir.task_runs.deadline IS 'When the task timeout strikes, known from the first attempt on';
COMMENT ON COLUMN weir.task_runs.output IS 'What the task returned';
COMMENT ON COLUMN weir.task_runs.rows_read IS 'Rows read, as the engine says';
COMMENT ON COLUMN weir.task_runs.rows_written IS 'Rows written, as the engine says';
COMMENT ON COLUMN weir.task_runs.external_run_id IS 'Id of the run in the engine (latest attempt)';
COMMENT ON COLUMN weir.task_runs.external_url IS 'The engine''s own page of that run';
COMMENT ON COLUMN weir.task_runs.error_message IS 'Error of the latest attempt, in one line';
COMMENT ON COLUMN weir.task_runs.ready_at IS 'When all upstream tasks had ended';
COMMENT ON COLUMN weir.task_runs.started_at IS 'When the first attempt was intended; reports ask for a period by this column';
COMMENT ON COLUMN weir.task_runs.ended_at IS 'When it reached its final state';
COMMENT ON COLUMN weir.task_runs.wait_seconds IS 'Seconds from ready to the first attempt, so far if there was none';
COMMENT ON COLUMN weir.task_runs.run_seconds IS 'Seconds from the first attempt to the end, so far if it has not ended';

CREATE VIEW weir.attempts WITH (security_barrier) AS
SELECT a.task_run_id,
	a.attempt_no,
	a.run_id,
	r.pipeline_name,
	t.task_name,
	t.kind,
	a.token,
	CASE WHEN a.status IN ('intended', 'started') AND a.kind_state ? 'uncertain' THEN 'uncertain' ELSE a.status END AS status,
	a.step,
	a.kind_state,
	a.request,
	a.external_run_id,
	a.worker_pid,
	a.intended_at,
	a.started_at,
	a.ended_at,
	a.deadline,
	a.task_deadline,
	extract(epoch FROM coalesce(a.ended_at, clock_timestamp()) - a.intended_at)::double precision AS run_seconds,
	a.http_status,
	a.sqlstate,
	a.error_code,
	a.error_message,
	a.failure_type
FROM weir.attempt a
	JOIN LATERAL (SELECT n.pipeline_id, n.pipeline_name, n.owner
		FROM weir.run n WHERE n.run_id = a.run_id OFFSET 0) r ON true
	LEFT JOIN LATERAL (SELECT n.task_name, n.kind
		FROM weir.task_run n WHERE n.task_run_id = a.task_run_id OFFSET 0) t ON true
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR weir._may_see(r.pipeline_id, r.owner);
COMMENT ON VIEW weir.attempts IS 'Attempts of task runs';
COMMENT ON COLUMN weir.attempts.task_run_id IS 'The task run';
COMMENT ON COLUMN weir.attempts.attempt_no IS '1, 2, 3, ...';
COMMENT ON COLUMN weir.attempts.run_id IS 'The run';
COMMENT ON COLUMN weir.attempts.pipeline_name IS 'Name of the pipeline when the run was triggered';
COMMENT ON COLUMN weir.attempts.task_name IS 'Name of the task';
COMMENT ON COLUMN weir.attempts.kind IS 'Kind of the task';
COMMENT ON COLUMN weir.attempts.token IS 'Idempotency token or correlation id';
COMMENT ON COLUMN weir.attempts.status IS 'intended, started, succeeded, failed, timed_out, cancelled or lost; uncertain while somebody has to say whether the engine began';
COMMENT ON COLUMN weir.attempts.step IS 'Next exchange with the engine';
COMMENT ON COLUMN weir.attempts.kind_state IS 'What the kind must remember from one exchange to the next';
COMMENT ON COLUMN weir.attempts.request IS 'Spec with references rendered, as sent';
COMMENT ON COLUMN weir.attempts.external_run_id IS 'Id of the run in the engine';
COMMENT ON COLUMN weir.attempts.worker_pid IS 'SQL worker that ran it';
COMMENT ON COLUMN weir.attempts.intended_at IS 'When the intent was written; reports ask for a period by this column';
COMMENT ON COLUMN weir.attempts.started_at IS 'When the engine or a worker took it';
COMMENT ON COLUMN weir.attempts.ended_at IS 'When its outcome was written';
COMMENT ON COLUMN weir.attempts.deadline IS 'When the attempt timeout or the task timeout strikes, whichever comes first';
COMMENT ON COLUMN weir.attempts.task_deadline IS 'When the task timeout strikes, which is of all attempts';
COMMENT ON COLUMN weir.attempts.run_seconds IS 'Seconds from intent to outcome, so far if there is none';
COMMENT ON COLUMN weir.attempts.http_status IS 'Status of the response that decided';
COMMENT ON COLUMN weir.attempts.sqlstate IS 'SQLSTATE of a SQL task''s error';
COMMENT ON COLUMN weir.attempts.error_code IS 'Code the engine gave';
COMMENT ON COLUMN weir.attempts.error_message IS 'Message the engine gave';
COMMENT ON COLUMN weir.attempts.failure_type IS 'user (the pipeline must be mended) or system (trying again may help)';

CREATE VIEW weir.errors WITH (security_barrier) AS
SELECT e.error_id,
	e.run_id,
	r.pipeline_id,
	r.pipeline_name,
	r.parent_run_id,
	e.task_run_id,
	e.attempt_no,
	e.activity,
	e.code,
	e.message,
	e.detail,
	e.output,
	e.failure_type,
	e.occurred_at
FROM weir.error e
	JOIN LATERAL (SELECT n.pipeline_id, n.pipeline_name, n.parent_run_id, n.owner
		FROM weir.run n WHERE n.run_id = e.run_id OFFSET 0) r ON true
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR weir._may_see(r.pipeline_id, r.owner)
ORDER BY e.error_id DESC;
COMMENT ON VIEW weir.errors IS 'Errors of runs';
COMMENT ON COLUMN weir.errors.error_id IS 'Id of the error';
COMMENT ON COLUMN weir.errors.run_id IS 'The run';
COMMENT ON COLUMN weir.errors.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.errors.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.errors.parent_run_id IS 'The batch run it belongs to';
COMMENT ON COLUMN weir.errors.task_run_id IS 'The task run, if it was one of weir''s';
COMMENT ON COLUMN weir.errors.attempt_no IS 'The attempt';
COMMENT ON COLUMN weir.errors.activity IS 'Name of the task or of the outside activity';
COMMENT ON COLUMN weir.errors.code IS 'Error code: SQLSTATE, HTTP status or the engine''s own';
COMMENT ON COLUMN weir.errors.message IS 'Error text';
COMMENT ON COLUMN weir.errors.detail IS 'More of it, such as a trace';
COMMENT ON COLUMN weir.errors.output IS 'What an outside orchestrator gave with it';
COMMENT ON COLUMN weir.errors.failure_type IS 'user or system';
COMMENT ON COLUMN weir.errors.occurred_at IS 'When; reports ask for a period by this column';

CREATE VIEW weir.activities WITH (security_barrier) AS
SELECT a.run_id,
	r.pipeline_id,
	r.pipeline_name,
	r.row_audit_id,
	a.activity,
	a.task_run_id,
	a.activity_type,
	a.phase,
	a.status,
	a.rows_read,
	a.rows_copied,
	a.rows_skipped,
	a.bytes_read,
	a.bytes_written,
	a.started_at,
	a.ended_at,
	extract(epoch FROM coalesce(a.ended_at, clock_timestamp()) - a.started_at)::double precision AS run_seconds,
	a.output,
	a.error_code,
	a.error_message,
	a.logged_at
FROM weir.activity a
	JOIN LATERAL (SELECT n.pipeline_id, n.pipeline_name, n.row_audit_id, n.owner
		FROM weir.run n WHERE n.run_id = a.run_id OFFSET 0) r ON true
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR weir._may_see(r.pipeline_id, r.owner);
COMMENT ON VIEW weir.activities IS 'Activities inside runs: those an outside orchestrator logged, and those of an engine''s run';
COMMENT ON COLUMN weir.activities.run_id IS 'The run';
COMMENT ON COLUMN weir.activities.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.activities.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.activities.row_audit_id IS 'Id the run stamps rows with';
COMMENT ON COLUMN weir.activities.activity IS 'Name of the activity; for activities of a task run: task/activity';
COMMENT ON COLUMN weir.activities.task_run_id IS 'The task run whose engine reported it';
COMMENT ON COLUMN weir.activities.activity_type IS 'Type, such as Copy';
COMMENT ON COLUMN weir.activities.phase IS 'land, transform or publish';
COMMENT ON COLUMN weir.activities.status IS 'running, succeeded, failed, skipped or cancelled';
COMMENT ON COLUMN weir.activities.rows_read IS 'Rows read';
COMMENT ON COLUMN weir.activities.rows_copied IS 'Rows copied';
COMMENT ON COLUMN weir.activities.rows_skipped IS 'Rows skipped';
COMMENT ON COLUMN weir.activities.bytes_read IS 'Bytes read';
COMMENT ON COLUMN weir.activities.bytes_written IS 'Bytes written';
COMMENT ON COLUMN weir.activities.started_at IS 'When it started';
COMMENT ON COLUMN weir.activities.ended_at IS 'When it ended';
COMMENT ON COLUMN weir.activities.run_seconds IS 'Seconds from start to end, so far if it has not ended';
COMMENT ON COLUMN weir.activities.output IS 'Output as the engine gave it';
COMMENT ON COLUMN weir.activities.error_code IS 'Error code';
COMMENT ON COLUMN weir.activities.error_message IS 'Error text';
COMMENT ON COLUMN weir.activities.logged_at IS 'When it was last logged; reports ask for a period by this column';

CREATE VIEW weir.row_counts WITH (security_barrier) AS
SELECT c.run_id,
	r.pipeline_id,
	r.pipeline_name,
	c.component,
	c.object_name,
	c.count_type,
	c.row_count,
	c.column_name,
	c.column_sum,
	c.logged_at
FROM weir.row_count c
	JOIN LATERAL (SELECT n.pipeline_id, n.pipeline_name, n.owner
		FROM weir.run n WHERE n.run_id = c.run_id OFFSET 0) r ON true
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR weir._may_see(r.pipeline_id, r.owner);
COMMENT ON VIEW weir.row_counts IS 'Row counts of runs';
COMMENT ON COLUMN weir.row_counts.run_id IS 'The run';
COMMENT ON COLUMN weir.row_counts.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.row_counts.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.row_counts.component IS 'Component or task that counted';
COMMENT ON COLUMN weir.row_counts.object_name IS 'Object counted';
COMMENT ON COLUMN weir.row_counts.count_type IS 'Select, Insert, Update, Delete, Unaffected, Intermediate, Error, Exception, Control or Unknown';
COMMENT ON COLUMN weir.row_counts.row_count IS 'The count';
COMMENT ON COLUMN weir.row_counts.column_name IS 'Column summed as a check';
COMMENT ON COLUMN weir.row_counts.column_sum IS 'Its sum';
COMMENT ON COLUMN weir.row_counts.logged_at IS 'When it was last logged; reports ask for a period by this column';

CREATE VIEW weir.config_variables WITH (security_barrier) AS
SELECT v.system_name,
	v.object_name,
	v.variable_name,
	v.type,
	v.value,
	h.previous_value,
	v.run_id,
	h.previous_run_id,
	r.pipeline_name,
	v.changed_by,
	v.changed_at
FROM weir.config_variable v
	LEFT JOIN LATERAL (SELECT l.previous_value, l.previous_run_id FROM weir.config_variable_history l
		WHERE l.system_name = v.system_name AND l.object_name = v.object_name AND l.variable_name = v.variable_name
		ORDER BY l.change_no DESC LIMIT 1) h ON true
	LEFT JOIN weir.run r ON r.run_id = v.run_id
	LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR pg_has_role(coalesce(p.owner, r.owner), 'USAGE');
COMMENT ON VIEW weir.config_variables IS 'Config variables, such as watermarks, with the value before the last change';
COMMENT ON COLUMN weir.config_variables.system_name IS 'System';
COMMENT ON COLUMN weir.config_variables.object_name IS 'Object; empty for a variable of the whole system';
COMMENT ON COLUMN weir.config_variables.variable_name IS 'Variable';
COMMENT ON COLUMN weir.config_variables.type IS 'text, bigint, numeric or timestamptz: decides how values compare';
COMMENT ON COLUMN weir.config_variables.value IS 'Value, in the text form of its type';
COMMENT ON COLUMN weir.config_variables.previous_value IS 'Value before the last change';
COMMENT ON COLUMN weir.config_variables.run_id IS 'Run that set it last';
COMMENT ON COLUMN weir.config_variables.previous_run_id IS 'Run that had set the value before';
COMMENT ON COLUMN weir.config_variables.pipeline_name IS 'Pipeline of the run that set it last';
COMMENT ON COLUMN weir.config_variables.changed_by IS 'Role that set it last';
COMMENT ON COLUMN weir.config_variables.changed_at IS 'When it was set last';

CREATE VIEW weir.pipelines WITH (security_barrier) AS
SELECT p.pipeline_id,
	p.name,
	p.project,
	p.description,
	pg_get_userbyid(p.owner) AS owner,
	p.current_version,
	p.is_enabled,
	p.is_paused,
	p.is_batch,
	p.stale_after,
	s.next_load_status,
	s.skip_once,
	s.origin_row_audit_id,
	s.last_run_id,
	l.status AS last_status,
	l.started_at AS last_started_at,
	l.ended_at AS last_ended_at,
	l.error_message AS last_error_message,
	s.last_success_run_id,
	w.ended_at AS last_success_at,
	p.created_at,
	p.changed_at
FROM weir.pipeline p
	LEFT JOIN weir.pipeline_state s ON s.pipeline_id = p.pipeline_id
	LEFT JOIN weir.run l ON l.run_id = s.last_run_id
	LEFT JOIN weir.run w ON w.run_id = s.last_success_run_id
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR pg_has_role(p.owner, 'USAGE');
COMMENT ON VIEW weir.pipelines IS 'Pipelines with their restart state and last runs';
COMMENT ON COLUMN weir.pipelines.pipeline_id IS 'Id of the pipeline';
COMMENT ON COLUMN weir.pipelines.name IS 'Name, unique in the database';
COMMENT ON COLUMN weir.pipelines.project IS 'Project that an outside orchestrator gave';
COMMENT ON COLUMN weir.pipelines.description IS 'What the pipeline does';
COMMENT ON COLUMN weir.pipelines.owner IS 'Role as which SQL tasks run';
COMMENT ON COLUMN weir.pipelines.current_version IS 'Version new runs start with; null: no definition here';
COMMENT ON COLUMN weir.pipelines.is_enabled IS 'A start of a disabled pipeline is answered C (skip)';
COMMENT ON COLUMN weir.pipelines.is_paused IS 'Runs of a paused pipeline stay queued';
COMMENT ON COLUMN weir.pipelines.is_batch IS 'Its children are pipelines';
COMMENT ON COLUMN weir.pipelines.stale_after IS 'An outside execution silent for this time counts as crashed; null: weir.stale_execution_after';
COMMENT ON COLUMN weir.pipelines.next_load_status IS 'What the next start does: P process, R rerun from the start, D resume after landing (with max_concurrent_runs above 1: one for the same, see weir.landings), C skip';
COMMENT ON COLUMN weir.pipelines.skip_once IS 'The next start is answered C, once';
COMMENT ON COLUMN weir.pipelines.origin_row_audit_id IS 'With D: the run that landed the data';
COMMENT ON COLUMN weir.pipelines.last_run_id IS 'The run that started last';
COMMENT ON COLUMN weir.pipelines.last_status IS 'Its status';
COMMENT ON COLUMN weir.pipelines.last_started_at IS 'When it started';
COMMENT ON COLUMN weir.pipelines.last_ended_at IS 'When it ended';
COMMENT ON COLUMN weir.pipelines.last_error_message IS 'Its first error, in one line';
COMMENT ON COLUMN weir.pipelines.last_success_run_id IS 'The run that last succeeded';
COMMENT ON COLUMN weir.pipelines.last_success_at IS 'When that ended';
COMMENT ON COLUMN weir.pipelines.created_at IS 'When it was created';
COMMENT ON COLUMN weir.pipelines.changed_at IS 'When it last changed';
CREATE VIEW weir.backfills WITH (security_barrier) AS
SELECT b.backfill_id,
	b.pipeline_id,
	b.pipeline_name,
	b.window_from,
	b.window_to,
	b.step,
	b.concurrency,
	n.runs,
	n.queued,
	n.running,
	n.succeeded,
	n.runs - n.queued - n.running - n.succeeded AS not_succeeded,
	b.created_by,
	b.created_at
FROM weir.backfill b
	LEFT JOIN weir.pipeline p ON p.pipeline_id = b.pipeline_id
	CROSS JOIN LATERAL (SELECT count(*) AS runs,
		count(*) FILTER (WHERE r.status = 'queued') AS queued,
		count(*) FILTER (WHERE r.status IN ('running', 'cancelling')) AS running,
		count(*) FILTER (WHERE r.status = 'succeeded') AS succeeded
		FROM weir.run r WHERE r.backfill_id = b.backfill_id) n
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR pg_has_role(p.owner, 'USAGE')
ORDER BY b.backfill_id DESC;
COMMENT ON VIEW weir.backfills IS 'Backfills and how far they are';
COMMENT ON COLUMN weir.backfills.backfill_id IS 'Id of the backfill';
COMMENT ON COLUMN weir.backfills.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.backfills.pipeline_name IS 'Its name when the backfill was asked for';
COMMENT ON COLUMN weir.backfills.window_from IS 'Start of the first window';
COMMENT ON COLUMN weir.backfills.window_to IS 'End of the last window, exclusive';
COMMENT ON COLUMN weir.backfills.step IS 'Length of a window';
COMMENT ON COLUMN weir.backfills.concurrency IS 'So many of its runs at the same time';
COMMENT ON COLUMN weir.backfills.runs IS 'Its runs, one for each window';
COMMENT ON COLUMN weir.backfills.queued IS 'Runs that have not started';
COMMENT ON COLUMN weir.backfills.running IS 'Runs going on';
COMMENT ON COLUMN weir.backfills.succeeded IS 'Runs that succeeded';
COMMENT ON COLUMN weir.backfills.not_succeeded IS 'Runs that failed, timed out, were cancelled or skipped';
COMMENT ON COLUMN weir.backfills.created_by IS 'Role that asked for it';
COMMENT ON COLUMN weir.backfills.created_at IS 'When';

CREATE VIEW weir.landings WITH (security_barrier) AS
SELECT l.pipeline_id,
	p.name AS pipeline_name,
	l.row_audit_id,
	l.run_id,
	l.params,
	l.nominal_time,
	l.window_start,
	l.window_end,
	l.left_at,
	(SELECT max(r.run_id) FROM weir._active a JOIN weir.run r ON r.run_id = a.run_id
		WHERE a.pipeline_id = l.pipeline_id AND r.row_audit_id = l.row_audit_id) AS resumed_by_run_id
FROM weir.landing l
	JOIN weir.pipeline p ON p.pipeline_id = l.pipeline_id
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR pg_has_role(p.owner, 'USAGE')
ORDER BY l.row_audit_id;
COMMENT ON VIEW weir.landings IS 'What landed in runs that failed after it, and is still to be resumed (D)';
COMMENT ON COLUMN weir.landings.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.landings.pipeline_name IS 'Its name';
COMMENT ON COLUMN weir.landings.row_audit_id IS 'The run that landed: the id stamped on the rows';
COMMENT ON COLUMN weir.landings.run_id IS 'The run that failed last with it; weir.restart of it resumes the landing';
COMMENT ON COLUMN weir.landings.params IS 'Parameters of that run';
COMMENT ON COLUMN weir.landings.nominal_time IS 'The moment it was for';
COMMENT ON COLUMN weir.landings.window_start IS 'Start of its window';
COMMENT ON COLUMN weir.landings.window_end IS 'End of its window, exclusive';
COMMENT ON COLUMN weir.landings.left_at IS 'When that run ended';
COMMENT ON COLUMN weir.landings.resumed_by_run_id IS 'The run that is resuming it now';

GRANT SELECT ON weir.runs,
	weir.backfills,
	weir.landings,
	weir.task_runs,
	weir.attempts,
	weir.errors,
	weir.activities,
	weir.row_counts,
	weir.config_variables,
	weir.pipelines
	TO PUBLIC;

-- Pools, for weir's roles and their owners.
CREATE VIEW weir.pools WITH (security_barrier) AS
SELECT p.name, p.slots, coalesce(u.used, 0) AS used, coalesce(u.running, 0) AS running, coalesce(w.waiting, 0) AS waiting,
	p.description, p.owner, p.created_at, p.changed_at
FROM weir.pool p
	LEFT JOIN (SELECT t.pool, sum(t.pool_slots)::integer AS used, count(*) AS running FROM weir._active_task_run t
		WHERE t.status = 'running' AND t.pool IS NOT NULL GROUP BY t.pool) u ON u.pool = p.name
	LEFT JOIN (SELECT t.pool, count(*) AS waiting FROM weir._active_task_run t
		WHERE t.status = 'ready' AND t.not_before IS NULL AND t.pool IS NOT NULL GROUP BY t.pool) w ON w.pool = p.name
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR pg_has_role(p.owner, 'USAGE')
ORDER BY p.name;
COMMENT ON VIEW weir.pools IS 'Pools: how many slots are taken and how many task runs wait for some';
COMMENT ON COLUMN weir.pools.name IS 'Name of the pool';
COMMENT ON COLUMN weir.pools.slots IS 'Slots there are';
COMMENT ON COLUMN weir.pools.used IS 'Slots taken by task runs that are running; above slots only after slots were reduced';
COMMENT ON COLUMN weir.pools.running IS 'Task runs that take them';
COMMENT ON COLUMN weir.pools.waiting IS 'Task runs that are ready and have not started';
COMMENT ON COLUMN weir.pools.description IS 'What the pool protects';
COMMENT ON COLUMN weir.pools.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.pools.created_at IS 'When it was created';
COMMENT ON COLUMN weir.pools.changed_at IS 'When it last changed';
GRANT SELECT ON weir.pools TO PUBLIC;

CREATE VIEW weir.circuits WITH (security_barrier) AS
SELECT connection_name, CASE WHEN is_asked THEN 'retry_after' ELSE 'unreachable' END AS reason, opened_at, retry_at, failures, last_error
FROM weir.circuit
WHERE NOT is_asked OR retry_at > clock_timestamp();
COMMENT ON VIEW weir.circuits IS 'Connections through which nothing is sent for a while: see reason; weir.resume_connection ends that';
COMMENT ON COLUMN weir.circuits.connection_name IS 'The connection';
COMMENT ON COLUMN weir.circuits.reason IS 'unreachable (one exchange is tried now and then) or retry_after (the service asked for no request before retry_at)';
COMMENT ON COLUMN weir.circuits.opened_at IS 'Since when';
COMMENT ON COLUMN weir.circuits.retry_at IS 'When the next exchange is tried';
COMMENT ON COLUMN weir.circuits.failures IS 'Failures in a row';
COMMENT ON COLUMN weir.circuits.last_error IS 'The latest of them';
GRANT SELECT ON weir.circuits TO weir_reader, weir_operator, weir_admin;
