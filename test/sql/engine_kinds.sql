-- Definitions of tasks of kinds fabric_item, http and webhook, and of the
-- connections they need: what is refused, and where in the definition it is.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT weir.create_connection('fabric', 'fabric');
SELECT weir.create_connection('fabric', 'fabric', 'https://localhost/v1', options => '{"workspace_id": "cfafbeb1-8037-4d0c-896e-a46fb27ff227"}');
SELECT weir.create_connection('api', 'http', 'https://localhost/api');
SELECT weir.create_connection('queue', 'http', 'https://localhost/queue');
SELECT weir.create_secret('account_key', 'bm90IGEga2V5');
SELECT weir.create_connection('lake', 'storage', 'https://localhost/account', '{"type": "shared_key", "key": "account_key"}', '{"queue_url": "https://localhost/queues/account"}');
SELECT weir.create_connection('bad', 'storage', 'https://localhost/account', options => '{"queue_url": "https://elsewhere.example"}');
SELECT weir.create_connection('bad', 'http', 'https://localhost/queue', '{"type": "sas", "token": "account_key"}');
SELECT name, kind, base_url FROM weir.connection ORDER BY name;
SELECT weir.create_connection('bad', 'fabric', 'https://localhost', options => '{"workspace": "x"}');
SELECT weir.create_connection('bad', 'fabrik', 'https://localhost');

-- A pipeline of one task t.
CREATE FUNCTION pg_temp.define(kind text, connection text, spec jsonb) RETURNS void LANGUAGE sql AS $$
	SELECT weir.create_pipeline('p', jsonb_build_object('parameters', '{"day": {"type": "date", "required": true}}'::jsonb, 'tasks',
		jsonb_build_array(jsonb_build_object('name', 't', 'kind', kind, 'connection', connection, 'spec', spec))));
	SELECT weir.drop_pipeline('p');
$$;

-- fabric_item
SELECT pg_temp.define('fabric_item', 'fabric', '{"item": "431e8d7b-4a95-4c02-8ccd-6faef5ba1bd7", "job_type": "RunNotebook", "parameters": {"day": "{{params.day}}"}}');
SELECT pg_temp.define('fabric_item', 'fabric', '{"call": {"path": "/workspaces/x/sqlEndpoints/y/refreshMetadata"}}');
SELECT pg_temp.define('fabric_item', 'api', '{"item": "431e8d7b-4a95-4c02-8ccd-6faef5ba1bd7", "job_type": "RunNotebook"}');
SELECT pg_temp.define('fabric_item', 'fabric', '{"item": "notebook", "job_type": "RunNotebook"}');
SELECT pg_temp.define('fabric_item', 'fabric', '{"item": "431e8d7b-4a95-4c02-8ccd-6faef5ba1bd7"}');
SELECT pg_temp.define('fabric_item', 'fabric', '{"item": "431e8d7b-4a95-4c02-8ccd-6faef5ba1bd7", "job_type": "../x"}');
SELECT pg_temp.define('fabric_item', 'fabric', '{"call": {"path": "/x"}, "parameters": {}}');

-- http
SELECT pg_temp.define('http', 'api', '{"method": "POST", "path": "/jobs", "id": "$.id", "poll": {"path": "/jobs/{id}", "every": "10 seconds", "status": "$.state", "succeeded": ["done"]},
	"cancel": {"path": "/jobs/{id}", "method": "DELETE"}, "lookup": {"path": "/jobs", "query": {"key": "{token}"}, "id": "$[0].id"}, "result": {"json": "$.result"}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "poll": {"every": 5}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "poll": {"path": "/x", "status": "$..a", "succeeded": [1]}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "pages": {"items": "$.v", "nxt": 1}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "pages": {"items": "$.v", "cursor": {"json": "$.c", "parameter": "c", "in": "header"}}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "headers": {"authorization": "Bearer x"}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "outputs": {"rows": "rows"}}');
SELECT pg_temp.define('http', 'api', '{"path": "/x", "allow_hosts": ["*"]}');

-- webhook
SELECT pg_temp.define('webhook', 'queue', '{"queue": "callbacks", "request": {"connection": "api", "method": "POST", "path": "/jobs", "body": {"token": "{token}"}}}');
SELECT pg_temp.define('webhook', 'queue', '{"queue": "events", "event": {"container": "landing", "prefix": "flights/{{params.day}}/"}}');
SELECT pg_temp.define('webhook', 'lake', '{"queue": "events", "event": {"prefix": "flights/{{params.day}}/"}}');
SELECT pg_temp.define('webhook', 'fabric', '{"queue": "events", "event": {}}');
SELECT weir.create_pipeline('p', '{"tasks": [{"name": "t", "kind": "webhook", "spec": {"queue": "events", "event": {}}}]}');
SELECT pg_temp.define('webhook', 'queue', '{"queue": "callbacks", "request": {"connection": "nowhere", "method": "POST", "path": "/jobs/{token}"}}');
SELECT pg_temp.define('webhook', 'queue', '{"queue": "callbacks", "request": {"connection": "fabric", "method": "POST", "path": "/jobs/{token}"}}');
SELECT pg_temp.define('webhook', 'queue', '{"queue": "callbacks", "request": {"connection": "api", "method": "POST", "path": "/jobs"}}');
SELECT pg_temp.define('webhook', 'queue', '{"queue": "callbacks", "request": {"connection": "api", "method": "POST", "path": "/jobs/{token}", "headers": {"Cookie": "x"}}}');

-- the connection of a request is in use
SELECT weir.create_pipeline('waits', '{"tasks": [{"name": "t", "kind": "webhook", "connection": "queue",
	"spec": {"queue": "callbacks", "request": {"connection": "api", "method": "POST", "path": "/jobs/{token}"}}}]}');
SELECT weir.drop_connection('api');
SELECT weir.drop_pipeline('waits');
SELECT weir.drop_connection('api'), weir.drop_connection('queue'), weir.drop_connection('fabric'), weir.drop_connection('lake');
SELECT weir.drop_secret('account_key');
