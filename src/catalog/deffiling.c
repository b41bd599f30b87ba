/*-------------------------------------------------------------------------
 * deffiling.c
 *	  Tasks of kind file_away come last, and whatever happened before them.
 *
 * Runs in the session that defines a pipeline.  Pure checks of a definition
 * that has been read.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "definition.h"
#include "definition_int.h"

/* All other tasks must be upstream of it: it is decided from how they ended. */
static void
check_upstream(const Definition *def, int no, bool *is_ancestor)
{
	dag_ancestors(def->ntasks, def->edges, def->nedges, no, is_ancestor);
	for (int t = 0; t < def->ntasks; t++)
	{
		if (t == no || is_ancestor[t] || def->tasks[t].kind == &kind_file_away)
			continue;
		definition_error(definition_task_path(def, no, ".depends_on"),
						 psprintf("task \"%s\" does not come after task \"%s\"", def->tasks[no].name, def->tasks[t].name),
						 "A file_away is decided from how all other tasks ended: let it depend on the last of them.");
	}
}

void
def_check_filing(const Definition *def)
{
	bool	   *is_ancestor = palloc(sizeof(bool) * def->ntasks);

	for (int no = 0; no < def->ntasks; no++)
	{
		const DefTask *task = &def->tasks[no];

		if (task->item_task != NULL && task->item_task->kind == &kind_file_away)
			definition_error(definition_task_path(def, no, ".spec.task.kind"),
							 "a for_each cannot have tasks of kind file_away",
							 "Give the whole list to one file_away.");
		if (task->kind != &kind_file_away)
			continue;
		if (strcmp(task->phase, "land") == 0)
			definition_error(definition_task_path(def, no, ".phase"),
							 psprintf("task \"%s\" of kind file_away lands nothing", task->name),
							 "Remove \"phase\".");
		if (task->run_if != RUN_IF_ALWAYS)
			definition_error(definition_task_path(def, no, ".run_if"),
							 psprintf("task \"%s\" of kind file_away runs always", task->name),
							 "Remove \"run_if\": what is moved, and where, follows how the run ended.");
		/* One on a failure would make it the handler that deals with that. */
		for (int e = 0; e < def->nedges; e++)
			if (def->edges[e].to == no && def->conditions[e].condition != EDGE_SUCCESS && def->conditions[e].condition != EDGE_DONE)
				definition_error(definition_task_path(def, no, ".depends_on"),
								 psprintf("task \"%s\" of kind file_away runs whatever became of the others", def->tasks[no].name),
								 "Remove \"condition\" from its dependencies.");
		check_upstream(def, no, is_ancestor);
	}
	pfree(is_ancestor);
}
