/*-------------------------------------------------------------------------
 * visible.c
 *	  Whose pipeline a row of the run log belongs to, for the views
 *
 * Runs in whatever session reads a view of the run log.  A join with the
 * table of pipelines would say the same, but the planner cannot see the
 * caller's LIMIT through a security barrier: with many pipelines it would
 * join and sort the whole log to show its latest twenty rows.  These
 * functions look a pipeline up when a row is really read.
 *
 * Reads what the running statement sees and takes no row locks.  What was
 * found is kept until the statement ends.  Everybody may call the functions;
 * they answer for the caller alone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "access.h"
#include "status.h"
#include "execution_row.h"

PG_FUNCTION_INFO_V1(weir_may_see);
PG_FUNCTION_INFO_V1(weir_project);

#define KEPT 256				/* a power of two */

typedef struct Seen
{
	int64		pipeline_id;	/* 0: nothing kept here */
	Oid			owner;			/* InvalidOid: no such pipeline */
	text	   *project;		/* NULL: none */
} Seen;

static void
read_pipeline(int64 pipeline_id, Seen *seen, MemoryContext keep)
{
	ExecutionRow row;
	MemoryContext caller;

	if (seen->project != NULL)
		pfree(seen->project);
	memset(seen, 0, sizeof(*seen));
	if (!execution_row_find_seen(EXECUTION_PIPELINE_BY_ID, pipeline_id, &row))
	{
		seen->pipeline_id = pipeline_id;
		return;
	}
	caller = MemoryContextSwitchTo(keep);
	seen->project = execution_row_text(&row, PIPELINE_COL_PROJECT);
	MemoryContextSwitchTo(caller);
	seen->owner = execution_row_oid(&row, PIPELINE_COL_OWNER);
	seen->pipeline_id = pipeline_id;
	execution_row_close(&row);
}

static const Seen *
pipeline_of(FunctionCallInfo fcinfo, int64 pipeline_id)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	Seen	   *seen;

	if (flinfo->fn_extra == NULL)
		flinfo->fn_extra = MemoryContextAllocZero(flinfo->fn_mcxt, KEPT * sizeof(Seen));
	seen = (Seen *) flinfo->fn_extra + (pipeline_id & (KEPT - 1));
	if (seen->pipeline_id != pipeline_id || pipeline_id == 0)
		read_pipeline(pipeline_id, seen, flinfo->fn_mcxt);
	return seen;
}

/*
 * _may_see(pipeline_id, owner): is the caller a member of the pipeline's
 * owner; of the given one, that of the run, if the pipeline was dropped.
 */
Datum
weir_may_see(PG_FUNCTION_ARGS)
{
	const Seen *seen = pipeline_of(fcinfo, PG_GETARG_INT64(0));

	PG_RETURN_BOOL(has_privs_of_role(GetUserId(), OidIsValid(seen->owner) ? seen->owner : PG_GETARG_OID(1)));
}

/* _project(pipeline_id): null also for those who may not see the pipeline */
Datum
weir_project(PG_FUNCTION_ARGS)
{
	const Seen *seen = pipeline_of(fcinfo, PG_GETARG_INT64(0));

	if (seen->project == NULL ||
		!(weir_is_reader(GetUserId()) || has_privs_of_role(GetUserId(), seen->owner)))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PointerGetDatum(seen->project));
}
