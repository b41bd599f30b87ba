/*-------------------------------------------------------------------------
 * options.h
 *	  Which options a connection of a kind may have.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_OPTIONS_H
#define WEIR_OPTIONS_H

#include <cjson/cJSON.h>

/* ereports on an unknown kind, and on unknown, missing or mistyped options. */
extern void options_check(const char *kind, const cJSON *options);

#endif							/* WEIR_OPTIONS_H */
