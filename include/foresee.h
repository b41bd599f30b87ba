/*-------------------------------------------------------------------------
 * foresee.h
 *	  How long tasks take and what they have to share: what is known of it
 *	  beforehand.
 *
 * SPI connected as the extension owner; only reads, locks nothing.  Everything
 * lives in the memory context of the caller of foresight_begin.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FORESEE_H
#define WEIR_FORESEE_H

#include "pace.h"

typedef struct Foresight Foresight;

/* What of the things that are limited a task needs to start. */
typedef struct TaskNeeds
{
	const char *pool;			/* or NULL */
	int			pool_slots;
	const char *connection;		/* or NULL */
	bool		needs_worker;	/* a SQL worker */
	int			run_limit;		/* so many like it in its run at a time; 0: any number */
} TaskNeeds;

extern Foresight *foresight_begin(void);

/*
 * Median seconds of the task in successful runs before; PACE_UNKNOWN without
 * any.  Of an item, "task[3]", those of all items of the task, also in runs
 * that go on; _item_: the same by the name of the task.
 */
extern double foresight_seconds(Foresight *foresight, int64 pipeline_id, const char *task);
extern double foresight_item_seconds(Foresight *foresight, int64 pipeline_id, const char *task);

/* Fills in the rooms of a task of that run, 0 for one that is only planned.  What takes no time takes no room. */
extern void foresight_room(Foresight *foresight, int64 run_id, const TaskNeeds *needs, PaceTask *task);

/* These limits in words, and what of them is taken now; NULL if there are none. */
extern char *foresight_limits(Foresight *foresight, const TaskNeeds *needs);

/*
 * pace() among everything else that takes, or is ready to take, the same.
 * run_id: whose tasks these are, 0 if of no run yet.  Edges in any order.
 */
extern void foresight_pace(Foresight *foresight, int64 run_id, PaceTask *tasks, int ntasks, PaceEdge *edges, int nedges);

#endif							/* WEIR_FORESEE_H */
