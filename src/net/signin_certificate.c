/*-------------------------------------------------------------------------
 * signin_certificate.c
 *	  Signing in at Microsoft Entra ID with a certificate: an assertion
 *	  signed with its key takes the place of a client secret.
 *
 * Runs where httpmux.c runs.  Key and certificate are read from the secret
 * for every token (once an hour), so a new certificate takes effect with the
 * next one and the key is not kept.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "signin_entra.h"

/* Random, RFC 9562 version 4: never used before */
static bool
make_jti(char *text)
{
	unsigned char b[16];

	if (!pg_strong_random(b, sizeof(b)))
		return false;
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
			 b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return true;
}

static bool
certificate_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const Auth *auth = call->auth;
	const char *alg = auth_text(auth, "algorithm");
	const char *problem;
	SigningKey *key = signing_key_read(auth_secret(call, "certificate"), auth_secret(call, "private_key"),
									   auth_secret(call, "password"), &problem);
	char		jti[37];
	char	   *assertion = NULL;

	if (key == NULL)
		auth_refuse(refusal, true, psprintf("secret \"%s\" is no certificate to sign in with: %s",
											auth_text(auth, "certificate"), problem));
	else if ((problem = signing_key_time_problem(key, call->now_ms / 1000)) != NULL)
		auth_refuse(refusal, true, psprintf("%s: register a new one with the application and give it to weir.alter_secret, or set the clock of the database server",
											problem));
	else if (!make_jti(jti) ||
			 (assertion = assertion_build(key, alg && strcmp(alg, "RS256") == 0 ? ASSERTION_RS256 : ASSERTION_PS256,
										  auth_flag(auth, "send_chain"), entra_token_url(auth),
										  auth_text(auth, "client_id"), jti, call->now_ms / 1000)) == NULL)
		auth_refuse(refusal, false, "the assertion could not be signed");
	signing_key_free(key);
	refusal->about_secret = assertion == NULL;
	return assertion != NULL && entra_send_assertion(auth, assertion, request, refusal);
}

static const char *const algorithms[] = {"PS256", "RS256", NULL};

const SignInMethod signin_entra_certificate = {
	.name = "entra_certificate",
	.keys = {
		ENTRA_KEYS,
		{"certificate", AUTH_KEY_SECRET, true},
		{"private_key", AUTH_KEY_SECRET},
		{"password", AUTH_KEY_SECRET},
		{"algorithm", AUTH_KEY_CHOICE, false, algorithms},
		{"send_chain", AUTH_KEY_BOOLEAN},
	},
	.request = certificate_request,
	.response = entra_response,
};
