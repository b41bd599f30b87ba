/*-------------------------------------------------------------------------
 * reference_check.c
 *	  Templates: may this task refer to that?
 *
 * Runs in the session that defines a pipeline, so that a mistake is told
 * when it is made and not in the first night run.  Pure functions; no locks,
 * no state.  Whoever resolves references has to know all that is allowed
 * here.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "reference.h"

/* Names listed in an error, and bytes shown of one */
#define SHOW_NAMES	20
#define SHOW_BYTES	64

/* The last two are known in the task of a for_each only. */
static const char *const root_names[] = {
	"run", "row_audit_id", "params", "tasks", "task", "pipeline", "item", "item_no",
};

#define ITEM_ROOTS 2

static const char *const run_fields[] = {
	"id", "row_audit_id", "pipeline", "version", "attempt", "nominal_time",
	"started_at", "window_start", "window_end", "trigger_type", "parent_id",
};

static const char *const task_fields[] = {"name", "attempt"};

static const char *const pipeline_fields[] = {"name", "version"};

static const char *const upstream_fields[] = {"output", "status", "error"};

bool
ref_is_root(const char *name, size_t len)
{
	for (size_t i = 0; i < lengthof(root_names); i++)
	{
		if (strlen(root_names[i]) == len && strncmp(root_names[i], name, len) == 0)
			return true;
	}
	return false;
}

static bool
in_list(const char *name, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(list[i], name) == 0)
			return true;
	}
	return false;
}

/* "a, b, c", or instead when the list is empty */
static void
add_list(StrBuf *buf, const char *const *list, int n, const char *instead)
{
	if (n == 0)
		strbuf_addstr(buf, instead);
	for (int i = 0; i < n && i < SHOW_NAMES; i++)
		strbuf_printf(buf, "%s%.*s", i > 0 ? ", " : "",
					  (int) mem_clip_length(list[i], SHOW_BYTES), list[i]);
	if (n > SHOW_NAMES)
		strbuf_printf(buf, ", ... (%d more)", n - SHOW_NAMES);
}

/* reference "text" what: a, b, c */
static char *
check_error(const RefPath *path, const char *what,
			const char *const *allowed, int n, const char *instead)
{
	StrBuf		buf;

	strbuf_init(&buf);
	strbuf_printf(&buf, "reference \"%.*s\" %s: ",
				  (int) mem_clip_length(path->text, 2 * SHOW_BYTES), path->text, what);
	add_list(&buf, allowed, n, instead);
	return buf.data;
}

/* part i is one of the fields, and the last part if it has to be */
static char *
check_field(const RefPath *path, int i, const char *const *fields, int n, bool last)
{
	if (i >= path->nparts)
		return check_error(path, "lacks a field, one of", fields, n, "none");
	if (path->parts[i].name == NULL || !in_list(path->parts[i].name, fields, n))
		return check_error(path, "names an unknown field, not one of", fields, n, "none");
	if (last && path->nparts > i + 1)
		return mem_printf("reference \"%.*s\" goes on behind a plain value",
						  (int) mem_clip_length(path->text, 2 * SHOW_BYTES), path->text);
	return NULL;
}

static char *
check_param(const RefPath *path, const RefScope *scope)
{
	const char *name = path->nparts > 1 ? path->parts[1].name : NULL;

	if (name == NULL)
		return check_error(path, "lacks the name of a parameter, one of",
						   scope->params, scope->nparams, "none is declared");
	if (!in_list(name, scope->params, scope->nparams))
		return check_error(path, "names an undeclared parameter; declared are",
						   scope->params, scope->nparams, "none");
	return NULL;
}

static char *
check_upstream(const RefPath *path, const RefScope *scope)
{
	const char *name = path->nparts > 1 ? path->parts[1].name : NULL;

	if (name == NULL)
		return check_error(path, "lacks the name of an upstream task, one of",
						   scope->upstream, scope->nupstream, "there is none");
	if (!in_list(name, scope->upstream, scope->nupstream))
	{
		bool		exists = scope->tasks != NULL &&
			in_list(name, scope->tasks, scope->ntasks);

		return check_error(path, exists ?
						   "names a task this one does not depend on; upstream are" :
						   "names no upstream task; upstream are",
						   scope->upstream, scope->nupstream, "none");
	}
	return check_field(path, 2, upstream_fields, lengthof(upstream_fields),
					   !ref_path_is(path, 2, "output"));
}

/* item and what is in it, item_no */
static char *
check_item(const RefPath *path, const RefScope *scope)
{
	if (!scope->in_item)
		return mem_printf("reference \"%.*s\" is known in the task of a for_each only",
						  (int) mem_clip_length(path->text, 2 * SHOW_BYTES), path->text);
	if (ref_path_is(path, 0, "item_no") && path->nparts > 1)
		return mem_printf("reference \"%.*s\" goes on behind a plain value",
						  (int) mem_clip_length(path->text, 2 * SHOW_BYTES), path->text);
	return NULL;
}

char *
ref_check(const RefPath *path, const RefScope *scope)
{
	if (ref_path_is(path, 0, "item") || ref_path_is(path, 0, "item_no"))
		return check_item(path, scope);
	if (ref_path_is(path, 0, "params"))
		return check_param(path, scope);
	if (ref_path_is(path, 0, "tasks"))
		return check_upstream(path, scope);
	if (ref_path_is(path, 0, "run"))
		return check_field(path, 1, run_fields, lengthof(run_fields), true);
	if (ref_path_is(path, 0, "task"))
		return check_field(path, 1, task_fields, lengthof(task_fields), true);
	if (ref_path_is(path, 0, "pipeline"))
		return check_field(path, 1, pipeline_fields, lengthof(pipeline_fields), true);
	/* the root is itself the field: nothing may follow it */
	return check_field(path, 0, root_names, lengthof(root_names) - (scope->in_item ? 0 : ITEM_ROOTS), true);
}

/* arg is the scope; the text of the first error becomes the scan's */
static bool
check_piece(const RefPiece *piece, void *arg, char **error)
{
	if (piece->path != NULL)
		*error = ref_check(piece->path, (const RefScope *) arg);
	return *error == NULL;
}

char *
ref_check_json(const cJSON *spec, const RefScope *scope)
{
	char	   *error;

	ref_scan_json(spec, check_piece, (void *) scope, &error);
	return error;
}
