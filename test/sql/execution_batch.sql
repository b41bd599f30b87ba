-- Batches: pipelines whose children are pipelines.

-- ids of this test alone, so that messages can show them
SELECT setval('weir.run_id_seq', 7200000) > 0 AS set;
CREATE TEMP TABLE ex (name text PRIMARY KEY, id bigint, status text, next text, audit bigint);
PREPARE start(text, text, text) AS
	INSERT INTO ex SELECT $1, "ExecutionID", "ExecutionStatus", "NextLoadStatus", "RowAuditID"
	FROM weir.log_execution_start($2, parent_execution_id => (SELECT id FROM ex WHERE name = $3), is_batch => $3 IS NULL)
	RETURNING name, status, next;
PREPARE marks AS
	SELECT name, next_load_status FROM weir.pipelines WHERE name LIKE 'ba%' ORDER BY name;

-- all well: S / P for everybody; the batch start is that of the batch
EXECUTE start('b1', 'ba_load', NULL);
EXECUTE start('b1.a', 'ba_load_a', 'b1');
SELECT "BatchStartTime" = (SELECT started_at FROM weir.runs WHERE run_id = (SELECT id FROM ex WHERE name = 'b1')) AS of_the_batch
FROM weir.log_execution_start('ba_load_b', parent_execution_id => (SELECT id FROM ex WHERE name = 'b1'), external_run_id => 'b1.b');
SELECT "ExecutionStatus", "BatchStartTime" = (SELECT started_at FROM weir.runs WHERE run_id = (SELECT id FROM ex WHERE name = 'b1')) AS of_the_batch
FROM weir.log_execution_start('ba_load_b', external_run_id => 'b1.b');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b1.a'));
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.runs AS r, weir.log_execution_end(r.run_id) WHERE r.external_run_id = 'b1.b';
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b1'));
EXECUTE marks;

-- some landed, one failed to land: batch R, succeeded children C, the failed one R
EXECUTE start('b2', 'ba_load', NULL);
EXECUTE start('b2.a', 'ba_load_a', 'b2');
EXECUTE start('b2.b', 'ba_load_b', 'b2');
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b2.a'));
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b2.b'), 'land', '1', 'no', phase => 'land');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b2'));
EXECUTE marks;
-- so only the failed child runs, and a batch that fails again keeps it that way
EXECUTE start('b3', 'ba_load', NULL);
EXECUTE start('b3.a', 'ba_load_a', 'b3');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b3.a'));
EXECUTE start('b3.b', 'ba_load_b', 'b3');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b3.b'), 'land', '1', 'no', phase => 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b3'));
EXECUTE marks;
-- when it has succeeded at last, every direct child is P, also those that were skipped
EXECUTE start('b4', 'ba_load', NULL);
EXECUTE start('b4.a', 'ba_load_a', 'b4');
EXECUTE start('b4.b', 'ba_load_b', 'b4');
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b4.b'));
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b4'));
EXECUTE marks;

-- all landed, one failed to transform: batch D, succeeded children C, that child D
EXECUTE start('b5', 'ba_load', NULL);
EXECUTE start('b5.a', 'ba_load_a', 'b5');
EXECUTE start('b5.b', 'ba_load_b', 'b5');
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'b5.a'), 'land', 'land');
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'b5.b'), 'land', 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b5.a'));
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b5.b'), 'transform', '1', 'no', phase => 'transform');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b5'));
EXECUTE marks;
EXECUTE start('b6', 'ba_load', NULL);
EXECUTE start('b6.a', 'ba_load_a', 'b6');
EXECUTE start('b6.b', 'ba_load_b', 'b6');
SELECT f.name, f.audit = o.id AS origin FROM ex AS f, ex AS o
WHERE (f.name, o.name) IN (('b6', 'b5'), ('b6.b', 'b5.b')) ORDER BY 1;

-- child of a batch that already failed: S / C, and the next start skips it
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b6'));
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b6.b'));
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b6.b'));
EXECUTE marks;
EXECUTE start('b7', 'ba_load', NULL);
EXECUTE start('b7.b', 'ba_load_b', 'b7');
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b7'));
EXECUTE marks;

--
-- A crash without an error call loses, in the reference, which children had
-- finished: all of them run again.  Here it is read from their executions.
-- b never got its turn, so the batch is R; a finished, so it is skipped.
--
EXECUTE start('b8', 'ba_load', NULL);
EXECUTE start('b8.a', 'ba_load_a', 'b8');
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b8.a'));
-- the children's signs of life are the batch's
UPDATE weir.run SET started_at = started_at - interval '2 days' WHERE run_id = (SELECT id FROM ex WHERE name = 'b8');
EXECUTE start('b9?', 'ba_load', NULL);
UPDATE weir.pipeline SET stale_after = '0 seconds' WHERE name LIKE 'ba%';
EXECUTE start('b9', 'ba_load', NULL);
SELECT execution_status, next_load_status FROM weir.runs WHERE run_id = (SELECT id FROM ex WHERE name = 'b8');
EXECUTE start('b9.a', 'ba_load_a', 'b9');
EXECUTE start('b9.b', 'ba_load_b', 'b9');
-- and the same with one that died while it transformed: all has landed, so the batch is D
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'b9.b'), 'land', 'land');
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'b9.b'), 'transform', 'transform', 'running');
EXECUTE start('b10', 'ba_load', NULL);
EXECUTE start('b10.a', 'ba_load_a', 'b10');
EXECUTE start('b10.b', 'ba_load_b', 'b10');
SELECT f.name, f.audit = o.id AS origin FROM ex AS f, ex AS o
WHERE (f.name, o.name) IN (('b10', 'b9'), ('b10.b', 'b9.b')) ORDER BY 1;
UPDATE weir.pipeline SET stale_after = NULL WHERE name LIKE 'ba%';

-- one with a limit of its own may be alive: it stays, and the batch is R
SELECT "ExecutionStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b10.b'));
SELECT "ExecutionStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b10'));
EXECUTE start('c1', 'ba_load', NULL);
EXECUTE start('c1.a', 'ba_load_a', 'c1');
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'c1.a'), 'land', 'land');
SELECT "Status" FROM weir.log_activity((SELECT id FROM ex WHERE name = 'c1.a'), 'transform', 'transform', 'running');
UPDATE weir.pipeline SET stale_after = '0 seconds' WHERE name = 'ba_load';
EXECUTE start('c2', 'ba_load', NULL);
EXECUTE start('c2.a', 'ba_load_a', 'c2');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'c1.a'));
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'c2'));
EXECUTE marks;

--
-- A child may outlive its failed batch and even the restart that made it good
-- without it.  If it then left a C behind, the next period's load would skip
-- it, and its rows would be missing.
--
EXECUTE start('c3', 'ba_load', NULL);
EXECUTE start('c3.a', 'ba_load_a', 'c3');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'c3'));
EXECUTE start('c4', 'ba_load', NULL);
EXECUTE start('c4.a', 'ba_load_a', 'c4');
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'c4'));
SELECT "ExecutionStatus", "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'c3.a'));
EXECUTE marks;
UPDATE weir.pipeline SET stale_after = NULL WHERE name LIKE 'ba%';

--
-- A child that was aborted by an overlap is, in the reference, skipped by the
-- next start, as if it had succeeded: its rows are lost.  A never becomes C.
--
EXECUTE start('alone.b', 'ba_load_b', 'none');
EXECUTE start('b11', 'ba_load', NULL);
EXECUTE start('b11.a', 'ba_load_a', 'b11');
EXECUTE start('b11.b', 'ba_load_b', 'b11');
SELECT "ExecutionStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b11.a'));
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b11'));
EXECUTE marks;
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'alone.b'));
EXECUTE start('b12', 'ba_load', NULL);
EXECUTE start('b12.a', 'ba_load_a', 'b12');
EXECUTE start('b12.b', 'ba_load_b', 'b12');

-- a child that ran on its own after its part in the batch has the word about itself
SELECT "NextLoadStatus" FROM weir.log_execution_end((SELECT id FROM ex WHERE name = 'b12.b'));
EXECUTE start('alone.b2', 'ba_load_b', 'none');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'alone.b2'), 'land', '1', 'no', phase => 'land');
SELECT "NextLoadStatus" FROM weir.log_execution_error((SELECT id FROM ex WHERE name = 'b12'));
EXECUTE marks;

-- what is no parent
SELECT weir.log_execution_start('ba_load_a', parent_execution_id => (SELECT id FROM ex WHERE name = 'b12'));
SELECT "ExecutionID" AS b13 FROM weir.log_execution_start('ba_load', is_batch => true) \gset
SELECT "ExecutionID" AS plain FROM weir.log_execution_start('be_plain') \gset
\set VERBOSITY terse
SELECT weir.log_execution_start('be_child', parent_execution_id => :plain) IS NULL;
SELECT weir.log_execution_start('ba_load', parent_execution_id => :b13) IS NULL;
SELECT weir.log_execution_start('be_child', parent_execution_id => 9223372036854775807) IS NULL;
\set VERBOSITY default
SELECT count(*) AS registered FROM weir.pipelines WHERE name = 'be_child';
