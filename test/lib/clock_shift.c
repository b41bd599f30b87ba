/*
 * clock_shift.c - for tests: a wall clock that can be set, for one server.
 *
 * Loaded with LD_PRELOAD.  The file that CLOCK_SHIFT_FILE names holds an
 * int64 in native order: seconds to add to the wall clock of every process
 * that maps it.  Clocks that cannot be set on a real machine are left alone,
 * unless CLOCK_SHIFT_ASLEEP is set: then the clock that counts while a machine
 * sleeps goes on as well, as if it had slept.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;
static int	asleep;
static int	(*real_clock_gettime) (clockid_t, struct timespec *);
static int	(*real_gettimeofday) (struct timeval *, void *);

static void __attribute__((constructor))
clock_shift_init(void)
{
	const char *file = getenv("CLOCK_SHIFT_FILE");
	int			fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map;

	asleep = getenv("CLOCK_SHIFT_ASLEEP") != NULL;
	real_clock_gettime = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	real_gettimeofday = (int (*) (struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		shift = map;
}

static int64_t
seconds(void)
{
	return shift ? *shift : 0;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = real_clock_gettime(clock, ts);

	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || (asleep && clock == CLOCK_BOOTTIME)))
		ts->tv_sec += seconds();
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	int			result = real_gettimeofday(tv, zone);

	if (result == 0)
		tv->tv_sec += seconds();
	return result;
}

time_t
time(time_t *result)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (result)
		*result = ts.tv_sec;
	return ts.tv_sec;
}
