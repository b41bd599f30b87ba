/*-------------------------------------------------------------------------
 * flight.c
 *	  Running attempts of HTTP kinds: exchange after exchange, each verdict
 *	  committed before it is acted on.
 *
 * Runs in the conductor.  Flights live in its memory only; kind_state and
 * external ids are in weir.attempt.  A transfer that ends writes nothing by
 * itself: its verdict waits for the next transaction (flightwrite.c), and
 * only then does the next exchange become due.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "conductor_int.h"
#include "engine.h"
#include "mem.h"
#include "outgoing.h"
#include "proxyauth.h"
#include "route.h"
#include "urlpolicy.h"

#define ANSWERS_BYTES	((Size) 1024 * 1024)	/* that may pile up in the memory of an attempt */
#define SIGNIN_TRIES	10		/* system errors of sign-in before the attempt fails */
#define MANY_TRIES		1000000	/* no kind asks for anything so often */
#define PROXY_TRIES		3		/* exchanges that a proxy refuses for its credentials, before the attempt fails */
#define PROXY_PAUSE_MS	1000	/* after the first of them; then twice that */

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
	flight->task_deadline_ms = NEVER;
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
	quota_give_back(c, flight);
	MemoryContextDelete(flight->cxt);
	(void) hash_search(c->flights, &flight->task_run_id, HASH_REMOVE, NULL);
}

MemoryContext
flight_fresh_verdict(Flight *flight)
{
	flight->verdict_cxt = AllocSetContextCreate(flight->cxt, "weir verdict", ALLOCSET_SMALL_SIZES);
	flight->verdict = MemoryContextAllocZero(flight->verdict_cxt, sizeof(KindVerdict));
	kind_verdict_init(flight->verdict);
	return flight->verdict_cxt;
}

void
flight_drop_verdict(Flight *flight)
{
	MemoryContextDelete(flight->verdict_cxt);
	flight->verdict = NULL;
	flight->verdict_cxt = NULL;
}

void
flight_verdict_made(Conductor *c, Flight *flight)
{
	flight->http_status = 0;
	flight->due_ms = NEVER;
	c->has_verdicts = true;
}

/* A verdict of the conductor's own. */
void
flight_verdict(Conductor *c, Flight *flight, KindOutcome outcome, const char *code,
			   const char *message, bool is_user_error, bool is_retryable)
{
	MemoryContext old = MemoryContextSwitchTo(flight_fresh_verdict(flight));

	kind_fail(flight->verdict, is_user_error, is_retryable, code, message);
	flight->verdict->outcome = outcome;
	flight_verdict_made(c, flight);
	MemoryContextSwitchTo(old);
}

void
flight_refuse(Conductor *c, Flight *flight, const KindProblem *problem)
{
	MemoryContext old;
	const char *path = problem->path && problem->path[0] == '$' && problem->path[1] != '\0' ? problem->path + 1 : NULL;

	flight_verdict(c, flight, KIND_FAILED, problem->code ? problem->code : "invalid_spec",
				   problem->message, !problem->is_system_error, false);
	old = MemoryContextSwitchTo(flight->verdict_cxt);
	if (path != NULL || problem->hint != NULL)
		flight->verdict->error_detail = psprintf("%s%s%s%s", path ? "JSON path: $.spec" : "", path ? path : "",
												 path && problem->hint ? "\n" : "", problem->hint ? problem->hint : "");
	MemoryContextSwitchTo(old);
}

bool
flight_check_spec(Conductor *c, Flight *flight)
{
	KindProblem problem = {.is_rendered = true};

	flight->kind->validate(flight->spec, &problem);
	if (problem.message != NULL)
		flight_refuse(c, flight, &problem);
	return problem.message == NULL;
}

void
flight_succeed(Conductor *c, Flight *flight, const cJSON *output)
{
	MemoryContext old = MemoryContextSwitchTo(flight_fresh_verdict(flight));

	flight->verdict->outcome = KIND_SUCCEEDED;
	flight->verdict->output = output ? cJSON_Duplicate(output, true) : NULL;
	flight_verdict_made(c, flight);
	MemoryContextSwitchTo(old);
}

void
flight_decide(Conductor *c, Flight *flight)
{
	MemoryContext old = MemoryContextSwitchTo(flight_fresh_verdict(flight));
	KindCall	call;

	flight_fill_call(flight, &call);
	flight->kind->decide(&call, flight->verdict);
	c->has_verdicts = true;
	MemoryContextSwitchTo(old);
}

void
flight_deliver(Conductor *c, Flight *flight, const cJSON *callback)
{
	MemoryContext old;
	KindCall	call;

	flight_fresh_verdict(flight);
	old = MemoryContextSwitchTo(flight->cxt);
	flight_fill_call(flight, &call);
	flight->kind->deliver(&call, callback, flight->verdict);
	flight_verdict_made(c, flight);
	MemoryContextSwitchTo(old);
}

void
flight_go_to_step(Flight *flight, KindStep step, int64 delay_ms, bool reset_tries)
{
	int64		now = now_ms();

	if (step != flight->step || reset_tries)
		flight->step_tries = 0;
	/* The look-up found nothing, or nothing was sent before PREPARE was over: what we know of this attempt is all there is. */
	if ((flight->step == KIND_STEP_LOOKUP || flight->step == KIND_STEP_PREPARE) && step == KIND_STEP_START)
		flight->after_crash = false;
	flight->step = step;
	flight->polling = POLLS_FREELY;
	flight->pause_ms = delay_ms >= 0 ? delay_ms : pollgroup_pause_ms(flight, now);
	/* The pause a spec asks for is not for a work that is being stopped: whether it has, there is little time to see. */
	if (flight->ending != SQL_CANCEL_NONE)
		flight->pause_ms = Min(flight->pause_ms, Max(weir_cancel_grace / 4, flight->retry_after_ms));
	flight->due_ms = uncertain_waits(flight) ? NEVER : now + flight->pause_ms;
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
	call->other_base_url = flight->other ? flight->other->base_url : NULL;
	call->other_options = flight->other ? flight->other->options : NULL;
	call->reference = flight->reference;
	call->external_run_id = flight->external_run_id;
	call->kind_state = flight->kind_state;
	call->scratch = flight->scratch;
	call->intended_at_ms = flight->intended_at_ms;
	call->now_ms = now_ms();
	call->step_tries = flight->step_tries;
	call->is_asking = flight->transfer != NULL;
	call->after_crash = flight->after_crash;
}

void
flight_forget_token(Conductor *c, Flight *flight)
{
	signin_forget(c->signin, flight->signin_ticket[0]);
	signin_forget(c->signin, flight->signin_ticket[1]);
}

/* A verdict to go on: does the log have to know before we do? */
static void
follow_verdict(Conductor *c, Flight *flight)
{
	KindVerdict *verdict = flight->verdict;

	if (verdict->forget_token && flight->connection)
		flight_forget_token(c, flight);
	if (flight->ending != SQL_CANCEL_NONE && !flight->cancel_sent && !flight_turn_to_cancel(c, flight))
		return;
	if (verdict->state_changed || verdict->external_run_id || verdict->external_url)
	{
		c->has_verdicts = true;
		return;
	}
	if (verdict->next_step == flight->step)
		flight->step_tries++;
	flight_go_to_step(flight, verdict->next_step, verdict->delay_ms, verdict->reset_tries);
	flight_drop_verdict(flight);
}

/*
 * Memory for a kind that reads an answer.  What it keeps of it in kind_state
 * and scratch must outlive the answer; everything else it allocated is of no
 * use to anybody afterwards.  An attempt may be followed for weeks, so when
 * much has piled up, the two are copied and the rest goes.  Only without a
 * verdict, which may point into it.
 */
static MemoryContext
answers_memory(Flight *flight)
{
	MemoryContext full = flight->answers_cxt;
	MemoryContext old;
	cJSON	   *kind_state;
	cJSON	   *scratch;

	if (full != NULL && MemoryContextMemAllocated(full, true) <= flight->answers_limit)
		return full;
	flight->answers_cxt = AllocSetContextCreate(flight->cxt, "weir flight answers", ALLOCSET_SMALL_SIZES);
	if (full != NULL)
	{
		old = MemoryContextSwitchTo(flight->answers_cxt);
		kind_state = cJSON_Duplicate(flight->kind_state, true);
		scratch = cJSON_Duplicate(flight->scratch, true);
		/* parts of them may be elsewhere */
		cJSON_Delete(flight->kind_state);
		cJSON_Delete(flight->scratch);
		flight->kind_state = kind_state;
		flight->scratch = scratch;
		MemoryContextSwitchTo(old);
		MemoryContextDelete(full);
	}
	flight->answers_limit = Max(ANSWERS_BYTES, 2 * MemoryContextMemAllocated(flight->answers_cxt, true));
	return flight->answers_cxt;
}

/*
 * The work has ended, and only its details cannot be asked for: as if that
 * had been tried often enough, the kind says what is known without them.
 * False: that is nothing.
 */
static bool
conclude_unasked(Conductor *c, Flight *flight, const char *why)
{
	MemoryContext answers = answers_memory(flight);
	MemoryContext old = MemoryContextSwitchTo(flight_fresh_verdict(flight));
	KindResponse response = {.body = "", .headers = "", .retry_after_ms = -1, .transport_error = why};
	KindCall	call;

	flight_fill_call(flight, &call);
	call.step_tries = MANY_TRIES;
	MemoryContextSwitchTo(answers);
	flight->kind->response(&call, &response, flight->verdict);
	MemoryContextSwitchTo(old);
	if (flight->verdict->outcome == KIND_CONTINUE)
	{
		flight->http_status = 0;
		follow_verdict(c, flight);
	}
	else if (flight->verdict->error_code != NULL && strcmp(flight->verdict->error_code, "outcome_unknown") == 0)
	{
		flight_drop_verdict(flight);
		return false;
	}
	else
		flight_verdict_made(c, flight);
	ereport(LOG,
			(errmsg("details of task run " INT64_FORMAT " (attempt %d) could not be asked for: %s", flight->task_run_id, flight->attempt_no, why)));
	return true;
}

/*
 * The request of the step at hand cannot be made, now or ever.  Work that has
 * ended is as good as it is without its details.
 */
static void
cannot_ask(Conductor *c, Flight *flight, const KindProblem *problem, bool is_retryable)
{
	if (flight->step == KIND_STEP_DETAIL && conclude_unasked(c, flight, problem->message))
		return;
	flight_refuse(c, flight, problem);
	flight->verdict->is_retryable = is_retryable;
	flight->verdict->may_go_on = flight_may_go_on(flight);
}

/* The exchange is over: its answer, in the current context.  False: it was refused before it was sent. */
static bool
take_answer(Conductor *c, Flight *flight, KindResponse *response)
{
	const HttpResult *result = httpmux_result(flight->transfer);
	bool		refused = result->refused_by_policy;

	response->http_status = result->http_status;
	response->body = result->body ? mem_strndup(result->body, result->body_len) : "";	/* zeros and all */
	response->body_len = result->body ? result->body_len : 0;
	response->retry_after_ms = result->retry_after_ms;
	response->content_type = result->content_type ? pstrdup(result->content_type) : NULL;
	response->headers = pstrdup(result->headers);
	response->transport_error = result->error ? pstrdup(result->error) : NULL;
	response->request_sent = result->request_sent;
	response->too_large = result->too_large;
	flight->http_status = result->http_status;
	flight->retry_after_ms = Max(result->retry_after_ms, 0);
	/* What a proxy wants to be told says nothing of the service behind it. */
	if (PROXY_WANTS_CREDENTIALS(result->proxy_status))
		signin_forget(c->signin, flight->proxy_ticket);
	else if (!refused && !flight->via_other)
		breaker_note(c, flight, response);
	httpmux_free(c->mux, flight->transfer);
	flight->transfer = NULL;
	return !refused;
}

/* A page of a list of runs, this one's among them: it leaves no verdict. */
static void
read_list(Conductor *c, Flight *flight)
{
	MemoryContext cxt = AllocSetContextCreate(c->cxt, "weir page of runs", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	KindResponse response = {0};

	(void) take_answer(c, flight, &response);
	pollgroup_response(c, flight, &response);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/*
 * The proxy does not take our credentials.  Nothing was sent, so the exchange
 * is made again as it was, with the secret read anew; a proxy whose directory
 * is away for a moment says the same.  Then somebody has to do something.
 */
static void
refused_by_proxy(Conductor *c, Flight *flight, const char *message)
{
	if (++flight->proxy_refusals < PROXY_TRIES && flight->ending == SQL_CANCEL_NONE)
	{
		flight->due_ms = now_ms() + PROXY_PAUSE_MS * flight->proxy_refusals;
		return;
	}
	cannot_ask(c, flight, &(KindProblem) {.code = "proxy_sign_in_failed", .message = message}, false);
}

static void
read_response(Conductor *c, Flight *flight)
{
	MemoryContext answers = answers_memory(flight);
	MemoryContext old = MemoryContextSwitchTo(flight_fresh_verdict(flight));
	KindCall	call;
	KindResponse response = {0};
	Flight	  **others;
	bool		wants_credentials = PROXY_WANTS_CREDENTIALS(httpmux_result(flight->transfer)->proxy_status);
	bool		is_refused;

	flight_fill_call(flight, &call);
	listening_fill(c, flight, &call, &others);
	start_place_fill(c, flight, &call);
	is_refused = !take_answer(c, flight, &response);
	if (is_refused || (wants_credentials && !response.request_sent))
	{
		MemoryContextSwitchTo(old);
		response.transport_error = pstrdup(response.transport_error);
		flight_drop_verdict(flight);
		if (is_refused)
		{
			trouble_say(flight, NULL);
			cannot_ask(c, flight, &(KindProblem) {.code = "address_not_allowed", .message = response.transport_error}, false);
		}
		else
			refused_by_proxy(c, flight, response.transport_error);
		return;
	}
	/* kind_state must outlive the verdict's context. */
	MemoryContextSwitchTo(answers);
	flight->kind->response(&call, &response, flight->verdict);
	listening_deliver(c, flight->verdict, others, call.n_others);
	flight->proxy_refusals = 0;
	MemoryContextSwitchTo(old);

	trouble_note(flight);
	uncertain_consider(flight);
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
			flight = flight_find(c, *(int64 *) httpmux_arg(transfer));
			if (flight->polling == POLLS_FOR_ALL)
				read_list(c, flight);
			else
				read_response(c, flight);
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

/* What sign-in said, for the flight: true to go on; false: it is asked again, or there is a verdict with this code. */
static bool
signed_in_at(Conductor *c, Flight *flight, const char *code, SignInResult result, const SignInFailure *failure)
{
	switch (result)
	{
		case SIGNIN_READY:
		case SIGNIN_NONE:
			return true;
		case SIGNIN_PENDING:
			flight->signin_wait = true;
			flight->due_ms = NEVER;
			return false;
		case SIGNIN_FAILED:
			break;
	}
	if (failure->is_user_error || ++flight->signin_failures >= SIGNIN_TRIES)
	{
		bool		is_user_error = failure->is_user_error || failure->is_misplaced;

		cannot_ask(c, flight, &(KindProblem) {.code = code, .message = failure->text, .is_system_error = !is_user_error}, !is_user_error);
	}
	else
	{
		trouble_say(flight, failure->text);
		flight->due_ms = now_ms() + Max(failure->retry_ms, 100);
	}
	return false;
}

static bool
signed_in(Conductor *c, Flight *flight, SignInResult result, const SignInFailure *failure)
{
	return signed_in_at(c, flight, "sign_in_failed", result, failure);
}

/* What the proxy is told; false: as sign_in. */
static bool
sign_in_at_proxy(Conductor *c, Flight *flight, const Connection *through, OutgoingSecrets *secrets)
{
	SignInFailure failure = {0};

	return through == NULL ||
		signed_in_at(c, flight, "proxy_sign_in_failed",
					 signin_proxy(c->signin, through->options, now_ms(), &secrets->proxy, &flight->proxy_ticket, &failure), &failure);
}

/* Credentials; false: not now (pending, failed, or a verdict was made). */
static bool
sign_in(Conductor *c, Flight *flight, const Connection *through, const char *scope, OutgoingSecrets *secrets)
{
	SignInFailure failure = {0};

	if (through == NULL)
		return true;
	return signed_in(c, flight, outgoing_sign_in(c->signin, through, scope, now_ms(), secrets, flight->signin_ticket, &failure), &failure);
}

/* Values of the secrets that are not a line of credentials; false: as sign_in. */
static bool
obtain_secrets(Conductor *c, Flight *flight, const KindRequest *request, const Connection *through, OutgoingSecrets *secrets)
{
	const char *signing = outgoing_signing_secret(request, through);
	uint64		ticket;
	SignInFailure failure = {0};
	KindProblem problem = {.code = "secret_not_found"};

	if (signing != NULL &&
		!signed_in(c, flight, signin_secret(c->signin, signing, now_ms(), &secrets->signing, &flight->signin_ticket[0], &failure), &failure))
		return false;
	if (request->secret == NULL)
		return true;
	problem.message = secret_not_for(flight->owner, request->secret, &problem.hint);
	if (problem.message != NULL)
	{
		cannot_ask(c, flight, &problem, false);
		return false;
	}
	/* It is no credential: a refusal says nothing about it. */
	return signed_in(c, flight, signin_secret(c->signin, request->secret, now_ms(), &secrets->value, &ticket, &failure), &failure);
}

/* Give it to the multiplexer, which has copies of its own. */
static void
send_request(Conductor *c, Flight *flight, const KindRequest *request, const Connection *through,
			 const OutgoingSecrets *secrets, Outgoing *out)
{
	HttpOptions options = {0};
	const char *why = NULL;

	flight->signin_failures = 0;
	options.max_body = (size_t) weir_http_max_body * 1024;
	options.total_timeout_ms = weir_http_timeout;
	options.stall_timeout_ms = weir_http_stall_timeout;
	if (through != NULL && !route_set(&options, through->options, request->without_auth ? NULL : through->base_url, request->url, &why))
	{
		cannot_ask(c, flight, &(KindProblem) {.code = "ca_certificate_missing", .message = why}, false);
		return;
	}
	options.proxy_authorization = secrets->proxy;
	if (!outgoing_make(request, through, secrets, out, &why))
	{
		cannot_ask(c, flight, &(KindProblem) {.code = "sign_in_failed", .message = why}, false);
		return;
	}
	listening_share(c, flight);

	for (int i = 0; i < lengthof(out->masked); i++)
		options.masked[i] = out->masked[i];
	flight->starts_work = request->starts_work;
	flight->transfer = httpmux_start(c->mux, request->method, out->url, out->lines, out->body, out->body_len, &options,
									 &flight->task_run_id);
	flight->due_ms = NEVER;
	flight->turn_ms = 0;
}

/* Start the exchange of the step at hand. */
static void
exchange(Conductor *c, Flight *flight)
{
	KindCall	call;
	KindRequest request = {0};
	KindProblem problem = {.is_rendered = true};
	const Connection *through;
	OutgoingSecrets secrets = {0};
	Outgoing	out = {0};
	const char *why = NULL,
			   *hint = NULL;

	if (!start_place_allows(c, flight))
		return;
	flight_fill_call(flight, &call);
	if (!pollgroup_request(c, flight, &call, &request) && !flight->kind->request(&call, &request, &problem))
	{
		cannot_ask(c, flight, &problem, false);
		if (flight->verdict != NULL)
			uncertain_consider(flight);
		return;
	}
	if (!urlpolicy_check_url(request.url, &why, &hint))
	{
		cannot_ask(c, flight, &(KindProblem) {.code = "address_not_allowed", .message = why, .hint = hint}, false);
		return;
	}
	/* What begins no work cannot have begun any before a crash.  (Of a kind that is_resumable: it wants to know all the same.) */
	if (flight->step == KIND_STEP_START && !request.starts_work && !flight->kind->is_resumable)
		flight->after_crash = false;
	flight->via_other = request.via_other;
	/* What goes elsewhere does not wait for this service, nor can it tell of it. */
	if (!flight->via_other && !breaker_allows(c, flight))
		return;
	through = request.via_other ? flight->other : flight->connection;
	if (!quota_allows(c, flight, through, &request))
		return;
	PG_TRY();
	{
		if ((request.without_auth || sign_in(c, flight, through, request.scope, &secrets)) &&
			obtain_secrets(c, flight, &request, through, &secrets) && sign_in_at_proxy(c, flight, through, &secrets))
			send_request(c, flight, &request, through, &secrets, &out);
	}
	PG_FINALLY();
	{
		outgoing_wipe(&out);
		outgoing_forget(&secrets);
	}
	PG_END_TRY();
}

void
flights_act(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int64		now = now_ms();
	bool		in_transaction = false;

	quotas_line_up(c);
	start_places_hand_on(c);
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (flight->kind == NULL || !flight->kind->is_http || flight->verdict != NULL)
			continue;
		if (flight->ending != SQL_CANCEL_NONE && flight->ending_since_ms + weir_cancel_grace <= now)
		{
			flight_give_up_cancel(c, flight);
			continue;
		}
		if (flight->due_ms > now || flight->transfer != NULL || pollgroup_holds(c, flight, now))
			continue;
		/* Secrets are read in a transaction; nothing in it waits. */
		if (!in_transaction)
			conductor_begin(c);
		in_transaction = true;
		exchange(c, flight);
	}
	if (!in_transaction)
		return;
	expectations_read(c);
	conductor_commit(c);
}
