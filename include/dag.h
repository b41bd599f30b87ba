/*-------------------------------------------------------------------------
 * dag.h
 *	  Order, waves, cycles and ancestors of the tasks of a pipeline
 *
 * Tasks are indices 0 .. ntasks-1; an edge goes from a task to one that
 * depends on it.  An edge may be given twice.  Everything is linear in
 * tasks + edges.  Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DAG_H
#define WEIR_DAG_H

#define DAG_MAX_TASKS	10000
#define DAG_MAX_EDGES	100000

typedef struct DagEdge
{
	int			from;
	int			to;
} DagEdge;

typedef struct Dag
{
	int			ntasks;
	int		   *order;			/* a topological order, ntasks entries */
	int		   *wave;			/* per task: 0 for roots, else 1 + max of
								 * its dependencies */
	int			nwaves;			/* 0 when there are no tasks */
	int		   *cycle;			/* first task of the cycle first, each once;
								 * every one depends on the one before */
	int			ncycle;			/* 0 when there is no cycle */
} Dag;

/*
 * Fills *dag (to be given back with dag_free in either case).  False when
 * there is a cycle (ncycle > 0, order and wave are NULL), or a limit is
 * passed or an edge names no task (ncycle = 0).  *error says what is wrong;
 * "names" (may be NULL) are used to say it.
 */
extern bool dag_sort(int ntasks, const DagEdge *edges, int nedges,
					 const char *const *names, Dag *dag, char **error);
extern void dag_free(Dag *dag);

/*
 * Adds to reached[0 .. ntasks-1] every task that can be reached from those
 * already in it, against the edges (upstream) or along them.
 */
extern void dag_reach(int ntasks, const DagEdge *edges, int nedges, bool upstream, bool *reached);

/*
 * Sets is_ancestor[0 .. ntasks-1]: true for every task that "task" depends
 * on, directly or not.  The edges must have passed dag_sort.
 */
extern void dag_ancestors(int ntasks, const DagEdge *edges, int nedges,
						  int task, bool *is_ancestor);

#endif							/* WEIR_DAG_H */
