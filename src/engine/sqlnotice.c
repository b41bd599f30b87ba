/*-------------------------------------------------------------------------
 * sqlnotice.c
 *	  What the statements of a SQL task say: NOTICE, INFO and WARNING, kept
 *	  for the task's output.
 *
 * Runs in SQL workers and in weir.conduct().  A worker has no client, so
 * PostgreSQL would not even format a NOTICE that the server log does not
 * want: while we listen, the log's level is lowered, and what it would not
 * have taken is kept out of it by the hook.  The memory is fixed: a message
 * may come when there is none to be had.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/elog.h"
#include "utils/guc.h"

#include "compat.h"
#include "mem.h"
#include "sqltask_int.h"

#define MAX_NOTICES		50
#define MAX_MESSAGE		1000	/* bytes of one */
#define MAX_BYTES		16384	/* of all */

typedef struct Notice
{
	const char *severity;
	int			start;			/* in texts */
} Notice;

static Notice notices[MAX_NOTICES];
static char texts[MAX_BYTES];
static int	n_notices;
static int	n_dropped;
static int	used;
static bool listening = false;
static int	log_level;			/* what the log takes without us */
static emit_log_hook_type next_emit_log_hook = NULL;

static void
keep_notice(const char *severity, const char *message)
{
	int			len = (int) mem_clip_length(message, MAX_MESSAGE);

	if (n_notices == MAX_NOTICES || used + len + 1 > MAX_BYTES)
	{
		n_dropped++;
		return;
	}
	notices[n_notices].severity = severity;
	notices[n_notices++].start = used;
	memcpy(texts + used, message, len);
	texts[used + len] = '\0';
	used += len + 1;
}

static void
notice_hook(ErrorData *edata)
{
	const char *severity = edata->elevel == INFO ? "INFO" : edata->elevel == NOTICE ? "NOTICE" :
		edata->elevel == WARNING ? "WARNING" : NULL;

	if (listening && severity != NULL)
	{
		if (edata->message && (edata->elevel == INFO || edata->elevel >= client_min_messages))
			keep_notice(severity, edata->message);
		if (edata->elevel < log_level)
			edata->output_to_server = false;
	}
	if (next_emit_log_hook)
		next_emit_log_hook(edata);
}

void
sqlnotice_begin(bool is_local)
{
	static bool hooked = false;

	if (!hooked)
	{
		next_emit_log_hook = emit_log_hook;
		emit_log_hook = notice_hook;
		hooked = true;
	}
	n_notices = n_dropped = used = 0;
	log_level = log_min_messages_compat();
	listening = true;
	if (log_level > INFO)
		(void) set_config_option("log_min_messages", "info", PGC_SUSET, PGC_S_SESSION,
								 is_local ? GUC_ACTION_SAVE : GUC_ACTION_SET, true, 0, false);
}

void
sqlnotice_end(void)
{
	listening = false;
}

cJSON *
sqlnotice_json(void)
{
	cJSON	   *list;

	if (n_notices == 0)
		return NULL;
	list = cJSON_CreateArray();
	for (int i = 0; i < n_notices; i++)
	{
		cJSON	   *item = cJSON_CreateObject();

		cJSON_AddStringToObject(item, "severity", notices[i].severity);
		cJSON_AddStringToObject(item, "message", texts + notices[i].start);
		cJSON_AddItemToArray(list, item);
	}
	if (n_dropped > 0)
	{
		cJSON	   *item = cJSON_CreateObject();

		cJSON_AddNumberToObject(item, "dropped", n_dropped);
		cJSON_AddItemToArray(list, item);
	}
	return list;
}

const char *
sqlnotice_text(void)
{
	StrBuf		buf;

	if (n_notices == 0)
		return NULL;
	strbuf_init(&buf);
	for (int i = 0; i < n_notices; i++)
		strbuf_printf(&buf, "%s%s: %s", i > 0 ? "\n" : "", notices[i].severity, texts + notices[i].start);
	if (n_dropped > 0)
		strbuf_printf(&buf, "\n(%d more)", n_dropped);
	return buf.data;
}
