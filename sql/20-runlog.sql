-- What happened.  Not dumped, except sequences (a row_audit_id is never used
-- twice) and config variables (they belong to the data).

CREATE SEQUENCE weir.run_id_seq;
COMMENT ON SEQUENCE weir.run_id_seq IS 'Ids of runs, which are also execution ids and row audit ids';
CREATE SEQUENCE weir.task_run_id_seq CACHE 100;
COMMENT ON SEQUENCE weir.task_run_id_seq IS 'Ids of task runs';
CREATE SEQUENCE weir.error_id_seq CACHE 20;
COMMENT ON SEQUENCE weir.error_id_seq IS 'Ids of errors';
CREATE SEQUENCE weir.request_id_seq;
COMMENT ON SEQUENCE weir.request_id_seq IS 'Ids of requests to the conductor';

-- Statuses and codes are checked by the code that knows them: a list written
-- here would be read and planned again by every statement that writes a row.
CREATE FUNCTION weir._is_run(status text, start_status "char", next_load_status "char") RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_is_run' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._is_run(text, "char", "char") IS 'Are these a status and the codes of a run?';
CREATE FUNCTION weir._is_task_run(status text, skip_reason text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_is_task_run' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._is_task_run(text, text) IS 'Are these a status of a task run and a reason why one is skipped?';
CREATE FUNCTION weir._is_attempt(status text, failure_type text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_is_attempt' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._is_attempt(text, text) IS 'Are these a status of an attempt and a type of failure?';
CREATE FUNCTION weir._is_count_type(count_type text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_is_count_type' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._is_count_type(text) IS 'Is this a type of row count?';
REVOKE ALL ON FUNCTION weir._is_run(text, "char", "char"), weir._is_task_run(text, text), weir._is_attempt(text, text),
	weir._is_count_type(text) FROM PUBLIC;

-- Generated columns are functions for the same reason (src/runlog/derived.c).
CREATE FUNCTION weir._run_live(is_external boolean, status text) RETURNS "char"
	AS 'MODULE_PATHNAME', 'weir_run_live' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._run_live(boolean, text) IS 'Of runs of weir: q queued, a running or being cancelled; null for all others';
CREATE FUNCTION weir._task_lane(kind text, uses_worker boolean, run_limit integer, pool text, pool_slots integer, connection_name text) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_task_lane' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._task_lane(text, boolean, integer, text, integer, text) IS 'What a task run needs to start: noop, or sql or call, #limit of its run, :pool:slots, @connection';
CREATE FUNCTION weir._item_live(parent_task_run_id bigint, status text) RETURNS "char"
	AS 'MODULE_PATHNAME', 'weir_item_live' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._item_live(bigint, text) IS 'Of items of a for_each: w waiting, a ready or running; null for all others';
CREATE FUNCTION weir._retry_deadline(deadline timestamptz, status text) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'weir_retry_deadline' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._retry_deadline(timestamptz, text) IS 'When the task timeout strikes a task run that waits for its next attempt';
CREATE FUNCTION weir._attempt_signal(kind_state jsonb, status text) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_attempt_signal' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._attempt_signal(jsonb, text) IS 'The signal that an attempt waits for';
CREATE FUNCTION weir._callback_key(kind_state jsonb) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_callback_key' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._callback_key(jsonb) IS 'Key of the callback that an attempt got';
CREATE FUNCTION weir._start_place(kind_state jsonb) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_start_place' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._start_place(jsonb) IS 'Where attempts start one at a time';
REVOKE ALL ON FUNCTION weir._run_live(boolean, text), weir._task_lane(text, boolean, integer, text, integer, text),
	weir._item_live(bigint, text), weir._retry_deadline(timestamptz, text),
	weir._attempt_signal(jsonb, text), weir._callback_key(jsonb), weir._start_place(jsonb) FROM PUBLIC;

CREATE TABLE weir.run (
	run_id			bigint PRIMARY KEY DEFAULT nextval('weir.run_id_seq'),
	pipeline_id		bigint NOT NULL,
	pipeline_name	text NOT NULL,
	version			integer,
	is_external		boolean NOT NULL DEFAULT false,
	is_batch		boolean NOT NULL DEFAULT false,
	parent_run_id	bigint,
	parent_task_run_id bigint,
	status			text NOT NULL DEFAULT 'queued',
	start_status	"char",
	next_load_status "char",
	row_audit_id	bigint,
	last_run_id		bigint,
	params			jsonb NOT NULL DEFAULT '{}',
	selected_tasks	text[],
	backfill_id		bigint,
	is_apart		boolean NOT NULL GENERATED ALWAYS AS (selected_tasks IS NOT NULL OR backfill_id IS NOT NULL) STORED,
	priority		integer NOT NULL DEFAULT 0,
	on_overlap		text,
	nominal_time	timestamptz,
	window_start	timestamptz,
	window_end		timestamptz,
	trigger_type	text NOT NULL DEFAULT 'manual',
	trigger_name	text,
	triggered_by	text NOT NULL,
	owner			regrole NOT NULL,
	external_system text,
	external_run_id text,
	source_name		text,
	target_name		text,
	queued_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	started_at		timestamptz,
	ended_at		timestamptz,
	deadline		timestamptz,
	cancel_reason	text,
	error_message	text,
	repair_no		integer NOT NULL DEFAULT 0,
	repairs			jsonb,
	restart_of		bigint,
	live			"char" GENERATED ALWAYS AS (weir._run_live(is_external, status)) STORED,
	CONSTRAINT run_status_check CHECK (weir._is_run(status, start_status, next_load_status))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
-- What is queued and what goes on of weir's own runs.  No index names the
-- status: so the end of an execution of an outside orchestrator leaves all of
-- them as they are.
CREATE INDEX run_queued ON weir.run (pipeline_id, priority DESC, run_id) WHERE live = 'q';
CREATE INDEX run_overlap ON weir.run (pipeline_id, run_id) WHERE live = 'q' AND on_overlap IS NOT NULL;
CREATE INDEX run_by_backfill ON weir.run (backfill_id, run_id) WHERE backfill_id IS NOT NULL;
CREATE INDEX run_queued_backfill ON weir.run (pipeline_id, backfill_id, run_id) WHERE live = 'q' AND backfill_id IS NOT NULL;
CREATE INDEX run_active ON weir.run (pipeline_id, run_id) WHERE live = 'a';
CREATE INDEX run_deadline ON weir.run (deadline) WHERE live = 'a' AND deadline IS NOT NULL;
CREATE INDEX run_by_pipeline ON weir.run (pipeline_id, run_id DESC);
CREATE INDEX run_by_parent ON weir.run (parent_run_id, parent_task_run_id, run_id) WHERE parent_run_id IS NOT NULL;
CREATE UNIQUE INDEX run_external ON weir.run (pipeline_id, external_system, external_run_id) NULLS NOT DISTINCT WHERE external_run_id IS NOT NULL;
-- Reports ask for a period, here and in the tables below.
CREATE INDEX run_by_time ON weir.run (queued_at);
COMMENT ON TABLE weir.run IS 'One execution of a pipeline; its id is the execution id of outside orchestrators';
COMMENT ON COLUMN weir.run.run_id IS 'Id of the run, the execution id';
COMMENT ON COLUMN weir.run.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.run.pipeline_name IS 'Its name when the run was triggered';
COMMENT ON COLUMN weir.run.version IS 'The version the run is pinned to; null for an execution of an outside orchestrator';
COMMENT ON COLUMN weir.run.is_external IS 'Driven by an outside orchestrator through log_execution_start';
COMMENT ON COLUMN weir.run.is_batch IS 'Its children are runs of other pipelines';
COMMENT ON COLUMN weir.run.parent_run_id IS 'The run it belongs to: of a batch, or whose task started it';
COMMENT ON COLUMN weir.run.parent_task_run_id IS 'The task run of kind pipeline that started it';
COMMENT ON COLUMN weir.run.status IS 'queued, running, cancelling, succeeded, failed, timed_out, cancelled, skipped (C) or aborted (A)';
COMMENT ON COLUMN weir.run.start_status IS 'Decision at start: E run, R run from the start, D resume after landing, C skip, A another is running';
COMMENT ON COLUMN weir.run.next_load_status IS 'What the next start must do, decided when this run ended; of a partial run or a window of a backfill: what its own restart must do';
COMMENT ON COLUMN weir.run.row_audit_id IS 'Id stamped on landed rows: this run, or after D the origin';
COMMENT ON COLUMN weir.run.last_run_id IS 'The run of the pipeline before this one; with D the one that left what it resumes';
COMMENT ON COLUMN weir.run.params IS 'Parameters, defaults filled in';
COMMENT ON COLUMN weir.run.selected_tasks IS 'A partial run: only these tasks run; null for all';
COMMENT ON COLUMN weir.run.backfill_id IS 'The backfill it belongs to';
COMMENT ON COLUMN weir.run.is_apart IS 'Partial runs and backfills: they say nothing of what the pipeline''s next start must do';
COMMENT ON COLUMN weir.run.priority IS 'Of the queued runs of a pipeline the highest priority starts first, then the oldest';
COMMENT ON COLUMN weir.run.on_overlap IS 'skip or cancel_older: what it does instead of waiting for other runs of its pipeline; null waits';
COMMENT ON COLUMN weir.run.nominal_time IS 'The moment the run is for';
COMMENT ON COLUMN weir.run.window_start IS 'Start of the window the run covers';
COMMENT ON COLUMN weir.run.window_end IS 'End of the window, exclusive';
COMMENT ON COLUMN weir.run.trigger_type IS 'manual, schedule, ... or what the outside orchestrator said';
COMMENT ON COLUMN weir.run.trigger_name IS 'Name of the trigger';
COMMENT ON COLUMN weir.run.triggered_by IS 'Role that triggered it';
COMMENT ON COLUMN weir.run.owner IS 'Owner of the pipeline when the run was triggered';
COMMENT ON COLUMN weir.run.external_system IS 'Outside orchestrator that drives the execution';
COMMENT ON COLUMN weir.run.external_run_id IS 'Its id of this execution';
COMMENT ON COLUMN weir.run.source_name IS 'Scoped name of the source, as given by the outside orchestrator';
COMMENT ON COLUMN weir.run.target_name IS 'Scoped name of the target, as given by the outside orchestrator';
COMMENT ON COLUMN weir.run.queued_at IS 'When it was triggered';
COMMENT ON COLUMN weir.run.started_at IS 'When it started';
COMMENT ON COLUMN weir.run.ended_at IS 'When it reached its final state';
COMMENT ON COLUMN weir.run.deadline IS 'When the run timeout strikes';
COMMENT ON COLUMN weir.run.cancel_reason IS 'Who cancelled it and why';
COMMENT ON COLUMN weir.run.error_message IS 'First error of the run, in one line';
COMMENT ON COLUMN weir.run.live IS 'Of runs of weir: q queued, a running or being cancelled, null for what has ended';
COMMENT ON COLUMN weir.run.repair_no IS 'How often it was repaired';
COMMENT ON COLUMN weir.run.repairs IS 'Its last hundred repairs: who asked, when, for which tasks, and the parameters before it, if they were corrected';
COMMENT ON COLUMN weir.run.restart_of IS 'The run it repeats, if weir.restart made it';

CREATE VIEW weir._active AS
SELECT r.pipeline_id, r.run_id, r.is_apart
FROM weir.run r
WHERE r.live = 'a'
UNION ALL
SELECT s.pipeline_id, s.execution_id, false
FROM weir.pipeline_state s
WHERE s.execution_id IS NOT NULL
	-- not after a restore: the log is not dumped
	AND EXISTS (SELECT FROM weir.run e WHERE e.run_id = s.execution_id AND e.pipeline_id = s.pipeline_id);
COMMENT ON VIEW weir._active IS 'What goes on, of weir and of outside orchestrators';
COMMENT ON COLUMN weir._active.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir._active.run_id IS 'The run, or the execution; of a pipeline at most one of the latter';
COMMENT ON COLUMN weir._active.is_apart IS 'Whether it says nothing of what the pipeline''s next start must do';

CREATE TABLE weir.task_run (
	task_run_id		bigint PRIMARY KEY DEFAULT nextval('weir.task_run_id_seq'),
	run_id			bigint NOT NULL,
	task_no			integer NOT NULL,
	task_name		text NOT NULL,
	kind			text NOT NULL,
	phase			text NOT NULL,
	status			text NOT NULL,
	pending_upstream integer NOT NULL DEFAULT 0,
	failed_upstream integer NOT NULL DEFAULT 0,
	blocked_upstream integer NOT NULL DEFAULT 0,
	skipped_upstream integer NOT NULL DEFAULT 0,
	skip_reason		text,
	item_no			integer NOT NULL DEFAULT 0,
	item			jsonb,
	parent_task_run_id bigint,
	attempt_no		integer NOT NULL DEFAULT 0,
	budget_from		integer NOT NULL DEFAULT 0,
	lost_count		integer NOT NULL DEFAULT 0,
	not_before		timestamptz,
	deadline		timestamptz,
	output			jsonb,
	rows_read		bigint,
	rows_written	bigint,
	external_run_id text,
	external_url	text,
	reference		jsonb,
	error_message	text,
	priority		integer NOT NULL DEFAULT 0,
	pool			text,
	pool_slots		integer NOT NULL DEFAULT 1,
	run_limit		integer,
	connection_name	text,
	uses_worker		boolean,
	lane			text COLLATE "C" GENERATED ALWAYS AS (weir._task_lane(kind, uses_worker, run_limit, pool, pool_slots, connection_name)) STORED,
	ready_at		timestamptz,
	started_at		timestamptz,
	ended_at		timestamptz,
	live_item		"char" GENERATED ALWAYS AS (weir._item_live(parent_task_run_id, status)) STORED,
	retry_deadline	timestamptz GENERATED ALWAYS AS (weir._retry_deadline(deadline, status)) STORED,
	UNIQUE (run_id, item_no, task_no),
	CONSTRAINT task_run_status_check CHECK (weir._is_task_run(status, skip_reason))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
-- No index names the status: of what a task run goes through only its start
-- concerns one of them, and in the other changes its row stays in its page,
-- where room is kept for a second version of each.  What is live is found
-- through its run, see weir._active_task_run; only items, of which a run may
-- have very many, have indexes of their own.
CREATE INDEX task_run_item_active ON weir.task_run (parent_task_run_id) WHERE live_item = 'a';
CREATE INDEX task_run_item_waiting ON weir.task_run (parent_task_run_id, item_no) WHERE live_item = 'w';
CREATE INDEX task_run_retry_deadline ON weir.task_run (retry_deadline) WHERE retry_deadline IS NOT NULL;
CREATE INDEX task_run_by_time ON weir.task_run (started_at) WHERE started_at IS NOT NULL;
COMMENT ON TABLE weir.task_run IS 'One execution of a task in a run';
COMMENT ON COLUMN weir.task_run.task_run_id IS 'Id of the task run';
COMMENT ON COLUMN weir.task_run.run_id IS 'The run';
COMMENT ON COLUMN weir.task_run.task_no IS 'The task in the run''s version';
COMMENT ON COLUMN weir.task_run.task_name IS 'Name of the task; of an item: name[item_no]';
COMMENT ON COLUMN weir.task_run.kind IS 'Kind of the task';
COMMENT ON COLUMN weir.task_run.phase IS 'land, transform or publish';
COMMENT ON COLUMN weir.task_run.status IS 'waiting, ready, running, succeeded, failed, timed_out, cancelled, blocked (an upstream task failed), reused (landed by an earlier run) or skipped (see skip_reason)';
COMMENT ON COLUMN weir.task_run.pending_upstream IS 'Upstream tasks that have not ended yet';
COMMENT ON COLUMN weir.task_run.failed_upstream IS 'Dependencies not met because the upstream task failed, timed out or was cancelled';
COMMENT ON COLUMN weir.task_run.blocked_upstream IS 'Dependencies not met because the upstream task was blocked by a failure above it';
COMMENT ON COLUMN weir.task_run.skipped_upstream IS 'Dependencies not met though nothing failed: a branch not taken, a task that was skipped';
COMMENT ON COLUMN weir.task_run.skip_reason IS 'Why it was skipped: condition (run_if or a branch not taken), disabled, or not_selected in a partial run';
COMMENT ON COLUMN weir.task_run.item_no IS '0, or the number of the item of a for_each task';
COMMENT ON COLUMN weir.task_run.item IS 'The item of a for_each task, for {{item}}';
COMMENT ON COLUMN weir.task_run.parent_task_run_id IS 'With an item: the task run of the for_each';
COMMENT ON COLUMN weir.task_run.attempt_no IS 'Number of the latest attempt, 0 before the first';
COMMENT ON COLUMN weir.task_run.budget_from IS 'Attempts up to this number do not count against max_attempts: those before the latest repair, and lost ones';
COMMENT ON COLUMN weir.task_run.lost_count IS 'Attempts in a row that were lost to a crash';
COMMENT ON COLUMN weir.task_run.not_before IS 'A retry waits until then; null as soon as it may start';
COMMENT ON COLUMN weir.task_run.deadline IS 'When the task timeout strikes; set when an attempt is to be followed by another';
COMMENT ON COLUMN weir.task_run.output IS 'What the task returned, for {{tasks.NAME.output}}';
COMMENT ON COLUMN weir.task_run.rows_read IS 'Rows read, as the engine says';
COMMENT ON COLUMN weir.task_run.rows_written IS 'Rows written, as the engine says';
COMMENT ON COLUMN weir.task_run.external_run_id IS 'Id of the run in the engine (latest attempt)';
COMMENT ON COLUMN weir.task_run.external_url IS 'The engine''s own page of that run';
COMMENT ON COLUMN weir.task_run.reference IS 'Earlier external run that this one may resume, set at restart and repair; again: an item that a repair named; adopt: a run that somebody started by hand, which it is to follow';
COMMENT ON COLUMN weir.task_run.error_message IS 'Error of the latest attempt, in one line';
COMMENT ON COLUMN weir.task_run.priority IS 'Of the run and of the task, added up';
COMMENT ON COLUMN weir.task_run.pool IS 'Pool of which it takes slots while its status is running';
COMMENT ON COLUMN weir.task_run.pool_slots IS 'How many';
COMMENT ON COLUMN weir.task_run.run_limit IS 'So many task runs of its run, of those that have this limit, may be running at a time; null: it does not count';
COMMENT ON COLUMN weir.task_run.connection_name IS 'Connection whose limits it has to heed';
COMMENT ON COLUMN weir.task_run.uses_worker IS 'Whether a SQL worker runs it; null: the kind says so';
COMMENT ON COLUMN weir.task_run.lane IS 'Task runs that need exactly the same to start: noop, sql or call, then #run_limit, :pool:slots and @connection';
COMMENT ON COLUMN weir.task_run.ready_at IS 'When all upstream tasks had ended';
COMMENT ON COLUMN weir.task_run.started_at IS 'When the first attempt was intended';
COMMENT ON COLUMN weir.task_run.ended_at IS 'When it reached its final state';
COMMENT ON COLUMN weir.task_run.live_item IS 'Of items: w waiting, a ready or running; null for what has ended and for all that is no item';
COMMENT ON COLUMN weir.task_run.retry_deadline IS 'The deadline, while it is ready';

CREATE VIEW weir._active_task_run AS
SELECT t.task_run_id, t.run_id, t.task_no, t.item_no, t.task_name, t.status, t.attempt_no, t.priority, t.pool, t.pool_slots, t.run_limit,
	t.connection_name, t.lane, t.not_before, t.deadline, t.ready_at, t.started_at
FROM (SELECT n.* FROM weir.run r
		CROSS JOIN LATERAL (SELECT i.* FROM weir.task_run i
			WHERE i.run_id = r.run_id AND i.item_no = 0 AND i.status IN ('ready', 'running') OFFSET 0) n
	WHERE r.live = 'a'
	UNION ALL
	SELECT i.* FROM weir.task_run i WHERE i.live_item = 'a') t;
COMMENT ON VIEW weir._active_task_run IS 'Task runs that are ready or running';
COMMENT ON COLUMN weir._active_task_run.task_run_id IS 'Id of the task run';
COMMENT ON COLUMN weir._active_task_run.run_id IS 'The run, which goes on';
COMMENT ON COLUMN weir._active_task_run.task_no IS 'The task in the run''s version';
COMMENT ON COLUMN weir._active_task_run.item_no IS '0, or the number of the item of a for_each task';
COMMENT ON COLUMN weir._active_task_run.task_name IS 'Name of the task';
COMMENT ON COLUMN weir._active_task_run.status IS 'ready or running';
COMMENT ON COLUMN weir._active_task_run.attempt_no IS 'Number of the latest attempt';
COMMENT ON COLUMN weir._active_task_run.priority IS 'Of the run and of the task, added up';
COMMENT ON COLUMN weir._active_task_run.pool IS 'Pool of which it takes slots while its status is running';
COMMENT ON COLUMN weir._active_task_run.pool_slots IS 'How many';
COMMENT ON COLUMN weir._active_task_run.run_limit IS 'So many of its run may be running at a time; null: it does not count';
COMMENT ON COLUMN weir._active_task_run.connection_name IS 'Connection whose limits it has to heed';
COMMENT ON COLUMN weir._active_task_run.lane IS 'What it needs to start';
COMMENT ON COLUMN weir._active_task_run.not_before IS 'A retry waits until then';
COMMENT ON COLUMN weir._active_task_run.deadline IS 'When the task timeout strikes';
COMMENT ON COLUMN weir._active_task_run.ready_at IS 'When all upstream tasks had ended';
COMMENT ON COLUMN weir._active_task_run.started_at IS 'When the first attempt was intended';

CREATE TABLE weir.attempt (
	task_run_id		bigint NOT NULL,
	attempt_no		integer NOT NULL,
	run_id			bigint NOT NULL,
	token			text NOT NULL,
	status			text NOT NULL DEFAULT 'intended',
	step			text,
	kind_state		jsonb,
	request			jsonb,
	external_run_id text,
	worker_pid		integer,
	intended_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	started_at		timestamptz,
	ended_at		timestamptz,
	deadline		timestamptz,
	rated_connection text,
	task_deadline	timestamptz,
	http_status		integer,
	sqlstate		text,
	error_code		text,
	error_message	text,
	failure_type	text,
	signal			text GENERATED ALWAYS AS (weir._attempt_signal(kind_state, status)) STORED,
	callback_key	text GENERATED ALWAYS AS (weir._callback_key(kind_state)) STORED,
	start_place		text GENERATED ALWAYS AS (weir._start_place(kind_state)) STORED,
	PRIMARY KEY (task_run_id, attempt_no),
	CONSTRAINT attempt_status_check CHECK (weir._is_attempt(status, failure_type))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
-- No index names the status or the kind's state, see weir.task_run.
CREATE INDEX attempt_by_connection ON weir.attempt (rated_connection, intended_at) WHERE rated_connection IS NOT NULL;
CREATE INDEX attempt_by_run ON weir.attempt (run_id);
CREATE INDEX attempt_by_signal ON weir.attempt (signal, run_id) WHERE signal IS NOT NULL;
CREATE INDEX attempt_by_callback ON weir.attempt (callback_key) WHERE callback_key IS NOT NULL;
CREATE INDEX attempt_by_start_place ON weir.attempt (start_place) WHERE start_place IS NOT NULL;
CREATE INDEX attempt_by_time ON weir.attempt (intended_at);
COMMENT ON TABLE weir.attempt IS 'One try of a task run; written and committed before anything is sent';
COMMENT ON COLUMN weir.attempt.task_run_id IS 'The task run';
COMMENT ON COLUMN weir.attempt.attempt_no IS '1, 2, 3, ...';
COMMENT ON COLUMN weir.attempt.run_id IS 'The run';
COMMENT ON COLUMN weir.attempt.token IS 'Idempotency token or correlation id, a function of installation, task run and attempt';
COMMENT ON COLUMN weir.attempt.status IS 'intended, started, succeeded, failed, timed_out, cancelled or lost';
COMMENT ON COLUMN weir.attempt.step IS 'Next exchange with the engine';
COMMENT ON COLUMN weir.attempt.kind_state IS 'What the kind must remember from one exchange to the next';
COMMENT ON COLUMN weir.attempt.request IS 'Spec with references rendered, as sent';
COMMENT ON COLUMN weir.attempt.external_run_id IS 'Id of the run in the engine';
COMMENT ON COLUMN weir.attempt.worker_pid IS 'SQL worker that ran it';
COMMENT ON COLUMN weir.attempt.intended_at IS 'When the intent was written';
COMMENT ON COLUMN weir.attempt.started_at IS 'When the engine or a worker took it';
COMMENT ON COLUMN weir.attempt.ended_at IS 'When its outcome was written';
COMMENT ON COLUMN weir.attempt.deadline IS 'When the attempt timeout or the task timeout strikes, whichever comes first';
COMMENT ON COLUMN weir.attempt.task_deadline IS 'When the task timeout strikes';
COMMENT ON COLUMN weir.attempt.rated_connection IS 'Connection that had max_starts_per_minute when this was intended: it counts there';
COMMENT ON COLUMN weir.attempt.http_status IS 'Status of the response that decided';
COMMENT ON COLUMN weir.attempt.sqlstate IS 'SQLSTATE of a SQL task''s error';
COMMENT ON COLUMN weir.attempt.error_code IS 'Code the engine gave';
COMMENT ON COLUMN weir.attempt.error_message IS 'Message the engine gave';
COMMENT ON COLUMN weir.attempt.signal IS 'Signal that it waits for';
COMMENT ON COLUMN weir.attempt.callback_key IS 'Key of the callback that it got';
COMMENT ON COLUMN weir.attempt.start_place IS 'Where it began, if its run bears no mark of ours and could be taken for another attempt''s there';
COMMENT ON COLUMN weir.attempt.failure_type IS 'user (the pipeline must be mended) or system (trying again may help)';

CREATE TABLE weir.error (
	error_id		bigint PRIMARY KEY DEFAULT nextval('weir.error_id_seq'),
	run_id			bigint NOT NULL,
	task_run_id		bigint,
	attempt_no		integer,
	activity		text,
	code			text,
	message			text NOT NULL,
	detail			text,
	output			jsonb,
	failure_type	text CHECK (failure_type IN ('user', 'system')),
	occurred_at		timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX error_by_run ON weir.error (run_id);
CREATE INDEX error_by_time ON weir.error (occurred_at);
COMMENT ON TABLE weir.error IS 'Errors of runs';
COMMENT ON COLUMN weir.error.error_id IS 'Id of the error';
COMMENT ON COLUMN weir.error.run_id IS 'The run';
COMMENT ON COLUMN weir.error.task_run_id IS 'The task run, if it was one of weir''s';
COMMENT ON COLUMN weir.error.attempt_no IS 'The attempt';
COMMENT ON COLUMN weir.error.activity IS 'Name of the task or of the outside activity';
COMMENT ON COLUMN weir.error.code IS 'Error code: SQLSTATE, HTTP status or the engine''s own';
COMMENT ON COLUMN weir.error.message IS 'Error text';
COMMENT ON COLUMN weir.error.detail IS 'More of it, such as a trace';
COMMENT ON COLUMN weir.error.output IS 'What an outside orchestrator gave with it';
COMMENT ON COLUMN weir.error.failure_type IS 'user or system';
COMMENT ON COLUMN weir.error.occurred_at IS 'When';

CREATE TABLE weir.activity (
	run_id			bigint NOT NULL,
	activity		text NOT NULL,
	task_run_id		bigint,
	activity_type	text,
	phase			text NOT NULL CHECK (phase IN ('land', 'transform', 'publish')),
	status			text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'skipped', 'cancelled')),
	rows_read		bigint,
	rows_copied		bigint,
	rows_skipped	bigint,
	bytes_read		bigint,
	bytes_written	bigint,
	started_at		timestamptz,
	ended_at		timestamptz,
	output			jsonb,
	error_code		text,
	error_message	text,
	logged_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (run_id, activity)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX activity_by_time ON weir.activity (logged_at);
COMMENT ON TABLE weir.activity IS 'Activities inside a run: those an outside orchestrator logged, and those of an engine''s run';
COMMENT ON COLUMN weir.activity.run_id IS 'The run';
COMMENT ON COLUMN weir.activity.activity IS 'Name of the activity; for activities of a task run: task/activity';
COMMENT ON COLUMN weir.activity.task_run_id IS 'The task run whose engine reported it';
COMMENT ON COLUMN weir.activity.activity_type IS 'Type, such as Copy';
COMMENT ON COLUMN weir.activity.phase IS 'land, transform or publish';
COMMENT ON COLUMN weir.activity.status IS 'running, succeeded, failed, skipped or cancelled';
COMMENT ON COLUMN weir.activity.rows_read IS 'Rows read';
COMMENT ON COLUMN weir.activity.rows_copied IS 'Rows copied';
COMMENT ON COLUMN weir.activity.rows_skipped IS 'Rows skipped';
COMMENT ON COLUMN weir.activity.bytes_read IS 'Bytes read';
COMMENT ON COLUMN weir.activity.bytes_written IS 'Bytes written';
COMMENT ON COLUMN weir.activity.started_at IS 'When it started';
COMMENT ON COLUMN weir.activity.ended_at IS 'When it ended';
COMMENT ON COLUMN weir.activity.output IS 'Output as the engine gave it';
COMMENT ON COLUMN weir.activity.error_code IS 'Error code';
COMMENT ON COLUMN weir.activity.error_message IS 'Error text';
COMMENT ON COLUMN weir.activity.logged_at IS 'When it was last logged';

CREATE TABLE weir.row_count (
	run_id			bigint NOT NULL,
	component		text NOT NULL,
	object_name		text NOT NULL,
	count_type		text NOT NULL CHECK (weir._is_count_type(count_type)),
	row_count		bigint NOT NULL,
	column_name		text,
	column_sum		numeric,
	logged_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (run_id, component, object_name, count_type)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX row_count_by_time ON weir.row_count (logged_at);
COMMENT ON TABLE weir.row_count IS 'Row counts of a run, one per component, object and type';
COMMENT ON COLUMN weir.row_count.run_id IS 'The run';
COMMENT ON COLUMN weir.row_count.component IS 'Component or task that counted';
COMMENT ON COLUMN weir.row_count.object_name IS 'Object counted';
COMMENT ON COLUMN weir.row_count.count_type IS 'Select, Insert, Update, Delete, Unaffected, Intermediate, Error, Exception, Control or Unknown';
COMMENT ON COLUMN weir.row_count.row_count IS 'The count';
COMMENT ON COLUMN weir.row_count.column_name IS 'Column summed as a check';
COMMENT ON COLUMN weir.row_count.column_sum IS 'Its sum';
COMMENT ON COLUMN weir.row_count.logged_at IS 'When it was last logged';

CREATE TABLE weir.config_variable (
	system_name		text NOT NULL,
	object_name		text NOT NULL DEFAULT '',
	variable_name	text NOT NULL,
	type			text NOT NULL CHECK (type IN ('text', 'bigint', 'numeric', 'timestamptz')),
	value			text,
	run_id			bigint,
	changed_by		text NOT NULL,
	changed_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (system_name, object_name, variable_name)
);
COMMENT ON TABLE weir.config_variable IS 'Typed config variables, such as watermarks';
COMMENT ON COLUMN weir.config_variable.system_name IS 'System';
COMMENT ON COLUMN weir.config_variable.object_name IS 'Object; empty for a variable of the whole system';
COMMENT ON COLUMN weir.config_variable.variable_name IS 'Variable';
COMMENT ON COLUMN weir.config_variable.type IS 'text, bigint, numeric or timestamptz: decides how values compare';
COMMENT ON COLUMN weir.config_variable.value IS 'Value, in the text form of its type';
COMMENT ON COLUMN weir.config_variable.run_id IS 'Run that set it last';
COMMENT ON COLUMN weir.config_variable.changed_by IS 'Role that set it last';
COMMENT ON COLUMN weir.config_variable.changed_at IS 'When it was set last';

CREATE TABLE weir.config_variable_history (
	system_name		text NOT NULL,
	object_name		text NOT NULL,
	variable_name	text NOT NULL,
	change_no		bigint NOT NULL,
	previous_value	text,
	previous_run_id bigint,
	value			text,
	run_id			bigint,
	changed_by		text NOT NULL,
	changed_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (system_name, object_name, variable_name, change_no)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX config_variable_history_by_run ON weir.config_variable_history (run_id);
COMMENT ON TABLE weir.config_variable_history IS 'Every change of a config variable, so that it can go back';
COMMENT ON COLUMN weir.config_variable_history.system_name IS 'System';
COMMENT ON COLUMN weir.config_variable_history.object_name IS 'Object';
COMMENT ON COLUMN weir.config_variable_history.variable_name IS 'Variable';
COMMENT ON COLUMN weir.config_variable_history.change_no IS '1, 2, 3, ... per variable';
COMMENT ON COLUMN weir.config_variable_history.previous_value IS 'Value before; null when there was none';
COMMENT ON COLUMN weir.config_variable_history.previous_run_id IS 'Run that had set it';
COMMENT ON COLUMN weir.config_variable_history.value IS 'Value after';
COMMENT ON COLUMN weir.config_variable_history.run_id IS 'Run that changed it';
COMMENT ON COLUMN weir.config_variable_history.changed_by IS 'Role that changed it';
COMMENT ON COLUMN weir.config_variable_history.changed_at IS 'When';

-- What clients ask of the conductor for a run that exists.  Insert-only for
-- clients: a client that leaves its transaction open holds no lock the
-- conductor could wait for.
CREATE TABLE weir.request (
	request_id		bigint PRIMARY KEY DEFAULT nextval('weir.request_id_seq'),
	run_id			bigint NOT NULL,
	action			text NOT NULL CHECK (action IN ('cancel', 'repair', 'signal', 'approve', 'reject', 'resolve')),
	name			text,
	task_run_id		bigint,
	external_run_id	text,
	is_kept			boolean NOT NULL DEFAULT false,
	reason			text,
	params			jsonb,
	tasks			text[],
	with_downstream boolean NOT NULL DEFAULT false,
	requested_by	text NOT NULL,
	requested_at	timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX request_by_run ON weir.request (run_id);
COMMENT ON TABLE weir.request IS 'Requests to the conductor that it has not taken in yet';
COMMENT ON COLUMN weir.request.request_id IS 'Id of the request';
COMMENT ON COLUMN weir.request.run_id IS 'The run';
COMMENT ON COLUMN weir.request.action IS 'cancel, repair, signal, approve, reject or resolve';
COMMENT ON COLUMN weir.request.name IS 'signal: its name; approve and reject: the task; resolve: adopt, succeeded, failed or send_again';
COMMENT ON COLUMN weir.request.task_run_id IS 'resolve: the task run that is uncertain; repair: the one that goes on with external_run_id';
COMMENT ON COLUMN weir.request.external_run_id IS 'Run of the engine that is adopted';
COMMENT ON COLUMN weir.request.is_kept IS 'signal: tasks of the run that come to wait for it later have it too';
COMMENT ON COLUMN weir.request.reason IS 'Why, for the log';
COMMENT ON COLUMN weir.request.params IS 'repair: parameters the run goes on with, null keeps them; signal: its payload';
COMMENT ON COLUMN weir.request.tasks IS 'repair: exactly these tasks run again; null: those that did not succeed';
COMMENT ON COLUMN weir.request.with_downstream IS 'repair: and everything downstream of them';
COMMENT ON COLUMN weir.request.requested_by IS 'Role that asked';
COMMENT ON COLUMN weir.request.requested_at IS 'When';

-- Signals sent to a run stay with it: whoever comes to wait for one later does
-- not wait.  The conductor writes them, clients only ask for it.
CREATE TABLE weir.run_signal (
	run_id			bigint NOT NULL,
	name			text NOT NULL,
	payload			jsonb NOT NULL,
	sent_by			text NOT NULL,
	sent_at			timestamptz NOT NULL,
	PRIMARY KEY (run_id, name)
);
COMMENT ON TABLE weir.run_signal IS 'Signals that were sent to a run, the latest of each name';
COMMENT ON COLUMN weir.run_signal.run_id IS 'The run';
COMMENT ON COLUMN weir.run_signal.name IS 'Name of the signal';
COMMENT ON COLUMN weir.run_signal.payload IS 'What it carries: the output of tasks that wait for it';
COMMENT ON COLUMN weir.run_signal.sent_by IS 'Role that sent it';
COMMENT ON COLUMN weir.run_signal.sent_at IS 'When';

-- A backfill is a set of runs, one for each window.  Limits are counted from
-- the runs themselves.
CREATE SEQUENCE weir.backfill_id_seq;
COMMENT ON SEQUENCE weir.backfill_id_seq IS 'Ids of backfills';
CREATE TABLE weir.backfill (
	backfill_id		bigint PRIMARY KEY DEFAULT nextval('weir.backfill_id_seq'),
	pipeline_id		bigint NOT NULL,
	pipeline_name	text NOT NULL,
	window_from		timestamptz NOT NULL,
	window_to		timestamptz NOT NULL,
	step			interval NOT NULL,
	concurrency		integer NOT NULL CHECK (concurrency > 0),
	created_by		text NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE weir.backfill IS 'Runs of a pipeline over windows of the past';
COMMENT ON COLUMN weir.backfill.backfill_id IS 'Id of the backfill';
COMMENT ON COLUMN weir.backfill.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.backfill.pipeline_name IS 'Its name when the backfill was asked for';
COMMENT ON COLUMN weir.backfill.window_from IS 'Start of the first window';
COMMENT ON COLUMN weir.backfill.window_to IS 'End of the last window, exclusive';
COMMENT ON COLUMN weir.backfill.step IS 'Length of a window; the last one may be shorter';
COMMENT ON COLUMN weir.backfill.concurrency IS 'So many of its runs at the same time, within max_concurrent_runs of the pipeline';
COMMENT ON COLUMN weir.backfill.created_by IS 'Role that asked for it';
COMMENT ON COLUMN weir.backfill.created_at IS 'When';

-- The last line of defence of the state machines: whatever path a change of
-- status takes, an illegal one is an error.
CREATE FUNCTION weir._check_transition() RETURNS trigger
	AS 'MODULE_PATHNAME', 'weir_check_transition' LANGUAGE C;
COMMENT ON FUNCTION weir._check_transition() IS 'Refuses illegal changes of status';
CREATE TRIGGER check_transition BEFORE UPDATE OF status ON weir.run
	FOR EACH ROW EXECUTE FUNCTION weir._check_transition('run');
CREATE TRIGGER check_transition BEFORE UPDATE OF status ON weir.task_run
	FOR EACH ROW EXECUTE FUNCTION weir._check_transition('task_run');
CREATE TRIGGER check_transition BEFORE UPDATE OF status ON weir.attempt
	FOR EACH ROW EXECUTE FUNCTION weir._check_transition('attempt');
REVOKE ALL ON FUNCTION weir._check_transition() FROM PUBLIC;

-- Decisions of core/flow.c, for the set-based statements that advance a run.
CREATE FUNCTION weir._edge_result(condition text, status text, took_branch boolean) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_edge_result' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION weir._edge_result(text, text, boolean) IS 'What a dependency contributes when its upstream task ended so: met, failed, blocked or skipped';
CREATE FUNCTION weir._flow_decide(run_if text, upstream integer, failed integer, blocked integer, skipped integer) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_flow_decide' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION weir._flow_decide(text, integer, integer, integer, integer) IS 'Status of a task whose upstream tasks have all ended: ready, blocked or skipped';
REVOKE ALL ON FUNCTION weir._edge_result(text, text, boolean), weir._flow_decide(text, integer, integer, integer, integer) FROM PUBLIC;

-- How the log is kept small.  One row, written at the end of a sweep.
CREATE TABLE weir.retention (
	only_row		boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	pruned_at		timestamptz,
	removed_runs	bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE weir.retention IS 'When runs that are too old or too many were last removed from the log';
COMMENT ON COLUMN weir.retention.only_row IS 'Keeps the table at one row';
COMMENT ON COLUMN weir.retention.pruned_at IS 'When the latest sweep ended';
COMMENT ON COLUMN weir.retention.removed_runs IS 'Runs removed so far';
INSERT INTO weir.retention DEFAULT VALUES;
CREATE FUNCTION weir.prune(max_runs integer DEFAULT 10000) RETURNS bigint
	AS 'MODULE_PATHNAME', 'weir_prune' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.prune(integer) IS
	'Remove runs that are older or more than their pipelines'' retention allows, at most max_runs of them, with everything logged of them; returns how many went. The conductor does the same by itself';
CREATE FUNCTION weir._prunable() RETURNS integer
	AS 'MODULE_PATHNAME', 'weir_prunable' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION weir._prunable() IS 'How many of the five hundred oldest runs are past their age; read weir.status instead';
REVOKE ALL ON FUNCTION weir.prune(integer), weir._prunable() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir.prune(integer) TO weir_admin;
GRANT EXECUTE ON FUNCTION weir._prunable() TO weir_reader, weir_operator, weir_admin;
