/*-------------------------------------------------------------------------
 * signal.c
 *	  weir.signal, weir.approve and weir.reject: what waiting tasks wait for
 *
 * Run in the session of a client.  They only insert requests and wake the
 * conductor when the transaction commits; it acts on them in engine/waiting.c.
 * Nothing is locked.  How many a signal wakes is what this session sees
 * waiting; a task that is cancelled in the meantime is counted and not woken.
 *
 * A signal without a run is for those who wait now: for each run with such a
 * task there is one request.  A signal for a run is kept there by the
 * conductor, so it does not matter which comes first, the signal or the wait.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/jsonb.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"
#include "runapi.h"

PG_FUNCTION_INFO_V1(weir_signal);
PG_FUNCTION_INFO_V1(weir_approve);
PG_FUNCTION_INFO_V1(weir_reject);

#define MAX_SIGNAL		260		/* bytes */
#define MAX_PAYLOAD		(256 * 1024)	/* bytes, as jsonb */
#define MAX_TASK		100		/* bytes: a name, or that of an item */
#define MAX_COMMENT		1000	/* bytes */

#define WAITS_FOR_SIGNAL \
	"a.signal = $1 AND a.kind_state->'received' IS NULL"

static void
insert_signals(const Datum *runs, int n, const char *name, Datum payload, bool is_kept, Oid caller)
{
	static const Oid types[] = {INT8ARRAYOID, TEXTOID, JSONBOID, BOOLOID, TEXTOID};
	Datum		values[5];

	if (n == 0)
		return;
	values[0] = weir_array(INT8OID, runs, n);
	values[1] = catalog_text(name);
	values[2] = payload;
	values[3] = BoolGetDatum(is_kept);
	values[4] = catalog_text(GetUserNameFromId(caller, false));
	weir_spi("INSERT INTO weir.request (run_id, action, name, params, is_kept, requested_by) "
			 "SELECT r, 'signal', $2, $3, $4, $5 FROM unnest($1) r",
			 5, types, values, NULL);
	engine_wake_at_commit(ENGINE_WAKE_REQUEST);
}

/* To the tasks that wait now, of runs the caller may operate. */
static int64
signal_all(const char *name, Datum payload, Oid caller)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	Datum	   *runs;
	uint64		n;
	int			n_runs = 0;
	int64		woken = 0;
	bool		may_all = weir_is_operator(caller);

	values[0] = catalog_text(name);
	n = weir_spi("SELECT a.run_id, coalesce(p.owner, r.owner)::oid::bigint, count(*) FROM weir.attempt a JOIN weir.run r ON r.run_id = a.run_id "
				 "LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id WHERE " WAITS_FOR_SIGNAL
				 " GROUP BY 1, 2 ORDER BY 1",
				 1, types, values, NULL);
	runs = palloc(sizeof(Datum) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		if (may_all || has_privs_of_role(caller, (Oid) weir_spi_int64(i, 2, NULL)))
		{
			runs[n_runs++] = Int64GetDatum(weir_spi_int64(i, 1, NULL));
			woken += weir_spi_int64(i, 3, NULL);
		}
	insert_signals(runs, n_runs, name, payload, false, caller);
	return woken;
}

static void
refuse_external(const RunFacts *run, const char *what)
{
	if (run->is_external)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " takes no %s", run->run_id, what),
				 errdetail("An outside orchestrator runs it.")));
}

static int64
signal_run(int64 run_id, const char *name, Datum payload, Oid caller)
{
	static const Oid types[] = {TEXTOID, INT8OID};
	Datum		values[2];
	RunFacts	run = run_read(run_id);
	int64		woken;

	weir_require_operator_or_owner(caller, run.owner, psprintf("signal run " INT64_FORMAT, run_id));
	refuse_external(&run, "signals");
	if (run_status_is_final(run.status) && !run.repair_pending)
		return 0;
	values[0] = catalog_text(name);
	values[1] = Int64GetDatum(run_id);
	weir_spi("SELECT count(*) FROM weir.attempt a WHERE a.run_id = $2 AND " WAITS_FOR_SIGNAL, 2, types, values, NULL);
	woken = weir_spi_int64(0, 1, NULL);
	insert_signals(&values[1], 1, name, payload, true, caller);
	return woken;
}

/* signal(name, payload, run_id) returns how many tasks it wakes */
Datum
weir_signal(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", MAX_SIGNAL);
	Datum		payload = (Datum) 0;
	int64		woken;

	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"name\" must not be empty")));
	if (!PG_ARGISNULL(1))
		payload = JsonbPGetDatum(PG_GETARG_JSONB_P(1));
	if (payload != (Datum) 0 && VARSIZE(DatumGetPointer(payload)) > MAX_PAYLOAD)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"payload\" is larger than %d kB", MAX_PAYLOAD / 1024),
				 errhint("Put what is large into a table and send its key.")));

	weir_enter(&scope);
	if (payload == (Datum) 0)
		payload = catalog_jsonb("{}");
	if (PG_ARGISNULL(2))
		woken = signal_all(name, payload, scope.caller);
	else
		woken = signal_run(PG_GETARG_INT64(2), name, payload, scope.caller);
	weir_leave(&scope);
	PG_RETURN_INT64(woken);
}

/* Does the task wait for an approval that nobody has given or refused yet? */
static void
require_undecided(int64 run_id, const char *task)
{
	static const Oid types[] = {INT8OID, TEXTOID};
	Datum		values[2];

	values[0] = Int64GetDatum(run_id);
	values[1] = catalog_text(task);
	if (weir_spi("SELECT 1 FROM weir.task_run t JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
				 "WHERE t.run_id = $1 AND t.task_name = $2 AND t.status = 'running' "
				 "AND a.kind_state ? 'approval' AND NOT a.kind_state ? 'decision'",
				 2, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task \"%s\" of run " INT64_FORMAT " does not wait for an approval", catalog_clip(task), run_id),
				 errhint("See what the run waits for with weir.why.")));
	if (weir_spi("SELECT action, requested_by FROM weir.request WHERE run_id = $1 AND name = $2 AND action IN ('approve', 'reject')",
				 2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task \"%s\" of run " INT64_FORMAT " is decided already", catalog_clip(task), run_id),
				 errdetail("Role \"%s\" asked to %s it.", weir_spi_text(0, 2), weir_spi_text(0, 1))));
}

static void
decide(FunctionCallInfo fcinfo, const char *action)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	WeirScope	scope;
	int64		run_id = run_arg_id(fcinfo, 0);
	char	   *task = catalog_arg_required(fcinfo, 1, "task", MAX_TASK);
	char	   *comment = run_arg_text(fcinfo, 2, "comment", MAX_COMMENT);
	RunFacts	run;
	Datum		values[5];
	char		nulls[] = "     ";

	weir_enter(&scope);
	run = run_read(run_id);
	weir_require_operator_or_owner(scope.caller, run.owner,
								   psprintf("%s a task of run " INT64_FORMAT, action, run_id));
	refuse_external(&run, "approvals");
	require_undecided(run_id, task);
	values[0] = Int64GetDatum(run_id);
	values[1] = catalog_text(action);
	values[2] = catalog_text(task);
	values[3] = run_text_or_null(comment, &nulls[3]);
	values[4] = catalog_text(GetUserNameFromId(scope.caller, false));
	weir_spi("INSERT INTO weir.request (run_id, action, name, reason, requested_by) VALUES ($1, $2, $3, $4, $5)",
			 5, types, values, nulls);
	engine_wake_at_commit(ENGINE_WAKE_REQUEST);
	weir_leave(&scope);
}

/* approve(run_id, task, comment) */
Datum
weir_approve(PG_FUNCTION_ARGS)
{
	decide(fcinfo, "approve");
	PG_RETURN_VOID();
}

/* reject(run_id, task, comment) */
Datum
weir_reject(PG_FUNCTION_ARGS)
{
	decide(fcinfo, "reject");
	PG_RETURN_VOID();
}
