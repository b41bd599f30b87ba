/*-------------------------------------------------------------------------
 * sharedkey.c
 *	  Requests to storage accounts: Shared Key signatures and SAS
 *
 * Runs where httpmux.c runs, right before a request is sent, and in unit
 * tests.  Pure functions; nothing is kept.
 *
 * A Shared Key signature covers the method, some headers, the x-ms-* headers
 * and the resource with its query, each byte as it is sent.  So this is
 * called last, with the very lines libcurl is given; what libcurl adds by
 * itself must be known here: Content-Length (an empty text when it is zero)
 * and nothing else that is signed.  Content-Type is suppressed unless it is
 * among the lines, see request_copy_headers().
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sharedkey.h"

#define MAX_PARAMETERS	100
#define MAX_KEY			512		/* bytes of base64; real keys are 88 */
#define MAX_SAS			4096

/* A piece of text that somebody else owns. */
typedef struct Piece
{
	const char *text;
	size_t		len;
} Piece;

/* Where the path of an absolute URL begins; NULL if it is none */
static const char *
path_of(const char *url)
{
	const char *host = strstr(url, "://");

	return host ? host + 3 + strcspn(host + 3, "/?#") : NULL;
}

char *
sharedkey_account(const char *base_url)
{
	const char *path = base_url ? path_of(base_url) : NULL;
	const char *host;
	size_t		len;

	if (path == NULL)
		return NULL;
	if (*path == '/')
	{
		len = strcspn(path + 1, "/?#");
		if (len > 0)
			return mem_strndup(path + 1, len);
	}
	host = strstr(base_url, "://") + 3;
	len = strcspn(host, ".:/?#");
	return len > 0 ? mem_strndup(host, len) : NULL;
}

/* Value of a header among the lines; an empty piece if there is none */
static Piece
find_header(const char *const *lines, const char *name)
{
	size_t		len = strlen(name);
	Piece		value = {"", 0};

	for (; *lines != NULL; lines++)
	{
		if (strncasecmp(*lines, name, len) != 0 || (*lines)[len] != ':')
			continue;
		value.text = *lines + len + 1;
		value.text += strspn(value.text, " \t");
		value.len = strlen(value.text);
		while (value.len > 0 && strchr(" \t", value.text[value.len - 1]) != NULL)
			value.len--;
	}
	return value;
}

static int
compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* "x-ms-date:...\n" and so on: names in lower case, sorted */
static void
add_ms_headers(StrBuf *buf, const char *const *lines)
{
	int			n = 0;
	char	  **found;

	for (int i = 0; lines[i] != NULL; i++)
		n++;
	found = mem_alloc(sizeof(char *) * (n + 1));
	n = 0;
	for (int i = 0; lines[i] != NULL; i++)
	{
		size_t		name_len = strcspn(lines[i], ":");
		char	   *line;
		Piece		value;

		if (strncasecmp(lines[i], "x-ms-", 5) != 0)
			continue;
		line = mem_strndup(lines[i], name_len);
		for (char *p = line; *p != '\0'; p++)
			*p = (char) tolower((unsigned char) *p);
		value = find_header(lines, line);
		found[n++] = mem_printf("%s:%.*s\n", line, (int) value.len, value.text);
	}
	/* a name sorts before its extensions, for ":" would not: compare names */
	for (int i = 0; i < n; i++)
		*strchr(found[i], ':') = '\x01';
	qsort(found, n, sizeof(char *), compare_lines);
	for (int i = 0; i < n; i++)
	{
		*strchr(found[i], '\x01') = ':';
		strbuf_addstr(buf, found[i]);
	}
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char) tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decoded; "out" has room for len + 1 bytes */
static void
decode(char *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '%' && i + 2 < len && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0)
		{
			*out++ = (char) (hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
			i += 2;
		}
		else
			*out++ = text[i];
	}
	*out = '\0';
}

static char *
decoded(const char *text, size_t len)
{
	char	   *out = mem_alloc(len + 1);

	decode(out, text, len);
	return out;
}

/* "\nname:value": names in lower case, sorted; values of one name sorted and joined */
static bool
add_query(StrBuf *buf, const char *query)
{
	char	   *pairs[MAX_PARAMETERS];
	const char *last = NULL;
	int			n = 0;

	while (*query != '\0')
	{
		size_t		len = strcspn(query, "&");
		size_t		name_len = strcspn(query, "=&");

		if (n == MAX_PARAMETERS)
			return false;
		if (len > 0)
		{
			char	   *name = decoded(query, name_len);
			char	   *value = name_len < len ? decoded(query + name_len + 1, len - name_len - 1) : mem_strdup("");

			for (char *p = name; *p != '\0'; p++)
				*p = (char) tolower((unsigned char) *p);
			pairs[n++] = mem_printf("%s\x01%s", name, value);
		}
		query += len + (query[len] == '&');
	}
	qsort(pairs, n, sizeof(char *), compare_lines);
	for (int i = 0; i < n; i++)
	{
		char	   *value = strchr(pairs[i], '\x01');

		*value++ = '\0';
		if (last != NULL && strcmp(last, pairs[i]) == 0)
			strbuf_addchar(buf, ',');
		else
			strbuf_printf(buf, "\n%s:", pairs[i]);
		strbuf_addstr(buf, value);
		last = pairs[i];
	}
	return true;
}

char *
sharedkey_text(const char *account, const SharedKeyRequest *request)
{
	static const char *const signed_headers[] = {
		"Content-Encoding", "Content-Language", NULL /* Content-Length */ , "Content-MD5", "Content-Type", "Date",
		"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
	};
	bool		has_ms_date = find_header(request->headers, "x-ms-date").len > 0;
	const char *path = path_of(request->url);
	StrBuf		buf;
	size_t		len;

	if (path == NULL)
		return NULL;
	strbuf_init(&buf);
	strbuf_printf(&buf, "%s\n", request->method);
	for (size_t i = 0; i < lengthof(signed_headers); i++)
	{
		const char *name = signed_headers[i];

		if (name == NULL && request->body_len > 0)
			strbuf_printf(&buf, "%zu", request->body_len);
		else if (name != NULL && !(has_ms_date && strcmp(name, "Date") == 0))
		{
			Piece		value = find_header(request->headers, name);

			strbuf_add(&buf, value.text, value.len);
		}
		strbuf_addchar(&buf, '\n');
	}
	add_ms_headers(&buf, request->headers);
	len = strcspn(path, "?#");
	strbuf_printf(&buf, "/%s%s", account, len == 0 ? "/" : "");
	strbuf_add(&buf, path, len);
	if (path[len] == '?' && !add_query(&buf, path + len + 1))
		return NULL;
	return buf.data;
}

/* Bytes of base64 without line ends, or -1; out has room for 3/4 of it, rounded up */
static int
from_base64(const char *text, unsigned char *out)
{
	size_t		len = strlen(text);
	int			n;

	if (len == 0 || len % 4 != 0)
		return -1;
	n = EVP_DecodeBlock(out, (const unsigned char *) text, (int) len);
	for (size_t i = len; n > 0 && i > len - 2 && text[i - 1] == '='; i--)
		n--;
	return n;
}

char *
sharedkey_header(const char *account, const char *key, const SharedKeyRequest *request,
				 const char **error)
{
	unsigned char raw_key[MAX_KEY];
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned char encoded[EVP_MAX_MD_SIZE * 2];
	unsigned int mac_len = 0;
	char	   *text = sharedkey_text(account, request);
	char	   *header;
	int			key_len = strlen(key) < MAX_KEY ? from_base64(key, raw_key) : -1;

	*error = NULL;
	if (key_len <= 0)
		*error = "the secret is not the key of a storage account: it is not base64";
	else if (text == NULL)
		*error = "the request cannot be signed";
	else if (HMAC(EVP_sha256(), raw_key, key_len, (unsigned char *) text, strlen(text), mac, &mac_len) == NULL)
		*error = "HMAC-SHA256 failed";
	OPENSSL_cleanse(raw_key, sizeof(raw_key));
	if (*error != NULL)
		return NULL;
	EVP_EncodeBlock(encoded, mac, (int) mac_len);
	header = malloc(strlen(account) + 128);
	if (header == NULL)
		*error = "out of memory";
	else
		snprintf(header, strlen(account) + 128, "Authorization: SharedKey %s:%s", account, (char *) encoded);
	return header;
}

/* Value of a parameter, "name=", which ends at "&" or with the text; NULL if there is none */
static const char *
parameter_of(const char *sas, const char *name)
{
	if (sas != NULL && *sas == '?')
		sas++;
	while (sas != NULL && *sas != '\0')
	{
		if (strncmp(sas, name, strlen(name)) == 0)
			return sas + strlen(name);
		sas = strchr(sas, '&');
		if (sas != NULL)
			sas++;
	}
	return NULL;
}

char *
sharedkey_add_sas(const char *url, const char *sas, const char **error)
{
	char	   *signed_url;

	*error = NULL;
	if (*sas == '?')
		sas++;
	if (parameter_of(sas, "sig=") == NULL)
		*error = "the secret is not a shared access signature: it has no \"sig\"";
	else if (strlen(sas) > MAX_SAS)
		*error = "the secret is longer than any shared access signature";
	for (const unsigned char *p = (const unsigned char *) sas; *p != '\0'; p++)
	{
		if (*p <= ' ' || *p >= 0x7F || *p == '#')
			*error = "the secret is not a shared access signature: it is not percent-encoded";
	}
	if (*error != NULL)
		return NULL;
	signed_url = malloc(strlen(url) + strlen(sas) + 2);
	if (signed_url == NULL)
		*error = "out of memory";
	else
		sprintf(signed_url, "%s%c%s", url, strchr(url, '?') ? '&' : '?', sas);
	return signed_url;
}

bool
sharedkey_sas_is_service(const char *sas)
{
	return parameter_of(sas, "ss=") == NULL;
}

char *
sharedkey_sas_signature(const char *sas, bool decode_it)
{
	const char *signature = parameter_of(sas, "sig=");
	size_t		len = signature ? strcspn(signature, "&") : 0;
	char	   *copy = calloc(1, len + 1);

	if (copy != NULL && decode_it)
		decode(copy, signature ? signature : "", len);
	else if (copy != NULL && len > 0)
		memcpy(copy, signature, len);
	return copy;
}
