/*-------------------------------------------------------------------------
 * databricks_list.c
 *	  Which runs of the Jobs API go on, by runs/list
 *
 * Runs in the conductor.  Only active runs are listed: one that is missing
 * has ended, or is asked for by itself to find out.  The first POLL of an
 * attempt is always its own, as only that shows the run's page; so is the
 * last, which has the tasks.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define PAGE_SIZE		24		/* "less than 25" */
#define CLOCKS_MS		((int64) 600000)	/* by which ours and theirs may differ */

static bool
can_tell(const KindCall *call)
{
	return kind_state_bool(call, "has_url") || cJSON_HasObjectItem(call->scratch, "polled");
}

/* Began the run with this attempt, not earlier? */
static bool
is_own(const KindCall *call)
{
	char	   *earlier = kind_id(call->reference, "external_run_id");

	return kind_state_get(call, "started_ms") != NULL && (earlier == NULL || strcmp(earlier, call->external_run_id) != 0);
}

static cJSON *
list_scope(const KindCall *calls, int n)
{
	cJSON	   *scope = cJSON_CreateObject();
	int64		from_ms = INT64_MAX;
	int64		job_id = 0;
	int			jobs = 0;
	bool		one_job = true;

	for (int i = 0; i < n; i++)
	{
		int64		id;

		from_ms = is_own(&calls[i]) ? Min(from_ms, calls[i].intended_at_ms) : INT64_MIN;
		if (!json_int64(kind_member(calls[i].spec, "job_id"), &id))
			continue;
		one_job = one_job && (jobs == 0 || id == job_id);
		job_id = id;
		jobs++;
	}
	if (from_ms > CLOCKS_MS)
		cJSON_AddItemToObject(scope, "start_time_from", json_from_int64(from_ms - CLOCKS_MS));
	if (jobs == n && one_job)
		cJSON_AddItemToObject(scope, "job_id", json_from_int64(job_id));
	if (jobs == n || jobs == 0)
		cJSON_AddStringToObject(scope, "run_type", jobs == n ? "JOB_RUN" : "SUBMIT_RUN");
	return scope;
}

static void
list_request(const KindCall *call, const cJSON *scope, const char *page, KindRequest *request)
{
	const cJSON *item;
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s?active_only=true&limit=%d", databricks_url(call, "runs/list"), PAGE_SIZE);
	cJSON_ArrayForEach(item, scope)
	{
		strbuf_printf(&url, "&%s=", item->string);
		kind_url_encode(&url, kind_scalar_text(item));
	}
	if (page != NULL)
	{
		strbuf_addstr(&url, "&page_token=");
		kind_url_encode(&url, page);
	}
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
}

static void
list_response(const KindResponse *response, KindPage *page)
{
	cJSON	   *body = kind_page_object(response, page);
	const cJSON *runs = kind_member(body, "runs");
	const cJSON *run;

	if (body == NULL)
		return;
	/* without any run there is no such member; but something must say that this is a list */
	if (runs == NULL ? !cJSON_IsBool(kind_member(body, "has_more")) && body->child != NULL : !cJSON_IsArray(runs))
	{
		page->result = KIND_PAGE_AGAIN;
		return;
	}
	cJSON_ArrayForEach(run, runs)
	{
		char	   *id = kind_id(run, "run_id");
		JobState	state;

		if (id != NULL && databricks_read_state(run, &state) && state.end == JOB_END_NONE)
			kind_page_add(page, cJSON_GetArraySize(runs), id);
	}
	page->next = kind_string(body, "next_page_token");
	/* a last page may have a token all the same */
	if (cJSON_IsFalse(kind_member(body, "has_more")))
		page->next = NULL;
}

const KindListing databricks_listing = {
	.page_size = PAGE_SIZE,
	.can_tell = can_tell,
	.scope = list_scope,
	.request = list_request,
	.response = list_response,
};
