/*-------------------------------------------------------------------------
 * test_probe.c
 *	  What weir.test_connection() asks, and what it makes of the answers
 *-------------------------------------------------------------------------
 */
#include "harness.h"

static void
test_requests(void)
{
	static const struct
	{
		const char *kind;
		const char *options;
		const char *url;		/* after the base; NULL: none */
	}			cases[] = {
		{"adf", "{'subscription_id': 's 1', 'resource_group': 'rg', 'factory': 'f'}",
		"/subscriptions/s%201/resourceGroups/rg/providers/Microsoft.DataFactory/factories/f?api-version=2018-06-01"},
		{"adf", "{'subscription_id': 's', 'resource_group': 'rg', 'factory': 'f', 'api_version': '2020-01-01'}",
		"/subscriptions/s/resourceGroups/rg/providers/Microsoft.DataFactory/factories/f?api-version=2020-01-01"},
		{"databricks", "{}", "/api/2.2/jobs/list?limit=1"},
		{"fabric", "{}", "/workspaces"},
		{"http", "{}", "/"},
		{"storage", "{}", "/?comp=list&maxresults=1"},
		{"nothing", "{}", NULL},
		{"redis", "{}", NULL},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindRequest request;
		bool		found = kind_probe_request(cases[i].kind, "https://x.example", from_text(cases[i].options), INT64_C(1700000000000), &request);

		CHECK(found == (cases[i].url != NULL));
		if (!found)
			continue;
		CHECK_STR(request.url, mem_printf("https://x.example%s", cases[i].url));
		CHECK_STR(request.method, "GET");
		CHECK(!request.starts_work);
		/* what a signature needs */
		if (strcmp(cases[i].kind, "storage") == 0)
			CHECK_STR(json_string(kind_member(request.headers, "x-ms-date")), "Tue, 14 Nov 2023 22:13:20 GMT");
	}
}

static void
test_answers(void)
{
	static const struct
	{
		const char *kind;
		int			http_status;
		const char *body;
		bool		is_signed_in;
		bool		is_permitted;
		const char *detail;		/* contains; NULL: none */
		const char *hint;
	}			cases[] = {
		{"adf", 200, "{}", true, true, NULL, NULL},
		{"adf", 401, "{'error': {'code': 'ExpiredToken', 'message': 'It expired.'}}", false, false, "ExpiredToken: It expired.", "secret current"},
		{"adf", 403, "{'error': {'code': 'AuthorizationFailed', 'message': 'Not you.'}}", true, false, "AuthorizationFailed: Not you.", "the data factory"},
		{"adf", 404, "{}", true, false, "HTTP status 404", "Could not find the data factory"},
		{"databricks", 302, "", true, false, "HTTP status 302", "base_url"},
		{"databricks", 429, "", true, false, "HTTP status 429", "later"},
		{"databricks", 503, "", true, false, "HTTP status 503", "later"},
		{"http", 404, "nothing here", true, true, "HTTP status 404", NULL},
		{"http", 302, "", true, true, "HTTP status 302", NULL},
		{"http", 500, "", true, false, "HTTP status 500", "later"},
		{"http", 0, "", false, false, "no answer: it broke off", "reached"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		KindResponse response = {0};
		KindProbe	probe = {0};
		char	   *body = mem_strdup(cases[i].body);

		for (char *p = body; *p; p++)
			if (*p == '\'')
				*p = '"';
		response.http_status = cases[i].http_status;
		response.body = body;
		response.body_len = strlen(body);
		response.transport_error = cases[i].http_status == 0 ? "it broke off" : NULL;
		kind_probe_response(cases[i].kind, &response, &probe);
		CHECK(probe.is_signed_in == cases[i].is_signed_in);
		CHECK(probe.is_permitted == cases[i].is_permitted);
		CHECK((probe.detail == NULL) == (cases[i].detail == NULL));
		CHECK((probe.hint == NULL) == (cases[i].hint == NULL));
		if (probe.detail != NULL && cases[i].detail != NULL)
			CHECK_HAS(probe.detail, cases[i].detail);
		if (probe.hint != NULL && cases[i].hint != NULL)
			CHECK_HAS(probe.hint, cases[i].hint);
	}
}

void
test_probe(void)
{
	test_requests();
	test_answers();
}
