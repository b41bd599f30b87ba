/*-------------------------------------------------------------------------
 * test_selector.c
 *	  Selections of a small DAG, and what is no selection
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "selector.h"

/* a -> b -> d, a -> c -> d, e on its own */
static const char *const names[] = {"a", "b", "c", "d", "e"};
static const DagEdge edges[] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}};

static const struct
{
	const char *selectors[3];
	int			n;
	const char *expected;		/* names, or the start of an error behind '!' */
}			cases[] = {
	{{"a"}, 1, "a"},
	{{"+d"}, 1, "abcd"},
	{{"a+"}, 1, "abcd"},
	{{"b+"}, 1, "bd"},
	{{"+b"}, 1, "ab"},
	{{"+b+"}, 1, "abd"},
	{{"+a"}, 1, "a"},
	{{"b", "e"}, 2, "be"},
	{{"+b", "c+"}, 2, "abcd"},
	{{" +b ", "e", "e"}, 3, "abe"},
	{{"f"}, 1, "!there is no task \"f\""},
	{{"a", "+"}, 2, "!\"+\" is no selector"},
	{{""}, 1, "!\"\" is no selector"},
	{{"++b"}, 1, "!\"++b\" is no selector"},
	{{"b++"}, 1, "!\"b++\" is no selector"},
	{{"a+b"}, 1, "!\"a+b\" is no selector"},
	{{"A"}, 1, "!there is no task \"A\""},
	{{NULL}, 0, "!a selection names 1 to"},
};

void
test_selector(void)
{
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		bool		selected[lengthof(names)];
		char		text[lengthof(names) + 1] = "";
		char	   *error;

		if (selector_resolve(lengthof(names), names, edges, lengthof(edges),
							 cases[i].selectors, cases[i].n, selected, &error))
		{
			for (size_t t = 0; t < lengthof(names); t++)
				if (selected[t])
					strcat(text, names[t]);
			CHECK_STR(text, cases[i].expected);
		}
		else
		{
			CHECK(cases[i].expected[0] == '!');
			CHECK_ERROR(error, cases[i].expected + 1);
		}
	}
}
