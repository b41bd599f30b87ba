/*-------------------------------------------------------------------------
 * webhook.c
 *	  Kind webhook: something outside says when it is done, or that a file
 *	  has come
 *
 * Runs in the conductor.  The task's connection is a storage account, or its
 * queue service alone; what is waited for arrives as a message in one of its
 * queues, since a database is no place to receive calls from the internet.
 *
 *	  [START] --> POLL ... --> DETAIL (delete the message) --> outcome
 *
 * START sends a request through another connection with the attempt's token
 * in it; the message that holds the token is the answer to it.  A lost answer
 * to START is no reason to give up: the message tells.  With "event" there is
 * no request, and an event of a storage account that fits is taken.
 *
 * Attempts that wait at the same queue read it together: one asks, and what it
 * gets for others is handed to them (verdict->deliveries).  A message is
 * committed into kind_state before it is deleted, so a crash loses none; one
 * that comes again, because it was not deleted or was sent twice, finds nobody
 * waiting for its token and is thrown away.  One whose attempt waits at a queue
 * of another name, which may be this one, stays for it.  Whose token is not of this
 * database, or who has none, is left alone until it was received
 * "poison_after" times; then it goes to the queue's poison queue.  Events
 * nobody waits for stay: somebody may.
 *
 * kind_state: sent, callback {id, receipt, event, keep, duplicate}.
 * scratch: discard [{id, receipt, text}], rounds.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"
#include "queue.h"
#include "retry.h"
#include "webhook_int.h"

#define DEFAULT_EVERY_MS	5000
#define DEFAULT_HIDDEN_S	15
#define DEFAULT_POISON		20
#define MAX_ROUNDS			20		/* full answers in a row before we pause */
#define MAX_EVENTS			1000	/* of a message that are looked at */

static const char *
queue_of(const KindCall *call)
{
	return kind_string(call->spec, "queue");
}

/* The request as kind http would see it, with the token filled in */
static void
request_call(const KindCall *call, KindCall *other)
{
	*other = *call;
	other->spec = http_fill_in_all(call, kind_member(call->spec, "request"));
	cJSON_DeleteItemFromObjectCaseSensitive((cJSON *) other->spec, "connection");
	other->base_url = call->other_base_url;
	other->options = call->other_options;
}

static const char *
webhook_other_connection(const cJSON *spec)
{
	return kind_string(kind_member(spec, "request"), "connection");
}

static int64
every_ms(const KindCall *call)
{
	int64		ms = kind_duration_ms(kind_member(call->spec, "every"));

	return ms >= 100 ? ms : DEFAULT_EVERY_MS;
}

static char *
webhook_place(const KindCall *call, int64 *every)
{
	*every = every_ms(call);
	return queue_of(call) != NULL && call->base_url != NULL ? queue_url(call, queue_of(call)) : NULL;
}

/*
 * What tells two events apart, however often they come: a blob and its
 * version, else the event's id.  NULL for callbacks: tokens do it.
 */
static char *
once_key(const KindCall *call, const cJSON *event)
{
	const cJSON *data = kind_member(event, "data");
	const char *url = kind_string(data, "url");
	const char *etag = kind_string(data, "eTag");
	const char *id = kind_string(event, "id");

	if (!webhook_waits_for_event(call->spec))
		return NULL;
	if (url != NULL && etag != NULL)
		return mem_printf("%s %s", kind_clean_text(url, strlen(url), 2000), kind_clean_text(etag, strlen(etag), 200));
	return id ? kind_clean_text(id, strlen(id), 500) : NULL;
}

static cJSON *
make_callback(const KindCall *call, const QueueMessage *message, const cJSON *event, bool keep)
{
	cJSON	   *callback = cJSON_CreateObject();
	char	   *key = once_key(call, event);

	cJSON_AddStringToObject(callback, "id", kind_clean_text(message->id, strlen(message->id), 200));
	cJSON_AddStringToObject(callback, "receipt", kind_clean_text(message->receipt, strlen(message->receipt), 1000));
	cJSON_AddItemToObject(callback, "event", cJSON_Duplicate(event, true));
	if (key != NULL)
		cJSON_AddStringToObject(callback, "key", key);
	if (keep)
		cJSON_AddTrueToObject(callback, "keep");
	return callback;
}

/* The callback is committed, then the message goes */
static void
take(KindCall *call, cJSON *callback, KindVerdict *verdict)
{
	const char *key = kind_string(callback, "key");

	kind_state_set(call, verdict, "callback", callback);
	verdict->once_key = key ? mem_strdup(key) : NULL;
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
}

static void
webhook_deliver(KindCall *call, const cJSON *delivery, KindVerdict *verdict)
{
	take(call, cJSON_Duplicate(delivery, true), verdict);
}

/* Where the events of a message go */
typedef struct Match
{
	const cJSON *mine;			/* the event this attempt takes, or NULL */
	int			n_events;
	int			n_awaited;		/* by anybody, also those who cannot take it now */
	int			n_stale;		/* tokens of this database nobody waits for */
} Match;

static void
add_delivery(KindVerdict *verdict, int other, cJSON *callback)
{
	cJSON	   *delivery = cJSON_CreateObject();

	if (verdict->deliveries == NULL)
		verdict->deliveries = cJSON_CreateArray();
	cJSON_AddItemToObject(delivery, "other", cJSON_CreateNumber(other));
	cJSON_AddItemToObject(delivery, "callback", callback);
	cJSON_AddItemToArray(verdict->deliveries, delivery);
}

/* Everybody who waits gets his event of the message; it goes when nobody needs it again */
static Match
sort_out(KindCall *call, const QueueMessage *message, const cJSON *payload, bool have_one, Waiters *waiters, KindVerdict *verdict)
{
	Match		match = {.mine = NULL};
	const cJSON *event = cJSON_IsArray(payload) ? payload->child : payload;

	for (; event != NULL && match.n_events < MAX_EVENTS; event = event->next)
	{
		int			other;

		match.n_events++;
		if (match.mine == NULL && !have_one && webhook_awaits(call, event))
		{
			match.mine = event;
			match.n_awaited++;
			continue;
		}
		other = waiters_find(waiters, event);
		if (other < 0)
		{
			match.n_stale += webhook_is_stale(call, event);
			continue;
		}
		match.n_awaited++;
		if (!call->others[other].can_take)
			continue;
		/* the only event of its message takes the message with it */
		add_delivery(verdict, other, make_callback(call->others[other].call, message, event, cJSON_IsArray(payload)));
		waiters_give(waiters, other);
	}
	/* what was not looked at may be somebody's */
	match.n_events += event != NULL;
	return match;
}

static void
discard(KindCall *call, const QueueMessage *message, bool is_poison)
{
	cJSON	   *list = cJSON_GetObjectItemCaseSensitive(call->scratch, "discard");
	cJSON	   *item = cJSON_CreateObject();

	if (list == NULL)
		list = cJSON_AddArrayToObject(call->scratch, "discard");
	cJSON_AddStringToObject(item, "id", message->id);
	cJSON_AddStringToObject(item, "receipt", message->receipt);
	if (is_poison)
		cJSON_AddStringToObject(item, "text", message->text);
	cJSON_AddItemToArray(list, item);
}

/* One message; true if this attempt found in it what it waits for */
static bool
read_message(KindCall *call, const QueueMessage *message, bool have_one, Waiters *waiters, KindVerdict *verdict)
{
	int64		poison_after = kind_int64(call->spec, "poison_after", DEFAULT_POISON);
	cJSON	   *payload = queue_payload(message->text);
	bool		is_events = webhook_waits_for_event(call->spec);
	bool		taken = false;
	Match		match;

	if (payload == NULL)
	{
		if (message->dequeued >= poison_after)
			discard(call, message, true);
		return false;
	}
	match = sort_out(call, message, payload, have_one, waiters, verdict);
	if (match.mine != NULL)
	{
		/* another event of it is wanted, or may be: then it stays, and comes again */
		take(call, make_callback(call, message, match.mine, match.n_awaited > 1 || (is_events && match.n_events > 1)), verdict);
		taken = true;
	}
	else if (match.n_awaited == 0 && match.n_events == match.n_stale)
		discard(call, message, false);
	else if (match.n_awaited == 0 && !is_events && message->dequeued >= poison_after)
		discard(call, message, true);
	cJSON_Delete(payload);
	return taken;
}

/* An answer that is no list of messages: true if it filled in the verdict */
static bool
no_messages(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	KindCall	seen = *call;

	/* who waits for an event has begun nothing: nothing may be going on, and another attempt may wait as well */
	if (webhook_waits_for_event(call->spec))
		seen.step = KIND_STEP_START;
	if (kind_common_response(&seen, response, false, true, KIND_POLL_TRIES, verdict))
	{
		if (verdict->outcome == KIND_CONTINUE)
			verdict->next_step = KIND_STEP_POLL;
		return true;
	}
	if (response->http_status == 200)
		return false;
	kind_fail_status(&seen, response, verdict);
	return true;
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	QueueMessage messages[QUEUE_MAX_MESSAGES];
	int64		rounds = kind_int64(call->scratch, "rounds", 0);
	bool		have_one = false;
	int			n;

	if (no_messages(call, response, verdict))
		return;
	n = queue_read(response, messages);
	if (n < 0)
	{
		kind_bad_answer(call, response, "is no list of messages", false, true, KIND_POLL_TRIES, verdict);
		return;
	}
	verdict->reset_tries = true;
	rounds = n == QUEUE_MAX_MESSAGES && rounds < MAX_ROUNDS ? rounds + 1 : 0;
	cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, "rounds");
	cJSON_AddItemToObject(call->scratch, "rounds", json_from_int64(rounds));
	kind_continue(verdict, KIND_STEP_POLL, rounds > 0 ? 0 : every_ms(call));
	if (n > 0)
	{
		Waiters    *waiters = waiters_create(call);

		for (int i = 0; i < n; i++)
			have_one |= read_message(call, &messages[i], have_one, waiters, verdict);
		waiters_free(waiters);
	}
	queue_free(messages, n);
	/* what is to be thrown away goes first */
	if (!have_one && kind_member(call->scratch, "discard") != NULL)
		kind_continue(verdict, KIND_STEP_POLL, 0);
}

/* A message was copied to the poison queue, or deleted; the next, or back to the queue */
static void
discard_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *list = cJSON_GetObjectItemCaseSensitive(call->scratch, "discard");
	cJSON	   *first = list->child;
	bool		was_copy = kind_member(first, "text") != NULL;
	bool		ok = response->http_status >= 200 && response->http_status <= 299 && response->transport_error == NULL;

	/* whatever went wrong: the message comes again */
	if (was_copy && ok)
		cJSON_DeleteItemFromObjectCaseSensitive(first, "text");
	else
		cJSON_DeleteItemFromArray(list, 0);
	verdict->reset_tries = true;
	if (list->child != NULL)
	{
		kind_continue(verdict, KIND_STEP_POLL, 0);
		return;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, "discard");
	kind_continue(verdict, KIND_STEP_POLL, every_ms(call));
}

static void
start_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	KindCall	other;
	int			status = response->http_status;
	bool		answered = status > 0 && response->transport_error == NULL;
	char	   *error;
	cJSON	   *body;
	char	   *id = NULL;

	request_call(call, &other);
	if (answered && http_is_expected(other.spec, status))
	{
		body = kind_parse_body(response, &error);
		if (kind_string(other.spec, "id") != NULL)
		{
			const cJSON *item = jsonpath_find(body, kind_string(other.spec, "id"));

			id = item && !cJSON_IsNull(item) ? kind_scalar_text(item) : NULL;
		}
		verdict->external_run_id = id && *id ? kind_clean_text(id, strlen(id), 200) : mem_strdup(call->token);
		kind_state_set(call, verdict, "sent", cJSON_CreateTrue());
		kind_continue(verdict, KIND_STEP_POLL, 0);
		http_note_link(call, other.spec, body, verdict);
		cJSON_Delete(body);
	}
	else if (!http_is_repeatable(&other) && (answered ? retry_http_status_is_transient(status) && !http_is_refusal(response) :
											 response->request_sent))
	{
		/* whether it arrived, the callback will tell */
		verdict->external_run_id = mem_strdup(call->token);
		kind_state_set(call, verdict, "maybe_started", cJSON_CreateTrue());
		kind_continue(verdict, KIND_STEP_POLL, 0);
	}
	else
		http_not_expected(&other, response, verdict);
}

static cJSON *
build_output(const KindCall *call, const cJSON *event)
{
	cJSON	   *output = cJSON_CreateObject();
	const cJSON *wanted = kind_member(call->spec, "outputs");
	const cJSON *data = kind_member(event, "data");
	const cJSON *item;
	cJSON	   *outputs;
	char	   *container;
	const char *path;

	if (webhook_waits_for_event(call->spec) && webhook_subject(event, &container, &path))
	{
		cJSON_AddStringToObject(output, "container", container);
		cJSON_AddStringToObject(output, "path", path);
		cJSON_AddStringToObject(output, "url", kind_string(data, "url") ? kind_string(data, "url") : "");
		if (kind_int64(data, "contentLength", -1) >= 0)
			cJSON_AddItemToObject(output, "bytes", json_from_int64(kind_int64(data, "contentLength", 0)));
	}
	cJSON_AddItemToObject(output, "message", kind_limited_copy(event, KIND_MAX_OUTPUT));
	if (!cJSON_IsObject(wanted))
		return output;
	outputs = cJSON_AddObjectToObject(output, "outputs");
	cJSON_ArrayForEach(item, wanted)
	{
		cJSON	   *value = json_string(item) ? jsonpath_copy(event, item->valuestring, 1000) : NULL;

		cJSON_AddItemToObject(outputs, item->string, value ? value : cJSON_CreateNull());
	}
	return output;
}

static const char *
text_at(const KindCall *call, const cJSON *event, const char *member)
{
	const cJSON *item = jsonpath_find(event, kind_string(kind_member(call->spec, "error"), member));

	return item != NULL && !cJSON_IsNull(item) ? kind_scalar_text(item) : NULL;
}

/* The outcome as the callback has it */
static void
finish(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *event = kind_member(kind_state_get(call, "callback"), "event");
	const char *path = kind_string(call->spec, "status");
	const cJSON *status = path ? jsonpath_find(event, path) : NULL;
	const cJSON *good = kind_member(call->spec, "succeeded");
	const cJSON *bad = kind_member(call->spec, "failed");
	int64		rows;

	kind_verdict_init(verdict);
	verdict->output = build_output(call, event);
	if (kind_string(call->spec, "rows_read") && json_int64(jsonpath_find(event, kind_string(call->spec, "rows_read")), &rows) && rows >= 0)
		verdict->rows_read = rows;
	if (kind_string(call->spec, "rows_written") && json_int64(jsonpath_find(event, kind_string(call->spec, "rows_written")), &rows) && rows >= 0)
		verdict->rows_written = rows;
	if (path == NULL || (status != NULL && kind_is_listed(good ? good : bad, kind_scalar_text(status)) == (good != NULL)))
		verdict->outcome = KIND_SUCCEEDED;
	else
	{
		const char *said = status ? kind_scalar_text(status) : "nothing";
		const char *code = text_at(call, event, "code");
		const char *message = text_at(call, event, "message");

		kind_fail(verdict, false, true, code ? code : "failed", message ? message : mem_printf("the callback says \"%s\"", said));
	}
}

/*
 * The message is gone, or somebody else has it, or it will come again: what
 * was in it is committed.
 */
static void
detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		duplicate = cJSON_IsTrue(kind_member(kind_state_get(call, "callback"), "duplicate"));

	if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) && verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	if (duplicate)
	{
		kind_state_drop(call, verdict, "callback");
		kind_continue(verdict, KIND_STEP_POLL, 0);
	}
	else
		finish(call, verdict);
}

static bool
webhook_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *callback = kind_state_get(call, "callback");
	const cJSON *first = kind_member(call->scratch, "discard");
	const char *poison = kind_string(call->spec, "poison_queue");

	if (!webhook_check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (call->step == KIND_STEP_START)
	{
		KindCall	other;

		request_call(call, &other);
		request->via_other = true;
		request->is_repeatable = http_is_repeatable(&other);
		request->idempotency_key = call->token;
		if (!http_build_url(&other, request, problem) || !http_method(other.spec, request))
			return problem->message != NULL ? false : kind_problem(problem, "$.request.method", "unknown method", NULL);
		request->headers = http_build_headers(&other, request);
		http_build_body(other.spec, request);
		return true;
	}
	if (call->step == KIND_STEP_DETAIL && callback != NULL)
	{
		/* what has to stay is not touched: only the answer is wanted, to go on */
		if (cJSON_IsTrue(kind_member(callback, "keep")))
			queue_peek(call, queue_of(call), request);
		else
			queue_delete(call, queue_of(call), kind_string(callback, "id"), kind_string(callback, "receipt"), request);
		return true;
	}
	first = first ? first->child : NULL;
	if (first == NULL)
		queue_get(call, queue_of(call), kind_int64(call->spec, "hide_seconds", DEFAULT_HIDDEN_S), request);
	else if (kind_string(first, "text") != NULL)
		queue_put(call, poison ? poison : mem_printf("%s-poison", queue_of(call)), kind_string(first, "text"), request);
	else
		queue_delete(call, queue_of(call), kind_string(first, "id"), kind_string(first, "receipt"), request);
	return true;
}

static void
webhook_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (call->step == KIND_STEP_START)
		start_response(call, response, verdict);
	else if (call->step == KIND_STEP_DETAIL)
		detail_response(call, response, verdict);
	else if (kind_member(call->scratch, "discard") != NULL)
		discard_response(call, response, verdict);
	else
		poll_response(call, response, verdict);
}

static KindStep
webhook_first_step(const KindCall *call)
{
	return webhook_waits_for_event(call->spec) ? KIND_STEP_POLL : KIND_STEP_START;
}

static KindStep
webhook_resume_step(const KindCall *call)
{
	KindCall	other;

	if (kind_state_get(call, "callback") != NULL)
		return KIND_STEP_DETAIL;
	if (webhook_waits_for_event(call->spec) || kind_state_bool(call, "sent") || kind_state_bool(call, "maybe_started"))
		return KIND_STEP_POLL;
	request_call(call, &other);
	return http_is_repeatable(&other) ? KIND_STEP_START : KIND_STEP_POLL;
}

static void
webhook_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	if (!webhook_waits_for_event(call->spec) && (is_sent || call->external_run_id != NULL || kind_state_bool(call, "maybe_started")))
		kind_fail_unknown(verdict, "given up before the callback came; what was asked for may still be going on");
	else
	{
		kind_fail(verdict, false, true, "cancelled", "given up before anything came");
		verdict->outcome = KIND_CANCELLED;
	}
}

static const char *
webhook_named_url(const cJSON *spec, const char **member)
{
	*member = ".request.url";
	return kind_string(kind_member(spec, "request"), "url");
}

static void
webhook_validate(const cJSON *spec, KindProblem *problem)
{
	(void) webhook_check_spec(spec, problem);
}

const TaskKind kind_webhook = {
	.name = "webhook",
	.connection_kind = "http",
	.also_connection_kind = "storage",
	.other_connection_kind = "http",
	.is_http = true,
	.validate = webhook_validate,
	.first_step = webhook_first_step,
	.resume_step = webhook_resume_step,
	.request = webhook_request,
	.response = webhook_response,
	.abandon = webhook_abandon,
	.other_connection = webhook_other_connection,
	.place = webhook_place,
	.deliver = webhook_deliver,
	.named_url = webhook_named_url,
};
