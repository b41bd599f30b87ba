/*-------------------------------------------------------------------------
 * link.c
 *	  The addresses services send us on to
 *
 * Runs in the conductor; pure.  What an answer names as the next address is
 * from outside: it is resolved against the address that was asked, parsed as
 * strictly as the URL policy does (which looks at it again before anything is
 * sent), and its origin decides whether it may be followed and whether the
 * connection's credentials may go there.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "kind_int.h"
#include "../net/urlparse.h"

/* rel="next" among the parameters of a link, up to end? */
static bool
is_next(const char *p, const char *end)
{
	for (; p + 8 <= end; p++)
	{
		if (strncasecmp(p, "rel=next", 8) == 0 || (p + 10 <= end && strncasecmp(p, "rel=\"next\"", 10) == 0))
			return true;
	}
	return false;
}

/* Link: <https://...>; rel="next", <...>; rel="last" */
char *
kind_link_header(const KindResponse *response)
{
	char	   *value = kind_header(response, "Link");
	const char *p = value;

	while (p != NULL && (p = strchr(p, '<')) != NULL)
	{
		const char *close = strchr(p, '>');
		const char *end;

		if (close == NULL)
			break;
		end = strchr(close, '<');
		if (is_next(close, end ? end : close + strlen(close)))
			return mem_strndup(p + 1, close - p - 1);
		p = close;
	}
	return NULL;
}

bool
kind_same_origin(const char *one, const char *other)
{
	return url_same_origin(one, other);
}

/* A segment ".." in the path?  Only asked of relative links. */
static bool
has_parent_segment(const char *text)
{
	size_t		path = strcspn(text, "?");

	for (size_t i = 0; i + 1 < path; i++)
	{
		if (text[i] == '.' && text[i + 1] == '.')
			return true;
	}
	return false;
}

/* Without what follows the last slash of the path, or without the query */
static void
add_base(StrBuf *url, const char *base, char first)
{
	size_t		authority = strstr(base, "://") - base + 3;
	size_t		len = strcspn(base, "?#");
	size_t		host = authority + strcspn(base + authority, "/?#");

	if (first == '/')
		strbuf_add(url, base, host);
	else if (first == '?')
		strbuf_add(url, base, len);
	else
	{
		while (len > host && base[len - 1] != '/')
			len--;
		strbuf_add(url, base, len);
		if (len == host)
			strbuf_addchar(url, '/');
	}
}

char *
kind_resolve_link(const char *base, const char *link)
{
	StrBuf		url;
	UrlParts	parts;
	const char *why;
	size_t		len = link ? strcspn(link, "#") : 0;

	if (len == 0 || len > URL_MAX_LENGTH || base == NULL || !url_parse(base, &parts, &why))
		return NULL;
	for (size_t i = 0; i < len; i++)
	{
		if (link[i] <= ' ' || (unsigned char) link[i] >= 0x7F || link[i] == '\\')
			return NULL;
	}
	strbuf_init(&url);
	if (strncasecmp(link, "http://", 7) != 0 && strncasecmp(link, "https://", 8) != 0)
	{
		/* "//host", other schemes, and ways up are nothing a service has to send */
		if (strncmp(link, "//", 2) == 0 || has_parent_segment(link) ||
			strcspn(link, ":") < strcspn(link, "/?"))
			return NULL;
		add_base(&url, base, *link);
	}
	strbuf_add(&url, link, len);
	return url.len <= URL_MAX_LENGTH && url_parse(url.data, &parts, &why) ? url.data : NULL;
}

bool
kind_host_is_listed(const cJSON *hosts, const char *url)
{
	const cJSON *item;
	UrlParts	parts;
	const char *why;

	if (!cJSON_IsArray(hosts) || !url_parse(url, &parts, &why))
		return false;
	cJSON_ArrayForEach(item, hosts)
	{
		HostRule	rule;
		const char *text = json_string(item);

		if (text != NULL && host_rule_parse(text, strlen(text), &rule, &why) && host_rule_matches(&rule, &parts))
			return true;
	}
	return false;
}

/* "90 seconds", "1.5 minutes", 30: milliseconds, -1 if it is none */
int64
kind_duration_ms(const cJSON *item)
{
	static const struct
	{
		const char *unit;
		double		ms;
	}			units[] = {
		{"ms", 1}, {"milliseconds", 1}, {"millisecond", 1}, {"s", 1000}, {"second", 1000}, {"seconds", 1000},
		{"min", 60000}, {"minute", 60000}, {"minutes", 60000}, {"h", 3600000}, {"hour", 3600000}, {"hours", 3600000},
		{"day", 86400000}, {"days", 86400000},
	};
	const char *text = json_string(item);
	double		number;
	char	   *end;

	if (text == NULL)
		return json_double(item, &number) && number >= 0 && number <= 31 * 86400.0 ? (int64) (number * 1000) : -1;
	if (*text < '0' || *text > '9' || strlen(text) > 40)
		return -1;
	number = strtod(text, &end);
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < lengthof(units); i++)
	{
		if (strcmp(units[i].unit, end) == 0 && number * units[i].ms <= 31 * 86400000.0)
			return (int64) (number * units[i].ms);
	}
	return -1;
}
