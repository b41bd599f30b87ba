/*-------------------------------------------------------------------------
 * upkeep.c
 *	  The conductor keeps the run log small.
 *
 * Runs in the conductor, after it has acted.  A sweep (runlog/retention.c) is
 * cut into slices of a few milliseconds, each a transaction of its own, with
 * a pause as long as the slice after each.  While there is other work a slice
 * is done once a second: a database that is never idle is swept all the same.
 *
 * When is there something to do?  At the start, when limits were changed, an
 * hour after the first run that ended since the last sweep, and when the next
 * run gets too old, but not more often than four times a day.  If nothing can
 * get too old or too many, there is no timer.
 *
 * Nothing here may cost a run its conductor: an error is logged, and the
 * sweep begins again later.  A slice waits for no lock.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "conductor_int.h"
#include "engine.h"
#include "retention.h"

#define SLICE_MS		4
#define QUIET_MS		50		/* without other work */
#define BUSY_MS			1000	/* between slices while there is */
#define AFTER_RUNS_MS	((int64) 60 * 60 * 1000)
#define IDLE_MS			((int64) 6 * 60 * 60 * 1000)
#define AFTER_ERROR_MS	((int64) 10 * 60 * 1000)

void
upkeep_soon(Conductor *c)
{
	if (!c->in_session)
		c->upkeep_due_ms = Min(c->upkeep_due_ms, now_ms());
}

void
upkeep_start(Conductor *c)
{
	c->upkeep_due_ms = NEVER;
	upkeep_soon(c);
}

uint32
upkeep_take_bits(Conductor *c, uint32 wake)
{
	if (wake & ENGINE_WAKE_LIMITS)
		upkeep_soon(c);
	if (wake & ENGINE_WAKE_ENDED && !c->in_session)
		c->upkeep_due_ms = Min(c->upkeep_due_ms, c->upkeep_swept_ms + AFTER_RUNS_MS);
	return wake & ~(ENGINE_WAKE_LIMITS | ENGINE_WAKE_ENDED);
}

/* Before the last look at the log, so that no end of a run is missed. */
static void
ask_to_be_told(bool of_next_end)
{
	DatabaseSlot *slot;

	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(MyDatabaseId, false);
	if (slot != NULL)
		pg_atomic_write_u32(&slot->tell_of_end, of_next_end ? 1 : 0);
	LWLockRelease(weir_shmem_lock);
}

static void
forget_sweep(Conductor *c)
{
	if (c->upkeep_cxt)
		MemoryContextDelete(c->upkeep_cxt);
	c->upkeep_cxt = NULL;
	c->sweep = NULL;
}

static void
begin_sweep(Conductor *c)
{
	MemoryContext old;

	c->upkeep_cxt = AllocSetContextCreate(c->cxt, "weir sweep", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(c->upkeep_cxt);
	c->sweep = sweep_begin(PG_INT64_MAX);
	MemoryContextSwitchTo(old);
	ask_to_be_told(true);
}

static void
end_sweep(Conductor *c)
{
	int64		next_old = sweep_next_old(c->sweep);

	c->upkeep_swept_ms = now_ms();
	c->upkeep_due_ms = next_old == RETENTION_NEVER ? NEVER : Max(next_old + 1, c->upkeep_swept_ms + IDLE_MS);
	if (!sweep_has_limits(c->sweep))
		ask_to_be_told(false);
	forget_sweep(c);
}

/* Steps until the time is up; false: the sweep is over. */
static bool
sweep_for_a_while(Conductor *c, int64 until_ms)
{
	bool		more;

	(void) set_config_option("lock_timeout", "20ms", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	do
		more = sweep_step(c->sweep);
	while (more && now_ms() < until_ms);
	if (!more)
		sweep_note(c->sweep);
	return more;
}

/* What is removed and comes back after a crash is removed again: nobody waits for the disk. */
static bool
slice(Conductor *c, int64 until_ms)
{
	bool		more;

	conductor_begin(c);
	more = sweep_for_a_while(c, until_ms);
	conductor_commit_soon(c);
	return more;
}

/* What follows work is often more of it: wait until it is quiet, but not for ever. */
static bool
is_busy(Conductor *c, int64 now)
{
	int64		due = Min(c->upkeep_worked_ms + QUIET_MS, c->upkeep_slice_ms + BUSY_MS);

	if (due <= now)
		return false;
	c->upkeep_due_ms = due;
	return true;
}

void
upkeep_slice(Conductor *c)
{
	int64		now = now_ms();
	int			save_commit = synchronous_commit;
	volatile bool more = false;

	if (c->did_work || c->wake != 0 || c->has_verdicts)
		c->upkeep_worked_ms = now;
	if (c->upkeep_due_ms > now || is_busy(c, now))
		return;
	if (c->sweep == NULL)
		begin_sweep(c);
	PG_TRY();
	{
		more = slice(c, now + SLICE_MS);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		synchronous_commit = save_commit;
		MemoryContextSwitchTo(c->scratch);
		FlushErrorState();
		RESUME_INTERRUPTS();
		forget_sweep(c);
	}
	PG_END_TRY();

	c->upkeep_slice_ms = now_ms();
	if (more)
		c->upkeep_due_ms = c->upkeep_slice_ms + Max(c->upkeep_slice_ms - now, 1);
	else if (c->sweep != NULL)
		end_sweep(c);
	else
		c->upkeep_due_ms = c->upkeep_slice_ms + AFTER_ERROR_MS;
}
