/*-------------------------------------------------------------------------
 * landing.h
 *	  Landings that failed runs left behind, and who resumes them (D).
 *
 * SPI connected as the extension owner.  Whoever writes, or acts on an answer,
 * holds the pipeline's state; weir.plan only looks and holds nothing.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LANDING_H
#define WEIR_LANDING_H

typedef struct Landing
{
	int64		row_audit_id;
	int64		run_id;			/* the run that left it */
} Landing;

/* Who wants to resume: a queued run, or one that is only thought of. */
typedef struct LandingWish
{
	int64		run_id;			/* 0: the members below */
	int64		pipeline_id;
	int			version;
	Datum		params;			/* jsonb */
} LandingWish;

typedef enum LandingAnswer
{
	LANDING_FOUND,
	LANDING_NOT_FOR_IT,			/* there are some, and none it may resume: it lands itself */
	LANDING_UNKNOWN				/* no run of weir left one */
} LandingAnswer;

extern LandingAnswer landing_choose(const LandingWish *wish, Landing *landing);

/*
 * For the restart of a partial run or a window, restarted: what that has
 * landed, if nobody has gone on with it since; such runs leave no landing for
 * others.  False: there is nothing of the kind, or restarted is another run.
 */
extern bool landing_of_restarted(int64 restarted, Landing *landing);

/*
 * A run of weir has ended, its row is written: what the pipeline's next start
 * must do.  next: P, R or D.
 */
extern void landing_run_ended(int64 run_id, bool succeeded, char next, int64 row_audit_id);

/*
 * The same for an execution of an outside orchestrator that was resumed or
 * is to be, its state being written: only its landing.
 */
extern void landing_execution_ended(int64 run_id, char next, int64 row_audit_id);

/* The rows of all of them are given up. */
extern void landing_forget_all(int64 pipeline_id);

#endif							/* WEIR_LANDING_H */
