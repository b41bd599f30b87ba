/*-------------------------------------------------------------------------
 * test_render.c
 *	  Values in the place of references: types, text, limits, hostility
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "json.h"
#include "reference.h"

static cJSON *
parse(const char *text)
{
	char	   *error;
	cJSON	   *root = json_parse(text, strlen(text), 8 * REF_MAX_TEXT, &error);

	CHECK_CASE(root != NULL, "%s", text);
	return root;
}

/* params.* of the tree in arg; "params.fail" fails, "params.none" is silent */
static cJSON *
resolve(const RefPath *path, void *arg, char **error)
{
	const cJSON *value;

	if (ref_path_is(path, 1, "fail"))
	{
		*error = mem_strdup("the resolver said no");
		return NULL;
	}
	value = ref_value_at((const cJSON *) arg, path, 1);
	return value != NULL ? cJSON_Duplicate(value, true) : NULL;
}

static const char params_text[] =
	"{\"s\":\"text\",\"n\":42,\"f\":1.5,\"big\":9007199254740993,\"t\":true,\"z\":null,"
	"\"o\":{\"a\":[1,{\"b\":\"x\"}]},\"evil\":\"{{ params.s }}\",\"q\":\"a\\\"b\",\"e\":\"\"}";

static void
test_render_cases(void)
{
	static const struct
	{
		const char *spec;
		const char *out;		/* NULL: an error, in "error" */
		const char *error;
	}			cases[] = {
		/* one reference and nothing else: typed */
		{"\"{{ params.n }}\"", "42", NULL},
		{"\"{{ params.big }}\"", "9007199254740993", NULL},
		{"\"{{ params.t }}\"", "true", NULL},
		{"\"{{ params.z }}\"", "null", NULL},
		{"\"{{ params.s }}\"", "\"text\"", NULL},
		{"\"{{ params.o }}\"", "{\"a\":[1,{\"b\":\"x\"}]}", NULL},
		{"\"{{ params.o.a[1].b }}\"", "\"x\"", NULL},
		{"\"{{ params.o.a[0] }}\"", "1", NULL},
		/* in other text: text */
		{"\" {{ params.n }}\"", "\" 42\"", NULL},
		{"\"{{ params.s }}/{{ params.n }}/{{ params.f }}/{{ params.big }}\"",
		"\"text/42/1.5/9007199254740993\"", NULL},
		{"\"{{ params.t }}{{ params.z }}.\"", "\"true.\"", NULL},
		{"\"o={{ params.o }}\"", "\"o={\\\"a\\\":[1,{\\\"b\\\":\\\"x\\\"}]}\"", NULL},
		{"\"{{ params.q }}!\"", "\"a\\\"b!\"", NULL},
		{"\"{{ params.e }}{{ params.e }}\"", "\"\"", NULL},
		{"\"{{\\\"{{\\\"}} params.s }}\"", "\"{{ params.s }}\"", NULL},
		{"\"{{\\\"{{\\\"}}\"", "\"{{\"", NULL},
		/* a value is never a template */
		{"\"{{ params.evil }}\"", "\"{{ params.s }}\"", NULL},
		{"\"x{{ params.evil }}\"", "\"x{{ params.s }}\"", NULL},
		/* trees; keys are left alone */
		{"{\"a\":[\"{{ params.n }}\",{\"{{ params.n }}\":\"{{ params.s }}\"}],\"b\":1.5,\"c\":null,"
			"\"d\":12345678901234567890,\"e\":[],\"f\":{},\"g\":false}",
			"{\"a\":[42,{\"{{ params.n }}\":\"text\"}],\"b\":1.5,\"c\":null,"
			"\"d\":12345678901234567890,\"e\":[],\"f\":{},\"g\":false}", NULL},
		{"\"plain\"", "\"plain\"", NULL},
		/* what goes wrong */
		{"\"{{ params.missing }}\"", NULL, "reference \"params.missing\" has no value"},
		{"\"x{{ params.o.a[7] }}\"", NULL, "reference \"params.o.a[7]\" has no value"},
		{"[1,\"{{ params.s.t }}\"]", NULL, "has no value"},
		{"\"{{ params.s[0] }}\"", NULL, "has no value"},
		{"\"{{ params.o[0] }}\"", NULL, "has no value"},
		{"{\"a\":\"{{ params.fail }}\"}", NULL, "the resolver said no"},
		{"\"x{{ params.fail }}\"", NULL, "the resolver said no"},
		{"\"{{ params.n \"", NULL, "unterminated reference"},
		{"\"{{ params.n }} {{\"", NULL, "unterminated reference starting at byte 16"},
	};
	cJSON	   *params = parse(params_text);

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *spec = parse(cases[i].spec);
		char	   *before = json_text(spec);
		char	   *after;
		char	   *error;
		cJSON	   *out = ref_render_json(spec, resolve, params, &error);

		if (cases[i].out == NULL)
		{
			CHECK_CASE(out == NULL, "%s", cases[i].spec);
			CHECK_ERROR(error, cases[i].error);
		}
		else if (!CHECK_CASE(out != NULL, "%s: %s", cases[i].spec, error ? error : ""))
			mem_free(error);
		else
		{
			char	   *text = json_text(out);

			CHECK_STR(text, cases[i].out);
			mem_free(text);
		}
		after = json_text(spec);
		CHECK_STR(after, before);
		mem_free(before);
		mem_free(after);
		cJSON_Delete(out);
		cJSON_Delete(spec);
	}
	cJSON_Delete(params);
}

/* No value and no error: unknown, as tasks are before a run */
static cJSON *
resolve_known(const RefPath *path, void *arg, char **error)
{
	return ref_path_is(path, 0, "params") ? resolve(path, arg, error) : NULL;
}

static void
test_render_known(void)
{
	static const struct
	{
		const char *spec;
		const char *out;
	}			cases[] = {
		{"[\"{{ tasks.a.output.x[0] }}\"]", "[\"{{tasks.a.output.x[0]}}\"]"},
		{"{\"a\":\"n={{params.n}} of {{ run.id }}\"}", "{\"a\":\"n=42 of {{run.id}}\"}"},
		{"\"{{params.n}}\"", "42"},
	};
	cJSON	   *params = parse(params_text);
	cJSON	   *spec;
	char	   *error;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *out;
		char	   *text;

		spec = parse(cases[i].spec);
		out = ref_render_known(spec, resolve_known, params, &error);
		CHECK(out != NULL);
		text = json_text(out);
		CHECK_STR(text, cases[i].out);
		mem_free(text);
		cJSON_Delete(out);
		cJSON_Delete(spec);
	}
	spec = parse("\"{{params.fail}}\"");
	CHECK(ref_render_known(spec, resolve_known, params, &error) == NULL);
	CHECK_ERROR(error, "the resolver said no");
	cJSON_Delete(spec);
	cJSON_Delete(params);
}

static void
test_render_text(void)
{
	cJSON	   *params = parse(params_text);
	char	   *error;
	char	   *text;

	text = ref_render_text("{{ params.n }}", resolve, params, &error);
	CHECK_STR(text, "42");
	mem_free(text);
	text = ref_render_text("", resolve, params, &error);
	CHECK_STR(text, "");
	mem_free(text);
	CHECK(ref_render_text("a{{ params.fail }}", resolve, params, &error) == NULL);
	CHECK_ERROR(error, "the resolver said no");
	cJSON_Delete(params);
}

/* A deep value, alone and below a deep spec */
static cJSON *
nest(cJSON *inner, int depth)
{
	for (int i = 0; i < depth; i++)
	{
		cJSON	   *array = cJSON_CreateArray();

		cJSON_AddItemToArray(array, inner);
		inner = array;
	}
	return inner;
}

static void
expect_render(cJSON *spec, const cJSON *params, const char *error_part)
{
	char	   *error;
	cJSON	   *out = ref_render_json(spec, resolve, (void *) params, &error);

	if (error_part == NULL)
	{
		if (!CHECK_CASE(out != NULL, "%s", error ? error : ""))
			mem_free(error);
	}
	else
	{
		CHECK(out == NULL);
		CHECK_ERROR(error, error_part);
	}
	cJSON_Delete(out);
	cJSON_Delete(spec);
}

static void
test_limits(void)
{
	cJSON	   *params = cJSON_CreateObject();
	StrBuf		buf;

	cJSON_AddItemToObject(params, "deep", nest(cJSON_CreateNumber(1), JSON_MAX_DEPTH));
	cJSON_AddItemToObject(params, "half", nest(cJSON_CreateNumber(1), JSON_MAX_DEPTH - REF_MAX_DEPTH));
	cJSON_AddItemToObject(params, "abyss", nest(cJSON_CreateNumber(1), 900));
	strbuf_init(&buf);
	for (int i = 0; i < 100000; i++)
		strbuf_addchar(&buf, 'y');
	cJSON_AddItemToObject(params, "wide", cJSON_CreateString(buf.data));

	expect_render(cJSON_CreateString("{{ params.deep }}"), params, NULL);
	expect_render(nest(cJSON_CreateString("{{ params.deep }}"), 1), params, "nested too deep");
	expect_render(nest(cJSON_CreateString("{{ params.half }}"), REF_MAX_DEPTH), params, NULL);
	expect_render(cJSON_CreateString("{{ params.abyss }}"), params, "nested too deep");
	expect_render(nest(cJSON_CreateString("x"), REF_MAX_DEPTH), params, NULL);
	expect_render(nest(cJSON_CreateString("x"), REF_MAX_DEPTH + 1), params, "nested more than 100");

	/* ten bytes of template for a hundred thousand of text, many times */
	strbuf_reset(&buf);
	for (int i = 0; i < 10; i++)
		strbuf_addstr(&buf, "{{ params.wide }}");
	expect_render(cJSON_CreateString(buf.data), params, NULL);
	strbuf_addstr(&buf, "{{ params.wide }}");
	expect_render(cJSON_CreateString(buf.data), params, "longer than the limit");
	{
		cJSON	   *array = cJSON_CreateArray();

		for (int i = 0; i < 1000; i++)
			cJSON_AddItemToArray(array, cJSON_CreateString("{{ params.wide }}"));
		expect_render(array, params, "longer than the limit");
	}
	strbuf_free(&buf);
	cJSON_Delete(params);
}

/* A list that fits into parameters of a megabyte can be filled in, however short its items are. */
static void
test_long_lists(void)
{
	static const struct
	{
		int			n;
		const char *item;
		const char *error;
	}			cases[] = {
		{500000, "0", NULL},
		{530000, "0", "longer than the limit"},
		{120000, "1234567", NULL},
		{140000, "1234567", "longer than the limit"},
		{120000, "\"abcde\"", NULL},
		{140000, "\"abcde\"", "longer than the limit"},
		{120000, "{\"n\":1}", NULL},
		{140000, "{\"n\":1}", "longer than the limit"},
		{240000, "1.5", NULL},
		{280000, "1.5", "longer than the limit"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *params = cJSON_CreateObject();
		cJSON	   *list = cJSON_AddArrayToObject(params, "list");
		cJSON	   *item = parse(cases[i].item);

		for (int n = 0; n < cases[i].n; n++)
			cJSON_AddItemToArray(list, cJSON_Duplicate(item, true));
		expect_render(cJSON_CreateString("{{ params.list }}"), params, cases[i].error);
		cJSON_Delete(item);
		cJSON_Delete(params);
	}
}

static void
test_fuzz(void)
{
	static const char *const tokens[] = {
		"{{ params.s }}", "{{ params.n }}", "{{ params.o }}", "{{ params.evil }}",
		"{{ params.nope }}", "{{ params.fail }}", "{{\"{{\"}}", "{{", "}}", " ", "x",
		"{{ params.o.a[1] }}", "{{ params", "\"", "\\",
	};
	cJSON	   *params = parse(params_text);
	Random		rnd = {4711};
	StrBuf		buf;
	int			rendered = 0;

	strbuf_init(&buf);
	for (int round = 0; round < 20000; round++)
	{
		cJSON	   *spec = cJSON_CreateArray();
		cJSON	   *out;
		char	   *error;

		for (int n = random_below(&rnd, 3); n >= 0; n--)
		{
			strbuf_reset(&buf);
			for (int i = random_below(&rnd, 5); i > 0; i--)
				strbuf_addstr(&buf, tokens[random_below(&rnd, lengthof(tokens))]);
			cJSON_AddItemToArray(spec, cJSON_CreateString(buf.data));
		}
		out = ref_render_json(spec, resolve, params, &error);
		if (out != NULL)
			rendered++;
		else
		{
			CHECK(error != NULL);
			mem_free(error);
		}
		cJSON_Delete(out);
		cJSON_Delete(spec);
	}
	CHECK(rendered > 1000);
	strbuf_free(&buf);
	cJSON_Delete(params);
}

void
test_render(void)
{
	test_render_cases();
	test_render_known();
	test_render_text();
	test_limits();
	test_long_lists();
	test_fuzz();
}
