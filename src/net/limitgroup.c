/*-------------------------------------------------------------------------
 * limitgroup.c
 *	  Which connections share their request limits.
 *
 * Runs in the conductor, and in sessions for weir.connections.  No state, no locks.
 *
 * Those that name the same limit_group do.  Else it is what the published
 * number counts, as long as the connection goes by the published number:
 *
 *	adf			Azure Resource Manager has buckets for each subscription and
 *				principal: all factories of a subscription that are called as
 *				the same application share them.  (Also for each region that
 *				Resource Manager is reached in; a server reaches it in one.)
 *	databricks	requests are counted for each workspace, whoever sends them
 *	keyvault	gets are counted for each vault
 *
 * A connection with request_limits of its own has been given its share by
 * somebody, and has it for itself.  So have all others: what they say holds for
 * a service that publishes nothing.  Principals are compared as they are
 * written: a tenant by its domain and the same by its ID are two.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "json.h"
#include "limitgroup.h"
#include "urlparse.h"

static const char *
lower(const char *text)
{
	char	   *copy = pstrdup(text ? text : "");

	for (char *p = copy; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	return copy;
}

static const char *
member(const cJSON *object, const char *name)
{
	return json_string(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* host:port */
static const char *
host_of(const char *base_url)
{
	UrlParts	parts;
	const char *why;

	return base_url != NULL && url_parse(base_url, &parts, &why) ? psprintf("%s:%d", parts.host, parts.port) : lower(base_url);
}

/* Who it is to Entra; what says nothing of that is compared as a whole. */
static const char *
principal(const cJSON *auth)
{
	static const char *const identities[] = {"client_id", "object_id", "resource_id"};
	const char *type = member(auth, "type");

	for (int i = 0; i < lengthof(identities); i++)
		if (member(auth, identities[i]) != NULL)
			return psprintf("%s/%s", lower(member(auth, "tenant_id")), lower(member(auth, identities[i])));
	return type != NULL && strcmp(type, "managed_identity") == 0 ? "the machine" : json_text(auth);
}

static char *
key_of(const Connection *connection)
{
	const char *group = member(connection->options, "limit_group");

	if (group != NULL)
		return psprintf("group %s", group);
	if (cJSON_GetObjectItemCaseSensitive(connection->options, "request_limits") == NULL)
	{
		if (strcmp(connection->kind, "adf") == 0)
			return psprintf("adf %s %s %s", host_of(connection->base_url),
							lower(member(connection->options, "subscription_id")), principal(connection->auth));
		if (strcmp(connection->kind, "databricks") == 0 || strcmp(connection->kind, "keyvault") == 0)
			return psprintf("%s %s", connection->kind, host_of(connection->base_url));
	}
	return psprintf("connection %s", connection->name);
}

void
limit_group_key(const Connection *connection, char key[LIMIT_GROUP_LEN])
{
	char	   *full = key_of(connection);
	size_t		len = strlen(full);

	strlcpy(key, full, LIMIT_GROUP_LEN);
	if (len >= LIMIT_GROUP_LEN)
		snprintf(key + LIMIT_GROUP_LEN - 17, 17, "%016llx",
				 (unsigned long long) hash_bytes_extended((const unsigned char *) full, (int) len, 0));
}
