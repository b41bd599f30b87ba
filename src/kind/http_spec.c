/*-------------------------------------------------------------------------
 * http_spec.c
 *	  Kind http: checking what a spec says beyond one exchange
 *
 * Runs in sessions that define pipelines and, on rendered specs, in the
 * conductor.  The first problem wins; its path is that of the member.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "../net/urlparse.h"
#include "http_int.h"
#include "jsonpath.h"

#define MAX_OUTPUTS		100
#define MAX_HOSTS		20
#define MAX_VALUES		50
#define MAX_PAGES		10000
#define MAX_BYTES		(16 * 1024 * 1024)

static const KindMember poll_members[] = {
	{"header", KIND_TYPE_STRING, false}, {"json", KIND_TYPE_STRING, false}, {"path", KIND_TYPE_STRING, false},
	{"query", KIND_TYPE_OBJECT, false}, {"every", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
	{"status", KIND_TYPE_STRING, false}, {"succeeded", KIND_TYPE_ARRAY, false}, {"failed", KIND_TYPE_ARRAY, false},
	{"cancelled", KIND_TYPE_ARRAY, false}, {"running", KIND_TYPE_ARRAY, false}, {"failed_status", KIND_TYPE_ARRAY, false},
};
static const KindMember result_members[] = {
	{"header", KIND_TYPE_STRING, false}, {"json", KIND_TYPE_STRING, false}, {"path", KIND_TYPE_STRING, false},
	{"query", KIND_TYPE_OBJECT, false},
};
static const KindMember cancel_members[] = {
	{"header", KIND_TYPE_STRING, false}, {"json", KIND_TYPE_STRING, false}, {"path", KIND_TYPE_STRING, false},
	{"query", KIND_TYPE_OBJECT, false}, {"method", KIND_TYPE_STRING, false}, {"body", KIND_TYPE_ANY, false},
};
static const KindMember lookup_members[] = {
	{"path", KIND_TYPE_STRING, true}, {"query", KIND_TYPE_OBJECT, false}, {"id", KIND_TYPE_STRING, true},
	{"settle", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
};
static const KindMember error_members[] = {
	{"code", KIND_TYPE_STRING, false}, {"message", KIND_TYPE_STRING, false},
};
static const KindMember pages_members[] = {
	{"items", KIND_TYPE_STRING, true}, {"next", KIND_TYPE_OBJECT, false}, {"cursor", KIND_TYPE_OBJECT, false},
	{"number", KIND_TYPE_OBJECT, false}, {"max_pages", KIND_TYPE_INTEGER, false}, {"max_bytes", KIND_TYPE_INTEGER, false},
	{"truncate", KIND_TYPE_BOOLEAN, false},
};
static const KindMember next_members[] = {
	{"header", KIND_TYPE_STRING, false}, {"json", KIND_TYPE_STRING, false},
};
static const KindMember cursor_members[] = {
	{"json", KIND_TYPE_STRING, true}, {"parameter", KIND_TYPE_STRING, true}, {"in", KIND_TYPE_STRING, false},
};
static const KindMember number_members[] = {
	{"parameter", KIND_TYPE_STRING, true}, {"first", KIND_TYPE_INTEGER, false}, {"in", KIND_TYPE_STRING, false},
};

/* kind_check_members of the member at path */
static bool
check_members(const cJSON *object, const char *path, const KindMember *members, int n, KindProblem *problem)
{
	return kind_check_members(object, members, n, problem) || kind_problem_at(path, problem);
}

#define PATTERN_HINT	"It may hold {id} and {token}, such as \"/jobs/{id}\"."
#define CHECK_MEMBERS(object, path, members, problem) check_members((object), (path), (members), lengthof(members), (problem))

static bool
check_member_path(const cJSON *object, const char *at, const char *name, KindProblem *problem)
{
	return kind_check_json_path(kind_member(object, name), mem_printf("%s.%s", at, name), problem);
}

/* Exactly one of header, json and path */
static bool
check_where(const cJSON *where, const char *at, KindProblem *problem)
{
	const cJSON *header = kind_member(where, "header");
	int			n = (header != NULL) + (kind_member(where, "json") != NULL) + (kind_member(where, "path") != NULL);

	if (n != 1)
		return kind_problem(problem, at, "give exactly one of \"header\", \"json\" and \"path\"",
							"The address is in a header of the answer, at a JSON path of it, or a path such as \"/jobs/{id}\".");
	if (header != NULL && !kind_may_become(problem, header) &&
		(*header->valuestring == '\0' || strlen(header->valuestring) > 100 || strpbrk(header->valuestring, ": \t\r\n") != NULL))
		return kind_problem(problem, mem_printf("%s.header", at), "not the name of a header", NULL);
	if (kind_member(where, "query") != NULL && kind_member(where, "path") == NULL)
		return kind_problem(problem, mem_printf("%s.query", at), "\"query\" goes with \"path\" only", NULL);
	return check_member_path(where, at, "json", problem) &&
		kind_check_path(kind_member(where, "path"), mem_printf("%s.path", at), PATTERN_HINT, problem);
}

/* Lists of scalars */
static bool
check_values(const cJSON *poll, const char *name, KindProblem *problem)
{
	const cJSON *list = kind_member(poll, name);
	const cJSON *item;

	if (!cJSON_IsArray(list))
		return true;
	if (list->child == NULL || cJSON_GetArraySize(list) > MAX_VALUES)
		return kind_problem(problem, mem_printf("$.poll.%s", name), "a list of values has 1 to 50 of them", NULL);
	cJSON_ArrayForEach(item, list)
	{
		if (cJSON_IsObject(item) || cJSON_IsArray(item) || cJSON_IsNull(item))
			return kind_problem(problem, mem_printf("$.poll.%s", name), "a value must be a string, a number, true or false", NULL);
	}
	return true;
}

static bool
check_poll(const cJSON *poll, KindProblem *problem)
{
	static const char *const lists[] = {"succeeded", "failed", "cancelled", "running"};
	const cJSON *item;
	bool		by_value = kind_member(poll, "status") != NULL;
	int64		status;

	if (!CHECK_MEMBERS(poll, "$.poll", poll_members, problem) || !check_where(poll, "$.poll", problem) ||
		!kind_check_duration(kind_member(poll, "every"), "$.poll.every", 0, problem) ||
		!check_member_path(poll, "$.poll", "status", problem))
		return false;
	for (size_t i = 0; i < lengthof(lists); i++)
	{
		if (!check_values(poll, lists[i], problem))
			return false;
		if (kind_member(poll, lists[i]) != NULL && !by_value)
			return kind_problem(problem, "$.poll", mem_printf("\"%s\" needs \"status\"", lists[i]),
								"\"status\" is the JSON path of the value that is compared. Without it HTTP status 202 goes on and any other success is the end.");
	}
	if (by_value && kind_member(poll, "succeeded") == NULL)
		return kind_problem(problem, "$.poll", "\"succeeded\" is missing", "Only the values it lists are taken for success.");
	cJSON_ArrayForEach(item, kind_member(poll, "failed_status"))
	{
		if (!json_int64(item, &status) || status < 400 || status > 599)
			return kind_problem(problem, "$.poll.failed_status", "a status must be an integer from 400 to 599", NULL);
	}
	return true;
}

static bool
check_cancel(const cJSON *cancel, KindProblem *problem)
{
	static const char *const methods[] = {"POST", "DELETE", "PUT", "PATCH", "GET"};
	const char *method = kind_string(cancel, "method");

	if (!CHECK_MEMBERS(cancel, "$.cancel", cancel_members, problem) || !check_where(cancel, "$.cancel", problem))
		return false;
	if (method == NULL || kind_may_become(problem, kind_member(cancel, "method")))
		return true;
	for (size_t i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i], method) == 0)
			return true;
	}
	return kind_problem(problem, "$.cancel.method", "unknown method", "Methods are POST (default), DELETE, PUT, PATCH and GET.");
}

static bool
check_turn(const cJSON *turn, const char *at, KindProblem *problem)
{
	const char *in = kind_string(turn, "in");

	if (in != NULL && strcmp(in, "query") != 0 && strcmp(in, "body") != 0)
		return kind_problem(problem, mem_printf("%s.in", at), "\"in\" must be \"query\" or \"body\"", NULL);
	if (kind_string(turn, "parameter") == NULL)
		return kind_problem(problem, mem_printf("%s.parameter", at), "\"parameter\" is empty", NULL);
	return check_member_path(turn, at, "json", problem);
}

static bool
check_pages(const cJSON *spec, const cJSON *pages, KindProblem *problem)
{
	const cJSON *next = kind_member(pages, "next");
	const cJSON *cursor = kind_member(pages, "cursor");
	const cJSON *number = kind_member(pages, "number");
	const char *method = kind_string(spec, "method");

	if (!CHECK_MEMBERS(pages, "$.pages", pages_members, problem) || !check_member_path(pages, "$.pages", "items", problem))
		return false;
	if ((next != NULL) + (cursor != NULL) + (number != NULL) != 1)
		return kind_problem(problem, "$.pages", "give exactly one of \"next\", \"cursor\" and \"number\"", NULL);
	if (cJSON_IsObject(next) &&
		(!CHECK_MEMBERS(next, "$.pages.next", next_members, problem) || !check_where(next, "$.pages.next", problem)))
		return false;
	if (cJSON_IsObject(cursor) &&
		(!CHECK_MEMBERS(cursor, "$.pages.cursor", cursor_members, problem) || !check_turn(cursor, "$.pages.cursor", problem)))
		return false;
	if (cJSON_IsObject(number) &&
		(!CHECK_MEMBERS(number, "$.pages.number", number_members, problem) || !check_turn(number, "$.pages.number", problem)))
		return false;
	if (next == NULL && method != NULL && strcmp(method, "GET") != 0 && kind_member(spec, "poll") == NULL &&
		kind_member(spec, "result") == NULL && !cJSON_IsTrue(kind_member(spec, "idempotent")))
		return kind_problem(problem, "$.pages", mem_printf("pages by \"cursor\" or \"number\" repeat the request, and %s may not be repeated", method),
							"Say \"idempotent\": true if it only reads.");
	return kind_check_integer(pages, "$.pages", "max_pages", 1, MAX_PAGES, problem) &&
		kind_check_integer(pages, "$.pages", "max_bytes", 1, MAX_BYTES, problem);
}

static bool
check_outputs(const cJSON *outputs, KindProblem *problem)
{
	const cJSON *item;

	if (cJSON_GetArraySize(outputs) > MAX_OUTPUTS)
		return kind_problem(problem, "$.outputs", "more than 100 outputs", NULL);
	cJSON_ArrayForEach(item, outputs)
	{
		char	   *name = kind_clean_text(item->string, strlen(item->string), 64);

		if (!kind_check_json_path(cJSON_IsNull(item) ? NULL : item, mem_printf("$.outputs.%s", name), problem))
			return false;
	}
	return true;
}

static bool
check_hosts(const cJSON *hosts, KindProblem *problem)
{
	const cJSON *item;
	int			i = 0;

	cJSON_ArrayForEach(item, hosts)
	{
		const char *text = json_string(item);
		const char *why = "it must be a string";
		HostRule	rule;

		if (i >= MAX_HOSTS)
			return kind_problem(problem, "$.allow_hosts", "more than 20 hosts", NULL);
		if (!kind_may_become(problem, item) && (text == NULL || !host_rule_parse(text, strlen(text), &rule, &why)))
			return kind_problem(problem, mem_printf("$.allow_hosts[%d]", i), mem_printf("not a host: %s", why),
								"Such as \"api.example.com\", \"*.example.com\" or \"host.example.com:8443\".");
		i++;
	}
	return true;
}

/* The id of the answer is needed for where to look: nothing else says it by then. */
static bool
check_id(const cJSON *spec, KindProblem *problem)
{
	const cJSON *poll = kind_member(spec, "poll");
	const char *path = kind_string(poll, "path");
	const cJSON *query = kind_member(poll, "query");
	const cJSON *item;
	bool		is_needed = path != NULL && strstr(path, "{id}") != NULL;

	cJSON_ArrayForEach(item, query)
	{
		const char *text = json_string(item);

		is_needed |= text != NULL && strstr(text, "{id}") != NULL;
	}
	return !is_needed || kind_member(spec, "id") != NULL ||
		kind_problem(problem, "$.poll", "{id} stands for what \"id\" finds in the answer, and there is no \"id\"",
					 "Add \"id\" with the JSON path of what the answer calls the work, such as \"$.id\".");
}

/* What has no meaning without something to look at */
static bool
check_together(const cJSON *spec, KindProblem *problem)
{
	static const char *const need_poll[] = {"cancel", "lookup"};

	for (size_t i = 0; i < lengthof(need_poll); i++)
	{
		if (kind_member(spec, need_poll[i]) != NULL && kind_member(spec, "poll") == NULL)
			return kind_problem(problem, mem_printf("$.%s", need_poll[i]), mem_printf("\"%s\" needs \"poll\"", need_poll[i]), NULL);
	}
	return check_id(spec, problem);
}

bool
http_check_rest(const cJSON *spec, KindProblem *problem)
{
	static const char *const paths[] = {"id", "link", "rows_read", "rows_written"};
	const cJSON *poll = kind_member(spec, "poll");
	const cJSON *result = kind_member(spec, "result");
	const cJSON *cancel = kind_member(spec, "cancel");
	const cJSON *lookup = kind_member(spec, "lookup");
	const cJSON *error = kind_member(spec, "error");
	const cJSON *pages = kind_member(spec, "pages");

	for (size_t i = 0; i < lengthof(paths); i++)
	{
		if (!check_member_path(spec, "$", paths[i], problem))
			return false;
	}
	if ((cJSON_IsObject(poll) && !check_poll(poll, problem)) || (cJSON_IsObject(cancel) && !check_cancel(cancel, problem)) ||
		(cJSON_IsObject(pages) && !check_pages(spec, pages, problem)))
		return false;
	if (cJSON_IsObject(result) &&
		(!CHECK_MEMBERS(result, "$.result", result_members, problem) || !check_where(result, "$.result", problem)))
		return false;
	if (cJSON_IsObject(lookup) &&
		(!CHECK_MEMBERS(lookup, "$.lookup", lookup_members, problem) ||
		 !kind_check_path(kind_member(lookup, "path"), "$.lookup.path", PATTERN_HINT, problem) ||
		 !check_member_path(lookup, "$.lookup", "id", problem) ||
		 !kind_check_duration(kind_member(lookup, "settle"), "$.lookup.settle", 0, problem)))
		return false;
	if (cJSON_IsObject(error) &&
		(!CHECK_MEMBERS(error, "$.error", error_members, problem) || !check_member_path(error, "$.error", "code", problem) ||
		 !check_member_path(error, "$.error", "message", problem)))
		return false;
	return check_outputs(kind_member(spec, "outputs"), problem) &&
		check_hosts(kind_member(spec, "allow_hosts"), problem) && check_together(spec, problem);
}
