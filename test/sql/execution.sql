-- The contract of outside orchestrators: start, look at the answer, run or
-- skip the body, end.

-- ids of this test alone, so that messages can show them
SELECT setval('weir.run_id_seq', 7100000) > 0 AS set;

-- the columns are what ADF expressions name: firstRow.ExecutionID
SELECT "ExecutionStatus", "NextLoadStatus", "LastExecutionID", "RowAuditID" = "ExecutionID" AS own_audit_id,
	"BatchStartTime" <= clock_timestamp() AS has_batch_start, "IsInitialLoad"
FROM weir.log_execution_start('ex_flights', project => 'lake', source_name => 'crm.flights', target_name => 'bronze.flights',
	trigger_type => 'ScheduleTrigger', trigger_name => 'daily', trigger_time => '2026-07-01 00:00Z',
	window_start => '2026-06-30 00:00Z', window_end => '2026-07-01 00:00Z', parameters => '{"day": "2026-06-30"}');
SELECT last_run_id AS e1 FROM weir.pipelines WHERE name = 'ex_flights' \gset

SELECT pipeline_name, project, status, execution_status, start_status, next_load_status, is_external, is_batch, params,
	nominal_time = window_end AS nominal, trigger_type, trigger_name, source_name, target_name, run_seconds >= 0 AS runs
FROM weir.runs WHERE run_id = :e1;
SELECT name, project, owner = current_user AS owned_by_caller, current_version, next_load_status
FROM weir.pipelines WHERE name = 'ex_flights';

-- earliest wins: whoever comes while it runs does nothing
SELECT "ExecutionStatus", "NextLoadStatus", "LastExecutionID" = :e1 AS last FROM weir.log_execution_start('ex_flights');
SELECT status FROM weir.runs WHERE run_id = :e1;

-- the end, called twice
SELECT "ExecutionID" = :e1 AS same, "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end(:e1);
SELECT "ExecutionID" = :e1 AS same, "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end(:e1);
SELECT "ExecutionID" AS e2, "ExecutionStatus", "LastExecutionID" = :e1 AS last, "IsInitialLoad"
FROM weir.log_execution_start('ex_flights') \gset
\echo :ExecutionStatus :last :IsInitialLoad
SELECT "NextLoadStatus" FROM weir.log_execution_end(:e2);

--
-- The start of the reference is check-then-insert without a key.  An ADF
-- activity whose answer got lost on the way is retried, and the retry logged
-- a second execution, which then found the first one running.  With the same
-- external run id the first answer is given again, word for word.
--
CREATE TEMP TABLE answer AS SELECT * FROM weir.log_execution_start('ex_retried', external_system => 'adf', external_run_id => 'r-1');
INSERT INTO answer SELECT * FROM weir.log_execution_start('ex_retried', external_system => 'adf', external_run_id => 'r-1');
SELECT count(*), count(DISTINCT answer) AS answers, min("ExecutionStatus") AS status FROM answer;
SELECT count(*) AS executions FROM weir.runs WHERE pipeline_name = 'ex_retried';
-- also after it ended, and after others ran
SELECT "ExecutionStatus" FROM weir.log_execution_end((SELECT min("ExecutionID") FROM answer));
INSERT INTO answer SELECT * FROM weir.log_execution_start('ex_retried', external_system => 'adf', external_run_id => 'r-1');
SELECT count(*), count(DISTINCT answer) AS answers FROM answer;
-- the key is of the system: another one's r-1, and one without a system, are others
SELECT "ExecutionID" NOT IN (SELECT "ExecutionID" FROM answer) AS another, "ExecutionStatus"
FROM weir.log_execution_start('ex_retried', external_system => 'fabric', external_run_id => 'r-1');
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_retried', external_run_id => 'r-1');
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_retried', external_run_id => 'r-1');
SELECT external_system, external_run_id, status FROM weir.runs WHERE pipeline_name = 'ex_retried' ORDER BY run_id;
DROP TABLE answer;

-- disabled is C, for as long as it lasts; nothing else changes
SELECT * FROM weir.set_pipeline_enabled('ex_flights', false);
SELECT * FROM weir.set_pipeline_enabled('ex_flights', false);
SELECT "ExecutionID" AS c1, "ExecutionStatus" AS status, "NextLoadStatus" AS next, "LastExecutionID" = :e2 AS last
FROM weir.log_execution_start('ex_flights') \gset
\echo :status :next :last
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end(:c1);
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_flights');
SELECT * FROM weir.set_pipeline_enabled('ex_flights');

-- skip once is used up by the start it skips
SELECT * FROM weir.skip_once('ex_flights');
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_flights');
SELECT "ExecutionID" AS e3, "ExecutionStatus" AS status, "LastExecutionID" = :e2 AS last FROM weir.log_execution_start('ex_flights') \gset
\echo :status :last
SELECT "NextLoadStatus" FROM weir.log_execution_end(:e3);
SELECT * FROM weir.skip_once('ex_flights');
SELECT * FROM weir.skip_once('ex_flights', false);
SELECT "ExecutionID" AS e4, "ExecutionStatus" AS status FROM weir.log_execution_start('ex_flights') \gset
\echo :status

-- an error is logged once, however often the call is repeated
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_error(:e4, 'copy', '2200', E'cannot connect\nto the source', '{"errors": [1]}');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_error(:e4, 'copy', '2200', E'cannot connect\nto the source', '{"errors": [1]}');
SELECT "ExecutionStatus" FROM weir.log_execution_error(:e4, 'copy', '2201', 'something else');
SELECT activity, code, message, output FROM weir.errors WHERE run_id = :e4 ORDER BY error_id;
SELECT execution_status, error_message FROM weir.runs WHERE run_id = :e4;

-- what cannot be, changes nothing and says why
SELECT weir.log_execution_end(:e4);
SELECT weir.log_execution_error(:e3, 'copy', '1', 'too late');
SELECT weir.log_execution_end(0);
SELECT weir.log_execution_end(NULL);
SELECT weir.log_execution_error(9223372036854775807, 'copy');
SELECT weir.log_execution_start(NULL);
SELECT weir.log_execution_start('');
SELECT weir.log_execution_start(repeat('x', 261));
SELECT weir.log_execution_start('ex_never', parameters => '[1]');
SELECT weir.log_execution_start('ex_never', parameters => jsonb_build_object('a', repeat('x', 1100000)));
SELECT weir.log_execution_start('ex_never', window_start => '2026-07-01', window_end => '2026-06-30');
SELECT weir.log_execution_start('ex_never', stale_after => '-1 second');
SELECT weir.log_execution_start('ex_never', parent_execution_id => 0);
SELECT weir.set_pipeline_enabled('ex_never', true);
SELECT weir.skip_once('ex_never');
SELECT count(*) AS registered FROM weir.pipelines WHERE name = 'ex_never' OR name = '';

-- an error must not get lost because it is long
SELECT "ExecutionID" AS e5 FROM weir.log_execution_start('ex_flights') \gset
SELECT "ExecutionStatus" FROM weir.log_execution_error(:e5, 'copy', repeat('9', 2000), repeat('ä', 50000), jsonb_build_object('a', repeat('x', 1100000)));
SELECT length(code) AS code, length(message) AS message, output IS NULL AS no_output FROM weir.errors WHERE run_id = :e5;
SELECT length(error_message) AS shown FROM weir.runs WHERE run_id = :e5;

-- registering may be turned off
SET weir.register_unknown_pipelines = off;
SELECT weir.log_execution_start('ex_unknown');
RESET weir.register_unknown_pipelines;

-- a run of weir itself counts as running, a queued one does not, and neither is ended from outside
INSERT INTO weir.run (pipeline_id, pipeline_name, status, triggered_by, owner, started_at)
SELECT pipeline_id, name, 'queued', current_user, current_user::regrole, NULL FROM weir.pipeline WHERE name = 'ex_retried'
RETURNING run_id AS own \gset
SELECT weir.log_execution_end(:own);
SELECT weir.log_execution_error(:own);
SELECT weir.reset_execution(:own);
SELECT "ExecutionID" AS e6 FROM weir.log_execution_start('ex_own') \gset
UPDATE weir.run SET pipeline_id = (SELECT pipeline_id FROM weir.pipeline WHERE name = 'ex_own') WHERE run_id = :own;
SELECT "ExecutionStatus" FROM weir.log_execution_end(:e6);
SELECT "ExecutionID" AS e7, "ExecutionStatus" AS status FROM weir.log_execution_start('ex_own') \gset
\echo :status
SELECT "ExecutionStatus" FROM weir.log_execution_end(:e7);
UPDATE weir.pipeline SET current_version = 1 WHERE name = 'ex_own';
UPDATE weir.run SET status = 'running', started_at = now() - interval '10 days' WHERE run_id = :own;
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_own', stale_after => '0 seconds');
UPDATE weir.run SET status = 'succeeded' WHERE run_id = :own;

-- operators log; readers look; others see only what belongs to a role of theirs
CREATE ROLE ex_operator IN ROLE weir_operator;
CREATE ROLE ex_reader IN ROLE weir_reader;
CREATE ROLE ex_other;
GRANT USAGE ON SCHEMA weir TO ex_other;
SET ROLE ex_operator;
SELECT "ExecutionStatus" FROM weir.log_execution_start('ex_theirs');
SELECT * FROM weir.set_config_variable('ex', NULL, 'v', '1');
SELECT owner FROM weir.pipelines WHERE name = 'ex_theirs';
SELECT triggered_by, owner FROM weir.runs WHERE pipeline_name = 'ex_theirs';
SELECT count(*) FROM weir.run;
SET weir.register_unknown_pipelines = off;
SET ROLE ex_reader;
SELECT weir.log_execution_start('ex_theirs');
SELECT "VariableValue" FROM weir.get_config_variable('ex', NULL, 'v');
SELECT count(*) > 1 AS sees_all FROM weir.runs;
SET ROLE ex_other;
SELECT weir.log_execution_start('ex_theirs');
SELECT weir.get_config_variable('ex', NULL, 'v');
SELECT count(*) FROM weir.runs;
SELECT count(*) FROM weir.pipelines;
SELECT count(*) FROM weir.errors;
SELECT count(*) FROM weir.config_variables;
RESET ROLE;
GRANT ex_operator TO ex_other;
REVOKE weir_operator FROM ex_operator;
SET ROLE ex_other;
SELECT pipeline_name FROM weir.runs;
SELECT name FROM weir.pipelines;
RESET ROLE;

-- the owner's role can go away; the log stays readable
REVOKE USAGE ON SCHEMA weir FROM ex_other;
DROP ROLE ex_operator, ex_reader, ex_other;
SELECT count(*) FROM weir.runs WHERE pipeline_name = 'ex_theirs';
