/*-------------------------------------------------------------------------
 * http_int.h
 *	  What the files of kind http share; webhook builds its request with it
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_HTTP_INT_H
#define WEIR_HTTP_INT_H

#include "kind_int.h"

#define HTTP_TRIES		5		/* of one attempt; the task's retry policy is for more */
#define HTTP_MAX_URL	8192

/* http.c */
extern bool http_build_url(const KindCall *call, KindRequest *request, KindProblem *problem);
extern void http_build_body(const cJSON *spec, KindRequest *request);
extern const cJSON *http_build_headers(const KindCall *call, const KindRequest *request);
extern bool http_is_repeatable(const KindCall *call);	/* its first request */
extern bool http_is_expected(const cJSON *spec, int status);
extern bool http_is_refusal(const KindResponse *response);	/* an answer that says that nothing was done */
extern bool http_check_request(const cJSON *spec, KindProblem *problem);	/* method, url, headers, ... */
extern bool http_method(const cJSON *spec, KindRequest *request);	/* false: unknown */
extern void http_add_query(StrBuf *url, const cJSON *query);
/* Not answered, refused or unexpected: goes on or fails, see http.c */
extern void http_not_expected(const KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* http_spec.c: everything beyond one exchange */
extern bool http_check_rest(const cJSON *spec, KindProblem *problem);

/* http_where.c: addresses an answer or a pattern gives */
extern cJSON *http_fill_in_all(const KindCall *call, const cJSON *tree);	/* a copy, "{id}" and "{token}" replaced */
/*
 * What {"header": ...}, {"json": ...} or {"path": ...} stands for, as an
 * absolute URL; response is the answer to asked.  NULL, and *problem a text if
 * there was something but it may not be followed, else NULL.
 */
extern char *http_where(const KindCall *call, const cJSON *where, const KindResponse *response, const cJSON *body,
						const char *asked, const char **problem);
/* A link as an absolute URL that may be followed, or NULL and *problem */
extern char *http_follow(const KindCall *call, const char *link, const char *asked, const char **problem);
/* GET it; the connection's credentials and headers go to its own origin only */
extern void http_get(const KindCall *call, const char *url, KindRequest *request);
extern char *http_start_url(const KindCall *call);	/* of the first request, or NULL */

/* http_output.c */
extern cJSON *http_output(const KindResponse *response);
/* Succeed with the answer: outputs and row counts by their paths */
extern void http_succeed(const KindCall *call, const KindResponse *response, const cJSON *body, KindVerdict *verdict);
/* The page of what was started, where the spec's "link" finds one in an answer; once */
extern void http_note_link(KindCall *call, const cJSON *spec, const cJSON *body, KindVerdict *verdict);
extern void http_say_error(const KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* http_poll.c: POLL, CANCEL, LOOKUP and the result */
extern void http_started(KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern bool http_poll_request(const KindCall *call, KindRequest *request, KindProblem *problem);
extern void http_poll_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* http_pages.c: the last answer, and the pages behind it */
extern void http_finish(KindCall *call, const KindResponse *response, const cJSON *body, const char *asked, KindVerdict *verdict);
extern bool http_page_request(const KindCall *call, KindRequest *request, KindProblem *problem);	/* false: it is no page */

#endif							/* WEIR_HTTP_INT_H */
