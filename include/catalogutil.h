/*-------------------------------------------------------------------------
 * catalogutil.h
 *	  Small things the definition functions share.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CATALOGUTIL_H
#define WEIR_CATALOGUTIL_H

#include <cjson/cJSON.h>

#include "fmgr.h"

/* Argument n as a C string, palloc'd; NULL for null. */
extern char *catalog_arg(FunctionCallInfo fcinfo, int n);
/* The same, but null and text longer than limit bytes are errors that name the argument. */
extern char *catalog_arg_required(FunctionCallInfo fcinfo, int n, const char *name, size_t limit);
/* A description, or NULL; too long is an error. */
extern char *catalog_arg_description(FunctionCallInfo fcinfo, int n);
/* A jsonb argument parsed, or NULL for null; longer than limit bytes is an error. */
extern cJSON *catalog_arg_json(FunctionCallInfo fcinfo, int n, const char *name, size_t limit);

/* Names of secrets and connections; ereports with what the name is for. */
extern void catalog_check_name(const char *what, const char *name);
/* ^[A-Za-z_][A-Za-z0-9_]{0,62}$: names of tasks and parameters */
extern bool catalog_is_identifier(const char *name);

/* At most 100 bytes of text from outside, for messages; never half a character. */
extern char *catalog_clip(const char *text);

/* "Did you mean \"x\"?" or NULL when nothing is near. */
extern char *catalog_did_you_mean(const char *given, const char *const *known, int nknown);

extern Datum catalog_text(const char *value);	/* text Datum */
extern Datum catalog_jsonb(const char *json);	/* jsonb Datum */
/* Value at (row, column) of the last weir_spi() copied out of SPI memory; false for null. */
extern bool catalog_spi_datum(uint64 row, int column, MemoryContext context, Datum *value);

#endif							/* WEIR_CATALOGUTIL_H */
