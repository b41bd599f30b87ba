/*-------------------------------------------------------------------------
 * json_parse.c
 *	  Strict, bounded, number-exact reading of JSON into cJSON trees
 *
 * Runs in any process, on text from users and from other people's servers.
 * No locks, no state.
 *
 * cJSON's own reader is not used: it takes more than JSON (control
 * characters, "01", text cut at \u0000), keeps every number as a double, so
 * that the run id 9007199254740993 comes back as ...992, and lets keys
 * repeat.  This one is a recursive descent over RFC 8259 that builds the
 * same trees and is bounded in depth and size.
 *
 * cJSON trees are not palloc'ed unless cJSON's hooks say so: an ERROR
 * between making and deleting one leaks it.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <math.h>

#include "json.h"

/* Longest number, and largest exponent: well inside of what numeric takes */
#define NUMBER_MAX_LEN	4000
#define EXPONENT_MAX	1000

/* An integer this long may not survive being a double */
#define EXACT_DIGITS	15

/* Bytes of a key shown in an error */
#define KEY_SHOWN		64

typedef struct Parser
{
	const char *text;
	size_t		len;
	size_t		pos;
	int			depth;
	int			max_depth;
	bool		is_stored;		/* numbers may be of any length */
	StrBuf		scratch;		/* the string or number being read */
	char	   *error;
} Parser;

static cJSON *parse_value(Parser *p);

/* Remembers the first error; returns NULL for the convenience of callers */
static cJSON *
fail_at(Parser *p, size_t pos, const char *what)
{
	if (p->error == NULL)
		p->error = mem_printf("%s at byte %zu", what, pos + 1);
	return NULL;
}

static cJSON *
checked(cJSON *item)
{
	if (item == NULL)
		mem_exhausted();
	return item;
}

/* The byte at the position, or -1 at the end */
static int
peek(const Parser *p)
{
	return p->pos < p->len ? (unsigned char) p->text[p->pos] : -1;
}

static void
skip_space(Parser *p)
{
	while (p->pos < p->len)
	{
		char		c = p->text[p->pos];

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			break;
		p->pos++;
	}
}

static bool
is_digit(int c)
{
	return c >= '0' && c <= '9';
}

/*
 * Length of the valid UTF-8 character at s (left > 0 bytes), or 0: no
 * overlong forms, no surrogates, nothing above U+10FFFF.
 */
static int
utf8_length(const unsigned char *s, size_t left)
{
	unsigned char lo = 0x80;
	unsigned char hi = 0xBF;
	int			n;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		n = 2;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
	{
		n = 3;
		if (s[0] == 0xE0)
			lo = 0xA0;
		else if (s[0] == 0xED)
			hi = 0x9F;
	}
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
	{
		n = 4;
		if (s[0] == 0xF0)
			lo = 0x90;
		else if (s[0] == 0xF4)
			hi = 0x8F;
	}
	else
		return 0;

	if (left < (size_t) n || s[1] < lo || s[1] > hi)
		return 0;
	for (int i = 2; i < n; i++)
	{
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	}
	return n;
}

static void
add_utf8(StrBuf *buf, unsigned code)
{
	char		out[4];
	int			n = 0;

	if (code < 0x80)
		out[n++] = (char) code;
	else if (code < 0x800)
	{
		out[n++] = (char) (0xC0 | code >> 6);
		out[n++] = (char) (0x80 | (code & 0x3F));
	}
	else if (code < 0x10000)
	{
		out[n++] = (char) (0xE0 | code >> 12);
		out[n++] = (char) (0x80 | (code >> 6 & 0x3F));
		out[n++] = (char) (0x80 | (code & 0x3F));
	}
	else
	{
		out[n++] = (char) (0xF0 | code >> 18);
		out[n++] = (char) (0x80 | (code >> 12 & 0x3F));
		out[n++] = (char) (0x80 | (code >> 6 & 0x3F));
		out[n++] = (char) (0x80 | (code & 0x3F));
	}
	strbuf_add(buf, out, n);
}

/* Four hexadecimal digits at the position, or -1 */
static int
parse_hex4(Parser *p)
{
	int			value = 0;

	if (p->len - p->pos < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = p->text[p->pos + i];

		value <<= 4;
		if (is_digit(c))
			value |= c - '0';
		else if (c >= 'a' && c <= 'f')
			value |= c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			value |= c - 'A' + 10;
		else
			return -1;
	}
	p->pos += 4;
	return value;
}

/* Behind "\u"; surrogates must come as a pair */
static bool
parse_unicode_escape(Parser *p)
{
	size_t		start = p->pos - 2;
	int			code = parse_hex4(p);

	if (code >= 0xD800 && code <= 0xDBFF)
	{
		int			low = -1;

		if (p->len - p->pos >= 6 && memcmp(p->text + p->pos, "\\u", 2) == 0)
		{
			p->pos += 2;
			low = parse_hex4(p);
		}
		code = low >= 0xDC00 && low <= 0xDFFF ?
			0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
	}
	else if (code >= 0xDC00 && code <= 0xDFFF)
		code = -1;

	if (code <= 0)
	{
		fail_at(p, start, code == 0 ? "\\u0000 is not allowed" :
				"invalid Unicode escape");
		return false;
	}
	add_utf8(&p->scratch, (unsigned) code);
	return true;
}

/* Behind the backslash */
static bool
parse_escape(Parser *p)
{
	static const char names[] = "\"\\/bfnrt";
	static const char values[] = "\"\\/\b\f\n\r\t";
	int			c = peek(p);
	const char *found;

	p->pos++;
	if (c == 'u')
		return parse_unicode_escape(p);
	found = c > 0 ? strchr(names, c) : NULL;
	if (found == NULL)
	{
		fail_at(p, p->pos - 2, "invalid escape");
		return false;
	}
	strbuf_addchar(&p->scratch, values[found - names]);
	return true;
}

/* At the opening quote; leaves the text in p->scratch */
static bool
parse_string(Parser *p)
{
	size_t		start = p->pos++;

	strbuf_reset(&p->scratch);
	for (;;)
	{
		const unsigned char *s = (const unsigned char *) p->text + p->pos;
		int			n;

		if (p->pos >= p->len)
		{
			fail_at(p, start, "unterminated string starting");
			return false;
		}
		if (*s == '"')
		{
			p->pos++;
			return true;
		}
		if (*s == '\\')
		{
			p->pos++;
			if (!parse_escape(p))
				return false;
			continue;
		}
		if (*s < 0x20)
		{
			fail_at(p, p->pos, "control character in a string");
			return false;
		}
		n = utf8_length(s, p->len - p->pos);
		if (n == 0)
		{
			fail_at(p, p->pos, "invalid UTF-8");
			return false;
		}
		strbuf_add(&p->scratch, (const char *) s, n);
		p->pos += n;
	}
}

/* Skips digits and returns how many there were */
static size_t
skip_digits(Parser *p)
{
	size_t		start = p->pos;

	while (is_digit(peek(p)))
		p->pos++;
	return p->pos - start;
}

/* Does the number need more digits than a double is sure to keep? */
static bool
number_needs_raw(const char *number, double value)
{
	int			digits = 0;
	bool		fraction = false;
	int			length = 0;

	for (const char *s = number; *s != '\0' && *s != 'e' && *s != 'E'; s++)
	{
		fraction |= *s == '.';
		if (!is_digit(*s))
			continue;
		length++;
		if (digits > 0 || *s != '0')
			digits++;
	}
	if (digits > EXACT_DIGITS || (!fraction && length > EXACT_DIGITS))
		return true;
	return !isfinite(value) || (value == 0 && digits > 0);
}

static cJSON *
parse_number(Parser *p)
{
	size_t		start = p->pos;
	long		exponent = 0;
	double		value;

	if (peek(p) == '-')
		p->pos++;
	if (peek(p) == '0')
		p->pos++;
	else if (skip_digits(p) == 0)
		return fail_at(p, start, "invalid number");
	if (peek(p) == '.')
	{
		p->pos++;
		if (skip_digits(p) == 0)
			return fail_at(p, start, "invalid number");
	}
	if (peek(p) == 'e' || peek(p) == 'E')
	{
		size_t		digits;

		p->pos++;
		if (peek(p) == '+' || peek(p) == '-')
			p->pos++;
		digits = p->pos;
		if (skip_digits(p) == 0)
			return fail_at(p, start, "invalid number");
		for (size_t i = digits; i < p->pos && exponent <= EXPONENT_MAX; i++)
			exponent = exponent * 10 + (p->text[i] - '0');
	}
	/* "01" and "1x" are not two values but one mistake */
	if (is_digit(peek(p)))
		return fail_at(p, start, "invalid number");
	if (!p->is_stored && (p->pos - start > NUMBER_MAX_LEN || exponent > EXPONENT_MAX))
		return fail_at(p, start, "number out of range");

	strbuf_reset(&p->scratch);
	strbuf_add(&p->scratch, p->text + start, p->pos - start);
	value = strtod(p->scratch.data, NULL);
	if (number_needs_raw(p->scratch.data, value))
		return checked(cJSON_CreateRaw(p->scratch.data));
	return checked(cJSON_CreateNumber(value));
}

static cJSON *
parse_array(Parser *p)
{
	cJSON	   *array = checked(cJSON_CreateArray());

	p->pos++;
	skip_space(p);
	if (peek(p) == ']')
	{
		p->pos++;
		return array;
	}
	for (;;)
	{
		cJSON	   *item = parse_value(p);

		if (item == NULL)
			break;
		cJSON_AddItemToArray(array, item);
		skip_space(p);
		if (peek(p) == ']')
		{
			p->pos++;
			return array;
		}
		if (peek(p) != ',')
		{
			fail_at(p, p->pos, "expected \",\" or \"]\"");
			break;
		}
		p->pos++;
	}
	cJSON_Delete(array);
	return NULL;
}

/* key ":" value, added to the object */
static bool
parse_member(Parser *p, cJSON *object)
{
	char	   *key;
	cJSON	   *value = NULL;

	skip_space(p);
	if (peek(p) != '"')
	{
		fail_at(p, p->pos, "expected a key");
		return false;
	}
	if (!parse_string(p))
		return false;
	key = mem_strndup(p->scratch.data, p->scratch.len);
	skip_space(p);
	if (peek(p) == ':')
	{
		p->pos++;
		value = parse_value(p);
	}
	else
		fail_at(p, p->pos, "expected \":\"");

	if (value != NULL && !cJSON_AddItemToObject(object, key, value))
		mem_exhausted();
	mem_free(key);
	return value != NULL;
}

static cJSON *
parse_object(Parser *p)
{
	cJSON	   *object = checked(cJSON_CreateObject());

	p->pos++;
	skip_space(p);
	if (peek(p) == '}')
	{
		p->pos++;
		return object;
	}
	while (parse_member(p, object))
	{
		skip_space(p);
		if (peek(p) == '}')
		{
			p->pos++;
			return object;
		}
		if (peek(p) != ',')
		{
			fail_at(p, p->pos, "expected \",\" or \"}\"");
			break;
		}
		p->pos++;
	}
	cJSON_Delete(object);
	return NULL;
}

/* Is this word at the position?  Then steps behind it. */
static bool
take_word(Parser *p, const char *word)
{
	size_t		len = strlen(word);

	if (p->len - p->pos < len || memcmp(p->text + p->pos, word, len) != 0)
		return false;
	p->pos += len;
	return true;
}

static cJSON *
parse_value(Parser *p)
{
	cJSON	   *item;
	int			c;

	skip_space(p);
	c = peek(p);
	if (c == '{' || c == '[')
	{
		if (p->depth >= p->max_depth)
			return fail_at(p, p->pos, "nesting too deep");
		p->depth++;
		item = c == '{' ? parse_object(p) : parse_array(p);
		p->depth--;
		return item;
	}
	if (c == '"')
		return parse_string(p) ? checked(cJSON_CreateString(p->scratch.data)) : NULL;
	if (c == '-' || is_digit(c))
		return parse_number(p);
	if (take_word(p, "true"))
		return checked(cJSON_CreateTrue());
	if (take_word(p, "false"))
		return checked(cJSON_CreateFalse());
	if (take_word(p, "null"))
		return checked(cJSON_CreateNull());
	return fail_at(p, p->pos, c < 0 ? "unexpected end" : "expected a value");
}

static cJSON *
parse_all(Parser *p, char **error)
{
	cJSON	   *root;

	*error = NULL;
	strbuf_init(&p->scratch);
	root = parse_value(p);
	if (root != NULL)
	{
		skip_space(p);
		if (p->pos < p->len)
			fail_at(p, p->pos, "unexpected text after the value");
		else
			json_check_unique(root, &p->error);
	}
	strbuf_free(&p->scratch);

	if (p->error != NULL)
	{
		cJSON_Delete(root);
		root = NULL;
		*error = p->error;
	}
	return root;
}

cJSON *
json_parse(const char *text, size_t len, size_t max_len, char **error)
{
	Parser		p = {.text = text, .len = len, .max_depth = JSON_MAX_DEPTH};

	if (len > max_len)
	{
		*error = mem_printf("text of %zu bytes is longer than the limit of %zu bytes",
							len, max_len);
		return NULL;
	}
	return parse_all(&p, error);
}

cJSON *
json_parse_stored(const char *text, char **error)
{
	Parser		p = {.text = text, .len = strlen(text), .max_depth = JSON_STORED_DEPTH, .is_stored = true};

	return parse_all(&p, error);
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The key that an object has twice, or NULL.  n log n: keys are hostile. */
static const char *
repeated_key(const cJSON *object)
{
	const char **keys;
	const char *found = NULL;
	size_t		n = 0;
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
		n++;
	if (n < 2)
		return NULL;

	keys = mem_alloc(sizeof(*keys) * n);
	n = 0;
	cJSON_ArrayForEach(item, object)
		keys[n++] = item->string != NULL ? item->string : "";
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (size_t i = 1; i < n && found == NULL; i++)
	{
		if (strcmp(keys[i - 1], keys[i]) == 0)
			found = keys[i];
	}
	mem_free(keys);
	return found;
}

/* path is where item is; it is the same again on return of true */
static bool
check_unique_at(const cJSON *item, StrBuf *path, char **error)
{
	size_t		path_len = path->len;
	const cJSON *child;
	int			i = 0;

	if (cJSON_IsObject(item))
	{
		const char *key = repeated_key(item);

		if (key != NULL)
		{
			*error = mem_printf("duplicate key \"%.*s\" in %s",
								(int) mem_clip_length(key, KEY_SHOWN), key,
								path->len > 0 ? path->data : "the top level");
			return false;
		}
	}
	else if (!cJSON_IsArray(item))
		return true;

	cJSON_ArrayForEach(child, item)
	{
		/* a scalar can hold no object: no need to say where it is */
		if (child->child != NULL)
		{
			if (cJSON_IsArray(item))
				strbuf_printf(path, "[%d]", i);
			else
				strbuf_printf(path, "%s%.*s", path->len > 0 ? "." : "",
							  (int) mem_clip_length(child->string, KEY_SHOWN),
							  child->string);
			if (!check_unique_at(child, path, error))
				return false;
			path->len = path_len;
			path->data[path_len] = '\0';
		}
		i++;
	}
	return true;
}

bool
json_check_unique(const cJSON *root, char **error)
{
	StrBuf		path;
	bool		ok;

	*error = NULL;
	strbuf_init(&path);
	ok = check_unique_at(root, &path, error);
	strbuf_free(&path);
	return ok;
}
