/*-------------------------------------------------------------------------
 * storage_move.c
 *	  Copying, moving and deleting blobs, one after the other
 *
 * Runs in the conductor.  A file goes through these phases, one exchange
 * each; a crash at any point, a lost answer and a new attempt all come to the
 * same end, because what was done is found done:
 *
 *	look ─▶ there ─▶ copy ─▶ verify ─▶ delete ─▶ next file		flat accounts
 *	look ─▶ rename ─▶ next file									with dfs_url
 *	          │ ▲└─▶ taken (by an earlier rename of ours?) ─▶ gone
 *	          ▼ │
 *	         mkdir
 *	look ─▶ gone (was it moved before?) ─▶ next file
 *
 * What is copied is pinned by its ETag: read by "look", demanded by the copy
 * or the rename, and demanded again by the delete.  A source that changed
 * meanwhile stays where it is.  The copy must have the length and, where both
 * know it, the MD5 of the source before the source goes.
 *
 * The ETag and the knowledge that nothing was at the target are committed
 * before the copy is asked for: only then is a blob found there later known
 * to be ours, also when the service keeps no MD5 of it.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

#define MAX_LOOKS	5			/* at one source that keeps changing */
#define MAX_NAMED	20			/* files named in a message or an output */

/* A file of the spec */
typedef struct File
{
	const char *name;
	const char *etag;			/* as listed, or NULL */
	int64		size;			/* as listed, or -1 */
	char	   *target;			/* NULL for delete */
} File;

static bool
is_delete(const cJSON *spec)
{
	return storage_operation(spec) == STORAGE_DELETE;
}

/* A file_away has no operation: it moves. */
static bool
is_move(const cJSON *spec)
{
	return storage_operation(spec) == STORAGE_MOVE || storage_operation(spec) == STORAGE_UNKNOWN;
}

/*
 * Where the attempt is: in memory, or as it was committed when this process
 * has not read an answer yet.  NULL at the beginning.
 */
static const cJSON *
state_of(const KindCall *call)
{
	const cJSON *state = kind_member(call->scratch, "work");

	return state ? state : kind_state_get(call, "work");
}

int64
storage_moved(const KindCall *call)
{
	return kind_int64(state_of(call), "moved", 0);
}

static const char *
phase_of(const KindCall *call)
{
	const char *phase = kind_string(state_of(call), "phase");

	return phase ? phase : is_delete(call->spec) ? "delete" : "look";
}

static bool
in_phase(const KindCall *call, const char *phase)
{
	return strcmp(phase_of(call), phase) == 0;
}

static int
file_count(const cJSON *spec)
{
	const cJSON *files = kind_member(spec, "files");

	return cJSON_IsArray(files) ? cJSON_GetArraySize(files) : 1;
}

/* The file of an entry of "files"; NULL: the one file of the spec */
static File
file_of(const cJSON *spec, const cJSON *item)
{
	const char *from = kind_string(spec, "from");
	const char *to = kind_string(spec, "to");
	File		file = {NULL, NULL, -1, NULL};

	if (item == NULL)
	{
		file.name = is_delete(spec) ? kind_string(spec, "name") : from;
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

static File
current_file(const KindCall *call)
{
	const cJSON *files = kind_member(call->spec, "files");
	int			i = (int) kind_int64(state_of(call), "i", 0);

	return file_of(call->spec, cJSON_IsArray(files) ? cJSON_GetArrayItem(files, i) : NULL);
}

static const char *
target_container(const cJSON *spec)
{
	const char *other = kind_string(spec, "to_container");

	return other ? other : kind_string(spec, "container");
}

static char *
source_url(const KindCall *call)
{
	return storage_url(call->base_url, kind_string(call->spec, "container"), current_file(call).name);
}

static char *
target_url(const KindCall *call, const char *base_url)
{
	return storage_url(base_url, target_container(call->spec), current_file(call).target);
}

/* --- the spec ------------------------------------------------------------------ */

/* item: the entry i of "files", or NULL for a single file */
static bool
check_file(const cJSON *spec, const cJSON *item, int i, KindProblem *problem)
{
	const char *from = kind_string(spec, "from");
	const char *path = item ? mem_printf("$.files[%d]", i) : is_delete(spec) ? "$.name" : "$.from";
	File		file;
	const char *why;

	if (item != NULL && from != NULL && !kind_has_reference(kind_member(spec, "from")))
	{
		const char *name = cJSON_IsString(item) ? item->valuestring : kind_string(item, "name");

		if (name != NULL && strncmp(name, from, strlen(from)) != 0 && strstr(name, "{{") == NULL)
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
	bool		has_single = kind_string(spec, is_delete(spec) ? "name" : "from") != NULL;
	const cJSON *item;
	int			n = file_count(spec);
	int			i = 0;

	if ((storage_operation(spec) == STORAGE_COPY || storage_operation(spec) == STORAGE_MOVE) && to == NULL)
		return kind_problem(problem, "$.to", "\"to\" is empty", NULL);
	if (kind_has_reference(files))
		return true;			/* looked at when it is known */
	if (files == NULL && !has_single)
		return kind_problem(problem, "$", is_delete(spec) ? "give either \"name\" or \"files\"" : "give either \"from\" or \"files\"", NULL);
	if (files != NULL && kind_member(spec, "etag") != NULL)
		return kind_problem(problem, "$.etag", "\"etag\" is for a single file", "Files of a list have ETags of their own: {\"name\", \"etag\"}.");
	if (n > STORAGE_MAX_FILES)
		return kind_problem(problem, "$.files", "more than 10000 files", NULL);
	if (files != NULL && to != NULL && to[strlen(to) - 1] != '/' && strstr(to, "{{") == NULL)
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
	const char *replace = kind_string(state_of(call), "replace");

	if (replace != NULL)
		cJSON_AddStringToObject(headers, "If-Match", storage_etag_header(replace));
	else if (!cJSON_IsTrue(kind_member(call->spec, "overwrite")))
		cJSON_AddStringToObject(headers, "If-None-Match", "*");
}

static void
copy_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	request->method = "PUT";
	request->url = target_url(call, call->base_url);
	cJSON_AddStringToObject(headers, "x-ms-copy-source", source_url(call));
	cJSON_AddStringToObject(headers, "x-ms-source-if-match", storage_etag_header(kind_string(state_of(call), "etag")));
	add_guard(call, headers);
}

static void
rename_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	request->method = "PUT";
	request->url = target_url(call, kind_string(call->options, "dfs_url"));
	cJSON_AddStringToObject(headers, "x-ms-rename-source",
							storage_url("", kind_string(call->spec, "container"), current_file(call).name));
	cJSON_AddStringToObject(headers, "x-ms-source-if-match", storage_etag_header(kind_string(state_of(call), "etag")));
	add_guard(call, headers);
}

/* The folder of the target, which a rename does not make */
static void
mkdir_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	char	   *folder = current_file(call).target;

	*strrchr(folder, '/') = '\0';
	request->method = "PUT";
	request->url = mem_printf("%s?resource=directory",
							  storage_url(kind_string(call->options, "dfs_url"), target_container(call->spec), folder));
	cJSON_AddStringToObject(headers, "If-None-Match", "*");
}

static void
delete_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	const char *etag = kind_string(state_of(call), "etag");

	if (etag == NULL && current_file(call).etag != NULL)
		etag = storage_etag(current_file(call).etag, strlen(current_file(call).etag));
	request->method = "DELETE";
	request->url = source_url(call);
	if (etag != NULL)
		cJSON_AddStringToObject(headers, "If-Match", storage_etag_header(etag));
}

bool
storage_move_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	cJSON	   *headers = storage_headers(call);

	if (file_count(call->spec) == 0)
	{
		/* nothing to do; look at the container, which must be there */
		request->url = mem_printf("%s?restype=container", storage_url(call->base_url, kind_string(call->spec, "container"), NULL));
		request->method = "HEAD";
	}
	else if (in_phase(call, "look") || in_phase(call, "taken") || in_phase(call, "left"))
		head_request(source_url(call), request);
	else if (in_phase(call, "copy"))
		copy_request(call, request, headers);
	else if (in_phase(call, "rename"))
		rename_request(call, request, headers);
	else if (in_phase(call, "mkdir"))
		mkdir_request(call, request, headers);
	else if (in_phase(call, "delete"))
		delete_request(call, request, headers);
	else						/* there, verify, gone */
		head_request(target_url(call, call->base_url), request);
	request->headers = headers;
	request->accept = "*/*";
	request->is_repeatable = true;
	(void) problem;
	return true;
}

/* --- answers ------------------------------------------------------------------- */

/* The state to be changed; only where an answer is read */
static cJSON *
working_state(const KindCall *call)
{
	cJSON	   *state = cJSON_GetObjectItemCaseSensitive(call->scratch, "work");

	if (state == NULL)
	{
		const cJSON *committed = kind_state_get(call, "work");

		state = committed ? cJSON_Duplicate(committed, true) : cJSON_CreateObject();
		cJSON_AddItemToObject(call->scratch, "work", state);
	}
	return state;
}

/* To be committed with whatever is committed next */
static void
note(const KindCall *call, const char *name, cJSON *value)
{
	cJSON	   *state = working_state(call);

	cJSON_DeleteItemFromObjectCaseSensitive(state, name);
	if (value != NULL)
		cJSON_AddItemToObject(state, name, value);
}

static void
commit(const KindCall *call, KindVerdict *verdict)
{
	kind_state_set(call, verdict, "work", cJSON_Duplicate(working_state(call), true));
}

static void
go_to(const KindCall *call, const char *phase, int64 delay_ms, KindVerdict *verdict)
{
	note(call, "phase", cJSON_CreateString(phase));
	storage_go_on(verdict, delay_ms);
}

static void
note_file(const KindCall *call, const char *list)
{
	cJSON	   *names = cJSON_GetObjectItemCaseSensitive(working_state(call), list);

	if (names == NULL)
		names = cJSON_AddArrayToObject(working_state(call), list);
	cJSON_AddItemToArray(names, cJSON_CreateString(current_file(call).name));
}

static char *
some_names(const cJSON *names)
{
	StrBuf		buf;
	const cJSON *name;
	int			n = 0;

	strbuf_init(&buf);
	cJSON_ArrayForEach(name, names)
	{
		if (n == MAX_NAMED)
		{
			strbuf_addstr(&buf, " and others");
			break;
		}
		strbuf_printf(&buf, "%s%s", n++ > 0 ? ", " : "", name->valuestring);
	}
	return buf.data;
}

/* All files are done with.  What changed under way is left for the next time. */
static void
finish(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *missing = kind_member(state_of(call), "missing");
	const cJSON *changed = kind_member(state_of(call), "changed");
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddItemToObject(output, "count", json_from_int64(kind_int64(state_of(call), "moved", 0)));
	if (!is_delete(call->spec))
		cJSON_AddItemToObject(output, "bytes", json_from_int64(kind_int64(state_of(call), "bytes", 0)));
	if (kind_string(call->spec, "to") != NULL)
		cJSON_AddStringToObject(output, "to", kind_string(call->spec, "to"));
	if (kind_string(call->spec, "next_load_status") != NULL)
		cJSON_AddStringToObject(output, "next_load_status", kind_string(call->spec, "next_load_status"));
	if (missing != NULL)
		cJSON_AddItemToObject(output, "missing", cJSON_Duplicate(missing, true));
	if (changed != NULL)
		cJSON_AddItemToObject(output, "changed", cJSON_Duplicate(changed, true));
	verdict->output = output;
	verdict->outcome = KIND_SUCCEEDED;
	if (missing != NULL)
		kind_fail(verdict, true, false, "file_missing",
				  mem_printf("neither at the source nor at the target: %s", some_names(missing)));
	else if (changed != NULL && storage_operation(call->spec) != STORAGE_UNKNOWN)
		kind_fail(verdict, true, false, "file_changed",
				  mem_printf("changed since they were listed or copied, and left where they are: %s", some_names(changed)));
}

static void
next_file(const KindCall *call, bool is_done, KindVerdict *verdict)
{
	static const char *const of_file[] = {"phase", "etag", "length", "md5", "replace", "absent", "copy_id", "looks"};
	int64		i = kind_int64(state_of(call), "i", 0) + 1;

	if (is_done)
	{
		note(call, "moved", json_from_int64(kind_int64(state_of(call), "moved", 0) + 1));
		note(call, "bytes", json_from_int64(kind_int64(state_of(call), "bytes", 0) + kind_int64(state_of(call), "length", 0)));
	}
	for (size_t k = 0; k < lengthof(of_file); k++)
		note(call, of_file[k], NULL);
	note(call, "i", json_from_int64(i));
	if (i >= file_count(call->spec))
		finish(call, verdict);
	else
		storage_go_on(verdict, 0);
}

static void
changed_file(const KindCall *call, KindVerdict *verdict)
{
	note_file(call, "changed");
	next_file(call, false, verdict);
}

/* What a HEAD says, in one form whoever wrote it */
static int64
content_length(const KindResponse *response)
{
	const char *text = kind_header(response, "Content-Length");

	return text ? strtoll(text, NULL, 10) : -1;
}

static const char *
header_etag(const KindResponse *response)
{
	const char *text = kind_header(response, "ETag");

	return text ? storage_etag(text, strlen(text)) : NULL;
}

/*
 * Is the blob of this answer a copy of the source as it was looked at?  Where
 * there is no MD5 to tell, it is if the service gave it the id of the copy we
 * asked for, or if nothing was there before.
 */
static bool
is_our_copy(const KindCall *call, const KindResponse *response)
{
	const char *id = kind_header(response, "x-ms-copy-id");
	const char *asked = kind_string(state_of(call), "copy_id");
	const char *md5 = kind_header(response, "Content-MD5");
	const char *expected = kind_string(state_of(call), "md5");
	bool		known = md5 != NULL && expected != NULL;

	if (!storage_same_path(kind_header(response, "x-ms-copy-source"), source_url(call)) ||
		content_length(response) != kind_int64(state_of(call), "length", -2))
		return false;
	if (known)
		return strcmp(md5, expected) == 0;
	return (id != NULL && asked != NULL && strcmp(id, asked) == 0) || cJSON_IsTrue(kind_member(state_of(call), "absent"));
}

static void
look_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	File		file = current_file(call);
	const char *etag = header_etag(response);
	const char *md5 = kind_header(response, "Content-MD5");
	int64		looks = kind_int64(state_of(call), "looks", 0) + 1;

	if (response->http_status == 404)
	{
		go_to(call, "gone", 0, verdict);
		return;
	}
	if (response->http_status != 200 || etag == NULL)
	{
		storage_fail(call, response, mem_printf("file \"%s\" cannot be looked at", file.name), verdict);
		return;
	}
	if ((file.etag != NULL && strcmp(storage_etag(file.etag, strlen(file.etag)), etag) != 0) || looks > MAX_LOOKS)
	{
		changed_file(call, verdict);
		return;
	}
	note(call, "looks", json_from_int64(looks));
	note(call, "etag", cJSON_CreateString(etag));
	note(call, "length", json_from_int64(content_length(response)));
	note(call, "md5", md5 ? cJSON_CreateString(md5) : NULL);
	if (is_move(call->spec) && kind_string(call->options, "dfs_url") != NULL)
	{
		go_to(call, "rename", 0, verdict);
		commit(call, verdict);
	}
	else
		go_to(call, "there", 0, verdict);
}

static void
destination_exists(const KindCall *call, KindVerdict *verdict)
{
	kind_fail(verdict, true, false, "destination_exists",
			  mem_printf("there is something else at \"%s\" already; nothing was changed there", current_file(call).target));
}

/* The target before anything was copied */
static void
there_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *status = kind_header(response, "x-ms-copy-status");

	if (response->http_status == 404)
	{
		note(call, "absent", cJSON_CreateTrue());
		go_to(call, "copy", 0, verdict);
		commit(call, verdict);
		return;
	}
	if (response->http_status != 200)
	{
		storage_fail(call, response, mem_printf("target \"%s\" cannot be looked at", current_file(call).target), verdict);
		return;
	}
	if (is_our_copy(call, response) && (status == NULL || strcmp(status, "success") == 0))
	{
		/* an earlier attempt got so far */
		go_to(call, "verify", 0, verdict);
		return;
	}
	if (status != NULL && strcmp(status, "success") != 0 && strcmp(status, "pending") != 0 &&
		storage_same_path(kind_header(response, "x-ms-copy-source"), source_url(call)) && header_etag(response) != NULL)
	{
		/* what a failed copy of ours left: a good one is another one */
		note(call, "replace", cJSON_CreateString(header_etag(response)));
		note(call, "absent", cJSON_CreateTrue());
	}
	else if (!cJSON_IsTrue(kind_member(call->spec, "overwrite")))
	{
		destination_exists(call, verdict);
		return;
	}
	go_to(call, "copy", 0, verdict);
	commit(call, verdict);
}

/* After a look the source is another one, or gone: look again */
static void
look_again(const KindCall *call, KindVerdict *verdict)
{
	go_to(call, "look", 0, verdict);
}

static void
copy_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";

	if (status == 201 || status == 202)
	{
		const char *id = kind_header(response, "x-ms-copy-id");

		note(call, "copy_id", id ? cJSON_CreateString(id) : NULL);
		go_to(call, "verify", 0, verdict);
	}
	else if (strcmp(code, "BlobAlreadyExists") == 0 || strcmp(code, "TargetConditionNotMet") == 0 ||
			 strcmp(code, "PendingCopyOperation") == 0)
		go_to(call, "verify", 0, verdict);	/* whose is it? */
	else if (status == 404 || strcmp(code, "SourceConditionNotMet") == 0 || strcmp(code, "CannotVerifyCopySource") == 0)
		look_again(call, verdict);
	else if (status == 412)
		go_to(call, "verify", 0, verdict);
	else
		storage_fail(call, response, mem_printf("copy to \"%s\" was refused", current_file(call).target), verdict);
}

static void
verify_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *status = kind_header(response, "x-ms-copy-status");

	if (response->http_status == 404)
		look_again(call, verdict);
	else if (response->http_status != 200)
		storage_fail(call, response, mem_printf("copy \"%s\" cannot be looked at", current_file(call).target), verdict);
	else if (status != NULL && strcmp(status, "pending") == 0 &&
			 storage_same_path(kind_header(response, "x-ms-copy-source"), source_url(call)))
		storage_go_on(verdict, -1);
	else if (status != NULL && strcmp(status, "success") != 0)
		kind_fail(verdict, false, true, "copy_failed",
				  mem_printf("copy to \"%s\" ended as %s: %s", current_file(call).target, status,
							 kind_header(response, "x-ms-copy-status-description") ?
							 kind_header(response, "x-ms-copy-status-description") : "no reason given"));
	else if (is_our_copy(call, response))
	{
		if (is_move(call->spec))
			go_to(call, "delete", 0, verdict);
		else
			next_file(call, true, verdict);
	}
	else if (cJSON_IsTrue(kind_member(call->spec, "overwrite")))
		look_again(call, verdict);
	else
		destination_exists(call, verdict);
}

static void
delete_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";

	if (status == 200 || status == 202)
		next_file(call, true, verdict);
	else if (status == 404 && strcmp(code, "ContainerNotFound") != 0)
		next_file(call, true, verdict); /* gone already */
	else if (status == 412 && strcmp(code, "LeaseIdMissing") != 0)
		go_to(call, "left", 0, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" was not deleted", current_file(call).name), verdict);
}

/* The ETag did not fit: is it another file by now, or none? */
static void
left_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 404)
		next_file(call, true, verdict);
	else if (response->http_status == 200)
		changed_file(call, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" cannot be looked at", current_file(call).name), verdict);
}

/* The source is not there: was it moved before, by this or an earlier attempt? */
static void
gone_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	File		file = current_file(call);
	int64		length = kind_int64(state_of(call), "length", file.size);
	bool		is_renamed = kind_string(call->options, "dfs_url") != NULL && is_move(call->spec);
	bool		is_there = response->http_status == 200 && content_length(response) >= 0 &&
		(length < 0 || content_length(response) == length) &&
		(is_renamed || storage_same_path(kind_header(response, "x-ms-copy-source"), source_url(call)));

	if (response->http_status != 200 && response->http_status != 404)
		storage_fail(call, response, mem_printf("target \"%s\" cannot be looked at", file.target), verdict);
	else if (is_there)
	{
		note(call, "length", json_from_int64(content_length(response)));
		next_file(call, true, verdict);
	}
	else
	{
		note_file(call, "missing");
		next_file(call, false, verdict);
	}
}

static void
rename_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";
	int64		looks = kind_int64(state_of(call), "looks", 0);

	if (status == 201)
		next_file(call, true, verdict);
	else if (strcmp(code, "RenameDestinationParentPathNotFound") == 0 && strchr(current_file(call).target, '/') != NULL &&
			 looks <= MAX_LOOKS)
	{
		note(call, "looks", json_from_int64(looks + 1));
		go_to(call, "mkdir", 0, verdict);
	}
	else if (status == 404 || (status == 412 && strcmp(code, "LeaseIdMissing") != 0))
		look_again(call, verdict);
	else if (status == 409 && strcmp(code, "PathAlreadyExists") == 0)
		/* the answer to an earlier request was lost, or it is somebody else's */
		go_to(call, "taken", 0, verdict);
	else
		storage_fail(call, response, mem_printf("rename to \"%s\" was refused", current_file(call).target), verdict);
}

/* The target of a rename is taken: by the source itself, if that is gone */
static void
taken_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 404)
		go_to(call, "gone", 0, verdict);
	else if (response->http_status == 200)
		destination_exists(call, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" cannot be looked at", current_file(call).name), verdict);
}

static void
mkdir_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 201 || response->http_status == 409 || response->http_status == 412)
		go_to(call, "rename", 0, verdict);
	else
		storage_fail(call, response, mem_printf("the folder of \"%s\" cannot be made", current_file(call).target), verdict);
}

void
storage_move_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (storage_common_response(call, response, verdict))
		return;
	if (file_count(call->spec) == 0)
	{
		if (response->http_status == 200)
			finish(call, verdict);
		else
			storage_fail(call, response, "the container cannot be looked at", verdict);
	}
	else if (in_phase(call, "look"))
		look_response(call, response, verdict);
	else if (in_phase(call, "there"))
		there_response(call, response, verdict);
	else if (in_phase(call, "copy"))
		copy_response(call, response, verdict);
	else if (in_phase(call, "verify"))
		verify_response(call, response, verdict);
	else if (in_phase(call, "delete"))
		delete_response(call, response, verdict);
	else if (in_phase(call, "rename"))
		rename_response(call, response, verdict);
	else if (in_phase(call, "left"))
		left_response(call, response, verdict);
	else if (in_phase(call, "taken"))
		taken_response(call, response, verdict);
	else if (in_phase(call, "mkdir"))
		mkdir_response(call, response, verdict);
	else
		gone_response(call, response, verdict);
}
