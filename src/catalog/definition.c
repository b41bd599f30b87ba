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

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "catalogutil.h"
#include "definition.h"
#include "json.h"

/* ten years, in milliseconds */
#define MAX_DURATION_MS		((int64) 3650 * 24 * 60 * 60 * 1000)
#define MAX_CONCURRENT_RUNS 10000
#define MAX_TEXT			10000

typedef struct TaskIndex
{
	char		name[NAMEDATALEN];	/* key */
	int			no;
} TaskIndex;

static const char *const top_keys[] = {
	"parameters", "max_concurrent_runs", "timeout", "retry", "tasks", "description"
};
static const char *const parameter_keys[] = {"type", "default", "required", "description"};
static const char *const task_keys[] = {
	"name", "kind", "connection", "phase", "depends_on", "retry", "timeout", "spec"
};
static const char *const retry_keys[] = {
	"max_attempts", "initial_delay", "max_delay", "multiplier", "jitter"
};
static const char *const phases[] = {"land", "transform", "publish"};

void
definition_error(const char *path, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errdetail("JSON path: %s", path),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/* path.key, quoted as in jsonpath when the key is no plain name */
char *
definition_member(const char *path, const char *key)
{
	if (catalog_is_identifier(key))
		return psprintf("%s.%s", path, key);
	return psprintf("%s.\"%s\"", path, catalog_clip(key));
}

char *
definition_task_path(const Definition *def, int task, const char *sub)
{
	if (!def->from_stages)
		return psprintf("$.tasks[%d]%s", task, sub);
	if (sub[0] == '\0')
		return psprintf("$.stages[%d]", task);
	return psprintf("$.stages[%d] (stage mapping: $%s)", task, sub);
}

static char *
list_hint(const char *what, const char *const *known, int nknown, const char *near)
{
	StringInfoData hint;

	initStringInfo(&hint);
	if (near)
		appendStringInfo(&hint, "%s ", near);
	appendStringInfo(&hint, "%s:", what);
	for (int i = 0; i < nknown; i++)
		appendStringInfo(&hint, "%s %s", i > 0 ? "," : "", known[i]);
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

void
definition_check_keys(const cJSON *object, const char *path, const char *const *known, int nknown)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
	{
		bool		found = false;

		for (int i = 0; i < nknown && !found; i++)
			found = strcmp(item->string, known[i]) == 0;
		if (!found)
			definition_error(definition_member(path, item->string),
							 psprintf("unknown key \"%s\"", catalog_clip(item->string)),
							 list_hint("Known keys are", known, nknown,
									   catalog_did_you_mean(item->string, known, nknown)));
	}
}

static const cJSON *
member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* A string member, or NULL when it is absent and not required. */
static const char *
string_member(const cJSON *object, const char *path, const char *key, bool required)
{
	const cJSON *item = member(object, key);

	if (item == NULL)
	{
		if (required)
			definition_error(path, psprintf("key \"%s\" is missing", key), NULL);
		return NULL;
	}
	if (!cJSON_IsString(item))
		definition_error(definition_member(path, key), psprintf("\"%s\" must be a string", key), NULL);
	if (strlen(item->valuestring) > MAX_TEXT)
		definition_error(definition_member(path, key),
						 psprintf("\"%s\" is longer than %d bytes", key, MAX_TEXT), NULL);
	return item->valuestring;
}

static int
integer_member(const cJSON *object, const char *path, const char *key, int least, int most, int absent)
{
	const cJSON *item = member(object, key);
	int64		value;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item) || !json_int64(item, &value) || value < least || value > most)
		definition_error(definition_member(path, key),
						 psprintf("\"%s\" must be an integer from %d to %d", key, least, most), NULL);
	return (int) value;
}

static double
number_member(const cJSON *object, const char *path, const char *key, double absent)
{
	const cJSON *item = member(object, key);
	double		value;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item) || !json_double(item, &value))
		definition_error(definition_member(path, key), psprintf("\"%s\" must be a number", key), NULL);
	return value;
}

/* The text of an interval in milliseconds, a month counted as 30 days; -1 if it is none. */
static int64
interval_ms(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Interval   *volatile interval = NULL;

	/* Nothing is swallowed: the caller raises its own error for -1. */
	PG_TRY();
	{
		interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
														 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		return -1;
	}
	PG_END_TRY();

	/* A product of large fields must not overflow. */
	if (abs(interval->month) > 1200 || interval->day > 36500 || interval->day < -36500)
		return MAX_DURATION_MS + 1;
	return (interval->month * (int64) 30 + interval->day) * 24 * 60 * 60 * 1000 + interval->time / 1000;
}

/* An interval's text or a number of seconds, in milliseconds; absent if there is none. */
static int64
duration_member(const cJSON *object, const char *path, const char *key, int64 least_ms, int64 absent)
{
	const cJSON *item = member(object, key);
	char	   *item_path = definition_member(path, key);
	double		seconds;
	int64		ms;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item))
		ms = strlen(item->valuestring) > 200 ? -1 : interval_ms(item->valuestring);
	else if (json_double(item, &seconds))
		ms = seconds < 0 ? -1 : seconds > MAX_DURATION_MS / 1000 ? MAX_DURATION_MS + 1 : (int64) (seconds * 1000);
	else
		ms = -1;
	if (ms < least_ms || ms > MAX_DURATION_MS)
		definition_error(item_path,
						 psprintf("\"%s\" must be a duration%s of at most ten years", key,
								  least_ms > 0 ? " above zero" : ""),
						 "Write an interval such as \"15 minutes\", or a number of seconds.");
	return ms;
}

static void
read_retry(const cJSON *object, const char *path, RetryPolicy *retry)
{
	const cJSON *item = member(object, "retry");
	const char *problem;

	if (item == NULL)
		return;
	path = definition_member(path, "retry");
	if (!cJSON_IsObject(item))
		definition_error(path, "\"retry\" must be an object", NULL);
	definition_check_keys(item, path, retry_keys, lengthof(retry_keys));
	retry->max_attempts = integer_member(item, path, "max_attempts", 1, 1000, retry->max_attempts);
	retry->initial_delay_ms = duration_member(item, path, "initial_delay", 0, retry->initial_delay_ms);
	/* A first delay above the default maximum says what the maximum is. */
	retry->max_delay_ms = duration_member(item, path, "max_delay", 0,
										  Max(retry->max_delay_ms, retry->initial_delay_ms));
	retry->multiplier = number_member(item, path, "multiplier", retry->multiplier);
	retry->jitter = number_member(item, path, "jitter", retry->jitter);
	problem = retry_policy_check(retry);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid retry policy"),
				 errdetail("JSON path: %s", path),
				 errhint("%s", problem)));
}

static void
check_identifier(const char *name, const char *path, const char *what)
{
	if (!catalog_is_identifier(name))
		definition_error(path, psprintf("invalid name of a %s", what),
						 "A name has 1 to 63 characters: letters, digits and \"_\", the first not a digit.");
}

static void
read_parameter(const cJSON *item, DefParam *param)
{
	char	   *path = definition_member("$.parameters", item->string);
	const cJSON *required;
	const char *problem = NULL;

	check_identifier(item->string, path, "parameter");
	if (!cJSON_IsObject(item))
		definition_error(path, psprintf("parameter \"%s\" must be an object", item->string),
						 "Write {\"type\": \"text\"}.");
	definition_check_keys(item, path, parameter_keys, lengthof(parameter_keys));

	param->name = item->string;
	param->type = string_member(item, path, "type", true);
	if (!param_type_known(param->type))
		definition_error(definition_member(path, "type"),
						 psprintf("unknown type \"%s\" of parameter \"%s\"", catalog_clip(param->type), param->name),
						 psprintf("Types are %s.", param_type_names()));
	param->description = string_member(item, path, "description", false);

	required = member(item, "required");
	if (required != NULL && !cJSON_IsBool(required))
		definition_error(definition_member(path, "required"), "\"required\" must be true or false", NULL);
	param->is_required = cJSON_IsTrue(required);

	param->default_value = member(item, "default");
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
	const cJSON *parameters = member(root, "parameters");
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

static const TaskKind *
read_kind(const Definition *def, int no, const char *kind, const char *name)
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
	definition_error(definition_task_path(def, no, ".kind"),
					 psprintf("unknown kind \"%s\" of task \"%s\"", catalog_clip(kind), name),
					 psprintf("%s%sKinds are %s.", near ? near : "", near ? " " : "", kind_names()));
	return NULL;
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

	task->name = string_member(item, path, "name", true);
	check_identifier(task->name, definition_task_path(def, no, ".name"), "task");
	task->kind = read_kind(def, no, string_member(item, path, "kind", true), task->name);
	task->connection = string_member(item, path, "connection", false);
	task->phase = string_member(item, path, "phase", false);
	if (task->phase == NULL)
		task->phase = "transform";
	for (int i = 0; i < lengthof(phases); i++)
		known_phase = known_phase || strcmp(task->phase, phases[i]) == 0;
	if (!known_phase)
		definition_error(definition_task_path(def, no, ".phase"),
						 psprintf("unknown phase \"%s\" of task \"%s\"", catalog_clip(task->phase), task->name),
						 list_hint("Phases are", phases, lengthof(phases),
								   catalog_did_you_mean(task->phase, phases, lengthof(phases))));
	task->retry = *retry;
	read_retry(item, path, &task->retry);
	task->timeout_ms = duration_member(item, path, "timeout", 1, 0);

	task->spec = member(item, "spec");
	if (task->spec == NULL)
		task->spec = cJSON_CreateObject();
	if (!cJSON_IsObject(task->spec))
		definition_error(definition_task_path(def, no, ".spec"), "\"spec\" must be an object", NULL);
}

static void
read_dependencies(Definition *def, const cJSON *item, int no, HTAB *index)
{
	const cJSON *list = member(item, "depends_on");
	const cJSON *name;
	int			first = def->nedges;
	int			i = 0;

	if (list == NULL)
		return;
	if (!cJSON_IsArray(list))
		definition_error(definition_task_path(def, no, ".depends_on"),
						 "\"depends_on\" must be an array of task names", NULL);
	cJSON_ArrayForEach(name, list)
	{
		char	   *path = definition_task_path(def, no, psprintf(".depends_on[%d]", i++));
		TaskIndex  *upstream = NULL;

		if (!cJSON_IsString(name))
			definition_error(path, "\"depends_on\" must be an array of task names", NULL);
		if (strlen(name->valuestring) < NAMEDATALEN)
			upstream = hash_search(index, name->valuestring, HASH_FIND, NULL);
		if (upstream == NULL)
		{
			const char **names = palloc(sizeof(char *) * def->ntasks);

			for (int t = 0; t < def->ntasks; t++)
				names[t] = def->tasks[t].name;
			definition_error(path,
							 psprintf("task \"%s\" depends on unknown task \"%s\"",
									  def->tasks[no].name, catalog_clip(name->valuestring)),
							 catalog_did_you_mean(name->valuestring, names, Min(def->ntasks, 1000)));
		}
		if (upstream->no == no)
			definition_error(path, psprintf("task \"%s\" depends on itself", def->tasks[no].name), NULL);
		for (int e = first; e < def->nedges; e++)
			if (def->edges[e].from == upstream->no)
				definition_error(path,
								 psprintf("task \"%s\" depends on \"%s\" twice",
										  def->tasks[no].name, name->valuestring), NULL);
		def->edges[def->nedges++] = (DagEdge) {upstream->no, no};
		def->tasks[no].upstream_count++;
	}
}

/* Waves, and the error that names a cycle. */
static void
order_tasks(Definition *def)
{
	const char **names = palloc(sizeof(char *) * Max(def->ntasks, 1));
	Dag			dag;
	char	   *error = NULL;

	for (int t = 0; t < def->ntasks; t++)
		names[t] = def->tasks[t].name;
	if (!dag_sort(def->ntasks, def->edges, def->nedges, names, &dag, &error))
		definition_error(dag.ncycle > 0 ? definition_task_path(def, dag.cycle[0], ".depends_on") : "$.tasks",
						 error,
						 dag.ncycle > 0 ? "Remove one of these dependencies." : NULL);
	for (int t = 0; t < def->ntasks; t++)
		def->tasks[t].wave = dag.wave[t] + 1;
	dag_free(&dag);
}

static void
read_tasks(Definition *def, const cJSON *root, const RetryPolicy *retry)
{
	const cJSON *tasks = member(root, "tasks");
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
		if (cJSON_IsArray(member(item, "depends_on")))
			nedges += cJSON_GetArraySize(member(item, "depends_on"));
		if (nedges > DAG_MAX_EDGES)
			definition_error("$.tasks", psprintf("more than %d dependencies", DAG_MAX_EDGES), NULL);
		CHECK_FOR_INTERRUPTS();
	}

	def->edges = palloc(sizeof(DagEdge) * Max(nedges, 1));
	no = 0;
	cJSON_ArrayForEach(item, tasks)
		read_dependencies(def, item, no++, index);
	hash_destroy(index);
	order_tasks(def);
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
	def->description = string_member(root, "$", "description", false);
	def->max_concurrent_runs = integer_member(root, "$", "max_concurrent_runs", 1, MAX_CONCURRENT_RUNS, 1);
	def->timeout_ms = duration_member(root, "$", "timeout", 1, 0);
	read_retry(root, "$", &retry);
	read_parameters(def, root);
	read_tasks(def, root, &retry);
	return def;
}
