/*-------------------------------------------------------------------------
 * databricks_flows.c
 *	  What the events of a pipeline say of one of its updates
 *
 * Runs in the conductor.  Events are read page after page when the update has
 * ended; those of other updates are passed over.  Each flow gives a row of
 * activities with the rows it wrote, those an expectation dropped, and how
 * its expectations were met; the counts of an event are of what was done
 * since the one before, so they are added up.  How the update ended is known
 * by then: events that cannot be had cost details, never the outcome.
 *
 * kind_state: event_token, event_pages, error {flow, class, message, detail},
 * flows {NAME: {status, rows, dropped, started_at, ended_at,
 * expectations: {NAME: {dataset, passed, failed}}}}.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define PAGE				"100"
#define MAX_EVENT_PAGES		100
#define MAX_FLOWS			500
#define MAX_EXPECTATIONS	100 /* of one flow */
#define MAX_NAME			300

bool
databricks_events_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *pipeline = kind_string(call->spec, "pipeline_id");
	const char *token = kind_state_string(call, "event_token");
	char	   *since = kind_time_text(kind_state_int64(call, "created_ms", 0));
	StrBuf		url;

	if (pipeline == NULL)
		return kind_problem(problem, "$.pipeline_id", "\"pipeline_id\" is empty", NULL);
	strbuf_init(&url);
	strbuf_printf(&url, "%s/api/2.0/pipelines/", call->base_url);
	kind_url_encode(&url, pipeline);
	strbuf_addstr(&url, "/events?max_results=" PAGE);
	if (token != NULL)
	{
		/* it stands for the other arguments, too */
		strbuf_addstr(&url, "&page_token=");
		kind_url_encode(&url, token);
	}
	else
	{
		strbuf_addstr(&url, "&order_by=");
		kind_url_encode(&url, "timestamp asc");
		if (since != NULL)
		{
			strbuf_addstr(&url, "&filter=");
			kind_url_encode(&url, mem_printf("timestamp >= '%s'", since));
		}
	}
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
	return true;
}

static cJSON *
member_object(cJSON *object, const char *name)
{
	cJSON	   *member = cJSON_GetObjectItemCaseSensitive(object, name);

	if (cJSON_IsObject(member))
		return member;
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	return cJSON_AddObjectToObject(object, name);
}

static void
set_text(cJSON *object, const char *name, const char *text, size_t limit)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	cJSON_AddStringToObject(object, name, kind_clean_text(text, strlen(text), limit));
}

/* n is from outside: what is no count counts nothing, and sums stay below 2^53 */
static void
add_count(cJSON *object, const char *name, int64 n)
{
	int64		sum = kind_int64(object, name, 0);

	if (n < 0 || n > (INT64_C(1) << 53) - sum)
		return;
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	cJSON_AddItemToObject(object, name, json_from_int64(sum + n));
}

/* The first error explains the others; one with an exception says more than one without */
static void
keep_error(KindCall *call, const cJSON *event)
{
	const cJSON *exception = json_get(event, "error.exceptions.0");
	const cJSON *known = kind_state_get(call, "error");
	const char *level = kind_string(event, "level");
	const char *message = kind_string(exception, "message");
	const char *said = kind_string(event, "message");
	const char *flow = kind_string(kind_member(event, "origin"), "flow_name");
	const char *class = kind_string(exception, "class_name");
	cJSON	   *error;

	if (level == NULL || strcmp(level, "ERROR") != 0 || (message == NULL && said == NULL) ||
		(known != NULL && (message == NULL || kind_member(known, "detail") != NULL)))
		return;
	error = cJSON_CreateObject();
	set_text(error, "message", message ? message : said, KIND_MAX_MESSAGE);
	if (message != NULL)
		set_text(error, "detail", said ? said : message, KIND_MAX_MESSAGE);
	if (flow != NULL)
		set_text(error, "flow", flow, MAX_NAME);
	if (class != NULL)
		set_text(error, "class", class, MAX_NAME);
	cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, "error");
	cJSON_AddItemToObject(call->kind_state, "error", error);
}

static void
keep_expectations(cJSON *flow, const cJSON *list)
{
	cJSON	   *expectations;
	const cJSON *item;

	if (!cJSON_IsArray(list))
		return;
	expectations = member_object(flow, "expectations");
	cJSON_ArrayForEach(item, list)
	{
		const char *given = kind_string(item, "name");
		const char *dataset = kind_string(item, "dataset");
		char	   *name = given ? kind_clean_text(given, strlen(given), MAX_NAME) : NULL;
		cJSON	   *one;

		if (name == NULL || (cJSON_GetArraySize(expectations) >= MAX_EXPECTATIONS &&
							 cJSON_GetObjectItemCaseSensitive(expectations, name) == NULL))
			continue;
		one = member_object(expectations, name);
		if (dataset != NULL)
			set_text(one, "dataset", dataset, MAX_NAME);
		add_count(one, "passed", kind_int64(item, "passed_records", 0));
		add_count(one, "failed", kind_int64(item, "failed_records", 0));
	}
}

static void
keep_flow(KindCall *call, const cJSON *event)
{
	const cJSON *progress = json_get(event, "details.flow_progress");
	const cJSON *metrics = kind_member(progress, "metrics");
	const cJSON *quality = kind_member(progress, "data_quality");
	const cJSON *origin = kind_member(event, "origin");
	const char *given = kind_string(origin, "flow_name") ? kind_string(origin, "flow_name") : kind_string(origin, "dataset_name");
	const char *status = kind_string(progress, "status");
	const char *time = kind_string(event, "timestamp");
	cJSON	   *flows;
	cJSON	   *flow;
	char	   *name;
	int64		ms;

	if (!cJSON_IsObject(progress) || given == NULL)
		return;
	flows = member_object(call->kind_state, "flows");
	name = kind_clean_text(given, strlen(given), MAX_NAME);
	if (cJSON_GetObjectItemCaseSensitive(flows, name) == NULL && cJSON_GetArraySize(flows) >= MAX_FLOWS)
		return;
	flow = member_object(flows, name);
	if (status != NULL)
		set_text(flow, "status", status, 40);
	if (kind_time_parse(time, &ms) && kind_time_text(ms) != NULL)
	{
		if (kind_member(flow, "started_at") == NULL)
			set_text(flow, "started_at", kind_time_text(ms), 40);
		set_text(flow, "ended_at", kind_time_text(ms), 40);
	}
	if (kind_member(metrics, "num_output_rows") != NULL)
		add_count(flow, "rows", kind_int64(metrics, "num_output_rows", -1));
	else
		add_count(flow, "rows", kind_int64(metrics, "num_upserted_rows", -1));
	add_count(flow, "dropped", kind_int64(quality, "dropped_records", -1));
	keep_expectations(flow, kind_member(quality, "expectations"));
}

bool
databricks_events_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		pages = kind_state_int64(call, "event_pages", 0);
	const cJSON *body;
	const cJSON *events;
	const cJSON *event;
	const char *token;

	if (databricks_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return false;
	kind_verdict_init(verdict);
	body = response->http_status == 200 && response->transport_error == NULL ? kind_parse_object(response) : NULL;
	events = kind_member(body, "events");
	if (cJSON_IsArray(events))
	{
		cJSON_ArrayForEach(event, events)
		{
			const char *update = kind_string(kind_member(event, "origin"), "update_id");

			if (update == NULL || strcmp(update, call->external_run_id) != 0)
				continue;
			keep_error(call, event);
			keep_flow(call, event);
		}
	}
	token = kind_string(body, "next_page_token");
	if (token == NULL || pages + 1 >= MAX_EVENT_PAGES)
		return true;
	kind_state_set_string(call, verdict, "event_token", token);
	kind_state_set_int64(call, verdict, "event_pages", pages + 1);
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
	return false;
}

/* A flow that says nothing of its end ended as its update did */
static const char *
log_status(const char *status, const char *end)
{
	if (status != NULL && strcmp(status, "FAILED") == 0)
		return "failed";
	if (status != NULL && (strcmp(status, "SKIPPED") == 0 || strcmp(status, "EXCLUDED") == 0))
		return "skipped";
	if ((status != NULL && strcmp(status, "COMPLETED") == 0) || (end != NULL && strcmp(end, "COMPLETED") == 0))
		return "succeeded";
	return "cancelled";
}

static void
add_activity(cJSON *activities, const cJSON *flow, const cJSON *error, const char *end)
{
	static const char *const times[] = {"started_at", "ended_at"};
	const char *status = kind_string(flow, "status");
	const char *failing = kind_string(error, "flow");
	cJSON	   *entry = cJSON_CreateObject();
	int64		rows = kind_int64(flow, "rows", -1);
	int64		dropped = kind_int64(flow, "dropped", -1);

	cJSON_AddStringToObject(entry, "activity", flow->string);
	cJSON_AddStringToObject(entry, "activity_type", "flow");
	cJSON_AddStringToObject(entry, "status", log_status(status, end));
	if (rows >= 0)
		cJSON_AddItemToObject(entry, "rows_copied", json_from_int64(rows));
	if (dropped >= 0)
		cJSON_AddItemToObject(entry, "rows_skipped", json_from_int64(dropped));
	for (size_t i = 0; i < lengthof(times); i++)
	{
		if (kind_string(flow, times[i]) != NULL)
			cJSON_AddStringToObject(entry, times[i], kind_string(flow, times[i]));
	}
	if (kind_member(flow, "expectations") != NULL)
	{
		cJSON	   *output = cJSON_AddObjectToObject(entry, "output");

		cJSON_AddItemToObject(output, "expectations", cJSON_Duplicate(kind_member(flow, "expectations"), true));
	}
	if (failing != NULL && strcmp(failing, flow->string) == 0)
	{
		cJSON_AddStringToObject(entry, "error_code", kind_string(error, "class") ? kind_string(error, "class") : "FAILED");
		cJSON_AddStringToObject(entry, "error_message", kind_string(error, "message"));
	}
	cJSON_AddItemToArray(activities, entry);
}

/* What the code of the pipeline is to blame for comes back however often it is tried */
static bool
is_user_error(const cJSON *error)
{
	static const char *const words[] = {"AnalysisException", "ParseException", "Expectation", "SyntaxError", "NameError"};
	const char *class = kind_string(error, "class");

	for (size_t i = 0; class != NULL && i < lengthof(words); i++)
	{
		if (strstr(class, words[i]) != NULL)
			return true;
	}
	return false;
}

static void
explain_failure(const cJSON *error, KindVerdict *verdict)
{
	const char *flow = kind_string(error, "flow");
	const char *message = kind_string(error, "message");
	const char *detail = kind_string(error, "detail");
	bool		is_user = is_user_error(error);

	if (message == NULL)
		return;
	kind_fail(verdict, is_user, !is_user, "FAILED", flow ? mem_printf("flow %s: %s", flow, message) : message);
	if (detail != NULL && strcmp(detail, message) != 0)
		verdict->error_detail = detail;
}

void
databricks_flows_into(const KindCall *call, cJSON *output, KindVerdict *verdict)
{
	const cJSON *flows = kind_state_get(call, "flows");
	const cJSON *error = kind_state_get(call, "error");
	const char *end = kind_state_string(call, "end");
	cJSON	   *states;
	cJSON	   *totals;
	const cJSON *flow;
	const cJSON *item;
	int64		rows = -1;

	if (verdict->outcome == KIND_FAILED)
		explain_failure(error, verdict);
	if (!cJSON_IsObject(flows))
		return;
	states = cJSON_AddObjectToObject(output, "flows");
	totals = cJSON_CreateObject();
	verdict->activities = cJSON_CreateArray();
	cJSON_ArrayForEach(flow, flows)
	{
		int64		n = kind_int64(flow, "rows", -1);

		cJSON_AddStringToObject(states, flow->string, kind_string(flow, "status") ? kind_string(flow, "status") : "UNKNOWN");
		if (n >= 0)
			rows = Max(rows, 0) + n;
		cJSON_ArrayForEach(item, kind_member(flow, "expectations"))
		{
			add_count(totals, "passed", kind_int64(item, "passed", 0));
			add_count(totals, "failed", kind_int64(item, "failed", 0));
		}
		add_activity(verdict->activities, flow, error, end);
	}
	if (rows >= 0)
		cJSON_AddItemToObject(output, "rows_written", json_from_int64(rows));
	verdict->rows_written = rows;
	if (totals->child != NULL)
		cJSON_AddItemToObject(output, "expectations", totals);
	else
		cJSON_Delete(totals);
}
