/*-------------------------------------------------------------------------
 * compare.h
 *	  Orders for qsort and bsearch.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_COMPARE_H
#define WEIR_COMPARE_H

static inline int
compare_int64(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

#endif							/* WEIR_COMPARE_H */
