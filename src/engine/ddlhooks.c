/*-------------------------------------------------------------------------
 * ddlhooks.c
 *	  weir gets out of the way of DDL on its extension and on databases.
 *
 * Runs in the session that executes the DDL.  DROP EXTENSION weir, DROP
 * DATABASE, ALTER DATABASE ... RENAME TO and SET TABLESPACE, and CREATE
 * DATABASE with the database as template first take a hold on the database:
 * its hold_count keeps the launcher from starting anything, then conductor
 * and SQL workers are asked to leave and waited for.  ALTER EXTENSION weir
 * sends away the conductor only: SQL tasks may finish.
 *
 * A hold lasts until the end of the transaction, whatever its outcome, so a
 * cancelled or failed command puts everything back.  After it the launcher
 * looks again: a conductor that finds no extension leaves by itself, which
 * makes DROP EXTENSION in a rolled back subtransaction harmless.  If this
 * process is killed, FATAL runs the abort callback too, and a crash empties
 * the shared memory.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "engine.h"
#include "engine_int.h"
#include "launcher.h"
#include "shmem.h"

#define MAX_HOLDS		16		/* databases held by one transaction */
#define MAX_LEAVING		(WEIR_MAX_SQL_SLOTS + 8)
#define LEAVE_TIMEOUT_MS 30000
#define LEAVE_LOOK_MS	10

PG_FUNCTION_INFO_V1(weir_installed);

static object_access_hook_type prev_object_access_hook = NULL;
static ProcessUtility_hook_type prev_process_utility_hook = NULL;

/* Undone at the end of the transaction. */
static Oid	held[MAX_HOLDS];
static int	held_count = 0;
static bool rescan_pending = false; /* on commit only */

/* Processes that were asked to leave. */
typedef struct Leaving
{
	pid_t		pids[MAX_LEAVING];
	int			count;
} Leaving;

static void
ask_to_leave(Leaving *leaving, pid_t pid)
{
	kill(pid, SIGTERM);
	for (int i = 0; i < leaving->count; i++)
	{
		if (leaving->pids[i] == pid)
			return;
	}
	if (leaving->count < MAX_LEAVING)
		leaving->pids[leaving->count++] = pid;
}

/*
 * Ask everybody who works in the database to leave; true when nobody is left
 * in the slots.  Signals are sent under the lock: a process clears its slot
 * before it ends, so the pid is still its own.  Who has not attached yet is
 * disowned by counting up the generation.  A SQL task that executes the DDL
 * itself stays.
 */
static bool
clear_slots(Oid databaseid, bool with_sql_workers, Leaving *leaving)
{
	DatabaseSlot *database;
	bool		empty = true;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	database = shmem_database_slot(databaseid, false);
	if (database != NULL)
	{
		if (database->starting_pid != 0)
		{
			database->starting_pid = 0;
			database->generation++;
		}
		if (database->pid != 0 && database->pid != MyProcPid)
		{
			ask_to_leave(leaving, database->pid);
			empty = false;
		}
	}
	for (int i = 0; with_sql_workers && i < WEIR_MAX_SQL_SLOTS; i++)
	{
		SqlSlot    *slot = &weir_shmem->sql[i];

		if (slot->state == SQL_SLOT_FREE || slot->databaseid != databaseid ||
			slot->pid == MyProcPid)
			continue;
		if (slot->pid == 0)
		{
			slot->generation++;
			slot->state = SQL_SLOT_FREE;
			continue;
		}
		ask_to_leave(leaving, slot->pid);
		empty = false;
	}
	LWLockRelease(weir_shmem_lock);
	return empty;
}

/* A slot is cleared a moment before its process is gone. */
static bool
all_gone(const Leaving *leaving)
{
	for (int i = 0; i < leaving->count; i++)
	{
		if (BackendPidGetProc(leaving->pids[i]) != NULL)
			return false;
	}
	return true;
}

static void
wait_until_empty(Oid databaseid, bool with_sql_workers)
{
	TimestampTz start = GetCurrentTimestamp();
	Leaving		leaving = {.count = 0};

	while (!clear_slots(databaseid, with_sql_workers, &leaving) || !all_gone(&leaving))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), LEAVE_TIMEOUT_MS))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("workers of weir did not leave the database in time"),
					 errhint("See weir.status and pg_stat_activity for what they do, and try again.")));
		/* no one sets our latch when a slot is cleared: look every few ms */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LEAVE_LOOK_MS, wait_event_compat("WeirLeave"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Nothing of weir runs in the database from here to the end of the transaction. */
static void
hold_database(Oid databaseid, bool with_sql_workers)
{
	DatabaseSlot *slot;
	bool		mine = false;

	if (weir_shmem == NULL || !OidIsValid(databaseid))
		return;
	for (int i = 0; i < held_count; i++)
		mine |= held[i] == databaseid;

	if (!mine)
	{
		if (held_count >= MAX_HOLDS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("one transaction cannot stop weir in more than %d databases", MAX_HOLDS)));
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		/* a slot even if there is none: the launcher must not look in just now */
		slot = shmem_database_slot(databaseid, true);
		if (slot != NULL)
		{
			slot->wanted = true;
			slot->hold_count++;
			held[held_count++] = databaseid;
		}
		LWLockRelease(weir_shmem_lock);
	}
	wait_until_empty(databaseid, with_sql_workers);
}

static void
release_holds(void)
{
	if (held_count == 0)
		return;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	for (int i = 0; i < held_count; i++)
	{
		DatabaseSlot *slot = shmem_database_slot(held[i], false);

		if (slot != NULL && slot->hold_count > 0)
			slot->hold_count--;
	}
	/* under the same lock: nothing starts in a database that may be gone */
	weir_shmem->launcher_rescan = true;
	LWLockRelease(weir_shmem_lock);
	held_count = 0;
	launcher_wake(true);
}

static void
ddlhooks_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (rescan_pending)
				launcher_wake(true);
			rescan_pending = false;
			release_holds();
			break;
		case XACT_EVENT_ABORT:
			rescan_pending = false;
			release_holds();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (held_count > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that dropped or altered extension weir")));
			break;
		default:
			break;
	}
}

/* Any way to drop the extension, cascades included, comes by here. */
static void
ddlhooks_object_access(ObjectAccessType access, Oid classId, Oid objectId,
					   int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);

	if (access == OAT_DROP && classId == ExtensionRelationId &&
		objectId == weir_extension_oid())
		hold_database(MyDatabaseId, true);
}

static bool
owns_extension(void)
{
	Oid			owner = weir_extension_owner();

	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

static bool
may_copy(Oid databaseid)
{
	HeapTuple	tuple;
	bool		createdb = false;

	if (superuser() || database_ownercheck_compat(databaseid, GetUserId()))
		return true;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(databaseid));
	if (HeapTupleIsValid(tuple))
	{
		createdb = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return createdb;
}

/* The database a CREATE DATABASE copies, if the user may. */
static Oid
template_of(const CreatedbStmt *stmt)
{
	char	   *name = "template1";
	ListCell   *cell;
	Oid			databaseid;
	HeapTuple	role;
	bool		createdb = superuser();

	foreach(cell, stmt->options)
	{
		DefElem    *option = (DefElem *) lfirst(cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			name = defGetString(option);
	}
	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(role))
	{
		createdb |= ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb;
		ReleaseSysCache(role);
	}
	databaseid = get_database_oid(name, true);
	return createdb && OidIsValid(databaseid) && may_copy(databaseid) ? databaseid : InvalidOid;
}

static void
hold_own_database(const char *name)
{
	Oid			databaseid = get_database_oid(name, true);

	/* who may not do it gets his error without disturbing anybody */
	if (OidIsValid(databaseid) && databaseid != MyDatabaseId &&
		database_ownercheck_compat(databaseid, GetUserId()))
		hold_database(databaseid, true);
}

static bool
names_weir(const List *objects)
{
	ListCell   *cell;

	foreach(cell, objects)
	{
		Node	   *object = (Node *) lfirst(cell);

		if (IsA(object, String) && strcmp(strVal(object), "weir") == 0)
			return true;
	}
	return false;
}

static bool
has_option(const List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		if (strcmp(((DefElem *) lfirst(cell))->defname, name) == 0)
			return true;
	}
	return false;
}

/* What has to be out of the way before this statement starts to lock. */
static void
before_utility(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			hold_own_database(((DropdbStmt *) stmt)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				hold_own_database(((RenameStmt *) stmt)->subname);
			break;
		case T_AlterDatabaseStmt:
			if (has_option(((AlterDatabaseStmt *) stmt)->options, "tablespace"))
				hold_own_database(((AlterDatabaseStmt *) stmt)->dbname);
			rescan_pending = true;	/* is_template, allow_connections */
			break;
		case T_CreatedbStmt:
			hold_database(template_of((CreatedbStmt *) stmt), true);
			rescan_pending = true;
			break;
		case T_DropStmt:
			/* a SQL task in the middle of its work holds locks the DROP would wait for */
			if (((DropStmt *) stmt)->removeType == OBJECT_EXTENSION &&
				names_weir(((DropStmt *) stmt)->objects) && owns_extension())
				hold_database(MyDatabaseId, true);
			break;
		case T_AlterExtensionStmt:
			if (strcmp(((AlterExtensionStmt *) stmt)->extname, "weir") == 0 && owns_extension())
				hold_database(MyDatabaseId, false);
			break;
		default:
			break;
	}
}

static void
ddlhooks_process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
						 ProcessUtilityContext context, ParamListInfo params,
						 QueryEnvironment *environment, DestReceiver *dest,
						 QueryCompletion *completion)
{
	/* an aborted transaction can only end; let the standard path say so */
	if (IsTransactionState())
		before_utility(pstmt->utilityStmt);

	if (prev_process_utility_hook)
		prev_process_utility_hook(pstmt, query, read_only_tree, context, params,
								  environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								environment, dest, completion);
}

void
ddlhooks_init(void)
{
	RegisterXactCallback(ddlhooks_xact_callback, NULL);
	prev_object_access_hook = object_access_hook;
	object_access_hook = ddlhooks_object_access;
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = ddlhooks_process_utility;
}

/*
 * _installed(): last act of the install script.  The conductor is wanted from
 * the commit on.
 */
Datum
weir_installed(PG_FUNCTION_ARGS)
{
	if (weir_shmem != NULL)
		engine_wake_at_commit(ENGINE_WAKE_ALL | ENGINE_WAKE_INSTALLED);
	else if (!IsBinaryUpgrade)
		ereport(WARNING,
				(errmsg("weir is not preloaded: no workers run"),
				 errdetail("Until then CALL weir.conduct() runs pipelines in the session that calls it."),
				 errhint("Add weir to shared_preload_libraries and restart the server.")));
	PG_RETURN_VOID();
}
