/*-------------------------------------------------------------------------
 * flight.c
 *	  Running attempts of HTTP kinds: exchange after exchange, each verdict
 *	  committed before it is acted on.
 *
 * Runs in the conductor.  Flights live in its memory only; kind_state and
 * external ids are in weir.attempt.  A transfer that ends writes nothing by
 * itself: its verdict waits for the next transaction (flights_write), and
 * only then does the next exchange become due.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "conductor_int.h"
#include "engine.h"
#include "json.h"
#include "outcome.h"
#include "retry.h"
#include "urlpolicy.h"

#define SIGNIN_TRIES	10		/* system errors of sign-in before the attempt fails */

Flight *
flight_create(Conductor *c, int64 task_run_id, int attempt_no)
{
	bool		found;
	Flight	   *flight = hash_search(c->flights, &task_run_id, HASH_ENTER, &found);

	if (found)
		elog(ERROR, "task run " INT64_FORMAT " is running already", task_run_id);
	memset(flight, 0, sizeof(*flight));
	flight->task_run_id = task_run_id;
	flight->attempt_no = attempt_no;
	flight->cxt = AllocSetContextCreate(c->cxt, "weir flight", ALLOCSET_SMALL_SIZES);
	flight->slot = -1;
	flight->deadline_ms = NEVER;
	flight->due_ms = NEVER;
	return flight;
}

Flight *
flight_find(Conductor *c, int64 task_run_id)
{
	return hash_search(c->flights, &task_run_id, HASH_FIND, NULL);
}

void
flight_remove(Conductor *c, Flight *flight)
{
	if (flight->transfer)
		httpmux_abort(c->mux, flight->transfer);
	MemoryContextDelete(flight->cxt);
	(void) hash_search(c->flights, &flight->task_run_id, HASH_REMOVE, NULL);
}

static MemoryContext
fresh_verdict(Flight *flight)
{
	flight->verdict_cxt = AllocSetContextCreate(flight->cxt, "weir verdict", ALLOCSET_SMALL_SIZES);
	flight->verdict = MemoryContextAllocZero(flight->verdict_cxt, sizeof(KindVerdict));
	kind_verdict_init(flight->verdict);
	return flight->verdict_cxt;
}

static void
drop_verdict(Flight *flight)
{
	MemoryContextDelete(flight->verdict_cxt);
	flight->verdict = NULL;
	flight->verdict_cxt = NULL;
}

/* A verdict of the conductor's own. */
void
flight_verdict(Conductor *c, Flight *flight, KindOutcome outcome, const char *code,
			   const char *message, bool is_user_error, bool is_retryable)
{
	MemoryContext old = MemoryContextSwitchTo(fresh_verdict(flight));

	kind_fail(flight->verdict, is_user_error, is_retryable, code, message);
	flight->verdict->outcome = outcome;
	flight->http_status = 0;
	flight->due_ms = NEVER;
	c->has_verdicts = true;
	MemoryContextSwitchTo(old);
}

void
flight_decide(Conductor *c, Flight *flight)
{
	MemoryContext old = MemoryContextSwitchTo(fresh_verdict(flight));
	KindCall	call;

	flight_fill_call(flight, &call);
	flight->kind->decide(&call, flight->verdict);
	c->has_verdicts = true;
	MemoryContextSwitchTo(old);
}

static void
go_to_step(Flight *flight, KindStep step, int64 delay_ms, bool reset_tries)
{
	int64		now = now_ms();

	if (step != flight->step || reset_tries)
		flight->step_tries = 0;
	flight->step = step;
	flight->due_ms = now + (delay_ms >= 0 ? delay_ms : poll_delay_ms(now - flight->started_ms));
}

/*
 * Cancel an attempt.  What was never sent ends here; what the engine knows is
 * cancelled there and followed to its end; what may or may not have arrived
 * is looked up first (the steps go on, see read_response).
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
	if (!flight->kind->is_http)
	{
		if (flight->slot < 0)
			flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
		else
			sqlpool_cancel(flight);
		return;
	}
	if (flight->transfer != NULL)
		return;
	if (flight->external_run_id != NULL)
	{
		flight->cancel_sent = true;
		go_to_step(flight, KIND_STEP_CANCEL, 0, true);
	}
	else if ((flight->step == KIND_STEP_START || flight->step == KIND_STEP_PREPARE) &&
			 flight->step_tries == 0 && !flight->after_crash)
		flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
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

void
flight_fill_call(const Flight *flight, KindCall *call)
{
	memset(call, 0, sizeof(*call));
	call->step = flight->step;
	call->token = flight->token;
	call->spec = flight->spec;
	call->base_url = flight->connection ? flight->connection->base_url : NULL;
	call->options = flight->connection ? flight->connection->options : NULL;
	call->reference = flight->reference;
	call->external_run_id = flight->external_run_id;
	call->kind_state = flight->kind_state;
	call->intended_at_ms = flight->intended_at_ms;
	call->now_ms = now_ms();
	call->step_tries = flight->step_tries;
	call->after_crash = flight->after_crash;
}

/* A verdict to go on: does the log have to know before we do? */
static void
follow_verdict(Conductor *c, Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	bool		known = flight->external_run_id != NULL || verdict->external_run_id != NULL;

	if (verdict->forget_token && flight->connection)
		signin_forget(c->signin, flight->connection->name);
	if (flight->ending != SQL_CANCEL_NONE && !flight->cancel_sent)
	{
		if (known && verdict->next_step != KIND_STEP_DETAIL)
		{
			verdict->next_step = KIND_STEP_CANCEL;
			verdict->delay_ms = 0;
			flight->cancel_sent = true;
		}
		else if (!known && (verdict->next_step == KIND_STEP_START || verdict->next_step == KIND_STEP_PREPARE))
		{
			drop_verdict(flight);
			flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
			return;
		}
	}
	if (verdict->state_changed || verdict->external_run_id || verdict->external_url)
	{
		c->has_verdicts = true;
		return;
	}
	if (verdict->next_step == flight->step)
		flight->step_tries++;
	go_to_step(flight, verdict->next_step, verdict->delay_ms, verdict->reset_tries);
	drop_verdict(flight);
}

static void
read_response(Conductor *c, Flight *flight)
{
	const HttpResult *result = httpmux_result(flight->transfer);
	MemoryContext old = MemoryContextSwitchTo(fresh_verdict(flight));
	KindCall	call;
	KindResponse response = {0};

	flight_fill_call(flight, &call);
	response.http_status = result->http_status;
	response.body = result->body ? pnstrdup(result->body, result->body_len) : "";
	response.body_len = result->body ? result->body_len : 0;
	response.retry_after_ms = result->retry_after_ms;
	response.content_type = result->content_type ? pstrdup(result->content_type) : NULL;
	response.transport_error = result->error ? pstrdup(result->error) : NULL;
	response.request_sent = result->request_sent;
	flight->http_status = result->http_status;
	flight->retry_after_ms = Max(result->retry_after_ms, 0);

	if (result->refused_by_policy)
		kind_fail(flight->verdict, true, false, "address_not_allowed", response.transport_error);
	else
	{
		/* kind_state must outlive the verdict's context. */
		MemoryContextSwitchTo(flight->cxt);
		flight->kind->response(&call, &response, flight->verdict);
	}
	httpmux_free(c->mux, flight->transfer);
	flight->transfer = NULL;
	MemoryContextSwitchTo(old);

	if (flight->verdict->outcome == KIND_CONTINUE)
		follow_verdict(c, flight);
	else
		c->has_verdicts = true;
}

void
flights_transfers(Conductor *c)
{
	HttpTransfer *transfer;

	while ((transfer = httpmux_finished(c->mux)) != NULL)
	{
		HASH_SEQ_STATUS seq;
		Flight	   *flight;

		if (!signin_handle(c->signin, transfer, now_ms()))
		{
			read_response(c, flight_find(c, *(int64 *) httpmux_arg(transfer)));
			continue;
		}
		hash_seq_init(&seq, c->flights);
		while ((flight = hash_seq_search(&seq)) != NULL)
			if (flight->signin_wait)
			{
				flight->signin_wait = false;
				flight->due_ms = now_ms();
			}
	}
}

/* What a verdict taught us goes into the log: ids, state, the next step. */
static void
write_progress(Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	Oid			types[] = {INT8OID, INT4OID, TEXTOID, TEXTOID, JSONBOID, TEXTOID};
	char		nulls[] = "      ";
	Datum		values[6];

	if (verdict->external_run_id)
		flight->external_run_id = MemoryContextStrdup(flight->cxt, verdict->external_run_id);
	values[0] = Int64GetDatum(flight->task_run_id);
	values[1] = Int32GetDatum(flight->attempt_no);
	nulls[2] = flight->external_run_id ? ' ' : 'n';
	values[2] = flight->external_run_id ? CStringGetTextDatum(flight->external_run_id) : (Datum) 0;
	nulls[3] = verdict->external_url ? ' ' : 'n';
	values[3] = verdict->external_url ? CStringGetTextDatum(verdict->external_url) : (Datum) 0;
	nulls[4] = flight->kind_state ? ' ' : 'n';
	values[4] = flight->kind_state ? DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(flight->kind_state))) : (Datum) 0;
	values[5] = CStringGetTextDatum(kind_step_name(verdict->outcome == KIND_CONTINUE ? verdict->next_step : flight->step));
	weir_spi("UPDATE weir.attempt SET external_run_id = $3, kind_state = $5, step = $6, "
			 "status = CASE WHEN $3 IS NOT NULL AND status = 'intended' THEN 'started' ELSE status END, "
			 "started_at = CASE WHEN $3 IS NOT NULL AND started_at IS NULL THEN clock_timestamp() ELSE started_at END "
			 "WHERE task_run_id = $1 AND attempt_no = $2",
			 6, types, values, nulls);
	if (flight->external_run_id)
		weir_spi("UPDATE weir.task_run SET external_run_id = $3, external_url = coalesce($4, external_url) "
				 "WHERE task_run_id = $1 AND attempt_no = $2",
				 4, types, values, nulls);
}

/* An outcome of the engine as an outcome of the attempt. */
static void
fill_outcome(const Flight *flight, TaskOutcome *outcome)
{
	const KindVerdict *verdict = flight->verdict;

	memset(outcome, 0, sizeof(*outcome));
	outcome->task_run_id = flight->task_run_id;
	outcome->attempt_no = flight->attempt_no;
	outcome->output = verdict->output;
	outcome->items = verdict->items ? json_text(verdict->items) : NULL;
	outcome->rows_read = verdict->rows_read;
	outcome->rows_written = verdict->rows_written;
	outcome->activities = verdict->activities;
	outcome->http_status = flight->http_status;
	outcome->error_code = verdict->error_code;
	outcome->error_message = verdict->error_message;
	outcome->error_detail = verdict->error_detail;
	outcome->is_user_error = verdict->is_user_error;
	outcome->is_retryable = verdict->is_retryable;
	outcome->retry_after_ms = flight->retry_after_ms;

	if (verdict->outcome == KIND_SUCCEEDED)
	{
		outcome->status = ATTEMPT_SUCCEEDED;
		outcome->error_message = NULL;
	}
	else if (flight->ending == SQL_CANCEL_TIMEOUT)
	{
		outcome->status = ATTEMPT_TIMED_OUT;
		outcome->error_code = "timed_out";
		outcome->error_message = "attempt timeout exceeded";
		outcome->is_retryable = true;
		outcome->is_user_error = false;
	}
	else if (flight->ending == SQL_CANCEL_ASKED || verdict->outcome == KIND_CANCELLED)
	{
		outcome->status = ATTEMPT_CANCELLED;
		if (outcome->error_message == NULL)
			outcome->error_message = "the engine cancelled its run";
	}
	else
	{
		outcome->status = ATTEMPT_FAILED;
		if (outcome->error_message == NULL)
			outcome->error_message = "the engine gave no error text";
	}
}

void
flights_write(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	if (!c->has_verdicts)
		return;
	c->has_verdicts = false;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		TaskOutcome outcome;

		if (flight->verdict == NULL)
			continue;
		c->did_work = true;
		if (flight->verdict->outcome == KIND_CONTINUE)
		{
			write_progress(flight);
			if (flight->verdict->next_step == flight->step)
				flight->step_tries++;
			go_to_step(flight, flight->verdict->next_step, flight->verdict->delay_ms, flight->verdict->reset_tries);
			drop_verdict(flight);
			continue;
		}
		/* Whoever holds the pipeline's state lets go some time; the verdict stays. */
		if (!outcome_lock_run(flight->run_id, false))
		{
			c->defer_until_ms = Min(c->defer_until_ms, now_ms() + 200);
			continue;
		}
		if (flight->kind != NULL && flight->kind->is_http && flight->spec != NULL)
			write_progress(flight);
		fill_outcome(flight, &outcome);
		if (!outcome_apply(&outcome))
			ereport(LOG,
					(errmsg("attempt %d of task run " INT64_FORMAT " already had an outcome",
							flight->attempt_no, flight->task_run_id)));
		flight_remove(c, flight);
	}
}

/* "Name: value" lines, NULL-terminated; credentials come as one line. */
static const char **
header_lines(const KindRequest *request, const char *credentials)
{
	int			n = 0;
	const cJSON *header;
	const char **lines = palloc0(sizeof(char *) * (6 + cJSON_GetArraySize(request->headers)));

	lines[n++] = "Accept: application/json";
	if (credentials)
		lines[n++] = credentials;
	if (request->body)
		lines[n++] = psprintf("Content-Type: %s", request->content_type ? request->content_type : "application/json");
	if (request->idempotency_key)
		lines[n++] = psprintf("Idempotency-Key: %s", request->idempotency_key);
	cJSON_ArrayForEach(header, request->headers)
		if (cJSON_IsString(header))
			lines[n++] = psprintf("%s: %s", header->string, header->valuestring);
	return lines;
}

/* Credentials; false: not now (pending, failed, or a verdict was made). */
static bool
sign_in(Conductor *c, Flight *flight, char **credentials)
{
	SignInConnection connection;
	const char *error = NULL;
	bool		is_user_error = false;
	int64		retry_ms = 0;

	*credentials = NULL;
	if (flight->connection == NULL)
		return true;
	connection.name = flight->connection->name;
	connection.kind = flight->connection->kind;
	connection.auth = flight->connection->auth;
	connection.changed_at = flight->connection->changed_at;
	switch (signin_header(c->signin, &connection, now_ms(), credentials, &error, &is_user_error, &retry_ms))
	{
		case SIGNIN_READY:
		case SIGNIN_NONE:
			flight->signin_failures = 0;
			return true;
		case SIGNIN_PENDING:
			flight->signin_wait = true;
			flight->due_ms = NEVER;
			return false;
		case SIGNIN_FAILED:
			break;
	}
	if (is_user_error || ++flight->signin_failures >= SIGNIN_TRIES)
		flight_verdict(c, flight, KIND_FAILED, "sign_in_failed", error, is_user_error, !is_user_error);
	else
		flight->due_ms = now_ms() + Max(retry_ms, 100);
	return false;
}

/* Start the exchange of the step at hand. */
static void
exchange(Conductor *c, Flight *flight)
{
	HttpOptions options = {0};
	KindCall	call;
	KindRequest request = {0};
	KindProblem problem = {0};
	const char *why = NULL,
			   *hint = NULL;
	char	   *credentials = NULL;

	flight_fill_call(flight, &call);
	if (!flight->kind->request(&call, &request, &problem))
	{
		flight_verdict(c, flight, KIND_FAILED, problem.code ? problem.code : "invalid_spec",
					   problem.message, !problem.is_system_error, false);
		return;
	}
	if (!urlpolicy_check_url(request.url, &why, &hint))
	{
		flight_verdict(c, flight, KIND_FAILED, "address_not_allowed", why, true, false);
		return;
	}
	if (!request.without_auth && !sign_in(c, flight, &credentials))
		return;

	options.max_body = (size_t) weir_http_max_body * 1024;
	options.total_timeout_ms = weir_http_timeout;
	flight->transfer = httpmux_start(c->mux, request.method, request.url, header_lines(&request, credentials),
									 request.body, request.body ? strlen(request.body) : 0, &options,
									 &flight->task_run_id);
	flight->due_ms = NEVER;
	if (credentials)
		signin_free_secret(credentials);
}

/* Cancelled long ago and the engine still does not say so. */
static void
give_up_cancel(Conductor *c, Flight *flight)
{
	if (flight->transfer)
		httpmux_abort(c->mux, flight->transfer);
	flight->transfer = NULL;
	if (flight->kind->is_http && flight->verdict == NULL)
		flight_verdict(c, flight, KIND_CANCELLED, "cancel_not_confirmed",
					   "the engine did not confirm the cancel within weir.cancel_grace", false, false);
}

void
flights_act(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int64		now = now_ms();
	bool		in_transaction = false;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (flight->kind == NULL || !flight->kind->is_http || flight->verdict != NULL)
			continue;
		if (flight->ending != SQL_CANCEL_NONE && flight->ending_since_ms + weir_cancel_grace <= now)
		{
			give_up_cancel(c, flight);
			continue;
		}
		if (flight->due_ms > now || flight->transfer != NULL)
			continue;
		/* Secrets are read in a transaction; nothing in it waits. */
		if (!in_transaction)
			conductor_begin(c);
		in_transaction = true;
		exchange(c, flight);
	}
	if (in_transaction)
		conductor_commit(c);
}
