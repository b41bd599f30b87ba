/*-------------------------------------------------------------------------
 * pool.c
 *	  Pools: slots that tasks of any pipeline share.
 *
 * Runs in the session that calls the SQL functions.  A pipeline being defined
 * holds its pools FOR KEY SHARE, so drop_pool waits for it and then sees it.
 * How many slots are taken is nowhere stored: the conductor counts task runs
 * that are running (engine/lanes.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalogutil.h"
#include "compat.h"
#include "engine.h"
#include "named.h"
#include "pool.h"

PG_FUNCTION_INFO_V1(weir_create_pool);
PG_FUNCTION_INFO_V1(weir_alter_pool);
PG_FUNCTION_INFO_V1(weir_drop_pool);

static const NamedKind pool_kind = {
	.what = "pool",
	.owner_for_alter = "SELECT owner FROM weir.pool WHERE name = $1 FOR NO KEY UPDATE",
	.owner_for_drop = "SELECT owner FROM weir.pool WHERE name = $1 FOR UPDATE",
	.users = "SELECT string_agg(DISTINCT u.what, ', ' ORDER BY u.what) FROM ("
	NAMED_TASK_USERS("t.pool = $1")
	"UNION ALL SELECT 'stage mapping ' || quote_ident(m.stage_type) FROM weir.stage_mapping m "
	"WHERE m.settings->>'pool' = $1) AS u (what)",
	.drop = "DELETE FROM weir.pool WHERE name = $1",
};

static int
slots_argument(FunctionCallInfo fcinfo, int n)
{
	int			slots;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"slots\" must not be null")));
	slots = PG_GETARG_INT32(n);
	if (slots < 0 || slots > POOL_MAX_SLOTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pool has 0 to %d slots, not %d", POOL_MAX_SLOTS, slots),
				 errhint("A pool with 0 slots stops all tasks that use it.")));
	return slots;
}

/* create_pool(name, slots, description) */
Datum
weir_create_pool(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, INT4OID, TEXTOID, REGROLEOID};
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	int			slots = slots_argument(fcinfo, 1);
	char	   *description = catalog_arg_description(fcinfo, 2);
	Datum		values[4] = {0};
	char		nulls[] = "    ";

	catalog_check_name("pool", name);
	weir_enter(&scope);
	weir_require_admin(scope.caller, "create pools");
	values[0] = catalog_text(name);
	values[1] = Int32GetDatum(slots);
	nulls[2] = description ? ' ' : 'n';
	if (description)
		values[2] = catalog_text(description);
	values[3] = ObjectIdGetDatum(scope.caller);
	if (weir_spi("INSERT INTO weir.pool (name, slots, description, owner) VALUES ($1, $2, $3, $4) "
				 "ON CONFLICT (name) DO NOTHING", 4, types, values, nulls) == 0)
		named_exists_already(&pool_kind, name);
	/* Tasks of a pool that was dropped may wait for it. */
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* alter_pool(name, slots, description, new_owner): null leaves as it is */
Datum
weir_alter_pool(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, INT4OID, TEXTOID, REGROLEOID};
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	char	   *description = catalog_arg_description(fcinfo, 2);
	Datum		values[4] = {0};
	char		nulls[] = " nnn";

	if (!PG_ARGISNULL(1))
	{
		values[1] = Int32GetDatum(slots_argument(fcinfo, 1));
		nulls[1] = ' ';
	}
	if (description != NULL)
	{
		values[2] = catalog_text(description);
		nulls[2] = ' ';
	}
	if (!PG_ARGISNULL(3))
	{
		values[3] = ObjectIdGetDatum(get_role_oid(NameStr(*PG_GETARG_NAME(3)), false));
		nulls[3] = ' ';
	}
	weir_enter(&scope);
	weir_require_admin(scope.caller, "alter pools");
	named_lock(&pool_kind, name, scope.caller);
	/* The same rule as ALTER ... OWNER TO. */
	if (nulls[3] == ' ' && !member_can_set_role_compat(scope.caller, DatumGetObjectId(values[3])))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not make role \"%s\" the owner of a pool",
						GetUserNameFromId(scope.caller, false), GetUserNameFromId(DatumGetObjectId(values[3]), false)),
				 errhint("Only a member of the new owner's role may do that.")));
	values[0] = catalog_text(name);
	weir_spi("UPDATE weir.pool SET slots = coalesce($2, slots), description = coalesce($3, description), "
			 "owner = coalesce($4, owner), changed_at = clock_timestamp() WHERE name = $1",
			 4, types, values, nulls);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* drop_pool(name): not while something current uses it */
Datum
weir_drop_pool(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);

	weir_enter(&scope);
	weir_require_admin(scope.caller, "drop pools");
	named_drop(&pool_kind, name, scope.caller);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

int
pool_lock_slots(const char *name)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];

	values[0] = catalog_text(name);
	if (weir_spi("SELECT slots FROM weir.pool WHERE name = $1 FOR KEY SHARE", 1, types, values, NULL) == 0)
		return -1;
	return (int) weir_spi_int64(0, 1, NULL);
}
