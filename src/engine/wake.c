/*-------------------------------------------------------------------------
 * wake.c
 *	  Wake the conductor when a transaction commits.
 *
 * Runs in every backend that changes something the conductor cares about.
 * What changed is kept in one process-local word until the end of the
 * transaction.  On commit the changes are visible to others before the
 * callback runs, so a conductor that is woken sees them.  A rolled back
 * subtransaction forgets nothing: one look too many is cheaper than keeping
 * account.  If this process dies between commit and callback, the postmaster
 * restarts everything and the conductor looks at everything.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "engine.h"
#include "engine_int.h"
#include "shmem.h"

static uint32 pending_wake = 0;

static void
wake_xact_callback(XactEvent event, void *arg)
{
	uint32		what = pending_wake;

	if (what == 0)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			pending_wake = 0;
			what = notes_commit(what);
			if (what & ~ENGINE_WAKE_WAITERS)
				shmem_wake_conductor(MyDatabaseId, what & ~ENGINE_WAKE_WAITERS);
			/* an outside execution may have ended: weir.wait() looks again */
			if (what & (ENGINE_WAKE_RUN | ENGINE_WAKE_WAITERS))
				shmem_broadcast_runs(MyDatabaseId);
			break;
		case XACT_EVENT_ABORT:
			pending_wake = 0;
			notes_forget();
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* COMMIT PREPARED may come from any session: nobody would wake the conductor */
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that triggered weir runs"),
					 errhint("Commit it, or trigger the runs in a transaction of their own.")));
			break;
		default:
			break;
	}
}

void
engine_wake_at_commit(uint32 what)
{
	if (weir_shmem != NULL)
		pending_wake |= what;
}

void
wake_init(void)
{
	RegisterXactCallback(wake_xact_callback, NULL);
}
