/*-------------------------------------------------------------------------
 * repairable.h
 *	  Which runs that ended may go on.
 *
 * Conditions in SQL on a run r, its version v and the state s of its pipeline.
 * Asked by sessions without a lock, and by the conductor, which acts on the
 * answer, with the pipeline's state locked.  When one may, or what it waits
 * for, is in view weir._repair_place.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REPAIRABLE_H
#define WEIR_REPAIRABLE_H

/*
 * Where one run goes on at a time, only the latest may say what comes next.
 * Runs that may go on side by side are loads of their own, like partial runs
 * and windows of a backfill.
 */
#define REPAIR_IS_OF_A_LOAD	"(r.is_apart OR v.max_concurrent_runs > 1 OR s.last_run_id = r.run_id)"

/*
 * The run that took over what this one landed and has it now; null if none
 * did.  Of partial runs and windows that is a restart; others may work on the
 * same rows.
 */
#define REPAIR_IS_RESUMED_BY \
	"(SELECT min(n.run_id) FROM weir.run n WHERE n.pipeline_id = r.pipeline_id AND n.run_id > r.run_id AND n.row_audit_id = r.row_audit_id " \
	"AND CASE WHEN r.is_apart THEN n.is_apart AND n.restart_of IS NOT NULL ELSE NOT n.is_apart END)"

#endif							/* WEIR_REPAIRABLE_H */
