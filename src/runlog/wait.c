/*-------------------------------------------------------------------------
 * wait.c
 *	  weir.wait: sleep until a run has ended
 *
 * Runs in the session of a client.  Looks at the tables, each time with a
 * snapshot of its own, and sleeps in between on the condition variable of the
 * database, which the conductor broadcasts after every commit that changed a
 * run.  It goes on the variable's list before it looks: a run that ends
 * between the look and the sleep wakes it at once.  Without shared memory it
 * looks twenty times a second; with it, once a second at the least, in case
 * a run ended by a hand that broadcasts nothing.
 *
 * Takes weir_shmem_lock for the look-up of the slot, and no lock that lasts.
 * A session that dies in here leaves the list by transaction abort.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "runapi.h"
#include "shmem.h"
#include "status.h"

PG_FUNCTION_INFO_V1(weir_wait);

#define LONGEST_SLEEP_MS	1000	/* between two looks, on the condition variable */
#define POLL_MS				50		/* without shared memory */

/* One row per pending request; a run with one is not at rest. */
static const char look_sql[] =
	"SELECT r.status, r.xmin, coalesce(p.owner, r.owner), q.request_id, q.xmin "
	"FROM weir.run r LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id "
	"LEFT JOIN weir.request q ON q.run_id = r.run_id WHERE r.run_id = $1";

static bool
column_is_of_this_transaction(uint64 row, int column)
{
	bool		isnull;
	Datum		xmin = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return !isnull && TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

/* Nobody else can see what this transaction wrote: it would wait for itself. */
static void
check_committed(int64 run_id, uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		bool		own_run = column_is_of_this_transaction(i, 2);

		if (!own_run && !column_is_of_this_transaction(i, 5))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 own_run ?
				 errmsg("run " INT64_FORMAT " was triggered in this transaction", run_id) :
				 errmsg("a cancel or repair of run " INT64_FORMAT " was asked for in this transaction", run_id),
				 errdetail("The conductor sees it once it is committed."),
				 errhint("COMMIT first, then wait.")));
	}
}

/* Look at the run; true when it has ended and nothing more is asked of it. */
static bool
look(int64 run_id, RunStatus *status)
{
	static const Oid types[] = {INT8OID};
	WeirScope	scope;
	Datum		values[1];
	uint64		rows;
	bool		has_request;
	bool		ended;

	weir_enter(&scope);
	values[0] = Int64GetDatum(run_id);
	rows = weir_spi(look_sql, 1, types, values, NULL);
	if (rows == 0)
		run_unknown(run_id);
	weir_require_reader_or_owner(scope.caller, (Oid) weir_spi_int64(0, 3, NULL),
								 psprintf("wait for run " INT64_FORMAT, run_id));
	if (!run_status_parse(weir_spi_text(0, 1), status))
		elog(ERROR, "unknown status of run " INT64_FORMAT, run_id);
	(void) weir_spi_int64(0, 4, &has_request);
	has_request = !has_request;
	ended = run_status_is_final(*status) && !has_request;
	if (!ended)
		check_committed(run_id, rows);
	weir_leave(&scope);
	return ended;
}

ConditionVariable *
run_ended_variable(void)
{
	DatabaseSlot *slot;

	if (weir_shmem == NULL)
		return NULL;
	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(MyDatabaseId, false);
	LWLockRelease(weir_shmem_lock);
	return slot == NULL ? NULL : &slot->run_ended;
}

static TimestampTz
deadline_argument(FunctionCallInfo fcinfo, int n)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(n))
		return DT_NOEND;
	if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(n), IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"timeout\" must not be negative")));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   PG_GETARG_DATUM(n)));
}

static long
milliseconds_left(TimestampTz deadline, long at_most)
{
	TimestampTz now = GetCurrentTimestamp();

	if (TIMESTAMP_IS_NOEND(deadline))
		return at_most;
	return deadline <= now ? 0 : Min(TimestampDifferenceMilliseconds(now, deadline), at_most);
}

static RunStatus
wait_for_run(int64 run_id, TimestampTz deadline)
{
	uint32		event = wait_event_compat("WeirRunEnd");
	RunStatus	status = RUN_QUEUED;

	for (;;)
	{
		ConditionVariable *ended = run_ended_variable();
		long		left;

		/* First the list (or the latch), then the look: nothing is missed. */
		if (ended != NULL)
			ConditionVariablePrepareToSleep(ended);
		else
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (look(run_id, &status))
			break;
		left = milliseconds_left(deadline, ended != NULL ? LONGEST_SLEEP_MS : POLL_MS);
		if (left <= 0)
			break;
		if (ended != NULL)
			(void) ConditionVariableTimedSleep(ended, left, event);
		else
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left, event);
	}
	/* An ERROR leaves the list by (sub)transaction abort. */
	ConditionVariableCancelSleep();
	return status;
}

/* wait(run_id, timeout) returns the status */
Datum
weir_wait(PG_FUNCTION_ARGS)
{
	int64		run_id = run_arg_id(fcinfo, 0);
	TimestampTz deadline = deadline_argument(fcinfo, 1);

	/* With the transaction's one snapshot it would never see the run end. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("weir.wait needs isolation level READ COMMITTED"),
				 errhint("Wait in another transaction.")));
	PG_RETURN_TEXT_P(cstring_to_text(run_status_name(wait_for_run(run_id, deadline))));
}
