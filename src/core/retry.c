/*-------------------------------------------------------------------------
 * retry.c
 *	  How long to wait before the next attempt, and what is worth one
 *
 * Runs in the conductor; pure functions.  Clock and random numbers are the
 * caller's, so that every result can be tested.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "retry.h"

RetryPolicy
retry_policy_default(void)
{
	RetryPolicy policy = {
		.max_attempts = RETRY_DEFAULT_MAX_ATTEMPTS,
		.initial_delay_ms = RETRY_DEFAULT_INITIAL_DELAY_MS,
		.max_delay_ms = RETRY_DEFAULT_MAX_DELAY_MS,
		.multiplier = RETRY_DEFAULT_MULTIPLIER,
		.jitter = RETRY_DEFAULT_JITTER,
	};

	return policy;
}

static const char *const backoff_names[] = {
	[RETRY_EXPONENTIAL] = "exponential",
	[RETRY_LINEAR] = "linear",
	[RETRY_FIXED] = "fixed",
};

bool
retry_backoff_parse(const char *name, RetryBackoff *backoff)
{
	for (size_t i = 0; name != NULL && i < lengthof(backoff_names); i++)
	{
		if (strcmp(backoff_names[i], name) == 0)
		{
			*backoff = (RetryBackoff) i;
			return true;
		}
	}
	return false;
}

const char *
retry_backoff_name(RetryBackoff backoff)
{
	return (size_t) backoff < lengthof(backoff_names) ? backoff_names[backoff] : "unknown";
}

void
retry_policy_inherit(RetryPolicy *policy, const RetryPolicy *base)
{
	if ((policy->given & RETRY_GIVEN_MAX_ATTEMPTS) == 0)
		policy->max_attempts = base->max_attempts;
	if ((policy->given & RETRY_GIVEN_INITIAL_DELAY) == 0)
		policy->initial_delay_ms = base->initial_delay_ms;
	/* A first delay above the maximum that was not given says what the maximum is. */
	if ((policy->given & RETRY_GIVEN_MAX_DELAY) == 0)
		policy->max_delay_ms = Max(base->max_delay_ms, policy->initial_delay_ms);
	if ((policy->given & RETRY_GIVEN_MULTIPLIER) == 0)
		policy->multiplier = base->multiplier;
	if ((policy->given & RETRY_GIVEN_JITTER) == 0)
		policy->jitter = base->jitter;
	if ((policy->given & RETRY_GIVEN_BACKOFF) == 0)
		policy->backoff = base->backoff;
	if ((policy->given & RETRY_GIVEN_ON) == 0)
		policy->on = base->on;
}

/* Comparisons are written so that NaN fails them */
const char *
retry_policy_check(const RetryPolicy *policy)
{
	if (policy->max_attempts < 1)
		return "max_attempts must be at least 1.";
	if (policy->initial_delay_ms < 0)
		return "The initial delay must not be negative.";
	if (policy->max_delay_ms < policy->initial_delay_ms)
		return "The maximum delay must not be below the initial delay.";
	if (policy->max_delay_ms > RETRY_MAX_DELAY_MS)
		return "The maximum delay must not be above 24 hours.";
	if (!(policy->multiplier >= 1.0 && policy->multiplier <= 100.0))
		return "The multiplier must be between 1 and 100.";
	if (!(policy->jitter >= 0.0 && policy->jitter <= 1.0))
		return "The jitter must be a fraction between 0 and 1.";
	return NULL;
}

/* NaN becomes lo */
static double
clamp(double value, double lo, double hi)
{
	if (!(value > lo))
		return lo;
	return value < hi ? value : hi;
}

/*
 * initial * multiplier ^ (attempt_no - 1), at most the maximum.  The loop
 * ends as soon as the maximum is reached, and with a multiplier of 1 there
 * is nothing to loop for, so a huge attempt_no costs nothing; in doubles
 * that are compared with the maximum at every step nothing can overflow.
 */
static double
exponential_delay(const RetryPolicy *policy, int attempt_no, double max_delay)
{
	double		multiplier = clamp(policy->multiplier, 1.0, 100.0);
	double		delay = clamp((double) policy->initial_delay_ms, 0.0, max_delay);

	if (multiplier <= 1.0 || delay <= 0.0)
		return delay;
	for (int i = 1; i < attempt_no && delay < max_delay; i++)
	{
		double		longer = delay * multiplier;

		if (longer <= delay)
			break;				/* too near to 1 to make a difference */
		delay = longer;
	}
	return clamp(delay, 0.0, max_delay);
}

static double
base_delay(const RetryPolicy *policy, int attempt_no, double max_delay)
{
	double		delay = clamp((double) policy->initial_delay_ms, 0.0, max_delay);

	switch (policy->backoff)
	{
		case RETRY_FIXED:
			return delay;
		case RETRY_LINEAR:
			return clamp(delay * Max(attempt_no, 1), 0.0, max_delay);
		case RETRY_EXPONENTIAL:
			break;
	}
	return exponential_delay(policy, attempt_no, max_delay);
}

/*
 * Jitter spreads the retries of tasks that failed together.  At the cap it
 * only ever shortens, by folding the part above the maximum back: clamping
 * would bring half of the tasks together again.  For the same reason a
 * delay the server asked for is lengthened a little, never shortened.
 */
int64
retry_delay_ms(const RetryPolicy *policy, int attempt_no, double random01,
			   int64 retry_after_ms)
{
	double		max_delay = clamp((double) policy->max_delay_ms, 0.0,
								  (double) RETRY_MAX_DELAY_MS);
	double		jitter = clamp(policy->jitter, 0.0, 1.0);
	double		base = base_delay(policy, attempt_no, max_delay);
	double		delay;

	random01 = clamp(random01, 0.0, 1.0);
	delay = base * (1.0 + jitter * (2.0 * random01 - 1.0));
	if (delay > max_delay)
		delay = 2.0 * max_delay - delay;

	if (retry_after_ms > 0)
	{
		double		asked = clamp((double) retry_after_ms, 0.0,
								  (double) RETRY_MAX_DELAY_MS);

		if (delay < asked)
			delay = asked + base * jitter * random01;
	}
	return (int64) clamp(delay, 0.0, (double) RETRY_MAX_DELAY_MS);
}

bool
retry_http_status_is_transient(int http_status)
{
	switch (http_status)
	{
		case 408:				/* request timeout */
		case 429:				/* too many requests */
		case 500:
		case 502:
		case 503:
		case 504:
			return true;
	}
	return false;
}

/*
 * What may go well the next time without anybody changing anything:
 * serialization failure, deadlock, lock not available, a server that is
 * going down or coming up, lack of resources, a broken connection.
 */
bool
retry_sqlstate_is_transient(const char *sqlstate)
{
	static const char *const codes[] = {
		"40001", "40P01", "55P03", "57P01", "57P02", "57P03",
	};

	if (sqlstate == NULL || strlen(sqlstate) != 5)
		return false;
	if (strncmp(sqlstate, "08", 2) == 0 || strncmp(sqlstate, "53", 2) == 0)
		return true;
	for (size_t i = 0; i < lengthof(codes); i++)
	{
		if (strcmp(codes[i], sqlstate) == 0)
			return true;
	}
	return false;
}

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar */
static int64
days_from_civil(int year, int month, int day)
{
	int			y = month > 2 ? year : year - 1;	/* years start in March */
	int			era = y / 400;
	int			year_of_era = y - era * 400;
	int			day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	int			day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return (int64) era * 146097 + day_of_era - 719468;
}

static bool
is_leap_year(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* "Jan" .. "Dec" as 1 .. 12, else 0 */
static int
month_number(const char *name)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++)
	{
		if (strncmp(months + 3 * i, name, 3) == 0)
			return i + 1;
	}
	return 0;
}

/*
 * RFC 850 dates have two-digit years: one that seems more than 50 years in
 * the future is in the past (RFC 9110).
 */
static int
full_year(int two_digits, int64 now_epoch)
{
	int			this_year = (int) (1970 + clamp((double) now_epoch, 0, 4e11) / 31556952.0);
	int			year = this_year / 100 * 100 + two_digits;

	return year > this_year + 50 ? year - 100 : year;
}

/* The three forms of RFC 9110; seconds since 1970, or false */
bool
retry_http_date(const char *value, int64 now_epoch, int64 *epoch)
{
	static const int days_in_month[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	char		month_name[4] = "";
	int			day;
	int			month;
	int			year;
	int			hour;
	int			minute;
	int			second;
	int			end = 0;

	/* Sun, 06 Nov 1994 08:49:37 GMT */
	if (sscanf(value, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n",
			   &day, month_name, &year, &hour, &minute, &second, &end) == 6 && end > 0)
		;
	/* Sunday, 06-Nov-94 08:49:37 GMT */
	else if (sscanf(value, "%*9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n",
					&day, month_name, &year, &hour, &minute, &second, &end) == 6 && end > 0)
		year = full_year(year, now_epoch);
	/* Sun Nov  6 08:49:37 1994 */
	else if (sscanf(value, "%*3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n",
					month_name, &day, &hour, &minute, &second, &year, &end) == 6 && end > 0)
		;
	else
		return false;

	month = month_number(month_name);
	if (value[end] != '\0' || month == 0 || year < 1970 || day < 1 ||
		day > days_in_month[month - 1] + (month == 2 && is_leap_year(year)) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return false;

	*epoch = days_from_civil(year, month, day) * 86400 +
		hour * 3600 + minute * 60 + second;
	return true;
}

int64
retry_after_parse(const char *value, int64 now_epoch)
{
	char		text[64];
	size_t		len;
	int64		epoch;
	int64		seconds = 0;

	if (value == NULL)
		return -1;
	while (*value == ' ' || *value == '\t')
		value++;
	len = strnlen(value, sizeof(text));
	if (len == 0 || len == sizeof(text))
		return -1;				/* nothing, or longer than any of the forms */
	memcpy(text, value, len + 1);
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		text[--len] = '\0';
	if (len == 0)
		return -1;

	if (strspn(text, "0123456789") == len)
	{
		for (size_t i = 0; i < len && seconds < RETRY_MAX_DELAY_MS; i++)
			seconds = seconds * 10 + (text[i] - '0');
		return Min(seconds, RETRY_MAX_DELAY_MS / 1000) * 1000;
	}

	if (!retry_http_date(text, now_epoch, &epoch))
		return -1;
	if (epoch <= now_epoch)
		return 0;
	/* compared before it is subtracted: now_epoch is not to be trusted */
	if (now_epoch < epoch - RETRY_MAX_DELAY_MS / 1000)
		return RETRY_MAX_DELAY_MS;
	return (epoch - now_epoch) * 1000;
}
