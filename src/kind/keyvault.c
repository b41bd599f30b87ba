/*-------------------------------------------------------------------------
 * keyvault.c
 *	  Kind keyvault: are the secrets there and not about to expire, and a new
 *	  version of one from a secret of weir's
 *
 * Runs in the conductor, and for specs in sessions that define pipelines.
 * Facts about a secret come from the list of its versions, which has no
 * values.  The value of a new version is put into the request when it is sent
 * (KindRequest.secret); what the vault says back of it is neither read nor
 * shown.
 *
 * Setting is not repeatable, each time makes a version.  So the version is
 * tagged with the token of the attempt, and after a crash or a lost answer
 * LOOKUP searches the versions for it before anything is sent again.  Where the
 * versions may not be listed, or are too many, the newest one settles it: it is
 * ours, or it is older than the attempt, and then ours was never made.  Only
 * that look-up is answered with a value, which is not read either.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "keyvault_int.h"
#include "retry.h"

#define DAY_MS			INT64_C(86400000)
#define MAX_LISTED		1000
#define MAX_PAGES		200
#define TRIES			20
#define CLOCKS_MS		300000		/* by which ours and the vault's may differ */
#define DEFAULT_DAYS	30

static void
keyvault_validate(const cJSON *spec, KindProblem *problem)
{
	(void) keyvault_check_spec(spec, problem);
}

/* --- requests ------------------------------------------------------------------ */

/* The secret that is being looked at; NULL when all are listed */
static const char *
current_name(const KindCall *call)
{
	if (keyvault_is(call->spec, "check"))
		return json_string(cJSON_GetArrayItem(kind_member(call->spec, "secrets"), (int) kind_int64(call->scratch, "i", 0)));
	return kind_string(call->spec, "name");
}

static char *
build_url(const KindCall *call, const char *rest)
{
	const char *name = current_name(call);
	const char *version = kind_string(call->options, "api_version");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/secrets%s", call->base_url, name ? "/" : "");
	/* checked, and encoded all the same */
	kind_url_encode(&url, name ? name : "");
	strbuf_printf(&url, "%s?api-version=%s", rest, version ? version : KEYVAULT_API_VERSION);
	return url.data;
}

/* Length of the host in a URL, which begins at *host */
static size_t
host_of(const char *url, const char **host)
{
	const char *start = strstr(url, "://");

	*host = start ? start + 3 : url;
	return strcspn(*host, ":/?#");
}

/* The next page of a list: on the same host, below the same path; else NULL */
static char *
follow_link(const char *base_url, const char *link)
{
	const char *base_host;
	const char *link_host;
	size_t		len = host_of(base_url, &base_host);
	const char *base_path;
	const char *link_path;

	if (host_of(link, &link_host) != len || strncmp(base_host, link_host, len) != 0 || strchr(link, '#') != NULL)
		return NULL;
	base_path = base_host + strcspn(base_host, "/?#");
	link_path = link_host + strcspn(link_host, "/?#");
	if (strncmp(base_path, link_path, strlen(base_path)) != 0 || link_path[strlen(base_path)] != '/' || strstr(link_path, "/../") != NULL)
		return NULL;
	return mem_printf("%.*s%s", (int) (base_path - base_url), base_url, link_path);
}

static void
set_request(const KindCall *call, KindRequest *request)
{
	const cJSON *tags = kind_member(call->spec, "tags");
	const char *type = kind_string(call->spec, "content_type");
	int64		days = kind_int64(call->spec, "expires_in_days", 0);
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *all_tags = cJSON_IsObject(tags) ? cJSON_Duplicate(tags, true) : cJSON_CreateObject();

	cJSON_AddStringToObject(all_tags, KEYVAULT_TOKEN_TAG, call->token);
	cJSON_AddItemToObject(body, "tags", all_tags);
	if (type != NULL)
		cJSON_AddStringToObject(body, "contentType", type);
	if (days > 0)
		cJSON_AddItemToObject(cJSON_AddObjectToObject(body, "attributes"), "exp",
							  json_from_int64((call->now_ms + days * DAY_MS) / 1000));
	request->method = "PUT";
	request->url = build_url(call, "");
	request->body = json_text(body);
	request->content_type = "application/json";
	request->secret = kind_string(call->spec, "from_secret");
	request->starts_work = true;
}

/* LOOKUP, and the list is of no use */
static bool
looks_at_newest(const KindCall *call)
{
	return call->step == KIND_STEP_LOOKUP && kind_member(call->scratch, "newest_only") != NULL;
}

static bool
keyvault_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *link = kind_string(call->scratch, "next");

	if (!keyvault_check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (call->step == KIND_STEP_START && keyvault_is(call->spec, "set"))
	{
		set_request(call, request);
		return true;
	}
	request->method = "GET";
	request->is_repeatable = true;
	if (looks_at_newest(call))
		request->url = build_url(call, "");
	else
		request->url = link ? mem_strdup(link) : build_url(call, current_name(call) ? "/versions" : "");
	return true;
}

static KindStep
keyvault_first_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_START;
}

static KindStep
keyvault_resume_step(const KindCall *call)
{
	return keyvault_is(call->spec, "set") ? KIND_STEP_LOOKUP : KIND_STEP_START;
}

/* --- answers ------------------------------------------------------------------- */

static void
scratch_set(const KindCall *call, const char *name, cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, name);
	if (value != NULL)
		cJSON_AddItemToObject(call->scratch, name, value);
}

static cJSON *
scratch_array(const KindCall *call, const char *name)
{
	cJSON	   *array = cJSON_GetObjectItemCaseSensitive(call->scratch, name);

	return array ? array : cJSON_AddArrayToObject(call->scratch, name);
}

/* ".../secrets/NAME/VERSION": what follows "/secrets/" */
static char *
name_in_id(const cJSON *item, char **version)
{
	const char *id = kind_string(item, "id");
	const char *start = id ? strstr(id, "/secrets/") : NULL;
	size_t		len;

	*version = NULL;
	if (start == NULL)
		return NULL;
	start += strlen("/secrets/");
	len = strcspn(start, "/?#");
	if (start[len] == '/' && start[len + 1] != '\0')
		*version = kind_clean_text(start + len + 1, strcspn(start + len + 1, "/?#"), 64);
	return kind_clean_text(start, len, 127);
}

static bool
is_enabled(const cJSON *item)
{
	return !cJSON_IsFalse(json_get(item, "attributes.enabled"));
}

static int64
attribute(const cJSON *item, const char *name)
{
	return kind_int64(kind_member(item, "attributes"), name, -1);
}

/* What may be shown of a version; times are texts */
static cJSON *
facts_of(const KindCall *call, const cJSON *item)
{
	static const char *const times[][2] = {{"created", "created"}, {"updated", "updated"}, {"nbf", "not_before"}, {"exp", "expires"}};
	cJSON	   *facts = cJSON_CreateObject();
	char	   *version;
	char	   *name = name_in_id(item, &version);
	const char *type = kind_string(item, "contentType");

	cJSON_AddStringToObject(facts, "name", name ? name : "");
	if (version != NULL)
		cJSON_AddStringToObject(facts, "version", version);
	cJSON_AddBoolToObject(facts, "enabled", is_enabled(item));
	if (type != NULL)
		cJSON_AddStringToObject(facts, "content_type", kind_clean_text(type, strlen(type), 255));
	for (size_t i = 0; i < lengthof(times); i++)
	{
		int64		seconds = attribute(item, times[i][0]);
		char	   *text = seconds >= 0 && seconds < INT64_C(253402300800) ? kind_time_text(seconds * 1000) : NULL;

		if (text != NULL)
			cJSON_AddStringToObject(facts, times[i][1], text);
	}
	if (attribute(item, "exp") >= 0)
		cJSON_AddItemToObject(facts, "days_left", json_from_int64((attribute(item, "exp") * 1000 - call->now_ms) / DAY_MS));
	return facts;
}

/* What is wrong with a secret, in one word; NULL: nothing */
static const char *
problem_of(const KindCall *call, const cJSON *newest)
{
	int64		days = kind_int64(call->spec, "expires_within_days", DEFAULT_DAYS);
	int64		expires = newest ? attribute(newest, "exp") : -1;

	if (newest == NULL)
		return "missing";
	if (!is_enabled(newest))
		return "disabled";
	if (expires >= 0 && expires * 1000 <= call->now_ms)
		return "expired";
	if (expires >= 0 && expires * 1000 <= call->now_ms + days * DAY_MS)
		return "expiring";
	return expires < 0 && cJSON_IsTrue(kind_member(call->spec, "must_expire")) ? "never_expires" : NULL;
}

/* All secrets were looked at: say what is wrong with which */
static void
finish_check(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *secrets = scratch_array(call, "secrets");
	cJSON	   *output = cJSON_CreateObject();
	const cJSON *secret;
	StrBuf		message;
	int			bad = 0;

	strbuf_init(&message);
	cJSON_ArrayForEach(secret, secrets)
	{
		const char *problem = kind_string(secret, "problem");

		if (problem == NULL)
			continue;
		strbuf_printf(&message, "%s%s is %s", bad++ > 0 ? ", " : "", kind_string(secret, "name"),
					  strcmp(problem, "never_expires") == 0 ? "without an end" : problem);
	}
	cJSON_AddNumberToObject(output, "count", cJSON_GetArraySize(secrets));
	cJSON_AddNumberToObject(output, "problems", bad);
	cJSON_AddItemToObject(output, "secrets", cJSON_Duplicate(secrets, true));
	verdict->output = output;
	verdict->outcome = KIND_SUCCEEDED;
	if (bad > 0 && !cJSON_IsTrue(kind_member(call->spec, "report_only")))
		kind_fail(verdict, true, false, "secrets_not_fit", message.data);
}

/* The versions of one secret are complete */
static void
finish_versions(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *newest = kind_member(call->scratch, "newest");
	const char *name = current_name(call);
	cJSON	   *facts = newest ? facts_of(call, newest) : cJSON_CreateObject();
	const char *problem;
	int64		i = kind_int64(call->scratch, "i", 0) + 1;

	if (!keyvault_is(call->spec, "check"))
	{
		if (newest == NULL)
			kind_fail(verdict, true, false, "SecretNotFound", mem_printf("there is no secret \"%s\" in the vault", name));
		else
		{
			verdict->outcome = KIND_SUCCEEDED;
			verdict->output = facts;
		}
		return;
	}
	problem = problem_of(call, newest);
	if (newest == NULL)
		cJSON_AddStringToObject(facts, "name", name);
	if (problem != NULL)
		cJSON_AddStringToObject(facts, "problem", problem);
	cJSON_AddItemToArray(scratch_array(call, "secrets"), facts);
	scratch_set(call, "newest", NULL);
	scratch_set(call, "pages", NULL);
	scratch_set(call, "i", json_from_int64(i));
	if (i >= cJSON_GetArraySize(kind_member(call->spec, "secrets")))
		finish_check(call, verdict);
	else
	{
		kind_continue(verdict, KIND_STEP_START, 0);
		verdict->reset_tries = true;
	}
}

static void
finish_list(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *secrets = scratch_array(call, "secrets");
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddNumberToObject(output, "count", cJSON_GetArraySize(secrets));
	cJSON_AddItemToObject(output, "secrets", cJSON_Duplicate(secrets, true));
	if (kind_member(call->scratch, "truncated") != NULL)
		cJSON_AddTrueToObject(output, "truncated");
	verdict->output = output;
	verdict->outcome = KIND_SUCCEEDED;
}

static void
set_done(const KindCall *call, const cJSON *item, KindVerdict *verdict)
{
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = facts_of(call, item);
	verdict->rows_written = -1;
}

/* One entry of a page; true: it is what LOOKUP looks for */
static bool
read_entry(const KindCall *call, const cJSON *item, KindVerdict *verdict)
{
	const char *token = kind_string(kind_member(item, "tags"), KEYVAULT_TOKEN_TAG);
	const cJSON *newest = kind_member(call->scratch, "newest");
	cJSON	   *secrets;

	if (call->step == KIND_STEP_LOOKUP)
	{
		if (token == NULL || call->token == NULL || strcmp(token, call->token) != 0)
			return false;
		set_done(call, item, verdict);
		return true;
	}
	if (current_name(call) != NULL)
	{
		if (newest == NULL || attribute(item, "created") > attribute(newest, "created"))
			scratch_set(call, "newest", cJSON_Duplicate(item, true));
		return false;
	}
	secrets = scratch_array(call, "secrets");
	if (cJSON_GetArraySize(secrets) < MAX_LISTED)
		cJSON_AddItemToArray(secrets, facts_of(call, item));
	else
		scratch_set(call, "truncated", cJSON_CreateTrue());
	return false;
}

static void
look_at_newest(const KindCall *call, KindVerdict *verdict)
{
	scratch_set(call, "next", NULL);
	scratch_set(call, "newest_only", cJSON_CreateTrue());
	kind_continue(verdict, KIND_STEP_LOOKUP, 0);
	verdict->reset_tries = true;
}

/* LOOKUP: what was sent did not arrive */
static void
set_again(const KindCall *call, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);

	kind_state_drop(call, verdict, "maybe_started");
	scratch_set(call, "pages", NULL);
	scratch_set(call, "newest_only", NULL);
	kind_state_set_int64(call, verdict, "starts", starts + 1);
	if (starts < KIND_MAX_STARTS)
		kind_continue(verdict, KIND_STEP_START, 0);
	else
		kind_fail(verdict, false, true, "no_answer",
				  mem_printf("the version was sent %d times, was not answered and is not there", KIND_MAX_STARTS + 1));
}

static void
fail_unsettled(const KindCall *call, const char *why, KindVerdict *verdict)
{
	kind_fail_unknown(verdict, mem_printf("%s: whether a version of secret \"%s\" has the tag " KEYVAULT_TOKEN_TAG " = %s is not known",
										  why, current_name(call), call->token ? call->token : ""));
}

/* How far ahead our clock is, by the Date of an answer; 0 if it has none that can be read */
static int64
clock_ahead_ms(const KindCall *call, const KindResponse *response)
{
	const char *date = kind_header(response, "Date");
	int64		theirs;

	return date != NULL && retry_http_date(date, call->now_ms / 1000, &theirs) ? call->now_ms - theirs * 1000 : 0;
}

static void
newest_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *body;
	int64		created;
	int64		ahead_ms = clock_ahead_ms(call, response);

	if (kind_common_response(call, response, false, true, TRIES, verdict))
		return;
	if (response->http_status == 404)
	{
		set_again(call, verdict);
		return;
	}
	if (response->http_status != 200)
	{
		fail_unsettled(call, response->http_status == 403 ? "the connection's identity may neither list nor get the secret" :
					   mem_printf("HTTP %d", response->http_status), verdict);
		return;
	}
	body = kind_parse_object(response);
	created = attribute(body, "created");
	if (kind_string(body, "id") == NULL || created < 0)
		kind_unanswered(call, response->retry_after_ms, true, false, true, TRIES, "bad_answer",
						"HTTP 200, but the answer names no version", verdict);
	else if (!read_entry(call, body, verdict))
	{
		/* what was when cannot be told by clocks that disagree */
		if (ahead_ms < -CLOCKS_MS || ahead_ms > CLOCKS_MS)
			fail_unsettled(call, mem_printf("its versions cannot all be listed, and the clock of the database server is %lld minutes %s that of the key vault",
											(long long) ((ahead_ms < 0 ? -ahead_ms : ahead_ms) + 30000) / 60000, ahead_ms < 0 ? "behind" : "ahead of"), verdict);
		else if (created < (call->intended_at_ms - CLOCKS_MS) / 1000)
			set_again(call, verdict);
		else
			fail_unsettled(call, "somebody else has set the secret meanwhile, and its versions cannot all be listed", verdict);
	}
	cJSON_Delete(body);
}

static void
page_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		pages = kind_int64(call->scratch, "pages", 0) + 1;
	cJSON	   *body = response->http_status == 200 ? kind_parse_object(response) : NULL;
	const cJSON *values = kind_member(body, "value");
	const char *link = kind_string(body, "nextLink");
	char	   *next = link ? follow_link(call->base_url, link) : NULL;
	const cJSON *item;

	if (kind_common_response(call, response, false, true, TRIES, verdict))
		return;
	scratch_set(call, "next", NULL);
	if (response->http_status == 403 && call->step == KIND_STEP_LOOKUP)
	{
		look_at_newest(call, verdict);
		return;
	}
	if (response->http_status != 200 && !(response->http_status == 404 && current_name(call) != NULL))
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	if (response->http_status == 200 && (body == NULL || (values != NULL && !cJSON_IsArray(values)) || (link != NULL && next == NULL)))
	{
		kind_bad_answer(call, response, link != NULL && next == NULL ? "continues on another host" : "is no list of secrets",
						false, true, TRIES, verdict);
		return;
	}
	cJSON_ArrayForEach(item, values)
	{
		if (read_entry(call, item, verdict))
			return;
	}
	if (next != NULL && pages < MAX_PAGES && kind_member(call->scratch, "truncated") == NULL)
	{
		scratch_set(call, "next", cJSON_CreateString(next));
		scratch_set(call, "pages", json_from_int64(pages));
		kind_continue(verdict, call->step, 0);
		verdict->reset_tries = true;
	}
	else if (call->step == KIND_STEP_LOOKUP && next != NULL)
		look_at_newest(call, verdict);
	else if (call->step == KIND_STEP_LOOKUP)
		set_again(call, verdict);
	else if (current_name(call) != NULL)
		finish_versions(call, verdict);
	else
		finish_list(call, verdict);
}

/* The answer repeats the value: nothing of it is shown but what facts_of takes */
static void
set_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *body;

	if (kind_common_response(call, response, true, false, TRIES, verdict))
		return;
	if (response->http_status != 200)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	body = kind_parse_object(response);
	if (kind_string(body, "id") != NULL)
		set_done(call, body, verdict);
	else
		kind_unanswered(call, response->retry_after_ms, true, true, false, TRIES, "bad_answer",
						"HTTP 200, but the answer names no version", verdict);
	cJSON_Delete(body);
}

static void
keyvault_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (call->step == KIND_STEP_START && keyvault_is(call->spec, "set"))
		set_response(call, response, verdict);
	else if (looks_at_newest(call))
		newest_response(call, response, verdict);
	else
		page_response(call, response, verdict);
}

static void
keyvault_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	if (keyvault_is(call->spec, "set") && (is_sent || kind_state_bool(call, "maybe_started")))
	{
		kind_fail_unknown(verdict, mem_printf("given up before it was answered: secret \"%s\" may have a new version, with tag " KEYVAULT_TOKEN_TAG " = %s",
											  current_name(call), call->token ? call->token : ""));
		return;
	}
	kind_fail(verdict, false, true, "cancelled", "given up");
	verdict->outcome = KIND_CANCELLED;
}

const TaskKind kind_keyvault = {
	.name = "keyvault",
	.connection_kind = "keyvault",
	.is_http = true,
	.validate = keyvault_validate,
	.first_step = keyvault_first_step,
	.resume_step = keyvault_resume_step,
	.request = keyvault_request,
	.response = keyvault_response,
	.abandon = keyvault_abandon,
};
