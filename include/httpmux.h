/*-------------------------------------------------------------------------
 * httpmux.h
 *	  HTTP multiplexer: many exchanges at once in one process, no threads of
 *	  ours, nothing that blocks.
 *
 * One HttpMux per process (the conductor, or a session in weir.conduct()).
 * libcurl's sockets and one timerfd live in an epoll descriptor of our own;
 * that single descriptor is what the caller waits on beside its latch.
 * Nothing here raises an error from inside libcurl.  Everything is malloc'd,
 * belongs to no memory context, and is freed by httpmux_destroy(), which an
 * exit callback and PG_CATCH paths must call.
 *
 * What it does not do: follow redirects (a 3xx is an answer), use a proxy that
 * its caller did not name, cookies or .netrc, accept plain http outside
 * weir.allowed_private_networks or through a proxy,
 * or send one request twice: a request other than GET, HEAD and OPTIONS whose
 * kept-alive connection died is reported as lost, never silently repeated.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_HTTPMUX_H
#define WEIR_HTTPMUX_H

typedef struct HttpMux HttpMux;
typedef struct HttpTransfer HttpTransfer;

typedef struct HttpOptions
{
	size_t		max_body;		/* bytes of response body kept; beyond: error */
	int			connect_timeout_ms;
	int			total_timeout_ms;	/* from the moment the request is started */
	int			stall_timeout_ms;	/* of an answer that has begun and hardly goes on; 0: only the total one */
	const char *proxy;			/* "http://host:port" or https, checked by the URL policy too; NULL: none.  Everything
								 * is tunnelled: to the proxy goes CONNECT and nothing of the request */
	const char *proxy_authorization;	/* the line of proxyauth_line(), copied and wiped; NULL: none.  Tunnels are
										 * shared only among requests with the same one. */
	const char *ca_certificate; /* PEM of the authorities to trust; NULL: the system's */
	bool		ca_besides_system;	/* these and the system's, not these instead */
	bool		to_metadata_service;	/* the one address of urlpolicy_is_metadata_service() is allowed, and no other */
	const char *masked[2];		/* secrets the request holds elsewhere than in Authorization: overwritten
								 * where the answer repeats them; or NULL.  Copies are wiped. */
} HttpOptions;

typedef struct HttpResult
{
	int			http_status;	/* 0: none; with error: status of the answer that broke off */
	char	   *body;			/* NUL-terminated, never NULL; owned by the transfer */
	size_t		body_len;
	int64		retry_after_ms; /* -1: absent */
	const char *content_type;	/* or NULL */
	const char *headers;		/* of the final answer, lines "Name: value\n"; never NULL */
	const char *error;			/* NULL: complete answer received; printable, no secrets */
	bool		request_sent;	/* with error: the server may have seen the request */
	bool		refused_by_policy;	/* never sent: address or URL not allowed */
	bool		too_large;		/* with error: the body exceeds max_body */
	int			proxy_status;	/* with error: what the proxy answered instead of connecting; 0 nothing */
	int64		elapsed_ms;
} HttpResult;

extern HttpMux *httpmux_create(void);	/* ereports on failure */
extern void httpmux_destroy(HttpMux *mux);	/* aborts and frees every transfer; NULL is fine */
extern int	httpmux_fd(HttpMux *mux);	/* wait for readability of this */

/*
 * Start an exchange.  Strings are copied.  headers: NULL-terminated array of
 * "Name: value" lines.  Secrets in headers or body are wiped when the transfer
 * is freed.  The URL must have passed urlpolicy_check_url(); the resolved
 * address is checked again at connect.  arg comes back with the transfer.
 * Never blocks; ereports only on out of memory.  A request that cannot be sent
 * as it is (refused URL, control characters or Host, Content-Length and the
 * like among the headers) comes back finished with an error; httpmux_fd()
 * becomes readable for that too.  More than a few hundred at once wait in a
 * queue, and the total timeout runs while they wait.
 */
extern HttpTransfer *httpmux_start(HttpMux *mux, const char *method, const char *url,
								   const char *const *headers, const char *body, size_t body_len,
								   const HttpOptions *options, void *arg);
extern void httpmux_abort(HttpMux *mux, HttpTransfer *transfer);	/* in any state; frees it */

/* Drive libcurl; call when httpmux_fd() is readable (calling more often is harmless). */
extern void httpmux_drive(HttpMux *mux);
/* Next finished transfer, or NULL.  The caller reads the result, then frees the transfer. */
extern HttpTransfer *httpmux_finished(HttpMux *mux);
extern const HttpResult *httpmux_result(HttpTransfer *transfer);
extern void *httpmux_arg(HttpTransfer *transfer);
extern void httpmux_free(HttpMux *mux, HttpTransfer *transfer);

#endif							/* WEIR_HTTPMUX_H */
