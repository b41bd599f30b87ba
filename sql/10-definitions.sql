-- What the user defines.  Dumped by pg_dump; names or regrole, no raw OIDs.

-- One row: who this installation is.  Idempotency tokens carry the key, so
-- that two databases never collide in one workspace.  Not dumped: a restored
-- copy is another installation.
CREATE TABLE weir.installation (
	only_row		boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	installation_key text NOT NULL DEFAULT substr(replace(gen_random_uuid()::text, '-', ''), 1, 16),
	installed_at	timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE weir.installation IS 'Identity of this installation of weir';
COMMENT ON COLUMN weir.installation.only_row IS 'Keeps the table at one row';
COMMENT ON COLUMN weir.installation.installation_key IS 'Part of every idempotency token this database sends';
COMMENT ON COLUMN weir.installation.installed_at IS 'When the extension was created here';
INSERT INTO weir.installation DEFAULT VALUES;

CREATE TABLE weir.secret (
	name			text PRIMARY KEY CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,62}$'),
	reference		text,
	ciphertext		bytea,
	description		text,
	owner			regrole NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now(),
	changed_at		timestamptz NOT NULL DEFAULT now(),
	CHECK ((reference IS NULL) <> (ciphertext IS NULL))
);
COMMENT ON TABLE weir.secret IS 'A value stored encrypted, or a reference resolved when used';
COMMENT ON COLUMN weir.secret.name IS 'Name by which connections refer to the secret';
COMMENT ON COLUMN weir.secret.reference IS 'env:NAME, file:PATH or keyvault:CONNECTION/NAME; null when the value itself is stored';
COMMENT ON COLUMN weir.secret.ciphertext IS 'AES-256-GCM: format byte, key id, nonce, tag, encrypted value; the name is authenticated with it';
COMMENT ON COLUMN weir.secret.description IS 'What the secret is for';
COMMENT ON COLUMN weir.secret.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.secret.created_at IS 'When it was created';
COMMENT ON COLUMN weir.secret.changed_at IS 'When value or reference last changed';

CREATE TABLE weir.connection (
	name			text PRIMARY KEY CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,62}$'),
	kind			text NOT NULL,
	base_url		text,
	auth			jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(auth) = 'object'),
	options			jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
	description		text,
	owner			regrole NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now(),
	changed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE weir.connection IS 'Where something is and how to sign in; never holds a secret itself';
COMMENT ON COLUMN weir.connection.name IS 'Name by which tasks refer to the connection';
COMMENT ON COLUMN weir.connection.kind IS 'adf, databricks, fabric, http, keyvault, redis or storage';
COMMENT ON COLUMN weir.connection.base_url IS 'Address including a path prefix, without a trailing slash';
COMMENT ON COLUMN weir.connection.auth IS 'How to sign in: type and, for values that must stay secret, names of secrets';
COMMENT ON COLUMN weir.connection.options IS 'Settings of the kind, such as subscription_id, resource_group and factory';
COMMENT ON COLUMN weir.connection.description IS 'What the connection is for';
COMMENT ON COLUMN weir.connection.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.connection.created_at IS 'When it was created';
COMMENT ON COLUMN weir.connection.changed_at IS 'When it last changed';

-- Written by the conductor while a service cannot be reached.
CREATE TABLE weir.circuit (
	connection_name	text PRIMARY KEY,
	opened_at		timestamptz NOT NULL,
	retry_at		timestamptz NOT NULL,
	failures		integer NOT NULL,
	last_error		text NOT NULL,
	is_asked		boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE weir.circuit IS 'Connections whose service cannot be reached: nothing is sent but one exchange now and then; or that asked to be left alone';
COMMENT ON COLUMN weir.circuit.connection_name IS 'The connection';
COMMENT ON COLUMN weir.circuit.opened_at IS 'Since when';
COMMENT ON COLUMN weir.circuit.retry_at IS 'When the next exchange is tried';
COMMENT ON COLUMN weir.circuit.failures IS 'Failures in a row';
COMMENT ON COLUMN weir.circuit.last_error IS 'The latest of them';
COMMENT ON COLUMN weir.circuit.is_asked IS 'The service is there and asked for no request before retry_at (Retry-After)';

-- Written by the conductor while requests wait for their turn.
CREATE TABLE weir.throttle (
	connection_name	text NOT NULL,
	requests		text NOT NULL CHECK (requests IN ('reads', 'writes')),
	per_second		double precision NOT NULL,
	since			timestamptz NOT NULL,
	until			timestamptz NOT NULL,
	PRIMARY KEY (connection_name, requests)
);
COMMENT ON TABLE weir.throttle IS 'Connections whose requests waited for their turn, because there were more than request_limits lets through; over when until has passed';
COMMENT ON COLUMN weir.throttle.connection_name IS 'The connection';
COMMENT ON COLUMN weir.throttle.requests IS 'Which of them: reads (GET and HEAD) or writes (all others)';
COMMENT ON COLUMN weir.throttle.per_second IS 'So many a second are let through';
COMMENT ON COLUMN weir.throttle.since IS 'Since when some wait';
COMMENT ON COLUMN weir.throttle.until IS 'When the last of those that wait is let through; about a second late at most';

CREATE TABLE weir.pool (
	name			text PRIMARY KEY CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,62}$'),
	slots			integer NOT NULL CHECK (slots BETWEEN 0 AND 100000),
	description		text,
	owner			regrole NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now(),
	changed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE weir.pool IS 'A number of slots that tasks of any pipeline share; how many are taken is counted from the task runs that are running';
COMMENT ON COLUMN weir.pool.name IS 'Name by which tasks refer to the pool';
COMMENT ON COLUMN weir.pool.slots IS 'So many slots may be taken at the same time; 0 stops all tasks of the pool';
COMMENT ON COLUMN weir.pool.description IS 'What the pool protects';
COMMENT ON COLUMN weir.pool.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.pool.created_at IS 'When it was created';
COMMENT ON COLUMN weir.pool.changed_at IS 'When it last changed';

CREATE SEQUENCE weir.pipeline_id_seq;
COMMENT ON SEQUENCE weir.pipeline_id_seq IS 'Ids of pipelines';

CREATE TABLE weir.pipeline (
	pipeline_id		bigint PRIMARY KEY DEFAULT nextval('weir.pipeline_id_seq'),
	name			text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 260),
	project			text,
	description		text,
	owner			regrole NOT NULL,
	current_version	integer,
	is_enabled		boolean NOT NULL DEFAULT true,
	is_paused		boolean NOT NULL DEFAULT false,
	is_batch		boolean NOT NULL DEFAULT false,
	stale_after		interval,
	created_at		timestamptz NOT NULL DEFAULT now(),
	changed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE weir.pipeline IS 'A named, owned, versioned DAG of tasks, or a pipeline that an outside orchestrator runs and logs here';
COMMENT ON COLUMN weir.pipeline.pipeline_id IS 'Id of the pipeline';
COMMENT ON COLUMN weir.pipeline.name IS 'Name, unique in the database';
COMMENT ON COLUMN weir.pipeline.project IS 'Project that an outside orchestrator gave';
COMMENT ON COLUMN weir.pipeline.description IS 'What the pipeline does';
COMMENT ON COLUMN weir.pipeline.owner IS 'Role as which SQL tasks run';
COMMENT ON COLUMN weir.pipeline.current_version IS 'Version new runs start with; null: registered by an outside orchestrator, no definition here';
COMMENT ON COLUMN weir.pipeline.is_enabled IS 'A start of a disabled pipeline is answered C (skip)';
COMMENT ON COLUMN weir.pipeline.is_paused IS 'Runs of a paused pipeline stay queued';
COMMENT ON COLUMN weir.pipeline.is_batch IS 'Its children are pipelines';
COMMENT ON COLUMN weir.pipeline.stale_after IS 'An outside execution still open after this time counts as crashed';
COMMENT ON COLUMN weir.pipeline.created_at IS 'When it was created';
COMMENT ON COLUMN weir.pipeline.changed_at IS 'When it last changed';

CREATE TABLE weir.pipeline_version (
	pipeline_id		bigint NOT NULL REFERENCES weir.pipeline ON DELETE CASCADE,
	version			integer NOT NULL,
	definition		jsonb NOT NULL,
	max_concurrent_runs integer NOT NULL DEFAULT 1 CHECK (max_concurrent_runs > 0),
	max_concurrent_tasks integer CHECK (max_concurrent_tasks > 0),
	run_timeout		interval,
	on_failure		text NOT NULL DEFAULT 'continue' CHECK (on_failure IN ('continue', 'fail_fast')),
	on_overlap		text NOT NULL DEFAULT 'queue' CHECK (on_overlap IN ('queue', 'skip', 'cancel_older')),
	priority		integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000 AND 1000),
	retention_age	interval CHECK (retention_age >= interval '0'),
	retention_runs	integer CHECK (retention_runs >= 0),
	created_by		regrole NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (pipeline_id, version)
);
-- The highest limit that a queued run of any version may have
CREATE INDEX pipeline_version_limit ON weir.pipeline_version (pipeline_id, max_concurrent_runs);
COMMENT ON TABLE weir.pipeline_version IS 'One immutable version of a definition';
COMMENT ON COLUMN weir.pipeline_version.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.pipeline_version.version IS '1, 2, 3, ... in order of definition';
COMMENT ON COLUMN weir.pipeline_version.definition IS 'The definition as it was given';
COMMENT ON COLUMN weir.pipeline_version.max_concurrent_runs IS 'Further runs wait, are skipped or take the place of older ones, see on_overlap';
COMMENT ON COLUMN weir.pipeline_version.max_concurrent_tasks IS 'So many tasks and items of a run are running at a time; null for any number';
COMMENT ON COLUMN weir.pipeline_version.run_timeout IS 'A run longer than this ends as timed_out';
COMMENT ON COLUMN weir.pipeline_version.on_failure IS 'continue: branches that do not depend on a failed task go on; fail_fast: nothing new starts after a failure';
COMMENT ON COLUMN weir.pipeline_version.on_overlap IS 'What a run does when max_concurrent_runs are going on: queue waits, skip ends as skipped, cancel_older cancels those before it';
COMMENT ON COLUMN weir.pipeline_version.priority IS 'Runs of a higher priority start first, -1000 to 1000';
COMMENT ON COLUMN weir.pipeline_version.retention_age IS 'Ended runs stay in the log so long; 0 for ever, null: weir.retention_age';
COMMENT ON COLUMN weir.pipeline_version.retention_runs IS 'So many ended runs stay in the log; 0 all, null: weir.retention_runs';
COMMENT ON COLUMN weir.pipeline_version.created_by IS 'Who defined this version';
COMMENT ON COLUMN weir.pipeline_version.created_at IS 'When';

-- The parameters of a version, in the order of the definition.
CREATE TABLE weir.parameter (
	pipeline_id		bigint NOT NULL,
	version			integer NOT NULL,
	name			text NOT NULL,
	type			text NOT NULL CHECK (type IN ('text', 'bigint', 'numeric', 'boolean', 'date', 'timestamptz', 'json')),
	default_value	jsonb,
	is_required		boolean NOT NULL,
	description		text,
	PRIMARY KEY (pipeline_id, version, name),
	FOREIGN KEY (pipeline_id, version) REFERENCES weir.pipeline_version ON DELETE CASCADE
);
COMMENT ON TABLE weir.parameter IS 'Parameters of a pipeline version';
COMMENT ON COLUMN weir.parameter.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.parameter.version IS 'The version';
COMMENT ON COLUMN weir.parameter.name IS 'Name, as in {{params.NAME}}';
COMMENT ON COLUMN weir.parameter.type IS 'text, bigint, numeric, boolean, date, timestamptz or json';
COMMENT ON COLUMN weir.parameter.default_value IS 'Used when a trigger does not give the parameter';
COMMENT ON COLUMN weir.parameter.is_required IS 'A trigger must give it';
COMMENT ON COLUMN weir.parameter.description IS 'What it is for';

CREATE TABLE weir.task (
	pipeline_id		bigint NOT NULL,
	version			integer NOT NULL,
	task_no			integer NOT NULL,
	name			text NOT NULL,
	kind			text NOT NULL,
	connection_name	text,
	phase			text NOT NULL DEFAULT 'transform' CHECK (phase IN ('land', 'transform', 'publish')),
	spec			jsonb NOT NULL,
	max_attempts	integer NOT NULL DEFAULT 1 CHECK (max_attempts BETWEEN 1 AND 1000),
	retry_initial_ms bigint NOT NULL DEFAULT 10000,
	retry_max_ms	bigint NOT NULL DEFAULT 300000,
	retry_multiplier double precision NOT NULL DEFAULT 2,
	retry_jitter	double precision NOT NULL DEFAULT 0.13,
	retry_backoff	text NOT NULL DEFAULT 'exponential' CHECK (retry_backoff IN ('exponential', 'linear', 'fixed')),
	retry_on		jsonb,
	attempt_timeout	interval,
	task_timeout	interval,
	on_uncertain	text NOT NULL DEFAULT 'fail' CHECK (on_uncertain IN ('fail', 'ask', 'assume_started', 'send_again')),
	run_if			text NOT NULL DEFAULT 'all_success' CHECK (run_if IN ('all_success', 'all_done', 'none_failed', 'at_least_one_success', 'at_least_one_failed', 'all_failed', 'always')),
	is_enabled		boolean NOT NULL DEFAULT true,
	pool			text,
	pool_slots		integer NOT NULL DEFAULT 1 CHECK (pool_slots > 0),
	run_limit		integer CHECK (run_limit > 0),
	priority		integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000 AND 1000),
	wave			integer NOT NULL,
	upstream_count	integer NOT NULL,
	parent_no		integer,
	concurrency		integer CHECK (concurrency > 0),
	PRIMARY KEY (pipeline_id, version, task_no),
	UNIQUE (name, pipeline_id, version),
	FOREIGN KEY (pipeline_id, version) REFERENCES weir.pipeline_version ON DELETE CASCADE,
	CHECK ((parent_no IS NULL) = (concurrency IS NULL))
);
CREATE UNIQUE INDEX task_of_items ON weir.task (pipeline_id, version, parent_no) WHERE parent_no IS NOT NULL;
COMMENT ON TABLE weir.task IS 'Tasks of a pipeline version';
COMMENT ON COLUMN weir.task.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.task.version IS 'The version';
COMMENT ON COLUMN weir.task.task_no IS '1, 2, 3, ... in the order of the definition';
COMMENT ON COLUMN weir.task.name IS 'Name, unique in the version; with parent_no: that of the for_each followed by []';
COMMENT ON COLUMN weir.task.kind IS 'sql, http, adf_pipeline, databricks_jar, databricks_job, databricks_notebook, databricks_pipeline, databricks_python, databricks_serving, databricks_sql, databricks_sql_file, fabric_item, redis_publish, for_each, if, switch, wait, webhook, pipeline, noop';
COMMENT ON COLUMN weir.task.connection_name IS 'Connection it uses, for kinds that need one';
COMMENT ON COLUMN weir.task.phase IS 'land, transform or publish; decides between R and D';
COMMENT ON COLUMN weir.task.spec IS 'What to do, in the terms of the kind; strings may hold {{references}}';
COMMENT ON COLUMN weir.task.max_attempts IS 'Attempts in all; 1 means no retry';
COMMENT ON COLUMN weir.task.retry_initial_ms IS 'Delay before the second attempt, milliseconds';
COMMENT ON COLUMN weir.task.retry_max_ms IS 'Longest delay between attempts, milliseconds';
COMMENT ON COLUMN weir.task.retry_multiplier IS 'Factor from one delay to the next';
COMMENT ON COLUMN weir.task.retry_jitter IS 'Random share of the delay, plus or minus, 0 to 1';
COMMENT ON COLUMN weir.task.retry_backoff IS 'How delays grow: exponential, linear or fixed';
COMMENT ON COLUMN weir.task.retry_on IS 'Which failures are tried again: lists of sqlstate, http and code, and failure system or any; null for those the kind takes for passing';
COMMENT ON COLUMN weir.task.attempt_timeout IS 'An attempt longer than this is cancelled and ends as timed_out';
COMMENT ON COLUMN weir.task.task_timeout IS 'All attempts and the waits between them may take this long, from the first attempt on; then it ends as timed_out';
COMMENT ON COLUMN weir.task.on_uncertain IS 'When the answer of the engine is lost and nothing tells whether the work began: fail, ask somebody, count it as done, or send it again';
COMMENT ON COLUMN weir.task.run_if IS 'Decides, when all upstream tasks have ended, whether it runs: all_success, all_done, none_failed, at_least_one_success, at_least_one_failed, all_failed or always';
COMMENT ON COLUMN weir.task.is_enabled IS 'A disabled task is skipped, and what depends on it goes on as if it had succeeded';
COMMENT ON COLUMN weir.task.pool IS 'Pool of which it takes slots while it runs';
COMMENT ON COLUMN weir.task.pool_slots IS 'How many slots of the pool';
COMMENT ON COLUMN weir.task.run_limit IS 'max_concurrent_tasks of the version, of tasks that count; null of those that do not: noop, if, switch, wait and the for_each itself';
COMMENT ON COLUMN weir.task.priority IS 'Added to the priority of the run: where something is scarce, the higher sum starts first';
COMMENT ON COLUMN weir.task.wave IS '1 for tasks without upstream, else one more than the highest upstream wave';
COMMENT ON COLUMN weir.task.upstream_count IS 'Number of tasks it depends on';
COMMENT ON COLUMN weir.task.parent_no IS 'What a for_each task does with each item is a task of its own: the task_no of the for_each; null for all others';
COMMENT ON COLUMN weir.task.concurrency IS 'With parent_no: how many items run at a time';

CREATE TABLE weir.task_dependency (
	pipeline_id		bigint NOT NULL,
	version			integer NOT NULL,
	task_no			integer NOT NULL,
	upstream_no		integer NOT NULL,
	condition		text NOT NULL DEFAULT 'success' CHECK (condition IN ('success', 'failed', 'skipped', 'done')),
	branch			text,
	PRIMARY KEY (pipeline_id, version, task_no, upstream_no),
	FOREIGN KEY (pipeline_id, version, task_no) REFERENCES weir.task ON DELETE CASCADE,
	FOREIGN KEY (pipeline_id, version, upstream_no) REFERENCES weir.task ON DELETE CASCADE
);
CREATE INDEX task_dependency_upstream ON weir.task_dependency (pipeline_id, version, upstream_no, task_no);
COMMENT ON TABLE weir.task_dependency IS 'Edges of the DAG: task_no starts after upstream_no ended';
COMMENT ON COLUMN weir.task_dependency.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.task_dependency.version IS 'The version';
COMMENT ON COLUMN weir.task_dependency.task_no IS 'The task that waits';
COMMENT ON COLUMN weir.task_dependency.upstream_no IS 'The task it waits for';
COMMENT ON COLUMN weir.task_dependency.condition IS 'Which end of the upstream task meets the dependency: success, failed (also timed out or cancelled), skipped or done (any)';
COMMENT ON COLUMN weir.task_dependency.branch IS 'With an upstream task of kind if or switch: the branch it must have chosen; null for any';

-- Stages of the job format of metadata-driven frameworks become tasks through
-- this mapping.  Null source or destination matches anything; the most
-- specific row wins.
CREATE TABLE weir.stage_mapping (
	stage_type		text NOT NULL,
	source			text,
	destination		text,
	kind			text NOT NULL,
	connection_name	text,
	phase			text NOT NULL CHECK (phase IN ('land', 'transform', 'publish')),
	spec			jsonb NOT NULL,
	settings		jsonb NOT NULL DEFAULT '{}',
	UNIQUE NULLS NOT DISTINCT (stage_type, source, destination)
);
COMMENT ON TABLE weir.stage_mapping IS 'How stages of the job format become tasks';
COMMENT ON COLUMN weir.stage_mapping.stage_type IS 'The stage''s "type", such as ETL';
COMMENT ON COLUMN weir.stage_mapping.source IS 'The stage''s "source"; null matches any';
COMMENT ON COLUMN weir.stage_mapping.destination IS 'The stage''s "destination"; null matches any';
COMMENT ON COLUMN weir.stage_mapping.kind IS 'Kind of the task';
COMMENT ON COLUMN weir.stage_mapping.connection_name IS 'Connection of the task';
COMMENT ON COLUMN weir.stage_mapping.phase IS 'Phase of the task';
COMMENT ON COLUMN weir.stage_mapping.spec IS 'Spec of the task; {{stage.KEY}} is replaced by the stage''s own value when the pipeline is created';
COMMENT ON COLUMN weir.stage_mapping.settings IS 'Further members of the task: pool, pool_slots, priority, retry, timeout, task_timeout, on_uncertain, as in a definition';

-- What the next start of a pipeline must do.  Kept apart from the definition:
-- definitions are read-shared by triggers, this row is locked by whoever
-- starts or ends a run.  Dumped, because it is truth about landed data.
CREATE TABLE weir.pipeline_state (
	pipeline_id		bigint PRIMARY KEY REFERENCES weir.pipeline ON DELETE CASCADE,
	next_load_status "char" NOT NULL DEFAULT 'P' CHECK (next_load_status IN ('P', 'R', 'D', 'C')),
	skip_once		boolean NOT NULL DEFAULT false,
	origin_row_audit_id bigint,
	last_run_id		bigint,
	last_success_run_id bigint,
	execution_id	bigint,
	CHECK (next_load_status <> 'D' OR origin_row_audit_id IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE FUNCTION weir._state_place(pipeline_id bigint) RETURNS tid
	AS 'MODULE_PATHNAME', 'weir_state_place' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION weir._state_place(bigint) IS 'Where the row of a pipeline in weir.pipeline_state is';
REVOKE ALL ON FUNCTION weir._state_place(bigint) FROM PUBLIC;
COMMENT ON TABLE weir.pipeline_state IS 'Restart state of a pipeline';
COMMENT ON COLUMN weir.pipeline_state.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.pipeline_state.next_load_status IS 'P process, R rerun from the start, D resume after landing, C skip';
COMMENT ON COLUMN weir.pipeline_state.skip_once IS 'The next start is answered C, once';
COMMENT ON COLUMN weir.pipeline_state.origin_row_audit_id IS 'With D: the run that landed the data, however often D repeated';
COMMENT ON COLUMN weir.pipeline_state.last_run_id IS 'The run that started last';
COMMENT ON COLUMN weir.pipeline_state.last_success_run_id IS 'The run that last succeeded';
COMMENT ON COLUMN weir.pipeline_state.execution_id IS 'The execution of an outside orchestrator that is going on, if the log has it';

-- Runs that go on side by side may each leave a landing behind.  Which of
-- them somebody is resuming is not noted: a run that is live and has its row
-- audit id is.  Dumped like the state.
CREATE TABLE weir.landing (
	row_audit_id	bigint PRIMARY KEY,
	pipeline_id		bigint NOT NULL REFERENCES weir.pipeline ON DELETE CASCADE,
	run_id			bigint NOT NULL,
	params			jsonb NOT NULL,
	nominal_time	timestamptz,
	window_start	timestamptz,
	window_end		timestamptz,
	left_at			timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX landing_by_pipeline ON weir.landing (pipeline_id, row_audit_id);
COMMENT ON TABLE weir.landing IS 'Landings that are to be resumed (D), one for each run that left one';
COMMENT ON COLUMN weir.landing.row_audit_id IS 'The run that landed, however often D repeated';
COMMENT ON COLUMN weir.landing.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir.landing.run_id IS 'The run that last left it: its tasks of phase land are taken over';
COMMENT ON COLUMN weir.landing.params IS 'Parameters of that run';
COMMENT ON COLUMN weir.landing.nominal_time IS 'The moment it was for';
COMMENT ON COLUMN weir.landing.window_start IS 'Start of its window';
COMMENT ON COLUMN weir.landing.window_end IS 'End of its window, exclusive';
COMMENT ON COLUMN weir.landing.left_at IS 'When that run ended';
