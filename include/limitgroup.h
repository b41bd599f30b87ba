/*-------------------------------------------------------------------------
 * limitgroup.h
 *	  Which connections share their request limits.
 *
 * Pure.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LIMITGROUP_H
#define WEIR_LIMITGROUP_H

#include "catalog.h"

#define LIMIT_GROUP_LEN 256

/* Connections with the same key share.  It is not shown to anybody: it may name a principal. */
extern void limit_group_key(const Connection *connection, char key[LIMIT_GROUP_LEN]);

#endif							/* WEIR_LIMITGROUP_H */
