/*-------------------------------------------------------------------------
 * test_retryon.c
 *	  Which failures are worth another attempt
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "json.h"
#include "retry.h"
#include "retryon.h"

static cJSON *
parse(const char *text)
{
	char	   *error = NULL;
	cJSON	   *value = json_parse(text, strlen(text), 10000, &error);

	CHECK_CASE(value != NULL, "%s", text);
	return value;
}

static void
test_check(void)
{
	static const struct
	{
		const char *on;
		const char *path;		/* NULL: it is good */
	}			cases[] = {
		{"{\"sqlstate\": [\"40001\", \"08\"]}", NULL},
		{"{\"http\": [429, \"429\", \"5xx\"]}", NULL},
		{"{\"code\": [\"InvalidTemplate\"], \"failure\": \"any\"}", NULL},
		{"{\"failure\": \"system\"}", NULL},
		{"{}", ""},
		{"[]", ""},
		{"true", ""},
		{"{\"sqlstates\": [\"08\"]}", ""},
		{"{\"sqlstate\": \"08\"}", ".sqlstate"},
		{"{\"sqlstate\": []}", ".sqlstate"},
		{"{\"sqlstate\": [\"08\", \"400\"]}", ".sqlstate[1]"},
		{"{\"sqlstate\": [\"4000a\"]}", ".sqlstate[0]"},
		{"{\"sqlstate\": [40001]}", ".sqlstate[0]"},
		{"{\"http\": [99]}", ".http[0]"},
		{"{\"http\": [600]}", ".http[0]"},
		{"{\"http\": [\"6xx\"]}", ".http[0]"},
		{"{\"http\": [\"5x\"]}", ".http[0]"},
		{"{\"http\": [\"xxx\"]}", ".http[0]"},
		{"{\"http\": [429.5]}", ".http[0]"},
		{"{\"http\": {}}", ".http"},
		{"{\"code\": [\"\"]}", ".code[0]"},
		{"{\"code\": [7]}", ".code[0]"},
		{"{\"failure\": \"user\"}", ".failure"},
		{"{\"failure\": true}", ".failure"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *on = parse(cases[i].on);
		const char *path = NULL;
		const char *message = NULL;
		const char *hint = NULL;
		bool		good = retry_on_check(on, &path, &message, &hint);

		CHECK_CASE(good == (cases[i].path == NULL), "%s", cases[i].on);
		if (!good)
		{
			CHECK_STR(path, cases[i].path != NULL ? cases[i].path : "(good)");
			CHECK(message != NULL);
			if (strncmp(path, ".", 1) == 0 && strcmp(path, ".failure") != 0)
				mem_free((char *) path);
			if (message != NULL && strstr(message, "must be an array") != NULL)
				mem_free((char *) message);
		}
		cJSON_Delete(on);
	}
}

static void
test_allows(void)
{
	const char *on = "{\"sqlstate\": [\"40001\", \"08\"], \"http\": [409, \"5xx\"], \"code\": [\"Busy\"]}";
	const char *any = "{\"failure\": \"any\"}";
	const char *system = "{\"failure\": \"system\", \"sqlstate\": [\"22012\"]}";
	const struct
	{
		const char *on;
		FailureFacts facts;
		bool		expected;
	}			cases[] = {
		/* without a policy the kind decides */
		{NULL, {.is_retryable = true}, true},
		{NULL, {.is_retryable = false, .http_status = 503}, false},
		{NULL, {.is_retryable = true, .may_go_on = true}, false},
		/* what is listed, whatever the kind says */
		{on, {.sqlstate = "40001"}, true},
		{on, {.sqlstate = "40002"}, false},
		{on, {.sqlstate = "08006", .is_user_error = true}, true},
		{on, {.sqlstate = "22012", .is_retryable = true}, false},
		{on, {.sqlstate = "0800"}, false},
		{on, {.http_status = 409}, true},
		{on, {.http_status = 404, .is_retryable = true}, false},
		{on, {.http_status = 500}, true},
		{on, {.http_status = 599}, true},
		{on, {.http_status = 499}, false},
		{on, {.code = "Busy"}, true},
		{on, {.code = "busy"}, false},
		{on, {.is_retryable = true}, false},
		/* all, or all of a sort */
		{any, {.is_user_error = true}, true},
		{any, {.is_user_error = false}, true},
		{system, {.is_user_error = false}, true},
		{system, {.is_user_error = true, .is_retryable = true}, false},
		{system, {.is_user_error = true, .sqlstate = "22012"}, true},
		/* but never what may still be under way */
		{any, {.may_go_on = true}, false},
		{on, {.sqlstate = "40001", .may_go_on = true}, false},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		cJSON	   *policy = cases[i].on != NULL ? parse(cases[i].on) : NULL;

		CHECK_CASE(retry_on_allows(policy, &cases[i].facts) == cases[i].expected, "retry on, case %zu", i);
		cJSON_Delete(policy);
	}
}

static void
test_user_error(void)
{
	static const char *const system_errors[] = {
		"08006", "40001", "40P01", "53300", "57014", "57P01", "58030", "55P03", "XX000", "HV00N",
	};
	static const char *const user_errors[] = {
		"22012", "23505", "23503", "42P01", "42501", "P0001", "0A000", "40002", "54000", "28000", "25006",
	};

	for (size_t i = 0; i < lengthof(system_errors); i++)
		CHECK_CASE(!retry_sqlstate_is_user_error(system_errors[i]), "%s", system_errors[i]);
	for (size_t i = 0; i < lengthof(user_errors); i++)
		CHECK_CASE(retry_sqlstate_is_user_error(user_errors[i]), "%s", user_errors[i]);
	CHECK(!retry_sqlstate_is_user_error(NULL));
}

static void
test_backoff(void)
{
	static const struct
	{
		RetryPolicy policy;
		int			attempt;
		int64		expected;
	}			cases[] = {
		{{5, 10000, 300000, 2, 0, RETRY_FIXED}, 1, 10000},
		{{5, 10000, 300000, 2, 0, RETRY_FIXED}, INT32_MAX, 10000},
		{{5, 10000, 5000, 2, 0, RETRY_FIXED}, 2, 5000},
		{{5, 10000, 300000, 2, 0, RETRY_LINEAR}, 1, 10000},
		{{5, 10000, 300000, 2, 0, RETRY_LINEAR}, 3, 30000},
		{{5, 10000, 300000, 2, 0, RETRY_LINEAR}, 31, 300000},
		{{5, 10000, 300000, 2, 0, RETRY_LINEAR}, INT32_MAX, 300000},
		{{5, 10000, 300000, 2, 0, RETRY_LINEAR}, -3, 10000},
		{{5, 10000, 300000, 3, 0, RETRY_EXPONENTIAL}, 3, 90000},
		{{5, 10000, 300000, 2, 0, (RetryBackoff) 77}, 2, 20000},
	};
	RetryBackoff backoff = RETRY_LINEAR;

	for (size_t i = 0; i < lengthof(cases); i++)
		CHECK_CASE(retry_delay_ms(&cases[i].policy, cases[i].attempt, 0.5, 0) == cases[i].expected, "backoff case %zu", i);
	CHECK(!retry_backoff_parse("quadratic", &backoff) && !retry_backoff_parse(NULL, &backoff) && backoff == RETRY_LINEAR);
	CHECK(retry_backoff_parse("fixed", &backoff) && backoff == RETRY_FIXED);
	CHECK_STR(retry_backoff_name(RETRY_EXPONENTIAL), "exponential");
	CHECK_STR(retry_backoff_name((RetryBackoff) 77), "unknown");
}

static void
test_inherit(void)
{
	RetryPolicy base = {7, 1000, 60000, 3, 0.5, RETRY_LINEAR};
	RetryPolicy policy = retry_policy_default();

	retry_policy_inherit(&policy, &base);
	CHECK_INT(policy.max_attempts, 7);
	CHECK_INT(policy.max_delay_ms, 60000);
	CHECK_INT(policy.backoff, RETRY_LINEAR);

	policy = retry_policy_default();
	policy.max_attempts = 2;
	policy.initial_delay_ms = 90000;
	policy.backoff = RETRY_FIXED;
	policy.given = RETRY_GIVEN_MAX_ATTEMPTS | RETRY_GIVEN_INITIAL_DELAY | RETRY_GIVEN_BACKOFF;
	retry_policy_inherit(&policy, &base);
	CHECK_INT(policy.max_attempts, 2);
	CHECK_INT(policy.initial_delay_ms, 90000);
	CHECK_INT(policy.max_delay_ms, 90000);
	CHECK_INT(policy.backoff, RETRY_FIXED);
	CHECK(policy.multiplier == 3 && policy.jitter == 0.5);
	CHECK_STR(retry_policy_check(&policy), NULL);
}

void
test_retryon(void)
{
	test_check();
	test_allows();
	test_user_error();
	test_backoff();
	test_inherit();
}
