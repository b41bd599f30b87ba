-- hands.sql - what people do beside asking for runs: decide what nobody knows,
-- adopt what was started by hand, prune the log; and what is kept of rows that
-- retention removed, for the judge.

-- --- what nobody knows ---

CREATE TABLE public.by_hand (external_run_id text PRIMARY KEY, kind text NOT NULL, is_taken boolean NOT NULL DEFAULT false);
COMMENT ON TABLE public.by_hand IS 'What was started in the engine by hand, for adoption';
CREATE TABLE public.decided (
	no				bigint PRIMARY KEY,
	run_id			bigint NOT NULL,
	task_run_id		bigint NOT NULL,
	attempt_no		integer,
	decision		text NOT NULL,
	external_run_id	text
);
COMMENT ON TABLE public.decided IS 'What was decided: the row is of the same transaction. Without attempt_no a task run that had ended adopts';

CREATE FUNCTION public.take_by_hand(of_kind text) RETURNS text LANGUAGE sql AS $$
	UPDATE public.by_hand SET is_taken = true WHERE external_run_id =
		(SELECT external_run_id FROM public.by_hand WHERE kind = of_kind AND NOT is_taken ORDER BY external_run_id LIMIT 1 FOR UPDATE SKIP LOCKED)
	RETURNING external_run_id
$$;

CREATE FUNCTION public.decide(id bigint, run bigint, attempt integer, kind text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n bigint := nextval('public.answer_no');
	what text := (ARRAY['succeeded', 'failed', 'send_again', 'send_again'])[1 + n % 4];
	hand text := CASE WHEN kind = 'databricks_sql' THEN public.take_by_hand(kind) END;
BEGIN
	IF hand IS NOT NULL THEN
		PERFORM weir.adopt(id, hand, 'found it');
		what := 'adopt';
	ELSE
		PERFORM weir.resolve(id, what, 'looked');
	END IF;
	INSERT INTO public.decided VALUES (n, run, id, attempt, what, hand);
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	-- It ended, or somebody else has decided.
END$$;

CREATE FUNCTION public.decide_all() RETURNS void LANGUAGE sql AS $$
	SELECT public.decide(a.task_run_id, a.run_id, a.attempt_no, t.kind) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id)
	WHERE a.status IN ('intended', 'started') AND a.kind_state ? 'uncertain' AND NOT a.kind_state ? 'resolution'
	ORDER BY a.task_run_id
$$;

-- A job that failed goes on as a run that somebody started.
CREATE FUNCTION public.adopt(after bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t bigint;
	run bigint;
	hand text;
BEGIN
	SELECT x.task_run_id, x.run_id INTO t, run FROM weir.task_run x JOIN weir.run r USING (run_id) LEFT JOIN weir.pipeline_state s ON s.last_run_id = r.run_id
	WHERE x.run_id > after AND x.kind = 'databricks_job' AND x.item_no = 0 AND x.status IN ('failed', 'timed_out', 'cancelled')
		AND r.status IN ('failed', 'timed_out', 'cancelled') AND (s.last_run_id IS NOT NULL OR r.is_apart)
	ORDER BY x.task_run_id LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	hand := public.take_by_hand('databricks_job');
	PERFORM weir.adopt(t, hand, 'by hand') WHERE hand IS NOT NULL;
	INSERT INTO public.decided SELECT nextval('public.answer_no'), run, t, NULL, 'adopt', hand WHERE hand IS NOT NULL;
END$$;

-- --- retention ---

CREATE TABLE public.pruned (xid bigint, n bigint);
COMMENT ON TABLE public.pruned IS 'What weir.prune said: the row is of the same transaction';

CREATE FUNCTION public.prune(most integer) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.pruned SELECT txid_current(), weir.prune(most)
$$;

CREATE TABLE public.gone_task (LIKE weir.task_run);
CREATE TABLE public.gone_attempt (LIKE weir.attempt);
CREATE FUNCTION public.keep_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.gone_task SELECT * FROM old_rows;
	RETURN NULL;
END$$;
CREATE FUNCTION public.keep_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.gone_attempt SELECT * FROM old_rows;
	RETURN NULL;
END$$;
CREATE FUNCTION public.note_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.journal (statement_no, what, run_id, old_status, more)
	SELECT nextval('public.statement_no'), 'gone', o.run_id, o.status, jsonb_build_object('pipeline', o.pipeline_name, 'at', extract(epoch FROM clock_timestamp()))
	FROM old_rows o;
	RETURN NULL;
END$$;
CREATE TRIGGER note_delete AFTER DELETE ON weir.task_run REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.keep_tasks();
CREATE TRIGGER note_delete AFTER DELETE ON weir.attempt REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.keep_attempts();
CREATE TRIGGER note_delete AFTER DELETE ON weir.run REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.note_gone();

CREATE VIEW public.any_task AS SELECT * FROM weir.task_run UNION ALL SELECT * FROM public.gone_task;
CREATE VIEW public.any_attempt AS SELECT * FROM weir.attempt UNION ALL SELECT * FROM public.gone_attempt;

-- Rows whose run is gone.
CREATE FUNCTION public.orphans() RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT count(*) FROM (SELECT run_id FROM weir.task_run UNION SELECT run_id FROM weir.attempt UNION SELECT run_id FROM weir.error
		UNION SELECT run_id FROM weir.activity UNION SELECT run_id FROM weir.row_count) x
	WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT FROM weir.run r WHERE r.run_id = x.run_id)
$$;

-- --- switches ---

CREATE FUNCTION public.note_switches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.is_enabled <> OLD.is_enabled THEN
		INSERT INTO public.journal (statement_no, what, more) VALUES (nextval('public.statement_no'), 'switch',
			jsonb_build_object('pipeline', NEW.name, 'enabled', NEW.is_enabled, 'at', extract(epoch FROM clock_timestamp())));
	END IF;
	RETURN NULL;
END$$;
CREATE TRIGGER note_update AFTER UPDATE ON weir.pipeline FOR EACH ROW EXECUTE FUNCTION public.note_switches();

-- --- the end of a cycle ---

CREATE FUNCTION public.forget() RETURNS void LANGUAGE sql AS $$
	TRUNCATE public.sent, public.answered, public.by_hand, public.decided, public.pruned, public.gone_task, public.gone_attempt
$$;
