/*-------------------------------------------------------------------------
 * secretfetch.c
 *	  Values of secrets for processes that have no multiplexer of their own.
 *
 * Runs in SQL workers, in sessions that call weir.conduct() and in those that
 * test a connection.  Talks to key vaults, and to whatever signs in to them,
 * with a multiplexer and a sign-in that end with the call: no token is kept.
 * No locks.  Nothing is written; if the process dies, nothing has happened.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "conductor_int.h"
#include "httpmux.h"
#include "outgoing.h"
#include "secretfetch.h"

typedef struct Fetch
{
	HttpMux    *mux;
	SignIn	   *signin;
} Fetch;

bool
secretfetch_connection(const char *name, SignInConnection *found, void *arg)
{
	const Connection *connection = connection_read(name);

	if (connection == NULL)
		return false;
	outgoing_describe(connection, NULL, found);
	return true;
}

/* What is known now; texts outlive the transaction. */
static SignInResult
ask(const Fetch *fetch, const char *name, const SecretScope *scope, char **value, SignInFailure *failure)
{
	MemoryContext caller = CurrentMemoryContext;
	uint64		ticket;
	SignInResult result;

	if (scope->begin != NULL)
		scope->begin(scope->arg);
	result = signin_secret(fetch->signin, name, now_ms(), value, &ticket, failure);
	if (result == SIGNIN_FAILED)
		failure->text = MemoryContextStrdup(caller, failure->text);
	if (scope->end != NULL)
		scope->end(scope->arg);
	MemoryContextSwitchTo(caller);
	return result;
}

static void
wait_for_network(Fetch *fetch)
{
	HttpTransfer *transfer;

	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 httpmux_fd(fetch->mux), 1000, wait_event_compat("WeirSecret"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	httpmux_drive(fetch->mux);
	while ((transfer = httpmux_finished(fetch->mux)) != NULL)
		(void) signin_handle(fetch->signin, transfer, now_ms());
}

char *
secretfetch(const char *name, const SecretScope *scope, SignInFailure *failure)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));
	char	   *volatile value = NULL;

	PG_TRY();
	{
		char	   *found = NULL;

		fetch->mux = httpmux_create();
		fetch->signin = signin_create(fetch->mux, &(SignInCatalog) {secret_lookup, secretfetch_connection, NULL});
		while (ask(fetch, name, scope, &found, failure) == SIGNIN_PENDING)
			wait_for_network(fetch);
		value = found;
	}
	PG_FINALLY();
	{
		if (fetch->signin != NULL)
			signin_destroy(fetch->signin);
		httpmux_destroy(fetch->mux);
	}
	PG_END_TRY();
	return value;
}
