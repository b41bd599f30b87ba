/*-------------------------------------------------------------------------
 * conductor.c
 *	  The one process per database that moves runs forward.
 *
 *		wait for: latch | sockets | nearest deadline
 *		begin
 *		  take in   requests, new runs, finished exchanges, due timers
 *		  advance   successors, run outcomes, next_load_status
 *		  intend    attempts and tokens for everything about to start
 *		commit
 *		act         issue the exchanges, hand work to SQL workers
 *
 * Runs as a background worker started by the launcher, or inside a session
 * in weir.conduct().  A session-level lock decides who conducts.  It holds no
 * truth: an error or a kill at any point loses only memory, and the next
 * conductor rebuilds its flights from weir.attempt.  Therefore nothing here
 * catches errors: the process ends and the launcher starts another.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conductor_int.h"
#include "engine.h"
#include "engine_int.h"
#include "launcher.h"
#include "outgoing.h"

PGDLLEXPORT void conductor_main(Datum main_arg);

static Conductor *running = NULL;

void
conductor_begin(Conductor *c)
{
	if (!c->in_session)
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
	}
	weir_enter(&c->scope);
	MemoryContextSwitchTo(c->scratch);
}

void
conductor_commit(Conductor *c)
{
	weir_leave(&c->scope);
	if (c->in_session)
		SPI_commit();
	else
	{
		CommitTransactionCommand();
		pgstat_report_stat(true);
	}
	MemoryContextSwitchTo(c->scratch);
}

/*
 * For intents of work that goes into the same write-ahead log: what follows
 * from them cannot be there without them, and nobody else knows of them.  A
 * client's session has to keep its setting whatever happens, so there it is
 * not touched.
 */
void
conductor_commit_soon(Conductor *c)
{
	int			save_commit = synchronous_commit;

	if (!c->in_session)
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	conductor_commit(c);
	synchronous_commit = save_commit;
}

/* signin reads connections of key vaults through this; the caller has a transaction open. */
static bool
find_signin_connection(const char *name, SignInConnection *connection, void *arg)
{
	const Connection *known = dispatch_connection(arg, name);

	if (known == NULL)
		return false;
	outgoing_describe(known, NULL, connection);
	return true;
}

Conductor *
conductor_create(bool in_session)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "weir conductor", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Conductor  *c = palloc0(sizeof(Conductor));
	HASHCTL		ctl = {0};

	c->in_session = in_session;
	c->cxt = cxt;
	c->scratch = AllocSetContextCreate(cxt, "weir conductor cycle", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Flight);
	ctl.hcxt = cxt;
	c->flights = hash_create("weir flights", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	clock_start(c);
	c->wake = ENGINE_WAKE_ALL;
	c->defer_until_ms = c->worker_retry_ms = c->limit_due_ms = NEVER;
	c->run_deadline_ms = 0;		/* not known yet */
	ready_start(c);
	queues_start(c);
	notes_conduct(true);
	upkeep_start(c);
	running = c;
	c->mux = httpmux_create();
	c->signin = signin_create(c->mux, &(SignInCatalog) {secret_lookup, find_signin_connection, c});
	MemoryContextSwitchTo(old);
	return c;
}

/* Sockets and tokens go; tables are not touched, whatever state we are in. */
static void
close_network(Conductor *c)
{
	if (c->signin)
		signin_destroy(c->signin);
	c->signin = NULL;
	if (c->mux)
		httpmux_destroy(c->mux);
	c->mux = NULL;
}

void
conductor_destroy(Conductor *c)
{
	if (c == NULL)
		return;
	running = NULL;
	notes_conduct(false);
	close_network(c);
	if (CurrentMemoryContext == c->scratch || CurrentMemoryContext == c->cxt)
		MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(c->cxt);
}

void
conductor_recover(Conductor *c)
{
	conductor_begin(c);
	breakers_reset();
	quotas_start(c);
	dispatch_recover(c);
	conductor_commit(c);
}

static uint32
take_wake_bits(void)
{
	uint32		bits = 0;
	DatabaseSlot *slot;

	if (weir_shmem == NULL)
		return 0;
	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	slot = shmem_database_slot(MyDatabaseId, false);
	if (slot != NULL)
		bits = pg_atomic_exchange_u32(&slot->wake, 0);
	LWLockRelease(weir_shmem_lock);
	return bits;
}

void
conductor_defer(Conductor *c)
{
	c->defer_until_ms = Min(c->defer_until_ms, now_ms() + CONDUCTOR_DEFER_MS);
}

/* The earliest moment something is due that no latch or socket announces; NEVER if nothing. */
int64
conductor_next_due(Conductor *c)
{
	int64		due = Min(Min(c->defer_until_ms, ready_next_due(c)), Min(Min(c->run_deadline_ms, c->limit_due_ms), c->worker_retry_ms));
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (c->wake != 0 || c->has_verdicts)
		return 0;
	due = Min(due, c->upkeep_due_ms);
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		due = Min(due, flight->due_ms);
		if (flight->ending == SQL_CANCEL_NONE)
			due = Min(due, flight->deadline_ms);
		else if (flight->verdict == NULL && !flight->terminated &&
				 ((flight->kind != NULL && flight->kind->is_http) || (flight->slot >= 0 && flight->slot < WEIR_MAX_SQL_SLOTS)))
			due = Min(due, flight->ending_since_ms + weir_cancel_grace);
	}
	return due;
}

bool
conductor_is_idle(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (conductor_next_due(c) != NEVER)
		return false;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (!waiting_is_open(flight) && !uncertain_waits(flight))
		{
			hash_seq_term(&seq);
			return false;
		}
	return true;
}

/* Attempts that ran out of time; of those that did while nobody looked, the engine is asked first. */
static void
check_deadlines(Conductor *c, int64 now)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->ending == SQL_CANCEL_NONE && flight->deadline_ms <= now && !uncertain_ask_late(c, flight, flight->deadline_ms))
			flight_end(c, flight, flight->task_deadline_ms <= now ? SQL_CANCEL_TASK_TIMEOUT : SQL_CANCEL_TIMEOUT);
}

void
conductor_cycle(Conductor *c)
{
	int64		now;

	MemoryContextReset(c->scratch);
	c->connections = NIL;
	c->did_work = false;
	clock_follow(c);
	c->wake |= upkeep_take_bits(c, take_wake_bits());
	httpmux_drive(c->mux);
	flights_transfers(c);

	now = now_ms();
	if (c->defer_until_ms <= now || c->run_deadline_ms <= now || c->worker_retry_ms <= now)
	{
		c->wake |= ENGINE_WAKE_LOOK | c->put_off;
		c->put_off = 0;
		c->has_verdicts = true;	/* one may have been put off */
		c->defer_until_ms = c->worker_retry_ms = NEVER;
	}
	if (c->limit_due_ms <= now)
		c->wake |= ENGINE_WAKE_TASK;
	check_deadlines(c, now);
	sqlpool_terminate_overdue(c, now);
	waiting_due(c, now);

	if (c->wake != 0 || c->has_verdicts || ready_next_due(c) <= now)
	{
		uint32		wake = c->wake;
		bool		only_intents;

		c->wake = 0;
		conductor_begin(c);
		if (wake & ENGINE_WAKE_RUN)
			subrun_take_in(c);
		flights_write(c);
		breakers_write(c);
		if (wake & ENGINE_WAKE_DEFINITION)
		{
			quotas_forget(c);
			queues_forget_known(c);
		}
		quotas_write(c);
		if (wake & ENGINE_WAKE_REQUEST)
		{
			breakers_resume(c);
			intake_requests(c);
		}
		/* Before what is queued: who repairs has waited already. */
		if ((wake & ENGINE_WAKE_REQUEST) || (c->repairs_wait && (wake & ~(ENGINE_WAKE_TASK | ENGINE_WAKE_READY))))
			rerun_take_in(c);
		if (wake & ENGINE_WAKE_TASK)
			sqlpool_check(c);
		if (c->run_deadline_ms <= now)
			intake_deadlines(c);
		ready_take_in(c, wake & ENGINE_WAKE_READY);
		/* A run that ended in this very transaction wakes us again. */
		if (wake & ~(ENGINE_WAKE_TASK | ENGINE_WAKE_READY))
			intake_runs(c, wake & (ENGINE_WAKE_QUEUES | ENGINE_WAKE_DEFINITION));
		ready_take_in(c, false);
		only_intents = !c->did_work;
		if (dispatch_ready(c) && only_intents)
			conductor_commit_soon(c);
		else
			conductor_commit(c);
	}
	if (c->did_work)
		c->deadline_is_exact = false;
	else if (c->run_deadline_ms != NEVER && !c->deadline_is_exact && hash_get_num_entries(c->flights) == 0)
		c->run_deadline_ms = 0; /* do not wake up for what is over */

	flights_act(c);
	if (c->in_session)
		sqlpool_run_here(c);
	else
		sqlpool_hand_over(c);
	upkeep_slice(c);
}

/* Wait for latch, sockets or the nearest deadline. */
static void
conductor_wait(Conductor *c)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE;
	int64		due = conductor_next_due(c);
	int64		timeout = -1;

	if (due != NEVER)
	{
		timeout = Max(due - now_ms(), 0);
		timeout = Min(timeout, PG_INT32_MAX);
		events |= WL_TIMEOUT;
	}
	(void) WaitLatchOrSocket(MyLatch, events, httpmux_fd(c->mux), (long) timeout,
							 wait_event_compat("WeirConductor"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		c->wake = ENGINE_WAKE_ALL;
		upkeep_soon(c);
	}
}

static void
note_loop(void)
{
	DatabaseSlot *slot;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	slot = shmem_database_slot(MyDatabaseId, false);
	if (slot != NULL && slot->pid == MyProcPid)
		slot->last_loop = GetCurrentTimestamp();
	LWLockRelease(weir_shmem_lock);
}

static void
conductor_exit(int code, Datum arg)
{
	/* Memory stays: the transaction is not aborted yet, and may be using it. */
	if (running != NULL)
		close_network(running);
}

/*
 * Is weir here, in a version this library can work with?  A newer library
 * beside an older script must not guess at tables.
 */
static bool
extension_usable(bool *absent)
{
	bool		usable = false;

	StartTransactionCommand();
	*absent = !OidIsValid(weir_extension_oid());
	if (!*absent)
	{
		WeirScope	scope;

		weir_enter(&scope);
		usable = SPI_execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'weir'", true, 1) == SPI_OK_SELECT &&
			SPI_processed == 1 && strcmp(weir_spi_text(0, 1), WEIR_VERSION) == 0;
		if (!usable)
			ereport(LOG,
					(errmsg("weir is not conducting this database: its extension version differs from the library's, %s", WEIR_VERSION),
					 errhint("Run ALTER EXTENSION weir UPDATE.")));
		weir_leave(&scope);
	}
	CommitTransactionCommand();
	return usable;
}

void
conductor_main(Datum main_arg)
{
	Oid			databaseid = DatumGetObjectId(main_arg);
	uint32		generation;
	Conductor  *c;
	bool		absent;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));

	/* SIGTERM is die(): it acts at the next CHECK_FOR_INTERRUPTS, never inside libcurl. */
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	/* Before the connection is made, so that it is undone after our locks are gone. */
	if (!launcher_attach(databaseid, generation))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(databaseid, InvalidOid, 0);
	engine_settle_transactions();
	weir_settle_search_path();

	if (!extension_usable(&absent))
	{
		launcher_detach(true, NULL);
		proc_exit(0);
	}

	/* A session in weir.conduct() may hold it; sleep until it is done. */
	(void) conductor_lock(true);

	weir_prefer_indexes(true);
	c = conductor_create(false);
	before_shmem_exit(conductor_exit, (Datum) 0);
	pgstat_report_appname("weir conductor");
	conductor_recover(c);
	for (;;)
	{
		conductor_cycle(c);
		note_loop();
		conductor_wait(c);
	}
}
