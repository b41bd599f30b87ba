\echo Use "CREATE EXTENSION weir" to load this file. \quit

-- Roles are cluster-wide and outlive the extension: another database may use
-- them too.  A role that exists already is taken as it is.  DO with the
-- default language is avoided on purpose: the extension must install where
-- PL/pgSQL was removed, so a C function does it and is dropped again at once.
CREATE FUNCTION weir._ensure_role(name) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_ensure_role' LANGUAGE C STRICT;
SELECT weir._ensure_role('weir_admin'),
	   weir._ensure_role('weir_operator'),
	   weir._ensure_role('weir_reader');
DROP FUNCTION weir._ensure_role(name);

COMMENT ON SCHEMA weir IS 'Control plane of a lakehouse: pipelines, runs, restart logic';
GRANT USAGE ON SCHEMA weir TO weir_admin, weir_operator, weir_reader;
