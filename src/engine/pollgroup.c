/*-------------------------------------------------------------------------
 * pollgroup.c
 *	  Many runs of one connection are asked for by a list of them.
 *
 * Runs in the conductor and is kept in its memory.  Attempts in POLL whose
 * kind has a listing form a group with those of the same connection.  When
 * more of them are due at about the same time than a list takes pages, one of
 * them, the leader, asks for the list, page after page, with its own
 * exchanges: sign-in, circuit, deadlines and cancels are those of any
 * exchange.  The others wait meanwhile.
 *
 * A list only ever says that a run goes on; then its attempt is put off by
 * the pace.  When the list is read to its end, the runs it did not have are
 * asked for by themselves, which is also how outputs and errors of those that
 * ended are learnt.  So it does not matter whether a list is late, has holes,
 * or changes while it is read.
 *
 * A page that cannot be read is asked for again a few times.  Then, or when
 * lists are refused, or are longer than they are worth, attempts are asked
 * for one by one for a while.  Whoever waits for a list looks every second
 * whether it still has a leader.  Nothing is committed: a conductor that dies
 * leaves attempts in POLL, and the next one begins a list of them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "conductor_int.h"
#include "pollpace.h"

#define NAME_LEN		256
#define ID_LEN			64
#define PAGE_TRIES		4		/* in a row */
#define BROKEN_MS		60000	/* no lists for so long after a page could not be had */
#define REFUSED_MS		((int64) 15 * 60000)
#define PAGES_KNOWN_MS	((int64) 10 * 60000)	/* how long a list was is of no interest afterwards */
#define LOOK_AGAIN_MS	1000	/* whoever waits for a list */
#define UNLISTED_MOST	2		/* lists without a run that goes on: it is asked for by itself from then on */
#define SINGLE_MS		10		/* between those that a list did not have */

/* Which attempts go together; all bytes count. */
typedef struct GroupKey
{
	const KindListing *listing;
	char		connection[NAME_LEN];
} GroupKey;

typedef struct PollGroup
{
	GroupKey	key;
	int64		changed_at;		/* of the connection; older attempts ask by themselves */
	int			followed;		/* as of decided_ms */
	int64		decided_ms;
	bool		by_list;
	int64		not_before_ms;	/* the next list */
	int64		singly_until_ms;	/* no lists before then */
	int			pages_before;	/* of the latest list, 0 not known */
	int64		pages_ms;		/* when that was */

	/* The list under way */
	MemoryContext cxt;			/* NULL: none; owns what follows */
	HTAB	   *awaited;		/* runs by their ids */
	cJSON	   *scope;
	char	   *page;			/* token of the page to ask for; NULL the first */
	int			pages;			/* read */
	int			pages_most;
	int			tries;			/* of this page */
	int64		began_ms;
	int64		leader;			/* its task run */
} PollGroup;

typedef struct AwaitedRun
{
	char		id[ID_LEN];		/* key, in lower case */
	int64		task_run_id;
	int			attempt_no;
	bool		goes_on;		/* of the leader: said already */
} AwaitedRun;

static bool
make_id(char *buf, const char *id)
{
	size_t		len = strlen(id);

	if (len >= ID_LEN)
		return false;
	memset(buf, 0, ID_LEN);
	for (size_t i = 0; i < len; i++)
		buf[i] = pg_ascii_tolower((unsigned char) id[i]);
	return true;
}

/* The group of an attempt; NULL if it always asks by itself. */
static PollGroup *
group_of(Conductor *c, const Flight *flight)
{
	GroupKey	key;
	PollGroup  *group;
	bool		found;

	if (flight->kind == NULL || flight->kind->listing == NULL || flight->connection == NULL)
		return NULL;
	if (c->pollgroups == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(GroupKey);
		ctl.entrysize = sizeof(PollGroup);
		ctl.hcxt = c->cxt;
		c->pollgroups = hash_create("weir poll groups", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	memset(&key, 0, sizeof(key));
	key.listing = flight->kind->listing;
	strlcpy(key.connection, flight->connection->name, sizeof(key.connection));
	group = hash_search(c->pollgroups, &key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) group + sizeof(GroupKey), 0, sizeof(PollGroup) - sizeof(GroupKey));
		group->changed_at = flight->connection->changed_at;
	}
	if (group->changed_at < flight->connection->changed_at && group->cxt == NULL)
	{
		group->changed_at = flight->connection->changed_at;
		group->not_before_ms = group->singly_until_ms = group->decided_ms = 0;
		group->pages_before = 0;
	}
	return group->changed_at == flight->connection->changed_at ? group : NULL;
}

/* Is it followed by POLL, and nothing is wrong with it? */
static bool
is_member(const PollGroup *group, const Flight *flight)
{
	return flight->kind != NULL && flight->kind->listing == group->key.listing && flight->connection != NULL &&
		flight->step == KIND_STEP_POLL && flight->external_run_id != NULL && flight->verdict == NULL &&
		flight->ending == SQL_CANCEL_NONE && flight->connection->changed_at == group->changed_at &&
		strcmp(flight->connection->name, group->key.connection) == 0;
}

/* May a list tell of it?  What a kind says of that, once it may, remains so. */
static bool
is_listable(const PollGroup *group, Flight *flight)
{
	KindCall	call;

	if (!is_member(group, flight) || flight->polling != POLLS_FREELY || flight->transfer != NULL || flight->signin_wait ||
		flight->due_ms == NEVER || flight->step_tries > 0 || flight->unlisted >= UNLISTED_MOST || strlen(flight->external_run_id) >= ID_LEN)
		return false;
	if (flight->lists_do || group->key.listing->can_tell == NULL)
		return true;
	flight_fill_call(flight, &call);
	flight->lists_do = group->key.listing->can_tell(&call);
	return flight->lists_do;
}

/* It need not wait to the last: half of its pause is over. */
static bool
is_due_soon(const Flight *flight, int64 now)
{
	return flight->due_ms <= now + flight->pause_ms / 2;
}

/* Count them, and decide how those that are due now are asked for. */
static void
decide(Conductor *c, PollGroup *group, int64 now)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	int			due = 0,
				listable = 0;

	if (group->decided_ms == now)
		return;
	group->decided_ms = now;
	group->followed = 0;
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		if (!is_member(group, flight))
			continue;
		group->followed++;
		if (!is_listable(group, flight))
			continue;
		listable++;
		due += is_due_soon(flight, now);
	}
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_member(group, flight))
			flight->together = group->followed;
	if (group->pages_ms + PAGES_KNOWN_MS < now)
		group->pages_before = 0;
	group->by_list = group->singly_until_ms <= now &&
		poll_by_list(due, listable, group->key.listing->page_size, group->pages_before);
}

/* The next list is not due yet: all that it may tell of wait for it, and nobody wakes up in between. */
static void
wait_for_list(Conductor *c, PollGroup *group)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;

	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
		if (is_listable(group, flight))
			flight->due_ms = Max(flight->due_ms, group->not_before_ms);
}

/* ---- the list under way ---- */

static void
lead(PollGroup *group, Flight *flight)
{
	group->leader = flight->task_run_id;
	flight->polling = POLLS_FOR_ALL;
}

static Flight *
leader_of(Conductor *c, const PollGroup *group)
{
	Flight	   *flight = flight_find(c, group->leader);

	return flight != NULL && flight->polling == POLLS_FOR_ALL && is_member(group, flight) ? flight : NULL;
}

/* The attempt behind an entry, if it still waits. */
static Flight *
awaited_flight(Conductor *c, const PollGroup *group, const AwaitedRun *run)
{
	Flight	   *flight = flight_find(c, run->task_run_id);

	if (flight == NULL || flight->attempt_no != run->attempt_no || !is_member(group, flight))
		return NULL;
	return flight->polling == POLLS_FOR_ALL || flight->polling == POLLS_NOT ? flight : NULL;
}

/* All that a list may tell of wait for this one, due or not: it costs nothing more. */
static void
begin_list(Conductor *c, PollGroup *group, Flight *leader, int64 now)
{
	HASH_SEQ_STATUS seq;
	Flight	   *flight;
	HASHCTL		ctl = {0};
	KindCall   *calls = palloc(sizeof(KindCall) * group->followed);
	MemoryContext old;
	int			n = 0;

	group->cxt = AllocSetContextCreate(c->cxt, "weir list of runs", ALLOCSET_SMALL_SIZES);
	ctl.keysize = ID_LEN;
	ctl.entrysize = sizeof(AwaitedRun);
	ctl.hcxt = group->cxt;
	group->awaited = hash_create("weir awaited runs", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	hash_seq_init(&seq, c->flights);
	while ((flight = hash_seq_search(&seq)) != NULL)
	{
		char		id[ID_LEN];
		AwaitedRun *run;
		bool		found;

		if (n >= group->followed || !is_listable(group, flight) || !make_id(id, flight->external_run_id))
			continue;
		run = hash_search(group->awaited, id, HASH_ENTER, &found);
		/* Two attempts that follow the same run: one of them asks by itself. */
		if (found && flight != leader)
			continue;
		run->task_run_id = flight->task_run_id;
		run->attempt_no = flight->attempt_no;
		run->goes_on = false;
		flight->polling = POLLS_NOT;
		flight->due_ms = now - now % LOOK_AGAIN_MS + LOOK_AGAIN_MS;
		flight_fill_call(flight, &calls[n++]);
	}
	old = MemoryContextSwitchTo(group->cxt);
	group->scope = group->key.listing->scope(calls, n);
	MemoryContextSwitchTo(old);
	group->page = NULL;
	group->pages = group->tries = 0;
	group->pages_most = Max(n, POLL_SINGLY);
	group->began_ms = now;
	lead(group, leader);
	leader->due_ms = now;
}

/* It is asked for by itself, whatever the others do. */
static void
ask_singly(Flight *flight, int64 due_ms)
{
	flight->polling = POLLS_SINGLY;
	flight->due_ms = due_ms;
}

/* Nothing more is read.  complete: what was not told of is not in the list. */
static void
end_list(Conductor *c, PollGroup *group, bool complete)
{
	HASH_SEQ_STATUS seq;
	AwaitedRun *run;
	int64		now = now_ms();
	int			n = 0;

	hash_seq_init(&seq, group->awaited);
	while ((run = hash_seq_search(&seq)) != NULL)
	{
		Flight	   *flight = awaited_flight(c, group, run);

		if (flight == NULL)
			continue;
		if (run->goes_on)
			flight_go_to_step(flight, KIND_STEP_POLL, -1, true);
		else
		{
			flight->unlisted += complete;
			ask_singly(flight, now + SINGLE_MS * n++);
		}
	}
	group->pages_before = group->pages;
	group->pages_ms = now;
	group->not_before_ms = group->began_ms + (int64) group->pages * POLL_PAGE_MS;
	group->leader = 0;
	group->awaited = NULL;
	MemoryContextDelete(group->cxt);
	group->cxt = NULL;
}

/* Whoever leads is to be cancelled: somebody else goes on. */
static void
hand_over(Conductor *c, PollGroup *group, Flight *leader)
{
	HASH_SEQ_STATUS seq;
	AwaitedRun *run;

	if (group->cxt != NULL)
	{
		hash_seq_init(&seq, group->awaited);
		while ((run = hash_seq_search(&seq)) != NULL)
		{
			Flight	   *flight = awaited_flight(c, group, run);

			if (flight == NULL || flight == leader)
				continue;
			lead(group, flight);
			flight->due_ms = now_ms();
			hash_seq_term(&seq);
			break;
		}
	}
	leader->cancel_sent = true;
	flight_go_to_step(leader, KIND_STEP_CANCEL, 0, true);
}

/* These runs go on. */
static void
take_page(Conductor *c, PollGroup *group, const KindPage *page, int64 retry_after_ms)
{
	for (int i = 0; i < page->n_running; i++)
	{
		char		id[ID_LEN];
		AwaitedRun *run = make_id(id, page->running[i]) ? hash_search(group->awaited, id, HASH_FIND, NULL) : NULL;
		Flight	   *flight = run ? awaited_flight(c, group, run) : NULL;

		if (flight == NULL)
			continue;
		flight->unlisted = 0;
		flight->retry_after_ms = retry_after_ms;
		if (flight->polling == POLLS_FOR_ALL)
		{
			run->goes_on = true;
			continue;
		}
		flight_go_to_step(flight, KIND_STEP_POLL, -1, true);
		(void) hash_search(group->awaited, id, HASH_REMOVE, NULL);
	}
	group->pages++;
	group->tries = 0;
}

/* Is there anybody left whom the rest of the list might tell something? */
static bool
anybody_waits(Conductor *c, PollGroup *group)
{
	HASH_SEQ_STATUS seq;
	AwaitedRun *run;

	hash_seq_init(&seq, group->awaited);
	while ((run = hash_seq_search(&seq)) != NULL)
		if (!run->goes_on && awaited_flight(c, group, run) != NULL)
		{
			hash_seq_term(&seq);
			return true;
		}
	return false;
}

/* Again after a while; false: often enough. */
static bool
try_page_again(PollGroup *group, Flight *leader, const KindResponse *response)
{
	int64		pause = 500 << Min(group->tries, 6);

	if (++group->tries >= PAGE_TRIES)
		return false;
	pause += (int64) (pause * 0.5 * pg_prng_double(&pg_global_prng_state));
	leader->due_ms = now_ms() + Max(pause, response->retry_after_ms);
	return true;
}

static void
read_page(Conductor *c, PollGroup *group, Flight *leader, const KindResponse *response)
{
	KindPage	page = {KIND_PAGE_AGAIN};

	group->key.listing->response(response, &page);
	if (page.forget_token && leader->connection)
		flight_forget_token(c, leader);
	switch (page.result)
	{
		case KIND_PAGE_AGAIN:
			if (try_page_again(group, leader, response))
				return;
			group->singly_until_ms = now_ms() + BROKEN_MS;
			end_list(c, group, false);
			return;
		case KIND_PAGE_REFUSED:
			group->singly_until_ms = now_ms() + REFUSED_MS;
			end_list(c, group, false);
			ereport(LOG,
					(errmsg("connection \"%s\" refuses lists of runs: HTTP status %d", group->key.connection, response->http_status),
					 errdetail("Runs are asked for one by one.")));
			return;
		case KIND_PAGE_READ:
			break;
	}
	take_page(c, group, &page, Max(response->retry_after_ms, 0));
	if (page.next == NULL || !anybody_waits(c, group))
		end_list(c, group, true);
	else if (group->pages >= group->pages_most)
	{
		/* Full of runs of others: as many requests as without it, so it ends here. */
		end_list(c, group, false);
		group->pages_before *= 2;
	}
	else
	{
		group->page = MemoryContextStrdup(group->cxt, page.next);
		leader->due_ms = now_ms();
	}
}

/* ---- what flight.c calls ---- */

bool
pollgroup_holds(Conductor *c, Flight *flight, int64 now)
{
	PollGroup  *group;

	if (flight->step != KIND_STEP_POLL || flight->ending != SQL_CANCEL_NONE || flight->polling == POLLS_SINGLY ||
		(group = group_of(c, flight)) == NULL || !is_member(group, flight))
		return false;
	if (group->cxt != NULL)
	{
		const Flight *leader = leader_of(c, group);

		if (leader == flight)
			return false;
		if (flight->polling == POLLS_FREELY && !is_listable(group, flight))
			return false;
		if (leader == NULL)
		{
			lead(group, flight);
			return false;
		}
		flight->due_ms = now - now % LOOK_AGAIN_MS + LOOK_AGAIN_MS;
		return true;
	}
	/* It led or waited, and that list is over. */
	flight->polling = POLLS_FREELY;
	decide(c, group, now);
	if (!group->by_list || !is_listable(group, flight))
		return false;
	if (group->not_before_ms > now)
	{
		wait_for_list(c, group);
		return true;
	}
	begin_list(c, group, flight, now);
	return false;
}

bool
pollgroup_request(Conductor *c, Flight *flight, const KindCall *call, KindRequest *request)
{
	PollGroup  *group = flight->polling == POLLS_FOR_ALL ? group_of(c, flight) : NULL;

	if (group == NULL || group->cxt == NULL || group->leader != flight->task_run_id)
		return false;
	group->key.listing->request(call, group->scope, group->page, request);
	return true;
}

void
pollgroup_response(Conductor *c, Flight *flight, const KindResponse *response)
{
	PollGroup  *group = group_of(c, flight);

	if (group == NULL || group->cxt == NULL || group->leader != flight->task_run_id)
		ask_singly(flight, now_ms());
	else if (flight->ending != SQL_CANCEL_NONE)
		hand_over(c, group, flight);
	else
		read_page(c, group, flight, response);
	/* One that took the lead later is not among those that were waited for. */
	if (flight->polling == POLLS_FOR_ALL && flight->due_ms == NEVER)
		ask_singly(flight, now_ms());
}

int64
pollgroup_pause_ms(const Flight *flight, int64 now)
{
	PollPace	pace = {0};
	int64		pause;
	const char *wrong;

	pace.elapsed_ms = now - flight->started_ms;
	pace.expected_ms = flight->expected_ms > 0 ? flight->expected_ms : POLL_UNKNOWN;
	pace.together = flight->together;
	pace.page_size = flight->kind != NULL && flight->kind->listing != NULL ? flight->kind->listing->page_size : 0;
	pace.longest_ms = flight->kind != NULL ? flight->kind->longest_pause_ms : 0;
	(void) poll_bounds_read(flight->connection ? cJSON_GetObjectItemCaseSensitive(flight->connection->options, "poll") : NULL, &pace.bounds, &wrong);
	if (flight->ending == SQL_CANCEL_NONE)
		return Max(poll_interval_ms(&pace, pg_prng_double(&pg_global_prng_state)), flight->retry_after_ms);
	/* Has it stopped?  That is asked several times while there is time for it, however long it has been going on. */
	pace.elapsed_ms = now - flight->ending_since_ms;
	pace.expected_ms = POLL_UNKNOWN;
	pace.bounds = (PollBounds) {0, 0};
	pause = Min(poll_interval_ms(&pace, pg_prng_double(&pg_global_prng_state)), Max(weir_cancel_grace / 4, POLL_LEAST_MS));
	return Max(pause, flight->retry_after_ms);
}

/* The wall clock was set: what was a span remains one. */
void
pollgroups_clock_set(Conductor *c, int64 by)
{
	HASH_SEQ_STATUS seq;
	PollGroup  *group;

	if (c->pollgroups == NULL)
		return;
	hash_seq_init(&seq, c->pollgroups);
	while ((group = hash_seq_search(&seq)) != NULL)
	{
		group->not_before_ms += by;
		group->singly_until_ms += by;
		group->began_ms += by;
		group->pages_ms += by;
		group->decided_ms = 0;
	}
}
