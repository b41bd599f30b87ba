/*-------------------------------------------------------------------------
 * execution.c
 *	  What the log_execution_* functions share: settings, arguments, locks
 *
 * Runs in the session of an outside orchestrator (or of an operator).  Talks
 * to nobody but the tables.
 *
 * The lock that matters is the one on the row of weir.pipeline_state: whoever
 * starts, ends, fails or rolls back an execution of a pipeline holds it until
 * commit.  What decides is read by a later statement than the one that
 * waited for the lock, because a statement sees the world as of its own
 * start.  A call that dies in the middle rolls back and leaves nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"
#include "status.h"
#include "restart.h"
#include "execution.h"
#include "execution_row.h"
#include "pipelinestate.h"

bool		execution_register_unknown = true;
int			execution_stale_after_s = 86400;

/*
 * Both are for the administrator: what is unknown or stale must not depend
 * on which client asks.
 */
void
execution_define_gucs(void)
{
	DefineCustomBoolVariable("weir.register_unknown_pipelines",
							 "Registers a pipeline when an outside orchestrator first starts it.",
							 "When off, starting an unknown pipeline is an error.",
							 &execution_register_unknown, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("weir.stale_execution_after",
							"Time without a sign of life after which an outside execution counts as crashed.",
							"Applies to pipelines without a limit of their own. 0 means never.",
							&execution_stale_after_s, 86400, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/* ---- arguments and answers ---- */

char *
execution_arg(FunctionCallInfo fcinfo, int n, const char *name, size_t limit)
{
	return PG_ARGISNULL(n) ? NULL : catalog_arg_required(fcinfo, n, name, limit);
}

int64
execution_arg_id(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"execution_id\" must not be null"),
				 errhint("Pass the ExecutionID that log_execution_start returned.")));
	return PG_GETARG_INT64(n);
}

void
execution_check_json(FunctionCallInfo fcinfo, int n, const char *name, bool object_only)
{
	Jsonb	   *value;

	if (PG_ARGISNULL(n))
		return;
	value = PG_GETARG_JSONB_P(n);
	if (object_only && !JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not a JSON object", name)));
	if (VARSIZE(value) > EXECUTION_MAX_JSON)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is longer than %d bytes", name, EXECUTION_MAX_JSON),
				 errhint("Store large documents elsewhere and log where they are.")));
}

/* Cut a text at a character, in place. */
char *
execution_clip(char *text, int limit)
{
	int			len = strlen(text);

	if (len > limit)
		text[pg_mbcliplen(text, len, limit)] = '\0';
	return text;
}

Datum
execution_text(const char *value, char *null)
{
	*null = value == NULL ? 'n' : ' ';
	return value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

Datum
execution_letter(char letter, bool *isnull)
{
	char		text[2] = {letter, '\0'};

	*isnull = letter == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

/*
 * The row types of our functions, as pg_proc says they are: finding that out
 * for each call would cost as much as reading a row.
 */
typedef struct RowType
{
	Oid			function;
	TupleDesc	tupdesc;		/* blessed, for good */
} RowType;

static RowType row_types[8];
static int	nrow_types = 0;

static void
forget_row_types(Datum arg, int cacheid, uint32 hashvalue)
{
	nrow_types = 0;
}

static TupleDesc
row_type(FunctionCallInfo fcinfo)
{
	static bool registered = false;
	Oid			function = fcinfo->flinfo->fn_oid;
	MemoryContext caller;
	TupleDesc	tupdesc;

	for (int i = 0; i < nrow_types; i++)
	{
		if (row_types[i].function == function)
			return row_types[i].tupdesc;
	}
	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_row_types, (Datum) 0);
		registered = true;
	}
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (nrow_types == lengthof(row_types))
		return BlessTupleDesc(tupdesc);
	/* What is forgotten is not freed: an answer may be in the making.  It is little, and rare. */
	caller = MemoryContextSwitchTo(TopMemoryContext);
	tupdesc = BlessTupleDesc(CreateTupleDescCopy(tupdesc));
	MemoryContextSwitchTo(caller);
	row_types[nrow_types++] = (RowType) {function, tupdesc};
	return tupdesc;
}

Datum
execution_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	return HeapTupleGetDatum(heap_form_tuple(row_type(fcinfo), values, nulls));
}

/* ---- locking ---- */

/*
 * The row marks are locked in the order of the FOR clauses, each at its
 * newest version, and the condition is checked again on what was locked.
 * Without $2 a batch is not locked here: its children's pipelines come first.
 * The share lock on the batch makes its end and the end of a child take turns.
 */
static const char lock_child_sql[] =
	"SELECT r.pipeline_id, coalesce(r.parent_run_id, 0), r.status, r.is_external, r.is_batch, "
	"r.start_status, r.next_load_status, r.row_audit_id, "
	"s.next_load_status, s.last_run_id, s.last_success_run_id, b.status, b.is_batch "
	"FROM weir.run r JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id "
	"JOIN weir.run b ON b.run_id = r.parent_run_id "
	"WHERE r.run_id = $1 AND (NOT r.is_batch OR $2) "
	"FOR UPDATE OF s FOR KEY SHARE OF b FOR UPDATE OF r";

static const char kinship_sql[] =
	"SELECT r.pipeline_id, r.is_batch, "
	"EXISTS (SELECT FROM weir.run b WHERE b.run_id = r.parent_run_id) "
	"FROM weir.run r WHERE r.run_id = $1";

/*
 * The pipelines of a batch: itself and everything that was its child since
 * its last success, and so on below children that are batches: a crashed one
 * is closed with all of them, and by then it is too late to lock in order.
 */
static const char lock_family_sql[] =
	"SELECT s.pipeline_id FROM weir.pipeline_state s WHERE s.pipeline_id = ANY (ARRAY("
	"WITH RECURSIVE f (pipeline_id) AS (SELECT $1 UNION "
	"SELECT c.pipeline_id FROM f JOIN weir.run b ON b.pipeline_id = f.pipeline_id AND b.run_id >= coalesce("
	"(SELECT last_success_run_id FROM weir.pipeline_state WHERE pipeline_id = f.pipeline_id), 0) "
	"AND (b.is_batch OR f.pipeline_id = $1) JOIN weir.run c ON c.parent_run_id = b.run_id) "
	"SELECT f.pipeline_id FROM f)) ORDER BY s.pipeline_id FOR UPDATE OF s";

static char
spi_letter(int column)
{
	char	   *text = weir_spi_text(0, column);

	return text == NULL ? '\0' : text[0];
}

static RunStatus
spi_status(int column)
{
	RunStatus	status = RUN_FAILED;
	char	   *name = weir_spi_text(0, column);

	if (!run_status_parse(name, &status))
		elog(ERROR, "unknown status of a run: %s", name ? name : "null");
	return status;
}

/*
 * An execution without a parent, the common case; a batch only with_batch,
 * one with a parent only if that is lost.  What these are never changes, so
 * it may be read before anything is locked.
 */
static bool
lock_alone(int64 execution_id, bool with_batch, bool parent_lost, Execution *execution)
{
	ExecutionRow state;
	ExecutionRow run;

	if (!execution_row_find(EXECUTION_RUN_BY_ID, execution_id, &run))
		return false;
	memset(execution, 0, sizeof(*execution));
	execution->id = execution_id;
	execution->pipeline_id = execution_row_id(&run, RUN_COL_PIPELINE);
	if ((!with_batch && execution_row_bool(&run, RUN_COL_IS_BATCH)) ||
		(!parent_lost && execution_row_id(&run, RUN_COL_PARENT) != 0) ||
		!pipeline_state_find(execution->pipeline_id, &state))
	{
		execution_row_close(&run);
		return false;
	}

	if (!execution_row_lock(&state, NULL))
	{
		execution_row_close(&run);
		return false;
	}
	execution->state_next_load = execution_row_letter(&state, STATE_COL_NEXT_LOAD);
	execution->state_last_run_id = execution_row_id(&state, STATE_COL_LAST_RUN);
	execution->state_last_success_id = execution_row_id(&state, STATE_COL_LAST_SUCCESS);
	execution->state_place = execution_row_place(&state);
	execution_row_close(&state);

	if (!execution_row_lock(&run, NULL))
		return false;
	execution->status = execution_row_status(&run, RUN_COL_STATUS);
	execution->is_external = execution_row_bool(&run, RUN_COL_IS_EXTERNAL);
	execution->is_batch = execution_row_bool(&run, RUN_COL_IS_BATCH);
	execution->start_status = execution_row_letter(&run, RUN_COL_START_STATUS);
	execution->next_load_status = execution_row_letter(&run, RUN_COL_NEXT_LOAD);
	execution->row_audit_id = execution_row_id(&run, RUN_COL_ROW_AUDIT);
	execution->place = execution_row_place(&run);
	execution_row_close(&run);
	return true;
}

static bool
lock_child(int64 execution_id, bool with_batch, Execution *execution)
{
	Datum		values[2] = {Int64GetDatum(execution_id), BoolGetDatum(with_batch)};
	static const Oid types[2] = {INT8OID, BOOLOID};

	if (weir_spi(lock_child_sql, 2, types, values, NULL) == 0)
		return false;

	memset(execution, 0, sizeof(*execution));
	execution->id = execution_id;
	execution->pipeline_id = weir_spi_int64(0, 1, NULL);
	execution->parent_id = weir_spi_int64(0, 2, NULL);
	execution->status = spi_status(3);
	execution->is_external = weir_spi_bool(0, 4, NULL);
	execution->is_batch = weir_spi_bool(0, 5, NULL);
	execution->start_status = spi_letter(6);
	execution->next_load_status = spi_letter(7);
	execution->row_audit_id = weir_spi_int64(0, 8, NULL);
	execution->state_next_load = spi_letter(9);
	execution->state_last_run_id = weir_spi_int64(0, 10, NULL);
	execution->state_last_success_id = weir_spi_int64(0, 11, NULL);
	execution->parent_status = spi_status(12);
	execution->parent_is_batch = weir_spi_bool(0, 13, NULL);
	return true;
}

void
execution_unknown(int64 execution_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("execution " INT64_FORMAT " does not exist", execution_id),
			 errhint("Pass the ExecutionID that log_execution_start returned.")));
}

void
execution_lock_family(int64 pipeline_id)
{
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(pipeline_id);

	(void) weir_spi(lock_family_sql, 1, &int8, &id, NULL);
}

/* Batches, and what is wrong with an execution that cannot be locked. */
static void
lock_rare(int64 execution_id, Execution *execution)
{
	Datum		id = Int64GetDatum(execution_id);
	static const Oid int8 = INT8OID;
	int64		pipeline_id;
	bool		is_batch;
	bool		has_parent;

	if (weir_spi(kinship_sql, 1, &int8, &id, NULL) == 0)
		execution_unknown(execution_id);
	pipeline_id = weir_spi_int64(0, 1, NULL);
	is_batch = weir_spi_bool(0, 2, NULL);
	has_parent = weir_spi_bool(0, 3, NULL);

	if (is_batch)
		execution_lock_family(pipeline_id);
	if (!(has_parent ? lock_child(execution_id, is_batch, execution) :
		  lock_alone(execution_id, is_batch, true, execution)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the pipeline of execution " INT64_FORMAT " was dropped", execution_id)));
}

static void
lock_related(int64 execution_id, Execution *execution)
{
	if (!lock_child(execution_id, false, execution))
		lock_rare(execution_id, execution);
}

static void
check_outside(int64 execution_id, bool outside_only, const Execution *execution)
{
	if (outside_only && !execution->is_external)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("execution " INT64_FORMAT " is run by weir itself", execution_id),
				 errdetail("Only executions that log_execution_start began are ended from outside."),
				 errhint("To stop a run of weir, cancel it.")));
}

/* One without relatives is locked, or found not to be alone, before anything of a tree is. */
void
execution_lock(int64 execution_id, bool outside_only, Execution *execution)
{
	if (!lock_alone(execution_id, false, false, execution))
	{
		execution_lock_tree(execution_id);
		lock_related(execution_id, execution);
	}
	check_outside(execution_id, outside_only, execution);
}

void
execution_lock_rows(int64 execution_id, bool outside_only, Execution *execution)
{
	if (!lock_alone(execution_id, false, false, execution))
		lock_related(execution_id, execution);
	check_outside(execution_id, outside_only, execution);
}

/*
 * Whoever logs something of an execution holds its run until he commits, and
 * may come to end it before that.  So he takes what the end takes first, in
 * the order of the end.  A run of weir itself ends without him: what is said
 * of it must not stand in its way.
 */
void
execution_lock_pipeline(int64 execution_id)
{
	ExecutionRow row;
	int64		pipeline_id;
	bool		is_external;
	bool		is_batch;

	if (!execution_row_find(EXECUTION_RUN_BY_ID, execution_id, &row))
		return;
	pipeline_id = execution_row_id(&row, RUN_COL_PIPELINE);
	is_external = execution_row_bool(&row, RUN_COL_IS_EXTERNAL);
	is_batch = execution_row_bool(&row, RUN_COL_IS_BATCH);
	execution_row_close(&row);
	if (!is_external)
		return;
	execution_lock_tree(execution_id);
	if (is_batch)
		execution_lock_family(pipeline_id);
	else if (pipeline_state_find(pipeline_id, &row) && execution_row_lock(&row, NULL))
		execution_row_close(&row);
}

/* ---- switches of a pipeline ---- */

PG_FUNCTION_INFO_V1(weir_set_pipeline_enabled);
PG_FUNCTION_INFO_V1(weir_skip_once);

static const char set_enabled_sql[] =
	"UPDATE weir.pipeline SET is_enabled = $2, "
	"changed_at = CASE WHEN is_enabled = $2 THEN changed_at ELSE clock_timestamp() END WHERE name = $1";

static const char set_skip_sql[] =
	"UPDATE weir.pipeline_state s SET skip_once = $2 FROM weir.pipeline p "
	"WHERE p.name = $1 AND s.pipeline_id = p.pipeline_id";

static Datum
set_switch(FunctionCallInfo fcinfo, const char *sql, const char *what, uint32 wake)
{
	static const Oid types[2] = {TEXTOID, BOOLOID};
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "pipeline_name", EXECUTION_MAX_NAME);
	Datum		values[2];
	bool		nulls[2] = {false, false};
	uint64		found;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", what)));
	values[0] = CStringGetTextDatum(name);
	values[1] = PG_GETARG_DATUM(1);

	weir_enter(&scope);
	weir_require_operator(scope.caller, "enable, disable or skip pipelines");
	found = weir_spi(sql, 2, types, values, NULL);
	if (found > 0 && wake != 0)
		engine_wake_at_commit(wake);
	weir_leave(&scope);

	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", name)));
	return execution_row(fcinfo, values, nulls);
}

/* set_pipeline_enabled(pipeline_name, enabled) */
Datum
weir_set_pipeline_enabled(PG_FUNCTION_ARGS)
{
	return set_switch(fcinfo, set_enabled_sql, "enabled", ENGINE_WAKE_DEFINITION);
}

/* skip_once(pipeline_name, skip) */
Datum
weir_skip_once(PG_FUNCTION_ARGS)
{
	return set_switch(fcinfo, set_skip_sql, "skip", 0);
}
