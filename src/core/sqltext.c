/*-------------------------------------------------------------------------
 * sqltext.c
 *	  SQL text with references, turned into SQL with parameters
 *
 * Runs where pipelines are defined and where SQL tasks are started.  Pure
 * functions; no locks, no state.
 *
 * The lexer knows just enough of PostgreSQL's to tell code from quotes and
 * comments.  Being wrong about that cannot inject anything: a reference
 * becomes the text "$n" wherever it stands, and its value travels apart.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "reference.h"
#include "sqltext.h"

typedef struct SqlLexer
{
	const char *text;
	size_t		len;
	size_t		pos;
	StrBuf		out;
	SqlText    *sql;
	char	   *error;
	char	   *hint;
} SqlLexer;

/* Remembers the first error; hint may be NULL.  Always false. */
static bool
sql_fail(SqlLexer *lex, size_t pos, const char *what, const char *hint)
{
	if (lex->error == NULL)
	{
		lex->error = mem_printf("%s at byte %zu", what, pos + 1);
		lex->hint = hint != NULL ? mem_strdup(hint) : NULL;
	}
	return false;
}

/* The text is terminated by a zero, so looking ahead byte by byte is safe */
static bool
looking_at(const SqlLexer *lex, const char *what)
{
	return strncmp(lex->text + lex->pos, what, strlen(what)) == 0;
}

/* Moves n bytes to the output as they are */
static void
copy_bytes(SqlLexer *lex, size_t n)
{
	strbuf_add(&lex->out, lex->text + lex->pos, n);
	lex->pos += n;
}

static bool
is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_ident_start(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool
is_ident_part(unsigned char c)
{
	return is_ident_start(c) || is_digit(c) || c == '$';
}

/*
 * Inside quotes two braces are more often a nested array ('{{1,2},{3,4}}')
 * or JSON than a reference.  What reads as a complete reference with more
 * than one part, or starts like one with a name we know, is taken for a
 * mistake rather than passed on as text.
 */
static bool
is_reference_in_quotes(const SqlLexer *lex)
{
	size_t		pos = lex->pos;
	RefPath    *path;
	char	   *literal;
	char	   *error;
	bool		yes;
	const char *name;
	size_t		name_len = 0;

	if (ref_parse(lex->text, lex->len, &pos, &path, &literal, &error))
	{
		yes = path != NULL && (path->nparts > 1 ||
							   ref_is_root(path->text, strlen(path->text)));
		ref_path_free(path);
		if (literal != NULL)
			mem_free(literal);
		return yes;
	}
	mem_free(error);

	name = lex->text + lex->pos + 2;
	name += strspn(name, " \t\r\n");
	while (is_ident_part((unsigned char) name[name_len]))
		name_len++;
	return ref_is_root(name, name_len) &&
		(name[name_len] == '.' || name[name_len] == '[');
}

static bool
check_in_quotes(SqlLexer *lex, char quote)
{
	if (!looking_at(lex, "{{") || !is_reference_in_quotes(lex))
		return true;
	if (quote == '"')
		return sql_fail(lex, lex->pos, "reference inside a quoted identifier",
						"A reference is a value: it cannot name a table or a column.");
	if (quote == '$')
		return sql_fail(lex, lex->pos, "reference inside a dollar-quoted string",
						"A reference is a bound value: use it outside of the quotes, for example as an argument of a function.");
	return sql_fail(lex, lex->pos, "reference inside quotes",
					"Remove the quotes: a reference is a bound value, not text.");
}

/*
 * Behind the end of an E'' string: does it go on after white space with a
 * newline?  Then that is copied, and the next string has escapes too,
 * although nothing at its start says so.
 */
static bool
string_continues(SqlLexer *lex)
{
	size_t		p = lex->pos;
	bool		newline = false;

	for (;;)
	{
		char		c = lex->text[p];

		if (c == '\n' || c == '\r')
			newline = true;
		else if (c == '-' && lex->text[p + 1] == '-')
		{
			p += strcspn(lex->text + p, "\r\n");
			continue;
		}
		else if (c != ' ' && c != '\t' && c != '\f' && c != '\v')
			break;
		p++;
	}
	if (!newline || lex->text[p] != '\'')
		return false;
	copy_bytes(lex, p - lex->pos);
	return true;
}

/* At the opening quote, single or double */
static bool
copy_quoted(SqlLexer *lex, bool escapes)
{
	size_t		start = lex->pos;
	char		quote = lex->text[start];

	copy_bytes(lex, 1);
	while (lex->pos < lex->len)
	{
		char		c = lex->text[lex->pos];

		if (!check_in_quotes(lex, quote))
			return false;
		if (escapes && c == '\\')
			copy_bytes(lex, Min(2, lex->len - lex->pos));
		else if (c == quote && lex->text[lex->pos + 1] == quote)
			copy_bytes(lex, 2);
		else if (c == quote)
		{
			copy_bytes(lex, 1);
			if (!escapes || !string_continues(lex))
				return true;
			copy_bytes(lex, 1); /* the quote that opens the next part */
		}
		else
			copy_bytes(lex, 1);
	}
	return sql_fail(lex, start, quote == '"' ? "unterminated quoted identifier starting" :
					"unterminated quoted string starting", NULL);
}

/* At a dollar sign: the length of an opening $tag$, or 0 */
static size_t
dollar_tag_length(const SqlLexer *lex)
{
	const char *s = lex->text + lex->pos;
	size_t		n = 1;

	if (is_ident_start((unsigned char) s[n]))
	{
		while (is_ident_part((unsigned char) s[n]) && s[n] != '$')
			n++;
	}
	return s[n] == '$' ? n + 1 : 0;
}

static bool
copy_dollar(SqlLexer *lex)
{
	size_t		start = lex->pos;
	const char *tag = lex->text + start;
	size_t		n = dollar_tag_length(lex);

	if (n == 0)
	{
		if (is_digit((unsigned char) tag[1]))
			return sql_fail(lex, start, "parameter in SQL text",
							"Write a reference such as {{ params.name }} in the place of a numbered parameter.");
		copy_bytes(lex, 1);
		return true;
	}

	copy_bytes(lex, n);
	while (lex->pos < lex->len)
	{
		if (lex->text[lex->pos] == '$' && strncmp(lex->text + lex->pos, tag, n) == 0)
		{
			copy_bytes(lex, n);
			return true;
		}
		if (!check_in_quotes(lex, '$'))
			return false;
		copy_bytes(lex, 1);
	}
	return sql_fail(lex, start, "unterminated dollar-quoted string starting", NULL);
}

static bool
copy_block_comment(SqlLexer *lex)
{
	size_t		start = lex->pos;
	int			depth = 0;

	while (lex->pos < lex->len)
	{
		if (looking_at(lex, "/*"))
		{
			depth++;
			copy_bytes(lex, 2);
		}
		else if (looking_at(lex, "*/"))
		{
			copy_bytes(lex, 2);
			if (--depth == 0)
				return true;
		}
		else
			copy_bytes(lex, 1);
	}
	return sql_fail(lex, start, "unterminated comment starting", NULL);
}

/* A word; E directly before a quote is no word but a string with escapes */
static bool
copy_word(SqlLexer *lex)
{
	size_t		n = 0;

	while (is_ident_part((unsigned char) lex->text[lex->pos + n]))
		n++;
	copy_bytes(lex, n);
	if (n == 1 && strchr("eE", lex->text[lex->pos - 1]) != NULL && looking_at(lex, "'"))
		return copy_quoted(lex, true);
	return true;
}

/*
 * The number of the parameter for a path that now belongs to lex->sql; 0
 * when there are too many
 */
static int
parameter_number(SqlLexer *lex, RefPath *path)
{
	SqlText    *sql = lex->sql;

	for (int i = 0; i < sql->nrefs; i++)
	{
		if (strcmp(sql->refs[i]->text, path->text) == 0)
		{
			ref_path_free(path);
			return i + 1;
		}
	}
	if (sql->nrefs >= SQLTEXT_MAX_REFS)
	{
		ref_path_free(path);
		return 0;
	}
	sql->refs[sql->nrefs++] = path;
	return sql->nrefs;
}

/*
 * A reference has to stand alone: "t_{{ x }}" would become the name "t_$1",
 * and "{{ x }}0" parameter 10.
 */
static bool
copy_reference(SqlLexer *lex)
{
	size_t		start = lex->pos;
	unsigned char before = start > 0 ? (unsigned char) lex->text[start - 1] : ' ';
	RefPath    *path;
	char	   *literal;
	char	   *error;
	int			number;

	if (!ref_parse(lex->text, lex->len, &lex->pos, &path, &literal, &error))
	{
		lex->error = error;
		return false;
	}
	if (literal != NULL)
	{
		mem_free(literal);
		return sql_fail(lex, start, "quoted literal in the place of a reference",
						"Write the text itself as an SQL string.");
	}
	if (is_ident_part(before) || looking_at(lex, "{{") ||
		is_ident_part((unsigned char) lex->text[lex->pos]))
	{
		ref_path_free(path);
		return sql_fail(lex, start, "reference joined to other text",
						"A reference is a bound value: set it apart with spaces or operators.");
	}
	number = parameter_number(lex, path);
	if (number == 0)
		return sql_fail(lex, start, "too many different references", NULL);
	strbuf_printf(&lex->out, "$%d", number);
	return true;
}

/* One token, or one byte of something that needs no care */
static bool
copy_token(SqlLexer *lex)
{
	unsigned char c = (unsigned char) lex->text[lex->pos];

	if (looking_at(lex, "--"))
	{
		copy_bytes(lex, strcspn(lex->text + lex->pos, "\r\n"));
		return true;
	}
	if (looking_at(lex, "/*"))
		return copy_block_comment(lex);
	if (looking_at(lex, "{{"))
		return copy_reference(lex);
	if (c == '\'' || c == '"')
		return copy_quoted(lex, false);
	if (c == '$')
		return copy_dollar(lex);
	if (is_ident_start(c))
		return copy_word(lex);
	copy_bytes(lex, 1);
	return true;
}

SqlText *
sqltext_compile(const char *text, char **error, char **hint)
{
	SqlLexer	lex = {.text = text, .len = strlen(text)};
	bool		ok = true;

	*error = *hint = NULL;
	if (lex.len > SQLTEXT_MAX_BYTES)
	{
		*error = mem_printf("SQL text of %zu bytes is longer than the limit of %d bytes",
							lex.len, SQLTEXT_MAX_BYTES);
		return NULL;
	}

	strbuf_init(&lex.out);
	lex.sql = mem_alloc0(sizeof(SqlText));
	lex.sql->refs = mem_alloc0(sizeof(RefPath *) * SQLTEXT_MAX_REFS);
	while (ok && lex.pos < lex.len)
		ok = copy_token(&lex);

	lex.sql->sql = lex.out.data;
	if (!ok)
	{
		sqltext_free(lex.sql);
		*error = lex.error;
		*hint = lex.hint;
		return NULL;
	}
	return lex.sql;
}

void
sqltext_free(SqlText *sql)
{
	if (sql == NULL)
		return;
	for (int i = 0; i < sql->nrefs; i++)
		ref_path_free(sql->refs[i]);
	mem_free(sql->refs);
	mem_free(sql->sql);
	mem_free(sql);
}

char *
sqltext_check(const SqlText *sql, const RefScope *scope)
{
	for (int i = 0; i < sql->nrefs; i++)
	{
		char	   *error = ref_check(sql->refs[i], scope);

		if (error != NULL)
			return error;
	}
	return NULL;
}
