-- journal.sql - what dags.pl puts beside weir: what SQL tasks do, which
-- triggers were committed, and a journal of every change of a status with its
-- transaction and statement.

CREATE TABLE public.asked (run_id bigint PRIMARY KEY, what text NOT NULL);
COMMENT ON TABLE public.asked IS 'Runs whose trigger was committed: the row is of the same transaction';

CREATE TABLE public.effect (run_id bigint, task text, attempt_no integer);
COMMENT ON TABLE public.effect IS 'What SQL tasks did, each attempt a row';

-- The work of a SQL task: a row, some time, and for so many of a hundred an
-- error after it, which a retry may or may not meet again.
CREATE FUNCTION public.act(run_id bigint, task text, attempt_no integer, seconds float8, percent integer, code text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.effect VALUES (run_id, task, attempt_no);
	PERFORM pg_sleep(seconds);
	IF abs(hashtext(concat_ws(' ', run_id, task, attempt_no))) % 100 < percent THEN
		RAISE EXCEPTION 'the work failed' USING ERRCODE = code;
	END IF;
END$$;

CREATE SEQUENCE public.statement_no;
CREATE TABLE public.journal (
	statement_no	bigint,
	xid				bigint DEFAULT txid_current(),
	what			text,
	run_id			bigint,
	task_no			integer,
	attempt_no		integer,
	old_status		text,
	new_status		text,
	more			jsonb
);
COMMENT ON TABLE public.journal IS 'Changes in the order of their statements; what a transaction rolled back is not there';

CREATE FUNCTION public.note_runs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	s bigint := nextval('public.statement_no');
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.journal (statement_no, what, run_id, new_status, more)
		SELECT s, 'run', n.run_id, n.status, jsonb_build_object('pipeline', n.pipeline_name, 'params', n.params,
			'selected', n.selected_tasks, 'apart', n.selected_tasks IS NOT NULL OR n.backfill_id IS NOT NULL, 'backfill', n.backfill_id, 'restart_of', n.restart_of)
		FROM new_rows n;
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, old_status, new_status, more)
		SELECT s, 'run', n.run_id, o.status, n.status, jsonb_build_object('pipeline', n.pipeline_name, 'start', n.start_status,
			'next', n.next_load_status, 'audit', n.row_audit_id, 'reason', n.cancel_reason, 'repair', n.repair_no)
		FROM new_rows n JOIN old_rows o USING (run_id) WHERE n.status <> o.status;
	END IF;
	RETURN NULL;
END$$;
CREATE TRIGGER note_insert AFTER INSERT ON weir.run REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_runs();
CREATE TRIGGER note_update AFTER UPDATE ON weir.run REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_runs();

CREATE FUNCTION public.note_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	s bigint := nextval('public.statement_no');
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.journal (statement_no, what, run_id, task_no, new_status, more)
		SELECT s, 'task', n.run_id, n.task_no, n.status, jsonb_build_object('reason', n.skip_reason)
		FROM new_rows n;
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, task_no, attempt_no, old_status, new_status, more)
		SELECT s, 'task', n.run_id, n.task_no, n.attempt_no, o.status, n.status,
			jsonb_build_object('reason', n.skip_reason, 'branch', n.output->'branch')
		FROM new_rows n JOIN old_rows o USING (task_run_id) WHERE n.status <> o.status;
	END IF;
	RETURN NULL;
END$$;
CREATE TRIGGER note_insert AFTER INSERT ON weir.task_run REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_tasks();
CREATE TRIGGER note_update AFTER UPDATE ON weir.task_run REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_tasks();

CREATE FUNCTION public.note_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	s bigint := nextval('public.statement_no');
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.journal (statement_no, what, run_id, task_no, attempt_no, new_status)
		SELECT s, 'attempt', n.run_id, t.task_no, n.attempt_no, n.status
		FROM new_rows n JOIN weir.task_run t USING (task_run_id);
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, task_no, attempt_no, old_status, new_status)
		SELECT s, 'attempt', n.run_id, t.task_no, n.attempt_no, o.status, n.status
		FROM new_rows n JOIN old_rows o USING (task_run_id, attempt_no) JOIN weir.task_run t USING (task_run_id)
		WHERE n.status <> o.status;
	END IF;
	RETURN NULL;
END$$;
CREATE TRIGGER note_insert AFTER INSERT ON weir.attempt REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_attempts();
CREATE TRIGGER note_update AFTER UPDATE ON weir.attempt REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_attempts();

CREATE FUNCTION public.note_states() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.journal (statement_no, what, more)
	SELECT nextval('public.statement_no'), 'state', jsonb_build_object('pipeline', p.name, 'next', n.next_load_status,
		'last', n.last_run_id, 'origin', n.origin_row_audit_id, 'success', n.last_success_run_id)
	FROM new_rows n JOIN weir.pipeline p USING (pipeline_id);
	RETURN NULL;
END$$;
CREATE TRIGGER note_update AFTER UPDATE ON weir.pipeline_state REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_states();

-- Nothing is under way and nothing waits.
CREATE FUNCTION public.is_quiet() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT NOT EXISTS (SELECT FROM weir.run WHERE status IN ('queued', 'running', 'cancelling'))
		AND NOT EXISTS (SELECT FROM weir.request)
		AND NOT EXISTS (SELECT FROM weir.attempt WHERE status IN ('intended', 'started'))
		AND (SELECT bool_and(CASE component WHEN 'sql_workers' THEN state IN ('idle', 'none') ELSE state = 'running' END)
			AND count(*) = 3
			FROM weir.status WHERE component IN ('launcher', 'conductor', 'sql_workers'))
$$;

-- Until it is quiet, or so many seconds have passed.
CREATE PROCEDURE public.wait_until_quiet(seconds integer) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	LOOP
		EXIT WHEN public.is_quiet() OR clock_timestamp() > until;
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
END$$;

-- Everything the judge looks at, of runs after $1.
CREATE FUNCTION public.facts(after bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
	SELECT jsonb_build_object(
		'runs', (SELECT coalesce(jsonb_object_agg(run_id, status), '{}') FROM weir.run WHERE run_id > after),
		'asked', (SELECT coalesce(jsonb_object_agg(run_id, what), '{}') FROM public.asked WHERE run_id > after),
		'open_attempts', (SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')),
		'live_tasks', (SELECT count(*) FROM weir.task_run WHERE status IN ('waiting', 'ready', 'running')),
		'requests', (SELECT count(*) FROM weir.request),
		'attempts', (SELECT coalesce(jsonb_agg(jsonb_build_array(a.run_id, t.task_name, a.attempt_no, t.kind, a.status, a.token,
			a.kind_state->>'mode', a.external_run_id, a.error_code)), '[]') FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE a.run_id > after),
		'effects', (SELECT coalesce(jsonb_agg(jsonb_build_array(run_id, task, attempt_no)), '[]') FROM public.effect WHERE run_id > after),
		'task_names', (SELECT coalesce(jsonb_agg(jsonb_build_array(run_id, task_no, task_name, status)), '[]') FROM weir.task_run WHERE run_id > after),
		'states', (SELECT coalesce(jsonb_object_agg(p.name, jsonb_build_object('next', s.next_load_status, 'last', s.last_run_id,
			'origin', s.origin_row_audit_id, 'success', s.last_success_run_id)), '{}') FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id)
			WHERE p.name IN (SELECT r.pipeline_name FROM weir.run r WHERE r.run_id > after)),
		'journal', (SELECT coalesce(jsonb_agg(jsonb_build_array(j.statement_no, j.xid, j.what, j.run_id, j.task_no, j.attempt_no,
			j.old_status, j.new_status, j.more) ORDER BY j.statement_no, j.ctid), '[]') FROM public.journal j),
		'status', (SELECT jsonb_object_agg(component, state || ': ' || coalesce(detail, '')) FROM weir.status),
		'processes', (SELECT jsonb_object_agg(backend_type, n) FROM (SELECT backend_type, count(*) AS n FROM pg_stat_activity GROUP BY backend_type) p))
$$;
