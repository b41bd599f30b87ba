/*-------------------------------------------------------------------------
 * foresee.c
 *	  How long tasks take and what they have to share: what is known of it
 *	  beforehand.
 *
 * Runs in sessions that ask what is expected, or for a plan; only reads and
 * locks nothing, so what it says is of the moment it looked.  Durations are
 * medians of successful runs before.  Of other runs it sees the tasks that run
 * and those that are ready, not those that will be.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "access.h"
#include "foresee.h"
#include "shmem.h"

#define MAX_TASK_NAME	256
#define MAX_HISTORIES	50		/* pipelines looked up in one answer */
#define MAX_OTHERS		500		/* task runs of others, running and ready each */
#define MAX_ITEMS		"100"	/* of a run and a list: what more of them took says little more */

/* Typical seconds of the tasks of a pipeline, by name. */
typedef struct History
{
	int64		pipeline_id;
	HTAB	   *tasks;
} History;

typedef struct Typical
{
	char		name[MAX_TASK_NAME];	/* key */
	double		seconds;
} Typical;

typedef enum RoomKind
{
	ROOM_POOL,
	ROOM_CONNECTION,
	ROOM_WORKERS,
	ROOM_RUN
} RoomKind;

typedef struct Room
{
	RoomKind	kind;
	const char *name;
	bool		exists;			/* of a pool */
	int64		total;			/* -1: no limit */
	int64		taken;
	int64		per_minute;		/* of a connection: starts, -1 no limit */
	int64		started;		/* within the last minute */
	int			index;			/* for pace(); -1 without limit */
} Room;

struct Foresight
{
	MemoryContext context;
	List	   *histories;
	List	   *rooms;
	int			nrooms;			/* with a limit */
};

Foresight *
foresight_begin(void)
{
	Foresight  *foresight = palloc0(sizeof(Foresight));

	foresight->context = CurrentMemoryContext;
	return foresight;
}

/* ---- durations ---- */

/* At most the last twenty successes among the last thousand runs: old ones say little, and a long log must cost nothing. */
static void
read_history(History *history)
{
	static const Oid types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(history->pipeline_id)};
	uint64		n;

	/*
	 * A task that is only there for failures takes no time in runs without
	 * any.  Items are all alike: those of runs that go on tell as much, and
	 * have one name here, "task[]".
	 */
	n = weir_spi("WITH past AS MATERIALIZED (SELECT l.run_id FROM (SELECT r.run_id, r.status, r.is_external FROM weir.run r "
				 "WHERE r.pipeline_id = $1 ORDER BY r.run_id DESC LIMIT 1000) l WHERE l.status = 'succeeded' AND NOT l.is_external "
				 "ORDER BY l.run_id DESC LIMIT 20), "
				 "lists AS MATERIALIZED (SELECT l.run_id, d.task_no, d.name FROM (SELECT p.run_id FROM past p UNION ALL "
				 "(SELECT g.run_id FROM weir.run g WHERE g.pipeline_id = $1 AND g.live = 'a' ORDER BY g.run_id DESC LIMIT 20)) l "
				 "CROSS JOIN LATERAL (SELECT o.version FROM weir.run o WHERE o.run_id = l.run_id OFFSET 0) v "
				 "JOIN weir.task d ON d.pipeline_id = $1 AND d.version = v.version AND d.parent_no IS NOT NULL) "
				 "SELECT t.task_name, CASE WHEN bool_or(t.status = 'succeeded') THEN percentile_cont(0.5) WITHIN GROUP "
				 "(ORDER BY extract(epoch FROM t.ended_at - t.started_at)::double precision) FILTER (WHERE t.status = 'succeeded') "
				 "WHEN bool_or(t.skip_reason = 'condition') THEN 0 END::text "
				 "FROM past JOIN weir.task_run t USING (run_id) WHERE t.item_no = 0 GROUP BY t.task_name "
				 "UNION ALL SELECT lists.name, percentile_cont(0.5) WITHIN GROUP (ORDER BY i.seconds)::text "
				 "FROM lists CROSS JOIN LATERAL (SELECT extract(epoch FROM t.ended_at - t.started_at)::double precision AS seconds FROM weir.task_run t "
				 "WHERE t.run_id = lists.run_id AND t.task_no = lists.task_no AND t.item_no > 0 AND t.status || '' = 'succeeded' "
				 "ORDER BY t.item_no LIMIT " MAX_ITEMS ") i GROUP BY lists.name",
				 1, types, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *seconds = weir_spi_text(i, 2);
		char		name[MAX_TASK_NAME];
		Typical    *typical;

		if (seconds == NULL)
			continue;
		strlcpy(name, weir_spi_text(i, 1), sizeof(name));
		typical = hash_search(history->tasks, name, HASH_ENTER, NULL);
		typical->seconds = strtod(seconds, NULL);
	}
}

static History *
history_of(Foresight *foresight, int64 pipeline_id)
{
	HASHCTL		ctl = {0};
	MemoryContext old;
	History    *history;
	ListCell   *lc;

	foreach(lc, foresight->histories)
		if (((History *) lfirst(lc))->pipeline_id == pipeline_id)
			return lfirst(lc);
	if (list_length(foresight->histories) >= MAX_HISTORIES)
		return NULL;
	old = MemoryContextSwitchTo(foresight->context);
	history = palloc(sizeof(History));
	history->pipeline_id = pipeline_id;
	ctl.keysize = MAX_TASK_NAME;
	ctl.entrysize = sizeof(Typical);
	ctl.hcxt = foresight->context;
	history->tasks = hash_create("weir typical durations", 128, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	foresight->histories = lappend(foresight->histories, history);
	MemoryContextSwitchTo(old);
	read_history(history);
	return history;
}

/* All items of a task by one name: "copy[17]" is "copy[]". */
static void
history_name(const char *task, char *name)
{
	int			len;

	strlcpy(name, task, MAX_TASK_NAME - 2);
	len = strlen(name);
	if (len == 0 || name[len - 1] != ']')
		return;
	for (len--; len > 0 && isdigit((unsigned char) name[len - 1]); len--)
		;
	if (len > 0 && name[len - 1] == '[')
		strcpy(name + len, "]");
}

double
foresight_item_seconds(Foresight *foresight, int64 pipeline_id, const char *task)
{
	return foresight_seconds(foresight, pipeline_id, psprintf("%s[]", task));
}

double
foresight_seconds(Foresight *foresight, int64 pipeline_id, const char *task)
{
	History    *history = history_of(foresight, pipeline_id);
	char		name[MAX_TASK_NAME];
	Typical    *typical;

	if (history == NULL)
		return PACE_UNKNOWN;
	history_name(task, name);
	typical = hash_search(history->tasks, name, HASH_FIND, NULL);
	return typical == NULL ? PACE_UNKNOWN : typical->seconds;
}

/* ---- rooms ---- */

static void
read_pool(Room *room)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(room->name)};
	bool		is_missing;

	weir_spi("SELECT (SELECT p.slots::bigint FROM weir.pool p WHERE p.name = $1), "
			 "(SELECT coalesce(sum(t.pool_slots), 0)::bigint FROM weir._active_task_run t WHERE t.status = 'running' AND t.pool = $1)",
			 1, types, values, NULL);
	room->total = weir_spi_int64(0, 1, &is_missing);
	room->exists = !is_missing;
	if (is_missing)
		room->total = 0;
	room->taken = weir_spi_int64(0, 2, NULL);
}

static void
read_connection(Room *room)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(room->name)};
	bool		no_total,
				no_rate;

	room->total = room->per_minute = -1;
	if (weir_spi("SELECT (c.options->>'max_concurrency')::numeric::bigint, (c.options->>'max_starts_per_minute')::numeric::bigint, "
				 "(SELECT count(*) FROM weir._active_task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) "
				 "WHERE t.status = 'running' AND t.connection_name = c.name AND a.status IN ('intended', 'started')), "
				 "(SELECT count(*) FROM weir.attempt a WHERE a.rated_connection = c.name AND a.intended_at > clock_timestamp() - interval '1 minute') "
				 "FROM weir.connection c WHERE c.name = $1 AND c.options ?| '{max_concurrency,max_starts_per_minute}'",
				 1, types, values, NULL) == 0)
		return;
	room->total = weir_spi_int64(0, 1, &no_total);
	if (no_total)
		room->total = -1;
	room->per_minute = weir_spi_int64(0, 2, &no_rate);
	if (no_rate)
		room->per_minute = -1;
	room->taken = weir_spi_int64(0, 3, NULL);
	room->started = weir_spi_int64(0, 4, NULL);
}

static void
read_workers(Room *room)
{
	room->total = weir_max_sql_workers;
	if (weir_shmem != NULL)
	{
		LWLockAcquire(weir_shmem_lock, LW_SHARED);
		room->total = sql_worker_limit();
		LWLockRelease(weir_shmem_lock);
	}
	weir_spi("SELECT count(*) FROM weir._active_task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) "
			 "WHERE a.status IN ('intended', 'started') AND t.status = 'running' AND t.lane LIKE 'sql%'",
			 0, NULL, NULL, NULL);
	room->taken = weir_spi_int64(0, 1, NULL);
}

static Room *
find_room(Foresight *foresight, RoomKind kind, const char *name)
{
	ListCell   *lc;

	foreach(lc, foresight->rooms)
	{
		Room	   *room = lfirst(lc);

		if (room->kind == kind && strcmp(room->name, name) == 0)
			return room;
	}
	return NULL;
}

/* total: of a run; that of the others is read. */
static Room *
room_of(Foresight *foresight, RoomKind kind, const char *name, int64 total)
{
	Room	   *room = find_room(foresight, kind, name);
	MemoryContext old;

	if (room != NULL)
		return room;
	old = MemoryContextSwitchTo(foresight->context);
	room = palloc0(sizeof(Room));
	room->kind = kind;
	room->name = pstrdup(name);
	room->per_minute = -1;
	foresight->rooms = lappend(foresight->rooms, room);
	MemoryContextSwitchTo(old);
	if (kind == ROOM_POOL)
		read_pool(room);
	else if (kind == ROOM_CONNECTION)
		read_connection(room);
	else if (kind == ROOM_WORKERS)
		read_workers(room);
	else
		room->total = total;
	room->index = room->total < 0 ? -1 : foresight->nrooms++;
	return room;
}

static void
set_room(PaceTask *task, RoomKind kind, const Room *room, int slots)
{
	task->room[kind] = room == NULL ? -1 : room->index;
	task->slots[kind] = task->room[kind] < 0 ? 0 : slots;
}

/* What the tasks of a run share among themselves; NULL: nothing. */
static Room *
room_of_run(Foresight *foresight, int64 run_id, int limit)
{
	return limit == 0 ? NULL : room_of(foresight, ROOM_RUN, psprintf(INT64_FORMAT, run_id), limit);
}

void
foresight_room(Foresight *foresight, int64 run_id, const TaskNeeds *needs, PaceTask *task)
{
	bool		takes = task->seconds != 0;

	set_room(task, ROOM_POOL, takes && needs->pool ? room_of(foresight, ROOM_POOL, needs->pool, 0) : NULL, needs->pool_slots);
	set_room(task, ROOM_CONNECTION, takes && needs->connection ? room_of(foresight, ROOM_CONNECTION, needs->connection, 0) : NULL, 1);
	set_room(task, ROOM_WORKERS, takes && needs->needs_worker ? room_of(foresight, ROOM_WORKERS, "", 0) : NULL, 1);
	set_room(task, ROOM_RUN, takes ? room_of_run(foresight, run_id, needs->run_limit) : NULL, 1);
}

char *
foresight_limits(Foresight *foresight, const TaskNeeds *needs)
{
	StringInfoData words;
	const Room *room;

	initStringInfo(&words);
	if (needs->pool != NULL)
	{
		room = room_of(foresight, ROOM_POOL, needs->pool, 0);
		if (!room->exists)
			appendStringInfo(&words, "; pool \"%s\" does not exist", room->name);
		else
			appendStringInfo(&words, "; %d of " INT64_FORMAT " slots of pool \"%s\", " INT64_FORMAT " taken now", needs->pool_slots,
							 room->total, room->name, room->taken);
	}
	if (needs->connection != NULL)
	{
		room = room_of(foresight, ROOM_CONNECTION, needs->connection, 0);
		if (room->total >= 0)
			appendStringInfo(&words, "; max_concurrency " INT64_FORMAT " of connection \"%s\", " INT64_FORMAT " going on now",
							 room->total, room->name, room->taken);
		if (room->per_minute >= 0)
			appendStringInfo(&words, "; max_starts_per_minute " INT64_FORMAT " of connection \"%s\", " INT64_FORMAT " within the last minute",
							 room->per_minute, room->name, room->started);
	}
	if (needs->needs_worker)
	{
		room = room_of(foresight, ROOM_WORKERS, "", 0);
		if (room->total < weir_max_sql_workers)
			appendStringInfo(&words, "; weir.reserved_worker_processes %d leaves " INT64_FORMAT " SQL workers, " INT64_FORMAT " at work now",
							 weir_reserved_worker_processes, room->total, room->taken);
		else
			appendStringInfo(&words, "; weir.max_sql_workers " INT64_FORMAT ", " INT64_FORMAT " at work now", room->total, room->taken);
	}
	return words.len == 0 ? NULL : words.data + 2;
}

/* ---- the others ---- */

/* Names of rooms with a limit, as text[] */
static Datum
room_names(Foresight *foresight, RoomKind kind)
{
	Datum	   *names = palloc(sizeof(Datum) * Max(list_length(foresight->rooms), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, foresight->rooms)
	{
		Room	   *room = lfirst(lc);

		if (room->kind == kind && room->index >= 0)
			names[n++] = CStringGetTextDatum(room->name);
	}
	return weir_array(TEXTOID, names, n);
}

#define OTHERS(from) \
	"(SELECT r.pipeline_id, t.task_name, t.status, extract(epoch FROM clock_timestamp() - t.started_at)::text, t.priority, " \
	"t.pool, t.pool_slots, t.connection_name, t.lane LIKE 'sql%', t.run_id, t.run_limit " \
	"FROM " from " AND (t.run_id <> $1 OR t.item_no > 0) " \
	"AND (t.pool = ANY ($2) OR t.connection_name = ANY ($3) OR ($4 AND t.lane LIKE 'sql%') OR t.run_limit IS NOT NULL) "

/* Tasks of other runs, and items, that take some of the same rooms or are ready to; and what takes a place of a run that has few. */
static int
read_others(Foresight *foresight, int64 run_id, PaceTask **others)
{
	static const Oid types[] = {INT8OID, TEXTARRAYOID, TEXTARRAYOID, BOOLOID};
	Room	   *workers = find_room(foresight, ROOM_WORKERS, "");
	Datum		values[] = {Int64GetDatum(run_id), room_names(foresight, ROOM_POOL), room_names(foresight, ROOM_CONNECTION),
	BoolGetDatum(workers != NULL)};
	SPITupleTable *table;
	int			n;

	n = (int) weir_spi(OTHERS("weir._active_task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) JOIN weir.run r ON r.run_id = t.run_id "
							  "WHERE a.status IN ('intended', 'started') AND t.status = 'running'")
					   "LIMIT " CppAsString2(MAX_OTHERS) ") UNION ALL "
					   OTHERS("weir._active_task_run t JOIN weir.run r ON r.run_id = t.run_id "
							  "WHERE t.status = 'ready' AND t.not_before IS NULL AND r.status = 'running'")
					   "ORDER BY t.priority DESC, t.ready_at LIMIT " CppAsString2(MAX_OTHERS) ")",
					   4, types, values, NULL);
	table = SPI_tuptable;
	*others = palloc0(sizeof(PaceTask) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		PaceTask   *other = &(*others)[i];
		char	   *ran;
		char	   *pool;
		char	   *connection;
		char	   *name;
		int64		pipeline_id;
		bool		needs_worker;

		SPI_tuptable = table;
		pipeline_id = weir_spi_int64(i, 1, NULL);
		name = weir_spi_text(i, 2);
		other->state = strcmp(weir_spi_text(i, 3), "running") == 0 ? PACE_RUNNING : PACE_WAITING;
		ran = weir_spi_text(i, 4);
		other->priority = (int) weir_spi_int64(i, 5, NULL);
		pool = weir_spi_text(i, 6);
		set_room(other, ROOM_POOL, pool ? find_room(foresight, ROOM_POOL, pool) : NULL, (int) weir_spi_int64(i, 7, NULL));
		connection = weir_spi_text(i, 8);
		set_room(other, ROOM_CONNECTION, connection ? find_room(foresight, ROOM_CONNECTION, connection) : NULL, 1);
		needs_worker = weir_spi_bool(i, 9, NULL);
		set_room(other, ROOM_WORKERS, needs_worker ? workers : NULL, 1);
		set_room(other, ROOM_RUN, room_of_run(foresight, weir_spi_int64(i, 10, NULL), (int) weir_spi_int64(i, 11, NULL)), 1);
		other->seconds = foresight_seconds(foresight, pipeline_id, name);
		if (other->state == PACE_RUNNING && other->seconds >= 0)
			other->seconds = ran == NULL ? PACE_UNKNOWN : Max(other->seconds - strtod(ran, NULL), 0);
	}
	return n;
}

static int
compare_edges(const void *a, const void *b)
{
	return ((const PaceEdge *) a)->from - ((const PaceEdge *) b)->from;
}

void
foresight_pace(Foresight *foresight, int64 run_id, PaceTask *tasks, int ntasks, PaceEdge *edges, int nedges)
{
	PaceTask   *others = NULL;
	PaceTask   *all;
	int			n_others = foresight->nrooms > 0 ? read_others(foresight, run_id, &others) : 0;
	PaceRoom   *rooms = palloc0(sizeof(PaceRoom) * Max(foresight->nrooms, 1));
	ListCell   *lc;

	foreach(lc, foresight->rooms)
	{
		Room	   *room = lfirst(lc);

		if (room->index >= 0)
			rooms[room->index].total = (int) room->total;
	}
	/* First in line are those that are ready already. */
	all = palloc(sizeof(PaceTask) * Max(n_others + ntasks, 1));
	if (n_others > 0)
		memcpy(all, others, sizeof(PaceTask) * n_others);
	memcpy(all + n_others, tasks, sizeof(PaceTask) * ntasks);
	for (int i = 0; i < nedges; i++)
	{
		edges[i].from += n_others;
		edges[i].to += n_others;
	}
	qsort(edges, nedges, sizeof(PaceEdge), compare_edges);
	pace(all, n_others + ntasks, edges, nedges, rooms, foresight->nrooms);
	memcpy(tasks, all + n_others, sizeof(PaceTask) * ntasks);
}
