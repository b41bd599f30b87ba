/*-------------------------------------------------------------------------
 * engine.h
 *	  What the rest of weir may ask of the engine.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ENGINE_H
#define WEIR_ENGINE_H

/* What changed, so that the conductor looks only where something is new. */
#define ENGINE_WAKE_RUN			1	/* a run was queued, or a run ended elsewhere */
#define ENGINE_WAKE_REQUEST		2	/* a row in weir.request */
#define ENGINE_WAKE_DEFINITION	4	/* pipeline created, altered, paused, resumed, ... */
#define ENGINE_WAKE_TASK		8	/* a SQL worker wrote an outcome */
#define ENGINE_WAKE_ALL			15
#define ENGINE_WAKE_INSTALLED	16	/* CREATE EXTENSION; set beside the others, for the launcher's sake */
#define ENGINE_WAKE_WAITERS		32	/* nothing for the conductor: sessions in weir.wait() look again */
#define ENGINE_WAKE_LIMITS	64	/* how long runs stay in the log was changed */
#define ENGINE_WAKE_ENDED	128 /* a run ended, and the conductor asked to be told of the first one */

/*
 * Wake this database's conductor when the current transaction commits; a
 * rollback forgets it.  Cheap, may be called any number of times.
 */
extern void engine_wake_at_commit(uint32 what);

/* From _PG_init. */
extern void engine_init(void);

#endif							/* WEIR_ENGINE_H */
