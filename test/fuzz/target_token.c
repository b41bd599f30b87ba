/*-------------------------------------------------------------------------
 * target_token.c
 *	  Signing in: what a user defines, and what services answer
 *
 * An input is what a connection goes through, told in parts:
 *
 *	  === connection KIND	then auth; it comes first
 *	  === vault				auth of the key vault of that name
 *	  === secret NAME		its value, or keyvault:vault/...; named "file", what weir finds in a file
 *	  === answer STATUS [RETRY_AFTER_MS]	then headers, an empty line, the body
 *	  === lost, === refused		the same without an answer
 *
 * Somebody needs to be signed in again and again, at times a minute apart, and
 * now and then a service no longer likes what it is shown.  The same answers
 * come again from the first one on.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"

#include "json.h"
#include "parts.h"
#include "route.h"
#include "signin_int.h"
#include "urlpolicy.h"

#include "server.h"

#define NOW_MS		INT64CONST(1795226400000)
#define MAX_PARTS	64
#define MAX_ROUNDS	25
#define MARK		"S3cr3t-"	/* what begins so is not shown */

void		fuzz_token(const char *text, size_t len);

struct HttpTransfer
{
	bool		is_open;
	HttpResult	result;
};

static struct
{
	FuzzPart	parts[MAX_PARTS];
	int			nparts;
	int			next;			/* part to be answered */
	HttpTransfer transfers[8];
	int			started;		/* since the clock was moved */
	bool		is_unknown[MAX_PARTS];	/* secret of this part: some exchange was without it */
}			far;

/* Whoever was sent a secret may say it back.  Somebody else cannot know it. */
static void
note_sent(const char *const *headers, const char *body)
{
	for (int i = 0; i < far.nparts; i++)
	{
		char	   *value = pnstrdup(far.parts[i].text, far.parts[i].len);
		bool		is_sent = body != NULL && strstr(body, value) != NULL;

		for (int n = 0; headers[n] != NULL; n++)
			is_sent |= strstr(headers[n], value) != NULL;
		far.is_unknown[i] |= !is_sent;
	}
}

/* --- in the place of libcurl ------------------------------------------------- */

HttpTransfer *
httpmux_start(HttpMux *mux, const char *method, const char *url, const char *const *headers, const char *body, size_t body_len,
			  const HttpOptions *options, void *arg)
{
	FUZZ_CHECK(strcmp(method, "GET") == 0 || strcmp(method, "POST") == 0);
	FUZZ_CHECK(*url != '\0');
	for (int i = 0; headers[i] != NULL; i++)
		FUZZ_CHECK_OF(strpbrk(headers[i], "\r\n") == NULL, headers[i]);
	FUZZ_CHECK(body == NULL || strlen(body) == body_len);
	FUZZ_CHECK(++far.started < 20);
	note_sent(headers, body);
	for (int i = 0; i < lengthof(far.transfers); i++)
	{
		if (far.transfers[i].is_open)
			continue;
		far.transfers[i].is_open = true;
		return &far.transfers[i];
	}
	fuzz_fail(__FILE__, __LINE__, "too many exchanges at once");
}

void
httpmux_abort(HttpMux *mux, HttpTransfer *transfer)
{
	transfer->is_open = false;
}

void
httpmux_free(HttpMux *mux, HttpTransfer *transfer)
{
	FUZZ_CHECK(transfer->is_open);
	transfer->is_open = false;
}

const HttpResult *
httpmux_result(HttpTransfer *transfer)
{
	return &transfer->result;
}

bool
urlpolicy_is_metadata_service(const char *url)
{
	return false;
}

bool
pg_strong_random(void *bytes, size_t len)
{
	memset(bytes, 7, len);
	return true;
}

/* --- in the place of the catalog ---------------------------------------------- */

static const FuzzPart *
part_of(const char *line)
{
	for (int i = 0; i < far.nparts; i++)
	{
		if (strcmp(far.parts[i].line, line) == 0)
			return &far.parts[i];
	}
	return NULL;
}

static cJSON *
tree_of(const FuzzPart *part)
{
	char	   *error;

	return part == NULL ? NULL : json_parse(part->text, part->len, 65536, &error);
}

static char *
find_secret(const char *name, const char **reference, const char **error)
{
	const FuzzPart *part = part_of(psprintf("secret %s", name));
	char	   *value;

	if (part == NULL)
	{
		*error = "there is no such secret";
		return NULL;
	}
	value = pnstrdup(part->text, part->len);
	/* a reference is text of the database */
	if (strncmp(value, "keyvault:", 9) != 0 || !fuzz_is_utf8(value))
		return strdup(value);
	*reference = value;
	return NULL;
}

static bool
find_connection(const char *name, SignInConnection *connection, void *arg)
{
	*connection = (SignInConnection) {.name = pstrdup(name), .kind = "keyvault", .base_url = "https://vault"};
	connection->auth = tree_of(part_of("vault"));
	return strcmp(name, "vault") == 0 && connection->auth != NULL;
}

/* --- somebody who signs in ----------------------------------------------------- */

static void
check_secrecy(const char *text)
{
	for (int i = 0; i < far.nparts; i++)
	{
		const FuzzPart *part = &far.parts[i];
		char	   *value = pnstrdup(part->text, part->len);

		if (strncmp(part->line, "secret ", 7) == 0 && strncmp(value, MARK, strlen(MARK)) == 0 && strlen(value) > strlen(MARK) &&
			strstr(part->line, MARK) == NULL && !far.is_unknown[i])
			FUZZ_CHECK_OF(strstr(text, value) == NULL, text);
	}
}

static void
check_failure(const SignInFailure *failure, bool may_say)
{
	FUZZ_CHECK(failure->text != NULL);
	FUZZ_CHECK_OF(fuzz_is_utf8(failure->text), failure->text);
	FUZZ_CHECK(failure->retry_ms >= 0 && failure->retry_ms <= INT64CONST(86400000));
	FUZZ_CHECK_OF(strlen(failure->text) < 10000, failure->text);
	if (!may_say)
		check_secrecy(failure->text);
}

static void
check_line(const char *line)
{
	for (const unsigned char *p = (const unsigned char *) line; *p != '\0'; p++)
		FUZZ_CHECK_OF(*p >= ' ' && *p != 0x7f, line);
}

/* All exchanges end; false: there is none, or nothing to end them with. */
static bool
answer_all(SignIn *signin, int64 now_ms)
{
	bool		any = false;

	for (int i = 0; i < lengthof(far.transfers); i++)
	{
		HttpTransfer *transfer = &far.transfers[i];
		const FuzzPart *part = NULL;
		FuzzAnswer	answer;

		if (!transfer->is_open)
			continue;
		for (int n = 0; n < far.nparts && part == NULL; n++)
		{
			part = &far.parts[far.next++ % far.nparts];
			if (strncmp(part->line, "answer ", 7) != 0 && strcmp(part->line, "lost") != 0 && strcmp(part->line, "refused") != 0)
				part = NULL;
		}
		if (part == NULL)
			return false;
		fuzz_answer(part, part->line[0] == 'a' ? part->line + 7 : "", &answer);
		transfer->result = (HttpResult) {.http_status = answer.status, .body = answer.body, .body_len = answer.body_len,
			.retry_after_ms = answer.retry_after_ms, .headers = answer.headers, .request_sent = true,
			.error = part->line[0] == 'a' ? NULL : "the answer broke off", .refused_by_policy = part->line[0] == 'r'};
		FUZZ_CHECK(signin_handle(signin, transfer, now_ms));
		FUZZ_CHECK(!transfer->is_open);
		any = true;
	}
	return any;
}

static void
sign_in(SignIn *signin, const SignInConnection *connection, bool may_say)
{
	int64		now_ms = NOW_MS;

	for (int i = 0; i < MAX_ROUNDS; i++)
	{
		char	   *line = NULL;
		uint64		ticket = 0;
		SignInFailure failure = {0};

		switch (signin_header(signin, connection, now_ms, &line, &ticket, &failure))
		{
			case SIGNIN_READY:
				check_line(line);
				signin_free_secret(signin_management_line(line));
				if (i % 3 == 2)
					signin_forget(signin, ticket);
				break;
			case SIGNIN_NONE:
				return;
			case SIGNIN_PENDING:
				if (!answer_all(signin, now_ms))
					return;
				continue;
			case SIGNIN_FAILED:
				check_failure(&failure, may_say);
				now_ms += failure.retry_ms;
				break;
		}
		signin_free_secret(line);
		/* one that is refreshed while the old one is used */
		(void) answer_all(signin, now_ms);
		now_ms += i % 10 == 9 ? INT64CONST(86400000) : 60000;
		far.started = 0;
	}
}

/* What weir.create_connection() says of it */
static bool
is_valid(const SignInConnection *connection)
{
	const char *path = NULL;
	const char *message = NULL;
	const char *hint = NULL;
	List	   *names = NIL;

	if (signin_validate(connection->kind, connection->base_url, connection->auth, &path, &message, &hint, &names))
		return true;
	FUZZ_CHECK(path != NULL && message != NULL);
	FUZZ_CHECK_OF(fuzz_is_utf8(path) && fuzz_is_utf8(message), message);
	FUZZ_CHECK_OF(hint == NULL || fuzz_is_utf8(hint), hint);
	return false;
}

void
fuzz_token(const char *text, size_t len)
{
	static const char first[] = "=== connection ";
	const char *at = text;
	const char *end = text + len;
	FuzzPart	part;
	SignInConnection connection = {.name = "c", .base_url = "https://base"};
	SignIn	   *signin;
	const FuzzPart *file;

	server_reset();
	signin_define_gucs();
	memset(&far, 0, sizeof(far));
	if (!fuzz_part(&at, end, &part) || strncmp(part.line, first, strlen(first)) != 0)
		return;
	connection.kind = part.line + strlen(first);
	if (strspn(connection.kind, "abcdefghijklmnopqrstuvwxyz_") != strlen(connection.kind))
		return;					/* those that are known are made of these */
	connection.auth = tree_of(&part);
	while (far.nparts < MAX_PARTS && fuzz_part(&at, end, &far.parts[far.nparts]))
		far.nparts++;
	file = part_of("secret file");
	server_file = file != NULL ? pnstrdup(file->text, file->len) : NULL;
	if (connection.auth == NULL || !is_valid(&connection))
		return;
	signin = signin_create(NULL, &(SignInCatalog) {find_secret, find_connection, NULL});
	sign_in(signin, &connection, memmem(part.text, part.len, MARK, strlen(MARK)) != NULL);
	signin_destroy(signin);
}
