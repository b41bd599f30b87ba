/*-------------------------------------------------------------------------
 * advice.c
 *	  What a person can do about an answer that nobody could use
 *
 * Runs in the conductor.  Pure.  A verdict that fails has the words of the
 * service as its message; the detail says what is to be corrected, when the
 * status or the form of the answer tells.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "kind_int.h"
#include "retry.h"

#define CLOCK_SKEW_S	300		/* services take signatures and tokens that are about as much off */

static const char *
skip_space(const KindResponse *response)
{
	const char *p = response->body ? response->body : "";

	/* also past a byte order mark */
	if (strncmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3;
	return p + strspn(p, " \t\r\n");
}

bool
kind_is_web_page(const KindResponse *response)
{
	const char *start = skip_space(response);

	return strncasecmp(start, "<!doctype html", 14) == 0 || strncasecmp(start, "<html", 5) == 0 ||
		(response->content_type != NULL && strncasecmp(response->content_type, "text/html", 9) == 0 && (*start == '<' || *start == '\0'));
}

/* Some say with 400 that a thing is not there */
static bool
says_missing(const KindResponse *response)
{
	char	   *code;
	char	   *message;

	kind_body_error(response, &code, &message);
	return strcmp(code, "RESOURCE_DOES_NOT_EXIST") == 0 || strstr(message, "does not exist") != NULL;
}

/* How many seconds our clock is ahead of the service's, or 0 if it does not matter */
static int64
clock_ahead(const KindCall *call, const KindResponse *response)
{
	const char *date = kind_header(response, "date");
	int64		theirs;
	int64		ahead;

	if (date == NULL || !retry_http_date(date, call->now_ms / 1000, &theirs))
		return 0;
	ahead = call->now_ms / 1000 - theirs;
	return ahead > CLOCK_SKEW_S || ahead < -CLOCK_SKEW_S ? ahead : 0;
}

/* Keeps what is there already */
static void
add_detail(KindVerdict *verdict, const char *text)
{
	verdict->error_detail = verdict->error_detail ? mem_printf("%s %s", verdict->error_detail, text) : text;
}

void
kind_advise(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	int			status = response->http_status;
	int64		ahead;

	if (response->too_large)
		add_detail(verdict, "The setting weir.http_max_body says how large an answer may be: raise it, or have the service answer with less.");
	else if (status <= 0 || response->transport_error != NULL)
		return;
	else if (kind_is_web_page(response))
		add_detail(verdict, "Something else than the service answers there with a page for people: a portal, a proxy or a page to sign in. "
				   "Correct base_url of the connection, or have the requests of the database server let through.");
	else if (status == 403)
		add_detail(verdict, "The service knows who asks and does not permit it. Give the identity that the connection signs in as the permission, "
				   "or let the database server through the service's firewall.");
	else if (status == 404 || (status == 400 && says_missing(response)))
		add_detail(verdict, "There is nothing of that name at this address. Correct the ids and names in the spec, or base_url and options of the connection.");
	if ((status == 401 || status == 403) && (ahead = clock_ahead(call, response)) != 0)
		add_detail(verdict, mem_printf("The clock of the database server is %lld minutes %s that of the service: set it, what is signed or dated by it is refused.",
									   (long long) ((ahead > 0 ? ahead : -ahead) + 30) / 60, ahead > 0 ? "ahead of" : "behind"));
}
