/*-------------------------------------------------------------------------
 * condition.c
 *	  Kinds if and switch: choose the branch that goes on
 *
 * Runs in sessions that define pipelines and in the conductor, which decides
 * such tasks itself.  Pure functions.
 *
 * An if compares like a condition task of Lakeflow Jobs, and takes its names
 * of operators beside the usual signs: numbers (also in strings, as task
 * values are) by value, everything else as text; an order needs two numbers.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

#define MAX_CASES	1000

typedef enum Operator
{
	OP_EQ, OP_NE, OP_GT, OP_GE, OP_LT, OP_LE
} Operator;

static const struct
{
	const char *name;
	Operator	op;
}			operators[] = {
	{"==", OP_EQ}, {"EQUAL_TO", OP_EQ},
	{"!=", OP_NE}, {"NOT_EQUAL", OP_NE},
	{">", OP_GT}, {"GREATER_THAN", OP_GT},
	{">=", OP_GE}, {"GREATER_THAN_OR_EQUAL", OP_GE},
	{"<", OP_LT}, {"LESS_THAN", OP_LT},
	{"<=", OP_LE}, {"LESS_THAN_OR_EQUAL", OP_LE},
};

static const KindMember if_members[] = {
	{"left", KIND_TYPE_ANY, true},
	{"op", KIND_TYPE_STRING, true},
	{"right", KIND_TYPE_ANY, true},
};

static const KindMember switch_members[] = {
	{"on", KIND_TYPE_ANY, true},
	{"cases", KIND_TYPE_ARRAY, true},
};

static bool
operator_parse(const char *name, Operator *op)
{
	for (size_t i = 0; name != NULL && i < lengthof(operators); i++)
		if (strcmp(operators[i].name, name) == 0)
		{
			*op = operators[i].op;
			return true;
		}
	return false;
}

static void
if_validate(const cJSON *spec, KindProblem *problem)
{
	Operator	op;

	if (!kind_check_members(spec, if_members, lengthof(if_members), problem))
		return;
	if (!operator_parse(kind_string(spec, "op"), &op))
		(void) kind_problem(problem, "$.op", "unknown operator",
							"Operators are ==, !=, >, >=, <, <=, or Lakeflow's names such as EQUAL_TO and GREATER_THAN.");
}

static bool
if_has_branch(const cJSON *spec, const char *branch)
{
	(void) spec;
	return strcmp(branch, "true") == 0 || strcmp(branch, "false") == 0;
}

/* A copy of a number, or of what a string holds if that is one; else NULL */
static cJSON *
number_of(const cJSON *item)
{
	char	   *error = NULL;
	cJSON	   *number = NULL;

	if (cJSON_IsNumber(item) || cJSON_IsRaw(item))
		number = cJSON_Duplicate(item, false);
	else if (cJSON_IsString(item) && item->valuestring[0] != '\0' && strlen(item->valuestring) < 400)
	{
		number = json_parse(item->valuestring, strlen(item->valuestring), 400, &error);
		if (error != NULL)
			mem_free(error);
		if (number != NULL && !cJSON_IsNumber(number) && !cJSON_IsRaw(number))
		{
			cJSON_Delete(number);
			number = NULL;
		}
	}
	return number;
}

/* -1, 0, 1; integers exactly */
static int
compare_numbers(const cJSON *a, const cJSON *b)
{
	int64		ia,
				ib;
	double		da = 0,
				db = 0;

	if (json_int64(a, &ia) && json_int64(b, &ib))
		return (ia > ib) - (ia < ib);
	(void) json_double(a, &da);
	(void) json_double(b, &db);
	return (da > db) - (da < db);
}

static bool
holds(Operator op, int order)
{
	switch (op)
	{
		case OP_EQ:
			return order == 0;
		case OP_NE:
			return order != 0;
		case OP_GT:
			return order > 0;
		case OP_GE:
			return order >= 0;
		case OP_LT:
			return order < 0;
		case OP_LE:
			return order <= 0;
	}
	return false;
}

static void
choose(KindVerdict *verdict, const char *branch)
{
	verdict->outcome = KIND_SUCCEEDED;
	verdict->output = cJSON_CreateObject();
	cJSON_AddStringToObject(verdict->output, "branch", branch);
}

static void
if_decide(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *left = kind_member(call->spec, "left");
	const cJSON *right = kind_member(call->spec, "right");
	cJSON	   *a,
			   *b;
	Operator	op;
	bool		comparable = true;
	bool		result = false;

	if (left == NULL || right == NULL || !operator_parse(kind_string(call->spec, "op"), &op))
	{
		kind_fail(verdict, true, false, "invalid_spec", "the condition is incomplete");
		return;
	}
	a = number_of(left);
	b = number_of(right);
	if (a != NULL && b != NULL)
		result = holds(op, compare_numbers(a, b));
	else if (op == OP_EQ || op == OP_NE)
		result = holds(op, strcmp(kind_scalar_text(left), kind_scalar_text(right)));
	else
		comparable = false;
	cJSON_Delete(a);
	cJSON_Delete(b);
	if (comparable)
		choose(verdict, result ? "true" : "false");
	else
		kind_fail(verdict, true, false, "not_a_number",
				  mem_printf("%s and %s cannot be put in order: both must be numbers",
							 kind_scalar_text(left), kind_scalar_text(right)));
}

static void
switch_validate(const cJSON *spec, KindProblem *problem)
{
	const cJSON *cases;
	const cJSON *item;
	int			i = 0;

	if (!kind_check_members(spec, switch_members, lengthof(switch_members), problem))
		return;
	cases = kind_member(spec, "cases");
	if (!cJSON_IsArray(cases) || cJSON_GetArraySize(cases) == 0 || cJSON_GetArraySize(cases) > MAX_CASES)
	{
		(void) kind_problem(problem, "$.cases", mem_printf("\"cases\" must be an array of 1 to %d strings", MAX_CASES), NULL);
		return;
	}
	cJSON_ArrayForEach(item, cases)
	{
		const char *path = mem_printf("$.cases[%d]", i++);

		if (!cJSON_IsString(item) || kind_may_become(problem, item))
		{
			(void) kind_problem(problem, path, "a case must be a string without references", NULL);
			return;
		}
		if (strcmp(item->valuestring, "default") == 0)
		{
			(void) kind_problem(problem, path, "\"default\" is the branch taken when no case fits", "Choose another name.");
			return;
		}
		for (const cJSON *before = cases->child; before != item; before = before->next)
			if (strcmp(before->valuestring, item->valuestring) == 0)
			{
				(void) kind_problem(problem, path, mem_printf("case \"%s\" is there twice", item->valuestring), NULL);
				return;
			}
	}
}

static bool
switch_has_branch(const cJSON *spec, const char *branch)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, kind_member(spec, "cases"))
		if (cJSON_IsString(item) && strcmp(item->valuestring, branch) == 0)
			return true;
	return strcmp(branch, "default") == 0;
}

static void
switch_decide(const KindCall *call, KindVerdict *verdict)
{
	const cJSON *on = kind_member(call->spec, "on");
	const char *value = on != NULL ? kind_scalar_text(on) : "";

	choose(verdict, strcmp(value, "default") != 0 && switch_has_branch(call->spec, value) ? value : "default");
	cJSON_AddStringToObject(verdict->output, "value", value);
}

const TaskKind kind_if = {
	.name = "if",
	.is_inline = true,
	.validate = if_validate,
	.has_branch = if_has_branch,
	.decide = if_decide,
};

const TaskKind kind_switch = {
	.name = "switch",
	.is_inline = true,
	.validate = switch_validate,
	.has_branch = switch_has_branch,
	.decide = switch_decide,
};
