/*-------------------------------------------------------------------------
 * proxyauth.h
 *	  Credentials for a proxy.
 *
 * Nothing here raises an error or allocates from a memory context.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PROXYAUTH_H
#define WEIR_PROXYAUTH_H

/* Is this answer to CONNECT about who we are?  407, and 401 from those (tinyproxy) that tell wrong credentials from none by it */
#define PROXY_WANTS_CREDENTIALS(status) ((status) == 407 || (status) == 401)

/*
 * "Proxy-Authorization: ..." of a secret "user:password"; malloc'd, to be
 * freed with signin_free_secret().  NULL and *error (static).
 */
extern char *proxyauth_line(const char *secret, const char **error);

/* Why a proxy answered so, and what to do; static.  offered: libcurl's bits of the ways it names. */
extern const char *proxyauth_refusal(bool has_credentials, long offered, const char **hint);

#endif							/* WEIR_PROXYAUTH_H */
