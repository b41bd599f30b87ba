/*-------------------------------------------------------------------------
 * progress.c
 *	  weir.progress: how far a run is, in one row.
 *
 * Runs in the session of a client and only reads; locks nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"

#include "access.h"
#include "runapi.h"

PG_FUNCTION_INFO_V1(weir_progress);

static const char progress_sql[] =
	"SELECT r.run_id, r.pipeline_name, r.status, coalesce(t.tasks, 0), coalesce(t.ended, 0), coalesce(t.by_status, '{}'), "
	"CASE WHEN r.ended_at IS NOT NULL THEN 100 ELSE coalesce(round(100.0 * t.ended / nullif(t.tasks, 0), 1), 0) END, "
	"coalesce(r.ended_at, clock_timestamp()) - r.started_at, "
	"CASE WHEN r.ended_at IS NULL THEN (SELECT e.expected_end FROM weir._expected(ARRAY[r.run_id]) e WHERE e.task_no = 0) END, "
	"s.task_name, clock_timestamp() - s.started_at, d.at, d.what "
	"FROM weir.run r "
	"CROSS JOIN LATERAL (SELECT sum(n.n)::bigint AS tasks, "
	"(sum(n.n) FILTER (WHERE n.status NOT IN ('waiting', 'ready', 'running')))::bigint AS ended, jsonb_object_agg(n.status, n.n) AS by_status "
	"FROM (SELECT t.status, count(*) AS n FROM weir.task_run t WHERE t.run_id = r.run_id AND t.item_no = 0 GROUP BY t.status) n) t "
	"LEFT JOIN LATERAL (SELECT t.task_name, t.started_at FROM weir.task_run t WHERE t.run_id = r.run_id AND t.status = 'running' "
	"ORDER BY t.started_at, t.task_run_id LIMIT 1) s ON true "
	/* Timeouts of attempts, and of tasks: those of tasks between two attempts are in their task run. */
	"LEFT JOIN LATERAL (SELECT k.at, k.what FROM ("
	"SELECT r.deadline AS at, 'run' AS what, 1 AS n UNION ALL "
	"SELECT t.deadline, 'task ' || t.task_name, 2 FROM weir.task_run t WHERE t.run_id = r.run_id AND t.status = 'ready' UNION ALL "
	"SELECT a.task_deadline, 'task ' || t.task_name, 2 FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) "
	"WHERE a.run_id = r.run_id AND a.status IN ('intended', 'started') UNION ALL "
	"SELECT a.deadline, format('attempt %s of %s', a.attempt_no, t.task_name), 3 FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) "
	"WHERE a.run_id = r.run_id AND a.status IN ('intended', 'started')) k "
	"WHERE r.status = 'running' AND k.at IS NOT NULL ORDER BY k.at, k.n, k.what LIMIT 1) d ON true "
	"WHERE r.run_id = $1";

/* progress(run_id) */
Datum
weir_progress(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID};
	int64		run_id = run_arg_id(fcinfo, 0);
	WeirScope	scope;
	Datum		values[] = {Int64GetDatum(run_id)};
	HeapTupleHeader row;

	weir_enter(&scope);
	weir_require_reader_or_owner(scope.caller, run_read(run_id).owner, psprintf("see run " INT64_FORMAT, run_id));
	if (weir_spi(progress_sql, 1, types, values, NULL) != 1)
		run_unknown(run_id);
	row = SPI_returntuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	weir_leave(&scope);
	return HeapTupleHeaderGetDatum(row);
}
