/*-------------------------------------------------------------------------
 * secretref.c
 *	  References to secrets kept on this machine: env:NAME and file:/path.
 *
 * Runs in the session that defines a reference and in the process that uses
 * it.  Both settings are checked at both times: what was allowed yesterday is
 * refused today if the setting says so.  The environment is the one the
 * postmaster was started with.  No locks, no state.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "secretbox.h"
#include "secretref.h"

static char *secret_env_prefix = NULL;
static char *secret_directories = NULL;

static bool
check_directories(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *directories = NIL;
	ListCell   *lc;
	bool		ok = SplitDirectoriesString(copy, ',', &directories);

	foreach(lc, directories)
		if (((char *) lfirst(lc))[0] != '/')
			ok = false;
	if (!ok)
		GUC_check_errdetail("It must be a comma-separated list of absolute paths.");
	list_free_deep(directories);
	pfree(copy);
	return ok;
}

void
secretref_define_gucs(void)
{
	DefineCustomStringVariable("weir.secret_directories",
							   "Directories below which file: references may read secrets.",
							   "Comma-separated absolute paths; empty allows none.",
							   &secret_directories, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_directories, NULL, NULL);
	DefineCustomStringVariable("weir.secret_env_prefix",
							   "Prefix of the environment variables that env: references may read.",
							   "Empty allows none.",
							   &secret_env_prefix, "WEIR_SECRET_", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static bool
env_check(const char *name, const char **error, const char **hint)
{
	size_t		prefix_len = strlen(secret_env_prefix);

	if (prefix_len == 0)
	{
		*error = "references to environment variables are not allowed";
		*hint = "Set weir.secret_env_prefix.";
		return false;
	}
	if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name) ||
		name[0] == '\0' || strlen(name) > 200)
	{
		*error = "name of the environment variable must consist of letters, digits and underscores";
		return false;
	}
	if (strncmp(name, secret_env_prefix, prefix_len) != 0)
	{
		*error = psprintf("environment variable \"%s\" may not be used as a secret", name);
		*hint = psprintf("Its name must start with \"%s\" (setting weir.secret_env_prefix).", secret_env_prefix);
		return false;
	}
	return true;
}

/* Is the resolved path strictly below one of the resolved directories? */
static bool
in_directories(const char *resolved)
{
	char	   *copy = pstrdup(secret_directories);
	List	   *directories = NIL;
	ListCell   *lc;
	bool		found = false;

	if (!SplitDirectoriesString(copy, ',', &directories))
		return false;
	foreach(lc, directories)
	{
		char		directory[PATH_MAX];
		size_t		len;

		if (realpath((char *) lfirst(lc), directory) == NULL)
			continue;
		len = strlen(directory);
		if (len > 1 && strncmp(resolved, directory, len) == 0 && resolved[len] == '/')
			found = true;
	}
	list_free_deep(directories);
	pfree(copy);
	return found;
}

/*
 * Resolve path into resolved (PATH_MAX bytes) and check where it leads.  A
 * file that is not there yet is fine while it is being defined, if its
 * directory is.  Errors do not tell whether a file outside exists.
 */
static bool
file_check(const char *path, bool must_exist, char *resolved, const char **error, const char **hint)
{
	char		parent[PATH_MAX];
	char	   *slash;

	if (path[0] != '/' || strlen(path) >= PATH_MAX - 1)
	{
		*error = "path of a file reference must be absolute";
		*hint = "Write file:/directory/name.";
		return false;
	}
	if (secret_directories[0] == '\0')
	{
		*error = "references to files are not allowed";
		*hint = "Set weir.secret_directories to the directories that hold secrets.";
		return false;
	}
	if (realpath(path, resolved) != NULL)
	{
		if (in_directories(resolved))
			return true;
	}
	else if (!must_exist)
	{
		strlcpy(parent, path, sizeof(parent));
		slash = strrchr(parent, '/');
		*slash = '\0';
		if (strcmp(slash + 1, "..") != 0 && strcmp(slash + 1, ".") != 0 && slash[1] != '\0' &&
			realpath(parent, resolved) != NULL)
		{
			strlcat(resolved, "/", PATH_MAX);
			if (in_directories(resolved))
				return true;
		}
	}
	else if (errno != ENOENT && errno != EACCES && errno != ENOTDIR)
	{
		*error = psprintf("could not resolve secret file \"%s\": %m", path);
		return false;
	}
	*error = psprintf("file \"%s\" is not below an allowed directory, or is not there", path);
	*hint = "Symbolic links are followed first. Allowed are the directories in weir.secret_directories.";
	return false;
}

bool
secretref_check(const char *reference, const char **error, const char **hint)
{
	char		resolved[PATH_MAX];

	*error = NULL;
	*hint = NULL;
	if (strncmp(reference, "env:", 4) == 0)
		return env_check(reference + 4, error, hint);
	if (strncmp(reference, "file:", 5) == 0)
		return file_check(reference + 5, false, resolved, error, hint);

	/* Not quoted: somebody may have taken it for the place of the value. */
	*error = "reference of a secret has no known scheme";
	*hint = "Write env:NAME, file:/path or keyvault:CONNECTION/NAME.";
	return false;
}

/* One trailing line end belongs to the file, not to the secret. */
static void
strip_line_end(char *value, size_t *len)
{
	if (*len > 0 && value[*len - 1] == '\n')
		(*len)--;
	if (*len > 0 && value[*len - 1] == '\r')
		(*len)--;
	value[*len] = '\0';
}

/* PKCS#12 is binary: such a file is handed out in base64, as key vaults do. */
static bool
is_binary(const char *path)
{
	size_t		len = strlen(path);

	return len > 4 && (strcmp(path + len - 4, ".pfx") == 0 || strcmp(path + len - 4, ".p12") == 0);
}

static char *
to_base64(char *value, size_t len)
{
	char	   *text = malloc((len + 2) / 3 * 4 + 1);

	if (text != NULL)
		EVP_EncodeBlock((unsigned char *) text, (unsigned char *) value, (int) len);
	OPENSSL_cleanse(value, len);
	free(value);
	return text;
}

static char *
file_value(const char *path, const char **error)
{
	char		resolved[PATH_MAX];
	const char *hint;
	struct stat st;
	char	   *value;
	size_t		len = 0;
	ssize_t		n = 0;
	int			fd;

	if (!file_check(path, true, resolved, error, &hint))
		return NULL;

	/* The path is resolved: a link in the last part now is a swap. */
	fd = OpenTransientFile(resolved, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		*error = psprintf("could not open secret file \"%s\": %m", path);
		return NULL;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
	{
		CloseTransientFile(fd);
		*error = psprintf("secret file \"%s\" is not a regular file", path);
		return NULL;
	}

	value = malloc(SECRETBOX_MAX_VALUE + 2);
	while (value != NULL && len <= SECRETBOX_MAX_VALUE &&
		   (n = read(fd, value + len, SECRETBOX_MAX_VALUE + 1 - len)) > 0)
		len += n;
	if (value == NULL)
		*error = "out of memory";
	else if (n < 0)
		*error = psprintf("could not read secret file \"%s\": %m", path);
	else if (len > SECRETBOX_MAX_VALUE)
		*error = psprintf("secret file \"%s\" is longer than %d bytes", path, SECRETBOX_MAX_VALUE);
	else if (is_binary(path) && len > 0)
	{
		value = to_base64(value, len);
		if (value == NULL)
			*error = "out of memory";
	}
	else if (memchr(value, '\0', len) != NULL)
		*error = psprintf("secret file \"%s\" holds a zero byte", path);
	else
	{
		strip_line_end(value, &len);
		if (len == 0)
			*error = psprintf("secret file \"%s\" is empty", path);
	}
	CloseTransientFile(fd);

	if (*error != NULL && value != NULL)
	{
		OPENSSL_cleanse(value, SECRETBOX_MAX_VALUE + 2);
		free(value);
		value = NULL;
	}
	return value;
}

char *
secretref_value(const char *reference, const char **error)
{
	const char *hint;
	const char *value;
	char	   *copy;

	*error = NULL;
	if (strncmp(reference, "file:", 5) == 0)
		return file_value(reference + 5, error);

	if (!secretref_check(reference, error, &hint))
		return NULL;
	value = getenv(reference + 4);
	if (value == NULL || value[0] == '\0')
	{
		*error = psprintf("environment variable \"%s\" is not set in the server's environment", reference + 4);
		return NULL;
	}
	if (strlen(value) > SECRETBOX_MAX_VALUE)
	{
		*error = psprintf("environment variable \"%s\" is longer than %d bytes", reference + 4, SECRETBOX_MAX_VALUE);
		return NULL;
	}
	copy = strdup(value);
	if (copy == NULL)
		*error = "out of memory";
	return copy;
}
