/*-------------------------------------------------------------------------
 * queues.c
 *	  The pipelines whose queue may move, and where in it runs wait, in the
 *	  conductor's memory.
 *
 * Of a pipeline the conductor knows its floor, a run id below which none of
 * its runs is queued or goes on, and the priorities with which its runs are
 * queued.  Whoever looks for what may start looks at each of these from the
 * floor on, so that the dead index entries of the runs before, which stay as
 * long as anybody holds an old snapshot, are not passed again and again.
 *
 * A floor is raised by a look at the table, and lowered by the notes of
 * transactions that queue a run or let one go on again (notes.c): run ids are
 * taken before the commit, so a lower one may come after.  Priorities are
 * added by such notes, and taken away when nothing of the pipeline lives.  A
 * note that is taken before the look began is of a run that the look sees; one
 * that comes later is heeded then.  When notes were lost, or pipelines
 * dropped, all is forgotten.  Executions of outside orchestrators are not in
 * the queue.
 *
 * Runs in the conductor's transaction; each statement sees what is committed
 * when it begins.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "conductor_int.h"
#include "queued.h"

#define NOTHING_LIVES	PG_INT64_MAX
#define MAX_PRIORITIES	8		/* of one pipeline; more are looked for each time */

/* A pipeline without one is unknown. */
typedef struct Known
{
	int64		pipeline_id;	/* hash key */
	int64		floor;
	int			n_priorities;	/* above MAX_PRIORITIES: unknown */
	int			priorities[MAX_PRIORITIES];
} Known;

struct Queues
{
	HTAB	   *moving;			/* ids of pipelines whose queue may move */
	HTAB	   *known;
};

static HTAB *
by_pipeline(Conductor *c, const char *name, Size entry)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = entry;
	ctl.hcxt = c->cxt;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
queues_start(Conductor *c)
{
	c->queues = MemoryContextAllocZero(c->cxt, sizeof(struct Queues));
	c->queues->moving = by_pipeline(c, "weir queues", sizeof(int64));
	c->queues->known = by_pipeline(c, "weir known queues", sizeof(Known));
}

static void
add_priority(Known *known, int priority)
{
	if (priority == WEIR_NO_PRIORITY || known->n_priorities > MAX_PRIORITIES)
		return;
	for (int i = 0; i < known->n_priorities; i++)
		if (known->priorities[i] == priority)
			return;
	if (known->n_priorities < MAX_PRIORITIES)
		known->priorities[known->n_priorities] = priority;
	known->n_priorities++;
}

void
queues_note(Conductor *c, int64 pipeline_id)
{
	(void) hash_search(c->queues->moving, &pipeline_id, HASH_ENTER, NULL);
}

void
queues_heed(Conductor *c, const WeirNote *note)
{
	Known	   *known = hash_search(c->queues->known, &note->id, HASH_FIND, NULL);

	queues_note(c, note->id);
	if (known != NULL && note->run_id != 0)
	{
		known->floor = Min(known->floor, note->run_id);
		add_priority(known, note->priority);
	}
}

static void
forget_all(HTAB *table)
{
	HASH_SEQ_STATUS seq;
	void	   *entry;

	hash_seq_init(&seq, table);
	while ((entry = hash_seq_search(&seq)) != NULL)
		(void) hash_search(table, entry, HASH_REMOVE, NULL);
}

void
queues_forget(Conductor *c)
{
	forget_all(c->queues->moving);
}

void
queues_forget_known(Conductor *c)
{
	forget_all(c->queues->known);
}

/*
 * From the old floor upwards the first that lives is found at once, or behind
 * runs that have ended since the last look and are not passed again.  An
 * unknown floor is looked for in the indexes of what lives, and so are
 * priorities, the text of an array, which is empty when they are unknown.
 */
#define LEARN \
	"SELECT w.pipeline_id, CASE WHEN w.floor = 0 THEN least(" \
	"(SELECT min(q.run_id) FROM (SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.live = 'q' OFFSET 0) q), " \
	"(SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.live = 'a' ORDER BY r.run_id LIMIT 1)) " \
	"ELSE (SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.run_id >= w.floor AND r.live IS NOT NULL " \
	"ORDER BY r.run_id LIMIT 1) END, " \
	"CASE WHEN w.priorities = '' THEN " QUEUED_PRIORITIES("w.pipeline_id") "::text END " \
	"FROM unnest($1, $2, $3) AS w (pipeline_id, floor, priorities)"

static char *
priorities_text(const Known *known)
{
	StringInfoData text;

	if (known == NULL || known->n_priorities > MAX_PRIORITIES)
		return "";
	initStringInfo(&text);
	appendStringInfoChar(&text, '{');
	for (int i = 0; i < known->n_priorities; i++)
		appendStringInfo(&text, "%s%d", i > 0 ? "," : "", known->priorities[i]);
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* From the text of an array of integers. */
static void
learn_priorities(Known *known, const char *text)
{
	known->n_priorities = 0;
	for (const char *at = text + 1; *at != '}'; at++)
	{
		char	   *end;

		add_priority(known, (int) strtol(at, &end, 10));
		if (*end != ',')
			break;
		at = end;
	}
}

static void
learn(Conductor *c, Datum pipelines, Datum *floors, Datum *priorities, int n)
{
	static const Oid types[3] = {INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID};
	Datum		values[3] = {pipelines, weir_array(INT8OID, floors, n), weir_array(TEXTOID, priorities, n)};
	uint64		found = weir_spi(LEARN, 3, types, values, NULL);

	/* in the order of the array */
	for (uint64 i = 0; i < found; i++)
	{
		int64		pipeline_id = weir_spi_int64(i, 1, NULL);
		bool		none;
		int64		run_id = weir_spi_int64(i, 2, &none);
		char	   *waiting = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3);
		Known	   *known = hash_search(c->queues->known, &pipeline_id, HASH_ENTER, NULL);

		known->floor = none ? NOTHING_LIVES : run_id;
		if (none)
			known->n_priorities = 0;
		else if (waiting != NULL)
			learn_priorities(known, waiting);
		floors[i] = Int64GetDatum(known->floor);
		priorities[i] = CStringGetTextDatum(waiting != NULL ? waiting : priorities_text(known));
	}
}

int
queues_noted(Conductor *c, Datum *pipelines, Datum *floors, Datum *priorities)
{
	int			n = 0;
	long		max = Max(hash_get_num_entries(c->queues->moving), 1);
	Datum	   *ids = palloc(sizeof(Datum) * max);
	Datum	   *from = palloc(sizeof(Datum) * max);
	Datum	   *with = palloc(sizeof(Datum) * max);
	HASH_SEQ_STATUS seq;
	int64	   *id;

	hash_seq_init(&seq, c->queues->moving);
	while ((id = hash_seq_search(&seq)) != NULL)
	{
		Known	   *known = hash_search(c->queues->known, id, HASH_FIND, NULL);

		ids[n] = Int64GetDatum(*id);
		from[n] = Int64GetDatum(known == NULL ? 0 : known->floor);
		with[n++] = CStringGetTextDatum(priorities_text(known));
	}
	*pipelines = weir_array(INT8OID, ids, n);
	if (n > 0)
		learn(c, *pipelines, from, with, n);
	*floors = weir_array(INT8OID, from, n);
	*priorities = weir_array(TEXTOID, with, n);
	return n;
}
