/*-------------------------------------------------------------------------
 * breaker.c
 *	  A connection whose service asks for patience, or is down, gets it from
 *	  all its attempts at once.
 *
 * Retry-After of one answer holds for every exchange of the connection.
 * When nothing but failures to reach the service came back for a while, the
 * circuit opens: nothing is sent but one exchange now and then, and the first
 * answer closes it again.  Attempts that wait for it lose no tries.  Errors
 * that a service itself reports (500) do not count: it is there.
 *
 * Runs in the conductor and is kept in its memory.  While a circuit is open,
 * or the service wants to be left alone for long, a row of weir.circuit says
 * so; who only reads needs to know nothing more.  Whoever takes the row away
 * (weir.resume_connection) ends it.  After a crash every circuit is closed, and
 * what is down is found out anew.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "compat.h"
#include "conductor_int.h"

#define OPENS_AT		10		/* failures in a row */
#define FIRST_PAUSE_MS	1000
#define LONGEST_PAUSE_MS	60000
#define PATIENCE_MS		1000	/* after a 429 that does not say how long */
#define SPREAD_MS		250		/* what waited for the same moment does not come at once */
#define TOLD_FROM_MS	5000	/* a service that asks for less is no news */
#define NAME_LEN		256
#define ERROR_LEN		500

typedef struct Breaker
{
	char		connection[NAME_LEN];	/* hash key */
	int64		changed_at;		/* of the connection; what is known of another address means nothing */
	int64		not_before_ms;	/* the service wants no request earlier */
	int64		asked_ms;		/* when it said so */
	int			asked_status;	/* with this HTTP status */
	int			failures;		/* in a row */
	int			probes;			/* of them, since the circuit opened */
	int64		opened_ms;
	int64		probe_ms;		/* open: when the next exchange may try */
	int64		probe_id;		/* task run that does; 0 none */
	bool		has_row;
	bool		is_open;
	bool		has_changed;	/* since the row was written */
	char		last_error[ERROR_LEN];
} Breaker;

static Breaker *
find(Conductor *c, const Flight *flight, bool create)
{
	char		name[NAME_LEN];
	bool		found;
	Breaker    *breaker;

	if (c->breakers == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = NAME_LEN;
		ctl.entrysize = sizeof(Breaker);
		ctl.hcxt = c->cxt;
		c->breakers = hash_create("weir circuits", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	if (flight->connection == NULL)
		return NULL;
	strlcpy(name, flight->connection->name, sizeof(name));
	breaker = hash_search(c->breakers, name, create ? HASH_ENTER : HASH_FIND, &found);
	if (breaker == NULL)
		return NULL;
	if (!found)
		memset((char *) breaker + NAME_LEN, 0, sizeof(Breaker) - NAME_LEN);
	/* It still talks to where the connection led before: that says nothing of where it leads now. */
	if (breaker->changed_at > flight->connection->changed_at)
		return NULL;
	if (breaker->changed_at < flight->connection->changed_at)
	{
		breaker->changed_at = flight->connection->changed_at;
		breaker->has_changed = breaker->has_changed || breaker->has_row;
		breaker->is_open = false;
		breaker->not_before_ms = breaker->probe_id = 0;
		breaker->failures = breaker->probes = 0;
	}
	return breaker;
}

/* A probe that was not sent after all, or has come back, keeps nobody else from trying. */
static bool
probe_is_under_way(Conductor *c, const Breaker *breaker)
{
	const Flight *probe = flight_find(c, breaker->probe_id);

	return probe != NULL && !probe->via_other && (probe->transfer != NULL || probe->signin_wait);
}

/* An exchange may start now; if not, the flight is due when it may. */
bool
breaker_allows(Conductor *c, Flight *flight)
{
	Breaker    *breaker = find(c, flight, false);
	int64		now = now_ms();
	int64		spread = flight->task_run_id % SPREAD_MS;

	/* Whoever is cancelled does not wait to be heard. */
	if (breaker == NULL || flight->ending != SQL_CANCEL_NONE)
		return true;
	if (breaker->not_before_ms > now)
	{
		flight->due_ms = breaker->not_before_ms + spread;
		return false;
	}
	if (!breaker->is_open)
		return true;
	if (breaker->probe_id != flight->task_run_id && probe_is_under_way(c, breaker))
	{
		flight->due_ms = now + FIRST_PAUSE_MS + spread;
		return false;
	}
	if (breaker->probe_ms > now)
	{
		flight->due_ms = breaker->probe_ms + spread;
		return false;
	}
	breaker->probe_id = flight->task_run_id;
	return true;
}

/* Opens the circuit, or leaves it open for longer. */
static void
open_circuit(Conductor *c, Breaker *breaker, const char *error)
{
	int64		pause = Min(FIRST_PAUSE_MS << Min(breaker->probes, 10), LONGEST_PAUSE_MS);

	pause += (int64) (pause * 0.2 * pg_prng_double(&pg_global_prng_state));
	if (!breaker->is_open)
		breaker->opened_ms = now_ms();
	breaker->is_open = true;
	breaker->probe_ms = now_ms() + pause;
	breaker->has_changed = true;
	strlcpy(breaker->last_error, error, sizeof(breaker->last_error));
	c->wake |= ENGINE_WAKE_TASK;	/* a transaction, to write it down */
}

/* The service says when it wants the next request. */
static void
note_asked(Conductor *c, Breaker *breaker, int status, int64 retry_after_ms)
{
	int64		now = now_ms();
	int64		until = now + (retry_after_ms > 0 ? retry_after_ms : PATIENCE_MS);

	if (until <= breaker->not_before_ms)
		return;
	breaker->not_before_ms = until;
	breaker->asked_ms = now;
	breaker->asked_status = status;
	if (until < now + TOLD_FROM_MS)
		return;
	breaker->has_changed = true;
	c->wake |= ENGINE_WAKE_TASK;	/* a transaction, to write it down */
}

/* What came back.  Of an open circuit only the probe counts: the others were sent before. */
void
breaker_note(Conductor *c, Flight *flight, const KindResponse *response)
{
	bool		is_probe;
	int			status = response->http_status;
	bool		unreachable = status <= 0 || response->transport_error != NULL || status == 502 || status == 503 || status == 504;
	Breaker    *breaker = find(c, flight, unreachable || status == 429);

	if (breaker == NULL)
		return;
	if (status == 429 || (status == 503 && response->retry_after_ms > 0))
		note_asked(c, breaker, status, response->retry_after_ms);
	is_probe = breaker->probe_id == flight->task_run_id;
	if (is_probe)
		breaker->probe_id = 0;
	if (unreachable)
	{
		breaker->failures = Min(breaker->failures + 1, 1000000);
		if (breaker->is_open && is_probe)
			breaker->probes++;
		if (breaker->is_open ? is_probe : breaker->failures >= OPENS_AT)
			open_circuit(c, breaker, response->transport_error ? response->transport_error : psprintf("HTTP %d", status));
		return;
	}
	breaker->failures = breaker->probes = 0;
	if (breaker->is_open || (breaker->has_row && breaker->not_before_ms <= now_ms()))
	{
		breaker->is_open = false;
		breaker->has_changed = true;
		c->wake |= ENGINE_WAKE_TASK;
	}
}

/* Those that waited come back, spread over a moment. */
static void
release(Conductor *c, const char *connection)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int64		now = now_ms();

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->connection != NULL && flight->transfer == NULL && flight->due_ms != NEVER &&
			strcmp(flight->connection->name, connection) == 0)
			flight->due_ms = Min(flight->due_ms, now + flight->task_run_id % SPREAD_MS);
}

/* The wall clock was set: what was a span remains one. */
void
breakers_clock_set(Conductor *c, int64 by)
{
	HASH_SEQ_STATUS seq;
	Breaker    *breaker;

	if (c->breakers == NULL)
		return;
	hash_seq_init(&seq, c->breakers);
	while ((breaker = hash_seq_search(&seq)) != NULL)
	{
		breaker->not_before_ms += by;
		breaker->probe_ms += by;
		breaker->asked_ms += by;
		breaker->has_changed = breaker->has_changed || breaker->has_row;
	}
}

/* Inside a transaction. */
void
breakers_write(Conductor *c)
{
	static const Oid types[] = {TEXTOID, INT8OID, INT8OID, INT4OID, TEXTOID, BOOLOID};
	int64		now = now_ms();
	HASH_SEQ_STATUS seq;
	Breaker    *breaker;

	if (c->breakers == NULL)
		return;
	hash_seq_init(&seq, c->breakers);
	while ((breaker = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[6];
		bool		is_asked = !breaker->is_open && breaker->not_before_ms >= now;

		if (!breaker->has_changed)
			continue;
		values[0] = CStringGetTextDatum(breaker->connection);
		values[1] = Int64GetDatum(is_asked ? breaker->asked_ms : breaker->opened_ms);
		values[2] = Int64GetDatum(is_asked ? breaker->not_before_ms : Max(breaker->probe_ms, breaker->not_before_ms));
		values[3] = Int32GetDatum(breaker->failures);
		values[4] = CStringGetTextDatum(is_asked ? psprintf("HTTP %d with Retry-After", breaker->asked_status) : breaker->last_error);
		values[5] = BoolGetDatum(is_asked);
		if (!breaker->is_open && !is_asked)
		{
			weir_spi("DELETE FROM weir.circuit WHERE connection_name = $1", 1, types, values, NULL);
			ereport(LOG, (errmsg("connection \"%s\" answers again", breaker->connection)));
			release(c, breaker->connection);
		}
		else
		{
			weir_spi("INSERT INTO weir.circuit (connection_name, opened_at, retry_at, failures, last_error, is_asked) "
					 "VALUES ($1, to_timestamp($2 / 1000.0), to_timestamp($3 / 1000.0), $4, $5, $6) "
					 "ON CONFLICT (connection_name) DO UPDATE SET opened_at = excluded.opened_at, retry_at = excluded.retry_at, "
					 "failures = excluded.failures, last_error = excluded.last_error, is_asked = excluded.is_asked",
					 6, types, values, NULL);
			if (!breaker->has_row && is_asked)
				ereport(LOG,
						(errmsg("the service of connection \"%s\" wants no request for " INT64_FORMAT " s", breaker->connection,
								(breaker->not_before_ms - now) / 1000),
						 errhint("weir.resume_connection sends the next one at once.")));
			else if (!breaker->has_row)
				ereport(LOG,
						(errmsg("connection \"%s\" cannot be reached: %s", breaker->connection, breaker->last_error),
						 errdetail("After %d failures in a row one exchange at a time is tried, at longer and longer intervals.", breaker->failures)));
		}
		breaker->has_row = breaker->is_open || is_asked;
		breaker->has_changed = false;
	}
}

/* Pauses before another attempt, of the task runs of a connection, are over. */
static void
end_pauses(Conductor *c, const char *connection)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(connection)};
	uint64		n = weir_spi("UPDATE weir.task_run SET not_before = clock_timestamp() WHERE status = 'ready' AND task_run_id = ANY (ARRAY("
							 "SELECT t.task_run_id FROM weir._active_task_run t WHERE t.status = 'ready' AND t.connection_name = $1 "
							 "AND t.not_before > clock_timestamp() ORDER BY t.task_run_id)) RETURNING task_run_id", 1, types, values, NULL);

	for (uint64 i = 0; i < n; i++)
		ready_again(c, weir_spi_int64(i, 1, NULL));
}

/* What a client took away is forgotten here, too. */
void
breakers_resume(Conductor *c)
{
	static const Oid types[] = {TEXTOID};
	HASH_SEQ_STATUS seq;
	Breaker    *breaker;

	if (c->breakers == NULL)
		return;
	hash_seq_init(&seq, c->breakers);
	while ((breaker = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[] = {CStringGetTextDatum(breaker->connection)};

		if (!breaker->has_row || weir_spi("SELECT FROM weir.circuit WHERE connection_name = $1", 1, types, values, NULL) > 0)
			continue;
		breaker->is_open = breaker->has_row = breaker->has_changed = false;
		breaker->not_before_ms = breaker->probe_id = 0;
		breaker->failures = breaker->probes = 0;
		release(c, breaker->connection);
		end_pauses(c, breaker->connection);
		ereport(LOG, (errmsg("connection \"%s\" is used again, as was asked for", breaker->connection)));
	}
}

/* A conductor begins with all circuits closed. */
void
breakers_reset(void)
{
	weir_spi("DELETE FROM weir.circuit", 0, NULL, NULL, NULL);
}
