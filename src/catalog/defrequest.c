/*-------------------------------------------------------------------------
 * defrequest.c
 *	  What a task will ask its engine for, as far as its definition says so.
 *
 * Runs in the session that defines a pipeline.  A spec without references is
 * all there will ever be: its first request is built as the conductor will
 * build it, and what cannot be built is refused now and not at night.  Nothing
 * is sent.  An address that a spec names by itself, and the place where a task
 * will wait, go through the URL policy here, and again whenever they are used.
 * Takes no locks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "catalogutil.h"
#include "definition.h"
#include "definition_int.h"
#include "urlpolicy.h"

/* As long as a real one */
#define SOME_TOKEN	"weir-0000000000000000-0-0"

static bool
has_references(const cJSON *item)
{
	const cJSON *child;

	check_stack_depth();
	if (cJSON_IsString(item))
		return strstr(item->valuestring, "{{") != NULL;
	cJSON_ArrayForEach(child, item)
	{
		if (has_references(child))
			return true;
	}
	return false;
}

/* A URL up to its first reference; NULL if that comes before the host is known */
static char *
known_part(const char *url)
{
	const char *reference = strstr(url, "{{");
	const char *host = strstr(url, "://");

	if (reference == NULL)
		return pstrdup(url);
	if (host == NULL || host > reference || host + 3 + strcspn(host + 3, "/?#") >= reference)
		return NULL;
	return pnstrdup(url, reference - url);
}

static void
check_named_url(const DefTask *task, const char *path)
{
	const char *member = NULL;
	const char *url = task->kind->named_url ? task->kind->named_url(task->spec, &member) : NULL;
	const char *why = NULL;
	const char *hint = NULL;

	url = url ? known_part(url) : NULL;
	if (url != NULL && !urlpolicy_check_url(url, &why, &hint))
		definition_error(psprintf("%s%s", path, member), psprintf("task \"%s\": the address is refused: %s", task->name, why), hint);
}

/* Of its address only the host matters here, which no reference is in. */
static void
check_place(const DefTask *task, const char *path, const KindCall *call)
{
	int64		every_ms;
	const char *url = task->kind->place != NULL ? task->kind->place(call, &every_ms) : NULL;
	const char *why = NULL;
	const char *hint = NULL;

	if (url != NULL && !urlpolicy_check_url(url, &why, &hint))
		definition_error(path, psprintf("task \"%s\": the address where it waits is refused: %s", task->name, why), hint);
}

/* Looked at again when it is sent. */
static void
check_secret(const DefTask *task, const char *path, const char *secret, Oid owner)
{
	const char *hint;
	const char *why = secret_not_for(owner, secret, &hint);

	if (why != NULL)
		definition_error(path, psprintf("task \"%s\": %s", task->name, why), hint);
}

static void
fill_call(const DefTask *task, KindCall *call)
{
	const Connection *connection = task->connection ? connection_read(task->connection) : NULL;
	const char *name = task->kind->other_connection ? task->kind->other_connection(task->spec) : NULL;
	const Connection *other = name ? connection_read(name) : NULL;

	call->token = SOME_TOKEN;
	call->spec = task->spec;
	call->base_url = connection ? connection->base_url : NULL;
	call->options = connection ? connection->options : NULL;
	call->other_base_url = other ? other->base_url : NULL;
	call->other_options = other ? other->options : NULL;
	call->kind_state = cJSON_CreateObject();
	call->scratch = cJSON_CreateObject();
	call->intended_at_ms = call->now_ms = timestamptz_to_time_t(GetCurrentTimestamp()) * INT64CONST(1000);
	call->step = task->kind->first_step(call);
}

void
def_check_request(const DefTask *task, const char *path, Oid owner)
{
	KindCall	call = {0};
	KindRequest request = {0};
	KindProblem problem = {.is_rendered = true};
	bool		is_whole;

	if (!task->kind->is_http)
		return;
	check_named_url(task, path);
	is_whole = !has_references(task->spec);
	/* where files are put away is decided when the run has ended */
	if (task->kind == &kind_file_away || (!is_whole && task->kind->place == NULL))
		return;
	fill_call(task, &call);
	check_place(task, path, &call);
	if (!is_whole)
		return;
	if (!task->kind->request(&call, &request, &problem))
	{
		if (!problem.is_system_error)
			definition_error(psprintf("%s%s", path, problem.path && problem.path[0] == '$' ? problem.path + 1 : ""),
							 psprintf("task \"%s\": %s", task->name, problem.message), problem.hint);
	}
	else if (request.secret != NULL)
		check_secret(task, psprintf("%s.from_secret", path), request.secret, owner);
}
