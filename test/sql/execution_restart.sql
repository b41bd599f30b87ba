-- What the next start does: P process, R rerun, D resume after landing.
-- The table of the six cases for one pipeline, then crashes.

-- ids of this test alone, so that messages can show them
SELECT setval('weir.run_id_seq', 7300000) > 0 AS set;

-- land failed or unfinished: R, everything runs, with an audit id of its own
SELECT "ExecutionID" AS r1 FROM weir.log_execution_start('re_one') \gset
SELECT * FROM weir.log_activity(:r1, 'land', 'land', 'failed', error_code => '500', error_message => 'no') \gset
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_error(:r1, 'land', '500', 'no');
SELECT "ExecutionID" AS r2, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :r1 AS last, "RowAuditID" = "ExecutionID" AS own
FROM weir.log_execution_start('re_one') \gset
\echo :status :next :last :own
-- one of two landings is enough for R
SELECT "Status" FROM weir.log_activity(:r2, 'land a', 'land');
SELECT "Status" FROM weir.log_activity(:r2, 'land b', 'land', 'running');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:r2, 'transform', '1', 'no', phase => 'transform');

-- land succeeded, transform failed: D, and three times in a row
--
-- After two D failures the reference's id points at the second attempt, which
-- landed nothing: rows stamped by the run that did land are never picked up
-- again.  The origin is carried forward here.
SELECT "ExecutionID" AS d1, "ExecutionStatus" AS status FROM weir.log_execution_start('re_one') \gset
\echo :status
SELECT "Status" FROM weir.log_activity(:d1, 'land a', 'land', rows_read => 10, rows_copied => 10);
SELECT "Status" FROM weir.log_activity(:d1, 'land b', 'land');
SELECT "Status" FROM weir.log_activity(:d1, 'transform', 'transform', 'running');
SELECT "ExecutionStatus", "NextLoadStatus", "RowAuditID" = :d1 AS origin FROM weir.log_execution_error(:d1, 'transform', '22012', 'division by zero');
SELECT "Status" IS NULL AS transform_is_failed FROM (SELECT NULL AS "Status" FROM weir.activities WHERE run_id = :d1 AND activity = 'transform' AND status = 'failed' AND error_code = '22012') AS s;
SELECT "ExecutionID" AS d2, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :d1 AS last, "RowAuditID" = :d1 AS origin
FROM weir.log_execution_start('re_one') \gset
\echo :status :next :last :origin
SELECT "NextLoadStatus", "RowAuditID" = :d1 AS origin FROM weir.log_execution_error(:d2, 'transform', '22012', 'division by zero', phase => 'transform');
SELECT "ExecutionID" AS d3, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :d2 AS last, "RowAuditID" = :d1 AS origin
FROM weir.log_execution_start('re_one') \gset
\echo :status :next :last :origin
SELECT "NextLoadStatus" FROM weir.log_execution_error(:d3);
SELECT "ExecutionID" AS d4, "ExecutionStatus" AS status, "LastExecutionID" = :d3 AS last, "RowAuditID" = :d1 AS origin
FROM weir.log_execution_start('re_one') \gset
\echo :status :last :origin
-- an overlap and a disabled start in between do not disturb it
SELECT "ExecutionStatus" FROM weir.log_execution_start('re_one');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end(:d4);
SELECT next_load_status, origin_row_audit_id FROM weir.pipelines WHERE name = 're_one';
SELECT "ExecutionID" AS p1, "ExecutionStatus" AS status, "RowAuditID" = "ExecutionID" AS own, "IsInitialLoad" AS initial FROM weir.log_execution_start('re_one') \gset
\echo :status :own :initial

-- the phase of an activity may be known from the last successful execution
SELECT "Status" FROM weir.log_activity(:p1, 'land', 'land');
SELECT "Status" FROM weir.log_activity(:p1, 'merge', 'transform');
SELECT "NextLoadStatus" FROM weir.log_execution_end(:p1);
SELECT "ExecutionID" AS p2 FROM weir.log_execution_start('re_one') \gset
SELECT "Status" FROM weir.log_activity(:p2, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:p2, 'merge', '1', 'no');
-- one that nobody ever named may be a landing that was not logged: R
SELECT "ExecutionID" AS p3, "ExecutionStatus" AS status FROM weir.log_execution_start('re_one') \gset
\echo :status
SELECT "NextLoadStatus" FROM weir.log_execution_end(:p3);
SELECT "ExecutionID" AS p4 FROM weir.log_execution_start('re_one') \gset
SELECT "Status" FROM weir.log_activity(:p4, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:p4, 'land of another object', '1', 'no');

-- parallel activities: the first error said D, the second is a landing
SELECT "ExecutionID" AS q1 FROM weir.log_execution_start('re_parallel') \gset
SELECT "Status" FROM weir.log_activity(:q1, 'land a', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:q1, 'transform a', '1', 'no', phase => 'transform');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:q1, 'transform b', '1', 'no', phase => 'transform');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:q1, 'land b', '1', 'no', phase => 'land');
SELECT "ExecutionID" AS q2, "ExecutionStatus" AS status FROM weir.log_execution_start('re_parallel') \gset
\echo :status
-- the same through log_activity
SELECT "Status" FROM weir.log_activity(:q2, 'land a', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:q2, 'transform a', '1', 'no', phase => 'transform');
SELECT "Status" FROM weir.log_activity(:q2, 'land a', 'land');
SELECT next_load_status FROM weir.pipelines WHERE name = 're_parallel';
SELECT "Status" FROM weir.log_activity(:q2, 'land b', 'land', 'failed');
SELECT next_load_status FROM weir.pipelines WHERE name = 're_parallel';
SELECT next_load_status FROM weir.runs WHERE run_id = :q2;

-- a landing that was logged as succeeded and then named by an error did not succeed
SELECT "ExecutionID" AS s1 FROM weir.log_execution_start('re_named') \gset
SELECT "Status" FROM weir.log_activity(:s1, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:s1, 'land', '1', 'checksum');
SELECT status, error_code FROM weir.activities WHERE run_id = :s1;

-- nothing logged at all: R
SELECT "ExecutionID" AS t1 FROM weir.log_execution_start('re_nothing') \gset
SELECT "NextLoadStatus" FROM weir.log_execution_error(:t1);
SELECT message FROM weir.errors WHERE run_id = :t1;

--
-- Crashes: the execution never called end or error.  The next start after the
-- stale limit closes it with what is logged, as if it had reported an error
-- at the point it reached.
--
SELECT "ExecutionID" AS c1 FROM weir.log_execution_start('re_crash') \gset
SELECT "ExecutionStatus" FROM weir.log_execution_start('re_crash');
SELECT "ExecutionID" AS c2, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :c1 AS last
FROM weir.log_execution_start('re_crash', stale_after => '0 seconds') \gset
\echo :status :next :last
SELECT execution_status, next_load_status, error_message FROM weir.runs WHERE run_id = :c1;
SELECT activity, code FROM weir.errors WHERE run_id = :c1;

-- crashed in transform: D with the origin
SELECT "Status" FROM weir.log_activity(:c2, 'land', 'land');
SELECT "Status" FROM weir.log_activity(:c2, 'transform', 'transform', 'running');
SELECT "ExecutionID" AS c3, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :c2 AS last, "RowAuditID" = :c2 AS origin
FROM weir.log_execution_start('re_crash', stale_after => '0 seconds') \gset
\echo :status :next :last :origin
-- crashed again before it logged anything: still D with the same origin; the limit is the pipeline's here
UPDATE weir.pipeline SET stale_after = '0 seconds' WHERE name = 're_crash';
SELECT "ExecutionID" AS c4, "ExecutionStatus" AS status, "LastExecutionID" = :c3 AS last, "RowAuditID" = :c2 AS origin
FROM weir.log_execution_start('re_crash') \gset
\echo :status :last :origin
-- a landing that did not finish is a landing that did not finish
SELECT "ExecutionStatus" FROM weir.log_execution_end(:c4);
SELECT "ExecutionID" AS c5 FROM weir.log_execution_start('re_crash') \gset
SELECT "Status" FROM weir.log_activity(:c5, 'land a', 'land');
SELECT "ExecutionID" AS c6, "ExecutionStatus" AS status FROM weir.log_execution_start('re_crash') \gset
\echo :status
-- the dead come back: what they say is refused
SELECT weir.log_execution_end(:c5);
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_error(:c5, 'land b', '1', 'late', phase => 'land');
SELECT status FROM weir.runs WHERE run_id = :c6;

-- activities are a sign of life; the setting is the limit for all others, 0 is never
UPDATE weir.pipeline SET stale_after = NULL WHERE name = 're_crash';
SET weir.stale_execution_after = '1h';
UPDATE weir.run SET started_at = started_at - interval '2 hours' WHERE run_id = :c6;
SELECT "Status" FROM weir.log_activity(:c6, 'land a', 'land', 'running');
SELECT "ExecutionStatus" FROM weir.log_execution_start('re_crash');
UPDATE weir.activity SET logged_at = logged_at - interval '2 hours' WHERE run_id = :c6;
SET weir.stale_execution_after = 0;
SELECT "ExecutionStatus" FROM weir.log_execution_start('re_crash');
SET weir.stale_execution_after = '1h';
SELECT "ExecutionID" AS c7, "ExecutionStatus" AS status FROM weir.log_execution_start('re_crash') \gset
\echo :status
RESET weir.stale_execution_after;

-- somebody knows that the engine's run ended: reset_execution closes it at once
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.reset_execution(:c7);
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.reset_execution(:c7);
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.reset_execution(:c7, 'P');
SELECT "ExecutionStatus" FROM weir.reset_execution(:c6, 'P');
SELECT weir.reset_execution(:c7, 'D');
SELECT "ExecutionStatus" FROM weir.log_execution_start('re_crash');

-- what landed and waits is listed: the origin, and the execution that failed last with it
SELECT "ExecutionID" AS l1 FROM weir.log_execution_start('re_landing') \gset
SELECT "Status" FROM weir.log_activity(:l1, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:l1, 'transform', '1', 'no', phase => 'transform');
SELECT row_audit_id = :l1 AS origin, run_id = :l1 AS first, resumed_by_run_id FROM weir.landings WHERE pipeline_name = 're_landing';
SELECT "ExecutionID" AS l2, "ExecutionStatus" AS status FROM weir.log_execution_start('re_landing') \gset
SELECT row_audit_id = :l1 AS origin, run_id = :l1 AS first, resumed_by_run_id = :l2 AS resumed FROM weir.landings WHERE pipeline_name = 're_landing';
SELECT "NextLoadStatus" FROM weir.log_execution_error(:l2);
SELECT row_audit_id = :l1 AS origin, run_id = :l2 AS second FROM weir.landings WHERE pipeline_name = 're_landing';
SELECT "ExecutionID" AS l3, "ExecutionStatus" AS status FROM weir.log_execution_start('re_landing') \gset
SELECT "NextLoadStatus" FROM weir.log_execution_end(:l3);
SELECT count(*) AS landings FROM weir.landings WHERE pipeline_name = 're_landing';
-- given up by an operator, and by a rollback
SELECT "ExecutionID" AS l4 FROM weir.log_execution_start('re_landing') \gset
SELECT "Status" FROM weir.log_activity(:l4, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:l4, 'transform', '1', 'no', phase => 'transform');
SELECT "NextLoadStatus" FROM weir.reset_execution(:l4, 'R');
SELECT count(*) AS landings FROM weir.landings WHERE pipeline_name = 're_landing';
SELECT "ExecutionID" AS l5 FROM weir.log_execution_start('re_landing') \gset
SELECT "Status" FROM weir.log_activity(:l5, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:l5, 'transform', '1', 'no', phase => 'transform');
SELECT count(*) AS landings FROM weir.landings WHERE pipeline_name = 're_landing';
SELECT count(*) AS audit_ids FROM weir.rollback_execution(:l5);
SELECT count(*) AS landings, (SELECT next_load_status FROM weir.pipelines WHERE name = 're_landing') AS next FROM weir.landings WHERE pipeline_name = 're_landing';
