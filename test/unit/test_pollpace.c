/*-------------------------------------------------------------------------
 * test_pollpace.c
 *	  How often runs of engines are asked for, and when by a list
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "pollpace.h"

static void
test_blind(void)
{
	int64		previous = 0;
	int64		elapsed = 0;
	int			polls = 0;

	CHECK_INT(poll_delay_ms(0), 200);
	CHECK_INT(poll_delay_ms(-5), 200);
	CHECK_INT(poll_delay_ms(INT64_MIN), 200);
	CHECK_INT(poll_delay_ms(10000), 1200);
	CHECK_INT(poll_delay_ms(3600000), 30000);
	CHECK_INT(poll_delay_ms(INT64_MAX), 30000);

	/* an hour is looked at a modest number of times, ever more rarely */
	while (elapsed < 3600000)
	{
		int64		delay = poll_delay_ms(elapsed);

		CHECK(delay >= previous);
		previous = delay;
		elapsed += delay;
		polls++;
	}
	CHECK_CASE(polls > 100 && polls < 200, "%d polls in an hour", polls);
}

static int64
interval(int64 elapsed_ms, int64 expected_ms)
{
	PollPace	pace = {elapsed_ms, expected_ms, 1, 24, {0, 0}, 0};

	return poll_interval_ms(&pace, 0.5);
}

static void
test_expected(void)
{
	/* as before when nothing is known */
	CHECK_INT(interval(10000, POLL_UNKNOWN), poll_delay_ms(10000));
	CHECK_INT(interval(10000, 0), poll_delay_ms(10000));

	/* an hour: rarely at first, but what fails is noticed within half of the time it took */
	CHECK_INT(interval(0, 3600000), 1000);
	CHECK_INT(interval(60000, 3600000), 31000);
	CHECK_INT(interval(600000, 3600000), POLL_MOST_MS);
	/* no farther than to where it may end, then every thirty seconds, also when it is late */
	CHECK_INT(interval(2880000 - 50000, 3600000), 50000);
	CHECK_INT(interval(2880000 - 10000, 3600000), 30000);
	CHECK_INT(interval(2880000, 3600000), 30000);
	CHECK_INT(interval(3600000, 3600000), 30000);
	CHECK_INT(interval(7200000, 3600000), 30000);

	/* a minute: near its end every 1.2 s, later and later when it is late */
	CHECK_INT(interval(48000, 60000), 1200);
	CHECK_INT(interval(60000, 60000), 1200);
	CHECK_INT(interval(70000, 60000), 2200);
	CHECK_INT(interval(3600000, 60000), 30000);

	/* what takes no time, what the clock makes of it */
	CHECK_INT(interval(0, 1), POLL_LEAST_MS);
	CHECK_INT(interval(-1000, 60000), 1000);
	CHECK_INT(interval(INT64_MIN, INT64_MAX), 1000);
	CHECK_INT(interval(INT64_MAX, 1), 30000);
	CHECK_INT(interval(INT64_MAX / 2, INT64_MAX), POLL_MOST_MS);
}

/* Polls until the end, and how late that is noticed */
static int
polls_of(int64 takes_ms, int64 expected_ms, int64 *late_ms)
{
	int64		elapsed = 0;
	int			polls = 0;

	while (elapsed < takes_ms)
	{
		elapsed += interval(elapsed, expected_ms);
		polls++;
	}
	*late_ms = elapsed - takes_ms;
	return polls;
}

static void
test_runs(void)
{
	static const int64 lengths[] = {500, 5000, 60000, 600000, 3600000, 36000000};

	for (size_t i = 0; i < lengthof(lengths); i++)
	{
		int64		length = lengths[i];
		int64		late;
		int64		blind_late;
		int			blind = polls_of(length, POLL_UNKNOWN, &blind_late);

		CHECK_CASE(polls_of(length, length, &late) < Max(blind, 8), "usual: more polls of " INT64_FORMAT, length);
		CHECK_CASE(late <= Max(POLL_LEAST_MS, Min(length / 50, 30000)), "usual: " INT64_FORMAT " noticed " INT64_FORMAT " late", length, late);
		(void) polls_of(length / 10, length, &late);
		CHECK_CASE(late <= 1000 + length / 20, "a failure after a tenth of " INT64_FORMAT " is noticed " INT64_FORMAT " late", length, late);
		(void) polls_of(length * 3, length, &late);
		CHECK_CASE(late <= Min(30000, POLL_LEAST_MS + length / 50 + length * 3 / 10), "three times " INT64_FORMAT " is noticed " INT64_FORMAT " late", length, late);
	}
}

static void
test_spread(void)
{
	PollPace	pace = {600000, 3600000, 1, 24, {0, 0}, 0};

	CHECK_INT(poll_interval_ms(&pace, 0), POLL_MOST_MS / 10 * 9);
	CHECK(poll_interval_ms(&pace, 0.999999) > POLL_MOST_MS / 10 * 11 - 10);
	CHECK(poll_interval_ms(&pace, 0.999999) <= POLL_MOST_MS / 10 * 11);
	pace.elapsed_ms = 0;
	pace.expected_ms = POLL_UNKNOWN;
	CHECK_INT(poll_interval_ms(&pace, 0), POLL_LEAST_MS);
}

/* However many there are, they make no more requests than a few per second. */
static void
test_together(void)
{
	for (int n = 1; n <= 100000; n *= 10)
	{
		PollPace	pace = {0, POLL_UNKNOWN, n, 24, {0, 0}, 0};
		int64		delay = poll_interval_ms(&pace, 0.5);

		if (n > POLL_SINGLY && delay < POLL_MOST_MS)
			CHECK_CASE(n * 1000.0 / 24 / delay <= 2.6, "%d together: every " INT64_FORMAT " ms", n, delay);
		pace.page_size = 0;
		CHECK_INT(poll_interval_ms(&pace, 0.5), POLL_LEAST_MS);
	}
	CHECK_INT(poll_interval_ms(&(PollPace) {0, POLL_UNKNOWN, POLL_SINGLY, 1, {0, 0}}, 0.5), POLL_LEAST_MS);
}

static bool
reads_bounds(const char *text, PollBounds *bounds)
{
	cJSON	   *option = cJSON_Parse(text);
	const char *member;
	bool		ok = poll_bounds_read(option, bounds, &member);

	cJSON_Delete(option);
	return ok;
}

/* What a connection allows */
static void
test_bounds(void)
{
	PollPace	pace = {3600000, POLL_UNKNOWN, 1, 24, {0, 0}, 0};
	PollBounds	bounds;
	const char *member;

	pace.bounds.most_ms = 1000;
	CHECK_INT(poll_interval_ms(&pace, 0.5), 1000);
	pace.expected_ms = 36000000;
	CHECK_INT(poll_interval_ms(&pace, 0.5), 1000);
	pace.bounds.most_ms = 50;
	CHECK_INT(poll_interval_ms(&pace, 0.5), POLL_LEAST_MS);
	/* no sooner than the pages of a list are asked for */
	pace.together = 1000;
	CHECK_INT(poll_interval_ms(&pace, 0.5), 1000 * POLL_PAGE_MS / 24);
	pace = (PollPace) {0, POLL_UNKNOWN, 1, 24, {5000, 0}, 0};
	CHECK_INT(poll_interval_ms(&pace, 0), 5000);
	CHECK_INT(poll_interval_ms(&pace, 0.5), 5000);
	pace.bounds.least_ms = 600000;
	CHECK_INT(poll_interval_ms(&pace, 0), 600000);
	CHECK(poll_interval_ms(&pace, 0.999) > 650000);

	/* unless what is asked for is forgotten meanwhile: half an hour becomes ten minutes, spread by a tenth */
	pace.bounds = (PollBounds) {1800000, 3600000};
	pace.longest_ms = 600000;
	CHECK_INT(poll_interval_ms(&pace, 0), 600000);
	CHECK_INT(poll_interval_ms(&pace, 0.5), 600000);
	CHECK(poll_interval_ms(&pace, 0.999999) <= 660000);
	pace.bounds = (PollBounds) {0, 0};
	CHECK_INT(poll_interval_ms(&pace, 0.5), POLL_LEAST_MS);

	CHECK(poll_bounds_read(NULL, &bounds, &member));
	CHECK_INT(bounds.least_ms + bounds.most_ms, 0);
	CHECK(reads_bounds("{\"min\": 0.2, \"max\": 3600}", &bounds));
	CHECK_INT(bounds.least_ms, 200);
	CHECK_INT(bounds.most_ms, 3600000);
	CHECK(!reads_bounds("{\"min\": 2, \"max\": 1}", &bounds));
	CHECK(!reads_bounds("{\"min\": -1}", &bounds));
	CHECK(!reads_bounds("{\"min\": 1e300}", &bounds));
	CHECK(!reads_bounds("[]", &bounds));
}

static void
test_by_list(void)
{
	CHECK(!poll_by_list(POLL_SINGLY, POLL_SINGLY, 100, 0));
	CHECK(poll_by_list(POLL_SINGLY + 1, POLL_SINGLY + 1, 100, 0));
	CHECK(!poll_by_list(1000, 1000, 0, 0));
	/* forty-two pages for twenty runs are no bargain, but for fifty */
	CHECK(!poll_by_list(20, 1000, 24, 0));
	CHECK(!poll_by_list(42, 1000, 24, 0));
	CHECK(poll_by_list(43, 1000, 24, 0));
	CHECK(poll_by_list(1000, 1000, 24, 0));
	/* the latest list was full of runs of others, or shorter than thought */
	CHECK(!poll_by_list(20, 20, 24, 50));
	CHECK(poll_by_list(20, 1000, 24, 3));
	CHECK(!poll_by_list(0, 0, 24, 0));
}

void
test_pollpace(void)
{
	test_blind();
	test_expected();
	test_runs();
	test_spread();
	test_together();
	test_bounds();
	test_by_list();
}
