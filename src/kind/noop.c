/*-------------------------------------------------------------------------
 * noop.c
 *	  Kind noop: nothing is done, successfully
 *
 * Runs in sessions that define pipelines.  The engine completes such tasks
 * itself, in the transaction that makes them ready.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

static void
noop_validate(const cJSON *spec, KindProblem *problem)
{
	(void) kind_check_members(spec, NULL, 0, problem);
}

const TaskKind kind_noop = {
	.name = "noop",
	.validate = noop_validate,
};
