/*-------------------------------------------------------------------------
 * test_retry.c
 *	  Delays that grow, stay in bounds and never overflow
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <math.h>

#include "retry.h"

static void
test_delay(void)
{
	static const struct
	{
		RetryPolicy policy;		/* attempts, initial, max, multiplier, jitter */
		int			attempt;
		double		random01;
		int64		retry_after;
		int64		expected;
	}			cases[] = {
		{{5, 10000, 300000, 2, 0}, 1, 0.5, 0, 10000},
		{{5, 10000, 300000, 2, 0}, 2, 0.5, 0, 20000},
		{{5, 10000, 300000, 2, 0}, 5, 0.5, 0, 160000},
		{{5, 10000, 300000, 2, 0}, 6, 0.5, 0, 300000},
		{{5, 10000, 300000, 2, 0}, INT32_MAX, 0.5, 0, 300000},
		{{5, 10000, 300000, 1, 0}, INT32_MAX, 0.5, 0, 10000},
		{{5, 10000, 300000, 1.0000000000000002, 0}, INT32_MAX, 0.5, 0, -1},
		{{5, 10000, 300000, 2, 0}, 0, 0.5, 0, 10000},
		{{5, 10000, 300000, 2, 0}, INT32_MIN, 0.5, 0, 10000},
		{{5, 0, 300000, 2, 0.5}, 9, 0.9, 0, 0},
		/* jitter, both ways; at the cap only downwards */
		{{5, 10000, 300000, 2, 0.1}, 1, 0.0, 0, 9000},
		{{5, 10000, 300000, 2, 0.1}, 1, 1.0, 0, 11000},
		{{5, 10000, 300000, 2, 0.1}, 9, 1.0, 0, 270000},
		{{5, 10000, 300000, 2, 0.1}, 9, 0.0, 0, 270000},
		{{5, 10000, 300000, 2, 0.1}, 9, 0.5, 0, 300000},
		{{5, 10000, 300000, 2, 1}, 1, 0.0, 0, 0},
		/* Retry-After is a minimum, and may pass the maximum */
		{{5, 10000, 300000, 2, 0}, 1, 0.5, 5000, 10000},
		{{5, 10000, 300000, 2, 0}, 1, 0.5, 60000, 60000},
		{{5, 10000, 300000, 2, 0}, 1, 0.5, 400000, 400000},
		{{5, 10000, 300000, 2, 0.1}, 1, 0.0, 60000, 60000},
		{{5, 10000, 300000, 2, 0.1}, 1, 1.0, 60000, 61000},
		{{5, 10000, 300000, 2, 0}, 1, 0.5, INT64_MAX, RETRY_MAX_DELAY_MS},
		{{5, 10000, 300000, 2, 0}, 1, 0.5, INT64_MIN, 10000},
		/* policies that no check would let pass still do no harm */
		{{5, INT64_MAX, INT64_MAX, 1e308, 1}, INT32_MAX, 0.5, 0, RETRY_MAX_DELAY_MS},
		{{5, -5, 300000, -3, -1}, 3, -7, 0, 0},
		{{5, 10000, -1, 2, 0}, 3, 0.5, 0, 0},
		{{5, 10000, 300000, NAN, NAN}, 3, NAN, 0, 10000},
		{{5, 10000, 300000, INFINITY, INFINITY}, 3, INFINITY, 0, 0},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		int64		got = retry_delay_ms(&cases[i].policy, cases[i].attempt,
										 cases[i].random01, cases[i].retry_after);

		if (cases[i].expected < 0)	/* only that it comes back at once */
			CHECK(got >= 10000 && got <= 300000);
		else
			CHECK_CASE(got == cases[i].expected,
					   "delay case %zu: " INT64_FORMAT ", not " INT64_FORMAT,
					   i, got, cases[i].expected);
	}
}

static void
test_delay_random(void)
{
	Random		rnd = {7};
	bool		ok = true;

	for (int i = 0; i < 100000; i++)
	{
		RetryPolicy policy = {
			.max_attempts = 3,
			.initial_delay_ms = (int64) random_next(&rnd) >> random_below(&rnd, 64),
			.max_delay_ms = (int64) random_next(&rnd) >> random_below(&rnd, 64),
			.multiplier = (double) (int64) random_next(&rnd) / 1e17,
			.jitter = (double) random_below(&rnd, 1000) / 999,
		};
		int			attempt = (int) random_next(&rnd) >> random_below(&rnd, 32);
		int64		delay = retry_delay_ms(&policy, attempt,
										   random_below(&rnd, 1000) / 1000.0, 0);

		ok &= delay >= 0 && delay <= RETRY_MAX_DELAY_MS &&
			delay <= Max(policy.max_delay_ms, 0);
	}
	CHECK(ok);
}

static void
test_policy(void)
{
	RetryPolicy policy = retry_policy_default();

	CHECK_STR(retry_policy_check(&policy), NULL);
	CHECK_INT(policy.max_attempts, 1);
	CHECK_INT(policy.initial_delay_ms, 10000);
	CHECK_INT(policy.max_delay_ms, 300000);
	CHECK(policy.multiplier == 2.0 && policy.jitter == 0.13);

	CHECK(retry_policy_check(&(RetryPolicy) {0, 1, 1, 2, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, -1, 1, 2, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 2, 1, 2, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 1, INT64_MAX, 2, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 1, 1, 0.5, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 1, 1, NAN, 0}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 1, 1, 2, 1.5}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 1, 1, 2, NAN}) != NULL);
	CHECK(retry_policy_check(&(RetryPolicy) {1, 0, 0, 1, 1}) == NULL);
}

static void
test_transient(void)
{
	static const int http[] = {408, 429, 500, 502, 503, 504};
	static const char *const yes[] = {
		"40001", "40P01", "55P03", "57P01", "57P02", "57P03",
		"53000", "53100", "53200", "53300", "08000", "08001", "08006",
	};
	static const char *const no[] = {
		"", "00000", "22012", "23505", "42P01", "57014", "40002", "XX000",
		"5300", "530000", "08", "P0001",
	};
	int			count = 0;

	for (int i = -10; i < 1000; i++)
		count += retry_http_status_is_transient(i);
	CHECK_INT(count, lengthof(http));
	for (size_t i = 0; i < lengthof(http); i++)
		CHECK_CASE(retry_http_status_is_transient(http[i]), "http %d", http[i]);
	for (size_t i = 0; i < lengthof(yes); i++)
		CHECK_CASE(retry_sqlstate_is_transient(yes[i]), "%s", yes[i]);
	for (size_t i = 0; i < lengthof(no); i++)
		CHECK_CASE(!retry_sqlstate_is_transient(no[i]), "%s", no[i]);
	CHECK(!retry_sqlstate_is_transient(NULL));
}

static void
test_retry_after(void)
{
	const int64 now = 784111777;	/* 1994-11-06 08:49:37 UTC */
	static const struct
	{
		const char *value;
		int64		seconds;	/* from that moment; -1: not understood */
	}			cases[] = {
		{"0", 0},
		{"1", 1},
		{"120", 120},
		{" 120\t", 120},
		{"120\r\n", 120},
		{"99999999999999999999999999", 86400},
		{"86400", 86400},
		{"86401", 86400},
		{"-1", -1},
		{"1.5", -1},
		{"1e3", -1},
		{"soon", -1},
		{"", -1},
		{"   ", -1},
		{"Sun, 06 Nov 1994 08:49:37 GMT", 0},
		{"Sun, 06 Nov 1994 08:50:37 GMT", 60},
		{"Sunday, 06-Nov-94 08:50:37 GMT", 60},
		{"Sun Nov  6 08:50:37 1994", 60},
		{"Sun, 06 Nov 1994 08:49:36 GMT", 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:60 GMT", 86400},
		{"Sun, 06 Nov 1994 08:50:37 CET", -1},
		{"Sun, 06 Nov 1994 08:50:37 GMT and more", -1},
		{"Sun, 06 Now 1994 08:50:37 GMT", -1},
		{"Sun, 31 Feb 1994 08:50:37 GMT", -1},
		{"Sun, 29 Feb 1900 08:50:37 GMT", -1},
		{"Sun, 00 Nov 1994 08:50:37 GMT", -1},
		{"Sun, 06 Nov 1994 24:50:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:-1:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:50", -1},
		{"Sun, 06 Nov 1994 08:50:37 GMT                                                        ", -1},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		int64		got = retry_after_parse(cases[i].value, now);
		int64		want = cases[i].seconds < 0 ? -1 : cases[i].seconds * 1000;

		CHECK_CASE(got == want, "Retry-After \"%s\": " INT64_FORMAT ", not " INT64_FORMAT,
				   cases[i].value, got, want);
	}
	CHECK_INT(retry_after_parse(NULL, now), -1);

	/* the leap day, seen from the second before it; a silly clock */
	CHECK_INT(retry_after_parse("Thu, 29 Feb 2024 00:00:00 GMT", 1709164799), 1000);
	CHECK_INT(retry_after_parse("Fri, 01 Mar 2024 00:00:00 GMT", 1709164799), 86400000);
	CHECK_INT(retry_after_parse("Sun, 06 Nov 1994 08:49:37 GMT", INT64_MIN), RETRY_MAX_DELAY_MS);
	CHECK_INT(retry_after_parse("Sun, 06 Nov 1994 08:49:37 GMT", INT64_MAX), 0);
	CHECK_INT(retry_after_parse("Sunday, 06-Nov-94 08:49:37 GMT", INT64_MAX), 0);
	/* two-digit years: 2020 sees 69 as 2069, 71 as 1971 */
	CHECK_INT(retry_after_parse("Sunday, 06-Nov-69 08:49:37 GMT", 1577836800), RETRY_MAX_DELAY_MS);
	CHECK_INT(retry_after_parse("Sunday, 06-Nov-71 08:49:37 GMT", 1577836800), 0);
}

void
test_retry(void)
{
	test_delay();
	test_delay_random();
	test_policy();
	test_transient();
	test_retry_after();
}
