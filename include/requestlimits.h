/*-------------------------------------------------------------------------
 * requestlimits.h
 *	  How many requests a second a connection may send: option request_limits,
 *	  or what its service publishes.
 *
 * Pure.  Reads are GET and HEAD, writes everything else, as Azure counts them.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_REQUESTLIMITS_H
#define WEIR_REQUESTLIMITS_H

#include <cjson/cJSON.h>

typedef enum RequestClass
{
	REQUEST_READ,
	REQUEST_WRITE,
	REQUEST_CLASSES
} RequestClass;

typedef struct RequestLimit
{
	double		per_second;		/* 0: none */
	int			burst;			/* so many at once after a rest; >= 1 */
} RequestLimit;

typedef struct RequestLimits
{
	RequestLimit of[REQUEST_CLASSES];
} RequestLimits;

extern RequestClass request_class(const char *method);
extern const char *request_class_name(RequestClass class);	/* reads, writes */
/*
 * Of a connection of this kind with this option, which may be NULL.  False, and
 * *path (beginning below the option, palloc'd) and *why, if it is not valid.
 */
extern bool request_limits_read(const char *kind, const cJSON *option, RequestLimits *limits,
								const char **path, const char **why);

#endif							/* WEIR_REQUESTLIMITS_H */
