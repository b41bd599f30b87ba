/*-------------------------------------------------------------------------
 * compat.h
 *	  The only place that knows PostgreSQL versions (15 to 19).
 *
 * Wrappers are named *_compat and have the newest signature; the comment
 * names the release that changed.  Asking the version, not "#ifdef", makes
 * the answer the same in every file, whatever it included before.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "weir needs PostgreSQL 15 or later"
#endif

/* 17: custom wait events get names of their own. */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define wait_event_compat(name) WaitEventExtensionNew(name)
#else
#include "utils/wait_event.h"
#define wait_event_compat(name) ((uint32) PG_WAIT_EXTENSION)
#endif

/* 17: MyProcNumber and friends replaced backend ids. */
#if PG_VERSION_NUM >= 170000
#include "storage/procnumber.h"
#endif

/* 19: background workers can be asked to leave by DROP DATABASE and the like. */
#if PG_VERSION_NUM >= 190000
#define BGWORKER_INTERRUPTIBLE_COMPAT BGWORKER_INTERRUPTIBLE
#else
#define BGWORKER_INTERRUPTIBLE_COMPAT 0
#endif

/* 17: a worker may connect as a role that has no LOGIN. */
#if PG_VERSION_NUM >= 170000
#define BGWORKER_OWNER_FLAGS_COMPAT BGWORKER_BYPASS_ROLELOGINCHECK
#define OWNER_NEEDS_LOGIN_COMPAT false
#else
#define BGWORKER_OWNER_FLAGS_COMPAT 0
#define OWNER_NEEDS_LOGIN_COMPAT true
#endif

/* 19: pruning may set a page all-visible, and pins the map for it.  A statement; include access/heapam.h and storage/bufmgr.h. */
#if PG_VERSION_NUM >= 190000
#define heap_page_prune_opt_compat(rel, buffer) \
	do { \
		Buffer		map_ = InvalidBuffer; \
		heap_page_prune_opt((rel), (buffer), &map_, false); \
		if (BufferIsValid(map_)) \
			ReleaseBuffer(map_); \
	} while (0)
#else
#define heap_page_prune_opt_compat(rel, buffer) heap_page_prune_opt((rel), (buffer))
#endif

/* 18: the module magic carries a name and a version. */
#if PG_VERSION_NUM >= 180000
#define MODULE_MAGIC_COMPAT PG_MODULE_MAGIC_EXT(.name = "weir", .version = WEIR_VERSION)
#else
#define MODULE_MAGIC_COMPAT PG_MODULE_MAGIC
#endif

/* 16: what looks into a varlena left postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18: the attribute comes first in a declaration, where it may be C11's or C23's own. */
#if PG_VERSION_NUM >= 180000
#define noreturn_compat pg_noreturn
#else
#define noreturn_compat pg_attribute_noreturn()
#endif

/* 16: "extra" of a setting lives in a memory context instead of malloc.  NULL when out of memory; include utils/guc.h. */
#if PG_VERSION_NUM >= 160000
#define guc_malloc_compat(size) guc_malloc(LOG, (size))
#define guc_free_compat(ptr) guc_free(ptr)
#else
#define guc_malloc_compat(size) malloc(size)
#define guc_free_compat(ptr) free(ptr)
#endif

/* 16: membership may come without the right to SET ROLE.  Include utils/acl.h. */
#if PG_VERSION_NUM >= 160000
#define member_can_set_role_compat(member, role) member_can_set_role(member, role)
#else
#define member_can_set_role_compat(member, role) is_member_of_role(member, role)
#endif

/* 16: one function for the owner of any object.  Include utils/acl.h and catalog/pg_database.h. */
#if PG_VERSION_NUM >= 160000
#define database_ownercheck_compat(databaseid, role) object_ownercheck(DatabaseRelationId, databaseid, role)
#else
#define database_ownercheck_compat(databaseid, role) pg_database_ownercheck(databaseid, role)
#endif

/* 18: a portal no longer cares whether it is run once.  Include tcop/pquery.h. */
#if PG_VERSION_NUM >= 180000
#define portal_run_compat(portal, count, is_top, dest, alt, qc) PortalRun(portal, count, is_top, dest, alt, qc)
#else
#define portal_run_compat(portal, count, is_top, dest, alt, qc) PortalRun(portal, count, is_top, true, dest, alt, qc)
#endif

/* 18: a scan can be instrumented; 19: and has flags.  Include access/genam.h. */
#if PG_VERSION_NUM >= 190000
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, norderbys, 0)
#elif PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, norderbys)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#endif

/* 16: what a statement updates left the range table; 18: and says what pruning left.  One table; include parser/parse_relation.h. */
#if PG_VERSION_NUM >= 180000
#define init_range_table_compat(estate, rte, updated) \
	do { \
		List	   *perms_ = NIL; \
		addRTEPermissionInfo(&perms_, (rte))->updatedCols = (updated); \
		ExecInitRangeTable((estate), list_make1(rte), perms_, bms_make_singleton(1)); \
	} while (0)
#elif PG_VERSION_NUM >= 160000
#define init_range_table_compat(estate, rte, updated) \
	do { \
		List	   *perms_ = NIL; \
		addRTEPermissionInfo(&perms_, (rte))->updatedCols = (updated); \
		ExecInitRangeTable((estate), list_make1(rte), perms_); \
	} while (0)
#else
#define init_range_table_compat(estate, rte, updated) \
	do { \
		(rte)->updatedCols = (updated); \
		ExecInitRangeTable((estate), list_make1(rte)); \
	} while (0)
#endif

/* 16: result relations are named.  Include executor/executor.h. */
#if PG_VERSION_NUM >= 160000
#define evalplanqual_init_compat(epq, estate, plan, marks, param, relations) \
	EvalPlanQualInit(epq, estate, plan, marks, param, relations)
#else
#define evalplanqual_init_compat(epq, estate, plan, marks, param, relations) \
	EvalPlanQualInit(epq, estate, plan, marks, param)
#endif

/* 16: onlySummarizing; 19: flags instead of booleans */
#if PG_VERSION_NUM >= 190000
#define insert_index_tuples_compat(result, estate, slot, is_update) \
	ExecInsertIndexTuples(result, estate, (is_update) ? EIIT_IS_UPDATE : 0, slot, NIL, NULL)
#elif PG_VERSION_NUM >= 160000
#define insert_index_tuples_compat(result, estate, slot, is_update) \
	ExecInsertIndexTuples(result, slot, estate, is_update, false, NULL, NIL, false)
#else
#define insert_index_tuples_compat(result, estate, slot, is_update) \
	ExecInsertIndexTuples(result, slot, estate, is_update, false, NULL, NIL)
#endif

/* From 19 on each kind of process has a level of its own; needs miscadmin.h and utils/guc.h. */
#if PG_VERSION_NUM >= 190000
#define log_min_messages_compat() (log_min_messages[MyBackendType])
#else
#define log_min_messages_compat() (log_min_messages)
#endif

#endif							/* WEIR_COMPAT_H */
