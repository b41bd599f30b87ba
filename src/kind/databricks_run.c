/*-------------------------------------------------------------------------
 * databricks_run.c
 *	  The state of a job run, its tasks, and the outcome they give
 *
 * Runs in the conductor.  When a run has ended, its tasks are read (a page
 * of 100 comes with the run, the others are asked for), and if it failed the
 * error text of the task that failed first.  Of a one-time run, which has one
 * task, the task's output is read however it ended.  How it ended is known by
 * then, so whatever goes wrong here costs details, never the outcome.
 *
 * kind_state: final {end, code, type, message, number_in_job}, tasks,
 * task_token, task_pages, output_run_id.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define MAX_PAGES		30
#define MAX_TASK_TEXT	1000

static bool
is_one_of(const char *text, const char *const *list, size_t n)
{
	for (size_t i = 0; text != NULL && i < n; i++)
	{
		if (strcmp(list[i], text) == 0)
			return true;
	}
	return false;
}

#define IS_ONE_OF(text, list) is_one_of((text), (list), lengthof(list))

/* What a code of termination_details, or a result_state, means.  Both lists grow: unknown is no success. */
static JobEnd
end_of(const char *code)
{
	static const char *const succeeded[] = {"SUCCESS", "SUCCESS_WITH_FAILURES"};
	static const char *const cancelled[] = {"USER_CANCELED", "CANCELED"};
	static const char *const skipped[] = {
		"SKIPPED", "EXCLUDED", "DISABLED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED",
		"MAX_CONCURRENT_RUNS_EXCEEDED", "MAXIMUM_CONCURRENT_RUNS_REACHED",
		"MAX_JOB_QUEUE_SIZE_EXCEEDED", "WORKSPACE_RUN_LIMIT_EXCEEDED",
	};

	return IS_ONE_OF(code, succeeded) ? JOB_END_SUCCEEDED :
		IS_ONE_OF(code, cancelled) ? JOB_END_CANCELLED :
		IS_ONE_OF(code, skipped) ? JOB_END_SKIPPED : JOB_END_FAILED;
}

/* Deprecated, but all that older workspaces have */
static bool
read_old_state(const cJSON *old, JobState *state)
{
	static const char *const terminal[] = {"TERMINATED", "SKIPPED", "INTERNAL_ERROR"};
	const char *life = kind_string(old, "life_cycle_state");
	const char *result = kind_string(old, "result_state");

	if (life == NULL)
		return false;
	state->message = kind_string(old, "state_message");
	if (!IS_ONE_OF(life, terminal))
		return true;
	state->code = result ? result : life;
	state->end = end_of(state->code);
	if (strcmp(life, "INTERNAL_ERROR") == 0 && result == NULL)
		state->type = "INTERNAL_ERROR";
	else if (state->end == JOB_END_FAILED && result != NULL)
		state->type = "CLIENT_ERROR";
	return true;
}

bool
databricks_read_state(const cJSON *run, JobState *state)
{
	const cJSON *status = kind_member(run, "status");
	const cJSON *details = kind_member(status, "termination_details");
	const cJSON *old = kind_member(run, "state");
	const char *now = kind_string(status, "state");
	const char *result = kind_string(old, "result_state");

	memset(state, 0, sizeof(*state));
	if (now == NULL)
		return read_old_state(old, state);
	/* TERMINATING has details already, but is not the end */
	if (strcmp(now, "TERMINATED") != 0)
		return true;
	state->code = kind_string(details, "code");
	state->type = kind_string(details, "type");
	state->message = kind_string(details, "message");
	if (state->code == NULL)
	{
		(void) read_old_state(old, state);
		if (state->end == JOB_END_NONE)
			state->end = JOB_END_FAILED;
		return true;
	}
	state->end = end_of(state->code);
	/* the new codes do not tell a timeout from a cancel, nor a task that was not reached from one that was cancelled */
	if (result != NULL && strcmp(result, "TIMEDOUT") == 0)
	{
		state->end = JOB_END_FAILED;
		state->code = result;
	}
	else if (result != NULL && state->end == JOB_END_CANCELLED && end_of(result) == JOB_END_SKIPPED)
		state->end = JOB_END_SKIPPED;
	if (state->message == NULL)
		state->message = kind_string(old, "state_message");
	return true;
}

static const char *
end_name(JobEnd end)
{
	static const char *const names[] = {
		[JOB_END_NONE] = "running",
		[JOB_END_SUCCEEDED] = "succeeded",
		[JOB_END_FAILED] = "failed",
		[JOB_END_CANCELLED] = "cancelled",
		[JOB_END_SKIPPED] = "skipped",
	};

	return names[end];
}

static void
add_text(cJSON *object, const char *name, const char *text, size_t limit)
{
	if (text != NULL && *text != '\0')
		cJSON_AddStringToObject(object, name, kind_clean_text(text, strlen(text), limit));
}

/* notebook_task, sql_task, ...: what kind of task it is */
static const char *
task_type(const cJSON *task)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, task)
	{
		size_t		len = strlen(item->string);

		if (len > 5 && strcmp(item->string + len - 5, "_task") == 0 && cJSON_IsObject(item))
			return item->string;
	}
	return NULL;
}

/* Is the task run "one" newer than "other", which is of the same task? */
static bool
is_newer(const cJSON *one, const cJSON *other)
{
	int64		attempt = kind_int64(one, "attempt", 0);
	int64		other_attempt = kind_int64(other, "attempt", 0);

	if (attempt != other_attempt)
		return attempt > other_attempt;
	return kind_int64(one, "start_ms", 0) >= kind_int64(other, "start_ms", 0);
}

static cJSON *
task_entry(const cJSON *task, const char *key)
{
	cJSON	   *entry = cJSON_CreateObject();
	JobState	state;

	memset(&state, 0, sizeof(state));
	(void) databricks_read_state(task, &state);
	cJSON_AddStringToObject(entry, "key", key);
	add_text(entry, "run_id", kind_id(task, "run_id"), 200);
	add_text(entry, "task_type", task_type(task), 100);
	cJSON_AddItemToObject(entry, "attempt", json_from_int64(kind_int64(task, "attempt_number", 0)));
	cJSON_AddItemToObject(entry, "start_ms", json_from_int64(kind_int64(task, "start_time", 0)));
	cJSON_AddItemToObject(entry, "end_ms", json_from_int64(kind_int64(task, "end_time", 0)));
	cJSON_AddStringToObject(entry, "end", end_name(state.end));
	add_text(entry, "code", state.code, 200);
	add_text(entry, "type", state.type, 200);
	add_text(entry, "message", state.message, MAX_TASK_TEXT);
	return entry;
}

/* A repaired task has several task runs: keep the newest of each task */
static void
keep_task(cJSON *tasks, const cJSON *task)
{
	const char *key = kind_string(task, "task_key");
	cJSON	   *entry;
	cJSON	   *other;

	if (key == NULL)
		return;
	entry = task_entry(task, kind_clean_text(key, strlen(key), 200));
	cJSON_ArrayForEach(other, tasks)
	{
		if (strcmp(kind_string(other, "key"), kind_string(entry, "key")) != 0)
			continue;
		if (is_newer(entry, other))
			cJSON_ReplaceItemViaPointer(tasks, other, entry);
		else
			cJSON_Delete(entry);
		return;
	}
	if (cJSON_GetArraySize(tasks) < DATABRICKS_MAX_TASKS)
		cJSON_AddItemToArray(tasks, entry);
	else
		cJSON_Delete(entry);
}

static void
keep_tasks(KindCall *call, const cJSON *run)
{
	cJSON	   *tasks = cJSON_GetObjectItemCaseSensitive(call->kind_state, "tasks");
	const cJSON *list = kind_member(run, "tasks");
	const cJSON *task;

	if (!cJSON_IsArray(tasks))
	{
		cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, "tasks");
		tasks = cJSON_AddArrayToObject(call->kind_state, "tasks");
	}
	if (!cJSON_IsArray(list))
		return;
	cJSON_ArrayForEach(task, list)
		keep_task(tasks, task);
}

/* The task that failed before the others, or NULL */
static const cJSON *
first_failed(const KindCall *call)
{
	const cJSON *tasks = kind_state_get(call, "tasks");
	const cJSON *found = NULL;
	const cJSON *task;

	cJSON_ArrayForEach(task, tasks)
	{
		if (strcmp(kind_string(task, "end"), "failed") == 0 &&
			(found == NULL || kind_int64(task, "end_ms", INT64_MAX) < kind_int64(found, "end_ms", INT64_MAX)))
			found = task;
	}
	return found;
}

/* The one task of a one-time run is the task itself: it needs no name and no row of its own */
static bool
is_one_time(const KindCall *call)
{
	return kind_member(call->spec, "job_id") == NULL;
}

static cJSON *
build_output(const KindCall *call)
{
	const cJSON *final = kind_state_get(call, "final");
	const cJSON *tasks = kind_state_get(call, "tasks");
	const cJSON *number = kind_member(final, "number_in_job");
	const char *code = kind_string(final, "code");
	cJSON	   *output = cJSON_CreateObject();
	cJSON	   *states;
	const cJSON *task;
	cJSON	   *id = cJSON_CreateString(call->external_run_id ? call->external_run_id : "");
	int64		run_id;

	if (json_int64(id, &run_id))
		cJSON_AddItemToObject(output, "run_id", json_from_int64(run_id));
	cJSON_Delete(id);
	if (number != NULL)
		cJSON_AddItemToObject(output, "number_in_job", cJSON_Duplicate(number, true));
	if (code != NULL)
		cJSON_AddStringToObject(output, "result", code);
	if (is_one_time(call))
		return output;
	if (kind_state_get(call, "outputs") != NULL)
		cJSON_AddItemToObject(output, "outputs", cJSON_Duplicate(kind_state_get(call, "outputs"), true));
	states = cJSON_AddObjectToObject(output, "tasks");
	cJSON_ArrayForEach(task, tasks)
	{
		const char *state = kind_string(task, "code");

		cJSON_AddStringToObject(states, kind_string(task, "key"), state ? state : "UNKNOWN");
	}
	return output;
}

static cJSON *
build_activities(const KindCall *call, const cJSON *failed, const char *error)
{
	const cJSON *tasks = kind_state_get(call, "tasks");
	cJSON	   *activities = cJSON_CreateArray();
	const cJSON *task;

	cJSON_ArrayForEach(task, tasks)
	{
		cJSON	   *entry = cJSON_CreateObject();
		const char *end = kind_string(task, "end");
		char	   *started = kind_time_text(kind_int64(task, "start_ms", 0));
		char	   *ended = kind_time_text(kind_int64(task, "end_ms", 0));

		cJSON_AddStringToObject(entry, "activity", kind_string(task, "key"));
		add_text(entry, "activity_type", kind_string(task, "task_type"), 100);
		cJSON_AddStringToObject(entry, "status", end);
		add_text(entry, "started_at", started, 40);
		add_text(entry, "ended_at", ended, 40);
		if (strcmp(end, "succeeded") != 0)
		{
			add_text(entry, "error_code", kind_string(task, "code"), 200);
			add_text(entry, "error_message", task == failed && error ? error : kind_string(task, "message"), KIND_MAX_MESSAGE);
		}
		cJSON_AddItemToArray(activities, entry);
	}
	return activities;
}

/*
 * CLIENT_ERROR is the notebook's or the job's; but a run that found no room,
 * or ran out of time, may find it the next time.
 */
static bool
is_user_error(const char *type, const char *code)
{
	static const char *const passing[] = {
		"MAX_CONCURRENT_RUNS_EXCEEDED", "MAXIMUM_CONCURRENT_RUNS_REACHED", "MAX_JOB_QUEUE_SIZE_EXCEEDED",
		"WORKSPACE_RUN_LIMIT_EXCEEDED", "CLUSTER_REQUEST_LIMIT_EXCEEDED", "TIMEDOUT",
	};

	return type != NULL && strcmp(type, "CLIENT_ERROR") == 0 && !IS_ONE_OF(code, passing);
}

/* result: of get-output, or NULL */
static void
fail_run(const KindCall *call, const cJSON *failed, const cJSON *result, KindVerdict *verdict)
{
	const char *trace = kind_string(result, "error_trace");
	const cJSON *final = kind_state_get(call, "final");
	const char *code = kind_string(final, "code");
	const char *type = kind_string(failed, "type");
	const char *message = kind_string(result, "error");
	bool		is_user;

	if (type == NULL || strcmp(type, "SUCCESS") == 0)
		type = kind_string(final, "type");
	is_user = is_user_error(type, code);
	if (message == NULL)
		message = kind_string(failed, "message");
	if (message == NULL)
		message = kind_string(final, "message");
	if (message == NULL)
		message = mem_printf("job run %s ended with %s", call->external_run_id, code ? code : "no result");
	if (failed != NULL && !is_one_time(call))
		message = mem_printf("task %s: %s", kind_string(failed, "key"), message);
	if (trace != NULL)
		verdict->error_detail = kind_clean_text(trace, strlen(trace), KIND_MAX_MESSAGE);
	kind_fail(verdict, is_user, !is_user, code ? code : "no_result", message);
}

static void
finish(KindCall *call, const cJSON *result, KindVerdict *verdict)
{
	const cJSON *final = kind_state_get(call, "final");
	const cJSON *failed = first_failed(call);
	const char *end = kind_string(final, "end");
	const char *url = verdict->external_url;

	kind_verdict_init(verdict);
	verdict->external_url = url;
	if (end == NULL)
	{
		/* nobody has said yet how it ended */
		kind_continue(verdict, KIND_STEP_POLL, -1);
		return;
	}
	verdict->output = build_output(call);
	if (is_one_time(call))
		databricks_add_result(result, verdict->output, verdict);
	else
	{
		verdict->activities = build_activities(call, failed, kind_string(result, "error"));
		databricks_note_unknown(call, verdict->output, verdict->activities);
	}
	if (strcmp(end, "succeeded") == 0)
		verdict->outcome = KIND_SUCCEEDED;
	else if (strcmp(end, "cancelled") == 0)
	{
		const char *message = kind_string(final, "message");

		kind_fail(verdict, false, false, "cancelled",
				  message ? message : mem_printf("job run %s was cancelled", call->external_run_id));
		verdict->outcome = KIND_CANCELLED;
	}
	else
		fail_run(call, failed, result, verdict);
}

/* The task run whose output is wanted, or NULL */
static const char *
output_run(KindCall *call, KindVerdict *verdict)
{
	const char *end = kind_string(kind_state_get(call, "final"), "end");
	const cJSON *tasks = kind_state_get(call, "tasks");
	const cJSON *task = NULL;

	if (end != NULL && strcmp(end, "failed") == 0)
		task = first_failed(call);
	if (task == NULL && is_one_time(call))
		task = tasks ? tasks->child : NULL;
	if (end != NULL && strcmp(end, "succeeded") == 0 && !is_one_time(call))
		return databricks_next_output(call, verdict);
	return kind_string(task, "run_id");
}

/* What is still to be asked for, or the outcome */
static void
want_output(KindCall *call, KindVerdict *verdict)
{
	const char *wanted = output_run(call, verdict);

	if (wanted == NULL)
	{
		finish(call, NULL, verdict);
		return;
	}
	kind_state_set_string(call, verdict, "output_run_id", wanted);
	verdict->reset_tries = true;
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
}

/* A page of tasks is kept: the next one, then the outputs that matter, then the outcome */
static void
after_page(KindCall *call, const cJSON *run, KindVerdict *verdict)
{
	const char *token = kind_string(run, "next_page_token");
	int64		pages = kind_state_int64(call, "task_pages", 0);

	if (token != NULL && pages < MAX_PAGES)
	{
		kind_state_set_string(call, verdict, "task_token", token);
		kind_state_set_int64(call, verdict, "task_pages", pages + 1);
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_DETAIL, 0);
		return;
	}
	kind_state_drop(call, verdict, "task_token");
	want_output(call, verdict);
}

void
databricks_ended(KindCall *call, const cJSON *run, const JobState *state, KindVerdict *verdict)
{
	cJSON	   *final = cJSON_CreateObject();
	int64		number = kind_int64(run, "number_in_job", 0);

	cJSON_AddStringToObject(final, "end", state->end == JOB_END_SKIPPED ? "failed" : end_name(state->end));
	add_text(final, "code", state->code, 200);
	add_text(final, "type", state->type, 200);
	add_text(final, "message", state->message, KIND_MAX_MESSAGE);
	if (number > 0)
		cJSON_AddItemToObject(final, "number_in_job", json_from_int64(number));
	kind_state_set(call, verdict, "final", final);
	kind_state_drop(call, verdict, "tasks");
	kind_state_drop(call, verdict, "task_pages");
	kind_state_drop(call, verdict, "outputs");
	keep_tasks(call, run);
	after_page(call, run, verdict);
}

bool
databricks_detail_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *token = kind_state_string(call, "task_token");
	const char *task_run = kind_state_string(call, "output_run_id");
	StrBuf		url;

	if (call->external_run_id == NULL || (token == NULL && task_run == NULL))
		return kind_problem(problem, "$", "there is no job run for step \"detail\"", NULL);
	strbuf_init(&url);
	strbuf_addstr(&url, databricks_url(call, token ? "runs/get" : "runs/get-output"));
	strbuf_addstr(&url, "?run_id=");
	kind_url_encode(&url, token ? call->external_run_id : task_run);
	if (token != NULL)
	{
		strbuf_addstr(&url, "&page_token=");
		kind_url_encode(&url, token);
	}
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
	return true;
}

void
databricks_detail_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		is_page = kind_state_string(call, "task_token") != NULL;
	/* what a one-time run returns is what later tasks work on */
	int			tries = is_one_time(call) ? KIND_LOOK_TRIES : KIND_EXTRA_TRIES;
	cJSON	   *body;

	if (kind_common_response(call, response, false, true, tries, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	body = response->http_status == 200 && response->transport_error == NULL ? kind_parse_object(response) : NULL;
	if (body == NULL && response->http_status == 200 && response->transport_error == NULL)
	{
		kind_bad_answer(call, response, "is no object", false, true, tries, verdict);
		if (verdict->outcome == KIND_CONTINUE)
			return;
	}
	kind_verdict_init(verdict);
	if (is_page)
	{
		keep_tasks(call, body);
		after_page(call, body, verdict);
	}
	else if (databricks_keep_output(call, body, verdict))
		want_output(call, verdict);
	else
		finish(call, body, verdict);
}
