/*-------------------------------------------------------------------------
 * sqltask_int.h
 *	  What the files that run SQL tasks share.
 *
 * All of it happens in one process, in a SQL worker or in weir.conduct().
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SQLTASK_INT_H
#define WEIR_SQLTASK_INT_H

#include <cjson/cJSON.h>

#include "utils/timestamp.h"

#include "context.h"
#include "outcome.h"
#include "sqltask.h"

#define SQL_OUTPUT_MAX_BYTES	65536

/* The statements with their bound values. */
typedef struct BoundSql
{
	const char *sql;
	int			nargs;
	Oid		   *types;
	Datum	   *values;
	char	   *nulls;
} BoundSql;

/* How they are run; references rendered. */
typedef struct SqlSpec
{
	const cJSON *set;			/* object of settings, or NULL */
	const char *role;			/* or NULL: the owner */
	const cJSON *statement_timeout; /* text of an interval or seconds, or NULL */
	int			max_rows;
	bool		is_own;			/* the procedure commits by itself */
	bool		lists_items;	/* of a for_each */
	bool		is_read_only;	/* the condition of a wait, or a query that is published: writes nothing */
	struct RedisPublish *publish;	/* of a redis_publish task: where its rows go; else NULL */
} SqlSpec;

/* What they did. */
typedef struct SqlResult
{
	int64		rows_read;		/* of the last statement that returned rows, -1 none */
	int64		rows_written;	/* of all statements, -1 none wrote */
	int64		rows_affected;	/* of the last statement */
	char	   *rows;			/* JSON array text, or NULL */
	bool		is_truncated;	/* rows are not all rows */
	int			nstatements;
	cJSON	   *statements;		/* counts of each of the first statements */
	const cJSON *notices;		/* or NULL */
} SqlResult;

/* One try of an attempt: what it needs, and what came of it. */
typedef struct SqlTry
{
	MemoryContext caller;
	bool		restricted;
	SqlCancelCause cause;
	TaskContext *context;
	BoundSql	bound;
	SqlSpec		spec;
	bool		is_ready;		/* else error says which reference has no value */
	char	   *error;
	bool		is_listed;		/* a for_each whose items are there already */
	TaskOutcome outcome;
} SqlTry;

/* sqltask.c: begin, run and end, with a transaction open and no SPI connection */
extern bool sqltask_begin(SqlTry *try, int64 task_run_id, int attempt_no, bool restricted, SqlCancelCause cause);	/* false: there is no such attempt */
extern void sqltask_run(SqlTry *try);
/* write is called with SPI connected and cancels held off; what it returns is returned. */
extern bool sqltask_end(SqlTry *try, bool (*write) (SqlTry *try));
extern bool sqltask_write(SqlTry *try); /* the outcome and what follows */
/* An error of the user's SQL becomes the outcome. */
extern void sqltask_outcome_of_error(TaskOutcome *outcome, const ErrorData *edata, SqlCancelCause cause);

/* sqlspec.c */
/* References become parameters, and values in the spec.  SPI connected; false with *error if one has no value. */
extern bool sqlspec_read(TaskContext *context, BoundSql *bound, SqlSpec *spec, char **error);
/* As the current user may; false keeps them beyond the current level of settings. */
extern void sqlspec_set(const SqlSpec *spec, bool is_local);
/* Role to run as, checked against the owner; the owner if the spec names none. */
extern Oid	sqlspec_role(const SqlSpec *spec, Oid owner);

/* A statement timeout of the session that calls weir.conduct() goes on below ours. */
typedef struct SqlTimer
{
	bool		was_active;
	TimestampTz was_due;
	int64		timeout_ms;		/* for each statement; 0 none */
} SqlTimer;

extern void sqltimer_init(SqlTimer *timer);
extern void sqltimer_read(SqlTimer *timer, const SqlSpec *spec);
extern void sqltimer_start(const SqlTimer *timer);
extern void sqltimer_stop(const SqlTimer *timer);

/* sqlrun.c: run the statements one by one, as the current user; SPI connected */
extern void sqlrun_statements(const BoundSql *bound, const SqlSpec *spec, const SqlTimer *timer, SqlResult *result, MemoryContext keep);
extern cJSON *sqlrun_output(const SqlResult *result);

/* sqlnotice.c: messages below ERROR, from begin to end; kept in memory that outlives transactions */
extern void sqlnotice_begin(bool is_local);
extern void sqlnotice_end(void);
extern cJSON *sqlnotice_json(void); /* NULL if there were none */
extern const char *sqlnotice_text(void);	/* for the detail of an error; NULL likewise */

/* sqlcall.c: "transaction": "own"; begins and ends with a transaction open */
extern void sqlcall_execute(const BoundSql *bound, const SqlSpec *spec, SqlCancelCause cause, TaskOutcome *outcome);

#endif							/* WEIR_SQLTASK_INT_H */
