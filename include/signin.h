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
	const char *base_url;		/* may be NULL where the kind has none */
	const cJSON *auth;			/* {"type": "none" | "pat" | ..., ...}, see doc/connections.md */
	const cJSON *options;		/* proxy, proxy_secret, ca_certificate and the like hold for signing in, too */
	int64		changed_at;		/* TimestampTz; a changed connection invalidates cached tokens */
	const char *scope;			/* audience of the token, "https://host/.default"; NULL: the connection's own */
} SignInConnection;

/* Where sign-in finds what it needs; both are called inside the caller's transaction. */
typedef struct SignInCatalog
{
	/*
	 * Plain value of a secret in malloc'd memory (wipe and free with
	 * signin_free_secret); or NULL and *reference (palloc'd) if it is kept in a
	 * key vault, "keyvault:CONNECTION/NAME[/VERSION]"; or NULL and *error (palloc'd).
	 */
	char	   *(*secret) (const char *name, const char **reference, const char **error);
	/* A connection by name, name and all; false if there is none.  Strings live as long as the caller's call. */
	bool		(*connection) (const char *name, SignInConnection *connection, void *arg);
	void	   *arg;
} SignInCatalog;

typedef enum SignInResult
{
	SIGNIN_READY,				/* *header is "Authorization: ...", malloc'd; free with signin_free_secret */
	SIGNIN_NONE,				/* no credentials needed */
	SIGNIN_PENDING,				/* a token is being fetched: ask again after signin_handle() returned true */
	SIGNIN_FAILED				/* see SignInFailure */
} SignInResult;

typedef struct SignInFailure
{
	const char *text;			/* palloc'd; says what is wrong and what to do, never a secret */
	bool		is_user_error;
	bool		is_misplaced;	/* something else than the service answers: to be tried again, but the user's error if that does not help */
	int64		retry_ms;		/* asking earlier brings the same answer */
} SignInFailure;

extern void signin_define_gucs(void);	/* from _PG_init */
extern SignIn *signin_create(HttpMux *mux, const SignInCatalog *catalog);
extern void signin_destroy(SignIn *signin);	/* wipes tokens */

/*
 * *ticket: number of the credentials in the header, for signin_forget(); 0 if
 * there is nothing to forget.  Needs a transaction for the catalog.
 */
extern SignInResult signin_header(SignIn *signin, const SignInConnection *connection, int64 now_ms,
								  char **header, uint64 *ticket, SignInFailure *failure);
/* The same for the value of a secret, which may be in a key vault: for services that know no header. */
extern SignInResult signin_secret(SignIn *signin, const char *name, int64 now_ms,
								  char **value, uint64 *ticket, SignInFailure *failure);

/* The line that signs in at the proxy of a connection with these options, malloc'd; SIGNIN_NONE: there is nothing to. */
extern SignInResult signin_proxy(SignIn *signin, const cJSON *options, int64 now_ms,
								 char **line, uint64 *ticket, SignInFailure *failure);

/*
 * The Azure resource of the workspace that an Entra service principal is not
 * yet in, as auth has it, and the *scope of the second token that goes with it;
 * NULL for all others.  Points into the connection.
 */
extern const char *signin_workspace_id(const SignInConnection *connection, const char **scope);
/* A header line with the token of this "Authorization: Bearer ..."; malloc'd like it, NULL if it is none or memory ran out. */
extern char *signin_management_line(const char *authorization);

/*
 * After a 401.  The ticket tells which credentials were refused: those that
 * have been fetched since then are kept, however many requests come back
 * with the old ones.
 */
extern void signin_forget(SignIn *signin, uint64 ticket);
/* True if the finished transfer was one of ours; it is then freed. */
extern bool signin_handle(SignIn *signin, HttpTransfer *transfer, int64 now_ms);
extern void signin_free_secret(char *secret);

/*
 * Check auth at definition time; problem texts palloc'd or static, path like
 * "$.client_id", hint may be NULL.  secret_names gets the names it refers to
 * appended (List of palloc'd char *, references to key vaults among them),
 * also when only a URL is not allowed.  NULL and {} are the same as
 * {"type": "none"}.  base_url may be NULL while it is not known.
 */
extern bool signin_validate(const char *connection_kind, const char *base_url, const cJSON *auth,
							const char **path, const char **message, const char **hint,
							struct List **secret_names);

/*
 * Take "keyvault:CONNECTION/NAME[/VERSION]" apart (palloc'd; *version NULL for
 * the newest).  False if it does not begin with "keyvault:", or with *error
 * (static) if the rest is wrong.
 */
extern bool signin_vault_reference(const char *reference, char **connection, char **name, char **version,
								   const char **error);

#endif							/* WEIR_SIGNIN_H */
