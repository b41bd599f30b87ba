/*-------------------------------------------------------------------------
 * signin_int.h
 *	  Between the files of sign-in: what a way to sign in has to offer, and
 *	  the credentials that are kept.
 *
 * A way to sign in is one SignInMethod in the table of signin_auth.c.  Either
 * its secrets are all that is needed and header() makes the line, or a token
 * has to be fetched: request() says what to send and response() what the
 * answer means.  Methods see one call, keep nothing and touch neither tables
 * nor sockets.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SIGNIN_INT_H
#define WEIR_SIGNIN_INT_H

#include "lib/ilist.h"

#include "signin.h"
#include "signin_pure.h"

#define AUTH_MAX_KEYS		12
#define AUTH_DEFAULT_AUTHORITY	"https://login.microsoftonline.com"

typedef enum AuthKeyType
{
	AUTH_KEY_TEXT,
	AUTH_KEY_SECRET,			/* name of a secret, or keyvault:CONNECTION/NAME */
	AUTH_KEY_URL,				/* checked against the URL policy too */
	AUTH_KEY_TENANT,
	AUTH_KEY_ID,				/* application or client ID, a GUID as a rule */
	AUTH_KEY_SCOPE,
	AUTH_KEY_CHOICE,
	AUTH_KEY_BOOLEAN
} AuthKeyType;

typedef struct AuthKey
{
	const char *name;
	AuthKeyType type;
	bool		is_required;
	const char *const *choices; /* of AUTH_KEY_CHOICE, NULL-terminated */
} AuthKey;

typedef struct AuthProblem
{
	const char *path;
	const char *message;
	const char *hint;
} AuthProblem;

struct SignInMethod;

/* "auth" of a connection, checked.  Strings point into the JSON or are static. */
typedef struct Auth
{
	const struct SignInMethod *method;
	const cJSON *json;
	const char *scope;			/* the one asked for, auth's own or the kind's default; NULL if the method has none */
	const char *kind;			/* of the connection */
	const char *base_url;		/* of the connection, NULL when not known */
	const cJSON *options;		/* of the connection, see route.h */
} Auth;

/* One use of a method.  secrets: values by index of the method's keys, NULL where none is given. */
typedef struct SignInCall
{
	const Auth *auth;
	char *const *secrets;
	const char *challenge;		/* what response() asked to be answered, NULL the first time */
	int64		now_ms;
} SignInCall;

typedef struct SignInRequest
{
	const char *method;			/* GET or POST */
	const char *url;			/* palloc'd or static */
	const char *header;			/* further header without a secret, or NULL */
	char	   *secret_header;	/* malloc'd, or NULL; wiped by the caller, as is what follows */
	char	   *form;			/* body, or NULL */
	char	   *sent;			/* the secret in it, to be kept out of messages */
	bool		is_identity_service;	/* the address of the metadata service may be used */
} SignInRequest;

/* Why something is not possible.  Texts are palloc'd or static and free of secrets. */
typedef struct SignInRefusal
{
	const char *text;
	bool		is_user_error;
	bool		about_secret;	/* a secret kept elsewhere may have changed: read it anew */
	bool		is_misplaced;	/* something else answers; asked again like what passes, then it is the user's */
} SignInRefusal;

typedef struct SignInAnswer
{
	const char *value;			/* of the answer, points into it; NULL if it is refused */
	bool		is_header;		/* value is a bearer token, kept as a header line */
	int64		lifetime_s;
	int64		refresh_in_s;	/* 0: not told */
	const char *challenge;		/* palloc'd; not NULL: call request() again with it */
	SignInRefusal refusal;
} SignInAnswer;

/* answer: the body as JSON, or NULL.  is_federated and the like are in the choice of the function. */
typedef void (*SignInResponse) (const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out);

typedef struct SignInMethod
{
	const char *name;
	AuthKey		keys[AUTH_MAX_KEYS];	/* besides "type"; ends with a NULL name */
	/* What the table of keys cannot say; NULL if nothing. */
	bool		(*check) (const Auth *auth, AuthProblem *problem);
	/* A further URL that is going to be used, palloc'd, for the policy; *path of what it comes from; or NULL. */
	const char *(*url) (const Auth *auth, const char **path);
	/* malloc'd header line, or NULL and *error (static) */
	char	   *(*header) (const SignInCall *call, const char **error);
	bool		(*request) (const SignInCall *call, SignInRequest *request, SignInRefusal *refusal);
	SignInResponse response;
} SignInMethod;

/* signin_auth.c */
/* Shape only, no look at secrets or the URL policy.  scope: NULL for the connection's own. */
extern bool auth_read(const SignInConnection *connection, Auth *auth, AuthProblem *problem);
extern const char *auth_text(const Auth *auth, const char *key);	/* NULL: not given */
extern bool auth_flag(const Auth *auth, const char *key);
extern bool auth_fail(AuthProblem *problem, const char *key, const char *message, const char *hint);
extern const char *auth_secret(const SignInCall *call, const char *key);
extern bool auth_refuse(SignInRefusal *refusal, bool is_user_error, const char *text);	/* false */
extern const char *auth_url_join(const char *base, const char *path);	/* palloc'd */

/* signin_static.c */
extern const SignInMethod signin_none;
extern const SignInMethod signin_pat;
extern const SignInMethod signin_bearer;
extern const SignInMethod signin_basic;
extern char *signin_bearer_line(const char *token, const char **error);
extern char *signin_basic_value(const char *username, const char *password, const char **error);	/* "Authorization: Basic ..." */
/* NULL, or why this cannot be put into a header (static) */
extern const char *signin_header_problem(const char *value, bool ascii_only);

/* signin_signed.c */
extern const SignInMethod signin_shared_key;
extern const SignInMethod signin_sas;

/* signin_oauth.c */
extern const SignInMethod signin_oauth_client_secret;
extern const SignInMethod signin_databricks_oauth;
/* A token as RFC 6749 section 5.1 has it, numbers perhaps as strings, or with expires_on only; false if it is not one. */
extern bool signin_oauth_token(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out);
/* 200 without what: "a token".  correct: what may be wrong, such as "authority" */
extern void signin_oauth_nothing(const HttpResult *result, const cJSON *answer, const char *what, const char *correct, SignInRefusal *refusal);
/* First line of what the service says about a refusal, palloc'd. */
extern char *signin_oauth_words(const HttpResult *result, const cJSON *answer);
/* Is it up to a person to correct something? */
extern bool signin_oauth_is_final(const HttpResult *result);

/* signin_databricks.c */
extern const SignInMethod signin_databricks_federated;
/* Of ways whose tokens are Entra's, for service principals that are not in the workspace */
#define WORKSPACE_KEYS \
	{"workspace_resource_id", AUTH_KEY_TEXT}, \
	{"management_scope", AUTH_KEY_SCOPE}
extern bool databricks_check_workspace(const Auth *auth, AuthProblem *problem);

/* signin_entra.c, signin_identity.c */
extern const SignInMethod signin_entra_client_secret;
extern const SignInMethod signin_entra_certificate;
extern const SignInMethod signin_entra_federated;
extern const SignInMethod signin_managed_identity;

/*
 * signin_cache.c: a credential that is fetched, kept and fetched anew.  A
 * token of (connection, scope), or a secret out of a key vault.
 */
typedef struct Credential
{
	dlist_node	node;
	char	   *connection;
	char	   *audience;		/* scope, or "secret:NAME/VERSION" */
	int64		changed_at;		/* of the connection */

	char	   *value;			/* header line or secret; NULL: none to be used */
	uint64		ticket;			/* number of this value, never given twice */
	int64		refresh_at_ms;
	int64		expires_at_ms;

	HttpTransfer *fetch;		/* NULL: none under way */
	SignInResponse response;
	char	   *sent;			/* while fetching, to keep it out of messages */
	char	   *challenge;		/* to be answered by the next request */
	uint64		vault_ticket;	/* of the vault's token that was sent, 0 none */
	uint64		secret_tickets[AUTH_MAX_KEYS];	/* of secrets out of key vaults that were sent, 0 none */
	uint64		proxy_ticket;	/* of the proxy's credentials, likewise */
	bool		renewed;		/* a refusal made us read them anew, or fetch the vault's token anew */

	int			failures;		/* in a row */
	int64		next_try_ms;
	int64		advised_ms;		/* nothing was sent: no hold, but asking again that soon is of little use */
	char	   *error;			/* of the last failure */
	bool		is_user_error;
	bool		is_misplaced;
} Credential;

struct SignIn
{
	HttpMux    *mux;
	SignInCatalog catalog;
	dlist_head	credentials;
	uint64		last_ticket;
	int64		next_sweep_ms;
};

extern Credential *credential_find(SignIn *signin, const SignInConnection *connection, const char *audience);
extern void credentials_drop_stale(SignIn *signin, int64 now_ms);
extern void credential_drop(SignIn *signin, Credential *credential);
extern bool credential_usable(const Credential *credential, int64 now_ms);
/* Is it time to start a fetch, and allowed? */
extern bool credential_due(const Credential *credential, int64 now_ms);
extern void credential_forget(SignIn *signin, uint64 ticket);
extern void credential_failed(Credential *credential, const SignInRefusal *refusal,
							  int64 retry_after_ms, int64 now_ms);
/* Takes over value (malloc'd). */
/* Before anything was sent: what is wrong is here, so it is looked at again whenever somebody asks. */
extern void credential_failed_here(Credential *credential, const SignInRefusal *refusal, int64 now_ms);
extern void credential_take(SignIn *signin, Credential *credential, char *value,
							int64 lifetime_s, int64 refresh_in_s, int64 now_ms);
extern void credential_end_fetch(Credential *credential);
/*
 * On the route of the connection whose options and base URL these are, with
 * the line that signs in at its proxy, or NULL.  Wipes what is secret in the
 * request.
 */
extern void credential_send(SignIn *signin, Credential *credential, const cJSON *options, const char *base_url,
							const char *proxy_line, SignInRequest *request, SignInResponse response, int64 now_ms);
/* What the credential is good for now; READY: *value is a malloc'd copy. */
extern SignInResult credential_result(const Credential *credential, int64 now_ms, char **value,
									  uint64 *ticket, SignInFailure *failure);
extern void signin_out_of_memory(void);	/* ereports */

/* signin.c: depth counts key vaults that are signed in to for the sake of another connection */
extern SignInResult signin_header_at(SignIn *signin, const SignInConnection *connection, int64 now_ms, int depth,
									 char **header, uint64 *ticket, SignInFailure *failure);
/* signin_secret.c: its settings; a secret by name, or out of a key vault */
extern void signin_define_vault_gucs(void);
extern SignInResult signin_proxy_at(SignIn *signin, const cJSON *options, int64 now_ms, int depth,
									char **line, uint64 *ticket, SignInFailure *failure);
extern SignInResult signin_secret_at(SignIn *signin, const char *name, int64 now_ms, int depth,
									 char **value, uint64 *ticket, SignInFailure *failure);

#endif							/* WEIR_SIGNIN_INT_H */
