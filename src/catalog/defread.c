/*-------------------------------------------------------------------------
 * defread.c
 *	  Members of a definition's JSON, read strictly.
 *
 * Runs in the session that defines a pipeline.  Reads no tables.  Whatever
 * is wrong is an ERROR that names the JSON path.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "catalogutil.h"
#include "definition.h"
#include "definition_int.h"
#include "json.h"

#define MAX_TEXT			10000

void
definition_error(const char *path, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errdetail("JSON path: %s", path),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/* path.key, quoted as in jsonpath when the key is no plain name */
char *
definition_member(const char *path, const char *key)
{
	if (catalog_is_identifier(key))
		return psprintf("%s.%s", path, key);
	return psprintf("%s.\"%s\"", path, catalog_clip(key));
}

char *
def_list_hint(const char *what, const char *const *known, int nknown, const char *near)
{
	StringInfoData hint;

	initStringInfo(&hint);
	if (near)
		appendStringInfo(&hint, "%s ", near);
	appendStringInfo(&hint, "%s:", what);
	for (int i = 0; i < nknown; i++)
		appendStringInfo(&hint, "%s %s", i > 0 ? "," : "", known[i]);
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

void
definition_check_keys(const cJSON *object, const char *path, const char *const *known, int nknown)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
	{
		bool		found = false;

		for (int i = 0; i < nknown && !found; i++)
			found = strcmp(item->string, known[i]) == 0;
		if (!found)
			definition_error(definition_member(path, item->string),
							 psprintf("unknown key \"%s\"", catalog_clip(item->string)),
							 def_list_hint("Known keys are", known, nknown,
									   catalog_did_you_mean(item->string, known, nknown)));
	}
}

const cJSON *
def_member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* A string member, or NULL when it is absent and not required. */
const char *
def_string(const cJSON *object, const char *path, const char *key, bool required)
{
	const cJSON *item = def_member(object, key);

	if (item == NULL)
	{
		if (required)
			definition_error(path, psprintf("key \"%s\" is missing", key), NULL);
		return NULL;
	}
	if (!cJSON_IsString(item))
		definition_error(definition_member(path, key), psprintf("\"%s\" must be a string", key), NULL);
	if (strlen(item->valuestring) > MAX_TEXT)
		definition_error(definition_member(path, key),
						 psprintf("\"%s\" is longer than %d bytes", key, MAX_TEXT), NULL);
	return item->valuestring;
}

int
def_integer(const cJSON *object, const char *path, const char *key, int least, int most, int absent)
{
	const cJSON *item = def_member(object, key);
	int64		value;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item) || !json_int64(item, &value) || value < least || value > most)
		definition_error(definition_member(path, key),
						 psprintf("\"%s\" must be an integer from %d to %d", key, least, most), NULL);
	return (int) value;
}

double
def_number(const cJSON *object, const char *path, const char *key, double absent)
{
	const cJSON *item = def_member(object, key);
	double		value;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item) || !json_double(item, &value))
		definition_error(definition_member(path, key), psprintf("\"%s\" must be a number", key), NULL);
	return value;
}

bool
def_parse_text(PGFunction input, const char *text, Datum *value)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool is_one = true;

	/* Nothing is swallowed: the caller has an error of its own for what is none. */
	PG_TRY();
	{
		*value = DirectFunctionCall3(input, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		is_one = false;
	}
	PG_END_TRY();
	return is_one;
}

int64
def_interval_ms(const char *text)
{
	Interval   *interval;
	Datum		value;

	if (!def_parse_text(interval_in, text, &value))
		return -1;
	interval = DatumGetIntervalP(value);

	/* A product of large fields must not overflow. */
	if (abs(interval->month) > 1200 || interval->day > 36500 || interval->day < -36500)
		return MAX_DURATION_MS + 1;
	return (interval->month * (int64) 30 + interval->day) * 24 * 60 * 60 * 1000 + interval->time / 1000;
}

/* An interval's text or a number of seconds, in milliseconds; absent if there is none. */
int64
def_duration(const cJSON *object, const char *path, const char *key, int64 least_ms, int64 absent)
{
	const cJSON *item = def_member(object, key);
	char	   *item_path = definition_member(path, key);
	double		seconds;
	int64		ms;

	if (item == NULL)
		return absent;
	if (cJSON_IsString(item))
		ms = strlen(item->valuestring) > 200 ? -1 : def_interval_ms(item->valuestring);
	else if (json_double(item, &seconds))
		ms = seconds < 0 ? -1 : seconds > MAX_DURATION_MS / 1000 ? MAX_DURATION_MS + 1 : (int64) (seconds * 1000);
	else
		ms = -1;
	if (ms < least_ms || ms > MAX_DURATION_MS)
		definition_error(item_path,
						 psprintf("\"%s\" must be a duration%s of at most ten years", key,
								  least_ms > 0 ? " above zero" : ""),
						 "Write an interval such as \"15 minutes\", or a number of seconds.");
	return ms;
}

bool
def_boolean(const cJSON *object, const char *path, const char *key, bool absent)
{
	const cJSON *item = def_member(object, key);

	if (item == NULL)
		return absent;
	if (!cJSON_IsBool(item))
		definition_error(definition_member(path, key), psprintf("\"%s\" must be true or false", key), NULL);
	return cJSON_IsTrue(item);
}

const char *
def_word(const cJSON *object, const char *path, const char *key,
		 const char *const *words, int nwords, const char *absent)
{
	const char *value = def_string(object, path, key, false);

	if (value == NULL)
		return absent;
	for (int i = 0; i < nwords; i++)
		if (strcmp(value, words[i]) == 0)
			return words[i];
	definition_error(definition_member(path, key),
					 psprintf("unknown value \"%s\" of \"%s\"", catalog_clip(value), key),
					 def_list_hint("Known values are", words, nwords,
								   catalog_did_you_mean(value, words, nwords)));
	return NULL;
}

void
def_identifier(const char *name, const char *path, const char *what)
{
	if (!catalog_is_identifier(name))
		definition_error(path, psprintf("invalid name of a %s", what),
						 "A name has 1 to 63 characters: letters, digits and \"_\", the first not a digit.");
}
