/*-------------------------------------------------------------------------
 * redact.c
 *	  Keeps statements that carry a secret out of logs and views.
 *
 * Runs in every process that has the library loaded.  A function can replace
 * the text of the statement that called it, but errors before the call (a
 * misspelt argument) and what log_statement, log_min_duration_statement,
 * log_parameter_max_length or auto_explain write need a look at every log
 * message, hence the hook.  In a session without shared_preload_libraries
 * the hook is there from the first call of one of weir's functions on.
 *
 * The hook runs inside error processing: it allocates only in the error's own
 * context, raises nothing and keeps no state.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/backend_status.h"

#include "redact.h"

#define REDACTED "statement with a secret, not shown"

static emit_log_hook_type next_emit_log_hook = NULL;

/* Names of the functions whose statements carry secrets; ASCII, any case. */
static bool
carries_secret(const char *text)
{
	static const char *const names[] = {"create_secret", "alter_secret"};

	if (text == NULL)
		return false;
	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p != 'c' && *p != 'C' && *p != 'a' && *p != 'A')
			continue;
		for (int i = 0; i < lengthof(names); i++)
			if (pg_strncasecmp(p, names[i], strlen(names[i])) == 0)
				return true;
	}
	return false;
}

/*
 * Errors of the parser and of input functions quote what they were given:
 * a value put into the wrong kind of quotes is a column name to them.
 */
static bool
quotes_statement(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_SYNTAX_ERROR ||
		sqlerrcode == ERRCODE_UNDEFINED_COLUMN ||
		sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		sqlerrcode == ERRCODE_INVALID_TEXT_REPRESENTATION;
}

/*
 * A message about a statement (LOG: statement, duration, auto_explain) loses
 * everything; an error keeps message, detail and hint, which say what is
 * wrong, unless they quote the statement, and loses STATEMENT and the
 * parameters, which PostgreSQL writes into CONTEXT.
 */
static void
redact_emit_log(ErrorData *edata)
{
	bool		by_statement = carries_secret(debug_query_string);

	/* The statement that an EXECUTE executes stands in its DETAIL. */
	if (edata->elevel < ERROR &&
		(by_statement || carries_secret(edata->message) ||
		 carries_secret(edata->detail) || carries_secret(edata->detail_log)))
	{
		if (!by_statement || edata->detail != NULL || edata->detail_log != NULL ||
			carries_secret(edata->message))
			edata->message = pstrdup(REDACTED);
		edata->detail = NULL;
		edata->detail_log = NULL;
	}
	if (by_statement && edata->elevel >= ERROR && quotes_statement(edata->sqlerrcode))
		edata->message = pstrdup("error in a " REDACTED);
	if (by_statement || carries_secret(edata->internalquery) || carries_secret(edata->context))
	{
		edata->hide_stmt = true;
		edata->context = NULL;
		edata->internalquery = NULL;
	}

	if (next_emit_log_hook)
		next_emit_log_hook(edata);
}

void
redact_install(void)
{
	next_emit_log_hook = emit_log_hook;
	emit_log_hook = redact_emit_log;
}

/*
 * A shorter text leaves the rest of the longer one in shared memory, where a
 * core file would show it as long as nobody else gets this place (since 16
 * places are given away in turn).  So all of it is overwritten.
 */
void
redact_statement(const char *shown)
{
	int			length = Max(pgstat_track_activity_query_size - 1, 0);
	char	   *blank = palloc(length + 1);

	memset(blank, ' ', length);
	blank[length] = '\0';
	pgstat_report_activity(STATE_RUNNING, blank);
	pfree(blank);

	debug_query_string = shown;
	pgstat_report_activity(STATE_RUNNING, shown);
}
