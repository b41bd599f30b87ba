/*-------------------------------------------------------------------------
 * defsql.c
 *	  What the spec of a SQL task says of how its statements run, against
 *	  what there is: roles, settings, the statements themselves.
 *
 * Runs in the session that defines a pipeline.  Everything is looked at again
 * when the task runs: roles and rights may have changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "catalogutil.h"
#include "definition_int.h"
#include "json.h"

/* The owner must be able to become the role. */
static void
check_role(const DefTask *task, const char *path, Oid owner)
{
	const char *name = json_string(def_member(task->spec, "role"));
	Oid			role;

	if (name == NULL)
		return;
	path = definition_member(path, "role");
	role = get_role_oid(name, true);
	if (!OidIsValid(role))
		definition_error(path, psprintf("task \"%s\": role \"%s\" does not exist", task->name, catalog_clip(name)), NULL);
	if (!member_can_set_role_compat(owner, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("task \"%s\": the pipeline's owner \"%s\" cannot become role \"%s\"",
						task->name, GetUserNameFromId(owner, false), name),
				 errdetail("JSON path: %s", path),
				 errhint("Grant membership in that role to the owner, with the SET option.")));
}

static void
setting_context(void *arg)
{
	errcontext("JSON path: %s", (const char *) arg);
}

/* Is there such a setting, and does it take the value?  What the role may set, it is asked when the task runs. */
static void
check_setting(const DefTask *task, char *path, const cJSON *item)
{
	ErrorContextCallback callback;
	bool		is_custom = strchr(item->string, '.') != NULL;

	if (!is_custom && GetConfigOption(item->string, true, false) == NULL)
		definition_error(path, psprintf("task \"%s\": there is no setting \"%s\"", task->name, catalog_clip(item->string)), NULL);
	if (is_custom || (cJSON_IsString(item) && strstr(item->valuestring, "{{") != NULL))
		return;
	callback.callback = setting_context;
	callback.arg = path;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	(void) set_config_option(item->string, cJSON_IsString(item) ? item->valuestring : json_text(item),
							 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, false, ERROR, false);
	error_context_stack = callback.previous;
}

void
def_check_sql_spec(const DefTask *task, const char *path, Oid owner)
{
	const cJSON *timeout = def_member(task->spec, "statement_timeout");
	char	   *set_path = definition_member(path, "set");
	const cJSON *item;

	check_role(task, path, owner);
	if (timeout != NULL && !(cJSON_IsString(timeout) && strstr(timeout->valuestring, "{{") != NULL))
		(void) def_duration(task->spec, path, "statement_timeout", 1, 0);
	cJSON_ArrayForEach(item, def_member(task->spec, "set"))
		check_setting(task, definition_member(set_path, item->string), item);
}

void
def_check_publish_spec(const DefTask *task, const char *path)
{
	static const char *const durations[] = {"ttl", "keep_old", "statement_timeout"};

	for (int i = 0; i < lengthof(durations); i++)
	{
		const cJSON *item = def_member(task->spec, durations[i]);

		if (item != NULL && !(cJSON_IsString(item) && strstr(item->valuestring, "{{") != NULL))
			(void) def_duration(task->spec, path, durations[i], strcmp(durations[i], "keep_old") == 0 ? 0 : 1, 0);
	}
}

void
def_check_statements(const DefTask *task, const char *path, List *statements)
{
	const char *transaction = json_string(def_member(task->spec, "transaction"));

	if (task->kind == &kind_redis_publish &&
		(list_length(statements) != 1 || !IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt)))
		definition_error(path, psprintf("SQL of task \"%s\" must be one query", task->name),
						 "Write a SELECT; each of its rows is published.");
	if (transaction == NULL || strcmp(transaction, "own") != 0)
		return;
	if (list_length(statements) != 1 || !IsA(linitial_node(RawStmt, statements)->stmt, CallStmt))
		definition_error(path, psprintf("SQL of task \"%s\" must be a single CALL because its \"transaction\" is \"own\"", task->name),
						 "Only a procedure can commit by itself. Leave \"transaction\" out to run statements together with the outcome.");
}
