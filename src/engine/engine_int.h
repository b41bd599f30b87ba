/*-------------------------------------------------------------------------
 * engine_int.h
 *	  What the files of engine/ know of each other.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ENGINE_INT_H
#define WEIR_ENGINE_INT_H

/* From engine_init, in the postmaster only: register callbacks and hooks. */
extern void wake_init(void);
extern void ddlhooks_init(void);

#endif							/* WEIR_ENGINE_INT_H */
