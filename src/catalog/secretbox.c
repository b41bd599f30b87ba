/*-------------------------------------------------------------------------
 * secretbox.c
 *	  Authenticated encryption of secrets under the installation's key file.
 *
 * Runs in the session that defines a secret and in the process that uses it.
 * Nothing is kept between calls: the key is read from its file each time and
 * wiped before the function returns, so a key never sits in memory while
 * nothing uses it, and replacing the file needs no restart.  No locks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"
#include "secretbox.h"

#define BOX_FORMAT		1
#define BOX_KEY_ID		4
#define BOX_NONCE		12
#define BOX_TAG			16
#define BOX_HEADER		(1 + BOX_KEY_ID + BOX_NONCE + BOX_TAG)

#define CREATE_HINT "Create one outside the data directory, as the operating system user of the server: umask 077; openssl rand -hex 32 > FILE"

/* Is path below directory (both resolved)? */
static bool
is_below(const char *path, const char *directory)
{
	size_t		len = strlen(directory);

	return strncmp(path, directory, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static int
hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* 32 bytes as they are, or 64 hex digits and perhaps a line end */
static bool
decode_key(const unsigned char *raw, size_t len, unsigned char *key)
{
	if (len == SECRETBOX_KEY_BYTES)
	{
		memcpy(key, raw, SECRETBOX_KEY_BYTES);
		return true;
	}
	while (len > 2 * SECRETBOX_KEY_BYTES && (raw[len - 1] == '\n' || raw[len - 1] == '\r'))
		len--;
	if (len != 2 * SECRETBOX_KEY_BYTES)
		return false;
	for (int i = 0; i < SECRETBOX_KEY_BYTES; i++)
	{
		int			high = hex_digit(raw[2 * i]);
		int			low = hex_digit(raw[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		key[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

/* Everything about the open file but its contents. */
static bool
key_file_ok(int fd, const char *path, const char **error, const char **hint)
{
	char		real_path[PATH_MAX];
	char		real_data[PATH_MAX];
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
	{
		*error = psprintf("key file \"%s\" is not a regular file", path);
		*hint = CREATE_HINT;
		return false;
	}
	if (realpath(path, real_path) == NULL || realpath(DataDir, real_data) == NULL)
	{
		*error = psprintf("could not resolve key file \"%s\": %m", path);
		return false;
	}
	if (is_below(real_path, real_data))
	{
		*error = psprintf("key file \"%s\" is inside the data directory", path);
		*hint = "Backups would carry the key beside what it protects. Move it elsewhere and set weir.secret_key_file.";
		return false;
	}
	if (st.st_uid != geteuid())
	{
		*error = psprintf("key file \"%s\" is not owned by the user the server runs as", path);
		*hint = "Change its owner.";
		return false;
	}
	if ((st.st_mode & (S_IXUSR | S_IRWXG | S_IRWXO)) != 0)
	{
		*error = psprintf("key file \"%s\" has mode %04o", path, (unsigned int) (st.st_mode & 07777));
		*hint = "Set its mode to 0600 or 0400.";
		return false;
	}
	return true;
}

bool
secretbox_read_key(const char *path, unsigned char *key, const char **error, const char **hint)
{
	unsigned char raw[2 * SECRETBOX_KEY_BYTES + 8];
	ssize_t		len;
	int			fd;
	bool		ok;

	*error = NULL;
	*hint = NULL;
	OPENSSL_cleanse(key, SECRETBOX_KEY_BYTES);

	if (path == NULL || path[0] == '\0')
	{
		*error = "no key file is configured";
		*hint = CREATE_HINT "; then set weir.secret_key_file to it and reload the configuration.";
		return false;
	}
	if (path[0] != '/')
	{
		*error = psprintf("key file \"%s\" is not an absolute path", path);
		*hint = "Set weir.secret_key_file to an absolute path.";
		return false;
	}

	/* O_NONBLOCK: a FIFO in the place of the file must not hang the backend. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		*error = psprintf("could not open key file \"%s\": %m", path);
		*hint = CREATE_HINT;
		return false;
	}
	if (!key_file_ok(fd, path, error, hint))
	{
		CloseTransientFile(fd);
		return false;
	}
	len = read(fd, raw, sizeof(raw));
	CloseTransientFile(fd);

	ok = len > 0 && decode_key(raw, (size_t) len, key);
	OPENSSL_cleanse(raw, sizeof(raw));
	if (!ok)
	{
		OPENSSL_cleanse(key, SECRETBOX_KEY_BYTES);
		*error = psprintf("key file \"%s\" holds neither 32 bytes nor 64 hexadecimal digits", path);
		*hint = CREATE_HINT;
	}
	return ok;
}

/* Tells "sealed under another key" from "damaged"; reveals nothing of the key. */
static bool
key_id(const unsigned char *key, unsigned char *id)
{
	static const char label[] = "weir secret key id";
	unsigned char input[sizeof(label) + SECRETBOX_KEY_BYTES];
	unsigned char digest[EVP_MAX_MD_SIZE];
	bool		ok;

	memcpy(input, label, sizeof(label));
	memcpy(input + sizeof(label), key, SECRETBOX_KEY_BYTES);
	ok = EVP_Digest(input, sizeof(input), digest, NULL, EVP_sha256(), NULL) == 1;
	OPENSSL_cleanse(input, sizeof(input));
	memcpy(id, digest, BOX_KEY_ID);
	return ok;
}

bytea *
secretbox_seal(const unsigned char *key, const char *name, const char *value, size_t len)
{
	bytea	   *sealed = palloc(VARHDRSZ + BOX_HEADER + len);
	unsigned char *box = (unsigned char *) VARDATA(sealed);
	unsigned char *nonce = box + 1 + BOX_KEY_ID;
	unsigned char *tag = nonce + BOX_NONCE;
	unsigned char *text = box + BOX_HEADER;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int			n;
	bool		ok;

	SET_VARSIZE(sealed, VARHDRSZ + BOX_HEADER + len);
	box[0] = BOX_FORMAT;

	/* No ereport between new and free. */
	ok = ctx != NULL &&
		key_id(key, box + 1) &&
		RAND_bytes(nonce, BOX_NONCE) == 1 &&
		EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *) name, (int) strlen(name)) == 1 &&
		EVP_EncryptUpdate(ctx, text, &n, (const unsigned char *) value, (int) len) == 1 &&
		EVP_EncryptFinal_ex(ctx, text + n, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, BOX_TAG, tag) == 1;
	EVP_CIPHER_CTX_free(ctx);

	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not encrypt the secret"),
				 errdetail("OpenSSL refused AES-256-GCM.")));
	return sealed;
}

char *
secretbox_open(const unsigned char *key, const char *name, const bytea *sealed, const char **error)
{
	size_t		size = VARSIZE_ANY_EXHDR(sealed);
	unsigned char *box = (unsigned char *) VARDATA_ANY(sealed);
	unsigned char id[BOX_KEY_ID];
	unsigned char *nonce = box + 1 + BOX_KEY_ID;
	unsigned char *tag = nonce + BOX_NONCE;
	size_t		len;
	EVP_CIPHER_CTX *ctx;
	char	   *value;
	int			n;
	bool		ok;

	if (size < BOX_HEADER || size > BOX_HEADER + SECRETBOX_MAX_VALUE || box[0] != BOX_FORMAT)
	{
		*error = psprintf("stored value of secret \"%s\" has an unknown format", name);
		return NULL;
	}
	if (!key_id(key, id) || memcmp(id, box + 1, BOX_KEY_ID) != 0)
	{
		*error = psprintf("secret \"%s\" was encrypted with another key than the one in weir.secret_key_file", name);
		return NULL;
	}

	len = size - BOX_HEADER;
	value = malloc(len + 1);
	ctx = EVP_CIPHER_CTX_new();
	ok = value != NULL && ctx != NULL &&
		EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *) name, (int) strlen(name)) == 1 &&
		EVP_DecryptUpdate(ctx, (unsigned char *) value, &n, box + BOX_HEADER, (int) len) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, BOX_TAG, tag) == 1 &&
		EVP_DecryptFinal_ex(ctx, (unsigned char *) value + n, &n) == 1;
	EVP_CIPHER_CTX_free(ctx);

	if (!ok)
	{
		/* GCM writes plaintext before it has checked the tag. */
		if (value != NULL)
			OPENSSL_cleanse(value, len + 1);
		free(value);
		*error = psprintf("stored value of secret \"%s\" is damaged or belongs to another name", name);
		return NULL;
	}
	value[len] = '\0';
	return value;
}
