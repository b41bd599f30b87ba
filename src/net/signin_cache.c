/*-------------------------------------------------------------------------
 * signin_cache.c
 *	  Credentials that are fetched, kept in memory and fetched anew.
 *
 * Runs where httpmux.c runs, single-threaded, no locks.  Values live in
 * malloc'd memory of this process and nowhere else: not in tables, shared
 * memory, messages or memory contexts.  If the process dies they are gone and
 * the next one fetches its own.
 *
 * A credential, seen from outside:
 *
 *	absent ──ask──▶ fetching ──answer──▶ ready ──time──▶ to be refreshed
 *	   ▲               │                   │               │ (still used
 *	   │               ▼                   ▼ forget        ▼  meanwhile)
 *	   └─ hold over ─ failed             absent          fetching
 *
 * The key is (connection, its last change, audience).  A flight that began
 * with an older state of a connection has credentials of its own, so the two
 * do not throw away each other's.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "route.h"
#include "signin_int.h"

#define FETCH_CONNECT_MS		10000
#define FETCH_TOTAL_MS			30000
#define FETCH_STALL_MS			10000
#define FETCH_MAX_BODY			131072
#define MAX_HOLD_MS				INT64CONST(3600000)
#define MAX_ERROR_TEXT			900

#define REPEATED	"the sign-in service repeated the secret in its answer"

void
signin_out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

static void
drop_value(Credential *credential)
{
	secret_wipe(credential->value);
	credential->value = NULL;
}

void
credential_end_fetch(Credential *credential)
{
	credential->fetch = NULL;
	secret_wipe(credential->sent);
	credential->sent = NULL;
}

void
credential_drop(SignIn *signin, Credential *credential)
{
	dlist_delete(&credential->node);
	if (credential->fetch)
		httpmux_abort(signin->mux, credential->fetch);
	credential_end_fetch(credential);
	drop_value(credential);
	free(credential->connection);
	free(credential->audience);
	free(credential->challenge);
	free(credential->error);
	free(credential);
}

Credential *
credential_find(SignIn *signin, const SignInConnection *connection, const char *audience)
{
	Credential *credential;
	dlist_iter	iter;

	dlist_foreach(iter, &signin->credentials)
	{
		credential = dlist_container(Credential, node, iter.cur);
		if (credential->changed_at == connection->changed_at &&
			strcmp(credential->connection, connection->name) == 0 &&
			strcmp(credential->audience, audience) == 0)
			return credential;
	}

	credential = calloc(1, sizeof(Credential));
	if (credential == NULL)
		signin_out_of_memory();
	credential->changed_at = connection->changed_at;
	credential->connection = strdup(connection->name);
	credential->audience = strdup(audience);
	if (credential->connection == NULL || credential->audience == NULL)
	{
		free(credential->connection);
		free(credential->audience);
		free(credential);
		signin_out_of_memory();
	}
	dlist_push_tail(&signin->credentials, &credential->node);
	return credential;
}

/*
 * Let go of what nobody asks for any more.  Never while one is being worked
 * on: the caller is at the beginning of a question from outside.
 */
void
credentials_drop_stale(SignIn *signin, int64 now_ms)
{
	dlist_mutable_iter iter;

	if (now_ms < signin->next_sweep_ms && now_ms + MAX_HOLD_MS > signin->next_sweep_ms)
		return;
	signin->next_sweep_ms = now_ms + 60000;
	dlist_foreach_modify(iter, &signin->credentials)
	{
		Credential *credential = dlist_container(Credential, node, iter.cur);

		if (credential->fetch == NULL && credential->expires_at_ms < now_ms &&
			credential->next_try_ms < now_ms)
			credential_drop(signin, credential);
	}
}

bool
credential_usable(const Credential *credential, int64 now_ms)
{
	return credential->value != NULL && now_ms < credential->expires_at_ms;
}

/* A hold longer than any we set means that the clock was set back. */
static int64
hold_ms(const Credential *credential, int64 now_ms)
{
	int64		hold = credential->next_try_ms - now_ms;

	return hold > MAX_HOLD_MS ? 0 : Max(hold, 0);
}

bool
credential_due(const Credential *credential, int64 now_ms)
{
	return credential->fetch == NULL && hold_ms(credential, now_ms) == 0 &&
		(!credential_usable(credential, now_ms) || now_ms >= credential->refresh_at_ms);
}

void
credential_forget(SignIn *signin, uint64 ticket)
{
	dlist_iter	iter;

	if (ticket == 0)
		return;
	dlist_foreach(iter, &signin->credentials)
	{
		Credential *credential = dlist_container(Credential, node, iter.cur);

		if (credential->ticket == ticket)
			drop_value(credential);
	}
}

/* Replace control and non-ASCII characters, which some encodings could not store. */
static void
make_printable(char *text)
{
	for (; *text; text++)
	{
		if (*text == '\r' || *text == '\n' || *text == '\t')
			*text = ' ';
		else if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

/*
 * Note a failure and when to try again.  The text is free of secrets; as a
 * second line of defence against a server that echoes what it was sent, a
 * text containing the secret is replaced.
 */
void
credential_failed(Credential *credential, const SignInRefusal *refusal, int64 retry_after_ms, int64 now_ms)
{
	const char *text = refusal->text;

	if (strstr(text, "client_secret=") != NULL || strstr(text, "client_assertion=") != NULL ||
		(credential->sent && credential->sent[0] && strstr(text, credential->sent) != NULL))
		text = REPEATED;
	credential->failures++;
	credential->next_try_ms = now_ms + token_hold_ms(credential->failures, refusal->is_user_error, retry_after_ms);
	credential->advised_ms = 0;
	credential->is_user_error = refusal->is_user_error;
	credential->is_misplaced = refusal->is_misplaced;
	free(credential->challenge);
	credential->challenge = NULL;
	free(credential->error);
	credential->error = strndup(text, MAX_ERROR_TEXT);
	if (credential->error)
		make_printable(credential->error);
}

void
credential_failed_here(Credential *credential, const SignInRefusal *refusal, int64 now_ms)
{
	credential_failed(credential, refusal, 0, now_ms);
	credential->advised_ms = credential->next_try_ms - now_ms;
	credential->next_try_ms = 0;
}

void
credential_take(SignIn *signin, Credential *credential, char *value, int64 lifetime_s, int64 refresh_in_s,
				int64 now_ms)
{
	TokenTimes	times = token_times(now_ms, lifetime_s, refresh_in_s);

	drop_value(credential);
	credential->value = value;
	credential->ticket = ++signin->last_ticket;
	credential->refresh_at_ms = times.refresh_at_ms;
	credential->expires_at_ms = times.expires_at_ms;
	credential->renewed = false;
	credential->failures = 0;
	credential->next_try_ms = 0;
	free(credential->challenge);
	credential->challenge = NULL;
	free(credential->error);
	credential->error = NULL;
}

static void
wipe_request(SignInRequest *request)
{
	secret_wipe(request->secret_header);
	secret_wipe(request->form);
	secret_wipe(request->sent);
	request->secret_header = request->form = request->sent = NULL;
}

/* A machine's own endpoints are asked directly, like those on it. */
static bool
set_route(HttpOptions *http, const SignInRequest *request, const cJSON *options, const char *base_url, const char *proxy_line,
		  SignInRefusal *refusal)
{
	const char *error = NULL;

	if (request->is_identity_service)
		return true;
	if (!route_set(http, options, base_url, request->url, &error))
		return auth_refuse(refusal, true, error);
	http->proxy_authorization = proxy_line;
	/* however long the service itself may take */
	http->total_timeout_ms = FETCH_TOTAL_MS;
	http->stall_timeout_ms = FETCH_STALL_MS;
	return true;
}

void
credential_send(SignIn *signin, Credential *credential, const cJSON *options, const char *base_url,
				const char *proxy_line, SignInRequest *request, SignInResponse response, int64 now_ms)
{
	SignInRefusal refusal = {0};
	const char *headers[5];
	int			n = 0;
	HttpOptions http = {
		.max_body = FETCH_MAX_BODY,
		.connect_timeout_ms = FETCH_CONNECT_MS,
		.total_timeout_ms = FETCH_TOTAL_MS,
		.stall_timeout_ms = FETCH_STALL_MS,
		.to_metadata_service = request->is_identity_service
	};

	headers[n++] = "Accept: application/json";
	if (request->form)
		headers[n++] = "Content-Type: application/x-www-form-urlencoded";
	if (request->header)
		headers[n++] = request->header;
	if (request->secret_header)
		headers[n++] = request->secret_header;
	headers[n] = NULL;
	if (!set_route(&http, request, options, base_url, proxy_line, &refusal))
	{
		wipe_request(request);
		credential_failed_here(credential, &refusal, now_ms);
		return;
	}
	PG_TRY();
	{
		credential->fetch = httpmux_start(signin->mux, request->method, request->url, headers, request->form,
										  request->form ? strlen(request->form) : 0, &http, NULL);
		credential->response = response;
		credential->sent = request->sent;
		request->sent = NULL;
	}
	PG_CATCH();
	{
		wipe_request(request);
		PG_RE_THROW();
	}
	PG_END_TRY();
	wipe_request(request);
}

SignInResult
credential_result(const Credential *credential, int64 now_ms, char **value, uint64 *ticket,
				  SignInFailure *failure)
{
	if (credential_usable(credential, now_ms))
	{
		*value = strdup(credential->value);
		if (*value == NULL)
			signin_out_of_memory();
		*ticket = credential->ticket;
		return SIGNIN_READY;
	}
	if (credential->fetch != NULL)
		return SIGNIN_PENDING;
	failure->text = pstrdup(credential->error ? credential->error : "out of memory");
	failure->is_user_error = credential->is_user_error;
	failure->is_misplaced = credential->is_misplaced;
	failure->retry_ms = Max(hold_ms(credential, now_ms), credential->advised_ms);
	return SIGNIN_FAILED;
}
