/*-------------------------------------------------------------------------
 * runapi.h
 *	  What weir.trigger, cancel, repair, wait and why share.
 *
 * All need SPI connected as the extension owner (weir_enter).
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RUNAPI_H
#define WEIR_RUNAPI_H

#include "compat.h"

/* Longest name of a pipeline that weir takes as an argument, bytes */
#define RUN_MAX_PIPELINE_NAME	1040

/* A run id argument; null is an error. */
extern int64 run_arg_id(FunctionCallInfo fcinfo, int n);

/* Raise the error for a run id that nothing is known of. */
noreturn_compat extern void run_unknown(int64 run_id);
/* The same for a pipeline's name. */
noreturn_compat extern void run_unknown_pipeline(const char *name);

/*
 * The row rule of the views: readers, operators and admins see every run,
 * others those of pipelines of an owner they are members of.  "what" ends
 * the sentence "role may not".
 */
extern void run_require_visible(Oid role, Oid owner, const char *what);

#endif							/* WEIR_RUNAPI_H */
