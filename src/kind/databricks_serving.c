/*-------------------------------------------------------------------------
 * databricks_serving.c
 *	  Kind databricks_serving: one request to a model serving endpoint
 *
 * Runs in the conductor.  The answer holds the predictions; there is no run
 * to follow, nothing to look up and nothing to cancel.  A model may be an
 * agent that acts, and every request costs: it is sent twice only when the
 * spec says "idempotent": true.  Else a lost answer ends as outcome_unknown.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define SERVING_TRIES	10		/* an endpoint that scales from zero takes a while */
#define MAX_REQUEST		(16 * 1024 * 1024)

static const KindMember members[] = {
	{"endpoint", KIND_TYPE_STRING, true},
	{"dataframe_records", KIND_TYPE_ARRAY, false},
	{"dataframe_split", KIND_TYPE_OBJECT, false},
	{"instances", KIND_TYPE_ARRAY, false},
	{"inputs", KIND_TYPE_OBJECT | KIND_TYPE_ARRAY, false},
	{"messages", KIND_TYPE_ARRAY, false},
	{"prompt", KIND_TYPE_STRING | KIND_TYPE_ARRAY, false},
	{"input", KIND_TYPE_STRING | KIND_TYPE_ARRAY, false},
	{"params", KIND_TYPE_OBJECT, false},
	{"max_tokens", KIND_TYPE_INTEGER, false},
	{"temperature", KIND_TYPE_NUMBER, false},
	{"n", KIND_TYPE_INTEGER, false},
	{"stop", KIND_TYPE_ARRAY, false},
	{"extra_params", KIND_TYPE_OBJECT, false},
	{"usage_context", KIND_TYPE_OBJECT, false},
	{"client_request_id", KIND_TYPE_STRING, false},
	{"idempotent", KIND_TYPE_BOOLEAN, false},
};

/* What the model is asked: exactly one */
static const char *const inputs[] = {
	"dataframe_records", "dataframe_split", "instances", "inputs", "messages", "prompt", "input",
};

static bool
check_messages(const cJSON *messages, KindProblem *problem)
{
	const cJSON *item;
	int			i = 0;

	cJSON_ArrayForEach(item, messages)
	{
		const cJSON *content = kind_member(item, "content");

		if (kind_string(item, "role") == NULL ||
			(json_string(content) == NULL && !cJSON_IsArray(content) && kind_member(item, "tool_calls") == NULL))
			return kind_problem(problem, mem_printf("$.messages[%d]", i), "a message needs a \"role\" and a \"content\"",
								"For example {\"role\": \"user\", \"content\": \"...\"}.");
		i++;
	}
	return i > 0 || kind_problem(problem, "$.messages", "\"messages\" is empty", NULL);
}

static bool
check_split(const cJSON *split, KindProblem *problem)
{
	const cJSON *columns = kind_member(split, "columns");
	const cJSON *data = kind_member(split, "data");
	const cJSON *row;
	int			i = 0;

	if (!cJSON_IsArray(data) && !kind_may_become(problem, data))
		return kind_problem(problem, "$.dataframe_split.data", "\"data\" must be an array of rows", NULL);
	if (!cJSON_IsArray(columns) || !cJSON_IsArray(data))
		return true;
	cJSON_ArrayForEach(row, data)
	{
		if (!kind_may_become(problem, row) &&
			(!cJSON_IsArray(row) || cJSON_GetArraySize(row) != cJSON_GetArraySize(columns)))
			return kind_problem(problem, mem_printf("$.dataframe_split.data[%d]", i),
								"a row must have a value for each of \"columns\"", NULL);
		i++;
	}
	return true;
}

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	const cJSON *item;
	int			n = 0;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!kind_check_id(spec, "endpoint", "It is the name of a serving endpoint.", problem))
		return false;
	for (size_t i = 0; i < lengthof(inputs); i++)
	{
		item = kind_member(spec, inputs[i]);
		n += item != NULL && !cJSON_IsNull(item);
	}
	if (n != 1)
		return kind_problem(problem, "$", n == 0 ? "nothing is asked of the model" : "the model is asked in more than one way",
							"Give one of dataframe_records, dataframe_split, instances, inputs, messages, prompt and input.");
	item = kind_member(spec, "messages");
	if (cJSON_IsArray(item) && !check_messages(item, problem))
		return false;
	item = kind_member(spec, "dataframe_split");
	return !cJSON_IsObject(item) || check_split(item, problem);
}

static void
serving_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

static bool
is_repeatable(const KindCall *call)
{
	return cJSON_IsTrue(kind_member(call->spec, "idempotent"));
}

static char *
unknown_message(const KindCall *call, const char *reason)
{
	return mem_printf("%s: whether the endpoint %s answered the request is not known; mark the task \"idempotent\" if the model may be asked again",
					  reason, kind_string(call->spec, "endpoint") ? kind_string(call->spec, "endpoint") : "");
}

static KindStep
serving_first_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_START;
}

static KindStep
serving_resume_step(const KindCall *call)
{
	return is_repeatable(call) ? KIND_STEP_START : KIND_STEP_LOOKUP;
}

static char *
build_body(const cJSON *spec)
{
	cJSON	   *body = cJSON_CreateObject();
	char	   *text;

	/* everything but what is ours goes to the model as it is */
	for (size_t i = 0; i < lengthof(members); i++)
	{
		const cJSON *item = kind_member(spec, members[i].name);

		if (item == NULL || cJSON_IsNull(item) || strcmp(members[i].name, "endpoint") == 0 ||
			strcmp(members[i].name, "idempotent") == 0)
			continue;
		cJSON_AddItemToObject(body, members[i].name, cJSON_Duplicate(item, true));
	}
	text = json_text(body);
	cJSON_Delete(body);
	return text;
}

static bool
serving_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	StrBuf		url;

	if (call->step != KIND_STEP_START)
	{
		/* LOOKUP after a crash: there is nobody to ask */
		problem->code = "outcome_unknown";
		problem->is_system_error = true;
		return kind_problem(problem, "$", unknown_message(call, "the conductor was interrupted"), NULL);
	}
	if (!check_spec(call->spec, problem) || !databricks_check_call(call, problem))
		return false;
	strbuf_init(&url);
	strbuf_printf(&url, "%s/serving-endpoints/", call->base_url);
	kind_url_encode(&url, kind_string(call->spec, "endpoint"));
	strbuf_addstr(&url, "/invocations");
	request->method = "POST";
	request->url = url.data;
	request->body = build_body(call->spec);
	request->content_type = "application/json";
	request->starts_work = true;
	request->is_repeatable = is_repeatable(call);
	if (strlen(request->body) > MAX_REQUEST)
		return kind_problem(problem, "$", "the request is longer than the 16 MB an endpoint takes", NULL);
	return true;
}

/* The predictions, or what else the model calls its answer, and what it cost */
static cJSON *
build_output(const cJSON *answer)
{
	static const char *const names[] = {"predictions", "outputs", "choices", "data", "output", "usage", "model", "served_model_name"};
	cJSON	   *output = cJSON_CreateObject();

	for (size_t i = 0; i < lengthof(names); i++)
	{
		const cJSON *item = kind_member(answer, names[i]);

		if (item != NULL && !cJSON_IsNull(item))
			cJSON_AddItemToObject(output, names[i], kind_limited_copy(item, KIND_MAX_OUTPUT));
	}
	/* a model that answers in a shape of its own */
	if (output->child == NULL)
		cJSON_AddItemToObject(output, "answer", kind_limited_copy(answer, KIND_MAX_OUTPUT));
	return output;
}

static void
succeed(const KindCall *call, const cJSON *answer, KindVerdict *verdict)
{
	const cJSON *predictions = kind_member(answer, "predictions");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/ml/endpoints/", call->base_url);
	kind_url_encode(&url, kind_string(call->spec, "endpoint"));
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = build_output(answer);
	verdict->external_url = kind_link(cJSON_CreateString(url.data));
	if (cJSON_IsArray(predictions))
		verdict->rows_read = cJSON_GetArraySize(predictions);
}

static void
serving_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	bool		answered = status > 0 && response->transport_error == NULL;
	bool		arrived = response->request_sent || status > 0;
	cJSON	   *answer;
	char	   *error;

	if (answered && status >= 200 && status <= 299)
	{
		answer = kind_parse_body(response, &error);
		if (answer != NULL)
			succeed(call, answer, verdict);
		else if (is_repeatable(call))
			kind_bad_answer(call, response, "is no JSON", true, true, SERVING_TRIES, verdict);
		else
			kind_fail_unknown(verdict, unknown_message(call, mem_printf("the answer is no JSON: %s", error ? error : "")));
		kind_hopeless(call, response, verdict);
		return;
	}
	if (is_repeatable(call))
	{
		if (!databricks_common_response(call, response, false, true, SERVING_TRIES, verdict))
			kind_fail_status(call, response, verdict);
	}
	else if (!answered && arrived)
	{
		kind_fail_unknown(verdict, unknown_message(call, response->transport_error ? response->transport_error : "no answer"));
		kind_hopeless(call, response, verdict);
	}
	/* not sent, or refused before the model was asked; a gateway's 503 may be either */
	else if ((answered && status != 401 && status != 403 && status != 429) ||
			 !databricks_common_response(call, response, false, true, SERVING_TRIES, verdict))
		kind_fail_unrepeatable(call, response, verdict);
}

static void
serving_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	static const char reason[] = "given up before it was answered";

	if (is_sent && !is_repeatable(call))
		kind_fail_unknown(verdict, unknown_message(call, reason));
	else
	{
		kind_fail(verdict, false, true, "cancelled", reason);
		verdict->outcome = KIND_CANCELLED;
	}
}

const TaskKind kind_databricks_serving = {
	.name = "databricks_serving",
	.connection_kind = "databricks",
	.is_http = true,
	.validate = serving_validate,
	.first_step = serving_first_step,
	.resume_step = serving_resume_step,
	.request = serving_request,
	.response = serving_response,
	.abandon = serving_abandon,
};
