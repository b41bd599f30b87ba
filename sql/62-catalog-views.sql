-- What the user has defined, as people read it, with row rules like those of
-- the run log.  How a connection signs in and its options (which may hold
-- headers) are for weir_admin and for whom it belongs to; everybody else who
-- sees the connection sees null there.  No view shows the value of a secret.

CREATE VIEW weir.connections WITH (security_barrier) AS
SELECT c.name, c.kind, c.base_url, c.auth->>'type' AS sign_in,
	CASE WHEN m.may_change THEN c.auth END AS auth,
	CASE WHEN m.may_change THEN c.options END AS options,
	c.description, c.owner, c.created_at, c.changed_at
FROM weir.connection c
	CROSS JOIN LATERAL (SELECT pg_has_role('weir_admin', 'USAGE') OR pg_has_role(c.owner, 'USAGE') AS may_change OFFSET 0) m
WHERE (SELECT pg_has_role('weir_reader', 'USAGE') OR pg_has_role('weir_operator', 'USAGE') OR pg_has_role('weir_admin', 'USAGE'))
	OR m.may_change
ORDER BY c.name;
COMMENT ON VIEW weir.connections IS 'Connections: where something is and how to sign in';
COMMENT ON COLUMN weir.connections.name IS 'Name by which tasks refer to the connection';
COMMENT ON COLUMN weir.connections.kind IS 'adf, databricks, fabric, http, keyvault, redis or storage';
COMMENT ON COLUMN weir.connections.base_url IS 'Address including a path prefix, without a trailing slash';
COMMENT ON COLUMN weir.connections.sign_in IS 'Type of its sign-in, such as entra_client_secret; null: none';
COMMENT ON COLUMN weir.connections.auth IS 'How to sign in, with names of secrets, for weir_admin and the owner; else null';
COMMENT ON COLUMN weir.connections.options IS 'Settings of the kind, for weir_admin and the owner; else null';
COMMENT ON COLUMN weir.connections.description IS 'What the connection is for';
COMMENT ON COLUMN weir.connections.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.connections.created_at IS 'When it was created';
COMMENT ON COLUMN weir.connections.changed_at IS 'When it last changed';
GRANT SELECT ON weir.connections TO PUBLIC;

CREATE VIEW weir.secrets WITH (security_barrier) AS
SELECT s.name, CASE WHEN s.reference IS NULL THEN 'value' ELSE split_part(s.reference, ':', 1) END AS kept,
	s.reference, s.description, s.owner, s.created_at, s.changed_at
FROM weir.secret s
WHERE (SELECT pg_has_role('weir_admin', 'USAGE')) OR pg_has_role(s.owner, 'USAGE')
ORDER BY s.name;
COMMENT ON VIEW weir.secrets IS 'Secrets by name, for weir_admin and their owners; their values are nowhere to be read';
COMMENT ON COLUMN weir.secrets.name IS 'Name by which connections refer to the secret';
COMMENT ON COLUMN weir.secrets.kept IS 'Where its value is: value (encrypted in the database), env, file or keyvault';
COMMENT ON COLUMN weir.secrets.reference IS 'env:NAME, file:PATH or keyvault:CONNECTION/NAME; null when the value itself is stored';
COMMENT ON COLUMN weir.secrets.description IS 'What the secret is for';
COMMENT ON COLUMN weir.secrets.owner IS 'Who may change or drop it';
COMMENT ON COLUMN weir.secrets.created_at IS 'When it was created';
COMMENT ON COLUMN weir.secrets.changed_at IS 'When value or reference last changed';
GRANT SELECT ON weir.secrets TO PUBLIC;

CREATE VIEW weir.stage_mappings AS
SELECT stage_type, source, destination, kind, connection_name AS connection, phase, spec, settings
FROM weir.stage_mapping
ORDER BY stage_type, source, destination;
COMMENT ON VIEW weir.stage_mappings IS 'How stages of the job format become tasks';
COMMENT ON COLUMN weir.stage_mappings.stage_type IS 'The stage''s "type", such as ETL';
COMMENT ON COLUMN weir.stage_mappings.source IS 'The stage''s "source"; null matches any';
COMMENT ON COLUMN weir.stage_mappings.destination IS 'The stage''s "destination"; null matches any';
COMMENT ON COLUMN weir.stage_mappings.kind IS 'Kind of the task';
COMMENT ON COLUMN weir.stage_mappings.connection IS 'Connection of the task';
COMMENT ON COLUMN weir.stage_mappings.phase IS 'Phase of the task';
COMMENT ON COLUMN weir.stage_mappings.spec IS 'Spec of the task; {{stage.KEY}} is replaced by the stage''s own value when the pipeline is created';
COMMENT ON COLUMN weir.stage_mappings.settings IS 'Further members of the task, as in a definition';
GRANT SELECT ON weir.stage_mappings TO weir_reader, weir_operator, weir_admin;
