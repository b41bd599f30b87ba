/*-------------------------------------------------------------------------
 * starting.c
 *	  The decision what a start does, from the row that says it.
 *
 * Runs in the conductor, with the pipeline's state locked, and in sessions
 * that ask weir.plan, which lock nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access.h"
#include "starting.h"

RestartDecision
start_decide_row(StartFacts *facts)
{
	RestartInput in = {0};
	char	   *next = weir_spi_text(0, 3);

	facts->disabled = !weir_spi_bool(0, 1, NULL);
	facts->skip_once = weir_spi_bool(0, 2, NULL);
	if (!next_load_status_parse(next[0], &facts->next_load))
		elog(ERROR, "a pipeline has the unknown next load status \"%s\"", next);
	facts->last_run_id = weir_spi_int64(0, 4, NULL);
	facts->origin = weir_spi_int64(0, 5, NULL);

	in.disabled = facts->disabled;
	in.skip_once = facts->skip_once;
	in.last_next_load = facts->next_load;
	in.other = RESTART_OTHER_NONE;
	return restart_decide(&in);
}
