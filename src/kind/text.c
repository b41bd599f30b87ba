/*-------------------------------------------------------------------------
 * text.c
 *	  Reading what services answer, and writing what they are asked
 *
 * Runs in the conductor.  Everything that comes in here is from outside and
 * may be anything: other encodings, HTML of a gateway, half of a document.
 * What goes out is valid UTF-8 without control characters, bounded, and its
 * times are times.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>
#include <time.h>

#include "kind_int.h"

#define MAX_EXCERPT		1000
#define MAX_LINK		2000

/* Length of the valid UTF-8 character at p, or 0 */
static int
utf8_length(const unsigned char *p, size_t left)
{
	int			len = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;

	if (len == 0 || (size_t) len > left)
		return 0;
	for (int i = 1; i < len; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	}
	if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
		(p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
		return 0;
	return len;
}

char *
kind_clean_text(const char *text, size_t len, size_t limit)
{
	StrBuf		buf;
	size_t		i = 0;

	strbuf_init(&buf);
	while (text != NULL && i < len)
	{
		const unsigned char *p = (const unsigned char *) text + i;
		int			step = utf8_length(p, len - i);

		if (buf.len + Max(step, 1) > limit)
			break;
		if (step == 0)
			strbuf_addchar(&buf, '?');
		else if ((*p < ' ' && *p != '\n' && *p != '\t') || *p == 0x7F)
			strbuf_addchar(&buf, ' ');
		else
			strbuf_add(&buf, text + i, step);
		i += Max(step, 1);
	}
	return buf.data;
}

/*
 * A copy a strict parser may take where it refused the original: bytes that
 * are no UTF-8 become "?", and escaped zeros, which no text type of ours can
 * hold, become U+FFFD.
 */
static char *
mend_json(const char *text, size_t len)
{
	StrBuf		buf;
	size_t		i = 0;

	strbuf_init(&buf);
	while (i < len)
	{
		int			step = utf8_length((const unsigned char *) text + i, len - i);

		if (step == 0 || text[i] == '\0')
		{
			strbuf_addchar(&buf, '?');
			i++;
		}
		else if (text[i] == '\\' && i + 5 < len && memcmp(text + i, "\\u0000", 6) == 0)
		{
			strbuf_addstr(&buf, "\\ufffd");
			i += 6;
		}
		else if (text[i] == '\\' && i + 1 < len && text[i + 1] >= ' ' && text[i + 1] < 0x7F)
		{
			strbuf_add(&buf, text + i, 2);
			i += 2;
		}
		else
		{
			strbuf_add(&buf, text + i, step);
			i += step;
		}
	}
	return buf.data;
}

char *
kind_header(const KindResponse *response, const char *name)
{
	const char *line = response->headers;
	size_t		name_len = strlen(name);

	while (line != NULL && *line != '\0')
	{
		size_t		len = strcspn(line, "\n");

		if (len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0)
		{
			const char *value = line + name_len + 1;
			const char *end = line + len;

			while (value < end && (*value == ' ' || *value == '\t'))
				value++;
			while (end > value && strchr(" \t\r", end[-1]) != NULL)
				end--;
			return kind_clean_text(value, end - value, 8192);
		}
		line += len + (line[len] == '\n');
	}
	return NULL;
}

cJSON *
kind_parse_body(const KindResponse *response, char **error)
{
	const char *text = response->body ? response->body : "";
	size_t		len = response->body ? response->body_len : 0;
	cJSON	   *value;
	char	   *mended;
	char	   *ignored = NULL;

	*error = NULL;
	/* a byte order mark is no JSON, but some gateways send one */
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		text += 3;
		len -= 3;
	}
	value = json_parse(text, len, KIND_MAX_BODY, error);
	if (value != NULL || len == 0 || len > KIND_MAX_BODY)
		return value;
	mended = mend_json(text, len);
	value = json_parse(mended, strlen(mended), KIND_MAX_BODY, &ignored);
	if (ignored != NULL)
		mem_free(ignored);
	mem_free(mended);
	return value;
}

cJSON *
kind_parse_object(const KindResponse *response)
{
	char	   *error;
	cJSON	   *value = kind_parse_body(response, &error);

	if (value == NULL || cJSON_IsObject(value))
		return value;
	cJSON_Delete(value);
	return NULL;
}

const cJSON *
kind_member(const cJSON *object, const char *name)
{
	return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, name) : NULL;
}

const char *
kind_string(const cJSON *object, const char *name)
{
	const char *text = json_string(kind_member(object, name));

	return text != NULL && *text != '\0' ? text : NULL;
}

int64
kind_int64(const cJSON *object, const char *name, int64 absent)
{
	int64		value;

	return json_int64(kind_member(object, name), &value) ? value : absent;
}

char *
kind_id(const cJSON *object, const char *name)
{
	const cJSON *item = kind_member(object, name);
	const char *text = json_string(item);
	int64		value;

	if (text != NULL)
	{
		size_t		len = strlen(text);

		/* goes into addresses and columns: nothing an id would not contain */
		if (len == 0 || len > 200)
			return NULL;
		for (size_t i = 0; i < len; i++)
		{
			if (text[i] <= ' ' || text[i] >= 0x7F)
				return NULL;
		}
		return mem_strdup(text);
	}
	if (!json_int64(item, &value))
		return NULL;
	return mem_printf(INT64_FORMAT, value);
}

char *
kind_scalar_text(const cJSON *item)
{
	int64		value;

	if (cJSON_IsString(item))
		return mem_strdup(item->valuestring);
	if (cJSON_IsNumber(item) && json_int64(item, &value))
		return mem_printf(INT64_FORMAT, value);
	return json_text(item);
}

bool
kind_is_listed(const cJSON *list, const char *text)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		if (strcasecmp(kind_scalar_text(item), text) == 0)
			return true;
	}
	return false;
}

/* {"error": {"code", "message"}} and its relatives; NULL for what is not there */
static void
json_error(const cJSON *body, const char **code, char **code_number, const char **message)
{
	static const char *const code_names[] = {"error_code", "errorCode", "code", "status"};
	static const char *const message_names[] = {"message", "error_description", "error_message", "detail", "title"};
	const cJSON *error = kind_member(body, "error");
	const cJSON *from = cJSON_IsObject(error) ? error : body;

	for (size_t i = 0; i < lengthof(code_names) && *code == NULL && *code_number == NULL; i++)
	{
		*code = kind_string(from, code_names[i]);
		if (*code == NULL && i < 2)
			*code_number = kind_id(from, code_names[i]);
	}
	for (size_t i = 0; i < lengthof(message_names) && *message == NULL; i++)
		*message = kind_string(from, message_names[i]);
	if (json_string(error) != NULL)
	{
		/* OAuth: error is the code; older Databricks: it is the message */
		if (*message != NULL)
			*code = error->valuestring;
		else
			*message = error->valuestring;
	}
	if (*message == NULL)
		*message = kind_string(json_get(from, "details.0.error"), "message");
	if (*message == NULL)
		*message = kind_string(json_get(from, "details.0"), "message");
}

/* "CODE: what is wrong" */
static const char *
text_code(const char *text, char **code)
{
	size_t		len = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");

	if (len < 3 || len > 100 || text[len] != ':' || text[len + 1] != ' ')
		return text;
	*code = mem_strndup(text, len);
	return text + len + 2;
}

/* The text of the first <tag> of a page, without tags inside; NULL if there is none */
static char *
html_element(const char *page, const char *tag)
{
	const char *start = strcasestr(page, mem_printf("<%s", tag));
	StrBuf		buf;
	bool		in_tag = false;

	if (start == NULL || (start = strchr(start, '>')) == NULL)
		return NULL;
	strbuf_init(&buf);
	for (const char *p = start + 1; *p != '\0' && buf.len < MAX_EXCERPT; p++)
	{
		if (*p == '<' && strncasecmp(p, mem_printf("</%s", tag), strlen(tag) + 2) == 0)
			break;
		if (*p == '<' || *p == '>')
			in_tag = *p == '<';
		else if (!in_tag)
			strbuf_addchar(&buf, *p);
	}
	return buf.len > 0 ? buf.data : NULL;
}

/* The first line of an element's text, cleaned; NULL if there is none.  What follows are ids for the support. */
static char *
xml_line(const char *body, const char *tag)
{
	char	   *text = html_element(body, tag);

	if (text == NULL)
		return NULL;
	text[strcspn(text, "\r\n")] = '\0';
	return kind_clean_text(text, strlen(text), MAX_EXCERPT);
}

/* <Error><Code>...</Code><Message>...</Message></Error> of storage accounts, which say in a further element what about credentials is wrong */
static bool
xml_error(const char *body, char **code, char **message)
{
	char	   *detail;

	body += strncmp(body, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
	if (strncmp(body, "<?xml", 5) != 0 && strncmp(body, "<Error>", 7) != 0)
		return false;
	*code = xml_line(body, "Code>");
	*message = xml_line(body, "Message>");
	detail = xml_line(body, "AuthenticationErrorDetail>");
	if (*message != NULL && detail != NULL)
		*message = mem_printf("%s %s", *message, detail);
	return *message != NULL;
}

void
kind_body_error(const KindResponse *response, char **code, char **message)
{
	cJSON	   *body = kind_parse_object(response);
	const char *json_code = NULL;
	const char *json_message = NULL;

	*code = NULL;
	*message = NULL;
	if (body != NULL)
	{
		json_error(body, &json_code, code, &json_message);
		if (json_code != NULL)
			*code = kind_clean_text(json_code, strlen(json_code), 200);
		if (json_message != NULL)
			*message = kind_clean_text(json_message, strlen(json_message), KIND_MAX_MESSAGE);
		else
			*message = json_text_limited(body, MAX_EXCERPT);
		cJSON_Delete(body);
	}
	else if (response->body == NULL || !xml_error(response->body, code, message))
	{
		size_t		len = response->body ? response->body_len : 0;
		char	   *text = kind_clean_text(response->body, Min(len, 16384), 16384);

		if (strstr(text, "<html") != NULL || strstr(text, "<HTML") != NULL || strncasecmp(text, "<!doctype", 9) == 0)
		{
			*message = html_element(text, "pre");
			if (*message == NULL)
				*message = html_element(text, "title");
		}
		if (*message == NULL)
		{
			const char *rest = text_code(text, code);

			*message = kind_clean_text(rest, strlen(rest), MAX_EXCERPT);
		}
	}
	if (**message == '\0')
		*message = mem_strdup("the answer has no text");
	if (*code == NULL)
		*code = mem_printf("http_%d", response->http_status);
}

cJSON *
kind_limited_copy(const cJSON *item, size_t limit)
{
	char	   *text = json_text_limited(item, limit + 1);
	bool		fits = strlen(text) <= limit;
	cJSON	   *copy;

	mem_free(text);
	if (fits)
		return cJSON_Duplicate(item, true);
	copy = cJSON_CreateObject();
	cJSON_AddTrueToObject(copy, "too_long");
	return copy;
}

void
kind_url_encode(StrBuf *buf, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (const unsigned char *p = (const unsigned char *) text; *p != '\0'; p++)
	{
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || strchr("-._~", *p) != NULL)
			strbuf_addchar(buf, (char) *p);
		else
		{
			strbuf_addchar(buf, '%');
			strbuf_addchar(buf, hex[*p >> 4]);
			strbuf_addchar(buf, hex[*p & 15]);
		}
	}
}

const char *
kind_link(const cJSON *item)
{
	const char *text = json_string(item);

	if (text == NULL || strlen(text) > MAX_LINK ||
		(strncmp(text, "https://", 8) != 0 && strncmp(text, "http://", 7) != 0))
		return NULL;
	for (const char *p = text; *p != '\0'; p++)
	{
		if ((unsigned char) *p <= ' ' || *p == 0x7F || *p == '"' || *p == '<' || *p == '>')
			return NULL;
	}
	return text;
}

/* Days since 1970-01-01 in the Gregorian calendar */
static int64
days_of(int year, int month, int day)
{
	int64		y = month <= 2 ? year - 1 : year;
	int64		era = y / 400;
	int64		of_era = y - era * 400;
	int64		of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

char *
kind_time_text(int64 epoch_ms)
{
	time_t		seconds = (time_t) (epoch_ms / 1000);
	struct tm	tm;

	if (epoch_ms <= 0 || epoch_ms > INT64_C(253402300799999) || gmtime_r(&seconds, &tm) == NULL)
		return NULL;
	return mem_printf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
					  tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int) (epoch_ms % 1000));
}

/* n digits at *text, as a number between lo and hi */
static bool
read_digits(const char **text, int n, int lo, int hi, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++, (*text)++)
	{
		if (**text < '0' || **text > '9')
			return false;
		*value = *value * 10 + (**text - '0');
	}
	return *value >= lo && *value <= hi;
}

static bool
read_char(const char **text, const char *choice)
{
	if (**text == '\0' || strchr(choice, **text) == NULL)
		return false;
	(*text)++;
	return true;
}

/* 2018-06-16T00:37:44.6257014Z; without a zone it is UTC */
bool
kind_time_parse(const char *text, int64 *epoch_ms)
{
	static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year,
				month,
				day,
				hour,
				minute,
				second;
	int			offset = 0;
	int			ms = 0;

	if (text == NULL || strlen(text) > 40 ||
		!read_digits(&text, 4, 1970, 9999, &year) || !read_char(&text, "-") ||
		!read_digits(&text, 2, 1, 12, &month) || !read_char(&text, "-") ||
		!read_digits(&text, 2, 1, month_days[month - 1], &day) || !read_char(&text, "Tt ") ||
		!read_digits(&text, 2, 0, 23, &hour) || !read_char(&text, ":") ||
		!read_digits(&text, 2, 0, 59, &minute) || !read_char(&text, ":") ||
		!read_digits(&text, 2, 0, 60, &second))
		return false;
	if (read_char(&text, "."))
	{
		int			scale = 100;

		if (*text < '0' || *text > '9')
			return false;
		for (; *text >= '0' && *text <= '9'; text++, scale /= 10)
			ms += (*text - '0') * scale;
	}
	if (*text == '+' || *text == '-')
	{
		int			sign = *text++ == '-' ? -1 : 1;
		int			zone_hour,
					zone_minute;

		if (!read_digits(&text, 2, 0, 15, &zone_hour) || !read_char(&text, ":") ||
			!read_digits(&text, 2, 0, 59, &zone_minute))
			return false;
		offset = sign * (zone_hour * 60 + zone_minute);
	}
	else
		(void) read_char(&text, "Zz");
	if (*text != '\0')
		return false;
	*epoch_ms = (((days_of(year, month, day) * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + ms;
	return true;
}
