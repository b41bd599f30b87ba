/*-------------------------------------------------------------------------
 * signin_secret.c
 *	  Values of secrets for signing in: weir's own, and those that are kept in
 *	  a key vault.
 *
 * Runs where httpmux.c runs.  A secret of weir's is read when it is needed
 * and not kept.  One out of a vault is a credential like a token: it is
 * fetched through the vault's connection, kept in memory, looked up again
 * after weir.keyvault_refresh, and at once when somebody refuses it.  While
 * the vault cannot be reached the last value is used for a day; when the vault
 * says that there is no such secret any more, it is gone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "json.h"
#include "proxyauth.h"
#include "route.h"
#include "signin_int.h"

#define DEFAULT_API_VERSION	"7.4"
#define MAX_DEPTH			3		/* vaults whose own sign-in needs a vault */
#define USABLE_S			86400

static int	keyvault_refresh = 900;

void
signin_define_vault_gucs(void)
{
	DefineCustomIntVariable("weir.keyvault_refresh",
							"Time after which a secret kept in a key vault is looked up again.",
							"A secret that is refused is looked up again at once.",
							&keyvault_refresh, 900, 1, 86400, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

static SignInResult
failed(SignInFailure *failure, const char *text)
{
	failure->text = text;
	failure->is_user_error = true;
	failure->retry_ms = 1000;
	return SIGNIN_FAILED;
}

/* Code and message of {"error": {"code", "message", "innererror": {"code"}}} */
static const char *
vault_words(const HttpResult *result, const cJSON *answer)
{
	const char *code = json_string(json_get(answer, "error.innererror.code"));
	const char *message = json_string(json_get(answer, "error.message"));
	char	   *text;

	if (code == NULL)
		code = json_string(json_get(answer, "error.code"));
	if (code == NULL)
		return psprintf("HTTP status %d", result->http_status);
	text = psprintf("HTTP status %d, %.100s: %.300s", result->http_status, code, message ? message : "");
	text[strcspn(text, "\r\n")] = '\0';
	return text;
}

static void
vault_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	int			status = result->http_status;
	const char *words;

	if (status == 200)
	{
		out->value = json_string(json_get(answer, "value"));
		out->lifetime_s = USABLE_S;
		out->refresh_in_s = keyvault_refresh;
		if (out->value == NULL || out->value[0] == '\0')
		{
			out->value = NULL;
			signin_oauth_nothing(result, answer, "a secret", "base_url of the key vault's connection", &out->refusal);
		}
		return;
	}
	words = vault_words(result, answer);
	if (status == 401)
	{
		auth_refuse(&out->refusal, true, psprintf("the key vault does not accept the token: check the tenant of its connection (%s)", words));
		out->refusal.about_secret = true;
	}
	else if (status == 403)
		auth_refuse(&out->refusal, true, psprintf("the key vault forbids it: give the connection's identity the right to get secrets, and see whether the secret is enabled and the firewall lets the server through (%s)", words));
	else if (status == 404)
		auth_refuse(&out->refusal, true, psprintf("the key vault has no such secret or version: correct the reference (%s)", words));
	else
		auth_refuse(&out->refusal, signin_oauth_is_final(result), words);
}

/* Ask the vault; false: the token to ask with is not there yet. */
static bool
ask_vault(SignIn *signin, Credential *credential, const SignInConnection *vault, const char *name,
		  const char *version, int64 now_ms, int depth)
{
	SignInFailure failure = {0};
	SignInRefusal refusal = {0};
	SignInRequest request = {.method = "GET"};
	const char *api_version = json_string(cJSON_GetObjectItemCaseSensitive(vault->options, "api_version"));
	char	   *proxy_line = NULL;
	uint64		ticket = 0;
	SignInResult result = signin_header_at(signin, vault, now_ms, depth + 1, &request.secret_header, &ticket, &failure);

	if (result != SIGNIN_PENDING && result != SIGNIN_FAILED)
		result = signin_proxy_at(signin, vault->options, now_ms, depth + 1, &proxy_line, &credential->proxy_ticket, &failure);
	switch (result)
	{
		case SIGNIN_PENDING:
			secret_wipe(request.secret_header);
			return false;
		case SIGNIN_FAILED:
			secret_wipe(request.secret_header);
			refusal.text = failure.text;
			refusal.is_user_error = failure.is_user_error;
			refusal.is_misplaced = failure.is_misplaced;
			credential_failed_here(credential, &refusal, now_ms);
			return true;
		case SIGNIN_READY:
		case SIGNIN_NONE:
			break;
	}
	if (credential->fetch != NULL)
	{
		secret_wipe(request.secret_header);
		secret_wipe(proxy_line);
		return true;
	}
	/* checked when the connection was defined: letters, digits, dots and hyphens */
	request.url = auth_url_join(vault->base_url, psprintf("/secrets/%s/%s?api-version=%s", name, version ? version : "",
														  api_version ? api_version : DEFAULT_API_VERSION));
	credential->vault_ticket = ticket;
	credential_send(signin, credential, vault->options, vault->base_url, proxy_line, &request, vault_response, now_ms);
	secret_wipe(proxy_line);
	return true;
}

static SignInResult
vault_secret(SignIn *signin, const char *reference, int64 now_ms, int depth,
			 char **value, uint64 *ticket, SignInFailure *failure)
{
	SignInConnection vault = {0};
	Credential *credential;
	SignInResult result;
	char	   *connection;
	char	   *name;
	char	   *version;
	const char *error;
	bool		waits = false;

	if (!signin_vault_reference(reference, &connection, &name, &version, &error))
		return failed(failure, error ? error : "a reference to a key vault is not valid");
	if (depth >= MAX_DEPTH)
		return failed(failure, "key vaults are signed in to with secrets out of each other");
	if (!signin->catalog.connection(connection, &vault, signin->catalog.arg))
		return failed(failure, psprintf("connection \"%s\" of a reference to a key vault does not exist", connection));
	if (strcmp(vault.kind, "keyvault") != 0 || vault.base_url == NULL)
		return failed(failure, psprintf("connection \"%s\" of a reference to a key vault is not of kind keyvault", connection));

	credential = credential_find(signin, &vault, psprintf("secret:%s/%s", name, version ? version : ""));
	if (credential_due(credential, now_ms))
		waits = !ask_vault(signin, credential, &vault, name, version, now_ms, depth);
	if (waits && !credential_usable(credential, now_ms))
		return SIGNIN_PENDING;
	result = credential_result(credential, now_ms, value, ticket, failure);
	if (result == SIGNIN_FAILED)
		failure->text = psprintf("secret \"%s\" of key vault \"%s\": %s", name, connection, failure->text);
	return result;
}

SignInResult
signin_secret_at(SignIn *signin, const char *name, int64 now_ms, int depth,
				 char **value, uint64 *ticket, SignInFailure *failure)
{
	const char *reference = NULL;
	const char *error = NULL;

	*ticket = 0;
	*value = NULL;
	if (strncmp(name, "keyvault:", 9) == 0)
		return vault_secret(signin, name, now_ms, depth, value, ticket, failure);
	*value = signin->catalog.secret(name, &reference, &error);
	if (*value == NULL && reference != NULL)
		return vault_secret(signin, reference, now_ms, depth, value, ticket, failure);
	if (*value == NULL)
		return failed(failure, error ? error : "the secret cannot be read");
	if ((*value)[0] != '\0')
		return SIGNIN_READY;
	secret_wipe(*value);
	*value = NULL;
	return failed(failure, "the secret is empty");
}

SignInResult
signin_proxy_at(SignIn *signin, const cJSON *options, int64 now_ms, int depth,
				char **line, uint64 *ticket, SignInFailure *failure)
{
	const char *name = route_proxy_secret(options);
	const char *error = NULL;
	char	   *value;
	SignInResult result;

	*line = NULL;
	*ticket = 0;
	if (name == NULL)
		return SIGNIN_NONE;
	result = signin_secret_at(signin, name, now_ms, depth, &value, ticket, failure);
	if (result == SIGNIN_READY)
	{
		*line = proxyauth_line(value, &error);
		secret_wipe(value);
		if (*line == NULL)
		{
			credential_forget(signin, *ticket);
			result = failed(failure, error);
		}
	}
	if (result == SIGNIN_FAILED)
		failure->text = psprintf("proxy_secret: %s", failure->text);
	return result;
}
