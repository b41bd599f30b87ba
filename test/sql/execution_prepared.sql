-- A session keeps what it needs to write executions.  What it kept must not
-- outlive what it was made from: here everything about the tables changes
-- under a session that has already written.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT setval('weir.run_id_seq', 7900000) > 0 AS set;
-- one whole execution; the statements are kept by the session, too
PREPARE begin_one AS SELECT "ExecutionID" AS run, "ExecutionStatus" AS status FROM weir.log_execution_start('ep_one');
PREPARE end_one AS SELECT "ExecutionStatus" AS status, "NextLoadStatus" AS next FROM weir.log_execution_end((SELECT max(run_id) FROM weir.run));
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
EXECUTE end_one;

-- a column more, with a default, and the columns after it somewhere else
ALTER TABLE weir.run ADD COLUMN extra integer NOT NULL DEFAULT 7;
ALTER TABLE weir.run ADD COLUMN twice bigint GENERATED ALWAYS AS (run_id * 2) STORED;
EXECUTE begin_one;
EXECUTE end_one;
SELECT run_id, status, extra, twice FROM weir.run ORDER BY run_id DESC LIMIT 1;
ALTER TABLE weir.run DROP COLUMN extra, DROP COLUMN twice;
EXECUTE begin_one;
EXECUTE end_one;
SELECT last_run_id, last_success_run_id FROM weir.pipeline_state;

-- a constraint that refuses; afterwards the session writes as before
ALTER TABLE weir.run ADD CONSTRAINT none_more CHECK (run_id < 7900006);
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
EXECUTE begin_one;
ALTER TABLE weir.run DROP CONSTRAINT none_more;
EXECUTE begin_one;
EXECUTE end_one;

-- triggers: of others, before and after the row; ours still refuse
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE NOTICE '% % % %', TG_WHEN, TG_OP, TG_TABLE_NAME, NEW.run_id; RETURN NEW; END$$;
CREATE TRIGGER tell_before BEFORE INSERT OR UPDATE OF status ON weir.run FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell_after AFTER INSERT OR UPDATE OF status ON weir.run FOR EACH ROW WHEN (NEW.run_id > 0) EXECUTE FUNCTION tell();
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
EXECUTE end_one;
CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION '% refused', TG_OP; END$$;
EXECUTE begin_one;
EXECUTE begin_one;
DROP FUNCTION tell() CASCADE;
EXECUTE begin_one;
EXECUTE end_one;

-- indexes: one that keeps something of its own between rows, one more to be unique in
CREATE INDEX run_params ON weir.run USING gin (params);
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
EXECUTE end_one;
SET enable_seqscan = off;
SELECT count(*) FROM weir.run WHERE params @> '{}';
RESET enable_seqscan;
DROP INDEX weir.run_params;
CREATE UNIQUE INDEX run_one ON weir.run (pipeline_name) WHERE run_id > 7900015;
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
DROP INDEX weir.run_one;
EXECUTE begin_one;
EXECUTE end_one;
REINDEX TABLE weir.run;
VACUUM FULL weir.pipeline_state;
EXECUTE begin_one;
EXECUTE end_one;

-- transactions: several in one, one that sees the world as it was, errors inside
BEGIN;
EXECUTE begin_one;
EXECUTE end_one;
SAVEPOINT before_error;
SELECT weir.log_execution_start('ep_one', window_start => '2026-01-02', window_end => '2026-01-01');
ROLLBACK TO before_error;
EXECUTE begin_one;
SAVEPOINT before_end;
EXECUTE end_one;
ROLLBACK TO before_end;
EXECUTE end_one;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE begin_one;
EXECUTE end_one;
EXECUTE begin_one;
EXECUTE end_one;
COMMIT;
BEGIN READ ONLY;
EXECUTE begin_one;
ROLLBACK;
BEGIN;
EXECUTE begin_one;
ROLLBACK;
EXECUTE begin_one;
EXECUTE end_one;
SELECT run_id - 7900000 AS run, status FROM weir.run ORDER BY run_id;

-- a value too long to stay in the row stays what it is
SELECT "ExecutionStatus" FROM weir.log_execution_start('ep_long', parameters => (SELECT jsonb_object_agg(n::text, md5(n::text)) FROM generate_series(1, 1000) AS n));
EXECUTE end_one;
SELECT status, (SELECT count(*) FROM jsonb_object_keys(params)) AS keys, params ->> '777' = md5('777') AS whole
FROM weir.run ORDER BY run_id DESC LIMIT 1;

-- and all of it gone and there again
DROP EXTENSION weir CASCADE;
CREATE EXTENSION weir;
EXECUTE begin_one;
SELECT "ExecutionStatus" FROM weir.log_execution_start('ep_one');
SELECT status FROM weir.log_execution_end(1), weir.run WHERE run_id = 1;
SELECT status FROM weir.run ORDER BY run_id;
