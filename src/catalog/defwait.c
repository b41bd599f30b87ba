/*-------------------------------------------------------------------------
 * defwait.c
 *	  Durations and moments in the spec of a wait.
 *
 * Runs in the session that defines a pipeline and, for what references
 * became, in the conductor, which must not meet an error: what cannot be read
 * is -1.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "definition.h"
#include "definition_int.h"
#include "json.h"

#define MAX_TEXT	200

int64
definition_duration_ms(const cJSON *item)
{
	double		seconds;
	int64		ms = -1;

	if (cJSON_IsString(item))
	{
		if (item->valuestring[0] != '\0' && strlen(item->valuestring) <= MAX_TEXT)
			ms = def_interval_ms(item->valuestring);
	}
	else if (json_double(item, &seconds) && seconds >= 0 && seconds <= MAX_DURATION_MS / 1000)
		ms = (int64) (seconds * 1000);
	return ms > MAX_DURATION_MS ? -1 : ms;
}

int64
definition_moment_ms(const char *text)
{
	TimestampTz moment;
	Datum		value;

	if (text == NULL || strlen(text) > MAX_TEXT || !def_parse_text(timestamptz_in, text, &value))
		return -1;
	moment = DatumGetTimestampTz(value);
	if (TIMESTAMP_NOT_FINITE(moment))
		return -1;
	/* Rounded up, so that no wait ends before its moment; what is long past is just past. */
	return Max((moment + 999) / 1000 + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000, 0);
}

static bool
is_written_out(const cJSON *item)
{
	return item != NULL && !cJSON_IsNull(item) && !(cJSON_IsString(item) && strstr(item->valuestring, "{{") != NULL);
}

void
definition_check_wait(const cJSON *spec, const char *path)
{
	const cJSON *until = def_member(spec, "until");

	if (is_written_out(def_member(spec, "for")))
		(void) def_duration(spec, path, "for", 0, 0);
	if (is_written_out(def_member(spec, "every")) && def_duration(spec, path, "every", 0, 0) < 1000)
		definition_error(definition_member(path, "every"), "\"every\" must be one second at least", NULL);
	if (is_written_out(until) && definition_moment_ms(json_string(until)) < 0)
		definition_error(definition_member(path, "until"), "\"until\" must be a moment",
						 "Write one such as \"2026-01-31T06:00:00Z\", or a reference.");
}
