/*-------------------------------------------------------------------------
 * launcher.c
 *	  Keeps one conductor in every database where weir is installed.
 *
 * One static background worker per cluster, connected to shared catalogs
 * only.  It cannot see whether a database has the extension, so a database
 * it does not know gets a conductor, which looks and leaves if there is
 * nothing to conduct; the launcher then remembers not to ask again until
 * CREATE EXTENSION commits.
 *
 *	  unknown --(probe)--> conductor attached <--> backoff
 *						   | extension absent
 *						   v
 *					   remembered as absent --(CREATE EXTENSION)--> conductor
 *
 * weir_shmem_lock protects the slots; what a conductor does with its own is in
 * attach.c.  A conductor is told the generation of its slot; whoever wants it
 * gone before it attached counts the generation up, and the late comer leaves
 * by itself.  The postmaster never restarts a conductor (BGW_NEVER_RESTART):
 * when the next one starts is decided here alone.
 *
 * Templates and databases that allow no connections get no conductor.
 *
 * If the launcher dies, the postmaster starts another after a second, which
 * takes over the attached conductors and forgets those on their way.  If a
 * conductor dies of a signal, the postmaster restarts everything, with empty
 * shared memory.  Asleep unless somebody sets the latch or a backoff ends.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "engine.h"
#include "engine_int.h"
#include "launcher.h"
#include "shmem.h"

/* What only this launcher knows of a slot; indexes are those of databases[]. */
typedef struct LauncherSlot
{
	BackgroundWorkerHandle *handle; /* of the conductor registered last; NULL: none, or gone */
	uint32		generation;		/* that it was told */
	bool		ineligible;		/* template or no connections allowed: do not remember as absent */
} LauncherSlot;

static LauncherSlot local[WEIR_MAX_DATABASES];

/* Databases that were looked at and have no extension. */
static Oid *absent = NULL;
static int	absent_count = 0;
static int	absent_size = 0;

static bool table_full = false; /* some database found no slot; logged once */
static bool shortage_logged = false;

void
launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_name, "weir launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "weir launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "weir", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "launcher_main", sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}

void
launcher_wake(bool rescan)
{
	pid_t		pid;

	if (weir_shmem == NULL)
		return;
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (rescan)
		weir_shmem->launcher_rescan = true;
	pid = weir_shmem->launcher_pid;
	LWLockRelease(weir_shmem_lock);
	shmem_set_latch(pid);
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (weir_shmem->launcher_pid == MyProcPid)
		weir_shmem->launcher_pid = 0;
	LWLockRelease(weir_shmem_lock);
}

/*
 * Take office.  A predecessor's handles are lost with it, so conductors it
 * registered and that have not attached are disowned.
 */
static void
take_over(void)
{
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	weir_shmem->launcher_pid = MyProcPid;
	weir_shmem->launcher_start_time = GetCurrentTimestamp();
	weir_shmem->launcher_rescan = true;
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &weir_shmem->databases[i];

		if (OidIsValid(slot->databaseid) && slot->starting_pid != 0)
		{
			slot->starting_pid = 0;
			slot->generation++;
		}
	}
	LWLockRelease(weir_shmem_lock);
}

/* Oids of databases that may have a conductor, in the caller's context. */
static Oid *
read_databases(int *count)
{
	MemoryContext caller = CurrentMemoryContext;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	Oid		   *oids;
	int			size = 64;

	*count = 0;
	oids = palloc(size * sizeof(Oid));

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		/* -2: left over from an interrupted DROP DATABASE */
		if (database->datistemplate || !database->datallowconn ||
			database->datconnlimit == -2)
			continue;
		if (*count >= size)
			oids = repalloc(oids, (size *= 2) * sizeof(Oid));
		oids[(*count)++] = database->oid;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return oids;
}

static bool
has_oid(const Oid *oids, int count, Oid oid)
{
	for (int i = 0; i < count; i++)
	{
		if (oids[i] == oid)
			return true;
	}
	return false;
}

static void
remember_absent(Oid databaseid)
{
	if (has_oid(absent, absent_count, databaseid))
		return;
	if (absent_count >= absent_size)
	{
		absent_size = Max(64, absent_size * 2);
		absent = absent == NULL ?
			MemoryContextAlloc(TopMemoryContext, absent_size * sizeof(Oid)) :
			repalloc(absent, absent_size * sizeof(Oid));
	}
	absent[absent_count++] = databaseid;
}

static void
forget_vanished(const Oid *oids, int count)
{
	int			kept = 0;

	for (int i = 0; i < absent_count; i++)
	{
		if (has_oid(oids, count, absent[i]))
			absent[kept++] = absent[i];
	}
	absent_count = kept;
}

/* Compare pg_database with the slots. */
static void
rescan(void)
{
	int			count;
	Oid		   *oids = read_databases(&count);
	bool		full = false;

	forget_vanished(oids, count);

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &weir_shmem->databases[i];

		if (!OidIsValid(slot->databaseid))
			continue;
		local[i].ineligible = !has_oid(oids, count, slot->databaseid);
		if (local[i].ineligible)
			slot->wanted = false;
	}
	for (int i = 0; i < count; i++)
	{
		DatabaseSlot *slot;

		if (has_oid(absent, absent_count, oids[i]) ||
			shmem_database_slot(oids[i], false) != NULL)
			continue;
		slot = shmem_database_slot(oids[i], true);
		if (slot == NULL)
		{
			/* slots of databases without weir will be free soon */
			full = true;
			break;
		}
		slot->wanted = true;
		local[slot - weir_shmem->databases].ineligible = false;
	}
	LWLockRelease(weir_shmem_lock);
	pfree(oids);

	if (full && !table_full)
		ereport(LOG,
				(errmsg("weir conducts at most %d databases", WEIR_MAX_DATABASES),
				 errdetail("Further databases are looked at when others are found to have no extension weir.")));
	table_full = full;
}

/*
 * What became of a conductor we registered?  Attached ones say good-bye
 * themselves; here are those that never came, or died without a word.
 */
static void
check_handle(int i)
{
	DatabaseSlot *slot = &weir_shmem->databases[i];
	LauncherSlot *mine = &local[i];
	BgwHandleStatus status;
	pid_t		pid = 0;

	if (mine->handle == NULL)
		return;

	status = GetBackgroundWorkerPid(mine->handle, &pid);
	if (status == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	if (status == BGWH_NOT_YET_STARTED)
		return;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (OidIsValid(slot->databaseid) && slot->generation == mine->generation)
	{
		if (status == BGWH_STARTED && slot->starting_pid != 0)
			slot->starting_pid = pid;
		else if (status == BGWH_STOPPED && (slot->starting_pid != 0 || slot->pid != 0))
		{
			slot->starting_pid = 0;
			slot->pid = 0;
			attach_note_failure(slot, "the conductor ended without a message; see the server log");
		}
	}
	LWLockRelease(weir_shmem_lock);

	if (status == BGWH_STOPPED)
	{
		pfree(mine->handle);
		mine->handle = NULL;
	}
}

static bool
register_conductor(int i, Oid databaseid, uint32 generation)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_INTERRUPTIBLE_COMPAT;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(databaseid);
	strlcpy(worker.bgw_name, "weir conductor", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "weir conductor", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "weir", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "conductor_main", sizeof(worker.bgw_function_name));
	StaticAssertStmt(sizeof(generation) <= BGW_EXTRALEN, "generation does not fit");
	memcpy(worker.bgw_extra, &generation, sizeof(generation));

	/* an earlier handle belongs to a disowned conductor */
	if (local[i].handle != NULL)
		pfree(local[i].handle);
	local[i].handle = NULL;
	local[i].generation = generation;
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &local[i].handle);
	MemoryContextSwitchTo(old);
	return registered;
}

static void
start_conductor(int i, Oid databaseid, uint32 generation)
{
	DatabaseSlot *slot = &weir_shmem->databases[i];

	if (register_conductor(i, databaseid, generation))
	{
		shortage_logged = false;
		return;
	}

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (slot->databaseid == databaseid && slot->generation == generation)
	{
		slot->starting_pid = 0;
		/* never "at once": what is missing does not come back that quickly */
		slot->failure_count = Max(slot->failure_count, 1);
		attach_note_failure(slot, "no background worker slot was free (max_worker_processes)");
	}
	LWLockRelease(weir_shmem_lock);
	if (!shortage_logged)
		ereport(LOG,
				(errmsg("could not start a weir conductor: no background worker slot is free"),
				 errhint("Increase max_worker_processes.")));
	shortage_logged = true;
}

/*
 * Free, stop or start what the slot asks for.  Lowers *wake_at to the end of
 * its backoff, if that is what it waits for.
 */
static void
tend_slot(int i, TimestampTz now, TimestampTz *wake_at)
{
	DatabaseSlot *slot = &weir_shmem->databases[i];
	Oid			databaseid;
	Oid			freed = InvalidOid;
	uint32		generation = 0;
	bool		start = false;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	databaseid = slot->databaseid;
	if (!OidIsValid(databaseid) || slot->hold_count > 0)
		 /* nothing, or not now */ ;
	else if (slot->pid != 0)
	{
		/* kill under the lock: a process clears its slot before it ends */
		if (!weir_enabled || local[i].ineligible)
		{
			slot->dismissed = true;
			kill(slot->pid, SIGTERM);
		}
	}
	else if (slot->starting_pid != 0)
		 /* on its way */ ;
	else if (!slot->wanted)
	{
		if (!local[i].ineligible)
			freed = databaseid;
		slot->databaseid = InvalidOid;
		slot->generation++;
		local[i].ineligible = false;
		if (table_full)
		{
			/* room for one that found none */
			weir_shmem->launcher_rescan = true;
			SetLatch(MyLatch);
		}
	}
	else if (weir_enabled && !weir_shmem->launcher_rescan)
	{
		/* with a rescan pending the database may be gone: look first */
		/* further ahead than any backoff: the clock was set back */
		if (slot->not_before > now && !TimestampDifferenceExceeds(now, slot->not_before, ATTACH_BACKOFF_MAX_MS))
			*wake_at = Min(*wake_at, slot->not_before);
		else
		{
			slot->starting_pid = -1;	/* not known yet */
			generation = ++slot->generation;
			pg_atomic_write_u32(&slot->wake, 0);
			start = true;
		}
	}
	LWLockRelease(weir_shmem_lock);

	if (OidIsValid(freed))
	{
		remember_absent(freed);
		ConditionVariableBroadcast(&slot->run_ended);
	}
	if (start)
		start_conductor(i, databaseid, generation);
}

static bool
take_rescan(void)
{
	bool		result;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	result = weir_shmem->launcher_rescan;
	weir_shmem->launcher_rescan = false;
	LWLockRelease(weir_shmem_lock);
	return result;
}

void
launcher_main(Datum main_arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(launcher_exit, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	take_over();
	engine_check_workers();
	wait_event = wait_event_compat("WeirLauncherMain");
	pgstat_report_activity(STATE_IDLE, NULL);

	/* An ERROR ends the process; the postmaster starts another after a second. */
	for (;;)
	{
		TimestampTz wake_at = DT_NOEND;
		long		timeout = -1;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			engine_check_workers();
		}

		if (take_rescan())
			rescan();
		for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		{
			check_handle(i);
			tend_slot(i, GetCurrentTimestamp(), &wake_at);
		}

		if (wake_at != DT_NOEND)
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at) + 1;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, wait_event);
	}
}
