/*-------------------------------------------------------------------------
 * context.h
 *	  What references in a task's spec stand for.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CONTEXT_H
#define WEIR_CONTEXT_H

#include <cjson/cJSON.h>

#include "reference.h"

/*
 * The definition of a task run as d, to follow a FROM list: r has pipeline_id
 * and version, t has task_no.  The planner does not know how many tasks a
 * pipeline has until weir.task was analyzed, and in a plain join it may then
 * take a look at all of them for one that the primary key finds; OFFSET 0
 * leaves it no choice.
 */
#define TASK_DEFINITION(r, t, columns) \
	"CROSS JOIN LATERAL (SELECT " columns " FROM weir.task i " \
	"WHERE i.pipeline_id = " r ".pipeline_id AND i.version = " r ".version AND i.task_no = " t ".task_no OFFSET 0) d "

/* A task run with all its references can name.  Palloc'd in the context current at the read. */
typedef struct TaskContext
{
	int64		task_run_id;
	int64		run_id;
	int64		pipeline_id;
	int			version;
	int			attempt_no;		/* the attempt the values are for */
	char	   *task_name;
	char	   *kind;
	char	   *connection_name;	/* NULL for none */
	Oid			owner;
	cJSON	   *spec;			/* not rendered */
	cJSON	   *reference;		/* earlier external run, or NULL */
	cJSON	   *run;			/* run.* as an object */
	cJSON	   *params;
	int			item_no;		/* 0, or which item of a for_each this is */
	cJSON	   *item;			/* and the item; else NULL */
} TaskContext;

/* NULL if there is no such task run.  SPI connected as the extension owner. */
extern TaskContext *context_read(int64 task_run_id, int attempt_no);

/*
 * The same for many, whose ids ascend.  Those of one run may share params and
 * run, so none is to be changed.
 */
extern void context_read_all(const int64 *task_run_ids, const int *attempt_nos, int n, TaskContext **contexts);

/* A RefResolver; arg is the TaskContext.  Reads outputs of other tasks through SPI. */
extern cJSON *context_resolve(const RefPath *path, void *arg, char **error);

/* The type a reference is bound with in SQL, and the value; *isnull for null. */
extern Datum context_bind(TaskContext *context, const RefPath *path, Oid *type, bool *isnull, char **error);

#endif							/* WEIR_CONTEXT_H */
