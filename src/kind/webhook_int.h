/*-------------------------------------------------------------------------
 * webhook_int.h
 *	  Which attempt an event is for
 *
 * Strings come from mem_alloc, trees from cJSON; nothing is kept between calls
 * but what waiters_create() returns.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WEBHOOK_INT_H
#define WEIR_WEBHOOK_INT_H

#include "kind_int.h"

/* Does the task wait for an event, or for the callback to a request of its own? */
extern bool webhook_waits_for_event(const cJSON *spec);
/* Is this the event the attempt waits for? */
extern bool webhook_awaits(const KindCall *call, const cJSON *event);
/* A token of this database, though perhaps nobody's any more */
extern bool webhook_is_stale(const KindCall *call, const cJSON *event);
/* Container and path of the blob an event is about; false: it is about none.  *container is the caller's to free. */
extern bool webhook_subject(const cJSON *event, char **container, const char **path);

/*
 * Those who wait beside an attempt (call->others), found by what an event says
 * and not one after the other.
 */
typedef struct Waiters Waiters;

extern Waiters *waiters_create(const KindCall *call);
/* The first who waits for this and was given nothing yet: its index in call->others, or -1 */
extern int	waiters_find(const Waiters *waiters, const cJSON *event);
extern void waiters_give(Waiters *waiters, int other);	/* it waits no more */
extern void waiters_free(Waiters *waiters);

#endif							/* WEIR_WEBHOOK_INT_H */
