/*-------------------------------------------------------------------------
 * reference_render.c
 *	  Templates: putting values in the place of references
 *
 * Runs in the conductor when a task is about to start, before its intent is
 * written: a value that is missing fails the task before anything was sent.
 * Pure functions but for the caller's resolver; no locks, no state.
 *
 * What comes out is bounded: a reference of ten bytes may stand for a
 * megabyte, and a template may use it ten thousand times.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "json.h"
#include "reference.h"

typedef struct Render
{
	RefResolver resolve;
	void	   *arg;
	size_t		left;			/* bytes that may still come out */
	StrBuf	   *out;			/* of the text being rendered */
	bool		keep_unknown;	/* no value and no error: the reference stays */
} Render;

static cJSON *render_item(const cJSON *item, Render *render, int depth,
						  char **error);

static cJSON *
checked(cJSON *item)
{
	if (item == NULL)
		mem_exhausted();
	return item;
}

/* Takes bytes off what may come out */
static bool
charge(Render *render, size_t bytes, char **error)
{
	if (bytes > render->left)
	{
		*error = mem_printf("text with its references filled in is longer than the limit of %d bytes",
							REF_MAX_TEXT);
		return false;
	}
	render->left -= bytes;
	return true;
}

/*
 * The size of a tree as compact JSON, before escapes; stops above limit.  No
 * more than it has in truth: what came in as a megabyte may come out.
 */
static size_t
tree_size(const cJSON *item, size_t limit)
{
	size_t		size = 2;
	const cJSON *child;

	if (cJSON_IsNumber(item))
		return snprintf(NULL, 0, "%.15g", item->valuedouble);
	if (item->valuestring != NULL)
		return strlen(item->valuestring) + (cJSON_IsString(item) ? 2 : 0);
	if (!cJSON_IsObject(item) && !cJSON_IsArray(item))
		return strlen("true");
	cJSON_ArrayForEach(child, item)
	{
		if (size > limit)
			break;
		if (child->string != NULL)
			size += strlen(child->string) + 3;
		size += tree_size(child, limit) + (child->next != NULL ? 1 : 0);
	}
	return size;
}

static char *
value_error(const RefPath *path, const char *what)
{
	return mem_printf("reference \"%.*s\" %s",
					  (int) mem_clip_length(path->text, 128), path->text, what);
}

/* The value of one reference, of bounded size and depth, or NULL */
static cJSON *
resolve_value(const RefPath *path, Render *render, int depth, char **error)
{
	cJSON	   *value = render->resolve(path, render->arg, error);

	if (value == NULL && *error == NULL && render->keep_unknown)
	{
		char	   *text = mem_printf("{{%s}}", path->text);

		value = checked(cJSON_CreateString(text));
		mem_free(text);
	}
	if (value == NULL)
	{
		if (*error == NULL)
			*error = value_error(path, "has no value");
		return NULL;
	}
	if (depth + json_depth(value, JSON_MAX_DEPTH + 1) > JSON_MAX_DEPTH)
		*error = value_error(path, "has a value that is nested too deep");
	else if (charge(render, tree_size(value, render->left), error))
		return value;
	cJSON_Delete(value);
	return NULL;
}

/* A value inside of other text */
static void
add_value_text(StrBuf *out, const cJSON *value)
{
	if (cJSON_IsString(value) || cJSON_IsRaw(value))
		strbuf_addstr(out, value->valuestring);
	else if (!cJSON_IsNull(value))
	{
		char	   *text = json_text(value);

		strbuf_addstr(out, text);
		mem_free(text);
	}
}

/* RefPieceFn of render_text */
static bool
render_piece(const RefPiece *piece, void *arg, char **error)
{
	Render	   *render = arg;
	cJSON	   *value;

	if (piece->path == NULL)
	{
		if (!charge(render, piece->len, error))
			return false;
		strbuf_add(render->out, piece->text, piece->len);
		return true;
	}
	value = resolve_value(piece->path, render, 0, error);
	if (value == NULL)
		return false;
	add_value_text(render->out, value);
	cJSON_Delete(value);
	return true;
}

static char *
render_text(const char *text, Render *render, char **error)
{
	StrBuf		out;
	bool		ok;

	strbuf_init(&out);
	render->out = &out;
	ok = ref_scan(text, render_piece, render, error);
	render->out = NULL;
	if (!ok)
	{
		strbuf_free(&out);
		return NULL;
	}
	return out.data;
}

/* The path, if the string is one reference and nothing else; else NULL */
static RefPath *
whole_reference(const char *text)
{
	size_t		len = strlen(text);
	size_t		pos = 0;
	RefPath    *path;
	char	   *literal;
	char	   *error;

	if (strncmp(text, "{{", 2) != 0)
		return NULL;
	if (!ref_parse(text, len, &pos, &path, &literal, &error))
	{
		mem_free(error);		/* render_text will say it again */
		return NULL;
	}
	if (literal != NULL)
		mem_free(literal);
	if (path != NULL && pos == len)
		return path;
	ref_path_free(path);
	return NULL;
}

static cJSON *
render_string(const char *text, Render *render, int depth, char **error)
{
	RefPath    *path = whole_reference(text);
	char	   *rendered;
	cJSON	   *item;

	if (path != NULL)
	{
		item = resolve_value(path, render, depth, error);
		ref_path_free(path);
		return item;
	}
	rendered = render_text(text, render, error);
	if (rendered == NULL)
		return NULL;
	item = checked(cJSON_CreateString(rendered));
	mem_free(rendered);
	return item;
}

static cJSON *
render_container(const cJSON *item, Render *render, int depth, char **error)
{
	bool		is_object = cJSON_IsObject(item);
	cJSON	   *copy;
	const cJSON *child;

	if (depth >= REF_MAX_DEPTH)
	{
		*error = mem_printf("nested more than %d levels deep", REF_MAX_DEPTH);
		return NULL;
	}
	copy = checked(is_object ? cJSON_CreateObject() : cJSON_CreateArray());
	cJSON_ArrayForEach(child, item)
	{
		cJSON	   *value = NULL;

		if (!is_object || charge(render, strlen(child->string) + 3, error))
			value = render_item(child, render, depth + 1, error);
		if (value == NULL)
		{
			cJSON_Delete(copy);
			return NULL;
		}
		if (!is_object)
			cJSON_AddItemToArray(copy, value);
		else if (!cJSON_AddItemToObject(copy, child->string, value))
			mem_exhausted();
	}
	return copy;
}

static cJSON *
render_item(const cJSON *item, Render *render, int depth, char **error)
{
	if (!charge(render, 2, error))
		return NULL;
	if (cJSON_IsString(item))
		return render_string(item->valuestring, render, depth, error);
	if (cJSON_IsObject(item) || cJSON_IsArray(item))
		return render_container(item, render, depth, error);
	if (!charge(render, tree_size(item, render->left), error))
		return NULL;
	return checked(cJSON_Duplicate(item, false));
}

cJSON *
ref_render_json(const cJSON *spec, RefResolver resolve, void *arg, char **error)
{
	Render		render = {resolve, arg, REF_MAX_TEXT, NULL, false};

	*error = NULL;
	return render_item(spec, &render, 0, error);
}

cJSON *
ref_render_known(const cJSON *spec, RefResolver resolve, void *arg, char **error)
{
	Render		render = {resolve, arg, REF_MAX_TEXT, NULL, true};

	*error = NULL;
	return render_item(spec, &render, 0, error);
}

char *
ref_render_text(const char *text, RefResolver resolve, void *arg, char **error)
{
	Render		render = {resolve, arg, REF_MAX_TEXT, NULL, false};

	*error = NULL;
	return render_text(text, &render, error);
}
