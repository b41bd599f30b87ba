/*-------------------------------------------------------------------------
 * vaultref.h
 *	  References to secrets in key vaults, "keyvault:CONNECTION/NAME[/VERSION]",
 *	  as definitions see them.  SPI connected as the extension owner.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_VAULTREF_H
#define WEIR_VAULTREF_H

extern bool vaultref_is(const char *name);	/* by its beginning */

/*
 * May this reference be used by a connection or a secret that is being
 * defined (the other is NULL)?  ereports if it is malformed, if its
 * connection is not there or not a key vault, and if signing in there would
 * need what is being defined.  path: of the JSON, or NULL.  The connections on
 * the way stay locked FOR SHARE until the transaction ends, so nobody closes a
 * circle from the other side.
 */
extern void vaultref_check(const char *reference, const char *for_connection, const char *for_secret,
						   const char *path);

/* The key vault that a secret of weir's is kept in, as a reference (palloc'd); NULL for none. */
extern char *vaultref_of_secret(const char *secret);

#endif							/* WEIR_VAULTREF_H */
