/*-------------------------------------------------------------------------
 * runfacts.c
 *	  What the functions on runs share: arguments, errors, what is known of a
 *	  run, and requests to the conductor.
 *
 * Runs in the session of a client.  Requests lock nothing: a client that
 * leaves its transaction open holds no lock the conductor could wait for.
 * What was read here may therefore be out of date when the conductor takes
 * the request in; it looks again and drops a request that no longer applies.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"
#include "repairable.h"
#include "runapi.h"

/* A run whose pipeline was dropped still has the owner it was triggered with. */
static const char run_sql[] =
	"SELECT r.status, r.is_external, coalesce(p.owner, r.owner), p.pipeline_id IS NOT NULL, p.is_enabled, "
	"s.last_run_id, r.pipeline_name, r.started_at IS NOT NULL, r.pipeline_id, r.version, r.params, "
	"EXISTS (SELECT FROM weir.request q WHERE q.run_id = r.run_id AND q.action = 'repair'), "
	"v.version IS NOT NULL, coalesce(" REPAIR_IS_OF_A_LOAD ", false) "
	"FROM weir.run r LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id "
	"LEFT JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id "
	"LEFT JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version WHERE r.run_id = $1";

int64
run_arg_id(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"run_id\" must not be null")));
	return PG_GETARG_INT64(n);
}

void
run_unknown(int64 run_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("run " INT64_FORMAT " does not exist", run_id),
			 errhint("Pass the run id that weir.trigger returned; view weir.runs lists the runs.")));
	pg_unreachable();
}

void
run_unknown_pipeline(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("pipeline \"%s\" does not exist", name),
			 errhint("Define it with weir.create_pipeline; view weir.pipelines lists the pipelines.")));
	pg_unreachable();
}

Datum
run_text_or_null(const char *value, char *null)
{
	*null = value == NULL ? 'n' : ' ';
	return value == NULL ? (Datum) 0 : catalog_text(value);
}

char *
run_arg_text(FunctionCallInfo fcinfo, int n, const char *name, size_t limit)
{
	return PG_ARGISNULL(n) ? NULL : catalog_arg_required(fcinfo, n, name, limit);
}

RunFacts
run_read(int64 run_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[1];
	RunFacts	run = {0};
	bool		isnull;

	values[0] = Int64GetDatum(run_id);
	if (weir_spi(run_sql, 1, types, values, NULL) == 0)
		run_unknown(run_id);
	run.run_id = run_id;
	if (!run_status_parse(weir_spi_text(0, 1), &run.status))
		elog(ERROR, "unknown status of run " INT64_FORMAT, run_id);
	run.is_external = weir_spi_bool(0, 2, NULL);
	run.owner = (Oid) weir_spi_int64(0, 3, NULL);
	run.pipeline_exists = weir_spi_bool(0, 4, NULL);
	run.pipeline_enabled = weir_spi_bool(0, 5, NULL);
	run.last_run_id = weir_spi_int64(0, 6, NULL);
	run.pipeline_name = weir_spi_text(0, 7);
	run.has_started = weir_spi_bool(0, 8, NULL);
	run.pipeline_id = weir_spi_int64(0, 9, NULL);
	run.version = weir_spi_int64(0, 10, NULL);
	run.params = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 11, &isnull);
	run.repair_pending = weir_spi_bool(0, 12, NULL);
	run.version_exists = weir_spi_bool(0, 13, NULL);
	run.is_a_load = weir_spi_bool(0, 14, NULL);
	return run;
}

/* One pending request of a kind is enough. */
static void
request(int64 run_id, const char *action, const char *reason, Oid caller,
		Datum params, bool no_params, Datum tasks, bool no_tasks, bool with_downstream)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTARRAYOID, BOOLOID};
	Datum		values[7];
	char		nulls[] = "       ";

	values[0] = Int64GetDatum(run_id);
	values[1] = catalog_text(action);
	values[2] = run_text_or_null(reason, &nulls[2]);
	values[3] = catalog_text(GetUserNameFromId(caller, false));
	values[4] = params;
	nulls[4] = no_params ? 'n' : ' ';
	values[5] = tasks;
	nulls[5] = no_tasks ? 'n' : ' ';
	values[6] = BoolGetDatum(with_downstream);
	if (weir_spi("INSERT INTO weir.request (run_id, action, reason, requested_by, params, tasks, with_downstream) "
				 "SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS "
				 "(SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = $2)",
				 7, types, values, nulls) > 0)
		engine_wake_at_commit(ENGINE_WAKE_REQUEST);
}

void
run_request_cancel(int64 run_id, const char *reason, Oid caller)
{
	request(run_id, "cancel", reason, caller, (Datum) 0, true, (Datum) 0, true, false);
}

void
run_request_repair(int64 run_id, Oid caller, Datum params, bool no_params, Datum tasks, bool no_tasks, bool with_downstream)
{
	request(run_id, "repair", NULL, caller, params, no_params, tasks, no_tasks, with_downstream);
}
