-- What a task will ask for is looked at when it is defined: addresses, what the
-- connection's options say, secrets that are sent, names that become part of a URL
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT weir.create_secret('fr_secret', 'x');
SELECT weir.create_connection('fr', 'http', 'https://localhost/api');
SELECT weir.create_connection('fr_adf', 'adf', 'https://localhost', '{"type": "bearer", "token": "fr_secret"}', '{"subscription_id": "s", "resource_group": "g", "factory": "f"}');
SELECT weir.create_connection('fr_marked', 'adf', 'https://localhost', '{"type": "bearer", "token": "fr_secret"}', '{"subscription_id": "s", "resource_group": "g", "factory": "f", "correlation_parameter": "mark"}');
SELECT weir.create_connection('fr_fabric', 'fabric', 'https://localhost', '{"type": "bearer", "token": "fr_secret"}');
SELECT weir.create_connection('fr_dbx', 'databricks', 'https://localhost', '{"type": "bearer", "token": "fr_secret"}');
SELECT weir.create_connection('fr_vault', 'keyvault', 'https://localhost', '{"type": "bearer", "token": "fr_secret"}');
-- the error, or "defined"; nothing stays
CREATE FUNCTION define(kind text, connection text, spec jsonb) RETURNS text
  LANGUAGE sql AS $$
  SELECT 'defined' FROM (SELECT weir.create_pipeline('fr', jsonb_build_object('parameters', '{"p": {"type": "text"}}'::jsonb,
    'tasks', jsonb_build_array(jsonb_build_object('name', 'a', 'kind', kind, 'connection', connection, 'spec', spec))))) AS created,
    LATERAL weir.drop_pipeline('fr') $$;

-- addresses a spec names go through the URL policy, also up to a reference behind the host
SELECT define('http', 'fr', '{"url": "https://elsewhere.example/a"}');
SELECT define('http', 'fr', '{"url": "http://169.254.169.254/metadata/identity"}');
SELECT define('http', 'fr', '{"url": "https://elsewhere.example/a/{{params.p}}"}');
SELECT define('http', 'fr', '{"url": "https://elsewhere.example/a", "method": "POST", "body": "{{params.p}}"}');
SELECT define('http', 'fr', '{"url": "file:///etc/passwd"}');
SELECT define('http', 'fr', '{"url": "https://localhost/b/{{params.p}}"}');
SELECT define('http', 'fr', '{"url": "https://{{params.p}}/a"}');
SELECT define('http', 'fr', '{"url": "{{params.p}}"}');
SELECT define('webhook', 'fr', '{"queue": "replies", "request": {"connection": "fr", "method": "POST", "url": "https://elsewhere.example/", "body": {"t": "{token}"}}}');
SELECT define('for_each', NULL, '{"items": [1], "task": {"kind": "http", "connection": "fr", "spec": {"url": "https://elsewhere.example/{{item}}"}}}');

-- paths
SELECT define('http', 'fr', '{"path": "/../a"}');
SELECT define('http', 'fr', '{"path": "/../a", "method": "POST", "body": "{{params.p}}"}');
SELECT define('http', 'fr', '{"path": "/a b"}');
SELECT define('http', 'fr', '{"path": "/a", "poll": {"path": "/jobs/{id}"}}');
SELECT define('http', 'fr', '{"path": "/a", "poll": {"path": "/jobs", "query": {"job": "{id}"}}}');
SELECT define('http', 'fr', '{"path": "/a", "id": "$.id", "poll": {"path": "/jobs/{id}"}}');
SELECT define('http', 'fr', '{"path": "/a", "poll": {"header": "Location"}, "cancel": {"path": "/jobs/{id}"}}');

-- methods
SELECT define('http', 'fr', '{"path": "/a", "method": "PROPFIND"}');
SELECT define('http', 'fr', '{"path": "/a", "method": "CONNECT"}');
SELECT define('http', 'fr', '{"path": "/a", "method": "TRACE"}');
SELECT define('http', 'fr', '{"path": "/a", "method": "post"}');
SELECT define('http', 'fr', '{"path": "/a", "method": "GET /b HTTP/1.1"}');

-- what only connection and spec together say
SELECT define('adf_pipeline', 'fr_adf', '{"pipeline": "copy", "parameters": {"weir_token": "1"}}');
SELECT define('adf_pipeline', 'fr_marked', '{"pipeline": "copy", "parameters": {"weir_token": "1"}}');
SELECT define('adf_pipeline', 'fr_marked', '{"pipeline": "copy", "parameters": {"mark": "1"}}');
SELECT define('fabric_item', 'fr_fabric', '{"item": "431e8d7b-0000-4000-8000-000000000001", "job_type": "RunNotebook"}');
SELECT define('keyvault', 'fr_vault', '{"operation": "set", "name": "copy", "from_secret": "nowhere"}');
SELECT define('keyvault', 'fr_vault', '{"operation": "set", "name": "copy", "from_secret": "fr_secret"}');

-- names that become part of a URL, and a selection of nothing, which Databricks takes for everything
SELECT define('databricks_pipeline', 'fr_dbx', '{"pipeline_id": ".."}');
SELECT define('databricks_pipeline', 'fr_dbx', '{"pipeline_id": "a/b"}');
SELECT define('databricks_serving', 'fr_dbx', '{"endpoint": "a b", "inputs": [1]}');
SELECT define('databricks_pipeline', 'fr_dbx', '{"pipeline_id": "p", "refresh_selection": []}');
SELECT define('databricks_pipeline', 'fr_dbx', '{"pipeline_id": "p", "refresh_selection": [], "full_refresh_selection": ["t"]}');
SELECT define('databricks_pipeline', 'fr_dbx', '{"pipeline_id": "p", "refresh_selection": "{{params.p}}"}');

DROP FUNCTION define(text, text, jsonb);
SELECT weir.drop_connection(c) FROM unnest('{fr, fr_adf, fr_marked, fr_fabric, fr_dbx, fr_vault}'::text[]) c;
SELECT weir.drop_secret('fr_secret');
