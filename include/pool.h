/*-------------------------------------------------------------------------
 * pool.h
 *	  Pools as other definitions see them.  SPI connected as the extension
 *	  owner.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_POOL_H
#define WEIR_POOL_H

#define POOL_MAX_SLOTS	100000

/*
 * Slots of a pool, or -1 if there is none.  Its row stays locked FOR KEY
 * SHARE until the transaction ends: it cannot be dropped meanwhile.
 */
extern int	pool_lock_slots(const char *name);

#endif							/* WEIR_POOL_H */
