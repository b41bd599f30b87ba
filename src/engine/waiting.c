/*-------------------------------------------------------------------------
 * waiting.c
 *	  Attempts of kind wait: open until a time, a signal, an approval or a
 *	  condition in SQL.
 *
 * Runs in the conductor.  Such an attempt is a flight without exchanges: it
 * holds no worker, and its only timer is its own moment.  What it waits for,
 * and what came for it, is in kind_state of its attempt, committed with the
 * intent and with the request that was taken in; after a crash the flight is
 * made from there, and a moment stays the moment it was.
 *
 * A condition in SQL is looked at by a SQL worker, as the pipeline's owner
 * and read-only; between two looks there is none.  A look is no attempt: it
 * changes looks and next_ms in kind_state or, when the condition holds or
 * cannot be evaluated, writes the outcome (sqltask_look).  A look that left
 * no trace is repeated; three in a row fail the attempt.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "conductor_int.h"
#include "context.h"
#include "definition.h"
#include "json.h"
#include "mem.h"

#define LOOK_EVERY_MS		30000	/* unless the spec says otherwise */
#define LOOK_AGAIN_MS		1000	/* after a look that left no trace */
#define MAX_LOST_LOOKS		3
#define WORKERS_TAKEN_MS	200
#define MAX_SIGNAL			260		/* bytes */

static const cJSON *
state_get(const Flight *flight, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(flight->kind_state, name);
}

static int64
state_int64(const Flight *flight, const char *name, int64 absent)
{
	int64		value;

	return json_int64(state_get(flight, name), &value) ? value : absent;
}

static bool
waits_for(const Flight *flight, const char *what)
{
	const char *is = json_string(state_get(flight, "wait"));

	return is != NULL && strcmp(is, what) == 0;
}

static void
invalid(Conductor *c, Flight *flight, const char *message)
{
	flight_verdict(c, flight, KIND_FAILED, "invalid_spec", message, true, false);
}

static char *
moment_text(int64 epoch_ms)
{
	TimestampTz moment = (epoch_ms - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000) * 1000;
	char	   *text = palloc(MAXDATELEN + 1);

	return JsonEncodeDateTime(text, TimestampTzGetDatum(moment), TIMESTAMPTZOID, NULL);
}

/* ---- what came ---- */

/* An approval was given or refused: who and when goes into output and log. */
static void
decided(Conductor *c, Flight *flight, const cJSON *decision)
{
	bool		approved = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(decision, "approved"));
	const char *by = json_string(cJSON_GetObjectItemCaseSensitive(decision, "by"));
	const char *comment = json_string(cJSON_GetObjectItemCaseSensitive(decision, "comment"));
	MemoryContext old;
	cJSON	   *activity;

	if (approved)
		flight_succeed(c, flight, decision);
	else
		flight_verdict(c, flight, KIND_FAILED, "rejected",
					   psprintf("rejected by %s%s%s", by ? by : "nobody", comment ? ": " : "", comment ? comment : ""),
					   true, false);
	old = MemoryContextSwitchTo(flight->verdict_cxt);
	if (!approved)
		flight->verdict->output = cJSON_Duplicate(decision, true);
	activity = cJSON_CreateObject();
	cJSON_AddStringToObject(activity, "activity", "approval");
	cJSON_AddStringToObject(activity, "activity_type", "approval");
	cJSON_AddStringToObject(activity, "status", approved ? "succeeded" : "failed");
	cJSON_AddItemToObject(activity, "output", cJSON_Duplicate(decision, true));
	flight->verdict->activities = cJSON_CreateArray();
	cJSON_AddItemToArray(flight->verdict->activities, activity);
	MemoryContextSwitchTo(old);
}

/* Has what it waits for come?  Times are for waiting_due(). */
static void
conclude(Conductor *c, Flight *flight)
{
	const cJSON *received = state_get(flight, "received");
	const cJSON *decision = state_get(flight, "decision");

	if (flight->verdict != NULL || flight->ending != SQL_CANCEL_NONE)
		return;
	if (received != NULL)
		flight_succeed(c, flight, cJSON_GetObjectItemCaseSensitive(received, "payload"));
	else if (decision != NULL)
		decided(c, flight, decision);
}

/* ---- intent ---- */

/* A signal that the run has already. */
static void
receive_kept(Flight *flight, const char *name)
{
	static const Oid types[] = {INT8OID, TEXTOID};
	Datum		values[2];
	char	   *text;
	char	   *error = NULL;

	values[0] = Int64GetDatum(flight->run_id);
	values[1] = CStringGetTextDatum(name);
	if (weir_spi("SELECT jsonb_build_object('payload', payload, 'by', sent_by, 'at', sent_at) FROM weir.run_signal "
				 "WHERE run_id = $1 AND name = $2", 2, types, values, NULL) == 0)
		return;
	text = weir_spi_text(0, 1);
	cJSON_AddItemToObject(flight->kind_state, "received", json_parse(text, strlen(text), 16 * 1024 * 1024, &error));
}

static void
begin_time(Conductor *c, Flight *flight, const char *what)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(flight->spec, what);
	bool		is_for = strcmp(what, "for") == 0;
	int64		ms = is_for ? definition_duration_ms(item) : definition_moment_ms(json_string(item));

	if (ms < 0)
	{
		invalid(c, flight, is_for ? "\"for\" is no duration of at most ten years" : "\"until\" is no moment such as \"2026-01-31T06:00:00Z\"");
		return;
	}
	flight->due_ms = is_for ? now_ms() + ms : ms;
	cJSON_AddItemToObject(flight->kind_state, "due_ms", json_from_int64(flight->due_ms));
}

static void
begin_sql(Flight *flight)
{
	const cJSON *every = cJSON_GetObjectItemCaseSensitive(flight->spec, "every");
	int64		every_ms = every ? definition_duration_ms(every) : LOOK_EVERY_MS;

	flight->due_ms = now_ms();
	cJSON_AddItemToObject(flight->kind_state, "every_ms", json_from_int64(Max(every_ms, 1000)));
	cJSON_AddItemToObject(flight->kind_state, "looks", json_from_int64(0));
	cJSON_AddItemToObject(flight->kind_state, "next_ms", json_from_int64(flight->due_ms));
}

/* The spec is rendered; what is waited for becomes part of the intent. */
static void
begin(Conductor *c, Flight *flight)
{
	const char *what = kind_wait_what(flight->spec);
	const char *text = what ? json_string(cJSON_GetObjectItemCaseSensitive(flight->spec, what)) : NULL;

	if (what == NULL)
	{
		invalid(c, flight, "the spec does not say what to wait for");
		return;
	}
	cJSON_AddStringToObject(flight->kind_state, "wait", what);
	if (strcmp(what, "for") == 0 || strcmp(what, "until") == 0)
		begin_time(c, flight, what);
	else if (strcmp(what, "sql") == 0)
		begin_sql(flight);
	else if (text == NULL || text[0] == '\0' || (strcmp(what, "signal") == 0 && strlen(text) > MAX_SIGNAL))
		invalid(c, flight, psprintf("\"%s\" is no text, empty or too long", what));
	else
	{
		cJSON_AddStringToObject(flight->kind_state, what, text);
		if (strcmp(what, "signal") == 0)
			receive_kept(flight, text);
		conclude(c, flight);
	}
}

/* The SQL of a condition is bound where it runs, never rendered. */
static bool
is_sql_wait(const TaskKind *kind, const cJSON *spec)
{
	const char *what = kind == &kind_wait ? kind_wait_what(spec) : NULL;

	return what != NULL && strcmp(what, "sql") == 0;
}

static cJSON *
read_spec(const Flight *flight, TaskContext *context, char **error)
{
	if (is_sql_wait(flight->kind, context->spec))
		return cJSON_Duplicate(context->spec, true);
	return ref_render_json(context->spec, context_resolve, context, error);
}

void
waiting_intend(Conductor *c, Flight *flight)
{
	TaskContext *context = context_read(flight->task_run_id, flight->attempt_no);
	char	   *error = NULL;
	cJSON	   *spec = context ? read_spec(flight, context, &error) : NULL;
	MemoryContext old = MemoryContextSwitchTo(flight->cxt);

	flight->slot = -1;
	flight->kind_state = cJSON_CreateObject();
	if (context == NULL)
		flight_verdict(c, flight, KIND_FAILED, "definition_missing", "the task's definition no longer exists", true, false);
	else if (spec == NULL)
		flight_verdict(c, flight, KIND_FAILED, "invalid_reference", error, true, false);
	else
	{
		flight->spec = cJSON_Duplicate(spec, true);
		if (!is_sql_wait(flight->kind, spec) && !flight_check_spec(c, flight))
			;					/* it is not what a task can wait for */
		else if (flight->kind == &kind_pipeline)
			subrun_start(c, flight);
		else
			begin(c, flight);
	}
	MemoryContextSwitchTo(old);
}

void
waiting_write(Flight *const *flights, int n)
{
	static const Oid types[4] = {INT8ARRAYOID, INT4ARRAYOID, JSONBARRAYOID, JSONBARRAYOID};
	Datum	   *columns[4];
	Datum		values[4];
	int			kept = 0;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (flights[i]->spec == NULL)
			continue;
		columns[0][kept] = Int64GetDatum(flights[i]->task_run_id);
		columns[1][kept] = Int32GetDatum(flights[i]->attempt_no);
		columns[2][kept] = DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(flights[i]->spec)));
		columns[3][kept++] = DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(flights[i]->kind_state)));
	}
	if (kept == 0)
		return;
	values[0] = weir_array(INT8OID, columns[0], kept);
	values[1] = weir_array(INT4OID, columns[1], kept);
	values[2] = weir_array(JSONBOID, columns[2], kept);
	values[3] = weir_array(JSONBOID, columns[3], kept);
	weir_spi("UPDATE weir.attempt a SET request = o.request, kind_state = o.kind_state, status = 'started', "
			 "started_at = coalesce(a.started_at, clock_timestamp()) "
			 "FROM unnest($1, $2, $3, $4) o (task_run_id, attempt_no, request, kind_state) "
			 "WHERE a.task_run_id = o.task_run_id AND a.attempt_no = o.attempt_no",
			 4, types, values, NULL);
}

/* spec and kind_state are what was committed; the context is the flight's. */
void
waiting_recover(Conductor *c, Flight *flight)
{
	flight->slot = -1;
	if (flight->spec == NULL || flight->kind_state == NULL)
	{
		/* The intent ended in a verdict that was not written. */
		waiting_intend(c, flight);
		waiting_write(&flight, 1);
	}
	else if (flight->kind == &kind_pipeline)
		subrun_recover(c, flight);
	else if (waits_for(flight, "sql"))
	{
		/* A worker may be looking: sqlpool_check() finds out. */
		flight->slot = WEIR_MAX_SQL_SLOTS;
		flight->looking = true;
		flight->looks = state_int64(flight, "looks", 0);
	}
	else
	{
		flight->due_ms = state_int64(flight, "due_ms", NEVER);
		conclude(c, flight);
	}
}

/* ---- while it waits ---- */

/* Looks that are due, as far as there are workers. */
static void
start_looks(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int			workers = sqlpool_free(c);
	int			left = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (!flight->look_due)
			continue;
		if (workers-- <= 0)
		{
			left++;
			continue;
		}
		flight->look_due = false;
		flight->looking = true;
		flight->slot = -1;
	}
	/* All workers serve other databases, whose ends nobody tells us. */
	if (left > 0 && !c->in_session && !sqlpool_holds_any(c))
		c->worker_retry_ms = Min(c->worker_retry_ms, now_ms() + WORKERS_TAKEN_MS);
}

static void
time_has_come(Conductor *c, Flight *flight)
{
	MemoryContext old = MemoryContextSwitchTo(c->scratch);
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddStringToObject(output, "until", moment_text(flight->due_ms));
	flight_succeed(c, flight, output);
	MemoryContextSwitchTo(old);
}

/* Outside of transactions, once in every cycle. */
void
waiting_due(Conductor *c, int64 now)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	bool		looks = false;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (flight->kind == NULL || !flight->kind->is_waiting || flight->verdict != NULL)
			continue;
		if (flight->kind == &kind_pipeline)
		{
			if (flight->due_ms <= now)
				c->wake |= ENGINE_WAKE_RUN;
			continue;
		}
		if (flight->due_ms <= now && flight->ending == SQL_CANCEL_NONE)
		{
			if (waits_for(flight, "sql"))
			{
				flight->look_due = true;
				flight->due_ms = NEVER;
			}
			else
				time_has_come(c, flight);
		}
		looks = looks || flight->look_due;
	}
	if (looks)
		start_looks(c);
}

/* No worker holds the look any more; inside a transaction. */
void
waiting_looked(Conductor *c, Flight *flight)
{
	static const Oid types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(flight->task_run_id), Int32GetDatum(flight->attempt_no)};
	bool		recovered = flight->slot == WEIR_MAX_SQL_SLOTS;
	int64		looks;

	flight->looking = false;
	flight->slot = -1;
	c->did_work = true;
	if (weir_spi("SELECT (kind_state->>'looks')::bigint, (kind_state->>'next_ms')::bigint FROM weir.attempt "
				 "WHERE task_run_id = $1 AND attempt_no = $2 AND status IN ('intended', 'started')",
				 2, types, values, NULL) == 0)
	{
		flight_remove(c, flight);
		return;
	}
	looks = weir_spi_int64(0, 1, NULL);
	if (flight->ending != SQL_CANCEL_NONE)
		flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled while it waited", false, false);
	else if (looks > flight->looks || recovered)
	{
		flight->looks = looks;
		flight->start_failures = 0;
		flight->due_ms = weir_spi_int64(0, 2, NULL);
	}
	else if (++flight->start_failures >= MAX_LOST_LOOKS)
		flight_verdict(c, flight, KIND_FAILED, "worker_start_failed",
					   psprintf("no SQL worker could look at the condition as role %u: see the server log", flight->owner),
					   false, true);
	else
		flight->due_ms = now_ms() + LOOK_AGAIN_MS;
}

/* Cancelled, or out of time; perhaps outside of a transaction. */
void
waiting_end(Conductor *c, Flight *flight)
{
	flight->look_due = false;
	flight->due_ms = NEVER;
	if (flight->kind == &kind_pipeline)
		c->wake |= ENGINE_WAKE_RUN; /* subrun_take_in() cancels the run it waits for */
	else if (flight->looking && flight->slot >= 0)
		sqlpool_cancel(flight);
	else
		flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled while it waited", false, false);
}

/* The clock was set: a span stays a span, a moment stays a moment. */
void
waiting_clock_set(Flight *flight, int64 by)
{
	if (flight->due_ms == NEVER || flight->kind != &kind_wait)
		return;
	if (waits_for(flight, "for") || (by < 0 && waits_for(flight, "sql")))
		flight->due_ms += by;
}

/* Does it wait for somebody, with nothing that time alone would change? */
bool
waiting_is_open(const Flight *flight)
{
	return flight->kind != NULL && flight->kind->is_waiting && flight->verdict == NULL && flight->ending == SQL_CANCEL_NONE &&
		flight->due_ms == NEVER && flight->deadline_ms == NEVER && !flight->looking && !flight->look_due;
}

/* ---- requests ---- */

/* What came for waiting attempts was written: their flights hear of it. */
static void
tell_flights(Conductor *c, uint64 n)
{
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Flight	   *flight = flight_find(c, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)));
		char	   *text = SPI_getvalue(table->vals[i], table->tupdesc, 2);
		char	   *error = NULL;
		MemoryContext old;

		if (flight == NULL)
			continue;
		old = MemoryContextSwitchTo(flight->cxt);
		flight->kind_state = json_parse(text, strlen(text), 16 * 1024 * 1024, &error);
		if (flight->kind_state == NULL)
			elog(ERROR, "could not read stored JSON: %s", error);
		conclude(c, flight);
		MemoryContextSwitchTo(old);
	}
}

static void
take_in_signal(Conductor *c, Datum request_id)
{
	static const Oid types[] = {INT8OID};

	weir_spi("INSERT INTO weir.run_signal (run_id, name, payload, sent_by, sent_at) "
			 "SELECT q.run_id, q.name, q.params, q.requested_by, q.requested_at FROM weir.request q WHERE q.request_id = $1 AND q.is_kept "
			 "ON CONFLICT (run_id, name) DO UPDATE SET payload = excluded.payload, sent_by = excluded.sent_by, sent_at = excluded.sent_at",
			 1, types, &request_id, NULL);
	tell_flights(c, weir_spi("UPDATE weir.attempt a SET kind_state = a.kind_state || jsonb_build_object('received', "
							 "jsonb_build_object('payload', q.params, 'by', q.requested_by, 'at', q.requested_at)) FROM weir.request q "
							 "WHERE q.request_id = $1 AND a.signal = q.name AND a.run_id = q.run_id AND NOT a.kind_state ? 'received' "
							 "RETURNING a.task_run_id, a.kind_state",
							 1, types, &request_id, NULL));
}

static void
take_in_decision(Conductor *c, Datum request_id)
{
	static const Oid types[] = {INT8OID};

	tell_flights(c, weir_spi("UPDATE weir.attempt a SET kind_state = a.kind_state || jsonb_build_object('decision', "
							 "jsonb_build_object('approved', q.action = 'approve', 'by', q.requested_by, 'comment', q.reason, 'at', q.requested_at)) "
							 "FROM weir.request q JOIN weir.task_run t ON t.run_id = q.run_id AND t.task_name = q.name AND t.status = 'running' "
							 "WHERE q.request_id = $1 AND a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
							 "AND a.status IN ('intended', 'started') AND a.kind_state ? 'approval' AND NOT a.kind_state ? 'decision' "
							 "RETURNING a.task_run_id, a.kind_state",
							 1, types, &request_id, NULL));
}

/*
 * A signal, or an approval given or refused; the caller deletes the request
 * in the same transaction.  What it did is in the attempts by then: a crash
 * before their outcomes are written loses nothing.  Needs no lock on the
 * run: nobody else changes attempts that wait.
 */
bool
waiting_request(Conductor *c, int64 request_id, const char *action)
{
	if (strcmp(action, "signal") == 0)
		take_in_signal(c, Int64GetDatum(request_id));
	else if (strcmp(action, "approve") == 0 || strcmp(action, "reject") == 0)
		take_in_decision(c, Int64GetDatum(request_id));
	else
		return false;
	return true;
}
