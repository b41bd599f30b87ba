/*-------------------------------------------------------------------------
 * test_forecast.c
 *	  What tasks will do, known and unknown branches, failures that are known
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "forecast.h"

#define TASK(how) {.run_if = RUN_IF_##how}

static void
expect(ForecastTask *tasks, int ntasks, const ForecastEdge *edges, int nedges, const char *fates)
{
	static const char letters[] = "eRFSBD";		/* in the order of ForecastFate */

	forecast(tasks, ntasks, edges, nedges);
	for (int t = 0; t < ntasks; t++)
		CHECK_INT(letters[tasks[t].fate], fates[t]);
}

static void
test_branches(void)
{
	ForecastTask tasks[] = {TASK(ALL_SUCCESS), TASK(ALL_SUCCESS), TASK(ALL_SUCCESS), TASK(ALL_SUCCESS),
	TASK(AT_LEAST_ONE_SUCCESS), TASK(ALWAYS), TASK(NONE_FAILED)};
	ForecastEdge edges[] = {
		{0, 1, EDGE_SUCCESS, "true"}, {0, 2, EDGE_SUCCESS, "false"},
		{1, 3, EDGE_SUCCESS, NULL}, {2, 3, EDGE_SUCCESS, NULL},
		{1, 4, EDGE_SUCCESS, NULL}, {2, 4, EDGE_SUCCESS, NULL},
		{1, 5, EDGE_SUCCESS, NULL}, {1, 6, EDGE_DONE, NULL},
	};

	tasks[0].is_choice = true;
	expect(tasks, 7, edges, 8, "RDDDDRR");
	CHECK_INT(tasks[1].because, 0);
	CHECK_INT(tasks[3].because, 2);
	tasks[0].branch = "true";
	expect(tasks, 7, edges, 8, "RRSSRRR");
	CHECK_INT(tasks[2].because, 1);
	tasks[0].branch = "other";
	expect(tasks, 7, edges, 8, "RSSSSRR");
}

static void
test_known_ends(void)
{
	ForecastTask tasks[] = {TASK(ALL_SUCCESS), TASK(AT_LEAST_ONE_FAILED), TASK(ALL_SUCCESS), TASK(ALL_SUCCESS), TASK(ALL_DONE)};
	ForecastEdge edges[] = {
		{0, 1, EDGE_SUCCESS, NULL}, {0, 2, EDGE_FAILED, NULL}, {0, 3, EDGE_SUCCESS, NULL}, {3, 4, EDGE_SUCCESS, NULL},
	};

	expect(tasks, 5, edges, 4, "RSSRR");
	/* reused, disabled or not selected: met, so its handlers have nothing to do */
	tasks[0].has_ended = true;
	expect(tasks, 5, edges, 4, "eSSRR");
	/* known to fail: its handlers run, the rest is blocked */
	tasks[0].has_ended = false;
	tasks[0].will_fail = true;
	expect(tasks, 5, edges, 4, "FRRBB");
	CHECK_INT(tasks[3].because, 2);
	/* a task known to fail fails only if it runs */
	tasks[0].will_fail = false;
	tasks[1].will_fail = true;
	expect(tasks, 5, edges, 4, "RSSRR");
	expect(tasks, 0, edges, 0, "");
}

void
test_forecast(void)
{
	test_branches();
	test_known_ends();
}
