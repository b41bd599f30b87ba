/*-------------------------------------------------------------------------
 * named.c
 *	  What definitions refer to by name, such as connections and pools, and
 *	  cannot be dropped while one does.
 *
 * Runs in the session that calls the SQL functions.  Whoever defines a
 * pipeline holds what it names FOR KEY SHARE until it commits: a drop waits
 * for it and then sees it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "access.h"
#include "catalogutil.h"
#include "compat.h"
#include "named.h"

void
named_exists_already(const NamedKind *kind, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("%s \"%s\" already exists", kind->what, name),
			 errhint("Use weir.alter_%s to change it.", kind->what)));
	pg_unreachable();
}

static void
lock(const NamedKind *kind, const char *sql, const char *name, Oid caller, const char *verb)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[] = {catalog_text(name)};

	if (weir_spi(sql, 1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", kind->what, catalog_clip(name))));
	weir_require_owner(caller, (Oid) weir_spi_int64(0, 1, NULL), psprintf("%s %s \"%s\"", verb, kind->what, name));
}

void
named_lock(const NamedKind *kind, const char *name, Oid caller)
{
	lock(kind, kind->owner_for_alter, name, caller, "alter");
}

void
named_drop(const NamedKind *kind, const char *name, Oid caller)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[] = {catalog_text(name)};
	char	   *users;

	lock(kind, kind->owner_for_drop, name, caller, "drop");
	weir_spi(kind->users, 1, types, values, NULL);
	users = weir_spi_text(0, 1);
	if (users != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("%s \"%s\" cannot be dropped because it is in use", kind->what, name),
				 errdetail("Used by: %s.", users),
				 errhint("Alter or drop those first.")));
	weir_spi(kind->drop, 1, types, values, NULL);
}
