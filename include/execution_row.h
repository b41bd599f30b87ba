/*-------------------------------------------------------------------------
 * execution_row.h
 *	  Rows of weir's tables without a statement, for what every execution of
 *	  an outside orchestrator does.
 *
 * Rows are found by an index and written as replication writes them: row
 * triggers, constraints, generated columns and indexes, but no statement
 * triggers.  All of these ereport like a statement and close what they hold
 * when an error ends the transaction.
 *
 * Include postgres.h and status.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_EXECUTION_ROW_H
#define WEIR_EXECUTION_ROW_H

#include "storage/itemptr.h"

struct SnapshotData;

typedef enum ExecutionTable
{
	EXECUTION_PIPELINE, EXECUTION_STATE, EXECUTION_RUN
} ExecutionTable;

/* The columns that are read or written this way; names are in execution_table.c. */
enum
{
	PIPELINE_COL_ID, PIPELINE_COL_NAME, PIPELINE_COL_OWNER, PIPELINE_COL_VERSION,
	PIPELINE_COL_IS_ENABLED, PIPELINE_COL_IS_BATCH, PIPELINE_COL_PROJECT,
	PIPELINE_COLS
};
enum
{
	STATE_COL_PIPELINE, STATE_COL_NEXT_LOAD, STATE_COL_SKIP_ONCE, STATE_COL_ORIGIN,
	STATE_COL_LAST_RUN, STATE_COL_LAST_SUCCESS, STATE_COL_EXECUTION,
	STATE_COLS
};
enum
{
	RUN_COL_ID, RUN_COL_PIPELINE, RUN_COL_PIPELINE_NAME, RUN_COL_IS_EXTERNAL, RUN_COL_IS_BATCH, RUN_COL_PARENT,
	RUN_COL_STATUS, RUN_COL_START_STATUS, RUN_COL_NEXT_LOAD, RUN_COL_ROW_AUDIT, RUN_COL_LAST_RUN, RUN_COL_PARAMS,
	RUN_COL_NOMINAL_TIME, RUN_COL_WINDOW_START, RUN_COL_WINDOW_END, RUN_COL_TRIGGER_TYPE, RUN_COL_TRIGGER_NAME,
	RUN_COL_TRIGGERED_BY, RUN_COL_OWNER, RUN_COL_EXTERNAL_SYSTEM, RUN_COL_EXTERNAL_RUN, RUN_COL_SOURCE,
	RUN_COL_TARGET, RUN_COL_QUEUED_AT, RUN_COL_STARTED_AT, RUN_COL_ENDED_AT,
	RUN_COLS
};

typedef enum ExecutionIndex
{
	EXECUTION_PIPELINE_BY_ID, EXECUTION_PIPELINE_BY_NAME, EXECUTION_STATE_BY_ID,
	EXECUTION_RUN_BY_ID, EXECUTION_RUN_ACTIVE
} ExecutionIndex;

/* A row that was found; close it. */
typedef struct ExecutionRow
{
	ExecutionTable table;
	struct RelationData *rel;
	struct TupleTableSlot *slot;
} ExecutionRow;

/* The row as of now, or as the running statement sees it; _at: looks there first. */
extern bool execution_row_find(ExecutionIndex index, int64 key, ExecutionRow *row);
extern bool execution_row_find_seen(ExecutionIndex index, int64 key, ExecutionRow *row);
extern bool execution_row_find_at(const ItemPointerData *place, ExecutionIndex index, int64 key, ExecutionRow *row);
/*
 * The version that the snapshot sees of a row that was at "place" before, found
 * without an index: false unless it is there or where its newer versions lead,
 * and the column has this value.
 */
extern bool execution_row_follow(ItemPointerData place, ExecutionTable table, int column, int64 key,
								 struct SnapshotData *snapshot, ExecutionRow *row);
extern bool execution_row_is_own(const ExecutionRow *row);	/* written by this transaction */
extern bool execution_row_find_name(ExecutionIndex index, const char *name, ExecutionRow *row);
/*
 * Lock what was found FOR UPDATE, at its newest version; false, and closed, if
 * it is gone.  at_once, unless NULL: nobody held it, and what was found is the
 * newest version.
 */
extern bool execution_row_lock(ExecutionRow *row, bool *at_once);
extern ItemPointerData execution_row_place(const ExecutionRow *row);
extern void execution_row_close(ExecutionRow *row);
/* All rows with the key, until visit() returns false. */
extern void execution_rows_visit(ExecutionIndex index, int64 key, bool (*visit) (const ExecutionRow *row, void *arg), void *arg);

/* Columns; null is 0 or false. */
extern int64 execution_row_id(const ExecutionRow *row, int column);
extern Oid	execution_row_oid(const ExecutionRow *row, int column);
extern int32 execution_row_int4(const ExecutionRow *row, int column);
extern bool execution_row_bool(const ExecutionRow *row, int column);
extern char execution_row_letter(const ExecutionRow *row, int column);
extern text *execution_row_text(const ExecutionRow *row, int column);	/* palloc'd; NULL for null */
extern RunStatus execution_row_status(const ExecutionRow *row, int column);	/* of a run */

/*
 * One way of writing to a table: a static variable of whoever writes.  An
 * insert gives all columns above, in their order, and leaves the others to
 * their defaults.  What is visible afterwards includes the write.
 */
typedef struct ExecutionWrite
{
	ExecutionTable table;
	int			ncolumns;		/* 0: insert */
	int			columns[4];		/* that an update gives */
	struct ExecutionWriter *writer; /* what this session prepared for it */
} ExecutionWrite;

extern void execution_row_insert(ExecutionWrite *write, const Datum *values, const bool *nulls);
/* The row must be there and locked.  place: where it was when it was locked; invalid if that is not known. */
extern void execution_row_update(ExecutionWrite *write, ExecutionIndex index, int64 key, const ItemPointerData *place,
								 const Datum *values, const bool *nulls);

extern int64 execution_next_id(void);	/* of runs; a rollback leaves a gap */

/* --- between execution_table.c and its two users --- */
extern struct RelationData *execution_table_open(ExecutionTable table, int lockmode);
extern Oid	execution_index_oid(ExecutionIndex index);	/* with its table open */
extern ExecutionTable execution_index_table(ExecutionIndex index);
extern int	execution_attno(ExecutionTable table, int column);	/* with the table open */
extern int	execution_columns(ExecutionTable table);	/* how many we know */
extern uint64 execution_tables_generation(void);	/* changes when anything about the tables may have */

#endif							/* WEIR_EXECUTION_ROW_H */
