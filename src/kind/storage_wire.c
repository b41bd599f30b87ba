/*-------------------------------------------------------------------------
 * storage_wire.c
 *	  Storage accounts on the wire: names, URLs, headers and error answers
 *
 * Runs in the conductor, and for names in sessions that define pipelines.
 * Pure functions.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <strings.h>
#include <time.h>

#include "storage_int.h"
#include "xml.h"

#define API_VERSION "2021-12-02"

const char *
storage_name_problem(const char *name, bool is_prefix)
{
	size_t		len = strlen(name);
	const char *segment = name;

	if (len == 0)
		return is_prefix ? NULL : "is empty";
	if (len > STORAGE_MAX_NAME)
		return "is longer than 1024 bytes";
	if (*name == '/' || (!is_prefix && name[len - 1] == '/'))
		return is_prefix ? "must not begin with a slash" : "must not begin or end with a slash";
	for (const char *p = name;; p++)
	{
		if (*p != '\0' && ((unsigned char) *p < ' ' || *p == 0x7F || *p == '\\'))
			return "must not contain a backslash or a control character";
		if (*p != '/' && *p != '\0')
			continue;
		if ((p - segment == 1 && segment[0] == '.') || (p - segment == 2 && strncmp(segment, "..", 2) == 0))
			return "must not have a segment \".\" or \"..\"";
		if (*p == '\0')
			return NULL;
		segment = p + 1;
	}
}

bool
storage_container_is_valid(const char *name)
{
	size_t		len = strlen(name);

	return (len >= 3 && len <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len) ||
		strcmp(name, "$web") == 0;
}

char *
storage_url(const char *base_url, const char *container, const char *name)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_addstr(&url, base_url);
	strbuf_addchar(&url, '/');
	kind_url_encode(&url, container);
	while (name != NULL)
	{
		size_t		len = strcspn(name, "/");
		char	   *segment = mem_strndup(name, len);

		strbuf_addchar(&url, '/');
		kind_url_encode(&url, segment);
		mem_free(segment);
		name = name[len] == '/' ? name + len + 1 : NULL;
	}
	return url.data;
}

char *
storage_date(int64 epoch_ms)
{
	static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char *const months[] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
	};
	time_t		seconds = (time_t) (epoch_ms / 1000);
	struct tm	tm;

	if (gmtime_r(&seconds, &tm) == NULL)
		memset(&tm, 0, sizeof(tm));
	return mem_printf("%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday % 7], tm.tm_mday,
					  months[tm.tm_mon % 12], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

bool
storage_date_parse(const char *text, int64 *epoch_ms)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char		month[4] = "";
	const char *found;
	int			day,
				year,
				hour,
				minute,
				second;

	if (text == NULL ||
		sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT", &day, month, &year, &hour, &minute, &second) != 6 ||
		strlen(month) != 3 || (found = strstr(months, month)) == NULL || (found - months) % 3 != 0)
		return false;
	return kind_time_parse(mem_printf("%04d-%02d-%02dT%02d:%02d:%02dZ", year, (int) (found - months) / 3 + 1,
									  day, hour, minute, second), epoch_ms);
}

cJSON *
storage_headers(const KindCall *call)
{
	cJSON	   *headers = cJSON_CreateObject();

	cJSON_AddStringToObject(headers, "x-ms-version", API_VERSION);
	cJSON_AddStringToObject(headers, "x-ms-date", storage_date(call->now_ms));
	if (call->token != NULL)
		cJSON_AddStringToObject(headers, "x-ms-client-request-id", call->token);
	return headers;
}

char *
storage_etag_header(const char *etag)
{
	return mem_printf("\"%s\"", etag);
}

char *
storage_etag(const char *text, size_t len)
{
	if (len >= 2 && text[0] == '"' && text[len - 1] == '"')
		return kind_clean_text(text + 1, len - 2, 200);
	return kind_clean_text(text, len, 200);
}

static int
hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *at = c != '\0' ? strchr(digits, tolower((unsigned char) c)) : NULL;

	return at ? (int) (at - digits) : -1;
}

char *
storage_decode(const char *text, size_t len)
{
	StrBuf		buf;

	strbuf_init(&buf);
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '%' && i + 2 < len && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0)
		{
			strbuf_addchar(&buf, (char) (hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])));
			i += 2;
		}
		else
			strbuf_addchar(&buf, text[i]);
	}
	return buf.data;
}

/* The decoded path of a URL; what follows it may be credentials */
static char *
decoded_path(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = host ? host + 3 + strcspn(host + 3, "/?#") : url;

	return storage_decode(path, strcspn(path, "?#"));
}

bool
storage_same_path(const char *url, const char *other)
{
	return url != NULL && other != NULL && strcmp(decoded_path(url), decoded_path(other)) == 0;
}

typedef struct XmlError
{
	char	   *code;
	char	   *message;
} XmlError;

static void
error_element(void *arg, const char *path, const char *text, bool is_encoded)
{
	XmlError   *error = arg;

	(void) is_encoded;
	if (strcmp(path, "/Error/Code") == 0)
		error->code = kind_clean_text(text, strlen(text), 200);
	else if (strcmp(path, "/Error/Message") == 0)
		error->message = kind_clean_text(text, strlen(text), KIND_MAX_MESSAGE);
}

void
storage_read_error(const KindResponse *response, char **code, char **message)
{
	XmlError	xml = {NULL, NULL};
	const char *header = kind_header(response, "x-ms-error-code");
	const char *problem;

	if (response->body != NULL && response->body_len > 0 && response->body[0] != '{')
		(void) xml_read(response->body, response->body_len, error_element, &xml, &problem);
	kind_body_error(response, code, message);
	if (xml.code != NULL)
		*code = xml.code;
	if (header != NULL)
		*code = kind_clean_text(header, strlen(header), 200);
	if (xml.message != NULL)
	{
		/* ids for the support follow, line by line */
		xml.message[strcspn(xml.message, "\r\n")] = '\0';
		*message = xml.message;
	}
	else if (response->body_len == 0 && header != NULL)
		*message = *code;
}

const char *
storage_error_code(const KindResponse *response)
{
	char	   *code;
	char	   *message;

	storage_read_error(response, &code, &message);
	return code ? code : "";
}

void
storage_fail(const KindCall *call, const KindResponse *response, const char *what, KindVerdict *verdict)
{
	int			status = response->http_status;
	bool		passes = status >= 500 || status == 409 || status == 412 || status == 423;
	char	   *code;
	char	   *message;

	storage_read_error(response, &code, &message);
	kind_fail(verdict, status < 500, passes, code, mem_printf("%s: HTTP %d: %s", what, status, message));
	kind_advise(call, response, verdict);
}

bool
storage_common_response(const KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	KindCall	repeatable = *call;

	/* whatever the step, giving up leaves nothing that another attempt could do twice */
	repeatable.step = KIND_STEP_START;
	repeatable.external_run_id = NULL;
	if (!kind_common_response(&repeatable, response, false, true, STORAGE_TRIES, verdict))
		return false;
	if (verdict->outcome == KIND_CONTINUE)
		verdict->next_step = call->step;
	return true;
}

void
storage_bad_answer(const KindCall *call, const KindResponse *response, const char *what, KindVerdict *verdict)
{
	kind_bad_answer(call, response, what, false, true, STORAGE_TRIES, verdict);
}

void
storage_go_on(KindVerdict *verdict, int64 delay_ms)
{
	kind_continue(verdict, KIND_STEP_START, delay_ms);
	verdict->reset_tries = true;
}
