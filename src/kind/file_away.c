/*-------------------------------------------------------------------------
 * file_away.c
 *	  Kind file_away: landed files to an archive folder or an error folder,
 *	  as the run ended
 *
 * Runs in the conductor, and for specs in sessions that define pipelines.
 * Which folder it is, and whether anything is moved at all, is not decided
 * here: see engine/filing.c, which puts "next_load_status" and "to" into the
 * spec that is logged with the attempt.  From there on it is a move like any
 * other, storage_move.c.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include "storage_int.h"

static const KindMember members[] = {
	{"container", KIND_TYPE_STRING, true},
	{"to_container", KIND_TYPE_STRING, false},
	{"files", KIND_TYPE_ARRAY, true},
	{"from", KIND_TYPE_STRING, false},
	{"archive", KIND_TYPE_STRING, false},
	{"error", KIND_TYPE_STRING, false},
	{"overwrite", KIND_TYPE_BOOLEAN, false},
	/* added when it is decided */
	{"next_load_status", KIND_TYPE_STRING, false},
	{"to", KIND_TYPE_STRING, false},
};

static bool
check_spec(const cJSON *spec, KindProblem *problem)
{
	static const char *const folders[] = {"archive", "error"};
	static const char *const containers[] = {"container", "to_container"};

	/* the last two members are not for users: they come when the spec is rendered */
	if (!kind_check_members(spec, members, lengthof(members) - (problem->is_rendered ? 0 : 2), problem))
		return false;
	for (size_t i = 0; i < lengthof(containers); i++)
	{
		const char *name = kind_string(spec, containers[i]);

		if (name != NULL && !kind_text_may_become(problem, name) && !storage_container_is_valid(name))
			return kind_problem(problem, mem_printf("$.%s", containers[i]), "not the name of a container",
								"It has 3 to 63 lower case letters, digits and hyphens.");
	}
	if (kind_string(spec, "container") == NULL)
		return kind_problem(problem, "$.container", "\"container\" is empty", NULL);
	if (kind_string(spec, "archive") == NULL && kind_string(spec, "error") == NULL)
		return kind_problem(problem, "$", "give \"archive\", \"error\" or both", "Files for which there is no folder stay where they are.");
	for (size_t i = 0; i < lengthof(folders); i++)
	{
		const char *folder = kind_string(spec, folders[i]);
		const char *why = folder ? storage_name_problem(folder, true) : NULL;

		if (why == NULL && folder != NULL && folder[strlen(folder) - 1] != '/')
			why = "must end in a slash";
		if (why != NULL)
			return kind_problem(problem, mem_printf("$.%s", folders[i]), mem_printf("\"%s\" %s", folders[i], why), NULL);
	}
	return storage_move_check(spec, problem);
}

static void
file_away_validate(const cJSON *spec, KindProblem *problem)
{
	(void) check_spec(spec, problem);
}

static bool
file_away_request(const KindCall *call, KindRequest *request, KindProblem *problem)
{
	if (!check_spec(call->spec, problem))
		return false;
	if (call->base_url == NULL || *call->base_url == '\0')
		return kind_problem(problem, "$", "the connection has no base URL", NULL);
	if (kind_string(call->spec, "to") == NULL)
		return kind_problem(problem, "$", "it was not decided where the files go", NULL);
	return storage_move_request(call, request, problem);
}

const TaskKind kind_file_away = {
	.name = "file_away",
	.connection_kind = "storage",
	.is_http = true,
	.is_resumable = true,
	.validate = file_away_validate,
	.first_step = storage_step,
	.resume_step = storage_resume_step,
	.request = file_away_request,
	.response = storage_move_response,
	.abandon = storage_abandon,
	.can_cancel = storage_can_cancel,
	.how_far = storage_how_far,
};
