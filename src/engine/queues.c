/*-------------------------------------------------------------------------
 * queues.c
 *	  The pipelines whose queue may move, and where their live runs begin, in
 *	  the conductor's memory.
 *
 * The floor of a pipeline is a run id below which none of its runs is queued
 * or goes on.  Whoever looks for what may start begins there, so that the
 * dead index entries of the runs before, which stay as long as anybody holds
 * an old snapshot, are not passed again and again.
 *
 * A floor is raised by a look at the table, and lowered by the notes of
 * transactions that queue a run or let one go on again (notes.c): run ids are
 * taken before the commit, so a lower one may come after.  A note that is
 * taken before the look began is of a run that the look sees; one that comes
 * later lowers the floor then.  When notes were lost, or pipelines dropped, all
 * floors are forgotten.  Executions of outside orchestrators have no floor.
 *
 * Runs in the conductor's transaction; each statement sees what is committed
 * when it begins.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "conductor_int.h"

#define NOTHING_LIVES	PG_INT64_MAX

/* A pipeline without one is unknown. */
typedef struct Floor
{
	int64		pipeline_id;	/* hash key */
	int64		run_id;
} Floor;

struct Queues
{
	HTAB	   *moving;			/* ids of pipelines whose queue may move */
	HTAB	   *floors;
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
	c->queues->floors = by_pipeline(c, "weir floors", sizeof(Floor));
}

void
queues_note(Conductor *c, int64 pipeline_id, int64 run_id)
{
	(void) hash_search(c->queues->moving, &pipeline_id, HASH_ENTER, NULL);
	if (run_id != 0)
	{
		Floor	   *floor = hash_search(c->queues->floors, &pipeline_id, HASH_FIND, NULL);

		if (floor != NULL)
			floor->run_id = Min(floor->run_id, run_id);
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
queues_forget_floors(Conductor *c)
{
	forget_all(c->queues->floors);
}

/*
 * From the old floor upwards the first that lives is found at once, or behind
 * runs that have ended since the last look and are not passed again.  An
 * unknown floor is looked for in the indexes of what lives.
 */
#define RAISED \
	"SELECT w.pipeline_id, CASE WHEN w.floor = 0 THEN least(" \
	"(SELECT min(q.run_id) FROM (SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.live = 'q' OFFSET 0) q), " \
	"(SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.live = 'a' ORDER BY r.run_id LIMIT 1)) " \
	"ELSE (SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.run_id >= w.floor AND r.live IS NOT NULL " \
	"ORDER BY r.run_id LIMIT 1) END " \
	"FROM unnest($1, $2) AS w (pipeline_id, floor)"

static void
raise_floors(Conductor *c, Datum pipelines, Datum *floors, int n)
{
	static const Oid types[2] = {INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[2] = {pipelines, weir_array(INT8OID, floors, n)};
	uint64		found = weir_spi(RAISED, 2, types, values, NULL);

	/* in the order of the array */
	for (uint64 i = 0; i < found; i++)
	{
		int64		pipeline_id = weir_spi_int64(i, 1, NULL);
		bool		none;
		int64		run_id = weir_spi_int64(i, 2, &none);
		Floor	   *floor = hash_search(c->queues->floors, &pipeline_id, HASH_ENTER, NULL);

		floor->run_id = none ? NOTHING_LIVES : run_id;
		floors[i] = Int64GetDatum(floor->run_id);
	}
}

int
queues_noted(Conductor *c, Datum *pipelines, Datum *floors)
{
	int			n = 0;
	long		max = Max(hash_get_num_entries(c->queues->moving), 1);
	Datum	   *ids = palloc(sizeof(Datum) * max);
	Datum	   *from = palloc(sizeof(Datum) * max);
	HASH_SEQ_STATUS seq;
	int64	   *id;

	hash_seq_init(&seq, c->queues->moving);
	while ((id = hash_seq_search(&seq)) != NULL)
	{
		Floor	   *floor = hash_search(c->queues->floors, id, HASH_FIND, NULL);

		ids[n] = Int64GetDatum(*id);
		from[n++] = Int64GetDatum(floor == NULL ? 0 : floor->run_id);
	}
	*pipelines = weir_array(INT8OID, ids, n);
	if (n > 0)
		raise_floors(c, *pipelines, from, n);
	*floors = weir_array(INT8OID, from, n);
	return n;
}
