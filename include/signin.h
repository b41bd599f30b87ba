/*-------------------------------------------------------------------------
 * signin.h
 *	  Credentials for a connection: tokens fetched, cached and refreshed.
 *
 * Lives in the process that owns the HttpMux; tokens exist only in its
 * memory, never in tables, shared memory or messages.  One fetch at a time
 * per (connection, scope) however many wait.  now_ms is epoch milliseconds.
 *
 * signin_destroy() goes before httpmux_destroy() of the same multiplexer.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SIGNIN_H
#define WEIR_SIGNIN_H

#include <cjson/cJSON.h>
#include "httpmux.h"

struct List;					/* nodes/pg_list.h */

typedef struct SignIn SignIn;

/* A connection as the net layer needs it.  Strings owned by the caller for the duration of a call. */
typedef struct SignInConnection
{
	const char *name;
	const char *kind;
	const cJSON *auth;			/* {"type": "none" | "pat" | "bearer" | "basic" | "entra_client_secret", ...} */
	int64		changed_at;		/* TimestampTz; a changed connection invalidates cached tokens */
} SignInConnection;

/* Returns the plain value of a secret in malloc'd memory (wipe and free with signin_free_secret), or NULL and *error (palloc'd). */
typedef char *(*SignInSecret) (const char *name, const char **error);

typedef enum SignInResult
{
	SIGNIN_READY,				/* *header is "Authorization: ...", malloc'd; free with signin_free_secret */
	SIGNIN_NONE,				/* no credentials needed */
	SIGNIN_PENDING,				/* a token is being fetched: ask again after signin_handle() returned true */
	SIGNIN_FAILED				/* *error (palloc'd), *is_user_error; next try allowed after *retry_ms */
} SignInResult;

extern SignIn *signin_create(HttpMux *mux, SignInSecret get_secret);
extern void signin_destroy(SignIn *signin);	/* wipes tokens */
/* Needs a transaction if a secret has to be read (get_secret runs SPI). */
extern SignInResult signin_header(SignIn *signin, const SignInConnection *connection, int64 now_ms,
								  char **header, const char **error, bool *is_user_error, int64 *retry_ms);
extern void signin_forget(SignIn *signin, const char *connection_name);	/* after 401 */
/* True if the finished transfer was one of ours; it is then freed. */
extern bool signin_handle(SignIn *signin, HttpTransfer *transfer, int64 now_ms);
extern void signin_free_secret(char *secret);

/*
 * Check auth at definition time; problem texts palloc'd or static, path like
 * "$.client_id", hint may be NULL.  secret_names gets the names it refers to
 * appended (List of palloc'd char *), also when only the authority's URL is
 * not allowed.  NULL and {} are the same as {"type": "none"}.
 */
extern bool signin_validate(const char *connection_kind, const cJSON *auth, const char **path,
							const char **message, const char **hint, struct List **secret_names);

#endif							/* WEIR_SIGNIN_H */
