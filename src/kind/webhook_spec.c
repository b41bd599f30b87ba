/*-------------------------------------------------------------------------
 * webhook_spec.c
 *	  Kind webhook: checking a spec
 *
 * Runs in sessions that define pipelines and, on rendered specs, in the
 * conductor.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"
#include "queue.h"

static const KindMember members[] = {
	{"queue", KIND_TYPE_STRING, true},
	{"request", KIND_TYPE_OBJECT, false},
	{"event", KIND_TYPE_OBJECT, false},
	{"token", KIND_TYPE_STRING, false},
	{"every", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
	{"hide_seconds", KIND_TYPE_INTEGER, false},
	{"poison_after", KIND_TYPE_INTEGER, false},
	{"poison_queue", KIND_TYPE_STRING, false},
	{"status", KIND_TYPE_STRING, false},
	{"succeeded", KIND_TYPE_ARRAY, false},
	{"failed", KIND_TYPE_ARRAY, false},
	{"outputs", KIND_TYPE_OBJECT, false},
	{"rows_read", KIND_TYPE_STRING, false},
	{"rows_written", KIND_TYPE_STRING, false},
	{"error", KIND_TYPE_OBJECT, false},
};

static const KindMember request_members[] = {
	{"connection", KIND_TYPE_STRING, true},
	{"method", KIND_TYPE_STRING, false},
	{"url", KIND_TYPE_STRING, false},
	{"path", KIND_TYPE_STRING, false},
	{"query", KIND_TYPE_OBJECT, false},
	{"headers", KIND_TYPE_OBJECT, false},
	{"body", KIND_TYPE_ANY, false},
	{"content_type", KIND_TYPE_STRING, false},
	{"expect_status", KIND_TYPE_ARRAY, false},
	{"idempotent", KIND_TYPE_BOOLEAN, false},
	{"id", KIND_TYPE_STRING, false},
	{"link", KIND_TYPE_STRING, false},
};

static const KindMember event_members[] = {
	{"type", KIND_TYPE_STRING, false},
	{"container", KIND_TYPE_STRING, false},
	{"prefix", KIND_TYPE_STRING, false},
	{"suffix", KIND_TYPE_STRING, false},
};

static const KindMember error_members[] = {
	{"code", KIND_TYPE_STRING, false},
	{"message", KIND_TYPE_STRING, false},
};

/* Problems of an inner object get its place in front */
static bool
check_queue(const cJSON *spec, const char *name, KindProblem *problem)
{
	const cJSON *item = kind_member(spec, name);

	return item == NULL || kind_may_become(problem, item) || queue_name_is_valid(json_string(item)) ||
		kind_problem(problem, mem_printf("$.%s", name), "not the name of a queue",
					 "Names have 3 to 63 lower-case letters, digits and single hyphens.");
}

/* Somewhere in the request the token must stand, or nobody could send it back */
static bool
holds_token(const cJSON *tree)
{
	const cJSON *item;

	if (cJSON_IsString(tree))
		return strstr(tree->valuestring, "{token}") != NULL;
	cJSON_ArrayForEach(item, tree)
	{
		if (holds_token(item))
			return true;
	}
	return false;
}

static bool
check_request(const cJSON *spec, KindProblem *problem)
{
	const cJSON *request = kind_member(spec, "request");
	const char *connection = kind_string(request, "connection");

	if (!kind_check_members(request, request_members, lengthof(request_members), problem))
		return kind_problem_at("$.request", problem);
	if (connection == NULL || kind_may_become(problem, kind_member(request, "connection")))
		return kind_problem(problem, "$.request.connection", "\"connection\" must be the name of a connection", NULL);
	if (!http_check_request(request, problem))
		return kind_problem_at("$.request", problem);
	if (!kind_check_json_path(kind_member(request, "id"), "$.request.id", problem) ||
		!kind_check_json_path(kind_member(request, "link"), "$.request.link", problem))
		return false;
	if (!holds_token(request))
		return kind_problem(problem, "$.request", "the request does not say the token",
							"Write {token} where the service takes it, such as \"body\": {\"callback\": {\"token\": \"{token}\"}}.");
	return true;
}

static bool
check_event(const cJSON *spec, KindProblem *problem)
{
	static const char *const others[] = {"token", "status", "succeeded", "failed"};

	if (!kind_check_members(kind_member(spec, "event"), event_members, lengthof(event_members), problem))
		return kind_problem_at("$.event", problem);
	for (size_t i = 0; i < lengthof(others); i++)
	{
		if (kind_member(spec, others[i]) != NULL)
			return kind_problem(problem, mem_printf("$.%s", others[i]), mem_printf("\"%s\" does not go with \"event\"", others[i]), NULL);
	}
	return true;
}

static bool
check_paths(const cJSON *spec, KindProblem *problem)
{
	static const char *const paths[] = {"token", "status", "rows_read", "rows_written"};
	const cJSON *error = kind_member(spec, "error");
	const cJSON *item;

	for (size_t i = 0; i < lengthof(paths); i++)
	{
		if (!kind_check_json_path(kind_member(spec, paths[i]), mem_printf("$.%s", paths[i]), problem))
			return false;
	}
	cJSON_ArrayForEach(item, kind_member(spec, "outputs"))
	{
		if (!kind_check_json_path(item, mem_printf("$.outputs.%s", kind_clean_text(item->string, strlen(item->string), 64)), problem))
			return false;
	}
	if (error == NULL)
		return true;
	if (!kind_check_members(error, error_members, lengthof(error_members), problem))
		return kind_problem_at("$.error", problem);
	return kind_check_json_path(kind_member(error, "code"), "$.error.code", problem) &&
		kind_check_json_path(kind_member(error, "message"), "$.error.message", problem);
}

bool
webhook_check_spec(const cJSON *spec, KindProblem *problem)
{
	bool		lists = kind_member(spec, "succeeded") != NULL || kind_member(spec, "failed") != NULL;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!check_queue(spec, "queue", problem) || !check_queue(spec, "poison_queue", problem) ||
		!kind_check_integer(spec, "$", "hide_seconds", 1, 3600, problem) || !kind_check_integer(spec, "$", "poison_after", 1, 1000000, problem))
		return false;
	if (!kind_check_duration(kind_member(spec, "every"), "$.every", 100, problem))
		return false;
	if ((kind_member(spec, "request") != NULL) == (kind_member(spec, "event") != NULL))
		return kind_problem(problem, "$", "give either \"request\" or \"event\"",
							"A request is sent and answered by a message with its token; an event is waited for.");
	if ((kind_member(spec, "status") != NULL) != lists)
		return kind_problem(problem, "$", "\"status\" goes with \"succeeded\" or \"failed\"", NULL);
	return check_paths(spec, problem) &&
		(kind_member(spec, "event") != NULL ? check_event(spec, problem) : check_request(spec, problem));
}
