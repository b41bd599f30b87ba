/*-------------------------------------------------------------------------
 * kind.c
 *	  The table of kinds, names of steps, and verdicts they all give alike
 *
 * Runs in the conductor (or a session in weir.conduct()) and, for the table,
 * in sessions that define pipelines.  Pure functions; no locks, no state
 * outside of the call.
 *
 * What must never happen is that work starts twice.  So whenever an answer
 * is missing, the first question is whether the request can have arrived,
 * the second whether it may be repeated, and giving up is retryable only
 * when nothing can have been started: a new attempt has a new token, and no
 * engine could tell that it is a repetition.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>

#include "kind_int.h"
#include "retry.h"

/* A second 401 so soon after a fresh token means: not allowed */
#define UNAUTHORIZED_AGAIN_MS	60000
#define MAX_TROUBLE				500

static const TaskKind *const kinds[] = {
	&kind_adf_pipeline,
	&kind_databricks_jar,
	&kind_databricks_job,
	&kind_databricks_notebook,
	&kind_databricks_pipeline,
	&kind_databricks_python,
	&kind_databricks_serving,
	&kind_databricks_sql,
	&kind_databricks_sql_file,
	&kind_fabric_item,
	&kind_file_away,
	&kind_for_each,
	&kind_http,
	&kind_if,
	&kind_keyvault,
	&kind_noop,
	&kind_pipeline,
	&kind_redis_publish,
	&kind_sql,
	&kind_storage,
	&kind_switch,
	&kind_wait,
	&kind_webhook,
};

static const char *const step_names[] = {
	[KIND_STEP_PREPARE] = "prepare",
	[KIND_STEP_START] = "start",
	[KIND_STEP_LOOKUP] = "lookup",
	[KIND_STEP_POLL] = "poll",
	[KIND_STEP_DETAIL] = "detail",
	[KIND_STEP_CANCEL] = "cancel",
};

const TaskKind *
kind_find(const char *name)
{
	for (size_t i = 0; name != NULL && i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i]->name, name) == 0)
			return kinds[i];
	}
	return NULL;
}

const char *
kind_names(void)
{
	return "adf_pipeline, databricks_jar, databricks_job, databricks_notebook, databricks_pipeline, databricks_python, "
		"databricks_serving, databricks_sql, databricks_sql_file, fabric_item, file_away, for_each, http, if, keyvault, noop, "
		"pipeline, redis_publish, sql, storage, switch, wait, webhook";
}

const char *
kind_step_name(KindStep step)
{
	return (size_t) step < lengthof(step_names) ? step_names[step] : "unknown";
}

bool
kind_step_parse(const char *name, KindStep *step)
{
	for (size_t i = 0; name != NULL && i < lengthof(step_names); i++)
	{
		if (strcmp(step_names[i], name) == 0)
		{
			*step = (KindStep) i;
			return true;
		}
	}
	return false;
}

void
kind_verdict_init(KindVerdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	verdict->outcome = KIND_CONTINUE;
	verdict->next_step = KIND_STEP_POLL;
	verdict->delay_ms = -1;
	verdict->rows_read = -1;
	verdict->rows_written = -1;
}

void
kind_continue(KindVerdict *verdict, KindStep next_step, int64 delay_ms)
{
	verdict->outcome = KIND_CONTINUE;
	verdict->next_step = next_step;
	verdict->delay_ms = delay_ms;
}

void
kind_fail(KindVerdict *verdict, bool is_user_error, bool is_retryable,
		  const char *code, const char *message)
{
	if (message == NULL)
		message = "";
	verdict->outcome = KIND_FAILED;
	verdict->is_user_error = is_user_error;
	verdict->is_retryable = is_retryable;
	verdict->error_code = code ? kind_clean_text(code, strlen(code), 200) : NULL;
	verdict->error_message = kind_clean_text(message, strlen(message), KIND_MAX_MESSAGE);
}

void
kind_fail_unknown(KindVerdict *verdict, const char *message)
{
	kind_fail(verdict, false, false, "outcome_unknown", message);
	verdict->may_go_on = true;
}

/*
 * Kinds see no random source.  Spreading is all that is wanted of one, and
 * the token differs from attempt to attempt.
 */
static double
spread(const KindCall *call)
{
	uint32		hash = 2166136261u;

	for (const char *p = call->token ? call->token : ""; *p != '\0'; p++)
		hash = (hash ^ (unsigned char) *p) * 16777619u;
	hash = (hash ^ (uint32) call->step_tries) * 16777619u;
	hash ^= hash >> 15;
	return (hash & 0xFFFF) / 65536.0;
}

int64
kind_retry_delay(const KindCall *call, int64 retry_after_ms)
{
	static const RetryPolicy policy = {
		.max_attempts = 1,
		.initial_delay_ms = 1000,
		.max_delay_ms = 60000,
		.multiplier = 2.0,
		.jitter = 0.2,
	};

	return retry_delay_ms(&policy, call->step_tries + 1, spread(call), retry_after_ms);
}

/* After a START of this attempt whose answer nobody read? */
static bool
may_run(const KindCall *call)
{
	return kind_state_bool(call, "maybe_started") ||
		call->step == KIND_STEP_LOOKUP || call->step == KIND_STEP_POLL ||
		call->step == KIND_STEP_DETAIL || call->step == KIND_STEP_CANCEL;
}

/* The same step again, or the end of our patience */
static void
try_again(const KindCall *call, int64 retry_after_ms, int max_tries,
		  const char *code, const char *message, KindVerdict *verdict)
{
	if (call->step_tries + 1 < max_tries)
	{
		kind_continue(verdict, call->step, kind_retry_delay(call, retry_after_ms));
		return;
	}
	message = mem_printf("gave up in step \"%s\" after %d tries: %s",
						 kind_step_name(call->step), call->step_tries + 1, message);
	if (!may_run(call))
		kind_fail(verdict, false, true, code, message);
	else if (call->external_run_id != NULL)
		kind_fail_unknown(verdict, mem_printf("%s; run %s may still be going on",
											  message, call->external_run_id));
	else
		kind_fail_unknown(verdict, mem_printf("%s; whether the work was started is not known, look for \"%s\" in the engine before it is run again",
											  message, call->token ? call->token : ""));
}

void
kind_unanswered(const KindCall *call, int64 retry_after_ms, bool arrived,
				bool starts_work, bool is_repeatable, int max_tries,
				const char *code, const char *message, KindVerdict *verdict)
{
	verdict->trouble = kind_clean_text(message, strlen(message), MAX_TROUBLE);
	if (starts_work && arrived)
	{
		if (!kind_state_bool(call, "maybe_started"))
			kind_state_set(call, verdict, "maybe_started", cJSON_CreateTrue());
		if (!is_repeatable)
		{
			kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, retry_after_ms));
			return;
		}
	}
	try_again(call, retry_after_ms, max_tries, code, message, verdict);
}

/* 401, and the 403 of Databricks for a token it does not know or no more, of storage accounts for a key or a SAS that is none of theirs */
bool
kind_is_unauthorized(const KindResponse *response)
{
	static const char *const words[] = {"Invalid access token", "Invalid Token", "token expired", "Token is expired", "Token is expiring"};
	const char *code;

	if (response->http_status == 401)
		return true;
	if (response->http_status != 403)
		return false;
	code = kind_header(response, "x-ms-error-code");
	if (code != NULL && strcmp(code, "AuthenticationFailed") == 0)
		return true;
	for (size_t i = 0; i < lengthof(words); i++)
	{
		if (response->body != NULL && response->body_len < 4096 && strstr(response->body, words[i]) != NULL)
			return true;
	}
	return false;
}

static void
unauthorized(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		last = kind_state_int64(call, "unauthorized_ms", INT64_MIN);
	char	   *code;
	char	   *message;

	if (last == INT64_MIN || call->now_ms - last > UNAUTHORIZED_AGAIN_MS)
	{
		kind_state_set_int64(call, verdict, "unauthorized_ms", call->now_ms);
		verdict->forget_token = true;
		kind_continue(verdict, call->step, 0);
		return;
	}
	kind_body_error(response, &code, &message);
	if (kind_header(response, "x-ms-error-code") != NULL)
		code = kind_header(response, "x-ms-error-code");
	message = mem_printf("HTTP %d: %s", response->http_status, message);
	if (call->external_run_id != NULL)
		message = mem_printf("%s; run %s may still be going on", message, call->external_run_id);
	else if (may_run(call))
		message = mem_printf("%s; whether the work was started is not known", message);
	kind_fail(verdict, true, false, code, message);
	verdict->error_detail = mem_strdup("The credentials were refused again after they had been read or fetched anew: they are wrong, expired or revoked, or meant for something else. "
									   "Give the present ones to weir.alter_secret, or correct auth of the connection.");
	kind_advise(call, response, verdict);
	verdict->may_go_on = call->external_run_id != NULL || may_run(call);
}

/* What runs is worth some patience: a portal may be in the way for a while only */
static int
hopeless_tries(const KindCall *call, int max_tries)
{
	return call->step == KIND_STEP_POLL ? max_tries : Min(max_tries, KIND_HOPELESS_TRIES);
}

/* A page, or an answer without end: somebody has to act, and no other attempt can help */
void
kind_hopeless(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (verdict->outcome != KIND_FAILED || !(response->too_large || kind_is_web_page(response)))
		return;
	verdict->is_user_error = true;
	verdict->is_retryable = false;
	kind_advise(call, response, verdict);
}

bool
kind_common_response(const KindCall *call, const KindResponse *response,
					 bool starts_work, bool is_repeatable, int max_tries,
					 KindVerdict *verdict)
{
	char	   *code;
	char	   *message;

	if (response->http_status <= 0 || response->transport_error != NULL)
	{
		const char *reason = response->transport_error ? response->transport_error : "no answer";

		kind_unanswered(call, response->retry_after_ms,
						response->request_sent || response->http_status > 0,
						starts_work, is_repeatable, response->too_large ? hopeless_tries(call, max_tries) : max_tries,
						response->too_large ? "too_large" : "no_answer", reason, verdict);
		if (response->too_large)
			kind_hopeless(call, response, verdict);
		return true;
	}
	if (kind_is_unauthorized(response))
	{
		unauthorized(call, response, verdict);
		return true;
	}
	if (!retry_http_status_is_transient(response->http_status))
		return false;

	kind_body_error(response, &code, &message);
	/* 429 is a refusal; a gateway's 5xx says nothing about what is behind it */
	kind_unanswered(call, response->retry_after_ms, response->http_status != 429,
					starts_work, is_repeatable, max_tries, code,
					mem_printf("HTTP %d: %s", response->http_status, message), verdict);
	return true;
}

void
kind_bad_answer(const KindCall *call, const KindResponse *response, const char *what,
				bool starts_work, bool is_repeatable, int max_tries,
				KindVerdict *verdict)
{
	size_t		len = response->body ? response->body_len : 0;
	char	   *start = kind_clean_text(response->body, Min(len, 1000), 200);
	char	   *code;

	if (kind_is_web_page(response))
	{
		kind_body_error(response, &code, &start);
		kind_unanswered(call, response->retry_after_ms, true, starts_work, is_repeatable,
						hopeless_tries(call, max_tries), "web_page",
						mem_printf("HTTP %d, but the answer is a web page: %s", response->http_status, start), verdict);
		kind_hopeless(call, response, verdict);
		return;
	}
	kind_unanswered(call, response->retry_after_ms, true, starts_work, is_repeatable,
					max_tries, "bad_answer",
					mem_printf("HTTP %d, but the answer %s: %s", response->http_status,
							   what, *start != '\0' ? start : "(empty)"),
					verdict);
}

void
kind_fail_status(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	bool		is_user_error = status >= 300 && status < 500;
	/* conflicts and locks pass */
	bool		passes = status == 409 || status == 423 || status == 425;
	char	   *code;
	char	   *message;

	kind_body_error(response, &code, &message);
	message = mem_printf("HTTP %d: %s", status, message);
	if (kind_state_bool(call, "maybe_started"))
		message = mem_printf("%s; an earlier try may have started the work", message);
	if (call->external_run_id != NULL)
		message = mem_printf("%s; run %s may still be going on", message, call->external_run_id);
	kind_fail(verdict, is_user_error && !passes,
			  (passes || !is_user_error) && !may_run(call), code, message);
	kind_advise(call, response, verdict);
	verdict->may_go_on = may_run(call);
}

void
kind_fail_unrepeatable(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	char	   *code;
	char	   *message;

	if (!retry_http_status_is_transient(response->http_status))
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	kind_body_error(response, &code, &message);
	/* What stands between us and the service may say so whatever the service made of it. */
	if (response->http_status >= 502 && response->http_status <= 504)
	{
		kind_fail_unknown(verdict, mem_printf("HTTP %d: %s; whether it took effect is not known, and it is not tried again because the task is not marked \"idempotent\"; check the service (Idempotency-Key \"%s\")",
											  response->http_status, message, call->token ? call->token : ""));
		return;
	}
	kind_fail(verdict, false, false, code,
			  mem_printf("HTTP %d: %s; not tried again because the task is not marked \"idempotent\"",
						 response->http_status, message));
	verdict->may_go_on = response->http_status != 429;
}

char *
kind_start_place(const char *kind, const char *id)
{
	/* it goes into an index; two that are alike so far take turns */
	char	   *place = mem_printf("%s/%.200s", kind, id);

	for (char *p = place; *p != '\0'; p++)
		*p = (char) tolower((unsigned char) *p);
	return place;
}

void
kind_leave_place(const KindCall *call, KindVerdict *verdict)
{
	if (verdict->outcome == KIND_FAILED && !verdict->may_go_on)
		kind_state_drop(call, verdict, "start_place");
}

void
kind_state_set(const KindCall *call, KindVerdict *verdict, const char *name, cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, name);
	cJSON_AddItemToObject(call->kind_state, name, value);
	verdict->state_changed = true;
}

void
kind_state_set_int64(const KindCall *call, KindVerdict *verdict, const char *name, int64 value)
{
	kind_state_set(call, verdict, name, json_from_int64(value));
}

void
kind_state_set_string(const KindCall *call, KindVerdict *verdict, const char *name, const char *value)
{
	kind_state_set(call, verdict, name, cJSON_CreateString(value));
}

void
kind_state_drop(const KindCall *call, KindVerdict *verdict, const char *name)
{
	if (kind_state_get(call, name) == NULL)
		return;
	cJSON_DeleteItemFromObjectCaseSensitive(call->kind_state, name);
	verdict->state_changed = true;
}

const cJSON *
kind_state_get(const KindCall *call, const char *name)
{
	return kind_member(call->kind_state, name);
}

int64
kind_state_int64(const KindCall *call, const char *name, int64 absent)
{
	return kind_int64(call->kind_state, name, absent);
}

const char *
kind_state_string(const KindCall *call, const char *name)
{
	return kind_string(call->kind_state, name);
}

bool
kind_state_bool(const KindCall *call, const char *name)
{
	return cJSON_IsTrue(kind_state_get(call, name));
}
