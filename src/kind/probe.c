/*-------------------------------------------------------------------------
 * probe.c
 *	  Is a connection of use?  One request per kind of connection that changes
 *	  nothing, and what the answer to it means
 *
 * Runs in sessions that call weir.test_connection().  Pure, like the kinds.
 * The requests need the right that tasks need at least: to see what there is.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

#define MAX_DETAIL 500

typedef struct ProbeRule
{
	const char *connection_kind;
	const char *path;			/* {NAME} is an option of the connection */
	const char *what;			/* that the path names */
	bool		any_answer;		/* an address that need not be there: any answer will do */
} ProbeRule;

static const ProbeRule rules[] = {
	{"adf", "/subscriptions/{subscription_id}/resourceGroups/{resource_group}/providers/Microsoft.DataFactory/factories/{factory}?api-version={api_version}",
	"the data factory", false},
	{"databricks", "/api/2.2/jobs/list?limit=1", "the workspace's list of jobs", false},
	{"fabric", "/workspaces", "the list of workspaces", false},
	{"http", "/", "the address", true},
	{"keyvault", "/secrets?api-version=7.4&maxresults=1", "the vault's list of secrets", false},
	{"storage", "/?comp=list&maxresults=1", "the account's list of containers or queues", false},
};

static const ProbeRule *
find_rule(const char *connection_kind)
{
	for (size_t i = 0; i < lengthof(rules); i++)
		if (strcmp(rules[i].connection_kind, connection_kind) == 0)
			return &rules[i];
	return NULL;
}

/* The path with options in their places, percent-encoded. */
static void
add_path(StrBuf *buf, const char *path, const cJSON *options)
{
	for (const char *p = path; *p != '\0'; p++)
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
			value = "2018-06-01";
		kind_url_encode(buf, value ? value : "");
		mem_free(name);
		p = end;
	}
}

bool
kind_probe_request(const char *connection_kind, const char *base_url, const cJSON *options, int64 now_ms, KindRequest *request)
{
	const ProbeRule *rule = find_rule(connection_kind);
	StrBuf		url;

	memset(request, 0, sizeof(*request));
	if (rule == NULL)
		return false;
	strbuf_init(&url);
	strbuf_addstr(&url, base_url);
	add_path(&url, rule->path, options);
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
	request->headers = kind_member(options, "default_headers");
	if (strcmp(connection_kind, "storage") == 0)
		request->headers = storage_headers(&(KindCall) {.now_ms = now_ms});
	return true;
}

/* "HTTP status 403: AuthorizationFailed: The client ..." */
static const char *
answer_text(const KindResponse *response)
{
	char	   *code;
	char	   *message;

	kind_body_error(response, &code, &message);
	return mem_printf("HTTP status %d: %s%s%s", response->http_status,
					  strncmp(code, "http_", 5) == 0 ? "" : code, strncmp(code, "http_", 5) == 0 ? "" : ": ",
					  kind_clean_text(message, strlen(message), MAX_DETAIL));
}

static void
set_answer(KindProbe *probe, bool is_signed_in, bool is_permitted, const char *detail, const char *hint)
{
	probe->is_signed_in = is_signed_in;
	probe->is_permitted = is_permitted;
	probe->detail = detail;
	probe->hint = hint;
}

void
kind_probe_response(const char *connection_kind, const KindResponse *response, KindProbe *probe)
{
	const ProbeRule *rule = find_rule(connection_kind);
	int			status = response->http_status;

	if (status == 0)
		set_answer(probe, false, false, mem_printf("no answer: %s", response->transport_error ? response->transport_error : "unknown"),
				   "The server was reached, but did not answer the request. Is the address that of the service?");
	else if (status >= 200 && status < 300)
		set_answer(probe, true, true, NULL, NULL);
	else if (kind_is_unauthorized(response))
		set_answer(probe, false, false, answer_text(response),
				   "The service does not accept the credentials. Is the secret current, and is it one for this service?");
	else if (status == 403)
		set_answer(probe, true, false, answer_text(response),
				   mem_printf("The credentials may not see %s. Give them the right to, or correct them.", rule->what));
	else if (rule->any_answer && status < 500 && status != 407 && status != 429)
		set_answer(probe, true, true, mem_printf("the address itself answers with HTTP status %d", status), NULL);
	else if (status == 429 || status >= 500)
		set_answer(probe, true, false, answer_text(response), "The service is there, but cannot serve at the moment. Try again later.");
	else if (status == 404)
		set_answer(probe, true, false, answer_text(response),
				   mem_printf("Could not find %s. Correct base_url and options of the connection.", rule->what));
	else
		set_answer(probe, true, false, answer_text(response), "Is base_url the address of the service?");
}
