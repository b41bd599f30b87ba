-- What pg_dump keeps: definitions, restart state, watermarks, and the
-- sequences that make ids unique for ever.  The run log is not dumped.
SELECT pg_catalog.pg_extension_config_dump('weir.secret', ''),
	   pg_catalog.pg_extension_config_dump('weir.connection', ''),
	   pg_catalog.pg_extension_config_dump('weir.pipeline_id_seq', ''),
	   pg_catalog.pg_extension_config_dump('weir.pipeline', ''),
	   pg_catalog.pg_extension_config_dump('weir.pipeline_version', ''),
	   pg_catalog.pg_extension_config_dump('weir.parameter', ''),
	   pg_catalog.pg_extension_config_dump('weir.task', ''),
	   pg_catalog.pg_extension_config_dump('weir.task_dependency', ''),
	   pg_catalog.pg_extension_config_dump('weir.stage_mapping', ''),
	   pg_catalog.pg_extension_config_dump('weir.pipeline_state', ''),
	   pg_catalog.pg_extension_config_dump('weir.run_id_seq', ''),
	   pg_catalog.pg_extension_config_dump('weir.task_run_id_seq', ''),
	   pg_catalog.pg_extension_config_dump('weir.error_id_seq', ''),
	   pg_catalog.pg_extension_config_dump('weir.config_variable', ''),
	   pg_catalog.pg_extension_config_dump('weir.config_variable_history', '');
