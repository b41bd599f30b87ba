/*-------------------------------------------------------------------------
 * clock.c
 *	  The conductor's wall clock, and what happens when somebody sets it.
 *
 * Runs in the conductor and in weir.conduct().  Deadlines and retries are
 * kept as moments, in tables and in flights, but they were meant as spans:
 * a clock that is set back by an hour must not make a retry wait for an
 * hour, nor one that is set forward time out what has just begun.  So the
 * wall clock is compared with one that nobody can set, and what lies ahead
 * is moved by the difference.  Retries and polls are moved back only: when
 * the clock went forward they come early, which does no harm, while one that
 * a SQL worker wrote after the clock was set would come much too late.
 *
 * Rows are moved under their own locks only, in the order run, task run,
 * attempt; what somebody else has locked at that moment stays as it is.  A
 * crash before the commit leaves everything unmoved, and what moved while
 * nobody conducted is not noticed: then a moment is a moment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "conductor_int.h"
#include "engine.h"

/* Less than this is a clock being disciplined, and does no harm. */
#define CLOCK_SET_MS	2000

/* Counts while the machine sleeps, where there is such a clock. */
#ifdef CLOCK_BOOTTIME
#define STEADY_CLOCK	CLOCK_BOOTTIME
#else
#define STEADY_CLOCK	CLOCK_MONOTONIC
#endif

int64
now_ms(void)
{
	TimestampTz now = GetCurrentTimestamp();

	return now / 1000 + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;
}

/* How far the wall clock is ahead of the steady one. */
static int64
clock_offset(void)
{
	struct timespec steady;

	clock_gettime(STEADY_CLOCK, &steady);
	return now_ms() - ((int64) steady.tv_sec * 1000 + steady.tv_nsec / 1000000);
}

void
clock_start(Conductor *c)
{
	c->clock_offset_ms = clock_offset();
}

static void
move(int64 *moment, int64 by)
{
	if (*moment != NEVER)
		*moment += by;
}

static void
move_flights(Conductor *c, int64 by)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		move(&flight->deadline_ms, by);
		move(&flight->task_deadline_ms, by);
		if (flight->kind != NULL && flight->kind->is_waiting)
			waiting_clock_set(flight, by);
		else if (by < 0)
			move(&flight->due_ms, by);
		flight->started_ms += by;
		flight->ending_since_ms += by;
	}
}

#define RUNNING "ARRAY(SELECT l.task_run_id FROM weir._active_task_run l WHERE l.status = 'running')"

/* SQL tasks too have their deadline here: the conductor cancels them. */
static void
move_rows(int64 by)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(by)};

	weir_spi("UPDATE weir.run SET deadline = deadline + $1 * interval '1 millisecond' WHERE run_id IN "
			 "(SELECT r.run_id FROM weir.run r WHERE r.live = 'a' AND r.status = 'running' AND r.deadline IS NOT NULL "
			 "ORDER BY r.run_id FOR NO KEY UPDATE SKIP LOCKED)",
			 1, types, values, NULL);
	weir_spi("UPDATE weir.task_run SET not_before = not_before + $1 * interval '1 millisecond' WHERE $1 < 0 AND task_run_id IN "
			 "(SELECT t.task_run_id FROM weir.task_run t WHERE t.task_run_id = ANY (ARRAY(SELECT l.task_run_id FROM weir._active_task_run l "
			 "WHERE l.status = 'ready' AND l.not_before > clock_timestamp())) ORDER BY t.task_run_id FOR NO KEY UPDATE SKIP LOCKED)",
			 1, types, values, NULL);
	weir_spi("UPDATE weir.task_run SET deadline = deadline + $1 * interval '1 millisecond' WHERE task_run_id IN "
			 "(SELECT t.task_run_id FROM weir.task_run t WHERE t.retry_deadline IS NOT NULL "
			 "ORDER BY t.task_run_id FOR NO KEY UPDATE SKIP LOCKED)",
			 1, types, values, NULL);
	weir_spi("UPDATE weir.attempt SET deadline = deadline + $1 * interval '1 millisecond', "
			 "task_deadline = task_deadline + $1 * interval '1 millisecond' WHERE (task_run_id, attempt_no) IN "
			 "(SELECT a.task_run_id, a.attempt_no FROM weir.attempt a WHERE a.task_run_id = ANY (" RUNNING ") "
			 "AND a.status IN ('intended', 'started') AND a.deadline IS NOT NULL "
			 "ORDER BY a.task_run_id FOR NO KEY UPDATE SKIP LOCKED)",
			 1, types, values, NULL);
	weir_spi("UPDATE weir.attempt a SET kind_state = jsonb_set(a.kind_state, '{due_ms}', to_jsonb((a.kind_state->>'due_ms')::bigint + $1)) "
			 "WHERE a.task_run_id = ANY (" RUNNING ") AND a.status IN ('intended', 'started') AND a.kind_state->>'wait' = 'for'",
			 1, types, values, NULL);
}

void
clock_follow(Conductor *c)
{
	int64		offset = clock_offset();
	int64		by = offset - c->clock_offset_ms;

	c->clock_offset_ms = offset;
	if (by > -CLOCK_SET_MS && by < CLOCK_SET_MS)
		return;
	ereport(LOG,
			(errmsg("the system clock was set %s by " INT64_FORMAT " s: deadlines move with it",
					by < 0 ? "back" : "forward", (by < 0 ? -by : by) / 1000)));
	move_flights(c, by);
	breakers_clock_set(c, by);
	quotas_clock_set(c, by);
	pollgroups_clock_set(c, by);
	conductor_begin(c);
	move_rows(by);
	conductor_commit(c);
	c->wake = ENGINE_WAKE_ALL;
	upkeep_soon(c);
	c->has_verdicts = true;		/* as when defer_until_ms is over */
	c->defer_until_ms = c->worker_retry_ms = NEVER;
}
