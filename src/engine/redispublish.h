/*-------------------------------------------------------------------------
 * redispublish.h
 *	  One attempt of a redis_publish task: what is published, and how far it
 *	  has come.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REDISPUBLISH_H
#define WEIR_REDISPUBLISH_H

#include "access.h"
#include "catalog.h"
#include "redisclient.h"
#include "rowspool.h"

typedef enum RedisVerify
{
	REDIS_VERIFY_COUNT,
	REDIS_VERIFY_SAMPLE,
	REDIS_VERIFY_FULL
} RedisVerify;

typedef struct RedisPublish
{
	MemoryContextCallback cleanup;	/* of the context it lives in: whatever happens, nothing is left */

	int64		task_run_id;
	int			attempt_no;

	/* what is asked for */
	const cJSON *spec;			/* rendered, but for the query */
	const char *prefix;
	const char *key;			/* column */
	int64		ttl_ms;
	double		ttl_jitter;
	int64		keep_old_ms;
	RedisVerify verify;
	int64		min_rows;
	int			batch_rows;
	const char *version;		/* the attempt's token */
	RedisOptions options;
	const char *secret;			/* name, or reference to a key vault, of the password; or NULL */
	char	   *password;		/* malloc'd, or NULL */
	bool		in_session;		/* weir.conduct(): a transaction is always open, though an idle one */

	/* keys and clock */
	const char *current_key;	/* PREFIX:current */
	const char *versions_key;	/* PREFIX:versions, hash: version -> state */
	const char *index_key;		/* PREFIX:index:VERSION, list of entities */
	int64		expires_ms;		/* by the server's clock: keys live at least so long */

	/* how far it is */
	RowSpool   *spool;
	RedisClient *client;
	int			key_column;
	const char *previous;		/* version to be replaced, or NULL */
	int64		bytes;			/* keys, names and values written */
	int64		compared;		/* hashes read back and found equal */
	int			removed;		/* versions nobody had finished */
	bool		is_begun;		/* keys of this version may be there */
	bool		is_switched;	/* readers see it */
	RedisError	error;
} RedisPublish;

/*
 * Connect and publish.  False with publish->error; once is_switched, what
 * fails is only that the old version goes.  Interrupts are raised.  Opens
 * short transactions of its own; none may be open.
 */
extern bool redispublish_run(RedisPublish *publish);

/* What the task gives out; left_behind: why the old version is left to expire, or NULL.  The caller's. */
extern cJSON *redispublish_output(const RedisPublish *publish, const char *left_behind);

/* redisverify.c: what was written is read back */
extern bool redisverify_run(RedisPublish *publish);

/* redisversion.c */
/* Look around, remove what dead attempts left, and say that this version is being written. */
extern bool redisversion_begin(RedisPublish *publish);
extern bool redisversion_switch(RedisPublish *publish);
/* Let the keys of a version go in keep_ms; 0: now. */
extern bool redisversion_remove(RedisPublish *publish, const char *version, int64 keep_ms);

/* redispublish.c: the key of an entity, palloc'd */
extern char *redispublish_entity_key(const RedisPublish *publish, const char *version, const SpoolValue *entity, size_t *len);
extern char *redispublish_entity_text(const RedisPublish *publish, const SpoolValue *row);	/* for messages, palloc'd */
extern bool redispublish_fail(RedisPublish *publish, const char *code, bool is_user_error, bool is_retryable,
							  const char *message, const char *hint);

/* redistask.c */
/* How to reach the server of a connection, but for the password; *secret: what holds that, or NULL.  *error: set, palloc'd, when authorities cannot be read. */
extern void redistask_options(const Connection *connection, RedisOptions *options, const char **secret, char **error);
extern RedisPublish *redistask_read(TaskContext *context, char **error);	/* SPI connected as the extension's owner */
/* in_session: in weir.conduct() */
extern void redistask_run(RedisPublish *publish, bool in_session, SqlCancelCause cause, TaskOutcome *outcome);
/* A short transaction; SPI is connected as the extension's owner in between.  scope: a RedisScope. */
typedef struct RedisScope
{
	RedisPublish *publish;
	WeirScope	scope;
} RedisScope;

extern void redistask_begin(void *scope);
extern void redistask_end(void *scope);

#endif							/* WEIR_REDISPUBLISH_H */
