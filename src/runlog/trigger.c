/*-------------------------------------------------------------------------
 * trigger.c
 *	  weir.trigger, weir.cancel and weir.repair
 *
 * Run in the session of a client.  They write what is asked for and wake the
 * conductor when the transaction commits; it alone decides what follows.  A
 * call that dies in the middle, or is rolled back, leaves nothing.
 *
 * Locks: trigger holds the pipeline's row FOR KEY SHARE until commit, so that
 * only a drop waits for it; altering and pausing do not.  Cancel and repair
 * lock nothing: a client that leaves its transaction open holds no lock the
 * conductor could wait for.  What they read may therefore be out of date when
 * the conductor takes the request in; it looks again and drops a request
 * that no longer applies.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
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
PG_FUNCTION_INFO_V1(weir_repair);

#define MAX_TRIGGER_NAME	260		/* bytes */
#define MAX_REASON			1000	/* bytes */

static const char lock_pipeline_sql[] =
	"SELECT p.pipeline_id, p.current_version, p.owner, p.is_enabled FROM weir.pipeline p "
	"WHERE p.name = $1 FOR KEY SHARE";

static const char queue_sql[] =
	"INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, "
	"trigger_type, trigger_name, triggered_by, owner) "
	"VALUES ($1, $2, $3, 'queued', $4, coalesce($5, now()), $6, $7, $8, $9) RETURNING run_id";

/* A run whose pipeline was dropped still has the owner it was triggered with. */
static const char run_sql[] =
	"SELECT r.status, r.is_external, coalesce(p.owner, r.owner), p.pipeline_id IS NOT NULL, p.is_enabled, "
	"s.last_run_id, r.pipeline_name, r.started_at IS NOT NULL, "
	"EXISTS (SELECT FROM weir.request q WHERE q.run_id = r.run_id AND q.action = 'repair'), "
	"EXISTS (SELECT FROM weir.pipeline_version v WHERE v.pipeline_id = r.pipeline_id AND v.version = r.version) "
	"FROM weir.run r LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id "
	"LEFT JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id WHERE r.run_id = $1";

/* One pending request of a kind is enough. */
static const char request_sql[] =
	"INSERT INTO weir.request (run_id, action, reason, requested_by) "
	"SELECT $1, $2, $3, $4 WHERE NOT EXISTS "
	"(SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = $2)";

/* What cancel and repair decide by */
typedef struct RunFacts
{
	int64		run_id;
	RunStatus	status;
	Oid			owner;
	bool		is_external;
	bool		pipeline_exists;
	bool		pipeline_enabled;
	bool		version_exists;
	bool		has_started;
	bool		repair_pending;
	int64		last_run_id;	/* that the pipeline started last; 0 none */
	char	   *pipeline_name;
} RunFacts;

/* ---- what the other functions on runs use too ---- */

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

void
run_require_visible(Oid role, Oid owner, const char *what)
{
	Oid			reader = get_role_oid("weir_reader", true);

	if (weir_is_operator(role) || has_privs_of_role(role, owner) ||
		(OidIsValid(reader) && has_privs_of_role(role, reader)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not %s", GetUserNameFromId(role, false), what),
			 errhint("Grant the role weir_reader, or membership in the owner's role.")));
}

/* ---- trigger ---- */

static Datum
text_or_null(const char *value, char *null)
{
	*null = value == NULL ? 'n' : ' ';
	return value == NULL ? (Datum) 0 : catalog_text(value);
}

/* An optional name, length-limited; NULL for null */
static char *
name_argument(FunctionCallInfo fcinfo, int n, const char *name, size_t limit)
{
	return PG_ARGISNULL(n) ? NULL : catalog_arg_required(fcinfo, n, name, limit);
}

/* Pipeline id, version and owner for a new run, the pipeline's row locked */
static void
lock_pipeline(const char *name, Oid caller, int64 *pipeline_id, int *version, Oid *owner)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	bool		no_definition;

	values[0] = catalog_text(name);
	if (weir_spi(lock_pipeline_sql, 1, types, values, NULL) == 0)
		run_unknown_pipeline(name);
	*pipeline_id = weir_spi_int64(0, 1, NULL);
	*version = (int) weir_spi_int64(0, 2, &no_definition);
	*owner = (Oid) weir_spi_int64(0, 3, NULL);
	weir_require_operator_or_owner(caller, *owner, psprintf("trigger pipeline \"%s\"", name));

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

static void
check_nominal_time(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n) && TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(n)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"nominal_time\" must be finite")));
}

/* trigger(pipeline, params, nominal_time, trigger_type, trigger_name) returns the run id */
Datum
weir_trigger(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {
		INT8OID, TEXTOID, INT4OID, JSONBOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, REGROLEOID
	};
	WeirScope	scope;
	char	   *pipeline = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	char	   *trigger_type = name_argument(fcinfo, 3, "trigger_type", MAX_TRIGGER_NAME);
	char	   *trigger_name = name_argument(fcinfo, 4, "trigger_name", MAX_TRIGGER_NAME);
	int64		pipeline_id;
	int			version;
	Oid			owner;
	Datum		values[9] = {0};
	char		nulls[] = "         ";
	int64		run_id;

	check_nominal_time(fcinfo, 2);
	weir_enter(&scope);
	lock_pipeline(pipeline, scope.caller, &pipeline_id, &version, &owner);

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
	values[6] = text_or_null(trigger_name, &nulls[6]);
	values[7] = catalog_text(GetUserNameFromId(scope.caller, false));
	values[8] = ObjectIdGetDatum(owner);
	weir_spi(queue_sql, 9, types, values, nulls);
	run_id = weir_spi_int64(0, 1, NULL);

	engine_wake_at_commit(ENGINE_WAKE_RUN);
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}

/* ---- requests ---- */

/* Read, without a lock, what is known of a run. */
static RunFacts
read_run(int64 run_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[1];
	RunFacts	run = {0};

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
	run.repair_pending = weir_spi_bool(0, 9, NULL);
	run.version_exists = weir_spi_bool(0, 10, NULL);
	return run;
}

static void
request(int64 run_id, const char *action, const char *reason, Oid caller)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char		nulls[] = "    ";

	values[0] = Int64GetDatum(run_id);
	values[1] = catalog_text(action);
	values[2] = text_or_null(reason, &nulls[2]);
	values[3] = catalog_text(GetUserNameFromId(caller, false));
	if (weir_spi(request_sql, 4, types, values, nulls) > 0)
		engine_wake_at_commit(ENGINE_WAKE_REQUEST);
}

/* cancel(run_id, reason) returns whether there is something to cancel */
Datum
weir_cancel(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	char	   *reason = name_argument(fcinfo, 1, "reason", MAX_REASON);
	RunFacts	run;
	bool		wanted;

	weir_enter(&scope);
	run = read_run(run_id);
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
		request(run_id, "cancel", reason, scope.caller);
	weir_leave(&scope);
	PG_RETURN_BOOL(wanted);
}

noreturn_compat static void
not_repairable(const RunFacts *run, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("run " INT64_FORMAT " cannot be repaired", run->run_id),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
	pg_unreachable();
}

static void
check_repairable(const RunFacts *run)
{
	if (run->is_external)
		not_repairable(run, "An outside orchestrator runs it.", "Start it there again.");
	if (!run_status_is_final(run->status))
		not_repairable(run, psprintf("It has not ended; its status is %s.", run_status_name(run->status)),
					   "Wait until it has ended, or cancel it with weir.cancel.");
	if (run->status != RUN_FAILED && run->status != RUN_TIMED_OUT && run->status != RUN_CANCELLED)
		not_repairable(run, psprintf("Its status is %s.", run_status_name(run->status)),
					   "Only runs that failed, timed out or were cancelled are repaired; start a new one with weir.trigger.");
	if (!run->pipeline_exists || !run->version_exists)
		not_repairable(run, psprintf("Pipeline \"%s\" was dropped.", run->pipeline_name),
					   "Create the pipeline again and start it with weir.trigger.");
	if (!run->has_started)
		not_repairable(run, "It never started.", "Start a new one with weir.trigger.");
	if (run->last_run_id != run->run_id)
		not_repairable(run, run->last_run_id == 0 ?
					   pstrdup("It is not the latest run of its pipeline.") :
					   psprintf("Run " INT64_FORMAT " of the pipeline started later.", run->last_run_id),
					   "Repair the latest run, or start a new one with weir.trigger.");
	if (!run->pipeline_enabled)
		not_repairable(run, psprintf("Pipeline \"%s\" is disabled.", run->pipeline_name),
					   "Enable it with weir.set_pipeline_enabled.");
}

/* repair(run_id) returns the run id */
Datum
weir_repair(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	RunFacts	run;

	weir_enter(&scope);
	run = read_run(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner, psprintf("repair run " INT64_FORMAT, run_id));
	check_repairable(&run);
	request(run_id, "repair", NULL, scope.caller);
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}
