/*-------------------------------------------------------------------------
 * fabric_spec.c
 *	  What a task of kind fabric_item asks for
 *
 * Runs in sessions that define pipelines and, on rendered specs, in the
 * conductor.  Either "item" and "job_type" say which job of which item to
 * run, or "call" is any other request that Fabric may answer with a
 * long-running operation.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <strings.h>

#include "fabric_int.h"

#define MAX_PARAMETERS	500

static const KindMember members[] = {
	{"workspace", KIND_TYPE_STRING, false},
	{"item", KIND_TYPE_STRING, false},
	{"job_type", KIND_TYPE_STRING, false},
	{"parameters", KIND_TYPE_OBJECT | KIND_TYPE_ARRAY, false},
	{"execution_data", KIND_TYPE_OBJECT, false},
	{"call", KIND_TYPE_OBJECT, false},
	{"idempotent", KIND_TYPE_BOOLEAN, false},
};

static const KindMember call_members[] = {
	{"method", KIND_TYPE_STRING, false},
	{"path", KIND_TYPE_STRING, true},
	{"body", KIND_TYPE_ANY, false},
};

bool
fabric_is_call(const cJSON *spec)
{
	return cJSON_IsObject(kind_member(spec, "call"));
}

/* 8-4-4-4-12 hexadecimal digits */
static bool
is_guid(const char *text)
{
	if (text == NULL || strlen(text) != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		bool		dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	}
	return true;
}

static bool
check_guid(const cJSON *spec, const char *name, KindProblem *problem)
{
	const cJSON *item = kind_member(spec, name);

	if (item == NULL || cJSON_IsNull(item) || kind_may_become(problem, item) || is_guid(json_string(item)))
		return true;
	return kind_problem(problem, mem_printf("$.%s", name), mem_printf("\"%s\" must be an id of 36 characters", name),
						"It is in the address of the item's page: .../groups/WORKSPACE/.../ITEM");
}

static bool
check_job_type(const cJSON *spec, KindProblem *problem)
{
	const cJSON *item = kind_member(spec, "job_type");
	const char *type = kind_string(spec, "job_type");

	if (kind_may_become(problem, item))
		return true;
	if (type != NULL && strlen(type) <= 100 && isalpha((unsigned char) *type) &&
		strspn(type, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == strlen(type))
		return true;
	return kind_problem(problem, "$.job_type", "\"job_type\" must be the name of a job type",
						"Such as Pipeline, RunNotebook, sparkjob, TableMaintenance, Refresh.");
}

/* [{"name": ..., "type": ..., "value": ...}] */
static bool
check_typed_parameters(const cJSON *parameters, KindProblem *problem)
{
	const cJSON *item;
	int			i = 0;

	if (cJSON_GetArraySize(parameters) > MAX_PARAMETERS)
		return kind_problem(problem, "$.parameters", "more than 500 parameters", NULL);
	cJSON_ArrayForEach(item, parameters)
	{
		if (!kind_may_become(problem, item) &&
			(kind_string(item, "name") == NULL || strlen(kind_string(item, "name")) > 256 ||
			 kind_string(item, "type") == NULL || kind_member(item, "value") == NULL))
			return kind_problem(problem, mem_printf("$.parameters[%d]", i),
								"a parameter of a list needs \"name\", \"type\" and \"value\"",
								"Types are Text, Integer, Number, Boolean, DateTime, Guid, VariableReference and Automatic. "
								"An object {\"name\": value} is enough where the type follows from the value.");
		i++;
	}
	return true;
}

static bool
check_call(const cJSON *spec, KindProblem *problem)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
	static const char *const others[] = {"item", "job_type", "parameters", "execution_data"};
	const cJSON *call = kind_member(spec, "call");
	const char *method = kind_string(call, "method");
	bool		known = method == NULL || kind_may_become(problem, kind_member(call, "method"));

	if (!kind_check_members(call, call_members, lengthof(call_members), problem))
		return kind_problem_at("$.call", problem);
	for (size_t i = 0; i < lengthof(others); i++)
	{
		if (kind_member(spec, others[i]) != NULL)
			return kind_problem(problem, mem_printf("$.%s", others[i]),
								mem_printf("\"%s\" does not go with \"call\"", others[i]), NULL);
	}
	for (size_t i = 0; i < lengthof(methods); i++)
		known |= method != NULL && strcmp(methods[i], method) == 0;
	if (!known)
		return kind_problem(problem, "$.call.method", "unknown method", "Methods are GET, POST, PUT, PATCH and DELETE.");
	return kind_check_path(kind_member(call, "path"), "$.call.path", "Such as \"/workspaces/ID/sqlEndpoints/ID/refreshMetadata\".", problem);
}

bool
fabric_check_spec(const cJSON *spec, KindProblem *problem)
{
	if (!kind_check_members(spec, members, lengthof(members), problem))
		return false;
	if (!check_guid(spec, "workspace", problem) || !check_guid(spec, "item", problem))
		return false;
	if (kind_member(spec, "call") != NULL)
		return check_call(spec, problem);
	if (kind_member(spec, "item") == NULL || kind_member(spec, "job_type") == NULL)
		return kind_problem(problem, "$", "give \"item\" and \"job_type\", or \"call\"",
							"Members of the spec are workspace, item, job_type, parameters, execution_data, call, idempotent.");
	if (kind_member(spec, "idempotent") != NULL)
		return kind_problem(problem, "$.idempotent", "\"idempotent\" goes with \"call\" only",
							"A job is looked for in the list of the item's jobs when the answer is lost.");
	if (!check_job_type(spec, problem))
		return false;
	return !cJSON_IsArray(kind_member(spec, "parameters")) ||
		check_typed_parameters(kind_member(spec, "parameters"), problem);
}

const char *
fabric_workspace(const KindCall *call)
{
	const char *workspace = kind_string(call->spec, "workspace");

	return workspace ? workspace : kind_string(call->options, "workspace_id");
}

char *
fabric_jobs_url(const KindCall *call, const char *rest)
{
	StrBuf		url;

	strbuf_init(&url);
	strbuf_printf(&url, "%s/workspaces/", call->base_url);
	kind_url_encode(&url, fabric_workspace(call));
	strbuf_addstr(&url, "/items/");
	kind_url_encode(&url, kind_string(call->spec, "item"));
	strbuf_printf(&url, "/jobs%s", rest);
	return url.data;
}

char *
fabric_page(const KindCall *call, const char *instance)
{
	static const struct
	{
		const char *job_type;
		const char *folder;
	}			table[] = {
		{"RunNotebook", "synapsenotebooks"}, {"sparkjob", "sparkjobdefinitions"}, {"TableMaintenance", "lakehouses"},
		{"RefreshMaterializedLakeViews", "lakehouses"},
	};
	const char *type = kind_string(call->spec, "job_type");
	const char *item = kind_string(call->spec, "item");
	const char *workspace = fabric_workspace(call);

	/* ids were checked, or are ours: nothing to escape */
	if (type == NULL || !is_guid(item) || !is_guid(workspace))
		return NULL;
	if (strcasecmp(type, "Pipeline") == 0)
		return mem_printf("https://app.fabric.microsoft.com/workloads/data-pipeline/monitoring/workspaces/%s/pipelines/%s/%s",
						  workspace, item, instance);
	for (size_t i = 0; i < lengthof(table); i++)
	{
		if (strcasecmp(table[i].job_type, type) == 0)
			return mem_printf("https://app.fabric.microsoft.com/groups/%s/%s/%s", workspace, table[i].folder, item);
	}
	return mem_printf("https://app.fabric.microsoft.com/groups/%s", workspace);
}

/* A notebook wants {"name": {"value": ..., "type": "string"}} */
static cJSON *
notebook_parameters(const cJSON *parameters)
{
	cJSON	   *result = cJSON_CreateObject();
	const cJSON *item;

	cJSON_ArrayForEach(item, parameters)
	{
		cJSON	   *one;
		int64		ignored;

		if (cJSON_IsObject(item) && kind_member(item, "value") != NULL)
		{
			cJSON_AddItemToObject(result, item->string, cJSON_Duplicate(item, true));
			continue;
		}
		one = cJSON_AddObjectToObject(result, item->string);
		if (cJSON_IsObject(item) || cJSON_IsArray(item))
		{
			char	   *text = json_text(item);

			cJSON_AddStringToObject(one, "value", text);
			mem_free(text);
		}
		else
			cJSON_AddItemToObject(one, "value", cJSON_Duplicate(item, true));
		cJSON_AddStringToObject(one, "type", cJSON_IsBool(item) ? "bool" :
								!cJSON_IsString(item) && json_int64(item, &ignored) ? "int" :
								cJSON_IsNumber(item) || cJSON_IsRaw(item) ? "float" : "string");
	}
	return result;
}

/* The list of the general form, the type left to Fabric */
static cJSON *
typed_parameters(const cJSON *parameters)
{
	cJSON	   *list = cJSON_CreateArray();
	const cJSON *item;

	cJSON_ArrayForEach(item, parameters)
	{
		cJSON	   *one = cJSON_CreateObject();

		cJSON_AddStringToObject(one, "name", item->string);
		cJSON_AddStringToObject(one, "type", "Automatic");
		cJSON_AddItemToObject(one, "value", cJSON_Duplicate(item, true));
		cJSON_AddItemToArray(list, one);
	}
	return list;
}

cJSON *
fabric_body(const KindCall *call)
{
	const cJSON *parameters = kind_member(call->spec, "parameters");
	const cJSON *data = kind_member(call->spec, "execution_data");
	const char *type = kind_string(call->spec, "job_type");
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *copy = cJSON_IsObject(data) ? cJSON_Duplicate(data, true) : NULL;
	bool		is_pipeline = strcasecmp(type, "Pipeline") == 0;

	if (cJSON_IsArray(parameters))
		cJSON_AddItemToObject(body, "parameters", cJSON_Duplicate(parameters, true));
	else if (cJSON_IsObject(parameters) && (is_pipeline || strcasecmp(type, "RunNotebook") == 0))
	{
		if (copy == NULL)
			copy = cJSON_CreateObject();
		cJSON_DeleteItemFromObjectCaseSensitive(copy, "parameters");
		cJSON_AddItemToObject(copy, "parameters", is_pipeline ? cJSON_Duplicate(parameters, true) :
							  notebook_parameters(parameters));
	}
	else if (cJSON_IsObject(parameters))
		cJSON_AddItemToObject(body, "parameters", typed_parameters(parameters));
	if (copy != NULL)
		cJSON_AddItemToObject(body, "executionData", copy);
	if (body->child != NULL)
		return body;
	cJSON_Delete(body);
	return NULL;
}
