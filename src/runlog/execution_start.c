/*-------------------------------------------------------------------------
 * execution_start.c
 *	  weir.log_execution_start: may this execution run, and how
 *
 * Runs in the session of an outside orchestrator.  In the common case four
 * steps: lock the restart state of the pipeline, read what decides, write the
 * state, write the execution.  The decision itself is restart_decide() in
 * core.
 *
 * Two calls at the same time take turns on the lock, so the reference's
 * check-then-insert cannot happen: the second one sees the first.  A call
 * whose answer was lost is repeated with the same external run id and gets
 * the first answer again; the unique index run_external is the last word.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"
#include "status.h"
#include "restart.h"
#include "execution.h"
#include "execution_row.h"
#include "pipelinestate.h"

PG_FUNCTION_INFO_V1(weir_log_execution_start);

/* Positions of the SQL arguments */
enum
{
	ARG_PIPELINE, ARG_PROJECT, ARG_PARENT, ARG_IS_BATCH,
	ARG_EXTERNAL_SYSTEM, ARG_EXTERNAL_RUN_ID,
	ARG_TRIGGER_TYPE, ARG_TRIGGER_NAME, ARG_TRIGGER_TIME,
	ARG_WINDOW_START, ARG_WINDOW_END, ARG_SOURCE, ARG_TARGET,
	ARG_PARAMETERS, ARG_STALE_AFTER
};

typedef struct Start
{
	char	   *pipeline_name;
	char	   *project;
	char	   *external_system;
	char	   *external_run_id;
	char	   *trigger_type;
	char	   *trigger_name;
	char	   *source_name;
	char	   *target_name;
	int64		parent_id;		/* 0: none */
	bool		is_batch;
	Oid			caller;

	/* read under the lock */
	int64		pipeline_id;
	ItemPointerData state_place;
	Oid			owner;
	bool		has_definition;
	bool		pipeline_is_known;	/* as it was when the lock was had */
	int64		origin;			/* row_audit_id a D would reuse, or 0 */
	int64		last_run_id;
	int64		going_on_id;	/* execution of the pipeline that has not ended, or 0 */
	bool		is_initial;
	int64		same_id;		/* execution with the same external run id, or 0 */
	int64		other_id;		/* run still E, or 0 */
	int64		new_id;			/* drawn for this execution */
	RestartInput input;
} Start;

typedef struct Answer
{
	int64		execution_id;
	char		code;
	char		next_load;
	int64		last_run_id;	/* 0: none */
	int64		row_audit_id;
	TimestampTz batch_start;
	bool		is_initial;
} Answer;

static const char register_sql[] =
	"WITH p AS (INSERT INTO weir.pipeline (name, project, owner, is_batch) VALUES ($1, $2, $3, $4) "
	"ON CONFLICT (name) DO NOTHING RETURNING pipeline_id) "
	"INSERT INTO weir.pipeline_state (pipeline_id) SELECT pipeline_id FROM p";

static const char same_sql[] =
	"SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = $1 "
	"AND r.external_run_id = $2 AND r.external_system = $3";

static const char same_without_system_sql[] =
	"SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = $1 "
	"AND r.external_run_id = $2 AND r.external_system IS NULL";

static const char stale_sql[] =
	"SELECT " EXECUTION_LAST_SIGN("r") " + coalesce($2, p.stale_after, make_interval(secs => $3)) "
	"<= clock_timestamp() FROM weir.run r JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id "
	"WHERE r.run_id = $1";

/* The batch start of a child is that of the outermost batch. */
#define OUTERMOST_START(id) \
	"(WITH RECURSIVE up AS (" \
	"SELECT u.parent_run_id, coalesce(u.started_at, u.queued_at) AS began, 1 AS depth " \
	"FROM weir.run u WHERE u.run_id = " id " UNION ALL " \
	"SELECT u.parent_run_id, coalesce(u.started_at, u.queued_at), up.depth + 1 " \
	"FROM up JOIN weir.run u ON u.run_id = up.parent_run_id) " \
	"SELECT began FROM up ORDER BY depth DESC LIMIT 1)"

static const char parent_sql[] =
	"SELECT b.pipeline_id, b.is_external, b.is_batch, b.status, " OUTERMOST_START("b.run_id")
	" FROM weir.run b WHERE b.run_id = $1 FOR KEY SHARE OF b";

static const char again_sql[] =
	"SELECT r.start_status, r.next_load_status, r.last_run_id, r.row_audit_id, "
	OUTERMOST_START("r.run_id") ", NOT EXISTS (SELECT FROM weir.run e "
	"WHERE e.pipeline_id = r.pipeline_id AND e.run_id < r.run_id AND e.status = 'succeeded') "
	"FROM weir.run r WHERE r.run_id = $1";

static char
letter_at(int column)
{
	char	   *text = weir_spi_text(0, column);

	return text == NULL ? '\0' : text[0];
}

/* ---- arguments ---- */

static void
read_arguments(FunctionCallInfo fcinfo, Start *start)
{
	memset(start, 0, sizeof(*start));
	start->pipeline_name = catalog_arg_required(fcinfo, ARG_PIPELINE, "pipeline_name", EXECUTION_MAX_NAME);
	if (start->pipeline_name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"pipeline_name\" must not be empty")));
	start->project = execution_arg(fcinfo, ARG_PROJECT, "project", EXECUTION_MAX_NAME);
	start->parent_id = PG_ARGISNULL(ARG_PARENT) ? 0 : PG_GETARG_INT64(ARG_PARENT);
	if (!PG_ARGISNULL(ARG_PARENT) && start->parent_id <= 0)
		execution_unknown(start->parent_id);
	start->is_batch = !PG_ARGISNULL(ARG_IS_BATCH) && PG_GETARG_BOOL(ARG_IS_BATCH);
	start->external_system = execution_arg(fcinfo, ARG_EXTERNAL_SYSTEM, "external_system", EXECUTION_MAX_NAME);
	start->external_run_id = execution_arg(fcinfo, ARG_EXTERNAL_RUN_ID, "external_run_id", EXECUTION_MAX_NAME);
	start->trigger_type = execution_arg(fcinfo, ARG_TRIGGER_TYPE, "trigger_type", EXECUTION_MAX_NAME);
	start->trigger_name = execution_arg(fcinfo, ARG_TRIGGER_NAME, "trigger_name", EXECUTION_MAX_NAME);
	start->source_name = execution_arg(fcinfo, ARG_SOURCE, "source_name", EXECUTION_MAX_CODE);
	start->target_name = execution_arg(fcinfo, ARG_TARGET, "target_name", EXECUTION_MAX_CODE);
	execution_check_json(fcinfo, ARG_PARAMETERS, "parameters", true);

	if (!PG_ARGISNULL(ARG_WINDOW_START) && !PG_ARGISNULL(ARG_WINDOW_END) &&
		PG_GETARG_TIMESTAMPTZ(ARG_WINDOW_END) < PG_GETARG_TIMESTAMPTZ(ARG_WINDOW_START))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"window_end\" is before \"window_start\"")));
	if (!PG_ARGISNULL(ARG_STALE_AFTER))
	{
		Interval	zero = {0};

		if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(ARG_STALE_AFTER),
											 IntervalPGetDatum(&zero))))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"stale_after\" must not be negative")));
	}
}

/* ---- reading under the lock ---- */

static void
read_pipeline(const ExecutionRow *pipeline, Start *start)
{
	start->pipeline_id = execution_row_id(pipeline, PIPELINE_COL_ID);
	start->input.disabled = !execution_row_bool(pipeline, PIPELINE_COL_IS_ENABLED);
	start->is_batch |= execution_row_bool(pipeline, PIPELINE_COL_IS_BATCH);
	start->owner = execution_row_oid(pipeline, PIPELINE_COL_OWNER);
	start->has_definition = execution_row_int4(pipeline, PIPELINE_COL_VERSION) != 0;
}

/*
 * A batch that crashed is closed together with its children, whose pipelines
 * may be older than its own: all are locked first, ids ascending.
 */
static bool
lock_state(Start *start)
{
	ExecutionRow pipeline;
	ExecutionRow state;

	if (!execution_row_find_name(EXECUTION_PIPELINE_BY_NAME, start->pipeline_name, &pipeline))
		return false;
	read_pipeline(&pipeline, start);
	execution_row_close(&pipeline);

	execution_lock_tree_to_start(start->parent_id, start->pipeline_id, start->is_batch);
	if (start->is_batch)
		execution_lock_family(start->pipeline_id);
	if (!pipeline_state_find(start->pipeline_id, &state) ||
		!execution_row_lock(&state, &start->pipeline_is_known))
		return false;
	start->pipeline_is_known &= !start->is_batch;
	start->input.skip_once = execution_row_bool(&state, STATE_COL_SKIP_ONCE);
	if (!next_load_status_parse(execution_row_letter(&state, STATE_COL_NEXT_LOAD), &start->input.last_next_load))
		elog(ERROR, "unknown next_load_status of pipeline %s", start->pipeline_name);
	start->origin = execution_row_id(&state, STATE_COL_ORIGIN);
	start->last_run_id = execution_row_id(&state, STATE_COL_LAST_RUN);
	start->is_initial = execution_row_id(&state, STATE_COL_LAST_SUCCESS) == 0;
	start->going_on_id = execution_row_id(&state, STATE_COL_EXECUTION);
	start->state_place = execution_row_place(&state);
	execution_row_close(&state);
	return true;
}

/*
 * Two first calls at the same time: the second waits in the INSERT for the
 * first to commit, finds the name taken, and then the row to lock.
 */
static void
register_pipeline(const Start *start)
{
	static const Oid types[4] = {TEXTOID, TEXTOID, REGROLEOID, BOOLOID};
	char		nulls[4] = {' ', ' ', ' ', ' '};
	Datum		values[4];

	if (!execution_register_unknown)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", start->pipeline_name),
				 errhint("Define it, or turn on weir.register_unknown_pipelines.")));
	execution_lock_tree_to_start(start->parent_id, 0, start->is_batch);
	values[0] = CStringGetTextDatum(start->pipeline_name);
	values[1] = execution_text(start->project, &nulls[1]);
	values[2] = ObjectIdGetDatum(start->caller);
	values[3] = BoolGetDatum(start->is_batch);
	(void) weir_spi(register_sql, 4, types, values, nulls);
}

static void
lock_or_register(Start *start)
{
	/* Once more for a pipeline that somebody drops between the two. */
	for (int i = 0; i < 3; i++)
	{
		if (lock_state(start))
			return;
		register_pipeline(start);
	}
	if (!lock_state(start))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" is being dropped", start->pipeline_name)));
}

/* The execution that an earlier call with the same external run id logged. */
static void
find_same(Start *start)
{
	static const Oid types[3] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3] = {Int64GetDatum(start->pipeline_id)};
	uint64		found;

	if (start->external_run_id == NULL)
		return;
	values[1] = CStringGetTextDatum(start->external_run_id);
	if (start->external_system == NULL)
		found = weir_spi(same_without_system_sql, 2, types, values, NULL);
	else
	{
		values[2] = CStringGetTextDatum(start->external_system);
		found = weir_spi(same_sql, 3, types, values, NULL);
	}
	start->input.same_external_run = found > 0;
	if (found > 0)
		start->same_id = weir_spi_int64(0, 1, NULL);
}

static bool
other_is_stale(FunctionCallInfo fcinfo, const Start *start)
{
	static const Oid types[3] = {INT8OID, INTERVALOID, FLOAT8OID};
	Datum		values[3] = {
		Int64GetDatum(start->other_id), PG_GETARG_DATUM(ARG_STALE_AFTER),
		Float8GetDatum((double) execution_stale_after_s)
	};
	char		nulls[3] = {' ', PG_ARGISNULL(ARG_STALE_AFTER) ? 'n' : ' ', execution_stale_after_s == 0 ? 'n' : ' '};

	return weir_spi(stale_sql, 3, types, values, nulls) > 0 && weir_spi_bool(0, 1, NULL);
}

/* The oldest */
static bool
visit_own(const ExecutionRow *row, void *arg)
{
	int64	   *oldest = arg;
	int64		id = execution_row_id(row, RUN_COL_ID);

	if (*oldest == 0 || id < *oldest)
		*oldest = id;
	return true;
}

/* A dump has the state of a pipeline, not the log: what went on when it was made is nowhere after a restore. */
static bool
is_logged(int64 execution_id)
{
	ExecutionRow run;

	if (execution_id == 0 || !execution_row_find(EXECUTION_RUN_BY_ID, execution_id, &run))
		return false;
	execution_row_close(&run);
	return true;
}

/*
 * The run of the pipeline that is going on: one of weir comes before an
 * outside one, because it is never stale.  Only a pipeline with a definition
 * has them.  The outside one is known from the state: any index of what goes
 * on would also hold the remains of all that ended and was not cleaned up,
 * and under a transaction held open these are many.
 */
static int64
find_other(const Start *start, bool *is_external)
{
	int64		own = 0;

	if (start->has_definition)
		execution_rows_visit(EXECUTION_RUN_ACTIVE, start->pipeline_id, visit_own, &own);
	*is_external = own == 0;
	return own != 0 ? own : is_logged(start->going_on_id) ? start->going_on_id : 0;
}

/*
 * Read after the lock was had: what was committed while we waited for it
 * counts.  Where there was nothing to wait for, and the state is the one we
 * found, nobody came between it and what was read of the pipeline.  The id is
 * drawn here; the rare start that does not use it leaves a gap.
 */
static void
read_facts(FunctionCallInfo fcinfo, Start *start)
{
	ExecutionRow pipeline;
	bool		is_external;

	if (!start->pipeline_is_known)
	{
		if (!execution_row_find(EXECUTION_PIPELINE_BY_ID, start->pipeline_id, &pipeline))
			elog(ERROR, "pipeline %s vanished while it was locked", start->pipeline_name);
		read_pipeline(&pipeline, start);
		execution_row_close(&pipeline);
	}
	start->other_id = find_other(start, &is_external);
	start->new_id = execution_next_id();

	if (start->other_id == 0)
		start->input.other = RESTART_OTHER_NONE;
	else if (is_external && other_is_stale(fcinfo, start))
		start->input.other = RESTART_OTHER_DEAD;
	else
		start->input.other = RESTART_OTHER_LIVE;
}

/* An execution that crashed is closed first; what that gives is what counts. */
static RestartDecision
decide(FunctionCallInfo fcinfo, Start *start)
{
	Execution	dead;
	RestartDecision decision = restart_decide(&start->input);

	if (!decision.close_other_first)
		return decision;

	start->input.other_next_load = execution_close_stale(start->other_id, !PG_ARGISNULL(ARG_STALE_AFTER),
														 PG_GETARG_DATUM(ARG_STALE_AFTER), &dead);
	start->input.last_next_load = start->input.other_next_load;
	start->origin = dead.row_audit_id;
	start->last_run_id = dead.id;
	return restart_decide(&start->input);
}

/*
 * A child holds its batch until commit, so that the batch cannot end without
 * seeing it.  A run of weir may be a parent too; then nothing follows from it.
 */
static TimestampTz
check_parent(const Start *start)
{
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(start->parent_id);
	RunStatus	status = RUN_FAILED;
	bool		isnull;
	Datum		began;

	if (weir_spi(parent_sql, 1, &int8, &id, NULL) == 0)
		execution_unknown(start->parent_id);
	if (weir_spi_int64(0, 1, NULL) == start->pipeline_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("execution " INT64_FORMAT " is one of the same pipeline and cannot be its parent", start->parent_id)));
	if (weir_spi_bool(0, 2, NULL) && !weir_spi_bool(0, 3, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " is not a batch and takes no children", start->parent_id),
				 errhint("Start the parent with is_batch => true.")));
	if (!run_status_parse(weir_spi_text(0, 4), &status) ||
		(status != RUN_RUNNING && status != RUN_CANCELLING))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("parent execution " INT64_FORMAT " is not running", start->parent_id),
				 errdetail("Its status is %s.", run_status_name(status)),
				 errhint("Start the batch again and pass its new ExecutionID.")));
	began = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5, &isnull);
	return isnull ? 0 : DatumGetTimestampTz(began);
}

/* ---- answers ---- */

static void
answer_again(const Start *start, Answer *answer)
{
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(start->same_id);
	char		next_load;
	bool		isnull;

	if (weir_spi(again_sql, 1, &int8, &id, NULL) == 0)
		elog(ERROR, "execution " INT64_FORMAT " vanished", start->same_id);
	answer->execution_id = start->same_id;
	answer->code = letter_at(1);
	next_load = letter_at(2);
	/* what was the pipeline's at the start follows from the code of those that ran */
	answer->next_load = answer->code == START_EXECUTE ? NEXT_LOAD_PROCESS :
		start_code_runs((StartCode) answer->code) ? answer->code : next_load;
	answer->last_run_id = weir_spi_int64(0, 3, NULL);
	answer->row_audit_id = weir_spi_int64(0, 4, NULL);
	answer->batch_start = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5, &isnull));
	answer->is_initial = weir_spi_bool(0, 6, NULL);
}

static void
set_id(Datum *values, bool *nulls, int column, int64 id)
{
	values[column] = Int64GetDatum(id);
	nulls[column] = id == 0;
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	values[column] = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
	nulls[column] = text == NULL;
}

static void
set_argument(FunctionCallInfo fcinfo, int argument, Datum *values, bool *nulls, int column)
{
	values[column] = PG_GETARG_DATUM(argument);
	nulls[column] = PG_ARGISNULL(argument);
}

/* Executions that do not run end at once, and are no one's last execution. */
static void
write_run(FunctionCallInfo fcinfo, const Start *start, const RestartDecision *decision, const Answer *answer,
		  TimestampTz now)
{
	static ExecutionWrite insert = {EXECUTION_RUN};
	bool		runs = start_code_runs(decision->code);
	RunStatus	status = runs ? RUN_RUNNING : decision->code == START_ABORT ? RUN_ABORTED : RUN_SKIPPED;
	Datum		values[RUN_COLS];
	bool		nulls[RUN_COLS] = {false};

	set_id(values, nulls, RUN_COL_ID, answer->execution_id);
	set_id(values, nulls, RUN_COL_PIPELINE, start->pipeline_id);
	set_text(values, nulls, RUN_COL_PIPELINE_NAME, start->pipeline_name);
	values[RUN_COL_IS_EXTERNAL] = BoolGetDatum(true);
	values[RUN_COL_IS_BATCH] = BoolGetDatum(start->is_batch);
	set_id(values, nulls, RUN_COL_PARENT, start->parent_id);
	set_text(values, nulls, RUN_COL_STATUS, run_status_name(status));
	values[RUN_COL_START_STATUS] = CharGetDatum(decision->code);
	values[RUN_COL_NEXT_LOAD] = CharGetDatum(answer->next_load);
	nulls[RUN_COL_NEXT_LOAD] = runs;
	set_id(values, nulls, RUN_COL_ROW_AUDIT, answer->row_audit_id);
	set_id(values, nulls, RUN_COL_LAST_RUN, start->last_run_id);
	values[RUN_COL_PARAMS] = PG_ARGISNULL(ARG_PARAMETERS) ? catalog_jsonb("{}") : PG_GETARG_DATUM(ARG_PARAMETERS);
	set_argument(fcinfo, ARG_TRIGGER_TIME, values, nulls, RUN_COL_NOMINAL_TIME);
	set_argument(fcinfo, ARG_WINDOW_START, values, nulls, RUN_COL_WINDOW_START);
	set_argument(fcinfo, ARG_WINDOW_END, values, nulls, RUN_COL_WINDOW_END);
	set_text(values, nulls, RUN_COL_TRIGGER_TYPE, start->trigger_type ? start->trigger_type : "manual");
	set_text(values, nulls, RUN_COL_TRIGGER_NAME, start->trigger_name);
	set_text(values, nulls, RUN_COL_TRIGGERED_BY, GetUserNameFromId(start->caller, false));
	values[RUN_COL_OWNER] = ObjectIdGetDatum(start->owner);
	set_text(values, nulls, RUN_COL_EXTERNAL_SYSTEM, start->external_system);
	set_text(values, nulls, RUN_COL_EXTERNAL_RUN, start->external_run_id);
	set_text(values, nulls, RUN_COL_SOURCE, start->source_name);
	set_text(values, nulls, RUN_COL_TARGET, start->target_name);
	values[RUN_COL_QUEUED_AT] = values[RUN_COL_STARTED_AT] = values[RUN_COL_ENDED_AT] = TimestampTzGetDatum(now);
	nulls[runs ? RUN_COL_ENDED_AT : RUN_COL_STARTED_AT] = true;
	execution_row_insert(&insert, values, nulls);
}

/* The execution that runs is the pipeline's last one from now on. */
static void
write_state(const Start *start, const RestartDecision *decision)
{
	static ExecutionWrite started = {EXECUTION_STATE, 2, {STATE_COL_LAST_RUN, STATE_COL_EXECUTION}};
	static ExecutionWrite skipped = {EXECUTION_STATE, 1, {STATE_COL_SKIP_ONCE}};
	Datum		id[2] = {Int64GetDatum(start->new_id), Int64GetDatum(start->new_id)};
	Datum		skip_once = BoolGetDatum(false);
	bool		nulls[2] = {false, false};

	if (start_code_runs(decision->code))
		execution_row_update(&started, EXECUTION_STATE_BY_ID, start->pipeline_id, &start->state_place, id, nulls);
	else if (decision->skip_once_used)
		execution_row_update(&skipped, EXECUTION_STATE_BY_ID, start->pipeline_id, &start->state_place, &skip_once, nulls);
}

static void
write_execution(FunctionCallInfo fcinfo, const Start *start, const RestartDecision *decision, Answer *answer)
{
	TimestampTz now = GetCurrentTimestamp();

	answer->execution_id = start->new_id;
	answer->code = decision->code;
	answer->next_load = start->input.last_next_load;
	answer->last_run_id = start->last_run_id;
	answer->row_audit_id = restart_row_audit_id(decision, start->new_id, start->origin);
	answer->is_initial = start->is_initial;
	if (start->parent_id == 0)
		answer->batch_start = now;

	write_state(start, decision);
	write_run(fcinfo, start, decision, answer, now);
}

static void
start_execution(FunctionCallInfo fcinfo, Start *start, Answer *answer)
{
	RestartDecision decision;

	lock_or_register(start);
	find_same(start);
	if (start->input.same_external_run)
	{
		answer_again(start, answer);
		return;
	}
	read_facts(fcinfo, start);
	decision = decide(fcinfo, start);
	/* after the dead execution: run ids are locked ascending */
	if (start->parent_id != 0)
		answer->batch_start = check_parent(start);
	write_execution(fcinfo, start, &decision, answer);
}

Datum
weir_log_execution_start(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	Start		start;
	Answer		answer = {0};
	Datum		values[7];
	bool		nulls[7] = {false};

	read_arguments(fcinfo, &start);
	weir_enter_lean(&scope);
	weir_require_operator(scope.caller, "log executions");
	start.caller = scope.caller;
	start_execution(fcinfo, &start, &answer);
	weir_leave(&scope);

	values[0] = Int64GetDatum(answer.execution_id);
	values[1] = execution_letter(answer.code, &nulls[1]);
	values[2] = execution_letter(answer.next_load, &nulls[2]);
	values[3] = Int64GetDatum(answer.last_run_id);
	nulls[3] = answer.last_run_id == 0;
	values[4] = Int64GetDatum(answer.row_audit_id);
	values[5] = TimestampTzGetDatum(answer.batch_start);
	values[6] = BoolGetDatum(answer.is_initial);
	return execution_row(fcinfo, values, nulls);
}
