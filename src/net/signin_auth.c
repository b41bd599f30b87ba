/*-------------------------------------------------------------------------
 * signin_auth.c
 *	  The "auth" object of a connection: reading and checking it.
 *
 * Runs in sessions that define connections and where httpmux.c runs.  Pure
 * apart from the URL policy: no tables, no locks, no sockets.  What every way
 * to sign in has in common is here; what is its own is in its file, and its
 * keys are data.  Values of secrets never come here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"

#include "signin_int.h"
#include "urlpolicy.h"

#define MAX_VALUE			1024	/* bytes of a value in auth */
#define MAX_VAULT_NAME		127
#define VAULT_PREFIX		"keyvault:"

static const SignInMethod *const methods[] = {
	&signin_none,
	&signin_pat,
	&signin_bearer,
	&signin_basic,
	&signin_shared_key,
	&signin_sas,
	&signin_oauth_client_secret,
	&signin_databricks_oauth,
	&signin_databricks_federated,
	&signin_entra_client_secret,
	&signin_entra_certificate,
	&signin_entra_federated,
	&signin_managed_identity,
};

/* What a token has to be good for, unless auth says so itself. */
static const struct
{
	const char *kind;
	const char *scope;
}			default_scopes[] = {
	{"adf", "https://management.azure.com/.default"},
	{"databricks", "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"},
	{"fabric", "https://api.fabric.microsoft.com/.default"},
	{"keyvault", "https://vault.azure.net/.default"},
	{"storage", "https://storage.azure.com/.default"},
};

bool
auth_fail(AuthProblem *problem, const char *key, const char *message, const char *hint)
{
	problem->path = key ? psprintf("$.%s", key) : "$";
	problem->message = message;
	problem->hint = hint;
	return false;
}

bool
auth_refuse(SignInRefusal *refusal, bool is_user_error, const char *text)
{
	memset(refusal, 0, sizeof(*refusal));
	refusal->text = text;
	refusal->is_user_error = is_user_error;
	return false;
}

static const SignInMethod *
find_method(const char *name)
{
	for (int i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i]->name, name) == 0)
			return methods[i];
	}
	return NULL;
}

static const char *
methods_hint(void)
{
	char	   *text = psprintf("Types are %s", methods[0]->name);

	for (int i = 1; i < lengthof(methods); i++)
		text = psprintf("%s%s %s", text, i == lengthof(methods) - 1 ? " and" : ",", methods[i]->name);
	return psprintf("%s.", text);
}

static int
key_index(const SignInMethod *method, const char *name)
{
	for (int i = 0; i < AUTH_MAX_KEYS && method->keys[i].name; i++)
	{
		if (strcmp(method->keys[i].name, name) == 0)
			return i;
	}
	return -1;
}

static const char *
keys_hint(const SignInMethod *method)
{
	char	   *text = psprintf("Type %s takes", method->name);

	if (method->keys[0].name == NULL)
		return psprintf("%s no other keys.", text);
	for (int i = 0; i < AUTH_MAX_KEYS && method->keys[i].name; i++)
		text = psprintf("%s%s %s", text, i ? "," : "", method->keys[i].name);
	return psprintf("%s.", text);
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

static bool
invalid(AuthProblem *problem, const AuthKey *key, const char *hint)
{
	return auth_fail(problem, key->name, psprintf("\"%s\" is not valid", key->name), hint);
}

static bool
check_choice(const AuthKey *key, const char *value, AuthProblem *problem)
{
	char	   *hint;

	for (int i = 0; key->choices[i]; i++)
	{
		if (strcmp(key->choices[i], value) == 0)
			return true;
	}
	hint = pstrdup("Give one of:");
	for (int i = 0; key->choices[i]; i++)
		hint = psprintf("%s%s %s", hint, i ? "," : "", key->choices[i]);
	return invalid(problem, key, psprintf("%s.", hint));
}

static bool
check_secret_name(const AuthKey *key, const char *value, AuthProblem *problem)
{
	const char *error = NULL;
	char	   *connection;
	char	   *name;
	char	   *version;

	if (signin_vault_reference(value, &connection, &name, &version, &error) || error == NULL)
		return true;
	return auth_fail(problem, key->name, psprintf("\"%s\" is not valid: %s", key->name, error),
					 "Write keyvault:CONNECTION/NAME or keyvault:CONNECTION/NAME/VERSION.");
}

/* The value of a key by its type */
static bool
check_value(const AuthKey *key, const char *value, AuthProblem *problem)
{
	switch (key->type)
	{
		case AUTH_KEY_TEXT:
		case AUTH_KEY_BOOLEAN:
			return true;
		case AUTH_KEY_SECRET:
			return check_secret_name(key, value, problem);
		case AUTH_KEY_URL:
			return strpbrk(value, "?#") == NULL ||
				auth_fail(problem, key->name, psprintf("\"%s\" must not have a query or a fragment", key->name), NULL);
		case AUTH_KEY_TENANT:
			return (made_of(value, ".-") && strstr(value, "..") == NULL) ||
				invalid(problem, key, "Give the directory (tenant) ID or one of its domain names.");
		case AUTH_KEY_ID:
			return made_of(value, "-") ||
				invalid(problem, key, "Give an ID such as 00000000-0000-0000-0000-000000000000.");
		case AUTH_KEY_SCOPE:
			return made_of(value, "-._~:/?#[]@!$&'()*+,;=%") ||
				invalid(problem, key, "Give exactly one, without spaces, such as \"api://application/.default\".");
		case AUTH_KEY_CHOICE:
			return check_choice(key, value, problem);
	}
	return false;
}

/* A string of sensible length without control characters, and what its type asks for */
static bool
check_member(const cJSON *item, const AuthKey *key, AuthProblem *problem)
{
	const char *value = item->valuestring;

	if (key != NULL && key->type == AUTH_KEY_BOOLEAN)
		return cJSON_IsBool(item) ||
			auth_fail(problem, item->string, psprintf("\"%s\" must be true or false", item->string), NULL);
	if (!cJSON_IsString(item) || value[0] == '\0')
		return auth_fail(problem, item->string, psprintf("\"%s\" must be a string that is not empty", item->string), NULL);
	if (strlen(value) > MAX_VALUE)
		return auth_fail(problem, item->string, psprintf("\"%s\" is longer than %d bytes", item->string, MAX_VALUE), NULL);
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if (*p < ' ' || *p == 0x7f)
			return auth_fail(problem, item->string, psprintf("\"%s\" contains a control character", item->string), NULL);
	}
	return key == NULL || check_value(key, value, problem);
}

/* Every member known and once, every required key there */
static bool
check_members(const cJSON *json, const SignInMethod *method, AuthProblem *problem)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, json)
	{
		int			i = key_index(method, item->string);

		if (i < 0 && strcmp(item->string, "type") != 0)
			return auth_fail(problem, NULL, psprintf("auth has an unknown key \"%.*s\"",
													 pg_mbcliplen(item->string, strlen(item->string), 64), item->string),
							 keys_hint(method));
		if (cJSON_GetObjectItemCaseSensitive(json, item->string) != item)
			return auth_fail(problem, item->string, psprintf("\"%s\" is given twice", item->string), NULL);
		if (!check_member(item, i < 0 ? NULL : &method->keys[i], problem))
			return false;
	}
	for (int i = 0; i < AUTH_MAX_KEYS && method->keys[i].name; i++)
	{
		const char *name = method->keys[i].name;

		if (method->keys[i].is_required && cJSON_GetObjectItemCaseSensitive(json, name) == NULL)
			return auth_fail(problem, name, psprintf("\"%s\" is missing", name), keys_hint(method));
	}
	return true;
}

const char *
auth_text(const Auth *auth, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(auth->json, key));
}

bool
auth_flag(const Auth *auth, const char *key)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(auth->json, key));
}

const char *
auth_secret(const SignInCall *call, const char *key)
{
	int			i = key_index(call->auth->method, key);

	return i < 0 ? NULL : call->secrets[i];
}

const char *
auth_url_join(const char *base, const char *path)
{
	size_t		len = strlen(base);

	while (len > 0 && base[len - 1] == '/')
		len--;
	return psprintf("%.*s%s", (int) len, base, path);
}

/* The one asked for, else auth's own, else the kind's; false if there is none and one is needed. */
static bool
choose_scope(const SignInConnection *connection, Auth *auth, AuthProblem *problem)
{
	int			i = key_index(auth->method, "scope");

	if (i < 0)
		return true;
	auth->scope = connection->scope ? connection->scope : auth_text(auth, "scope");
	if (auth->scope != NULL || auth->method == &signin_oauth_client_secret ||
		auth->method == &signin_databricks_oauth || auth->method == &signin_databricks_federated)
		return true;
	for (int k = 0; k < lengthof(default_scopes); k++)
	{
		if (connection->kind && strcmp(default_scopes[k].kind, connection->kind) == 0)
			auth->scope = default_scopes[k].scope;
	}
	return auth->scope != NULL ||
		auth_fail(problem, "scope", psprintf("\"scope\" is missing and connections of kind %s have no default", connection->kind),
				  "Give exactly one, such as \"api://application/.default\".");
}

bool
auth_read(const SignInConnection *connection, Auth *auth, AuthProblem *problem)
{
	const cJSON *json = connection->auth;
	const char *name;

	memset(auth, 0, sizeof(*auth));
	memset(problem, 0, sizeof(*problem));
	auth->json = json;
	auth->kind = connection->kind;
	auth->options = connection->options;
	auth->base_url = connection->base_url;
	auth->method = &signin_none;
	if (json == NULL || (cJSON_IsObject(json) && json->child == NULL))
		return true;
	if (!cJSON_IsObject(json))
		return auth_fail(problem, NULL, "auth must be a JSON object", NULL);
	name = auth_text(auth, "type");
	auth->method = name ? find_method(name) : NULL;
	if (auth->method == NULL)
		return auth_fail(problem, "type", name ? "type of auth is not known" : "auth has no \"type\"",
						 methods_hint());
	return check_members(json, auth->method, problem) &&
		(auth->method->check == NULL || auth->method->check(auth, problem)) &&
		databricks_check_workspace(auth, problem) &&
		choose_scope(connection, auth, problem);
}

/* Is every URL that sign-in is going to use allowed? */
static bool
check_urls(const Auth *auth, AuthProblem *problem)
{
	const char *path = NULL;
	const char *url;
	const char *why;
	const char *hint;

	for (int i = 0; i < AUTH_MAX_KEYS && auth->method->keys[i].name; i++)
	{
		const AuthKey *key = &auth->method->keys[i];

		url = auth_text(auth, key->name);
		if (url == NULL && strcmp(key->name, "authority") == 0)
			url = AUTH_DEFAULT_AUTHORITY;
		if (key->type == AUTH_KEY_URL && url != NULL && !urlpolicy_check_url(url, &why, &hint))
			return auth_fail(problem, key->name, psprintf("%s \"%s\" is not allowed: %s", key->name, url, why), hint);
	}
	url = auth->method->url ? auth->method->url(auth, &path) : NULL;
	if (url != NULL && !urlpolicy_check_url(url, &why, &hint))
		return auth_fail(problem, path, psprintf("the address to sign in at is not allowed: %s", why), hint);
	return true;
}

bool
signin_validate(const char *connection_kind, const char *base_url, const cJSON *auth,
				const char **path, const char **message, const char **hint, List **secret_names)
{
	SignInConnection connection = {.kind = connection_kind, .base_url = base_url, .auth = auth};
	AuthProblem problem;
	Auth		parsed;
	bool		ok = auth_read(&connection, &parsed, &problem);

	for (int i = 0; ok && i < AUTH_MAX_KEYS && parsed.method->keys[i].name; i++)
	{
		const AuthKey *key = &parsed.method->keys[i];

		if (key->type == AUTH_KEY_SECRET && auth_text(&parsed, key->name) != NULL)
			*secret_names = lappend(*secret_names, pstrdup(auth_text(&parsed, key->name)));
	}
	if (ok && check_urls(&parsed, &problem))
		return true;
	*path = problem.path;
	*message = problem.message;
	*hint = problem.hint;
	return false;
}

/* A name in a vault, or a version: 1 to 127 letters, digits and hyphens */
static bool
is_vault_name(const char *text)
{
	return text[0] != '\0' && strlen(text) <= MAX_VAULT_NAME && made_of(text, "-");
}

bool
signin_vault_reference(const char *reference, char **connection, char **name, char **version,
					   const char **error)
{
	char	   *slash;

	*error = NULL;
	if (strncmp(reference, VAULT_PREFIX, strlen(VAULT_PREFIX)) != 0)
		return false;
	*connection = pstrdup(reference + strlen(VAULT_PREFIX));
	*version = NULL;
	slash = strchr(*connection, '/');
	if (slash == NULL || slash == *connection)
	{
		*error = "a reference to a key vault names a connection and a secret";
		return false;
	}
	*slash = '\0';
	*name = slash + 1;
	slash = strchr(*name, '/');
	if (slash != NULL)
	{
		*slash = '\0';
		*version = slash + 1;
	}
	if (is_vault_name(*name) && (*version == NULL || is_vault_name(*version)))
		return true;
	*error = "names and versions of secrets in a key vault are letters, digits and hyphens";
	return false;
}
