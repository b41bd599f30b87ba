/*-------------------------------------------------------------------------
 * filing.h
 *	  Where the files of a run go: decided from how it ended.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FILING_H
#define WEIR_FILING_H

#include "conductor_int.h"
#include "context.h"

/*
 * The spec of a file_away with what was decided.  NULL when there is nothing
 * to be moved (the flight has a verdict then), or with *error.
 */
extern cJSON *filing_render(Conductor *c, Flight *flight, TaskContext *context, char **error);

#endif							/* WEIR_FILING_H */
