/*-------------------------------------------------------------------------
 * dispatch.c
 *	  Intent: the attempt and its token, written before anything is sent.
 *
 * Runs in the conductor's transaction.  Flights made here act only after the
 * commit; if the transaction fails the process ends and they with it.  After
 * a crash dispatch_recover() finds every attempt that has no outcome.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"

#include "conductor_int.h"
#include "context.h"
#include "engine.h"
#include "filing.h"
#include "foreach.h"
#include "json.h"
#include "mem.h"
#include "outcome.h"

#define DISPATCH_BATCH		500
#define NOOP_ROUNDS			200		/* waves of noop tasks in one transaction */

static cJSON *
json_column(SPITupleTable *table, uint64 row, int column)
{
	char	   *text = SPI_getvalue(table->vals[row], table->tupdesc, column);
	char	   *error = NULL;
	cJSON	   *value;

	if (text == NULL)
		return NULL;
	value = json_parse_stored(text, &error);
	if (value == NULL)
		elog(ERROR, "could not read stored JSON: %s", error);
	return value;
}

static int64
int64_column(SPITupleTable *table, uint64 row, int column, int64 if_null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

/* The slots of a pool that the attempt takes: columns name and number. */
static void
set_pool(Flight *flight, SPITupleTable *table, uint64 row, int column)
{
	char	   *pool = SPI_getvalue(table->vals[row], table->tupdesc, column);

	flight->pool = pool ? MemoryContextStrdup(flight->cxt, pool) : NULL;
	flight->pool_slots = pool ? (int) int64_column(table, row, column + 1, 1) : 0;
}

/* The run is locked by now, or nobody else can write this outcome. */
static void
fail_attempt(Conductor *c, Flight *flight, const char *code, const char *message)
{
	flight_verdict(c, flight, KIND_FAILED, code, message, true, false);
}

/* Kinds the conductor decides itself: the verdict is there at once, and written after the intent. */
static void
decide_inline(Conductor *c, Flight *flight)
{
	MemoryContext old = MemoryContextSwitchTo(flight->cxt);
	TaskContext *context = context_read(flight->task_run_id, flight->attempt_no);
	char	   *error = NULL;

	flight->kind_state = cJSON_CreateObject();
	if (context == NULL)
		fail_attempt(c, flight, "definition_missing", "the task's definition no longer exists");
	else if ((flight->spec = flight->kind == &kind_for_each ? foreach_render(context, &error) :
			  ref_render_json(context->spec, context_resolve, context, &error)) == NULL)
		fail_attempt(c, flight, "invalid_reference", error);
	else if (flight->kind == &kind_for_each || flight_check_spec(c, flight))
		flight_decide(c, flight);
	MemoryContextSwitchTo(old);
}

/* A connection as it is in this cycle; NULL if there is none.  A thousand tasks read it once. */
const Connection *
dispatch_connection(Conductor *c, const char *name)
{
	Connection *known;
	ListCell   *lc;
	MemoryContext old;

	foreach(lc, c->connections)
		if (strcmp(((Connection *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	old = MemoryContextSwitchTo(c->scratch);
	known = connection_read(name);
	if (known != NULL)
		c->connections = lappend(c->connections, known);
	MemoryContextSwitchTo(old);
	return known;
}

/* A copy of it in the current context. */
static Connection *
find_connection(Conductor *c, const char *name)
{
	const Connection *known = dispatch_connection(c, name);
	Connection *copy;

	if (known == NULL)
		return NULL;
	copy = palloc(sizeof(Connection));
	copy->name = pstrdup(known->name);
	copy->kind = pstrdup(known->kind);
	copy->base_url = known->base_url ? pstrdup(known->base_url) : NULL;
	copy->auth = cJSON_Duplicate(known->auth, true);
	copy->options = cJSON_Duplicate(known->options, true);
	copy->changed_at = known->changed_at;
	copy->created_at = known->created_at;
	return copy;
}

/* The second connection of kinds that have two; false: a verdict was made. */
static bool
find_other(Conductor *c, Flight *flight)
{
	const char *name = flight->kind->other_connection ? flight->kind->other_connection(flight->spec) : NULL;

	if (name == NULL)
		return true;
	flight->other = find_connection(c, name);
	if (flight->other == NULL)
		fail_attempt(c, flight, "connection_missing", psprintf("connection \"%s\" does not exist", name));
	return flight->other != NULL;
}

/*
 * A run that somebody started in the engine by hand (weir.adopt): this
 * attempt follows it.  Should it fail, the next attempt may resume it.
 */
static bool
adopt(Flight *flight)
{
	static const Oid types[] = {INT8OID, INT4OID, TEXTOID};
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(flight->reference, "adopt"));
	Datum		values[3];

	if (id == NULL)
		return false;
	flight->external_run_id = pstrdup(id);
	flight->reference = NULL;
	values[0] = Int64GetDatum(flight->task_run_id);
	values[1] = Int32GetDatum(flight->attempt_no);
	values[2] = CStringGetTextDatum(id);
	weir_spi("UPDATE weir.attempt SET external_run_id = $3, status = 'started', started_at = clock_timestamp() "
			 "WHERE task_run_id = $1 AND attempt_no = $2",
			 3, types, values, NULL);
	weir_spi("UPDATE weir.task_run SET external_run_id = $3, external_url = NULL, reference = jsonb_build_object('external_run_id', $3) "
			 "WHERE task_run_id = $1 AND attempt_no = $2",
			 3, types, values, NULL);
	return true;
}

/* Spec rendered, connection read, first step chosen; all before the commit.  The context is gone after it. */
static void
prepare_http(Conductor *c, Flight *flight, TaskContext *context)
{
	MemoryContext old = MemoryContextSwitchTo(flight->cxt);
	KindCall	call;
	char	   *error = NULL;

	/* The request may outlive a crash; so must the intent, whatever synchronous_commit says. */
	ForceSyncCommit();

	flight->kind_state = cJSON_CreateObject();
	flight->scratch = cJSON_CreateObject();
	if (context == NULL)
	{
		fail_attempt(c, flight, "definition_missing", "the task's definition no longer exists");
		MemoryContextSwitchTo(old);
		return;
	}
	flight->reference = cJSON_Duplicate(context->reference, true);
	if (flight->kind == &kind_file_away)
		flight->spec = filing_render(c, flight, context, &error);
	else
		flight->spec = ref_render_json(context->spec, context_resolve, context, &error);
	if (flight->spec == NULL)
	{
		if (flight->verdict == NULL)
			fail_attempt(c, flight, "invalid_reference", error);
		MemoryContextSwitchTo(old);
		return;
	}
	if (!flight_check_spec(c, flight))
	{
		MemoryContextSwitchTo(old);
		return;
	}
	if (context->connection_name != NULL)
	{
		flight->connection = find_connection(c, context->connection_name);
		if (flight->connection == NULL)
		{
			fail_attempt(c, flight, "connection_missing", psprintf("connection \"%s\" does not exist", context->connection_name));
			MemoryContextSwitchTo(old);
			return;
		}
	}
	if (!find_other(c, flight))
	{
		MemoryContextSwitchTo(old);
		return;
	}
	if (adopt(flight))
		flight->step = KIND_STEP_POLL;
	else
	{
		flight_fill_call(flight, &call);
		flight->step = flight->kind->first_step(&call);
	}
	flight->due_ms = now_ms();
	MemoryContextSwitchTo(old);
}

/* Kinds whose statement a SQL worker runs, and a for_each whose items a statement lists. */
static bool
runs_sql(const Flight *flight)
{
	return (flight->kind != NULL && flight->kind->uses_worker) ||
		(flight->kind == &kind_for_each && foreach_uses_sql(flight->task_run_id));
}

/* Flights in the order of their task runs */
static void
prepare_all(Conductor *c, Flight *const *flights, int n)
{
	int64	   *ids = palloc(sizeof(int64) * n);
	int		   *attempts = palloc(sizeof(int) * n);
	TaskContext **contexts = palloc(sizeof(TaskContext *) * n);

	for (int i = 0; i < n; i++)
	{
		ids[i] = flights[i]->task_run_id;
		attempts[i] = flights[i]->attempt_no;
	}
	if (n == 1)
		contexts[0] = context_read(ids[0], attempts[0]);
	else
		context_read_all(ids, attempts, n, contexts);
	for (int i = 0; i < n; i++)
		prepare_http(c, flights[i], contexts[i]);
}

/* What will be sent, for all attempts of this transaction at once. */
static void
write_requests(Flight *const *flights, int n)
{
	static const Oid types[4] = {INT8ARRAYOID, INT4ARRAYOID, JSONBARRAYOID, TEXTARRAYOID};
	Datum	   *columns[4];
	Datum		values[4];
	int			kept = 0;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		if (flights[i]->spec == NULL || flights[i]->verdict != NULL)
			continue;
		columns[0][kept] = Int64GetDatum(flights[i]->task_run_id);
		columns[1][kept] = Int32GetDatum(flights[i]->attempt_no);
		columns[2][kept] = DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(flights[i]->spec)));
		columns[3][kept++] = CStringGetTextDatum(kind_step_name(flights[i]->step));
	}
	if (kept == 0)
		return;
	values[0] = weir_array(INT8OID, columns[0], kept);
	values[1] = weir_array(INT4OID, columns[1], kept);
	values[2] = weir_array(JSONBOID, columns[2], kept);
	values[3] = weir_array(TEXTOID, columns[3], kept);
	weir_spi("UPDATE weir.attempt a SET request = o.request, step = o.step "
			 "FROM unnest($1, $2, $3, $4) o (task_run_id, attempt_no, request, step) "
			 "WHERE a.task_run_id = o.task_run_id AND a.attempt_no = o.attempt_no",
			 4, types, values, NULL);
}

/* Connections whose starts are counted; those of all that can start now have been read. */
static Datum
rated_connections(Conductor *c)
{
	Datum	   *names = palloc(sizeof(Datum) * Max(list_length(c->connections), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, c->connections)
	{
		const Connection *connection = lfirst(lc);

		if (cJSON_HasObjectItem(connection->options, "max_starts_per_minute"))
			names[n++] = CStringGetTextDatum(connection->name);
	}
	return weir_array(TEXTOID, names, n);
}

/* Intend those of the task runs that are still ready; makes flights, except for noop.  Returns how many. */
static int
intend(Conductor *c, Datum task_run_ids, bool noop)
{
	Oid			types[2] = {INT8ARRAYOID, TEXTARRAYOID};
	Datum		values[2] = {task_run_ids, rated_connections(c)};
	uint64		n;
	SPITupleTable *table;
	Flight	  **http,
			  **waiting;
	int			n_http = 0,
				n_waiting = 0;

	n = weir_spi("WITH u AS (UPDATE weir.task_run t SET status = 'running', attempt_no = t.attempt_no + 1, "
				 "started_at = coalesce(t.started_at, clock_timestamp()), not_before = NULL, error_message = NULL FROM weir.run r "
				 "WHERE t.task_run_id = ANY ($1) AND t.status = 'ready' AND r.run_id = t.run_id AND r.status = 'running' "
				 "RETURNING t.task_run_id, t.attempt_no, t.run_id, t.task_no, t.kind, t.pool, t.pool_slots, t.run_limit, t.connection_name, t.deadline, "
				 "r.pipeline_id, r.version, r.owner), "
				 "n AS (SELECT u.*, d.on_uncertain, 'weir-' || i.installation_key || '-' || u.task_run_id || '-' || u.attempt_no AS token, "
				 "coalesce(u.deadline, clock_timestamp() + d.task_timeout) AS task_deadline, clock_timestamp() + d.attempt_timeout AS attempt_deadline "
				 "FROM u " TASK_DEFINITION("u", "u", "i.on_uncertain, i.task_timeout, i.attempt_timeout") ", weir.installation i), "
				 "a AS (INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, rated_connection, deadline, task_deadline) "
				 "SELECT n.task_run_id, n.attempt_no, n.run_id, n.token, "
				 "CASE WHEN n.connection_name = ANY ($2) THEN n.connection_name END, least(n.attempt_deadline, n.task_deadline), n.task_deadline FROM n) "
				 "SELECT n.task_run_id, n.attempt_no::bigint, n.run_id, n.kind, n.owner::oid::bigint, n.token, "
				 "ceil(extract(epoch FROM least(n.attempt_deadline, n.task_deadline)) * 1000)::bigint, ceil(extract(epoch FROM n.task_deadline) * 1000)::bigint, "
				 "n.pool, n.pool_slots::bigint, n.on_uncertain, n.run_limit::bigint "
				 "FROM n ORDER BY n.task_run_id",
				 2, types, values, NULL);
	table = SPI_tuptable;
	http = palloc(sizeof(Flight *) * Max(n, 1));
	waiting = palloc(sizeof(Flight *) * Max(n, 1));
	if (n > 0)
		c->did_work = true;
	for (uint64 i = 0; i < n && !noop; i++)
	{
		Flight	   *flight = flight_create(c, int64_column(table, i, 1, 0), (int) int64_column(table, i, 2, 0));
		char	   *kind = SPI_getvalue(table->vals[i], table->tupdesc, 4);

		flight->run_id = int64_column(table, i, 3, 0);
		flight->kind = kind_find(kind);
		flight->owner = (Oid) int64_column(table, i, 5, 0);
		flight->token = MemoryContextStrdup(flight->cxt, SPI_getvalue(table->vals[i], table->tupdesc, 6));
		flight->deadline_ms = int64_column(table, i, 7, NEVER);
		flight->task_deadline_ms = int64_column(table, i, 8, NEVER);
		set_pool(flight, table, i, 9);
		flight->on_uncertain = uncertain_policy(SPI_getvalue(table->vals[i], table->tupdesc, 11));
		flight->counts_in_run = int64_column(table, i, 12, 0) > 0;
		flight->intended_at_ms = flight->started_ms = now_ms();
		flight->runs_sql = runs_sql(flight);
		if (flight->kind == NULL)
			fail_attempt(c, flight, "unknown_kind", psprintf("there is no task kind \"%s\"", kind));
		else if (flight->kind->is_http)
			http[n_http++] = flight;
		else if (flight->kind->is_inline && !flight->runs_sql)
			decide_inline(c, flight);
		else if (flight->kind->is_waiting)
		{
			waiting_intend(c, flight);
			waiting[n_waiting++] = flight;
		}
	}
	if (n_http > 0)
	{
		prepare_all(c, http, n_http);
		write_requests(http, n_http);
	}
	if (n_waiting > 0)
		waiting_write(waiting, n_waiting);
	return (int) n;
}

/* Lock the run unless that was done or tried before; runs is a list of int64, negative if somebody holds the run. */
static bool
lock_once(Conductor *c, int64 run_id, List **runs)
{
	ListCell   *lc;
	int64	   *known;

	foreach(lc, *runs)
	{
		known = lfirst(lc);
		if (*known == run_id || *known == -run_id)
			return *known > 0;
	}
	known = palloc(sizeof(int64));
	*known = outcome_lock_run(run_id, false) ? run_id : -run_id;
	*runs = lappend(*runs, known);
	if (*known < 0)
		conductor_defer(c);
	return *known > 0;
}

/* noop tasks need nothing and wait for nobody: they start and succeed in this transaction, wave after wave. */
static bool
dispatch_noops(Conductor *c)
{
	bool		any = false;
	Datum	   *ids = palloc(sizeof(Datum) * DISPATCH_BATCH);
	List	   *runs = NIL;
	List	   *held = NIL;
	ListCell   *lc;

	for (int round = 0; round < NOOP_ROUNDS; round++)
	{
		int64		task_run_id,
					run_id;
		int			n = 0;

		while (n < DISPATCH_BATCH && (task_run_id = ready_pop_noop(c, &run_id)) != 0)
		{
			if (lock_once(c, run_id, &runs))
				ids[n++] = Int64GetDatum(task_run_id);
			else
				held = lappend(held, DatumGetPointer(Int64GetDatum(task_run_id)));
		}
		if (n == 0)
			break;
		any = true;
		intend(c, weir_array(INT8OID, ids, n), true);
		outcome_succeed_noops(weir_array(INT8OID, ids, n));
		ready_take_in(c, false);
		if (round == NOOP_ROUNDS - 1)
			c->wake |= ENGINE_WAKE_TASK;	/* more waves in the next transaction */
	}
	foreach(lc, held)
		ready_again(c, DatumGetInt64(PointerGetDatum(lfirst(lc))));
	return any;
}

bool
dispatch_ready(Conductor *c)
{
	int			n;
	LaneChoice *choices;
	Datum	   *ids;
	bool		any_ended;

	ready_end_pauses(c);
	any_ended = dispatch_noops(c);
	choices = lanes_choose(c, &n);
	ids = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(choices[i].task_run_id);
	if (n > 0 && intend(c, weir_array(INT8OID, ids, n), false) < n)
	{
		lanes_not_started(c, choices, n);
		/* Room that was kept for what turned out not to be ready any more is for others. */
		c->wake |= ENGINE_WAKE_TASK;
	}
	return !any_ended;
}

/* Rebuild the flights from what is committed. */
void
dispatch_recover(Conductor *c)
{
	uint64		n = weir_spi("SELECT a.task_run_id, a.attempt_no::bigint, a.run_id, t.kind, r.owner::oid::bigint, a.token, "
							 "ceil(extract(epoch FROM a.deadline) * 1000)::bigint, (extract(epoch FROM a.intended_at) * 1000)::bigint, "
							 "a.request, a.kind_state, a.external_run_id, t.reference, d.connection_name, r.status, a.step, "
							 "coalesce(r.cancel_reason = '" RUN_TIMEOUT_REASON "', false), ceil(extract(epoch FROM a.task_deadline) * 1000)::bigint, "
							 "t.pool, t.pool_slots::bigint, d.on_uncertain, t.run_limit::bigint "
							 "FROM weir._active_task_run l JOIN weir.attempt a ON a.task_run_id = l.task_run_id AND a.attempt_no = l.attempt_no "
							 "JOIN weir.task_run t ON t.task_run_id = l.task_run_id JOIN weir.run r ON r.run_id = a.run_id "
							 "JOIN weir.task d ON d.pipeline_id = r.pipeline_id AND d.version = r.version AND d.task_no = t.task_no "
							 "WHERE l.status = 'running' AND a.status IN ('intended', 'started') ORDER BY a.task_run_id",
							 0, NULL, NULL, NULL);
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		Flight	   *flight = flight_create(c, int64_column(table, i, 1, 0), (int) int64_column(table, i, 2, 0));
		MemoryContext old = MemoryContextSwitchTo(flight->cxt);
		KindCall	call;
		char	   *connection = SPI_getvalue(table->vals[i], table->tupdesc, 13);

		flight->run_id = int64_column(table, i, 3, 0);
		flight->kind = kind_find(SPI_getvalue(table->vals[i], table->tupdesc, 4));
		flight->owner = (Oid) int64_column(table, i, 5, 0);
		flight->token = SPI_getvalue(table->vals[i], table->tupdesc, 6);
		flight->deadline_ms = int64_column(table, i, 7, NEVER);
		flight->task_deadline_ms = int64_column(table, i, 17, NEVER);
		set_pool(flight, table, i, 18);
		flight->on_uncertain = uncertain_policy(SPI_getvalue(table->vals[i], table->tupdesc, 20));
		flight->counts_in_run = int64_column(table, i, 21, 0) > 0;
		flight->intended_at_ms = flight->started_ms = int64_column(table, i, 8, 0);
		flight->slot = WEIR_MAX_SQL_SLOTS;	/* sqlpool_check() finds out */
		flight->runs_sql = runs_sql(flight);
		if (flight->kind == NULL)
			fail_attempt(c, flight, "unknown_kind", "there is no such task kind any more");
		else if (flight->kind->is_inline && !flight->runs_sql)
			decide_inline(c, flight);
		else if (flight->kind->is_waiting)
		{
			flight->spec = json_column(table, i, 9);
			flight->kind_state = json_column(table, i, 10);
			waiting_recover(c, flight);
		}
		else if (flight->kind->is_http)
		{
			flight->spec = json_column(table, i, 9);
			flight->kind_state = json_column(table, i, 10);
			if (flight->kind_state == NULL)
				flight->kind_state = cJSON_CreateObject();
			flight->scratch = cJSON_CreateObject();
			flight->external_run_id = SPI_getvalue(table->vals[i], table->tupdesc, 11);
			flight->reference = json_column(table, i, 12);
			flight->connection = connection ? find_connection(c, connection) : NULL;
			flight->after_crash = true;
			if (connection && flight->connection == NULL)
			{
				fail_attempt(c, flight, "connection_missing", psprintf("connection \"%s\" does not exist", connection));
				flight->verdict->may_go_on = true;
			}
			else if (flight->spec == NULL)
				fail_attempt(c, flight, "invalid_reference", "the attempt was never prepared");
			else if (!find_other(c, flight))
				flight->verdict->may_go_on = true;
			else
			{
				if (!kind_step_parse(SPI_getvalue(table->vals[i], table->tupdesc, 15), &flight->step))
					flight->step = KIND_STEP_START;
				flight_fill_call(flight, &call);
				if (!uncertain_waits(flight))
				{
					flight->step = flight->kind->resume_step(&call);
					flight->due_ms = now_ms();
					uncertain_ask_first(flight);
				}
				uncertain_conclude(c, flight);
			}
		}
		MemoryContextSwitchTo(old);
		if (strcmp(SPI_getvalue(table->vals[i], table->tupdesc, 14), "cancelling") == 0)
			flight_end(c, flight, strcmp(SPI_getvalue(table->vals[i], table->tupdesc, 16), "t") == 0 ?
					   SQL_CANCEL_RUN_TIMEOUT : SQL_CANCEL_ASKED);
	}
	c->wake = ENGINE_WAKE_ALL;
}
