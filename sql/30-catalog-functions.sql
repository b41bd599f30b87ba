-- Everything a user defines.  The functions know the true caller, check the
-- right themselves and then work as the owner of the extension.

CREATE FUNCTION weir.create_secret(name text, value text DEFAULT NULL, reference text DEFAULT NULL, description text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_create_secret' LANGUAGE C;
COMMENT ON FUNCTION weir.create_secret(text, text, text, text) IS 'Define a secret: a value, stored encrypted, or a reference env:NAME, file:/path or keyvault:CONNECTION/NAME';
CREATE FUNCTION weir.alter_secret(name text, value text DEFAULT NULL, reference text DEFAULT NULL, description text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_alter_secret' LANGUAGE C;
COMMENT ON FUNCTION weir.alter_secret(text, text, text, text) IS 'Change a secret; null leaves as it is';
CREATE FUNCTION weir.drop_secret(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_drop_secret' LANGUAGE C;
COMMENT ON FUNCTION weir.drop_secret(text) IS 'Drop a secret that no connection uses';

CREATE FUNCTION weir.create_connection(name text, kind text, base_url text DEFAULT NULL, auth jsonb DEFAULT '{}', options jsonb DEFAULT '{}', description text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_create_connection' LANGUAGE C;
COMMENT ON FUNCTION weir.create_connection(text, text, text, jsonb, jsonb, text) IS 'Define a connection of kind adf, databricks, fabric, http, keyvault or redis';
CREATE FUNCTION weir.alter_connection(name text, base_url text DEFAULT NULL, auth jsonb DEFAULT NULL, options jsonb DEFAULT NULL, description text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_alter_connection' LANGUAGE C;
COMMENT ON FUNCTION weir.alter_connection(text, text, jsonb, jsonb, text) IS 'Change a connection; null leaves as it is';
CREATE FUNCTION weir.drop_connection(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_drop_connection' LANGUAGE C;
COMMENT ON FUNCTION weir.drop_connection(text) IS 'Drop a connection that no pipeline uses';

CREATE FUNCTION weir.create_pool(name text, slots integer, description text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_create_pool' LANGUAGE C;
COMMENT ON FUNCTION weir.create_pool(text, integer, text) IS 'Define a pool of slots that tasks of any pipeline share';
CREATE FUNCTION weir.alter_pool(name text, slots integer DEFAULT NULL, description text DEFAULT NULL, new_owner name DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_alter_pool' LANGUAGE C;
COMMENT ON FUNCTION weir.alter_pool(text, integer, text, name) IS 'Change a pool; null leaves as it is. Fewer slots stop nothing that runs: new tasks wait until there is room';
CREATE FUNCTION weir.drop_pool(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_drop_pool' LANGUAGE C;
COMMENT ON FUNCTION weir.drop_pool(text) IS 'Drop a pool that no current version of a pipeline and no unfinished run uses';

CREATE FUNCTION weir.create_pipeline(name text, definition jsonb, description text DEFAULT NULL) RETURNS integer
	AS 'MODULE_PATHNAME', 'weir_create_pipeline' LANGUAGE C;
COMMENT ON FUNCTION weir.create_pipeline(text, jsonb, text) IS 'Define a pipeline owned by the current role; returns its version, 1';
CREATE FUNCTION weir.alter_pipeline(name text, definition jsonb) RETURNS integer
	AS 'MODULE_PATHNAME', 'weir_alter_pipeline' LANGUAGE C;
COMMENT ON FUNCTION weir.alter_pipeline(text, jsonb) IS 'Give a pipeline a new version and return its number; runs in flight keep theirs';
CREATE FUNCTION weir.alter_pipeline_owner(name text, new_owner name) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_alter_pipeline_owner' LANGUAGE C;
COMMENT ON FUNCTION weir.alter_pipeline_owner(text, name) IS 'Give a pipeline to another role; its SQL tasks then run as that role';
CREATE FUNCTION weir.drop_pipeline(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_drop_pipeline' LANGUAGE C;
COMMENT ON FUNCTION weir.drop_pipeline(text) IS 'Drop a pipeline that has no unfinished runs; its runs stay in the log';
CREATE FUNCTION weir.pause_pipeline(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_pause_pipeline' LANGUAGE C;
COMMENT ON FUNCTION weir.pause_pipeline(text) IS 'New runs of the pipeline stay queued';
CREATE FUNCTION weir.resume_pipeline(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_resume_pipeline' LANGUAGE C;
COMMENT ON FUNCTION weir.resume_pipeline(text) IS 'Queued runs of the pipeline may start again';
CREATE FUNCTION weir.describe_pipeline(name text, version integer DEFAULT NULL) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'weir_describe_pipeline' LANGUAGE C STABLE;
COMMENT ON FUNCTION weir.describe_pipeline(text, integer) IS 'The definition as it was given; of the current version unless one is named';

CREATE FUNCTION weir.set_stage_mapping(stage_type text, source text, destination text, kind text, connection text DEFAULT NULL, phase text DEFAULT 'transform', spec jsonb DEFAULT '{}', settings jsonb DEFAULT '{}') RETURNS void
	AS 'MODULE_PATHNAME', 'weir_set_stage_mapping' LANGUAGE C;
COMMENT ON FUNCTION weir.set_stage_mapping(text, text, text, text, text, text, jsonb, jsonb) IS 'Say what a stage of the job format does; a null source or destination matches any, the most specific mapping wins; settings are further members of the task: pool, pool_slots, priority, retry, timeout, task_timeout, on_uncertain';
CREATE FUNCTION weir.drop_stage_mapping(stage_type text, source text DEFAULT NULL, destination text DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'weir_drop_stage_mapping' LANGUAGE C;
COMMENT ON FUNCTION weir.drop_stage_mapping(text, text, text) IS 'Drop a stage mapping; pipelines made with it stay as they are';

REVOKE ALL ON FUNCTION
	weir.create_secret(text, text, text, text),
	weir.alter_secret(text, text, text, text),
	weir.drop_secret(text),
	weir.create_connection(text, text, text, jsonb, jsonb, text),
	weir.alter_connection(text, text, jsonb, jsonb, text),
	weir.drop_connection(text),
	weir.create_pool(text, integer, text),
	weir.alter_pool(text, integer, text, name),
	weir.drop_pool(text),
	weir.create_pipeline(text, jsonb, text),
	weir.alter_pipeline(text, jsonb),
	weir.alter_pipeline_owner(text, name),
	weir.drop_pipeline(text),
	weir.pause_pipeline(text),
	weir.resume_pipeline(text),
	weir.describe_pipeline(text, integer),
	weir.set_stage_mapping(text, text, text, text, text, text, jsonb, jsonb),
	weir.drop_stage_mapping(text, text, text)
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	weir.create_secret(text, text, text, text),
	weir.alter_secret(text, text, text, text),
	weir.drop_secret(text),
	weir.create_connection(text, text, text, jsonb, jsonb, text),
	weir.alter_connection(text, text, jsonb, jsonb, text),
	weir.drop_connection(text),
	weir.create_pool(text, integer, text),
	weir.alter_pool(text, integer, text, name),
	weir.drop_pool(text),
	weir.create_pipeline(text, jsonb, text),
	weir.alter_pipeline(text, jsonb),
	weir.alter_pipeline_owner(text, name),
	weir.drop_pipeline(text),
	weir.pause_pipeline(text),
	weir.resume_pipeline(text),
	weir.describe_pipeline(text, integer),
	weir.set_stage_mapping(text, text, text, text, text, text, jsonb, jsonb),
	weir.drop_stage_mapping(text, text, text)
	TO weir_admin;
GRANT EXECUTE ON FUNCTION weir.pause_pipeline(text), weir.resume_pipeline(text) TO weir_operator;
GRANT EXECUTE ON FUNCTION weir.describe_pipeline(text, integer) TO weir_operator, weir_reader;
