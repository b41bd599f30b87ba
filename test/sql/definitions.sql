-- Definitions that are wrong: each error says what, where and what to do, and
-- nothing is stored.
\set VERBOSITY default
\set SHOW_CONTEXT never

-- the whole
SELECT weir.create_pipeline('bad', '[]');
SELECT weir.create_pipeline('bad', '"text"');
SELECT weir.create_pipeline('bad', 'null');
SELECT weir.create_pipeline('bad', '{}');
SELECT weir.create_pipeline('bad', '{"task": []}');
SELECT weir.create_pipeline('bad', '{"tasks": [], "wholly unknown": 1}');
SELECT weir.create_pipeline('bad', '{"tasks": {}}');
SELECT weir.create_pipeline('bad', '{"tasks": []}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "description": 5}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "max_concurrent_runs": 0}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "max_concurrent_runs": 1.5}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "max_concurrent_runs": "2"}');
SELECT weir.create_pipeline('bad', ('{"tasks": ' || repeat('[', 300) || repeat(']', 300) || '}')::jsonb);

-- durations
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": 0}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": -5}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": "soon"}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": "-1 hour"}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": "100 years"}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": 1e300}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "timeout": true}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "timeout": ["1 hour"]}]}');

-- retry
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "retry": 3}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "retry": {"attempts": 3}}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}], "retry": {"max_attempts": 0}}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"max_attempts": 1001}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"initial_delay": "10 minutes", "max_delay": "1 minute"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"multiplier": 0.5}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"multiplier": "2"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "retry": {"jitter": 2}}]}');

-- parameters
SELECT weir.create_pipeline('bad', '{"parameters": [], "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": "text"}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "integer"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p q": {"type": "text"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"1p": {"type": "text"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "text", "defualt": 1}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "text", "required": "yes"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "text", "required": true, "default": "x"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "text", "default": 1}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "bigint", "default": 1.5}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "bigint", "default": 9223372036854775808}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "numeric", "default": "NaN"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "boolean", "default": "true"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "date", "default": "2026-02-29"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "date", "default": "today"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "timestamptz", "default": "2026-01-01T00:00:00"}}, "tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"p": {"type": "timestamptz", "default": "2026-01-01T25:00:00Z"}}, "tasks": [{"name": "a", "kind": "noop"}]}');

-- tasks
SELECT weir.create_pipeline('bad', '{"tasks": ["a"]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": 1, "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a b", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', jsonb_build_object('tasks', jsonb_build_array(jsonb_build_object('name', repeat('n', 64), 'kind', 'noop'))));
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "sqll", "spec": {"sql": "SELECT 1"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "spark"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "dependson": []}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "phase": "landing"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "spec": "SELECT 1"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop"}, {"name": "a", "kind": "noop"}]}');

-- dependencies
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "depends_on": "b"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "depends_on": [1]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "extract", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": ["extarct"]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "depends_on": ["a"]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": ["a", "a"]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "z", "kind": "noop"}, {"name": "a", "kind": "noop", "depends_on": ["c"]}, {"name": "b", "kind": "noop", "depends_on": ["a"]}, {"name": "c", "kind": "noop", "depends_on": ["b", "z"]}]}');

-- connections
SELECT weir.create_connection('def_http', 'http', 'https://localhost');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "connection": "def_http"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "spec": {"method": "GET", "path": "/"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "nowhere", "spec": {"method": "GET", "path": "/"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "databricks_job", "connection": "def_http", "spec": {"job_id": 1}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": 1, "spec": {"method": "GET", "path": "/"}}]}');

-- references
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/{{ params.day }}"}}]}');
SELECT weir.create_pipeline('bad', '{"parameters": {"date": {"type": "date"}}, "tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/", "query": {"d": "{{ params.day }}"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/{{ nothing.known }}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/{{ run.id"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/{{ tasks.b.output }}"}}, {"name": "b", "kind": "noop"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "http", "connection": "def_http", "spec": {"method": "GET", "path": "/{{ tasks.c.output }}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "sql", "depends_on": ["a"], "spec": {"sql": "SELECT {{ tasks.a.result }}"}}]}');
-- an ancestor need not be a direct one
SELECT weir.create_pipeline('good', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": ["a"]}, {"name": "c", "kind": "sql", "depends_on": ["b"], "spec": {"sql": "SELECT {{ tasks.a.output }}"}}]}');
SELECT weir.drop_pipeline('good');

-- SQL
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": 1}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1 FORM t"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT {{ run.id }} FROM FROM t"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT ''{{ run.id }}''"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT * FROM \"{{ run.id }}\""}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT * FROM t_{{ run.id }}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT $1"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT {{ params.nope }}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT ''open"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": " -- nothing\n ; "}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "BEGIN; DELETE FROM t; COMMIT"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "VACUUM t"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1; CREATE INDEX CONCURRENTLY ON t (a)"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "DROP INDEX CONCURRENTLY i"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "LISTEN t"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "COPY t FROM STDIN"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "connection": "def_http", "spec": {"sql": "SELECT 1"}}]}');
-- the caller's settings change nothing about how SQL is read (19 has no other way to read it)
SELECT current_setting('server_version_num')::int < 190000 AS old_literals \gset
\if :old_literals
SET standard_conforming_strings = off;
SET escape_string_warning = off;
\endif
SELECT weir.create_pipeline('good', $json${"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT '\\', {{ run.id }}, 'x'"}}]}$json$);
SELECT weir.create_pipeline('bad', $json${"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT '\\' {{ run.id }} x'"}}]}$json$);
SELECT current_setting('standard_conforming_strings') = CASE WHEN :'old_literals' THEN 'off' ELSE 'on' END AS unchanged;
\if :old_literals
RESET standard_conforming_strings;
RESET escape_string_warning;
\endif
SELECT weir.drop_pipeline('good');

-- nothing of all that was kept
SELECT (SELECT count(*) FROM weir.pipeline) AS pipelines, (SELECT count(*) FROM weir.pipeline_version) AS versions,
	(SELECT count(*) FROM weir.task) AS tasks, (SELECT count(*) FROM weir.pipeline_state) AS states;
SELECT weir.drop_connection('def_http');
