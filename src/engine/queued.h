/*-------------------------------------------------------------------------
 * queued.h
 *	  What the queue of a pipeline is made of, for queues.c, which remembers
 *	  it, and intake.c, which starts what is in it.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_QUEUED_H
#define WEIR_QUEUED_H

/*
 * SQL: does r, found by its id, go on?  Written so that the planner cannot
 * take the index of those that go on for it: just analyzed with none there,
 * that seems to be the shortest way to any of them, but an old snapshot may
 * keep thousands of entries in it.
 */
#define GOES_ON(r) "coalesce(" r ".live, ' ') = 'a'"

/*
 * SQL: the priorities with which runs of the pipeline are queued, and the first
 * of each; from one to the next in the index, however long the queue is.
 */
#define QUEUED_LANES(pipeline_id) \
	"WITH RECURSIVE d (priority, run_id) AS (" \
	"(SELECT r.priority, r.run_id FROM weir.run r WHERE r.pipeline_id = " pipeline_id " AND r.live = 'q' " \
	"ORDER BY r.priority DESC, r.run_id LIMIT 1) UNION ALL " \
	"SELECT n.* FROM d CROSS JOIN LATERAL (SELECT r.priority, r.run_id FROM weir.run r " \
	"WHERE r.pipeline_id = " pipeline_id " AND r.live = 'q' AND r.priority < d.priority ORDER BY r.priority DESC, r.run_id LIMIT 1) n) " \
	"SELECT d.priority::bigint AS priority, d.run_id FROM d"

#endif							/* WEIR_QUEUED_H */
