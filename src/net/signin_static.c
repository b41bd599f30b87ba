/*-------------------------------------------------------------------------
 * signin_static.c
 *	  Signing in with what a secret holds: none, pat, bearer, basic.
 *
 * Runs where httpmux.c runs.  Nothing is cached, so a changed secret takes
 * effect with the next request.  Values come and go in malloc'd buffers that
 * the caller wipes; they never go through palloc, whose freed chunks would
 * keep them, and never into a message.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "signin_int.h"

#define MAX_SECRET			16384	/* bytes of a secret that becomes a header */

const char *
signin_header_problem(const char *value, bool ascii_only)
{
	if (value[0] == '\0')
		return "the secret is empty";
	if (strlen(value) > MAX_SECRET)
		return "the secret is too long";
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if (*p < ' ' || *p == 0x7f)
			return "the secret contains a line break or another control character";
		if (ascii_only && (*p > 0x7f || *p == ' '))
			return "the secret is not a token: it contains a space or a character outside ASCII";
	}
	return NULL;
}

static char *
take_line(SecretBuf *line, const char **error)
{
	char	   *text = secretbuf_take(line);

	if (text == NULL)
		*error = "out of memory";
	return text;
}

char *
signin_bearer_line(const char *token, const char **error)
{
	SecretBuf	line = {0};

	*error = signin_header_problem(token, true);
	if (*error)
		return NULL;
	secretbuf_addstr(&line, "Authorization: Bearer ");
	secretbuf_addstr(&line, token);
	return take_line(&line, error);
}

char *
signin_basic_value(const char *username, const char *password, const char **error)
{
	SecretBuf	plain = {0};
	SecretBuf	line = {0};

	*error = signin_header_problem(password, false);
	if (*error)
		return NULL;
	secretbuf_addstr(&plain, username);
	secretbuf_addstr(&plain, ":");
	secretbuf_addstr(&plain, password);
	secretbuf_addstr(&line, "Authorization: Basic ");
	if (plain.failed)
		line.failed = true;
	else
		secretbuf_add_base64(&line, (unsigned char *) plain.data, plain.len, false);
	secretbuf_free(&plain);
	return take_line(&line, error);
}

static char *
token_header(const SignInCall *call, const char **error)
{
	return signin_bearer_line(auth_secret(call, "token"), error);
}

static bool
check_basic(const Auth *auth, AuthProblem *problem)
{
	return strchr(auth_text(auth, "username"), ':') == NULL ||
		auth_fail(problem, "username", "\"username\" must not contain a colon", NULL);
}

static char *
basic_header(const SignInCall *call, const char **error)
{
	return signin_basic_value(auth_text(call->auth, "username"), auth_secret(call, "password"), error);
}

const SignInMethod signin_none = {
	.name = "none",
};

const SignInMethod signin_pat = {
	.name = "pat",
	.keys = {{"token", AUTH_KEY_SECRET, true}},
	.header = token_header,
};

const SignInMethod signin_bearer = {
	.name = "bearer",
	.keys = {{"token", AUTH_KEY_SECRET, true}},
	.header = token_header,
};

const SignInMethod signin_basic = {
	.name = "basic",
	.keys = {{"username", AUTH_KEY_TEXT, true}, {"password", AUTH_KEY_SECRET, true}},
	.check = check_basic,
	.header = basic_header,
};
