/*-------------------------------------------------------------------------
 * sqlcall.c
 *	  SQL tasks that are a CALL of a procedure which commits by itself.
 *
 * Runs in SQL workers only: in somebody's session the procedure would commit
 * as somebody else.  What the procedure commits stays, so such a task is done
 * at least once: the outcome is committed after the procedure, and when the
 * process dies in between, or in the procedure, the attempt counts as lost
 * and the procedure is called again.
 *
 * A procedure commits only when it is called as a statement of its own, so it
 * runs in a portal, as a client's CALL would, not through SPI.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "parser/analyze.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "shmem.h"
#include "sqltask_int.h"

static ParamListInfo
parameters(const BoundSql *bound)
{
	ParamListInfo params = makeParamList(bound->nargs);

	for (int i = 0; i < bound->nargs; i++)
	{
		params->params[i].value = bound->values[i];
		params->params[i].isnull = bound->nulls[i] == 'n';
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = bound->types[i];
	}
	return params;
}

/* Parse trees, plan and parameters are in the current context: it outlives the procedure's transactions. */
static void
call_procedure(const BoundSql *bound)
{
	List	   *parsed = pg_parse_query(bound->sql);
	RawStmt    *raw = linitial_node(RawStmt, parsed);
	Portal		portal;
	List	   *plans;
	QueryCompletion completion;

	if (list_length(parsed) != 1 || !IsA(raw->stmt, CallStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a task whose \"transaction\" is \"own\" must be a single CALL")));
	PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(raw, bound->sql, bound->types, bound->nargs, NULL),
							bound->sql, CURSOR_OPT_PARALLEL_OK, NULL);
	PopActiveSnapshot();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, bound->sql, CreateCommandTag(raw->stmt), plans, NULL);
	PortalStart(portal, parameters(bound), 0, InvalidSnapshot);
	(void) portal_run_compat(portal, FETCH_ALL, true, None_Receiver, None_Receiver, &completion);
	PortalDrop(portal, false);
}

void
sqlcall_execute(const BoundSql *bound, const SqlSpec *spec, SqlCancelCause cause, TaskOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	SqlTimer	timer;

	sqltimer_init(&timer);
	PG_TRY();
	{
		/* For the session: they outlive the procedure's commits, and the worker is cleaned afterwards. */
		sqlnotice_begin(false);
		sqlspec_set(spec, false);
		sqltimer_read(&timer, spec);
		sqltimer_start(&timer);
		call_procedure(bound);
		CHECK_FOR_INTERRUPTS();
		sqltimer_stop(&timer);
		/* What it did after its last commit. */
		CommitTransactionCommand();
		sqlnotice_end();
		StartTransactionCommand();
		MemoryContextSwitchTo(caller);
		outcome->status = ATTEMPT_SUCCEEDED;
		outcome->output = cJSON_CreateObject();
		if (sqlnotice_json() != NULL)
			cJSON_AddItemToObject((cJSON *) outcome->output, "notices", sqlnotice_json());
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		sqltimer_stop(&timer);
		sqlnotice_end();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		HOLD_INTERRUPTS();
		AbortCurrentTransaction();
		FlushErrorState();
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
		StartTransactionCommand();
		MemoryContextSwitchTo(caller);
		sqltask_outcome_of_error(outcome, edata, cause);
	}
	PG_END_TRY();
}
