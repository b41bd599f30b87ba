/*-------------------------------------------------------------------------
 * mem.h
 *	  Memory, basic types and a growing string for the code in core/
 *
 * core/ is compiled twice: into the extension, where memory comes from the
 * current memory context, and with -DWEIR_STANDALONE into the unit test
 * program, where it comes from malloc.  A core file includes this header
 * first, in the place of postgres.h.
 *
 * Nothing here returns NULL: running out of memory is an ERROR in the
 * server and an abort standalone.  What core returns in a "char **error"
 * comes from mem_alloc and belongs to the caller.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_MEM_H
#define WEIR_MEM_H

#ifndef WEIR_STANDALONE

#include "postgres.h"

#define mem_alloc(size)			palloc(size)
#define mem_alloc0(size)		palloc0(size)
#define mem_realloc(ptr, size)	repalloc(ptr, size)
#define mem_free(ptr)			pfree(ptr)
#define mem_strdup(str)			pstrdup(str)

#else							/* WEIR_STANDALONE */

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t int64;
typedef uint64_t uint64;
typedef int32_t int32;
typedef uint32_t uint32;

#define INT64_FORMAT "%" PRId64
#define Assert(condition) assert(condition)
#define lengthof(array) (sizeof(array) / sizeof((array)[0]))
#define Min(x, y) ((x) < (y) ? (x) : (y))
#define Max(x, y) ((x) > (y) ? (x) : (y))
#define pg_attribute_printf(f, a) __attribute__((format(printf, f, a)))

extern void *mem_alloc(size_t size);
extern void *mem_alloc0(size_t size);
extern void *mem_realloc(void *ptr, size_t size);
extern void mem_free(void *ptr);
extern char *mem_strdup(const char *str);

#endif							/* WEIR_STANDALONE */

/* cJSON, which allocates for itself, got no memory */
extern void mem_exhausted(void) __attribute__((noreturn));

/* len bytes of str and a terminating zero */
extern char *mem_strndup(const char *str, size_t len);

/* strlen, or if that is above max, at most max without cutting a character */
extern size_t mem_clip_length(const char *str, size_t max);

/* printf into a new string */
extern char *mem_printf(const char *fmt,...) pg_attribute_printf(1, 2);

/*
 * A growing string, always terminated by a zero.  Hand the text over by
 * taking ->data (one mem_free), or throw it away with strbuf_free.
 */
typedef struct StrBuf
{
	char	   *data;
	size_t		len;			/* without the terminating zero */
	size_t		size;			/* allocated */
} StrBuf;

extern void strbuf_init(StrBuf *buf);
extern void strbuf_reset(StrBuf *buf);
extern void strbuf_free(StrBuf *buf);
extern void strbuf_add(StrBuf *buf, const char *bytes, size_t len);
extern void strbuf_addstr(StrBuf *buf, const char *str);
extern void strbuf_addchar(StrBuf *buf, char c);
extern void strbuf_printf(StrBuf *buf, const char *fmt,...) pg_attribute_printf(2, 3);

#endif							/* WEIR_MEM_H */
