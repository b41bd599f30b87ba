/*-------------------------------------------------------------------------
 * urlparse.c
 *	  Strict parsing of URLs and allow lists; classes of network addresses.
 *
 * Pure functions: they run in the postmaster (check hooks of settings), in
 * sessions (defining a connection), in the conductor, and inside libcurl's
 * callbacks.  Hence nothing here allocates, raises, waits or keeps state.
 *
 * The parser accepts far less than the URL standards do.  Whatever two URL
 * parsers could read differently (backslashes, user info, percent-encoded
 * hosts, short or octal IPv4, zone ids) is refused instead of interpreted, so
 * that the host that was checked is the host that is asked.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "urlparse.h"

typedef struct AddressClass
{
	unsigned char prefix[16];
	int			bits;
	const char *name;
} AddressClass;

#define V4(a, b, c, d) {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}

/* First match wins.  IPv4 rows: 96 more bits than people write. */
static const AddressClass address_classes[] = {
	{V4(0, 0, 0, 0), 96 + 8, "unspecified"},
	{V4(10, 0, 0, 0), 96 + 8, "private"},
	{V4(100, 64, 0, 0), 96 + 10, "carrier-grade NAT"},
	{V4(127, 0, 0, 0), 96 + 8, "loopback"},
	{V4(168, 63, 129, 16), 96 + 32, "cloud platform"},
	{V4(169, 254, 0, 0), 96 + 16, "link-local"},
	{V4(172, 16, 0, 0), 96 + 12, "private"},
	{V4(192, 0, 0, 0), 96 + 24, "reserved"},
	{V4(192, 0, 2, 0), 96 + 24, "documentation"},
	{V4(192, 88, 99, 0), 96 + 24, "6to4 relay"},
	{V4(192, 168, 0, 0), 96 + 16, "private"},
	{V4(198, 18, 0, 0), 96 + 15, "benchmarking"},
	{V4(198, 51, 100, 0), 96 + 24, "documentation"},
	{V4(203, 0, 113, 0), 96 + 24, "documentation"},
	{V4(224, 0, 0, 0), 96 + 4, "multicast"},
	{V4(255, 255, 255, 255), 96 + 32, "broadcast"},
	{V4(240, 0, 0, 0), 96 + 4, "reserved"},
	{V4(0, 0, 0, 0), 96, NULL}, /* the rest of IPv4 is public */

	{{0}, 128, "unspecified"},
	{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, "loopback"},
	{{0xfe, 0x80}, 10, "link-local"},
	{{0xfe, 0xc0}, 10, "site-local"},
	{{0xfc}, 7, "unique local"},
	{{0xff}, 8, "multicast"},
	{{0x20, 0x01, 0x00, 0x02}, 48, "benchmarking"},
	{{0x20, 0x01, 0x00, 0x10}, 28, "overlay identifier"},
	{{0x20, 0x01, 0x00, 0x20}, 28, "overlay identifier"},
	{{0x20, 0x01, 0x0d, 0xb8}, 32, "documentation"},
	{{0x20, 0x01, 0x00, 0x00}, 32, NULL},	/* Teredo: what is inside decides */
	{{0x20, 0x01}, 23, "reserved"},
	{{0x3f, 0xff}, 20, "documentation"},
	{{0x20}, 3, NULL},			/* global unicast */
	{{0x00, 0x64, 0xff, 0x9b}, 96, NULL},	/* NAT64: what is inside decides */
	{{0}, 0, "reserved"},
};

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool
prefix_matches(const unsigned char *address, const unsigned char *prefix, int bits)
{
	int			whole = bits / 8;
	int			rest = bits % 8;

	if (memcmp(address, prefix, whole) != 0)
		return false;
	if (rest == 0)
		return true;
	return ((address[whole] ^ prefix[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

static void
set_ipv4(NetAddress *address, const unsigned char *four)
{
	memcpy(address->bytes, mapped_prefix, 12);
	memcpy(address->bytes + 12, four, 4);
}

static bool
is_ipv4(const NetAddress *address)
{
	return memcmp(address->bytes, mapped_prefix, 12) == 0;
}

bool
net_address_parse(const char *text, NetAddress *address)
{
	unsigned char four[4];

	if (inet_pton(AF_INET, text, four) == 1)
	{
		set_ipv4(address, four);
		return true;
	}
	return inet_pton(AF_INET6, text, address->bytes) == 1;
}

bool
net_address_from_sockaddr(const struct sockaddr *sockaddr, NetAddress *address)
{
	if (sockaddr->sa_family == AF_INET)
	{
		struct sockaddr_in in;

		memcpy(&in, sockaddr, sizeof(in));	/* the caller's may be unaligned */
		set_ipv4(address, (const unsigned char *) &in.sin_addr);
		return true;
	}
	if (sockaddr->sa_family == AF_INET6)
	{
		struct sockaddr_in6 in6;

		memcpy(&in6, sockaddr, sizeof(in6));
		memcpy(address->bytes, &in6.sin6_addr, 16);
		return true;
	}
	return false;
}

void
net_address_text(const NetAddress *address, char text[NET_ADDRESS_TEXT])
{
	const char *done;

	if (is_ipv4(address))
		done = inet_ntop(AF_INET, address->bytes + 12, text, NET_ADDRESS_TEXT);
	else
		done = inet_ntop(AF_INET6, address->bytes, text, NET_ADDRESS_TEXT);
	if (done == NULL)
		strcpy(text, "?");
}

bool
net_address_unwrap(const NetAddress *address, NetAddress *inner)
{
	const unsigned char *b = address->bytes;
	static const unsigned char zeros[12] = {0};
	static const unsigned char nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	static const unsigned char nat64_local[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
	static const unsigned char teredo[4] = {0x20, 0x01, 0x00, 0x00};
	static const unsigned char isatap[3] = {0x00, 0x5e, 0xfe};

	if (memcmp(b, nat64, 12) == 0 || memcmp(b, nat64_local, 6) == 0)
		set_ipv4(inner, b + 12);
	else if (b[0] == 0x20 && b[1] == 0x02)	/* 6to4 */
		set_ipv4(inner, b + 2);
	else if (memcmp(b, teredo, 4) == 0)
	{
		unsigned char four[4];

		for (int i = 0; i < 4; i++)
			four[i] = b[12 + i] ^ 0xff;
		set_ipv4(inner, four);
	}
	else if ((b[8] & 0xfd) == 0 && memcmp(b + 9, isatap, 3) == 0)
		set_ipv4(inner, b + 12);
	else if (memcmp(b, zeros, 12) == 0 && (b[12] | b[13] | b[14]) != 0) /* ::a.b.c.d */
		set_ipv4(inner, b + 12);
	else if (memcmp(b, zeros, 8) == 0 && b[8] == 0xff && b[9] == 0xff && b[10] == 0 && b[11] == 0)
		set_ipv4(inner, b + 12);	/* ::ffff:0:a.b.c.d, stateless translation */
	else
		return false;
	return true;
}

static const char *
class_by_table(const NetAddress *address)
{
	for (size_t i = 0;; i++)	/* the last row matches everything */
	{
		const AddressClass *class = &address_classes[i];

		if (prefix_matches(address->bytes, class->prefix, class->bits))
			return class->name;
	}
}

const char *
net_address_class(const NetAddress *address)
{
	NetAddress	inner;
	const char *class = class_by_table(address);

	if (class == NULL && net_address_unwrap(address, &inner))
		class = class_by_table(&inner);
	return class;
}

bool
network_rule_contains(const NetworkRule *rule, const NetAddress *address)
{
	/* a wide IPv6 network must not take in IPv4 by way of the mapped form */
	if (is_ipv4(address) && rule->bits < 96)
		return false;
	return prefix_matches(address->bytes, rule->prefix.bytes, rule->bits);
}

bool
net_address_allowed(const NetAddress *address, bool is_plain,
					const NetworkRule *rules, int n_rules)
{
	NetAddress	inner;
	bool		is_wrapped = net_address_unwrap(address, &inner);

	for (int i = 0; i < n_rules; i++)
	{
		if (network_rule_contains(&rules[i], address) ||
			(is_wrapped && network_rule_contains(&rules[i], &inner)))
			return true;
	}
	return !is_plain && net_address_class(address) == NULL;
}

/*
 * Host name: labels of letters, digits, hyphens and underscores.  Copies it
 * in lower case without its trailing dot.
 */
static bool
host_name_parse(const char *text, size_t len, char *host, const char **why)
{
	size_t		label = 0;

	if (len > 0 && text[len - 1] == '.')
		len--;
	if (len == 0)
	{
		*why = "the host is missing";
		return false;
	}
	if (len > URL_MAX_HOST)
	{
		*why = "the host is longer than 253 characters";
		return false;
	}
	for (size_t i = 0; i <= len; i++)
	{
		char		c = i < len ? text[i] : '.';

		if (c == '.')
		{
			if (label == 0 || label > 63)
			{
				*why = "the host has an empty or too long label";
				return false;
			}
			if (text[i - 1] == '-' || text[i - label] == '-')
			{
				*why = "a label of the host begins or ends with a hyphen";
				return false;
			}
			label = 0;
		}
		else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
			label++;
		else if (c >= 'A' && c <= 'Z')
		{
			c += 'a' - 'A';
			label++;
		}
		else
		{
			*why = "the host contains a character that is not allowed in host names (international names must be given in their xn-- form)";
			return false;
		}
		if (i < len)
			host[i] = c;
	}
	host[len] = '\0';
	return true;
}

/* Would some resolver read this name as an IPv4 address, however odd? */
static bool
looks_like_ipv4(const char *host)
{
	const char *last = strrchr(host, '.');

	last = last ? last + 1 : host;
	if (last[0] == '0' && last[1] == 'x')
		return strspn(last + 2, "0123456789abcdef") == strlen(last + 2);
	return strspn(last, "0123456789") == strlen(last);
}

/* "host", "1.2.3.4" or "[v6]", each with an optional ":port".  *port stays as it is if none is given. */
static bool
host_port_parse(const char *text, size_t len, char *host, NetAddress *address,
				bool *is_address, int *port, const char **why)
{
	const char *end = text + len;
	const char *rest;

	*is_address = false;
	if (len > 0 && text[0] == '[')
	{
		char		literal[INET6_ADDRSTRLEN];
		const char *close = memchr(text, ']', len);
		size_t		n = close ? close - text - 1 : 0;

		if (close == NULL || n >= sizeof(literal))
		{
			*why = "the IPv6 address in brackets is not valid";
			return false;
		}
		memcpy(literal, text + 1, n);
		literal[n] = '\0';
		/* inet_pton takes no zone id, which is what we want */
		if (strlen(literal) != n || inet_pton(AF_INET6, literal, address->bytes) != 1)
		{
			*why = "the IPv6 address in brackets is not valid (zone ids are not supported)";
			return false;
		}
		*is_address = true;
		net_address_text(address, host);
		rest = close + 1;
	}
	else
	{
		const char *colon = memchr(text, ':', len);
		size_t		n = colon ? (size_t) (colon - text) : len;

		if (!host_name_parse(text, n, host, why))
			return false;
		if (looks_like_ipv4(host))
		{
			if (text[n - 1] == '.' || strchr(host, ':') != NULL || !net_address_parse(host, address))
			{
				*why = "the host looks like an IPv4 address but is not in dotted decimal form";
				return false;
			}
			*is_address = true;
		}
		rest = text + n;
	}

	if (rest < end)
	{
		int			value = 0;

		if (*rest++ != ':' || rest == end || end - rest > 5)
		{
			*why = "the port is not valid";
			return false;
		}
		for (; rest < end; rest++)
		{
			if (*rest < '0' || *rest > '9')
			{
				*why = "the port is not valid";
				return false;
			}
			value = value * 10 + (*rest - '0');
		}
		if (value < 1 || value > 65535)
		{
			*why = "the port is not between 1 and 65535";
			return false;
		}
		*port = value;
	}
	return true;
}

bool
url_parse(const char *url, UrlParts *parts, const char **why)
{
	size_t		len = strnlen(url, URL_MAX_LENGTH + 1);
	const char *authority;
	size_t		n;

	memset(parts, 0, sizeof(*parts));
	if (len > URL_MAX_LENGTH)
	{
		*why = "it is longer than 8192 bytes";
		return false;
	}
	for (size_t i = 0; i < len; i++)
	{
		if (url[i] <= ' ' || url[i] >= 0x7f)
		{
			*why = "it contains a space, a control character or a character outside ASCII; such characters must be percent-encoded";
			return false;
		}
		if (strchr("\\\"<>^`{|}", url[i]) != NULL)
		{
			*why = "it contains a character that must be percent-encoded";
			return false;
		}
	}
	if (strncasecmp(url, "https://", 8) == 0)
		authority = url + 8;
	else if (strncasecmp(url, "http://", 7) == 0)
	{
		authority = url + 7;
		parts->is_plain = true;
	}
	else
	{
		*why = "it does not begin with https:// or http://";
		return false;
	}
	parts->port = parts->is_plain ? 80 : 443;

	n = strcspn(authority, "/?#");
	if (memchr(authority, '@', n) != NULL)
	{
		*why = "it contains a user name or password";
		return false;
	}
	if (memchr(authority, '%', n) != NULL)
	{
		*why = "its host is percent-encoded";
		return false;
	}
	return host_port_parse(authority, n, parts->host, &parts->address,
						   &parts->is_address, &parts->port, why);
}

bool
url_same_origin(const char *one, const char *other)
{
	UrlParts	a;
	UrlParts	b;
	const char *why;

	return one != NULL && other != NULL && url_parse(one, &a, &why) && url_parse(other, &b, &why) &&
		a.is_plain == b.is_plain && a.port == b.port && strcmp(a.host, b.host) == 0;
}

bool
host_rule_parse(const char *text, size_t len, HostRule *rule, const char **why)
{
	memset(rule, 0, sizeof(*rule));
	if (len >= 2 && text[0] == '*' && text[1] == '.')
	{
		rule->is_wildcard = true;
		text += 2;
		len -= 2;
	}
	if (!host_port_parse(text, len, rule->host, &rule->address, &rule->is_address, &rule->port, why))
		return false;
	if (rule->is_wildcard && rule->is_address)
	{
		*why = "a wildcard must be followed by a domain";
		return false;
	}
	return true;
}

bool
host_rule_matches(const HostRule *rule, const UrlParts *parts)
{
	if (rule->port != 0 && rule->port != parts->port)
		return false;
	if (rule->is_address != parts->is_address)
		return false;
	if (rule->is_address)
		return memcmp(&rule->address, &parts->address, sizeof(NetAddress)) == 0;
	if (rule->is_wildcard)
	{
		size_t		domain = strlen(rule->host);
		size_t		host = strlen(parts->host);

		return host > domain + 1 &&
			parts->host[host - domain - 1] == '.' &&
			strcmp(parts->host + host - domain, rule->host) == 0;
	}
	return strcmp(rule->host, parts->host) == 0;
}

bool
network_rule_parse(const char *text, size_t len, NetworkRule *rule, const char **why)
{
	char		address[INET6_ADDRSTRLEN];
	const char *slash = memchr(text, '/', len);
	size_t		n = slash ? (size_t) (slash - text) : len;
	int			width;

	memset(rule, 0, sizeof(*rule));
	if (n >= sizeof(address))
		n = 0;
	memcpy(address, text, n);
	address[n] = '\0';
	if (strlen(address) != n || !net_address_parse(address, &rule->prefix))
	{
		*why = "it is not an address range such as 10.0.0.0/8 or fd00::/8";
		return false;
	}
	width = strchr(address, ':') ? 128 : 32;
	rule->bits = width;
	if (slash != NULL)
	{
		size_t		digits = len - n - 1;
		int			bits = 0;

		for (size_t i = 0; i < digits; i++)
		{
			char		c = slash[1 + i];

			bits = (c >= '0' && c <= '9' && i < 3) ? bits * 10 + (c - '0') : 1000;
			if (bits > width)
				break;
		}
		if (digits == 0 || bits > width)
		{
			*why = "its prefix length is not valid";
			return false;
		}
		rule->bits = bits;
	}
	if (width == 32)
		rule->bits += 96;
	for (int i = rule->bits; i < 128; i++)
	{
		if (rule->prefix.bytes[i / 8] & (0x80 >> (i % 8)))
		{
			*why = "it has bits set to the right of its prefix length";
			return false;
		}
	}
	return true;
}
