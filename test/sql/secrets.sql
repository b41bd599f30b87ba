-- Secrets: stored encrypted or referred to, never shown.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_weir_admin LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_other LOGIN IN ROLE weir_admin;
CREATE ROLE regress_weir_operator LOGIN IN ROLE weir_operator;

-- messages with paths of this machine taken out
CREATE FUNCTION public.regress_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	message := replace(message, split_part(current_setting('weir.secret_directories'), ',', 1), 'SECRETS');
	message := replace(message, current_setting('data_directory'), 'DATA');
	message := replace(message, regexp_replace(current_setting('data_directory'), '/[^/]*$', ''), 'PARENT');
	RETURN SQLSTATE || ' ' || message || E'\nHINT: ' || hint;
END
$$;
GRANT EXECUTE ON FUNCTION public.regress_try(text) TO PUBLIC;

SET ROLE regress_weir_admin;

-- what cannot be a secret
SELECT weir.create_secret(NULL, 'value');
SELECT weir.create_secret('neither');
SELECT weir.create_secret('both', 'value', 'env:WEIR_SECRET_X');
SELECT weir.create_secret('', 'value');
SELECT weir.create_secret('white space', 'value');
SELECT weir.create_secret('1st', 'value');
SELECT weir.create_secret(repeat('n', 64), 'value');
SELECT weir.create_secret('empty', '');
SELECT weir.create_secret('long', repeat('v', 65537));
SELECT weir.create_secret('described', 'value', description => repeat('d', 10001));

-- a value, and what is kept of it
SELECT weir.create_secret('token_a', 'the very secret value', description => 'for a test');
SELECT weir.create_secret('token_b', 'the very secret value');
SELECT weir.create_secret('token_a', 'another value');
SELECT weir.create_secret('longest', repeat('v', 65536));
RESET ROLE;
SELECT name, reference, octet_length(ciphertext) AS bytes, get_byte(ciphertext, 0) AS format,
	position('secret'::bytea IN ciphertext) AS clear, description, owner
FROM weir.secret ORDER BY name;
-- a nonce is used once, and both were sealed under one key
SELECT count(DISTINCT substr(ciphertext, 6, 12)) AS nonces, count(DISTINCT substr(ciphertext, 2, 4)) AS keys
FROM weir.secret;

-- the statement that carried it is not shown to anybody
SELECT weir.create_secret('token_c', 'the very secret value'),
	(SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS query;
SELECT weir.alter_secret('token_c', 'changed'),
	(SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS query;
-- nor quoted by an error, however the statement went wrong
SET ROLE regress_weir_admin;
SELECT weir.create_secret('token_d' 'the very secret value');
SELECT weir.create_secret('token_d', "the very secret value");
SELECT weir.create_secret('token_d', 'the very secret value'::int::text);
\set VERBOSITY terse
SELECT weir.create_secret('token_d', valeu => 'the very secret value');
\set VERBOSITY default

-- references
SELECT weir.create_secret('r', reference => 'keyvault:vault/name');
SELECT weir.create_secret('r', reference => 'the very secret value');
SELECT weir.create_secret('r', reference => 'env:HOME');
SELECT weir.create_secret('r', reference => 'env:');
SELECT weir.create_secret('r', reference => 'env:WEIR_SECRET_A B');
SELECT weir.create_secret('r', reference => 'env:WEIR_SECRET_A');
SELECT weir.create_secret('f', reference => 'file:relative');
SELECT weir.create_secret('f', reference => 'file:/etc/passwd');
SELECT weir.create_secret('f', reference => 'file:/nonexistent/file');
SELECT weir.create_secret('f', reference => 'file:/' || repeat('x', 4096));
RESET ROLE;
-- below the allowed directory, and out of it again
SELECT split_part(current_setting('weir.secret_directories'), ',', 1) AS directory \gset
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; ln -sf /etc/passwd ../weir_regress_link';
SELECT weir.create_secret('file_later', reference => 'file:' || :'directory' || '/not-there-yet');
SELECT public.regress_try(format('SELECT weir.create_secret(''f'', reference => %L)', 'file:' || :'directory' || '/../weir_regress_link')) AS escapes;
SELECT public.regress_try(format('SELECT weir.create_secret(''f'', reference => %L)', 'file:' || :'directory' || '/..')) AS escapes;
SELECT public.regress_try(format('SELECT weir.create_secret(''f'', reference => %L)', 'file:' || :'directory')) AS directory_itself;
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm ../weir_regress_link';

-- changes
SET ROLE regress_weir_admin;
SELECT weir.alter_secret('nowhere', 'value');
SELECT weir.alter_secret('token_a', 'value', 'env:WEIR_SECRET_A');
SELECT weir.alter_secret('token_a', reference => 'env:HOME');
SELECT weir.alter_secret('token_a', description => 'only described');
SELECT weir.alter_secret('token_b', reference => 'env:WEIR_SECRET_B');
SELECT weir.alter_secret('r', 'now a value');
RESET ROLE;
SELECT name, reference, octet_length(ciphertext) AS bytes, description, changed_at > created_at AS changed
FROM weir.secret WHERE name IN ('token_a', 'token_b', 'r') ORDER BY name;

-- who may
SET ROLE regress_weir_other;
SELECT weir.alter_secret('token_a', 'value');
SELECT weir.drop_secret('token_a');
SELECT * FROM weir.secret;
SET ROLE regress_weir_operator;
SELECT weir.create_secret('mine', 'value');
SELECT weir.drop_secret('token_a');
-- the words differ between releases
\set VERBOSITY sqlstate
SHOW weir.secret_key_file;
\set VERBOSITY default
RESET ROLE;

-- the key file
SELECT regexp_replace(current_setting('data_directory'), '/[^/]*$', '/weir_regress_key') AS key \gset
CREATE TABLE public.regress_path AS SELECT :'key'::text AS path;

ALTER SYSTEM SET weir.secret_key_file = '';
SELECT pg_reload_conf();
\c -
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
ALTER SYSTEM SET weir.secret_key_file = 'relative';
SELECT pg_reload_conf();
\c -
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
ALTER SYSTEM SET weir.secret_key_file = '/nonexistent/key';
SELECT pg_reload_conf();
\c -
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
-- inside the data directory
SELECT current_setting('data_directory') || '/PG_VERSION' AS inside \gset
ALTER SYSTEM SET weir.secret_key_file = :'inside';
SELECT pg_reload_conf();
\c -
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
-- readable by others, then of the wrong length, then another key
SELECT path AS key FROM public.regress_path \gset
COPY (SELECT repeat('0f', 32)) TO PROGRAM 'cat >../weir_regress_key; chmod 0640 ../weir_regress_key';
ALTER SYSTEM SET weir.secret_key_file = :'key';
SELECT pg_reload_conf();
\c -
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
COPY (SELECT repeat('0f', 31)) TO PROGRAM 'cat >../weir_regress_key; chmod 0600 ../weir_regress_key';
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
COPY (SELECT repeat('xy', 32)) TO PROGRAM 'cat >../weir_regress_key';
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
COPY (SELECT repeat('0f', 32)) TO PROGRAM 'cat >../weir_regress_key';
SELECT public.regress_try($$SELECT weir.create_secret('k', 'value')$$);
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; printf 0123456789abcdefghijklmnopqrstuv >../weir_regress_key';
SELECT public.regress_try($$SELECT weir.create_secret('k2', 'value')$$);
SELECT count(DISTINCT substr(ciphertext, 2, 4)) AS keys FROM weir.secret WHERE name IN ('k', 'k2', 'token_a');
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm ../weir_regress_key';
ALTER SYSTEM RESET weir.secret_key_file;
SELECT pg_reload_conf();
\c -

-- dropping
SELECT weir.drop_secret('nowhere');
SELECT weir.drop_secret(NULL);
SELECT count(weir.drop_secret(name)) AS dropped FROM (SELECT name FROM weir.secret ORDER BY name) AS s;
SELECT * FROM weir.secret;
DROP TABLE public.regress_path;
DROP FUNCTION public.regress_try(text);
DROP ROLE regress_weir_admin, regress_weir_other, regress_weir_operator;
