/*-------------------------------------------------------------------------
 * rediserror.c
 *	  What an error reply of a Redis server means for an attempt.
 *
 * Pure.  Replies begin with a word that says what is wrong; the rest is for
 * people.  It is shown except after signing in, where redisclient.c knows
 * better than to trust a server not to repeat what it was sent.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "echo.h"
#include "redisclient.h"

#define MAX_REPLY_TEXT 500

typedef struct ReplyClass
{
	const char *word;
	const char *code;
	bool		is_user_error;
	bool		is_retryable;
	const char *hint;
} ReplyClass;

static const ReplyClass classes[] = {
	{"LOADING", "redis_loading", false, true, "The server reads its data set into memory. It answers when that is done."},
	{"BUSY", "redis_busy", false, true, "A script or function keeps the server busy."},
	{"TRYAGAIN", "redis_busy", false, true, NULL},
	{"MASTERDOWN", "redis_unavailable", false, true, "The replica has lost its primary."},
	{"CLUSTERDOWN", "redis_unavailable", false, true, "The cluster does not serve all slots."},
	{"MISCONF", "redis_unavailable", false, true, "The server refuses writes because it could not save its data set. See its log."},
	{"NOREPLICAS", "redis_unavailable", false, true, "The server refuses writes because it has too few replicas."},
	{"OOM", "redis_out_of_memory", false, true, "Raise maxmemory of the server, publish less, or shorten \"ttl\" and \"keep_old\": two versions are there at the time of the switch."},
	{"READONLY", "redis_read_only", false, true, "The server is a replica. Let the connection name the primary."},
	{"MOVED", "redis_cluster", true, false, "The server is a node of a cluster. Put braces around a part of \"prefix\", as in \"{features}\", so that all keys have one slot: then the node that serves it is found."},
	{"ASK", "redis_cluster", false, true, "The slot is being moved to another node of the cluster. The next attempt finds it."},
	{"CROSSSLOT", "redis_cluster", true, false, "Put braces around a part of \"prefix\", as in \"{features}\", so that all keys have one slot."},
	{"NOAUTH", "redis_sign_in", true, false, "The server wants a password. Give the connection auth of type basic."},
	{"WRONGPASS", "redis_sign_in", true, false, "Correct the user name, or the secret."},
	{"NOPERM", "redis_permission", true, false, "The user of the connection needs the commands hset, hget, hgetall, hdel, exists, get, set, pexpire, pexpireat, unlink, rpush, lrange, ltrim, llen, time and multi, exec, watch, unwatch, on keys below \"prefix\"."},
	{"WRONGTYPE", "redis_wrong_type", true, false, "A key below \"prefix\" belongs to something else. Choose another prefix, or delete that key."},
	{"DENIED", "redis_permission", true, false, "The server runs in protected mode, which only serves clients of its own machine."},
	{"ERR max number of clients", "redis_unavailable", false, true, NULL},
	{"ERR DB index is out of range", "redis_database", true, false, "Correct \"database\" of the connection."},
	{"ERR SELECT is not allowed", "redis_database", true, false, "A cluster has database 0 alone."},
	{"ERR unknown command", "redis_unsupported", true, false, "The server must be Redis 4 or later, or speak its protocol in full."},
};

void
redis_error_set(RedisError *error, const char *code, bool is_user_error, bool is_retryable,
				const char *message, const char *hint)
{
	error->code = code;
	error->is_user_error = is_user_error;
	error->is_retryable = is_retryable;
	error->message = message;
	error->hint = hint;
	error->moved_to = NULL;
}

/* "MOVED 3999 127.0.0.1:6381" */
static const char *
moved_to(const char *text)
{
	const char *node = strrchr(text, ' ');

	return strncmp(text, "MOVED ", 6) == 0 && node > text + 5 && node[1] != '\0' ? pstrdup(node + 1) : NULL;
}

char *
redis_node_url(const char *base_url, const char *node)
{
	const char *scheme_end = strstr(base_url, "://");
	const char *colon = strrchr(node, ':');
	const char *host;
	size_t		host_len;
	int			scheme_len = scheme_end ? (int) (scheme_end - base_url) : 0;
	size_t		port_len = colon ? strlen(colon + 1) : 0;

	if (scheme_end == NULL || port_len == 0 || port_len > 5 || strspn(colon + 1, "0123456789") != port_len)
		return NULL;
	host = node;
	host_len = colon - node;
	if (host_len == 0 || (host_len == 1 && node[0] == '?'))
	{
		/* it does not know its own name: the one it was reached by will do */
		host = scheme_end + 3;
		host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	}
	else if (memchr(node, ':', host_len) != NULL && node[0] != '[')
		return psprintf("%.*s://[%.*s]:%s", scheme_len, base_url, (int) host_len, node, colon + 1);
	return psprintf("%.*s://%.*s:%s", scheme_len, base_url, (int) host_len, host, colon + 1);
}

/* Printable ASCII, so that any encoding can store it. */
static char *
printable(const char *text, size_t len)
{
	char	   *copy = pnstrdup(text, Min(len, MAX_REPLY_TEXT));

	for (char *p = copy; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return copy;
}

char *
redis_shown(const char *text, const char *password)
{
	char	   *copy = pstrdup(text);

	if (password != NULL)
		(void) echo_mask(copy, strlen(copy), password);
	return printable(copy, strlen(copy));
}

void
redis_error_of_reply(RedisError *error, const char *reply, size_t len)
{
	char	   *text = printable(reply, len);

	for (int i = 0; i < lengthof(classes); i++)
	{
		size_t		n = strlen(classes[i].word);

		if (strncmp(text, classes[i].word, n) == 0 && (text[n] == ' ' || text[n] == '\0'))
		{
			redis_error_set(error, classes[i].code, classes[i].is_user_error, classes[i].is_retryable,
							psprintf("Redis answered: %s", text), classes[i].hint);
			error->moved_to = moved_to(text);
			return;
		}
	}
	redis_error_set(error, "redis_error", false, true, psprintf("Redis answered: %s", text), NULL);
}
