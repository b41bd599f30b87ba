/*-------------------------------------------------------------------------
 * adopt.c
 *	  weir.adopt and weir.resolve
 *
 * Run in the session of a client, who has looked into the engine.  What is
 * asked for here, engine/uncertain.c and engine/rerun.c do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "engine.h"
#include "kind.h"
#include "runapi.h"
#include "status.h"

#define MAX_EXTERNAL_ID	1000
#define MAX_REASON		4000
#define MAX_DECISION	20

PG_FUNCTION_INFO_V1(weir_adopt);
PG_FUNCTION_INFO_V1(weir_resolve);

/* A task run as it is now; nothing is locked, the conductor looks again. */
typedef struct Adoptee
{
	int64		task_run_id;
	RunFacts	run;
	char	   *name;
	char	   *kind;
	char	   *status;
	bool		is_uncertain;
} Adoptee;

static Adoptee
read_adoptee(int64 task_run_id, Oid caller, const char *what)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(task_run_id)};
	Adoptee		task = {.task_run_id = task_run_id};
	int64		run_id;

	if (weir_spi("SELECT t.run_id, t.task_name, t.kind, t.status, coalesce(t.status = 'running' AND a.kind_state ? 'uncertain' "
				 "AND NOT a.kind_state ? 'resolution' AND a.status IN ('intended', 'started'), false) "
				 "FROM weir.task_run t LEFT JOIN weir.attempt a ON a.task_run_id = t.task_run_id AND a.attempt_no = t.attempt_no "
				 "WHERE t.task_run_id = $1", 1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("task run " INT64_FORMAT " does not exist", task_run_id),
				 errhint("View weir.task_runs lists the task runs.")));
	run_id = weir_spi_int64(0, 1, NULL);
	task.name = weir_spi_text(0, 2);
	task.kind = weir_spi_text(0, 3);
	task.status = weir_spi_text(0, 4);
	task.is_uncertain = weir_spi_bool(0, 5, NULL);
	task.run = run_read(run_id);
	weir_require_operator_or_owner(caller, task.run.owner, psprintf("%s task run " INT64_FORMAT, what, task_run_id));
	return task;
}

static void
ask_conductor(const Adoptee *task, const char *action, const char *name, const char *external_run_id, const char *reason, Oid caller)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[7];
	char		nulls[] = "       ";

	values[0] = Int64GetDatum(task->run.run_id);
	values[1] = catalog_text(action);
	values[2] = run_text_or_null(name, &nulls[2]);
	values[3] = Int64GetDatum(task->task_run_id);
	values[4] = run_text_or_null(external_run_id, &nulls[4]);
	values[5] = run_text_or_null(reason, &nulls[5]);
	values[6] = catalog_text(GetUserNameFromId(caller, false));
	if (weir_spi("INSERT INTO weir.request (run_id, action, name, task_run_id, external_run_id, reason, requested_by) "
				 "SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = $1 AND q.action = $2 "
				 "AND ($2 = 'repair' OR q.task_run_id = $4))",
				 7, types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task run " INT64_FORMAT " is being decided already", task->task_run_id),
				 errhint("See weir.why(" INT64_FORMAT ").", task->run.run_id)));
	engine_wake_at_commit(ENGINE_WAKE_REQUEST);
}

/* Only what has an id in the engine can be followed there. */
static void
check_kind(const Adoptee *task)
{
	const TaskKind *kind = kind_find(task->kind);

	if (kind == NULL || !kind->is_http || (kind->abandon != NULL && !kind->has_runs))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("task run " INT64_FORMAT " of kind %s cannot adopt a run", task->task_run_id, task->kind),
				 errdetail("Tasks of this kind have no run with an id that could be followed."),
				 errhint("Say what became of it with weir.resolve, or repair the run.")));
}

#define DIGITS	"0123456789"

/* What cannot be an id of the engine's is refused here: asking for it would fail the run that is repaired for it. */
static void
check_external_id(const char *kind, const char *id)
{
	static const struct
	{
		const char *kind;
		const char *chars;
		size_t		len;		/* 0: any */
		const char *hint;
	}			forms[] = {
		{"adf_pipeline", DIGITS "abcdefABCDEF-", 36, "Give the run ID of the pipeline run, 36 characters, from its page in Data Factory."},
		{"fabric_item", DIGITS "abcdefABCDEF-", 36, "Give the ID of the job instance, 36 characters."},
		{"databricks_job", DIGITS, 0, "Give the run ID, a number, from the page of the job run."},
		{"databricks_notebook", DIGITS, 0, "Give the run ID, a number, from the page of the run."},
		{"databricks_python", DIGITS, 0, "Give the run ID, a number, from the page of the run."},
		{"databricks_jar", DIGITS, 0, "Give the run ID, a number, from the page of the run."},
		{"databricks_sql_file", DIGITS, 0, "Give the run ID, a number, from the page of the run."},
	};
	size_t		len = strlen(id);
	bool		fits = strcmp(id, ".") != 0 && strcmp(id, "..") != 0;
	const char *hint = "Give the id by which the engine knows the work.";

	for (size_t i = 0; i < len; i++)
		fits &= (unsigned char) id[i] > ' ' && id[i] != 0x7F;
	for (size_t i = 0; i < lengthof(forms); i++)
	{
		if (strcmp(forms[i].kind, kind) != 0)
			continue;
		fits &= strspn(id, forms[i].chars) == len && (forms[i].len == 0 ? len <= 19 : len == forms[i].len);
		hint = forms[i].hint;
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not an id of a run of kind %s", kind),
				 errhint("%s", hint)));
}

/* adopt(task_run_id, external_run_id, reason) returns the run id */
Datum
weir_adopt(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		task_run_id = run_arg_id(fcinfo, 0);
	char	   *external = catalog_arg_required(fcinfo, 1, "external_run_id", MAX_EXTERNAL_ID);
	char	   *reason = run_arg_text(fcinfo, 2, "reason", MAX_REASON);
	Adoptee		task;

	if (external[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"external_run_id\" must not be empty")));
	weir_enter(&scope);
	task = read_adoptee(task_run_id, scope.caller, "adopt a run for");
	check_kind(&task);
	check_external_id(task.kind, external);
	if (task.is_uncertain)
		ask_conductor(&task, "resolve", "adopt", external, reason, scope.caller);
	else
	{
		if (strcmp(task.status, "failed") != 0 && strcmp(task.status, "timed_out") != 0 && strcmp(task.status, "cancelled") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("task run " INT64_FORMAT " cannot adopt a run", task_run_id),
					 errdetail("Its status is %s.", task.status),
					 errhint("Only a task run that is uncertain, or that ended without success, can.")));
		run_check_repairable(&task.run);
		ask_conductor(&task, "repair", NULL, external, reason, scope.caller);
	}
	weir_leave(&scope);
	PG_RETURN_INT64(task.run.run_id);
}

/* resolve(task_run_id, decision, reason) returns the run id */
Datum
weir_resolve(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	int64		task_run_id = run_arg_id(fcinfo, 0);
	char	   *decision = catalog_arg_required(fcinfo, 1, "decision", MAX_DECISION);
	char	   *reason = run_arg_text(fcinfo, 2, "reason", MAX_REASON);
	Adoptee		task;

	if (strcmp(decision, "succeeded") != 0 && strcmp(decision, "failed") != 0 && strcmp(decision, "send_again") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown decision \"%s\"", catalog_clip(decision)),
				 errhint("Decisions are: succeeded, failed, send_again.")));
	weir_enter(&scope);
	task = read_adoptee(task_run_id, scope.caller, "resolve");
	if (!task.is_uncertain)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task run " INT64_FORMAT " is not uncertain", task_run_id),
				 errdetail("Its status is %s.", task.status),
				 errhint("See what it waits for with weir.why(" INT64_FORMAT ").", task.run.run_id)));
	ask_conductor(&task, "resolve", decision, NULL, reason, scope.caller);
	weir_leave(&scope);
	PG_RETURN_INT64(task.run.run_id);
}
