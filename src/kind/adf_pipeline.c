/*-------------------------------------------------------------------------
 * adf_pipeline.c
 *	  Kind adf_pipeline: a run of an Azure Data Factory pipeline
 *
 * Runs in the conductor.  Talks to the ARM API, version 2018-06-01.
 *
 *	  [PREPARE] --> START --> POLL ... --> DETAIL ... --> outcome
 *	                 |  ^      ^
 *	            lost |  |      | found
 *	                 v  |      |
 *	                LOOKUP ----+
 *
 * createRun knows no idempotency key.  So every run carries the attempt's
 * token as one more parameter, and a START that may have arrived is looked
 * for by that parameter.  createRun is also only eventually consistent: "not
 * there" counts only for a search that began when settle_seconds had passed
 * since START can have been sent.  Dying in the middle is the same as a lost
 * answer: resume_step says LOOKUP.
 *
 * With "on_restart": "recover" a restart continues the earlier run from the
 * activity that failed (a recovery run).  It takes the earlier run's
 * parameters, token included, so it is looked for in the run group instead,
 * among what is no other attempt's (TaskKind.start_place);
 * and so it is only done when they are those of the task: otherwise, and when
 * the earlier run is gone or cannot be recovered, a new run is started.
 *
 * kind_state: mode, group_id, reference_start_ms, start_place (recovery); start_due_ms,
 * starts; lookup_token, lookup_pages, settle_from_ms, settled; started_ms;
 * has_url; final {status, message, run_start_ms, seen_ms}; activities and what else
 * adf_activities.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "adf_int.h"

#define DEFAULT_SETTLE_SECONDS	30
#define MINUTE_MS				((int64) 60000)
#define HOUR_MS					(60 * MINUTE_MS)
#define DAY_MS					(24 * HOUR_MS)
/* A START is sent, or given up, within this time of when it was due */
#define START_SPAN_MS			(15 * MINUTE_MS)
#define RUNS_KEPT_MS			(366 * DAY_MS)	/* no run is listed for so long */
#define MAX_LOOKUP_PAGES		1000
#define MAX_RETURN_VALUE		(64 * 1024)

static const KindMember members[] = {
	{"pipeline", KIND_TYPE_STRING, true},
	{"parameters", KIND_TYPE_OBJECT, false},
	{"on_restart", KIND_TYPE_STRING, false},
};

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	static const char *const restarts[] = {"rerun", "recover", NULL};
	const char *name;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!kind_check_filled(spec, "pipeline", problem))
		return false;
	name = kind_string(spec, "pipeline");
	if (!kind_may_become(problem, kind_member(spec, "pipeline")) &&
		(strlen(name) > 260 || strpbrk(name, "<>*#.%&:\\+?/") != NULL))
		return kind_problem(problem, "$.pipeline", "not a valid name of a Data Factory pipeline",
							"Names have at most 260 characters and none of < > * # . % & : \\ + ? /");
	return kind_check_choice(spec, "on_restart", restarts,
							 "\"recover\" continues the earlier run from the activity that failed, with the earlier run's parameters.", problem);
}

static void
adf_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

bool
adf_is_terminal(const char *status)
{
	return strcasecmp(status, "Succeeded") == 0 || strcasecmp(status, "Failed") == 0 ||
		strcasecmp(status, "Cancelled") == 0 || strcasecmp(status, "Canceled") == 0;
}

static const char *
correlation_parameter(const KindCall *call)
{
	const char *name = kind_string(call->options, "correlation_parameter");

	return name ? name : "weir_token";
}

static int64
settle_ms(const KindCall *call)
{
	double		seconds = DEFAULT_SETTLE_SECONDS;

	(void) json_double(kind_member(call->options, "settle_seconds"), &seconds);
	return seconds >= 0 && seconds <= 86400 ? (int64) (seconds * 1000) : DEFAULT_SETTLE_SECONDS * 1000;
}

/* Id of the earlier run if the spec wants it continued, else NULL */
static char *
recovered_run(const KindCall *call)
{
	const char *wanted = kind_string(call->spec, "on_restart");

	if (wanted == NULL || strcmp(wanted, "recover") != 0)
		return NULL;
	return kind_id(call->reference, "external_run_id");
}

/* Of a recovery: recoveries of one run are told apart by when they began */
static char *
adf_start_place(const KindCall *call, int64 *lag_ms)
{
	char	   *run_id = recovered_run(call);

	*lag_ms = RUNS_KEPT_MS;
	return run_id ? kind_start_place("adf_pipeline", run_id) : NULL;
}

static bool
is_recovery(const KindCall *call)
{
	const char *mode = kind_state_string(call, "mode");

	return mode != NULL && strcmp(mode, "recover") == 0 && recovered_run(call) != NULL;
}

/* Path of the factory in ARM, percent-encoded */
static void
add_factory(StrBuf *buf, const cJSON *options)
{
	static const struct
	{
		const char *before;
		const char *option;
	}			parts[] = {
		{"/subscriptions/", "subscription_id"},
		{"/resourceGroups/", "resource_group"},
		{"/providers/Microsoft.DataFactory/factories/", "factory"},
	};

	for (size_t i = 0; i < lengthof(parts); i++)
	{
		const char *value = kind_string(options, parts[i].option);

		strbuf_addstr(buf, parts[i].before);
		kind_url_encode(buf, value ? value : "");
	}
}

char *
adf_url(const KindCall *call, const char *collection, const char *name, const char *action)
{
	const char *version = kind_string(call->options, "api_version");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_addstr(&url, call->base_url);
	add_factory(&url, call->options);
	strbuf_printf(&url, "/%s", collection);
	if (name != NULL)
	{
		strbuf_addchar(&url, '/');
		kind_url_encode(&url, name);
	}
	strbuf_addstr(&url, action);
	strbuf_addstr(&url, "?api-version=");
	kind_url_encode(&url, version ? version : ADF_API_VERSION);
	return url.data;
}

/* The portal beside the API's host; national clouds have their own */
static const char *
portal(const char *base_url)
{
	if (base_url != NULL && strstr(base_url, ".usgovcloudapi.net") != NULL)
		return "https://adf.azure.us";
	if (base_url != NULL && strstr(base_url, ".chinacloudapi.cn") != NULL)
		return "https://adf.azure.cn";
	return "https://adf.azure.com";
}

/* Where a person can look at the run; told once */
static void
link_run(KindCall *call, const char *run_id, KindVerdict *verdict)
{
	StrBuf		url;
	StrBuf		factory;

	strbuf_init(&factory);
	add_factory(&factory, call->options);
	strbuf_init(&url);
	strbuf_addstr(&url, portal(call->base_url));
	strbuf_addstr(&url, "/en/monitoring/pipelineruns/");
	kind_url_encode(&url, run_id);
	strbuf_addstr(&url, "?factory=");
	kind_url_encode(&url, factory.data);
	strbuf_free(&factory);
	kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	verdict->external_url = url.data;
}

void
adf_json(KindRequest *request, cJSON *body)
{
	request->method = "POST";
	request->body = json_text(body);
	request->content_type = "application/json";
	cJSON_Delete(body);
}

static bool
start_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const char *marker = correlation_parameter(call);
	const cJSON *parameters = kind_member(call->spec, "parameters");
	char	   *url = adf_url(call, "pipelines", kind_string(call->spec, "pipeline"), "/createRun");
	cJSON	   *body;

	request->starts_work = true;
	if (is_recovery(call))
	{
		StrBuf		buf;

		strbuf_init(&buf);
		strbuf_addstr(&buf, url);
		strbuf_addstr(&buf, "&referencePipelineRunId=");
		kind_url_encode(&buf, recovered_run(call));
		strbuf_addstr(&buf, "&isRecovery=true&startFromFailure=true");
		request->url = buf.data;
		adf_json(request, cJSON_CreateObject());
		return true;
	}
	if (kind_member(parameters, marker) != NULL)
		return kind_problem(problem, mem_printf("$.parameters.%s", marker),
							mem_printf("parameter \"%s\" carries the token of the attempt and cannot be set", marker),
							"Rename the parameter, or choose another correlation_parameter in the connection's options.");
	body = cJSON_IsObject(parameters) ? cJSON_Duplicate(parameters, true) : cJSON_CreateObject();
	cJSON_AddStringToObject(body, marker, call->token);
	request->url = url;
	adf_json(request, body);
	return true;
}

void
adf_window(cJSON *body, int64 after_ms, int64 before_ms)
{
	char	   *after = kind_time_text(after_ms);
	char	   *before = kind_time_text(before_ms);

	cJSON_AddStringToObject(body, "lastUpdatedAfter", after ? after : "1970-01-02T00:00:00.000Z");
	cJSON_AddStringToObject(body, "lastUpdatedBefore", before ? before : "9999-01-01T00:00:00.000Z");
}

void
adf_order(cJSON *body, const char *field, const char *continuation)
{
	cJSON	   *list = cJSON_AddArrayToObject(body, "orderBy");
	cJSON	   *item = cJSON_CreateObject();

	cJSON_AddStringToObject(item, "orderBy", field);
	cJSON_AddStringToObject(item, "order", "ASC");
	cJSON_AddItemToArray(list, item);
	if (continuation != NULL)
		cJSON_AddStringToObject(body, "continuationToken", continuation);
}

/*
 * The window is in the time of the factory, and our clock may be hours off:
 * a run that is outside of it would be started again.  Its end is rounded, so
 * that all pages of a search are asked for with the same window.
 */
static void
lookup_request(const KindCall *call, KindRequest *request)
{
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *filters = cJSON_AddArrayToObject(body, "filters");
	cJSON	   *filter = cJSON_CreateObject();
	cJSON	   *values;
	const char *operand = "PipelineName";
	const char *value = kind_string(call->spec, "pipeline");

	if (is_recovery(call) && kind_state_string(call, "group_id") != NULL)
	{
		operand = "RunGroupId";
		value = kind_state_string(call, "group_id");
	}
	adf_window(body, call->intended_at_ms - DAY_MS,
			   call->now_ms - call->now_ms % HOUR_MS + HOUR_MS + DAY_MS);
	cJSON_AddStringToObject(filter, "operand", operand);
	cJSON_AddStringToObject(filter, "operator", "Equals");
	values = cJSON_AddArrayToObject(filter, "values");
	cJSON_AddItemToArray(values, cJSON_CreateString(value));
	cJSON_AddItemToArray(filters, filter);
	adf_order(body, "RunStart", kind_state_string(call, "lookup_token"));
	request->url = adf_url(call, "queryPipelineRuns", NULL, "");
	request->is_repeatable = true;
	adf_json(request, body);
}

void
adf_activities_request(const KindCall *call, KindRequest *request)
{
	const cJSON *final = kind_state_get(call, "final");
	cJSON	   *body = cJSON_CreateObject();

	adf_window(body, kind_int64(final, "run_start_ms", call->intended_at_ms) - DAY_MS,
			   kind_int64(final, "seen_ms", call->now_ms) + DAY_MS);
	adf_order(body, "ActivityRunStart", kind_state_string(call, "activity_token"));
	request->is_repeatable = true;
	adf_json(request, body);
}

static bool
adf_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	static const char *const needed[] = {"subscription_id", "resource_group", "factory"};
	const char *run_id = call->step == KIND_STEP_PREPARE ? recovered_run(call) : call->external_run_id;

	if (!check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	for (size_t i = 0; i < lengthof(needed); i++)
	{
		if (kind_string(call->options, needed[i]) == NULL)
			return kind_problem(problem, "$", mem_printf("the connection has no option \"%s\"", needed[i]), NULL);
	}
	if (call->step == KIND_STEP_START)
		return start_request(call, request, problem);
	if (call->step == KIND_STEP_LOOKUP)
	{
		lookup_request(call, request);
		return true;
	}
	if (run_id == NULL)
		return kind_problem(problem, "$", mem_printf("there is no pipeline run for step \"%s\"", kind_step_name(call->step)), NULL);
	if (call->step == KIND_STEP_DETAIL)
	{
		adf_activities_request(call, request);
		request->url = adf_url(call, "pipelineruns", call->external_run_id, "/queryActivityruns");
	}
	else if (call->step == KIND_STEP_CANCEL)
	{
		request->method = "POST";
		request->url = mem_printf("%s&isRecursive=true", adf_url(call, "pipelineruns", run_id, "/cancel"));
		request->is_repeatable = true;
	}
	else
	{
		request->method = "GET";
		request->url = adf_url(call, "pipelineruns", run_id, "");
		request->is_repeatable = true;
	}
	return true;
}

static KindStep
adf_first_step(const KindCall *call)
{
	return recovered_run(call) != NULL ? KIND_STEP_PREPARE : KIND_STEP_START;
}

static KindStep
adf_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
		return kind_state_get(call, "final") != NULL ? KIND_STEP_DETAIL : KIND_STEP_POLL;
	/* PREPARE commits the mode before it leads to START */
	if (recovered_run(call) != NULL && kind_state_string(call, "mode") == NULL)
		return KIND_STEP_PREPARE;
	return KIND_STEP_LOOKUP;
}

/* From here on there is a run */
static void
follow(KindCall *call, const char *run_id, KindVerdict *verdict)
{
	static const char *const done[] = {"lookup_token", "lookup_pages", "settle_from_ms", "settled"};

	for (size_t i = 0; i < lengthof(done); i++)
		kind_state_drop(call, verdict, done[i]);
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	verdict->external_run_id = mem_strdup(run_id);
	link_run(call, run_id, verdict);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

/* Is the text the service shows of a parameter that of our value? */
static bool
same_value(const cJSON *ours, const char *theirs)
{
	const char *text = json_string(ours);
	char	   *error;
	cJSON	   *parsed;
	bool		same;

	if (text != NULL)
		return strcmp(text, theirs) == 0;
	if (cJSON_IsBool(ours))
		return strcasecmp(theirs, cJSON_IsTrue(ours) ? "true" : "false") == 0;
	parsed = json_parse(theirs, strlen(theirs), KIND_MAX_BODY, &error);
	same = parsed != NULL && strcmp(json_text(parsed), json_text(ours)) == 0;
	if (parsed != NULL && !same)
		same = cJSON_Compare(parsed, ours, true);
	cJSON_Delete(parsed);
	return same;
}

/*
 * A recovery runs with the parameters of the run it recovers.  If they are no
 * longer those of the task (another day, a repair with corrected ones), only
 * a new run does what is asked.
 */
static bool
same_parameters(const KindCall *call, const cJSON *run)
{
	const cJSON *theirs = kind_member(run, "parameters");
	const cJSON *item;

	if (!cJSON_IsObject(theirs))
		return true;
	cJSON_ArrayForEach(item, kind_member(call->spec, "parameters"))
	{
		const char *text = json_string(kind_member(theirs, item->string));

		if (text == NULL || !same_value(item, text))
			return false;
	}
	return true;
}

static void
prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *status;
	const char *group;
	int64		start_ms = 0;
	int64		lag_ms;
	cJSON	   *run;

	if (kind_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	run = response->http_status == 200 ? kind_parse_object(response) : NULL;
	status = kind_string(run, "status");
	if (response->http_status == 200 && status == NULL)
	{
		kind_bad_answer(call, response, "describes no pipeline run", false, true, KIND_LOOK_TRIES, verdict);
		return;
	}
	if (status == NULL || kind_string(run, "pipelineName") == NULL ||
		strcasecmp(kind_string(run, "pipelineName"), kind_string(call->spec, "pipeline")) != 0 ||
		!same_parameters(call, run))
		kind_state_set_string(call, verdict, "mode", "rerun");
	else if (!adf_is_terminal(status) || strcasecmp(status, "Succeeded") == 0)
	{
		/* it went on, or ended well after all */
		kind_state_set_string(call, verdict, "mode", "adopt");
		follow(call, recovered_run(call), verdict);
		return;
	}
	else
	{
		group = kind_string(run, "runGroupId");
		(void) kind_time_parse(kind_string(run, "runStart"), &start_ms);
		kind_state_set_string(call, verdict, "mode", "recover");
		kind_state_set_string(call, verdict, "group_id", group ? group : recovered_run(call));
		kind_state_set_int64(call, verdict, "reference_start_ms", start_ms);
		kind_state_set_string(call, verdict, "start_place", adf_start_place(call, &lag_ms));
	}
	kind_continue(verdict, KIND_STEP_START, 0);
}

static void
start_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		mine = !kind_common_response(call, response, true, false, KIND_START_TRIES, verdict);
	char	   *run_id = NULL;

	if (mine && response->http_status >= 200 && response->http_status <= 299)
	{
		run_id = kind_id(kind_parse_object(response), "runId");
		if (run_id == NULL)
			kind_bad_answer(call, response, "names no run", true, false, KIND_START_TRIES, verdict);
	}
	else if (mine)
	{
		if (is_recovery(call) && (response->http_status == 400 || response->http_status == 404))
		{
			/* this run cannot be recovered: a new one then, which may be refused for the same reason */
			kind_state_set_string(call, verdict, "mode", "rerun");
			if (!kind_state_bool(call, "maybe_started"))
				kind_state_drop(call, verdict, "start_place");
			kind_continue(verdict, KIND_STEP_START, 0);
			return;
		}
		kind_fail_status(call, response, verdict);
		return;
	}

	if (run_id != NULL)
		follow(call, run_id, verdict);
	else if (verdict->outcome == KIND_CONTINUE && verdict->next_step == KIND_STEP_LOOKUP)
		kind_state_set_int64(call, verdict, "settle_from_ms", call->now_ms);
	else if (verdict->outcome == KIND_CONTINUE)
		kind_state_set_int64(call, verdict, "start_due_ms", call->now_ms + verdict->delay_ms);
}

static bool
is_ours(const KindCall *call, const cJSON *run)
{
	if (is_recovery(call))
	{
		const char *group = kind_string(run, "runGroupId");
		char	   *id = kind_id(run, "runId");
		int64		start_ms;

		return group != NULL && strcasecmp(group, kind_state_string(call, "group_id")) == 0 &&
			id != NULL && strcasecmp(id, recovered_run(call)) != 0 && !kind_is_listed(call->taken, id) &&
			kind_time_parse(kind_string(run, "runStart"), &start_ms) &&
			start_ms > kind_state_int64(call, "reference_start_ms", 0);
	}
	else
	{
		const char *token = kind_string(kind_member(run, "parameters"), correlation_parameter(call));

		return token != NULL && strcmp(token, call->token) == 0;
	}
}

/* A search of all pages found nothing */
static void
not_found(KindCall *call, KindVerdict *verdict)
{
	int64		settle = settle_ms(call);
	int64		from = kind_state_int64(call, "settle_from_ms", -1);
	int64		starts = kind_state_int64(call, "starts", 0);
	int64		pause = Max(Min(settle / 10, 5000), 100);

	kind_state_drop(call, verdict, "lookup_token");
	kind_state_drop(call, verdict, "lookup_pages");
	verdict->reset_tries = true;
	if (from < 0)
	{
		/*
		 * A crash: START was sent some time after it was due and before now.
		 * Long after that it was not sent, or it would be here.
		 */
		from = kind_state_int64(call, "start_due_ms", call->intended_at_ms);
		from = Min(from + START_SPAN_MS, call->now_ms);
		kind_state_set_int64(call, verdict, "settle_from_ms", from);
	}
	if (!kind_state_bool(call, "settled"))
	{
		/* the next search is the one that counts, if it begins late enough */
		if (call->now_ms >= from + settle)
		{
			kind_state_set(call, verdict, "settled", cJSON_CreateTrue());
			pause = 0;
		}
		kind_continue(verdict, KIND_STEP_LOOKUP, Min(pause, Max(from + settle - call->now_ms, 0)));
		return;
	}
	kind_state_drop(call, verdict, "settled");
	kind_state_drop(call, verdict, "settle_from_ms");
	kind_state_drop(call, verdict, "maybe_started");
	if (starts >= KIND_MAX_STARTS)
	{
		kind_fail(verdict, false, true, "no_answer",
				  mem_printf("createRun was sent %d times, was not answered and started nothing", KIND_MAX_STARTS));
		return;
	}
	kind_state_set_int64(call, verdict, "starts", starts + 1);
	kind_state_set_int64(call, verdict, "start_due_ms", call->now_ms);
	kind_continue(verdict, KIND_STEP_START, 0);
}

static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		pages = kind_state_int64(call, "lookup_pages", 0);
	const cJSON *runs;
	const cJSON *run;
	const char *token;
	cJSON	   *body;

	if (kind_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (response->http_status == 400 && kind_state_string(call, "lookup_token") != NULL &&
		call->step_tries < KIND_LOOK_TRIES)
	{
		/* the token went stale: from the first page again */
		kind_state_drop(call, verdict, "lookup_token");
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
		return;
	}
	if (response->http_status != 200)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	body = kind_parse_object(response);
	runs = kind_member(body, "value");
	if (!cJSON_IsArray(runs))
	{
		kind_bad_answer(call, response, "lists no pipeline runs", false, true, KIND_POLL_TRIES, verdict);
		return;
	}
	cJSON_ArrayForEach(run, runs)
	{
		char	   *run_id = is_ours(call, run) ? kind_id(run, "runId") : NULL;

		if (run_id == NULL)
			continue;
		if (is_recovery(call) && call->n_unknown > 0)
			kind_fail_unknown(verdict, mem_printf("the answer to the start was lost, and run %s, which recovers the same run, may be of another attempt whose answer was lost; look whose it is before the task is run again",
												  run_id));
		else
			follow(call, run_id, verdict);
		return;
	}
	token = kind_string(body, "continuationToken");
	if (token == NULL)
		not_found(call, verdict);
	else if (pages >= MAX_LOOKUP_PAGES)
		kind_fail_unknown(verdict, mem_printf("more than %d pages of pipeline runs; whether one has \"%s\" in parameter \"%s\" is not known",
											  MAX_LOOKUP_PAGES, call->token, correlation_parameter(call)));
	else
	{
		kind_state_set_string(call, verdict, "lookup_token", token);
		kind_state_set_int64(call, verdict, "lookup_pages", pages + 1);
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_LOOKUP, 0);
	}
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		settled_ms = kind_state_int64(call, "started_ms", call->intended_at_ms) + settle_ms(call);
	int64		start_ms;
	const char *status;
	const char *message;
	cJSON	   *run;
	const cJSON *value;
	cJSON	   *final;

	if (kind_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (response->http_status == 404)
	{
		if (call->now_ms < settled_ms)
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, -1));
		else
			kind_fail_unknown(verdict, mem_printf("pipeline run %s is not known to the factory", call->external_run_id));
		return;
	}
	if (response->http_status != 200)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	run = kind_parse_object(response);
	status = kind_string(run, "status");
	if (status == NULL)
	{
		kind_bad_answer(call, response, "has no status", false, true, KIND_POLL_TRIES, verdict);
		return;
	}
	verdict->reset_tries = true;
	/* a run that somebody named was not followed here */
	if (!kind_state_bool(call, "has_url"))
		link_run(call, call->external_run_id, verdict);
	if (!adf_is_terminal(status))
	{
		kind_continue(verdict, KIND_STEP_POLL, -1);
		return;
	}
	final = cJSON_CreateObject();
	message = kind_string(run, "message");
	cJSON_AddStringToObject(final, "status", status);
	if (message != NULL)
		cJSON_AddStringToObject(final, "message", kind_clean_text(message, strlen(message), KIND_MAX_MESSAGE));
	if (kind_time_parse(kind_string(run, "runStart"), &start_ms))
		cJSON_AddItemToObject(final, "run_start_ms", json_from_int64(start_ms));
	cJSON_AddItemToObject(final, "seen_ms", json_from_int64(call->now_ms));
	value = kind_member(run, "pipelineReturnValue");
	if (cJSON_IsObject(value) && value->child != NULL)
		cJSON_AddItemToObject(final, "return_value", kind_limited_copy(value, MAX_RETURN_VALUE));
	kind_state_set(call, verdict, "final", final);
	kind_continue(verdict, KIND_STEP_DETAIL, 0);
}

/*
 * A run that has ended cannot be cancelled (400); whatever the answer is, the
 * run's own status says what came of it.
 */
static void
cancel_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (kind_common_response(call, response, false, true, KIND_EXTRA_TRIES, verdict) &&
		verdict->outcome == KIND_CONTINUE)
		return;
	kind_verdict_init(verdict);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

static void
adf_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			prepare_response(call, response, verdict);
			break;
		case KIND_STEP_START:
			start_response(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
			lookup_response(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			poll_response(call, response, verdict);
			break;
		case KIND_STEP_DETAIL:
			adf_activities_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			cancel_response(call, response, verdict);
			break;
	}
}

const TaskKind kind_adf_pipeline = {
	.name = "adf_pipeline",
	.connection_kind = "adf",
	.is_http = true,
	.validate = adf_validate,
	.first_step = adf_first_step,
	.resume_step = adf_resume_step,
	.request = adf_request,
	.response = adf_response,
	.start_place = adf_start_place,
	.listing = &adf_listing,
};
