/*-------------------------------------------------------------------------
 * selection.c
 *	  Selectors of tasks resolved against a version of a pipeline, and of
 *	  items against a run.
 *
 * Runs in the session of a client.  Versions are immutable, and an item of a
 * run does not go away: no lock needed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalogutil.h"
#include "runapi.h"
#include "selector.h"

/* Tasks and edges of a version, as core/dag.c sees them. */
typedef struct VersionDag
{
	int			ntasks;
	const char **names;
	int			nedges;
	DagEdge    *edges;
} VersionDag;

static void
read_dag(int64 pipeline_id, int version, VersionDag *dag)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(pipeline_id), Int32GetDatum(version)};
	MemoryContext caller = CurrentMemoryContext;

	dag->ntasks = weir_spi("SELECT name FROM weir.task WHERE pipeline_id = $1 AND version = $2 AND parent_no IS NULL ORDER BY task_no",
						   2, types, values, NULL);
	dag->names = palloc(sizeof(char *) * Max(dag->ntasks, 1));
	for (int i = 0; i < dag->ntasks; i++)
		dag->names[i] = MemoryContextStrdup(caller, weir_spi_text(i, 1));
	dag->nedges = weir_spi("SELECT upstream_no, task_no FROM weir.task_dependency WHERE pipeline_id = $1 AND version = $2",
						   2, types, values, NULL);
	dag->edges = palloc(sizeof(DagEdge) * Max(dag->nedges, 1));
	for (int i = 0; i < dag->nedges; i++)
	{
		dag->edges[i].from = (int) weir_spi_int64(i, 1, NULL) - 1;
		dag->edges[i].to = (int) weir_spi_int64(i, 2, NULL) - 1;
	}
}

static const char **
selector_texts(ArrayType *selectors, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	const char **texts;

	deconstruct_array(selectors, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	texts = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a selector must not be null")));
		texts[i] = TextDatumGetCString(elements[i]);
	}
	return texts;
}

Datum
run_select_tasks(int64 pipeline_id, int version, ArrayType *selectors)
{
	VersionDag	dag;
	int			n;
	const char **texts = selector_texts(selectors, &n);
	bool	   *selected;
	Datum	   *names;
	char	   *error;
	int			n_selected = 0;

	read_dag(pipeline_id, version, &dag);
	selected = palloc(sizeof(bool) * Max(dag.ntasks, 1));
	if (!selector_resolve(dag.ntasks, dag.names, dag.edges, dag.nedges, texts, n, selected, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid selection of tasks: %s", error),
				 errhint("A selector is NAME, +NAME (with all upstream), NAME+ (with all downstream) or +NAME+.")));
	names = palloc(sizeof(Datum) * Max(dag.ntasks, 1));
	for (int i = 0; i < dag.ntasks; i++)
		if (selected[i])
			names[n_selected++] = catalog_text(dag.names[i]);
	return weir_array(TEXTOID, names, n_selected);
}

/*
 * Is the selector one of an item, "copy[12]" with a "+" on either side or
 * without?  Then *task is the selector of its for_each, "copy+", and *item
 * the name of the item.
 */
static bool
split_item(const char *selector, const char **task, char **item)
{
	const char *name = selector + strspn(selector, " +");
	const char *open = strchr(name, '[');
	size_t		digits = open != NULL ? strspn(open + 1, "0123456789") : 0;

	if (digits == 0 || open[digits + 1] != ']' || open[digits + 2 + strspn(open + digits + 2, " +")] != '\0')
		return false;
	*item = pnstrdup(name, open + digits + 2 - name);
	*task = psprintf("%.*s%s", (int) (open - selector), selector, open + digits + 2);
	return true;
}

static void
check_item(int64 run_id, const char *item)
{
	static const Oid types[] = {INT8OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(run_id), catalog_text(item)};

	if (weir_spi("SELECT 1 FROM weir.task_run WHERE run_id = $1 AND task_name = $2 AND item_no > 0", 2, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid selection of tasks: run " INT64_FORMAT " has no item \"%s\"", run_id, item),
				 errhint("The items of a run are the rows of weir.task_runs with an item_no.")));
}

Datum
run_select_again(int64 run_id, int64 pipeline_id, int version, ArrayType *selectors)
{
	static const Oid types[] = {TEXTARRAYOID, TEXTARRAYOID};
	int			n;
	int			n_items = 0;
	const char **texts = selector_texts(selectors, &n);
	Datum	   *tasks = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *items = palloc(sizeof(Datum) * Max(n, 1));
	Datum		values[2];
	bool		isnull;

	if (n > SELECTOR_MAX_COUNT)
		return run_select_tasks(pipeline_id, version, selectors);	/* says so */
	for (int i = 0; i < n; i++)
	{
		const char *task = texts[i];
		char	   *item;

		if (split_item(texts[i], &task, &item))
		{
			check_item(run_id, item);
			items[n_items++] = catalog_text(item);
		}
		tasks[i] = catalog_text(task);
	}
	values[0] = run_select_tasks(pipeline_id, version, DatumGetArrayTypeP(weir_array(TEXTOID, tasks, n)));
	values[1] = weir_array(TEXTOID, items, n_items);
	weir_spi("SELECT $1 || $2", 2, types, values, NULL);
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}
