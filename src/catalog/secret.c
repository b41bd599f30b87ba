/*-------------------------------------------------------------------------
 * secret.c
 *	  Secrets: create, alter, drop, and their values for whoever signs in.
 *
 * Runs in the session that calls the SQL functions; secret_lookup() also in
 * the conductor.  A secret's row is locked by whoever changes or drops it;
 * connections hold it FOR KEY SHARE while they are being defined, so a secret
 * cannot vanish below a connection that is just being created.
 *
 * The value exists in clear as the argument of the function and as one copy
 * that is wiped before the function returns or fails.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "access.h"
#include "catalog.h"
#include "catalogutil.h"
#include "connection.h"
#include "redact.h"
#include "secretbox.h"
#include "secretref.h"
#include "vaultref.h"

PG_FUNCTION_INFO_V1(weir_create_secret);
PG_FUNCTION_INFO_V1(weir_alter_secret);
PG_FUNCTION_INFO_V1(weir_drop_secret);

#define MAX_REFERENCE 4096

static char *secret_key_file = NULL;

void
secret_define_gucs(void)
{
	DefineCustomStringVariable("weir.secret_key_file",
							   "File with the key that encrypts secrets.",
							   "32 bytes or 64 hexadecimal digits, outside the data directory, readable by the server's user alone.",
							   &secret_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	secretref_define_gucs();
	redact_install();
}

/* Errors of these functions never show the statement: it holds the value. */
static void
refuse_secret(int sqlerrcode, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("%s", message),
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true)));
}

/* Argument n, encrypted under the key file. */
static bytea *
seal_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	text	   *argument = PG_GETARG_TEXT_PP(n);
	size_t		len = VARSIZE_ANY_EXHDR(argument);
	unsigned char key[SECRETBOX_KEY_BYTES];
	const char *error;
	const char *hint;
	char	   *value;
	bytea	   *volatile sealed = NULL;

	if (len == 0)
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, "value of a secret must not be empty", NULL);
	if (len > SECRETBOX_MAX_VALUE)
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, "value of a secret is longer than 65536 bytes", NULL);
	if (!secretbox_read_key(secret_key_file, key, &error, &hint))
		refuse_secret(ERRCODE_CONFIG_FILE_ERROR, error, hint);

	value = palloc(len + 1);
	memcpy(value, VARDATA_ANY(argument), len);
	PG_TRY();
	{
		sealed = secretbox_seal(key, name, value, len);
	}
	PG_FINALLY();
	{
		OPENSSL_cleanse(value, len + 1);
		OPENSSL_cleanse(key, sizeof(key));
	}
	PG_END_TRY();
	pfree(value);
	if ((void *) argument != DatumGetPointer(PG_GETARG_DATUM(n)))
		OPENSSL_cleanse(argument, VARSIZE_ANY(argument));	/* a detoasted copy */
	return sealed;
}

static void
check_reference(const char *name, const char *reference)
{
	const char *error;
	const char *hint;

	if (strlen(reference) > MAX_REFERENCE)
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, "reference of a secret is longer than 4096 bytes", NULL);
	if (vaultref_is(reference))
		vaultref_check(reference, NULL, name, NULL);
	else if (!secretref_check(reference, &error, &hint))
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, error, hint);
}

/* create_secret(name, value, reference, description) */
Datum
weir_create_secret(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name;
	char	   *reference;
	char	   *description;
	Datum		values[5] = {0};
	char		nulls[] = "     ";
	static const Oid types[] = {TEXTOID, TEXTOID, BYTEAOID, TEXTOID, REGROLEOID};

	redact_statement("SELECT weir.create_secret(...)");
	name = catalog_arg_required(fcinfo, 0, "name", 1000);
	reference = catalog_arg(fcinfo, 2);
	description = catalog_arg_description(fcinfo, 3);
	catalog_check_name("secret", name);
	if (PG_ARGISNULL(1) == (reference == NULL))
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, "a secret needs either a value or a reference",
					  "Give value to store it encrypted, or reference such as env:NAME, file:/path or keyvault:CONNECTION/NAME.");

	weir_enter(&scope);
	weir_require_admin(scope.caller, "create secrets");
	if (reference)
		check_reference(name, reference);

	values[0] = catalog_text(name);
	values[4] = ObjectIdGetDatum(scope.caller);
	nulls[1] = reference ? ' ' : 'n';
	if (reference)
		values[1] = catalog_text(reference);
	nulls[2] = reference ? 'n' : ' ';
	if (!reference)
		values[2] = PointerGetDatum(seal_argument(fcinfo, 1, name));
	nulls[3] = description ? ' ' : 'n';
	if (description)
		values[3] = catalog_text(description);

	weir_spi("INSERT INTO weir.secret (name, reference, ciphertext, description, owner) "
			 "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING",
			 5, types, values, nulls);
	if (SPI_processed == 0)
		refuse_secret(ERRCODE_DUPLICATE_OBJECT, psprintf("secret \"%s\" already exists", name),
					  "Use weir.alter_secret to change it.");
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* Lock the row for a change; errors if there is none or the caller may not. */
static void
lock_secret(const char *name, Oid caller, const char *verb)
{
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	Oid			owner;

	values[0] = catalog_text(name);
	if (weir_spi("SELECT owner FROM weir.secret WHERE name = $1 FOR UPDATE", 1, types, values, NULL) == 0)
		refuse_secret(ERRCODE_UNDEFINED_OBJECT, psprintf("secret \"%s\" does not exist", name), NULL);
	owner = (Oid) weir_spi_int64(0, 1, NULL);
	weir_require_owner(caller, owner, psprintf("%s secret \"%s\"", verb, name));
}

/* alter_secret(name, value, reference, description): null leaves as it is */
Datum
weir_alter_secret(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name;
	char	   *reference;
	char	   *description;
	bool		has_value = !PG_ARGISNULL(1);
	Datum		values[4] = {0};
	char		nulls[] = "    ";
	static const Oid types[] = {TEXTOID, TEXTOID, BYTEAOID, TEXTOID};

	redact_statement("SELECT weir.alter_secret(...)");
	name = catalog_arg_required(fcinfo, 0, "name", 1000);
	reference = catalog_arg(fcinfo, 2);
	description = catalog_arg_description(fcinfo, 3);
	if (has_value && reference != NULL)
		refuse_secret(ERRCODE_INVALID_PARAMETER_VALUE, "a secret has either a value or a reference, not both", NULL);

	weir_enter(&scope);
	weir_require_admin(scope.caller, "alter secrets");
	lock_secret(name, scope.caller, "alter");
	if (reference)
		check_reference(name, reference);

	values[0] = catalog_text(name);
	nulls[1] = reference ? ' ' : 'n';
	if (reference)
		values[1] = catalog_text(reference);
	nulls[2] = has_value ? ' ' : 'n';
	if (has_value)
		values[2] = PointerGetDatum(seal_argument(fcinfo, 1, name));
	nulls[3] = description ? ' ' : 'n';
	if (description)
		values[3] = catalog_text(description);

	if (has_value || reference)
	{
		weir_spi("UPDATE weir.secret SET reference = $2, ciphertext = $3, "
				 "description = coalesce($4, description), changed_at = clock_timestamp() WHERE name = $1",
				 4, types, values, nulls);

		/* Tokens signed with the old value are cached per state of a connection. */
		connection_touch(connection_using_secret(name));
	}
	else
		weir_spi("UPDATE weir.secret SET description = coalesce($4, description) WHERE name = $1 AND $2 IS NULL AND $3 IS NULL",
				 4, types, values, nulls);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

/* drop_secret(name): not while a connection uses it */
Datum
weir_drop_secret(PG_FUNCTION_ARGS)
{
	WeirScope	scope;
	char	   *name = catalog_arg_required(fcinfo, 0, "name", 1000);
	static const Oid types[] = {TEXTOID};
	Datum		values[1];
	List	   *users;

	weir_enter(&scope);
	weir_require_admin(scope.caller, "drop secrets");
	lock_secret(name, scope.caller, "drop");

	users = connection_using_secret(name);
	if (users != NIL)
	{
		StringInfoData names;
		ListCell   *lc;

		initStringInfo(&names);
		foreach(lc, users)
			appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", (char *) lfirst(lc));
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("secret \"%s\" cannot be dropped because connections use it", name),
				 errdetail_plural("Connection that uses it: %s.", "Connections that use it: %s.",
								  list_length(users), names.data),
				 errhint("Alter or drop the connections first.")));
	}
	values[0] = catalog_text(name);
	weir_spi("DELETE FROM weir.secret WHERE name = $1", 1, types, values, NULL);
	weir_leave(&scope);
	PG_RETURN_VOID();
}

char *
secret_not_for(Oid pipeline_owner, const char *name, const char **hint)
{
	static const Oid types[] = {TEXTOID, OIDOID};
	Datum		values[2] = {catalog_text(name), ObjectIdGetDatum(pipeline_owner)};

	*hint = "Create it with weir.create_secret, as the owner of the pipeline or as a role that the owner is a member of.";
	if (weir_spi("SELECT FROM weir.secret WHERE name = $1 AND pg_has_role($2, owner, 'MEMBER')", 2, types, values, NULL) == 1)
		return NULL;
	return psprintf("there is no secret \"%s\" that belongs to the owner of the pipeline", catalog_clip(name));
}

char *
secret_lookup(const char *name, const char **kept_at, const char **error)
{
	static const Oid types[] = {TEXTOID};
	unsigned char key[SECRETBOX_KEY_BYTES];
	Datum		values[1];
	Datum		sealed;
	const char *hint;
	char	   *reference;
	char	   *value;

	*error = NULL;
	*kept_at = NULL;
	values[0] = catalog_text(name);
	if (weir_spi("SELECT reference, ciphertext FROM weir.secret WHERE name = $1",
				 1, types, values, NULL) == 0)
	{
		*error = psprintf("secret \"%s\" does not exist", name);
		return NULL;
	}
	reference = weir_spi_text(0, 1);
	if (reference != NULL && strncmp(reference, "keyvault:", 9) == 0)
	{
		*kept_at = reference;
		return NULL;
	}
	if (reference != NULL)
	{
		value = secretref_value(reference, error);
		if (value == NULL)
			*error = psprintf("secret \"%s\": %s", name, *error);
		return value;
	}
	if (!catalog_spi_datum(0, 2, CurrentMemoryContext, &sealed))
	{
		*error = psprintf("secret \"%s\" has no value", name);
		return NULL;
	}
	if (!secretbox_read_key(secret_key_file, key, error, &hint))
	{
		*error = psprintf("secret \"%s\": %s", name, *error);
		return NULL;
	}
	value = secretbox_open(key, name, DatumGetByteaPP(sealed), error);
	OPENSSL_cleanse(key, sizeof(key));
	return value;
}
