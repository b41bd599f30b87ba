-- What is defined, as people read it: who sees which connections, secrets
-- and stage mappings, and what of them.
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset format unaligned
\pset null '(null)'
CREATE ROLE regress_views_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_views_other LOGIN IN ROLE weir_admin;
CREATE ROLE regress_views_operator LOGIN IN ROLE weir_operator;
CREATE ROLE regress_views_reader LOGIN IN ROLE weir_reader;
CREATE ROLE regress_views_nobody LOGIN;
GRANT USAGE ON SCHEMA weir TO regress_views_nobody;
SET ROLE regress_views_admin;
SELECT weir.create_secret('v_value', 'the value itself', description => 'for the tests');
SELECT weir.create_secret('v_env', reference => 'env:WEIR_SECRET_V');
SELECT weir.create_connection('v_web', 'http', 'http://127.0.0.1:9', '{"type": "bearer", "token": "v_value"}', '{"max_concurrency": 2}', 'a service');
SELECT weir.create_connection('v_open', 'http', 'http://127.0.0.1:9');
SELECT weir.set_stage_mapping('V', NULL, 'lake', 'noop');
SELECT name, kind, base_url, sign_in, auth, options, description, owner FROM weir.connections;
SELECT name, kept, reference, description, owner FROM weir.secrets;
SELECT * FROM weir.stage_mappings WHERE stage_type = 'V';
-- the value is nowhere
SELECT count(*) FROM weir.secrets s WHERE s::text LIKE '%the value%';
SET ROLE regress_views_other;
SELECT name, auth FROM weir.connections;
SET ROLE regress_views_operator;
SELECT name, sign_in, auth, options FROM weir.connections;
SELECT count(*) FROM weir.secrets;
SELECT count(*) > 0 AS sees FROM weir.stage_mappings;
SET ROLE regress_views_reader;
SELECT name, sign_in, auth, options FROM weir.connections;
SELECT count(*) FROM weir.secrets;
-- a function of the caller's does not see rows the views hide
SET ROLE regress_views_nobody;
CREATE FUNCTION pg_temp.tell(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'sees %', $1; RETURN true; END $$;
SELECT count(*) FROM weir.connections WHERE pg_temp.tell(name);
SELECT count(*) FROM weir.secrets WHERE pg_temp.tell(name);
SELECT count(*) FROM weir.stage_mappings;
RESET ROLE;
GRANT regress_views_admin TO regress_views_nobody;
SET ROLE regress_views_nobody;
SELECT name, auth FROM weir.connections;
SELECT name FROM weir.secrets;
RESET ROLE;
SELECT weir.drop_connection('v_web'), weir.drop_connection('v_open');
SELECT weir.drop_secret('v_value'), weir.drop_secret('v_env');
SELECT weir.drop_stage_mapping('V', NULL, 'lake');
REVOKE USAGE ON SCHEMA weir FROM regress_views_nobody;
DROP FUNCTION pg_temp.tell(text);
DROP ROLE regress_views_admin, regress_views_other, regress_views_operator, regress_views_reader, regress_views_nobody;
