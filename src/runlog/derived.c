/*-------------------------------------------------------------------------
 * derived.c
 *	  Columns of the run log that follow from others of their row.
 *
 * The generated columns of weir.run, weir.task_run and weir.attempt, computed
 * in whatever process writes the row.  Most exist for an index of the few
 * rows that they are not null in.  They are functions because every statement
 * that writes one of these tables reads the expressions of its generated
 * columns anew, and a call is read faster than what it does.
 *
 * All are immutable, read nothing but their arguments and take nulls.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "status.h"

PG_FUNCTION_INFO_V1(weir_run_live);
PG_FUNCTION_INFO_V1(weir_task_lane);
PG_FUNCTION_INFO_V1(weir_item_live);
PG_FUNCTION_INFO_V1(weir_retry_deadline);
PG_FUNCTION_INFO_V1(weir_attempt_signal);
PG_FUNCTION_INFO_V1(weir_callback_key);
PG_FUNCTION_INFO_V1(weir_start_place);

static bool
text_is(const text *value, const char *wanted)
{
	size_t		len = strlen(wanted);

	return VARSIZE_ANY_EXHDR(value) == len && memcmp(VARDATA_ANY(value), wanted, len) == 0;
}

static bool
arg_is(FunctionCallInfo fcinfo, int n, const char *wanted)
{
	return !PG_ARGISNULL(n) && text_is(PG_GETARG_TEXT_PP(n), wanted);
}

/* _run_live(is_external, status) */
Datum
weir_run_live(PG_FUNCTION_ARGS)
{
	RunStatus	status;

	if (PG_ARGISNULL(0) || PG_GETARG_BOOL(0) || PG_ARGISNULL(1) ||
		!run_status_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), &status) || run_status_is_final(status))
		PG_RETURN_NULL();
	PG_RETURN_CHAR(status == RUN_QUEUED ? 'q' : 'a');
}

static void
append_arg(StringInfo lane, char before, FunctionCallInfo fcinfo, int n)
{
	appendStringInfoChar(lane, before);
	appendBinaryStringInfo(lane, VARDATA_ANY(PG_GETARG_TEXT_PP(n)), VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(n)));
}

/*
 * _task_lane(kind, uses_worker, run_limit, pool, pool_slots, connection_name):
 * what it needs to start, as engine/lanes.c reads it.
 */
Datum
weir_task_lane(PG_FUNCTION_ARGS)
{
	StringInfoData lane;
	bool		uses_worker = PG_ARGISNULL(1) ? arg_is(fcinfo, 0, "sql") || arg_is(fcinfo, 0, "redis_publish") : PG_GETARG_BOOL(1);

	initStringInfo(&lane);
	if (arg_is(fcinfo, 0, "noop"))
		appendStringInfoString(&lane, "noop");
	else
	{
		appendStringInfoString(&lane, uses_worker ? "sql" : "call");
		if (!PG_ARGISNULL(2))
			appendStringInfo(&lane, "#%d", PG_GETARG_INT32(2));
		if (!PG_ARGISNULL(3) && !PG_ARGISNULL(4))
		{
			append_arg(&lane, ':', fcinfo, 3);
			appendStringInfo(&lane, ":%d", PG_GETARG_INT32(4));
		}
		if (!PG_ARGISNULL(5))
			append_arg(&lane, '@', fcinfo, 5);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(lane.data, lane.len));
}

/* _item_live(parent_task_run_id, status): of an item of a for_each */
Datum
weir_item_live(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (arg_is(fcinfo, 1, "waiting"))
		PG_RETURN_CHAR('w');
	if (arg_is(fcinfo, 1, "ready") || arg_is(fcinfo, 1, "running"))
		PG_RETURN_CHAR('a');
	PG_RETURN_NULL();
}

/* _retry_deadline(deadline, status): only while the next attempt is waited for */
Datum
weir_retry_deadline(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || !arg_is(fcinfo, 1, "ready"))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(PG_GETARG_TIMESTAMPTZ(0));
}

/* ---- what a kind notes of its attempt ---- */

/* The value of a key, if the document is an object and has a text there; the value is of the document. */
static bool
text_at(JsonbContainer *object, const char *key, JsonbValue *value)
{
	return JsonContainerIsObject(object) &&
		getKeyJsonValueFromContainer(object, key, strlen(key), value) != NULL && value->type == jbvString;
}

static Datum
text_of(const JsonbValue *value)
{
	return PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
}

/* _attempt_signal(kind_state, status): the signal that an attempt without an outcome waits for */
Datum
weir_attempt_signal(PG_FUNCTION_ARGS)
{
	JsonbValue	value;

	if (PG_ARGISNULL(0) || !(arg_is(fcinfo, 1, "intended") || arg_is(fcinfo, 1, "started")) ||
		!text_at(&PG_GETARG_JSONB_P(0)->root, "signal", &value))
		PG_RETURN_NULL();
	return text_of(&value);
}

/* _callback_key(kind_state): by which a callback names its attempt */
Datum
weir_callback_key(PG_FUNCTION_ARGS)
{
	JsonbContainer *root;
	JsonbValue	callback;
	JsonbValue	key;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	root = &PG_GETARG_JSONB_P(0)->root;
	if (!JsonContainerIsObject(root) ||
		getKeyJsonValueFromContainer(root, "callback", strlen("callback"), &callback) == NULL ||
		callback.type != jbvBinary || !text_at(callback.val.binary.data, "key", &key))
		PG_RETURN_NULL();
	return text_of(&key);
}

/* _start_place(kind_state): where no two attempts may start at a time */
Datum
weir_start_place(PG_FUNCTION_ARGS)
{
	JsonbValue	value;

	if (PG_ARGISNULL(0) || !text_at(&PG_GETARG_JSONB_P(0)->root, "start_place", &value))
		PG_RETURN_NULL();
	return text_of(&value);
}
