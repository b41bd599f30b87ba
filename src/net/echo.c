/*-------------------------------------------------------------------------
 * echo.c
 *	  Takes out of an answer what it repeats of the credentials it was sent.
 *
 * Runs where httpmux.c runs.  Some services, and most gateways in their error
 * pages, say back what they were asked, headers included.  Answers end up in
 * outputs, errors and logs that many may read, so the credentials of an
 * exchange are overwritten in its answer before anybody sees it.
 *
 * This is no defence against a service that wants to give a secret away: it
 * has the secret and could write it in any form.  No state, no locks.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <strings.h>

#include "echo.h"

#define MASK '*'

typedef enum EchoForm
{
	ECHO_PLAIN,
	ECHO_URL,					/* %2F */
	ECHO_JSON,					/* \" \\ */
	ECHO_JSON_SLASH,			/* \/ besides */
	ECHO_JSON_HTML				/* \u002B: encoders that mind what HTML makes of it */
} EchoForm;

static bool
is_unreserved(unsigned char c)
{
	return (c < 0x80 && isalnum(c)) || (c != '\0' && strchr("-._~", c) != NULL);
}

/* One character as the form writes it; at most 6 bytes, terminated. */
static void
write_char(char *out, unsigned char c, EchoForm form)
{
	if (form == ECHO_URL && !is_unreserved(c))
		sprintf(out, "%%%02X", c);
	else if (form == ECHO_JSON && strchr("\"\\", c) != NULL)
		sprintf(out, "\\%c", c);
	else if (form == ECHO_JSON_SLASH && strchr("/\"\\", c) != NULL)
		sprintf(out, "\\%c", c);
	else if (form == ECHO_JSON_HTML && c == '\\')
		strcpy(out, "\\\\");
	else if (form == ECHO_JSON_HTML && strchr("+\"&'<>`", c) != NULL)
		sprintf(out, "\\u%04X", c);
	else
	{
		out[0] = (char) c;
		out[1] = '\0';
	}
}

/* Linear in both lengths, whatever they are: the text may be megabytes of somebody's choice. */
static bool
mask_all(char *text, size_t len, const char *needle, size_t needle_len)
{
	char	   *end = text + len;
	bool		found = false;

	while ((text = memmem(text, end - text, needle, needle_len)) != NULL)
	{
		memset(text, MASK, needle_len);
		text += needle_len;
		found = true;
	}
	return found;
}

bool
echo_mask(char *text, size_t len, const char *secret)
{
	size_t		secret_len = strlen(secret);
	char	   *written;
	bool		found = false;

	if (secret_len < ECHO_MIN_SECRET || len < secret_len)
		return false;
	written = malloc(secret_len * 6 + 1);
	if (written == NULL)
	{
		/* what cannot be looked at is not shown */
		memset(text, MASK, len);
		return true;
	}
	for (EchoForm form = ECHO_PLAIN; form <= ECHO_JSON_HTML; form++)
	{
		char	   *out = written;

		for (const char *p = secret; *p != '\0'; p++, out += strlen(out))
			write_char(out, (unsigned char) *p, form);
		found |= mask_all(text, len, written, out - written);
	}
	explicit_bzero(written, secret_len * 6 + 1);
	free(written);
	return found;
}

/* The password in "user:password", base64. */
static bool
mask_password(char *text, size_t len, const char *encoded)
{
	size_t		encoded_len = strlen(encoded);
	unsigned char *decoded = calloc(1, encoded_len + 1);
	char	   *colon;
	bool		found = false;

	if (decoded == NULL)
	{
		memset(text, MASK, len);
		return true;
	}
	if (EVP_DecodeBlock(decoded, (const unsigned char *) encoded, (int) encoded_len) > 0 &&
		(colon = strchr((char *) decoded, ':')) != NULL)
		found = echo_mask(text, len, colon + 1);
	explicit_bzero(decoded, encoded_len + 1);
	free(decoded);
	return found;
}

bool
echo_mask_header(char *text, size_t len, const char *line)
{
	static const char name[] = "Authorization: ";
	const char *credentials;
	bool		found;

	if (strncasecmp(line, name, sizeof(name) - 1) != 0)
		return false;
	credentials = strchr(line + sizeof(name) - 1, ' ');
	if (credentials == NULL)
		return false;
	credentials++;
	found = echo_mask(text, len, credentials);
	/* "SharedKey account:signature" */
	if (strncasecmp(line + sizeof(name) - 1, "SharedKey ", 10) == 0 && strchr(credentials, ':') != NULL)
		found |= echo_mask(text, len, strchr(credentials, ':') + 1);
	if (strncasecmp(line + sizeof(name) - 1, "Basic ", 6) == 0)
		found |= mask_password(text, len, credentials);
	return found;
}
