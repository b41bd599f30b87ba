/*-------------------------------------------------------------------------
 * execution.h
 *	  Executions that an outside orchestrator drives and logs here.
 *
 * An execution is a row of weir.run with is_external.  Everything below that
 * locks follows one order: the tree (its outermost batch), then
 * pipeline_state rows (ids ascending), then run rows (ids ascending; a batch is
 * older than its children).
 *
 * Include postgres.h, fmgr.h, status.h and restart.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_EXECUTION_H
#define WEIR_EXECUTION_H

#include "storage/itemptr.h"

#include "compat.h"

#define EXECUTION_MAX_NAME		260		/* bytes: names of pipelines, triggers, activities, ... */
#define EXECUTION_MAX_CODE		1000	/* bytes: error codes */
#define EXECUTION_MAX_MESSAGE	65536	/* bytes: longer error texts are cut */
#define EXECUTION_MAX_JSON		(1024 * 1024)	/* bytes of a jsonb argument */

extern bool execution_register_unknown; /* weir.register_unknown_pipelines */
extern int	execution_stale_after_s;	/* weir.stale_execution_after, seconds; 0 = never */

extern void execution_define_gucs(void);	/* from _PG_init */

/* An execution and the restart state of its pipeline, both locked. */
typedef struct Execution
{
	int64		id;
	int64		pipeline_id;
	int64		parent_id;		/* 0: none */
	RunStatus	status;
	RunStatus	parent_status;	/* only with parent_id */
	bool		parent_is_batch;
	bool		is_external;
	bool		is_batch;
	char		start_status;	/* E R D C A, or 0 */
	char		next_load_status;	/* of the execution; 0 until it ended */
	int64		row_audit_id;
	char		state_next_load;	/* of the pipeline */
	int64		state_last_run_id;	/* 0: none */
	int64		state_last_success_id;	/* 0: none */
	ItemPointerData place;		/* of its row and that of the state; invalid if not known */
	ItemPointerData state_place;
} Execution;

/*
 * Lock an execution with its pipeline (and, for a batch, the pipelines of its
 * children; for a child, share-lock the batch).  ereports with a hint if there
 * is no such execution, or if it is one that weir itself runs and
 * "outside_only" is set.  SPI connected.
 */
extern void execution_lock(int64 execution_id, bool outside_only, Execution *execution);
/* The same where the tree is locked already, or not ours to lock: who closes what crashed holds more than that. */
extern void execution_lock_rows(int64 execution_id, bool outside_only, Execution *execution);

/*
 * Lock what the end of an outside execution locks before its run: before the
 * run is locked to log something of it.  Nothing if there is none, or weir
 * runs it itself.  SPI connected.
 */
extern void execution_lock_pipeline(int64 execution_id);

/*
 * Share the outermost batch that an execution is in, or, for a batch, have it
 * alone, until the transaction ends.  Before every other lock of an execution.
 * Nothing for one without relatives, and for a run of weir.  To start one:
 * parent_id and pipeline_id are 0 if there is none.
 */
extern void execution_lock_tree(int64 execution_id);
extern void execution_lock_tree_to_start(int64 parent_id, int64 pipeline_id, bool is_batch);

/* Lock the restart states of a batch's pipeline and of its children's. */
extern void execution_lock_family(int64 pipeline_id);

/* Raise the error for an execution id that nothing is known of. */
noreturn_compat extern void execution_unknown(int64 execution_id);

/* What is known of a failure beyond the logged activities. */
typedef struct ExecutionFailure
{
	const char *activity;		/* NULL: not named, as for a crash */
	const char *phase;			/* NULL: not given; filled in if it is logged */
	const char *code;
	const char *message;		/* NULL only for execution_decide_again() */
	const char *detail;
	bool		has_output;
	Datum		output;			/* jsonb */
} ExecutionFailure;

/* R or D for an execution that fails now; SPI connected, execution locked. */
extern NextLoadStatus execution_failure_next_load(const Execution *execution, ExecutionFailure *failure);
/* End it as failed with that next_load_status, children of a batch included. */
extern void execution_write_failure(Execution *execution, const ExecutionFailure *failure, NextLoadStatus next_load);
/* After something was logged for a failed execution: D becomes R if it no longer holds. */
extern void execution_decide_again(Execution *execution, ExecutionFailure *failure);
/* Change the mark of the last execution and of its pipeline. */
extern void execution_write_next_load(Execution *execution, NextLoadStatus next_load);

/*
 * SQL: when run "r" last gave a sign of life: its start, its activities, and
 * for a batch the same and the ends of its children.
 */
#define EXECUTION_LAST_SIGN(r) \
	"greatest(" r ".started_at, " \
	"(SELECT max(a.logged_at) FROM weir.activity a WHERE a.run_id = " r ".run_id), " \
	"(SELECT max(greatest(k.started_at, k.ended_at, " \
	"(SELECT max(a.logged_at) FROM weir.activity a WHERE a.run_id = k.run_id))) " \
	"FROM weir.run k WHERE " r ".is_batch AND k.parent_run_id = " r ".run_id))"

/*
 * Close an execution that gave no sign of life within its stale limit, and
 * the children that died with it.  limit: interval of this call, or has_limit
 * false for each pipeline's own.  Returns what the next start does.
 */
extern NextLoadStatus execution_close_stale(int64 execution_id, bool has_limit, Datum limit, Execution *execution);

/* Batches: how the children stand, and what the end of the batch does to them.  The batch is locked. */
extern void execution_batch_close_stale(const Execution *batch, bool has_limit, Datum limit);
extern void execution_batch_children(const Execution *batch, RestartBatchEnd *end);
extern bool execution_in_failed_batch(const Execution *child);
extern void execution_batch_ended(const Execution *batch, bool succeeded);

/* ereports unless it is land, transform or publish */
extern void activity_check_phase(const char *phase);

/* Arguments: NULL for null; too long is an error that names the argument. */
extern char *execution_arg(FunctionCallInfo fcinfo, int n, const char *name, size_t limit);
extern int64 execution_arg_id(FunctionCallInfo fcinfo, int n);
extern void execution_check_json(FunctionCallInfo fcinfo, int n, const char *name, bool object_only);
extern char *execution_clip(char *text, int limit);
/* text Datum for weir_spi(); *null becomes 'n' or ' ' */
extern Datum execution_text(const char *value, char *null);

/* The result row of the calling function; call after weir_leave(). */
extern Datum execution_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);
/* text Datum of one letter, null for 0 */
extern Datum execution_letter(char letter, bool *isnull);

#endif							/* WEIR_EXECUTION_H */
