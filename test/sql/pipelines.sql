-- Pipelines: versions, owners, pausing, dropping, parameters' defaults.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_other LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_team NOLOGIN;
CREATE ROLE regress_weir_operator LOGIN IN ROLE weir_operator;
CREATE ROLE regress_weir_reader LOGIN IN ROLE weir_reader;

SET ROLE regress_weir_admin;
SELECT weir.create_pipeline('pipe one', $json$
{
  "description": "load and publish",
  "parameters": {
    "day": {"type": "date", "required": true, "description": "day to load"},
    "limit": {"type": "bigint", "default": 9007199254740993},
    "share": {"type": "numeric", "default": 0.10},
    "note": {"type": "text"}
  },
  "max_concurrent_runs": 2, "max_concurrent_tasks": 3,
  "timeout": "1 day 2 hours",
  "retry": {"max_attempts": 3, "initial_delay": "30 seconds"},
  "tasks": [
    {"name": "load", "kind": "sql", "phase": "land", "timeout": 90.5,
     "spec": {"sql": "SELECT {{ params.day }}::date, {{ run.id }}"}},
    {"name": "left", "kind": "noop", "depends_on": ["load"]},
    {"name": "right", "kind": "noop", "depends_on": ["load"], "retry": {"max_attempts": 1, "max_delay": 60, "multiplier": 1.5, "jitter": 0}},
    {"name": "publish", "kind": "sql", "phase": "publish", "depends_on": ["left", "right", "load"],
     "spec": {"sql": "SELECT {{ tasks.load.output }}, '{{1,2},{3,4}}'::int[] -- {{ params.unknown }} in a comment"}}
  ]
}
$json$);
RESET ROLE;
SELECT name, description, owner, current_version, is_enabled, is_paused, is_batch FROM weir.pipeline;
SELECT version, max_concurrent_runs, max_concurrent_tasks, run_timeout, created_by FROM weir.pipeline_version;
SELECT name, type, default_value, is_required, description FROM weir.parameter ORDER BY name;
SELECT task_no, name, kind, phase, max_attempts, retry_initial_ms, retry_max_ms, retry_multiplier, retry_jitter, attempt_timeout, run_limit, wave, upstream_count
FROM weir.task ORDER BY task_no;
SELECT task_no, upstream_no FROM weir.task_dependency ORDER BY 1, 2;
SELECT next_load_status, skip_once, origin_row_audit_id, last_run_id FROM weir.pipeline_state;
SELECT jsonb_pretty(spec) FROM weir.task WHERE name = 'publish';

-- names
SET ROLE regress_weir_admin;
SELECT weir.create_pipeline('pipe one', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline(NULL, '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline(E'a\nb', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline(repeat('ä', 261), '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline(repeat('ä', 260), '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.drop_pipeline(repeat('ä', 260));
SELECT weir.create_pipeline('pipe null', NULL);

-- versions: immutable, and what was given comes back
SELECT weir.alter_pipeline('nowhere', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.alter_pipeline('pipe one', '{"tasks": []}');
SELECT weir.alter_pipeline('pipe one', '{"tasks": [{"name": "a", "kind": "noop"}], "description": "less"}');
SELECT weir.alter_pipeline('pipe one', '{"tasks": [{"name": "b", "kind": "noop"}]}');
SELECT weir.describe_pipeline('pipe one');
SELECT weir.describe_pipeline('pipe one', 2);
SELECT weir.describe_pipeline('pipe one', 1) -> 'parameters' -> 'limit' AS exact;
SELECT weir.describe_pipeline('pipe one', 4);
SELECT weir.describe_pipeline('nowhere');
RESET ROLE;
SELECT v.version, v.version = p.current_version AS is_current, p.description, count(t.*) AS tasks
FROM weir.pipeline p JOIN weir.pipeline_version v USING (pipeline_id) JOIN weir.task t USING (pipeline_id, version)
GROUP BY 1, 2, 3 ORDER BY 1;

-- a definition given back unchanged is the same definition
SET ROLE regress_weir_admin;
SELECT weir.alter_pipeline('pipe one', weir.describe_pipeline('pipe one', 1));
SELECT weir.describe_pipeline('pipe one') = weir.describe_pipeline('pipe one', 1) AS same;
RESET ROLE;
SELECT count(*) AS differences FROM (
	(SELECT task_no, name, kind, spec, wave, attempt_timeout FROM weir.task WHERE version = 1
	 EXCEPT SELECT task_no, name, kind, spec, wave, attempt_timeout FROM weir.task WHERE version = 4)
	UNION ALL SELECT task_no, name, kind, spec, wave, attempt_timeout FROM weir.task WHERE version = 4
	EXCEPT SELECT task_no, name, kind, spec, wave, attempt_timeout FROM weir.task WHERE version = 1) AS d;

-- a rolled-back definition leaves nothing
BEGIN;
SELECT weir.create_pipeline('pipe gone', '{"tasks": [{"name": "a", "kind": "noop"}]}');
ROLLBACK;
SELECT count(*) FROM weir.pipeline WHERE name = 'pipe gone';

-- pausing is for operators too, and can be repeated
SET ROLE regress_weir_operator;
SELECT weir.pause_pipeline('pipe one');
SELECT weir.pause_pipeline('pipe one');
SELECT weir.resume_pipeline('nowhere');
SELECT weir.describe_pipeline('pipe one', 3);
SELECT weir.alter_pipeline('pipe one', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SET ROLE regress_weir_reader;
SELECT weir.describe_pipeline('pipe one', 3);
SELECT weir.resume_pipeline('pipe one');
SELECT * FROM weir.pipeline;
RESET ROLE;
SELECT name, is_paused FROM weir.pipeline;

-- not dropped while a run is unfinished (paused, so it stays queued)
INSERT INTO weir.run (pipeline_id, pipeline_name, version, triggered_by, owner)
SELECT pipeline_id, name, current_version, 'regress', owner FROM weir.pipeline RETURNING run_id \gset
SET ROLE regress_weir_admin;
\set VERBOSITY terse
SELECT weir.drop_pipeline('pipe one');
\set VERBOSITY default
RESET ROLE;
DELETE FROM weir.run WHERE run_id = :run_id;

-- owners
SET ROLE regress_weir_other;
SELECT weir.alter_pipeline('pipe one', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.drop_pipeline('pipe one');
SELECT weir.alter_pipeline_owner('pipe one', 'regress_weir_other');
SET ROLE regress_weir_admin;
SELECT weir.alter_pipeline_owner('pipe one', 'regress_weir_other');
SELECT weir.alter_pipeline_owner('pipe one', 'nobody_at_all');
SELECT weir.alter_pipeline_owner('pipe one', NULL);
RESET ROLE;
GRANT regress_weir_other TO regress_weir_admin;
SET ROLE regress_weir_admin;
SELECT weir.alter_pipeline_owner('pipe one', 'regress_weir_other');
RESET ROLE;
SELECT owner FROM weir.pipeline;
-- before 17 SQL workers can only connect as a role that can log in
GRANT regress_weir_team TO regress_weir_admin;
GRANT weir_admin TO regress_weir_team;
CREATE FUNCTION public.regress_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END
$$;
GRANT EXECUTE ON FUNCTION public.regress_try(text) TO PUBLIC;
SELECT public.regress_try($$SELECT weir.alter_pipeline_owner('pipe one', 'regress_weir_team')$$) =
	CASE WHEN current_setting('server_version_num')::int < 170000
	THEN 'role "regress_weir_team" cannot own a pipeline because it cannot log in' ELSE 'done' END AS as_expected;
SET ROLE regress_weir_team;
SELECT public.regress_try($$SELECT weir.create_pipeline('pipe team', '{"tasks": [{"name": "a", "kind": "noop"}]}')$$) =
	CASE WHEN current_setting('server_version_num')::int < 170000
	THEN 'role "regress_weir_team" cannot own a pipeline because it cannot log in' ELSE 'done' END AS as_expected;
RESET ROLE;
DELETE FROM weir.pipeline WHERE name = 'pipe team';
SELECT weir.alter_pipeline_owner('pipe one', 'regress_weir_other');
DROP FUNCTION public.regress_try(text);
-- a member of the owner's role may, the owner may
SET ROLE regress_weir_admin;
SELECT weir.alter_pipeline('pipe one', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SET ROLE regress_weir_other;
SELECT weir.resume_pipeline('pipe one');
SELECT weir.drop_pipeline('pipe one');
SELECT weir.drop_pipeline('pipe one');

-- nothing is left of it
RESET ROLE;
SELECT (SELECT count(*) FROM weir.pipeline) AS pipelines, (SELECT count(*) FROM weir.pipeline_version) AS versions,
	(SELECT count(*) FROM weir.task) AS tasks, (SELECT count(*) FROM weir.parameter) AS parameters,
	(SELECT count(*) FROM weir.pipeline_state) AS states;

-- large ones: a chain, a fan, and too much of either
SET ROLE regress_weir_admin;
SELECT weir.create_pipeline('pipe chain', (SELECT jsonb_build_object('tasks', jsonb_agg(jsonb_build_object('name', 't' || i, 'kind', 'noop',
	'depends_on', CASE WHEN i > 1 THEN jsonb_build_array('t' || i - 1) ELSE '[]' END) ORDER BY i)) FROM generate_series(1, 2000) AS i));
SELECT weir.create_pipeline('pipe fan', (SELECT jsonb_build_object('tasks', jsonb_agg(jsonb_build_object('name', 't' || i, 'kind', 'noop',
	'depends_on', CASE WHEN i = 1 THEN '[]'::jsonb WHEN i < 502 THEN '["t1"]' ELSE (SELECT jsonb_agg('t' || j) FROM generate_series(2, 501) AS j) END) ORDER BY i)) FROM generate_series(1, 502) AS i));
SELECT weir.create_pipeline('pipe many', (SELECT jsonb_build_object('tasks', jsonb_agg(jsonb_build_object('name', 't' || i, 'kind', 'noop'))) FROM generate_series(1, 10001) AS i));
SELECT weir.create_pipeline('pipe big', jsonb_build_object('description', repeat('x', 1048576)));
RESET ROLE;
SELECT p.name, count(*) AS tasks, max(t.wave) AS waves, max(t.upstream_count) AS upstream,
	(SELECT count(*) FROM weir.task_dependency d WHERE d.pipeline_id = p.pipeline_id) AS dependencies
FROM weir.pipeline p JOIN weir.task t USING (pipeline_id) GROUP BY p.pipeline_id ORDER BY p.name;
SELECT weir.drop_pipeline('pipe chain'), weir.drop_pipeline('pipe fan');
DROP ROLE regress_weir_admin, regress_weir_other, regress_weir_team, regress_weir_operator, regress_weir_reader;
