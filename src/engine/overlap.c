/*-------------------------------------------------------------------------
 * overlap.c
 *	  Queued runs that do not wait for those before them: they are skipped, or
 *	  replace them.
 *
 * Runs in the conductor's transaction, after the runs that can start have
 * started.  Runs of paused pipelines stay queued whatever they say.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "conductor_int.h"
#include "engine.h"
#include "outcome.h"

#define OVERLAP_BATCH	500

static void
skip_run(int64 run_id)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};

	if (weir_spi("UPDATE weir.run SET status = 'skipped', start_status = 'C', ended_at = clock_timestamp(), "
				 "error_message = 'max_concurrent_runs of the pipeline were going on' WHERE run_id = $1 AND status = 'queued' "
				 "RETURNING pipeline_id",
				 1, types, values, NULL) > 0)
		engine_note_queue(weir_spi_int64(0, 1, NULL));
	engine_wake_at_commit(ENGINE_WAKE_RUN);
}

/* Runs of the pipeline of r before it that have not ended: two indexes, however long the log is. */
#define OLDER(what, live) \
	"SELECT " what " FROM weir.run o WHERE o.pipeline_id = r.pipeline_id AND o.run_id < r.run_id AND " live " AND NOT o.is_apart"
#define OLDER_QUEUED(what) OLDER(what, "o.live = 'q'")
#define OLDER_RUNNING(what) OLDER(what, "o.live = 'a' AND o.status = 'running'")

/* Oldest first. */
static void
replace_older(Conductor *c, int64 run_id)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	uint64		n = weir_spi("SELECT l.run_id FROM weir.run r CROSS JOIN LATERAL (" OLDER_QUEUED("o.run_id") " UNION ALL " OLDER_RUNNING("o.run_id") ") l "
							 "WHERE r.run_id = $1 ORDER BY l.run_id LIMIT 500",
							 1, types, values, NULL);
	int64	   *older = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		older[i] = weir_spi_int64(i, 1, NULL);
	for (uint64 i = 0; i < n; i++)
		intake_cancel_run(c, older[i], psprintf("run " INT64_FORMAT " replaces it", run_id), SQL_CANCEL_ASKED);
}

void
overlap_take_in(Conductor *c, bool all, Datum pipelines)
{
	static const Oid types[3] = {INT8OID, BOOLOID, INT8ARRAYOID};
	Datum		values[3] = {Int64GetDatum(OVERLAP_BATCH), BoolGetDatum(all), pipelines};
	uint64		n;
	int64	   *runs;
	int64	   *pipeline_ids;
	bool	   *skips;

	n = weir_spi("SELECT r.run_id, r.on_overlap = 'skip', r.pipeline_id FROM weir.run r JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id AND NOT p.is_paused "
				 "JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version "
				 "WHERE r.live = 'q' AND r.on_overlap IS NOT NULL AND ($2 OR r.pipeline_id = ANY ($3)) AND CASE r.on_overlap WHEN 'skip' THEN "
				 "(SELECT count(*) FROM weir._active a WHERE a.pipeline_id = r.pipeline_id) >= v.max_concurrent_runs "
				 "ELSE EXISTS (" OLDER_QUEUED("1") ") OR EXISTS (" OLDER_RUNNING("1") ") END "
				 "ORDER BY r.pipeline_id, r.run_id DESC LIMIT $1",
				 3, types, values, NULL);
	runs = palloc(sizeof(int64) * Max(n, 1));
	pipeline_ids = palloc(sizeof(int64) * Max(n, 1));
	skips = palloc(sizeof(bool) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		runs[i] = weir_spi_int64(i, 1, NULL);
		skips[i] = weir_spi_bool(i, 2, NULL);
		pipeline_ids[i] = weir_spi_int64(i, 3, NULL);
	}
	for (uint64 i = 0; i < n; i++)
	{
		if (!outcome_lock_run(runs[i], false))
		{
			conductor_defer(c);
			queues_note(c, pipeline_ids[i]);
		}
		else if (skips[i])
			skip_run(runs[i]);
		else
			replace_older(c, runs[i]);
		c->did_work = true;
	}
	/* Those of other pipelines that did not fit were noted, and are not any more. */
	if (n == OVERLAP_BATCH)
	{
		if (c->defer_until_ms == NEVER)
			c->wake |= ENGINE_WAKE_QUEUES;
		else
			c->put_off |= ENGINE_WAKE_QUEUES;
	}
}
