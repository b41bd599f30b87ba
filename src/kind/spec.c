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

#include "kind_int.h"

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
