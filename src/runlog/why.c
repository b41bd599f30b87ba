/*-------------------------------------------------------------------------
 * why.c
 *	  weir.why: what a run or a pipeline waits for
 *
 * Runs in the session of a client and only reads.  What waits for what is
 * declared in SQL (weir._why in sql/40-run-functions.sql); this file finds
 * the runs, checks that the caller may see them, and answers for shared
 * memory.  Takes weir_shmem_lock shared, for a moment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "catalogutil.h"
#include "runapi.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(weir_why_run);
PG_FUNCTION_INFO_V1(weir_why_pipeline);
PG_FUNCTION_INFO_V1(weir_conductor_state);
PG_FUNCTION_INFO_V1(weir_sql_worker_wait);

static const char run_owner_sql[] =
	"SELECT coalesce(p.owner, r.owner) FROM weir.run r "
	"LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id WHERE r.run_id = $1";

static const char pipeline_sql[] =
	"SELECT p.pipeline_id, p.owner FROM weir.pipeline p WHERE p.name = $1";

/* The oldest hundred that have not ended; more would hide what matters. */
static const char unfinished_sql[] =
	"SELECT coalesce(array_agg(u.run_id), '{}') FROM (SELECT r.run_id FROM weir.run r "
	"WHERE r.pipeline_id = $1 AND r.status IN ('queued', 'running', 'cancelling') "
	"ORDER BY r.run_id LIMIT 100) u";

static const char why_sql[] =
	"SELECT w.run_id, w.task, w.waiting_for, w.detail, w.since, w.hint, w.expected_start, w.deadline FROM weir._why($1, $2) w";

/* Rows of weir._why() into the result of the calling function; SPI connected. */
static void
answer(FunctionCallInfo fcinfo, Datum run_ids, int64 pipeline_id)
{
	static const Oid types[] = {INT8ARRAYOID, INT8OID};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[2];
	char		nulls[] = "  ";

	values[0] = run_ids;
	values[1] = Int64GetDatum(pipeline_id);
	nulls[1] = pipeline_id == 0 ? 'n' : ' ';
	weir_spi(why_sql, 2, types, values, nulls);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
}

/* why(run_id) */
Datum
weir_why_run(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID};
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	Datum		id = Int64GetDatum(run_id);

	InitMaterializedSRF(fcinfo, 0);
	weir_enter(&scope);
	if (weir_spi(run_owner_sql, 1, types, &id, NULL) == 0)
		run_unknown(run_id);
	weir_require_reader_or_owner(scope.caller, (Oid) weir_spi_int64(0, 1, NULL),
								 psprintf("see run " INT64_FORMAT, run_id));
	answer(fcinfo, PointerGetDatum(construct_array(&id, 1, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), 0);
	weir_leave(&scope);
	return (Datum) 0;
}

/* why(pipeline) */
Datum
weir_why_pipeline(PG_FUNCTION_ARGS)
{
	static const Oid name_types[] = {TEXTOID};
	static const Oid types[] = {INT8OID};
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	int64		pipeline_id;
	Datum		value;
	bool		isnull;

	InitMaterializedSRF(fcinfo, 0);
	weir_enter(&scope);
	value = catalog_text(name);
	if (weir_spi(pipeline_sql, 1, name_types, &value, NULL) == 0)
		run_unknown_pipeline(name);
	pipeline_id = weir_spi_int64(0, 1, NULL);
	weir_require_reader_or_owner(scope.caller, (Oid) weir_spi_int64(0, 2, NULL), psprintf("see pipeline \"%s\"", name));

	value = Int64GetDatum(pipeline_id);
	weir_spi(unfinished_sql, 1, types, &value, NULL);
	answer(fcinfo, SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull), pipeline_id);
	weir_leave(&scope);
	return (Datum) 0;
}

/* _conductor_state(): running, not running or not preloaded */
Datum
weir_conductor_state(PG_FUNCTION_ARGS)
{
	DatabaseSlot *slot;
	bool		running;

	if (weir_shmem == NULL)
		PG_RETURN_TEXT_P(cstring_to_text("not preloaded"));
	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(MyDatabaseId, false);
	running = slot != NULL && slot->pid != 0;
	LWLockRelease(weir_shmem_lock);
	PG_RETURN_TEXT_P(cstring_to_text(running ? "running" : "not running"));
}

/* _sql_worker_wait(): why a SQL task cannot have a worker now, what to do, and whether none can be started */
Datum
weir_sql_worker_wait(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, false};
	int			busy = 0,
				limit;
	TimestampTz failing = 0;
	char	   *detail = NULL;
	const char *hint = "Raise weir.max_sql_workers (and max_worker_processes).";

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (weir_shmem != NULL)
	{
		LWLockAcquire(weir_shmem_lock, LW_SHARED);
		for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
		{
			SqlSlotState state = weir_shmem->sql[i].state;

			if (state != SQL_SLOT_FREE && state != SQL_SLOT_IDLE)
				busy++;
		}
		failing = weir_shmem->sql_starts_fail_since;
		limit = sql_worker_limit();
		LWLockRelease(weir_shmem_lock);
		if (failing != 0)
		{
			detail = psprintf("no SQL worker can be started since %s: all max_worker_processes (%d) are taken",
							  timestamptz_to_str(failing), max_worker_processes);
			hint = "Raise max_worker_processes, or lower what else takes them; it is tried again every few seconds.";
		}
		else if (busy >= limit && limit < weir_max_sql_workers)
		{
			detail = psprintf("all %d SQL workers that max_worker_processes (%d) has room for beside weir.reserved_worker_processes (%d) have a task",
							  limit, max_worker_processes, weir_reserved_worker_processes);
			hint = "Raise max_worker_processes, or lower weir.reserved_worker_processes.";
		}
		else if (busy >= limit)
			detail = psprintf("all %d SQL workers have a task", limit);
	}
	if (detail != NULL)
	{
		values[0] = CStringGetTextDatum(detail);
		values[1] = CStringGetTextDatum(hint);
		nulls[0] = nulls[1] = false;
	}
	values[2] = BoolGetDatum(failing != 0);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
