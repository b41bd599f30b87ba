-- What auth may say: every way to sign in is checked when it is defined, with
-- the place of what is wrong, and nothing wrong is kept.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE FUNCTION public.regress_auth(auth jsonb, kind text DEFAULT 'http') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM weir.create_connection('x', kind, 'https://localhost', auth);
	RAISE EXCEPTION 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', message, nullif(detail, ''), nullif(hint, ''));
END $$;
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
SET ROLE regress_weir_admin;
SELECT weir.create_secret('sg_secret', 'value');
SELECT weir.create_secret('sg_password', 'value');

-- as it should be
SELECT weir.create_connection('sg_certificate', 'http', 'https://localhost',
	'{"type": "entra_certificate", "tenant_id": "contoso.example", "client_id": "11111111-2222-3333-4444-555555555555", "certificate": "sg_secret",
	  "private_key": "sg_secret", "password": "sg_password", "algorithm": "RS256", "send_chain": true, "authority": "https://localhost/", "scope": "api://a/.default"}');
SELECT weir.create_connection('sg_federated', 'databricks', 'https://localhost',
	'{"type": "entra_federated", "tenant_id": "t", "client_id": "c", "token": "sg_secret", "authority": "https://localhost"}');
SELECT weir.create_connection('sg_identity', 'keyvault', 'https://localhost', '{"type": "managed_identity"}');
SELECT weir.create_connection('sg_user', 'http', 'https://localhost',
	'{"type": "managed_identity", "source": "vm", "client_id": "11111111-2222-3333-4444-555555555555", "scope": "https://vault.azure.net/.default"}');
SELECT weir.create_connection('sg_dbx', 'databricks', 'https://localhost', '{"type": "databricks_oauth", "client_id": "c", "client_secret": "sg_secret"}');
SELECT weir.create_connection('sg_oauth', 'http', 'https://localhost',
	'{"type": "oauth_client_secret", "token_url": "https://localhost/token", "client_id": "c@d e", "client_secret": "sg_secret", "client_auth": "post", "scope": "a b", "audience": "x"}');
SELECT weir.create_connection('sg_vault', 'databricks', 'https://localhost', '{"type": "pat", "token": "keyvault:sg_identity/dbx-token/0123456789abcdef"}');

-- and as it should not
\set ECHO none
\pset format unaligned
\pset tuples_only on
SELECT 'certificate: ' || public.regress_auth('{"type": "entra_certificate", "tenant_id": "t", "client_id": "c", "authority": "https://localhost", "scope": "s"}'::jsonb || change)
FROM (VALUES ('{}'::jsonb), ('{"certificate": "absent"}'), ('{"certificate": "-----BEGIN CERTIFICATE-----"}'), ('{"certificate": 5}'),
	('{"certificate": "sg_secret", "private_key": "absent"}'), ('{"certificate": "sg_secret", "algorithm": "ES256"}'),
	('{"certificate": "sg_secret", "send_chain": "yes"}'), ('{"certificate": "sg_secret", "thumbprint": "x"}'),
	('{"certificate": "sg_secret", "tenant_id": "a/b"}'), ('{"certificate": "sg_secret", "tenant_id": "a..b"}'),
	('{"certificate": "sg_secret", "client_id": "a b"}'), ('{"certificate": "sg_secret", "client_id": ""}'),
	('{"certificate": "sg_secret", "scope": "a b"}'), ('{"certificate": "sg_secret", "authority": "https://login.microsoftonline.com"}'),
	('{"certificate": "sg_secret", "authority": "https://localhost/?x"}'), ('{"certificate": "sg_secret", "authority": "http://localhost"}')) AS v (change);
SELECT 'federated: ' || public.regress_auth('{"type": "entra_federated", "tenant_id": "t", "client_id": "c", "authority": "https://localhost"}'::jsonb || change)
FROM (VALUES ('{"token": "sg_secret"}'::jsonb), ('{"scope": "s"}'), ('{"scope": "s", "token": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"}'), ('{"token": "sg_secret", "token_file": "/x"}')) AS v (change);
SELECT 'identity: ' || public.regress_auth('{"type": "managed_identity"}'::jsonb || change)
FROM (VALUES ('{}'::jsonb), ('{"scope": "s", "source": "cloud_shell"}'), ('{"scope": "s", "source": "app_service"}'), ('{"scope": "s", "source": "arc"}'),
	('{"scope": "s", "source": "arc", "client_id": "c"}'), ('{"scope": "s", "client_id": "c", "object_id": "o"}'), ('{"scope": "s", "client_secret": "sg_secret"}')) AS v (change);
SELECT 'oauth: ' || public.regress_auth('{"type": "oauth_client_secret", "client_id": "c", "client_secret": "sg_secret"}'::jsonb || change)
FROM (VALUES ('{}'::jsonb), ('{"token_url": "https://elsewhere.example/token"}'), ('{"token_url": "https://localhost/token", "client_auth": "jwt"}'),
	('{"token_url": "https://localhost/token", "client_secret": "absent"}')) AS v (change);
SELECT 'databricks: ' || public.regress_auth('{"type": "databricks_oauth", "client_id": "c", "client_secret": "sg_secret"}'::jsonb || change, 'databricks')
FROM (VALUES ('{"authority": "https://localhost"}'::jsonb), ('{"client_secret": "dose1234"}'), ('{"client_id": "a:b"}')) AS v (change);
SELECT 'signed: ' || public.regress_auth(auth) FROM (VALUES ('{"type": "shared_key", "key": "sg_secret"}'::jsonb), ('{"type": "sas", "token": "sg_secret"}')) AS v (auth);
SELECT 'vault: ' || public.regress_auth(jsonb_build_object('type', 'pat', 'token', reference), 'databricks')
FROM (VALUES ('keyvault:'), ('keyvault:sg_identity'), ('keyvault:sg_identity/'), ('keyvault:sg_identity/a_b'), ('keyvault:sg_identity/a/b/c'), ('keyvault:/a'),
	('keyvault:sg_identity/' || repeat('x', 128)), ('keyvault:sg_dbx/a'), ('keyvault:nowhere/a'), ('keyvault:x/a')) AS v (reference);
SELECT 'metadata: ' || public.regress_auth(jsonb_build_object('type', 'oauth_client_secret', 'token_url', url, 'client_id', 'c', 'client_secret', 'sg_secret'))
FROM (VALUES ('http://169.254.169.254/metadata/identity/oauth2/token'), ('https://169.254.169.254/metadata/identity/oauth2/token')) AS v (url);
\pset format aligned
\pset tuples_only off
\set ECHO all

-- no way in that leads around in a circle
SELECT weir.create_connection('sg_vault_b', 'keyvault', 'https://localhost',
	'{"type": "entra_client_secret", "tenant_id": "t", "client_id": "c", "client_secret": "keyvault:sg_identity/b", "authority": "https://localhost"}');
SELECT weir.create_secret('sg_in_vault', reference => 'keyvault:sg_vault_b/c');
SELECT weir.create_connection('sg_vault_c', 'keyvault', 'https://localhost', '{"type": "bearer", "token": "sg_in_vault"}');
SELECT weir.alter_connection('sg_identity', auth => '{"type": "bearer", "token": "keyvault:sg_identity/self"}');
SELECT weir.alter_connection('sg_identity', auth => '{"type": "bearer", "token": "keyvault:sg_vault_b/circle"}');
SELECT weir.alter_connection('sg_identity', auth => '{"type": "bearer", "token": "sg_in_vault"}');
SELECT weir.alter_secret('sg_in_vault', reference => 'keyvault:sg_vault_c/circle');
SELECT weir.create_connection('sg_vault_d', 'keyvault', 'https://localhost', '{"type": "bearer", "token": "keyvault:sg_vault_c/four"}');

-- what is used stays
SELECT weir.drop_connection('sg_identity');
SELECT weir.drop_connection('sg_vault_b');
SELECT weir.drop_secret('sg_in_vault');
SELECT weir.create_connection('x', 'http', 'https://localhost', '{"type": "bearer", "token": "keyvault:sg_vault_d/five"}');
-- a changed reference is a changed connection
RESET ROLE;
SELECT changed_at AS before FROM weir.connection WHERE name = 'sg_vault_c' \gset
SELECT weir.alter_secret('sg_in_vault', reference => 'keyvault:sg_identity/c');
SELECT changed_at > :'before' AS touched FROM weir.connection WHERE name = 'sg_vault_c';

-- the machine's identity is not everybody's
ALTER SYSTEM SET weir.identity_endpoint = '';
SELECT pg_reload_conf();
\c -
SET ROLE regress_weir_admin;
SELECT weir.create_connection('x', 'keyvault', 'https://localhost', '{"type": "managed_identity"}');
-- PostgreSQL words it differently from version to version
\set VERBOSITY sqlstate
SHOW weir.identity_endpoint;
\set VERBOSITY default
RESET ROLE;
ALTER SYSTEM SET weir.identity_endpoint = 'http://127.0.0.2:1';
SELECT pg_reload_conf();
\c -
SET ROLE regress_weir_admin;
SELECT weir.create_connection('x', 'keyvault', 'https://localhost', '{"type": "managed_identity"}');
RESET ROLE;
ALTER SYSTEM RESET weir.identity_endpoint;
SELECT pg_reload_conf();

SELECT name FROM weir.connection WHERE name IN ('x', 'sg_vault_d');
SELECT count(weir.drop_connection(name)) FROM unnest(ARRAY['sg_certificate', 'sg_federated', 'sg_user', 'sg_dbx', 'sg_oauth', 'sg_vault', 'sg_vault_d', 'sg_vault_c']) AS name;
SELECT weir.drop_secret('sg_in_vault'), weir.drop_connection('sg_vault_b');
SELECT weir.drop_connection('sg_identity');
SELECT weir.drop_secret('sg_secret'), weir.drop_secret('sg_password');
DROP FUNCTION public.regress_auth;
DROP ROLE regress_weir_admin;
