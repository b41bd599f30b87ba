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
 * A CALL of a procedure that commits by itself is the exception: sqlcall.c.
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
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "engine.h"
#include "foreach.h"
#include "kind.h"
#include "redispublish.h"
#include "retryon.h"
#include "shmem.h"
#include "sqltask_int.h"

#define ERROR_CONTEXT_MAX_BYTES	2000

bool
sqltask_take(int64 task_run_id, int attempt_no)
{
	Oid			types[3] = {INT8OID, INT4OID, INT4OID};
	Datum		values[3] = {Int64GetDatum(task_run_id), Int32GetDatum(attempt_no), Int32GetDatum(MyProcPid)};

	return weir_spi("UPDATE weir.attempt SET status = 'started', started_at = clock_timestamp(), worker_pid = $3 "
					"WHERE task_run_id = $1 AND attempt_no = $2 AND status = 'intended'",
					3, types, values, NULL) == 1;
}

/*
 * Where in the functions it happened.  The outermost statement is the task's
 * own, which is in the definition.
 */
static void
append_context(StringInfo detail, const char *context)
{
	static const char own[] = "SQL statement \"";
	const char *end = NULL;
	int			len;

	for (const char *line = context; line != NULL; line = strchr(line, '\n'))
	{
		line += *line == '\n';
		if (strncmp(line, own, strlen(own)) == 0)
			end = line;
	}
	len = end != NULL ? (int) (end - context) : (int) strlen(context);
	len = pg_mbcliplen(context, len, ERROR_CONTEXT_MAX_BYTES);
	while (len > 0 && context[len - 1] == '\n')
		len--;
	if (len > 0)
		appendStringInfo(detail, "%.*s\n", len, context);
}

void
sqltask_outcome_of_error(TaskOutcome *outcome, const ErrorData *edata, SqlCancelCause cause)
{
	int			why = SQL_CANCEL_NONE;
	const char *notices = sqlnotice_text();
	StringInfoData detail;

	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED && cause != NULL)
		why = cause();
	outcome->sqlstate = pstrdup(unpack_sql_state(edata->sqlerrcode));
	outcome->error_code = outcome->sqlstate;
	outcome->error_message = edata->message;
	outcome->status = ATTEMPT_FAILED;
	outcome->is_retryable = why != SQL_CANCEL_ASKED;
	outcome->is_user_error = why == SQL_CANCEL_NONE && retry_sqlstate_is_user_error(outcome->sqlstate);
	if (sql_cancel_is_timeout(why))
	{
		outcome->status = ATTEMPT_TIMED_OUT;
		outcome->error_code = "timed_out";
		outcome->error_message = sql_cancel_timeout_text(why);
	}
	else if (why == SQL_CANCEL_ASKED)
	{
		outcome->status = ATTEMPT_CANCELLED;
		outcome->error_code = "cancelled";
		outcome->error_message = "cancelled while it ran";
	}

	initStringInfo(&detail);
	if (edata->detail)
		appendStringInfo(&detail, "%s\n", edata->detail);
	if (edata->hint)
		appendStringInfo(&detail, "%s\n", edata->hint);
	if (edata->sqlerrcode == ERRCODE_INVALID_TRANSACTION_TERMINATION)
		appendStringInfoString(&detail, "A procedure that commits needs \"transaction\": \"own\" in the spec, and no block with EXCEPTION around the COMMIT.\n");
	if (edata->context)
		append_context(&detail, edata->context);
	if (notices)
		appendStringInfo(&detail, "%s\n", notices);
	if (detail.len > 0)
	{
		detail.data[detail.len - 1] = '\0';
		outcome->error_detail = detail.data;
	}
}

/*
 * Run the user's SQL in a subtransaction as its owner, or as the role of the
 * spec; fills in the outcome.
 *
 * A role of the spec cannot be left: SET ROLE and its like are barred.  In a
 * worker it even stays until the transaction has ended, and the caller puts
 * the owner back then: what waits for the commit, such as a cursor WITH HOLD,
 * must not run as the owner.
 */
static void
run_as_owner(TaskContext *context, const BoundSql *bound, const SqlSpec *spec, bool restricted, SqlCancelCause cause,
			 TaskOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	SqlResult	result = {.rows_read = -1, .rows_written = -1};
	SqlTimer	timer;
	Oid			save_userid;
	int			save_sec_context;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	sqltimer_init(&timer);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	/* The end of the subtransaction takes it back. */
	if (spec->is_read_only)
		XactReadOnly = true;

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
		sqlnotice_begin(true);
		sqlspec_set(spec, true);
		sqltimer_read(&timer, spec);
		if (spec->role != NULL)
			SetUserIdAndSecContext(sqlspec_role(spec, context->owner), flags | SECURITY_LOCAL_USERID_CHANGE);
		/* A worker has no portal around it: its statements need a snapshot to stand on. */
		pushed = !ActiveSnapshotSet();
		if (pushed)
			PushActiveSnapshot(GetTransactionSnapshot());
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		if (spec->publish != NULL)
			rowspool_fill(spec->publish->spool, bound, &timer);
		else
			sqlrun_statements(bound, spec, &timer, &result, caller);
		SPI_finish();
		if (pushed)
			PopActiveSnapshot();
		sqlnotice_end();
		/* A worker is cleaned between tasks; a client's session must not keep what a task sets. */
		AtEOXact_GUC(!restricted, guc_level);
		if (spec->role == NULL || restricted)
			SetUserIdAndSecContext(save_userid, save_sec_context);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;

		outcome->status = ATTEMPT_SUCCEEDED;
		result.notices = sqlnotice_json();
		if (spec->lists_items)
			outcome->items = result.rows;
		else
			outcome->output = sqlrun_output(&result);
		outcome->rows_read = spec->lists_items ? -1 : result.rows_read;
		outcome->rows_written = result.rows_written;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		sqltimer_stop(&timer);
		sqlnotice_end();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;
		sqltask_outcome_of_error(outcome, edata, cause);
	}
	PG_END_TRY();
}

/* ---- one try ---- */

bool
sqltask_begin(SqlTry *try, int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause)
{
	WeirScope	scope;

	memset(try, 0, sizeof(*try));
	try->caller = CurrentMemoryContext;
	try->restricted = restricted;
	try->cause = cause;
	try->outcome.task_run_id = task_run_id;
	try->outcome.attempt_no = attempt_no;
	try->outcome.rows_read = try->outcome.rows_written = -1;

	/* What is read must outlive the SPI connection. */
	weir_enter(&scope);
	MemoryContextSwitchTo(try->caller);
	try->context = context_read(task_run_id, attempt_no);
	if (try->context != NULL)
	{
		try->is_listed = strcmp(try->context->kind, kind_for_each.name) == 0 && foreach_has_items(task_run_id);
		try->is_ready = sqlspec_read(try->context, &try->bound, &try->spec, &try->error);
	}
	weir_leave(&scope);
	MemoryContextSwitchTo(try->caller);
	return try->context != NULL;
}

void
sqltask_run(SqlTry *try)
{
	TaskOutcome *outcome = &try->outcome;

	if (try->is_ready)
	{
		run_as_owner(try->context, &try->bound, &try->spec, try->restricted, try->cause, outcome);
		if (try->spec.publish != NULL && outcome->status == ATTEMPT_SUCCEEDED)
			redistask_run(try->spec.publish, try->restricted, try->cause, outcome);
		return;
	}
	outcome->status = ATTEMPT_FAILED;
	outcome->error_code = "invalid_reference";
	outcome->error_message = try->error;
	outcome->is_user_error = true;
}

bool
sqltask_write(SqlTry *try)
{
	return outcome_lock_run(try->context->run_id, true) && outcome_apply(&try->outcome);
}

bool
sqltask_end(SqlTry *try, bool (*write) (SqlTry *try))
{
	WeirScope	scope;
	bool		written;

	/* A cancel that comes now comes too late: the outcome is decided. */
	HOLD_CANCEL_INTERRUPTS();
	weir_enter(&scope);
	written = write(try);
	engine_wake_at_commit(ENGINE_WAKE_TASK);
	weir_leave(&scope);
	MemoryContextSwitchTo(try->caller);
	RESUME_CANCEL_INTERRUPTS();
	return written;
}

bool
sqltask_execute(int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause)
{
	SqlTry		try;

	if (!sqltask_begin(&try, task_run_id, attempt_no, restricted, cause))
		return false;
	if (try.is_listed)
	{
		/* It is repaired: the items are those that were listed then. */
		try.outcome.status = ATTEMPT_SUCCEEDED;
		try.outcome.items = "[]";
	}
	else if (try.is_ready && try.spec.is_own && restricted)
	{
		try.outcome.status = ATTEMPT_FAILED;
		try.outcome.error_code = "needs_worker";
		try.outcome.error_message = "a task whose \"transaction\" is \"own\" needs a SQL worker, which weir.conduct() has not";
		try.outcome.is_user_error = true;
	}
	else if (try.is_ready && try.spec.is_own)
		sqlcall_execute(&try.bound, &try.spec, cause, &try.outcome);
	else
		sqltask_run(&try);
	return sqltask_end(&try, sqltask_write);
}
