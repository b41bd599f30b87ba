/*-------------------------------------------------------------------------
 * jobformat.c
 *	  The job format of metadata-driven frameworks, turned into a definition.
 *
 *	  {"job_id": 101, "stages": [{"id": 1, "type": "ETL", "source": "...",
 *	  "destination": "...", ...}, ...]}
 *
 * Stages become tasks in the order of the list, each dependent on the one
 * before.  weir.stage_mapping says what a stage does; its template's
 * {{stage.KEY}} is replaced here by the stage's own value, everything else is
 * left for the run.  Runs in the session that defines the pipeline, with SPI
 * connected as the extension owner.
 *
 * A stage's value is data.  Braces in it are escaped, so that it cannot
 * become a reference, and in SQL it becomes a quoted literal that holds no
 * line end and no comment mark, so that it ends neither a string nor a
 * comment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "access.h"
#include "catalogutil.h"
#include "definition.h"
#include "json.h"
#include "reference.h"
#include "sqltext.h"

#define MAX_STAGE_ID 24

static const char *const job_keys[] = {
	"job_id", "stages", "name", "description", "parameters", "max_concurrent_runs", "max_concurrent_tasks", "timeout", "retry"
};

/* A stage being filled into its template */
typedef struct Fill
{
	const cJSON *stage;
	int			no;
	bool		is_sql;
} Fill;

bool
jobformat_is(const cJSON *root)
{
	return cJSON_IsObject(root) &&
		cJSON_GetObjectItemCaseSensitive(root, "stages") != NULL &&
		cJSON_GetObjectItemCaseSensitive(root, "tasks") == NULL;
}

static char *
stage_path(int no)
{
	return psprintf("$.stages[%d]", no);
}

/* 'text' or E'text'; see the head of the file */
static void
append_sql_literal(StringInfo out, const char *text)
{
	bool		escape = strpbrk(text, "\\\n\r*") != NULL || strstr(text, "{{") != NULL;

	appendStringInfoString(out, escape ? " E'" : " '");
	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '\'')
			appendStringInfoString(out, "''");
		else if (*p == '\n')
			appendStringInfoString(out, "\\n");
		else if (*p == '\r')
			appendStringInfoString(out, "\\r");
		else if (escape && strchr("\\*/{", *p) != NULL)
			appendStringInfo(out, "\\%c", *p);
		else
			appendStringInfoChar(out, *p);
	}
	appendStringInfoString(out, "' ");
}

static void
append_escaped(StringInfo out, const char *text)
{
	const char *open;

	while ((open = strstr(text, "{{")) != NULL)
	{
		appendBinaryStringInfo(out, text, open - text);
		appendStringInfoString(out, "{{\"{{\"}}");
		text = open + 2;
	}
	appendStringInfoString(out, text);
}

/* A copy of a stage's value whose strings hold no references */
static cJSON *
escaped_copy(const cJSON *value)
{
	cJSON	   *copy = cJSON_Duplicate(value, false);
	const cJSON *child;

	check_stack_depth();
	if (cJSON_IsString(value) && strstr(value->valuestring, "{{") != NULL)
	{
		StringInfoData text;

		initStringInfo(&text);
		append_escaped(&text, value->valuestring);
		return cJSON_CreateString(text.data);
	}
	cJSON_ArrayForEach(child, value)
	{
		if (cJSON_IsObject(value))
			cJSON_AddItemToObject(copy, child->string, escaped_copy(child));
		else
			cJSON_AddItemToArray(copy, escaped_copy(child));
	}
	return copy;
}

static const cJSON *
stage_value(const Fill *fill, const RefPath *path)
{
	const cJSON *value = path->nparts > 1 ? ref_value_at(fill->stage, path, 1) : NULL;

	if (value == NULL)
		definition_error(stage_path(fill->no),
						 psprintf("stage lacks what its mapping refers to as {{%s}}", catalog_clip(path->text)),
						 "Add the key to the stage, or change the mapping with weir.set_stage_mapping.");
	return value;
}

static void
append_value(const Fill *fill, StringInfo out, const cJSON *value)
{
	const char *text = cJSON_IsString(value) ? value->valuestring :
		cJSON_IsNull(value) ? NULL : json_text(value);

	if (fill->is_sql)
	{
		if (text == NULL)
			appendStringInfoString(out, " NULL ");
		else
			append_sql_literal(out, text);
	}
	else if (text != NULL)
		append_escaped(out, text);
}

/* One string of a template; what is one reference and nothing else keeps the value's type. */
static cJSON *
fill_text(const Fill *fill, const char *text)
{
	size_t		len = strlen(text);
	size_t		done = 0;
	const char *open;
	StringInfoData out;

	initStringInfo(&out);
	while ((open = strstr(text + done, "{{")) != NULL)
	{
		size_t		start = open - text;
		size_t		end = start;
		RefPath    *path = NULL;
		char	   *literal = NULL;
		char	   *error = NULL;

		appendBinaryStringInfo(&out, text + done, start - done);
		if (!ref_parse(text, len, &end, &path, &literal, &error))
		{
			/* In SQL that may be an array in quotes; defcheck.c will tell. */
			if (!fill->is_sql)
				definition_error(stage_path(fill->no), psprintf("stage mapping: %s", error), NULL);
			end = start + 2;
		}
		if (path == NULL || !ref_path_is(path, 0, "stage"))
			appendBinaryStringInfo(&out, text + start, end - start);
		else if (start == 0 && end == len && !fill->is_sql)
			return escaped_copy(stage_value(fill, path));
		else
			append_value(fill, &out, stage_value(fill, path));
		done = end;
	}
	appendStringInfoString(&out, text + done);
	return cJSON_CreateString(out.data);
}

static cJSON *
fill_spec(const Fill *fill, const cJSON *template)
{
	cJSON	   *copy;
	const cJSON *child;

	check_stack_depth();
	if (cJSON_IsString(template))
		return fill_text(fill, template->valuestring);
	copy = cJSON_Duplicate(template, false);
	cJSON_ArrayForEach(child, template)
	{
		if (cJSON_IsObject(template))
			cJSON_AddItemToObject(copy, child->string, fill_spec(fill, child));
		else
			cJSON_AddItemToArray(copy, fill_spec(fill, child));
	}
	return copy;
}

static cJSON *
fill_template(const cJSON *stage, int no, const char *kind, const cJSON *template)
{
	Fill		fill = {stage, no, false};
	cJSON	   *spec = cJSON_CreateObject();
	const cJSON *item;

	cJSON_ArrayForEach(item, template)
	{
		fill.is_sql = (strcmp(kind, "sql") == 0 || strcmp(kind, "redis_publish") == 0) && strcmp(item->string, "sql") == 0 && cJSON_IsString(item);
		if (fill.is_sql)
		{
			char	   *error = NULL;
			char	   *hint = NULL;
			SqlText    *sql = sqltext_compile(item->valuestring, &error, &hint);

			/* Says whether every reference stands where a literal may stand. */
			if (sql == NULL)
				definition_error(stage_path(no), psprintf("SQL of the stage mapping: %s", error), hint);
			sqltext_free(sql);
		}
		cJSON_AddItemToObject(spec, item->string, fill_spec(&fill, item));
	}
	return spec;
}

/* "1" or "a_1": becomes part of the task's name */
static char *
stage_id(const cJSON *stage, int no)
{
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(stage, "id");
	int64		number;
	char	   *text;

	if (id == NULL)
		definition_error(stage_path(no), "key \"id\" is missing", NULL);
	if (cJSON_IsString(id))
		text = pstrdup(id->valuestring);
	else if (json_int64(id, &number) && number >= 0)
		text = psprintf(INT64_FORMAT, number);
	else
		text = pstrdup("");
	if (text[0] == '\0' || strlen(text) > MAX_STAGE_ID ||
		!catalog_is_identifier(psprintf("_%s", text)))
		definition_error(psprintf("%s.id", stage_path(no)),
						 "\"id\" must be a whole number, or a string of at most 24 letters, digits and \"_\"", NULL);
	return text;
}

static const char *
stage_string(const cJSON *stage, int no, const char *key, bool required)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(stage, key);

	if (item == NULL || (cJSON_IsNull(item) && !required))
	{
		if (required)
			definition_error(stage_path(no), psprintf("key \"%s\" is missing", key), NULL);
		return NULL;
	}
	if (!cJSON_IsString(item) || strlen(item->valuestring) > 1000)
		definition_error(psprintf("%s.%s", stage_path(no), key),
						 psprintf("\"%s\" must be a string of at most 1000 bytes", key), NULL);
	return item->valuestring;
}

/* stage_1_etl */
static char *
task_name(const char *id, const char *type)
{
	char	   *name = psprintf("stage_%s_%.60s", id, type);

	for (char *p = name; *p != '\0'; p++)
	{
		*p = pg_ascii_tolower((unsigned char) *p);
		if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
			*p = '_';
	}
	if (strlen(name) > 63)
		name[63] = '\0';
	return name;
}

static Datum
text_array(const char **values, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * n);
	bool	   *nulls = palloc(sizeof(bool) * n);
	int			dims[1] = {n};
	int			lower[1] = {1};

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == NULL;
		elems[i] = nulls[i] ? (Datum) 0 : catalog_text(values[i]);
	}
	return PointerGetDatum(construct_md_array(elems, nulls, 1, dims, lower, TEXTOID, -1, false, TYPALIGN_INT));
}

/* One row per stage in SPI_tuptable, nulls where nothing matches. */
static void
find_mappings(const char **types, const char **sources, const char **destinations, int n)
{
	static const Oid argtypes[] = {TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[3];

	values[0] = text_array(types, n);
	values[1] = text_array(sources, n);
	values[2] = text_array(destinations, n);
	weir_spi("SELECT m.kind, m.connection_name, m.phase, m.spec, m.settings "
			 "FROM unnest($1, $2, $3) WITH ORDINALITY AS s (type, source, destination, no) "
			 "LEFT JOIN LATERAL (SELECT * FROM weir.stage_mapping AS m WHERE m.stage_type = s.type "
			 "AND (m.source IS NULL OR m.source = s.source) "
			 "AND (m.destination IS NULL OR m.destination = s.destination) "
			 "ORDER BY (m.source IS NOT NULL)::int + (m.destination IS NOT NULL)::int DESC, "
			 "m.source IS NOT NULL DESC LIMIT 1) AS m ON true ORDER BY s.no",
			 3, argtypes, values, NULL);
}

static void
no_mapping(int no, const char *type, const char *source, const char *destination)
{
	definition_error(stage_path(no),
					 psprintf("no stage mapping for type \"%s\"%s%s%s%s%s%s", catalog_clip(type),
							  source ? ", source \"" : "", source ? catalog_clip(source) : "", source ? "\"" : "",
							  destination ? ", destination \"" : "", destination ? catalog_clip(destination) : "",
							  destination ? "\"" : ""),
					 "Say what such a stage does with weir.set_stage_mapping.");
}

static cJSON *
make_task(const cJSON *stage, int no, const char *name, const char *previous)
{
	cJSON	   *task = cJSON_CreateObject();
	char	   *kind = weir_spi_text(no, 1);
	char	   *connection = weir_spi_text(no, 2);
	char	   *spec = weir_spi_text(no, 4);
	char	   *error = NULL;
	cJSON	   *template = json_parse(spec, strlen(spec), DEFINITION_MAX_BYTES, &error);
	char	   *more = weir_spi_text(no, 5);
	cJSON	   *settings = json_parse(more, strlen(more), DEFINITION_MAX_BYTES, &error);
	cJSON	   *setting;

	if (template == NULL || settings == NULL)
		elog(ERROR, "stored stage mapping cannot be read: %s", error);
	cJSON_AddStringToObject(task, "name", name);
	cJSON_AddStringToObject(task, "kind", kind);
	if (connection)
		cJSON_AddStringToObject(task, "connection", connection);
	cJSON_AddStringToObject(task, "phase", weir_spi_text(no, 3));
	if (previous)
		cJSON_AddItemToArray(cJSON_AddArrayToObject(task, "depends_on"), cJSON_CreateString(previous));
	cJSON_AddItemToObject(task, "spec", fill_template(stage, no, kind, template));
	while ((setting = cJSON_DetachItemFromArray(settings, 0)) != NULL)
		cJSON_AddItemToObject(task, setting->string, setting);
	return task;
}

/* An id may come once; there are few enough stages in a megabyte to sort. */
static int
compare_ids(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static void
check_unique_ids(char **ids, int n)
{
	char	  **sorted = palloc(sizeof(char *) * n);

	memcpy(sorted, ids, sizeof(char *) * n);
	qsort(sorted, n, sizeof(char *), compare_ids);
	for (int i = 1; i < n; i++)
	{
		int			first = -1;

		if (strcmp(sorted[i - 1], sorted[i]) != 0)
			continue;
		for (int no = 0; no < n; no++)
		{
			if (strcmp(ids[no], sorted[i]) != 0)
				continue;
			if (first >= 0)
				definition_error(psprintf("%s.id", stage_path(no)),
								 psprintf("duplicate stage id %s", ids[no]),
								 psprintf("%s has that id already.", stage_path(first)));
			first = no;
		}
	}
}

cJSON *
jobformat_convert(const cJSON *root)
{
	const cJSON *stages = cJSON_GetObjectItemCaseSensitive(root, "stages");
	const cJSON *job_id = cJSON_GetObjectItemCaseSensitive(root, "job_id");
	cJSON	   *native = cJSON_CreateObject();
	cJSON	   *tasks;
	const cJSON *stage;
	const char **types;
	const char **sources;
	const char **destinations;
	char	  **ids;
	char	   *previous = NULL;
	int64		number;
	int			n;
	int			no = 0;

	definition_check_keys(root, "$", job_keys, lengthof(job_keys));
	if (job_id != NULL && !cJSON_IsString(job_id) && !json_int64(job_id, &number))
		definition_error("$.job_id", "\"job_id\" must be a whole number or a string", NULL);
	if (!cJSON_IsArray(stages))
		definition_error("$.stages", "\"stages\" must be an array", NULL);
	n = cJSON_GetArraySize(stages);
	if (n == 0)
		definition_error("$.stages", "a job needs at least one stage", NULL);
	if (n > DAG_MAX_TASKS)
		definition_error("$.stages", psprintf("more than %d stages", DAG_MAX_TASKS), NULL);

	for (int i = 0; i < lengthof(job_keys); i++)
	{
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, job_keys[i]);

		if (item != NULL && strcmp(job_keys[i], "job_id") != 0 &&
			strcmp(job_keys[i], "stages") != 0 && strcmp(job_keys[i], "name") != 0)
			cJSON_AddItemToObject(native, job_keys[i], cJSON_Duplicate(item, true));
	}

	types = palloc(sizeof(char *) * n);
	sources = palloc(sizeof(char *) * n);
	destinations = palloc(sizeof(char *) * n);
	ids = palloc(sizeof(char *) * n);
	cJSON_ArrayForEach(stage, stages)
	{
		if (!cJSON_IsObject(stage))
			definition_error(stage_path(no), "a stage must be an object", NULL);
		ids[no] = stage_id(stage, no);
		types[no] = stage_string(stage, no, "type", true);
		sources[no] = stage_string(stage, no, "source", false);
		destinations[no] = stage_string(stage, no, "destination", false);
		no++;
	}
	check_unique_ids(ids, n);
	find_mappings(types, sources, destinations, n);

	tasks = cJSON_AddArrayToObject(native, "tasks");
	no = 0;
	cJSON_ArrayForEach(stage, stages)
	{
		char	   *name = task_name(ids[no], types[no]);

		CHECK_FOR_INTERRUPTS();
		if (SPI_getvalue(SPI_tuptable->vals[no], SPI_tuptable->tupdesc, 1) == NULL)
			no_mapping(no, types[no], sources[no], destinations[no]);
		cJSON_AddItemToArray(tasks, make_task(stage, no, name, previous));
		previous = name;
		no++;
	}
	return native;
}
