/*-------------------------------------------------------------------------
 * outcome.c
 *	  Outcomes of attempts: written once, with all that follows, in one
 *	  transaction.
 *
 * Runs in the conductor, in SQL workers and in weir.conduct().  Locks are
 * taken pipeline state -> run -> task run, ids ascending.  The attempt row is
 * the judge of "once": an outcome is written only while the attempt has none,
 * under its row lock.  If the process dies before the commit nothing
 * happened, and the attempt is found again without an outcome.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compare.h"
#include "context.h"
#include "engine.h"
#include "foreach.h"
#include "json.h"
#include "outcome.h"
#include "pipelinestate.h"
#include "outcome_int.h"
#include "retry.h"
#include "retryon.h"
#include "shmem.h"

bool
outcome_lock_run(int64 run_id, bool wait)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	uint64		found;

	if (wait ? !pipeline_state_lock(run_id) :
		weir_spi("SELECT 1 FROM weir.pipeline_state s WHERE " IS_STATE_OF_RUN("s", "$1") " FOR UPDATE SKIP LOCKED",
				 1, types, values, NULL) == 0)
		return false;
	/* What clients say of the run holds it FOR KEY SHARE, which does not stop us. */
	if (wait)
		found = weir_spi("SELECT 1 FROM weir.run WHERE run_id = $1 FOR NO KEY UPDATE",
						 1, types, values, NULL);
	else
		found = weir_spi("SELECT 1 FROM weir.run WHERE run_id = $1 FOR NO KEY UPDATE SKIP LOCKED",
						 1, types, values, NULL);
	return found == 1;
}

int
outcome_lock_runs(const int64 *run_ids, int n, int64 *locked)
{
	Oid			types[2] = {INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[2];
	Datum	   *ids = palloc(sizeof(Datum) * Max(n, 1));
	bool		isnull;
	uint64		found;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(run_ids[i]);
	values[0] = weir_array(INT8OID, ids, n);
	weir_spi("SELECT array_agg(l.pipeline_id) FROM "
			 "(SELECT DISTINCT r.pipeline_id FROM weir.run r WHERE r.run_id = ANY ($1) ORDER BY r.pipeline_id) p "
			 "CROSS JOIN LATERAL (SELECT s.pipeline_id FROM weir.pipeline_state s WHERE " IS_STATE("s", "p.pipeline_id") " FOR UPDATE SKIP LOCKED) l",
			 1, types, values, NULL);
	values[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return 0;
	found = weir_spi("SELECT run_id FROM weir.run WHERE run_id = ANY ($1) AND pipeline_id = ANY ($2) ORDER BY run_id FOR NO KEY UPDATE SKIP LOCKED",
					 2, types, values, NULL);
	for (uint64 i = 0; i < found; i++)
		locked[i] = weir_spi_int64(i, 1, NULL);
	return (int) found;
}

/* What decides whether there is another attempt. */
typedef struct Budget
{
	int64		run_id;
	int			task_no;
	int64		parent_id;		/* of an item: the task run of the for_each; else 0 */
	bool		run_wants_more; /* the run is running, not cancelling */
	int			tries;			/* attempts that count */
	int			lost;			/* lost ones in a row, before this one */
	RetryPolicy policy;
	char	   *on;				/* JSON: which failures are worth another attempt; NULL for the default */
	TimestampTz deadline;		/* task timeout; DT_NOEND for none */
	bool		is_overdue;
} Budget;

/*
 * Budgets of task runs whose latest attempt has no outcome yet, in their
 * order; the row locks decide who writes the outcome.
 */
static uint64
query_budgets(TaskOutcome *const *outcomes, int n)
{
	static const Oid types[1] = {INT8ARRAYOID};
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		values[1];

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(outcomes[i]->task_run_id);
	values[0] = weir_array(INT8OID, ids, n);
	return weir_spi("SELECT t.task_run_id, r.run_id, t.task_no, r.status = 'running', t.attempt_no - t.budget_from, t.lost_count, "
					"d.max_attempts, d.retry_initial_ms, d.retry_max_ms, d.retry_multiplier::text, d.retry_jitter::text, t.parent_task_run_id, t.attempt_no, "
					"d.retry_backoff, d.retry_on, coalesce(a.task_deadline, 'infinity'), coalesce(a.task_deadline <= clock_timestamp(), false) "
					"FROM weir.task_run t JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
					"JOIN weir.run r ON r.run_id = t.run_id "
					TASK_DEFINITION("r", "t", "i.max_attempts, i.retry_initial_ms, i.retry_max_ms, i.retry_multiplier, i.retry_jitter, i.retry_backoff, i.retry_on")
					"WHERE t.task_run_id = ANY ($1) AND a.status IN ('intended', 'started') AND t.status = 'running' "
					"ORDER BY t.task_run_id FOR UPDATE OF t, a",
					1, types, values, NULL);
}

static int
compare_outcomes(const void *a, const void *b)
{
	int64		x = (*(TaskOutcome *const *) a)->task_run_id;
	int64		y = (*(TaskOutcome *const *) b)->task_run_id;

	return (x > y) - (x < y);
}

/* The outcome of a task run's latest attempt among these, in the order of task runs; NULL if it is of an earlier one. */
static TaskOutcome *
find_outcome(TaskOutcome **sorted, int n, int64 task_run_id, int attempt_no)
{
	TaskOutcome key = {.task_run_id = task_run_id};
	TaskOutcome *wanted = &key;
	TaskOutcome **found = bsearch(&wanted, sorted, n, sizeof(TaskOutcome *), compare_outcomes);

	return found != NULL && (*found)->attempt_no == attempt_no ? *found : NULL;
}

static void
read_budget(uint64 row, Budget *budget)
{
	bool		isnull;

	budget->run_id = weir_spi_int64(row, 2, NULL);
	budget->task_no = weir_spi_int64(row, 3, NULL);
	budget->run_wants_more = weir_spi_bool(row, 4, NULL);
	budget->tries = weir_spi_int64(row, 5, NULL);
	budget->lost = weir_spi_int64(row, 6, NULL);
	budget->policy.max_attempts = weir_spi_int64(row, 7, NULL);
	budget->policy.initial_delay_ms = weir_spi_int64(row, 8, NULL);
	budget->policy.max_delay_ms = weir_spi_int64(row, 9, NULL);
	budget->policy.multiplier = strtod(weir_spi_text(row, 10), NULL);
	budget->policy.jitter = strtod(weir_spi_text(row, 11), NULL);
	budget->parent_id = weir_spi_int64(row, 12, NULL);
	budget->policy.backoff = RETRY_EXPONENTIAL;
	(void) retry_backoff_parse(weir_spi_text(row, 14), &budget->policy.backoff);
	budget->on = weir_spi_text(row, 15);
	budget->deadline = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 16, &isnull));
	budget->is_overdue = weir_spi_bool(row, 17, NULL);
}

/* Is this failure one that the policy tries again? */
static bool
is_worth_trying(const TaskOutcome *outcome, const char *on)
{
	FailureFacts facts = {
		.sqlstate = outcome->sqlstate,
		.http_status = outcome->http_status,
		.code = outcome->error_code,
		.is_user_error = outcome->is_user_error,
		.is_retryable = outcome->is_retryable,
		.may_go_on = outcome->may_go_on,
	};
	char	   *error = NULL;
	cJSON	   *policy = on ? json_parse(on, strlen(on), 1024 * 1024, &error) : NULL;

	return retry_on_allows(policy, &facts);
}

/*
 * Is there another attempt, and when?  -1: no.  A lost attempt did not fail,
 * it was interrupted: it goes again at once, but not for ever, because a
 * task that takes the server down each time must stop at some point.
 */
static int64
next_attempt_delay(const TaskOutcome *outcome, const Budget *budget)
{
	RetryPolicy lost = {weir_max_lost_attempts, 1000, 60000, 2, 0.13, RETRY_EXPONENTIAL};
	double		random01 = pg_prng_double(&pg_global_prng_state);

	if (!budget->run_wants_more)
		return -1;
	if (outcome->status == ATTEMPT_LOST)
	{
		if (budget->lost + 1 >= weir_max_lost_attempts)
			return -1;
		return budget->lost < 3 ? 0 : retry_delay_ms(&lost, budget->lost - 2, random01, 0);
	}
	if (outcome->status != ATTEMPT_FAILED && outcome->status != ATTEMPT_TIMED_OUT)
		return -1;
	if (budget->tries >= budget->policy.max_attempts || !is_worth_trying(outcome, budget->on))
		return -1;
	return retry_delay_ms(&budget->policy, budget->tries, random01, outcome->retry_after_ms);
}

/* What becomes of the task run when there is no other attempt. */
static TaskStatus
end_status(const TaskOutcome *outcome, const Budget *budget)
{
	switch (outcome->status)
	{
		case ATTEMPT_SUCCEEDED:
			/* Its items are listed: it ends when they have. */
			if (outcome->items != NULL)
				return budget->run_wants_more ? TASK_RUNNING : TASK_CANCELLED;
			return TASK_SUCCEEDED;
		case ATTEMPT_TIMED_OUT:
			return TASK_TIMED_OUT;
		case ATTEMPT_CANCELLED:
			return TASK_CANCELLED;
		case ATTEMPT_LOST:
			return budget->run_wants_more ? TASK_FAILED : TASK_CANCELLED;
		default:
			return TASK_FAILED;
	}
}

static void
decide(const TaskOutcome *outcome, const Budget *budget, DecidedOutcome *decided)
{
	decided->outcome = outcome;
	decided->run_id = budget->run_id;
	decided->task_no = budget->task_no;
	decided->parent_id = budget->parent_id;
	decided->delay_ms = next_attempt_delay(outcome, budget);
	decided->status = decided->delay_ms >= 0 ? TASK_READY : end_status(outcome, budget);
	decided->deadline = budget->deadline;
	if (decided->status == TASK_READY && budget->is_overdue)
	{
		/* There would be another attempt, but no time is left for it. */
		decided->delay_ms = -1;
		decided->status = TASK_TIMED_OUT;
	}
}

/* Lists of a for_each: nobody may look at such a task before its items are there. */
static void
expand_lists(const DecidedOutcome *decided, int n)
{
	for (int i = 0; i < n; i++)
		if (decided[i].status == TASK_RUNNING)
			foreach_expand(decided[i].outcome->task_run_id, decided[i].outcome->items);
}

/* Tasks may end with their lists, and with items that ended. */
static void
advance_items(const DecidedOutcome *decided, int n)
{
	Datum	   *parents = palloc(sizeof(Datum) * n);
	int			n_parents = 0;

	for (int i = 0; i < n; i++)
		if (decided[i].status == TASK_RUNNING)
			foreach_expanded(decided[i].run_id, decided[i].outcome->task_run_id);
		else if (decided[i].parent_id != 0 && decided[i].status != TASK_READY)
			parents[n_parents++] = Int64GetDatum(decided[i].parent_id);
	if (n_parents > 0)
		foreach_items_ended(weir_array(INT8OID, parents, n_parents));
}

/* What follows from task runs that ended. */
static void
advance(const DecidedOutcome *decided, int n)
{
	Datum	   *runs = palloc(sizeof(Datum) * n);
	Datum	   *tasks = palloc(sizeof(Datum) * n);
	int64	   *distinct = palloc(sizeof(int64) * n);
	int			ended = 0,
				changed = 0;
	bool		all_succeeded = true;

	for (int i = 0; i < n; i++)
	{
		if (decided[i].status == TASK_READY)
			continue;
		distinct[changed++] = decided[i].run_id;
		if (decided[i].status == TASK_RUNNING)
			continue;
		all_succeeded = all_succeeded && decided[i].status == TASK_SUCCEEDED;
		if (decided[i].parent_id != 0)
			continue;
		runs[ended] = Int64GetDatum(decided[i].run_id);
		tasks[ended++] = Int32GetDatum(decided[i].task_no);
	}
	if (changed == 0)
		return;
	expand_lists(decided, n);
	if (ended > 0)
		advance_ended(weir_array(INT8OID, runs, ended), weir_array(INT4OID, tasks, ended), all_succeeded);
	for (int i = 0; i < n && !all_succeeded; i++)
		if (decided[i].status != TASK_READY && decided[i].status != TASK_RUNNING && decided[i].status != TASK_SUCCEEDED)
			advance_fail_fast(decided[i].run_id);
	advance_items(decided, n);

	qsort(distinct, changed, sizeof(int64), compare_int64);
	for (int i = 0; i < changed; i++)
		if (i == 0 || distinct[i] != distinct[i - 1])
			advance_finish_run(distinct[i]);
}

/* Nothing is to be decided: the task run ends as the attempt did. */
static bool
just_succeeded(const TaskOutcome *outcome)
{
	return outcome->status == ATTEMPT_SUCCEEDED && outcome->items == NULL && outcome->error_message == NULL &&
		outcome->error_code == NULL && outcome->sqlstate == NULL;
}

/* All others; returns how many had no outcome yet. */
static int
decide_and_write(TaskOutcome **outcomes, int n, DecidedOutcome *decided)
{
	uint64		rows;
	int			found = 0;

	qsort(outcomes, n, sizeof(TaskOutcome *), compare_outcomes);
	rows = query_budgets(outcomes, n);
	for (uint64 i = 0; i < rows; i++)
	{
		TaskOutcome *outcome = find_outcome(outcomes, n, weir_spi_int64(i, 1, NULL), (int) weir_spi_int64(i, 13, NULL));
		Budget		budget;

		if (outcome == NULL)
			continue;
		read_budget(i, &budget);
		decide(outcome, &budget, &decided[found++]);
	}
	if (found == 0)
		return 0;
	outcome_write_attempts(decided, found);
	outcome_write_errors(decided, found);
	outcome_write_task_runs(decided, found);
	return found;
}

int
outcome_apply_all(TaskOutcome *const *outcomes, int n)
{
	DecidedOutcome *decided = palloc(sizeof(DecidedOutcome) * Max(n, 1));
	TaskOutcome **successes = palloc(sizeof(TaskOutcome *) * Max(n, 1));
	TaskOutcome **others = palloc(sizeof(TaskOutcome *) * Max(n, 1));
	int			n_successes = 0,
				n_others = 0,
				found = 0;

	for (int i = 0; i < n; i++)
		if (just_succeeded(outcomes[i]))
			successes[n_successes++] = outcomes[i];
		else
			others[n_others++] = outcomes[i];
	if (n_successes > 0)
		found += outcome_write_successes(successes, n_successes, decided);
	if (n_others > 0)
		found += decide_and_write(others, n_others, &decided[found]);
	for (int i = 0; i < found; i++)
		outcome_write_activities(decided[i].outcome);
	if (found > 0)
		advance(decided, found);
	return found;
}

bool
outcome_apply(TaskOutcome *outcome)
{
	return outcome_apply_all(&outcome, 1) == 1;
}

void
outcome_time_out_waiting(int64 run_id)
{
	static const Oid types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	int			found = (int) weir_spi("SELECT task_run_id, attempt_no, task_no, parent_task_run_id, error_message, deadline FROM weir.task_run "
									   "WHERE run_id = $1 AND retry_deadline <= clock_timestamp() ORDER BY task_run_id FOR UPDATE",
									   1, types, values, NULL);
	DecidedOutcome *late = palloc0(sizeof(DecidedOutcome) * Max(found, 1));

	for (int i = 0; i < found; i++)
	{
		TaskOutcome *outcome = palloc0(sizeof(TaskOutcome));
		char	   *error = weir_spi_text(i, 5);
		bool		isnull;

		outcome->task_run_id = weir_spi_int64(i, 1, NULL);
		outcome->attempt_no = weir_spi_int64(i, 2, NULL);
		outcome->status = ATTEMPT_TIMED_OUT;
		outcome->rows_read = outcome->rows_written = -1;
		outcome->error_code = "timed_out";
		outcome->error_message = error ? psprintf("task timeout exceeded; %s", error) : "task timeout exceeded";
		late[i].outcome = outcome;
		late[i].run_id = run_id;
		late[i].task_no = weir_spi_int64(i, 3, NULL);
		late[i].parent_id = weir_spi_int64(i, 4, NULL);
		late[i].status = TASK_TIMED_OUT;
		late[i].delay_ms = -1;
		late[i].deadline = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 6, &isnull));
		engine_note_ready(outcome->task_run_id);	/* no more: its pause is over */
	}
	if (found == 0)
		return;
	outcome_write_errors(late, found);
	outcome_write_task_runs(late, found);
	advance(late, found);
}

void
outcome_succeed_noops(Datum task_run_ids)
{
	Oid			types[1] = {INT8ARRAYOID};
	Datum		values[1] = {task_run_ids};
	Oid			pair_types[2] = {INT8ARRAYOID, INT4ARRAYOID};
	Datum		pair[2];
	Datum		parents;
	bool		no_parents;
	bool		isnull;
	int64	   *runs;
	uint64		n_runs;

	weir_spi("UPDATE weir.attempt a SET status = 'succeeded', ended_at = clock_timestamp() FROM weir.task_run t "
			 "WHERE t.task_run_id = ANY ($1) AND a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no",
			 1, types, values, NULL);
	if (weir_spi("WITH done AS (UPDATE weir.task_run SET status = 'succeeded', output = '{}', ended_at = clock_timestamp() "
				 "WHERE task_run_id = ANY ($1) AND status = 'running' RETURNING run_id, task_no, parent_task_run_id) "
				 "SELECT array_agg(run_id), array_agg(task_no), array_agg(DISTINCT parent_task_run_id) FILTER (WHERE parent_task_run_id IS NOT NULL) FROM done",
				 1, types, values, NULL) != 1)
		return;
	pair[0] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return;
	pair[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	parents = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &no_parents);
	advance_ended(pair[0], pair[1], true);
	if (!no_parents)
		foreach_items_ended(parents);

	n_runs = weir_spi("SELECT DISTINCT r FROM unnest($1::bigint[]) r ORDER BY r",
					  2, pair_types, pair, NULL);
	runs = palloc(n_runs * sizeof(int64));
	for (uint64 i = 0; i < n_runs; i++)
		runs[i] = weir_spi_int64(i, 1, NULL);
	for (uint64 i = 0; i < n_runs; i++)
		advance_finish_run(runs[i]);
}
