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
/* From the launcher: warn if there are more SQL workers than processes. */
extern void engine_check_workers(void);

#endif							/* WEIR_ENGINE_INT_H */
