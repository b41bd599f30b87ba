/*-------------------------------------------------------------------------
 * vaultref.c
 *	  References to secrets in key vaults: that they lead somewhere, and not
 *	  back to where they came from.
 *
 * Runs in the session that defines a connection or a secret.  Signing in to a
 * key vault may need a secret out of another one, and so on; a circle could
 * never be entered.  Locks: rows of connections FOR SHARE, from the one being
 * defined outwards.  Two sessions that close a circle together wait for each
 * other, and one of them is told so.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "json.h"
#include "signin.h"
#include "vaultref.h"

#define MAX_VAULTS	3			/* in a row; sign-in follows no more */
#define MAX_AUTH	(128 * 1024)

typedef struct Walk
{
	const char *for_connection;
	const char *for_secret;
	const char *reference;		/* it began with */
	const char *path;
} Walk;

bool
vaultref_is(const char *name)
{
	return strncmp(name, "keyvault:", 9) == 0;
}

static void
refuse(const Walk *walk, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 walk->path ? errdetail("JSON path: %s", walk->path) : 0,
			 errhint("%s", hint),
			 errhidestmt(true)));
}

char *
vaultref_of_secret(const char *secret)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];

	values[0] = catalog_text(secret);
	if (weir_spi("SELECT reference FROM weir.secret WHERE name = $1 AND starts_with(reference, 'keyvault:')",
				 1, types, values, NULL) == 0)
		return NULL;
	return weir_spi_text(0, 1);
}

/* What a connection needs to sign in, at its proxy, too: names of secrets, references among them. */
static List *
needed_secrets(const Walk *walk, const char *connection)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	List	   *names = NIL;
	char	   *base_url;
	char	   *text;
	char	   *proxy_secret;
	char	   *error = NULL;
	cJSON	   *auth;
	const char *path;
	const char *message;
	const char *hint;

	values[0] = catalog_text(connection);
	if (weir_spi("SELECT kind, base_url, auth, options->>'proxy_secret' FROM weir.connection WHERE name = $1 FOR SHARE",
				 1, types, values, NULL) == 0)
		refuse(walk, psprintf("connection \"%s\" of a reference to a key vault does not exist", catalog_clip(connection)),
			   "Create a connection of kind keyvault first.");
	if (strcmp(weir_spi_text(0, 1), "keyvault") != 0)
		refuse(walk, psprintf("connection \"%s\" of a reference to a key vault is of kind %s", catalog_clip(connection), weir_spi_text(0, 1)),
			   "Name a connection of kind keyvault.");
	base_url = weir_spi_text(0, 2);
	text = weir_spi_text(0, 3);
	auth = json_parse(text, strlen(text), MAX_AUTH, &error);
	proxy_secret = weir_spi_text(0, 4);
	(void) signin_validate("keyvault", base_url, auth, &path, &message, &hint, &names);
	return proxy_secret ? lappend(names, proxy_secret) : names;
}

static void
follow(const Walk *walk, const char *reference, int depth)
{
	char	   *connection;
	char	   *name;
	char	   *version;
	const char *error;
	ListCell   *lc;

	if (!signin_vault_reference(reference, &connection, &name, &version, &error))
		refuse(walk, psprintf("invalid reference to a key vault: %s", error ? error : "it has another form"),
			   "Write keyvault:CONNECTION/NAME or keyvault:CONNECTION/NAME/VERSION.");
	if (walk->for_connection && strcmp(connection, walk->for_connection) == 0)
		refuse(walk, psprintf("reference \"%s\" leads back to connection \"%s\"", catalog_clip(walk->reference), catalog_clip(connection)),
			   "Give the key vault a way to sign in that needs no secret out of a key vault, such as managed_identity.");
	if (depth >= MAX_VAULTS)
		refuse(walk, psprintf("reference \"%s\" leads through more than %d key vaults", catalog_clip(walk->reference), MAX_VAULTS),
			   "Give the key vault a way to sign in that needs no secret out of a key vault, such as managed_identity.");
	foreach(lc, needed_secrets(walk, connection))
	{
		const char *needed = lfirst(lc);
		const char *next = vaultref_is(needed) ? needed : vaultref_of_secret(needed);

		if (walk->for_secret && strcmp(needed, walk->for_secret) == 0)
			refuse(walk, psprintf("reference \"%s\" leads back to secret \"%s\"", catalog_clip(walk->reference), walk->for_secret),
				   "Give the key vault a way to sign in that needs no secret out of a key vault, such as managed_identity.");
		if (next != NULL)
			follow(walk, next, depth + 1);
	}
}

void
vaultref_check(const char *reference, const char *for_connection, const char *for_secret, const char *path)
{
	Walk		walk = {for_connection, for_secret, reference, path};

	follow(&walk, reference, 0);
}
