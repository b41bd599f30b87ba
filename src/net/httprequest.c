/*-------------------------------------------------------------------------
 * httprequest.c
 *	  What we ask libcurl to send, and what we forbid it.
 *
 * Runs where httpmux.c runs, outside of libcurl's callbacks.  No state.  The
 * functions return false only when libcurl is out of memory; what a caller
 * did wrong is a text in *problem, which never contains a value of a header.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "httpmux_int.h"

#if LIBCURL_VERSION_NUM < 0x075000
#error "weir needs libcurl 7.80 or later"
#endif

#define MAX_IDLE_SECONDS	60L /* a kept-alive connection older than this is not used again */

bool
request_method_is_valid(const char *method)
{
	size_t		len = strlen(method);

	return len > 0 && len <= 16 && strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == len;
}

/*
 * Is "Name: value" fit to be sent?  NULL, or what is wrong with it.  The
 * message never contains the value.
 */
static const char *
header_problem(const char *line)
{
	static const char *const ours[] = {
		"connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
		"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"
	};
	size_t		n = strspn(line, "!#$%&'*+-.^_`|~0123456789"
						   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");

	if (n == 0 || line[n] != ':')
		return "a header of the request has no valid name";
	for (const char *p = line + n; *p; p++)
	{
		if (((unsigned char) *p < ' ' && *p != '\t') || *p == 0x7f)
			return "a header of the request contains a control character";
	}
	for (size_t i = 0; i < lengthof(ours); i++)
	{
		if (strlen(ours[i]) == n && pg_strncasecmp(line, ours[i], n) == 0)
			return "a header of the request may not be set: Connection, Content-Length, Expect, Host, Transfer-Encoding and the like";
	}
	return NULL;
}

static bool
add_header(HttpTransfer *transfer, const char *line)
{
	struct curl_slist *list = curl_slist_append(transfer->headers, line);

	if (list == NULL)
		return false;
	transfer->headers = list;
	return true;
}

/* "Name: value" lines as libcurl wants them. */
bool
request_copy_headers(HttpTransfer *transfer, const char *const *headers, const char **problem)
{
	bool		has_content_type = false;

	for (; headers && *headers; headers++)
	{
		const char *colon = strchr(*headers, ':');
		char		empty[128];

		*problem = header_problem(*headers);
		if (*problem)
			return true;
		if (pg_strncasecmp(*headers, "content-type:", 13) == 0)
			has_content_type = true;
		if (colon[1 + strspn(colon + 1, " \t")] == '\0')
		{
			/* "Name:" would tell libcurl to leave the header out; "Name;" is an empty one */
			snprintf(empty, sizeof(empty), "%.*s;", (int) (colon - *headers), *headers);
			if (!add_header(transfer, empty))
				return false;
		}
		else if (!add_header(transfer, *headers))
			return false;
	}
	/* no form encoding by default, no waiting for 100 Continue */
	return (has_content_type || add_header(transfer, "Content-Type:")) &&
		add_header(transfer, "Expect:");
}

bool
request_set_up(CURL *easy, HttpTransfer *transfer, const char *method, const char *url)
{
	SET(CURLOPT_URL, url);
	SET(CURLOPT_HTTPHEADER, transfer->headers);
	if (strcmp(method, "HEAD") == 0)
		SET(CURLOPT_NOBODY, 1L);
	else if (transfer->request_body == NULL &&
			 strcmp(method, "POST") != 0 && strcmp(method, "PUT") != 0 && strcmp(method, "PATCH") != 0)
	{
		SET(CURLOPT_HTTPGET, 1L);
		SET(CURLOPT_CUSTOMREQUEST, method);
	}
	else
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) transfer->request_body_len);
		SET(CURLOPT_POSTFIELDS, transfer->request_body ? transfer->request_body : "");
		SET(CURLOPT_CUSTOMREQUEST, method);
	}
	return true;
}

/* What is the same for every request: who we are and what we refuse to do. */
bool
request_set_policy(CURL *easy, const char *ca_file)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
	SET(CURLOPT_REDIR_PROTOCOLS, (long) CURLPROTO_HTTPS);
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");		/* not even one from the environment */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (ca_file)
	{
		SET(CURLOPT_CAINFO, ca_file);
		SET(CURLOPT_CAPATH, NULL);	/* this file instead of the system's, not besides */
	}
	if (info->features & CURL_VERSION_HTTP2)
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	if (info->features & CURL_VERSION_LIBZ)
		SET(CURLOPT_ACCEPT_ENCODING, "gzip");
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
#if LIBCURL_VERSION_NUM >= 0x075700

	/*
	 * Without this, giving up on a name that does not resolve would wait for
	 * the resolver's thread, seconds in which this process stands still.  The
	 * thread is detached instead and cleans up after itself.
	 */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	return true;
}
