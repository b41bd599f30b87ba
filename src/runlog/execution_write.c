/*-------------------------------------------------------------------------
 * execution_write.c
 *	  Rows of weir's tables written without a statement
 *
 * Runs in the session of an outside orchestrator.  For a statement that
 * writes one row the executor reads, plans and compiles every constraint,
 * default, generated column and index predicate of the table anew, which
 * costs several times what writing does.  Here the executor does the same,
 * but what it prepared stays with the session until something about the
 * tables changes (execution_table.c).
 *
 * Rows are written as replication applies them: with row triggers,
 * constraints and generated columns.  While a write is going on, what was
 * prepared belongs to the transaction: an error takes it along.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "status.h"
#include "execution_row.h"

typedef struct ExecutionWriter
{
	MemoryContext context;		/* holds all of it */
	uint64		generation;		/* of the tables, when it was made */
	bool		keep;			/* may serve another call */
	EState	   *estate;
	ResultRelInfo *result;
	EPQState	epq;			/* never used: rows are locked before */
	int			nindexes;
	Oid		   *indexes;
	ExprState **predicates;		/* of partial indexes, else NULL */
	bool		only_btree;
	ExprState **defaults;		/* by attribute; inserts only */
} ExecutionWriter;

/* ---- preparing ---- */

static Bitmapset *
updated_columns(const ExecutionWrite *write)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < write->ncolumns; i++)
		columns = bms_add_member(columns, execution_attno(write->table, write->columns[i]) -
								 FirstLowInvalidHeapAttributeNumber);
	return columns;
}

static void
prepare_range_table(const ExecutionWrite *write, Relation rel, EState *estate)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	init_range_table_compat(estate, rte, updated_columns(write));
}

static void
prepare_indexes(ExecutionWriter *writer)
{
	ResultRelInfo *result = writer->result;

	ExecOpenIndices(result, false);
	writer->nindexes = result->ri_NumIndices;
	writer->indexes = palloc(Max(writer->nindexes, 1) * sizeof(Oid));
	writer->predicates = palloc0(Max(writer->nindexes, 1) * sizeof(ExprState *));
	writer->only_btree = true;
	for (int i = 0; i < writer->nindexes; i++)
	{
		writer->indexes[i] = RelationGetRelid(result->ri_IndexRelationDescs[i]);
		writer->only_btree &= result->ri_IndexRelationDescs[i]->rd_rel->relam == BTREE_AM_OID;
		if (result->ri_IndexRelationInfo[i]->ii_Predicate != NIL)
			writer->predicates[i] = ExecPrepareQual(result->ri_IndexRelationInfo[i]->ii_Predicate, writer->estate);
	}
	/* others may keep something of this transaction */
	writer->keep = writer->only_btree;
}

/* Looked up on its first call, a trigger's function would last no longer than that. */
static void
prepare_triggers(ExecutionWriter *writer)
{
	TriggerDesc *triggers = writer->result->ri_TrigDesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		fmgr_info(triggers->triggers[i].tgfoid, &writer->result->ri_TrigFunctions[i]);
}

static void
prepare_defaults(const ExecutionWrite *write, ExecutionWriter *writer, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	writer->defaults = palloc0(desc->natts * sizeof(ExprState *));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		bool		given = false;
		Expr	   *expr;

		for (int j = 0; j < execution_columns(write->table) && !given; j++)
			given = execution_attno(write->table, j) == i + 1;
		if (given || attribute->attisdropped || attribute->attgenerated)
			continue;
		expr = (Expr *) build_column_default(rel, i + 1);
		if (expr != NULL)
			writer->defaults[i] = ExecPrepareExpr(expr, writer->estate);
	}
}

static ExecutionWriter *
prepare(const ExecutionWrite *write, Relation rel)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "weir writer", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	ExecutionWriter *writer = palloc0(sizeof(ExecutionWriter));

	writer->context = context;
	writer->generation = execution_tables_generation();
	writer->keep = true;
	writer->estate = CreateExecutorState();
	MemoryContextSwitchTo(writer->estate->es_query_cxt);
	prepare_range_table(write, rel, writer->estate);
	writer->result = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result, rel, 1, NULL, 0);
	prepare_indexes(writer);
	prepare_triggers(writer);
	evalplanqual_init_compat(&writer->epq, writer->estate, NULL, NIL, -1, NIL);
	if (write->ncolumns == 0)
		prepare_defaults(write, writer, rel);
	MemoryContextSwitchTo(caller);
	return writer;
}

/* ---- between calls ---- */

/* What the session has, if it is still true; it is the transaction's now. */
static ExecutionWriter *
borrow(ExecutionWrite *write, Relation rel)
{
	ExecutionWriter *writer = write->writer;

	write->writer = NULL;
	if (writer != NULL && writer->generation != execution_tables_generation())
	{
		MemoryContextDelete(writer->context);
		writer = NULL;
	}
	if (writer == NULL)
		return prepare(write, rel);

	MemoryContextSetParent(writer->context, CurTransactionContext);
	writer->result->ri_RelationDesc = rel;
	return writer;
}

static bool
is_in_index(ExecutionWriter *writer, int i, TupleTableSlot *slot)
{
	ExprContext *econtext = GetPerTupleExprContext(writer->estate);

	if (slot == NULL || writer->predicates[i] == NULL)
		return true;
	econtext->ecxt_scantuple = slot;
	return ExecQual(writer->predicates[i], econtext);
}

/*
 * Those that the row belongs to; all for NULL.  Most indexes of weir's tables
 * are of the few rows that go on: the executor passes over what is not open.
 */
static void
open_indexes(ExecutionWriter *writer, TupleTableSlot *slot)
{
	for (int i = 0; i < writer->nindexes; i++)
		if (writer->result->ri_IndexRelationDescs[i] == NULL && is_in_index(writer, i, slot))
			writer->result->ri_IndexRelationDescs[i] = index_open(writer->indexes[i], RowExclusiveLock);
}

/* Nothing is to be cleaned up after insertions into a btree. */
static void
close_indexes(ExecutionWriter *writer)
{
	if (!writer->only_btree)
	{
		ExecCloseIndices(writer->result);
		return;
	}
	for (int i = 0; i < writer->nindexes; i++)
	{
		if (writer->result->ri_IndexRelationDescs[i] != NULL)
			index_close(writer->result->ri_IndexRelationDescs[i], RowExclusiveLock);
		writer->result->ri_IndexRelationDescs[i] = NULL;
	}
}

/* Slots and relations go; what was compiled stays. */
static void
give_back(ExecutionWrite *write, ExecutionWriter *writer)
{
	EState	   *estate = writer->estate;
	ListCell   *cell;

	close_indexes(writer);
	ExecResetTupleTable(estate->es_tupleTable, true);
	estate->es_tupleTable = NIL;
	writer->result->ri_TrigOldSlot = NULL;
	writer->result->ri_TrigNewSlot = NULL;
	writer->result->ri_ReturningSlot = NULL;
	ResetPerTupleExprContext(estate);
	estate->es_snapshot = InvalidSnapshot;

	/* for triggers after the row, which we have none of */
	foreach(cell, estate->es_trig_target_relations)
	{
		table_close(((ResultRelInfo *) lfirst(cell))->ri_RelationDesc, NoLock);
		writer->keep = false;
	}
	if (!writer->keep || write->writer != NULL)
		MemoryContextDelete(writer->context);
	else
	{
		MemoryContextSetParent(writer->context, TopMemoryContext);
		write->writer = writer;
	}
}

/* ---- writing ---- */

static void
fill(const ExecutionWrite *write, const ExecutionWriter *writer, TupleTableSlot *slot,
	 const Datum *values, const bool *nulls)
{
	bool		is_insert = write->ncolumns == 0;
	int			n = is_insert ? execution_columns(write->table) : write->ncolumns;
	ExprContext *econtext = GetPerTupleExprContext(writer->estate);

	for (int i = 0; is_insert && i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_isnull[i] = true;
		if (writer->defaults[i] != NULL)
			slot->tts_values[i] = ExecEvalExprSwitchContext(writer->defaults[i], econtext, &slot->tts_isnull[i]);
	}
	for (int i = 0; i < n; i++)
	{
		int			attribute = execution_attno(write->table, is_insert ? i : write->columns[i]) - 1;

		slot->tts_values[attribute] = values[i];
		slot->tts_isnull[attribute] = nulls[i];
	}
	ExecStoreVirtualTuple(slot);
}

/* Old NULL: a new row.  The indexes are as they are. */
static void
put(ExecutionWriter *writer, TupleTableSlot *old, TupleTableSlot *slot)
{
	if (old == NULL)
		ExecSimpleRelationInsert(writer->result, writer->estate, slot);
	else
		ExecSimpleRelationUpdate(writer->result, writer->estate, &writer->epq, old, slot);
}

/*
 * First the row, then its indexes: by then it is known which it belongs to.
 * Most updates change no indexed column and stay in their page, and need
 * none; whether that is so the table access method tells by the row it has
 * made.  Indexes that summarize want to know even then.
 */
static void
put_and_index(ExecutionWriter *writer, TupleTableSlot *old, TupleTableSlot *slot)
{
	ResultRelInfo *result = writer->result;

	if (!writer->only_btree)
	{
		open_indexes(writer, NULL);
		put(writer, old, slot);
		return;
	}
	result->ri_NumIndices = 0;
	put(writer, old, slot);
	result->ri_NumIndices = writer->nindexes;
	/* A trigger may have said no: then nothing was made. */
	if (!ItemPointerIsValid(&slot->tts_tid) ||
		(old != NULL && HeapTupleIsHeapOnly(ExecFetchSlotHeapTuple(slot, false, NULL))))
		return;
	open_indexes(writer, slot);
	list_free(insert_index_tuples_compat(result, writer->estate, slot, old != NULL));
}

/* old: the row to replace, or NULL */
static void
write_row(ExecutionWrite *write, TupleTableSlot *old, const Datum *values, const bool *nulls)
{
	Relation	rel;
	ExecutionWriter *writer;
	EState	   *estate;
	TupleTableSlot *slot;

	PreventCommandIfReadOnly(old == NULL ? "INSERT" : "UPDATE");
	PreventCommandIfParallelMode(old == NULL ? "INSERT" : "UPDATE");
	rel = execution_table_open(write->table, RowExclusiveLock);
	writer = borrow(write, rel);
	estate = writer->estate;

	slot = table_slot_create(rel, &estate->es_tupleTable);
	if (old != NULL)
	{
		slot_getallattrs(old);
		memcpy(slot->tts_values, old->tts_values, slot->tts_tupleDescriptor->natts * sizeof(Datum));
		memcpy(slot->tts_isnull, old->tts_isnull, slot->tts_tupleDescriptor->natts * sizeof(bool));
	}
	fill(write, writer, slot, values, nulls);

	PushActiveSnapshot(GetTransactionSnapshot());
	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	AfterTriggerBeginQuery();
	put_and_index(writer, old, slot);
	AfterTriggerEndQuery(estate);
	PopActiveSnapshot();

	give_back(write, writer);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
execution_row_insert(ExecutionWrite *write, const Datum *values, const bool *nulls)
{
	write_row(write, NULL, values, nulls);
}

void
execution_row_update(ExecutionWrite *write, ExecutionIndex index, int64 key, const ItemPointerData *place,
					 const Datum *values, const bool *nulls)
{
	ExecutionRow row;

	if (!execution_row_find_at(place, index, key, &row))
		elog(ERROR, "row " INT64_FORMAT " vanished while it was locked", key);
	write_row(write, row.slot, values, nulls);
	execution_row_close(&row);
}
