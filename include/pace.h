/*-------------------------------------------------------------------------
 * pace.h
 *	  When tasks start and end, if not all of them can run at once
 *
 * Pure.  Moments are seconds from now.  Include postgres.h or mem.h before
 * this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PACE_H
#define WEIR_PACE_H

#define PACE_UNKNOWN	(-1.0)

/* Slots of a pool, attempts through a connection, SQL workers, tasks of a run */
typedef struct PaceRoom
{
	int			total;
	int			free;			/* used by pace(); below zero after slots were taken away */
} PaceRoom;

typedef enum PaceState
{
	PACE_WAITING,
	PACE_RUNNING,				/* takes its slots already */
	PACE_ENDED
} PaceState;

#define PACE_ROOMS	4

typedef struct PaceTask
{
	PaceState	state;
	double		seconds;		/* it takes, when running: still takes; PACE_UNKNOWN */
	double		not_before;
	int			priority;
	int			room[PACE_ROOMS];	/* what it takes slots of; -1 nothing */
	int			slots[PACE_ROOMS];
	double		start;			/* the answers; PACE_UNKNOWN, also if it has started */
	double		end;
} PaceTask;

typedef struct PaceEdge
{
	int			from;
	int			to;
} PaceEdge;

/*
 * Edges come ordered by "from".  What waits for a task whose end is not known,
 * or for slots of one, has no known moment.
 */
extern void pace(PaceTask *tasks, int ntasks, const PaceEdge *edges, int nedges,
				 PaceRoom *rooms, int nrooms);

#endif							/* WEIR_PACE_H */
