/*-------------------------------------------------------------------------
 * signin_oauth.c
 *	  OAuth 2.0 client credentials with a client secret: any service's
 *	  (oauth_client_secret), and Databricks' own (databricks_oauth).
 *
 * Runs where httpmux.c runs.  RFC 6749 sections 2.3.1, 4.4 and 5.  What reads
 * answers is shared with the other ways that fetch tokens.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json.h"
#include "retry.h"
#include "signin_int.h"

#define MAX_WORDS				400
#define UNKNOWN_LIFETIME_S		60
#define DATABRICKS_TOKEN_PATH	"/oidc/v1/token"
#define DATABRICKS_SCOPE		"all-apis"

/* What the service's clock says, seconds since the epoch: the answer's Date, else ours */
static int64
service_clock(const HttpResult *result, int64 now_s)
{
	static const char name[] = "date:";
	int64		theirs;

	for (const char *line = result->headers; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n')
	{
		const char *value = line + sizeof(name) - 1;

		if (pg_strncasecmp(line, name, sizeof(name) - 1) != 0)
			continue;
		value += strspn(value, " \t");
		return retry_http_date(pnstrdup(value, strcspn(value, "\r\n")), now_s, &theirs) ? theirs : now_s;
	}
	return now_s;
}

/*
 * A service that says only when a token expires says it by its own clock, and
 * ours may be wrong.  If by that clock it has expired already, it is used all
 * the same, for a short time: whoever is shown it knows better.
 */
static int64
lifetime_until(const HttpResult *result, int64 expires_on, int64 now_s)
{
	int64		clock_s = service_clock(result, now_s);

	return expires_on > clock_s ? expires_on - clock_s : UNKNOWN_LIFETIME_S;
}

bool
signin_oauth_token(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	const char *type = json_string(json_get(answer, "token_type"));
	const char *token = json_string(json_get(answer, "access_token"));
	int64		expires_on;

	if (token == NULL || token[0] == '\0' || type == NULL || pg_strcasecmp(type, "Bearer") != 0)
		return false;
	if (!json_int64(json_get(answer, "expires_in"), &out->lifetime_s))
	{
		/* the identity endpoint of App Service says only when */
		if (!json_int64(json_get(answer, "expires_on"), &expires_on) || expires_on <= 0)
			return false;
		out->lifetime_s = lifetime_until(result, expires_on, now_ms / 1000);
	}
	if (out->lifetime_s <= 0)
		return false;
	if (!json_int64(json_get(answer, "refresh_in"), &out->refresh_in_s))
		out->refresh_in_s = 0;
	out->value = token;
	out->is_header = true;
	return true;
}

char *
signin_oauth_words(const HttpResult *result, const cJSON *answer)
{
	const char *description = json_string(json_get(answer, "error_description"));
	const char *code = json_string(json_get(answer, "error"));
	char	   *text;

	if (description && description[0] != '\0')
		text = pstrdup(description);
	else if (code)
		text = psprintf("HTTP status %d (%s)", result->http_status, code);
	else
		text = psprintf("HTTP status %d", result->http_status);
	text[strcspn(text, "\r\n")] = '\0'; /* identifiers for support follow, line by line */
	for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--)
		text[n - 1] = '\0';
	if (strlen(text) > MAX_WORDS)
		text[MAX_WORDS] = '\0';
	return text;
}

/*
 * Something else answers there: a portal, a proxy or a wrong address.  The
 * first two may pass.
 */
void
signin_oauth_nothing(const HttpResult *result, const cJSON *answer, const char *what, const char *correct, SignInRefusal *refusal)
{
	const char *start = result->body + strspn(result->body, " \t\r\n");
	bool		is_page = *start == '<' || (result->content_type && pg_strncasecmp(result->content_type, "text/html", 9) == 0);

	if (is_page)
		auth_refuse(refusal, false, psprintf("a web page answers in the place of the service: correct %s, or have the requests of the database server let through", correct));
	else
		auth_refuse(refusal, false, psprintf("the answer of the service is not %s: correct %s", cJSON_IsObject(answer) ? what : "JSON", correct));
	refusal->is_misplaced = true;
}

bool
signin_oauth_is_final(const HttpResult *result)
{
	return result->http_status < 500 && result->http_status != 408 && result->http_status != 429;
}

static void
oauth_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	const char *code = json_string(json_get(answer, "error"));
	const char *words;

	if (result->http_status == 200)
	{
		if (!signin_oauth_token(result, answer, now_ms, out))
			signin_oauth_nothing(result, answer, "a token", "token_url, or base_url of the connection", &out->refusal);
		return;
	}
	words = signin_oauth_words(result, answer);
	if (code && strcmp(code, "invalid_client") == 0)
	{
		auth_refuse(&out->refusal, true,
					psprintf("client_id or the client secret is not right, or the secret has expired: give the present one to weir.alter_secret (%s)", words));
		out->refusal.about_secret = true;
	}
	else if (code && strcmp(code, "invalid_scope") == 0)
		auth_refuse(&out->refusal, true, psprintf("the scope is not accepted: correct it in auth (%s)", words));
	else if (code && strcmp(code, "unauthorized_client") == 0)
		auth_refuse(&out->refusal, true, psprintf("the client may not sign in this way: have client credentials allowed for it (%s)", words));
	else if (result->http_status == 404)
		auth_refuse(&out->refusal, true, psprintf("there is no sign-in service at this address: correct the URL (%s)", words));
	else
	{
		auth_refuse(&out->refusal, signin_oauth_is_final(result), words);
		out->refusal.about_secret = result->http_status == 401;
	}
}

/* RFC 6749 section 2.3.1: both are form-encoded before they are put together */
static char *
client_basic(const char *client_id, const char *client_secret, const char **error)
{
	SecretBuf	id = {0};
	SecretBuf	secret = {0};
	char	   *line = NULL;

	secretbuf_add_urlencoded(&id, client_id);
	secretbuf_add_urlencoded(&secret, client_secret);
	if (id.failed || secret.failed)
		*error = "out of memory";
	else
		line = signin_basic_value(id.data, secret.data, error);
	secretbuf_free(&id);
	secretbuf_free(&secret);
	return line;
}

static bool
send_secret(const SignInCall *call, const char *url, const char *scope, bool in_form,
			SignInRequest *request, SignInRefusal *refusal)
{
	const char *client_id = auth_text(call->auth, "client_id");
	const char *secret = auth_secret(call, "client_secret");
	const char *audience = auth_text(call->auth, "audience");
	const char *error = "out of memory";
	SecretBuf	form = {0};

	request->method = "POST";
	request->url = url;
	request->sent = strdup(secret);
	secretbuf_addstr(&form, "grant_type=client_credentials");
	if (scope)
		secretbuf_add_form(&form, "scope", scope);
	if (audience)
		secretbuf_add_form(&form, "audience", audience);
	if (in_form)
	{
		secretbuf_add_form(&form, "client_id", client_id);
		secretbuf_add_form(&form, "client_secret", secret);
	}
	else
		request->secret_header = client_basic(client_id, secret, &error);
	request->form = secretbuf_take(&form);
	if (request->sent && request->form && (in_form || request->secret_header))
		return true;
	return auth_refuse(refusal, true, error);
}

static bool
oauth_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const char *how = auth_text(call->auth, "client_auth");

	return send_secret(call, auth_text(call->auth, "token_url"), call->auth->scope,
					   how != NULL && strcmp(how, "post") == 0, request, refusal);
}

static const char *
databricks_url(const Auth *auth, const char **path)
{
	*path = "type";
	return auth->base_url ? auth_url_join(auth->base_url, DATABRICKS_TOKEN_PATH) : NULL;
}

static bool
databricks_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const char *url = databricks_url(call->auth, &(const char *){NULL});

	if (url == NULL)
		return auth_refuse(refusal, true, "the connection has no base_url");
	return send_secret(call, url, call->auth->scope ? call->auth->scope : DATABRICKS_SCOPE, false, request, refusal);
}

static const char *const client_auths[] = {"basic", "post", NULL};

const SignInMethod signin_oauth_client_secret = {
	.name = "oauth_client_secret",
	.keys = {
		{"token_url", AUTH_KEY_URL, true},
		{"client_id", AUTH_KEY_TEXT, true},
		{"client_secret", AUTH_KEY_SECRET, true},
		{"client_auth", AUTH_KEY_CHOICE, false, client_auths},
		{"scope", AUTH_KEY_TEXT},
		{"audience", AUTH_KEY_TEXT},
	},
	.request = oauth_request,
	.response = oauth_response,
};

const SignInMethod signin_databricks_oauth = {
	.name = "databricks_oauth",
	.keys = {
		{"client_id", AUTH_KEY_ID, true},
		{"client_secret", AUTH_KEY_SECRET, true},
		{"scope", AUTH_KEY_TEXT},
	},
	.url = databricks_url,
	.request = databricks_request,
	.response = oauth_response,
};
