/*-------------------------------------------------------------------------
 * retention_int.h
 *	  What the files of the sweep share.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RETENTION_INT_H
#define WEIR_RETENTION_INT_H

#include "datatype/timestamp.h"

typedef enum SweepPhase
{
	SWEEP_PIPELINE,				/* the next pipeline */
	SWEEP_RANK,					/* which of its runs are kept for their number */
	SWEEP_RUNS,					/* its runs, from the oldest on */
	SWEEP_VARIABLES,
	SWEEP_BACKFILLS,
	SWEEP_REQUESTS,
	SWEEP_DONE
} SweepPhase;

struct Sweep
{
	MemoryContext cxt;
	SweepPhase	phase;
	int64		max_runs;
	int64		removed;
	int64		unnoted;		/* of these, not yet in weir.retention */
	int64		next_old_ms;
	bool		has_limits;

	/* the pipeline at hand */
	int64		pipeline_id;
	int64		age_ms;			/* 0: for ever */
	int64		latest;			/* its latest run, which stays; 0 when the pipeline was dropped */
	int64		rank_left;
	int64		rank_at;
	int64		keep_from;		/* runs from this one on are kept for their number */
	int64		run_at;			/* looked at so far */
	int64		batch;

	/* config variables, backfills, requests looked at so far; names in cxt */
	char	   *variable[3];	/* NULL before the first */
	bool		trim_again;		/* the variable has more to remove */
	int64		backfill_at;
	int64		request_at;
};

#define RETENTION_LIVE(r)	r ".status IN ('queued', 'running', 'cancelling')"
#define RETENTION_ENDED(r)	r ".status NOT IN ('queued', 'running', 'cancelling')"

/*
 * Runs that somebody may still need, however old: those the restart state
 * names, and those whose landing is to be resumed; what changed a config
 * variable since the last success, for weir.rollback_execution(); the run
 * before a live one; both ends of a live family; the children by which a batch
 * knows what belongs to it, those of its last success and of its last try;
 * runs with a request.
 */
#define RETENTION_KEPT(r) \
	"EXISTS (SELECT FROM weir.pipeline_state s WHERE s.pipeline_id = " r ".pipeline_id " \
	"AND (" r ".run_id IN (s.last_run_id, s.last_success_run_id, s.origin_row_audit_id) " \
	"OR (s.next_load_status = 'D' AND EXISTS (SELECT FROM weir.landing g WHERE g.pipeline_id = " r ".pipeline_id " \
	"AND " r ".run_id IN (g.run_id, g.row_audit_id))) " \
	"OR (" r ".run_id > coalesce(s.last_success_run_id, 0) AND " r ".status NOT IN ('skipped', 'aborted') " \
	"AND EXISTS (SELECT FROM weir.config_variable_history h WHERE h.run_id = " r ".run_id)))) " \
	"OR EXISTS (SELECT FROM weir._active a JOIN weir.run l ON l.run_id = a.run_id WHERE a.pipeline_id = " r ".pipeline_id " \
	"AND " r ".run_id IN (l.last_run_id, l.row_audit_id)) " \
	"OR EXISTS (SELECT FROM weir.run k WHERE k.parent_run_id = " r ".run_id AND " RETENTION_LIVE("k") ") " \
	"OR EXISTS (SELECT FROM weir.run b LEFT JOIN weir.pipeline_state bs ON bs.pipeline_id = b.pipeline_id " \
	"WHERE b.run_id = " r ".parent_run_id AND (" RETENTION_LIVE("b") " " \
	"OR (b.is_external AND b.is_batch AND b.run_id IN (bs.last_success_run_id, bs.last_run_id)))) " \
	"OR EXISTS (SELECT FROM weir.request q WHERE q.run_id = " r ".run_id)"

/*
 * weir.rollback_execution() names the rows these have landed: they do not go
 * because they are many, only when they are too old.
 */
#define RETENTION_TO_BE_UNDONE(r) \
	"EXISTS (SELECT FROM weir.pipeline_state u WHERE u.pipeline_id = " r ".pipeline_id AND " r ".is_external " \
	"AND " r ".run_id > coalesce(u.last_success_run_id, 0) AND " r ".status NOT IN ('skipped', 'aborted'))"

/* Everything that ended before it is too old; -infinity with age 0. */
extern TimestampTz sweep_cutoff(int64 age_ms);

/* retentionrest.c: what is not a run */
extern void sweep_step_variables(Sweep *sweep);
extern void sweep_step_backfills(Sweep *sweep);
extern void sweep_step_requests(Sweep *sweep);

#endif							/* WEIR_RETENTION_INT_H */
