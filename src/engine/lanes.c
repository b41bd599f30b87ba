/*-------------------------------------------------------------------------
 * lanes.c
 *	  Which ready task runs start now, when not all of them can.
 *
 * Task runs that need exactly the same to start (a SQL worker or none, so
 * many slots of a pool, a connection) form a lane (ready.c), so a lane
 * without room costs one look, however many wait in it.  Runs of which only
 * so many tasks may go on at a time (max_concurrent_tasks) have lanes of
 * their own, in which a run that is full is passed over.  What is free is
 * counted in every cycle from what is live: the flights, which are the
 * attempts going on, and for rates the attempts intended within the last
 * minute.  There is no counter that a crash could leave wrong.
 *
 * Order where something is scarce: what is overdue (weir.overdue_after) in
 * the order it became ready; then the higher priority first; among equals
 * lanes take turns, in a lane runs take turns, and in a run the task that has
 * been ready longest goes first.  Turns are those of a priority: what is
 * urgent goes in between and takes nobody's.  A task that needs more slots than are free
 * keeps them from those behind it, or small ones would pass it for ever; one
 * that needs more than there are waits without stopping anybody.
 *
 * Runs in the conductor's transaction.  Whose turn it is, is kept in memory
 * only: after a crash the turns begin anew, and nothing else is lost.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "compare.h"
#include "engine.h"
#include "json.h"
#include "ready_int.h"

#define LANE_BATCH		500		/* task runs started in one transaction */
#define MINUTE_MS		60000
#define WORKERS_TAKEN_MS	200

/* Room of a pool, of a connection or for SQL workers. */
typedef struct Room
{
	const char *name;
	int64		total;			/* -1: the pool does not exist */
	int64		free;
} Room;

/* How many task runs of a run go on, of those that count. */
typedef struct RunUse
{
	int64		run_id;			/* hash key */
	int			going_on;
} RunUse;

/* A lane and what it needs, in this cycle. */
typedef struct Lane
{
	ReadyLane  *ready;
	int			run_limit;		/* so many of a run at a time; 0: any number */
	HTAB	   *uses;			/* of runs with a limit, RunUse; NULL while nobody asked */
	Room	   *worker;			/* NULL: needs none */
	Room	   *pool;
	int			pool_slots;
	Room	   *connection;
	bool		stopped;
	bool		is_empty;
	ReadyNext	next;
} Lane;

static Room *
find_room(List *rooms, const char *name)
{
	ListCell   *lc;

	foreach(lc, rooms)
		if (strcmp(((Room *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	return NULL;
}

static Room *
make_room(const char *name, int64 total, int64 used)
{
	Room	   *room = palloc(sizeof(Room));

	room->name = name;
	room->total = total;
	room->free = Max(total - used, 0);
	return room;
}

/* Slots are taken by whatever is running, also while it waits for its engine. */
static Room *
pool_room(Conductor *c, const char *name)
{
	static const Oid types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(name)};
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int64		used = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->pool != NULL && strcmp(flight->pool, name) == 0)
			used += flight->pool_slots;
	if (weir_spi("SELECT slots::bigint FROM weir.pool WHERE name = $1", 1, types, values, NULL) == 0)
		return make_room(name, -1, used);
	return make_room(name, weir_spi_int64(0, 1, NULL), used);
}

static int64
limit_option(const Connection *connection, const char *key)
{
	int64		limit;

	return json_int64(cJSON_GetObjectItemCaseSensitive(connection->options, key), &limit) ? limit : PG_INT64_MAX;
}

/* Attempts going on: every one of them has a flight, also right after a crash. */
static int64
going_on(Conductor *c, const char *connection)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int64		n = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->connection != NULL && strcmp(flight->connection->name, connection) == 0)
			n++;
	return n;
}

/* Starts left in this minute; when there are none, the timer is set to the next. */
static int64
starts_left(Conductor *c, const char *connection, int64 limit)
{
	static const Oid types[3] = {TEXTOID, INT8OID, INT8OID};
	int64		now = now_ms();
	Datum		values[3] = {CStringGetTextDatum(connection), Int64GetDatum(limit), Int64GetDatum(now)};
	int64		started;

	/* A clock that was set back leaves attempts in the future: these do not count. */
	weir_spi("SELECT count(*), (extract(epoch FROM min(s.intended_at)) * 1000)::bigint FROM (SELECT a.intended_at FROM weir.attempt a "
			 "WHERE a.rated_connection = $1 AND a.intended_at > to_timestamp($3 / 1000.0) - interval '1 minute' "
			 "AND a.intended_at <= to_timestamp($3 / 1000.0) + interval '1 second' ORDER BY a.intended_at DESC LIMIT $2) s",
			 3, types, values, NULL);
	started = weir_spi_int64(0, 1, NULL);
	if (started >= limit)
		c->limit_due_ms = Min(c->limit_due_ms, weir_spi_int64(0, 2, NULL) + MINUTE_MS + 1);
	return limit - started;
}

/* NULL: without limits. */
static Room *
connection_room(Conductor *c, const char *name)
{
	const Connection *connection = dispatch_connection(c, name);
	int64		concurrency,
				per_minute,
				room = PG_INT64_MAX;

	if (connection == NULL)
		return NULL;			/* its attempt fails and says so */
	concurrency = limit_option(connection, "max_concurrency");
	per_minute = limit_option(connection, "max_starts_per_minute");
	if (concurrency != PG_INT64_MAX)
		room = concurrency - going_on(c, name);
	/* Only if the minute alone is in the way is there a time to wait for. */
	if (per_minute != PG_INT64_MAX && room > 0)
		room = Min(room, starts_left(c, name, per_minute));
	return room == PG_INT64_MAX ? NULL : make_room(name, Max(room, 0), 0);
}

static RunUse *
use_of_run(HTAB *uses, int64 run_id)
{
	bool		found;
	RunUse	   *use = hash_search(uses, &run_id, HASH_ENTER, &found);

	if (!found)
		use->going_on = 0;
	return use;
}

/* Of all runs with a limit. */
static HTAB *
count_uses(Conductor *c)
{
	HASHCTL		ctl = {.keysize = sizeof(int64), .entrysize = sizeof(RunUse), .hcxt = CurrentMemoryContext};
	HTAB	   *uses = hash_create("weir tasks of runs", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->counts_in_run)
			use_of_run(uses, flight->run_id)->going_on++;
	return uses;
}

static bool
run_has_room(int64 run_id, void *arg)
{
	const Lane *lane = arg;
	const RunUse *use = hash_search(lane->uses, &run_id, HASH_FIND, NULL);

	return use == NULL || use->going_on < lane->run_limit;
}

/* The key says what a lane needs: sql#LIMIT:POOL:SLOTS@CONNECTION */
static void
read_key(Conductor *c, Lane *lane, Room *worker, List **pools, List **connections)
{
	char	   *rest = pstrdup(lane->ready->key);
	char	   *connection = strchr(rest, '@');
	char	   *pool,
			   *limit;

	if (connection != NULL)
		*connection++ = '\0';
	pool = strchr(rest, ':');
	if (pool != NULL)
	{
		char	   *slots;

		*pool++ = '\0';
		slots = strchr(pool, ':');
		*slots++ = '\0';
		lane->pool_slots = atoi(slots);
		lane->pool = find_room(*pools, pool);
		if (lane->pool == NULL)
		{
			lane->pool = pool_room(c, pool);
			*pools = lappend(*pools, lane->pool);
		}
	}
	if (connection != NULL)
	{
		lane->connection = find_room(*connections, connection);
		if (lane->connection == NULL && (lane->connection = connection_room(c, connection)) != NULL)
			*connections = lappend(*connections, lane->connection);
	}
	limit = strchr(rest, '#');
	if (limit != NULL)
		lane->run_limit = atoi(limit + 1);
	if (strncmp(lane->ready->key, "sql", 3) == 0)
		lane->worker = worker;
}

/* How many could start if there were no other lanes. */
static int
room_for(const Lane *lane)
{
	int64		room = LANE_BATCH;

	if (lane->worker)
		room = Min(room, lane->worker->free);
	if (lane->connection)
		room = Min(room, lane->connection->free);
	if (lane->pool)
		room = Min(room, lane->pool->free / lane->pool_slots);
	return (int) room;
}

/* Slots are all it lacks, some are free and there are enough in all. */
static bool
waits_for_slots(const Lane *lane)
{
	return lane->pool != NULL && lane->pool->total >= lane->pool_slots &&
		lane->pool->free > 0 && lane->pool->free < lane->pool_slots &&
		(lane->worker == NULL || lane->worker->free > 0) &&
		(lane->connection == NULL || lane->connection->free > 0);
}

/* The next task run of a lane; it counts as empty when all of its runs are full. */
static void
look_ahead(Lane *lane, int64 overdue_before)
{
	lane->is_empty = !ready_peek(lane->ready, overdue_before, lane->run_limit > 0 ? run_has_room : NULL, lane, &lane->next);
}

static bool
goes_before(const Lane *a, const Lane *b)
{
	if (a->next.overdue_since != b->next.overdue_since)
		return a->next.overdue_since < b->next.overdue_since;
	if (a->next.priority != b->next.priority)
		return a->next.priority > b->next.priority;
	return a->next.turn->served < b->next.turn->served;
}

/* The lane that is next: overdue for longest, highest priority, then the one that was served longest ago. */
static Lane *
next_lane(Lane *lanes, int n)
{
	Lane	   *best = NULL;

	for (int i = 0; i < n; i++)
	{
		Lane	   *lane = &lanes[i];

		if (lane->stopped || lane->is_empty)
			continue;
		if (best == NULL || goes_before(lane, best))
			best = lane;
	}
	return best;
}

static void
take(Conductor *c, Lane *lane)
{
	if (lane->worker)
		lane->worker->free--;
	if (lane->connection)
		lane->connection->free--;
	if (lane->pool)
		lane->pool->free -= lane->pool_slots;
	if (lane->run_limit > 0)
		use_of_run(lane->uses, lane->next.run_id)->going_on++;
	lane->next.turn->served = ++c->starts;
	lane->next.turn->last_run_id = lane->next.run_id;
}

/* In order, as long as there is room; the result is how many were chosen. */
static int
choose(Conductor *c, Lane *lanes, int n, int64 overdue_before, LaneChoice *choices)
{
	int			chosen = 0;
	Lane	   *lane;

	while (chosen < LANE_BATCH && (lane = next_lane(lanes, n)) != NULL)
	{
		/* Its run may have become full through another lane. */
		if (lane->run_limit > 0 && !run_has_room(lane->next.run_id, lane))
		{
			look_ahead(lane, overdue_before);
			continue;
		}
		if (room_for(lane) == 0)
		{
			lane->stopped = true;
			if (waits_for_slots(lane))
				lane->pool->free = 0;	/* they are kept for it */
			continue;
		}
		ready_pop(c, lane->ready, &lane->next);

		/*
		 * A SQL worker may have committed an attempt that is to be tried
		 * again at once before we have seen its slot go free: such a task
		 * run waits for that.
		 */
		if (flight_find(c, lane->next.task_run_id) != NULL)
			ready_again(c, lane->next.task_run_id);
		else
		{
			take(c, lane);
			choices[chosen++] = (LaneChoice) {lane->next.task_run_id, lane->next.run_id, lane->next.turn};
		}
		look_ahead(lane, overdue_before);
	}
	return chosen;
}

static int
by_run(const ListCell *a, const ListCell *b)
{
	return compare_int64(lfirst(a), lfirst(b));
}

/*
 * What was ready when it was read may have been blocked since by a failure of
 * its run, and then so has what is behind it.  The run has not had its turn.
 */
void
lanes_not_started(Conductor *c, LaneChoice *choices, int n)
{
	List	   *runs = NIL;

	for (int i = 0; i < n; i++)
	{
		if (flight_find(c, choices[i].task_run_id) != NULL)
			continue;
		if (choices[i].turn->last_run_id == choices[i].run_id)
			choices[i].turn->last_run_id--;
		runs = lappend(runs, &choices[i].run_id);
	}
	list_sort(runs, by_run);
	ready_read_runs(c, runs);
	list_free(runs);
}

LaneChoice *
lanes_choose(Conductor *c, int *n_chosen)
{
	Room		worker = {.name = "SQL workers"};
	List	   *pools = NIL,
			   *connections = NIL;
	HTAB	   *uses = NULL;
	int			n;
	ReadyLane **ready = ready_lanes(c, &n);
	Lane	   *lanes = palloc0(sizeof(Lane) * Max(n, 1));
	LaneChoice *choices;
	bool		any_worker = false;
	int64		overdue_before = weir_overdue_after == 0 ? PG_INT64_MIN : (now_ms() - weir_overdue_after * INT64CONST(1000)) * 1000;

	*n_chosen = 0;
	c->limit_due_ms = NEVER;
	if (n == 0)
		return NULL;
	worker.free = worker.total = sqlpool_free(c);
	for (int i = 0; i < n; i++)
	{
		lanes[i].ready = ready[i];
		read_key(c, &lanes[i], &worker, &pools, &connections);
		if (lanes[i].run_limit > 0 && uses == NULL)
			uses = count_uses(c);
		lanes[i].uses = uses;
		look_ahead(&lanes[i], overdue_before);
		any_worker = any_worker || lanes[i].worker != NULL;
	}
	/* All workers serve other databases, whose ends nobody tells us. */
	if (any_worker && worker.free == 0 && !c->in_session && !sqlpool_holds_any(c))
		c->worker_retry_ms = Min(c->worker_retry_ms, now_ms() + WORKERS_TAKEN_MS);

	choices = palloc(sizeof(LaneChoice) * LANE_BATCH);
	*n_chosen = choose(c, lanes, n, overdue_before, choices);
	for (int i = 0; i < n; i++)
		if (!lanes[i].is_empty && !lanes[i].stopped && room_for(&lanes[i]) > 0)
			c->wake |= ENGINE_WAKE_TASK;
	return choices;
}
