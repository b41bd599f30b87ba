/*-------------------------------------------------------------------------
 * urlpolicy.c
 *	  Which hosts and addresses weir may talk to.
 *
 * Two settings, both empty by default, which means: nowhere.  The check hooks
 * (they run in the postmaster and in every process on SIGHUP) parse a list
 * once into a flat array that travels as the setting's "extra"; the checks
 * only read these arrays.  They change when a process handles SIGHUP, which
 * never happens inside a libcurl callback.
 *
 * A URL is read by our own parser and by libcurl's; it is refused when the
 * two see different hosts or ports.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "utils/guc.h"

#include "compat.h"
#include "urlparse.h"
#include "urlpolicy.h"

#define MAX_RULES 1000

typedef struct HostRules
{
	int			n;
	HostRule	rules[FLEXIBLE_ARRAY_MEMBER];
} HostRules;

typedef struct NetworkRules
{
	int			n;
	NetworkRule rules[FLEXIBLE_ARRAY_MEMBER];
} NetworkRules;

static char *allowed_hosts_text;
static char *allowed_networks_text;
static const HostRules *allowed_hosts = NULL;	/* NULL: none */
static const NetworkRules *allowed_networks = NULL;

/*
 * Next element of a comma-separated list, without surrounding white space.
 * False at the end.  *cursor NULL means that the end was reached.
 */
static bool
next_element(const char **cursor, const char **element, size_t *len)
{
	const char *start = *cursor;
	const char *end;

	if (start == NULL)
		return false;
	end = strchr(start, ',');
	*cursor = end ? end + 1 : NULL;
	if (end == NULL)
		end = start + strlen(start);
	while (start < end && strchr(" \t\r\n", *start))
		start++;
	while (end > start && strchr(" \t\r\n", end[-1]))
		end--;
	*element = start;
	*len = end - start;
	return true;
}

/* Number of elements; 0 for an empty text, -1 if there are too many. */
static int
count_elements(const char *text)
{
	int			n = 1;

	if (text[strspn(text, " \t\r\n")] == '\0')
		return 0;
	for (const char *p = text; *p; p++)
		n += (*p == ',');
	return n > MAX_RULES ? -1 : n;
}

static bool
too_many(int n)
{
	if (n >= 0)
		return false;
	GUC_check_errdetail("The list has more than %d entries.", MAX_RULES);
	return true;
}

static void
bad_element(const char *element, size_t len, const char *why)
{
	GUC_check_errdetail("Entry \"%.*s\" is not valid: %s.", (int) Min(len, 300), element, why);
}

static bool
check_allowed_hosts(char **newval, void **extra, GucSource source)
{
	const char *cursor = *newval;
	const char *element;
	size_t		len;
	int			n = count_elements(*newval);
	HostRules  *parsed;

	if (too_many(n))
		return false;
	if (n == 0)
		return true;
	parsed = guc_malloc_compat(offsetof(HostRules, rules) + n * sizeof(HostRule));
	if (parsed == NULL)
		return false;
	parsed->n = 0;
	while (next_element(&cursor, &element, &len))
	{
		const char *why;

		if (!host_rule_parse(element, len, &parsed->rules[parsed->n], &why))
		{
			bad_element(element, len, why);
			GUC_check_errhint("Give host names or addresses, \"*.domain\", each with an optional port, separated by commas.");
			guc_free_compat(parsed);
			return false;
		}
		parsed->n++;
	}
	*extra = parsed;
	return true;
}

static void
assign_allowed_hosts(const char *newval, void *extra)
{
	allowed_hosts = extra;
}

static bool
check_allowed_networks(char **newval, void **extra, GucSource source)
{
	const char *cursor = *newval;
	const char *element;
	size_t		len;
	int			n = count_elements(*newval);
	NetworkRules *parsed;

	if (too_many(n))
		return false;
	if (n == 0)
		return true;
	parsed = guc_malloc_compat(offsetof(NetworkRules, rules) + n * sizeof(NetworkRule));
	if (parsed == NULL)
		return false;
	parsed->n = 0;
	while (next_element(&cursor, &element, &len))
	{
		const char *why;

		if (!network_rule_parse(element, len, &parsed->rules[parsed->n], &why))
		{
			bad_element(element, len, why);
			guc_free_compat(parsed);
			return false;
		}
		parsed->n++;
	}
	*extra = parsed;
	return true;
}

static void
assign_allowed_networks(const char *newval, void *extra)
{
	allowed_networks = extra;
}

void
urlpolicy_define_gucs(void)
{
	DefineCustomStringVariable("weir.allowed_hosts",
							   "Hosts that requests may be sent to.",
							   "Comma-separated list of \"host\", \"*.domain\" or either with \":port\". Empty allows none.",
							   &allowed_hosts_text,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_allowed_hosts, assign_allowed_hosts, NULL);
	DefineCustomStringVariable("weir.allowed_private_networks",
							   "Address ranges that may be used although they are not public.",
							   "Comma-separated list such as 10.1.0.0/16, fd00::/8. Plain http is accepted only for addresses in these ranges.",
							   &allowed_networks_text,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_allowed_networks, assign_allowed_networks, NULL);
}

static bool
address_is_allowed(const NetAddress *address, bool plain)
{
	if (allowed_networks == NULL)
		return net_address_allowed(address, plain, NULL, 0);
	return net_address_allowed(address, plain, allowed_networks->rules, allowed_networks->n);
}

bool
urlpolicy_check_address(const struct sockaddr *address, bool plain)
{
	NetAddress	parsed;

	return net_address_from_sockaddr(address, &parsed) && address_is_allowed(&parsed, plain);
}

bool
urlpolicy_is_metadata_service(const char *url)
{
	static const char path[] = URLPOLICY_METADATA_SERVICE "/metadata/identity/oauth2/token";
	size_t		len = sizeof(path) - 1;

	return strncmp(url, path, len) == 0 && (url[len] == '\0' || url[len] == '?');
}

bool
urlpolicy_is_metadata_address(const struct sockaddr *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *) address;

	return address->sa_family == AF_INET && in->sin_addr.s_addr == htonl(0xA9FEA9FE) &&
		in->sin_port == htons(80);
}

static bool
host_is_allowed(const UrlParts *parts)
{
	if (allowed_hosts == NULL)
		return false;
	for (int i = 0; i < allowed_hosts->n; i++)
	{
		if (host_rule_matches(&allowed_hosts->rules[i], parts))
			return true;
	}
	return false;
}

static bool
same_host(const char *theirs, const UrlParts *ours)
{
	size_t		len = strlen(theirs);

	if (len > 1 && theirs[0] == '[' && theirs[len - 1] == ']')
	{
		char		literal[INET6_ADDRSTRLEN];
		NetAddress	address;

		if (!ours->is_address || len - 2 >= sizeof(literal))
			return false;
		memcpy(literal, theirs + 1, len - 2);
		literal[len - 2] = '\0';
		return net_address_parse(literal, &address) &&
			memcmp(&address, &ours->address, sizeof(address)) == 0;
	}
	if (len > 0 && theirs[len - 1] == '.')
		len--;
	return strlen(ours->host) == len && pg_strncasecmp(theirs, ours->host, len) == 0;
}

/* Does libcurl, which will do the talking, read the same out of the URL? */
static bool
libcurl_agrees(const char *url, const UrlParts *parts)
{
	CURLU	   *handle = curl_url();
	char	   *host = NULL;
	char	   *port = NULL;
	char	   *scheme = NULL;
	bool		agrees;

	if (handle == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	agrees = curl_url_set(handle, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
		curl_url_get(handle, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(handle, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		curl_url_get(handle, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		same_host(host, parts) &&
		atoi(port) == parts->port &&
		strcmp(scheme, parts->is_plain ? "http" : "https") == 0;
	curl_free(host);
	curl_free(port);
	curl_free(scheme);
	curl_url_cleanup(handle);
	return agrees;
}

static bool
refuse(const char **why, char *why_text, const char **hint, char *hint_text)
{
	if (why)
		*why = why_text;
	if (hint)
		*hint = hint_text;
	return false;
}

bool
urlpolicy_check_url(const char *url, const char **why, const char **hint)
{
	UrlParts	parts;
	const char *problem;
	bool		is_ipv6;

	if (!url_parse(url, &parts, &problem))
		return refuse(why, pstrdup(problem), hint, NULL);
	if (!libcurl_agrees(url, &parts))
		return refuse(why, pstrdup("it is ambiguous or not valid"), hint, NULL);
	is_ipv6 = parts.is_address && strchr(parts.host, ':') != NULL;
	if (!host_is_allowed(&parts))
		return refuse(why, psprintf("host \"%s\", port %d is not in weir.allowed_hosts",
									parts.host, parts.port),
					  hint, psprintf("Ask an administrator to add \"%s%s%s\" to weir.allowed_hosts and to reload the configuration.",
									 is_ipv6 ? "[" : "", parts.host, is_ipv6 ? "]" : ""));

	/* names are looked at when they have been resolved, see urlpolicy_check_address */
	if (parts.is_address && !address_is_allowed(&parts.address, parts.is_plain))
	{
		const char *class = net_address_class(&parts.address);

		if (class == NULL)
			return refuse(why, psprintf("address %s may not be used with plain http", parts.host),
						  hint, pstrdup("Use https."));
		return refuse(why, psprintf("address %s (%s) is not in weir.allowed_private_networks",
									parts.host, class),
					  hint, psprintf("Ask an administrator to add \"%s/%d\" or its network to weir.allowed_private_networks and to reload the configuration.",
									 parts.host, is_ipv6 ? 128 : 32));
	}
	return true;
}
