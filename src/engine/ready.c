/*-------------------------------------------------------------------------
 * ready.c
 *	  The task runs that are ready, in the conductor's memory.
 *
 * The table is the truth, this is an index of it that knows no dead entries.
 * It is read once when a conductor begins; after that notes (notes.c) say
 * which task runs to read.  Task runs whose pause after a failure is not over
 * wait here too, in the order of their moments.
 *
 * Runs in the conductor's transaction.  What is here when the process dies is
 * read anew by the next.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/pairingheap.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "engine_int.h"
#include "ready_int.h"

/* A pause after a failure. */
typedef struct Pause
{
	int64		task_run_id;	/* hash key */
	pairingheap_node node;
	int64		due_ms;
	int64		run_id;
} Pause;

struct ReadySet
{
	MemoryContext cxt;			/* all of it */
	HTAB	   *lanes;			/* by key */
	HTAB	   *ids;			/* task runs in lanes */
	HTAB	   *paused;			/* by task run */
	pairingheap *pauses;		/* the same, in the order of their moments */
	List	   *again;			/* task runs to read again, pointers to int64 */
};

/* the earliest is the first */
static int
compare_pauses(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		x = pairingheap_const_container(Pause, node, a)->due_ms;
	int64		y = pairingheap_const_container(Pause, node, b)->due_ms;

	return (x < y) - (x > y);
}

static HTAB *
make_hash(MemoryContext cxt, const char *name, Size key, Size entry, int flags)
{
	HASHCTL		ctl = {0};

	ctl.keysize = key;
	ctl.entrysize = entry;
	ctl.hcxt = cxt;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_CONTEXT | flags);
}

/* Empty; the turns of lanes begin anew. */
static void
reset(Conductor *c)
{
	struct ReadySet *ready = c->ready;
	MemoryContext old;

	MemoryContextReset(ready->cxt);
	old = MemoryContextSwitchTo(ready->cxt);
	ready->lanes = make_hash(ready->cxt, "weir lanes", LANE_KEY_LEN, sizeof(ReadyLane), HASH_STRINGS);
	ready->ids = make_hash(ready->cxt, "weir ready task runs", sizeof(int64), sizeof(int64), HASH_BLOBS);
	ready->paused = make_hash(ready->cxt, "weir pauses", sizeof(int64), sizeof(Pause), HASH_BLOBS);
	ready->pauses = pairingheap_allocate(compare_pauses, NULL);
	ready->again = NIL;
	MemoryContextSwitchTo(old);
}

void
ready_start(Conductor *c)
{
	c->ready = MemoryContextAllocZero(c->cxt, sizeof(struct ReadySet));
	c->ready->cxt = AllocSetContextCreate(c->cxt, "weir ready", ALLOCSET_DEFAULT_SIZES);
	reset(c);
}

/* ---- lanes ---- */

/* First run that is not before this one in the lane's order. */
static int
find_run(const ReadyLane *lane, int priority, int64 run_id)
{
	int			low = 0,
				high = lane->n_runs;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		const ReadyRun *run = lane->runs[middle];

		if (run->priority > priority || (run->priority == priority && run->run_id < run_id))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static ReadyLane *
find_lane(struct ReadySet *ready, const char *key)
{
	char		fixed[LANE_KEY_LEN];
	bool		found;
	ReadyLane  *lane;

	strlcpy(fixed, key, sizeof(fixed));
	lane = hash_search(ready->lanes, fixed, HASH_ENTER, &found);
	if (!found)
	{
		memset(lane->turns, 0, sizeof(lane->turns));
		lane->oldest = PG_INT64_MAX;
		lane->n_runs = 0;
		lane->max_runs = 8;
		lane->runs = MemoryContextAlloc(ready->cxt, sizeof(ReadyRun *) * lane->max_runs);
	}
	return lane;
}

static ReadyRun *
get_run(struct ReadySet *ready, ReadyLane *lane, int priority, int64 run_id)
{
	int			place = find_run(lane, priority, run_id);
	ReadyRun   *run;

	if (place < lane->n_runs && lane->runs[place]->run_id == run_id && lane->runs[place]->priority == priority)
		return lane->runs[place];
	if (lane->n_runs == lane->max_runs)
		lane->runs = repalloc_huge(lane->runs, sizeof(ReadyRun *) * (lane->max_runs *= 2));
	memmove(&lane->runs[place + 1], &lane->runs[place], sizeof(ReadyRun *) * (lane->n_runs - place));
	run = MemoryContextAllocZero(ready->cxt, sizeof(ReadyRun));
	run->run_id = run_id;
	run->priority = priority;
	run->max = 4;
	run->tasks = MemoryContextAlloc(ready->cxt, sizeof(ReadyTask) * run->max);
	lane->runs[place] = run;
	lane->n_runs++;
	return run;
}

static void
remove_run(ReadyLane *lane, int place)
{
	ReadyRun   *run = lane->runs[place];

	pfree(run->tasks);
	pfree(run);
	lane->n_runs--;
	memmove(&lane->runs[place], &lane->runs[place + 1], sizeof(ReadyRun *) * (lane->n_runs - place));
}

/* They come nearly in order: the place is looked for from the end. */
static void
add_task(ReadyRun *run, int64 task_run_id, int64 ready_at)
{
	int			place;

	if (run->first + run->n == run->max)
	{
		if (run->first > run->max / 2)
		{
			memmove(run->tasks, &run->tasks[run->first], sizeof(ReadyTask) * run->n);
			run->first = 0;
		}
		else
			run->tasks = repalloc_huge(run->tasks, sizeof(ReadyTask) * (run->max *= 2));
	}
	place = run->first + run->n++;
	while (place > run->first && run->tasks[place - 1].ready_at > ready_at)
	{
		run->tasks[place] = run->tasks[place - 1];
		place--;
	}
	run->tasks[place].task_run_id = task_run_id;
	run->tasks[place].ready_at = ready_at;
}

static void
add(struct ReadySet *ready, const char *lane, int priority, int64 run_id, int64 task_run_id, int64 ready_at)
{
	ReadyLane  *found_lane;
	bool		found;

	(void) hash_search(ready->ids, &task_run_id, HASH_ENTER, &found);
	if (found)
		return;
	found_lane = find_lane(ready, lane);
	found_lane->oldest = Min(found_lane->oldest, ready_at);
	add_task(get_run(ready, found_lane, priority, run_id), task_run_id, ready_at);
}

/* NULL: nothing of that priority was served, or that is forgotten. */
static ReadyTurn *
find_turn(ReadyLane *lane, int priority)
{
	for (int i = 0; i < READY_TURNS; i++)
		if (lane->turns[i].priority == priority)
			return &lane->turns[i];
	return NULL;
}

/* A priority that is new takes the place of the one that was served longest ago. */
static ReadyTurn *
get_turn(ReadyLane *lane, int priority)
{
	ReadyTurn  *turn = find_turn(lane, priority);

	if (turn != NULL)
		return turn;
	turn = &lane->turns[0];
	for (int i = 1; i < READY_TURNS; i++)
		if (lane->turns[i].served < turn->served)
			turn = &lane->turns[i];
	*turn = (ReadyTurn) {.priority = priority};
	return turn;
}

/*
 * Of the runs with the highest priority that have room, the one after that
 * which was served last; -1: none has.
 */
static int
place_of_turn(ReadyLane *lane, ReadyRunHasRoom has_room, void *arg)
{
	int			end;

	for (int begin = 0; begin < lane->n_runs; begin = end)
	{
		int			priority = lane->runs[begin]->priority;
		const ReadyTurn *turn = find_turn(lane, priority);
		int			first = turn == NULL ? begin : find_run(lane, priority, turn->last_run_id + 1);

		end = find_run(lane, priority, PG_INT64_MAX);
		for (int i = 0; i < end - begin; i++)
		{
			int			place = first + i < end ? first + i : first + i - (end - begin);

			if (has_room == NULL || has_room(lane->runs[place]->run_id, arg))
				return place;
		}
	}
	return -1;
}

ReadyLane **
ready_lanes(Conductor *c, int *n)
{
	ReadyLane **lanes = palloc(sizeof(ReadyLane *) * Max(hash_get_num_entries(c->ready->lanes), 1));
	HASH_SEQ_STATUS seq;
	ReadyLane  *lane;

	*n = 0;
	hash_seq_init(&seq, c->ready->lanes);
	while ((lane = hash_seq_search(&seq)) != NULL)
		if (lane->n_runs > 0 && strcmp(lane->key, LANE_NOOP) != 0)
			lanes[(*n)++] = lane;
	return lanes;
}

/* Where the task run is that has waited longest and whose run has room, if that was before; -1: none. */
static int
place_of_overdue(ReadyLane *lane, int64 before, ReadyRunHasRoom has_room, void *arg)
{
	int64		since = before;
	int			place = -1;

	if (lane->oldest >= before)
		return -1;
	lane->oldest = PG_INT64_MAX;
	for (int i = 0; i < lane->n_runs; i++)
	{
		const ReadyRun *run = lane->runs[i];
		int64		ready_at = run->tasks[run->first].ready_at;

		lane->oldest = Min(lane->oldest, ready_at);
		if (ready_at < since && (has_room == NULL || has_room(run->run_id, arg)))
		{
			since = ready_at;
			place = i;
		}
	}
	return place;
}

bool
ready_peek(ReadyLane *lane, int64 overdue_before, ReadyRunHasRoom has_room, void *arg, ReadyNext *next)
{
	const ReadyRun *run;
	int			overdue = place_of_overdue(lane, overdue_before, has_room, arg);

	next->place = overdue >= 0 ? overdue : place_of_turn(lane, has_room, arg);
	if (next->place < 0)
		return false;
	run = lane->runs[next->place];
	next->task_run_id = run->tasks[run->first].task_run_id;
	next->run_id = run->run_id;
	next->priority = run->priority;
	next->overdue_since = overdue >= 0 ? run->tasks[run->first].ready_at : PG_INT64_MAX;
	next->turn = get_turn(lane, run->priority);
	return true;
}

void
ready_pop(Conductor *c, ReadyLane *lane, const ReadyNext *next)
{
	ReadyRun   *run = lane->runs[next->place];

	run->first++;
	(void) hash_search(c->ready->ids, &next->task_run_id, HASH_REMOVE, NULL);
	if (--run->n == 0)
		remove_run(lane, next->place);
}

int64
ready_pop_noop(Conductor *c, int64 *run_id)
{
	ReadyLane  *lane = hash_search(c->ready->lanes, LANE_NOOP, HASH_FIND, NULL);
	ReadyNext	next;

	if (lane == NULL || !ready_peek(lane, PG_INT64_MIN, NULL, NULL, &next))
		return 0;
	/* Whole runs one after the other: the fewer runs a wave touches the better. */
	*run_id = next.run_id;
	next.turn->last_run_id = next.run_id - 1;
	ready_pop(c, lane, &next);
	return next.task_run_id;
}

static void
remove_pause(struct ReadySet *ready, Pause *pause)
{
	pairingheap_remove(ready->pauses, &pause->node);
	(void) hash_search(ready->paused, &pause->task_run_id, HASH_REMOVE, NULL);
}

static void
forget_pauses(struct ReadySet *ready, int64 run_id)
{
	HASH_SEQ_STATUS seq;
	Pause	   *pause;

	hash_seq_init(&seq, ready->paused);
	while ((pause = hash_seq_search(&seq)) != NULL)
		if (pause->run_id == run_id)
			remove_pause(ready, pause);
}

void
ready_forget_run(Conductor *c, int64 run_id)
{
	HASH_SEQ_STATUS seq;
	ReadyLane  *lane;

	forget_pauses(c->ready, run_id);
	hash_seq_init(&seq, c->ready->lanes);
	while ((lane = hash_seq_search(&seq)) != NULL)
		for (int i = lane->n_runs - 1; i >= 0; i--)
		{
			ReadyRun   *run = lane->runs[i];

			if (run->run_id != run_id)
				continue;
			for (int j = run->first; j < run->first + run->n; j++)
				(void) hash_search(c->ready->ids, &run->tasks[j].task_run_id, HASH_REMOVE, NULL);
			remove_run(lane, i);
		}
}

/* ---- from the table ---- */

#define READY_COLUMNS \
	"t.task_run_id, t.run_id, t.priority::bigint, t.lane, (extract(epoch FROM t.ready_at) * 1000000)::bigint, " \
	"ceil(extract(epoch FROM t.not_before) * 1000)::bigint, ceil(extract(epoch FROM t.deadline) * 1000)::bigint "

static void
add_pause(struct ReadySet *ready, int64 run_id, int64 task_run_id, int64 due_ms)
{
	bool		found;
	Pause	   *pause = hash_search(ready->paused, &task_run_id, HASH_ENTER, &found);

	if (found)
		pairingheap_remove(ready->pauses, &pause->node);
	pause->run_id = run_id;
	pause->due_ms = due_ms;
	pairingheap_add(ready->pauses, &pause->node);
}

/* The rows of READY_COLUMNS that were just read. */
static void
add_rows(Conductor *c, uint64 n)
{
	for (uint64 i = 0; i < n; i++)
	{
		int64		task_run_id = weir_spi_int64(i, 1, NULL);
		bool		is_null;
		int64		not_before = weir_spi_int64(i, 6, &is_null);
		bool		is_paused = !is_null;
		int64		deadline = weir_spi_int64(i, 7, &is_null);

		if (!is_null)
			c->run_deadline_ms = Min(c->run_deadline_ms, deadline + 1);
		if (is_paused)
			add_pause(c->ready, weir_spi_int64(i, 2, NULL), task_run_id, not_before);
		else
			add(c->ready, weir_spi_text(i, 4), (int) weir_spi_int64(i, 3, NULL), weir_spi_int64(i, 2, NULL),
				task_run_id, weir_spi_int64(i, 5, NULL));
	}
}

static Datum
id_array(const int64 *ids, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	return weir_array(INT8OID, values, n);
}

static void
load_all(Conductor *c)
{
	reset(c);
	add_rows(c, weir_spi("SELECT " READY_COLUMNS "FROM weir._active_task_run t WHERE t.status = 'ready' ORDER BY t.ready_at, t.task_run_id",
						 0, NULL, NULL, NULL));
}

void
ready_read_runs(Conductor *c, const List *runs)
{
	static const Oid types[1] = {INT8ARRAYOID};
	int64	   *ids = palloc(sizeof(int64) * Max(list_length(runs), 1));
	Datum		values[1];
	ListCell   *lc;
	int			n = 0;

	foreach(lc, runs)
	{
		int64		run_id = *(int64 *) lfirst(lc);

		if (n > 0 && ids[n - 1] == run_id)
			continue;
		ready_forget_run(c, run_id);
		ids[n++] = run_id;
	}
	values[0] = id_array(ids, n);
	/* Of a run that does not go on nothing starts, whatever its tasks say. */
	add_rows(c, weir_spi("SELECT " READY_COLUMNS "FROM weir.run r JOIN weir.task_run t USING (run_id) "
						 "WHERE r.run_id = ANY ($1) AND r.status = 'running' AND t.status = 'ready' ORDER BY t.ready_at, t.task_run_id",
						 1, types, values, NULL));
}

/* A pause that was known is as it was, another one, or over: the table says which. */
static void
load(Conductor *c, const int64 *ids, int n)
{
	static const Oid types[1] = {INT8ARRAYOID};
	Datum		values[1] = {id_array(ids, n)};

	for (int i = 0; i < n; i++)
	{
		Pause	   *pause = hash_search(c->ready->paused, &ids[i], HASH_FIND, NULL);

		if (pause != NULL)
			remove_pause(c->ready, pause);
	}
	add_rows(c, weir_spi("SELECT " READY_COLUMNS "FROM weir.task_run t WHERE t.task_run_id = ANY ($1) AND t.status = 'ready' "
						 "ORDER BY t.ready_at, t.task_run_id", 1, types, values, NULL));
}

void
ready_again(Conductor *c, int64 task_run_id)
{
	MemoryContext old = MemoryContextSwitchTo(c->ready->cxt);
	int64	   *id = palloc(sizeof(int64));

	*id = task_run_id;
	c->ready->again = lappend(c->ready->again, id);
	MemoryContextSwitchTo(old);
}

void
ready_take_in(Conductor *c, bool all)
{
	int			n;
	WeirNote   *notes = notes_take(&n);
	int64	   *ids = palloc(sizeof(int64) * (n + list_length(c->ready->again)));
	int			n_ids = 0;
	ListCell   *lc;

	foreach(lc, c->ready->again)
		ids[n_ids++] = *(int64 *) lfirst(lc);
	list_free_deep(c->ready->again);
	c->ready->again = NIL;
	for (int i = 0; i < n; i++)
		if (notes[i].id < 0)
			ids[n_ids++] = -notes[i].id;
		else
			queues_heed(c, &notes[i]);
	if (all)
	{
		queues_forget_known(c);
		load_all(c);
	}
	else if (n_ids > 0)
		load(c, ids, n_ids);
}

int64
ready_next_due(Conductor *c)
{
	if (pairingheap_is_empty(c->ready->pauses))
		return NEVER;
	return pairingheap_container(Pause, node, pairingheap_first(c->ready->pauses))->due_ms;
}

/* Pauses that are over; the rows say so too, for whoever asks what a task waits for. */
void
ready_end_pauses(Conductor *c)
{
	static const Oid types[1] = {INT8ARRAYOID};
	int64		now = now_ms();
	int64	   *ids;
	Datum		values[1];
	int			n = 0;

	if (ready_next_due(c) > now)
		return;
	ids = palloc(sizeof(int64) * hash_get_num_entries(c->ready->paused));
	while (ready_next_due(c) <= now)
	{
		Pause	   *pause = pairingheap_container(Pause, node, pairingheap_first(c->ready->pauses));

		ids[n++] = pause->task_run_id;
		remove_pause(c->ready, pause);
	}
	values[0] = id_array(ids, n);
	/* One that began another pause meanwhile is put back. */
	weir_spi("UPDATE weir.task_run SET not_before = NULL WHERE task_run_id = ANY ($1) AND status = 'ready' "
			 "AND not_before <= clock_timestamp()", 1, types, values, NULL);
	load(c, ids, n);
}
