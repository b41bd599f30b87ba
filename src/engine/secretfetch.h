/*-------------------------------------------------------------------------
 * secretfetch.h
 *	  Values of secrets for processes that have no multiplexer of their own.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SECRETFETCH_H
#define WEIR_SECRETFETCH_H

#include "catalog.h"
#include "signin.h"

/* How the caller has transactions; both NULL: one is open, and stays. */
typedef struct SecretScope
{
	void		(*begin) (void *arg);	/* SPI connected as the extension's owner afterwards */
	void		(*end) (void *arg);
	void	   *arg;
} SecretScope;

/*
 * The value of a secret of weir's, or of a reference to a key vault, which is
 * asked over the network: malloc'd, wipe and free with signin_free_secret().
 * NULL and *failure, its text in the caller's memory.  No transaction is open
 * while the network is waited for, unless the scope keeps one.  Every fetch
 * has a timeout; interrupts are raised, and nothing is left behind.
 */
extern char *secretfetch(const char *name, const SecretScope *scope, SignInFailure *failure);

/* For SignInCatalog.connection: read now.  SPI connected as the extension's owner. */
extern bool secretfetch_connection(const char *name, SignInConnection *found, void *arg);

#endif							/* WEIR_SECRETFETCH_H */
