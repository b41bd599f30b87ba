/*-------------------------------------------------------------------------
 * databricks_statement.c
 *	  What came of a SQL statement: rows, counts, the error
 *
 * Runs in the conductor.  A result comes in chunks; the first is part of the
 * answer that says the statement has ended, the others are asked for until
 * there are rows enough.  All values are text there and get their JSON type
 * back from the type of their column.  That the statement succeeded is known
 * by then: a chunk that cannot be had costs rows, never the outcome.
 *
 * kind_state: result {columns, rows, bytes, total, affected, truncated, next}.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <math.h>
#include <strings.h>

#include "databricks_int.h"

#define MAX_COLUMNS		500

static int64
max_rows(const KindCall *call)
{
	return Min(Max(kind_int64(call->spec, "max_rows", KIND_SQL_DEFAULT_ROWS), 0), KIND_SQL_MAX_ROWS);
}

/* [{name, type}], names distinct */
static cJSON *
read_columns(const cJSON *manifest)
{
	const cJSON *list = kind_member(kind_member(manifest, "schema"), "columns");
	cJSON	   *columns = cJSON_CreateArray();
	const cJSON *item;
	int			n = 0;

	if (!cJSON_IsArray(list))
		return columns;
	cJSON_ArrayForEach(item, list)
	{
		const char *name = kind_string(item, "name");
		const char *type = kind_string(item, "type_name");
		cJSON	   *column = cJSON_CreateObject();
		char	   *given = name ? kind_clean_text(name, strlen(name), 200) : mem_printf("column%d", n + 1);
		const cJSON *other;

		cJSON_ArrayForEach(other, columns)
		{
			if (strcmp(kind_string(other, "name"), given) == 0)
			{
				given = mem_printf("%s_%d", given, n + 1);
				break;
			}
		}
		cJSON_AddStringToObject(column, "name", given);
		cJSON_AddStringToObject(column, "type", type ? kind_clean_text(type, strlen(type), 40) : "STRING");
		cJSON_AddItemToArray(columns, column);
		if (++n >= MAX_COLUMNS)
			break;
	}
	return columns;
}

/* Digits as JSON writes them: a number that needs no rounding */
static bool
is_json_number(const char *text)
{
	size_t		len = strlen(text);
	char	   *error = NULL;
	cJSON	   *number;
	bool		is;

	if (len == 0 || len > 64 || strspn(text, "0123456789+-.eE") != len)
		return false;
	number = json_parse(text, len, 64, &error);
	is = number != NULL;
	cJSON_Delete(number);
	return is;
}

static cJSON *
typed_value(const cJSON *value, const char *type)
{
	static const char *const numbers[] = {"BYTE", "SHORT", "INT", "LONG", "FLOAT", "DOUBLE", "DECIMAL"};
	static const char *const structures[] = {"ARRAY", "MAP", "STRUCT"};
	const char *text = json_string(value);
	char	   *error = NULL;
	cJSON	   *tree;

	if (text == NULL)
		return value == NULL || cJSON_IsNull(value) ? cJSON_CreateNull() : cJSON_Duplicate(value, true);
	for (size_t i = 0; i < lengthof(numbers); i++)
	{
		if (strcasecmp(numbers[i], type) == 0 && is_json_number(text))
			return json_parse(text, strlen(text), 64, &error);
	}
	if (strcasecmp(type, "BOOLEAN") == 0 && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0))
		return cJSON_CreateBool(*text == 't');
	for (size_t i = 0; i < lengthof(structures); i++)
	{
		if (strcasecmp(structures[i], type) != 0)
			continue;
		tree = json_parse(text, strlen(text), KIND_MAX_OUTPUT, &error);
		if (tree != NULL)
			return tree;
	}
	return cJSON_CreateString(kind_clean_text(text, strlen(text), KIND_MAX_OUTPUT));
}

/* Rows of a chunk, as objects; false when there are enough */
static bool
keep_rows(const KindCall *call, cJSON *result, const cJSON *chunk)
{
	const cJSON *data = kind_member(chunk, "data_array");
	const cJSON *columns = kind_member(result, "columns");
	cJSON	   *rows = cJSON_GetObjectItemCaseSensitive(result, "rows");
	int64		n = cJSON_GetArraySize(rows);
	int64		bytes = kind_int64(result, "bytes", 0);
	const cJSON *values;
	bool		fits = true;

	if (!cJSON_IsArray(data))
		return true;
	cJSON_ArrayForEach(values, data)
	{
		const cJSON *value = cJSON_IsArray(values) ? values->child : NULL;
		const cJSON *column;
		cJSON	   *row;

		if (n >= max_rows(call))
			fits = false;
		if (!fits)
			break;
		row = cJSON_CreateObject();
		cJSON_ArrayForEach(column, columns)
		{
			cJSON_AddItemToObject(row, kind_string(column, "name"), typed_value(value, kind_string(column, "type")));
			value = value ? value->next : NULL;
		}
		bytes += (int64) strlen(json_text_limited(row, KIND_MAX_OUTPUT + 1));
		if (bytes > KIND_MAX_OUTPUT)
		{
			cJSON_Delete(row);
			fits = false;
			break;
		}
		cJSON_AddItemToArray(rows, row);
		n++;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(result, "bytes");
	cJSON_AddItemToObject(result, "bytes", json_from_int64(bytes));
	if (!fits && !cJSON_IsTrue(kind_member(result, "truncated")))
	{
		cJSON_DeleteItemFromObjectCaseSensitive(result, "truncated");
		cJSON_AddTrueToObject(result, "truncated");
	}
	return fits;
}

/*
 * Where the chunk after this one is, or NULL.  The link is a path of the
 * workspace; one that leads anywhere else is not followed.
 */
static char *
next_chunk(const KindCall *call, const cJSON *chunk)
{
	const char *link = kind_string(chunk, "next_chunk_internal_link");
	char	   *ours = mem_printf("/api/2.0/sql/statements/%s/result/chunks/", call->external_run_id);
	int64		index = kind_int64(chunk, "next_chunk_index", -1);

	if (link != NULL && strncmp(link, ours, strlen(ours)) == 0 && strlen(link) < 1000 &&
		strstr(link, "..") == NULL && strpbrk(link, " #\\\t\r\n") == NULL)
		return mem_strdup(link);
	return index > 0 ? mem_printf("%s" INT64_FORMAT, ours, index) : NULL;
}

/* Rows an INSERT, UPDATE, DELETE or MERGE changed are the first column of its one row; else -1 */
static int64
affected_rows(const cJSON *columns, const cJSON *chunk)
{
	const char *name = kind_string(columns->child, "name");
	int64		n;

	if (name == NULL || strcmp(name, "num_affected_rows") != 0)
		return -1;
	return json_int64(json_get(chunk, "data_array.0.0"), &n) && n >= 0 ? n : -1;
}

static void
succeed(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *result = kind_state_get(call, "result");
	bool		truncated = cJSON_IsTrue(kind_member(result, "truncated"));
	int64		affected = kind_int64(result, "affected", -1);
	int64		total = kind_int64(result, "total", -1);
	const char *url = verdict->external_url;
	cJSON	   *output = cJSON_CreateObject();

	kind_verdict_init(verdict);
	verdict->external_url = url;
	verdict->outcome = KIND_SUCCEEDED;
	cJSON_AddStringToObject(output, "statement_id", call->external_run_id);
	if (affected >= 0)
	{
		cJSON_AddItemToObject(output, "rowsAffected", json_from_int64(affected));
		cJSON_AddItemToObject(output, "rowsWritten", json_from_int64(affected));
		verdict->rows_written = affected;
	}
	else if (total >= 0 && !truncated && cJSON_GetArraySize(kind_member(result, "columns")) > 0)
	{
		cJSON_AddItemToObject(output, "rowsRead", json_from_int64(total));
		verdict->rows_read = total;
	}
	if (cJSON_GetArraySize(kind_member(result, "columns")) > 0)
		cJSON_AddItemToObject(output, "rows", cJSON_Duplicate(kind_member(result, "rows"), true));
	if (truncated)
		cJSON_AddTrueToObject(output, "truncated");
	verdict->output = output;
}

/* After a chunk: the next one, or the outcome */
static void
after_chunk(KindCall *call, cJSON *result, const cJSON *chunk, KindVerdict *verdict)
{
	char	   *next = NULL;

	verdict->state_changed = true;
	if (keep_rows(call, result, chunk))
		next = next_chunk(call, chunk);
	cJSON_DeleteItemFromObjectCaseSensitive(result, "next");
	if (next == NULL)
	{
		succeed(call, verdict);
		return;
	}
	cJSON_AddStringToObject(result, "next", next);
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
}

static void
fail_statement(const KindCall *call, const cJSON *status, bool is_cancelled, KindVerdict *verdict)
{
	static const char *const passing[] = {
		"UNKNOWN", "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "IO_ERROR", "SERVICE_UNDER_MAINTENANCE",
		"WORKSPACE_TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED",
	};
	const cJSON *error = kind_member(status, "error");
	const char *code = kind_string(error, "error_code");
	const char *message = kind_string(error, "message");
	const char *sql_state = kind_string(status, "sql_state");
	bool		passes = code == NULL;

	for (size_t i = 0; code != NULL && i < lengthof(passing); i++)
		passes |= strcmp(passing[i], code) == 0;
	if (is_cancelled)
	{
		kind_fail(verdict, false, false, "cancelled", message ? message :
				  mem_printf("statement %s was cancelled", call->external_run_id));
		verdict->outcome = KIND_CANCELLED;
		return;
	}
	kind_fail(verdict, !passes, passes, code ? code : "FAILED",
			  message ? message : mem_printf("statement %s failed without a message", call->external_run_id));
	if (sql_state != NULL)
		verdict->error_detail = mem_printf("SQLSTATE %s.", kind_clean_text(sql_state, strlen(sql_state), 20));
}

void
databricks_statement_ended(KindCall *call, const cJSON *statement, KindVerdict *verdict)
{
	const cJSON *status = kind_member(statement, "status");
	const cJSON *manifest = kind_member(statement, "manifest");
	const char *state = kind_string(status, "state");
	bool		is_closed = strcmp(state, "CLOSED") == 0;
	cJSON	   *result;
	cJSON	   *columns;

	if (strcmp(state, "SUCCEEDED") != 0 && !is_closed)
	{
		fail_statement(call, status, strcmp(state, "CANCELED") == 0, verdict);
		return;
	}
	result = cJSON_CreateObject();
	columns = read_columns(manifest);
	cJSON_AddItemToObject(result, "columns", columns);
	cJSON_AddArrayToObject(result, "rows");
	cJSON_AddItemToObject(result, "total", json_from_int64(kind_int64(manifest, "total_row_count", -1)));
	cJSON_AddItemToObject(result, "affected", json_from_int64(affected_rows(columns, kind_member(statement, "result"))));
	/* of a closed statement the rows are gone */
	cJSON_AddBoolToObject(result, "truncated", is_closed || cJSON_IsTrue(kind_member(manifest, "truncated")));
	kind_state_set(call, verdict, "result", result);
	after_chunk(call, result, kind_member(statement, "result"), verdict);
}

bool
databricks_chunk_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *next = kind_string(kind_state_get(call, "result"), "next");

	if (call->external_run_id == NULL || next == NULL)
		return kind_problem(problem, "$", "there is no result for step \"detail\"", NULL);
	request->method = "GET";
	request->url = mem_printf("%s%s", call->base_url, next);
	request->is_repeatable = true;
	return true;
}

void
databricks_chunk_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *result = cJSON_GetObjectItemCaseSensitive(call->kind_state, "result");
	cJSON	   *chunk = NULL;

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	if (response->http_status == 200 && response->transport_error == NULL)
	{
		chunk = kind_parse_object(response);
		if (chunk == NULL)
		{
			kind_bad_answer(call, response, "is no chunk of a result", false, true, KIND_LOOK_TRIES, verdict);
			if (verdict->outcome == KIND_CONTINUE)
				return;
		}
	}
	kind_verdict_init(verdict);
	if (chunk != NULL)
	{
		after_chunk(call, result, chunk, verdict);
		return;
	}
	/* the rest is not to be had */
	cJSON_DeleteItemFromObjectCaseSensitive(result, "truncated");
	cJSON_AddTrueToObject(result, "truncated");
	succeed(call, verdict);
}
