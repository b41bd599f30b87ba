-- Tasks of kind pipeline: what is refused when they are defined.
CREATE FUNCTION pg_temp.def(callee text, more text DEFAULT '') RETURNS jsonb LANGUAGE SQL AS
	$$ SELECT format('{"tasks": [{"name": "first", "kind": "noop"}, {"name": "call", "kind": "pipeline", "spec": {"pipeline": "%s"%s}}]}', callee, more)::jsonb $$;
\set noop '{"tasks": [{"name": "a", "kind": "noop"}]}'
SELECT weir.create_pipeline('leaf', '{"parameters": {"n": {"type": "bigint", "required": true}, "note": {"type": "text"}}, "tasks": [{"name": "a", "kind": "noop"}]}');

-- the spec
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": 1}}]}');
SELECT weir.create_pipeline('bad', pg_temp.def('{{params.which}}'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "params": [1]'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "params": "{{run.id}}"'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "wait": "no"'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "version": 1'));
-- what it calls
SELECT weir.create_pipeline('bad', pg_temp.def('nowhere'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "params": {"n": 1, "notes": "x"}'));
SELECT weir.create_pipeline('bad', pg_temp.def('leaf', ', "params": {"n": "{{params.n}}"}'));
SELECT weir.create_pipeline('good', pg_temp.def('leaf', ', "params": {"n": "{{run.id}}"}'));

-- cycles, however long
SELECT weir.create_pipeline('bad', pg_temp.def('bad'));
SELECT weir.create_pipeline('a', :'noop');
SELECT weir.create_pipeline('b', pg_temp.def('a'));
SELECT weir.create_pipeline('c', pg_temp.def('b'));
SELECT weir.create_pipeline('d', '{"tasks": [{"name": "x", "kind": "pipeline", "spec": {"pipeline": "c"}}, {"name": "y", "kind": "pipeline", "spec": {"pipeline": "a"}}]}');
SELECT weir.alter_pipeline('a', pg_temp.def('a'));
SELECT weir.alter_pipeline('a', pg_temp.def('b'));
SELECT weir.alter_pipeline('a', pg_temp.def('c'));
SELECT weir.alter_pipeline('a', pg_temp.def('d'));
SELECT weir.alter_pipeline('a', pg_temp.def('good'));
SELECT weir.alter_pipeline('a', '{"tasks": [{"name": "each", "kind": "for_each", "spec": {"items": [1, 2], "task": {"kind": "pipeline", "spec": {"pipeline": "c"}}}}]}');
-- only current versions count
SELECT weir.alter_pipeline('b', :'noop');
SELECT weir.alter_pipeline('a', pg_temp.def('b'));
SELECT weir.alter_pipeline('b', pg_temp.def('c'));
-- a name that is called comes back
SELECT weir.drop_pipeline('b');
SELECT weir.create_pipeline('b', pg_temp.def('d'));
SELECT weir.create_pipeline('b', :'noop');

-- many ways to the same place are looked at once
SELECT weir.create_pipeline('w0', :'noop');
SELECT min(weir.create_pipeline('w' || i, jsonb_build_object('tasks', (SELECT jsonb_agg(jsonb_build_object('name', 't' || j, 'kind', 'pipeline',
	'spec', jsonb_build_object('pipeline', 'w' || j))) FROM generate_series(0, i - 1) j)))) FROM generate_series(1, 40) i;
\set VERBOSITY terse
SELECT weir.alter_pipeline('w0', pg_temp.def('w40'));
\set VERBOSITY default

-- rights
CREATE ROLE regress_calls_owner LOGIN;
CREATE ROLE regress_calls LOGIN;
GRANT weir_admin TO regress_calls_owner, regress_calls;
SET ROLE regress_calls_owner;
SELECT weir.create_pipeline('theirs', :'noop');
SET ROLE regress_calls;
SELECT weir.create_pipeline('mine', pg_temp.def('theirs'));
RESET ROLE;
SELECT weir.drop_pipeline('mine'), weir.drop_pipeline('theirs');
DROP ROLE regress_calls_owner, regress_calls;
SELECT count(*) FROM weir.pipeline WHERE name = 'bad';
