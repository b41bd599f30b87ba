/*-------------------------------------------------------------------------
 * prune.c
 *	  weir.prune: a sweep in the caller's session, and what weir.status says
 *	  of the next one.
 *
 * Prune runs in the session of an administrator, in one transaction: what it
 * removes stays locked until that ends.  It may run beside the conductor's
 * own sweep; neither waits for the other.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "retention.h"
#include "retention_int.h"

PG_FUNCTION_INFO_V1(weir_prune);
PG_FUNCTION_INFO_V1(weir_prunable);

/* How much is looked at, and therefore the time it takes, is bounded; what is too many is not counted. */
static const char prunable_sql[] =
	"SELECT count(*)::integer FROM (SELECT * FROM weir.run n ORDER BY n.queued_at LIMIT 500) r "
	"LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id "
	"LEFT JOIN weir.pipeline_version v ON v.pipeline_id = p.pipeline_id AND v.version = p.current_version "
	"WHERE " RETENTION_ENDED("r") " AND coalesce(v.retention_age, make_interval(secs => $1)) > interval '0' "
	"AND coalesce(r.ended_at, r.queued_at) < clock_timestamp() - coalesce(v.retention_age, make_interval(secs => $1)) "
	"AND NOT (p.pipeline_id IS NOT NULL AND r.run_id = (SELECT l.run_id FROM weir.run l "
	"WHERE l.pipeline_id = r.pipeline_id ORDER BY l.run_id DESC LIMIT 1)) "
	"AND NOT (" RETENTION_KEPT("r") ")";

/* prune(max_runs) returns how many runs were removed */
Datum
weir_prune(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	Sweep	   *sweep;
	int64		removed;

	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"max_runs\" must be above zero")));
	weir_enter(&scope);
	weir_require_admin(scope.caller, "prune the run log");
	sweep_prefer_indexes();
	sweep = sweep_begin(PG_GETARG_INT32(0));
	while (sweep_step(sweep))
	{
		/* The tables of results would pile up until the end of the call. */
		SPI_freetuptable(SPI_tuptable);
	}
	sweep_note(sweep);
	removed = sweep_removed(sweep);
	weir_leave(&scope);
	PG_RETURN_INT64(removed);
}

Datum
weir_prunable(PG_FUNCTION_ARGS)
{
	static const Oid types[1] = {FLOAT8OID};
	Datum		values[1] = {Float8GetDatum((double) retention_age_s)};
	WeirScope	scope;
	int32		n;

	weir_enter(&scope);
	sweep_prefer_indexes();
	weir_spi(prunable_sql, 1, types, values, NULL);
	n = (int32) weir_spi_int64(0, 1, NULL);
	weir_leave(&scope);
	PG_RETURN_INT32(n);
}
