/*-------------------------------------------------------------------------
 * conduct.c
 *	  CALL weir.conduct(): the conductor's loop in a client session, for
 *	  servers without weir's workers.
 *
 * Holds the conductor's lock while it runs, so it never runs beside a
 * conductor.  SQL tasks run in this session, one at a time, as their owners
 * and in a restricted context.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "conductor_int.h"
#include "engine.h"
#include "launcher.h"

PG_FUNCTION_INFO_V1(weir_conduct);

/* Until nothing is left to do, or until_ms. */
static void
conduct_until_idle(Conductor *c, int64 until_ms)
{
	for (;;)
	{
		int64		due;

		CHECK_FOR_INTERRUPTS();
		conductor_cycle(c);
		if (c->did_work)
			c->wake = ENGINE_WAKE_ALL;
		if (conductor_is_idle(c) || now_ms() >= until_ms)
			return;
		due = Min(Min(conductor_next_due(c), until_ms), now_ms() + 1000);
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 httpmux_fd(c->mux), Max(due - now_ms(), 0), wait_event_compat("WeirConduct"));
		ResetLatch(MyLatch);
		/* New triggers and requests of other sessions are seen at least once a second. */
		c->wake = ENGINE_WAKE_ALL;
	}
}

/*
 * conduct(timeout interval)
 */
Datum
weir_conduct(PG_FUNCTION_ARGS)
{
	Conductor  *volatile c = NULL;
	volatile int64 until_ms = NEVER;

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("weir.conduct() cannot run inside a transaction block"),
				 errhint("CALL it as a statement of its own, outside BEGIN and outside functions.")));
	weir_require_admin(GetUserId(), "conduct this database");
	if (IsolationUsesXactSnapshot() || XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("weir.conduct() needs isolation level READ COMMITTED, and to write"),
				 errhint("SET default_transaction_isolation TO 'read committed'; SET default_transaction_read_only TO off;")));
	if (!PG_ARGISNULL(0))
	{
		Interval   *timeout = PG_GETARG_INTERVAL_P(0);

		until_ms = now_ms() + timeout->time / 1000 + ((int64) timeout->day + (int64) timeout->month * 30) * SECS_PER_DAY * 1000;
	}
	if (!conductor_lock(false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another process already conducts this database"),
				 errhint("Runs move forward without weir.conduct(); use weir.wait() to wait for one.")));

	PG_TRY();
	{
		if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		weir_prefer_indexes(true);
		c = conductor_create(true);
		conductor_recover(c);
		conduct_until_idle(c, until_ms);
		SPI_finish();
	}
	PG_FINALLY();
	{
		weir_prefer_indexes(false);
		conductor_destroy(c);
		conductor_unlock();
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}
