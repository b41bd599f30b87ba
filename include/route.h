/*-------------------------------------------------------------------------
 * route.h
 *	  How the requests of a connection travel: through which proxy, trusting
 *	  which authorities, with which timeouts.  Options of the connection:
 *	  proxy, proxy_secret, ca_certificate, connect_timeout, timeout, stall_timeout
 *	  (seconds).
 *
 * Used where a connection is defined and where a request is sent.  Texts are
 * palloc'd or static; they never hold more of a file than what is wrong.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ROUTE_H
#define WEIR_ROUTE_H

#include <cjson/cJSON.h>

#include "httpmux.h"

/* Is it fit to be defined?  Else *why (a fragment) and *hint (or NULL). */
extern bool route_check_proxy(const char *proxy, const char **why, const char **hint);
/* Name of the secret that holds what the proxy is signed in to with; NULL: none is needed */
extern const char *route_proxy_secret(const cJSON *options);
/* PEM, or "file:/path" under the rules of secrets; a file that is not there yet is fine. */
extern bool route_check_certificate(const char *certificate, const char **why, const char **hint);

/*
 * PEM of the authorities an option names, palloc'd; certificate may be NULL,
 * then the result is NULL without *error.  A file is read anew every time.
 */
extern const char *route_certificate(const char *certificate, const char **error);

/*
 * Set what the options say about a request to url; the rest of *http stays as
 * it is.  Elsewhere than at the origin of base_url the connection's authorities
 * are trusted beside the system's.  The proxy's credentials are the caller's
 * to add.  http points into options, and into the
 * current memory context.  False and *error: the authorities cannot be read.
 */
extern bool route_set(HttpOptions *http, const cJSON *options, const char *base_url, const char *url, const char **error);

#endif							/* WEIR_ROUTE_H */
