/*-------------------------------------------------------------------------
 * execution_row.c
 *	  Rows of weir's tables by index, without the executor
 *
 * Runs in the session of an outside orchestrator, which pays for every start
 * and end that it logs.  Setting up a plan for one row costs several times
 * what fetching the row does, so what each start and each end reads and locks
 * comes from here.  Whatever is rare, and all writing, goes through SQL.
 *
 * A call sees the world as of its own beginning, exactly as a statement of
 * its own would; a row that is locked is seen at its newest version.  Locks
 * are those of SELECT ... FOR UPDATE and are held until the transaction ends;
 * nothing else here outlives a call, and an error leaves nothing behind.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "status.h"
#include "restart.h"
#include "execution.h"

Oid
execution_relation(const char *name)
{
	Oid			relation = get_relname_relid(name, get_namespace_oid("weir", false));

	if (!OidIsValid(relation))
		elog(ERROR, "relation weir.%s does not exist", name);
	return relation;
}

/*
 * Every row whose first index column is the key, until "visit" says that it
 * has seen enough.
 */
static void
scan(Relation rel, const char *index_name, Oid type, Datum key, TupleTableSlot *slot,
	 bool (*visit) (TupleTableSlot *slot, void *arg), void *arg)
{
	Relation	index = index_open(execution_relation(index_name), AccessShareLock);
	IndexScanDesc desc = index_beginscan_compat(rel, index, GetActiveSnapshot(), 1, 0);
	ScanKeyData scankey;

	ScanKeyEntryInitialize(&scankey, 0, 1, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[0],
						   type == TEXTOID ? F_TEXTEQ : F_INT8EQ, key);
	index_rescan(desc, &scankey, 1, NULL, 0);
	while (index_getnext_slot(desc, ForwardScanDirection, slot))
	{
		if (!visit(slot, arg))
			break;
	}
	index_endscan(desc);
	index_close(index, NoLock);
}

void
execution_rows_visit(const char *table, const char *index, int64 key,
					 bool (*visit) (TupleTableSlot *slot, void *arg), void *arg)
{
	Relation	rel = table_open(execution_relation(table), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	PushActiveSnapshot(GetTransactionSnapshot());
	scan(rel, index, INT8OID, Int64GetDatum(key), slot, visit, arg);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

static bool
first_only(TupleTableSlot *slot, void *arg)
{
	ExecMaterializeSlot(slot);
	*(bool *) arg = true;
	return false;
}

/* The newest version of the row in the slot; false if it is gone. */
static bool
lock_newest(Relation rel, TupleTableSlot *slot)
{
	ItemPointerData tid = slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	PreventCommandIfReadOnly("SELECT FOR UPDATE");
	result = table_tuple_lock(rel, &tid, GetActiveSnapshot(), slot, GetCurrentCommandId(false),
							  LockTupleExclusive, LockWaitBlock,
							  IsolationUsesXactSnapshot() ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	if (result == TM_Ok)
		return true;
	if (IsolationUsesXactSnapshot() && (result == TM_Updated || result == TM_Deleted))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
	if (result != TM_Deleted)
		elog(ERROR, "unexpected result of locking a row of %s: %u", RelationGetRelationName(rel), result);
	return false;
}

static bool
find(const char *table, const char *index, Oid type, Datum key, bool lock, ExecutionRow *row)
{
	bool		found = false;

	row->rel = table_open(execution_relation(table), lock ? RowShareLock : AccessShareLock);
	row->slot = table_slot_create(row->rel, NULL);
	PushActiveSnapshot(GetTransactionSnapshot());
	scan(row->rel, index, type, key, row->slot, first_only, &found);
	if (found && lock)
		found = lock_newest(row->rel, row->slot);
	PopActiveSnapshot();
	if (!found)
		execution_row_close(row);
	return found;
}

bool
execution_row_find(const char *table, const char *index, int64 key, bool lock, ExecutionRow *row)
{
	return find(table, index, INT8OID, Int64GetDatum(key), lock, row);
}

bool
execution_row_find_name(const char *table, const char *index, const char *name, ExecutionRow *row)
{
	return find(table, index, TEXTOID, CStringGetTextDatum(name), false, row);
}

void
execution_row_close(ExecutionRow *row)
{
	ExecDropSingleTupleTableSlot(row->slot);
	table_close(row->rel, NoLock);
}

/* By name: an upgrade may have put the columns in another order than an installation. */
Datum
execution_column(TupleTableSlot *slot, const char *column, bool *isnull)
{
	int			n = SPI_fnumber(slot->tts_tupleDescriptor, column);

	if (n <= 0)
		elog(ERROR, "column \"%s\" does not exist", column);
	return slot_getattr(slot, n, isnull);
}

int64
execution_column_id(TupleTableSlot *slot, const char *column)
{
	bool		isnull;
	Datum		value = execution_column(slot, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

int32
execution_column_int4(TupleTableSlot *slot, const char *column)
{
	bool		isnull;
	Datum		value = execution_column(slot, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

Oid
execution_column_oid(TupleTableSlot *slot, const char *column)
{
	bool		isnull;
	Datum		value = execution_column(slot, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

bool
execution_column_bool(TupleTableSlot *slot, const char *column)
{
	bool		isnull;
	Datum		value = execution_column(slot, column, &isnull);

	return !isnull && DatumGetBool(value);
}

char
execution_column_letter(TupleTableSlot *slot, const char *column)
{
	bool		isnull;
	Datum		value = execution_column(slot, column, &isnull);

	return isnull ? '\0' : DatumGetChar(value);
}

RunStatus
execution_column_status(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = execution_column(slot, "status", &isnull);
	RunStatus	status = RUN_FAILED;

	if (isnull || !run_status_parse(TextDatumGetCString(value), &status))
		elog(ERROR, "unknown status of a run");
	return status;
}
