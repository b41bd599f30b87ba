/*-------------------------------------------------------------------------
 * restart.c
 *	  What the next start of a pipeline must do, and what a start answers
 *
 * Runs in the session or the conductor that starts or ends an execution,
 * with the pipeline row locked by the caller; pure functions, no state.
 *
 * Everything is derived from what is logged, never from a call that a
 * crashed orchestrator did not make: a dead execution is closed with the
 * same restart_next_load as one that reported its error.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "status.h"
#include "restart.h"

bool
next_load_status_parse(char code, NextLoadStatus *status)
{
	switch (code)
	{
		case NEXT_LOAD_PROCESS:
		case NEXT_LOAD_RERUN:
		case NEXT_LOAD_RESUME:
		case NEXT_LOAD_SKIP:
			*status = (NextLoadStatus) code;
			return true;
	}
	return false;
}

/*
 * Is all there is to land known to be landed?  An execution that resumed
 * did not land anything itself, so having nothing logged is no evidence
 * against it; for any other one, nothing landed means there is no row that a
 * D restart could go on with.
 */
static bool
landing_is_done(const RestartEnd *end)
{
	if (end->n_landing_succeeded < end->n_landing)
		return false;
	return end->resumed || end->n_landing > 0;
}

/*
 * D if and only if landing is done and what failed comes after it.  For a
 * resumed execution everything it does comes after landing, so also a crash
 * before its first activity is D.
 */
NextLoadStatus
restart_next_load(const RestartEnd *end)
{
	if (end->succeeded)
		return end->in_failed_batch ? NEXT_LOAD_SKIP : NEXT_LOAD_PROCESS;
	if (landing_is_done(end) && (end->failed_after_landing || end->resumed))
		return NEXT_LOAD_RESUME;
	return NEXT_LOAD_RERUN;
}

/*
 * A batch has landed only if everything in it has: one child that must
 * rerun, or that never got its turn, makes the batch R.  Otherwise failed
 * children that can resume make it D, unless the batch has landing
 * activities of its own that are not done.
 */
NextLoadStatus
restart_batch_next_load(const RestartBatchEnd *end)
{
	if (end->own.succeeded)
		return restart_next_load(&end->own);
	if (end->children_rerun > 0 || end->children_unfinished > 0)
		return NEXT_LOAD_RERUN;
	if (end->children_resume > 0)
		return end->own.n_landing_succeeded < end->own.n_landing ?
			NEXT_LOAD_RERUN : NEXT_LOAD_RESUME;
	return restart_next_load(&end->own);
}

/*
 * After a failed batch its succeeded children are skipped by the restart;
 * after a batch that ended well those marks are taken back.
 *
 * A child that failed or never ran keeps a pending R or D even when its
 * batch ends well: taking that away would lose the rows it has landed and
 * not transformed.  An aborted or running child belongs to another
 * execution, which says itself what comes next; so A never becomes C.
 */
NextLoadStatus
restart_child_next_load(bool batch_succeeded, RunStatus child,
						NextLoadStatus current)
{
	if (child == RUN_SUCCEEDED)
		return batch_succeeded ? NEXT_LOAD_PROCESS : NEXT_LOAD_SKIP;
	if (child == RUN_SKIPPED && batch_succeeded && current == NEXT_LOAD_SKIP)
		return NEXT_LOAD_PROCESS;
	return current;
}

/* The start code that a next_load_status asks for */
static StartCode
start_code_for(NextLoadStatus next_load)
{
	switch (next_load)
	{
		case NEXT_LOAD_RESUME:
			return START_RESUME;
		case NEXT_LOAD_RERUN:
			return START_RERUN;
		case NEXT_LOAD_SKIP:
			return START_SKIP;
		case NEXT_LOAD_PROCESS:
			break;
	}
	return START_EXECUTE;
}

/* First match wins */
RestartDecision
restart_decide(const RestartInput *in)
{
	RestartDecision decision = {START_EXECUTE, false, false, false};
	NextLoadStatus next_load = in->last_next_load;

	if (in->same_external_run)
	{
		decision.code = START_SAME_AGAIN;
		return decision;
	}
	if (in->disabled)
	{
		decision.code = START_SKIP;
		return decision;
	}
	if (in->skip_once)
	{
		decision.code = START_SKIP;
		decision.skip_once_used = true;
		return decision;
	}
	if (in->other == RESTART_OTHER_LIVE)
	{
		decision.code = START_ABORT;
		return decision;
	}
	if (in->other == RESTART_OTHER_DEAD)
	{
		/* it becomes the last execution, so it decides */
		decision.close_other_first = true;
		next_load = in->other_next_load;
	}

	decision.code = start_code_for(next_load);
	decision.reuse_origin = decision.code == START_RESUME;
	return decision;
}

bool
start_code_runs(StartCode code)
{
	return code == START_EXECUTE || code == START_RERUN || code == START_RESUME;
}

/* Without a previous id there is no origin to reuse, whatever was decided */
int64
restart_row_audit_id(const RestartDecision *decision, int64 execution_id,
					 int64 last_row_audit_id)
{
	if (decision->reuse_origin && last_row_audit_id != 0)
		return last_row_audit_id;
	return execution_id;
}
