/*-------------------------------------------------------------------------
 * signin_entra.h
 *	  What the ways to sign in at Microsoft Entra ID share.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SIGNIN_ENTRA_H
#define WEIR_SIGNIN_ENTRA_H

#include "signin_int.h"

/* The keys that all have; the way's own come after them. */
#define ENTRA_KEYS \
	{"tenant_id", AUTH_KEY_TENANT, true}, \
	{"client_id", AUTH_KEY_ID, true}, \
	{"authority", AUTH_KEY_URL}, \
	{"scope", AUTH_KEY_SCOPE}, \
	WORKSPACE_KEYS

/* signin_federated.c: is the secret "token" a JWT that is valid now?  False and *refusal. */
extern bool federated_check(const SignInCall *call, SignInRefusal *refusal);
/* Where tokens are issued, which is also the audience of assertions; palloc'd */
extern const char *entra_token_url(const Auth *auth);
/* Start of the form: grant, client and scope */
extern void entra_begin_form(const Auth *auth, SecretBuf *form);
/* Fill in the request; takes over form and sent (malloc'd).  False if memory ran out. */
extern bool entra_finish(const Auth *auth, SecretBuf *form, char *sent,
						 SignInRequest *request, SignInRefusal *refusal);
/* An assertion into the form (RFC 7523); takes over the assertion, which may be NULL. */
extern bool entra_send_assertion(const Auth *auth, char *assertion,
								 SignInRequest *request, SignInRefusal *refusal);
extern void entra_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out);

#endif							/* WEIR_SIGNIN_ENTRA_H */
