/*-------------------------------------------------------------------------
 * sqlrun.c
 *	  The statements of a SQL task, and what of them becomes its output.
 *
 * Runs in SQL workers and in weir.conduct(), as the role the statements run
 * as, SPI connected, in the subtransaction that sqltask.c made.  The output
 * is bounded: a result of any length is read, but only its beginning kept.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"

#include "json.h"
#include "kind.h"
#include "sqltask_int.h"

#define ITEMS_MAX_BYTES		(64 * 1024 * 1024)
#define MAX_STATEMENTS		100		/* whose counts are kept */

/* A name among the columns of a result, or one from which others are made. */
typedef struct ColumnName
{
	char		name[NAMEDATALEN];	/* hash key */
	bool		is_taken;		/* a column has it, or gets it */
	bool		is_passed;		/* a column that has it was met */
	int			latest;			/* number behind the latest name that was made from it */
} ColumnName;

static ColumnName *
column_name(HTAB *names, const char *name)
{
	char		key[NAMEDATALEN] = {0};
	bool		found;
	ColumnName *entry;

	strlcpy(key, name, NAMEDATALEN);
	entry = hash_search(names, key, HASH_ENTER, &found);
	if (!found)
	{
		entry->is_taken = entry->is_passed = false;
		entry->latest = 1;
	}
	return entry;
}

static HTAB *
column_names(TupleDesc given)
{
	HASHCTL		ctl = {0};
	HTAB	   *names;

	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(ColumnName);
	ctl.hcxt = CurrentMemoryContext;
	names = hash_create("weir columns", given->natts, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	for (int i = 0; i < given->natts; i++)
		column_name(names, NameStr(TupleDescAttr(given, i)->attname))->is_taken = true;
	return names;
}

/* Numbers only go up: no name is tried twice, however many columns are alike. */
static void
another_name(HTAB *names, const char *name, char *other)
{
	char		stem[NAMEDATALEN] = {0};
	ColumnName *from;
	ColumnName *made;

	memcpy(stem, name, pg_mbcliplen(name, strlen(name), NAMEDATALEN - 8));
	from = column_name(names, stem);
	do
	{
		snprintf(other, NAMEDATALEN, "%s_%d", stem, ++from->latest);
		made = column_name(names, other);
	} while (made->is_taken);
	made->is_taken = true;
}

/*
 * The columns of the result under names that differ: "id", "id_2", "id_3".
 * SQL lets two columns have one name, an object of JSON must not.
 */
static TupleDesc
distinct_columns(TupleDesc given)
{
	TupleDesc	desc = NULL;
	HTAB	   *names = column_names(given);

	for (int i = 0; i < given->natts; i++)
	{
		ColumnName *name = column_name(names, NameStr(TupleDescAttr(given, i)->attname));
		char		other[NAMEDATALEN];

		if (!name->is_passed)
		{
			name->is_passed = true;
			continue;
		}
		if (desc == NULL)
		{
			desc = CreateTupleDescCopy(given);
			desc->tdtypeid = RECORDOID;
			desc->tdtypmod = -1;
		}
		another_name(names, name->name, other);
		namestrcpy(&TupleDescAttr(desc, i)->attname, other);
	}
	hash_destroy(names);
	return desc != NULL ? desc : given;
}

/* Rows of the last statement as a JSON array, bounded in rows and bytes. */
static char *
rows_as_json(int max_rows, bool *is_truncated, MemoryContext keep)
{
	TupleDesc	columns = distinct_columns(SPI_tuptable->tupdesc);
	StringInfoData out;
	uint64		n = Min(SPI_processed, (uint64) max_rows);

	*is_truncated = n < SPI_processed;
	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	for (uint64 i = 0; i < n; i++)
	{
		HeapTupleHeader row = SPI_returntuple(SPI_tuptable->vals[i], columns);
		char	   *json = TextDatumGetCString(DirectFunctionCall1(row_to_json, HeapTupleHeaderGetDatum(row)));

		if (out.len + strlen(json) > SQL_OUTPUT_MAX_BYTES)
		{
			*is_truncated = true;
			break;
		}
		if (i > 0)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, json);
	}
	appendStringInfoChar(&out, ']');
	return MemoryContextStrdup(keep, out.data);
}

/*
 * A row as it is stored and read again, whatever types it is made of.  What
 * could not be read by whoever starts the item is refused here.
 */
static char *
row_as_item(HeapTupleHeader row)
{
	Jsonb	   *stored = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															CStringGetDatum(TextDatumGetCString(DirectFunctionCall1(row_to_json, HeapTupleHeaderGetDatum(row))))));
	char	   *json = JsonbToCString(NULL, &stored->root, VARSIZE(stored));
	char	   *error;
	cJSON	   *tree = json_parse(json, strlen(json), ITEMS_MAX_BYTES, &error);

	if (tree == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an item of the list is too large, is nested too deep, or holds numbers that are too long"),
				 errdetail("As JSON: %s.", error),
				 errhint("Select only the columns an item needs.")));
	cJSON_Delete(tree);
	pfree(stored);
	return json;
}

/* Rows of the last statement as a JSON array: all of them, they are items. */
static char *
rows_as_items(MemoryContext keep)
{
	TupleDesc	columns = distinct_columns(SPI_tuptable->tupdesc);
	StringInfoData out;

	if (SPI_processed > FOR_EACH_MAX_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the list has more than %d items, the most a for_each takes", FOR_EACH_MAX_ITEMS),
				 errhint("Let an item stand for several, or give each run a part of the list.")));
	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTupleHeader row = SPI_returntuple(SPI_tuptable->vals[i], columns);
		char	   *json = row_as_item(row);

		CHECK_FOR_INTERRUPTS();
		if (out.len + strlen(json) > ITEMS_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the items of the list are longer than %d MB in all", ITEMS_MAX_BYTES / 1024 / 1024),
					 errhint("Select only the columns an item needs.")));
		if (i > 0)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, json);
		pfree(json);
		pfree(row);
	}
	appendStringInfoChar(&out, ']');
	return MemoryContextStrdup(keep, out.data);
}

static bool
is_write(int rc)
{
	return rc == SPI_OK_INSERT || rc == SPI_OK_UPDATE || rc == SPI_OK_DELETE || rc == SPI_OK_MERGE ||
		rc == SPI_OK_INSERT_RETURNING || rc == SPI_OK_UPDATE_RETURNING || rc == SPI_OK_DELETE_RETURNING;
}

/* {"command": "INSERT", "rowsWritten": 5} */
static void
count_statement(SqlResult *result, const RawStmt *raw, int rc, uint64 rows, MemoryContext keep)
{
	MemoryContext old;
	cJSON	   *item;

	if (++result->nstatements > MAX_STATEMENTS)
		return;
	old = MemoryContextSwitchTo(keep);
	if (result->statements == NULL)
		result->statements = cJSON_CreateArray();
	item = cJSON_CreateObject();
	cJSON_AddStringToObject(item, "command", GetCommandTagName(CreateCommandTag(raw->stmt)));
	if (is_write(rc))
		cJSON_AddItemToObject(item, "rowsWritten", json_from_int64(rows));
	else if (rc == SPI_OK_SELECT)
		cJSON_AddItemToObject(item, "rowsRead", json_from_int64(rows));
	cJSON_AddItemToArray(result->statements, item);
	MemoryContextSwitchTo(old);
}

/* What the statement that has just run did. */
static void
take_result(SqlResult *result, const SqlSpec *spec, int rc, bool is_last, MemoryContext keep)
{
	result->rows_affected = SPI_processed;
	result->rows = NULL;
	result->is_truncated = false;
	if (is_write(rc))
		result->rows_written = Max(result->rows_written, 0) + SPI_processed;
	if (SPI_tuptable == NULL || SPI_tuptable->tupdesc == NULL || SPI_tuptable->tupdesc->natts == 0)
		return;
	if (rc == SPI_OK_SELECT)
		result->rows_read = SPI_processed;
	if (!spec->lists_items)
		result->rows = rows_as_json(spec->max_rows, &result->is_truncated, keep);
	else if (is_last)
		result->rows = rows_as_items(keep);
}

void
sqlrun_statements(const BoundSql *bound, const SqlSpec *spec, const SqlTimer *timer, SqlResult *result, MemoryContext keep)
{
	List	   *parsed = pg_parse_query(bound->sql);
	ListCell   *cell;

	foreach(cell, parsed)
	{
		RawStmt    *raw = lfirst_node(RawStmt, cell);
		char	   *sql = raw->stmt_len > 0 ?
			pnstrdup(bound->sql + raw->stmt_location, raw->stmt_len) :
			pstrdup(bound->sql + raw->stmt_location);
		int			rc;

		sqltimer_start(timer);
		/* One more item than there may be is enough to see that there are too many. */
		rc = SPI_execute_with_args(sql, bound->nargs, bound->types, bound->values, bound->nulls, false,
								   spec->lists_items && IsA(raw->stmt, SelectStmt) ? FOR_EACH_MAX_ITEMS + 1 : 0);
		/* A timer that has struck by now counts. */
		CHECK_FOR_INTERRUPTS();
		sqltimer_stop(timer);
		if (rc < 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("statement cannot be run in a SQL task: %s", SPI_result_code_string(rc))));
		if (list_length(parsed) > 1)
			count_statement(result, raw, rc, SPI_processed, keep);
		take_result(result, spec, rc, lnext(parsed, cell) == NULL, keep);
	}
	if (spec->lists_items && result->rows == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the last statement returns no rows, so it lists no items"),
				 errhint("End with a SELECT, or with RETURNING.")));
	sqltimer_start(timer);
	(void) SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	sqltimer_stop(timer);
}

cJSON *
sqlrun_output(const SqlResult *result)
{
	cJSON	   *output = cJSON_CreateObject();
	char	   *error = NULL;

	cJSON_AddItemToObject(output, "rowsAffected", json_from_int64(result->rows_affected));
	if (result->rows_read >= 0)
		cJSON_AddItemToObject(output, "rowsRead", json_from_int64(result->rows_read));
	if (result->rows_written >= 0)
		cJSON_AddItemToObject(output, "rowsWritten", json_from_int64(result->rows_written));
	if (result->rows != NULL)
	{
		cJSON	   *rows = json_parse(result->rows, strlen(result->rows), 2 * SQL_OUTPUT_MAX_BYTES, &error);

		/* Rows that are no JSON of ours, such as a json column with a key twice, are left out. */
		if (rows != NULL)
			cJSON_AddItemToObject(output, "rows", rows);
		if (rows == NULL || result->is_truncated)
			cJSON_AddTrueToObject(output, "truncated");
	}
	if (result->statements != NULL)
	{
		cJSON_AddItemReferenceToObject(output, "statements", result->statements);
		if (result->nstatements > MAX_STATEMENTS)
			cJSON_AddNumberToObject(output, "statements_dropped", result->nstatements - MAX_STATEMENTS);
	}
	if (result->notices != NULL)
		cJSON_AddItemReferenceToObject(output, "notices", (cJSON *) result->notices);
	return output;
}
