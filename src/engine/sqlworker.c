/*-------------------------------------------------------------------------
 * sqlworker.c
 *	  A process that runs SQL tasks of one owner in one database, one after
 *	  the other, and leaves when there is nothing to do for a while.
 *
 * Started by the conductor for a slot in shared memory; connected as the
 * pipeline's owner, so SET ROLE and the like lead nowhere the owner could not
 * go.  The slot is released by an exit callback registered before the
 * connection is made: it runs after the transaction was aborted, so "slot
 * free" means "nothing of it is left".
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "engine.h"
#include "engine_int.h"
#include "outcome.h"
#include "retryon.h"
#include "shmem.h"
#include "sqltask.h"

/* After a start a task that was lost comes again at once, or after a minute at most (outcome.c). */
#define CAREFUL_US	(90 * USECS_PER_SEC)

PGDLLEXPORT void sqlworker_main(Datum main_arg);

static SqlSlot *my_slot = NULL;
static uint32 my_generation;

static void
release_slot(int code, Datum arg)
{
	Oid			databaseid = InvalidOid;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (my_slot->pid == MyProcPid && my_slot->generation == my_generation)
	{
		databaseid = my_slot->databaseid;
		my_slot->state = SQL_SLOT_FREE;
		my_slot->databaseid = InvalidOid;
		my_slot->roleid = InvalidOid;
		my_slot->task_run_id = 0;
		my_slot->pid = 0;
	}
	LWLockRelease(weir_shmem_lock);
	if (OidIsValid(databaseid))
		shmem_wake_conductor(databaseid, ENGINE_WAKE_TASK);
}

static int
cancel_cause(void)
{
	return my_slot->cancel_requested;
}

/* The next attempt; false: none (yet). */
static bool
next_task(int64 *task_run_id, int *attempt_no, bool *is_look)
{
	bool		found = false;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (my_slot->state == SQL_SLOT_STARTING || my_slot->state == SQL_SLOT_ASSIGNED)
	{
		my_slot->state = SQL_SLOT_BUSY;
		my_slot->since = GetCurrentTimestamp();
		*task_run_id = my_slot->task_run_id;
		*attempt_no = my_slot->attempt_no;
		*is_look = my_slot->is_look;
		found = true;
	}
	LWLockRelease(weir_shmem_lock);
	return found;
}

static void
task_done(void)
{
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	my_slot->state = SQL_SLOT_IDLE;
	my_slot->task_run_id = 0;
	my_slot->cancel_requested = SQL_CANCEL_NONE;
	my_slot->since = GetCurrentTimestamp();
	LWLockRelease(weir_shmem_lock);
	shmem_wake_conductor(MyDatabaseId, ENGINE_WAKE_TASK);
}

/* Has the server been started, also after a crash, not long ago?  Or its clock been set? */
static bool
started_lately(void)
{
	int64		age = GetCurrentTimestamp() - weir_shmem->launcher_start_time;

	return age < CAREFUL_US;
}

/*
 * Take the attempt in a transaction of its own, so that everybody sees it
 * running.  The mark need not wait for the disk: what the task itself commits
 * comes later in the same write-ahead log and cannot be there without it.
 * But a task that takes the server down each time must be seen to, and stop
 * at some point (outcome.c): so it waits in the time in which such a task
 * would come again.
 */
static bool
take(int64 task_run_id, int attempt_no)
{
	WeirScope	scope;
	bool		taken;

	StartTransactionCommand();
	/* Outside the scope, which would take a setting back before the commit. */
	if (started_lately())
		ForceSyncCommit();
	else
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	weir_enter(&scope);
	taken = sqltask_take(task_run_id, attempt_no);
	weir_leave(&scope);
	CommitTransactionCommand();
	return taken;
}

/* What could not be written by sqltask_execute(): an error outside the user's SQL. */
static void
record_failure(int64 task_run_id, int attempt_no, const ErrorData *edata)
{
	WeirScope	scope;
	TaskOutcome outcome = {0};
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(task_run_id)};

	outcome.task_run_id = task_run_id;
	outcome.attempt_no = attempt_no;
	outcome.status = sql_cancel_is_timeout(my_slot->cancel_requested) ? ATTEMPT_TIMED_OUT :
		my_slot->cancel_requested == SQL_CANCEL_ASKED ? ATTEMPT_CANCELLED : ATTEMPT_FAILED;
	outcome.rows_read = outcome.rows_written = -1;
	outcome.sqlstate = pstrdup(unpack_sql_state(edata->sqlerrcode));
	outcome.error_code = outcome.sqlstate;
	outcome.error_message = edata->message ? edata->message : "unknown error";
	outcome.error_detail = edata->detail;
	outcome.is_retryable = true;
	outcome.is_user_error = outcome.status == ATTEMPT_FAILED && retry_sqlstate_is_user_error(outcome.sqlstate);
	if (outcome.status == ATTEMPT_TIMED_OUT)
	{
		outcome.error_code = "timed_out";
		outcome.error_message = sql_cancel_timeout_text(my_slot->cancel_requested);
	}

	StartTransactionCommand();
	weir_enter(&scope);
	if (weir_spi("SELECT run_id FROM weir.task_run WHERE task_run_id = $1", 1, types, values, NULL) == 1 &&
		outcome_lock_run(weir_spi_int64(0, 1, NULL), true))
		(void) outcome_apply(&outcome);
	engine_wake_at_commit(ENGINE_WAKE_TASK);
	weir_leave(&scope);
	CommitTransactionCommand();
}

/*
 * The next task of this owner finds a clean session: what DISCARD ALL does,
 * but for cached plans, which hold nothing of the task and cost weir's own
 * statements a new planning each time.
 */
static void
reset_session(void)
{
	StartTransactionCommand();
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	CommitTransactionCommand();
}

static void
run_task(int64 task_run_id, int attempt_no, bool is_look)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "weir SQL task", ALLOCSET_DEFAULT_SIZES);
	char		activity[64];
	Oid			userid;
	int			sec_context;

	/* A look leaves no mark: the attempt is under way already. */
	if (!is_look && !take(task_run_id, attempt_no))
	{
		MemoryContextDelete(cxt);
		return;
	}
	snprintf(activity, sizeof(activity), "weir task run " INT64_FORMAT " attempt %d", task_run_id, attempt_no);
	pgstat_report_activity(STATE_RUNNING, activity);
	GetUserIdAndSecContext(&userid, &sec_context);

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		MemoryContextSwitchTo(cxt);
		/* The cancel may have come before there was anything to cancel. */
		CHECK_FOR_INTERRUPTS();
		if (cancel_cause() != SQL_CANCEL_NONE)
			ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED), errmsg("cancelled before it started")));
		if (is_look ? sqltask_look(task_run_id, attempt_no, false, cancel_cause) :
			sqltask_execute(task_run_id, attempt_no, false, cancel_cause))
			CommitTransactionCommand();
		else
			AbortCurrentTransaction();
		/* A task with a role of its own ran as that until now. */
		SetUserIdAndSecContext(userid, sec_context);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		EmitErrorReport();
		HOLD_INTERRUPTS();
		AbortCurrentTransaction();
		SetUserIdAndSecContext(userid, sec_context);
		FlushErrorState();
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(cxt);
		record_failure(task_run_id, attempt_no, edata);
	}
	PG_END_TRY();

	QueryCancelPending = false;
	reset_session();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(cxt);
}

/* Attach to the slot; false: it was given to somebody else meanwhile. */
static bool
attach(int index, Oid *databaseid, Oid *roleid)
{
	bool		mine;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	my_slot = &weir_shmem->sql[index];
	mine = my_slot->state == SQL_SLOT_STARTING && my_slot->generation == my_generation && my_slot->pid == 0;
	if (mine)
	{
		my_slot->pid = MyProcPid;
		*databaseid = my_slot->databaseid;
		*roleid = my_slot->roleid;
	}
	LWLockRelease(weir_shmem_lock);
	return mine;
}

void
sqlworker_main(Datum main_arg)
{
	Oid			databaseid,
				roleid;

	memcpy(&my_generation, MyBgworkerEntry->bgw_extra, sizeof(my_generation));
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	if (!attach(DatumGetInt32(main_arg), &databaseid, &roleid))
		proc_exit(0);
	before_shmem_exit(release_slot, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(databaseid, roleid, BGWORKER_OWNER_FLAGS_COMPAT);
	engine_settle_transactions();
	pgstat_report_appname("weir SQL worker");
	weir_prefer_indexes(true);

	for (;;)
	{
		int64		task_run_id;
		int			attempt_no;
		bool		is_look;
		int			rc;

		if (next_task(&task_run_id, &attempt_no, &is_look))
		{
			run_task(task_run_id, attempt_no, is_look);
			task_done();
			continue;
		}
		rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, weir_sql_worker_idle_timeout,
					   wait_event_compat("WeirSqlWorkerIdle"));
		ResetLatch(MyLatch);
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (rc & WL_TIMEOUT)
		{
			bool		idle;

			/* Given up under the lock: nobody can assign to us after this. */
			LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
			idle = my_slot->state == SQL_SLOT_IDLE;
			if (idle)
				my_slot->state = SQL_SLOT_BUSY;
			LWLockRelease(weir_shmem_lock);
			if (idle)
				proc_exit(0);
		}
	}
}
