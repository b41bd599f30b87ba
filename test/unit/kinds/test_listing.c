/*-------------------------------------------------------------------------
 * test_listing.c
 *	  Lists of runs: what is asked for, and what pages say
 *-------------------------------------------------------------------------
 */
#include "harness.h"

#define ADF_OPTIONS "{'subscription_id': 's1', 'resource_group': 'rg', 'factory': 'df'}"

static Attempt a;
static KindPage page;

/* A follower of a job, and what a list of it and others is asked for. */
static KindCall
job(const char *spec, const char *state)
{
	attempt_init(&a, strstr(spec, "job_id") ? "databricks_job" : "databricks_notebook", spec, "{}", "https://dbx.example");
	a.call.step = KIND_STEP_POLL;
	a.call.external_run_id = "9007199254740993";
	a.call.intended_at_ms = NOW_MS;
	a.call.kind_state = from_text(state);
	return a.call;
}

static KindCall
factory(const char *spec, const char *state)
{
	attempt_init(&a, "adf_pipeline", spec, ADF_OPTIONS, "https://arm.example");
	a.call.step = KIND_STEP_POLL;
	a.call.external_run_id = "run";
	a.call.intended_at_ms = NOW_MS;
	a.call.kind_state = from_text(state);
	return a.call;
}

static const KindListing *
listing(const char *kind)
{
	return kind_find(kind)->listing;
}

static char *
asked(const KindListing *of, const KindCall *calls, int n, const char *token)
{
	KindRequest request = {0};

	of->request(&calls[0], of->scope(calls, n), token, &request);
	CHECK(request.is_repeatable && !request.starts_work);
	if (request.body == NULL)
		return mem_printf("%s %s", request.method, request.url);
	CHECK_STR(request.method, "POST");
	CHECK_STR(request.url, "https://arm.example/subscriptions/s1/resourceGroups/rg/providers/Microsoft.DataFactory/factories/df/queryPipelineRuns?api-version=2018-06-01");
	return (char *) request.body;
}

static void
read_page(const KindListing *of, int http_status, const char *body)
{
	KindResponse response = {0};

	memset(&page, 0, sizeof(page));
	response.http_status = http_status;
	response.body = body ? mem_strdup(body) : "";
	for (char *p = (char *) response.body; *p; p++)
		if (*p == '\'')
			*p = '"';
	response.body_len = strlen(response.body);
	response.retry_after_ms = -1;
	response.headers = "";
	response.transport_error = http_status == 0 ? "reset" : NULL;
	of->response(&response, &page);
}

static void
test_who(void)
{
	KindCall	call = job("{'job_id': 7}", "{'started_ms': 1}");

	CHECK(listing("databricks_job") != NULL && listing("databricks_job") == listing("databricks_python"));
	CHECK(listing("http") == NULL && listing("sql") == NULL && listing("databricks_sql") == NULL);
	/* the first look at a run is its own */
	CHECK(!listing("databricks_job")->can_tell(&call));
	cJSON_AddTrueToObject(call.scratch, "polled");
	CHECK(listing("databricks_job")->can_tell(&call));
	call = job("{'job_id': 7}", "{'has_url': true}");
	CHECK(listing("databricks_job")->can_tell(&call));
	/* so is that at a run somebody named */
	call = factory("{'pipeline': 'one'}", "{}");
	CHECK(!listing("adf_pipeline")->can_tell(&call));
	call = factory("{'pipeline': 'one'}", "{'started_ms': 1, 'has_url': true}");
	CHECK(listing("adf_pipeline")->can_tell(&call));
}

static void
test_databricks_scope(void)
{
	const KindListing *of = listing("databricks_job");
	KindCall	calls[3];

	calls[0] = job("{'job_id': 7}", "{'started_ms': 1}");
	calls[1] = job("{'job_id': '7'}", "{'started_ms': 1}");
	calls[1].intended_at_ms -= 5000;
	CHECK_STR(asked(of, calls, 2, NULL), "GET https://dbx.example/api/2.2/jobs/runs/list?active_only=true&limit=24"
			  "&start_time_from=1795225795000&job_id=7&run_type=JOB_RUN");
	CHECK_STR(asked(of, calls, 1, "a b&c"), "GET https://dbx.example/api/2.2/jobs/runs/list?active_only=true&limit=24"
			  "&start_time_from=1795225800000&job_id=7&run_type=JOB_RUN&page_token=a%20b%26c");
	calls[2] = job("{'job_id': 8}", "{'started_ms': 1}");
	CHECK_HAS(asked(of, calls, 3, NULL), "!job_id");
	/* one-time runs, and both */
	calls[1] = job("{'notebook_path': '/x'}", "{'started_ms': 1}");
	CHECK_HAS(asked(of, &calls[1], 1, NULL), "run_type=SUBMIT_RUN");
	CHECK_HAS(asked(of, &calls[1], 1, NULL), "!job_id");
	CHECK_HAS(asked(of, calls, 2, NULL), "!run_type");
	CHECK_HAS(asked(of, calls, 2, NULL), "!job_id");
	/* a run that began before its attempt: there is no earliest start */
	calls[1] = job("{'job_id': 7}", "{}");
	CHECK_HAS(asked(of, calls, 2, NULL), "!start_time");
	calls[0] = job("{'job_id': 7}", "{'started_ms': 1}");
	calls[0].reference = from_text("{'external_run_id': '9007199254740993'}");
	CHECK_HAS(asked(of, calls, 1, NULL), "!start_time");
	calls[0].reference = from_text("{'external_run_id': '5'}");
	CHECK_HAS(asked(of, calls, 1, NULL), "start_time");
}

static void
test_databricks_page(void)
{
	const KindListing *of = listing("databricks_job");

	read_page(of, 200, "{'runs': [{'run_id': 9007199254740993, 'status': {'state': 'RUNNING'}}, {'run_id': 2, 'status': {'state': 'TERMINATED'}},"
			  "{'run_id': 3, 'state': {'life_cycle_state': 'PENDING'}}, {'run_id': 4}, {'status': {'state': 'RUNNING'}}, 7,"
			  "{'run_id': 5, 'status': {'state': 'QUEUED'}}], 'has_more': true, 'next_page_token': 't'}");
	CHECK_INT(page.result, KIND_PAGE_READ);
	CHECK_INT(page.n_running, 3);
	CHECK_STR(page.running[0], "9007199254740993");
	CHECK_STR(page.running[1], "3");
	CHECK_STR(page.running[2], "5");
	CHECK_STR(page.next, "t");
	read_page(of, 200, "{'has_more': false, 'next_page_token': 'x'}");
	CHECK(page.result == KIND_PAGE_READ && page.n_running == 0 && page.next == NULL);
	read_page(of, 200, "{}");
	CHECK(page.result == KIND_PAGE_READ && page.n_running == 0 && page.next == NULL);
	read_page(of, 200, "{'runs': {}}");
	CHECK_INT(page.result, KIND_PAGE_AGAIN);
	read_page(of, 200, "{'message': 'hello'}");
	CHECK_INT(page.result, KIND_PAGE_AGAIN);
	read_page(of, 200, "{'runs': [");
	CHECK_INT(page.result, KIND_PAGE_AGAIN);
	read_page(of, 200, "[]");
	CHECK_INT(page.result, KIND_PAGE_AGAIN);
}

static void
test_adf_list(void)
{
	const KindListing *of = listing("adf_pipeline");
	KindCall	calls[30];

	calls[0] = factory("{'pipeline': 'one'}", "{'started_ms': 1}");
	calls[0].now_ms = NOW_MS + 60000;
	calls[1] = factory("{'pipeline': 'two'}", "{'started_ms': 1}");
	calls[1].intended_at_ms -= 60000;
	CHECK_JSON(from_text(asked(of, calls, 2, NULL)), "{'lastUpdatedAfter': '2026-11-21T01:54:00.000Z', 'lastUpdatedBefore': '2026-11-22T02:01:00.000Z',"
			   "'filters': [{'operand': 'Status', 'operator': 'NotIn', 'values': ['Succeeded', 'Failed', 'Cancelled']},"
			   "{'operand': 'PipelineName', 'operator': 'In', 'values': ['one', 'two']}], 'orderBy': [{'orderBy': 'RunStart', 'order': 'ASC'}]}");
	CHECK_HAS(asked(of, calls, 1, "tok"), "\"continuationToken\":\"tok\"");
	/* the earlier run that goes on */
	calls[1] = factory("{'pipeline': 'one'}", "{'started_ms': 1, 'mode': 'adopt'}");
	CHECK_HAS(asked(of, calls, 2, NULL), "\"lastUpdatedAfter\":\"2026-10-07T02:00:00.000Z\"");
	CHECK_HAS(asked(of, calls, 2, NULL), "\"values\":[\"one\"]");
	for (int i = 0; i < 30; i++)
		calls[i] = factory(mem_printf("{'pipeline': 'p%d'}", i), "{'started_ms': 1}");
	CHECK_HAS(asked(of, calls, 30, NULL), "!PipelineName");

	read_page(of, 200, "{'value': [{'runId': 'A', 'status': 'InProgress'}, {'runId': 'b', 'status': 'succeeded'}, {'runId': 'c', 'status': 'Canceling'},"
			  "{'status': 'Queued'}, {'runId': 'd'}, null], 'continuationToken': 'x'}");
	CHECK_INT(page.result, KIND_PAGE_READ);
	CHECK_INT(page.n_running, 2);
	CHECK_STR(page.running[0], "A");
	CHECK_STR(page.running[1], "c");
	CHECK_STR(page.next, "x");
	/* an empty page is not the last one for that */
	read_page(of, 200, "{'value': [], 'continuationToken': 'x'}");
	CHECK(page.result == KIND_PAGE_READ && page.next != NULL);
	read_page(of, 200, "{'value': []}");
	CHECK(page.result == KIND_PAGE_READ && page.next == NULL);
	read_page(of, 200, "{}");
	CHECK_INT(page.result, KIND_PAGE_AGAIN);
}

static void
test_weather(void)
{
	static const int again[] = {0, 408, 429, 500, 502, 503, 504};
	static const int refused[] = {400, 403, 404, 405, 410, 301};
	const KindListing *lists[] = {listing("databricks_job"), listing("adf_pipeline")};

	for (size_t l = 0; l < lengthof(lists); l++)
	{
		for (size_t i = 0; i < lengthof(again); i++)
		{
			read_page(lists[l], again[i], "{'value': [], 'has_more': false}");
			CHECK(page.result == KIND_PAGE_AGAIN && !page.forget_token && page.n_running == 0);
		}
		for (size_t i = 0; i < lengthof(refused); i++)
		{
			read_page(lists[l], refused[i], "{'error': {'code': 'x'}}");
			CHECK_INT(page.result, KIND_PAGE_REFUSED);
		}
		read_page(lists[l], 401, "");
		CHECK(page.result == KIND_PAGE_AGAIN && page.forget_token);
	}
}

void
test_listing(void)
{
	test_who();
	test_databricks_scope();
	test_databricks_page();
	test_adf_list();
	test_weather();
}
