/*-------------------------------------------------------------------------
 * intake.c
 *	  What the conductor takes in: requests of clients, queued runs, run
 *	  timeouts.
 *
 * Runs in the conductor's transaction.  Locks pipeline state -> run -> task
 * run.  A pipeline whose state a client holds is left for later
 * (defer_until_ms): the conductor waits for nobody.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "conductor_int.h"
#include "engine.h"
#include "foreach.h"
#include "outcome.h"
#include "restart.h"

#define INTAKE_BATCH	200		/* runs taken in by one transaction */
#define DEFER_MS		200

static void
defer(Conductor *c)
{
	c->defer_until_ms = Min(c->defer_until_ms, now_ms() + DEFER_MS);
}

/* First column of the result as an array of int64 in the current context. */
static int64 *
result_ids(uint64 n)
{
	int64	   *ids = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		ids[i] = weir_spi_int64(i, 1, NULL);
	return ids;
}

/* Everything in the run that has not started ends now; what runs is told to. */
void
intake_cancel_run(Conductor *c, int64 run_id, const char *reason, int why)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(run_id), CStringGetTextDatum(reason)};

	weir_spi("UPDATE weir.run SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE 'cancelling' END, "
			 "ended_at = CASE status WHEN 'queued' THEN clock_timestamp() END, cancel_reason = $2 "
			 "WHERE run_id = $1 AND status IN ('queued', 'running')",
			 2, types, values, NULL);
	weir_spi("UPDATE weir.task_run SET status = 'cancelled', ended_at = clock_timestamp() "
			 "WHERE run_id = $1 AND status IN ('waiting', 'ready')",
			 1, types, values, NULL);
	flights_end_run(c, run_id, why);
	foreach_settle_run(run_id);
	advance_finish_run(run_id);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	c->did_work = true;
}

/* A run whose pipeline was dropped is final; requests for it mean nothing any more. */
static bool
pipeline_exists(int64 run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};

	return weir_spi("SELECT 1 FROM weir.run r JOIN weir.pipeline_state s USING (pipeline_id) WHERE r.run_id = $1",
					1, types, values, NULL) == 1;
}

void
intake_requests(Conductor *c)
{
	uint64		n = weir_spi("SELECT request_id, run_id, action, "
							 "'cancelled by ' || requested_by || coalesce(': ' || reason, '') "
							 "FROM weir.request ORDER BY run_id, request_id LIMIT 500",
							 0, NULL, NULL, NULL);
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		Oid			types[1] = {INT8OID};
		Datum		values[1];
		bool		isnull;
		int64		run_id = DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull));
		char	   *action = SPI_getvalue(table->vals[i], table->tupdesc, 3);

		if (!outcome_lock_run(run_id, false) && pipeline_exists(run_id))
		{
			defer(c);
			continue;
		}
		if (strcmp(action, "cancel") == 0)
			intake_cancel_run(c, run_id, SPI_getvalue(table->vals[i], table->tupdesc, 4), SQL_CANCEL_ASKED);
		else
			rerun_take_in(run_id, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)));
		values[0] = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);
		weir_spi("DELETE FROM weir.request WHERE request_id = $1", 1, types, values, NULL);
		engine_wake_at_commit(ENGINE_WAKE_RUN);
		c->did_work = true;
	}
	if (n == 500)
		c->wake |= ENGINE_WAKE_REQUEST;
}

void
intake_run_deadlines(Conductor *c)
{
	uint64		n = weir_spi("SELECT run_id FROM weir.run WHERE status = 'running' AND deadline <= clock_timestamp() "
							 "ORDER BY run_id LIMIT 500", 0, NULL, NULL, NULL);
	int64	   *runs = result_ids(n);

	for (uint64 i = 0; i < n; i++)
	{
		if (outcome_lock_run(runs[i], false))
			intake_cancel_run(c, runs[i], RUN_TIMEOUT_REASON, SQL_CANCEL_TIMEOUT);
		else
			defer(c);
	}
}

/*
 * The tasks of a starting run.  After D, landing is taken over from the run
 * before.  Where its log is gone (a restored dump, retention) the D itself
 * says that all of it landed; only the outputs are lost then.  Tasks that are
 * disabled or not selected are skipped; dependencies on them, as on reused
 * ones, count as met.  Upstream
 * tasks are only looked at when there are such tasks: the planner takes the
 * tasks for few, and a join of them with themselves would be quadratic.
 */
static void
insert_task_runs(int64 run_id, StartCode code, int64 last_run_id)
{
	Oid			types[3] = {INT8OID, BOOLOID, INT8OID};
	Datum		values[3] = {Int64GetDatum(run_id), BoolGetDatum(code == START_RESUME), Int64GetDatum(last_run_id)};

	weir_spi("WITH v AS (SELECT pipeline_id, version, selected_tasks FROM weir.run WHERE run_id = $1), "
			 "t AS (SELECT d.*, p.status AS old_status, p.output AS old_output, p.rows_read AS old_read, p.rows_written AS old_written, "
			 "p.external_run_id AS old_external, p.external_url AS old_url, "
			 "$2 AND d.phase = 'land' AND CASE WHEN k.log_is_there THEN coalesce(p.status IN ('succeeded', 'reused'), false) ELSE true END AS reused, "
			 "CASE WHEN NOT d.is_enabled THEN 'disabled' WHEN NOT d.name = ANY (v.selected_tasks) THEN 'not_selected' END AS skip_reason, "
			 "CASE WHEN $2 AND d.phase <> 'land' AND p.kind = d.kind AND p.status IN ('failed', 'timed_out', 'cancelled') "
			 "THEN coalesce(jsonb_build_object('external_run_id', p.external_run_id), p.reference) "
			 "WHEN $2 AND p.kind = d.kind AND p.status IN ('blocked', 'cancelled') THEN p.reference END AS resume "
			 "FROM v JOIN weir.task d USING (pipeline_id, version) "
			 "CROSS JOIN (SELECT EXISTS (SELECT FROM weir.task_run o WHERE o.run_id = $3) AS log_is_there) k "
			 "LEFT JOIN weir.task_run p ON ($2 OR v.selected_tasks IS NOT NULL) AND p.run_id = $3 AND p.task_name = d.name AND p.item_no = 0 "
			 "WHERE d.parent_no IS NULL), "
			 "s AS (SELECT EXISTS (SELECT FROM t w WHERE w.reused OR w.skip_reason IS NOT NULL) AS any_ended), "
			 "x AS (SELECT t.*, u.pending, u.skipped, t.reused OR t.skip_reason = 'not_selected' AS keeps_old, "
			 "CASE WHEN t.reused THEN 'reused' WHEN t.skip_reason IS NOT NULL THEN 'skipped' "
			 "WHEN u.pending > 0 THEN 'waiting' ELSE 'ready' END AS status "
			 "FROM t, s, LATERAL (SELECT CASE WHEN s.any_ended THEN count(*) FILTER (WHERE NOT w.reused AND w.skip_reason IS NULL) "
			 "ELSE t.upstream_count END AS pending, "
			 "count(*) FILTER (WHERE (w.reused OR w.skip_reason IS NOT NULL) AND weir._edge_result(td.condition, 'reused', true) <> 'met') AS skipped "
			 "FROM weir.task_dependency td JOIN t w ON w.task_no = td.upstream_no "
			 "WHERE s.any_ended AND td.pipeline_id = t.pipeline_id AND td.version = t.version AND td.task_no = t.task_no) u) "
			 "INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, skip_reason, pending_upstream, skipped_upstream, "
			 "output, rows_read, rows_written, external_run_id, external_url, reference, ready_at, ended_at) "
			 "SELECT $1, x.task_no, x.name, x.kind, x.phase, CASE WHEN x.status = 'ready' AND x.skipped > 0 THEN 'waiting' ELSE x.status END, "
			 "CASE WHEN x.status = 'skipped' THEN x.skip_reason END, x.pending, x.skipped, "
			 "CASE WHEN x.keeps_old THEN x.old_output END, CASE WHEN x.keeps_old THEN x.old_read END, CASE WHEN x.keeps_old THEN x.old_written END, "
			 "CASE WHEN x.keeps_old THEN x.old_external END, CASE WHEN x.keeps_old THEN x.old_url END, "
			 "CASE WHEN x.resume->>'external_run_id' IS NOT NULL THEN x.resume END, "
			 "CASE WHEN x.status = 'ready' THEN clock_timestamp() END, CASE WHEN x.status IN ('reused', 'skipped') THEN clock_timestamp() END "
			 "FROM x",
			 3, types, values, NULL);
	advance_undecided(run_id);
}

/* Decide and start one queued run; its pipeline's state is locked. */
static void
start_run(int64 run_id)
{
	Oid			types[6] = {INT8OID, TEXTOID, CHAROID, INT8OID, INT8OID, BOOLOID};
	Datum		values[6];
	char		nulls[] = "      ";
	RestartInput in = {0};
	RestartDecision decision;
	int64		last_run_id,
				origin;
	bool		no_last;
	char	   *next;

	values[0] = Int64GetDatum(run_id);
	if (weir_spi("SELECT p.is_enabled, s.skip_once AND r.backfill_id IS NULL, CASE WHEN r.backfill_id IS NULL THEN s.next_load_status::text ELSE 'P' END, "
				 "s.last_run_id, s.origin_row_audit_id "
				 "FROM weir.run r JOIN weir.pipeline p USING (pipeline_id) JOIN weir.pipeline_state s USING (pipeline_id) "
				 "WHERE r.run_id = $1 AND r.status = 'queued'",
				 1, types, values, NULL) != 1)
		return;
	in.disabled = !weir_spi_bool(0, 1, NULL);
	in.skip_once = weir_spi_bool(0, 2, NULL);
	next = weir_spi_text(0, 3);
	if (!next_load_status_parse(next[0], &in.last_next_load))
		elog(ERROR, "pipeline of run " INT64_FORMAT " has an unknown next load status", run_id);
	last_run_id = weir_spi_int64(0, 4, &no_last);
	origin = weir_spi_int64(0, 5, NULL);
	in.other = RESTART_OTHER_NONE;
	decision = restart_decide(&in);

	values[1] = CStringGetTextDatum(start_code_runs(decision.code) ? "running" : "skipped");
	values[2] = CharGetDatum((char) decision.code);
	values[3] = Int64GetDatum(restart_row_audit_id(&decision, run_id, origin));
	values[4] = Int64GetDatum(last_run_id);
	nulls[4] = no_last ? 'n' : ' ';
	values[5] = BoolGetDatum(decision.skip_once_used);
	weir_spi("UPDATE weir.run r SET status = $2, start_status = $3, row_audit_id = $4, last_run_id = $5, started_at = clock_timestamp(), "
			 "ended_at = CASE WHEN $2 = 'skipped' THEN clock_timestamp() END, deadline = clock_timestamp() + v.run_timeout "
			 "FROM weir.pipeline_version v WHERE r.run_id = $1 AND v.pipeline_id = r.pipeline_id AND v.version = r.version",
			 6, types, values, nulls);
	weir_spi("UPDATE weir.pipeline_state s SET skip_once = s.skip_once AND NOT $6, "
			 "last_run_id = CASE WHEN $2 = 'running' AND NOT r.is_apart THEN $1 ELSE s.last_run_id END, "
			 "next_load_status = CASE WHEN $2 = 'skipped' AND NOT $6 AND s.next_load_status = 'C' THEN 'P' ELSE s.next_load_status END "
			 "FROM weir.run r WHERE r.run_id = $1 AND s.pipeline_id = r.pipeline_id",
			 6, types, values, nulls);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	if (start_code_runs(decision.code))
	{
		insert_task_runs(run_id, decision.code, last_run_id);
		advance_finish_run(run_id);
	}
}

void
intake_runs(Conductor *c)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(INTAKE_BATCH)};
	uint64		n;
	int64	   *runs;

	/* From pipeline to pipeline, and of each only as many as may start: a long queue costs nothing. */
	n = weir_spi("WITH RECURSIVE w (pipeline_id) AS ("
				 "(SELECT r.pipeline_id FROM weir.run r WHERE r.status = 'queued' ORDER BY r.pipeline_id LIMIT 1) UNION ALL "
				 "SELECT (SELECT r.pipeline_id FROM weir.run r WHERE r.status = 'queued' AND r.pipeline_id > w.pipeline_id "
				 "ORDER BY r.pipeline_id LIMIT 1) FROM w WHERE w.pipeline_id IS NOT NULL) "
				 "SELECT q.run_id FROM w JOIN weir.pipeline p ON p.pipeline_id = w.pipeline_id AND NOT p.is_paused "
				 "CROSS JOIN LATERAL (SELECT count(*) AS active FROM weir.run r "
				 "WHERE r.pipeline_id = w.pipeline_id AND r.status IN ('running', 'cancelling')) a "
				 "CROSS JOIN LATERAL (SELECT r.run_id, r.version, r.priority, r.backfill_id, "
				 "row_number() OVER (ORDER BY r.priority DESC, r.run_id) AS place, "
				 "row_number() OVER (PARTITION BY r.backfill_id ORDER BY r.run_id) AS place_in_backfill FROM weir.run r "
				 "WHERE r.pipeline_id = w.pipeline_id AND r.status = 'queued' ORDER BY r.priority DESC, r.run_id LIMIT greatest(0, "
				 "(SELECT max(v.max_concurrent_runs) FROM weir.pipeline_version v WHERE v.pipeline_id = w.pipeline_id) - a.active)) q "
				 "JOIN weir.pipeline_version v ON v.pipeline_id = w.pipeline_id AND v.version = q.version "
				 "WHERE q.place <= v.max_concurrent_runs - a.active AND (q.backfill_id IS NULL OR q.place_in_backfill <= "
				 "(SELECT b.concurrency - (SELECT count(*) FROM weir.run r WHERE r.pipeline_id = w.pipeline_id "
				 "AND r.status IN ('running', 'cancelling') AND r.backfill_id = b.backfill_id) "
				 "FROM weir.backfill b WHERE b.backfill_id = q.backfill_id)) "
				 "ORDER BY q.priority DESC, q.run_id LIMIT $1",
				 1, types, values, NULL);
	runs = result_ids(n);
	for (uint64 i = 0; i < n; i++)
	{
		if (outcome_lock_run(runs[i], false))
		{
			start_run(runs[i]);
			c->did_work = true;
		}
		else
			defer(c);
	}
	overlap_take_in(c);
	/* More may follow: the rest of a long queue, or pipelines whose run ended at once. */
	if (n > 0 && c->defer_until_ms == NEVER)
		c->wake |= ENGINE_WAKE_RUN;
}

/* Timers that live in tables. */
void
intake_next_deadlines(Conductor *c)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(c->looked_at_ms)};
	bool		isnull;
	int64		ms;

	/* What became due since this cycle looked is due again at once; what it could not start waits for something else. */
	weir_spi("SELECT (extract(epoch FROM min(not_before)) * 1000)::bigint FROM weir.task_run WHERE status = 'ready' AND not_before IS NOT NULL "
			 "AND not_before > to_timestamp($1 / 1000.0)",
			 1, types, values, NULL);
	ms = weir_spi_int64(0, 1, &isnull);
	c->ready_due_ms = isnull ? NEVER : ms + 1;
	weir_spi("SELECT (extract(epoch FROM min(deadline)) * 1000)::bigint FROM weir.run WHERE status = 'running' AND deadline IS NOT NULL",
			 0, NULL, NULL, NULL);
	ms = weir_spi_int64(0, 1, &isnull);
	c->run_deadline_ms = isnull ? NEVER : ms + 1;
}
