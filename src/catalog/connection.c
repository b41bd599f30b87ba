/*-------------------------------------------------------------------------
 * connection.c
 *	  Connections: where something is and how to sign in.
 *
 * Runs in the session that calls the SQL functions; connection_read() also in
 * the conductor.  Locks: a connection's row, then (FOR KEY SHARE) the rows of
 * the secrets it names.  A pipeline being defined holds its connections FOR
 * KEY SHARE, so drop_connection waits for it and then sees it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "compat.h"
#include "connection.h"
#include "engine.h"
#include "json.h"
#include "named.h"
#include "options.h"
#include "redisclient.h"
#include "route.h"
#include "signin.h"
#include "urlpolicy.h"
#include "vaultref.h"

PG_FUNCTION_INFO_V1(weir_create_connection);
PG_FUNCTION_INFO_V1(weir_alter_connection);
PG_FUNCTION_INFO_V1(weir_drop_connection);

#define MAX_AUTH	(64 * 1024)
#define MAX_OPTIONS (64 * 1024)
#define MAX_URL		8192

#define ADF_BASE_URL "https://management.azure.com"
#define FABRIC_BASE_URL "https://api.fabric.microsoft.com/v1"

/* Whoever alters one keeps definitions from using it meanwhile. */
static const NamedKind connection_kind = {
	.what = "connection",
	.owner_for_alter = "SELECT owner FROM weir.connection WHERE name = $1 FOR UPDATE",
	.owner_for_drop = "SELECT owner FROM weir.connection WHERE name = $1 FOR UPDATE",
	.users = "SELECT string_agg(DISTINCT u.what, ', ' ORDER BY u.what) FROM ("
	NAMED_TASK_USERS("$1 IN (t.connection_name, t.spec #>> '{request,connection}')")
	"UNION ALL SELECT 'connection ' || quote_ident(c.name) FROM weir.connection c "
	"WHERE jsonb_path_exists(c.auth, '$.* ? (@ starts with $vault)', jsonb_build_object('vault', 'keyvault:' || $1 || '/')) "
	"OR starts_with(c.options->>'proxy_secret', 'keyvault:' || $1 || '/') "
	"UNION ALL SELECT 'secret ' || quote_ident(s.name) FROM weir.secret s "
	"WHERE starts_with(s.reference, 'keyvault:' || $1 || '/') "
	"UNION ALL SELECT 'stage mapping ' || quote_ident(m.stage_type) FROM weir.stage_mapping m "
	"WHERE m.connection_name = $1) AS u (what)",
	.drop = "WITH throttle AS (DELETE FROM weir.throttle WHERE connection_name = $1), "
	"circuit AS (DELETE FROM weir.circuit WHERE connection_name = $1) "
	"DELETE FROM weir.connection WHERE name = $1",
};

/* Keys of auth under which people paste the secret itself. */
static const char *const secret_keys[] = {
	"token", "password", "client_secret", "certificate", "private_key", "secret", "access_token", "api_key", "access_key", "key"
};

/* Locks the secret FOR KEY SHARE if it is there. */
static bool
secret_exists(const char *name)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];

	values[0] = catalog_text(name);
	return weir_spi("SELECT FROM weir.secret WHERE name = $1 FOR KEY SHARE", 1, types, values, NULL) > 0;
}

/* The value is not shown: it may be the secret. */
static void
no_such_secret(const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("auth does not name an existing secret"),
			 errdetail("JSON path: $.%s", key),
			 errhint("auth holds names of secrets, never values. Create one with weir.create_secret and give its name."),
			 errhidestmt(true)));
}

/* Key of auth whose value this is. */
static const char *
key_of_value(const cJSON *auth, const char *value)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, auth)
		if (cJSON_IsString(item) && strcmp(item->valuestring, value) == 0 && strcmp(item->string, "type") != 0)
		return item->string;
	return "type";
}

/* One that is there, or that a key vault is said to hold */
static void
check_secret(const char *connection, const cJSON *auth, const char *secret)
{
	const char *key = key_of_value(auth, secret);
	const char *reference = vaultref_is(secret) ? secret : NULL;

	if (reference == NULL && !secret_exists(secret))
		no_such_secret(key);
	if (reference == NULL)
		reference = vaultref_of_secret(secret);
	if (reference != NULL)
		vaultref_check(reference, connection, NULL, psprintf("$.%s", key));
}

static void
check_auth(const char *name, const char *kind, const char *base_url, const cJSON *auth)
{
	const char *path = NULL;
	const char *message = NULL;
	const char *hint = NULL;
	const char *type;
	List	   *secrets = NIL;
	ListCell   *lc;

	if (!cJSON_IsObject(auth))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("auth must be a JSON object")));

	/* First, so that a value pasted here meets this hint and no other. */
	for (int i = 0; i < lengthof(secret_keys); i++)
	{
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(auth, secret_keys[i]);

		if (item != NULL &&
			(!cJSON_IsString(item) || (!vaultref_is(item->valuestring) && !secret_exists(item->valuestring))))
			no_such_secret(secret_keys[i]);
	}

	type = json_string(cJSON_GetObjectItemCaseSensitive(auth, "type"));
	if (strcmp(kind, "redis") == 0 && type != NULL && strcmp(type, "none") != 0 && strcmp(type, "basic") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid auth: a connection of kind redis signs in with a user name and a password"),
				 errdetail("JSON path: $.type"),
				 errhint("Use type basic, with the username \"default\" for a server that has a password alone, or none."),
				 errhidestmt(true)));
	if (!signin_validate(kind, base_url, auth, &path, &message, &hint, &secrets))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid auth: %s", message ? message : "not understood"),
				 path ? errdetail("JSON path: %s", path) : 0,
				 hint ? errhint("%s", hint) : 0,
				 errhidestmt(true)));
	foreach(lc, secrets)
		check_secret(name, auth, lfirst(lc));
}

/* Checked, and without trailing slashes; the default of the kind for NULL. */
static char *
check_base_url(const char *kind, const char *base_url)
{
	char	   *url;
	size_t		len;
	const char *policy_url;
	const char *why = NULL;
	const char *hint = NULL;

	if (base_url == NULL && strcmp(kind, "adf") == 0)
		base_url = ADF_BASE_URL;
	if (base_url == NULL && strcmp(kind, "fabric") == 0)
		base_url = FABRIC_BASE_URL;
	if (base_url == NULL || base_url[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a connection of kind %s needs a base_url", kind)));
	url = pstrdup(base_url);
	len = strlen(url);
	while (len > 0 && url[len - 1] == '/')
		url[--len] = '\0';
	policy_url = url;
	if (len > MAX_URL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("base_url is longer than %d bytes", MAX_URL)));
	if (strcmp(kind, "redis") == 0)
		policy_url = redis_policy_url(url, &why);
	if (policy_url == NULL || !urlpolicy_check_url(policy_url, &why, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("base_url is refused: %s", why),
				 hint ? errhint("%s", hint) : 0));
	if (strpbrk(url, "?#") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("base_url must not have a query or a fragment"),
				 errhint("Give scheme, host and perhaps a port and a path.")));
	return url;
}

/* Plain http is safe by the address it goes to, and behind a proxy only the proxy knows that. */
static void
check_tunnel(const char *base_url, const cJSON *options)
{
	if (cJSON_HasObjectItem(options, "proxy") && pg_strncasecmp(base_url, "https://", 8) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid options: plain http does not go through a proxy"),
				 errdetail("JSON path: $.proxy"),
				 errhint("Give a base_url with https, or leave out the proxy.")));
}

/* Who signs in at a proxy needs one, and a secret that is there. */
static void
check_proxy_secret(const char *name, const cJSON *options)
{
	const char *secret = json_string(cJSON_GetObjectItemCaseSensitive(options, "proxy_secret"));
	const char *reference = secret != NULL && vaultref_is(secret) ? secret : NULL;

	if (secret == NULL)
		return;
	if (route_proxy_secret(options) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid options: there is a proxy_secret and no proxy"),
				 errdetail("JSON path: $.proxy_secret"),
				 errhint("Name the proxy, {\"proxy\": \"http://host:port\"}, or leave out proxy_secret."),
				 errhidestmt(true)));
	if (reference == NULL && !secret_exists(secret))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid options: proxy_secret does not name an existing secret"),
				 errdetail("JSON path: $.proxy_secret"),
				 errhint("Options hold names of secrets, never values. Create one that holds \"user:password\" with weir.create_secret and give its name."),
				 errhidestmt(true)));
	if (reference == NULL)
		reference = vaultref_of_secret(secret);
	if (reference != NULL)
		vaultref_check(reference, name, NULL, "$.proxy_secret");
}

static void
check_connection(const char *name, const char *kind, char **base_url, const cJSON *auth, const cJSON *options)
{
	options_check(kind, options);
	*base_url = check_base_url(kind, *base_url);
	check_tunnel(*base_url, options);
	check_proxy_secret(name, options);
	check_auth(name, kind, *base_url, auth);
}

/* create_connection(name, kind, base_url, auth, options, description) */
Datum
weir_create_connection(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	char	   *kind = catalog_arg_required(fcinfo, 1, "kind", 1000);
	char	   *base_url = catalog_arg(fcinfo, 2);
	cJSON	   *auth = catalog_arg_json(fcinfo, 3, "auth", MAX_AUTH);
	cJSON	   *options = catalog_arg_json(fcinfo, 4, "options", MAX_OPTIONS);
	char	   *description = catalog_arg_description(fcinfo, 5);
	Datum		values[7] = {0};
	char		nulls[] = "       ";
	static const Oid types[] = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, REGROLEOID};

	catalog_check_name("connection", name);
	if (auth == NULL)
		auth = cJSON_CreateObject();
	if (options == NULL)
		options = cJSON_CreateObject();

	weir_enter(&scope);
	weir_require_admin(scope.caller, "create connections");
	check_connection(name, kind, &base_url, auth, options);

	values[0] = catalog_text(name);
	values[1] = catalog_text(kind);
	values[2] = catalog_text(base_url);
	values[3] = catalog_jsonb(json_text(auth));
	values[4] = catalog_jsonb(json_text(options));
	nulls[5] = description ? ' ' : 'n';
	if (description)
		values[5] = catalog_text(description);
	values[6] = ObjectIdGetDatum(scope.caller);
	if (weir_spi("INSERT INTO weir.connection (name, kind, base_url, auth, options, description, owner) "
				 "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING",
				 7, types, values, nulls) == 0)
		named_exists_already(&connection_kind, name);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* alter_connection(name, base_url, auth, options, description): null leaves as it is */
Datum
weir_alter_connection(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	char	   *base_url = catalog_arg(fcinfo, 1);
	cJSON	   *auth = catalog_arg_json(fcinfo, 2, "auth", MAX_AUTH);
	cJSON	   *options = catalog_arg_json(fcinfo, 3, "options", MAX_OPTIONS);
	char	   *description = catalog_arg_description(fcinfo, 4);
	Connection *current;
	Datum		values[5] = {0};
	char		nulls[] = "     ";
	static const Oid types[] = {TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID};

	weir_enter(&scope);
	weir_require_admin(scope.caller, "alter connections");
	named_lock(&connection_kind, name, scope.caller);
	current = connection_read(name);

	/* The whole is checked again: a setting may have changed meanwhile. */
	if (base_url == NULL)
		base_url = current->base_url;
	if (auth == NULL)
		auth = current->auth;
	if (options == NULL)
		options = current->options;
	check_connection(name, current->kind, &base_url, auth, options);

	values[0] = catalog_text(name);
	values[1] = catalog_text(base_url);
	values[2] = catalog_jsonb(json_text(auth));
	values[3] = catalog_jsonb(json_text(options));
	nulls[4] = description ? ' ' : 'n';
	if (description)
		values[4] = catalog_text(description);
	weir_spi("UPDATE weir.connection SET base_url = $2, auth = $3, options = $4, "
			 "description = coalesce($5, description), changed_at = clock_timestamp() WHERE name = $1",
			 5, types, values, nulls);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* drop_connection(name): not while something current uses it */
Datum
weir_drop_connection(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);

	weir_enter(&scope);
	weir_require_admin(scope.caller, "drop connections");
	named_drop(&connection_kind, name, scope.caller);
	engine_wake_at_commit(ENGINE_WAKE_DEFINITION);	/* its request limits hold for nobody else any more */
	weir_leave(&scope);
	PG_RETURN_VOID();
}

static cJSON *
stored_json(uint64 row, int column)
{
	char	   *text = weir_spi_text(row, column);
	char	   *error = NULL;
	cJSON	   *tree = json_parse(text, strlen(text), MAX_AUTH + MAX_OPTIONS, &error);

	if (tree == NULL)
		elog(ERROR, "stored connection cannot be read: %s", error);
	return tree;
}

Connection *
connection_read(const char *name)
{
	static const Oid types[] = {TEXTOID};
	Connection *connection;
	Datum		values[1];

	values[0] = catalog_text(name);
	if (weir_spi("SELECT name, kind, base_url, auth, options, changed_at, created_at FROM weir.connection WHERE name = $1",
				 1, types, values, NULL) == 0)
		return NULL;
	connection = palloc0(sizeof(Connection));
	connection->name = weir_spi_text(0, 1);
	connection->kind = weir_spi_text(0, 2);
	connection->base_url = weir_spi_text(0, 3);
	connection->auth = stored_json(0, 4);
	connection->options = stored_json(0, 5);
	connection->changed_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 6, &(bool){false}));
	connection->created_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 7, &(bool){false}));
	return connection;
}

char *
connection_lock_kind(const char *name)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];

	values[0] = catalog_text(name);
	if (weir_spi("SELECT kind FROM weir.connection WHERE name = $1 FOR KEY SHARE",
				 1, types, values, NULL) == 0)
		return NULL;
	return weir_spi_text(0, 1);
}

List *
connection_using_secret(const char *secret)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	List	   *users = NIL;
	uint64		rows;

	values[0] = catalog_text(secret);
	rows = weir_spi("SELECT name, kind, auth, base_url, coalesce(options->>'proxy_secret' = $1, false)::text FROM weir.connection "
					"WHERE jsonb_path_exists(auth, '$.** ? (@ == $secret)', jsonb_build_object('secret', $1)) "
					"OR options->>'proxy_secret' = $1 ORDER BY name", 1, types, values, NULL);

	/* A user name may be spelt like a secret: only sign-in knows which is which. */
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *name = weir_spi_text(i, 1);
		const char *path;
		const char *message;
		const char *hint;
		List	   *named = NIL;
		ListCell   *lc;
		bool		uses = !signin_validate(weir_spi_text(i, 2), weir_spi_text(i, 4), stored_json(i, 3),
											&path, &message, &hint, &named) ||
			strcmp(weir_spi_text(i, 5), "true") == 0;

		foreach(lc, named)
			if (strcmp(lfirst(lc), secret) == 0)
			uses = true;
		if (uses)
			users = lappend(users, name);
	}
	return users;
}

void
connection_touch(List *names)
{
	static const Oid types[] = {TEXTARRAYOID};
	Datum	   *elems;
	Datum		values[1];
	ListCell   *lc;
	int			n = 0;

	if (names == NIL)
		return;
	elems = palloc(sizeof(Datum) * list_length(names));
	foreach(lc, names)
		elems[n++] = catalog_text(lfirst(lc));
	values[0] = PointerGetDatum(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
	weir_spi("UPDATE weir.connection SET changed_at = clock_timestamp() WHERE name = ANY ($1)",
			 1, types, values, NULL);
}
