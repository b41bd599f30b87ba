/*-------------------------------------------------------------------------
 * announce.h
 *	  Changes of status as notifications.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ANNOUNCE_H
#define WEIR_ANNOUNCE_H

#include "access/htup.h"
#include "access/tupdesc.h"

typedef enum NotifyLevel
{
	NOTIFY_NONE,
	NOTIFY_RUNS,
	NOTIFY_TASKS				/* and runs */
} NotifyLevel;

extern int	weir_notify;		/* setting weir.notify, a NotifyLevel */

/*
 * Queue a notification for the end of this transaction, if the setting asks
 * for it.  table: run, task_run or attempt; row: as it becomes; from: status
 * before.
 */
extern void announce_change(const char *table, HeapTuple row, TupleDesc desc, const char *from);

#endif							/* WEIR_ANNOUNCE_H */
