/*-------------------------------------------------------------------------
 * filing.c
 *	  Where the files of a run go: decided from how it ended.
 *
 * Runs in the conductor, in the transaction that intends the attempt of a
 * task of kind file_away.  Such a task comes after all others of its run, so
 * what it sees of them is committed and final; what it decides is logged
 * with the attempt (weir.attempt.request) before a file is touched, and a
 * crash does not decide again.
 *
 * The question asked is the one at the end of a run, advance.c: what would
 * the next start have to do?  Tasks of kind file_away do not count in it,
 * neither here nor there: files are put away because of what happened to
 * their data, and when putting them away fails, the data is no worse.
 *
 *	P	everything succeeded: to "archive"
 *	R	the next start lands anew: to "error"
 *	D	the next start goes on with what was landed: nothing is moved; the
 *		run that succeeds after it has the same list of files (the output of
 *		a landing task is taken over) and puts them away
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "access.h"
#include "conductor_int.h"
#include "context.h"
#include "filing.h"
#include "json.h"
#include "mem.h"
#include "status.h"
#include "restart.h"

/* What the next start of the run's pipeline must do; *why if not all has ended. */
static NextLoadStatus
next_load(int64 run_id, const char **why)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run_id)};
	RestartEnd	end = {0};
	char	   *start;

	*why = NULL;
	weir_spi("SELECT r.start_status::text, "
			 "count(*) FILTER (WHERE t.status IN ('waiting', 'ready', 'running')), "
			 "count(*) FILTER (WHERE t.status = 'blocked' OR (t.status IN ('failed', 'timed_out', 'cancelled') AND NOT h.handled)), "
			 "count(*) FILTER (WHERE t.phase = 'land' AND t.status <> 'skipped'), "
			 "count(*) FILTER (WHERE t.phase = 'land' AND t.status IN ('succeeded', 'reused')), "
			 "count(*) FILTER (WHERE t.phase <> 'land' AND t.status IN ('failed', 'timed_out', 'cancelled')) "
	/* A run may have no other tasks, and has its row here all the same. */
			 "FROM weir.run r LEFT JOIN weir.task_run t ON t.run_id = r.run_id AND t.item_no = 0 AND t.kind <> 'file_away' "
	/* A failure that was dealt with does not count, see read_tally() in advance.c. */
			 "CROSS JOIN LATERAL (SELECT CASE WHEN t.status IN ('failed', 'timed_out', 'cancelled') THEN EXISTS "
			 "(SELECT FROM weir.task_dependency td JOIN weir.task d ON d.pipeline_id = td.pipeline_id AND d.version = td.version AND d.task_no = td.task_no "
			 "JOIN weir.task_run s ON s.run_id = $1 AND s.task_no = td.task_no AND s.item_no = 0 AND s.status = 'succeeded' AND s.kind <> 'file_away' "
			 "WHERE td.pipeline_id = r.pipeline_id AND td.version = r.version AND td.upstream_no = t.task_no "
			 "AND (td.condition = 'failed' OR d.run_if IN ('at_least_one_failed', 'all_failed'))) ELSE false END AS handled) h "
			 "WHERE r.run_id = $1 GROUP BY r.run_id",
			 1, types, values, NULL);
	if (weir_spi_int64(0, 2, NULL) > 0)
	{
		*why = "other tasks of the run have not ended";
		return NEXT_LOAD_RESUME;
	}
	start = weir_spi_text(0, 1);
	end.resumed = start != NULL && start[0] == START_RESUME;
	end.succeeded = weir_spi_int64(0, 3, NULL) == 0;
	end.n_landing = weir_spi_int64(0, 4, NULL);
	end.n_landing_succeeded = weir_spi_int64(0, 5, NULL);
	end.failed_after_landing = weir_spi_int64(0, 6, NULL) > 0 ||
		(end.n_landing > 0 && end.n_landing == end.n_landing_succeeded);
	return restart_next_load(&end);
}

/* The files stay where they are. */
static cJSON *
keep(Conductor *c, Flight *flight, NextLoadStatus next, const char *why)
{
	cJSON	   *output = cJSON_CreateObject();

	cJSON_AddNumberToObject(output, "count", 0);
	cJSON_AddStringToObject(output, "next_load_status", psprintf("%c", (char) next));
	cJSON_AddStringToObject(output, "kept", why);
	flight_succeed(c, flight, output);
	return NULL;
}

cJSON *
filing_render(Conductor *c, Flight *flight, TaskContext *context, char **error)
{
	const char *why;
	NextLoadStatus next = next_load(context->run_id, &why);
	const char *folder;
	cJSON	   *spec;

	if (why != NULL)
	{
		*error = pstrdup(why);
		return NULL;
	}
	if (next == NEXT_LOAD_RESUME)
		return keep(c, flight, next, "the next start goes on with what was landed");
	folder = next == NEXT_LOAD_RERUN ? "error" : "archive";
	if (json_string(cJSON_GetObjectItemCaseSensitive(context->spec, folder)) == NULL)
		return keep(c, flight, next, psprintf("there is no folder \"%s\"", folder));
	spec = ref_render_json(context->spec, context_resolve, context, error);
	if (spec == NULL)
	{
		/* What was not even listed is not moved. */
		if (next == NEXT_LOAD_RERUN)
			return keep(c, flight, next, *error);
		return NULL;
	}
	folder = json_string(cJSON_GetObjectItemCaseSensitive(spec, folder));
	cJSON_AddStringToObject(spec, "next_load_status", psprintf("%c", (char) next));
	cJSON_AddStringToObject(spec, "to", folder ? folder : "");
	return spec;
}
