/*-------------------------------------------------------------------------
 * selector.h
 *	  Which tasks of a pipeline a selection names
 *
 * A selector is the name of a task; with a "+" before it also everything
 * upstream, with a "+" behind it also everything downstream.  Pure; include
 * postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SELECTOR_H
#define WEIR_SELECTOR_H

#include "dag.h"

#define SELECTOR_MAX_COUNT	10000

/*
 * Sets selected[0 .. ntasks-1].  The edges must have passed dag_sort.  False:
 * *error says what is wrong (allocated), nothing is to be used.
 */
extern bool selector_resolve(int ntasks, const char *const *names, const DagEdge *edges, int nedges,
							 const char *const *selectors, int nselectors, bool *selected, char **error);

#endif							/* WEIR_SELECTOR_H */
