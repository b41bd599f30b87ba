/*-------------------------------------------------------------------------
 * signin_federated.c
 *	  Workload identity federation: a token that somebody else issued, such
 *	  as the one Kubernetes writes for a service account, is the assertion.
 *
 * Runs where httpmux.c runs.  The token's file is a secret with a file:
 * reference; it is read for every fetch, so what was renewed in the meantime
 * is what is sent.  An expired one is not sent at all: the refusal would only
 * say less.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "signin_entra.h"

static char *
time_text(int64 epoch_s)
{
	time_t		when = (time_t) epoch_s;
	struct tm	tm;
	char		text[40];

	if (gmtime_r(&when, &tm) == NULL || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		return psprintf("" INT64_FORMAT, epoch_s);
	return pstrdup(text);
}

bool
federated_check(const SignInCall *call, SignInRefusal *refusal)
{
	const char *token = auth_secret(call, "token");
	const char *name = auth_text(call->auth, "token");
	int64		now_s = call->now_ms / 1000;
	int64		not_before_s;
	int64		expires_s;

	if (signin_header_problem(token, true) != NULL || !assertion_times(token, &not_before_s, &expires_s))
	{
		auth_refuse(refusal, true, psprintf("secret \"%s\" is no token of workload identity federation: it is not a JWT", name));
		refusal->about_secret = true;
		return false;
	}
	/* Its issuer renews it by itself as a rule, so this may pass. */
	if (expires_s != INT64_MIN && expires_s <= now_s)
	{
		auth_refuse(refusal, false, psprintf("the token in secret \"%s\" expired at %s: whoever writes it has to renew it, or the clock of the database server is wrong",
											 name, time_text(expires_s)));
		refusal->about_secret = true;
		return false;
	}
	if (not_before_s != INT64_MIN && not_before_s > now_s + 300)
		return auth_refuse(refusal, false, psprintf("the token in secret \"%s\" is not valid before %s: the clock of the database server is wrong, or that of its issuer",
													name, time_text(not_before_s)));
	return true;
}

static bool
federated_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	return federated_check(call, refusal) &&
		entra_send_assertion(call->auth, strdup(auth_secret(call, "token")), request, refusal);
}

const SignInMethod signin_entra_federated = {
	.name = "entra_federated",
	.keys = {
		ENTRA_KEYS,
		{"token", AUTH_KEY_SECRET, true},
	},
	.request = federated_request,
	.response = entra_response,
};
