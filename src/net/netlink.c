/*-------------------------------------------------------------------------
 * netlink.c
 *	  A bare connection to a host that never blocks the process.
 *
 * Runs in SQL workers and in sessions that test a connection.  libcurl makes
 * the connection (CURLOPT_CONNECT_ONLY): names are resolved beside the
 * process, the address about to be used is checked by the URL policy as for
 * every other engine, and TLS is verified by the same rules.  What goes over
 * it is the caller's.
 *
 * Signals are blocked around calls that may start the resolver's thread, see
 * httpmux.c.  No locks.  If the process dies, the kernel closes the socket.
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
#include "netlink.h"
#include "proxyauth.h"
#include "urlpolicy.h"

struct NetLink
{
	CURLM	   *multi;
	CURL	   *easy;
	struct curl_slist *proxy_headers;
	int			epoll_fd;		/* -1 once connected */
	int64		due_us;			/* when libcurl wants to be called while it connects */
	bool		has_fd;			/* accounted for with fd.c */
	bool		is_plain;		/* whom we connect to, the proxy if there is one, is spoken to without TLS */
	bool		has_proxy;
	bool		has_tcp;		/* a socket that was closed again had been connected */
	CURLcode	code;			/* of connecting */
	char		refused_address[64];	/* not empty: the policy refused it */
	char		curl_error[CURL_ERROR_SIZE];
	curl_socket_t sock;
};

static int
note_timer(CURLM *multi, long timeout_ms, void *userp)
{
	NetLink    *link = userp;

	link->due_us = timeout_ms < 0 ? NEVER : transfer_clock_us() + (int64) timeout_ms * 1000;
	return 0;
}

/* A socket that could not be watched is noticed by the timeout of connecting. */
static int
note_socket(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp)
{
	NetLink    *link = userp;
	struct epoll_event event = {0};

	if (link->epoll_fd < 0)
		return 0;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(link->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		event.events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	if (epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EEXIST)
		(void) epoll_ctl(link->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	return 0;
}

/* The one place every connection goes through, with the address that is really used. */
static curl_socket_t
open_socket(void *userp, curlsocktype purpose, struct curl_sockaddr *address)
{
	NetLink    *link = userp;
	const struct sockaddr *addr = &address->addr;
	int			fd;

	if (purpose != CURLSOCKTYPE_IPCXN || !urlpolicy_check_address(addr, link->is_plain))
	{
		const void *raw = addr->sa_family == AF_INET6 ?
			(const void *) &((const struct sockaddr_in6 *) addr)->sin6_addr :
			(const void *) &((const struct sockaddr_in *) addr)->sin_addr;

		if (inet_ntop(addr->sa_family, raw, link->refused_address, sizeof(link->refused_address)) == NULL)
			strlcpy(link->refused_address, "?", sizeof(link->refused_address));
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	/* One address of several may be refused; another is good enough. */
	link->refused_address[0] = '\0';
	return fd;
}

/* libcurl's times do not say whether TCP was there when TLS was given up; the socket does. */
static int
close_socket(void *userp, curl_socket_t fd)
{
	NetLink    *link = userp;
	struct sockaddr_storage peer;
	socklen_t	len = sizeof(peer);

	if (getpeername(fd, (struct sockaddr *) &peer, &len) == 0)
		link->has_tcp = true;
	return close(fd);
}

static bool
set_up_easy(NetLink *link, const char *url, const HttpOptions *options)
{
	CURL	   *easy = link->easy;
	bool		may_keep;		/* nobody else uses it anyway */

	if (!request_set_policy(easy) || !request_set_route(easy, options, &link->proxy_headers, &may_keep))
		return false;
	SET(CURLOPT_URL, url);
	SET(CURLOPT_CONNECT_ONLY, 1L);
	SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, link);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, link);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) options->connect_timeout_ms);
	SET(CURLOPT_ERRORBUFFER, link->curl_error);
	return true;
}

static bool
set_up(NetLink *link, const char *url, const HttpOptions *options)
{
	link->has_fd = AcquireExternalFD();
	link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	link->multi = curl_multi_init();
	link->easy = curl_easy_init();
	return link->has_fd && link->epoll_fd >= 0 && link->multi != NULL && link->easy != NULL &&
		curl_multi_setopt(link->multi, CURLMOPT_SOCKETFUNCTION, note_socket) == CURLM_OK &&
		curl_multi_setopt(link->multi, CURLMOPT_SOCKETDATA, link) == CURLM_OK &&
		curl_multi_setopt(link->multi, CURLMOPT_TIMERFUNCTION, note_timer) == CURLM_OK &&
		curl_multi_setopt(link->multi, CURLMOPT_TIMERDATA, link) == CURLM_OK &&
		set_up_easy(link, url, options) &&
		curl_multi_add_handle(link->multi, link->easy) == CURLM_OK;
}

/* One round of libcurl's; true if the connection is made, or will not be: see link->code. */
static bool
drive(NetLink *link)
{
	struct epoll_event events[8];
	sigset_t	saved;
	CURLMsg    *message;
	bool		done = false;
	int			still_running;
	int			left;
	int			n;

	mux_block_signals(&saved);
	n = epoll_wait(link->epoll_fd, events, lengthof(events), 0);
	for (int i = 0; i < n; i++)
	{
		int			bits = (events[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
			(events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			(events[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);

		(void) curl_multi_socket_action(link->multi, events[i].data.fd, bits, &still_running);
	}
	if (link->due_us <= transfer_clock_us())
	{
		link->due_us = NEVER;	/* before the call, which may set it */
		(void) curl_multi_socket_action(link->multi, CURL_SOCKET_TIMEOUT, 0, &still_running);
	}
	while ((message = curl_multi_info_read(link->multi, &left)) != NULL)
	{
		if (message->msg != CURLMSG_DONE)
			continue;
		link->code = message->data.result;
		done = true;
	}
	mux_restore_signals(&saved);
	return done;
}

static void
wait_for(uint32 events, int fd, int64 timeout_ms, uint32 wait_event)
{
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
							 fd, (long) Min(timeout_ms, 3600000), wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
connect_it(NetLink *link)
{
	while (!drive(link))
	{
		int64		left_ms = link->due_us == NEVER ? 1000 : Max(link->due_us - transfer_clock_us(), 0) / 1000 + 1;

		wait_for(WL_SOCKET_READABLE, link->epoll_fd, left_ms, wait_event_compat("WeirConnect"));
	}
	if (link->code == CURLE_OK &&
		(curl_easy_getinfo(link->easy, CURLINFO_ACTIVESOCKET, &link->sock) != CURLE_OK || link->sock == CURL_SOCKET_BAD))
		link->code = CURLE_COULDNT_CONNECT;
	close(link->epoll_fd);
	link->epoll_fd = -1;
}

NetLink *
netlink_connect(const char *url, const HttpOptions *options)
{
	NetLink    *link;

	mux_global_init();
	link = calloc(1, sizeof(NetLink));
	if (link == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	link->epoll_fd = -1;
	link->sock = CURL_SOCKET_BAD;
	link->has_proxy = options->proxy != NULL;
	link->is_plain = pg_strncasecmp(options->proxy ? options->proxy : url, "http:", 5) == 0;
	PG_TRY();
	{
		if (!set_up(link, url, options))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not set up a network connection")));
		connect_it(link);
	}
	PG_CATCH();
	{
		netlink_close(link);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return link;
}

void
netlink_close(NetLink *link)
{
	sigset_t	saved;

	if (link == NULL)
		return;
	mux_block_signals(&saved);
	if (link->multi != NULL && link->easy != NULL)
		(void) curl_multi_remove_handle(link->multi, link->easy);
	if (link->easy != NULL)
		curl_easy_cleanup(link->easy);
	if (link->multi != NULL)
		(void) curl_multi_cleanup(link->multi);
	mux_restore_signals(&saved);
	request_free_headers(link->proxy_headers);
	if (link->epoll_fd >= 0)
		close(link->epoll_fd);
	if (link->has_fd)
		ReleaseExternalFD();
	free(link);
}

/* ---- how it went ---- */

static curl_off_t
moment_us(const NetLink *link, CURLINFO which)
{
	curl_off_t	us = 0;

	return curl_easy_getinfo(link->easy, which, &us) == CURLE_OK ? us : 0;
}

static long
information(const NetLink *link, CURLINFO which)
{
	long		value = 0;

	return curl_easy_getinfo(link->easy, which, &value) == CURLE_OK ? value : 0;
}

/* Connected to the proxy, and it, or TLS with it, is as far as it went? */
static bool
failed_at_proxy(const NetLink *link)
{
	if (!link->has_proxy || !link->has_tcp)
		return false;
	return link->code == CURLE_PROXY || information(link, CURLINFO_HTTP_CONNECTCODE) / 100 != 2;
}

NetStep
netlink_step(const NetLink *link)
{
	if (link->code == CURLE_OK)
		return NET_CONNECTED;
	if (link->refused_address[0] != '\0')
		return NET_POLICY;
	if (link->code == CURLE_COULDNT_RESOLVE_HOST || link->code == CURLE_COULDNT_RESOLVE_PROXY ||
		(netlink_timed_out(link) && moment_us(link, CURLINFO_NAMELOOKUP_TIME_T) == 0))
		return NET_NAME;
	if (failed_at_proxy(link))
		return NET_PROXY;
	if (link->code == CURLE_PEER_FAILED_VERIFICATION || link->code == CURLE_SSL_CACERT_BADFILE)
		return NET_CERTIFICATE;
	return link->code == CURLE_SSL_CONNECT_ERROR || link->has_tcp ? NET_TLS : NET_TCP;
}

bool
netlink_timed_out(const NetLink *link)
{
	return link->code == CURLE_OPERATION_TIMEDOUT;
}

static char *
printable(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *p = copy; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return copy;
}

static const char *
credentials_refused(const NetLink *link, const char **hint)
{
	return proxyauth_refusal(link->proxy_headers != NULL, information(link, CURLINFO_PROXYAUTH_AVAIL), hint);
}

char *
netlink_error(const NetLink *link)
{
	const char *hint;

	if (link->refused_address[0] != '\0')
		return psprintf("address %s%s may not be used%s", link->refused_address,
						link->has_proxy ? " of the proxy" : "", link->is_plain ? " without TLS" : "");
	if (failed_at_proxy(link) && PROXY_WANTS_CREDENTIALS(information(link, CURLINFO_HTTP_CONNECTCODE)))
		return psprintf("%s (HTTP %ld)", credentials_refused(link, &hint), information(link, CURLINFO_HTTP_CONNECTCODE));
	if (failed_at_proxy(link) && information(link, CURLINFO_HTTP_CONNECTCODE) != 0)
		return psprintf("the proxy answered HTTP %ld instead of connecting", information(link, CURLINFO_HTTP_CONNECTCODE));
	return printable(link->curl_error[0] != '\0' ? link->curl_error : curl_easy_strerror(link->code));
}

static const char *
proxy_hint(const NetLink *link)
{
	const char *hint;

	switch (information(link, CURLINFO_HTTP_CONNECTCODE))
	{
		case 0:
			return link->code == CURLE_PEER_FAILED_VERIFICATION ?
				"The certificate of the proxy is not for its name, or signed by an authority that neither this machine nor the connection's ca_certificate names." :
				"Is it a proxy that understands CONNECT, and does it speak TLS exactly when its address begins with https?";
		case 401:
		case 407:
			(void) credentials_refused(link, &hint);
			return hint;
		case 502:
		case 503:
		case 504:
			return "The proxy does not reach the service: correct the base URL, or ask who runs the proxy.";
		default:
			return "Ask who runs the proxy to let this machine through to the host and port of the base URL.";
	}
}

const char *
netlink_hint(const NetLink *link)
{
	switch (netlink_step(link))
	{
		case NET_CONNECTED:
			break;
		case NET_POLICY:
			return link->is_plain ? "Ask an administrator to add its network to weir.allowed_private_networks, or use TLS." :
				"Ask an administrator to add its network to weir.allowed_private_networks.";
		case NET_NAME:
			return link->has_proxy ? "Correct the host in the connection's option proxy, or the name service of this machine." :
				"Correct the host in the address of the connection, or the name service of this machine.";
		case NET_TCP:
			return link->has_proxy ? "Is the port of the proxy right, does it run, and does a firewall let this machine through to it?" :
				"Is the port right, does the server run, and does a firewall let this machine through?";
		case NET_PROXY:
			return proxy_hint(link);
		case NET_TLS:
			return "Does the server speak TLS 1.2 or later at this port?";
		case NET_CERTIFICATE:
			return "Use the host name its certificate is for. The authority that signed it must be one this machine trusts, or the one that the connection's option ca_certificate names.";
	}
	return NULL;
}

/* libcurl counts from the start of the transfer. */
static double
between_ms(const NetLink *link, CURLINFO from, CURLINFO to)
{
	curl_off_t	end = moment_us(link, to);

	return end == 0 ? -1 : (end - (from ? moment_us(link, from) : 0)) / 1000.0;
}

double
netlink_name_ms(const NetLink *link)
{
	return between_ms(link, CURLINFO_NONE, CURLINFO_NAMELOOKUP_TIME_T);
}

double
netlink_tcp_ms(const NetLink *link)
{
	return between_ms(link, CURLINFO_NAMELOOKUP_TIME_T, CURLINFO_CONNECT_TIME_T);
}

double
netlink_tls_ms(const NetLink *link)
{
	return between_ms(link, CURLINFO_CONNECT_TIME_T, CURLINFO_APPCONNECT_TIME_T);
}

/* ---- bytes ---- */

ssize_t
netlink_send(NetLink *link, const char *data, size_t len, char **error)
{
	size_t		n = 0;
	CURLcode	code = curl_easy_send(link->easy, data, len, &n);

	if (code == CURLE_OK || code == CURLE_AGAIN)
		return n;
	*error = printable(curl_easy_strerror(code));
	return -1;
}

ssize_t
netlink_read(NetLink *link, char *data, size_t len, char **error)
{
	size_t		n = 0;
	CURLcode	code = curl_easy_recv(link->easy, data, len, &n);

	if (code == CURLE_AGAIN)
		return 0;
	if (code == CURLE_OK && n > 0)
		return n;
	*error = code == CURLE_OK ? pstrdup("the server closed it") : printable(curl_easy_strerror(code));
	return -1;
}

void
netlink_wait(NetLink *link, bool for_writing, int64 timeout_ms)
{
	wait_for(WL_SOCKET_READABLE | (for_writing ? WL_SOCKET_WRITEABLE : 0), link->sock, timeout_ms,
			 wait_event_compat("WeirNetwork"));
}
