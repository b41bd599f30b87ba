/*-------------------------------------------------------------------------
 * signin_signed.c
 *	  Ways to sign in that have no header of their own: every request is
 *	  signed, or its URL extended, when it is sent.
 *
 * Here they are only checked; whoever sends the request does the rest.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "signin_int.h"

/* Shared keys and SAS are for storage accounts alone. */
static bool
check_signed(const Auth *auth, AuthProblem *problem)
{
	const char *account = auth_text(auth, "account");

	if (auth->kind == NULL || strcmp(auth->kind, "storage") != 0)
		return auth_fail(problem, "type", psprintf("auth of type %s is for connections of kind storage", auth->method->name),
						 "Such a connection reaches the queues of the account, too.");
	for (const char *p = account ? account : ""; *p != '\0'; p++)
	{
		if ((*p & 0x80) != 0 || (!isalnum((unsigned char) *p) && *p != '-'))
			return auth_fail(problem, "account", "\"account\" is not the name of a storage account",
							 "Leave it out to take it from the base URL.");
	}
	return true;
}

const SignInMethod signin_shared_key = {
	.name = "shared_key",
	.keys = {{"account", AUTH_KEY_TEXT}, {"key", AUTH_KEY_SECRET, true}},
	.check = check_signed,
};

const SignInMethod signin_sas = {
	.name = "sas",
	.keys = {{"token", AUTH_KEY_SECRET, true}},
	.check = check_signed,
};
