/*-------------------------------------------------------------------------
 * keyvault_int.h
 *	  What keyvault.c, keyvault_spec.c and probe.c share
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_KEYVAULT_INT_H
#define WEIR_KEYVAULT_INT_H

#include "kind_int.h"

#define KEYVAULT_API_VERSION	"7.4"	/* of a connection that names none */
#define KEYVAULT_TOKEN_TAG	"weir_token"	/* of a version: the attempt that made it */

extern bool keyvault_is(const cJSON *spec, const char *operation);
extern bool keyvault_check_spec(const cJSON *spec, KindProblem *problem);

#endif							/* WEIR_KEYVAULT_INT_H */
