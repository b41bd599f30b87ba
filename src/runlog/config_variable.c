/*-------------------------------------------------------------------------
 * config_variable.c
 *	  weir.get_config_variable and weir.set_config_variable
 *
 * Runs in the session of an outside orchestrator.  A variable has a type,
 * fixed when it is first set, and compares as that type and nothing else: a
 * text that looks like a date is a text.
 *
 * Locks: of an outside execution the pipeline first, as its end does; the run
 * (FOR KEY SHARE, so that an outside execution cannot end, and none be rolled
 * back, meanwhile; a run of weir itself goes on: the call may be one of its
 * own SQL tasks), then the variable.  Two sessions that set one variable take
 * turns, and the later one compares with what the earlier one committed, so
 * a watermark never moves back by a race.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalogutil.h"
#include "status.h"
#include "restart.h"
#include "execution.h"

PG_FUNCTION_INFO_V1(weir_get_config_variable);
PG_FUNCTION_INFO_V1(weir_set_config_variable);

#define MAX_VALUE 10000			/* bytes */

typedef enum VariableType
{
	VARIABLE_TEXT,
	VARIABLE_BIGINT,
	VARIABLE_NUMERIC,
	VARIABLE_TIMESTAMPTZ
} VariableType;

static const char *const type_names[] = {"text", "bigint", "numeric", "timestamptz"};

static const char get_sql[] =
	"SELECT v.value, v.type, v.run_id FROM weir.config_variable v "
	"WHERE v.system_name = $1 AND v.object_name = $2 AND v.variable_name = $3";

static const char owner_sql[] =
	"SELECT coalesce(p.owner, r.owner) FROM weir.run r LEFT JOIN weir.pipeline p ON p.pipeline_id = r.pipeline_id WHERE r.run_id = $1";

static const char lock_sql[] =
	"SELECT v.type, v.value, v.run_id FROM weir.config_variable v "
	"WHERE v.system_name = $1 AND v.object_name = $2 AND v.variable_name = $3 FOR UPDATE";

static const char create_sql[] =
	"INSERT INTO weir.config_variable (system_name, object_name, variable_name, type, changed_by) "
	"VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

static const char previous_sql[] =
	"SELECT h.previous_value FROM weir.config_variable_history h "
	"WHERE h.system_name = $1 AND h.object_name = $2 AND h.variable_name = $3 "
	"ORDER BY h.change_no DESC LIMIT 1";

/* change_no cannot collide: the variable is locked. */
static const char set_sql[] =
	"WITH h AS (INSERT INTO weir.config_variable_history (system_name, object_name, variable_name, change_no, "
	"previous_value, previous_run_id, value, run_id, changed_by) "
	"SELECT $1, $2, $3, coalesce((SELECT max(l.change_no) FROM weir.config_variable_history l "
	"WHERE l.system_name = $1 AND l.object_name = $2 AND l.variable_name = $3), 0) + 1, "
	"v.value, v.run_id, $4, $5, $6 FROM weir.config_variable v "
	"WHERE v.system_name = $1 AND v.object_name = $2 AND v.variable_name = $3) "
	"UPDATE weir.config_variable SET value = $4, run_id = $5, changed_by = $6, changed_at = clock_timestamp() "
	"WHERE system_name = $1 AND object_name = $2 AND variable_name = $3";

static const char run_sql[] =
	"SELECT r.status FROM weir.run r WHERE r.run_id = $1 FOR KEY SHARE";

/* ---- types ---- */

static VariableType
parse_type(const char *name)
{
	for (int i = 0; i < lengthof(type_names); i++)
	{
		if (strcmp(type_names[i], name) == 0)
			return (VariableType) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown type of a config variable: \"%s\"", name),
			 errhint("Use text, bigint, numeric or timestamptz.")));
	return VARIABLE_TEXT;		/* keep compiler quiet */
}

static void
refuse_value(const char *value, VariableType type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for a config variable of type %s: \"%s\"", type_names[type], value),
			 errdetail("A config variable must have a definite, finite value.")));
}

/*
 * A value of the type.  A moment without a time zone is UTC whatever the
 * session thinks; "now" and "infinity" are no high-water marks.
 */
static Datum
parse_value(const char *value, VariableType type)
{
	Datum		result;

	switch (type)
	{
		case VARIABLE_BIGINT:
			return DirectFunctionCall1(int8in, CStringGetDatum(value));
		case VARIABLE_NUMERIC:
			result = DirectFunctionCall3(numeric_in, CStringGetDatum(value),
										 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			if (numeric_is_nan(DatumGetNumeric(result)) || numeric_is_inf(DatumGetNumeric(result)))
				refuse_value(value, type);
			return result;
		case VARIABLE_TIMESTAMPTZ:
			if (value[0] < '0' || value[0] > '9')
				refuse_value(value, type);
			return DirectFunctionCall3(timestamptz_in, CStringGetDatum(value),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case VARIABLE_TEXT:
			break;
	}
	return CStringGetDatum(value);
}

static char *
print_value(Datum value, VariableType type)
{
	char	   *text;

	switch (type)
	{
		case VARIABLE_BIGINT:
			return DatumGetCString(DirectFunctionCall1(int8out, value));
		case VARIABLE_NUMERIC:
			text = DatumGetCString(DirectFunctionCall1(numeric_out, value));
			if (strlen(text) > MAX_VALUE)
				ereport(ERROR,
						(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						 errmsg("the value of a config variable may have at most %d digits", MAX_VALUE)));
			return text;
		case VARIABLE_TIMESTAMPTZ:
			return DatumGetCString(DirectFunctionCall1(timestamptz_out, value));
		case VARIABLE_TEXT:
			break;
	}
	return DatumGetCString(value);
}

/* Text compares by bytes: a collation may change under the data. */
static int
compare_values(Datum a, Datum b, VariableType type)
{
	switch (type)
	{
		case VARIABLE_BIGINT:
			return DatumGetInt32(DirectFunctionCall2(btint8cmp, a, b));
		case VARIABLE_NUMERIC:
			return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
		case VARIABLE_TIMESTAMPTZ:
			return DatumGetInt32(DirectFunctionCall2(timestamp_cmp, a, b));
		case VARIABLE_TEXT:
			break;
	}
	return strcmp(DatumGetCString(a), DatumGetCString(b));
}

/* weir_leave() puts both back. */
static void
use_utc(void)
{
	(void) set_config_option("TimeZone", "UTC", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("DateStyle", "ISO, YMD", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* ---- common ---- */

/* system, object (null is the whole system), variable */
static void
read_key(FunctionCallInfo fcinfo, Datum *key)
{
	char	   *object = execution_arg(fcinfo, 1, "object_name", EXECUTION_MAX_CODE);

	key[0] = CStringGetTextDatum(catalog_arg_required(fcinfo, 0, "system_name", EXECUTION_MAX_NAME));
	key[1] = CStringGetTextDatum(object ? object : "");
	key[2] = CStringGetTextDatum(catalog_arg_required(fcinfo, 2, "variable_name", EXECUTION_MAX_NAME));
}

static char *
copy_out(MemoryContext context, const char *value)
{
	return value == NULL ? NULL : MemoryContextStrdup(context, value);
}

static Datum
row_text(const char *value, bool *isnull)
{
	*isnull = value == NULL;
	return value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

/* ---- get ---- */

/* As weir.config_variables shows them: to readers all, to others what a run of a pipeline of theirs set last. */
static void
require_visible(Oid caller, bool never_set, int64 run_id, const char *name)
{
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(run_id);
	Oid			owner = InvalidOid;

	if (weir_is_reader(caller))
		return;
	if (!never_set && weir_spi(owner_sql, 1, &int8, &id, NULL) > 0)
		owner = (Oid) weir_spi_int64(0, 1, NULL);
	weir_require_reader_or_owner(caller, owner, psprintf("see config variable \"%s\"", name));
}

/* get_config_variable(system_name, object_name, variable_name, default_value, execution_id) */
Datum
weir_get_config_variable(PG_FUNCTION_ARGS)
{
	static const Oid types[3] = {TEXTOID, TEXTOID, TEXTOID};
	static const Oid int8 = INT8OID;
	MemoryContext context = CurrentMemoryContext;
	WeirScope	scope;
	Datum		key[3];
	char	   *fallback = execution_arg(fcinfo, 3, "default_value", MAX_VALUE);
	char	   *value = NULL;
	char	   *type = NULL;
	bool		never_set = true;
	int64		run_id = 0;
	Datum		values[4];
	bool		nulls[4] = {false};

	read_key(fcinfo, key);
	weir_enter(&scope);
	if (!PG_ARGISNULL(4))
	{
		Datum		id = PG_GETARG_DATUM(4);

		if (weir_spi("SELECT FROM weir.run WHERE run_id = $1", 1, &int8, &id, NULL) == 0)
			execution_unknown(PG_GETARG_INT64(4));
	}
	if (weir_spi(get_sql, 3, types, key, NULL) > 0)
	{
		value = copy_out(context, weir_spi_text(0, 1));
		type = copy_out(context, weir_spi_text(0, 2));
		run_id = weir_spi_int64(0, 3, &never_set);
		require_visible(scope.caller, never_set, run_id, TextDatumGetCString(key[2]));
	}
	weir_leave(&scope);

	values[0] = row_text(value ? value : fallback, &nulls[0]);
	values[1] = row_text(type, &nulls[1]);
	values[2] = Int64GetDatum(run_id);
	nulls[2] = never_set;
	values[3] = BoolGetDatum(value == NULL);
	return execution_row(fcinfo, values, nulls);
}

/* ---- set ---- */

typedef struct Change
{
	Datum		key[3];
	char	   *given;			/* value as given */
	char	   *given_type;		/* NULL: as it is, text if new */
	bool		has_run;
	int64		run_id;
	bool		run_ended;		/* only a repeated call is all right */
	bool		allow_backwards;

	/* results, in SPI memory */
	VariableType type;
	char	   *previous;
	char	   *value;
	bool		changed;
} Change;

static void
check_run(Change *change)
{
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(change->run_id);
	RunStatus	status = RUN_FAILED;

	execution_lock_pipeline(change->run_id);
	if (weir_spi(run_sql, 1, &int8, &id, NULL) == 0)
		execution_unknown(change->run_id);
	(void) run_status_parse(weir_spi_text(0, 1), &status);
	change->run_ended = status != RUN_RUNNING && status != RUN_CANCELLING;
}

static void
refuse_ended_run(const Change *change)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("execution " INT64_FORMAT " does not run and sets no config variables", change->run_id),
			 errhint("Set them before log_execution_end; without an execution id a change belongs to no execution.")));
}

static void
lock_or_create(Change *change, Oid caller)
{
	static const Oid types[5] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5] = {change->key[0], change->key[1], change->key[2]};

	if (weir_spi(lock_sql, 3, types, change->key, NULL) > 0)
		return;

	/* of two first calls the second waits here, and then finds the row */
	if (change->run_ended)
		refuse_ended_run(change);
	change->type = change->given_type ? parse_type(change->given_type) : VARIABLE_TEXT;
	values[3] = CStringGetTextDatum(type_names[change->type]);
	values[4] = CStringGetTextDatum(GetUserNameFromId(caller, false));
	(void) weir_spi(create_sql, 5, types, values, NULL);
	if (weir_spi(lock_sql, 3, types, change->key, NULL) == 0)
		elog(ERROR, "config variable vanished");
}

static void
write_change(Change *change, Oid caller)
{
	static const Oid types[6] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID};
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	Datum		values[6] = {change->key[0], change->key[1], change->key[2]};

	values[3] = CStringGetTextDatum(change->value);
	values[4] = Int64GetDatum(change->run_id);
	nulls[4] = change->has_run ? ' ' : 'n';
	values[5] = CStringGetTextDatum(GetUserNameFromId(caller, false));
	(void) weir_spi(set_sql, 6, types, values, nulls);
	change->changed = true;
}

/*
 * The new value against the current one: forward is written, equal and
 * backward are not, unless asked.  A call repeated by the execution that set
 * the value gets the answer of the first.
 */
static void
apply(Change *change, Oid caller)
{
	static const Oid types[3] = {TEXTOID, TEXTOID, TEXTOID};
	char	   *type_name = weir_spi_text(0, 1);
	char	   *current = weir_spi_text(0, 2);
	bool		is_ours;
	bool		has_setter;
	int64		setter = weir_spi_int64(0, 3, &has_setter);
	Datum		value;
	int			direction = 1;

	change->type = parse_type(type_name);
	if (change->given_type != NULL && strcmp(change->given_type, type_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("config variable is of type %s, not %s", type_name, change->given_type),
				 errdetail("The type is fixed when a variable is first set.")));
	value = parse_value(change->given, change->type);
	change->value = print_value(value, change->type);
	change->previous = current;
	if (current != NULL)
		direction = compare_values(value, parse_value(current, change->type), change->type);

	is_ours = change->has_run && !has_setter && setter == change->run_id;
	if (direction == 0 && is_ours)
	{
		char	   *kept = current;

		if (weir_spi(previous_sql, 3, types, change->key, NULL) > 0)
			change->previous = weir_spi_text(0, 1);
		change->value = kept;
		change->changed = true;
		return;
	}
	if (change->run_ended)
		refuse_ended_run(change);
	if (direction > 0 || (direction < 0 && change->allow_backwards))
		write_change(change, caller);
	else
		change->value = current;
}

/* set_config_variable(system_name, object_name, variable_name, value, execution_id, type, allow_backwards) */
Datum
weir_set_config_variable(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	WeirScope	scope;
	Change		change = {0};
	Datum		values[4];
	bool		nulls[4] = {false};

	read_key(fcinfo, change.key);
	change.given = catalog_arg_required(fcinfo, 3, "value", MAX_VALUE);
	change.has_run = !PG_ARGISNULL(4);
	change.run_id = change.has_run ? PG_GETARG_INT64(4) : 0;
	change.given_type = execution_arg(fcinfo, 5, "type", EXECUTION_MAX_NAME);
	if (change.given_type != NULL)
		(void) parse_type(change.given_type);
	change.allow_backwards = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);

	weir_enter(&scope);
	weir_require_operator(scope.caller, "set config variables");
	use_utc();
	if (change.has_run)
		check_run(&change);
	lock_or_create(&change, scope.caller);
	apply(&change, scope.caller);
	change.previous = copy_out(context, change.previous);
	change.value = copy_out(context, change.value);
	weir_leave(&scope);

	values[0] = row_text(change.previous, &nulls[0]);
	values[1] = row_text(change.value, &nulls[1]);
	values[2] = CStringGetTextDatum(type_names[change.type]);
	values[3] = BoolGetDatum(change.changed);
	return execution_row(fcinfo, values, nulls);
}
