/*-------------------------------------------------------------------------
 * params.c
 *	  Parameters of pipelines: their types, and the values of a run.
 *
 * Runs in the session that defines a pipeline or triggers it, and in the
 * conductor when a schedule does.  A value depends on nothing but itself:
 * not on DateStyle, not on the session's time zone.  No locks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "compat.h"
#include "definition.h"
#include "json.h"

#define MAX_PARAMS_BYTES	(1024 * 1024)
#define MAX_NUMERIC_DIGITS	1000

static const char *const type_names[] = {
	"text", "bigint", "numeric", "boolean", "date", "timestamptz", "json"
};

bool
param_type_known(const char *type)
{
	for (int i = 0; i < lengthof(type_names); i++)
		if (strcmp(type, type_names[i]) == 0)
			return true;
	return false;
}

const char *
param_type_names(void)
{
	return "text, bigint, numeric, boolean, date, timestamptz and json";
}

/* Exactly n digits at *p, moved behind them */
static bool
read_digits(const char **p, int n, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++, (*p)++)
	{
		if (**p < '0' || **p > '9')
			return false;
		*value = *value * 10 + (**p - '0');
	}
	return true;
}

/* YYYY-MM-DD, a day that exists */
static bool
read_date(const char **p, struct pg_tm *tm)
{
	return read_digits(p, 4, &tm->tm_year) && *(*p)++ == '-' &&
		read_digits(p, 2, &tm->tm_mon) && *(*p)++ == '-' &&
		read_digits(p, 2, &tm->tm_mday) &&
		tm->tm_year >= 1 && tm->tm_mon >= 1 && tm->tm_mon <= 12 &&
		tm->tm_mday >= 1 && tm->tm_mday <= day_tab[isleap(tm->tm_year)][tm->tm_mon - 1];
}

/* HH:MM[:SS[.f]] and up to six digits of a fraction */
static bool
read_time(const char **p, struct pg_tm *tm, fsec_t *fsec)
{
	if (!read_digits(p, 2, &tm->tm_hour) || *(*p)++ != ':' || !read_digits(p, 2, &tm->tm_min))
		return false;
	if (**p == ':')
	{
		(*p)++;
		if (!read_digits(p, 2, &tm->tm_sec))
			return false;
		if (**p == '.')
		{
			int			scale = 100000;

			(*p)++;
			if (!isdigit((unsigned char) **p))
				return false;
			for (; isdigit((unsigned char) **p) && scale > 0; (*p)++, scale /= 10)
				*fsec += (**p - '0') * scale;
		}
	}
	return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

/* Z, +HH, +HHMM or +HH:MM; *west in seconds, as PostgreSQL counts */
static bool
read_zone(const char **p, int *west)
{
	int			sign = **p == '-' ? 1 : -1;
	int			hours;
	int			minutes = 0;

	*west = 0;
	if (**p == 'Z' || **p == 'z')
	{
		(*p)++;
		return true;
	}
	if (**p != '+' && **p != '-')
		return false;
	(*p)++;
	if (!read_digits(p, 2, &hours))
		return false;
	if (**p == ':')
		(*p)++;
	if (**p != '\0' && !read_digits(p, 2, &minutes))
		return false;
	*west = sign * (hours * 60 + minutes) * 60;
	return hours <= 15 && minutes < 60;
}

/* In UTC, 2026-03-29T00:30:00Z, with a fraction only if there is one; NULL if it is no timestamp. */
static char *
normalise_timestamp(const char *text)
{
	struct pg_tm tm = {0};
	fsec_t		fsec = 0;
	Timestamp	when;
	int			west;
	char	   *out;

	if (!read_date(&text, &tm) || (*text != 'T' && *text != 't' && *text != ' '))
		return NULL;
	text++;
	if (!read_time(&text, &tm, &fsec) || !read_zone(&text, &west) || *text != '\0')
		return NULL;
	if (tm2timestamp(&tm, fsec, &west, &when) != 0 ||
		timestamp2tm(when, NULL, &tm, &fsec, NULL, NULL) != 0 ||
		tm.tm_year < 1 || tm.tm_year > 9999)
		return NULL;
	out = psprintf("%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year, tm.tm_mon, tm.tm_mday,
				   tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (fsec != 0)
		out = psprintf("%s.%06d", out, (int) fsec);
	return psprintf("%sZ", out);
}

/* Digits, one point, an exponent: what JSON calls a number */
static cJSON *
normalise_numeric(const cJSON *value)
{
	char	   *error = NULL;
	cJSON	   *number;

	if (!cJSON_IsString(value))
		return cJSON_IsNumber(value) || cJSON_IsRaw(value) ? cJSON_Duplicate(value, true) : NULL;
	if (strlen(value->valuestring) > MAX_NUMERIC_DIGITS)
		return NULL;
	number = json_parse(value->valuestring, strlen(value->valuestring), MAX_NUMERIC_DIGITS, &error);
	return number != NULL && (cJSON_IsNumber(number) || cJSON_IsRaw(number)) ? number : NULL;
}

cJSON *
param_normalise(const char *type, const cJSON *value, const char **problem)
{
	const char *text = cJSON_IsString(value) ? value->valuestring : NULL;
	cJSON	   *normal = NULL;
	int64		number;

	*problem = NULL;
	if (strcmp(type, "text") == 0)
	{
		*problem = "must be a string";
		normal = text ? cJSON_CreateString(text) : NULL;
	}
	else if (strcmp(type, "bigint") == 0)
	{
		*problem = "must be an integer of at most 64 bits";
		normal = json_int64(value, &number) ? json_from_int64(number) : NULL;
	}
	else if (strcmp(type, "numeric") == 0)
	{
		*problem = "must be a number";
		normal = normalise_numeric(value);
	}
	else if (strcmp(type, "boolean") == 0)
	{
		*problem = "must be true or false";
		normal = cJSON_IsBool(value) ? cJSON_Duplicate(value, true) : NULL;
	}
	else if (strcmp(type, "date") == 0)
	{
		struct pg_tm tm = {0};
		const char *p = text;

		*problem = "must be a date such as \"2026-01-31\"";
		if (text && read_date(&p, &tm) && *p == '\0')
			normal = cJSON_CreateString(text);
	}
	else if (strcmp(type, "timestamptz") == 0)
	{
		char	   *utc = text ? normalise_timestamp(text) : NULL;

		*problem = "must be a time with a time zone such as \"2026-01-31T06:00:00Z\"";
		normal = utc ? cJSON_CreateString(utc) : NULL;
	}
	else if (strcmp(type, "json") == 0)
		normal = cJSON_Duplicate(value, true);

	if (normal != NULL)
		*problem = NULL;
	return normal;
}

noreturn_compat static void
param_error(const char *name, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("parameter \"%s\" %s", catalog_clip(name), message),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/* Value of one declared parameter: given, default or null. */
static cJSON *
bind_one(const char *name, const char *type, const char *default_text, bool required, const cJSON *given)
{
	const char *problem = NULL;
	char	   *error = NULL;
	cJSON	   *value;

	if (given == NULL && default_text != NULL)
		given = json_parse(default_text, strlen(default_text), DEFINITION_MAX_BYTES, &error);
	if (given == NULL && required)
		param_error(name, "is missing", psprintf("It is of type %s and has no default.", type));
	if (given == NULL || cJSON_IsNull(given))
	{
		if (required && strcmp(type, "json") != 0)
			param_error(name, "must not be null", NULL);
		return cJSON_CreateNull();
	}
	value = param_normalise(type, given, &problem);
	if (value == NULL)
		param_error(name, problem, NULL);
	return value;
}

Datum
pipeline_bind_params(int64 pipeline_id, int version, Datum params_jsonb)
{
	static const Oid types[] = {INT8OID, INT4OID};
	Jsonb	   *jsonb = DatumGetJsonbP(params_jsonb);
	char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	char	   *error = NULL;
	Datum		values[2];
	cJSON	   *given;
	cJSON	   *bound;
	const cJSON *item;
	const char **names;
	uint64		rows;

	given = json_parse(text, strlen(text), MAX_PARAMS_BYTES, &error);
	if (given == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameters cannot be read: %s", error),
				 strlen(text) > MAX_PARAMS_BYTES ?
				 errhint("Keep a long list in a table: a for_each takes its items from it with {\"sql\": \"SELECT ...\"}.") : 0));
	if (!cJSON_IsObject(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameters must be a JSON object"),
				 errhint("Write {\"name\": value, ...}.")));

	values[0] = Int64GetDatum(pipeline_id);
	values[1] = Int32GetDatum(version);
	rows = weir_spi("SELECT name, type, default_value, is_required FROM weir.parameter "
					"WHERE pipeline_id = $1 AND version = $2 ORDER BY name", 2, types, values, NULL);

	names = palloc(sizeof(char *) * Max(rows, 1));
	for (uint64 i = 0; i < rows; i++)
		names[i] = weir_spi_text(i, 1);
	cJSON_ArrayForEach(item, given)
	{
		bool		declared = false;

		for (uint64 i = 0; i < rows && !declared; i++)
			declared = strcmp(names[i], item->string) == 0;
		if (!declared)
		{
			char	   *near = catalog_did_you_mean(item->string, names, rows);

			param_error(item->string, "is not declared by the pipeline",
						near ? near : rows == 0 ? "It declares none." : NULL);
		}
	}

	bound = cJSON_CreateObject();
	for (uint64 i = 0; i < rows; i++)
		cJSON_AddItemToObject(bound, names[i],
							  bind_one(names[i], weir_spi_text(i, 2), weir_spi_text(i, 3),
									   weir_spi_bool(i, 4, NULL),
									   cJSON_GetObjectItemCaseSensitive(given, names[i])));
	return catalog_jsonb(json_text(bound));
}
