-- Activities and row counts of executions.

-- ids of this test alone, so that messages can show them
SELECT setval('weir.run_id_seq', 7400000) > 0 AS set;

SELECT "ExecutionID" AS a1 FROM weir.log_execution_start('ac_one') \gset

-- running, then succeeded: what the first call said stays
SELECT * FROM weir.log_activity(:a1, 'copy', 'land', 'running', activity_type => 'Copy', started_at => '2026-07-01 00:00Z');
SELECT * FROM weir.log_activity(:a1, 'copy', 'land', rows_read => 100, rows_copied => 98, rows_skipped => 2, ended_at => '2026-07-01 00:01Z');
SELECT activity, activity_type, phase, status, rows_read, rows_copied, rows_skipped, bytes_read, run_seconds
FROM weir.activities WHERE run_id = :a1;
-- repeated: nothing changes
SELECT * FROM weir.log_activity(:a1, 'copy', 'land', rows_read => 100, rows_copied => 98, rows_skipped => 2, ended_at => '2026-07-01 00:01Z');
SELECT activity, activity_type, phase, status, rows_read, rows_copied, rows_skipped, bytes_read, run_seconds
FROM weir.activities WHERE run_id = :a1;

-- counts of a Copy activity's own output, unless they are given
SELECT "Status" FROM weir.log_activity(:a1, 'copy 2', 'land', rows_copied => 7, output =>
	'{"dataRead": 4096, "dataWritten": 2048, "rowsRead": 12, "rowsCopied": 10, "rowsSkipped": "2", "copyDuration": 3, "errors": []}');
-- strange output is stored and not believed
SELECT "Status" FROM weir.log_activity(:a1, 'copy 3', 'land', output =>
	'{"dataRead": -1, "rowsRead": 1.5, "rowsCopied": {"a": 1}, "rowsSkipped": "99999999999999999999", "dataWritten": null}');
SELECT "Status" FROM weir.log_activity(:a1, 'copy 4', 'land', output => '["rowsRead"]');
SELECT activity, rows_read, rows_copied, rows_skipped, bytes_read, bytes_written FROM weir.activities WHERE run_id = :a1 ORDER BY activity;

-- an activity that is run again by the orchestrator loses its error and its end
SELECT "Status" FROM weir.log_activity(:a1, 'merge', 'transform', 'failed', error_code => '1', error_message => 'no');
SELECT status, error_code, error_message, ended_at IS NOT NULL AS ended FROM weir.activities WHERE run_id = :a1 AND activity = 'merge';
SELECT "Status" FROM weir.log_activity(:a1, 'merge', 'transform', 'running');
SELECT status, error_code, error_message, ended_at IS NOT NULL AS ended FROM weir.activities WHERE run_id = :a1 AND activity = 'merge';
SELECT "Status" FROM weir.log_activity(:a1, 'merge', 'transform');

-- row counts: the last one per component, object and type
SELECT * FROM weir.log_row_count(:a1, 'copy', 'crm.flights', 'Select', 100);
SELECT * FROM weir.log_row_count(:a1, 'copy', 'crm.flights', 'select', 101, 1234.50, 'price');
SELECT * FROM weir.log_row_count(:a1, 'copy', 'bronze.flights', 'INSERT', 0);
SELECT pipeline_name, component, object_name, count_type, row_count, column_name, column_sum FROM weir.row_counts WHERE run_id = :a1 ORDER BY 2, 3 DESC, 4;

-- what is wrong
SELECT weir.log_row_count(:a1, 'copy', 'crm.flights', 'Upsert', 1);
SELECT weir.log_row_count(:a1, 'copy', 'crm.flights', 'Insert', -1);
SELECT weir.log_row_count(:a1, 'copy', 'crm.flights', 'Insert', NULL);
SELECT weir.log_row_count(:a1, NULL, 'crm.flights', 'Insert', 1);
SELECT weir.log_row_count(7499999, 'copy', 'crm.flights', 'Insert', 1);
SELECT weir.log_activity(:a1, 'copy', 'load');
SELECT weir.log_activity(:a1, 'copy', NULL);
SELECT weir.log_activity(:a1, 'copy', 'land', 'done');
SELECT weir.log_activity(:a1, NULL, 'land');
SELECT weir.log_activity(:a1, 'copy', 'land', rows_read => -1);
SELECT weir.log_activity(:a1, 'copy', 'land', bytes_written => -1);
SELECT weir.log_activity(:a1, 'copy', 'land', output => jsonb_build_array(repeat('x', 1100000)));
SELECT weir.log_activity(:a1, repeat('x', 261), 'land');
SELECT weir.log_activity(7499999, 'copy', 'land');
SELECT weir.log_activity(NULL, 'copy', 'land');
SELECT count(*) FROM weir.activities WHERE run_id = :a1;

-- after the end: a repeated call is taken, one that contradicts is not
SELECT "ExecutionStatus" FROM weir.log_execution_end(:a1);
SELECT "Status" FROM weir.log_activity(:a1, 'merge', 'transform');
SELECT weir.log_activity(:a1, 'merge', 'transform', 'failed');
SELECT "RowCount" FROM weir.log_row_count(:a1, 'copy', 'crm.flights', 'Select', 101);
SELECT weir.skip_once('ac_one');
SELECT "ExecutionID" AS a2, "ExecutionStatus" AS status FROM weir.log_execution_start('ac_one') \gset
\echo :status
SELECT weir.log_activity(:a2, 'copy', 'land');
SELECT weir.log_row_count(:a2, 'copy', 'crm.flights', 'Select', 101);

-- What weir logs itself nobody else logs: an open transaction would hold up the conductor at that key.
INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, version, status, triggered_by, owner)
VALUES (990001, 0, 'own_names', 1, 'running', current_user, current_user::regrole);
INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status) VALUES (990001, 1, 'copy', 'noop', 'land', 'waiting');
SELECT weir.log_activity(990001, 'copy/Copy data', 'land', 'succeeded');
SELECT weir.log_row_count(990001, 'copy', 'copy', 'Insert', 5);
SELECT count(*) FROM weir.log_activity(990001, 'copy', 'land', 'succeeded');
SELECT count(*) FROM weir.log_row_count(990001, 'copy', 'flights', 'Insert', 5);
DELETE FROM weir.activity WHERE run_id = 990001;
DELETE FROM weir.row_count WHERE run_id = 990001;
DELETE FROM weir.task_run WHERE run_id = 990001;
DELETE FROM weir.run WHERE run_id = 990001;
