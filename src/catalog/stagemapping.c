/*-------------------------------------------------------------------------
 * stagemapping.c
 *	  What a stage of the job format does: set and drop mappings.
 *
 * Runs in the session that calls the SQL functions.  A mapping is used when a
 * pipeline is created; changing it leaves existing pipelines alone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"

#include "access.h"
#include "catalogutil.h"
#include "connection.h"
#include "definition.h"
#include "definition_int.h"
#include "json.h"
#include "kind.h"
#include "reference.h"
#include "sqltext.h"

PG_FUNCTION_INFO_V1(weir_set_stage_mapping);
PG_FUNCTION_INFO_V1(weir_drop_stage_mapping);

#define MAX_MAPPING_TEXT	1000
#define MAX_TEMPLATE		(256 * 1024)

static void
mapping_error(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 hint ? errhint("%s", hint) : 0));
}

static void
check_mapping(const char *kind_name, const char *connection, const char *phase, const cJSON *spec)
{
	const TaskKind *kind = kind_find(kind_name);
	KindProblem problem = {0};
	char	   *connection_kind;

	if (kind == NULL)
		mapping_error(psprintf("unknown kind \"%s\"", catalog_clip(kind_name)), psprintf("Kinds are %s.", kind_names()));
	if (strcmp(phase, "land") != 0 && strcmp(phase, "transform") != 0 && strcmp(phase, "publish") != 0)
		mapping_error(psprintf("unknown phase \"%s\"", catalog_clip(phase)), "Phases are land, transform and publish.");
	if (kind->connection_kind == NULL && connection != NULL)
		mapping_error(psprintf("a task of kind %s takes no connection", kind->name), "Give null.");
	if (kind->connection_kind != NULL && connection == NULL)
		mapping_error(psprintf("a task of kind %s needs a connection", kind->name),
					  psprintf("Give the name of a connection of kind %s.", kind->connection_kind));
	if (connection != NULL)
	{
		connection_kind = connection_lock_kind(connection);
		if (connection_kind == NULL)
			mapping_error(psprintf("connection \"%s\" does not exist", catalog_clip(connection)),
						  "Create it with weir.create_connection.");
		if (strcmp(connection_kind, kind->connection_kind) != 0)
			mapping_error(psprintf("connection \"%s\" is of kind %s", connection, connection_kind),
						  psprintf("A task of kind %s needs a connection of kind %s.", kind->name, kind->connection_kind));
	}
	if (!cJSON_IsObject(spec))
		mapping_error("spec must be a JSON object", NULL);
	kind->validate(spec, &problem);
	if (problem.message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid spec: %s", problem.message),
				 problem.path ? errdetail("JSON path: %s", problem.path) : 0,
				 problem.hint ? errhint("%s", problem.hint) : 0));
}

/* Templates must at least read; what they refer to is known only with a stage. */
static bool
accept_piece(const RefPiece *piece, void *arg, char **error)
{
	if (piece->path != NULL && ref_path_is(piece->path, 0, "stage") && piece->path->nparts < 2)
		*error = pstrdup("reference \"stage\" lacks a key");
	return *error == NULL;
}

static void
check_template(const char *kind, const cJSON *spec)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, spec)
	{
		char	   *error = NULL;
		char	   *hint = NULL;

		if ((strcmp(kind, "sql") == 0 || strcmp(kind, "redis_publish") == 0) && strcmp(item->string, "sql") == 0 && cJSON_IsString(item))
			(void) sqltext_compile(item->valuestring, &error, &hint);
		else
			(void) ref_scan_json(item, accept_piece, NULL, &error);
		if (error != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid spec: %s", error),
					 errdetail("JSON path: %s", definition_member("$", item->string)),
					 hint ? errhint("%s", hint) : 0));
	}
}

/*
 * Checked as a task's are, but that a pool must exist, which is asked when a
 * pipeline is made: mappings may come first.
 */
static void
check_settings(const TaskKind *kind, const cJSON *settings)
{
	static const char *const keys[] = {"pool", "pool_slots", "priority", "retry", "timeout", "task_timeout", "on_uncertain"};
	RetryPolicy retry = retry_policy_default();

	if (!cJSON_IsObject(settings))
		mapping_error("settings must be a JSON object", NULL);
	definition_check_keys(settings, "$", keys, lengthof(keys));
	def_read_retry(settings, "$", &retry);
	(void) def_duration(settings, "$", "timeout", 1, 0);
	(void) def_duration(settings, "$", "task_timeout", 1, 0);
	(void) def_integer(settings, "$", "priority", -DEF_MAX_PRIORITY, DEF_MAX_PRIORITY, 0);
	(void) def_read_on_uncertain(settings, "$", kind);
	(void) def_check_pool(settings, "$", kind, psprintf("a stage of kind %s", kind->name));
}

/* A text argument that may be null */
static Datum
nullable(const char *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? catalog_text(value) : (Datum) 0;
}

/* set_stage_mapping(stage_type, source, destination, kind, connection, phase, spec, settings) */
Datum
weir_set_stage_mapping(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID};
	WeirScope	scope;
	char	   *stage_type = catalog_arg_required(fcinfo, 0, "stage_type", MAX_MAPPING_TEXT);
	char	   *source = PG_ARGISNULL(1) ? NULL : catalog_arg_required(fcinfo, 1, "source", MAX_MAPPING_TEXT);
	char	   *destination = PG_ARGISNULL(2) ? NULL : catalog_arg_required(fcinfo, 2, "destination", MAX_MAPPING_TEXT);
	char	   *kind = catalog_arg_required(fcinfo, 3, "kind", MAX_MAPPING_TEXT);
	char	   *connection = catalog_arg(fcinfo, 4);
	char	   *phase = PG_ARGISNULL(5) ? pstrdup("transform") : catalog_arg(fcinfo, 5);
	cJSON	   *spec = catalog_arg_json(fcinfo, 6, "spec", MAX_TEMPLATE);
	cJSON	   *settings = catalog_arg_json(fcinfo, 7, "settings", MAX_TEMPLATE);
	Datum		values[8];
	char		nulls[] = "        ";

	if (stage_type[0] == '\0')
		mapping_error("stage_type must not be empty", NULL);
	if (spec == NULL)
		spec = cJSON_CreateObject();
	if (settings == NULL)
		settings = cJSON_CreateObject();
	weir_enter(&scope);
	weir_require_admin(scope.caller, "set stage mappings");
	check_mapping(kind, connection, phase, spec);
	check_template(kind, spec);
	check_settings(kind_find(kind), settings);

	values[0] = catalog_text(stage_type);
	values[1] = nullable(source, &nulls[1]);
	values[2] = nullable(destination, &nulls[2]);
	values[3] = catalog_text(kind);
	values[4] = nullable(connection, &nulls[4]);
	values[5] = catalog_text(phase);
	values[6] = catalog_jsonb(json_text(spec));
	values[7] = catalog_jsonb(json_text(settings));
	weir_spi("INSERT INTO weir.stage_mapping (stage_type, source, destination, kind, connection_name, phase, spec, settings) "
			 "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (stage_type, source, destination) DO UPDATE "
			 "SET kind = excluded.kind, connection_name = excluded.connection_name, "
			 "phase = excluded.phase, spec = excluded.spec, settings = excluded.settings", 8, types, values, nulls);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* drop_stage_mapping(stage_type, source, destination) */
Datum
weir_drop_stage_mapping(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, TEXTOID, TEXTOID};
	WeirScope	scope;
	char	   *stage_type = catalog_arg_required(fcinfo, 0, "stage_type", MAX_MAPPING_TEXT);
	Datum		values[3];
	char		nulls[] = "   ";

	weir_enter(&scope);
	weir_require_admin(scope.caller, "drop stage mappings");
	values[0] = catalog_text(stage_type);
	values[1] = nullable(catalog_arg(fcinfo, 1), &nulls[1]);
	values[2] = nullable(catalog_arg(fcinfo, 2), &nulls[2]);
	if (weir_spi("DELETE FROM weir.stage_mapping WHERE stage_type = $1 AND source IS NOT DISTINCT FROM $2 "
				 "AND destination IS NOT DISTINCT FROM $3", 3, types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no such stage mapping"),
				 errhint("Give stage_type, source and destination exactly as they were set; null matches only null.")));
	weir_leave(&scope);
	PG_RETURN_VOID();
}
