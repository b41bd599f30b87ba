/*-------------------------------------------------------------------------
 * target_text.c
 *	  What core/ reads: JSON, paths, templates, SQL, selections, policies, times
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "jsonpath.h"
#include "reference.h"
#include "retry.h"
#include "retryon.h"
#include "selector.h"
#include "sqltext.h"

#include "kind_int.h"
#include "signin_pure.h"

/* --- JSON ------------------------------------------------------------------ */

/* The tree of a text, or NULL; an error has to fit into a message. */
static cJSON *
tree_of(const char *text, size_t len)
{
	char	   *error = NULL;
	cJSON	   *tree = json_parse(text, len, FUZZ_MAX_INPUT, &error);

	FUZZ_CHECK((tree == NULL) == (error != NULL));
	FUZZ_CHECK(error == NULL || (fuzz_is_utf8(error) && strlen(error) < 2000));
	return tree;
}

static void
check_scalars(const cJSON *tree)
{
	const cJSON *item;
	int64		i;
	double		d;
	bool		b;

	cJSON_ArrayForEach(item, tree)
		check_scalars(item);
	(void) json_double(tree, &d);
	(void) json_bool(tree, &b);
	(void) json_string(tree);
	if (json_int64(tree, &i))
	{
		int64		again;

		FUZZ_CHECK(json_int64(json_from_int64(i), &again) && again == i);
	}
}

void
fuzz_json(const char *text, size_t len)
{
	cJSON	   *tree = tree_of(text, len);
	char	   *printed;
	cJSON	   *again;
	char	   *error;

	if (tree == NULL)
		return;
	printed = json_text(tree);
	FUZZ_CHECK(fuzz_is_utf8(printed));
	again = tree_of(printed, strlen(printed));
	FUZZ_CHECK_OF(again != NULL, printed);
	FUZZ_CHECK_OF(strcmp(json_text(again), printed) == 0, printed);
	FUZZ_CHECK_OF(cJSON_Parse(printed) != NULL, printed);
	FUZZ_CHECK(json_depth(tree, 1000) <= JSON_MAX_DEPTH);
	FUZZ_CHECK(json_check_unique(tree, &error));
	check_scalars(tree);
	for (size_t limit = 0; limit < 24; limit++)
	{
		char	   *cut = json_text_limited(tree, limit);

		FUZZ_CHECK(strlen(cut) <= limit && fuzz_is_utf8(cut));
	}
}

/* A path in the first line, a document in the rest */
void
fuzz_jsonpath(const char *text, size_t len)
{
	const char *at = text;
	char	   *path = fuzz_line(&at);
	char	   *error = NULL;
	cJSON	   *tree;
	const cJSON *found;
	cJSON	   *copy;
	bool		is_path;

	if (path == NULL)
		return;
	is_path = jsonpath_check(path, &error);
	FUZZ_CHECK(is_path == (error == NULL));
	tree = tree_of(at, len - (size_t) (at - text));
	found = jsonpath_find(tree, path);
	copy = jsonpath_copy(tree, path, 100);
	FUZZ_CHECK(is_path || (found == NULL && copy == NULL));
	FUZZ_CHECK(found == NULL || copy != NULL);
	if (is_path && jsonpath_is_many(path))
		FUZZ_CHECK(copy == NULL || (cJSON_IsArray(copy) && cJSON_GetArraySize(copy) <= 100));
	else
		FUZZ_CHECK((found == NULL) == (copy == NULL));
	(void) json_get(tree, path);
}

/* --- templates ------------------------------------------------------------- */

static const char *const names[] = {"a", "b", "load", "p"};
static const RefScope scope = {names, lengthof(names), names, 2, names, lengthof(names), true};

/* Every kind of value, by the first letter of the last name */
static cJSON *
resolve(const RefPath *path, void *arg, char **error)
{
	const RefPart *last = &path->parts[path->nparts - 1];

	*(int *) arg += 1;
	if (last->name == NULL)
		return cJSON_CreateNumber(last->index);
	switch (last->name[0])
	{
		case 'a':
			return cJSON_Parse("{\"x\":[1,null,\"{{ run.id }}\"]}");
		case 'b':
			return cJSON_CreateBool(true);
		case 'e':
			*error = mem_strdup("it cannot be known");
			return NULL;
		case 'n':
			return cJSON_CreateNull();
		case 'r':
			return json_from_int64(INT64_C(9007199254740993));
		default:
			return cJSON_CreateString("\"'\\\n\xC3\xA4{{");
	}
}

static bool
check_piece(const RefPiece *piece, void *arg, char **error)
{
	if (piece->path != NULL)
	{
		char	   *again = mem_printf("{{%s}}", piece->path->text);
		size_t		pos = 0;
		RefPath    *path = NULL;
		char	   *literal = NULL;

		FUZZ_CHECK(piece->path->nparts >= 1 && piece->path->nparts <= REF_MAX_PARTS);
		FUZZ_CHECK(piece->path->parts[0].name != NULL);
		FUZZ_CHECK_OF(ref_parse(again, strlen(again), &pos, &path, &literal, error), again);
		FUZZ_CHECK_OF(path != NULL && strcmp(path->text, piece->path->text) == 0 && pos == strlen(again), again);
		(void) ref_check(piece->path, &scope);
	}
	return true;
}

void
fuzz_template(const char *text, size_t len)
{
	char	   *error = NULL;
	char	   *out;
	int			n = 0;
	cJSON	   *tree;
	cJSON	   *rendered;
	bool		is_scanned = ref_scan(text, check_piece, NULL, &error);

	FUZZ_CHECK(is_scanned == (error == NULL));
	error = NULL;
	out = ref_render_text(text, resolve, &n, &error);
	FUZZ_CHECK((out == NULL) == (error != NULL));
	FUZZ_CHECK(out == NULL || is_scanned);
	if (out != NULL && fuzz_is_utf8(text))
		FUZZ_CHECK(fuzz_is_utf8(out));
	if (out != NULL && strstr(text, "{{") == NULL)
		FUZZ_CHECK(strcmp(out, text) == 0 && n == 0);

	tree = tree_of(text, len);
	if (tree == NULL)
		return;
	error = NULL;
	(void) ref_scan_json(tree, check_piece, NULL, &error);
	(void) ref_check_json(tree, &scope);
	rendered = ref_render_json(tree, resolve, &n, &error);
	FUZZ_CHECK(rendered != NULL || error != NULL);
	if (rendered != NULL)
		FUZZ_CHECK(fuzz_is_utf8(json_text(rendered)));
	error = NULL;
	(void) ref_render_known(tree, resolve, &n, &error);
}

void
fuzz_sql(const char *text, size_t len)
{
	char	   *error = NULL;
	char	   *hint = NULL;
	SqlText    *sql = sqltext_compile(text, &error, &hint);

	FUZZ_CHECK((sql == NULL) == (error != NULL));
	if (sql == NULL)
	{
		FUZZ_CHECK(fuzz_is_utf8(error) || !fuzz_is_utf8(text));
		return;
	}
	FUZZ_CHECK(sql->nrefs >= 0 && sql->nrefs <= SQLTEXT_MAX_REFS);
	if (sql->nrefs == 0 && strstr(text, "{{") == NULL)
		FUZZ_CHECK(strcmp(sql->sql, text) == 0);
	for (int i = 0; i < sql->nrefs; i++)
		FUZZ_CHECK(strstr(sql->sql, mem_printf("$%d", i + 1)) != NULL);
	(void) sqltext_check(sql, &scope);
	sqltext_free(sql);
}

/* --- selections ------------------------------------------------------------ */

/* Edges in the first line, two letters each; selectors in the others */
void
fuzz_selector(const char *text, size_t len)
{
	static const char *const tasks[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	const char *at = text;
	const char *letters = fuzz_line(&at);
	const char *selectors[64];
	DagEdge		edges[256];
	int			nedges = 0;
	int			nselectors = 0;
	Dag			dag;
	char	   *error = NULL;
	bool		selected[lengthof(tasks)] = {false};

	for (; letters != NULL && letters[0] != '\0' && letters[1] != '\0' && nedges < (int) lengthof(edges); letters += 2)
		edges[nedges++] = (DagEdge) {letters[0] - 'a', letters[1] - 'a'};
	while (nselectors < (int) lengthof(selectors) && (selectors[nselectors] = fuzz_line(&at)) != NULL)
		nselectors++;
	if (!dag_sort((int) lengthof(tasks), edges, nedges, tasks, &dag, &error))
	{
		FUZZ_CHECK(error != NULL);
		dag_free(&dag);
		return;
	}
	for (int i = 0; i < nedges; i++)
		FUZZ_CHECK(dag.wave[edges[i].from] < dag.wave[edges[i].to]);
	if (selector_resolve((int) lengthof(tasks), tasks, edges, nedges, selectors, nselectors, selected, &error))
	{
		for (int i = 0; i < nselectors; i++)
		{
			if (strlen(selectors[i]) == 1)
				FUZZ_CHECK(selected[selectors[i][0] - 'a']);
		}
	}
	else
		FUZZ_CHECK(error != NULL);
	dag_free(&dag);
}

/* --- policies and times ---------------------------------------------------- */

void
fuzz_retry(const char *text, size_t len)
{
	static const FailureFacts failures[] = {
		{"40001", 0, NULL, false, true, false},
		{NULL, 429, "TooMany", true, false, false},
		{"", -1, "", false, false, true},
		{"XX", 599, "a.b", true, true, false},
	};
	cJSON	   *on = tree_of(text, len);
	const char *path = NULL;
	const char *message = NULL;
	const char *hint = NULL;

	if (on == NULL)
		return;
	if (!retry_on_check(on, &path, &message, &hint))
	{
		FUZZ_CHECK(path != NULL && message != NULL);
		return;
	}
	for (size_t i = 0; i < lengthof(failures); i++)
		FUZZ_CHECK(!(retry_on_allows(on, &failures[i]) && failures[i].may_go_on));
}

/* Each line is taken for everything that says a time, or tells of one */
void
fuzz_time(const char *text, size_t len)
{
	const int64 now_s = INT64_C(1795226400);
	const char *at = text;
	char	   *line;

	while ((line = fuzz_line(&at)) != NULL)
	{
		int64		value = retry_after_parse(line, now_s);
		int64		later = retry_after_parse(line, INT64_C(253402300799));
		cJSON	   *item = cJSON_CreateString(line);

		FUZZ_CHECK_OF(value >= -1 && value <= RETRY_MAX_DELAY_MS, line);
		FUZZ_CHECK_OF((value == -1) == (later == -1), line);
		if (kind_time_parse(line, &value))
		{
			char	   *shown = kind_time_text(value);
			int64		again;

			FUZZ_CHECK_OF(shown == NULL || (kind_time_parse(shown, &again) && again == value), line);
		}
		if (token_time_parse(line, &value))
		{
			TokenTimes	times = token_times(now_s * 1000, value - now_s, 0);

			FUZZ_CHECK_OF(times.refresh_at_ms <= times.expires_at_ms, line);
		}
		value = kind_duration_ms(item);
		FUZZ_CHECK_OF(value >= -1 && value <= INT64_C(31) * 86400000, line);
		FUZZ_CHECK_OF(aadsts_code(line) >= 0, line);
		(void) aadsts_meaning(aadsts_code(line));
		(void) aadsts_clock_ahead(line, now_s, &value);
		(void) retry_sqlstate_is_transient(line);
		(void) retry_sqlstate_is_user_error(line);
		for (int i = 1; i < 40; i += 13)
		{
			value = token_hold_ms(i, false, retry_after_parse(line, now_s));
			FUZZ_CHECK_OF(value >= 0, line);
		}
	}
}
