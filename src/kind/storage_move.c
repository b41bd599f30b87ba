/*-------------------------------------------------------------------------
 * storage_move.c
 *	  Copying, moving and deleting blobs, one after the other
 *
 * Runs in the conductor.  A file goes through these phases, one exchange
 * each; a crash at any point, a lost answer and a new attempt all come to the
 * same end, because what was done is found done:
 *
 *	look ─▶ there ─▶ copy ─▶ verify ─▶ delete ─▶ next file		flat accounts
 *						└─▶ pending ─┘	a copy that takes its time: storage_pending.c
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

/* The state to be changed; only where an answer is read */
static cJSON *
working_state(const KindCall *call)
{
	cJSON	   *state = cJSON_GetObjectItemCaseSensitive(call->scratch, "work");

	if (state == NULL)
	{
		const cJSON *committed = kind_state_get(call, "work");

		state = committed ? cJSON_Duplicate(committed, true) : cJSON_CreateObject();
		if (call->after_crash && !cJSON_HasObjectItem(state, "crashed"))
			cJSON_AddTrueToObject(state, "crashed");
		cJSON_AddItemToObject(call->scratch, "work", state);
	}
	return state;
}

/* To be committed with whatever is committed next */
void
storage_note(const KindCall *call, const char *name, cJSON *value)
{
	cJSON	   *state = working_state(call);

	cJSON_DeleteItemFromObjectCaseSensitive(state, name);
	if (value != NULL)
		cJSON_AddItemToObject(state, name, value);
}

void
storage_commit(const KindCall *call, KindVerdict *verdict)
{
	kind_state_set(call, verdict, "work", cJSON_Duplicate(working_state(call), true));
}

void
storage_go_to(const KindCall *call, const char *phase, int64 delay_ms, KindVerdict *verdict)
{
	storage_note(call, "phase", cJSON_CreateString(phase));
	storage_go_on(verdict, delay_ms);
}

static void
note_file(const KindCall *call, const char *list)
{
	cJSON	   *names = cJSON_GetObjectItemCaseSensitive(working_state(call), list);

	if (names == NULL)
		names = cJSON_AddArrayToObject(working_state(call), list);
	cJSON_AddItemToArray(names, cJSON_CreateString(storage_current_file(call).name));
}

/* What is known of the target, and of a copy to it */
static void
forget_target(const KindCall *call)
{
	static const char *const of_target[] = {"replace", "absent", "seen", "before", "copy_id", "remains", "failure", "stop", "left_behind"};

	for (size_t k = 0; k < lengthof(of_target); k++)
		storage_note(call, of_target[k], NULL);
}

void
storage_next_file(const KindCall *call, bool is_done, KindVerdict *verdict)
{
	static const char *const of_file[] = {"phase", "etag", "length", "md5", "modified", "looks", "sends"};
	int64		i = kind_int64(storage_work(call), "i", 0) + 1;

	if (is_done)
	{
		storage_note(call, "moved", json_from_int64(kind_int64(storage_work(call), "moved", 0) + 1));
		storage_note(call, "bytes", json_from_int64(kind_int64(storage_work(call), "bytes", 0) + kind_int64(storage_work(call), "length", 0)));
	}
	for (size_t k = 0; k < lengthof(of_file); k++)
		storage_note(call, of_file[k], NULL);
	forget_target(call);
	/* before a crash no other file was begun: that would have been committed; but not what is only deleted */
	if (!storage_is_delete(call->spec))
		storage_note(call, "crashed", NULL);
	storage_note(call, "i", json_from_int64(i));
	if (i >= storage_file_count(call->spec))
		storage_finish(call, verdict);
	else
		storage_go_on(verdict, 0);
}

static void
changed_file(const KindCall *call, KindVerdict *verdict)
{
	note_file(call, "changed");
	storage_next_file(call, false, verdict);
}

/* What a HEAD says, in one form whoever wrote it */
static int64
content_length(const KindResponse *response)
{
	const char *text = kind_header(response, "Content-Length");

	return text ? strtoll(text, NULL, 10) : -1;
}

const char *
storage_header_etag(const KindResponse *response)
{
	const char *text = kind_header(response, "ETag");

	return text ? storage_etag(text, strlen(text)) : NULL;
}

/*
 * Did the copy that this answer tells of begin for us?  It did if the service
 * gave it the id of the one we asked for, and if it is of our source and was
 * not there yet when we last looked, after we had read the source's ETag.
 */
bool
storage_began_for_us(const KindCall *call, const KindResponse *response)
{
	const char *id = kind_header(response, "x-ms-copy-id");
	const char *asked = kind_string(storage_work(call), "copy_id");
	const char *before = kind_string(storage_work(call), "before");

	if (!storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call)))
		return false;
	return (id != NULL && asked != NULL && strcmp(id, asked) == 0) ||
		(id != NULL && before != NULL && strcmp(id, before) != 0) ||
		cJSON_IsTrue(kind_member(storage_work(call), "absent"));
}

/*
 * Is the blob of this answer a copy of the source as it was looked at?  Where
 * there is no MD5 to tell, it is if it began for us.
 */
bool
storage_is_our_copy(const KindCall *call, const KindResponse *response)
{
	const char *md5 = kind_header(response, "Content-MD5");
	const char *expected = kind_string(storage_work(call), "md5");
	bool		known = md5 != NULL && expected != NULL;

	if (!storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call)) ||
		content_length(response) != kind_int64(storage_work(call), "length", -2))
		return false;
	if (known)
		return strcmp(md5, expected) == 0;
	return storage_began_for_us(call, response);
}

static void
look_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	StorageFile file = storage_current_file(call);
	const char *etag = storage_header_etag(response);
	const char *known = kind_string(storage_work(call), "etag");
	const char *md5 = kind_header(response, "Content-MD5");
	const char *modified = kind_header(response, "Last-Modified");
	int64		looks = kind_int64(storage_work(call), "looks", 0) + 1;

	if (response->http_status == 404)
	{
		storage_go_to(call, "gone", 0, verdict);
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
	/* what was found out about the target was about copies of another source */
	if (known != NULL && strcmp(known, etag) != 0)
		forget_target(call);
	storage_note(call, "looks", json_from_int64(looks));
	storage_note(call, "etag", cJSON_CreateString(etag));
	storage_note(call, "modified", modified ? cJSON_CreateString(modified) : NULL);
	storage_note(call, "length", json_from_int64(content_length(response)));
	storage_note(call, "md5", md5 ? cJSON_CreateString(md5) : NULL);
	if (storage_is_move(call->spec) && kind_string(call->options, "dfs_url") != NULL)
	{
		storage_go_to(call, "rename", 0, verdict);
		storage_commit(call, verdict);
	}
	else
		storage_go_to(call, "there", 0, verdict);
}

void
storage_destination_exists(const KindCall *call, KindVerdict *verdict)
{
	kind_fail(verdict, true, false, "destination_exists",
			  mem_printf("there is something else at \"%s\" already; nothing was changed there", storage_current_file(call).target));
}

/*
 * A copy of our source was under way before we asked for one: that of an
 * earlier attempt, or somebody else's.  It is waited for.  It copies what the
 * source was when it began, so if the source is older than that, by the
 * service's one clock, it is a copy of what we looked at.
 */
static void
wait_for_other(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *id = kind_header(response, "x-ms-copy-id");
	int64		modified;
	int64		begun;

	if (id != NULL && storage_date_parse(kind_string(storage_work(call), "modified"), &modified) &&
		storage_date_parse(kind_header(response, "Last-Modified"), &begun) && modified < begun)
		storage_note(call, "copy_id", cJSON_CreateString(id));
	storage_go_on(verdict, -1);
}

/* The target before anything was copied */
static void
there_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *status = kind_header(response, "x-ms-copy-status");
	const char *id = kind_header(response, "x-ms-copy-id");
	const char *etag = storage_header_etag(response);
	bool		is_of_source = storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call));
	bool		is_pending = status != NULL && strcmp(status, "pending") == 0;
	bool		is_whole = status == NULL || strcmp(status, "success") == 0;

	if (response->http_status == 404)
	{
		storage_note(call, "absent", cJSON_CreateTrue());
		storage_go_to(call, "copy", 0, verdict);
		storage_commit(call, verdict);
		return;
	}
	if (response->http_status != 200)
	{
		storage_fail(call, response, mem_printf("target \"%s\" cannot be looked at", storage_current_file(call).target), verdict);
		return;
	}
	if (is_pending && is_of_source)
	{
		if (storage_began_for_us(call, response))
			storage_look_up(0, verdict);
		else
			wait_for_other(call, response, verdict);
		return;
	}
	if (is_whole && storage_is_our_copy(call, response))
	{
		/* an earlier attempt got so far */
		storage_go_to(call, "verify", 0, verdict);
		return;
	}
	if (!is_whole && !is_pending && is_of_source && etag != NULL)
		/* what a failed copy of ours left: a good one is another one */
		storage_note(call, "replace", cJSON_CreateString(etag));
	else if (!cJSON_IsTrue(kind_member(call->spec, "overwrite")))
	{
		storage_destination_exists(call, verdict);
		return;
	}
	storage_note(call, "absent", NULL);
	storage_note(call, "seen", etag ? cJSON_CreateString(etag) : NULL);
	storage_note(call, "before", cJSON_CreateString(id ? id : "-"));
	storage_go_to(call, "copy", 0, verdict);
	storage_commit(call, verdict);
}

/* After a look the source is another one, or gone: look again */
void
storage_look_again(const KindCall *call, KindVerdict *verdict)
{
	storage_go_to(call, "look", 0, verdict);
}

static void
copy_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";

	if (status == 201 || status == 202)
		storage_copy_accepted(call, response, verdict);
	else if (status == 404 || strcmp(code, "CannotVerifyCopySource") == 0 ||
			 (status == 412 && strcmp(code, "TargetConditionNotMet") != 0 && strcmp(code, "LeaseIdMissing") != 0))
		storage_look_again(call, verdict);
	else if (strcmp(code, "TargetConditionNotMet") == 0 || strcmp(code, "BlobAlreadyExists") == 0 || strcmp(code, "PendingCopyOperation") == 0)
		storage_look_up(0, verdict);	/* whose is it? */
	else
		storage_fail(call, response, mem_printf("copy to \"%s\" was refused", storage_current_file(call).target), verdict);
}

static void
delete_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";

	if (status == 200 || status == 202)
		storage_next_file(call, true, verdict);
	else if (status == 404 && strcmp(code, "ContainerNotFound") != 0)
		storage_next_file(call, true, verdict); /* gone already */
	else if (status == 412 && strcmp(code, "LeaseIdMissing") != 0)
		storage_go_to(call, "left", 0, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" was not deleted", storage_current_file(call).name), verdict);
}

/* The ETag did not fit: is it another file by now, or none? */
static void
left_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 404)
		storage_next_file(call, true, verdict);
	else if (response->http_status == 200)
		changed_file(call, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" cannot be looked at", storage_current_file(call).name), verdict);
}

/* The source is not there: was it moved before, by this or an earlier attempt? */
static void
gone_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	StorageFile file = storage_current_file(call);
	int64		length = kind_int64(storage_work(call), "length", file.size);
	bool		is_renamed = kind_string(call->options, "dfs_url") != NULL && storage_is_move(call->spec);
	const char *status = kind_header(response, "x-ms-copy-status");
	bool		is_there = response->http_status == 200 && content_length(response) >= 0 &&
		(status == NULL || strcmp(status, "success") == 0) &&
		(length < 0 || content_length(response) == length) &&
		(is_renamed || storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call)));

	if (response->http_status != 200 && response->http_status != 404)
		storage_fail(call, response, mem_printf("target \"%s\" cannot be looked at", file.target), verdict);
	else if (response->http_status == 200 && status != NULL && strcmp(status, "pending") == 0 &&
			 storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call)))
		storage_go_on(verdict, -1); /* it may still become whole */
	else if (is_there)
	{
		storage_note(call, "length", json_from_int64(content_length(response)));
		storage_next_file(call, true, verdict);
	}
	else
	{
		note_file(call, "missing");
		storage_next_file(call, false, verdict);
	}
}

static void
rename_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	const char *code = status >= 400 ? storage_error_code(response) : "";
	int64		looks = kind_int64(storage_work(call), "looks", 0);

	if (status == 201)
		storage_next_file(call, true, verdict);
	else if (strcmp(code, "RenameDestinationParentPathNotFound") == 0 && strchr(storage_current_file(call).target, '/') != NULL &&
			 looks <= MAX_LOOKS)
	{
		storage_note(call, "looks", json_from_int64(looks + 1));
		storage_go_to(call, "mkdir", 0, verdict);
	}
	else if (status == 404 || (status == 412 && strcmp(code, "LeaseIdMissing") != 0))
		storage_look_again(call, verdict);
	else if (status == 409 && strcmp(code, "PathAlreadyExists") == 0)
		/* the answer to an earlier request was lost, or it is somebody else's */
		storage_go_to(call, "taken", 0, verdict);
	else
		storage_fail(call, response, mem_printf("rename to \"%s\" was refused", storage_current_file(call).target), verdict);
}

/* The target of a rename is taken: by the source itself, if that is gone */
static void
taken_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 404)
		storage_go_to(call, "gone", 0, verdict);
	else if (response->http_status == 200)
		storage_destination_exists(call, verdict);
	else
		storage_fail(call, response, mem_printf("file \"%s\" cannot be looked at", storage_current_file(call).name), verdict);
}

static void
mkdir_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (response->http_status == 201 || response->http_status == 409 || response->http_status == 412)
		storage_go_to(call, "rename", 0, verdict);
	else
		storage_fail(call, response, mem_printf("the folder of \"%s\" cannot be made", storage_current_file(call).target), verdict);
}

void
storage_move_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	if (call->step != KIND_STEP_START)
	{
		storage_pending_response(call, response, verdict);
		return;
	}
	if (storage_common_response(call, response, verdict))
	{
		/* a copy that may have begun is looked for; repeating it would do as well, but not if it is to be aborted */
		if (verdict->outcome == KIND_CONTINUE && !verdict->forget_token && storage_in_phase(call, "copy") &&
			response->http_status != 429 && response->http_status != 503 &&
			(response->http_status > 0 || response->request_sent))
			storage_look_up(verdict->delay_ms, verdict);
		return;
	}
	if (storage_file_count(call->spec) == 0)
	{
		if (response->http_status == 200)
			storage_finish(call, verdict);
		else
			storage_fail(call, response, "the container cannot be looked at", verdict);
	}
	else if (storage_in_phase(call, "look"))
		look_response(call, response, verdict);
	else if (storage_in_phase(call, "there"))
		there_response(call, response, verdict);
	else if (storage_in_phase(call, "copy"))
		copy_response(call, response, verdict);
	else if (storage_in_phase(call, "verify"))
		storage_target_response(call, response, verdict);
	else if (storage_in_phase(call, "delete"))
		delete_response(call, response, verdict);
	else if (storage_in_phase(call, "rename"))
		rename_response(call, response, verdict);
	else if (storage_in_phase(call, "left"))
		left_response(call, response, verdict);
	else if (storage_in_phase(call, "taken"))
		taken_response(call, response, verdict);
	else if (storage_in_phase(call, "mkdir"))
		mkdir_response(call, response, verdict);
	else
		gone_response(call, response, verdict);
}
