/*-------------------------------------------------------------------------
 * flightwrite.c
 *	  Verdicts into the log: what was learnt on the way, and outcomes.
 *
 * Runs in the conductor's transaction, first thing in a cycle.  Outcomes of
 * one cycle are written together, however many there are.  A run whose
 * pipeline's state a client holds keeps its verdicts for later: the conductor
 * waits for nobody.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"

#include "compare.h"
#include "conductor_int.h"
#include "json.h"
#include "outcome.h"

/* What a verdict taught us goes into the log: ids, state, the next step. */
static void
write_progress(Flight *flight)
{
	KindVerdict *verdict = flight->verdict;
	Oid			types[] = {INT8OID, INT4OID, TEXTOID, TEXTOID, JSONBOID, TEXTOID};
	char		nulls[] = "      ";
	Datum		values[6];

	/* The next request builds on it, as on the intent. */
	ForceSyncCommit();
	if (verdict->external_run_over)
		flight->external_run_id = NULL;
	if (verdict->external_run_id)
		flight->external_run_id = MemoryContextStrdup(flight->cxt, verdict->external_run_id);
	values[0] = Int64GetDatum(flight->task_run_id);
	values[1] = Int32GetDatum(flight->attempt_no);
	nulls[2] = flight->external_run_id ? ' ' : 'n';
	values[2] = flight->external_run_id ? CStringGetTextDatum(flight->external_run_id) : (Datum) 0;
	nulls[3] = verdict->external_url ? ' ' : 'n';
	values[3] = verdict->external_url ? CStringGetTextDatum(verdict->external_url) : (Datum) 0;
	nulls[4] = flight->kind_state ? ' ' : 'n';
	values[4] = flight->kind_state ? DirectFunctionCall1(jsonb_in, CStringGetDatum(json_text(flight->kind_state))) : (Datum) 0;
	values[5] = CStringGetTextDatum(kind_step_name(verdict->outcome == KIND_CONTINUE ? verdict->next_step : flight->step));
	weir_spi("UPDATE weir.attempt SET external_run_id = $3, kind_state = $5, step = $6, "
			 "status = CASE WHEN $3 IS NOT NULL AND status = 'intended' THEN 'started' ELSE status END, "
			 "started_at = CASE WHEN $3 IS NOT NULL AND started_at IS NULL THEN clock_timestamp() ELSE started_at END "
			 "WHERE task_run_id = $1 AND attempt_no = $2",
			 6, types, values, nulls);
	if (flight->external_run_id || verdict->external_run_over || verdict->external_url)
		weir_spi("UPDATE weir.task_run SET external_run_id = $3, external_url = coalesce($4, external_url) "
				 "WHERE task_run_id = $1 AND attempt_no = $2",
				 4, types, values, nulls);
}

/* After what is said already */
static const char *
say_how_far(const Flight *flight, const char *detail)
{
	KindCall	call;
	char	   *text;

	if (flight->kind == NULL || flight->kind->how_far == NULL)
		return detail;
	flight_fill_call(flight, &call);
	text = flight->kind->how_far(&call);
	if (text == NULL || detail == NULL)
		return text ? text : detail;
	return psprintf("%s\n%s", detail, text);
}

/* An outcome of the engine as an outcome of the attempt. */
static void
fill_outcome(const Flight *flight, TaskOutcome *outcome)
{
	const KindVerdict *verdict = flight->verdict;

	memset(outcome, 0, sizeof(*outcome));
	outcome->task_run_id = flight->task_run_id;
	outcome->attempt_no = flight->attempt_no;
	outcome->output = verdict->output;
	outcome->items = verdict->items ? json_text(verdict->items) : NULL;
	outcome->rows_read = verdict->rows_read;
	outcome->rows_written = verdict->rows_written;
	outcome->activities = verdict->activities;
	outcome->http_status = flight->http_status;
	outcome->error_code = verdict->error_code;
	outcome->error_message = verdict->error_message;
	outcome->error_detail = verdict->error_detail;
	outcome->is_user_error = verdict->is_user_error;
	outcome->is_retryable = verdict->is_retryable;
	outcome->may_go_on = verdict->may_go_on;
	outcome->retry_after_ms = flight->retry_after_ms;

	if (verdict->outcome == KIND_SUCCEEDED)
	{
		outcome->status = ATTEMPT_SUCCEEDED;
		outcome->error_message = NULL;
	}
	else if (sql_cancel_is_timeout(flight->ending))
	{
		outcome->status = ATTEMPT_TIMED_OUT;
		/* Tried again only if nothing of this attempt can still be going on. */
		outcome->is_retryable = verdict->outcome == KIND_CANCELLED || verdict->is_retryable;
		outcome->error_code = "timed_out";
		outcome->error_message = sql_cancel_timeout_text(flight->ending);
		if ((!outcome->is_retryable || flight->kind->is_resumable) && verdict->error_message != NULL)
			outcome->error_message = psprintf("%s; %s", outcome->error_message, verdict->error_message);
		outcome->is_user_error = false;
	}
	else if (flight->ending == SQL_CANCEL_ASKED || verdict->outcome == KIND_CANCELLED)
	{
		outcome->status = ATTEMPT_CANCELLED;
		if (outcome->error_message == NULL)
			outcome->error_message = "the engine cancelled its run";
	}
	else
	{
		outcome->status = ATTEMPT_FAILED;
		if (outcome->error_message == NULL)
			outcome->error_message = "the engine gave no error text";
		outcome->error_detail = say_how_far(flight, outcome->error_detail);
	}
	if (outcome->status == ATTEMPT_FAILED || outcome->status == ATTEMPT_TIMED_OUT)
		outcome->error_message = trouble_add(flight, outcome->error_message);
}

/* The exchange is not the last: the log learns what it must know before the next. */
static void
write_continue(Conductor *c, Flight *flight)
{
	KindVerdict *verdict = flight->verdict;

	listening_once(flight, verdict);
	write_progress(flight);
	if (verdict->next_step == flight->step)
		flight->step_tries++;
	flight_go_to_step(flight, verdict->next_step, verdict->delay_ms, verdict->reset_tries);
	flight_drop_verdict(flight);
	/* Its time was up before anybody could be asked. */
	if (flight->ending != SQL_CANCEL_NONE && uncertain_waits(flight))
		uncertain_end(c, flight);
}

static int
compare_flights(const void *a, const void *b)
{
	return compare_int64(&(*(Flight *const *) a)->task_run_id, &(*(Flight *const *) b)->task_run_id);
}

/* Verdicts that end their attempts, in the order of task runs; the others are written at once. */
static int
collect_ended(Conductor *c, Flight **ended)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int			n = 0;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (flight->verdict == NULL)
			continue;
		c->did_work = true;
		if (flight->verdict->outcome == KIND_CONTINUE)
			write_continue(c, flight);
		else
			ended[n++] = flight;
	}
	qsort(ended, n, sizeof(Flight *), compare_flights);
	return n;
}

/* Lock the runs of these flights; drops those whose pipeline's state somebody holds. */
static int
lock_runs(Conductor *c, Flight **ended, int n)
{
	int64	   *runs = palloc(sizeof(int64) * n);
	int64	   *locked = palloc(sizeof(int64) * n);
	int			n_runs = 0,
				n_locked,
				kept = 0;

	for (int i = 0; i < n; i++)
		runs[i] = ended[i]->run_id;
	qsort(runs, n, sizeof(int64), compare_int64);
	for (int i = 0; i < n; i++)
		if (i == 0 || runs[i] != runs[i - 1])
			runs[n_runs++] = runs[i];
	n_locked = outcome_lock_runs(runs, n_runs, locked);
	if (n_locked < n_runs)
		conductor_defer(c);
	for (int i = 0; i < n; i++)
		if (bsearch(&ended[i]->run_id, locked, n_locked, sizeof(int64), compare_int64) != NULL)
			ended[kept++] = ended[i];
	return kept;
}

void
flights_write(Conductor *c)
{
	Flight	  **ended;
	TaskOutcome *outcomes;
	TaskOutcome **list;
	int			n,
				written;

	if (!c->has_verdicts)
		return;
	c->has_verdicts = false;
	n = Max(hash_get_num_entries(c->flights), 1);
	ended = palloc(sizeof(Flight *) * n);
	n = collect_ended(c, ended);
	if (n > 0)
		n = lock_runs(c, ended, n);
	if (n == 0)
		return;

	outcomes = palloc(sizeof(TaskOutcome) * n);
	list = palloc(sizeof(TaskOutcome *) * n);
	for (int i = 0; i < n; i++)
	{
		const KindVerdict *verdict = ended[i]->verdict;

		if (verdict->state_changed || verdict->external_run_id || verdict->external_url)
			write_progress(ended[i]);
		fill_outcome(ended[i], &outcomes[i]);
		list[i] = &outcomes[i];
	}
	written = outcome_apply_all(list, n);
	if (written < n)
		ereport(LOG, (errmsg("%d of %d attempts already had an outcome", n - written, n)));
	for (int i = 0; i < n; i++)
		flight_remove(c, ended[i]);
}
