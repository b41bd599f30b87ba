/*-------------------------------------------------------------------------
 * adf_int.h
 *	  What the files of adf_pipeline share
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ADF_INT_H
#define WEIR_ADF_INT_H

#include "kind_int.h"

#define ADF_API_VERSION	"2018-06-01"	/* of a connection that names none */

/* adf_pipeline.c.  A terminal status, case ignored; the list is closed, anything else is still running */
extern bool adf_is_terminal(const char *status);
/* {base}{factory}/{collection}/{name}{action}?api-version=... */
extern char *adf_url(const KindCall *call, const char *collection, const char *name, const char *action);
/* lastUpdatedAfter and lastUpdatedBefore */
extern void adf_window(cJSON *body, int64 after_ms, int64 before_ms);
/* "orderBy": [{"orderBy": field, "order": "ASC"}]; a page is asked for by its token */
extern void adf_order(cJSON *body, const char *field, const char *continuation);
extern void adf_json(KindRequest *request, cJSON *body);	/* a POST; frees body */

/* adf_list.c */
extern const KindListing adf_listing;

/* adf_activities.c.  DETAIL: asks for a page of activity runs; the URL is the caller's */
extern void adf_activities_request(const KindCall *call, KindRequest *request);

/*
 * DETAIL: reads one page of activity runs into kind_state, then either asks
 * for the next page or gives the outcome that kind_state.final holds.
 */
extern void adf_activities_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

#endif							/* WEIR_ADF_INT_H */
