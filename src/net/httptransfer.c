/*-------------------------------------------------------------------------
 * httptransfer.c
 *	  One HTTP exchange: its libcurl handle, callbacks and result.
 *
 * Runs where httpmux.c runs.  The callbacks are called by libcurl from
 * within curl_multi_*(), with signals blocked; they must not raise, palloc or
 * wait.  When one wants to give up it notes why in transfer->stop and returns
 * the value that makes libcurl abort; transfer_complete() turns the note into
 * words afterwards.
 *
 * Secrets travel in header lines and bodies.  Our copies are wiped when the
 * transfer is freed, and libcurl's allocations are wiped on free by the
 * allocator we give it.  Buffers inside the TLS library are beyond us.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "echo.h"
#include "httpmux_int.h"
#include "proxyauth.h"
#include "retry.h"
#include "urlpolicy.h"

#define MAX_HEADER_BYTES		65536	/* of a response, all lines together */
#define DEFAULT_CONNECT_MS		10000
#define DEFAULT_TOTAL_MS		60000
#define FIRST_BODY_SIZE			4096
#define FIRST_HEADER_SIZE		512
#define STALL_BYTES				100L	/* a second; an answer slower than that stalls */

int64
transfer_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/*
 * libcurl's allocator.  It is the C library's, so memory from before or from
 * another user of libcurl in this process can be freed through it as well.
 */
static void
wiping_free(void *ptr)
{
	if (ptr == NULL)
		return;
	explicit_bzero(ptr, malloc_usable_size(ptr));
	free(ptr);
}

static void *
wiping_realloc(void *ptr, size_t size)
{
	size_t		old_size;
	void	   *fresh;

	if (ptr == NULL)
		return malloc(size);
	old_size = malloc_usable_size(ptr);
	if (size <= old_size && size >= old_size / 2)
		return ptr;
	fresh = malloc(size);
	if (fresh == NULL)
		return NULL;
	memcpy(fresh, ptr, Min(size, old_size));
	wiping_free(ptr);
	return fresh;
}

CURLcode
transfer_global_init(void)
{
	return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc,
								strdup, calloc);
}

/*
 * CURLOPT_WRITEFUNCTION: decoded bytes of the body.
 */
static size_t
body_callback(char *data, size_t size, size_t count, void *userp)
{
	HttpTransfer *transfer = userp;
	size_t		n = size * count;

	if (n > transfer->max_body - transfer->body_len)
	{
		transfer->stop = STOP_BODY_TOO_LARGE;
		return 0;
	}
	if (transfer->body_len + n + 1 > transfer->body_size)
	{
		size_t		wanted = Max(transfer->body_size * 2, FIRST_BODY_SIZE);
		char	   *grown;

		wanted = Max(wanted, transfer->body_len + n + 1);
		grown = wiping_realloc(transfer->body, wanted);
		if (grown == NULL)
		{
			transfer->stop = STOP_OUT_OF_MEMORY;
			return 0;
		}
		transfer->body = grown;
		transfer->body_size = wanted;
	}
	memcpy(transfer->body + transfer->body_len, data, n);
	transfer->body_len += n;
	transfer->body[transfer->body_len] = '\0';
	return n;
}

/* Keep a header line for whoever reads the answer; false: out of memory. */
static bool
keep_header(HttpTransfer *transfer, const char *line, size_t len)
{
	size_t		wanted;
	char	   *text;

	while (len > 0 && strchr("\r\n", line[len - 1]))
		len--;
	if (len == 0)
		return true;
	wanted = transfer->header_len + len + 2;
	if (wanted > transfer->header_size)
	{
		/* twice as much: each time all of it is copied and wiped, and lines may be many */
		wanted = Max(Max(transfer->header_size * 2, FIRST_HEADER_SIZE), wanted);
		text = wiping_realloc(transfer->header_text, wanted);
		if (text == NULL)
			return false;
		transfer->header_text = text;
		transfer->header_size = wanted;
	}
	text = transfer->header_text;
	for (size_t i = 0; i < len; i++)
		text[transfer->header_len++] = line[i] == '\0' ? '?' : line[i];
	text[transfer->header_len++] = '\n';
	text[transfer->header_len] = '\0';
	return true;
}

/* "HTTP/1.1 103 Early Hints": word that the server is thinking */
static bool
is_interim(const char *line, size_t len)
{
	const char *space = memchr(line, ' ', len);

	return space != NULL && space + 1 < line + len && space[1] == '1';
}

/* Until now it was thinking; an answer that has begun has to go on. */
static void
begin_answer(HttpTransfer *transfer)
{
	transfer->has_begun = true;
	if (transfer->stall_timeout_ms <= 0)
		return;
	curl_easy_setopt(transfer->easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES);
	curl_easy_setopt(transfer->easy, CURLOPT_LOW_SPEED_TIME, (transfer->stall_timeout_ms + 999L) / 1000);
}

/*
 * A connection whose other end has gone in the middle of the headers: libcurl
 * takes that for the end of an answer without a body, and some versions of it
 * (8.22) send the next request through that connection.  So it may be kept
 * only when the headers have ended.
 */
static void
keep_connection(HttpTransfer *transfer, bool keep)
{
	if (transfer->may_keep)
		curl_easy_setopt(transfer->easy, CURLOPT_FORBID_REUSE, keep ? 0L : 1L);
}

/*
 * CURLOPT_HEADERFUNCTION: one line at a time, not terminated, of every
 * response on the way (100 Continue, 103 Early Hints, the final one, trailers).
 */
static size_t
header_callback(char *data, size_t size, size_t count, void *userp)
{
	HttpTransfer *transfer = userp;
	static const char name[] = "retry-after:";
	size_t		n = size * count;

	transfer->header_bytes += n;
	if (transfer->header_bytes > MAX_HEADER_BYTES)
	{
		transfer->stop = STOP_HEADERS_TOO_LARGE;
		return 0;
	}
	/* the empty line that ends them; trailers come after it */
	if (n <= 2 && data[n - 1] == '\n' && (n == 1 || data[0] == '\r'))
	{
		transfer->headers_complete = true;
		keep_connection(transfer, true);
	}
	if (n > 5 && memcmp(data, "HTTP/", 5) == 0)
	{
		if (!transfer->has_begun && !is_interim(data, n))
			begin_answer(transfer);
		transfer->headers_complete = false;
		keep_connection(transfer, false);
		transfer->retry_after[0] = '\0';
		transfer->header_len = 0;
		if (transfer->header_text)
			transfer->header_text[0] = '\0';
		return n;
	}
	if (!keep_header(transfer, data, n))
	{
		transfer->stop = STOP_OUT_OF_MEMORY;
		return 0;
	}
	if (n > sizeof(name) - 1 && pg_strncasecmp(data, name, sizeof(name) - 1) == 0)
	{
		const char *value = data + sizeof(name) - 1;
		const char *end = data + n;

		while (value < end && (*value == ' ' || *value == '\t'))
			value++;
		while (end > value && strchr(" \t\r\n", end[-1]))
			end--;
		if ((size_t) (end - value) < sizeof(transfer->retry_after))
		{
			memcpy(transfer->retry_after, value, end - value);
			transfer->retry_after[end - value] = '\0';
		}
	}
	return n;
}

static void
note_refused(HttpTransfer *transfer, const void *address, int family)
{
	transfer->stop = STOP_REFUSED_ADDRESS;
	if (inet_ntop(family, address, transfer->refused_address, sizeof(transfer->refused_address)) == NULL)
		strlcpy(transfer->refused_address, "?", sizeof(transfer->refused_address));
}

/* What the metadata service is asked goes to its address and nowhere else; the reverse is the policy's. */
static bool
address_is_allowed(const HttpTransfer *transfer, const struct sockaddr *address)
{
	if (transfer->to_metadata)
		return urlpolicy_is_metadata_address(address);
	return urlpolicy_check_address(address, transfer->is_plain);
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: the one place through which every connection
 * has to go, with the address that is really used, whatever the name resolved
 * to when the URL was checked.
 */
static curl_socket_t
open_socket_callback(void *userp, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpTransfer *transfer = userp;
	int			fd;

	if (purpose != CURLSOCKTYPE_IPCXN ||
		!address_is_allowed(transfer, &address->addr))
	{
		const struct sockaddr *addr = &address->addr;
		const void *raw = addr->sa_family == AF_INET6 ?
			(const void *) &((const struct sockaddr_in6 *) addr)->sin6_addr :
			(const void *) &((const struct sockaddr_in *) addr)->sin_addr;

		note_refused(transfer, raw, addr->sa_family);
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd >= 0)
		transfer->socket_opened = true;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/*
 * CURLOPT_PREREQFUNCTION: a connection is there, new or kept alive, and the
 * request is about to be written to it.
 *
 * Until here nothing of the request has left us; from here on it may have.
 * libcurl repeats a request of any method by itself when a kept-alive
 * connection turns out to be dead, although the server may have acted on the
 * first copy.  Such a second call is refused unless repeating is harmless.
 * Also the address is checked again: connections outlive changes of policy.
 */
static int
before_request_callback(void *userp, char *primary_ip, char *local_ip,
						int primary_port, int local_port)
{
	HttpTransfer *transfer = userp;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16) primary_port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	bool		is_ipv4 = inet_pton(AF_INET, primary_ip, &in.sin_addr) == 1;
	bool		is_ipv6 = !is_ipv4 && inet_pton(AF_INET6, primary_ip, &in6.sin6_addr) == 1;

	if (!(is_ipv4 && address_is_allowed(transfer, (struct sockaddr *) &in)) &&
		!(is_ipv6 && address_is_allowed(transfer, (struct sockaddr *) &in6)))
	{
		transfer->socket_opened = false;
		transfer->stop = STOP_REFUSED_ADDRESS;
		strlcpy(transfer->refused_address, primary_ip, sizeof(transfer->refused_address));
		return CURL_PREREQFUNC_ABORT;
	}
	if (transfer->sends > 0 && !transfer->is_repeatable)
	{
		transfer->stop = STOP_NO_SECOND_SEND;
		return CURL_PREREQFUNC_ABORT;
	}
	transfer->sends++;
	return CURL_PREREQFUNC_OK;
}

/* Our and libcurl's texts end up in tables and logs: keep them printable ASCII. */
static void
make_printable(char *text)
{
	for (; *text; text++)
	{
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

static void
mask_line(HttpTransfer *transfer, const char *line)
{
	if (transfer->body)
		(void) echo_mask_header(transfer->body, transfer->body_len, line);
	if (transfer->content_type)
		(void) echo_mask_header(transfer->content_type, strlen(transfer->content_type), line);
	if (transfer->header_text)
		(void) echo_mask_header(transfer->header_text, transfer->header_len, line);
}

/* An answer may say back what it was asked; nobody sees the credentials in it. */
static void
mask_credentials(HttpTransfer *transfer)
{
	for (int i = 0; i < lengthof(transfer->masked); i++)
	{
		if (transfer->masked[i] == NULL)
			continue;
		if (transfer->body)
			(void) echo_mask(transfer->body, transfer->body_len, transfer->masked[i]);
		if (transfer->content_type)
			(void) echo_mask(transfer->content_type, strlen(transfer->content_type), transfer->masked[i]);
		if (transfer->header_text)
			(void) echo_mask(transfer->header_text, transfer->header_len, transfer->masked[i]);
		(void) echo_mask(transfer->error, strlen(transfer->error), transfer->masked[i]);
	}
	for (struct curl_slist *line = transfer->headers; line; line = line->next)
		mask_line(transfer, line->data);
	/* a proxy that stands before its own service could say them back there */
	if (transfer->proxy_headers)
		mask_line(transfer, transfer->proxy_headers->data + strlen("Proxy-"));
}

static void
finish(HttpTransfer *transfer)
{
	static char empty[] = "";
	HttpResult *result = &transfer->result;

	mask_credentials(transfer);

	result->body = transfer->body ? transfer->body : empty;
	result->body_len = transfer->body_len;
	result->content_type = transfer->content_type;
	result->headers = transfer->header_text ? transfer->header_text : empty;
	result->retry_after_ms = -1;
	if (result->http_status != 0 && transfer->retry_after[0] != '\0')
		result->retry_after_ms = retry_after_parse(transfer->retry_after, (int64) time(NULL));
	result->request_sent = transfer->sends > 0;
	result->elapsed_ms = (transfer_clock_us() - transfer->started_us) / 1000;
	if (transfer->error[0] != '\0')
	{
		make_printable(transfer->error);
		result->error = transfer->error;
	}
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	transfer->easy = NULL;
	transfer->state = TRANSFER_FINISHED;
}

void
transfer_fail(HttpTransfer *transfer, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(transfer->error, sizeof(transfer->error), fmt, args);
	va_end(args);
	finish(transfer);
}

/* What to do comes with it: it becomes the message of an attempt. */
static void
describe_proxy_refusal(HttpTransfer *transfer, long answered)
{
	long		offered = 0;
	const char *what;
	const char *hint;

	curl_easy_getinfo(transfer->easy, CURLINFO_PROXYAUTH_AVAIL, &offered);
	what = proxyauth_refusal(transfer->proxy_headers != NULL, offered, &hint);
	snprintf(transfer->error, sizeof(transfer->error), "%s (HTTP %ld). %s", what, answered, hint);
}

/* What libcurl has to say, and whether it is about the proxy. */
static void
describe_connecting(HttpTransfer *transfer, const char *words)
{
	size_t		size = sizeof(transfer->error);
	long		answered = 0;

	if (transfer->has_proxy)
		curl_easy_getinfo(transfer->easy, CURLINFO_HTTP_CONNECTCODE, &answered);
	if (answered != 0 && answered / 100 != 2)
		transfer->result.proxy_status = (int) answered;
	if (PROXY_WANTS_CREDENTIALS(answered))
		describe_proxy_refusal(transfer, answered);
	else if (answered != 0 && answered / 100 != 2)
		snprintf(transfer->error, size, "the proxy answered HTTP %ld and does not let the request through", answered);
	else if (transfer->has_proxy && transfer->sends == 0)
		snprintf(transfer->error, size, "through the proxy: %s", words);
	else
		snprintf(transfer->error, size, "%s", words);
}

/* Put into words why the exchange broke off. */
static void
describe_failure(HttpTransfer *transfer, CURLcode code)
{
	size_t		size = sizeof(transfer->error);

	/* one address was refused, but another one was tried: that one's fate counts */
	if (transfer->stop == STOP_REFUSED_ADDRESS && transfer->socket_opened)
		transfer->stop = STOP_NONE;
	switch (transfer->stop)
	{
		case STOP_BODY_TOO_LARGE:
			snprintf(transfer->error, size, "response body exceeds the limit of %zu bytes",
					 transfer->max_body);
			transfer->result.too_large = true;
			break;
		case STOP_HEADERS_TOO_LARGE:
			snprintf(transfer->error, size, "response headers exceed the limit of %d bytes",
					 MAX_HEADER_BYTES);
			break;
		case STOP_REFUSED_ADDRESS:
			snprintf(transfer->error, size, "address %s%s is not allowed by weir.allowed_private_networks%s",
					 transfer->refused_address, transfer->has_proxy ? " of the proxy" : "",
					 transfer->is_plain ? ", which plain http needs" : "");
			transfer->result.refused_by_policy = transfer->sends == 0;
			break;
		case STOP_NO_SECOND_SEND:
			snprintf(transfer->error, size, "connection was lost before an answer arrived");
			break;
		case STOP_OUT_OF_MEMORY:
			snprintf(transfer->error, size, "out of memory");
			break;
		case STOP_NONE:
			if (code == CURLE_OPERATION_TIMEDOUT && transfer_clock_us() >= transfer->deadline_us - 2000)
			{
				/* libcurl's text would not count the time in our queue */
				snprintf(transfer->error, size, "%s within %d ms",
						 transfer->sends > 0 ? "no complete answer" : "the request could not be sent",
						 transfer->total_timeout_ms);
				break;
			}
			if (code == CURLE_OPERATION_TIMEDOUT && transfer->has_begun)
			{
				snprintf(transfer->error, size, "the answer stalled: for %ld s less than %ld bytes a second came",
						 (transfer->stall_timeout_ms + 999L) / 1000, STALL_BYTES);
				break;
			}
			if (code == CURLE_OUT_OF_MEMORY && transfer->sends > 0)
			{
				/* what libcurl says of a line that is longer than it takes */
				snprintf(transfer->error, size, "a line of the response headers is too long, or memory ran out");
				break;
			}
			describe_connecting(transfer, transfer->curl_error[0] ? transfer->curl_error : curl_easy_strerror(code));
			break;
	}
}

void
transfer_complete(HttpTransfer *transfer, CURLcode code)
{
	long		status = 0;
	const char *content_type = NULL;

	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	/* before that only a proxy can have said something */
	transfer->result.http_status = transfer->sends > 0 ? (int) status : 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_CONTENT_TYPE, &content_type);
	if (content_type)
		transfer->content_type = strdup(content_type);
	if (code != CURLE_OK)
		describe_failure(transfer, code);
	else if (status == 0)
		strlcpy(transfer->error, "the answer is not HTTP", sizeof(transfer->error));
	else if (!transfer->headers_complete)
		/* libcurl takes what ends in the middle of them for an answer without a body */
		strlcpy(transfer->error, "the answer broke off in its headers", sizeof(transfer->error));
	finish(transfer);
}

void
transfer_destroy(HttpTransfer *transfer)
{
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	request_free_headers(transfer->headers);
	request_free_headers(transfer->proxy_headers);
	wiping_free(transfer->request_body);
	for (int i = 0; i < lengthof(transfer->masked); i++)
		wiping_free(transfer->masked[i]);
	wiping_free(transfer->body);
	wiping_free(transfer->header_text);
	free(transfer->content_type);
	wiping_free(transfer);
}

static bool
set_callbacks(CURL *easy, HttpTransfer *transfer, const HttpOptions *options)
{
	int			connect_ms = options->connect_timeout_ms > 0 ?
		options->connect_timeout_ms : DEFAULT_CONNECT_MS;

	SET(CURLOPT_PRIVATE, transfer);
	SET(CURLOPT_ERRORBUFFER, transfer->curl_error);
	SET(CURLOPT_WRITEFUNCTION, body_callback);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, header_callback);
	SET(CURLOPT_HEADERDATA, transfer);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket_callback);
	SET(CURLOPT_OPENSOCKETDATA, transfer);
	SET(CURLOPT_PREREQFUNCTION, before_request_callback);
	SET(CURLOPT_PREREQDATA, transfer);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) connect_ms);
	return true;
}

/* The parts that are ours; the URL has been checked. */
static bool
fill_in(HttpTransfer *transfer, const char *method, const char *url, const char *const *headers,
		const char *body, size_t body_len, const HttpOptions *options, const char **problem)
{
	transfer->has_proxy = options->proxy != NULL;
	transfer->is_plain = pg_strncasecmp(options->proxy ? options->proxy : url, "http://", 7) == 0;
	transfer->stall_timeout_ms = options->stall_timeout_ms;
	transfer->is_repeatable = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
		strcmp(method, "OPTIONS") == 0;
	transfer->max_body = options->max_body;
	transfer->total_timeout_ms = options->total_timeout_ms > 0 ? options->total_timeout_ms : DEFAULT_TOTAL_MS;
	transfer->deadline_us = transfer->started_us + (int64) transfer->total_timeout_ms * 1000;
	if (body)
	{
		transfer->request_body = malloc(body_len + 1);
		if (transfer->request_body == NULL)
			return false;
		memcpy(transfer->request_body, body, body_len);
		transfer->request_body[body_len] = '\0';
		transfer->request_body_len = body_len;
	}
	for (int i = 0; i < lengthof(transfer->masked); i++)
	{
		if (options->masked[i] != NULL && (transfer->masked[i] = strdup(options->masked[i])) == NULL)
			return false;
	}
	if (!request_method_is_valid(method))
	{
		*problem = "the method of the request is not valid";
		return true;
	}
	return request_copy_headers(transfer, headers, problem);
}

/* What plain http may go to is decided by an address, which only the proxy would know. */
static bool
check_proxy(const char *proxy, const char *url, const char **why)
{
	if (pg_strncasecmp(url, "https://", 8) == 0)
		return urlpolicy_check_url(proxy, why, NULL);
	*why = "plain http does not go through one";
	return false;
}

HttpTransfer *
transfer_create(const char *method, const char *url, const char *const *headers,
				const char *body, size_t body_len,
				const HttpOptions *options, void *arg)
{
	HttpTransfer *transfer;
	const char *why = "";
	const char *problem = NULL;
	bool		to_metadata = options->to_metadata_service && urlpolicy_is_metadata_service(url);
	bool		allowed = to_metadata || urlpolicy_check_url(url, &why, NULL);
	bool		proxy_allowed = options->proxy == NULL || (!to_metadata && check_proxy(options->proxy, url, &why));

	transfer = calloc(1, sizeof(HttpTransfer));
	if (transfer == NULL)
		return NULL;
	transfer->arg = arg;
	transfer->to_metadata = to_metadata;
	transfer->started_us = transfer_clock_us();
	transfer->state = TRANSFER_QUEUED;
	if (!allowed)
	{
		transfer->result.refused_by_policy = true;
		transfer_fail(transfer, "URL is not allowed: %s", why);
		return transfer;
	}
	if (!proxy_allowed)
	{
		transfer->result.refused_by_policy = true;
		transfer_fail(transfer, "the proxy is not allowed: %s", why);
		return transfer;
	}
	if (!fill_in(transfer, method, url, headers, body, body_len, options, &problem))
	{
		transfer_destroy(transfer);
		return NULL;
	}
	if (problem)
	{
		transfer_fail(transfer, "%s", problem);
		return transfer;
	}
	transfer->easy = curl_easy_init();
	if (transfer->easy == NULL ||
		!request_set_policy(transfer->easy) ||
		!request_set_route(transfer->easy, options, &transfer->proxy_headers, &transfer->may_keep) ||
		!set_callbacks(transfer->easy, transfer, options) ||
		!request_set_up(transfer->easy, transfer, method, url))
	{
		transfer_destroy(transfer);
		return NULL;
	}
	return transfer;
}
