/*-------------------------------------------------------------------------
 * mem.c
 *	  Memory and growing strings for core/
 *
 * Runs wherever core/ runs: in any backend or worker, and in the unit test
 * program.  No locks, no state.  An ERROR in the server leaves nothing
 * behind but memory of the current context.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

/* WEIR_OWN_MEMORY: the program brings an allocator along (test/fuzz). */
#if defined(WEIR_STANDALONE) && !defined(WEIR_OWN_MEMORY)

static void *
checked(void *ptr)
{
	if (ptr == NULL)
		abort();
	return ptr;
}

void *
mem_alloc(size_t size)
{
	return checked(malloc(size > 0 ? size : 1));
}

void *
mem_alloc0(size_t size)
{
	return checked(calloc(1, size > 0 ? size : 1));
}

void *
mem_realloc(void *ptr, size_t size)
{
	return checked(realloc(ptr, size > 0 ? size : 1));
}

void
mem_free(void *ptr)
{
	free(ptr);
}

char *
mem_strdup(const char *str)
{
	return checked(strdup(str));
}

#endif							/* WEIR_STANDALONE && !WEIR_OWN_MEMORY */

void
mem_exhausted(void)
{
#ifndef WEIR_STANDALONE
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
#endif
	abort();
}

char *
mem_strndup(const char *str, size_t len)
{
	char	   *copy = mem_alloc(len + 1);

	if (len > 0)
		memcpy(copy, str, len);
	copy[len] = '\0';
	return copy;
}

size_t
mem_clip_length(const char *str, size_t max)
{
	size_t		len = strnlen(str, max + 1);

	if (len <= max)
		return len;
	for (len = max; len > 0 && ((unsigned char) str[len] & 0xC0) == 0x80;)
		len--;
	return len;
}

void
strbuf_init(StrBuf *buf)
{
	buf->size = 64;
	buf->data = mem_alloc(buf->size);
	strbuf_reset(buf);
}

void
strbuf_reset(StrBuf *buf)
{
	buf->len = 0;
	buf->data[0] = '\0';
}

void
strbuf_free(StrBuf *buf)
{
	mem_free(buf->data);
	buf->data = NULL;
	buf->len = buf->size = 0;
}

/* room for "more" bytes and the terminating zero */
static void
strbuf_reserve(StrBuf *buf, size_t more)
{
	size_t		need = buf->len + more + 1;

	if (need <= buf->size)
		return;
	buf->size = Max(need, buf->size * 2);
	buf->data = mem_realloc(buf->data, buf->size);
}

void
strbuf_add(StrBuf *buf, const char *bytes, size_t len)
{
	strbuf_reserve(buf, len);
	if (len > 0)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void
strbuf_addstr(StrBuf *buf, const char *str)
{
	strbuf_add(buf, str, strlen(str));
}

void
strbuf_addchar(StrBuf *buf, char c)
{
	strbuf_add(buf, &c, 1);
}

static void pg_attribute_printf(2, 0)
strbuf_vprintf(StrBuf *buf, const char *fmt, va_list args)
{
	va_list		again;
	int			n;

	va_copy(again, args);
	n = vsnprintf(buf->data + buf->len, buf->size - buf->len, fmt, args);
	if (n > 0 && (size_t) n >= buf->size - buf->len)
	{
		strbuf_reserve(buf, n);
		n = vsnprintf(buf->data + buf->len, buf->size - buf->len, fmt, again);
	}
	va_end(again);
	if (n > 0)
		buf->len += n;
	buf->data[buf->len] = '\0';
}

void
strbuf_printf(StrBuf *buf, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	strbuf_vprintf(buf, fmt, args);
	va_end(args);
}

char *
mem_printf(const char *fmt,...)
{
	StrBuf		buf;
	va_list		args;

	strbuf_init(&buf);
	va_start(args, fmt);
	strbuf_vprintf(&buf, fmt, args);
	va_end(args);
	return buf.data;
}
