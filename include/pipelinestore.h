/*-------------------------------------------------------------------------
 * pipelinestore.h
 *	  A checked definition written into the tables.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PIPELINESTORE_H
#define WEIR_PIPELINESTORE_H

#include "definition.h"

/*
 * Insert version "version" of the pipeline, whose row the caller has inserted
 * or locked.  document is the definition as it was given, a jsonb.  SPI
 * connected as the extension owner.
 */
extern void pipeline_store_version(int64 pipeline_id, int version, const Definition *def,
								   Datum document, Oid caller);

#endif							/* WEIR_PIPELINESTORE_H */
