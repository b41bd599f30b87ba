/*-------------------------------------------------------------------------
 * redact.h
 *	  Keeps statements that carry a secret out of logs and views.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REDACT_H
#define WEIR_REDACT_H

/* Chain into emit_log_hook; from _PG_init. */
extern void redact_install(void);

/*
 * Replace the text of the current statement, in debug_query_string and
 * pg_stat_activity, by shown (a string constant).  First thing in a function
 * whose arguments are secret.
 */
extern void redact_statement(const char *shown);

#endif							/* WEIR_REDACT_H */
