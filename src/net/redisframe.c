/*-------------------------------------------------------------------------
 * redisframe.c
 *	  Sizes that a Redis server announces, looked at before a parser believes
 *	  them.
 *
 * Runs where redisclient.c runs; pure.  Knows the second version of the
 * protocol, which every server speaks until it is asked for the third.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <stdlib.h>
#include <string.h>

#include "redisframe.h"

enum
{
	AT_TYPE,					/* the first byte of an element comes next */
	IN_NUMBER,					/* length of a string, of an array, or an integer */
	AT_NUMBER_END,				/* its line feed comes next */
	IN_LINE,					/* a status or an error */
	AT_LINE_END,				/* as IN_LINE, but the last byte was a carriage return */
	IN_STRING
};

/* An element is complete; perhaps the arrays around it are too, and with them the reply. */
static void
complete(RedisFrame *frame)
{
	frame->state = AT_TYPE;
	while (frame->depth > 0 && --frame->left[frame->depth - 1] == 0)
		frame->depth--;
	if (frame->depth == 0)
		frame->elements = frame->bytes = 0;
}

/* The length of an array or string, or an integer. */
static bool
take_number(RedisFrame *frame, const char **why)
{
	char	   *end;
	long long	n;

	frame->number[frame->number_len] = '\0';
	n = strtoll(frame->number, &end, 10);
	if (frame->number_len == 0 || *end != '\0')
	{
		*why = "is not the protocol of Redis";
		return false;
	}
	if (frame->type == '$' && n >= 0)
	{
		if (n > REDIS_MAX_REPLY_BYTES)
		{
			*why = "is too long";
			return false;
		}
		frame->skip = n + 2;
		frame->state = IN_STRING;
		return true;
	}
	if (frame->type != '*' || n <= 0)
	{
		complete(frame);
		return true;
	}
	frame->elements += Min(n, REDIS_MAX_REPLY_ELEMENTS + 1);
	if (frame->elements > REDIS_MAX_REPLY_ELEMENTS)
	{
		*why = "has too many elements";
		return false;
	}
	if (frame->depth == REDIS_MAX_REPLY_DEPTH)
	{
		*why = "is nested too deep";
		return false;
	}
	frame->left[frame->depth++] = n;
	frame->state = AT_TYPE;
	return true;
}

static bool
take_byte(RedisFrame *frame, char c, const char **why)
{
	switch (frame->state)
	{
		case AT_TYPE:
			frame->type = c;
			frame->number_len = 0;
			frame->state = c == '+' || c == '-' ? IN_LINE : IN_NUMBER;
			*why = "is not the protocol of Redis";
			return c != '\0' && strchr("+-:$*", c) != NULL;
		case IN_NUMBER:
			if (c == '\r')
				frame->state = AT_NUMBER_END;
			else if (frame->number_len < (int) sizeof(frame->number) - 1)
				frame->number[frame->number_len++] = c;
			else
			{
				*why = "is not the protocol of Redis";
				return false;
			}
			return true;
		case AT_NUMBER_END:
			*why = "is not the protocol of Redis";
			return c == '\n' && take_number(frame, why);
		default:
			if (frame->state == AT_LINE_END && c == '\n')
				complete(frame);
			else
				frame->state = c == '\r' ? AT_LINE_END : IN_LINE;
			return true;
	}
}

bool
redisframe_scan(RedisFrame *frame, const char *data, size_t len, const char **why)
{
	for (size_t i = 0; i < len;)
	{
		size_t		step = 1;

		if (frame->state == IN_STRING)
		{
			step = Min((size_t) frame->skip, len - i);
			frame->skip -= (int64) step;
		}
		else if (!take_byte(frame, data[i], why))
			return false;
		i += step;
		/* complete() sets it back, after the last byte of a reply */
		frame->bytes += (int64) step;
		if (frame->bytes > REDIS_MAX_REPLY_BYTES)
		{
			*why = "is too long";
			return false;
		}
		if (frame->state == IN_STRING && frame->skip == 0)
			complete(frame);
	}
	return true;
}
