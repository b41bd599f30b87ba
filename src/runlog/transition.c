/*-------------------------------------------------------------------------
 * transition.c
 *	  Refuse illegal changes of status, and what is no status at all.
 *
 * A trigger on run, task_run and attempt, called for every row whose status
 * is set, in whatever process sets it.  The argument names the table.
 * Decides with core/status.c, reads nothing but the two rows, takes no lock.
 * As every change passes here, listeners are notified from here (announce.c).
 * The check constraints of the three tables ask the same code.
 *
 * That a status stays as it is, is seen here: a WHEN clause of the trigger would be
 * planned again by every statement.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "announce.h"
#include "status.h"
#include "restart.h"

PG_FUNCTION_INFO_V1(weir_check_transition);
PG_FUNCTION_INFO_V1(weir_is_run);
PG_FUNCTION_INFO_V1(weir_is_task_run);
PG_FUNCTION_INFO_V1(weir_is_attempt);

static char *
status_of(HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		value;
	int			column = SPI_fnumber(desc, "status");

	if (column <= 0)
		elog(ERROR, "table has no column \"status\"");
	value = heap_getattr(row, column, desc, &isnull);
	return isnull ? NULL : TextDatumGetCString(value);
}

static char *
value_of(HeapTuple row, TupleDesc desc, const char *column)
{
	char	   *value = SPI_getvalue(row, desc, SPI_fnumber(desc, column));

	return value != NULL ? value : "?";
}

/* "run 5", "task run 7", "attempt 2 of task run 7" */
static char *
row_name(HeapTuple row, TupleDesc desc, const char *table)
{
	if (strcmp(table, "run") == 0)
		return psprintf("run %s", value_of(row, desc, "run_id"));
	if (strcmp(table, "task_run") == 0)
		return psprintf("task run %s", value_of(row, desc, "task_run_id"));
	return psprintf("attempt %s of task run %s", value_of(row, desc, "attempt_no"),
					value_of(row, desc, "task_run_id"));
}

/* known: both names are statuses of this table */
static bool
is_legal(const char *table, const char *from, const char *to, bool *known)
{
	if (strcmp(table, "run") == 0)
	{
		RunStatus	a,
					b;

		*known = run_status_parse(from, &a) && run_status_parse(to, &b);
		return *known && run_status_can(a, b);
	}
	if (strcmp(table, "task_run") == 0)
	{
		TaskStatus	a,
					b;

		*known = task_status_parse(from, &a) && task_status_parse(to, &b);
		return *known && task_status_can(a, b);
	}
	if (strcmp(table, "attempt") == 0)
	{
		AttemptStatus a,
					b;

		*known = attempt_status_parse(from, &a) && attempt_status_parse(to, &b);
		return *known && attempt_status_can(a, b);
	}
	elog(ERROR, "unknown argument \"%s\" of trigger function", table);
	return false;				/* keep the compiler quiet */
}

Datum
weir_check_transition(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	const char *table;
	char	   *from;
	char	   *to;
	bool		known;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("_check_transition must be called by a trigger BEFORE UPDATE FOR EACH ROW with one argument")));

	desc = RelationGetDescr(trigger->tg_relation);
	table = trigger->tg_trigger->tgargs[0];
	from = status_of(trigger->tg_trigtuple, desc);
	to = status_of(trigger->tg_newtuple, desc);

	if (from != NULL && to != NULL && strcmp(from, to) == 0)
		return PointerGetDatum(trigger->tg_newtuple);
	if (!is_legal(table, from, to, &known))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("illegal change of status of %s: %s to %s",
						row_name(trigger->tg_trigtuple, desc, table),
						from != NULL ? from : "null", to != NULL ? to : "null"),
				 known ?
				 errdetail("No path of the state diagram leads from one to the other.") :
				 errdetail("One of them is no status.")));

	if (weir_notify != NOTIFY_NONE)
		announce_change(table, trigger->tg_newtuple, desc, from);
	pfree(from);
	pfree(to);
	return PointerGetDatum(trigger->tg_newtuple);
}

/* ---- check constraints; null passes, as NOT NULL is another's business ---- */

/* _is_run(status, start_status, next_load_status) */
Datum
weir_is_run(PG_FUNCTION_ARGS)
{
	RunStatus	status;
	NextLoadStatus next_load;

	if (!PG_ARGISNULL(0) && !run_status_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &status))
		PG_RETURN_BOOL(false);
	if (!PG_ARGISNULL(1) && (PG_GETARG_CHAR(1) == '\0' || strchr("ERDCA", PG_GETARG_CHAR(1)) == NULL))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(PG_ARGISNULL(2) || next_load_status_parse(PG_GETARG_CHAR(2), &next_load));
}

/* Null, or one of n words */
static bool
is_word(FunctionCallInfo fcinfo, int arg, const char *const *words, int n)
{
	char	   *given;

	if (PG_ARGISNULL(arg))
		return true;
	given = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	while (n > 0 && strcmp(given, words[n - 1]) != 0)
		n--;
	return n > 0;
}

/* _is_task_run(status, skip_reason) */
Datum
weir_is_task_run(PG_FUNCTION_ARGS)
{
	static const char *const reasons[] = {"condition", "disabled", "not_selected"};
	TaskStatus	status;

	PG_RETURN_BOOL((PG_ARGISNULL(0) || task_status_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &status)) &&
				   is_word(fcinfo, 1, reasons, lengthof(reasons)));
}

/* _is_attempt(status, failure_type) */
Datum
weir_is_attempt(PG_FUNCTION_ARGS)
{
	static const char *const types[] = {"user", "system"};
	AttemptStatus status;

	PG_RETURN_BOOL((PG_ARGISNULL(0) || attempt_status_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &status)) &&
				   is_word(fcinfo, 1, types, lengthof(types)));
}
