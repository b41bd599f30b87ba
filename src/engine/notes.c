/*-------------------------------------------------------------------------
 * notes.c
 *	  What a transaction made ready or queued, on its way to the conductor.
 *
 * The conductor keeps in memory which task runs are ready, which queues may
 * move, where in them runs wait, and which runs go on.  Searching the tables
 * for it in every cycle would pass over the dead index entries of everything
 * that was ever ready or queued since the oldest snapshot anybody holds.
 *
 * Notes are collected in the process that makes the changes.  At commit they
 * go into the database's slot in shared memory (weir_shmem_lock), before the
 * wake bits, so a conductor that saw the bits finds them.  The conductor's
 * own are with it already.  What does not fit is replaced by the bit that
 * says "look at everything".  Notes lost in a crash are not missed: shared
 * memory is gone then, and the next conductor reads everything anew.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "engine.h"
#include "engine_int.h"
#include "shmem.h"

static WeirNote *notes = NULL;
static int	n_notes = 0;
static int	max_notes = 0;
static bool too_many = false;
static bool has_queue_note = false;
static bool conducting = false; /* this process is the conductor: nothing is sent */

static void
note(int64 id, int64 run_id, int priority)
{
	/* Task runs often become ready in one statement, pipelines are noted again and again. */
	if (n_notes > 0 && notes[n_notes - 1].id == id)
	{
		WeirNote   *same = &notes[n_notes - 1];

		if (run_id == 0)
			return;
		if (same->run_id == 0 || (same->priority == priority && (priority != WEIR_NO_PRIORITY || same->run_id == run_id)))
		{
			same->run_id = same->run_id == 0 ? run_id : Min(same->run_id, run_id);
			same->priority = priority;
			return;
		}
	}
	if (!conducting && n_notes >= WEIR_MAX_NOTES)
	{
		too_many = true;
		return;
	}
	if (n_notes >= max_notes)
	{
		int			wanted = Max(max_notes * 2, WEIR_MAX_NOTES);

		if (notes == NULL)
			notes = MemoryContextAlloc(TopMemoryContext, wanted * sizeof(WeirNote));
		else
			notes = repalloc_huge(notes, wanted * sizeof(WeirNote));
		max_notes = wanted;
	}
	notes[n_notes].id = id;
	notes[n_notes].run_id = run_id;
	notes[n_notes++].priority = priority;
}

void
engine_note_ready(int64 task_run_id)
{
	note(-task_run_id, 0, WEIR_NO_PRIORITY);
}

void
engine_note_ready_column(int column)
{
	bool		is_null;
	Datum		array = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &is_null);
	Datum	   *ids;
	int			n;

	if (is_null)
		return;
	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL, &n);
	for (int i = 0; i < n; i++)
		engine_note_ready(DatumGetInt64(ids[i]));
}

void
engine_note_queue(int64 pipeline_id)
{
	engine_note_queued(pipeline_id, 0, WEIR_NO_PRIORITY);
}

void
engine_note_queued(int64 pipeline_id, int64 run_id, int priority)
{
	has_queue_note = true;
	note(pipeline_id, run_id, priority);
}

void
engine_note_going_on(int64 pipeline_id, int64 run_id)
{
	engine_note_queued(pipeline_id, run_id, WEIR_NO_PRIORITY);
}

void
notes_conduct(bool conducts)
{
	conducting = conducts;
	n_notes = 0;
	too_many = has_queue_note = false;
}

static void
send(DatabaseSlot *slot)
{
	if (too_many || slot->n_notes + n_notes > WEIR_MAX_NOTES)
	{
		slot->n_notes = 0;
		pg_atomic_fetch_or_u32(&slot->wake, ENGINE_WAKE_QUEUES | ENGINE_WAKE_READY);
		return;
	}
	memcpy(&slot->notes[slot->n_notes], notes, n_notes * sizeof(WeirNote));
	slot->n_notes += n_notes;
}

uint32
notes_commit(uint32 wake)
{
	DatabaseSlot *slot;

	/* A run was queued or ended, and no word of where: look everywhere. */
	if ((wake & ENGINE_WAKE_RUN) && !has_queue_note)
		wake |= ENGINE_WAKE_QUEUES;
	has_queue_note = false;
	if (conducting || n_notes == 0)
		return wake;
	if (weir_shmem != NULL)
	{
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		slot = shmem_database_slot(MyDatabaseId, false);
		if (slot != NULL)
			send(slot);
		LWLockRelease(weir_shmem_lock);
	}
	n_notes = 0;
	too_many = false;
	return wake;
}

void
notes_forget(void)
{
	if (!conducting)
		n_notes = 0;
	too_many = has_queue_note = false;
}

WeirNote *
notes_take(int *n)
{
	WeirNote   *taken = palloc((n_notes + WEIR_MAX_NOTES) * sizeof(WeirNote));

	if (n_notes > 0)
		memcpy(taken, notes, n_notes * sizeof(WeirNote));
	*n = n_notes;
	n_notes = 0;
	if (weir_shmem != NULL)
	{
		DatabaseSlot *slot;

		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		slot = shmem_database_slot(MyDatabaseId, false);
		if (slot != NULL && slot->n_notes > 0)
		{
			memcpy(&taken[*n], slot->notes, slot->n_notes * sizeof(WeirNote));
			*n += slot->n_notes;
			slot->n_notes = 0;
		}
		LWLockRelease(weir_shmem_lock);
	}
	return taken;
}
