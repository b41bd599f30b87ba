/*-------------------------------------------------------------------------
 * spi.c
 *	  SPI in one line: plans prepared once per process, kept by the address
 *	  of their SQL literal.
 *
 * Runs in any backend.  The plan table is process-local and grows only with
 * the number of statements in the source.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "access.h"

typedef struct PlanEntry
{
	const char *sql;			/* key: the literal's address */
	SPIPlanPtr	plan;
	uint64		executions;		/* of all its plans */
} PlanEntry;

typedef struct Planner
{
	bool		seqscan;
	bool		bitmapscan;
	bool		hashjoin;
	bool		mergejoin;
	bool		jit;
	int			cache_mode;
	double		page_cost;
	double		tuple_cost;
	double		index_tuple_cost;
} Planner;

static HTAB *plans = NULL;
static bool indexes_preferred = false;

/*
 * A plan made for a table of ten rows is kept while it grows to a million.
 * The planner looks at the real size of tables, but only when it plans: so it
 * plans again at the 4th, 16th, 64th, ... execution.
 */
static bool
is_due(uint64 executions)
{
	return executions > 1 && (executions & (executions - 1)) == 0 &&
		(executions & UINT64CONST(0x5555555555555555)) != 0;
}

static SPIPlanPtr
plan_for(const char *sql, int nargs, const Oid *types)
{
	PlanEntry  *entry;
	bool		found;

	if (plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(const char *);
		ctl.entrysize = sizeof(PlanEntry);
		ctl.hcxt = TopMemoryContext;
		plans = hash_create("weir plans", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	entry = hash_search(plans, &sql, HASH_ENTER, &found);
	if (!found)
	{
		entry->plan = NULL;
		entry->executions = 0;
	}
	if (is_due(++entry->executions) && entry->plan != NULL)
	{
		SPIPlanPtr	old = entry->plan;

		entry->plan = NULL;
		SPI_freeplan(old);
	}
	if (entry->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(sql, nargs, (Oid *) types);

		if (plan == NULL)
			elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep plan");
		entry->plan = plan;
	}
	return entry->plan;
}

void
weir_prefer_indexes(bool prefer)
{
	indexes_preferred = prefer;
}

static void
set_planner(const Planner *planner)
{
	enable_seqscan = planner->seqscan;
	enable_bitmapscan = planner->bitmapscan;
	enable_hashjoin = planner->hashjoin;
	enable_mergejoin = planner->mergejoin;
	jit_enabled = planner->jit;
	plan_cache_mode = planner->cache_mode;
	random_page_cost = planner->page_cost;
	cpu_tuple_cost = planner->tuple_cost;
	cpu_index_tuple_cost = planner->index_tuple_cost;
}

/*
 * Every statement of ours finds its rows by an index, one after the other,
 * starting from the few it was given.  So finding a row is cheap and looking
 * at one dear, and joins are nested loops; one plan is as good for one id as
 * for five hundred.  Bitmap scans are out because they never mark what is
 * dead in an index, and the indexes of what is queued, ready and live turn
 * over with every run.
 *
 * The planner's switches are set for the moment of this one statement, and
 * by hand: going through the settings' machinery each time would cost more
 * than the statement.
 */
static int
execute_by_index(SPIPlanPtr plan, const Datum *values, const char *nulls)
{
	static const Planner by_index = {false, false, false, false, false, PLAN_CACHE_MODE_FORCE_GENERIC_PLAN, 0.01, 1.0, 1.0};
	Planner		saved = {enable_seqscan, enable_bitmapscan, enable_hashjoin, enable_mergejoin, jit_enabled, plan_cache_mode,
	random_page_cost, cpu_tuple_cost, cpu_index_tuple_cost};
	volatile int rc = SPI_ERROR_ARGUMENT;

	set_planner(&by_index);
	PG_TRY();
	{
		rc = SPI_execute_plan(plan, (Datum *) values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		set_planner(&saved);
	}
	PG_END_TRY();
	return rc;
}

uint64
weir_spi(const char *sql, int nargs, const Oid *types, const Datum *values, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	SPIPlanPtr	plan;
	int			rc;

	if (weir_search_path_is_open())
		weir_pin_search_path();
	plan = plan_for(sql, nargs, types);
	rc = indexes_preferred ? execute_by_index(plan, values, nulls) :
		SPI_execute_plan(plan, (Datum *) values, nulls, false, 0);

	/* SPI leaves its own context current; what callers read must live in theirs. */
	MemoryContextSwitchTo(caller);
	if (rc < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

char *
weir_spi_text(uint64 row, int column)
{
	Assert(row < SPI_processed);
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

int64
weir_spi_int64(uint64 row, int column, bool *isnull)
{
	bool		null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &null);
	Oid			type = SPI_gettypeid(SPI_tuptable->tupdesc, column);

	if (isnull)
		*isnull = null;
	if (null)
		return 0;
	if (type == INT8OID)
		return DatumGetInt64(value);
	if (type == INT4OID)
		return DatumGetInt32(value);
	if (type == INT2OID)
		return DatumGetInt16(value);
	if (type == OIDOID || type == REGROLEOID)
		return DatumGetObjectId(value);
	elog(ERROR, "column %d is not an integer", column);
	return 0;
}

bool
weir_spi_bool(uint64 row, int column, bool *isnull)
{
	bool		null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &null);

	if (isnull)
		*isnull = null;
	return null ? false : DatumGetBool(value);
}

Datum
weir_array(Oid type, const Datum *values, int n)
{
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_array((Datum *) values, n, type, length, by_value, align));
}
