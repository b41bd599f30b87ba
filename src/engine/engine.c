/*-------------------------------------------------------------------------
 * engine.c
 *	  Settings of the engine, and its start.
 *
 * engine_init() runs in _PG_init: in the postmaster when weir is preloaded,
 * else in the session that first calls weir.  Only in the postmaster can
 * shared memory be asked for and the launcher be registered; everywhere else
 * weir_shmem stays NULL and the settings are all there is.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "announce.h"
#include "engine.h"
#include "engine_int.h"
#include "launcher.h"
#include "shmem.h"

int			weir_max_sql_workers = 4;
int			weir_reserved_worker_processes = 3;
int			weir_sql_worker_idle_timeout = 10000;
bool		weir_enabled = true;
int			weir_http_max_body = 16384;
int			weir_http_timeout = 60000;
int			weir_http_stall_timeout = 30000;
int			weir_cancel_grace = 60000;
int			weir_overdue_after = 600;
int			weir_max_lost_attempts = 20;

#define MAX_RESERVED	262143		/* as of max_worker_processes */

static const struct config_enum_entry notify_levels[] = {
	{"none", NOTIFY_NONE, false},
	{"runs", NOTIFY_RUNS, false},
	{"tasks", NOTIFY_TASKS, false},
	{NULL, 0, false}
};

static void
define_gucs(void)
{
	DefineCustomIntVariable("weir.cancel_grace",
							"Time that a cancelled task has to end.",
							"A SQL task that is still running then is terminated; an engine that does not answer is given up.",
							&weir_cancel_grace, 60000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.overdue_after",
							"Time that a ready task or a queued run waits for its turn before priorities count no more.",
							"Where slots, workers, connections or runs of a pipeline are scarce, what has waited for longer goes first. 0: priorities always count.",
							&weir_overdue_after, 600, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomBoolVariable("weir.enabled",
							 "Runs pipelines in the background.",
							 "When off, conductors are stopped and none is started; the SQL functions still work.",
							 &weir_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.http_max_body",
							"Largest HTTP response that is accepted.",
							NULL,
							&weir_http_max_body, 16384, 1, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.http_stall_timeout",
							"Time after which an HTTP answer that has begun and hardly goes on is given up.",
							"Zero leaves it to weir.http_timeout.",
							&weir_http_stall_timeout, 30000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.http_timeout",
							"Longest time of one HTTP exchange.",
							NULL,
							&weir_http_timeout, 60000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.max_lost_attempts",
							"Attempts of a task that may be lost in a row to crashes before the task fails.",
							NULL,
							&weir_max_lost_attempts, 20, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.max_sql_workers",
							"Largest number of SQL tasks that run at once, in all databases together.",
							"Every one of them takes one of max_worker_processes, of which weir.reserved_worker_processes are left to others.",
							&weir_max_sql_workers, 4, 0, WEIR_MAX_SQL_SLOTS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomEnumVariable("weir.notify",
							 "Changes of status that are sent to listeners of the channels weir_run and weir_task.",
							 NULL,
							 &weir_notify, NOTIFY_NONE, notify_levels,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* A parallel query has two workers by default, and logical replication has its launcher. */
	DefineCustomIntVariable("weir.reserved_worker_processes",
							"Processes of max_worker_processes that SQL workers leave to others.",
							"For parallel queries, replication and other extensions, beside those of the launcher and the conductors. One SQL worker there may always be.",
							&weir_reserved_worker_processes, 3, 0, MAX_RESERVED,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.sql_worker_idle_timeout",
							"Time after which a SQL worker without a task exits.",
							NULL,
							&weir_sql_worker_idle_timeout, 10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/*
 * Who locks a run must see what was committed before: with one snapshot for a
 * transaction two tasks that end at once would each find the other running,
 * and nobody would end the run; and the conductor would not find what it was
 * told of.  So what a role or database has as default does not count here.
 */
void
engine_settle_transactions(void)
{
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
}

void
engine_init(void)
{
	define_gucs();

	/* In a binary upgrade nothing may run or write by itself. */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	shmem_init();
	wake_init();
	ddlhooks_init();
	launcher_register();
}
