/*-------------------------------------------------------------------------
 * storage_pending.c
 *	  Copies that a storage account makes in its own time
 *
 * Runs in the conductor.  A copy that is accepted as "pending" is an empty
 * blob until it is whole.  Its id becomes the external id of the attempt and
 * is committed; when the copy is over, whatever came of it, the attempt has
 * none any more, and goes on with the next file.  While there is one, the
 * steps are those of any work that an engine does:
 *
 *	LOOKUP	after a lost answer, a crash or a conflict: is there a copy of ours?
 *	POLL	how is it going?
 *	DETAIL	it failed: what it left is removed
 *	CANCEL	it is aborted, and what it left is removed
 *
 * The source is not touched before the copy is whole; so at any moment there
 * is a whole file under one name at least, and when the attempt has ended,
 * nothing is under the other name that is not whole.  Dying in the middle of
 * any of this is harmless: resume_step looks again.
 *
 * A copy that did not begin for us (storage_began_for_us) is waited for, and
 * neither aborted nor removed.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

#define MAX_STOPS	10			/* exchanges to abort a copy that does not want to end */

static bool
has_status(const KindResponse *response, const char *wanted)
{
	const char *status = kind_header(response, "x-ms-copy-status");

	return status != NULL && strcmp(status, wanted) == 0;
}

static bool
has_failed(const KindResponse *response)
{
	return has_status(response, "failed") || has_status(response, "aborted");
}

static void
step_to(KindStep step, int64 delay_ms, KindVerdict *verdict)
{
	kind_continue(verdict, step, delay_ms);
	verdict->reset_tries = true;
}

void
storage_look_up(int64 delay_ms, KindVerdict *verdict)
{
	step_to(KIND_STEP_LOOKUP, delay_ms, verdict);
}

/* It is ours and goes on: from now on it can be aborted. */
static void
follow(const KindCall *call, const char *id, KindVerdict *verdict)
{
	step_to(KIND_STEP_POLL, -1, verdict);
	if (id == NULL || (call->external_run_id != NULL && strcmp(call->external_run_id, id) == 0 && storage_in_phase(call, "pending")))
		return;
	storage_note(call, "copy_id", cJSON_CreateString(id));
	storage_note(call, "phase", cJSON_CreateString("pending"));
	storage_commit(call, verdict);
	verdict->external_run_id = mem_strdup(id);
}

/* The copy that the attempt's external id names is no more.  That is committed with what is to be done next. */
static void
over(const KindCall *call, KindVerdict *verdict)
{
	storage_note(call, "crashed", NULL);
	storage_commit(call, verdict);
	verdict->external_run_over = true;
}

/* Does this answer, of the target, say so? */
static bool
is_over(const KindCall *call, const KindResponse *response)
{
	const char *id = kind_header(response, "x-ms-copy-id");

	if (call->external_run_id == NULL)
		return false;
	return response->http_status == 404 ||
		(response->http_status == 200 && !(id != NULL && strcmp(id, call->external_run_id) == 0 && has_status(response, "pending")));
}

void
storage_copy_accepted(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *id = kind_header(response, "x-ms-copy-id");

	if (id != NULL && has_status(response, "pending"))
	{
		follow(call, id, verdict);
		return;
	}
	storage_note(call, "copy_id", id ? cJSON_CreateString(id) : NULL);
	storage_go_to(call, "verify", 0, verdict);
}

/* A copy of ours failed, or somebody aborted it: remove the empty blob, then say so. */
static void
failed(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *reason = kind_header(response, "x-ms-copy-status-description");
	const char *etag = storage_header_etag(response);

	storage_note(call, "failure", cJSON_CreateString(mem_printf("copy to \"%s\" ended as %s: %s", storage_current_file(call).target,
																kind_header(response, "x-ms-copy-status"), reason ? reason : "no reason given")));
	storage_note(call, "remains", etag ? cJSON_CreateString(etag) : NULL);
	step_to(KIND_STEP_DETAIL, 0, verdict);
}

/* Nothing of ours is at the target. */
static void
not_arrived(const KindCall *call, KindVerdict *verdict)
{
	int64		sends = kind_int64(storage_work(call), "sends", 0) + 1;

	storage_note(call, "sends", json_from_int64(sends));
	storage_note(call, "crashed", NULL);
	if (sends >= STORAGE_TRIES)
		kind_fail(verdict, false, true, "no_answer",
				  mem_printf("gave up after " INT64_FORMAT " tries to copy to \"%s\": none arrived", sends, storage_current_file(call).target));
	else
		storage_go_to(call, "copy", 0, verdict);
}

/* What is at the target after a copy was asked for, or may have been: of "verify", LOOKUP and POLL */
void
storage_target_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		is_lookup = call->step == KIND_STEP_LOOKUP;
	bool		overwrites = cJSON_IsTrue(kind_member(call->spec, "overwrite"));
	bool		is_of_source = storage_same_path(kind_header(response, "x-ms-copy-source"), storage_source_url(call));
	const char *seen = kind_string(storage_work(call), "seen");
	const char *etag = storage_header_etag(response);

	if (response->http_status == 404)
	{
		if (is_lookup)
			not_arrived(call, verdict);
		else
			storage_look_again(call, verdict);
	}
	else if (response->http_status != 200)
		storage_fail(call, response, mem_printf("copy \"%s\" cannot be looked at", storage_current_file(call).target), verdict);
	else if (has_status(response, "pending") && is_of_source)
	{
		if (storage_began_for_us(call, response))
			follow(call, kind_header(response, "x-ms-copy-id"), verdict);
		else
			step_to(call->step, -1, verdict);
	}
	else if (has_status(response, "pending") && overwrites)
		kind_fail(verdict, false, true, "PendingCopyOperation",
				  mem_printf("another file is being copied to \"%s\"", storage_current_file(call).target));
	else if (is_lookup && seen != NULL && etag != NULL && strcmp(seen, etag) == 0)
		not_arrived(call, verdict);
	else if (has_failed(response) && storage_began_for_us(call, response))
		failed(call, response, verdict);
	else if (!has_failed(response) && !has_status(response, "pending") && storage_is_our_copy(call, response))
	{
		if (storage_is_move(call->spec))
			storage_go_to(call, "delete", 0, verdict);
		else
			storage_next_file(call, true, verdict);
	}
	else if (overwrites || (has_failed(response) && is_of_source))
		storage_look_again(call, verdict);
	else
		storage_destination_exists(call, verdict);
}

/* --- cancelling ------------------------------------------------------------------ */

/* Until a copy of ours is known to be no more, "stop" says what is asked next; without it the target is looked at. */
static void
stop(const KindCall *call, const char *what, KindVerdict *verdict)
{
	int64		stops = kind_int64(storage_work(call), "stops", 0) + 1;

	storage_note(call, "stops", json_from_int64(stops));
	storage_note(call, "stop", what ? cJSON_CreateString(what) : NULL);
	if (stops <= MAX_STOPS)
		step_to(KIND_STEP_CANCEL, 0, verdict);
	else
		kind_fail(verdict, false, true, "cancel_not_confirmed",
				  mem_printf("the copy to \"%s\" could not be stopped", storage_current_file(call).target));
}

/* Nothing of ours is under way any more: give up, and say what is at the target, which was just looked at. */
static void
stopped(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		is_whole = response->http_status == 200 && !has_failed(response) && !has_status(response, "pending") &&
		storage_is_our_copy(call, response);

	/* the source goes only when it is committed that a copy that was followed is whole */
	if (!is_whole || storage_in_phase(call, "pending"))
		storage_note(call, "crashed", NULL);
	if (is_whole && !storage_is_move(call->spec))
	{
		storage_next_file(call, true, verdict);
		if (verdict->outcome != KIND_CONTINUE)
			return;				/* it was the last one */
	}
	else
		storage_note(call, "phase", cJSON_CreateString(is_whole ? "delete" : "look"));
	storage_abandon(call, false, verdict);
}

static void
cancel_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const char *doing = kind_string(storage_work(call), "stop");
	const char *id = kind_header(response, "x-ms-copy-id");
	const char *etag = storage_header_etag(response);
	int			status = response->http_status;

	if (doing != NULL && strcmp(doing, "abort") == 0)
	{
		/* aborted, or over before that */
		if (status == 204 || status == 404 || status == 409)
			stop(call, NULL, verdict);
		else
			storage_fail(call, response, mem_printf("the copy to \"%s\" goes on, it was not aborted", storage_current_file(call).target), verdict);
	}
	else if (doing == NULL && status == 200 && id != NULL && has_status(response, "pending") && storage_began_for_us(call, response))
	{
		storage_note(call, "copy_id", cJSON_CreateString(id));
		stop(call, "abort", verdict);
	}
	else if (doing == NULL && status == 200 && etag != NULL && has_failed(response) && storage_began_for_us(call, response))
	{
		storage_note(call, "remains", cJSON_CreateString(etag));
		stop(call, "remove", verdict);
	}
	else if (doing != NULL)
	{
		/* gone, or somebody else's by now; else it stays */
		if (status != 200 && status != 202 && status != 404 && status != 412)
			storage_note(call, "left_behind", cJSON_CreateTrue());
		storage_note(call, "phase", cJSON_CreateString("look"));
		storage_abandon(call, false, verdict);
	}
	else if (status == 200 || status == 404)
		stopped(call, response, verdict);
	else
		storage_fail(call, response, mem_printf("whether \"%s\" is still being copied is not known", storage_current_file(call).target), verdict);
}

/* --- the steps -------------------------------------------------------------------- */

static void
remove_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	const char *remains = kind_string(storage_work(call), "remains");

	request->method = "DELETE";
	request->url = storage_target_url(call, call->base_url);
	cJSON_AddStringToObject(headers, "If-Match", storage_etag_header(remains ? remains : "unknown"));
}

void
storage_pending_request(const KindCall *call, KindRequest *request, cJSON *headers)
{
	const char *doing = kind_string(storage_work(call), "stop");

	if (call->step == KIND_STEP_DETAIL || (call->step == KIND_STEP_CANCEL && doing != NULL && strcmp(doing, "remove") == 0))
		remove_request(call, request, headers);
	else if (call->step == KIND_STEP_CANCEL && doing != NULL)
	{
		StrBuf		url;

		strbuf_init(&url);
		strbuf_printf(&url, "%s?comp=copy&copyid=", storage_target_url(call, call->base_url));
		kind_url_encode(&url, kind_string(storage_work(call), "copy_id"));
		request->method = "PUT";
		request->url = url.data;
		cJSON_AddStringToObject(headers, "x-ms-copy-action", "abort");
	}
	else
	{
		request->method = "HEAD";
		request->url = storage_target_url(call, call->base_url);
	}
}

void
storage_pending_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	bool		is_look;

	if (storage_common_response(call, response, verdict) &&
		(verdict->outcome == KIND_CONTINUE || call->step != KIND_STEP_DETAIL))
		return;
	switch (call->step)
	{
		case KIND_STEP_LOOKUP:
		case KIND_STEP_POLL:
			storage_target_response(call, response, verdict);
			if (is_over(call, response))
				over(call, verdict);
			break;
		case KIND_STEP_CANCEL:
			is_look = kind_string(storage_work(call), "stop") == NULL;
			cancel_response(call, response, verdict);
			if (is_look && is_over(call, response))
				over(call, verdict);
			break;
		default:
			/* whether it was removed or not, the next attempt knows what to make of it */
			kind_verdict_init(verdict);
			kind_fail(verdict, false, true, "copy_failed", kind_string(storage_work(call), "failure") ?
					  kind_string(storage_work(call), "failure") : "the copy failed");
			break;
	}
}

KindStep
storage_resume_step(const KindCall *call)
{
	return storage_in_phase(call, "copy") ? KIND_STEP_LOOKUP : storage_in_phase(call, "pending") ? KIND_STEP_POLL : KIND_STEP_START;
}

/* Is there, or may there be, a copy of ours under way?  It may if it was asked for, and the answer is not there or was no use. */
bool
storage_can_cancel(const KindCall *call)
{
	bool		is_asked = call->is_asking || call->step_tries > 0 || call->step != KIND_STEP_START;

	return (storage_in_phase(call, "copy") && is_asked) || storage_in_phase(call, "pending");
}
