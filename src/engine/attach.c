/*-------------------------------------------------------------------------
 * attach.c
 *	  The conductor's side of its slot: come, go, and the lock that decides.
 *
 * Runs in the conductor (and in sessions that conduct themselves, which take
 * the lock).  The launcher gave the slot a generation and registered us; we
 * attach to it before anything else and clear it when we leave, whatever the
 * reason, because the postmaster would tell only the launcher that started
 * us, and there may be another by now.  weir_shmem_lock protects the slots.
 *
 * A process that is killed clears nothing: the postmaster restarts everything
 * with empty shared memory.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "engine.h"
#include "engine_int.h"
#include "launcher.h"
#include "shmem.h"

#define BACKOFF_FIRST_MS	1000
#define HEALTHY_MS			60000	/* after this uptime earlier failures count no more */

#define CONDUCTOR_LOCK_CLASS 119
#define CONDUCTOR_LOCK_KEY	0x77656972

/*
 * A conductor is gone, or could not be started.  The first failure is
 * answered at once, the next after 1, 2, 4, ... 60 seconds.  Caller holds
 * the lock.
 */
void
attach_note_failure(DatabaseSlot *slot, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		delay = 0;

	if (slot->start_time != 0 &&
		TimestampDifferenceExceeds(slot->start_time, now, HEALTHY_MS))
		slot->failure_count = 0;
	slot->start_time = 0;
	slot->failure_count++;
	if (slot->failure_count > 1)
		delay = Min((int64) BACKOFF_FIRST_MS << Min(slot->failure_count - 2, 16), ATTACH_BACKOFF_MAX_MS);
	slot->not_before = TimestampTzPlusMilliseconds(now, delay);
	if (error != NULL)
	{
		strlcpy(slot->last_error, error, WEIR_ERROR_LEN);
		slot->last_error_at = now;
	}
}

/* Whatever the conductor's own exit callback forgets; after it, because registered before. */
static void
detach_at_exit(int code, Datum arg)
{
	launcher_detach(false, code != 0 ? "the conductor ended with an error; see the server log" : NULL);
}

bool
launcher_attach(Oid databaseid, uint32 generation)
{
	DatabaseSlot *slot;
	bool		attached = false;
	pid_t		launcher = 0;

	if (weir_shmem == NULL)
		return false;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	slot = shmem_database_slot(databaseid, false);
	if (slot != NULL && slot->generation == generation && slot->pid == 0 &&
		slot->hold_count == 0)
	{
		slot->starting_pid = 0;
		slot->pid = MyProcPid;
		slot->dismissed = false;
		slot->start_time = GetCurrentTimestamp();
		slot->last_loop = 0;
		/* whatever happened without a conductor: look at everything */
		pg_atomic_fetch_or_u32(&slot->wake, ENGINE_WAKE_ALL);
		attached = true;
		launcher = weir_shmem->launcher_pid;
	}
	LWLockRelease(weir_shmem_lock);

	if (attached)
	{
		before_shmem_exit(detach_at_exit, (Datum) 0);
		SetLatch(MyLatch);
		shmem_set_latch(launcher);
	}
	return attached;
}

void
launcher_detach(bool extension_absent, const char *error)
{
	pid_t		launcher;
	bool		was_mine = false;

	if (weir_shmem == NULL)
		return;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_DATABASES && !was_mine; i++)
	{
		DatabaseSlot *slot = &weir_shmem->databases[i];

		if (!OidIsValid(slot->databaseid) || slot->pid != MyProcPid)
			continue;
		was_mine = true;
		slot->pid = 0;
		if (extension_absent)
		{
			/* unless CREATE EXTENSION committed after we looked */
			if ((pg_atomic_read_u32(&slot->wake) & ENGINE_WAKE_INSTALLED) == 0)
				slot->wanted = false;
			slot->failure_count = 0;
			slot->not_before = 0;
		}
		else if (slot->hold_count > 0 || slot->dismissed)
			slot->start_time = 0;	/* asked to leave */
		else
			attach_note_failure(slot, error);
	}
	launcher = weir_shmem->launcher_pid;
	LWLockRelease(weir_shmem_lock);

	/* the postmaster would tell only the launcher that started us */
	if (was_mine)
		shmem_set_latch(launcher);
}

bool
conductor_lock(bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, CONDUCTOR_LOCK_KEY, 0, CONDUCTOR_LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, true, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
conductor_unlock(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, CONDUCTOR_LOCK_KEY, 0, CONDUCTOR_LOCK_CLASS);
	LockRelease(&tag, ExclusiveLock, true);
}
