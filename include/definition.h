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
	int64		timeout_ms;		/* 0: none */
	RunIf		run_if;
	bool		is_enabled;
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
	int64		timeout_ms;		/* of a run; 0: none */
	const char *on_failure;		/* continue or fail_fast */
	const char *on_overlap;		/* queue, skip or cancel_older */
	int			priority;
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

/* Specs, connections, references, SQL.  SPI connected as the extension owner. */
extern void definition_check(const Definition *def);

/* The job format of metadata-driven frameworks: is it one, and as a native definition.  SPI as above. */
extern bool jobformat_is(const cJSON *root);
extern cJSON *jobformat_convert(const cJSON *root);

/* For the files that read definitions. */
noreturn_compat extern void definition_error(const char *path, const char *message, const char *hint);
extern void definition_check_keys(const cJSON *object, const char *path, const char *const *known, int nknown);
extern char *definition_member(const char *path, const char *key);
/* "$.tasks[2]" + sub; for the job format "$.stages[2]" and where in its stage mapping */
extern char *definition_task_path(const Definition *def, int task, const char *sub);

/* Value of a parameter in its JSON form, or NULL and *problem (fits after the parameter's name). */
extern cJSON *param_normalise(const char *type, const cJSON *value, const char **problem);
extern bool param_type_known(const char *type);
extern const char *param_type_names(void);

#endif							/* WEIR_DEFINITION_H */
