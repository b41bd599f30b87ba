/*-------------------------------------------------------------------------
 * queue.c
 *	  Azure storage queues: requests, and the XML they are answered with
 *
 * Runs in the conductor; pure.  Of XML only what the service sends is read:
 * elements without attributes, character references, the five entities.
 * Everything else makes the answer a bad one.  Signing is not done here: the
 * headers it needs (x-ms-date, x-ms-version) are.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "queue.h"
#include "storage_int.h"

#define MAX_TEXT		(256 * 1024)	/* messages have at most 64 kB, in base64 or escaped */

bool
queue_name_is_valid(const char *name)
{
	size_t		len = name ? strlen(name) : 0;

	return len >= 3 && len <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len &&
		name[0] != '-' && name[len - 1] != '-' && strstr(name, "--") == NULL;
}

char *
queue_url(const char *base_url, const char *queue)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/", base_url);
	/* a name that a reference gave may still be anything */
	kind_url_encode(&url, queue);
	strbuf_addstr(&url, "/messages");
	return url.data;
}

static void
set_up(const KindCall *call, KindRequest *request, const char *method, char *url)
{
	request->method = method;
	request->url = url;
	request->headers = storage_headers(call);
	request->is_repeatable = true;
}

void
queue_get(const KindCall *call, const char *queue, int64 hidden_s, KindRequest *request)
{
	set_up(call, request, "GET", mem_printf("%s?numofmessages=%d&visibilitytimeout=" INT64_FORMAT,
											queue_url(call->base_url, queue), QUEUE_MAX_MESSAGES, hidden_s));
}

void
queue_peek(const KindCall *call, const char *queue, KindRequest *request)
{
	set_up(call, request, "GET", mem_printf("%s?peekonly=true&numofmessages=1", queue_url(call->base_url, queue)));
}

void
queue_delete(const KindCall *call, const char *queue, const char *id, const char *receipt, KindRequest *request)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/", queue_url(call->base_url, queue));
	kind_url_encode(&url, id);
	strbuf_addstr(&url, "?popreceipt=");
	kind_url_encode(&url, receipt);
	set_up(call, request, "DELETE", url.data);
}

void
queue_put(const KindCall *call, const char *queue, const char *text, KindRequest *request)
{
	StrBuf		body;

	strbuf_init(&body);
	strbuf_addstr(&body, "<QueueMessage><MessageText>");
	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '<')
			strbuf_addstr(&body, "&lt;");
		else if (*p == '>')
			strbuf_addstr(&body, "&gt;");
		else if (*p == '&')
			strbuf_addstr(&body, "&amp;");
		else
			strbuf_addchar(&body, *p);
	}
	strbuf_addstr(&body, "</MessageText></QueueMessage>");
	set_up(call, request, "POST", queue_url(call->base_url, queue));
	request->body = body.data;
	request->content_type = "application/xml";
}

/* &amp; and its like, at p; *value is the text it stands for.  NULL if it is none. */
static const char *
read_entity(const char *p, StrBuf *buf)
{
	static const struct
	{
		const char *name;
		char		value;
	}			table[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
	unsigned long code;
	char	   *end;

	for (size_t i = 0; i < lengthof(table); i++)
	{
		size_t		len = strlen(table[i].name);

		if (strncmp(p, table[i].name, len) == 0)
		{
			strbuf_addchar(buf, table[i].value);
			return p + len;
		}
	}
	if (p[1] != '#')
		return NULL;
	code = p[2] == 'x' ? strtoul(p + 3, &end, 16) : strtoul(p + 2, &end, 10);
	if (*end != ';' || end - p > 10 || code == 0 || code > 0x10FFFF)
		return NULL;
	if (code < 0x80)
		strbuf_addchar(buf, (char) code);
	else if (code < 0x800)
	{
		strbuf_addchar(buf, (char) (0xC0 | (code >> 6)));
		strbuf_addchar(buf, (char) (0x80 | (code & 0x3F)));
	}
	else if (code < 0x10000)
	{
		strbuf_addchar(buf, (char) (0xE0 | (code >> 12)));
		strbuf_addchar(buf, (char) (0x80 | ((code >> 6) & 0x3F)));
		strbuf_addchar(buf, (char) (0x80 | (code & 0x3F)));
	}
	else
	{
		strbuf_addchar(buf, (char) (0xF0 | (code >> 18)));
		strbuf_addchar(buf, (char) (0x80 | ((code >> 12) & 0x3F)));
		strbuf_addchar(buf, (char) (0x80 | ((code >> 6) & 0x3F)));
		strbuf_addchar(buf, (char) (0x80 | (code & 0x3F)));
	}
	return end + 1;
}

/* Text of <name>...</name> between start and end, or NULL */
static char *
element(const char *start, const char *end, const char *name)
{
	size_t		len = strlen(name);
	const char *p = start;
	StrBuf		buf;

	do
	{
		p = strchr(p + 1, '<');
		if (p == NULL || p >= end)
			return NULL;
	} while (strncmp(p + 1, name, len) != 0 || p[len + 1] != '>');
	strbuf_init(&buf);
	for (p += len + 2; p != NULL && p < end && *p != '<' && buf.len <= MAX_TEXT;)
	{
		if (*p == '&')
			p = read_entity(p, &buf);
		else
			strbuf_addchar(&buf, *p++);
	}
	if (p != NULL && strncmp(p, "</", 2) == 0 && strncmp(p + 2, name, len) == 0)
		return buf.data;
	strbuf_free(&buf);
	return NULL;
}

/* The attempt may wait for days: nothing of a look may stay behind */
void
queue_free(QueueMessage *messages, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (messages[i].id)
			mem_free(messages[i].id);
		if (messages[i].receipt)
			mem_free(messages[i].receipt);
		if (messages[i].text)
			mem_free(messages[i].text);
	}
}

int
queue_read(const KindResponse *response, QueueMessage messages[QUEUE_MAX_MESSAGES])
{
	static const char open[] = "<QueueMessage>";
	const char *p = response->body;
	int			n = 0;

	/* cut off is no answer */
	if (p == NULL || strstr(p, "<QueueMessagesList") == NULL ||
		(strstr(p, "</QueueMessagesList>") == NULL && strstr(p, "<QueueMessagesList/>") == NULL && strstr(p, "<QueueMessagesList />") == NULL))
		return -1;
	while ((p = strstr(p, open)) != NULL && n < QUEUE_MAX_MESSAGES)
	{
		QueueMessage *message = &messages[n];
		const char *end = strstr(p, "</QueueMessage>");
		char	   *count;

		if (end == NULL)
		{
			queue_free(messages, n);
			return -1;
		}
		message->id = element(p, end, "MessageId");
		message->receipt = element(p, end, "PopReceipt");
		message->text = element(p, end, "MessageText");
		count = element(p, end, "DequeueCount");
		message->dequeued = count ? atol(count) : 1;
		if (count)
			mem_free(count);
		n++;
		if (message->text == NULL && strstr(p, "<MessageText />") != NULL)
			message->text = mem_strdup("");
		if (message->id == NULL || message->receipt == NULL || message->text == NULL ||
			strlen(message->id) > 200 || strlen(message->receipt) > 1000)
		{
			queue_free(messages, n);
			return -1;
		}
		p = end;
	}
	return n;
}

/* Standard alphabet, padding optional, white space ignored; NULL if it is none */
static char *
base64_decode(const char *text, size_t *len)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	StrBuf		buf;
	uint32		bits = 0;
	int			n = 0;

	strbuf_init(&buf);
	for (; *text != '\0' && *text != '='; text++)
	{
		const char *at = strchr(alphabet, *text);

		if (strchr(" \t\r\n", *text) != NULL)
			continue;
		if (at == NULL)
		{
			strbuf_free(&buf);
			return NULL;
		}
		bits = bits << 6 | (uint32) (at - alphabet);
		if (++n % 4 == 0)
		{
			strbuf_addchar(&buf, (char) (bits >> 16));
			strbuf_addchar(&buf, (char) (bits >> 8));
			strbuf_addchar(&buf, (char) bits);
			bits = 0;
		}
	}
	if (n % 4 == 1 || strspn(text, "= \t\r\n") != strlen(text))
	{
		strbuf_free(&buf);
		return NULL;
	}
	if (n % 4 == 2)
		strbuf_addchar(&buf, (char) (bits >> 4));
	if (n % 4 == 3)
	{
		strbuf_addchar(&buf, (char) (bits >> 10));
		strbuf_addchar(&buf, (char) (bits >> 2));
	}
	*len = buf.len;
	return buf.data;
}

static cJSON *
parse(const char *text, size_t len)
{
	KindResponse response = {.body = text, .body_len = len};
	char	   *error;
	cJSON	   *tree = kind_parse_body(&response, &error);

	if (error)
		mem_free(error);
	if (cJSON_IsObject(tree) || cJSON_IsArray(tree))
		return tree;
	cJSON_Delete(tree);
	return NULL;
}

cJSON *
queue_payload(const char *text)
{
	cJSON	   *tree = parse(text, strlen(text));
	size_t		len;
	char	   *decoded;

	if (tree != NULL)
		return tree;
	decoded = base64_decode(text, &len);
	if (decoded == NULL)
		return NULL;
	tree = len > 0 ? parse(decoded, len) : NULL;
	mem_free(decoded);
	return tree;
}
