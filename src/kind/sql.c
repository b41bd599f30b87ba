/*-------------------------------------------------------------------------
 * sql.c
 *	  Kind sql: a statement that a SQL worker runs as the pipeline's owner
 *
 * Runs in sessions that define pipelines; running the statement is the
 * engine's.  Syntax and references of the text are checked by the catalog.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

static const KindMember members[] = {
	{"sql", KIND_TYPE_STRING, true},
	{"statement_timeout", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
};

/* Looks like an interval?  Whether it is one, interval_in says at run time. */
static bool
is_duration_text(const char *text)
{
	size_t		len = strlen(text);

	return len > 0 && len <= 100 && strpbrk(text, "0123456789") != NULL &&
		strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .:+") == len;
}

static void
sql_validate(const cJSON *spec, KindProblem *problem)
{
	const char *hint = "Write an interval such as \"15 minutes\", or a number of seconds.";
	const cJSON *timeout;
	double		seconds;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return;
	if (kind_string(spec, "sql") == NULL)
	{
		(void) kind_problem(problem, "$.sql", "\"sql\" is empty", NULL);
		return;
	}
	timeout = kind_member(spec, "statement_timeout");
	if (timeout == NULL || kind_has_reference(timeout))
		return;
	if (cJSON_IsString(timeout) ? !is_duration_text(timeout->valuestring) :
		json_double(timeout, &seconds) && !(seconds > 0 && seconds <= 24 * 86400.0))
		(void) kind_problem(problem, "$.statement_timeout",
							"\"statement_timeout\" must be a duration above zero", hint);
}

const TaskKind kind_sql = {
	.name = "sql",
	.validate = sql_validate,
};
