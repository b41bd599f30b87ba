/*-------------------------------------------------------------------------
 * dispatch.pml
 *	  A model of how weir starts work and learns what came of it
 *
 * One run of one pipeline: a task (SQL, or in an engine) and a noop after it.
 * Around it: a client that commits or rolls back, a session that holds the
 * pipeline's state, crashes of everything and of one process, requests and
 * answers that get lost or come late.  Checked by test/model/run.
 *
 *	  -DKIND=TOKEN	the engine knows a repeated START by its token	(databricks_job.c)
 *	  -DKIND=CORR	it does not; runs are searched by the token	(adf_pipeline.c)
 *	  -DKIND=SQL	a SQL worker runs the task					(sqlworker.c)
 *	  -DKIND=BLIND	it offers neither: a plain POST				(http.c, uncertain.c)
 *	  -DPOLICY=...	on_uncertain of a BLIND task: FAIL, ASK, ASSUME, AGAIN
 *
 * Every atomic block is one transaction, or one step of a process that no
 * other process can see the inside of.  What a mutation (-DNAME, see
 * test/model/run) changes is marked #ifdef.  Times are left out: whatever is
 * due may happen at any moment, whatever has a limit may reach it.
 *
 * A commit that does not wait for the disk (only that of a SQL task's intent)
 * may be undone by a crash: f_ is what the last one that waited has brought
 * there, and what a crash may return to.
 *
 * Names: d_ committed tables; f_ what of them is on disk; s_ shared memory; c[].  memory of a conductor;
 * w_ a SQL worker; e_ the world outside.
 *-------------------------------------------------------------------------
 */
#define TOKEN	1
#define CORR	2
#define SQL		3
#define BLIND	4
#ifndef KIND
#define KIND	TOKEN
#endif
#define HTTP	(KIND != SQL)

#define FAIL	1
#define ASK		2
#define ASSUME	3
#define AGAIN	4
#ifndef POLICY
#define POLICY	FAIL
#endif

/* How much may go wrong; progress is due when all of it has. */
#ifndef CRASHES
#define CRASHES	1				/* of everything, of the conductor, of the worker */
#endif
#ifndef FAULTS
#define FAULTS	1				/* answers lost, requests late or refused */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1				/* of an attempt */
#endif
#ifndef LOCKS
#define LOCKS	1				/* times somebody else holds weir.pipeline_state */
#endif
#ifndef CONDUCTORS
#define CONDUCTORS 1			/* processes that want to conduct */
#endif

#define MAX_ATTEMPTS	2		/* of the task's retry policy */
#define MAX_STARTS		1		/* KIND_MAX_STARTS */
#define NUMBERS			6		/* attempt numbers: lost attempts do not count as tries */

/* weir.run */
#define R_NONE			0
#define R_QUEUED		1
#define R_RUNNING		2
#define R_CANCELLING	3
#define R_SUCCEEDED		4
#define R_FAILED		5
#define R_CANCELLED		6
/* weir.task_run */
#define T_NONE			0
#define T_WAITING		1
#define T_READY			2
#define T_RUNNING		3
#define T_SUCCEEDED		4
#define T_FAILED		5
#define T_CANCELLED		6
#define T_BLOCKED		7
/* weir.attempt */
#define A_NONE			0
#define A_INTENDED		1
#define A_STARTED		2
#define A_SUCCEEDED		3
#define A_FAILED		4
#define A_TIMED_OUT		5
#define A_CANCELLED		6
#define A_LOST			7

byte d_run;
byte d_task;					/* the task */
byte d_next;					/* the noop that depends on it */
bool d_request;					/* weir.request: cancel */
byte d_no;						/* task_run.attempt_no */
byte d_budget_from;
byte d_attempt[NUMBERS];
bool d_external;				/* attempt.external_run_id of attempt d_no */
bool d_settle_from;				/* its kind_state */
bool d_settled;
byte d_starts;
bool d_uncertain;				/* it waits for somebody to decide */
byte d_resolution;				/* what was decided, and not yet followed */
byte d_decision;				/* weir.request: resolve */
#define SAY_NOTHING	0
#define SAY_OK		1
#define SAY_FAILED	2
#define SAY_AGAIN	3
#if KIND == SQL || defined(INTENT_SOON)
#define SOFT
byte f_run;						/* as on disk */
byte f_task;
byte f_next;
byte f_no;
byte f_budget_from;
byte f_attempt[NUMBERS];
byte f_outcomes[NUMBERS];
byte f_effects;
bool f_request;
#endif

/* Shared memory */
bool s_wake;
byte s_state;					/* the slot of the SQL worker */
#define S_FREE	0
#define S_GIVEN	1				/* starting or assigned */
#define S_BUSY	2
byte s_no;						/* attempt it holds */
byte s_cancel;					/* cancel_requested */

/* Flights: steps, transfers, verdicts */
#define START	0
#define LOOKUP	1
#define POLL	2
#define CANCEL	3

#define X_NONE		0
#define X_SENT		1
#define X_LOST		2			/* no answer, the request may have arrived */
#define X_REFUSED	3			/* 429, or no connection */
#define X_ID		4			/* START, LOOKUP: here is the run */
#define X_ABSENT	5			/* LOOKUP: there is none */
#define X_GOING		6			/* POLL */
#define X_OK		7
#define X_BAD		8
#define X_STOPPED	9

#define V_NONE		0
#define V_GO_ON		1
#define V_OK		2
#define V_BAD		3			/* failed, may be tried again */
#define V_STOPPED	4			/* the engine's run was cancelled */
#define V_NOTHING	5			/* cancelled before it started */
#define V_UNKNOWN	6			/* cancel not confirmed, or nobody knows whether it began */
#define V_SAID_OK	7			/* somebody says so, or the policy */
#define V_SAID_BAD	8

#define END_NONE	0
#define END_ASKED	1
#define END_TIMEOUT	2

#define NO_SLOT		0
#define HAS_SLOT	1
#define ANY_SLOT	2			/* WEIR_MAX_SQL_SLOTS: after a restart, not known yet */

#define AT_REST		0			/* where a conductor is in its cycle */
#define IN_CYCLE	1			/* SQL: slots were read, tables not yet */
#define UNCOMMITTED	2			/* mutation ACT_BEFORE_COMMIT */
#define HALF_DONE	3			/* mutation SPLIT_OUTCOME */

typedef Conductor
{
	bool up;
	byte at;
	bool wake;					/* wake */
	bool has_verdicts;
	bool defer;					/* defer_until_ms */
	bool held;					/* SQL: what the slots said */
	byte seen;					/* mutation TABLE_FIRST: what the table said */
	/* the flight */
	bool flight;
	byte no;
	byte step;
	bool maybe;					/* a START may have arrived whose answer nobody read */
	bool external;
	byte ending;
	bool cancel_sent;
	byte transfer;
	byte verdict;
	byte next;					/* step, with V_GO_ON */
	byte slot;
	bool settle_from;			/* kind_state, as in memory */
	bool settled;
	byte starts;
	bool uncertain;
	byte resolution;
};
Conductor c[CONDUCTORS];
bool conductor_lock;

/* The SQL worker */
byte w_at;
#define W_IDLE		0
#define W_TAKING	1
#define W_RUNNING	2
#define W_DONE		3			/* outcome committed, slot not yet given back */
#define W_APART		4			/* mutation OUTCOME_APART */

/* The world */
byte e_runs[NUMBERS];			/* external runs started for an attempt */
byte e_late[NUMBERS];			/* STARTs under way that nobody waits for any more */
byte e_state[NUMBERS];			/* of the run */
#define E_NONE		0
#define E_GOING		1
#define E_OK		2
#define E_BAD		3
#define E_STOPPED	4
bool e_visible[NUMBERS];		/* to a search */
bool e_settle_over;				/* settle_seconds have passed since settle_from */
byte e_effects;					/* SQL: times the task's statement took effect */
byte outcomes[NUMBERS];			/* outcomes written for an attempt */
byte e_again[NUMBERS];			/* times its policy had it sent again */
bool asked_in_vain;				/* an attempt that somebody is to decide ended without */
bool misheard;					/* ... or not as it was decided */
byte said;						/* the last word on attempt d_no */
bool seen_end;					/* somebody saw the run ended */
bool d_changed;					/* this transaction did more than to intend */
#ifdef INTENT_SOON
bool d_intends;
#endif
bool sent;						/* anything was ever sent, or handed to a worker */

byte crashes = CRASHES;
byte faults = FAULTS;
byte timeouts = TIMEOUTS;
byte locks = LOCKS;
bool locked;					/* somebody else holds the pipeline's state */
bool triggered;					/* the client committed */
bool rolled_back;
bool cancel_wanted;				/* weir.cancel() was committed */

#define is_final(status)	(status >= R_SUCCEEDED)
#define has_ended(status)	(status >= T_SUCCEEDED)
#define is_open(no)			(d_attempt[no] == A_INTENDED || d_attempt[no] == A_STARTED)
/* Of the attempt nothing runs, and nothing will. */
#define is_over(no)			(e_state[no] != E_GOING && (e_late[no] == 0 || (KIND == TOKEN && e_runs[no] > 0)))

/* ---- commits ---- */

/* One that waits for the disk: all that was committed before is there as well. */
inline flush()
{
#ifdef SOFT
	f_run = d_run; f_task = d_task; f_next = d_next; f_no = d_no; f_budget_from = d_budget_from; f_request = d_request;
	f_attempt[1] = d_attempt[1]; f_attempt[2] = d_attempt[2]; f_attempt[3] = d_attempt[3];
	f_attempt[4] = d_attempt[4]; f_attempt[5] = d_attempt[5];
	f_outcomes[1] = outcomes[1]; f_outcomes[2] = outcomes[2]; f_outcomes[3] = outcomes[3];
	f_effects = e_effects
#else
	skip
#endif
}

/* A crash: what did not wait for the disk may be gone. */
inline lose_what_is_not_on_disk()
{
#ifdef SOFT
	if
	:: d_run = f_run; d_task = f_task; d_next = f_next; d_no = f_no; d_budget_from = f_budget_from; d_request = f_request;
		d_attempt[1] = f_attempt[1]; d_attempt[2] = f_attempt[2]; d_attempt[3] = f_attempt[3];
		d_attempt[4] = f_attempt[4]; d_attempt[5] = f_attempt[5];
		outcomes[1] = f_outcomes[1]; outcomes[2] = f_outcomes[2]; outcomes[3] = f_outcomes[3];
		e_effects = f_effects
	:: skip
	fi;
	/* What is read after it is on disk, or will be when the next is. */
	flush()
#else
	skip
#endif
}

/* ---- outcome.c, advance.c ---- */

/* advance_finish_run */
inline finish_run()
{
	if
	:: (d_run == R_RUNNING || d_run == R_CANCELLING) && has_ended(d_task) && has_ended(d_next) ->
		if
		:: d_task == T_SUCCEEDED && d_next == T_SUCCEEDED -> d_run = R_SUCCEEDED
		:: else -> d_run = (d_run == R_CANCELLING || d_task == T_CANCELLED -> R_CANCELLED : R_FAILED)
		fi
	:: else
	fi
}

/* advance_succeeded, advance_failed */
inline advance()
{
	if
	:: d_next == T_WAITING -> d_next = (d_task == T_SUCCEEDED -> T_READY : T_BLOCKED)
	:: else
	fi;
	finish_run()
}

/* The attempt's row is the judge of "once" (read_budget). */
#ifdef NO_JUDGE
#define may_be_written(no)	(d_no == no)
#else
#define may_be_written(no)	(is_open(no) && d_no == no && d_task == T_RUNNING)
#endif

/* outcome_apply: one transaction with all that follows */
inline outcome_apply(attempt, status, retryable)
{
	if
	:: may_be_written(attempt) ->
		d_attempt[attempt] = status; d_changed = 1;
		outcomes[attempt]++;
		if
		:: d_run == R_RUNNING && status == A_LOST ->
			d_task = T_READY; d_budget_from++
		:: d_run == R_RUNNING && (status == A_FAILED || status == A_TIMED_OUT) &&
				retryable && d_no - d_budget_from < MAX_ATTEMPTS ->
			d_task = T_READY
		:: else ->
			d_task = (status == A_SUCCEEDED -> T_SUCCEEDED :
				(status == A_CANCELLED || status == A_LOST -> T_CANCELLED : T_FAILED));
#ifndef SPLIT_OUTCOME
			advance()
#endif
		fi;
		d_external = 0; d_settle_from = 0; d_settled = 0; d_starts = 0;
		d_uncertain = 0; d_resolution = SAY_NOTHING; said = SAY_NOTHING
	:: else
	fi
}

/* ---- flight.c ---- */

inline flight_remove(k)
{
	/* httpmux_abort: what was sent is under way */
	if
	:: HTTP && c[k].transfer == X_SENT && c[k].step == START -> e_late[c[k].no]++
	:: else
	fi;
	c[k].flight = 0; c[k].no = 0; c[k].step = 0; c[k].maybe = 0; c[k].external = 0;
	c[k].ending = 0; c[k].cancel_sent = 0; c[k].transfer = 0; c[k].verdict = 0; c[k].next = 0;
	c[k].slot = 0; c[k].settle_from = 0; c[k].settled = 0; c[k].starts = 0;
	c[k].uncertain = 0; c[k].resolution = 0
}

inline give_verdict(k, what)
{
	c[k].verdict = what; c[k].has_verdicts = 1
}

/* sqlpool_cancel: mark the slot and interrupt the worker */
inline sqlpool_cancel(k)
{
	if
	:: c[k].slot == HAS_SLOT && s_state != S_FREE && s_no == c[k].no -> s_cancel = c[k].ending
	:: else
	fi
}

/* flight_end */
inline flight_end(k, why)
{
	if
	:: c[k].flight && c[k].ending == END_NONE ->
		c[k].ending = why;
		if
		:: c[k].verdict != V_NONE -> skip
		:: c[k].verdict == V_NONE && !HTTP ->
			if
			:: c[k].slot == NO_SLOT -> give_verdict(k, V_NOTHING)
#ifdef CONDUCTOR_DECIDES
			:: else -> give_verdict(k, V_STOPPED)
#else
			:: else -> sqlpool_cancel(k)
#endif
			fi
		:: else ->
			if
			:: c[k].uncertain -> c[k].uncertain = 0; give_verdict(k, V_UNKNOWN)	/* uncertain_end */
			:: !c[k].uncertain && c[k].transfer != X_NONE -> skip		/* its verdict will see to it */
			:: !c[k].uncertain && c[k].transfer == X_NONE && c[k].external ->
				c[k].cancel_sent = 1; c[k].step = CANCEL
			:: !c[k].uncertain && c[k].transfer == X_NONE && !c[k].external && c[k].step == START && !c[k].maybe ->
				give_verdict(k, V_NOTHING)
			:: else -> skip							/* looked up, or asked again, first */
			fi
		fi
	:: else
	fi
}

/* A START whose answer nobody read: "nothing started" would be a guess */
#ifdef CANCEL_BLIND
#define may_have_started(k)	false
#else
#define may_have_started(k)	c[k].maybe
#endif

/* follow_verdict: on to step; must_write says whether the log has to know first */
inline follow(k, step_, must_write)
{
	c[k].next = step_;
	if
	:: c[k].ending != END_NONE && !c[k].cancel_sent && c[k].external ->
		c[k].next = CANCEL; c[k].cancel_sent = 1
	:: else
	fi;
	if
	:: c[k].ending != END_NONE && !c[k].external && c[k].next == START && !may_have_started(k) -> give_verdict(k, V_NOTHING)
	:: else ->
		if
		:: must_write -> give_verdict(k, V_GO_ON)
		:: else -> c[k].step = c[k].next
		fi
	fi
}

/* not_found of adf_pipeline.c */
inline not_found(k)
{
	if
	:: !c[k].settle_from -> c[k].settle_from = 1; e_settle_over = 0; follow(k, LOOKUP, 1)
#ifdef SPAN_SHORTCUT
	/* settle_from = start_due, long ago: but START may have been sent long after it was due */
	:: !c[k].settle_from -> c[k].settle_from = 1; e_settle_over = 1; c[k].settled = 1; follow(k, LOOKUP, 1)
#endif
	:: c[k].settle_from && !c[k].settled && !e_settle_over -> follow(k, LOOKUP, 0)
	:: c[k].settle_from && !c[k].settled && e_settle_over -> c[k].settled = 1; follow(k, LOOKUP, 1)
	:: else ->
		c[k].settle_from = 0; c[k].settled = 0; c[k].maybe = 0;
		if
		:: c[k].starts >= MAX_STARTS -> give_verdict(k, V_BAD)
		:: else -> c[k].starts++; follow(k, START, 1)
		fi
	fi
}

/* ---- uncertain.c ---- */

/* uncertain_consider: nobody knows, and there is no run to look for */
inline consider(k)
{
	c[k].maybe = 0;
	if
	:: c[k].ending != END_NONE -> give_verdict(k, V_UNKNOWN)
	:: c[k].ending == END_NONE ->
#if POLICY == ASK && !defined(NOT_ASKED)
		c[k].uncertain = 1; follow(k, START, 1)
#elif POLICY == ASSUME
		give_verdict(k, V_SAID_OK)
#elif POLICY == AGAIN
		if
		:: c[k].starts < MAX_STARTS -> c[k].starts++; e_again[c[k].no]++; follow(k, START, 1)
		:: else -> give_verdict(k, V_UNKNOWN)
		fi
#elif defined(NOT_ASKED)
		follow(k, START, 1)
#else
		give_verdict(k, V_UNKNOWN)
#endif
	fi
}

/* uncertain_conclude */
inline conclude(k)
{
	if
	:: c[k].flight && c[k].resolution != SAY_NOTHING && c[k].verdict == V_NONE && c[k].ending == END_NONE ->
		if
		:: c[k].resolution == SAY_OK -> give_verdict(k, V_SAID_OK)
		:: c[k].resolution == SAY_FAILED -> give_verdict(k, V_SAID_BAD)
		:: else -> c[k].maybe = 0; follow(k, START, 1)
		fi;
		c[k].uncertain = 0;
#ifdef RESOLUTION_KEPT
		skip
#else
		c[k].resolution = SAY_NOTHING
#endif
	:: else
	fi
}

/* uncertain_request: into the log, with the request's end */
inline take_decision(k)
{
	if
	:: d_decision != SAY_NOTHING ->
		if
		:: d_uncertain && d_resolution == SAY_NOTHING && is_open(d_no) && c[k].flight && c[k].no == d_no ->
			said = d_decision;
#ifndef DECISION_IN_MEMORY
			d_resolution = d_decision;
#endif
			c[k].resolution = d_decision;
			conclude(k)
		:: else
		fi;
		d_decision = SAY_NOTHING
	:: else
	fi
}

/* read_response, and the response functions of the kinds */
inline read_response(k)
{
	if
	:: c[k].transfer == X_ID ->
		assert(e_runs[c[k].no] > 0);		/* OWN_RUN: what it follows was started for this attempt */
		c[k].external = 1; c[k].maybe = 0; c[k].settle_from = 0; c[k].settled = 0;
		follow(k, POLL, 1)
	:: c[k].transfer == X_LOST && c[k].step == START && KIND == BLIND -> consider(k)
	:: c[k].transfer == X_LOST && c[k].step == START && KIND == TOKEN ->
		c[k].maybe = 1; follow(k, START, 1)
	:: c[k].transfer == X_LOST && c[k].step == START && KIND == CORR ->
		c[k].maybe = 1;
#ifdef SEND_AGAIN
		follow(k, START, 1)
#else
		c[k].settle_from = 1; e_settle_over = 0; follow(k, LOOKUP, 1)
#endif
	:: c[k].transfer == X_ABSENT -> not_found(k)
	:: c[k].transfer == X_OK -> give_verdict(k, V_OK)
	:: c[k].transfer == X_BAD -> give_verdict(k, V_BAD)
	:: c[k].transfer == X_STOPPED -> give_verdict(k, V_STOPPED)
	:: c[k].transfer == X_GOING -> follow(k, POLL, 0)
	:: else -> follow(k, c[k].step, 0)				/* the same step again */
	fi;
	c[k].transfer = X_NONE
}

/* fill_outcome and outcome_apply */
inline write_outcome(k)
{
	/* OVER: what is reported as ended has */
	assert(c[k].verdict == V_UNKNOWN || c[k].verdict == V_SAID_OK || c[k].verdict == V_SAID_BAD || !HTTP || e_again[c[k].no] > 0 || is_over(c[k].no));	/* OVER */
#if KIND == BLIND && POLICY == ASK
	if
	:: c[k].ending == END_NONE && c[k].verdict == V_UNKNOWN -> asked_in_vain = 1
	:: c[k].ending == END_NONE && said != SAY_NOTHING && is_open(c[k].no) &&
			((said == SAY_OK) != (c[k].verdict == V_SAID_OK) || (said == SAY_FAILED) != (c[k].verdict == V_SAID_BAD)) ->
		misheard = (said != SAY_AGAIN)
	:: else
	fi;
#endif
	if
	:: c[k].verdict == V_OK || c[k].verdict == V_SAID_OK -> outcome_apply(c[k].no, A_SUCCEEDED, 0)
	:: c[k].verdict != V_OK && c[k].verdict != V_SAID_OK && c[k].ending == END_TIMEOUT ->
#ifdef RETRY_UNKNOWN
		outcome_apply(c[k].no, A_TIMED_OUT, 1)
#else
		outcome_apply(c[k].no, A_TIMED_OUT, (c[k].verdict != V_UNKNOWN))
#endif
	:: c[k].verdict != V_OK && c[k].verdict != V_SAID_OK && c[k].ending != END_TIMEOUT &&
			(c[k].ending == END_ASKED || c[k].verdict == V_STOPPED || c[k].verdict == V_NOTHING || (KIND != BLIND && c[k].verdict == V_UNKNOWN)) ->
		outcome_apply(c[k].no, A_CANCELLED, 0)
	/* What may be going on is not tried again, nor what somebody called a failure. */
#ifdef RETRY_UNKNOWN
	:: else -> outcome_apply(c[k].no, A_FAILED, 1)
#else
	:: else -> outcome_apply(c[k].no, A_FAILED, (c[k].verdict == V_BAD))
#endif
	fi
}

/* flights_write */
inline flights_write(k)
{
	if
	:: c[k].has_verdicts ->
		c[k].has_verdicts = 0;
		if
		:: c[k].flight && c[k].verdict == V_GO_ON ->
			/* write_progress */
			if
			:: is_open(c[k].no) && d_no == c[k].no ->
				d_external = c[k].external; d_settle_from = c[k].settle_from;
				d_settled = c[k].settled; d_starts = c[k].starts;
				d_uncertain = c[k].uncertain; d_resolution = c[k].resolution; d_changed = 1;
				if
				:: said == SAY_AGAIN && !c[k].uncertain -> said = SAY_NOTHING
				:: else
				fi;
				if
				:: c[k].external -> d_attempt[c[k].no] = A_STARTED
				:: else
				fi
			:: else
			fi;
			c[k].step = c[k].next; c[k].verdict = V_NONE
		:: c[k].flight && c[k].verdict != V_NONE && c[k].verdict != V_GO_ON && locked ->
			c[k].defer = 1							/* outcome_lock_run did not get it */
		:: c[k].flight && c[k].verdict != V_NONE && c[k].verdict != V_GO_ON && !locked ->
			write_outcome(k);
			flight_remove(k)
		:: else
		fi
	:: else
	fi
}

/* ---- intake.c ---- */

inline intake_requests(k)
{
	if
	:: d_request && locked -> c[k].defer = 1
	:: d_request && !locked ->
		/* cancel_run */
		d_request = 0; d_changed = 1;
		if
		:: d_run == R_QUEUED -> d_run = R_CANCELLED
		:: d_run == R_RUNNING ->
			d_run = R_CANCELLING;
			if
			:: d_task == T_READY -> d_task = T_CANCELLED
			:: else
			fi;
			if
			:: d_next == T_WAITING || d_next == T_READY -> d_next = T_CANCELLED
			:: else
			fi;
			flight_end(k, END_ASKED);
			finish_run()
		:: else
		fi
	:: else
	fi
}

inline intake_runs(k)
{
	if
	:: d_run == R_QUEUED && locked -> c[k].defer = 1
	:: d_run == R_QUEUED && !locked -> d_changed = 1; d_run = R_RUNNING; d_task = T_READY; d_next = T_WAITING
	:: else
	fi
}

/* ---- sqlpool.c ---- */

#define slot_holds(k)	(s_state != S_FREE && s_no == c[k].no)

/* sqlpool_check, settle; slots were read before the table (at IN_CYCLE) */
inline sqlpool_check(k)
{
#if KIND == SQL
	if
	:: c[k].flight && c[k].slot != NO_SLOT && c[k].verdict == V_NONE ->
#ifdef TABLE_FIRST
		c[k].held = slot_holds(k);
#else
		c[k].seen = d_attempt[c[k].no];
#endif
		if
		:: c[k].held ->
			c[k].slot = HAS_SLOT;
#ifndef CANCEL_NOT_RESENT
			if
			:: c[k].ending != END_NONE -> sqlpool_cancel(k)
			:: else
			fi
#endif
		:: !c[k].held && c[k].seen == A_INTENDED ->
			c[k].slot = NO_SLOT;
			if
			:: c[k].ending != END_NONE -> give_verdict(k, V_NOTHING)
			:: else
			fi
		:: !c[k].held && c[k].seen == A_STARTED && locked -> c[k].defer = 1
		:: !c[k].held && c[k].seen == A_STARTED && !locked ->
			outcome_apply(c[k].no, A_LOST, 1); flight_remove(k)
		:: else -> flight_remove(k)
		fi
	:: else
	fi;
	c[k].held = 0; c[k].seen = 0
#else
	skip
#endif
}

/* ---- dispatch.c ---- */

/* Its own flight may still be waiting for the worker to give back its slot. */
#ifdef FLIGHT_TWICE
#define may_intend(k)	(HTTP || s_state == S_FREE || s_no != d_no + 1)
#else
#define may_intend(k)	(!c[k].flight && (HTTP || s_state == S_FREE))
#endif

inline intend_rows()
{
	d_task = T_RUNNING; d_no++; d_attempt[d_no] = A_INTENDED
#ifdef INTENT_SOON
	; d_intends = 1
#endif
}

inline intend(k)
{
	assert(!c[k].flight);			/* ONE_FLIGHT: or flight_create ends the conductor */
	c[k].flight = 1; c[k].step = START; c[k].slot = NO_SLOT;
#ifdef ACT_BEFORE_COMMIT
	c[k].no = d_no + 1; c[k].at = UNCOMMITTED
#else
	intend_rows(); c[k].no = d_no
#endif
}

inline dispatch_ready(k)
{
	if
	:: d_next == T_READY && d_run == R_RUNNING && locked -> c[k].defer = 1
	:: d_next == T_READY && d_run == R_RUNNING && !locked -> d_changed = 1; d_next = T_SUCCEEDED; finish_run()
	:: else
	fi;
	if
	:: d_task == T_READY && d_run == R_RUNNING && may_intend(k) -> intend(k)
	:: else
	fi
}

/* dispatch_recover: a flight for the attempt that has no outcome */
inline dispatch_recover(k)
{
	c[k].wake = 1;
#ifndef NO_RECOVER
	if
	:: d_task == T_RUNNING ->
		c[k].flight = 1; c[k].no = d_no; c[k].slot = ANY_SLOT;
		c[k].external = d_external; c[k].settle_from = d_settle_from;
		c[k].settled = d_settled; c[k].starts = d_starts;
		c[k].uncertain = d_uncertain; c[k].resolution = d_resolution;
		c[k].maybe = HTTP && !d_external;
		/* resume_step */
#ifdef NO_RECONCILE
		c[k].step = (d_external -> POLL : START);
#else
		c[k].step = (d_external -> POLL : (KIND == CORR -> LOOKUP : START));
#endif
#if KIND == BLIND
		if
		:: d_uncertain -> c[k].maybe = 0; conclude(k)
		:: !d_uncertain && d_run == R_CANCELLING -> c[k].ending = END_ASKED; consider(k)
		:: else -> consider(k)
		fi;
#endif
		if
		:: d_run == R_CANCELLING -> flight_end(k, END_ASKED)
		:: else
		fi
	:: else
	fi
#else
	skip
#endif
}

/* ---- conductor.c ---- */

/* Everything after "begin": one transaction. */
inline transaction(k)
{
	flights_write(k);
	take_decision(k);
	intake_requests(k);
	sqlpool_check(k);
	intake_runs(k);
	dispatch_ready(k);
	/* conductor_commit, or only intents of SQL tasks: conductor_commit_soon */
#ifndef INTENT_SOON
	if
	:: d_changed || HTTP -> flush()
	:: else
	fi;
#else
	if
	:: d_changed && !d_intends -> flush()
	:: else
	fi;
	d_intends = 0;
#endif
	d_changed = 0
}

inline forget(k)
{
	flight_remove(k);
	c[k].up = 0; c[k].at = AT_REST; c[k].wake = 0; c[k].has_verdicts = 0;
	c[k].defer = 0; c[k].held = 0; c[k].seen = 0
}

#ifdef NO_LOCK
#define may_conduct	true
#else
#define may_conduct	!conductor_lock
#endif

/*
 * The loop.  Its parts come in any order here: the code's order is one of
 * them.  Only "commit, then act" is built in: what is acted on was put into
 * the flight by a transaction.
 */
proctype conductor(byte me)
{
end:
	do
	/* conductor_lock, conductor_recover */
	:: atomic { !c[me].up && may_conduct -> conductor_lock = 1; c[me].up = 1; dispatch_recover(me) }

#if KIND != SQL
	/* flights_transfers */
	:: atomic { c[me].up && c[me].transfer > X_SENT && c[me].verdict == V_NONE -> read_response(me) }

#endif
	/* check_deadlines */
	:: atomic { c[me].up && c[me].flight && c[me].at == AT_REST && c[me].ending == END_NONE && timeouts > 0 ->
		timeouts--; flight_end(me, END_TIMEOUT) }

	/* defer_until_ms; while somebody holds the lock another look changes nothing */
	:: atomic { c[me].up && c[me].defer && !locked ->
#ifndef VERDICT_FORGOTTEN
		c[me].has_verdicts = 1;
#endif
		c[me].defer = 0; c[me].wake = 1 }

	/* conductor_cycle: begin; SQL looks at the slots first */
	:: atomic { c[me].up && c[me].at == AT_REST &&
			(c[me].wake || s_wake || c[me].has_verdicts) ->
		c[me].wake = 0; s_wake = 0;
#if KIND == SQL
#ifdef TABLE_FIRST
		c[me].seen = d_attempt[c[me].no];
#else
		c[me].held = slot_holds(me);
#endif
		c[me].at = IN_CYCLE }
	:: atomic { c[me].up && c[me].at == IN_CYCLE ->
		c[me].at = AT_REST;
#endif
		transaction(me);
#ifdef SPLIT_OUTCOME
		if
		:: has_ended(d_task) && d_next == T_WAITING -> c[me].at = HALF_DONE
		:: else
		fi
#endif
		}
#ifdef SPLIT_OUTCOME
	:: atomic { c[me].up && c[me].at == HALF_DONE -> c[me].at = AT_REST; c[me].wake = 1; advance(); flush() }
#endif
#ifdef ACT_BEFORE_COMMIT
	:: atomic { c[me].up && c[me].at == UNCOMMITTED -> c[me].at = AT_REST; intend_rows() }
#endif

#if KIND != SQL
	/* flights_act, exchange */
	:: atomic { c[me].up && c[me].flight && c[me].transfer == X_NONE && c[me].verdict == V_NONE && !c[me].uncertain ->
		assert(d_attempt[c[me].no] != A_NONE);			/* INTENT */
		assert(c[me].step != START || c[me].no < 2 || e_again[c[me].no - 1] > 0 || is_over(c[me].no - 1));	/* RETRY: what it repeats is over */
		sent = 1;
		c[me].transfer = X_SENT }

	/* flights_act, give_up_cancel: weir.cancel_grace has passed */
	:: atomic { c[me].up && c[me].flight && c[me].ending != END_NONE && c[me].verdict == V_NONE ->
		c[me].uncertain = 0;
		if
		:: c[me].transfer == X_SENT && c[me].step == START -> e_late[c[me].no]++
		:: else
		fi;
		c[me].transfer = X_NONE;
		give_verdict(me, V_UNKNOWN) }
#else
	/* sqlpool_hand_over, assign */
	:: atomic { c[me].up && c[me].at != IN_CYCLE && c[me].flight && c[me].slot == NO_SLOT && c[me].verdict == V_NONE && s_state == S_FREE ->
		assert(d_attempt[c[me].no] != A_NONE);			/* INTENT */
		sent = 1;
		s_state = S_GIVEN; s_no = c[me].no; s_cancel = END_NONE; c[me].slot = HAS_SLOT }
#endif
	od
}

/* ---- sqlworker.c, sqltask.c ---- */

inline task_done()
{
	s_state = S_FREE; s_no = 0; s_cancel = 0; w_at = W_IDLE; s_wake = 1
}

/* The last part of sqltask_execute: lock the run, outcome_apply, commit. */
inline worker_outcome(status)
{
	outcome_apply(s_no, status, 1);
#ifndef OUTCOME_SOON
	flush();
#endif
	d_changed = 0;
	s_wake = 1;
	w_at = W_DONE
}

proctype worker()
{
end:
	do
	/* next_task */
	:: atomic { w_at == W_IDLE && s_state == S_GIVEN -> s_state = S_BUSY; w_at = W_TAKING }

	/* take */
	:: atomic { w_at == W_TAKING ->
		if
		:: d_attempt[s_no] == A_INTENDED -> d_attempt[s_no] = A_STARTED; w_at = W_RUNNING
		:: else -> task_done()
		fi }

	/* sqltask_execute: what the statement did and the outcome are one commit */
#ifndef HANG
	:: atomic { w_at == W_RUNNING && !locked ->
#ifdef OUTCOME_APART
		e_effects++; w_at = W_APART
#else
		if
		:: may_be_written(s_no) -> e_effects++
		:: else
		fi;
		worker_outcome(A_SUCCEEDED)
#endif
		}
	:: atomic { w_at == W_RUNNING && !locked -> worker_outcome(A_FAILED) }
#endif
#ifdef OUTCOME_APART
	:: atomic { w_at == W_APART && !locked -> worker_outcome(A_SUCCEEDED) }
#endif
	:: atomic { w_at == W_RUNNING && s_cancel != END_NONE && !locked ->
		worker_outcome((s_cancel == END_ASKED -> A_CANCELLED : A_TIMED_OUT)) }

	:: atomic { w_at == W_DONE -> task_done() }
	od
}

/* ---- the world ---- */

/* The token is a function of (task run, attempt). */
#ifdef TOKEN_OF_TASK
#define token_is_known(which)	(KIND == TOKEN && (e_runs[1] > 0 || e_runs[2] > 0))
#else
#ifdef TOKEN_OF_SEND
#define token_is_known(which)	false
#else
#define token_is_known(which)	(KIND == TOKEN && e_runs[which] > 0)
#endif
#endif

/* The engine gets a START. */
inline arrive(which)
{
	if
	:: token_is_known(which) -> skip
	:: else ->
		e_runs[which]++; e_state[which] = E_GOING; e_visible[which] = (KIND == TOKEN || KIND == BLIND)
	fi
}

inline serve(k)
{
	if
	:: c[k].step == START ->
		if
#if KIND == BLIND
		/* the answer is the end */
		:: arrive(c[k].no); if :: e_state[c[k].no] = E_OK; c[k].transfer = X_OK :: e_state[c[k].no] = E_BAD; c[k].transfer = X_BAD fi
#else
		:: arrive(c[k].no); c[k].transfer = X_ID
#endif
		:: faults > 0 -> faults--; arrive(c[k].no); c[k].transfer = X_LOST
		:: faults > 0 -> faults--; c[k].transfer = X_LOST
		:: faults > 0 -> faults--; e_late[c[k].no]++; c[k].transfer = X_LOST
		:: faults > 0 -> faults--; c[k].transfer = X_REFUSED
		fi
	:: c[k].step == LOOKUP -> c[k].transfer = (e_visible[c[k].no] -> X_ID : X_ABSENT)
	:: c[k].step == POLL ->
		c[k].transfer = (!e_visible[c[k].no] || e_state[c[k].no] == E_GOING -> X_GOING :
			(e_state[c[k].no] == E_OK -> X_OK : (e_state[c[k].no] == E_BAD -> X_BAD : X_STOPPED)))
	:: c[k].step == CANCEL ->
		if
		:: e_state[c[k].no] == E_GOING -> e_state[c[k].no] = E_STOPPED
		:: else
		fi;
		c[k].transfer = X_GOING
	:: c[k].step != START && faults > 0 -> faults--; c[k].transfer = X_LOST
	fi
}

/* Answers what is asked. */
proctype engine()
{
end:
	do
	:: atomic { c[0].transfer == X_SENT -> serve(0) }
#if CONDUCTORS > 1
	:: atomic { c[1].transfer == X_SENT -> serve(1) }
#endif
	od
}

/* Runs come to their end by themselves, some time. */
proctype engine_runs()
{
end:
	do
	:: atomic { e_state[1] == E_GOING -> if :: e_state[1] = E_OK :: e_state[1] = E_BAD fi }
	:: atomic { e_state[2] == E_GOING -> if :: e_state[2] = E_OK :: e_state[2] = E_BAD fi }
	od
}

/* What is under way arrives or is lost; what was started becomes visible. */
proctype network()
{
end:
	do
	:: atomic { e_late[1] > 0 -> e_late[1]--; if :: arrive(1) :: skip fi }
	:: atomic { e_late[2] > 0 -> e_late[2]--; if :: arrive(2) :: skip fi }
	:: atomic { e_runs[1] > 0 && !e_visible[1] -> e_visible[1] = 1 }
	:: atomic { e_runs[2] > 0 && !e_visible[2] -> e_visible[2] = 1 }
	od
}

/*
 * settle_seconds pass.  The assumption the correlation engine rests on: by
 * then a START that was sent before has arrived or never will, and what it
 * started is visible to a search.
 */
#ifdef NO_WINDOW
#define window_holds	true
#else
#define window_holds	(e_late[d_no] == 0 && (e_runs[d_no] == 0 || e_visible[d_no]))
#endif
#define waits_for_settle	(d_settle_from && !e_settle_over && window_holds)

proctype settle()
{
end:
	do
	:: atomic { KIND == CORR && waits_for_settle -> e_settle_over = 1 }
	od
}

/* ---- who disturbs ---- */

inline stop_worker()
{
	/* its transaction is rolled back first, then the slot is given back */
	if
	:: w_at != W_IDLE -> task_done()
	:: else
	fi
}

proctype chaos()
{
end:
	do
	/* One process was killed hard: PostgreSQL restarts all of them. */
	:: atomic { crashes > 0 && (c[0].up || triggered) ->
		crashes--;
		forget(0);
#if CONDUCTORS > 1
		forget(1);
#endif
		conductor_lock = 0;
		stop_worker();
		s_state = S_FREE; s_no = 0; s_cancel = 0; s_wake = 0; d_changed = 0;
#if KIND == SQL
		/* sqlworker.c, take: does not wait for the disk, nor does the intent before it */
		if
		:: d_attempt[d_no] == A_STARTED && f_attempt[d_no] != A_STARTED -> d_attempt[d_no] = A_INTENDED
		:: skip
		fi;
#endif
		lose_what_is_not_on_disk() }
	/* An error ends a conductor, another is started. */
	:: atomic { crashes > 0 && c[0].up -> crashes--; forget(0); conductor_lock = 0 }
	/* pg_terminate_backend of a SQL worker */
	:: atomic { crashes > 0 && w_at != W_IDLE -> crashes--; stop_worker() }
	od
}

/* Somebody holds the pipeline's state for a while. */
proctype locker()
{
end:
	do
	:: atomic { locks > 0 && !locked -> locks--; locked = 1 }
	:: atomic { locked -> locked = 0 }
	od
}

#if KIND == BLIND
/*
 * Somebody is asked, looks, and says how it is: weir.resolve.  That something
 * which is under way will never arrive he can only know after some time, which
 * is the assumption here.
 */
proctype person()
{
end:
	do
	:: atomic { d_uncertain && d_resolution == SAY_NOTHING && d_decision == SAY_NOTHING && is_open(d_no) && is_over(d_no) ->
		if
		:: e_runs[d_no] > 0 -> d_decision = SAY_OK
		:: d_decision = SAY_FAILED
		:: e_runs[d_no] == 0 -> d_decision = SAY_AGAIN
		fi;
		s_wake = 1 }
	od
}

#endif
#if KIND == SQL
/* Somebody looks how the run is. */
proctype observer()
{
end:
	atomic { is_final(d_run) -> seen_end = 1 }
}

#endif
/* trigger.c, wake.c */
proctype client()
{
#ifdef TRIGGER_OUTSIDE
	d_run = R_QUEUED; s_wake = 1;
#endif
#ifdef WAKE_BEFORE_COMMIT
	s_wake = 1;
#endif
	if
	:: atomic { true -> triggered = 1; d_run = R_QUEUED; flush() }	/* commit */
	:: atomic { true -> rolled_back = 1; goto end }
	fi;
#ifndef WAKE_BEFORE_COMMIT
	s_wake = 1;					/* wake_xact_callback: after the commit */
#endif
	/* weir.cancel(), or not */
	if
	:: atomic { !is_final(d_run) -> d_request = 1; cancel_wanted = 1; flush() }; s_wake = 1
	:: true
	fi;
end:
	false
}

/* Invariants of what is committed, and of the world */
#define one_commit	(!(has_ended(d_task) && d_next == T_WAITING) && \
	!(has_ended(d_task) && has_ended(d_next) && !is_final(d_run)) && \
	!(is_final(d_run) && (d_task == T_RUNNING || d_task == T_READY)))
#define one_outcome	(outcomes[1] <= 1 && outcomes[2] <= 1 && outcomes[3] <= 1)
#define one_run		(e_runs[1] <= 1 + e_again[1] && e_runs[2] <= 1 + e_again[2])
#define followed	(!asked_in_vain && !misheard)
#define as_seen		(!seen_end || is_final(d_run))
#define one_effect	(e_effects <= 1)
#ifdef LOCK_UNCHECKED				/* to see what comes of two */
#define one_acting	true
#else
#define one_acting	(CONDUCTORS == 1 || !c[0].up || !c[CONDUCTORS - 1].up)
#endif
#define nothing_left	(!rolled_back || (d_run == R_NONE && !sent))

proctype monitor()
{
end:
	if
	:: !one_commit -> assert(one_commit)			/* ONE_COMMIT */
	:: !one_outcome -> assert(one_outcome)			/* ONE_OUTCOME */
	:: !one_run -> assert(one_run)					/* ONE_RUN */
	:: !one_effect -> assert(one_effect)			/* ONE_EFFECT */
	:: !followed -> assert(followed)				/* AS_DECIDED */
	:: !as_seen -> assert(as_seen)					/* AS_SEEN */
	:: !one_acting -> assert(one_acting)			/* ONE_CONDUCTOR */
	:: !nothing_left -> assert(nothing_left)		/* NOTHING_LEFT */
	fi
}

init
{
	atomic
	{
		run conductor(0);
#if CONDUCTORS > 1
		run conductor(1);
#endif
#if KIND == SQL
		run worker(); run observer();
#else
		run engine(); run engine_runs(); run network();
#endif
#if KIND == CORR
		run settle();
#endif
#if KIND == BLIND
		run person();
#endif
		run chaos();
		run locker();
		run client();
		run monitor()
	}
}

/*
 * A committed trigger ends, once the disturbances have; with HANG, where the
 * statement never ends by itself, a cancelled one does.
 */
#ifdef LIVE
#ifdef HANG
ltl progress { [] (cancel_wanted -> <> is_final(d_run)) }
#else
ltl progress { [] (triggered -> <> is_final(d_run)) }
#endif
#endif
