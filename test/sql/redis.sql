-- Connections of kind redis and tasks of kind redis_publish: what is refused
-- when they are defined, with its place.
\set VERBOSITY default
\set SHOW_CONTEXT never

-- addresses
SELECT weir.create_connection('x', 'redis', NULL);
SELECT weir.create_connection('x', 'redis', 'http://localhost:6379');
SELECT weir.create_connection('x', 'redis', 'redis://localhost:6379/2');
SELECT weir.create_connection('x', 'redis', 'redis://default:pw@localhost:6379');
SELECT weir.create_connection('x', 'redis', 'redis://localhost:6379?db=2');
SELECT weir.create_connection('x', 'redis', 'redis://');
SELECT weir.create_connection('x', 'redis', 'redis://elsewhere.example:6379');
SELECT weir.create_connection('x', 'redis', 'rediss://elsewhere.example');
SELECT weir.create_connection('x', 'redis', 'redis://[::1]:6379');
-- sign-in and options
SELECT weir.create_connection('x', 'redis', 'redis://localhost', '{"type": "bearer", "token": "t"}');
SELECT weir.create_secret('pw', 'correct horse');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', '{"type": "bearer", "token": "pw"}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', '{"type": "basic", "password": "pw"}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', '{"type": "basic", "username": "default", "password": "correct horse"}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', options => '{"database": -1}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', options => '{"database": "1"}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', options => '{"command_timeout": 0}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', options => '{"ca_certificate": "/etc/ssl/ca.pem"}');
SELECT weir.create_connection('x', 'redis', 'redis://localhost', options => '{"db": 1}');
SELECT weir.create_connection('features', 'redis', 'redis://localhost/', '{"type": "basic", "username": "default", "password": "pw"}',
	'{"database": 2, "connect_timeout": 0.5, "command_timeout": 5, "max_concurrency": 1}');
SELECT kind, base_url, auth, options FROM weir.connection;

-- tasks
CREATE FUNCTION pg_temp.try(spec text, more text DEFAULT '') RETURNS bigint LANGUAGE sql AS $$
	SELECT weir.create_pipeline('p', ('{"tasks": [{"name": "a", "kind": "redis_publish"' || more || ', "spec": ' || spec || '}]}')::jsonb) $$;
\set with ', "connection": "features"'
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": "1 day"}');
SELECT pg_temp.try('{}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p"}', :'with');
SELECT pg_temp.try('{"sql": "", "key": "id", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELEC 1", "key": "id", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1; SELECT 2", "key": "id", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "DELETE FROM t RETURNING id", "key": "id", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT {{params.nothing}} AS id", "key": "id", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "{{run.id}}", "prefix": "p", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "two words", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "{{tasks.b.output}}", "ttl": "1 day"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 0}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": "soon"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "keep_old": -1}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "ttl_jitter": 2}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "verify": "maybe"}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "min_rows": -1}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "batch_rows": 0}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "statement_timeout": 0}', :'with');
SELECT pg_temp.try('{"sql": "SELECT 1 AS id", "key": "id", "prefix": "p", "ttl": 60, "role": "postgres"}', :'with');
SELECT count(*) FROM weir.pipeline;

-- what is right, and what a plan says of it
SELECT weir.create_pipeline('good', '{"parameters": {"day": {"type": "date", "default": "2026-01-31"}},
	"tasks": [{"name": "a", "kind": "redis_publish", "connection": "features",
		"spec": {"sql": "SELECT {{params.day}} AS id", "key": "id", "prefix": "daily:{{params.day}}", "ttl": "2 days",
			"ttl_jitter": 0.2, "keep_old": 0, "verify": "full", "min_rows": 0, "batch_rows": 100, "statement_timeout": "1 minute"}}]}');
SELECT task, kind, action, limits, connection, spec FROM weir.plan('good');
