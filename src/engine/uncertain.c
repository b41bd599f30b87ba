/*-------------------------------------------------------------------------
 * uncertain.c
 *	  Attempts of which nobody knows whether the engine began them.
 *
 * The answer to a request that starts work was lost, and the engine offers
 * nothing to look it up by.  What follows is the task's on_uncertain: the
 * attempt fails, it counts as done, it is sent again, or it waits until
 * somebody who looked says what happened (weir.adopt, weir.resolve).
 *
 * Runs in the conductor.  That an attempt waits, and what was said of it, is
 * in its kind_state, under "uncertain" and "resolution": committed before
 * anything follows from it, and found there after a crash.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "conductor_int.h"
#include "httpmux.h"
#include "json.h"
#include "kind.h"

#define MAX_SENT_AGAIN	5
#define ASK_FIRST_MS	30000	/* for an engine to say what came of an attempt whose time is up */
#define AWAY_MS			10000	/* a deadline is never so late unless nobody looked */

bool
uncertain_waits(const Flight *flight)
{
	return flight->kind_state != NULL && cJSON_HasObjectItem(flight->kind_state, "uncertain");
}

static void
drop(Flight *flight, const char *key)
{
	cJSON_DeleteItemFromObjectCaseSensitive(flight->kind_state, key);
}

/* Go on with a step as if the engine's answer had said so. */
static void
go_on(Flight *flight, KindStep step, int64 delay_ms)
{
	KindVerdict *verdict = flight->verdict;

	kind_verdict_init(verdict);
	verdict->outcome = KIND_CONTINUE;
	verdict->next_step = step;
	verdict->delay_ms = delay_ms;
	verdict->state_changed = true;
	verdict->reset_tries = true;
}

/*
 * What is not known to have begun begins: another START of the same attempt.
 * Where runs are told apart by what was there before (TaskKind.start_place),
 * that is looked at anew, as by an attempt that has begun nothing.
 */
static void
send_again(Flight *flight, int64 delay_ms)
{
	KindStep	step = KIND_STEP_START;
	KindCall	call;

	drop(flight, "maybe_started");
	flight->after_crash = false;
	if (cJSON_HasObjectItem(flight->kind_state, "start_place"))
	{
		drop(flight, "start_place");
		flight_fill_call(flight, &call);
		step = flight->kind->first_step(&call);
	}
	go_on(flight, step, delay_ms);
}

/* Sent again for ever, a request that takes the service down would never end. */
static bool
may_send_again(Flight *flight)
{
	int64		sent = 0;

	(void) json_int64(cJSON_GetObjectItemCaseSensitive(flight->kind_state, "sent_again"), &sent);
	if (sent >= MAX_SENT_AGAIN)
		return false;
	drop(flight, "sent_again");
	cJSON_AddItemToObject(flight->kind_state, "sent_again", json_from_int64(sent + 1));
	return true;
}

static void
ask(Flight *flight)
{
	cJSON	   *note = cJSON_CreateObject();

	cJSON_AddStringToObject(note, "at", pstrdup(timestamptz_to_str(GetCurrentTimestamp())));
	cJSON_AddStringToObject(note, "message", flight->verdict->error_message ? flight->verdict->error_message : "");
	cJSON_AddItemToObject(flight->kind_state, "uncertain", note);
	go_on(flight, flight->step, 0);
}

static void
assume(Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	const char *message = verdict->error_message;
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddBoolToObject(output, "assumed_started", true);
	if (message)
		cJSON_AddStringToObject(output, "reason", message);
	kind_verdict_init(verdict);
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = output;
}

/*
 * The verdict is there and not yet written: if it says that nothing is known,
 * the task's policy replaces it.  Where a run of the engine has a name there
 * is something to look up, and an attempt that is ending needs no policy.
 */
void
uncertain_consider(Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	MemoryContext old;

	if (verdict->outcome != KIND_FAILED || verdict->error_code == NULL || strcmp(verdict->error_code, "outcome_unknown") != 0 ||
		flight->external_run_id != NULL || verdict->external_run_id != NULL || flight->ending != SQL_CANCEL_NONE)
		return;
	old = MemoryContextSwitchTo(flight->cxt);
	switch (flight->on_uncertain)
	{
		case UNCERTAIN_ASK:
			ask(flight);
			break;
		case UNCERTAIN_SEND_AGAIN:
			if (may_send_again(flight))
				send_again(flight, -1);
			break;
		case UNCERTAIN_ASSUME_STARTED:
			assume(flight);
			break;
		case UNCERTAIN_FAIL:
			break;
	}
	MemoryContextSwitchTo(old);
}

UncertainPolicy
uncertain_policy(const char *word)
{
	static const char *const words[] = {
		[UNCERTAIN_FAIL] = "fail",
		[UNCERTAIN_ASK] = "ask",
		[UNCERTAIN_ASSUME_STARTED] = "assume_started",
		[UNCERTAIN_SEND_AGAIN] = "send_again",
	};

	for (int i = 0; word != NULL && i < lengthof(words); i++)
		if (strcmp(words[i], word) == 0)
			return (UncertainPolicy) i;
	return UNCERTAIN_FAIL;
}

/* Somebody has said what happened: the attempt goes on, or ends. */
void
uncertain_conclude(Conductor *c, Flight *flight)
{
	const cJSON *resolution = cJSON_GetObjectItemCaseSensitive(flight->kind_state, "resolution");
	const char *decision,
			   *by,
			   *reason;
	MemoryContext old;

	if (resolution == NULL || flight->verdict != NULL || flight->ending != SQL_CANCEL_NONE)
		return;
	old = MemoryContextSwitchTo(flight->cxt);
	decision = pstrdup(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(resolution, "decision")));
	by = pstrdup(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(resolution, "by")));
	reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(resolution, "reason"));
	reason = reason ? psprintf(": %s", reason) : "";
	if (strcmp(decision, "succeeded") == 0)
	{
		cJSON	   *output = cJSON_CreateObject();

		cJSON_AddStringToObject(output, "resolved_by", by);
		flight_succeed(c, flight, output);
	}
	else
	{
		/* A verdict to build upon. */
		flight_verdict(c, flight, KIND_FAILED, "resolved_as_failed", psprintf("resolved as failed by %s%s", by, reason), true, false);
		if (strcmp(decision, "send_again") == 0)
			send_again(flight, 0);
		else if (strcmp(decision, "adopt") == 0)
		{
			const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(resolution, "external_run_id"));

			flight->after_crash = false;
			drop(flight, "maybe_started");
			go_on(flight, KIND_STEP_POLL, 0);
			flight->verdict->external_run_id = pstrdup(id);
		}
	}
	drop(flight, "uncertain");
	/* Who said so stays in the log of an attempt that goes on. */
	drop(flight, "resolved");
	cJSON_AddItemToObject(flight->kind_state, "resolved", cJSON_DetachItemFromObjectCaseSensitive(flight->kind_state, "resolution"));
	MemoryContextSwitchTo(old);
}

/*
 * Its time may have run out while nobody looked.  A run that can be cancelled
 * is followed to its end all the same; whatever else is given up is never
 * asked for again (flight_end), so it is asked before that.
 */
void
uncertain_ask_first(Flight *flight)
{
	if (flight->kind->abandon == NULL)
		return;
	flight->asked_first_ms = now_ms();
	flight->deadline_ms = Max(flight->deadline_ms, flight->asked_first_ms + ASK_FIRST_MS);
}

/*
 * A moment that is long past when we come to it passed while nobody looked:
 * the machine slept, or this process was stopped.  The same then, at once and
 * through another connection, since what was asked before may be lost.  False:
 * nothing is to be asked, or it was and there was no answer in time.
 */
bool
uncertain_ask_late(Conductor *c, Flight *flight, int64 moment_ms)
{
	int64		now = now_ms();

	if (now - moment_ms < AWAY_MS || flight->ending != SQL_CANCEL_NONE || flight->kind == NULL || !flight->kind->is_http ||
		flight->kind->abandon == NULL || flight_can_cancel(flight) || uncertain_waits(flight))
		return false;
	if (flight->verdict != NULL)
		return true;			/* that is the answer */
	if (flight->asked_first_ms >= moment_ms)
		return now < flight->asked_first_ms + ASK_FIRST_MS;
	uncertain_ask_first(flight);
	if (flight->step != KIND_STEP_POLL)
		return true;
	if (flight->transfer != NULL)
		httpmux_abort(c->mux, flight->transfer);
	flight->transfer = NULL;
	flight_go_to_step(flight, KIND_STEP_POLL, 0, true);
	return true;
}

/* Is there anything in a run, whose time was over at that moment, that is asked before it is given up? */
bool
uncertain_ask_run(Conductor *c, int64 run_id, int64 moment_ms)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	bool		asked = false;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->run_id == run_id && uncertain_ask_late(c, flight, moment_ms))
			asked = true;
	return asked;
}

/* It waited for somebody; it need not any more. */
void
uncertain_end(Conductor *c, Flight *flight)
{
	flight_verdict(c, flight, KIND_FAILED, "outcome_unknown",
				   "ended before anybody said whether the engine began; its work may still be going on", false, false);
	flight->verdict->may_go_on = true;
}

/*
 * A decision that was asked for; the caller deletes the request in the same
 * transaction.  One that came too late changes nothing.
 */
bool
uncertain_request(Conductor *c, int64 request_id, const char *action)
{
	static const Oid types[] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(request_id)};
	Flight	   *flight;
	MemoryContext old;
	char	   *text;
	char	   *error = NULL;

	if (strcmp(action, "resolve") != 0)
		return false;
	if (weir_spi("UPDATE weir.attempt a SET kind_state = a.kind_state || jsonb_build_object('resolution', jsonb_strip_nulls(jsonb_build_object("
				 "'decision', q.name, 'external_run_id', q.external_run_id, 'by', q.requested_by, 'reason', q.reason, 'at', q.requested_at))) "
				 "FROM weir.request q JOIN weir.task_run t ON t.task_run_id = q.task_run_id "
				 "WHERE q.request_id = $1 AND a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no AND a.status IN ('intended', 'started') "
				 "AND a.kind_state ? 'uncertain' AND NOT a.kind_state ? 'resolution' RETURNING a.task_run_id, a.kind_state",
				 1, types, values, NULL) == 0)
		return true;
	flight = flight_find(c, weir_spi_int64(0, 1, NULL));
	if (flight == NULL)
		return true;
	text = weir_spi_text(0, 2);
	old = MemoryContextSwitchTo(flight->cxt);
	flight->kind_state = json_parse_stored(text, &error);
	MemoryContextSwitchTo(old);
	if (flight->kind_state == NULL)
		elog(ERROR, "could not read stored JSON: %s", error);
	uncertain_conclude(c, flight);
	return true;
}
