/*-------------------------------------------------------------------------
 * subpipeline.c
 *	  Kind pipeline: a run of another pipeline is a task of this one
 *
 * Runs in sessions that define pipelines, before references are rendered.
 * The conductor queues the run and waits for its end, see engine/subrun.c;
 * whether the pipelines that call each other form a cycle, catalog/defcalls.c
 * finds out.  Therefore the name is written out, never rendered.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "kind_int.h"

static const KindMember members[] = {
	{"pipeline", KIND_TYPE_STRING, true},
	{"params", KIND_TYPE_OBJECT, false},
	{"wait", KIND_TYPE_BOOLEAN, false},
};

static void
pipeline_validate(const cJSON *spec, KindProblem *problem)
{
	const char *name;

	if (!kind_check_members(spec, members, lengthof(members), problem))
		return;
	name = json_string(kind_member(spec, "pipeline"));
	if (name == NULL || name[0] == '\0' || kind_may_become(problem, kind_member(spec, "pipeline")))
		(void) kind_problem(problem, "$.pipeline", "\"pipeline\" must be the name of a pipeline, without references",
							"A switch and one task for each pipeline choose between pipelines.");
	else if (kind_may_become(problem, kind_member(spec, "wait")))
		(void) kind_problem(problem, "$.wait", "\"wait\" must not hold references", NULL);
	else if (kind_may_become(problem, kind_member(spec, "params")))
		(void) kind_problem(problem, "$.params", "\"params\" must be an object", "Its values may hold references.");
}

const TaskKind kind_pipeline = {
	.name = "pipeline",
	.is_waiting = true,
	.validate = pipeline_validate,
};
