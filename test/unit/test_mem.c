/*-------------------------------------------------------------------------
 * test_mem.c
 *	  Strings that grow and strings that are cut
 *-------------------------------------------------------------------------
 */
#include "unit.h"

void
test_mem(void)
{
	StrBuf		buf;
	char	   *text;

	strbuf_init(&buf);
	CHECK_STR(buf.data, "");
	for (int i = 0; i < 1000; i++)
		strbuf_printf(&buf, "%d,", i);
	CHECK_INT(buf.len, 10 * 2 + 90 * 3 + 900 * 4);
	CHECK(strncmp(buf.data + buf.len - 4, "999,", 5) == 0);
	strbuf_reset(&buf);
	strbuf_add(&buf, "a\0b", 3);
	strbuf_addchar(&buf, 'c');
	CHECK_INT(buf.len, 4);
	CHECK(memcmp(buf.data, "a\0bc", 5) == 0);
	strbuf_free(&buf);

	/* a length that does not fit what is there at first */
	text = mem_printf("%500d|%s", 7, "end");
	CHECK_INT(strlen(text), 504);
	CHECK_STR(text + 499, "7|end");
	mem_free(text);

	text = mem_strndup("abcdef", 3);
	CHECK_STR(text, "abc");
	mem_free(text);

	CHECK_INT(mem_clip_length("abc", 3), 3);
	CHECK_INT(mem_clip_length("abcd", 3), 3);
	CHECK_INT(mem_clip_length("ab\xc3\xa4", 3), 2);
	CHECK_INT(mem_clip_length("ab\xc3\xa4", 4), 4);
	CHECK_INT(mem_clip_length("\xf0\x9f\x98\x80", 3), 0);
	CHECK_INT(mem_clip_length("", 0), 0);
}
