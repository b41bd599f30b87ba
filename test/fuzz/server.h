/*-------------------------------------------------------------------------
 * server.h
 *	  For targets made of code that runs in the server: what they share with
 *	  server.c, which stands in the server's place
 *
 * Include postgres.h before this and not fuzz.h: memory comes from palloc.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FUZZ_SERVER_H
#define WEIR_FUZZ_SERVER_H

extern void fuzz_fail(const char *file, int line, const char *fmt,...) __attribute__((format(printf, 3, 4), noreturn));
extern bool fuzz_is_utf8(const char *text);
extern char *fuzz_line(const char **at);

#define FUZZ_CHECK(cond) \
	((cond) ? (void) 0 : fuzz_fail(__FILE__, __LINE__, "%s", #cond))
#define FUZZ_CHECK_OF(cond, text) \
	((cond) ? (void) 0 : fuzz_fail(__FILE__, __LINE__, "%s: %s", #cond, (text)))

/* What a file that weir opens holds; NULL: there is none. */
extern const char *server_file;

/* Before each input */
extern void server_reset(void);

#endif							/* WEIR_FUZZ_SERVER_H */
