/*-------------------------------------------------------------------------
 * sqltask.h
 *	  Running one attempt of a SQL task.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SQLTASK_H
#define WEIR_SQLTASK_H

/* Why a statement was cancelled: SQL_CANCEL_* of shmem.h; NULL: never by weir. */
typedef int (*SqlCancelCause) (void);

/*
 * Runs the attempt's SQL and writes its outcome, both in the current
 * transaction, which the caller commits.  The SQL runs as "owner".
 * restricted: in somebody else's session, so no temporary objects or settings
 * may outlive it.  False: the attempt already has an outcome, or belongs to
 * somebody else; the caller must roll back.
 *
 * No SPI connection may be open in a worker; in weir.conduct() one may.
 * Errors of the user's SQL become outcomes; other errors are raised.
 */
extern bool sqltask_execute(int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause);

/*
 * Looks at the condition of an attempt that waits for one: the same way, but
 * read-only.  The transaction writes the outcome if the condition holds or
 * is none, else when to look again.
 */
extern bool sqltask_look(int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause);

/* Mark the attempt as taken by this process; false if it is not ours to take. */
extern bool sqltask_take(int64 task_run_id, int attempt_no);

#endif							/* WEIR_SQLTASK_H */
