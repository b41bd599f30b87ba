/*-------------------------------------------------------------------------
 * sqlspec.c
 *	  How the statements of a SQL task run: bound values, settings, role,
 *	  statement timeout.
 *
 * Runs in SQL workers and in weir.conduct().  What was checked when the
 * pipeline was defined is checked again: roles, rights and settings may have
 * changed since.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timeout.h"

#include "compat.h"
#include "json.h"
#include "kind.h"
#include "mem.h"
#include "redispublish.h"
#include "reference.h"
#include "sqltask_int.h"
#include "sqltext.h"

/* References in the statements become parameters. */
static bool
bind_sql(TaskContext *context, BoundSql *bound, char **error)
{
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(context->spec, "items");
	const char *text = json_string(cJSON_GetObjectItemCaseSensitive(items ? items : context->spec, "sql"));
	char	   *hint = NULL;
	SqlText    *compiled;

	if (text == NULL)
	{
		*error = "the spec has no \"sql\"";
		return false;
	}
	compiled = sqltext_compile(text, error, &hint);
	if (compiled == NULL)
		return false;
	bound->sql = compiled->sql;
	bound->nargs = compiled->nrefs;
	bound->types = palloc(sizeof(Oid) * (compiled->nrefs + 1));
	bound->values = palloc(sizeof(Datum) * (compiled->nrefs + 1));
	bound->nulls = palloc(compiled->nrefs + 1);
	for (int i = 0; i < compiled->nrefs; i++)
	{
		bool		isnull;

		*error = NULL;
		bound->values[i] = context_bind(context, compiled->refs[i], &bound->types[i], &isnull, error);
		if (*error != NULL)
			return false;
		bound->nulls[i] = isnull ? 'n' : ' ';
	}
	return true;
}

/* A member with its references rendered; NULL if it is absent, or with *error. */
static const cJSON *
rendered(TaskContext *context, const char *name, char **error)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(context->spec, name);

	if (item == NULL || cJSON_IsNull(item))
		return NULL;
	return ref_render_json(item, context_resolve, context, error);
}

bool
sqlspec_read(TaskContext *context, BoundSql *bound, SqlSpec *spec, char **error)
{
	const char *transaction = json_string(cJSON_GetObjectItemCaseSensitive(context->spec, "transaction"));
	int64		max_rows;

	memset(spec, 0, sizeof(*spec));
	spec->lists_items = strcmp(context->kind, kind_for_each.name) == 0;
	spec->max_rows = KIND_SQL_DEFAULT_ROWS;
	if (json_int64(cJSON_GetObjectItemCaseSensitive(context->spec, "max_rows"), &max_rows))
		spec->max_rows = (int) Min(Max(max_rows, 0), KIND_SQL_MAX_ROWS);
	spec->role = json_string(cJSON_GetObjectItemCaseSensitive(context->spec, "role"));
	spec->is_own = transaction != NULL && strcmp(transaction, "own") == 0;

	*error = NULL;
	if (strcmp(context->kind, kind_redis_publish.name) == 0)
	{
		spec->is_read_only = true;
		spec->publish = redistask_read(context, error);
		if (*error != NULL)
			return false;
	}
	spec->set = rendered(context, "set", error);
	if (*error == NULL)
		spec->statement_timeout = rendered(context, "statement_timeout", error);
	return *error == NULL && bind_sql(context, bound, error);
}

void
sqlspec_set(const SqlSpec *spec, bool is_local)
{
	const cJSON *item;

	/* The text was lexed with this setting. */
	(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET, PGC_S_SESSION,
							 is_local ? GUC_ACTION_SAVE : GUC_ACTION_SET, true, 0, false);
	cJSON_ArrayForEach(item, spec->set)
		(void) set_config_option(item->string, cJSON_IsString(item) ? item->valuestring : json_text(item),
								 superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
								 is_local ? GUC_ACTION_SAVE : GUC_ACTION_SET, true, 0, false);
}

Oid
sqlspec_role(const SqlSpec *spec, Oid owner)
{
	Oid			role;

	if (spec->role == NULL)
		return owner;
	role = get_role_oid(spec->role, false);
	if (!member_can_set_role_compat(owner, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the pipeline's owner \"%s\" cannot become role \"%s\"",
						GetUserNameFromId(owner, false), spec->role),
				 errhint("Grant membership in that role to the owner, with the SET option.")));
	return role;
}

/* ---- the statement timeout ---- */

/* PostgreSQL's own timer, which only its main loop would start. */
void
sqltimer_init(SqlTimer *timer)
{
	timer->was_active = get_timeout_active(STATEMENT_TIMEOUT);
	timer->was_due = timer->was_active ? get_timeout_finish_time(STATEMENT_TIMEOUT) : 0;
	timer->timeout_ms = 0;
}

void
sqltimer_read(SqlTimer *timer, const SqlSpec *spec)
{
	double		seconds;
	Interval   *interval;

	if (spec->statement_timeout == NULL)
		return;
	if (!cJSON_IsString(spec->statement_timeout) && json_double(spec->statement_timeout, &seconds))
		timer->timeout_ms = (int64) (Min(seconds, 24 * 86400.0) * 1000);
	else
	{
		interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(json_string(spec->statement_timeout) ?
																					  spec->statement_timeout->valuestring : json_text(spec->statement_timeout)),
														 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		timer->timeout_ms = interval->month != 0 || interval->day > 24 ? PG_INT32_MAX :
			Min(interval->day * INT64CONST(86400000) + interval->time / 1000, PG_INT32_MAX);
	}
	if (timer->timeout_ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"statement_timeout\" must be a duration above zero")));
}

void
sqltimer_start(const SqlTimer *timer)
{
	TimestampTz due;

	if (timer->timeout_ms == 0)
		return;
	due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timer->timeout_ms);
	if (!timer->was_active || due < timer->was_due)
		enable_timeout_at(STATEMENT_TIMEOUT, due);
}

/* Also after an error; a timer that has just struck is noticed first, if the caller can bear it. */
void
sqltimer_stop(const SqlTimer *timer)
{
	if (timer->timeout_ms == 0)
		return;
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (timer->was_active)
		enable_timeout_at(STATEMENT_TIMEOUT, timer->was_due);
}
