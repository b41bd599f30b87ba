/*-------------------------------------------------------------------------
 * backfill.c
 *	  weir.backfill and weir.cancel_backfill: runs over windows of the past
 *
 * Run in the session of a client.  All runs are queued at once, in one
 * statement; how many go on at a time the conductor counts from the runs
 * themselves.  They are apart from ordinary runs: what a window ends as says
 * nothing of what the pipeline's next start must do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "engine.h"
#include "runapi.h"

PG_FUNCTION_INFO_V1(weir_backfill);
PG_FUNCTION_INFO_V1(weir_cancel_backfill);

#define MAX_WINDOWS			100000
#define MAX_CONCURRENCY		10000
#define MAX_REASON			1000	/* bytes */
#define BACKFILL_PRIORITY	(-2000) /* behind every run that was triggered */

static void
check_windows(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"window_from", "window_to", "step"};

	for (int i = 1; i <= 3; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not be null", names[i - 1])));
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(1)) || TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)) ||
		PG_GETARG_TIMESTAMPTZ(1) >= PG_GETARG_TIMESTAMPTZ(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the windows must be finite and window_from before window_to")));
	if (PG_ARGISNULL(5) || PG_GETARG_INT32(5) < 1 || PG_GETARG_INT32(5) > MAX_CONCURRENCY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"concurrency\" must be between 1 and %d", MAX_CONCURRENCY)));
}

static void
check_step(Datum from, Datum to, Datum step)
{
	static const Oid types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INTERVALOID};
	Datum		values[] = {from, to, step};

	(void) weir_spi("SELECT $1 + $3 > $1 AND $3 > interval '0', "
					"CASE WHEN $3 > interval '0' THEN ceil(extract(epoch FROM $2 - $1) / greatest(extract(epoch FROM $3), 0.000001)) ELSE 0 END > 100000",
					3, types, values, NULL);
	if (!weir_spi_bool(0, 1, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"step\" must be above zero")));
	if (weir_spi_bool(0, 2, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a backfill can have at most %d windows", MAX_WINDOWS),
				 errhint("Take a longer step, or several backfills.")));
}

/* Not an error: it takes longer than was asked for. */
static void
notice_limit(const char *pipeline, int64 pipeline_id, int version, int concurrency)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(pipeline_id), Int32GetDatum(version)};
	int			limit;

	(void) weir_spi("SELECT v.max_concurrent_runs FROM weir.pipeline_version v WHERE v.pipeline_id = $1 AND v.version = $2",
					2, types, values, NULL);
	limit = (int) weir_spi_int64(0, 1, NULL);
	if (concurrency > limit)
		ereport(NOTICE,
				(errmsg("at most %d of these runs go on at a time, not %d", limit, concurrency),
				 errdetail("max_concurrent_runs of pipeline \"%s\" is %d.", pipeline, limit),
				 errhint("Cancel the backfill, raise the limit with weir.alter_pipeline and ask again: its runs keep the version they have.")));
}

/* backfill(pipeline, window_from, window_to, step, params, concurrency, tasks) returns its id */
Datum
weir_backfill(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {
		INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INTERVALOID, INT4OID, TEXTOID,
		INT4OID, JSONBOID, REGROLEOID, TEXTARRAYOID, INT4OID
	};
	WeirScope	scope;
	char	   *pipeline = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	int64		pipeline_id,
				backfill_id,
				first_run_id;
	int			version;
	Oid			owner;
	Datum		values[12];
	char		nulls[] = "            ";

	check_windows(fcinfo);
	weir_enter(&scope);
	run_lock_pipeline(pipeline, scope.caller, "trigger", &pipeline_id, &version, &owner);
	check_step(PG_GETARG_DATUM(1), PG_GETARG_DATUM(2), PG_GETARG_DATUM(3));

	values[0] = Int64GetDatum(pipeline_id);
	values[1] = catalog_text(pipeline);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	values[4] = PG_GETARG_DATUM(3);
	values[5] = PG_GETARG_DATUM(5);
	values[6] = catalog_text(GetUserNameFromId(scope.caller, false));
	values[7] = Int32GetDatum(version);
	values[8] = pipeline_bind_params(pipeline_id, version, PG_ARGISNULL(4) ? catalog_jsonb("{}") : PG_GETARG_DATUM(4));
	values[9] = ObjectIdGetDatum(owner);
	nulls[10] = PG_ARGISNULL(6) ? 'n' : ' ';
	values[10] = PG_ARGISNULL(6) ? (Datum) 0 : run_select_tasks(pipeline_id, version, PG_GETARG_ARRAYTYPE_P(6));
	values[11] = Int32GetDatum(BACKFILL_PRIORITY);
	weir_spi("WITH b AS (INSERT INTO weir.backfill (pipeline_id, pipeline_name, window_from, window_to, step, concurrency, created_by) "
			 "VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING backfill_id), "
			 "q AS (INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, window_start, window_end, "
			 "trigger_type, trigger_name, triggered_by, owner, selected_tasks, backfill_id, priority) "
			 "SELECT $1, $2, $8, 'queued', $9, w, w, least(w + $5, $4), 'backfill', 'backfill ' || b.backfill_id, $7, $10, $11, b.backfill_id, $12 "
			 "FROM b, generate_series($3, $4, $5) w WHERE w < $4 ORDER BY w RETURNING run_id) "
			 "SELECT backfill_id, (SELECT min(run_id) FROM q) FROM b",
			 12, types, values, nulls);
	backfill_id = weir_spi_int64(0, 1, NULL);
	first_run_id = weir_spi_int64(0, 2, NULL);
	notice_limit(pipeline, pipeline_id, version, PG_GETARG_INT32(5));
	engine_note_queued(pipeline_id, first_run_id, BACKFILL_PRIORITY);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	weir_leave(&scope);
	PG_RETURN_INT64(backfill_id);
}

/* cancel_backfill(backfill_id, reason) returns how many runs will be cancelled */
Datum
weir_cancel_backfill(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID};
	WeirScope	scope;
	char	   *reason = run_arg_text(fcinfo, 1, "reason", MAX_REASON);
	Datum		values[3] = {0};
	char		nulls[] = "   ";
	uint64		n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"backfill_id\" must not be null")));
	weir_enter(&scope);
	values[0] = PG_GETARG_DATUM(0);
	if (weir_spi("SELECT p.owner FROM weir.backfill b LEFT JOIN weir.pipeline p USING (pipeline_id) WHERE b.backfill_id = $1",
				 1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("backfill " INT64_FORMAT " does not exist", PG_GETARG_INT64(0)),
				 errhint("View weir.backfills lists the backfills.")));
	weir_require_operator_or_owner(scope.caller, (Oid) weir_spi_int64(0, 1, NULL),
								   psprintf("cancel backfill " INT64_FORMAT, PG_GETARG_INT64(0)));
	values[1] = run_text_or_null(reason, &nulls[1]);
	values[2] = catalog_text(GetUserNameFromId(scope.caller, false));
	n = weir_spi("INSERT INTO weir.request (run_id, action, reason, requested_by) "
				 "SELECT r.run_id, 'cancel', $2, $3 FROM weir.run r WHERE r.backfill_id = $1 AND r.status IN ('queued', 'running') "
				 "AND NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = r.run_id AND q.action = 'cancel')",
				 3, types, values, nulls);
	if (n > 0)
		engine_wake_at_commit(ENGINE_WAKE_REQUEST);
	weir_leave(&scope);
	PG_RETURN_INT64((int64) n);
}
