/*-------------------------------------------------------------------------
 * outgoing.h
 *	  Requests as they are sent: with credentials, signatures and secrets.
 *
 * Needs SPI connected as the extension owner, for secrets.  What outgoing_make
 * filled in, also when it failed, is wiped by outgoing_wipe.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OUTGOING_H
#define WEIR_OUTGOING_H

#include "catalog.h"
#include "kind.h"

typedef struct Outgoing
{
	const char *url;
	const char **lines;			/* headers, NULL at the end */
	const char *body;			/* or NULL */
	size_t		body_len;
	char	   *secrets[3];		/* malloc'd texts the above point to */
	char	   *masked[2];		/* malloc'd; not to be seen in the answer, see HttpOptions */
} Outgoing;

/*
 * The request with what signs in: a line of credentials (or NULL), or what
 * the connection's auth of type shared_key or sas asks for.  connection is
 * NULL for none.  owner: of the pipeline, who must be in the role that owns a
 * secret to send its value somewhere.  False and *error (palloc'd or static,
 * no secrets).
 */
extern bool outgoing_make(const KindRequest *request, const Connection *connection, const char *credentials,
						  Oid owner, Outgoing *out, const char **error);
extern void outgoing_wipe(Outgoing *out);

#endif							/* WEIR_OUTGOING_H */
