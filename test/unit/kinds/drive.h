/*-------------------------------------------------------------------------
 * drive.h
 *	  Whole attempts against a server, one exchange after the other
 *
 * The clock is made: it runs TIME_SCALE times as fast as the real one, so
 * that pauses are short.  An exchange is counted from 0.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KINDS_DRIVE_H
#define WEIR_KINDS_DRIVE_H

#include "harness.h"

#define TIME_SCALE		10
#define MAX_EXCHANGES	400

typedef enum Mishap
{
	MISHAP_NONE,
	MISHAP_CRASH_BEFORE,		/* the conductor dies before it sends */
	MISHAP_CRASH_AFTER,			/* it dies when it has sent, before it wrote down the answer */
	MISHAP_CANCEL				/* somebody cancels before this exchange */
} Mishap;

typedef struct Drive
{
	const char *address;		/* of the local cloud */
	const char *(*token) (bool fresh);	/* bearer token, or NULL for none */
	Mishap		mishap;
	int			mishap_at;
	int			exchanges;		/* made */
	bool		cancelled;		/* before anything ran */
	char		trace[8192];	/* steps taken */
} Drive;

/* Until there is an outcome (false: MAX_EXCHANGES were not enough) */
extern bool drive_attempt(Drive *drive, Attempt *attempt);

/* One exchange with the local cloud, for tests to steer it; NULL if it fails */
extern cJSON *cloud_call(const char *address, const char *method, const char *path, const char *body);

extern int64 drive_now_ms(void);

#endif							/* WEIR_KINDS_DRIVE_H */
