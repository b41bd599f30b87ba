/*-------------------------------------------------------------------------
 * execution_table.c
 *	  Where the tables of executions are: relations, indexes, columns
 *
 * Runs in the session of an outside orchestrator, and in those that read the
 * views of the run log.  Looking up relations and
 * columns by name costs as much as fetching the row, so a session does it
 * once and again whenever one of the tables or its indexes was changed: the
 * changes of others are announced, and taken in when a relation is locked.
 * Columns are looked up by name because an upgrade may have put them in
 * another order than an installation.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "status.h"
#include "execution_row.h"

#define MAX_KNOWN 64

typedef struct Table
{
	const char *name;
	int			ncolumns;
	const char *const *columns;
	Oid			relid;
	AttrNumber	attnos[RUN_COLS];	/* the longest */
} Table;

typedef struct TableIndex
{
	const char *name;
	ExecutionTable table;
	Oid			relid;
} TableIndex;

static const char *const pipeline_columns[PIPELINE_COLS] = {
	"pipeline_id", "name", "owner", "current_version", "is_enabled", "is_batch", "project"
};
static const char *const state_columns[STATE_COLS] = {
	"pipeline_id", "next_load_status", "skip_once", "origin_row_audit_id", "last_run_id", "last_success_run_id",
	"execution_id"
};
static const char *const run_columns[RUN_COLS] = {
	"run_id", "pipeline_id", "pipeline_name", "is_external", "is_batch", "parent_run_id",
	"status", "start_status", "next_load_status", "row_audit_id", "last_run_id", "params",
	"nominal_time", "window_start", "window_end", "trigger_type", "trigger_name",
	"triggered_by", "owner", "external_system", "external_run_id", "source_name",
	"target_name", "queued_at", "started_at", "ended_at"
};

static Table tables[] = {
	[EXECUTION_PIPELINE] = {"pipeline", PIPELINE_COLS, pipeline_columns},
	[EXECUTION_STATE] = {"pipeline_state", STATE_COLS, state_columns},
	[EXECUTION_RUN] = {"run", RUN_COLS, run_columns}
};

static TableIndex indexes[] = {
	[EXECUTION_PIPELINE_BY_ID] = {"pipeline_pkey", EXECUTION_PIPELINE},
	[EXECUTION_PIPELINE_BY_NAME] = {"pipeline_name_key", EXECUTION_PIPELINE},
	[EXECUTION_STATE_BY_ID] = {"pipeline_state_pkey", EXECUTION_STATE},
	[EXECUTION_RUN_BY_ID] = {"run_pkey", EXECUTION_RUN},
	[EXECUTION_RUN_ACTIVE] = {"run_active", EXECUTION_RUN}
};

static Oid	run_id_sequence;
static bool is_known = false;
static uint64 generation = 1;

/* Every relation whose change concerns us; more than fit: every change does. */
static Oid	known[MAX_KNOWN];
static int	nknown = 0;

static void
forget(void)
{
	is_known = false;
	generation++;
}

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid != InvalidOid && nknown < MAX_KNOWN)
	{
		int			i = 0;

		while (i < nknown && known[i] != relid)
			i++;
		if (i == nknown)
			return;
	}
	forget();
}

/* Constraints, defaults and triggers call functions. */
static void
function_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	forget();
}

static void
know(Oid relid)
{
	if (nknown < MAX_KNOWN)
		known[nknown++] = relid;
}

static Oid
relation_by_name(const char *name)
{
	Oid			relation = get_relname_relid(name, get_namespace_oid("weir", false));

	if (!OidIsValid(relation))
		elog(ERROR, "relation weir.%s does not exist", name);
	return relation;
}

static void
look_up_table(Table *table)
{
	Relation	rel;
	List	   *list;
	ListCell   *cell;

	table->relid = relation_by_name(table->name);
	know(table->relid);
	rel = table_open(table->relid, AccessShareLock);
	for (int i = 0; i < table->ncolumns; i++)
	{
		int			attno = SPI_fnumber(RelationGetDescr(rel), table->columns[i]);

		if (attno <= 0)
			elog(ERROR, "column \"%s\" of weir.%s does not exist", table->columns[i], table->name);
		table->attnos[i] = (AttrNumber) attno;
	}
	list = RelationGetIndexList(rel);
	foreach(cell, list)
		know(lfirst_oid(cell));
	list_free(list);
	table_close(rel, NoLock);
}

/* A change that is taken in while we look makes us look again. */
static void
look_up(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
		registered = true;
	}
	while (!is_known)
	{
		uint64		began = generation;

		nknown = 0;
		for (int i = 0; i < lengthof(tables); i++)
			look_up_table(&tables[i]);
		for (int i = 0; i < lengthof(indexes); i++)
			indexes[i].relid = relation_by_name(indexes[i].name);
		run_id_sequence = relation_by_name("run_id_seq");
		know(run_id_sequence);
		is_known = generation == began;
	}
}

Relation
execution_table_open(ExecutionTable table, int lockmode)
{
	look_up();
	for (;;)
	{
		Oid			relid = tables[table].relid;

		/* taking the lock takes in what others changed */
		LockRelationOid(relid, lockmode);
		if (is_known)
			return table_open(relid, NoLock);
		look_up();
		if (tables[table].relid == relid)
			return table_open(relid, NoLock);
		UnlockRelationOid(relid, lockmode);
	}
}

ExecutionTable
execution_index_table(ExecutionIndex index)
{
	return indexes[index].table;
}

Oid
execution_index_oid(ExecutionIndex index)
{
	return indexes[index].relid;
}

int
execution_attno(ExecutionTable table, int column)
{
	return tables[table].attnos[column];
}

int
execution_columns(ExecutionTable table)
{
	return tables[table].ncolumns;
}

uint64
execution_tables_generation(void)
{
	return generation;
}

int64
execution_next_id(void)
{
	look_up();
	return nextval_internal(run_id_sequence, false);
}
