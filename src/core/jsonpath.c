/*-------------------------------------------------------------------------
 * jsonpath.c
 *	  A small subset of JSON path
 *
 * Runs in sessions that define pipelines, for the check, and in the
 * conductor, on answers from outside.  A path is walked as text, one step at
 * a time; its length, its steps and the depth of every tree are bounded, and
 * so is the work: with wildcards it is that of visiting the tree once.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "json.h"
#include "jsonpath.h"

typedef enum StepKind
{
	STEP_MEMBER,
	STEP_ELEMENT,
	STEP_ALL
} StepKind;

typedef struct Step
{
	StepKind	kind;
	char		name[JSONPATH_MAX_LENGTH + 1];	/* of a member */
	int			index;			/* of an element */
} Step;

typedef struct Matches
{
	cJSON	   *copies;			/* array the matches are copied to, or NULL */
	const cJSON *first;
	int			limit;
	int			n;
} Matches;

static const char *
read_name(const char *p, Step *step)
{
	size_t		len = 0;

	while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
		   *p == '_' || *p == '-' || (unsigned char) *p >= 0x80)
		step->name[len++] = *p++;
	step->name[len] = '\0';
	step->kind = STEP_MEMBER;
	return len > 0 ? p : NULL;
}

static const char *
read_quoted(const char *p, Step *step)
{
	char		quote = *p++;
	size_t		len = 0;

	while (*p != '\0' && *p != quote)
	{
		if (*p == '\\' && (p[1] == quote || p[1] == '\\'))
			p++;
		step->name[len++] = *p++;
	}
	step->name[len] = '\0';
	step->kind = STEP_MEMBER;
	return *p == quote ? p + 1 : NULL;
}

static const char *
read_index(const char *p, Step *step)
{
	bool		negative = *p == '-';
	int			digits = 0;

	step->index = 0;
	for (p += negative; *p >= '0' && *p <= '9' && digits < 8; p++, digits++)
		step->index = step->index * 10 + (*p - '0');
	if (negative)
		step->index = -step->index;
	step->kind = STEP_ELEMENT;
	return digits > 0 && !(negative && step->index == 0) ? p : NULL;
}

/* The step at p, which is not the end; NULL if it is none, then *where says what is wrong */
static const char *
read_step(const char *p, Step *step, const char **where)
{
	const char *rest;

	*where = p;
	if (*p == '.')
	{
		*where = ++p;
		if (*p != '*')
			return read_name(p, step);
		step->kind = STEP_ALL;
		return p + 1;
	}
	if (*p != '[')
		return NULL;
	*where = ++p;
	if (*p == '*')
	{
		step->kind = STEP_ALL;
		rest = p + 1;
	}
	else
		rest = *p == '\'' || *p == '"' ? read_quoted(p, step) : read_index(p, step);
	return rest != NULL && *rest == ']' ? rest + 1 : NULL;
}

/* Over the whole path; *many: a wildcard is in it */
static bool
scan(const char *path, bool *many, char **error)
{
	const char *where = path;
	const char *p = path;
	Step		step;
	int			steps = 0;

	*many = false;
	if (strlen(path) > JSONPATH_MAX_LENGTH)
	{
		*error = mem_printf("longer than %d bytes", JSONPATH_MAX_LENGTH);
		return false;
	}
	if (*p != '$')
	{
		*error = mem_strdup("a path begins with \"$\"");
		return false;
	}
	for (p++; *p != '\0';)
	{
		if (++steps > JSONPATH_MAX_STEPS)
		{
			*error = mem_printf("more than %d steps", JSONPATH_MAX_STEPS);
			return false;
		}
		p = read_step(p, &step, &where);
		if (p == NULL)
		{
			*error = mem_printf("not a step such as .name, ['name'], [0] or [*] at byte %d", (int) (where - path) + 1);
			return false;
		}
		*many |= step.kind == STEP_ALL;
	}
	return true;
}

bool
jsonpath_check(const char *path, char **error)
{
	bool		many;

	*error = NULL;
	return scan(path, &many, error);
}

/* The same when nobody wants to know why not */
static bool
is_path(const char *path, bool *many)
{
	char	   *error = NULL;

	if (path == NULL || !scan(path, many, &error))
	{
		if (error != NULL)
			mem_free(error);
		return false;
	}
	return true;
}

bool
jsonpath_is_many(const char *path)
{
	bool		many;

	return is_path(path, &many) && many;
}

/* False: enough */
static bool
match(const cJSON *item, Matches *matches)
{
	if (matches->n++ == 0)
		matches->first = item;
	if (matches->copies == NULL)
		return false;
	cJSON_AddItemToArray(matches->copies, cJSON_Duplicate(item, true));
	return matches->n < matches->limit;
}

static const cJSON *
element(const cJSON *array, int index)
{
	if (!cJSON_IsArray(array))
		return NULL;
	if (index < 0)
		index += cJSON_GetArraySize(array);
	return index < 0 ? NULL : cJSON_GetArrayItem(array, index);
}

/* Recursion: one level for each step, JSONPATH_MAX_STEPS at most */
static bool
walk(const cJSON *item, const char *p, Matches *matches)
{
	const char *where;
	const cJSON *child;
	Step		step;

	if (*p == '\0')
		return match(item, matches);
	p = read_step(p, &step, &where);
	if (p == NULL)
		return true;
	if (step.kind == STEP_ALL)
	{
		if (cJSON_IsArray(item) || cJSON_IsObject(item))
			cJSON_ArrayForEach(child, item)
			{
				if (!walk(child, p, matches))
					return false;
			}
		return true;
	}
	if (step.kind == STEP_ELEMENT)
		child = element(item, step.index);
	else
		child = cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, step.name) : NULL;
	return child == NULL || walk(child, p, matches);
}

static bool
find(const cJSON *root, const char *path, Matches *matches)
{
	bool		many;

	if (root == NULL || !is_path(path, &many))
		return false;
	(void) walk(root, path + 1, matches);
	return matches->n > 0;
}

const cJSON *
jsonpath_find(const cJSON *root, const char *path)
{
	Matches		matches = {.limit = 1};

	return find(root, path, &matches) ? matches.first : NULL;
}

cJSON *
jsonpath_copy(const cJSON *root, const char *path, int limit)
{
	Matches		matches = {.limit = limit};

	if (!jsonpath_is_many(path))
	{
		const cJSON *item = jsonpath_find(root, path);

		return item ? cJSON_Duplicate(item, true) : NULL;
	}
	matches.copies = cJSON_CreateArray();
	if (matches.copies == NULL)
		mem_exhausted();
	if (find(root, path, &matches))
		return matches.copies;
	cJSON_Delete(matches.copies);
	return NULL;
}
