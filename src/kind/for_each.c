/*-------------------------------------------------------------------------
 * for_each.c
 *	  Kind for_each: one task for every item of a list
 *
 * Runs in sessions that define pipelines and in the conductor.  Pure
 * functions.  Such a task's attempt only lists the items; they become task
 * runs of their own (runlog/foreach.c), and the task ends when they have.
 * A list that a statement gives is read by a SQL worker instead.
 *
 * The member "task" is the catalog's: it is stored as a task of its own and
 * is no longer there when a spec comes to decide().
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

static const KindMember members[] = {
	{"items", KIND_TYPE_ARRAY | KIND_TYPE_OBJECT, true},
	{"concurrency", KIND_TYPE_INTEGER, false},
	{"task", KIND_TYPE_OBJECT, true},
};

static const KindMember items_members[] = {
	{"sql", KIND_TYPE_STRING, true},
};

static void
check_items(const cJSON *items, KindProblem *problem)
{
	KindProblem inner = {0};

	if (cJSON_IsObject(items))
	{
		if (!kind_check_members(items, items_members, lengthof(items_members), &inner))
			(void) kind_problem(problem, mem_printf("$.items%s", inner.path + 1), inner.message,
								"\"items\" is an array, a reference to one, or {\"sql\": \"SELECT ...\"}.");
		else if (kind_string(items, "sql") == NULL)
			(void) kind_problem(problem, "$.items.sql", "\"sql\" is empty", NULL);
	}
	else if (cJSON_IsArray(items) && cJSON_GetArraySize(items) > FOR_EACH_MAX_ITEMS)
		(void) kind_problem(problem, "$.items",
							mem_printf("the list has %d items, and a for_each takes at most %d", cJSON_GetArraySize(items), FOR_EACH_MAX_ITEMS),
							"Let an item stand for several, or give each run a part of the list.");
}

static void
for_each_validate(const cJSON *spec, KindProblem *problem)
{
	const cJSON *concurrency;
	int64		n;

	if (!kind_check_members(spec, members, lengthof(members), problem))
	{
		if (problem->hint == NULL && cJSON_IsString(kind_member(spec, "items")))
			problem->hint = "\"items\" is an array, a reference to one such as \"{{params.objects}}\", or {\"sql\": \"SELECT ...\"}.";
		return;
	}
	check_items(kind_member(spec, "items"), problem);
	concurrency = kind_member(spec, "concurrency");
	if (problem->message != NULL || concurrency == NULL)
		return;
	if (cJSON_IsString(concurrency) || !json_int64(concurrency, &n) || n < 1 || n > FOR_EACH_MAX_CONCURRENCY)
		(void) kind_problem(problem, "$.concurrency",
							mem_printf("\"concurrency\" must be an integer from 1 to %d", FOR_EACH_MAX_CONCURRENCY), NULL);
}

static void
for_each_decide(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *items = kind_member(call->spec, "items");
	int			n;

	if (!cJSON_IsArray(items))
	{
		kind_fail(verdict, true, false, "invalid_items",
				  mem_printf("the items of a for_each must be an array, not %s", items == NULL || cJSON_IsNull(items) ? "null" :
							 cJSON_IsObject(items) ? "an object" : cJSON_IsString(items) ? "text" : cJSON_IsNumber(items) ? "a number" : "a boolean"));
		return;
	}
	n = cJSON_GetArraySize(items);
	if (n > FOR_EACH_MAX_ITEMS)
	{
		kind_fail(verdict, true, false, "too_many_items",
				  mem_printf("the list has %d items, and a for_each takes at most %d; let an item stand for several, or give each run a part of the list",
							 n, FOR_EACH_MAX_ITEMS));
		return;
	}
	verdict->outcome = KIND_SUCCEEDED;
	verdict->items = items;
}

const TaskKind kind_for_each = {
	.name = "for_each",
	.is_inline = true,
	.validate = for_each_validate,
	.decide = for_each_decide,
};
