-- Places of runs: how many of a pipeline go on, and what a run that ended
-- waits for when it is to be repaired.  The conductor acts on it with the
-- pipeline's state locked (src/engine/rerun.c), weir.why says it.

CREATE VIEW weir._places AS
SELECT v.pipeline_id, v.version, v.max_concurrent_runs, a.active,
	v.max_concurrent_runs - coalesce(cardinality(a.active), 0) AS free
FROM weir.pipeline_version v
	CROSS JOIN LATERAL (SELECT array_agg(x.run_id ORDER BY x.run_id) AS active FROM weir._active x
		WHERE x.pipeline_id = v.pipeline_id) a;
COMMENT ON VIEW weir._places IS 'How many more runs may go on as each version of a pipeline says; asks nobody who he is';
COMMENT ON COLUMN weir._places.pipeline_id IS 'The pipeline';
COMMENT ON COLUMN weir._places.version IS 'The version';
COMMENT ON COLUMN weir._places.max_concurrent_runs IS 'So many runs may go on at the same time';
COMMENT ON COLUMN weir._places.active IS 'Runs that go on, of all versions, ids ascending; null: none';
COMMENT ON COLUMN weir._places.free IS 'So many more may; not above 0 when all places are taken';

-- A run that goes on takes a place of its pipeline and of its backfill, like
-- one that starts; and no two that go on write rows of one landing.
CREATE VIEW weir._repair_place AS
SELECT r.run_id,
	CASE WHEN p.free <= 0 THEN 'pipeline'
		WHEN n.landing IS NOT NULL THEN 'landing'
		WHEN n.windows >= b.concurrency THEN 'backfill' END AS waits_for,
	p.active, p.max_concurrent_runs, n.landing AS landing_run_id, r.backfill_id, n.windows, b.concurrency
FROM weir.run r JOIN weir._places p ON p.pipeline_id = r.pipeline_id AND p.version = r.version
	LEFT JOIN weir.backfill b ON b.backfill_id = r.backfill_id
	CROSS JOIN LATERAL (SELECT min(g.run_id) FILTER (WHERE g.row_audit_id = r.row_audit_id) AS landing,
			count(*) FILTER (WHERE g.backfill_id = r.backfill_id) AS windows
		FROM weir.run g WHERE g.run_id = ANY (p.active)) n;
COMMENT ON VIEW weir._repair_place IS 'Whether a run that ended may go on by a repair, or waits; no row if its version is gone; asks nobody who he is';
COMMENT ON COLUMN weir._repair_place.run_id IS 'The run';
COMMENT ON COLUMN weir._repair_place.waits_for IS 'pipeline: max_concurrent_runs go on; landing: another run goes on with what it landed; backfill: as many windows go on as may; null: it may go on';
COMMENT ON COLUMN weir._repair_place.active IS 'Runs of its pipeline that go on, ids ascending; null: none';
COMMENT ON COLUMN weir._repair_place.max_concurrent_runs IS 'So many runs of its pipeline may go on at the same time';
COMMENT ON COLUMN weir._repair_place.landing_run_id IS 'The run that goes on with what it landed; null: none';
COMMENT ON COLUMN weir._repair_place.backfill_id IS 'The backfill it belongs to';
COMMENT ON COLUMN weir._repair_place.windows IS 'So many windows of the backfill go on';
COMMENT ON COLUMN weir._repair_place.concurrency IS 'So many may; null: it belongs to no backfill';
