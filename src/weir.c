/*-------------------------------------------------------------------------
 * weir.c
 *	  _PG_init and nothing else.
 *
 * Runs in the postmaster when the library is preloaded, else in the session
 * that first calls a function of weir.  Without preload there are no workers
 * and no shared memory, but the SQL API works.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <cjson/cJSON.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "catalog.h"
#include "compat.h"
#include "engine.h"
#include "status.h"
#include "restart.h"
#include "execution.h"
#include "retention.h"
#include "signin.h"
#include "urlpolicy.h"

MODULE_MAGIC_COMPAT;

extern PGDLLEXPORT void _PG_init(void);

/* cJSON keeps no state across an allocation, so an ERROR thrown here is safe. */
static void *
weir_json_alloc(size_t size)
{
	return palloc(size);
}

static void
weir_json_free(void *p)
{
	if (p != NULL)
		pfree(p);
}

void
_PG_init(void)
{
	cJSON_Hooks hooks = {weir_json_alloc, weir_json_free};

	/* Everything cJSON builds lives in memory contexts: an ERROR frees it. */
	cJSON_InitHooks(&hooks);

	secret_define_gucs();
	urlpolicy_define_gucs();
	signin_define_gucs();
	execution_define_gucs();
	retention_define_gucs();
	engine_init();

	MarkGUCPrefixReserved("weir");
}
