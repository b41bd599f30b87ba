-- Typed config variables that belong to the data.

-- ids of this test alone, so that messages can show them
SELECT setval('weir.run_id_seq', 7500000) > 0 AS set;
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';

-- the default until it is set; null is the object of a whole system
SELECT * FROM weir.get_config_variable('cv', 'flights', 'watermark', '1900-01-01');
SELECT * FROM weir.get_config_variable('cv', NULL, 'mode');
SELECT * FROM weir.set_config_variable('cv', NULL, 'mode', 'full');
SELECT * FROM weir.get_config_variable('cv', NULL, 'mode', 'x');
SELECT * FROM weir.get_config_variable('cv', '', 'mode', 'x');

-- forward only, unless asked; the type is fixed by the first call
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '0099', type => 'bigint');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '100');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '100');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '99');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '99', allow_backwards => true);
SELECT * FROM weir.set_config_variable('cv', 'flights', 'id', '9223372036854775807', type => 'bigint');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'price', '1e3', type => 'numeric');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'price', '999.99');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'price', '1000.01');

-- a moment without a time zone is UTC, whatever the session thinks of itself
SELECT * FROM weir.set_config_variable('cv', 'flights', 'watermark', '2026-03-29T01:30:00', type => 'timestamptz');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'watermark', '2026-03-29T03:00:00+02:00');
SELECT * FROM weir.set_config_variable('cv', 'flights', 'watermark', '2026-03-29T01:30:00.000001Z');
SHOW TimeZone;
SHOW DateStyle;

--
-- A text high-water mark that looks like a date compares, in the reference,
-- as a date: '10.01.2026' is after '09.02.2026' or before it, depending on a
-- language setting, and the load silently starts over or skips.  Text is text.
--
SELECT * FROM weir.set_config_variable('cv', 'files', 'last', '09.02.2026');
SELECT * FROM weir.set_config_variable('cv', 'files', 'last', '10.01.2026');
SELECT * FROM weir.set_config_variable('cv', 'files', 'last', '09.02.2026');
SELECT * FROM weir.set_config_variable('cv', 'files', 'last', '9');
SELECT * FROM weir.set_config_variable('cv', 'files', 'last', '10');

-- what is wrong changes nothing
SELECT weir.set_config_variable('cv', 'flights', 'id', '1', type => 'numeric');
SELECT weir.set_config_variable('cv', 'flights', 'id', 'x');
SELECT weir.set_config_variable('cv', 'flights', 'id', '9223372036854775808');
SELECT weir.set_config_variable('cv', 'flights', 'id', NULL);
SELECT weir.set_config_variable('cv', 'flights', 'new', '1', type => 'date');
SELECT weir.set_config_variable('cv', 'flights', 'new', 'NaN', type => 'numeric');
SELECT weir.set_config_variable('cv', 'flights', 'new', 'infinity', type => 'numeric');
SELECT weir.set_config_variable('cv', 'flights', 'new', '1e20000', type => 'numeric');
SELECT weir.set_config_variable('cv', 'flights', 'new', 'infinity', type => 'timestamptz');
SELECT weir.set_config_variable('cv', 'flights', 'new', 'now', type => 'timestamptz');
SELECT weir.set_config_variable('cv', 'flights', 'new', '2026-02-30', type => 'timestamptz');
SELECT weir.set_config_variable('cv', 'flights', 'new', repeat('x', 10001));
SELECT weir.set_config_variable('cv', 'flights', 'new', '1', 7599999);
SELECT weir.set_config_variable(NULL, 'flights', 'new', '1');
SELECT weir.set_config_variable('cv', 'flights', NULL, '1');
SELECT weir.get_config_variable('cv', 'flights', NULL);
SELECT weir.get_config_variable('cv', 'flights', 'id', '0', 7599999);
SELECT system_name, object_name, variable_name, type, value, previous_value FROM weir.config_variables WHERE system_name = 'cv' ORDER BY 2, 3;

--
-- Roll back: an execution moves its watermark and fails later.  The rows it
-- landed are deleted and the watermark goes back, or the rows are lost.
--
SELECT "ExecutionID" AS e1 FROM weir.log_execution_start('cv_load') \gset
SELECT * FROM weir.set_config_variable('cv', 'load', 'id', '10', :e1, 'bigint');
-- repeated by the same execution: the same answer
SELECT * FROM weir.set_config_variable('cv', 'load', 'id', '10', :e1, 'bigint');
SELECT * FROM weir.get_config_variable('cv', 'load', 'id');
SELECT "ExecutionStatus" FROM weir.log_execution_end(:e1);
-- and after the end only that
SELECT * FROM weir.set_config_variable('cv', 'load', 'id', '10', :e1);
SELECT weir.set_config_variable('cv', 'load', 'id', '11', :e1);
SELECT weir.set_config_variable('cv', 'load', 'new', '11', :e1);
SELECT weir.rollback_execution(:e1);

SELECT "ExecutionID" AS e2 FROM weir.log_execution_start('cv_load') \gset
SELECT "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '20', :e2);
SELECT "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '25', :e2);
SELECT "VariableValue" FROM weir.set_config_variable('cv', 'load', 'first', 'x', :e2);
SELECT "NextLoadStatus" FROM weir.log_execution_error(:e2);
SELECT "ExecutionID" AS e3 FROM weir.log_execution_start('cv_load') \gset
SELECT "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '30', :e3);
-- an execution that ended a while ago cannot give up the rows of one that runs
SELECT * FROM weir.rollback_execution(:e2);
SELECT "NextLoadStatus" FROM weir.log_execution_error(:e3);
SELECT "RowAuditID" - :e1 AS nth FROM weir.rollback_execution(:e3);
SELECT "RowAuditID" - :e1 AS nth FROM weir.rollback_execution(:e3);
SELECT "RowAuditID" - :e1 AS nth FROM weir.rollback_execution(:e2);
SELECT object_name, variable_name, value, run_id = :e1 AS set_by_e1 FROM weir.config_variables WHERE object_name = 'load' ORDER BY 2;
SELECT "VariableValue", "IsDefault" FROM weir.get_config_variable('cv', 'load', 'first', 'none');
-- with the running execution, as the first thing an R start does
SELECT "ExecutionID" AS e4, "ExecutionStatus" AS status FROM weir.log_execution_start('cv_load') \gset
\echo :status
SELECT "RowAuditID" - :e1 AS nth FROM weir.rollback_execution(:e4);
SELECT "PreviousValue", "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '40', :e4);
-- somebody else's change in between stays
SELECT "PreviousValue", "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '15', allow_backwards => true);
SELECT "PreviousValue", "VariableValue" FROM weir.set_config_variable('cv', 'load', 'id', '50', :e4);
SELECT "NextLoadStatus" FROM weir.log_execution_error(:e4);
SELECT "RowAuditID" - :e1 AS nth FROM weir.rollback_execution(:e4);
SELECT "VariableValue" FROM weir.get_config_variable('cv', 'load', 'id');
SELECT change_no, previous_value, value, run_id - :e1 AS nth, previous_run_id - :e1 AS previous_nth
FROM weir.config_variable_history WHERE object_name = 'load' AND variable_name = 'id' ORDER BY 1;

-- with the rows gone nothing can resume after landing: D becomes R
SELECT "ExecutionID" AS e5 FROM weir.log_execution_start('cv_resume') \gset
SELECT "Status" FROM weir.log_activity(:e5, 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error(:e5, 'merge', '1', 'no', phase => 'transform');
SELECT "ExecutionID" AS e6, "ExecutionStatus" AS status FROM weir.log_execution_start('cv_resume') \gset
\echo :status
SELECT weir.rollback_execution(:e6);
SELECT "NextLoadStatus" FROM weir.log_execution_error(:e6, 'merge', '1', 'no', phase => 'transform');
SELECT "RowAuditID" = :e5 AS origin FROM weir.rollback_execution(:e6);
SELECT "ExecutionStatus", "RowAuditID" = "ExecutionID" AS own FROM weir.log_execution_start('cv_resume');
SELECT weir.rollback_execution(7599999);

-- a set that is rolled back was never made
BEGIN;
SELECT "VariableValue" FROM weir.set_config_variable('cv', 'undone', 'id', '1');
ROLLBACK;
SELECT "IsDefault" FROM weir.get_config_variable('cv', 'undone', 'id');
