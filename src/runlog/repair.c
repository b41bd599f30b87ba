/*-------------------------------------------------------------------------
 * repair.c
 *	  weir.repair, weir.rerun_from and weir.restart
 *
 * Run in the session of a client.  A repair goes on in the same run: its
 * history stays, and so does its row audit id.  A restart is a new run, which
 * the pipeline's state lets start over or resume like any other.  What is
 * asked for here, engine/rerun.c does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "engine.h"
#include "repairable.h"
#include "runapi.h"
#include "status.h"

PG_FUNCTION_INFO_V1(weir_repair);
PG_FUNCTION_INFO_V1(weir_rerun_from);
PG_FUNCTION_INFO_V1(weir_restart);

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

/* The run that went on with what this one landed; 0: none did. */
static int64
resumed_by(int64 run_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};

	return weir_spi("SELECT " REPAIR_IS_RESUMED_BY " FROM weir.run r WHERE r.run_id = $1", 1, types, values, NULL) == 0 ? 0 :
		weir_spi_int64(0, 1, NULL);
}

/* any_end: also a run that succeeded, to repeat what is named */
static void
check_repairable(const RunFacts *run, bool any_end)
{
	int64		later;

	if (run->is_external)
		not_repairable(run, "An outside orchestrator runs it.", "Start it there again.");
	if (!run_status_is_final(run->status))
		not_repairable(run, psprintf("It has not ended; its status is %s.", run_status_name(run->status)),
					   "Wait until it has ended, or cancel it with weir.cancel.");
	if (!run_status_can(run->status, RUN_RUNNING) || (run->status == RUN_SUCCEEDED && !any_end))
		not_repairable(run, psprintf("Its status is %s.", run_status_name(run->status)),
					   run->status == RUN_SUCCEEDED ?
					   "Name what to repeat with weir.rerun_from, or start a new run with weir.trigger." :
					   "Only runs that failed, timed out or were cancelled are repaired; start a new one with weir.trigger.");
	if (!run->pipeline_exists || !run->version_exists)
		not_repairable(run, psprintf("Pipeline \"%s\" was dropped.", run->pipeline_name),
					   "Create the pipeline again and start it with weir.trigger.");
	if (!run->has_started)
		not_repairable(run, "It never started.", "Start a new one with weir.trigger.");
	if (!run->is_a_load)
		not_repairable(run, run->last_run_id == 0 ?
					   pstrdup("It is not the latest run of its pipeline.") :
					   psprintf("Run " INT64_FORMAT " of the pipeline started later.", run->last_run_id),
					   "Repair the latest run, or repeat this one in a new run with weir.restart.");
	later = resumed_by(run->run_id);
	if (later != 0)
		not_repairable(run, psprintf("Run " INT64_FORMAT " went on with what it landed.", later),
					   psprintf("If that one did not succeed, repair it: SELECT weir.repair(" INT64_FORMAT ");", later));
	if (!run->pipeline_enabled)
		not_repairable(run, psprintf("Pipeline \"%s\" is disabled.", run->pipeline_name),
					   "Enable it with weir.set_pipeline_enabled.");
}

void
run_check_repairable(const RunFacts *run)
{
	check_repairable(run, false);
}

/* What landed in an earlier run cannot land again with the same row audit id. */
static void
refuse_reused(int64 run_id, Datum tasks)
{
	static const Oid types[] = {INT8OID, TEXTARRAYOID};
	Datum		values[] = {Int64GetDatum(run_id), tasks};

	if (weir_spi("SELECT task_name FROM weir.task_run WHERE run_id = $1 AND task_name = ANY ($2) AND status = 'reused' ORDER BY task_no LIMIT 1",
				 2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task \"%s\" of run " INT64_FORMAT " cannot run again", weir_spi_text(0, 1), run_id),
				 errdetail("The run uses what an earlier run landed."),
				 errhint("Start a new run with weir.trigger, or leave the task out.")));
}

/* Parameters of the run with those given put over them, checked against its version. */
static Datum
corrected_params(const RunFacts *run, Datum given)
{
	static const Oid types[] = {JSONBOID, JSONBOID};
	Datum		values[] = {run->params, given};
	bool		isnull;

	if (weir_spi("SELECT $1 || $2 WHERE jsonb_typeof($2) = 'object'", 2, types, values, NULL) == 0)
		return pipeline_bind_params(run->pipeline_id, run->version, given); /* says what is wrong */
	return pipeline_bind_params(run->pipeline_id, run->version,
								SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* repair(run_id, params, tasks, downstream) returns the run id */
Datum
weir_repair(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	Datum		params = (Datum) 0,
				tasks = (Datum) 0;
	RunFacts	run;

	weir_enter(&scope);
	run = run_read(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner, psprintf("repair run " INT64_FORMAT, run_id));
	check_repairable(&run, !PG_ARGISNULL(2));
	if (!PG_ARGISNULL(1))
		params = corrected_params(&run, PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(2))
	{
		tasks = run_select_again(run_id, run.pipeline_id, run.version, PG_GETARG_ARRAYTYPE_P(2));
		refuse_reused(run_id, tasks);
	}
	run_request_repair(run_id, scope.caller, params, PG_ARGISNULL(1), tasks, PG_ARGISNULL(2),
					   !PG_ARGISNULL(3) && PG_GETARG_BOOL(3));
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}

/* rerun_from(run_id, task) returns the run id */
Datum
weir_rerun_from(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	char	   *task = catalog_arg_required(fcinfo, 1, "task", NAMEDATALEN - 1);
	Datum		selector = catalog_text(psprintf("%s+", task));
	Datum		tasks;
	RunFacts	run;

	weir_enter(&scope);
	run = run_read(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner, psprintf("repair run " INT64_FORMAT, run_id));
	check_repairable(&run, true);
	tasks = run_select_again(run_id, run.pipeline_id, run.version,
							 DatumGetArrayTypeP(weir_array(TEXTOID, &selector, 1)));
	refuse_reused(run_id, tasks);
	run_request_repair(run_id, scope.caller, (Datum) 0, true, tasks, false, false);
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}

/* A selection still names tasks of the pipeline's current version? */
static void
check_selection(int64 run_id, int64 pipeline_id, int version)
{
	static const Oid types[] = {INT8OID, INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(run_id), Int64GetDatum(pipeline_id), Int32GetDatum(version)};

	if (weir_spi("SELECT s FROM weir.run r, unnest(r.selected_tasks) s WHERE r.run_id = $1 AND NOT EXISTS "
				 "(SELECT FROM weir.task t WHERE t.pipeline_id = $2 AND t.version = $3 AND t.name = s) LIMIT 1",
				 3, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " cannot be restarted: task \"%s\" was selected and no longer exists",
						run_id, weir_spi_text(0, 1)),
				 errhint("Start a run with weir.trigger and another selection.")));
}

/* restart(run_id) returns the id of a new run */
Datum
weir_restart(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID, INT8OID, TEXTOID, INT4OID, JSONBOID, TEXTOID, REGROLEOID};
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	int64		pipeline_id;
	int			version;
	Oid			owner;
	RunFacts	run;
	Datum		values[7];

	weir_enter(&scope);
	run = run_read(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner, psprintf("restart run " INT64_FORMAT, run_id));
	if (run.is_external || !run_status_is_final(run.status))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " cannot be restarted", run_id),
				 run.is_external ? errdetail("An outside orchestrator runs it.") :
				 errdetail("It has not ended; its status is %s.", run_status_name(run.status)),
				 run.is_external ? errhint("Start it there again.") :
				 errhint("Wait until it has ended, or cancel it with weir.cancel.")));
	run_lock_pipeline(run.pipeline_name, scope.caller, "trigger", &pipeline_id, &version, &owner);
	check_selection(run_id, pipeline_id, version);

	values[0] = Int64GetDatum(run_id);
	values[1] = Int64GetDatum(pipeline_id);
	values[2] = catalog_text(run.pipeline_name);
	values[3] = Int32GetDatum(version);
	values[4] = pipeline_bind_params(pipeline_id, version, run.params);
	values[5] = catalog_text(GetUserNameFromId(scope.caller, false));
	values[6] = ObjectIdGetDatum(owner);
	/* It may have been pruned since it was read. */
	if (weir_spi("INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, window_start, window_end, "
			 "selected_tasks, backfill_id, trigger_type, trigger_name, triggered_by, owner, priority, on_overlap, restart_of) "
			 "SELECT $2, $3, $4, 'queued', $5, r.nominal_time, r.window_start, r.window_end, r.selected_tasks, r.backfill_id, "
			 "'restart', 'run ' || r.run_id, $6, $7, r.priority, r.on_overlap, r.run_id "
			 "FROM weir.run r WHERE r.run_id = $1 RETURNING run_id, priority",
			 7, types, values, NULL) == 0)
		run_unknown(run_id);
	run_id = weir_spi_int64(0, 1, NULL);
	engine_note_queued(pipeline_id, run_id, (int) weir_spi_int64(0, 2, NULL));
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	weir_leave(&scope);
	PG_RETURN_INT64(run_id);
}
