/*-------------------------------------------------------------------------
 * test_jsonpath.c
 *	  What paths find, and what is no path
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "json.h"
#include "jsonpath.h"

static const char tree_text[] =
"{\"id\": 9007199254740993, \"state\": {\"now\": \"done\", \"a b\": 1, \"it's\": 2, \"q\\\"b\\\\\": 3, \"*\": 4, \"\": 5},"
" \"list\": [{\"n\": 1}, {\"n\": 2, \"more\": [7, 8]}, 3, null], \"none\": null, \"empty\": [], \"@odata.nextLink\": \"x\"}";

static const struct
{
	const char *path;
	const char *first;			/* as JSON; NULL no match */
	const char *copy;			/* if it differs */
}			found[] = {
	{"$.id", "9007199254740993"},
	{"$.state.now", "\"done\""},
	{"$['state']['a b']", "1"},
	{"$.state[\"it's\"]", "2"},
	{"$.state['it\\'s']", "2"},
	{"$.state[\"q\\\"b\\\\\"]", "3"},
	{"$.state['*']", "4"},
	{"$.state['']", "5"},
	{"$['@odata.nextLink']", "\"x\""},
	{"$.list[0].n", "1"},
	{"$.list[-1]", "null"},
	{"$.list[-2]", "3"},
	{"$.list[3]", "null"},
	{"$.list[4]", NULL},
	{"$.list[-5]", NULL},
	{"$.list[99999999]", NULL},
	{"$.list.0", NULL},
	{"$.list[*].n", "1", "[1,2]"},
	{"$.list[*].more[*]", "7", "[7,8]"},
	{"$.list[1].*", "2", "[2,[7,8]]"},
	{"$.list[*].missing", NULL},
	{"$.empty[*]", NULL},
	{"$.empty", "[]"},
	{"$.none", "null"},
	{"$.none.x", NULL},
	{"$.id.x", NULL},
	{"$.id[0]", NULL},
	{"$.State", NULL},
	{"$[0]", NULL},
};

static const struct
{
	const char *path;
	const char *error;
}			wrong[] = {
	{"", "begins with"},
	{"id", "begins with"},
	{"$id", "at byte 2"},
	{"$.", "at byte 3"},
	{"$..id", "at byte 3"},
	{"$.a.", "at byte 5"},
	{"$.a b", "at byte 4"},
	{"$[", "at byte 3"},
	{"$[]", "at byte 3"},
	{"$[0", "at byte 3"},
	{"$['a", "at byte 3"},
	{"$['a'", "at byte 3"},
	{"$['a' ]", "at byte 3"},
	{"$[-]", "at byte 3"},
	{"$[-0]", "at byte 3"},
	{"$[1:2]", "at byte 3"},
	{"$[123456789]", "at byte 3"},
	{"$[?(@.a)]", "at byte 3"},
	{"$[(1)]", "at byte 3"},
	{"$.a[*", "at byte 5"},
	{"$.*x", "at byte 4"},
	{"$.length()", "at byte 9"},
};

static void
test_bounds(void)
{
	char		path[2 * JSONPATH_MAX_LENGTH];
	char	   *error;

	memset(path, 'a', sizeof(path));
	path[0] = '$';
	path[1] = '.';
	path[JSONPATH_MAX_LENGTH] = '\0';
	CHECK(jsonpath_check(path, &error));
	path[JSONPATH_MAX_LENGTH] = 'a';
	path[JSONPATH_MAX_LENGTH + 1] = '\0';
	CHECK(!jsonpath_check(path, &error));
	CHECK_ERROR(error, "longer than 1000 bytes");

	for (int i = 0; i < 2 * (JSONPATH_MAX_STEPS + 1); i += 2)
		memcpy(path + 1 + i, ".a", 2);
	path[1 + 2 * JSONPATH_MAX_STEPS] = '\0';
	CHECK(jsonpath_check(path, &error));
	path[1 + 2 * JSONPATH_MAX_STEPS] = '.';
	path[1 + 2 * (JSONPATH_MAX_STEPS + 1)] = '\0';
	CHECK(!jsonpath_check(path, &error));
	CHECK_ERROR(error, "more than 50 steps");
}

void
test_jsonpath(void)
{
	char	   *error;
	cJSON	   *tree = json_parse(tree_text, strlen(tree_text), 10000, &error);
	cJSON	   *copy;

	CHECK(tree != NULL);
	for (size_t i = 0; i < lengthof(found); i++)
	{
		const cJSON *item = jsonpath_find(tree, found[i].path);
		const char *expected = found[i].copy ? found[i].copy : found[i].first;
		char	   *text = item ? json_text(item) : NULL;

		CHECK_CASE(jsonpath_check(found[i].path, &error), "%s: no path", found[i].path);
		CHECK_STR(text, found[i].first);
		if (text)
			mem_free(text);
		copy = jsonpath_copy(tree, found[i].path, 100);
		text = copy ? json_text(copy) : NULL;
		CHECK_STR(text, expected);
		CHECK_INT(jsonpath_is_many(found[i].path), strstr(found[i].path, "[*]") != NULL || strstr(found[i].path, ".*") != NULL);
		if (text)
			mem_free(text);
		cJSON_Delete(copy);
	}
	for (size_t i = 0; i < lengthof(wrong); i++)
	{
		CHECK_CASE(!jsonpath_check(wrong[i].path, &error), "\"%s\" passes for a path", wrong[i].path);
		CHECK_ERROR(error, wrong[i].error);
		CHECK(jsonpath_find(tree, wrong[i].path) == NULL);
		CHECK(jsonpath_copy(tree, wrong[i].path, 10) == NULL);
	}
	copy = jsonpath_copy(tree, "$.list[*]", 2);
	CHECK_INT(cJSON_GetArraySize(copy), 2);
	cJSON_Delete(copy);
	CHECK(jsonpath_find(tree, "$") == tree);
	CHECK(jsonpath_find(NULL, "$") == NULL);
	cJSON_Delete(tree);
	test_bounds();
}
