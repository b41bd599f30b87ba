/*-------------------------------------------------------------------------
 * storage_file.c
 *	  Copying, moving and deleting blobs: the files of a spec, where an
 *	  attempt is with them, and what it asks next
 *
 * Runs in the conductor, and for specs in sessions that define pipelines.
 * What the answers mean, and so the way through the phases, is in
 * storage_move.c and storage_pending.c.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

bool
storage_is_delete(const cJSON *spec)
{
	return storage_operation(spec) == STORAGE_DELETE;
}

/* A file_away has no operation: it moves. */
bool
storage_is_move(const cJSON *spec)
{
	return storage_operation(spec) == STORAGE_MOVE || storage_operation(spec) == STORAGE_UNKNOWN;
}

/*
 * Where the attempt is: in memory, or as it was committed when this process
 * has not read an answer yet.  NULL at the beginning.
 */
const cJSON *
storage_work(const KindCall *call)
{
	const cJSON *state = kind_member(call->scratch, "work");

	return state ? state : kind_state_get(call, "work");
}

int64
storage_moved(const KindCall *call)
{
	return kind_int64(storage_work(call), "moved", 0);
}

bool
storage_has_crashed(const KindCall *call)
{
	return cJSON_IsTrue(kind_member(storage_work(call), "crashed")) ||
		(call->after_crash && kind_member(call->scratch, "work") == NULL);
}

static const char *
phase_of(const KindCall *call)
{
	const char *phase = kind_string(storage_work(call), "phase");

	return phase ? phase : storage_is_delete(call->spec) ? "delete" : "look";
}

bool
storage_in_phase(const KindCall *call, const char *phase)
{
	return strcmp(phase_of(call), phase) == 0;
}

int
storage_file_count(const cJSON *spec)
{
	const cJSON *files = kind_member(spec, "files");

	return cJSON_IsArray(files) ? cJSON_GetArraySize(files) : 1;
}

/* The file of an entry of "files"; NULL: the one file of the spec */
static StorageFile
file_of(const cJSON *spec, const cJSON *item)
{
	const char *from = kind_string(spec, "from");
	const char *to = kind_string(spec, "to");
	StorageFile file = {NULL, NULL, -1, NULL};

	if (item == NULL)
	{
		file.name = storage_is_delete(spec) ? kind_string(spec, "name") : from;
		file.etag = kind_string(spec, "etag");
		file.target = to ? mem_strdup(to) : NULL;
		return file;
	}
	file.name = cJSON_IsString(item) ? item->valuestring : kind_string(item, "name");
	file.etag = kind_string(item, "etag");
	file.size = kind_int64(item, "size", -1);
	if (to != NULL && file.name != NULL)
		file.target = mem_printf("%s%s", to, file.name + (from && strncmp(file.name, from, strlen(from)) == 0 ? strlen(from) : 0));
	return file;
}

StorageFile
storage_current_file(const KindCall *call)
{
	const cJSON *files = kind_member(call->spec, "files");
	int			i = (int) kind_int64(storage_work(call), "i", 0);

	return file_of(call->spec, cJSON_IsArray(files) ? cJSON_GetArrayItem(files, i) : NULL);
}

static const char *
target_container(const cJSON *spec)
{
	const char *other = kind_string(spec, "to_container");

	return other ? other : kind_string(spec, "container");
}

char *
storage_source_url(const KindCall *call)
{
	return storage_url(call->base_url, kind_string(call->spec, "container"), storage_current_file(call).name);
}

char *
storage_target_url(const KindCall *call, const char *base_url)
{
	return storage_url(base_url, target_container(call->spec), storage_current_file(call).target);
}

/* --- the spec ------------------------------------------------------------------ */

/* item: the entry i of "files", or NULL for a single file */
static bool
check_file(const cJSON *spec, const cJSON *item, int i, KindProblem *problem)
{
	const char *from = kind_string(spec, "from");
	const char *path = item ? mem_printf("$.files[%d]", i) : storage_is_delete(spec) ? "$.name" : "$.from";
	StorageFile file;
	const char *why;

	if (item != NULL && from != NULL && !kind_may_become(problem, kind_member(spec, "from")))
	{
		const char *name = cJSON_IsString(item) ? item->valuestring : kind_string(item, "name");

		if (name != NULL && strncmp(name, from, strlen(from)) != 0 && !kind_text_may_become(problem, name))
			return kind_problem(problem, path, mem_printf("file \"%s\" is not below \"from\"", kind_clean_text(name, strlen(name), 200)),
								"\"from\" is the part of the names that \"to\" takes the place of.");
	}
	file = file_of(spec, item);
	if (file.name == NULL)
		return kind_problem(problem, path, "a file must be a name, or an object with \"name\"", NULL);
	why = storage_name_problem(file.name, false);
	if (why == NULL && file.target != NULL)
	{
		why = storage_name_problem(file.target, false);
		if (why != NULL && item == NULL)
			path = "$.to";
	}
	if (why != NULL)
		return kind_problem(problem, path, mem_printf("the name of a file %s", why), NULL);
	if (file.target != NULL && strcmp(file.target, file.name) == 0 &&
		strcmp(target_container(spec), kind_string(spec, "container")) == 0)
		return kind_problem(problem, "$.to", "source and target are the same", NULL);
	return true;
}

bool
storage_move_check(const cJSON *spec, KindProblem *problem)
{
	const cJSON *files = kind_member(spec, "files");
	const char *to = kind_string(spec, "to");
	bool		has_single = kind_string(spec, storage_is_delete(spec) ? "name" : "from") != NULL;
	const cJSON *item;
	int			n = storage_file_count(spec);
	int			i = 0;

	if ((storage_operation(spec) == STORAGE_COPY || storage_operation(spec) == STORAGE_MOVE) && to == NULL)
		return kind_problem(problem, "$.to", "\"to\" is empty", NULL);
	if (kind_may_become(problem, files))
		return true;			/* looked at when it is known */
	if (files == NULL && !has_single)
		return kind_problem(problem, "$", storage_is_delete(spec) ? "give either \"name\" or \"files\"" : "give either \"from\" or \"files\"", NULL);
	if (files != NULL && kind_member(spec, "etag") != NULL)
		return kind_problem(problem, "$.etag", "\"etag\" is for a single file", "Files of a list have ETags of their own: {\"name\", \"etag\"}.");
	if (n > STORAGE_MAX_FILES)
		return kind_problem(problem, "$.files", "more than 10000 files", NULL);
	if (files != NULL && to != NULL && to[strlen(to) - 1] != '/' && !kind_text_may_become(problem, to))
		return kind_problem(problem, "$.to", "\"to\" must end in a slash: it is the folder of a list of files", NULL);
	if (!cJSON_IsArray(files))
		return check_file(spec, NULL, 0, problem);
	/* not by index, which counts from the first each time: this is done before every request */
	cJSON_ArrayForEach(item, files)
	{
		if (!check_file(spec, item, i++, problem))
			return false;
	}
	return true;
}

/* --- requests ------------------------------------------------------------------ */

static void
head_request(const char *url, KindRequest *request)
{
	request->method = "HEAD";
	request->url = url;
}

static void
add_guard(const KindCall *call, cJSON *headers)
{
	const char *replace = kind_string(storage_work(call), "replace");

	if (replace != NULL)
		cJSON_AddStringToObject(headers, "If-Match", storage_etag_header(replace));
	else if (!cJSON_IsTrue(kind_member(call->spec, "overwrite")))
		cJSON_AddStringToObject(headers, "If-None-Match", "*");
}

static void
copy_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	request->method = "PUT";
	request->url = storage_target_url(call, call->base_url);
	cJSON_AddStringToObject(headers, "x-ms-copy-source", storage_source_url(call));
	cJSON_AddStringToObject(headers, "x-ms-source-if-match", storage_etag_header(kind_string(storage_work(call), "etag")));
	add_guard(call, headers);
}

static void
rename_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	request->method = "PUT";
	request->url = storage_target_url(call, kind_string(call->options, "dfs_url"));
	cJSON_AddStringToObject(headers, "x-ms-rename-source",
							storage_url("", kind_string(call->spec, "container"), storage_current_file(call).name));
	cJSON_AddStringToObject(headers, "x-ms-source-if-match", storage_etag_header(kind_string(storage_work(call), "etag")));
	add_guard(call, headers);
}

/* The folder of the target, which a rename does not make */
static void
mkdir_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	char	   *folder = storage_current_file(call).target;

	*strrchr(folder, '/') = '\0';
	request->method = "PUT";
	request->url = mem_printf("%s?resource=directory",
							  storage_url(kind_string(call->options, "dfs_url"), target_container(call->spec), folder));
	cJSON_AddStringToObject(headers, "If-None-Match", "*");
}

static void
delete_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	const char *etag = kind_string(storage_work(call), "etag");

	if (etag == NULL && storage_current_file(call).etag != NULL)
		etag = storage_etag(storage_current_file(call).etag, strlen(storage_current_file(call).etag));
	request->method = "DELETE";
	request->url = storage_source_url(call);
	if (etag != NULL)
		cJSON_AddStringToObject(headers, "If-Match", storage_etag_header(etag));
}

bool
storage_move_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	cJSON	   *headers = storage_headers(call);

	if (call->step != KIND_STEP_START)
		storage_pending_request(call, request, headers);
	else if (storage_file_count(call->spec) == 0)
	{
		/* nothing to do; look at the container, which must be there */
		request->url = mem_printf("%s?restype=container", storage_url(call->base_url, kind_string(call->spec, "container"), NULL));
		request->method = "HEAD";
	}
	else if (storage_in_phase(call, "look") || storage_in_phase(call, "taken") || storage_in_phase(call, "left"))
		head_request(storage_source_url(call), request);
	else if (storage_in_phase(call, "copy"))
		copy_request(call, request, headers);
	else if (storage_in_phase(call, "rename"))
		rename_request(call, request, headers);
	else if (storage_in_phase(call, "mkdir"))
		mkdir_request(call, request, headers);
	else if (storage_in_phase(call, "delete"))
		delete_request(call, request, headers);
	else						/* there, verify, gone */
		head_request(storage_target_url(call, call->base_url), request);
	request->headers = headers;
	request->accept = "*/*";
	request->is_repeatable = true;
	(void) problem;
	return true;
}
