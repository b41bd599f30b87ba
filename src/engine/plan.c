/*-------------------------------------------------------------------------
 * plan.c
 *	  weir.plan: what a trigger now would do, without doing it.
 *
 * Runs in the session of a client, also in a read-only transaction and on a
 * standby.  The decision and the tasks come from the statements and the code
 * the conductor starts runs with (starting.h, core/restart.c, core/flow.c).
 * Takes no lock anybody waits for; what it says is true of the moment it
 * looked: runs that go before may change it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "json.h"
#include "landing.h"
#include "mem.h"
#include "plan.h"
#include "runapi.h"
#include "shmem.h"
#include "starting.h"

PG_FUNCTION_INFO_V1(weir_plan);

/* Columns of weir.plan */
enum
{
	COL_WAVE, COL_TASK, COL_KIND, COL_PHASE, COL_ACTION, COL_REASON, COL_WAITS_FOR, COL_LIMITS,
	COL_CONNECTION, COL_RETRY, COL_TIMEOUT, COL_SPEC, COL_STARTS_AFTER, COL_ENDS_AFTER, N_COLS
};

typedef struct PlanRow
{
	Datum		values[N_COLS];
	bool		nulls[N_COLS];
} PlanRow;

/* The start as a whole. */
typedef struct PlanStart
{
	int64		pipeline_id;
	int			version;
	StartFacts	facts;
	RestartDecision decision;
	bool		resumes;
	bool		is_skipped;
	bool		overlaps;		/* ... because of on_overlap */
	int			max_concurrent_runs;
	int			max_concurrent_tasks;	/* 0: any number */
	char	   *on_overlap;
	int			priority;
	bool		is_paused;
	int			n_active;
	int			queued_before;
	char	   *active;			/* ids of runs that have not ended, "3, 4", or NULL */
	char	   *older;			/* those that cancel_older cancels, or NULL */
	Datum		timeout;
	bool		no_timeout;
} PlanStart;

static void
row_init(PlanRow *row)
{
	memset(row->values, 0, sizeof(row->values));
	memset(row->nulls, true, sizeof(row->nulls));
}

static void
row_set(PlanRow *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

static void
row_text(PlanRow *row, int column, const char *value)
{
	if (value != NULL)
		row_set(row, column, catalog_text(value));
}

/* Whole milliseconds as an interval; nothing if not known */
static void
row_seconds(PlanRow *row, int column, double seconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	if (seconds < 0)
		return;
	interval->time = (TimeOffset) (seconds * 1000 + 0.5) * 1000;
	row_set(row, column, IntervalPGetDatum(interval));
}

static cJSON *
json_of(const char *text)
{
	char	   *error = NULL;
	cJSON	   *value = text == NULL ? NULL : json_parse_stored(text, &error);

	if (text != NULL && value == NULL)
		elog(ERROR, "could not read stored JSON: %s", error);
	return value;
}

/* ---- the start ---- */

static void
read_start(PlanStart *start, const LandingWish *wish)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(start->pipeline_id), Int32GetDatum(start->version)};
	bool		isnull;

	if (weir_spi(START_FACTS("true", "NULL::bigint", "weir.pipeline p JOIN weir.pipeline_state s USING (pipeline_id) WHERE p.pipeline_id = $1"),
				 1, types, values, NULL) != 1)
		elog(ERROR, "pipeline has no state");
	start->decision = start_decide_row(&start->facts, wish);
	start->resumes = start->decision.code == START_RESUME;

	(void) weir_spi("SELECT v.max_concurrent_runs, v.on_overlap, v.priority, p.is_paused, coalesce(cardinality(a.ids), 0), "
					"array_to_string(a.ids, ', '), "
					"(SELECT count(*) FROM weir.run r WHERE r.pipeline_id = $1 AND r.live = 'q' AND r.priority >= v.priority), "
	/* by their indexes: the log of a pipeline is long */
					"(SELECT string_agg(o.run_id::text, ', ' ORDER BY o.run_id) FROM "
					"(SELECT q.run_id FROM weir.run q WHERE q.pipeline_id = $1 AND q.live = 'q' AND NOT q.is_apart AND NOT q.is_external "
					"UNION ALL SELECT q.run_id FROM weir.run q WHERE q.pipeline_id = $1 AND q.live = 'a' AND q.status = 'running' "
					"AND NOT q.is_apart AND NOT q.is_external) o), v.run_timeout, v.max_concurrent_tasks::bigint "
					"FROM weir.pipeline p JOIN weir.pipeline_version v USING (pipeline_id) CROSS JOIN LATERAL "
					"(SELECT array_agg(r.run_id ORDER BY r.run_id) AS ids FROM weir._active r "
					"WHERE r.pipeline_id = $1) a WHERE v.pipeline_id = $1 AND v.version = $2",
					2, types, values, NULL);
	start->max_concurrent_runs = (int) weir_spi_int64(0, 1, NULL);
	start->on_overlap = weir_spi_text(0, 2);
	start->priority = (int) weir_spi_int64(0, 3, NULL);
	start->is_paused = weir_spi_bool(0, 4, NULL);
	start->n_active = (int) weir_spi_int64(0, 5, NULL);
	start->active = weir_spi_text(0, 6);
	start->queued_before = (int) weir_spi_int64(0, 7, NULL);
	start->older = weir_spi_text(0, 8);
	start->timeout = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 9, &isnull);
	start->no_timeout = isnull;
	start->max_concurrent_tasks = (int) weir_spi_int64(0, 10, NULL);

	start->is_skipped = !start_code_runs(start->decision.code);
	if (!start->is_paused && strcmp(start->on_overlap, "skip") == 0 && start->n_active >= start->max_concurrent_runs)
	{
		start->is_skipped = start->overlaps = true;
		start->decision.code = START_SKIP;
	}
}

static const char *
decision_reason(const PlanStart *start)
{
	if (start->overlaps)
		return psprintf("it is skipped: run %s has not ended, max_concurrent_runs is %d and on_overlap is skip",
						start->active, start->max_concurrent_runs);
	if (start->facts.skip_once)
		return "it is skipped, once, as was asked for";
	if (start->facts.lands_beside)
		return "what failed runs landed is for other parameters, or is being resumed: this run lands its own";
	switch (start->facts.next_load)
	{
		case NEXT_LOAD_SKIP:
			return "it is skipped, once: the run before says so";
		case NEXT_LOAD_RERUN:
			return "the run before did not succeed and had not landed everything: all runs again";
		case NEXT_LOAD_RESUME:
			return psprintf("run " INT64_FORMAT " failed after landing: landing is reused, with row_audit_id " INT64_FORMAT,
							start->facts.last_run_id, start->facts.origin);
		case NEXT_LOAD_PROCESS:
			break;
	}
	return start->facts.last_run_id == 0 ? "it never ran" : "nothing is left over from the run before";
}

/* When it starts, in words. */
static const char *
queue_reason(const PlanStart *start)
{
	if (start->overlaps)
		return NULL;
	if (start->is_paused)
		return "the pipeline is paused: it stays queued";
	if (strcmp(start->on_overlap, "cancel_older") == 0 && start->older != NULL)
		return psprintf("cancels run %s, then starts", start->older);
	if (start->n_active + start->queued_before < start->max_concurrent_runs)
		return start->is_skipped ? NULL : "starts at once";
	return psprintf("queued at place %d%s, max_concurrent_runs is %d; what goes before decides anew", start->queued_before + 1,
					start->active == NULL ? "" : psprintf(": run %s has not ended", start->active), start->max_concurrent_runs);
}

/* ends_after: the last of its tasks, in seconds */
static void
put_start(ReturnSetInfo *rsinfo, const PlanStart *start, const TaskContext *run, double ends_after)
{
	const char *queue = queue_reason(start);
	cJSON	   *spec = cJSON_CreateObject();
	PlanRow		row;

	row_init(&row);
	row_set(&row, COL_WAVE, Int32GetDatum(0));
	row_text(&row, COL_ACTION, psprintf("%c", (char) start->decision.code));
	row_text(&row, COL_REASON, psprintf("%s%s%s", decision_reason(start), queue ? "; " : "", queue ? queue : ""));
	row_text(&row, COL_LIMITS, psprintf("max_concurrent_runs %d%s, on_overlap %s, priority %d", start->max_concurrent_runs,
										start->max_concurrent_tasks == 0 ? "" : psprintf(", max_concurrent_tasks %d", start->max_concurrent_tasks),
										start->on_overlap, start->priority));
	if (!start->no_timeout)
		row_set(&row, COL_TIMEOUT, start->timeout);
	if (!start->is_skipped)
		row_seconds(&row, COL_ENDS_AFTER, ends_after);
	cJSON_AddItemToObject(spec, "version", json_from_int64(start->version));
	cJSON_AddItemToObject(spec, "params", cJSON_Duplicate(run->params, true));
	if (start->resumes)
		cJSON_AddItemToObject(spec, "row_audit_id", json_from_int64(start->facts.origin));
	cJSON_AddItemToObject(spec, "active_runs", json_from_int64(start->n_active));
	cJSON_AddItemToObject(spec, "queued_before", json_from_int64(start->queued_before));
	row_set(&row, COL_SPEC, catalog_jsonb(json_text(spec)));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row.values, row.nulls);
}

/* ---- its tasks ---- */

static void
read_task(uint64 row, PlanTask *task, ForecastTask *forecast)
{
	bool		isnull;

	task->task_no = (int) weir_spi_int64(row, 1, NULL);
	task->name = weir_spi_text(row, 2);
	task->kind = weir_spi_text(row, 3);
	task->phase = weir_spi_text(row, 4);
	task->wave = (int) weir_spi_int64(row, 5, NULL);
	task->reused = weir_spi_bool(row, 6, NULL);
	task->skip_reason = weir_spi_text(row, 7);
	task->run_if = weir_spi_text(row, 8);
	task->connection = weir_spi_text(row, 9);
	task->connection_exists = weir_spi_bool(row, 10, NULL);
	task->spec = json_of(weir_spi_text(row, 11));
	task->retry = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 12, &isnull);
	task->timeout = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 13, &task->no_timeout);
	task->resumes = weir_spi_text(row, 14);
	task->output = json_of(weir_spi_text(row, 15));
	task->concurrency = (int) weir_spi_int64(row, 16, NULL);
	if (task->concurrency > 0)
		cJSON_AddItemToObject(task->spec, "task", json_of(weir_spi_text(row, 17)));
	task->priority = (int) weir_spi_int64(row, 18, NULL);
	task->needs.pool = weir_spi_text(row, 19);
	task->needs.pool_slots = (int) weir_spi_int64(row, 20, NULL);
	task->needs.connection = task->connection;
	task->needs.needs_worker = weir_spi_bool(row, 21, NULL);
	task->item_needs.pool = weir_spi_text(row, 22);
	task->item_needs.pool_slots = (int) weir_spi_int64(row, 23, NULL);
	task->item_needs.connection = weir_spi_text(row, 24);
	task->item_needs.needs_worker = weir_spi_bool(row, 25, NULL);
	task->needs.run_limit = (int) weir_spi_int64(row, 26, NULL);
	if (!run_if_parse(task->run_if, &forecast->run_if))
		elog(ERROR, "unknown value \"%s\" of run_if", task->run_if);
	forecast->has_ended = task->reused || task->skip_reason != NULL;
}

static void
read_tasks(const PlanStart *start, Datum selected, bool all_selected, PlanTasks *plan)
{
	static const Oid types[] = {INT8OID, BOOLOID, INT8OID, INT4OID, TEXTARRAYOID};
	Datum		values[] = {Int64GetDatum(start->pipeline_id), BoolGetDatum(start->resumes),
	Int64GetDatum(start->facts.last_run_id), Int32GetDatum(start->version), selected};
	const char *nulls = all_selected ? "    n" : "     ";

	plan->ntasks = (int)
		weir_spi(STARTING_TASKS("SELECT $1::bigint AS pipeline_id, $4::integer AS version, $5::text[] AS selected_tasks")
				 "SELECT x.task_no, x.name, x.kind, x.phase, x.wave, x.reused, x.skip_reason, x.run_if, x.connection_name, c.name IS NOT NULL, "
				 "x.spec, jsonb_build_object('max_attempts', x.max_attempts, 'initial_delay', trim_scale(x.retry_initial_ms / 1000.0), "
				 "'max_delay', trim_scale(x.retry_max_ms / 1000.0), 'multiplier', x.retry_multiplier, 'jitter', x.retry_jitter), x.attempt_timeout, "
				 "x.resume->>'external_run_id', CASE WHEN x.keeps_old THEN x.old_output END, "
				 "i.concurrency, jsonb_strip_nulls(jsonb_build_object('kind', i.kind, 'connection', i.connection_name)) || jsonb_build_object('spec', i.spec), "
				 "x.priority, CASE WHEN x.kind <> 'for_each' THEN x.pool END, x.pool_slots, "
				 "x.kind IN ('sql', 'redis_publish') OR (x.kind = 'for_each' AND jsonb_typeof(x.spec->'items') = 'object'), "
				 "i.pool, i.pool_slots, i.connection_name, coalesce(i.kind IN ('sql', 'redis_publish'), false), x.run_limit::bigint "
				 "FROM x LEFT JOIN weir.connection c ON c.name = x.connection_name "
				 "LEFT JOIN weir.task i ON i.pipeline_id = $1 AND i.version = $4 AND i.parent_no = x.task_no ORDER BY x.wave, x.task_no",
				 5, types, values, nulls);
	plan->tasks = palloc0(sizeof(PlanTask) * Max(plan->ntasks, 1));
	plan->forecast = palloc0(sizeof(ForecastTask) * Max(plan->ntasks, 1));
	for (int i = 0; i < plan->ntasks; i++)
	{
		read_task(i, &plan->tasks[i], &plan->forecast[i]);
		plan->tasks[i].priority += start->priority;
	}
}

/* Dependencies in the order of the tasks; they name indices of theirs. */
static ForecastEdge *
read_edges(const PlanStart *start, const PlanTasks *plan, int *nedges)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(start->pipeline_id), Int32GetDatum(start->version)};
	ForecastEdge *edges;
	int		   *index;
	int			highest = 0;
	int			kept = 0;

	for (int i = 0; i < plan->ntasks; i++)
		highest = Max(highest, plan->tasks[i].task_no);
	index = palloc(sizeof(int) * (highest + 1));
	memset(index, -1, sizeof(int) * (highest + 1));
	for (int i = 0; i < plan->ntasks; i++)
		index[plan->tasks[i].task_no] = i;

	*nedges = (int) weir_spi("SELECT d.task_no, d.upstream_no, d.condition, d.branch FROM weir.task_dependency d "
							 "JOIN weir.task t USING (pipeline_id, version, task_no) "
							 "WHERE d.pipeline_id = $1 AND d.version = $2 ORDER BY t.wave, d.task_no, d.upstream_no",
							 2, types, values, NULL);
	edges = palloc0(sizeof(ForecastEdge) * Max(*nedges, 1));
	for (int i = 0; i < *nedges; i++)
	{
		int			to = (int) weir_spi_int64(i, 1, NULL);
		int			from = (int) weir_spi_int64(i, 2, NULL);

		if (to > highest || from > highest || index[to] < 0 || index[from] < 0)
			continue;			/* inside of another task: that is its own affair */
		edges[kept].to = index[to];
		edges[kept].from = index[from];
		if (!edge_condition_parse(weir_spi_text(i, 3), &edges[kept].condition))
			elog(ERROR, "unknown condition of a dependency");
		edges[kept++].branch = weir_spi_text(i, 4);
	}
	*nedges = kept;
	return edges;
}

/* "b", "b (failed)" or "b = true": what of an upstream task the dependency asks for */
static const char *
edge_words(const PlanTasks *plan, const ForecastEdge *edge)
{
	const char *name = plan->tasks[edge->from].name;

	if (edge->branch != NULL)
		return psprintf("branch \"%s\" of task \"%s\"", edge->branch, name);
	if (edge->condition != EDGE_SUCCESS)
		return psprintf("end \"%s\" of task \"%s\"", edge_condition_name(edge->condition), name);
	return psprintf("task \"%s\"", name);
}

static const char *
task_reason(const PlanTasks *plan, int t, const ForecastEdge *edges, int64 last_run_id)
{
	const PlanTask *task = &plan->tasks[t];
	const ForecastTask *forecast = &plan->forecast[t];
	const char *because = forecast->because < 0 ? NULL : edge_words(plan, &edges[forecast->because]);

	if (task->reused)
		return psprintf("landed by run " INT64_FORMAT " or before it", last_run_id);
	if (task->skip_reason != NULL)
		return strcmp(task->skip_reason, "disabled") == 0 ? "the task is disabled" : "it is not selected";
	switch (forecast->fate)
	{
		case FORECAST_FAILS:
			return task->problem;
		case FORECAST_SKIPPED:
			return run_if_handles_failure(forecast->run_if) ? psprintf("run_if is %s and nothing is known to fail", task->run_if) :
				because ? psprintf("not taken: %s", because) : "not taken";
		case FORECAST_BLOCKED:
			return because ? psprintf("blocked by the failure of %s", because) : "blocked by a failure";
		case FORECAST_DEPENDS:
			return because ? psprintf("depends on %s, not known yet", because) : "not known yet";
		default:
			break;
	}
	if (task->note != NULL)
		return task->note;
	if (task->resumes != NULL)
		return psprintf("resumes external run %s", task->resumes);
	if (forecast->branch != NULL)
		return psprintf("takes branch \"%s\"", forecast->branch);
	return strcmp(task->run_if, "all_success") == 0 ? NULL : psprintf("run_if is %s", task->run_if);
}

static const char *
task_action(const PlanTasks *plan, int t)
{
	static const char *const words[] = {
		[FORECAST_ENDED] = "skipped",
		[FORECAST_RUNS] = "run",
		[FORECAST_FAILS] = "fails",
		[FORECAST_SKIPPED] = "skipped",
		[FORECAST_BLOCKED] = "blocked",
		[FORECAST_DEPENDS] = "depends",
	};

	return plan->tasks[t].reused ? "reused" : words[plan->forecast[t].fate];
}

/* first: of its edges */
static void
put_task(ReturnSetInfo *rsinfo, const PlanStart *start, const PlanTasks *plan, int t,
		 const ForecastEdge *edges, int first, int nedges)
{
	const PlanTask *task = &plan->tasks[t];
	bool		runs = !start->is_skipped && !plan->forecast[t].has_ended;
	Datum	   *waits;
	int			n_waits = 0;
	PlanRow		row;

	while (first + n_waits < nedges && edges[first + n_waits].to == t)
		n_waits++;
	waits = palloc(sizeof(Datum) * (n_waits + 1));
	n_waits = 0;
	row_init(&row);
	row_set(&row, COL_WAVE, Int32GetDatum(task->wave));
	row_text(&row, COL_TASK, task->name);
	row_text(&row, COL_KIND, task->kind);
	row_text(&row, COL_PHASE, task->phase);
	row_text(&row, COL_ACTION, start->is_skipped ? "skipped" : task_action(plan, t));
	row_text(&row, COL_REASON, start->is_skipped ? "the run is skipped" : task_reason(plan, t, edges, start->facts.last_run_id));
	for (int e = first; runs && e < nedges && edges[e].to == t; e++)
		if (!plan->forecast[edges[e].from].has_ended)
			waits[n_waits++] = catalog_text(plan->tasks[edges[e].from].name);
	row_set(&row, COL_WAITS_FOR, weir_array(TEXTOID, waits, n_waits));
	row_text(&row, COL_LIMITS, task->limits);
	if (runs)
	{
		row_seconds(&row, COL_STARTS_AFTER, task->starts_after);
		row_seconds(&row, COL_ENDS_AFTER, task->ends_after);
	}
	row_text(&row, COL_CONNECTION, task->connection);
	row_set(&row, COL_RETRY, task->retry);
	if (!task->no_timeout)
		row_set(&row, COL_TIMEOUT, task->timeout);
	row_set(&row, COL_SPEC, catalog_jsonb(json_text(task->spec)));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row.values, row.nulls);
}

/* What references to the run stand for, as far as a run now would know it. */
static void
describe_run(const char *pipeline, const PlanStart *start, Datum params, TaskContext *run)
{
	static const Oid types[] = {TEXTOID, INT4OID, INT8OID, JSONBOID};
	Datum		values[] = {catalog_text(pipeline), Int32GetDatum(start->version), Int64GetDatum(start->facts.origin), params};
	char	   *nulls = start->resumes ? "    " : "  n ";

	(void) weir_spi("SELECT jsonb_build_object('pipeline', $1, 'version', $2, 'attempt', 1, 'nominal_time', now(), "
					"'window_start', NULL, 'window_end', NULL, 'trigger_type', 'manual', 'parent_id', NULL) || "
					"CASE WHEN $3 IS NULL THEN '{}' ELSE jsonb_build_object('row_audit_id', $3) END, $4",
					4, types, values, nulls);
	run->pipeline_id = start->pipeline_id;
	run->version = start->version;
	run->attempt_no = 1;
	run->run = json_of(weir_spi_text(0, 1));
	run->params = json_of(weir_spi_text(0, 2));
}

/* plan(pipeline, params, tasks) */
Datum
weir_plan(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	WeirScope	scope;
	char	   *pipeline = catalog_arg_required(fcinfo, 0, "pipeline", RUN_MAX_PIPELINE_NAME);
	PlanStart	start = {0};
	PlanTasks	plan = {0};
	LandingWish wish = {0};
	ForecastEdge *edges;
	Datum		params;
	Datum		selected = (Datum) 0;
	Oid			owner;
	int			nedges;
	double		ends_after;

	InitMaterializedSRF(fcinfo, 0);
	weir_enter(&scope);
	run_find_pipeline(pipeline, scope.caller, "plan", &start.pipeline_id, &start.version, &owner);
	params = pipeline_bind_params(start.pipeline_id, start.version,
								  PG_ARGISNULL(1) ? catalog_jsonb("{}") : PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(2))
		selected = run_select_tasks(start.pipeline_id, start.version, PG_GETARG_ARRAYTYPE_P(2));
	wish.pipeline_id = start.pipeline_id;
	wish.version = start.version;
	wish.params = params;

	read_start(&start, &wish);
	describe_run(pipeline, &start, params, &plan.run);
	read_tasks(&start, selected, PG_ARGISNULL(2), &plan);
	edges = read_edges(&start, &plan, &nedges);
	for (int t = 0; t < plan.ntasks; t++)
	{
		plan_render(&plan, t);
		plan_call(&plan.tasks[t], &plan.forecast[t]);
	}
	forecast(plan.forecast, plan.ntasks, edges, nedges);

	ends_after = plan_foresee(&plan, edges, nedges);
	put_start(rsinfo, &start, &plan.run, ends_after);
	for (int t = 0, e = 0; t < plan.ntasks; t++)
	{
		put_task(rsinfo, &start, &plan, t, edges, e, nedges);
		while (e < nedges && edges[e].to == t)
			e++;
	}
	weir_leave(&scope);
	return (Datum) 0;
}
