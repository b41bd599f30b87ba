/*-------------------------------------------------------------------------
 * keyvault_spec.c
 *	  Specs of kind keyvault
 *
 * Runs in sessions that define pipelines, and in the conductor on rendered
 * specs.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "keyvault_int.h"

#define MAX_NAMES		100
#define MAX_TAGS		14			/* of 15, one is ours */
#define MAX_DAYS		36500

static const KindMember check_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"secrets", KIND_TYPE_ARRAY, true},
	{"expires_within_days", KIND_TYPE_INTEGER, false},
	{"must_expire", KIND_TYPE_BOOLEAN, false},
	{"report_only", KIND_TYPE_BOOLEAN, false},
};

static const KindMember list_members[] = {
	{"operation", KIND_TYPE_STRING, true},
};

static const KindMember get_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"name", KIND_TYPE_STRING, true},
};

static const KindMember set_members[] = {
	{"operation", KIND_TYPE_STRING, true},
	{"name", KIND_TYPE_STRING, true},
	{"from_secret", KIND_TYPE_STRING, true},
	{"content_type", KIND_TYPE_STRING, false},
	{"expires_in_days", KIND_TYPE_INTEGER, false},
	{"tags", KIND_TYPE_OBJECT, false},
};

bool
keyvault_is(const cJSON *spec, const char *name)
{
	const char *operation = kind_string(spec, "operation");

	return operation != NULL && strcmp(operation, name) == 0;
}

static bool
check_name(const char *name, const char *path, KindProblem *problem)
{
	size_t		len = name ? strlen(name) : 0;

	if (kind_text_may_become(problem, name))
		return true;
	if (len >= 1 && len <= 127 &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == len)
		return true;
	return kind_problem(problem, path, "not the name of a secret in a key vault",
						"It has 1 to 127 letters, digits and hyphens.");
}

static bool
check_names(const cJSON *spec, KindProblem *problem)
{
	const cJSON *names = kind_member(spec, "secrets");
	int			n = cJSON_GetArraySize(names);

	if (kind_may_become(problem, names))
		return true;
	if (n < 1 || n > MAX_NAMES)
		return kind_problem(problem, "$.secrets", "\"secrets\" must have 1 to 100 names", NULL);
	for (int i = 0; i < n; i++)
	{
		if (!check_name(json_string(cJSON_GetArrayItem(names, i)), mem_printf("$.secrets[%d]", i), problem))
			return false;
	}
	return true;
}

static bool
check_set(const cJSON *spec, KindProblem *problem)
{
	const cJSON *tags = kind_member(spec, "tags");
	const cJSON *tag;

	if (kind_may_become(problem, kind_member(spec, "from_secret")))
		return kind_problem(problem, "$.from_secret", "\"from_secret\" must be the name of a secret, without references", NULL);
	if (cJSON_IsObject(tags) && cJSON_GetArraySize(tags) > MAX_TAGS)
		return kind_problem(problem, "$.tags", "more than 14 tags", NULL);
	cJSON_ArrayForEach(tag, tags)
	{
		if (!cJSON_IsString(tag) || strcmp(tag->string, KEYVAULT_TOKEN_TAG) == 0 || strlen(tag->valuestring) > 256)
			return kind_problem(problem, "$.tags", "tags must be strings of at most 256 bytes, and none may be called \"" KEYVAULT_TOKEN_TAG "\"", NULL);
	}
	return check_name(kind_string(spec, "name"), "$.name", problem) && kind_check_integer(spec, "$", "expires_in_days", 0, MAX_DAYS, problem);
}

bool
keyvault_check_spec(const cJSON *spec, KindProblem *problem)
{
	if (keyvault_is(spec, "check"))
		return kind_check_members(spec, check_members, lengthof(check_members), problem) &&
			kind_check_integer(spec, "$", "expires_within_days", 0, MAX_DAYS, problem) && check_names(spec, problem);
	if (keyvault_is(spec, "list"))
		return kind_check_members(spec, list_members, lengthof(list_members), problem);
	if (keyvault_is(spec, "get"))
		return kind_check_members(spec, get_members, lengthof(get_members), problem) &&
			check_name(kind_string(spec, "name"), "$.name", problem);
	if (keyvault_is(spec, "set"))
		return kind_check_members(spec, set_members, lengthof(set_members), problem) && check_set(spec, problem);
	return kind_problem(problem, "$.operation", kind_string(spec, "operation") ? "unknown operation" : "\"operation\" is missing",
						"Operations are check, get, list and set.");
}
