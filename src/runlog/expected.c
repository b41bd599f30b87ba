/*-------------------------------------------------------------------------
 * expected.c
 *	  When what has not ended is expected to start and to end.
 *
 * Runs in the session of a client and only reads; locks nothing.  A task is
 * expected to take as long as it did in the median of the last successful
 * runs of its pipeline, and to start when the last task upstream of it is
 * expected to end; a queued run starts when the runs it waits for end.  What
 * is not known is null rather than guessed: a task without history makes
 * everything after it unknown.  Waiting for SQL workers and other limits that
 * runs share is not foreseen.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "compat.h"
#include "status.h"

PG_FUNCTION_INFO_V1(weir_expected);

#define UNKNOWN			DT_NOEND
#define MAX_TASK_NAME	256

/* Typical seconds of the tasks of a pipeline, by name. */
typedef struct History
{
	int64		pipeline_id;
	HTAB	   *tasks;
	struct History *next;
} History;

typedef struct Typical
{
	char		name[MAX_TASK_NAME];	/* key */
	double		seconds;
} Typical;

typedef struct ExpectedTask
{
	int			task_no;
	TaskStatus	status;
	TimestampTz started_at;		/* UNKNOWN if it has not */
	TimestampTz not_before;		/* UNKNOWN if nothing says so */
	double		seconds;		/* -1 unknown */
	TimestampTz start;			/* UNKNOWN also if it has started */
	TimestampTz end;
} ExpectedTask;

typedef struct Expected
{
	RunStatus	status;
	int64		pipeline_id;
	int64		version;
	ExpectedTask *tasks;		/* in the order of their waves */
	int			ntasks;
	TimestampTz start;			/* of a queued run, else UNKNOWN */
	TimestampTz end;
} Expected;

typedef struct Look
{
	TimestampTz now;
	History    *histories;
} Look;

static TimestampTz
timestamp_column(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? UNKNOWN : DatumGetTimestampTz(value);
}

static TimestampTz
later(TimestampTz moment, double seconds)
{
	if (moment == UNKNOWN || seconds < 0)
		return UNKNOWN;
	return moment + (TimestampTz) (seconds * 1000000);
}

/* At most the last twenty successes among the last thousand runs: old ones say little, and a long log must cost nothing. */
static History *
history_of(Look *look, int64 pipeline_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};
	HASHCTL		ctl = {0};
	History    *history = look->histories;
	uint64		n;

	while (history != NULL && history->pipeline_id != pipeline_id)
		history = history->next;
	if (history != NULL)
		return history;
	history = palloc(sizeof(History));
	history->pipeline_id = pipeline_id;
	history->next = look->histories;
	look->histories = history;
	ctl.keysize = MAX_TASK_NAME;
	ctl.entrysize = sizeof(Typical);
	ctl.hcxt = CurrentMemoryContext;
	history->tasks = hash_create("weir typical durations", 128, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

	/* A task that is only there for failures takes no time in runs without any. */
	n = weir_spi("WITH past AS MATERIALIZED (SELECT l.run_id FROM (SELECT r.run_id, r.status, r.is_external FROM weir.run r "
				 "WHERE r.pipeline_id = $1 ORDER BY r.run_id DESC LIMIT 1000) l WHERE l.status = 'succeeded' AND NOT l.is_external "
				 "ORDER BY l.run_id DESC LIMIT 20) "
				 "SELECT t.task_name, CASE WHEN bool_or(t.status = 'succeeded') THEN percentile_cont(0.5) WITHIN GROUP "
				 "(ORDER BY extract(epoch FROM t.ended_at - t.started_at)::double precision) FILTER (WHERE t.status = 'succeeded') "
				 "WHEN bool_or(t.skip_reason = 'condition') THEN 0 END::text "
				 "FROM past JOIN weir.task_run t USING (run_id) WHERE t.item_no = 0 GROUP BY t.task_name",
				 1, types, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *seconds = weir_spi_text(i, 2);
		char		name[MAX_TASK_NAME];
		Typical    *typical;

		if (seconds == NULL)
			continue;
		strlcpy(name, weir_spi_text(i, 1), sizeof(name));
		typical = hash_search(history->tasks, name, HASH_ENTER, NULL);
		typical->seconds = strtod(seconds, NULL);
	}
	return history;
}

/* Tasks of the run, or that it will have: what of them has ended is past. */
static void
read_tasks(Look *look, int64 run_id, Expected *expected)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	History    *history = history_of(look, expected->pipeline_id);

	expected->ntasks = (int)
		weir_spi("SELECT d.task_no, d.name, CASE WHEN t.status IS NOT NULL THEN t.status "
				 "WHEN NOT d.is_enabled OR NOT d.name = ANY (r.selected_tasks) THEN 'skipped' "
				 "WHEN d.phase = 'land' AND s.next_load_status = 'D' THEN 'reused' "
				 "WHEN d.upstream_count = 0 THEN 'ready' ELSE 'waiting' END, t.started_at, t.not_before "
				 "FROM weir.run r JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version "
				 "JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id "
				 "LEFT JOIN weir.task_run t ON t.run_id = r.run_id AND t.task_no = d.task_no AND t.item_no = 0 "
				 "WHERE r.run_id = $1 AND d.parent_no IS NULL AND (t.run_id IS NOT NULL OR r.status = 'queued') ORDER BY d.wave, d.task_no",
				 1, types, values, NULL);
	expected->tasks = palloc0(sizeof(ExpectedTask) * Max(expected->ntasks, 1));
	for (int i = 0; i < expected->ntasks; i++)
	{
		ExpectedTask *task = &expected->tasks[i];
		char		name[MAX_TASK_NAME];
		Typical    *typical;

		task->task_no = (int) weir_spi_int64(i, 1, NULL);
		strlcpy(name, weir_spi_text(i, 2), sizeof(name));
		typical = hash_search(history->tasks, name, HASH_FIND, NULL);
		task->seconds = typical != NULL ? typical->seconds : -1;
		if (!task_status_parse(weir_spi_text(i, 3), &task->status))
			elog(ERROR, "unknown status of a task of run " INT64_FORMAT, run_id);
		task->started_at = timestamp_column(i, 4);
		task->not_before = timestamp_column(i, 5);
		task->start = task->end = UNKNOWN;
	}
}

/* Start and end of a task; from: when what is upstream of it will have ended. */
static void
expect_task(Look *look, ExpectedTask *task, TimestampTz from)
{
	if (task_status_is_final(task->status))
		task->end = look->now;
	else if (task->status == TASK_RUNNING)
		task->end = task->started_at == UNKNOWN ? UNKNOWN : later(task->started_at, task->seconds);
	else
	{
		task->start = from;
		if (task->not_before != UNKNOWN && task->not_before > look->now)
			task->start = task->not_before;
		task->end = later(task->start, task->seconds);
	}
	if (task->end != UNKNOWN)
		task->end = Max(task->end, look->now);
}

/* Along the longest way through what is left.  start: of the run. */
static void
expect_tasks(Look *look, Expected *expected, TimestampTz start)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(expected->pipeline_id), Int32GetDatum(expected->version)};
	int			highest = 0;
	int		   *index;
	int		   *first;
	uint64		n;

	n = weir_spi("SELECT task_no, upstream_no FROM weir.task_dependency WHERE pipeline_id = $1 AND version = $2 ORDER BY task_no",
				 2, types, values, NULL);
	for (int i = 0; i < expected->ntasks; i++)
		highest = Max(highest, expected->tasks[i].task_no);
	index = palloc(sizeof(int) * (highest + 1));	/* of the task, and of its first dependency, by number */
	first = palloc(sizeof(int) * (highest + 1));
	for (int i = 0; i <= highest; i++)
		index[i] = first[i] = -1;
	for (int i = 0; i < expected->ntasks; i++)
		index[expected->tasks[i].task_no] = i;
	for (uint64 k = n; k-- > 0;)
		if (weir_spi_int64(k, 1, NULL) <= highest)
			first[weir_spi_int64(k, 1, NULL)] = (int) k;

	expected->end = look->now;
	for (int i = 0; i < expected->ntasks; i++)
	{
		ExpectedTask *task = &expected->tasks[i];
		TimestampTz from = start;

		for (int64 k = first[task->task_no]; k >= 0 && k < n && weir_spi_int64(k, 1, NULL) == task->task_no; k++)
		{
			int64		upstream = weir_spi_int64(k, 2, NULL);

			if (upstream <= highest && index[upstream] >= 0)
				from = Max(from, expected->tasks[index[upstream]].end);
		}
		expect_task(look, task, from);
		expected->end = Max(expected->end, task->end);
	}
}

static bool
read_run(int64 run_id, Expected *expected)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	char	   *name;

	memset(expected, 0, sizeof(*expected));
	expected->start = expected->end = UNKNOWN;
	if (weir_spi("SELECT status, pipeline_id, version FROM weir.run WHERE run_id = $1 AND NOT is_external "
				 "AND status IN ('queued', 'running')", 1, types, values, NULL) != 1)
		return false;
	name = weir_spi_text(0, 1);
	if (!run_status_parse(name, &expected->status))
		elog(ERROR, "unknown status of run " INT64_FORMAT, run_id);
	expected->pipeline_id = weir_spi_int64(0, 2, NULL);
	expected->version = weir_spi_int64(0, 3, NULL);
	return true;
}

static int
compare_timestamps(const void *a, const void *b)
{
	TimestampTz x = *(const TimestampTz *) a;
	TimestampTz y = *(const TimestampTz *) b;

	return (x > y) - (x < y);
}

static void expect_run(Look *look, int64 run_id, Expected *expected);

/* A queued run starts when enough of those that run have ended; further back in the queue nobody knows. */
static TimestampTz
expect_start(Look *look, int64 run_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};
	int			n,
				needed;
	int64	   *active;
	TimestampTz *ends;

	/* Those of an outside orchestrator end when they like: their end is unknown. */
	n = (int) weir_spi("SELECT a.run_id, (SELECT count(*) FROM weir.run q WHERE q.pipeline_id = r.pipeline_id AND q.status = 'queued' "
					   "AND (q.priority > r.priority OR (q.priority = r.priority AND q.run_id < r.run_id))) - v.max_concurrent_runs "
					   "FROM weir.run r JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id AND p.is_enabled AND NOT p.is_paused "
					   "JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version "
					   "LEFT JOIN weir.run a ON a.pipeline_id = r.pipeline_id AND a.status IN ('running', 'cancelling') "
					   "WHERE r.run_id = $1 AND r.backfill_id IS NULL AND r.on_overlap IS NULL",
					   1, types, values, NULL);
	if (n == 0)
		return UNKNOWN;
	needed = (int) weir_spi_int64(0, 2, NULL) + 1;
	active = palloc(sizeof(int64) * n);
	ends = palloc(sizeof(TimestampTz) * n);
	for (int i = 0; i < n; i++)
		active[i] = weir_spi_int64(i, 1, NULL);
	if (active[0] == 0)
		n = 0;
	needed += n;				/* so many of them must end first */
	if (needed <= 0)
		return look->now;
	if (needed > n)
		return UNKNOWN;
	for (int i = 0; i < n; i++)
	{
		Expected	other;

		expect_run(look, active[i], &other);
		ends[i] = other.end;
	}
	qsort(ends, n, sizeof(TimestampTz), compare_timestamps);
	return ends[needed - 1];
}

static void
expect_run(Look *look, int64 run_id, Expected *expected)
{
	TimestampTz start = look->now;

	if (!read_run(run_id, expected))
		return;
	if (expected->status == RUN_QUEUED)
		start = expected->start = expect_start(look, run_id);
	read_tasks(look, run_id, expected);
	expect_tasks(look, expected, start);
}

static void
put(ReturnSetInfo *rsinfo, int64 run_id, int task_no, TimestampTz start, TimestampTz end)
{
	Datum		values[] = {Int64GetDatum(run_id), Int32GetDatum(task_no), TimestampTzGetDatum(start), TimestampTzGetDatum(end)};
	bool		nulls[] = {false, false, start == UNKNOWN, end == UNKNOWN};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* _expected(run_ids) */
Datum
weir_expected(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Look		look = {GetCurrentTimestamp(), NULL};
	WeirScope	scope;
	Datum	   *ids;
	bool	   *nulls;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, &nulls, &n);
	weir_enter(&scope);
	for (int i = 0; i < n; i++)
	{
		Expected	expected;

		if (nulls[i])
			continue;
		expect_run(&look, DatumGetInt64(ids[i]), &expected);
		put(rsinfo, DatumGetInt64(ids[i]), 0, expected.start, expected.end);
		for (int t = 0; t < expected.ntasks; t++)
			if (!task_status_is_final(expected.tasks[t].status))
				put(rsinfo, DatumGetInt64(ids[i]), expected.tasks[t].task_no, expected.tasks[t].start, expected.tasks[t].end);
	}
	weir_leave(&scope);
	return (Datum) 0;
}
