/*-------------------------------------------------------------------------
 * shmem.c
 *	  Shared memory of weir.
 *
 * Asked for and initialised by the postmaster, used by everybody.  After a
 * crash of any backend the postmaster makes it anew, empty; the launcher then
 * finds its databases again.  weir_shmem_lock protects all of it but the
 * atomics and the condition variables.  A condition variable is initialised
 * once and survives the re-use of its slot: who still sleeps on it is woken
 * once too often, never too seldom.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "engine.h"
#include "launcher.h"
#include "shmem.h"

WeirShmem  *weir_shmem = NULL;
LWLock	   *weir_shmem_lock = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(WeirShmem)));
	RequestNamedLWLockTranche("weir", 1);
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	weir_shmem = ShmemInitStruct("weir", sizeof(WeirShmem), &found);
	weir_shmem_lock = &GetNamedLWLockTranche("weir")->lock;
	if (!found)
	{
		memset(weir_shmem, 0, sizeof(WeirShmem));
		for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		{
			pg_atomic_init_u32(&weir_shmem->databases[i].wake, 0);
			ConditionVariableInit(&weir_shmem->databases[i].run_ended);
		}
		for (int i = 0; i < WEIR_STATE_PLACES; i++)
			pg_atomic_init_u64(&weir_shmem->state_places[i], 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

DatabaseSlot *
shmem_database_slot(Oid databaseid, bool create)
{
	DatabaseSlot *free_slot = NULL;

	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &weir_shmem->databases[i];

		if (slot->databaseid == databaseid)
			return slot;
		if (free_slot == NULL && !OidIsValid(slot->databaseid))
			free_slot = slot;
	}
	if (!create || free_slot == NULL)
		return NULL;

	/* generation goes on counting: a late worker of the former user must not fit */
	free_slot->databaseid = databaseid;
	free_slot->wanted = false;
	free_slot->hold_count = 0;
	free_slot->starting_pid = 0;
	free_slot->pid = 0;
	free_slot->failure_count = 0;
	free_slot->start_time = 0;
	free_slot->not_before = 0;
	free_slot->last_loop = 0;
	free_slot->last_error_at = 0;
	free_slot->last_error[0] = '\0';
	free_slot->n_notes = 0;
	pg_atomic_write_u32(&free_slot->wake, 0);
	pg_atomic_write_u32(&free_slot->tell_of_end, 0);
	return free_slot;
}

/*
 * The bits come before the latch: the conductor resets its latch, then takes
 * the bits, so it cannot miss them.  Called from a commit: must not fail.
 */
void
shmem_wake_conductor(Oid databaseid, uint32 what)
{
	DatabaseSlot *slot;
	pid_t		conductor = 0;
	bool		ask_launcher = false;
	bool		rescan = false;

	if (weir_shmem == NULL || !OidIsValid(databaseid))
		return;

	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(databaseid, false);
	if (slot != NULL)
	{
		pg_atomic_fetch_or_u32(&slot->wake, what);
		conductor = slot->pid;
		ask_launcher = conductor == 0 && slot->starting_pid == 0 &&
			slot->hold_count == 0 && slot->not_before <= GetCurrentTimestamp();
		rescan = ask_launcher && !slot->wanted;
	}
	LWLockRelease(weir_shmem_lock);

	/* weir is at work here, so it is installed, whatever was believed so far */
	if (slot == NULL || rescan)
	{
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		slot = shmem_database_slot(databaseid, true);
		if (slot != NULL)
			slot->wanted = true;
		LWLockRelease(weir_shmem_lock);
		launcher_wake(true);
	}
	else if (conductor != 0)
		shmem_set_latch(conductor);
	else if (ask_launcher)
		launcher_wake(false);
}

void
shmem_broadcast_runs(Oid databaseid)
{
	DatabaseSlot *slot;

	if (weir_shmem == NULL)
		return;
	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(databaseid, false);
	LWLockRelease(weir_shmem_lock);
	/* outside the lock: the slot may change hands, the variable stays one */
	if (slot == NULL)
		return;
	ConditionVariableBroadcast(&slot->run_ended);
	/* a conductor that sleeps until something gets old hears of the first run after that, and of no other */
	if (pg_atomic_read_u32(&slot->tell_of_end) != 0 && pg_atomic_exchange_u32(&slot->tell_of_end, 0) != 0)
		shmem_wake_conductor(databaseid, ENGINE_WAKE_ENDED);
}

/*
 * A PGPROC is never freed, so the worst that a process ending in between can
 * cause is a spurious wake-up of its successor.
 */
void
shmem_set_latch(pid_t pid)
{
	PGPROC	   *proc;

	if (pid <= 0)
		return;
	proc = BackendPidGetProc(pid);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}
