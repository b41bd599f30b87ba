/*-------------------------------------------------------------------------
 * definition.c
 *	  A pipeline's definition: JSON read strictly into a struct.
 *
 * Runs in the session that defines a pipeline.  Reads no tables: what needs
 * them is in defcheck.c.  The first problem found ends it with an ERROR, so
 * nothing half-read is ever stored.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "catalogutil.h"
#include "definition.h"
#include "definition_int.h"
#include "json.h"
#include "pool.h"

#define MAX_CONCURRENT_RUNS 10000
#define MAX_CONCURRENT_TASKS 100000
#define MAX_RETENTION_RUNS	1000000000

static const char *const top_keys[] = {
	"parameters", "max_concurrent_runs", "max_concurrent_tasks", "timeout", "retry", "on_failure", "on_overlap", "priority", "retention", "tasks",
	"description"
};
static const char *const parameter_keys[] = {"type", "default", "required", "description"};
static const char *const task_keys[] = {
	"name", "kind", "connection", "phase", "depends_on", "run_if", "enabled", "retry", "timeout", "task_timeout", "on_uncertain",
	"pool", "pool_slots", "priority", "spec"
};
static const char *const retention_keys[] = {"age", "runs"};
static const char *const phases[] = {"land", "transform", "publish"};
static const char *const failure_modes[] = {"continue", "fail_fast"};
static const char *const overlap_modes[] = {"queue", "skip", "cancel_older"};

char *
definition_task_path(const Definition *def, int task, const char *sub)
{
	if (!def->from_stages)
		return psprintf("$.tasks[%d]%s", task, sub);
	if (sub[0] == '\0')
		return psprintf("$.stages[%d]", task);
	return psprintf("$.stages[%d] (stage mapping: $%s)", task, sub);
}

static void
read_parameter(const cJSON *item, DefParam *param)
{
	char	   *path = definition_member("$.parameters", item->string);
	const char *problem = NULL;

	def_identifier(item->string, path, "parameter");
	if (!cJSON_IsObject(item))
		definition_error(path, psprintf("parameter \"%s\" must be an object", item->string),
						 "Write {\"type\": \"text\"}.");
	definition_check_keys(item, path, parameter_keys, lengthof(parameter_keys));

	param->name = item->string;
	param->type = def_string(item, path, "type", true);
	if (!param_type_known(param->type))
		definition_error(definition_member(path, "type"),
						 psprintf("unknown type \"%s\" of parameter \"%s\"", catalog_clip(param->type), param->name),
						 psprintf("Types are %s.", param_type_names()));
	param->description = def_string(item, path, "description", false);

	param->is_required = def_boolean(item, path, "required", false);

	param->default_value = def_member(item, "default");
	if (param->default_value == NULL)
		return;
	if (param->is_required)
		definition_error(definition_member(path, "default"),
						 psprintf("required parameter \"%s\" has a default", param->name),
						 "A parameter with a default need not be given: remove one of the two.");
	if (!cJSON_IsNull(param->default_value) &&
		param_normalise(param->type, param->default_value, &problem) == NULL)
		definition_error(definition_member(path, "default"),
						 psprintf("default of parameter \"%s\" %s", param->name, problem), NULL);
}

static void
read_parameters(Definition *def, const cJSON *root)
{
	const cJSON *parameters = def_member(root, "parameters");
	const cJSON *item;

	if (parameters == NULL)
		return;
	if (!cJSON_IsObject(parameters))
		definition_error("$.parameters", "\"parameters\" must be an object", NULL);
	if (cJSON_GetArraySize(parameters) > DEFINITION_MAX_PARAMS)
		definition_error("$.parameters",
						 psprintf("more than %d parameters", DEFINITION_MAX_PARAMS), NULL);
	def->params = palloc0(sizeof(DefParam) * Max(cJSON_GetArraySize(parameters), 1));
	cJSON_ArrayForEach(item, parameters)
		read_parameter(item, &def->params[def->nparams++]);
}

const char *
def_read_on_uncertain(const cJSON *item, const char *path, const TaskKind *kind)
{
	static const char *const words[] = {"fail", "ask", "assume_started", "send_again"};
	const char *word = def_word(item, path, "on_uncertain", words, lengthof(words), NULL);

	if (word != NULL && !kind->is_http)
		definition_error(definition_member(path, "on_uncertain"),
						 psprintf("\"on_uncertain\" does not fit a task of kind %s", kind->name),
						 "What runs in the database is never uncertain: remove it.");
	return word != NULL ? word : "fail";
}

const TaskKind *
def_read_kind(const char *path, const char *kind, const char *name)
{
	const TaskKind *found = kind_find(kind);
	const char *known[64];
	int			nknown = 0;
	char	   *names;
	char	   *near;

	if (found != NULL)
		return found;
	names = pstrdup(kind_names());
	for (char *word = strtok(names, ", "); word != NULL && nknown < lengthof(known); word = strtok(NULL, ", "))
		known[nknown++] = word;
	near = catalog_did_you_mean(kind, known, nknown);
	definition_error(path,
					 psprintf("unknown kind \"%s\" of task \"%s\"", catalog_clip(kind), name),
					 psprintf("%s%sKinds are %s.", near ? near : "", near ? " " : "", kind_names()));
	return NULL;
}

static void
read_run_if(const Definition *def, const cJSON *item, int no)
{
	const char *name = def_string(item, definition_task_path(def, no, ""), "run_if", false);

	if (name == NULL && def->tasks[no].kind == &kind_file_away)
		def->tasks[no].run_if = RUN_IF_ALWAYS;
	if (name != NULL && !run_if_parse(name, &def->tasks[no].run_if))
		definition_error(definition_task_path(def, no, ".run_if"),
						 psprintf("unknown value \"%s\" of \"run_if\"", catalog_clip(name)),
						 psprintf("Known values are %s.", run_if_names()));
}

/* The members "pool" and "pool_slots" of object; who: in errors. */
int
def_check_pool(const cJSON *object, const char *path, const TaskKind *kind, const char *who)
{
	const char *pool = def_string(object, path, "pool", false);
	int			slots = def_integer(object, path, "pool_slots", 1, POOL_MAX_SLOTS, 1);

	if (pool == NULL && def_member(object, "pool_slots") != NULL)
		definition_error(definition_member(path, "pool_slots"),
						 psprintf("%s has \"pool_slots\" without a pool", who),
						 "Add \"pool\" with the name of a pool, or remove \"pool_slots\".");
	/* What is over at once would hold its slots for no time. */
	if (pool != NULL && kind != &kind_for_each && (kind == &kind_noop || kind->is_inline))
		definition_error(definition_member(path, "pool"), psprintf("%s takes no pool", who),
						 "It only decides and runs nothing: remove \"pool\".");
	/* The tasks of the other pipeline may need these very slots, and would wait for each other for ever. */
	if (pool != NULL && kind == &kind_pipeline)
		definition_error(definition_member(path, "pool"), psprintf("%s takes no pool", who),
						 "Tasks of the other pipeline take slots themselves: name the pool there.");
	return slots;
}

/* What it shares with tasks of other pipelines, and its place among them. */
static void
read_limits(const Definition *def, const cJSON *item, int no)
{
	DefTask    *task = &def->tasks[no];
	char	   *path = definition_task_path(def, no, "");

	task->priority = def_integer(item, path, "priority", -DEF_MAX_PRIORITY, DEF_MAX_PRIORITY, 0);
	task->pool = def_string(item, path, "pool", false);
	task->pool_slots = def_check_pool(item, path, task->kind, psprintf("task \"%s\" of kind %s", task->name, task->kind->name));
}

static void
read_task(const Definition *def, const cJSON *item, int no, const RetryPolicy *retry)
{
	DefTask    *task = &def->tasks[no];
	char	   *path = definition_task_path(def, no, "");
	bool		known_phase = false;

	if (!cJSON_IsObject(item))
		definition_error(path, "a task must be an object", NULL);
	definition_check_keys(item, path, task_keys, lengthof(task_keys));

	task->name = def_string(item, path, "name", true);
	def_identifier(task->name, definition_task_path(def, no, ".name"), "task");
	task->kind = def_read_kind(definition_task_path(def, no, ".kind"), def_string(item, path, "kind", true), task->name);
	task->connection = def_string(item, path, "connection", false);
	task->phase = def_string(item, path, "phase", false);
	if (task->phase == NULL)
		task->phase = "transform";
	for (int i = 0; i < lengthof(phases); i++)
		known_phase = known_phase || strcmp(task->phase, phases[i]) == 0;
	if (!known_phase)
		definition_error(definition_task_path(def, no, ".phase"),
						 psprintf("unknown phase \"%s\" of task \"%s\"", catalog_clip(task->phase), task->name),
						 def_list_hint("Phases are", phases, lengthof(phases),
								   catalog_did_you_mean(task->phase, phases, lengthof(phases))));
	task->retry = *retry;
	def_read_retry(item, path, &task->retry);
	task->timeout_ms = def_duration(item, path, "timeout", 1, 0);
	task->task_timeout_ms = def_duration(item, path, "task_timeout", 1, 0);
	task->on_uncertain = def_read_on_uncertain(item, path, task->kind);
	task->is_enabled = def_boolean(item, path, "enabled", true);
	read_run_if(def, item, no);
	read_limits(def, item, no);

	task->spec = def_member(item, "spec");
	if (task->spec == NULL)
		task->spec = cJSON_CreateObject();
	if (!cJSON_IsObject(task->spec))
		definition_error(definition_task_path(def, no, ".spec"), "\"spec\" must be an object", NULL);
	def_read_item_task(def, no, retry);
}

static void
read_tasks(Definition *def, const cJSON *root, const RetryPolicy *retry)
{
	const cJSON *tasks = def_member(root, "tasks");
	const cJSON *item;
	HASHCTL		ctl = {0};
	HTAB	   *index;
	int			nedges = 0;
	int			no = 0;

	if (tasks == NULL)
		definition_error("$", "key \"tasks\" is missing",
						 "A definition is {\"tasks\": [{\"name\": ..., \"kind\": ..., \"spec\": {...}}, ...]}.");
	if (!cJSON_IsArray(tasks))
		definition_error("$.tasks", "\"tasks\" must be an array", NULL);
	def->ntasks = cJSON_GetArraySize(tasks);
	if (def->ntasks == 0)
		definition_error("$.tasks", "a pipeline needs at least one task", NULL);
	if (def->ntasks > DAG_MAX_TASKS)
		definition_error("$.tasks", psprintf("more than %d tasks", DAG_MAX_TASKS), NULL);
	def->tasks = palloc0(sizeof(DefTask) * def->ntasks);

	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(TaskIndex);
	ctl.hcxt = CurrentMemoryContext;
	index = hash_create("task names", def->ntasks, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

	cJSON_ArrayForEach(item, tasks)
	{
		TaskIndex  *entry;
		bool		found;

		read_task(def, item, no, retry);
		entry = hash_search(index, def->tasks[no].name, HASH_ENTER, &found);
		if (found)
			definition_error(definition_task_path(def, no, ".name"),
							 psprintf("duplicate task name \"%s\"", def->tasks[no].name),
							 psprintf("Task %d has that name already.", entry->no + 1));
		entry->no = no++;
		if (cJSON_IsArray(def_member(item, "depends_on")))
			nedges += cJSON_GetArraySize(def_member(item, "depends_on"));
		if (nedges > DAG_MAX_EDGES)
			definition_error("$.tasks", psprintf("more than %d dependencies", DAG_MAX_EDGES), NULL);
		CHECK_FOR_INTERRUPTS();
	}

	def->edges = palloc(sizeof(DagEdge) * Max(nedges, 1));
	def->conditions = palloc(sizeof(DefEdge) * Max(nedges, 1));
	no = 0;
	cJSON_ArrayForEach(item, tasks)
		def_read_dependencies(def, item, no++, index);
	hash_destroy(index);
	def_order_tasks(def);
	def_check_filing(def);
}

/* How long runs stay in the log: null, like 0, says for ever. */
static void
read_retention(Definition *def, const cJSON *root)
{
	const cJSON *item = def_member(root, "retention");
	const char *path = "$.retention";

	def->retention_age_ms = def->retention_runs = -1;
	if (item == NULL)
		return;
	if (cJSON_IsNull(item))
	{
		def->retention_age_ms = def->retention_runs = 0;
		return;
	}
	if (!cJSON_IsObject(item))
		definition_error(path, "\"retention\" must be an object or null",
						 "Write {\"age\": \"30 days\", \"runs\": 1000}; null keeps runs for ever.");
	definition_check_keys(item, path, retention_keys, lengthof(retention_keys));
	def->retention_age_ms = cJSON_IsNull(def_member(item, "age")) ? 0 : def_duration(item, path, "age", 0, -1);
	def->retention_runs = cJSON_IsNull(def_member(item, "runs")) ? 0 :
		def_integer(item, path, "runs", 0, MAX_RETENTION_RUNS, -1);
}

Definition *
definition_parse(const cJSON *root, bool from_stages)
{
	Definition *def = palloc0(sizeof(Definition));
	RetryPolicy retry = retry_policy_default();

	def->from_stages = from_stages;
	if (!cJSON_IsObject(root))
		definition_error("$", "a definition must be a JSON object", NULL);
	definition_check_keys(root, "$", top_keys, lengthof(top_keys));
	def->description = def_string(root, "$", "description", false);
	def->max_concurrent_runs = def_integer(root, "$", "max_concurrent_runs", 1, MAX_CONCURRENT_RUNS, 1);
	def->max_concurrent_tasks = def_integer(root, "$", "max_concurrent_tasks", 1, MAX_CONCURRENT_TASKS, 0);
	def->timeout_ms = def_duration(root, "$", "timeout", 1, 0);
	def->on_failure = def_word(root, "$", "on_failure", failure_modes, lengthof(failure_modes), "continue");
	def->on_overlap = def_word(root, "$", "on_overlap", overlap_modes, lengthof(overlap_modes), "queue");
	def->priority = def_integer(root, "$", "priority", -DEF_MAX_PRIORITY, DEF_MAX_PRIORITY, 0);
	read_retention(def, root);
	def_read_retry(root, "$", &retry);
	read_parameters(def, root);
	read_tasks(def, root, &retry);
	return def;
}
