/*-------------------------------------------------------------------------
 * test_restart.c
 *	  What the next start does: the tables of the restart contract, line by
 *	  line, and the stories of the defects they are there to prevent
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "status.h"
#include "restart.h"

/* How an execution ended -> next_load_status */
static void
test_next_load(void)
{
	static const struct
	{
		const char *what;
		RestartEnd	end;		/* succeeded, resumed, landing, landed, failed
								 * after landing, in failed batch */
		char		next;
	}			cases[] = {
		{"land failed", {false, false, 1, 0, false, false}, 'R'},
		{"land unfinished, crash", {false, false, 3, 2, false, false}, 'R'},
		{"landed, transform failed", {false, false, 1, 1, true, false}, 'D'},
		{"all of three landed, transform failed", {false, false, 3, 3, true, false}, 'D'},
		{"one of three did not land, transform failed too", {false, false, 3, 2, true, false}, 'R'},
		{"resumed, transform failed again", {false, true, 0, 0, true, false}, 'D'},
		{"resumed, landing counted as reused, failed again", {false, true, 2, 2, true, false}, 'D'},
		{"resumed, crash before anything was logged", {false, true, 0, 0, false, false}, 'D'},
		{"resumed, landed once more and failed at it", {false, true, 1, 0, false, false}, 'R'},
		{"all went well", {true, false, 1, 1, false, false}, 'P'},
		{"all went well after a resume", {true, true, 0, 0, false, false}, 'P'},
		{"nothing to land, failed", {false, false, 0, 0, false, false}, 'R'},
		{"nothing to land, transform failed", {false, false, 0, 0, true, false}, 'R'},
		{"landed so far, then an error nobody can place", {false, false, 1, 1, false, false}, 'R'},
		{"child that succeeded in a failed batch", {true, false, 1, 1, false, true}, 'C'},
		{"child that failed in a failed batch, landed", {false, false, 1, 1, true, true}, 'D'},
		{"child that failed in a failed batch, not landed", {false, false, 1, 0, false, true}, 'R'},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		NextLoadStatus next = restart_next_load(&cases[i].end);

		CHECK_CASE(next == (NextLoadStatus) cases[i].next, "%s: %c, not %c",
				   cases[i].what, next, cases[i].next);
	}
}

static void
test_batch(void)
{
	static const struct
	{
		const char *what;
		RestartBatchEnd end;	/* own; rerun, resume, unfinished children */
		char		next;
	}			cases[] = {
		{"some succeeded, one failed to land", {{0}, 1, 0, 0}, 'R'},
		{"all landed, one failed to transform", {{0}, 0, 1, 0}, 'D'},
		{"one failed to land, another to transform", {{0}, 1, 1, 0}, 'R'},
		{"one failed to transform, one never started", {{0}, 0, 1, 1}, 'R'},
		{"crash while children run", {{0}, 0, 0, 2}, 'R'},
		{"no child failed, the batch itself did", {{0}, 0, 0, 0}, 'R'},
		{"own landing failed", {{false, false, 1, 0, false, false}, 0, 1, 0}, 'R'},
		{"own landing done, child failed to transform", {{false, false, 1, 1, true, false}, 0, 1, 0}, 'D'},
		{"own landing done, own transform failed", {{false, false, 1, 1, true, false}, 0, 0, 0}, 'D'},
		{"ended well", {{true, false, 0, 0, false, false}, 0, 0, 0}, 'P'},
		{"inner batch that ended well in a failed one", {{true, false, 0, 0, false, true}, 0, 0, 0}, 'C'},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		NextLoadStatus next = restart_batch_next_load(&cases[i].end);

		CHECK_CASE(next == (NextLoadStatus) cases[i].next, "%s: %c, not %c",
				   cases[i].what, next, cases[i].next);
	}
}

static void
test_child(void)
{
	static const struct
	{
		const char *what;
		bool		batch_succeeded;
		RunStatus	child;
		char		current;
		char		next;
	}			cases[] = {
		{"batch failed, child succeeded", false, RUN_SUCCEEDED, 'P', 'C'},
		{"batch failed, failed child", false, RUN_FAILED, 'R', 'R'},
		{"batch failed, failed child that landed", false, RUN_FAILED, 'D', 'D'},
		{"batch failed, timed out child", false, RUN_TIMED_OUT, 'R', 'R'},
		{"batch failed, cancelled child", false, RUN_CANCELLED, 'D', 'D'},
		{"batch failed again, child skipped by the restart", false, RUN_SKIPPED, 'C', 'C'},
		{"batch failed, disabled child was not run", false, RUN_SKIPPED, 'P', 'P'},
		{"batch failed, child aborted by an overlap", false, RUN_ABORTED, 'P', 'P'},
		{"batch failed, child still running", false, RUN_RUNNING, 'P', 'P'},
		{"batch succeeded, child succeeded", true, RUN_SUCCEEDED, 'P', 'P'},
		{"batch succeeded, child marked C by the first try", true, RUN_SUCCEEDED, 'C', 'P'},
		{"batch succeeded, child skipped as C", true, RUN_SKIPPED, 'C', 'P'},
		{"batch succeeded, disabled child has work left", true, RUN_SKIPPED, 'D', 'D'},
		{"batch succeeded, aborted child", true, RUN_ABORTED, 'R', 'R'},
		{"batch succeeded all the same, failed child", true, RUN_FAILED, 'D', 'D'},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		NextLoadStatus next = restart_child_next_load(cases[i].batch_succeeded,
													  cases[i].child,
													  (NextLoadStatus) cases[i].current);

		CHECK_CASE(next == (NextLoadStatus) cases[i].next, "%s: %c, not %c",
				   cases[i].what, next, cases[i].next);
	}
}

/* What a start answers; first match wins */
static void
test_decide(void)
{
	static const struct
	{
		const char *what;
		bool		same_external_run;
		bool		disabled;
		bool		skip_once;
		RestartOther other;
		char		other_next_load;
		char		last_next_load;
		char		code;
		bool		reuse_origin;
		bool		close_other_first;
		bool		skip_once_used;
	}			cases[] = {
		{"first run ever", 0, 0, 0, RESTART_OTHER_NONE, 'P', 'P', 'E', 0, 0, 0},
		{"last was R", 0, 0, 0, RESTART_OTHER_NONE, 'P', 'R', 'R', 0, 0, 0},
		{"last was D", 0, 0, 0, RESTART_OTHER_NONE, 'P', 'D', 'D', 1, 0, 0},
		{"last was C", 0, 0, 0, RESTART_OTHER_NONE, 'P', 'C', 'C', 0, 0, 0},
		{"retried call", 1, 0, 0, RESTART_OTHER_LIVE, 'P', 'P', '=', 0, 0, 0},
		{"retried call, disabled since", 1, 1, 1, RESTART_OTHER_NONE, 'P', 'D', '=', 0, 0, 0},
		{"disabled", 0, 1, 0, RESTART_OTHER_NONE, 'P', 'D', 'C', 0, 0, 0},
		{"disabled keeps the skip-once mark", 0, 1, 1, RESTART_OTHER_NONE, 'P', 'P', 'C', 0, 0, 0},
		{"disabled while one runs", 0, 1, 0, RESTART_OTHER_LIVE, 'P', 'P', 'C', 0, 0, 0},
		{"disabled leaves a dead one alone", 0, 1, 0, RESTART_OTHER_DEAD, 'R', 'P', 'C', 0, 0, 0},
		{"skip once", 0, 0, 1, RESTART_OTHER_NONE, 'P', 'R', 'C', 0, 0, 1},
		{"skip once while one runs", 0, 0, 1, RESTART_OTHER_LIVE, 'P', 'P', 'C', 0, 0, 1},
		{"overlap", 0, 0, 0, RESTART_OTHER_LIVE, 'P', 'P', 'A', 0, 0, 0},
		{"overlap, last was D", 0, 0, 0, RESTART_OTHER_LIVE, 'P', 'D', 'A', 0, 0, 0},
		{"overlap, last was C", 0, 0, 0, RESTART_OTHER_LIVE, 'P', 'C', 'A', 0, 0, 0},
		{"dead one had not landed", 0, 0, 0, RESTART_OTHER_DEAD, 'R', 'P', 'R', 0, 1, 0},
		{"dead one had landed", 0, 0, 0, RESTART_OTHER_DEAD, 'D', 'P', 'D', 1, 1, 0},
		{"dead one had landed, the one before was R", 0, 0, 0, RESTART_OTHER_DEAD, 'D', 'R', 'D', 1, 1, 0},
		{"dead one was a resume and must rerun", 0, 0, 0, RESTART_OTHER_DEAD, 'R', 'D', 'R', 0, 1, 0},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		RestartInput in = {
			.same_external_run = cases[i].same_external_run,
			.disabled = cases[i].disabled,
			.skip_once = cases[i].skip_once,
			.other = cases[i].other,
			.other_next_load = (NextLoadStatus) cases[i].other_next_load,
			.last_next_load = (NextLoadStatus) cases[i].last_next_load,
		};
		RestartDecision got = restart_decide(&in);

		CHECK_CASE(got.code == (StartCode) cases[i].code, "%s: %c, not %c",
				   cases[i].what, got.code, cases[i].code);
		CHECK_CASE(got.reuse_origin == cases[i].reuse_origin, "%s: origin", cases[i].what);
		CHECK_CASE(got.close_other_first == cases[i].close_other_first, "%s: close", cases[i].what);
		CHECK_CASE(got.skip_once_used == cases[i].skip_once_used, "%s: skip once", cases[i].what);
		CHECK_CASE(start_code_runs(got.code) == (strchr("ERD", got.code) != NULL),
				   "%s: runs", cases[i].what);
	}
}

/*
 * Three failures after landing in a row.  The reference kept only the id of
 * the try before, so that from the third try on the rows of the landing were
 * not found any more.
 */
static void
test_origin_is_carried(void)
{
	RestartInput in = {.last_next_load = NEXT_LOAD_PROCESS};
	int64		last_row_audit_id = 0;
	RestartDecision decision;

	for (int64 execution = 101; execution <= 104; execution++)
	{
		RestartEnd	end = {
			.resumed = execution > 101,
			.n_landing = execution == 101 ? 2 : 0,
			.n_landing_succeeded = execution == 101 ? 2 : 0,
			.failed_after_landing = true,
		};

		decision = restart_decide(&in);
		CHECK_INT(decision.code, execution == 101 ? 'E' : 'D');
		last_row_audit_id = restart_row_audit_id(&decision, execution, last_row_audit_id);
		CHECK_INT(last_row_audit_id, 101);
		in.last_next_load = restart_next_load(&end);
	}

	/* it goes well at last, and the next one is on its own */
	in.last_next_load = restart_next_load(&(RestartEnd) {.succeeded = true, .resumed = true});
	decision = restart_decide(&in);
	CHECK_INT(decision.code, 'E');
	CHECK_INT(restart_row_audit_id(&decision, 105, last_row_audit_id), 105);

	/* a D whose origin is gone can only be its own */
	in.last_next_load = NEXT_LOAD_RESUME;
	decision = restart_decide(&in);
	CHECK_INT(restart_row_audit_id(&decision, 106, 0), 106);
}

/*
 * A second start while one runs.  The reference marked the running execution
 * as aborted, so a third start ran beside it, and skipped the aborted child
 * the next time.
 */
static void
test_overlap(void)
{
	RestartInput in = {.other = RESTART_OTHER_LIVE, .last_next_load = NEXT_LOAD_PROCESS};

	for (int i = 0; i < 3; i++)
	{
		RestartDecision decision = restart_decide(&in);

		CHECK_INT(decision.code, 'A');
		CHECK(!decision.close_other_first);
		/* its end, in a batch that then fails, changes nothing */
		in.last_next_load = restart_child_next_load(false, RUN_ABORTED, in.last_next_load);
	}
	in.other = RESTART_OTHER_NONE;
	CHECK_INT(restart_decide(&in).code, 'E');
}

/* A batch of three: one child fails, the restart runs only that one */
static void
test_batch_story(void)
{
	RestartEnd	well = {.succeeded = true, .n_landing = 1, .n_landing_succeeded = 1};
	RestartEnd	landed = {.n_landing = 1, .n_landing_succeeded = 1, .failed_after_landing = true};
	RunStatus	status[3] = {RUN_SUCCEEDED, RUN_FAILED, RUN_SUCCEEDED};
	NextLoadStatus next[3];
	RestartBatchEnd batch = {.children_resume = 1};

	for (int i = 0; i < 3; i++)
		next[i] = restart_child_next_load(false, status[i],
										  restart_next_load(i == 1 ? &landed : &well));
	CHECK_INT(next[0], 'C');
	CHECK_INT(next[1], 'D');
	CHECK_INT(next[2], 'C');
	CHECK_INT(restart_batch_next_load(&batch), 'D');

	for (int i = 0; i < 3; i++)
	{
		RestartDecision decision = restart_decide(&(RestartInput) {.last_next_load = next[i]});

		CHECK_INT(decision.code, i == 1 ? 'D' : 'C');
		status[i] = i == 1 ? RUN_SUCCEEDED : RUN_SKIPPED;
		next[i] = restart_child_next_load(true, status[i], next[i]);
		CHECK_INT(next[i], 'P');
	}
}

void
test_restart(void)
{
	NextLoadStatus status = NEXT_LOAD_RERUN;

	for (int c = 0; c < 128; c++)
		CHECK_CASE(next_load_status_parse((char) c, &status) ==
				   (c != 0 && strchr("PRDC", c) != NULL), "next load %d", c);
	test_next_load();
	test_batch();
	test_child();
	test_decide();
	test_origin_is_carried();
	test_overlap();
	test_batch_story();
}
