/*-------------------------------------------------------------------------
 * shmem.h
 *	  Shared memory of weir: one slot per database, one per SQL worker.
 *
 * Only PODs, no pointers.  One LWLock (weir_shmem_lock) protects everything
 * except the atomics.  Present only when weir is preloaded; otherwise
 * weir_shmem is NULL and everything that needs it says so.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SHMEM_H
#define WEIR_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#define WEIR_MAX_DATABASES	64
#define WEIR_MAX_SQL_SLOTS	64
#define WEIR_MAX_NOTES		256
#define WEIR_ERROR_LEN		256
#define WEIR_STATE_PLACES	1024

#define WEIR_NO_PRIORITY	PG_INT32_MIN

/* What a transaction made ready or queued, see engine/notes.c. */
typedef struct WeirNote
{
	int64		id;				/* of a pipeline, or minus that of a task run */
	int64		run_id;			/* of a pipeline: the first of its runs that lives now and did not; 0 none */
	int			priority;		/* with which it is queued; WEIR_NO_PRIORITY when it is not */
} WeirNote;

/* One database; in use while databaseid is valid. */
typedef struct DatabaseSlot
{
	Oid			databaseid;		/* InvalidOid: free */
	bool		wanted;			/* extension is, or may be, there: keep a conductor */
	int			hold_count;		/* DDL in progress: start nothing (DROP DATABASE, DROP EXTENSION, ...) */
	pid_t		starting_pid;	/* conductor registered by the launcher, until it attached or died; 0 none */
	pid_t		pid;			/* conductor that attached; 0 none */
	uint32		generation;		/* counts conductors of this slot */
	bool		dismissed;		/* told to leave by the launcher: no failure */
	int			failure_count;	/* exits in a row without a healthy uptime */
	TimestampTz start_time;
	TimestampTz not_before;		/* launcher's backoff */
	TimestampTz last_loop;		/* end of the conductor's latest cycle */
	TimestampTz last_error_at;
	char		last_error[WEIR_ERROR_LEN];
	pg_atomic_uint32 wake;		/* ENGINE_WAKE_* bits, taken by the conductor */
	int			n_notes;
	WeirNote	notes[WEIR_MAX_NOTES];	/* notes.c; taken by the conductor after the bits */
	pg_atomic_uint32 tell_of_end;	/* the next run that ends sends ENGINE_WAKE_ENDED, once */
	ConditionVariable run_ended;	/* broadcast whenever runs of this database change state */
} DatabaseSlot;

typedef enum SqlSlotState
{
	SQL_SLOT_FREE,
	SQL_SLOT_STARTING,			/* registered, task assigned, process not there yet */
	SQL_SLOT_IDLE,				/* warm, no task */
	SQL_SLOT_ASSIGNED,			/* task assigned, not taken yet */
	SQL_SLOT_BUSY				/* running the task; without one: on its way out */
} SqlSlotState;

#define SQL_CANCEL_NONE		0
#define SQL_CANCEL_ASKED	1	/* the run was cancelled */
#define SQL_CANCEL_TIMEOUT	2	/* the attempt timeout struck, or ... */
#define SQL_CANCEL_TASK_TIMEOUT	3
#define SQL_CANCEL_RUN_TIMEOUT	4

#define sql_cancel_is_timeout(why) ((why) >= SQL_CANCEL_TIMEOUT)
#define sql_cancel_timeout_text(why) \
	((why) == SQL_CANCEL_TASK_TIMEOUT ? "task timeout exceeded" : \
	 (why) == SQL_CANCEL_RUN_TIMEOUT ? "run timeout exceeded" : "attempt timeout exceeded")

typedef struct SqlSlot
{
	SqlSlotState state;
	Oid			databaseid;
	Oid			roleid;
	pid_t		pid;			/* 0 until attached */
	uint32		generation;		/* given to the worker at launch: it must match */
	int64		task_run_id;
	int			attempt_no;
	bool		is_look;		/* it only looks at the condition of a wait */
	int			cancel_requested;	/* SQL_CANCEL_*; set before SIGINT is sent */
	TimestampTz since;
} SqlSlot;

typedef struct WeirShmem
{
	pid_t		launcher_pid;
	TimestampTz launcher_start_time;
	bool		launcher_rescan;	/* a database appeared, vanished or wants a conductor */
	DatabaseSlot databases[WEIR_MAX_DATABASES];
	SqlSlot		sql[WEIR_MAX_SQL_SLOTS];
	TimestampTz sql_starts_fail_since;	/* no SQL worker can be started; 0: they can */
	pg_atomic_uint64 state_places[WEIR_STATE_PLACES];	/* runlog/pipelinestate.c; a hint each */
} WeirShmem;

extern WeirShmem *weir_shmem;	/* NULL without preload */
extern LWLock *weir_shmem_lock;

extern void shmem_init(void);	/* from engine_init, in the postmaster only */
/* Caller holds weir_shmem_lock.  create: take a free slot if none. NULL if absent or table full. */
extern DatabaseSlot *shmem_database_slot(Oid databaseid, bool create);
/* Signal the conductor of this database (SIGUSR1 sets its latch) after setting wake bits. No-op without shmem or conductor. */
extern void shmem_wake_conductor(Oid databaseid, uint32 what);
/* Wake everybody in weir.wait() of this database. */
extern void shmem_broadcast_runs(Oid databaseid);
/* Set a process's latch by pid; quiet when it is gone. */
extern void shmem_set_latch(pid_t pid);

/*
 * SQL workers that there may be now in all databases together: of
 * weir_max_sql_workers as many as the reserve for others leaves, at least one
 * (workerlimit.c).  Caller holds weir_shmem_lock, in any mode.
 */
extern int	sql_worker_limit(void);

/* GUCs of the engine (engine.c). */
extern int	weir_max_sql_workers;	/* per cluster, <= WEIR_MAX_SQL_SLOTS, default 4 */
extern int	weir_reserved_worker_processes; /* of max_worker_processes, left to others, default 3 */
extern int	weir_sql_worker_idle_timeout;	/* ms, default 10000 */
extern bool weir_enabled;		/* off: launcher starts no conductor */
extern int	weir_http_max_body; /* kB, default 16384 */
extern int	weir_http_timeout;	/* ms, default 60000 */
extern int	weir_http_stall_timeout;	/* ms, default 30000; 0 none */
extern int	weir_overdue_after;	/* s a ready task waits for its turn before priorities count no more; 0 they always do */
extern int	weir_cancel_grace;	/* ms an engine or SQL task has to end after a cancel, default 60000 */
extern int	weir_max_lost_attempts; /* default 20 */

#endif							/* WEIR_SHMEM_H */
