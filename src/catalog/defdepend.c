/*-------------------------------------------------------------------------
 * defdepend.c
 *	  Dependencies of a definition's tasks: names, conditions, branches,
 *	  cycles.
 *
 * Runs in the session that defines a pipeline.  Reads no tables.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalogutil.h"
#include "compat.h"
#include "definition.h"
#include "definition_int.h"

static const char *const dependency_keys[] = {"task", "condition", "branch"};

noreturn_compat static void
unknown_task(const Definition *def, int no, const char *path, const char *name)
{
	const char **names = palloc(sizeof(char *) * def->ntasks);

	for (int t = 0; t < def->ntasks; t++)
		names[t] = def->tasks[t].name;
	definition_error(path,
					 psprintf("task \"%s\" depends on unknown task \"%s\"", def->tasks[no].name, catalog_clip(name)),
					 catalog_did_you_mean(name, names, Min(def->ntasks, 1000)));
	pg_unreachable();
}

/* {"task": ..., "condition": ..., "branch": ...}; the name of the upstream task */
static const char *
read_object(const cJSON *item, const char *path, DefEdge *edge)
{
	const char *condition;

	definition_check_keys(item, path, dependency_keys, lengthof(dependency_keys));
	condition = def_string(item, path, "condition", false);
	if (condition != NULL && !edge_condition_parse(condition, &edge->condition))
		definition_error(definition_member(path, "condition"),
						 psprintf("unknown condition \"%s\"", catalog_clip(condition)),
						 psprintf("Conditions are %s.", edge_condition_names()));
	edge->branch = def_string(item, path, "branch", false);
	if (edge->branch != NULL && edge->condition != EDGE_SUCCESS)
		definition_error(definition_member(path, "branch"),
						 "\"branch\" goes with condition \"success\" only", "Remove one of the two.");
	return def_string(item, path, "task", true);
}

static void
check_branch(const Definition *def, int no, const char *path, const DefTask *upstream, const char *branch)
{
	if (upstream->kind->has_branch == NULL)
		definition_error(definition_member(path, "branch"),
						 psprintf("task \"%s\" of kind %s has no branches", upstream->name, upstream->kind->name),
						 "Branches are chosen by tasks of kind if and switch.");
	if (!upstream->kind->has_branch(upstream->spec, branch))
		definition_error(definition_member(path, "branch"),
						 psprintf("task \"%s\" has no branch \"%s\"", upstream->name, catalog_clip(branch)),
						 "Branches of an if are \"true\" and \"false\"; those of a switch are its cases and \"default\".");
}

static void
read_dependency(Definition *def, const cJSON *item, int no, HTAB *index, int first, const char *path)
{
	DefEdge		edge = {EDGE_SUCCESS, NULL};
	TaskIndex  *upstream = NULL;
	const char *name = NULL;

	if (cJSON_IsString(item))
		name = item->valuestring;
	else if (cJSON_IsObject(item))
		name = read_object(item, path, &edge);
	else
		definition_error(path, "\"depends_on\" must be an array of task names",
						 "An element is \"NAME\" or {\"task\": \"NAME\", \"condition\": ..., \"branch\": ...}.");
	if (strlen(name) < NAMEDATALEN)
		upstream = hash_search(index, name, HASH_FIND, NULL);
	if (upstream == NULL)
		unknown_task(def, no, path, name);
	if (upstream->no == no)
		definition_error(path, psprintf("task \"%s\" depends on itself", def->tasks[no].name), NULL);
	for (int e = first; e < def->nedges; e++)
		if (def->edges[e].from == upstream->no)
			definition_error(path,
							 psprintf("task \"%s\" depends on \"%s\" twice", def->tasks[no].name, name), NULL);
	if (edge.branch != NULL)
		check_branch(def, no, path, &def->tasks[upstream->no], edge.branch);
	def->conditions[def->nedges] = edge;
	def->edges[def->nedges++] = (DagEdge) {upstream->no, no};
	def->tasks[no].upstream_count++;
}

/*
 * A task that is there for failures hears of the failure of whatever it
 * depends on: asking for it a second time, by the condition "failed", must
 * not turn it into a success.  And it must be able to hear of any.
 */
static void
react_to_failures(Definition *def, int no, int first)
{
	DefTask    *task = &def->tasks[no];
	int			deaf = 0;

	for (int e = first; e < def->nedges; e++)
	{
		if (def->conditions[e].condition == EDGE_FAILED)
			def->conditions[e].condition = EDGE_SUCCESS;
		else if (def->conditions[e].condition == EDGE_DONE)
			deaf++;
	}
	if (deaf > 0 && (task->run_if == RUN_IF_ALL_FAILED || deaf == def->nedges - first))
		definition_error(definition_task_path(def, no, ".run_if"),
						 psprintf("task \"%s\" could never run: run_if is %s, and a dependency with condition \"done\" is met whatever happens",
								  task->name, run_if_name(task->run_if)),
						 "Leave out the condition \"done\", or choose another run_if.");
}

void
def_read_dependencies(Definition *def, const cJSON *item, int no, HTAB *index)
{
	const cJSON *list = def_member(item, "depends_on");
	const cJSON *dependency;
	int			first = def->nedges;
	int			i = 0;

	if (list == NULL)
		return;
	if (!cJSON_IsArray(list))
		definition_error(definition_task_path(def, no, ".depends_on"),
						 "\"depends_on\" must be an array of task names", NULL);
	cJSON_ArrayForEach(dependency, list)
		read_dependency(def, dependency, no, index, first,
						definition_task_path(def, no, psprintf(".depends_on[%d]", i++)));
	if (run_if_handles_failure(def->tasks[no].run_if))
		react_to_failures(def, no, first);
}

/* Waves, and the error that names a cycle. */
void
def_order_tasks(Definition *def)
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
