/*-------------------------------------------------------------------------
 * context.c
 *	  What references in a task's spec stand for: read once per attempt.
 *
 * Runs in the conductor (specs of HTTP kinds) and in SQL workers (bound
 * values).  Reads only; the run's version and the outputs of ended tasks do
 * not change while the run is live, so no lock is needed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "access.h"
#include "context.h"
#include "json.h"
#include "mem.h"

/* JSON from one of our own tables: what does not parse is our bug. */
static cJSON *
parse_column(uint64 row, int column)
{
	char	   *text = weir_spi_text(row, column);
	char	   *error = NULL;
	cJSON	   *value;

	if (text == NULL)
		return NULL;
	value = json_parse_stored(text, &error);
	if (value == NULL)
		elog(ERROR, "could not read stored JSON: %s", error);
	return value;
}

#define RUN_OBJECT \
	"jsonb_build_object('id', r.run_id, 'row_audit_id', r.row_audit_id, 'pipeline', r.pipeline_name, " \
	"'version', r.version, 'attempt', r.repair_no + 1, 'nominal_time', r.nominal_time, 'started_at', r.started_at, " \
	"'window_start', r.window_start, 'window_end', r.window_end, 'trigger_type', r.trigger_type, 'parent_id', r.parent_run_id)"

#define FIRST_OF_RUN \
	"lag(r.run_id) OVER (ORDER BY t.task_run_id) IS DISTINCT FROM r.run_id"

#define TASK_COLUMNS \
	"t.task_run_id, r.run_id, r.pipeline_id, r.version, t.task_name, t.kind, d.connection_name, r.owner, d.spec, t.reference, t.item_no, t.item, "

#define RUN_AND_TASK \
	"JOIN weir.run r USING (run_id) " TASK_DEFINITION("r", "t", "i.connection_name, i.spec")

/* From a row of these columns; of another context of its run, unless that is NULL, it shares what they have in common. */
static TaskContext *
context_from(uint64 row, int attempt_no, const TaskContext *sibling)
{
	TaskContext *context = palloc0(sizeof(TaskContext));
	char	   *connection_name = weir_spi_text(row, 7);

	context->task_run_id = weir_spi_int64(row, 1, NULL);
	context->attempt_no = attempt_no;
	context->run_id = weir_spi_int64(row, 2, NULL);
	context->pipeline_id = weir_spi_int64(row, 3, NULL);
	context->version = weir_spi_int64(row, 4, NULL);
	context->task_name = pstrdup(weir_spi_text(row, 5));
	context->kind = pstrdup(weir_spi_text(row, 6));
	context->connection_name = connection_name ? pstrdup(connection_name) : NULL;
	context->owner = (Oid) weir_spi_int64(row, 8, NULL);
	context->spec = parse_column(row, 9);
	context->reference = parse_column(row, 10);
	context->item_no = weir_spi_int64(row, 11, NULL);
	context->item = parse_column(row, 12);
	context->params = sibling ? sibling->params : parse_column(row, 13);
	context->run = sibling ? sibling->run : parse_column(row, 14);
	return context;
}

TaskContext *
context_read(int64 task_run_id, int attempt_no)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(task_run_id)};

	if (weir_spi("SELECT " TASK_COLUMNS "r.params, " RUN_OBJECT " FROM weir.task_run t " RUN_AND_TASK "WHERE t.task_run_id = $1",
				 1, types, values, NULL) != 1)
		return NULL;
	return context_from(0, attempt_no, NULL);
}

/* Thousands of tasks have the same run: it is described for the first of them only. */
void
context_read_all(const int64 *task_run_ids, const int *attempt_nos, int n, TaskContext **contexts)
{
	Oid			types[1] = {INT8ARRAYOID};
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		values[1];
	TaskContext *last = NULL;
	uint64		rows;
	int			at = 0;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(task_run_ids[i]);
		contexts[i] = NULL;
	}
	values[0] = weir_array(INT8OID, ids, n);
	rows = weir_spi("SELECT " TASK_COLUMNS "CASE WHEN " FIRST_OF_RUN " THEN r.params END, CASE WHEN " FIRST_OF_RUN " THEN " RUN_OBJECT " END "
					"FROM weir.task_run t " RUN_AND_TASK "WHERE t.task_run_id = ANY ($1) ORDER BY t.task_run_id",
					1, types, values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		int64		run_id = weir_spi_int64(row, 2, NULL);

		while (at < n && task_run_ids[at] != weir_spi_int64(row, 1, NULL))
			at++;
		if (at == n)
			elog(ERROR, "task runs are not in order");
		last = context_from(row, attempt_nos[at], last != NULL && last->run_id == run_id ? last : NULL);
		contexts[at++] = last;
	}
}

static cJSON *
copy_or_error(const cJSON *value, const RefPath *path, char **error)
{
	if (value == NULL)
	{
		*error = psprintf("there is no value for {{%s}}", path->text);
		return NULL;
	}
	return cJSON_Duplicate(value, true);
}

/* tasks.NAME.status, tasks.NAME.error (empty for none), tasks.NAME.output... */
static cJSON *
resolve_task(TaskContext *context, const RefPath *path, char **error)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];

	if (path->nparts < 3 || path->parts[1].name == NULL)
	{
		*error = psprintf("{{%s}} is incomplete", path->text);
		return NULL;
	}
	values[0] = Int64GetDatum(context->run_id);
	values[1] = CStringGetTextDatum(path->parts[1].name);
	if (weir_spi("SELECT status, output, coalesce(error_message, '') FROM weir.task_run WHERE run_id = $1 AND task_name = $2 AND item_no = 0",
				 2, types, values, NULL) != 1)
	{
		*error = psprintf("run has no task \"%s\"", path->parts[1].name);
		return NULL;
	}
	if (ref_path_is(path, 2, "status"))
		return cJSON_CreateString(weir_spi_text(0, 1));
	if (ref_path_is(path, 2, "error"))
		return cJSON_CreateString(weir_spi_text(0, 3));
	return copy_or_error(ref_value_at(parse_column(0, 2), path, 3), path, error);
}

cJSON *
context_resolve(const RefPath *path, void *arg, char **error)
{
	TaskContext *context = arg;

	if (ref_path_is(path, 0, "row_audit_id"))
		return copy_or_error(cJSON_GetObjectItemCaseSensitive(context->run, "row_audit_id"), path, error);
	if (ref_path_is(path, 0, "run"))
		return copy_or_error(ref_value_at(context->run, path, 1), path, error);
	if (ref_path_is(path, 0, "params"))
		return copy_or_error(ref_value_at(context->params, path, 1), path, error);
	if (ref_path_is(path, 0, "item"))
		return copy_or_error(ref_value_at(context->item, path, 1), path, error);
	if (ref_path_is(path, 0, "item_no"))
		return json_from_int64(context->item_no);
	if (ref_path_is(path, 0, "tasks"))
		return resolve_task(context, path, error);
	if (ref_path_is(path, 0, "task") && ref_path_is(path, 1, "attempt"))
		return json_from_int64(context->attempt_no);
	if (ref_path_is(path, 0, "task"))
		return cJSON_CreateString(context->task_name);
	if (ref_path_is(path, 0, "pipeline"))
		return copy_or_error(cJSON_GetObjectItemCaseSensitive(context->run,
															  ref_path_is(path, 1, "version") ? "version" : "pipeline"),
							 path, error);
	*error = psprintf("{{%s}} is unknown", path->text);
	return NULL;
}

/* Declared type of a parameter; InvalidOid if the path is not exactly one. */
static Oid
declared_type(TaskContext *context, const RefPath *path)
{
	Oid			types[3] = {INT8OID, INT4OID, TEXTOID};
	Datum		values[3];
	char	   *name;

	if (ref_path_is(path, 0, "run") && path->nparts == 2 &&
		(ref_path_is(path, 1, "nominal_time") || ref_path_is(path, 1, "started_at") ||
		 ref_path_is(path, 1, "window_start") || ref_path_is(path, 1, "window_end")))
		return TIMESTAMPTZOID;
	if (!ref_path_is(path, 0, "params") || path->nparts != 2)
		return InvalidOid;

	values[0] = Int64GetDatum(context->pipeline_id);
	values[1] = Int32GetDatum(context->version);
	values[2] = CStringGetTextDatum(path->parts[1].name);
	if (weir_spi("SELECT type FROM weir.parameter WHERE pipeline_id = $1 AND version = $2 AND name = $3",
				 3, types, values, NULL) != 1)
		return InvalidOid;
	name = weir_spi_text(0, 1);
	if (strcmp(name, "bigint") == 0)
		return INT8OID;
	if (strcmp(name, "numeric") == 0)
		return NUMERICOID;
	if (strcmp(name, "boolean") == 0)
		return BOOLOID;
	if (strcmp(name, "date") == 0)
		return DATEOID;
	if (strcmp(name, "timestamptz") == 0)
		return TIMESTAMPTZOID;
	if (strcmp(name, "json") == 0)
		return JSONBOID;
	return TEXTOID;
}

/* The type of a value whose type nobody declared. */
static Oid
natural_type(const cJSON *value)
{
	int64		number;

	if (cJSON_IsNumber(value) || cJSON_IsRaw(value))
		return json_int64(value, &number) ? INT8OID : NUMERICOID;
	if (cJSON_IsBool(value))
		return BOOLOID;
	if (cJSON_IsObject(value) || cJSON_IsArray(value))
		return JSONBOID;
	return TEXTOID;
}

Datum
context_bind(TaskContext *context, const RefPath *path, Oid *type, bool *isnull, char **error)
{
	cJSON	   *value = context_resolve(path, context, error);
	const char *text;
	int64		number;

	*isnull = false;
	*type = TEXTOID;
	if (value == NULL)
		return (Datum) 0;

	*type = declared_type(context, path);
	if (!OidIsValid(*type))
		*type = natural_type(value);
	if (cJSON_IsNull(value))
	{
		*isnull = true;
		return (Datum) 0;
	}

	text = cJSON_IsString(value) ? value->valuestring : json_text(value);
	switch (*type)
	{
		case INT8OID:
			if (!json_int64(value, &number))
			{
				*error = psprintf("{{%s}} is not a whole number", path->text);
				return (Datum) 0;
			}
			return Int64GetDatum(number);
		case NUMERICOID:
			return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case BOOLOID:
			return BoolGetDatum(cJSON_IsTrue(value));
		case DATEOID:
			return DirectFunctionCall1(date_in, CStringGetDatum(text));
		case TIMESTAMPTZOID:
			return DirectFunctionCall3(timestamptz_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case JSONBOID:
			return DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(value)));
		default:
			return CStringGetTextDatum(text);
	}
}
