/*-------------------------------------------------------------------------
 * redisversion.c
 *	  Versions of what is published: begun, switched to, removed.
 *
 * Runs in SQL workers.  An attempt that begins removes what dead ones left.
 * Dead is a version under PREFIX:versions that readers do not read and whose
 * attempt, by its token, is one of this database and no longer live; only the
 * database knows that, so it is asked, in a transaction of its own.  Versions
 * of other databases expire by themselves.
 *
 * If this process dies here, what was not removed is found by the next
 * attempt: a version leaves PREFIX:versions last.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "redispublish.h"

#define REMOVE_KEYS		1000	/* at a time */
#define SWITCH_TRIES	10
#define END_OF_TIME_S	INT64CONST(253402300800)	/* the year 10000 */

static char *
index_key(const RedisPublish *publish, const char *version)
{
	return psprintf("%s:index:%s", publish->prefix, version);
}

/* Task run and attempt of a token of this database: ours up to its last two numbers. */
static bool
read_token(const RedisPublish *publish, const char *token, int64 *task_run_id, int64 *attempt_no)
{
	const char *end = strrchr(publish->version, '-');
	size_t		n;
	char	   *rest;

	while (end > publish->version && end[-1] != '-')
		end--;
	n = end - publish->version;
	if (strncmp(token, publish->version, n) != 0)
		return false;
	*task_run_id = strtoll(token + n, &rest, 10);
	if (*rest != '-')
		return false;
	*attempt_no = strtoll(rest + 1, &rest, 10);
	return *rest == '\0' && *task_run_id > 0 && *attempt_no > 0 && *attempt_no <= PG_INT32_MAX;
}

static bool
is_live(const RedisPublish *publish, const char *version)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2];
	int64		task_run_id,
				attempt_no;

	if (!read_token(publish, version, &task_run_id, &attempt_no))
		return true;			/* somebody else's */
	values[0] = Int64GetDatum(task_run_id);
	values[1] = Int32GetDatum((int32) attempt_no);
	return weir_spi("SELECT FROM weir.attempt WHERE task_run_id = $1 AND attempt_no = $2 AND status IN ('intended', 'started')",
					2, types, values, NULL) > 0;
}

/* Those of the versions whose attempts have ended. */
static List *
dead_versions(const RedisPublish *publish, const redisReply *versions)
{
	MemoryContext caller = CurrentMemoryContext;
	RedisScope	scope = {.publish = unconstify(RedisPublish *, publish)};
	List	   *dead = NIL;

	redistask_begin(&scope);
	for (size_t i = 0; i + 1 < versions->elements; i += 2)
	{
		const char *version = versions->element[i]->str;
		MemoryContext old;

		if (versions->element[i]->type != REDIS_REPLY_STRING ||
			(publish->previous != NULL && strcmp(version, publish->previous) == 0) ||
			(strcmp(version, publish->version) != 0 && is_live(publish, version)))
			continue;
		old = MemoryContextSwitchTo(caller);
		dead = lappend(dead, pstrdup(version));
		MemoryContextSwitchTo(old);
	}
	redistask_end(&scope);
	MemoryContextSwitchTo(caller);
	return dead;
}

static void
queue_state(RedisPublish *publish, const char *state)
{
	redis_queue(publish->client, "HSET", publish->versions_key, publish->version, state, NULL);
	redis_begin(publish->client, 3);
	redis_part_text(publish->client, "PEXPIREAT");
	redis_part_text(publish->client, publish->versions_key);
	/* Past the last key of this version; the next one moves it on. */
	redis_part_int64(publish->client, publish->expires_ms + (int64) (publish->ttl_ms * publish->ttl_jitter) + 60000);
}

/* The server's clock decides when keys expire, so it is the one to count from. */
static bool
read_time(RedisPublish *publish)
{
	redisReply *reply = redis_next_ok(publish->client, &publish->error);
	long long	seconds = 0;
	bool		ok;

	if (reply == NULL)
		return false;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->type == REDIS_REPLY_STRING)
		seconds = strtoll(reply->element[0]->str, NULL, 10);
	ok = seconds > 0 && seconds < END_OF_TIME_S;
	if (ok)
		publish->expires_ms = seconds * 1000 + publish->ttl_ms;
	freeReplyObject(reply);
	return ok || redispublish_fail(publish, "redis_protocol", false, true, "TIME did not answer with a time", NULL);
}

static bool
read_current(RedisPublish *publish)
{
	redisReply *reply = redis_next_ok(publish->client, &publish->error);

	if (reply == NULL)
		return false;
	publish->previous = reply->type == REDIS_REPLY_STRING ? pnstrdup(reply->str, reply->len) : NULL;
	freeReplyObject(reply);
	return true;
}

bool
redisversion_begin(RedisPublish *publish)
{
	redisReply *versions;
	List	   *volatile dead = NIL;
	ListCell   *lc;

	redis_queue(publish->client, "TIME", NULL);
	redis_queue(publish->client, "GET", publish->current_key, NULL);
	redis_queue(publish->client, "HGETALL", publish->versions_key, NULL);
	if (!read_time(publish) || !read_current(publish))
		return false;
	versions = redis_next_ok(publish->client, &publish->error);
	if (versions == NULL)
		return false;
	if (publish->previous != NULL && strcmp(publish->previous, publish->version) == 0)
	{
		/* A database that was set back, or a copy of one: never write into what is read. */
		freeReplyObject(versions);
		return redispublish_fail(publish, "redis_superseded", false, true,
								 psprintf("version \"%s\" is published already", publish->version),
								 "Was this database restored, or is it a copy? The next attempt publishes under another name.");
	}
	PG_TRY();
	{
		dead = dead_versions(publish, versions);
	}
	PG_FINALLY();
	{
		freeReplyObject(versions);
	}
	PG_END_TRY();
	foreach(lc, dead)
	{
		if (!redisversion_remove(publish, lfirst(lc), 0))
			return false;
		publish->removed++;
	}
	publish->is_begun = true;
	queue_state(publish, "writing");
	return redis_skip(publish->client, 2, &publish->error);
}

static bool
superseded(RedisPublish *publish)
{
	return redispublish_fail(publish, "redis_superseded", false, true,
							 psprintf("somebody else published under the prefix \"%s\" meanwhile", publish->prefix),
							 "Let one task publish under a prefix, and one run at a time.");
}

/* Still the version that was there at the start, and is ours still to be had? */
static bool
check_current(RedisPublish *publish)
{
	const char *before = publish->previous;
	const char *now;
	redisReply *reply;
	bool		is_known;

	if (!redis_skip(publish->client, 1, &publish->error) || !read_current(publish))
		return false;
	now = publish->previous;
	publish->previous = before;
	reply = redis_next_ok(publish->client, &publish->error);
	if (reply == NULL)
		return false;
	is_known = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
	freeReplyObject(reply);
	if (!is_known || (before == NULL) != (now == NULL) || (now != NULL && strcmp(before, now) != 0))
		return superseded(publish);
	return true;
}

/* What EXEC said; *is_refused: a watched key was touched. */
static bool
read_switch(RedisPublish *publish, bool *is_refused)
{
	redisReply *reply;

	if (!redis_skip(publish->client, 5, &publish->error))	/* OK, and QUEUED four times */
		return false;
	reply = redis_next_ok(publish->client, &publish->error);
	if (reply == NULL)
		return false;
	*is_refused = reply->type != REDIS_REPLY_ARRAY;
	for (size_t i = 0; !*is_refused && i < reply->elements; i++)
		if (reply->element[i]->type == REDIS_REPLY_ERROR && publish->error.code == NULL)
			redis_error_of_reply(&publish->error, reply->element[i]->str, reply->element[i]->len);
	freeReplyObject(reply);
	return publish->error.code == NULL;
}

/*
 * One transaction of Redis, refused if somebody touched the pointer or the
 * list of versions since we looked; then we look again.  The pointer expires
 * before any key of its version can: readers never follow it to keys that are
 * gone.
 */
bool
redisversion_switch(RedisPublish *publish)
{
	for (int tries = 0; tries < SWITCH_TRIES; tries++)
	{
		bool		is_refused = false;

		redis_queue(publish->client, "WATCH", publish->current_key, publish->versions_key, NULL);
		redis_queue(publish->client, "GET", publish->current_key, NULL);
		redis_queue(publish->client, "HEXISTS", publish->versions_key, publish->version, NULL);
		if (!check_current(publish))
			return false;
		redis_queue(publish->client, "MULTI", NULL);
		redis_queue(publish->client, "SET", publish->current_key, publish->version, NULL);
		redis_begin(publish->client, 3);
		redis_part_text(publish->client, "PEXPIREAT");
		redis_part_text(publish->client, publish->current_key);
		redis_part_int64(publish->client, publish->expires_ms);
		queue_state(publish, "published");
		redis_queue(publish->client, "EXEC", NULL);
		if (!read_switch(publish, &is_refused))
			return false;
		if (!is_refused)
		{
			publish->is_switched = true;
			return true;
		}
	}
	return superseded(publish);
}

/* Queue the end of these entities; the number of commands. */
static int
queue_removal(RedisPublish *publish, const char *version, const redisReply *entities, int64 keep_ms)
{
	if (keep_ms == 0)
	{
		redis_begin(publish->client, 1 + entities->elements);
		redis_part_text(publish->client, "UNLINK");
	}
	for (size_t i = 0; i < entities->elements; i++)
	{
		SpoolValue	entity = {entities->element[i]->str, entities->element[i]->len};
		size_t		len;
		char	   *key = redispublish_entity_key(publish, version, &entity, &len);

		if (keep_ms > 0)
		{
			redis_begin(publish->client, 3);
			redis_part_text(publish->client, "PEXPIRE");
		}
		redis_part(publish->client, key, len);
		if (keep_ms > 0)
			redis_part_int64(publish->client, keep_ms + (int64) (keep_ms * publish->ttl_jitter * pg_prng_double(&pg_global_prng_state)));
		pfree(key);
	}
	return keep_ms > 0 ? entities->elements : 1;
}

/* The next entities of the index; 0 at its end, -1 with an error. */
static int
remove_some(RedisPublish *publish, const char *version, const char *index, int64 offset, int64 keep_ms)
{
	redisReply *entities;
	int			n;
	int			ncommands;

	redis_begin(publish->client, 4);
	redis_part_text(publish->client, "LRANGE");
	redis_part_text(publish->client, index);
	redis_part_int64(publish->client, offset);
	redis_part_int64(publish->client, offset + REMOVE_KEYS - 1);
	entities = redis_next_ok(publish->client, &publish->error);
	if (entities == NULL)
		return -1;
	n = entities->type == REDIS_REPLY_ARRAY ? entities->elements : 0;
	for (int i = 0; i < n; i++)
	{
		if (entities->element[i]->type == REDIS_REPLY_STRING)
			continue;
		freeReplyObject(entities);
		(void) redispublish_fail(publish, "redis_protocol", false, true, "LRANGE did not answer with texts", NULL);
		return -1;
	}
	ncommands = n > 0 ? queue_removal(publish, version, entities, keep_ms) : 0;
	freeReplyObject(entities);
	return redis_skip(publish->client, ncommands, &publish->error) ? n : -1;
}

bool
redisversion_remove(RedisPublish *publish, const char *version, int64 keep_ms)
{
	char	   *index = index_key(publish, version);
	int64		offset = 0;
	int			n;

	while ((n = remove_some(publish, version, index, offset, keep_ms)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		offset += n;
	}
	if (n < 0)
		return false;
	redis_queue(publish->client, "UNLINK", index, NULL);
	redis_queue(publish->client, "HDEL", publish->versions_key, version, NULL);
	return redis_skip(publish->client, 2, &publish->error);
}
