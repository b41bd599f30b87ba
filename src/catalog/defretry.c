/*-------------------------------------------------------------------------
 * defretry.c
 *	  The retry policy of a task, a pipeline or a connection, read strictly.
 *
 * Runs in the session that defines it.  Reads no tables.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "definition_int.h"
#include "retryon.h"

static const char *const retry_keys[] = {
	"max_attempts", "initial_delay", "max_delay", "multiplier", "jitter", "backoff", "on"
};

static const struct
{
	const char *key;
	unsigned	bit;
}			given[] = {
	{"max_attempts", RETRY_GIVEN_MAX_ATTEMPTS},
	{"initial_delay", RETRY_GIVEN_INITIAL_DELAY},
	{"max_delay", RETRY_GIVEN_MAX_DELAY},
	{"multiplier", RETRY_GIVEN_MULTIPLIER},
	{"jitter", RETRY_GIVEN_JITTER},
	{"backoff", RETRY_GIVEN_BACKOFF},
	{"on", RETRY_GIVEN_ON},
};

void
def_check_retry(const RetryPolicy *retry, const char *path)
{
	const char *problem = retry_policy_check(retry);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid retry policy"),
				 errdetail("JSON path: %s", path),
				 errhint("%s", problem)));
}

static void
read_on(const cJSON *item, const char *path, RetryPolicy *retry)
{
	const cJSON *on = def_member(item, "on");
	const char *where;
	const char *message;
	const char *hint;

	if (on == NULL)
		return;
	if (!retry_on_check(on, &where, &message, &hint))
		definition_error(psprintf("%s.on%s", path, where), message, hint);
	retry->on = on;
}

void
def_read_retry(const cJSON *object, const char *path, RetryPolicy *retry)
{
	const cJSON *item = def_member(object, "retry");
	const char *backoff;

	if (item == NULL)
		return;
	path = definition_member(path, "retry");
	if (!cJSON_IsObject(item))
		definition_error(path, "\"retry\" must be an object", NULL);
	definition_check_keys(item, path, retry_keys, lengthof(retry_keys));
	for (int i = 0; i < lengthof(given); i++)
		if (def_member(item, given[i].key) != NULL)
			retry->given |= given[i].bit;
	retry->max_attempts = def_integer(item, path, "max_attempts", 1, 1000, retry->max_attempts);
	retry->initial_delay_ms = def_duration(item, path, "initial_delay", 0, retry->initial_delay_ms);
	/* A first delay above the default maximum says what the maximum is. */
	retry->max_delay_ms = def_duration(item, path, "max_delay", 0,
									   Max(retry->max_delay_ms, retry->initial_delay_ms));
	retry->multiplier = def_number(item, path, "multiplier", retry->multiplier);
	retry->jitter = def_number(item, path, "jitter", retry->jitter);
	backoff = def_string(item, path, "backoff", false);
	if (backoff != NULL && !retry_backoff_parse(backoff, &retry->backoff))
		definition_error(definition_member(path, "backoff"), "unknown value of \"backoff\"",
						 "Known values are exponential, linear and fixed.");
	read_on(item, path, retry);
	def_check_retry(retry, path);
}
