/*-------------------------------------------------------------------------
 * starting.h
 *	  What a start of a pipeline does: asked by the conductor, which then does
 *	  it, and by weir.plan, which says it.
 *
 * SPI connected as the extension owner.  Whoever acts on the answers holds
 * the pipeline's state; whoever only shows them holds nothing.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STARTING_H
#define WEIR_STARTING_H

#include "status.h"

#include "restart.h"

/*
 * The tasks of a start, one row of x for each.  source is a query of
 * pipeline_id, version and selected_tasks; $2 says whether landing is taken
 * over (D), $3 is the run before, or null.
 *
 * After D, landing is taken over from the run before.  Where its log is gone
 * (a restored dump, retention) the D itself says that all of it landed; only
 * the outputs are lost then.  Tasks that are disabled or not selected are
 * skipped; dependencies on them, as on reused ones, count as met.  Upstream
 * tasks are only looked at when there are such tasks: the planner takes the
 * tasks for few, and a join of them with themselves would be quadratic.
 */
#define STARTING_TASKS(source) \
	"WITH v AS (" source "), " \
	"old AS MATERIALIZED (SELECT o.* FROM v, weir.task_run o " \
	"WHERE ($2 OR v.selected_tasks IS NOT NULL) AND o.run_id = $3 AND o.item_no = 0), " \
	"t AS (SELECT d.*, p.status AS old_status, p.output AS old_output, p.rows_read AS old_read, p.rows_written AS old_written, " \
	"p.external_run_id AS old_external, p.external_url AS old_url, " \
	"$2 AND d.phase = 'land' AND CASE WHEN k.log_is_there THEN coalesce(p.status IN ('succeeded', 'reused'), false) ELSE true END AS reused, " \
	"CASE WHEN NOT d.is_enabled THEN 'disabled' WHEN NOT d.name = ANY (v.selected_tasks) THEN 'not_selected' END AS skip_reason, " \
	"CASE WHEN $2 AND d.phase <> 'land' AND p.kind = d.kind AND p.status IN ('failed', 'timed_out', 'cancelled') " \
	"THEN coalesce(jsonb_build_object('external_run_id', p.external_run_id), p.reference) " \
	"WHEN $2 AND p.kind = d.kind AND p.status IN ('blocked', 'cancelled') THEN p.reference END AS resume " \
	"FROM v JOIN weir.task d USING (pipeline_id, version) " \
	"CROSS JOIN (SELECT EXISTS (SELECT FROM weir.task_run o WHERE o.run_id = $3) AS log_is_there) k " \
	"LEFT JOIN old p ON p.task_name = d.name " \
	"WHERE d.parent_no IS NULL), " \
	"s AS (SELECT EXISTS (SELECT FROM t w WHERE w.reused OR w.skip_reason IS NOT NULL) AS any_ended), " \
	"x AS (SELECT t.*, u.pending, u.skipped, t.reused OR t.skip_reason = 'not_selected' AS keeps_old, " \
	"CASE WHEN t.reused THEN 'reused' WHEN t.skip_reason IS NOT NULL THEN 'skipped' " \
	"WHEN u.pending > 0 THEN 'waiting' ELSE 'ready' END AS status " \
	"FROM t, s, LATERAL (SELECT CASE WHEN s.any_ended THEN count(*) FILTER (WHERE NOT w.reused AND w.skip_reason IS NULL) " \
	"ELSE t.upstream_count END AS pending, " \
	"count(*) FILTER (WHERE (w.reused OR w.skip_reason IS NOT NULL) AND weir._edge_result(td.condition, 'reused', true) <> 'met') AS skipped " \
	"FROM weir.task_dependency td JOIN t w ON w.task_no = td.upstream_no " \
	"WHERE s.any_ended AND td.pipeline_id = t.pipeline_id AND td.version = t.version AND td.task_no = t.task_no) u) "

/*
 * What a start is decided by.  remembers: a condition, false for runs that
 * neither follow nor use up what the pipeline's state says; restarts: the
 * partial run or window that the run repeats, or null; from: with aliases p
 * and s for the pipeline and its state.
 */
#define START_FACTS(remembers, restarts, from) \
	"SELECT p.is_enabled, s.skip_once AND " remembers ", " \
	"CASE WHEN " remembers " THEN s.next_load_status::text ELSE 'P' END, " \
	"s.last_run_id, s.origin_row_audit_id, " restarts " FROM " from

typedef struct StartFacts
{
	bool		disabled;
	bool		skip_once;
	NextLoadStatus next_load;
	bool		lands_beside;	/* there are landings to resume, and none is for this run */
	int64		last_run_id;	/* 0 none; with D the run that left what is resumed */
	int64		origin;			/* row audit id that D carries on, 0 none */
} StartFacts;

struct LandingWish;

/*
 * Reads the first row of a START_FACTS query that was just executed.  Where
 * the state says D, it is one only if there is a landing this run may resume:
 * see landing.h.  Only then, and for the restart of a partial run or window,
 * is anything else asked.
 */
extern RestartDecision start_decide_row(StartFacts *facts, const struct LandingWish *wish);

#endif							/* WEIR_STARTING_H */
