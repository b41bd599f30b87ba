/*-------------------------------------------------------------------------
 * trouble.c
 *	  What went wrong last with the exchanges of an attempt.
 *
 * An answer that is of no use is asked for again, often for long; when the
 * attempt then runs out of time or of tries, whoever reads the log wants to
 * know what came back all the while.  Runs in the conductor and is kept in
 * its memory: after a crash the next exchange says it again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conductor_int.h"

void
trouble_say(Flight *flight, const char *trouble)
{
	if (flight->trouble)
		pfree(flight->trouble);
	flight->trouble = trouble ? MemoryContextStrdup(flight->cxt, trouble) : NULL;
}

/*
 * A usable answer ends it.  To a look-up that found nothing the trouble with
 * the start is still the reason.
 */
void
trouble_note(Flight *flight)
{
	const KindVerdict *verdict = flight->verdict;
	bool		has_trouble = verdict->outcome == KIND_CONTINUE && verdict->trouble != NULL;

	if (!has_trouble && flight->step == KIND_STEP_LOOKUP && verdict->external_run_id == NULL)
		return;
	trouble_say(flight, has_trouble ? verdict->trouble : NULL);
}

const char *
trouble_add(const Flight *flight, const char *message)
{
	if (flight->trouble == NULL || (message != NULL && strstr(message, flight->trouble) != NULL))
		return message;
	return message ? psprintf("%s; latest trouble: %s", message, flight->trouble) : flight->trouble;
}
