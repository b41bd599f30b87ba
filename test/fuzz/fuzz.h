/*-------------------------------------------------------------------------
 * fuzz.h
 *	  What reads bytes from outside, each part behind one function
 *
 * A target takes any bytes and reads them as its part of weir would.  It
 * returns; a crash, a report of a sanitizer, a failed FUZZ_CHECK, too much
 * memory or too much time is a bug.  All memory from mem_alloc and cJSON is
 * given back when the target has returned.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FUZZ_H
#define WEIR_FUZZ_H

#include "mem.h"

#include "json.h"

typedef struct FuzzTarget
{
	const char *name;			/* of the folder of its seeds, too */
	void		(*run) (const char *text, size_t len);	/* text[len] is zero */
} FuzzTarget;

extern const FuzzTarget *fuzz_target(const char *name); /* NULL: none of that name */
extern const FuzzTarget *fuzz_target_at(int i); /* NULL: no further one */

/* One input, with a fresh memory that is empty again afterwards. */
extern void fuzz_run(const FuzzTarget *target, const void *bytes, size_t len);

#define FUZZ_MAX_INPUT	(64 * 1024)
/* At a time, for one input: nothing here may grow by more than a factor. */
#define FUZZ_MAX_MEMORY ((size_t) 256 * 1024 * 1024)

extern void fuzz_fail(const char *file, int line, const char *fmt,...)
			pg_attribute_printf(3, 4) __attribute__((noreturn));

#define FUZZ_CHECK(cond) \
	((cond) ? (void) 0 : fuzz_fail(__FILE__, __LINE__, "%s", #cond))
/* a text of the input, to be shown with a failure */
#define FUZZ_CHECK_OF(cond, text) \
	((cond) ? (void) 0 : fuzz_fail(__FILE__, __LINE__, "%s: %s", #cond, (text)))

extern bool fuzz_is_utf8(const char *text); /* and so may stand in a table */
/* The next line of a text, without its newline; NULL at the end.  Allocated. */
extern char *fuzz_line(const char **at);

extern void fuzz_json(const char *text, size_t len);
extern void fuzz_jsonpath(const char *text, size_t len);
extern void fuzz_template(const char *text, size_t len);
extern void fuzz_sql(const char *text, size_t len);
extern void fuzz_selector(const char *text, size_t len);
extern void fuzz_retry(const char *text, size_t len);
extern void fuzz_time(const char *text, size_t len);
extern void fuzz_xml(const char *text, size_t len);
extern void fuzz_url(const char *text, size_t len);
extern void fuzz_link(const char *text, size_t len);
extern void fuzz_signin(const char *text, size_t len);
extern void fuzz_storage_key(const char *text, size_t len);
extern void fuzz_echo(const char *text, size_t len);
extern void fuzz_kind(const char *text, size_t len);
extern void fuzz_redis(const char *text, size_t len);
extern void fuzz_token(const char *text, size_t len);
extern void fuzz_probe(const char *text, size_t len);

#endif							/* WEIR_FUZZ_H */
