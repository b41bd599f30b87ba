/*-------------------------------------------------------------------------
 * test_dag.c
 *	  Order, waves, cycles and ancestors
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "dag.h"

/* Every edge goes forwards in the order and to a later wave */
static void
check_order(const Dag *dag, const DagEdge *edges, int nedges)
{
	int		   *at = mem_alloc(sizeof(int) * (dag->ntasks + 1));
	bool		ok = true;

	for (int i = 0; i < dag->ntasks; i++)
		at[i] = -1;
	for (int i = 0; i < dag->ntasks; i++)
		at[dag->order[i]] = i;
	for (int i = 0; i < dag->ntasks; i++)
		ok &= at[i] >= 0 && dag->wave[i] < dag->nwaves;
	for (int i = 0; i < nedges; i++)
		ok &= at[edges[i].from] < at[edges[i].to] &&
			dag->wave[edges[i].from] < dag->wave[edges[i].to];
	CHECK(ok);
	mem_free(at);
}

static bool
has_edge(const DagEdge *edges, int nedges, int from, int to)
{
	for (int i = 0; i < nedges; i++)
	{
		if (edges[i].from == from && edges[i].to == to)
			return true;
	}
	return false;
}

static void
check_cycle(const Dag *dag, const DagEdge *edges, int nedges)
{
	bool		ok = dag->ncycle > 0;

	for (int i = 0; i < dag->ncycle; i++)
	{
		ok &= has_edge(edges, nedges, dag->cycle[i],
					   dag->cycle[(i + 1) % dag->ncycle]);
		for (int j = 0; j < i; j++)
			ok &= dag->cycle[i] != dag->cycle[j];
	}
	CHECK(ok);
	CHECK(dag->order == NULL && dag->wave == NULL);
}

static void
test_small(void)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	static const DagEdge diamond[] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}, {0, 3}, {0, 3}};
	static const DagEdge cycle[] = {{0, 1}, {1, 2}, {2, 3}, {3, 1}};
	static const DagEdge self[] = {{0, 1}, {2, 2}};
	static const DagEdge outside[] = {{0, 1}, {1, 4}};
	bool		ancestor[4];
	Dag			dag;
	char	   *error;

	CHECK(dag_sort(4, diamond, lengthof(diamond), names, &dag, &error));
	CHECK_STR(error, NULL);
	CHECK_INT(dag.nwaves, 3);
	CHECK_INT(dag.wave[3], 2);
	check_order(&dag, diamond, lengthof(diamond));
	dag_free(&dag);

	dag_ancestors(4, diamond, lengthof(diamond), 3, ancestor);
	CHECK(ancestor[0] && ancestor[1] && ancestor[2] && !ancestor[3]);
	dag_ancestors(4, diamond, lengthof(diamond), 1, ancestor);
	CHECK(ancestor[0] && !ancestor[1] && !ancestor[2] && !ancestor[3]);
	dag_ancestors(4, diamond, lengthof(diamond), 0, ancestor);
	CHECK(!ancestor[0] && !ancestor[1] && !ancestor[2] && !ancestor[3]);

	/* the task before the cycle is not part of it */
	CHECK(!dag_sort(4, cycle, lengthof(cycle), names, &dag, &error));
	CHECK_INT(dag.ncycle, 3);
	check_cycle(&dag, cycle, lengthof(cycle));
	CHECK_ERROR(error, "cycle: \"");
	dag_free(&dag);

	CHECK(!dag_sort(4, self, lengthof(self), names, &dag, &error));
	CHECK_INT(dag.ncycle, 1);
	CHECK_INT(dag.cycle[0], 2);
	CHECK_ERROR(error, "\"c\" -> \"c\"");
	dag_free(&dag);

	CHECK(!dag_sort(4, outside, lengthof(outside), NULL, &dag, &error));
	CHECK_INT(dag.ncycle, 0);
	CHECK_ERROR(error, "does not exist");
	dag_free(&dag);

	CHECK(dag_sort(0, NULL, 0, NULL, &dag, &error));
	CHECK_INT(dag.nwaves, 0);
	dag_free(&dag);
	CHECK(dag_sort(3, NULL, 0, NULL, &dag, &error));
	CHECK_INT(dag.nwaves, 1);
	dag_free(&dag);

	CHECK(!dag_sort(DAG_MAX_TASKS + 1, NULL, 0, NULL, &dag, &error));
	CHECK_ERROR(error, "at most 10000 tasks");
	CHECK(!dag_sort(1, self, DAG_MAX_EDGES + 1, NULL, &dag, &error));
	CHECK_ERROR(error, "at most 100000 dependencies");
	CHECK(!dag_sort(-1, NULL, 0, NULL, &dag, &error));
	CHECK_ERROR(error, "tasks");
}

/* The limits themselves: a chain, a ring, and a dense graph */
static void
test_large(void)
{
	DagEdge    *edges = mem_alloc(sizeof(DagEdge) * DAG_MAX_EDGES);
	bool	   *ancestor = mem_alloc(sizeof(bool) * DAG_MAX_TASKS);
	int			n = DAG_MAX_TASKS;
	int			nedges = 0;
	int			count = 0;
	Dag			dag;
	char	   *error;

	/* in the worst order: each edge before the one it builds on */
	for (int i = n - 2; i >= 0; i--)
		edges[nedges++] = (DagEdge) {i, i + 1};
	CHECK(dag_sort(n, edges, nedges, NULL, &dag, &error));
	CHECK_INT(dag.nwaves, n);
	CHECK_INT(dag.wave[n - 1], n - 1);
	check_order(&dag, edges, nedges);
	dag_free(&dag);
	dag_ancestors(n, edges, nedges, n - 1, ancestor);
	for (int i = 0; i < n; i++)
		count += ancestor[i];
	CHECK_INT(count, n - 1);

	edges[nedges++] = (DagEdge) {n - 1, 0};
	CHECK(!dag_sort(n, edges, nedges, NULL, &dag, &error));
	CHECK_INT(dag.ncycle, n);
	CHECK(strlen(error) < 1000);
	CHECK_ERROR(error, "(9990 more)");
	dag_free(&dag);

	nedges = 0;
	for (int i = 0; nedges < DAG_MAX_EDGES; i++)
	{
		for (int j = 1; j <= 20 && nedges < DAG_MAX_EDGES; j++)
			edges[nedges++] = (DagEdge) {i, i + j};
	}
	CHECK(dag_sort(n, edges, nedges, NULL, &dag, &error));
	check_order(&dag, edges, nedges);
	dag_free(&dag);

	mem_free(edges);
	mem_free(ancestor);
}

static void
test_random(void)
{
	Random		rnd = {42};

	for (int round = 0; round < 2000; round++)
	{
		DagEdge		edges[60];
		int			n = 1 + random_below(&rnd, 20);
		int			nedges = random_below(&rnd, 40);
		bool		forward = random_below(&rnd, 2) == 0;
		Dag			dag;
		char	   *error;

		for (int i = 0; i < nedges; i++)
		{
			int			a = random_below(&rnd, n);
			int			b = random_below(&rnd, n);

			if (forward && n > 1)
			{
				while (b == a)
					b = random_below(&rnd, n);
				edges[i] = (DagEdge) {Min(a, b), Max(a, b)};
			}
			else
				edges[i] = (DagEdge) {a, b};
		}
		if (forward && n == 1)
			nedges = 0;
		if (dag_sort(n, edges, nedges, NULL, &dag, &error))
			check_order(&dag, edges, nedges);
		else
		{
			CHECK(!forward);
			check_cycle(&dag, edges, nedges);
			mem_free(error);
		}
		dag_free(&dag);
	}
}

void
test_dag(void)
{
	test_small();
	test_large();
	test_random();
}
