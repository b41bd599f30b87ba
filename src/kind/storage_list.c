/*-------------------------------------------------------------------------
 * storage_list.c
 *	  Listing blobs, page by page, and waiting for some to be there
 *
 * Runs in the conductor.  What has been listed so far is in call->scratch,
 * which a crash loses: the list is made again then.  A list has at most
 * max_files names, the first ones in the order of the service; "truncated"
 * says that there are more.
 *
 * A wait is a list made again and again.  Between two of them it remembers
 * only a fingerprint of what it saw, for "stable".
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"
#include "xml.h"

#define DEFAULT_MAX_FILES	1000
#define PAGE_SIZE			1000
#define MAX_PAGES			10000

bool
storage_glob(const char *pattern, const char *name)
{
	size_t		pattern_len = strlen(pattern);
	size_t		name_len = strlen(name);
	bool	   *now = mem_alloc0(name_len + 1);
	bool		result;

	/* now[i]: the pattern up to here matches the first i bytes */
	now[0] = true;
	for (size_t p = 0; p < pattern_len; p++)
	{
		bool		any = pattern[p] == '*' && pattern[p + 1] == '*';
		bool		before = false; /* now[i - 1] of the round before */

		for (size_t i = 0; i <= name_len; i++)
		{
			bool		was = now[i];

			if (pattern[p] == '*')
				now[i] = was || (i > 0 && now[i - 1] && (any || name[i - 1] != '/'));
			else
				now[i] = i > 0 && before &&
					(pattern[p] == name[i - 1] || (pattern[p] == '?' && name[i - 1] != '/'));
			before = was;
		}
		if (any)
			p++;
	}
	result = now[name_len];
	mem_free(now);
	return result;
}

void
storage_list_request(const KindCall *call, KindRequest *request)
{
	const char *prefix = kind_string(call->spec, "prefix");
	const char *marker = kind_string(call->scratch, "marker");
	StrBuf		url;

	strbuf_init(&url);
	strbuf_addstr(&url, storage_url(call->base_url, kind_string(call->spec, "container"), NULL));
	strbuf_printf(&url, "?restype=container&comp=list&maxresults=%d", PAGE_SIZE);
	/* folders of a hierarchical namespace are in the list, and told by what they are made of */
	if (kind_string(call->options, "dfs_url") != NULL)
		strbuf_addstr(&url, "&include=metadata");
	if (prefix != NULL)
	{
		strbuf_addstr(&url, "&prefix=");
		kind_url_encode(&url, prefix);
	}
	if (marker != NULL)
	{
		strbuf_addstr(&url, "&marker=");
		kind_url_encode(&url, marker);
	}
	request->method = "GET";
	request->url = url.data;
	request->headers = storage_headers(call);
	request->accept = "application/xml";
	request->is_repeatable = true;
}

/* One page while it is being read. */
typedef struct Page
{
	const char *glob;
	size_t		prefix_len;		/* of what the glob is not about */
	int64		max_files;
	int64		n;				/* files so far, those of earlier pages too */
	cJSON	   *files;
	bool		truncated;
	char	   *marker;
	bool		is_list;		/* the root is what it should be */
	/* of the blob at hand */
	char	   *name;
	char	   *etag;
	char	   *modified;
	char	   *md5;
	int64		size;
	bool		is_directory;
} Page;

/* The blob at hand is complete. */
static void
add_file(Page *page)
{
	cJSON	   *file;
	int64		modified_ms;

	if (page->name == NULL || page->is_directory || strlen(page->name) < page->prefix_len ||
		(page->glob != NULL && !storage_glob(page->glob, page->name + page->prefix_len)))
		return;
	if (page->n >= page->max_files)
	{
		page->truncated = true;
		return;
	}
	file = cJSON_CreateObject();
	cJSON_AddStringToObject(file, "name", page->name);
	cJSON_AddItemToObject(file, "size", json_from_int64(page->size));
	if (page->etag != NULL)
		cJSON_AddStringToObject(file, "etag", page->etag);
	if (storage_date_parse(page->modified, &modified_ms))
		cJSON_AddStringToObject(file, "modified", kind_time_text(modified_ms));
	if (page->md5 != NULL)
		cJSON_AddStringToObject(file, "md5", page->md5);
	cJSON_AddItemToArray(page->files, file);
	page->n++;
}

static void
list_element(void *arg, const char *path, const char *text, bool is_encoded)
{
	static const char blob[] = "/EnumerationResults/Blobs/Blob";
	Page	   *page = arg;
	size_t		len = strlen(text);

	if (strcmp(path, "/EnumerationResults") == 0)
		page->is_list = true;
	else if (strcmp(path, "/EnumerationResults/NextMarker") == 0 && len > 0)
		page->marker = mem_strdup(text);
	if (strncmp(path, blob, sizeof(blob) - 1) != 0)
		return;
	path += sizeof(blob) - 1;
	if (*path == '\0')
	{
		add_file(page);
		page->name = page->etag = page->modified = page->md5 = NULL;
		page->size = 0;
		page->is_directory = false;
	}
	else if (strcmp(path, "/Name") == 0)
		page->name = is_encoded ? storage_decode(text, len) : mem_strdup(text);
	else if (strcmp(path, "/Properties/Etag") == 0 && len > 0)
		page->etag = storage_etag(text, len);
	else if (strcmp(path, "/Properties/Last-Modified") == 0)
		page->modified = mem_strdup(text);
	else if (strcmp(path, "/Properties/Content-MD5") == 0 && len > 0)
		page->md5 = kind_clean_text(text, len, 100);
	else if (strcmp(path, "/Properties/Content-Length") == 0)
		page->size = strtoll(text, NULL, 10);
	else if (strcmp(path, "/Properties/ResourceType") == 0)
		page->is_directory |= strcmp(text, "directory") == 0;
	else if (strcmp(path, "/Metadata/hdi_isfolder") == 0)
		page->is_directory |= strcmp(text, "true") == 0;
}

static void
scratch_set(const KindCall *call, const char *name, cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(call->scratch, name);
	if (value != NULL)
		cJSON_AddItemToObject(call->scratch, name, value);
}

/* Add the page of an answer to the list so far; false: it is no page. */
static bool
read_page(const KindCall *call, const KindResponse *response, const char **error)
{
	const char *prefix = kind_string(call->spec, "prefix");
	int64		n_before;
	Page		page;

	memset(&page, 0, sizeof(page));
	page.files = cJSON_GetObjectItemCaseSensitive(call->scratch, "files");
	if (page.files == NULL)
		page.files = cJSON_AddArrayToObject(call->scratch, "files");
	page.n = n_before = cJSON_GetArraySize(page.files);
	page.glob = kind_string(call->spec, "glob");
	page.prefix_len = prefix ? strlen(prefix) : 0;
	page.max_files = kind_int64(call->spec, "max_files", DEFAULT_MAX_FILES);
	if (!xml_read(response->body, response->body_len, list_element, &page, error) || !page.is_list)
	{
		/* it will be asked for again */
		while (page.n > n_before)
			cJSON_DeleteItemFromArray(page.files, (int) --page.n);
		if (*error == NULL)
			*error = "is no list of blobs";
		return false;
	}
	scratch_set(call, "marker", page.marker && !page.truncated ? cJSON_CreateString(page.marker) : NULL);
	if (page.truncated)
		scratch_set(call, "truncated", cJSON_CreateTrue());
	return true;
}

static void
forget_list(const KindCall *call)
{
	scratch_set(call, "files", NULL);
	scratch_set(call, "marker", NULL);
	scratch_set(call, "truncated", NULL);
	scratch_set(call, "pages", NULL);
}

/* The list is complete: files, their count and bytes. */
static cJSON *
list_output(const KindCall *call)
{
	const cJSON *files = kind_member(call->scratch, "files");
	cJSON	   *output = cJSON_CreateObject();
	const cJSON *file;
	int64		bytes = 0;

	cJSON_ArrayForEach(file, files)
		bytes += kind_int64(file, "size", 0);
	cJSON_AddNumberToObject(output, "count", cJSON_GetArraySize(files));
	cJSON_AddItemToObject(output, "bytes", json_from_int64(bytes));
	cJSON_AddItemToObject(output, "files", cJSON_Duplicate(files, true));
	cJSON_AddBoolToObject(output, "truncated", kind_member(call->scratch, "truncated") != NULL);
	return output;
}

/* Names, sizes and ETags of the list as one number */
static char *
fingerprint(const cJSON *files)
{
	char	   *text = json_text(files);
	uint64		hash = UINT64_C(14695981039346656037);

	for (const char *p = text; *p != '\0'; p++)
		hash = (hash ^ (unsigned char) *p) * UINT64_C(1099511628211);
	mem_free(text);
	return mem_printf("%llx", (unsigned long long) hash);
}

/*
 * How many of the files count: those old enough.  Ages are those of the
 * service's clock, if it says what time it is.
 */
static int64
ripe_files(const KindCall *call, const KindResponse *response)
{
	int64		min_age_ms = kind_int64(call->spec, "min_age_seconds", 0) * 1000;
	int64		service_ms = call->now_ms;
	const cJSON *file;
	int64		n = 0;

	(void) storage_date_parse(kind_header(response, "Date"), &service_ms);
	cJSON_ArrayForEach(file, kind_member(call->scratch, "files"))
	{
		int64		modified_ms;

		if (min_age_ms <= 0 ||
			(kind_time_parse(kind_string(file, "modified"), &modified_ms) && modified_ms + min_age_ms <= service_ms))
			n++;
	}
	return n;
}

static void
look_at_list(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *files = kind_member(call->scratch, "files");
	int64		needed = kind_int64(call->spec, "min_count", 1);
	int64		within_ms = kind_int64(call->spec, "within_seconds", 0) * 1000;
	int64		every_ms = kind_int64(call->spec, "every_seconds", 0) * 1000;
	int64		n = ripe_files(call, response);
	char	   *seen = fingerprint(files);
	const char *before = kind_string(call->scratch, "seen");
	bool		is_stable = !cJSON_IsTrue(kind_member(call->spec, "stable")) ||
		(before != NULL && strcmp(before, seen) == 0);

	/* every file that is there must have come to rest, or half of one is taken along */
	if (n >= needed && n == cJSON_GetArraySize(files) && is_stable)
	{
		verdict->outcome = KIND_SUCCEEDED;
		verdict->output = list_output(call);
		return;
	}
	if (within_ms > 0 && call->now_ms >= call->intended_at_ms + within_ms)
	{
		kind_fail(verdict, true, false, "files_missing",
				  mem_printf(INT64_FORMAT " of " INT64_FORMAT " files are there and at rest after " INT64_FORMAT " seconds",
							 n, needed, within_ms / 1000));
		return;
	}
	scratch_set(call, "seen", cJSON_CreateString(seen));
	forget_list(call);
	storage_go_on(verdict, every_ms > 0 ? every_ms : -1);
	if (within_ms > 0 && every_ms > 0)
		verdict->delay_ms = Min(every_ms, Max(call->intended_at_ms + within_ms - call->now_ms, 0));
}

void
storage_list_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int64		pages = kind_int64(call->scratch, "pages", 0) + 1;
	const char *error;

	if (storage_common_response(call, response, verdict))
		return;
	if (response->http_status != 200)
	{
		forget_list(call);
		storage_fail(call, response, "the list was refused", verdict);
		return;
	}
	if (!read_page(call, response, &error))
	{
		storage_bad_answer(call, response, error, verdict);
		return;
	}
	scratch_set(call, "pages", json_from_int64(pages));
	if (kind_member(call->scratch, "marker") != NULL)
	{
		if (pages >= MAX_PAGES)
			kind_fail(verdict, true, false, "too_many_pages", "the list has more than 10000 pages; give a longer \"prefix\"");
		else
			storage_go_on(verdict, 0);
	}
	else if (storage_operation(call->spec) == STORAGE_WAIT)
		look_at_list(call, response, verdict);
	else
	{
		verdict->outcome = KIND_SUCCEEDED;
		verdict->output = list_output(call);
	}
}
