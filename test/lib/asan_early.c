/*
 * asan_early.c - starts AddressSanitizer before any other constructor runs.
 *
 * Its runtime is preloaded into a server that was built without it and starts
 * at the first malloc.  That may come from a constructor that holds glibc's
 * gettext lock (libgpg-error's bindtextdomain), the runtime's start then calls
 * gettext itself, and the lock is never free again.  Linked with
 * "-z initfirst", this constructor is the first of all.  The environment
 * cannot be read that early, so the options (-DOPTIONS=...) are built in.
 */
#include <stdlib.h>

extern const char *__asan_default_options(void);
extern const char *__ubsan_default_options(void);

static void early(void) __attribute__((constructor));

const char *
__asan_default_options(void)
{
	return OPTIONS ":detect_leaks=0:detect_stack_use_after_return=0:"
		"abort_on_error=1:verify_asan_link_order=0";
}

const char *
__ubsan_default_options(void)
{
	return OPTIONS ":print_stacktrace=1:halt_on_error=0";
}

static void
early(void)
{
	free(malloc(1));
}
