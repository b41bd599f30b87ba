/*-------------------------------------------------------------------------
 * http_pages.c
 *	  Kind http: answers in pages
 *
 * Runs in the conductor.  The items of all pages become one list, bounded by
 * max_pages and max_bytes; what is more is an error, unless the spec says
 * "truncate".  Pages are only read, so they are kept in memory (scratch) and
 * a crash begins with the first again.
 *
 * scratch: items, bytes, pages, page_url, cursor.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"

#define DEFAULT_PAGES	100
#define DEFAULT_BYTES	(1024 * 1024)

/* In the place of what the scratch had by that name */
static void
keep(const KindCall *call, const char *name, cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, name);
	cJSON_AddItemToObject(call->scratch, name, value);
}

/* url with the parameter, which it may have already */
static char *
with_parameter(const char *url, const char *name, const char *value)
{
	size_t		path = strcspn(url, "?");
	const char *p = url + path;
	char		separator = '?';
	StrBuf		result;
	StrBuf		encoded;

	strbuf_init(&encoded);
	kind_url_encode(&encoded, name);
	strbuf_addchar(&encoded, '=');
	strbuf_init(&result);
	strbuf_add(&result, url, path);
	while (*p != '\0')
	{
		size_t		len = strcspn(++p, "&");

		if (len > 0 && strncmp(p, encoded.data, encoded.len) != 0)
		{
			strbuf_addchar(&result, separator);
			strbuf_add(&result, p, len);
			separator = '&';
		}
		p += len;
	}
	strbuf_addchar(&result, separator);
	strbuf_addstr(&result, encoded.data);
	kind_url_encode(&result, value);
	return result.data;
}

/* The value that asks for the next page, or NULL at the end */
static char *
next_value(const KindCall *call, const cJSON *body, int found)
{
	const cJSON *pages = kind_member(call->spec, "pages");
	const cJSON *cursor = kind_member(pages, "cursor");
	const cJSON *number = kind_member(pages, "number");
	const cJSON *item;
	char	   *text;

	if (number != NULL)
		return found == 0 ? NULL :
			mem_printf(INT64_FORMAT, kind_int64(number, "first", 1) + kind_int64(call->scratch, "pages", 0));
	item = jsonpath_find(body, kind_string(cursor, "json"));
	if (item == NULL || cJSON_IsNull(item) || cJSON_IsFalse(item) || cJSON_IsObject(item) || cJSON_IsArray(item))
		return NULL;
	text = kind_scalar_text(item);
	return *text != '\0' && strlen(text) <= 4000 ? text : NULL;
}

/* Where the next page is: scratch says it.  False at the end, or *problem. */
static bool
find_next(const KindCall *call, const KindResponse *response, const cJSON *body, const char *asked, int found, const char **problem)
{
	const cJSON *pages = kind_member(call->spec, "pages");
	const cJSON *next = kind_member(pages, "next");
	const char *header = kind_string(next, "header");
	const char *last = kind_string(call->scratch, "page_url");
	const char *parameter;
	char	   *value;
	char	   *url;

	*problem = NULL;
	if (next != NULL)
	{
		const char *link = header == NULL ? json_string(jsonpath_find(body, kind_string(next, "json"))) :
			strcmp(header, "Link") == 0 ? kind_link_header(response) : kind_header(response, header);

		url = link != NULL && *link != '\0' ? http_follow(call, link, asked, problem) : NULL;
		if (url == NULL)
			return false;
		if (strcmp(url, last ? last : asked) == 0)
		{
			*problem = "a page names itself as the next one";
			return false;
		}
		keep(call, "page_url", cJSON_CreateString(url));
		return true;
	}
	value = next_value(call, body, found);
	if (value == NULL)
		return false;
	if (kind_string(call->scratch, "cursor") != NULL && strcmp(kind_string(call->scratch, "cursor"), value) == 0)
	{
		*problem = "two pages have the same cursor";
		return false;
	}
	keep(call, "cursor", cJSON_CreateString(value));
	next = kind_member(pages, "cursor") ? kind_member(pages, "cursor") : kind_member(pages, "number");
	parameter = kind_string(next, "parameter");
	url = http_start_url(call);
	if (kind_string(next, "in") == NULL || strcmp(kind_string(next, "in"), "body") != 0)
		url = with_parameter(url, parameter, value);
	keep(call, "page_url", cJSON_CreateString(url));
	return true;
}

static void
ended(const KindCall *call, const KindResponse *response, const cJSON *body, bool truncated, KindVerdict *verdict)
{
	cJSON	   *items = cJSON_DetachItemFromObjectCaseSensitive(call->scratch, "items");
	cJSON	   *output;

	http_succeed(call, response, body, verdict);
	output = verdict->output;
	cJSON_DeleteItemFromObjectCaseSensitive(output, "body");
	cJSON_DeleteItemFromObjectCaseSensitive(output, "truncated");
	cJSON_AddItemToObject(output, "pages", json_from_int64(kind_int64(call->scratch, "pages", 0)));
	if (verdict->rows_read < 0 && kind_string(call->spec, "rows_read") == NULL)
		verdict->rows_read = cJSON_GetArraySize(items);
	cJSON_AddItemToObject(output, "items", items);
	if (truncated)
		cJSON_AddTrueToObject(output, "truncated");
}

/* The items of this page to the others; false: that would be too many bytes */
static bool
take_items(const KindCall *call, const cJSON *found, int64 max_bytes)
{
	cJSON	   *items = cJSON_GetObjectItemCaseSensitive(call->scratch, "items");
	int64		bytes = kind_int64(call->scratch, "bytes", 0);
	const cJSON *item;

	if (items == NULL)
		items = cJSON_AddArrayToObject(call->scratch, "items");
	cJSON_ArrayForEach(item, found)
	{
		char	   *text = json_text(item);

		bytes += (int64) strlen(text) + 1;
		mem_free(text);
		if (bytes > max_bytes)
			return false;
		cJSON_AddItemToArray(items, cJSON_Duplicate(item, true));
	}
	keep(call, "bytes", json_from_int64(bytes));
	return true;
}

void
http_finish(KindCall *call, const KindResponse *response, const cJSON *body, const char *asked, KindVerdict *verdict)
{
	const cJSON *pages = kind_member(call->spec, "pages");
	int64		max_pages = kind_int64(pages, "max_pages", DEFAULT_PAGES);
	int64		max_bytes = kind_int64(pages, "max_bytes", DEFAULT_BYTES);
	int64		n = kind_int64(call->scratch, "pages", 0) + 1;
	bool		truncate = cJSON_IsTrue(kind_member(pages, "truncate"));
	const char *problem = NULL;
	const cJSON *found;
	bool		fits;

	if (!cJSON_IsObject(pages))
	{
		http_succeed(call, response, body, verdict);
		return;
	}
	found = jsonpath_find(body, kind_string(pages, "items"));
	if (!cJSON_IsArray(found))
	{
		kind_fail(verdict, true, false, "bad_answer",
				  mem_printf("page " INT64_FORMAT " has no list at %s", n, kind_string(pages, "items")));
		return;
	}
	keep(call, "pages", json_from_int64(n));
	fits = take_items(call, found, max_bytes);
	if (fits && !find_next(call, response, body, asked, cJSON_GetArraySize(found), &problem))
	{
		if (problem == NULL)
			ended(call, response, body, false, verdict);
		else
			kind_fail(verdict, true, false, "link_not_followed", problem);
		return;
	}
	if (fits && n < max_pages)
	{
		verdict->reset_tries = true;
		kind_continue(verdict, KIND_STEP_DETAIL, 0);
		return;
	}
	if (truncate)
		ended(call, response, body, true, verdict);
	else
		kind_fail(verdict, true, false, "too_many_pages",
				  fits ? mem_printf("there are more than " INT64_FORMAT " pages", max_pages) :
				  mem_printf("the items have more than " INT64_FORMAT " bytes", max_bytes));
}

bool
http_page_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	const cJSON *pages = kind_member(call->spec, "pages");
	const char *url = kind_string(call->scratch, "page_url");
	const cJSON *next = kind_member(pages, "cursor") ? kind_member(pages, "cursor") : kind_member(pages, "number");
	const cJSON *body = kind_member(call->spec, "body");
	cJSON	   *copy;

	if (url == NULL)
		return false;
	http_get(call, url, request);
	/* of a result, or of links, pages are simply fetched */
	if (next == NULL || kind_member(call->spec, "poll") != NULL || kind_member(call->spec, "result") != NULL)
		return true;
	if (!http_method(call->spec, request))
		return kind_problem(problem, "$.method", "unknown method", NULL);
	request->starts_work = false;
	request->is_repeatable = true;
	if (kind_string(next, "in") == NULL || strcmp(kind_string(next, "in"), "body") != 0)
	{
		http_build_body(call->spec, request);
		return true;
	}
	copy = cJSON_CreateObject();
	cJSON_AddItemToObject(copy, "body", cJSON_IsObject(body) ? cJSON_Duplicate(body, true) : cJSON_CreateObject());
	cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(copy, "body"), kind_string(next, "parameter"));
	cJSON_AddStringToObject(cJSON_GetObjectItemCaseSensitive(copy, "body"), kind_string(next, "parameter"),
							kind_string(call->scratch, "cursor"));
	http_build_body(copy, request);
	return true;
}
