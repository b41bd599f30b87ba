/*-------------------------------------------------------------------------
 * fabric_int.h
 *	  What fabric_item.c, fabric_spec.c and fabric_list.c share
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FABRIC_INT_H
#define WEIR_FABRIC_INT_H

#include "kind_int.h"

/* fabric_spec.c: the spec, the addresses and the body it stands for */
extern bool fabric_check_spec(const cJSON *spec, KindProblem *problem);
extern bool fabric_is_call(const cJSON *spec);	/* another request, followed as an operation */
extern const char *fabric_workspace(const KindCall *call);	/* of the spec or the connection, or NULL */
/* {base}/workspaces/{workspace}/items/{item}/jobs{rest} */
extern char *fabric_jobs_url(const KindCall *call, const char *rest);
extern char *fabric_page(const KindCall *call, const char *instance);	/* where a person can look at it */
extern cJSON *fabric_body(const KindCall *call);	/* of a start; NULL for none */

/* A terminal status of an instance; the list is closed, anything else goes on */
extern bool fabric_is_terminal(const char *status);

/*
 * fabric_list.c: instances of the item, before the start (PREPARE) and when
 * its answer is missing (LOOKUP).  What was there before is kept in
 * kind_state, so that what is there afterwards can be told from it.
 */
extern char *fabric_start_place(const KindCall *call, int64 *lag_ms);	/* TaskKind.start_place */
extern void fabric_mark_place(const KindCall *call, KindVerdict *verdict);	/* the same into kind_state */
extern void fabric_list_request(const KindCall *call, KindRequest *request);
extern void fabric_prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);
/* found: the id of the instance this attempt started, or NULL */
extern void fabric_lookup_response(KindCall *call, const KindResponse *response, KindVerdict *verdict, char **found);

#endif							/* WEIR_FABRIC_INT_H */
