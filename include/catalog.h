/*-------------------------------------------------------------------------
 * catalog.h
 *	  What the engine and the run log need from the catalog.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CATALOG_H
#define WEIR_CATALOG_H

#include <cjson/cJSON.h>

/*
 * Value of a secret, malloc'd; free with signin_free_secret().  NULL and
 * *error when it cannot be had (missing, key file missing, env unset, file
 * outside weir.secret_directories ...); never raises for those.  Needs SPI
 * connected as the extension owner.  A secret that is kept in a key vault is
 * NULL and *reference (palloc'd), which only who can sign in there can follow.
 */
extern char *secret_lookup(const char *name, const char **reference, const char **error);
/*
 * A value that leaves is given away: why the owner of a pipeline may not have
 * this secret's sent (there is none that belongs to a role the owner is a
 * member of), or NULL.  Needs SPI connected as the extension owner.
 */
extern char *secret_not_for(Oid pipeline_owner, const char *name, const char **hint);
extern void secret_define_gucs(void);

typedef struct Connection
{
	char	   *name;
	char	   *kind;
	char	   *base_url;		/* may be NULL */
	cJSON	   *auth;
	cJSON	   *options;
	int64		changed_at;		/* TimestampTz */
	int64		created_at;		/* TimestampTz */
} Connection;

/* Read a connection, palloc'd in the current context; NULL if there is none.  SPI connected. */
extern Connection *connection_read(const char *name);

/*
 * Check parameters given to a trigger against those declared by a version
 * and fill in defaults: unknown, missing or mistyped ones are errors that
 * name the parameter.  Values are normalised to their JSON form (bigint ->
 * number, timestamptz -> ISO 8601 string ...).  Returns a jsonb Datum.
 */
extern Datum pipeline_bind_params(int64 pipeline_id, int version, Datum params_jsonb);

#endif							/* WEIR_CATALOG_H */
