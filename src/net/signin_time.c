/*-------------------------------------------------------------------------
 * signin_time.c
 *	  How long a token is used, and how long a service is left alone.
 *
 * Pure arithmetic on times that are passed in.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>

#include "signin_pure.h"

#define MAX_LIFETIME_S			(7 * 86400)
#define REFRESH_EARLY_MS		300000	/* or a fifth of the lifetime, if that is less */
#define EXPIRY_MARGIN_MS		30000	/* or a tenth */
#define FIRST_HOLD_MS			1000	/* doubling */
#define MAX_HOLD_MS				60000
#define MAX_HOLD_USER_MS		10000	/* somebody is going to correct it */
#define MAX_RETRY_AFTER_MS		3600000

TokenTimes
token_times(int64 now_ms, int64 lifetime_s, int64 refresh_in_s)
{
	int64		lifetime_ms = Max(Min(lifetime_s, MAX_LIFETIME_S), 0) * 1000;
	int64		refresh_in_ms = lifetime_ms - Min(REFRESH_EARLY_MS, lifetime_ms / 5);
	TokenTimes	times;

	/* A service that wants it sooner has a reason; later is our own risk. */
	if (refresh_in_s > 0 && refresh_in_s < MAX_LIFETIME_S)
		refresh_in_ms = Min(refresh_in_ms, refresh_in_s * 1000);
	times.refresh_at_ms = now_ms + refresh_in_ms;
	times.expires_at_ms = now_ms + lifetime_ms - Min(EXPIRY_MARGIN_MS, lifetime_ms / 10);
	return times;
}

int64
token_hold_ms(int failures, bool is_user_error, int64 retry_after_ms)
{
	int64		most = is_user_error ? MAX_HOLD_USER_MS : MAX_HOLD_MS;
	int			doublings = Max(Min(failures - 1, 10), 0);
	int64		hold = Min((int64) FIRST_HOLD_MS << doublings, most);

	return Max(hold, Min(retry_after_ms, MAX_RETRY_AFTER_MS));
}

bool
token_time_parse(const char *text, int64 *epoch_s)
{
	struct tm	tm = {0};
	int			n = 0;
	char		separator;

	if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &separator,
			   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &n) != 7 || n < 19 ||
		(separator != 'T' && separator != ' '))
		return false;
	text += n;
	if (*text == '.')
		for (text++; isdigit((unsigned char) *text); text++)
			;
	if (*text != 'Z')
		return false;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*epoch_s = (int64) timegm(&tm);
	return true;
}
