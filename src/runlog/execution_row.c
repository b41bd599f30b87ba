/*-------------------------------------------------------------------------
 * execution_row.c
 *	  Rows of weir's tables by index, without the executor
 *
 * Runs in the session of an outside orchestrator, which pays for every start
 * and end that it logs.  Setting up a plan for one row costs several times
 * what fetching the row does, so what each start and each end reads and locks
 * comes from here; execution_write.c writes.  Whatever is rare goes through SQL.
 *
 * A call sees the world as of its own beginning, exactly as a statement of
 * its own would; a row that is locked is seen at its newest version.  Locks
 * are those of SELECT ... FOR UPDATE and are held until the transaction ends;
 * nothing else here outlives a call, and an error leaves nothing behind.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "status.h"
#include "execution_row.h"

/* A look through an index that long is no worse. */
#define MAX_VERSIONS_FOLLOWED 200

/*
 * Every row whose first index column is the key, until "visit" says that it
 * has seen enough.  The lock on the index may go at once: that on the table
 * keeps the index where it is.  Of a row that is written again and again the
 * newest version mostly is the last; see also pipelinestate.h.
 */
static void
scan(ExecutionIndex index_no, ScanDirection direction, Oid type, Datum key, const ExecutionRow *row,
	 bool (*visit) (const ExecutionRow *row, void *arg), void *arg)
{
	Relation	index = index_open(execution_index_oid(index_no), AccessShareLock);
	IndexScanDesc desc = index_beginscan_compat(row->rel, index, GetActiveSnapshot(), 1, 0);
	ScanKeyData scankey;

	ScanKeyEntryInitialize(&scankey, 0, 1, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[0],
						   type == TEXTOID ? F_TEXTEQ : F_INT8EQ, key);
	index_rescan(desc, &scankey, 1, NULL, 0);
	while (index_getnext_slot(desc, direction, row->slot))
	{
		if (!visit(row, arg))
			break;
	}
	index_endscan(desc);
	index_close(index, AccessShareLock);
}

static void
open_row(ExecutionTable table, ExecutionRow *row)
{
	row->table = table;
	row->rel = execution_table_open(table, AccessShareLock);
	row->slot = table_slot_create(row->rel, NULL);
}

void
execution_row_close(ExecutionRow *row)
{
	ExecDropSingleTupleTableSlot(row->slot);
	table_close(row->rel, NoLock);
}

void
execution_rows_visit(ExecutionIndex index, int64 key, bool (*visit) (const ExecutionRow *row, void *arg), void *arg)
{
	ExecutionRow row;

	open_row(execution_index_table(index), &row);
	PushActiveSnapshot(GetTransactionSnapshot());
	scan(index, ForwardScanDirection, INT8OID, Int64GetDatum(key), &row, visit, arg);
	PopActiveSnapshot();
	execution_row_close(&row);
}

static bool
first_only(const ExecutionRow *row, void *arg)
{
	*(bool *) arg = true;
	return false;
}

static bool
find(ExecutionIndex index, Oid type, Datum key, Snapshot snapshot, ExecutionRow *row)
{
	bool		found = false;

	open_row(execution_index_table(index), row);
	PushActiveSnapshot(snapshot);
	scan(index, BackwardScanDirection, type, key, row, first_only, &found);
	PopActiveSnapshot();
	if (!found)
		execution_row_close(row);
	return found;
}

bool
execution_row_find(ExecutionIndex index, int64 key, ExecutionRow *row)
{
	return find(index, INT8OID, Int64GetDatum(key), GetTransactionSnapshot(), row);
}

bool
execution_row_find_seen(ExecutionIndex index, int64 key, ExecutionRow *row)
{
	return find(index, INT8OID, Int64GetDatum(key), GetActiveSnapshot(), row);
}

bool
execution_row_find_name(ExecutionIndex index, const char *name, ExecutionRow *row)
{
	return find(index, TEXTOID, CStringGetTextDatum(name), GetTransactionSnapshot(), row);
}

static TM_Result
lock_newest(ExecutionRow *row, ItemPointer tid, LockWaitPolicy wait)
{
	TM_FailureData failure;
	TM_Result	result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = table_tuple_lock(row->rel, tid, GetActiveSnapshot(), row->slot, GetCurrentCommandId(false),
							  LockTupleExclusive, wait,
							  IsolationUsesXactSnapshot() ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	PopActiveSnapshot();
	return result;
}

/*
 * What was found may be long outdated: its newer versions are reached from
 * it, and it cannot be cleaned away, because the statement that called us
 * has a snapshot as old.
 */
bool
execution_row_lock(ExecutionRow *row, bool *at_once)
{
	ItemPointerData found = row->slot->tts_tid;
	ItemPointerData tid = found;
	TM_Result	result;
	bool		waited = false;

	PreventCommandIfReadOnly("SELECT FOR UPDATE");
	LockRelation(row->rel, RowShareLock);
	result = lock_newest(row, &tid, at_once != NULL ? LockWaitSkip : LockWaitBlock);
	if (result == TM_WouldBlock)
	{
		waited = true;
		tid = found;
		result = lock_newest(row, &tid, LockWaitBlock);
	}
	if (at_once != NULL)
		*at_once = !waited && ItemPointerEquals(&found, &row->slot->tts_tid);
	if (result == TM_Ok)
		return true;
	if (IsolationUsesXactSnapshot() && (result == TM_Updated || result == TM_Deleted))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
	if (result != TM_Deleted)
		elog(ERROR, "unexpected result of locking a row of %s: %u", RelationGetRelationName(row->rel), result);
	execution_row_close(row);
	return false;
}

/* A row that we have locked stays where it is until we write it. */
ItemPointerData
execution_row_place(const ExecutionRow *row)
{
	return row->slot->tts_tid;
}

bool
execution_row_find_at(const ItemPointerData *place, ExecutionIndex index, int64 key, ExecutionRow *row)
{
	ItemPointerData tid = *place;
	bool		found;

	if (ItemPointerIsValid(&tid))
	{
		open_row(execution_index_table(index), row);
		PushActiveSnapshot(GetTransactionSnapshot());
		found = table_tuple_fetch_row_version(row->rel, &tid, GetActiveSnapshot(), row->slot);
		PopActiveSnapshot();
		if (found)
			return true;
		execution_row_close(row);
	}
	return execution_row_find(index, key, row);
}

/*
 * Whoever comes by an index makes room for new versions next to the old ones;
 * who does not has to see to it himself, or each update would need a new page.
 */
static void
make_room(Relation rel, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(rel, block);

	heap_page_prune_opt_compat(rel, buffer);
	ReleaseBuffer(buffer);
}

/*
 * Whether a place still is one of this row is asked at each step, so it does
 * not matter what has been there meanwhile.
 */
bool
execution_row_follow(ItemPointerData place, ExecutionTable table, int column, int64 key, Snapshot snapshot, ExecutionRow *row)
{
	bool		found = false;
	BlockNumber block = InvalidBlockNumber;

	open_row(table, row);
	PushActiveSnapshot(snapshot);
	for (int step = 0; step < MAX_VERSIONS_FOLLOWED && !found; step++)
	{
		ItemPointerData next;

		if (ItemPointerGetBlockNumberNoCheck(&place) >= RelationGetNumberOfBlocks(row->rel))
			break;
		if (ItemPointerGetBlockNumberNoCheck(&place) != block && TTS_IS_BUFFERTUPLE(row->slot))
		{
			block = ItemPointerGetBlockNumberNoCheck(&place);
			ExecClearTuple(row->slot);
			make_room(row->rel, block);
		}
		found = table_tuple_fetch_row_version(row->rel, &place, GetActiveSnapshot(), row->slot);
		if (!found && !table_tuple_fetch_row_version(row->rel, &place, SnapshotAny, row->slot))
			break;
		if (execution_row_id(row, column) != key || !TTS_IS_BUFFERTUPLE(row->slot))
		{
			found = false;
			break;
		}
		next = ((BufferHeapTupleTableSlot *) row->slot)->base.tuple->t_data->t_ctid;
		if (ItemPointerEquals(&next, &place))
			break;
		place = next;
	}
	PopActiveSnapshot();
	if (!found)
		execution_row_close(row);
	return found;
}

bool
execution_row_is_own(const ExecutionRow *row)
{
	bool		isnull;

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(row->slot, MinTransactionIdAttributeNumber, &isnull)));
}

/* ---- columns ---- */

static Datum
column_value(const ExecutionRow *row, int column, bool *isnull)
{
	return slot_getattr(row->slot, execution_attno(row->table, column), isnull);
}

int64
execution_row_id(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

int32
execution_row_int4(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

Oid
execution_row_oid(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

bool
execution_row_bool(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

char
execution_row_letter(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return isnull ? '\0' : DatumGetChar(value);
}

text *
execution_row_text(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

RunStatus
execution_row_status(const ExecutionRow *row, int column)
{
	bool		isnull;
	Datum		value = column_value(row, column, &isnull);
	RunStatus	status = RUN_FAILED;

	if (isnull || !run_status_parse(TextDatumGetCString(value), &status))
		elog(ERROR, "unknown status of a run");
	return status;
}
