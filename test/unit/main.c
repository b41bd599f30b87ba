/*-------------------------------------------------------------------------
 * main.c
 *	  Runs the unit tests of core/, of the URL policy and of sign-in
 *
 * The last line is "N passed, M failed"; the exit code is 1 if any failed.
 * Arguments choose tests by name.
 *-------------------------------------------------------------------------
 */
#include "unit.h"

static int	passed;
static int	failed;

bool
unit_check(bool ok, const char *file, int line, const char *fmt,...)
{
	va_list		args;

	if (ok)
	{
		passed++;
		return true;
	}
	failed++;
	printf("%s:%d: failed: ", file, line);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	return false;
}

bool
unit_check_int(int64 actual, int64 expected, const char *file, int line,
			   const char *what)
{
	return unit_check(actual == expected, file, line,
					  "%s is " INT64_FORMAT ", not " INT64_FORMAT,
					  what, actual, expected);
}

bool
unit_check_str(const char *actual, const char *expected, const char *file,
			   int line, const char *what)
{
	bool		same = actual == NULL || expected == NULL ?
		actual == expected : strcmp(actual, expected) == 0;

	return unit_check(same, file, line, "%s is \"%s\", not \"%s\"", what,
					  actual ? actual : "(null)", expected ? expected : "(null)");
}

void
unit_check_error(char *error, const char *part, const char *file, int line)
{
	unit_check(error != NULL && strstr(error, part) != NULL, file, line,
			   "error is \"%s\", without \"%s\"", error ? error : "(null)", part);
	if (error != NULL)
		mem_free(error);
}

/* xorshift64* */
uint64
random_next(Random *rnd)
{
	rnd->state ^= rnd->state >> 12;
	rnd->state ^= rnd->state << 25;
	rnd->state ^= rnd->state >> 27;
	return rnd->state * UINT64_C(2685821657736338717);
}

int
random_below(Random *rnd, int n)
{
	return (int) ((random_next(rnd) >> 33) % (uint64) n);
}

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		void		(*run) (void);
	}			tests[] = {
		{"mem", test_mem},
		{"status", test_status},
		{"dag", test_dag},
		{"flow", test_flow},
		{"forecast", test_forecast},
		{"pace", test_pace},
		{"pollpace", test_pollpace},
		{"selector", test_selector},
		{"restart", test_restart},
		{"retry", test_retry},
		{"retryon", test_retryon},
		{"json", test_json},
		{"jsonpath", test_jsonpath},
		{"reference", test_reference},
		{"render", test_render},
		{"sqltext", test_sqltext},
		{"urlpolicy", test_urlpolicy},
		{"signin", test_signin},
		{"redisframe", test_redisframe},
	};

	for (size_t i = 0; i < lengthof(tests); i++)
	{
		bool		wanted = argc < 2;
		int			before = passed + failed;

		for (int a = 1; a < argc; a++)
			wanted |= strcmp(argv[a], tests[i].name) == 0;
		if (!wanted)
			continue;
		tests[i].run();
		printf("%-10s %6d checks\n", tests[i].name, passed + failed - before);
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0 ? 1 : 0;
}
