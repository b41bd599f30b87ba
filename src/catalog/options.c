/*-------------------------------------------------------------------------
 * options.c
 *	  Which options a connection of a kind may have.
 *
 * Runs in the session that defines a connection.  Pure checks over a table.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "catalogutil.h"
#include "compat.h"
#include "definition.h"
#include "json.h"
#include "options.h"
#include "pollpace.h"
#include "requestlimits.h"
#include "route.h"
#include "signin.h"
#include "urlpolicy.h"

#define MAX_SETTLE_SECONDS	3600
#define MAX_LIMIT			1000000
#define MAX_DATABASE		65535
#define MAX_SECRET_NAME		1024
#define MAX_GROUP_NAME		63
#define NAME_CHARACTERS		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define MAX_HEADERS			50
#define MAX_HEADER_VALUE	8192

typedef enum OptionType
{
	OPTION_SEGMENT,				/* becomes one segment of a URL's path */
	OPTION_IDENTIFIER,
	OPTION_API_VERSION,
	OPTION_SECONDS,
	OPTION_BOOLEAN,
	OPTION_LIMIT,
	OPTION_HEADERS,
	OPTION_URL,
	OPTION_RETRY,
	OPTION_DATABASE,
	OPTION_TIMEOUT,
	OPTION_CERTIFICATE,
	OPTION_PROXY,
	OPTION_SECRET,
	OPTION_REQUESTS,
	OPTION_NAME,
	OPTION_PACE
} OptionType;

typedef struct OptionRule
{
	const char *kind;
	const char *key;
	OptionType	type;
	bool		is_required;
} OptionRule;

/* all but redis */
#define HTTP_KINDS	"*"

static const OptionRule rules[] = {
	{"adf", "subscription_id", OPTION_SEGMENT, true},
	{"adf", "resource_group", OPTION_SEGMENT, true},
	{"adf", "factory", OPTION_SEGMENT, true},
	{"adf", "api_version", OPTION_API_VERSION, false},
	{"adf", "correlation_parameter", OPTION_IDENTIFIER, false},
	{"adf", "settle_seconds", OPTION_SECONDS, false},
	{"adf", "poll", OPTION_PACE, false},
	{"adf", "retry", OPTION_RETRY, false},
	{"adf", "max_concurrency", OPTION_LIMIT, false},
	{"adf", "max_starts_per_minute", OPTION_LIMIT, false},
	{"databricks", "settle_seconds", OPTION_SECONDS, false},
	{"databricks", "poll", OPTION_PACE, false},
	{"databricks", "retry", OPTION_RETRY, false},
	{"databricks", "max_concurrency", OPTION_LIMIT, false},
	{"databricks", "max_starts_per_minute", OPTION_LIMIT, false},
	{"storage", "dfs_url", OPTION_URL, false},
	{"storage", "queue_url", OPTION_URL, false},
	{"storage", "container", OPTION_SEGMENT, false},
	{"storage", "retry", OPTION_RETRY, false},
	{"storage", "max_concurrency", OPTION_LIMIT, false},
	{"storage", "max_starts_per_minute", OPTION_LIMIT, false},
	{"keyvault", "api_version", OPTION_API_VERSION, false},
	{"keyvault", "retry", OPTION_RETRY, false},
	{"keyvault", "max_concurrency", OPTION_LIMIT, false},
	{"keyvault", "max_starts_per_minute", OPTION_LIMIT, false},
	{"fabric", "workspace_id", OPTION_SEGMENT, false},
	{"fabric", "settle_seconds", OPTION_SECONDS, false},
	{"fabric", "poll", OPTION_PACE, false},
	{"fabric", "retry", OPTION_RETRY, false},
	{"fabric", "max_concurrency", OPTION_LIMIT, false},
	{"fabric", "max_starts_per_minute", OPTION_LIMIT, false},
	{"http", "default_headers", OPTION_HEADERS, false},
	{"http", "idempotent", OPTION_BOOLEAN, false},
	{"http", "retry", OPTION_RETRY, false},
	{"http", "max_concurrency", OPTION_LIMIT, false},
	{"http", "max_starts_per_minute", OPTION_LIMIT, false},
	{HTTP_KINDS, "proxy", OPTION_PROXY, false},
	{HTTP_KINDS, "proxy_secret", OPTION_SECRET, false},
	{HTTP_KINDS, "ca_certificate", OPTION_CERTIFICATE, false},
	{HTTP_KINDS, "connect_timeout", OPTION_TIMEOUT, false},
	{HTTP_KINDS, "timeout", OPTION_TIMEOUT, false},
	{HTTP_KINDS, "stall_timeout", OPTION_TIMEOUT, false},
	{HTTP_KINDS, "request_limits", OPTION_REQUESTS, false},
	{HTTP_KINDS, "limit_group", OPTION_NAME, false},
	{"redis", "database", OPTION_DATABASE, false},
	{"redis", "ca_certificate", OPTION_CERTIFICATE, false},
	{"redis", "connect_timeout", OPTION_TIMEOUT, false},
	{"redis", "command_timeout", OPTION_TIMEOUT, false},
	{"redis", "retry", OPTION_RETRY, false},
	{"redis", "max_concurrency", OPTION_LIMIT, false},
	{"redis", "max_starts_per_minute", OPTION_LIMIT, false},
};

static const char *const kinds[] = {"adf", "databricks", "fabric", "http", "keyvault", "redis", "storage"};

noreturn_compat static void
option_error(const char *key, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid options: %s", message),
			 key ? errdetail("JSON path: $.%s", key) : 0,
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true)));
	pg_unreachable();
}

static bool
is_segment(const char *text)
{
	size_t		len = strlen(text);

	if (len < 1 || len > 260 || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	for (const char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p <= ' ' || *p == 0x7f || strchr("/\\?#%", *p) != NULL)
			return false;
	return true;
}

static void
check_headers(const char *key, const cJSON *headers)
{
	static const char token_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";
	const cJSON *item;

	if (!cJSON_IsObject(headers))
		option_error(key, "default_headers must be an object of strings", NULL);
	if (cJSON_GetArraySize(headers) > MAX_HEADERS)
		option_error(key, "more than 50 default headers", NULL);
	cJSON_ArrayForEach(item, headers)
	{
		const char *path = psprintf("%s.%s", key, item->string);
		const char *value = json_string(item);

		if (item->string[0] == '\0' || strspn(item->string, token_chars) != strlen(item->string))
			option_error(path, "invalid name of a header", NULL);
		if (pg_strcasecmp(item->string, "Authorization") == 0 ||
			pg_strcasecmp(item->string, "Proxy-Authorization") == 0 ||
			pg_strcasecmp(item->string, "Cookie") == 0)
			option_error(path, "credentials do not belong into options",
						 "Use auth with the name of a secret.");
		if (pg_strcasecmp(item->string, "Host") == 0 ||
			pg_strcasecmp(item->string, "Content-Length") == 0 ||
			pg_strcasecmp(item->string, "Transfer-Encoding") == 0 ||
			pg_strcasecmp(item->string, "Connection") == 0)
			option_error(path, "this header is set by the HTTP client alone", NULL);
		if (value == NULL || strlen(value) > MAX_HEADER_VALUE)
			option_error(path, "value of a header must be a string of at most 8192 bytes", NULL);
		for (const char *p = value; *p != '\0'; p++)
			if (((unsigned char) *p < ' ' && *p != '\t') || *p == 0x7f)
				option_error(path, "value of a header must not contain control characters", NULL);
	}
}

/* Another address of the same service, which is sent the same credentials. */
static void
check_url(const char *key, const char *text)
{
	const char *why = NULL;
	const char *hint = NULL;

	if (text == NULL || strpbrk(text, "?#") != NULL || text[0] == '\0' || text[strlen(text) - 1] == '/')
		option_error(key, psprintf("%s must be a URL without query, fragment and a slash at its end", key), NULL);
	if (!urlpolicy_check_url(text, &why, &hint))
		option_error(key, psprintf("%s is refused: %s", key, why), hint);
}

static void
check_proxy(const char *key, const char *text)
{
	const char *why = NULL;
	const char *hint = NULL;

	if (text == NULL)
		option_error(key, "proxy must be a URL", "Write http://host:port or https://host:port.");
	if (!route_check_proxy(text, &why, &hint))
		option_error(key, psprintf("proxy is refused: %s", why), hint);
}

/* The name of one; what is given is not shown, as it may be the secret itself. */
static void
check_secret(const char *key, const char *text)
{
	static const char hint[] = "Create a secret that holds \"user:password\" with weir.create_secret and give its name.";
	char	   *connection;
	char	   *name;
	char	   *version;
	const char *error = NULL;

	if (text == NULL || text[0] == '\0' || strlen(text) > MAX_SECRET_NAME)
		option_error(key, psprintf("%s must be the name of a secret", key), hint);
	for (const unsigned char *p = (const unsigned char *) text; *p != '\0'; p++)
		if (*p < ' ' || *p == 0x7f)
			option_error(key, psprintf("%s must be the name of a secret", key), hint);
	if (!signin_vault_reference(text, &connection, &name, &version, &error) && error != NULL)
		option_error(key, psprintf("%s is not valid: %s", key, error),
					 "Write keyvault:CONNECTION/NAME or keyvault:CONNECTION/NAME/VERSION.");
}

/* Which of them are to be trusted is nothing secret; a private key beside them would be. */
static void
check_certificate(const char *key, const char *text)
{
	const char *why = NULL;
	const char *hint = NULL;

	if (text == NULL)
		option_error(key, psprintf("%s must be certificates in PEM, or file:/path of such", key), NULL);
	if (!route_check_certificate(text, &why, &hint))
		option_error(key, psprintf("%s is refused: %s", key, why), hint);
}

static void
check_requests(const char *key, const char *kind, const cJSON *item)
{
	RequestLimits limits;
	const char *path = NULL;
	const char *why = NULL;

	if (!request_limits_read(kind, item, &limits, &path, &why))
		option_error(psprintf("%s%s", key, path), why,
					 "Write {\"reads\": {\"per_second\": 25, \"burst\": 250}, \"writes\": null}: what is left out stays as it is for the kind, null is no limit.");
}

/* {"min": 1, "max": 60}: seconds between two looks at a run */
static void
check_pace(const char *key, const cJSON *item)
{
	static const char hint[] = "Write {\"min\": 1, \"max\": 60}: seconds; what is left out stays as it is.";
	PollBounds	bounds;
	const char *member;

	if (poll_bounds_read(item, &bounds, &member))
		return;
	if (member == NULL)
		option_error(key, psprintf("%s must be an object with min, max or both", key), hint);
	option_error(psprintf("%s.%s", key, member),
				 strcmp(member, "min") == 0 ? psprintf("min must be a number of seconds from %g to %d", POLL_LEAST_MS / 1000.0, POLL_BOUND_MOST_S) :
				 psprintf("max must be a number of seconds from min to %d", POLL_BOUND_MOST_S), hint);
}

/* The default of tasks that use the connection. */
static void
check_retry(const cJSON *item)
{
	RetryPolicy policy = retry_policy_default();
	cJSON	   *object = cJSON_CreateObject();

	cJSON_AddItemReferenceToObject(object, "retry", (cJSON *) item);
	def_read_retry(object, "$", &policy);
}

static bool
has_option(const char *kind, const OptionRule *rule)
{
	return strcmp(rule->kind, kind) == 0 || (strcmp(rule->kind, HTTP_KINDS) == 0 && strcmp(kind, "redis") != 0);
}

static void
check_option(const OptionRule *rule, const char *kind, const cJSON *item)
{
	const char *text = json_string(item);
	double		number;
	int64		limit;

	switch (rule->type)
	{
		case OPTION_SEGMENT:
			if (text == NULL || !is_segment(text))
				option_error(rule->key, psprintf("%s must be a string of 1 to 260 characters without white space and without any of / \\ ? # %%", rule->key), NULL);
			break;
		case OPTION_IDENTIFIER:
			if (text == NULL || !catalog_is_identifier(text))
				option_error(rule->key, psprintf("%s must be a name of letters, digits and \"_\"", rule->key), NULL);
			break;
		case OPTION_API_VERSION:
			if (text == NULL || strspn(text, "0123456789abcdefghijklmnopqrstuvwxyz-.") != strlen(text) ||
				text[0] == '\0' || strlen(text) > 40)
				option_error(rule->key, psprintf("%s must be a version such as \"2018-06-01\"", rule->key), NULL);
			break;
		case OPTION_SECONDS:
			if (text != NULL || !json_double(item, &number) || number < 0 || number > MAX_SETTLE_SECONDS)
				option_error(rule->key, psprintf("%s must be a number of seconds from 0 to %d", rule->key, MAX_SETTLE_SECONDS), NULL);
			break;
		case OPTION_BOOLEAN:
			if (!cJSON_IsBool(item))
				option_error(rule->key, psprintf("%s must be true or false", rule->key), NULL);
			break;
		case OPTION_LIMIT:
			if (text != NULL || !json_int64(item, &limit) || limit < 1 || limit > MAX_LIMIT)
				option_error(rule->key, psprintf("%s must be an integer from 1 to %d", rule->key, MAX_LIMIT), NULL);
			break;
		case OPTION_HEADERS:
			check_headers(rule->key, item);
			break;
		case OPTION_URL:
			check_url(rule->key, text);
			break;
		case OPTION_RETRY:
			check_retry(item);
			break;
		case OPTION_DATABASE:
			if (text != NULL || !json_int64(item, &limit) || limit < 0 || limit > MAX_DATABASE)
				option_error(rule->key, psprintf("%s must be an integer from 0 to %d", rule->key, MAX_DATABASE), NULL);
			break;
		case OPTION_TIMEOUT:
			if (text != NULL || !json_double(item, &number) || number < 0.001 || number > MAX_SETTLE_SECONDS)
				option_error(rule->key, psprintf("%s must be a number of seconds above 0, up to %d", rule->key, MAX_SETTLE_SECONDS), NULL);
			break;
		case OPTION_CERTIFICATE:
			check_certificate(rule->key, text);
			break;
		case OPTION_PROXY:
			check_proxy(rule->key, text);
			break;
		case OPTION_SECRET:
			check_secret(rule->key, text);
			break;
		case OPTION_REQUESTS:
			check_requests(rule->key, kind, item);
			break;
		case OPTION_NAME:
			if (text == NULL || text[0] == '\0' || strlen(text) > MAX_GROUP_NAME || strspn(text, NAME_CHARACTERS) != strlen(text))
				option_error(rule->key, psprintf("%s must be a name of 1 to %d letters, digits and any of . _ -", rule->key, MAX_GROUP_NAME), NULL);
			break;
		case OPTION_PACE:
			check_pace(rule->key, item);
			break;
	}
}

void
options_check(const char *kind, const cJSON *options)
{
	const char *known[lengthof(rules)];
	int			nknown = 0;
	bool		is_kind = false;
	const cJSON *item;
	char	   *near;

	for (int i = 0; i < lengthof(kinds); i++)
		is_kind = is_kind || strcmp(kind, kinds[i]) == 0;
	if (!is_kind)
	{
		near = catalog_did_you_mean(kind, kinds, lengthof(kinds));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of connection \"%s\"", catalog_clip(kind)),
				 errhint("Kinds are adf, databricks, fabric, http, keyvault, redis and storage.%s%s", near ? " " : "", near ? near : "")));
	}
	if (!cJSON_IsObject(options))
		option_error(NULL, "they must be a JSON object", NULL);

	for (int i = 0; i < lengthof(rules); i++)
		if (has_option(kind, &rules[i]))
			known[nknown++] = rules[i].key;

	cJSON_ArrayForEach(item, options)
	{
		const OptionRule *rule = NULL;

		for (int i = 0; i < lengthof(rules); i++)
			if (has_option(kind, &rules[i]) && strcmp(rules[i].key, item->string) == 0)
				rule = &rules[i];
		if (rule == NULL && strcmp(kind, "redis") == 0 && (strcmp(item->string, "proxy") == 0 || strcmp(item->string, "proxy_secret") == 0))
			option_error(item->string, "Redis is not reached through a proxy", "Leave it out, and let the server reach Redis directly.");
		if (rule == NULL)
		{
			StringInfoData hint;

			initStringInfo(&hint);
			near = catalog_did_you_mean(item->string, known, nknown);
			if (near)
				appendStringInfo(&hint, "%s ", near);
			appendStringInfo(&hint, "Options of kind %s are:", kind);
			for (int i = 0; i < nknown; i++)
				appendStringInfo(&hint, "%s %s", i > 0 ? "," : "", known[i]);
			appendStringInfoChar(&hint, '.');
			option_error(catalog_clip(item->string),
						 psprintf("unknown option \"%s\"", catalog_clip(item->string)), hint.data);
		}
		check_option(rule, kind, item);
	}
	for (int i = 0; i < lengthof(rules); i++)
		if (rules[i].is_required && strcmp(rules[i].kind, kind) == 0 &&
			cJSON_GetObjectItemCaseSensitive(options, rules[i].key) == NULL)
			option_error(rules[i].key, psprintf("%s is missing", rules[i].key),
						 psprintf("A connection of kind %s needs it.", kind));
}
