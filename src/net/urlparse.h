/*-------------------------------------------------------------------------
 * urlparse.h
 *	  The part of the URL policy that needs no server: strict parsing of
 *	  URLs, of the two allow lists, and classes of addresses.
 *
 * No allocation, no locks, no clock.  Reasons are static text, fragments fit
 * to follow a colon.  Compiles with -DWEIR_STANDALONE for unit tests.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_URLPARSE_H
#define WEIR_URLPARSE_H

#include <sys/socket.h>

#define URL_MAX_LENGTH		8192
#define URL_MAX_HOST		253
#define NET_ADDRESS_TEXT	64

/* IPv6 address in network order; IPv4 is stored in its mapped form ::ffff:a.b.c.d */
typedef struct NetAddress
{
	unsigned char bytes[16];
} NetAddress;

typedef struct UrlParts
{
	bool		is_plain;		/* http rather than https */
	bool		is_address;		/* host is an IP literal, see address */
	int			port;			/* given or the scheme's */
	char		host[URL_MAX_HOST + 3]; /* lower case, no trailing dot, no brackets */
	NetAddress	address;
} UrlParts;

/* One entry of weir.allowed_hosts */
typedef struct HostRule
{
	bool		is_wildcard;	/* any name below host */
	bool		is_address;
	int			port;			/* 0: any */
	char		host[URL_MAX_HOST + 3];
	NetAddress	address;
} HostRule;

/* One entry of weir.allowed_private_networks */
typedef struct NetworkRule
{
	NetAddress	prefix;
	int			bits;			/* 0 .. 128, counted on the stored form */
} NetworkRule;

extern bool url_parse(const char *url, UrlParts *parts, const char **why);
/* Scheme, host and port alike; false if either is NULL or no URL */
extern bool url_same_origin(const char *one, const char *other);

extern bool host_rule_parse(const char *text, size_t len, HostRule *rule, const char **why);
extern bool host_rule_matches(const HostRule *rule, const UrlParts *parts);

extern bool network_rule_parse(const char *text, size_t len, NetworkRule *rule, const char **why);
extern bool network_rule_contains(const NetworkRule *rule, const NetAddress *address);

extern bool net_address_parse(const char *text, NetAddress *address);
extern bool net_address_from_sockaddr(const struct sockaddr *sockaddr, NetAddress *address);
extern void net_address_text(const NetAddress *address, char text[NET_ADDRESS_TEXT]);

/* The IPv4 address hidden in a NAT64, 6to4, Teredo, ISATAP or compatible one */
extern bool net_address_unwrap(const NetAddress *address, NetAddress *inner);

/* "loopback", "private", ... or NULL for a public unicast address */
extern const char *net_address_class(const NetAddress *address);

/*
 * The decision about an address: in one of the networks, or public and not
 * spoken to in plain http.
 */
extern bool net_address_allowed(const NetAddress *address, bool is_plain,
								const NetworkRule *rules, int n_rules);

#endif							/* WEIR_URLPARSE_H */
