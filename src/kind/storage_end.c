/*-------------------------------------------------------------------------
 * storage_end.c
 *	  How going through files ends: what came of them, or where it was given up
 *
 * Runs in the conductor.  An attempt that fails says how far it came, and one
 * that is given up also what became of the file at hand.  It says no more than is known: what
 * was sent and not answered may have happened, and so may what came after
 * the last commit before a crash.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

#define MAX_NAMED	20			/* files named in a message */

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

static cJSON *
build_output(const KindCall *call)
{
	static const char *const lists[] = {"missing", "changed"};
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddItemToObject(output, "count", json_from_int64(storage_moved(call)));
	if (!storage_is_delete(call->spec))
		cJSON_AddItemToObject(output, "bytes", json_from_int64(kind_int64(storage_work(call), "bytes", 0)));
	if (kind_string(call->spec, "to") != NULL)
		cJSON_AddStringToObject(output, "to", kind_string(call->spec, "to"));
	if (kind_string(call->spec, "next_load_status") != NULL)
		cJSON_AddStringToObject(output, "next_load_status", kind_string(call->spec, "next_load_status"));
	for (size_t i = 0; i < lengthof(lists); i++)
	{
		const cJSON *names = kind_member(storage_work(call), lists[i]);

		if (names != NULL)
			cJSON_AddItemToObject(output, lists[i], cJSON_Duplicate(names, true));
	}
	return output;
}

/* All files are done with.  What changed under way is left for the next time. */
void
storage_finish(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *missing = kind_member(storage_work(call), "missing");
	const cJSON *changed = kind_member(storage_work(call), "changed");

	verdict->output = build_output(call);
	verdict->outcome = KIND_SUCCEEDED;
	if (missing != NULL)
		kind_fail(verdict, true, false, "file_missing",
				  mem_printf("neither at the source nor at the target: %s", some_names(missing)));
	else if (changed != NULL && storage_operation(call->spec) != STORAGE_UNKNOWN)
		kind_fail(verdict, true, false, "file_changed",
				  mem_printf("changed since they were listed or copied, and left where they are: %s", some_names(changed)));
}

/* --- given up -------------------------------------------------------------------- */

static const char *
done_word(const KindCall *call)
{
	return storage_is_delete(call->spec) ? "deleted" : storage_is_move(call->spec) ? "moved" : "copied";
}

/*
 * What became of the file at hand; NULL: this attempt did nothing with it.
 * is_open: something was sent for it, and what came of that is not known.
 */
static char *
file_at_hand(const KindCall *call, bool is_open)
{
	bool		is_move = storage_is_move(call->spec);
	StorageFile file = storage_current_file(call);

	if (cJSON_IsTrue(kind_member(storage_work(call), "left_behind")))
		return mem_printf("the copy of \"%s\" was stopped, but the empty file that it left at \"%s\" could not be removed", file.name, file.target);
	if (storage_can_cancel(call) || (storage_in_phase(call, "copy") && is_open))
		return mem_printf("\"%s\" may still be being copied to \"%s\"", file.name, file.target);
	if (storage_in_phase(call, "verify") || storage_in_phase(call, "left") || (storage_in_phase(call, "delete") && is_move))
	{
		if (storage_is_delete(call->spec))
			return NULL;		/* there is another version of it */
		if (!is_move)
			return mem_printf("\"%s\" was copied to \"%s\", which was not checked any more", file.name, file.target);
		return mem_printf(is_open && !storage_in_phase(call, "verify") ? "\"%s\" was copied to \"%s\", and whether it was deleted is not known" :
						  "\"%s\" was copied to \"%s\" and not deleted", file.name, file.target);
	}
	if (is_open && (storage_in_phase(call, "delete") || storage_in_phase(call, "rename")))
		return mem_printf("whether \"%s\" was %s is not known", file.name, done_word(call));
	if (storage_in_phase(call, "gone") || storage_in_phase(call, "taken"))
		return mem_printf("whether \"%s\" was %s before is not known", file.name, done_word(call));
	return NULL;
}

/* " after 1 of 3 files"; nothing before the first is through */
static void
add_how_far(const KindCall *call, StrBuf *text)
{
	int64		i = kind_int64(storage_work(call), "i", 0);
	int64		moved = storage_moved(call);

	if (i > 0)
		strbuf_printf(text, " after " INT64_FORMAT " of %d files", i, storage_file_count(call->spec));
	if (i > 0 && moved != i)
		strbuf_printf(text, ", " INT64_FORMAT " of them %s", moved, done_word(call));
}

/* What is only deleted is not committed file by file. */
static bool
forgot_files(const KindCall *call)
{
	return storage_is_delete(call->spec) && storage_has_crashed(call);
}

static void
add_forgotten(const KindCall *call, StrBuf *text)
{
	if (forgot_files(call))
		strbuf_printf(text, "; the server or its conductor was restarted meanwhile, so more may have been %s", done_word(call));
}

static char *
given_up_files(const KindCall *call, bool is_open)
{
	int64		i = kind_int64(storage_work(call), "i", 0);
	char	   *rest = i < storage_file_count(call->spec) ? file_at_hand(call, is_open) : NULL;
	StrBuf		text;

	strbuf_init(&text);
	strbuf_addstr(&text, "given up");
	add_how_far(call, &text);
	if (rest != NULL)
		strbuf_printf(&text, "; %s", rest);
	else if (i == 0 && !forgot_files(call))
		strbuf_printf(&text, " before a file was %s", done_word(call));
	add_forgotten(call, &text);
	return text.data;
}

/* Of a failure, whose message names the file at hand.  NULL: the first, or all were gone through. */
char *
storage_how_far(const KindCall *call)
{
	int64		i = kind_int64(storage_work(call), "i", 0);
	StrBuf		text;

	if (i == 0 || i >= storage_file_count(call->spec))
		return NULL;
	strbuf_init(&text);
	strbuf_addstr(&text, "It ended");
	add_how_far(call, &text);
	add_forgotten(call, &text);
	strbuf_addstr(&text, ".");
	return text.data;
}

static char *
given_up_put(const KindCall *call, bool is_open)
{
	const char *name = kind_string(call->spec, "name");

	if (kind_state_string(call, "phase") != NULL)
		return mem_printf("given up before what is at \"%s\" already was compared", name);
	return mem_printf(is_open ? "given up; whether \"%s\" was written is not known" : "given up before \"%s\" was written", name);
}

/*
 * Nothing to cancel at the service, or nothing any more; whatever was sent
 * may be repeated, or be found done.
 */
void
storage_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict)
{
	StorageOperation operation = storage_operation(call->spec);
	bool		is_open = is_sent || storage_has_crashed(call) || (call->step == KIND_STEP_START && call->step_tries > 0);
	char	   *text = "given up";

	if (operation == STORAGE_PUT)
		text = given_up_put(call, is_open);
	else if (operation != STORAGE_LIST && operation != STORAGE_WAIT)
	{
		text = given_up_files(call, is_open);
		if (!forgot_files(call))
			verdict->output = build_output(call);
	}
	kind_fail(verdict, false, true, "cancelled", text);
	verdict->outcome = KIND_CANCELLED;
}
