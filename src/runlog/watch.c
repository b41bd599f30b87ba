/*-------------------------------------------------------------------------
 * watch.c
 *	  CALL weir.watch(): a line for each change of a run, until it ends.
 *
 * Runs in the session of a client, outside a transaction block: every look at
 * the tables is a transaction of its own, and between two looks there is
 * none, so that nothing old is kept alive however long the run takes.  The
 * lines are sent after the look is over: a client that does not read them
 * holds nothing either.  Sleeps like weir.wait() (wait.c), woken when a run of
 * the database changed; changes of tasks are seen after "every" at the latest.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "runapi.h"

PG_FUNCTION_INFO_V1(weir_watch);

#define SHORTEST_MS		20
#define LONGEST_MS		(3600 * 1000)

/* What was last said of a task run. */
typedef struct Seen
{
	int64		task_run_id;	/* key */
	TaskStatus	status;
	int			attempt_no;
} Seen;

typedef struct Watch
{
	int64		run_id;
	bool		has_looked;
	RunStatus	status;
	HTAB	   *tasks;
	MemoryContext lines_cxt;
	List	   *lines;			/* of the look just made, char * */
} Watch;

static void
say(Watch *watch, const char *line)
{
	MemoryContext old = MemoryContextSwitchTo(watch->lines_cxt);

	watch->lines = lappend(watch->lines, pstrdup(line));
	MemoryContextSwitchTo(old);
}

/* True when it has ended and nothing more is asked of it. */
static bool
look_at_run(Watch *watch, Oid caller)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(watch->run_id)};
	RunFacts	run = run_read(watch->run_id);
	char	   *took;

	weir_require_reader_or_owner(caller, run.owner, psprintf("watch run " INT64_FORMAT, watch->run_id));
	if (watch->has_looked && run.status == watch->status)
		return run_status_is_final(run.status) && !run.repair_pending;

	(void) weir_spi("SELECT round(extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.started_at), 3)::text, r.error_message, "
					"(SELECT string_agg(n.n || ' ' || n.status, ', ' ORDER BY n.n DESC, n.status) FROM "
					"(SELECT t.status, count(*) AS n FROM weir.task_run t WHERE t.run_id = r.run_id AND t.item_no = 0 GROUP BY t.status) n) "
					"FROM weir.run r WHERE r.run_id = $1",
					1, types, values, NULL);
	took = weir_spi_text(0, 1);
	if (!run_status_is_final(run.status))
		say(watch, psprintf("run " INT64_FORMAT " of pipeline \"%s\": %s", watch->run_id, run.pipeline_name, run_status_name(run.status)));
	else
		say(watch, psprintf("run " INT64_FORMAT " of pipeline \"%s\": %s%s%s%s%s", watch->run_id, run.pipeline_name, run_status_name(run.status),
							took ? psprintf(" after %s s", took) : "",
							weir_spi_text(0, 3) ? psprintf(" (%s)", weir_spi_text(0, 3)) : "",
							weir_spi_text(0, 2) ? ": " : "", weir_spi_text(0, 2) ? weir_spi_text(0, 2) : ""));
	watch->status = run.status;
	watch->has_looked = true;
	return run_status_is_final(run.status) && !run.repair_pending;
}

/* "a: running, attempt 2", "a: succeeded after 1.234 s", "a: failed after 0.1 s: message" */
static void
say_task(Watch *watch, uint64 row, const Seen *seen)
{
	char	   *item = weir_spi_text(row, 8);
	char	   *took = weir_spi_text(row, 5);
	char	   *error = weir_spi_text(row, 6);
	char	   *retry = weir_spi_text(row, 7);

	say(watch, psprintf("  %s%s: %s%s%s%s%s", weir_spi_text(row, 2), item ? item : "", task_status_name(seen->status),
						seen->status == TASK_RUNNING && seen->attempt_no > 1 ? psprintf(", attempt %d", seen->attempt_no) : "",
						task_status_is_final(seen->status) && took ? psprintf(" after %s s", took) : "",
						retry ? psprintf(", again at %s", retry) : "",
						error ? psprintf(": %s", error) : ""));
}

static void
look_at_tasks(Watch *watch)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(watch->run_id)};
	uint64		n = weir_spi("SELECT t.task_run_id, t.task_name, t.status, t.attempt_no, "
							 "round(extract(epoch FROM t.ended_at - t.started_at), 3)::text, t.error_message, "
							 "CASE WHEN t.status = 'ready' THEN t.not_before END::text, '[' || nullif(t.item_no, 0) || ']' "
							 "FROM weir.task_run t WHERE t.run_id = $1 ORDER BY coalesce(t.ended_at, t.started_at), t.task_no, t.item_no",
							 1, types, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		int64		id = weir_spi_int64(i, 1, NULL);
		int			attempt_no = (int) weir_spi_int64(i, 4, NULL);
		TaskStatus	status;
		Seen	   *seen;
		bool		found;

		if (!task_status_parse(weir_spi_text(i, 3), &status))
			elog(ERROR, "unknown status of a task of run " INT64_FORMAT, watch->run_id);
		seen = hash_search(watch->tasks, &id, HASH_ENTER, &found);
		if (found && seen->status == status && seen->attempt_no == attempt_no)
			continue;
		seen->status = status;
		seen->attempt_no = attempt_no;
		if (found || status != TASK_WAITING)
			say_task(watch, i, seen);
	}
}

static void
say_all(const List *lines)
{
	ListCell   *lc;

	foreach(lc, lines)
		ereport(NOTICE, (errmsg_internal("%s", (char *) lfirst(lc))));
}

/* One look, in a transaction that ends with it; then what changed is said. */
static bool
look(Watch *watch)
{
	WeirScope	scope;
	List	   *run_lines;
	bool		ended;

	MemoryContextReset(watch->lines_cxt);
	watch->lines = NIL;
	weir_enter(&scope);
	ended = look_at_run(watch, scope.caller);
	run_lines = watch->lines;
	watch->lines = NIL;
	look_at_tasks(watch);
	weir_leave(&scope);
	SPI_commit();

	/* The beginning comes before the tasks, the end after them. */
	if (!ended)
		say_all(run_lines);
	say_all(watch->lines);
	if (ended)
		say_all(run_lines);
	return ended;
}

static void
watch_until_end(Watch *watch, long every_ms)
{
	uint32		event = wait_event_compat("WeirRunEnd");

	for (;;)
	{
		ConditionVariable *changed = run_ended_variable();

		/* First the list (or the latch), then the look: nothing is missed. */
		if (changed != NULL)
			ConditionVariablePrepareToSleep(changed);
		else
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (look(watch))
			break;
		if (changed != NULL)
			(void) ConditionVariableTimedSleep(changed, every_ms, event);
		else
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, every_ms, event);
	}
	ConditionVariableCancelSleep();
}

static long
every_argument(FunctionCallInfo fcinfo, int n)
{
	Interval   *every = PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);
	double		ms;

	if (every == NULL)
		return 1000;
	ms = every->time / 1000.0 + (every->day + every->month * 30.0) * SECS_PER_DAY * 1000.0;
	if (ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"every\" must be above zero")));
	return (long) Min(Max(ms, SHORTEST_MS), LONGEST_MS);
}

/* watch(run_id, every) */
Datum
weir_watch(PG_FUNCTION_ARGS)
{
	Watch		watch = {0};
	HASHCTL		ctl = {0};
	long		every_ms;

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("weir.watch() cannot run inside a transaction block"),
				 errhint("CALL it as a statement of its own, outside BEGIN and outside functions; weir.progress() looks once.")));
	watch.run_id = run_arg_id(fcinfo, 0);
	every_ms = every_argument(fcinfo, 1);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	/* This context outlives the transactions that begin and end here. */
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Seen);
	ctl.hcxt = CurrentMemoryContext;
	watch.tasks = hash_create("weir tasks watched", 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	watch.lines_cxt = AllocSetContextCreate(CurrentMemoryContext, "weir lines", ALLOCSET_DEFAULT_SIZES);
	watch_until_end(&watch, every_ms);
	SPI_finish();
	PG_RETURN_VOID();
}
