/*-------------------------------------------------------------------------
 * signin_pure.h
 *	  The parts of sign-in that need no server: buffers that are wiped,
 *	  lifetimes of tokens, signed assertions, and what Entra's codes mean.
 *
 * No tables, no clock, no memory contexts where something secret is held:
 * that is malloc'd and wiped before it is freed.  Times are epoch seconds
 * (_s) or milliseconds (_ms).  Compiles with -DWEIR_STANDALONE for unit tests.
 * Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SIGNIN_PURE_H
#define WEIR_SIGNIN_PURE_H

/* signin_buf.c: a growing text that is wiped; out of memory is noticed at the end. */
typedef struct SecretBuf
{
	char	   *data;			/* terminated; NULL while empty */
	size_t		len;
	size_t		size;
	bool		failed;			/* out of memory: the text is gone */
} SecretBuf;

extern void secretbuf_add(SecretBuf *buf, const char *bytes, size_t len);
extern void secretbuf_addstr(SecretBuf *buf, const char *text);
/* "key=value" of a form or query, "&" in front unless it is the first or follows a "?" */
extern void secretbuf_add_form(SecretBuf *buf, const char *key, const char *value);
extern void secretbuf_add_urlencoded(SecretBuf *buf, const char *value);
/* base64; is_url: its URL form, without padding */
extern void secretbuf_add_base64(SecretBuf *buf, const unsigned char *bytes, size_t len, bool is_url);
/* Hand the text over (malloc'd); NULL when memory ran out.  The buffer is empty again. */
extern char *secretbuf_take(SecretBuf *buf);
extern void secretbuf_free(SecretBuf *buf);

/* wipes and frees a malloc'd string; NULL is fine */
extern void secret_wipe(char *text);

/* signin_time.c */
typedef struct TokenTimes
{
	int64		refresh_at_ms;	/* from then on a new one is fetched, this one goes on being used */
	int64		expires_at_ms;	/* from then on it is not used any more */
} TokenTimes;

/* refresh_in_s: what the service recommends, 0 for nothing */
extern TokenTimes token_times(int64 now_ms, int64 lifetime_s, int64 refresh_in_s);
/* How long to leave a service alone after its failures-th failure in a row (1 first). */
extern int64 token_hold_ms(int failures, bool is_user_error, int64 retry_after_ms);
/* "2026-11-21T10:08:21.123Z" or with a space and without a fraction; false if it is not one */
extern bool token_time_parse(const char *text, int64 *epoch_s);

/* signin_assertion.c */
typedef struct SigningKey SigningKey;

typedef enum AssertionAlg
{
	ASSERTION_PS256,
	ASSERTION_RS256
} AssertionAlg;

/*
 * Read a certificate and its private key.  material: PEM with one or several
 * certificates and perhaps the key, or PKCS#12 in base64.  key_pem: the key if
 * it is not among it, or NULL.  NULL and *problem (static) if that fails.
 */
extern SigningKey *signing_key_read(const char *material, const char *key_pem, const char *password,
									const char **problem);
extern void signing_key_free(SigningKey *key);
/* NULL, or why the certificate cannot be used at this time (mem_alloc'd) */
extern char *signing_key_time_problem(const SigningKey *key, int64 now_s);
/*
 * A client assertion (RFC 7523), malloc'd; wipe it with secret_wipe.  jti: an
 * id never used before.  NULL when OpenSSL refuses or memory runs out.
 */
extern char *assertion_build(const SigningKey *key, AssertionAlg alg, bool with_chain, const char *audience,
							 const char *client_id, const char *jti, int64 now_s);
/* nbf and exp of a JWT, not verified; INT64_MIN where it has none.  False if it is no JWT. */
extern bool assertion_times(const char *jwt, int64 *not_before_s, int64 *expires_s);

#define ASSERTION_LIFETIME_S	600

/* signin_aadsts.c */
typedef struct AadstsMeaning
{
	int			code;
	bool		is_user_error;	/* somebody has to correct something; else it may pass */
	bool		about_secret;	/* another secret may be accepted */
	const char *what;			/* fragment */
	const char *advice;			/* fragment, imperative */
} AadstsMeaning;

/* First "AADSTS<digits>" of a text; 0 if there is none. */
extern int	aadsts_code(const char *text);
extern const AadstsMeaning *aadsts_meaning(int code);	/* NULL if it is not one we know */
/*
 * By how many seconds our clock is ahead (negative: behind), from the
 * "Current time" in a refusal of an assertion; false if it is not told.
 */
extern bool aadsts_clock_ahead(const char *text, int64 now_s, int64 *ahead_s);

#endif							/* WEIR_SIGNIN_PURE_H */
