/*-------------------------------------------------------------------------
 * simulate.c
 *	  weir.simulate: what a run would come to, without leaving anything.
 *
 * Runs in the session of a client, inside its transaction: a run is made in a
 * subtransaction, started, taken through its tasks by the code that writes
 * real outcomes, and rolled back.  SQL tasks are executed, as the owner and in
 * the restricted context of weir.conduct(); tasks of engines are answered by
 * what the caller declares, and nothing is sent.  What SQL itself does outside
 * of the database (sequences, dblink, programs) is not undone.
 *
 * Only who has the rights of the pipeline's owner may: the owner's SQL runs in
 * his session, with his settings.  Until it returns, the pipeline's state is
 * locked, as by a start: runs of the same pipeline wait with their outcomes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "conductor_int.h"
#include "context.h"
#include "foreach.h"
#include "json.h"
#include "mem.h"
#include "outcome.h"
#include "runapi.h"
#include "sqltask.h"

PG_FUNCTION_INFO_V1(weir_simulate);

#define MAX_RESULTS		(4 * 1024 * 1024)	/* bytes */
#define MAX_ATTEMPTS	100000	/* in all */
#define N_COLS			7

/* One row of the answer, kept over the rollback in the caller's memory. */
typedef struct SimulatedRow
{
	Datum		values[N_COLS];
	bool		nulls[N_COLS];
} SimulatedRow;

typedef struct Simulation
{
	MemoryContext keep;
	const cJSON *results;		/* by name of the task */
	int64		run_id;
	int			nrows;
	SimulatedRow *rows;
} Simulation;

typedef struct Step
{
	int64		task_run_id;
	int			attempt_no;
	char	   *name;
	char	   *kind;
} Step;

/* ---- what is declared ---- */

noreturn_compat static void
results_error(const char *path, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid results: %s", message),
			 errdetail("JSON path: %s", path),
			 errhint("Write {\"task\": {\"status\": \"succeeded\", \"output\": {...}}, ...}; status is succeeded, failed, timed_out or cancelled, and output, error, rows_read and rows_written may be left out.")));
	pg_unreachable();
}

static void
check_result(const cJSON *result)
{
	const char *path = psprintf("$.%s", catalog_clip(result->string));
	const cJSON *item;
	AttemptStatus status;

	if (!cJSON_IsObject(result))
		results_error(path, "a result must be an object");
	cJSON_ArrayForEach(item, result)
	{
		const char *at = psprintf("%s.%s", path, catalog_clip(item->string));
		int64		number;

		if (strcmp(item->string, "status") == 0)
		{
			if (!cJSON_IsString(item) || !attempt_status_parse(item->valuestring, &status) ||
				!attempt_status_is_final(status) || status == ATTEMPT_LOST)
				results_error(at, "status must be succeeded, failed, timed_out or cancelled");
		}
		else if (strcmp(item->string, "error") == 0)
		{
			if (!cJSON_IsString(item))
				results_error(at, "error must be a string");
		}
		else if (strcmp(item->string, "rows_read") == 0 || strcmp(item->string, "rows_written") == 0)
		{
			if (!json_int64(item, &number) || number < 0)
				results_error(at, "a number of rows must be an integer from zero on");
		}
		else if (strcmp(item->string, "output") != 0)
			results_error(at, "unknown member of a result");
	}
}

/* "copy[7]", an item of a for_each, as the tables name what is done with each item: "copy[]" */
static char *
item_task_name(const char *name)
{
	char	   *copy = pstrdup(name);
	char	   *open = strchr(copy, '[');

	if (open != NULL && open[1 + strspn(open + 1, "0123456789")] == ']')
		strcpy(open, "[]");
	return copy;
}

/* By its own name; items also by that of all of them. */
static const cJSON *
declared_for(const Simulation *simulation, const char *name)
{
	const cJSON *declared = cJSON_GetObjectItemCaseSensitive(simulation->results, name);

	return declared != NULL ? declared : cJSON_GetObjectItemCaseSensitive(simulation->results, item_task_name(name));
}

static void
check_results(const cJSON *results, int64 pipeline_id, int version)
{
	static const Oid types[] = {INT8OID, INT4OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(pipeline_id), Int32GetDatum(version), 0};
	const cJSON *result;

	if (!cJSON_IsObject(results))
		results_error("$", "they must be an object");
	cJSON_ArrayForEach(result, results)
	{
		values[2] = catalog_text(item_task_name(result->string));
		if (weir_spi("SELECT FROM weir.task WHERE pipeline_id = $1 AND version = $2 AND name = $3", 3, types, values, NULL) == 0)
			results_error(psprintf("$.%s", catalog_clip(result->string)), "there is no such task");
		check_result(result);
	}
}

static void
outcome_from_declared(TaskOutcome *outcome, const cJSON *declared)
{
	const char *status = json_string(cJSON_GetObjectItemCaseSensitive(declared, "status"));
	const char *error = json_string(cJSON_GetObjectItemCaseSensitive(declared, "error"));

	outcome->status = ATTEMPT_SUCCEEDED;
	if (status != NULL)
		(void) attempt_status_parse(status, &outcome->status);
	outcome->output = cJSON_GetObjectItemCaseSensitive(declared, "output");
	(void) json_int64(cJSON_GetObjectItemCaseSensitive(declared, "rows_read"), &outcome->rows_read);
	(void) json_int64(cJSON_GetObjectItemCaseSensitive(declared, "rows_written"), &outcome->rows_written);
	if (outcome->status != ATTEMPT_SUCCEEDED)
	{
		outcome->error_code = "simulated";
		outcome->error_message = error ? error : "declared to end so";
	}
	else if (outcome->output == NULL)
		outcome->output = cJSON_CreateObject();
}

/* ---- the run ---- */

static void
queue_run(FunctionCallInfo fcinfo, Simulation *simulation, const char *pipeline)
{
	static const Oid types[] = {INT8OID, TEXTOID, INT4OID, JSONBOID, TEXTOID, REGROLEOID};
	WeirScope	scope;
	int64		pipeline_id;
	int			version;
	Oid			owner;
	Datum		values[6];

	weir_enter(&scope);
	run_find_pipeline(pipeline, scope.caller, "simulate", &pipeline_id, &version, &owner);
	if (!has_privs_of_role(scope.caller, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not simulate pipeline \"%s\"", GetUserNameFromId(scope.caller, false), pipeline),
				 errdetail("Its SQL tasks would run in this session as \"%s\".", GetUserNameFromId(owner, false)),
				 errhint("Grant membership in the owner's role.")));
	check_results(simulation->results, pipeline_id, version);
	values[0] = Int64GetDatum(pipeline_id);
	values[1] = catalog_text(pipeline);
	values[2] = Int32GetDatum(version);
	values[3] = pipeline_bind_params(pipeline_id, version, PG_ARGISNULL(1) ? catalog_jsonb("{}") : PG_GETARG_DATUM(1));
	values[4] = catalog_text(GetUserNameFromId(scope.caller, false));
	values[5] = ObjectIdGetDatum(owner);
	(void) weir_spi("INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, trigger_type, triggered_by, owner) "
					"VALUES ($1, $2, $3, 'queued', $4, now(), 'simulation', $5, $6) RETURNING run_id",
					6, types, values, NULL);
	simulation->run_id = weir_spi_int64(0, 1, NULL);
	(void) outcome_lock_run(simulation->run_id, true);
	intake_start_run(simulation->run_id, true);
	weir_leave(&scope);
}

/* The next task run that is ready, intended; false if there is none. */
static bool
next_step(const Simulation *simulation, Step *step)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(simulation->run_id)};

	if (weir_spi("WITH u AS (UPDATE weir.task_run SET status = 'running', attempt_no = attempt_no + 1, "
				 "started_at = coalesce(started_at, clock_timestamp()), not_before = NULL, error_message = NULL "
				 "WHERE task_run_id = (SELECT t.task_run_id FROM weir.task_run t WHERE t.run_id = $1 AND t.status = 'ready' "
				 "ORDER BY t.task_run_id LIMIT 1) RETURNING task_run_id, attempt_no, run_id, task_name, kind), "
				 "a AS (INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token) "
				 "SELECT u.task_run_id, u.attempt_no, u.run_id, 'simulated' FROM u) "
				 "SELECT task_run_id, attempt_no, task_name, kind FROM u",
				 1, types, values, NULL) != 1)
		return false;
	step->task_run_id = weir_spi_int64(0, 1, NULL);
	step->attempt_no = (int) weir_spi_int64(0, 2, NULL);
	step->name = MemoryContextStrdup(simulation->keep, weir_spi_text(0, 3));
	step->kind = MemoryContextStrdup(simulation->keep, weir_spi_text(0, 4));
	return true;
}

/* A choice is made as the conductor would make it; anything else succeeds if its spec can be rendered. */
static void
outcome_without_engine(TaskOutcome *outcome, const Step *step, const cJSON *spec)
{
	const TaskKind *kind = kind_find(step->kind);
	KindCall	call = {0};
	KindVerdict verdict;

	outcome->status = ATTEMPT_SUCCEEDED;
	outcome->output = cJSON_CreateObject();
	if (kind == NULL || !kind->is_inline || kind->decide == NULL)
		return;
	call.spec = spec;
	call.kind_state = cJSON_CreateObject();
	kind_verdict_init(&verdict);
	kind->decide(&call, &verdict);
	outcome->output = verdict.output;
	outcome->items = verdict.items ? json_text(verdict.items) : NULL;
	if (verdict.outcome == KIND_SUCCEEDED)
		return;
	outcome->status = ATTEMPT_FAILED;
	outcome->error_code = verdict.error_code;
	outcome->error_message = verdict.error_message;
	outcome->is_user_error = true;
}

static void
write_request(const Step *step, const cJSON *spec)
{
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID};
	Datum		values[] = {Int64GetDatum(step->task_run_id), Int32GetDatum(step->attempt_no), catalog_jsonb(json_text(spec))};

	(void) weir_spi("UPDATE weir.attempt SET request = $3 WHERE task_run_id = $1 AND attempt_no = $2", 3, types, values, NULL);
}

/* The checks of definition once more, on what references became. */
static bool
is_fit(const Step *step, const cJSON *spec, char **error)
{
	const TaskKind *kind = kind_find(step->kind);
	KindProblem problem = {.is_rendered = true};

	if (kind == NULL || kind == &kind_sql || kind == &kind_redis_publish || kind == &kind_for_each || kind == &kind_wait)
		return true;
	kind->validate(spec, &problem);
	if (problem.message != NULL)
		*error = psprintf("%s", problem.message);
	return problem.message == NULL;
}

/* Everything but SQL.  SPI connected as the extension owner. */
static void
answer_step(const Simulation *simulation, const Step *step)
{
	const cJSON *declared = declared_for(simulation, step->name);
	TaskContext *context = context_read(step->task_run_id, step->attempt_no);
	TaskOutcome outcome = {0};
	char	   *error = NULL;
	cJSON	   *spec = strcmp(step->kind, kind_sql.name) == 0 || strcmp(step->kind, kind_redis_publish.name) == 0 ? context->spec :
		strcmp(step->kind, kind_for_each.name) == 0 ? foreach_render(context, &error) :
		ref_render_json(context->spec, context_resolve, context, &error);

	outcome.task_run_id = step->task_run_id;
	outcome.attempt_no = step->attempt_no;
	outcome.rows_read = outcome.rows_written = -1;
	if (spec == NULL)
	{
		outcome.status = ATTEMPT_FAILED;
		outcome.error_code = "invalid_reference";
		outcome.error_message = error;
		outcome.is_user_error = true;
	}
	else if (!is_fit(step, spec, &error))
	{
		outcome.status = ATTEMPT_FAILED;
		outcome.error_code = "invalid_spec";
		outcome.error_message = error;
		outcome.is_user_error = true;
	}
	else
	{
		write_request(step, spec);
		if (declared != NULL)
			outcome_from_declared(&outcome, declared);
		else
			outcome_without_engine(&outcome, step, spec);
	}
	(void) outcome_apply(&outcome);
}

/* A cancel of the caller's statement is the end of all of it, not the outcome of a task. */
static void
check_cancelled(const Step *step)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(step->task_run_id), Int32GetDatum(step->attempt_no)};

	if (weir_spi("SELECT FROM weir.attempt WHERE task_run_id = $1 AND attempt_no = $2 AND sqlstate = '57014'",
				 2, types, values, NULL) == 1)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("simulation was cancelled in task \"%s\"", step->name)));
}

static void
run_sql(const Step *step)
{
	WeirScope	scope;

	/* Outside of any scope: it runs as the owner, from the caller's identity. */
	(void) sqltask_execute(step->task_run_id, step->attempt_no, true, NULL);
	weir_enter(&scope);
	check_cancelled(step);
	weir_leave(&scope);
}

static void
run_tasks(const Simulation *simulation)
{
	for (int attempts = 0; attempts < MAX_ATTEMPTS; attempts++)
	{
		WeirScope	scope;
		Step		step;
		bool		is_sql;

		CHECK_FOR_INTERRUPTS();
		weir_enter(&scope);
		if (!next_step(simulation, &step))
		{
			weir_leave(&scope);
			return;
		}
		is_sql = declared_for(simulation, step.name) == NULL &&
			(strcmp(step.kind, kind_sql.name) == 0 ||
			 (strcmp(step.kind, kind_for_each.name) == 0 && foreach_uses_sql(step.task_run_id)));
		if (is_sql)
			(void) sqltask_take(step.task_run_id, step.attempt_no);
		else
			answer_step(simulation, &step);
		weir_leave(&scope);
		if (is_sql)
			run_sql(&step);
	}
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("simulation did not end within %d attempts", MAX_ATTEMPTS)));
}

static void
read_rows(Simulation *simulation)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(simulation->run_id)};
	WeirScope	scope;
	uint64		n;

	weir_enter(&scope);
	n = weir_spi("SELECT x.task, x.kind, x.status, x.attempts, x.output, x.error, x.request FROM ("
				 "SELECT 0 AS task_no, 0 AS item_no, NULL AS task, NULL AS kind, r.status, NULL::integer AS attempts, "
				 "jsonb_build_object('start_status', r.start_status, 'next_load_status', r.next_load_status, "
				 "'resumes', r.row_audit_id <> r.run_id) AS output, r.error_message AS error, NULL::jsonb AS request "
				 "FROM weir.run r WHERE r.run_id = $1 UNION ALL "
				 "SELECT t.task_no, t.item_no, t.task_name, t.kind, t.status, t.attempt_no, t.output, t.error_message, a.request "
				 "FROM weir.task_run t LEFT JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
				 "WHERE t.run_id = $1) x ORDER BY x.task_no, x.item_no",
				 1, types, values, NULL);
	simulation->nrows = (int) n;
	simulation->rows = MemoryContextAllocHuge(simulation->keep, sizeof(SimulatedRow) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		for (int column = 0; column < N_COLS; column++)
			simulation->rows[i].nulls[column] = !catalog_spi_datum(i, column + 1, simulation->keep,
																   &simulation->rows[i].values[column]);
	weir_leave(&scope);
}

/*
 * Constraints of the caller that wait for his commit would otherwise be
 * checked when the first task has its own checked, as the owner of the
 * pipeline: they are checked now, as himself.
 */
static void
settle_constraints(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	(void) SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	SPI_finish();
}

/* Made, run, read and rolled back. */
static void
simulate(FunctionCallInfo fcinfo, Simulation *simulation, const char *pipeline)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		settle_constraints();
		queue_run(fcinfo, simulation, pipeline);
		run_tasks(simulation);
		read_rows(simulation);
		MemoryContextSwitchTo(caller);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;
		ReThrowError(edata);
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = resowner;
}

/* simulate(pipeline, params, results) */
Datum
weir_simulate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *pipeline = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	Simulation	simulation = {0};
	cJSON	   *results = catalog_arg_json(fcinfo, 2, "results", MAX_RESULTS);

	InitMaterializedSRF(fcinfo, 0);
	simulation.keep = CurrentMemoryContext;
	simulation.results = results ? results : cJSON_CreateObject();
	simulate(fcinfo, &simulation, pipeline);
	for (int i = 0; i < simulation.nrows; i++)
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, simulation.rows[i].values, simulation.rows[i].nulls);
	return (Datum) 0;
}
