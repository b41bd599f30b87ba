/*-------------------------------------------------------------------------
 * rowspool.c
 *	  The rows of a query as text, in a file that outlives the transaction.
 *
 * Runs in SQL workers.  What is read by a query must often go over a network,
 * and no transaction may stay open meanwhile; so the query is read to its end
 * first, through a cursor in batches, into a tuplestore whose file belongs to
 * no transaction, as the store of a holdable cursor does.  The output
 * functions of the types run with the query, as its user.
 *
 * If the process dies, the postmaster removes the temporary file.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "rowspool.h"

#define FETCH_ROWS		1000
#define MAX_ROW_BYTES	(16 * 1024 * 1024)

struct RowSpool
{
	MemoryContext cxt;
	Tuplestorestate *store;		/* NULL: empty */
	TupleDesc	desc;			/* of the store: one bytea */
	TupleTableSlot *slot;
	int			ncolumns;
	char	  **columns;
	int64		nrows;
};

RowSpool *
rowspool_create(void)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "weir row spool", ALLOCSET_DEFAULT_SIZES);
	RowSpool   *spool = MemoryContextAllocZero(cxt, sizeof(RowSpool));

	spool->cxt = cxt;
	return spool;
}

void
rowspool_destroy(RowSpool *spool)
{
	if (spool->slot != NULL)
		ExecDropSingleTupleTableSlot(spool->slot);
	if (spool->store != NULL)
		tuplestore_end(spool->store);
	MemoryContextDelete(spool->cxt);
}

/* What the session, or the role, has set must not decide what values look like. */
static void
fix_formats(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"bytea_output", "hex"},
		{"extra_float_digits", "1"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static char *
utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

static void
prepare(RowSpool *spool, TupleDesc desc, FmgrInfo *functions)
{
	MemoryContext old = MemoryContextSwitchTo(spool->cxt);

	spool->ncolumns = desc->natts;
	spool->columns = palloc(sizeof(char *) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Oid			function;
		bool		is_varlena;

		spool->columns[i] = pstrdup(utf8(NameStr(attribute->attname)));
		getTypeOutputInfo(attribute->atttypid, &function, &is_varlena);
		MemoryContextSwitchTo(old);
		fmgr_info(function, &functions[i]);
		MemoryContextSwitchTo(spool->cxt);
	}
	spool->desc = BuildDescFromLists(list_make1(makeString("row")), list_make1_oid(BYTEAOID),
									 list_make1_int(-1), list_make1_oid(InvalidOid));
	spool->slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	spool->store = tuplestore_begin_heap(true, true, work_mem);
	MemoryContextSwitchTo(old);
}

/* A row is its values one after the other: length (-1 for null), bytes. */
static void
put_row(RowSpool *spool, HeapTuple tuple, TupleDesc desc, FmgrInfo *functions, StringInfo buffer)
{
	Datum		value;
	bool		isnull = false;

	resetStringInfo(buffer);
	appendStringInfoSpaces(buffer, VARHDRSZ);
	for (int i = 0; i < desc->natts; i++)
	{
		Datum		column = heap_getattr(tuple, i + 1, desc, &isnull);
		const char *text = isnull ? NULL : utf8(OutputFunctionCall(&functions[i], column));
		int32		len = isnull ? -1 : (int32) strlen(text);

		if (len > MAX_ROW_BYTES - buffer->len)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("a row of the query is longer than %d MB", MAX_ROW_BYTES / 1024 / 1024)));
		appendBinaryStringInfo(buffer, (char *) &len, sizeof(len));
		if (!isnull)
			appendBinaryStringInfo(buffer, text, len);
	}
	SET_VARSIZE(buffer->data, buffer->len);
	value = PointerGetDatum(buffer->data);
	isnull = false;
	tuplestore_putvalues(spool->store, spool->desc, &value, &isnull);
	spool->nrows++;
}

void
rowspool_fill(RowSpool *spool, const BoundSql *bound, const SqlTimer *timer)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "weir row", ALLOCSET_DEFAULT_SIZES);
	StringInfoData buffer;
	FmgrInfo   *functions;
	Portal		portal;

	fix_formats();
	initStringInfo(&buffer);
	sqltimer_start(timer);
	portal = SPI_cursor_open_with_args(NULL, bound->sql, bound->nargs, bound->types, bound->values, bound->nulls,
									   true, CURSOR_OPT_NO_SCROLL);
	functions = palloc0(sizeof(FmgrInfo) * Max(portal->tupDesc->natts, 1));
	prepare(spool, portal->tupDesc, functions);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			put_row(spool, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, functions, &buffer);
			MemoryContextSwitchTo(old);
			MemoryContextReset(cxt);
		}
		if (SPI_processed == 0)
			break;
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	/* A timer that has struck by now counts. */
	CHECK_FOR_INTERRUPTS();
	sqltimer_stop(timer);
	MemoryContextDelete(cxt);
}

int
rowspool_ncolumns(const RowSpool *spool)
{
	return spool->ncolumns;
}

const char *
rowspool_column(const RowSpool *spool, int n)
{
	return spool->columns[n];
}

int64
rowspool_nrows(const RowSpool *spool)
{
	return spool->nrows;
}

void
rowspool_rewind(RowSpool *spool)
{
	tuplestore_rescan(spool->store);
}

SpoolValue *
rowspool_next(RowSpool *spool, size_t *bytes)
{
	SpoolValue *values;
	struct varlena *row;
	const char *at;
	char	   *copy;
	bool		isnull;
	size_t		len;

	if (!tuplestore_gettupleslot(spool->store, true, false, spool->slot))
		return NULL;
	row = (struct varlena *) DatumGetPointer(slot_getattr(spool->slot, 1, &isnull));
	/* A short header is what tuples make of small values. */
	len = VARSIZE_ANY_EXHDR(row);
	copy = palloc(len + 1);
	memcpy(copy, VARDATA_ANY(row), len);
	ExecClearTuple(spool->slot);
	*bytes = len;

	values = palloc(sizeof(SpoolValue) * Max(spool->ncolumns, 1));
	at = copy;
	for (int i = 0; i < spool->ncolumns; i++)
	{
		int32		value_len;

		memcpy(&value_len, at, sizeof(value_len));
		at += sizeof(value_len);
		values[i].data = value_len < 0 ? NULL : at;
		values[i].len = Max(value_len, 0);
		at += values[i].len;
	}
	return values;
}
