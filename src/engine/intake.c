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
#include "landing.h"
#include "outcome.h"
#include "pipelinestate.h"
#include "queued.h"
#include "starting.h"

#define INTAKE_BATCH	200		/* runs taken in by one transaction */

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

	if (weir_spi("UPDATE weir.run SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE 'cancelling' END, "
				 "ended_at = CASE status WHEN 'queued' THEN clock_timestamp() END, cancel_reason = $2 "
				 "WHERE run_id = $1 AND status IN ('queued', 'running') RETURNING pipeline_id",
				 2, types, values, NULL) > 0)
		engine_note_queue(weir_spi_int64(0, 1, NULL));
	weir_spi("UPDATE weir.task_run SET status = 'cancelled', ended_at = clock_timestamp() "
			 "WHERE run_id = $1 AND status IN ('waiting', 'ready')",
			 1, types, values, NULL);
	ready_forget_run(c, run_id);
	flights_end_run(c, run_id, why);
	foreach_settle_run(run_id);
	advance_finish_run(run_id);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	c->did_work = true;
}

bool
intake_has_pipeline(int64 run_id)
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
							 "FROM weir.request WHERE action <> 'repair' ORDER BY run_id, request_id LIMIT 500",
							 0, NULL, NULL, NULL);
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		Oid			types[1] = {INT8OID};
		Datum		values[1];
		bool		isnull;
		int64		run_id = DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull));
		char	   *action = SPI_getvalue(table->vals[i], table->tupdesc, 3);

		if (waiting_request(c, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)), action))
			 ;					/* concerns attempts that wait, not the run */
		else if (uncertain_request(c, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)), action))
			 ;
		else if (!outcome_lock_run(run_id, false) && intake_has_pipeline(run_id))
		{
			conductor_defer(c);
			continue;
		}
		else
		{
			rerun_withdraw(run_id, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)));
			intake_cancel_run(c, run_id, SPI_getvalue(table->vals[i], table->tupdesc, 4), SQL_CANCEL_ASKED);
		}
		values[0] = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);
		weir_spi("DELETE FROM weir.request WHERE request_id = $1", 1, types, values, NULL);
		engine_wake_at_commit(ENGINE_WAKE_RUN);
		c->did_work = true;
	}
	if (n == 500)
		c->wake |= ENGINE_WAKE_REQUEST;
}

static void
run_deadlines(Conductor *c)
{
	uint64		n = weir_spi("SELECT run_id, (extract(epoch FROM deadline) * 1000)::bigint FROM weir.run "
							 "WHERE live = 'a' AND status = 'running' AND deadline <= clock_timestamp() "
							 "ORDER BY run_id LIMIT 500", 0, NULL, NULL, NULL);
	int64	   *runs = result_ids(n);
	int64	   *moments = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		moments[i] = weir_spi_int64(i, 2, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		if (uncertain_ask_run(c, runs[i], moments[i]))
			conductor_defer(c);
		else if (outcome_lock_run(runs[i], false))
			intake_cancel_run(c, runs[i], RUN_TIMEOUT_REASON, SQL_CANCEL_RUN_TIMEOUT);
		else
			conductor_defer(c);
	}
}

/* Task timeouts that strike while a retry waits; those of attempts that run are their flights'. */
static void
task_deadlines(Conductor *c)
{
	uint64		n = weir_spi("SELECT DISTINCT run_id FROM weir.task_run WHERE retry_deadline <= clock_timestamp() "
							 "ORDER BY run_id LIMIT 500", 0, NULL, NULL, NULL);
	int64	   *runs = result_ids(n);

	for (uint64 i = 0; i < n; i++)
	{
		if (outcome_lock_run(runs[i], false))
		{
			outcome_time_out_waiting(runs[i]);
			c->did_work = true;
		}
		else
			conductor_defer(c);
	}
}

/*
 * The next moment is looked for only when the one known so far is here, or
 * when nothing is left to do: its run may have ended meanwhile.  Starts and
 * retries tell of earlier ones.
 */
void
intake_deadlines(Conductor *c)
{
	bool		is_null;
	int64		ms;

	run_deadlines(c);
	task_deadlines(c);
	weir_spi("SELECT (extract(epoch FROM least((SELECT min(deadline) FROM weir.run WHERE live = 'a' AND status = 'running' AND deadline IS NOT NULL), "
			 "(SELECT min(retry_deadline) FROM weir.task_run WHERE retry_deadline IS NOT NULL))) * 1000)::bigint",
			 0, NULL, NULL, NULL);
	ms = weir_spi_int64(0, 1, &is_null);
	c->run_deadline_ms = is_null ? NEVER : ms + 1;
	/* What is over already waits for somebody who holds its pipeline. */
	if (c->defer_until_ms != NEVER)
		c->run_deadline_ms = Max(c->run_deadline_ms, c->defer_until_ms);
	c->deadline_is_exact = true;
}

/*
 * The tasks of a starting run, see starting.h.  A task whose upstream tasks
 * have all ended already is decided by its run_if, not by there being nothing
 * to wait for: a handler of failures does not run because landing is reused.
 */
static void
insert_task_runs(int64 run_id, StartCode code, int64 last_run_id)
{
	Oid			types[3] = {INT8OID, BOOLOID, INT8OID};
	Datum		values[3] = {Int64GetDatum(run_id), BoolGetDatum(code == START_RESUME), Int64GetDatum(last_run_id)};

	weir_spi(STARTING_TASKS("SELECT pipeline_id, version, selected_tasks FROM weir.run WHERE run_id = $1")
			 ", done AS (INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, skip_reason, pending_upstream, skipped_upstream, "
			 "output, rows_read, rows_written, external_run_id, external_url, reference, priority, pool, pool_slots, run_limit, connection_name, uses_worker, ready_at, ended_at) "
			 "SELECT $1, x.task_no, x.name, x.kind, x.phase, CASE WHEN x.status = 'ready' AND x.upstream_count > 0 THEN 'waiting' ELSE x.status END, "
			 "CASE WHEN x.status = 'skipped' THEN x.skip_reason END, x.pending, x.skipped, "
			 "CASE WHEN x.keeps_old THEN x.old_output END, CASE WHEN x.keeps_old THEN x.old_read END, CASE WHEN x.keeps_old THEN x.old_written END, "
			 "CASE WHEN x.keeps_old THEN x.old_external END, CASE WHEN x.keeps_old THEN x.old_url END, "
			 "CASE WHEN x.resume->>'external_run_id' IS NOT NULL THEN x.resume END, "
	/* Of a for_each the items take slots, and a statement that lists them is run by a worker. */
			 "x.priority + (SELECT o.priority FROM weir.run o WHERE o.run_id = $1), CASE WHEN x.kind <> 'for_each' THEN x.pool END, x.pool_slots, x.run_limit, x.connection_name, "
			 "CASE WHEN x.kind = 'for_each' AND jsonb_typeof(x.spec->'items') = 'object' THEN true END, "
			 "CASE WHEN x.status = 'ready' THEN clock_timestamp() END, CASE WHEN x.status IN ('reused', 'skipped') THEN clock_timestamp() END "
			 "FROM x RETURNING task_run_id, status) "
			 "SELECT array_agg(task_run_id) FROM done WHERE status = 'ready'",
			 3, types, values, NULL);
	engine_note_ready_column(1);
	advance_undecided(run_id);
}

/*
 * An outside orchestrator may have started an execution after we counted and
 * before we had the lock.  Its end notes the queue.
 */
#define STILL_FREE \
	"($2 OR s.execution_id IS NULL OR (SELECT count(*) FROM weir._active a WHERE a.pipeline_id = s.pipeline_id) < " \
	"(SELECT v.max_concurrent_runs FROM weir.pipeline_version v WHERE v.pipeline_id = r.pipeline_id AND v.version = r.version))"

void
intake_start_run(int64 run_id, bool besides)
{
	static const Oid facts_types[2] = {INT8OID, BOOLOID};
	Datum		facts_values[2] = {Int64GetDatum(run_id), BoolGetDatum(besides)};
	Oid			types[6] = {INT8OID, TEXTOID, CHAROID, INT8OID, INT8OID, BOOLOID};
	Datum		values[6];
	char		nulls[] = "      ";
	StartFacts	facts;
	RestartDecision decision;

	values[0] = Int64GetDatum(run_id);
	/* A restart is apart if what it repeats was. */
	if (weir_spi(START_FACTS("r.backfill_id IS NULL", "CASE WHEN r.is_apart THEN r.restart_of END",
							 "weir.run r JOIN weir.pipeline p USING (pipeline_id) "
							 "JOIN weir.pipeline_state s ON " IS_STATE("s", "r.pipeline_id") " "
							 "WHERE r.run_id = $1 AND r.status = 'queued' AND " STILL_FREE),
				 2, facts_types, facts_values, NULL) != 1)
		return;
	decision = start_decide_row(&facts, &(LandingWish){.run_id = run_id});

	values[1] = CStringGetTextDatum(start_code_runs(decision.code) ? "running" : "skipped");
	values[2] = CharGetDatum((char) decision.code);
	values[3] = Int64GetDatum(restart_row_audit_id(&decision, run_id, facts.origin));
	values[4] = Int64GetDatum(facts.last_run_id);
	nulls[4] = facts.last_run_id == 0 ? 'n' : ' ';
	values[5] = BoolGetDatum(decision.skip_once_used);
	weir_spi("UPDATE weir.run r SET status = $2, start_status = $3, row_audit_id = $4, last_run_id = $5, started_at = clock_timestamp(), "
			 "ended_at = CASE WHEN $2 = 'skipped' THEN clock_timestamp() END, deadline = clock_timestamp() + v.run_timeout "
			 "FROM weir.pipeline_version v WHERE r.run_id = $1 AND v.pipeline_id = r.pipeline_id AND v.version = r.version "
			 "RETURNING r.pipeline_id",
			 6, types, values, nulls);
	engine_note_going_on(weir_spi_int64(0, 1, NULL), run_id);
	weir_spi("UPDATE weir.pipeline_state s SET skip_once = s.skip_once AND NOT $6, "
			 "last_run_id = CASE WHEN $2 = 'running' AND NOT r.is_apart THEN $1 ELSE s.last_run_id END, "
			 "next_load_status = CASE WHEN $2 = 'skipped' AND NOT $6 AND s.next_load_status = 'C' THEN 'P' ELSE s.next_load_status END "
			 "FROM weir.run r WHERE r.run_id = $1 AND " IS_STATE_OF_RUN("s", "$1") " AND "
			 "((s.skip_once AND $6) OR CASE WHEN $2 = 'running' THEN NOT r.is_apart ELSE NOT $6 AND s.next_load_status = 'C' END)",
			 6, types, values, nulls);
	if (start_code_runs(decision.code))
	{
		engine_wake_at_commit(ENGINE_WAKE_WAITERS);
		insert_task_runs(run_id, decision.code, facts.last_run_id);
		advance_finish_run(run_id);
	}
	else
		engine_wake_at_commit(ENGINE_WAKE_RUN);	/* it has ended */
}

/* From pipeline to pipeline, those with a queue: however long the queues are. */
#define ALL_QUEUES \
	"WITH RECURSIVE p (pipeline_id) AS (" \
	"(SELECT r.pipeline_id FROM weir.run r WHERE r.live = 'q' ORDER BY r.pipeline_id LIMIT 1) UNION ALL " \
	"SELECT (SELECT r.pipeline_id FROM weir.run r WHERE r.live = 'q' AND r.pipeline_id > p.pipeline_id " \
	"ORDER BY r.pipeline_id LIMIT 1) FROM p WHERE p.pipeline_id IS NOT NULL), " \
	"w AS MATERIALIZED (SELECT p.pipeline_id, NULL::bigint[] AS going_on, 0::bigint AS first, l.priorities, l.floors FROM p " \
	"CROSS JOIN LATERAL (SELECT array_agg(d.priority), array_agg(d.run_id) FROM (" QUEUED_LANES("p.pipeline_id") ") d) AS l (priorities, floors)) "

#define NOTED_QUEUES \
	"WITH w AS MATERIALIZED (SELECT n.pipeline_id, nullif(n.going_on, '')::bigint[] AS going_on, n.first, " \
	"n.priorities::bigint[] AS priorities, n.floors::bigint[] AS floors " \
	"FROM unnest($2, $4, $5, $6, $7) AS n (pipeline_id, first, going_on, priorities, floors)) "

/*
 * Of each queue only as many as may start: a long one costs nothing.  The run
 * that is overdue ($3 seconds, see weir.overdue_after) goes first: it is one
 * of the oldest of each priority, and of these there are few.  Runs of a
 * backfill have a limit of their own and are never overdue: they come behind
 * all others, whose priorities are -1000 and above, and what one backfill has
 * to leave is for those after it.  Which runs go on, which priorities there
 * are and where each begins is known, see queues.c.
 */
#define GOING_ON(condition) \
	"(SELECT count(*) FROM (SELECT r.backfill_id FROM unnest(w.going_on) AS i (run_id) JOIN weir.run r ON r.run_id = i.run_id AND " GOES_ON("r") " " \
	"UNION ALL SELECT r.backfill_id FROM weir.run r WHERE w.going_on IS NULL AND r.pipeline_id = w.pipeline_id AND r.live = 'a' " \
	"AND r.run_id >= w.first) r " condition ")"

#define LANES "unnest(w.priorities, w.floors) AS k (priority, floor)"
#define OF_LANE "r.pipeline_id = w.pipeline_id AND r.live = 'q' AND r.run_id >= k.floor"

/* The first few of each priority */
#define OF_EACH_PRIORITY(columns, condition, how_many) \
	LANES " CROSS JOIN LATERAL (SELECT " columns " FROM weir.run r " \
	"WHERE " OF_LANE " AND r.priority = k.priority::integer " condition " ORDER BY r.run_id LIMIT " how_many ") r " \
	"WHERE k.priority >= -1000"

#define STARTABLE \
	"SELECT q.run_id, w.pipeline_id FROM w JOIN weir.pipeline p ON p.pipeline_id = w.pipeline_id AND NOT p.is_paused " \
	"CROSS JOIN LATERAL (SELECT n.active, greatest(0, (SELECT v.max_concurrent_runs FROM weir.pipeline_version v " \
	"WHERE v.pipeline_id = w.pipeline_id ORDER BY v.max_concurrent_runs DESC LIMIT 1) - n.active) AS room FROM (SELECT " \
	GOING_ON("") " + " \
	"(SELECT count(*) FROM weir.pipeline_state s WHERE " IS_STATE("s", "w.pipeline_id") " AND s.execution_id IS NOT NULL " \
	"AND EXISTS (SELECT FROM weir.run x WHERE x.run_id = s.execution_id AND x.pipeline_id = s.pipeline_id)) AS active OFFSET 0) n OFFSET 0) a " \
	"CROSS JOIN LATERAL (SELECT min(r.run_id) AS run_id FROM " OF_EACH_PRIORITY("r.run_id, r.queued_at", "", "1") \
	" AND r.queued_at < clock_timestamp() - make_interval(secs => nullif($3, 0))) o " \
	"CROSS JOIN LATERAL (SELECT s.*, s.run_id IS NOT DISTINCT FROM o.run_id AS is_overdue, " \
	"row_number() OVER (ORDER BY s.run_id = o.run_id DESC, s.priority DESC, s.run_id) AS place FROM (" \
	"(SELECT r.run_id, r.version, r.priority FROM " \
	OF_EACH_PRIORITY("r.run_id, r.version, r.priority", "AND r.run_id IS DISTINCT FROM o.run_id", "a.room") \
	" ORDER BY r.priority DESC, r.run_id LIMIT a.room) " \
	"UNION ALL SELECT r.run_id, r.version, r.priority FROM weir.run r WHERE r.run_id = o.run_id " \
	"UNION ALL SELECT x.* FROM " LANES " CROSS JOIN LATERAL (WITH RECURSIVE b (backfill_id) AS (" \
	"(SELECT r.backfill_id FROM weir.run r WHERE " OF_LANE " AND r.backfill_id IS NOT NULL " \
	"ORDER BY r.backfill_id LIMIT 1) UNION ALL " \
	"SELECT (SELECT r.backfill_id FROM weir.run r WHERE " OF_LANE " AND r.backfill_id > b.backfill_id " \
	"ORDER BY r.backfill_id LIMIT 1) FROM b WHERE b.backfill_id IS NOT NULL) " \
	"SELECT b.backfill_id FROM b WHERE b.backfill_id IS NOT NULL) b CROSS JOIN LATERAL (" \
	"SELECT r.run_id, r.version, r.priority FROM weir.run r " \
	"WHERE " OF_LANE " AND r.backfill_id = b.backfill_id ORDER BY r.run_id LIMIT least(a.room, " \
	"greatest(0, (SELECT f.concurrency FROM weir.backfill f WHERE f.backfill_id = b.backfill_id) - " \
	GOING_ON("WHERE coalesce(r.backfill_id, 0) = b.backfill_id") "))) x WHERE k.priority < -1000) s) q " \
	"WHERE q.place <= (SELECT v.max_concurrent_runs FROM weir.pipeline_version v " \
	"WHERE v.pipeline_id = w.pipeline_id AND v.version = q.version) - a.active " \
	"ORDER BY q.is_overdue DESC, q.priority DESC, q.run_id LIMIT $1"

/* Run timeouts begin with the runs. */
static void
note_deadlines(Conductor *c, Datum run_ids)
{
	static const Oid types[1] = {INT8ARRAYOID};
	bool		is_null;
	int64		ms;

	weir_spi("SELECT (extract(epoch FROM min(deadline)) * 1000)::bigint FROM weir.run WHERE run_id = ANY ($1) AND status = 'running'",
			 1, types, &run_ids, NULL);
	ms = weir_spi_int64(0, 1, &is_null);
	if (!is_null)
		c->run_deadline_ms = Min(c->run_deadline_ms, ms + 1);
}

/* Start these runs as far as nobody holds their pipelines. */
static void
start_runs(Conductor *c, const int64 *runs, uint64 n)
{
	Datum	   *started = palloc(sizeof(Datum) * Max(n, 1));
	int			n_started = 0;

	for (uint64 i = 0; i < n; i++)
	{
		if (!outcome_lock_run(runs[i], false))
		{
			conductor_defer(c);
			continue;
		}
		intake_start_run(runs[i], false);
		started[n_started++] = Int64GetDatum(runs[i]);
		c->did_work = true;
	}
	if (n_started > 0)
		note_deadlines(c, weir_array(INT8OID, started, n_started));
}

void
intake_runs(Conductor *c, bool all)
{
	static const Oid types[7] = {INT8OID, INT8ARRAYOID, FLOAT8OID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[7] = {Int64GetDatum(INTAKE_BATCH), (Datum) 0, Float8GetDatum(weir_overdue_after)};
	NotedQueues noted;
	uint64		n;
	int64	   *runs;

	if (queues_noted(c, &noted) == 0 && !all)
		return;
	values[1] = noted.pipelines;
	values[3] = noted.first_going_on;
	values[4] = noted.going_on;
	values[5] = noted.priorities;
	values[6] = noted.floors;
	n = all ? weir_spi(ALL_QUEUES STARTABLE, 7, types, values, NULL) : weir_spi(NOTED_QUEUES STARTABLE, 7, types, values, NULL);
	runs = result_ids(n);
	/* More may follow: the rest of a long queue, pipelines whose run ended at once, or which somebody held. */
	if (n < INTAKE_BATCH)
		queues_forget(c);
	else if (all)
		c->wake |= ENGINE_WAKE_QUEUES;
	for (uint64 i = 0; i < n; i++)
		queues_note(c, weir_spi_int64(i, 2, NULL));
	start_runs(c, runs, n);
	overlap_take_in(c, all, values[1]);
	if (n > 0 && c->defer_until_ms == NEVER)
		c->wake |= ENGINE_WAKE_RUN;
}
