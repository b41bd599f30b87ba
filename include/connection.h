/*-------------------------------------------------------------------------
 * connection.h
 *	  Connections as other definitions see them.  SPI connected as the
 *	  extension owner everywhere.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CONNECTION_H
#define WEIR_CONNECTION_H

#include "nodes/pg_list.h"

/* Names of the connections whose auth or proxy_secret names the secret, sorted. */
extern List *connection_using_secret(const char *secret);

/* Mark connections as changed, so that cached tokens of theirs are dropped. */
extern void connection_touch(List *names);

/*
 * Kind of a connection, or NULL if there is none.  Its row stays locked FOR
 * KEY SHARE until the transaction ends: it cannot be dropped meanwhile.
 */
extern char *connection_lock_kind(const char *name);

#endif							/* WEIR_CONNECTION_H */
