/*-------------------------------------------------------------------------
 * definition.h
 *	  A pipeline's definition: JSON read strictly into a struct.
 *
 * Everything points into the JSON tree or is palloc'd in the context current
 * at the call.  Whatever is wrong is an ERROR 22023 (42601 for SQL syntax)
 * whose detail is the JSON path and whose hint says what to do.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DEFINITION_H
#define WEIR_DEFINITION_H

#include <cjson/cJSON.h>

#include "compat.h"
#include "dag.h"
#include "flow.h"
#include "kind.h"
#include "retry.h"

#define DEFINITION_MAX_BYTES	(1024 * 1024)
#define DEFINITION_MAX_PARAMS	1000

typedef struct DefParam
{
	const char *name;
	const char *type;
	const cJSON *default_value; /* NULL: none */
	bool		is_required;
	const char *description;	/* or NULL */
} DefParam;

typedef struct DefTask
{
	const char *name;
	const TaskKind *kind;
	const char *connection;		/* or NULL */
	const char *phase;
	const cJSON *spec;
	RetryPolicy retry;
	int64		timeout_ms;		/* of an attempt; 0: none */
	int64		task_timeout_ms;	/* of all attempts and the waits between them; 0: none */
	const char *on_uncertain;	/* fail, ask, assume_started or send_again */
	RunIf		run_if;
	bool		is_enabled;
	const char *pool;			/* or NULL */
	int			pool_slots;
	int			priority;
	int			wave;			/* 1 for tasks without upstream */
	int			upstream_count;
	struct DefTask *item_task;	/* of a for_each: what it does with each item; else NULL */
	int			concurrency;	/* of an item task: how many items at a time */
} DefTask;

/* What meets an edge. */
typedef struct DefEdge
{
	EdgeCondition condition;
	const char *branch;			/* or NULL */
} DefEdge;

typedef struct Definition
{
	bool		from_stages;	/* made from the job format: paths are $.stages[i] */
	const char *description;	/* or NULL */
	int			max_concurrent_runs;
	int			max_concurrent_tasks;	/* of a run; 0: any number */
	int64		timeout_ms;		/* of a run; 0: none */
	const char *on_failure;		/* continue or fail_fast */
	const char *on_overlap;		/* queue, skip or cancel_older */
	int			priority;
	int64		retention_age_ms;	/* of ended runs; 0: for ever, -1: weir.retention_age */
	int			retention_runs; /* 0: all, -1: weir.retention_runs */
	int			nparams;
	DefParam   *params;
	int			ntasks;
	DefTask    *tasks;
	int			nedges;
	DagEdge    *edges;			/* indices into tasks */
	DefEdge    *conditions;		/* one for each edge */
} Definition;

/* Structure, names, dependencies, waves.  No SPI. */
extern Definition *definition_parse(const cJSON *root, bool from_stages);

/*
 * Specs, connections, references, SQL.  Retry policies take over what their
 * connection says.  owner: of the pipeline.  SPI connected as the extension
 * owner.
 */
extern void definition_check(Definition *def, Oid owner);

/*
 * Tasks of kind pipeline: they call what there is, with the parameters it
 * has, may call it, and no call leads back to the pipeline "name".  Serialises
 * those that define such pipelines until they commit.  SPI as above.
 */
extern void definition_check_calls(const Definition *def, const char *name, Oid caller);

/* The spec of a wait, at a path: durations and moments that are written out. */
extern void definition_check_wait(const cJSON *spec, const char *path);
/* An interval's text or a number of seconds in milliseconds; -1: it is none, or longer than ten years. */
extern int64 definition_duration_ms(const cJSON *item);
/* The text of a moment, finite, as epoch milliseconds; -1: it is none. */
extern int64 definition_moment_ms(const char *text);

/* The job format of metadata-driven frameworks: is it one, and as a native definition.  SPI as above. */
extern bool jobformat_is(const cJSON *root);
extern cJSON *jobformat_convert(const cJSON *root);

/* For the files that read definitions. */
noreturn_compat extern void definition_error(const char *path, const char *message, const char *hint);
extern void definition_check_keys(const cJSON *object, const char *path, const char *const *known, int nknown);
extern char *definition_member(const char *path, const char *key);
/* The member "retry" of object into a policy that holds what is inherited; absent: nothing changes. */
extern void def_read_retry(const cJSON *object, const char *path, RetryPolicy *retry);
/* A policy whose parts come from two definitions may not fit. */
extern void def_check_retry(const RetryPolicy *retry, const char *path);
/* "$.tasks[2]" + sub; for the job format "$.stages[2]" and where in its stage mapping */
extern char *definition_task_path(const Definition *def, int task, const char *sub);

/* Value of a parameter in its JSON form, or NULL and *problem (fits after the parameter's name). */
extern cJSON *param_normalise(const char *type, const cJSON *value, const char **problem);
extern bool param_type_known(const char *type);
extern const char *param_type_names(void);

#endif							/* WEIR_DEFINITION_H */
