/*
 * asan_early.c - starts AddressSanitizer before any other constructor runs.
 *
 * Its runtime is preloaded into a server that was built without it and starts
 * at the first malloc.  That may come from a constructor that holds glibc's
 * gettext lock (libgpg-error's bindtextdomain), the runtime's start then calls
 * gettext itself, and the lock is never free again.  Linked with
 * "-z initfirst", this constructor is the first of all.  The environment
 * cannot be read that early, so the options (-DOPTIONS=...) are built in.
 *
 * LeakSanitizer looks when a process of weir's own ends, but not in sessions:
 * a server forgets to free much that ends with a session anyway.  With an exit
 * status of its own it would make the postmaster believe in a crash.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const char *__asan_default_options(void);
extern const char *__ubsan_default_options(void);
extern int	__lsan_is_turned_off(void);

static void early(void) __attribute__((constructor));

const char *
__asan_default_options(void)
{
	return OPTIONS ":detect_leaks=1:exitcode=0:detect_stack_use_after_return=0:"
		"abort_on_error=1:verify_asan_link_order=0";
}

const char *
__ubsan_default_options(void)
{
	return OPTIONS ":print_stacktrace=1:halt_on_error=0";
}

/* By the title that the server gives its processes */
int
__lsan_is_turned_off(void)
{
	char		title[4096];
	int			fd = open("/proc/self/cmdline", O_RDONLY);
	ssize_t		n = fd < 0 ? 0 : read(fd, title, sizeof(title) - 1);

	if (fd >= 0)
		close(fd);
	title[n > 0 ? n : 0] = '\0';
	return strstr(title, "weir conductor") == NULL && strstr(title, "weir SQL worker") == NULL;
}

static void
early(void)
{
	free(malloc(1));
}
