/*-------------------------------------------------------------------------
 * databricks_output.c
 *	  What a one-time run, or a task of a job, returned: exit value, logs,
 *	  link of a query
 *
 * Runs in the conductor.  All of it is text of the workload: it is bounded,
 * and only a value that is JSON becomes more than text.
 *
 * Of a job the tasks that "outputs" names are asked for one after the other,
 * in DETAIL.  kind_state: outputs {KEY: what it returned}, output_key.  A task
 * that has no output, or will not say it, has null there: it is no reason for
 * a run that succeeded to fail.  Nor is a task that the job does not have, but
 * that is a mistake, so the log and the output say it.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define MAX_LOGS	(64 * 1024) /* the end of them */
#define MAX_NAMED	20			/* tasks a message names */

/* The value a notebook exits with: JSON if it is JSON, else the text */
static void
add_exit_value(const cJSON *notebook, cJSON *output, KindVerdict *verdict)
{
	const char *text = json_string(kind_member(notebook, "result"));
	size_t		len = text ? strlen(text) : 0;
	cJSON	   *value = NULL;
	char	   *ignored = NULL;

	if (text == NULL)
		return;
	if (len > 0 && len <= KIND_MAX_OUTPUT)
		value = json_parse(text, len, KIND_MAX_OUTPUT, &ignored);
	if (value == NULL)
		value = cJSON_CreateString(kind_clean_text(text, len, KIND_MAX_OUTPUT));
	cJSON_AddItemToObject(output, "exit_value", value);
	if (len > KIND_MAX_OUTPUT || cJSON_IsTrue(kind_member(notebook, "truncated")))
		cJSON_AddTrueToObject(output, "truncated");
	verdict->rows_read = Max(kind_int64(value, "rows_read", -1), -1);
	verdict->rows_written = Max(kind_int64(value, "rows_written", -1), -1);
}

/* The end of what was written to the standard streams */
static void
add_logs(const cJSON *result, cJSON *output)
{
	const char *logs = kind_string(result, "logs");
	size_t		len = logs ? strlen(logs) : 0;
	size_t		skipped = len > MAX_LOGS ? len - MAX_LOGS : 0;

	if (logs == NULL)
		return;
	/* not in the middle of a character */
	while (skipped > 0 && ((unsigned char) logs[skipped] & 0xC0) == 0x80)
		skipped++;
	cJSON_AddStringToObject(output, "logs", kind_clean_text(logs + skipped, len - skipped, MAX_LOGS));
	if (skipped > 0 || cJSON_IsTrue(kind_member(result, "logs_truncated")))
		cJSON_AddTrueToObject(output, "logs_truncated");
}

void
databricks_add_result(const cJSON *result, cJSON *output, KindVerdict *verdict)
{
	const cJSON *query = kind_member(kind_member(result, "sql_output"), "query_output");
	const char *link = kind_link(kind_member(query, "output_link"));

	add_exit_value(kind_member(result, "notebook_output"), output, verdict);
	add_logs(result, output);
	if (link != NULL)
		cJSON_AddStringToObject(output, "output_link", link);
	if (cJSON_IsArray(kind_member(query, "sql_statements")))
		cJSON_AddNumberToObject(output, "statements", cJSON_GetArraySize(kind_member(query, "sql_statements")));
}

/* The run of a task by its key, or NULL */
static const char *
run_of_task(const KindCall *call, const char *key)
{
	const cJSON *task;

	cJSON_ArrayForEach(task, kind_state_get(call, "tasks"))
	{
		if (strcmp(kind_string(task, "key"), key) == 0)
			return kind_string(task, "run_id");
	}
	return NULL;
}

static bool
has_task(const KindCall *call, const char *key)
{
	const cJSON *task;

	cJSON_ArrayForEach(task, kind_state_get(call, "tasks"))
	{
		if (strcmp(kind_string(task, "key"), key) == 0)
			return true;
	}
	return false;
}

/* What is wrong with a name, with the names there are */
static char *
unknown_task(const KindCall *call, const char *key)
{
	const cJSON *tasks = kind_state_get(call, "tasks");
	int			n = tasks ? cJSON_GetArraySize(tasks) : 0;
	int			i = 0;
	const cJSON *task;
	StrBuf		text;

	strbuf_init(&text);
	strbuf_printf(&text, "\"outputs\" names task \"%s\", which the job run does not have; its tasks are: ", key);
	cJSON_ArrayForEach(task, tasks)
	{
		if (i == MAX_NAMED)
			break;
		strbuf_addstr(&text, i++ > 0 ? ", " : "");
		strbuf_addstr(&text, kind_string(task, "key"));
	}
	if (n > MAX_NAMED)
		strbuf_printf(&text, " and %d more", n - MAX_NAMED);
	return kind_clean_text(text.data, text.len, KIND_MAX_MESSAGE);
}

void
databricks_note_unknown(const KindCall *call, cJSON *output, cJSON *activities)
{
	cJSON	   *unknown = NULL;
	const cJSON *item;

	/* of too many not all are known */
	if (cJSON_GetArraySize(kind_state_get(call, "tasks")) >= DATABRICKS_MAX_TASKS)
		return;
	cJSON_ArrayForEach(item, kind_state_get(call, "outputs"))
	{
		cJSON	   *entry;

		if (has_task(call, item->string))
			continue;
		entry = cJSON_CreateObject();
		cJSON_AddStringToObject(entry, "activity", item->string);
		cJSON_AddStringToObject(entry, "status", "skipped");
		cJSON_AddStringToObject(entry, "error_code", "unknown_task");
		cJSON_AddStringToObject(entry, "error_message", unknown_task(call, item->string));
		cJSON_AddItemToArray(activities, entry);
		if (unknown == NULL)
			unknown = cJSON_AddArrayToObject(output, "unknown_outputs");
		cJSON_AddItemToArray(unknown, cJSON_CreateString(item->string));
	}
}

static cJSON *
outputs_of(KindCall *call)
{
	cJSON	   *outputs = cJSON_GetObjectItemCaseSensitive(call->kind_state, "outputs");

	return outputs ? outputs : cJSON_AddObjectToObject(call->kind_state, "outputs");
}

const char *
databricks_next_output(KindCall *call, KindVerdict *verdict)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, kind_member(call->spec, "outputs"))
	{
		const char *key = json_string(item);
		const char *run_id = key ? run_of_task(call, key) : NULL;

		if (key == NULL || cJSON_GetObjectItemCaseSensitive(outputs_of(call), key) != NULL)
			continue;
		if (run_id != NULL)
		{
			kind_state_set_string(call, verdict, "output_key", key);
			return run_id;
		}
		cJSON_AddNullToObject(outputs_of(call), key);
		verdict->state_changed = true;
	}
	kind_state_drop(call, verdict, "output_key");
	return NULL;
}

bool
databricks_keep_output(KindCall *call, const cJSON *result, KindVerdict *verdict)
{
	const char *key = kind_state_string(call, "output_key");
	KindVerdict counts;
	cJSON	   *output;

	if (key == NULL)
		return false;
	if (result == NULL)
		cJSON_AddNullToObject(outputs_of(call), key);
	else
	{
		output = cJSON_CreateObject();
		kind_verdict_init(&counts);
		databricks_add_result(result, output, &counts);
		cJSON_AddItemToObject(outputs_of(call), key, output);
	}
	verdict->state_changed = true;
	return true;
}
