/*-------------------------------------------------------------------------
 * flightend.c
 *	  How an attempt of an HTTP kind ends when somebody wants it to: cancelled,
 *	  timed out, given up.
 *
 * Runs in the conductor.  Work that has an id in the engine is cancelled there
 * and followed to its end; of what has none the kind says what is known; and
 * what never was sent ends here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "conductor_int.h"
#include "engine.h"
#include "mem.h"

/* Was START sent by this attempt, and nobody read the answer? */
static bool
may_have_started(const Flight *flight)
{
	return (flight->after_crash && flight->step != KIND_STEP_PREPARE) ||
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(flight->kind_state, "maybe_started"));
}

/* May the work of this attempt be going on in the engine, so that no other attempt may follow? */
bool
flight_may_go_on(const Flight *flight)
{
	if (flight->kind->is_resumable)
		return false;
	return flight->external_run_id != NULL || may_have_started(flight) || flight->step == KIND_STEP_LOOKUP;
}

bool
flight_can_cancel(const Flight *flight)
{
	KindCall	call;

	if (flight->kind->can_cancel == NULL)
		return false;
	flight_fill_call(flight, &call);
	return flight->kind->can_cancel(&call);
}

/* What step_tries is once the verdict to go on was followed. */
static int
tries_after(const Flight *flight)
{
	return flight->verdict->next_step != flight->step || flight->verdict->reset_tries ? 0 : flight->step_tries + 1;
}

/* flight_can_cancel() once the verdict to go on was followed, of a kind that is_resumable. */
static bool
will_cancel(Flight *flight)
{
	KindCall	call;

	flight_fill_call(flight, &call);
	call.step_tries = tries_after(flight);
	call.step = flight->verdict->next_step;
	return flight->kind->can_cancel(&call);
}

/* The kind cannot cancel anything: whatever is under way is left to itself. */
static void
abandon(Conductor *c, Flight *flight)
{
	bool		is_sent = flight->transfer != NULL || (flight->after_crash && !flight->kind->is_resumable);
	MemoryContext old;
	KindCall	call;

	if (flight->transfer)
		httpmux_abort(c->mux, flight->transfer);
	flight->transfer = NULL;
	old = MemoryContextSwitchTo(flight_fresh_verdict(flight));
	flight_fill_call(flight, &call);
	flight->kind->abandon(&call, is_sent, flight->verdict);
	flight_verdict_made(c, flight);
	MemoryContextSwitchTo(old);
}

/*
 * Cancel an attempt.  What was never sent ends here; what the engine knows is
 * cancelled there and followed to its end; what may or may not have arrived
 * is looked up first (the steps go on, see flight_turn_to_cancel).
 */
void
flight_end(Conductor *c, Flight *flight, int why)
{
	if (flight->ending != SQL_CANCEL_NONE)
		return;
	flight->ending = why;
	flight->ending_since_ms = now_ms();
	if (flight->verdict != NULL || flight->kind == NULL)
		return;
	if (flight->kind->is_waiting)
	{
		waiting_end(c, flight);
		return;
	}
	if (!flight->kind->is_http)
	{
		if (flight->slot < 0)
			flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
		else
			sqlpool_cancel(flight);
		return;
	}
	if (uncertain_waits(flight))
	{
		uncertain_end(c, flight);
		return;
	}
	if (flight->kind->abandon != NULL && !flight_can_cancel(flight))
	{
		abandon(c, flight);
		return;
	}
	if (flight->transfer != NULL)
		return;
	if (flight->external_run_id != NULL || (flight->kind->is_resumable && flight->step != KIND_STEP_DETAIL))
	{
		flight->cancel_sent = true;
		flight_go_to_step(flight, KIND_STEP_CANCEL, 0, true);
	}
	else if ((flight->step == KIND_STEP_START || flight->step == KIND_STEP_PREPARE) &&
			 !may_have_started(flight))
		flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
	else if (flight->step != KIND_STEP_START && flight->due_ms != NEVER)
		flight->due_ms = Min(flight->due_ms, flight->ending_since_ms);	/* not when a circuit allows it */
}

void
flights_end_run(Conductor *c, int64 run_id, int why)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->run_id == run_id)
			flight_end(c, flight, why);
}

/* A verdict to go on, of a kind that does one thing after another: the next one is not begun. */
static void
give_up_between(Conductor *c, Flight *flight)
{
	bool		is_over = flight->verdict->external_run_over;
	bool		has_changed = flight->verdict->state_changed;

	flight->step_tries = tries_after(flight);
	flight->step = flight->verdict->next_step;
	flight_drop_verdict(flight);
	abandon(c, flight);
	flight->verdict->external_run_over = is_over;
	flight->verdict->state_changed = has_changed;
}

/*
 * A verdict to go on, of an attempt that is to end and whose engine has not
 * been told: the next step is CANCEL if there is something to cancel.  False:
 * the attempt ends here instead.
 */
bool
flight_turn_to_cancel(Conductor *c, Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	bool		known = flight->kind->is_resumable ? will_cancel(flight) :
		flight->external_run_id != NULL || verdict->external_run_id != NULL;

	if (known && verdict->next_step != KIND_STEP_DETAIL)
	{
		verdict->next_step = KIND_STEP_CANCEL;
		verdict->delay_ms = 0;
		flight->cancel_sent = true;
	}
	else if (flight->kind->is_resumable && verdict->next_step != KIND_STEP_DETAIL)
	{
		give_up_between(c, flight);
		return false;
	}
	/* A START to be repeated is repeated: its answer says what to cancel. */
	else if (!known && (verdict->next_step == KIND_STEP_START || verdict->next_step == KIND_STEP_PREPARE) &&
			 !(flight->step == KIND_STEP_START && may_have_started(flight)))
	{
		flight_drop_verdict(flight);
		flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
		return false;
	}
	return true;
}

/* The same of a kind that is_resumable: it says how far it came, and what may go on. */
static void
give_up_unconfirmed(Conductor *c, Flight *flight)
{
	MemoryContext old;

	abandon(c, flight);
	old = MemoryContextSwitchTo(flight->verdict_cxt);
	kind_fail(flight->verdict, false, true, "cancel_not_confirmed",
			  psprintf("the cancel was not confirmed within weir.cancel_grace; %s", flight->verdict->error_message));
	MemoryContextSwitchTo(old);
}

/* Cancelled long ago and the engine still does not say so. */
void
flight_give_up_cancel(Conductor *c, Flight *flight)
{
	bool		goes_on = flight_may_go_on(flight) || (flight->transfer != NULL && flight->starts_work);

	if (flight->kind->is_resumable && flight->verdict == NULL)
	{
		give_up_unconfirmed(c, flight);
		return;
	}
	if (flight->transfer)
		httpmux_abort(c->mux, flight->transfer);
	flight->transfer = NULL;
	if (flight->kind->is_http && flight->verdict == NULL)
	{
		flight_verdict(c, flight, KIND_FAILED, "cancel_not_confirmed",
					   goes_on ? "the engine did not confirm the cancel within weir.cancel_grace; its run may still be going on" :
					   "the engine did not answer within weir.cancel_grace",
					   false, !goes_on);
		flight->verdict->may_go_on = goes_on;
	}
}
