/*-------------------------------------------------------------------------
 * defcalls.c
 *	  Pipelines that call pipelines: may they, and does it ever end?
 *
 * Runs in the session that defines a pipeline.  Calls are by name and go to
 * the version that is current when the task runs, so the graph is that of
 * the current versions.  Two sessions that each close half of a cycle would
 * not see each other: definitions with calls therefore take turns, by the
 * lock of the one row of weir.installation, held until they commit.  It is
 * taken after the pipeline's own row; nobody else locks it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalogutil.h"
#include "definition.h"
#include "json.h"

/* A call in the definition at hand, or somewhere below it. */
typedef struct Call
{
	char	   *caller;			/* name; NULL: the definition at hand */
	char	   *callee;
} Call;

/* The call of a task, or of the task of a for_each; NULL if it is none. */
static const DefTask *
call_of(const Definition *def, int t)
{
	const DefTask *task = &def->tasks[t];

	if (task->item_task != NULL)
		task = task->item_task;
	return task->kind == &kind_pipeline ? task : NULL;
}

static const char *
callee_of(const DefTask *task)
{
	return json_string(cJSON_GetObjectItemCaseSensitive(task->spec, "pipeline"));
}

static char *
spec_path(const Definition *def, int t, const char *member)
{
	return definition_task_path(def, t, psprintf("%s.%s", def->tasks[t].item_task ? ".spec.task.spec" : ".spec", member));
}

/* Every call that can be reached, each once. */
static Call *
read_calls(const Definition *def, const char *name, int *n)
{
	static const Oid types[] = {TEXTARRAYOID, TEXTOID};
	Datum	   *names = palloc(sizeof(Datum) * Max(def->ntasks, 1));
	Datum		values[2];
	Call	   *calls;
	int			direct = 0;
	uint64		rows;
	MemoryContext caller = CurrentMemoryContext;

	for (int t = 0; t < def->ntasks; t++)
		if (call_of(def, t) != NULL)
			names[direct++] = catalog_text(callee_of(call_of(def, t)));
	values[0] = weir_array(TEXTOID, names, direct);
	values[1] = catalog_text(name);
	/* The pipeline at hand is not followed: its current version is about to be replaced. */
	rows = weir_spi("WITH RECURSIVE call (caller, callee) AS (SELECT NULL::text, c FROM unnest($1) c UNION "
					"SELECT p.name, t.spec->>'pipeline' FROM call JOIN weir.pipeline p ON p.name = call.callee AND p.name <> $2 "
					"JOIN weir.task t ON t.pipeline_id = p.pipeline_id AND t.version = p.current_version AND t.kind = 'pipeline') "
					"SELECT caller, callee FROM call",
					2, types, values, NULL);
	calls = palloc(sizeof(Call) * Max(rows, 1));
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *from = weir_spi_text(i, 1);

		calls[i].caller = from ? MemoryContextStrdup(caller, from) : NULL;
		calls[i].callee = MemoryContextStrdup(caller, weir_spi_text(i, 2));
	}
	*n = (int) rows;
	return calls;
}

/*
 * The way from the definition at hand back to name, "a -> b -> a", or NULL;
 * *first is the callee it begins with.  Calls come in the order they were
 * reached, so going back by the earliest call of each is a shortest way.
 */
static char *
find_cycle(const Call *calls, int n, const char *name, const char **first)
{
	StringInfoData path;
	const char *at = name;
	List	   *way = NIL;
	ListCell   *lc;

	for (int last = n; at != NULL;)
	{
		int			i = 0;

		while (i < last && strcmp(calls[i].callee, at) != 0)
			i++;
		if (i == last)
			return NULL;
		way = lcons(calls[i].callee, way);
		*first = calls[i].callee;
		at = calls[i].caller;
		last = i;
	}
	initStringInfo(&path);
	appendStringInfoString(&path, name);
	foreach(lc, way)
		appendStringInfo(&path, " -> %s", (const char *) lfirst(lc));
	return path.data;
}

static void
check_cycle(const Definition *def, const char *name)
{
	int			n;
	Call	   *calls = read_calls(def, name, &n);
	const char *first = NULL;
	char	   *path = find_cycle(calls, n, name, &first);

	if (path == NULL)
		return;
	for (int t = 0; t < def->ntasks; t++)
		if (call_of(def, t) != NULL && strcmp(callee_of(call_of(def, t)), first) == 0)
			definition_error(spec_path(def, t, "pipeline"),
							 psprintf("pipeline \"%s\" would call itself: %s", name, path),
							 "Take one of the calls out.");
}

/* Parameters that are given but not declared, or required but not given. */
static void
check_params(const Definition *def, int t, const char *callee, int64 pipeline_id, int version)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(pipeline_id), Int32GetDatum(version)};
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(call_of(def, t)->spec, "params");
	char	   *path = spec_path(def, t, "params");
	uint64		n = weir_spi("SELECT name, is_required FROM weir.parameter WHERE pipeline_id = $1 AND version = $2 ORDER BY name",
							 2, types, values, NULL);
	const char **names = palloc(sizeof(char *) * Max(n, 1));
	const cJSON *item;

	for (uint64 i = 0; i < n; i++)
	{
		names[i] = weir_spi_text(i, 1);
		if (weir_spi_bool(i, 2, NULL) && cJSON_GetObjectItemCaseSensitive(given, names[i]) == NULL)
			definition_error(path, psprintf("task \"%s\" does not give parameter \"%s\" of pipeline \"%s\"",
											def->tasks[t].name, names[i], callee),
							 "It is required.");
	}
	cJSON_ArrayForEach(item, given)
	{
		bool		declared = false;

		for (uint64 i = 0; i < n && !declared; i++)
			declared = strcmp(names[i], item->string) == 0;
		if (!declared)
			definition_error(definition_member(path, item->string),
							 psprintf("pipeline \"%s\" declares no parameter \"%s\"", callee, catalog_clip(item->string)),
							 catalog_did_you_mean(item->string, names, (int) n));
	}
}

/* Does it exist, and may the caller trigger it? */
static void
check_call(const Definition *def, int t, Oid caller)
{
	static const Oid types[] = {TEXTOID};
	const char *callee = callee_of(call_of(def, t));
	char	   *path = spec_path(def, t, "pipeline");
	Datum		values[1];
	bool		no_definition;
	int64		pipeline_id;
	int			version;
	Oid			owner;

	values[0] = catalog_text(callee);
	if (weir_spi("SELECT pipeline_id, current_version, owner FROM weir.pipeline WHERE name = $1", 1, types, values, NULL) == 0)
		definition_error(path, psprintf("pipeline \"%s\" of task \"%s\" does not exist", catalog_clip(callee), def->tasks[t].name),
						 "Create it first, with weir.create_pipeline.");
	pipeline_id = weir_spi_int64(0, 1, NULL);
	version = (int) weir_spi_int64(0, 2, &no_definition);
	owner = (Oid) weir_spi_int64(0, 3, NULL);
	if (!weir_is_operator(caller) && !has_privs_of_role(caller, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not trigger pipeline \"%s\"", GetUserNameFromId(caller, false), callee),
				 errdetail("JSON path: %s", path),
				 errhint("Grant the role weir_operator, or membership in the owner's role.")));
	if (no_definition)
		definition_error(path, psprintf("pipeline \"%s\" has no definition", callee),
						 "An outside orchestrator runs it; weir cannot.");
	check_params(def, t, callee, pipeline_id, version);
}

void
definition_check_calls(const Definition *def, const char *name, Oid caller)
{
	int			calls = 0;

	for (int t = 0; t < def->ntasks; t++)
		calls += call_of(def, t) != NULL;
	if (calls == 0)
		return;
	weir_spi("SELECT FROM weir.installation FOR UPDATE", 0, NULL, NULL, NULL);
	check_cycle(def, name);
	for (int t = 0; t < def->ntasks; t++)
		if (call_of(def, t) != NULL)
			check_call(def, t, caller);
}
