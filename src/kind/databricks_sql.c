/*-------------------------------------------------------------------------
 * databricks_sql.c
 *	  Kind databricks_sql: a statement on a SQL warehouse
 *
 * Runs in the conductor.  Talks to the Statement Execution API and, when an
 * answer was lost, to the query history.
 *
 *	  START (execute) ------------> POLL ... --> [DETAIL] --> outcome
 *	     |  ^                        ^
 *	     |  | idempotent             |
 *	     |  | and not there          | found
 *	     +--LOOKUP (query history) --+
 *	           |
 *	           +--> not there: outcome_unknown
 *
 * The API has no idempotency token, and the id of a statement is in the
 * answer.  So by default START does not wait for the end of the statement:
 * the answer that must not be lost comes at once.  The statement carries the
 * attempt's token as a query tag, which the history shows.  History comes
 * late, so what is not there is not known not to have run: only a statement
 * that says it is idempotent is sent again.
 *
 * Values come in as parameters.  The text of a statement holds no references,
 * so that nothing from outside becomes SQL.
 *
 * kind_state: looking_since_ms, page_token, pages, starts, started_ms,
 * has_url, and what databricks_statement.c keeps.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <strings.h>

#include "databricks_int.h"

#define TAG					"weir_token"
#define LONGEST_PAUSE_MS	((int64) 600000)	/* what is not asked for within 15 minutes may be dropped (Statement Execution API) */
#define HISTORY_SECONDS		60	/* that the history is given to show a statement */
#define CLOCK_SKEW_MS		((int64) 86400000)	/* the newest come first, so this costs little */
#define MAX_PAGES			20
#define MAX_PARAMETERS		200
#define MAX_TAGS			19	/* and ours */
#define MAX_STATEMENT		(16 * 1024 * 1024)
#define MAX_RESULT_BYTES	(4 * KIND_MAX_OUTPUT)	/* what is kept of it is less */

static const KindMember members[] = {
	{"statement", KIND_TYPE_STRING, true},
	{"warehouse_id", KIND_TYPE_STRING, true},
	{"parameters", KIND_TYPE_OBJECT, false},
	{"catalog", KIND_TYPE_STRING, false},
	{"schema", KIND_TYPE_STRING, false},
	{"max_rows", KIND_TYPE_INTEGER, false},
	{"wait_seconds", KIND_TYPE_INTEGER, false},
	{"query_tags", KIND_TYPE_OBJECT, false},
	{"idempotent", KIND_TYPE_BOOLEAN, false},
};

/* --- the spec -------------------------------------------------------------- */

/* Types a parameter may have; DECIMAL may have a precision */
static bool
is_type(const char *type)
{
	static const char *const types[] = {
		"BIGINT", "BINARY", "BOOLEAN", "BYTE", "DATE", "DECIMAL", "DOUBLE", "FLOAT", "INT", "INTEGER", "INTERVAL DAY",
		"INTERVAL MONTH", "LONG", "NUMERIC", "REAL", "SHORT", "SMALLINT", "STRING", "TIMESTAMP", "TIMESTAMP_NTZ", "TINYINT", "VOID",
	};
	size_t		len = strcspn(type, "(");

	for (size_t i = 0; i < lengthof(types); i++)
	{
		if (strlen(types[i]) == len && strncasecmp(types[i], type, len) == 0)
			return type[len] == '\0' || strspn(type + len, "(0123456789, )") == strlen(type + len);
	}
	return false;
}

static bool
check_parameter(const cJSON *item, KindProblem *problem)
{
	const char *name = item->string;
	char	   *path = mem_printf("$.parameters.%s", kind_clean_text(name, strlen(name), 64));
	const cJSON *value = item;
	const cJSON *type = NULL;

	if ((!isalpha((unsigned char) *name) && *name != '_') || strlen(name) > 255 ||
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") != strlen(name))
		return kind_problem(problem, path, "not the name of a parameter",
							"A parameter called day stands in the statement as :day.");
	if (cJSON_IsObject(item))
	{
		value = kind_member(item, "value");
		type = kind_member(item, "type");
		if (value == NULL || cJSON_GetArraySize(item) > 2 || (cJSON_GetArraySize(item) == 2 && type == NULL))
			return kind_problem(problem, path, "a parameter with a type is {\"value\": ..., \"type\": ...}", NULL);
		if (type != NULL && !kind_may_become(problem, type) && (json_string(type) == NULL || !is_type(type->valuestring)))
			return kind_problem(problem, mem_printf("%s.type", path), "unknown type of a parameter",
								"Types are those of Databricks SQL that hold one value, such as BIGINT, STRING, DATE, TIMESTAMP and DECIMAL(10,2).");
	}
	if (cJSON_IsObject(value) || cJSON_IsArray(value))
		return kind_problem(problem, path, "the value of a parameter must be a scalar or null",
							"Hand a structure over as text and read it with from_json().");
	return true;
}

static bool
check_tags(const cJSON *tags, KindProblem *problem)
{
	const cJSON *item;

	if (cJSON_GetArraySize(tags) > MAX_TAGS)
		return kind_problem(problem, "$.query_tags", mem_printf("more than %d query tags", MAX_TAGS), NULL);
	cJSON_ArrayForEach(item, tags)
	{
		char	   *path = mem_printf("$.query_tags.%s", kind_clean_text(item->string, strlen(item->string), 64));

		if (strcmp(item->string, TAG) == 0)
			return kind_problem(problem, path, "the tag \"" TAG "\" is weir's own", NULL);
		if (cJSON_IsObject(item) || cJSON_IsArray(item))
			return kind_problem(problem, path, "the value of a query tag must be a string", NULL);
	}
	return true;
}

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	const char *statement;
	const cJSON *parameters;
	const cJSON *tags;
	const cJSON *item;
	int64		wait = 0;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	statement = kind_string(spec, "statement");
	if (statement == NULL || strlen(statement) > MAX_STATEMENT)
		return kind_problem(problem, "$.statement", statement ? "\"statement\" is longer than 16 MiB" : "\"statement\" is empty", NULL);
	if (!kind_check_filled(spec, "warehouse_id", problem))
		return false;
	parameters = kind_member(spec, "parameters");
	if (cJSON_GetArraySize(parameters) > MAX_PARAMETERS)
		return kind_problem(problem, "$.parameters", mem_printf("more than %d parameters", MAX_PARAMETERS), NULL);
	if (cJSON_IsObject(parameters))
	{
		cJSON_ArrayForEach(item, parameters)
		{
			if (!check_parameter(item, problem))
				return false;
		}
	}
	tags = kind_member(spec, "query_tags");
	if ((cJSON_IsObject(tags) && !check_tags(tags, problem)) ||
		!kind_check_integer(spec, "$", "max_rows", 0, KIND_SQL_MAX_ROWS, problem) ||
		!kind_check_integer(spec, "$", "wait_seconds", 0, 50, problem))
		return false;
	if (json_int64(kind_member(spec, "wait_seconds"), &wait) && wait > 0 && wait < 5)
		return kind_problem(problem, "$.wait_seconds", "\"wait_seconds\" must be 0 or from 5 to 50",
							"With 0, the default, the statement is started and then asked for.");
	return true;
}

static void
sql_validate(const cJSON *spec, KindProblem *problem)
{
	if (kind_may_become(problem, kind_member(spec, "statement")))
		(void) kind_problem(problem, "$.statement", "the text of a statement must not hold references",
							"Write :name in the statement and give the value in \"parameters\": {\"name\": \"{{...}}\"}; IDENTIFIER(:name) stands for the name of a table.");
	else
		(void) check_spec(spec, problem);
}

/* --- requests -------------------------------------------------------------- */

static char *
statement_url(const KindCall *call, const char *what)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/api/2.0/sql/statements", call->base_url);
	if (call->external_run_id != NULL)
	{
		strbuf_addchar(&url, '/');
		kind_url_encode(&url, call->external_run_id);
	}
	strbuf_addstr(&url, what);
	return url.data;
}

/* All values are text; the type of what JSON has a type for goes along */
static void
add_parameter(cJSON *list, const cJSON *item)
{
	const cJSON *value = cJSON_IsObject(item) ? kind_member(item, "value") : item;
	const char *type = kind_string(item, "type");
	cJSON	   *entry = cJSON_CreateObject();
	int64		ignored;
	double		number;

	if (type == NULL && cJSON_IsBool(value))
		type = "BOOLEAN";
	else if (type == NULL && !cJSON_IsString(value) && json_int64(value, &ignored))
		type = "BIGINT";
	else if (type == NULL && !cJSON_IsString(value) && json_double(value, &number))
		type = "DOUBLE";
	cJSON_AddStringToObject(entry, "name", item->string);
	/* one without a value is NULL */
	if (value != NULL && !cJSON_IsNull(value))
		cJSON_AddStringToObject(entry, "value", kind_scalar_text(value));
	if (type != NULL)
		cJSON_AddStringToObject(entry, "type", type);
	cJSON_AddItemToArray(list, entry);
}

static void
add_tag(cJSON *list, const char *key, const char *value)
{
	cJSON	   *tag = cJSON_CreateObject();

	cJSON_AddStringToObject(tag, "key", key);
	cJSON_AddStringToObject(tag, "value", value);
	cJSON_AddItemToArray(list, tag);
}

static void
start_request(const KindCall *call, KindRequest *request)
{
	static const char *const copied[] = {"statement", "warehouse_id", "catalog", "schema"};
	const cJSON *spec = call->spec;
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *list;
	const cJSON *parameters = kind_member(spec, "parameters");
	const cJSON *tags = kind_member(spec, "query_tags");
	const cJSON *item;

	for (size_t i = 0; i < lengthof(copied); i++)
	{
		if (kind_string(spec, copied[i]) != NULL)
			cJSON_AddStringToObject(body, copied[i], kind_string(spec, copied[i]));
	}
	if (cJSON_IsObject(parameters) && parameters->child != NULL)
	{
		list = cJSON_AddArrayToObject(body, "parameters");
		cJSON_ArrayForEach(item, parameters)
			add_parameter(list, item);
	}
	cJSON_AddStringToObject(body, "wait_timeout", mem_printf(INT64_FORMAT "s", kind_int64(spec, "wait_seconds", 0)));
	cJSON_AddStringToObject(body, "on_wait_timeout", "CONTINUE");
	cJSON_AddStringToObject(body, "disposition", "INLINE");
	cJSON_AddStringToObject(body, "format", "JSON_ARRAY");
	/* more than an inline result may hold would fail the statement */
	cJSON_AddItemToObject(body, "row_limit", json_from_int64(Max(kind_int64(spec, "max_rows", KIND_SQL_DEFAULT_ROWS), 1)));
	cJSON_AddItemToObject(body, "byte_limit", json_from_int64(MAX_RESULT_BYTES));
	list = cJSON_AddArrayToObject(body, "query_tags");
	add_tag(list, TAG, call->token);
	if (cJSON_IsObject(tags))
	{
		cJSON_ArrayForEach(item, tags)
			add_tag(list, item->string, cJSON_IsNull(item) ? "" : kind_scalar_text(item));
	}
	request->url = statement_url(call, "");
	request->starts_work = true;
	databricks_json_body(request, body);
}

static void
history_request(const KindCall *call, KindRequest *request)
{
	const char *token = kind_state_string(call, "page_token");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/api/2.0/sql/history/queries?filter_by.query_start_time_range.start_time_ms=" INT64_FORMAT,
				  call->base_url, call->intended_at_ms - CLOCK_SKEW_MS);
	strbuf_addstr(&url, "&filter_by.warehouse_ids=");
	kind_url_encode(&url, kind_string(call->spec, "warehouse_id"));
	strbuf_addstr(&url, "&max_results=100");
	if (token != NULL)
	{
		strbuf_addstr(&url, "&page_token=");
		kind_url_encode(&url, token);
	}
	request->method = "GET";
	request->url = url.data;
	request->is_repeatable = true;
}

static bool
sql_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	if (!check_spec(call->spec, problem) || !databricks_check_call(call, problem) || !databricks_check_token(call, problem))
		return false;
	if (call->step == KIND_STEP_START)
		start_request(call, request);
	else if (call->step == KIND_STEP_LOOKUP)
		history_request(call, request);
	else if (call->step == KIND_STEP_DETAIL)
		return databricks_chunk_request(call, request, problem);
	else if (call->external_run_id == NULL)
		return kind_problem(problem, "$", mem_printf("there is no statement for step \"%s\"", kind_step_name(call->step)), NULL);
	else
	{
		request->method = call->step == KIND_STEP_CANCEL ? "POST" : "GET";
		request->url = statement_url(call, call->step == KIND_STEP_CANCEL ? "/cancel" : "");
		request->is_repeatable = true;
	}
	return true;
}

/* --- answers --------------------------------------------------------------- */

static void
show_link(KindCall *call, const char *id, KindVerdict *verdict)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/sql/history?queryId=", call->base_url);
	kind_url_encode(&url, id);
	kind_state_set(call, verdict, "has_url", cJSON_CreateTrue());
	verdict->external_url = kind_link(cJSON_CreateString(url.data));
}

static void
follow(KindCall *call, const char *id, KindVerdict *verdict)
{
	kind_state_set_int64(call, verdict, "started_ms", call->now_ms);
	kind_state_drop(call, verdict, "page_token");
	verdict->external_run_id = id;
	show_link(call, id, verdict);
	kind_continue(verdict, KIND_STEP_POLL, -1);
}

static bool
is_state(const cJSON *statement, const char *state)
{
	const char *is = kind_string(kind_member(statement, "status"), "state");

	return is != NULL && strcmp(is, state) == 0;
}

/* What a statement says of itself: it ended, or it is asked again */
static void
read_statement(KindCall *call, const KindResponse *response, const cJSON *statement, KindVerdict *verdict)
{
	if (is_state(statement, "SUCCEEDED") || is_state(statement, "CLOSED") ||
		is_state(statement, "FAILED") || is_state(statement, "CANCELED"))
		databricks_statement_ended(call, statement, verdict);
	else
		kind_continue(verdict, KIND_STEP_POLL, response->retry_after_ms > 0 ? response->retry_after_ms : -1);
}

static void
start_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *statement;
	const char *id;

	if (databricks_common_response(call, response, true, false, KIND_START_TRIES, verdict))
		return;
	if (response->http_status < 200 || response->http_status > 299)
	{
		kind_fail_status(call, response, verdict);
		return;
	}
	statement = kind_parse_object(response);
	id = kind_id(statement, "statement_id");
	if (id == NULL)
	{
		kind_bad_answer(call, response, "names no statement", true, false, KIND_START_TRIES, verdict);
		return;
	}
	/* it may have ended already, but its id is committed first */
	follow(call, id, verdict);
	if (statement != NULL && !is_state(statement, "PENDING") && !is_state(statement, "RUNNING"))
		verdict->delay_ms = 0;
}

/* The id of the statement with our tag on this page, or NULL */
static const char *
tagged(const KindCall *call, const cJSON *list)
{
	const cJSON *query;
	const cJSON *tag;

	if (!cJSON_IsArray(list))
		return NULL;
	cJSON_ArrayForEach(query, list)
	{
		const cJSON *tags = kind_member(query, "query_tags");

		if (!cJSON_IsArray(tags) || kind_id(query, "query_id") == NULL)
			continue;
		cJSON_ArrayForEach(tag, tags)
		{
			const char *key = kind_string(tag, "key");
			const char *value = kind_string(tag, "value");

			if (key != NULL && value != NULL && strcmp(key, TAG) == 0 && strcmp(value, call->token) == 0)
				return kind_id(query, "query_id");
		}
	}
	return NULL;
}

/* All of the history was seen, and the statement is not there */
static void
not_found(KindCall *call, KindVerdict *verdict)
{
	int64		since = kind_state_int64(call, "looking_since_ms", call->now_ms);
	int64		starts = kind_state_int64(call, "starts", 0);

	/* it is looked for as long again should it be sent again */
	kind_state_drop(call, verdict, "page_token");
	kind_state_drop(call, verdict, "pages");
	if (call->now_ms < since + databricks_settle_ms(call, HISTORY_SECONDS))
	{
		kind_continue(verdict, KIND_STEP_LOOKUP, kind_retry_delay(call, -1));
		return;
	}
	kind_state_drop(call, verdict, "looking_since_ms");
	if (cJSON_IsTrue(kind_member(call->spec, "idempotent")) && starts < KIND_MAX_STARTS)
	{
		kind_state_set_int64(call, verdict, "starts", starts + 1);
		kind_continue(verdict, KIND_STEP_START, 0);
		return;
	}
	kind_fail_unknown(verdict, mem_printf("the answer was lost, and the query history of warehouse %s shows no statement with the query tag " TAG " = %s: whether it was executed is not known; look at what it changes before it is run again, or mark the task \"idempotent\" if it may be repeated",
										  kind_string(call->spec, "warehouse_id"), call->token));
}

static void
lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *history;
	const char *id;
	const char *token;
	int64		pages = kind_state_int64(call, "pages", 0);

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	if (kind_state_get(call, "looking_since_ms") == NULL)
		kind_state_set_int64(call, verdict, "looking_since_ms", call->now_ms);
	if (response->http_status >= 400 && response->http_status <= 499)
	{
		/* no such API, or not for us: there is nobody to ask */
		kind_state_set_int64(call, verdict, "looking_since_ms", 0);
		not_found(call, verdict);
		return;
	}
	history = databricks_read_object(call, response, "is no query history", KIND_LOOK_TRIES, verdict);
	if (history == NULL)
		return;
	id = tagged(call, kind_member(history, "res"));
	token = kind_string(history, "next_page_token");
	if (id != NULL)
		follow(call, id, verdict);
	else if (token != NULL && pages < MAX_PAGES)
	{
		kind_state_set_string(call, verdict, "page_token", token);
		kind_state_set_int64(call, verdict, "pages", pages + 1);
		kind_continue(verdict, KIND_STEP_LOOKUP, 0);
	}
	else
		not_found(call, verdict);
}

static void
poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *statement;

	if (databricks_common_response(call, response, false, true, KIND_POLL_TRIES, verdict))
		return;
	if (databricks_is_missing(response))
	{
		if (call->now_ms < kind_state_int64(call, "started_ms", call->intended_at_ms) + databricks_settle_ms(call, HISTORY_SECONDS))
			kind_continue(verdict, KIND_STEP_POLL, kind_retry_delay(call, -1));
		else
			kind_fail_unknown(verdict, mem_printf("statement %s is not there any more: what came of it is not known", call->external_run_id));
		return;
	}
	statement = databricks_read_object(call, response, "is no statement", KIND_POLL_TRIES, verdict);
	if (statement == NULL)
		return;
	if (kind_string(kind_member(statement, "status"), "state") == NULL)
	{
		kind_bad_answer(call, response, "says nothing about the statement", false, true, KIND_POLL_TRIES, verdict);
		return;
	}
	verdict->reset_tries = true;
	/* a statement that somebody named was not followed here */
	if (!kind_state_bool(call, "has_url"))
		show_link(call, call->external_run_id, verdict);
	read_statement(call, response, statement, verdict);
}

static void
sql_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (call->step)
	{
		case KIND_STEP_PREPARE:
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
			databricks_chunk_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			databricks_cancelled(call, response, verdict);
			break;
	}
}

static KindStep
sql_first_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_START;
}

static KindStep
sql_resume_step(const KindCall *call)
{
	if (call->external_run_id == NULL)
		return KIND_STEP_LOOKUP;
	return kind_state_get(call, "result") != NULL ? KIND_STEP_DETAIL : KIND_STEP_POLL;
}

const TaskKind kind_databricks_sql = {
	.name = "databricks_sql",
	.connection_kind = "databricks",
	.is_http = true,
	.validate = sql_validate,
	.first_step = sql_first_step,
	.resume_step = sql_resume_step,
	.request = sql_request,
	.response = sql_response,
	.longest_pause_ms = LONGEST_PAUSE_MS,
};
