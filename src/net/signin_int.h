/*-------------------------------------------------------------------------
 * signin_int.h
 *	  Shared by signin.c (tokens) and signin_auth.c (what "auth" says).
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SIGNIN_INT_H
#define WEIR_SIGNIN_INT_H

#include "signin.h"

typedef enum AuthType
{
	AUTH_NONE,
	AUTH_TOKEN,					/* pat, bearer: the secret is the token */
	AUTH_BASIC,
	AUTH_SIGNED,				/* shared_key, sas: each request when it is sent, see outgoing.c */
	AUTH_ENTRA_CLIENT_SECRET
} AuthType;

/* "auth" of a connection, checked.  Strings point into the JSON or are static. */
typedef struct Auth
{
	AuthType	type;
	const char *secret;			/* name of the secret, NULL for AUTH_NONE */
	const char *username;
	const char *tenant_id;
	const char *client_id;
	const char *authority;		/* may end in a slash */
	const char *scope;
} Auth;

typedef struct AuthProblem
{
	const char *path;
	const char *message;
	const char *hint;
} AuthProblem;

/* Shape only, no look at secrets or the URL policy.  Texts palloc'd or static. */
extern bool auth_read(const char *connection_kind, const cJSON *auth, Auth *parsed, AuthProblem *problem);

/*
 * malloc'd "Authorization: ..." line from the value of the secret, or NULL
 * and *error (static text) if the value cannot be sent.
 */
extern char *auth_bearer_header(const char *token, const char **error);
extern char *auth_basic_header(const char *username, const char *password, const char **error);

/* malloc'd form body of a client credentials request; NULL when out of memory */
extern char *auth_entra_form(const Auth *auth, const char *client_secret);

#endif							/* WEIR_SIGNIN_INT_H */
