/*-------------------------------------------------------------------------
 * jsonpath.h
 *	  A small subset of JSON path: where in an answer something is
 *
 *	  $                 the whole
 *	  .name             a member whose name is of letters, digits, "_" and "-"
 *	  ['name'] ["name"] a member of any name; \' \" \\ inside
 *	  [3] [-1]          an element, from the end if negative
 *	  [*] .*            every element or member
 *
 * No filters, no functions, no arithmetic: nothing is evaluated.  Pure; no
 * locks, no state.  Texts come from mem_alloc, trees from cJSON.
 * Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_JSONPATH_H
#define WEIR_JSONPATH_H

#include <cjson/cJSON.h>

#define JSONPATH_MAX_LENGTH	1000	/* bytes */
#define JSONPATH_MAX_STEPS	50

/* False and *error ("... at byte N", 1-based) if it is no path. */
extern bool jsonpath_check(const char *path, char **error);

/* May it match more than one value? */
extern bool jsonpath_is_many(const char *path);

/*
 * The first match in document order, or NULL: no match, no such path, root
 * NULL.  Points into root.
 */
extern const cJSON *jsonpath_find(const cJSON *root, const char *path);

/*
 * What the path stands for, as a new tree: an array of copies of all matches
 * (at most limit) if it may match many, else a copy of the one; NULL if
 * there is none.
 */
extern cJSON *jsonpath_copy(const cJSON *root, const char *path, int limit);

#endif							/* WEIR_JSONPATH_H */
