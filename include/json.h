/*-------------------------------------------------------------------------
 * json.h
 *	  Strict, bounded, number-exact reading of JSON into cJSON trees
 *
 * json_parse is our own strict RFC 8259 reader; cJSON is the tree and the
 * printer.  Integers of 16 or more digits, and other numbers a double would
 * not give back, become cJSON_Raw items holding the digits: print them, or
 * ask json_int64 / json_double; do not test cJSON_IsNumber for ids.
 *
 * Trees belong to the caller (cJSON_Delete).  They live where cJSON's hooks
 * put them; strings returned by functions here come from mem_alloc.
 * Include postgres.h or mem.h before this.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_JSON_H
#define WEIR_JSON_H

#include <cjson/cJSON.h>

#define JSON_MAX_DEPTH 200

/*
 * Exactly one value in valid UTF-8, nested at most JSON_MAX_DEPTH deep, no
 * \u0000, no number that numeric could not hold, no key twice in an object,
 * len <= max_len; so jsonb of a UTF8 database takes whatever passes.  NULL
 * and *error ("... at byte N", 1-based; a path for a repeated key)
 * otherwise.  text need not be zero-terminated.
 */
extern cJSON *json_parse(const char *text, size_t len, size_t max_len,
						 char **error);

/*
 * The same for what a jsonb column gave back.  What was stored was looked at
 * when it came in; since then it was put into something else, its numbers were
 * written out, and it has to be read again all the same: so nothing is too
 * long, too large or, up to JSON_STORED_DEPTH, too deep.
 */
#define JSON_STORED_DEPTH 2000
extern cJSON *json_parse_stored(const char *text, char **error);

/* false and *error naming the path, if an object in the tree repeats a key */
extern bool json_check_unique(const cJSON *root, char **error);

/*
 * "a.b.c": members by exact name, array elements by number.  NULL if there
 * is no such thing (or obj is NULL).  Points into obj.
 */
extern const cJSON *json_get(const cJSON *obj, const char *path);

/* All accept NULL and then say no */
extern bool json_int64(const cJSON *item, int64 *value);	/* 1, "1", 1.0, raw */
extern bool json_double(const cJSON *item, double *value);	/* number or raw */
extern bool json_bool(const cJSON *item, bool *value);
extern const char *json_string(const cJSON *item);	/* points into item */

/* an exact int64 as a JSON number, whatever its size */
extern cJSON *json_from_int64(int64 value);

/* nesting: 0 scalar, 1 flat array or object, ...; stops counting at limit */
extern int	json_depth(const cJSON *item, int limit);

/* compact text; json_text_limited cuts at a character, at most limit bytes */
extern char *json_text(const cJSON *item);
extern char *json_text_limited(const cJSON *item, size_t limit);

#endif							/* WEIR_JSON_H */
