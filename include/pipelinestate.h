/*-------------------------------------------------------------------------
 * pipelinestate.h
 *	  How the engine finds the row of weir.pipeline_state.
 *
 * Every run changes the state of its pipeline, and as long as anybody holds
 * an old snapshot no version of the row goes away.  A look by the pipeline
 * alone would pass over many of them, wherever in the table the newest has
 * found room, and each task's outcome has to look.  (An index that knows the
 * order of the versions does not help: the unique one would then have an entry
 * for each of them, and pass over all of these for every new one.)  So
 * who finds it leaves word in shared memory where, and who comes next follows
 * the newer versions from there.  What he finds is what the index would have
 * found, or it is not taken.  (Whoever keeps one snapshot for a transaction
 * leaves no word: his version is an old one.)
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PIPELINESTATE_H
#define WEIR_PIPELINESTATE_H

#define PIPELINE_OF_RUN(run_id) "(SELECT o.pipeline_id FROM weir.run o WHERE o.run_id = " run_id ")"

/*
 * SQL: condition that finds the state of a pipeline, as the statement sees
 * it.  Who locks with it may miss a row that was changed a moment ago, as one
 * that is held (that depends on the minor release, which may recheck the
 * place); SKIP LOCKED does not go on through older versions.
 */
#define IS_STATE(state, pipeline_id)	state ".ctid = weir._state_place(" pipeline_id ")"

/* The same for that of a run's pipeline; run_id is a parameter */
#define IS_STATE_OF_RUN(state, run_id)	IS_STATE(state, PIPELINE_OF_RUN(run_id))

/*
 * The row as of now, or as the running statement sees it; as execution_row_find
 * (execution_row.h), and to be closed like what that finds.
 */
struct ExecutionRow;
extern bool pipeline_state_find(int64 pipeline_id, struct ExecutionRow *row);
extern bool pipeline_state_find_seen(int64 pipeline_id, struct ExecutionRow *row);

/* Lock the state of a run's pipeline as it is now, FOR UPDATE, waiting for it; false if there is none. */
extern bool pipeline_state_lock(int64 run_id);

#endif							/* WEIR_PIPELINESTATE_H */
