/*-------------------------------------------------------------------------
 * kind_int.h
 *	  What the files of src/kind share and nobody else calls
 *
 * Strings returned come from mem_alloc, trees from cJSON, in the context
 * current at the call.  Nothing here raises an error except for memory.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KIND_INT_H
#define WEIR_KIND_INT_H

#include "json.h"
#include "kind.h"

/* Exchanges of one step that may go wrong in a row before we give up */
#define KIND_START_TRIES	10
#define KIND_LOOK_TRIES		20	/* PREPARE, LOOKUP */
#define KIND_POLL_TRIES		60
#define KIND_EXTRA_TRIES	5	/* DETAIL, CANCEL: we can do without */
#define KIND_HOPELESS_TRIES	5	/* an answer that somebody has to do something about, while nothing runs */

#define KIND_MAX_STARTS		5	/* times START is sent again after LOOKUP found nothing */
#define KIND_MAX_BODY		(32 * 1024 * 1024)
#define KIND_MAX_MESSAGE	8192
#define KIND_MAX_OUTPUT		(256 * 1024)	/* of one activity, or of a body */

/* kind.c: what to do next */
extern void kind_continue(KindVerdict *verdict, KindStep next_step, int64 delay_ms);
/* Give up knowing that work may go on in the engine: never retryable */
extern void kind_fail_unknown(KindVerdict *verdict, const char *message);
/* Fail on an HTTP status the kind does not understand: 4xx is a user error */
extern void kind_fail_status(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* The same for a request that must not be sent twice, however passing the status is */
extern void kind_fail_unrepeatable(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
/*
 * No usable answer; "arrived": the engine may have acted upon the request.
 * Goes on with the same step or with LOOKUP, or gives up.
 */
extern void kind_unanswered(const KindCall *call, int64 retry_after_ms, bool arrived,
							bool starts_work, bool is_repeatable, int max_tries,
							const char *code, const char *message, KindVerdict *verdict);
/* A 2xx answer that cannot be used: like no answer */
extern void kind_bad_answer(const KindCall *call, const KindResponse *response, const char *what,
							bool starts_work, bool is_repeatable, int max_tries, KindVerdict *verdict);
/* Credentials were refused, whatever the status */
extern bool kind_is_unauthorized(const KindResponse *response);
/* advice.c: a page for people where an API was asked */
extern bool kind_is_web_page(const KindResponse *response);
/* Add to error_detail of a failure what can be done about it, if that is known */
extern void kind_advise(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* The same, and if it was the answer's form that failed it: a user error, not tried again */
extern void kind_hopeless(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* The pause before exchange number tries + 1 of a step */
extern int64 kind_retry_delay(const KindCall *call, int64 retry_after_ms);

/* listing.c: the object of a page of a list of runs; NULL: page->result says why there is none */
extern cJSON *kind_page_object(const KindResponse *response, KindPage *page);
extern void kind_page_add(KindPage *page, int room, const char *id);	/* a run that goes on, of at most room */

/* TaskKind.start_place: kind and id, in lower case */
extern char *kind_start_place(const char *kind, const char *id);
/* A verdict of START: it ends the attempt, and nothing can have begun */
extern void kind_leave_place(const KindCall *call, KindVerdict *verdict);

/* kind_state: set marks the verdict so that it is committed */
extern void kind_state_set(const KindCall *call, KindVerdict *verdict, const char *name, cJSON *value);
extern void kind_state_set_int64(const KindCall *call, KindVerdict *verdict, const char *name, int64 value);
extern void kind_state_set_string(const KindCall *call, KindVerdict *verdict, const char *name, const char *value);
extern void kind_state_drop(const KindCall *call, KindVerdict *verdict, const char *name);
extern const cJSON *kind_state_get(const KindCall *call, const char *name);
extern int64 kind_state_int64(const KindCall *call, const char *name, int64 absent);
extern const char *kind_state_string(const KindCall *call, const char *name);
extern bool kind_state_bool(const KindCall *call, const char *name);

/* text.c: bytes from outside */
/* Value of a header of the answer, trimmed, or NULL */
extern char *kind_header(const KindResponse *response, const char *name);
/* Valid UTF-8 without control characters (other than tab and newline), at most limit bytes */
extern char *kind_clean_text(const char *text, size_t len, size_t limit);
/* NULL and *error if it is not JSON */
extern cJSON *kind_parse_body(const KindResponse *response, char **error);
/* The same, but anything that is no object is NULL too */
extern cJSON *kind_parse_object(const KindResponse *response);
/* What an error answer says, whatever it looks like; *code is "http_NNN" if it names none */
extern void kind_body_error(const KindResponse *response, char **code, char **message);
/* Copy of an output, or a note of its size if it is longer than limit */
extern cJSON *kind_limited_copy(const cJSON *item, size_t limit);
extern void kind_url_encode(StrBuf *buf, const char *text);
/* An http(s) address fit to be shown, or NULL */
extern const char *kind_link(const cJSON *item);

/* link.c: where answers lead */
extern char *kind_link_header(const KindResponse *response);	/* target of rel="next", or NULL */
/* Scheme, host and port alike; false for what is no URL */
extern bool kind_same_origin(const char *one, const char *other);
/* A link of an answer as an absolute URL that parses strictly, or NULL */
extern char *kind_resolve_link(const char *base, const char *link);
/* Hosts as in weir.allowed_hosts: "api.example.com", "*.example.com", "host:8443" */
extern bool kind_host_is_listed(const cJSON *hosts, const char *url);
/* "30 seconds", "5 minutes" or a number of seconds, at most 31 days; -1 if it is none */
extern int64 kind_duration_ms(const cJSON *item);

/* ISO 8601 in UTC with milliseconds; NULL outside of years 1970 .. 9999 */
extern char *kind_time_text(int64 epoch_ms);
extern bool kind_time_parse(const char *text, int64 *epoch_ms);	/* NULL text: false */

/* Members of objects, tolerant of anything */
extern const cJSON *kind_member(const cJSON *object, const char *name);
extern const char *kind_string(const cJSON *object, const char *name);	/* NULL if absent, empty or no string */
extern int64 kind_int64(const cJSON *object, const char *name, int64 absent);
extern char *kind_id(const cJSON *object, const char *name);	/* string or integer as text, exactly */
extern char *kind_scalar_text(const cJSON *item);	/* strings as they are, the rest as JSON */
/* Is text one of these scalars, whatever the case? */
extern bool kind_is_listed(const cJSON *list, const char *text);

/* spec.c: checking specs */
#define KIND_TYPE_STRING	1
#define KIND_TYPE_INTEGER	2
#define KIND_TYPE_NUMBER	4
#define KIND_TYPE_BOOLEAN	8
#define KIND_TYPE_OBJECT	16
#define KIND_TYPE_ARRAY		32
#define KIND_TYPE_ANY		64

typedef struct KindMember
{
	const char *name;
	unsigned	types;			/* a string with a reference passes for any */
	bool		is_required;
} KindMember;

extern bool kind_check_members(const cJSON *spec, const KindMember *members, int nmembers,
							   KindProblem *problem);
/* A problem found within a member: "$.poll" and "$.status" become "$.poll.status".  False. */
extern bool kind_problem_at(const char *place, KindProblem *problem);
/* Of a member that must not be empty */
extern bool kind_check_filled(const cJSON *spec, const char *name, KindProblem *problem);
/* Of one that becomes part of a URL: letters, digits, "-" and "_" */
extern bool kind_check_id(const cJSON *spec, const char *name, const char *hint, KindProblem *problem);

/* What is absent, null or still to be rendered passes all of these.  at: path of the object, "$" for the spec */
extern bool kind_check_integer(const cJSON *object, const char *at, const char *name, int64 least, int64 most, KindProblem *problem);
/* choices: up to a NULL */
extern bool kind_check_choice(const cJSON *spec, const char *name, const char *const *choices, const char *hint, KindProblem *problem);
/* Strings that are not empty; what: "the name of a table" */
extern bool kind_check_texts(const cJSON *spec, const char *name, const char *what, int most, KindProblem *problem);
/* Values of an object that are no structures; what: "a parameter" */
extern bool kind_check_scalars(const cJSON *spec, const char *name, const char *what, KindProblem *problem);
extern bool kind_check_duration(const cJSON *item, const char *path, int64 least_ms, KindProblem *problem);
extern bool kind_check_json_path(const cJSON *item, const char *path, KindProblem *problem);
#define KIND_MAX_PATH	8000
/* What is joined to a connection's base URL, and stays below it */
extern bool kind_check_path(const cJSON *item, const char *path, const char *hint, KindProblem *problem);
extern bool kind_path_climbs(const char *path);	/* a segment "..", also in disguise */
/* False, for the caller to return */
extern bool kind_problem(KindProblem *problem, const char *path, const char *message, const char *hint);
/* A reference, still to be rendered: it may become anything, and is checked then */
extern bool kind_may_become(const KindProblem *problem, const cJSON *item);
extern bool kind_text_may_become(const KindProblem *problem, const char *text);

#endif							/* WEIR_KIND_INT_H */
