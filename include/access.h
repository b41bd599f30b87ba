/*-------------------------------------------------------------------------
 * access.h
 *	  Who may do what, and how weir's own statements run.
 *
 * API functions are SECURITY INVOKER: they know the true caller.  For their
 * own statements they switch to the owner of the extension, with search_path
 * pinned to pg_catalog, pg_temp and a restricted security context, so that
 * nothing the caller defined can be executed on the way.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ACCESS_H
#define WEIR_ACCESS_H

typedef struct WeirScope
{
	bool		outer_is_open;	/* around us search_path is not pinned yet */
	Oid			caller;			/* GetUserId() at entry */
	Oid			save_userid;
	int			save_sec_context;
	int			guc_level;
	bool		spi_connected;
	bool		pushed_snapshot;	/* workers have none: reading toasted values needs one */
} WeirScope;

/*
 * Enter: SPI connected, user switched to the extension owner.  Leave: undone.
 * On ERROR transaction abort undoes it.  ereports if the extension is not
 * installed in this database.
 */
extern void weir_enter(WeirScope *scope);
/* The same, but search_path is pinned when the first weir_spi() is called: for those that rarely call it, and nothing else by name. */
extern void weir_enter_lean(WeirScope *scope);
extern void weir_leave(WeirScope *scope);

/* For a process of weir's own: scopes need not pin what is pinned for good. */
extern void weir_settle_search_path(void);

/* --- between access.c and spi.c --- */
extern bool weir_search_path_is_open(void);
extern void weir_pin_search_path(void);

extern Oid	weir_extension_owner(void);	/* InvalidOid if not installed; needs a transaction */
extern Oid	weir_extension_oid(void);

/* ereport ERRCODE_INSUFFICIENT_PRIVILEGE with a hint naming the role to be granted. */
extern void weir_require_admin(Oid role, const char *what);
extern void weir_require_operator(Oid role, const char *what);	/* weir_operator, weir_admin or the owner given to the _or_owner form */
extern void weir_require_operator_or_owner(Oid role, Oid owner, const char *what);
extern void weir_require_reader_or_owner(Oid role, Oid owner, const char *what);	/* the row rule of the views: weir_reader or more, or a member of owner */
extern void weir_require_owner(Oid role, Oid owner, const char *what);	/* member of owner and weir_admin, or superuser */
extern bool weir_is_admin(Oid role);
extern bool weir_is_operator(Oid role);
extern bool weir_is_reader(Oid role);	/* or more */

/*
 * SPI in one line.  Arguments by type letter: see spi.c.  A plan is prepared
 * once per process and kept, keyed by the address of the SQL literal.
 * Returns SPI_processed; ereports on failure.  SPI must be connected.
 */
extern uint64 weir_spi(const char *sql, int nargs, const Oid *types, const Datum *values, const char *nulls);
/*
 * Plan these statements for index look-ups, whatever is in the tables at that
 * moment, and once: for processes that keep their plans while tables grow.
 * Nobody else's statements are touched.
 */
extern void weir_prefer_indexes(bool prefer);
/* Read column (1-based) of row of SPI_tuptable as text, palloc'd in the SPI procedure context; NULL for null. */
extern char *weir_spi_text(uint64 row, int column);
extern int64 weir_spi_int64(uint64 row, int column, bool *isnull);
extern bool weir_spi_bool(uint64 row, int column, bool *isnull);
extern Datum weir_array(Oid type, const Datum *values, int n);	/* elements without nulls */

#endif							/* WEIR_ACCESS_H */
