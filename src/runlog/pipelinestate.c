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

/* 0, and "hint" has no place, without shared memory. */
static uint64
read_hint(uint64 hash, ItemPointer place)
{
	uint64		hint = 0;

	if (weir_shmem != NULL)
		hint = pg_atomic_read_u64(&weir_shmem->state_places[hash % WEIR_STATE_PLACES]);
	ItemPointerSetInvalid(place);
	if (hint != 0 && hint >> 48 == hash >> 48)
		ItemPointerSet(place, (BlockNumber) (hint >> 16), (OffsetNumber) hint);
	return hint;
}

static void
leave_hint(uint64 hash, uint64 known, const ExecutionRow *row)
{
	ItemPointerData place = execution_row_place(row);
	uint64		hint = (hash >> 48) << 48 | (uint64) ItemPointerGetBlockNumber(&place) << 16 | ItemPointerGetOffsetNumber(&place);

	/* an old snapshot found an old version */
	if (weir_shmem != NULL && hint != known && !IsolationUsesXactSnapshot())
		pg_atomic_write_u64(&weir_shmem->state_places[hash % WEIR_STATE_PLACES], hint);
}

static bool
find(int64 pipeline_id, Snapshot snapshot, bool (*by_index) (ExecutionIndex, int64, ExecutionRow *), ExecutionRow *row)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) &pipeline_id, sizeof(pipeline_id), MyDatabaseId);
	ItemPointerData place;
	uint64		hint = read_hint(hash, &place);

	if (!(ItemPointerIsValid(&place) && execution_row_follow(place, EXECUTION_STATE, STATE_COL_PIPELINE, pipeline_id, snapshot, row)) &&
		!by_index(EXECUTION_STATE_BY_ID, pipeline_id, row))
		return false;
	leave_hint(hash, hint, row);
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
