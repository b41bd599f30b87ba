/*-------------------------------------------------------------------------
 * adf_activities.c
 *	  The activities of a finished pipeline run, and the outcome they give
 *
 * Runs in the conductor.  How the run ended is known already (kind_state.
 * final); what is fetched here are row counts, outputs and errors.  So
 * whatever goes wrong here costs details, never the outcome.
 *
 * Pages are collected in kind_state (activities, activity_token,
 * activity_pages, activity_bytes) and committed with it: a crash goes on with
 * the page it had reached.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "adf_int.h"

#define MAX_PAGES		100
#define MAX_ACTIVITIES	1000
#define MAX_OUTPUTS		(1024 * 1024)	/* of all activities together */
#define MAX_ONE_OUTPUT	(64 * 1024)

/* Status in the words of the run log */
static const char *
log_status(const char *status)
{
	static const char *const words[][2] = {
		{"Succeeded", "succeeded"}, {"Failed", "failed"}, {"TimedOut", "failed"},
		{"Cancelled", "cancelled"}, {"Canceled", "cancelled"},
		{"Skipped", "skipped"}, {"Inactive", "skipped"},
	};

	for (size_t i = 0; status != NULL && i < lengthof(words); i++)
	{
		if (strcasecmp(words[i][0], status) == 0)
			return words[i][1];
	}
	return "running";
}

/*
 * Activities of a loop, and retries, come back under one name.  The run log
 * has one row for each name: the second becomes "name[2]".
 */
static char *
unique_name(const cJSON *activities, const char *name)
{
	size_t		len = strlen(name);
	char	   *unique = mem_strdup(name);
	int			n = 1;
	bool		taken = false;
	const cJSON *item;

	cJSON_ArrayForEach(item, activities)
	{
		const char *other = kind_string(item, "activity");

		taken |= strcmp(other, name) == 0;
		n += strncmp(other, name, len) == 0 && (other[len] == '\0' || other[len] == '[');
	}
	while (taken)
	{
		mem_free(unique);
		unique = mem_printf("%s[%d]", name, n++);
		taken = false;
		cJSON_ArrayForEach(item, activities)
			taken |= strcmp(kind_string(item, "activity"), unique) == 0;
	}
	return unique;
}

static void
add_text(cJSON *object, const char *name, const char *text, size_t limit)
{
	if (text != NULL && *text != '\0')
		cJSON_AddStringToObject(object, name, kind_clean_text(text, strlen(text), limit));
}

static void
add_count(cJSON *object, const char *name, const cJSON *output, const char *member)
{
	int64		value = kind_int64(output, member, -1);

	if (value >= 0)
		cJSON_AddItemToObject(object, name, json_from_int64(value));
}

static void
add_time(cJSON *object, const char *name, const cJSON *run, const char *member)
{
	int64		ms;
	char	   *text;

	if (kind_time_parse(kind_string(run, member), &ms) && (text = kind_time_text(ms)) != NULL)
		cJSON_AddStringToObject(object, name, text);
}

/* One activity run, as the run log wants it; failure_type is for ourselves */
static void
collect(KindCall *call, cJSON *activities, const cJSON *run)
{
	cJSON	   *entry = cJSON_CreateObject();
	const cJSON *output = kind_member(run, "output");
	const cJSON *error = kind_member(run, "error");
	const char *name = kind_string(run, "activityName");
	int64		bytes = kind_state_int64(call, "activity_bytes", 0);
	const char *code = kind_string(error, "errorCode");

	if (code == NULL)
		code = kind_id(error, "errorCode");
	name = name ? kind_clean_text(name, strlen(name), 200) : "activity";
	cJSON_AddStringToObject(entry, "activity", unique_name(activities, name));
	add_text(entry, "activity_type", kind_string(run, "activityType"), 200);
	cJSON_AddStringToObject(entry, "status", log_status(kind_string(run, "status")));
	add_count(entry, "rows_read", output, "rowsRead");
	add_count(entry, "rows_copied", output, "rowsCopied");
	add_count(entry, "rows_skipped", output, "rowsSkipped");
	add_count(entry, "bytes_read", output, "dataRead");
	add_count(entry, "bytes_written", output, "dataWritten");
	add_count(entry, "files_written", output, "filesWritten");
	add_time(entry, "started_at", run, "activityRunStart");
	add_time(entry, "ended_at", run, "activityRunEnd");
	if (cJSON_IsObject(output) && output->child != NULL)
	{
		cJSON	   *copy = kind_limited_copy(output, bytes < MAX_OUTPUTS ? MAX_ONE_OUTPUT : 0);

		/* committed with the page, if there is another one */
		cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, "activity_bytes");
		cJSON_AddItemToObject(call->kind_state, "activity_bytes",
							  json_from_int64(bytes + (int64) strlen(json_text(copy))));
		cJSON_AddItemToObject(entry, "output", copy);
	}
	add_text(entry, "error_code", code, 200);
	add_text(entry, "error_message", kind_string(error, "message"), KIND_MAX_MESSAGE);
	add_text(entry, "failure_type", kind_string(error, "failureType"), 100);
	cJSON_AddItemToArray(activities, entry);
}

/* Sum over what succeeded; -1 if nobody counted */
static int64
total(const cJSON *activities, const char *member)
{
	const cJSON *item;
	int64		sum = -1;

	cJSON_ArrayForEach(item, activities)
	{
		const char *status = kind_string(item, "status");
		int64		value = kind_int64(item, member, -1);

		if (value < 0 || status == NULL || strcmp(status, "succeeded") != 0)
			continue;
		sum = Max(sum, 0);
		sum = value > INT64_MAX - sum ? INT64_MAX : sum + value;
	}
	return sum;
}

/*
 * What broke first: a loop or an Execute Pipeline fails after the activity
 * inside of it.
 */
static const cJSON *
first_failed(const cJSON *activities)
{
	const cJSON *item;
	const cJSON *found = NULL;
	int64		found_ms = 0;

	cJSON_ArrayForEach(item, activities)
	{
		const char *status = kind_string(item, "status");
		int64		ms = INT64_MAX;

		if (status == NULL || strcmp(status, "failed") != 0)
			continue;
		(void) kind_time_parse(kind_string(item, "ended_at"), &ms);
		if (found == NULL || ms < found_ms)
		{
			found = item;
			found_ms = ms;
		}
	}
	return found;
}

static cJSON *
build_output(const KindCall *call, const cJSON *activities, const char *status)
{
	static const char *const sums[][2] = {
		{"rowsRead", "rows_read"}, {"rowsCopied", "rows_copied"}, {"filesWritten", "files_written"},
	};
	const cJSON *value = kind_member(kind_state_get(call, "final"), "return_value");
	cJSON	   *output = cJSON_CreateObject();
	cJSON	   *outputs;
	const cJSON *item;

	cJSON_AddStringToObject(output, "runId", call->external_run_id ? call->external_run_id : "");
	cJSON_AddStringToObject(output, "status", status);
	for (size_t i = 0; i < lengthof(sums); i++)
	{
		int64		sum = total(activities, sums[i][1]);

		if (sum >= 0)
			cJSON_AddItemToObject(output, sums[i][0], json_from_int64(sum));
	}
	if (value != NULL)
		cJSON_AddItemToObject(output, "returnValue", cJSON_Duplicate(value, true));
	outputs = cJSON_AddObjectToObject(output, "activities");
	cJSON_ArrayForEach(item, activities)
	{
		const cJSON *one = kind_member(item, "output");

		if (one != NULL)
			cJSON_AddItemToObject(outputs, kind_string(item, "activity"), cJSON_Duplicate(one, true));
	}
	return output;
}

static void
fail_run(const KindCall *call, const cJSON *activities, const char *message, KindVerdict *verdict)
{
	const cJSON *failed = first_failed(activities);
	const char *type = kind_string(failed, "failure_type");
	const char *code = kind_string(failed, "error_code");
	const char *own = kind_string(failed, "error_message");
	bool		is_user_error = type != NULL && strcasecmp(type, "UserError") == 0;

	if (own != NULL)
		own = mem_printf("activity %s: %s", kind_string(failed, "activity"), own);
	if (message == NULL)
		message = own ? own : failed ? mem_printf("activity %s failed", kind_string(failed, "activity")) :
			mem_printf("pipeline run %s failed", call->external_run_id);
	else
		verdict->error_detail = own;
	if (code == NULL)
		code = kind_string(kind_state_get(call, "final"), "code");
	kind_fail(verdict, is_user_error, !is_user_error, code ? code : "pipeline_failed", message);
}

/* The outcome, with as many details as there are */
static void
finish(KindCall *call, KindVerdict *verdict)
{
	const cJSON *final = kind_state_get(call, "final");
	const cJSON *activities = kind_state_get(call, "activities");
	const char *status = kind_string(final, "status");
	const char *message = kind_string(final, "message");

	kind_verdict_init(verdict);
	if (status == NULL)
	{
		/* nobody has said yet how it ended */
		kind_continue(verdict, KIND_STEP_POLL, -1);
		return;
	}
	verdict->output = build_output(call, activities, status);
	verdict->rows_read = total(activities, "rows_read");
	verdict->rows_written = total(activities, "rows_copied");
	if (cJSON_IsArray(activities) && activities->child != NULL)
		verdict->activities = cJSON_Duplicate(activities, true);
	if (strcasecmp(status, "Succeeded") == 0)
		verdict->outcome = KIND_SUCCEEDED;
	else if (strcasecmp(status, "Failed") == 0)
		fail_run(call, activities, message, verdict);
	else
	{
		kind_fail(verdict, false, false, "cancelled",
				  message ? message : mem_printf("pipeline run %s was cancelled", call->external_run_id));
		verdict->outcome = KIND_CANCELLED;
	}
}

/* Of kind_state, so that it survives a crash between two pages */
static cJSON *
collected(KindCall *call)
{
	cJSON	   *activities = cJSON_GetObjectItemCaseSensitive(call->kind_state, "activities");

	if (cJSON_IsArray(activities))
		return activities;
	cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, "activities");
	return cJSON_AddArrayToObject(call->kind_state, "activities");
}

void
adf_activities_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		pages = kind_state_int64(call, "activity_pages", 0) + 1;
	const cJSON *runs;
	const cJSON *run;
	const char *token;
	char	   *error;
	cJSON	   *activities;
	cJSON	   *body;

	if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict))
	{
		if (verdict->outcome != KIND_CONTINUE)
			finish(call, verdict);
		return;
	}
	/* Fabric's answer may be the list itself */
	body = response->http_status == 200 ? kind_parse_body(response, &error) : NULL;
	runs = cJSON_IsArray(body) ? body : kind_member(body, "value");
	if (response->http_status == 200 && !cJSON_IsArray(runs))
	{
		kind_bad_answer(call, response, "lists no activity runs", false, true, KIND_EXTRA_TRIES, verdict);
		if (verdict->outcome != KIND_CONTINUE)
			finish(call, verdict);
		return;
	}
	activities = collected(call);
	cJSON_ArrayForEach(run, runs)
	{
		if (cJSON_IsObject(run) && cJSON_GetArraySize(activities) < MAX_ACTIVITIES)
			collect(call, activities, run);
	}
	token = kind_string(body, "continuationToken");
	if (token == NULL || pages >= MAX_PAGES || cJSON_GetArraySize(activities) >= MAX_ACTIVITIES)
	{
		finish(call, verdict);
		return;
	}
	kind_state_set_string(call, verdict, "activity_token", token);
	kind_state_set_int64(call, verdict, "activity_pages", pages);
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
}
