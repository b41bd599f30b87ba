/*-------------------------------------------------------------------------
 * sqlpool.c
 *	  The conductor's side of the SQL workers: who runs what, who vanished.
 *
 * Runs in the conductor.  Slots in shared memory say which worker holds which
 * attempt (weir_shmem_lock).  A worker commits the outcome first and frees
 * the slot afterwards; so an attempt without outcome that no slot holds was
 * lost, if slots are read before the table.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conductor_int.h"
#include "engine.h"
#include "outcome.h"
#include "sqltask.h"

#define WORKER_RETRY_MS		200
#define WORKER_RETRY_MAX_MS 10000
#define MAX_START_FAILURES	3

static bool
is_sql(const Flight *flight)
{
	return flight->runs_sql || flight->looking;
}

static bool
slot_holds(const SqlSlot *slot, const Flight *flight)
{
	return (slot->state == SQL_SLOT_STARTING || slot->state == SQL_SLOT_ASSIGNED || slot->state == SQL_SLOT_BUSY) &&
		slot->databaseid == MyDatabaseId && slot->task_run_id == flight->task_run_id &&
		slot->attempt_no == flight->attempt_no;
}

int
sqlpool_free(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int			waiting = 0,
				busy = 0,
				idle = 0,
				limit;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_sql(flight) && flight->slot < 0)
			waiting++;
	if (c->in_session)
		return waiting > 0 ? 0 : 1;

	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		const SqlSlot *slot = &weir_shmem->sql[i];

		if (slot->state != SQL_SLOT_FREE && slot->state != SQL_SLOT_IDLE)
			busy++;
		if (slot->state == SQL_SLOT_IDLE && slot->databaseid == MyDatabaseId)
			idle++;
	}
	limit = sql_worker_limit();
	LWLockRelease(weir_shmem_lock);
	/* While none can be started only warm ones count, and one task that finds out when that is over. */
	if (c->worker_failures > 0)
		return Max(Min(idle, limit - busy) - waiting, waiting == 0 && busy < limit ? 1 : 0);
	return Max(limit - busy - waiting, 0);
}

bool
sqlpool_holds_any(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_sql(flight))
		{
			hash_seq_term(&seq);
			return true;
		}
	return false;
}

/* One line for an episode, however often it is tried; weir.why knows it from shared memory. */
static void
note_start(Conductor *c, bool started)
{
	if (started && c->worker_failures == 0)
		return;
	if (!started && c->worker_failures == 0)
		ereport(LOG,
				(errmsg("weir could not start a SQL worker: all max_worker_processes (%d) are taken", max_worker_processes),
				 errdetail("SQL tasks wait, and it is tried again until it succeeds."),
				 errhint("Raise max_worker_processes, or lower weir.max_sql_workers.")));
	c->worker_failures = started ? 0 : Min(c->worker_failures + 1, 20);
	c->worker_start_ms = started ? 0 : now_ms() + Min(WORKER_RETRY_MS << Min(c->worker_failures - 1, 10), WORKER_RETRY_MAX_MS);
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (started)
		weir_shmem->sql_starts_fail_since = 0;
	else if (weir_shmem->sql_starts_fail_since == 0)
		weir_shmem->sql_starts_fail_since = GetCurrentTimestamp();
	LWLockRelease(weir_shmem_lock);
}

static bool
launch_worker(Conductor *c, int index, uint32 generation)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION | BGWORKER_INTERRUPTIBLE_COMPAT;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "weir", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sqlworker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "weir SQL worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "weir SQL worker", BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(index);
	memcpy(worker.bgw_extra, &generation, sizeof(generation));
	worker.bgw_notify_pid = MyProcPid;
	if (c->handles[index])
		pfree(c->handles[index]);
	c->handles[index] = NULL;
	MemoryContextSwitchTo(c->cxt);
	return RegisterDynamicBackgroundWorker(&worker, &c->handles[index]);
}

/* Given up or evicted, and not gone yet. */
static bool
is_leaving(const SqlSlot *slot)
{
	return slot->state == SQL_SLOT_BUSY && slot->task_run_id == 0;
}

/*
 * An idle worker goes, to make room; not one of this database and role, for
 * which it could work.  InvalidOid: any.  False: there is none.  Caller holds
 * the lock, under which it is marked, so that nobody gives it a task any more.
 */
static bool
evict_idle(Oid roleid)
{
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		SqlSlot    *slot = &weir_shmem->sql[i];

		if (slot->state == SQL_SLOT_IDLE && slot->pid != 0 &&
			(slot->databaseid != MyDatabaseId || slot->roleid != roleid))
		{
			slot->state = SQL_SLOT_BUSY;
			kill(slot->pid, SIGTERM);
			return true;
		}
	}
	return false;
}

/*
 * Was a worker started for this slot whose process is still there?  When it
 * has let go of the slot it has its place among max_worker_processes until
 * the postmaster has noticed, and then the postmaster sets our latch.
 */
static bool
process_is_there(Conductor *c, int index)
{
	pid_t		pid;

	return c->handles[index] != NULL && GetBackgroundWorkerPid(c->handles[index], &pid) != BGWH_STOPPED;
}

/* The slot for this flight: a warm one of the same owner, else a new one; else -1. */
static int
choose_slot(Conductor *c, const Flight *flight, bool may_start, bool *warm)
{
	int			chosen = -1,
				used = 0,
				leaving = 0;

	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		SqlSlot    *slot = &weir_shmem->sql[i];

		if (slot->state == SQL_SLOT_IDLE && slot->databaseid == MyDatabaseId && slot->roleid == flight->owner)
		{
			*warm = true;
			return i;
		}
	}
	*warm = false;
	if (!may_start)
		return -1;
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		SqlSlot    *slot = &weir_shmem->sql[i];
		bool		is_free = slot->state == SQL_SLOT_FREE;
		bool		leaves = is_free ? process_is_there(c, i) : is_leaving(slot);

		if (!is_free || leaves)
			used++;
		else if (chosen < 0)
			chosen = i;
		if (leaves)
			leaving++;
	}
	if (chosen >= 0 && used < sql_worker_limit())
		return chosen;
	/* All places are taken, perhaps one of them by an idle worker. */
	if (leaving == 0)
		(void) evict_idle(flight->owner);
	return -1;
}

static void
assign(Conductor *c, Flight *flight)
{
	int			index;
	bool		warm;
	bool		may_start = c->worker_failures == 0 || c->worker_start_ms <= now_ms();
	uint32		generation = 0;
	pid_t		pid = 0;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	index = choose_slot(c, flight, may_start, &warm);
	if (index >= 0)
	{
		SqlSlot    *slot = &weir_shmem->sql[index];

		slot->state = warm ? SQL_SLOT_ASSIGNED : SQL_SLOT_STARTING;
		slot->databaseid = MyDatabaseId;
		slot->roleid = flight->owner;
		slot->task_run_id = flight->task_run_id;
		slot->attempt_no = flight->attempt_no;
		slot->is_look = flight->looking;
		slot->cancel_requested = SQL_CANCEL_NONE;
		slot->since = GetCurrentTimestamp();
		if (!warm)
		{
			slot->pid = 0;
			slot->generation++;
		}
		generation = slot->generation;
		pid = slot->pid;
	}
	LWLockRelease(weir_shmem_lock);

	if (index < 0)
		c->worker_retry_ms = Min(c->worker_retry_ms, may_start ? now_ms() + 100 : c->worker_start_ms);
	else if (warm)
	{
		flight->slot = index;
		shmem_set_latch(pid);
	}
	else if (launch_worker(c, index, generation))
	{
		flight->slot = index;
		note_start(c, true);
	}
	else
	{
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		weir_shmem->sql[index].state = SQL_SLOT_FREE;
		weir_shmem->sql[index].databaseid = InvalidOid;
		weir_shmem->sql[index].task_run_id = 0;
		(void) evict_idle(flight->owner);
		LWLockRelease(weir_shmem_lock);
		note_start(c, false);
		c->worker_retry_ms = Min(c->worker_retry_ms, c->worker_start_ms);
	}
}

void
sqlpool_hand_over(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (weir_shmem == NULL)
		return;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_sql(flight) && flight->slot < 0 && flight->verdict == NULL)
			assign(c, flight);
}

/* A worker that was registered but never came, or died before it attached. */
static void
collect_dead_starts(Conductor *c)
{
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		pid_t		pid;

		if (c->handles[i] == NULL || GetBackgroundWorkerPid(c->handles[i], &pid) != BGWH_STOPPED)
			continue;
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		if (weir_shmem->sql[i].state == SQL_SLOT_STARTING && weir_shmem->sql[i].pid == 0 &&
			weir_shmem->sql[i].databaseid == MyDatabaseId)
		{
			weir_shmem->sql[i].state = SQL_SLOT_FREE;
			weir_shmem->sql[i].generation++;
			weir_shmem->sql[i].databaseid = InvalidOid;
			weir_shmem->sql[i].task_run_id = 0;
		}
		LWLockRelease(weir_shmem_lock);
		pfree(c->handles[i]);
		c->handles[i] = NULL;
	}
}

/* What became of an attempt that no worker holds. */
static void
settle(Conductor *c, Flight *flight)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(flight->task_run_id), Int32GetDatum(flight->attempt_no)};
	char	   *status = NULL;
	char	   *owner;
	TaskOutcome outcome = {0};

	if (flight->looking)
	{
		waiting_looked(c, flight);
		return;
	}
	if (weir_spi("SELECT status FROM weir.attempt WHERE task_run_id = $1 AND attempt_no = $2", 2, types, values, NULL) == 1)
		status = weir_spi_text(0, 1);
	if (status != NULL && strcmp(status, "intended") == 0)
	{
		flight->slot = -1;
		if (flight->ending != SQL_CANCEL_NONE)
			flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
		else if (++flight->start_failures >= MAX_START_FAILURES)
		{
			owner = GetUserNameFromId(flight->owner, true);
			flight_verdict(c, flight, KIND_FAILED, "worker_start_failed",
						   owner ? psprintf("no SQL worker could be started as role \"%s\": see the server log", owner) :
						   psprintf("the pipeline's owner, role %u, no longer exists", flight->owner),
						   false, true);
		}
		return;
	}
	if (status != NULL && strcmp(status, "started") == 0)
	{
		if (!outcome_lock_run(flight->run_id, false))
		{
			conductor_defer(c);
			return;
		}
		outcome.task_run_id = flight->task_run_id;
		outcome.attempt_no = flight->attempt_no;
		outcome.rows_read = outcome.rows_written = -1;
		if (flight->terminated)
		{
			outcome.status = sql_cancel_is_timeout(flight->ending) ? ATTEMPT_TIMED_OUT : ATTEMPT_CANCELLED;
			outcome.is_retryable = true;
			outcome.error_code = "terminated";
			outcome.error_message = "the statement did not end within weir.cancel_grace; its process was terminated and its transaction rolled back";
		}
		else
		{
			outcome.status = ATTEMPT_LOST;
			outcome.error_code = "worker_lost";
			outcome.error_message = "the SQL worker ended before its outcome was committed; what it had not committed was rolled back";
		}
		(void) outcome_apply(&outcome);
		c->did_work = true;
	}
	flight_remove(c, flight);
}

/* More workers than there may be, since the limit fell: idle ones go, others when they have become that. */
static void
keep_limit(void)
{
	int			excess;

	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	excess = -sql_worker_limit();
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
		if (weir_shmem->sql[i].state != SQL_SLOT_FREE && !is_leaving(&weir_shmem->sql[i]))
			excess++;
	while (excess-- > 0 && evict_idle(InvalidOid))
		;
	LWLockRelease(weir_shmem_lock);
}

void
sqlpool_check(Conductor *c)
{
	static SqlSlot slots[WEIR_MAX_SQL_SLOTS];
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (weir_shmem != NULL)
	{
		collect_dead_starts(c);
		keep_limit();
		LWLockAcquire(weir_shmem_lock, LW_SHARED);
		memcpy(slots, weir_shmem->sql, sizeof(slots));
		LWLockRelease(weir_shmem_lock);
	}
	else
		memset(slots, 0, sizeof(slots));

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		bool		held = false;

		if (!is_sql(flight) || flight->slot < 0 || flight->verdict != NULL)
			continue;
		/* After a restart of the conductor only the slots know where. */
		for (int i = 0; i < WEIR_MAX_SQL_SLOTS && !held; i++)
			if (slot_holds(&slots[i], flight))
			{
				flight->slot = i;
				held = true;
			}
		if (!held)
			settle(c, flight);
		else if (flight->ending != SQL_CANCEL_NONE)
			sqlpool_cancel(flight); /* it ended before its slot was known */
	}
}

void
sqlpool_cancel(Flight *flight)
{
	if (weir_shmem == NULL || flight->slot < 0 || flight->slot >= WEIR_MAX_SQL_SLOTS)
		return;
	LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
	if (slot_holds(&weir_shmem->sql[flight->slot], flight) &&
		weir_shmem->sql[flight->slot].cancel_requested == SQL_CANCEL_NONE)
	{
		weir_shmem->sql[flight->slot].cancel_requested = flight->ending;
		if (weir_shmem->sql[flight->slot].pid != 0)
			kill(weir_shmem->sql[flight->slot].pid, SIGINT);
	}
	LWLockRelease(weir_shmem_lock);
}

/* A statement that does not heed its cancel: after the grace its process has to go. */
void
sqlpool_terminate_overdue(Conductor *c, int64 now)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (weir_shmem == NULL)
		return;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		SqlSlot    *slot;

		if (!is_sql(flight) || flight->ending == SQL_CANCEL_NONE || flight->terminated ||
			flight->slot < 0 || flight->slot >= WEIR_MAX_SQL_SLOTS || flight->ending_since_ms + weir_cancel_grace > now)
			continue;
		slot = &weir_shmem->sql[flight->slot];
		LWLockAcquire(weir_shmem_lock, LW_EXCLUSIVE);
		if (slot_holds(slot, flight) && slot->pid != 0)
			kill(slot->pid, SIGTERM);
		LWLockRelease(weir_shmem_lock);
		flight->terminated = true;
	}
}

/* An attempt that this session can run now, or NULL. */
static Flight *
next_here(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_sql(flight) && flight->verdict == NULL && flight->slot < 0)
		{
			/* No scan may be open at a commit. */
			hash_seq_term(&seq);
			return flight;
		}
	return NULL;
}

/* The condition of a wait. */
static void
look_here(Conductor *c, Flight *flight)
{
	if (sqltask_look(flight->task_run_id, flight->attempt_no, true, NULL))
		SPI_commit();
	else
		SPI_rollback();
	MemoryContextSwitchTo(c->scratch);
	conductor_begin(c);
	waiting_looked(c, flight);
	conductor_commit(c);
}

/* weir.conduct(): this session is the SQL worker. */
void
sqlpool_run_here(Conductor *c)
{
	Flight	   *flight;

	while ((flight = next_here(c)) != NULL)
	{
		bool		taken;

		if (flight->looking)
		{
			look_here(c, flight);
			continue;
		}
		conductor_begin(c);
		taken = sqltask_take(flight->task_run_id, flight->attempt_no);
		conductor_commit(c);
		if (taken)
		{
			if (sqltask_execute(flight->task_run_id, flight->attempt_no, true, NULL))
				SPI_commit();
			else
				SPI_rollback();
			MemoryContextSwitchTo(c->scratch);
		}
		c->did_work = true;
		flight_remove(c, flight);
	}
}
