/*-------------------------------------------------------------------------
 * expected.c
 *	  When what has not ended is expected to start and to end.
 *
 * Runs in the session of a client and only reads; locks nothing.  A task is
 * expected to take as long as it did in the median of the last successful
 * runs of its pipeline, and to start when the last task upstream of it is
 * expected to end and what it shares with others (slots of a pool, attempts
 * through a connection, SQL workers) comes free; a queued run starts when the
 * runs it waits for end.  What is not known is null rather than guessed: a
 * task without history makes everything after it unknown.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "compat.h"
#include "foresee.h"
#include "landing.h"
#include "status.h"

PG_FUNCTION_INFO_V1(weir_expected);

#define UNKNOWN			DT_NOEND
typedef struct ExpectedTask
{
	int			task_no;
	TaskStatus	status;
	TimestampTz started_at;		/* UNKNOWN if it has not */
	TimestampTz not_before;		/* UNKNOWN if nothing says so */
	double		seconds;		/* PACE_UNKNOWN */
	double		left;			/* of a list that is going on: what its items still take; PACE_UNKNOWN */
	int			priority;
	TaskNeeds	needs;
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
	Foresight  *foresight;
} Look;

static TimestampTz
timestamp_column(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? UNKNOWN : DatumGetTimestampTz(value);
}

static TimestampTz
moment(const Look *look, double seconds)
{
	return seconds < 0 ? UNKNOWN : look->now + (TimestampTz) (seconds * 1000000);
}

/*
 * What the items of a list still take, so many at a time as may run.  The
 * history of the whole list says nothing of one that is longer.
 */
static void
read_list(Look *look, int64 pipeline_id, int64 task_run_id, const char *name, ExpectedTask *task)
{
	static const Oid types[] = {INT8OID, FLOAT8OID};
	double		seconds = foresight_item_seconds(look->foresight, pipeline_id, name);
	Datum		values[] = {Int64GetDatum(task_run_id), Float8GetDatum(seconds)};
	char	   *left;

	if (seconds < 0)
		return;
	weir_spi("SELECT (CASE WHEN n.idle + n.running > 0 THEN greatest((n.idle * $2 + n.rest) / least(n.concurrency, n.idle + n.running), "
			 "n.longest, CASE WHEN n.idle > 0 THEN $2 ELSE 0 END) END)::text FROM (SELECT max(least(c.concurrency, c.run_limit)) AS concurrency, "
			 "count(*) FILTER (WHERE i.status <> 'running') AS idle, count(*) FILTER (WHERE i.status = 'running') AS running, "
			 "coalesce(sum(x.rest) FILTER (WHERE i.status = 'running'), 0) AS rest, coalesce(max(x.rest) FILTER (WHERE i.status = 'running'), 0) AS longest "
			 "FROM weir.task_run p JOIN weir.run r ON r.run_id = p.run_id "
			 "JOIN weir.task c ON c.pipeline_id = r.pipeline_id AND c.version = r.version AND c.parent_no = p.task_no "
			 "JOIN weir.task_run i ON i.run_id = p.run_id AND i.task_no = c.task_no AND i.item_no > 0 "
			 "CROSS JOIN LATERAL (SELECT greatest($2 - extract(epoch FROM clock_timestamp() - i.started_at)::double precision, 0) AS rest) x "
			 "WHERE p.task_run_id = $1 AND i.status IN ('waiting', 'ready', 'running')) n",
			 2, types, values, NULL);
	left = weir_spi_text(0, 1);
	if (left != NULL)
		task->left = strtod(left, NULL);
}

/* Tasks of the run, or that it will have: what of them has ended is past. */
static void
read_tasks(Look *look, int64 run_id, Expected *expected)
{
	static const Oid types[] = {INT8OID, BOOLOID};
	LandingWish wish = {.run_id = run_id};
	Landing		landing;
	bool		may_resume = expected->status == RUN_QUEUED && landing_choose(&wish, &landing) != LANDING_NOT_FOR_IT;
	Datum		values[] = {Int64GetDatum(run_id), BoolGetDatum(may_resume)};
	SPITupleTable *table;

	expected->ntasks = (int)
		weir_spi("SELECT d.task_no, d.name, CASE WHEN t.status IS NOT NULL THEN t.status "
				 "WHEN NOT d.is_enabled OR NOT d.name = ANY (r.selected_tasks) THEN 'skipped' "
				 "WHEN d.phase = 'land' AND s.next_load_status = 'D' AND $2 AND r.backfill_id IS NULL THEN 'reused' "
				 "WHEN d.upstream_count = 0 THEN 'ready' ELSE 'waiting' END, t.started_at, t.not_before, "
				 "r.priority + d.priority, CASE WHEN d.kind <> 'for_each' THEN d.pool END, d.pool_slots, d.connection_name, "
				 "coalesce(t.lane LIKE 'sql%', d.kind IN ('sql', 'redis_publish')), t.status = 'running' AND d.kind = 'for_each', t.task_run_id, d.run_limit::bigint "
				 "FROM weir.run r JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version "
				 "JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id "
				 "LEFT JOIN weir.task_run t ON t.run_id = r.run_id AND t.task_no = d.task_no AND t.item_no = 0 "
				 "WHERE r.run_id = $1 AND d.parent_no IS NULL AND (t.run_id IS NOT NULL OR r.status = 'queued') ORDER BY d.wave, d.task_no",
				 2, types, values, NULL);
	table = SPI_tuptable;
	expected->tasks = palloc0(sizeof(ExpectedTask) * Max(expected->ntasks, 1));
	for (int i = 0; i < expected->ntasks; i++)
	{
		ExpectedTask *task = &expected->tasks[i];
		char	   *name;
		bool		is_list;
		int64		task_run_id;

		SPI_tuptable = table;
		task->task_no = (int) weir_spi_int64(i, 1, NULL);
		name = weir_spi_text(i, 2);
		if (!task_status_parse(weir_spi_text(i, 3), &task->status))
			elog(ERROR, "unknown status of a task of run " INT64_FORMAT, run_id);
		task->started_at = timestamp_column(i, 4);
		task->not_before = timestamp_column(i, 5);
		task->priority = (int) weir_spi_int64(i, 6, NULL);
		task->needs.pool = weir_spi_text(i, 7);
		task->needs.pool_slots = (int) weir_spi_int64(i, 8, NULL);
		task->needs.connection = weir_spi_text(i, 9);
		task->needs.needs_worker = weir_spi_bool(i, 10, NULL);
		is_list = weir_spi_bool(i, 11, NULL);
		task_run_id = weir_spi_int64(i, 12, NULL);
		task->needs.run_limit = (int) weir_spi_int64(i, 13, NULL);
		task->seconds = foresight_seconds(look->foresight, expected->pipeline_id, name);
		task->left = PACE_UNKNOWN;
		if (is_list)
			read_list(look, expected->pipeline_id, task_run_id, name, task);
		task->start = task->end = UNKNOWN;
	}
}

/* Seconds from now until a moment, 0 if it is past */
static double
seconds_until(const Look *look, TimestampTz when)
{
	return when == UNKNOWN || when <= look->now ? 0 : (when - look->now) / 1000000.0;
}

/* start: of the run. */
static void
fill_pace(Look *look, int64 run_id, const ExpectedTask *task, TimestampTz start, PaceTask *pace)
{
	memset(pace, 0, sizeof(*pace));
	pace->seconds = task->seconds;
	pace->priority = task->priority;
	pace->not_before = Max(seconds_until(look, start), seconds_until(look, task->not_before));
	pace->state = task_status_is_final(task->status) ? PACE_ENDED :
		task->status == TASK_RUNNING ? PACE_RUNNING : PACE_WAITING;
	foresight_room(look->foresight, run_id, &task->needs, pace);
	if (pace->state == PACE_RUNNING && task->left >= 0)
		pace->seconds = task->left;
	else if (pace->state == PACE_RUNNING && pace->seconds >= 0)
		pace->seconds = task->started_at == UNKNOWN ? PACE_UNKNOWN :
			Max(pace->seconds - (look->now - task->started_at) / 1000000.0, 0);
}

/* Dependencies between tasks of the run, by their indices */
static PaceEdge *
read_edges(const Expected *expected, int *nedges)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(expected->pipeline_id), Int32GetDatum(expected->version)};
	int			highest = 0;
	int		   *index;
	PaceEdge   *edges;
	uint64		n;

	n = weir_spi("SELECT upstream_no, task_no FROM weir.task_dependency WHERE pipeline_id = $1 AND version = $2",
				 2, types, values, NULL);
	for (int i = 0; i < expected->ntasks; i++)
		highest = Max(highest, expected->tasks[i].task_no);
	index = palloc(sizeof(int) * (highest + 1));
	memset(index, -1, sizeof(int) * (highest + 1));
	for (int i = 0; i < expected->ntasks; i++)
		index[expected->tasks[i].task_no] = i;
	edges = palloc(sizeof(PaceEdge) * Max(n, 1));
	*nedges = 0;
	for (uint64 k = 0; k < n; k++)
	{
		int64		from = weir_spi_int64(k, 1, NULL);
		int64		to = weir_spi_int64(k, 2, NULL);

		if (from <= highest && to <= highest && index[from] >= 0 && index[to] >= 0)
			edges[(*nedges)++] = (PaceEdge) {index[from], index[to]};
	}
	return edges;
}

/* Along what is left, with what has to be shared.  start: of the run. */
static void
expect_tasks(Look *look, int64 run_id, Expected *expected, TimestampTz start)
{
	PaceTask   *pace = palloc(sizeof(PaceTask) * Max(expected->ntasks, 1));
	PaceEdge   *edges;
	int			nedges;

	expected->end = start == UNKNOWN ? UNKNOWN : look->now;
	if (start == UNKNOWN)
		return;
	edges = read_edges(expected, &nedges);
	for (int i = 0; i < expected->ntasks; i++)
		fill_pace(look, run_id, &expected->tasks[i], start, &pace[i]);
	foresight_pace(look->foresight, run_id, pace, expected->ntasks, edges, nedges);
	for (int i = 0; i < expected->ntasks; i++)
	{
		expected->tasks[i].start = moment(look, pace[i].start);
		expected->tasks[i].end = moment(look, pace[i].end);
		expected->end = Max(expected->end, expected->tasks[i].end);
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

	/*
	 * Those of an outside orchestrator end when they like: their end is
	 * unknown.  OFFSET 0: a view of two tables cannot be joined by an index.
	 */
	n = (int) weir_spi("SELECT a.run_id, (SELECT count(*) FROM weir.run q WHERE q.pipeline_id = r.pipeline_id AND q.live = 'q' "
					   "AND (q.priority > r.priority OR (q.priority = r.priority AND q.run_id < r.run_id))) - v.max_concurrent_runs "
					   "FROM weir.run r JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id AND p.is_enabled AND NOT p.is_paused "
					   "JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version "
					   "LEFT JOIN LATERAL (SELECT g.run_id FROM weir._active g WHERE g.pipeline_id = r.pipeline_id OFFSET 0) a ON true "
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
	expect_tasks(look, run_id, expected, start);
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
	Look		look = {GetCurrentTimestamp()};
	WeirScope	scope;
	Datum	   *ids;
	bool	   *nulls;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, &nulls, &n);
	weir_enter(&scope);
	look.foresight = foresight_begin();
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
