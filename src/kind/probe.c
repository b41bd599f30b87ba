/*-------------------------------------------------------------------------
 * probe.c
 *	  Is a connection of use?  One request per kind of connection that changes
 *	  nothing, and what the answer to it means
 *
 * Runs in sessions that call weir.test_connection().  Pure, like the kinds.
 * The requests ask to see what there is.  Who uses an engine may see it; but a
 * key vault and a storage account have rights for parts of them and for single
 * verbs, so there a refusal to list everything says nothing of what tasks do.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "adf_int.h"
#include "keyvault_int.h"
#include "storage_int.h"

#define MAX_DETAIL 500

typedef struct ProbeRule
{
	const char *connection_kind;
	const char *option;			/* for connections that have this one; NULL: for all others */
	const char *path;			/* {NAME} is an option of the connection */
	const char *api_version;	/* of a connection that does not name one, or NULL */
	const char *what;			/* that the path names */
	const char *not_told;		/* hint: tasks may do what they need although this is refused; NULL: they may not */
	bool		any_answer;		/* an address that need not be there: any answer will do */
} ProbeRule;

/* The first that fits is taken. */
static const ProbeRule rules[] = {
	{.connection_kind = "adf",
		.path = "/subscriptions/{subscription_id}/resourceGroups/{resource_group}/providers/Microsoft.DataFactory/factories/{factory}?api-version={api_version}",
		.api_version = ADF_API_VERSION,
	.what = "the data factory"},
	{.connection_kind = "databricks",
		.path = "/api/2.2/jobs/list?limit=1",
	.what = "the workspace's list of jobs"},
	{.connection_kind = "fabric",
		.path = "/workspaces",
	.what = "the list of workspaces"},
	{.connection_kind = "http",
		.path = "/",
		.what = "the address",
	.any_answer = true},
	{.connection_kind = "keyvault",
		.path = "/secrets?api-version={api_version}&maxresults=1",
		.api_version = KEYVAULT_API_VERSION,
		.what = "the vault's list of secrets",
	.not_told = "The credentials were accepted, but may not list the vault's secrets. References to a secret need the right to get it, setting one the right to set: "
		"whether they have that is not known. Give them the right to list if tasks are to check or list secrets."},
	{.connection_kind = "storage",
		.option = "container",
		.path = "/{container}?restype=container&comp=list&maxresults=1",
		.what = "the container that the option \"container\" names",
	.not_told = "The credentials were accepted, but may not list the container that the option \"container\" names: "
		"whether tasks may read, write and delete files whose names they know is not known."},
	{.connection_kind = "storage",
		.path = "/?comp=list&maxresults=1",
		.what = "the account's list of containers or queues",
	.not_told = "The credentials were accepted, but may not list the account's containers or queues, which no task does: whether they have rights in one is not known. "
		"Name a container in the connection's option \"container\", and that is listed instead."},
};

static const ProbeRule *
find_rule(const char *connection_kind, const cJSON *options)
{
	for (size_t i = 0; i < lengthof(rules); i++)
		if (strcmp(rules[i].connection_kind, connection_kind) == 0 &&
			(rules[i].option == NULL || kind_string(options, rules[i].option) != NULL))
			return &rules[i];
	return NULL;
}

/* The path with options in their places, percent-encoded. */
static void
add_path(StrBuf *buf, const ProbeRule *rule, const cJSON *options)
{
	for (const char *p = rule->path; *p != '\0'; p++)
	{
		const char *end = *p == '{' ? strchr(p, '}') : NULL;
		char	   *name;
		const char *value;

		if (end == NULL)
		{
			strbuf_addchar(buf, *p);
			continue;
		}
		name = mem_strndup(p + 1, end - p - 1);
		value = kind_string(options, name);
		if (value == NULL && strcmp(name, "api_version") == 0)
			value = rule->api_version;
		kind_url_encode(buf, value ? value : "");
		mem_free(name);
		p = end;
	}
}

bool
kind_probe_request(const char *connection_kind, const char *base_url, const cJSON *options, int64 now_ms, KindRequest *request)
{
	const ProbeRule *rule = find_rule(connection_kind, options);
	StrBuf		url;

	memset(request, 0, sizeof(*request));
	if (rule == NULL)
		return false;
	strbuf_init(&url);
	strbuf_addstr(&url, base_url);
	add_path(&url, rule, options);
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
	request->headers = kind_member(options, "default_headers");
	if (strcmp(connection_kind, "storage") == 0)
		request->headers = storage_headers(&(KindCall) {.now_ms = now_ms});
	return true;
}

/* What the service says, in its own form; code NULL: nothing but the status */
static void
read_error(const char *connection_kind, const KindResponse *response, const char **code, const char **message)
{
	char	   *found;
	char	   *text;

	if (strcmp(connection_kind, "storage") == 0)
		storage_read_error(response, &found, &text);
	else
		kind_body_error(response, &found, &text);
	*code = found == NULL || strncmp(found, "http_", 5) == 0 ? NULL : found;
	*message = text;
}

/* "HTTP status 403: AuthorizationFailed: The client ..." */
static const char *
answer_text(const char *connection_kind, const KindResponse *response)
{
	const char *code;
	const char *message;

	read_error(connection_kind, response, &code, &message);
	return mem_printf("HTTP status %d: %s%s%s", response->http_status, code ? code : "", code ? ": " : "",
					  kind_clean_text(message, strlen(message), MAX_DETAIL));
}

/*
 * A 403 that is about the right to this one thing, and not about the network
 * or the way to sign in, which would hold for whatever is asked.  Codes:
 * "Common REST API error codes" and "Blob service error codes" of storage;
 * innererror of Key Vault, "Troubleshooting Azure Key Vault access policy issues".
 */
static bool
is_about_this(const char *connection_kind, const KindResponse *response)
{
	const char *code;
	const char *message;

	if (strcmp(connection_kind, "storage") == 0)
	{
		read_error(connection_kind, response, &code, &message);
		return code != NULL && (strcmp(code, "AuthorizationPermissionMismatch") == 0 ||
								strcmp(code, "AuthorizationResourceTypeMismatch") == 0);
	}
	return response->body == NULL ||
		(strstr(response->body, "ForbiddenByFirewall") == NULL && strstr(response->body, "ForbiddenByConnection") == NULL);
}

static void
set_answer(KindProbe *probe, KindProbeStep sign_in, KindProbeStep permission, const char *detail, const char *hint)
{
	probe->sign_in = sign_in;
	probe->permission = permission;
	probe->detail = detail;
	probe->hint = hint;
}

/* What an answer with 403 to somebody who is known says */
static void
set_forbidden(const ProbeRule *rule, const KindResponse *response, const char *text, KindProbe *probe)
{
	if (rule->not_told != NULL && is_about_this(rule->connection_kind, response))
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_UNKNOWN, text, rule->not_told);
	else
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_FAILED, text,
				   mem_printf("The credentials may not see %s. Give them the right to, or correct them.", rule->what));
}

void
kind_probe_response(const char *connection_kind, const cJSON *options, bool has_service_sas, const KindResponse *response, KindProbe *probe)
{
	const ProbeRule *rule = find_rule(connection_kind, options);
	int			status = response->http_status;
	const char *text = status == 0 ? mem_printf("no answer: %s", response->transport_error ? response->transport_error : "unknown") :
		answer_text(connection_kind, response);

	if (status == 0)
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_FAILED, text,
				   "The server was reached, but did not answer the request. Is the address that of the service?");
	else if (status >= 200 && status < 300)
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_OK, NULL, NULL);
	else if (status == 403 && has_service_sas && rule->option == NULL)
		set_answer(probe, KIND_PROBE_UNKNOWN, KIND_PROBE_UNKNOWN, text,
				   "The shared access signature is one of a container, folder, file or queue, which may never list what the account has: this says nothing of it. "
				   "For files, name their container in the connection's option \"container\", and that is listed instead.");
	else if (kind_is_unauthorized(response))
		set_answer(probe, KIND_PROBE_FAILED, KIND_PROBE_FAILED, text,
				   "The service does not accept the credentials. Is the secret current, and is it one for this service?");
	else if (status == 403)
		set_forbidden(rule, response, text, probe);
	else if (rule->any_answer && status < 500 && status != 407 && status != 429)
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_OK, mem_printf("the address itself answers with HTTP status %d", status), NULL);
	else if (status == 429 || status >= 500)
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_FAILED, text, "The service is there, but cannot serve at the moment. Try again later.");
	else if (status == 404)
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_FAILED, text,
				   mem_printf("Could not find %s. Correct base_url and options of the connection.", rule->what));
	else
		set_answer(probe, KIND_PROBE_OK, KIND_PROBE_FAILED, text, "Is base_url the address of the service?");
}
