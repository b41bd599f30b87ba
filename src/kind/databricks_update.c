/*-------------------------------------------------------------------------
 * databricks_update.c
 *	  Updates of a Lakeflow pipeline: which one is ours
 *
 * Runs in the conductor.  A pipeline has one active update at a time and takes
 * no token.  So what is there is looked at before an update is started and
 * after its answer was lost, and ours is the one that was not there before, is
 * of the shape that was asked for, and is no other attempt's.  Where one may be
 * ours and may be not, because it does not say with which parameters it was
 * started or another attempt has lost its answer too, a person decides.  What
 * becomes of ours is in databricks_pipeline.c.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define MAX_REFUSALS	20
#define MAX_SETTLE_MS	86400000.0

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

/* Can this update be the one we asked for? */
typedef enum Likeness
{
	NOT_OURS,
	PERHAPS_OURS,				/* it does not say enough */
	LIKE_OURS
} Likeness;

/*
 * An update shows the parameters it was started with, as text, also in lists
 * (UpdateInfo.parameters of the vendor's SDKs).  One that shows none may be of
 * a service that does not yet, and one that shows more than ours of one that
 * adds defaults: neither says that it is not ours.
 */
static Likeness
compare_parameters(const KindCall *call, const cJSON *update)
{
	cJSON	   *wanted = cJSON_CreateObject();
	const cJSON *shown = kind_member(update, "parameters");
	const cJSON *ours;
	const cJSON *item;
	Likeness	result = LIKE_OURS;

	databricks_add_strings(wanted, "parameters", kind_member(call->spec, "parameters"));
	ours = kind_member(wanted, "parameters");
	if (cJSON_GetArraySize(shown) != cJSON_GetArraySize(ours))
		result = PERHAPS_OURS;
	cJSON_ArrayForEach(item, ours)
	{
		const cJSON *its = cJSON_GetObjectItemCaseSensitive(shown, item->string);

		if (cJSON_GetArraySize(shown) > 0 && (its == NULL || strcmp(kind_scalar_text(its), item->valuestring) != 0))
			result = NOT_OURS;
	}
	cJSON_Delete(wanted);
	return result;
}

static Likeness
compare_shape(const KindCall *call, const cJSON *update)
{
	const char *cause = kind_string(update, "cause");

	if (cause != NULL && strcmp(cause, "API_CALL") != 0)
		return NOT_OURS;
	for (size_t i = 0; i < lengthof(flags); i++)
	{
		if (cJSON_IsTrue(kind_member(update, flags[i])) != cJSON_IsTrue(kind_member(call->spec, flags[i])))
			return NOT_OURS;
	}
	for (size_t i = 0; i < lengthof(selections); i++)
	{
		if (!same_selection(kind_member(call->spec, selections[i]), kind_member(update, selections[i])))
			return NOT_OURS;
	}
	return compare_parameters(call, update);
}

/* Of a spec that was refused there may be none */
char *
databricks_update_place(const KindCall *call, int64 *lag_ms)
{
	const char *pipeline_id = kind_string(call->spec, "pipeline_id");

	*lag_ms = (int64) Min(databricks_settle_ms(call, UPDATE_SETTLE_SECONDS), MAX_SETTLE_MS);
	return pipeline_id ? kind_start_place("databricks_pipeline", pipeline_id) : NULL;
}

static void
mark_place(KindCall *call, KindVerdict *verdict)
{
	int64		lag_ms;

	kind_state_set_string(call, verdict, "start_place", databricks_update_place(call, &lag_ms));
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
	mark_place(call, verdict);
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

/*
 * The first update after the one that PREPARE saw that can be ours, or NULL;
 * the list is newest first.  An update that the pipeline tried again as another
 * attempt's is that attempt's too, though it follows the newer one by now.
 */
static const char *
begun_update(const KindCall *call, const cJSON *list, Likeness *likeness)
{
	const char *before = kind_state_string(call, "before");
	int64		before_ms = kind_state_int64(call, "before_ms", 0);
	const cJSON *item;
	const char *found = NULL;
	bool		retries_taken = false;

	*likeness = NOT_OURS;
	if (!cJSON_IsArray(list))
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		const char *cause = kind_string(item, "cause");
		char	   *id = kind_id(item, "update_id");
		bool		is_taken;
		Likeness	its;

		if (id == NULL || (before != NULL && strcmp(id, before) == 0) ||
			kind_int64(item, "creation_time", INT64_MAX) < before_ms)
			break;
		is_taken = retries_taken || kind_is_listed(call->taken, id);
		retries_taken = is_taken && cause != NULL && strcmp(cause, "RETRY_ON_FAILURE") == 0;
		its = is_taken ? NOT_OURS : compare_shape(call, item);
		if (its == NOT_OURS || its < *likeness)
			continue;
		found = id;
		*likeness = its;
	}
	return found;
}

/* Follow the update that is ours, if there is one; or, if that cannot be told by now, say so.  False: look on. */
static bool
follow_begun(KindCall *call, const cJSON *list, bool is_settled, KindVerdict *verdict)
{
	Likeness	likeness;
	const char *id = begun_update(call, list, &likeness);

	if (id == NULL || (likeness == PERHAPS_OURS && !is_settled))
		return false;
	if (likeness == LIKE_OURS && call->n_unknown == 0)
		databricks_update_follow(call, id, verdict);
	else if (likeness == LIKE_OURS)
		kind_fail_unknown(verdict, mem_printf("the answer to the start was lost, and update %s of the pipeline, which began since, may be of another attempt whose answer was lost; look whose it is before the task is run again",
											  id));
	else
		kind_fail_unknown(verdict, mem_printf("the answer to the start was lost, and update %s of the pipeline, which began since, does not show whether it has the parameters of this task; look whose it is before the task is run again",
											  id));
	return true;
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
	if (earlier == NULL && kind_state_get(call, "start_place") != NULL && follow_begun(call, list, true, verdict))
		return;
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
		mark_place(call, verdict);
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
	{
		kind_leave_place(call, verdict);
		return;
	}
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_body_error(response, &code, &message);
		if (refusals >= MAX_REFUSALS ||
			(response->http_status != 409 && strstr(message, "active update") == NULL))
		{
			kind_fail_status(call, response, verdict);
			kind_leave_place(call, verdict);
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
		kind_state_drop(call, verdict, "start_place");
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
	int64		since = kind_state_int64(call, "looking_since_ms", -1);
	bool		is_settled = since >= 0 && call->now_ms >= since + databricks_settle_ms(call, UPDATE_SETTLE_SECONDS);
	const cJSON *body;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	body = databricks_read_object(call, response, "lists no updates", KIND_POLL_TRIES, verdict);
	if (body == NULL)
		return;
	if (follow_begun(call, kind_member(body, "updates"), is_settled, verdict))
		return;
	if (since < 0)
	{
		kind_state_set_int64(call, verdict, "looking_since_ms", call->now_ms);
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
	}
	else if (!is_settled)
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
