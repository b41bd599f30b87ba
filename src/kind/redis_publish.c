/*-------------------------------------------------------------------------
 * redis_publish.c
 *	  Kind redis_publish: the rows of a query become hashes in Redis, under a
 *	  version that readers see from one moment to the next
 *
 * Runs in sessions that define pipelines, and on rendered specs in the SQL
 * worker, which does the work.  Syntax and references of the query, and
 * durations, are checked by the catalog.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

#define MAX_PREFIX	200
#define MAX_COLUMN	63

static const KindMember members[] = {
	{"sql", KIND_TYPE_STRING, true},
	{"key", KIND_TYPE_STRING, true},
	{"prefix", KIND_TYPE_STRING, true},
	{"ttl", KIND_TYPE_STRING | KIND_TYPE_NUMBER, true},
	{"ttl_jitter", KIND_TYPE_NUMBER, false},
	{"keep_old", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
	{"verify", KIND_TYPE_STRING, false},
	{"min_rows", KIND_TYPE_INTEGER, false},
	{"batch_rows", KIND_TYPE_INTEGER, false},
	{"statement_timeout", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
};

static bool
check_prefix(const cJSON *spec, KindProblem *problem)
{
	const cJSON *prefix = kind_member(spec, "prefix");
	const char *text = json_string(prefix);

	if (kind_may_become(problem, prefix))
		return true;
	if (text == NULL || text[0] == '\0' || strlen(text) > MAX_PREFIX)
		return kind_problem(problem, "$.prefix", mem_printf("\"prefix\" must be a string of 1 to %d bytes", MAX_PREFIX),
							"All keys begin with it and a colon.");
	for (const char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p <= ' ' || *p == 0x7f)
			return kind_problem(problem, "$.prefix", "\"prefix\" must not contain white space or control characters", NULL);
	return true;
}

static bool
check_jitter(const cJSON *spec, KindProblem *problem)
{
	const cJSON *jitter = kind_member(spec, "ttl_jitter");
	double		value;

	if (jitter == NULL || cJSON_IsNull(jitter) || kind_may_become(problem, jitter) ||
		(json_double(jitter, &value) && value >= 0 && value <= 1))
		return true;
	return kind_problem(problem, "$.ttl_jitter", "\"ttl_jitter\" must be a number from 0 to 1",
						"0.1 lets a key live up to a tenth longer than \"ttl\", at random.");
}

static void
redis_publish_validate(const cJSON *spec, KindProblem *problem)
{
	static const char *const verifications[] = {"count", "sample", "full", NULL};
	const cJSON *key = kind_member(spec, "key");

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return;
	if (kind_string(spec, "sql") == NULL)
		(void) kind_problem(problem, "$.sql", "\"sql\" is empty", NULL);
	else if (kind_may_become(problem, key) || kind_string(spec, "key") == NULL || strlen(key->valuestring) > MAX_COLUMN)
		(void) kind_problem(problem, "$.key", "\"key\" must be the name of a column of the query",
							"Its value names the entity: the hash of a row is PREFIX:VERSION:VALUE.");
	else if (check_prefix(spec, problem) && check_jitter(spec, problem) &&
			 kind_check_choice(spec, "verify", verifications,
							   "count: every key must be there; sample: and about a thousand hashes are compared; full: all are.", problem) &&
			 kind_check_integer(spec, "$", "min_rows", 0, INT64_C(1000000000000), problem))
		(void) kind_check_integer(spec, "$", "batch_rows", 1, 10000, problem);
}

const TaskKind kind_redis_publish = {
	.name = "redis_publish",
	.connection_kind = "redis",
	.uses_worker = true,
	.validate = redis_publish_validate,
};
