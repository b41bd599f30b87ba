/*-------------------------------------------------------------------------
 * test_storage.c
 *	  Kinds storage, file_away and keyvault: names, patterns, XML, and what
 *	  they ask and conclude where no server can be made to answer like that
 *-------------------------------------------------------------------------
 */
#include "harness.h"
#include "storage_int.h"
#include "xml.h"

#define BASE "https://acct.blob.core.windows.net"
#define XML_HEAD "<?xml version=\"1.0\" encoding=\"utf-8\"?>"

static Attempt a;

static void
test_globs(void)
{
	static const struct
	{
		const char *pattern;
		const char *name;
		bool		matches;
	}			cases[] = {
		{"*", "a.csv", true}, {"*", "d/a.csv", false}, {"**", "d/a.csv", true}, {"*.csv", "a.csv", true},
		{"*.csv", "a.csv.gz", false}, {"**.csv", "x/y/a.csv", true}, {"*/a.csv", "x/a.csv", true},
		{"*/a.csv", "x/y/a.csv", false}, {"**/a.csv", "x/y/a.csv", true}, {"a?c", "abc", true}, {"a?c", "a/c", false},
		{"a?c", "ac", false}, {"", "", true}, {"", "a", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "aXbY", false},
		{"***", "a/b", true}, {"**?", "", false}, {"day=*/part-*.csv", "day=1/part-0.csv", true},
		{"*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
		check_true(storage_glob(cases[i].pattern, cases[i].name) == cases[i].matches, __FILE__, __LINE__,
				   "%s on %s", cases[i].pattern, cases[i].name);
}

static void
test_names(void)
{
	static const char *const bad[] = {"", "/a", "a/", "a/../b", "..", "./a", "a/.", "a\\b", "a\nb"};
	static const char *const good[] = {"a", "a/b", "a..b", "...", "a/.b", "day=1/x y.csv"};

	for (size_t i = 0; i < lengthof(bad); i++)
		check_true(storage_name_problem(bad[i], false) != NULL, __FILE__, __LINE__, "\"%s\" is a name", bad[i]);
	for (size_t i = 0; i < lengthof(good); i++)
		check_true(storage_name_problem(good[i], false) == NULL, __FILE__, __LINE__, "\"%s\" is no name", good[i]);
	CHECK(storage_name_problem("a/", true) == NULL);
	CHECK_STR(storage_url(BASE, "lake", "a b/\xC3\xBC+%.csv"), BASE "/lake/a%20b/%C3%BC%2B%25.csv");
	CHECK(storage_same_path("https://x/lake/a%20b?sig=1", "http://y:1/lake/a b"));
	CHECK(!storage_same_path("https://x/lake/a", "https://x/lake/b"));
	CHECK_STR(storage_date(NOW_MS), "Sat, 21 Nov 2026 02:00:00 GMT");
}

static int	elements;

static void
count_element(void *arg, const char *path, const char *text, bool is_encoded)
{
	(void) arg;
	(void) path;
	(void) text;
	(void) is_encoded;
	elements++;
}

static void
test_xml(void)
{
	static const struct
	{
		const char *text;
		const char *error;
	}			cases[] = {
		{"<a><b>x</b></a>", NULL},
		{XML_HEAD "<a>&amp;&#65;</a>", NULL},
		{"", "not well-formed"},
		{"<a>", "not well-formed"},
		{"<a></b>", "not well-formed"},
		{"<a>&unknown;</a>", "not well-formed"},
		{"<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", "document type"},
		{"<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "document type"},
		{"<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a>", "too deep"},
	};
	const char *error;
	StrBuf		buf;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		bool		ok = xml_read(cases[i].text, strlen(cases[i].text), count_element, NULL, &error);

		CHECK(ok == (cases[i].error == NULL));
		if (cases[i].error != NULL)
			CHECK_HAS(error, cases[i].error);
	}
	strbuf_init(&buf);
	strbuf_addstr(&buf, "<a>");
	while (buf.len < 300000)
		strbuf_addstr(&buf, "xxxxxxxxxx");
	strbuf_addstr(&buf, "</a>");
	CHECK(!xml_read(buf.data, buf.len, count_element, NULL, &error));
	CHECK_HAS(error, "too long");
}

static void
begin(const char *kind, const char *spec, const char *options)
{
	attempt_init(&a, kind, spec, options, BASE);
	attempt_begin(&a);
}

#define BLOB(name, size) "<Blob><Name>" name "</Name><Properties><Last-Modified>Sat, 21 Nov 2026 01:00:00 GMT</Last-Modified>" \
	"<Etag>0x1</Etag><Content-Length>" size "</Content-Length></Properties></Blob>"
#define LIST(blobs, marker) XML_HEAD "<EnumerationResults><Blobs>" blobs "</Blobs><NextMarker>" marker "</NextMarker></EnumerationResults>"

static void
test_list(void)
{
	begin("storage", "{'operation': 'list', 'container': 'lake', 'prefix': 'in/', 'glob': '*.csv', 'max_files': 2}", "{}");
	answer(&a, 200, LIST(BLOB("in/a.csv", "3") BLOB("in/b.txt", "9"), "n+1"));
	CHECK_STR(a.request.url, BASE "/lake?restype=container&comp=list&maxresults=1000&prefix=in%2F");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	/* a page that is cut off is asked for again, and nothing of it is counted twice */
	answer(&a, 200, "<EnumerationResults><Blobs>" BLOB("in/c.csv", "4") "<Blob>");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer(&a, 200, LIST(BLOB("in/c.csv", "4") "<Blob><Name Encoded=\"true\">in/%ef%bf%bf.csv</Name></Blob>", ""));
	CHECK_STR(a.request.url, BASE "/lake?restype=container&comp=list&maxresults=1000&prefix=in%2F&marker=n%2B1");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(a.verdict.output, "{'count': 2, 'bytes': 7, 'truncated': true, 'files': ["
			   "{'name': 'in/a.csv', 'size': 3, 'etag': '0x1', 'modified': '2026-11-21T01:00:00.000Z'},"
			   "{'name': 'in/c.csv', 'size': 4, 'etag': '0x1', 'modified': '2026-11-21T01:00:00.000Z'}]}");

	/* folders are no files */
	begin("storage", "{'operation': 'list', 'container': 'lake'}", "{'dfs_url': 'https://acct.dfs.core.windows.net'}");
	answer(&a, 200, LIST("<Blob><Name>in</Name><Properties/><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>"
						 "<Blob><Name>out</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>" BLOB("in/a", "1"), ""));
	CHECK_HAS(a.request.url, "&include=metadata");
	CHECK_INT(kind_int64(a.verdict.output, "count", -1), 1);

	/* a page of HTML is no list, and a crash begins the list anew */
	begin("storage", "{'operation': 'list', 'container': 'lake'}", "{}");
	answer(&a, 200, LIST(BLOB("a", "1"), "m"));
	attempt_crash(&a);
	answer(&a, 200, "<html><body>hello</body></html>");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer(&a, 200, LIST(BLOB("a", "1"), ""));
	CHECK_INT(kind_int64(a.verdict.output, "count", -1), 1);
	begin("storage", "{'operation': 'list', 'container': 'lake'}", "{}");
	answer(&a, 404, XML_HEAD "<Error><Code>ContainerNotFound</Code><Message>gone\nRequestId:1</Message></Error>");
	CHECK_STR(a.verdict.error_code, "ContainerNotFound");
	CHECK_HAS(a.verdict.error_message, "!RequestId");
}

static void
test_wait(void)
{
	begin("storage", "{'operation': 'wait', 'container': 'lake', 'min_count': 1, 'stable': true, 'min_age_seconds': 600, 'every_seconds': 5}", "{}");
	answer_with(&a, 200, "Date: Sat, 21 Nov 2026 01:05:00 GMT\n", LIST(BLOB("a", "1"), ""), -1);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.verdict.delay_ms, 5000);
	answer_with(&a, 200, "Date: Sat, 21 Nov 2026 01:20:00 GMT\n", LIST(BLOB("a", "2"), ""), -1);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);	/* old enough, but it has grown */
	answer_with(&a, 200, "Date: Sat, 21 Nov 2026 01:20:05 GMT\n", LIST(BLOB("a", "2"), ""), -1);
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin("storage", "{'operation': 'wait', 'container': 'lake', 'min_age_seconds': 600}", "{}");
	answer_with(&a, 200, "Date: Sat, 21 Nov 2026 01:05:00 GMT\n", LIST(BLOB("a", "1"), ""), -1);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK_INT(a.verdict.delay_ms, -1);
}

#define LOOK "ETag: \"0x5\"\nContent-Length: 7\n"
#define OURS LOOK "x-ms-copy-source: " BASE "/lake/in/a\nx-ms-copy-status: "

static void
begin_move(void)
{
	begin("storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/a', 'to': 'out/a'}", "{}");
	answer_with(&a, 200, LOOK, "", -1);
	answer(&a, 404, "");
	CHECK_STR(a.call.spec ? kind_string(kind_member(a.call.kind_state, "work"), "phase") : "", "copy");
}

/* A service that keeps no MD5, copies that take their time, fail, or are not ours */
static void
test_move(void)
{
	begin_move();
	answer_with(&a, 202, "x-ms-copy-status: pending\n", "", -1);
	CHECK_STR(a.request.method, "PUT");
	CHECK_STR(kind_string(a.request.headers, "x-ms-source-if-match"), "\"0x5\"");
	CHECK_STR(kind_string(a.request.headers, "If-None-Match"), "*");
	answer_with(&a, 200, OURS "pending\n", "", -1);
	CHECK_INT(a.verdict.delay_ms, -1);
	attempt_crash(&a);
	answer(&a, 409, "<Error><Code>BlobAlreadyExists</Code></Error>");	/* the copy, sent again */
	answer_with(&a, 200, OURS "success\n", "", -1);
	answer(&a, 202, "");
	CHECK_STR(a.request.method, "DELETE");
	CHECK_STR(kind_string(a.request.headers, "If-Match"), "\"0x5\"");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_JSON(a.verdict.output, "{'count': 1, 'bytes': 7, 'to': 'out/a'}");

	/* what is there is no copy of the source, or another length: nothing is deleted */
	begin_move();
	answer(&a, 409, "<Error><Code>BlobAlreadyExists</Code></Error>");
	answer_with(&a, 200, LOOK, "", -1);
	CHECK_STR(a.verdict.error_code, "destination_exists");
	begin_move();
	answer(&a, 202, "");
	answer_with(&a, 200, "ETag: \"0x6\"\nContent-Length: 6\nx-ms-copy-source: " BASE "/lake/in/a\nx-ms-copy-status: success\n", "", -1);
	CHECK_STR(a.verdict.error_code, "destination_exists");
	begin_move();
	answer(&a, 202, "");
	answer_with(&a, 200, OURS "aborted\n", "", -1);
	answer(&a, 202, "");
	CHECK_STR(a.request.method, "DELETE");	/* of what is no copy */
	CHECK_STR(a.request.url, BASE "/lake/out/a");
	CHECK_STR(a.verdict.error_code, "copy_failed");
	CHECK(a.verdict.is_retryable);

	/* the next attempt writes over what a failed copy left, and over nothing else */
	begin("storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/a', 'to': 'out/a'}", "{}");
	answer_with(&a, 200, LOOK, "", -1);
	answer_with(&a, 200, OURS "aborted\n", "", -1);
	answer(&a, 202, "");
	CHECK_STR(kind_string(a.request.headers, "If-Match"), "\"0x5\"");

	/* MD5s that differ */
	begin("storage", "{'operation': 'copy', 'container': 'lake', 'from': 'in/a', 'to': 'out/a'}", "{}");
	answer_with(&a, 200, LOOK "Content-MD5: one\n", "", -1);
	answer(&a, 404, "");
	answer(&a, 202, "");
	answer_with(&a, 200, OURS "success\nContent-MD5: two\n", "", -1);
	CHECK_STR(a.verdict.error_code, "destination_exists");

	/* what is to be overwritten looks like a copy, but of an older source: it is no proof */
	begin("storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/a', 'to': 'out/a', 'overwrite': true}", "{}");
	answer_with(&a, 200, LOOK, "", -1);
	answer_with(&a, 200, OURS "success\nx-ms-copy-id: old\n", "", -1);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "PUT");
	answer(&a, 412, "<Error><Code>ConditionNotMet</Code></Error>");
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "HEAD");
	answer_with(&a, 200, LOOK, "", -1);
	answer_with(&a, 200, OURS "success\nx-ms-copy-id: old\n", "", -1);
	answer_with(&a, 202, "x-ms-copy-id: new\n", "", -1);
	CHECK_STR(a.request.method, "PUT");
	answer_with(&a, 200, OURS "success\nx-ms-copy-id: new\n", "", -1);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.method, "DELETE");

	/* a source that changes all the time */
	begin_move();
	for (int i = 0; i < 20 && a.verdict.outcome == KIND_CONTINUE; i++)
	{
		answer(&a, 412, "<Error><Code>SourceConditionNotMet</Code></Error>");
		if (a.verdict.outcome == KIND_CONTINUE)
			answer_with(&a, 200, LOOK, "", -1);
		if (a.verdict.outcome == KIND_CONTINUE)
			answer(&a, 404, "");
	}
	CHECK_STR(a.verdict.error_code, "file_changed");
}

#define COPY(id, status) "ETag: \"0x7\"\nContent-Length: 7\nx-ms-copy-id: " id "\nx-ms-copy-status: " status "\n"
#define MINE(id, status) COPY(id, status) "x-ms-copy-source: " BASE "/lake/in/a\n"

/* What cancelling sends, up to the end */
static void
cancel(void)
{
	a.call.step = KIND_STEP_CANCEL;
	a.call.step_tries = 0;
	kind_verdict_init(&a.verdict);
}

/* Copies that the service makes in its own time, whose answers are lost, and that are given up */
static void
test_pending(void)
{
	/* followed under its id, which a crash does not lose */
	begin_move();
	CHECK(!a.kind->can_cancel(&a.call));	/* it was not asked for yet */
	a.call.is_asking = true;
	CHECK(a.kind->can_cancel(&a.call));
	a.call.is_asking = false;
	answer(&a, 503, "");
	CHECK(a.kind->can_cancel(&a.call));
	answer_with(&a, 202, COPY("c1", "pending"), "", -1);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, "c1");
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	answer_with(&a, 200, MINE("c1", "pending"), "", -1);
	CHECK_INT(a.verdict.delay_ms, -1);
	for (int i = 0; i < 15; i++)
		answer(&a, 503, "");	/* giving up would not be for good, and is not near */
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, "c1");
	answer_with(&a, 200, MINE("c1", "success"), "", -1);
	CHECK_STR(a.call.external_run_id, NULL);	/* it names nothing any more, after a crash either */
	attempt_crash(&a);
	CHECK_INT(a.call.step, KIND_STEP_START);
	answer(&a, 202, "");
	CHECK_STR(a.request.method, "DELETE");
	CHECK_STR(a.request.url, BASE "/lake/in/a");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);

	/* the answer is lost: look for it, and send it again only if it did not arrive */
	begin_move();
	CHECK(lose(&a, true));
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 404, "");
	CHECK_INT(a.call.step, KIND_STEP_START);
	CHECK(lose(&a, true));
	CHECK_STR(a.request.method, "PUT");
	answer_with(&a, 200, MINE("c2", "pending"), "", -1);
	CHECK_INT(a.call.step, KIND_STEP_POLL);
	CHECK_STR(a.call.external_run_id, "c2");
	begin_move();
	for (int i = 0; i < 100 && a.verdict.outcome == KIND_CONTINUE; i++)
	{
		lose(&a, true);
		if (a.verdict.outcome == KIND_CONTINUE)
			answer(&a, 404, "");
	}
	CHECK_STR(a.verdict.error_code, "no_answer");
	CHECK(a.verdict.is_retryable);
	CHECK(!a.verdict.may_go_on);

	/* the source goes away meanwhile: nothing is left that looks like a file, and nothing more is deleted */
	begin_move();
	answer_with(&a, 202, COPY("c3", "pending"), "", -1);
	answer_with(&a, 200, MINE("c3", "failed") "x-ms-copy-status-description: 404 BlobNotFound\n", "", -1);
	CHECK_INT(a.call.step, KIND_STEP_DETAIL);
	answer(&a, 202, "");
	CHECK_STR(a.request.url, BASE "/lake/out/a");
	CHECK_STR(kind_string(a.request.headers, "If-Match"), "\"0x7\"");
	CHECK_STR(a.verdict.error_code, "copy_failed");
	CHECK_HAS(a.verdict.error_message, "404 BlobNotFound");
	/* a half-made or failed copy is not what was moved before */
	begin("storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/a', 'to': 'out/a'}", "{}");
	answer(&a, 404, "");
	answer_with(&a, 200, MINE("c3", "pending"), "", -1);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	answer_with(&a, 200, MINE("c3", "failed"), "", -1);
	CHECK_STR(a.verdict.error_code, "file_missing");

	/* another one's copy of our source is waited for; whether it is of this source, its clock tells */
	for (int older = 0; older < 2; older++)
	{
		begin("storage", "{'operation': 'move', 'container': 'lake', 'from': 'in/a', 'to': 'out/a'}", "{}");
		answer_with(&a, 200, older ? LOOK "Last-Modified: Sat, 21 Nov 2026 01:00:00 GMT\n" : LOOK "Last-Modified: Sat, 21 Nov 2026 01:00:05 GMT\n", "", -1);
		answer_with(&a, 200, MINE("c4", "pending") "Last-Modified: Sat, 21 Nov 2026 01:00:05 GMT\n", "", -1);
		CHECK_INT(a.verdict.delay_ms, -1);
		CHECK(!a.kind->can_cancel(&a.call));
		answer_with(&a, 200, MINE("c4", "success"), "", -1);
		if (older)
			answer_with(&a, 200, MINE("c4", "success"), "", -1);
		CHECK(older ? storage_in_phase(&a.call, "delete") : a.verdict.error_code != NULL && strcmp(a.verdict.error_code, "destination_exists") == 0);
	}
	begin("storage", "{'operation': 'copy', 'container': 'lake', 'from': 'in/a', 'to': 'out/a', 'overwrite': true}", "{}");
	answer_with(&a, 200, LOOK, "", -1);
	answer_with(&a, 200, COPY("x", "pending") "x-ms-copy-source: " BASE "/lake/in/b\n", "", -1);
	answer(&a, 409, "<Error><Code>PendingCopyOperation</Code></Error>");
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer_with(&a, 200, COPY("y", "pending") "x-ms-copy-source: " BASE "/lake/in/b\n", "", -1);
	CHECK_STR(a.verdict.error_code, a.verdict.outcome == KIND_FAILED ? "PendingCopyOperation" : NULL);
	CHECK(a.verdict.is_retryable);

	/* given up: aborted, and what is left of it removed, by id and ETag */
	begin_move();
	answer_with(&a, 202, COPY("c5", "pending"), "", -1);
	CHECK(a.kind->can_cancel(&a.call));
	attempt_crash(&a);
	cancel();
	answer_with(&a, 200, MINE("c5", "pending"), "", -1);
	answer(&a, 204, "");
	CHECK_STR(a.request.method, "PUT");
	CHECK_STR(a.request.url, BASE "/lake/out/a?comp=copy&copyid=c5");
	CHECK_STR(kind_string(a.request.headers, "x-ms-copy-action"), "abort");
	answer_with(&a, 200, MINE("c5", "aborted"), "", -1);
	answer(&a, 202, "");
	CHECK_STR(a.request.method, "DELETE");
	CHECK_STR(a.request.url, BASE "/lake/out/a");
	CHECK_STR(kind_string(a.request.headers, "If-Match"), "\"0x7\"");
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
	/* it was whole before that: it stays, and so does the source */
	begin_move();
	answer_with(&a, 202, COPY("c6", "pending"), "", -1);
	cancel();
	answer_with(&a, 200, MINE("c6", "pending"), "", -1);
	answer(&a, 409, "<Error><Code>NoPendingCopyOperation</Code></Error>");
	answer_with(&a, 200, MINE("c6", "success"), "", -1);
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);
	/* somebody else's is left alone */
	begin("storage", "{'operation': 'copy', 'container': 'lake', 'from': 'in/a', 'to': 'out/a', 'overwrite': true}", "{}");
	answer_with(&a, 200, LOOK, "", -1);
	answer_with(&a, 200, MINE("old", "success"), "", -1);
	cancel();
	answer_with(&a, 200, COPY("z", "pending") "x-ms-copy-source: " BASE "/lake/in/b\n", "", -1);
	CHECK_INT(a.verdict.outcome, KIND_CANCELLED);

	/* what was there of an older source, without an MD5, is no copy of the newer one */
	begin_move();
	answer_with(&a, 412, "x-ms-error-code: SourceConditionNotMet\n", "", -1);
	answer_with(&a, 200, "ETag: \"0x9\"\nContent-Length: 7\n", "", -1);
	answer_with(&a, 200, MINE("c7", "success"), "", -1);
	CHECK_STR(a.verdict.error_code, "destination_exists");
}

static void
test_refused_key(void)
{
	static const char headers[] = "x-ms-error-code: AuthenticationFailed\n";

	/* a key out of a vault may have been replaced there: once it is asked for anew */
	begin("storage", "{'operation': 'list', 'container': 'lake'}", "{}");
	answer_with(&a, 403, headers, "", -1);
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK(a.verdict.forget_token);
	answer_with(&a, 403, headers, "", -1);
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "AuthenticationFailed");
	CHECK(a.verdict.is_user_error);
	/* other refusals are none of the key */
	begin("storage", "{'operation': 'list', 'container': 'lake'}", "{}");
	answer_with(&a, 403, "x-ms-error-code: AuthorizationFailure\n", "", -1);
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "AuthorizationFailure");
}

static void
test_keyvault(void)
{
	begin("keyvault", "{'operation': 'get', 'name': 'db'}", "{}");
	answer(&a, 200, "{'value': [{'id': 'https://v/secrets/db/1', 'attributes': {'enabled': true, 'created': 5, 'exp': 1795312800}}],"
		   "'nextLink': 'https://acct.blob.core.windows.net:443/secrets/db/versions?x=1'}");
	CHECK_STR(a.request.url, BASE "/secrets/db/versions?api-version=7.4");
	answer(&a, 200, "{'value': [{'id': 'https://v/secrets/db/2', 'attributes': {'enabled': false, 'created': 4}}], 'nextLink': null}");
	CHECK_STR(a.request.url, BASE "/secrets/db/versions?x=1");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	CHECK_STR(kind_string(a.verdict.output, "version"), "1");
	CHECK_INT(kind_int64(a.verdict.output, "days_left", -1), 1);
	/* a next page on another host gets no token of ours */
	begin("keyvault", "{'operation': 'list'}", "{}");
	answer(&a, 200, "{'value': [], 'nextLink': 'https://evil.example/secrets?x=1'}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK(attempt_request(&a));
	CHECK_STR(a.request.url, BASE "/secrets?api-version=7.4");
	/* a lost answer is looked up before anything is sent again */
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	CHECK(lose(&a, true));
	CHECK_STR(a.request.secret, "s");
	CHECK(strstr(a.request.body, "value") == NULL);
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, "{'value': [{'id': 'https://v/secrets/db/1', 'tags': {'weir_token': 'weir-k1-42-1'}}]}");
	CHECK_INT(a.verdict.outcome, KIND_SUCCEEDED);
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	CHECK(lose(&a, true));
	answer(&a, 404, "{'error': {'code': 'SecretNotFound'}}");
	CHECK_INT(a.call.step, KIND_STEP_START);
	/* not all versions were seen: the newest tells, if it is ours or too old to hide ours */
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	CHECK(lose(&a, true));
	for (int i = 0; i < 200; i++)
	{
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		answer(&a, 200, "{'value': [], 'nextLink': 'https://acct.blob.core.windows.net/secrets/db/versions?x=1'}");
	}
	CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
	answer(&a, 200, mem_printf("{'value': 'hush', 'id': 'https://v/secrets/db/9', 'attributes': {'created': " INT64_FORMAT "}, 'tags': {}}",
							   a.call.intended_at_ms / 1000 + 1));
	CHECK_STR(a.request.url, BASE "/secrets/db?api-version=7.4");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	CHECK(a.verdict.may_go_on);
	/* a time of creation that is none is no old one */
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	CHECK(lose(&a, true));
	answer(&a, 403, "{'error': {'code': 'Forbidden', 'message': 'no list'}}");
	answer(&a, 200, "{'value': 'hush', 'id': 'https://v/secrets/db/9', 'attributes': {'created': 9223372036854774784}}");
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "outcome_unknown");
	/* the same where versions may not be listed */
	for (int i = 0; i < 4; i++)
	{
		begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
		CHECK(lose(&a, true));
		answer(&a, 403, "{'error': {'code': 'Forbidden', 'message': 'no list'}}");
		CHECK_INT(a.call.step, KIND_STEP_LOOKUP);
		if (i == 0)
			answer(&a, 200, mem_printf("{'value': 'hush', 'id': 'https://v/secrets/db/2', 'attributes': {'created': " INT64_FORMAT "}, 'tags': {'weir_token': 'weir-k1-42-1'}}",
									   a.call.now_ms / 1000));
		else if (i == 1)
			answer(&a, 200, "{'value': 'hush', 'id': 'https://v/secrets/db/1', 'attributes': {'created': 5}}");
		else if (i == 2)
			answer(&a, 404, "{'error': {'code': 'SecretNotFound'}}");
		else
			answer(&a, 403, "{'error': {'code': 'Forbidden', 'message': 'no get'}}");
		CHECK(strstr(json_text(a.call.kind_state), "hush") == NULL && strstr(json_text(a.call.scratch), "hush") == NULL);
		CHECK_INT(a.verdict.outcome, i == 0 ? KIND_SUCCEEDED : i == 3 ? KIND_FAILED : KIND_CONTINUE);
		if (i == 0)
			CHECK_HAS(json_text(a.verdict.output), "!hush");
		else if (i == 3)
			CHECK_HAS(a.verdict.error_message, "may neither list nor get");
		else
			CHECK_INT(a.call.step, KIND_STEP_START);
	}
	/* nor may they be listed where clocks differ by an hour: an old version may be a new one, and the other way round */
	for (int hours = -1; hours <= 1; hours++)
	{
		const char *date = hours < 0 ? "Sat, 21 Nov 2026 01:00:00 GMT" : hours > 0 ? "Sat, 21 Nov 2026 03:00:00 GMT" : "Sat, 21 Nov 2026 02:01:00 GMT";

		begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
		CHECK(lose(&a, true));
		answer(&a, 403, "{'error': {'code': 'Forbidden', 'message': 'no list'}}");
		answer_with(&a, 200, mem_printf("Date: %s\n", date), "{'value': 'hush', 'id': 'https://v/secrets/db/1', 'attributes': {'created': 5}}", -1);
		CHECK_INT(a.verdict.outcome, hours == 0 ? KIND_CONTINUE : KIND_FAILED);
		if (hours == 0)
			CHECK_INT(a.call.step, KIND_STEP_START);
		else
		{
			CHECK_STR(a.verdict.error_code, "outcome_unknown");
			CHECK_HAS(a.verdict.error_message, hours < 0 ? "the clock of the database server is 60 minutes ahead of that of the key vault" :
					  "the clock of the database server is 60 minutes behind that of the key vault");
		}
	}
	/* sent so often and never there: given up */
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	for (int i = 0; i <= KIND_MAX_STARTS; i++)
	{
		CHECK_INT(a.call.step, KIND_STEP_START);
		CHECK(lose(&a, true));
		answer(&a, 404, "{'error': {'code': 'SecretNotFound'}}");
	}
	CHECK_INT(a.verdict.outcome, KIND_FAILED);
	CHECK_STR(a.verdict.error_code, "no_answer");
	/* a name that came out of a reference leads nowhere else, whatever it looks like */
	begin("keyvault", "{'operation': 'get', 'name': 'x/../{{y}}?z'}", "{}");
	CHECK(!attempt_request(&a));
	CHECK_HAS(a.problem.message, "not the name of a secret");
	begin("keyvault", "{'operation': 'set', 'name': 'db', 'from_secret': 's'}", "{}");
	CHECK(lose(&a, true));
	answer(&a, 404, "{'error': {'code': 'SecretNotFound'}}");
	/* the answer to a set says the value back: it is in nothing that is kept */
	answer(&a, 200, "{'value': 'hush', 'idd': 1}");
	CHECK_INT(a.verdict.outcome, KIND_CONTINUE);
	CHECK(strstr(json_text(a.call.kind_state), "hush") == NULL);
	answer(&a, 200, "{'value': []}");
	answer(&a, 200, "{'value': 'hush', 'id': 'https://v/secrets/db/3'}");
	CHECK_HAS(json_text(a.verdict.output), "!hush");
}

void
test_storage(void)
{
	test_globs();
	test_names();
	test_xml();
	test_list();
	test_wait();
	test_move();
	test_pending();
	test_refused_key();
	test_keyvault();
}
