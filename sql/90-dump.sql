-- What pg_dump keeps: definitions, restart state, watermarks, and the
-- sequences that make ids unique for ever.  The run log is not dumped.
SELECT pg_catalog.pg_extension_config_dump('weir.secret', '');
SELECT pg_catalog.pg_extension_config_dump('weir.connection', '');
SELECT pg_catalog.pg_extension_config_dump('weir.pool', '');
SELECT pg_catalog.pg_extension_config_dump('weir.pipeline_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir.pipeline', '');
SELECT pg_catalog.pg_extension_config_dump('weir.pipeline_version', '');
SELECT pg_catalog.pg_extension_config_dump('weir.parameter', '');
SELECT pg_catalog.pg_extension_config_dump('weir.task', '');
SELECT pg_catalog.pg_extension_config_dump('weir.task_dependency', '');
SELECT pg_catalog.pg_extension_config_dump('weir.stage_mapping', '');
SELECT pg_catalog.pg_extension_config_dump('weir.pipeline_state', '');
SELECT pg_catalog.pg_extension_config_dump('weir.landing', '');
SELECT pg_catalog.pg_extension_config_dump('weir.run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir.task_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir.error_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('weir.config_variable', '');
SELECT pg_catalog.pg_extension_config_dump('weir.config_variable_history', '');
