/*-------------------------------------------------------------------------
 * httpmux_int.h
 *	  Shared by httpmux.c and httpmux_event.c (many exchanges),
 *	  httptransfer.c (one exchange) and httprequest.c (what is sent).
 *
 * All of it is malloc'd; nobody else sees the insides.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_HTTPMUX_INT_H
#define WEIR_HTTPMUX_INT_H

#include <curl/curl.h>
#include <signal.h>

#include "lib/ilist.h"

#include "httpmux.h"

/*
 *	QUEUED ──▶ RUNNING ──▶ FINISHED ──▶ TAKEN
 *	   └───────────────────────▲
 * (timed out in the queue, or not fit to be sent)
 */
typedef enum TransferState
{
	TRANSFER_QUEUED,			/* not yet given to libcurl */
	TRANSFER_RUNNING,			/* in the multi handle */
	TRANSFER_FINISHED,			/* result complete, waits in mux->finished */
	TRANSFER_TAKEN				/* handed to the caller, who frees it */
} TransferState;

/* Why a callback of ours made libcurl give up */
typedef enum TransferStop
{
	STOP_NONE,
	STOP_BODY_TOO_LARGE,
	STOP_HEADERS_TOO_LARGE,
	STOP_REFUSED_ADDRESS,
	STOP_NO_SECOND_SEND,		/* libcurl wanted to repeat the request */
	STOP_OUT_OF_MEMORY
} TransferStop;

struct HttpTransfer
{
	dlist_node	node;			/* in the list of the mux that fits state */
	TransferState state;
	void	   *arg;

	CURL	   *easy;			/* NULL once finished */
	struct curl_slist *headers;
	struct curl_slist *proxy_headers;	/* with CONNECT alone */
	char	   *masked[2];		/* secrets beside the Authorization line, or NULL */
	char	   *request_body;
	size_t		request_body_len;
	size_t		max_body;
	int64		started_us;		/* monotonic */
	int64		deadline_us;	/* monotonic */
	int			total_timeout_ms;
	int			stall_timeout_ms;	/* 0: none */
	bool		is_plain;		/* whom we connect to, the proxy if there is one, is spoken to in plain http */
	bool		has_proxy;
	bool		may_keep;		/* the connection, for others, when the headers of the answer have ended */
	bool		has_begun;		/* the final answer, not only word that it will come */
	bool		is_repeatable;	/* GET, HEAD, OPTIONS */
	bool		to_metadata;	/* to the metadata service, and only there */

	/* set by callbacks */
	TransferStop stop;
	int			sends;			/* how often the request was about to be sent */
	bool		socket_opened;	/* an allowed address was tried */
	char		refused_address[64];
	size_t		header_bytes;
	char	   *body;
	size_t		body_len;
	size_t		body_size;		/* allocated, >= body_len + 1 */
	char		retry_after[64];
	char	   *header_text;	/* of the final answer, lines "Name: value\n"; NULL none */
	size_t		header_len;
	size_t		header_size;
	bool		headers_complete;	/* of the latest answer */

	char	   *content_type;
	char		curl_error[CURL_ERROR_SIZE];
	char		error[512];
	HttpResult	result;
};

/* in a deadline: none */
#define NEVER				PG_INT64_MAX

struct HttpMux
{
	CURLM	   *multi;			/* NULL: broken, made anew by the next start */
	int			epoll_fd;
	int			timer_fd;		/* always in epoll_fd, armed or not */
	int			reserved_fds;	/* accounted for with fd.c */
	int			max_running;

	int			n_running;
	int			n_queued;
	int			n_finished;
	dlist_head	queued;			/* oldest first */
	dlist_head	running;
	dlist_head	finished;		/* oldest first */
	dlist_head	taken;

	int64		curl_due_us;	/* when libcurl wants to be called, monotonic */
	int64		queue_due_us;	/* first deadline among the queued */
	int64		armed_us;		/* what the timerfd is set to */
	bool		socket_trouble; /* a socket could not be registered */
};

/* httpmux_event.c */
extern void mux_global_init(void);	/* ereports */
extern void mux_block_signals(sigset_t *saved);
extern void mux_restore_signals(const sigset_t *saved);
extern void mux_reserve_descriptors(HttpMux *mux);
extern bool mux_create_multi(HttpMux *mux); /* false: out of memory */
extern void mux_arm_timer(HttpMux *mux);

/* set an option of the local variable "easy", or return false */
#define SET(option, value) \
	do { \
		if (curl_easy_setopt(easy, (option), (value)) != CURLE_OK) \
			return false; \
	} while (0)

/* httprequest.c; false: out of memory */
extern bool request_method_is_valid(const char *method);
extern bool request_copy_headers(HttpTransfer *transfer, const char *const *headers, const char **problem);
extern bool request_set_policy(CURL *easy);
/* *proxy_headers must live as long as the handle; free with request_free_headers(). *may_keep: the connection, for others */
extern bool request_set_route(CURL *easy, const HttpOptions *options, struct curl_slist **proxy_headers, bool *may_keep);
extern void request_free_headers(struct curl_slist *headers);	/* wipes; NULL is fine */
extern bool request_set_up(CURL *easy, HttpTransfer *transfer, const char *method, const char *url);

/* httptransfer.c */
extern int64 transfer_clock_us(void);	/* monotonic */
/* NULL when out of memory.  A transfer unfit to be sent is returned with state FINISHED. */
extern HttpTransfer *transfer_create(const char *method, const char *url, const char *const *headers,
									 const char *body, size_t body_len,
									 const HttpOptions *options, void *arg);
/* Fill in the result from libcurl's verdict; state becomes FINISHED.  The easy handle must be out of the multi handle. */
extern void transfer_complete(HttpTransfer *transfer, CURLcode code);
/* Finish with a text of ours: nothing, or nothing more, comes from libcurl. */
extern void transfer_fail(HttpTransfer *transfer, const char *fmt,...) pg_attribute_printf(2, 3);
extern void transfer_destroy(HttpTransfer *transfer);	/* wipes */
/* For curl_global_init_mem: the C library's allocator, but what is freed is wiped first. */
extern CURLcode transfer_global_init(void);

#endif							/* WEIR_HTTPMUX_INT_H */
