/*-------------------------------------------------------------------------
 * wait.c
 *	  Kind wait: nothing is done until a time, a signal, an approval or a
 *	  condition in SQL
 *
 * Runs in sessions that define pipelines, before references are rendered.
 * The conductor keeps such attempts itself, see engine/waiting.c; what it
 * must remember is in kind_state, by the names below.
 *
 *	{"wait": "for" | "until", "due_ms": moment}
 *	{"wait": "signal", "signal": name}			then "received"
 *	{"wait": "approval", "approval": question}	then "decision"
 *	{"wait": "sql", "every_ms": pause, "looks": how many, "next_ms": moment}
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

#define MAX_SIGNAL		260		/* bytes of a name */
#define MAX_QUESTION	4000

static const KindMember members[] = {
	{"for", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
	{"until", KIND_TYPE_STRING, false},
	{"signal", KIND_TYPE_STRING, false},
	{"approval", KIND_TYPE_STRING, false},
	{"sql", KIND_TYPE_STRING, false},
	{"every", KIND_TYPE_STRING | KIND_TYPE_NUMBER, false},
};

/* Exactly one of these says what is waited for; NULL if not. */
const char *
kind_wait_what(const cJSON *spec)
{
	static const char *const whats[] = {"for", "until", "signal", "approval", "sql"};
	const char *found = NULL;

	for (size_t i = 0; i < lengthof(whats); i++)
	{
		const cJSON *item = kind_member(spec, whats[i]);

		if (item == NULL || cJSON_IsNull(item))
			continue;
		if (found != NULL)
			return NULL;
		found = whats[i];
	}
	return found;
}

static void
wait_validate(const cJSON *spec, KindProblem *problem)
{
	const char *what;
	const char *text;
	size_t		limit;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return;
	what = kind_wait_what(spec);
	if (what == NULL)
	{
		(void) kind_problem(problem, "$", "a wait has exactly one of \"for\", \"until\", \"signal\", \"approval\" and \"sql\"",
							"Write {\"for\": \"10 minutes\"}, {\"signal\": \"files are there\"} or the like.");
		return;
	}
	if (kind_member(spec, "every") != NULL && strcmp(what, "sql") != 0)
	{
		(void) kind_problem(problem, "$.every", "\"every\" goes with \"sql\" only", "Remove \"every\".");
		return;
	}
	if (kind_may_become(problem, kind_member(spec, "every")))
	{
		(void) kind_problem(problem, "$.every", "\"every\" must not hold references", NULL);
		return;
	}
	if (strcmp(what, "for") == 0 || strcmp(what, "sql") == 0)
		return;
	text = json_string(kind_member(spec, what));
	limit = strcmp(what, "signal") == 0 ? MAX_SIGNAL : MAX_QUESTION;
	if (text == NULL || text[0] == '\0' || strlen(text) > limit)
		(void) kind_problem(problem, mem_printf("$.%s", what),
							mem_printf("\"%s\" must have 1 to %zu bytes", what, limit), NULL);
}

const TaskKind kind_wait = {
	.name = "wait",
	.is_waiting = true,
	.validate = wait_validate,
};
