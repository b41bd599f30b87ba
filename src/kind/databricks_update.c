/*-------------------------------------------------------------------------
 * databricks_update.c
 *	  Updates of a Lakeflow pipeline: which one is ours
 *
 * Runs in the conductor.  A pipeline has one active update at a time and takes
 * no token.  So what is there is looked at before an update is started and
 * after its answer was lost, and ours is the one that was not there before and
 * is of the shape that was asked for.  What becomes of it is in
 * databricks_pipeline.c.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define MAX_REFUSALS	20

static const char *const flags[] = {DATABRICKS_UPDATE_FLAGS};
static const char *const selections[] = {DATABRICKS_UPDATE_SELECTIONS};

/* A closed list: what is not on it goes on */
bool
databricks_update_is_ended(const cJSON *update)
{
	const char *state = kind_string(update, "state");

	return state != NULL && (strcmp(state, "COMPLETED") == 0 || strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELED") == 0);
}

/* Is there the same in the spec and in the update?  Absent is empty. */
static bool
same_selection(const cJSON *one, const cJSON *other)
{
	const cJSON *a;
	const cJSON *b;

	if (cJSON_GetArraySize(one) != cJSON_GetArraySize(other))
		return false;
	cJSON_ArrayForEach(a, one)
	{
		bool		found = false;

		cJSON_ArrayForEach(b, other)
			found |= cJSON_Compare(a, b, true);
		if (!found)
			return false;
	}
	return true;
}

static bool
is_of_our_shape(const KindCall *call, const cJSON *update)
{
	const char *cause = kind_string(update, "cause");

	if (cause != NULL && strcmp(cause, "API_CALL") != 0)
		return false;
	for (size_t i = 0; i < lengthof(flags); i++)
	{
		if (cJSON_IsTrue(kind_member(update, flags[i])) != cJSON_IsTrue(kind_member(call->spec, flags[i])))
			return false;
	}
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		if (!same_selection(kind_member(call->spec, selections[i]), kind_member(update, selections[i])))
			return false;
	}
	return true;
}

void
databricks_update_link(KindCall *call, const char *update_id, KindVerdict *verdict)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/#joblist/pipelines/", call->base_url);
	kind_url_encode(&url, kind_string(call->spec, "pipeline_id"));
	strbuf_addstr(&url, "/updates/");
	kind_url_encode(&url, update_id);
	kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	verdict->external_url = kind_link(cJSON_CreateString(url.data));
}

/* From here on there is an update, or another one took its place */
void
databricks_update_follow(KindCall *call, const char *update_id, KindVerdict *verdict)
{
	/* it may be part of what is dropped below */
	update_id = mem_strdup(update_id);
	databricks_update_link(call, update_id, verdict);
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	kind_state_drop(call, verdict, "stage");
	kind_state_drop(call, verdict, "candidate");
	kind_state_drop(call, verdict, "failed_ms");
	kind_state_drop(call, verdict, "created_ms");
	verdict->external_run_id = update_id;
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

/* The earlier attempt's update, if it goes on or ended well */
static const char *
earlier_update(const KindCall *call, const cJSON *list)
{
	const char *earlier = kind_string(call->reference, "external_run_id");
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		char	   *id = kind_id(item, "update_id");
		const char *state = kind_string(item, "state");

		if (earlier != NULL && id != NULL && state != NULL && strcmp(id, earlier) == 0 &&
			(!databricks_update_is_ended(item) || strcmp(state, "COMPLETED") == 0))
			return id;
	}
	return NULL;
}

/* The first update after the one that PREPARE saw that can be ours, or NULL; the list is newest first */
static const char *
begun_update(const KindCall *call, const cJSON *list)
{
	const char *before = kind_state_string(call, "before");
	int64		before_ms = kind_state_int64(call, "before_ms", 0);
	const cJSON *item;
	const char *found = NULL;

	if (!cJSON_IsArray(list))
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		char	   *id = kind_id(item, "update_id");

		if (id == NULL || (before != NULL && strcmp(id, before) == 0) ||
			kind_int64(item, "creation_time", INT64_MAX) < before_ms)
			break;
		if (is_of_our_shape(call, item))
			found = id;
	}
	return found;
}

void
databricks_update_prepared(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *body;
	const cJSON *list;
	const cJSON *newest;
	const char *when = kind_string(call->spec, "when_active");
	const char *earlier;
	char	   *id;

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	body = databricks_read_object(call, response, "lists no updates", KIND_LOOK_TRIES, verdict);
	if (body == NULL)
		return;
	list = kind_member(body, "updates");
	newest = cJSON_IsArray(list) ? list->child : NULL;
	id = kind_id(newest, "update_id");
	earlier = earlier_update(call, cJSON_IsArray(list) ? list : NULL);
	/* a START that was given up for lost may show up after all */
	if (earlier == NULL && kind_state_get(call, "before_ms") != NULL)
		earlier = begun_update(call, list);
	if (earlier != NULL)
		databricks_update_follow(call, earlier, verdict);
	else if (id != NULL && !databricks_update_is_ended(newest))
	{
		if (when != NULL && strcmp(when, "fail") == 0)
		{
			kind_fail(verdict, false, true, "update_active",
					  mem_printf("update %s of the pipeline is active", id));
			return;
		}
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_PREPARE, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
	}
	else
	{
		kind_state_drop(call, verdict, "maybe_started");
		kind_state_set_string(call, verdict, "before", id ? id : "");
		kind_state_set_int64(call, verdict, "before_ms", kind_int64(newest, "creation_time", 0));
		kind_continue(verdict, KIND_STEP_START, 0);
	}
}

void
databricks_update_started(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		refusals = kind_state_int64(call, "refusals", 0);
	char	   *code;
	char	   *message;
	char	   *id;

	if (databricks_common_response(call, response, true, false, KIND_START_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_body_error(response, &code, &message);
		if (refusals >= MAX_REFUSALS ||
			(response->http_status != 409 && strstr(message, "active update") == NULL))
		{
			kind_fail_status(call, response, verdict);
			return;
		}
		/* another update is active; if an earlier START was lost, it may be that one */
		kind_state_set_int64(call, verdict, "refusals", refusals + 1);
		if (kind_state_bool(call, "maybe_started") || kind_state_int64(call, "starts", 0) > 0)
		{
			kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, response->retry_after_ms));
			return;
		}
		/* nothing of ours can have begun: the next update seen is not taken for it */
		kind_state_drop(call, verdict, "before");
		kind_state_drop(call, verdict, "before_ms");
		kind_continue(verdict, KIND_STEP_PREPARE, kind_retry_delay(call, response->retry_after_ms));
		return;
	}
	id = kind_id(kind_parse_object(response), "update_id");
	if (id != NULL)
		databricks_update_follow(call, id, verdict);
	else
		kind_bad_answer(call, response, "names no update", true, false, KIND_START_TRIES, verdict);
}

void
databricks_update_looked_up(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);
	int64		since;
	const cJSON *body;
	const char *id;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	body = databricks_read_object(call, response, "lists no updates", KIND_POLL_TRIES, verdict);
	if (body == NULL)
		return;
	id = begun_update(call, kind_member(body, "updates"));
	since = kind_state_int64(call, "looking_since_ms", -1);
	if (id != NULL)
		databricks_update_follow(call, id, verdict);
	else if (since < 0)
	{
		kind_state_set_int64(call, verdict, "looking_since_ms", call->now_ms);
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
	}
	else if (call->now_ms < since + databricks_settle_ms(call, UPDATE_SETTLE_SECONDS))
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
	else if (starts >= KIND_MAX_STARTS)
		kind_fail_unknown(verdict, mem_printf("an update was asked for %d times and never answered; look at the updates of the pipeline before it is started again",
											  KIND_MAX_STARTS));
	else
	{
		kind_state_drop(call, verdict, "looking_since_ms");
		kind_state_set_int64(call, verdict, "starts", starts + 1);
		kind_continue(verdict, KIND_STEP_PREPARE, 0);
	}
}
