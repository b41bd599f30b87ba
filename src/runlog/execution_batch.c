/*-------------------------------------------------------------------------
 * execution_batch.c
 *	  The children of a batch: how they stand, and what its end does to them
 *
 * Runs in the session that ends a batch, with the pipelines of the batch and
 * of its children locked.  A child that started after they were locked holds
 * the batch and is therefore either waited for and seen, or too late.
 *
 * Nothing here depends on a call that a crashed orchestrator did not make:
 * which children finished is read from their own executions.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"

#include "access.h"
#include "status.h"
#include "restart.h"
#include "execution.h"

typedef struct Child
{
	int64		pipeline_id;
	NextLoadStatus current;		/* of its pipeline */
	bool		has_execution;	/* in this batch */
	RunStatus	status;			/* of that; RUN_SKIPPED without one */
	char		execution_next_load;
	bool		is_latest;		/* no later execution of the pipeline ran */
	bool		since_success;	/* was a child since the batch's last success */
} Child;

/*
 * Everything that was a child of the batch in its last success ($3) or later.
 * Of several executions in this batch ($1) the last one that ran counts.
 */
static const char children_sql[] =
	"SELECT u.pipeline_id, s.next_load_status, c.status, c.next_load_status, "
	"c.run_id = s.last_run_id, u.since_success "
	"FROM (SELECT k.pipeline_id, bool_or(b.run_id > $3) AS since_success "
	"FROM weir.run b JOIN weir.run k ON k.parent_run_id = b.run_id "
	"WHERE b.pipeline_id = $2 AND b.run_id >= $3 GROUP BY k.pipeline_id) u "
	"JOIN weir.pipeline_state s ON s.pipeline_id = u.pipeline_id "
	"LEFT JOIN (SELECT DISTINCT ON (r.pipeline_id) r.pipeline_id, r.run_id, r.status, r.next_load_status "
	"FROM weir.run r WHERE r.parent_run_id = $1 "
	"ORDER BY r.pipeline_id, r.status IN ('skipped', 'aborted'), r.run_id DESC) c "
	"ON c.pipeline_id = u.pipeline_id ORDER BY u.pipeline_id";

/* Children that are silent for longer than their own limit allows */
static const char stale_sql[] =
	"SELECT c.run_id FROM weir.run c JOIN weir.pipeline p ON p.pipeline_id = c.pipeline_id "
	"WHERE c.parent_run_id = $1 AND c.is_external AND c.status IN ('running', 'cancelling') "
	"AND " EXECUTION_LAST_SIGN("c") " + coalesce($2, p.stale_after, make_interval(secs => $3)) <= clock_timestamp() "
	"ORDER BY c.run_id";

/* The execution that last ran shows the mark too. */
static const char mark_sql[] =
	"WITH s AS (UPDATE weir.pipeline_state SET next_load_status = $2, origin_row_audit_id = NULL "
	"WHERE pipeline_id = ANY ($1) RETURNING last_run_id) "
	"UPDATE weir.run r SET next_load_status = $2 FROM s "
	"WHERE r.run_id = s.last_run_id AND r.status = 'succeeded'";

/* All children, palloc'd in SPI memory; returns their number. */
static int
read_children(const Execution *batch, Child **children)
{
	static const Oid types[3] = {INT8OID, INT8OID, INT8OID};
	Datum		values[3] = {
		Int64GetDatum(batch->id), Int64GetDatum(batch->pipeline_id), Int64GetDatum(batch->state_last_success_id)
	};
	uint64		n = weir_spi(children_sql, 3, types, values, NULL);

	*children = palloc0(Max(n, 1) * sizeof(Child));
	for (uint64 i = 0; i < n; i++)
	{
		Child	   *child = &(*children)[i];
		char	   *current = weir_spi_text(i, 2);
		char	   *status = weir_spi_text(i, 3);
		char	   *next_load = weir_spi_text(i, 4);

		child->pipeline_id = weir_spi_int64(i, 1, NULL);
		if (current == NULL || !next_load_status_parse(current[0], &child->current))
			elog(ERROR, "unknown next_load_status");
		child->has_execution = status != NULL;
		child->status = RUN_SKIPPED;
		if (status != NULL && !run_status_parse(status, &child->status))
			elog(ERROR, "unknown status of a run: %s", status);
		child->execution_next_load = next_load ? next_load[0] : '\0';
		child->is_latest = weir_spi_bool(i, 5, NULL);
		child->since_success = weir_spi_bool(i, 6, NULL);
	}
	return (int) n;
}

/*
 * A batch that crashed took children along.  One that may still be alive (its
 * pipeline has a longer limit) is left alone; it makes the batch unfinished.
 */
void
execution_batch_close_stale(const Execution *batch, bool has_limit, Datum limit)
{
	static const Oid types[3] = {INT8OID, INTERVALOID, FLOAT8OID};
	Datum		values[3] = {Int64GetDatum(batch->id), limit, Float8GetDatum((double) execution_stale_after_s)};
	char		nulls[3] = {' ', has_limit ? ' ' : 'n', execution_stale_after_s == 0 ? 'n' : ' '};
	uint64		n = weir_spi(stale_sql, 3, types, values, nulls);
	int64	   *ids = palloc(Max(n, 1) * sizeof(int64));

	for (uint64 i = 0; i < n; i++)
		ids[i] = weir_spi_int64(i, 1, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Execution	child;

		(void) execution_close_stale(ids[i], has_limit, limit, &child);
	}
}

/* Count a child by what its next start has to do. */
static void
count_child(const Child *child, RestartBatchEnd *end)
{
	char		pending = (char) child->current;

	if (child->has_execution)
	{
		switch (run_status_execution_code(child->status))
		{
			case 'S':
			case 'C':
				return;
			case 'F':
				pending = child->execution_next_load;
				break;
			default:
				end->children_unfinished++;
				return;
		}
	}

	if (pending == NEXT_LOAD_RESUME)
		end->children_resume++;
	else if (pending == NEXT_LOAD_RERUN)
		end->children_rerun++;
	else if (!child->has_execution && pending == NEXT_LOAD_PROCESS)
		end->children_unfinished++;	/* it never got its turn */
}

void
execution_batch_children(const Execution *batch, RestartBatchEnd *end)
{
	Child	   *children;
	int			n = read_children(batch, &children);

	for (int i = 0; i < n; i++)
		count_child(&children[i], end);
}

/*
 * Marks of children that have run again on their own since are left alone:
 * that execution has the word about its pipeline.
 */
static bool
is_ours_to_mark(const Child *child)
{
	if (child->status == RUN_SUCCEEDED)
		return child->is_latest;
	return child->since_success;
}

/*
 * Does a child that succeeds now belong to a batch that failed and has still
 * to be made good?  Once a later try has succeeded there is nothing left to
 * restart, and a mark would make the next period's load skip the child.
 */
bool
execution_in_failed_batch(const Execution *child)
{
	static const char later_sql[] =
		"SELECT s.last_success_run_id > b.run_id FROM weir.run b "
		"JOIN weir.pipeline_state s ON s.pipeline_id = b.pipeline_id WHERE b.run_id = $1";
	static const Oid int8 = INT8OID;
	Datum		id = Int64GetDatum(child->parent_id);

	if (child->parent_id == 0 || !child->parent_is_batch ||
		run_status_execution_code(child->parent_status) != 'F')
		return false;
	return weir_spi(later_sql, 1, &int8, &id, NULL) == 0 || !weir_spi_bool(0, 1, NULL);
}

void
execution_batch_ended(const Execution *batch, bool succeeded)
{
	static const Oid types[2] = {INT8ARRAYOID, CHAROID};
	NextLoadStatus mark = succeeded ? NEXT_LOAD_PROCESS : NEXT_LOAD_SKIP;
	Child	   *children;
	int			n = read_children(batch, &children);
	Datum	   *changed = palloc(Max(n, 1) * sizeof(Datum));
	int			nchanged = 0;
	Datum		values[2];

	for (int i = 0; i < n; i++)
	{
		const Child *child = &children[i];
		NextLoadStatus next_load;

		if (!is_ours_to_mark(child))
			continue;
		/* aborted here: what counts is the mark that a failed try left, if any */
		next_load = restart_child_next_load(succeeded,
											child->status == RUN_ABORTED ? RUN_SKIPPED : child->status,
											child->current);
		if (next_load == child->current)
			continue;
		if (next_load != mark)
			elog(ERROR, "unexpected next_load_status of a child: %c", next_load);
		changed[nchanged++] = Int64GetDatum(child->pipeline_id);
	}
	if (nchanged == 0)
		return;

	values[0] = PointerGetDatum(construct_array(changed, nchanged, INT8OID, sizeof(int64), sizeof(Datum) == sizeof(int64), TYPALIGN_DOUBLE));
	values[1] = CharGetDatum((char) mark);
	(void) weir_spi(mark_sql, 2, types, values, NULL);
}
