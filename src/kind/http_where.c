/*-------------------------------------------------------------------------
 * http_where.c
 *	  Kind http: the addresses of the further exchanges
 *
 * Runs in the conductor; pure.  A pattern of the spec is joined to the
 * connection's base URL.  A link of an answer is followed only within the
 * origin of the base URL or of the first request, or to a host the spec
 * allows; credentials, and the headers beside them, go to the origin of the
 * base URL and nowhere else.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"

/* "{id}" and "{token}" replaced; encoded: as parts of a URL */
static char *
fill_in_text(const KindCall *call, const char *pattern, bool encoded)
{
	StrBuf		buf;

	strbuf_init(&buf);
	for (const char *p = pattern; *p != '\0'; p++)
	{
		const char *value = NULL;
		size_t		len = 0;

		if (strncmp(p, "{id}", 4) == 0)
		{
			value = call->external_run_id ? call->external_run_id : "";
			len = 4;
		}
		else if (strncmp(p, "{token}", 7) == 0)
		{
			value = call->token;
			len = 7;
		}
		if (value == NULL)
		{
			strbuf_addchar(&buf, *p);
			continue;
		}
		if (encoded)
			kind_url_encode(&buf, value);
		else
			strbuf_addstr(&buf, value);
		p += len - 1;
	}
	return buf.data;
}

/* Depth is that of a spec, which is bounded */
static void
fill_in(const KindCall *call, cJSON *tree)
{
	cJSON	   *item;

	cJSON_ArrayForEach(item, tree)
	{
		if (cJSON_IsString(item) && strchr(item->valuestring, '{') != NULL)
			(void) cJSON_SetValuestring(item, fill_in_text(call, item->valuestring, false));
		else if (cJSON_IsObject(item) || cJSON_IsArray(item))
			fill_in(call, item);
	}
}

cJSON *
http_fill_in_all(const KindCall *call, const cJSON *tree)
{
	cJSON	   *copy = cJSON_Duplicate(tree, true);

	if (cJSON_IsString(copy))
	{
		char	   *text = fill_in_text(call, copy->valuestring, false);

		cJSON_Delete(copy);
		return cJSON_CreateString(text);
	}
	fill_in(call, copy);
	return copy;
}

char *
http_start_url(const KindCall *call)
{
	KindRequest request = {0};
	KindProblem ignored = {0};

	return http_build_url(call, &request, &ignored) ? (char *) request.url : NULL;
}

char *
http_follow(const KindCall *call, const char *link, const char *asked, const char **problem)
{
	char	   *url = kind_resolve_link(asked, link);
	char	   *shown = kind_clean_text(link, Min(strlen(link), 500), 500);

	*problem = NULL;
	shown[strcspn(shown, "?#")] = '\0'; /* what follows the path may be confidential */
	if (url == NULL)
		*problem = mem_printf("the answer names an address that is none: %s", shown);
	else if (!kind_same_origin(url, call->base_url) && !kind_same_origin(url, http_start_url(call)) &&
			 !kind_host_is_listed(kind_member(call->spec, "allow_hosts"), url))
		*problem = mem_printf("the answer leads to another host, which is not in \"allow_hosts\": %s", shown);
	return *problem ? NULL : url;
}

static char *
pattern_url(const KindCall *call, const cJSON *where, const char *path)
{
	char	   *filled = fill_in_text(call, path, true);
	const cJSON *query = kind_member(where, "query");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s%s%s", call->base_url, *filled == '/' || *filled == '?' ? "" : "/", filled);
	if (query != NULL)
	{
		cJSON	   *copy = http_fill_in_all(call, query);

		http_add_query(&url, copy);
		cJSON_Delete(copy);
	}
	mem_free(filled);
	return url.data;
}

char *
http_where(const KindCall *call, const cJSON *where, const KindResponse *response, const cJSON *body,
		   const char *asked, const char **problem)
{
	const char *path = kind_string(where, "path");
	const char *header = kind_string(where, "header");
	const char *json = kind_string(where, "json");
	const char *link;

	*problem = NULL;
	if (path != NULL)
	{
		char	   *url = pattern_url(call, where, path);

		if (call->base_url != NULL && *call->base_url != '\0' && strlen(url) <= HTTP_MAX_URL && !kind_path_climbs(url + strlen(call->base_url)))
			return url;
		*problem = "the path gives no address below the connection's base URL";
		return NULL;
	}
	link = header ? kind_header(response, header) : json_string(jsonpath_find(body, json));
	if (link == NULL || *link == '\0')
		return NULL;
	return http_follow(call, link, asked, problem);
}

void
http_get(const KindCall *call, const char *url, KindRequest *request)
{
	request->method = "GET";
	request->url = mem_strdup(url);
	request->is_repeatable = true;
	request->without_auth = !kind_same_origin(url, call->base_url);
	if (!request->without_auth)
		request->headers = http_build_headers(call, request);
}
