/*-------------------------------------------------------------------------
 * reference.c
 *	  Templates: reading references and finding them in text and trees
 *
 * Runs where pipelines are defined (check) and where tasks are started
 * (through reference_render.c).  Pure functions; no locks, no state.
 *
 * A template is never evaluated: a reference is only a path, there are no
 * expressions, and what it yields is not scanned again.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "reference.h"

/* Bytes of a place in a tree shown in an error */
#define SHOW_BYTES	256

typedef struct RefLexer
{
	const char *text;
	size_t		len;
	size_t		start;			/* of the reference, for errors */
	size_t		pos;
	char	   *error;
} RefLexer;

static bool
lex_fail(RefLexer *lex, const char *what)
{
	if (lex->error == NULL)
	{
		if (lex->pos >= lex->len)
			lex->error = mem_printf("unterminated reference starting at byte %zu",
									lex->start + 1);
		else
			lex->error = mem_printf("%s at byte %zu of the reference starting at byte %zu",
									what, lex->pos + 1, lex->start + 1);
	}
	return false;
}

/* The byte at the position, or -1 at the end */
static int
lex_peek(const RefLexer *lex)
{
	return lex->pos < lex->len ? (unsigned char) lex->text[lex->pos] : -1;
}

static void
lex_space(RefLexer *lex)
{
	int			c = lex_peek(lex);

	while (c == ' ' || c == '\t' || c == '\n' || c == '\r')
	{
		lex->pos++;
		c = lex_peek(lex);
	}
}

static bool
is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static bool
is_name_start(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool
is_name_part(int c)
{
	return is_name_start(c) || is_digit(c) || c == '-';
}

/* A name, or NULL */
static char *
lex_name(RefLexer *lex)
{
	size_t		start = lex->pos;

	if (!is_name_start(lex_peek(lex)))
	{
		lex_fail(lex, "expected a name");
		return NULL;
	}
	while (is_name_part(lex_peek(lex)))
		lex->pos++;
	return mem_strndup(lex->text + start, lex->pos - start);
}

/* At a double quote: the string, or NULL */
static char *
lex_string(RefLexer *lex)
{
	StrBuf		buf;
	int			c;

	strbuf_init(&buf);
	lex->pos++;
	while ((c = lex_peek(lex)) != '"')
	{
		if (c == '\\')
		{
			lex->pos++;
			c = lex_peek(lex);
			if (c != '"' && c != '\\')
				c = -1;
		}
		if (c < 0)
		{
			lex_fail(lex, "invalid escape");
			strbuf_free(&buf);
			return NULL;
		}
		strbuf_addchar(&buf, (char) c);
		lex->pos++;
	}
	lex->pos++;
	return buf.data;
}

/* Behind "[": an index or a quoted name, and "]" */
static bool
lex_bracket(RefLexer *lex, RefPart *part)
{
	lex_space(lex);
	if (lex_peek(lex) == '"')
	{
		part->name = lex_string(lex);
		if (part->name == NULL)
			return false;
	}
	else
	{
		int			digits = 0;

		for (; is_digit(lex_peek(lex)) && digits < 9; digits++)
			part->index = part->index * 10 + (lex->text[lex->pos++] - '0');
		if (digits == 0 || is_digit(lex_peek(lex)))
			return lex_fail(lex, "expected an index or a quoted name");
	}
	lex_space(lex);
	if (lex_peek(lex) != ']')
		return lex_fail(lex, "expected \"]\"");
	lex->pos++;
	return true;
}

static bool
lex_close(RefLexer *lex)
{
	lex_space(lex);
	if (lex_peek(lex) == '}')
	{
		lex->pos++;
		if (lex_peek(lex) == '}')
		{
			lex->pos++;
			return true;
		}
	}
	return lex_fail(lex, "expected \"}}\"");
}

/* The parts up to, not including, the closing braces */
static bool
lex_path(RefLexer *lex, RefPath *path)
{
	size_t		size = 4;

	path->parts = mem_alloc0(sizeof(RefPart) * size);
	path->parts[0].name = lex_name(lex);
	path->nparts = 1;
	if (path->parts[0].name == NULL)
		return false;

	for (;;)
	{
		RefPart    *part;
		int			c;

		lex_space(lex);
		c = lex_peek(lex);
		if (c != '.' && c != '[')
			return true;
		if (path->nparts >= REF_MAX_PARTS)
			return lex_fail(lex, "too many parts");
		if ((size_t) path->nparts == size)
		{
			size *= 2;
			path->parts = mem_realloc(path->parts, sizeof(RefPart) * size);
		}
		part = &path->parts[path->nparts++];
		part->name = NULL;
		part->index = 0;
		lex->pos++;
		if (c == '[')
		{
			if (!lex_bracket(lex, part))
				return false;
			continue;
		}
		lex_space(lex);
		part->name = lex_name(lex);
		if (part->name == NULL)
			return false;
	}
}

static bool
is_plain_name(const char *name)
{
	if (!is_name_start((unsigned char) *name))
		return false;
	while (is_name_part((unsigned char) *name))
		name++;
	return *name == '\0';
}

static char *
canonical_text(const RefPath *path)
{
	StrBuf		buf;

	strbuf_init(&buf);
	for (int i = 0; i < path->nparts; i++)
	{
		const char *name = path->parts[i].name;

		if (name == NULL)
			strbuf_printf(&buf, "[%d]", path->parts[i].index);
		else if (is_plain_name(name))
		{
			if (i > 0)
				strbuf_addchar(&buf, '.');
			strbuf_addstr(&buf, name);
		}
		else
		{
			strbuf_addstr(&buf, "[\"");
			for (; *name != '\0'; name++)
			{
				if (*name == '"' || *name == '\\')
					strbuf_addchar(&buf, '\\');
				strbuf_addchar(&buf, *name);
			}
			strbuf_addstr(&buf, "\"]");
		}
	}
	return buf.data;
}

void
ref_path_free(RefPath *path)
{
	if (path == NULL)
		return;
	for (int i = 0; i < path->nparts; i++)
	{
		if (path->parts[i].name != NULL)
			mem_free(path->parts[i].name);
	}
	if (path->parts != NULL)
		mem_free(path->parts);
	if (path->text != NULL)
		mem_free(path->text);
	mem_free(path);
}

bool
ref_path_is(const RefPath *path, int i, const char *name)
{
	return i < path->nparts && path->parts[i].name != NULL &&
		strcmp(path->parts[i].name, name) == 0;
}

bool
ref_parse(const char *text, size_t len, size_t *pos,
		  RefPath **path, char **literal, char **error)
{
	RefLexer	lex = {.text = text, .len = len, .start = *pos, .pos = *pos + 2};
	bool		ok;

	Assert(len - *pos >= 2 && memcmp(text + *pos, "{{", 2) == 0);
	*path = NULL;
	*literal = NULL;
	*error = NULL;

	lex_space(&lex);
	if (lex_peek(&lex) == '"')
	{
		*literal = lex_string(&lex);
		ok = *literal != NULL;
	}
	else
	{
		*path = mem_alloc0(sizeof(RefPath));
		ok = lex_path(&lex, *path);
	}

	if (!ok || !lex_close(&lex))
	{
		ref_path_free(*path);
		if (*literal != NULL)
			mem_free(*literal);
		*path = NULL;
		*literal = NULL;
		*error = lex.error;
		return false;
	}
	if (*path != NULL)
		(*path)->text = canonical_text(*path);
	*pos = lex.pos;
	return true;
}

/* One reference or quoted literal at *pos, handed to fn */
static bool
scan_reference(const char *text, size_t len, size_t *pos,
			   RefPieceFn fn, void *arg, char **error)
{
	RefPiece	piece = {.offset = *pos + 1};
	RefPath    *path;
	char	   *literal;
	bool		ok;

	if (!ref_parse(text, len, pos, &path, &literal, error))
		return false;
	piece.path = path;
	piece.text = literal;
	piece.len = literal != NULL ? strlen(literal) : 0;
	ok = fn(&piece, arg, error);
	ref_path_free(path);
	if (literal != NULL)
		mem_free(literal);
	return ok;
}

bool
ref_scan(const char *text, RefPieceFn fn, void *arg, char **error)
{
	size_t		len = strlen(text);
	size_t		pos = 0;

	*error = NULL;
	if (len > REF_MAX_TEXT)
	{
		*error = mem_printf("text of %zu bytes is longer than the limit of %d bytes",
							len, REF_MAX_TEXT);
		return false;
	}
	while (pos < len)
	{
		const char *open = strstr(text + pos, "{{");
		size_t		end = open != NULL ? (size_t) (open - text) : len;

		if (end > pos)
		{
			RefPiece	piece = {NULL, text + pos, end - pos, pos + 1};

			if (!fn(&piece, arg, error))
				return false;
			pos = end;
		}
		if (open != NULL && !scan_reference(text, len, &pos, fn, arg, error))
			return false;
	}
	return true;
}

/* where is the path of item in the tree; the same again on return of true */
static bool
scan_json_at(const cJSON *item, StrBuf *where, int depth,
			 RefPieceFn fn, void *arg, char **error)
{
	size_t		where_len = where->len;
	const cJSON *child;
	int			i = 0;

	if (cJSON_IsString(item))
		return ref_scan(item->valuestring, fn, arg, error);
	if (!cJSON_IsObject(item) && !cJSON_IsArray(item))
		return true;
	if (depth >= REF_MAX_DEPTH)
	{
		*error = mem_printf("nested more than %d levels deep", REF_MAX_DEPTH);
		return false;
	}

	cJSON_ArrayForEach(child, item)
	{
		if (cJSON_IsArray(item))
			strbuf_printf(where, "[%d]", i++);
		else
			strbuf_printf(where, "%s%s", where->len > 0 ? "." : "", child->string);
		if (!scan_json_at(child, where, depth + 1, fn, arg, error))
			return false;
		where->len = where_len;
		where->data[where_len] = '\0';
	}
	return true;
}

bool
ref_scan_json(const cJSON *spec, RefPieceFn fn, void *arg, char **error)
{
	StrBuf		where;
	bool		ok;

	*error = NULL;
	strbuf_init(&where);
	ok = scan_json_at(spec, &where, 0, fn, arg, error);
	if (!ok && *error != NULL && where.len > 0)
	{
		char	   *inner = *error;

		*error = mem_printf("%s, in \"%.*s\"", inner,
							(int) mem_clip_length(where.data, SHOW_BYTES), where.data);
		mem_free(inner);
	}
	strbuf_free(&where);
	return ok;
}

const cJSON *
ref_value_at(const cJSON *value, const RefPath *path, int from)
{
	for (int i = from; i < path->nparts && value != NULL; i++)
	{
		const char *name = path->parts[i].name;

		if (name != NULL)
			value = cJSON_IsObject(value) ?
				cJSON_GetObjectItemCaseSensitive(value, name) : NULL;
		else
			value = cJSON_IsArray(value) ?
				cJSON_GetArrayItem(value, path->parts[i].index) : NULL;
	}
	return value;
}
