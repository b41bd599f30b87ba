-- The log of outside orchestrators.  Every function returns one row (but
-- rollback_execution), because a Lookup activity wants one; the columns are
-- quoted so that activity('x').output.firstRow.ExecutionID finds them.  Every
-- function may be called again: orchestrators retry what seems to have failed.

CREATE FUNCTION weir.log_execution_start(
	pipeline_name text,
	project text DEFAULT NULL,
	parent_execution_id bigint DEFAULT NULL,
	is_batch boolean DEFAULT false,
	external_system text DEFAULT NULL,
	external_run_id text DEFAULT NULL,
	trigger_type text DEFAULT NULL,
	trigger_name text DEFAULT NULL,
	trigger_time timestamptz DEFAULT NULL,
	window_start timestamptz DEFAULT NULL,
	window_end timestamptz DEFAULT NULL,
	source_name text DEFAULT NULL,
	target_name text DEFAULT NULL,
	parameters jsonb DEFAULT NULL,
	stale_after interval DEFAULT NULL,
	OUT "ExecutionID" bigint,
	OUT "ExecutionStatus" text,
	OUT "NextLoadStatus" text,
	OUT "LastExecutionID" bigint,
	OUT "RowAuditID" bigint,
	OUT "BatchStartTime" timestamptz,
	OUT "IsInitialLoad" boolean)
	AS 'MODULE_PATHNAME', 'weir_log_execution_start' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.log_execution_start(text, text, bigint, boolean, text, text, text, text, timestamptz, timestamptz, timestamptz, text, text, jsonb, interval) IS
'Starts an execution of a pipeline that an outside orchestrator runs.
ExecutionStatus: E run; R run from the start (remove or overwrite what failed tries left); D run, but landing is done: stamp rows with RowAuditID; C skip the body, then call log_execution_end; A do nothing, another execution is running.
NextLoadStatus is the mark of the pipeline that led to it. The same external_system and external_run_id again give the same answer. An execution still open counts as crashed when it gave no sign of life for stale_after, else for the pipeline''s stale_after, else for weir.stale_execution_after.';

CREATE FUNCTION weir.log_execution_end(
	execution_id bigint,
	OUT "ExecutionID" bigint,
	OUT "ExecutionStatus" text,
	OUT "NextLoadStatus" text,
	OUT "RowAuditID" bigint)
	AS 'MODULE_PATHNAME', 'weir_log_execution_end' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.log_execution_end(bigint) IS
'Ends an execution well: S / P; S / C for a child of a batch that has already failed; for a batch every direct child becomes P';

CREATE FUNCTION weir.log_execution_error(
	execution_id bigint,
	activity_name text DEFAULT NULL,
	error_code text DEFAULT NULL,
	error_message text DEFAULT NULL,
	output jsonb DEFAULT NULL,
	phase text DEFAULT NULL,
	error_detail text DEFAULT NULL,
	OUT "ExecutionID" bigint,
	OUT "ExecutionStatus" text,
	OUT "NextLoadStatus" text,
	OUT "RowAuditID" bigint)
	AS 'MODULE_PATHNAME', 'weir_log_execution_error' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.log_execution_error(bigint, text, text, text, jsonb, text, text) IS
'Ends an execution with an error and decides what the next start does: D if every landing activity is logged as succeeded and what failed comes after landing, else R.
Give the phase of the activity (land, transform or publish) unless log_activity named it, in this execution or in the last successful one; an activity of unknown phase counts as landing. Without an activity the last one logged counts as the point reached.';

CREATE FUNCTION weir.log_activity(
	execution_id bigint,
	activity_name text,
	phase text,
	status text DEFAULT 'succeeded',
	rows_read bigint DEFAULT NULL,
	rows_copied bigint DEFAULT NULL,
	rows_skipped bigint DEFAULT NULL,
	bytes_read bigint DEFAULT NULL,
	bytes_written bigint DEFAULT NULL,
	output jsonb DEFAULT NULL,
	activity_type text DEFAULT NULL,
	started_at timestamptz DEFAULT NULL,
	ended_at timestamptz DEFAULT NULL,
	error_code text DEFAULT NULL,
	error_message text DEFAULT NULL,
	OUT "ExecutionID" bigint,
	OUT "ActivityName" text,
	OUT "Phase" text,
	OUT "Status" text)
	AS 'MODULE_PATHNAME', 'weir_log_activity' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.log_activity(bigint, text, text, text, bigint, bigint, bigint, bigint, bigint, jsonb, text, timestamptz, timestamptz, text, text) IS
'Logs an activity of an execution, or what became of it. Phase: land, transform or publish. Status: running, succeeded, failed, skipped or cancelled. Counts that are not given are taken from the output of a Copy activity (rowsRead, rowsCopied, rowsSkipped, dataRead, dataWritten). This is what decides between R and D.';

CREATE FUNCTION weir.log_row_count(
	execution_id bigint,
	component text,
	object_name text,
	count_type text,
	row_count bigint,
	column_sum numeric DEFAULT NULL,
	column_name text DEFAULT NULL,
	OUT "ExecutionID" bigint,
	OUT "Component" text,
	OUT "ObjectName" text,
	OUT "CountType" text,
	OUT "RowCount" bigint)
	AS 'MODULE_PATHNAME', 'weir_log_row_count' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.log_row_count(bigint, text, text, text, bigint, numeric, text) IS
'Logs a row count of an execution; the last one per component, object and type stays. Types: Select, Insert, Update, Delete, Unaffected, Intermediate, Error, Exception, Control, Unknown';

CREATE FUNCTION weir.get_config_variable(
	system_name text,
	object_name text,
	variable_name text,
	default_value text DEFAULT NULL,
	execution_id bigint DEFAULT NULL,
	OUT "VariableValue" text,
	OUT "VariableType" text,
	OUT "ExecutionID" bigint,
	OUT "IsDefault" boolean)
	AS 'MODULE_PATHNAME', 'weir_get_config_variable' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.get_config_variable(text, text, text, text, bigint) IS
'Value of a config variable, or the default. ExecutionID: the execution that set it. A null object is the whole system. An execution_id that is given must exist. Whom weir.config_variables does not show the variable gets an error.';

CREATE FUNCTION weir.set_config_variable(
	system_name text,
	object_name text,
	variable_name text,
	value text,
	execution_id bigint DEFAULT NULL,
	type text DEFAULT NULL,
	allow_backwards boolean DEFAULT false,
	OUT "PreviousValue" text,
	OUT "VariableValue" text,
	OUT "VariableType" text,
	OUT "IsChanged" boolean)
	AS 'MODULE_PATHNAME', 'weir_set_config_variable' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.set_config_variable(text, text, text, text, bigint, text, boolean) IS
'Sets a config variable, such as a watermark. The first call fixes the type: text (the default), bigint, numeric or timestamptz; values compare as that type. A value before the current one changes nothing unless allow_backwards; IsChanged tells. A moment without a time zone is UTC. With execution_id the change is that execution''s and goes back with rollback_execution.';

CREATE FUNCTION weir.rollback_execution(execution_id bigint)
	RETURNS TABLE ("RowAuditID" bigint)
	AS 'MODULE_PATHNAME', 'weir_rollback_execution' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION weir.rollback_execution(bigint) IS
'Undoes what executions of the pipeline since its last success did to config variables, and returns every audit id they stamped rows with, for the caller to delete those rows. A pending D becomes R.';

CREATE FUNCTION weir.set_pipeline_enabled(
	pipeline_name text,
	enabled boolean DEFAULT true,
	OUT "PipelineName" text,
	OUT "IsEnabled" boolean)
	AS 'MODULE_PATHNAME', 'weir_set_pipeline_enabled' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.set_pipeline_enabled(text, boolean) IS
'Enables or disables a pipeline; the start of a disabled one is answered C';

CREATE FUNCTION weir.skip_once(
	pipeline_name text,
	skip boolean DEFAULT true,
	OUT "PipelineName" text,
	OUT "IsSkippedOnce" boolean)
	AS 'MODULE_PATHNAME', 'weir_skip_once' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.skip_once(text, boolean) IS
'Answers the next start of the pipeline with C, once; false takes the mark back';

CREATE FUNCTION weir.reset_execution(
	execution_id bigint,
	next_load_status text DEFAULT NULL,
	OUT "ExecutionID" bigint,
	OUT "ExecutionStatus" text,
	OUT "NextLoadStatus" text,
	OUT "RowAuditID" bigint)
	AS 'MODULE_PATHNAME', 'weir_reset_execution' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.reset_execution(bigint, text) IS
'Clears an execution that is stuck: one that is open is closed as failed with R or D by what is logged, as after a crash. With next_load_status (P, R or C) the next start of the pipeline does that instead.';

REVOKE ALL ON FUNCTION
	weir.log_execution_start(text, text, bigint, boolean, text, text, text, text, timestamptz, timestamptz, timestamptz, text, text, jsonb, interval),
	weir.log_execution_end(bigint),
	weir.log_execution_error(bigint, text, text, text, jsonb, text, text),
	weir.log_activity(bigint, text, text, text, bigint, bigint, bigint, bigint, bigint, jsonb, text, timestamptz, timestamptz, text, text),
	weir.log_row_count(bigint, text, text, text, bigint, numeric, text),
	weir.get_config_variable(text, text, text, text, bigint),
	weir.set_config_variable(text, text, text, text, bigint, text, boolean),
	weir.rollback_execution(bigint),
	weir.set_pipeline_enabled(text, boolean),
	weir.skip_once(text, boolean),
	weir.reset_execution(bigint, text)
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	weir.log_execution_start(text, text, bigint, boolean, text, text, text, text, timestamptz, timestamptz, timestamptz, text, text, jsonb, interval),
	weir.log_execution_end(bigint),
	weir.log_execution_error(bigint, text, text, text, jsonb, text, text),
	weir.log_activity(bigint, text, text, text, bigint, bigint, bigint, bigint, bigint, jsonb, text, timestamptz, timestamptz, text, text),
	weir.log_row_count(bigint, text, text, text, bigint, numeric, text),
	weir.set_config_variable(text, text, text, text, bigint, text, boolean),
	weir.rollback_execution(bigint),
	weir.set_pipeline_enabled(text, boolean),
	weir.skip_once(text, boolean),
	weir.reset_execution(bigint, text)
	TO weir_operator, weir_admin;
GRANT EXECUTE ON FUNCTION weir.get_config_variable(text, text, text, text, bigint)
	TO weir_reader, weir_operator, weir_admin;
