/*-------------------------------------------------------------------------
 * netlink.h
 *	  A bare connection to a host, TCP or TLS, made step by step without
 *	  blocking the process: what protocols other than HTTP talk over, and what
 *	  tells which step of reaching somebody fails.
 *
 * Waits on the process's latch, so interrupts are served; one raises an error
 * from netlink_connect(), after the link was closed.  Everything is malloc'd
 * and belongs to no memory context; texts are palloc'd.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_NETLINK_H
#define WEIR_NETLINK_H

#include "httpmux.h"

typedef struct NetLink NetLink;

/* The step that failed. */
typedef enum NetStep
{
	NET_CONNECTED,
	NET_POLICY,					/* the address is refused */
	NET_NAME,					/* the name has no address */
	NET_TCP,
	NET_PROXY,					/* it is there, but does not let us through */
	NET_TLS,
	NET_CERTIFICATE				/* TLS, but we do not know who it is */
} NetStep;

/*
 * Connect to scheme, host and port of an http(s) URL that has passed
 * urlpolicy_check_url(), as has the proxy; the resolved address is checked
 * again.  Of the options, connect_timeout_ms, proxy and the authorities count.
 * Never NULL: ask netlink_step().
 */
extern NetLink *netlink_connect(const char *url, const HttpOptions *options);
extern void netlink_close(NetLink *link);	/* NULL is fine */

extern NetStep netlink_step(const NetLink *link);
extern bool netlink_timed_out(const NetLink *link);
/* Why it failed, printable, without secrets; and what to do, or NULL. */
extern char *netlink_error(const NetLink *link);
extern const char *netlink_hint(const NetLink *link);
/* Time that each step took, in milliseconds; -1 if it was not finished. */
extern double netlink_name_ms(const NetLink *link);
extern double netlink_tcp_ms(const NetLink *link);	/* to the proxy, if there is one; */
extern double netlink_tls_ms(const NetLink *link);	/* then it, too, is part of this */

/* Bytes sent or read; 0: not now, see netlink_wait(); -1: the connection is lost, *error says why. */
extern ssize_t netlink_send(NetLink *link, const char *data, size_t len, char **error);
extern ssize_t netlink_read(NetLink *link, char *data, size_t len, char **error);
/* Until there may be something to read, or to write into, or the latch is set; serves interrupts. */
extern void netlink_wait(NetLink *link, bool for_writing, int64 timeout_ms);

#endif							/* WEIR_NETLINK_H */
