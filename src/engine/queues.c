/*-------------------------------------------------------------------------
 * queues.c
 *	  The pipelines whose queue may move, and what the conductor knows of
 *	  their runs.
 *
 * Of a pipeline it knows which of its runs may go on, and the lanes of its
 * queue: the priorities with which runs are queued, each with its floor, a run
 * id below which none is.  Whoever looks for what may start looks at these runs
 * and from these floors on, so that the dead index entries of the runs before,
 * which stay as long as anybody holds an old snapshot, are not passed again and
 * again.
 *
 * What is known is what a look at the table found, and what the notes of
 * transactions that queue a run or let one go on said since (notes.c): run ids
 * are taken before the commit, so one below a floor may come after.  A note
 * that is taken before the look began is of a run that the look sees; one that
 * comes later is heeded then.  A run that has ended leaves at the next look, a
 * lane when nothing is queued in it.  When notes were lost, or pipelines
 * dropped, all is forgotten.  Executions of outside orchestrators are not
 * among these runs.
 *
 * Runs in the conductor's transaction; each statement sees what is committed
 * when it begins.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "conductor_int.h"
#include "queued.h"

#define MAX_GOING_ON	32		/* of one pipeline; more are looked for each time, and so are more lanes */
#define MAX_LANES		8

typedef struct Lane
{
	int64		priority;
	int64		floor;
} Lane;

/* A pipeline without one is unknown. */
typedef struct Known
{
	int64		pipeline_id;	/* hash key */
	int64		first_going_on; /* no run with a lower id goes on */
	int			n_going_on;		/* above MAX_GOING_ON: unknown */
	int64		going_on[MAX_GOING_ON];
	int			n_lanes;		/* above MAX_LANES: unknown */
	Lane		lanes[MAX_LANES];
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
add_going_on(Known *known, int64 run_id)
{
	known->first_going_on = Min(known->first_going_on, run_id);
	if (known->n_going_on > MAX_GOING_ON)
		return;
	for (int i = 0; i < known->n_going_on; i++)
		if (known->going_on[i] == run_id)
			return;
	if (known->n_going_on < MAX_GOING_ON)
		known->going_on[known->n_going_on] = run_id;
	known->n_going_on++;
}

static void
add_queued(Known *known, int64 priority, int64 run_id)
{
	if (known->n_lanes > MAX_LANES)
		return;
	for (int i = 0; i < known->n_lanes; i++)
		if (known->lanes[i].priority == priority)
		{
			known->lanes[i].floor = Min(known->lanes[i].floor, run_id);
			return;
		}
	if (known->n_lanes < MAX_LANES)
		known->lanes[known->n_lanes] = (Lane) {.priority = priority, .floor = run_id};
	known->n_lanes++;
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
	if (known == NULL || note->run_id == 0)
		return;
	if (note->priority == WEIR_NO_PRIORITY)
		add_going_on(known, note->run_id);
	else
		add_queued(known, note->priority, note->run_id);
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
 * What is known is looked at anew, what is not is looked for in the indexes of
 * what lives; the texts of arrays that are not known are empty.
 */
#define LEARN \
	"SELECT w.pipeline_id, CASE WHEN w.going_on = '' THEN ARRAY(SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id " \
	"AND r.live = 'a' AND r.run_id >= w.first ORDER BY r.run_id LIMIT " CppAsString2(MAX_GOING_ON) " + 1) " \
	"ELSE ARRAY(SELECT r.run_id FROM unnest(w.going_on::bigint[]) AS i (run_id) JOIN weir.run r ON r.run_id = i.run_id " \
	"WHERE " GOES_ON("r") " ORDER BY r.run_id) END, l.priorities, l.floors " \
	"FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY AS w (pipeline_id, first, going_on, priorities, floors, place) " \
	"CROSS JOIN LATERAL (SELECT coalesce(array_agg(k.priority), '{}'), coalesce(array_agg(k.run_id), '{}') FROM (" \
	"SELECT k.priority, (SELECT r.run_id FROM weir.run r WHERE r.pipeline_id = w.pipeline_id AND r.live = 'q' " \
	"AND r.priority = k.priority::integer AND r.run_id >= k.floor ORDER BY r.run_id LIMIT 1) AS run_id " \
	"FROM unnest(nullif(w.priorities, '')::bigint[], nullif(w.floors, '')::bigint[]) AS k (priority, floor) " \
	"UNION ALL SELECT d.* FROM (" QUEUED_LANES("w.pipeline_id") ") d WHERE w.priorities = '') k " \
	"WHERE k.run_id IS NOT NULL) AS l (priorities, floors) ORDER BY w.place"

/* What LEARN is told, and tells, of each pipeline: arrays of ids and of texts of arrays */
typedef struct Told
{
	Datum	   *pipelines;
	Datum	   *first;
	Datum	   *going_on;
	Datum	   *priorities;
	Datum	   *floors;
} Told;

static Datum
array_text(const int64 *numbers, int n)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%c" INT64_FORMAT, i == 0 ? '{' : ',', numbers[i]);
	appendStringInfoString(&text, n == 0 ? "{}" : "}");
	return CStringGetTextDatum(text.data);
}

static void
tell(const Told *told, int place, int64 pipeline_id, const Known *known)
{
	Datum		unknown = CStringGetTextDatum("");
	int64		numbers[Max(MAX_GOING_ON, MAX_LANES)];

	told->pipelines[place] = Int64GetDatum(pipeline_id);
	told->first[place] = Int64GetDatum(known == NULL ? 0 : known->first_going_on);
	told->going_on[place] = told->priorities[place] = told->floors[place] = unknown;
	if (known != NULL && known->n_going_on <= MAX_GOING_ON)
		told->going_on[place] = array_text(known->going_on, known->n_going_on);
	if (known != NULL && known->n_lanes <= MAX_LANES)
	{
		for (int i = 0; i < known->n_lanes; i++)
			numbers[i] = known->lanes[i].priority;
		told->priorities[place] = array_text(numbers, known->n_lanes);
		for (int i = 0; i < known->n_lanes; i++)
			numbers[i] = known->lanes[i].floor;
		told->floors[place] = array_text(numbers, known->n_lanes);
	}
}

/* An array of bigint in what SPI just returned. */
static int64 *
numbers_of(uint64 row, int column, int *n)
{
	bool		is_null;
	Datum		array = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &is_null);
	Datum	   *values;
	int64	   *numbers;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, NULL, n);
	numbers = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		numbers[i] = DatumGetInt64(values[i]);
	return numbers;
}

static void
learn(Conductor *c, const Told *told, int n)
{
	static const Oid types[5] = {INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[5] = {
		weir_array(INT8OID, told->pipelines, n), weir_array(INT8OID, told->first, n), weir_array(TEXTOID, told->going_on, n),
		weir_array(TEXTOID, told->priorities, n), weir_array(TEXTOID, told->floors, n)
	};
	uint64		found = weir_spi(LEARN, 5, types, values, NULL);

	for (uint64 row = 0; row < found; row++)
	{
		int64		pipeline_id = weir_spi_int64(row, 1, NULL);
		Known	   *known = hash_search(c->queues->known, &pipeline_id, HASH_ENTER, NULL);
		int			n_runs,
					n_lanes;
		int64	   *runs = numbers_of(row, 2, &n_runs);
		int64	   *priorities = numbers_of(row, 3, &n_lanes);
		int64	   *floors = numbers_of(row, 4, &n_lanes);

		known->n_going_on = known->n_lanes = 0;
		known->first_going_on = PG_INT64_MAX;
		for (int i = 0; i < n_runs; i++)
			add_going_on(known, runs[i]);
		for (int i = 0; i < n_lanes; i++)
			add_queued(known, priorities[i], floors[i]);
		tell(told, (int) row, pipeline_id, known);
		if (n_lanes > MAX_LANES)
		{
			told->priorities[row] = array_text(priorities, n_lanes);
			told->floors[row] = array_text(floors, n_lanes);
		}
	}
}

int
queues_noted(Conductor *c, NotedQueues *noted)
{
	int			n = 0;
	Size		size = sizeof(Datum) * Max(hash_get_num_entries(c->queues->moving), 1);
	Told		told = {palloc(size), palloc(size), palloc(size), palloc(size), palloc(size)};
	HASH_SEQ_STATUS seq;
	int64	   *id;

	hash_seq_init(&seq, c->queues->moving);
	while ((id = hash_seq_search(&seq)) != NULL)
		tell(&told, n++, *id, hash_search(c->queues->known, id, HASH_FIND, NULL));
	if (n > 0)
		learn(c, &told, n);
	noted->pipelines = weir_array(INT8OID, told.pipelines, n);
	noted->first_going_on = weir_array(INT8OID, told.first, n);
	noted->going_on = weir_array(TEXTOID, told.going_on, n);
	noted->priorities = weir_array(TEXTOID, told.priorities, n);
	noted->floors = weir_array(TEXTOID, told.floors, n);
	return n;
}
