/*-------------------------------------------------------------------------
 * signin_aadsts.c
 *	  What the error codes of Microsoft Entra ID mean for whoever set up the
 *	  connection.
 *
 * Entra answers almost everything with 400 or 401 and one of a few error
 * names; the number in "AADSTS7000222: ..." is what tells them apart.  Only
 * codes that a client credentials request can meet are listed.  Pure.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "signin_pure.h"

#define ASK_AGAIN	"it is tried again"

static const AadstsMeaning meanings[] = {
	{90002, true, false, "the tenant is not known", "correct tenant_id, or authority for a national cloud"},
	{900023, true, false, "the tenant is not known", "correct tenant_id: a directory ID or one of its domain names"},
	{90013, true, false, "the request was not understood", "check tenant_id, client_id and scope"},
	{90014, true, false, "the request lacks a value", "check client_id and scope"},
	{700016, true, false, "the application is not in the tenant", "correct client_id or tenant_id, or have the application admitted to the tenant"},
	{7000112, true, false, "the application is disabled", "have it enabled in the tenant"},
	{700027, true, true, "the certificate or the signature of the assertion is not accepted", "register this very certificate with the application, and check that it has not expired"},
	{700024, true, false, "the assertion is not valid at this time", "set the clock of the database server"},
	{700023, true, false, "the audience of the assertion is not accepted", "correct authority and tenant_id"},
	{700021, true, false, "the application identifier of the assertion does not match client_id", "correct client_id"},
	{700030, true, true, "the certificate is not valid", "give the certificate that is registered with the application"},
	{7000214, true, true, "the certificate has been revoked", "register a new certificate with the application and give it to weir.alter_secret"},
	{7000215, true, true, "the client secret is not right", "give the secret's value, not its ID, to weir.alter_secret"},
	{7000216, true, false, "the application needs a secret or an assertion", "give one in auth"},
	{7000218, true, false, "the application needs a secret or an assertion", "give one in auth"},
	{7000222, true, true, "the client secret has expired", "create a new one for the application and give it to weir.alter_secret"},
	{7000229, true, false, "the application has no service principal in the tenant", "have one created there"},
	{70011, true, false, "the scope is not valid", "correct scope, such as \"api://application/.default\""},
	{1002012, true, false, "the scope is not valid", "a scope of a client ends in \"/.default\""},
	{500011, true, false, "the resource of the scope is not in the tenant", "correct scope, or have the resource's application admitted"},
	{501051, true, false, "the application has no role for this resource", "assign it one"},
	{70021, true, true, "no federated credential of the application matches the token", "compare issuer, subject and audience of the token with the federated credential"},
	{700211, true, true, "no federated credential of the application has the issuer of the token", "correct the issuer of the federated credential"},
	{700212, true, true, "no federated credential of the application has the audience of the token", "correct the audience of the federated credential or of the token"},
	{700213, true, true, "no federated credential of the application has the subject of the token", "correct the subject of the federated credential"},
	{700025, true, false, "the application is public and takes no secret or assertion", "make it a confidential client, or use another one"},
	{5002738, true, true, "the federated token is not accepted", "check who issues it and the federated credential"},
	{50013, true, true, "the assertion is not accepted", "check the certificate or the federated credential of the application"},
	{50027, true, true, "the token is not a valid JWT", "check what is in the file"},
	{53003, true, false, "a Conditional Access policy forbids it", "ask the directory's administrators"},
	{53000, true, false, "a Conditional Access policy forbids it", "ask the directory's administrators"},
	{50196, false, false, "the service has seen too many equal requests", ASK_AGAIN},
	{90033, false, false, "the service is not available for a moment", ASK_AGAIN},
	{90055, false, false, "the service has too many requests", ASK_AGAIN},
	{50000, false, false, "the service cannot issue a token", ASK_AGAIN},
};

int
aadsts_code(const char *text)
{
	const char *found = strstr(text, "AADSTS");
	long		code;

	if (found == NULL || !isdigit((unsigned char) found[6]))
		return 0;
	code = strtol(found + 6, NULL, 10);
	return code > 0 && code < 100000000 ? (int) code : 0;
}

const AadstsMeaning *
aadsts_meaning(int code)
{
	for (size_t i = 0; i < lengthof(meanings); i++)
	{
		if (meanings[i].code == code)
			return &meanings[i];
	}
	return NULL;
}

bool
aadsts_clock_ahead(const char *text, int64 now_s, int64 *ahead_s)
{
	static const char name[] = "Current time: ";
	const char *found = strstr(text, name);
	int64		theirs;

	if (found == NULL || !token_time_parse(found + sizeof(name) - 1, &theirs))
		return false;
	*ahead_s = now_s - theirs;
	return true;
}
