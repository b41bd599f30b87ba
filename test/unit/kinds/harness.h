/*-------------------------------------------------------------------------
 * harness.h
 *	  Checks, and an attempt that a test leads through its exchanges
 *
 * A check counts and goes on; a failed one says where.  What a kind
 * allocates is left to the end of the process, as a memory context would be
 * thrown away.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KINDS_HARNESS_H
#define WEIR_KINDS_HARNESS_H

#include "mem.h"

#include "kind_int.h"

extern int	checks_passed;
extern int	checks_failed;

extern bool check_true(bool ok, const char *file, int line, const char *fmt,...)
			pg_attribute_printf(4, 5);
extern bool check_int(int64 actual, int64 expected, const char *file, int line, const char *what);
extern bool check_str(const char *actual, const char *expected, const char *file, int line, const char *what);
extern bool check_has(const char *text, const char *part, const char *file, int line, const char *what);
extern bool check_json(const cJSON *actual, const char *expected, const char *file, int line, const char *what);

#define CHECK(cond) check_true((cond), __FILE__, __LINE__, "%s", #cond)
#define CHECK_INT(actual, expected) check_int((actual), (expected), __FILE__, __LINE__, #actual)
#define CHECK_STR(actual, expected) check_str((actual), (expected), __FILE__, __LINE__, #actual)
/* contains; "!part": does not contain */
#define CHECK_HAS(text, part) check_has((text), (part), __FILE__, __LINE__, #text)
/* equal as JSON, whatever the order of members */
#define CHECK_JSON(actual, expected) check_json((actual), (expected), __FILE__, __LINE__, #actual)

extern cJSON *from_text(const char *text);	/* single quotes stand for double ones; aborts on bad JSON */

/* One attempt, as the conductor would keep it */
typedef struct Attempt
{
	const TaskKind *kind;
	KindCall	call;
	KindRequest request;		/* the latest */
	KindProblem problem;
	KindVerdict verdict;		/* the latest */
	char	   *external_url;
	cJSON	   *committed;		/* kind_state, as of the last commit */
	KindStep	committed_step;
} Attempt;

#define NOW_MS INT64_C(1795226400000)	/* 2026-11-21T02:00:00Z */

extern void attempt_init(Attempt *attempt, const char *kind, const char *spec, const char *options,
						 const char *base_url);
extern void attempt_begin(Attempt *attempt);	/* first_step */
/* The conductor dies: what was not committed is gone; resume_step decides */
extern void attempt_crash(Attempt *attempt);
extern bool attempt_request(Attempt *attempt);
extern void attempt_response(Attempt *attempt, const KindResponse *response);

/* attempt_request, which must succeed, and an answer; false if it could not */
extern bool answer(Attempt *attempt, int http_status, const char *body);
extern bool answer_after(Attempt *attempt, int http_status, const char *body, int64 retry_after_ms);
/* headers: lines "Name: value\n" */
extern bool answer_with(Attempt *attempt, int http_status, const char *headers, const char *body, int64 retry_after_ms);
extern bool lose(Attempt *attempt, bool request_sent);
extern cJSON *sent(const Attempt *attempt);	/* body of the latest request */

extern void test_common(void);
extern void test_http(void);
extern void test_adf(void);
extern void test_databricks(void);
extern void test_databricks_kinds(void);
extern void test_hostile(void);
extern void test_probe(void);
extern void test_follow(void);
extern void test_listing(void);
extern void test_fabric(void);
extern void test_webhook(void);
extern void test_storage(void);

#endif							/* WEIR_KINDS_HARNESS_H */
