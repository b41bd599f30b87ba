/*-------------------------------------------------------------------------
 * announce.c
 *	  Changes of status as notifications, on the channels weir_run and
 *	  weir_task.
 *
 * Called by the triggers on the tables of the run log, in whatever process
 * changes a status and in its transaction: a rollback sends nothing.
 * Everybody who can connect to the database can listen, so a payload names
 * ids, the pipeline, the task and statuses, and nothing anybody else wrote.
 *
 * All transactions of a server that notify commit one after the other
 * (PostgreSQL holds a lock for it), and one that cannot put its
 * notifications into the queue fails.  Therefore nothing is sent while the
 * queue is more than half full: a listener that sleeps in a transaction must
 * not stop the runs.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "announce.h"

PG_FUNCTION_INFO_V1(weir_announce_run);

#define MAX_QUEUE_USAGE 0.5
#define MAX_PAYLOAD		7999	/* bytes, what NOTIFY takes */

int			weir_notify = NOTIFY_NONE;

/* Asked once in a transaction: it locks the queue. */
static bool
queue_has_room(void)
{
	static TimestampTz asked_at = 0;
	static bool has_room = true;

	if (asked_at == GetCurrentTransactionStartTimestamp())
		return has_room;
	asked_at = GetCurrentTransactionStartTimestamp();
	if ((DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE)) <= MAX_QUEUE_USAGE) != has_room)
	{
		has_room = !has_room;
		ereport(LOG,
				(has_room ? errmsg("weir sends notifications again") :
				 errmsg("weir sends no notifications: the queue is more than half full"),
				 has_room ? 0 : errhint("Find the listener that stays in a transaction.")));
	}
	return has_room;
}

static void
add_text(StringInfo payload, const char *key, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(payload, "%s\"%s\": ", payload->len > 1 ? ", " : "", key);
	escape_json(payload, value);
}

static void
add_number(StringInfo payload, const char *key, const char *value)
{
	if (value != NULL)
		appendStringInfo(payload, "%s\"%s\": %s", payload->len > 1 ? ", " : "", key, value);
}

static char *
column(HeapTuple row, TupleDesc desc, const char *name)
{
	return SPI_getvalue(row, desc, SPI_fnumber(desc, name));
}

void
announce_change(const char *table, HeapTuple row, TupleDesc desc, const char *from)
{
	bool		is_run = strcmp(table, "run") == 0;
	StringInfoData payload;

	if (weir_notify == NOTIFY_NONE || strcmp(table, "attempt") == 0 ||
		(!is_run && weir_notify != NOTIFY_TASKS) || !queue_has_room())
		return;

	initStringInfo(&payload);
	appendStringInfoChar(&payload, '{');
	add_number(&payload, "run_id", column(row, desc, "run_id"));
	if (is_run)
		add_text(&payload, "pipeline", column(row, desc, "pipeline_name"));
	else
	{
		add_number(&payload, "task_run_id", column(row, desc, "task_run_id"));
		add_text(&payload, "task", column(row, desc, "task_name"));
		add_number(&payload, "item", column(row, desc, "item_no"));
		add_number(&payload, "attempt", column(row, desc, "attempt_no"));
	}
	add_text(&payload, "status", column(row, desc, "status"));
	add_text(&payload, "was", from);
	appendStringInfoChar(&payload, '}');
	if (payload.len <= MAX_PAYLOAD)
		Async_Notify(is_run ? "weir_run" : "weir_task", payload.data);
	pfree(payload.data);
}

/* A trigger BEFORE INSERT: a new run. */
Datum
weir_announce_run(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("_announce must be called by a trigger BEFORE INSERT FOR EACH ROW")));
	if (weir_notify != NOTIFY_NONE)
		announce_change("run", trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation), NULL);
	return PointerGetDatum(trigger->tg_trigtuple);
}
