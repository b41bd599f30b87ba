/*
 * memcheck_alloc.h - put before every file of weir (gcc -include) for "make soak
 * PART=valgrind".  The server cuts what it allocates out of blocks of its own,
 * and valgrind knows no more than that somebody wrote there once: a piece that
 * is given out again counts as written.  Here what weir gets is said to be
 * unwritten, as the server itself does when it is built with USE_VALGRIND.
 */
#ifndef MEMCHECK_ALLOC_H
#define MEMCHECK_ALLOC_H

#include "postgres.h"

#include <valgrind/memcheck.h>

#include "utils/memutils.h"
#include "utils/palloc.h"

static inline void *
memcheck_palloc(Size size)
{
	void	   *result = palloc(size);

	(void) VALGRIND_MAKE_MEM_UNDEFINED(result, size);
	return result;
}

static inline void *
memcheck_palloc_extended(Size size, int flags)
{
	void	   *result = palloc_extended(size, flags);

	if (result != NULL && (flags & MCXT_ALLOC_ZERO) == 0)
		(void) VALGRIND_MAKE_MEM_UNDEFINED(result, size);
	return result;
}

static inline void *
memcheck_alloc(MemoryContext context, Size size)
{
	void	   *result = MemoryContextAlloc(context, size);

	(void) VALGRIND_MAKE_MEM_UNDEFINED(result, size);
	return result;
}

#define palloc(size) memcheck_palloc(size)
#define palloc_extended(size, flags) memcheck_palloc_extended(size, flags)
#define MemoryContextAlloc(context, size) memcheck_alloc(context, size)

#endif							/* MEMCHECK_ALLOC_H */
