/*-------------------------------------------------------------------------
 * secretbox.h
 *	  Authenticated encryption of secrets under the installation's key file.
 *
 * AES-256-GCM.  A sealed value is: format byte, 4 bytes key id, 12 bytes
 * nonce, 16 bytes tag, ciphertext.  The secret's name is authenticated with
 * it, so a sealed value moved to another name does not open.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SECRETBOX_H
#define WEIR_SECRETBOX_H

#define SECRETBOX_KEY_BYTES		32
#define SECRETBOX_MAX_VALUE		65536	/* bytes of a secret's value */

/*
 * Read the key from path into key.  False: *error and *hint (palloc'd or
 * static) say what is wrong; key is wiped.  Never raises for that.
 */
extern bool secretbox_read_key(const char *path, unsigned char *key,
							   const char **error, const char **hint);

/* A new bytea, palloc'd; ereports when OpenSSL fails. */
extern bytea *secretbox_seal(const unsigned char *key, const char *name,
							 const char *value, size_t len);

/*
 * The value, malloc'd and NUL-terminated, or NULL and *error.  Free it with
 * signin_free_secret().
 */
extern char *secretbox_open(const unsigned char *key, const char *name,
							const bytea *sealed, const char **error);

#endif							/* WEIR_SECRETBOX_H */
