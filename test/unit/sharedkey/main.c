/*-------------------------------------------------------------------------
 * main.c
 *	  Signs what comes on stdin, for check.py
 *
 * A case is lines "what value", ended by an empty line; the answer is one
 * line: what sharedkey.c made of it, or "error: ...".  Line ends in what is
 * signed are written as "\n".
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <stdlib.h>

#include "sharedkey.h"

#define MAX_LINES 100

typedef struct Case
{
	char	   *what;
	char	   *account;
	char	   *key;
	char	   *method;
	char	   *url;
	char	   *body_len;
	const char *headers[MAX_LINES + 1];
	int			nheaders;
} Case;

static void
print_escaped(const char *text)
{
	for (; text != NULL && *text != '\0'; text++)
	{
		if (*text == '\n')
			fputs("\\n", stdout);
		else
			putchar(*text);
	}
	putchar('\n');
}

static void
answer(const Case *c)
{
	SharedKeyRequest request = {c->method, c->url, c->headers, c->body_len ? strtoul(c->body_len, NULL, 10) : 0};
	const char *error = NULL;
	char	   *result;

	if (strcmp(c->what, "account") == 0)
		result = sharedkey_account(c->url);
	else if (strcmp(c->what, "text") == 0)
		result = sharedkey_text(c->account, &request);
	else if (strcmp(c->what, "header") == 0)
		result = sharedkey_header(c->account, c->key, &request, &error);
	else if (strcmp(c->what, "sas") == 0)
		result = sharedkey_add_sas(c->url, c->key, &error);
	else if (strcmp(c->what, "scope") == 0)
		result = mem_strdup(sharedkey_sas_is_service(c->key) ? "service" : "account");
	else
		result = sharedkey_sas_signature(c->key, strcmp(c->what, "decoded") == 0);
	if (result != NULL)
		print_escaped(result);
	else
		printf("error: %s\n", error ? error : "none");
	fflush(stdout);
}

int
main(void)
{
	static const char *const names[] = {"what", "account", "key", "method", "url", "body_len"};
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;
	Case		c;

	memset(&c, 0, sizeof(c));
	while ((len = getline(&line, &size, stdin)) > 0)
	{
		char	  **fields[] = {&c.what, &c.account, &c.key, &c.method, &c.url, &c.body_len};
		char	   *value;

		if (line[len - 1] == '\n')
			line[--len] = '\0';
		if (len == 0)
		{
			answer(&c);
			memset(&c, 0, sizeof(c));
			continue;
		}
		value = strchr(line, ' ');
		if (value == NULL)
			return 2;
		*value++ = '\0';
		if (strcmp(line, "header") == 0 && c.nheaders < MAX_LINES)
			c.headers[c.nheaders++] = mem_strdup(value);
		for (size_t i = 0; i < lengthof(names); i++)
		{
			if (strcmp(line, names[i]) == 0)
				*fields[i] = mem_strdup(value);
		}
	}
	free(line);
	return 0;
}
