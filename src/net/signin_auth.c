/*-------------------------------------------------------------------------
 * signin_auth.c
 *	  The "auth" object of a connection: checking it, and building headers
 *	  and forms from it.
 *
 * Runs in sessions that define connections and where httpmux.c runs.  Pure
 * apart from the URL policy: no tables, no locks, no sockets.  Values of
 * secrets are passed in and come out only in malloc'd buffers that the caller
 * wipes (signin_free_secret); they never go through palloc, whose freed chunks
 * would keep them, and never into a message.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"

#include "signin_int.h"
#include "urlpolicy.h"

#define DEFAULT_AUTHORITY	"https://login.microsoftonline.com"
#define MAX_VALUE			1024	/* bytes of a value in auth */
#define MAX_SECRET			16384	/* bytes of a secret that becomes a header */
#define MAX_KEYS			6

typedef struct AuthTypeKeys
{
	const char *name;
	AuthType	type;
	const char *keys[MAX_KEYS]; /* besides "type" */
	const char *secret_key;
} AuthTypeKeys;

static const AuthTypeKeys auth_types[] = {
	{"none", AUTH_NONE, {NULL}, NULL},
	{"pat", AUTH_TOKEN, {"token"}, "token"},
	{"bearer", AUTH_TOKEN, {"token"}, "token"},
	{"basic", AUTH_BASIC, {"username", "password"}, "password"},
	{"shared_key", AUTH_SIGNED, {"account", "key"}, "key"},
	{"sas", AUTH_SIGNED, {"token"}, "token"},
	{"entra_client_secret", AUTH_ENTRA_CLIENT_SECRET,
	{"tenant_id", "client_id", "client_secret", "authority", "scope"}, "client_secret"},
};

static bool
fail(AuthProblem *problem, const char *key, const char *message, const char *hint)
{
	problem->path = key ? psprintf("$.%s", key) : "$";
	problem->message = message;
	problem->hint = hint;
	return false;
}

static const AuthTypeKeys *
find_type(const char *name)
{
	for (int i = 0; i < lengthof(auth_types); i++)
	{
		if (strcmp(auth_types[i].name, name) == 0)
			return &auth_types[i];
	}
	return NULL;
}

static bool
has_key(const AuthTypeKeys *type, const char *key)
{
	for (int i = 0; i < MAX_KEYS && type->keys[i]; i++)
	{
		if (strcmp(type->keys[i], key) == 0)
			return true;
	}
	return strcmp(key, "type") == 0;
}

static const char *
keys_hint(const AuthTypeKeys *type)
{
	char	   *text = psprintf("Type %s takes", type->name);

	if (type->keys[0] == NULL)
		return psprintf("%s no other keys.", text);
	for (int i = 0; i < MAX_KEYS && type->keys[i]; i++)
		text = psprintf("%s%s %s", text, i ? "," : "", type->keys[i]);
	return psprintf("%s.", text);
}

/* Every member known, once, and a string of sensible length without control characters. */
static bool
check_members(const cJSON *auth, const AuthTypeKeys *type, AuthProblem *problem)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, auth)
	{
		const char *value = item->valuestring;

		if (!has_key(type, item->string))
			return fail(problem, NULL, psprintf("auth has an unknown key \"%.*s\"",
												pg_mbcliplen(item->string, strlen(item->string), 64), item->string),
						keys_hint(type));
		if (cJSON_GetObjectItemCaseSensitive(auth, item->string) != item)
			return fail(problem, item->string, psprintf("\"%s\" is given twice", item->string), NULL);
		if (!cJSON_IsString(item) || value[0] == '\0')
			return fail(problem, item->string, psprintf("\"%s\" must be a string that is not empty", item->string), NULL);
		if (strlen(value) > MAX_VALUE)
			return fail(problem, item->string, psprintf("\"%s\" is longer than %d bytes", item->string, MAX_VALUE), NULL);
		for (const unsigned char *p = (const unsigned char *) value; *p; p++)
		{
			if (*p < ' ' || *p == 0x7f)
				return fail(problem, item->string, psprintf("\"%s\" contains a control character", item->string), NULL);
		}
	}
	return true;
}

static const char *
get_string(const cJSON *auth, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(auth, key));
}

static bool
require(const cJSON *auth, const AuthTypeKeys *type, const char *key, const char **value, AuthProblem *problem)
{
	*value = get_string(auth, key);
	if (*value == NULL)
		return fail(problem, key, psprintf("\"%s\" is missing", key), keys_hint(type));
	return true;
}

static bool
made_of(const char *value, const char *more)
{
	for (; *value; value++)
	{
		if (!((*value & 0x80) == 0 && isalnum((unsigned char) *value)) && strchr(more, *value) == NULL)
			return false;
	}
	return true;
}

static const char *
default_scope(const char *connection_kind)
{
	if (connection_kind && strcmp(connection_kind, "adf") == 0)
		return "https://management.azure.com/.default";
	if (connection_kind && strcmp(connection_kind, "storage") == 0)
		return "https://storage.azure.com/.default";
	if (connection_kind && strcmp(connection_kind, "keyvault") == 0)
		return "https://vault.azure.net/.default";
	if (connection_kind && strcmp(connection_kind, "databricks") == 0)
		return "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default";
	return NULL;
}

static bool
read_entra(const char *connection_kind, const cJSON *auth, const AuthTypeKeys *type,
		   Auth *parsed, AuthProblem *problem)
{
	if (!require(auth, type, "tenant_id", &parsed->tenant_id, problem) ||
		!require(auth, type, "client_id", &parsed->client_id, problem))
		return false;
	if (!made_of(parsed->tenant_id, ".-") || strstr(parsed->tenant_id, ".."))
		return fail(problem, "tenant_id", "\"tenant_id\" is not valid",
					"Give the directory (tenant) ID or one of its domain names.");
	if (!made_of(parsed->client_id, "-"))
		return fail(problem, "client_id", "\"client_id\" is not valid",
					"Give the application (client) ID of the app registration.");
	parsed->authority = get_string(auth, "authority");
	if (parsed->authority == NULL)
		parsed->authority = DEFAULT_AUTHORITY;
	if (strpbrk(parsed->authority, "?#"))
		return fail(problem, "authority", "\"authority\" must not have a query or a fragment", NULL);
	parsed->scope = get_string(auth, "scope");
	if (parsed->scope == NULL)
		parsed->scope = default_scope(connection_kind);
	if (parsed->scope == NULL)
		return fail(problem, "scope", psprintf("\"scope\" is missing and connections of kind %s have no default", connection_kind),
					"Give exactly one, such as \"api://application/.default\".");
	if (!made_of(parsed->scope, "-._~:/?#[]@!$&'()*+,;=%"))
		return fail(problem, "scope", "\"scope\" is not valid",
					"Give exactly one, without spaces, such as \"api://application/.default\".");
	return true;
}

/* Shared keys and SAS are for storage accounts alone. */
static bool
read_signed(const char *connection_kind, const cJSON *auth, AuthProblem *problem)
{
	const char *account = get_string(auth, "account");

	if (connection_kind == NULL || strcmp(connection_kind, "storage") != 0)
		return fail(problem, "type", psprintf("auth of type %s is for connections of kind storage", get_string(auth, "type")), NULL);
	if (account != NULL && !made_of(account, "-"))
		return fail(problem, "account", "\"account\" is not the name of a storage account",
					"Leave it out to take it from the base URL.");
	return true;
}

bool
auth_read(const char *connection_kind, const cJSON *auth, Auth *parsed, AuthProblem *problem)
{
	const AuthTypeKeys *type;
	const char *name;

	memset(parsed, 0, sizeof(*parsed));
	memset(problem, 0, sizeof(*problem));
	if (auth == NULL || (cJSON_IsObject(auth) && auth->child == NULL))
		return true;			/* none */
	if (!cJSON_IsObject(auth))
		return fail(problem, NULL, "auth must be a JSON object", NULL);
	name = get_string(auth, "type");
	type = name ? find_type(name) : NULL;
	if (type == NULL)
		return fail(problem, "type", name ? "type of auth is not known" : "auth has no \"type\"",
					"Types are none, pat, bearer, basic and entra_client_secret, and for storage shared_key and sas.");
	parsed->type = type->type;
	if (!check_members(auth, type, problem))
		return false;
	if (type->secret_key && !require(auth, type, type->secret_key, &parsed->secret, problem))
		return false;

	switch (parsed->type)
	{
		case AUTH_NONE:
		case AUTH_TOKEN:
			return true;
		case AUTH_SIGNED:
			return read_signed(connection_kind, auth, problem);
		case AUTH_BASIC:
			if (!require(auth, type, "username", &parsed->username, problem))
				return false;
			if (strchr(parsed->username, ':'))
				return fail(problem, "username", "\"username\" must not contain a colon", NULL);
			return true;
		case AUTH_ENTRA_CLIENT_SECRET:
			return read_entra(connection_kind, auth, type, parsed, problem);
	}
	return false;
}

bool
signin_validate(const char *connection_kind, const cJSON *auth, const char **path,
				const char **message, const char **hint, List **secret_names)
{
	Auth		parsed;
	AuthProblem problem;
	const char *why;
	const char *why_hint;

	if (!auth_read(connection_kind, auth, &parsed, &problem))
	{
		*path = problem.path;
		*message = problem.message;
		*hint = problem.hint;
		return false;
	}
	if (parsed.secret)
		*secret_names = lappend(*secret_names, pstrdup(parsed.secret));
	if (parsed.authority && !urlpolicy_check_url(parsed.authority, &why, &why_hint))
	{
		*path = "$.authority";
		*message = psprintf("authority \"%s\" is not allowed: %s", parsed.authority, why);
		*hint = why_hint;
		return false;
	}
	return true;
}

/* NULL, or why this value cannot go into a header. */
static const char *
secret_problem(const char *value, bool ascii_only)
{
	if (value[0] == '\0')
		return "the secret is empty";
	if (strlen(value) > MAX_SECRET)
		return "the secret is too long";
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if (*p < ' ' || *p == 0x7f)
			return "the secret contains a line break or another control character";
		if (ascii_only && (*p > 0x7f || *p == ' '))
			return "the secret is not a token: it contains a space or a character outside ASCII";
	}
	return NULL;
}

char *
auth_bearer_header(const char *token, const char **error)
{
	size_t		size = strlen(token) + 32;
	char	   *header;

	*error = secret_problem(token, true);
	if (*error)
		return NULL;
	header = malloc(size);
	if (header == NULL)
		*error = "out of memory";
	else
		snprintf(header, size, "Authorization: Bearer %s", token);
	return header;
}

char *
auth_basic_header(const char *username, const char *password, const char **error)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	static const char prefix[] = "Authorization: Basic ";
	size_t		user_len = strlen(username);
	size_t		len = user_len + 1 + strlen(password);
	unsigned char *plain;
	char	   *header;
	char	   *out;

	*error = secret_problem(password, false);
	if (*error)
		return NULL;
	plain = calloc(1, len + 3); /* two zero bytes of padding and the terminator */
	header = malloc(sizeof(prefix) + (len + 2) / 3 * 4);
	if (plain == NULL || header == NULL)
	{
		free(plain);
		free(header);
		*error = "out of memory";
		return NULL;
	}
	memcpy(plain, username, user_len);
	plain[user_len] = ':';
	memcpy(plain + user_len + 1, password, len - user_len - 1);
	memcpy(header, prefix, sizeof(prefix) - 1);
	out = header + sizeof(prefix) - 1;
	for (size_t i = 0; i < len; i += 3)
	{
		uint32		bits = plain[i] << 16 | plain[i + 1] << 8 | plain[i + 2];

		*out++ = digits[bits >> 18];
		*out++ = digits[bits >> 12 & 63];
		*out++ = i + 1 < len ? digits[bits >> 6 & 63] : '=';
		*out++ = i + 2 < len ? digits[bits & 63] : '=';
	}
	*out = '\0';
	explicit_bzero(plain, len);
	free(plain);
	return header;
}

static char *
add_form_value(char *out, const char *key, const char *value)
{
	static const char hex[] = "0123456789ABCDEF";

	out = stpcpy(out, key);
	*out++ = '=';
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if ((*p < 0x80 && isalnum(*p)) || strchr("-._~", *p) != NULL)
			*out++ = *p;
		else
		{
			*out++ = '%';
			*out++ = hex[*p >> 4];
			*out++ = hex[*p & 15];
		}
	}
	*out = '\0';
	return out;
}

char *
auth_entra_form(const Auth *auth, const char *client_secret)
{
	size_t		size = 128 + 3 * (strlen(auth->client_id) + strlen(auth->scope) + strlen(client_secret));
	char	   *form = malloc(size);
	char	   *out;

	if (form == NULL)
		return NULL;
	out = stpcpy(form, "grant_type=client_credentials&");
	out = add_form_value(out, "client_id", auth->client_id);
	*out++ = '&';
	out = add_form_value(out, "scope", auth->scope);
	*out++ = '&';
	add_form_value(out, "client_secret", client_secret);
	return form;
}
