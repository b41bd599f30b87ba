/*-------------------------------------------------------------------------
 * databricks_onetime.c
 *	  Kinds databricks_notebook, databricks_python, databricks_jar and
 *	  databricks_sql_file: one-time runs that need no job
 *
 * Runs in the conductor.  Talks to the Jobs API, version 2.2.
 *
 *	  START (runs/submit) ---------------> POLL ... --> DETAIL --> outcome
 *	    ^                                    ^
 *	  PREPARE: is there an earlier run? -----+ that goes on, or ended well
 *
 * runs/submit is given the attempt's token: sent again, it answers with the
 * same run.  A one-time run cannot be repaired; PREPARE only keeps from
 * starting again what goes on, or has meanwhile succeeded.
 *
 * kind_state: prepared, and what databricks_follow.c and databricks_run.c
 * keep.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "databricks_int.h"

#define ENVIRONMENT_KEY		"weir"

typedef struct OneTime
{
	const char *task;			/* member of the task that says what to run, and the task's key */
	const KindMember *members;
	int			nmembers;
	bool		(*check) (const cJSON *spec, KindProblem *problem);
	cJSON	   *(*build) (const cJSON *spec);	/* the value of that member */
} OneTime;

/* Where it runs; every kind has these */
#define COMPUTE_MEMBERS \
	{"existing_cluster_id", KIND_TYPE_STRING, false}, \
	{"new_cluster", KIND_TYPE_OBJECT, false}, \
	{"environment", KIND_TYPE_OBJECT, false}, \
	{"libraries", KIND_TYPE_ARRAY, false}

/* What it is called, who pays */
#define RUN_MEMBERS \
	{"run_name", KIND_TYPE_STRING, false}, \
	{"performance_target", KIND_TYPE_STRING, false}, \
	{"budget_policy_id", KIND_TYPE_STRING, false}

#define GIT_MEMBERS {"git_source", KIND_TYPE_OBJECT, false}

static const KindMember notebook_members[] = {
	{"notebook_path", KIND_TYPE_STRING, true},
	{"base_parameters", KIND_TYPE_OBJECT, false},
	{"warehouse_id", KIND_TYPE_STRING, false},
	COMPUTE_MEMBERS, GIT_MEMBERS, RUN_MEMBERS
};

static const KindMember python_members[] = {
	{"python_file", KIND_TYPE_STRING, false},
	{"package_name", KIND_TYPE_STRING, false},
	{"entry_point", KIND_TYPE_STRING, false},
	{"parameters", KIND_TYPE_ARRAY, false},
	{"named_parameters", KIND_TYPE_OBJECT, false},
	COMPUTE_MEMBERS, GIT_MEMBERS, RUN_MEMBERS
};

static const KindMember jar_members[] = {
	{"main_class_name", KIND_TYPE_STRING, true},
	{"parameters", KIND_TYPE_ARRAY, false},
	COMPUTE_MEMBERS, RUN_MEMBERS
};

static const KindMember sql_file_members[] = {
	{"path", KIND_TYPE_STRING, true},
	{"warehouse_id", KIND_TYPE_STRING, true},
	{"parameters", KIND_TYPE_OBJECT, false},
	GIT_MEMBERS, RUN_MEMBERS
};

static bool
has(const cJSON *spec, const char *name)
{
	const cJSON *item = kind_member(spec, name);

	return item != NULL && !cJSON_IsNull(item);
}

/* --- checks ---------------------------------------------------------------- */

static bool
check_texts(const cJSON *spec, const char *name, KindProblem *problem)
{
	const cJSON *list = kind_member(spec, name);
	const cJSON *item;
	int			i = 0;

	if (!cJSON_IsArray(list))
		return true;
	cJSON_ArrayForEach(item, list)
	{
		if (cJSON_IsObject(item) || cJSON_IsArray(item) || cJSON_IsNull(item))
			return kind_problem(problem, mem_printf("$.%s[%d]", name, i),
								"a parameter must be a string, a number or true or false",
								"Databricks hands parameters over as text.");
		i++;
	}
	return true;
}

static bool
check_path(const cJSON *spec, const char *name, bool takes_uri, KindProblem *problem)
{
	const char *path = kind_string(spec, name);
	char	   *where = mem_printf("$.%s", name);

	if (!kind_check_filled(spec, name, problem))
		return false;
	if (kind_may_become(problem, kind_member(spec, name)))
		return true;
	if (has(spec, "git_source"))
		return *path != '/' ||
			kind_problem(problem, where, mem_printf("with \"git_source\", \"%s\" must be relative to the repository", name), NULL);
	if (*path == '/' || (takes_uri && strstr(path, ":/") != NULL))
		return true;
	return kind_problem(problem, where, mem_printf("\"%s\" must be an absolute path", name),
						takes_uri ? "It begins with /, or is a URI such as s3://... or dbfs:/...; with \"git_source\" it is relative to the repository." :
						"It begins with /; with \"git_source\" it is relative to the repository.");
}

static bool
check_git(const cJSON *spec, KindProblem *problem)
{
	static const char *const choices[] = {"git_branch", "git_tag", "git_commit"};
	const cJSON *git = kind_member(spec, "git_source");
	int			n = 0;

	if (!cJSON_IsObject(git))
		return true;
	if (kind_string(git, "git_url") == NULL || kind_string(git, "git_provider") == NULL)
		return kind_problem(problem, "$.git_source", "\"git_url\" and \"git_provider\" are needed",
							"For example {\"git_url\": \"https://...\", \"git_provider\": \"gitHub\", \"git_branch\": \"main\"}.");
	for (size_t i = 0; i < lengthof(choices); i++)
		n += kind_string(git, choices[i]) != NULL;
	if (n != 1)
		return kind_problem(problem, "$.git_source", "exactly one of \"git_branch\", \"git_tag\" and \"git_commit\" is needed", NULL);
	return true;
}

/* At most one place to run; needed: one there must be */
static bool
check_compute(const cJSON *spec, bool needed, KindProblem *problem)
{
	static const char *const choices[] = {"existing_cluster_id", "new_cluster", "environment", "warehouse_id"};
	const cJSON *cluster = kind_member(spec, "new_cluster");
	int			n = 0;

	for (size_t i = 0; i < lengthof(choices); i++)
		n += has(spec, choices[i]);
	if (n > 1 || (n == 0 && needed))
		return kind_problem(problem, "$", n > 1 ? "it can run in one place only" : "nothing says where it runs",
							"Give one of \"existing_cluster_id\", \"new_cluster\" and \"environment\" (serverless).");
	if (cJSON_IsObject(cluster) && kind_string(cluster, "spark_version") == NULL && kind_string(cluster, "policy_id") == NULL)
		return kind_problem(problem, "$.new_cluster", "\"spark_version\" is missing",
							"A new cluster is described as the Jobs API does, for example {\"spark_version\": \"15.4.x-scala2.12\", \"node_type_id\": \"...\", \"num_workers\": 2}.");
	if (has(spec, "libraries") && !has(spec, "existing_cluster_id") && !has(spec, "new_cluster"))
		return kind_problem(problem, "$.libraries", "libraries are installed on clusters only",
							"For serverless compute name them in \"dependencies\" of \"environment\".");
	return true;
}

static bool
check_notebook(const cJSON *spec, KindProblem *problem)
{
	/* a notebook may run serverless as it is */
	return check_path(spec, "notebook_path", false, problem) && check_compute(spec, false, problem);
}

static bool
check_python(const cJSON *spec, KindProblem *problem)
{
	bool		is_wheel = has(spec, "package_name");

	if (is_wheel == has(spec, "python_file"))
		return kind_problem(problem, "$", "give either \"python_file\" or \"package_name\"",
							"\"package_name\" and \"entry_point\" run a function of a wheel.");
	if (is_wheel != has(spec, "entry_point"))
		return kind_problem(problem, is_wheel ? "$" : "$.entry_point",
							"\"entry_point\" belongs to \"package_name\"", NULL);
	if (has(spec, "named_parameters") && (!is_wheel || has(spec, "parameters")))
		return kind_problem(problem, "$.named_parameters",
							is_wheel ? "\"named_parameters\" and \"parameters\" exclude each other" :
							"\"named_parameters\" are for a wheel", NULL);
	if (is_wheel && has(spec, "git_source"))
		return kind_problem(problem, "$.git_source", "a wheel does not come from a repository",
							"Name it in \"libraries\" or in \"dependencies\" of \"environment\".");
	return (is_wheel || check_path(spec, "python_file", true, problem)) &&
		check_texts(spec, "parameters", problem) && check_compute(spec, true, problem);
}

static bool
check_jar(const cJSON *spec, KindProblem *problem)
{
	if (!check_compute(spec, true, problem) || !check_texts(spec, "parameters", problem))
		return false;
	if (!has(spec, "environment") && cJSON_GetArraySize(kind_member(spec, "libraries")) == 0 &&
		!kind_may_become(problem, kind_member(spec, "libraries")))
		return kind_problem(problem, "$.libraries", "nothing says where the JAR is",
							"For example [{\"jar\": \"/Volumes/main/jars/load.jar\"}].");
	return true;
}

static bool
check_sql_file(const cJSON *spec, KindProblem *problem)
{
	return check_path(spec, "path", false, problem);
}

static bool
check_spec(const OneTime *what, const cJSON *spec, KindProblem *problem)
{
	static const char *const targets[] = {"STANDARD", "PERFORMANCE_OPTIMIZED", NULL};

	return kind_check_members(spec, what->members, what->nmembers, problem) &&
		kind_check_choice(spec, "performance_target", targets, NULL, problem) &&
		check_git(spec, problem) && what->check(spec, problem);
}

/* --- tasks ----------------------------------------------------------------- */

static void
add_copy(cJSON *object, const cJSON *spec, const char *name)
{
	if (has(spec, name))
		cJSON_AddItemToObject(object, name, cJSON_Duplicate(kind_member(spec, name), true));
}

static void
add_texts(cJSON *object, const cJSON *spec)
{
	const cJSON *list = kind_member(spec, "parameters");
	const cJSON *item;
	cJSON	   *texts;

	if (!cJSON_IsArray(list) || list->child == NULL)
		return;
	texts = cJSON_AddArrayToObject(object, "parameters");
	cJSON_ArrayForEach(item, list)
		cJSON_AddItemToArray(texts, cJSON_CreateString(kind_scalar_text(item)));
}

static void
add_source(cJSON *object, const cJSON *spec)
{
	cJSON_AddStringToObject(object, "source", has(spec, "git_source") ? "GIT" : "WORKSPACE");
}

static cJSON *
build_notebook(const cJSON *spec)
{
	cJSON	   *task = cJSON_CreateObject();

	add_copy(task, spec, "notebook_path");
	databricks_add_strings(task, "base_parameters", kind_member(spec, "base_parameters"));
	add_source(task, spec);
	add_copy(task, spec, "warehouse_id");
	return task;
}

static cJSON *
build_python(const cJSON *spec)
{
	cJSON	   *task = cJSON_CreateObject();

	if (has(spec, "package_name"))
	{
		add_copy(task, spec, "package_name");
		add_copy(task, spec, "entry_point");
		databricks_add_strings(task, "named_parameters", kind_member(spec, "named_parameters"));
	}
	else
	{
		add_copy(task, spec, "python_file");
		/* of a URI the scheme says where it is */
		if (has(spec, "git_source") || strstr(kind_string(spec, "python_file"), ":/") == NULL)
			add_source(task, spec);
	}
	add_texts(task, spec);
	return task;
}

static cJSON *
build_jar(const cJSON *spec)
{
	cJSON	   *task = cJSON_CreateObject();

	add_copy(task, spec, "main_class_name");
	add_texts(task, spec);
	return task;
}

static cJSON *
build_sql_file(const cJSON *spec)
{
	cJSON	   *task = cJSON_CreateObject();
	cJSON	   *file = cJSON_AddObjectToObject(task, "file");

	add_copy(file, spec, "path");
	add_source(file, spec);
	add_copy(task, spec, "warehouse_id");
	databricks_add_strings(task, "parameters", kind_member(spec, "parameters"));
	return task;
}

static const OneTime notebook = {
	"notebook_task", notebook_members, lengthof(notebook_members), check_notebook, build_notebook,
};
static const OneTime python = {
	"spark_python_task", python_members, lengthof(python_members), check_python, build_python,
};
static const OneTime jar = {
	"spark_jar_task", jar_members, lengthof(jar_members), check_jar, build_jar,
};
static const OneTime sql_file = {
	"sql_task", sql_file_members, lengthof(sql_file_members), check_sql_file, build_sql_file,
};

/* --- requests and answers -------------------------------------------------- */

static cJSON *
build_body(const OneTime *what, const KindCall *call)
{
	const cJSON *spec = call->spec;
	cJSON	   *body = cJSON_CreateObject();
	cJSON	   *task = cJSON_CreateObject();
	cJSON	   *environment;

	cJSON_AddStringToObject(body, "run_name", kind_string(spec, "run_name") ? kind_string(spec, "run_name") : call->token);
	cJSON_AddStringToObject(body, "idempotency_token", call->token);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(body, "tasks"), task);
	cJSON_AddStringToObject(task, "task_key", "weir");
	cJSON_AddItemToObject(task, has(spec, "package_name") ? "python_wheel_task" : what->task, what->build(spec));
	add_copy(task, spec, "existing_cluster_id");
	add_copy(task, spec, "new_cluster");
	add_copy(task, spec, "libraries");
	if (has(spec, "environment"))
	{
		cJSON_AddStringToObject(task, "environment_key", ENVIRONMENT_KEY);
		environment = cJSON_CreateObject();
		cJSON_AddItemToArray(cJSON_AddArrayToObject(body, "environments"), environment);
		cJSON_AddStringToObject(environment, "environment_key", ENVIRONMENT_KEY);
		cJSON_AddItemToObject(environment, "spec", cJSON_Duplicate(kind_member(spec, "environment"), true));
	}
	add_copy(body, spec, "git_source");
	add_copy(body, spec, "performance_target");
	add_copy(body, spec, "budget_policy_id");
	cJSON_AddTrueToObject(cJSON_AddObjectToObject(body, "queue"), "enabled");
	return body;
}

static bool
earlier_run(const KindCall *call, int64 *run_id)
{
	return json_int64(kind_member(call->reference, "external_run_id"), run_id) && *run_id > 0;
}

static KindStep
first_step(const KindCall *call)
{
	int64		earlier;

	return earlier_run(call, &earlier) ? KIND_STEP_PREPARE : KIND_STEP_START;
}

static KindStep
resume_step(const KindCall *call)
{
	if (call->external_run_id != NULL)
		return databricks_resume_run(call);
	/* PREPARE changes nothing, and submit recognises its token */
	return kind_state_bool(call, "prepared") ? KIND_STEP_START : first_step(call);
}

static bool
build_request(const OneTime *what, const KindCall *call, KindRequest *request, KindProblem *problem)
{
	int64		run_id;

	if (!check_spec(what, call->spec, problem) || !databricks_check_call(call, problem))
		return false;
	if (call->step == KIND_STEP_PREPARE && earlier_run(call, &run_id))
	{
		databricks_get_run(call, run_id, false, request);
		return true;
	}
	if (call->step == KIND_STEP_DETAIL)
		return databricks_detail_request(call, request, problem);
	if (call->step != KIND_STEP_START)
		return databricks_run_request(call, false, request, problem);
	if (!databricks_check_token(call, problem))
		return false;
	request->url = databricks_url(call, "runs/submit");
	request->starts_work = true;
	request->is_repeatable = true;
	databricks_json_body(request, build_body(what, call));
	return true;
}

/* Only what goes on or ended well is taken for this attempt's */
static void
prepare_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *run;
	JobState	state;
	int64		earlier = 0;

	if (databricks_common_response(call, response, false, true, KIND_LOOK_TRIES, verdict))
		return;
	memset(&state, 0, sizeof(state));
	if (databricks_is_missing(response))
		state.end = JOB_END_FAILED;
	else if (!databricks_read_run(call, response, KIND_LOOK_TRIES, &run, &state, verdict))
		return;
	kind_state_set(call, verdict, "prepared", cJSON_CreateTrue());
	(void) earlier_run(call, &earlier);
	if (state.end == JOB_END_NONE || state.end == JOB_END_SUCCEEDED)
		databricks_follow(call, earlier, verdict);
	else
		kind_continue(verdict, KIND_STEP_START, 0);
}

static void
read_response(KindCall *call, const KindResponse *response, KindVerdict *verdict)
{
	const cJSON *run;
	JobState	state;

	switch (call->step)
	{
		case KIND_STEP_PREPARE:
			prepare_response(call, response, verdict);
			break;
		case KIND_STEP_LOOKUP:
		case KIND_STEP_START:
			databricks_started(call, response, verdict);
			break;
		case KIND_STEP_POLL:
			if (databricks_poll_run(call, response, &run, &state, verdict))
				databricks_polled(call, run, &state, verdict);
			break;
		case KIND_STEP_DETAIL:
			databricks_detail_response(call, response, verdict);
			break;
		case KIND_STEP_CANCEL:
			databricks_cancelled(call, response, verdict);
			break;
	}
}

#define ONE_TIME_KIND(what) \
static void \
what##_validate(const cJSON *spec, KindProblem *problem) \
{ \
	(void) check_spec(&what, spec, problem); \
} \
\
static bool \
what##_request(const KindCall *call, KindRequest *request, KindProblem *problem) \
{ \
	return build_request(&what, call, request, problem); \
} \
\
const TaskKind kind_databricks_##what = { \
	.name = "databricks_" #what, \
	.connection_kind = "databricks", \
	.is_http = true, \
	.validate = what##_validate, \
	.first_step = first_step, \
	.resume_step = resume_step, \
	.request = what##_request, \
	.response = read_response, \
	.listing = &databricks_listing, \
}

ONE_TIME_KIND(notebook);
ONE_TIME_KIND(python);
ONE_TIME_KIND(jar);
ONE_TIME_KIND(sql_file);
