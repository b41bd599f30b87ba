/*-------------------------------------------------------------------------
 * ready_int.h
 *	  The task runs that are ready, as the conductor keeps them in memory.
 *
 * A lane holds what needs the same to start; in it, runs in the order of
 * priority and id, and in a run its task runs in the order they became ready.
 * Every task run that is ready is here, but not all that is here is still
 * ready: what was cancelled meanwhile is found out when it is to start.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_READY_INT_H
#define WEIR_READY_INT_H

#include "conductor_int.h"

#define LANE_KEY_LEN	192
#define LANE_NOOP		"noop"
#define READY_TURNS		16		/* so many priorities of a lane are remembered */

typedef struct ReadyTask
{
	int64		task_run_id;
	int64		ready_at;		/* microseconds since 1970, by the clock of then */
} ReadyTask;

typedef struct ReadyRun
{
	int64		run_id;
	int			priority;
	ReadyTask  *tasks;			/* those from first on, n of them */
	int			first;
	int			n;
	int			max;
} ReadyRun;

/* What had its turn last among what has the same priority: starts of another leave it alone. */
typedef struct ReadyTurn
{
	int			priority;
	int64		last_run_id;	/* runs take turns in the order of their ids */
	int64		served;			/* number of the start that was its last */
} ReadyTurn;

/* What a lane would start next. */
typedef struct ReadyNext
{
	int			place;			/* of its run in the lane */
	int64		task_run_id;
	int64		run_id;
	int			priority;
	int64		overdue_since;	/* ready_at of one that has waited too long, else PG_INT64_MAX */
	ReadyTurn  *turn;			/* of the lane, until it is looked at again */
} ReadyNext;

typedef struct ReadyLane
{
	char		key[LANE_KEY_LEN];	/* hash key: what it needs, sql#LIMIT:POOL:SLOTS@CONNECTION */
	ReadyTurn	turns[READY_TURNS];
	int64		oldest;			/* nothing in it has been ready for longer than since then */
	ReadyRun  **runs;
	int			n_runs;
	int			max_runs;
} ReadyLane;

/* Lanes with something in them but that of noop tasks, in no order; in the current context. */
extern ReadyLane **ready_lanes(Conductor *c, int *n);
/* May another task run of that run start? */
typedef bool (*ReadyRunHasRoom) (int64 run_id, void *arg);

/*
 * The lane's next task run, of runs that have room (NULL: all have): of those
 * ready before "overdue_before" that which has waited longest, else by
 * priority and turn; false if there is none.  It stays.
 */
extern bool ready_peek(ReadyLane *lane, int64 overdue_before, ReadyRunHasRoom has_room, void *arg, ReadyNext *next);
/* Takes it out; whoever starts it sets its turn. */
extern void ready_pop(Conductor *c, ReadyLane *lane, const ReadyNext *next);

#endif							/* WEIR_READY_INT_H */
