CREATE FUNCTION weir._request_limits(kind text, options jsonb,
	OUT reads_per_second double precision, OUT reads_burst integer, OUT writes_per_second double precision, OUT writes_burst integer)
	AS 'MODULE_PATHNAME', 'weir_request_limits' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._request_limits(text, jsonb) IS 'Requests a second that a connection of this kind with these options may send, and so many at once; null for no limit';
REVOKE ALL ON FUNCTION weir._request_limits(text, jsonb) FROM PUBLIC;
-- a view calls it as whoever reads the view
GRANT EXECUTE ON FUNCTION weir._request_limits(text, jsonb) TO PUBLIC;

CREATE FUNCTION weir._limit_group(name text, kind text, base_url text, auth jsonb, options jsonb) RETURNS text
	AS 'MODULE_PATHNAME', 'weir_limit_group' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION weir._limit_group(text, text, text, jsonb, jsonb) IS 'Connections for which this is the same take their requests out of the same buckets';
REVOKE ALL ON FUNCTION weir._limit_group(text, text, text, jsonb, jsonb) FROM PUBLIC;
-- likewise
GRANT EXECUTE ON FUNCTION weir._limit_group(text, text, text, jsonb, jsonb) TO PUBLIC;

CREATE VIEW weir.connections WITH (security_barrier) AS
SELECT c.name, c.kind, c.base_url, c.auth->>'type' AS sign_in,
	CASE WHEN m.may_change THEN c.auth END AS auth,
	CASE WHEN m.may_change THEN c.options END AS options,
	c.options->>'proxy' AS proxy,
	c.options ? 'ca_certificate' AS has_own_authority,
	(c.options->>'max_concurrency')::numeric::bigint AS max_concurrency, (c.options->>'max_starts_per_minute')::numeric::bigint AS max_starts_per_minute,
	l.reads_per_second, l.reads_burst, l.writes_per_second, l.writes_burst,
	nullif(array_remove(array_agg(c.name) OVER (PARTITION BY weir._limit_group(c.name, c.kind, c.base_url, c.auth, c.options)
		ORDER BY c.name ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING), c.name), '{}') AS shares_limits_with,
	r.until AS reads_wait_until, w.until AS writes_wait_until, o.opened_at AS unreachable_since, e.retry_at AS asked_to_wait_until,
	c.description, c.owner, c.created_at, c.changed_at
FROM weir.connection c
	CROSS JOIN LATERAL (SELECT pg_has_role('weir_admin', 'USAGE') OR pg_has_role(c.owner, 'USAGE') AS may_change OFFSET 0) m
	CROSS JOIN LATERAL weir._request_limits(c.kind, c.options) l
	LEFT JOIN weir.throttle r ON r.connection_name = c.name AND r.requests = 'reads' AND r.until > clock_timestamp()
	LEFT JOIN weir.throttle w ON w.connection_name = c.name AND w.requests = 'writes' AND w.until > clock_timestamp()
	LEFT JOIN weir.circuit o ON o.connection_name = c.name AND NOT o.is_asked
	LEFT JOIN weir.circuit e ON e.connection_name = c.name AND e.is_asked AND e.retry_at > clock_timestamp()
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR m.may_change
ORDER BY c.name;
COMMENT ON VIEW weir.connections IS 'Connections: where they lead, through what, how many requests they may send, and what waits for that';
COMMENT ON COLUMN weir.connections.name IS 'Name by which tasks refer to the connection';
COMMENT ON COLUMN weir.connections.kind IS 'adf, databricks, fabric, http, keyvault, redis or storage';
COMMENT ON COLUMN weir.connections.base_url IS 'Address including a path prefix';
COMMENT ON COLUMN weir.connections.sign_in IS 'Type of its sign-in, such as entra_client_secret; null: none';
COMMENT ON COLUMN weir.connections.auth IS 'How to sign in, with names of secrets, for weir_admin and the owner; else null';
COMMENT ON COLUMN weir.connections.options IS 'Settings of the kind, for weir_admin and the owner; else null';
COMMENT ON COLUMN weir.connections.proxy IS 'Proxy that everything goes through; null for none';
COMMENT ON COLUMN weir.connections.has_own_authority IS 'Whether it trusts authorities of its own instead of the system''s';
COMMENT ON COLUMN weir.connections.max_concurrency IS 'Attempts that may go on at once; null for any number';
COMMENT ON COLUMN weir.connections.max_starts_per_minute IS 'Attempts that may start within a minute; null for any number';
COMMENT ON COLUMN weir.connections.reads_per_second IS 'Requests with GET or HEAD a second, looks at runs among them; null for any number';
COMMENT ON COLUMN weir.connections.reads_burst IS 'So many of them at once after a rest';
COMMENT ON COLUMN weir.connections.writes_per_second IS 'Other requests a second; null for any number';
COMMENT ON COLUMN weir.connections.writes_burst IS 'So many of them at once after a rest';
COMMENT ON COLUMN weir.connections.shares_limits_with IS 'Connections whose requests count together with its own: same limit_group, or the same by what the service counts; null for none';
COMMENT ON COLUMN weir.connections.reads_wait_until IS 'When the last of the reads that wait for their turn is sent; null if none waits';
COMMENT ON COLUMN weir.connections.writes_wait_until IS 'When the last of the writes that wait for their turn is sent; null if none waits';
COMMENT ON COLUMN weir.connections.unreachable_since IS 'Since when its service cannot be reached, see weir.circuits; null if it can';
COMMENT ON COLUMN weir.connections.asked_to_wait_until IS 'Its service asked for no request before this (Retry-After), see weir.circuits; null if it did not';
COMMENT ON COLUMN weir.connections.description IS 'What the connection is for';
COMMENT ON COLUMN weir.connections.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.connections.created_at IS 'When it was created';
COMMENT ON COLUMN weir.connections.changed_at IS 'When it last changed';
GRANT SELECT ON weir.connections TO PUBLIC;

CREATE FUNCTION weir.resume_connection(connection text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'weir_resume_connection' LANGUAGE C;
COMMENT ON FUNCTION weir.resume_connection(text) IS
	'Send through the connection again at once, although its service asked for no request before a moment to come (Retry-After) or could not be reached; pauses of its task runs before another attempt end, too. Answers whether weir.circuits said so of it';
REVOKE ALL ON FUNCTION weir.resume_connection(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir.resume_connection(text) TO weir_operator, weir_admin;
