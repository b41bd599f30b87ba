/*-------------------------------------------------------------------------
 * pipelinestate.h
 *	  How the engine finds the row of weir.pipeline_state.
 *
 * Every run changes the state of its pipeline, and as long as anybody holds
 * an old snapshot no version of the row goes away.  A look by equality would
 * pass over all of them, and each task's outcome has to look.  New versions
 * go to new pages, so the newest is the last that the index knows: a look
 * from the back finds it at once.  It finds the same row in any case.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PIPELINESTATE_H
#define WEIR_PIPELINESTATE_H

/* SQL: condition and order of a look for the state of a pipeline, the id twice; s is weir.pipeline_state */
#define STATE_FROM_BACK(pipeline_id) \
	"s.pipeline_id >= " pipeline_id " AND s.pipeline_id <= " pipeline_id " ORDER BY s.pipeline_id DESC LIMIT 1"

#define PIPELINE_OF_RUN(run_id) "(SELECT o.pipeline_id FROM weir.run o WHERE o.run_id = " run_id ")"

/*
 * SQL: condition that names that one row, for an UPDATE of what is locked, and
 * for SKIP LOCKED, which would go on through all older versions.  Who locks
 * with it may miss a row that was changed a moment ago, as one that is held.
 */
#define IS_STATE(state, pipeline_id) \
	state ".ctid = (SELECT s.ctid FROM weir.pipeline_state s WHERE " STATE_FROM_BACK(pipeline_id) ")"

/* The same for that of a run's pipeline; run_id is a parameter */
#define IS_STATE_OF_RUN(state, run_id)	IS_STATE(state, PIPELINE_OF_RUN(run_id))

#endif							/* WEIR_PIPELINESTATE_H */
