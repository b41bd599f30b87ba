/*-------------------------------------------------------------------------
 * foreach.c
 *	  Items of for_each tasks: expanded, started and counted.
 *
 * Same processes, locks and transaction as outcome.c, which calls this.  The
 * attempt of a for_each task only lists the items.  The task itself stays
 * running without a live attempt, and so without a flight: how far it is,
 * the rows of its items say and nothing else.  Whoever writes the outcome of
 * an item also starts the next ones and, after the last, ends the task, in
 * one transaction under the run's lock; a crash at any point leaves either
 * all of that or nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "access.h"
#include "engine.h"
#include "foreach.h"
#include "json.h"
#include "kind.h"
#include "outcome.h"

#define FOR_EACH_MAX_OUTPUTS "65536"	/* bytes of the items' outputs kept in the task's own, for SQL */

bool
foreach_uses_sql(int64 task_run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(task_run_id)};

	return weir_spi("SELECT 1 FROM weir.task_run t JOIN weir.run r USING (run_id) "
					"JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no "
					"WHERE t.task_run_id = $1 AND jsonb_typeof(d.spec->'items') = 'object'",
					1, types, values, NULL) == 1;
}

bool
foreach_has_items(int64 task_run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(task_run_id)};

	return weir_spi("SELECT 1 FROM weir.task_run t JOIN weir.run r USING (run_id) "
					"JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.parent_no = t.task_no "
					"JOIN weir.task_run i ON i.run_id = t.run_id AND i.task_no = d.task_no AND i.item_no = 1 "
					"WHERE t.task_run_id = $1",
					1, types, values, NULL) == 1;
}

/*
 * Outputs keep only the first rows of a long result.  A list that is not all
 * of it must not pass for the whole.
 */
static bool
check_complete(const RefPiece *piece, void *arg, char **error)
{
	TaskContext *context = arg;
	const RefPath *path = piece->path;
	Oid			types[3] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3];

	if (path == NULL || path->nparts != 4 || !ref_path_is(path, 0, "tasks") || path->parts[1].name == NULL ||
		!ref_path_is(path, 2, "output") || path->parts[3].name == NULL)
		return true;
	values[0] = Int64GetDatum(context->run_id);
	values[1] = CStringGetTextDatum(path->parts[1].name);
	values[2] = CStringGetTextDatum(path->parts[3].name);
	if (weir_spi("SELECT 1 FROM weir.task_run WHERE run_id = $1 AND task_name = $2 AND item_no = 0 "
				 "AND CASE WHEN kind = 'sql' AND $3 = 'rows' AND jsonb_typeof(output->'rows') = 'array' "
				 "THEN (output->>'rowsAffected')::numeric > jsonb_array_length(output->'rows') "
				 "ELSE kind = 'for_each' AND $3 = 'outputs' AND output ? 'outputs_truncated' END",
				 3, types, values, NULL) == 0)
		return true;
	*error = psprintf("{{%s}} is only the beginning of a longer list; list the items with {\"sql\": ...} instead", path->text);
	return false;
}

cJSON *
foreach_render(TaskContext *context, char **error)
{
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(context->spec, "items");
	cJSON	   *spec;

	if (foreach_has_items(context->task_run_id))
	{
		spec = cJSON_CreateObject();
		cJSON_AddItemToObject(spec, "items", cJSON_CreateArray());
		return spec;
	}
	if (cJSON_IsString(items) && !ref_scan(items->valuestring, check_complete, context, error))
		return NULL;
	return ref_render_json(context->spec, context_resolve, context, error);
}

/*
 * Has the run, which fails fast, failed while this task listed its items?
 * Then nothing new starts, not even items.  A failure before the task was
 * ready is none of the run as it is: it was there when the run was repaired,
 * or the task would have been blocked.
 */
static bool
has_failed_fast(int64 run_id, int64 task_run_id)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int64GetDatum(task_run_id)};

	return weir_spi("SELECT 1 FROM weir.run r JOIN weir.pipeline_version v USING (pipeline_id, version) "
					"JOIN weir.task_run f ON f.task_run_id = $2 "
					"WHERE r.run_id = $1 AND v.on_failure = 'fail_fast' AND EXISTS "
					"(SELECT FROM weir.task_run t WHERE t.run_id = $1 AND t.status IN ('failed', 'timed_out', 'cancelled') AND t.ended_at >= f.ready_at)",
					2, types, values, NULL) == 1;
}

/*
 * One row for each item; the first of them may start.  Of noop items all may:
 * they do not run, so there is nothing to bound.  After D an item that did
 * not succeed in the run before may resume what it started there.
 */
static void
insert_items(int64 task_run_id, const char *items)
{
	Oid			types[3] = {INT8OID, JSONBOID, INT4OID};
	Datum		values[3] = {Int64GetDatum(task_run_id), DirectFunctionCall1(jsonb_in, CStringGetDatum(items)), Int32GetDatum(FOR_EACH_MAX_ITEMS)};

	weir_spi("WITH p AS (SELECT t.task_run_id, t.run_id, t.task_name, t.phase, d.task_no, d.kind, "
			 "r.priority + d.priority AS priority, d.pool, d.pool_slots, d.run_limit, d.connection_name, "
			 "CASE WHEN d.kind = 'noop' THEN $3 ELSE d.concurrency END AS concurrency, o.run_id AS old_run_id, od.task_no AS old_task_no "
			 "FROM weir.task_run t JOIN weir.run r USING (run_id) "
			 "JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.parent_no = t.task_no "
			 "LEFT JOIN weir.run o ON r.start_status = 'D' AND o.run_id = r.last_run_id "
			 "LEFT JOIN weir.task od ON od.pipeline_id = o.pipeline_id AND od.version = o.version AND od.name = d.name AND od.kind = d.kind "
			 "WHERE t.task_run_id = $1) "
			 ", done AS (INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, item_no, item, parent_task_run_id, priority, pool, pool_slots, run_limit, connection_name, reference, ready_at) "
			 "SELECT p.run_id, p.task_no, p.task_name || '[' || i.no || ']', p.kind, p.phase, "
			 "CASE WHEN i.no <= p.concurrency THEN 'ready' ELSE 'waiting' END, i.no, i.value, p.task_run_id, p.priority, p.pool, p.pool_slots, p.run_limit, p.connection_name, "
			 "CASE WHEN o.external_run_id IS NOT NULL THEN jsonb_build_object('external_run_id', o.external_run_id) END, "
			 "CASE WHEN i.no <= p.concurrency THEN clock_timestamp() END "
			 "FROM p CROSS JOIN jsonb_array_elements($2) WITH ORDINALITY i (value, no) "
			 "LEFT JOIN weir.task_run o ON o.run_id = p.old_run_id AND o.task_no = p.old_task_no AND o.item_no = i.no "
			 "AND o.item = i.value AND o.status IN ('failed', 'timed_out', 'cancelled') RETURNING task_run_id, status) "
			 "SELECT array_agg(task_run_id) FROM done WHERE status = 'ready'",
			 3, types, values, NULL);
	engine_note_ready_column(1);
}

/*
 * Items of a repaired task that go again: those that were named (rerun.c has
 * marked them), else those that did not succeed; all of them if all did,
 * because then the task was asked for by name.
 */
static void
repeat_items(int64 task_run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(task_run_id)};

	weir_spi("WITH i AS (SELECT i.task_run_id, i.item_no, d.kind, d.concurrency, i.status <> 'succeeded' AS is_bad, "
			 "bool_or(i.status <> 'succeeded') OVER () AS any_bad, "
			 "coalesce(i.reference ? 'again', false) AS is_named, coalesce(bool_or(i.reference ? 'again') OVER (), false) AS any_named "
			 "FROM weir.task_run p JOIN weir.run r USING (run_id) "
			 "JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.parent_no = p.task_no "
			 "JOIN weir.task_run i ON i.run_id = p.run_id AND i.task_no = d.task_no "
			 "WHERE p.task_run_id = $1), "
			 "again AS (SELECT i.task_run_id, i.kind = 'noop' OR row_number() OVER (ORDER BY i.item_no) <= i.concurrency AS starts "
			 "FROM i WHERE CASE WHEN i.any_named THEN i.is_named ELSE i.is_bad OR NOT i.any_bad END) "
			 ", done AS (UPDATE weir.task_run t SET status = CASE WHEN a.starts THEN 'ready' ELSE 'waiting' END, "
			 "ready_at = CASE WHEN a.starts THEN clock_timestamp() END, "
			 "reference = CASE WHEN t.reference ? 'adopt' THEN jsonb_build_object('adopt', t.reference->'adopt') "
			 "WHEN t.external_run_id IS NULL THEN nullif(t.reference - 'again', '{}') WHEN t.status <> 'succeeded' "
			 "THEN jsonb_build_object('external_run_id', t.external_run_id) END, "
			 "budget_from = t.attempt_no, lost_count = 0, not_before = NULL, deadline = NULL, ended_at = NULL, error_message = NULL "
			 "FROM again a WHERE t.task_run_id = a.task_run_id RETURNING t.task_run_id, t.status) "
			 "SELECT array_agg(task_run_id) FROM done WHERE status = 'ready'",
			 1, types, values, NULL);
	engine_note_ready_column(1);
}

/* As many waiting items as are free become ready. */
static void
start_next(Datum task_run_ids)
{
	Oid			types[1] = {INT8ARRAYOID};

	/* Concurrency is looked up, never joined: a plan must not start from the run's many live task runs. */
	weir_spi("WITH free AS (SELECT t.task_run_id, (SELECT d.concurrency FROM weir.run r "
			 "JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version "
			 "WHERE r.run_id = t.run_id AND d.parent_no = t.task_no) - (SELECT count(*) FROM weir.task_run l "
			 "WHERE l.parent_task_run_id = t.task_run_id AND l.live_item = 'a') AS n "
			 "FROM weir.task_run t WHERE t.task_run_id = ANY ($1) AND t.status = 'running'), "
			 "next AS (SELECT w.task_run_id FROM free CROSS JOIN LATERAL (SELECT i.task_run_id FROM weir.task_run i "
			 "WHERE i.parent_task_run_id = free.task_run_id AND i.live_item = 'w' "
			 "ORDER BY i.item_no LIMIT greatest(free.n, 0)) w), "
			 "done AS (UPDATE weir.task_run s SET status = 'ready', ready_at = clock_timestamp() FROM next "
			 "WHERE s.task_run_id = next.task_run_id RETURNING s.task_run_id) "
			 "SELECT array_agg(task_run_id) FROM done",
			 1, types, &task_run_ids, NULL);
	engine_note_ready_column(1);
}

/* Those whose items have all ended; false: none. */
static bool
complete(Datum task_run_ids, Datum *ended)
{
	Oid			types[1] = {INT8ARRAYOID};
	bool		isnull;

	weir_spi("SELECT array_agg(t.task_run_id) FROM weir.task_run t "
			 "JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
			 "WHERE t.task_run_id = ANY ($1) AND t.kind = 'for_each' AND t.status = 'running' AND a.status = 'succeeded' "
			 "AND NOT EXISTS (SELECT FROM weir.task_run l WHERE l.parent_task_run_id = t.task_run_id AND l.live_item = 'a') "
			 "AND NOT EXISTS (SELECT FROM weir.task_run l WHERE l.parent_task_run_id = t.task_run_id AND l.live_item = 'w')",
			 1, types, &task_run_ids, NULL);
	*ended = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return !isnull;
}

/*
 * Those of the task runs whose items have all ended end.  The output lists
 * the items' outputs in their order, as many as fit.
 */
static void
finish(Datum task_run_ids)
{
	Oid			types[1] = {INT8ARRAYOID};
	bool		isnull;
	Datum		ended,
				runs,
				tasks;
	bool		all_succeeded;

	if (!complete(task_run_ids, &ended))
		return;
	/* From the task to its items, never the other way round: hence one look-up after the other. */
	weir_spi("WITH p AS MATERIALIZED (SELECT t.task_run_id, t.run_id, t.attempt_no, "
			 "(SELECT r.status = 'cancelling' FROM weir.run r WHERE r.run_id = t.run_id) AS is_cancelled, "
			 "(SELECT d.task_no FROM weir.run r JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version "
			 "WHERE r.run_id = t.run_id AND d.parent_no = t.task_no) AS item_task_no "
			 "FROM weir.task_run t WHERE t.task_run_id = ANY ($1)), "
			 "i AS MATERIALIZED (SELECT p.task_run_id AS parent_id, i.task_run_id, i.item_no, i.status, i.output, i.error_message, i.attempt_no "
			 "FROM p JOIN weir.task_run i ON i.run_id = p.run_id AND i.task_no = p.item_task_no), "
			 "n AS (SELECT p.task_run_id, p.attempt_no, p.is_cancelled, count(i.task_run_id) AS items, "
			 "count(*) FILTER (WHERE i.status IN ('succeeded', 'reused')) AS succeeded, "
			 "count(*) FILTER (WHERE i.status IN ('failed', 'timed_out')) AS failed, "
			 "count(*) FILTER (WHERE i.status = 'cancelled') AS cancelled, "
			 "count(*) FILTER (WHERE i.status = 'blocked') AS blocked, "
			 "min(i.item_no) FILTER (WHERE i.status IN ('failed', 'timed_out')) AS first_failed "
			 "FROM p LEFT JOIN i ON i.parent_id = p.task_run_id GROUP BY p.task_run_id, p.attempt_no, p.is_cancelled), "
			 "x AS (SELECT n.*, f.failure_type, CASE WHEN n.succeeded = n.items THEN 'succeeded' "
			 "WHEN n.is_cancelled OR n.failed = 0 THEN 'cancelled' ELSE 'failed' END AS status, "
			 "CASE WHEN n.succeeded < n.items THEN concat_ws('; ', "
			 "CASE WHEN n.failed > 0 THEN format('%s of %s items failed', n.failed, n.items) END, "
			 "CASE WHEN n.cancelled > 0 THEN format('%s of %s items were cancelled', n.cancelled, n.items) END, "
			 "CASE WHEN n.blocked > 0 THEN format('%s of %s items were not started', n.blocked, n.items) END, "
			 "'item ' || n.first_failed || ': ' || left(f.error_message, 500)) END AS message "
			 "FROM n LEFT JOIN LATERAL (SELECT i.error_message, (SELECT a.failure_type FROM weir.attempt a "
			 "WHERE a.task_run_id = i.task_run_id AND a.attempt_no = i.attempt_no) AS failure_type "
			 "FROM i WHERE i.parent_id = n.task_run_id AND i.item_no = n.first_failed) f ON true), "
			 "o AS (SELECT s.parent_id, jsonb_agg(s.output ORDER BY s.item_no) FILTER (WHERE s.size <= " FOR_EACH_MAX_OUTPUTS ") AS outputs, "
			 "bool_or(s.size > " FOR_EACH_MAX_OUTPUTS ") AS is_truncated FROM (SELECT i.parent_id, i.item_no, coalesce(i.output, 'null') AS output, "
			 "sum(coalesce(octet_length(i.output::text), 4) + 2) OVER (PARTITION BY i.parent_id ORDER BY i.item_no) AS size "
			 "FROM i) s GROUP BY s.parent_id), "
			 "done AS (UPDATE weir.task_run t SET status = x.status, error_message = x.message, ended_at = clock_timestamp(), "
			 "output = jsonb_strip_nulls(jsonb_build_object('items', x.items, 'succeeded', x.succeeded, 'failed', nullif(x.failed, 0), "
			 "'cancelled', nullif(x.cancelled, 0), 'blocked', nullif(x.blocked, 0), 'outputs_truncated', nullif(o.is_truncated, false))) "
			 "|| jsonb_build_object('outputs', coalesce(o.outputs, '[]')) "
			 "FROM x LEFT JOIN o ON o.parent_id = x.task_run_id "
			 "WHERE t.task_run_id = x.task_run_id RETURNING t.run_id, t.task_no, t.task_run_id, t.task_name, t.status), "
			 "e AS (INSERT INTO weir.error (run_id, task_run_id, attempt_no, activity, code, message, failure_type) "
			 "SELECT done.run_id, x.task_run_id, x.attempt_no, done.task_name, 'items_failed', x.message, coalesce(x.failure_type, 'system') "
			 "FROM x JOIN done USING (task_run_id) WHERE x.status = 'failed') "
			 "SELECT array_agg(run_id), array_agg(task_no), coalesce(bool_and(status = 'succeeded'), true) FROM done",
			 1, types, &ended, NULL);
	runs = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return;
	tasks = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	all_succeeded = weir_spi_bool(0, 3, NULL);
	advance_ended(runs, tasks, all_succeeded);
}

void
foreach_expand(int64 task_run_id, const char *items)
{
	if (foreach_has_items(task_run_id))
		repeat_items(task_run_id);
	else
		insert_items(task_run_id, items);
}

void
foreach_expanded(int64 run_id, int64 task_run_id)
{
	Datum		id = Int64GetDatum(task_run_id);

	if (has_failed_fast(run_id, task_run_id))
		advance_fail_fast(run_id);
	finish(weir_array(INT8OID, &id, 1));
}

void
foreach_items_ended(Datum task_run_ids)
{
	start_next(task_run_ids);
	finish(task_run_ids);
}

void
foreach_settle_run(int64 run_id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	Datum		ids;
	bool		isnull;

	weir_spi("SELECT array_agg(task_run_id) FROM weir.task_run WHERE run_id = $1 AND item_no = 0 AND kind = 'for_each' AND status = 'running'",
			 1, types, values, NULL);
	ids = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		finish(ids);
}
