/*-------------------------------------------------------------------------
 * pollpace.h
 *	  How often to ask how a run of an engine is going, and in which way
 *
 * Pure.  All times are milliseconds.  Include postgres.h or mem.h before
 * this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_POLLPACE_H
#define WEIR_POLLPACE_H

#include <cjson/cJSON.h>

#define POLL_UNKNOWN	(-1)

#define POLL_LEAST_MS	200		/* no interval is shorter, */
#define POLL_MOST_MS	120000	/* and none longer, before it is spread */
#define POLL_SINGLY		5		/* so many runs are always asked for one by one */
#define POLL_PAGE_MS	400		/* a page of a list is asked for once in so long, in the long run */

#define POLL_BOUND_MOST_S	3600	/* what a connection may ask for */

/* What a connection allows, its option poll; 0: nothing is said */
typedef struct PollBounds
{
	int64		least_ms;
	int64		most_ms;
} PollBounds;

typedef struct PollPace
{
	int64		elapsed_ms;		/* since it began */
	int64		expected_ms;	/* it takes in all, going by earlier ones; POLL_UNKNOWN */
	int			together;		/* runs followed through the same connection, itself among them */
	int			page_size;		/* of its lists of runs; 0: it has none */
	PollBounds	bounds;
	int64		longest_ms;		/* whatever the bounds say: work that nobody asks for is forgotten then; 0: it is not */
} PollPace;

/*
 * {"min": SECONDS, "max": SECONDS}, or NULL.  False if it is not valid: *member
 * is what is wrong with it, NULL for the whole.
 */
extern bool poll_bounds_read(const cJSON *option, PollBounds *bounds, const char **member);

/* The next time something is asked for that has been going on for elapsed_ms, and nothing else is known */
extern int64 poll_delay_ms(int64 elapsed_ms);

/* The same with all that is known; random01 in [0,1) spreads it by a tenth either way. */
extern int64 poll_interval_ms(const PollPace *pace, double random01);

/*
 * Ask by a list?  due: runs to be asked for about now; followed: through the
 * connection; pages: that the latest list took, 0 for none.
 */
extern bool poll_by_list(int due, int followed, int page_size, int pages);

#endif							/* WEIR_POLLPACE_H */
