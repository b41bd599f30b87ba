/*-------------------------------------------------------------------------
 * retryon.c
 *	  Which failures are worth another attempt
 *
 * Runs where pipelines are defined (the check) and where outcomes are
 * written, in the conductor and in SQL workers.  Pure functions.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "json.h"
#include "retryon.h"

#define MAX_LIST	100
#define MAX_CODE	200

static bool
problem(const char **path, const char **message, const char **hint,
		const char *where, const char *what, const char *advice)
{
	*path = where;
	*message = what;
	*hint = advice;
	return false;
}

/* "40001" or a class, "08" */
static bool
is_sqlstate(const cJSON *item)
{
	const char *text = json_string(item);

	return text != NULL && (strlen(text) == 2 || strlen(text) == 5) &&
		strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(text);
}

/* 429, "429" or "5xx" */
static bool
is_http_status(const cJSON *item)
{
	const char *text = json_string(item);
	int64		status;

	if (text != NULL && strlen(text) == 3 && strcmp(text + 1, "xx") == 0)
		return text[0] >= '1' && text[0] <= '5';
	return json_int64(item, &status) && status >= 100 && status <= 599;
}

static bool
is_code(const cJSON *item)
{
	const char *text = json_string(item);

	return text != NULL && *text != '\0' && strlen(text) <= MAX_CODE;
}

static const struct
{
	const char *name;
	bool		(*is_valid) (const cJSON *item);
	const char *message;
}			lists[] = {
	{"sqlstate", is_sqlstate, "not a SQLSTATE of five characters, nor a class of two"},
	{"http", is_http_status, "not an HTTP status such as 429, nor a class such as \"5xx\""},
	{"code", is_code, "not an error code of 1 to 200 bytes"},
};

static bool
check_list(const cJSON *list, size_t which, const char **path, const char **message, const char **hint)
{
	const cJSON *item;
	int			i = 0;

	if (!cJSON_IsArray(list) || list->child == NULL || cJSON_GetArraySize(list) > MAX_LIST)
		return problem(path, message, hint, mem_printf(".%s", lists[which].name),
					   mem_printf("\"%s\" must be an array of 1 to %d values", lists[which].name, MAX_LIST), NULL);
	cJSON_ArrayForEach(item, list)
	{
		if (!lists[which].is_valid(item))
			return problem(path, message, hint, mem_printf(".%s[%d]", lists[which].name, i), lists[which].message, NULL);
		i++;
	}
	return true;
}

bool
retry_on_check(const cJSON *on, const char **path, const char **message, const char **hint)
{
	const cJSON *item;

	if (!cJSON_IsObject(on) || on->child == NULL)
		return problem(path, message, hint, "", "\"on\" must be an object that names failures",
					   "Members are sqlstate, http, code and failure. Leave \"on\" out for the default.");
	cJSON_ArrayForEach(item, on)
	{
		size_t		which = 0;

		if (strcmp(item->string, "failure") == 0)
		{
			const char *failure = json_string(item);

			if (failure == NULL || (strcmp(failure, "system") != 0 && strcmp(failure, "any") != 0))
				return problem(path, message, hint, ".failure", "\"failure\" must be \"system\" or \"any\"", NULL);
			continue;
		}
		while (which < lengthof(lists) && strcmp(lists[which].name, item->string) != 0)
			which++;
		if (which == lengthof(lists))
			return problem(path, message, hint, "", "\"on\" has an unknown member",
						   "Members are sqlstate, http, code and failure.");
		if (!check_list(item, which, path, message, hint))
			return false;
	}
	return true;
}

static bool
sqlstate_matches(const cJSON *item, const char *sqlstate)
{
	const char *wanted = json_string(item);

	return wanted != NULL && sqlstate != NULL && strlen(sqlstate) == 5 &&
		strncmp(wanted, sqlstate, strlen(wanted)) == 0;
}

static bool
http_matches(const cJSON *item, int http_status)
{
	const char *wanted = json_string(item);
	int64		status;

	if (http_status <= 0)
		return false;
	if (wanted != NULL && strcmp(wanted + strcspn(wanted, "x"), "xx") == 0)
		return http_status / 100 == wanted[0] - '0';
	return json_int64(item, &status) && status == http_status;
}

bool
retry_on_allows(const cJSON *on, const FailureFacts *facts)
{
	const char *failure;
	const cJSON *item;

	if (facts->may_go_on)
		return false;
	if (on == NULL)
		return facts->is_retryable;

	failure = json_string(cJSON_GetObjectItemCaseSensitive(on, "failure"));
	if (failure != NULL && (strcmp(failure, "any") == 0 || !facts->is_user_error))
		return true;
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(on, "sqlstate"))
	{
		if (sqlstate_matches(item, facts->sqlstate))
			return true;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(on, "http"))
	{
		if (http_matches(item, facts->http_status))
			return true;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(on, "code"))
	{
		const char *code = json_string(item);

		if (code != NULL && facts->code != NULL && strcmp(code, facts->code) == 0)
			return true;
	}
	return false;
}

bool
retry_sqlstate_is_user_error(const char *sqlstate)
{
	static const char *const system_errors[] = {
		"08", "40", "53", "57", "58", "XX",
		"55P03",				/* lock not available */
		"55006",				/* object in use */
		"25P03", "25P04",		/* timeouts of transactions */
		"HV00N",				/* a foreign server that cannot be reached */
		"HV00M",				/* or does not answer */
	};

	if (sqlstate == NULL)
		return false;
	if (strcmp(sqlstate, "40002") == 0)
		return true;			/* a constraint, found at commit */
	for (size_t i = 0; i < lengthof(system_errors); i++)
	{
		if (strncmp(system_errors[i], sqlstate, strlen(system_errors[i])) == 0)
			return false;
	}
	return true;
}
