CREATE PROCEDURE weir.conduct(timeout interval DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'weir_conduct' LANGUAGE C;
COMMENT ON PROCEDURE weir.conduct(interval) IS 'Move runs forward in this session until nothing is left to do, for servers where weir is not preloaded';
REVOKE ALL ON PROCEDURE weir.conduct(interval) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE weir.conduct(interval) TO weir_admin;
