/*-------------------------------------------------------------------------
 * startplace.c
 *	  Attempts whose runs could be taken for each other's.
 *
 * Runs in the conductor.  A run without a mark of ours is found after a lost
 * answer, or a crash, by where and when it began (TaskKind.start_place).  So
 * that it is followed by one attempt and no other:
 *
 *	  - at one place attempts begin one after the other: while one may have
 *		begun a run whose id nobody knows, no other looks or starts there.
 *		That it may is committed before its START, as kind_state.start_place;
 *		so after a crash there is one such attempt, and not all that were
 *		about to begin
 *	  - a run that another attempt follows or followed is never taken: of
 *		attempts that go on the flights tell, of others weir.attempt
 *	  - where another attempt ended, or waits for a decision (uncertain.c),
 *		and may have begun the run that is found, a person decides
 *
 * Who waits for another sends nothing and is not asked: its due_ms is NEVER
 * until its turn has come.  What begins there by other hands, or from another
 * database, is not known here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "compare.h"
#include "conductor_int.h"

/* Where it begins; NULL if its run cannot be taken for another one.  Read once. */
static const char *
place_of(Flight *flight)
{
	MemoryContext old;
	KindCall	call;

	if (flight->has_start_place || flight->kind == NULL || flight->kind->start_place == NULL || flight->spec == NULL)
		return flight->start_place;
	old = MemoryContextSwitchTo(flight->cxt);
	flight_fill_call(flight, &call);
	flight->start_place = flight->kind->start_place(&call, &flight->start_lag_ms);
	flight->has_start_place = true;
	MemoryContextSwitchTo(old);
	return flight->start_place;
}

/* May it have begun a run whose id nobody knows? */
static bool
may_have_begun(const Flight *flight)
{
	return flight->external_run_id == NULL && flight->start_place != NULL &&
		cJSON_HasObjectItem(flight->kind_state, "start_place");
}

/* Does it begin now, so that no other may?  Not while it waits itself, for its turn or for somebody's decision. */
static bool
is_beginning(const Flight *flight)
{
	if (flight->waits_for_place || uncertain_waits(flight))
		return false;
	if (flight->step != KIND_STEP_PREPARE || flight->external_run_id != NULL)
		return may_have_begun(flight);
	return flight->transfer != NULL || (flight->verdict ? flight->verdict->outcome == KIND_CONTINUE : may_have_begun(flight));
}

/* Is it another attempt that begins, or has begun, at this one's place? */
static bool
is_neighbour(const Flight *flight, Flight *other)
{
	return other != flight && place_of(other) != NULL && strcmp(other->start_place, flight->start_place) == 0;
}

bool
start_place_allows(Conductor *c, Flight *flight)
{
	HASH_SEQ_STATUS seq;
	Flight	   *other;

	if (flight->step != KIND_STEP_PREPARE || flight->external_run_id != NULL || place_of(flight) == NULL)
		return true;
	hash_seq_init(&seq, c->flights);
	while ((other = hash_seq_search(&seq)) != NULL)
	{
		if (!is_neighbour(flight, other) || !is_beginning(other))
			continue;
		hash_seq_term(&seq);
		flight->waits_for_place = c->places_awaited = true;
		flight->due_ms = NEVER;
		trouble_say(flight, psprintf("waits because attempt %d of task run " INT64_FORMAT " begins at the same place, and whose run is whose could not be told otherwise",
									 other->attempt_no, other->task_run_id));
		return false;
	}
	return true;
}

/* By place; there, who begins before those who wait, and these in the order of their task runs */
static int
by_turn(const ListCell *a, const ListCell *b)
{
	const Flight *one = lfirst(a);
	const Flight *other = lfirst(b);
	int			result = strcmp(one->start_place, other->start_place);

	if (result == 0)
		result = one->waits_for_place - other->waits_for_place;
	return result != 0 ? result : compare_int64(&one->task_run_id, &other->task_run_id);
}

/* At each place where nobody begins any more, the first of those who wait may. */
void
start_places_hand_on(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	List	   *all = NIL;
	ListCell   *cell;
	const char *place = NULL;

	if (!c->places_awaited)
		return;
	c->places_awaited = false;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (place_of(flight) != NULL && (flight->waits_for_place || is_beginning(flight)))
			all = lappend(all, flight);
	list_sort(all, by_turn);
	foreach(cell, all)
	{
		flight = lfirst(cell);
		if (!flight->waits_for_place)
			place = flight->start_place;
		else if (place != NULL && strcmp(place, flight->start_place) == 0)
			c->places_awaited = true;
		else
		{
			place = flight->start_place;
			flight->waits_for_place = false;
			if (flight->verdict == NULL && flight->due_ms == NEVER)
				flight->due_ms = now_ms();
		}
	}
	list_free(all);
}

/* Attempts that ended at this place, and not long before ours was intended. */
static void
add_ended(Conductor *c, const Flight *flight, cJSON *taken, int *n_unknown)
{
	static const Oid types[] = {TEXTOID, INT8OID};
	MemoryContext old = CurrentMemoryContext;
	Datum		values[2];
	uint64		n;

	conductor_begin(c);
	values[0] = CStringGetTextDatum(flight->start_place);
	values[1] = Int64GetDatum(flight->intended_at_ms - flight->start_lag_ms);
	n = weir_spi("SELECT external_run_id FROM weir.attempt WHERE start_place = $1 AND ended_at >= to_timestamp($2 / 1000.0)",
				 2, types, values, NULL);
	MemoryContextSwitchTo(old);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *id = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		if (id != NULL)
			cJSON_AddItemToArray(taken, cJSON_CreateString(id));
		else
			(*n_unknown)++;
	}
	conductor_commit(c);
	MemoryContextSwitchTo(old);
}

void
start_place_fill(Conductor *c, Flight *flight, KindCall *call)
{
	HASH_SEQ_STATUS seq;
	Flight	   *other;
	cJSON	   *taken;

	if ((flight->step != KIND_STEP_PREPARE && flight->step != KIND_STEP_LOOKUP) || place_of(flight) == NULL || !may_have_begun(flight))
		return;
	taken = cJSON_CreateArray();
	add_ended(c, flight, taken, &call->n_unknown);
	hash_seq_init(&seq, c->flights);
	while ((other = hash_seq_search(&seq)) != NULL)
	{
		const char *id = other->verdict && other->verdict->external_run_id ? other->verdict->external_run_id : other->external_run_id;

		if (!is_neighbour(flight, other))
			continue;
		if (id != NULL)
			cJSON_AddItemToArray(taken, cJSON_CreateString(id));
		else if (may_have_begun(other))
			call->n_unknown++;
	}
	call->taken = taken;
}
