/*-------------------------------------------------------------------------
 * server.c
 *	  As much of PostgreSQL as code of src/net and src/engine needs to run
 *	  without it
 *
 * That code is compiled against the server's headers.  Memory contexts are one
 * and the same: everything is given back at the end of an input, and palloc is
 * mem_alloc.  An ERROR is a finding: nothing from outside may raise one here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "secretref.h"
#include "server.h"
#include "urlpolicy.h"

#undef printf
#undef snprintf
#undef vsnprintf

/* fuzz.c, and src/core/mem.c */
extern void *(mem_alloc) (size_t size);
extern void *(mem_alloc0) (size_t size);
extern void *(mem_realloc) (void *ptr, size_t size);
extern void (mem_free) (void *ptr);
extern char *(mem_strdup) (const char *text);
extern char *mem_strndup(const char *text, size_t len);
extern size_t mem_clip_length(const char *text, size_t max);

const char *server_file;

/* --- memory ---------------------------------------------------------------- */

MemoryContext CurrentMemoryContext;
MemoryContext TopMemoryContext;

void *
palloc(Size size)
{
	return (mem_alloc) (size);
}

void *
palloc0(Size size)
{
	return (mem_alloc0) (size);
}

void *
repalloc(void *ptr, Size size)
{
	return (mem_realloc) (ptr, size);
}

void
pfree(void *ptr)
{
	(mem_free) (ptr);
}

char *
pstrdup(const char *text)
{
	return (mem_strdup) (text);
}

char *
pnstrdup(const char *text, Size len)
{
	return mem_strndup(text, strnlen(text, len));
}

char *
MemoryContextStrdup(MemoryContext context, const char *text)
{
	return pstrdup(text);
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size min, Size initial, Size max)
{
	return parent;
}

void
MemoryContextReset(MemoryContext context)
{
}

void
MemoryContextDelete(MemoryContext context)
{
}

char *
psprintf(const char *fmt,...)
{
	va_list		args;
	int			len;
	char	   *text;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	text = palloc(len + 1);
	va_start(args, fmt);
	vsnprintf(text, len + 1, fmt, args);
	va_end(args);
	return text;
}

int
pg_snprintf(char *text, size_t size, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(text, size, fmt, args);
	va_end(args);
	return len;
}

List *
lappend(List *list, void *item)
{
	if (list == NIL)
	{
		list = palloc0(sizeof(List));
		list->type = T_List;
	}
	if (list->length == list->max_length)
	{
		ListCell   *cells = palloc(sizeof(ListCell) * (list->max_length = 2 * list->max_length + 4));

		if (list->length > 0)
			memcpy(cells, list->elements, sizeof(ListCell) * list->length);
		list->elements = cells;
	}
	list->elements[list->length++].ptr_value = item;
	return list;
}

/* --- errors ---------------------------------------------------------------- */

sigjmp_buf *PG_exception_stack;
ErrorContextCallback *error_context_stack;
static char raised[2000];

bool
errstart(int elevel, const char *domain)
{
	raised[0] = '\0';
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *file, int line, const char *function)
{
	fuzz_fail(file, line, "an ERROR: %s", raised);
}

int
errcode(int sqlstate)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(raised, sizeof(raised), fmt, args);
	va_end(args);
	return 0;
}

void
pg_re_throw(void)
{
	abort();
}

/* --- the process ----------------------------------------------------------- */

volatile sig_atomic_t InterruptPending;
pg_prng_state pg_global_prng_state;

void
ProcessInterrupts(void)
{
}

double
pg_prng_double(pg_prng_state *state)
{
	return 0.5;
}

int
OpenTransientFile(const char *name, int flags)
{
	int			fd;

	if (server_file == NULL)
	{
		errno = ENOENT;
		return -1;
	}
	fd = memfd_create("fuzz", 0);
	if (fd < 0 || write(fd, server_file, strlen(server_file)) < 0 || lseek(fd, 0, SEEK_SET) != 0)
		abort();
	return fd;
}

int
CloseTransientFile(int fd)
{
	return close(fd);
}

/* Settings have their defaults. */
void
DefineCustomStringVariable(const char *name, const char *short_desc, const char *long_desc, char **value, const char *boot, GucContext context,
						   int flags, GucStringCheckHook check, GucStringAssignHook assign, GucShowHook show)
{
	*value = unconstify(char *, boot);
}

void
DefineCustomIntVariable(const char *name, const char *short_desc, const char *long_desc, int *value, int boot, int min, int max, GucContext context,
						int flags, GucIntCheckHook check, GucIntAssignHook assign, GucShowHook show)
{
	*value = boot;
}

/* --- time ------------------------------------------------------------------ */

struct pg_tm *
pg_gmtime(const pg_time_t *when)
{
	time_t		seconds = *when;
	static struct pg_tm tm;
	struct tm  *system = gmtime(&seconds);

	if (system == NULL)
		return NULL;
	tm = (struct pg_tm) {.tm_sec = system->tm_sec, .tm_min = system->tm_min, .tm_hour = system->tm_hour,
	.tm_mday = system->tm_mday, .tm_mon = system->tm_mon, .tm_year = system->tm_year};
	return &tm;
}

size_t
pg_strftime(char *text, size_t size, const char *format, const struct pg_tm *tm)
{
	struct tm	system = {.tm_sec = tm->tm_sec, .tm_min = tm->tm_min, .tm_hour = tm->tm_hour,
		.tm_mday = tm->tm_mday, .tm_mon = tm->tm_mon, .tm_year = tm->tm_year};

	return strftime(text, size, format, &system);
}

/* --- text ------------------------------------------------------------------ */

int
pg_strncasecmp(const char *a, const char *b, size_t n)
{
	return strncasecmp(a, b, n);
}

int
pg_strcasecmp(const char *a, const char *b)
{
	return strcasecmp(a, b);
}

int
pg_mbcliplen(const char *text, int len, int limit)
{
	return Min(len, (int) mem_clip_length(pnstrdup(text, len), limit));
}

/* --- what else is not looked at here ---------------------------------------- */

bool
urlpolicy_check_url(const char *url, const char **why, const char **hint)
{
	return true;
}

/* Files that definitions name are on the server's disk; nobody sends them. */
bool
secretref_check(const char *reference, const char **error, const char **hint)
{
	return true;
}

char *
secretref_value(const char *reference, const char **error)
{
	*error = "there is no such file";
	return NULL;
}

void
server_reset(void)
{
	server_file = NULL;
	PG_exception_stack = NULL;
}
