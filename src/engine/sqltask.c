/*-------------------------------------------------------------------------
 * sqltask.c
 *	  One attempt of a SQL task: the user's statements and the outcome in one
 *	  transaction, so each happens exactly once or not at all.
 *
 * Runs in SQL workers, which are connected as the pipeline's owner, and in
 * weir.conduct().  The user's SQL runs in a subtransaction: when it fails,
 * its effects go and the outcome says why.  Deferred constraints are checked
 * before the outcome is written, not at commit, for the same reason.  If the
 * process dies anywhere here, nothing has happened.
 *
 * The statement that lists the items of a for_each task runs here too; what
 * its last statement returns are the items, and they are expanded with the
 * outcome.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "compat.h"
#include "context.h"
#include "engine.h"
#include "foreach.h"
#include "json.h"
#include "kind.h"
#include "mem.h"
#include "outcome.h"
#include "retry.h"
#include "shmem.h"
#include "sqltask.h"
#include "sqltext.h"

#define OUTPUT_MAX_ROWS		20		/* rows kept as output of the task */
#define OUTPUT_MAX_BYTES	65536
#define ITEMS_MAX_BYTES		(64 * 1024 * 1024)

/* The statements with their bound values. */
typedef struct BoundSql
{
	const char *sql;
	int			nargs;
	Oid		   *types;
	Datum	   *values;
	char	   *nulls;
} BoundSql;

/* What the statements did. */
typedef struct SqlResult
{
	int64		rows_read;		/* of the last statement that returned rows, -1 none */
	int64		rows_written;	/* of all statements, -1 none wrote */
	int64		rows_affected;	/* of the last statement */
	char	   *rows;			/* JSON array text, or NULL */
	bool		lists_items;	/* rows are all rows, or it is an error */
} SqlResult;

bool
sqltask_take(int64 task_run_id, int attempt_no)
{
	Oid			types[3] = {INT8OID, INT4OID, INT4OID};
	Datum		values[3] = {Int64GetDatum(task_run_id), Int32GetDatum(attempt_no), Int32GetDatum(MyProcPid)};

	return weir_spi("UPDATE weir.attempt SET status = 'started', started_at = clock_timestamp(), worker_pid = $3 "
					"WHERE task_run_id = $1 AND attempt_no = $2 AND status = 'intended'",
					3, types, values, NULL) == 1;
}

/* References become parameters.  False with *error if one has no value. */
static bool
bind_sql(TaskContext *context, BoundSql *bound, char **error)
{
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(context->spec, "items");
	const char *text = json_string(cJSON_GetObjectItemCaseSensitive(items ? items : context->spec, "sql"));
	char	   *hint = NULL;
	SqlText    *compiled;

	if (text == NULL)
	{
		*error = "the spec has no \"sql\"";
		return false;
	}
	compiled = sqltext_compile(text, error, &hint);
	if (compiled == NULL)
		return false;
	bound->sql = compiled->sql;
	bound->nargs = compiled->nrefs;
	bound->types = palloc(sizeof(Oid) * (compiled->nrefs + 1));
	bound->values = palloc(sizeof(Datum) * (compiled->nrefs + 1));
	bound->nulls = palloc(compiled->nrefs + 1);
	for (int i = 0; i < compiled->nrefs; i++)
	{
		bool		isnull;

		*error = NULL;
		bound->values[i] = context_bind(context, compiled->refs[i], &bound->types[i], &isnull, error);
		if (*error != NULL)
			return false;
		bound->nulls[i] = isnull ? 'n' : ' ';
	}
	return true;
}

/* Rows of the last statement as a JSON array, bounded in rows and bytes. */
static char *
rows_as_json(MemoryContext keep)
{
	StringInfoData out;
	uint64		n = Min(SPI_processed, OUTPUT_MAX_ROWS);

	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	for (uint64 i = 0; i < n; i++)
	{
		HeapTupleHeader row = SPI_returntuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		char	   *json = TextDatumGetCString(DirectFunctionCall1(row_to_json, HeapTupleHeaderGetDatum(row)));

		if (out.len + strlen(json) > OUTPUT_MAX_BYTES)
			break;
		if (i > 0)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, json);
	}
	appendStringInfoChar(&out, ']');
	return MemoryContextStrdup(keep, out.data);
}

/* Rows of the last statement as a JSON array: all of them, they are items. */
static char *
rows_as_items(MemoryContext keep)
{
	StringInfoData out;

	if (SPI_processed > FOR_EACH_MAX_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the list has more than %d items, the most a for_each takes", FOR_EACH_MAX_ITEMS)));
	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTupleHeader row = SPI_returntuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		char	   *json = TextDatumGetCString(DirectFunctionCall1(row_to_json, HeapTupleHeaderGetDatum(row)));

		CHECK_FOR_INTERRUPTS();
		if (out.len + strlen(json) > ITEMS_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the items of the list are longer than %d MB in all", ITEMS_MAX_BYTES / 1024 / 1024),
					 errhint("Select only the columns an item needs.")));
		if (i > 0)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, json);
		pfree(json);
		pfree(row);
	}
	appendStringInfoChar(&out, ']');
	return MemoryContextStrdup(keep, out.data);
}

/* Run the statements one by one, as the current user. */
static void
run_statements(const BoundSql *bound, SqlResult *result, MemoryContext keep)
{
	List	   *parsed = pg_parse_query(bound->sql);
	ListCell   *cell;

	foreach(cell, parsed)
	{
		RawStmt    *raw = lfirst_node(RawStmt, cell);
		char	   *sql = raw->stmt_len > 0 ?
			pnstrdup(bound->sql + raw->stmt_location, raw->stmt_len) :
			pstrdup(bound->sql + raw->stmt_location);
		int			rc;

		/* One more item than there may be is enough to see that there are too many. */
		rc = SPI_execute_with_args(sql, bound->nargs, bound->types, bound->values, bound->nulls, false,
								   result->lists_items && IsA(raw->stmt, SelectStmt) ? FOR_EACH_MAX_ITEMS + 1 : 0);
		if (rc < 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("statement cannot be run in a SQL task: %s", SPI_result_code_string(rc))));
		result->rows_affected = SPI_processed;
		if (rc == SPI_OK_INSERT || rc == SPI_OK_UPDATE || rc == SPI_OK_DELETE || rc == SPI_OK_MERGE ||
			rc == SPI_OK_INSERT_RETURNING || rc == SPI_OK_UPDATE_RETURNING || rc == SPI_OK_DELETE_RETURNING)
			result->rows_written = Max(result->rows_written, 0) + SPI_processed;
		if (SPI_tuptable != NULL && SPI_tuptable->tupdesc != NULL && SPI_tuptable->tupdesc->natts > 0)
		{
			if (rc == SPI_OK_SELECT)
				result->rows_read = SPI_processed;
			result->rows = !result->lists_items ? rows_as_json(keep) :
				lnext(parsed, cell) == NULL ? rows_as_items(keep) : NULL;
		}
		else
			result->rows = NULL;
	}
	if (result->lists_items && result->rows == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the last statement returns no rows, so it lists no items"),
				 errhint("End with a SELECT, or with RETURNING.")));
	(void) SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
}

static cJSON *
result_as_output(const SqlResult *result)
{
	cJSON	   *output = cJSON_CreateObject();
	char	   *error = NULL;

	cJSON_AddItemToObject(output, "rowsAffected", json_from_int64(result->rows_affected));
	if (result->rows_written >= 0)
		cJSON_AddItemToObject(output, "rowsWritten", json_from_int64(result->rows_written));
	if (result->rows != NULL)
	{
		cJSON	   *rows = json_parse(result->rows, strlen(result->rows), OUTPUT_MAX_BYTES + 2, &error);

		if (rows != NULL)
			cJSON_AddItemToObject(output, "rows", rows);
	}
	return output;
}

/* An error of the user's SQL becomes the outcome. */
static void
outcome_from_error(TaskOutcome *outcome, const ErrorData *edata, SqlCancelCause cause)
{
	int			why = SQL_CANCEL_NONE;

	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED && cause != NULL)
		why = cause();
	outcome->status = why == SQL_CANCEL_ASKED ? ATTEMPT_CANCELLED :
		why == SQL_CANCEL_TIMEOUT ? ATTEMPT_TIMED_OUT : ATTEMPT_FAILED;
	outcome->sqlstate = pstrdup(unpack_sql_state(edata->sqlerrcode));
	outcome->error_code = outcome->sqlstate;
	outcome->error_message = why == SQL_CANCEL_TIMEOUT ? "attempt timeout exceeded" : edata->message;
	outcome->error_detail = edata->detail && edata->hint ? psprintf("%s\n%s", edata->detail, edata->hint) :
		edata->detail ? edata->detail : edata->hint;
	outcome->is_retryable = why == SQL_CANCEL_TIMEOUT || why == SQL_CANCEL_NONE;
	outcome->is_user_error = !retry_sqlstate_is_transient(outcome->sqlstate) && why != SQL_CANCEL_TIMEOUT;
}

/* Run the user's SQL in a subtransaction as its owner; fills in the outcome. */
static void
run_as_owner(TaskContext *context, const BoundSql *bound, bool restricted, SqlCancelCause cause, TaskOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	SqlResult	result = {-1, -1, 0, NULL, strcmp(context->kind, kind_for_each.name) == 0};
	Oid			save_userid;
	int			save_sec_context;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);

	PG_TRY();
	{
		int			guc_level = NewGUCNestLevel();
		int			flags = save_sec_context;
		bool		pushed;

		/*
		 * In a worker the session belongs to the owner: nothing to protect.
		 * Elsewhere SET ROLE is barred, and everything that outlives the
		 * statement.
		 */
		if (save_userid != context->owner)
			flags |= SECURITY_LOCAL_USERID_CHANGE | (restricted ? SECURITY_RESTRICTED_OPERATION : 0);
		SetUserIdAndSecContext(context->owner, flags);
		(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		/* A worker has no portal around it: its statements need a snapshot to stand on. */
		pushed = !ActiveSnapshotSet();
		if (pushed)
			PushActiveSnapshot(GetTransactionSnapshot());
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		run_statements(bound, &result, caller);
		SPI_finish();
		if (pushed)
			PopActiveSnapshot();
		/* A worker is cleaned between tasks; a client's session must not keep what a task sets. */
		AtEOXact_GUC(!restricted, guc_level);
		SetUserIdAndSecContext(save_userid, save_sec_context);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;

		outcome->status = ATTEMPT_SUCCEEDED;
		if (result.lists_items)
			outcome->items = result.rows;
		else
			outcome->output = result_as_output(&result);
		outcome->rows_read = result.lists_items ? -1 : result.rows_read;
		outcome->rows_written = result.rows_written;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;
		outcome_from_error(outcome, edata, cause);
	}
	PG_END_TRY();
}

bool
sqltask_execute(int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause)
{
	MemoryContext caller = CurrentMemoryContext;
	WeirScope	scope;
	TaskContext *context;
	BoundSql	bound = {0};
	TaskOutcome outcome = {0};
	char	   *error = NULL;
	bool		is_listed;
	bool		ready;
	bool		written;

	outcome.task_run_id = task_run_id;
	outcome.attempt_no = attempt_no;
	outcome.rows_read = outcome.rows_written = -1;

	/* What is read must outlive the SPI connection. */
	weir_enter(&scope);
	MemoryContextSwitchTo(caller);
	context = context_read(task_run_id, attempt_no);
	if (context == NULL)
	{
		weir_leave(&scope);
		return false;
	}
	is_listed = strcmp(context->kind, kind_for_each.name) == 0 && foreach_has_items(task_run_id);
	ready = bind_sql(context, &bound, &error);
	weir_leave(&scope);
	MemoryContextSwitchTo(caller);

	if (is_listed)
	{
		/* It is repaired: the items are those that were listed then. */
		outcome.status = ATTEMPT_SUCCEEDED;
		outcome.items = "[]";
	}
	else if (ready)
		run_as_owner(context, &bound, restricted, cause, &outcome);
	else
	{
		outcome.status = ATTEMPT_FAILED;
		outcome.error_code = "invalid_reference";
		outcome.error_message = error;
		outcome.is_user_error = true;
	}

	/* A cancel that comes now comes too late: the outcome is decided. */
	HOLD_CANCEL_INTERRUPTS();
	weir_enter(&scope);
	written = outcome_lock_run(context->run_id, true) && outcome_apply(&outcome);
	engine_wake_at_commit(ENGINE_WAKE_TASK);
	weir_leave(&scope);
	MemoryContextSwitchTo(caller);
	RESUME_CANCEL_INTERRUPTS();
	return written;
}
