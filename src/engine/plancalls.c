/*-------------------------------------------------------------------------
 * plancalls.c
 *	  What is to be known beforehand of the pipelines that a plan's tasks call.
 *
 * Runs in the session of a client; only reads and locks nothing.  The task
 * itself finds out the same when it is started (subrun.c): what is here is
 * true of this moment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "access.h"
#include "catalogutil.h"
#include "json.h"
#include "plan.h"

static const char callee_sql[] =
	"SELECT p.is_enabled, p.is_paused, p.current_version IS NOT NULL FROM weir.pipeline p WHERE p.name = $1";

/* Name of the pipeline a task calls, or each of its items; NULL: none, or not known yet */
static const char *
callee_of(const PlanTask *task)
{
	const cJSON *spec = task->spec;
	const char *name;

	if (task->concurrency > 0)
	{
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(spec, "task");
		const char *kind = json_string(cJSON_GetObjectItemCaseSensitive(item, "kind"));

		if (kind == NULL || strcmp(kind, "pipeline") != 0)
			return NULL;
		spec = cJSON_GetObjectItemCaseSensitive(item, "spec");
	}
	else if (strcmp(task->kind, "pipeline") != 0)
		return NULL;
	name = json_string(cJSON_GetObjectItemCaseSensitive(spec, "pipeline"));
	return name != NULL && strstr(name, "{{") == NULL ? name : NULL;
}

void
plan_call(PlanTask *task, ForecastTask *forecast)
{
	static const Oid types[] = {TEXTOID};
	const char *name = callee_of(task);
	Datum		values[1];

	if (name == NULL || forecast->has_ended || task->problem != NULL)
		return;
	values[0] = catalog_text(name);
	if (weir_spi(callee_sql, 1, types, values, NULL) == 0)
		task->problem = psprintf("pipeline \"%s\" does not exist", name);
	else if (!weir_spi_bool(0, 3, NULL))
		task->problem = psprintf("pipeline \"%s\" has no definition", name);
	else if (!weir_spi_bool(0, 1, NULL))
		task->note = psprintf("pipeline \"%s\" is disabled: it is skipped, and the task succeeds", name);
	else if (weir_spi_bool(0, 2, NULL))
		task->note = psprintf("pipeline \"%s\" is paused: its run stays queued until it is resumed", name);
	forecast->will_fail = task->problem != NULL;
}
