/*-------------------------------------------------------------------------
 * retention.c
 *	  A sweep through the run log: runs that are too old or too many go.
 *
 * Runs in the conductor, a few milliseconds at a time while it has nothing
 * better to do (engine/upkeep.c), or in a session that calls weir.prune().
 * Both may be at it at once, and others work on the same log meanwhile: a run
 * is removed only when its row could be locked at once and says, at its
 * newest version, that it may go.  All that is logged of it goes in the same
 * transaction.  Dying in the middle leaves every run whole or gone.
 *
 * What somebody may still need is kept, however old, see KEPT.  Of the rest
 * those go that are beyond the number of ended runs kept for their pipeline,
 * or that ended longer ago than their age allows.
 *
 * Every statement looks at a bounded number of rows by an index.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "access.h"
#include "retention.h"
#include "retention_int.h"

#define RANK_ROWS		2000	/* index entries counted by one step */
#define MAX_BATCH		256		/* runs of one step */
#define STEP_US			3000	/* a step should not take longer */

int			retention_age_s = 90 * 86400;
int			retention_runs = 10000;

static const char pipeline_sql[] =
	"SELECT w.pipeline_id, (extract(epoch FROM v.retention_age) * 1000)::bigint, v.retention_runs, "
	"(SELECT count(*) FROM weir.run q WHERE q.pipeline_id = w.pipeline_id AND q.live = 'q') "
	"+ (SELECT count(*) FROM weir._active a WHERE a.pipeline_id = w.pipeline_id), "
	"CASE WHEN p.pipeline_id IS NOT NULL THEN (SELECT l.run_id FROM weir.run l WHERE l.pipeline_id = w.pipeline_id "
	"ORDER BY l.run_id DESC LIMIT 1) END "
	"FROM (SELECT r.pipeline_id FROM weir.run r WHERE r.pipeline_id > $1 ORDER BY r.pipeline_id LIMIT 1) w "
	"LEFT JOIN weir.pipeline p ON p.pipeline_id = w.pipeline_id "
	"LEFT JOIN weir.pipeline_version v ON v.pipeline_id = p.pipeline_id AND v.version = p.current_version";

static const char rank_sql[] =
	"SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = $1 AND r.run_id < $2 ORDER BY r.run_id DESC OFFSET $3 LIMIT 1";

/* The oldest runs, and whether one of them says that there is nothing to remove after it. */
static const char window_sql[] =
	"SELECT max(w.run_id), bool_or(w.run_id >= $4 AND w.queued_at >= $5) "
	"FROM (SELECT r.run_id, r.queued_at FROM weir.run r WHERE r.pipeline_id = $1 AND r.run_id > $2 ORDER BY r.run_id LIMIT $3) w";

static const char pick_sql[] =
	"SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = $1 AND r.run_id > $2 AND r.run_id <= $3 "
	"AND " RETENTION_ENDED("r") " AND (coalesce(r.ended_at, r.queued_at) < $5 OR (r.run_id < $4 AND NOT " RETENTION_TO_BE_UNDONE("r") ")) AND r.run_id <> $6 "
	"AND NOT (" RETENTION_KEPT("r") ") ORDER BY r.run_id FOR UPDATE OF r SKIP LOCKED";

/* Everything that is logged of a run, and the run. */
static const char *const delete_sql[] = {
	"DELETE FROM weir.row_count WHERE run_id = ANY ($1)",
	"DELETE FROM weir.activity WHERE run_id = ANY ($1)",
	"DELETE FROM weir.error WHERE run_id = ANY ($1)",
	"DELETE FROM weir.attempt WHERE run_id = ANY ($1)",
	"DELETE FROM weir.task_run WHERE run_id = ANY ($1)",
	"DELETE FROM weir.run WHERE run_id = ANY ($1)",
};

/* The first of the runs that stay for now, but not for ever. */
static const char next_old_sql[] =
	"SELECT (extract(epoch FROM min(coalesce(r.ended_at, r.queued_at)) FILTER (WHERE " RETENTION_ENDED("r") " AND r.run_id <> $3 "
	"AND NOT (" RETENTION_KEPT("r") "))) * 1000)::bigint, count(*) = 100 "
	"FROM (SELECT * FROM weir.run n WHERE n.pipeline_id = $1 AND n.run_id > $2 ORDER BY n.run_id LIMIT 100) r";

static const char note_sql[] =
	"UPDATE weir.retention SET pruned_at = clock_timestamp(), removed_runs = removed_runs + $1 WHERE only_row IN "
	"(SELECT n.only_row FROM weir.retention n FOR UPDATE SKIP LOCKED)";

void
retention_define_gucs(void)
{
	DefineCustomIntVariable("weir.retention_age",
							"Time for which ended runs stay in the log.",
							"Applies to pipelines whose definition does not say; 0 keeps them for ever.",
							&retention_age_s, 90 * 86400, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("weir.retention_runs",
							"Number of ended runs of a pipeline that stay in the log.",
							"Applies to pipelines whose definition does not say; 0 keeps all.",
							&retention_runs, 10000, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
sweep_prefer_indexes(void)
{
	static const char *const options[] = {
		"enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"
	};

	for (size_t i = 0; i < lengthof(options); i++)
		(void) set_config_option(options[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

TimestampTz
sweep_cutoff(int64 age_ms)
{
	TimestampTz cutoff;

	if (age_ms == 0)
		return DT_NOBEGIN;
	cutoff = GetCurrentTimestamp() - age_ms * 1000;
	return IS_VALID_TIMESTAMP(cutoff) ? cutoff : DT_NOBEGIN;
}

Sweep *
sweep_begin(int64 max_runs)
{
	Sweep	   *sweep = palloc0(sizeof(Sweep));

	sweep->cxt = CurrentMemoryContext;
	sweep->phase = SWEEP_PIPELINE;
	sweep->max_runs = max_runs;
	sweep->next_old_ms = RETENTION_NEVER;
	sweep->has_limits = retention_age_s > 0 || retention_runs > 0;
	return sweep;
}

int64
sweep_removed(const Sweep *sweep)
{
	return sweep->removed;
}

int64
sweep_next_old(const Sweep *sweep)
{
	return sweep->next_old_ms;
}

bool
sweep_has_limits(const Sweep *sweep)
{
	return sweep->has_limits;
}

/* ---- steps ---- */

/* Go to the next pipeline that has runs and a limit, of those that were dropped too. */
static void
step_pipeline(Sweep *sweep)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(sweep->pipeline_id)};
	int64		runs;
	bool		isnull;

	if (weir_spi(pipeline_sql, 1, types, values, NULL) == 0)
	{
		sweep->phase = SWEEP_VARIABLES;
		return;
	}
	sweep->pipeline_id = weir_spi_int64(0, 1, NULL);
	sweep->age_ms = weir_spi_int64(0, 2, &isnull);
	if (isnull)
		sweep->age_ms = (int64) retention_age_s * 1000;
	runs = weir_spi_int64(0, 3, &isnull);
	if (isnull)
		runs = retention_runs;
	if (runs == 0 && sweep->age_ms == 0)
		return;
	sweep->has_limits = true;
	/* Live runs may be anywhere among the newest: keep as many more. */
	sweep->rank_left = runs == 0 ? 0 : runs + weir_spi_int64(0, 4, NULL);
	sweep->latest = weir_spi_int64(0, 5, NULL);
	sweep->rank_at = PG_INT64_MAX;
	sweep->keep_from = 0;
	sweep->run_at = 0;
	sweep->batch = 1;
	sweep->phase = runs == 0 ? SWEEP_RUNS : SWEEP_RANK;
}

/* From the newest run backwards to the last one that is kept for the number. */
static void
step_rank(Sweep *sweep)
{
	static const Oid types[3] = {INT8OID, INT8OID, INT8OID};
	int64		n = Min(sweep->rank_left, RANK_ROWS);
	Datum		values[3] = {Int64GetDatum(sweep->pipeline_id), Int64GetDatum(sweep->rank_at), Int64GetDatum(n - 1)};

	sweep->phase = SWEEP_RUNS;
	if (weir_spi(rank_sql, 3, types, values, NULL) == 0)
		return;
	sweep->rank_at = weir_spi_int64(0, 1, NULL);
	sweep->rank_left -= n;
	if (sweep->rank_left > 0)
		sweep->phase = SWEEP_RANK;
	else
		sweep->keep_from = sweep->rank_at;
}

/* What of this pipeline gets too old next? */
static void
end_pipeline(Sweep *sweep, int64 after)
{
	static const Oid types[3] = {INT8OID, INT8OID, INT8OID};
	Datum		values[3] = {Int64GetDatum(sweep->pipeline_id), Int64GetDatum(after), Int64GetDatum(sweep->latest)};
	int64		ended;
	bool		isnull;

	sweep->phase = SWEEP_PIPELINE;
	if (sweep->age_ms == 0)
		return;
	weir_spi(next_old_sql, 3, types, values, NULL);
	ended = weir_spi_int64(0, 1, &isnull);
	if (!isnull)
		sweep->next_old_ms = Min(sweep->next_old_ms, ended + sweep->age_ms);
	else if (weir_spi_bool(0, 2, NULL))
		sweep->next_old_ms = 0;
}

static void
remove_runs(Sweep *sweep, uint64 n)
{
	static const Oid types[1] = {INT8ARRAYOID};
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		values[1];

	for (uint64 i = 0; i < n; i++)
		ids[i] = Int64GetDatum(weir_spi_int64(i, 1, NULL));
	values[0] = weir_array(INT8OID, ids, (int) n);
	/* A statement sees what was committed before it began: rows logged until the run was locked go too. */
	for (size_t i = 0; i < lengthof(delete_sql); i++)
		weir_spi(delete_sql[i], 1, types, values, NULL);
	sweep->removed += n;
	sweep->unnoted += n;
}

/* The next few runs of the pipeline, the oldest first. */
static void
step_runs(Sweep *sweep)
{
	static const Oid types[6] = {INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID};
	Datum		values[6] = {Int64GetDatum(sweep->pipeline_id), Int64GetDatum(sweep->run_at)};
	TimestampTz began = GetCurrentTimestamp();
	int64		before = sweep->run_at;
	bool		nothing_left,
				is_last;
	uint64		n;

	if (sweep->removed >= sweep->max_runs)
	{
		sweep->phase = SWEEP_DONE;
		return;
	}
	values[2] = Int64GetDatum(Min(sweep->batch, sweep->max_runs - sweep->removed));
	values[3] = Int64GetDatum(sweep->keep_from);
	values[4] = TimestampTzGetDatum(sweep_cutoff(sweep->age_ms));
	values[5] = Int64GetDatum(sweep->latest);
	weir_spi(window_sql, 5, types, values, NULL);
	sweep->run_at = weir_spi_int64(0, 1, &nothing_left);
	if (nothing_left)
	{
		sweep->phase = SWEEP_PIPELINE;
		return;
	}
	is_last = weir_spi_bool(0, 2, NULL);

	values[2] = Int64GetDatum(sweep->run_at);
	n = weir_spi(pick_sql, 6, types, values, NULL);
	if (n > 0)
		remove_runs(sweep, n);
	if (is_last)
		end_pipeline(sweep, before);

	/* As many as take a step's time: a run may have one task, or thousands. */
	if (GetCurrentTimestamp() - began > STEP_US)
		sweep->batch = Max(sweep->batch / 2, 1);
	else
		sweep->batch = Min(sweep->batch * 2, MAX_BATCH);
}

bool
sweep_step(Sweep *sweep)
{
	CHECK_FOR_INTERRUPTS();
	switch (sweep->phase)
	{
		case SWEEP_PIPELINE:
			step_pipeline(sweep);
			break;
		case SWEEP_RANK:
			step_rank(sweep);
			break;
		case SWEEP_RUNS:
			step_runs(sweep);
			break;
		case SWEEP_VARIABLES:
			sweep_step_variables(sweep);
			break;
		case SWEEP_BACKFILLS:
			sweep_step_backfills(sweep);
			break;
		case SWEEP_REQUESTS:
			sweep_step_requests(sweep);
			break;
		case SWEEP_DONE:
			break;
	}
	return sweep->phase != SWEEP_DONE;
}

void
sweep_note(Sweep *sweep)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(sweep->unnoted)};

	weir_spi(note_sql, 1, types, values, NULL);
	sweep->unnoted = 0;
}
