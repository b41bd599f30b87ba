/*-------------------------------------------------------------------------
 * restart.h
 *	  What the next start of a pipeline must do, and what a start answers
 *
 * Pure functions over facts read elsewhere under the lock on the pipeline
 * row.  Include postgres.h or mem.h, then status.h, before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RESTART_H
#define WEIR_RESTART_H

/* next_load_status, as stored */
typedef enum NextLoadStatus
{
	NEXT_LOAD_PROCESS = 'P',
	NEXT_LOAD_RERUN = 'R',
	NEXT_LOAD_RESUME = 'D',
	NEXT_LOAD_SKIP = 'C'
} NextLoadStatus;

extern bool next_load_status_parse(char code, NextLoadStatus *status);

/* What an execution looked like when it ended, or was found dead */
typedef struct RestartEnd
{
	bool		succeeded;
	bool		resumed;		/* it was itself started with D */
	int			n_landing;		/* landing activities known: all declared ones
								 * of a weir run, all logged ones otherwise */
	int			n_landing_succeeded;	/* of those; reused ones count */
	bool		failed_after_landing;	/* what failed, or for a crash the
										 * last thing reached, belongs to a
										 * phase after landing */
	bool		in_failed_batch;	/* child of a batch that already failed */
} RestartEnd;

/* P, R, D; C for a child that succeeded in a batch that already failed */
extern NextLoadStatus restart_next_load(const RestartEnd *end);

/* A batch that ended, counting its direct children by how they ended */
typedef struct RestartBatchEnd
{
	RestartEnd	own;			/* the batch's own activities */
	int			children_rerun; /* failed, next load R */
	int			children_resume;	/* failed, next load D */
	int			children_unfinished;	/* expected but never started, or
										 * still running, or aborted */
} RestartBatchEnd;

extern NextLoadStatus restart_batch_next_load(const RestartBatchEnd *end);

/*
 * next_load_status of a direct child's pipeline after its batch ended.
 * "child" is the status of its execution in this batch (RUN_SKIPPED also
 * when it has none), "current" its next_load_status now.
 */
extern NextLoadStatus restart_child_next_load(bool batch_succeeded,
											  RunStatus child,
											  NextLoadStatus current);

typedef enum RestartOther
{
	RESTART_OTHER_NONE,			/* no other execution is E */
	RESTART_OTHER_LIVE,			/* one is, and nothing says it ended */
	RESTART_OTHER_DEAD			/* its engine says it ended, or it is stale */
} RestartOther;

typedef struct RestartInput
{
	bool		same_external_run;	/* this external run id is logged already */
	bool		disabled;
	bool		skip_once;
	RestartOther other;
	NextLoadStatus other_next_load; /* what closing the dead one gives
									 * (restart_next_load); used if DEAD */
	NextLoadStatus last_next_load;	/* P if the pipeline never ran */
} RestartInput;

typedef enum StartCode
{
	START_EXECUTE = 'E',		/* run */
	START_RERUN = 'R',			/* run from the start */
	START_RESUME = 'D',			/* run, landing is done */
	START_SKIP = 'C',			/* skip the body, then call end */
	START_ABORT = 'A',			/* do nothing, another one is running */
	START_SAME_AGAIN = '='		/* give that execution's own answer again;
								 * never shown to a caller */
} StartCode;

typedef struct RestartDecision
{
	StartCode	code;
	bool		reuse_origin;	/* row_audit_id = the last execution's
								 * row_audit_id, else the new execution's id */
	bool		close_other_first;	/* end the dead one as failed, with
									 * other_next_load, in this transaction */
	bool		skip_once_used; /* clear the mark */
} RestartDecision;

extern RestartDecision restart_decide(const RestartInput *in);

/* true for E, R and D: the caller runs its body */
extern bool start_code_runs(StartCode code);

/*
 * The id to stamp rows with.  "last_row_audit_id" is the row_audit_id (not
 * the id) of the previous execution, so the origin travels through any
 * number of D restarts; pass 0 if there is none.
 */
extern int64 restart_row_audit_id(const RestartDecision *decision,
								  int64 execution_id,
								  int64 last_row_audit_id);

#endif							/* WEIR_RESTART_H */
