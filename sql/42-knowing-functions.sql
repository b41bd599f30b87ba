-- Knowing beforehand: what a trigger would do, how far a run is, what a run
-- would come to.

CREATE FUNCTION weir.plan(pipeline text, params jsonb DEFAULT '{}', tasks text[] DEFAULT NULL,
	OUT wave integer, OUT task text, OUT kind text, OUT phase text, OUT action text, OUT reason text, OUT waits_for text[],
	OUT limits text, OUT connection text, OUT retry jsonb, OUT timeout interval, OUT spec jsonb,
	OUT starts_after interval, OUT ends_after interval)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_plan' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.plan(text, jsonb, text[]) IS
	'What a trigger now would do, without doing it: first the start (E, R, D or C, and why), then each task in the order of its wave: run, reused, skipped, depends, fails or blocked, provided that nothing else fails. limits says what each has to share and how much of it is taken now; spec has everything filled in that is known now; starts_after and ends_after count from the start of the run, by the median durations in up to 20 successful runs before and by what has to be shared, null if that cannot be known';

CREATE FUNCTION weir.progress(run_id bigint,
	OUT run_id bigint, OUT pipeline text, OUT status text, OUT tasks bigint, OUT ended bigint, OUT by_status jsonb,
	OUT percent numeric, OUT elapsed interval, OUT expected_end timestamptz, OUT slowest_task text, OUT slowest_elapsed interval,
	OUT deadline timestamptz, OUT deadline_of text)
	RETURNS record
	AS 'MODULE_PATHNAME', 'weir_progress' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.progress(bigint) IS
	'How far a run is: tasks that have ended of all, by status and per cent; the time it took so far; when it is expected to end, by the median durations of its tasks in up to 20 successful runs before, null if that cannot be known; the task that has been running longest; and the timeout that strikes first, when and of what: the run, a task or an attempt';

CREATE PROCEDURE weir.watch(run_id bigint, every interval DEFAULT '1 second')
	AS 'MODULE_PATHNAME', 'weir_watch' LANGUAGE C;
COMMENT ON PROCEDURE weir.watch(bigint, interval) IS
	'Say, as notices, what changes in a run until it ends; holds no snapshot in between';

CREATE FUNCTION weir.simulate(pipeline text, params jsonb DEFAULT '{}', results jsonb DEFAULT '{}',
	OUT task text, OUT kind text, OUT status text, OUT attempts integer, OUT output jsonb, OUT error text, OUT request jsonb)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_simulate' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.simulate(text, jsonb, jsonb) IS
	'What a run would come to: it is run inside this transaction and rolled back. SQL tasks are executed as the owner; other tasks end as results says, such as {"copy": {"status": "succeeded", "output": {}}}, and succeed if it says nothing; nothing is sent. First the run, then its tasks';

CREATE FUNCTION weir._announce() RETURNS trigger
	AS 'MODULE_PATHNAME', 'weir_announce_run' LANGUAGE C;
COMMENT ON FUNCTION weir._announce() IS 'Notifies listeners of new runs, if weir.notify says so';
CREATE TRIGGER announce BEFORE INSERT ON weir.run FOR EACH ROW EXECUTE FUNCTION weir._announce();

REVOKE ALL ON FUNCTION
	weir.plan(text, jsonb, text[]),
	weir.progress(bigint),
	weir.simulate(text, jsonb, jsonb),
	weir._announce()
	FROM PUBLIC;
REVOKE ALL ON PROCEDURE weir.watch(bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir.plan(text, jsonb, text[]), weir.simulate(text, jsonb, jsonb) TO weir_operator, weir_admin;
GRANT EXECUTE ON FUNCTION weir.progress(bigint) TO weir_reader, weir_operator, weir_admin;
GRANT EXECUTE ON PROCEDURE weir.watch(bigint, interval) TO weir_reader, weir_operator, weir_admin;
