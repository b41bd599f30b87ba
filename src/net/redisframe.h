/*-------------------------------------------------------------------------
 * redisframe.h
 *	  Sizes that a Redis server announces, looked at before a parser believes
 *	  them.
 *
 * A reply says how many elements and bytes follow, and hiredis before 1.0 has
 * no limit: it allocates an array of the announced length at once.  So bytes
 * go through here first, in the order they come and cut anywhere.  Pure; the
 * caller owns the struct, all zero at the start.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REDISFRAME_H
#define WEIR_REDISFRAME_H

#define REDIS_MAX_REPLY_BYTES		(64 * 1024 * 1024)	/* of one string, and of one reply */
#define REDIS_MAX_REPLY_ELEMENTS	1000000 /* of one reply, those of arrays within it included */
#define REDIS_MAX_REPLY_DEPTH		4

typedef struct RedisFrame
{
	int			state;
	char		type;			/* of the element being read */
	char		number[24];		/* its length, so far */
	int			number_len;
	int64		skip;			/* bytes of a string still to come, its line end included */
	int			depth;
	int64		left[REDIS_MAX_REPLY_DEPTH];	/* elements to come of each array around */
	int64		elements;		/* announced by the reply so far */
	int64		bytes;			/* of the reply so far */
} RedisFrame;

/* False: these bytes are too much, or no protocol of Redis; the connection is of no more use.  *why is static. */
extern bool redisframe_scan(RedisFrame *frame, const char *data, size_t len, const char **why);

#endif							/* WEIR_REDISFRAME_H */
