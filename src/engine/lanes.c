/*-------------------------------------------------------------------------
 * lanes.c
 *	  Which ready task runs start now, when not all of them can.
 *
 * Task runs that need exactly the same to start (a SQL worker or none, so
 * many slots of a pool, a connection) form a lane.  An index keeps them in
 * the order lane, priority, run; so a lane without room costs one look,
 * however many wait in it.  What is free is counted in every cycle from what
 * is live: slots of pools from task runs that are running, connections from
 * the attempts going on and from those intended within the last minute.
 * There is no counter that a crash could leave wrong.
 *
 * Order where something is scarce: the higher priority first; among equals
 * lanes take turns, in a lane runs take turns, and in a run the task that has
 * been ready longest goes first.  A task that needs more slots than are free
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

#include "conductor_int.h"
#include "engine.h"
#include "json.h"

#define LANE_BATCH		500		/* task runs started in one transaction */
#define LANE_GLANCE		64		/* so many are simply taken if that is all */
#define MAX_LANES		1000	/* looked at in one cycle */
#define LANE_KEY_LEN	192
#define MINUTE_MS		60000
#define WORKERS_TAKEN_MS	200

/* Whose turn it is; lives as long as the conductor. */
typedef struct LaneTurn
{
	char		key[LANE_KEY_LEN];	/* hash key */
	int64		last_run_id;	/* runs take turns in the order of their ids */
	int64		served;			/* number of the start that was its last */
} LaneTurn;

/* Room of a pool, of a connection or for SQL workers. */
typedef struct Room
{
	const char *name;
	int64		total;			/* -1: the pool does not exist */
	int64		free;
} Room;

typedef struct Candidate
{
	int64		task_run_id;
	int64		run_id;
	int			priority;
} Candidate;

typedef struct Lane
{
	char	   *key;
	Room	   *worker;			/* NULL: needs none */
	Room	   *pool;
	int			pool_slots;
	Room	   *connection;
	int			wanted;			/* it alone could start so many; 0 with more slots needed than free */
	LaneTurn   *turn;
	Candidate  *candidates;
	int			n;
	int			next;
	bool		has_more;		/* than its candidates */
	bool		stopped;
} Lane;

#define READY "t.status = 'ready' AND t.not_before IS NULL"
#define OF_LIVE_RUN "(SELECT r.status FROM weir.run r WHERE r.run_id = t.run_id) = 'running'"

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
pool_room(const char *name)
{
	static const Oid types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(name)};
	bool		is_missing;
	int64		slots;

	weir_spi("SELECT (SELECT p.slots::bigint FROM weir.pool p WHERE p.name = $1), "
			 "(SELECT coalesce(sum(t.pool_slots), 0)::bigint FROM weir.task_run t WHERE t.status = 'running' AND t.pool = $1)",
			 1, types, values, NULL);
	slots = weir_spi_int64(0, 1, &is_missing);
	return make_room(name, is_missing ? -1 : slots, weir_spi_int64(0, 2, NULL));
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

static LaneTurn *
find_turn(Conductor *c, const char *key)
{
	LaneTurn   *turn;
	char		fixed[LANE_KEY_LEN];
	bool		found;

	if (c->lane_turns == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = LANE_KEY_LEN;
		ctl.entrysize = sizeof(LaneTurn);
		ctl.hcxt = c->cxt;
		c->lane_turns = hash_create("weir lanes", 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	strlcpy(fixed, key, sizeof(fixed));
	turn = hash_search(c->lane_turns, fixed, HASH_ENTER, &found);
	if (!found)
		turn->last_run_id = turn->served = 0;
	return turn;
}

/* The key says what a lane needs: sql:POOL:SLOTS@CONNECTION */
static void
read_key(Conductor *c, Lane *lane, Room *worker, List **pools, List **connections)
{
	char	   *rest = pstrdup(lane->key);
	char	   *connection = strchr(rest, '@');
	char	   *pool;

	if (connection != NULL)
		*connection++ = '\0';
	pool = strchr(rest, ':');
	if (pool != NULL)
	{
		char	   *slots = strchr(++pool, ':');

		*slots++ = '\0';
		lane->pool_slots = atoi(slots);
		lane->pool = find_room(*pools, pool);
		if (lane->pool == NULL)
		{
			lane->pool = pool_room(pool);
			*pools = lappend(*pools, lane->pool);
		}
	}
	if (connection != NULL)
	{
		lane->connection = find_room(*connections, connection);
		if (lane->connection == NULL && (lane->connection = connection_room(c, connection)) != NULL)
			*connections = lappend(*connections, lane->connection);
	}
	if (strncmp(lane->key, "sql", 3) == 0)
		lane->worker = worker;
}

/* Lanes in which something is ready; noop tasks have been dealt with. */
static int
read_lanes(Lane **lanes)
{
	uint64		n = weir_spi("WITH RECURSIVE l (lane, n) AS ("
							 "(SELECT t.lane, 1 FROM weir.task_run t WHERE " READY " ORDER BY t.lane LIMIT 1) UNION ALL "
							 "SELECT (SELECT t.lane FROM weir.task_run t WHERE " READY " AND t.lane > l.lane ORDER BY t.lane LIMIT 1), l.n + 1 "
							 "FROM l WHERE l.lane IS NOT NULL AND l.n < " CppAsString2(MAX_LANES) ") "
							 "SELECT lane FROM l WHERE lane IS NOT NULL AND lane <> 'noop'",
							 0, NULL, NULL, NULL);

	if (n == 0)
		return 0;
	*lanes = palloc0(sizeof(Lane) * n);
	for (uint64 i = 0; i < n; i++)
		(*lanes)[i].key = weir_spi_text(i, 1);
	return (int) n;
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

static void
keep_candidates(Lane *lane, uint64 from, uint64 n)
{
	lane->candidates = palloc(sizeof(Candidate) * Max(n, 1));
	lane->n = (int) n;
	for (uint64 i = 0; i < n; i++)
	{
		lane->candidates[i].task_run_id = weir_spi_int64(from + i, 2, NULL);
		lane->candidates[i].run_id = weir_spi_int64(from + i, 3, NULL);
		lane->candidates[i].priority = (int) weir_spi_int64(from + i, 4, NULL);
	}
}

/* The first few of all lanes that have room; these are often all there are. */
static void
glance(Lane *lanes, int n)
{
	static const Oid types[2] = {TEXTARRAYOID, INT4ARRAYOID};
	Datum	   *keys = palloc(sizeof(Datum) * n);
	Datum	   *limits = palloc(sizeof(Datum) * n);
	Datum		values[2];
	uint64		found;

	for (int i = 0; i < n; i++)
	{
		int			wanted = lanes[i].wanted == 0 && waits_for_slots(&lanes[i]) ? 1 : lanes[i].wanted;

		keys[i] = CStringGetTextDatum(lanes[i].key);
		limits[i] = Int32GetDatum(wanted == 0 ? 0 : Min(wanted, LANE_GLANCE) + 1);
	}
	values[0] = weir_array(TEXTOID, keys, n);
	values[1] = weir_array(INT4OID, limits, n);
	found = weir_spi("SELECT l.n, t.task_run_id, t.run_id, t.priority FROM unnest($1, $2) WITH ORDINALITY l (lane, wanted, n) "
					 "CROSS JOIN LATERAL (SELECT t.task_run_id, t.run_id, t.priority FROM weir.task_run t "
					 "WHERE " READY " AND t.lane = l.lane AND " OF_LIVE_RUN " "
					 "ORDER BY t.priority DESC, t.run_id, t.ready_at LIMIT l.wanted) t",
					 2, types, values, NULL);
	for (uint64 i = 0; i < found;)
	{
		uint64		first = i;
		int64		no = weir_spi_int64(i, 1, NULL);

		while (i < found && weir_spi_int64(i, 1, NULL) == no)
			i++;
		keep_candidates(&lanes[no - 1], first, i - first);
	}
}

/*
 * Candidates in their order when not all can start: of the highest priority,
 * one of each run, beginning after the run that was served last, then the
 * second of each.
 */
static void
read_in_turn(Lane *lane)
{
	static const Oid types[4] = {TEXTOID, INT4OID, INT8OID, INT4OID};
	int			wanted = Max(lane->wanted, 1);
	int			seen = lane->n;
	Datum		values[4];
	uint64		n;

	values[0] = CStringGetTextDatum(lane->key);
	values[1] = Int32GetDatum(lane->candidates[0].priority);
	values[2] = Int64GetDatum(lane->turn->last_run_id);
	values[3] = Int32GetDatum(wanted);
	n = weir_spi("WITH RECURSIVE w (run_id, is_second, i) AS (SELECT $3, false, 0 UNION ALL "
				 "SELECT f.run_id, f.is_second, w.i + 1 FROM w CROSS JOIN LATERAL (SELECT u.run_id, u.is_second FROM ("
				 "(SELECT t.run_id, w.is_second FROM weir.task_run t WHERE " READY " AND t.lane = $1 AND t.priority = $2 "
				 "AND t.run_id > w.run_id AND (NOT w.is_second OR t.run_id <= $3) ORDER BY t.run_id LIMIT 1) UNION ALL "
				 "(SELECT t.run_id, true FROM weir.task_run t WHERE " READY " AND t.lane = $1 AND t.priority = $2 "
				 "AND NOT w.is_second AND t.run_id <= $3 ORDER BY t.run_id LIMIT 1)) u LIMIT 1) f WHERE w.i < $4), "
				 "r AS (SELECT w.run_id, w.i, count(*) OVER () AS runs FROM w WHERE w.i > 0) "
				 "SELECT 0::bigint, q.task_run_id, r.run_id, $2 FROM r CROSS JOIN LATERAL (SELECT t.task_run_id, "
				 "row_number() OVER (ORDER BY t.ready_at) AS place FROM weir.task_run t "
				 "WHERE " READY " AND t.lane = $1 AND t.priority = $2 AND t.run_id = r.run_id AND " OF_LIVE_RUN " "
				 "ORDER BY t.ready_at LIMIT ($4 + r.runs - 1) / r.runs) q ORDER BY q.place, r.i LIMIT $4",
				 4, types, values, NULL);
	keep_candidates(lane, 0, n);
	lane->has_more = seen > lane->n || lane->n == wanted;
}

/* Can everything start that was seen? */
static bool
all_fit(const Lane *lanes, int n)
{
	for (int i = 0; i < n; i++)
	{
		const Lane *lane = &lanes[i];
		int64		workers = 0,
					slots = 0,
					starts = 0;

		if (lane->n > Min(lane->wanted, LANE_GLANCE))
			return false;
		for (int j = 0; j < n && lane->n > 0; j++)
		{
			workers += lanes[j].worker ? lanes[j].n : 0;
			slots += lanes[j].pool == lane->pool ? (int64) lanes[j].n * lanes[j].pool_slots : 0;
			starts += lanes[j].connection == lane->connection ? lanes[j].n : 0;
		}
		if ((lane->worker && workers > lane->worker->free) || (lane->pool && slots > lane->pool->free) ||
			(lane->connection && starts > lane->connection->free))
			return false;
	}
	return true;
}

/* The lane that is next: highest priority, then the one that was served longest ago. */
static Lane *
next_lane(Lane *lanes, int n)
{
	Lane	   *best = NULL;

	for (int i = 0; i < n; i++)
	{
		Lane	   *lane = &lanes[i];
		int			more;

		if (lane->stopped || lane->next >= lane->n)
			continue;
		more = best == NULL ? 1 : lane->candidates[lane->next].priority - best->candidates[best->next].priority;
		if (more > 0 || (more == 0 && lane->turn->served < best->turn->served))
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
	lane->turn->served = ++c->starts;
	lane->turn->last_run_id = lane->candidates[lane->next].run_id;
}

/* In order, as long as there is room; the result is the number of ids. */
static int
choose(Conductor *c, Lane *lanes, int n, Datum *ids)
{
	int			chosen = 0;
	Lane	   *lane;

	while (chosen < LANE_BATCH && (lane = next_lane(lanes, n)) != NULL)
	{
		if (room_for(lane) > 0)
		{
			int64		id = lane->candidates[lane->next].task_run_id;

			/*
			 * A SQL worker may have committed an attempt that is to be tried
			 * again at once before we have seen its slot go free: such a task
			 * run waits for that.
			 */
			if (flight_find(c, id) == NULL)
			{
				take(c, lane);
				ids[chosen++] = Int64GetDatum(id);
			}
			lane->next++;
			continue;
		}
		lane->stopped = true;
		if (waits_for_slots(lane))
			lane->pool->free = 0;	/* they are kept for it */
	}
	return chosen;
}

Datum
lanes_choose(Conductor *c, uint64 *n_chosen)
{
	Room		worker = {.name = "SQL workers"};
	List	   *pools = NIL,
			   *connections = NIL;
	Lane	   *lanes = NULL;
	int			n = read_lanes(&lanes);
	Datum	   *ids;
	bool		any_room = false,
				any_worker = false;

	*n_chosen = 0;
	c->limit_due_ms = NEVER;
	if (n == 0)
		return (Datum) 0;
	worker.free = worker.total = sqlpool_free(c);
	for (int i = 0; i < n; i++)
	{
		read_key(c, &lanes[i], &worker, &pools, &connections);
		lanes[i].turn = find_turn(c, lanes[i].key);
		lanes[i].wanted = room_for(&lanes[i]);
		any_room = any_room || lanes[i].wanted > 0;
		any_worker = any_worker || lanes[i].worker != NULL;
	}
	/* All workers serve other databases, whose ends nobody tells us. */
	if (any_worker && worker.free == 0 && !c->in_session && !sqlpool_holds_any(c))
		c->worker_retry_ms = Min(c->worker_retry_ms, now_ms() + WORKERS_TAKEN_MS);
	if (!any_room)
		return (Datum) 0;

	glance(lanes, n);
	if (!all_fit(lanes, n))
		for (int i = 0; i < n; i++)
			if (lanes[i].n > 1)
				read_in_turn(&lanes[i]);
	ids = palloc(sizeof(Datum) * LANE_BATCH);
	*n_chosen = choose(c, lanes, n, ids);
	if (*n_chosen == 0)
		return (Datum) 0;
	for (int i = 0; i < n; i++)
		if ((lanes[i].has_more || lanes[i].next < lanes[i].n) && !lanes[i].stopped && room_for(&lanes[i]) > 0)
			c->wake |= ENGINE_WAKE_TASK;
	return weir_array(INT8OID, ids, (int) *n_chosen);
}
