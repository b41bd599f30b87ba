/*-------------------------------------------------------------------------
 * execution_end.c
 *	  How executions of outside orchestrators end: well, with an error, reset
 *
 * Runs in the session of an outside orchestrator; also inside
 * log_execution_start, which closes an execution that crashed.  All of it
 * happens under the locks that execution_lock() took, so two ends, or an end
 * and a start, take turns.
 *
 * The status of the execution, the next_load_status of its pipeline, the
 * marks on the children of a batch and the error row are one commit.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "access.h"
#include "engine.h"
#include "landing.h"
#include "status.h"
#include "restart.h"
#include "execution.h"
#include "execution_row.h"

PG_FUNCTION_INFO_V1(weir_log_execution_end);
PG_FUNCTION_INFO_V1(weir_log_execution_error);
PG_FUNCTION_INFO_V1(weir_reset_execution);

#define MAX_ONE_LINE 1000		/* bytes of run.error_message */

/*
 * What is logged of the activities.  A landing activity that a resumed
 * execution skipped says nothing.  The phase of the activity named $2 is the
 * one logged now, else the one the last successful execution ($4) logged.
 */
static const char facts_sql[] =
	"SELECT count(*) FILTER (WHERE a.phase = 'land' AND NOT ($3 AND a.status = 'skipped')), "
	"count(*) FILTER (WHERE a.phase = 'land' AND a.status = 'succeeded'), "
	"count(*) FILTER (WHERE a.phase <> 'land' AND a.status IN ('failed', 'cancelled')), "
	"(array_agg(a.phase ORDER BY a.logged_at DESC))[1], "
	"coalesce(max(a.phase) FILTER (WHERE a.activity = $2), "
	"(SELECT l.phase FROM weir.activity l WHERE l.run_id = $4 AND l.activity = $2)) "
	"FROM weir.activity a WHERE a.run_id = $1";

static const char fail_sql[] =
	"WITH s AS (UPDATE weir.pipeline_state SET next_load_status = $3, "
	"origin_row_audit_id = CASE WHEN $3 = 'D' THEN $4 END, execution_id = NULL WHERE pipeline_id = $2) "
	"UPDATE weir.run SET status = 'failed', next_load_status = $3, "
	"ended_at = clock_timestamp(), error_message = $5 WHERE run_id = $1";

/*
 * The error, once, and the activity it names as failed.  Without a phase the
 * activity is not known and no row of it can be made.
 */
static const char error_sql[] =
	"WITH a AS (INSERT INTO weir.activity (run_id, activity, phase, status, error_code, error_message, ended_at) "
	"SELECT $1, $2, $6, 'failed', $3, $4, clock_timestamp() WHERE $2 IS NOT NULL AND $6 IS NOT NULL "
	"ON CONFLICT (run_id, activity) DO UPDATE SET status = 'failed', error_code = excluded.error_code, "
	"error_message = excluded.error_message, logged_at = excluded.logged_at, "
	"ended_at = coalesce(activity.ended_at, excluded.ended_at)) "
	"INSERT INTO weir.error (run_id, activity, code, message, detail, output) "
	"SELECT $1, $2, $3, $4, $5, $7 WHERE NOT $8 OR NOT EXISTS (SELECT FROM weir.error e "
	"WHERE e.run_id = $1 AND e.activity IS NOT DISTINCT FROM $2 "
	"AND e.code IS NOT DISTINCT FROM $3 AND e.message = $4)";

static const char mark_sql[] =
	"WITH s AS (UPDATE weir.pipeline_state SET next_load_status = $3, "
	"origin_row_audit_id = CASE WHEN $3 = 'D' THEN origin_row_audit_id END WHERE pipeline_id = $2) "
	"UPDATE weir.run SET next_load_status = $3 WHERE run_id = $1";

/* ---- deciding ---- */

/*
 * What failed is the named activity.  One whose phase nobody ever said could
 * be a landing that was not logged, so it does not count as after landing.
 * Without a name: what is logged as failed, else the point reached.
 */
static bool
failed_after_landing(const ExecutionFailure *failure, int64 failed_later, const char *reached)
{
	if (failure->activity != NULL)
		return failure->phase != NULL && strcmp(failure->phase, "land") != 0;
	if (failed_later > 0)
		return true;
	return reached != NULL && strcmp(reached, "land") != 0;
}

static void
read_end(const Execution *execution, ExecutionFailure *failure, RestartEnd *end)
{
	static const Oid types[4] = {INT8OID, TEXTOID, BOOLOID, INT8OID};
	char		nulls[4] = {' ', ' ', ' ', ' '};
	Datum		values[4];

	memset(end, 0, sizeof(*end));
	end->resumed = execution->start_status == START_RESUME;

	values[0] = Int64GetDatum(execution->id);
	values[1] = execution_text(failure->activity, &nulls[1]);
	values[2] = BoolGetDatum(end->resumed);
	values[3] = Int64GetDatum(execution->state_last_success_id);
	(void) weir_spi(facts_sql, 4, types, values, nulls);

	end->n_landing = (int) weir_spi_int64(0, 1, NULL);
	end->n_landing_succeeded = (int) weir_spi_int64(0, 2, NULL);
	if (failure->phase == NULL)
		failure->phase = weir_spi_text(0, 5);
	end->failed_after_landing = failed_after_landing(failure, weir_spi_int64(0, 3, NULL), weir_spi_text(0, 4));

	/* a resumed execution may only stay D if it is not a landing that failed */
	if (failure->activity != NULL && failure->phase != NULL && strcmp(failure->phase, "land") == 0)
		end->resumed = false;
}

NextLoadStatus
execution_failure_next_load(const Execution *execution, ExecutionFailure *failure)
{
	RestartBatchEnd end = {0};

	read_end(execution, failure, &end.own);
	if (!execution->is_batch)
		return restart_next_load(&end.own);
	execution_batch_children(execution, &end);
	return restart_batch_next_load(&end);
}

/* ---- writing ---- */

static void
check_transition(const Execution *execution, RunStatus to)
{
	if (!run_status_can(execution->status, to))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " is %s and cannot become %s", execution->id,
						run_status_name(execution->status), run_status_name(to))));
}

/*
 * Where weir itself has runs to start, the conductor looks whether one of
 * them was waiting for this end.  A pipeline that only an outside orchestrator
 * runs has none, and most are like that.  It gets its first definition under
 * the lock that we hold, so "none" cannot become untrue before we have ended.
 */
static void
wake_at_commit(const Execution *execution)
{
	ExecutionRow pipeline;
	bool		has_definition = true;

	if (execution_row_find(EXECUTION_PIPELINE_BY_ID, execution->pipeline_id, &pipeline))
	{
		has_definition = execution_row_int4(&pipeline, PIPELINE_COL_VERSION) != 0;
		execution_row_close(&pipeline);
	}
	if (has_definition)
		engine_note_queue(execution->pipeline_id);
	engine_wake_at_commit(has_definition ? ENGINE_WAKE_RUN : ENGINE_WAKE_WAITERS);
}

static void
write_error(const Execution *execution, const ExecutionFailure *failure, bool unless_logged)
{
	static const Oid types[8] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BOOLOID};
	char		nulls[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
	Datum		values[8];

	values[0] = Int64GetDatum(execution->id);
	values[1] = execution_text(failure->activity, &nulls[1]);
	values[2] = execution_text(failure->code, &nulls[2]);
	values[3] = CStringGetTextDatum(failure->message);
	values[4] = execution_text(failure->detail, &nulls[4]);
	values[5] = execution_text(failure->phase, &nulls[5]);
	values[6] = failure->output;
	nulls[6] = failure->has_output ? ' ' : 'n';
	values[7] = BoolGetDatum(unless_logged);
	(void) weir_spi(error_sql, 8, types, values, nulls);
}

/* The first error as the run shows it: one line, not long. */
static char *
one_line(const char *message)
{
	char	   *line = execution_clip(pstrdup(message), MAX_ONE_LINE);

	for (char *c = line; *c != '\0'; c++)
	{
		if (*c == '\n' || *c == '\r' || *c == '\t')
			*c = ' ';
	}
	return line;
}

void
execution_write_failure(Execution *execution, const ExecutionFailure *failure, NextLoadStatus next_load)
{
	static const Oid types[5] = {INT8OID, INT8OID, CHAROID, INT8OID, TEXTOID};
	Datum		values[5];

	check_transition(execution, RUN_FAILED);
	write_error(execution, failure, false);

	values[0] = Int64GetDatum(execution->id);
	values[1] = Int64GetDatum(execution->pipeline_id);
	values[2] = CharGetDatum((char) next_load);
	values[3] = Int64GetDatum(execution->row_audit_id);
	values[4] = CStringGetTextDatum(one_line(failure->message));
	(void) weir_spi(fail_sql, 5, types, values, NULL);
	if (next_load == NEXT_LOAD_RESUME || execution->start_status == START_RESUME)
		landing_execution_ended(execution->id, (char) next_load, execution->row_audit_id);

	execution->status = RUN_FAILED;
	execution->next_load_status = (char) next_load;
	if (execution->is_batch)
		execution_batch_ended(execution, false);
	wake_at_commit(execution);
}

void
execution_write_next_load(Execution *execution, NextLoadStatus next_load)
{
	static const Oid types[3] = {INT8OID, INT8OID, CHAROID};
	Datum		values[3] = {
		Int64GetDatum(execution->id), Int64GetDatum(execution->pipeline_id), CharGetDatum((char) next_load)
	};

	(void) weir_spi(mark_sql, 3, types, values, NULL);
	landing_execution_ended(execution->id, (char) next_load, execution->row_audit_id);
	execution->next_load_status = (char) next_load;
	execution->state_next_load = (char) next_load;
}

/*
 * Parallel activities fail one after the other, and the first error decided
 * already.  A later one can only take a D back, and only while no start has
 * acted on it.
 */
void
execution_decide_again(Execution *execution, ExecutionFailure *failure)
{
	if (execution->status != RUN_FAILED || !execution->is_external ||
		execution->next_load_status != NEXT_LOAD_RESUME ||
		execution->state_next_load != NEXT_LOAD_RESUME ||
		execution->state_last_run_id != execution->id)
		return;
	if (execution_failure_next_load(execution, failure) == NEXT_LOAD_RERUN)
		execution_write_next_load(execution, NEXT_LOAD_RERUN);
}

static void
write_success(const Execution *execution, NextLoadStatus next_load)
{
	static ExecutionWrite run = {EXECUTION_RUN, 3, {RUN_COL_STATUS, RUN_COL_NEXT_LOAD, RUN_COL_ENDED_AT}};
	static ExecutionWrite state = {EXECUTION_STATE, 4, {STATE_COL_NEXT_LOAD, STATE_COL_ORIGIN, STATE_COL_LAST_SUCCESS, STATE_COL_EXECUTION}};
	Datum		run_values[3] = {
		CStringGetTextDatum(run_status_name(RUN_SUCCEEDED)), CharGetDatum((char) next_load),
		TimestampTzGetDatum(GetCurrentTimestamp())
	};
	Datum		state_values[4] = {CharGetDatum((char) next_load), (Datum) 0, Int64GetDatum(execution->id), (Datum) 0};
	bool		run_nulls[3] = {false, false, false};
	bool		state_nulls[4] = {false, true, false, true};

	execution_row_update(&run, EXECUTION_RUN_BY_ID, execution->id, &execution->place, run_values, run_nulls);
	execution_row_update(&state, EXECUTION_STATE_BY_ID, execution->pipeline_id, &execution->state_place,
						 state_values, state_nulls);
}

static void
succeed(Execution *execution)
{
	RestartEnd	end = {0};
	NextLoadStatus next_load;

	check_transition(execution, RUN_SUCCEEDED);
	end.succeeded = true;
	end.in_failed_batch = execution_in_failed_batch(execution);
	next_load = restart_next_load(&end);
	write_success(execution, next_load);
	if (execution->start_status == START_RESUME)
		landing_execution_ended(execution->id, (char) next_load, execution->row_audit_id);

	execution->status = RUN_SUCCEEDED;
	execution->next_load_status = (char) next_load;
	if (execution->is_batch)
		execution_batch_ended(execution, true);
	wake_at_commit(execution);
}

/* ---- crashed ---- */

/*
 * Closed with what is logged, exactly as if it had reported an error at the
 * point it reached.
 */
NextLoadStatus
execution_close_stale(int64 execution_id, bool has_limit, Datum limit, Execution *execution)
{
	ExecutionFailure crash = {
		.code = "stale",
		.message = "the execution gave no sign of life within its stale limit and counts as crashed"
	};
	NextLoadStatus next_load;

	/* one whole crash: how the children stand is known before the batch is judged */
	execution_lock_rows(execution_id, true, execution);
	if (execution->is_batch)
		execution_batch_close_stale(execution, has_limit, limit);
	next_load = execution_failure_next_load(execution, &crash);
	execution_write_failure(execution, &crash, next_load);
	return next_load;
}

/* ---- the functions ---- */

static Datum
answer(FunctionCallInfo fcinfo, const Execution *execution)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = Int64GetDatum(execution->id);
	values[1] = execution_letter(run_status_execution_code(execution->status), &nulls[1]);
	values[2] = execution_letter(execution->next_load_status, &nulls[2]);
	values[3] = Int64GetDatum(execution->row_audit_id);
	return execution_row(fcinfo, values, nulls);
}

static void
refuse_not_run(const Execution *execution)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("execution " INT64_FORMAT " was not run", execution->id),
			 errdetail("Its start was answered %c%s.", execution->start_status,
					   execution->start_status == START_ABORT ? ": another execution of the pipeline was running" : ""),
			 errhint("Run the body only if log_execution_start answers E, R or D.")));
}

/* log_execution_end(execution_id) */
Datum
weir_log_execution_end(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	Execution	execution;
	int64		id = execution_arg_id(fcinfo, 0);

	weir_enter_lean(&scope);
	weir_require_operator(scope.caller, "log executions");
	execution_lock(id, true, &execution);

	/* succeeded: the call is repeated; skipped: the body was not run, as told */
	if (execution.status == RUN_ABORTED)
		refuse_not_run(&execution);
	else if (run_status_execution_code(execution.status) == 'F')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " has already failed", id),
				 errhint("Start the pipeline again with log_execution_start.")));
	else if (execution.status != RUN_SUCCEEDED && execution.status != RUN_SKIPPED)
		succeed(&execution);
	weir_leave(&scope);
	return answer(fcinfo, &execution);
}

static void
read_failure(FunctionCallInfo fcinfo, ExecutionFailure *failure)
{
	char	   *text;

	memset(failure, 0, sizeof(*failure));
	failure->activity = execution_arg(fcinfo, 1, "activity_name", EXECUTION_MAX_NAME);

	/* an error must not get lost because it is too long */
	text = execution_arg(fcinfo, 2, "error_code", SIZE_MAX);
	failure->code = text ? execution_clip(text, EXECUTION_MAX_CODE) : NULL;
	text = execution_arg(fcinfo, 3, "error_message", SIZE_MAX);
	failure->message = text ? execution_clip(text, EXECUTION_MAX_MESSAGE) : "no message was given";
	text = execution_arg(fcinfo, 6, "error_detail", SIZE_MAX);
	failure->detail = text ? execution_clip(text, EXECUTION_MAX_MESSAGE) : NULL;
	if (!PG_ARGISNULL(4))
	{
		Jsonb	   *output = PG_GETARG_JSONB_P(4);

		if (VARSIZE(output) > EXECUTION_MAX_JSON)
			ereport(WARNING,
					(errmsg("the output of the error is longer than %d bytes and is not stored", EXECUTION_MAX_JSON)));
		else
		{
			failure->has_output = true;
			failure->output = JsonbPGetDatum(output);
		}
	}

	failure->phase = execution_arg(fcinfo, 5, "phase", EXECUTION_MAX_NAME);
	if (failure->phase != NULL)
		activity_check_phase(failure->phase);
}

/* log_execution_error(execution_id, activity_name, error_code, error_message, output, phase, error_detail) */
Datum
weir_log_execution_error(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	Execution	execution;
	ExecutionFailure failure;
	int64		id = execution_arg_id(fcinfo, 0);

	read_failure(fcinfo, &failure);
	weir_enter(&scope);
	weir_require_operator(scope.caller, "log executions");
	execution_lock(id, true, &execution);

	if (execution.status == RUN_SUCCEEDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " has already succeeded", id),
				 errhint("Log the error before log_execution_end.")));
	else if (execution.status == RUN_ABORTED || execution.status == RUN_SKIPPED)
		refuse_not_run(&execution);
	else if (run_status_execution_code(execution.status) == 'F')
	{
		execution_decide_again(&execution, &failure);
		write_error(&execution, &failure, true);
	}
	else
		execution_write_failure(&execution, &failure, execution_failure_next_load(&execution, &failure));
	weir_leave(&scope);
	return answer(fcinfo, &execution);
}

/*
 * What an operator wants the next start to do.  D is never his to give: it is
 * true or not.
 */
static char
read_wanted(FunctionCallInfo fcinfo)
{
	char	   *text = execution_arg(fcinfo, 1, "next_load_status", EXECUTION_MAX_NAME);

	if (text == NULL)
		return '\0';
	if (strlen(text) != 1 || strchr("PRC", text[0]) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("next_load_status cannot be set to \"%s\"", text),
				 errhint("Use P (process), R (rerun from the start) or C (skip).")));
	return text[0];
}

/* reset_execution(execution_id, next_load_status): clear one that is stuck */
Datum
weir_reset_execution(PG_FUNCTION_ARGS)
{
	ExecutionFailure failure = {.code = "reset", .message = "closed by reset_execution"};
	WeirScope	scope;
	Execution	execution;
	int64		id = execution_arg_id(fcinfo, 0);
	char		wanted = read_wanted(fcinfo);

	weir_enter(&scope);
	weir_require_operator(scope.caller, "reset executions");
	execution_lock(id, true, &execution);
	if (!run_status_is_final(execution.status))
		execution_write_failure(&execution, &failure, execution_failure_next_load(&execution, &failure));

	/* A later execution has the word: this one's mark means nothing any more. */
	if (wanted != '\0' && wanted != execution.next_load_status)
	{
		if (execution.state_last_run_id != id)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("execution " INT64_FORMAT " is not the last one of its pipeline", id),
					 errhint("Reset execution " INT64_FORMAT " instead.", execution.state_last_run_id)));
		execution_write_next_load(&execution, (NextLoadStatus) wanted);
	}
	weir_leave(&scope);
	return answer(fcinfo, &execution);
}
