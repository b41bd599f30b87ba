/*-------------------------------------------------------------------------
 * execution_tree.c
 *	  Whose turn it is in a batch: one of its members', or the batch's own
 *
 * Runs in the session of an outside orchestrator.  Talks to nobody but the
 * lock manager and the rows of the batches.
 *
 * A transaction may log of a member and then of its batch.  The first takes
 * the member's pipeline, the second the pipelines of all members in the order
 * of their ids, so by rows alone he would go against the order of whoever
 * logs of the batch beside him.  Therefore every call begins here, with
 * nothing else of the tree locked: whoever logs of a member shares the
 * outermost batch it is in, and whoever logs of a batch, also one within, has
 * the outermost one alone, with nobody of it halfway.  It is one lock, not one
 * for each batch: who waits for the second of two holds the first.
 *
 * Which batches a run is in never changes; a batch that retention removed
 * ended long ago.  These are locks in memory: nothing is written, and they go
 * with the transaction, prepared or not.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lock.h"

#include "status.h"
#include "restart.h"
#include "execution.h"
#include "execution_row.h"
#include "pipelinestate.h"

#define TREE_LOCK_CLASS 120		/* of advisory locks; PostgreSQL's own are 1 and 2, the conductor's 119 */

static void
take(int64 pipeline_id, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) ((uint64) pipeline_id >> 32), (uint32) pipeline_id, TREE_LOCK_CLASS);
	(void) LockAcquire(&tag, mode, false, false);
}

/*
 * The pipeline of the outermost batch that a run is in, or is; 0: of none that
 * is outside.  A run of weir may be a parent too; nothing follows from it, and
 * it ends without us.
 */
static int64
outermost(int64 run_id)
{
	int64		pipeline_id = 0;
	ExecutionRow run;

	while (run_id != 0 && execution_row_find(EXECUTION_RUN_BY_ID, run_id, &run))
	{
		CHECK_FOR_INTERRUPTS();
		if (execution_row_bool(&run, RUN_COL_IS_EXTERNAL))
			pipeline_id = execution_row_id(&run, RUN_COL_PIPELINE);
		run_id = execution_row_id(&run, RUN_COL_PARENT);
		execution_row_close(&run);
	}
	return pipeline_id;
}

void
execution_lock_tree(int64 execution_id)
{
	ExecutionRow run;
	bool		is_batch;
	bool		is_alone;

	if (!execution_row_find(EXECUTION_RUN_BY_ID, execution_id, &run))
		return;
	is_batch = execution_row_bool(&run, RUN_COL_IS_BATCH);
	is_alone = !execution_row_bool(&run, RUN_COL_IS_EXTERNAL) ||
		(!is_batch && execution_row_id(&run, RUN_COL_PARENT) == 0);
	execution_row_close(&run);
	if (!is_alone)
		take(outermost(execution_id), is_batch ? ExclusiveLock : ShareLock);
}

/* A batch that crashed may have been in another one than the next is: both, ids ascending. */
void
execution_lock_tree_to_start(int64 parent_id, int64 pipeline_id, bool is_batch)
{
	LOCKMODE	mode = is_batch ? ExclusiveLock : ShareLock;
	int64		own = parent_id != 0 ? outermost(parent_id) : is_batch ? pipeline_id : 0;
	int64		crashed = 0;
	ExecutionRow state;

	if (is_batch && pipeline_id != 0 && pipeline_state_find(pipeline_id, &state))
	{
		crashed = outermost(execution_row_id(&state, STATE_COL_EXECUTION));
		execution_row_close(&state);
	}
	if (crashed != 0 && crashed < own)
		take(crashed, mode);
	if (own != 0)
		take(own, mode);
	if (crashed > own)
		take(crashed, mode);
}
