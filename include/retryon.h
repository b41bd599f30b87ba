/*-------------------------------------------------------------------------
 * retryon.h
 *	  Which failures are worth another attempt
 *
 * Pure decisions over what is known of a failure and what the policy says,
 * its "on" as JSON: {"sqlstate": ["40001", "08"], "http": [429, "5xx"],
 * "code": ["..."], "failure": "system"}.  Include postgres.h or mem.h before
 * this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RETRYON_H
#define WEIR_RETRYON_H

#include <cjson/cJSON.h>

typedef struct FailureFacts
{
	const char *sqlstate;		/* or NULL */
	int			http_status;	/* 0 none */
	const char *code;			/* of the engine, or NULL */
	bool		is_user_error;
	bool		is_retryable;	/* what the kind says; without "on" that decides */
	bool		may_go_on;		/* its work may still be under way: never another attempt */
} FailureFacts;

/* on: NULL for none, else something retry_on_check() let pass */
extern bool retry_on_allows(const cJSON *on, const FailureFacts *facts);

/*
 * False, and what is wrong where: *path is relative to "on", ".http[1]";
 * *hint may become NULL.  Texts come from mem_alloc or are static.
 */
extern bool retry_on_check(const cJSON *on, const char **path, const char **message, const char **hint);

/*
 * Is the pipeline, its data or its rights to be mended (a user error), or
 * may it go well the next time (a system error)?  By the SQLSTATE's class:
 * connections (08), rolled back transactions (40), resources (53), operators
 * and timeouts (57), the machine (58), PostgreSQL itself (XX), locks.
 */
extern bool retry_sqlstate_is_user_error(const char *sqlstate);

#endif							/* WEIR_RETRYON_H */
