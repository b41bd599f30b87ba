/*-------------------------------------------------------------------------
 * status_report.c
 *	  weir._processes(): what shared memory knows of weir's processes here.
 *
 * Runs in the session of whoever reads weir.status.  Copies what it needs
 * under weir_shmem_lock and formats after that.  Shows the launcher, and of
 * conductors and SQL workers only those of the current database.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "shmem.h"

PG_FUNCTION_INFO_V1(weir_processes);

/* One row of the result; NULL or 0: null. */
typedef struct StatusRow
{
	const char *component;
	const char *state;
	const char *detail;
	pid_t		pid;
	TimestampTz since;
	const char *last_error;
} StatusRow;

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text == NULL || text[0] == '\0';
	if (!*isnull)
		*value = CStringGetTextDatum(text);
}

static void
put_row(ReturnSetInfo *result, const StatusRow *row)
{
	Datum		values[6] = {0};
	bool		nulls[6];

	put_text(&values[0], &nulls[0], row->component);
	put_text(&values[1], &nulls[1], row->state);
	put_text(&values[2], &nulls[2], row->detail);
	values[3] = Int32GetDatum((int32) row->pid);
	nulls[3] = row->pid <= 0;
	values[4] = TimestampTzGetDatum(row->since);
	nulls[4] = row->since == 0;
	put_text(&values[5], &nulls[5], row->last_error);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_launcher(ReturnSetInfo *result, pid_t pid, TimestampTz since)
{
	StatusRow	row = {.component = "launcher", .pid = pid};

	if (pid != 0)
	{
		row.state = "running";
		row.since = since;
		if (!weir_enabled)
			row.detail = "weir.enabled is off: no conductor is started";
	}
	else
	{
		row.state = "missing";
		row.detail = "The postmaster starts it again a second after it ended; see the server log.";
	}
	put_row(result, &row);
}

static void
put_conductor(ReturnSetInfo *result, const DatabaseSlot *slot)
{
	StatusRow	row = {.component = "conductor"};

	if (!OidIsValid(slot->databaseid))
	{
		row.state = "stopped";
		row.detail = "The launcher keeps no conductor in this database: it is a template, allows no connections, or too many databases use weir.";
	}
	else if (slot->pid != 0)
	{
		row.state = "running";
		row.pid = slot->pid;
		row.since = slot->start_time;
		row.detail = slot->last_loop == 0 ? "first cycle not finished" :
			psprintf("last cycle ended at %s", timestamptz_to_str(slot->last_loop));
	}
	else if (slot->hold_count > 0)
	{
		row.state = "held";
		row.detail = "DDL on the database or the extension is in progress.";
	}
	else if (!weir_enabled)
	{
		row.state = "disabled";
		row.detail = "Switched off: weir.enabled is off. CALL weir.conduct() runs pipelines all the same.";
	}
	else if (slot->starting_pid != 0)
		row.state = "starting";
	else if (slot->not_before > GetCurrentTimestamp())
	{
		row.state = "backing off";
		row.detail = psprintf("%d failures in a row; next start at %s",
							  slot->failure_count, timestamptz_to_str(slot->not_before));
	}
	else
		row.state = "stopped";

	if (slot->last_error[0] != '\0')
		row.last_error = psprintf("%s: %s", timestamptz_to_str(slot->last_error_at), slot->last_error);
	put_row(result, &row);
}

/* counts by state; index SQL_SLOT_FREE is not used.  cluster: of all databases, at most limit. */
static void
put_sql_workers(ReturnSetInfo *result, const int *counts, int cluster, int limit)
{
	StatusRow	row = {.component = "sql_workers"};
	int			busy = counts[SQL_SLOT_ASSIGNED] + counts[SQL_SLOT_BUSY];

	row.state = busy > 0 ? "busy" : counts[SQL_SLOT_STARTING] > 0 ? "starting" :
		counts[SQL_SLOT_IDLE] > 0 ? "idle" : "none";
	row.detail = psprintf("%d busy, %d idle, %d starting in this database; %d of at most %d in all",
						  busy, counts[SQL_SLOT_IDLE], counts[SQL_SLOT_STARTING], cluster, limit);
	if (limit < weir_max_sql_workers)
		row.detail = psprintf("%s, which is what max_worker_processes (%d) has room for beside weir.reserved_worker_processes (%d)",
							  row.detail, max_worker_processes, weir_reserved_worker_processes);
	put_row(result, &row);
}

Datum
weir_processes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	DatabaseSlot *found;
	DatabaseSlot slot;
	pid_t		launcher_pid;
	TimestampTz launcher_start;
	int			counts[SQL_SLOT_BUSY + 1] = {0};
	int			cluster = 0;
	int			limit;

	InitMaterializedSRF(fcinfo, 0);
	if (weir_shmem == NULL)
	{
		StatusRow	row = {
			.component = "launcher",
			.state = "not preloaded",
			.detail = "Add weir to shared_preload_libraries and restart the server; until then CALL weir.conduct() runs pipelines."
		};

		put_row(result, &row);
		return (Datum) 0;
	}

	memset(&slot, 0, sizeof(slot));
	LWLockAcquire(weir_shmem_lock, LW_SHARED);
	launcher_pid = weir_shmem->launcher_pid;
	launcher_start = weir_shmem->launcher_start_time;
	found = shmem_database_slot(MyDatabaseId, false);
	if (found != NULL)
		slot = *found;
	for (int i = 0; i < WEIR_MAX_SQL_SLOTS; i++)
	{
		SqlSlot    *sql = &weir_shmem->sql[i];

		if (sql->state == SQL_SLOT_FREE)
			continue;
		cluster++;
		if (sql->databaseid == MyDatabaseId)
			counts[sql->state]++;
	}
	limit = sql_worker_limit();
	LWLockRelease(weir_shmem_lock);

	put_launcher(result, launcher_pid, launcher_start);
	put_conductor(result, &slot);
	put_sql_workers(result, counts, cluster, limit);
	return (Datum) 0;
}
