/*-------------------------------------------------------------------------
 * unit.h
 *	  The harness of the unit tests of core/
 *
 * A check counts and goes on; a failed one says where.  Tests are plain
 * functions listed in main.c.  Everything a test gets from core/ it frees:
 * the program runs under the leak checker.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_UNIT_H
#define WEIR_UNIT_H

#include "mem.h"

extern bool unit_check(bool ok, const char *file, int line, const char *fmt,...)
			pg_attribute_printf(4, 5);

#define CHECK(cond) unit_check((cond), __FILE__, __LINE__, "%s", #cond)

/* with a message that names the case of a table */
#define CHECK_CASE(cond, ...) unit_check((cond), __FILE__, __LINE__, __VA_ARGS__)

#define CHECK_INT(actual, expected) \
	unit_check_int((actual), (expected), __FILE__, __LINE__, #actual)
#define CHECK_STR(actual, expected) \
	unit_check_str((actual), (expected), __FILE__, __LINE__, #actual)

extern bool unit_check_int(int64 actual, int64 expected, const char *file,
						   int line, const char *what);
extern bool unit_check_str(const char *actual, const char *expected,
						   const char *file, int line, const char *what);

/* An error text: must contain "part"; is freed */
#define CHECK_ERROR(error, part) \
	unit_check_error((error), (part), __FILE__, __LINE__)
extern void unit_check_error(char *error, const char *part, const char *file,
							 int line);

/* A reproducible source of random numbers */
typedef struct Random
{
	uint64		state;
} Random;

extern uint64 random_next(Random *rnd);
extern int	random_below(Random *rnd, int n);

extern void test_mem(void);
extern void test_status(void);
extern void test_dag(void);
extern void test_flow(void);
extern void test_forecast(void);
extern void test_pace(void);
extern void test_pollpace(void);
extern void test_selector(void);
extern void test_restart(void);
extern void test_retry(void);
extern void test_retryon(void);
extern void test_json(void);
extern void test_jsonpath(void);
extern void test_reference(void);
extern void test_render(void);
extern void test_sqltext(void);
extern void test_urlpolicy(void);
extern void test_signin(void);
extern void test_redisframe(void);

#endif							/* WEIR_UNIT_H */
