/*-------------------------------------------------------------------------
 * secretref.h
 *	  References to secrets kept elsewhere: env:NAME and file:/path.
 *
 * Which variables and files may be named is decided by weir.secret_env_prefix
 * and weir.secret_directories, when a reference is defined and again
 * whenever it is used.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SECRETREF_H
#define WEIR_SECRETREF_H

extern void secretref_define_gucs(void);

/* May this reference be defined?  Else *error and *hint (maybe NULL). */
extern bool secretref_check(const char *reference, const char **error, const char **hint);

/* Its value, malloc'd, without one trailing line end; NULL and *error. */
extern char *secretref_value(const char *reference, const char **error);

#endif							/* WEIR_SECRETREF_H */
