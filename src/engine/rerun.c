/*-------------------------------------------------------------------------
 * rerun.c
 *	  Repairs: tasks of a run that ended go again, in the same run.
 *
 * Runs in the conductor's transaction.  A run that goes on takes a place
 * among those of its pipeline, and of its backfill, as one that starts does:
 * until there is one, its request waits, and goes before what is queued.
 * What a task started elsewhere may be resumed; its attempts so far stay in
 * the log and no longer count against its budget.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "conductor_int.h"
#include "engine.h"
#include "outcome.h"
#include "repairable.h"

#define REPAIRS_BATCH	200

static bool
revive_run(int64 run_id, int64 request_id)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int64GetDatum(request_id)};

	if (weir_spi("UPDATE weir.run r SET status = 'running', repair_no = repair_no + 1, ended_at = NULL, next_load_status = NULL, "
				 "error_message = NULL, cancel_reason = NULL, deadline = clock_timestamp() + v.run_timeout, "
				 "params = coalesce(q.params, r.params), "
	/* Tools that repair by themselves may do so for ever. */
				 "repairs = CASE WHEN jsonb_array_length(r.repairs) >= 100 THEN r.repairs - 0 ELSE coalesce(r.repairs, '[]') END || "
				 "jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('repair_no', r.repair_no + 1, 'requested_by', q.requested_by, "
				 "'requested_at', q.requested_at, 'tasks', q.tasks, 'downstream', nullif(q.with_downstream, false), 'adopted', q.external_run_id, "
				 "'reason', q.reason, 'params_before', CASE WHEN q.params IS DISTINCT FROM r.params AND q.params IS NOT NULL THEN r.params END))) "
				 "FROM weir.pipeline_state s, weir.pipeline_version v, weir.request q "
				 "WHERE r.run_id = $1 AND q.request_id = $2 AND r.started_at IS NOT NULL "
				 "AND (r.status IN ('failed', 'timed_out', 'cancelled') OR (r.status = 'succeeded' AND q.tasks IS NOT NULL)) "
				 "AND s.pipeline_id = r.pipeline_id AND v.pipeline_id = r.pipeline_id AND v.version = r.version "
				 "AND " REPAIR_IS_OF_A_LOAD " AND " REPAIR_IS_RESUMED_BY " IS NULL RETURNING r.pipeline_id",
				 2, types, values, NULL) != 1)
		return false;
	engine_note_going_on(weir_spi_int64(0, 1, NULL), run_id);
	return true;
}

/*
 * Tasks that go again: those asked for, else what did not succeed; what was
 * skipped for it is decided anew, and so is where files go.  A task that is
 * decided by others of them waits for these.
 */
static void
reset_tasks(int64 run_id, int64 request_id)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int64GetDatum(request_id)};

	weir_spi("WITH RECURSIVE v AS (SELECT r.pipeline_id, r.version, q.tasks, q.with_downstream, q.task_run_id, q.external_run_id AS adopted FROM weir.run r, weir.request q "
			 "WHERE r.run_id = $1 AND q.request_id = $2), "
			 "again (task_no) AS (SELECT t.task_no FROM weir.task_run t, v WHERE t.run_id = $1 AND t.item_no = 0 "
			 "AND CASE WHEN t.kind = 'file_away' AND coalesce(t.skip_reason, '') NOT IN ('disabled', 'not_selected') THEN true "
			 "WHEN v.tasks IS NULL THEN t.status IN ('failed', 'timed_out', 'cancelled', 'blocked') "
			 "ELSE t.task_name = ANY (v.tasks) AND t.status <> 'reused' END "
			 "UNION SELECT t.task_no FROM again a CROSS JOIN v JOIN weir.task_dependency td USING (pipeline_id, version) "
			 "JOIN weir.task_run t ON t.run_id = $1 AND t.task_no = td.task_no AND t.item_no = 0 "
			 "WHERE td.upstream_no = a.task_no AND t.status <> 'reused' AND coalesce(t.skip_reason, '') NOT IN ('disabled', 'not_selected') "
			 "AND (v.with_downstream OR t.status = 'skipped')), "
			 "edge AS (SELECT td.task_no, b.task_no IS NOT NULL AS is_again, "
			 "weir._edge_result(td.condition, CASE WHEN u.skip_reason <> 'condition' THEN 'reused' ELSE u.status END, "
			 "td.branch IS NULL OR coalesce(u.skip_reason <> 'condition', false) OR coalesce(td.branch = u.output->>'branch', false)) AS result "
			 "FROM again a CROSS JOIN v JOIN weir.task_dependency td USING (pipeline_id, version) "
			 "JOIN weir.task_run u ON u.run_id = $1 AND u.task_no = td.upstream_no AND u.item_no = 0 "
			 "LEFT JOIN again b ON b.task_no = td.upstream_no WHERE td.task_no = a.task_no), "
			 "count AS (SELECT a.task_no, count(*) FILTER (WHERE e.is_again) AS pending, "
			 "count(*) FILTER (WHERE NOT e.is_again AND e.result = 'failed') AS failed, "
			 "count(*) FILTER (WHERE NOT e.is_again AND e.result = 'blocked') AS blocked, "
			 "count(*) FILTER (WHERE NOT e.is_again AND e.result = 'skipped') AS skipped "
			 "FROM again a LEFT JOIN edge e USING (task_no) GROUP BY a.task_no) "
			 "UPDATE weir.task_run t SET pending_upstream = c.pending, failed_upstream = c.failed, blocked_upstream = c.blocked, "
			 "skipped_upstream = c.skipped, status = 'waiting', skip_reason = NULL, ready_at = NULL, "
			 "reference = CASE WHEN t.task_run_id = v.task_run_id THEN jsonb_build_object('adopt', v.adopted) WHEN t.external_run_id IS NOT NULL AND t.status <> 'succeeded' "
			 "THEN jsonb_build_object('external_run_id', t.external_run_id) END, "
			 "budget_from = t.attempt_no, lost_count = 0, not_before = NULL, deadline = NULL, ended_at = NULL, error_message = NULL "
			 "FROM count c, v WHERE t.run_id = $1 AND t.task_no = c.task_no AND t.item_no = 0",
			 2, types, values, NULL);
}

/*
 * Items of for_each tasks that were asked for by name are marked, and so is
 * one that adopts a run; the task repeats these when it has come to its items,
 * see runlog/foreach.c.  Marks of an earlier repair that never got there are
 * taken away.
 */
static void
mark_items(int64 run_id, int64 request_id)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int64GetDatum(request_id)};

	weir_spi("WITH v AS (SELECT r.pipeline_id, r.version, coalesce(q.tasks, '{}') AS tasks, q.task_run_id, q.external_run_id AS adopted "
			 "FROM weir.run r, weir.request q WHERE r.run_id = $1 AND q.request_id = $2), "
			 "mark AS (SELECT i.task_run_id, jsonb_strip_nulls(jsonb_build_object('again', CASE WHEN i.task_name = ANY (v.tasks) THEN true END, "
			 "'adopt', CASE WHEN i.task_run_id = v.task_run_id THEN v.adopted END)) AS marks "
			 "FROM v JOIN weir.task d ON d.pipeline_id = v.pipeline_id AND d.version = v.version AND d.parent_no IS NOT NULL "
			 "JOIN weir.task_run i ON i.run_id = $1 AND i.task_no = d.task_no "
			 "WHERE i.task_name = ANY (v.tasks) OR i.task_run_id = v.task_run_id OR i.reference ?| '{again,adopt}') "
			 "UPDATE weir.task_run t SET reference = nullif(coalesce(t.reference, '{}') - 'again' - 'adopt' || m.marks, '{}') "
			 "FROM mark m WHERE t.task_run_id = m.task_run_id",
			 2, types, values, NULL);
}

static bool
has_room(int64 run_id)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};

	/* What is gone needs no room: it is refused. */
	return weir_spi("SELECT 1 FROM weir._repair_place p WHERE p.run_id = $1 AND p.waits_for IS NOT NULL",
					1, types, values, NULL) == 0;
}

/* False: it has to wait.  One that is refused is done with. */
static bool
take_in(int64 run_id, int64 request_id)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};

	if (!has_room(run_id))
		return false;
	if (!revive_run(run_id, request_id))
	{
		/* Nobody could have said so to who asked: it became so since. */
		weir_spi("INSERT INTO weir.error (run_id, code, message, failure_type) "
				 "SELECT r.run_id, 'repair_refused', 'the run can no longer be repaired: a later run of its pipeline has started', 'user' "
				 "FROM weir.run r WHERE r.run_id = $1",
				 1, types, values, NULL);
		return true;
	}
	reset_tasks(run_id, request_id);
	mark_items(run_id, request_id);
	advance_undecided(run_id);
	advance_finish_run(run_id);
	return true;
}

/*
 * Of each pipeline, and each of its backfills, as many as there may be places,
 * those first that were asked for first; a request comes after all earlier
 * ones about its run.  Whether there is a place for it is looked at once more
 * with the pipeline locked.
 */
static uint64
read_waiting(void)
{
	return weir_spi("WITH q AS MATERIALIZED (SELECT q.request_id, q.run_id, r.pipeline_id, r.version, "
					"row_number() OVER (PARTITION BY r.pipeline_id, r.backfill_id ORDER BY q.request_id) AS place "
					"FROM weir.request q LEFT JOIN weir.run r USING (run_id) "
					"WHERE q.action = 'repair' AND NOT EXISTS (SELECT FROM weir.request e WHERE e.run_id = q.run_id AND e.request_id < q.request_id)), "
					"p AS (SELECT pipeline_id, max(free) AS free FROM (SELECT DISTINCT q.pipeline_id, q.version FROM q) v "
					"JOIN weir._places USING (pipeline_id, version) GROUP BY pipeline_id) "
					"SELECT q.request_id, q.run_id FROM q LEFT JOIN p USING (pipeline_id) "
					"WHERE q.place <= coalesce(p.free, q.place) ORDER BY q.request_id LIMIT " CppAsString2(REPAIRS_BATCH),
					0, NULL, NULL, NULL);
}

void
rerun_take_in(Conductor *c)
{
	static const Oid types[1] = {INT8OID};
	uint64		n = read_waiting();
	int64	   *requests = palloc(sizeof(int64) * Max(n, 1));
	int64	   *runs = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
	{
		requests[i] = weir_spi_int64(i, 1, NULL);
		runs[i] = weir_spi_int64(i, 2, NULL);
	}
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[1] = {Int64GetDatum(requests[i])};

		if (!outcome_lock_run(runs[i], false) && intake_has_pipeline(runs[i]))
		{
			conductor_defer(c);
			continue;
		}
		if (!take_in(runs[i], requests[i]))
			continue;
		c->run_deadline_ms = 0; /* the run has a new one */
		weir_spi("DELETE FROM weir.request WHERE request_id = $1", 1, types, values, NULL);
		engine_wake_at_commit(ENGINE_WAKE_RUN);
		c->did_work = true;
	}
	c->repairs_wait = weir_spi("SELECT 1 FROM weir.request WHERE action = 'repair' LIMIT 1", 0, NULL, NULL, NULL) > 0;
}

void
rerun_withdraw(int64 run_id, int64 cancel_id)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int64GetDatum(cancel_id)};

	weir_spi("DELETE FROM weir.request WHERE run_id = $1 AND request_id < $2 AND action = 'repair'", 2, types, values, NULL);
}
