/*-------------------------------------------------------------------------
 * fuzz.c
 *	  The targets, and the memory they run in
 *
 * Every block is one of malloc's, so that the sanitizers see where it ends;
 * they hang on a list by a head that is poisoned while the block is in use.
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <sanitizer/asan_interface.h>

#include "parts.h"

static const FuzzTarget targets[] = {
	{"json", fuzz_json},
	{"jsonpath", fuzz_jsonpath},
	{"template", fuzz_template},
	{"sql", fuzz_sql},
	{"selector", fuzz_selector},
	{"retry", fuzz_retry},
	{"time", fuzz_time},
	{"xml", fuzz_xml},
	{"url", fuzz_url},
	{"link", fuzz_link},
	{"signin", fuzz_signin},
	{"storage_key", fuzz_storage_key},
	{"echo", fuzz_echo},
	{"kind", fuzz_kind},
	{"probe", fuzz_probe},
	{"redis", fuzz_redis},
	{"token", fuzz_token},
};

typedef struct Head
{
	struct Head *prev;
	struct Head *next;
	size_t		size;
	size_t		unused;			/* keeps the block aligned to 16 */
} Head;

static Head all = {&all, &all, 0, 0};
static size_t in_use;

const FuzzTarget *
fuzz_target(const char *name)
{
	for (size_t i = 0; i < lengthof(targets); i++)
	{
		if (strcmp(targets[i].name, name) == 0)
			return &targets[i];
	}
	return NULL;
}

const FuzzTarget *
fuzz_target_at(int i)
{
	return i >= 0 && (size_t) i < lengthof(targets) ? &targets[i] : NULL;
}

/* --- memory -------------------------------------------------------------- */

#define SHOW(head) __asan_unpoison_memory_region((head), sizeof(Head))
#define HIDE(head) __asan_poison_memory_region((head), sizeof(Head))

/* The neighbours of a block are hidden too, but for the anchor. */
static void
set_links(Head *prev, Head *next)
{
	SHOW(prev);
	prev->next = next;
	if (prev != &all)
		HIDE(prev);
	SHOW(next);
	next->prev = prev;
	if (next != &all)
		HIDE(next);
}

void *
mem_alloc(size_t size)
{
	Head	   *head;

	if (size > FUZZ_MAX_MEMORY || (in_use += size) > FUZZ_MAX_MEMORY)
		fuzz_fail(__FILE__, __LINE__, "an input makes weir take more than %zu bytes", FUZZ_MAX_MEMORY);
	head = malloc(sizeof(Head) + size);
	if (head == NULL)
		abort();
	head->size = size;
	head->prev = all.prev;
	head->next = &all;
	set_links(all.prev, head);
	set_links(head, &all);
	HIDE(head);
	return head + 1;
}

void
mem_free(void *ptr)
{
	Head	   *head = (Head *) ptr - 1;

	if (ptr == NULL)
		return;
	SHOW(head);
	in_use -= head->size;
	set_links(head->prev, head->next);
	SHOW(head);
	free(head);
}

void *
mem_alloc0(size_t size)
{
	void	   *ptr = mem_alloc(size);

	memset(ptr, 0, size);
	return ptr;
}

void *
mem_realloc(void *ptr, size_t size)
{
	Head	   *head = (Head *) ptr - 1;
	void	   *fresh;
	size_t		old;

	SHOW(head);
	old = head->size;
	HIDE(head);
	fresh = mem_alloc(size);
	memcpy(fresh, ptr, Min(old, size));
	mem_free(ptr);
	return fresh;
}

char *
mem_strdup(const char *str)
{
	return mem_strndup(str, strlen(str));
}

static void
free_all(void)
{
	while (all.next != &all)
		mem_free(all.next + 1);
	FUZZ_CHECK(in_use == 0);
}

/* --- running ------------------------------------------------------------- */

void
fuzz_run(const FuzzTarget *target, const void *bytes, size_t len)
{
	static bool is_ready;
	char	   *text;

	if (!is_ready)
	{
		cJSON_Hooks hooks = {mem_alloc, mem_free};

		cJSON_InitHooks(&hooks);
		is_ready = true;
	}
	text = mem_strndup(bytes, Min(len, FUZZ_MAX_INPUT));
	target->run(text, Min(len, FUZZ_MAX_INPUT));
	free_all();
}

void
fuzz_fail(const char *file, int line, const char *fmt,...)
{
	va_list		args;

	fprintf(stderr, "%s:%d: failed: ", file, line);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	abort();
}

/* --- small tools --------------------------------------------------------- */

/* How many bytes the character at p has; 0 if it is none. */
static int
utf8_length(const unsigned char *p)
{
	static const unsigned lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	int			n = *p < 0x80 ? 1 : *p >= 0xF0 ? 4 : *p >= 0xE0 ? 3 : 2;
	unsigned	c = n == 1 ? *p : *p & (0x7F >> n);

	if (*p >= 0xF8 || (*p & 0xC0) == 0x80)
		return 0;
	for (int i = 1; i < n; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3F);
	}
	return c >= lowest[n] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF) ? n : 0;
}

bool
fuzz_is_utf8(const char *text)
{
	const unsigned char *p = (const unsigned char *) text;

	while (*p != '\0')
	{
		int			n = utf8_length(p);

		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

char *
fuzz_line(const char **at)
{
	const char *start = *at;
	size_t		len = strcspn(start, "\n");

	if (*start == '\0')
		return NULL;
	*at = start + len + (start[len] == '\n');
	return mem_strndup(start, len);
}

bool
fuzz_part(const char **at, const char *end, FuzzPart *part)
{
	static const char mark[] = "\n=== ";
	const char *line = *at;
	const char *newline;
	const char *next;

	if (line >= end)
		return false;
	newline = memchr(line, '\n', (size_t) (end - line));
	if (newline == NULL)
		newline = end;
	next = memmem(newline, (size_t) (end - newline), mark, sizeof(mark) - 1);
	part->line = mem_strndup(line, (size_t) (newline - line));
	part->text = newline < end ? newline + 1 : end;
	part->len = next == NULL ? (size_t) (end - part->text) : next < part->text ? 0 : (size_t) (next - part->text);
	*at = next == NULL ? end : next + sizeof(mark) - 1;
	return true;
}

void
fuzz_answer(const FuzzPart *part, const char *numbers, FuzzAnswer *answer)
{
	const char *end = part->text + part->len;
	const char *body = part->text;
	char	   *rest;
	int			status = (int) strtol(numbers, &rest, 10);

	answer->status = status >= 100 && status <= 599 ? status : 200;
	answer->retry_after_ms = *rest == ' ' ? Min(strtoll(rest, NULL, 10) & INT64_MAX, 86400000) : -1;
	while (body < end && *body != '\n')
	{
		const char *newline = memchr(body, '\n', (size_t) (end - body));

		body = newline ? newline + 1 : end;
	}
	answer->headers = mem_strndup(part->text, (size_t) (body - part->text));
	if (body < end)
		body++;
	answer->body = mem_strndup(body, (size_t) (end - body));
	answer->body_len = (size_t) (end - body);
}
