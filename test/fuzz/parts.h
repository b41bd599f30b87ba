/*-------------------------------------------------------------------------
 * parts.h
 *	  Inputs that tell a story: parts that begin with a line "=== WHAT"
 *
 * For targets on both sides, so no header of ours or of the server's.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FUZZ_PARTS_H
#define WEIR_FUZZ_PARTS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct FuzzPart
{
	const char *line;			/* without "=== ", but for that of the very first part */
	const char *text;			/* what comes behind the line */
	size_t		len;
} FuzzPart;

/* An answer of HTTP: headers end at an empty line */
typedef struct FuzzAnswer
{
	int			status;			/* 100 to 599 */
	long long	retry_after_ms; /* -1: none */
	char	   *headers;		/* lines */
	char	   *body;
	size_t		body_len;
} FuzzAnswer;

/* The next part at or after *at; false at the end */
extern bool fuzz_part(const char **at, const char *end, FuzzPart *part);
/* numbers: "200 1500", status and Retry-After */
extern void fuzz_answer(const FuzzPart *part, const char *numbers, FuzzAnswer *answer);

#endif							/* WEIR_FUZZ_PARTS_H */
