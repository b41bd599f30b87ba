-- Is everything alive?  One view answers, also where weir is not preloaded.

CREATE FUNCTION weir._installed() RETURNS void
	AS 'MODULE_PATHNAME', 'weir_installed' LANGUAGE C;
COMMENT ON FUNCTION weir._installed() IS 'Last act of CREATE EXTENSION: asks for a conductor';
REVOKE ALL ON FUNCTION weir._installed() FROM PUBLIC;

CREATE FUNCTION weir._processes(OUT component text, OUT state text, OUT detail text, OUT pid integer, OUT since timestamptz, OUT last_error text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'weir_processes' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 3;
COMMENT ON FUNCTION weir._processes() IS 'Processes of weir as shared memory knows them; read weir.status instead';
REVOKE ALL ON FUNCTION weir._processes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir._processes() TO weir_reader, weir_operator, weir_admin;

CREATE VIEW weir.status WITH (security_barrier) AS
SELECT component, state, detail, pid, since, last_error
FROM weir._processes()
UNION ALL
SELECT 'queued_runs', CASE WHEN count(*) = 0 THEN 'none' ELSE 'waiting' END,
	count(*) || ' queued, ' || count(*) FILTER (WHERE p.is_paused) || ' of paused pipelines',
	NULL, min(r.queued_at), NULL
FROM weir.run r
	LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id
WHERE r.live = 'q'
UNION ALL
SELECT 'active_runs', CASE WHEN count(*) = 0 THEN 'none' ELSE 'running' END,
	count(*) FILTER (WHERE NOT is_external) || ' of weir, ' || count(*) FILTER (WHERE is_external) || ' of outside orchestrators, '
		|| count(*) FILTER (WHERE status = 'cancelling') || ' being cancelled',
	NULL, min(started_at), NULL
FROM weir._active JOIN weir.run USING (run_id)
UNION ALL
SELECT 'ready_task_runs', CASE WHEN count(*) = 0 THEN 'none' ELSE 'waiting' END,
	count(*) || ' ready, ' || count(*) FILTER (WHERE not_before > clock_timestamp()) || ' of them waiting for their retry',
	NULL, min(ready_at), NULL
FROM weir._active_task_run
WHERE status = 'ready'
UNION ALL
SELECT 'requests', CASE WHEN count(*) = 0 THEN 'none' ELSE 'waiting' END,
	count(*) || ' not taken in yet', NULL, min(requested_at), NULL
FROM weir.request
UNION ALL
SELECT 'connections', CASE WHEN count(*) = 0 THEN 'reachable' ELSE 'circuit open' END,
	CASE WHEN count(*) > 0 THEN string_agg(format('%s: next try at %s', connection_name, retry_at), '; ' ORDER BY connection_name)
		ELSE 'as far as they were tried' END,
	NULL, min(opened_at), (array_agg(last_error ORDER BY opened_at DESC))[1]
FROM weir.circuit
UNION ALL
SELECT 'paused_pipelines', CASE WHEN count(*) = 0 THEN 'none' ELSE 'paused' END,
	count(*) || ' paused', NULL, NULL, NULL
FROM weir.pipeline
WHERE is_paused
UNION ALL
SELECT 'retention', CASE WHEN o.old > 0 THEN 'waiting' WHEN n.pruned_at IS NULL THEN 'not yet' ELSE 'done' END,
	CASE WHEN o.old < 500 THEN o.old::text ELSE '500 or more' END || ' runs are past their age, '
		|| n.removed_runs || ' were removed so far', NULL, n.pruned_at, NULL
FROM weir.retention n, weir._prunable() AS o (old);
COMMENT ON VIEW weir.status IS 'Is everything alive? Processes of weir in this database and what waits for them';
COMMENT ON COLUMN weir.status.component IS 'launcher, conductor, sql_workers, queued_runs, active_runs, ready_task_runs, requests, connections, paused_pipelines or retention';
COMMENT ON COLUMN weir.status.state IS 'State of the component in a word or two';
COMMENT ON COLUMN weir.status.detail IS 'Counts, and what to do if something is missing';
COMMENT ON COLUMN weir.status.pid IS 'Process id';
COMMENT ON COLUMN weir.status.since IS 'When the process started, since when the oldest waits, or when the log was last pruned';
COMMENT ON COLUMN weir.status.last_error IS 'Last error and when it happened';
GRANT SELECT ON weir.status TO weir_reader, weir_operator, weir_admin;
