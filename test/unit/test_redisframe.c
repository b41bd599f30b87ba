/*-------------------------------------------------------------------------
 * test_redisframe.c
 *	  What a Redis server may announce, and what it may not
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "../../src/net/redisframe.h"

/* All at once and byte by byte come to the same; NULL: accepted, and complete. */
static const char *
scan(const char *text)
{
	RedisFrame	whole = {0};
	RedisFrame	cut = {0};
	const char *why = NULL;
	const char *why_cut = NULL;
	bool		ok = redisframe_scan(&whole, text, strlen(text), &why);
	bool		ok_cut = true;

	for (size_t i = 0; ok_cut && i < strlen(text); i++)
		ok_cut = redisframe_scan(&cut, text + i, 1, &why_cut);
	CHECK(ok == ok_cut);
	if (!ok)
	{
		CHECK_STR(why_cut, why);
		return why;
	}
	CHECK(memcmp(&whole, &cut, offsetof(RedisFrame, type)) == 0);
	return whole.depth == 0 && whole.state == 0 ? NULL : "more to come";
}

void
test_redisframe(void)
{
	static const char *const good[] = {
		"+OK\r\n", "-ERR a\rb\r\n", ":-12\r\n", "$0\r\n\r\n", "$5\r\na\r\nbc\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n",
		"*2\r\n$1\r\nx\r\n*2\r\n:1\r\n*0\r\n", "+OK\r\n+QUEUED\r\n*1\r\n-ERR\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
		"*1000000\r\n", "$67108863\r\n",
	};
	static const struct
	{
		const char *text;
		const char *why;
	}			bad[] = {
		{"*1000001\r\n", "has too many elements"},
		{"*9223372036854775807\r\n", "has too many elements"},
		{"*3\r\n*999998\r\n", "has too many elements"},
		{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "is nested too deep"},
		{"$67108865\r\n", "is too long"},
		{"$2000000000\r\n", "is too long"},
		{"HTTP/1.1 400 Bad Request\r\n", "is not the protocol of Redis"},
		{"*1x\r\n", "is not the protocol of Redis"},
		{"*\r\n", "is not the protocol of Redis"},
		{":1\rx", "is not the protocol of Redis"},
		{"*11111111111111111111111111111111111\r\n", "is not the protocol of Redis"},
		{"$1\r\nx\r\n%1\r\n", "is not the protocol of Redis"},
	};
	RedisFrame	frame = {0};
	char		block[65536];
	const char *why = NULL;
	int			n = 0;

	for (size_t i = 0; i < lengthof(good); i++)
	{
		const char *result = scan(good[i]);

		CHECK(result == NULL || i >= lengthof(good) - 2);
	}
	for (size_t i = 0; i < lengthof(bad); i++)
		CHECK_STR(scan(bad[i].text), bad[i].why);

	/* the limits are those of one reply, not of all there ever were */
	for (int i = 0; i < 3; i++)
	{
		CHECK(redisframe_scan(&frame, "*2\r\n:1\r\n:2\r\n", 12, &why));
		CHECK_INT(frame.elements, 0);
	}
	/* an endless line is not read to its end */
	memset(block, 'x', sizeof(block));
	memset(&frame, 0, sizeof(frame));
	CHECK(redisframe_scan(&frame, "+", 1, &why));
	while (n < 2000 && redisframe_scan(&frame, block, sizeof(block), &why))
		n++;
	CHECK_INT(n, REDIS_MAX_REPLY_BYTES / sizeof(block) - 1);
}
