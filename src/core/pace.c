/*-------------------------------------------------------------------------
 * pace.c
 *	  When tasks start and end, if not all of them can run at once
 *
 * Runs in sessions that ask what is expected.  Pure functions: plays what is
 * left from end to end of a task, with the order of the conductor (lanes.c):
 * the higher priority first, then what has been ready longest, and a task that
 * needs more slots of a pool than are free keeps those that are.
 *
 * Tasks that need the same form a lane with a queue, so that a thousand tasks
 * that wait for one slot are not looked at whenever something ends.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "pace.h"

/* Smallest first: by first, then second, then the task. */
typedef struct HeapItem
{
	double		first;
	double		second;
	int			task;
} HeapItem;

typedef struct Heap
{
	HeapItem   *items;
	int			n;
	int			size;
} Heap;

typedef struct Lane
{
	int			room[PACE_ROOMS];
	int			slots[PACE_ROOMS];
	Heap		queue;			/* first: priority, negated; second: since when it is ready */
	bool		stopped;		/* until something ends */
} Lane;

#define EVENT_ENDS	0.0
#define EVENT_READY	1.0

typedef struct Play
{
	PaceTask   *tasks;
	const PaceEdge *edges;
	int			nedges;
	PaceRoom   *rooms;
	int			nrooms;
	bool	   *kept;			/* of rooms: somebody in front waits for more of it */
	int		   *pending;		/* of tasks: upstream tasks that have not ended */
	int		   *first_edge;		/* of tasks */
	Heap		events;			/* first: when; second: EVENT_... */
	Lane	   *lanes;
	int			nlanes;
	int			lanes_size;
} Play;

/* ---- heap ---- */

static bool
item_before(const HeapItem *a, const HeapItem *b)
{
	if (a->first != b->first)
		return a->first < b->first;
	if (a->second != b->second)
		return a->second < b->second;
	return a->task < b->task;
}

static void
heap_push(Heap *heap, double first, double second, int task)
{
	HeapItem	item = {first, second, task};
	int			i = heap->n++;

	if (heap->n > heap->size)
	{
		heap->size = heap->size == 0 ? 16 : heap->size * 2;
		heap->items = heap->items == NULL ? mem_alloc(sizeof(HeapItem) * heap->size) :
			mem_realloc(heap->items, sizeof(HeapItem) * heap->size);
	}
	for (; i > 0 && item_before(&item, &heap->items[(i - 1) / 2]); i = (i - 1) / 2)
		heap->items[i] = heap->items[(i - 1) / 2];
	heap->items[i] = item;
}

static HeapItem
heap_pop(Heap *heap)
{
	HeapItem	top = heap->items[0];
	HeapItem	last = heap->items[--heap->n];
	int			i = 0;

	for (;;)
	{
		int			child = 2 * i + 1;

		if (child >= heap->n)
			break;
		if (child + 1 < heap->n && item_before(&heap->items[child + 1], &heap->items[child]))
			child++;
		if (!item_before(&heap->items[child], &last))
			break;
		heap->items[i] = heap->items[child];
		i = child;
	}
	heap->items[i] = last;
	return top;
}

/* ---- lanes ---- */

static Lane *
lane_of(Play *play, const PaceTask *task)
{
	Lane	   *lane;

	for (int i = 0; i < play->nlanes; i++)
		if (memcmp(play->lanes[i].room, task->room, sizeof(task->room)) == 0 &&
			memcmp(play->lanes[i].slots, task->slots, sizeof(task->slots)) == 0)
			return &play->lanes[i];
	if (play->nlanes == play->lanes_size)
	{
		play->lanes_size = Max(8, play->lanes_size * 2);
		play->lanes = play->lanes == NULL ? mem_alloc(sizeof(Lane) * play->lanes_size) :
			mem_realloc(play->lanes, sizeof(Lane) * play->lanes_size);
	}
	lane = &play->lanes[play->nlanes++];
	memset(lane, 0, sizeof(*lane));
	memcpy(lane->room, task->room, sizeof(task->room));
	memcpy(lane->slots, task->slots, sizeof(task->slots));
	return lane;
}

static void
take(Play *play, const PaceTask *task, int sign)
{
	for (int k = 0; k < PACE_ROOMS; k++)
		if (task->room[k] >= 0)
			play->rooms[task->room[k]].free -= sign * task->slots[k];
}

/*
 * Is there room for the first of the lane?  If too little of one room is all
 * that is in its way, that is kept for it, unless there never will be enough.
 */
static bool
lane_fits(Play *play, const Lane *lane)
{
	int			lacking = 0;
	int			n_lacking = 0;

	for (int k = 0; k < PACE_ROOMS; k++)
		if (lane->room[k] >= 0 && lane->slots[k] > play->rooms[lane->room[k]].total)
			return false;
	for (int k = 0; k < PACE_ROOMS; k++)
	{
		if (lane->room[k] < 0 || (!play->kept[lane->room[k]] && lane->slots[k] <= play->rooms[lane->room[k]].free))
			continue;
		lacking = lane->room[k];
		n_lacking++;
	}
	if (n_lacking == 1)
		play->kept[lacking] = true;
	return n_lacking == 0;
}

/* The lane whose first task goes before those of all others; NULL when all are empty or stopped. */
static Lane *
next_lane(Play *play)
{
	Lane	   *best = NULL;

	for (int i = 0; i < play->nlanes; i++)
	{
		Lane	   *lane = &play->lanes[i];

		if (!lane->stopped && lane->queue.n > 0 &&
			(best == NULL || item_before(&lane->queue.items[0], &best->queue.items[0])))
			best = lane;
	}
	return best;
}

static void
start_tasks(Play *play, double now)
{
	Lane	   *lane;

	for (int i = 0; i < play->nlanes; i++)
		play->lanes[i].stopped = false;
	memset(play->kept, 0, sizeof(bool) * Max(play->nrooms, 1));
	while ((lane = next_lane(play)) != NULL)
	{
		PaceTask   *task;
		int			t;

		if (!lane_fits(play, lane))
		{
			lane->stopped = true;
			continue;
		}
		t = heap_pop(&lane->queue).task;
		task = &play->tasks[t];
		take(play, task, 1);
		task->start = now;
		if (task->seconds < 0)
			continue;			/* it never ends, as far as is known */
		task->end = now + task->seconds;
		heap_push(&play->events, task->end, EVENT_ENDS, t);
	}
}

/* ---- the play ---- */

static void
task_ended(Play *play, int t, double now)
{
	take(play, &play->tasks[t], -1);
	for (int e = play->first_edge[t]; e < play->nedges && play->edges[e].from == t; e++)
	{
		int			to = play->edges[e].to;

		if (--play->pending[to] == 0 && play->tasks[to].state == PACE_WAITING)
			heap_push(&play->events, Max(now, play->tasks[to].not_before), EVENT_READY, to);
	}
}

static void
begin(Play *play, int ntasks)
{
	for (int i = 0; i < play->nrooms; i++)
		play->rooms[i].free = play->rooms[i].total;
	for (int e = play->nedges - 1; e >= 0; e--)
	{
		play->first_edge[play->edges[e].from] = e;
		if (play->tasks[play->edges[e].from].state != PACE_ENDED)
			play->pending[play->edges[e].to]++;
	}
	for (int t = 0; t < ntasks; t++)
	{
		PaceTask   *task = &play->tasks[t];

		task->start = task->end = PACE_UNKNOWN;
		if (task->state == PACE_ENDED)
			task->end = 0;
		else if (task->state == PACE_RUNNING)
		{
			take(play, task, 1);
			if (task->seconds < 0)
				continue;
			task->end = task->seconds;
			heap_push(&play->events, task->end, EVENT_ENDS, t);
		}
		else if (play->pending[t] == 0)
			heap_push(&play->events, Max(task->not_before, 0), EVENT_READY, t);
	}
}

void
pace(PaceTask *tasks, int ntasks, const PaceEdge *edges, int nedges, PaceRoom *rooms, int nrooms)
{
	Play		play = {tasks, edges, nedges, rooms, nrooms};

	play.kept = mem_alloc0(sizeof(bool) * Max(nrooms, 1));
	play.pending = mem_alloc0(sizeof(int) * Max(ntasks, 1));
	play.first_edge = mem_alloc(sizeof(int) * Max(ntasks, 1));
	for (int t = 0; t < ntasks; t++)
		play.first_edge[t] = nedges;
	begin(&play, ntasks);
	while (play.events.n > 0)
	{
		double		now = play.events.items[0].first;

		while (play.events.n > 0 && play.events.items[0].first == now)
		{
			HeapItem	event = heap_pop(&play.events);
			PaceTask   *task = &tasks[event.task];

			if (event.second == EVENT_ENDS)
				task_ended(&play, event.task, now);
			else
				heap_push(&lane_of(&play, task)->queue, -(double) task->priority, now, event.task);
		}
		start_tasks(&play, now);
	}

	for (int i = 0; i < play.nlanes; i++)
		if (play.lanes[i].queue.items != NULL)
			mem_free(play.lanes[i].queue.items);
	if (play.lanes != NULL)
		mem_free(play.lanes);
	if (play.events.items != NULL)
		mem_free(play.events.items);
	mem_free(play.kept);
	mem_free(play.pending);
	mem_free(play.first_edge);
}
