/*-------------------------------------------------------------------------
 * redisclient.c
 *	  One connection to a Redis server that never blocks the process.
 *
 * Runs in SQL workers and in sessions that test a connection.  netlink.c
 * makes the connection, commands are put together here, hiredis reads the
 * replies.  No locks.  If the process dies, the kernel closes the socket and
 * the server drops what it had not received in full.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "echo.h"
#include "httpmux_int.h"
#include "redisclient.h"
#include "redisframe.h"
#include "urlpolicy.h"

#define DEFAULT_PORT		6379
#define DEFAULT_TLS_PORT	6380
#define READ_BYTES			65536

struct RedisClient
{
	NetLink    *link;
	bool		is_usable;
	int			command_timeout_ms;
	char	   *password;		/* that was sent, to be taken out of errors; or NULL */

	char	   *out;			/* queued */
	size_t		out_len;
	size_t		out_sent;
	size_t		out_size;
	redisReader *reader;
	RedisFrame	frame;			/* what the reader is about to be given */
};

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

/* ---- the address ---- */

char *
redis_policy_url(const char *base_url, const char **why)
{
	bool		is_tls = strncmp(base_url, "rediss://", 9) == 0;
	const char *host = base_url + (is_tls ? 9 : 8);
	const char *end;

	if (!is_tls && strncmp(base_url, "redis://", 8) != 0)
	{
		*why = "it must begin with redis:// or rediss://";
		return NULL;
	}
	if (strpbrk(host, "/?#@") != NULL)
	{
		*why = "it must be scheme, host and perhaps a port; database and sign-in are options and auth";
		return NULL;
	}
	end = host[0] == '[' ? strchr(host, ']') : host;
	if (end != NULL && strchr(end, ':') != NULL)
		return psprintf("%s://%s", is_tls ? "https" : "http", host);
	return psprintf("%s://%s:%d", is_tls ? "https" : "http", host, is_tls ? DEFAULT_TLS_PORT : DEFAULT_PORT);
}

/* ---- connecting ---- */

static void
connect_error(const NetLink *link, RedisError *error)
{
	char	   *message = psprintf("could not connect to Redis: %s", netlink_error(link));

	switch (netlink_step(link))
	{
		case NET_POLICY:
			redis_error_set(error, "redis_refused", true, false, message, netlink_hint(link));
			break;
		case NET_CERTIFICATE:
			redis_error_set(error, "redis_certificate", true, false, message, netlink_hint(link));
			break;
		default:
			redis_error_set(error, netlink_timed_out(link) ? "redis_timeout" : "redis_unreachable", false, true,
							message, netlink_hint(link));
			break;
	}
}

/* The texts a server gives here may repeat the password: only their first word is shown. */
bool
redis_sign_in(RedisClient *client, const RedisOptions *options, RedisError *error)
{
	redisReply *reply;
	size_t		n;

	if (options->username != NULL)
	{
		/* The form with one argument is understood by every version, and means this user. */
		bool		is_default = strcmp(options->username, "default") == 0;

		free(client->password);
		client->password = strdup(options->password);
		if (client->password == NULL)
			out_of_memory();
		redis_begin(client, is_default ? 2 : 3);
		redis_part_text(client, "AUTH");
		if (!is_default)
			redis_part_text(client, options->username);
		redis_part_text(client, options->password);
		reply = redis_next(client, error);
		explicit_bzero(client->out, client->out_size);
		if (reply == NULL)
			return false;
		if (reply->type == REDIS_REPLY_ERROR)
		{
			redis_error_of_reply(error, reply->str, reply->len);
			if (error->code == NULL || strcmp(error->code, "redis_error") == 0 || strcmp(error->code, "redis_unsupported") == 0)
				redis_error_set(error, "redis_sign_in", true, false, NULL,
								"Check user name and secret of the connection, and whether the server wants a password at all.");
			n = strspn(reply->str, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
			error->message = psprintf("Redis refused to sign in: %s", pnstrdup(reply->str, Min(n, 20)));
			freeReplyObject(reply);
			return false;
		}
		freeReplyObject(reply);
	}
	if (options->database == 0)
		redis_queue(client, "PING", NULL);
	else
	{
		redis_begin(client, 2);
		redis_part_text(client, "SELECT");
		redis_part_int64(client, options->database);
	}
	return redis_skip(client, 1, error);
}

RedisClient *
redis_start(NetLink *link, int command_timeout_ms)
{
	RedisClient *client = calloc(1, sizeof(RedisClient));

	if (client != NULL)
		client->reader = redisReaderCreate();
	if (client == NULL || client->reader == NULL)
	{
		free(client);
		netlink_close(link);
		out_of_memory();
	}
	client->link = link;
	client->command_timeout_ms = command_timeout_ms;
	client->is_usable = true;
	return client;
}

RedisClient *
redis_open(const RedisOptions *options, RedisError *error)
{
	RedisClient *client;
	volatile bool opened = false;
	NetLink    *link;
	const char *why;
	char	   *url = redis_policy_url(options->base_url, &why);

	if (url == NULL || !urlpolicy_check_url(url, &why, &error->hint))
	{
		redis_error_set(error, "redis_refused", true, false, psprintf("address of the connection is refused: %s", why), error->hint);
		return NULL;
	}
	link = netlink_connect(url, &(HttpOptions) {
		.ca_certificate = options->ca_certificate, .connect_timeout_ms = options->connect_timeout_ms});
	if (netlink_step(link) != NET_CONNECTED)
	{
		connect_error(link, error);
		netlink_close(link);
		return NULL;
	}
	client = redis_start(link, options->command_timeout_ms);
	PG_TRY();
	{
		opened = redis_sign_in(client, options, error);
	}
	PG_FINALLY();
	{
		if (!opened)
			redis_close(client);
	}
	PG_END_TRY();
	return opened ? client : NULL;
}

void
redis_close(RedisClient *client)
{
	if (client == NULL)
		return;
	netlink_close(client->link);
	redisReaderFree(client->reader);
	if (client->out != NULL)
		explicit_bzero(client->out, client->out_size);
	free(client->out);
	if (client->password != NULL)
		explicit_bzero(client->password, strlen(client->password));
	free(client->password);
	free(client);
}

bool
redis_is_usable(const RedisClient *client)
{
	return client != NULL && client->is_usable;
}

/* ---- queueing ---- */

static void
append(RedisClient *client, const char *data, size_t len)
{
	if (client->out_len + len > client->out_size)
	{
		size_t		size = Max(client->out_size * 2, client->out_len + len + 4096);
		char	   *grown = malloc(size);

		/* Not realloc: what it leaves behind could hold a password. */
		if (grown == NULL)
			out_of_memory();
		if (client->out != NULL)
		{
			memcpy(grown, client->out, client->out_len);
			explicit_bzero(client->out, client->out_size);
		}
		free(client->out);
		client->out = grown;
		client->out_size = size;
	}
	memcpy(client->out + client->out_len, data, len);
	client->out_len += len;
}

void
redis_begin(RedisClient *client, int nparts)
{
	char		text[32];

	append(client, text, snprintf(text, sizeof(text), "*%d\r\n", nparts));
}

void
redis_part(RedisClient *client, const char *data, size_t len)
{
	char		text[32];

	append(client, text, snprintf(text, sizeof(text), "$%zu\r\n", len));
	append(client, data, len);
	append(client, "\r\n", 2);
}

void
redis_part_text(RedisClient *client, const char *text)
{
	redis_part(client, text, strlen(text));
}

void
redis_part_int64(RedisClient *client, int64 value)
{
	char		text[32];

	redis_part(client, text, snprintf(text, sizeof(text), INT64_FORMAT, value));
}

void
redis_queue(RedisClient *client, const char *part,...)
{
	va_list		args;
	int			n = 0;

	va_start(args, part);
	for (const char *p = part; p != NULL; p = va_arg(args, const char *))
		n++;
	va_end(args);
	redis_begin(client, n);
	va_start(args, part);
	for (const char *p = part; p != NULL; p = va_arg(args, const char *))
		redis_part_text(client, p);
	va_end(args);
}

/* ---- sending and reading ---- */

static bool
lost(RedisClient *client, const char *why, RedisError *error)
{
	client->is_usable = false;
	redis_error_set(error, "redis_unreachable", false, true, psprintf("the connection to Redis was lost: %s", why), NULL);
	return false;
}

/* Send what the socket takes. */
static bool
push(RedisClient *client, bool *progressed, RedisError *error)
{
	while (client->out_sent < client->out_len)
	{
		char	   *why;
		ssize_t		n = netlink_send(client->link, client->out + client->out_sent, client->out_len - client->out_sent, &why);

		if (n < 0)
			return lost(client, why, error);
		if (n == 0)
			return true;
		client->out_sent += n;
		*progressed = true;
	}
	client->out_len = client->out_sent = 0;
	return true;
}

/* Read what is there: TLS may hold bytes the socket no longer shows. */
static bool
pull(RedisClient *client, bool *progressed, RedisError *error)
{
	static char buffer[READ_BYTES];
	char	   *why;
	const char *reason = NULL;
	ssize_t		n = netlink_read(client->link, buffer, sizeof(buffer), &why);

	if (n < 0)
		return lost(client, why, error);
	if (n == 0)
		return true;
	if (!redisframe_scan(&client->frame, buffer, n, &reason))
	{
		client->is_usable = false;
		redis_error_set(error, "redis_protocol", true, false, psprintf("an answer of the server %s", reason),
						"Correct the address of the connection; a port that wants TLS needs rediss.");
		return false;
	}
	if (redisReaderFeed(client->reader, buffer, n) != REDIS_OK)
		out_of_memory();
	*progressed = true;
	return true;
}

static int64
clock_ms(void)
{
	return transfer_clock_us() / 1000;
}

/* Errors are shown; whatever a server repeats there, it is not the password.  Of nested replies those of EXEC. */
static void
mask_errors(const RedisClient *client, redisReply *reply)
{
	if (client->password == NULL)
		return;
	if (reply->type == REDIS_REPLY_ERROR)
		(void) echo_mask(reply->str, reply->len, client->password);
	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
		if (reply->element[i]->type == REDIS_REPLY_ERROR)
			(void) echo_mask(reply->element[i]->str, reply->element[i]->len, client->password);
}

redisReply *
redis_next(RedisClient *client, RedisError *error)
{
	int64		deadline_ms = clock_ms() + client->command_timeout_ms;

	while (client->is_usable)
	{
		void	   *reply = NULL;
		bool		progressed = false;
		int64		left_ms;

		if (redisReaderGetReply(client->reader, &reply) != REDIS_OK)
		{
			client->is_usable = false;
			redis_error_set(error, "redis_protocol", true, false, "the server does not speak the protocol of Redis",
							"Correct the address of the connection; a port that wants TLS needs rediss.");
			return NULL;
		}
		if (reply != NULL)
		{
			mask_errors(client, reply);
			return reply;
		}
		if (!push(client, &progressed, error) || !pull(client, &progressed, error))
			return NULL;
		CHECK_FOR_INTERRUPTS();
		if (progressed)
		{
			deadline_ms = clock_ms() + client->command_timeout_ms;
			continue;
		}
		left_ms = deadline_ms - clock_ms();
		if (left_ms <= 0)
		{
			client->is_usable = false;
			redis_error_set(error, "redis_timeout", false, true,
							psprintf("Redis did not answer for %d ms", client->command_timeout_ms), NULL);
			return NULL;
		}
		netlink_wait(client->link, client->out_sent < client->out_len, left_ms);
	}
	if (error->code == NULL)
		redis_error_set(error, "redis_unreachable", false, true, "the connection to Redis was lost", NULL);
	return NULL;
}

redisReply *
redis_next_ok(RedisClient *client, RedisError *error)
{
	redisReply *reply = redis_next(client, error);

	if (reply == NULL || reply->type != REDIS_REPLY_ERROR)
		return reply;
	redis_error_of_reply(error, reply->str, reply->len);
	freeReplyObject(reply);
	return NULL;
}

bool
redis_skip(RedisClient *client, int n, RedisError *error)
{
	for (int i = 0; i < n; i++)
	{
		redisReply *reply = redis_next_ok(client, error);

		if (reply == NULL)
			return false;
		freeReplyObject(reply);
	}
	return true;
}
