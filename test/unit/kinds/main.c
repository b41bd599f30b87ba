/*-------------------------------------------------------------------------
 * main.c
 *	  Runs the unit tests of src/kind
 *
 * The last line is "N passed, M failed"; the exit code is 1 if any failed.
 *-------------------------------------------------------------------------
 */
#include "harness.h"

int
main(void)
{
	static const struct
	{
		const char *name;
		void		(*run) (void);
	}			tests[] = {
		{"common", test_common},
		{"http", test_http},
		{"adf", test_adf},
		{"databricks", test_databricks},
		{"dbx kinds", test_databricks_kinds},
		{"follow", test_follow},
		{"list", test_listing},
		{"fabric", test_fabric},
		{"webhook", test_webhook},
		{"storage", test_storage},
		{"hostile", test_hostile},
		{"probe", test_probe},
	};

	for (size_t i = 0; i < lengthof(tests); i++)
	{
		int			before = checks_passed + checks_failed;

		tests[i].run();
		printf("%-10s %6d checks\n", tests[i].name, checks_passed + checks_failed - before);
	}
	printf("%d passed, %d failed\n", checks_passed, checks_failed);
	return checks_failed > 0 ? 1 : 0;
}
