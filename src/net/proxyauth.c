/*-------------------------------------------------------------------------
 * proxyauth.c
 *	  Credentials for a proxy: the line that goes with CONNECT, and what a
 *	  proxy says that does not take it.
 *
 * Runs where httpmux.c runs and in sessions that test a connection.  No
 * tables, no locks, no state.  Values come and go in malloc'd buffers that
 * are wiped; they are never in a message.
 *
 * Basic and nothing else, sent with the first CONNECT.  Digest would cost an
 * exchange for each tunnel, and libcurl would keep the password for as long as
 * it keeps the tunnel; Negotiate and NTLM sign in a connection and not a
 * request, with an identity of the machine that is no connection's.  A line of
 * our own is gone when the exchange is over.  A proxy that is spoken to
 * without TLS is told the password in the clear, as it is by every client: it
 * is in weir.allowed_private_networks for that.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>

#include "proxyauth.h"
#include "signin_int.h"

char *
proxyauth_line(const char *secret, const char **error)
{
	SecretBuf	line = {0};
	const char *colon = strchr(secret, ':');
	char	   *text;

	*error = signin_header_problem(secret, false);
	if (*error == NULL && (colon == NULL || colon == secret))
		*error = "the secret is not of the form \"user:password\"";
	if (*error)
		return NULL;
	secretbuf_addstr(&line, "Proxy-Authorization: Basic ");
	secretbuf_add_base64(&line, (const unsigned char *) secret, strlen(secret), false);
	text = secretbuf_take(&line);
	if (text == NULL)
		*error = "out of memory";
	return text;
}

/* What it offers, of the ways that libcurl knows by name */
static const char *
ways(long offered)
{
	return offered & CURLAUTH_NEGOTIATE ? "Negotiate" : offered & CURLAUTH_NTLM ? "NTLM" :
		offered & CURLAUTH_DIGEST ? "Digest" : offered & CURLAUTH_BEARER ? "Bearer" : NULL;
}

const char *
proxyauth_refusal(bool has_credentials, long offered, const char **hint)
{
	const char *other = ways(offered);

	if (other != NULL && !(offered & CURLAUTH_BASIC))
	{
		*hint = "weir signs in at proxies with Basic: ask who runs the proxy to offer that to this machine, or to admit it by its address.";
		return strcmp(other, "Negotiate") == 0 ? "the proxy wants credentials, by Negotiate and not by Basic" :
			strcmp(other, "NTLM") == 0 ? "the proxy wants credentials, by NTLM and not by Basic" :
			strcmp(other, "Digest") == 0 ? "the proxy wants credentials, by Digest and not by Basic" :
			"the proxy wants credentials, and not by Basic";
	}
	if (has_credentials)
	{
		*hint = "Correct the secret that the connection's option proxy_secret names, \"user:password\".";
		return "the proxy does not accept the credentials of the connection's proxy_secret";
	}
	*hint = "Create a secret that holds \"user:password\" and name it in the connection's option proxy_secret.";
	return "the proxy wants credentials and the connection has no proxy_secret";
}
