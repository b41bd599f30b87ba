/*-------------------------------------------------------------------------
 * quota.c
 *	  Requests of a connection wait for their turn when there are more than
 *	  its service takes.
 *
 * For each class of request (reads, writes) there is a bucket of the connection,
 * or of all that share their limits with it (limitgroup.c); if they say
 * different things, the strictest holds.  A bucket has "burst" tokens when
 * full and is filled at "per_second".  It is kept as the moment at which it
 * will be full again, so nothing has to tick.  Whoever finds it empty is given
 * a turn of his own, the next one free, and sleeps until then: a thousand that
 * wait cost one look each, and go in the order they came.
 * When one of them ends before its turn, or the limit changes, those that wait
 * line up anew: else they would wait for what nobody uses, and attempts that
 * run out of time meanwhile would put off the next ones for ever.  What is to
 * be cancelled does not wait, but counts.
 *
 * Everything that goes to the service counts: starts, looks, cancels.  Sign-in
 * does not, being another service.
 *
 * Runs in the conductor and is kept in its memory.  What an earlier one sent
 * nobody knows: starts are in the log, looks are not.  So buckets begin empty at
 * the moment this one began, and full only for a connection that was not there
 * before.  A conductor that dies again and again sends no more than it fills;
 * after a restart without need that costs a burst, which comes back within what
 * filling takes (ten to twenty seconds for the published limits).
 *
 * While many wait a row of weir.throttle says so.  It is not taken away when
 * they are through, "until" says when that is; it goes with its connection.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conductor_int.h"
#include "limitgroup.h"
#include "requestlimits.h"

#define NAME_LEN		256
#define UNIX_EPOCH_MS	(((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * SECS_PER_DAY * 1000)
#define TURN_MS			5000	/* a turn not taken for so long is over */
#define TOLD_FROM_MS	1000	/* shorter waits are not worth a row, nor is this much more of one */

typedef struct Bucket
{
	RequestLimit limit;
	double		full_ms;		/* when it is full again; the past: it is */
	int64		waits_since_ms; /* 0: the latest had no need to wait */
	int64		until_ms;		/* the last turn given */
	int64		told_ms;		/* until, as the row has it; 0 no row */
	bool		has_changed;	/* enough to be written */
	bool		has_gaps;		/* turns are free between those given, or the limit is another */
} Bucket;

typedef struct LimitGroup
{
	char		key[LIMIT_GROUP_LEN];
	Bucket		of[REQUEST_CLASSES];
} LimitGroup;

typedef struct Quota
{
	char		connection[NAME_LEN];	/* hash key */
	int64		changed_at;		/* of the connection the limits were read from */
	RequestLimits limits;
	LimitGroup *group;			/* never removed */
} Quota;

/* What is missing in the bucket stays missing, as far as the new one has room for it. */
static void
set_limit(Conductor *c, Bucket *bucket, const RequestLimit *limit, int64 now)
{
	RequestLimit before = bucket->limit;

	if (before.per_second == limit->per_second && before.burst == limit->burst)
		return;
	bucket->limit = *limit;
	if (before.per_second > 0 && bucket->full_ms > now && limit->per_second > 0)
		bucket->full_ms = now + (bucket->full_ms - now) * before.per_second / limit->per_second;
	bucket->has_gaps = c->quota_gaps = true;
}

static HTAB *
make_table(Conductor *c, const char *name, Size key, Size entry)
{
	HASHCTL		ctl = {0};

	ctl.keysize = key;
	ctl.entrysize = entry;
	ctl.hcxt = c->cxt;
	return hash_create(name, 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* What holds for a group: of each class the strictest that any of its connections says */
static void
set_limits(Conductor *c, LimitGroup *group)
{
	RequestLimits strictest = {0};
	HASH_SEQ_STATUS seq;
	Quota	   *quota;

	hash_seq_init(&seq, c->quotas);
	while ((quota = hash_seq_search(&seq)) != NULL)
		for (int class = 0; class < REQUEST_CLASSES; class++)
		{
			RequestLimit *limit = &strictest.of[class];
			const RequestLimit *one = &quota->limits.of[class];

			if (quota->group != group || one->per_second <= 0)
				continue;
			limit->burst = limit->per_second > 0 ? Min(limit->burst, one->burst) : one->burst;
			limit->per_second = limit->per_second > 0 ? Min(limit->per_second, one->per_second) : one->per_second;
		}
	for (int class = 0; class < REQUEST_CLASSES; class++)
		set_limit(c, &group->of[class], &strictest.of[class], now_ms());
}

/* The group of a connection; with its first one it begins, empty as of the start of this conductor. */
static void
join(Conductor *c, Quota *quota, const Connection *connection)
{
	LimitGroup *before = quota->group;
	char		key[LIMIT_GROUP_LEN];
	bool		found;
	bool		is_new = connection->created_at / 1000 + UNIX_EPOCH_MS >= c->quotas_since_ms;

	limit_group_key(connection, key);
	quota->group = hash_search(c->limit_groups, key, HASH_ENTER, &found);
	if (!found)
		memset((char *) quota->group + LIMIT_GROUP_LEN, 0, sizeof(LimitGroup) - LIMIT_GROUP_LEN);
	if (before != NULL && before != quota->group)
		set_limits(c, before);
	set_limits(c, quota->group);
	for (int class = 0; class < REQUEST_CLASSES; class++)
	{
		Bucket	   *bucket = &quota->group->of[class];

		if (!found && !is_new && bucket->limit.per_second > 0)
			bucket->full_ms = c->quotas_since_ms + 1000 / bucket->limit.per_second * bucket->limit.burst;
		/* others wait already, so this one will */
		bucket->has_changed = bucket->has_changed || bucket->told_ms > now_ms();
	}
}

static Quota *
find(Conductor *c, const Connection *connection)
{
	char		name[NAME_LEN];
	bool		found;
	Quota	   *quota;
	const char *path;
	const char *why;

	if (c->quotas == NULL)
	{
		c->quotas = make_table(c, "weir request limits", NAME_LEN, sizeof(Quota));
		c->limit_groups = make_table(c, "weir limit groups", LIMIT_GROUP_LEN, sizeof(LimitGroup));
	}
	strlcpy(name, connection->name, sizeof(name));
	quota = hash_search(c->quotas, name, HASH_ENTER, &found);
	if (!found)
		memset((char *) quota + NAME_LEN, 0, sizeof(Quota) - NAME_LEN);
	/* The newest definition counts, also for attempts that began with an older one. */
	if (!found || quota->changed_at < connection->changed_at)
	{
		(void) request_limits_read(connection->kind, cJSON_GetObjectItemCaseSensitive(connection->options, "request_limits"),
								   &quota->limits, &path, &why);
		quota->changed_at = connection->changed_at;
		join(c, quota, connection);
	}
	return quota;
}

/* The next turn of a bucket: now, or later. */
static int64
next_turn(Bucket *bucket, int64 now)
{
	double		interval = 1000 / bucket->limit.per_second;
	double		turn;

	bucket->full_ms = Max(bucket->full_ms, (double) now) + interval;
	turn = bucket->full_ms - interval * bucket->limit.burst;
	return turn <= now ? now : (int64) ceil(turn);
}

static void
note_wait(Conductor *c, Bucket *bucket, int64 turn, int64 now)
{
	if (bucket->until_ms < now)
		bucket->waits_since_ms = now;
	bucket->until_ms = turn;
	if (turn < now + TOLD_FROM_MS || (bucket->told_ms >= now && turn < bucket->told_ms + TOLD_FROM_MS))
		return;
	bucket->told_ms = turn;
	bucket->has_changed = true;
	c->wake |= ENGINE_WAKE_TASK;	/* a transaction, to write it down */
}

bool
quota_allows(Conductor *c, Flight *flight, const Connection *through, const KindRequest *request)
{
	int64		now = now_ms();
	Bucket	   *bucket;
	bool		is_urgent = flight->ending != SQL_CANCEL_NONE;

	if (through == NULL || request->without_auth)
		return true;			/* it goes somewhere else */
	bucket = &find(c, through)->group->of[request_class(request->method)];
	/* a cancel of what waited to be looked at */
	if (flight->turn_ms != 0 && flight->turn_of != bucket)
		quota_give_back(c, flight);
	/* what kept it may have kept many others, and they are not to come all at once */
	if (flight->turn_ms < now - TURN_MS)
	{
		if (bucket->limit.per_second <= 0)
			return true;
		flight->turn_ms = next_turn(bucket, now);
		flight->turn_of = bucket;
		if (flight->turn_ms > now && !is_urgent)
			note_wait(c, bucket, flight->turn_ms, now);
	}
	if (flight->turn_ms <= now || is_urgent)
		return true;
	flight->due_ms = flight->turn_ms;
	return false;
}

void
quota_give_back(Conductor *c, Flight *flight)
{
	if (flight->turn_ms > now_ms())
	{
		if (flight->turn_of->limit.per_second > 0)
			flight->turn_of->full_ms -= 1000 / flight->turn_of->limit.per_second;
		flight->turn_of->has_gaps = c->quota_gaps = true;
	}
	flight->turn_ms = 0;
}

static int
by_turn(const ListCell *a, const ListCell *b)
{
	const Flight *one = lfirst(a);
	const Flight *other = lfirst(b);

	return one->turn_ms < other->turn_ms ? -1 : one->turn_ms > other->turn_ms;
}

/* New turns for all that wait, in the order of those they had. */
static void
line_up(Conductor *c, Bucket *bucket, int64 now)
{
	double		interval = bucket->limit.per_second > 0 ? 1000 / bucket->limit.per_second : 0;
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	List	   *waiting = NIL;
	ListCell   *cell;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->turn_ms > now && flight->turn_of == bucket)
			waiting = lappend(waiting, flight);
	list_sort(waiting, by_turn);
	bucket->full_ms -= interval * list_length(waiting);
	bucket->until_ms = now;
	foreach(cell, waiting)
	{
		int64		turn = interval > 0 ? next_turn(bucket, now) : now;

		flight = lfirst(cell);
		if (flight->due_ms == flight->turn_ms)
			flight->due_ms = turn;
		flight->turn_ms = bucket->until_ms = turn;
	}
	list_free(waiting);
	bucket->has_gaps = false;
	if (bucket->told_ms <= bucket->until_ms + TOLD_FROM_MS)
		return;
	bucket->told_ms = bucket->until_ms;
	bucket->has_changed = true;
	c->wake |= ENGINE_WAKE_TASK;
}

void
quotas_line_up(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	LimitGroup *group;
	int64		now = now_ms();

	if (!c->quota_gaps)
		return;
	c->quota_gaps = false;
	hash_seq_init(&seq, c->limit_groups);
	while ((group = hash_seq_search(&seq)) != NULL)
		for (int class = 0; class < REQUEST_CLASSES; class++)
			if (group->of[class].has_gaps)
				line_up(c, &group->of[class], now);
}

/* The wall clock was set: what was a span remains one. */
void
quotas_clock_set(Conductor *c, int64 by)
{
	HASH_SEQ_STATUS seq;
	LimitGroup *group;
	Flight	   *flight;

	c->quotas_since_ms += by;
	if (c->quotas == NULL)
		return;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (flight->turn_ms != 0)
			flight->turn_ms += by;
	hash_seq_init(&seq, c->limit_groups);
	while ((group = hash_seq_search(&seq)) != NULL)
		for (int class = 0; class < REQUEST_CLASSES; class++)
		{
			Bucket	   *bucket = &group->of[class];

			bucket->full_ms += by;
			bucket->until_ms += by;
			bucket->waits_since_ms += by;
			bucket->has_changed = bucket->has_changed || bucket->told_ms != 0;
			bucket->told_ms = bucket->told_ms ? bucket->told_ms + by : 0;
		}
}

/*
 * The row of a connection.  It goes when that is dropped: whoever drops it
 * holds its row, and is not waited for; false: he does just now.
 */
static bool
write_row(const Quota *quota, RequestClass class)
{
	static const Oid types[] = {TEXTOID, TEXTOID, FLOAT8OID, INT8OID, INT8OID};
	const Bucket *bucket = &quota->group->of[class];
	Datum		values[5];

	values[0] = CStringGetTextDatum(quota->connection);
	values[1] = CStringGetTextDatum(request_class_name(class));
	values[2] = Float8GetDatum(bucket->limit.per_second);
	values[3] = Int64GetDatum(bucket->waits_since_ms);
	values[4] = Int64GetDatum(bucket->until_ms);
	return weir_spi("INSERT INTO weir.throttle (connection_name, requests, per_second, since, until) "
					"SELECT c.name, $2, $3, to_timestamp($4 / 1000.0), to_timestamp($5 / 1000.0) "
					"FROM weir.connection c WHERE c.name = $1 FOR KEY SHARE SKIP LOCKED "
					"ON CONFLICT (connection_name, requests) DO UPDATE SET per_second = excluded.per_second, "
					"since = excluded.since, until = excluded.until",
					5, types, values, NULL) > 0;
}

/* Inside a transaction. */
void
quotas_write(Conductor *c)
{
	HASH_SEQ_STATUS seq;
	LimitGroup *group;
	Quota	   *quota;
	int64		now = now_ms();
	bool		again = false;

	if (c->quotas == NULL)
		return;
	hash_seq_init(&seq, c->quotas);
	while ((quota = hash_seq_search(&seq)) != NULL)
		for (int class = 0; class < REQUEST_CLASSES; class++)
			if (quota->group->of[class].has_changed && !write_row(quota, class))
				again = true;
	hash_seq_init(&seq, c->limit_groups);
	while ((group = hash_seq_search(&seq)) != NULL)
		for (int class = 0; class < REQUEST_CLASSES; class++)
			group->of[class].has_changed = again && group->of[class].has_changed && group->of[class].until_ms > now;
}

/* A dropped connection has no say any more in what holds for others. */
void
quotas_forget(Conductor *c)
{
	static const Oid types[] = {TEXTOID};
	HASH_SEQ_STATUS seq;
	Quota	   *quota;

	if (c->quotas == NULL)
		return;
	hash_seq_init(&seq, c->quotas);
	while ((quota = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[1] = {CStringGetTextDatum(quota->connection)};
		LimitGroup *group = quota->group;

		if (weir_spi("SELECT FROM weir.connection WHERE name = $1", 1, types, values, NULL) > 0)
			continue;
		(void) hash_search(c->quotas, quota->connection, HASH_REMOVE, NULL);
		set_limits(c, group);
	}
}

/* A conductor begins with nobody waiting. */
void
quotas_start(Conductor *c)
{
	c->quotas_since_ms = now_ms();
	weir_spi("DELETE FROM weir.throttle", 0, NULL, NULL, NULL);
}
