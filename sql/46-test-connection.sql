CREATE FUNCTION weir.test_connection(name text,
	OUT connection text, OUT kind text, OUT is_ok boolean, OUT address text, OUT name_lookup text, OUT tcp text, OUT proxy text, OUT tls text,
	OUT sign_in text, OUT permission text, OUT latency_ms double precision, OUT detail text, OUT hint text)
	AS 'MODULE_PATHNAME', 'weir_test_connection' LANGUAGE C;
COMMENT ON FUNCTION weir.test_connection(text) IS 'Try a connection: which step works (name, TCP, proxy, TLS, sign-in, permission), how long the service takes to answer, what is wrong and what to do; is_ok is null where the service does not tell whether tasks may do what they need; changes nothing';
REVOKE ALL ON FUNCTION weir.test_connection(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir.test_connection(text) TO weir_admin, weir_operator;
