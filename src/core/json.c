/*-------------------------------------------------------------------------
 * json.c
 *	  Asking cJSON trees for values, and printing them
 *
 * Runs in any process, on trees from json_parse.c and on trees built in
 * code.  No locks, no state.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <math.h>

#include "json.h"

static cJSON *
checked(cJSON *item)
{
	if (item == NULL)
		mem_exhausted();
	return item;
}

/* The member or element named by the len bytes at name */
static const cJSON *
child_named(const cJSON *item, const char *name, size_t len)
{
	const cJSON *child;

	if (cJSON_IsArray(item))
	{
		size_t		index = 0;

		if (len == 0 || len > 9 || strspn(name, "0123456789") < len)
			return NULL;
		for (size_t i = 0; i < len; i++)
			index = index * 10 + (name[i] - '0');
		child = item->child;
		while (child != NULL && index-- > 0)
			child = child->next;
		return child;
	}
	if (!cJSON_IsObject(item))
		return NULL;
	cJSON_ArrayForEach(child, item)
	{
		if (strncmp(child->string, name, len) == 0 && child->string[len] == '\0')
			return child;
	}
	return NULL;
}

const cJSON *
json_get(const cJSON *obj, const char *path)
{
	while (obj != NULL)
	{
		size_t		len = strcspn(path, ".");

		obj = child_named(obj, path, len);
		if (path[len] == '\0')
			break;
		path += len + 1;
	}
	return obj;
}

/* An optional minus and digits, nothing else, inside the range */
static bool
parse_int64(const char *text, int64 *value)
{
	bool		negative = *text == '-';
	uint64		limit = (uint64) INT64_MAX + (negative ? 1 : 0);
	uint64		result = 0;

	text += negative;
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++)
	{
		unsigned	digit = (unsigned char) *text - '0';

		if (digit > 9 || result > (limit - digit) / 10)
			return false;
		result = result * 10 + digit;
	}
	/* -(2^63) has no positive counterpart to negate */
	*value = negative ? (result > 0 ? -(int64) (result - 1) - 1 : 0) : (int64) result;
	return true;
}

bool
json_int64(const cJSON *item, int64 *value)
{
	const double exact = 9007199254740992.0;	/* 2^53 */

	if (item == NULL)
		return false;
	if (cJSON_IsRaw(item) || cJSON_IsString(item))
		return item->valuestring != NULL && parse_int64(item->valuestring, value);
	if (!cJSON_IsNumber(item) ||
		!(item->valuedouble >= -exact && item->valuedouble <= exact) ||
		item->valuedouble != floor(item->valuedouble))
		return false;
	*value = (int64) item->valuedouble;
	return true;
}

bool
json_double(const cJSON *item, double *value)
{
	double		result;

	if (cJSON_IsNumber(item))
		result = item->valuedouble;
	else if (cJSON_IsRaw(item) && item->valuestring != NULL)
	{
		char	   *end;

		result = strtod(item->valuestring, &end);
		if (end == item->valuestring || *end != '\0')
			return false;
	}
	else
		return false;
	if (!isfinite(result))
		return false;
	*value = result;
	return true;
}

bool
json_bool(const cJSON *item, bool *value)
{
	if (!cJSON_IsBool(item))
		return false;
	*value = cJSON_IsTrue(item);
	return true;
}

const char *
json_string(const cJSON *item)
{
	return cJSON_IsString(item) ? item->valuestring : NULL;
}

cJSON *
json_from_int64(int64 value)
{
	char		digits[32];

	/* cJSON writes 1e+15 from here on, which is no integer to some readers */
	if (value > -INT64_C(1000000000000000) && value < INT64_C(1000000000000000))
		return checked(cJSON_CreateNumber((double) value));
	snprintf(digits, sizeof(digits), INT64_FORMAT, value);
	return checked(cJSON_CreateRaw(digits));
}

int
json_depth(const cJSON *item, int limit)
{
	int			deepest = 0;
	const cJSON *child;

	if (limit <= 0 || (!cJSON_IsObject(item) && !cJSON_IsArray(item)))
		return 0;
	cJSON_ArrayForEach(child, item)
	{
		int			depth = json_depth(child, limit - 1);

		deepest = Max(deepest, depth);
	}
	return deepest + 1;
}

char *
json_text_limited(const cJSON *item, size_t limit)
{
	char	   *printed = cJSON_PrintUnformatted(item);
	char	   *text;

	if (printed == NULL)
		mem_exhausted();
	text = mem_strndup(printed, mem_clip_length(printed, limit));
	cJSON_free(printed);
	return text;
}

char *
json_text(const cJSON *item)
{
	return json_text_limited(item, SIZE_MAX - 1);
}
