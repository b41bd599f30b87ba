-- Connections of the kinds storage and keyvault, and the specs of the tasks
-- that use them: what is refused when it is defined.

SELECT weir.create_secret('account_key', 'bm90IGEga2V5');
SELECT weir.create_connection('lake', 'storage', 'https://localhost/devstoreaccount1', '{"type": "shared_key", "key": "account_key"}');
SELECT weir.create_connection('vault', 'keyvault', 'https://localhost');
SELECT weir.alter_connection('lake', auth => '{"type": "sas", "token": "account_key"}', options => '{"dfs_url": "https://localhost/dfs", "max_concurrency": 4}');

-- connections
SELECT weir.create_connection('bad', 'http', 'https://localhost', '{"type": "shared_key", "key": "account_key"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{"type": "shared_key", "key": "bm90IGEga2V5"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{"type": "shared_key"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{"type": "shared_key", "key": "account_key", "account": "a/b"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{}', '{"dfs_url": "https://elsewhere.example"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{}', '{"dfs_url": "https://localhost/?x=1"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost', '{}', '{"dfs": "https://localhost"}');
SELECT weir.create_connection('bad', 'keyvault', 'https://localhost', '{}', '{"api_version": "7.4?"}');

CREATE FUNCTION pg_temp.try(kind text, spec jsonb, more jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
	SELECT weir.create_pipeline('bad', jsonb_build_object('tasks', jsonb_build_array(
		jsonb_build_object('name', 't', 'kind', kind, 'connection', CASE kind WHEN 'keyvault' THEN 'vault' ELSE 'lake' END, 'spec', spec) || more))) $$;

-- storage
SELECT pg_temp.try('storage', '{}');
SELECT pg_temp.try('storage', '{"operation": "burn", "container": "lake"}');
SELECT pg_temp.try('storage', '{"operation": "list"}');
SELECT pg_temp.try('storage', '{"operation": "list", "container": "Lake"}');
SELECT pg_temp.try('storage', '{"operation": "list", "container": "lake", "prefix": "/a"}');
SELECT pg_temp.try('storage', '{"operation": "list", "container": "lake", "max_files": 0}');
SELECT pg_temp.try('storage', '{"operation": "list", "container": "lake", "min_count": 1}');
SELECT pg_temp.try('storage', '{"operation": "wait", "container": "lake", "within_seconds": "soon"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "from": "a"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "to": "b"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "from": "a", "to": "a"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "from": "in/../a", "to": "b"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "files": ["x/a"], "from": "in/", "to": "out/"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "files": [{"etag": "1"}], "to": "out/"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "files": ["a"], "to": "out/", "etag": "1"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "files": ["a"], "to": "out"}');
SELECT pg_temp.try('storage', '{"operation": "move", "container": "lake", "from": "a", "to": ""}');
SELECT pg_temp.try('storage', '{"operation": "delete", "container": "lake"}');
SELECT pg_temp.try('storage', '{"operation": "put", "container": "lake", "name": "a"}');
SELECT pg_temp.try('storage', jsonb_build_object('operation', 'put', 'container', 'lake', 'name', 'a', 'text', repeat('x', 300000)));

-- file_away
SELECT pg_temp.try('file_away', '{"container": "lake", "files": ["a"]}');
SELECT pg_temp.try('file_away', '{"container": "lake", "files": ["a"], "archive": "done"}');
SELECT pg_temp.try('file_away', '{"container": "lake", "files": ["a"], "archive": "done/", "next_load_status": "P"}');
SELECT pg_temp.try('file_away', '{"container": "lake", "files": ["a"], "archive": "done/"}', '{"phase": "land"}');
SELECT pg_temp.try('file_away', '{"container": "lake", "files": ["a"], "archive": "done/"}', '{"run_if": "all_done"}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop"},
	{"name": "f", "kind": "file_away", "connection": "lake", "depends_on": ["a"], "spec": {"container": "lake", "files": ["a"], "archive": "done/"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "f", "kind": "file_away", "connection": "lake",
	"depends_on": [{"task": "a", "condition": "failed"}], "spec": {"container": "lake", "files": ["a"], "archive": "done/"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task":
	{"kind": "file_away", "connection": "lake", "spec": {"container": "lake", "files": ["a"], "archive": "done/"}}}}]}');

-- keyvault
SELECT pg_temp.try('keyvault', '{}');
SELECT pg_temp.try('keyvault', '{"operation": "check", "secrets": []}');
SELECT pg_temp.try('keyvault', '{"operation": "check", "secrets": ["a_b"]}');
SELECT pg_temp.try('keyvault', '{"operation": "check", "secrets": ["a"], "expires_within_days": -1}');
SELECT pg_temp.try('keyvault', '{"operation": "set", "name": "a"}');
SELECT pg_temp.try('keyvault', '{"operation": "set", "name": "a", "from_secret": "{{pipeline.name}}"}');
SELECT pg_temp.try('keyvault', '{"operation": "set", "name": "a", "from_secret": "s", "value": "never"}');
SELECT pg_temp.try('keyvault', '{"operation": "set", "name": "a", "from_secret": "s", "tags": {"weir_token": "x"}}');

-- nothing of all that was kept, and this is taken
SELECT count(*) FROM weir.pipeline;
SELECT weir.create_pipeline('files', '{"tasks": [
	{"name": "wait", "kind": "storage", "connection": "lake", "phase": "land", "spec": {"operation": "wait", "container": "lake", "prefix": "in/", "glob": "*.csv", "min_count": 2}},
	{"name": "load", "kind": "noop", "depends_on": ["wait"]},
	{"name": "file", "kind": "file_away", "connection": "lake", "depends_on": ["load"], "spec": {"container": "lake",
		"files": "{{tasks.wait.output.files}}", "from": "in/", "archive": "archive/{{row_audit_id}}/", "error": "error/{{run.id}}/"}}]}') > 0 AS created;
SELECT task, action FROM weir.plan('files') WHERE wave > 0;
