/*-------------------------------------------------------------------------
 * redistask.c
 *	  One attempt of a redis_publish task, in the frame of SQL tasks.
 *
 * Runs in SQL workers and in weir.conduct().  The query is run as the
 * pipeline's owner, read-only, by sqltask.c, and its rows wait in a file; then
 * the transaction ends, and what goes to Redis goes without one: however long a
 * server takes, nothing in the database is held back.  The outcome is a
 * transaction of its own.
 *
 * So publishing happens at least once.  If the process dies after the switch
 * and before the outcome, the attempt counts as lost and the next one
 * publishes again, as a version of its own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "access.h"
#include "json.h"
#include "kind.h"
#include "redispublish.h"
#include "route.h"
#include "secretfetch.h"

#define DEFAULT_JITTER			0.1
#define DEFAULT_KEEP_OLD_MS		60000
#define DEFAULT_BATCH_ROWS		500
#define DEFAULT_CONNECT_MS		10000
#define DEFAULT_COMMAND_MS		30000
#define MAX_DURATION_MS			(INT64CONST(3660) * 86400 * 1000)

/* Memory, files, socket and password go with the attempt's memory, whatever ended it. */
static void
clean_up(void *arg)
{
	RedisPublish *publish = arg;

	redis_close(publish->client);
	publish->client = NULL;
	if (publish->spool != NULL)
		rowspool_destroy(publish->spool);
	publish->spool = NULL;
	signin_free_secret(publish->password);
	publish->password = NULL;
}

/* ---- what is asked for ---- */

/* Seconds, or the text of an interval. */
static int64
duration_ms(const cJSON *spec, const char *name, int64 absent)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(spec, name);
	Interval   *interval;
	double		seconds;

	if (item == NULL || cJSON_IsNull(item))
		return absent;
	if (json_double(item, &seconds))
		return (int64) (Min(Max(seconds, 0), MAX_DURATION_MS / 1000) * 1000);
	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(item->valuestring),
													 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	if (interval->month < 0 || interval->month > 120 || interval->day < 0 || interval->day > 3660)
		return -1;
	return (interval->month * INT64CONST(30) + interval->day) * INT64CONST(86400000) + interval->time / 1000;
}

/* The spec without its query, references rendered and checked again. */
static cJSON *
render_spec(TaskContext *context, char **error)
{
	const char *sql = json_string(cJSON_GetObjectItemCaseSensitive(context->spec, "sql"));
	cJSON	   *copy = cJSON_Duplicate(context->spec, true);
	cJSON	   *rendered;
	KindProblem problem = {.is_rendered = true};

	(void) cJSON_ReplaceItemInObjectCaseSensitive(copy, "sql", cJSON_CreateString("SELECT"));
	rendered = ref_render_json(copy, context_resolve, context, error);
	if (rendered == NULL)
		return NULL;
	(void) cJSON_ReplaceItemInObjectCaseSensitive(rendered, "sql", cJSON_CreateString(sql ? sql : ""));
	kind_redis_publish.validate(rendered, &problem);
	if (problem.message != NULL)
		*error = psprintf("%s (%s)", problem.message, problem.path ? problem.path : "$");
	return *error == NULL ? rendered : NULL;
}

static void
read_spec(RedisPublish *publish, const cJSON *spec, char **error)
{
	const char *verify = json_string(cJSON_GetObjectItemCaseSensitive(spec, "verify"));
	int64		batch_rows = DEFAULT_BATCH_ROWS;

	publish->prefix = json_string(cJSON_GetObjectItemCaseSensitive(spec, "prefix"));
	publish->key = json_string(cJSON_GetObjectItemCaseSensitive(spec, "key"));
	publish->ttl_ms = duration_ms(spec, "ttl", 0);
	publish->keep_old_ms = duration_ms(spec, "keep_old", DEFAULT_KEEP_OLD_MS);
	publish->ttl_jitter = DEFAULT_JITTER;
	(void) json_double(cJSON_GetObjectItemCaseSensitive(spec, "ttl_jitter"), &publish->ttl_jitter);
	publish->min_rows = 1;
	(void) json_int64(cJSON_GetObjectItemCaseSensitive(spec, "min_rows"), &publish->min_rows);
	(void) json_int64(cJSON_GetObjectItemCaseSensitive(spec, "batch_rows"), &batch_rows);
	publish->batch_rows = (int) batch_rows;
	publish->verify = verify == NULL || strcmp(verify, "sample") == 0 ? REDIS_VERIFY_SAMPLE :
		strcmp(verify, "full") == 0 ? REDIS_VERIFY_FULL : REDIS_VERIFY_COUNT;
	if (publish->ttl_ms <= 0 || publish->keep_old_ms < 0)
		*error = publish->ttl_ms <= 0 ? "\"ttl\" must be a duration above zero" : "\"keep_old\" must be a duration";
	publish->current_key = psprintf("%s:current", publish->prefix);
	publish->versions_key = psprintf("%s:versions", publish->prefix);
	publish->index_key = psprintf("%s:index:%s", publish->prefix, publish->version);
}

static int
seconds_option(const Connection *connection, const char *name, int absent_ms)
{
	double		seconds;

	if (!json_double(cJSON_GetObjectItemCaseSensitive(connection->options, name), &seconds))
		return absent_ms;
	return (int) (Max(seconds, 0.001) * 1000);
}

void
redistask_options(const Connection *connection, RedisOptions *options, const char **secret, char **error)
{
	const char *why = NULL;
	int64		database = 0;

	(void) json_int64(cJSON_GetObjectItemCaseSensitive(connection->options, "database"), &database);
	options->base_url = connection->base_url;
	options->database = (int) database;
	options->ca_certificate = route_certificate(json_string(cJSON_GetObjectItemCaseSensitive(connection->options, "ca_certificate")), &why);
	if (why != NULL)
		*error = pstrdup(why);
	options->connect_timeout_ms = seconds_option(connection, "connect_timeout", DEFAULT_CONNECT_MS);
	options->command_timeout_ms = seconds_option(connection, "command_timeout", DEFAULT_COMMAND_MS);
	*secret = json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, "password"));
	if (*secret != NULL)
		options->username = json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, "username"));
}

RedisPublish *
redistask_read(TaskContext *context, char **error)
{
	RedisPublish *publish = palloc0(sizeof(RedisPublish));
	MemoryContext caller = CurrentMemoryContext;
	const cJSON *spec = render_spec(context, error);
	Connection *connection;
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(context->task_run_id), Int32GetDatum(context->attempt_no)};

	publish->task_run_id = context->task_run_id;
	publish->attempt_no = context->attempt_no;
	publish->spec = spec;
	publish->cleanup.func = clean_up;
	publish->cleanup.arg = publish;
	MemoryContextRegisterResetCallback(caller, &publish->cleanup);
	if (spec == NULL)
		return publish;
	if (weir_spi("SELECT token FROM weir.attempt WHERE task_run_id = $1 AND attempt_no = $2", 2, types, values, NULL) != 1)
		elog(ERROR, "attempt %d of task run " INT64_FORMAT " does not exist", context->attempt_no, context->task_run_id);
	publish->version = MemoryContextStrdup(caller, weir_spi_text(0, 1));
	read_spec(publish, spec, error);
	connection = context->connection_name != NULL ? connection_read(context->connection_name) : NULL;
	if (connection == NULL || strcmp(connection->kind, "redis") != 0)
		*error = psprintf("connection \"%s\" of kind redis does not exist", context->connection_name ? context->connection_name : "");
	else if (*error == NULL)
		redistask_options(connection, &publish->options, &publish->secret, error);
	publish->spool = rowspool_create();
	return publish;
}

/* ---- transactions of its own ---- */

void
redistask_begin(void *arg)
{
	RedisScope *scope = arg;

	if (!scope->publish->in_session)
		StartTransactionCommand();
	weir_enter(&scope->scope);
}

void
redistask_end(void *arg)
{
	RedisScope *scope = arg;

	weir_leave(&scope->scope);
	if (scope->publish->in_session)
		SPI_commit();
	else
		CommitTransactionCommand();
}

/* ---- the attempt ---- */

static void
set_error(TaskOutcome *outcome, const RedisError *error)
{
	outcome->status = ATTEMPT_FAILED;
	outcome->error_code = error->code;
	outcome->error_message = error->message;
	outcome->error_detail = error->hint;
	outcome->is_user_error = error->is_user_error;
	outcome->is_retryable = error->is_retryable;
}

static void
set_success(RedisPublish *publish, const char *left_behind, TaskOutcome *outcome)
{
	outcome->status = ATTEMPT_SUCCEEDED;
	outcome->output = redispublish_output(publish, left_behind);
	outcome->rows_read = outcome->rows_written = rowspool_nrows(publish->spool);
	outcome->error_code = outcome->error_message = outcome->error_detail = NULL;
}

/*
 * An interrupt.  After the switch it comes too late: readers see the version,
 * and the old one is left to expire.  In weir.conduct() it is the client's, and
 * ends the call; whoever conducts next finds the attempt lost.
 */
static void
interrupted(RedisPublish *publish, MemoryContext caller, SqlCancelCause cause, TaskOutcome *outcome)
{
	ErrorData  *edata;

	if (publish->in_session)
		PG_RE_THROW();
	MemoryContextSwitchTo(caller);
	edata = CopyErrorData();
	HOLD_INTERRUPTS();
	AbortCurrentTransaction();
	FlushErrorState();
	QueryCancelPending = false;
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(caller);
	if (publish->is_switched)
		set_success(publish, edata->message, outcome);
	else
		sqltask_outcome_of_error(outcome, edata, cause);
}

/*
 * What is going to be published, on disk before the server hears of it: a
 * version is named by the attempt's token, and an attempt forgotten in a
 * crash would come again under the same name.  False: the attempt is no
 * longer ours.
 */
static bool
announce(RedisPublish *publish)
{
	Oid			types[4] = {INT8OID, INT4OID, INT4OID, TEXTOID};
	Datum		values[4];
	MemoryContext caller = CurrentMemoryContext;
	RedisScope	scope = {.publish = publish};
	bool		is_ours;

	values[0] = Int64GetDatum(publish->task_run_id);
	values[1] = Int32GetDatum(publish->attempt_no);
	values[2] = Int32GetDatum(MyProcPid);
	values[3] = CStringGetTextDatum(json_text(publish->spec));
	redistask_begin(&scope);
	is_ours = weir_spi("UPDATE weir.attempt SET request = $4::jsonb "
					   "WHERE task_run_id = $1 AND attempt_no = $2 AND status = 'started' AND worker_pid = $3",
					   4, types, values, NULL) == 1;
	ForceSyncCommit();
	redistask_end(&scope);
	MemoryContextSwitchTo(caller);
	return is_ours ||
		redispublish_fail(publish, "attempt_ended", false, true, "the attempt ended while its query ran", NULL);
}

/* The password, wherever it is kept; a key vault may have to be asked. */
static bool
obtain_password(RedisPublish *publish)
{
	RedisScope	scope = {.publish = publish};
	SignInFailure failure = {0};

	if (publish->secret == NULL)
		return true;
	publish->password = secretfetch(publish->secret, &(SecretScope) {redistask_begin, redistask_end, &scope}, &failure);
	publish->options.password = publish->password;
	return publish->password != NULL ||
		redispublish_fail(publish, "sign_in_failed", failure.is_user_error || failure.is_misplaced,
						  !failure.is_user_error && !failure.is_misplaced, failure.text,
						  "Correct the secret, or the connection's auth.");
}

/* A transaction is open at the start, the one of the query, and at the end, the one of the outcome. */
void
redistask_run(RedisPublish *publish, bool in_session, SqlCancelCause cause, TaskOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;

	publish->in_session = in_session;
	outcome->output = NULL;
	outcome->rows_read = outcome->rows_written = -1;
	if (in_session)
		SPI_commit();
	else
		CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		if (announce(publish) && obtain_password(publish) && (redispublish_run(publish) || publish->is_switched))
			set_success(publish, publish->error.message, outcome);
		else
			set_error(outcome, &publish->error);
	}
	PG_CATCH();
	{
		interrupted(publish, caller, cause, outcome);
	}
	PG_END_TRY();
	redis_close(publish->client);
	publish->client = NULL;
	if (!in_session)
		StartTransactionCommand();
	MemoryContextSwitchTo(caller);
}
