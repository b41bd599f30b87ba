/*-------------------------------------------------------------------------
 * landing.c
 *	  Landings that failed runs left behind, and who resumes them (D).
 *
 * Runs in the conductor and in sessions, with the pipeline's state locked;
 * weir.plan only reads.  A run that ends with D leaves its landing here, and
 * one that has done with it takes it away, in the transaction of its end.
 *
 * Who is resuming a landing is not written down: it is the run that is live
 * and has its row audit id.  So nothing has to be given back when a server
 * dies, a dump is restored or a run is repaired.
 *
 * Where one run goes on at a time, the pipeline is one load, and whatever
 * starts next resumes it.  Runs that may go on side by side are loads of
 * their own, told apart by their parameters and windows: a run resumes the
 * landing of one that was for the same, or that it is the restart of; else it
 * lands itself, and the landing waits.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "access.h"
#include "landing.h"
#include "pipelinestate.h"

/* w: the wish.  A row whenever there are landings; without an id if none is for it. */
#define CHOOSE(wish) \
	"WITH w AS (" wish ") " \
	"SELECT c.row_audit_id, c.run_id FROM w " \
	"LEFT JOIN LATERAL (SELECT l.row_audit_id, l.run_id FROM weir.landing l CROSS JOIN LATERAL " \
	"(SELECT coalesce(l.row_audit_id = w.restarted_audit_id, false) AS is_own, " \
	"l.params = w.params AND l.window_start IS NOT DISTINCT FROM w.window_start AND l.window_end IS NOT DISTINCT FROM w.window_end AS is_for_same) m " \
	"WHERE l.pipeline_id = w.pipeline_id AND (w.max_concurrent_runs = 1 OR m.is_own OR m.is_for_same) " \
	"AND NOT EXISTS (SELECT FROM weir._active a JOIN weir.run n ON n.run_id = a.run_id WHERE a.pipeline_id = l.pipeline_id " \
	"AND n.row_audit_id = l.row_audit_id) " \
	"ORDER BY m.is_own DESC, m.is_for_same DESC, l.row_audit_id LIMIT 1) c ON true " \
	"WHERE EXISTS (SELECT FROM weir.landing l WHERE l.pipeline_id = w.pipeline_id)"

LandingAnswer
landing_choose(const LandingWish *wish, Landing *landing)
{
	static const Oid run_types[] = {INT8OID};
	static const Oid types[] = {INT8OID, INT4OID, JSONBOID};
	Datum		run[] = {Int64GetDatum(wish->run_id)};
	Datum		values[] = {Int64GetDatum(wish->pipeline_id), Int32GetDatum(wish->version), wish->params};
	bool		none;
	uint64		n;

	if (wish->run_id != 0)
		n = weir_spi(CHOOSE("SELECT r.pipeline_id, v.max_concurrent_runs, r.params, r.window_start, r.window_end, "
							"(SELECT o.row_audit_id FROM weir.run o WHERE o.run_id = r.restart_of) AS restarted_audit_id "
							"FROM weir.run r JOIN weir.pipeline_version v ON v.pipeline_id = r.pipeline_id AND v.version = r.version "
							"WHERE r.run_id = $1"),
					 1, run_types, run, NULL);
	else
		n = weir_spi(CHOOSE("SELECT v.pipeline_id, v.max_concurrent_runs, $3::jsonb AS params, NULL::timestamptz AS window_start, "
							"NULL::timestamptz AS window_end, NULL::bigint AS restarted_audit_id "
							"FROM weir.pipeline_version v WHERE v.pipeline_id = $1 AND v.version = $2"),
					 3, types, values, NULL);
	if (n == 0)
		return LANDING_UNKNOWN;
	landing->row_audit_id = weir_spi_int64(0, 1, &none);
	landing->run_id = weir_spi_int64(0, 2, NULL);
	return none ? LANDING_NOT_FOR_IT : LANDING_FOUND;
}

bool
landing_of_restarted(int64 restarted, Landing *landing)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(restarted)};

	if (weir_spi("SELECT o.row_audit_id, o.run_id FROM weir.run o WHERE o.run_id = $1 AND o.is_apart AND o.next_load_status = 'D' "
				 "AND NOT EXISTS (SELECT FROM weir.run n WHERE n.pipeline_id = o.pipeline_id AND n.live = 'a' AND n.row_audit_id = o.row_audit_id) "
				 "AND NOT EXISTS (SELECT FROM weir.run n WHERE n.pipeline_id = o.pipeline_id AND n.run_id > o.run_id AND n.row_audit_id = o.row_audit_id "
				 "AND n.is_apart AND n.restart_of IS NOT NULL AND n.status = 'succeeded')",
				 1, types, values, NULL) != 1)
		return false;
	landing->row_audit_id = weir_spi_int64(0, 1, NULL);
	landing->run_id = weir_spi_int64(0, 2, NULL);
	return true;
}

static void
leave_landing(int64 run_id, int64 row_audit_id)
{
	static const Oid types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(run_id), Int64GetDatum(row_audit_id)};

	weir_spi("INSERT INTO weir.landing (row_audit_id, pipeline_id, run_id, params, nominal_time, window_start, window_end) "
			 "SELECT $2, r.pipeline_id, r.run_id, r.params, r.nominal_time, r.window_start, r.window_end FROM weir.run r WHERE r.run_id = $1 "
			 "ON CONFLICT (row_audit_id) DO UPDATE SET run_id = excluded.run_id, params = excluded.params, nominal_time = excluded.nominal_time, "
			 "window_start = excluded.window_start, window_end = excluded.window_end, left_at = excluded.left_at",
			 2, types, values, NULL);
}

static void
remove_landing(int64 row_audit_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(row_audit_id)};

	weir_spi("DELETE FROM weir.landing WHERE row_audit_id = $1", 1, types, values, NULL);
}

/*
 * Only the latest run says what comes next; an older one that ends later
 * cannot take back a success.
 */
#define HAS_THE_WORD \
	"(s.last_run_id = $1 OR (NOT $2 AND s.next_load_status = 'P'))"

void
landing_run_ended(int64 run_id, bool succeeded, char next, int64 row_audit_id)
{
	static const Oid types[] = {INT8OID, BOOLOID, CHAROID};
	Datum		values[] = {Int64GetDatum(run_id), BoolGetDatum(succeeded), CharGetDatum(next)};

	/* Mostly there is no landing to leave, nor to be done with. */
	if (next != 'D' &&
		weir_spi("UPDATE weir.pipeline_state s SET next_load_status = $3, origin_row_audit_id = NULL, "
				 "last_success_run_id = CASE WHEN $2 THEN $1 ELSE s.last_success_run_id END "
				 "WHERE " IS_STATE_OF_RUN("s", "$1") " AND s.next_load_status <> 'D' AND " HAS_THE_WORD,
				 3, types, values, NULL) == 1)
		return;

	if (next == 'D')
		leave_landing(run_id, row_audit_id);
	else
		remove_landing(row_audit_id);

	/* While any landing waits it is D; when the last one is done with, what the latest run said counts again. */
	weir_spi("UPDATE weir.pipeline_state u SET next_load_status = n.next, origin_row_audit_id = n.origin, last_success_run_id = n.success "
			 "FROM (SELECT s.*, s.ctid AS place, CASE WHEN l.row_audit_id IS NOT NULL THEN 'D' "
			 "WHEN " HAS_THE_WORD " THEN $3 WHEN s.next_load_status = 'D' THEN coalesce(nullif(p.next_load_status, 'D'), 'P') "
			 "ELSE s.next_load_status END AS next, l.row_audit_id AS origin, "
			 "CASE WHEN $2 AND s.last_run_id = $1 THEN $1 ELSE s.last_success_run_id END AS success "
			 "FROM (SELECT s.*, s.ctid FROM weir.pipeline_state s WHERE " IS_STATE_OF_RUN("s", "$1") ") s "
			 "LEFT JOIN LATERAL (SELECT i.row_audit_id FROM weir.landing i WHERE i.pipeline_id = s.pipeline_id "
			 "ORDER BY i.row_audit_id LIMIT 1) l ON true LEFT JOIN weir.run p ON p.run_id = s.last_run_id) n "
	/* Of runs side by side only one has something to say. */
			 "WHERE u.ctid = n.place AND (n.next, n.origin, n.success) IS DISTINCT FROM (n.next_load_status, n.origin_row_audit_id, n.last_success_run_id)",
			 3, types, values, NULL);
}

void
landing_execution_ended(int64 run_id, char next, int64 row_audit_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(run_id)};

	if (next == 'D')
		leave_landing(run_id, row_audit_id);
	else
		remove_landing(row_audit_id);
	weir_spi("UPDATE weir.pipeline_state s SET next_load_status = 'D', origin_row_audit_id = l.row_audit_id "
			 "FROM weir.run r CROSS JOIN LATERAL (SELECT i.row_audit_id FROM weir.landing i WHERE i.pipeline_id = r.pipeline_id "
			 "ORDER BY i.row_audit_id LIMIT 1) l WHERE r.run_id = $1 AND s.pipeline_id = r.pipeline_id",
			 1, types, values, NULL);
}

void
landing_forget_all(int64 pipeline_id)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(pipeline_id)};

	weir_spi("DELETE FROM weir.landing WHERE pipeline_id = $1", 1, types, values, NULL);
}
