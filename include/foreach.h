/*-------------------------------------------------------------------------
 * foreach.h
 *	  Items of for_each tasks: expanded, started and counted.
 *
 * All inside the transaction of an outcome, SPI connected as the owner of
 * the extension, the run locked (outcome_lock_run), but for those that only
 * read.  A task whose items have all ended ends itself in any of them, with
 * all that follows but the end of the run: the caller sees to that.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FOREACH_H
#define WEIR_FOREACH_H

#include <cjson/cJSON.h>

#include "context.h"

/* Reads: does the statement of this task run list its items? */
extern bool foreach_uses_sql(int64 task_run_id);

/* Reads: were its items expanded already (it is being repaired)? */
extern bool foreach_has_items(int64 task_run_id);

/* Reads: {"items": [...]} with references rendered; NULL and *error. */
extern cJSON *foreach_render(TaskContext *context, char **error);

/*
 * The attempt of a for_each task listed these items (a JSON array): they
 * become task runs.  If there are some already, those that did not succeed
 * go again and the list given is not looked at.  Once all lists of an outcome
 * are expanded, and before it is committed, foreach_expanded() ends the tasks
 * whose lists are empty and stops those of a run that fails fast: until then
 * a task without items looks like one whose items have ended.
 */
extern void foreach_expand(int64 task_run_id, const char *items);
extern void foreach_expanded(int64 run_id, int64 task_run_id);

/* Items of these for_each task runs (bigint[]) ended: the next ones become ready. */
extern void foreach_items_ended(Datum task_run_ids);

/* Items of the run were ended without having run: their tasks may have ended. */
extern void foreach_settle_run(int64 run_id);

#endif							/* WEIR_FOREACH_H */
