/*-------------------------------------------------------------------------
 * pipelinestate.c
 *	  The row of weir.pipeline_state, found however many old versions it has
 *
 * Runs in the conductor, in workers and in sessions; why is said in
 * pipelinestate.h.  A hint is a place in the table and 16 bits that tell
 * pipelines apart, mostly: two that share a slot overwrite each other's, and
 * a hint that is wrong costs a look through the index.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/itemptr.h"
#include "utils/snapmgr.h"

#include "status.h"
#include "execution_row.h"
#include "pipelinestate.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(weir_state_place);

/*
 * Where a transaction put versions that nobody else sees yet: it may write
 * hundreds of one row, and what it leaves for others is the one they see.
 */
typedef struct OwnPlace
{
	uint64		hash;
	TransactionId xid;
	ItemPointerData place;
} OwnPlace;

static OwnPlace own_places[16];

static pg_atomic_uint64 *
hint_of(uint64 hash)
{
	return weir_shmem == NULL ? NULL : &weir_shmem->state_places[hash % WEIR_STATE_PLACES];
}

/* False: there is none. */
static bool
read_hint(uint64 hash, ItemPointer place)
{
	uint64		hint = weir_shmem == NULL ? 0 : pg_atomic_read_u64(hint_of(hash));

	if (hint == 0 || hint >> 48 != hash >> 48)
		return false;
	ItemPointerSet(place, (BlockNumber) (hint >> 16), (OffsetNumber) hint);
	return ItemPointerIsValid(place);
}

static void
leave_hint(uint64 hash, const ExecutionRow *row)
{
	ItemPointerData place = execution_row_place(row);
	uint64		hint = (hash >> 48) << 48 | (uint64) ItemPointerGetBlockNumber(&place) << 16 | ItemPointerGetOffsetNumber(&place);

	/* an old snapshot found an old version */
	if (IsolationUsesXactSnapshot())
		return;
	if (execution_row_is_own(row))
		own_places[hash % lengthof(own_places)] = (OwnPlace) {.hash = hash, .xid = GetTopTransactionIdIfAny(), .place = place};
	else if (weir_shmem != NULL && pg_atomic_read_u64(hint_of(hash)) != hint)
		pg_atomic_write_u64(hint_of(hash), hint);
}

static bool
follow(uint64 hash, int64 pipeline_id, Snapshot snapshot, ExecutionRow *row)
{
	const OwnPlace *own = &own_places[hash % lengthof(own_places)];
	ItemPointerData place;

	return (own->hash == hash && own->xid == GetTopTransactionIdIfAny() &&
			execution_row_follow(own->place, EXECUTION_STATE, STATE_COL_PIPELINE, pipeline_id, snapshot, row)) ||
		(read_hint(hash, &place) && execution_row_follow(place, EXECUTION_STATE, STATE_COL_PIPELINE, pipeline_id, snapshot, row));
}

static bool
find(int64 pipeline_id, Snapshot snapshot, bool (*by_index) (ExecutionIndex, int64, ExecutionRow *), ExecutionRow *row)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) &pipeline_id, sizeof(pipeline_id), MyDatabaseId);

	if (!follow(hash, pipeline_id, snapshot, row) && !by_index(EXECUTION_STATE_BY_ID, pipeline_id, row))
		return false;
	leave_hint(hash, row);
	return true;
}

bool
pipeline_state_find(int64 pipeline_id, ExecutionRow *row)
{
	return find(pipeline_id, GetTransactionSnapshot(), execution_row_find, row);
}

bool
pipeline_state_find_seen(int64 pipeline_id, ExecutionRow *row)
{
	return find(pipeline_id, GetActiveSnapshot(), execution_row_find_seen, row);
}

bool
pipeline_state_lock(int64 run_id)
{
	ExecutionRow row;
	int64		pipeline_id;

	if (!execution_row_find(EXECUTION_RUN_BY_ID, run_id, &row))
		return false;
	pipeline_id = execution_row_id(&row, RUN_COL_PIPELINE);
	execution_row_close(&row);
	if (!pipeline_state_find(pipeline_id, &row) || !execution_row_lock(&row, NULL))
		return false;
	execution_row_close(&row);
	return true;
}

/* _state_place(pipeline_id): where the row is that the calling statement sees */
Datum
weir_state_place(PG_FUNCTION_ARGS)
{
	ExecutionRow state;
	ItemPointer place;

	if (!pipeline_state_find_seen(PG_GETARG_INT64(0), &state))
		PG_RETURN_NULL();
	place = palloc(sizeof(ItemPointerData));
	*place = execution_row_place(&state);
	execution_row_close(&state);
	PG_RETURN_POINTER(place);
}
