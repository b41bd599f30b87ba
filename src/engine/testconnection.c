/*-------------------------------------------------------------------------
 * testconnection.c
 *	  weir.test_connection(): what of a connection works and what does not.
 *
 * Runs in the session that calls it, with a multiplexer and a sign-in of its
 * own that end with the call; nothing is written.  Name, TCP and TLS are
 * tried apart from the request, so that the first step that fails is named.
 * Everything has a timeout and serves interrupts.  The caller's transaction
 * is open meanwhile, as it is while any function runs: for seconds, not for
 * as long as a service takes.
 *
 * No token, password or other credential is in the answer: texts of services
 * are shown, but what they repeat of our credentials has been masked by then.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "compat.h"
#include "conductor_int.h"
#include "httpmux.h"
#include "json.h"
#include "kind.h"
#include "netlink.h"
#include "outgoing.h"
#include "proxyauth.h"
#include "redispublish.h"
#include "route.h"
#include "secretfetch.h"
#include "sharedkey.h"
#include "signin.h"
#include "urlpolicy.h"

PG_FUNCTION_INFO_V1(weir_test_connection);

#define CONNECT_MS		10000
#define REQUEST_MS		20000
#define MAX_BODY		65536

#define FAILED			"failed"
#define NOT_NEEDED		"not needed"

enum
{
	COL_CONNECTION, COL_KIND, COL_IS_OK, COL_ADDRESS, COL_NAME, COL_TCP, COL_PROXY, COL_TLS, COL_SIGN_IN, COL_PERMISSION,
	COL_LATENCY, COL_DETAIL, COL_HINT, COL_COUNT
};

/* Texts are NULL for steps that were not reached. */
typedef struct Report
{
	KindProbeStep is_ok;		/* unknown: null */
	const char *address;
	const char *name;
	const char *tcp;
	const char *proxy;
	const char *tls;
	const char *sign_in;
	const char *permission;
	double		latency_ms;		/* of the request; -1 there was no answer */
	const char *detail;
	const char *hint;
} Report;

/* What must not outlive the call. */
typedef struct Network
{
	NetLink    *link;
	RedisClient *redis;			/* owns the link, once it is there */
	char	   *password;
	char	   *proxy_line;		/* what its proxy is told */
	HttpMux    *mux;
	SignIn	   *signin;
	OutgoingSecrets secrets;
	Outgoing	out;
} Network;

static const char *
took(double ms)
{
	return psprintf("ok, %.1f ms", Max(ms, 0));
}

static void
fail(Report *report, const char **step, const char *detail, const char *hint)
{
	*step = FAILED;
	report->detail = detail;
	report->hint = hint;
}

/* ---- reaching it ---- */

/* scheme://host:port/... -> host:port */
static const char *
address_of(const char *url)
{
	const char *start = strstr(url, "://");

	start = start ? start + 3 : url;
	return pnstrdup(start, strcspn(start, "/?#"));
}

/* With a proxy, name and TCP are the proxy's, and what it says is a step of its own. */
static bool
reach(Network *network, const char *url, const HttpOptions *route, Report *report)
{
	const char *why;
	const char *hint;
	bool		is_plain = strncmp(url, "http:", 5) == 0;
	bool		has_proxy = route->proxy != NULL;
	NetStep		step;

	report->address = address_of(url);
	if (!urlpolicy_check_url(url, &why, &hint))
	{
		fail(report, &report->name, psprintf("the address is refused: %s", why), hint);
		return false;
	}
	if (has_proxy && !urlpolicy_check_url(route->proxy, &why, &hint))
	{
		fail(report, &report->name, psprintf("the proxy is refused: %s", why), hint);
		return false;
	}
	network->link = netlink_connect(url, route);
	step = netlink_step(network->link);
	if (step != NET_CONNECTED)
		fail(report, step == NET_NAME ? &report->name : step == NET_TCP || step == NET_POLICY ? &report->tcp :
			 step == NET_PROXY ? &report->proxy : &report->tls,
			 netlink_error(network->link), netlink_hint(network->link));
	if (step != NET_NAME)
		report->name = took(netlink_name_ms(network->link));
	if (step != NET_NAME && step != NET_TCP && step != NET_POLICY)
		report->tcp = step == NET_CONNECTED ? took(netlink_tcp_ms(network->link)) : "ok";
	if (step == NET_TLS || step == NET_CERTIFICATE || step == NET_CONNECTED)
		report->proxy = has_proxy ? "ok" : NOT_NEEDED;
	if (step == NET_CONNECTED)
		report->tls = is_plain ? NOT_NEEDED : took(netlink_tls_ms(network->link));
	return step == NET_CONNECTED;
}

/* Where to go through and whom to believe; false: the authorities cannot be read. */
static bool
find_route(const Connection *connection, HttpOptions *route, Report *report)
{
	const char *why = NULL;

	route->connect_timeout_ms = CONNECT_MS;
	if (route_set(route, connection->options, connection->base_url, connection->base_url, &why))
	{
		route->connect_timeout_ms = Min(route->connect_timeout_ms, CONNECT_MS);
		/* its own address, also where that is no URL of the web, as with Redis */
		route->ca_besides_system = false;
		return true;
	}
	report->address = address_of(connection->base_url);
	fail(report, &report->tls, why, "Correct the connection's option ca_certificate, or the file it names (weir.secret_directories).");
	return false;
}

/* What the proxy is told; false: that cannot be had. */
static bool
sign_in_at_proxy(Network *network, const Connection *connection, HttpOptions *route, Report *report)
{
	const char *name = route_proxy_secret(connection->options);
	const char *why = NULL;
	SignInFailure failure = {0};
	char	   *value;

	if (name == NULL)
		return true;
	value = secretfetch(name, &(SecretScope) {0}, &failure);
	if (value == NULL)
		why = failure.text;
	else
		network->proxy_line = proxyauth_line(value, &why);
	signin_free_secret(value);
	route->proxy_authorization = network->proxy_line;
	if (network->proxy_line != NULL)
		return true;
	report->address = address_of(connection->base_url);
	fail(report, &report->proxy, psprintf("proxy_secret: %s", why), "Give the secret that the connection's option proxy_secret names the form \"user:password\".");
	return false;
}

/* ---- Redis ---- */

static void
try_redis(Network *network, const Connection *connection, Report *report)
{
	RedisOptions options = {0};
	RedisError	error = {0};
	const char *why = NULL;
	const char *secret;
	char	   *unreadable = NULL;
	SignInFailure failure = {0};
	const char *url = redis_policy_url(connection->base_url, &why);
	NetLink    *link;
	TimestampTz start;
	HttpOptions route = {0};

	if (!find_route(connection, &route, report))
		return;
	/* of the authorities the route has told already */
	redistask_options(connection, &options, &secret, &unreadable);
	route.connect_timeout_ms = Min(options.connect_timeout_ms, CONNECT_MS);
	if (!reach(network, url, &route, report))
		return;
	if (secret != NULL)
	{
		network->password = secretfetch(secret, &(SecretScope) {0}, &failure);
		options.password = network->password;
		if (network->password == NULL)
		{
			fail(report, &report->sign_in, failure.text, "Correct the secret, or the connection's auth.");
			return;
		}
	}
	link = network->link;
	network->link = NULL;
	network->redis = redis_start(link, Min(options.command_timeout_ms, REQUEST_MS));
	if (!redis_sign_in(network->redis, &options, &error))
	{
		bool		is_right = error.code != NULL && (strcmp(error.code, "redis_permission") == 0 || strcmp(error.code, "redis_database") == 0);

		report->sign_in = is_right ? (options.username ? "ok" : NOT_NEEDED) : NULL;
		fail(report, is_right ? &report->permission : &report->sign_in, error.message, error.hint);
		return;
	}
	report->sign_in = options.username ? "ok" : NOT_NEEDED;
	start = GetCurrentTimestamp();
	redis_queue(network->redis, "PING", NULL);
	if (!redis_skip(network->redis, 1, &error))
	{
		fail(report, &report->permission, error.message, error.hint);
		return;
	}
	report->latency_ms = (GetCurrentTimestamp() - start) / 1000.0;
	report->permission = "ok";
	report->is_ok = KIND_PROBE_OK;
}

/* ---- everything that speaks HTTP ---- */

static void
wait_for_network(Network *network)
{
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 httpmux_fd(network->mux), 1000, wait_event_compat("WeirTestConnection"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	httpmux_drive(network->mux);
}

static bool
sign_in(Network *network, const Connection *connection, const KindRequest *request, Report *report)
{
	const char *signing = outgoing_signing_secret(request, connection);
	SignInFailure failure = {0};
	SignInResult result;
	uint64		tickets[2];
	HttpTransfer *transfer;

	network->signin = signin_create(network->mux, &(SignInCatalog) {secret_lookup, secretfetch_connection, NULL});
	for (;;)
	{
		outgoing_forget(&network->secrets);
		result = outgoing_sign_in(network->signin, connection, NULL, now_ms(), &network->secrets, tickets, &failure);
		if ((result == SIGNIN_READY || result == SIGNIN_NONE) && signing != NULL)
			result = signin_secret(network->signin, signing, now_ms(), &network->secrets.signing, &tickets[0], &failure);
		switch (result)
		{
			case SIGNIN_READY:
				return true;
			case SIGNIN_NONE:
				return true;
			case SIGNIN_FAILED:
				fail(report, &report->sign_in, failure.text,
					 failure.is_user_error ? "Correct the connection's auth, or the secret it names." :
					 failure.is_misplaced ? "Something else may answer for a while only: try again, and correct the address if that does not help." :
					 "This may pass by itself: tasks go on trying for some minutes. Look at the service and the way there if it does not.");
				return false;
			case SIGNIN_PENDING:
				break;
		}
		/* The fetch has a timeout of its own, so this ends. */
		wait_for_network(network);
		while ((transfer = httpmux_finished(network->mux)) != NULL)
			(void) signin_handle(network->signin, transfer, now_ms());
	}
}

/* What an account says of its containers does not concern the SAS of one of them. */
static bool
has_service_sas(const Network *network, const Connection *connection)
{
	const char *type = json_string(cJSON_GetObjectItemCaseSensitive(connection->auth, "type"));

	return type != NULL && strcmp(type, "sas") == 0 && sharedkey_sas_is_service(network->secrets.signing);
}

static const char *
step_text(KindProbeStep step)
{
	switch (step)
	{
		case KIND_PROBE_OK:
			return "ok";
		case KIND_PROBE_UNKNOWN:
			return "unknown";
		case KIND_PROBE_FAILED:
			break;
	}
	return FAILED;
}

static void
ask(Network *network, const Connection *connection, const HttpOptions *route, const KindRequest *request, Report *report)
{
	HttpOptions options = *route;
	HttpTransfer *transfer;
	const HttpResult *result;
	KindResponse response = {0};
	KindProbe	probe = {0};
	TimestampTz start = GetCurrentTimestamp();
	Outgoing   *out = &network->out;
	const char *why = NULL;

	if (!outgoing_make(request, connection, &network->secrets, out, &why))
	{
		fail(report, &report->sign_in, why, "Correct the connection's auth, or the secret it names.");
		return;
	}
	options.max_body = MAX_BODY;
	options.total_timeout_ms = REQUEST_MS;
	for (int i = 0; i < lengthof(out->masked); i++)
		options.masked[i] = out->masked[i];
	(void) httpmux_start(network->mux, request->method, out->url, out->lines, NULL, 0, &options, NULL);
	while ((transfer = httpmux_finished(network->mux)) == NULL)
		wait_for_network(network);
	result = httpmux_result(transfer);
	response.http_status = result->error ? 0 : result->http_status;
	response.body = result->body;
	response.body_len = result->body_len;
	response.content_type = result->content_type;
	response.headers = result->headers;
	response.transport_error = result->error;
	response.retry_after_ms = result->retry_after_ms;
	kind_probe_response(connection->kind, connection->options, has_service_sas(network, connection), &response, &probe);
	if (response.http_status != 0)
		report->latency_ms = (GetCurrentTimestamp() - start) / 1000.0;
	report->sign_in = probe.sign_in == KIND_PROBE_OK && network->secrets.credentials == NULL && network->secrets.signing == NULL ?
		NOT_NEEDED : step_text(probe.sign_in);
	report->permission = probe.sign_in == KIND_PROBE_FAILED ? NULL : step_text(probe.permission);
	report->is_ok = probe.sign_in == KIND_PROBE_FAILED ? KIND_PROBE_FAILED : probe.permission;
	report->detail = probe.detail;
	report->hint = probe.hint;
	httpmux_free(network->mux, transfer);
}

static void
try_http(Network *network, const Connection *connection, Report *report)
{
	KindRequest request;
	HttpOptions route = {0};

	if (!kind_probe_request(connection->kind, connection->base_url, connection->options, now_ms(), &request))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("connections of kind %s cannot be tested", connection->kind)));
	if (!find_route(connection, &route, report) || !sign_in_at_proxy(network, connection, &route, report) ||
		!reach(network, connection->base_url, &route, report))
		return;
	netlink_close(network->link);
	network->link = NULL;
	network->mux = httpmux_create();
	if (sign_in(network, connection, &request, report))
		ask(network, connection, &route, &request, report);
}

/* ---- the function ---- */

static void
close_network(Network *network)
{
	redis_close(network->redis);
	netlink_close(network->link);
	outgoing_wipe(&network->out);
	outgoing_forget(&network->secrets);
	signin_free_secret(network->password);
	signin_free_secret(network->proxy_line);
	if (network->signin != NULL)
		signin_destroy(network->signin);
	httpmux_destroy(network->mux);
}

static void
run_test(const Connection *connection, Report *report)
{
	Network		network = {0};

	PG_TRY();
	{
		if (strcmp(connection->kind, "redis") == 0)
			try_redis(&network, connection, report);
		else
			try_http(&network, connection, report);
	}
	PG_CATCH();
	{
		close_network(&network);
		PG_RE_THROW();
	}
	PG_END_TRY();
	close_network(&network);
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

/* test_connection(name) */
Datum
weir_test_connection(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	Report		report = {.latency_ms = -1};
	Connection *connection;
	WeirScope	scope;
	TupleDesc	desc;
	Datum		values[COL_COUNT] = {0};
	bool		nulls[COL_COUNT] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	weir_enter(&scope);
	MemoryContextSwitchTo(caller);	/* what is found out outlives the SPI connection */
	weir_require_operator(scope.caller, "test connections");
	connection = connection_read(name);
	if (connection == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connection \"%s\" does not exist", name)));
	run_test(connection, &report);

	set_text(values, nulls, COL_CONNECTION, name);
	set_text(values, nulls, COL_KIND, pstrdup(connection->kind));
	values[COL_IS_OK] = BoolGetDatum(report.is_ok == KIND_PROBE_OK);
	nulls[COL_IS_OK] = report.is_ok == KIND_PROBE_UNKNOWN;
	set_text(values, nulls, COL_ADDRESS, report.address);
	set_text(values, nulls, COL_NAME, report.name);
	set_text(values, nulls, COL_TCP, report.tcp);
	set_text(values, nulls, COL_PROXY, report.proxy);
	set_text(values, nulls, COL_TLS, report.tls);
	set_text(values, nulls, COL_SIGN_IN, report.sign_in);
	set_text(values, nulls, COL_PERMISSION, report.permission);
	values[COL_LATENCY] = Float8GetDatum(report.latency_ms);
	nulls[COL_LATENCY] = report.latency_ms < 0;
	set_text(values, nulls, COL_DETAIL, report.detail);
	set_text(values, nulls, COL_HINT, report.hint);
	weir_leave(&scope);
	MemoryContextSwitchTo(caller);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
