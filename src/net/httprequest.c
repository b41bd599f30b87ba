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

#include <openssl/hmac.h>

#include "httpmux_int.h"

#if LIBCURL_VERSION_NUM < 0x075000
#error "weir needs libcurl 7.80 or later"
#endif

#define POOL_KEY_BYTES		32
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
request_set_policy(CURL *easy)
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
	SET(CURLOPT_NOPROXY, "");	/* nor an exception from there */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
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

/*
 * The system's authorities as text, malloc'd, where libcurl has them in one
 * file and no directory: what is given as text replaces a file.
 */
static char *
system_authorities(void)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
	FILE	   *file;
	char	   *text = NULL;
	long		size;

	if (info->capath != NULL || info->cainfo == NULL || (file = fopen(info->cainfo, "r")) == NULL)
		return NULL;
	if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0 &&
		(text = malloc(size + 1)) != NULL)
		text[fread(text, 1, size, file)] = '\0';
	fclose(file);
	return text;
}

static bool
set_authorities(CURL *easy, const char *pem, bool besides_system, bool has_proxy)
{
	char	   *others = besides_system || has_proxy ? system_authorities() : NULL;
	char	   *both = others ? malloc(strlen(pem) + strlen(others) + 2) : NULL;
	struct curl_blob alone = {unconstify(char *, pem), strlen(pem), CURL_BLOB_COPY};
	struct curl_blob more = alone;
	bool		ok = others == NULL || both != NULL;

	if (both != NULL)
	{
		sprintf(both, "%s\n%s", pem, others);
		more.data = both;
		more.len = strlen(both);
	}
	if (!besides_system)
		ok = ok && curl_easy_setopt(easy, CURLOPT_CAINFO, NULL) == CURLE_OK &&
			curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, besides_system ? &more : &alone) == CURLE_OK &&
		(!has_proxy || curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO_BLOB, &more) == CURLE_OK);
	free(both);
	free(others);
	return ok;
}

void
request_free_headers(struct curl_slist *headers)
{
	for (struct curl_slist *line = headers; line; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(headers);
}

/* A name for credentials that tells nobody but this process which they are; false: there is none. */
static bool
name_credentials(const char *line, char name[2 * POOL_KEY_BYTES + 1])
{
	static unsigned char key[POOL_KEY_BYTES];
	static bool has_key = false;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	has_key = has_key || pg_strong_random(key, sizeof(key));
	if (!has_key || HMAC(EVP_sha256(), key, sizeof(key), (const unsigned char *) line, strlen(line), digest, &len) == NULL || len != POOL_KEY_BYTES)
		return false;
	for (unsigned int i = 0; i < len; i++)
		sprintf(name + 2 * i, "%02x", digest[i]);
	return true;
}

/*
 * A tunnel belongs to whoever signed in for it.  libcurl keeps tunnels apart by
 * host, proxy and what of TLS is to be believed, not by the credentials the
 * proxy was given, so a request without any would get into one that is open.
 * So the directories of authorities, of which OpenSSL takes a list, get one
 * more, which cannot exist and whose name stands for the credentials.  Where
 * TLS is somebody else's, tunnels with credentials are used once.
 */
static bool
set_pool(CURL *easy, const HttpOptions *options, bool *may_keep)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
	char		name[2 * POOL_KEY_BYTES + 1];
	bool		has_own = options->ca_certificate != NULL && !options->ca_besides_system;
	const char *others = has_own || info->capath == NULL ? "" : info->capath;
	char	   *path;
	bool		ok;

	if (info->ssl_version == NULL || strncmp(info->ssl_version, "OpenSSL/", 8) != 0 || !name_credentials(options->proxy_authorization, name))
	{
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_FORBID_REUSE, 1L);
		*may_keep = false;
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);	/* nobody else's request over it, either */
		return true;
	}
	path = malloc(strlen(others) + sizeof(name) + 32);
	if (path == NULL)
		return false;
	sprintf(path, "%s%s/dev/null/%s", others, others[0] ? ":" : "", name);
	ok = curl_easy_setopt(easy, CURLOPT_CAPATH, path) == CURLE_OK;
	free(path);
	return ok;
}

static bool
set_proxy_credentials(CURL *easy, const HttpOptions *options, struct curl_slist **proxy_headers, bool *may_keep)
{
	if (options->proxy == NULL || options->proxy_authorization == NULL)
		return true;
	*proxy_headers = curl_slist_append(NULL, options->proxy_authorization);
	if (*proxy_headers == NULL)
		return false;
	SET(CURLOPT_PROXYHEADER, *proxy_headers);
	return set_pool(easy, options, may_keep);
}

/* Through whom, and whom to believe.  A proxy may be vouched for by either kind of authority. */
bool
request_set_route(CURL *easy, const HttpOptions *options, struct curl_slist **proxy_headers, bool *may_keep)
{
	*may_keep = true;
	if (options->proxy)
	{
		SET(CURLOPT_PROXY, options->proxy);
		SET(CURLOPT_HTTPPROXYTUNNEL, 1L);
		SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
		SET(CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE);
		SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
		SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
		SET(CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	}
	if (options->ca_certificate != NULL &&
		!set_authorities(easy, options->ca_certificate, options->ca_besides_system, options->proxy != NULL))
		return false;
	return set_proxy_credentials(easy, options, proxy_headers, may_keep);
}
