/*-------------------------------------------------------------------------
 * catalogutil.c
 *	  Small things the definition functions share.
 *
 * Runs in the session that defines something.  No locks, no state.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "catalogutil.h"
#include "json.h"

#define MAX_DESCRIPTION 10000

/* varstr_levenshtein takes no longer strings */
#define MAX_COMPARED 255

char *
catalog_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
too_long(const char *name, size_t limit)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" is longer than %zu bytes", name, limit)));
}

char *
catalog_arg_required(FunctionCallInfo fcinfo, int n, const char *name, size_t limit)
{
	char	   *value = catalog_arg(fcinfo, n);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	if (strlen(value) > limit)
		too_long(name, limit);
	return value;
}

char *
catalog_arg_description(FunctionCallInfo fcinfo, int n)
{
	char	   *value = catalog_arg(fcinfo, n);

	if (value != NULL && strlen(value) > MAX_DESCRIPTION)
		too_long("description", MAX_DESCRIPTION);
	return value;
}

cJSON *
catalog_arg_json(FunctionCallInfo fcinfo, int n, const char *name, size_t limit)
{
	Jsonb	   *jsonb;
	char	   *text;
	char	   *error = NULL;
	cJSON	   *tree;

	if (PG_ARGISNULL(n))
		return NULL;
	jsonb = PG_GETARG_JSONB_P(n);
	text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	if (strlen(text) > limit)
		too_long(name, limit);
	tree = json_parse(text, strlen(text), limit, &error);
	if (tree == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" cannot be read: %s", name, error)));
	pfree(text);
	return tree;
}

static bool
is_name(const char *name, const char *also)
{
	size_t		len = strlen(name);

	if (len < 1 || len > 63)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];
		bool		letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

		if (letter)
			continue;
		if (i == 0 || !((c >= '0' && c <= '9') || strchr(also, c) != NULL))
			return false;
	}
	return true;
}

bool
catalog_is_identifier(const char *name)
{
	return is_name(name, "");
}

void
catalog_check_name(const char *what, const char *name)
{
	if (!is_name(name, ".-"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a %s", what),
				 errdetail("A name has 1 to 63 characters: letters, digits, \"_\", \".\" and \"-\", the first a letter or \"_\".")));
}

char *
catalog_clip(const char *text)
{
	return pnstrdup(text, pg_mbcliplen(text, strlen(text), 100));
}

char *
catalog_did_you_mean(const char *given, const char *const *known, int nknown)
{
	int			len = strlen(given);
	int			best = -1;
	int			limit = Max(1, Min(3, len / 3));

	if (len > MAX_COMPARED)
		return NULL;
	for (int i = 0; i < nknown; i++)
	{
		int			known_len = strlen(known[i]);
		int			distance;

		if (abs(known_len - len) > limit || known_len > MAX_COMPARED)
			continue;
		distance = varstr_levenshtein_less_equal(given, len, known[i], known_len,
												 1, 1, 1, limit, true);
		if (distance <= limit)
		{
			best = i;
			limit = distance - 1;
			if (limit < 0)
				break;
		}
	}
	return best < 0 ? NULL : psprintf("Did you mean \"%s\"?", known[best]);
}

Datum
catalog_text(const char *value)
{
	return CStringGetTextDatum(value);
}

Datum
catalog_jsonb(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

bool
catalog_spi_datum(uint64 row, int column, MemoryContext context, Datum *value)
{
	bool		isnull;
	Datum		found = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	MemoryContext old;
	int16		typlen;
	bool		typbyval;

	if (isnull)
		return false;
	get_typlenbyval(SPI_gettypeid(SPI_tuptable->tupdesc, column), &typlen, &typbyval);
	old = MemoryContextSwitchTo(context);
	*value = datumCopy(found, typbyval, typlen);
	MemoryContextSwitchTo(old);
	return true;
}
