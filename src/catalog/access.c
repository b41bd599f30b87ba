/*-------------------------------------------------------------------------
 * access.c
 *	  Who may do what, and how weir's own statements run.
 *
 * Runs in any backend that calls weir's functions and in weir's workers.
 * Takes no locks beyond catalog look-ups.  Whatever it changes (user,
 * search_path, SPI) is undone by transaction abort when an error interrupts.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "access.h"

PG_FUNCTION_INFO_V1(weir_ensure_role);

/*
 * What weir_enter() would otherwise look up in pg_extension on every call.
 * Creating and dropping the extension and giving away its objects all change
 * weir's functions, and that is announced: the next call looks again.
 */
static Oid	known_owner = InvalidOid;

#define SAFE_SEARCH_PATH "pg_catalog, pg_temp"

/* We are in a scope in which the caller's search_path is still set. */
static bool search_path_is_open = false;

/*
 * _ensure_role(name): create a NOLOGIN role unless it exists.  Only called by
 * the install script, as a superuser.
 */
Datum
weir_ensure_role(PG_FUNCTION_ARGS)
{
	char	   *role = NameStr(*PG_GETARG_NAME(0));
	CreateRoleStmt *stmt;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may create weir's roles")));
	if (OidIsValid(get_role_oid(role, true)))
		PG_RETURN_VOID();

	stmt = makeNode(CreateRoleStmt);
	stmt->stmt_type = ROLESTMT_ROLE;
	stmt->role = pstrdup(role);
	stmt->options = NIL;
	CreateRole(NULL, stmt);
	PG_RETURN_VOID();
}

Oid
weir_extension_oid(void)
{
	return get_extension_oid("weir", true);
}

static void
forget_owner(Datum arg, int cacheid, uint32 hashvalue)
{
	known_owner = InvalidOid;
}

static Oid
read_owner(void)
{
	Relation	rel;
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("weir"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

/* The owner of the extension owns weir's tables; its rights are what internal statements need. */
Oid
weir_extension_owner(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_owner, (Datum) 0);
		registered = true;
	}
	/* Announcements are taken in when the catalog is locked, before it is read. */
	if (!OidIsValid(known_owner))
		known_owner = read_owner();
	return known_owner;
}

/* An error leaves every scope at once. */
static void
forget_open_path(XactEvent event, void *arg)
{
	search_path_is_open = false;
}

static void
forget_open_path_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		search_path_is_open = false;
}

void
weir_pin_search_path(void)
{
	search_path_is_open = false;
	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) != 0)
		(void) set_config_option("search_path", SAFE_SEARCH_PATH,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

bool
weir_search_path_is_open(void)
{
	return search_path_is_open;
}

static void
enter(WeirScope *scope)
{
	Oid			owner = weir_extension_owner();

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"weir\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION weir.")));

	scope->caller = GetUserId();
	GetUserIdAndSecContext(&scope->save_userid, &scope->save_sec_context);
	scope->guc_level = NewGUCNestLevel();
	scope->outer_is_open = search_path_is_open;
	SetUserIdAndSecContext(owner, scope->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	scope->pushed_snapshot = !ActiveSnapshotSet();
	if (scope->pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	scope->spi_connected = SPI_connect() == SPI_OK_CONNECT;
	if (!scope->spi_connected)
		elog(ERROR, "could not connect to SPI");
}

void
weir_enter(WeirScope *scope)
{
	enter(scope);
	weir_pin_search_path();
}

/*
 * Changing the path costs little, finding out afterwards what it stands for
 * again costs more than all else of a scope; of log_execution_start and _end
 * most calls run no statement.
 */
void
weir_enter_lean(WeirScope *scope)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(forget_open_path, NULL);
		RegisterSubXactCallback(forget_open_path_of_subtransaction, NULL);
		registered = true;
	}
	enter(scope);
	search_path_is_open = true;
}

void
weir_settle_search_path(void)
{
	SetConfigOption("search_path", SAFE_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION);
}

void
weir_leave(WeirScope *scope)
{
	search_path_is_open = scope->outer_is_open;
	if (scope->spi_connected)
		SPI_finish();
	scope->spi_connected = false;
	if (scope->pushed_snapshot)
		PopActiveSnapshot();
	scope->pushed_snapshot = false;
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->save_userid, scope->save_sec_context);
}

/* Membership in one of weir's roles; a dropped role grants nothing. */
static bool
has_weir_role(Oid role, const char *weir_role)
{
	Oid			oid = get_role_oid(weir_role, true);

	return OidIsValid(oid) ? has_privs_of_role(role, oid) : superuser_arg(role);
}

bool
weir_is_admin(Oid role)
{
	return has_weir_role(role, "weir_admin");
}

bool
weir_is_operator(Oid role)
{
	return has_weir_role(role, "weir_operator") || weir_is_admin(role);
}

bool
weir_is_reader(Oid role)
{
	return has_weir_role(role, "weir_reader") || weir_is_operator(role);
}

static void
refuse(Oid role, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not %s", GetUserNameFromId(role, false), what),
			 errhint("%s", hint)));
}

void
weir_require_admin(Oid role, const char *what)
{
	if (!weir_is_admin(role))
		refuse(role, what, "Grant the role weir_admin.");
}

void
weir_require_operator(Oid role, const char *what)
{
	if (!weir_is_operator(role))
		refuse(role, what, "Grant the role weir_operator.");
}

void
weir_require_operator_or_owner(Oid role, Oid owner, const char *what)
{
	if (!weir_is_operator(role) && !has_privs_of_role(role, owner))
		refuse(role, what, "Grant the role weir_operator, or membership in the owner's role.");
}

void
weir_require_reader_or_owner(Oid role, Oid owner, const char *what)
{
	if (!weir_is_reader(role) && !has_privs_of_role(role, owner))
		refuse(role, what, "Grant the role weir_reader, or membership in the owner's role.");
}

void
weir_require_owner(Oid role, Oid owner, const char *what)
{
	weir_require_admin(role, what);
	if (!has_privs_of_role(role, owner))
		refuse(role, what, "Only the owner, its members and superusers may do that.");
}
