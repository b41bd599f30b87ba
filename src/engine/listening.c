/*-------------------------------------------------------------------------
 * listening.c
 *	  Attempts that wait for what arrives at a place they share.
 *
 * Runs in the conductor.  Of the flights that wait at one place (a queue)
 * one asks, and the others are put off meanwhile: however many wait, the
 * place is asked at the pace of one.  What the one got for others is handed
 * to them as verdicts, which are written in the next transaction like all
 * others.  Nothing here is kept anywhere: what is handed over and not yet
 * committed when the process dies comes again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "conductor_int.h"

/* Where a flight listens; NULL if it does not.  Read once. */
static const char *
place_of(Flight *flight)
{
	MemoryContext old;
	KindCall	call;

	if (flight->place != NULL || flight->kind == NULL || flight->kind->place == NULL || flight->spec == NULL)
		return flight->place;
	old = MemoryContextSwitchTo(flight->cxt);
	flight_fill_call(flight, &call);
	flight->place = flight->kind->place(&call, &flight->every_ms);
	MemoryContextSwitchTo(old);
	return flight->place;
}

static bool
is_neighbour(Flight *flight, Flight *other)
{
	return other != flight && other->kind == flight->kind && other->ending == SQL_CANCEL_NONE &&
		place_of(other) != NULL && strcmp(other->place, flight->place) == 0;
}

/* The flight is about to ask: the others need not. */
void
listening_share(Conductor *c, Flight *flight)
{
	HASH_SEQ_STATUS seq;
	Flight	   *other;
	int64		now = now_ms();

	if (flight->step != KIND_STEP_POLL || place_of(flight) == NULL)
		return;
	hash_seq_init(&seq, c->flights);
	while ((other = hash_seq_search(&seq)) != NULL)
		if (is_neighbour(flight, other) && other->step == KIND_STEP_POLL && other->transfer == NULL &&
			other->verdict == NULL && other->due_ms != NEVER)
			other->due_ms = Max(other->due_ms, now + other->every_ms);
}

/* Fill in call->others; *flights are they, in that order. */
void
listening_fill(Conductor *c, Flight *flight, KindCall *call, Flight ***flights)
{
	HASH_SEQ_STATUS seq;
	Flight	   *other;
	KindOther  *others;
	int			n = 0;

	*flights = NULL;
	if (flight->step != KIND_STEP_POLL || place_of(flight) == NULL)
		return;
	others = palloc(sizeof(KindOther) * hash_get_num_entries(c->flights));
	*flights = palloc(sizeof(Flight *) * hash_get_num_entries(c->flights));
	hash_seq_init(&seq, c->flights);
	while ((other = hash_seq_search(&seq)) != NULL)
	{
		KindCall   *its;

		if (!is_neighbour(flight, other))
			continue;
		its = palloc(sizeof(KindCall));
		flight_fill_call(other, its);
		others[n].call = its;
		others[n].can_take = other->step == KIND_STEP_POLL && other->transfer == NULL && other->verdict == NULL;
		(*flights)[n++] = other;
	}
	call->others = others;
	call->n_others = n;
}

/* What a verdict has for others becomes their verdicts. */
void
listening_deliver(Conductor *c, KindVerdict *verdict, Flight *const *flights, int n)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, verdict->deliveries)
	{
		int			i = (int) cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "other"));

		if (i >= 0 && i < n && flights[i]->verdict == NULL && flights[i]->transfer == NULL)
			flight_deliver(c, flights[i], cJSON_GetObjectItemCaseSensitive(item, "callback"));
	}
	cJSON_Delete(verdict->deliveries);
	verdict->deliveries = NULL;
}

/*
 * May this attempt use what the verdict says only one may use?  If another
 * one has, the callback is marked, and the kind lets go of it.
 */
void
listening_once(Flight *flight, const KindVerdict *verdict)
{
	static const Oid types[3] = {TEXTOID, INT8OID, INT4OID};
	cJSON	   *callback = cJSON_GetObjectItemCaseSensitive(flight->kind_state, "callback");
	Datum		values[3];

	if (verdict->once_key == NULL || callback == NULL)
		return;
	values[0] = CStringGetTextDatum(verdict->once_key);
	values[1] = Int64GetDatum(flight->task_run_id);
	values[2] = Int32GetDatum(flight->attempt_no);
	if (weir_spi("SELECT FROM weir.attempt WHERE callback_key = $1 AND NOT (task_run_id = $2 AND attempt_no = $3) "
				 "AND kind_state #>> '{callback,duplicate}' IS NULL LIMIT 1",
				 3, types, values, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(flight->cxt);

		cJSON_AddTrueToObject(callback, "duplicate");
		MemoryContextSwitchTo(old);
	}
}
