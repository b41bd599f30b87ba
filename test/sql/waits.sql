-- Tasks of kind wait: what is refused, and who may signal, approve and reject.
CREATE FUNCTION pg_temp.wait(spec text, more text DEFAULT '') RETURNS integer LANGUAGE SQL AS
	$$ SELECT weir.create_pipeline('bad', format('{"tasks": [{"name": "w", "kind": "wait", "spec": %s %s}]}', spec, more)::jsonb) $$;
\set VERBOSITY default
-- exactly one thing
SELECT pg_temp.wait('{}');
SELECT pg_temp.wait('{"for": 1, "until": "2026-01-01T00:00:00Z"}');
SELECT pg_temp.wait('{"event": "x"}');
SELECT pg_temp.wait('{"signal": "x"}', ', "connection": "c"');
-- times
SELECT pg_temp.wait('{"for": "a while"}');
SELECT pg_temp.wait('{"for": -1}');
SELECT pg_temp.wait('{"for": true}');
SELECT pg_temp.wait('{"for": "11 years"}');
SELECT pg_temp.wait('{"until": "tomorrowish"}');
SELECT pg_temp.wait('{"until": "infinity"}');
SELECT pg_temp.wait('{"until": 20260101}');
SELECT pg_temp.wait('{"until": "{{params.at}}"}');
-- signals and approvals
SELECT pg_temp.wait('{"signal": ""}');
SELECT pg_temp.wait(format('{"signal": "%s"}', repeat('x', 300)));
SELECT pg_temp.wait('{"signal": ["a", "b"]}');
SELECT pg_temp.wait('{"approval": ""}');
-- conditions
SELECT pg_temp.wait('{"sql": "SELEC true"}');
SELECT pg_temp.wait('{"sql": "SELECT true; SELECT false"}');
SELECT pg_temp.wait('{"sql": "DELETE FROM public.t"}');
SELECT pg_temp.wait('{"sql": ""}');
SELECT pg_temp.wait('{"sql": "SELECT {{params.x}}"}');
SELECT pg_temp.wait('{"sql": "SELECT true", "every": 0.5}');
SELECT pg_temp.wait('{"sql": "SELECT true", "every": "{{run.id}}"}');
SELECT pg_temp.wait('{"sql": "SELECT true", "every": "never"}');
SELECT pg_temp.wait('{"signal": "x", "every": 5}');
SELECT count(*) FROM weir.pipeline WHERE name = 'bad';

SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "w", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "wait", "spec": {"for": "soon"}}}}]}');
-- what is accepted
SELECT weir.create_pipeline('waits', '{"parameters": {"at": {"type": "timestamptz"}}, "tasks": [
	{"name": "a", "kind": "wait", "spec": {"for": "10 minutes"}},
	{"name": "b", "kind": "wait", "spec": {"until": "{{params.at}}"}, "timeout": "1 day"},
	{"name": "c", "kind": "wait", "spec": {"signal": "files of {{run.nominal_time}}"}},
	{"name": "d", "kind": "wait", "spec": {"approval": "Publish?"}},
	{"name": "e", "kind": "wait", "spec": {"sql": "SELECT {{params.at}} < now()", "every": "1 minute"}}]}');

-- signal, approve, reject: arguments and rights
SELECT weir.signal(NULL);
SELECT weir.signal('');
SELECT weir.signal(repeat('x', 300));
SELECT weir.signal('x', to_jsonb(repeat('x', 300000)));
SELECT weir.signal('nobody waits'), weir.signal('nobody waits', NULL);
SELECT weir.signal('x', '{}', 0);
SELECT weir.approve(NULL, 'd');
SELECT weir.approve(0, 'd');
SELECT weir.pause_pipeline('waits');
SELECT weir.trigger('waits') AS run \gset
SELECT weir.approve(:run, NULL);
\set VERBOSITY terse
SELECT weir.approve(:run, 'd');
SELECT weir.reject(:run, 'nothing');
CREATE ROLE regress_waits;
GRANT USAGE ON SCHEMA weir TO regress_waits;
SET ROLE regress_waits;
SELECT weir.signal('x');
RESET ROLE;
GRANT EXECUTE ON FUNCTION weir.signal, weir.approve, weir.reject TO regress_waits;
SET ROLE regress_waits;
SELECT weir.signal('x');
SELECT weir.signal('x', '{}', :run);
SELECT weir.approve(:run, 'd');
SELECT weir.reject(:run, 'd');
RESET ROLE;
SELECT weir.cancel(:run);
REVOKE EXECUTE ON FUNCTION weir.signal, weir.approve, weir.reject FROM regress_waits;
REVOKE USAGE ON SCHEMA weir FROM regress_waits;
DROP ROLE regress_waits;
