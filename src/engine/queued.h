/*-------------------------------------------------------------------------
 * queued.h
 *	  What the queue of a pipeline is made of, for queues.c, which remembers
 *	  it, and intake.c, which starts what is in it.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_QUEUED_H
#define WEIR_QUEUED_H

/*
 * SQL: the array of the priorities with which runs of the pipeline are queued,
 * from one to the next in the index, however long the queue is.
 */
#define QUEUED_PRIORITIES(pipeline_id) \
	"ARRAY(WITH RECURSIVE d (priority) AS (" \
	"(SELECT r.priority FROM weir.run r WHERE r.pipeline_id = " pipeline_id " AND r.live = 'q' " \
	"ORDER BY r.priority DESC, r.run_id LIMIT 1) UNION ALL " \
	"SELECT (SELECT r.priority FROM weir.run r WHERE r.pipeline_id = " pipeline_id " AND r.live = 'q' AND r.priority < d.priority " \
	"ORDER BY r.priority DESC, r.run_id LIMIT 1) FROM d WHERE d.priority IS NOT NULL) " \
	"SELECT d.priority FROM d WHERE d.priority IS NOT NULL)"

#endif							/* WEIR_QUEUED_H */
