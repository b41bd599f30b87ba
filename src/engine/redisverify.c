/*-------------------------------------------------------------------------
 * redisverify.c
 *	  Reads back what was published before readers see it.
 *
 * Runs in SQL workers.  The rows are read once more from where the query put
 * them and compared with the hashes, value by value: all of them, or about
 * SAMPLE_ROWS spread evenly; of the others it is asked whether they are there.
 * So eviction, a key of another type, a lost write and foreign hands are seen
 * before the switch.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "redispublish.h"

#define SAMPLE_ROWS		1000
#define BATCH_ROWS		500
#define BATCH_BYTES		(1024 * 1024)

static bool
mismatch(RedisPublish *publish, const SpoolValue *row, const char *what)
{
	return redispublish_fail(publish, "redis_verification_failed", false, true,
							 psprintf("key \"%s:%s:%s\" %s", publish->prefix, publish->version,
									  redispublish_entity_text(publish, row), what),
							 "Readers keep the version they have. Look at the server's maxmemory policy, and who else writes there.");
}

static const SpoolValue *
field_value(const RedisPublish *publish, const SpoolValue *row, const redisReply *name)
{
	for (int i = 0; i < rowspool_ncolumns(publish->spool); i++)
	{
		const char *column = rowspool_column(publish->spool, i);

		if (strlen(column) == name->len && memcmp(column, name->str, name->len) == 0)
			return &row[i];
	}
	return NULL;
}

static bool
compare(RedisPublish *publish, const SpoolValue *row, const redisReply *reply)
{
	int			nfields = 0;

	for (int i = 0; i < rowspool_ncolumns(publish->spool); i++)
		nfields += row[i].data != NULL;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return mismatch(publish, row, "is not there any more");
	if (reply->elements != 2 * nfields)
		return mismatch(publish, row, "does not have the fields that were written");
	for (size_t i = 0; i < reply->elements; i += 2)
	{
		const SpoolValue *written = field_value(publish, row, reply->element[i]);
		const redisReply *value = reply->element[i + 1];

		/* nothing, or a number, is not an empty text */
		if (value->type != REDIS_REPLY_STRING || written == NULL || written->data == NULL || written->len != value->len ||
			memcmp(written->data, value->str, value->len) != 0)
			return mismatch(publish, row, "does not hold what was written");
	}
	return true;
}

/* Which of the rows are compared; the others are counted. */
static bool
is_sampled(const RedisPublish *publish, int64 row_no)
{
	if (publish->verify == REDIS_VERIFY_SAMPLE)
		return row_no % Max(rowspool_nrows(publish->spool) / SAMPLE_ROWS, 1) == 0;
	return publish->verify == REDIS_VERIFY_FULL;
}

static void
queue_key(RedisPublish *publish, const SpoolValue *row)
{
	size_t		len;
	char	   *key = redispublish_entity_key(publish, publish->version, &row[publish->key_column], &len);

	redis_part(publish->client, key, len);
}

/* One HGETALL for each row that is compared, one EXISTS for the rest. */
static int
queue_batch(RedisPublish *publish, SpoolValue *const *rows, int n, int64 first)
{
	int			ncounted = 0;

	for (int i = 0; i < n; i++)
	{
		if (is_sampled(publish, first + i))
		{
			redis_begin(publish->client, 2);
			redis_part_text(publish->client, "HGETALL");
			queue_key(publish, rows[i]);
		}
		else
			ncounted++;
	}
	if (ncounted > 0)
	{
		redis_begin(publish->client, 1 + ncounted);
		redis_part_text(publish->client, "EXISTS");
		for (int i = 0; i < n; i++)
			if (!is_sampled(publish, first + i))
				queue_key(publish, rows[i]);
	}
	return ncounted;
}

static bool
verify_batch(RedisPublish *publish, SpoolValue *const *rows, int n, int64 first)
{
	int			ncounted = queue_batch(publish, rows, n, first);
	redisReply *reply;
	bool		ok = true;

	for (int i = 0; i < n && ok; i++)
	{
		if (!is_sampled(publish, first + i))
			continue;
		reply = redis_next_ok(publish->client, &publish->error);
		if (reply == NULL)
			return false;
		ok = compare(publish, rows[i], reply);
		freeReplyObject(reply);
		publish->compared += ok;
	}
	if (!ok || ncounted == 0)
		return ok;
	reply = redis_next_ok(publish->client, &publish->error);
	if (reply == NULL)
		return false;
	if (reply->type != REDIS_REPLY_INTEGER || reply->integer != ncounted)
		ok = redispublish_fail(publish, "redis_verification_failed", false, true,
							   psprintf("of %d keys after \"%s\" only %lld are still there", ncounted, redispublish_entity_text(publish, rows[0]),
										reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0),
							   "Readers keep the version they have. Look at the server's maxmemory policy, and who else writes there.");
	freeReplyObject(reply);
	return ok;
}

/* The index has as many entities as there were rows: nothing was written twice or not at all. */
static bool
verify_index(RedisPublish *publish)
{
	redisReply *reply;
	int64		n;

	redis_queue(publish->client, "LLEN", publish->index_key, NULL);
	reply = redis_next_ok(publish->client, &publish->error);
	if (reply == NULL)
		return false;
	n = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
	freeReplyObject(reply);
	return n == rowspool_nrows(publish->spool) ||
		redispublish_fail(publish, "redis_verification_failed", false, true,
						  psprintf("\"%s\" has " INT64_FORMAT " entities instead of " INT64_FORMAT,
								   publish->index_key, n, rowspool_nrows(publish->spool)),
						  "Readers keep the version they have. Look at the server's maxmemory policy, and who else writes there.");
}

bool
redisverify_run(RedisPublish *publish)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "weir Redis batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	bool		ok = verify_index(publish);
	bool		at_end = false;
	int64		first = 0;

	rowspool_rewind(publish->spool);
	while (ok && !at_end)
	{
		SpoolValue *rows[BATCH_ROWS];
		size_t		total = 0;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		while (n < BATCH_ROWS && total < BATCH_BYTES)
		{
			size_t		bytes;

			rows[n] = rowspool_next(publish->spool, &bytes);
			at_end = rows[n] == NULL;
			if (at_end)
				break;
			total += bytes;
			n++;
		}
		ok = n == 0 || verify_batch(publish, rows, n, first);
		first += n;
		if (ok)
			MemoryContextReset(cxt);
	}
	if (!ok && publish->error.message != NULL)
		publish->error.message = MemoryContextStrdup(old, publish->error.message);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return ok;
}
