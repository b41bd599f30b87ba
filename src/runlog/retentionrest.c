/*-------------------------------------------------------------------------
 * retentionrest.c
 *	  What a sweep removes beside runs: old changes of config variables,
 *	  backfills and requests whose runs are gone.
 *
 * Runs where retention.c does, as its last steps.  Of a variable the oldest
 * changes go, without a gap: weir.rollback_execution() goes back to the
 * change before those of the executions it undoes, so the last one that
 * nothing can undo any more stays, whatever its age, and with it the count.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "access.h"
#include "retention.h"
#include "retention_int.h"

#define TRIM_ROWS 500			/* changes of a variable looked at by one step */

/* The next variable with more than one change, and when the second was. */
static const char variable_sql[] =
	"SELECT v.system_name, v.object_name, v.variable_name, v.second < $4, (extract(epoch FROM v.second) * 1000)::bigint "
	"FROM (SELECT c.system_name, c.object_name, c.variable_name, "
	"(SELECT h.changed_at FROM weir.config_variable_history h WHERE h.system_name = c.system_name "
	"AND h.object_name = c.object_name AND h.variable_name = c.variable_name ORDER BY h.change_no OFFSET 1 LIMIT 1) AS second "
	"FROM weir.config_variable c WHERE (c.system_name, c.object_name, c.variable_name) > ($1, $2, $3) "
	"ORDER BY c.system_name, c.object_name, c.variable_name LIMIT 1) v";

/* can_go: old, and by nobody or by a run that is done with, successes after it included. */
static const char trim_sql[] =
	"WITH w AS MATERIALIZED (SELECT o.change_no, o.changed_at < $4 AND NOT EXISTS (SELECT FROM weir.run r "
	"JOIN weir.pipeline_state s ON s.pipeline_id = r.pipeline_id WHERE r.run_id = o.run_id "
	"AND (" RETENTION_LIVE("r") " OR r.run_id > coalesce(s.last_success_run_id, 0))) AS can_go "
	"FROM (SELECT h.change_no, h.changed_at, h.run_id FROM weir.config_variable_history h WHERE h.system_name = $1 "
	"AND h.object_name = $2 AND h.variable_name = $3 ORDER BY h.change_no LIMIT " CppAsString2(TRIM_ROWS) ") o), "
	"last AS (SELECT max(w.change_no) AS no FROM w WHERE w.change_no < "
	"coalesce((SELECT min(n.change_no) FROM w n WHERE NOT n.can_go), 9223372036854775807)) "
	"DELETE FROM weir.config_variable_history d USING last WHERE d.system_name = $1 "
	"AND d.object_name = $2 AND d.variable_name = $3 AND d.change_no < last.no";

static const char backfills_sql[] =
	"SELECT max(b.backfill_id) FROM (SELECT backfill_id FROM weir.backfill WHERE backfill_id > $1 ORDER BY backfill_id LIMIT 100) b";

static const char backfills_delete_sql[] =
	"DELETE FROM weir.backfill WHERE backfill_id IN (SELECT b.backfill_id FROM weir.backfill b "
	"WHERE b.backfill_id > $1 AND b.backfill_id <= $2 "
	"AND NOT EXISTS (SELECT FROM weir.run r WHERE r.backfill_id = b.backfill_id) "
	"ORDER BY b.backfill_id FOR UPDATE SKIP LOCKED)";

static const char requests_sql[] =
	"SELECT max(q.request_id) FROM (SELECT request_id FROM weir.request WHERE request_id > $1 ORDER BY request_id LIMIT 100) q";

static const char requests_delete_sql[] =
	"DELETE FROM weir.request WHERE request_id IN (SELECT q.request_id FROM weir.request q "
	"WHERE q.request_id > $1 AND q.request_id <= $2 "
	"AND NOT EXISTS (SELECT FROM weir.run r WHERE r.run_id = q.run_id) "
	"ORDER BY q.request_id FOR UPDATE SKIP LOCKED)";

static void
go_to_variable(Sweep *sweep)
{
	for (int i = 0; i < 3; i++)
	{
		if (sweep->variable[i])
			pfree(sweep->variable[i]);
		sweep->variable[i] = MemoryContextStrdup(sweep->cxt, weir_spi_text(0, i + 1));
	}
}

/* A few hundred changes at most; the rest is the next step's. */
static void
trim_variable(Sweep *sweep)
{
	static const Oid types[4] = {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[4];

	for (int i = 0; i < 3; i++)
		values[i] = CStringGetTextDatum(sweep->variable[i]);
	values[3] = TimestampTzGetDatum(sweep_cutoff((int64) retention_age_s * 1000));
	sweep->trim_again = weir_spi(trim_sql, 4, types, values, NULL) >= TRIM_ROWS - 1;
}

void
sweep_step_variables(Sweep *sweep)
{
	static const Oid types[4] = {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	int64		age_ms = (int64) retention_age_s * 1000;
	Datum		values[4];
	int64		second_ms;
	bool		isnull;

	if (sweep->trim_again)
	{
		trim_variable(sweep);
		return;
	}
	for (int i = 0; i < 3; i++)
		values[i] = CStringGetTextDatum(sweep->variable[i] ? sweep->variable[i] : "");
	values[3] = TimestampTzGetDatum(sweep_cutoff(age_ms));
	if (age_ms == 0 || weir_spi(variable_sql, 4, types, values, NULL) == 0)
	{
		sweep->phase = SWEEP_BACKFILLS;
		return;
	}
	go_to_variable(sweep);
	second_ms = weir_spi_int64(0, 5, &isnull);
	if (isnull)
		return;
	sweep->next_old_ms = Min(sweep->next_old_ms, second_ms + age_ms);
	if (weir_spi_bool(0, 4, NULL))
		trim_variable(sweep);
}

/* A range of ids: where it ends, and what of it has no run. */
static bool
remove_range(const char *end_sql, const char *sql, int64 *at)
{
	static const Oid types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(*at)};
	bool		isnull;

	weir_spi(end_sql, 1, types, values, NULL);
	*at = weir_spi_int64(0, 1, &isnull);
	if (isnull)
		return false;
	values[1] = Int64GetDatum(*at);
	weir_spi(sql, 2, types, values, NULL);
	return true;
}

void
sweep_step_backfills(Sweep *sweep)
{
	if (!remove_range(backfills_sql, backfills_delete_sql, &sweep->backfill_at))
		sweep->phase = SWEEP_REQUESTS;
}

void
sweep_step_requests(Sweep *sweep)
{
	if (!remove_range(requests_sql, requests_delete_sql, &sweep->request_at))
		sweep->phase = SWEEP_DONE;
}
