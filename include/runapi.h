/*-------------------------------------------------------------------------
 * runapi.h
 *	  What the functions on runs share.
 *
 * All need SPI connected as the extension owner (weir_enter).
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RUNAPI_H
#define WEIR_RUNAPI_H

#include "compat.h"
#include "status.h"
#include "storage/condition_variable.h"
#include "utils/array.h"

/* Longest name of a pipeline that weir takes as an argument, bytes */
#define RUN_MAX_PIPELINE_NAME	1040

/* A run id argument; null is an error. */
extern int64 run_arg_id(FunctionCallInfo fcinfo, int n);

/* Raise the error for a run id that nothing is known of. */
noreturn_compat extern void run_unknown(int64 run_id);
/* The same for a pipeline's name. */
noreturn_compat extern void run_unknown_pipeline(const char *name);

/* An optional text, length-limited in bytes; NULL for null. */
extern char *run_arg_text(FunctionCallInfo fcinfo, int n, const char *name, size_t limit);
extern Datum run_text_or_null(const char *value, char *null);	/* sets the flag of a statement */

/* What is known of a run, read without a lock. */
typedef struct RunFacts
{
	int64		run_id;
	RunStatus	status;
	Oid			owner;
	bool		is_external;
	bool		pipeline_exists;
	bool		pipeline_enabled;
	bool		version_exists;
	bool		has_started;
	bool		repair_pending;
	bool		is_a_load;		/* that may go on by itself, whatever else runs of its pipeline did since; see repairable.h */
	int64		pipeline_id;
	int			version;
	Datum		params;			/* jsonb */
	int64		last_run_id;	/* that the pipeline started last; 0 none */
	char	   *pipeline_name;
} RunFacts;

extern RunFacts run_read(int64 run_id);	/* an unknown one is an error */

/* An error unless the run can be repaired now. */
extern void run_check_repairable(const RunFacts *run);

/*
 * Ask the conductor; it takes the request in when the transaction commits.
 * params is a jsonb, tasks a text[] of names.
 */
extern void run_request_cancel(int64 run_id, const char *reason, Oid caller);
extern void run_request_repair(int64 run_id, Oid caller, Datum params, bool no_params,
							   Datum tasks, bool no_tasks, bool with_downstream);

/*
 * The pipeline's row locked FOR KEY SHARE, for new runs of its current
 * version.  An error if there is none, it is disabled, or the caller may not:
 * "what" is a verb.
 */
extern void run_lock_pipeline(const char *name, Oid caller, const char *what,
							  int64 *pipeline_id, int *version, Oid *owner);
/* The same checks for those who only look: locks nothing. */
extern void run_find_pipeline(const char *name, Oid caller, const char *what,
							  int64 *pipeline_id, int *version, Oid *owner);

/* Names of the tasks that selectors (see selector.h) stand for, a text[] in the order of the definition. */
extern Datum run_select_tasks(int64 pipeline_id, int version, ArrayType *selectors);
/* The same for tasks of a run that go again, which may be items: these are named as well, behind the tasks. */
extern Datum run_select_again(int64 run_id, int64 pipeline_id, int version, ArrayType *selectors);

/*
 * Broadcast after every commit that changed a run of this database; NULL
 * without shared memory, or when weir does not know the database.
 */
extern ConditionVariable *run_ended_variable(void);

#endif							/* WEIR_RUNAPI_H */
