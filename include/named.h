/*-------------------------------------------------------------------------
 * named.h
 *	  What definitions refer to by name, such as connections and pools, and
 *	  cannot be dropped while one does.
 *
 * SPI connected as the extension owner.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_NAMED_H
#define WEIR_NAMED_H

/* Statements take the name as $1. */
typedef struct NamedKind
{
	const char *what;			/* "pool", in messages */
	const char *owner_for_alter;	/* the row's owner, locked so that what refers to it may go on */
	const char *owner_for_drop; /* ... so that nothing can */
	const char *users;			/* what refers to it, "pipeline x, run 7", or null */
	const char *drop;
} NamedKind;

/*
 * What is current and has a task t for which the condition holds: parts of a
 * query of "users", to be joined by UNION ALL.
 */
#define NAMED_TASK_USERS(condition) \
	"SELECT 'pipeline ' || quote_ident(p.name) FROM weir.pipeline p " \
	"JOIN weir.task t ON t.pipeline_id = p.pipeline_id AND t.version = p.current_version WHERE " condition " " \
	"UNION ALL SELECT 'run ' || r.run_id FROM weir.run r " \
	"JOIN weir.task t ON t.pipeline_id = r.pipeline_id AND t.version = r.version " \
	"WHERE r.status IN ('queued', 'running', 'cancelling') AND " condition " "

noreturn_compat extern void named_exists_already(const NamedKind *kind, const char *name);

/* Lock it to alter it; ereports unless it is there and the caller may. */
extern void named_lock(const NamedKind *kind, const char *name, Oid caller);

/* Drop it; ereports also if something current uses it. */
extern void named_drop(const NamedKind *kind, const char *name, Oid caller);

#endif							/* WEIR_NAMED_H */
