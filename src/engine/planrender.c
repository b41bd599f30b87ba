/*-------------------------------------------------------------------------
 * planrender.c
 *	  Specs of a run that has not started: what is known is filled in, the
 *	  rest stays as {{references}}.
 *
 * Runs in the session of a client.  References are resolved by the code that
 * resolves them for a real attempt (context.c), so that what cannot be
 * resolved then is an error now; only what a run decides by running is
 * unknown.  Nothing secret can show: specs hold no secrets and references
 * reach none.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalogutil.h"
#include "json.h"
#include "kind.h"
#include "mem.h"
#include "plan.h"
#include "sqltext.h"

typedef struct Resolver
{
	PlanTasks  *plan;
	int			unknown;		/* references left as they are */
} Resolver;

static PlanTask *
find_task(PlanTasks *plan, const char *name)
{
	for (int i = 0; i < plan->ntasks; i++)
		if (strcmp(plan->tasks[i].name, name) == 0)
			return &plan->tasks[i];
	return NULL;
}

/* tasks.NAME...: known of tasks that do not run, because an earlier run did. */
static cJSON *
resolve_task(Resolver *resolver, const RefPath *path, char **error)
{
	PlanTask   *task = path->nparts >= 3 && path->parts[1].name != NULL ?
		find_task(resolver->plan, path->parts[1].name) : NULL;
	const cJSON *value;

	if (task == NULL || (!task->reused && task->skip_reason == NULL))
	{
		resolver->unknown++;
		return NULL;
	}
	if (ref_path_is(path, 2, "status"))
		return cJSON_CreateString(task->reused ? "reused" : "skipped");
	if (ref_path_is(path, 2, "error"))
		return cJSON_CreateString("");
	value = task->output == NULL ? NULL : ref_value_at(task->output, path, 3);
	if (value == NULL)
	{
		*error = psprintf("there is no value for {{%s}}", path->text);
		return NULL;
	}
	return cJSON_Duplicate(value, true);
}

/* A RefResolver */
static cJSON *
resolve(const RefPath *path, void *arg, char **error)
{
	Resolver   *resolver = arg;
	cJSON	   *run = resolver->plan->run.run;

	if (ref_path_is(path, 0, "tasks"))
		return resolve_task(resolver, path, error);
	if (ref_path_is(path, 0, "run") || ref_path_is(path, 0, "row_audit_id"))
	{
		const char *name = ref_path_is(path, 0, "row_audit_id") ? "row_audit_id" :
			path->nparts > 1 ? path->parts[1].name : NULL;

		if (name == NULL || cJSON_GetObjectItemCaseSensitive(run, name) == NULL)
		{
			resolver->unknown++;
			return NULL;
		}
	}
	else if (!ref_path_is(path, 0, "params") && !ref_path_is(path, 0, "task") && !ref_path_is(path, 0, "pipeline"))
	{
		resolver->unknown++;	/* such as the item of a loop */
		return NULL;
	}
	return context_resolve(path, &resolver->plan->run, error);
}

/*
 * The text of a SQL task stays: its references are bound, never pasted, and a
 * text with values in it would be another statement.  They are listed.
 */
static cJSON *
render_sql(const PlanTask *task, Resolver *resolver, char **error)
{
	const char *text = json_string(cJSON_GetObjectItemCaseSensitive(task->spec, "sql"));
	cJSON	   *rendered = cJSON_Duplicate(task->spec, true);
	cJSON	   *values = cJSON_CreateObject();
	char	   *hint = NULL;
	SqlText    *compiled = text == NULL ? NULL : sqltext_compile(text, error, &hint);

	for (int i = 0; compiled != NULL && i < compiled->nrefs && *error == NULL; i++)
	{
		const char *name = psprintf("{{%s}}", compiled->refs[i]->text);
		cJSON	   *value = resolve(compiled->refs[i], resolver, error);

		if (value == NULL && *error == NULL)
			value = cJSON_CreateString(name);
		if (value != NULL && !cJSON_HasObjectItem(values, name))
			cJSON_AddItemToObject(values, name, value);
	}
	if (cJSON_GetArraySize(values) > 0)
		cJSON_AddItemToObject(rendered, "values", values);
	return *error == NULL ? rendered : NULL;
}

/* Statements inside of other specs, such as those of a for_each, are not pasted into either. */
static void
keep_statements(const cJSON *spec, cJSON *rendered)
{
	const cJSON *item;
	int			i = 0;

	cJSON_ArrayForEach(item, spec)
	{
		cJSON	   *copy = cJSON_GetArrayItem(rendered, i++);

		if (copy == NULL)
			return;
		if (item->string != NULL && strcmp(item->string, "sql") == 0 && cJSON_IsString(item))
			(void) cJSON_ReplaceItemInObjectCaseSensitive(rendered, item->string, cJSON_CreateString(item->valuestring));
		else if (cJSON_IsObject(item) || cJSON_IsArray(item))
			keep_statements(item, copy);
	}
}

static cJSON *
render_items(const PlanTask *task, Resolver *resolver, char **error)
{
	cJSON	   *rendered = ref_render_known(task->spec, resolve, resolver, error);

	if (rendered != NULL)
		keep_statements(task->spec, rendered);
	return rendered;
}

/* A task that chooses a branch from what is known has chosen it already. */
static void
choose_branch(const TaskKind *kind, PlanTask *task, ForecastTask *forecast)
{
	MemoryContext cxt = CurrentMemoryContext;
	KindCall	call = {0};
	KindVerdict verdict;

	call.spec = task->spec;
	call.kind_state = cJSON_CreateObject();
	kind_verdict_init(&verdict);
	kind->decide(&call, &verdict);
	if (verdict.outcome == KIND_SUCCEEDED)
		forecast->branch = MemoryContextStrdup(cxt, json_string(cJSON_GetObjectItemCaseSensitive(verdict.output, "branch")));
	else
		task->problem = MemoryContextStrdup(cxt, verdict.error_message);
}

/* The checks of definition once more, on what references became. */
static bool
is_fit(const TaskKind *kind, PlanTask *task)
{
	KindProblem problem = {.is_rendered = true};

	if (kind == NULL || kind == &kind_sql || kind == &kind_redis_publish || kind == &kind_for_each || kind == &kind_wait)
		return true;
	kind->validate(task->spec, &problem);
	task->problem = unconstify(char *, problem.message);
	return problem.message == NULL;
}

void
plan_render(PlanTasks *plan, int t)
{
	PlanTask   *task = &plan->tasks[t];
	ForecastTask *forecast = &plan->forecast[t];
	const TaskKind *kind = kind_find(task->kind);
	Resolver	resolver = {plan, 0};
	char	   *error = NULL;
	cJSON	   *rendered;

	plan->run.task_name = task->name;
	forecast->is_choice = kind != NULL && kind->has_branch != NULL;
	rendered = kind == &kind_sql ? render_sql(task, &resolver, &error) :
		kind == &kind_for_each || kind == &kind_redis_publish ? render_items(task, &resolver, &error) :
		ref_render_known(task->spec, resolve, &resolver, &error);
	if (rendered != NULL)
		task->spec = rendered;
	if (task->reused || task->skip_reason != NULL)
		return;
	if (rendered == NULL)
		task->problem = error;
	else if (task->connection != NULL && !task->connection_exists)
		task->problem = psprintf("connection \"%s\" does not exist", task->connection);
	else if (resolver.unknown == 0 && !is_fit(kind, task))
		;						/* and would fail */
	else if (forecast->is_choice && kind->is_inline && resolver.unknown == 0)
		choose_branch(kind, task, forecast);
	forecast->will_fail = task->problem != NULL;
}
