/*-------------------------------------------------------------------------
 * echo.h
 *	  Takes out of an answer what it repeats of the credentials it was sent.
 *
 * Nothing here allocates from a memory context or raises an error, so that
 * it may run between libcurl's callbacks.  Lengths are in bytes.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ECHO_H
#define WEIR_ECHO_H

#define ECHO_MIN_SECRET	6		/* shorter ones would mutilate every answer */

/*
 * Overwrite every copy of the secret in text, which keeps its length; true if
 * there was one.  Looked for as it is and as JSON and URLs escape it.
 */
extern bool echo_mask(char *text, size_t len, const char *secret);

/* The same for the credentials of a line "Authorization: SCHEME CREDENTIALS". */
extern bool echo_mask_header(char *text, size_t len, const char *line);

#endif							/* WEIR_ECHO_H */
