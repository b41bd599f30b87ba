/*-------------------------------------------------------------------------
 * pipelinestore.c
 *	  A checked definition written into the tables.
 *
 * Runs in the session that defines a pipeline, in its transaction: a version
 * appears whole or not at all.  Four statements, whatever the number of
 * tasks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/jsonb.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"
#include "json.h"
#include "pipelinestore.h"

static void
store_parameters(int64 pipeline_id, int version, const Definition *def)
{
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID};
	cJSON	   *rows = cJSON_CreateArray();
	Datum		values[3];

	for (int i = 0; i < def->nparams; i++)
	{
		const DefParam *param = &def->params[i];
		cJSON	   *row = cJSON_CreateObject();

		cJSON_AddStringToObject(row, "name", param->name);
		cJSON_AddStringToObject(row, "type", param->type);
		if (param->default_value && !cJSON_IsNull(param->default_value))
			cJSON_AddItemReferenceToObject(row, "default_value", (cJSON *) param->default_value);
		cJSON_AddBoolToObject(row, "is_required", param->is_required);
		if (param->description)
			cJSON_AddStringToObject(row, "description", param->description);
		cJSON_AddItemToArray(rows, row);
	}
	values[0] = Int64GetDatum(pipeline_id);
	values[1] = Int32GetDatum(version);
	values[2] = catalog_jsonb(json_text(rows));
	weir_spi("INSERT INTO weir.parameter (pipeline_id, version, name, type, default_value, is_required, description) "
			 "SELECT $1, $2, r.name, r.type, r.default_value, r.is_required, r.description "
			 "FROM jsonb_to_recordset($3) AS r (name text, type text, default_value jsonb, is_required boolean, description text)",
			 3, types, values, NULL);
}

/*
 * Does a task of that kind count when the tasks of a run are limited?  What
 * the conductor decides in no time does not, nor what only waits; of a
 * for_each its items do.
 */
static bool
counts_in_run(const TaskKind *kind)
{
	return kind != &kind_noop && kind != &kind_wait && !kind->is_inline;
}

static cJSON *
task_row(const Definition *def, const DefTask *task, int no)
{
	cJSON	   *row = cJSON_CreateObject();

	cJSON_AddItemToObject(row, "no", json_from_int64(no));
	cJSON_AddStringToObject(row, "name", task->name);
	cJSON_AddStringToObject(row, "kind", task->kind->name);
	if (task->connection)
		cJSON_AddStringToObject(row, "connection", task->connection);
	cJSON_AddStringToObject(row, "phase", task->phase);
	if (task->item_task == NULL)
		cJSON_AddItemReferenceToObject(row, "spec", (cJSON *) task->spec);
	else
	{
		/* What is done with each item is a row of its own. */
		cJSON	   *spec = cJSON_CreateObject();

		cJSON_AddItemReferenceToObject(spec, "items", cJSON_GetObjectItemCaseSensitive(task->spec, "items"));
		cJSON_AddItemToObject(row, "spec", spec);
	}
	cJSON_AddItemToObject(row, "max_attempts", json_from_int64(task->retry.max_attempts));
	cJSON_AddItemToObject(row, "initial_ms", json_from_int64(task->retry.initial_delay_ms));
	cJSON_AddItemToObject(row, "max_ms", json_from_int64(task->retry.max_delay_ms));
	cJSON_AddNumberToObject(row, "multiplier", task->retry.multiplier);
	cJSON_AddNumberToObject(row, "jitter", task->retry.jitter);
	cJSON_AddStringToObject(row, "backoff", retry_backoff_name(task->retry.backoff));
	if (task->retry.on != NULL)
		cJSON_AddItemReferenceToObject(row, "retry_on", (cJSON *) task->retry.on);
	if (task->timeout_ms > 0)
		cJSON_AddItemToObject(row, "timeout_ms", json_from_int64(task->timeout_ms));
	if (task->task_timeout_ms > 0)
		cJSON_AddItemToObject(row, "task_timeout_ms", json_from_int64(task->task_timeout_ms));
	cJSON_AddStringToObject(row, "on_uncertain", task->on_uncertain);
	cJSON_AddStringToObject(row, "run_if", run_if_name(task->run_if));
	cJSON_AddBoolToObject(row, "is_enabled", task->is_enabled);
	if (task->pool)
		cJSON_AddStringToObject(row, "pool", task->pool);
	cJSON_AddItemToObject(row, "pool_slots", json_from_int64(task->pool_slots));
	if (def->max_concurrent_tasks > 0 && counts_in_run(task->kind))
		cJSON_AddItemToObject(row, "run_limit", json_from_int64(def->max_concurrent_tasks));
	cJSON_AddItemToObject(row, "priority", json_from_int64(task->priority));
	cJSON_AddItemToObject(row, "wave", json_from_int64(task->wave));
	cJSON_AddItemToObject(row, "upstream", json_from_int64(task->upstream_count));
	return row;
}

static void
store_tasks(int64 pipeline_id, int version, const Definition *def)
{
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID};
	cJSON	   *rows = cJSON_CreateArray();
	Datum		values[3];
	int			no = def->ntasks;

	for (int i = 0; i < def->ntasks; i++)
		cJSON_AddItemToArray(rows, task_row(def, &def->tasks[i], i + 1));

	/* Tasks of items come behind all others, whose numbers are their places. */
	for (int i = 0; i < def->ntasks; i++)
	{
		DefTask    *task = def->tasks[i].item_task;
		cJSON	   *row;

		if (task == NULL)
			continue;
		task->wave = def->tasks[i].wave;
		row = task_row(def, task, ++no);
		cJSON_AddItemToObject(row, "parent", json_from_int64(i + 1));
		cJSON_AddItemToObject(row, "concurrency", json_from_int64(task->concurrency));
		cJSON_AddItemToArray(rows, row);
	}
	values[0] = Int64GetDatum(pipeline_id);
	values[1] = Int32GetDatum(version);
	values[2] = catalog_jsonb(json_text(rows));
	weir_spi("INSERT INTO weir.task (pipeline_id, version, task_no, name, kind, connection_name, phase, spec, "
			 "max_attempts, retry_initial_ms, retry_max_ms, retry_multiplier, retry_jitter, retry_backoff, retry_on, attempt_timeout, task_timeout, on_uncertain, "
			 "run_if, is_enabled, pool, pool_slots, run_limit, priority, wave, upstream_count, parent_no, concurrency) "
			 "SELECT $1, $2, r.no, r.name, r.kind, r.connection, r.phase, r.spec, r.max_attempts, r.initial_ms, "
			 "r.max_ms, r.multiplier, r.jitter, r.backoff, r.retry_on, r.timeout_ms * interval '1 millisecond', "
			 "r.task_timeout_ms * interval '1 millisecond', r.on_uncertain, r.run_if, r.is_enabled, "
			 "r.pool, r.pool_slots, r.run_limit, r.priority, r.wave, r.upstream, r.parent, r.concurrency "
			 "FROM jsonb_to_recordset($3) AS r (no integer, name text, kind text, connection text, phase text, "
			 "spec jsonb, max_attempts integer, initial_ms bigint, max_ms bigint, multiplier double precision, "
			 "jitter double precision, backoff text, retry_on jsonb, timeout_ms bigint, task_timeout_ms bigint, on_uncertain text, run_if text, is_enabled boolean, "
			 "pool text, pool_slots integer, run_limit integer, priority integer, wave integer, upstream integer, "
			 "parent integer, concurrency integer)",
			 3, types, values, NULL);
}

static void
store_dependencies(int64 pipeline_id, int version, const Definition *def)
{
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID};
	cJSON	   *rows = cJSON_CreateArray();
	Datum		values[3];

	if (def->nedges == 0)
		return;
	for (int i = 0; i < def->nedges; i++)
	{
		cJSON	   *row = cJSON_CreateObject();

		cJSON_AddItemToObject(row, "task_no", json_from_int64(def->edges[i].to + 1));
		cJSON_AddItemToObject(row, "upstream_no", json_from_int64(def->edges[i].from + 1));
		cJSON_AddStringToObject(row, "condition", edge_condition_name(def->conditions[i].condition));
		if (def->conditions[i].branch)
			cJSON_AddStringToObject(row, "branch", def->conditions[i].branch);
		cJSON_AddItemToArray(rows, row);
	}
	values[0] = Int64GetDatum(pipeline_id);
	values[1] = Int32GetDatum(version);
	values[2] = catalog_jsonb(json_text(rows));
	weir_spi("INSERT INTO weir.task_dependency (pipeline_id, version, task_no, upstream_no, condition, branch) "
			 "SELECT $1, $2, e.task_no, e.upstream_no, e.condition, e.branch "
			 "FROM jsonb_to_recordset($3) AS e (task_no integer, upstream_no integer, condition text, branch text)",
			 3, types, values, NULL);
}

void
pipeline_store_version(int64 pipeline_id, int version, const Definition *def, Datum document, Oid caller)
{
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID, INT4OID, INT8OID, REGROLEOID, TEXTOID, TEXTOID, INT4OID, INT8OID, INT4OID, INT4OID};
	Datum		values[12];
	char		nulls[] = "            ";

	values[0] = Int64GetDatum(pipeline_id);
	values[1] = Int32GetDatum(version);
	values[2] = document;
	values[3] = Int32GetDatum(def->max_concurrent_runs);
	values[4] = Int64GetDatum(def->timeout_ms);
	nulls[4] = def->timeout_ms > 0 ? ' ' : 'n';
	values[5] = ObjectIdGetDatum(caller);
	values[6] = catalog_text(def->on_failure);
	values[7] = catalog_text(def->on_overlap);
	values[8] = Int32GetDatum(def->priority);
	values[9] = Int64GetDatum(def->retention_age_ms);
	nulls[9] = def->retention_age_ms < 0 ? 'n' : ' ';
	values[10] = Int32GetDatum(def->retention_runs);
	nulls[10] = def->retention_runs < 0 ? 'n' : ' ';
	values[11] = Int32GetDatum(def->max_concurrent_tasks);
	nulls[11] = def->max_concurrent_tasks > 0 ? ' ' : 'n';
	weir_spi("INSERT INTO weir.pipeline_version (pipeline_id, version, definition, max_concurrent_runs, "
			 "run_timeout, created_by, on_failure, on_overlap, priority, retention_age, retention_runs, max_concurrent_tasks) "
			 "VALUES ($1, $2, $3, $4, $5 * interval '1 millisecond', $6, $7, $8, $9, "
			 "$10 * interval '1 millisecond', $11, $12)",
			 12, types, values, nulls);
	if (def->retention_age_ms >= 0 || def->retention_runs >= 0)
		engine_wake_at_commit(ENGINE_WAKE_LIMITS);
	store_parameters(pipeline_id, version, def);
	store_tasks(pipeline_id, version, def);
	store_dependencies(pipeline_id, version, def);
}
