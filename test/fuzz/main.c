/*-------------------------------------------------------------------------
 * main.c
 *	  Runs the targets: over the seeds, and over damaged copies of them
 *
 *	  fuzz replay FOLDER [COPIES [SEED]]
 *			every file FOLDER/TARGET/NAME as it is, then COPIES damaged copies of
 *			it, the same ones each time
 *	  fuzz search FOLDER SECONDS [TARGET ...]
 *			damaged copies until the time is over; only where there is no libFuzzer
 *	  fuzz one TARGET FILE ...
 *
 * The input at which it stops goes into the file named by FUZZ_FOUND, if that
 * is set.  The last line is the count.
 *
 * Compiled with -DWEIR_LIBFUZZER this is what libFuzzer calls instead; the
 * target is named by --target=NAME.
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <dirent.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#ifdef WEIR_LIBFUZZER

static const FuzzTarget *chosen;

int			LLVMFuzzerInitialize(int *argc, char ***argv);
int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	for (int i = 1; i < *argc; i++)
	{
		if (strncmp((*argv)[i], "--target=", 9) == 0)
			chosen = fuzz_target((*argv)[i] + 9);
	}
	if (chosen == NULL)
	{
		fprintf(stderr, "no such target; name one with --target=NAME\n");
		exit(2);
	}
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_run(chosen, data, size);
	return 0;
}

#else

typedef struct Seed
{
	const FuzzTarget *target;
	char	   *bytes;
	size_t		len;
} Seed;

#define MAX_SEEDS	2000
#define MAX_SECONDS	20			/* for one input: against a hang, and what grows too fast */

static Seed seeds[MAX_SEEDS];
static int	nseeds;
static long runs;
static uint64 random_state = UINT64_C(88172645463325252);

static unsigned
random_below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return n == 0 ? 0 : (unsigned) ((random_state >> 20) % n);
}

/* --- seeds ----------------------------------------------------------------- */

static void
read_seed(const FuzzTarget *target, const char *path)
{
	FILE	   *file = fopen(path, "rb");
	Seed	   *seed = &seeds[nseeds];

	if (file == NULL || nseeds + 1 >= MAX_SEEDS)
	{
		fprintf(stderr, "%s cannot be read, or there are too many\n", path);
		exit(2);
	}
	seed->target = target;
	seed->bytes = malloc(FUZZ_MAX_INPUT);
	seed->len = fread(seed->bytes, 1, FUZZ_MAX_INPUT, file);
	fclose(file);
	nseeds++;
}

static int
is_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void
read_seeds(const char *folder, const FuzzTarget *target)
{
	char		path[4096];
	struct dirent **entries;
	int			n;

	snprintf(path, sizeof(path), "%s/%s", folder, target->name);
	n = scandir(path, &entries, is_file, alphasort);
	if (n <= 0)
	{
		fprintf(stderr, "there are no seeds in %s\n", path);
		exit(2);
	}
	for (int i = 0; i < n; i++)
	{
		snprintf(path, sizeof(path), "%s/%s/%s", folder, target->name, entries[i]->d_name);
		read_seed(target, path);
		free(entries[i]);
	}
	free(entries);
}

/* --- damage ---------------------------------------------------------------- */

static const char *const words[] = {
	"\"", "\\", "{", "}", "[", "]", "{{", "}}", "null", "-1", "9223372036854775807", "-9223372036854775808", "1e308", "0.1",
	"99999999999999999999", "\\u0000", "\\ud800", "\xff", "\xc3", "\xf4\x90\x80\x80", "\r\n", "\n\n", "\t", "%00", "%", "&lt;", "<", ">", "</",
	"<!DOCTYPE a>", "]]>", "://", "//", "@", "#", "?", "..", "/../", "[::1]", "127.0.0.1", ":", ";", ",", "=", "*", "+", "''", "$$", "--", "/*",
	"=== crash\n", "=== cancel\n", "=== lost\n", "=== answer 404\n\n", "=== answer 429 5\n\n", "=== answer 500\n\n",
};

/* One change in place; buf has room for FUZZ_MAX_INPUT bytes */
static size_t
damage(char *buf, size_t len, const Seed *seed)
{
	size_t		at = random_below((unsigned) len + 1);
	size_t		n;
	const Seed *other;
	const char *word;

	switch (random_below(7))
	{
		case 0:					/* another byte */
			if (at < len)
				buf[at] = (char) random_below(256);
			return len;
		case 1:					/* another bit */
			if (at < len)
				buf[at] ^= (char) (1 << random_below(8));
			return len;
		case 2:					/* something is missing */
			n = 1 + random_below(random_below(4) ? 8 : 200);
			n = Min(len - at, n);
			memmove(buf + at, buf + at + n, len - at - n);
			return len - n;
		case 3:					/* cut off */
			return random_below(4) ? len : at;
		case 4:					/* a part of another one of its kind */
			other = &seeds[random_below((unsigned) nseeds)];
			if (other->target != seed->target || other->len == 0)
				return len;
			word = other->bytes + random_below((unsigned) other->len);
			n = 1 + random_below(200);
			n = Min((size_t) (other->bytes + other->len - word), n);
			break;
		case 5:					/* twice */
			word = seed->bytes + random_below((unsigned) seed->len);
			n = 1 + random_below(60);
			n = Min((size_t) (seed->bytes + seed->len - word), n);
			break;
		default:
			word = words[random_below(lengthof(words))];
			n = strlen(word);
			break;
	}
	if (len + n > FUZZ_MAX_INPUT)
		return len;
	memmove(buf + at + n, buf + at, len - at);
	memcpy(buf + at, word, n);
	return len + n;
}

/* --- running --------------------------------------------------------------- */

static const char *current;
static size_t current_len;

/* When a sanitizer or a check has something to say */
static void
write_found(void)
{
	const char *path = getenv("FUZZ_FOUND");
	FILE	   *file = path != NULL ? fopen(path, "wb") : NULL;

	if (file != NULL)
	{
		fwrite(current, 1, current_len, file);
		fclose(file);
	}
}

static void
give_up(int sig)
{
	write_found();
	_exit(sig == SIGALRM ? 124 : 1);
}

static void
run_bytes(const FuzzTarget *target, const char *bytes, size_t len)
{
	current = bytes;
	current_len = len;
	alarm(MAX_SECONDS);
	fuzz_run(target, bytes, len);
	runs++;
}

static void
run_damaged(const Seed *seed)
{
	static char buf[FUZZ_MAX_INPUT];
	size_t		len = seed->len;

	memcpy(buf, seed->bytes, len);
	for (unsigned i = random_below(5); i < 5; i++)
		len = damage(buf, len, seed);
	run_bytes(seed->target, buf, len);
}

static void
replay(int copies, uint64 start)
{
	for (int i = 0; i < nseeds; i++)
		run_bytes(seeds[i].target, seeds[i].bytes, seeds[i].len);
	random_state ^= start * UINT64_C(0x9E3779B97F4A7C15);
	for (int i = 0; i < nseeds; i++)
	{
		for (int n = 0; n < copies; n++)
			run_damaged(&seeds[i]);
	}
}

static void
search(int seconds)
{
	time_t		end = time(NULL) + seconds;

	random_state ^= (uint64) time(NULL) << 16;
	while (time(NULL) < end)
	{
		for (int n = 0; n < 200; n++)
			run_damaged(&seeds[random_below((unsigned) nseeds)]);
	}
}

static int
usage(void)
{
	fprintf(stderr, "usage: fuzz replay FOLDER [COPIES [SEED]] | search FOLDER SECONDS [TARGET ...] | one TARGET FILE ...\n");
	return 2;
}

/* The targets named, or all */
static bool
read_folder(const char *folder, char **names, int n)
{
	const FuzzTarget *target;

	for (int i = 0; i < n; i++)
	{
		if ((target = fuzz_target(names[i])) == NULL)
			return false;
		read_seeds(folder, target);
	}
	for (int i = 0; n == 0 && (target = fuzz_target_at(i)) != NULL; i++)
		read_seeds(folder, target);
	return true;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const FuzzTarget *target;

	__sanitizer_set_death_callback(write_found);
	signal(SIGABRT, give_up);
	signal(SIGALRM, give_up);
	if (strcmp(what, "replay") == 0 && argc > 2)
	{
		read_folder(argv[2], NULL, 0);
		replay(argc > 3 ? atoi(argv[3]) : 0, argc > 4 ? strtoull(argv[4], NULL, 10) : 0);
	}
	else if (strcmp(what, "search") == 0 && argc > 3)
	{
		if (!read_folder(argv[2], argv + 4, argc - 4))
			return usage();
		search(atoi(argv[3]));
	}
	else if (strcmp(what, "one") == 0 && argc > 3 && (target = fuzz_target(argv[2])) != NULL)
	{
		for (int i = 3; i < argc; i++)
			read_seed(target, argv[i]);
		replay(0, 0);
	}
	else
		return usage();
	printf("%ld passed, 0 failed\n", runs);
	return 0;
}

#endif							/* WEIR_LIBFUZZER */
