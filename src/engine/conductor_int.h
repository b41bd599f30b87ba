/*-------------------------------------------------------------------------
 * conductor_int.h
 *	  What the files of the conductor share.  One Conductor per process: a
 *	  background worker, or a session in weir.conduct().
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CONDUCTOR_INT_H
#define WEIR_CONDUCTOR_INT_H

#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "utils/hsearch.h"

#include "access.h"
#include "catalog.h"
#include "engine.h"
#include "httpmux.h"
#include "kind.h"
#include "shmem.h"
#include "signin.h"

#define NEVER PG_INT64_MAX

/* How an attempt in POLL is asked for, see pollgroup.c */
typedef enum Polling
{
	POLLS_FREELY,				/* by itself, or a list */
	POLLS_NOT,					/* a list is being read */
	POLLS_FOR_ALL,				/* it reads a list for itself and others */
	POLLS_SINGLY				/* by itself, the next time */
} Polling;

/* on_uncertain of a task: what follows when nobody knows whether an engine began it */
typedef enum UncertainPolicy
{
	UNCERTAIN_FAIL,
	UNCERTAIN_ASK,
	UNCERTAIN_ASSUME_STARTED,
	UNCERTAIN_SEND_AGAIN
} UncertainPolicy;

/*
 * A running attempt, as the conductor sees it.  Everything that must survive
 * a crash is in weir.attempt; this is rebuilt from there.
 */
typedef struct Flight
{
	int64		task_run_id;	/* hash key */
	int			attempt_no;
	int64		run_id;
	Oid			owner;
	const TaskKind *kind;
	MemoryContext cxt;			/* owns everything below */
	int64		deadline_ms;	/* attempt or task timeout, epoch; NEVER for none */
	int64		task_deadline_ms;	/* the latter; NEVER for none */
	int64		asked_first_ms; /* when its time was over and nobody had looked; 0: never */
	int			ending;			/* SQL_CANCEL_*: being cancelled, and why */
	int64		ending_since_ms;
	char	   *pool;			/* whose slots it takes, or NULL */
	int			pool_slots;
	bool		counts_in_run;	/* towards max_concurrent_tasks of its pipeline */
	bool		runs_sql;		/* a SQL worker takes it */
	bool		terminated;		/* SQL: its worker was told to go */
	int			slot;			/* SQL: index of the worker slot, -1 not handed over yet */

	/* Waits for a condition in SQL only */
	bool		look_due;		/* as soon as there is a worker */
	bool		looking;		/* a worker looks, or is to: slot is used as for SQL */
	int64		looks;			/* so far, as committed */

	/* HTTP kinds only; spec, kind_state and due_ms also those that wait */
	Connection *connection;		/* NULL for none */
	Connection *other;			/* the second one, of kinds that have two */
	bool		via_other;		/* the exchange under way goes through it */
	char	   *place;			/* listening.c: where it listens, once that is known */
	int64		every_ms;
	bool		has_start_place;	/* startplace.c: the next two are known */
	char	   *start_place;	/* where it begins, or NULL */
	int64		start_lag_ms;
	bool		waits_for_place;	/* another attempt begins there */
	cJSON	   *spec;			/* rendered */
	cJSON	   *reference;
	char	   *token;
	char	   *external_run_id;
	cJSON	   *kind_state;
	cJSON	   *scratch;		/* HTTP kinds: not committed */
	MemoryContext answers_cxt;	/* HTTP kinds: in which answers are read; NULL before the first */
	Size		answers_limit;	/* when that has grown so far, it is tidied up */
	KindStep	step;
	int			step_tries;
	bool		after_crash;
	bool		starts_work;	/* the exchange under way may begin work */
	UncertainPolicy on_uncertain;
	bool		cancel_sent;
	bool		signin_wait;	/* for a token that is being fetched */
	int			signin_failures;
	int			proxy_refusals; /* in a row: the proxy wants other credentials */
	uint64		proxy_ticket;	/* of those it got last */
	uint64		signin_ticket[2];	/* of the credentials sent with the latest exchange; a second token where one is needed */
	int			start_failures; /* SQL: workers that never took it */
	int64		intended_at_ms;
	int64		started_ms;		/* for the polling pace */
	int64		due_ms;			/* next exchange; NEVER while one is under way */
	int64		turn_ms;		/* quota.c: when it may be sent; 0 not asked */
	struct Bucket *turn_of;		/* whose turn that is */
	int64		pause_ms;		/* that leads to it */
	int64		expected_ms;	/* it takes in all; 0 not looked up yet, POLL_UNKNOWN */
	int			together;		/* pollgroup.c: runs followed through its connection */
	int			unlisted;		/* lists in a row that did not have its run */
	bool		lists_do;		/* a list tells all there is to know, until the run ends */
	Polling		polling;
	HttpTransfer *transfer;
	KindVerdict *verdict;		/* to be written in the next transaction */
	MemoryContext verdict_cxt;
	int			http_status;	/* of the response behind the verdict */
	char	   *trouble;		/* why the latest answer was of no use; NULL: it was not */
	int64		retry_after_ms;
} Flight;

typedef struct Conductor
{
	bool		in_session;		/* weir.conduct(): no workers, SQL runs here */
	MemoryContext cxt;
	MemoryContext scratch;		/* reset every cycle */
	HttpMux    *mux;
	SignIn	   *signin;
	HTAB	   *flights;
	List	   *connections;	/* read in this cycle; in scratch */
	uint32		wake;			/* ENGINE_WAKE_* not looked at yet */
	bool		repairs_wait;	/* for other runs to end, or somebody held them */
	bool		has_verdicts;
	bool		did_work;		/* in this cycle's transaction */
	int64		defer_until_ms; /* somebody held a lock: look again then; NEVER */
	uint32		put_off;		/* ENGINE_WAKE_* bits to look with then, beside ENGINE_WAKE_LOOK */
	int64		run_deadline_ms;	/* no run timeout, or task timeout of a retry that waits, is earlier */
	bool		deadline_is_exact;	/* as of the latest cycle that did something */
	int64		worker_retry_ms;	/* no SQL worker could be started: try again then */
	int64		upkeep_due_ms;	/* next slice or sweep of the run log */
	int64		upkeep_slice_ms;	/* the latest slice */
	int64		upkeep_worked_ms;	/* the latest other work */
	int64		upkeep_swept_ms;	/* end of the latest sweep; 0 none yet */
	MemoryContext upkeep_cxt;	/* of the sweep under way */
	struct Sweep *sweep;		/* NULL: none */
	int64		worker_start_ms;	/* so many failed that none is tried before then */
	int			worker_failures;	/* in a row */
	int64		limit_due_ms;	/* a connection may be used again then */
	struct ReadySet *ready;		/* ready.c */
	struct Queues *queues;		/* queues.c */
	HTAB	   *breakers;		/* breaker.c; NULL before the first exchange */
	HTAB	   *quotas;			/* quota.c, of connections; likewise */
	HTAB	   *limit_groups;	/* the buckets they have */
	int64		quotas_since_ms;	/* what was sent before then is not known */
	bool		quota_gaps;		/* some wait for a turn longer than they have to */
	HTAB	   *pollgroups;		/* pollgroup.c; NULL before the first POLL */
	bool		places_awaited; /* startplace.c: some wait to begin */
	struct Expectations *expectations;	/* expectation.c; NULL before the first POLL */
	int64		starts;			/* so many, to tell who was served last */
	int64		clock_offset_ms;	/* of the wall clock to one that nobody sets */
	BackgroundWorkerHandle *handles[WEIR_MAX_SQL_SLOTS];
	WeirScope	scope;
} Conductor;

/* clock.c */
extern int64 now_ms(void);		/* epoch, wall clock */
extern void clock_start(Conductor *c);
extern void clock_follow(Conductor *c); /* opens a transaction if the clock was set */

/* conductor.c: transactions of the loop */
extern void conductor_begin(Conductor *c);
extern void conductor_commit(Conductor *c);
extern void conductor_commit_soon(Conductor *c);	/* does not wait for the disk, unless ForceSyncCommit() was called */
extern Conductor *conductor_create(bool in_session);
extern void conductor_destroy(Conductor *c);
extern void conductor_recover(Conductor *c);
extern void conductor_cycle(Conductor *c);
#define CONDUCTOR_DEFER_MS	200
/* Somebody holds what is needed: look again soon, at what was put off. */
extern void conductor_defer(Conductor *c);
extern int64 conductor_next_due(Conductor *c);
extern bool conductor_is_idle(Conductor *c);

/* intake.c: inside a transaction */
extern void intake_requests(Conductor *c);	/* of clients, but for repairs */
extern bool intake_has_pipeline(int64 run_id);	/* if not it is final, and requests for it mean nothing any more */
extern void intake_runs(Conductor *c, bool all);	/* of the queues that were noted, or all */
/* Decide and start one that is queued; its pipeline's state is locked.  besides: whatever else of the pipeline goes on */
extern void intake_start_run(int64 run_id, bool besides);
extern void intake_deadlines(Conductor *c); /* timeouts of runs, and of tasks while a retry waits */
extern void intake_cancel_run(Conductor *c, int64 run_id, const char *reason, int why); /* run locked */

/* upkeep.c: the run log is kept small; never in a session */
extern void upkeep_start(Conductor *c);
extern void upkeep_soon(Conductor *c);
extern uint32 upkeep_take_bits(Conductor *c, uint32 wake);	/* returns those for others */
extern void upkeep_slice(Conductor *c); /* outside; has a transaction of its own */

/* overlap.c: queued runs that are skipped or replace older ones */
extern void overlap_take_in(Conductor *c, bool all, Datum pipelines);	/* all, or those of the array */

/* rerun.c: a repair asked for; the run is locked */
/* Repairs that were asked for, as far as there are places for their runs; says in c whether any are left. */
extern void rerun_take_in(Conductor *c);
/* Those of the run that are older than this request: they are not wanted any more. */
extern void rerun_withdraw(int64 run_id, int64 request_id);

/* dispatch.c: inside a transaction */
extern bool dispatch_ready(Conductor *c);	/* true: it wrote nothing but intents */
extern void dispatch_recover(Conductor *c);
extern const Connection *dispatch_connection(Conductor *c, const char *name);

/* ready.c: the task runs that are ready; inside a transaction where it reads the table */
extern void ready_start(Conductor *c);
extern void ready_take_in(Conductor *c, bool all);	/* what the notes say; all: read everything anew */
extern void ready_again(Conductor *c, int64 task_run_id);	/* with the next ready_take_in() */
extern void ready_end_pauses(Conductor *c);
extern int64 ready_next_due(Conductor *c);	/* end of a pause after a failure; NEVER */
extern int64 ready_pop_noop(Conductor *c, int64 *run_id);	/* 0: none */
extern void ready_forget_run(Conductor *c, int64 run_id);
extern void ready_read_runs(Conductor *c, const List *runs);	/* anew; pointers to their ids, in order */

/* queues.c: the pipelines whose queue may move */
extern void queues_start(Conductor *c);
extern void queues_note(Conductor *c, int64 pipeline_id);
extern void queues_heed(Conductor *c, const WeirNote *note);	/* of a pipeline */
extern void queues_forget(Conductor *c);
/*
 * Arrays of what is known of them: their ids, and of each the first run that
 * may go on; as texts of arrays all that may go on, empty when they are many;
 * the priorities with which runs are queued, and below which run id none is.
 */
typedef struct NotedQueues
{
	Datum		pipelines;
	Datum		first_going_on;
	Datum		going_on;
	Datum		priorities;
	Datum		floors;
} NotedQueues;

extern int	queues_noted(Conductor *c, NotedQueues *noted); /* how many; inside a transaction */
extern void queues_forget_known(Conductor *c);	/* notes were lost, or pipelines dropped */

/* lanes.c: ids of the task runs that start now, inside a transaction */
typedef struct LaneChoice
{
	int64		task_run_id;
	int64		run_id;
	struct ReadyTurn *turn;		/* that it took */
} LaneChoice;

extern LaneChoice *lanes_choose(Conductor *c, int *n_chosen);	/* in the current context; they are taken out of what is ready */
extern void lanes_not_started(Conductor *c, LaneChoice *choices, int n);	/* of these some have no flight: they were not ready any more */

/* flight.c */
extern Flight *flight_create(Conductor *c, int64 task_run_id, int attempt_no);
extern Flight *flight_find(Conductor *c, int64 task_run_id);
/* What a kind sees of the flight; points into it. */
extern void flight_fill_call(const Flight *flight, KindCall *call);
extern void flight_remove(Conductor *c, Flight *flight);
extern void flights_transfers(Conductor *c);	/* finished exchanges -> verdicts */
extern void flight_decide(Conductor *c, Flight *flight);	/* a verdict of an inline kind */
extern void flight_verdict(Conductor *c, Flight *flight, KindOutcome outcome, const char *code,
						   const char *message, bool is_user_error, bool is_retryable);
/* The spec does not do: a user error unless the problem says otherwise, never tried again */
extern void flight_refuse(Conductor *c, Flight *flight, const KindProblem *problem);
extern void flight_forget_token(Conductor *c, Flight *flight);	/* what it signed in with last was refused */
/* The checks of definition once more, on what references became; false: there is a verdict */
extern bool flight_check_spec(Conductor *c, Flight *flight);
/* output is copied; NULL for none */
extern void flight_succeed(Conductor *c, Flight *flight, const cJSON *output);
extern MemoryContext flight_fresh_verdict(Flight *flight);	/* for a verdict of the conductor's own, and its memory */
extern void flight_verdict_made(Conductor *c, Flight *flight);	/* that is not of an answer: it ends the attempt, or must be written */
extern void flight_drop_verdict(Flight *flight);
/* delay_ms -1: the polling pace */
extern void flight_go_to_step(Flight *flight, KindStep step, int64 delay_ms, bool reset_tries);
/* A verdict of the kind's deliver() */
extern void flight_deliver(Conductor *c, Flight *flight, const cJSON *callback);
extern void flights_act(Conductor *c);	/* outside; opens a short one if needed */

/* breaker.c: connections that ask for patience, or are down */
extern bool breaker_allows(Conductor *c, Flight *flight);	/* else its due_ms says when to ask again */
extern void breaker_note(Conductor *c, Flight *flight, const KindResponse *response);
extern void breakers_write(Conductor *c);	/* inside a transaction */
extern void breakers_resume(Conductor *c);	/* inside a transaction, when a client may have asked for it */
extern void breakers_reset(void);	/* inside a transaction */
extern void breakers_clock_set(Conductor *c, int64 by);

/* quota.c: so many requests a second */
extern bool quota_allows(Conductor *c, Flight *flight, const Connection *through, const KindRequest *request);	/* else due_ms is its turn */
extern void quota_give_back(Conductor *c, Flight *flight);	/* it ends: its turn, if it has one, is for those behind it */
extern void quotas_line_up(Conductor *c);	/* those that wait, after that */
extern void quotas_write(Conductor *c); /* inside a transaction */
extern void quotas_start(Conductor *c); /* inside a transaction */
extern void quotas_forget(Conductor *c);	/* connections that are not there any more; inside a transaction */
extern void quotas_clock_set(Conductor *c, int64 by);
/* pollgroup.c: attempts whose runs are listed together */
extern bool pollgroup_holds(Conductor *c, Flight *flight, int64 now);	/* is due, but not to be asked for now; due_ms was moved */
/* The request for a page of a list, if it is this attempt that asks for it */
extern bool pollgroup_request(Conductor *c, Flight *flight, const KindCall *call, KindRequest *request);
extern void pollgroup_response(Conductor *c, Flight *flight, const KindResponse *response);	/* of that */
extern int64 pollgroup_pause_ms(const Flight *flight, int64 now);	/* until the next POLL */
extern void pollgroups_clock_set(Conductor *c, int64 by);

/* expectation.c: how long runs that are followed take; inside a transaction */
extern void expectations_read(Conductor *c);

/* listening.c: attempts that wait at a place they share */
extern void listening_share(Conductor *c, Flight *flight);
extern void listening_fill(Conductor *c, Flight *flight, KindCall *call, Flight ***flights);
extern void listening_deliver(Conductor *c, KindVerdict *verdict, Flight *const *flights, int n);
extern void listening_once(Flight *flight, const KindVerdict *verdict);	/* inside a transaction */

/* startplace.c: attempts whose runs could be taken for each other's begin one after the other */
extern bool start_place_allows(Conductor *c, Flight *flight);	/* else it is due when its turn has come */
extern void start_places_hand_on(Conductor *c);
/* Fill in call->taken and call->n_unknown, in the current context; outside of transactions, opens one if needed */
extern void start_place_fill(Conductor *c, Flight *flight, KindCall *call);

/* uncertain.c: nobody knows whether the engine began an attempt */
extern UncertainPolicy uncertain_policy(const char *word);	/* of on_uncertain; NULL: fail */
extern void uncertain_consider(Flight *flight); /* its verdict is new */
extern bool uncertain_waits(const Flight *flight);	/* until somebody says what happened */
extern void uncertain_conclude(Conductor *c, Flight *flight);	/* if somebody has */
extern void uncertain_ask_first(Flight *flight);	/* found after a crash */
extern bool uncertain_ask_late(Conductor *c, Flight *flight, int64 moment_ms);
extern bool uncertain_ask_run(Conductor *c, int64 run_id, int64 moment_ms);
extern void uncertain_end(Conductor *c, Flight *flight);
extern bool uncertain_request(Conductor *c, int64 request_id, const char *action);	/* false: not its action */

/* trouble.c: what went wrong last with its exchanges */
extern void trouble_note(Flight *flight);	/* its verdict is a new one of the kind's */
extern void trouble_say(Flight *flight, const char *trouble);	/* no answer of its own: signing in */
extern const char *trouble_add(const Flight *flight, const char *message);

/* flightend.c */
extern void flight_end(Conductor *c, Flight *flight, int why);	/* cancel it: SQL_CANCEL_* */
extern void flights_end_run(Conductor *c, int64 run_id, int why);
extern bool flight_can_cancel(const Flight *flight);
/* May the work of this attempt be going on in the engine, so that no other attempt may follow? */
extern bool flight_may_go_on(const Flight *flight);
extern bool flight_turn_to_cancel(Conductor *c, Flight *flight);	/* its verdict goes on; false: no more */
extern void flight_give_up_cancel(Conductor *c, Flight *flight);	/* the engine did not confirm it in time */

/* flightwrite.c: verdicts into the log, inside a transaction */
extern void flights_write(Conductor *c);

/* waiting.c: attempts that wait for something in the database */
extern void waiting_intend(Conductor *c, Flight *flight);	/* inside a transaction, then: */
extern void waiting_write(Flight *const *flights, int n);
extern void waiting_recover(Conductor *c, Flight *flight);
extern void waiting_due(Conductor *c, int64 now);	/* outside of transactions */
extern void waiting_looked(Conductor *c, Flight *flight);	/* inside; may remove the flight */
extern void waiting_end(Conductor *c, Flight *flight);
extern void waiting_clock_set(Flight *flight, int64 by);
extern bool waiting_is_open(const Flight *flight);	/* only somebody else can end it */
extern bool waiting_request(Conductor *c, int64 request_id, const char *action);	/* false: not one of its actions */

/* subrun.c: attempts that wait for a run of another pipeline, inside a transaction */
extern void subrun_start(Conductor *c, Flight *flight);
extern void subrun_recover(Conductor *c, Flight *flight);
extern void subrun_take_in(Conductor *c);

/* sqlpool.c */
extern bool sqlpool_holds_any(Conductor *c);	/* has a worker a task of ours? */
extern int	sqlpool_free(Conductor *c); /* how many SQL tasks could start now */
extern void sqlpool_hand_over(Conductor *c);	/* flights without a slot get one */
extern void sqlpool_check(Conductor *c);	/* inside a transaction: outcomes of vanished workers */
extern void sqlpool_cancel(Flight *flight);
extern void sqlpool_terminate_overdue(Conductor *c, int64 now);
extern void sqlpool_run_here(Conductor *c); /* weir.conduct(): run them in this session */

#endif							/* WEIR_CONDUCTOR_INT_H */
