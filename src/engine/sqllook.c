/*-------------------------------------------------------------------------
 * sqllook.c
 *	  One look at the condition of a wait: a query of the user's that says
 *	  whether to go on.
 *
 * Runs where SQL tasks do, as they do (sqltask.c), but read-only.  A look is
 * no attempt: "not yet" changes the count and the next moment in the state of
 * the attempt, and anything else is its outcome.  A look that is lost with
 * its process is repeated.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "access.h"
#include "engine.h"
#include "sqltask_int.h"

/* What the condition said; false: not yet.  Fills in the outcome of anything else. */
static bool
read_condition(TaskOutcome *outcome)
{
	const cJSON *rows = cJSON_GetObjectItemCaseSensitive(outcome->output, "rows");
	const cJSON *row = cJSON_GetArrayItem(rows, 0);
	const cJSON *value = row ? row->child : NULL;
	const char *problem = NULL;

	if (outcome->status != ATTEMPT_SUCCEEDED)
		return true;
	if (outcome->rows_read < 0)
		problem = "the condition is not a query";
	else if (outcome->rows_read == 0)
		problem = "the condition returned no row";
	else if (outcome->rows_read > 1)
		problem = "the condition returned more than one row";
	else if (value == NULL || value->next != NULL)
		problem = "the condition must return one column";
	else if (!cJSON_IsBool(value) && !cJSON_IsNull(value))
		problem = "the condition did not return a boolean";
	if (problem == NULL)
	{
		outcome->rows_read = -1;
		return cJSON_IsTrue(value);
	}
	outcome->status = ATTEMPT_FAILED;
	outcome->error_code = "invalid_condition";
	outcome->error_message = problem;
	outcome->error_detail = "Write a query that returns one row with one boolean; null counts as false.";
	outcome->is_user_error = true;
	outcome->is_retryable = false;
	outcome->output = NULL;
	outcome->rows_read = -1;
	return true;
}

/* Not yet: the attempt stays as it is, but for the count and the next moment. */
static bool
write_look(const SqlTry *try)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(try->outcome.task_run_id), Int32GetDatum(try->outcome.attempt_no)};

	return weir_spi("UPDATE weir.attempt SET kind_state = kind_state || jsonb_build_object('looks', (kind_state->>'looks')::bigint + 1, "
					"'next_ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + (kind_state->>'every_ms')::bigint) "
					"WHERE task_run_id = $1 AND attempt_no = $2 AND status IN ('intended', 'started')",
					2, types, values, NULL) == 1;
}

static bool
write_answer(SqlTry *try)
{
	return read_condition(&try->outcome) ? sqltask_write(try) : write_look(try);
}

bool
sqltask_look(int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause)
{
	SqlTry		try;

	if (!sqltask_begin(&try, task_run_id, attempt_no, restricted, cause))
		return false;
	try.spec.is_read_only = true;
	sqltask_run(&try);
	return sqltask_end(&try, write_answer);
}
