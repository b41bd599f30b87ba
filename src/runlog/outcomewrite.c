/*-------------------------------------------------------------------------
 * outcomewrite.c
 *	  The rows an outcome changes: attempt, task run, error, activities, row
 *	  counts; those of many outcomes by one statement each.
 *
 * Same processes, locks and transaction as outcome.c, which calls this.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "access.h"
#include "engine.h"
#include "json.h"
#include "mem.h"
#include "outcome_int.h"

#define ERROR_LINE_LIMIT 1000	/* bytes of a message kept in one-line columns */
#define ERROR_TEXT_LIMIT 65536

#define MAX_COLUMNS		9

/* Rows to be written by one statement: a column of them becomes an array. */
typedef struct Column
{
	Oid			type;
	int			n;
	Datum	   *values;
	bool	   *nulls;
} Column;

typedef struct Rows
{
	int			n_columns;
	Column		columns[MAX_COLUMNS];
} Rows;

static void
rows_init(Rows *rows, const Oid *types, int n_columns, int capacity)
{
	Assert(n_columns <= MAX_COLUMNS);
	rows->n_columns = n_columns;
	for (int i = 0; i < n_columns; i++)
	{
		Column	   *column = &rows->columns[i];

		column->type = types[i];
		column->n = 0;
		column->values = palloc(sizeof(Datum) * Max(capacity, 1));
		column->nulls = palloc(sizeof(bool) * Max(capacity, 1));
	}
}

static void
column_add(Column *column, Datum value, bool isnull)
{
	column->values[column->n] = value;
	column->nulls[column->n++] = isnull;
}

static Datum
column_array(const Column *column)
{
	int16		length;
	bool		by_value;
	char		align;
	int			dims[1] = {column->n};
	int			lower[1] = {1};

	get_typlenbyvalalign(column->type, &length, &by_value, &align);
	return PointerGetDatum(construct_md_array(column->values, column->nulls, 1, dims, lower,
											  column->type, length, by_value, align));
}

/* Run a statement whose parameters are the columns; returns how many rows it wrote or returned. */
static uint64
rows_write(const Rows *rows, const char *sql)
{
	Oid			types[MAX_COLUMNS];
	Datum		values[MAX_COLUMNS];

	for (int i = 0; i < rows->n_columns; i++)
	{
		types[i] = get_array_type(rows->columns[i].type);
		values[i] = column_array(&rows->columns[i]);
	}
	return weir_spi(sql, rows->n_columns, types, values, NULL);
}

/* Text cut at limit bytes; null for NULL */
static void
add_text(Column *column, const char *value, size_t limit)
{
	column_add(column, value ? PointerGetDatum(cstring_to_text_with_len(value, mem_clip_length(value, limit))) : (Datum) 0,
			   value == NULL);
}

static void
add_json(Column *column, const cJSON *value)
{
	column_add(column, value ? DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(value))) : (Datum) 0, value == NULL);
}

/* Counts and delays: negative is unknown */
static void
add_count(Column *column, int64 value)
{
	column_add(column, Int64GetDatum(value), value < 0);
}

static const char *
failure_type(const TaskOutcome *outcome)
{
	return outcome->error_message == NULL ? NULL : outcome->is_user_error ? "user" : "system";
}

void
outcome_write_attempts(const DecidedOutcome *decided, int n)
{
	static const Oid types[] = {INT8OID, INT4OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Rows		rows;
	Column	   *columns = rows.columns;

	rows_init(&rows, types, lengthof(types), n);
	for (int i = 0; i < n; i++)
	{
		const TaskOutcome *outcome = decided[i].outcome;

		column_add(&columns[0], Int64GetDatum(outcome->task_run_id), false);
		column_add(&columns[1], Int32GetDatum(outcome->attempt_no), false);
		add_text(&columns[2], attempt_status_name(outcome->status), ERROR_LINE_LIMIT);
		column_add(&columns[3], Int32GetDatum(outcome->http_status), outcome->http_status <= 0);
		add_text(&columns[4], outcome->sqlstate, 5);
		add_text(&columns[5], outcome->error_code, ERROR_LINE_LIMIT);
		add_text(&columns[6], outcome->error_message, ERROR_TEXT_LIMIT);
		add_text(&columns[7], failure_type(outcome), ERROR_LINE_LIMIT);
	}
	rows_write(&rows, "UPDATE weir.attempt a SET status = o.status, http_status = o.http_status, sqlstate = o.sqlstate, "
			 "error_code = o.code, error_message = o.message, failure_type = o.failure_type, ended_at = clock_timestamp() "
			 "FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) o (task_run_id, attempt_no, status, http_status, sqlstate, code, message, failure_type) "
			 "WHERE a.task_run_id = o.task_run_id AND a.attempt_no = o.attempt_no");
}

/*
 * Most attempts succeed, and their task runs with them: both by one statement,
 * which is also the judge of "once".  The locks are had already, so what it
 * finds without an outcome stays so until it has written it.
 */
int
outcome_write_successes(TaskOutcome *const *outcomes, int n, DecidedOutcome *decided)
{
	static const Oid types[] = {INT8OID, INT4OID, INT4OID, JSONBOID, INT8OID, INT8OID};
	Rows		rows;
	Column	   *columns = rows.columns;
	uint64		found;

	rows_init(&rows, types, lengthof(types), n);
	for (int i = 0; i < n; i++)
	{
		column_add(&columns[0], Int64GetDatum(outcomes[i]->task_run_id), false);
		column_add(&columns[1], Int32GetDatum(outcomes[i]->attempt_no), false);
		column_add(&columns[2], Int32GetDatum(outcomes[i]->http_status), outcomes[i]->http_status <= 0);
		add_json(&columns[3], outcomes[i]->output);
		add_count(&columns[4], outcomes[i]->rows_read);
		add_count(&columns[5], outcomes[i]->rows_written);
	}
	found = rows_write(&rows, "WITH a AS (UPDATE weir.attempt a SET status = 'succeeded', http_status = o.http_status, ended_at = clock_timestamp() "
					   "FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY o (task_run_id, attempt_no, http_status, output, rows_read, rows_written, n) "
					   "JOIN weir.task_run t ON t.task_run_id = o.task_run_id AND t.attempt_no = o.attempt_no AND t.status = 'running' "
					   "WHERE a.task_run_id = o.task_run_id AND a.attempt_no = o.attempt_no AND a.status IN ('intended', 'started') "
					   "RETURNING a.task_run_id, a.task_deadline, o.output, o.rows_read, o.rows_written, o.n) "
					   "UPDATE weir.task_run t SET status = 'succeeded', output = a.output, rows_read = a.rows_read, rows_written = a.rows_written, "
					   "error_message = NULL, not_before = NULL, ended_at = clock_timestamp(), lost_count = 0, deadline = a.task_deadline "
					   "FROM a WHERE t.task_run_id = a.task_run_id "
					   "RETURNING a.n, t.run_id, t.task_no::bigint, t.parent_task_run_id");
	for (uint64 i = 0; i < found; i++)
		decided[i] = (DecidedOutcome) {
			.outcome = outcomes[weir_spi_int64(i, 1, NULL) - 1],
			.run_id = weir_spi_int64(i, 2, NULL),
			.task_no = (int) weir_spi_int64(i, 3, NULL),
			.parent_id = weir_spi_int64(i, 4, NULL),
			.status = TASK_SUCCEEDED,
			.delay_ms = -1,
			.deadline = DT_NOEND,
		};
	return (int) found;
}

/* A task run goes back to ready after its delay, goes on with its items, or ends. */
void
outcome_write_task_runs(const DecidedOutcome *decided, int n)
{
	static const Oid types[] = {INT8OID, TEXTOID, INT8OID, JSONBOID, INT8OID, INT8OID, TEXTOID, BOOLOID, TIMESTAMPTZOID};
	Rows		rows;
	Column	   *columns = rows.columns;

	rows_init(&rows, types, lengthof(types), n);
	for (int i = 0; i < n; i++)
	{
		const TaskOutcome *outcome = decided[i].outcome;

		column_add(&columns[0], Int64GetDatum(outcome->task_run_id), false);
		add_text(&columns[1], task_status_name(decided[i].status), ERROR_LINE_LIMIT);
		add_count(&columns[2], decided[i].delay_ms);
		add_json(&columns[3], outcome->output);
		add_count(&columns[4], outcome->rows_read);
		add_count(&columns[5], outcome->rows_written);
		add_text(&columns[6], outcome->error_message, ERROR_LINE_LIMIT);
		column_add(&columns[7], BoolGetDatum(outcome->status == ATTEMPT_LOST), false);
		column_add(&columns[8], TimestampTzGetDatum(decided[i].deadline), TIMESTAMP_IS_NOEND(decided[i].deadline));
		if (decided[i].status == TASK_READY)
			engine_note_ready(outcome->task_run_id);
	}
	rows_write(&rows, "UPDATE weir.task_run t SET status = o.status, output = o.output, rows_read = o.rows_read, rows_written = o.rows_written, "
			 "error_message = o.message, "
			 "not_before = CASE WHEN o.status = 'ready' THEN clock_timestamp() + o.delay_ms * interval '1 millisecond' END, "
			 "ended_at = CASE WHEN o.status NOT IN ('ready', 'running') THEN clock_timestamp() END, "
			 "lost_count = CASE WHEN o.lost THEN t.lost_count + 1 ELSE 0 END, "
			 "budget_from = t.budget_from + CASE WHEN o.lost THEN 1 ELSE 0 END, deadline = o.deadline "
			 "FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) o (task_run_id, status, delay_ms, output, rows_read, rows_written, message, lost, deadline) "
			 "WHERE t.task_run_id = o.task_run_id");
}

void
outcome_write_errors(const DecidedOutcome *decided, int n)
{
	static const Oid types[] = {INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Rows		rows;
	Column	   *columns = rows.columns;

	rows_init(&rows, types, lengthof(types), n);
	for (int i = 0; i < n; i++)
	{
		const TaskOutcome *outcome = decided[i].outcome;

		if (outcome->error_message == NULL)
			continue;
		column_add(&columns[0], Int64GetDatum(outcome->task_run_id), false);
		column_add(&columns[1], Int32GetDatum(outcome->attempt_no), false);
		add_text(&columns[2], outcome->error_code ? outcome->error_code : outcome->sqlstate, ERROR_LINE_LIMIT);
		add_text(&columns[3], outcome->error_message, ERROR_TEXT_LIMIT);
		add_text(&columns[4], outcome->error_detail, ERROR_TEXT_LIMIT);
		add_text(&columns[5], failure_type(outcome), ERROR_LINE_LIMIT);
	}
	if (columns[0].n == 0)
		return;
	rows_write(&rows, "INSERT INTO weir.error (run_id, task_run_id, attempt_no, activity, code, message, detail, failure_type) "
			 "SELECT t.run_id, t.task_run_id, o.attempt_no, t.task_name, o.code, o.message, o.detail, o.failure_type "
			 "FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY o (task_run_id, attempt_no, code, message, detail, failure_type, n) "
			 "JOIN weir.task_run t USING (task_run_id) ORDER BY o.n");
}

/* ---- one by one: few outcomes have them ---- */

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

/* Activities of the engine's run, and the row counts of the task. */
void
outcome_write_activities(const TaskOutcome *outcome)
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
