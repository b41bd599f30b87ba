/*-------------------------------------------------------------------------
 * storage.c
 *	  Kind storage: blobs listed, waited for, copied, moved, deleted, written
 *
 * Runs in the conductor, and for specs in sessions that define pipelines.
 * Whatever is done may be done again, see storage_int.h: after a crash, and
 * after a lost answer, the attempt goes on where kind_state says.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

#define MAX_SECONDS (366 * 86400)

static const char *const operations[] = {
	[STORAGE_LIST] = "list",
	[STORAGE_WAIT] = "wait",
	[STORAGE_COPY] = "copy",
	[STORAGE_MOVE] = "move",
	[STORAGE_DELETE] = "delete",
	[STORAGE_PUT] = "put",
};

static const KindMember list_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"container", KIND_TYPE_STRING, true},
	{"prefix", KIND_TYPE_STRING, false},
	{"glob", KIND_TYPE_STRING, false},
	{"max_files", KIND_TYPE_INTEGER, false},
};

static const KindMember wait_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"container", KIND_TYPE_STRING, true},
	{"prefix", KIND_TYPE_STRING, false},
	{"glob", KIND_TYPE_STRING, false},
	{"max_files", KIND_TYPE_INTEGER, false},
	{"min_count", KIND_TYPE_INTEGER, false},
	{"min_age_seconds", KIND_TYPE_INTEGER, false},
	{"stable", KIND_TYPE_BOOLEAN, false},
	{"every_seconds", KIND_TYPE_INTEGER, false},
	{"within_seconds", KIND_TYPE_INTEGER, false},
};

static const KindMember move_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"container", KIND_TYPE_STRING, true},
	{"to_container", KIND_TYPE_STRING, false},
	{"from", KIND_TYPE_STRING, false},
	{"to", KIND_TYPE_STRING, true},
	{"files", KIND_TYPE_ARRAY, false},
	{"etag", KIND_TYPE_STRING, false},
	{"overwrite", KIND_TYPE_BOOLEAN, false},
};

static const KindMember delete_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"container", KIND_TYPE_STRING, true},
	{"name", KIND_TYPE_STRING, false},
	{"files", KIND_TYPE_ARRAY, false},
	{"etag", KIND_TYPE_STRING, false},
};

static const KindMember put_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"container", KIND_TYPE_STRING, true},
	{"name", KIND_TYPE_STRING, true},
	{"text", KIND_TYPE_ANY, true},
	{"content_type", KIND_TYPE_STRING, false},
	{"overwrite", KIND_TYPE_BOOLEAN, false},
};

StorageOperation
storage_operation(const cJSON *spec)
{
	const char *name = kind_string(spec, "operation");

	for (size_t i = 0; name != NULL && i < lengthof(operations); i++)
	{
		if (strcmp(operations[i], name) == 0)
			return (StorageOperation) i;
	}
	return STORAGE_UNKNOWN;
}

static bool
check_list(const cJSON *spec, KindProblem *problem)
{
	const char *prefix = kind_string(spec, "prefix");
	const char *glob = kind_string(spec, "glob");
	const char *why = prefix ? storage_name_problem(prefix, true) : NULL;

	if (why != NULL)
		return kind_problem(problem, "$.prefix", mem_printf("\"prefix\" %s", why), NULL);
	if (glob != NULL && strlen(glob) > 256)
		return kind_problem(problem, "$.glob", "\"glob\" is longer than 256 bytes", NULL);
	return kind_check_integer(spec, "$", "max_files", 1, STORAGE_MAX_FILES, problem) &&
		kind_check_integer(spec, "$", "min_count", 1, STORAGE_MAX_FILES, problem) &&
		kind_check_integer(spec, "$", "min_age_seconds", 0, MAX_SECONDS, problem) &&
		kind_check_integer(spec, "$", "every_seconds", 1, 86400, problem) &&
		kind_check_integer(spec, "$", "within_seconds", 1, MAX_SECONDS, problem);
}

static bool
check_put(const cJSON *spec, KindProblem *problem)
{
	const char *type = kind_string(spec, "content_type");
	const char *why = storage_name_problem(kind_string(spec, "name") ? kind_string(spec, "name") : "", false);

	if (why != NULL)
		return kind_problem(problem, "$.name", mem_printf("\"name\" %s", why), NULL);
	if (strlen(kind_scalar_text(kind_member(spec, "text"))) > STORAGE_MAX_TEXT)
		return kind_problem(problem, "$.text", "\"text\" is longer than 256 kB", "Large files are written by the engines that make them.");
	for (; type != NULL && *type != '\0'; type++)
	{
		if ((unsigned char) *type < ' ' || *type == 0x7F)
			return kind_problem(problem, "$.content_type", "not a content type", NULL);
	}
	return true;
}

static bool
check_containers(const cJSON *spec, KindProblem *problem)
{
	static const char *const names[] = {"container", "to_container"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		const char *name = kind_string(spec, names[i]);

		if (name != NULL && !kind_text_may_become(problem, name) && !storage_container_is_valid(name))
			return kind_problem(problem, mem_printf("$.%s", names[i]), "not the name of a container",
								"It has 3 to 63 lower case letters, digits and hyphens.");
	}
	return kind_string(spec, "container") != NULL || kind_problem(problem, "$.container", "\"container\" is empty", NULL);
}

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	static const char hint[] = "Operations are list, wait, copy, move, delete and put.";
	const KindMember *members = list_members;
	int			n = lengthof(list_members);
	StorageOperation operation = storage_operation(spec);

	if (operation == STORAGE_UNKNOWN)
		return kind_problem(problem, "$.operation", cJSON_IsObject(spec) && kind_member(spec, "operation") ?
							"unknown operation" : "\"operation\" is missing", hint);
	if (operation == STORAGE_WAIT)
	{
		members = wait_members;
		n = lengthof(wait_members);
	}
	else if (operation == STORAGE_COPY || operation == STORAGE_MOVE)
	{
		members = move_members;
		n = lengthof(move_members);
	}
	else if (operation == STORAGE_DELETE)
	{
		members = delete_members;
		n = lengthof(delete_members);
	}
	else if (operation == STORAGE_PUT)
	{
		members = put_members;
		n = lengthof(put_members);
	}
	if (!kind_check_members(spec, members, n, problem) || !check_containers(spec, problem))
		return false;
	if (operation == STORAGE_LIST || operation == STORAGE_WAIT)
		return check_list(spec, problem);
	if (operation == STORAGE_PUT)
		return check_put(spec, problem);
	return storage_move_check(spec, problem);
}

static void
storage_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

KindStep
storage_step(const KindCall *call)
{
	(void) call;
	return KIND_STEP_START;
}

/* --- put ------------------------------------------------------------------------ */

static void
put_request(const KindCall *call, KindRequest *request)
{
	const char *type = kind_string(call->spec, "content_type");
	const cJSON *text = kind_member(call->spec, "text");
	cJSON	   *headers = storage_headers(call);

	request->url = storage_url(call->base_url, kind_string(call->spec, "container"), kind_string(call->spec, "name"));
	request->headers = headers;
	request->accept = "*/*";
	request->is_repeatable = true;
	if (kind_state_string(call, "phase") != NULL)
	{
		request->method = "GET";
		return;
	}
	request->method = "PUT";
	request->body = kind_scalar_text(text);
	request->content_type = type ? type : cJSON_IsString(text) ? "text/plain; charset=utf-8" : "application/json";
	cJSON_AddStringToObject(headers, "x-ms-blob-type", "BlockBlob");
	if (!cJSON_IsTrue(kind_member(call->spec, "overwrite")))
		cJSON_AddStringToObject(headers, "If-None-Match", "*");
}

static void
put_done(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *etag = kind_header(response, "ETag");
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddStringToObject(output, "name", kind_string(call->spec, "name"));
	cJSON_AddNumberToObject(output, "bytes", (double) strlen(kind_scalar_text(kind_member(call->spec, "text"))));
	if (etag != NULL)
		cJSON_AddStringToObject(output, "etag", storage_etag(etag, strlen(etag)));
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = output;
}

/* Something is there already: if it is this very text, an earlier try wrote it, or might have. */
static void
put_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *text = kind_scalar_text(kind_member(call->spec, "text"));
	int			status = response->http_status;

	if (storage_common_response(call, response, verdict))
		return;
	if (kind_state_string(call, "phase") == NULL)
	{
		if (status == 201)
			put_done(call, response, verdict);
		else if (status == 409 && strcmp(storage_error_code(response), "BlobAlreadyExists") == 0)
		{
			kind_state_set_string(call, verdict, "phase", "compare");
			storage_go_on(verdict, 0);
		}
		else
			storage_fail(call, response, "the file was not written", verdict);
	}
	else if (status == 200 && response->body_len == strlen(text) && memcmp(response->body, text, response->body_len) == 0)
		put_done(call, response, verdict);
	else if (status == 200)
		kind_fail(verdict, true, false, "destination_exists", "there is another file of this name already");
	else
		storage_fail(call, response, "the file that is there cannot be read", verdict);
}

/* --- the kind ------------------------------------------------------------------- */

static bool
storage_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	if (!check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	switch (storage_operation(call->spec))
	{
		case STORAGE_LIST:
		case STORAGE_WAIT:
			storage_list_request(call, request);
			return true;
		case STORAGE_PUT:
			put_request(call, request);
			return true;
		case STORAGE_COPY:
		case STORAGE_MOVE:
		case STORAGE_DELETE:
			return storage_move_request(call, request, problem);
		case STORAGE_UNKNOWN:
			break;
	}
	return false;
}

static void
storage_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	switch (storage_operation(call->spec))
	{
		case STORAGE_LIST:
		case STORAGE_WAIT:
			storage_list_response(call, response, verdict);
			break;
		case STORAGE_PUT:
			put_response(call, response, verdict);
			break;
		default:
			storage_move_response(call, response, verdict);
			break;
	}
}

const TaskKind kind_storage = {
	.name = "storage",
	.connection_kind = "storage",
	.is_http = true,
	.is_resumable = true,
	.validate = storage_validate,
	.first_step = storage_step,
	.resume_step = storage_resume_step,
	.request = storage_request,
	.response = storage_response,
	.abandon = storage_abandon,
	.can_cancel = storage_can_cancel,
	.how_far = storage_how_far,
};
