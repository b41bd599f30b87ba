/*-------------------------------------------------------------------------
 * redisclient.h
 *	  One connection to a Redis server: commands go out in a pipeline, replies
 *	  come back in order.
 *
 * Waits on the process's latch beside the socket, so interrupts are served
 * while the server says nothing; an interrupt raises an error, and the caller
 * closes the client on the way out.  Everything else comes back as a
 * RedisError.  Everything is malloc'd and belongs to no memory context, but
 * for the texts of errors, which are palloc'd or static.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REDISCLIENT_H
#define WEIR_REDISCLIENT_H

#include <hiredis/hiredis.h>

#include "netlink.h"

typedef struct RedisClient RedisClient;

typedef struct RedisOptions
{
	const char *base_url;		/* redis://host[:port] or rediss://host[:port] */
	const char *ca_certificate; /* PEM; NULL: the system's authorities */
	const char *username;		/* NULL: no sign-in */
	const char *password;		/* a copy is kept and wiped when the client is closed */
	int			database;
	int			connect_timeout_ms; /* name, TCP and TLS together */
	int			command_timeout_ms; /* without a byte going either way */
} RedisOptions;

typedef struct RedisError
{
	const char *code;			/* redis_unreachable, ...; NULL: no error */
	const char *message;
	const char *hint;			/* or NULL */
	bool		is_user_error;
	bool		is_retryable;
	const char *moved_to;		/* redis_cluster: host:port of the node that has the key, as it says; or NULL */
} RedisError;

/*
 * The address as the URL policy knows it: https://host:port for rediss, http
 * for redis, which is thereby confined to weir.allowed_private_networks.
 * NULL and *why (static) if it is none.  Palloc'd.
 */
extern char *redis_policy_url(const char *base_url, const char **why);

/* Connected, signed in, database selected; NULL and *error. */
extern RedisClient *redis_open(const RedisOptions *options, RedisError *error);
extern void redis_close(RedisClient *client);	/* NULL is fine */
/* The same in parts: talk over a link, which then belongs to the client; sign in. */
extern RedisClient *redis_start(NetLink *link, int command_timeout_ms);
extern bool redis_sign_in(RedisClient *client, const RedisOptions *options, RedisError *error);
extern bool redis_is_usable(const RedisClient *client); /* replies can still be told apart */

/* Queue a command of so many parts, then each part.  Out of memory is an ERROR. */
extern void redis_begin(RedisClient *client, int nparts);
extern void redis_part(RedisClient *client, const char *data, size_t len);
extern void redis_part_text(RedisClient *client, const char *text);
extern void redis_part_int64(RedisClient *client, int64 value);
/* The same for a command whose parts are all text, NULL-terminated. */
extern void redis_queue(RedisClient *client, const char *part,...) __attribute__((sentinel));

/*
 * The next reply, sending what is queued meanwhile.  The caller frees it with
 * freeReplyObject().  NULL and *error if the connection is of no more use; a
 * reply that is an error is a reply.
 */
extern redisReply *redis_next(RedisClient *client, RedisError *error);
/* The same, but error replies become *error. */
extern redisReply *redis_next_ok(RedisClient *client, RedisError *error);
/* So many replies that only must not be errors. */
extern bool redis_skip(RedisClient *client, int n, RedisError *error);

/* rediserror.c */
/* What a server holds or said, without the password (or NULL), in printable ASCII; of limited length, palloc'd. */
extern char *redis_shown(const char *text, const char *password);
extern void redis_error_set(RedisError *error, const char *code, bool is_user_error, bool is_retryable,
							const char *message, const char *hint);
extern void redis_error_of_reply(RedisError *error, const char *reply, size_t len);
/*
 * The address of another node, "host:port" as a reply has it, with the scheme
 * of the one that is talked to and, where the node leaves it out, its host.
 * Palloc'd; NULL if it is none.
 */
extern char *redis_node_url(const char *base_url, const char *node);

#endif							/* WEIR_REDISCLIENT_H */
