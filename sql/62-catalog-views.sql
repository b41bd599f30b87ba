-- What the user has defined, as people read it, with row rules like those of
-- the run log.  How a connection signs in and its options (which may hold
-- headers) are for weir_admin and for whom it belongs to; everybody else who
-- sees the connection sees null there.  No view shows the value of a secret.

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
