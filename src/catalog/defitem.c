/*-------------------------------------------------------------------------
 * defitem.c
 *	  The task inside a for_each: what it does with each item.
 *
 * Runs in the session that defines a pipeline.  Reads no tables.  Name,
 * phase, run_if and dependencies are those of the for_each; kind,
 * connection, spec, retry and timeout are its own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalogutil.h"
#include "definition.h"
#include "definition_int.h"
#include "json.h"

static const char *const item_task_keys[] = {"kind", "connection", "spec", "retry", "timeout", "task_timeout", "on_uncertain"};

static int
read_concurrency(const cJSON *spec)
{
	int64		n;

	/* What is wrong with it, the kind's own check says. */
	if (!json_int64(def_member(spec, "concurrency"), &n) || n < 1 || n > FOR_EACH_MAX_CONCURRENCY)
		return FOR_EACH_DEFAULT_CONCURRENCY;
	return (int) n;
}

void
def_read_item_task(const Definition *def, int no, const RetryPolicy *retry)
{
	DefTask    *outer = &def->tasks[no];
	DefTask    *task;
	const cJSON *item;
	char	   *path = definition_task_path(def, no, ".spec.task");

	if (outer->kind != &kind_for_each)
		return;
	item = def_member(outer->spec, "task");
	if (item == NULL)
		definition_error(definition_task_path(def, no, ".spec"),
						 psprintf("task \"%s\": \"task\" is missing", outer->name),
						 "Say what to do with each item: {\"items\": ..., \"task\": {\"kind\": ..., \"spec\": {...}}}.");
	if (!cJSON_IsObject(item))
		definition_error(path, "a task must be an object", NULL);
	definition_check_keys(item, path, item_task_keys, lengthof(item_task_keys));

	task = palloc0(sizeof(DefTask));
	/* No identifier, so it never meets the name of another task. */
	task->name = psprintf("%s[]", outer->name);
	task->kind = def_read_kind(definition_member(path, "kind"), def_string(item, path, "kind", true), task->name);
	if (task->kind == &kind_for_each)
		definition_error(definition_member(path, "kind"), "a for_each cannot be the task of a for_each",
						 "Let one list hold all pairs.");
	task->connection = def_string(item, path, "connection", false);
	task->phase = outer->phase;
	task->run_if = outer->run_if;
	task->is_enabled = true;
	task->retry = *retry;
	def_read_retry(item, path, &task->retry);
	task->timeout_ms = def_duration(item, path, "timeout", 1, 0);
	task->task_timeout_ms = def_duration(item, path, "task_timeout", 1, 0);
	task->on_uncertain = def_read_on_uncertain(item, path, task->kind);
	task->spec = def_member(item, "spec");
	if (task->spec == NULL)
		task->spec = cJSON_CreateObject();
	if (!cJSON_IsObject(task->spec))
		definition_error(definition_member(path, "spec"), "\"spec\" must be an object", NULL);
	task->concurrency = read_concurrency(outer->spec);
	/* What it shares with others is said of the for_each, and holds for its items. */
	if (outer->pool != NULL && (task->kind == &kind_noop || task->kind->is_inline))
		definition_error(definition_task_path(def, no, ".pool"),
						 psprintf("items of task \"%s\" are of kind %s, which takes no pool", outer->name, task->kind->name),
						 "They only decide and run nothing: remove \"pool\".");
	task->pool = outer->pool;
	task->pool_slots = outer->pool_slots;
	task->priority = outer->priority;
	outer->item_task = task;
}
