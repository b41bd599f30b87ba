/*-------------------------------------------------------------------------
 * test_sqltext.c
 *	  References become parameters; quotes, comments and other traps
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "reference.h"
#include "sqltext.h"

static void
test_compile(void)
{
	static const struct
	{
		const char *text;
		const char *sql;		/* NULL: the same */
		const char *refs;		/* separated by spaces */
	}			cases[] = {
		{"", NULL, ""},
		{"SELECT 1", NULL, ""},
		{"SELECT {{ params.day }}", "SELECT $1", "params.day"},
		{"SELECT {{params.a}},{{params.b}}, {{ params.a }}", "SELECT $1,$2, $1", "params.a params.b"},
		{"f({{run.id}}, {{ tasks[\"load\"].output.n[0] }}, {{tasks.load.output.n[0]}})",
		"f($1, $2, $2)", "run.id tasks.load.output.n[0]"},
		{"x={{run.id}}::text||{{run.id}};y=-{{run.id}}", "x=$1::text||$1;y=-$1", "run.id"},
		{"a[{{run.id}}]", "a[$1]", "run.id"},
		/* quotes of every kind, and what is right behind them */
		{"'it''s' {{run.id}}", "'it''s' $1", "run.id"},
		{"'\\' {{run.id}} '\\'", "'\\' $1 '\\'", "run.id"},
		{"E'\\' x' {{run.id}}", "E'\\' x' $1", "run.id"},
		{"e'a''b\\\\' {{run.id}}", "e'a''b\\\\' $1", "run.id"},
		{"E'a'\n  'b\\'c' {{run.id}}", "E'a'\n  'b\\'c' $1", "run.id"},
		{"E'a' -- it's {{run.id}}\n 'b\\'c' {{run.id}}", "E'a' -- it's {{run.id}}\n 'b\\'c' $1", "run.id"},
		{"E'a' 'b\\' {{run.id}}", "E'a' 'b\\' $1", "run.id"},
		{"te'a\\' {{run.id}}", "te'a\\' $1", "run.id"},
		{"U&'d\\0061t' {{run.id}} U&\"x\"\"y\"", "U&'d\\0061t' $1 U&\"x\"\"y\"", "run.id"},
		{"\"a\"\"b'\" {{run.id}}", "\"a\"\"b'\" $1", "run.id"},
		{"n'x' b'01' x'ff' {{run.id}}", "n'x' b'01' x'ff' $1", "run.id"},
		{"$$a'b$$ {{run.id}}", "$$a'b$$ $1", "run.id"},
		{"$a$x$b$y$a$ {{run.id}}", "$a$x$b$y$a$ $1", "run.id"},
		{"$a$ $$ $a $A$ $a$ {{run.id}}", "$a$ $$ $a $A$ $a$ $1", "run.id"},
		{"$\xc3\xa4$'$\xc3\xa4$ {{run.id}}", "$\xc3\xa4$'$\xc3\xa4$ $1", "run.id"},
		{"a$b$c {{run.id}}", "a$b$c $1", "run.id"},
		{"a$1 {{run.id}}", "a$1 $1", "run.id"},
		{"$ {{run.id}}", "$ $1", "run.id"},
		/* comments keep what they hold */
		{"-- {{ run.id }} {{ '\n{{run.id}}", "-- {{ run.id }} {{ '\n$1", "run.id"},
		{"-- the end {{", NULL, ""},
		{"/* {{ run.id }} ' $1 */ {{run.id}}", "/* {{ run.id }} ' $1 */ $1", "run.id"},
		{"/* a /* b */ ' {{ */ {{run.id}}", "/* a /* b */ ' {{ */ $1", "run.id"},
		{"1 --1 {{x.y}}\r{{run.id}}", "1 --1 {{x.y}}\r$1", "run.id"},
		{"1 /*/ {{ */ {{run.id}}", "1 /*/ {{ */ $1", "run.id"},
		/* braces in quotes that are no references */
		{"'{{1,2},{3,4}}'", NULL, ""},
		{"'{{a,b},{c,d}}'", NULL, ""},
		{"'{{a}}'", NULL, ""},
		{"'{{\"a\",\"b\"}}' '{{\"a\"}}'", NULL, ""},
		{"'{\"a\":{\"b\":{}}}' '{{' '}}'", NULL, ""},
		{"'{{run,stop},{task,params}}'", NULL, ""},
		{"'{{' || 'run.id}}'", NULL, ""},
		{"'$1' \"$1\" $$ $1 $$ -- $1", NULL, ""},
		{"SELECT '\xc3\xa4\xff' {{run.id}}", "SELECT '\xc3\xa4\xff' $1", "run.id"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char	   *error;
		char	   *hint;
		SqlText    *sql = sqltext_compile(cases[i].text, &error, &hint);
		StrBuf		refs;

		if (!CHECK_CASE(sql != NULL, "%s: %s", cases[i].text, error ? error : ""))
		{
			mem_free(error);
			if (hint != NULL)
				mem_free(hint);
			continue;
		}
		CHECK_STR(sql->sql, cases[i].sql != NULL ? cases[i].sql : cases[i].text);
		strbuf_init(&refs);
		for (int r = 0; r < sql->nrefs; r++)
			strbuf_printf(&refs, "%s%s", r > 0 ? " " : "", sql->refs[r]->text);
		CHECK_STR(refs.data, cases[i].refs);
		strbuf_free(&refs);
		sqltext_free(sql);
	}
}

static void
test_rejected(void)
{
	static const struct
	{
		const char *text;
		const char *error;
		const char *hint;		/* NULL: none */
	}			cases[] = {
		{"SELECT '{{ params.day }}'", "reference inside quotes at byte 9", "Remove the quotes"},
		{"SELECT 'a {{params.day}} b'", "reference inside quotes at byte 11", "Remove the quotes"},
		{"E'\\'{{run.id}}'", "reference inside quotes at byte 5", "Remove the quotes"},
		{"E'a'\n'\\'{{run.id}}'", "reference inside quotes", "Remove the quotes"},
		{"'{{{run.id}}}'", "reference inside quotes at byte 3", "Remove the quotes"},
		{"'{{row_audit_id}}'", "reference inside quotes", "Remove the quotes"},
		{"'{{ parms.day }}'", "reference inside quotes", "Remove the quotes"},
		{"'{{ params. }}'", "reference inside quotes", "Remove the quotes"},
		{"'{{ params.day '", "reference inside quotes", "Remove the quotes"},
		{"\"{{ params.tab }}\"", "reference inside a quoted identifier at byte 2", "cannot name a table"},
		{"$$ {{ run.id }} $$", "reference inside a dollar-quoted string at byte 4", "outside of the quotes"},
		{"DO $x$ BEGIN {{run.id}} END $x$", "dollar-quoted", "outside"},
		{"SELECT $1", "parameter in SQL text at byte 8", "reference"},
		{"SELECT 1$1", "parameter in SQL text", "reference"},
		{"SELECT $1{{run.id}}", "parameter in SQL text", "reference"},
		{"t_{{params.x}}", "reference joined to other text at byte 3", "spaces"},
		{"1{{params.x}}", "joined", "spaces"},
		{"{{params.x}}0", "reference joined to other text at byte 1", "spaces"},
		{"{{params.x}}_t", "joined", "spaces"},
		{"{{params.x}}$$a$$", "joined", "spaces"},
		{"{{params.x}}E'a'", "joined", "spaces"},
		{"{{run.id}}{{run.id}}", "joined", "spaces"},
		{"{{\"a\"}}", "quoted literal in the place of a reference at byte 1", "SQL string"},
		{"{{ '", "expected a name at byte 4", NULL},
		{"{{ run.id", "unterminated reference starting at byte 1", NULL},
		{"SELECT {{}}", "expected a name", NULL},
		{"'abc", "unterminated quoted string starting at byte 1", NULL},
		{"x 'abc''", "unterminated quoted string starting at byte 3", NULL},
		{"E'abc\\'", "unterminated quoted string", NULL},
		{"E'abc\\", "unterminated quoted string", NULL},
		{"E'a'\n'", "unterminated quoted string", NULL},
		{"\"abc", "unterminated quoted identifier", NULL},
		{"$$abc$", "unterminated dollar-quoted string", NULL},
		{"$a$abc$A$", "unterminated dollar-quoted string", NULL},
		{"/* /* */", "unterminated comment starting at byte 1", NULL},
		{"/*/", "unterminated comment", NULL},
	};
	char	   *error;
	char	   *hint;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		SqlText    *sql = sqltext_compile(cases[i].text, &error, &hint);

		CHECK_CASE(sql == NULL, "accepted %s", cases[i].text);
		sqltext_free(sql);
		CHECK_ERROR(error, cases[i].error);
		if (cases[i].hint != NULL)
			CHECK_ERROR(hint, cases[i].hint);
		else
			CHECK_STR(hint, NULL);
	}
}

static void
test_limits(void)
{
	StrBuf		buf;
	char	   *error;
	char	   *hint;
	SqlText    *sql;

	/* as many references as allowed, each twice, and one more */
	strbuf_init(&buf);
	for (int i = 0; i < 2 * SQLTEXT_MAX_REFS; i++)
		strbuf_printf(&buf, "{{ params.p%d }},", i % SQLTEXT_MAX_REFS);
	sql = sqltext_compile(buf.data, &error, &hint);
	CHECK(sql != NULL && sql->nrefs == SQLTEXT_MAX_REFS);
	CHECK(sql != NULL && strstr(sql->sql, "$256,$1,$2,") != NULL);
	sqltext_free(sql);
	strbuf_addstr(&buf, "{{ params.more }}");
	CHECK(sqltext_compile(buf.data, &error, &hint) == NULL);
	CHECK_ERROR(error, "too many different references");

	/* a megabyte of what could be slow or deep, and one byte more */
	for (int kind = 0; kind < 6; kind++)
	{
		static const char *const units[] = {"/*", "'{{\"", "'{{a.", "{{", "$a", "E'\n"};

		strbuf_reset(&buf);
		while (buf.len < SQLTEXT_MAX_BYTES - 4)
			strbuf_addstr(&buf, units[kind]);
		sql = sqltext_compile(buf.data, &error, &hint);
		if (sql == NULL)
		{
			mem_free(error);
			if (hint != NULL)
				mem_free(hint);
		}
		CHECK_CASE(sql == NULL || kind >= 4, "megabyte of %s", units[kind]);
		sqltext_free(sql);
	}
	while (buf.len <= SQLTEXT_MAX_BYTES)
		strbuf_addchar(&buf, ' ');
	CHECK(sqltext_compile(buf.data, &error, &hint) == NULL);
	CHECK_ERROR(error, "longer than the limit");
	CHECK_STR(hint, NULL);
	strbuf_free(&buf);
}

static void
test_check(void)
{
	static const char *const params[] = {"day"};
	static const RefScope scope = {params, 1, NULL, 0, NULL, 0, false};
	char	   *error;
	char	   *hint;
	SqlText    *sql = sqltext_compile("{{params.day}}, {{row_audit_id}}", &error, &hint);

	CHECK_STR(sqltext_check(sql, &scope), NULL);
	sqltext_free(sql);
	sql = sqltext_compile("{{params.day}}, {{params.night}}", &error, &hint);
	CHECK_ERROR(sqltext_check(sql, &scope), "\"params.night\" names an undeclared parameter");
	sqltext_free(sql);
}

/*
 * Whatever is accepted: compiling the result again must find a parameter if
 * and only if there were references, so no "$n" ended up inside of quotes;
 * and every parameter has a path.
 */
static void
test_fuzz(void)
{
	static const char *const tokens[] = {
		"'", "''", "\"", "E'", "e'", "U&'", "$$", "$a$", "$", "\\", "\\'", "--", "/*", "*/",
		"\n", " ", "{{ run.id }}", "{{params.x}}", "{{", "}}", "SELECT", "1", "a", ",",
		"(", "{{1,2}}", "\xc3\xa4", "-", "*",
	};
	Random		rnd = {31337};
	StrBuf		buf;
	int			accepted = 0;

	strbuf_init(&buf);
	for (int round = 0; round < 50000; round++)
	{
		SqlText    *sql;
		SqlText    *again;
		char	   *error;
		char	   *hint;

		strbuf_reset(&buf);
		for (int i = random_below(&rnd, 14); i > 0; i--)
		{
			if (random_below(&rnd, 20) == 0)
				strbuf_addchar(&buf, (char) (1 + random_below(&rnd, 255)));
			else
				strbuf_addstr(&buf, tokens[random_below(&rnd, lengthof(tokens))]);
		}
		sql = sqltext_compile(buf.data, &error, &hint);
		if (sql == NULL)
		{
			CHECK(error != NULL);
			mem_free(error);
			if (hint != NULL)
				mem_free(hint);
			continue;
		}
		accepted++;
		again = sqltext_compile(sql->sql, &error, &hint);
		if (sql->nrefs == 0)
			CHECK_CASE(again != NULL && strcmp(sql->sql, buf.data) == 0, "%s", buf.data);
		else if (CHECK_CASE(again == NULL, "%s", buf.data))
			CHECK_CASE(strstr(error, "parameter in SQL text") != NULL, "%s: %s", buf.data, error);
		if (again == NULL)
		{
			mem_free(error);
			if (hint != NULL)
				mem_free(hint);
		}
		sqltext_free(again);
		sqltext_free(sql);
	}
	CHECK(accepted > 1000);
	strbuf_free(&buf);
}

void
test_sqltext(void)
{
	test_compile();
	test_rejected();
	test_limits();
	test_check();
	test_fuzz();
}
