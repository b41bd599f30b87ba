/*-------------------------------------------------------------------------
 * target_net.c
 *	  What net/ reads: addresses, links, keys, tokens, and what echoes secrets
 *
 * Addresses are read a second time by libcurl, which is who connects: what
 * our reader lets pass has to mean the same to both.
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>

#include "echo.h"
#include "kind_int.h"
#include "sharedkey.h"
#include "signin_pure.h"
#include "urlparse.h"
#include "xml.h"
#include "queue.h"

/* --- addresses ------------------------------------------------------------- */

/* One part of an address as libcurl sees it; "" if it has none */
static char *
curl_part(CURLU *url, CURLUPart which, unsigned flags)
{
	char	   *text = NULL;
	char	   *copy;

	if (curl_url_get(url, which, &text, flags) != CURLUE_OK)
		return mem_strdup("");
	copy = mem_strdup(text);
	curl_free(text);
	return copy;
}

/* As we write a host: lower case, neither brackets nor the last dot */
static char *
plain_host(const char *host)
{
	char	   *copy = mem_strdup(*host == '[' ? host + 1 : host);
	size_t		len = strlen(copy);

	if (len > 0 && (copy[len - 1] == ']' || copy[len - 1] == '.'))
		copy[--len] = '\0';
	for (char *p = copy; *p != '\0'; p++)
		*p = (char) tolower((unsigned char) *p);
	return copy;
}

static void
compare_with_curl(const char *text, const UrlParts *parts)
{
	CURLU	   *url = curl_url();
	char	   *host;

	if (curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK)
	{
		host = plain_host(curl_part(url, CURLUPART_HOST, 0));
		if (parts->is_address)
		{
			NetAddress	address;

			FUZZ_CHECK_OF(net_address_parse(host, &address), text);
			FUZZ_CHECK_OF(memcmp(&address, &parts->address, sizeof(address)) == 0, text);
		}
		else
		{
			struct in_addr in;

			FUZZ_CHECK_OF(strcmp(host, parts->host) == 0, text);
			/* nor one that the resolver would take for a number */
			FUZZ_CHECK_OF(inet_aton(host, &in) == 0, text);
		}
		FUZZ_CHECK_OF(atoi(curl_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT)) == parts->port, text);
		FUZZ_CHECK_OF((strcmp(curl_part(url, CURLUPART_SCHEME, 0), "http") == 0) == parts->is_plain, text);
		FUZZ_CHECK_OF(*curl_part(url, CURLUPART_USER, 0) == '\0' && *curl_part(url, CURLUPART_PASSWORD, 0) == '\0', text);
	}
	curl_url_cleanup(url);
}

/* The first line is an address; the others are rules it is judged by */
void
fuzz_url(const char *text, size_t len)
{
	const char *at = text;
	char	   *line = fuzz_line(&at);
	const char *url = line;
	UrlParts	parts;
	const char *why = NULL;
	bool		is_url;

	if (url == NULL)
		return;
	is_url = url_parse(url, &parts, &why);
	FUZZ_CHECK(is_url || why != NULL);
	if (is_url)
	{
		FUZZ_CHECK_OF(strlen(url) <= URL_MAX_LENGTH && parts.port > 0 && parts.port < 65536 && *parts.host != '\0', url);
		compare_with_curl(url, &parts);
	}
	while ((line = fuzz_line(&at)) != NULL)
	{
		HostRule	host;
		NetworkRule network;
		NetAddress	address;
		char		shown[NET_ADDRESS_TEXT];

		if (host_rule_parse(line, strlen(line), &host, &why) && is_url && host_rule_matches(&host, &parts))
			FUZZ_CHECK_OF(host.port == 0 || host.port == parts.port, line);
		if (net_address_parse(line, &address))
		{
			NetAddress	again;

			net_address_text(&address, shown);
			FUZZ_CHECK_OF(net_address_parse(shown, &again) && memcmp(&again, &address, sizeof(again)) == 0, line);
			/* plain http never goes to a public address, nor anything to others without a rule */
			FUZZ_CHECK_OF(!net_address_allowed(&address, true, NULL, 0), line);
			FUZZ_CHECK_OF(net_address_class(&address) == NULL || !net_address_allowed(&address, false, NULL, 0), line);
		}
		if (network_rule_parse(line, strlen(line), &network, &why))
		{
			FUZZ_CHECK_OF(network_rule_contains(&network, &network.prefix), line);
			if (is_url && parts.is_address)
				(void) net_address_allowed(&parts.address, parts.is_plain, &network, 1);
		}
	}
}

/* An address, a link an answer gave, then the answer's headers */
void
fuzz_link(const char *text, size_t len)
{
	const char *at = text;
	char	   *base = fuzz_line(&at);
	char	   *link = fuzz_line(&at);
	KindResponse response = {.http_status = 200, .body = "", .headers = at, .retry_after_ms = -1};
	char	   *target;
	char	   *next;
	UrlParts	parts;
	const char *why;

	if (link == NULL)
		return;
	target = kind_resolve_link(base, link);
	if (target != NULL)
	{
		FUZZ_CHECK_OF(url_parse(target, &parts, &why), target);
		FUZZ_CHECK_OF(kind_same_origin(target, base) == kind_same_origin(base, target), target);
		compare_with_curl(target, &parts);
	}
	next = kind_link_header(&response);
	FUZZ_CHECK(next == NULL || strchr(next, '\n') == NULL);
	(void) kind_header(&response, "Location");
	(void) kind_header(&response, "");
	(void) kind_resolve_link("https://base.example/a/b?c", link);
}

/* --- secrets --------------------------------------------------------------- */

/*
 * "jwt", "pem PASSWORD" or "p12 PASSWORD" in the first line, the material in
 * the rest.
 */
void
fuzz_signin(const char *text, size_t len)
{
	const char *at = text;
	char	   *how = fuzz_line(&at);
	const char *problem = NULL;
	SigningKey *key;
	int64		not_before;
	int64		expires;

	if (how == NULL)
		return;
	if (strncmp(how, "jwt", 3) == 0)
	{
		(void) assertion_times(at, &not_before, &expires);
		return;
	}
	key = signing_key_read(at, NULL, strlen(how) > 4 ? how + 4 : NULL, &problem);
	FUZZ_CHECK((key == NULL) == (problem != NULL));
	if (key == NULL)
		return;
	(void) signing_key_time_problem(key, INT64_C(1795226400));
	for (int alg = ASSERTION_PS256; alg <= ASSERTION_RS256; alg++)
	{
		char	   *jwt = assertion_build(key, (AssertionAlg) alg, true, "https://login/\"t\"", "client", "jti", INT64_C(1795226400));

		if (jwt != NULL)
		{
			FUZZ_CHECK(assertion_times(jwt, &not_before, &expires));
			FUZZ_CHECK(expires == INT64_C(1795226400) + ASSERTION_LIFETIME_S);
		}
		secret_wipe(jwt);
	}
	signing_key_free(key);
}

/* An address, a key, a SAS; then header lines of a request */
void
fuzz_storage_key(const char *text, size_t len)
{
	const char *at = text;
	char	   *url = fuzz_line(&at);
	char	   *key = fuzz_line(&at);
	char	   *sas = fuzz_line(&at);
	const char *headers[32] = {NULL};
	SharedKeyRequest request = {"PUT", url, headers, len};
	const char *error = NULL;
	char	   *account;
	char	   *secret;
	UrlParts	parts;
	const char *why;

	/* others are refused long before */
	if (sas == NULL || !url_parse(url, &parts, &why))
		return;
	for (size_t i = 0; i + 1 < lengthof(headers) && (headers[i] = fuzz_line(&at)) != NULL;)
		i++;
	account = sharedkey_account(url);
	(void) sharedkey_text(account ? account : "account", &request);
	secret = sharedkey_header(account ? account : "account", key, &request, &error);
	FUZZ_CHECK(secret != NULL || error != NULL);
	FUZZ_CHECK(secret == NULL || strpbrk(secret, "\r\n") == NULL);
	secret_wipe(secret);
	error = NULL;
	secret = sharedkey_add_sas(url, sas, &error);
	FUZZ_CHECK(secret != NULL || error != NULL);
	FUZZ_CHECK(secret == NULL || strlen(secret) <= strlen(url) + strlen(sas) + 2);
	secret_wipe(secret);
	secret_wipe(sharedkey_sas_signature(sas, false));
	secret_wipe(sharedkey_sas_signature(sas, true));
}

/* How a secret is written in URLs and in JSON */
static char *
escaped(const char *secret, bool for_url)
{
	StrBuf		buf;

	strbuf_init(&buf);
	for (const unsigned char *p = (const unsigned char *) secret; *p != '\0'; p++)
	{
		if (for_url && !(*p < 0x80 && isalnum(*p)) && strchr("-._~", *p) == NULL)
			strbuf_printf(&buf, "%%%02X", *p);
		else if (!for_url && strchr("\"\\", *p) != NULL)
			strbuf_printf(&buf, "\\%c", *p);
		else
			strbuf_addchar(&buf, (char) *p);
	}
	return buf.data;
}

static bool
is_in(const char *text, size_t len, const char *part)
{
	return memmem(text, len, part, strlen(part)) != NULL;
}

/* A secret, then an answer: afterwards the one is not in the other. */
void
fuzz_echo(const char *text, size_t len)
{
	const char *at = text;
	char	   *secret = fuzz_line(&at);
	size_t		answer_len;
	char	   *answer;

	if (secret == NULL)
		return;
	answer_len = len - (size_t) (at - text);
	answer = mem_strndup(at, answer_len);
	(void) echo_mask(answer, answer_len, secret);
	FUZZ_CHECK(answer[answer_len] == '\0');
	if (strlen(secret) >= ECHO_MIN_SECRET && strchr(secret, '*') == NULL)
	{
		FUZZ_CHECK(!is_in(answer, answer_len, secret));
		FUZZ_CHECK(!is_in(answer, answer_len, escaped(secret, true)));
		FUZZ_CHECK(!is_in(answer, answer_len, escaped(secret, false)));
	}
	answer = mem_strndup(at, answer_len);
	(void) echo_mask_header(answer, answer_len, secret);
	(void) echo_mask_header(answer, answer_len, mem_printf("Authorization: Bearer %s", secret));
	if (strlen(secret) >= ECHO_MIN_SECRET && strpbrk(secret, "* \t") == NULL)
		FUZZ_CHECK(!is_in(answer, answer_len, secret));
	answer = mem_strndup(at, answer_len);
	(void) echo_mask_header(answer, answer_len, mem_printf("Authorization: Basic %s", secret));
	(void) echo_mask_header(answer, answer_len, mem_printf("Authorization: SharedKey account:%s", secret));
}

/* --- XML ------------------------------------------------------------------- */

static void
element(void *arg, const char *path, const char *text, bool is_encoded)
{
	*(int *) arg += 1;
	FUZZ_CHECK(*path == '/' && text != NULL);
	FUZZ_CHECK(strlen(text) <= 64 * 1024);
}

void
fuzz_xml(const char *text, size_t len)
{
	KindResponse response = {.http_status = 200, .body = text, .body_len = len, .retry_after_ms = -1};
	QueueMessage messages[QUEUE_MAX_MESSAGES];
	const char *error = NULL;
	int			n = 0;
	char	   *code;
	char	   *message;

	FUZZ_CHECK(xml_read(text, len, element, &n, &error) || error != NULL);
	n = queue_read(&response, messages);
	FUZZ_CHECK(n <= QUEUE_MAX_MESSAGES);
	for (int i = 0; i < n; i++)
		(void) queue_payload(messages[i].text);
	if (n > 0)
		queue_free(messages, n);
	response.http_status = 400;
	kind_body_error(&response, &code, &message);
	FUZZ_CHECK(code != NULL && message != NULL);
	FUZZ_CHECK(fuzz_is_utf8(code) && fuzz_is_utf8(message));
	(void) queue_payload(text);
}
