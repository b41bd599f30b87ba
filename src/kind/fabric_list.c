/*-------------------------------------------------------------------------
 * fabric_list.c
 *	  The job instances of a Fabric item
 *
 * Runs in the conductor.  A start in Fabric has no idempotency key and its
 * instance carries no mark of ours.  So the instances are listed before the
 * start: the newest start time, by Fabric's own clock, and the ids that could
 * be mistaken for a later one are committed with the intent.  When the
 * answer to the start is lost, or names no instance, the list is read again:
 * what was started by hand (invokeType Manual, as all starts through the API
 * are) for this job type after that is ours, unless it is another attempt's.
 * If there are several, or another attempt may have begun the one there is,
 * nobody can say which, and a person decides.  Attempts begin one after the
 * other at an item (TaskKind.start_place), so that this is rare.
 *
 * kind_state: start_place, newest_ms, earlier (ids); list_token, list_pages,
 * candidates (ids); settle_from_ms, settled, start_due_ms, starts, accepted.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "fabric_int.h"

#define MAX_PAGES		20
#define MAX_EARLIER		200
#define MAX_CANDIDATES	5
#define DEFAULT_SETTLE_SECONDS	30
/* A START is sent, or given up, within this time of when it was due */
#define START_SPAN_MS	((int64) 15 * 60000)

bool
fabric_is_terminal(const char *status)
{
	return strcasecmp(status, "Completed") == 0 || strcasecmp(status, "Failed") == 0 ||
		strcasecmp(status, "Cancelled") == 0 || strcasecmp(status, "Canceled") == 0 ||
		strcasecmp(status, "Deduped") == 0;
}

static int64
settle_ms(const KindCall *call)
{
	double		seconds = DEFAULT_SETTLE_SECONDS;

	(void) json_double(kind_member(call->options, "settle_seconds"), &seconds);
	return seconds >= 0 && seconds <= 86400 ? (int64) (seconds * 1000) : DEFAULT_SETTLE_SECONDS * 1000;
}

/* Instances are of an item; what else tells them apart, such as the job type, is not always shown. */
char *
fabric_start_place(const KindCall *call, int64 *lag_ms)
{
	const char *item = kind_string(call->spec, "item");

	*lag_ms = settle_ms(call);
	return fabric_is_call(call->spec) || item == NULL ? NULL : kind_start_place("fabric_item", item);
}

void
fabric_mark_place(const KindCall *call, KindVerdict *verdict)
{
	int64		lag_ms;
	char	   *place = fabric_start_place(call, &lag_ms);

	if (place != NULL)
		kind_state_set_string(call, verdict, "start_place", place);
}

void
fabric_list_request(const KindCall *call, KindRequest *request)
{
	const char *token = kind_state_string(call, "list_token");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_addstr(&url, fabric_jobs_url(call, "/instances"));
	if (token != NULL)
	{
		strbuf_addstr(&url, "?continuationToken=");
		kind_url_encode(&url, token);
	}
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
}

/* The list of a page, or NULL with a verdict; the tree goes with *body */
static const cJSON *
read_page(const KindCall *call, const KindResponse *response, int max_tries, cJSON **body, KindVerdict *verdict)
{
	*body = NULL;
	if (kind_common_response(call, response, false, true, max_tries, verdict))
		return NULL;
	if (response->http_status == 400 && kind_state_string(call, "list_token") != NULL && call->step_tries < max_tries)
	{
		/* the token went stale: from the first page again */
		kind_state_drop(call, verdict, "list_token");
		kind_state_drop(call, verdict, "list_pages");
		kind_continue(verdict, call->step, kind_retry_delay(call, -1));
		return NULL;
	}
	if (response->http_status != 200)
	{
		kind_fail_status(call, response, verdict);
		return NULL;
	}
	*body = kind_parse_object(response);
	if (cJSON_IsArray(kind_member(*body, "value")))
		return kind_member(*body, "value");
	kind_bad_answer(call, response, "lists no job instances", false, true, max_tries, verdict);
	return NULL;
}

/* Another page?  Then the verdict asks for it. */
static bool
next_page(const KindCall *call, const cJSON *body, KindVerdict *verdict)
{
	const char *token = kind_string(body, "continuationToken");
	int64		pages = kind_state_int64(call, "list_pages", 0) + 1;

	if (token == NULL || strlen(token) > 4000 || pages >= MAX_PAGES)
	{
		kind_state_drop(call, verdict, "list_token");
		kind_state_drop(call, verdict, "list_pages");
		return false;
	}
	kind_state_set_string(call, verdict, "list_token", token);
	kind_state_set_int64(call, verdict, "list_pages", pages);
	verdict->reset_tries = true;
	kind_continue(verdict, call->step, 0);
	return true;
}

static cJSON *
state_array(const KindCall *call, const char *name)
{
	cJSON	   *array = cJSON_GetObjectItemCaseSensitive(call->kind_state, name);

	if (cJSON_IsArray(array))
		return array;
	cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, name);
	return cJSON_AddArrayToObject(call->kind_state, name);
}

static void
add_id(cJSON *array, const char *id, int limit)
{
	if (cJSON_GetArraySize(array) < limit)
		cJSON_AddItemToArray(array, cJSON_CreateString(id));
}

static bool
has_id(const cJSON *array, const char *id)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, array)
	{
		if (cJSON_IsString(item) && strcasecmp(item->valuestring, id) == 0)
			return true;
	}
	return false;
}

/*
 * Ids are kept of those that have not ended (they may get a later start time
 * than the newest one has) and of those that began last.
 */
static void
note_earlier(KindCall *call, const cJSON *instances, KindVerdict *verdict)
{
	cJSON	   *earlier = state_array(call, "earlier");
	int64		newest = kind_state_int64(call, "newest_ms", 0);
	int64		start;
	const cJSON *one;

	cJSON_ArrayForEach(one, instances)
		if (kind_time_parse(kind_string(one, "startTimeUtc"), &start))
		newest = Max(newest, start);
	cJSON_ArrayForEach(one, instances)
	{
		char	   *id = kind_id(one, "id");
		const char *status = kind_string(one, "status");

		if (id == NULL || has_id(earlier, id))
			continue;
		if (status == NULL || !fabric_is_terminal(status) ||
			(kind_time_parse(kind_string(one, "startTimeUtc"), &start) && start + 1000 >= newest))
			add_id(earlier, id, MAX_EARLIER);
		mem_free(id);
	}
	kind_state_set_int64(call, verdict, "newest_ms", newest);
}

void
fabric_prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	cJSON	   *body;
	const cJSON *instances = read_page(call, response, KIND_LOOK_TRIES, &body, verdict);

	if (instances == NULL)
		return;
	note_earlier(call, instances, verdict);
	if (!next_page(call, body, verdict))
	{
		/* of a start that somebody decided to send again */
		kind_state_drop(call, verdict, "accepted");
		kind_state_drop(call, verdict, "settled");
		kind_state_drop(call, verdict, "settle_from_ms");
		fabric_mark_place(call, verdict);
		kind_state_set_int64(call, verdict, "start_due_ms", call->now_ms);
		kind_continue(verdict, KIND_STEP_START, 0);
	}
	cJSON_Delete(body);
}

static bool
may_be_ours(const KindCall *call, const cJSON *one, const char *id)
{
	const char *how = kind_string(one, "invokeType");
	const char *type = kind_string(one, "jobType");
	int64		start;

	if (has_id(kind_state_get(call, "earlier"), id) || kind_is_listed(call->taken, id))
		return false;
	if (how != NULL && strcasecmp(how, "Manual") != 0)
		return false;
	if (type != NULL && strcasecmp(type, kind_string(call->spec, "job_type")) != 0)
		return false;
	/* one that has not begun has no time, or a very early one */
	if (kind_time_parse(kind_string(one, "startTimeUtc"), &start))
		return start >= kind_state_int64(call, "newest_ms", 0);
	return kind_string(one, "status") != NULL && !fabric_is_terminal(kind_string(one, "status"));
}

/*
 * Is this the list that counts?  It is one whose reading began long enough
 * after START can have been sent; else the verdict is to read it again.
 */
static bool
is_settled(const KindCall *call, KindVerdict *verdict)
{
	int64		settle = settle_ms(call);
	int64		from = kind_state_int64(call, "settle_from_ms", -1);
	int64		left;

	if (kind_state_bool(call, "settled"))
		return true;
	verdict->reset_tries = true;
	if (from < 0)
	{
		/* a crash: START was sent some time after it was due and before now */
		from = kind_state_int64(call, "start_due_ms", call->intended_at_ms);
		from = Min(from + START_SPAN_MS, call->now_ms);
		kind_state_set_int64(call, verdict, "settle_from_ms", from);
	}
	left = from + settle - call->now_ms;
	if (left <= 0)
		kind_state_set(call, verdict, "settled", cJSON_CreateTrue());
	kind_continue(verdict, KIND_STEP_LOOKUP, left <= 0 ? 0 : Min(Max(Min(settle / 10, 5000), 100), left));
	return false;
}

/* The list that counts has nothing of ours */
static void
not_found(KindCall *call, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);

	verdict->reset_tries = true;
	if (kind_state_bool(call, "accepted"))
	{
		kind_fail_unknown(verdict, "Fabric accepted the job but named no instance, and none is in the list of the item; look at the item before the task is run again");
		return;
	}
	kind_state_drop(call, verdict, "settled");
	kind_state_drop(call, verdict, "settle_from_ms");
	kind_state_drop(call, verdict, "maybe_started");
	if (starts >= KIND_MAX_STARTS)
	{
		kind_state_drop(call, verdict, "start_place");
		kind_fail(verdict, false, true, "no_answer",
				  mem_printf("the start was sent %d times, was not answered and started nothing", KIND_MAX_STARTS));
		return;
	}
	kind_state_set_int64(call, verdict, "starts", starts + 1);
	kind_state_set_int64(call, verdict, "start_due_ms", call->now_ms);
	kind_continue(verdict, KIND_STEP_START, 0);
}

/* Nobody can say which is ours, or whether the only one is */
static void
cannot_tell(const cJSON *candidates, KindVerdict *verdict)
{
	const cJSON *item;
	StrBuf		ids;

	strbuf_init(&ids);
	cJSON_ArrayForEach(item, candidates)
		strbuf_printf(&ids, "%s%s", ids.len > 0 ? ", " : "", item->valuestring);
	if (cJSON_GetArraySize(candidates) == 1)
		kind_fail_unknown(verdict, mem_printf("the answer to the start was lost, and job %s of this item, which was started since, may be of another attempt whose answer was lost; look whose it is before the task is run again",
											  ids.data));
	else
		kind_fail_unknown(verdict, mem_printf("the answer to the start was lost and several jobs of this item were started since: %s; look which is this task's before it is run again",
											  ids.data));
}

/* Has another attempt got one of them since it was noted? */
static bool
any_is_taken(const KindCall *call, const cJSON *candidates)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, candidates)
	{
		if (kind_is_listed(call->taken, item->valuestring))
			return true;
	}
	return false;
}

/* All pages were read */
static void
decide(KindCall *call, const cJSON *candidates, KindVerdict *verdict, char **found)
{
	bool		named = kind_state_bool(call, "accepted");

	/* an accepted start is there; another one may be, so several are not decided early either */
	if (!(named && candidates->child != NULL) && !is_settled(call, verdict))
		return;
	if (any_is_taken(call, candidates))
	{
		/* not all were noted, perhaps: the list is read again */
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_LOOKUP, 0);
	}
	else if (candidates->child == NULL)
		not_found(call, verdict);
	else if (candidates->child->next == NULL && call->n_unknown == 0)
		*found = mem_strdup(candidates->child->valuestring);
	else
		cannot_tell(candidates, verdict);
}

void
fabric_lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict, char **found)
{
	cJSON	   *body;
	const cJSON *instances = read_page(call, response, KIND_POLL_TRIES, &body, verdict);
	cJSON	   *candidates;
	const cJSON *one;

	*found = NULL;
	if (instances == NULL)
		return;
	candidates = state_array(call, "candidates");
	cJSON_ArrayForEach(one, instances)
	{
		char	   *id = kind_id(one, "id");

		if (id != NULL && may_be_ours(call, one, id) && !has_id(candidates, id))
			add_id(candidates, id, MAX_CANDIDATES);
	}
	verdict->state_changed = true;
	if (!next_page(call, body, verdict))
	{
		decide(call, candidates, verdict, found);
		kind_state_drop(call, verdict, "candidates");
	}
	cJSON_Delete(body);
}
