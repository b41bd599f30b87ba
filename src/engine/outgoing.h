/*-------------------------------------------------------------------------
 * outgoing.h
 *	  Requests as they are sent: with credentials, signatures and secrets.
 *
 * Secrets are named here and come from whoever signs in (signin.h), which may
 * have to ask a key vault first.  What outgoing_make filled in, also when it
 * failed, is wiped by outgoing_wipe.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OUTGOING_H
#define WEIR_OUTGOING_H

#include "catalog.h"
#include "kind.h"
#include "signin.h"

/* What a request is signed in with, malloc'd; NULL where there is none. */
typedef struct OutgoingSecrets
{
	char	   *credentials;	/* "Authorization: ..." */
	char	   *management;		/* "X-Databricks-Azure-SP-Management-Token: ..." */
	char	   *signing;		/* of outgoing_signing_secret() */
	char	   *value;			/* of request->secret */
	char	   *proxy;			/* "Proxy-Authorization: ..." */
} OutgoingSecrets;

typedef struct Outgoing
{
	const char *url;
	const char **lines;			/* headers, NULL at the end */
	const char *body;			/* or NULL */
	size_t		body_len;
	char	   *secrets[3];		/* malloc'd texts the above point to */
	char	   *masked[2];		/* malloc'd; not to be seen in the answer, see HttpOptions */
} Outgoing;

/* A connection as sign-in sees it, strings shared.  scope: audience of the token, or NULL for the connection's own. */
extern void outgoing_describe(const Connection *connection, const char *scope, SignInConnection *asking);
/*
 * All that signing in through a connection takes but for the secrets named
 * below: the line of credentials, and that of a second token where one is
 * needed.  tickets: as signin_header() gives them, one for each.
 */
extern SignInResult outgoing_sign_in(SignIn *signin, const Connection *connection, const char *scope, int64 now_ms,
									 OutgoingSecrets *secrets, uint64 tickets[2], SignInFailure *failure);
/* The secret that auth of type shared_key or sas names, as auth does; NULL: another type, or no connection. */
extern const char *outgoing_signing_secret(const KindRequest *request, const Connection *connection);
/*
 * The request with what signs in: a line of credentials, or what the
 * connection's auth of type shared_key or sas asks for.  connection is NULL
 * for none.  out points into the secrets.  False and *error (palloc'd or
 * static, no secrets).
 */
extern bool outgoing_make(const KindRequest *request, const Connection *connection, const OutgoingSecrets *secrets,
						  Outgoing *out, const char **error);
extern void outgoing_wipe(Outgoing *out);
extern void outgoing_forget(OutgoingSecrets *secrets);	/* wipes and frees them */

#endif							/* WEIR_OUTGOING_H */
