/*-------------------------------------------------------------------------
 * pipeline.c
 *	  Pipelines: create, alter, give away, drop, pause, resume, describe.
 *
 * Runs in the session that calls the SQL functions.  Locks: the pipeline's
 * row first.  FOR NO KEY UPDATE puts changes of one pipeline in a row without
 * stopping triggers, which hold it FOR KEY SHARE; only drop_pipeline takes
 * FOR UPDATE and waits for them.  A version is immutable, so runs in flight
 * notice nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"

#include "access.h"
#include "catalogutil.h"
#include "compat.h"
#include "definition.h"
#include "engine.h"
#include "pipelinestore.h"

PG_FUNCTION_INFO_V1(weir_create_pipeline);
PG_FUNCTION_INFO_V1(weir_alter_pipeline);
PG_FUNCTION_INFO_V1(weir_alter_pipeline_owner);
PG_FUNCTION_INFO_V1(weir_drop_pipeline);
PG_FUNCTION_INFO_V1(weir_pause_pipeline);
PG_FUNCTION_INFO_V1(weir_resume_pipeline);
PG_FUNCTION_INFO_V1(weir_describe_pipeline);

#define MAX_NAME_CHARS	260
#define MAX_NAME_BYTES	(MAX_NAME_CHARS * 4)

typedef struct PipelineRow
{
	int64		pipeline_id;
	Oid			owner;
	bool		has_definition;
} PipelineRow;

static char *
name_argument(FunctionCallInfo fcinfo)
{
	return catalog_arg_required(fcinfo, 0, "name", MAX_NAME_BYTES);
}

static void
check_pipeline_name(const char *name)
{
	bool		ok = name[0] != '\0' && pg_mbstrlen(name) <= MAX_NAME_CHARS;

	for (const char *p = name; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			ok = false;
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a pipeline"),
				 errdetail("A name has 1 to %d characters and no control characters.", MAX_NAME_CHARS)));
}

/* SQL workers connect as the owner. */
static void
check_owner_can_work(Oid owner)
{
	HeapTuple	tuple;
	bool		can_login;

	if (!OWNER_NEEDS_LOGIN_COMPAT)
		return;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	can_login = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!can_login)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" cannot own a pipeline because it cannot log in",
						GetUserNameFromId(owner, false)),
				 errdetail("SQL tasks connect as the owner of their pipeline."),
				 errhint("Use a role with LOGIN; it needs no password.")));
}

/* Read the definition and check everything.  SPI connected. */
static Definition *
read_definition(const cJSON *root, Oid owner)
{
	Definition *def;

	if (jobformat_is(root))
		def = definition_parse(jobformat_convert(root), true);
	else
		def = definition_parse(root, false);
	definition_check(def, owner);
	return def;
}

static cJSON *
definition_argument(FunctionCallInfo fcinfo)
{
	cJSON	   *root = catalog_arg_json(fcinfo, 1, "definition", DEFINITION_MAX_BYTES);

	if (root == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"definition\" must not be null")));
	return root;
}

static int64
insert_pipeline(const char *name, const char *description, Oid owner)
{
	static const Oid types[] = {TEXTOID, TEXTOID, REGROLEOID};
	static const Oid state_types[] = {INT8OID};
	Datum		values[3] = {0};
	char		nulls[] = "   ";
	int64		pipeline_id;

	values[0] = catalog_text(name);
	nulls[1] = description ? ' ' : 'n';
	if (description)
		values[1] = catalog_text(description);
	values[2] = ObjectIdGetDatum(owner);
	/* ON CONFLICT waits for a session that is just creating the same name. */
	if (weir_spi("INSERT INTO weir.pipeline (name, description, owner, current_version) VALUES ($1, $2, $3, 1) "
				 "ON CONFLICT (name) DO NOTHING RETURNING pipeline_id", 3, types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("pipeline \"%s\" already exists", name),
				 errhint("Use weir.alter_pipeline to give it a new version.")));
	pipeline_id = weir_spi_int64(0, 1, NULL);

	values[0] = Int64GetDatum(pipeline_id);
	weir_spi("INSERT INTO weir.pipeline_state (pipeline_id) VALUES ($1)", 1, state_types, values, NULL);
	return pipeline_id;
}

/* create_pipeline(name, definition, description) returns 1 */
Datum
weir_create_pipeline(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = name_argument(fcinfo);
	cJSON	   *root = definition_argument(fcinfo);
	char	   *description = catalog_arg_description(fcinfo, 2);
	Definition *def;
	int64		pipeline_id;

	check_pipeline_name(name);
	weir_enter(&scope);
	weir_require_admin(scope.caller, "create pipelines");
	check_owner_can_work(scope.caller);
	def = read_definition(root, scope.caller);
	definition_check_calls(def, name, scope.caller);
	pipeline_id = insert_pipeline(name, description ? description : def->description, scope.caller);
	pipeline_store_version(pipeline_id, 1, def, PG_GETARG_DATUM(1), scope.caller);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_INT32(1);
}

noreturn_compat static void
no_such_pipeline(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("pipeline \"%s\" does not exist", name)));
	pg_unreachable();
}

/* The row just selected: id, owner, has a current version */
static PipelineRow
found_pipeline(const char *name, uint64 rows)
{
	PipelineRow row;

	if (rows == 0)
		no_such_pipeline(name);
	row.pipeline_id = weir_spi_int64(0, 1, NULL);
	row.owner = (Oid) weir_spi_int64(0, 2, NULL);
	row.has_definition = weir_spi_bool(0, 3, NULL);
	return row;
}

static PipelineRow
lock_pipeline(const char *name)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];

	values[0] = catalog_text(name);
	return found_pipeline(name, weir_spi("SELECT pipeline_id, owner, current_version IS NOT NULL FROM weir.pipeline "
										 "WHERE name = $1 FOR NO KEY UPDATE", 1, types, values, NULL));
}

/* alter_pipeline(name, definition) returns the new version */
Datum
weir_alter_pipeline(PG_FUNCTION_ARGS)
{
	static const Oid id_types[] = {INT8OID};
	static const Oid types[] = {INT8OID, INT4OID, TEXTOID};
	WeirScope	scope;
	char	   *name = name_argument(fcinfo);
	cJSON	   *root = definition_argument(fcinfo);
	PipelineRow row;
	Definition *def;
	Datum		values[3] = {0};
	char		nulls[] = "   ";
	int			version;

	weir_enter(&scope);
	weir_require_admin(scope.caller, "alter pipelines");
	row = lock_pipeline(name);
	weir_require_owner(scope.caller, row.owner, psprintf("alter pipeline \"%s\"", name));
	check_owner_can_work(row.owner);
	def = read_definition(root, row.owner);
	definition_check_calls(def, name, scope.caller);

	/* Not current_version + 1: a pipeline registered from outside has none. */
	values[0] = Int64GetDatum(row.pipeline_id);
	weir_spi("SELECT coalesce(max(version), 0) + 1 FROM weir.pipeline_version WHERE pipeline_id = $1",
			 1, id_types, values, NULL);
	version = (int) weir_spi_int64(0, 1, NULL);

	/* An execution that ends now must have ended, or see that weir has runs of the pipeline to start. */
	if (!row.has_definition)
		weir_spi("SELECT FROM weir.pipeline_state WHERE pipeline_id = $1 FOR UPDATE", 1, id_types, values, NULL);
	pipeline_store_version(row.pipeline_id, version, def, PG_GETARG_DATUM(1), scope.caller);

	values[1] = Int32GetDatum(version);
	nulls[2] = def->description ? ' ' : 'n';
	if (def->description)
		values[2] = catalog_text(def->description);
	weir_spi("UPDATE weir.pipeline SET current_version = $2, description = coalesce($3, description), "
			 "changed_at = clock_timestamp() WHERE pipeline_id = $1", 3, types, values, nulls);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_INT32(version);
}

/* alter_pipeline_owner(name, new_owner) */
Datum
weir_alter_pipeline_owner(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID, REGROLEOID};
	WeirScope	scope;
	char	   *name = name_argument(fcinfo);
	Oid			new_owner;
	PipelineRow row;
	Datum		values[2];

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"new_owner\" must not be null")));
	new_owner = get_role_oid(NameStr(*PG_GETARG_NAME(1)), false);

	weir_enter(&scope);
	weir_require_admin(scope.caller, "alter pipelines");
	row = lock_pipeline(name);
	weir_require_owner(scope.caller, row.owner, psprintf("alter pipeline \"%s\"", name));
	/* The same rule as ALTER ... OWNER TO: nobody gains rights by giving away. */
	if (!member_can_set_role_compat(scope.caller, new_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not make role \"%s\" the owner of a pipeline",
						GetUserNameFromId(scope.caller, false), GetUserNameFromId(new_owner, false)),
				 errhint("Only a member of the new owner's role may do that.")));
	check_owner_can_work(new_owner);

	values[0] = Int64GetDatum(row.pipeline_id);
	values[1] = ObjectIdGetDatum(new_owner);
	weir_spi("UPDATE weir.pipeline SET owner = $2, changed_at = clock_timestamp() WHERE pipeline_id = $1",
			 2, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* drop_pipeline(name): its versions go, its runs stay in the log */
Datum
weir_drop_pipeline(PG_FUNCTION_ARGS)
{
	static const Oid name_types[] = {TEXTOID};
	static const Oid types[] = {INT8OID};
	WeirScope	scope;
	char	   *name = name_argument(fcinfo);
	PipelineRow row;
	Datum		values[1];

	weir_enter(&scope);
	weir_require_admin(scope.caller, "drop pipelines");
	values[0] = catalog_text(name);
	row = found_pipeline(name, weir_spi("SELECT pipeline_id, owner, current_version IS NOT NULL FROM weir.pipeline "
										"WHERE name = $1 FOR UPDATE", 1, name_types, values, NULL));
	weir_require_owner(scope.caller, row.owner, psprintf("drop pipeline \"%s\"", name));

	values[0] = Int64GetDatum(row.pipeline_id);
	if (weir_spi("SELECT run_id FROM weir.run WHERE pipeline_id = $1 AND status IN ('queued', 'running', 'cancelling') "
				 "ORDER BY run_id LIMIT 1", 1, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" cannot be dropped while it has unfinished runs", name),
				 errdetail("Run " INT64_FORMAT " is queued or running.", weir_spi_int64(0, 1, NULL)),
				 errhint("Cancel the runs with weir.cancel and wait until they have ended.")));
	weir_spi("DELETE FROM weir.pipeline WHERE pipeline_id = $1", 1, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* Pausing twice is fine: what counts is that it is paused. */
static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	static const Oid types[] = {INT8OID, BOOLOID};
	WeirScope	scope;
	char	   *name = name_argument(fcinfo);
	PipelineRow row;
	Datum		values[2];

	weir_enter(&scope);
	row = lock_pipeline(name);
	weir_require_operator_or_owner(scope.caller, row.owner,
								   psprintf("%s pipeline \"%s\"", paused ? "pause" : "resume", name));
	values[0] = Int64GetDatum(row.pipeline_id);
	values[1] = BoolGetDatum(paused);
	weir_spi("UPDATE weir.pipeline SET is_paused = $2, changed_at = clock_timestamp() "
			 "WHERE pipeline_id = $1 AND is_paused <> $2", 2, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
}

Datum
weir_pause_pipeline(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
weir_resume_pipeline(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

/* describe_pipeline(name, version) returns the definition as it was given */
Datum
weir_describe_pipeline(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, INT4OID};
	WeirScope	scope;
	MemoryContext context = CurrentMemoryContext;
	char	   *name = name_argument(fcinfo);
	Datum		values[2] = {0};
	char		nulls[] = "  ";
	Datum		definition = (Datum) 0;

	weir_enter(&scope);
	values[0] = catalog_text(name);
	nulls[1] = PG_ARGISNULL(1) ? 'n' : ' ';
	if (!PG_ARGISNULL(1))
		values[1] = PG_GETARG_DATUM(1);
	if (weir_spi("SELECT v.definition, p.owner FROM weir.pipeline p LEFT JOIN weir.pipeline_version v "
				 "ON v.pipeline_id = p.pipeline_id AND v.version = coalesce($2, p.current_version) "
				 "WHERE p.name = $1", 2, types, values, nulls) == 0)
		no_such_pipeline(name);
	weir_require_reader_or_owner(scope.caller, (Oid) weir_spi_int64(0, 2, NULL), psprintf("see pipeline \"%s\"", name));
	if (!catalog_spi_datum(0, 1, context, &definition))
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("pipeline \"%s\" has no definition", name),
					 errdetail("An outside orchestrator registered it.")));
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" has no version %d", name, PG_GETARG_INT32(1))));
	}
	weir_leave(&scope);
	PG_RETURN_DATUM(definition);
}
