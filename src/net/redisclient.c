/*-------------------------------------------------------------------------
 * redisclient.c
 *	  One connection to a Redis server that never blocks the process.
 *
 * Runs in SQL workers and in sessions that test a connection.  libcurl makes
 * the connection (CURLOPT_CONNECT_ONLY): names are resolved beside the
 * process, the address about to be used is checked by the URL policy as for
 * every other engine, and TLS is verified by the same rules.  What goes over
 * it is ours; hiredis reads the replies.
 *
 * Signals are blocked around calls that may start the resolver's thread, see
 * httpmux.c.  No locks.  If the process dies, the kernel closes the socket
 * and the server drops what it had not received in full.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"

#include "compat.h"
#include "httpmux_int.h"
#include "redisclient.h"
#include "urlparse.h"
#include "urlpolicy.h"

#define DEFAULT_PORT		6379
#define DEFAULT_TLS_PORT	6380
#define READ_BYTES			65536
#define MAX_REPLY_BYTES		(64 * 1024 * 1024)	/* of one reply; longer ones are not ours */

struct RedisClient
{
	CURLM	   *multi;
	CURL	   *easy;
	int			epoll_fd;		/* -1 once connected */
	int64		due_us;			/* when libcurl wants to be called while it connects */
	bool		has_fd;			/* accounted for with fd.c */
	bool		is_plain;
	bool		is_usable;
	char		refused_address[64];	/* not empty: the policy refused it */
	char		curl_error[CURL_ERROR_SIZE];
	curl_socket_t sock;
	int			command_timeout_ms;

	char	   *out;			/* queued */
	size_t		out_len;
	size_t		out_sent;
	size_t		out_size;
	redisReader *reader;
	size_t		unparsed;		/* bytes read since the last complete reply */
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

static int
note_timer(CURLM *multi, long timeout_ms, void *userp)
{
	RedisClient *client = userp;

	client->due_us = timeout_ms < 0 ? NEVER : transfer_clock_us() + (int64) timeout_ms * 1000;
	return 0;
}

/* A socket that could not be watched is noticed by the timeout of connecting. */
static int
note_socket(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp)
{
	RedisClient *client = userp;
	struct epoll_event event = {0};

	if (client->epoll_fd < 0)
		return 0;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		event.events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EEXIST)
		(void) epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	return 0;
}

/* The one place every connection goes through, with the address that is really used. */
static curl_socket_t
open_socket(void *userp, curlsocktype purpose, struct curl_sockaddr *address)
{
	RedisClient *client = userp;
	const struct sockaddr *addr = &address->addr;
	int			fd;

	if (purpose != CURLSOCKTYPE_IPCXN || !urlpolicy_check_address(addr, client->is_plain))
	{
		const void *raw = addr->sa_family == AF_INET6 ?
			(const void *) &((const struct sockaddr_in6 *) addr)->sin6_addr :
			(const void *) &((const struct sockaddr_in *) addr)->sin_addr;

		if (inet_ntop(addr->sa_family, raw, client->refused_address, sizeof(client->refused_address)) == NULL)
			strlcpy(client->refused_address, "?", sizeof(client->refused_address));
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static bool
set_up_easy(RedisClient *client, const RedisOptions *options, const char *url)
{
	CURL	   *easy = client->easy;

	if (!request_set_policy(easy, NULL))
		return false;
	SET(CURLOPT_URL, url);
	SET(CURLOPT_CONNECT_ONLY, 1L);
	SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, client);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) options->connect_timeout_ms);
	SET(CURLOPT_ERRORBUFFER, client->curl_error);
	if (options->ca_certificate != NULL)
	{
		struct curl_blob blob = {
			.data = unconstify(char *, options->ca_certificate),
			.len = strlen(options->ca_certificate),
			.flags = CURL_BLOB_COPY
		};

		/* these authorities instead of the system's, not besides */
		SET(CURLOPT_CAINFO, NULL);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_CAINFO_BLOB, &blob);
	}
	return true;
}

static bool
set_up(RedisClient *client, const RedisOptions *options, const char *url)
{
	client->has_fd = AcquireExternalFD();
	client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	client->multi = curl_multi_init();
	client->easy = curl_easy_init();
	client->reader = redisReaderCreate();
	return client->has_fd && client->epoll_fd >= 0 &&
		client->multi != NULL && client->easy != NULL && client->reader != NULL &&
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, note_socket) == CURLM_OK &&
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) == CURLM_OK &&
		curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, note_timer) == CURLM_OK &&
		curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) == CURLM_OK &&
		set_up_easy(client, options, url) &&
		curl_multi_add_handle(client->multi, client->easy) == CURLM_OK;
}

/* One round of libcurl's; true if the connection is made, or will not be: see *code. */
static bool
drive_connect(RedisClient *client, CURLcode *code)
{
	struct epoll_event events[8];
	sigset_t	saved;
	CURLMsg    *message;
	bool		done = false;
	int			still_running;
	int			left;
	int			n;

	mux_block_signals(&saved);
	n = epoll_wait(client->epoll_fd, events, lengthof(events), 0);
	for (int i = 0; i < n; i++)
	{
		int			bits = (events[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
			(events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			(events[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);

		(void) curl_multi_socket_action(client->multi, events[i].data.fd, bits, &still_running);
	}
	if (client->due_us <= transfer_clock_us())
	{
		client->due_us = NEVER; /* before the call, which may set it */
		(void) curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &still_running);
	}
	while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		if (message->msg != CURLMSG_DONE)
			continue;
		*code = message->data.result;
		done = true;
	}
	mux_restore_signals(&saved);
	return done;
}

static void
connect_error(const RedisClient *client, CURLcode code, RedisError *error)
{
	char	   *text = pstrdup(client->curl_error[0] != '\0' ? client->curl_error : curl_easy_strerror(code));

	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	if (client->refused_address[0] != '\0')
		redis_error_set(error, "redis_refused", true, false,
						psprintf("address %s may not be used%s", client->refused_address, client->is_plain ? " without TLS" : ""),
						"Ask an administrator to add its network to weir.allowed_private_networks, or use rediss.");
	else if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
		redis_error_set(error, "redis_certificate", true, false, psprintf("could not verify the Redis server: %s", text),
						"Give \"ca_certificate\" of the connection the authority that signed its certificate, and use the host name the certificate is for.");
	else if (code == CURLE_OPERATION_TIMEDOUT)
		redis_error_set(error, "redis_timeout", false, true, psprintf("could not connect to Redis: %s", text), NULL);
	else
		redis_error_set(error, "redis_unreachable", false, true, psprintf("could not connect to Redis: %s", text), NULL);
}

static bool
connect_to(RedisClient *client, RedisError *error)
{
	CURLcode	code = CURLE_OK;

	while (!drive_connect(client, &code))
	{
		int64		left_us = client->due_us == NEVER ? NEVER : Max(client->due_us - transfer_clock_us(), 0);
		long		timeout_ms = left_us == NEVER ? 1000 : (long) Min(left_us / 1000 + 1, 60000);

		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 client->epoll_fd, timeout_ms, wait_event_compat("WeirRedisConnect"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (code == CURLE_OK &&
		(curl_easy_getinfo(client->easy, CURLINFO_ACTIVESOCKET, &client->sock) != CURLE_OK || client->sock == CURL_SOCKET_BAD))
		code = CURLE_COULDNT_CONNECT;
	close(client->epoll_fd);
	client->epoll_fd = -1;
	if (code != CURLE_OK)
	{
		connect_error(client, code, error);
		return false;
	}
	client->is_usable = true;
	return true;
}

/* The texts a server gives here may repeat the password: only their first word is shown. */
static bool
sign_in(RedisClient *client, const RedisOptions *options, RedisError *error)
{
	redisReply *reply;
	size_t		n;

	if (options->username != NULL)
	{
		/* The form with one argument is understood by every version, and means this user. */
		bool		is_default = strcmp(options->username, "default") == 0;

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
redis_open(const RedisOptions *options, RedisError *error)
{
	RedisClient *volatile client;
	volatile bool opened = false;
	const char *why;
	char	   *url = redis_policy_url(options->base_url, &why);

	if (url == NULL || !urlpolicy_check_url(url, &why, &error->hint))
	{
		redis_error_set(error, "redis_refused", true, false, psprintf("address of the connection is refused: %s", why), error->hint);
		return NULL;
	}
	mux_global_init();
	client = calloc(1, sizeof(RedisClient));
	if (client == NULL)
		out_of_memory();
	client->epoll_fd = -1;
	client->sock = CURL_SOCKET_BAD;
	client->is_plain = strncmp(url, "http:", 5) == 0;
	client->command_timeout_ms = options->command_timeout_ms;
	PG_TRY();
	{
		if (!set_up(client, options, url))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not set up a connection to Redis")));
		opened = connect_to(client, error) && sign_in(client, options, error);
	}
	PG_FINALLY();
	{
		if (!opened)
		{
			redis_close(client);
			client = NULL;
		}
	}
	PG_END_TRY();
	return client;
}

void
redis_close(RedisClient *client)
{
	sigset_t	saved;

	if (client == NULL)
		return;
	mux_block_signals(&saved);
	if (client->multi != NULL && client->easy != NULL)
		(void) curl_multi_remove_handle(client->multi, client->easy);
	if (client->easy != NULL)
		curl_easy_cleanup(client->easy);
	if (client->multi != NULL)
		(void) curl_multi_cleanup(client->multi);
	mux_restore_signals(&saved);
	if (client->epoll_fd >= 0)
		close(client->epoll_fd);
	if (client->has_fd)
		ReleaseExternalFD();
	if (client->reader != NULL)
		redisReaderFree(client->reader);
	if (client->out != NULL)
		explicit_bzero(client->out, client->out_size);
	free(client->out);
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

size_t
redis_queued_bytes(const RedisClient *client)
{
	return client->out_len - client->out_sent;
}

/* ---- sending and reading ---- */

static bool
lost(RedisClient *client, const char *what, CURLcode code, RedisError *error)
{
	client->is_usable = false;
	redis_error_set(error, "redis_unreachable", false, true,
					code == CURLE_OK ? psprintf("the connection to Redis was lost: %s", what) :
					psprintf("the connection to Redis was lost: %s", curl_easy_strerror(code)), NULL);
	return false;
}

/* Send what the socket takes. */
static bool
push(RedisClient *client, bool *progressed, RedisError *error)
{
	while (client->out_sent < client->out_len)
	{
		size_t		n = 0;
		CURLcode	code = curl_easy_send(client->easy, client->out + client->out_sent, client->out_len - client->out_sent, &n);

		client->out_sent += n;
		*progressed |= n > 0;
		if (code == CURLE_AGAIN || (code == CURLE_OK && n == 0))
			return true;
		if (code != CURLE_OK)
			return lost(client, NULL, code, error);
	}
	client->out_len = client->out_sent = 0;
	return true;
}

/* Read what is there: TLS may hold bytes the socket no longer shows. */
static bool
pull(RedisClient *client, bool *progressed, RedisError *error)
{
	static char buffer[READ_BYTES];
	size_t		n = 0;
	CURLcode	code = curl_easy_recv(client->easy, buffer, sizeof(buffer), &n);

	if (code == CURLE_AGAIN)
		return true;
	if (code != CURLE_OK)
		return lost(client, NULL, code, error);
	if (n == 0)
		return lost(client, "the server closed it", CURLE_OK, error);
	client->unparsed += n;
	if (client->unparsed > MAX_REPLY_BYTES || redisReaderFeed(client->reader, buffer, n) != REDIS_OK)
	{
		client->is_usable = false;
		redis_error_set(error, "redis_protocol", true, false, "an answer of the server is too long", NULL);
		return false;
	}
	*progressed = true;
	return true;
}

redisReply *
redis_next(RedisClient *client, RedisError *error)
{
	int64		deadline_us = transfer_clock_us() + (int64) client->command_timeout_ms * 1000;

	while (client->is_usable)
	{
		void	   *reply = NULL;
		bool		progressed = false;
		int64		left_us;

		if (redisReaderGetReply(client->reader, &reply) != REDIS_OK)
		{
			client->is_usable = false;
			redis_error_set(error, "redis_protocol", true, false, "the server does not speak the protocol of Redis",
							"Correct the address of the connection; a port that wants TLS needs rediss.");
			return NULL;
		}
		if (reply != NULL)
		{
			client->unparsed = 0;
			return reply;
		}
		if (!push(client, &progressed, error) || !pull(client, &progressed, error))
			return NULL;
		CHECK_FOR_INTERRUPTS();
		if (progressed)
		{
			deadline_us = transfer_clock_us() + (int64) client->command_timeout_ms * 1000;
			continue;
		}
		left_us = deadline_us - transfer_clock_us();
		if (left_us <= 0)
		{
			client->is_usable = false;
			redis_error_set(error, "redis_timeout", false, true,
							psprintf("Redis did not answer for %d ms", client->command_timeout_ms), NULL);
			return NULL;
		}
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
								 (client->out_sent < client->out_len ? WL_SOCKET_WRITEABLE : 0),
								 client->sock, (long) (left_us / 1000 + 1), wait_event_compat("WeirRedis"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
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
