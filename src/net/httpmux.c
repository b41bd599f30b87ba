/*-------------------------------------------------------------------------
 * httpmux.c
 *	  Many HTTP exchanges at once in one single-threaded process.
 *
 * Runs in the conductor, or in a session that called weir.conduct(); never
 * in the postmaster.  Talks to libcurl's multi socket interface.  libcurl
 * tells us which sockets it wants watched and when it wants to be called; we
 * put both into an epoll descriptor of our own, so that the caller waits for
 * one descriptor beside its latch however many exchanges there are.  (Sockets
 * put straight into a WaitEventSet could not be taken out again.)
 *
 * libcurl's resolver runs getaddrinfo() in short-lived threads.  They inherit
 * our signal mask, and a signal handler of PostgreSQL must never run on such
 * a thread, so all signals are blocked around every call into libcurl.  Those
 * calls do not block; pending signals are delivered right after.
 *
 * No locks, no shared memory, no memory contexts: everything is malloc'd,
 * because libcurl's callbacks could not survive an ereport and the transfers
 * outlive transactions.  If the process dies, the kernel closes the sockets;
 * what the servers made of half an exchange is for the caller's
 * reconciliation to find out.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "storage/fd.h"

#include "httpmux_int.h"

#define EVENTS_PER_ROUND	64
#define ROUNDS_PER_DRIVE	32	/* then the caller's latch gets its turn */

HttpMux *
httpmux_create(void)
{
	HttpMux    *mux;
	struct epoll_event event = {0};
	int			save_errno;

	mux_global_init();
	mux = calloc(1, sizeof(HttpMux));
	if (mux == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	dlist_init(&mux->queued);
	dlist_init(&mux->running);
	dlist_init(&mux->finished);
	dlist_init(&mux->taken);
	mux->queue_due_us = mux->armed_us = NEVER;
	mux->epoll_fd = mux->timer_fd = -1;

	mux_reserve_descriptors(mux);
	ReserveExternalFD();
	ReserveExternalFD();
	mux->reserved_fds += 2;
	mux->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (mux->epoll_fd >= 0)
		mux->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	event.events = EPOLLIN;
	event.data.fd = mux->timer_fd;
	if (mux->timer_fd < 0 ||
		epoll_ctl(mux->epoll_fd, EPOLL_CTL_ADD, mux->timer_fd, &event) < 0)
	{
		save_errno = errno;
		httpmux_destroy(mux);
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not set up the HTTP multiplexer: %m")));
	}
	if (!mux_create_multi(mux))
	{
		httpmux_destroy(mux);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not create a libcurl multi handle")));
	}
	return mux;
}

static void
destroy_list(HttpMux *mux, dlist_head *list)
{
	while (!dlist_is_empty(list))
	{
		HttpTransfer *transfer = dlist_container(HttpTransfer, node, dlist_pop_head_node(list));

		if (transfer->state == TRANSFER_RUNNING)
			(void) curl_multi_remove_handle(mux->multi, transfer->easy);
		transfer_destroy(transfer);
	}
}

void
httpmux_destroy(HttpMux *mux)
{
	sigset_t	saved;

	if (mux == NULL)
		return;
	mux_block_signals(&saved);
	destroy_list(mux, &mux->running);
	destroy_list(mux, &mux->queued);
	destroy_list(mux, &mux->finished);
	destroy_list(mux, &mux->taken);
	if (mux->multi)
		(void) curl_multi_cleanup(mux->multi);
	mux_restore_signals(&saved);
	if (mux->timer_fd >= 0)
		close(mux->timer_fd);
	if (mux->epoll_fd >= 0)
		close(mux->epoll_fd);
	while (mux->reserved_fds-- > 0)
		ReleaseExternalFD();
	free(mux);
}

int
httpmux_fd(HttpMux *mux)
{
	return mux->epoll_fd;
}

static void
add_finished(HttpMux *mux, HttpTransfer *transfer)
{
	Assert(transfer->state == TRANSFER_FINISHED);
	dlist_push_tail(&mux->finished, &transfer->node);
	mux->n_finished++;
}

/* Take a transfer out of whatever list it is in, and out of libcurl. */
static void
detach(HttpMux *mux, HttpTransfer *transfer)
{
	dlist_delete(&transfer->node);
	switch (transfer->state)
	{
		case TRANSFER_QUEUED:
			mux->n_queued--;
			break;
		case TRANSFER_RUNNING:
			mux->n_running--;
			(void) curl_multi_remove_handle(mux->multi, transfer->easy);
			break;
		case TRANSFER_FINISHED:
			mux->n_finished--;
			break;
		case TRANSFER_TAKEN:
			break;
	}
}

/* Give up on everything that runs and on the multi handle.  The queue goes on with a new one. */
static void
fail_running(HttpMux *mux, const char *reason)
{
	while (!dlist_is_empty(&mux->running))
	{
		HttpTransfer *transfer = dlist_container(HttpTransfer, node, dlist_head_node(&mux->running));

		detach(mux, transfer);
		transfer_fail(transfer, "HTTP multiplexer failed: %s", reason);
		add_finished(mux, transfer);
	}
	if (mux->multi)
		(void) curl_multi_cleanup(mux->multi);
	mux->multi = NULL;
	mux->curl_due_us = NEVER;
	mux->socket_trouble = false;
	mux->armed_us = -1;			/* unknown: set it again */
}

/* Move what libcurl has finished to our list. */
static void
collect_done(HttpMux *mux)
{
	CURLMsg    *message;
	int			left;

	while (mux->multi != NULL && (message = curl_multi_info_read(mux->multi, &left)) != NULL)
	{
		HttpTransfer *transfer = NULL;
		CURLcode	code;

		if (message->msg != CURLMSG_DONE)
			continue;
		code = message->data.result;	/* message dies with the handle's removal */
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &transfer);
		detach(mux, transfer);
		transfer_complete(transfer, code);
		add_finished(mux, transfer);
	}
}

/* Hand queued transfers to libcurl while there is room, and expire the others. */
static void
start_queued(HttpMux *mux)
{
	dlist_mutable_iter iter;
	int64		now;

	if (mux->n_queued == 0)
	{
		mux->queue_due_us = NEVER;
		return;
	}
	while (mux->n_queued > 0 && mux->n_running < mux->max_running)
	{
		HttpTransfer *transfer = dlist_container(HttpTransfer, node, dlist_head_node(&mux->queued));
		int64		left_ms = (transfer->deadline_us - transfer_clock_us()) / 1000;
		CURLMcode	rc;

		detach(mux, transfer);
		if (left_ms <= 0)
		{
			transfer_fail(transfer, "the request waited %d ms for its turn and was not sent",
						  transfer->total_timeout_ms);
			add_finished(mux, transfer);
			continue;
		}
		if (mux->multi == NULL && !mux_create_multi(mux))
			rc = CURLM_OUT_OF_MEMORY;
		else
		{
			/* libcurl's clock starts now, ours started earlier */
			curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, (long) left_ms);
			rc = curl_multi_add_handle(mux->multi, transfer->easy);
		}
		if (rc != CURLM_OK)
		{
			transfer_fail(transfer, "could not start the request: %s", curl_multi_strerror(rc));
			add_finished(mux, transfer);
			continue;
		}
		transfer->state = TRANSFER_RUNNING;
		dlist_push_tail(&mux->running, &transfer->node);
		mux->n_running++;
	}

	now = transfer_clock_us();
	if (mux->n_queued > 0 && mux->queue_due_us > now)
		return;
	mux->queue_due_us = NEVER;
	dlist_foreach_modify(iter, &mux->queued)
	{
		HttpTransfer *transfer = dlist_container(HttpTransfer, node, iter.cur);

		if (transfer->deadline_us <= now)
		{
			detach(mux, transfer);
			transfer_fail(transfer, "the request waited %d ms for its turn and was not sent",
						  transfer->total_timeout_ms);
			add_finished(mux, transfer);
		}
		else
			mux->queue_due_us = Min(mux->queue_due_us, transfer->deadline_us);
	}
}

/* One call into libcurl.  False if the multi handle is beyond repair. */
static bool
socket_action(HttpMux *mux, curl_socket_t fd, int bits)
{
	int			still_running;
	CURLMcode	rc;

	if (mux->multi == NULL)
		return true;
	rc = curl_multi_socket_action(mux->multi, fd, bits, &still_running);
	if (rc == CURLM_OK && !mux->socket_trouble)
		return true;
	collect_done(mux);
	fail_running(mux, rc == CURLM_OK ? "could not watch a socket" : curl_multi_strerror(rc));
	return false;
}

/* Everything after a call into libcurl: results, room for the queue, the next alarm. */
static void
settle(HttpMux *mux)
{
	int			before;

	do
	{
		before = mux->n_finished;
		collect_done(mux);
		start_queued(mux);
	} while (mux->n_finished != before);
	mux_arm_timer(mux);
}

HttpTransfer *
httpmux_start(HttpMux *mux, const char *method, const char *url,
			  const char *const *headers, const char *body, size_t body_len,
			  const HttpOptions *options, void *arg)
{
	HttpTransfer *transfer;
	sigset_t	saved;

	/* may palloc (the URL check), so before signals are blocked */
	transfer = transfer_create(method, url, headers, body, body_len, options, arg);
	if (transfer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	mux_block_signals(&saved);
	if (transfer->state == TRANSFER_FINISHED)
		add_finished(mux, transfer);
	else
	{
		dlist_push_tail(&mux->queued, &transfer->node);
		mux->n_queued++;
		mux->queue_due_us = Min(mux->queue_due_us, transfer->deadline_us);
		start_queued(mux);

		/*
		 * Begin at once instead of waiting for libcurl's zero timeout to come
		 * around through the timerfd.  The transfer may even finish here.
		 */
		if (transfer->state == TRANSFER_RUNNING)
			(void) socket_action(mux, CURL_SOCKET_TIMEOUT, 0);
	}
	settle(mux);
	mux_restore_signals(&saved);
	return transfer;
}

void
httpmux_drive(HttpMux *mux)
{
	sigset_t	saved;

	mux_block_signals(&saved);
	for (int round = 0; round < ROUNDS_PER_DRIVE; round++)
	{
		struct epoll_event events[EVENTS_PER_ROUND];
		int			n = epoll_wait(mux->epoll_fd, events, EVENTS_PER_ROUND, 0);

		for (int i = 0; i < n; i++)
		{
			int			bits = 0;

			if (events[i].data.fd == mux->timer_fd)
			{
				uint64		expirations;

				/* drain it; the deadlines themselves are looked at below */
				if (read(mux->timer_fd, &expirations, sizeof(expirations)) < 0)
					continue;
				mux->armed_us = NEVER;
				continue;
			}

			/*
			 * An earlier event of this round may have closed the descriptor.
			 * libcurl ignores those it does not know, and an event too many
			 * for a new socket of the same number does no harm.
			 */
			if (events[i].events & (EPOLLIN | EPOLLHUP))
				bits |= CURL_CSELECT_IN;
			if (events[i].events & EPOLLOUT)
				bits |= CURL_CSELECT_OUT;
			if (events[i].events & EPOLLERR)
				bits |= CURL_CSELECT_ERR;
			if (!socket_action(mux, events[i].data.fd, bits))
				break;
		}
		if (mux->curl_due_us <= transfer_clock_us())
		{
			mux->curl_due_us = NEVER;	/* before the call, which may set it */
			(void) socket_action(mux, CURL_SOCKET_TIMEOUT, 0);
		}
		collect_done(mux);
		if (n < EVENTS_PER_ROUND)
			break;
	}
	settle(mux);
	mux_restore_signals(&saved);
}

HttpTransfer *
httpmux_finished(HttpMux *mux)
{
	HttpTransfer *transfer;

	if (dlist_is_empty(&mux->finished))
		return NULL;
	transfer = dlist_container(HttpTransfer, node, dlist_pop_head_node(&mux->finished));
	mux->n_finished--;
	transfer->state = TRANSFER_TAKEN;
	dlist_push_tail(&mux->taken, &transfer->node);
	if (mux->n_finished == 0)
		mux_arm_timer(mux);
	return transfer;
}

const HttpResult *
httpmux_result(HttpTransfer *transfer)
{
	Assert(transfer->state == TRANSFER_FINISHED || transfer->state == TRANSFER_TAKEN);
	return &transfer->result;
}

void *
httpmux_arg(HttpTransfer *transfer)
{
	return transfer->arg;
}

void
httpmux_abort(HttpMux *mux, HttpTransfer *transfer)
{
	sigset_t	saved;

	mux_block_signals(&saved);
	detach(mux, transfer);
	transfer_destroy(transfer);
	settle(mux);
	mux_restore_signals(&saved);
}

void
httpmux_free(HttpMux *mux, HttpTransfer *transfer)
{
	if (transfer->state != TRANSFER_TAKEN)
	{
		httpmux_abort(mux, transfer);
		return;
	}
	dlist_delete(&transfer->node);
	transfer_destroy(transfer);
}
