/*-------------------------------------------------------------------------
 * config_variable_rollback.c
 *	  weir.rollback_execution: undo what failed executions left behind
 *
 * Runs in the session of an outside orchestrator, before it deletes the rows
 * that failed executions landed.  Holds the pipeline, the execution and then
 * the variables (in the order of their names) until commit.
 *
 * Whoever sets a variable for the execution, such as a task beside this call,
 * holds the execution and the variable and may lock the pipeline next, to
 * write his outcome.  So nobody may wait for him with the pipeline locked:
 * he is waited for first, with nothing held, and then all of it is taken at
 * once or given back.
 *
 * A variable goes back to what it was before the last unbroken row of changes
 * by executions since the pipeline's last success.  A change that somebody
 * else made in between stays: it was not theirs to undo.  The step back is a
 * change like any other, in the name of the execution that asked, so asking
 * again finds nothing left to do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "landing.h"
#include "status.h"
#include "restart.h"
#include "execution.h"

PG_FUNCTION_INFO_V1(weir_rollback_execution);

#define KEYS(a, b) \
	a ".system_name = " b ".system_name AND " a ".object_name = " b ".object_name " \
	"AND " a ".variable_name = " b ".variable_name"

/* Variables changed by executions of pipeline $1 after its last success $2 */
#define TOUCHED \
	"SELECT DISTINCT h.system_name, h.object_name, h.variable_name " \
	"FROM weir.run r JOIN weir.config_variable_history h ON h.run_id = r.run_id " \
	"WHERE r.pipeline_id = $1 AND r.run_id > $2"

static const char last_success_sql[] =
	"SELECT coalesce(s.last_success_run_id, 0) FROM weir.pipeline_state s WHERE s.pipeline_id = $1";

static const char any_sql[] = TOUCHED " LIMIT 1";

/* changes.kept is the last change that stays; the one after it knows where to go back to */
static const char restore_sql[] =
	"WITH touched AS MATERIALIZED (" TOUCHED "), "
	"changes AS (SELECT t.*, max(h.change_no) AS last, coalesce(max(h.change_no) FILTER (WHERE NOT EXISTS ("
	"SELECT FROM weir.run r WHERE r.run_id = h.run_id AND r.pipeline_id = $1 AND r.run_id > $2)), 0) AS kept "
	"FROM touched t JOIN weir.config_variable_history h ON " KEYS("h", "t") " "
	"GROUP BY t.system_name, t.object_name, t.variable_name), "
	"back AS (SELECT c.*, f.previous_value, f.previous_run_id, v.value, v.run_id FROM changes c "
	"JOIN weir.config_variable_history f ON " KEYS("f", "c") " AND f.change_no = c.kept + 1 "
	"JOIN weir.config_variable v ON " KEYS("v", "c") " "
	"WHERE v.value IS DISTINCT FROM f.previous_value), "
	"h AS (INSERT INTO weir.config_variable_history (system_name, object_name, variable_name, change_no, "
	"previous_value, previous_run_id, value, run_id, changed_by) "
	"SELECT system_name, object_name, variable_name, last + 1, value, run_id, previous_value, $3, $4 FROM back) "
	"UPDATE weir.config_variable v SET value = back.previous_value, run_id = back.previous_run_id, "
	"changed_by = $4, changed_at = clock_timestamp() FROM back WHERE " KEYS("v", "back");

static const char running_sql[] =
	"SELECT r.run_id FROM weir._active r WHERE r.pipeline_id = $1 "
	"AND r.run_id <> $2 ORDER BY r.run_id LIMIT 1";

static const char audit_ids_sql[] =
	"SELECT DISTINCT r.row_audit_id FROM weir.run r WHERE r.pipeline_id = $1 AND r.run_id > $2 "
	"AND r.row_audit_id IS NOT NULL AND r.status NOT IN ('queued', 'skipped', 'aborted') "
	"ORDER BY r.row_audit_id";

static const char last_sql[] =
	"UPDATE weir.pipeline_state SET next_load_status = 'R', origin_row_audit_id = NULL "
	"WHERE pipeline_id = $1 AND next_load_status = 'D'";

static const char last_run_sql[] =
	"UPDATE weir.run SET next_load_status = 'R' WHERE run_id = $1 AND next_load_status = 'D'";

/* Partial runs and windows: what they landed is for their own restarts. */
static const char apart_sql[] =
	"UPDATE weir.run SET next_load_status = 'R' WHERE pipeline_id = $1 AND run_id > $2 AND is_apart AND next_load_status = 'D'";

static const char run_row_sql[] =
	"SELECT r.pipeline_id, r.is_batch FROM weir.run r WHERE r.run_id = $1";

static const char wait_for_run_sql[] = "SELECT FROM weir.run WHERE run_id = $1 FOR UPDATE";

static const char touched_sql[] = TOUCHED " ORDER BY 1, 2, 3";

static const char wait_for_variable_sql[] =
	"SELECT FROM weir.config_variable WHERE system_name = $1 AND object_name = $2 AND variable_name = $3 FOR UPDATE";

static const char lock_state_sql[] = "SELECT FROM weir.pipeline_state WHERE pipeline_id = $1 FOR UPDATE";

static const char take_run_sql[] = "SELECT FROM weir.run WHERE run_id = $1 FOR UPDATE NOWAIT";

static const char take_variables_sql[] =
	"SELECT FROM weir.config_variable v JOIN (" TOUCHED ") t ON " KEYS("v", "t")
	" ORDER BY v.system_name, v.object_name, v.variable_name FOR UPDATE OF v NOWAIT";

/* ---- locks ---- */

/* Wait for whoever holds a row; nothing is held afterwards. */
static void
wait_for(const char *sql, int nargs, const Oid *types, const Datum *values)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	(void) weir_spi(sql, nargs, types, values, NULL);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* Wait until nobody sets a variable for the run, or one that would go back: one after the other. */
static void
wait_for_setters(const Datum *ids)
{
	static const Oid types[3] = {INT8OID, INT8OID, INT8OID};
	static const Oid key_types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum	   *keys;
	uint64		n;

	wait_for(wait_for_run_sql, 1, types, &ids[2]);
	n = weir_spi(touched_sql, 2, types, ids, NULL);
	keys = palloc(sizeof(Datum) * 3 * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		for (int k = 0; k < 3; k++)
			keys[3 * i + k] = CStringGetTextDatum(weir_spi_text(i, k + 1));
	for (uint64 i = 0; i < n; i++)
		wait_for(wait_for_variable_sql, 3, key_types, &keys[3 * i]);
}

/* False, and nothing is held, if somebody sets a variable. */
static bool
take_all(Datum *ids, bool is_batch)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		execution_lock_tree(DatumGetInt64(ids[2]));
		if (is_batch)
			execution_lock_family(DatumGetInt64(ids[0]));
		(void) weir_spi(lock_state_sql, 1, types, ids, NULL);
		(void) weir_spi(take_run_sql, 1, types, &ids[2], NULL);
		(void) weir_spi(take_variables_sql, 2, types, ids, NULL);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
		taken = false;
	}
	PG_END_TRY();
	return taken;
}

/*
 * Everything the rollback changes.  A success that is committed meanwhile
 * only means that fewer variables go back than are locked.
 */
static void
lock_all(int64 execution_id)
{
	static const Oid int8 = INT8OID;
	Datum		ids[3] = {0, 0, Int64GetDatum(execution_id)};	/* pipeline, its last success, execution */
	bool		is_batch;

	if (weir_spi(run_row_sql, 1, &int8, &ids[2], NULL) == 0)
		execution_unknown(execution_id);
	ids[0] = Int64GetDatum(weir_spi_int64(0, 1, NULL));
	is_batch = weir_spi_bool(0, 2, NULL);
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (weir_spi(last_success_sql, 1, &int8, ids, NULL) > 0)
			ids[1] = Int64GetDatum(weir_spi_int64(0, 1, NULL));
		wait_for_setters(ids);
	} while (!take_all(ids, is_batch));
}

/* Rows that somebody still works with must not be given up. */
static void
check_possible(const Execution *execution)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(execution->pipeline_id), Int64GetDatum(execution->id)};

	if (execution->status == RUN_SUCCEEDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " has succeeded and is not rolled back", execution->id)));
	if (!run_status_is_final(execution->status) && execution->start_status == START_RESUME)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " resumes after landing and still needs the landed rows", execution->id),
				 errhint("Log its error first; the next start then lands again.")));
	if (weir_spi(running_sql, 2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("execution " INT64_FORMAT " of the same pipeline is running", weir_spi_int64(0, 1, NULL)),
				 errhint("Roll back before the pipeline starts again, or with the id of the running execution.")));
}

static void
restore_variables(const Execution *execution, Oid caller)
{
	static const Oid types[4] = {INT8OID, INT8OID, INT8OID, TEXTOID};
	Datum		values[4] = {
		Int64GetDatum(execution->pipeline_id), Int64GetDatum(execution->state_last_success_id),
		Int64GetDatum(execution->id), CStringGetTextDatum(GetUserNameFromId(caller, false))
	};

	if (weir_spi(any_sql, 2, types, values, NULL) > 0)
		(void) weir_spi(restore_sql, 4, types, values, NULL);
}

/* Without its landed rows nothing can resume after landing. */
static void
forget_landing(const Execution *execution)
{
	static const Oid int8 = INT8OID;
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		id = Int64GetDatum(execution->pipeline_id);
	Datum		values[2] = {id, Int64GetDatum(execution->state_last_success_id)};

	(void) weir_spi(apart_sql, 2, types, values, NULL);
	if (weir_spi(last_sql, 1, &int8, &id, NULL) == 0)
		return;
	landing_forget_all(execution->pipeline_id);
	id = Int64GetDatum(execution->state_last_run_id);
	(void) weir_spi(last_run_sql, 1, &int8, &id, NULL);
}

/* rollback_execution(execution_id): one row per audit id whose rows are to be deleted */
Datum
weir_rollback_execution(PG_FUNCTION_ARGS)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	WeirScope	scope;
	Execution	execution;
	Datum		values[2];
	uint64		n;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	weir_enter(&scope);
	weir_require_operator(scope.caller, "roll executions back");
	lock_all(execution_arg_id(fcinfo, 0));
	execution_lock(execution_arg_id(fcinfo, 0), false, &execution);
	check_possible(&execution);
	restore_variables(&execution, scope.caller);
	forget_landing(&execution);

	values[0] = Int64GetDatum(execution.pipeline_id);
	values[1] = Int64GetDatum(execution.state_last_success_id);
	n = weir_spi(audit_ids_sql, 2, types, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Datum		row = Int64GetDatum(weir_spi_int64(i, 1, NULL));
		bool		isnull = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &row, &isnull);
	}
	weir_leave(&scope);
	return (Datum) 0;
}
