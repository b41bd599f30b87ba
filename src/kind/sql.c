/*-------------------------------------------------------------------------
 * sql.c
 *	  Kind sql: a statement that a SQL worker runs as the pipeline's owner
 *
 * Runs in sessions that define pipelines; running the statement is the
 * engine's.  Syntax and references of the text, roles and settings are
 * checked by the catalog.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "kind_int.h"

#define MAX_SETTINGS	50
#define MAX_NAME		63

static const KindMember members[] = {
	{"sql", KIND_TYPE_STRING, true},
	{"statement_timeout", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
	{"set", KIND_TYPE_OBJECT, false},
	{"role", KIND_TYPE_STRING, false},
	{"transaction", KIND_TYPE_STRING, false},
	{"max_rows", KIND_TYPE_INTEGER, false},
};

/* What a task must not set, and what it does instead. */
static const struct
{
	const char *name;
	const char *hint;
}			refused_settings[] = {
	{"role", "Use \"role\" of the spec."},
	{"session_authorization", "Use \"role\" of the spec."},
	{"statement_timeout", "Use \"statement_timeout\" of the spec."},
	{"standard_conforming_strings", "The SQL of a task is read with this setting on."},
	{"transaction_isolation", "The transaction has begun before the task's statements run."},
	{"transaction_read_only", "The task's outcome is written in the same transaction."},
	{"transaction_deferrable", "The transaction has begun before the task's statements run."},
};

/* Looks like an interval?  Whether it is one, interval_in says. */
static bool
is_duration_text(const char *text)
{
	size_t		len = strlen(text);

	return len > 0 && len <= 100 && strpbrk(text, "0123456789") != NULL &&
		strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .:+") == len;
}

static bool
check_timeout(const cJSON *timeout, KindProblem *problem)
{
	double		seconds;

	if (timeout == NULL || kind_may_become(problem, timeout))
		return true;
	if (cJSON_IsString(timeout) ? !is_duration_text(timeout->valuestring) :
		json_double(timeout, &seconds) && !(seconds > 0 && seconds <= 24 * 86400.0))
		return kind_problem(problem, "$.statement_timeout",
							"\"statement_timeout\" must be a duration above zero",
							"Write an interval such as \"15 minutes\", or a number of seconds.");
	return true;
}

static bool
check_setting(const cJSON *item, KindProblem *problem)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	static const char others[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789$.";
	const char *name = item->string;
	char	   *path = mem_printf("$.set.%s", kind_clean_text(name, strlen(name), MAX_NAME));

	if (*name == '\0' || strlen(name) > 2 * MAX_NAME || strchr(letters, *name) == NULL ||
		strspn(name, others) != strlen(name))
		return kind_problem(problem, path, "not the name of a setting", NULL);
	for (size_t i = 0; i < lengthof(refused_settings); i++)
	{
		if (strcasecmp(refused_settings[i].name, name) == 0)
			return kind_problem(problem, path, mem_printf("\"%s\" cannot be set by a task", name),
								refused_settings[i].hint);
	}
	if (cJSON_IsObject(item) || cJSON_IsArray(item) || cJSON_IsNull(item))
		return kind_problem(problem, path, "the value of a setting must be a string, a number or true or false", NULL);
	return true;
}

static bool
check_settings(const cJSON *set, KindProblem *problem)
{
	const cJSON *item;

	if (set != NULL && !cJSON_IsObject(set))
		return kind_problem(problem, "$.set", "\"set\" must be an object of settings",
							"References may stand in the values.");
	if (cJSON_GetArraySize(set) > MAX_SETTINGS)
		return kind_problem(problem, "$.set", mem_printf("more than %d settings", MAX_SETTINGS), NULL);
	cJSON_ArrayForEach(item, set)
	{
		if (!check_setting(item, problem))
			return false;
	}
	return true;
}

static bool
check_role(const cJSON *spec, KindProblem *problem)
{
	const cJSON *role = kind_member(spec, "role");

	if (role == NULL)
		return true;
	if (kind_may_become(problem, role) || kind_string(spec, "role") == NULL || strlen(role->valuestring) > MAX_NAME)
		return kind_problem(problem, "$.role", "\"role\" must be the name of a role",
							"It is checked when the pipeline is defined, so it cannot be a reference.");
	return true;
}

static bool
check_transaction(const cJSON *spec, KindProblem *problem)
{
	const cJSON *item = kind_member(spec, "transaction");
	const char *transaction = json_string(item);

	if (item == NULL || cJSON_IsNull(item))
		return true;
	if (transaction == NULL || (strcmp(transaction, "outcome") != 0 && strcmp(transaction, "own") != 0))
		return kind_problem(problem, "$.transaction", "\"transaction\" must be \"outcome\" or \"own\"",
							"outcome: the statements and the outcome are one transaction; own: a procedure commits by itself.");
	if (strcmp(transaction, "own") == 0 && kind_member(spec, "role") != NULL)
		return kind_problem(problem, "$.role", "a task whose \"transaction\" is \"own\" runs as the pipeline's owner",
							"Remove \"role\", or \"transaction\".");
	return true;
}

static void
sql_validate(const cJSON *spec, KindProblem *problem)
{
	const cJSON *max_rows;
	int64		n;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return;
	if (kind_string(spec, "sql") == NULL)
	{
		(void) kind_problem(problem, "$.sql", "\"sql\" is empty", NULL);
		return;
	}
	if (!check_timeout(kind_member(spec, "statement_timeout"), problem) ||
		!check_settings(kind_member(spec, "set"), problem) ||
		!check_role(spec, problem) || !check_transaction(spec, problem))
		return;
	max_rows = kind_member(spec, "max_rows");
	if (max_rows != NULL && (cJSON_IsString(max_rows) || !json_int64(max_rows, &n) || n < 0 || n > KIND_SQL_MAX_ROWS))
		(void) kind_problem(problem, "$.max_rows",
							mem_printf("\"max_rows\" must be an integer from 0 to %d", KIND_SQL_MAX_ROWS), NULL);
}

const TaskKind kind_sql = {
	.name = "sql",
	.uses_worker = true,
	.validate = sql_validate,
};
