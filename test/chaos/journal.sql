-- journal.sql - what dags.pl puts beside weir: what SQL tasks do, which
-- triggers were committed, who answers tasks that wait, and a journal of every
-- change of a status with its transaction and statement.

CREATE TABLE public.asked (run_id bigint PRIMARY KEY, what text NOT NULL);
COMMENT ON TABLE public.asked IS 'Runs whose trigger was committed: the row is of the same transaction';

CREATE TABLE public.effect (run_id bigint, task text, attempt_no integer, audit_id bigint);
COMMENT ON TABLE public.effect IS 'What SQL tasks did, each attempt a row, and the row audit id they were given';

-- The work of a SQL task: a row, some time, and for so many of a hundred an
-- error after it, which a retry may or may not meet again.
CREATE FUNCTION public.act(run_id bigint, task text, attempt_no bigint, audit_id bigint, seconds float8, percent integer, code text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.effect VALUES (run_id, task, attempt_no, audit_id);
	PERFORM pg_sleep(seconds);
	IF abs(hashtext(concat_ws(' ', run_id, task, attempt_no))) % 100 < percent THEN
		RAISE EXCEPTION 'the work failed' USING ERRCODE = code;
	END IF;
END$$;

-- A list for a for_each, which leaves a row as well.
CREATE FUNCTION public.list(run_id bigint, task text, attempt_no bigint, audit_id bigint, length integer, percent integer) RETURNS TABLE (n integer, p integer)
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.effect VALUES (run_id, task, attempt_no, audit_id);
	RETURN QUERY SELECT g, percent FROM generate_series(1, length) g;
END$$;

-- A condition that comes true some time after the run was asked for.
CREATE FUNCTION public.holds(id bigint, seconds float8) RETURNS boolean LANGUAGE sql STABLE AS $$
	SELECT clock_timestamp() >= queued_at + make_interval(secs => seconds) FROM weir.run WHERE run_id = id
$$;

-- --- signals and approvals ---

CREATE SEQUENCE public.answer_no;
CREATE TABLE public.sent (no bigint PRIMARY KEY, name text NOT NULL, run_id bigint);
COMMENT ON TABLE public.sent IS 'Signals that were sent: the row is of the same transaction, and the payload has its number';
CREATE TABLE public.answered (
	task_run_id		bigint,
	attempt_no		integer,
	run_id			bigint NOT NULL,
	no				bigint NOT NULL,
	what			text NOT NULL,
	PRIMARY KEY (task_run_id, attempt_no)
);
COMMENT ON TABLE public.answered IS 'Attempts that were seen waiting, and signalled, approved or rejected in the same transaction: once, for nothing of that may get lost';

CREATE FUNCTION public.send(name text, run_id bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	no bigint := nextval('public.answer_no');
BEGIN
	INSERT INTO public.sent VALUES (no, name, run_id);
	PERFORM weir.signal(name, jsonb_build_object('no', no), run_id);
	RETURN no;
END$$;

CREATE FUNCTION public.answer(id bigint, attempt integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	a record;
	n bigint := nextval('public.answer_no');
	what text;
BEGIN
	SELECT t.run_id, t.task_name, x.kind_state->>'signal' AS signal INTO a FROM weir.attempt x JOIN weir.task_run t USING (task_run_id)
	WHERE x.task_run_id = id AND x.attempt_no = attempt AND x.status IN ('intended', 'started')
		AND NOT x.kind_state ?| '{received,decision}';
	IF NOT FOUND THEN
		RETURN;
	END IF;
	what := CASE WHEN a.signal IS NOT NULL THEN 'signal' WHEN n % 4 = 0 THEN 'reject' ELSE 'approve' END;
	INSERT INTO public.answered VALUES (id, attempt, a.run_id, n, what) ON CONFLICT DO NOTHING;
	IF NOT FOUND THEN
		RETURN;
	ELSIF what = 'signal' THEN
		PERFORM public.send(a.signal, CASE WHEN n % 3 > 0 THEN a.run_id END);
	ELSIF what = 'approve' THEN
		PERFORM weir.approve(a.run_id, a.task_name, n::text);
	ELSE
		PERFORM weir.reject(a.run_id, a.task_name, n::text);
	END IF;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	-- It waits no more.
END$$;

CREATE FUNCTION public.answer_all() RETURNS void LANGUAGE sql AS $$
	SELECT public.answer(a.task_run_id, a.attempt_no) FROM weir.attempt a
	WHERE a.status IN ('intended', 'started') AND a.kind_state ?| '{signal,approval}' AND NOT a.kind_state ?| '{received,decision}'
		AND NOT EXISTS (SELECT FROM public.answered x WHERE x.task_run_id = a.task_run_id AND x.attempt_no = a.attempt_no)
	ORDER BY a.task_run_id
$$;

-- --- the journal ---

CREATE SEQUENCE public.statement_no;
CREATE TABLE public.journal (
	statement_no	bigint,
	xid				bigint DEFAULT txid_current(),
	what			text,
	run_id			bigint,
	task_no			integer,
	item_no			integer,
	attempt_no		integer,
	old_status		text,
	new_status		text,
	more			jsonb
);
COMMENT ON TABLE public.journal IS 'Changes in the order of their statements; what a transaction rolled back is not there. Items of a for_each have its task_no';

-- The task_no of a task run, of an item that of its for_each.
CREATE FUNCTION public.place(task_no integer, parent bigint) RETURNS integer LANGUAGE sql STABLE AS $$
	SELECT coalesce((SELECT p.task_no FROM weir.task_run p WHERE p.task_run_id = parent), task_no)
$$;

CREATE FUNCTION public.note_runs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	s bigint := nextval('public.statement_no');
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.journal (statement_no, what, run_id, new_status, more)
		SELECT s, 'run', n.run_id, n.status, jsonb_build_object('pipeline', n.pipeline_name, 'params', n.params,
			'selected', n.selected_tasks, 'priority', n.priority, 'asked_at', extract(epoch FROM clock_timestamp()), 'apart', n.selected_tasks IS NOT NULL OR n.backfill_id IS NOT NULL, 'backfill', n.backfill_id,
			'restart_of', n.restart_of, 'window', n.window_start || ' ' || n.window_end, 'parent',
			(SELECT jsonb_build_array(t.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no) FROM weir.task_run t WHERE t.task_run_id = n.parent_task_run_id))
		FROM new_rows n;
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, old_status, new_status, more)
		SELECT s, 'run', n.run_id, o.status, n.status, jsonb_build_object('pipeline', n.pipeline_name, 'start', n.start_status,
			'next', n.next_load_status, 'audit', n.row_audit_id, 'reason', n.cancel_reason, 'repair', n.repair_no,
			'overlaps', n.status = 'skipped' AND n.error_message LIKE 'max_concurrent_runs%', 'at', extract(epoch FROM clock_timestamp()),
			'snapshot', CASE WHEN n.status = 'running' THEN txid_current_snapshot()::text END)
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
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, new_status, more)
		SELECT s, 'task', n.run_id, public.place(n.task_no, n.parent_task_run_id), n.item_no, n.status,
			jsonb_build_object('reason', n.skip_reason, 'priority', n.priority, 'at', extract(epoch FROM clock_timestamp()))
		FROM new_rows n;
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, attempt_no, old_status, new_status, more)
		SELECT s, 'task', n.run_id, public.place(n.task_no, n.parent_task_run_id), n.item_no, n.attempt_no, o.status, n.status,
			jsonb_build_object('reason', n.skip_reason, 'branch', n.output->'branch', 'items', n.output->'items',
				'answer', coalesce(n.output->>'no', n.output->>'comment'),
				'priority', n.priority, 'at', extract(epoch FROM clock_timestamp()),
				'unseen', CASE WHEN n.output ? 'assumed_started' THEN 'assumed' WHEN n.output ? 'resolved_by' THEN 'resolved' END,
				'snapshot', CASE WHEN n.status = 'running' THEN txid_current_snapshot()::text END)
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
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, attempt_no, new_status)
		SELECT s, 'attempt', n.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no, n.attempt_no, n.status
		FROM new_rows n JOIN weir.task_run t USING (task_run_id);
	ELSE
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, attempt_no, old_status, new_status, more)
		SELECT s, 'attempt', n.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no, n.attempt_no, o.status, n.status,
			jsonb_build_object('sqlstate', n.sqlstate, 'code', n.error_code, 'child', n.kind_state->'run_id')
		FROM new_rows n JOIN old_rows o USING (task_run_id, attempt_no) JOIN weir.task_run t USING (task_run_id)
		WHERE n.status <> o.status;
		-- What a waiting attempt waited for.
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, attempt_no, more)
		SELECT s, 'answer', n.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no, n.attempt_no,
			jsonb_build_object('signal', n.kind_state->'received'->'payload'->'no', 'no', n.kind_state->'decision'->'comment', 'approved', n.kind_state->'decision'->'approved')
		FROM new_rows n JOIN old_rows o USING (task_run_id, attempt_no) JOIN weir.task_run t USING (task_run_id)
		WHERE n.kind_state ?| '{received,decision}' AND (n.kind_state->'received' IS DISTINCT FROM o.kind_state->'received' OR n.kind_state->'decision' IS DISTINCT FROM o.kind_state->'decision');
		-- A moment that was fixed and moves.
		INSERT INTO public.journal (statement_no, what, run_id, task_no, item_no, attempt_no)
		SELECT s, 'moved', n.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no, n.attempt_no
		FROM new_rows n JOIN old_rows o USING (task_run_id, attempt_no) JOIN weir.task_run t USING (task_run_id)
		WHERE n.kind_state->'due_ms' <> o.kind_state->'due_ms';
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
		'last', n.last_run_id, 'skip', n.skip_once, 'origin', n.origin_row_audit_id, 'success', n.last_success_run_id)
	FROM new_rows n JOIN weir.pipeline p USING (pipeline_id);
	RETURN NULL;
END$$;
CREATE TRIGGER note_update AFTER UPDATE ON weir.pipeline_state REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION public.note_states();

CREATE FUNCTION public.note_signals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.journal (statement_no, what, run_id, more)
	VALUES (nextval('public.statement_no'), 'signal', NEW.run_id, jsonb_build_object('name', NEW.name));
	RETURN NULL;
END$$;
CREATE TRIGGER note_insert AFTER INSERT ON weir.run_signal FOR EACH ROW EXECUTE FUNCTION public.note_signals();

CREATE FUNCTION public.note_pools() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.journal (statement_no, what, more)
	VALUES (nextval('public.statement_no'), 'pool', jsonb_build_object('name', NEW.name, 'slots', NEW.slots));
	RETURN NULL;
END$$;
CREATE TRIGGER note_update AFTER UPDATE ON weir.pool FOR EACH ROW EXECUTE FUNCTION public.note_pools();

-- Nothing is under way and nothing waits.
CREATE FUNCTION public.is_quiet() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT NOT EXISTS (SELECT FROM weir.run WHERE status IN ('queued', 'running', 'cancelling'))
		AND NOT EXISTS (SELECT FROM weir.request)
		AND NOT EXISTS (SELECT FROM weir.attempt WHERE status IN ('intended', 'started'))
		AND (SELECT bool_and(CASE component WHEN 'sql_workers' THEN state IN ('idle', 'none') ELSE state = 'running' END)
			AND count(*) = 3
			FROM weir.status WHERE component IN ('launcher', 'conductor', 'sql_workers'))
$$;

-- As many SQL workers as their slots say?  One that was idle for long may end between two looks.
CREATE FUNCTION public.slots_agree() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT s.detail LIKE '0 busy, ' || n || ' idle, 0 starting in this database; ' || n || ' of%' FROM weir.status s,
		(SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'weir SQL worker') x WHERE component = 'sql_workers'
$$;

-- Until it is quiet, or so many seconds have passed.  Whoever waits for an answer gets it, and
-- what is paused goes on.
CREATE PROCEDURE public.wait_until_quiet(seconds integer) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	LOOP
		EXIT WHEN public.is_quiet() AND public.slots_agree() OR clock_timestamp() > until;
		PERFORM public.answer_all();
		PERFORM public.decide_all();
		PERFORM weir.resume_pipeline(name) FROM weir.pipeline WHERE is_paused;
		PERFORM weir.set_pipeline_enabled(name, true) FROM weir.pipeline WHERE NOT is_enabled;
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
			a.kind_state->>'mode', a.external_run_id, a.error_code, a.kind_state->'run_id', extract(epoch FROM a.ended_at) * 1000,
			extract(epoch FROM a.intended_at) * 1000, a.kind_state->'due_ms', a.request) ORDER BY a.task_run_id, a.attempt_no), '[]')
			FROM public.any_attempt a JOIN public.any_task t USING (task_run_id) WHERE a.run_id > after),
		'after', after,
		'orphans', public.orphans(),
		'by_hand', (SELECT coalesce(jsonb_object_agg(external_run_id, kind), '{}') FROM public.by_hand),
		'decided', (SELECT coalesce(jsonb_agg(jsonb_build_array(d.run_id, t.task_name, d.attempt_no, d.decision, d.external_run_id,
			a.status, a.error_code, a.external_run_id) ORDER BY d.no), '[]')
			FROM public.decided d JOIN public.any_task t USING (task_run_id) LEFT JOIN public.any_attempt a ON a.task_run_id = d.task_run_id AND a.attempt_no = d.attempt_no),
		'pruned', (SELECT coalesce(jsonb_object_agg(xid, n), '{}') FROM (SELECT xid, sum(n) AS n FROM public.pruned GROUP BY xid) p),
		'effects', (SELECT coalesce(jsonb_agg(jsonb_build_array(run_id, task, attempt_no, audit_id)), '[]') FROM public.effect WHERE run_id > after),
		'tasks', (SELECT coalesce(jsonb_agg(jsonb_build_array(t.run_id, public.place(t.task_no, t.parent_task_run_id), t.item_no, t.task_name, t.status)), '[]')
			FROM weir.task_run t WHERE t.run_id > after),
		'sent', (SELECT coalesce(jsonb_object_agg(no, jsonb_build_array(name, run_id)), '{}') FROM public.sent),
		'answered', (SELECT coalesce(jsonb_agg(jsonb_build_array(w.run_id, t.task_name, w.attempt_no, w.no, w.what, a.status,
			a.kind_state ?| '{received,decision}', a.kind_state->'decision'->>'comment')), '[]')
			FROM public.answered w JOIN public.any_attempt a USING (task_run_id, attempt_no) JOIN public.any_task t USING (task_run_id)),
		'pools', (SELECT jsonb_object_agg(name, used + running + waiting) FROM weir.pools),
		'states', (SELECT coalesce(jsonb_object_agg(p.name, jsonb_build_object('next', s.next_load_status, 'last', s.last_run_id,
			'origin', s.origin_row_audit_id, 'success', s.last_success_run_id)), '{}') FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id)
			WHERE p.name IN (SELECT r.pipeline_name FROM weir.run r WHERE r.run_id > after)),
		'journal', (SELECT coalesce(jsonb_agg(jsonb_build_array(j.statement_no, j.xid, j.what, j.run_id, j.task_no, j.item_no, j.attempt_no,
			j.old_status, j.new_status, j.more) ORDER BY j.statement_no, j.ctid), '[]') FROM public.journal j),
		'status', (SELECT jsonb_object_agg(component, state || ': ' || coalesce(detail, '')) FROM weir.status),
		'processes', (SELECT jsonb_object_agg(backend_type, n) FROM (SELECT backend_type, count(*) AS n FROM pg_stat_activity GROUP BY backend_type) p))
$$;
