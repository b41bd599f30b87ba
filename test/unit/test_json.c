/*-------------------------------------------------------------------------
 * test_json.c
 *	  Strict reading, exact numbers, bounded trees
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <math.h>

#include "json.h"

#define LIMIT (1024 * 1024)

static cJSON *
parse(const char *text)
{
	char	   *error;
	cJSON	   *root = json_parse(text, strlen(text), LIMIT, &error);

	if (root == NULL)
	{
		CHECK_CASE(false, "%s: %s", text, error);
		mem_free(error);
	}
	return root;
}

static void
test_round_trip(void)
{
	static const struct
	{
		const char *in;
		const char *out;		/* NULL: the same */
	}			cases[] = {
		{"null", NULL}, {"true", NULL}, {"false", NULL}, {"\"\"", NULL},
		{"{}", NULL}, {"[]", NULL}, {"[[],{}]", NULL},
		{" [ 1 , 2\t,\r\n3 ] ", "[1,2,3]"},
		{"{\"a\":{\"b\":[1,\"x\",null]},\"\":0}", NULL},
		{"0", NULL}, {"-1", NULL}, {"1.5", NULL}, {"0.1", NULL},
		{"1.0", "1"}, {"1E2", "100"}, {"1e-2", "0.01"},
		/* what a double would lose stays as it was written */
		{"9007199254740993", NULL},
		{"-9223372036854775808", NULL},
		{"9223372036854775808", NULL},
		{"123456789012345678901234567890", NULL},
		{"[1234567890123456,{\"id\":1099511627776001}]", NULL},
		{"999999999999999", NULL},
		{"1000000000000000", NULL},
		{"0.30000000000000004", NULL},
		{"3.14159265358979323846", NULL},
		{"1e400", NULL}, {"-1e400", NULL}, {"1e-400", NULL},
		/* the marker another reader might use for such numbers is just text */
		{"[\"9007199254740993\",\"@9007199254740993\"]", NULL},
		{"\"a\\\"b\\\\c\\/d\\b\\f\\n\\r\\t\"", "\"a\\\"b\\\\c/d\\b\\f\\n\\r\\t\""},
		{"\"\\u0041\\u00e4\\u20ac\\ud83d\\ude00\"", "\"A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
		{"\"\xf0\x9f\x98\x80\xed\x9f\xbf\xee\x80\x80\"", NULL},
		{"\"\x7f\"", NULL},
		{"\"{{ params.x }}\"", NULL},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *root = parse(cases[i].in);
		char	   *text;

		if (root == NULL)
			continue;
		text = json_text(root);
		CHECK_STR(text, cases[i].out != NULL ? cases[i].out : cases[i].in);
		mem_free(text);
		cJSON_Delete(root);
	}
}

static void
test_rejected(void)
{
	static const struct
	{
		const char *in;
		const char *error;
	}			cases[] = {
		{"", "unexpected end at byte 1"},
		{"   ", "unexpected end at byte 4"},
		{"nul", "expected a value at byte 1"},
		{"True", "expected a value"},
		{"NaN", "expected a value"},
		{"Infinity", "expected a value"},
		{"'a'", "expected a value"},
		{"1 2", "unexpected text after the value at byte 3"},
		{"{}x", "unexpected text after the value at byte 3"},
		{"nullnull", "unexpected text"},
		{"[1,]", "expected a value at byte 4"},
		{"[,1]", "expected a value at byte 2"},
		{"[1 2]", "expected \",\" or \"]\" at byte 4"},
		{"[1", "expected \",\" or \"]\" at byte 3"},
		{"[", "unexpected end"},
		{"{", "expected a key at byte 2"},
		{"{\"a\"}", "expected \":\" at byte 5"},
		{"{\"a\":}", "expected a value at byte 6"},
		{"{\"a\":1,}", "expected a key at byte 8"},
		{"{\"a\":1 \"b\":2}", "expected \",\" or \"}\" at byte 8"},
		{"{a:1}", "expected a key"},
		{"{1:1}", "expected a key"},
		{"[1}", "expected \",\" or \"]\""},
		{"{\"a\":[}", "expected a value"},
		{"01", "invalid number at byte 1"},
		{"-01", "invalid number"},
		{"+1", "expected a value"},
		{"-", "invalid number"},
		{"--1", "invalid number"},
		{".5", "expected a value"},
		{"1.", "invalid number"},
		{"1.e5", "invalid number"},
		{"1e", "invalid number"},
		{"1e+", "invalid number"},
		{"0x10", "unexpected text"},
		{"1e5000", "number out of range"},
		{"1e99999999999999999999999", "number out of range"},
		{"1e-99999999999999999999999", "number out of range"},
		{"\"", "unterminated string starting at byte 1"},
		{"\"abc", "unterminated string"},
		{"\"\\", "invalid escape"},
		{"\"\\\"", "unterminated string"},
		{"\"\\x\"", "invalid escape at byte 2"},
		{"\"a\nb\"", "control character in a string at byte 3"},
		{"\"\\u00\"", "invalid Unicode escape"},
		{"\"\\u00g0\"", "invalid Unicode escape"},
		{"\"\\u0000\"", "\\u0000 is not allowed at byte 2"},
		{"\"\\ud800\"", "invalid Unicode escape"},
		{"\"\\ud800\\u0041\"", "invalid Unicode escape"},
		{"\"\\ud800\\ud800\"", "invalid Unicode escape"},
		{"\"\\udc00\"", "invalid Unicode escape"},
		{"\"\x80\"", "invalid UTF-8 at byte 2"},
		{"\"\xc3\"", "invalid UTF-8"},
		{"\"\xc0\x80\"", "invalid UTF-8"},
		{"\"\xe0\x80\x80\"", "invalid UTF-8"},
		{"\"\xed\xa0\x80\"", "invalid UTF-8"},
		{"\"\xf0\x80\x80\x80\"", "invalid UTF-8"},
		{"\"\xf4\x90\x80\x80\"", "invalid UTF-8"},
		{"\"\xff\"", "invalid UTF-8"},
		{"\xef\xbb\xbf{}", "expected a value at byte 1"},
		{"{\"a\":1,\"a\":2}", "duplicate key \"a\" in the top level"},
		{"{\"x\":[0,{\"b\":{\"c\":1,\"d\":2,\"c\":3}}]}", "duplicate key \"c\" in x[1].b"},
		{"{\"a\":1,\"\\u0061\":2}", "duplicate key \"a\""},
	};
	char	   *error;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *root = json_parse(cases[i].in, strlen(cases[i].in), LIMIT, &error);

		CHECK_CASE(root == NULL, "accepted %s", cases[i].in);
		cJSON_Delete(root);
		CHECK_ERROR(error, cases[i].error);
	}

	/* zero bytes, the length limit, and text that is not terminated */
	CHECK(json_parse("1\0", 2, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "unexpected text after the value at byte 2");
	CHECK(json_parse("\"\0\"", 3, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "control character");
	CHECK(json_parse("[1]", 3, 2, &error) == NULL);
	CHECK_ERROR(error, "longer than the limit of 2 bytes");
	CHECK(json_parse("truex", 3, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "expected a value");
	cJSON_Delete(json_parse("[1]garbage", 3, LIMIT, &error));
	CHECK_STR(error, NULL);
	/* case matters: these are two keys */
	cJSON_Delete(json_parse("{\"a\":1,\"A\":2}", 13, LIMIT, &error));
	CHECK_STR(error, NULL);
}

static void
test_depth(void)
{
	StrBuf		buf;
	char	   *error;
	char	   *text;
	cJSON	   *root;

	strbuf_init(&buf);
	for (int depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++)
	{
		strbuf_reset(&buf);
		for (int i = 0; i < depth; i++)
			strbuf_addstr(&buf, i % 2 ? "[" : "{\"k\":");
		strbuf_addstr(&buf, "1");
		for (int i = depth - 1; i >= 0; i--)
			strbuf_addstr(&buf, i % 2 ? "]" : "}");
		root = json_parse(buf.data, buf.len, LIMIT, &error);
		if (depth <= JSON_MAX_DEPTH)
		{
			CHECK(root != NULL);
			CHECK_INT(json_depth(root, 1000), depth);
			CHECK_INT(json_depth(root, 10), 10);
			cJSON_Delete(root);
		}
		else
		{
			CHECK(root == NULL);
			CHECK_ERROR(error, "nesting too deep at byte");
			/* it may have come to be so since it was stored */
			root = json_parse_stored(buf.data, &error);
			CHECK(root != NULL);
			CHECK_INT(json_depth(root, 1000), depth);
			cJSON_Delete(root);
		}
	}

	/* a megabyte of opening brackets must not eat the stack */
	strbuf_reset(&buf);
	for (int i = 0; i < LIMIT; i++)
		strbuf_addchar(&buf, i % 3 ? '[' : ' ');
	CHECK(json_parse(buf.data, buf.len, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "nesting too deep");
	CHECK(json_parse_stored(buf.data, &error) == NULL);
	CHECK_ERROR(error, "nesting too deep");

	/* nor how long a number was written out */
	strbuf_reset(&buf);
	for (int i = 0; i < 5000; i++)
		strbuf_addchar(&buf, '9');
	CHECK(json_parse(buf.data, buf.len, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "number out of range");
	root = json_parse_stored(buf.data, &error);
	CHECK(root != NULL);
	text = json_text(root);
	CHECK_STR(text, buf.data);
	mem_free(text);
	cJSON_Delete(root);

	/* many keys, the first again at the end: found, and in good time */
	strbuf_reset(&buf);
	strbuf_addstr(&buf, "{");
	for (int i = 0; i < 50000; i++)
		strbuf_printf(&buf, "\"key%d\":%d,", i, i);
	strbuf_addstr(&buf, "\"key0\":1}");
	CHECK(json_parse(buf.data, buf.len, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "duplicate key \"key0\"");

	/* a number as long as a book, and one just short enough */
	strbuf_reset(&buf);
	for (int i = 0; i < 5000; i++)
		strbuf_addchar(&buf, '7');
	CHECK(json_parse(buf.data, buf.len, LIMIT, &error) == NULL);
	CHECK_ERROR(error, "number out of range at byte 1");
	root = json_parse(buf.data, 4000, LIMIT, &error);
	CHECK(root != NULL && cJSON_IsRaw(root));
	cJSON_Delete(root);
	strbuf_free(&buf);
}

static void
test_int64(void)
{
	static const struct
	{
		const char *text;
		bool		ok;
		int64		value;
	}			cases[] = {
		{"0", true, 0}, {"-0", true, 0}, {"1", true, 1}, {"-1", true, -1},
		{"1.0", true, 1}, {"1e3", true, 1000}, {"1.5", false, 0},
		{"999999999999999", true, INT64_C(999999999999999)},
		{"9007199254740993", true, INT64_C(9007199254740993)},
		{"-9007199254740993", true, -INT64_C(9007199254740993)},
		{"9223372036854775807", true, INT64_MAX},
		{"-9223372036854775808", true, INT64_MIN},
		{"9223372036854775808", false, 0},
		{"-9223372036854775809", false, 0},
		{"18446744073709551616", false, 0},
		{"99999999999999999999999999", false, 0},
		{"1e18", false, 0}, {"1e400", false, 0},
		{"0.30000000000000004", false, 0},
		{"\"42\"", true, 42}, {"\"-42\"", true, -42}, {"\"007\"", true, 7},
		{"\"-0\"", true, 0},
		{"\"9223372036854775807\"", true, INT64_MAX},
		{"\"-9223372036854775808\"", true, INT64_MIN},
		{"\"9223372036854775808\"", false, 0},
		{"\"\"", false, 0}, {"\"-\"", false, 0}, {"\"+1\"", false, 0},
		{"\" 1\"", false, 0}, {"\"1 \"", false, 0}, {"\"1.0\"", false, 0},
		{"\"0x10\"", false, 0}, {"\"abc\"", false, 0},
		{"null", false, 0}, {"true", false, 0}, {"[1]", false, 0}, {"{}", false, 0},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *root = parse(cases[i].text);
		int64		value = 0;

		CHECK_CASE(json_int64(root, &value) == cases[i].ok, "%s", cases[i].text);
		CHECK_CASE(value == cases[i].value, "%s is " INT64_FORMAT, cases[i].text, value);
		cJSON_Delete(root);
	}
	CHECK(!json_int64(NULL, &(int64) {0}));

	/* there and back */
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *item = json_from_int64(cases[i].value);
		char	   *text = json_text(item);
		char	   *want = mem_printf(INT64_FORMAT, cases[i].value);
		int64		back = -1;

		CHECK_STR(text, want);
		CHECK(json_int64(item, &back) && back == cases[i].value);
		mem_free(want);
		mem_free(text);
		cJSON_Delete(item);
	}
}

static void
test_values(void)
{
	cJSON	   *root = parse("{\"a\":{\"b\":[10,{\"c\":\"x\"}],\"\":5},\"t\":true,"
							 "\"long\":12345678901234567890,\"pi\":3.14,\"huge\":1e400,"
							 "\"umlaut\":\"\xc3\xa4\xc3\xa4\"}");
	double		d = 0;
	bool		b = false;
	char	   *text;
	int64		n = 0;

	CHECK_STR(json_string(json_get(root, "a.b.1.c")), "x");
	CHECK(json_int64(json_get(root, "a.b.0"), &n) && n == 10);
	CHECK(json_get(root, "a.b.2") == NULL);
	CHECK(json_get(root, "a.b.-1") == NULL);
	CHECK(json_get(root, "a.b.99999999999999999999") == NULL);
	CHECK(json_get(root, "a.b.x") == NULL);
	CHECK(json_get(root, "a.b.1.c.d") == NULL);
	CHECK(json_get(root, "A") == NULL);
	CHECK(json_get(root, "ab") == NULL);
	CHECK(json_get(root, "") == NULL);
	CHECK(json_int64(json_get(root, "a."), &n) && n == 5);
	CHECK(json_get(NULL, "a") == NULL);

	CHECK(json_bool(json_get(root, "t"), &b) && b);
	CHECK(!json_bool(json_get(root, "pi"), &b));
	CHECK(!json_bool(NULL, &b));
	CHECK(json_double(json_get(root, "pi"), &d) && d == 3.14);
	CHECK(json_double(json_get(root, "long"), &d) && d == 12345678901234567890.0);
	CHECK(!json_double(json_get(root, "huge"), &d));
	CHECK(!json_double(json_get(root, "t"), &d));
	CHECK(!json_double(NULL, &d));
	CHECK_STR(json_string(json_get(root, "t")), NULL);
	CHECK_STR(json_string(NULL), NULL);

	text = json_text_limited(json_get(root, "umlaut"), 4);
	CHECK_STR(text, "\"\xc3\xa4");
	mem_free(text);
	text = json_text_limited(json_get(root, "umlaut"), 100);
	CHECK_STR(text, "\"\xc3\xa4\xc3\xa4\"");
	mem_free(text);
	cJSON_Delete(root);
}

/* What was accepted prints as text that is accepted and prints the same */
static void
check_stable(const char *bytes, size_t len)
{
	char	   *error;
	cJSON	   *root = json_parse(bytes, len, LIMIT, &error);
	cJSON	   *again;
	char	   *text;
	char	   *text2;

	if (root == NULL)
	{
		if (error == NULL)
			CHECK(error != NULL);
		else
			mem_free(error);
		return;
	}
	text = json_text(root);
	again = json_parse(text, strlen(text), 8 * LIMIT, &error);
	if (!CHECK_CASE(again != NULL, "not accepted again: %s", text))
		mem_free(error);
	else
	{
		text2 = json_text(again);
		CHECK_STR(text2, text);
		mem_free(text2);
	}
	mem_free(text);
	cJSON_Delete(root);
	cJSON_Delete(again);
}

static void
test_fuzz(void)
{
	static const char seed[] =
		"{\"run_id\":9007199254740993,\"state\":{\"life_cycle_state\":\"TERMINATED\",\"x\":[1.5e-3,null,"
		"true,false,\"a\\u00e4\\ud83d\\ude00\\n\",-0,[],{}]},\"\xc3\xa4\":0.30000000000000004,\"e\":1E+2}";
	static const char *const tokens[] = {
		"{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"", "\\", "\\u", "d800",
		"1", "-", "0", ".", "e", "E+", "999999999999999999", "true", "null", " ",
		"\xc3", "\xa4", "{\"k\":", "[[", "\\\"",
	};
	Random		rnd = {1234567};
	StrBuf		buf;

	strbuf_init(&buf);
	for (int round = 0; round < 20000; round++)
	{
		strbuf_reset(&buf);
		if (round % 2 == 0)		/* a document with a few bytes changed */
		{
			size_t		len = sizeof(seed) - 1;

			strbuf_add(&buf, seed, len);
			for (int i = random_below(&rnd, 4); i > 0; i--)
				buf.data[random_below(&rnd, (int) len)] = (char)
					(random_below(&rnd, 2) ? random_below(&rnd, 256) : seed[random_below(&rnd, (int) len)]);
			buf.len -= random_below(&rnd, 3) ? 0 : random_below(&rnd, (int) len);
		}
		else if (round % 4 == 1)	/* things put together */
		{
			for (int i = random_below(&rnd, 20); i > 0; i--)
				strbuf_addstr(&buf, tokens[random_below(&rnd, lengthof(tokens))]);
		}
		else					/* noise */
		{
			for (int i = random_below(&rnd, 60); i > 0; i--)
				strbuf_addchar(&buf, (char) random_below(&rnd, 256));
		}
		check_stable(buf.data, buf.len);
	}
	strbuf_free(&buf);
}

void
test_json(void)
{
	test_round_trip();
	test_rejected();
	test_depth();
	test_int64();
	test_values();
	test_fuzz();
}
