/*-------------------------------------------------------------------------
 * httpmux_event.c
 *	  Between libcurl and the kernel: sockets and the timer in the epoll set,
 *	  descriptors we may use, signals that must not reach other threads.
 *
 * Runs where httpmux.c runs, see there.  The two callbacks run inside
 * libcurl; they note what happened in the multiplexer and never fail.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "httpmux_int.h"

#define MAX_RUNNING			1024	/* transfers in libcurl's hands; more wait in our queue */
#define MIN_RUNNING			8
#define FDS_PER_TRANSFER	4	/* socket, and while resolving: a socket pair, the resolver's own */
#define SPARE_FDS			64

/* Everything except the signals a thread raises against itself. */
void
mux_block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_BLOCK, &all, saved);
}

void
mux_restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* Set the timerfd to the earlier of the two deadlines, unless it is already. */
void
mux_arm_timer(HttpMux *mux)
{
	int64		due = Min(mux->curl_due_us, mux->queue_due_us);
	struct itimerspec spec = {0};

	/* finished transfers that nobody collected must keep the descriptor readable */
	if (mux->n_finished > 0)
		due = 1;
	if (due == mux->armed_us)
		return;
	if (due != NEVER)
	{
		/* absolute: a moment in the past fires at once, and only 0 would disarm */
		spec.it_value.tv_sec = due / 1000000;
		spec.it_value.tv_nsec = (due % 1000000) * 1000;
	}
	if (timerfd_settime(mux->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		mux->armed_us = due;
	else
		mux->socket_trouble = true;
}

/* libcurl's CURLMOPT_TIMERFUNCTION.  Must not call back into libcurl. */
static int
timer_callback(CURLM *multi, long timeout_ms, void *userp)
{
	HttpMux    *mux = userp;

	mux->curl_due_us = timeout_ms < 0 ? NEVER : transfer_clock_us() + (int64) timeout_ms * 1000;
	return 0;					/* whoever called libcurl arms the timer afterwards */
}

/*
 * libcurl's CURLMOPT_SOCKETFUNCTION.  ADD first and MOD if it is there
 * already saves remembering anything per socket.
 */
static int
socket_callback(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp)
{
	HttpMux    *mux = userp;
	struct epoll_event event = {0};
	int			rc;

	if (what == CURL_POLL_REMOVE)
	{
		/* it may be closed already, and is then gone from the set */
		(void) epoll_ctl(mux->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		event.events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	rc = epoll_ctl(mux->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	if (rc < 0 && errno == EEXIST)
		rc = epoll_ctl(mux->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	if (rc < 0)
	{
		/* an unwatched socket would hang its transfer: give up on all of them */
		mux->socket_trouble = true;
	}
	return 0;
}

/*
 * How many transfers may run at once, by the descriptors we may use.
 *
 * fd.c assumes that max_safe_fds descriptors are its own.  If the process may
 * raise its soft limit, our sockets live above that and compete with nothing.
 * Otherwise take a share out of fd.c's budget, with its knowledge.
 */
void
mux_reserve_descriptors(HttpMux *mux)
{
	struct rlimit limit;
	rlim_t		wanted = (rlim_t) max_safe_fds + SPARE_FDS + (rlim_t) MAX_RUNNING * FDS_PER_TRANSFER;
	int64		extra = 0;
	int			share;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
	{
		if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < wanted)
		{
			struct rlimit raised = limit;

			raised.rlim_cur = limit.rlim_max == RLIM_INFINITY ? wanted : Min(limit.rlim_max, wanted);
			if (raised.rlim_cur > limit.rlim_cur && setrlimit(RLIMIT_NOFILE, &raised) == 0)
				limit = raised;
		}
		if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > wanted)
			extra = wanted;
		else
			extra = limit.rlim_cur;
		extra -= max_safe_fds + SPARE_FDS;
	}
	if (extra >= 32 * FDS_PER_TRANSFER)
	{
		mux->max_running = Min(extra / FDS_PER_TRANSFER, MAX_RUNNING);
		return;
	}
	share = Min(max_safe_fds / 5, 32 * FDS_PER_TRANSFER);
	while (mux->reserved_fds < share && AcquireExternalFD())
		mux->reserved_fds++;
	mux->max_running = Max(mux->reserved_fds / FDS_PER_TRANSFER, MIN_RUNNING);
}

bool
mux_create_multi(HttpMux *mux)
{
	CURLM	   *multi = curl_multi_init();
	bool		ok;

	if (multi == NULL)
		return false;
	mux->curl_due_us = NEVER;
	ok = curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_callback) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, mux) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_callback) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_TIMERDATA, mux) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) mux->max_running) == CURLM_OK;
	if (!ok)
	{
		curl_multi_cleanup(multi);
		return false;
	}
	mux->multi = multi;
	return true;
}

void
mux_global_init(void)
{
	static bool done = false;
	const curl_version_info_data *info;
	CURLcode	code;
	sigset_t	saved;

	if (done)
		return;
	if (MyProcPid == PostmasterPid)
		elog(ERROR, "HTTP must not be used in the postmaster");
	info = curl_version_info(CURLVERSION_NOW);
	if ((info->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s cannot resolve names without blocking", info->version),
				 errhint("Install a libcurl with the AsynchDNS feature.")));
	if ((info->features & CURL_VERSION_SSL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s does not support TLS", info->version)));
	mux_block_signals(&saved);
	code = transfer_global_init();
	mux_restore_signals(&saved);
	if (code != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libcurl: %s", curl_easy_strerror(code))));
	done = true;
}
