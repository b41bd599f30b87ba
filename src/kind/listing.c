/*-------------------------------------------------------------------------
 * listing.c
 *	  What pages of lists of runs have in common
 *
 * Runs in the conductor.  A page that cannot be read costs nothing but time:
 * the runs it would have told of are asked for again, or one by one.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"
#include "retry.h"

cJSON *
kind_page_object(const KindResponse *response, KindPage *page)
{
	cJSON	   *body;

	page->result = KIND_PAGE_AGAIN;
	if (response->transport_error != NULL || response->http_status <= 0 ||
		retry_http_status_is_transient(response->http_status))
		return NULL;
	if (kind_is_unauthorized(response))
	{
		page->forget_token = true;
		return NULL;
	}
	if (response->http_status != 200)
	{
		page->result = KIND_PAGE_REFUSED;
		return NULL;
	}
	body = kind_parse_object(response);
	if (body != NULL)
		page->result = KIND_PAGE_READ;
	return body;
}

void
kind_page_add(KindPage *page, int room, const char *id)
{
	if (page->running == NULL)
		page->running = mem_alloc(sizeof(char *) * Max(room, 1));
	page->running[page->n_running++] = id;
}
