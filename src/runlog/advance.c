/*-------------------------------------------------------------------------
 * advance.c
 *	  What follows from ended task runs: successors become ready or blocked,
 *	  runs end, and the pipeline learns what its next start must do.
 *
 * Same processes, locks and transaction as outcome.c, which calls this.
 *
 * The statements go from each ended task by index to its dependents, whatever
 * the planner knew of the tables when it made the plan: thousands of them at
 * once must be no product.  Hence LATERAL ... OFFSET 0, which keeps the order
 * of joins, and the status compared in a way that no partial index fits.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "access.h"
#include "engine.h"
#include "foreach.h"
#include "landing.h"
#include "outcome.h"
#include "restart.h"

/* Arrays of run_id and task_no: tasks that have ended. */
typedef struct Ended
{
	Datum		runs;
	Datum		tasks;
} Ended;

static const Oid ended_types[2] = {INT8ARRAYOID, INT4ARRAYOID};

/* The two arrays a statement returned; false if it found nothing. */
static bool
read_ended(Ended *ended)
{
	bool		isnull;

	ended->runs = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return false;
	ended->tasks = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	return true;
}

/*
 * Below a failure, tasks that need every dependency to succeed can never run,
 * whatever their other dependencies do: however long the chain, they are
 * blocked by one statement.  A task that does not wait ends the chain: what
 * is disabled, say, is no failure for those below it.
 */
static bool
block_below(const Ended *ended, Ended *blocked)
{
	Datum		values[2] = {ended->runs, ended->tasks};

	weir_spi("WITH RECURSIVE down (run_id, pipeline_id, version, task_no) AS ("
			 "SELECT e.run_id, r.pipeline_id, r.version, td.task_no "
			 "FROM unnest($1, $2) e (run_id, task_no) "
			 "CROSS JOIN LATERAL (SELECT i.pipeline_id, i.version FROM weir.run i WHERE i.run_id = e.run_id OFFSET 0) r "
			 "CROSS JOIN LATERAL (SELECT i.status FROM weir.task_run i "
			 "WHERE i.run_id = e.run_id AND i.task_no = e.task_no AND i.item_no = 0 OFFSET 0) u "
			 "CROSS JOIN LATERAL (SELECT i.task_no, i.condition FROM weir.task_dependency i "
			 "WHERE i.pipeline_id = r.pipeline_id AND i.version = r.version AND i.upstream_no = e.task_no OFFSET 0) td "
			 "CROSS JOIN LATERAL (SELECT i.run_if FROM weir.task i "
			 "WHERE i.pipeline_id = r.pipeline_id AND i.version = r.version AND i.task_no = td.task_no OFFSET 0) t "
			 "CROSS JOIN LATERAL (SELECT 1 FROM weir.task_run i WHERE i.run_id = e.run_id AND i.task_no = td.task_no AND i.item_no = 0 "
			 "AND i.status || '' = 'waiting' OFFSET 0) w "
			 "WHERE t.run_if IN ('all_success', 'none_failed') AND weir._edge_result(td.condition, u.status, false) IN ('failed', 'blocked') "
			 "UNION SELECT d.run_id, d.pipeline_id, d.version, td.task_no FROM down d "
			 "CROSS JOIN LATERAL (SELECT i.task_no, i.condition FROM weir.task_dependency i "
			 "WHERE i.pipeline_id = d.pipeline_id AND i.version = d.version AND i.upstream_no = d.task_no OFFSET 0) td "
			 "CROSS JOIN LATERAL (SELECT i.run_if FROM weir.task i "
			 "WHERE i.pipeline_id = d.pipeline_id AND i.version = d.version AND i.task_no = td.task_no OFFSET 0) t "
			 "CROSS JOIN LATERAL (SELECT 1 FROM weir.task_run i WHERE i.run_id = d.run_id AND i.task_no = td.task_no AND i.item_no = 0 "
			 "AND i.status || '' = 'waiting' OFFSET 0) w "
			 "WHERE t.run_if IN ('all_success', 'none_failed') AND td.condition <> 'done'), "
			 "done AS (UPDATE weir.task_run s SET status = 'blocked', ended_at = clock_timestamp() FROM down "
			 "WHERE s.run_id = down.run_id AND s.task_no = down.task_no AND s.item_no = 0 AND s.status || '' = 'waiting' "
			 "RETURNING s.run_id, s.task_no) "
			 "SELECT array_agg(run_id), array_agg(task_no) FROM done",
			 2, ended_types, values, NULL);
	return read_ended(blocked);
}

/* Of those that were decided: what ended without having run, and what is ready. */
#define DECIDED_TASKS \
	"SELECT array_agg(run_id) FILTER (WHERE status IN ('blocked', 'skipped')), " \
	"array_agg(task_no) FILTER (WHERE status IN ('blocked', 'skipped')), " \
	"array_agg(task_run_id) FILTER (WHERE status = 'ready') FROM done"

#define DECIDED \
	"weir._flow_decide(d.run_if, d.upstream_count, s.failed_upstream + d.failed, " \
	"s.blocked_upstream + d.blocked, s.skipped_upstream + d.skipped)"

/*
 * Tell the dependents of ended tasks.  Those that wait for nothing else are
 * decided: ready, or at their end without having run; these are returned.
 */
static bool
tell_dependents(const Ended *ended, Ended *decided)
{
	Datum		values[2] = {ended->runs, ended->tasks};

	weir_spi("WITH done AS (UPDATE weir.task_run s SET pending_upstream = s.pending_upstream - d.n, "
			 "failed_upstream = s.failed_upstream + d.failed, blocked_upstream = s.blocked_upstream + d.blocked, "
			 "skipped_upstream = s.skipped_upstream + d.skipped, "
			 "status = CASE WHEN s.pending_upstream > d.n THEN 'waiting' ELSE " DECIDED " END, "
			 "ready_at = CASE WHEN s.pending_upstream = d.n AND " DECIDED " = 'ready' THEN clock_timestamp() END, "
			 "skip_reason = CASE WHEN s.pending_upstream = d.n AND " DECIDED " = 'skipped' THEN 'condition' END, "
			 "ended_at = CASE WHEN s.pending_upstream = d.n AND " DECIDED " <> 'ready' THEN clock_timestamp() END "
			 "FROM (SELECT x.run_id, x.task_no, x.run_if, x.upstream_count, count(*)::int AS n, "
			 "count(*) FILTER (WHERE x.result = 'failed')::int AS failed, "
			 "count(*) FILTER (WHERE x.result = 'blocked')::int AS blocked, "
			 "count(*) FILTER (WHERE x.result = 'skipped')::int AS skipped "
			 "FROM (SELECT e.run_id, td.task_no, t.run_if, t.upstream_count, "
			 "weir._edge_result(td.condition, u.status, td.branch IS NULL OR coalesce(td.branch = u.output->>'branch', false)) AS result "
			 "FROM unnest($1, $2) e (run_id, task_no) "
			 "CROSS JOIN LATERAL (SELECT i.pipeline_id, i.version FROM weir.run i WHERE i.run_id = e.run_id OFFSET 0) r "
			 "CROSS JOIN LATERAL (SELECT i.task_no, i.condition, i.branch FROM weir.task_dependency i "
			 "WHERE i.pipeline_id = r.pipeline_id AND i.version = r.version AND i.upstream_no = e.task_no OFFSET 0) td "
			 "CROSS JOIN LATERAL (SELECT i.status, i.output FROM weir.task_run i "
			 "WHERE i.run_id = e.run_id AND i.task_no = e.task_no AND i.item_no = 0 OFFSET 0) u "
			 "CROSS JOIN LATERAL (SELECT i.run_if, i.upstream_count FROM weir.task i "
			 "WHERE i.pipeline_id = r.pipeline_id AND i.version = r.version AND i.task_no = td.task_no OFFSET 0) t) x "
			 "GROUP BY x.run_id, x.task_no, x.run_if, x.upstream_count) d "
			 "WHERE s.run_id = d.run_id AND s.task_no = d.task_no AND s.item_no = 0 AND s.status || '' = 'waiting' "
			 "RETURNING s.run_id, s.task_no, s.task_run_id, s.status) " DECIDED_TASKS,
			 2, ended_types, values, NULL);
	engine_note_ready_column(3);
	return read_ended(decided);
}

void
advance_ended(Datum run_ids, Datum task_nos, bool all_succeeded)
{
	Ended		ended = {run_ids, task_nos};
	Ended		next;

	for (;;)
	{
		bool		more;

		CHECK_FOR_INTERRUPTS();
		if (!all_succeeded && block_below(&ended, &next))
			advance_ended(next.runs, next.tasks, true);
		more = tell_dependents(&ended, &next);
		if (!more)
			return;
		ended = next;
		all_succeeded = false;
	}
}

void
advance_undecided(int64 run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	Ended		decided;

	weir_spi("WITH next AS (SELECT s.task_run_id, weir._flow_decide(t.run_if, t.upstream_count, "
			 "s.failed_upstream, s.blocked_upstream, s.skipped_upstream) AS status "
			 "FROM weir.task_run s JOIN weir.run r USING (run_id) "
			 "JOIN weir.task t ON t.pipeline_id = r.pipeline_id AND t.version = r.version AND t.task_no = s.task_no "
			 "WHERE s.run_id = $1 AND s.status = 'waiting' AND s.pending_upstream = 0 AND s.item_no = 0), "
			 "done AS (UPDATE weir.task_run s SET status = next.status, "
			 "skip_reason = CASE WHEN next.status = 'skipped' THEN 'condition' END, "
			 "ready_at = CASE WHEN next.status = 'ready' THEN clock_timestamp() END, "
			 "ended_at = CASE WHEN next.status IN ('blocked', 'skipped') THEN clock_timestamp() END "
			 "FROM next WHERE s.task_run_id = next.task_run_id RETURNING s.run_id, s.task_no, s.task_run_id, s.status) " DECIDED_TASKS,
			 1, types, values, NULL);
	engine_note_ready_column(3);
	if (read_ended(&decided))
		advance_ended(decided.runs, decided.tasks, false);
}

void
advance_fail_fast(int64 run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	Ended		blocked;

	weir_spi("WITH done AS (UPDATE weir.task_run s SET status = 'blocked', ended_at = clock_timestamp() "
			 "FROM weir.run r JOIN weir.pipeline_version v USING (pipeline_id, version) JOIN weir.task t USING (pipeline_id, version) "
			 "WHERE r.run_id = $1 AND v.on_failure = 'fail_fast' AND s.run_id = $1 AND s.task_no = t.task_no "
			 "AND t.run_if NOT IN ('at_least_one_failed', 'all_failed', 'always') AND s.status IN ('waiting', 'ready') "
	/* A dependency on a failure makes a handler too, and of its items. */
			 "AND NOT EXISTS (SELECT FROM weir.task_dependency td WHERE td.pipeline_id = t.pipeline_id AND td.version = t.version "
			 "AND td.task_no = coalesce(t.parent_no, t.task_no) AND td.condition = 'failed') "
			 "RETURNING s.run_id, s.task_no, s.item_no, s.task_run_id, s.not_before) "
			 "SELECT array_agg(run_id) FILTER (WHERE item_no = 0), array_agg(task_no) FILTER (WHERE item_no = 0), "
			 "array_agg(task_run_id) FILTER (WHERE not_before IS NOT NULL) FROM done",
			 1, types, values, NULL);
	engine_note_ready_column(3);	/* no more: nobody waits for the end of its pause */
	if (read_ended(&blocked))
		advance_ended(blocked.runs, blocked.tasks, false);
	foreach_settle_run(run_id);
}

/* How the tasks of a run ended. */
typedef struct RunTally
{
	RunStatus	status;			/* now */
	bool		timed_out;		/* cancelling because of the run timeout */
	bool		is_apart;		/* partial or of a backfill */
	int64		pipeline_id;
	int64		row_audit_id;
	int			failed;			/* and nothing dealt with it */
	int			cancelled;
	int			blocked;
	RestartEnd	end;
} RunTally;

/*
 * Is something in the run live?  Asked after each end of a task, and mostly
 * true, so it is a statement of its own: setting up the one below costs many
 * times as much.  The task of a live item is running.  From the last task
 * backwards: what is live is mostly at the end.
 */
static bool
is_live(int64 run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};

	return weir_spi("SELECT FROM weir.task_run l WHERE l.run_id = $1 AND l.item_no = 0 AND l.status IN ('waiting', 'ready', 'running') "
					"ORDER BY l.task_no DESC LIMIT 1",
					1, types, values, NULL) > 0;
}

/* False if it ended already.  Nothing in it is live. */
static bool
read_tally(int64 run_id, RunTally *tally)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	char	   *start;

	if (weir_spi("SELECT r.status, coalesce(r.cancel_reason = '" RUN_TIMEOUT_REASON "', false), r.row_audit_id, r.start_status::text, "
				 "count(*) FILTER (WHERE t.status IN ('failed', 'timed_out') AND NOT h.handled), "
				 "count(*) FILTER (WHERE t.status = 'cancelled' AND NOT h.handled), "
				 "count(*) FILTER (WHERE t.status = 'blocked'), "
				 "count(*) FILTER (WHERE t.phase = 'land' AND t.status <> 'skipped'), "
				 "count(*) FILTER (WHERE t.phase = 'land' AND t.status IN ('succeeded', 'reused')), "
				 "count(*) FILTER (WHERE t.phase <> 'land' AND t.status IN ('failed', 'timed_out', 'cancelled') AND t.kind <> 'file_away'), "
				 "r.is_apart, r.pipeline_id, "
	/* The next start does not depend on whether files could be put away; filing.c asks the same. */
				 "count(*) FILTER (WHERE t.kind <> 'file_away' AND (t.status = 'blocked' OR (t.status IN ('failed', 'timed_out', 'cancelled') AND NOT h.handled))) "
				 "FROM weir.run r LEFT JOIN weir.task_run t ON t.run_id = r.run_id AND t.item_no = 0 "
	/* A failure is dealt with when a task that is there for failures succeeded below it. */
				 "CROSS JOIN LATERAL (SELECT CASE WHEN t.status IN ('failed', 'timed_out', 'cancelled') THEN EXISTS "
				 "(SELECT FROM weir.task_dependency td JOIN weir.task d ON d.pipeline_id = td.pipeline_id AND d.version = td.version AND d.task_no = td.task_no "
				 "JOIN weir.task_run s ON s.run_id = $1 AND s.task_no = td.task_no AND s.item_no = 0 AND s.status = 'succeeded' "
				 "WHERE td.pipeline_id = r.pipeline_id AND td.version = r.version AND td.upstream_no = t.task_no "
				 "AND (td.condition = 'failed' OR d.run_if IN ('at_least_one_failed', 'all_failed'))) ELSE false END AS handled) h "
				 "WHERE r.run_id = $1 AND r.status IN ('running', 'cancelling') "
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
	tally->blocked = weir_spi_int64(0, 7, NULL);
	tally->end.resumed = start != NULL && start[0] == START_RESUME;
	tally->end.n_landing = weir_spi_int64(0, 8, NULL);
	tally->end.n_landing_succeeded = weir_spi_int64(0, 9, NULL);
	tally->end.failed_after_landing = weir_spi_int64(0, 10, NULL) > 0;
	tally->is_apart = weir_spi_bool(0, 11, NULL);
	tally->pipeline_id = weir_spi_int64(0, 12, NULL);
	tally->end.succeeded = weir_spi_int64(0, 13, NULL) == 0;
	return true;
}

/*
 * A failure that a handler dealt with does not count; one that no handler
 * saw does, even if everything that ran after it succeeded: whoever ignores
 * a failure says so with a handler.  A cancelled run whose last task
 * succeeded all the same has succeeded: what it should do is done.
 */
static RunStatus
final_status(const RunTally *tally)
{
	if (tally->failed == 0 && tally->cancelled == 0 && tally->blocked == 0)
		return RUN_SUCCEEDED;
	if (tally->status == RUN_CANCELLING)
		return tally->timed_out ? RUN_TIMED_OUT : RUN_CANCELLED;
	return tally->failed == 0 && tally->cancelled > 0 ? RUN_CANCELLED : RUN_FAILED;
}

void
advance_finish_run(int64 run_id)
{
	RunTally	tally;
	RunStatus	status;
	NextLoadStatus next;
	Oid			types[4] = {INT8OID, TEXTOID, CHAROID, INT8OID};
	Datum		values[4];

	if (is_live(run_id) || !read_tally(run_id, &tally))
		return;
	status = final_status(&tally);

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
			 "WHERE e.run_id = $1 ORDER BY e.occurred_at DESC, e.error_id DESC LIMIT 1), cancel_reason) END "
			 "WHERE run_id = $1",
			 4, types, values, NULL);
	engine_note_queue(tally.pipeline_id);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	if (tally.is_apart)
		return;					/* it says nothing of the pipeline as a whole, only of its own restart */

	landing_run_ended(run_id, status == RUN_SUCCEEDED, (char) next, tally.row_audit_id);
}
