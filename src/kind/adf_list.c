/*-------------------------------------------------------------------------
 * adf_list.c
 *	  Which runs of a Data Factory go on, by queryPipelineRuns
 *
 * Runs in the conductor.  Runs that have not ended are listed, of the
 * pipelines in question and since the first of them can have been started:
 * there is no filter by run ids.  One that is missing is asked for by itself.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "adf_int.h"

#define PAGE_SIZE		100		/* what the service gives; nobody can ask for it */
#define MAX_NAMES		20		/* more pipelines than that, and all are listed */
#define MINUTE_MS		((int64) 60000)
#define DAY_MS			((int64) 86400000)
#define KEPT_MS			(45 * DAY_MS)	/* runs are known for so long */

/* Runs that began before their attempts: continued, or somebody else's at first */
static bool
is_adopted(const KindCall *call)
{
	const char *mode = kind_state_string(call, "mode");

	return kind_state_get(call, "started_ms") == NULL || (mode != NULL && strcmp(mode, "adopt") == 0);
}

/* The first look at a run that somebody named brings its link */
static bool
can_tell(const KindCall *call)
{
	return kind_state_bool(call, "has_url");
}

static void
add_filter(cJSON *filters, const char *operand, const char *operator, cJSON *values)
{
	cJSON	   *filter = cJSON_CreateObject();

	cJSON_AddStringToObject(filter, "operand", operand);
	cJSON_AddStringToObject(filter, "operator", operator);
	cJSON_AddItemToObject(filter, "values", values);
	cJSON_AddItemToArray(filters, filter);
}

/* False: too many, or not known */
static bool
add_name(cJSON *names, const char *name)
{
	const cJSON *item;

	if (name == NULL)
		return false;
	cJSON_ArrayForEach(item, names)
	{
		if (strcmp(item->valuestring, name) == 0)
			return true;
	}
	if (cJSON_GetArraySize(names) >= MAX_NAMES)
		return false;
	cJSON_AddItemToArray(names, cJSON_CreateString(name));
	return true;
}

/* The body, but for the page */
static cJSON *
list_scope(const KindCall *calls, int n)
{
	static const char *const ended[] = {"Succeeded", "Failed", "Cancelled"};
	cJSON	   *scope = cJSON_CreateObject();
	cJSON	   *filters = cJSON_CreateArray();
	cJSON	   *names = cJSON_CreateArray();
	int64		after_ms = INT64_MAX;
	bool		named = true;

	for (int i = 0; i < n; i++)
	{
		after_ms = Min(after_ms, calls[i].intended_at_ms - (is_adopted(&calls[i]) ? KEPT_MS : 5 * MINUTE_MS));
		named = named && add_name(names, kind_string(calls[i].spec, "pipeline"));
	}
	adf_window(scope, after_ms, calls[0].now_ms + DAY_MS);
	add_filter(filters, "Status", "NotIn", cJSON_CreateStringArray(ended, lengthof(ended)));
	if (named)
		add_filter(filters, "PipelineName", "In", names);
	else
		cJSON_Delete(names);
	cJSON_AddItemToObject(scope, "filters", filters);
	return scope;
}

static void
list_request(const KindCall *call, const cJSON *scope, const char *page, KindRequest *request)
{
	cJSON	   *body = cJSON_Duplicate(scope, true);

	adf_order(body, "RunStart", page);
	request->url = adf_url(call, "queryPipelineRuns", NULL, "");
	request->is_repeatable = true;
	adf_json(request, body);
}

static void
list_response(const KindResponse *response, KindPage *page)
{
	cJSON	   *body = kind_page_object(response, page);
	const cJSON *runs = kind_member(body, "value");
	const cJSON *run;

	if (body == NULL)
		return;
	if (!cJSON_IsArray(runs))
	{
		page->result = KIND_PAGE_AGAIN;
		return;
	}
	cJSON_ArrayForEach(run, runs)
	{
		char	   *id = kind_id(run, "runId");
		const char *status = kind_string(run, "status");

		if (id != NULL && status != NULL && !adf_is_terminal(status))
			kind_page_add(page, cJSON_GetArraySize(runs), id);
	}
	page->next = kind_string(body, "continuationToken");
}

const KindListing adf_listing = {
	.page_size = PAGE_SIZE,
	.can_tell = can_tell,
	.scope = list_scope,
	.request = list_request,
	.response = list_response,
};
