/*-------------------------------------------------------------------------
 * signin_assertion.c
 *	  Client assertions: a certificate and its key in, a signed JWT out.
 *
 * Runs where httpmux.c runs, once per token, so nothing is cached: key and
 * certificate are read from the secret, used and freed.  The key's copies are
 * OpenSSL's, which cleanses them; everything of ours is malloc'd and wiped.
 * OpenSSL's error queue is emptied and not shown: its texts say little to a
 * user, and those about a password or a key are better not repeated.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "signin_pure.h"

#define MIN_RSA_BITS	2048
#define MAX_CHAIN		10
#define TIME_TEXT		40

struct SigningKey
{
	EVP_PKEY   *key;
	X509	   *leaf;			/* the certificate of this key */
	STACK_OF(X509) *others;		/* the rest of what was given; NULL for none */
};

void
signing_key_free(SigningKey *key)
{
	if (key == NULL)
		return;
	EVP_PKEY_free(key->key);
	X509_free(key->leaf);
	sk_X509_pop_free(key->others, X509_free);
	free(key);
}

/* Never ask a terminal for a password, which is what OpenSSL does without a callback. */
static int
give_password(char *buffer, int size, int writing, void *password)
{
	size_t		len = password ? strlen(password) : 0;

	(void) writing;
	if (len == 0 || len > (size_t) size)
		return -1;
	memcpy(buffer, password, len);
	return (int) len;
}

static EVP_PKEY *
read_pem_key(const char *pem, const char *password, const char **problem)
{
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY   *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_password, (void *) password) : NULL;

	BIO_free(bio);
	if (key != NULL)
		return key;
	if (strstr(pem, "PRIVATE KEY-----") == NULL)
		*problem = "there is no private key with the certificate";
	else if (strstr(pem, "ENCRYPTED") != NULL)
		*problem = password ? "the private key cannot be decrypted: the password is wrong, or the key is damaged" :
			"the private key is encrypted and auth has no \"password\"";
	else
		*problem = "the private key is malformed";
	return NULL;
}

static bool
read_pem_certificates(const char *pem, STACK_OF(X509) *certificates, const char **problem)
{
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	X509	   *certificate;
	int			n = 0;

	while (bio != NULL && n <= MAX_CHAIN &&
		   (certificate = PEM_read_bio_X509(bio, NULL, give_password, NULL)) != NULL)
	{
		if (!sk_X509_push(certificates, certificate))
			X509_free(certificate);
		n++;
	}
	BIO_free(bio);
	if (n == 0)
		*problem = strstr(pem, "-----BEGIN CERTIFICATE") || strstr(pem, "-----BEGIN TRUSTED CERTIFICATE") ?
			"the certificate is malformed" : "there is no certificate in it";
	else if (n > MAX_CHAIN)
		*problem = "there are too many certificates in it";
	return n > 0 && n <= MAX_CHAIN;
}

/* Of base64 in any line lengths; malloc'd */
static unsigned char *
decode_base64(const char *text, size_t *len)
{
	EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
	unsigned char *bytes = malloc(strlen(text) + 64);
	int			n = 0,
				rest = 0;
	bool		ok = false;

	if (ctx != NULL && bytes != NULL)
	{
		EVP_DecodeInit(ctx);
		ok = EVP_DecodeUpdate(ctx, bytes, &n, (const unsigned char *) text, (int) strlen(text)) >= 0 &&
			EVP_DecodeFinal(ctx, bytes + n, &rest) >= 0 && n + rest > 0;
	}
	EVP_ENCODE_CTX_free(ctx);
	if (!ok)
	{
		free(bytes);
		return NULL;
	}
	*len = n + rest;
	return bytes;
}

static bool
read_pkcs12(const char *material, const char *password, EVP_PKEY **key, STACK_OF(X509) *certificates,
			const char **problem)
{
	size_t		len;
	unsigned char *bytes = decode_base64(material, &len);
	const unsigned char *p = bytes;
	PKCS12	   *pkcs12 = bytes ? d2i_PKCS12(NULL, &p, (long) len) : NULL;
	X509	   *leaf = NULL;
	STACK_OF(X509) *others = NULL;
	bool		ok = false;

	if (pkcs12 == NULL)
		*problem = "the certificate is malformed: it is neither PEM nor PKCS#12 in base64";
	else if (!PKCS12_parse(pkcs12, password ? password : "", key, &leaf, &others))
		*problem = !PKCS12_verify_mac(pkcs12, password ? password : "", -1) ?
			(password ? "the PKCS#12 file cannot be opened: the password is wrong" :
			 "the PKCS#12 file has a password and auth has no \"password\"") :
			"the PKCS#12 file is malformed, or encrypted with an algorithm that this OpenSSL does not have";
	else if (*key == NULL)
		*problem = "there is no private key with the certificate";
	else if (leaf == NULL)
		*problem = "there is no certificate in it";
	else
		ok = true;
	if (ok)
	{
		sk_X509_push(certificates, leaf);
		leaf = NULL;
		while (others != NULL && sk_X509_num(others) > 0)
			sk_X509_push(certificates, sk_X509_shift(others));
	}
	X509_free(leaf);
	sk_X509_pop_free(others, X509_free);
	PKCS12_free(pkcs12);
	if (bytes != NULL)
	{
		explicit_bzero(bytes, len);
		free(bytes);
	}
	return ok;
}

/* Take the certificate that belongs to the key out of those given. */
static bool
choose_leaf(SigningKey *key, STACK_OF(X509) *certificates, const char **problem)
{
	if (EVP_PKEY_base_id(key->key) != EVP_PKEY_RSA)
	{
		*problem = "the key is not an RSA key, which is what PS256 and RS256 sign with";
		return false;
	}
	if (EVP_PKEY_bits(key->key) < MIN_RSA_BITS)
	{
		*problem = "the RSA key is shorter than 2048 bits";
		return false;
	}
	for (int i = 0; i < sk_X509_num(certificates); i++)
	{
		if (X509_check_private_key(sk_X509_value(certificates, i), key->key) != 1)
			continue;
		key->leaf = sk_X509_delete(certificates, i);
		return true;
	}
	*problem = "the private key does not match the certificate";
	return false;
}

SigningKey *
signing_key_read(const char *material, const char *key_pem, const char *password, const char **problem)
{
	SigningKey *key = calloc(1, sizeof(SigningKey));
	STACK_OF(X509) *certificates = sk_X509_new_null();
	bool		ok = key != NULL && certificates != NULL;

	*problem = "out of memory";
	if (ok && strstr(material, "-----BEGIN ") != NULL)
		ok = read_pem_certificates(material, certificates, problem) &&
			(key->key = read_pem_key(key_pem ? key_pem : material, password, problem)) != NULL;
	else if (ok && key_pem != NULL)
	{
		*problem = "auth has a \"private_key\" and the certificate is not PEM";
		ok = false;
	}
	else if (ok)
		ok = read_pkcs12(material, password, &key->key, certificates, problem);
	ok = ok && choose_leaf(key, certificates, problem);
	ERR_clear_error();
	if (!ok)
	{
		sk_X509_pop_free(certificates, X509_free);
		signing_key_free(key);
		return NULL;
	}
	key->others = certificates;
	*problem = NULL;
	return key;
}

static const char *
time_text(const ASN1_TIME *time, char *text)
{
	struct tm	tm;

	if (!ASN1_TIME_to_tm(time, &tm) ||
		strftime(text, TIME_TEXT, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		strcpy(text, "an unknown time");
	return text;
}

char *
signing_key_time_problem(const SigningKey *key, int64 now_s)
{
	time_t		now = (time_t) now_s;
	char		text[TIME_TEXT];
	const ASN1_TIME *first = X509_get0_notBefore(key->leaf);
	const ASN1_TIME *last = X509_get0_notAfter(key->leaf);

	if (X509_cmp_time(last, &now) < 0)
		return mem_printf("the certificate expired at %s", time_text(last, text));
	if (X509_cmp_time(first, &now) > 0)
		return mem_printf("the certificate is not valid before %s", time_text(first, text));
	return NULL;
}

static void
add_json(SecretBuf *buf, cJSON *object)
{
	char	   *text = cJSON_PrintUnformatted(object);

	if (text == NULL)
		buf->failed = true;
	else
		secretbuf_add_base64(buf, (const unsigned char *) text, strlen(text), true);
	cJSON_free(text);
	cJSON_Delete(object);
}

static void
add_thumbprint(cJSON *header, X509 *leaf)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	SecretBuf	text = {0};

	if (X509_digest(leaf, EVP_sha256(), digest, &len))
		secretbuf_add_base64(&text, digest, len, true);
	cJSON_AddStringToObject(header, "x5t#S256", text.data ? text.data : "");
	secretbuf_free(&text);
}

static void
add_x5c(cJSON *array, X509 *certificate)
{
	unsigned char *der = NULL;
	int			len = i2d_X509(certificate, &der);
	SecretBuf	text = {0};

	if (len > 0)
		secretbuf_add_base64(&text, der, len, false);
	cJSON_AddItemToArray(array, cJSON_CreateString(text.data ? text.data : ""));
	secretbuf_free(&text);
	OPENSSL_free(der);
}

static void
add_header(SecretBuf *jwt, const SigningKey *key, AssertionAlg alg, bool with_chain)
{
	cJSON	   *header = cJSON_CreateObject();

	cJSON_AddStringToObject(header, "alg", alg == ASSERTION_PS256 ? "PS256" : "RS256");
	cJSON_AddStringToObject(header, "typ", "JWT");
	add_thumbprint(header, key->leaf);
	if (with_chain)
	{
		cJSON	   *chain = cJSON_AddArrayToObject(header, "x5c");

		add_x5c(chain, key->leaf);
		for (int i = 0; i < sk_X509_num(key->others); i++)
			add_x5c(chain, sk_X509_value(key->others, i));
	}
	add_json(jwt, header);
}

static void
add_claims(SecretBuf *jwt, const char *audience, const char *client_id, const char *jti, int64 now_s)
{
	cJSON	   *claims = cJSON_CreateObject();

	cJSON_AddStringToObject(claims, "aud", audience);
	cJSON_AddStringToObject(claims, "iss", client_id);
	cJSON_AddStringToObject(claims, "sub", client_id);
	cJSON_AddStringToObject(claims, "jti", jti);
	cJSON_AddItemToObject(claims, "nbf", json_from_int64(now_s));
	cJSON_AddItemToObject(claims, "iat", json_from_int64(now_s));
	cJSON_AddItemToObject(claims, "exp", json_from_int64(now_s + ASSERTION_LIFETIME_S));
	add_json(jwt, claims);
}

/* The signature of what is in the buffer, into the buffer */
static bool
add_signature(SecretBuf *jwt, const SigningKey *key, AssertionAlg alg)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pkey_ctx = NULL;
	unsigned char *signature = NULL;
	size_t		len = 0;
	bool		ok = ctx != NULL && !jwt->failed &&
		EVP_DigestSignInit(ctx, &pkey_ctx, EVP_sha256(), NULL, key->key) == 1;

	if (ok && alg == ASSERTION_PS256)
		ok = EVP_PKEY_CTX_set_rsa_padding(pkey_ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_DigestSign(ctx, NULL, &len, (unsigned char *) jwt->data, jwt->len) == 1 &&
		(signature = malloc(len)) != NULL &&
		EVP_DigestSign(ctx, signature, &len, (unsigned char *) jwt->data, jwt->len) == 1;
	if (ok)
	{
		secretbuf_add(jwt, ".", 1);
		secretbuf_add_base64(jwt, signature, len, true);
	}
	free(signature);
	EVP_MD_CTX_free(ctx);
	return ok;
}

char *
assertion_build(const SigningKey *key, AssertionAlg alg, bool with_chain, const char *audience,
				const char *client_id, const char *jti, int64 now_s)
{
	SecretBuf	jwt = {0};

	add_header(&jwt, key, alg, with_chain);
	secretbuf_add(&jwt, ".", 1);
	add_claims(&jwt, audience, client_id, jti, now_s);
	if (!add_signature(&jwt, key, alg))
		secretbuf_free(&jwt);
	ERR_clear_error();
	if (jwt.data == NULL)
		return NULL;
	return secretbuf_take(&jwt);
}

/* The second part of a JWT as JSON; NULL if it is not one. */
static cJSON *
read_claims(const char *jwt)
{
	const char *start = strchr(jwt, '.');
	const char *end = start ? strchr(start + 1, '.') : NULL;
	SecretBuf	text = {0};
	unsigned char *bytes;
	size_t		len;
	cJSON	   *claims = NULL;

	if (end == NULL)
		return NULL;
	secretbuf_add(&text, start + 1, end - start - 1);
	while (!text.failed && text.len % 4 != 0)
		secretbuf_add(&text, "=", 1);
	if (!text.failed)
	{
		for (char *p = text.data; *p != '\0'; p++)
			*p = *p == '-' ? '+' : *p == '_' ? '/' : *p;
		bytes = decode_base64(text.data, &len);
		if (bytes != NULL)
		{
			claims = cJSON_ParseWithLength((char *) bytes, len);
			explicit_bzero(bytes, len);
			free(bytes);
		}
	}
	secretbuf_free(&text);
	ERR_clear_error();
	return claims;
}

bool
assertion_times(const char *jwt, int64 *not_before_s, int64 *expires_s)
{
	cJSON	   *claims = read_claims(jwt);
	bool		ok = cJSON_IsObject(claims);

	*not_before_s = *expires_s = INT64_MIN;
	if (ok)
	{
		(void) json_int64(json_get(claims, "nbf"), not_before_s);
		(void) json_int64(json_get(claims, "exp"), expires_s);
	}
	cJSON_Delete(claims);
	return ok;
}
