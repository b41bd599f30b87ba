/*-------------------------------------------------------------------------
 * signin_identity.c
 *	  Managed identity: the machine signs in, there is no secret to keep.
 *
 *	vm			 the metadata service of virtual machines, at an address that
 *				 is the same everywhere and that nothing else may use
 *	app_service	 App Service, Functions and Container Apps: endpoint and a
 *				 key in the environment
 *	arc			 machines elsewhere: the agent answers 401 and names a file
 *				 that only those who may use the identity can read
 *
 * Runs where httpmux.c runs, in an environment that is the postmaster's.
 * Endpoints from the environment and a changed setting are subject to the
 * URL policy like every other address.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/guc.h"

#include "json.h"
#include "signin_int.h"
#include "urlpolicy.h"

#define METADATA_PATH		"/metadata/identity/oauth2/token"
#define ARC_ENDPOINT		"http://127.0.0.1:40342" METADATA_PATH
#define MAX_KEY_FILE		4096
#define KEY_FILE_SUFFIX		".key"

typedef enum IdentitySource
{
	SOURCE_VM,
	SOURCE_APP_SERVICE,
	SOURCE_ARC
} IdentitySource;

static char *identity_endpoint = NULL;
static char *arc_directory = NULL;

void
signin_define_gucs(void)
{
	DefineCustomStringVariable("weir.identity_endpoint",
							   "Metadata service that issues tokens for the managed identity of this machine.",
							   "The default is the address of all Azure machines. Empty: the identity of the machine may not be used.",
							   &identity_endpoint, URLPOLICY_METADATA_SERVICE, PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("weir.identity_key_directory",
							   "Directory of the key files by which an Azure Arc agent knows who may use the machine's identity.",
							   NULL,
							   &arc_directory, "/var/opt/azcmagent/tokens", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	signin_define_vault_gucs();
}

/* What auth says, else what the environment shows. */
static IdentitySource
choose_source(const Auth *auth)
{
	const char *source = auth_text(auth, "source");

	if (source != NULL)
		return strcmp(source, "vm") == 0 ? SOURCE_VM : strcmp(source, "arc") == 0 ? SOURCE_ARC : SOURCE_APP_SERVICE;
	if (getenv("IDENTITY_ENDPOINT") == NULL)
		return SOURCE_VM;
	if (getenv("IDENTITY_HEADER") != NULL)
		return SOURCE_APP_SERVICE;
	return getenv("IMDS_ENDPOINT") != NULL ? SOURCE_ARC : SOURCE_VM;
}

/* NULL if there is none. */
static const char *
endpoint(const Auth *auth)
{
	const char *url = getenv("IDENTITY_ENDPOINT");

	if (identity_endpoint[0] == '\0')
		return NULL;
	switch (choose_source(auth))
	{
		case SOURCE_VM:
			return auth_url_join(identity_endpoint, METADATA_PATH);
		case SOURCE_APP_SERVICE:
			return url;
		case SOURCE_ARC:
			return url ? url : ARC_ENDPOINT;
	}
	return NULL;
}

static bool
check_identity(const Auth *auth, AuthProblem *problem)
{
	static const char *const ids[] = {"client_id", "object_id", "resource_id"};
	int			given = 0;

	for (int i = 0; i < lengthof(ids); i++)
		given += auth_text(auth, ids[i]) != NULL;
	if (given > 1)
		return auth_fail(problem, "client_id", "only one of \"client_id\", \"object_id\" and \"resource_id\" may be given",
						 "One is enough to name a user-assigned identity; without any the system-assigned one is used.");
	if (choose_source(auth) == SOURCE_ARC && given > 0)
		return auth_fail(problem, "client_id", "machines with Azure Arc have a system-assigned identity only", NULL);
	if (identity_endpoint[0] == '\0')
		return auth_fail(problem, "type", "the managed identity of this machine may not be used",
						 "An administrator decides that with weir.identity_endpoint.");
	if (endpoint(auth) == NULL)
		return auth_fail(problem, "source", "the server's environment has no IDENTITY_ENDPOINT",
						 "App Service and the like set it for the processes they start.");
	return true;
}

static const char *
identity_url(const Auth *auth, const char **path)
{
	const char *url = endpoint(auth);

	*path = "type";
	return url == NULL || urlpolicy_is_metadata_service(url) ? NULL : url;
}

/* "resource" is the scope without what scopes of clients end in */
static const char *
resource(const char *scope)
{
	static const char suffix[] = "/.default";
	size_t		len = strlen(scope);

	if (len > sizeof(suffix) - 1 && strcmp(scope + len - (sizeof(suffix) - 1), suffix) == 0)
		return pnstrdup(scope, len - (sizeof(suffix) - 1));
	return scope;
}

/* The endpoint with what is asked for; nothing of it is secret */
static const char *
query_url(const Auth *auth, IdentitySource source, const char *base)
{
	static const char *const versions[] = {"2018-02-01", "2019-08-01", "2020-06-01"};
	SecretBuf	url = {0};
	const char *id;
	char	   *text;
	char	   *copy;

	secretbuf_addstr(&url, base);
	secretbuf_addstr(&url, "?");
	secretbuf_add_form(&url, "api-version", versions[source]);
	secretbuf_add_form(&url, "resource", resource(auth->scope));
	if ((id = auth_text(auth, "client_id")) != NULL)
		secretbuf_add_form(&url, "client_id", id);
	if ((id = auth_text(auth, "object_id")) != NULL)
		secretbuf_add_form(&url, source == SOURCE_APP_SERVICE ? "principal_id" : "object_id", id);
	if ((id = auth_text(auth, "resource_id")) != NULL)
		secretbuf_add_form(&url, source == SOURCE_APP_SERVICE ? "mi_res_id" : "msi_res_id", id);
	text = secretbuf_take(&url);
	if (text == NULL)
		signin_out_of_memory();
	copy = pstrdup(text);
	free(text);
	return copy;
}

/*
 * Is this a file that the agent may have named?  The path comes from whoever
 * answers on the port, so it must not make us read, and send back, another
 * file of the machine.
 */
static const char *
key_file_problem(const char *path)
{
	size_t		len = strlen(arc_directory);
	const char *name;

	while (len > 1 && arc_directory[len - 1] == '/')
		len--;
	if (strncmp(path, arc_directory, len) != 0 || path[len] != '/')
		return "is not in the agent's directory";
	name = path + len + 1;
	if (strchr(name, '/') != NULL || strlen(name) <= strlen(KEY_FILE_SUFFIX) ||
		strcmp(name + strlen(name) - strlen(KEY_FILE_SUFFIX), KEY_FILE_SUFFIX) != 0)
		return "is not a key file";
	return NULL;
}

/* Its content, malloc'd; NULL and *problem (palloc'd) */
static char *
read_key_file(const char *path, const char **problem)
{
	struct stat st;
	char	   *content = NULL;
	ssize_t		len;
	int			fd;

	*problem = key_file_problem(path);
	if (*problem != NULL)
		return NULL;
	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		*problem = psprintf("cannot be opened (%m): the server's user must be in the group that may read it, himds as a rule");
		return NULL;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		*problem = "is not a regular file";
	else if (st.st_size > MAX_KEY_FILE)
		*problem = "is longer than 4096 bytes";
	else if ((content = calloc(1, MAX_KEY_FILE + 2)) == NULL)
		*problem = "cannot be read: out of memory";
	else if ((len = read(fd, content, MAX_KEY_FILE + 1)) < 0 || len > MAX_KEY_FILE)
		*problem = "cannot be read or is longer than 4096 bytes";
	else if (signin_header_problem(content, true) != NULL)
		*problem = "is empty, or is not a key";
	CloseTransientFile(fd);
	if (*problem != NULL && content != NULL)
	{
		explicit_bzero(content, MAX_KEY_FILE + 2);
		free(content);
		content = NULL;
	}
	return content;
}

static bool
answer_challenge(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	const char *problem;
	SecretBuf	line = {0};

	request->sent = read_key_file(call->challenge, &problem);
	if (request->sent == NULL)
		return auth_refuse(refusal, true, psprintf("the file that the Azure Arc agent names %s", problem));
	secretbuf_addstr(&line, "Authorization: Basic ");
	secretbuf_addstr(&line, request->sent);
	request->secret_header = secretbuf_take(&line);
	return request->secret_header != NULL || auth_refuse(refusal, false, "out of memory");
}

static bool
identity_request(const SignInCall *call, SignInRequest *request, SignInRefusal *refusal)
{
	IdentitySource source = choose_source(call->auth);
	const char *base = endpoint(call->auth);
	const char *key = getenv("IDENTITY_HEADER");
	SecretBuf	line = {0};

	if (base == NULL)
		return auth_refuse(refusal, true, identity_endpoint[0] == '\0' ?
						   "the managed identity of this machine may not be used (weir.identity_endpoint)" :
						   "the server's environment has no IDENTITY_ENDPOINT");
	request->method = "GET";
	request->url = query_url(call->auth, source, base);
	request->is_identity_service = true;
	if (source != SOURCE_APP_SERVICE)
	{
		request->header = "Metadata: true";
		return call->challenge == NULL || answer_challenge(call, request, refusal);
	}
	if (key == NULL || signin_header_problem(key, true) != NULL)
		return auth_refuse(refusal, true, "the server's environment has no valid IDENTITY_HEADER");
	secretbuf_addstr(&line, "X-IDENTITY-HEADER: ");
	secretbuf_addstr(&line, key);
	request->secret_header = secretbuf_take(&line);
	request->sent = strdup(key);
	return (request->secret_header && request->sent) || auth_refuse(refusal, false, "out of memory");
}

/* "WWW-Authenticate: Basic realm=/path/file.key" among the lines of an agent's answer; palloc'd path or NULL */
static const char *
challenge_path(const char *lines)
{
	static const char begin[] = "www-authenticate: basic realm=";

	for (const char *line = lines; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n')
	{
		const char *path = line + sizeof(begin) - 1;

		if (pg_strncasecmp(line, begin, sizeof(begin) - 1) != 0)
			continue;
		if (*path == '"')
			return pnstrdup(path + 1, strcspn(path + 1, "\"\n"));
		return pnstrdup(path, strcspn(path, ", \n"));
	}
	return NULL;
}

/*
 * The metadata service answers 404, 410 and 429 while it is being updated or
 * is asked too often, 410 for up to 70 s; those pass.  A refused identity or
 * resource does not.
 */
static void
identity_response(const HttpResult *result, const cJSON *answer, int64 now_ms, SignInAnswer *out)
{
	int			status = result->http_status;
	const char *words;

	if (status == 200)
	{
		if (!signin_oauth_token(result, answer, now_ms, out))
			signin_oauth_nothing(result, answer, "a token", "source, or weir.identity_endpoint", &out->refusal);
		return;
	}
	words = signin_oauth_words(result, answer);
	if (status == 401 && (out->challenge = challenge_path(result->headers)) != NULL)
		auth_refuse(&out->refusal, true, "the Azure Arc agent does not accept the key of its own file");
	else if (status == 404 || status == 410 || !signin_oauth_is_final(result))
		auth_refuse(&out->refusal, false, psprintf("the identity service is not ready (%s)", words));
	else if (status == 400 || status == 403)
		auth_refuse(&out->refusal, true, psprintf("the machine has no such identity, or the scope is not known: assign it, and check client_id, object_id or resource_id and scope (%s)", words));
	else
		auth_refuse(&out->refusal, true, psprintf("the identity service refuses (%s)", words));
}

static const char *const sources[] = {"vm", "app_service", "arc", NULL};

const SignInMethod signin_managed_identity = {
	.name = "managed_identity",
	.keys = {
		{"source", AUTH_KEY_CHOICE, false, sources},
		{"client_id", AUTH_KEY_ID},
		{"object_id", AUTH_KEY_ID},
		{"resource_id", AUTH_KEY_TEXT},
		{"scope", AUTH_KEY_SCOPE},
		WORKSPACE_KEYS,
	},
	.check = check_identity,
	.url = identity_url,
	.request = identity_request,
	.response = identity_response,
};
