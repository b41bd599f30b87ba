/*-------------------------------------------------------------------------
 * signin_databricks.c
 *	  What only Databricks has: a token of somebody else exchanged for one of
 *	  the workspace (databricks_federated), and service principals of Entra ID
 *	  that are not yet in the workspace.
 *
 * Runs where httpmux.c runs, and where connections are defined; pure.
 *
 * The exchange is RFC 8693.  The subject token is a JWT that a federation
 * policy of the account, or of the service principal client_id, trusts by
 * issuer, audience and subject.  It is a secret, with a file: reference as a
 * rule, and is read for every fetch.
 *
 * A service principal with a role on the workspace's Azure resource may call
 * before anybody has added it: beside the token for Databricks it sends one for
 * Azure's management, and says which resource the workspace is.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json.h"
#include "signin_entra.h"

#define TOKEN_PATH			"/oidc/v1/token"
#define DEFAULT_SCOPE		"all-apis"
#define EXCHANGE			"urn:ietf:params:oauth:grant-type:token-exchange"
#define JWT_TYPE			"urn:ietf:params:oauth:token-type:jwt"
/* The resource ends in a slash, so that its scope has two. */
#define MANAGEMENT_SCOPE	"https://management.core.windows.net//.default"
#define MANAGEMENT_HEADER	"X-Databricks-Azure-SP-Management-Token: "

/* ---- token exchange ---- */

static const char *
exchange_url(const Auth *auth, const char **path)
{
	*path = "type";
	return auth->base_url ? auth_url_join(auth->base_url, TOKEN_PATH) : NULL;
}

static bool
exchange_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const char *client_id = auth_text(call->auth, "client_id");
	const char *url = exchange_url(call->auth, &(const char *){NULL});
	const char *token = auth_secret(call, "token");
	SecretBuf	form = {0};

	if (url == NULL)
		return auth_refuse(refusal, true, "the connection has no base_url");
	if (!federated_check(call, refusal))
		return false;
	request->method = "POST";
	request->url = url;
	request->sent = strdup(token);
	secretbuf_addstr(&form, "grant_type=");
	secretbuf_add_urlencoded(&form, EXCHANGE);
	secretbuf_add_form(&form, "subject_token_type", JWT_TYPE);
	secretbuf_add_form(&form, "scope", call->auth->scope ? call->auth->scope : DEFAULT_SCOPE);
	if (client_id != NULL)
		secretbuf_add_form(&form, "client_id", client_id);
	secretbuf_add_form(&form, "subject_token", token);
	request->form = secretbuf_take(&form);
	return (request->sent != NULL && request->form != NULL) || auth_refuse(refusal, false, "out of memory");
}

static void
exchange_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	const char *words;

	if (result->http_status == 200)
	{
		if (!signin_oauth_token(result, answer, now_ms, out))
			signin_oauth_nothing(result, answer, "a token", "base_url of the connection", &out->refusal);
		return;
	}
	words = signin_oauth_words(result, answer);
	if (result->http_status == 404)
		auth_refuse(&out->refusal, true, psprintf("there is no sign-in service at this address: correct base_url (%s)", words));
	else if (result->http_status == 400 || result->http_status == 401 || result->http_status == 403)
	{
		auth_refuse(&out->refusal, true,
					psprintf("no federation policy accepts the token: compare issuer, audience and subject of the token with the policies of the account, or of the service principal \"client_id\" (%s)", words));
		out->refusal.about_secret = true;
	}
	else
		auth_refuse(&out->refusal, signin_oauth_is_final(result), words);
}

const SignInMethod signin_databricks_federated = {
	.name = "databricks_federated",
	.keys = {
		{"token", AUTH_KEY_SECRET, true},
		{"client_id", AUTH_KEY_ID},
		{"scope", AUTH_KEY_TEXT},
	},
	.url = exchange_url,
	.request = exchange_request,
	.response = exchange_response,
};

/* ---- not yet in the workspace ---- */

/* /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Databricks/workspaces/NAME */
static bool
is_workspace_id(const char *id)
{
	static const char *const names[] = {"subscriptions", "resourceGroups", "providers", "workspaces"};
	const char *p = id;

	for (int i = 0; i < lengthof(names); i++)
	{
		size_t		len = strlen(names[i]);
		size_t		value_len;

		if (p[0] != '/' || pg_strncasecmp(p + 1, names[i], len) != 0 || p[len + 1] != '/')
			return false;
		p += len + 2;
		value_len = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.()");
		if (value_len == 0 || (i == 2 && (value_len != 20 || pg_strncasecmp(p, "Microsoft.Databricks", 20) != 0)))
			return false;
		p += value_len;
	}
	return *p == '\0';
}

bool
databricks_check_workspace(const Auth *auth, AuthProblem *problem)
{
	const char *id = auth_text(auth, "workspace_resource_id");
	const char *scope = auth_text(auth, "management_scope");

	if (id == NULL)
		return scope == NULL ||
			auth_fail(problem, "management_scope", "\"management_scope\" goes with \"workspace_resource_id\"", NULL);
	if (auth->kind == NULL || strcmp(auth->kind, "databricks") != 0)
		return auth_fail(problem, "workspace_resource_id", "\"workspace_resource_id\" is for connections of kind databricks", NULL);
	return is_workspace_id(id) ||
		auth_fail(problem, "workspace_resource_id", "\"workspace_resource_id\" is not valid",
				  "Give the resource ID of the workspace, /subscriptions/.../resourceGroups/.../providers/Microsoft.Databricks/workspaces/NAME.");
}

const char *
signin_workspace_id(const SignInConnection *connection, const char **scope)
{
	const char *id = json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, "workspace_resource_id"));
	const char *own = json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, "management_scope"));

	/* a token for something else says nothing to a workspace */
	if (id == NULL || connection->scope != NULL)
		return NULL;
	*scope = own ? own : MANAGEMENT_SCOPE;
	return id;
}

char *
signin_management_line(const char *authorization)
{
	static const char before[] = "Authorization: Bearer ";
	size_t		size;
	char	   *line;

	if (strncmp(authorization, before, strlen(before)) != 0)
		return NULL;
	size = strlen(MANAGEMENT_HEADER) + strlen(authorization) - strlen(before) + 1;
	line = malloc(size);
	if (line != NULL)
		snprintf(line, size, "%s%s", MANAGEMENT_HEADER, authorization + strlen(before));
	return line;
}
