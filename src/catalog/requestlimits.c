/*-------------------------------------------------------------------------
 * requestlimits.c
 *	  How many requests a second a connection may send.
 *
 * Runs in sessions (checks of definitions, the view weir.connections) and in
 * the conductor, which keeps to it (quota.c).  No state, no locks.
 *
 * The defaults are what services publish: Azure Resource Manager, in front of
 * Data Factory, has token buckets for each principal and subscription (reads
 * 250, filled at 25 a second; everything else 200, at 10); a Databricks
 * workspace takes 100 looks at runs a second and starts 20; a key vault
 * 4,000 gets in ten seconds.  Fabric and storage publish no number that would
 * hold for everybody: there the answers 429 and 503 with Retry-After do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "catalogutil.h"
#include "json.h"
#include "limitgroup.h"
#include "requestlimits.h"

PG_FUNCTION_INFO_V1(weir_request_limits);
PG_FUNCTION_INFO_V1(weir_limit_group);

#define MAX_RATE	1000000
#define MIN_RATE	0.001	/* turns stay within what a timestamp can say */
#define MAX_OPTIONS (128 * 1024)

static const struct
{
	const char *kind;
	RequestLimits limits;
}			defaults[] = {
	{"adf", {{{25, 250}, {10, 200}}}},
	{"databricks", {{{100, 100}, {20, 20}}}},
	{"keyvault", {{{400, 4000}, {0, 1}}}},
};

RequestClass
request_class(const char *method)
{
	return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ? REQUEST_READ : REQUEST_WRITE;
}

const char *
request_class_name(RequestClass class)
{
	return class == REQUEST_READ ? "reads" : "writes";
}

/* {"per_second": 25, "burst": 250}; without a burst a second's worth */
static bool
read_limit(const cJSON *item, const char *name, RequestLimit *limit, const char **path, const char **why)
{
	const cJSON *rate = cJSON_GetObjectItemCaseSensitive(item, "per_second");
	const cJSON *burst = cJSON_GetObjectItemCaseSensitive(item, "burst");
	const cJSON *member;
	int64		number;

	*path = psprintf(".%s", name);
	*why = "a limit must be null or an object with per_second and perhaps burst";
	if (cJSON_IsNull(item))
	{
		*limit = (RequestLimit) {0, 1};
		return true;
	}
	if (!cJSON_IsObject(item))
		return false;
	cJSON_ArrayForEach(member, item)
		if (member != rate && member != burst)
		return false;
	*path = psprintf(".%s.per_second", name);
	*why = psprintf("per_second must be a number from %g to %d", MIN_RATE, MAX_RATE);
	if (cJSON_IsString(rate) || !json_double(rate, &limit->per_second) || !(limit->per_second >= MIN_RATE && limit->per_second <= MAX_RATE))
		return false;
	limit->burst = Max((int) limit->per_second, 1);
	if (burst == NULL)
		return true;
	*path = psprintf(".%s.burst", name);
	*why = psprintf("burst must be an integer from 1 to %d", MAX_RATE);
	if (cJSON_IsString(burst) || !json_int64(burst, &number) || number < 1 || number > MAX_RATE)
		return false;
	limit->burst = (int) number;
	return true;
}

bool
request_limits_read(const char *kind, const cJSON *option, RequestLimits *limits, const char **path, const char **why)
{
	const cJSON *item;

	for (int class = 0; class < REQUEST_CLASSES; class++)
		limits->of[class] = (RequestLimit) {0, 1};
	if (cJSON_IsNull(option))
		return true;
	for (int i = 0; i < lengthof(defaults); i++)
		if (strcmp(defaults[i].kind, kind) == 0)
			*limits = defaults[i].limits;
	*path = "";
	*why = "request_limits must be null or an object with reads and writes";
	if (option == NULL)
		return true;
	if (!cJSON_IsObject(option))
		return false;
	cJSON_ArrayForEach(item, option)
	{
		RequestClass class = strcmp(item->string, request_class_name(REQUEST_READ)) == 0 ? REQUEST_READ : REQUEST_WRITE;

		if (strcmp(item->string, request_class_name(class)) != 0)
			return false;
		if (!read_limit(item, item->string, &limits->of[class], path, why))
			return false;
	}
	return true;
}

/* _request_limits(kind, options): reads and writes a second, and their bursts; null for none */
Datum
weir_request_limits(PG_FUNCTION_ARGS)
{
	char	   *kind = catalog_arg_required(fcinfo, 0, "kind", 1000);
	cJSON	   *options = catalog_arg_json(fcinfo, 1, "options", MAX_OPTIONS);
	RequestLimits limits;
	const char *path;
	const char *why;
	TupleDesc	desc;
	Datum		values[2 * REQUEST_CLASSES] = {0};
	bool		nulls[2 * REQUEST_CLASSES] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	(void) request_limits_read(kind, cJSON_GetObjectItemCaseSensitive(options, "request_limits"), &limits, &path, &why);
	for (int class = 0; class < REQUEST_CLASSES; class++)
	{
		nulls[2 * class] = nulls[2 * class + 1] = limits.of[class].per_second <= 0;
		values[2 * class] = Float8GetDatum(limits.of[class].per_second);
		values[2 * class + 1] = Int32GetDatum(limits.of[class].burst);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* _limit_group(name, kind, base_url, auth, options): the same for connections that share their limits */
Datum
weir_limit_group(PG_FUNCTION_ARGS)
{
	Connection	connection = {
		.name = catalog_arg_required(fcinfo, 0, "name", 1000),
		.kind = catalog_arg_required(fcinfo, 1, "kind", 1000),
		.base_url = catalog_arg(fcinfo, 2),
		.auth = catalog_arg_json(fcinfo, 3, "auth", MAX_OPTIONS),
		.options = catalog_arg_json(fcinfo, 4, "options", MAX_OPTIONS)
	};
	char		key[LIMIT_GROUP_LEN];

	limit_group_key(&connection, key);
	PG_RETURN_DATUM(catalog_text(key));
}
