/*-------------------------------------------------------------------------
 * definition_int.h
 *	  What the files that read a definition share.
 *
 * Functions of defread.c return what points into the JSON tree; a member of
 * the wrong type or out of bounds is an ERROR that names its path, an absent
 * one is the value given as "absent".
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DEFINITION_INT_H
#define WEIR_DEFINITION_INT_H

#include "definition.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

/* Entry of the hash table of task names. */
typedef struct TaskIndex
{
	char		name[NAMEDATALEN];	/* key */
	int			no;
} TaskIndex;

#define DEF_MAX_PRIORITY	1000

/* ten years, in milliseconds */
#define MAX_DURATION_MS		((int64) 3650 * 24 * 60 * 60 * 1000)

/* defread.c */
extern const cJSON *def_member(const cJSON *object, const char *key);
extern const char *def_string(const cJSON *object, const char *path, const char *key, bool required);
extern bool def_boolean(const cJSON *object, const char *path, const char *key, bool absent);
extern int	def_integer(const cJSON *object, const char *path, const char *key, int least, int most, int absent);
extern double def_number(const cJSON *object, const char *path, const char *key, double absent);
/* An interval's text or a number of seconds, in milliseconds. */
extern int64 def_duration(const cJSON *object, const char *path, const char *key, int64 least_ms, int64 absent);
/* One of a list of words; the result is the list's. */
extern const char *def_word(const cJSON *object, const char *path, const char *key,
							const char *const *words, int nwords, const char *absent);
/* What the input function of a type without a modifier makes of a text; false if that is none. */
extern bool def_parse_text(PGFunction input, const char *text, Datum *value);
/* The text of an interval in milliseconds, a month counted as 30 days; -1 if it is none. */
extern int64 def_interval_ms(const char *text);
extern void def_identifier(const char *name, const char *path, const char *what);
/* "near What: a, b, c." */
extern char *def_list_hint(const char *what, const char *const *known, int nknown, const char *near);

/* definition.c */
extern const TaskKind *def_read_kind(const char *path, const char *kind, const char *name);
/* "pool" and "pool_slots" of a task or a stage mapping of that kind: the slots, 1 if it does not say.  who: "task \"a\" of kind sql" */
extern int	def_check_pool(const cJSON *object, const char *path, const TaskKind *kind, const char *who);
/* What to do when nobody knows whether the engine was reached; only of kinds that call one. */
extern const char *def_read_on_uncertain(const cJSON *item, const char *path, const TaskKind *kind);

/* defitem.c: the task inside the for_each task no, or nothing for another kind */
extern void def_read_item_task(const Definition *def, int no, const RetryPolicy *retry);

/* defsql.c: what the spec of a SQL task says beside "sql"; path is the spec's, owner the pipeline's */
extern void def_check_sql_spec(const DefTask *task, const char *path, Oid owner);
/* The same of a redis_publish task: its durations */
extern void def_check_publish_spec(const DefTask *task, const char *path);
/* Its parsed statements; path is that of "sql" */
extern void def_check_statements(const DefTask *task, const char *path, List *statements);

/* defrequest.c: the first request of a task that calls an engine, as far as it is known; path and owner as above */
extern void def_check_request(const DefTask *task, const char *path, Oid owner);

/* deffiling.c: tasks of kind file_away, when tasks and edges have been read */
extern void def_check_filing(const Definition *def);

/* defdepend.c: edges of task no, whose names are in the index; then waves and cycles */
extern void def_read_dependencies(Definition *def, const cJSON *item, int no, HTAB *index);
extern void def_order_tasks(Definition *def);

#endif							/* WEIR_DEFINITION_INT_H */
