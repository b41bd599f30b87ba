/*-------------------------------------------------------------------------
 * pollpace.c
 *	  How often to ask how a run of an engine is going, and in which way
 *
 * Runs in the conductor.  Pure functions.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "json.h"
#include "pollpace.h"

#define BLIND_MOST_MS	30000	/* when nothing says how long it takes */
#define FAR_FIRST_MS	1000

/*
 * Something that takes seconds is looked at several times a second,
 * something that takes hours twice a minute: the end is noticed after about
 * a tenth of the time it took.
 */
int64
poll_delay_ms(int64 elapsed_ms)
{
	if (elapsed_ms <= 0)
		return POLL_LEAST_MS;
	return Min(POLL_LEAST_MS + elapsed_ms / 10, BLIND_MOST_MS);
}

/*
 * From four fifths of the usual time on the end may come at any moment: it is
 * noticed after a fiftieth of that time, and the longer it is overdue, the
 * later.  Before, only failures end a run: they are noticed within half of
 * the time they took.
 */
static int64
expected_delay_ms(int64 elapsed_ms, int64 expected_ms)
{
	int64		near_ms = Max(POLL_LEAST_MS, Min(expected_ms / 50, BLIND_MOST_MS));
	int64		until_ms = expected_ms / 5 * 4 - elapsed_ms;

	if (until_ms > 0)
		return Min(FAR_FIRST_MS + elapsed_ms / 2, Max(until_ms, near_ms));
	if (elapsed_ms > expected_ms)
		return Max(near_ms, Min(near_ms + (elapsed_ms - expected_ms) / 10, BLIND_MOST_MS));
	return near_ms;
}

/* What a connection allows, as far as the work may do with it */
static PollBounds
bounds_of(const PollPace *pace)
{
	PollBounds	bounds = pace->bounds;

	if (pace->longest_ms > 0)
	{
		bounds.least_ms = Min(bounds.least_ms, pace->longest_ms);
		bounds.most_ms = bounds.most_ms > 0 ? Min(bounds.most_ms, pace->longest_ms) : pace->longest_ms;
	}
	return bounds;
}

int64
poll_interval_ms(const PollPace *pace, double random01)
{
	PollBounds	bounds = bounds_of(pace);
	int64		elapsed_ms = Max(pace->elapsed_ms, 0);
	int64		delay_ms = pace->expected_ms > 0 ? expected_delay_ms(elapsed_ms, pace->expected_ms) : poll_delay_ms(elapsed_ms);

	/* A connection may want to know sooner, or not to be asked as often, ... */
	if (bounds.most_ms > 0)
		delay_ms = Min(delay_ms, bounds.most_ms);
	delay_ms = Max(delay_ms, bounds.least_ms);
	/* ... but many together are asked for less often, so that their number does not make more requests. */
	if (pace->page_size > 0 && pace->together > POLL_SINGLY)
		delay_ms = Max(delay_ms, (int64) pace->together * POLL_PAGE_MS / pace->page_size);
	delay_ms = Max(Min(delay_ms, Max(POLL_MOST_MS, bounds.least_ms)), POLL_LEAST_MS);
	return Max(delay_ms + (int64) (delay_ms * 0.2 * (random01 - 0.5)), Max(POLL_LEAST_MS, bounds.least_ms));
}

static bool
read_seconds(const cJSON *item, double least, int64 *ms)
{
	double		seconds;

	if (item == NULL)
		return true;
	if (cJSON_IsString(item) || !json_double(item, &seconds) || !(seconds >= least && seconds <= POLL_BOUND_MOST_S))
		return false;
	*ms = (int64) (seconds * 1000);
	return true;
}

bool
poll_bounds_read(const cJSON *option, PollBounds *bounds, const char **member)
{
	const cJSON *least = cJSON_GetObjectItemCaseSensitive(option, "min");
	const cJSON *most = cJSON_GetObjectItemCaseSensitive(option, "max");
	const cJSON *item;

	*bounds = (PollBounds) {0, 0};
	*member = NULL;
	if (option == NULL)
		return true;
	if (!cJSON_IsObject(option) || (least == NULL && most == NULL))
		return false;
	cJSON_ArrayForEach(item, option)
		if (item != least && item != most)
		return false;
	*member = "min";
	if (!read_seconds(least, POLL_LEAST_MS / 1000.0, &bounds->least_ms))
		return false;
	*member = "max";
	return read_seconds(most, Max(bounds->least_ms, POLL_LEAST_MS) / 1000.0, &bounds->most_ms);
}

bool
poll_by_list(int due, int followed, int page_size, int pages)
{
	if (page_size <= 0 || due <= POLL_SINGLY)
		return false;
	if (pages <= 0)
		pages = (followed + page_size - 1) / page_size;
	return due > pages;
}
