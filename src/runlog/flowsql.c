/*-------------------------------------------------------------------------
 * flowsql.c
 *	  The decisions of core/flow.c as SQL functions, for the statements that
 *	  advance many task runs at once.
 *
 * Called in whatever process runs those statements; they read nothing but
 * their arguments.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "flow.h"

PG_FUNCTION_INFO_V1(weir_edge_result);
PG_FUNCTION_INFO_V1(weir_flow_decide);

/* _edge_result(condition, status, took_branch) */
Datum
weir_edge_result(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[EDGE_IS_MET] = "met",
		[EDGE_IS_FAILED] = "failed",
		[EDGE_IS_BLOCKED] = "blocked",
		[EDGE_IS_SKIPPED] = "skipped",
	};
	char	   *condition_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *status_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	EdgeCondition condition;
	TaskStatus	status;

	if (!edge_condition_parse(condition_name, &condition) || !task_status_parse(status_name, &status))
		elog(ERROR, "unknown condition \"%s\" or status \"%s\"", condition_name, status_name);
	PG_RETURN_TEXT_P(cstring_to_text(names[flow_edge_result(condition, status, PG_GETARG_BOOL(2))]));
}

/* _flow_decide(run_if, upstream, failed, blocked, skipped) */
Datum
weir_flow_decide(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	FlowTally	tally = {PG_GETARG_INT32(1), PG_GETARG_INT32(2), PG_GETARG_INT32(3), PG_GETARG_INT32(4)};
	RunIf		run_if;

	if (!run_if_parse(name, &run_if))
		elog(ERROR, "unknown value \"%s\" of run_if", name);
	PG_RETURN_TEXT_P(cstring_to_text(task_status_name(flow_decide(run_if, &tally))));
}
