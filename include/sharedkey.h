/*-------------------------------------------------------------------------
 * sharedkey.h
 *	  Requests to storage accounts: signed with the account's key, or with a
 *	  shared access signature in the URL.
 *
 * Pure: no database, no clock, no sockets.  Strings that hold a secret are
 * malloc'd, and the caller wipes them (signin_free_secret); the others come
 * from mem_alloc.  *error is a static text without secrets.
 * Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SHAREDKEY_H
#define WEIR_SHAREDKEY_H

/* A request as it will be sent.  Headers are lines "Name: value", NULL at the end, with x-ms-date among them. */
typedef struct SharedKeyRequest
{
	const char *method;
	const char *url;			/* absolute, percent-encoded, no fragment */
	const char *const *headers;
	size_t		body_len;
} SharedKeyRequest;

/*
 * The account a base URL is about: the first segment of the path, if there is
 * one (emulators), else the first label of the host.  NULL if it has none.
 */
extern char *sharedkey_account(const char *base_url);

/* What is signed; NULL if the URL is none. */
extern char *sharedkey_text(const char *account, const SharedKeyRequest *request);

/* "Authorization: SharedKey account:signature", malloc'd; key is base64.  NULL and *error. */
extern char *sharedkey_header(const char *account, const char *key, const SharedKeyRequest *request,
							  const char **error);

/*
 * The URL, or a header line that ends in one, with the SAS put behind it;
 * malloc'd.  A leading "?" of the SAS does not matter.  NULL and *error.
 */
extern char *sharedkey_add_sas(const char *url, const char *sas, const char **error);

/*
 * Is it the SAS of a container, a folder, a file or a queue, whoever signed
 * it, and not of the account?  Only that one names services ("ss"); a leading
 * "?" does not matter.
 */
extern bool sharedkey_sas_is_service(const char *sas);

/* The signature in a SAS, as it stands there and decoded; malloc'd, NULL when out of memory. */
extern char *sharedkey_sas_signature(const char *sas, bool decoded);

#endif							/* WEIR_SHAREDKEY_H */
