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

/* SQL: condition of an UPDATE of the state of a run's pipeline, which is locked; run_id is a parameter */
#define IS_STATE_OF_RUN(state, run_id) \
	state ".ctid = (SELECT s.ctid FROM weir.pipeline_state s WHERE " STATE_FROM_BACK(PIPELINE_OF_RUN(run_id)) ")"

#endif							/* WEIR_PIPELINESTATE_H */
