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
#include "landing.h"
#include "starting.h"

/*
 * A landing left by a run of weir is resumed by one run at a time.  One that
 * only the state knows of (an outside execution left it, or the log is gone
 * with a dump) is the pipeline's.
 */
static void
choose_landing(StartFacts *facts, const LandingWish *wish)
{
	Landing		landing;

	switch (landing_choose(wish, &landing))
	{
		case LANDING_FOUND:
			facts->last_run_id = landing.run_id;
			facts->origin = landing.row_audit_id;
			break;
		case LANDING_NOT_FOR_IT:
			facts->next_load = NEXT_LOAD_PROCESS;
			facts->lands_beside = true;
			break;
		case LANDING_UNKNOWN:
			break;
	}
}

RestartDecision
start_decide_row(StartFacts *facts, const LandingWish *wish)
{
	RestartInput in = {0};
	Landing		landing;
	int64		restarted;
	char	   *next = weir_spi_text(0, 3);

	memset(facts, 0, sizeof(*facts));
	facts->disabled = !weir_spi_bool(0, 1, NULL);
	facts->skip_once = weir_spi_bool(0, 2, NULL);
	if (!next_load_status_parse(next[0], &facts->next_load))
		elog(ERROR, "a pipeline has the unknown next load status \"%s\"", next);
	facts->last_run_id = weir_spi_int64(0, 4, NULL);
	facts->origin = weir_spi_int64(0, 5, NULL);
	restarted = weir_spi_int64(0, 6, NULL);
	if (restarted != 0 && landing_of_restarted(restarted, &landing))
	{
		facts->next_load = NEXT_LOAD_RESUME;
		facts->last_run_id = landing.run_id;
		facts->origin = landing.row_audit_id;
	}
	else if (facts->next_load == NEXT_LOAD_RESUME)
		choose_landing(facts, wish);

	in.disabled = facts->disabled;
	in.skip_once = facts->skip_once;
	in.last_next_load = facts->next_load;
	in.other = RESTART_OTHER_NONE;
	return restart_decide(&in);
}
