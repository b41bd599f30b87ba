/*-------------------------------------------------------------------------
 * queue.c
 *	  Azure storage queues: requests, and the XML they are answered with
 *
 * Runs in the conductor; pure.  What is no list of messages makes the answer a
 * bad one.  Signing is not done here: the headers it needs (x-ms-date,
 * x-ms-version) are.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <stdlib.h>

#include "queue.h"
#include "storage_int.h"
#include "xml.h"

bool
queue_name_is_valid(const char *name)
{
	size_t		len = name ? strlen(name) : 0;

	return len >= 3 && len <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len &&
		name[0] != '-' && name[len - 1] != '-' && strstr(name, "--") == NULL;
}

/*
 * Hosts are ACCOUNT.blob.core.windows.net, in national clouds too, or, with
 * zones of the DNS, ACCOUNT.zNN.blob.storage.azure.net; dfs and queue are
 * spelled alike.  Any other host is what somebody named on purpose.
 */
static const char *
service(const KindCall *call)
{
	static const char *const others[] = {".blob.core.", ".blob.storage.", ".dfs.core.", ".dfs.storage."};
	const char *given = kind_string(call->options, "queue_url");
	const char *host = strstr(call->base_url, "://");
	const char *end;

	if (given != NULL || host == NULL)
		return given ? given : call->base_url;
	host += 3;
	end = host + strcspn(host, "/");
	for (size_t i = 0; i < lengthof(others); i++)
	{
		const char *at = strstr(host, others[i]);

		if (at != NULL && at < end)
			return mem_printf("%.*s.queue%s", (int) (at - call->base_url), call->base_url, at + 1 + strcspn(at + 1, "."));
	}
	return call->base_url;
}

char *
queue_url(const KindCall *call, const char *queue)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/", service(call));
	/* checked, and encoded all the same */
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
											queue_url(call, queue), QUEUE_MAX_MESSAGES, hidden_s));
}

void
queue_peek(const KindCall *call, const char *queue, KindRequest *request)
{
	set_up(call, request, "GET", mem_printf("%s?peekonly=true&numofmessages=1", queue_url(call, queue)));
}

void
queue_delete(const KindCall *call, const char *queue, const char *id, const char *receipt, KindRequest *request)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/", queue_url(call, queue));
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
	set_up(call, request, "POST", queue_url(call, queue));
	request->body = body.data;
	request->content_type = "application/xml";
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

/* An answer as it is read, element by element. */
typedef struct Reading
{
	QueueMessage *messages;
	int			n;				/* complete ones */
	QueueMessage next;			/* the one being read */
	bool		is_list;
	bool		is_broken;
} Reading;

static void
keep(char **place, const char *text)
{
	if (*place != NULL)
		mem_free(*place);
	*place = mem_strdup(text);
}

static void
end_message(Reading *reading)
{
	QueueMessage *next = &reading->next;

	next->dequeued = Max(next->dequeued, 1);
	if (next->id == NULL || next->receipt == NULL || next->text == NULL || strlen(next->id) > 200 || strlen(next->receipt) > 1000)
		reading->is_broken = true;
	if (reading->is_broken || reading->n == QUEUE_MAX_MESSAGES)
		queue_free(next, 1);
	else
		reading->messages[reading->n++] = *next;
	memset(next, 0, sizeof(*next));
}

static void
read_element(void *arg, const char *path, const char *text, bool is_encoded)
{
	static const char list[] = "/QueueMessagesList";
	static const char message[] = "/QueueMessagesList/QueueMessage";
	Reading    *reading = arg;
	const char *name;

	(void) is_encoded;
	if (strcmp(path, list) == 0)
		reading->is_list = true;
	if (strncmp(path, message, strlen(message)) != 0)
		return;
	name = path + strlen(message);
	if (*name == '\0')
		end_message(reading);
	else if (strcmp(name, "/MessageId") == 0)
		keep(&reading->next.id, text);
	else if (strcmp(name, "/PopReceipt") == 0)
		keep(&reading->next.receipt, text);
	else if (strcmp(name, "/MessageText") == 0)
		keep(&reading->next.text, text);
	else if (strcmp(name, "/DequeueCount") == 0)
		reading->next.dequeued = strtoll(text, NULL, 10);
	else if (strncmp(name, "/MessageText/", 13) == 0)
		reading->is_broken = true;	/* a text has no elements */
}

int
queue_read(const KindResponse *response, QueueMessage messages[QUEUE_MAX_MESSAGES])
{
	Reading		reading = {.messages = messages};
	const char *error;

	if (response->body == NULL)
		return -1;
	if (xml_read(response->body, response->body_len, read_element, &reading, &error) && reading.is_list && !reading.is_broken)
		return reading.n;
	queue_free(&reading.next, 1);
	queue_free(messages, reading.n);
	return -1;
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
