/*-------------------------------------------------------------------------
 * redispublish.c
 *	  Rows become hashes in Redis, as a version of their own that readers see
 *	  from one moment to the next.
 *
 * Runs in SQL workers, without a transaction.  A version is the attempt's
 * token, so no attempt ever writes into what another wrote:
 *
 *	PREFIX:VERSION:ENTITY	hash of one row, the column of the key included
 *	PREFIX:index:VERSION	list of the entities, for whoever removes them
 *	PREFIX:versions			hash: version -> "writing" or "published", and since when
 *	PREFIX:current			the version readers read
 *
 * A batch of rows, its part of the index and the times when all of it expires
 * are one MULTI/EXEC: nothing is ever there without an end, wherever this
 * process or the server dies.  When everything is written and read back, one
 * transaction on condition that nobody else switched meanwhile (WATCH) moves
 * PREFIX:current.  Readers see the old version or the new one, and both are
 * whole; the old one goes after "keep_old".
 *
 * What a dead attempt left is removed by the next one, see redisversion.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/memutils.h"

#include "json.h"
#include "mem.h"
#include "redispublish.h"

#define BATCH_BYTES (1024 * 1024)	/* of rows; then the batch is sent, however few they are */
#define MAX_HOPS	3			/* from node to node of a cluster */
#define MAX_SHOWN	200			/* bytes of an entity in a message */

bool
redispublish_fail(RedisPublish *publish, const char *code, bool is_user_error, bool is_retryable,
				  const char *message, const char *hint)
{
	redis_error_set(&publish->error, code, is_user_error, is_retryable, message, hint);
	return false;
}

char *
redispublish_entity_key(const RedisPublish *publish, const char *version, const SpoolValue *entity, size_t *len)
{
	char	   *key;

	*len = strlen(publish->prefix) + strlen(version) + entity->len + 2;
	key = palloc(*len + 1);
	snprintf(key, *len + 1, "%s:%s:", publish->prefix, version);
	memcpy(key + *len - entity->len, entity->data, entity->len);
	key[*len] = '\0';
	return key;
}

/* Values that are null are not written. */
static int
count_fields(const RedisPublish *publish, const SpoolValue *row)
{
	int			n = 0;

	for (int i = 0; i < rowspool_ncolumns(publish->spool); i++)
		n += row[i].data != NULL;
	return n;
}

/* A moment up to "ttl_jitter" of the time later, so that keys do not all go at once. */
static int64
jittered(const RedisPublish *publish)
{
	return publish->expires_ms + (int64) (publish->ttl_ms * publish->ttl_jitter * pg_prng_double(&pg_global_prng_state));
}

static void
queue_row(RedisPublish *publish, const SpoolValue *row, int nfields)
{
	RedisClient *client = publish->client;
	size_t		len;
	char	   *key = redispublish_entity_key(publish, publish->version, &row[publish->key_column], &len);

	redis_begin(client, 2 + 2 * nfields);
	redis_part_text(client, "HSET");
	redis_part(client, key, len);
	publish->bytes += len;
	for (int i = 0; i < rowspool_ncolumns(publish->spool); i++)
	{
		const char *name = rowspool_column(publish->spool, i);

		if (row[i].data == NULL)
			continue;
		redis_part_text(client, name);
		redis_part(client, row[i].data, row[i].len);
		publish->bytes += strlen(name) + row[i].len;
	}
	redis_begin(client, 3);
	redis_part_text(client, "PEXPIREAT");
	redis_part(client, key, len);
	redis_part_int64(client, jittered(publish));
}

char *
redispublish_entity_text(const RedisPublish *publish, const SpoolValue *row)
{
	const SpoolValue *entity = &row[publish->key_column];
	char	   *text = pnstrdup(entity->data, entity->len);

	text[mem_clip_length(text, MAX_SHOWN)] = '\0';
	return text;
}

/* Answers to a batch: OK, QUEUED for each command, then what EXEC did. */
static bool
read_batch(RedisPublish *publish, SpoolValue *const *rows, const int *nfields, int n)
{
	redisReply *reply;
	int			ncommands = 2 * n + 2;
	RedisError	first = {0};
	bool		ok = true;

	for (int i = 0; i <= ncommands; i++)
	{
		reply = redis_next(publish->client, &publish->error);
		if (reply == NULL)
			return false;
		/* The first says why; EXEC then only says that there was something. */
		if (reply->type == REDIS_REPLY_ERROR && first.code == NULL)
			redis_error_of_reply(&first, reply->str, reply->len);
		freeReplyObject(reply);
	}
	reply = redis_next(publish->client, &publish->error);
	if (reply == NULL)
		return false;
	if (first.code == NULL && reply->type == REDIS_REPLY_ERROR)
		redis_error_of_reply(&first, reply->str, reply->len);
	else if (first.code == NULL && (reply->type != REDIS_REPLY_ARRAY || reply->elements != ncommands))
		redis_error_set(&first, "redis_protocol", false, true, "EXEC did not answer with the results of its commands", NULL);
	for (int i = 0; first.code == NULL && i < ncommands; i++)
	{
		const redisReply *result = reply->element[i];

		if (result->type == REDIS_REPLY_ERROR)
			redis_error_of_reply(&first, result->str, result->len);
		else if (i < 2 * n && i % 2 == 0 && result->integer != nfields[i / 2])
			ok = redispublish_fail(publish, "redis_duplicate_entity", true, false,
								   psprintf("more than one row of the query has the key \"%s\"", redispublish_entity_text(publish, rows[i / 2])),
								   "Each entity is one hash. Group or filter the rows so that \"key\" is unique.");
		if (!ok)
			break;
	}
	freeReplyObject(reply);
	if (first.code != NULL)
		publish->error = first;
	return ok && first.code == NULL;
}

static bool
write_batch(RedisPublish *publish, SpoolValue **rows, int n)
{
	RedisClient *client = publish->client;
	int		   *nfields = palloc(sizeof(int) * n);

	redis_queue(client, "MULTI", NULL);
	for (int i = 0; i < n; i++)
	{
		if (rows[i][publish->key_column].data == NULL || rows[i][publish->key_column].len == 0)
			return redispublish_fail(publish, "redis_no_key", true, false,
									 psprintf("a row of the query has no value in \"%s\"", publish->key),
									 "Every row needs the name of its entity there.");
		nfields[i] = count_fields(publish, rows[i]);
		queue_row(publish, rows[i], nfields[i]);
	}
	redis_begin(client, 2 + n);
	redis_part_text(client, "RPUSH");
	redis_part_text(client, publish->index_key);
	for (int i = 0; i < n; i++)
		redis_part(client, rows[i][publish->key_column].data, rows[i][publish->key_column].len);
	redis_begin(client, 3);
	redis_part_text(client, "PEXPIREAT");
	redis_part_text(client, publish->index_key);
	redis_part_int64(client, publish->expires_ms + (int64) (publish->ttl_ms * publish->ttl_jitter));
	redis_queue(client, "EXEC", NULL);
	return read_batch(publish, rows, nfields, n);
}

/* Everything the query returned, in batches of bounded memory. */
static bool
write_rows(RedisPublish *publish)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "weir Redis batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	bool		ok = true;
	bool		at_end = false;

	rowspool_rewind(publish->spool);
	while (ok && !at_end)
	{
		SpoolValue **rows = palloc(sizeof(SpoolValue *) * publish->batch_rows);
		size_t		total = 0;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		while (n < publish->batch_rows && total < BATCH_BYTES)
		{
			size_t		bytes;

			rows[n] = rowspool_next(publish->spool, &bytes);
			at_end = rows[n] == NULL;
			if (at_end)
				break;
			total += bytes;
			n++;
		}
		ok = n == 0 || write_batch(publish, rows, n);
		/* What is wrong is said in the caller's memory. */
		if (!ok && publish->error.message != NULL)
			publish->error.message = MemoryContextStrdup(old, publish->error.message);
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return ok;
}

static bool
find_key_column(RedisPublish *publish)
{
	publish->key_column = -1;
	for (int i = 0; i < rowspool_ncolumns(publish->spool); i++)
	{
		for (int j = 0; j < i; j++)
			if (strcmp(rowspool_column(publish->spool, i), rowspool_column(publish->spool, j)) == 0)
				return redispublish_fail(publish, "redis_columns", true, false,
										 psprintf("two columns of the query have the name \"%s\"", rowspool_column(publish->spool, i)),
										 "Columns become fields of a hash. Name them apart with AS.");
		if (strcmp(rowspool_column(publish->spool, i), publish->key) == 0)
			publish->key_column = i;
	}
	if (publish->key_column < 0)
		return redispublish_fail(publish, "redis_no_key", true, false,
								 psprintf("the query has no column \"%s\"", publish->key),
								 "\"key\" names the column whose value names the entity.");
	if (rowspool_nrows(publish->spool) < publish->min_rows)
		return redispublish_fail(publish, "redis_too_few_rows", true, false,
								 psprintf("the query returned " INT64_FORMAT " rows, fewer than \"min_rows\" (" INT64_FORMAT ")",
										  rowspool_nrows(publish->spool), publish->min_rows),
								 "The version readers have stays. Lower \"min_rows\" if so few are right.");
	return true;
}

/* Have all keys one slot of a cluster?  The first braces with something in them say so. */
static bool
has_hash_tag(const char *prefix)
{
	const char *open = strchr(prefix, '{');
	const char *close = open ? strchr(open, '}') : NULL;

	return close != NULL && close > open + 1;
}

/* To the node of a cluster that has our keys; false: there is nowhere to go. */
static bool
follow_cluster(RedisPublish *publish, int hops)
{
	const char *node = publish->error.moved_to;
	char	   *url;

	if (node == NULL || publish->is_begun || hops == MAX_HOPS || !has_hash_tag(publish->prefix))
		return false;
	url = redis_node_url(publish->options.base_url, node);
	if (url == NULL)
		return false;
	redis_close(publish->client);
	publish->client = NULL;
	publish->options.base_url = url;
	memset(&publish->error, 0, sizeof(publish->error));
	publish->client = redis_open(&publish->options, &publish->error);
	if (publish->client == NULL)
		publish->error.message = psprintf("the cluster has the keys on its node %s: %s", node, publish->error.message);
	return publish->client != NULL;
}

static bool
begin_version(RedisPublish *publish)
{
	int			hops = 0;

	while (!redisversion_begin(publish))
		if (!follow_cluster(publish, hops++))
			return false;
	return true;
}

static bool
publish_version(RedisPublish *publish)
{
	return begin_version(publish) && write_rows(publish) && redisverify_run(publish) && redisversion_switch(publish);
}

/* Slots move while we write: the next attempt goes where they are then. */
static void
explain_move(RedisPublish *publish)
{
	if (publish->error.moved_to == NULL || !has_hash_tag(publish->prefix))
		return;
	publish->error.is_user_error = false;
	publish->error.is_retryable = true;
	publish->error.hint = publish->is_begun ? "The slot was moved to another node of the cluster meanwhile. The next attempt goes there." :
		"The nodes of the cluster do not agree which of them has the slot. The next attempt asks again.";
}

bool
redispublish_run(RedisPublish *publish)
{
	RedisError	why;

	if (!find_key_column(publish))
		return false;
	publish->client = redis_open(&publish->options, &publish->error);
	if (publish->client == NULL)
		return false;
	if (publish_version(publish))
		return publish->previous == NULL || redisversion_remove(publish, publish->previous, publish->keep_old_ms);

	/*
	 * Not left to expire if that can be helped; the reason stays the first
	 * one.  Through another connection: there may be half a pipeline in this
	 * one.
	 */
	explain_move(publish);
	why = publish->error;
	if (publish->is_begun && redis_is_usable(publish->client))
	{
		redis_close(publish->client);
		publish->client = NULL;
		publish->client = redis_open(&publish->options, &publish->error);
		if (publish->client != NULL)
			(void) redisversion_remove(publish, publish->version, 0);
	}
	publish->error = why;
	return false;
}

cJSON *
redispublish_output(const RedisPublish *publish, const char *left_behind)
{
	cJSON	   *output = cJSON_CreateObject();
	pg_time_t	expires = publish->expires_ms / 1000;
	char		text[40];

	cJSON_AddStringToObject(output, "version", publish->version);
	if (publish->previous != NULL)
		cJSON_AddStringToObject(output, "previousVersion", redis_shown(publish->previous, publish->options.password));
	cJSON_AddItemToObject(output, "rowsWritten", json_from_int64(rowspool_nrows(publish->spool)));
	cJSON_AddItemToObject(output, "bytesWritten", json_from_int64(publish->bytes));
	cJSON_AddItemToObject(output, "rowsCompared", json_from_int64(publish->compared));
	cJSON_AddItemToObject(output, "removedVersions", json_from_int64(publish->removed));
	/* in UTC, whatever time zone the owner has set */
	pg_strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", pg_gmtime(&expires));
	cJSON_AddStringToObject(output, "expiresAt", text);
	if (left_behind != NULL)
		cJSON_AddStringToObject(output, "oldVersionExpires", left_behind);
	return output;
}
