-- Connections: strict options, no secrets in them, deny unless allowed.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_other LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_reader LOGIN IN ROLE weir_reader;
SET ROLE regress_weir_admin;
SELECT weir.create_secret('conn_token', 'dapi-local');
SELECT weir.create_secret('conn_password', 'local');

-- the three kinds
SELECT weir.create_connection('conn_dbx', 'databricks', 'https://localhost/dbx/', '{"type": "pat", "token": "conn_token"}');
SELECT weir.create_connection('conn_adf', 'adf', 'https://localhost',
	'{"type": "entra_client_secret", "tenant_id": "t", "client_id": "c", "client_secret": "conn_password", "authority": "https://localhost"}',
	'{"subscription_id": "s1", "resource_group": "rg", "factory": "f", "api_version": "2018-06-01", "correlation_parameter": "token", "settle_seconds": 0.5}',
	'a factory');
SELECT weir.create_connection('conn_http', 'http', 'http://127.0.0.1:8080/api//', '{"type": "basic", "username": "conn_token", "password": "conn_password"}',
	'{"default_headers": {"X-Team": "lake"}, "idempotent": true}');
SELECT weir.create_connection('conn_open', 'http', 'https://localhost');
RESET ROLE;
SELECT name, kind, base_url, auth, options, description, owner FROM weir.connection ORDER BY name;
SET ROLE regress_weir_admin;

-- names and kinds
SELECT weir.create_connection(NULL, 'http', 'https://localhost');
SELECT weir.create_connection('a b', 'http', 'https://localhost');
SELECT weir.create_connection('conn_http', 'http', 'https://localhost');
SELECT weir.create_connection('x', 'databrick', 'https://localhost');
SELECT weir.create_connection('x', NULL, 'https://localhost');

-- addresses
SELECT weir.create_connection('x', 'http');
SELECT weir.create_connection('x', 'http', '');
SELECT weir.create_connection('x', 'http', 'https://elsewhere.example/');
SELECT weir.create_connection('x', 'http', 'ftp://localhost/');
SELECT weir.create_connection('x', 'http', 'localhost');
SELECT weir.create_connection('x', 'http', 'https://user:password@localhost/');
SELECT weir.create_connection('x', 'http', 'https://169.254.169.254/');
SELECT weir.create_connection('x', 'http', 'https://localhost/?a=b');
SELECT weir.create_connection('x', 'http', 'https://localhost/#a');
SELECT weir.create_connection('x', 'adf', NULL, '{}', '{"subscription_id": "s", "resource_group": "r", "factory": "f"}');

-- options
SELECT weir.create_connection('x', 'adf', 'https://localhost');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '[]');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription": "s"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": "s", "resource_group": "r"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": "s", "resource_group": "../r", "factory": "f"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": "s", "resource_group": "..", "factory": "f"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": 5, "resource_group": "r", "factory": "f"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": "s", "resource_group": "r", "factory": "f", "correlation_parameter": "a b"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{}', '{"subscription_id": "s", "resource_group": "r", "factory": "f", "api_version": "1&x=y"}');
SELECT weir.create_connection('x', 'databricks', 'https://localhost', '{}', '{"settle_seconds": -1}');
SELECT weir.create_connection('x', 'databricks', 'https://localhost', '{}', '{"settle_seconds": "1"}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"idempotent": 1}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": ["a"]}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": {"a b": "c"}}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": {"a": 1}}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": {"a": "b\r\nc: d"}}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": {"authorization": "Bearer x"}}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{}', '{"default_headers": {"Host": "x"}}');

-- how to sign in: a pasted secret is told apart from a name, and not repeated
SELECT weir.create_connection('x', 'databricks', 'https://localhost', '[]');
SELECT weir.create_connection('x', 'databricks', 'https://localhost', '{"type": "pat", "token": "dapi0123456789"}');
SELECT weir.create_connection('x', 'databricks', 'https://localhost', '{"type": "pat", "token": {"a": "dapi0123456789"}}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{"type": "basic", "username": "u", "password": "hunter2"}');
SELECT weir.create_connection('x', 'adf', 'https://localhost', '{"type": "entra_client_secret", "tenant_id": "t", "client_id": "c", "client_secret": "Q~secret"}',
	'{"subscription_id": "s", "resource_group": "r", "factory": "f"}');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{"type": "kerberos"}');
SELECT weir.create_connection('x', 'http', 'https://localhost', jsonb_build_object('type', repeat('x', 70000)));

-- nothing of all that was kept
RESET ROLE;
SELECT count(*) FROM weir.connection WHERE name LIKE 'x%' OR name LIKE 'a%';
SET ROLE regress_weir_admin;

-- changes: null leaves as it is, and the whole is checked
SELECT weir.alter_connection('nowhere', 'https://localhost');
SELECT weir.alter_connection('conn_adf', options => '{"factory": "g"}');
SELECT weir.alter_connection('conn_adf', base_url => 'https://elsewhere.example');
SELECT weir.alter_connection('conn_adf', auth => '{"type": "pat", "token": "none"}');
SELECT weir.alter_connection('conn_adf', options => '{"subscription_id": "s1", "resource_group": "rg", "factory": "g"}');
SELECT weir.alter_connection('conn_open', base_url => 'https://localhost/v2/', description => 'open');
RESET ROLE;
SELECT name, base_url, options, description, changed_at > created_at AS changed
FROM weir.connection WHERE name IN ('conn_adf', 'conn_open') ORDER BY name;

-- a changed secret is a changed connection: cached tokens go
SELECT changed_at AS before FROM weir.connection WHERE name = 'conn_dbx' \gset
SELECT changed_at AS before_http FROM weir.connection WHERE name = 'conn_http' \gset
SELECT weir.alter_secret('conn_token', 'dapi-new');
SELECT name, CASE name WHEN 'conn_dbx' THEN changed_at > :'before' ELSE changed_at > :'before_http' END AS touched
FROM weir.connection WHERE name IN ('conn_dbx', 'conn_http') ORDER BY name;

-- what is used stays; a user name spelt like a secret is no use of it
SET ROLE regress_weir_admin;
SELECT weir.drop_secret('conn_token');
SELECT weir.drop_secret('conn_password');
SELECT weir.create_pipeline('conn_pipeline', '{"tasks": [{"name": "a", "kind": "http", "connection": "conn_open", "spec": {"method": "GET", "path": "/a"}}]}');
SELECT weir.drop_connection('conn_open');
SELECT weir.alter_pipeline('conn_pipeline', '{"tasks": [{"name": "a", "kind": "noop"}]}');
SELECT weir.set_stage_mapping('CONN', NULL, NULL, 'http', 'conn_open', 'land', '{"method": "GET", "path": "/a"}');
SELECT weir.drop_connection('conn_open');
SELECT weir.drop_stage_mapping('CONN');
SELECT weir.drop_connection('conn_open');
SELECT weir.drop_pipeline('conn_pipeline');

-- who may
SET ROLE regress_weir_other;
SELECT weir.alter_connection('conn_http', description => 'mine');
SELECT weir.drop_connection('conn_http');
SET ROLE regress_weir_reader;
SELECT weir.create_connection('x', 'http', 'https://localhost');
SET ROLE regress_weir_admin;
SELECT weir.drop_connection('nowhere');
SELECT weir.drop_connection('conn_dbx'), weir.drop_connection('conn_adf'), weir.drop_connection('conn_http');
SELECT weir.drop_secret('conn_token'), weir.drop_secret('conn_password');
RESET ROLE;
SELECT count(*) FROM weir.connection;
DROP ROLE regress_weir_admin, regress_weir_other, regress_weir_reader;
