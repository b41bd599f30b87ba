/*-------------------------------------------------------------------------
 * signin_entra.c
 *	  Signing in at Microsoft Entra ID with a client secret, and what its
 *	  other ways share: form, address and the reading of refusals.
 *
 * Runs where httpmux.c runs.  No state, no locks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json.h"
#include "signin_entra.h"

#define CLOCK_TOLERANCE_S	300		/* Entra's own */

const char *
entra_token_url(const Auth *auth)
{
	const char *authority = auth_text(auth, "authority");

	return auth_url_join(authority ? authority : AUTH_DEFAULT_AUTHORITY,
						 psprintf("/%s/oauth2/v2.0/token", auth_text(auth, "tenant_id")));
}

void
entra_begin_form(const Auth *auth, SecretBuf *form)
{
	secretbuf_addstr(form, "grant_type=client_credentials");
	secretbuf_add_form(form, "client_id", auth_text(auth, "client_id"));
	secretbuf_add_form(form, "scope", auth->scope);
}

bool
entra_finish(const Auth *auth, SecretBuf *form, char *sent, SignInRequest *request, SignInRefusal *refusal)
{
	request->method = "POST";
	request->url = entra_token_url(auth);
	request->sent = sent;
	request->form = secretbuf_take(form);
	return (request->sent != NULL && request->form != NULL) || auth_refuse(refusal, false, "out of memory");
}

bool
entra_send_assertion(const Auth *auth, char *assertion, SignInRequest *request, SignInRefusal *refusal)
{
	SecretBuf	form = {0};

	entra_begin_form(auth, &form);
	secretbuf_add_form(&form, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
	if (assertion != NULL)
		secretbuf_add_form(&form, "client_assertion", assertion);
	return entra_finish(auth, &form, assertion, request, refusal);
}

/* 700024: whose clock is wrong can be told from the service's own time. */
static const char *
time_refusal(const char *words, int64 now_s)
{
	int64		ahead;

	if (!aadsts_clock_ahead(words, now_s, &ahead))
		return psprintf("the assertion is not valid at the time of the sign-in service: compare the clock of the database server (%s)", words);
	if (ahead < -CLOCK_TOLERANCE_S || ahead > CLOCK_TOLERANCE_S)
		return psprintf("the clock of the database server is " INT64_FORMAT " s %s that of the sign-in service: set it right (%s)",
						ahead > 0 ? ahead : -ahead, ahead > 0 ? "ahead of" : "behind", words);
	return psprintf("the assertion has expired or is not valid yet, and the clock of the database server is right: look at who issues it (%s)", words);
}

void
entra_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	const AadstsMeaning *meaning;
	const char *words;
	int			code;

	if (result->http_status == 200)
	{
		if (!signin_oauth_token(result, answer, now_ms, out))
			signin_oauth_nothing(result, answer, "a token", "authority", &out->refusal);
		return;
	}
	words = signin_oauth_words(result, answer);
	code = aadsts_code(words);
	meaning = aadsts_meaning(code);
	if (code == 700024)
		auth_refuse(&out->refusal, true, time_refusal(words, now_ms / 1000));
	else if (meaning != NULL)
	{
		auth_refuse(&out->refusal, meaning->is_user_error,
					psprintf("%s: %s (%s)", meaning->what, meaning->advice, words));
		out->refusal.about_secret = meaning->about_secret;
	}
	else if (result->http_status == 404)
		auth_refuse(&out->refusal, true, psprintf("there is no sign-in service at this address: correct authority (%s)", words));
	else
	{
		auth_refuse(&out->refusal, signin_oauth_is_final(result), words);
		out->refusal.about_secret = result->http_status == 401;
	}
}

static bool
secret_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const char *secret = auth_secret(call, "client_secret");
	SecretBuf	form = {0};

	entra_begin_form(call->auth, &form);
	secretbuf_add_form(&form, "client_secret", secret);
	return entra_finish(call->auth, &form, strdup(secret), request, refusal);
}

const SignInMethod signin_entra_client_secret = {
	.name = "entra_client_secret",
	.keys = {
		ENTRA_KEYS,
		{"client_secret", AUTH_KEY_SECRET, true},
	},
	.request = secret_request,
	.response = entra_response,
};
