/*-------------------------------------------------------------------------
 * kind.h
 *	  The interface between the conductor and the kinds of task.
 *
 * A kind turns an attempt into a sequence of HTTP exchanges (or none).  It is
 * pure: it sees one KindCall, builds one request for the step at hand, reads
 * one response and returns a verdict.  It never touches tables, sockets or
 * the clock, so every kind can be tested by feeding it responses.
 *
 * The conductor commits what a verdict says before it acts on it.  What a
 * kind must remember between exchanges goes into kind_state; it survives a
 * crash.  Everything is palloc'd in the context current at the call and owned
 * by the caller.  Functions may ereport(ERROR) only where stated.
 *
 * Cancelling: KIND_STEP_CANCEL needs external_run_id.  While there is none
 * but a START may have been sent, go on with the steps as they come: as soon
 * as a verdict names an external_run_id, do CANCEL; when a verdict leads to
 * START and the last START is known not to have arrived (next_step START
 * coming from LOOKUP or PREPARE), nothing runs and the attempt is cancelled.
 * A repeatable START whose answer was lost must be repeated to learn the id.
 * After CANCEL follow the verdicts: they lead to POLL and to the real end.
 * A kind with abandon() has no CANCEL: its attempt ends at once.  One that
 * is_resumable may have both, by turns: see can_cancel.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KIND_H
#define WEIR_KIND_H

#include <cjson/cJSON.h>

/* Include postgres.h or mem.h before this. */

/* Steps an attempt of an HTTP kind goes through; stored by name. */
typedef enum KindStep
{
	KIND_STEP_PREPARE,			/* look before starting, e.g. can the earlier run be repaired? */
	KIND_STEP_START,			/* the exchange that starts work */
	KIND_STEP_LOOKUP,			/* after a crash or lost answer: did START arrive? */
	KIND_STEP_POLL,				/* how is it going? */
	KIND_STEP_DETAIL,			/* it ended: fetch outputs, errors, counts */
	KIND_STEP_CANCEL			/* ask the engine to stop */
} KindStep;

/* Another attempt that waits, see TaskKind.place */
typedef struct KindOther
{
	const struct KindCall *call;
	bool		can_take;		/* a delivery can reach it now */
	bool		is_elsewhere;	/* at another place, as far as the names go */
} KindOther;

/* What a kind sees of an attempt. */
typedef struct KindCall
{
	KindStep	step;
	const char *token;			/* idempotency token or correlation id */
	const cJSON *spec;			/* rendered */
	const char *base_url;		/* of the connection, no trailing slash */
	const cJSON *options;		/* of the connection */
	const char *other_base_url; /* of the second connection, if the kind has one */
	const cJSON *other_options;
	const KindOther *others;	/* in response() of kinds with a place */
	int			n_others;
	const cJSON *taken;			/* in PREPARE and LOOKUP of kinds with a start_place, see there: ids of other attempts' runs; or NULL */
	int			n_unknown;		/* likewise: other attempts that may have begun a run whose id nobody knows */
	const cJSON *reference;		/* earlier external run to resume, or NULL:
								 * {"external_run_id": "...", "kind_state": {...}} */
	const char *external_run_id;	/* NULL until the engine named one */
	cJSON	   *kind_state;		/* never NULL, an object; as last committed */
	cJSON	   *scratch;		/* the same, but in memory only: what can be fetched again after a crash */
	int64		intended_at_ms; /* epoch, for look-ups by time */
	int64		now_ms;			/* epoch */
	int			step_tries;		/* exchanges already made in this step, 0 first */
	bool		is_asking;		/* the request of this step is with the service */
	bool		after_crash;	/* LOOKUP because of a crash, not of a lost answer */
} KindCall;

typedef struct KindRequest
{
	const char *method;			/* GET, POST, ... */
	const char *url;			/* absolute */
	const char *body;			/* NULL for none */
	const char *content_type;	/* of the body */
	const char *idempotency_key;	/* sent as Idempotency-Key, or NULL */
	const cJSON *headers;		/* object of further headers, or NULL */
	const char *accept;			/* NULL: application/json */
	const char *secret;			/* name of a secret of weir's whose value becomes member "value" of the body, a
								 * JSON object, when it is sent; NULL for none */
	bool		starts_work;	/* not to be repeated when the answer is lost, unless is_repeatable */
	bool		is_repeatable;	/* the engine recognises a repetition, or it changes nothing */
	bool		without_auth;	/* send no credentials */
	const char *scope;			/* audience of the token, if not the one of the connection's kind; or NULL */
	bool		via_other;		/* through the second connection */
} KindRequest;

typedef struct KindResponse
{
	int			http_status;	/* 0: no answer */
	const char *body;			/* NUL-terminated, may be empty */
	size_t		body_len;
	int64		retry_after_ms; /* from Retry-After, -1 if absent */
	const char *content_type;	/* or NULL */
	const char *headers;		/* lines "Name: value\n"; see kind_header() */
	const char *transport_error;	/* set when http_status is 0 or the body broke off */
	bool		request_sent;	/* transport error: bytes of the request may have arrived */
	bool		too_large;		/* transport error: more than weir.http_max_body */
} KindResponse;

typedef enum KindOutcome
{
	KIND_CONTINUE,				/* go on with next_step after delay_ms */
	KIND_SUCCEEDED,
	KIND_FAILED,				/* permanently or not: see is_retryable */
	KIND_CANCELLED
} KindOutcome;

typedef struct KindVerdict
{
	KindOutcome outcome;
	KindStep	next_step;		/* with KIND_CONTINUE */
	int64		delay_ms;		/* with KIND_CONTINUE; -1: the conductor's polling pace */
	bool		state_changed;	/* call->kind_state was changed: commit before next_step */
	bool		reset_tries;	/* step_tries starts over although next_step is the same */
	const char *trouble;		/* with KIND_CONTINUE: why the answer was of no use, or NULL */
	const char *external_run_id;	/* newly learnt, or NULL */
	bool		external_run_over;	/* what it named is no more, and the attempt goes on without; with state_changed */
	const char *external_url;	/* newly learnt, or NULL */
	cJSON	   *output;			/* whatever the outcome, or NULL */
	const cJSON *items;			/* of a for_each that succeeded in listing them: an array; else NULL */
	int64		rows_read;		/* -1 unknown */
	int64		rows_written;	/* -1 unknown */
	cJSON	   *activities;		/* array of {activity, activity_type, status, rows_read, rows_copied, rows_skipped,
								 * bytes_read, bytes_written, started_at, ended_at (ISO 8601), output, error_code,
								 * error_message}, or NULL; logged with the outcome */
	const char *error_code;
	const char *error_message;
	const char *error_detail;
	bool		is_user_error;	/* else system error */
	bool		is_retryable;	/* another attempt may help */
	bool		may_go_on;		/* what was started may still be under way, or have taken effect: never tried again */
	cJSON	   *deliveries;		/* array of {other, callback}: for call->others[other], see deliver(); or NULL */
	const char *once_key;		/* what happened may serve one attempt only: this says what, and kind_state.callback.key too */
	bool		forget_token;	/* 401: drop the cached token, try once more */
} KindVerdict;

/* Collects what is wrong with a spec; path is relative to the spec, "$.x[1]" */
typedef struct KindProblem
{
	bool		is_rendered;	/* set by the caller: references are gone, "{{" is text like any other */
	const char *path;
	const char *message;		/* NULL: no problem */
	const char *hint;
	/* Set by request() only */
	const char *code;			/* error code of the attempt, or NULL */
	bool		is_system_error;	/* not the spec is wrong: see code, such as outcome_unknown */
} KindProblem;

/* What to do after an exchange for a page of a list of runs */
typedef enum KindPageResult
{
	KIND_PAGE_READ,
	KIND_PAGE_AGAIN,			/* no usable answer: ask for the same page again, later */
	KIND_PAGE_REFUSED			/* asking again will not help: no lists here */
} KindPageResult;

typedef struct KindPage
{
	KindPageResult result;
	bool		forget_token;	/* with AGAIN: drop the cached token first */
	/* With READ: */
	const char **running;		/* ids of runs that have not ended, as external_run_id has them */
	int			n_running;
	const char *next;			/* token of the next page; NULL: this was the last */
} KindPage;

/*
 * Kinds whose service lists runs: one exchange that tells of many attempts in
 * POLL that they go on.  It says nothing else of them.  A run that a list does
 * not have, for whatever reason, is asked for by itself; so a list may be
 * late or have holes.  Several kinds may share a listing.
 */
typedef struct KindListing
{
	int			page_size;		/* runs of a page at most */
	/* Will a list do for this attempt, or does its next POLL have more to tell?  NULL: it always will */
	bool		(*can_tell) (const KindCall *call);
	/* What all pages of a list of the runs of these attempts have in common: an object. */
	cJSON	   *(*scope) (const KindCall *calls, int n);
	/* page: its token, NULL the first.  call: any of them */
	void		(*request) (const KindCall *call, const cJSON *scope, const char *page, KindRequest *request);
	void		(*response) (const KindResponse *response, KindPage *page);
} KindListing;

typedef struct TaskKind
{
	const char *name;			/* sql, http, ... */
	const char *connection_kind;	/* kind of connection it needs, NULL for none */
	const char *also_connection_kind;	/* another kind that will do, or NULL */
	const char *other_connection_kind;	/* of the second connection, see other_connection */
	bool		is_http;		/* exchanges with an engine */
	bool		is_inline;		/* the conductor decides it itself, see decide (a for_each: unless a statement
								 * lists its items); neither: sql and noop */
	bool		is_resumable;	/* whatever an attempt did or left under way, the next one picks it up: it may always be tried again */
	bool		has_runs;		/* its work has ids that can be followed, although it has abandon() */
	bool		is_waiting;		/* the conductor keeps the attempt open until something happens in the database */
	bool		uses_worker;	/* a SQL worker runs the attempt: sql, redis_publish (and a for_each whose items a statement lists) */
	/* Check a spec, when it is defined and when it is rendered: problem->is_rendered.  First problem wins. */
	void		(*validate) (const cJSON *spec, KindProblem *problem);
	/* Kinds that choose a branch: is there one of this name?  Else NULL. */
	bool		(*has_branch) (const cJSON *spec, const char *branch);
	/* Of is_inline kinds: the end of the attempt, at once; output.branch is the branch chosen. */
	void		(*decide) (const KindCall *call, KindVerdict *verdict);
	/* Of kinds that are not is_http, what follows is NULL.  First step of a fresh attempt. */
	KindStep	(*first_step) (const KindCall *call);
	/* Step to take when an attempt without outcome is found after a crash. */
	KindStep	(*resume_step) (const KindCall *call);
	/*
	 * Build the request of call->step.  False: it cannot be built, *problem
	 * says why; the attempt fails and is not retried (user error, unless
	 * problem->is_system_error).
	 */
	bool		(*request) (const KindCall *call, KindRequest *request, KindProblem *problem);
	/* Read the response of call->step. */
	void		(*response) (KindCall *call, const KindResponse *response, KindVerdict *verdict);
	/*
	 * The attempt must end and there is nothing to cancel: say what is known.
	 * is_sent: a request may be with the service.  NULL for kinds whose work
	 * has an id that CANCEL is sent for; see above.
	 */
	void		(*abandon) (const KindCall *call, bool is_sent, KindVerdict *verdict);
	/*
	 * Of kinds with abandon(): is this attempt one that CANCEL is sent for
	 * instead?  NULL: none is.  Of those that are is_resumable: is it at this
	 * moment, with or without an external_run_id?
	 */
	bool		(*can_cancel) (const KindCall *call);
	/* How far an attempt came that fails: a sentence for its detail, or NULL.  Most kinds have none. */
	char	   *(*how_far) (const KindCall *call);
	/* Name of a second connection that a spec names, or NULL.  Most kinds have none. */
	const char *(*other_connection) (const cJSON *spec);
	/* An address that a spec names by itself, or NULL; *member says where, such as ".url".  Most kinds have none. */
	const char *(*named_url) (const cJSON *spec, const char **member);
	/*
	 * Kinds whose attempts wait for what arrives at a place they share: its
	 * address, and how often to ask there.  In POLL one attempt asks for all: the others' calls are in
	 * call->others, and what it got for them goes out as deliveries.
	 */
	char	   *(*place) (const KindCall *call, int64 *every_ms);
	void		(*deliver) (KindCall *call, const cJSON *callback, KindVerdict *verdict);
	/*
	 * Kinds some of whose runs bear no mark of ours, so that after a lost
	 * answer a run can only be told from others by where and when it began.
	 * This is where: a name in lower case, the same for all attempts whose runs
	 * could be confused; NULL for an attempt whose run will be told otherwise.
	 * *lag_ms: of an attempt that ended so long before this one was intended no
	 * run can be taken for this one's.  Attempts begin there one after
	 * the other: a verdict of PREPARE that leads to START puts the name into
	 * kind_state.start_place, where it stays with the run's id.  Until that is
	 * known, no other attempt looks (PREPARE) or starts there; the kind drops it
	 * when nothing of the attempt can have begun.  In LOOKUP, and in a PREPARE
	 * with the name, a run in call->taken is never this attempt's; nor is any
	 * while call->n_unknown says that it could be somebody else's.
	 */
	char	   *(*start_place) (const KindCall *call, int64 *lag_ms);
	const KindListing *listing; /* or NULL */
	/* An engine may forget work that nobody asks for: a pause that is short enough, with what spreads it.  0: it does not. */
	int64		longest_pause_ms;
} TaskKind;

extern const TaskKind *kind_find(const char *name);	/* NULL if unknown */
extern const char *kind_names(void);	/* "adf_pipeline, databricks_job, ..." for hints */
extern const char *kind_step_name(KindStep step);
extern bool kind_step_parse(const char *name, KindStep *step);

/* Shared helpers for kinds (kind.c). */
extern void kind_verdict_init(KindVerdict *verdict);
/*
 * Handles what is alike everywhere: transport errors, 408/429/5xx (CONTINUE
 * with the same step and a growing delay, Retry-After a minimum; gives up
 * after max_tries), 401 once (forget_token).  A lost answer to a request that
 * starts work and is not repeatable continues with LOOKUP.  Giving up is
 * retryable only if nothing can have been started; else the code is
 * outcome_unknown.  Uses members "maybe_started" and "unauthorized_ms" of
 * kind_state.  True if it filled in the verdict; false if the response is the
 * kind's.
 */
extern bool kind_common_response(const KindCall *call, const KindResponse *response,
								 bool starts_work, bool is_repeatable, int max_tries, KindVerdict *verdict);
/* Fail the verdict; code and message are copied, message is cut at 8 kB. */
extern void kind_fail(KindVerdict *verdict, bool is_user_error, bool is_retryable,
					  const char *code, const char *message);

/*
 * probe.c: a request that tells whether a connection is of use, without
 * changing anything; false if the kind has none.  What the answer says: texts
 * without secrets, as long as the response has none.  has_service_sas: the
 * request was signed with the SAS of a container or of something in one, see
 * sharedkey_sas_is_service().
 */
typedef enum KindProbeStep
{
	KIND_PROBE_FAILED,
	KIND_PROBE_OK,
	KIND_PROBE_UNKNOWN			/* the answer does not tell */
} KindProbeStep;

typedef struct KindProbe
{
	KindProbeStep sign_in;
	KindProbeStep permission;	/* of no meaning if sign_in failed */
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
} KindProbe;

extern bool kind_probe_request(const char *connection_kind, const char *base_url, const cJSON *options, int64 now_ms, KindRequest *request);
extern void kind_probe_response(const char *connection_kind, const cJSON *options, bool has_service_sas, const KindResponse *response, KindProbe *probe);

/* wait.c: the one member of a wait's spec that says for what; NULL if there is not exactly one */
extern const char *kind_wait_what(const cJSON *spec);

/* Items of one for_each at most, and how many of them run at a time unless its spec says so. */
#define FOR_EACH_MAX_ITEMS				100000
#define FOR_EACH_MAX_CONCURRENCY		1000
#define FOR_EACH_DEFAULT_CONCURRENCY	10

/* Result rows of a SQL task kept as its output: so many at most, and unless its spec says so. */
#define KIND_SQL_MAX_ROWS		1000
#define KIND_SQL_DEFAULT_ROWS	20

extern const TaskKind kind_sql;
extern const TaskKind kind_for_each;
extern const TaskKind kind_noop;
extern const TaskKind kind_if;
extern const TaskKind kind_switch;
extern const TaskKind kind_wait;
extern const TaskKind kind_pipeline;
extern const TaskKind kind_http;
extern const TaskKind kind_adf_pipeline;
extern const TaskKind kind_databricks_jar;
extern const TaskKind kind_databricks_job;
extern const TaskKind kind_databricks_notebook;
extern const TaskKind kind_databricks_pipeline;
extern const TaskKind kind_databricks_python;
extern const TaskKind kind_databricks_serving;
extern const TaskKind kind_databricks_sql;
extern const TaskKind kind_databricks_sql_file;
extern const TaskKind kind_redis_publish;
extern const TaskKind kind_fabric_item;
extern const TaskKind kind_webhook;
extern const TaskKind kind_storage;
extern const TaskKind kind_file_away;
extern const TaskKind kind_keyvault;

#endif							/* WEIR_KIND_H */
