/*-------------------------------------------------------------------------
 * advance.c
 *	  What follows from ended task runs: successors become ready or blocked,
 *	  runs end, and the pipeline learns what its next start must do.
 *
 * Same processes, locks and transaction as outcome.c, which calls this.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "access.h"
#include "engine.h"
#include "outcome.h"
#include "restart.h"

void
advance_succeeded(Datum run_ids, Datum task_nos)
{
	Oid			types[2] = {INT8ARRAYOID, INT4ARRAYOID};
	Datum		values[2] = {run_ids, task_nos};

	weir_spi("UPDATE weir.task_run s SET pending_upstream = s.pending_upstream - d.n, "
			 "status = CASE WHEN s.pending_upstream = d.n THEN 'ready' ELSE s.status END, "
			 "ready_at = CASE WHEN s.pending_upstream = d.n THEN clock_timestamp() END "
			 "FROM (SELECT e.run_id, td.task_no, count(*)::int AS n "
			 "FROM unnest($1, $2) e (run_id, task_no) JOIN weir.run r USING (run_id) "
			 "JOIN weir.task_dependency td ON td.pipeline_id = r.pipeline_id AND td.version = r.version AND td.upstream_no = e.task_no "
			 "GROUP BY 1, 2) d "
			 "WHERE s.run_id = d.run_id AND s.task_no = d.task_no AND s.status = 'waiting'",
			 2, types, values, NULL);
}

void
advance_failed(Datum run_ids, Datum task_nos)
{
	Oid			types[2] = {INT8ARRAYOID, INT4ARRAYOID};
	Datum		values[2] = {run_ids, task_nos};

	weir_spi("WITH RECURSIVE down (run_id, pipeline_id, version, task_no) AS ("
			 "SELECT e.run_id, r.pipeline_id, r.version, td.task_no "
			 "FROM unnest($1, $2) e (run_id, task_no) JOIN weir.run r USING (run_id) "
			 "JOIN weir.task_dependency td ON td.pipeline_id = r.pipeline_id AND td.version = r.version AND td.upstream_no = e.task_no "
			 "UNION SELECT d.run_id, d.pipeline_id, d.version, td.task_no FROM down d "
			 "JOIN weir.task_dependency td ON td.pipeline_id = d.pipeline_id AND td.version = d.version AND td.upstream_no = d.task_no) "
			 "UPDATE weir.task_run s SET status = 'blocked', ended_at = clock_timestamp() FROM down "
			 "WHERE s.run_id = down.run_id AND s.task_no = down.task_no AND s.status = 'waiting'",
			 2, types, values, NULL);
}

/* How the tasks of a run ended. */
typedef struct RunTally
{
	RunStatus	status;			/* now */
	bool		timed_out;		/* cancelling because of the run timeout */
	int64		row_audit_id;
	int			failed;
	int			cancelled;
	RestartEnd	end;
} RunTally;

/* False while something in the run is live, or if it ended already. */
static bool
read_tally(int64 run_id, RunTally *tally)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	char	   *start;

	if (weir_spi("SELECT r.status, coalesce(r.cancel_reason = '" RUN_TIMEOUT_REASON "', false), r.row_audit_id, r.start_status::text, "
				 "count(*) FILTER (WHERE t.status IN ('failed', 'timed_out')), "
				 "count(*) FILTER (WHERE t.status IN ('cancelled', 'blocked')), "
				 "count(*) FILTER (WHERE t.phase = 'land'), "
				 "count(*) FILTER (WHERE t.phase = 'land' AND t.status IN ('succeeded', 'reused')), "
				 "count(*) FILTER (WHERE t.phase <> 'land' AND t.status IN ('failed', 'timed_out', 'cancelled')) "
				 "FROM weir.run r LEFT JOIN weir.task_run t USING (run_id) "
				 "WHERE r.run_id = $1 AND r.status IN ('running', 'cancelling') AND NOT EXISTS "
				 "(SELECT FROM weir.task_run l WHERE l.run_id = $1 AND l.status IN ('waiting', 'ready', 'running')) "
				 "GROUP BY r.run_id",
				 1, types, values, NULL) != 1)
		return false;

	memset(tally, 0, sizeof(*tally));
	if (!run_status_parse(weir_spi_text(0, 1), &tally->status))
		elog(ERROR, "run " INT64_FORMAT " has an unknown status", run_id);
	tally->timed_out = weir_spi_bool(0, 2, NULL);
	tally->row_audit_id = weir_spi_int64(0, 3, NULL);
	start = weir_spi_text(0, 4);
	tally->failed = weir_spi_int64(0, 5, NULL);
	tally->cancelled = weir_spi_int64(0, 6, NULL);
	tally->end.resumed = start != NULL && start[0] == START_RESUME;
	tally->end.n_landing = weir_spi_int64(0, 7, NULL);
	tally->end.n_landing_succeeded = weir_spi_int64(0, 8, NULL);
	tally->end.failed_after_landing = weir_spi_int64(0, 9, NULL) > 0;
	return true;
}

/*
 * A cancelled run whose last task succeeded all the same has succeeded: what
 * it should do is done.
 */
static RunStatus
final_status(const RunTally *tally)
{
	if (tally->failed == 0 && tally->cancelled == 0)
		return RUN_SUCCEEDED;
	if (tally->status == RUN_CANCELLING)
		return tally->timed_out ? RUN_TIMED_OUT : RUN_CANCELLED;
	return tally->failed > 0 ? RUN_FAILED : RUN_CANCELLED;
}

void
advance_finish_run(int64 run_id)
{
	RunTally	tally;
	RunStatus	status;
	NextLoadStatus next;
	Oid			types[4] = {INT8OID, TEXTOID, CHAROID, INT8OID};
	Datum		values[4];

	if (!read_tally(run_id, &tally))
		return;
	status = final_status(&tally);
	tally.end.succeeded = status == RUN_SUCCEEDED;

	/* Cancelled with landing done and nothing begun after it: still D, the rows are there. */
	if (tally.end.n_landing > 0 && tally.end.n_landing == tally.end.n_landing_succeeded)
		tally.end.failed_after_landing = true;
	next = restart_next_load(&tally.end);

	values[0] = Int64GetDatum(run_id);
	values[1] = CStringGetTextDatum(run_status_name(status));
	values[2] = CharGetDatum((char) next);
	values[3] = Int64GetDatum(tally.row_audit_id);
	weir_spi("UPDATE weir.run SET status = $2, next_load_status = $3, ended_at = clock_timestamp(), "
			 "error_message = CASE WHEN $2 = 'succeeded' THEN NULL ELSE coalesce((SELECT e.activity || ': ' || left(e.message, 500) "
			 "FROM weir.error e JOIN weir.task_run t ON t.task_run_id = e.task_run_id AND t.status IN ('failed', 'timed_out') "
			 "WHERE e.run_id = $1 ORDER BY e.error_id DESC LIMIT 1), cancel_reason) END "
			 "WHERE run_id = $1",
			 4, types, values, NULL);

	/* Only the latest run says what comes next; an older one that ends later cannot take back a success. */
	weir_spi("UPDATE weir.pipeline_state s SET next_load_status = $3, "
			 "origin_row_audit_id = CASE WHEN $3 = 'D' THEN $4 END, "
			 "last_success_run_id = CASE WHEN $2 = 'succeeded' THEN $1 ELSE s.last_success_run_id END "
			 "FROM weir.run r WHERE r.run_id = $1 AND s.pipeline_id = r.pipeline_id "
			 "AND (s.last_run_id = $1 OR ($2 <> 'succeeded' AND s.next_load_status = 'P'))",
			 4, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
}
