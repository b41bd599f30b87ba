/*-------------------------------------------------------------------------
 * signin_buf.c
 *	  Texts with secrets in them: built in memory that is wiped.
 *
 * Runs anywhere; no state, no locks.  palloc would leave copies in freed
 * chunks, and so would realloc, hence malloc and a wipe of whatever is left
 * behind.  Nothing here raises an error: who builds a text learns at the end
 * whether there was memory for it.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "signin_pure.h"

#define FIRST_SIZE	256

void
secret_wipe(char *text)
{
	if (text == NULL)
		return;
	explicit_bzero(text, strlen(text));
	free(text);
}

void
secretbuf_free(SecretBuf *buf)
{
	if (buf->data != NULL)
	{
		explicit_bzero(buf->data, buf->size);
		free(buf->data);
	}
	memset(buf, 0, sizeof(*buf));
}

void
secretbuf_add(SecretBuf *buf, const char *bytes, size_t len)
{
	if (buf->failed)
		return;
	if (buf->len + len + 1 > buf->size)
	{
		size_t		size = Max(buf->size * 2, FIRST_SIZE);
		char	   *grown;

		size = Max(size, buf->len + len + 1);
		grown = malloc(size);
		if (grown == NULL)
		{
			secretbuf_free(buf);
			buf->failed = true;
			return;
		}
		if (buf->data != NULL)
		{
			memcpy(grown, buf->data, buf->len);
			explicit_bzero(buf->data, buf->size);
			free(buf->data);
		}
		buf->data = grown;
		buf->size = size;
	}
	memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void
secretbuf_addstr(SecretBuf *buf, const char *text)
{
	secretbuf_add(buf, text, strlen(text));
}

void
secretbuf_add_urlencoded(SecretBuf *buf, const char *value)
{
	static const char hex[] = "0123456789ABCDEF";

	for (const unsigned char *p = (const unsigned char *) value; *p != '\0'; p++)
	{
		char		escaped[3] = {'%', hex[*p >> 4], hex[*p & 15]};

		if ((*p < 0x80 && isalnum(*p)) || strchr("-._~", *p) != NULL)
			secretbuf_add(buf, (const char *) p, 1);
		else
			secretbuf_add(buf, escaped, 3);
	}
}

void
secretbuf_add_form(SecretBuf *buf, const char *key, const char *value)
{
	if (buf->len > 0 && buf->data[buf->len - 1] != '?')
		secretbuf_add(buf, "&", 1);
	secretbuf_addstr(buf, key);
	secretbuf_add(buf, "=", 1);
	secretbuf_add_urlencoded(buf, value);
}

void
secretbuf_add_base64(SecretBuf *buf, const unsigned char *bytes, size_t len, bool is_url)
{
	static const char common[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

	for (size_t i = 0; i < len; i += 3)
	{
		size_t		n = Min(len - i, (size_t) 3);
		unsigned int bits = (unsigned int) bytes[i] << 16 |
			(n > 1 ? (unsigned int) bytes[i + 1] << 8 : 0) | (n > 2 ? bytes[i + 2] : 0);
		char		out[4];

		for (int k = 0; k < 4; k++)
		{
			unsigned int digit = bits >> (18 - 6 * k) & 63;

			if ((size_t) k > n)
				out[k] = '=';
			else if (digit < 62)
				out[k] = common[digit];
			else
				out[k] = is_url ? "-_"[digit - 62] : "+/"[digit - 62];
		}
		secretbuf_add(buf, out, is_url ? n + 1 : 4);
		explicit_bzero(out, sizeof(out));
	}
}

char *
secretbuf_take(SecretBuf *buf)
{
	char	   *text;

	if (buf->data == NULL && !buf->failed)
		secretbuf_add(buf, "", 0);
	text = buf->failed ? NULL : buf->data;
	memset(buf, 0, sizeof(*buf));
	return text;
}
