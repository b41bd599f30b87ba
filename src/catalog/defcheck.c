/*-------------------------------------------------------------------------
 * defcheck.c
 *	  What a definition says against what there is: specs, connections,
 *	  references, SQL.
 *
 * Runs in the session that defines a pipeline, with SPI connected as the
 * extension owner.  Every connection a task names stays locked FOR KEY SHARE
 * until the transaction ends.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "catalogutil.h"
#include "compat.h"
#include "connection.h"
#include "definition.h"
#include "definition_int.h"
#include "json.h"
#include "pollpace.h"
#include "pool.h"
#include "reference.h"
#include "sqltext.h"

typedef struct KnownConnection
{
	const char *name;
	const char *kind;
	RetryPolicy retry;			/* what its tasks inherit */
	PollBounds	pauses;			/* its option poll */
} KnownConnection;

/* One task while its strings are walked. */
typedef struct CheckState
{
	Definition *def;
	Oid			owner;			/* of the pipeline */
	int			task;
	DefTask    *at;			/* the task, or what a for_each does with each item */
	bool		in_item;
	const char **task_names;
	const char **param_names;
	const char **upstream_names;	/* room for all tasks */
	bool	   *is_ancestor;
	RefScope	scope;
	bool		scope_ready;	/* ancestors are computed when first needed */
	List	   *connections;	/* of KnownConnection */
	MemoryContext outer;		/* lives as long as the check */
} CheckState;

/* A place in the task at hand; sub starts with "." or is empty. */
static char *
place(const CheckState *state, const char *sub)
{
	return definition_task_path(state->def, state->task,
								state->in_item ? psprintf(".spec.task%s", sub) : sub);
}

/* NULL if there is no such connection. */
static const KnownConnection *
find_connection(CheckState *state, const char *name)
{
	ListCell   *lc;
	KnownConnection *known;
	MemoryContext old;
	const cJSON *options;
	const char *wrong;
	char	   *kind;

	foreach(lc, state->connections)
	{
		known = lfirst(lc);
		if (strcmp(known->name, name) == 0)
			return known;
	}
	kind = connection_lock_kind(name);
	if (kind == NULL)
		return NULL;
	old = MemoryContextSwitchTo(state->outer);
	known = palloc(sizeof(KnownConnection));
	known->name = name;
	known->kind = pstrdup(kind);
	known->retry = retry_policy_default();
	options = connection_read(name)->options;
	(void) poll_bounds_read(cJSON_GetObjectItemCaseSensitive(options, "poll"), &known->pauses, &wrong);
	def_read_retry(options, psprintf("$ (options of connection %s)", name), &known->retry);
	state->connections = lappend(state->connections, known);
	MemoryContextSwitchTo(old);
	return known;
}

static void
check_connection(CheckState *state)
{
	DefTask    *task = state->at;
	const char *needed = task->kind->connection_kind;
	const char *also = task->kind->also_connection_kind;
	char	   *path = place(state, ".connection");
	const KnownConnection *known;

	if (needed == NULL)
	{
		if (task->connection != NULL)
			definition_error(path,
							 psprintf("task \"%s\" of kind %s takes no connection", task->name, task->kind->name),
							 "Remove \"connection\".");
		return;
	}
	if (task->connection == NULL)
		definition_error(place(state, ""),
						 psprintf("task \"%s\" of kind %s needs a connection", task->name, task->kind->name),
						 psprintf("Add \"connection\" with the name of a connection of kind %s%s%s.", needed, also ? " or " : "", also ? also : ""));
	known = find_connection(state, task->connection);
	if (known == NULL)
		definition_error(path,
						 psprintf("connection \"%s\" of task \"%s\" does not exist", catalog_clip(task->connection), task->name),
						 "Create it with weir.create_connection.");
	if (strcmp(known->kind, needed) != 0 && (also == NULL || strcmp(known->kind, also) != 0))
		definition_error(path,
						 psprintf("connection \"%s\" of task \"%s\" is of kind %s", task->connection, task->name, known->kind),
						 psprintf("A task of kind %s needs a connection of kind %s%s%s.", task->kind->name, needed, also ? " or " : "", also ? also : ""));
	if (task->kind->longest_pause_ms > 0 && known->pauses.least_ms > task->kind->longest_pause_ms)
		definition_error(path,
						 psprintf("connection \"%s\" asks too seldom for task \"%s\" of kind %s", task->connection, task->name, task->kind->name),
						 psprintf("Its work may be dropped by the service when nobody asks for it. Let min of the connection's option poll be at most %d seconds, or give the task another connection.",
								  (int) (task->kind->longest_pause_ms / 1000)));
	retry_policy_inherit(&task->retry, &known->retry);
	def_check_retry(&task->retry, place(state, ".retry"));
}

/* The second connection, which the spec names.  The spec was validated. */
static void
check_other_connection(CheckState *state)
{
	const DefTask *task = state->at;
	const char *name = task->kind->other_connection ? task->kind->other_connection(task->spec) : NULL;
	char	   *path = place(state, ".spec.request.connection");
	const KnownConnection *known;

	if (name == NULL)
		return;
	known = find_connection(state, name);
	if (known == NULL)
		definition_error(path,
						 psprintf("connection \"%s\" of task \"%s\" does not exist", catalog_clip(name), task->name),
						 "Create it with weir.create_connection.");
	if (strcmp(known->kind, task->kind->other_connection_kind) != 0)
		definition_error(path,
						 psprintf("connection \"%s\" of task \"%s\" is of kind %s", name, task->name, known->kind),
						 psprintf("The request needs a connection of kind %s.", task->kind->other_connection_kind));
}

/* Read anew for each task: a look at one row, and only for tasks with a pool. */
static void
check_pool(CheckState *state)
{
	const DefTask *task = &state->def->tasks[state->task];
	int			slots;

	if (task->pool == NULL)
		return;
	slots = pool_lock_slots(task->pool);
	if (slots < 0)
		definition_error(definition_task_path(state->def, state->task, ".pool"),
						 psprintf("pool \"%s\" of task \"%s\" does not exist", catalog_clip(task->pool), task->name),
						 "Create it with weir.create_pool.");
	if (task->pool_slots > Max(slots, 1))
		definition_error(definition_task_path(state->def, state->task, ".pool_slots"),
						 psprintf("task \"%s\" needs %d slots of pool \"%s\", which has %d",
								  task->name, task->pool_slots, task->pool, slots),
						 "Lower \"pool_slots\", or raise the slots with weir.alter_pool.");
}

/* What the task at hand may refer to. */
static const RefScope *
task_scope(CheckState *state)
{
	const Definition *def = state->def;
	int			n = 0;

	state->scope.in_item = state->in_item;
	if (state->scope_ready)
		return &state->scope;
	dag_ancestors(def->ntasks, def->edges, def->nedges, state->task, state->is_ancestor);
	for (int t = 0; t < def->ntasks; t++)
		if (state->is_ancestor[t])
			state->upstream_names[n++] = state->task_names[t];
	state->scope.params = state->param_names;
	state->scope.nparams = def->nparams;
	state->scope.upstream = state->upstream_names;
	state->scope.nupstream = n;
	state->scope.tasks = state->task_names;
	state->scope.ntasks = def->ntasks;
	state->scope_ready = true;
	return &state->scope;
}

static const char *
reference_hint(const char *error)
{
	if (strstr(error, "names a task this one does not depend on") != NULL)
		return "Add that task to \"depends_on\".";
	if (strstr(error, "undeclared parameter") != NULL)
		return "Declare it under \"parameters\".";
	if (strstr(error, "expected a name") != NULL)
		return "A member of a list is written [0], the first, as in {{tasks.NAME.output.rows[0].id}}.";
	return NULL;
}

static bool
check_piece(const RefPiece *piece, void *arg, char **error)
{
	if (piece->path != NULL)
		*error = ref_check(piece->path, task_scope(arg));
	return *error == NULL;
}

/* A syntax error of the parser, said again with its place in the definition.  For PG_CATCH. */
noreturn_compat static void
syntax_error(MemoryContext context, const char *path, const char *name, const char *sql)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
		PG_RE_THROW();
	FlushErrorState();
	ereport(ERROR,
			(errcode(edata->sqlerrcode),
			 errmsg("SQL of task \"%s\": %s", name, edata->message),
			 errdetail("JSON path: %s", path),
			 edata->hint ? errhint("%s", edata->hint) : 0,
			 internalerrquery(sql),
			 internalerrposition(edata->cursorpos)));
	pg_unreachable();
}

/*
 * What PostgreSQL would refuse inside of a transaction, or in a background
 * process, each time the task runs.  Not all of it: some depends on options.
 */
static bool
needs_no_transaction(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_VacuumStmt:
			return ((const VacuumStmt *) statement)->is_vacuumcmd;	/* ANALYZE may */
		case T_IndexStmt:
			return ((const IndexStmt *) statement)->concurrent;
		case T_DropStmt:
			return ((const DropStmt *) statement)->concurrent;
		case T_AlterSystemStmt:
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_CreateTableSpaceStmt:
		case T_DropTableSpaceStmt:
		case T_ListenStmt:
			return true;
		default:
			return false;
	}
}

/*
 * The raw parser knows syntax only, so it can run here, under another user
 * than the statement later will.
 */
static void
check_sql_syntax(CheckState *state, const char *path, const char *sql)
{
	const char *name = state->at->name;
	MemoryContext context = CurrentMemoryContext;
	List	   *volatile statements = NIL;
	ListCell   *lc;

	PG_TRY();
	{
		statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		syntax_error(context, path, name, sql);
	}
	PG_END_TRY();

	if (statements == NIL)
		definition_error(path, psprintf("SQL of task \"%s\" contains no statement", name), NULL);
	def_check_statements(state->at, path, statements);
	if (state->at->kind == &kind_wait &&
		(list_length(statements) != 1 || !IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt)))
		definition_error(path, psprintf("the condition of task \"%s\" must be one query", name),
						 "Write a SELECT that returns one row with one boolean.");
	foreach(lc, statements)
	{
		Node	   *statement = lfirst_node(RawStmt, lc)->stmt;

		if (IsA(statement, TransactionStmt))
			definition_error(path, psprintf("SQL of task \"%s\" contains transaction control", name),
							 "A task's statements and its outcome are one transaction. Split the task if parts must commit on their own, "
							 "or CALL a procedure that commits, with \"transaction\": \"own\" in the spec.");
		if (needs_no_transaction(statement))
			definition_error(path, psprintf("SQL of task \"%s\" contains %s%s", name, GetCommandTagName(CreateCommandTag(statement)),
											IsA(statement, IndexStmt) || IsA(statement, DropStmt) ? " CONCURRENTLY" : ""),
							 "A task's statements are one transaction in a background process, where PostgreSQL refuses that. Run it in a session.");
		if (IsA(statement, CopyStmt) && ((CopyStmt *) statement)->filename == NULL)
			definition_error(path, psprintf("SQL of task \"%s\" copies from or to a client", name),
							 "There is no client. Use INSERT ... SELECT, or COPY with a file.");
	}
}

static void
check_sql(CheckState *state, const char *path, const char *text)
{
	char	   *error = NULL;
	char	   *hint = NULL;
	SqlText    *sql = sqltext_compile(text, &error, &hint);

	if (sql == NULL)
		definition_error(path, psprintf("SQL of task \"%s\": %s", state->at->name, error), hint);
	if (sql->nrefs > 0)
		error = sqltext_check(sql, task_scope(state));
	if (error != NULL)
		definition_error(path, error, reference_hint(error));
	check_sql_syntax(state, path, sql->sql);
	sqltext_free(sql);
}

/* Every string below item; sub is its path inside the task, ".spec...". */
static void
check_strings(CheckState *state, const cJSON *item, const char *sub)
{
	const cJSON *child;
	char	   *error = NULL;
	int			i = 0;

	check_stack_depth();
	if (cJSON_IsString(item))
	{
		if (strstr(item->valuestring, "{{") != NULL &&
			!ref_scan(item->valuestring, check_piece, state, &error))
			definition_error(place(state, sub), error, reference_hint(error));
		return;
	}
	if (!cJSON_IsObject(item) && !cJSON_IsArray(item))
		return;
	cJSON_ArrayForEach(child, item)
		check_strings(state, child,
					  cJSON_IsObject(item) ? definition_member(sub, child->string) : psprintf("%s[%d]", sub, i++));
}

/* A member of the spec; sub is its path inside the task. */
static void
check_member(CheckState *state, const cJSON *item, char *sub)
{
	const cJSON *sql = NULL;

	if ((state->at->kind->uses_worker || state->at->kind == &kind_wait) && strcmp(item->string, "sql") == 0)
		sql = item;
	else if (state->at->kind == &kind_for_each && strcmp(item->string, "items") == 0)
	{
		sql = cJSON_GetObjectItemCaseSensitive(item, "sql");
		if (sql != NULL)
			sub = definition_member(sub, "sql");
	}
	if (cJSON_IsString(sql))
		check_sql(state, place(state, sub), sql->valuestring);
	else
		check_strings(state, item, sub);
}

static void
check_spec(CheckState *state)
{
	const DefTask *task = state->at;
	KindProblem problem = {0};
	const cJSON *item;

	check_connection(state);
	check_pool(state);
	task->kind->validate(task->spec, &problem);
	if (problem.message != NULL)
	{
		const char *path = problem.path && problem.path[0] == '$' ? problem.path + 1 : "";

		definition_error(place(state, psprintf(".spec%s", path)),
						 psprintf("task \"%s\": %s", task->name, problem.message), problem.hint);
	}
	check_other_connection(state);
	if (task->kind == &kind_sql)
		def_check_sql_spec(task, place(state, ".spec"), state->owner);
	if (task->kind == &kind_redis_publish)
		def_check_publish_spec(task, place(state, ".spec"));
	if (task->kind == &kind_wait)
		definition_check_wait(task->spec, place(state, ".spec"));
	def_check_request(task, place(state, ".spec"), state->owner);
	cJSON_ArrayForEach(item, task->spec)
		if (task->item_task == NULL || strcmp(item->string, "task") != 0)
			check_member(state, item, definition_member(".spec", item->string));
}

static void
check_task(CheckState *state)
{
	state->scope_ready = false;
	state->in_item = false;
	state->at = &state->def->tasks[state->task];
	check_spec(state);
	if (state->at->item_task != NULL)
	{
		state->in_item = true;
		state->at = state->at->item_task;
		check_spec(state);
	}
}

void
definition_check(Definition *def, Oid owner)
{
	CheckState	state = {0};
	MemoryContext context;
	MemoryContext old;

	/* SQL is lexed and later run with this setting; weir_leave() restores it. */
	(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);

	state.def = def;
	state.owner = owner;
	state.outer = CurrentMemoryContext;
	state.task_names = palloc(sizeof(char *) * def->ntasks);
	state.upstream_names = palloc(sizeof(char *) * def->ntasks);
	state.is_ancestor = palloc(sizeof(bool) * def->ntasks);
	state.param_names = palloc(sizeof(char *) * Max(def->nparams, 1));
	for (int t = 0; t < def->ntasks; t++)
		state.task_names[t] = def->tasks[t].name;
	for (int p = 0; p < def->nparams; p++)
		state.param_names[p] = def->params[p].name;

	/* Paths and parse trees of 10,000 tasks would add up. */
	context = AllocSetContextCreate(CurrentMemoryContext, "weir definition check", ALLOCSET_DEFAULT_SIZES);
	for (state.task = 0; state.task < def->ntasks; state.task++)
	{
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		check_task(&state);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}
