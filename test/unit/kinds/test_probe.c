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
		{"keyvault", "{}", "/secrets?api-version=7.4&maxresults=1"},
		{"keyvault", "{'api_version': '2025-07-01'}", "/secrets?api-version=2025-07-01&maxresults=1"},
		{"storage", "{}", "/?comp=list&maxresults=1"},
		{"storage", "{'container': 'lake'}", "/lake?restype=container&comp=list&maxresults=1"},
		{"storage", "{'container': '$web'}", "/%24web?restype=container&comp=list&maxresults=1"},
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

#define NO		KIND_PROBE_FAILED
#define YES		KIND_PROBE_OK
#define UNKNOWN	KIND_PROBE_UNKNOWN

typedef struct AnswerCase
{
	const char *kind;
	int			http_status;
	const char *body;
	KindProbeStep sign_in;
	KindProbeStep permission;
	const char *detail;			/* contains; NULL: none */
	const char *hint;
} AnswerCase;

static void
check_answer(const AnswerCase *expected, const char *options, bool has_service_sas, const char *headers)
{
	KindResponse response = {0};
	KindProbe	probe = {0};
	char	   *body = mem_strdup(expected->body);

	for (char *p = body; *p && body[0] != '<'; p++)
		if (*p == '\'')
			*p = '"';
	response.http_status = expected->http_status;
	response.headers = headers;
	response.body = body;
	response.body_len = strlen(body);
	response.transport_error = expected->http_status == 0 ? "it broke off" : NULL;
	kind_probe_response(expected->kind, from_text(options), has_service_sas, &response, &probe);
	CHECK(probe.sign_in == expected->sign_in);
	CHECK(probe.permission == expected->permission);
	CHECK((probe.detail == NULL) == (expected->detail == NULL));
	CHECK((probe.hint == NULL) == (expected->hint == NULL));
	if (probe.detail != NULL && expected->detail != NULL)
		CHECK_HAS(probe.detail, expected->detail);
	if (probe.hint != NULL && expected->hint != NULL)
		CHECK_HAS(probe.hint, expected->hint);
}

static void
test_answers(void)
{
	static const AnswerCase cases[] = {
		{"adf", 200, "{}", YES, YES, NULL, NULL},
		{"adf", 401, "{'error': {'code': 'ExpiredToken', 'message': 'It expired.'}}", NO, NO, "ExpiredToken: It expired.", "secret current"},
		{"adf", 403, "{'error': {'code': 'AuthorizationFailed', 'message': 'Not you.'}}", YES, NO, "AuthorizationFailed: Not you.", "the data factory"},
		{"adf", 404, "{}", YES, NO, "HTTP status 404", "Could not find the data factory"},
		{"databricks", 302, "", YES, NO, "HTTP status 302", "base_url"},
		{"databricks", 403, "{'error_code': 'PERMISSION_DENIED', 'message': 'Not you.'}", YES, NO, "PERMISSION_DENIED: Not you.", "list of jobs"},
		{"databricks", 403, "{'error_code': 'PERMISSION_DENIED', 'message': 'Invalid access token.'}", NO, NO, "Invalid access token", "secret current"},
		{"databricks", 429, "", YES, NO, "HTTP status 429", "later"},
		{"databricks", 503, "", YES, NO, "HTTP status 503", "later"},
		{"fabric", 403, "{'errorCode': 'InsufficientPrivileges', 'message': 'Not you.'}", YES, NO, "Not you.", "list of workspaces"},
		{"http", 404, "nothing here", YES, YES, "HTTP status 404", NULL},
		{"http", 302, "", YES, YES, "HTTP status 302", NULL},
		{"http", 403, "", YES, NO, "HTTP status 403", "the address"},
		{"http", 500, "", YES, NO, "HTTP status 500", "later"},
		{"http", 0, "", YES, NO, "no answer: it broke off", "reached"},
		{"keyvault", 403, "{'error': {'code': 'Forbidden', 'message': 'No list.', 'innererror': {'code': 'ForbiddenByRbac'}}}",
		YES, UNKNOWN, "Forbidden: No list.", "may not list the vault's secrets"},
		{"keyvault", 403, "{'error': {'code': 'Forbidden', 'message': 'Not from there.', 'innererror': {'code': 'ForbiddenByFirewall'}}}",
		YES, NO, "Not from there.", "may not see the vault's list"},
		{"storage", 403, "<?xml version='1.0'?><Error><Code>AuthorizationPermissionMismatch</Code><Message>No.</Message></Error>",
		YES, UNKNOWN, "HTTP status 403: AuthorizationPermissionMismatch: No.", "may not list the account's containers"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
		check_answer(&cases[i], "{}", false, NULL);
}

/* Who lacks a right, whose network is refused, who is not known; and the SAS of a container, which no answer about the account concerns */
static void
test_parts_of_an_account(void)
{
	static const struct
	{
		const char *code;		/* in the header */
		const char *options;
		bool		has_service_sas;
		AnswerCase	expected;
	}			cases[] = {
		{"AuthorizationResourceTypeMismatch", "{}", false, {"storage", 403, "", YES, UNKNOWN, "AuthorizationResourceTypeMismatch", "option \"container\""}},
		{"AuthorizationFailure", "{}", false, {"storage", 403, "", YES, NO, "AuthorizationFailure", "may not see the account's list"}},
		{"AuthenticationFailed", "{}", false, {"storage", 403, "", NO, NO, "AuthenticationFailed", "secret current"}},
		{"AuthenticationFailed", "{}", true, {"storage", 403, "", UNKNOWN, UNKNOWN, "AuthenticationFailed", "never list"}},
		{"AuthenticationFailed", "{'container': 'lake'}", true, {"storage", 403, "", NO, NO, "AuthenticationFailed", "secret current"}},
		{"AuthorizationPermissionMismatch", "{'container': 'lake'}", true, {"storage", 403, "", YES, UNKNOWN, "AuthorizationPermissionMismatch", "names they know"}},
		{"ContainerNotFound", "{'container': 'lake'}", false, {"storage", 404, "", YES, NO, "ContainerNotFound", "Could not find the container"}},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
		check_answer(&cases[i].expected, cases[i].options, cases[i].has_service_sas, mem_printf("x-ms-error-code: %s\n", cases[i].code));
}

void
test_probe(void)
{
	test_requests();
	test_answers();
	test_parts_of_an_account();
}
