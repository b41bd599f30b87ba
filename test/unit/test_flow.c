/*-------------------------------------------------------------------------
 * test_flow.c
 *	  Every way upstream tasks can end, and what follows for the next one
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "flow.h"

typedef struct FlowCase
{
	int			met,
				failed,
				blocked,
				skipped;
	/* per RunIf in order: r ready, b blocked, s skipped */
	const char *expected;
} FlowCase;

/*
 * success done none_failed one_success one_failed all_failed always
 */
static const FlowCase flow_cases[] = {
	{0, 0, 0, 0, "rrrrrrr"},
	{1, 0, 0, 0, "rrrrssr"},
	{2, 0, 0, 0, "rrrrssr"},
	{0, 1, 0, 0, "brbbrrr"},
	{0, 2, 0, 0, "brbbrrr"},
	{0, 0, 1, 0, "bbbbrrr"},
	{0, 0, 0, 1, "ssssssr"},
	{0, 0, 0, 3, "ssssssr"},
	{1, 1, 0, 0, "brbrrsr"},
	{1, 0, 1, 0, "brbrrsr"},
	{1, 0, 0, 1, "srrrssr"},
	{0, 1, 1, 0, "brbbrrr"},
	{0, 1, 0, 1, "brbbrsr"},
	{0, 0, 1, 1, "bbbbrsr"},
	{1, 1, 1, 1, "brbrrsr"},
};

static void
test_decide(void)
{
	for (size_t i = 0; i < lengthof(flow_cases); i++)
	{
		const FlowCase *c = &flow_cases[i];
		FlowTally	tally = {c->met + c->failed + c->blocked + c->skipped, c->failed, c->blocked, c->skipped};

		for (int run_if = 0; run_if < RUN_IF_COUNT; run_if++)
		{
			char		expected = c->expected[run_if];
			TaskStatus	status = flow_decide((RunIf) run_if, &tally);

			CHECK_INT(status, expected == 'r' ? TASK_READY : expected == 'b' ? TASK_BLOCKED : TASK_SKIPPED);
		}
	}
}

static void
test_edges(void)
{
	/* per TaskStatus in order; m met, f failed, b blocked, s skipped, '-' not final */
	static const char *const expected[EDGE_CONDITION_COUNT] = {
		[EDGE_SUCCESS] = "---mfffbms",
		[EDGE_FAILED] = "---smmmbss",
		[EDGE_SKIPPED] = "---sfffbsm",
		[EDGE_DONE] = "---mmmmmmm",
	};

	for (int condition = 0; condition < EDGE_CONDITION_COUNT; condition++)
		for (int status = 0; status < TASK_STATUS_COUNT; status++)
		{
			char		letter = expected[condition][status];

			CHECK_INT(letter == '-', !task_status_is_final((TaskStatus) status));
			if (letter != '-')
				CHECK_INT(flow_edge_result((EdgeCondition) condition, (TaskStatus) status, true),
						  letter == 'm' ? EDGE_IS_MET : letter == 'f' ? EDGE_IS_FAILED :
						  letter == 'b' ? EDGE_IS_BLOCKED : EDGE_IS_SKIPPED);
		}

	/* Another branch was taken. */
	CHECK_INT(flow_edge_result(EDGE_SUCCESS, TASK_SUCCEEDED, false), EDGE_IS_SKIPPED);
	CHECK_INT(flow_edge_result(EDGE_SUCCESS, TASK_FAILED, false), EDGE_IS_FAILED);
}

static void
test_names(void)
{
	RunIf		run_if;
	EdgeCondition condition;

	for (int i = 0; i < RUN_IF_COUNT; i++)
	{
		CHECK(run_if_parse(run_if_name((RunIf) i), &run_if));
		CHECK_INT(run_if, i);
		CHECK(strstr(run_if_names(), run_if_name((RunIf) i)) != NULL);
	}
	for (int i = 0; i < EDGE_CONDITION_COUNT; i++)
	{
		CHECK(edge_condition_parse(edge_condition_name((EdgeCondition) i), &condition));
		CHECK_INT(condition, i);
		CHECK(strstr(edge_condition_names(), edge_condition_name((EdgeCondition) i)) != NULL);
	}
	CHECK(!run_if_parse("sometimes", &run_if));
	CHECK(!run_if_parse(NULL, &run_if));
	CHECK(!edge_condition_parse("", &condition));
	CHECK_STR(run_if_name((RunIf) 99), "unknown");
	CHECK(run_if_handles_failure(RUN_IF_ALL_FAILED));
	CHECK(!run_if_handles_failure(RUN_IF_ALWAYS));
}

void
test_flow(void)
{
	test_decide();
	test_edges();
	test_names();
}
