/*-------------------------------------------------------------------------
 * resume.c
 *	  weir.resume_connection: send again through a connection that nothing is
 *	  sent through for a while.
 *
 * Runs in the session of a client.  Takes the row of weir.circuit away; the
 * conductor, which wakes when that is committed, then forgets why it waited
 * (breaker.c).  Rolled back, nothing happened.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"

#include "access.h"
#include "catalogutil.h"
#include "engine.h"

PG_FUNCTION_INFO_V1(weir_resume_connection);

#define MAX_NAME	1040		/* bytes */

/* resume_connection(connection) returns whether anything waited */
Datum
weir_resume_connection(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID};
	char	   *name = catalog_arg_required(fcinfo, 0, "connection", MAX_NAME);
	Datum		values[] = {catalog_text(name)};
	WeirScope	scope;
	bool		waited;

	weir_enter(&scope);
	if (weir_spi("SELECT c.owner FROM weir.connection c WHERE c.name = $1", 1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connection \"%s\" does not exist", name),
				 errhint("View weir.connections lists the connections.")));
	weir_require_operator_or_owner(scope.caller, (Oid) weir_spi_int64(0, 1, NULL), psprintf("resume connection \"%s\"", name));
	waited = weir_spi("DELETE FROM weir.circuit WHERE connection_name = $1", 1, types, values, NULL) > 0;
	if (waited)
		engine_wake_at_commit(ENGINE_WAKE_REQUEST);
	weir_leave(&scope);
	PG_RETURN_BOOL(waited);
}
