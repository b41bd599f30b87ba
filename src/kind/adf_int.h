/*-------------------------------------------------------------------------
 * adf_int.h
 *	  What adf_pipeline.c and adf_activities.c share
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ADF_INT_H
#define WEIR_ADF_INT_H

#include "kind_int.h"

/* DETAIL: asks for a page of activity runs; the URL is the caller's */
extern void adf_activities_request(const KindCall *call, KindRequest *request);

/*
 * DETAIL: reads one page of activity runs into kind_state, then either asks
 * for the next page or gives the outcome that kind_state.final holds.
 */
extern void adf_activities_response(KindCall *call, const KindResponse *response, KindVerdict *verdict);

#endif							/* WEIR_ADF_INT_H */
