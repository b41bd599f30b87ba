/*-------------------------------------------------------------------------
 * expectation.c
 *	  How long the runs that are followed take, going by earlier ones.
 *
 * Runs in the conductor's transaction that is open for exchanges anyway, and
 * only reads.  What was read is kept in memory for some minutes: a median
 * does not change faster than that, and a thousand attempts of one pipeline
 * look it up once.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "access.h"
#include "conductor_int.h"
#include "foresee.h"
#include "pollpace.h"

#define KEPT_MS			((int64) 10 * 60000)
#define UNKNOWN_KEPT_MS	30000	/* after its first success a task has a history */
#define WORTH_MS		2000	/* what ends sooner is followed well enough without */
#define MOST_AT_ONCE	1000
#define MOST_PIPELINES	50		/* that a Foresight can keep */
#define LONGEST_S		(366 * 86400.0)

typedef struct Expectations
{
	MemoryContext cxt;
	Foresight  *foresight;		/* in it */
	int64		read_ms;
	bool		has_unknown;	/* of some task there was no history */
	int64		pipelines[MOST_PIPELINES];
	int			n_pipelines;
} Expectations;

/* Start over: it is old, or full. */
static void
forget(Expectations *known)
{
	MemoryContext old;

	MemoryContextReset(known->cxt);
	old = MemoryContextSwitchTo(known->cxt);
	known->foresight = foresight_begin();
	MemoryContextSwitchTo(old);
	known->read_ms = now_ms();
	known->n_pipelines = 0;
	known->has_unknown = false;
}

static Expectations *
expectations(Conductor *c)
{
	Expectations *known = c->expectations;

	if (known == NULL)
	{
		known = c->expectations = MemoryContextAllocZero(c->cxt, sizeof(Expectations));
		known->cxt = AllocSetContextCreate(c->cxt, "weir expectations", ALLOCSET_DEFAULT_SIZES);
		forget(known);
	}
	if (known->read_ms + (known->has_unknown ? UNKNOWN_KEPT_MS : KEPT_MS) < now_ms() || known->read_ms > now_ms())
		forget(known);
	return known;
}

static double
seconds_of(Expectations *known, int64 pipeline_id, const char *task)
{
	int			i = 0;

	while (i < known->n_pipelines && known->pipelines[i] != pipeline_id)
		i++;
	if (i == MOST_PIPELINES)
	{
		forget(known);
		i = 0;
	}
	if (i == known->n_pipelines)
		known->pipelines[known->n_pipelines++] = pipeline_id;
	return foresight_seconds(known->foresight, pipeline_id, task);
}

static bool
wants_to_know(const Flight *flight, int64 now)
{
	return flight->expected_ms == 0 && flight->step == KIND_STEP_POLL && flight->kind != NULL && flight->kind->is_http &&
		flight->started_ms + WORTH_MS <= now;
}

void
expectations_read(Conductor *c)
{
	static const Oid types[] = {INT8ARRAYOID};
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	Expectations *known;
	Datum	   *ids = NULL;
	Datum		values[1];
	SPITupleTable *table;
	uint64		rows;
	int64		now = now_ms();
	int			n = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (!wants_to_know(flight, now))
			continue;
		if (ids == NULL)
			ids = palloc(sizeof(Datum) * MOST_AT_ONCE);
		flight->expected_ms = POLL_UNKNOWN;
		ids[n++] = Int64GetDatum(flight->task_run_id);
		if (n == MOST_AT_ONCE)
		{
			hash_seq_term(&seq);
			break;
		}
	}
	if (n == 0)
		return;
	known = expectations(c);
	values[0] = weir_array(INT8OID, ids, n);
	/* by its key: no condition that another index has, too */
	rows = weir_spi("SELECT t.task_run_id, r.pipeline_id, t.task_name FROM weir.task_run t "
					"JOIN weir.run r ON r.run_id = t.run_id WHERE t.task_run_id = ANY ($1)",
					1, types, values, NULL);
	table = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		double		seconds;

		SPI_tuptable = table;
		flight = flight_find(c, weir_spi_int64(i, 1, NULL));
		seconds = seconds_of(known, weir_spi_int64(i, 2, NULL), weir_spi_text(i, 3));
		if (flight != NULL && seconds > 0 && seconds < LONGEST_S)
			flight->expected_ms = Max((int64) (seconds * 1000), 1);
		known->has_unknown = known->has_unknown || seconds < 0;
	}
}
