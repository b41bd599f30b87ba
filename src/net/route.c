/*-------------------------------------------------------------------------
 * route.c
 *	  How the requests of a connection travel: proxy, authorities, timeouts.
 *
 * Runs in the session that defines or tests a connection, in the conductor
 * and in SQL workers.  No locks, no state.  Authorities in a file are read
 * for every request, so that a renewed one takes effect by itself; the
 * multiplexer does not share a kept-alive connection between requests that
 * trust different authorities.
 *
 * A proxy resolves the names of what lies behind it.  What weir can check is
 * the proxy's own address, when it is connected to, and the URL, as ever;
 * plain http, whose safety rests on the address, does not go through one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "json.h"
#include "route.h"
#include "secretref.h"
#include "urlparse.h"
#include "urlpolicy.h"

#define FILE_PREFIX		"file:"

bool
route_check_proxy(const char *proxy, const char **why, const char **hint)
{
	UrlParts	parts;
	const char *authority;

	*hint = "Write http://host:port or https://host:port.";
	if (strchr(proxy, '@') != NULL)
	{
		*why = "it holds credentials";
		*hint = "Create a secret that holds \"user:password\" and name it in the option proxy_secret.";
		return false;
	}
	if (!url_parse(proxy, &parts, why))
		return false;
	authority = strstr(proxy, "://") + 3;
	if (strpbrk(authority, "/?#") != NULL)
	{
		*why = "it has more than a scheme, a host and a port";
		return false;
	}
	/* two libraries may have two opinions of what the port is otherwise */
	if (strchr(authority[0] == '[' ? strchr(authority, ']') : authority, ':') == NULL)
	{
		*why = "it has no port";
		return false;
	}
	return urlpolicy_check_url(proxy, why, hint);
}

const char *
route_proxy_secret(const cJSON *options)
{
	return cJSON_HasObjectItem(options, "proxy") ?
		json_string(cJSON_GetObjectItemCaseSensitive(options, "proxy_secret")) : NULL;
}

static bool
check_pem(const char *pem, const char **why)
{
	BIO		   *bio;
	X509	   *certificate;
	int			n = 0;

	if (strstr(pem, "PRIVATE KEY") != NULL)
	{
		*why = "it holds a private key";
		return false;
	}
	bio = BIO_new_mem_buf(pem, -1);
	if (bio == NULL)
	{
		*why = "out of memory";
		return false;
	}
	ERR_clear_error();
	while ((certificate = PEM_read_bio_X509(bio, NULL, NULL, "")) != NULL)
	{
		X509_free(certificate);
		n++;
	}
	BIO_free(bio);
	/* the end of the text is no start of a certificate; anything else is a broken one */
	*why = n == 0 && strstr(pem, "-----BEGIN CERTIFICATE-----") == NULL ? "it holds no certificate in PEM" :
		n == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE ? "one of its certificates cannot be read" : NULL;
	ERR_clear_error();
	return *why == NULL;
}

/* malloc'd by the reader of secrets; what authorities there are is no secret. */
static char *
read_file(const char *reference, const char **error)
{
	char	   *value = secretref_value(reference, error);
	char	   *copy;

	if (value == NULL)
		return NULL;
	copy = pstrdup(value);
	free(value);
	return copy;
}

bool
route_check_certificate(const char *certificate, const char **why, const char **hint)
{
	const char *pem = certificate;
	const char *unread = NULL;

	if (strncmp(certificate, FILE_PREFIX, strlen(FILE_PREFIX)) == 0)
	{
		if (!secretref_check(certificate, why, hint))
			return false;
		pem = read_file(certificate, &unread);
		if (pem == NULL)
			return true;		/* it may come, or become readable: requests will say so */
	}
	*hint = "Give the authority's certificate in PEM, without its private key, or file:/path of such a file.";
	return check_pem(pem, why);
}

const char *
route_certificate(const char *certificate, const char **error)
{
	const char *pem = certificate;
	const char *why;

	*error = NULL;
	if (certificate == NULL || strncmp(certificate, FILE_PREFIX, strlen(FILE_PREFIX)) != 0)
		return certificate;
	pem = read_file(certificate, error);
	if (pem != NULL && check_pem(pem, &why))
		return pem;
	*error = pem == NULL ? psprintf("the ca_certificate cannot be read: %s", *error) :
		psprintf("the file of the ca_certificate is not usable: %s", why);
	return NULL;
}

static void
set_seconds(const cJSON *options, const char *key, int *ms)
{
	double		seconds;

	if (json_double(cJSON_GetObjectItemCaseSensitive(options, key), &seconds))
		*ms = (int) (Max(seconds, 0.001) * 1000);
}

bool
route_set(HttpOptions *http, const cJSON *options, const char *base_url, const char *url, const char **error)
{
	const char *certificate = json_string(cJSON_GetObjectItemCaseSensitive(options, "ca_certificate"));

	http->proxy = json_string(cJSON_GetObjectItemCaseSensitive(options, "proxy"));
	set_seconds(options, "connect_timeout", &http->connect_timeout_ms);
	set_seconds(options, "timeout", &http->total_timeout_ms);
	set_seconds(options, "stall_timeout", &http->stall_timeout_ms);
	http->ca_certificate = route_certificate(certificate, error);
	http->ca_besides_system = !url_same_origin(base_url, url);
	return *error == NULL;
}
