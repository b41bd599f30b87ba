/*-------------------------------------------------------------------------
 * outgoing.c
 *	  Requests as they are sent: with credentials, signatures and secrets.
 *
 * Runs in the conductor, and in sessions that test a connection.  A kind's
 * request holds no secrets; here those that were signed in with are put in,
 * into malloc'd copies that are wiped as soon as the multiplexer has its own.
 * What a service may say back of them is masked in its answer: Authorization
 * by itself, the rest because "masked" names it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "json.h"
#include "outgoing.h"
#include "sharedkey.h"
#include "signin.h"

/* Headers that hold the address of another blob of the account. */
static const char *const address_headers[] = {"x-ms-copy-source:", "x-ms-rename-source:"};

/* "Name: value" lines, NULL-terminated, with room for more; credentials come as one line. */
static const char **
header_lines(const KindRequest *request, const char *credentials)
{
	int			n = 0;
	const cJSON *header;
	const char **lines = palloc0(sizeof(char *) * (9 + cJSON_GetArraySize(request->headers)));

	lines[n++] = psprintf("Accept: %s", request->accept ? request->accept : "application/json");
	if (credentials)
		lines[n++] = credentials;
	if (request->body)
		lines[n++] = psprintf("Content-Type: %s", request->content_type ? request->content_type : "application/json");
	if (request->idempotency_key)
		lines[n++] = psprintf("Idempotency-Key: %s", request->idempotency_key);
	cJSON_ArrayForEach(header, request->headers)
		if (cJSON_IsString(header))
		lines[n++] = psprintf("%s: %s", header->string, header->valuestring);
	return lines;
}

static const char *
auth_string(const Connection *connection, const char *name)
{
	return json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, name));
}

static bool
has_type(const Connection *connection, const char *type)
{
	const char *is = connection ? auth_string(connection, "type") : NULL;

	return is != NULL && strcmp(is, type) == 0;
}

void
outgoing_describe(const Connection *connection, const char *scope, SignInConnection *asking)
{
	memset(asking, 0, sizeof(*asking));
	asking->name = connection->name;
	asking->kind = connection->kind;
	asking->base_url = connection->base_url;
	asking->auth = connection->auth;
	asking->options = connection->options;
	asking->changed_at = connection->changed_at;
	asking->scope = scope;
}

SignInResult
outgoing_sign_in(SignIn *signin, const Connection *connection, const char *scope, int64 now_ms,
				 OutgoingSecrets *secrets, uint64 tickets[2], SignInFailure *failure)
{
	SignInConnection asking;
	const char *second;
	char	   *line = NULL;
	SignInResult result;

	outgoing_describe(connection, scope, &asking);
	tickets[1] = 0;
	result = signin_header(signin, &asking, now_ms, &secrets->credentials, &tickets[0], failure);
	if (result != SIGNIN_READY || signin_workspace_id(&asking, &second) == NULL)
		return result;
	asking.scope = second;
	result = signin_header(signin, &asking, now_ms, &line, &tickets[1], failure);
	if (result == SIGNIN_READY)
		secrets->management = signin_management_line(line);
	signin_free_secret(line);
	if (result == SIGNIN_READY && secrets->management == NULL)
	{
		failure->text = "out of memory";
		failure->is_user_error = false;
		failure->retry_ms = 1000;
		return SIGNIN_FAILED;
	}
	return result;
}

const char *
outgoing_signing_secret(const KindRequest *request, const Connection *connection)
{
	if (request->without_auth)
		return NULL;
	return has_type(connection, "shared_key") ? auth_string(connection, "key") :
		has_type(connection, "sas") ? auth_string(connection, "token") : NULL;
}

/* Sign with the account's key; adds the line. */
static bool
add_signature(Outgoing *out, const Connection *connection, const char *method, const char *key, const char **error)
{
	SharedKeyRequest request = {method, out->url, out->lines, out->body_len};
	const char *account = auth_string(connection, "account");
	int			n = 0;

	if (account == NULL)
		account = sharedkey_account(connection->base_url);
	if (account == NULL)
		*error = "the base URL names no account";
	else
		out->secrets[0] = sharedkey_header(account, key, &request, error);
	while (out->lines[n] != NULL)
		n++;
	out->lines[n] = out->secrets[0];
	return out->secrets[0] != NULL;
}

/* Put the SAS behind the URL, and behind the addresses of other blobs. */
static bool
add_sas(Outgoing *out, const char *sas, const char **error)
{
	out->url = out->secrets[0] = sharedkey_add_sas(out->url, sas, error);
	for (int i = 0; out->url != NULL && out->lines[i] != NULL; i++)
		for (int j = 0; j < lengthof(address_headers); j++)
			if (pg_strncasecmp(out->lines[i], address_headers[j], strlen(address_headers[j])) == 0 &&
				out->secrets[1] == NULL)
				out->lines[i] = out->secrets[1] = sharedkey_add_sas(out->lines[i], sas, error);
	out->masked[0] = sharedkey_sas_signature(sas, true);
	out->masked[1] = sharedkey_sas_signature(sas, false);
	return *error == NULL;
}

/* The workspace does not know who calls; Azure does. */
static void
add_workspace(Outgoing *out, const Connection *connection, const char *management)
{
	int			n = 0;

	while (out->lines[n] != NULL)
		n++;
	out->lines[n++] = management;
	out->lines[n] = psprintf("X-Databricks-Azure-Workspace-Resource-Id: %s", auth_string(connection, "workspace_resource_id"));
	out->masked[1] = strdup(strchr(management, ' ') + 1);
}

/* The value of a secret becomes member "value" of the body. */
static bool
add_value(Outgoing *out, const char *value, const char **error)
{
	char	   *quoted = malloc(strlen(value) * 6 + 3);
	char	   *end = quoted;
	size_t		size;

	*error = "out of memory";
	if (quoted == NULL)
		return false;
	for (const unsigned char *p = (const unsigned char *) value; *p != '\0'; p++)
	{
		if (*p < ' ' || *p == '"' || *p == '\\' || *p == 0x7f)
			end += sprintf(end, "\\u%04x", *p);
		else
			*end++ = (char) *p;
	}
	*end = '\0';
	size = strlen(quoted) + strlen(out->body) + 32;
	out->secrets[2] = malloc(size);
	out->masked[0] = strdup(value);
	if (out->secrets[2] != NULL && out->masked[0] != NULL)
	{
		/* the body is an object: {"value":"...", and then its members */
		snprintf(out->secrets[2], size, "{\"value\":\"%s\"%s%s", quoted,
				 out->body[1] == '}' ? "" : ",", out->body + 1);
		out->body = out->secrets[2];
		out->body_len = strlen(out->body);
		*error = NULL;
	}
	signin_free_secret(quoted);
	return *error == NULL;
}

bool
outgoing_make(const KindRequest *request, const Connection *connection, const OutgoingSecrets *secrets,
			  Outgoing *out, const char **error)
{
	bool		ok = true;

	memset(out, 0, sizeof(*out));
	*error = NULL;
	out->url = request->url;
	out->lines = header_lines(request, secrets->credentials);
	out->body = request->body;
	out->body_len = request->body ? strlen(request->body) : 0;
	if (secrets->management != NULL)
		add_workspace(out, connection, secrets->management);
	if (request->secret != NULL)
		ok = add_value(out, secrets->value, error);
	/* last of all: what is signed is what is sent */
	if (ok && secrets->signing != NULL)
		ok = has_type(connection, "sas") ? add_sas(out, secrets->signing, error) :
			add_signature(out, connection, request->method, secrets->signing, error);
	return ok;
}

void
outgoing_wipe(Outgoing *out)
{
	for (int i = 0; i < lengthof(out->secrets); i++)
		signin_free_secret(out->secrets[i]);
	for (int i = 0; i < lengthof(out->masked); i++)
		signin_free_secret(out->masked[i]);
	memset(out, 0, sizeof(*out));
}

void
outgoing_forget(OutgoingSecrets *secrets)
{
	signin_free_secret(secrets->credentials);
	signin_free_secret(secrets->management);
	signin_free_secret(secrets->signing);
	signin_free_secret(secrets->value);
	signin_free_secret(secrets->proxy);
	memset(secrets, 0, sizeof(*secrets));
}
