/*-------------------------------------------------------------------------
 * retry.h
 *	  How long to wait before the next attempt or poll, and what is worth one
 *
 * All durations are milliseconds in int64.  No clock and no random source
 * here: the caller passes both.  Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RETRY_H
#define WEIR_RETRY_H

struct cJSON;

typedef enum RetryBackoff
{
	RETRY_EXPONENTIAL,			/* initial, initial * multiplier, ... */
	RETRY_LINEAR,				/* initial, 2 * initial, 3 * initial, ... */
	RETRY_FIXED					/* always initial */
} RetryBackoff;

typedef struct RetryPolicy
{
	int			max_attempts;	/* 1 = no retry */
	int64		initial_delay_ms;
	int64		max_delay_ms;
	double		multiplier;		/* >= 1; of exponential */
	double		jitter;			/* fraction 0 .. 1 of the delay, both ways */
	RetryBackoff backoff;
	const struct cJSON *on;		/* which failures, see retryon.h; NULL: the default */
	unsigned	given;			/* RETRY_GIVEN_*: what a definition said, and did not inherit */
} RetryPolicy;

#define RETRY_GIVEN_MAX_ATTEMPTS	1
#define RETRY_GIVEN_INITIAL_DELAY	2
#define RETRY_GIVEN_MAX_DELAY		4
#define RETRY_GIVEN_MULTIPLIER		8
#define RETRY_GIVEN_JITTER			16
#define RETRY_GIVEN_BACKOFF			32
#define RETRY_GIVEN_ON				64

#define RETRY_DEFAULT_MAX_ATTEMPTS		1
#define RETRY_DEFAULT_INITIAL_DELAY_MS	((int64) 10000)
#define RETRY_DEFAULT_MAX_DELAY_MS		((int64) 300000)
#define RETRY_DEFAULT_MULTIPLIER		2.0
#define RETRY_DEFAULT_JITTER			0.13

/* no delay is longer than this, whatever a policy or a server says */
#define RETRY_MAX_DELAY_MS				((int64) 86400000)

extern RetryPolicy retry_policy_default(void);

/* A policy that says nothing of something takes it over from base. */
extern void retry_policy_inherit(RetryPolicy *policy, const RetryPolicy *base);

/* "exponential", "linear", "fixed"; false if it is none of them */
extern bool retry_backoff_parse(const char *name, RetryBackoff *backoff);
extern const char *retry_backoff_name(RetryBackoff backoff);

/* NULL, or what is wrong with it (static text, fit for an errdetail) */
extern const char *retry_policy_check(const RetryPolicy *policy);

/*
 * Delay between the end of attempt "attempt_no" (1 = the first) and the
 * start of the next.  random01 in [0,1).  retry_after_ms is what the server
 * asked for (a minimum), or <= 0.  Never above max_delay_ms unless
 * retry_after_ms is.
 */
extern int64 retry_delay_ms(const RetryPolicy *policy, int attempt_no,
							double random01, int64 retry_after_ms);

extern bool retry_http_status_is_transient(int http_status);
extern bool retry_sqlstate_is_transient(const char *sqlstate);

/*
 * Value of a Retry-After header: delta-seconds, or an HTTP-date (all three
 * forms) seen from now_epoch (seconds since 1970 UTC).  -1 when it is
 * neither; 0 for a date in the past; at most RETRY_MAX_DELAY_MS.
 */
extern int64 retry_after_parse(const char *value, int64 now_epoch);
/* An HTTP-date in any of its forms; seconds since 1970 UTC */
extern bool retry_http_date(const char *value, int64 now_epoch, int64 *epoch);

#endif							/* WEIR_RETRY_H */
