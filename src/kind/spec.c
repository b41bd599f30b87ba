/*-------------------------------------------------------------------------
 * spec.c
 *	  Checking the members of a spec
 *
 * Runs in sessions that define pipelines, before references are rendered,
 * and in the conductor, on rendered specs.  Before, a string that holds a
 * reference passes for a value of any type; afterwards nothing does, and braces
 * in a text are just that.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "jsonpath.h"
#include "kind_int.h"

#define ID_CHARS	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

bool
kind_problem(KindProblem *problem, const char *path, const char *message, const char *hint)
{
	problem->path = path;
	problem->message = message;
	problem->hint = hint;
	return false;
}

bool
kind_text_may_become(const KindProblem *problem, const char *text)
{
	return text != NULL && !problem->is_rendered && strstr(text, "{{") != NULL;
}

bool
kind_may_become(const KindProblem *problem, const cJSON *item)
{
	return kind_text_may_become(problem, json_string(item));
}

static unsigned
types_of(const cJSON *item)
{
	unsigned	types = KIND_TYPE_ANY;
	int64		ignored;
	double		number;

	if (cJSON_IsString(item))
		return types | KIND_TYPE_STRING;
	if (cJSON_IsBool(item))
		return types | KIND_TYPE_BOOLEAN;
	if (cJSON_IsObject(item))
		return types | KIND_TYPE_OBJECT;
	if (cJSON_IsArray(item))
		return types | KIND_TYPE_ARRAY;
	if (json_double(item, &number))
		types |= KIND_TYPE_NUMBER;
	if (json_int64(item, &ignored))
		types |= KIND_TYPE_INTEGER;
	return types;
}

static char *
type_words(unsigned types)
{
	static const struct
	{
		unsigned	type;
		const char *words;
	}			table[] = {
		{KIND_TYPE_STRING, "a string"},
		{KIND_TYPE_INTEGER, "an integer"},
		{KIND_TYPE_NUMBER, "a number"},
		{KIND_TYPE_BOOLEAN, "true or false"},
		{KIND_TYPE_OBJECT, "an object"},
		{KIND_TYPE_ARRAY, "an array"},
	};
	StrBuf		buf;

	strbuf_init(&buf);
	for (size_t i = 0; i < lengthof(table); i++)
	{
		if ((types & table[i].type) == 0)
			continue;
		if (buf.len > 0)
			strbuf_addstr(&buf, " or ");
		strbuf_addstr(&buf, table[i].words);
	}
	return buf.data;
}

static char *
member_hint(const KindMember *members, int nmembers)
{
	StrBuf		buf;

	if (nmembers == 0)
		return mem_strdup("The spec of this kind is empty: {}.");
	strbuf_init(&buf);
	strbuf_addstr(&buf, "Members of the spec are ");
	for (int i = 0; i < nmembers; i++)
		strbuf_printf(&buf, "%s%s", i > 0 ? ", " : "", members[i].name);
	strbuf_addchar(&buf, '.');
	return buf.data;
}

bool
kind_check_members(const cJSON *spec, const KindMember *members, int nmembers,
				   KindProblem *problem)
{
	const cJSON *item;

	if (!cJSON_IsObject(spec))
		return kind_problem(problem, "$", "the spec must be an object", NULL);

	cJSON_ArrayForEach(item, spec)
	{
		const KindMember *member = NULL;

		for (int i = 0; i < nmembers; i++)
		{
			if (strcmp(members[i].name, item->string) == 0)
				member = &members[i];
		}
		if (member == NULL)
		{
			char	   *name = kind_clean_text(item->string, strlen(item->string), 64);

			return kind_problem(problem, mem_printf("$.%s", name),
								mem_printf("unknown member \"%s\"", name),
								member_hint(members, nmembers));
		}
		if (cJSON_IsNull(item) && !member->is_required)
			continue;
		if ((types_of(item) & member->types) == 0 && !kind_may_become(problem, item))
			return kind_problem(problem, mem_printf("$.%s", member->name),
								mem_printf("\"%s\" must be %s", member->name, type_words(member->types)),
								NULL);
	}
	for (int i = 0; i < nmembers; i++)
	{
		if (members[i].is_required && kind_member(spec, members[i].name) == NULL)
			return kind_problem(problem, "$", mem_printf("\"%s\" is missing", members[i].name),
								member_hint(members, nmembers));
	}
	return true;
}

bool
kind_problem_at(const char *place, KindProblem *problem)
{
	problem->path = mem_printf("%s%s", place, problem->path + 1);
	return false;
}

/* ---- members of one sort; absent, null and to be rendered is right ---- */

static bool
is_open(const cJSON *item, const KindProblem *problem)
{
	return item == NULL || cJSON_IsNull(item) || kind_may_become(problem, item);
}

bool
kind_check_filled(const cJSON *spec, const char *name, KindProblem *problem)
{
	return kind_string(spec, name) != NULL ||
		kind_problem(problem, mem_printf("$.%s", name), mem_printf("\"%s\" is empty", name), NULL);
}

bool
kind_check_id(const cJSON *spec, const char *name, const char *hint, KindProblem *problem)
{
	const char *text = kind_string(spec, name);
	size_t		len = text ? strlen(text) : 0;

	if (!kind_check_filled(spec, name, problem))
		return false;
	return kind_text_may_become(problem, text) || (len <= 255 && strspn(text, ID_CHARS) == len) ||
		kind_problem(problem, mem_printf("$.%s", name), mem_printf("\"%s\" is made of letters, digits, \"-\" and \"_\"", name), hint);
}

bool
kind_check_integer(const cJSON *object, const char *at, const char *name, int64 least, int64 most, KindProblem *problem)
{
	const cJSON *item = kind_member(object, name);
	int64		value;

	if (is_open(item, problem) || (json_int64(item, &value) && value >= least && value <= most))
		return true;
	return kind_problem(problem, mem_printf("%s.%s", at, name),
						mem_printf("\"%s\" must be an integer from " INT64_FORMAT " to " INT64_FORMAT, name, least, most), NULL);
}

bool
kind_check_choice(const cJSON *spec, const char *name, const char *const *choices, const char *hint, KindProblem *problem)
{
	const cJSON *item = kind_member(spec, name);
	const char *text = json_string(item);
	StrBuf		message;

	if (is_open(item, problem))
		return true;
	strbuf_init(&message);
	strbuf_printf(&message, "\"%s\" must be ", name);
	for (int i = 0; choices[i] != NULL; i++)
	{
		if (text != NULL && strcmp(choices[i], text) == 0)
		{
			strbuf_free(&message);
			return true;
		}
		strbuf_printf(&message, "%s\"%s\"", i == 0 ? "" : choices[i + 1] != NULL ? ", " : " or ", choices[i]);
	}
	return kind_problem(problem, mem_printf("$.%s", name), message.data, hint);
}

bool
kind_check_texts(const cJSON *spec, const char *name, const char *what, int most, KindProblem *problem)
{
	const cJSON *list = kind_member(spec, name);
	const cJSON *item;
	int			i = 0;

	if (!cJSON_IsArray(list))
		return true;
	cJSON_ArrayForEach(item, list)
	{
		if (i == most)
			return kind_problem(problem, mem_printf("$.%s", name), mem_printf("\"%s\" has more than %d members", name, most), NULL);
		if (json_string(item) == NULL || *item->valuestring == '\0')
			return kind_problem(problem, mem_printf("$.%s[%d]", name, i), mem_printf("%s must be a string", what), NULL);
		i++;
	}
	return true;
}

bool
kind_check_scalars(const cJSON *spec, const char *name, const char *what, KindProblem *problem)
{
	const cJSON *object = kind_member(spec, name);
	const cJSON *item;

	if (!cJSON_IsObject(object))
		return true;
	cJSON_ArrayForEach(item, object)
	{
		if (cJSON_IsObject(item) || cJSON_IsArray(item))
			return kind_problem(problem, mem_printf("$.%s.%s", name, kind_clean_text(item->string, strlen(item->string), 64)),
								mem_printf("the value of %s must be a scalar", what), NULL);
	}
	return true;
}

bool
kind_check_duration(const cJSON *item, const char *path, int64 least_ms, KindProblem *problem)
{
	if (is_open(item, problem) || kind_duration_ms(item) >= least_ms)
		return true;
	return kind_problem(problem, path, least_ms > 0 ? mem_printf("not a duration of at least %g seconds", (double) least_ms / 1000) : "not a duration",
						"Such as \"30 seconds\", \"5 minutes\" or a number of seconds.");
}

bool
kind_check_json_path(const cJSON *item, const char *path, KindProblem *problem)
{
	const char *text = json_string(item);
	char	   *error = NULL;

	if (is_open(item, problem) || (text != NULL && jsonpath_check(text, &error)))
		return true;
	return kind_problem(problem, path, mem_printf("not a JSON path: %s", error ? error : "it must be a string"),
						"A path is like $.links.status, $['a name'], $.list[0].id or $.list[*].id.");
}

/* ---- paths of requests ---- */

/* The rest of the path is the service's. */
bool
kind_path_climbs(const char *text)
{
	size_t		dots = 0;
	size_t		others = 0;

	for (; *text != '\0' && *text != '?' && *text != '#'; text++)
	{
		if (*text == '/' || *text == '\\')
		{
			if (dots == 2 && others == 0)
				return true;
			dots = others = 0;
		}
		else if (*text == '.')
			dots++;
		else if (strncasecmp(text, "%2e", 3) == 0)
		{
			dots++;
			text += 2;
		}
		else
			others++;
	}
	return dots == 2 && others == 0;
}

bool
kind_check_path(const cJSON *item, const char *path, const char *hint, KindProblem *problem)
{
	const char *text = json_string(item);

	if (is_open(item, problem) ||
		(text != NULL && *text != '\0' && strlen(text) <= KIND_MAX_PATH && strpbrk(text, "# \\") == NULL && !kind_path_climbs(text)))
		return true;
	return kind_problem(problem, path, "not a path below the connection's base URL", hint);
}
