/*-------------------------------------------------------------------------
 * http_output.c
 *	  Kind http: what of an answer becomes output, row counts and error
 *
 * Runs in the conductor; pure.  Answers are from outside and of any size:
 * what is kept is bounded.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "http_int.h"
#include "jsonpath.h"

#define MAX_MATCHES		10000	/* of one path with wildcards */

cJSON *
http_output(const KindResponse *response)
{
	cJSON	   *output = cJSON_CreateObject();
	size_t		len = response->body ? response->body_len : 0;
	cJSON	   *body = NULL;
	char	   *error;

	cJSON_AddNumberToObject(output, "status", response->http_status);
	if (response->content_type != NULL)
		cJSON_AddStringToObject(output, "content_type",
								kind_clean_text(response->content_type, strlen(response->content_type), 200));
	if (len == 0)
		body = cJSON_CreateNull();
	else if (len <= KIND_MAX_OUTPUT)
		body = kind_parse_body(response, &error);
	if (body == NULL)
		body = cJSON_CreateString(kind_clean_text(response->body, len, KIND_MAX_OUTPUT));
	cJSON_AddItemToObject(output, "body", body);
	if (len > KIND_MAX_OUTPUT)
		cJSON_AddTrueToObject(output, "truncated");
	return output;
}

/* Outputs by name; null where the answer has nothing */
static void
add_outputs(const KindCall *call, const cJSON *body, cJSON *output)
{
	const cJSON *wanted = kind_member(call->spec, "outputs");
	const cJSON *item;
	cJSON	   *outputs;

	if (!cJSON_IsObject(wanted))
		return;
	outputs = cJSON_AddObjectToObject(output, "outputs");
	cJSON_ArrayForEach(item, wanted)
	{
		cJSON	   *value = json_string(item) ? jsonpath_copy(body, item->valuestring, MAX_MATCHES) : NULL;

		if (value != NULL)
		{
			cJSON	   *copy = kind_limited_copy(value, KIND_MAX_OUTPUT);

			cJSON_Delete(value);
			value = copy;
		}
		cJSON_AddItemToObject(outputs, item->string, value ? value : cJSON_CreateNull());
	}
}

static int64
rows_at(const KindCall *call, const cJSON *body, const char *name)
{
	const char *path = kind_string(call->spec, name);
	int64		value;

	return path != NULL && json_int64(jsonpath_find(body, path), &value) && value >= 0 ? value : -1;
}

void
http_succeed(const KindCall *call, const KindResponse *response, const cJSON *body, KindVerdict *verdict)
{
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = http_output(response);
	add_outputs(call, body, verdict->output);
	verdict->rows_read = rows_at(call, body, "rows_read");
	verdict->rows_written = rows_at(call, body, "rows_written");
}

/* A failure in the service's own words, if the spec says where they are */
void
http_say_error(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *where = kind_member(call->spec, "error");
	cJSON	   *body = where != NULL ? kind_parse_object(response) : NULL;
	const cJSON *code;
	const cJSON *message;

	if (body == NULL)
		return;
	code = jsonpath_find(body, kind_string(where, "code"));
	message = jsonpath_find(body, kind_string(where, "message"));
	if (code != NULL && !cJSON_IsNull(code))
	{
		char	   *text = kind_scalar_text(code);

		if (*text != '\0')
			verdict->error_code = kind_clean_text(text, strlen(text), 200);
	}
	if (message != NULL && !cJSON_IsNull(message))
	{
		char	   *text = kind_scalar_text(message);

		if (response->http_status < 200 || response->http_status > 299)
			text = mem_printf("HTTP %d: %s", response->http_status, text);
		verdict->error_message = kind_clean_text(text, strlen(text), KIND_MAX_MESSAGE);
	}
	cJSON_Delete(body);
}

void
http_note_link(KindCall *call, const cJSON *spec, const cJSON *body, KindVerdict *verdict)
{
	const char *path = kind_string(spec, "link");
	const char *link;

	if (path == NULL || kind_state_bool(call, "has_link"))
		return;
	link = kind_link(jsonpath_find(body, path));
	if (link == NULL)
		return;
	verdict->external_url = mem_strdup(link);
	if (verdict->outcome == KIND_CONTINUE)
		kind_state_set(call, verdict, "has_link", cJSON_CreateTrue());
}
