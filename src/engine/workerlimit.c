/*-------------------------------------------------------------------------
 * workerlimit.c
 *	  How many SQL workers there may be beside what else needs processes.
 *
 * max_worker_processes is shared by all that run in the background: weir's
 * launcher, its conductors and SQL workers, parallel queries, logical
 * replication with its own launcher, other extensions.  (Autovacuum and WAL
 * senders are counted elsewhere.)  A conductor keeps SQL workers warm and
 * starts as many as there is work for, so without a limit they would be all
 * there is, and a parallel query would silently run alone.  Hence a reserve
 * (weir.reserved_worker_processes) that SQL workers never take:
 *
 *	  launcher | conductors | SQL workers ... | reserve
 *	  |<------------- max_worker_processes ------------>|
 *
 * PostgreSQL tells nobody how many places are free: the postmaster keeps the
 * list for itself, and RegisterDynamicBackgroundWorker() says no when there
 * is none.  weir knows its own.  So it can promise that at least the reserve
 * is left to all others together, not that it is free: what they have taken,
 * such as the launcher of logical replication or the worker of another
 * extension, they have taken from it.  They may also take more than that as
 * long as weir does not use it; then a SQL worker cannot be started, and its
 * task waits (sqlpool.c).
 *
 * The reserve can be short for as long as
 * - SQL workers have tasks that began before the limit fell, by a reload or
 *	 a new conductor: no task is ended for it;
 * - a worker that another conductor started is on its way out: its place in
 *	 shared memory is free before the postmaster has noticed;
 * - max_worker_processes has no room for the reserve and one SQL worker: one
 *	 there is always, or no SQL task would ever run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "engine_int.h"
#include "shmem.h"

#define LAUNCHERS	1

/* SQL workers that there is room for beside so many conductors; may be less than one. */
static int
room_beside(int conductors)
{
	return max_worker_processes - LAUNCHERS - conductors - weir_reserved_worker_processes;
}

int
sql_worker_limit(void)
{
	int			conductors = 0;

	/* One that is wanted and not there has to find a place when it comes. */
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		const DatabaseSlot *slot = &weir_shmem->databases[i];

		if (OidIsValid(slot->databaseid) && (slot->wanted || slot->pid != 0 || slot->starting_pid != 0))
			conductors++;
	}
	return Min(weir_max_sql_workers, Max(room_beside(conductors), 1));
}

/* What it is for one database: more of them make it less, and then weir.status says so. */
void
engine_check_workers(void)
{
	static int	checked_max = -1;
	static int	checked_reserve = -1;
	int			room = room_beside(1);

	if (checked_max == weir_max_sql_workers && checked_reserve == weir_reserved_worker_processes)
		return;
	checked_max = weir_max_sql_workers;
	checked_reserve = weir_reserved_worker_processes;
	if (weir_max_sql_workers <= room || weir_max_sql_workers == 0)
		return;
	if (room >= 1)
		ereport(LOG,
				(errmsg("weir runs at most %d SQL workers, not weir.max_sql_workers (%d)", room, weir_max_sql_workers),
				 errdetail("Of max_worker_processes (%d) the launcher and a conductor need 2, and weir.reserved_worker_processes (%d) are left to others.",
						   max_worker_processes, weir_reserved_worker_processes),
				 errhint("Raise max_worker_processes, or lower weir.max_sql_workers.")));
	else
		ereport(WARNING,
				(errmsg("max_worker_processes (%d) has no room for weir.reserved_worker_processes (%d), the launcher, a conductor and a SQL worker",
						max_worker_processes, weir_reserved_worker_processes),
				 errdetail("weir runs one SQL worker, and parallel queries, replication and other extensions have less than that reserve."),
				 errhint("Raise max_worker_processes, or lower weir.reserved_worker_processes.")));
}
