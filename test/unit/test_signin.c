/*-------------------------------------------------------------------------
 * test_signin.c
 *	  The parts of sign-in that need no server
 *
 * Keys and certificates are made here; signatures are checked with OpenSSL's
 * own verification.
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <time.h>

#include "json.h"

#include "../../src/net/signin_pure.h"

#define NOW		INT64_C(1795255200)

static void
check_taken(SecretBuf *buf, const char *expected)
{
	char	   *text = secretbuf_take(buf);

	CHECK_STR(text, expected);
	secret_wipe(text);
}

static void
test_buf(void)
{
	static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar", "\xff\xfe\xfd?>"};
	static const char *const padded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy", "//79Pz4="};
	static const char *const url[] = {"", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy", "__79Pz4"};
	SecretBuf	buf = {0};

	check_taken(&buf, "");
	for (size_t i = 0; i < lengthof(plain); i++)
	{
		secretbuf_add_base64(&buf, (const unsigned char *) plain[i], strlen(plain[i]), false);
		check_taken(&buf, padded[i]);
		secretbuf_add_base64(&buf, (const unsigned char *) plain[i], strlen(plain[i]), true);
		check_taken(&buf, url[i]);
	}
	secretbuf_add_form(&buf, "a", "x y+/=~&%\xc3\xa4");
	secretbuf_add_form(&buf, "b", "");
	check_taken(&buf, "a=x%20y%2B%2F%3D~%26%25%C3%A4&b=");
	secretbuf_addstr(&buf, "http://h/p?");
	secretbuf_add_form(&buf, "a", "1");
	secretbuf_add_form(&buf, "b", "2");
	check_taken(&buf, "http://h/p?a=1&b=2");
	for (int i = 0; i < 1000; i++)
		secretbuf_addstr(&buf, "0123456789");
	CHECK_INT(buf.len, 10000);
	CHECK_INT(strlen(buf.data), 10000);
	secretbuf_free(&buf);
	CHECK(buf.data == NULL);
}

static void
test_times(void)
{
	static const struct
	{
		int64		lifetime_s;
		int64		refresh_in_s;
		int64		refresh_ms;
		int64		expires_ms;
	}			cases[] = {
		{3600, 0, 3300000, 3570000},	/* five minutes early, half a minute of margin */
		{86400, 43200, 43200000, 86370000}, /* as a managed identity asks for */
		{3600, 3599, 3300000, 3570000}, /* later than we would: our own */
		{3600, -5, 3300000, 3570000},
		{10, 0, 8000, 9000},	/* a fifth and a tenth of what is short */
		{1, 0, 800, 900},
		{0, 0, 0, 0},
		{-1, 0, 0, 0},
		{INT64_MAX, INT64_MAX, INT64_C(604500000), INT64_C(604770000)}, /* at most a week */
	};
	static const struct
	{
		const char *text;
		int64		expected;	/* -1: not a time */
	}			stamps[] = {
		{"2026-11-21T10:00:00Z", NOW},
		{"2026-11-21 10:00:00Z", NOW},
		{"2026-11-21T10:00:00.5230462Z, assertion valid", NOW},
		{"1970-01-01T00:00:00Z", 0},
		{"2026-11-21T10:00:00", -1},
		{"2026-13-21T10:00:00Z", -1},
		{"2026-11-21T25:00:00Z", -1},
		{"2026-11-21", -1},
		{"tomorrow", -1},
		{"", -1},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		TokenTimes	times = token_times(1000, cases[i].lifetime_s, cases[i].refresh_in_s);

		CHECK_INT(times.refresh_at_ms - 1000, cases[i].refresh_ms);
		CHECK_INT(times.expires_at_ms - 1000, cases[i].expires_ms);
	}
	for (size_t i = 0; i < lengthof(stamps); i++)
	{
		int64		when = -1;

		if (!token_time_parse(stamps[i].text, &when))
			when = -1;
		CHECK_INT(when, stamps[i].expected);
	}
	CHECK_INT(token_hold_ms(1, false, -1), 1000);
	CHECK_INT(token_hold_ms(4, false, -1), 8000);
	CHECK_INT(token_hold_ms(1000, false, -1), 60000);
	CHECK_INT(token_hold_ms(1000, true, -1), 10000);
	CHECK_INT(token_hold_ms(1, true, 70000), 70000);
	CHECK_INT(token_hold_ms(1, true, INT64_MAX), 3600000);
}

static void
test_aadsts(void)
{
	int64		ahead = 0;

	CHECK_INT(aadsts_code("AADSTS7000222: The provided client secret keys are expired."), 7000222);
	CHECK_INT(aadsts_code("something else"), 0);
	CHECK_INT(aadsts_code("AADSTS: none"), 0);
	CHECK_INT(aadsts_code("AADSTS99999999999999999999"), 0);
	CHECK_INT(aadsts_code(""), 0);
	CHECK(aadsts_meaning(7000215)->is_user_error && aadsts_meaning(7000215)->about_secret);
	CHECK(!aadsts_meaning(90002)->about_secret);
	CHECK(!aadsts_meaning(90033)->is_user_error);
	CHECK(aadsts_meaning(1) == NULL);
	CHECK(aadsts_clock_ahead("AADSTS700024: Current time: 2026-11-21T10:00:00.1Z, assertion valid from", NOW + 3600, &ahead));
	CHECK_INT(ahead, 3600);
	CHECK(aadsts_clock_ahead("Current time: 2026-11-21T10:00:00Z.", NOW - 3600, &ahead));
	CHECK_INT(ahead, -3600);
	CHECK(!aadsts_clock_ahead("Current time: soon", NOW, &ahead));
	CHECK(!aadsts_clock_ahead("", NOW, &ahead));
}

/* --- keys */

static EVP_PKEY *
new_rsa(int bits)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, NULL);
	EVP_PKEY   *key = NULL;

	EVP_PKEY_keygen_init(ctx);
	EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, bits);
	EVP_PKEY_keygen(ctx, &key);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

/* Valid from NOW + from to NOW + until */
static X509 *
new_certificate(EVP_PKEY *key, int64 from, int64 until)
{
	X509	   *cert = X509_new();
	X509_NAME  *name = X509_get_subject_name(cert);

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	ASN1_TIME_set(X509_getm_notBefore(cert), (time_t) (NOW + from));
	ASN1_TIME_set(X509_getm_notAfter(cert), (time_t) (NOW + until));
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *) "weir", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	X509_set_pubkey(cert, key);
	X509_sign(cert, key, EVP_sha256());
	return cert;
}

static char *
bio_text(BIO *bio)
{
	char	   *data;
	long		len = BIO_get_mem_data(bio, &data);
	char	   *text = malloc((size_t) len + 1);

	memcpy(text, data, (size_t) len);
	text[len] = '\0';
	BIO_free(bio);
	return text;
}

static char *
key_pem(EVP_PKEY *key, const char *password)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PKCS8PrivateKey(bio, key, password ? EVP_aes_256_cbc() : NULL, password,
								  password ? (int) strlen(password) : 0, NULL, NULL);
	return bio_text(bio);
}

static char *
certificate_pem(X509 *first, X509 *second)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_X509(bio, first);
	if (second)
		PEM_write_bio_X509(bio, second);
	return bio_text(bio);
}

static char *
pkcs12_base64(EVP_PKEY *key, X509 *cert, const char *password)
{
	PKCS12	   *p12 = PKCS12_create(password, "weir", key, cert, NULL, 0, 0, 0, 0, 0);
	unsigned char *der = NULL;
	int			len = i2d_PKCS12(p12, &der);
	SecretBuf	buf = {0};

	secretbuf_add_base64(&buf, der, (size_t) len, false);
	OPENSSL_free(der);
	PKCS12_free(p12);
	return secretbuf_take(&buf);
}

static char *
joined(const char *a, const char *b)
{
	SecretBuf	buf = {0};

	secretbuf_addstr(&buf, a);
	secretbuf_addstr(&buf, b);
	return secretbuf_take(&buf);
}

/* NULL, or what is wrong */
static const char *
read_problem(const char *material, const char *key, const char *password)
{
	const char *problem = NULL;
	SigningKey *read = signing_key_read(material, key, password, &problem);

	CHECK((read == NULL) == (problem != NULL));
	signing_key_free(read);
	return problem ? problem : "";
}

#define CHECK_PROBLEM(material, key, password, part) \
	do { \
		const char *found_ = read_problem(material, key, password); \
		unit_check((part)[0] != '\0' ? strstr(found_, part) != NULL : found_[0] == '\0', __FILE__, __LINE__, \
				   "problem is \"%s\", not \"%s\"", found_, part); \
	} while (0)

static size_t
decode_url(const char *text, size_t len, unsigned char *out)
{
	unsigned int bits = 0;
	int			have = 0;
	size_t		n = 0;
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (size_t i = 0; i < len; i++)
	{
		const char *found = strchr(digits, text[i]);

		if (!CHECK(found != NULL && *found != '\0'))
			return 0;
		bits = bits << 6 | (unsigned int) (found - digits);
		have += 6;
		if (have >= 8)
		{
			have -= 8;
			out[n++] = (unsigned char) (bits >> have);
		}
	}
	return n;
}

static bool
verifies(EVP_PKEY *key, bool is_pss, const char *signed_part, size_t len, const unsigned char *signature, size_t signature_len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pkey_ctx = NULL;
	bool		ok;

	EVP_DigestVerifyInit(ctx, &pkey_ctx, EVP_sha256(), NULL, key);
	if (is_pss)
	{
		EVP_PKEY_CTX_set_rsa_padding(pkey_ctx, RSA_PKCS1_PSS_PADDING);
		EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_ctx, 32);
	}
	ok = EVP_DigestVerify(ctx, signature, signature_len, (const unsigned char *) signed_part, len) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

static void
check_claims(const cJSON *claims)
{
	int64		number = 0;

	CHECK_STR(json_string(json_get(claims, "aud")), "https://login/t/oauth2/v2.0/token");
	CHECK_STR(json_string(json_get(claims, "iss")), "client \"x\"");
	CHECK_STR(json_string(json_get(claims, "sub")), "client \"x\"");
	CHECK_STR(json_string(json_get(claims, "jti")), "once");
	CHECK(json_int64(json_get(claims, "nbf"), &number) && number == NOW);
	CHECK(json_int64(json_get(claims, "iat"), &number) && number == NOW);
	CHECK(json_int64(json_get(claims, "exp"), &number) && number == NOW + 600);
}

static void
check_assertion(EVP_PKEY *key, X509 *cert, const char *material, AssertionAlg alg, bool with_chain)
{
	const char *problem;
	SigningKey *read = signing_key_read(material, NULL, NULL, &problem);
	char	   *jwt = assertion_build(read, alg, with_chain, "https://login/t/oauth2/v2.0/token", "client \"x\"", "once", NOW);
	char	   *dot = jwt ? strchr(jwt, '.') : NULL;
	char	   *last = jwt ? strrchr(jwt, '.') : NULL;
	unsigned char bytes[8192];
	unsigned char digest[32];
	unsigned int digest_len;
	int64		nbf,
				exp;
	size_t		n;
	cJSON	   *json;

	signing_key_free(read);
	if (!CHECK(jwt != NULL && last > dot))
		return;
	n = decode_url(jwt, (size_t) (dot - jwt), bytes);
	json = cJSON_ParseWithLength((char *) bytes, n);
	CHECK_STR(json_string(json_get(json, "alg")), alg == ASSERTION_PS256 ? "PS256" : "RS256");
	CHECK_STR(json_string(json_get(json, "typ")), "JWT");
	CHECK_INT(cJSON_GetArraySize(cJSON_GetObjectItem(json, "x5c")), with_chain ? 2 : 0);
	X509_digest(cert, EVP_sha256(), digest, &digest_len);
	{
		const char *thumb = json_string(cJSON_GetObjectItemCaseSensitive(json, "x5t#S256"));
		unsigned char found[64];

		CHECK(thumb != NULL && decode_url(thumb, strlen(thumb), found) == 32 && memcmp(found, digest, 32) == 0);
	}
	cJSON_Delete(json);
	n = decode_url(dot + 1, (size_t) (last - dot - 1), bytes);
	json = cJSON_ParseWithLength((char *) bytes, n);
	check_claims(json);
	cJSON_Delete(json);
	n = decode_url(last + 1, strlen(last + 1), bytes);
	CHECK(verifies(key, alg == ASSERTION_PS256, jwt, (size_t) (last - jwt), bytes, n));
	CHECK(!verifies(key, alg != ASSERTION_PS256, jwt, (size_t) (last - jwt), bytes, n));
	CHECK(assertion_times(jwt, &nbf, &exp));
	CHECK_INT(nbf, NOW);
	CHECK_INT(exp, NOW + 600);
	secret_wipe(jwt);
}

static void
test_assertions(void)
{
	EVP_PKEY   *key = new_rsa(2048),
			   *other = new_rsa(2048),
			   *weak = new_rsa(1024),
			   *ec = EVP_EC_gen("P-256");
	X509	   *cert = new_certificate(key, -1000, 1000),
			   *other_cert = new_certificate(other, -1000, 1000),
			   *weak_cert = new_certificate(weak, -1000, 1000),
			   *ec_cert = new_certificate(ec, -1000, 1000);
	char	   *pem = key_pem(key, NULL),
			   *locked = key_pem(key, "opensesame"),
			   *chain = certificate_pem(other_cert, cert),
			   *alone = certificate_pem(other_cert, NULL),
			   *weak_pem = key_pem(weak, NULL),
			   *weak_chain = certificate_pem(weak_cert, NULL),
			   *ec_pem = key_pem(ec, NULL),
			   *ec_chain = certificate_pem(ec_cert, NULL),
			   *both = joined(pem, chain),
			   *p12 = pkcs12_base64(key, cert, "opensesame"),
			   *p12_open = pkcs12_base64(key, cert, "");
	const char *problem;
	SigningKey *read;
	char	   *text;
	int64		nbf,
				exp;

	check_assertion(key, cert, both, ASSERTION_PS256, false);
	check_assertion(key, cert, both, ASSERTION_RS256, true);
	check_assertion(key, cert, p12_open, ASSERTION_PS256, false);

	CHECK_PROBLEM(chain, pem, NULL, "");
	CHECK_PROBLEM(chain, locked, "opensesame", "");
	CHECK_PROBLEM(p12, NULL, "opensesame", "");
	CHECK_PROBLEM(chain, locked, "wrong", "password is wrong");
	CHECK_PROBLEM(chain, locked, NULL, "no \"password\"");
	CHECK_PROBLEM(p12, NULL, "wrong", "password is wrong");
	CHECK_PROBLEM(p12, NULL, NULL, "no \"password\"");
	CHECK_PROBLEM(alone, pem, NULL, "does not match");
	CHECK_PROBLEM(chain, NULL, NULL, "no private key");
	CHECK_PROBLEM(pem, NULL, NULL, "no certificate");
	CHECK_PROBLEM(weak_chain, weak_pem, NULL, "shorter than 2048");
	CHECK_PROBLEM(ec_chain, ec_pem, NULL, "not an RSA key");
	CHECK_PROBLEM("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n", pem, NULL, "certificate is malformed");
	CHECK_PROBLEM("not a certificate", NULL, NULL, "neither PEM nor PKCS#12");
	CHECK_PROBLEM("bm90IG9uZQ==", NULL, NULL, "neither PEM nor PKCS#12");
	CHECK_PROBLEM("", NULL, NULL, "neither PEM nor PKCS#12");
	CHECK_PROBLEM(p12, pem, NULL, "not PEM");
	CHECK_PROBLEM(chain, "-----BEGIN PRIVATE KEY-----\nbm90IG9uZQ==\n-----END PRIVATE KEY-----\n", NULL, "private key is malformed");

	read = signing_key_read(both, NULL, NULL, &problem);
	CHECK(signing_key_time_problem(read, NOW) == NULL);
	text = signing_key_time_problem(read, NOW + 3600);
	CHECK(text != NULL && strstr(text, "expired at 2026-11-21 10:16:40 UTC") != NULL);
	mem_free(text);
	text = signing_key_time_problem(read, NOW - 3600);
	CHECK(text != NULL && strstr(text, "not valid before 2026-11-21 09:43:20 UTC") != NULL);
	mem_free(text);
	signing_key_free(read);

	CHECK(!assertion_times("no token", &nbf, &exp));
	CHECK(!assertion_times("a.b", &nbf, &exp));
	CHECK(!assertion_times("..", &nbf, &exp));
	CHECK(!assertion_times("a.W10.c", &nbf, &exp));
	CHECK(assertion_times("e30.e30.", &nbf, &exp) && nbf == INT64_MIN && exp == INT64_MIN);

	free(pem), free(locked), free(chain), free(alone), free(weak_pem), free(weak_chain);
	free(ec_pem), free(ec_chain), free(both), free(p12), free(p12_open);
	X509_free(cert), X509_free(other_cert), X509_free(weak_cert), X509_free(ec_cert);
	EVP_PKEY_free(key), EVP_PKEY_free(other), EVP_PKEY_free(weak), EVP_PKEY_free(ec);
}

void
test_signin(void)
{
	test_buf();
	test_times();
	test_aadsts();
	test_assertions();
}
