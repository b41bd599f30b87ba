/*-------------------------------------------------------------------------
 * trigger.c
 *	  weir.trigger and weir.cancel
 *
 * Run in the session of a client.  They write what is asked for and wake the
 * conductor when the transaction commits; it alone decides what follows.  A
 * call that dies in the middle, or is rolled back, leaves nothing.
 *
 * Locks: trigger holds the pipeline's row FOR KEY SHARE until commit, so that
 * only a drop waits for it; altering and pausing do not.  Cancel locks
 * nothing, see runfacts.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "compat.h"
#include "engine.h"
#include "runapi.h"
#include "status.h"

PG_FUNCTION_INFO_V1(weir_trigger);
PG_FUNCTION_INFO_V1(weir_cancel);

#define MAX_TRIGGER_NAME	260		/* bytes */
#define MAX_REASON			1000	/* bytes */

static const char find_pipeline_sql[] =
	"SELECT p.pipeline_id, p.current_version, p.owner, p.is_enabled FROM weir.pipeline p WHERE p.name = $1";

static const char lock_pipeline_sql[] =
	"SELECT p.pipeline_id, p.current_version, p.owner, p.is_enabled FROM weir.pipeline p "
	"WHERE p.name = $1 FOR KEY SHARE";

static const char queue_sql[] =
	"INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, "
	"trigger_type, trigger_name, triggered_by, owner, selected_tasks, priority, on_overlap) "
	"SELECT $1, $2, $3, 'queued', $4, coalesce($5, now()), $6, $7, $8, $9, $10, coalesce($11, v.priority), nullif(v.on_overlap, 'queue') "
	"FROM weir.pipeline_version v WHERE v.pipeline_id = $1 AND v.version = $3 RETURNING run_id, priority";

/* ---- trigger ---- */

static void
read_pipeline(const char *sql, const char *name, Oid caller, const char *what, int64 *pipeline_id, int *version, Oid *owner)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	bool		no_definition;

	values[0] = catalog_text(name);
	if (weir_spi(sql, 1, types, values, NULL) == 0)
		run_unknown_pipeline(name);
	*pipeline_id = weir_spi_int64(0, 1, NULL);
	*version = (int) weir_spi_int64(0, 2, &no_definition);
	*owner = (Oid) weir_spi_int64(0, 3, NULL);
	weir_require_operator_or_owner(caller, *owner, psprintf("%s pipeline \"%s\"", what, name));

	if (no_definition)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has no definition", name),
				 errdetail("An outside orchestrator registered it and runs it."),
				 errhint("Start it there, or give it a definition with weir.alter_pipeline.")));
	if (!weir_spi_bool(0, 4, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is disabled", name),
				 errhint("Enable it with weir.set_pipeline_enabled.")));
}

void
run_lock_pipeline(const char *name, Oid caller, const char *what, int64 *pipeline_id, int *version, Oid *owner)
{
	read_pipeline(lock_pipeline_sql, name, caller, what, pipeline_id, version, owner);
}

void
run_find_pipeline(const char *name, Oid caller, const char *what, int64 *pipeline_id, int *version, Oid *owner)
{
	read_pipeline(find_pipeline_sql, name, caller, what, pipeline_id, version, owner);
}

static void
check_nominal_time(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n) && TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(n)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"nominal_time\" must be finite")));
}

static void
check_priority(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n) && (PG_GETARG_INT32(n) < -1000 || PG_GETARG_INT32(n) > 1000))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"priority\" must be between -1000 and 1000")));
}

/* trigger(pipeline, params, nominal_time, trigger_type, trigger_name, tasks, priority) returns the run id */
Datum
weir_trigger(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {
		INT8OID, TEXTOID, INT4OID, JSONBOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTARRAYOID, INT4OID
	};
	WeirScope	scope;
	char	   *pipeline = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	char	   *trigger_type = run_arg_text(fcinfo, 3, "trigger_type", MAX_TRIGGER_NAME);
	char	   *trigger_name = run_arg_text(fcinfo, 4, "trigger_name", MAX_TRIGGER_NAME);
	int64		pipeline_id;
	int			version;
	Oid			owner;
	Datum		values[11] = {0};
	char		nulls[] = "           ";
	int64		run_id;

	PreventCommandIfReadOnly("weir.trigger()");
	check_nominal_time(fcinfo, 2);
	check_priority(fcinfo, 6);
	weir_enter(&scope);
	run_lock_pipeline(pipeline, scope.caller, "trigger", &pipeline_id, &version, &owner);

	values[0] = Int64GetDatum(pipeline_id);
	values[1] = catalog_text(pipeline);
	values[2] = Int32GetDatum(version);
	/* lives in SPI's memory, which is there until weir_leave() */
	values[3] = pipeline_bind_params(pipeline_id, version,
									 PG_ARGISNULL(1) ? catalog_jsonb("{}") : PG_GETARG_DATUM(1));
	nulls[4] = PG_ARGISNULL(2) ? 'n' : ' ';
	if (!PG_ARGISNULL(2))
		values[4] = PG_GETARG_DATUM(2);
	values[5] = catalog_text(trigger_type ? trigger_type : "manual");
	values[6] = run_text_or_null(trigger_name, &nulls[6]);
	values[7] = catalog_text(GetUserNameFromId(scope.caller, false));
	values[8] = ObjectIdGetDatum(owner);
	nulls[9] = PG_ARGISNULL(5) ? 'n' : ' ';
	if (!PG_ARGISNULL(5))
		values[9] = run_select_tasks(pipeline_id, version, PG_GETARG_ARRAYTYPE_P(5));
	nulls[10] = PG_ARGISNULL(6) ? 'n' : ' ';
	values[10] = PG_ARGISNULL(6) ? (Datum) 0 : PG_GETARG_DATUM(6);
	weir_spi(queue_sql, 11, types, values, nulls);
	run_id = weir_spi_int64(0, 1, NULL);

	engine_note_queued(pipeline_id, run_id, (int) weir_spi_int64(0, 2, NULL));
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}

/* ---- cancel ---- */

/* cancel(run_id, reason) returns whether there is something to cancel */
Datum
weir_cancel(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	char	   *reason = run_arg_text(fcinfo, 1, "reason", MAX_REASON);
	RunFacts	run;
	bool		wanted;

	weir_enter(&scope);
	run = run_read(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner, psprintf("cancel run " INT64_FORMAT, run_id));
	if (run.is_external)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " cannot be cancelled here", run_id),
				 errdetail("An outside orchestrator runs it."),
				 errhint("Cancel it there; if it is dead, use weir.reset_execution.")));

	/* A repair that is asked for, but not taken in, will make it a live run. */
	wanted = !run_status_is_final(run.status) || run.repair_pending;
	if (wanted && run.status != RUN_CANCELLING)
		run_request_cancel(run_id, reason, scope.caller);
	weir_leave(&scope);
	PG_RETURN_BOOL(wanted);
}
