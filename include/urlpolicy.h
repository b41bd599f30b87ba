/*-------------------------------------------------------------------------
 * urlpolicy.h
 *	  Which addresses weir may talk to: deny unless allowed.
 *
 * weir.allowed_hosts: comma-separated "host", "*.domain" (any depth below, not
 * the domain itself), either with ":port"; without one any port.  An IP
 * address is a host too, IPv6 in brackets.  Empty: nothing is allowed.
 * weir.allowed_private_networks: CIDR list of otherwise refused (loopback,
 * private, link-local, unique-local, multicast, unspecified, NAT64-mapped ...)
 * addresses that may be used; also the only ones for which plain http is
 * accepted.  Checked on the URL when it is defined and used, and on the
 * resolved address when connecting, so DNS rebinding gains nothing.  A host
 * inside a private network must be in both lists.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_URLPOLICY_H
#define WEIR_URLPOLICY_H

#include <sys/socket.h>

extern void urlpolicy_define_gucs(void);	/* from _PG_init */

/*
 * True if allowed.  Else *why (palloc'd, a fragment for errdetail after
 * capitalising or for "URL is not allowed: %s") says what is wrong and *hint
 * (palloc'd sentence, or NULL) which setting would change that.  Either may
 * be passed as NULL.  Strict parse: scheme https or http, no credentials in
 * the URL, printable ASCII only, <= 8 kB, hosts compared case-insensitively
 * without trailing dot, IPv4 in dotted decimal only.  *why names at most the
 * host, never path or query.
 */
extern bool urlpolicy_check_url(const char *url, const char **why, const char **hint);
/*
 * The metadata service of Azure's machines, which issues tokens for their
 * managed identity: at this address, which is link-local, plain http, and in
 * neither list.  Only sign-in asks for it, and only for that path; what users
 * define goes through urlpolicy_check_url().
 */
#define URLPOLICY_METADATA_SERVICE	"http://169.254.169.254"
extern bool urlpolicy_is_metadata_service(const char *url);
extern bool urlpolicy_is_metadata_address(const struct sockaddr *address);	/* like urlpolicy_check_address() */

/* Address about to be connected to; plain: scheme is http.  No allocation, no error: called inside libcurl. */
extern bool urlpolicy_check_address(const struct sockaddr *address, bool plain);

#endif							/* WEIR_URLPOLICY_H */
