/*-------------------------------------------------------------------------
 * test_reference.c
 *	  Finding references in text and checking what they name
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "json.h"
#include "reference.h"

/* Writes what the scan finds as "literal<path>literal" */
static bool
show_piece(const RefPiece *piece, void *arg, char **error)
{
	StrBuf	   *out = arg;

	(void) error;
	if (piece->path != NULL)
		strbuf_printf(out, "<%s>", piece->path->text);
	else
		strbuf_add(out, piece->text, piece->len);
	return true;
}

static void
test_scan(void)
{
	static const struct
	{
		const char *text;
		const char *pieces;
	}			cases[] = {
		{"", ""},
		{"plain", "plain"},
		{"{ { } } {x} }}", "{ { } } {x} }}"},
		{"{{run.id}}", "<run.id>"},
		{"{{ run.id }}", "<run.id>"},
		{"{{\n run . id\t}}", "<run.id>"},
		{"a{{run.id}}b{{row_audit_id}}c", "a<run.id>b<row_audit_id>c"},
		{"{{a}}{{b}}", "<a><b>"},
		{"{{tasks.load.output.rows[0].n[12]}}", "<tasks.load.output.rows[0].n[12]>"},
		{"{{ tasks [ \"my task\" ] . output [ 7 ] }}", "<tasks[\"my task\"].output[7]>"},
		{"{{ tasks[\"load\"].status }}", "<tasks.load.status>"},
		{"{{ a[\"x\\\"y\\\\z\"] }}", "<a[\"x\\\"y\\\\z\"]>"},
		{"{{ a[\"}}\"] }}", "<a[\"}}\"]>"},
		{"{{ a[\"\"] }}", "<a[\"\"]>"},
		{"{{ load-orders.x_1 }}", "<load-orders.x_1>"},
		{"{{ \xc3\xa4.\xc3\xb6 }}", "<\xc3\xa4.\xc3\xb6>"},
		/* quoted literals: how to say two braces */
		{"{{\"{{\"}}", "{{"},
		{"{{ \"}}\" }}x", "}}x"},
		{"{{\"\"}}", ""},
		{"{{\"a\\\"b\\\\\"}}", "a\"b\\"},
		{"{{\"{{\"}}run.id}}", "{{run.id}}"},
	};
	StrBuf		out;
	char	   *error;

	strbuf_init(&out);
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		strbuf_reset(&out);
		if (!CHECK_CASE(ref_scan(cases[i].text, show_piece, &out, &error), "%s", cases[i].text))
			CHECK_ERROR(error, "");
		CHECK_STR(out.data, cases[i].pieces);
	}
	strbuf_free(&out);
}

static void
test_malformed(void)
{
	static const struct
	{
		const char *text;
		const char *error;
	}			cases[] = {
		{"{{", "unterminated reference starting at byte 1"},
		{"ab{{ ", "unterminated reference starting at byte 3"},
		{"{{run", "unterminated"},
		{"{{run.", "unterminated"},
		{"{{run.id", "unterminated"},
		{"{{run.id }", "unterminated"},
		{"{{\"", "unterminated"},
		{"{{\"abc}}", "unterminated"},
		{"{{\"a\"", "unterminated"},
		{"{{a[", "unterminated"},
		{"{{a[\"", "unterminated"},
		{"{{a[1", "unterminated"},
		{"{{}}", "expected a name at byte 3 of the reference starting at byte 1"},
		{"{{ 1 }}", "expected a name at byte 4"},
		{"x{{ .a }}", "expected a name at byte 5 of the reference starting at byte 2"},
		{"{{a..b}}", "expected a name at byte 5"},
		{"{{a.}}", "expected a name"},
		{"{{a.1}}", "expected a name"},
		{"{{a b}}", "expected \"}}\" at byte 5"},
		{"{{a} }", "expected \"}}\""},
		{"{{a}x}", "expected \"}}\""},
		{"{{{a}}}", "expected a name at byte 3"},
		{"{{a|upper}}", "expected \"}}\""},
		{"{{a+1}}", "expected \"}}\""},
		{"{{f(a)}}", "expected \"}}\""},
		{"{{a[]}}", "expected an index or a quoted name"},
		{"{{a[-1]}}", "expected an index"},
		{"{{a[x]}}", "expected an index"},
		{"{{a['x']}}", "expected an index"},
		{"{{a[1234567890]}}", "expected an index"},
		{"{{a[1}}", "expected \"]\""},
		{"{{a[1]b}}", "expected \"}}\""},
		{"{{a[\"x\\n\"]}}", "invalid escape"},
		{"{{\"a\" b}}", "expected \"}}\""},
		{"{{[0]}}", "expected a name"},
	};
	StrBuf		buf;
	char	   *error;

	strbuf_init(&buf);
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		strbuf_reset(&buf);
		CHECK_CASE(!ref_scan(cases[i].text, show_piece, &buf, &error), "%s", cases[i].text);
		CHECK_ERROR(error, cases[i].error);
	}

	/* as many parts as allowed, and one more */
	for (int parts = REF_MAX_PARTS; parts <= REF_MAX_PARTS + 1; parts++)
	{
		StrBuf		out;

		strbuf_init(&out);
		strbuf_reset(&buf);
		strbuf_addstr(&buf, "{{a");
		for (int i = 1; i < parts; i++)
			strbuf_addstr(&buf, ".b");
		strbuf_addstr(&buf, "}}");
		if (parts <= REF_MAX_PARTS)
			CHECK(ref_scan(buf.data, show_piece, &out, &error));
		else
		{
			CHECK(!ref_scan(buf.data, show_piece, &out, &error));
			CHECK_ERROR(error, "too many parts");
		}
		strbuf_free(&out);
	}

	/* the size limit */
	strbuf_reset(&buf);
	for (int i = 0; i <= REF_MAX_TEXT; i++)
		strbuf_addchar(&buf, 'x');
	CHECK(!ref_scan(buf.data, show_piece, &buf, &error));
	CHECK_ERROR(error, "longer than the limit");
	strbuf_free(&buf);
}

static char *
check_text(const char *text, const RefScope *scope)
{
	cJSON	   *item = cJSON_CreateString(text);
	char	   *error = ref_check_json(item, scope);

	cJSON_Delete(item);
	return error;
}

static void
test_check(void)
{
	static const char *const params[] = {"day", "region"};
	static const char *const upstream[] = {"load", "land-orders"};
	static const char *const tasks[] = {"load", "land-orders", "publish"};
	static const RefScope scope = {params, 2, upstream, 2, tasks, 3, false};
	static const RefScope in_item = {params, 2, upstream, 2, tasks, 3, true};
	static const RefScope empty = {NULL, 0, NULL, 0, NULL, 0, false};
	static const char *const good[] = {
		"run.id", "run.row_audit_id", "run.nominal_time", "run.pipeline",
		"run.attempt", "run.window_start", "run.window_end", "row_audit_id",
		"params.day", "params.day.year[0]", "params[\"region\"]",
		"tasks.load.output", "tasks.load.output.rows[0].id",
		"tasks.land-orders.status", "tasks[\"land-orders\"].output[3]",
		"task.name", "task.attempt", "pipeline.name", "pipeline.version",
	};
	static const struct
	{
		const char *path;
		const char *error;
	}			bad[] = {
		{"secret.key", "not one of: run, row_audit_id, params, tasks, task, pipeline"},
		{"x", "\"x\" names an unknown field"},
		{"run", "lacks a field, one of: id, row_audit_id"},
		{"run.password", "names an unknown field, not one of: id,"},
		{"run[0]", "names an unknown field"},
		{"run.id.x", "goes on behind a plain value"},
		{"row_audit_id.x", "goes on behind a plain value"},
		{"row_audit_id[0]", "goes on behind a plain value"},
		{"params", "lacks the name of a parameter, one of: day, region"},
		{"params[0]", "lacks the name of a parameter"},
		{"params.dya", "undeclared parameter; declared are: day, region"},
		{"tasks", "lacks the name of an upstream task"},
		{"tasks.load", "lacks a field, one of: output, status"},
		{"tasks.load.rows", "not one of: output, status"},
		{"tasks.load.status.x", "goes on behind a plain value"},
		{"tasks.publish.output", "does not depend on; upstream are: load, land-orders"},
		{"tasks.nobody.output", "names no upstream task; upstream are: load"},
		{"task.secret", "not one of: name, attempt"},
		{"pipeline.owner", "not one of: name, version"},
		{"item", "\"item\" is known in the task of a for_each only"},
		{"item.x[1]", "is known in the task of a for_each only"},
		{"item_no", "is known in the task of a for_each only"},
	};

	for (size_t i = 0; i < lengthof(good); i++)
	{
		char	   *text = mem_printf("a {{ %s }} b", good[i]);

		CHECK_STR(check_text(text, &scope), NULL);
		mem_free(text);
	}
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		char	   *text = mem_printf("{{ run.id }} {{ %s }}", bad[i].path);

		CHECK_ERROR(check_text(text, &scope), bad[i].error);
		mem_free(text);
	}
	CHECK_ERROR(check_text("{{ params.x }}", &empty), "declared are: none");
	CHECK_ERROR(check_text("{{ tasks.x.output }}", &empty), "upstream are: none");
	CHECK_STR(check_text("{{ item }} {{ item.a[0].b }} {{ item_no }} {{ params.day }} {{ tasks.load.output }}", &in_item), NULL);
	CHECK_ERROR(check_text("{{ item_no.x }}", &in_item), "goes on behind a plain value");
	CHECK_ERROR(check_text("{{ items }}", &in_item), "task, pipeline, item, item_no");
	CHECK_ERROR(check_text("{{ tasks.publish.output }}", &in_item), "does not depend on");
	CHECK(ref_is_root("item", 4) && ref_is_root("item_no", 7) && !ref_is_root("items", 5));
	CHECK(ref_is_root("run", 3) && !ref_is_root("runs", 4) && !ref_is_root("run", 2));
}

/* Where in a spec the mistake is; a long list is cut */
static void
test_check_json(void)
{
	static const char text[] =
		"{\"url\":\"https://x/{{ params.p0 }}\",\"{{ not.a.template }}\":1,"
		"\"body\":{\"list\":[1,\"ok\",\"{{ params.nope }}\"]}}";
	const char *params[30];
	char		names[30][16];
	RefScope	scope = {params, 30, NULL, 0, NULL, 0, false};
	char	   *error;
	cJSON	   *spec = json_parse(text, sizeof(text) - 1, 1000, &error);

	for (int i = 0; i < 30; i++)
	{
		snprintf(names[i], sizeof(names[i]), "p%d", i);
		params[i] = names[i];
	}
	error = ref_check_json(spec, &scope);
	CHECK(error != NULL && strstr(error, "in \"body.list[2]\"") != NULL);
	CHECK_ERROR(error, "p19, ... (10 more)");
	cJSON_Delete(spec);

	/* too deep */
	spec = cJSON_CreateString("x");
	for (int i = 0; i <= REF_MAX_DEPTH; i++)
	{
		cJSON	   *array = cJSON_CreateArray();

		cJSON_AddItemToArray(array, spec);
		spec = array;
	}
	CHECK_ERROR(ref_check_json(spec, &scope), "nested more than 100");
	CHECK_STR(ref_check_json(spec->child, &scope), NULL);
	cJSON_Delete(spec);
}

/* Literal pieces are slices of the text; offsets only go up */
typedef struct FuzzState
{
	const char *text;
	size_t		last;
	bool		ok;
} FuzzState;

static bool
fuzz_piece(const RefPiece *piece, void *arg, char **error)
{
	FuzzState  *state = arg;

	(void) error;
	state->ok &= piece->offset > state->last && piece->offset <= strlen(state->text);
	state->last = piece->offset;
	if (piece->path != NULL)
		state->ok &= piece->path->nparts >= 1 && piece->path->parts[0].name != NULL;
	return true;
}

static void
test_fuzz(void)
{
	static const char *const tokens[] = {
		"{{", "}}", "{", "}", " ", "run", ".", "id", "[", "]", "0", "12", "\"", "\\",
		"\\\"", "params", "x", "-", "\xc3\xa4", "\n", "{{ run.id }}", "{{\"{{\"}}",
	};
	Random		rnd = {99};
	StrBuf		buf;
	int			accepted = 0;

	strbuf_init(&buf);
	for (int round = 0; round < 30000; round++)
	{
		FuzzState	state = {.ok = true};
		char	   *error;

		strbuf_reset(&buf);
		for (int i = random_below(&rnd, 16); i > 0; i--)
		{
			if (random_below(&rnd, 10) == 0)
				strbuf_addchar(&buf, (char) (1 + random_below(&rnd, 255)));
			else
				strbuf_addstr(&buf, tokens[random_below(&rnd, lengthof(tokens))]);
		}
		state.text = buf.data;
		if (ref_scan(buf.data, fuzz_piece, &state, &error))
			accepted++;
		else
		{
			CHECK(strstr(error, "at byte ") != NULL);
			mem_free(error);
		}
		CHECK_CASE(state.ok, "%s", buf.data);
	}
	CHECK(accepted > 1000);
	strbuf_free(&buf);
}

void
test_reference(void)
{
	test_scan();
	test_malformed();
	test_check();
	test_check_json();
	test_fuzz();
}
