/*-------------------------------------------------------------------------
 * rowspool.h
 *	  The rows of a query as text, in a file that outlives the transaction.
 *
 * Memory stays flat however many rows there are: work_mem, then a temporary
 * file.  The spool has a memory context of its own below TopMemoryContext and
 * lives until rowspool_destroy().
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ROWSPOOL_H
#define WEIR_ROWSPOOL_H

#include "sqltask_int.h"

typedef struct RowSpool RowSpool;

/* A value in UTF-8; NULL for null. */
typedef struct SpoolValue
{
	const char *data;
	size_t		len;
} SpoolValue;

extern RowSpool *rowspool_create(void);
extern void rowspool_destroy(RowSpool *spool);

/* Run the one query, as the current user and read-only; SPI connected. */
extern void rowspool_fill(RowSpool *spool, const BoundSql *bound, const SqlTimer *timer);

extern int	rowspool_ncolumns(const RowSpool *spool);
extern const char *rowspool_column(const RowSpool *spool, int n);	/* UTF-8 */
extern int64 rowspool_nrows(const RowSpool *spool);

/* Read from the start; needs no transaction. */
extern void rowspool_rewind(RowSpool *spool);
/* The next row's values, copied into the current context; NULL at the end. */
extern SpoolValue *rowspool_next(RowSpool *spool, size_t *bytes);

#endif							/* WEIR_ROWSPOOL_H */
