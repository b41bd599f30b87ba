/*-------------------------------------------------------------------------
 * reference.h
 *	  Templates: text with references like {{ tasks.load.output.rows[0] }}
 *
 *	  reference = "{{" path "}}" | "{{" string "}}"
 *	  path      = name { "." name | "[" integer "]" | "[" string "]" }
 *
 * A name is a letter or "_" or a non-ASCII byte, then also digits and "-".
 * A string is double-quoted, with \" and \\; {{"{{"}} stands for "{{".
 * Offsets in errors are 1-based bytes.  Paths and errors come from
 * mem_alloc.  Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REFERENCE_H
#define WEIR_REFERENCE_H

#include <cjson/cJSON.h>

#define REF_MAX_TEXT	(1024 * 1024)	/* bytes in, bytes out */
#define REF_MAX_DEPTH	100		/* nesting of a spec */
#define REF_MAX_PARTS	64		/* parts of one path */

typedef struct RefPart
{
	char	   *name;			/* NULL for an index */
	int			index;
} RefPart;

typedef struct RefPath
{
	int			nparts;			/* >= 1 and the first is a name */
	RefPart    *parts;
	char	   *text;			/* canonical, no spaces; equal paths are equal
								 * texts */
} RefPath;

extern void ref_path_free(RefPath *path);

/* is part "i" of the path the name "name"? */
extern bool ref_path_is(const RefPath *path, int i, const char *name);

/*
 * Reads one reference at text[*pos], which starts with "{{", and moves *pos
 * behind its "}}".  Exactly one of *path and *literal is set.
 */
extern bool ref_parse(const char *text, size_t len, size_t *pos,
					  RefPath **path, char **literal, char **error);

typedef struct RefPiece
{
	const RefPath *path;		/* NULL for literal text */
	const char *text;			/* literal text, not zero-terminated */
	size_t		len;
	size_t		offset;			/* 1-based, where the piece starts */
} RefPiece;

/* false, with *error set, stops the scan */
typedef bool (*RefPieceFn) (const RefPiece *piece, void *arg, char **error);

extern bool ref_scan(const char *text, RefPieceFn fn, void *arg, char **error);

/* every string value in a tree; *error also names where in the tree */
extern bool ref_scan_json(const cJSON *spec, RefPieceFn fn, void *arg,
						  char **error);

/* does the name start some reference: run, params, tasks, ... */
extern bool ref_is_root(const char *name, size_t len);

/*
 * What a task may refer to, and so what a resolver has to know:
 *
 *	run.id .row_audit_id .pipeline .version .attempt .nominal_time
 *	   .started_at .window_start .window_end .trigger_type .parent_id
 *	row_audit_id			(the same as run.row_audit_id)
 *	params.NAME and into its value
 *	tasks.NAME.status, tasks.NAME.output and into it
 *	task.name .attempt
 *	pipeline.name .version
 *	item and into its value, item_no		(in the task of a for_each)
 */
typedef struct RefScope
{
	const char *const *params;	/* declared parameters */
	int			nparams;
	const char *const *upstream;	/* tasks that are ancestors of this one */
	int			nupstream;
	const char *const *tasks;	/* all tasks of the pipeline (may be NULL);
								 * only to word the error */
	int			ntasks;
	bool		in_item;		/* the task of a for_each: item, item_no */
} RefScope;

/* NULL, or an error that says what would be allowed */
extern char *ref_check(const RefPath *path, const RefScope *scope);

/* ref_check over every reference in a tree: NULL or the first error */
extern char *ref_check_json(const cJSON *spec, const RefScope *scope);

/* A new value (owned by the caller), or NULL and *error */
typedef cJSON *(*RefResolver) (const RefPath *path, void *arg, char **error);

/*
 * The rest of the path, from part "from" on, inside a value: for resolvers
 * of params.NAME... and tasks.NAME.output...  NULL when it is not there.
 */
extern const cJSON *ref_value_at(const cJSON *value, const RefPath *path,
								 int from);

/*
 * A copy of spec with its strings rendered.  A string that is one reference
 * and nothing else becomes the value, typed; in any other string values
 * become text (strings as they are, null nothing, objects and arrays
 * compact JSON).  Keys are no templates.  Values are not scanned again.
 */
extern cJSON *ref_render_json(const cJSON *spec, RefResolver resolve,
							  void *arg, char **error);
/* The same; references for which resolve gives neither a value nor an error stay as {{they.are}}. */
extern cJSON *ref_render_known(const cJSON *spec, RefResolver resolve,
							   void *arg, char **error);
extern char *ref_render_text(const char *text, RefResolver resolve,
							 void *arg, char **error);

#endif							/* WEIR_REFERENCE_H */
