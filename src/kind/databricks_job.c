/*-------------------------------------------------------------------------
 * databricks_job.c
 *	  Kind databricks_job: a run of a Databricks job
 *
 * Runs in the conductor.  Talks to the Jobs API, version 2.2.
 *
 *	  START (run-now) ------------------> POLL ... --> [DETAIL] --> outcome
 *	                                       ^
 *	  PREPARE --> START (repair) ----------+
 *	    |  ^        |  ^                   |
 *	    |  |refused |  |lost, not there    |
 *	    |  +--------+--LOOKUP--------------+
 *	    +--> the earlier run goes on, or ended well: POLL it
 *	    +--> it is gone: START (run-now)
 *
 * run-now is given the attempt's token: sent again, it answers with the same
 * run.  repair has no such thing, but latest_repair_id makes it a
 * compare-and-set: what PREPARE saw is committed before START sends it, so a
 * second START cannot repair twice, and LOOKUP tells from the repair history
 * whether the first one arrived.
 *
 * A repaired run keeps its id and leaves its terminal state again: its end
 * counts only when the history knows our repair, or its end time changed.
 *
 * kind_state: mode (run_now, repair, adopt), latest_repair_id,
 * earlier_end_ms, repair_id, refusals, starts, and what databricks_follow.c
 * and databricks_run.c keep.  Ids are kept as text: they do not fit a double.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define MAX_REFUSALS			2	/* of repair, then a new run is started */
#define MAX_UNSEEN_MS			((int64) 15 * 60 * 1000)

#define MAX_ONLY	1000		/* tasks of a job */
#define MAX_OUTPUTS	20			/* an exchange each */

static const KindMember members[] = {
	{"job_id", KIND_TYPE_INTEGER | KIND_TYPE_STRING, true},
	{"job_parameters", KIND_TYPE_OBJECT, false},
	{"repair", KIND_TYPE_BOOLEAN, false},
	{"only", KIND_TYPE_ARRAY, false},
	{"outputs", KIND_TYPE_ARRAY, false},
};

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	const cJSON *job = kind_member(spec, "job_id");
	int64		id;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!kind_may_become(problem, job) && (!json_int64(job, &id) || id <= 0))
		return kind_problem(problem, "$.job_id", "\"job_id\" must be a positive integer",
							"It is the number at the end of the job's address.");
	return kind_check_texts(spec, "only", "a task key", MAX_ONLY, problem) &&
		kind_check_texts(spec, "outputs", "a task key", MAX_OUTPUTS, problem);
}

static void
databricks_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

/* The earlier run, if it may be repaired */
static bool
earlier_run(const KindCall *call, int64 *run_id)
{
	if (cJSON_IsFalse(kind_member(call->spec, "repair")))
		return false;
	return json_int64(kind_member(call->reference, "external_run_id"), run_id) && *run_id > 0;
}

static bool
mode_is(const KindCall *call, const char *mode)
{
	const char *current = kind_state_string(call, "mode");

	return current != NULL && strcmp(current, mode) == 0;
}

static KindStep
databricks_first_step(const KindCall *call)
{
	int64		earlier;

	return earlier_run(call, &earlier) ? KIND_STEP_PREPARE : KIND_STEP_START;
}

static KindStep
databricks_resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
		return databricks_resume_run(call);
	/* PREPARE changes nothing, and run-now recognises its token */
	if (kind_state_string(call, "mode") == NULL)
		return databricks_first_step(call);
	return mode_is(call, "repair") ? KIND_STEP_LOOKUP : KIND_STEP_START;
}

static bool
run_now_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *only = kind_member(call->spec, "only");
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *queue;
	int64		job_id;

	if (!json_int64(kind_member(call->spec, "job_id"), &job_id) || job_id <= 0)
		return kind_problem(problem, "$.job_id", "\"job_id\" must be a positive integer", NULL);
	if (!databricks_check_token(call, problem))
		return false;
	cJSON_AddItemToObject(body, "job_id", json_from_int64(job_id));
	cJSON_AddStringToObject(body, "idempotency_token", call->token);
	databricks_add_strings(body, "job_parameters", kind_member(call->spec, "job_parameters"));
	if (cJSON_IsArray(only) && only->child != NULL)
		cJSON_AddItemToObject(body, "only", cJSON_Duplicate(only, true));
	queue = cJSON_AddObjectToObject(body, "queue");
	cJSON_AddTrueToObject(queue, "enabled");
	request->url = databricks_url(call, "run-now");
	request->starts_work = true;
	request->is_repeatable = true;
	databricks_json_body(request, body);
	return true;
}

static void
repair_request(const KindCall *call, int64 run_id, KindRequest *request)
{
	cJSON	   *body = cJSON_CreateObject();
	int64		latest;

	cJSON_AddItemToObject(body, "run_id", json_from_int64(run_id));
	cJSON_AddTrueToObject(body, "rerun_all_failed_tasks");
	if (json_int64(kind_state_get(call, "latest_repair_id"), &latest))
		cJSON_AddItemToObject(body, "latest_repair_id", json_from_int64(latest));
	databricks_add_strings(body, "job_parameters", kind_member(call->spec, "job_parameters"));
	request->url = databricks_url(call, "runs/repair");
	request->starts_work = true;
	databricks_json_body(request, body);
}

static bool
databricks_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	int64		run_id = 0;

	if (!check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (call->step == KIND_STEP_START && !mode_is(call, "repair"))
		return run_now_request(call, request, problem);
	if (call->step == KIND_STEP_DETAIL)
		return databricks_detail_request(call, request, problem);
	if (call->step == KIND_STEP_POLL || call->step == KIND_STEP_CANCEL)
		return databricks_run_request(call, mode_is(call, "repair"), request, problem);
	if (!earlier_run(call, &run_id))
		return kind_problem(problem, "$", mem_printf("there is no job run for step \"%s\"", kind_step_name(call->step)), NULL);
	if (call->step == KIND_STEP_START)
		repair_request(call, run_id, request);
	else
		databricks_get_run(call, run_id, true, request);
	return true;
}

/* Entry of the repair history that began last, not counting the original run; or NULL */
static const cJSON *
newest_repair(const cJSON *run)
{
	const cJSON *history = kind_member(run, "repair_history");
	const cJSON *item;
	const cJSON *newest = NULL;

	if (!cJSON_IsArray(history))
		return NULL;
	cJSON_ArrayForEach(item, history)
	{
		const char *type = kind_string(item, "type");

		if (kind_id(item, "id") == NULL || (type != NULL && strcmp(type, "ORIGINAL") == 0))
			continue;
		if (newest == NULL || kind_int64(item, "start_time", 0) >= kind_int64(newest, "start_time", 0))
			newest = item;
	}
	return newest;
}

static bool
same_text(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

static void
follow_repair(KindCall *call, const char *repair_id, KindVerdict *verdict)
{
	int64		run_id = 0;

	(void) earlier_run(call, &run_id);
	kind_state_set_string(call, verdict, "repair_id", repair_id);
	databricks_follow(call, run_id, verdict);
}

static void
start_anew(KindCall *call, KindVerdict *verdict)
{
	kind_state_set_string(call, verdict, "mode", "run_now");
	kind_state_drop(call, verdict, "latest_repair_id");
	kind_state_drop(call, verdict, "maybe_started");
	kind_continue(verdict, KIND_STEP_START, 0);
}

static void
prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *run;
	const cJSON *newest;
	JobState	state;
	char	   *latest;
	int64		earlier = 0;
	int64		wanted = 0;

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	if (databricks_is_missing(response))
	{
		start_anew(call, verdict);
		return;
	}
	if (!databricks_read_run(call, response, KIND_LOOK_TRIES, &run, &state, verdict))
		return;
	(void) earlier_run(call, &earlier);
	(void) json_int64(kind_member(call->spec, "job_id"), &wanted);
	newest = newest_repair(run);
	latest = newest ? kind_id(newest, "id") : NULL;

	if (kind_int64(run, "job_id", wanted) != wanted)
		start_anew(call, verdict);	/* the task was pointed at another job */
	else if (mode_is(call, "repair") && kind_state_bool(call, "maybe_started") &&
			 latest != NULL && !same_text(latest, kind_state_string(call, "latest_repair_id")))
		follow_repair(call, latest, verdict);
	else if (state.end == JOB_END_NONE || state.end == JOB_END_SUCCEEDED)
	{
		kind_state_set_string(call, verdict, "mode", "adopt");
		databricks_follow(call, earlier, verdict);
	}
	else if (state.end == JOB_END_SKIPPED || kind_state_int64(call, "refusals", 0) >= MAX_REFUSALS)
		start_anew(call, verdict);
	else
	{
		kind_state_set_string(call, verdict, "mode", "repair");
		kind_state_drop(call, verdict, "latest_repair_id");
		kind_state_drop(call, verdict, "maybe_started");
		if (latest != NULL)
			kind_state_set_string(call, verdict, "latest_repair_id", latest);
		kind_state_set_int64(call, verdict, "earlier_end_ms", kind_int64(run, "end_time", 0));
		kind_continue(verdict, KIND_STEP_START, 0);
	}
}

static void
repair_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	char	   *repair_id;

	if (databricks_common_response(call, response, true, false, KIND_START_TRIES, verdict))
		return;
	if (response->http_status == 400 || response->http_status == 404 || response->http_status == 409)
	{
		/* somebody else was faster, or it cannot be repaired: look again */
		kind_state_set_int64(call, verdict, "refusals", kind_state_int64(call, "refusals", 0) + 1);
		kind_continue(verdict, KIND_STEP_PREPARE, kind_retry_delay(call, response->retry_after_ms));
		return;
	}
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	repair_id = kind_id(kind_parse_object(response), "repair_id");
	if (repair_id != NULL)
		follow_repair(call, repair_id, verdict);
	else
		kind_bad_answer(call, response, "names no repair", true, false, KIND_START_TRIES, verdict);
}

/* Did our repair arrive? */
static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		starts = kind_state_int64(call, "starts", 0);
	int64		earlier = 0;
	const cJSON *run;
	const cJSON *newest;
	JobState	state;
	char	   *latest;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (databricks_is_missing(response))
	{
		start_anew(call, verdict);
		return;
	}
	if (!databricks_read_run(call, response, KIND_POLL_TRIES, &run, &state, verdict))
		return;
	(void) earlier_run(call, &earlier);
	newest = newest_repair(run);
	latest = newest ? kind_id(newest, "id") : NULL;
	if (latest != NULL && !same_text(latest, kind_state_string(call, "latest_repair_id")))
		follow_repair(call, latest, verdict);
	else if (state.end == JOB_END_NONE)
	{
		/* it had ended, and goes on: being repaired, even if the history does not say so yet */
		kind_state_set_string(call, verdict, "mode", "adopt");
		databricks_follow(call, earlier, verdict);
	}
	else if (starts >= KIND_MAX_STARTS)
		kind_fail_unknown(verdict, mem_printf("repair of run " INT64_FORMAT " was sent %d times and never answered; look at the run before it is started again",
											  earlier, KIND_MAX_STARTS));
	else
	{
		/* maybe_started stays: latest_repair_id guards the next one */
		kind_state_set_int64(call, verdict, "starts", starts + 1);
		kind_continue(verdict, KIND_STEP_START, kind_retry_delay(call, -1));
	}
}

/* Does the end of a repaired run include our repair? */
static bool
repair_counts(const KindCall *call, const cJSON *run)
{
	const char *ours = kind_state_string(call, "repair_id");
	const cJSON *history = kind_member(run, "repair_history");
	int64		end_ms = kind_int64(run, "end_time", 0);
	const cJSON *item;
	JobState	state;

	if (cJSON_IsArray(history))
	{
		cJSON_ArrayForEach(item, history)
		{
			if (ours != NULL && same_text(kind_id(item, "id"), ours))
				return !databricks_read_state(item, &state) || state.end != JOB_END_NONE;
		}
	}
	return end_ms > 0 && end_ms != kind_state_int64(call, "earlier_end_ms", 0);
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		started_ms = kind_state_int64(call, "started_ms", call->intended_at_ms);
	const cJSON *run;
	JobState	state;

	if (!databricks_poll_run(call, response, &run, &state, verdict))
		return;
	if (state.end != JOB_END_NONE && mode_is(call, "repair") && !repair_counts(call, run))
	{
		if (call->now_ms > started_ms + MAX_UNSEEN_MS)
		{
			kind_fail_unknown(verdict, mem_printf("repair %s of job run %s does not show up in the run",
												  kind_state_string(call, "repair_id"), call->external_run_id));
			return;
		}
		state.end = JOB_END_NONE;
	}
	databricks_polled(call, run, &state, verdict);
}

static void
databricks_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			prepare_response(call, response, verdict);
			break;
		case KIND_STEP_START:
			if (mode_is(call, "repair"))
				repair_response(call, response, verdict);
			else
				databricks_started(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
			lookup_response(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			poll_response(call, response, verdict);
			break;
		case KIND_STEP_DETAIL:
			databricks_detail_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			databricks_cancelled(call, response, verdict);
			break;
	}
}

const TaskKind kind_databricks_job = {
	.name = "databricks_job",
	.connection_kind = "databricks",
	.is_http = true,
	.validate = databricks_validate,
	.first_step = databricks_first_step,
	.resume_step = databricks_resume_step,
	.request = databricks_request,
	.response = databricks_response,
	.listing = &databricks_listing,
};
