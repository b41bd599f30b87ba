/*-------------------------------------------------------------------------
 * signin.c
 *	  Credentials for requests: read from secrets, or fetched from whoever
 *	  issues tokens, cached and refreshed.
 *
 * Runs where httpmux.c runs, single-threaded, no locks.  What is kept, and for
 * how long, is in signin_cache.c; where secrets come from in signin_secret.c;
 * how one signs in, in a file for each way.
 *
 * A token may need several exchanges in a row: the token of a key vault, a
 * secret out of it, then the token itself.  Nobody keeps a stack of that.
 * Whoever needs a token asks, gets SIGNIN_PENDING, and asks again whenever an
 * exchange of ours has ended; each time what is there already is found in the
 * cache and the next exchange begins.  However many ask, there is never more
 * than one exchange per credential.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "echo.h"
#include "json.h"
#include "proxyauth.h"
#include "signin_int.h"

#define REPEATED	"the sign-in service repeated the secret in its answer"

void
signin_free_secret(char *secret)
{
	secret_wipe(secret);
}

SignIn *
signin_create(HttpMux *mux, const SignInCatalog *catalog)
{
	SignIn	   *signin = calloc(1, sizeof(SignIn));

	if (signin == NULL)
		signin_out_of_memory();
	signin->mux = mux;
	signin->catalog = *catalog;
	dlist_init(&signin->credentials);
	return signin;
}

void
signin_destroy(SignIn *signin)
{
	if (signin == NULL)
		return;
	while (!dlist_is_empty(&signin->credentials))
		credential_drop(signin, dlist_container(Credential, node, dlist_head_node(&signin->credentials)));
	free(signin);
}

void
signin_forget(SignIn *signin, uint64 ticket)
{
	credential_forget(signin, ticket);
}

static SignInResult
failed(SignInFailure *failure, bool is_user_error, const char *text)
{
	failure->text = text;
	failure->is_user_error = is_user_error;
	failure->retry_ms = 1000;
	return SIGNIN_FAILED;
}

/* Values of all secrets that auth names; READY only if all are there. */
static SignInResult
obtain_secrets(SignIn *signin, const Auth *auth, int64 now_ms, int depth,
			   char **secrets, uint64 *tickets, SignInFailure *failure)
{
	SignInResult result = SIGNIN_READY;

	for (int i = 0; i < AUTH_MAX_KEYS && auth->method->keys[i].name; i++)
	{
		const char *name = auth_text(auth, auth->method->keys[i].name);
		SignInResult one;

		tickets[i] = 0;
		if (auth->method->keys[i].type != AUTH_KEY_SECRET || name == NULL)
			continue;
		one = signin_secret_at(signin, name, now_ms, depth, &secrets[i], &tickets[i], failure);
		if (one == SIGNIN_FAILED)
			return one;
		if (one == SIGNIN_PENDING)
			result = one;		/* the others may be asked for meanwhile */
	}
	return result;
}

/* What a fetch, or a header, is made of; what is secret in it is wiped in any case. */
typedef struct Ingredients
{
	char	   *secrets[AUTH_MAX_KEYS];
	SignInRequest request;
	char	   *proxy_line;
} Ingredients;

static void
wipe_ingredients(Ingredients *all)
{
	for (int i = 0; i < AUTH_MAX_KEYS; i++)
		secret_wipe(all->secrets[i]);
	secret_wipe(all->request.secret_header);
	secret_wipe(all->request.form);
	secret_wipe(all->request.sent);
	secret_wipe(all->proxy_line);
	memset(all, 0, sizeof(*all));
}

static SignInResult
send_fetch(SignIn *signin, Credential *credential, const Auth *auth, int64 now_ms, int depth, Ingredients *all)
{
	SignInCall	call = {.auth = auth, .secrets = all->secrets, .challenge = credential->challenge, .now_ms = now_ms};
	SignInRefusal refusal = {0};
	SignInFailure failure = {0};
	SignInResult result = obtain_secrets(signin, auth, now_ms, depth, all->secrets, credential->secret_tickets, &failure);
	SignInResult at_proxy = SIGNIN_NONE;

	if (result == SIGNIN_READY)
		at_proxy = signin_proxy_at(signin, auth->options, now_ms, depth, &all->proxy_line, &credential->proxy_ticket, &failure);
	if (at_proxy == SIGNIN_FAILED || at_proxy == SIGNIN_PENDING)
		result = at_proxy;
	if (result == SIGNIN_FAILED)
	{
		refusal.text = failure.text;
		refusal.is_user_error = failure.is_user_error;
		refusal.is_misplaced = failure.is_misplaced;
		credential_failed_here(credential, &refusal, now_ms);
	}
	else if (result == SIGNIN_READY && credential->fetch == NULL)
	{
		if (auth->method->request(&call, &all->request, &refusal))
			credential_send(signin, credential, auth->options, auth->base_url, all->proxy_line, &all->request, auth->method->response, now_ms);
		else
		{
			/* what a vault holds may have been replaced by the next time */
			for (int i = 0; refusal.about_secret && i < AUTH_MAX_KEYS; i++)
				credential_forget(signin, credential->secret_tickets[i]);
			credential_failed_here(credential, &refusal, now_ms);
		}
	}
	return result;
}

/* Start a fetch, or note why not; false: a secret for it is not there yet. */
static bool
start_fetch(SignIn *signin, Credential *credential, const Auth *auth, int64 now_ms, int depth)
{
	Ingredients all = {0};
	volatile SignInResult result = SIGNIN_PENDING;

	PG_TRY();
	{
		result = send_fetch(signin, credential, auth, now_ms, depth, &all);
	}
	PG_CATCH();
	{
		wipe_ingredients(&all);
		PG_RE_THROW();
	}
	PG_END_TRY();
	wipe_ingredients(&all);
	return result != SIGNIN_PENDING;
}

/* Of ways that fetch a token */
static SignInResult
token_header(SignIn *signin, const SignInConnection *connection, const Auth *auth, int64 now_ms, int depth,
			 char **header, uint64 *ticket, SignInFailure *failure)
{
	Credential *credential = credential_find(signin, connection, auth->scope ? auth->scope : "");

	if (credential_due(credential, now_ms) &&
		!start_fetch(signin, credential, auth, now_ms, depth) &&
		!credential_usable(credential, now_ms))
		return SIGNIN_PENDING;
	return credential_result(credential, now_ms, header, ticket, failure);
}

static SignInResult
make_header(SignIn *signin, const Auth *auth, int64 now_ms, int depth, Ingredients *all,
			char **header, uint64 *ticket, SignInFailure *failure)
{
	uint64		tickets[AUTH_MAX_KEYS] = {0};
	SignInCall	call = {.auth = auth, .secrets = all->secrets, .now_ms = now_ms};
	const char *error = "out of memory";
	SignInResult result = obtain_secrets(signin, auth, now_ms, depth, all->secrets, tickets, failure);

	if (result != SIGNIN_READY)
		return result;
	*header = auth->method->header(&call, &error);
	for (int i = 0; i < AUTH_MAX_KEYS; i++)
		*ticket = Max(*ticket, tickets[i]);
	return *header ? SIGNIN_READY : failed(failure, true, error);
}

/* Of ways whose secret is all there is; not cached here, so a changed secret takes effect with the next request. */
static SignInResult
static_header(SignIn *signin, const Auth *auth, int64 now_ms, int depth,
			  char **header, uint64 *ticket, SignInFailure *failure)
{
	Ingredients all = {0};
	volatile SignInResult result = SIGNIN_PENDING;

	PG_TRY();
	{
		result = make_header(signin, auth, now_ms, depth, &all, header, ticket, failure);
	}
	PG_CATCH();
	{
		wipe_ingredients(&all);
		PG_RE_THROW();
	}
	PG_END_TRY();
	wipe_ingredients(&all);
	return result;
}

SignInResult
signin_header_at(SignIn *signin, const SignInConnection *connection, int64 now_ms, int depth,
				 char **header, uint64 *ticket, SignInFailure *failure)
{
	Auth		auth;
	AuthProblem problem;
	SignInResult result;

	*header = NULL;
	*ticket = 0;
	memset(failure, 0, sizeof(*failure));
	if (!auth_read(connection, &auth, &problem))
		result = failed(failure, true, problem.message);
	else if (auth.method->request != NULL)
		result = token_header(signin, connection, &auth, now_ms, depth, header, ticket, failure);
	else if (auth.method->header != NULL)
		result = static_header(signin, &auth, now_ms, depth, header, ticket, failure);
	else
		result = SIGNIN_NONE;
	if (result == SIGNIN_FAILED)
		failure->text = psprintf("sign-in for connection \"%s\" failed: %s", connection->name, failure->text);
	return result;
}

SignInResult
signin_header(SignIn *signin, const SignInConnection *connection, int64 now_ms,
			  char **header, uint64 *ticket, SignInFailure *failure)
{
	credentials_drop_stale(signin, now_ms);
	return signin_header_at(signin, connection, now_ms, 0, header, ticket, failure);
}

SignInResult
signin_secret(SignIn *signin, const char *name, int64 now_ms, char **value, uint64 *ticket,
			  SignInFailure *failure)
{
	credentials_drop_stale(signin, now_ms);
	return signin_secret_at(signin, name, now_ms, 0, value, ticket, failure);
}

SignInResult
signin_proxy(SignIn *signin, const cJSON *options, int64 now_ms, char **line, uint64 *ticket,
			 SignInFailure *failure)
{
	credentials_drop_stale(signin, now_ms);
	return signin_proxy_at(signin, options, now_ms, 0, line, ticket, failure);
}

/* cJSON frees without wiping */
static void
wipe_strings(cJSON *item)
{
	for (; item; item = item->next)
	{
		if (item->valuestring)
			explicit_bzero(item->valuestring, strlen(item->valuestring));
		wipe_strings(item->child);
	}
}

/* A value of the answer is the new value of the credential. */
static bool
take_value(SignIn *signin, Credential *credential, const SignInAnswer *answer, int64 now_ms)
{
	const char *error;
	char	   *value = answer->is_header ? signin_bearer_line(answer->value, &error) : strdup(answer->value);

	if (value == NULL)
		return false;
	credential_take(signin, credential, value, answer->lifetime_s, answer->refresh_in_s, now_ms);
	return true;
}

/*
 * Refused.  If what was sent came out of a key vault, or with a vault's token,
 * it may have been replaced there: look again, once, before this counts.
 */
static void
take_refusal(SignIn *signin, Credential *credential, const SignInRefusal *refusal,
			 int64 retry_after_ms, int64 now_ms)
{
	bool		may_help = false;

	for (int i = 0; refusal->about_secret && i < AUTH_MAX_KEYS; i++)
	{
		may_help |= credential->secret_tickets[i] != 0;
		credential_forget(signin, credential->secret_tickets[i]);
	}
	if (refusal->about_secret && credential->vault_ticket != 0)
	{
		may_help = true;
		credential_forget(signin, credential->vault_ticket);
	}
	if (may_help && !credential->renewed)
	{
		credential->renewed = true;
		return;
	}
	/* A vault that says no is believed, also about a value that it gave us before. */
	if (credential->vault_ticket != 0 && refusal->is_user_error)
		credential_forget(signin, credential->ticket);
	credential_failed(credential, refusal, retry_after_ms, now_ms);
}

static void
read_answer(SignIn *signin, Credential *credential, const HttpResult *result, int64 now_ms)
{
	/*
	 * Before anything is cut off: a part of the secret is no longer found.  A
	 * token is left as it is, whatever it looks like.
	 */
	bool		repeated = credential->sent && result->http_status != 200 &&
		echo_mask(result->body, result->body_len, credential->sent);
	SignInAnswer answer = {0};

	/*
	 * cJSON's parser and not json_parse, because it puts strings straight into
	 * the tree, where they can be wiped; the other one has a buffer in a memory
	 * context.  What matters of the tree is checked by hand.
	 */
	cJSON	   *json = cJSON_ParseWithLengthOpts(result->body, result->body_len + 1, NULL, true);

	credential->response(result, json, now_ms, &answer);
	if (answer.challenge != NULL && credential->challenge == NULL)
		credential->challenge = strdup(answer.challenge);
	else if (answer.value == NULL || !take_value(signin, credential, &answer, now_ms))
	{
		if (answer.value != NULL)
			auth_refuse(&answer.refusal, false, "the answer of the sign-in service is not a token");
		if (repeated)
			answer.refusal.text = psprintf(REPEATED ", HTTP status %d", result->http_status);
		take_refusal(signin, credential, &answer.refusal, result->retry_after_ms, now_ms);
	}
	wipe_strings(json);
	cJSON_Delete(json);
}

/*
 * No answer.  A proxy that wants other credentials is as final as a service
 * that does; those out of a key vault are looked at again, once, before that.
 */
static void
take_error(SignIn *signin, Credential *credential, const HttpResult *result, int64 now_ms)
{
	SignInRefusal refusal = {0};
	bool		is_proxy = PROXY_WANTS_CREDENTIALS(result->proxy_status);

	if (is_proxy)
		credential_forget(signin, credential->proxy_ticket);
	if (is_proxy && credential->proxy_ticket != 0 && !credential->renewed)
	{
		credential->renewed = true;
		return;
	}
	auth_refuse(&refusal, result->refused_by_policy || is_proxy, result->error);
	credential_failed(credential, &refusal, 0, now_ms);
}

bool
signin_handle(SignIn *signin, HttpTransfer *transfer, int64 now_ms)
{
	const HttpResult *result;
	Credential *credential = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &signin->credentials)
	{
		Credential *candidate = dlist_container(Credential, node, iter.cur);

		if (candidate->fetch == transfer)
			credential = candidate;
	}
	if (credential == NULL)
		return false;

	result = httpmux_result(transfer);
	if (result->error)
		take_error(signin, credential, result, now_ms);
	else
		read_answer(signin, credential, result, now_ms);
	credential_end_fetch(credential);
	httpmux_free(signin->mux, transfer);
	return true;
}
