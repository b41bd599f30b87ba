/*-------------------------------------------------------------------------
 * selector.c
 *	  Which tasks of a pipeline a selection names
 *
 * Runs in sessions that trigger or repair runs.  Pure functions; however
 * many selectors there are, the DAG is walked once in each direction.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "selector.h"

#define SHOW_BYTES	64

typedef struct Selector
{
	const char *name;			/* not terminated */
	size_t		len;
	bool		upstream;
	bool		downstream;
} Selector;

static bool
selector_parse(const char *text, Selector *selector)
{
	while (*text == ' ')
		text++;
	selector->upstream = *text == '+';
	if (selector->upstream)
		text++;
	selector->len = strlen(text);
	while (selector->len > 0 && text[selector->len - 1] == ' ')
		selector->len--;
	selector->downstream = selector->len > 0 && text[selector->len - 1] == '+';
	if (selector->downstream)
		selector->len--;
	selector->name = text;
	return selector->len > 0 && memchr(text, '+', selector->len) == NULL;
}

static int
find_task(int ntasks, const char *const *names, const Selector *selector)
{
	for (int t = 0; t < ntasks; t++)
		if (strlen(names[t]) == selector->len && memcmp(names[t], selector->name, selector->len) == 0)
			return t;
	return -1;
}

bool
selector_resolve(int ntasks, const char *const *names, const DagEdge *edges, int nedges,
				 const char *const *selectors, int nselectors, bool *selected, char **error)
{
	bool	   *up = mem_alloc0(sizeof(bool) * (ntasks + 1));
	bool	   *down = mem_alloc0(sizeof(bool) * (ntasks + 1));

	*error = NULL;
	memset(selected, 0, sizeof(bool) * ntasks);
	if (nselectors < 1 || nselectors > SELECTOR_MAX_COUNT)
		*error = mem_printf("a selection names 1 to %d tasks, not %d", SELECTOR_MAX_COUNT, nselectors);
	for (int i = 0; i < nselectors && *error == NULL; i++)
	{
		Selector	selector;
		int			task;

		if (!selector_parse(selectors[i], &selector))
		{
			*error = mem_printf("\"%.*s\" is no selector",
								(int) mem_clip_length(selectors[i], SHOW_BYTES), selectors[i]);
			break;
		}
		task = find_task(ntasks, names, &selector);
		if (task < 0)
		{
			*error = mem_printf("there is no task \"%.*s\"",
								(int) Min(selector.len, mem_clip_length(selector.name, SHOW_BYTES)), selector.name);
			break;
		}
		selected[task] = true;
		up[task] |= selector.upstream;
		down[task] |= selector.downstream;
	}
	if (*error == NULL)
	{
		dag_reach(ntasks, edges, nedges, true, up);
		dag_reach(ntasks, edges, nedges, false, down);
		for (int t = 0; t < ntasks; t++)
			selected[t] |= up[t] | down[t];
	}
	mem_free(up);
	mem_free(down);
	return *error == NULL;
}
