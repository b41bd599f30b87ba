/*-------------------------------------------------------------------------
 * target_kind.c
 *	  Kinds of task: specs of users and answers of services
 *
 * An input is an attempt, told in lines that begin with "=== ":
 *
 *	  === kind NAME			then its spec
 *	  === options			then the connection's options
 *	  === reference			then the earlier run to resume
 *	  === base URL			of the connection
 *	  === answer STATUS [RETRY_AFTER_MS]	then headers, an empty line, the body
 *	  === broken STATUS		the same, but the body broke off
 *	  === lost				the request went out and nothing came back
 *	  === unsent			not even a connection
 *	  === crash				the conductor dies
 *	  === cancel
 *
 * After it the attempt goes on with the same answers from the first one on,
 * for a while.  What the kind says each time must be something that can be
 * stored in tables and acted upon.
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "kind_int.h"
#include "parts.h"

#define NOW_MS		INT64_C(1795226400000)
#define MAX_EVENTS	64
#define MAX_STEPS	60

typedef struct Attempt
{
	const TaskKind *kind;
	KindCall	call;
	KindVerdict verdict;
	const char *committed;		/* kind_state, as text */
	bool		has_ended;
} Attempt;

/* --- what must hold -------------------------------------------------------- */

/* What goes into a column of type text, or jsonb */
static void
check_text(const char *text, const char *what)
{
	if (text != NULL && !fuzz_is_utf8(text))
		fuzz_fail(__FILE__, __LINE__, "%s is not UTF-8: %s", what, text);
}

static void
check_json(const cJSON *tree, const char *what)
{
	char	   *text;
	char	   *error;

	if (tree == NULL)
		return;
	text = json_text(tree);
	if (json_parse_stored(text, &error) == NULL)
		fuzz_fail(__FILE__, __LINE__, "%s is no jsonb: %s: %s", what, error, text);
}

static void
check_activities(const cJSON *activities)
{
	const cJSON *item;
	const cJSON *other;
	int64		ms;

	cJSON_ArrayForEach(item, activities)
	{
		const char *name = kind_string(item, "activity");

		FUZZ_CHECK(name != NULL && kind_string(item, "status") != NULL);
		FUZZ_CHECK(kind_member(item, "started_at") == NULL || kind_time_parse(kind_string(item, "started_at"), &ms));
		FUZZ_CHECK(kind_member(item, "ended_at") == NULL || kind_time_parse(kind_string(item, "ended_at"), &ms));
		for (other = item->next; other != NULL; other = other->next)
			FUZZ_CHECK(strcmp(kind_string(other, "activity"), name) != 0);
	}
}

static void
check_verdict(const Attempt *attempt)
{
	const KindVerdict *verdict = &attempt->verdict;

	check_text(verdict->external_run_id, "external_run_id");
	check_text(verdict->external_url, "external_url");
	check_text(verdict->error_code, "error_code");
	check_text(verdict->error_message, "error_message");
	check_text(verdict->error_detail, "error_detail");
	check_text(verdict->once_key, "once_key");
	check_json(verdict->output, "output");
	check_json(verdict->activities, "activities");
	check_json(verdict->deliveries, "deliveries");
	check_json(attempt->call.kind_state, "kind_state");
	check_activities(verdict->activities);
	FUZZ_CHECK(verdict->external_run_id == NULL || *verdict->external_run_id != '\0');
	if (verdict->outcome == KIND_CONTINUE)
	{
		FUZZ_CHECK(verdict->delay_ms >= -1 && verdict->delay_ms <= INT64_C(2) * 86400000);
		FUZZ_CHECK(verdict->next_step != KIND_STEP_POLL || attempt->call.external_run_id != NULL ||
				   verdict->external_run_id != NULL || attempt->kind->place != NULL);
	}
	if (verdict->outcome == KIND_FAILED)
	{
		FUZZ_CHECK(verdict->error_code != NULL && *verdict->error_code != '\0' && verdict->error_message != NULL);
		FUZZ_CHECK(strlen(verdict->error_message) <= KIND_MAX_MESSAGE);
	}
	FUZZ_CHECK(verdict->rows_read >= -1 && verdict->rows_written >= -1);
}

/* Lines that would end a request's head, or begin another one, are refused when it is sent; these are not looked at. */
static void
check_request(const KindRequest *request)
{
	FUZZ_CHECK(request->method != NULL && request->url != NULL && *request->url != '\0');
	check_text(request->url, "url");
	FUZZ_CHECK(strpbrk(request->url, "\r\n") == NULL);
	if (request->content_type != NULL)
		FUZZ_CHECK(strpbrk(request->content_type, "\r\n") == NULL);
	FUZZ_CHECK(request->headers == NULL || cJSON_IsObject(request->headers));
}

/* --- an attempt ------------------------------------------------------------ */

static cJSON *
tree_of(const FuzzPart *part)
{
	char	   *error;

	return json_parse(part->text, part->len, FUZZ_MAX_INPUT, &error);
}

static void
commit(Attempt *attempt)
{
	attempt->committed = json_text(attempt->call.kind_state);
}

static void
crash(Attempt *attempt)
{
	char	   *error;

	attempt->call.kind_state = json_parse_stored(attempt->committed, &error);
	attempt->call.scratch = cJSON_CreateObject();
	attempt->call.step = attempt->kind->resume_step(&attempt->call);
	attempt->call.step_tries = 0;
	attempt->call.after_crash = true;
}

/* As the conductor does it, minus the database */
static void
follow(Attempt *attempt, KindStep step, const char *state_before)
{
	KindVerdict *verdict = &attempt->verdict;
	KindCall   *call = &attempt->call;

	check_verdict(attempt);
	if (verdict->outcome != KIND_CONTINUE)
	{
		attempt->has_ended = true;
		return;
	}
	FUZZ_CHECK(verdict->state_changed || strcmp(state_before, json_text(call->kind_state)) == 0);
	if (verdict->external_run_id != NULL)
		call->external_run_id = mem_strdup(verdict->external_run_id);
	call->step_tries = verdict->next_step != step || verdict->reset_tries ? 0 : call->step_tries + 1;
	call->step = verdict->next_step;
	if (verdict->state_changed || verdict->next_step != step || verdict->external_run_id != NULL)
		commit(attempt);
	call->now_ms += verdict->delay_ms >= 0 ? verdict->delay_ms : 200;
}

static void
exchange(Attempt *attempt, const KindResponse *response)
{
	KindRequest request;
	KindProblem problem;
	KindStep	step = attempt->call.step;
	char	   *state_before;

	memset(&request, 0, sizeof(request));
	memset(&problem, 0, sizeof(problem));
	if (!attempt->kind->request(&attempt->call, &request, &problem))
	{
		FUZZ_CHECK(problem.message != NULL);
		check_text(problem.message, "problem");
		attempt->has_ended = true;
		return;
	}
	check_request(&request);
	state_before = json_text(attempt->call.kind_state);
	kind_verdict_init(&attempt->verdict);
	attempt->kind->response(&attempt->call, response, &attempt->verdict);
	follow(attempt, step, state_before);
}

static void
read_answer(const FuzzPart *part, const char *numbers, bool is_broken, KindResponse *response)
{
	FuzzAnswer	answer;

	fuzz_answer(part, numbers, &answer);
	memset(response, 0, sizeof(*response));
	response->http_status = answer.status;
	response->retry_after_ms = answer.retry_after_ms;
	response->request_sent = true;
	response->headers = answer.headers;
	response->body = answer.body;
	response->body_len = answer.body_len;
	response->content_type = kind_header(response, "Content-Type");
	if (is_broken)
		response->transport_error = "the answer broke off";
}

static void
go_on(Attempt *attempt, const FuzzPart *part)
{
	KindResponse response = {.body = "", .headers = "", .retry_after_ms = -1};

	if (strcmp(part->line, "crash") == 0)
	{
		crash(attempt);
		return;
	}
	if (strcmp(part->line, "cancel") == 0)
	{
		if (attempt->kind->abandon == NULL || (attempt->kind->can_cancel != NULL && attempt->kind->can_cancel(&attempt->call)))
		{
			if (attempt->call.external_run_id != NULL)
				attempt->call.step = KIND_STEP_CANCEL;
			return;
		}
		kind_verdict_init(&attempt->verdict);
		attempt->kind->abandon(&attempt->call, true, &attempt->verdict);
		check_verdict(attempt);
		attempt->has_ended = true;
		return;
	}
	if (strncmp(part->line, "answer ", 7) == 0 || strncmp(part->line, "broken ", 7) == 0)
		read_answer(part, part->line + 7, part->line[0] == 'b', &response);
	else if (strcmp(part->line, "lost") == 0 || strcmp(part->line, "unsent") == 0)
	{
		response.transport_error = "connection reset by peer";
		response.request_sent = part->line[0] == 'l';
	}
	else
		return;
	exchange(attempt, &response);
}

/* --- reading the input ----------------------------------------------------- */

/* What is said of a spec when it is defined */
static void
validate(const TaskKind *kind, const cJSON *spec)
{
	KindProblem problem;

	memset(&problem, 0, sizeof(problem));
	kind->validate(spec, &problem);
	FUZZ_CHECK(problem.message == NULL || problem.path != NULL);
	check_text(problem.message, "message");
	check_text(problem.path, "path");
	check_text(problem.hint, "hint");
	if (kind->other_connection != NULL)
		(void) kind->other_connection(spec);
	if (kind->has_branch != NULL)
		(void) kind->has_branch(spec, "true");
}

static bool
begin(Attempt *attempt, const FuzzPart *first)
{
	KindCall   *call = &attempt->call;

	memset(attempt, 0, sizeof(*attempt));
	if (strncmp(first->line, "=== kind ", 9) != 0)
		return false;
	attempt->kind = kind_find(first->line + 9);
	call->spec = tree_of(first);
	if (attempt->kind == NULL || !cJSON_IsObject(call->spec))
		return false;
	validate(attempt->kind, call->spec);
	call->token = "weir-k1-42-1";
	call->options = cJSON_CreateObject();
	call->base_url = "https://base";
	call->other_base_url = "https://other";
	call->other_options = cJSON_CreateObject();
	call->kind_state = cJSON_CreateObject();
	call->scratch = cJSON_CreateObject();
	call->intended_at_ms = NOW_MS;
	call->now_ms = NOW_MS;
	return true;
}

static void
decide(Attempt *attempt)
{
	kind_verdict_init(&attempt->verdict);
	attempt->kind->decide(&attempt->call, &attempt->verdict);
	check_verdict(attempt);
	check_json(attempt->verdict.items, "items");
}

void
fuzz_kind(const char *text, size_t len)
{
	const char *at = text;
	const char *end = text + len;
	FuzzPart	parts[MAX_EVENTS];
	int			n = 0;
	FuzzPart	part;
	Attempt		attempt;

	if (!fuzz_part(&at, end, &part) || !begin(&attempt, &part))
		return;
	while (fuzz_part(&at, end, &part) && n < MAX_EVENTS)
	{
		const cJSON *tree = tree_of(&part);

		if (strcmp(part.line, "options") == 0 && cJSON_IsObject(tree))
			attempt.call.options = attempt.call.other_options = tree;
		else if (strcmp(part.line, "reference") == 0 && cJSON_IsObject(tree) && kind_string(tree, "external_run_id") != NULL)
			attempt.call.reference = tree;
		else if (strncmp(part.line, "base ", 5) == 0)
			attempt.call.base_url = "https://base.example/path";
		else
			parts[n++] = part;
	}
	if (attempt.kind->decide != NULL)
		decide(&attempt);
	if (attempt.kind->first_step == NULL || attempt.kind->request == NULL)
		return;
	attempt.call.step = attempt.kind->first_step(&attempt.call);
	commit(&attempt);
	for (int i = 0; n > 0 && i < MAX_STEPS && !attempt.has_ended; i++)
		go_on(&attempt, &parts[i % n]);
}

/* --- probes of connections ------------------------------------------------- */

/* A kind of connection in the first line, then headers and body of the answer */
void
fuzz_probe(const char *text, size_t len)
{
	static const int statuses[] = {200, 302, 400, 401, 403, 404, 500};
	const char *at = text;
	char	   *connection = fuzz_line(&at);
	FuzzPart	part = {.text = at, .len = len - (size_t) (at - text)};
	KindRequest request;
	KindResponse response;
	KindProbe	probe;

	if (connection == NULL || !kind_probe_request(connection, "https://base", cJSON_CreateObject(), NOW_MS, &request))
		return;
	check_request(&request);
	read_answer(&part, "200", false, &response);
	for (size_t i = 0; i < lengthof(statuses); i++)
	{
		response.http_status = statuses[i];
		memset(&probe, 0, sizeof(probe));
		kind_probe_response(connection, NULL, i % 2 != 0, &response, &probe);
		check_text(probe.detail, "detail");
		check_text(probe.hint, "hint");
	}
}
