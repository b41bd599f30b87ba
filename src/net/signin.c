/*-------------------------------------------------------------------------
 * signin.c
 *	  Credentials for requests: read from secrets, or fetched from Microsoft
 *	  Entra ID, cached and refreshed.
 *
 * Runs where httpmux.c runs, single-threaded, no locks.  Tokens live in
 * malloc'd memory of this process and nowhere else: not in tables, shared
 * memory, messages or memory contexts.  If the process dies they are gone and
 * the next one fetches its own.
 *
 * A token, seen from outside:
 *
 *	absent ──signin_header──▶ fetching ──answer──▶ ready ──time──▶ to be refreshed
 *	   ▲                         │                   │               │ (still used
 *	   │                         ▼                   ▼ forget        ▼  meanwhile)
 *	   └────── hold is over ── failed              absent         fetching
 *
 * Whoever needs a token while it is being fetched gets SIGNIN_PENDING and
 * asks again; there is never more than one fetch per (connection, scope).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/ilist.h"

#include "echo.h"
#include "json.h"
#include "signin_int.h"

#define FETCH_CONNECT_MS		10000
#define FETCH_TOTAL_MS			30000
#define FETCH_MAX_BODY			65536
#define MAX_LIFETIME_S			(7 * 86400)
#define REFRESH_EARLY_MS		INT64CONST(300000)	/* or a fifth of the lifetime, if that is less */
#define EXPIRY_MARGIN_MS		INT64CONST(30000)	/* or a tenth */
#define FIRST_HOLD_MS			INT64CONST(1000)	/* doubling */
#define MAX_HOLD_MS				INT64CONST(60000)
#define MAX_HOLD_USER_MS		INT64CONST(10000)	/* somebody is going to correct it */
#define MAX_RETRY_AFTER_MS		INT64CONST(3600000)
#define MAX_ERROR_TEXT			500

#define REPEATED	"the sign-in service repeated the secret in its answer"

typedef struct Token
{
	dlist_node	node;
	char	   *connection;
	char	   *scope;
	int64		changed_at;		/* of the connection */

	char	   *header;			/* NULL: none to be used */
	int64		refresh_at_ms;
	int64		expires_at_ms;

	HttpTransfer *fetch;		/* NULL: none under way */
	char	   *secret;			/* while fetching, to keep it out of messages */

	int			failures;		/* in a row */
	int64		next_try_ms;
	char	   *error;			/* of the last failure */
	bool		is_user_error;
} Token;

struct SignIn
{
	HttpMux    *mux;
	SignInSecret get_secret;
	dlist_head	tokens;
};

void
signin_free_secret(char *secret)
{
	if (secret == NULL)
		return;
	explicit_bzero(secret, strlen(secret));
	free(secret);
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

SignIn *
signin_create(HttpMux *mux, SignInSecret get_secret)
{
	SignIn	   *signin = calloc(1, sizeof(SignIn));

	if (signin == NULL)
		out_of_memory();
	signin->mux = mux;
	signin->get_secret = get_secret;
	dlist_init(&signin->tokens);
	return signin;
}

static void
drop_header(Token *token)
{
	signin_free_secret(token->header);
	token->header = NULL;
}

static void
stop_fetch(SignIn *signin, Token *token)
{
	if (token->fetch)
		httpmux_abort(signin->mux, token->fetch);
	token->fetch = NULL;
	signin_free_secret(token->secret);
	token->secret = NULL;
}

static void
drop_token(SignIn *signin, Token *token)
{
	dlist_delete(&token->node);
	stop_fetch(signin, token);
	drop_header(token);
	free(token->connection);
	free(token->scope);
	free(token->error);
	free(token);
}

void
signin_destroy(SignIn *signin)
{
	if (signin == NULL)
		return;
	while (!dlist_is_empty(&signin->tokens))
		drop_token(signin, dlist_container(Token, node, dlist_head_node(&signin->tokens)));
	free(signin);
}

void
signin_forget(SignIn *signin, const char *connection_name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &signin->tokens)
	{
		Token	   *token = dlist_container(Token, node, iter.cur);

		if (strcmp(token->connection, connection_name) == 0)
			drop_header(token);
	}
}

/* Forget tokens of connections nobody asks for any more. */
static void
drop_stale(SignIn *signin, int64 now_ms)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &signin->tokens)
	{
		Token	   *token = dlist_container(Token, node, iter.cur);

		if (token->fetch == NULL && token->expires_at_ms < now_ms && token->next_try_ms < now_ms)
			drop_token(signin, token);
	}
}

static Token *
find_token(SignIn *signin, const SignInConnection *connection, const char *scope, int64 now_ms)
{
	Token	   *token;
	dlist_iter	iter;

	dlist_foreach(iter, &signin->tokens)
	{
		token = dlist_container(Token, node, iter.cur);
		if (strcmp(token->connection, connection->name) != 0 || strcmp(token->scope, scope) != 0)
			continue;
		if (token->changed_at == connection->changed_at)
			return token;

		/* it was fetched for what the connection used to be */
		drop_token(signin, token);
		break;
	}

	drop_stale(signin, now_ms);
	token = calloc(1, sizeof(Token));
	if (token == NULL)
		out_of_memory();
	token->changed_at = connection->changed_at;
	token->connection = strdup(connection->name);
	token->scope = strdup(scope);
	if (token->connection == NULL || token->scope == NULL)
	{
		free(token->connection);
		free(token->scope);
		free(token);
		out_of_memory();
	}
	dlist_push_tail(&signin->tokens, &token->node);
	return token;
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
 * Note a failure and when to try again.  text must be free of secrets; as a
 * second line of defence against a server that echoes what it was sent, a
 * text containing the secret is replaced.
 */
static void
note_failure(Token *token, const char *text, bool is_user_error, int64 retry_after_ms, int64 now_ms)
{
	int64		most = is_user_error ? MAX_HOLD_USER_MS : MAX_HOLD_MS;
	int64		hold = FIRST_HOLD_MS << Min(token->failures, 10);

	if (strstr(text, "client_secret=") != NULL ||
		(token->secret && token->secret[0] && strstr(text, token->secret) != NULL))
		text = REPEATED;
	token->failures++;
	hold = Min(hold, most);
	hold = Max(hold, Min(retry_after_ms, MAX_RETRY_AFTER_MS));
	token->next_try_ms = now_ms + hold;
	token->is_user_error = is_user_error;
	free(token->error);
	token->error = strndup(text, MAX_ERROR_TEXT);
	if (token->error)
		make_printable(token->error);
}

/* True and the lifetime if the answer is what RFC 6749 section 5.1 asks for. */
static bool
read_token(const cJSON *answer, const char **access_token, int64 *lifetime_s)
{
	const char *type = json_string(json_get(answer, "token_type"));

	*access_token = json_string(json_get(answer, "access_token"));
	return *access_token != NULL && (*access_token)[0] != '\0' &&
		type != NULL && pg_strcasecmp(type, "Bearer") == 0 &&
		json_int64(json_get(answer, "expires_in"), lifetime_s) && *lifetime_s > 0;
}

static void
take_token(Token *token, const cJSON *answer, int64 now_ms)
{
	const char *access_token;
	const char *error;
	int64		lifetime_ms;
	char	   *header = NULL;

	if (read_token(answer, &access_token, &lifetime_ms))
		header = auth_bearer_header(access_token, &error);
	if (header == NULL)
	{
		note_failure(token, "the answer of the sign-in service is not a token", false, 0, now_ms);
		return;
	}
	lifetime_ms = Min(lifetime_ms, MAX_LIFETIME_S) * 1000;
	drop_header(token);
	token->header = header;
	token->refresh_at_ms = now_ms + lifetime_ms - Min(REFRESH_EARLY_MS, lifetime_ms / 5);
	token->expires_at_ms = now_ms + lifetime_ms - Min(EXPIRY_MARGIN_MS, lifetime_ms / 10);
	token->failures = 0;
	token->next_try_ms = 0;
	free(token->error);
	token->error = NULL;
}

/* Is it up to a person to correct something? */
static bool
refusal_is_final(const HttpResult *result)
{
	return result->http_status < 500 && result->http_status != 408 && result->http_status != 429;
}

/* A status other than 200: what the service says about it, else the number. */
static void
take_refusal(Token *token, const HttpResult *result, const cJSON *answer, int64 now_ms)
{
	int			status = result->http_status;
	const char *description = json_string(json_get(answer, "error_description"));
	const char *code = json_string(json_get(answer, "error"));
	char		text[MAX_ERROR_TEXT + 1];

	if (description && description[0] != '\0')
		strlcpy(text, description, sizeof(text));
	else
		snprintf(text, sizeof(text), "HTTP status %d%s%s%s", status,
				 code ? " (" : "", code ? code : "", code ? ")" : "");
	text[strcspn(text, "\r\n")] = '\0';	/* identifiers for support follow, line by line */
	for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--)
		text[n - 1] = '\0';
	note_failure(token, text, refusal_is_final(result), result->retry_after_ms, now_ms);
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

bool
signin_handle(SignIn *signin, HttpTransfer *transfer, int64 now_ms)
{
	const HttpResult *result;
	Token	   *token = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &signin->tokens)
	{
		Token	   *candidate = dlist_container(Token, node, iter.cur);

		if (candidate->fetch == transfer)
			token = candidate;
	}
	if (token == NULL)
		return false;

	result = httpmux_result(transfer);
	if (result->error)
		note_failure(token, result->error, result->refused_by_policy, 0, now_ms);
	else
	{
		/*
		 * Before anything is cut off: a part of the secret is no longer found.
		 * A token is left as it is, whatever it looks like.
		 */
		bool		repeated = token->secret && result->http_status != 200 &&
			echo_mask(result->body, result->body_len, token->secret);

		/*
		 * cJSON's parser and not json_parse, because it puts strings straight
		 * into the tree, where they can be wiped; the other one has a buffer
		 * in a memory context.  What matters of the tree is checked by hand.
		 */
		cJSON	   *answer = cJSON_ParseWithLengthOpts(result->body, result->body_len + 1, NULL, true);

		if (result->http_status == 200)
			take_token(token, answer, now_ms);
		else if (repeated)
			note_failure(token, REPEATED, refusal_is_final(result), result->retry_after_ms, now_ms);
		else
			take_refusal(token, result, answer, now_ms);
		wipe_strings(answer);
		cJSON_Delete(answer);
	}
	token->fetch = NULL;
	signin_free_secret(token->secret);
	token->secret = NULL;
	httpmux_free(signin->mux, transfer);
	return true;
}

/* token->secret has been set.  The form is wiped whatever happens. */
static void
send_fetch(SignIn *signin, Token *token, const Auth *auth)
{
	static const char *const headers[] = {
		"Content-Type: application/x-www-form-urlencoded",
		"Accept: application/json",
		NULL
	};
	static const HttpOptions options = {
		.max_body = FETCH_MAX_BODY,
		.connect_timeout_ms = FETCH_CONNECT_MS,
		.total_timeout_ms = FETCH_TOTAL_MS
	};
	size_t		len = strlen(auth->authority);
	char	   *url;
	char	   *form;

	while (len > 0 && auth->authority[len - 1] == '/')
		len--;
	url = psprintf("%.*s/%s/oauth2/v2.0/token", (int) len, auth->authority, auth->tenant_id);
	form = auth_entra_form(auth, token->secret);
	if (form == NULL)
		out_of_memory();
	PG_TRY();
	{
		token->fetch = httpmux_start(signin->mux, "POST", url, headers, form, strlen(form),
									 &options, NULL);
	}
	PG_FINALLY();
	{
		signin_free_secret(form);
	}
	PG_END_TRY();
	pfree(url);
}

static void
start_fetch(SignIn *signin, Token *token, const Auth *auth, int64 now_ms)
{
	const char *error = NULL;
	char	   *secret = signin->get_secret(auth->secret, &error);

	if (secret == NULL)
	{
		note_failure(token, error ? error : "the secret cannot be read", true, 0, now_ms);
		return;
	}
	if (secret[0] == '\0')
	{
		signin_free_secret(secret);
		note_failure(token, "the secret is empty", true, 0, now_ms);
		return;
	}
	token->secret = secret;
	send_fetch(signin, token, auth);
}

static SignInResult
failed(const SignInConnection *connection, const char *text, const char **error)
{
	*error = psprintf("sign-in for connection \"%s\" failed: %s", connection->name, text);
	return SIGNIN_FAILED;
}

static SignInResult
entra_header(SignIn *signin, const SignInConnection *connection, const Auth *auth, int64 now_ms,
			 char **header, const char **error, bool *is_user_error, int64 *retry_ms)
{
	Token	   *token = find_token(signin, connection, auth->scope, now_ms);
	bool		usable = token->header != NULL && now_ms < token->expires_at_ms;
	int64		hold = token->next_try_ms - now_ms;

	/* a hold longer than any we set means that the clock was set back */
	if (hold > MAX_RETRY_AFTER_MS)
		hold = 0;
	if (token->fetch == NULL && hold <= 0 && (!usable || now_ms >= token->refresh_at_ms))
	{
		start_fetch(signin, token, auth, now_ms);
		hold = token->next_try_ms - now_ms;
	}

	if (usable)
	{
		*header = strdup(token->header);
		if (*header == NULL)
			out_of_memory();
		return SIGNIN_READY;
	}
	if (token->fetch != NULL)
		return SIGNIN_PENDING;
	*is_user_error = token->is_user_error;
	*retry_ms = Max(hold, 0);
	return failed(connection, token->error ? token->error : "out of memory", error);
}

SignInResult
signin_header(SignIn *signin, const SignInConnection *connection, int64 now_ms,
			  char **header, const char **error, bool *is_user_error, int64 *retry_ms)
{
	Auth		auth;
	AuthProblem problem;
	const char *why = NULL;
	char	   *secret;

	*header = NULL;
	*error = NULL;
	*is_user_error = true;
	*retry_ms = FIRST_HOLD_MS;
	if (!auth_read(connection->kind, connection->auth, &auth, &problem))
		return failed(connection, problem.message, error);
	if (auth.type == AUTH_NONE || auth.type == AUTH_SIGNED)
		return SIGNIN_NONE;
	if (auth.type == AUTH_ENTRA_CLIENT_SECRET)
		return entra_header(signin, connection, &auth, now_ms, header, error, is_user_error, retry_ms);

	/* not cached: a changed secret takes effect with the next request */
	secret = signin->get_secret(auth.secret, &why);
	if (secret == NULL)
		return failed(connection, why ? why : "the secret cannot be read", error);
	if (auth.type == AUTH_BASIC)
		*header = auth_basic_header(auth.username, secret, &why);
	else
		*header = auth_bearer_header(secret, &why);
	signin_free_secret(secret);
	return *header ? SIGNIN_READY : failed(connection, why, error);
}
