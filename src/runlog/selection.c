/*-------------------------------------------------------------------------
 * selection.c
 *	  Selectors of tasks resolved against a version of a pipeline.
 *
 * Runs in the session of a client.  Versions are immutable: no lock needed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
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
