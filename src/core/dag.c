/*-------------------------------------------------------------------------
 * dag.c
 *	  Order, waves, cycles and ancestors of the tasks of a pipeline
 *
 * Runs in the session that defines a pipeline (and in the unit tests).  Pure
 * computation over arrays, linear in tasks + edges, no recursion: a chain of
 * 10,000 tasks must not need 10,000 stack frames.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "dag.h"

/* tasks named in an error message about a cycle, and bytes of each name */
#define DAG_SHOW_MAX	10
#define DAG_SHOW_BYTES	64

/*
 * Edges grouped by one end: the neighbours of task t are
 * target[first[t] .. first[t + 1] - 1].
 */
typedef struct Adjacency
{
	int		   *first;
	int		   *target;
} Adjacency;

static Adjacency
adjacency_build(int ntasks, const DagEdge *edges, int nedges, bool reverse)
{
	Adjacency	adj;
	int		   *fill;

	adj.first = mem_alloc0(sizeof(int) * (ntasks + 1));
	adj.target = mem_alloc(sizeof(int) * Max(nedges, 1));

	for (int i = 0; i < nedges; i++)
		adj.first[(reverse ? edges[i].to : edges[i].from) + 1]++;
	for (int t = 0; t < ntasks; t++)
		adj.first[t + 1] += adj.first[t];

	fill = mem_alloc(sizeof(int) * (ntasks + 1));
	memcpy(fill, adj.first, sizeof(int) * (ntasks + 1));
	for (int i = 0; i < nedges; i++)
	{
		int			near = reverse ? edges[i].to : edges[i].from;
		int			far = reverse ? edges[i].from : edges[i].to;

		adj.target[fill[near]++] = far;
	}
	mem_free(fill);
	return adj;
}

static void
adjacency_free(Adjacency *adj)
{
	mem_free(adj->first);
	mem_free(adj->target);
}

/*
 * Kahn's algorithm.  Fills order and wave, leaves in missing[t] how many
 * dependencies of t were never reached, and returns how many tasks it
 * ordered; fewer than ntasks means there is a cycle.
 */
static int
dag_order(int ntasks, const Adjacency *next, const DagEdge *edges, int nedges,
		  Dag *dag, int *missing)
{
	int			head = 0;
	int			tail = 0;

	for (int i = 0; i < nedges; i++)
		missing[edges[i].to]++;
	for (int t = 0; t < ntasks; t++)
	{
		if (missing[t] == 0)
			dag->order[tail++] = t;
	}

	while (head < tail)
	{
		int			t = dag->order[head++];

		dag->nwaves = Max(dag->nwaves, dag->wave[t] + 1);
		for (int i = next->first[t]; i < next->first[t + 1]; i++)
		{
			int			to = next->target[i];

			dag->wave[to] = Max(dag->wave[to], dag->wave[t] + 1);
			if (--missing[to] == 0)
				dag->order[tail++] = to;
		}
	}
	return tail;
}

/*
 * One cycle among the tasks Kahn could not order.  Each of them has a
 * dependency that is itself not ordered, so walking backwards along those
 * must meet itself; the walk is then turned round.
 */
static void
dag_find_cycle(int ntasks, const DagEdge *edges, int nedges,
			   const int *missing, Dag *dag)
{
	int		   *before = mem_alloc(sizeof(int) * ntasks);
	int		   *seen = mem_alloc0(sizeof(int) * ntasks);
	int		   *walk = mem_alloc(sizeof(int) * ntasks);
	int			nwalk = 0;
	int			t = 0;
	int			start;

	/* what depends on a task that is not ordered is not ordered either */
	for (int i = 0; i < nedges; i++)
	{
		if (missing[edges[i].from] > 0)
			before[edges[i].to] = edges[i].from;
	}
	while (missing[t] == 0)
		t++;
	for (; seen[t] == 0; t = before[t])
	{
		walk[nwalk++] = t;
		seen[t] = nwalk;
	}

	start = seen[t] - 1;
	dag->ncycle = nwalk - start;
	dag->cycle = mem_alloc(sizeof(int) * dag->ncycle);
	for (int i = 0; i < dag->ncycle; i++)
		dag->cycle[i] = walk[nwalk - 1 - i];

	mem_free(before);
	mem_free(seen);
	mem_free(walk);
}

static void
add_task_name(StrBuf *buf, const char *const *names, int task)
{
	if (names != NULL)
		strbuf_printf(buf, "\"%.*s\"",
					  (int) mem_clip_length(names[task], DAG_SHOW_BYTES), names[task]);
	else
		strbuf_printf(buf, "%d", task);
}

/* "a" -> "b" -> "a", the middle of a long one left out */
static char *
dag_cycle_error(const Dag *dag, const char *const *names)
{
	StrBuf		buf;
	int			shown = Min(dag->ncycle, DAG_SHOW_MAX);

	strbuf_init(&buf);
	strbuf_addstr(&buf, "tasks depend on each other in a cycle: ");
	for (int i = 0; i < shown; i++)
	{
		add_task_name(&buf, names, dag->cycle[i]);
		strbuf_addstr(&buf, " -> ");
	}
	if (dag->ncycle > shown)
		strbuf_printf(&buf, "... (%d more) -> ", dag->ncycle - shown);
	add_task_name(&buf, names, dag->cycle[0]);
	return buf.data;
}

/* Limits and indices; what the rest of this file relies on */
static char *
dag_check_input(int ntasks, const DagEdge *edges, int nedges)
{
	if (ntasks < 0 || ntasks > DAG_MAX_TASKS)
		return mem_printf("a pipeline can have at most %d tasks, not %d",
						  DAG_MAX_TASKS, ntasks);
	if (nedges < 0 || nedges > DAG_MAX_EDGES)
		return mem_printf("a pipeline can have at most %d dependencies, not %d",
						  DAG_MAX_EDGES, nedges);
	for (int i = 0; i < nedges; i++)
	{
		if (edges[i].from < 0 || edges[i].from >= ntasks ||
			edges[i].to < 0 || edges[i].to >= ntasks)
			return mem_printf("dependency %d (from %d to %d) names a task that does not exist",
							  i, edges[i].from, edges[i].to);
	}
	return NULL;
}

bool
dag_sort(int ntasks, const DagEdge *edges, int nedges,
		 const char *const *names, Dag *dag, char **error)
{
	Adjacency	next;
	int		   *missing;
	bool		ok;

	memset(dag, 0, sizeof(*dag));
	*error = dag_check_input(ntasks, edges, nedges);
	if (*error != NULL)
		return false;

	dag->ntasks = ntasks;
	dag->order = mem_alloc(sizeof(int) * (ntasks + 1));
	dag->wave = mem_alloc0(sizeof(int) * (ntasks + 1));
	missing = mem_alloc0(sizeof(int) * (ntasks + 1));
	next = adjacency_build(ntasks, edges, nedges, false);

	ok = dag_order(ntasks, &next, edges, nedges, dag, missing) == ntasks;
	if (!ok)
	{
		dag_find_cycle(ntasks, edges, nedges, missing, dag);
		*error = dag_cycle_error(dag, names);
		mem_free(dag->order);
		mem_free(dag->wave);
		dag->order = dag->wave = NULL;
		dag->nwaves = 0;
	}

	adjacency_free(&next);
	mem_free(missing);
	return ok;
}

void
dag_free(Dag *dag)
{
	if (dag->order != NULL)
		mem_free(dag->order);
	if (dag->wave != NULL)
		mem_free(dag->wave);
	if (dag->cycle != NULL)
		mem_free(dag->cycle);
	memset(dag, 0, sizeof(*dag));
}

void
dag_reach(int ntasks, const DagEdge *edges, int nedges, bool upstream, bool *reached)
{
	Adjacency	next = adjacency_build(ntasks, edges, nedges, upstream);
	int		   *todo = mem_alloc(sizeof(int) * (ntasks + 1));
	int			ntodo = 0;

	for (int t = 0; t < ntasks; t++)
		if (reached[t])
			todo[ntodo++] = t;
	while (ntodo > 0)
	{
		int			t = todo[--ntodo];

		for (int i = next.first[t]; i < next.first[t + 1]; i++)
		{
			int			far = next.target[i];

			if (reached[far])
				continue;
			reached[far] = true;
			todo[ntodo++] = far;
		}
	}
	adjacency_free(&next);
	mem_free(todo);
}

void
dag_ancestors(int ntasks, const DagEdge *edges, int nedges, int task,
			  bool *is_ancestor)
{
	memset(is_ancestor, 0, sizeof(bool) * ntasks);
	is_ancestor[task] = true;
	dag_reach(ntasks, edges, nedges, true, is_ancestor);
	is_ancestor[task] = false;	/* there are no cycles: only the seed itself */
}
