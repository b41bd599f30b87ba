/*-------------------------------------------------------------------------
 * outcome.c
 *	  Outcomes of attempts: written once, with all that follows, in one
 *	  transaction.
 *
 * Runs in the conductor, in SQL workers and in weir.conduct().  Locks are
 * taken pipeline state -> run -> task run.  The attempt row is the judge of
 * "once": an outcome is written only while the attempt has none, under its
 * row lock.  If the process dies before the commit nothing happened, and the
 * attempt is found again without an outcome.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "access.h"
#include "foreach.h"
#include "json.h"
#include "mem.h"
#include "outcome.h"
#include "retry.h"
#include "shmem.h"

#define ERROR_LINE_LIMIT 1000	/* bytes of a message kept in one-line columns */

bool
outcome_lock_run(int64 run_id, bool wait)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	uint64		found;

	if (wait)
		found = weir_spi("SELECT 1 FROM weir.pipeline_state WHERE pipeline_id = "
						 "(SELECT pipeline_id FROM weir.run WHERE run_id = $1) FOR UPDATE",
						 1, types, values, NULL);
	else
		found = weir_spi("SELECT 1 FROM weir.pipeline_state WHERE pipeline_id = "
						 "(SELECT pipeline_id FROM weir.run WHERE run_id = $1) FOR UPDATE SKIP LOCKED",
						 1, types, values, NULL);
	if (found == 0)
		return false;
	return weir_spi("SELECT 1 FROM weir.run WHERE run_id = $1 FOR UPDATE",
					1, types, values, NULL) == 1;
}

/* A text argument cut at limit bytes, and its null flag. */
static Datum
text_arg(const char *value, size_t limit, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? PointerGetDatum(cstring_to_text_with_len(value, mem_clip_length(value, limit))) : (Datum) 0;
}

static Datum
json_arg(const cJSON *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(value))) : (Datum) 0;
}

static Datum
count_arg(int64 value, char *null)
{
	*null = value >= 0 ? ' ' : 'n';
	return Int64GetDatum(value);
}

/* What decides whether there is another attempt. */
typedef struct Budget
{
	int64		run_id;
	int			task_no;
	int64		parent_id;		/* of an item: the task run of the for_each; else 0 */
	bool		run_wants_more; /* the run is running, not cancelling */
	int			tries;			/* attempts that count */
	int			lost;			/* lost ones in a row, before this one */
	RetryPolicy policy;
} Budget;

static bool
read_budget(const TaskOutcome *outcome, Budget *budget)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(outcome->task_run_id), Int32GetDatum(outcome->attempt_no)};

	/* The attempt's row lock decides who writes the outcome. */
	if (weir_spi("SELECT r.run_id, t.task_no, r.status = 'running', t.attempt_no - t.budget_from, t.lost_count, "
				 "d.max_attempts, d.retry_initial_ms, d.retry_max_ms, d.retry_multiplier::text, d.retry_jitter::text, t.parent_task_run_id "
				 "FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) JOIN weir.run r ON r.run_id = t.run_id "
				 "JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no "
				 "WHERE a.task_run_id = $1 AND a.attempt_no = $2 AND t.attempt_no = $2 "
				 "AND a.status IN ('intended', 'started') AND t.status = 'running' FOR UPDATE OF t, a",
				 2, types, values, NULL) != 1)
		return false;
	budget->run_id = weir_spi_int64(0, 1, NULL);
	budget->task_no = weir_spi_int64(0, 2, NULL);
	budget->run_wants_more = weir_spi_bool(0, 3, NULL);
	budget->tries = weir_spi_int64(0, 4, NULL);
	budget->lost = weir_spi_int64(0, 5, NULL);
	budget->policy.max_attempts = weir_spi_int64(0, 6, NULL);
	budget->policy.initial_delay_ms = weir_spi_int64(0, 7, NULL);
	budget->policy.max_delay_ms = weir_spi_int64(0, 8, NULL);
	budget->policy.multiplier = strtod(weir_spi_text(0, 9), NULL);
	budget->policy.jitter = strtod(weir_spi_text(0, 10), NULL);
	budget->parent_id = weir_spi_int64(0, 11, NULL);
	return true;
}

static void
write_attempt(const TaskOutcome *outcome)
{
	Oid			types[] = {INT8OID, INT4OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	char		nulls[] = "        ";
	Datum		values[8];

	values[0] = Int64GetDatum(outcome->task_run_id);
	values[1] = Int32GetDatum(outcome->attempt_no);
	values[2] = CStringGetTextDatum(attempt_status_name(outcome->status));
	values[3] = Int32GetDatum(outcome->http_status);
	nulls[3] = outcome->http_status > 0 ? ' ' : 'n';
	values[4] = text_arg(outcome->sqlstate, 5, &nulls[4]);
	values[5] = text_arg(outcome->error_code, ERROR_LINE_LIMIT, &nulls[5]);
	values[6] = text_arg(outcome->error_message, 65536, &nulls[6]);
	values[7] = text_arg(outcome->error_message ? (outcome->is_user_error ? "user" : "system") : NULL, 16, &nulls[7]);
	weir_spi("UPDATE weir.attempt SET status = $3, http_status = $4, sqlstate = $5, error_code = $6, "
			 "error_message = $7, failure_type = $8, ended_at = clock_timestamp() "
			 "WHERE task_run_id = $1 AND attempt_no = $2",
			 8, types, values, nulls);
}

/* The task run goes back to ready after delay_ms, or ends. */
static void
write_task_run(const TaskOutcome *outcome, const char *status, int64 delay_ms)
{
	Oid			types[] = {INT8OID, TEXTOID, INT8OID, JSONBOID, INT8OID, INT8OID, TEXTOID, BOOLOID};
	char		nulls[] = "        ";
	Datum		values[8];

	values[0] = Int64GetDatum(outcome->task_run_id);
	values[1] = CStringGetTextDatum(status);
	values[2] = count_arg(delay_ms, &nulls[2]);
	values[3] = json_arg(outcome->output, &nulls[3]);
	values[4] = count_arg(outcome->rows_read, &nulls[4]);
	values[5] = count_arg(outcome->rows_written, &nulls[5]);
	values[6] = text_arg(outcome->error_message, ERROR_LINE_LIMIT, &nulls[6]);
	values[7] = BoolGetDatum(outcome->status == ATTEMPT_LOST);
	weir_spi("UPDATE weir.task_run SET status = $2, output = $4, rows_read = $5, rows_written = $6, error_message = $7, "
			 "not_before = CASE WHEN $2 = 'ready' THEN clock_timestamp() + $3 * interval '1 millisecond' END, "
			 "ended_at = CASE WHEN $2 = 'ready' THEN NULL ELSE clock_timestamp() END, "
			 "lost_count = CASE WHEN $8 THEN lost_count + 1 ELSE 0 END, "
			 "budget_from = budget_from + CASE WHEN $8 THEN 1 ELSE 0 END "
			 "WHERE task_run_id = $1",
			 8, types, values, nulls);
}

static void
write_error(const TaskOutcome *outcome, const Budget *budget)
{
	Oid			types[] = {INT8OID, INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	char		nulls[] = "       ";
	Datum		values[7];

	if (outcome->error_message == NULL)
		return;
	values[0] = Int64GetDatum(budget->run_id);
	values[1] = Int64GetDatum(outcome->task_run_id);
	values[2] = Int32GetDatum(outcome->attempt_no);
	values[3] = text_arg(outcome->error_code ? outcome->error_code : outcome->sqlstate, ERROR_LINE_LIMIT, &nulls[3]);
	values[4] = text_arg(outcome->error_message, 65536, &nulls[4]);
	values[5] = text_arg(outcome->error_detail, 65536, &nulls[5]);
	values[6] = text_arg(outcome->is_user_error ? "user" : "system", 16, &nulls[6]);
	weir_spi("INSERT INTO weir.error (run_id, task_run_id, attempt_no, activity, code, message, detail, failure_type) "
			 "SELECT $1, $2, $3, t.task_name, $4, $5, $6, $7 FROM weir.task_run t WHERE t.task_run_id = $2",
			 7, types, values, nulls);
}

/* Activities of the engine's run, and the row counts of the task. */
static void
write_activities(const TaskOutcome *outcome)
{
	Oid			types[] = {INT8OID, JSONBOID, INT8OID, INT8OID};
	char		nulls[] = "    ";
	Datum		values[4];

	values[0] = Int64GetDatum(outcome->task_run_id);
	values[1] = json_arg(outcome->activities, &nulls[1]);
	values[2] = count_arg(outcome->rows_read, &nulls[2]);
	values[3] = count_arg(outcome->rows_written, &nulls[3]);
	if (outcome->activities != NULL)
		weir_spi("INSERT INTO weir.activity (run_id, activity, task_run_id, activity_type, phase, status, rows_read, "
				 "rows_copied, rows_skipped, bytes_read, bytes_written, started_at, ended_at, output, error_code, error_message) "
				 "SELECT t.run_id, t.task_name || '/' || x.activity, t.task_run_id, x.activity_type, t.phase, x.status, x.rows_read, "
				 "x.rows_copied, x.rows_skipped, x.bytes_read, x.bytes_written, x.started_at, x.ended_at, x.output, x.error_code, x.error_message "
				 "FROM weir.task_run t, jsonb_to_recordset($2) x (activity text, activity_type text, status text, rows_read bigint, "
				 "rows_copied bigint, rows_skipped bigint, bytes_read bigint, bytes_written bigint, started_at timestamptz, "
				 "ended_at timestamptz, output jsonb, error_code text, error_message text) "
				 "WHERE t.task_run_id = $1 "
				 "ON CONFLICT (run_id, activity) DO UPDATE SET status = EXCLUDED.status, task_run_id = EXCLUDED.task_run_id, "
				 "rows_read = EXCLUDED.rows_read, rows_copied = EXCLUDED.rows_copied, rows_skipped = EXCLUDED.rows_skipped, "
				 "bytes_read = EXCLUDED.bytes_read, bytes_written = EXCLUDED.bytes_written, started_at = EXCLUDED.started_at, "
				 "ended_at = EXCLUDED.ended_at, output = EXCLUDED.output, error_code = EXCLUDED.error_code, "
				 "error_message = EXCLUDED.error_message, logged_at = clock_timestamp()",
				 4, types, values, nulls);
	if (outcome->rows_read >= 0 || outcome->rows_written >= 0)
		weir_spi("INSERT INTO weir.row_count (run_id, component, object_name, count_type, row_count) "
				 "SELECT t.run_id, t.task_name, t.task_name, c.count_type, c.n FROM weir.task_run t, "
				 "(VALUES ('Select', $3), ('Insert', $4)) c (count_type, n) WHERE t.task_run_id = $1 AND c.n IS NOT NULL "
				 "ON CONFLICT (run_id, component, object_name, count_type) DO UPDATE "
				 "SET row_count = EXCLUDED.row_count, logged_at = clock_timestamp()",
				 4, types, values, nulls);
}

static Datum
one_element_array(Datum value, Oid type)
{
	return PointerGetDatum(construct_array(&value, 1, type, type == INT8OID ? sizeof(int64) : sizeof(int32),
										   type == INT8OID ? FLOAT8PASSBYVAL : true,
										   type == INT8OID ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

/*
 * Is there another attempt, and when?  -1: no.  A lost attempt did not fail,
 * it was interrupted: it goes again at once, but not for ever, because a
 * task that takes the server down each time must stop at some point.
 */
static int64
next_attempt_delay(const TaskOutcome *outcome, const Budget *budget)
{
	RetryPolicy lost = {weir_max_lost_attempts, 1000, 60000, 2, 0.13};
	double		random01 = pg_prng_double(&pg_global_prng_state);

	if (!budget->run_wants_more)
		return -1;
	if (outcome->status == ATTEMPT_LOST)
	{
		if (budget->lost + 1 >= weir_max_lost_attempts)
			return -1;
		return budget->lost < 3 ? 0 : retry_delay_ms(&lost, budget->lost - 2, random01, 0);
	}
	if (outcome->status != ATTEMPT_FAILED && outcome->status != ATTEMPT_TIMED_OUT)
		return -1;
	if (!outcome->is_retryable || budget->tries >= budget->policy.max_attempts)
		return -1;
	return retry_delay_ms(&budget->policy, budget->tries, random01, outcome->retry_after_ms);
}

/* What follows from the end of a task run, or of an item of one. */
static void
follow(const Budget *budget, bool succeeded)
{
	bool		task_ended = true;

	if (budget->parent_id == 0)
		advance_ended(one_element_array(Int64GetDatum(budget->run_id), INT8OID),
					  one_element_array(Int32GetDatum(budget->task_no), INT4OID), succeeded);
	if (!succeeded)
		advance_fail_fast(budget->run_id);
	if (budget->parent_id != 0)
		task_ended = foreach_items_ended(one_element_array(Int64GetDatum(budget->parent_id), INT8OID)) || !succeeded;
	if (task_ended)
		advance_finish_run(budget->run_id);
}

bool
outcome_apply(const TaskOutcome *outcome)
{
	Budget		budget;
	int64		delay_ms;
	TaskStatus	status = TASK_FAILED;

	if (!read_budget(outcome, &budget))
		return false;

	write_attempt(outcome);
	write_error(outcome, &budget);
	write_activities(outcome);

	delay_ms = next_attempt_delay(outcome, &budget);
	if (delay_ms >= 0)
	{
		write_task_run(outcome, task_status_name(TASK_READY), delay_ms);
		return true;
	}

	if (outcome->status == ATTEMPT_SUCCEEDED && outcome->items != NULL && budget.run_wants_more)
	{
		/* The list is there; the task ends when its items have. */
		if (foreach_expand(budget.run_id, outcome->task_run_id, outcome->items))
			advance_finish_run(budget.run_id);
		return true;
	}

	switch (outcome->status)
	{
		case ATTEMPT_SUCCEEDED:
			status = outcome->items != NULL ? TASK_CANCELLED : TASK_SUCCEEDED;
			break;
		case ATTEMPT_TIMED_OUT:
			status = TASK_TIMED_OUT;
			break;
		case ATTEMPT_CANCELLED:
			status = TASK_CANCELLED;
			break;
		case ATTEMPT_LOST:
			status = budget.run_wants_more ? TASK_FAILED : TASK_CANCELLED;
			break;
		default:
			break;
	}
	write_task_run(outcome, task_status_name(status), -1);

	follow(&budget, status == TASK_SUCCEEDED);
	return true;
}

void
outcome_succeed_noops(Datum task_run_ids)
{
	Oid			types[1] = {INT8ARRAYOID};
	Datum		values[1] = {task_run_ids};
	Oid			pair_types[2] = {INT8ARRAYOID, INT4ARRAYOID};
	Datum		pair[2];
	Datum		parents;
	bool		no_parents;
	bool		isnull;
	int64	   *runs;
	uint64		n_runs;

	weir_spi("UPDATE weir.attempt a SET status = 'succeeded', ended_at = clock_timestamp() FROM weir.task_run t "
			 "WHERE t.task_run_id = ANY ($1) AND a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no",
			 1, types, values, NULL);
	if (weir_spi("WITH done AS (UPDATE weir.task_run SET status = 'succeeded', output = '{}', ended_at = clock_timestamp() "
				 "WHERE task_run_id = ANY ($1) AND status = 'running' RETURNING run_id, task_no, parent_task_run_id) "
				 "SELECT array_agg(run_id), array_agg(task_no), array_agg(DISTINCT parent_task_run_id) FILTER (WHERE parent_task_run_id IS NOT NULL) FROM done",
				 1, types, values, NULL) != 1)
		return;
	pair[0] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return;
	pair[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	parents = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &no_parents);
	advance_ended(pair[0], pair[1], true);
	if (!no_parents)
		(void) foreach_items_ended(parents);

	n_runs = weir_spi("SELECT DISTINCT r FROM unnest($1::bigint[]) r ORDER BY r",
					  2, pair_types, pair, NULL);
	runs = palloc(n_runs * sizeof(int64));
	for (uint64 i = 0; i < n_runs; i++)
		runs[i] = weir_spi_int64(i, 1, NULL);
	for (uint64 i = 0; i < n_runs; i++)
		advance_finish_run(runs[i]);
}
