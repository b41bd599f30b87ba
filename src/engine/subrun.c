/*-------------------------------------------------------------------------
 * subrun.c
 *	  Attempts of kind pipeline: a run of another pipeline, and its end.
 *
 * Runs in the conductor's transaction.  The child run is queued, and its id
 * kept in kind_state, in the transaction that makes the task run running: a
 * crash leaves both or neither.  From then on it is a run like any other.
 * Parent and child never change in one transaction: that a child has ended
 * the conductor sees in its next one, and the child is repaired or cancelled
 * by requests, which lock nothing.  So the order pipeline -> run -> task run
 * is kept without knowing who is whose parent.
 *
 *	kind_state	{"run_id": child, "repair_after": its repair_no when its repair
 *				was asked for}
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/resowner.h"

#include "conductor_int.h"
#include "engine.h"
#include "json.h"
#include "mem.h"
#include "repairable.h"
#include "status.h"

#define MAX_DEPTH		50		/* runs in runs */

/* The pipeline a task calls, its row locked FOR KEY SHARE. */
typedef struct Callee
{
	const char *name;
	int64		pipeline_id;
	int			version;
	Oid			owner;
} Callee;

static void
fail(Conductor *c, Flight *flight, const char *code, const char *message)
{
	flight_verdict(c, flight, KIND_FAILED, code, message, true, false);
}

static int64
child_of(const Flight *flight)
{
	int64		run_id;

	return json_int64(cJSON_GetObjectItemCaseSensitive(flight->kind_state, "run_id"), &run_id) ? run_id : 0;
}

/* By default the task ends with the run. */
static bool
waits(const Flight *flight)
{
	return !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(flight->spec, "wait"));
}

static void
set_child(Flight *flight, int64 run_id, int repair_after)
{
	MemoryContext old = MemoryContextSwitchTo(flight->cxt);

	cJSON_Delete(flight->kind_state);
	flight->kind_state = cJSON_CreateObject();
	cJSON_AddItemToObject(flight->kind_state, "run_id", json_from_int64(run_id));
	if (repair_after >= 0)
		cJSON_AddItemToObject(flight->kind_state, "repair_after", json_from_int64(repair_after));
	flight->due_ms = NEVER;
	MemoryContextSwitchTo(old);
}

/* {"run_id": ..., "status": ...} in the current context */
static cJSON *
output_of(int64 run_id, const char *status)
{
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddItemToObject(output, "run_id", json_from_int64(run_id));
	cJSON_AddStringToObject(output, "status", status);
	return output;
}

/*
 * Parameters bound to a version; NULL pointer and *error if they do not fit.
 * What is wrong with them is raised where they are checked, and must not end
 * the conductor.
 */
static Datum
bind_params(const Flight *flight, int64 pipeline_id, int version, char **error)
{
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(flight->spec, "params");
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	Datum		text = CStringGetDatum(given && !cJSON_IsNull(given) ? json_text(given) : "{}");
	volatile Datum bound = (Datum) 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		bound = pipeline_bind_params(pipeline_id, version, DirectFunctionCall1(jsonb_in, text));
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED || edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = resowner;
		*error = edata->hint ? psprintf("%s (%s)", edata->message, edata->hint) : edata->message;
		bound = (Datum) 0;
	}
	PG_END_TRY();
	return bound;
}

/*
 * Definitions form no cycle when they are made; but a run keeps its version
 * while others change, so the chain of runs is looked at too.
 */
static bool
check_chain(Conductor *c, Flight *flight, const Callee *callee)
{
	static const Oid types[] = {INT8OID, INT8OID, INT4OID};
	Datum		values[3] = {Int64GetDatum(flight->run_id), Int64GetDatum(callee->pipeline_id), Int32GetDatum(MAX_DEPTH)};

	weir_spi("WITH RECURSIVE up (pipeline_id, parent_run_id, depth) AS ("
			 "SELECT r.pipeline_id, r.parent_run_id, 1 FROM weir.run r WHERE r.run_id = $1 UNION ALL "
			 "SELECT r.pipeline_id, r.parent_run_id, up.depth + 1 FROM up JOIN weir.run r ON r.run_id = up.parent_run_id WHERE up.depth < $3) "
			 "SELECT bool_or(pipeline_id = $2), max(depth) >= $3 FROM up",
			 3, types, values, NULL);
	if (weir_spi_bool(0, 1, NULL))
		fail(c, flight, "pipeline_cycle", psprintf("pipeline \"%s\" is running above this run already: it would call itself", callee->name));
	else if (weir_spi_bool(0, 2, NULL))
		fail(c, flight, "pipeline_too_deep", psprintf("more than %d runs would be nested", MAX_DEPTH));
	return flight->verdict == NULL;
}

/* Somebody has disabled it: so it is skipped, like a task that is. */
static void
skip_disabled(Conductor *c, Flight *flight, const Callee *callee)
{
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddStringToObject(output, "status", run_status_name(RUN_SKIPPED));
	cJSON_AddStringToObject(output, "reason", psprintf("pipeline \"%s\" is disabled", callee->name));
	flight_succeed(c, flight, output);
}

/* The pipeline to call, if it can be called by the owner of this one; else a verdict, or a later try. */
static bool
find_callee(Conductor *c, Flight *flight, Callee *callee)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	bool		no_definition,
				is_enabled;

	callee->name = json_string(cJSON_GetObjectItemCaseSensitive(flight->spec, "pipeline"));
	if (callee->name == NULL)
	{
		fail(c, flight, "invalid_spec", "the spec names no pipeline");
		return false;
	}
	values[0] = CStringGetTextDatum(callee->name);
	/* Only a drop holds it against us, and the conductor waits for nobody. */
	if (weir_spi("SELECT p.pipeline_id, p.current_version, p.owner, p.is_enabled FROM weir.pipeline p WHERE p.name = $1 FOR KEY SHARE SKIP LOCKED",
				 1, types, values, NULL) == 0)
	{
		if (weir_spi("SELECT 1 FROM weir.pipeline WHERE name = $1", 1, types, values, NULL) > 0)
			flight->due_ms = now_ms() + CONDUCTOR_DEFER_MS;
		else
			fail(c, flight, "pipeline_missing", psprintf("pipeline \"%s\" does not exist", callee->name));
		return false;
	}
	callee->pipeline_id = weir_spi_int64(0, 1, NULL);
	callee->version = (int) weir_spi_int64(0, 2, &no_definition);
	callee->owner = (Oid) weir_spi_int64(0, 3, NULL);
	is_enabled = weir_spi_bool(0, 4, NULL);
	if (no_definition)
		fail(c, flight, "pipeline_without_definition", psprintf("pipeline \"%s\" has no definition", callee->name));
	else if (!weir_is_operator(flight->owner) && !has_privs_of_role(flight->owner, callee->owner))
	{
		char	   *role = GetUserNameFromId(flight->owner, true);

		fail(c, flight, "not_allowed", psprintf("the owner of this pipeline, role \"%s\", may not trigger pipeline \"%s\"",
												role ? role : "(dropped)", callee->name));
	}
	if (flight->verdict != NULL || !check_chain(c, flight, callee))
		return false;
	if (!is_enabled)
		skip_disabled(c, flight, callee);
	return is_enabled;
}

static void
queue_child(Conductor *c, Flight *flight, const Callee *callee)
{
	static const Oid types[] = {INT8OID, TEXTOID, INT4OID, JSONBOID, TEXTOID, REGROLEOID, INT8OID};
	char	   *error = NULL;
	char	   *role = GetUserNameFromId(flight->owner, true);
	Datum		params = bind_params(flight, callee->pipeline_id, callee->version, &error);
	Datum		values[7];
	int64		child_id;

	if (params == (Datum) 0)
	{
		fail(c, flight, "invalid_params", psprintf("pipeline \"%s\": %s", callee->name, error));
		return;
	}
	values[0] = Int64GetDatum(callee->pipeline_id);
	values[1] = CStringGetTextDatum(callee->name);
	values[2] = Int32GetDatum(callee->version);
	values[3] = params;
	values[4] = CStringGetTextDatum(role ? role : "");
	values[5] = ObjectIdGetDatum(callee->owner);
	values[6] = Int64GetDatum(flight->task_run_id);
	weir_spi("INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, params, nominal_time, window_start, window_end, "
			 "trigger_type, trigger_name, triggered_by, owner, parent_run_id, parent_task_run_id, priority, on_overlap) "
			 "SELECT $1, $2, $3, 'queued', $4, r.nominal_time, r.window_start, r.window_end, 'pipeline', r.pipeline_name || '.' || t.task_name, "
			 "$5, $6, r.run_id, t.task_run_id, greatest(-1000, least(1000, v.priority + t.priority)), nullif(v.on_overlap, 'queue') "
			 "FROM weir.task_run t JOIN weir.run r ON r.run_id = t.run_id JOIN weir.pipeline_version v ON v.pipeline_id = $1 AND v.version = $3 "
			 "WHERE t.task_run_id = $7 RETURNING run_id, priority",
			 7, types, values, NULL);
	child_id = weir_spi_int64(0, 1, NULL);
	engine_note_queued(callee->pipeline_id, child_id, (int) weir_spi_int64(0, 2, NULL));
	set_child(flight, child_id, -1);
	engine_wake_at_commit(ENGINE_WAKE_RUN);
	c->wake |= ENGINE_WAKE_RUN;
	c->did_work = true;
}

/* Ask for the child's repair, with the parameters of this attempt. */
static bool
repair_child(Conductor *c, Flight *flight, int64 run_id, int64 pipeline_id, int version, int repair_no)
{
	static const Oid types[] = {INT8OID, JSONBOID, TEXTOID};
	char	   *error = NULL;
	Datum		values[3];

	values[0] = Int64GetDatum(run_id);
	values[1] = bind_params(flight, pipeline_id, version, &error);
	if (values[1] == (Datum) 0)
		return false;			/* a new run says what is wrong, or has another version */
	values[2] = CStringGetTextDatum(psprintf("run " INT64_FORMAT, flight->run_id));
	weir_spi("INSERT INTO weir.request (run_id, action, params, requested_by) SELECT $1, 'repair', $2, $3 "
			 "WHERE NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = 'repair')",
			 3, types, values, NULL);
	set_child(flight, run_id, repair_no);
	engine_wake_at_commit(ENGINE_WAKE_REQUEST);
	c->wake |= ENGINE_WAKE_REQUEST;
	return true;
}

/*
 * The run an earlier attempt started: still live, or mended since; or one
 * that can be repaired.  False: a new one is needed.
 */
static bool
resume_child(Conductor *c, Flight *flight)
{
	static const Oid types[] = {INT8OID, INT4OID, INT8OID};
	Datum		values[3] = {Int64GetDatum(flight->task_run_id), Int32GetDatum(flight->attempt_no), Int64GetDatum(flight->run_id)};
	int64		run_id,
				pipeline_id;
	int			repair_no,
				version;

	if (flight->attempt_no == 1 || !waits(flight) ||
		weir_spi("SELECT r.run_id, r.status IN ('queued', 'running', 'cancelling') OR (r.status = 'succeeded' AND a.status <> 'succeeded'), "
				 "r.status IN ('failed', 'timed_out', 'cancelled') AND r.started_at IS NOT NULL AND v.version IS NOT NULL AND "
				 "coalesce(" REPAIR_IS_OF_A_LOAD ", false) AND " REPAIR_IS_RESUMED_BY " IS NULL, "
				 "r.repair_no, r.pipeline_id, r.version "
				 "FROM weir.run r JOIN weir.attempt a ON a.task_run_id = $1 AND a.attempt_no = $2 - 1 "
				 "LEFT JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id "
				 "LEFT JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version "
				 "WHERE r.parent_run_id = $3 AND r.parent_task_run_id = $1 ORDER BY r.run_id DESC LIMIT 1",
				 3, types, values, NULL) == 0)
		return false;
	run_id = weir_spi_int64(0, 1, NULL);
	repair_no = (int) weir_spi_int64(0, 4, NULL);
	pipeline_id = weir_spi_int64(0, 5, NULL);
	version = (int) weir_spi_int64(0, 6, NULL);
	if (weir_spi_bool(0, 2, NULL))
	{
		set_child(flight, run_id, -1);
		c->wake |= ENGINE_WAKE_RUN;
		return true;
	}
	return weir_spi_bool(0, 3, NULL) && repair_child(c, flight, run_id, pipeline_id, version, repair_no);
}

void
subrun_start(Conductor *c, Flight *flight)
{
	Callee		callee;

	flight->due_ms = NEVER;
	if (!find_callee(c, flight, &callee))
		return;
	if (!resume_child(c, flight))
		queue_child(c, flight, &callee);
	if (flight->verdict == NULL && !waits(flight))
		flight_succeed(c, flight, output_of(child_of(flight), "queued"));
}

void
subrun_recover(Conductor *c, Flight *flight)
{
	if (child_of(flight) == 0)
		flight->due_ms = now_ms();
	else if (!waits(flight))
		flight_succeed(c, flight, output_of(child_of(flight), "queued"));
}

/* The parent ends, so the child has to; whatever it is doing, it will say so. */
static void
cancel_child(Conductor *c, Flight *flight)
{
	static const Oid types[] = {INT8OID, INT8OID, BOOLOID};
	Datum		values[3] = {Int64GetDatum(child_of(flight)), Int64GetDatum(flight->run_id), BoolGetDatum(flight->ending == SQL_CANCEL_TIMEOUT)};

	flight->cancel_sent = true;
	weir_spi("INSERT INTO weir.request (run_id, action, reason, requested_by) "
			 "SELECT r.run_id, 'cancel', coalesce(p.cancel_reason, CASE WHEN $3 THEN 'attempt timeout exceeded' END), 'run ' || $2 "
			 "FROM weir.run r LEFT JOIN weir.run p ON p.run_id = $2 WHERE r.run_id = $1 "
			 "AND (r.status IN ('queued', 'running') OR EXISTS (SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = 'repair')) "
			 "AND NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = 'cancel')",
			 3, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_REQUEST);
	c->wake |= ENGINE_WAKE_REQUEST;
}

/* The child has ended: so does the attempt. */
static void
child_ended(Conductor *c, Flight *flight, RunStatus status, const char *pipeline, const char *error, bool is_user_error)
{
	int64		run_id = child_of(flight);
	cJSON	   *output = output_of(run_id, run_status_name(status));
	char	   *message;
	MemoryContext old;

	if (status == RUN_SUCCEEDED || status == RUN_SKIPPED)
	{
		flight_succeed(c, flight, output);
		return;
	}
	message = psprintf("run " INT64_FORMAT " of pipeline \"%s\" ended as %s%s%s", run_id, pipeline, run_status_name(status),
					   error ? ": " : "", error ? error : "");
	flight_verdict(c, flight, status == RUN_CANCELLED ? KIND_CANCELLED : KIND_FAILED,
				   psprintf("run_%s", run_status_name(status)), message, is_user_error, status != RUN_CANCELLED);
	old = MemoryContextSwitchTo(flight->verdict_cxt);
	flight->verdict->output = cJSON_Duplicate(output, true);
	MemoryContextSwitchTo(old);
}

/* Its repair was refused, so it is as it was: a new run takes its place. */
static void
replace_child(Conductor *c, Flight *flight)
{
	Callee		callee;

	cJSON_DeleteItemFromObjectCaseSensitive(flight->kind_state, "repair_after");
	cJSON_DeleteItemFromObjectCaseSensitive(flight->kind_state, "run_id");
	flight->due_ms = NEVER;
	if (find_callee(c, flight, &callee))
		queue_child(c, flight, &callee);
	waiting_write(&flight, 1);
}

static void
take_in_ended(Conductor *c, Datum run_ids)
{
	static const Oid types[] = {INT8ARRAYOID};
	uint64		n = weir_spi("SELECT r.parent_task_run_id, r.status, r.pipeline_name, r.error_message, r.repair_no::bigint, coalesce("
							 "(SELECT e.failure_type FROM weir.error e WHERE e.run_id = r.run_id ORDER BY e.occurred_at DESC, e.error_id DESC LIMIT 1) = 'user', false) "
							 "FROM weir.run r WHERE r.run_id = ANY ($1) AND r.status NOT IN ('queued', 'running', 'cancelling') "
							 "AND NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = r.run_id AND q.action = 'repair')",
							 1, types, &run_ids, NULL);
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Flight	   *flight = flight_find(c, DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)));
		int64		repair_no = DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 5, &isnull));
		int64		repair_after;
		RunStatus	status;

		if (flight == NULL || flight->verdict != NULL || !run_status_parse(SPI_getvalue(table->vals[i], table->tupdesc, 2), &status))
			continue;
		if (json_int64(cJSON_GetObjectItemCaseSensitive(flight->kind_state, "repair_after"), &repair_after) &&
			repair_no <= repair_after && flight->ending == SQL_CANCEL_NONE)
			replace_child(c, flight);
		else
			child_ended(c, flight, status, SPI_getvalue(table->vals[i], table->tupdesc, 3), SPI_getvalue(table->vals[i], table->tupdesc, 4),
						DatumGetBool(SPI_getbinval(table->vals[i], table->tupdesc, 6, &isnull)));
	}
}

/* Whenever a run may have ended: children that have, and parents that are to end. */
void
subrun_take_in(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	Datum	   *runs = NULL;
	int			n = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (flight->kind != &kind_pipeline || flight->verdict != NULL)
			continue;
		if (child_of(flight) == 0)
		{
			if (flight->ending != SQL_CANCEL_NONE)
				flight_verdict(c, flight, KIND_CANCELLED, "cancelled", "cancelled before it started", false, false);
			else if (flight->due_ms <= now_ms())
			{
				subrun_start(c, flight);
				waiting_write(&flight, 1);
			}
			continue;
		}
		if (flight->ending != SQL_CANCEL_NONE && !flight->cancel_sent)
			cancel_child(c, flight);
		if (runs == NULL)
			runs = palloc(sizeof(Datum) * hash_get_num_entries(c->flights));
		runs[n++] = Int64GetDatum(child_of(flight));
	}
	if (n > 0)
		take_in_ended(c, weir_array(INT8OID, runs, n));
}
