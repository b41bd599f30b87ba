/*-------------------------------------------------------------------------
 * storage_int.h
 *	  What the files about storage accounts share: storage.c (the kind),
 *	  storage_list.c (listing and waiting), storage_file.c, storage_move.c,
 *	  storage_pending.c and storage_end.c (copying, moving, deleting), storage_wire.c (URLs, headers, answers), file_away.c
 *
 * Everything a storage task does may be repeated: each change is guarded by
 * an ETag or by If-None-Match, and what is found done counts as done.  So an
 * attempt has one step, START, and a phase says where it is.  Only copies that
 * the service makes in its own time are looked for, followed and aborted, and
 * have the other steps.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STORAGE_INT_H
#define WEIR_STORAGE_INT_H

#include "kind_int.h"

#define STORAGE_TRIES		20	/* exchanges that may go wrong in a row */
#define STORAGE_MAX_NAME	1024
#define STORAGE_MAX_FILES	10000	/* of one task */
#define STORAGE_MAX_TEXT	(256 * 1024)

typedef enum StorageOperation
{
	STORAGE_LIST,
	STORAGE_WAIT,
	STORAGE_COPY,
	STORAGE_MOVE,
	STORAGE_DELETE,
	STORAGE_PUT,
	STORAGE_UNKNOWN
} StorageOperation;

extern StorageOperation storage_operation(const cJSON *spec);

/* storage_wire.c */
/* NULL, or what is wrong with the name of a blob (a prefix may be empty and end in "/") */
extern const char *storage_name_problem(const char *name, bool is_prefix);
extern bool storage_container_is_valid(const char *name);
extern char *storage_url(const char *base_url, const char *container, const char *name);	/* name NULL: of the container */
/* The headers every request has, to which the caller adds */
extern cJSON *storage_headers(const KindCall *call);
extern char *storage_etag_header(const char *etag);	/* in quotes */
extern char *storage_etag(const char *text, size_t len);	/* without */
/* Do the two addresses name the same blob, however they are written? */
extern bool storage_same_path(const char *url, const char *other);
/* Code and text of an error answer: of the header, XML (blobs) or JSON (data lake); like kind_body_error() */
extern void storage_read_error(const KindResponse *response, char **code, char **message);
/* The code of an error answer, such as BlobNotFound; never NULL */
extern const char *storage_error_code(const KindResponse *response);
/* What every answer may be: true if it filled in the verdict */
extern bool storage_common_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern void storage_fail(const KindCall *call, const KindResponse *response, const char *what, KindVerdict *verdict);
extern void storage_bad_answer(const KindCall *call, const KindResponse *response, const char *what, KindVerdict *verdict);
/* Go on with another exchange at once, or after delay_ms (-1: the conductor's pace) */
extern void storage_go_on(KindVerdict *verdict, int64 delay_ms);
/* Percent-decoded copy */
extern char *storage_decode(const char *text, size_t len);
/* "Sun, 06 Nov 1994 08:49:37 GMT" */
extern char *storage_date(int64 epoch_ms);
extern bool storage_date_parse(const char *text, int64 *epoch_ms);

/* storage_list.c */
extern bool storage_glob(const char *pattern, const char *name);
extern void storage_list_request(const KindCall *call, KindRequest *request);
extern void storage_list_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

/* storage_file.c: a file of the spec */
typedef struct StorageFile
{
	const char *name;
	const char *etag;			/* as listed, or NULL */
	int64		size;			/* as listed, or -1 */
	char	   *target;			/* NULL for delete */
} StorageFile;

extern bool storage_is_delete(const cJSON *spec);
extern bool storage_is_move(const cJSON *spec);
extern int	storage_file_count(const cJSON *spec);
/* Where the attempt is, NULL at the beginning; in which phase; with which file */
extern const cJSON *storage_work(const KindCall *call);
extern bool storage_in_phase(const KindCall *call, const char *phase);
extern StorageFile storage_current_file(const KindCall *call);
extern char *storage_source_url(const KindCall *call);
extern char *storage_target_url(const KindCall *call, const char *base_url);
extern bool storage_move_check(const cJSON *spec, KindProblem *problem);
extern bool storage_move_request(const KindCall *call, KindRequest *request, KindProblem *problem);
extern int64 storage_moved(const KindCall *call);	/* files so far */
/* May more have been done with the file at hand (delete: with any) than is known, before a crash? */
extern bool storage_has_crashed(const KindCall *call);

/* storage_move.c */
extern void storage_move_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* A member of the working state, to be committed with whatever is committed next; NULL: without it */
extern void storage_note(const KindCall *call, const char *name, cJSON *value);
extern void storage_commit(const KindCall *call, KindVerdict *verdict);
extern void storage_go_to(const KindCall *call, const char *phase, int64 delay_ms, KindVerdict *verdict);
extern void storage_look_again(const KindCall *call, KindVerdict *verdict);	/* from the source on */
extern void storage_next_file(const KindCall *call, bool is_done, KindVerdict *verdict);
extern void storage_destination_exists(const KindCall *call, KindVerdict *verdict);
extern const char *storage_header_etag(const KindResponse *response);
extern bool storage_began_for_us(const KindCall *call, const KindResponse *response);
extern bool storage_is_our_copy(const KindCall *call, const KindResponse *response);

/* storage_pending.c: copies that the service makes in its own time */
extern void storage_copy_accepted(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern void storage_look_up(int64 delay_ms, KindVerdict *verdict);	/* is there a copy of ours? */
extern void storage_target_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* Of steps other than START */
extern void storage_pending_request(const KindCall *call, KindRequest *request, cJSON *headers);
extern void storage_pending_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict);
extern KindStep storage_resume_step(const KindCall *call);
extern bool storage_can_cancel(const KindCall *call);

/* storage_end.c */
extern void storage_finish(const KindCall *call, KindVerdict *verdict);
extern void storage_abandon(const KindCall *call, bool is_sent, KindVerdict *verdict);
extern char *storage_how_far(const KindCall *call);

/* storage.c */
extern KindStep storage_step(const KindCall *call);

#endif							/* WEIR_STORAGE_INT_H */
