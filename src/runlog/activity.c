/*-------------------------------------------------------------------------
 * activity.c
 *	  weir.log_activity and weir.log_row_count: what an execution did
 *
 * Runs in the session of an outside orchestrator, or of a notebook that a
 * run of weir started.
 *
 * What is logged of the activities decides between R and D.  So an activity
 * is written under a share lock on its execution: either the end of the
 * execution waits and sees it, or it sees the end and goes the slow way,
 * under the pipeline's lock, where a D that no longer holds is taken back.  A
 * run of weir is not decided by activities and does not wait for the lock.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "access.h"
#include "catalogutil.h"
#include "status.h"
#include "restart.h"
#include "execution.h"

PG_FUNCTION_INFO_V1(weir_log_activity);
PG_FUNCTION_INFO_V1(weir_log_row_count);
PG_FUNCTION_INFO_V1(weir_is_count_type);

enum
{
	ARG_ID, ARG_ACTIVITY, ARG_PHASE, ARG_STATUS,
	ARG_ROWS_READ, ARG_ROWS_COPIED, ARG_ROWS_SKIPPED, ARG_BYTES_READ, ARG_BYTES_WRITTEN,
	ARG_OUTPUT, ARG_TYPE, ARG_STARTED, ARG_ENDED, ARG_ERROR_CODE, ARG_ERROR_MESSAGE,
	ARG_COUNT
};

/*
 * Counts that are not given are taken from the output of an ADF Copy
 * activity.  What an earlier call said and this one does not, stays; an
 * activity that runs again loses its old end and error.  With $16 whatever
 * the status of the execution is; else only one that runs.
 */
#define FROM_OUTPUT(key) \
	"CASE WHEN $10 ->> '" key "' ~ '^[0-9]{1,18}$' THEN ($10 ->> '" key "')::bigint END"

static const char upsert_sql[] =
	"INSERT INTO weir.activity AS t (run_id, activity, phase, status, rows_read, rows_copied, rows_skipped, "
	"bytes_read, bytes_written, output, activity_type, started_at, ended_at, error_code, error_message) "
	"SELECT r.run_id, $2, $3, $4, "
	"coalesce($5, " FROM_OUTPUT("rowsRead") "), coalesce($6, " FROM_OUTPUT("rowsCopied") "), "
	"coalesce($7, " FROM_OUTPUT("rowsSkipped") "), coalesce($8, " FROM_OUTPUT("dataRead") "), "
	"coalesce($9, " FROM_OUTPUT("dataWritten") "), $10, $11, "
	"coalesce($12, CASE WHEN $4 = 'running' THEN clock_timestamp() END), "
	"coalesce($13, CASE WHEN $4 <> 'running' THEN clock_timestamp() END), $14, $15 "
	"FROM weir.run r WHERE r.run_id = $1 AND (r.status IN ('running', 'cancelling') OR $16) FOR KEY SHARE OF r "
	"ON CONFLICT (run_id, activity) DO UPDATE SET phase = excluded.phase, status = excluded.status, "
	"rows_read = coalesce(excluded.rows_read, t.rows_read), "
	"rows_copied = coalesce(excluded.rows_copied, t.rows_copied), "
	"rows_skipped = coalesce(excluded.rows_skipped, t.rows_skipped), "
	"bytes_read = coalesce(excluded.bytes_read, t.bytes_read), "
	"bytes_written = coalesce(excluded.bytes_written, t.bytes_written), "
	"output = coalesce(excluded.output, t.output), "
	"activity_type = coalesce(excluded.activity_type, t.activity_type), "
	"started_at = CASE WHEN $12 IS NULL AND NOT (t.status <> 'running' AND excluded.status = 'running') "
	"THEN coalesce(t.started_at, excluded.started_at) ELSE excluded.started_at END, "
	"ended_at = CASE WHEN $13 IS NULL AND t.status = excluded.status "
	"THEN coalesce(t.ended_at, excluded.ended_at) ELSE excluded.ended_at END, "
	"error_code = CASE WHEN excluded.status = 'failed' THEN coalesce(excluded.error_code, t.error_code) "
	"ELSE excluded.error_code END, "
	"error_message = CASE WHEN excluded.status = 'failed' THEN coalesce(excluded.error_message, t.error_message) "
	"ELSE excluded.error_message END, "
	"logged_at = excluded.logged_at";

static const char count_sql[] =
	"INSERT INTO weir.row_count (run_id, component, object_name, count_type, row_count, column_sum, column_name) "
	"SELECT r.run_id, $2, $3, $4, $5, $6, $7 FROM weir.run r WHERE r.run_id = $1 "
	"AND r.status NOT IN ('queued', 'skipped', 'aborted') "
	"ON CONFLICT (run_id, component, object_name, count_type) DO UPDATE SET row_count = excluded.row_count, "
	"column_sum = excluded.column_sum, column_name = excluded.column_name, logged_at = excluded.logged_at";

static const char *const phases[] = {"land", "transform", "publish"};
static const char *const statuses[] = {"running", "succeeded", "failed", "skipped", "cancelled"};
static const char *const count_types[] = {
	"Select", "Insert", "Update", "Delete", "Unaffected", "Intermediate", "Error", "Exception", "Control", "Unknown"
};

/* The spelling of the list, or NULL. */
static const char *
find_word(const char *word, const char *const *words, int nwords)
{
	for (int i = 0; i < nwords; i++)
	{
		if (pg_strcasecmp(words[i], word) == 0)
			return words[i];
	}
	return NULL;
}

static void
unknown_word(const char *what, const char *word, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown %s \"%s\"", what, word),
			 errhint("%s", hint)));
}

void
activity_check_phase(const char *phase)
{
	/* exactly as stored: the phase decides between R and D */
	for (int i = 0; i < lengthof(phases); i++)
	{
		if (strcmp(phases[i], phase) == 0)
			return;
	}
	unknown_word("phase", phase, "Use land, transform or publish.");
}

static void
check_status(const char *status)
{
	for (int i = 0; i < lengthof(statuses); i++)
	{
		if (strcmp(statuses[i], status) == 0)
			return;
	}
	unknown_word("status of an activity", status, "Use running, succeeded, failed, skipped or cancelled.");
}

static void
check_not_negative(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (!PG_ARGISNULL(n) && PG_GETARG_INT64(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
}

static void
refuse_ended(const Execution *execution, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("execution " INT64_FORMAT " is %s and takes no %s", execution->id,
					run_status_name(execution->status), what),
			 errhint("Log while the execution runs, with the ExecutionID of the latest start.")));
}

/*
 * Names under which weir itself logs what the tasks of its runs did.  Nobody
 * else writes them: a client's open transaction would hold up the conductor
 * at the same key.
 */
static void
refuse_own_name(int64 run_id, const char *name, const char *object, const char *what)
{
	static const Oid types[3] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3] = {Int64GetDatum(run_id), CStringGetTextDatum(name), (Datum) 0};
	char		nulls[3] = {' ', ' ', object == NULL ? 'n' : ' '};

	if (object != NULL)
		values[2] = CStringGetTextDatum(object);
	if (weir_spi("SELECT t.task_name FROM weir.task_run t WHERE t.run_id = $1 AND "
				 "CASE WHEN $3 IS NULL THEN starts_with($2, t.task_name || '/') ELSE t.task_name = $2 AND t.task_name = $3 END LIMIT 1",
				 3, types, values, nulls) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("%s of task \"%s\" are logged by weir itself", what, weir_spi_text(0, 1)),
				 errhint("Choose another name.")));
}

/* ---- log_activity ---- */

/*
 * The execution does not run.  A call that is repeated, or that comes after
 * the error it belongs to, is taken; one that contradicts the end is not.
 */
static void
log_after_end(FunctionCallInfo fcinfo, const Oid *types, Datum *values, char *nulls, const char *status)
{
	ExecutionFailure nothing_named = {0};
	Execution	execution;

	execution_lock(PG_GETARG_INT64(ARG_ID), false, &execution);
	switch (run_status_execution_code(execution.status))
	{
		case 'Q':
		case 'C':
		case 'A':
			refuse_ended(&execution, "activities");
			break;
		case 'S':
			if (strcmp(status, "succeeded") != 0 && strcmp(status, "skipped") != 0)
				refuse_ended(&execution, "activity that did not succeed");
			break;
		default:
			break;
	}

	values[ARG_COUNT] = BoolGetDatum(true);
	(void) weir_spi(upsert_sql, ARG_COUNT + 1, types, values, nulls);
	if (strcmp(status, "succeeded") != 0)
		execution_decide_again(&execution, &nothing_named);
}

static void
read_numbers(FunctionCallInfo fcinfo, Datum *values, char *nulls)
{
	static const char *const names[] = {"rows_read", "rows_copied", "rows_skipped", "bytes_read", "bytes_written"};

	for (int i = 0; i < lengthof(names); i++)
	{
		check_not_negative(fcinfo, ARG_ROWS_READ + i, names[i]);
		values[ARG_ROWS_READ + i] = PG_GETARG_DATUM(ARG_ROWS_READ + i);
		nulls[ARG_ROWS_READ + i] = PG_ARGISNULL(ARG_ROWS_READ + i) ? 'n' : ' ';
	}
}

/* log_activity(execution_id, activity_name, phase, status, rows_read, ... error_message) */
Datum
weir_log_activity(PG_FUNCTION_ARGS)
{
	static const Oid types[ARG_COUNT + 1] = {
		INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, JSONBOID,
		TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BOOLOID
	};
	WeirScope	scope;
	char	   *activity;
	char	   *phase;
	char	   *status;
	char	   *message;
	Datum		values[ARG_COUNT + 1];
	char		nulls[ARG_COUNT + 1];
	bool		row_nulls[4] = {false};

	memset(nulls, ' ', sizeof(nulls));
	values[ARG_ID] = Int64GetDatum(execution_arg_id(fcinfo, ARG_ID));
	activity = catalog_arg_required(fcinfo, ARG_ACTIVITY, "activity_name", EXECUTION_MAX_NAME);
	phase = catalog_arg_required(fcinfo, ARG_PHASE, "phase", EXECUTION_MAX_NAME);
	activity_check_phase(phase);
	status = catalog_arg_required(fcinfo, ARG_STATUS, "status", EXECUTION_MAX_NAME);
	check_status(status);
	execution_check_json(fcinfo, ARG_OUTPUT, "output", false);

	values[ARG_ACTIVITY] = CStringGetTextDatum(activity);
	values[ARG_PHASE] = CStringGetTextDatum(phase);
	values[ARG_STATUS] = CStringGetTextDatum(status);
	read_numbers(fcinfo, values, nulls);
	values[ARG_TYPE] = execution_text(execution_arg(fcinfo, ARG_TYPE, "activity_type", EXECUTION_MAX_NAME), &nulls[ARG_TYPE]);
	for (int i = ARG_OUTPUT; i <= ARG_ENDED; i++)
	{
		if (i == ARG_TYPE)
			continue;
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[ARG_ERROR_CODE] = execution_text(execution_arg(fcinfo, ARG_ERROR_CODE, "error_code", EXECUTION_MAX_CODE), &nulls[ARG_ERROR_CODE]);
	message = execution_arg(fcinfo, ARG_ERROR_MESSAGE, "error_message", SIZE_MAX);
	values[ARG_ERROR_MESSAGE] = execution_text(message ? execution_clip(message, EXECUTION_MAX_MESSAGE) : NULL, &nulls[ARG_ERROR_MESSAGE]);
	values[ARG_COUNT] = BoolGetDatum(false);

	weir_enter(&scope);
	weir_require_operator(scope.caller, "log executions");
	refuse_own_name(PG_GETARG_INT64(ARG_ID), activity, NULL, "activities");
	execution_lock_pipeline(PG_GETARG_INT64(ARG_ID));
	if (weir_spi(upsert_sql, ARG_COUNT + 1, types, values, nulls) == 0)
		log_after_end(fcinfo, types, values, nulls, status);
	weir_leave(&scope);
	return execution_row(fcinfo, values, row_nulls);
}

/* ---- log_row_count ---- */

static const char *
read_count_type(FunctionCallInfo fcinfo)
{
	char	   *given = catalog_arg_required(fcinfo, 3, "count_type", EXECUTION_MAX_NAME);
	const char *found = find_word(given, count_types, lengthof(count_types));

	if (found == NULL)
		unknown_word("count type", given,
					 "Use Select, Insert, Update, Delete, Unaffected, Intermediate, Error, Exception, Control or Unknown.");
	return found;
}

/* _is_count_type(count_type): as the table spells them; null is NOT NULL's business */
Datum
weir_is_count_type(PG_FUNCTION_ARGS)
{
	char	   *given = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *found = given != NULL ? find_word(given, count_types, lengthof(count_types)) : NULL;

	PG_RETURN_BOOL(given == NULL || (found != NULL && strcmp(found, given) == 0));
}

/* log_row_count(execution_id, component, object_name, count_type, row_count, column_sum, column_name) */
Datum
weir_log_row_count(PG_FUNCTION_ARGS)
{
	static const Oid types[7] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, NUMERICOID, TEXTOID};
	WeirScope	scope;
	char	   *component;
	char	   *object;
	Datum		values[7];
	char		nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};
	bool		row_nulls[5] = {false};

	values[0] = Int64GetDatum(execution_arg_id(fcinfo, 0));
	component = catalog_arg_required(fcinfo, 1, "component", EXECUTION_MAX_NAME);
	object = catalog_arg_required(fcinfo, 2, "object_name", EXECUTION_MAX_CODE);
	values[1] = CStringGetTextDatum(component);
	values[2] = CStringGetTextDatum(object);
	values[3] = CStringGetTextDatum(read_count_type(fcinfo));
	if (PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"row_count\" must not be null")));
	check_not_negative(fcinfo, 4, "row_count");
	values[4] = PG_GETARG_DATUM(4);
	values[5] = PG_GETARG_DATUM(5);
	nulls[5] = PG_ARGISNULL(5) ? 'n' : ' ';
	values[6] = execution_text(execution_arg(fcinfo, 6, "column_name", EXECUTION_MAX_NAME), &nulls[6]);

	weir_enter(&scope);
	weir_require_operator(scope.caller, "log executions");
	refuse_own_name(PG_GETARG_INT64(0), component, object, "row counts");
	execution_lock_pipeline(PG_GETARG_INT64(0));
	if (weir_spi(count_sql, 7, types, values, nulls) == 0)
	{
		Execution	execution;

		execution_lock(PG_GETARG_INT64(0), false, &execution);
		refuse_ended(&execution, "row counts");
	}
	weir_leave(&scope);
	return execution_row(fcinfo, values, row_nulls);
}
