/*-------------------------------------------------------------------------
 * test_status.c
 *	  Every pair of statuses: what may change to what
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "status.h"

typedef struct StatusCase
{
	const char *name;
	const char *next;			/* names, a space before and after each */
	bool		is_final;
	char		code;			/* of a run */
} StatusCase;

static const StatusCase run_cases[] = {
	{"queued", " running skipped cancelled aborted failed ", false, 'Q'},
	{"running", " succeeded failed timed_out cancelled cancelling aborted ", false, 'E'},
	{"cancelling", " cancelled succeeded failed timed_out ", false, 'E'},
	{"succeeded", " running ", true, 'S'},
	{"failed", " running ", true, 'F'},
	{"timed_out", " running ", true, 'F'},
	{"cancelled", " running ", true, 'F'},
	{"skipped", "", true, 'C'},
	{"aborted", "", true, 'A'},
};

static const StatusCase task_cases[] = {
	{"waiting", " ready blocked cancelled skipped reused ", false, 0},
	{"ready", " running failed timed_out cancelled blocked skipped ", false, 0},
	{"running", " ready succeeded failed timed_out cancelled ", false, 0},
	{"succeeded", " waiting ready ", true, 0},
	{"failed", " waiting ready ", true, 0},
	{"timed_out", " waiting ready ", true, 0},
	{"cancelled", " waiting ready ", true, 0},
	{"blocked", " waiting ready ", true, 0},
	{"reused", "", true, 0},
	{"skipped", " waiting ready ", true, 0},
};

static const StatusCase attempt_cases[] = {
	{"intended", " started succeeded failed timed_out cancelled lost ", false, 0},
	{"started", " succeeded failed timed_out cancelled lost ", false, 0},
	{"succeeded", "", true, 0},
	{"failed", "", true, 0},
	{"timed_out", "", true, 0},
	{"cancelled", "", true, 0},
	{"lost", "", true, 0},
};

static bool
expected(const StatusCase *from, const StatusCase *to)
{
	char		word[32];

	snprintf(word, sizeof(word), " %s ", to->name);
	return strstr(from->next, word) != NULL;
}

static void
test_run(void)
{
	RunStatus	from;
	RunStatus	to;

	CHECK_INT(lengthof(run_cases), RUN_STATUS_COUNT);
	for (size_t i = 0; i < lengthof(run_cases); i++)
	{
		const StatusCase *a = &run_cases[i];

		if (!CHECK_CASE(run_status_parse(a->name, &from), "%s", a->name))
			continue;
		CHECK_STR(run_status_name(from), a->name);
		CHECK_INT(run_status_is_final(from), a->is_final);
		CHECK_INT(run_status_execution_code(from), a->code);
		for (size_t j = 0; j < lengthof(run_cases); j++)
		{
			run_status_parse(run_cases[j].name, &to);
			CHECK_CASE(run_status_can(from, to) == expected(a, &run_cases[j]),
					   "run %s -> %s", a->name, run_cases[j].name);
		}
		CHECK(!run_status_can(from, (RunStatus) RUN_STATUS_COUNT));
		CHECK(!run_status_can((RunStatus) RUN_STATUS_COUNT, from));
	}
	from = RUN_ABORTED;
	CHECK(!run_status_parse("Running", &from));
	CHECK(!run_status_parse("", &from));
	CHECK(!run_status_parse(NULL, &from));
	CHECK_INT(from, RUN_ABORTED);
	CHECK_STR(run_status_name((RunStatus) 77), "unknown");
	CHECK(!run_status_is_final((RunStatus) 77));
	CHECK_INT(run_status_execution_code((RunStatus) 77), '?');
}

static void
test_task(void)
{
	TaskStatus	from;
	TaskStatus	to;

	CHECK_INT(lengthof(task_cases), TASK_STATUS_COUNT);
	for (size_t i = 0; i < lengthof(task_cases); i++)
	{
		const StatusCase *a = &task_cases[i];

		if (!CHECK_CASE(task_status_parse(a->name, &from), "%s", a->name))
			continue;
		CHECK_STR(task_status_name(from), a->name);
		CHECK_INT(task_status_is_final(from), a->is_final);
		for (size_t j = 0; j < lengthof(task_cases); j++)
		{
			task_status_parse(task_cases[j].name, &to);
			CHECK_CASE(task_status_can(from, to) == expected(a, &task_cases[j]),
					   "task %s -> %s", a->name, task_cases[j].name);
		}
	}
	CHECK(!task_status_parse("queued", &from));
	CHECK(!task_status_can((TaskStatus) -1, TASK_READY));
}

static void
test_attempt(void)
{
	AttemptStatus from;
	AttemptStatus to;

	CHECK_INT(lengthof(attempt_cases), ATTEMPT_STATUS_COUNT);
	for (size_t i = 0; i < lengthof(attempt_cases); i++)
	{
		const StatusCase *a = &attempt_cases[i];

		if (!CHECK_CASE(attempt_status_parse(a->name, &from), "%s", a->name))
			continue;
		CHECK_STR(attempt_status_name(from), a->name);
		CHECK_INT(attempt_status_is_final(from), a->is_final);
		for (size_t j = 0; j < lengthof(attempt_cases); j++)
		{
			attempt_status_parse(attempt_cases[j].name, &to);
			CHECK_CASE(attempt_status_can(from, to) == expected(a, &attempt_cases[j]),
					   "attempt %s -> %s", a->name, attempt_cases[j].name);
		}
	}
	CHECK(!attempt_status_parse("running", &from));
}

void
test_status(void)
{
	test_run();
	test_task();
	test_attempt();
}
