/*-------------------------------------------------------------------------
 * sqltext.h
 *	  SQL text with references, turned into SQL with parameters
 *
 * "SELECT {{ params.day }}" becomes "SELECT $1" and the path params.day:
 * values are bound, never pasted.  References are not allowed inside quotes
 * and are left alone in comments.  The lexer follows PostgreSQL with
 * standard_conforming_strings = on; run the text with that setting.
 * Include postgres.h or mem.h, then reference.h, before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SQLTEXT_H
#define WEIR_SQLTEXT_H

#define SQLTEXT_MAX_BYTES	(1024 * 1024)
#define SQLTEXT_MAX_REFS	256

typedef struct SqlText
{
	char	   *sql;
	int			nrefs;
	RefPath   **refs;			/* refs[i] is the value of $(i+1) */
} SqlText;

/*
 * NULL and *error ("... at byte N", 1-based; *hint may be set too, as a
 * sentence, or NULL) when the text cannot be taken.
 */
extern SqlText *sqltext_compile(const char *text, char **error, char **hint);
extern void sqltext_free(SqlText *sql);

/* ref_check over the references: NULL or the first error */
extern char *sqltext_check(const SqlText *sql, const RefScope *scope);

#endif							/* WEIR_SQLTEXT_H */
