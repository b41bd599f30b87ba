/*-------------------------------------------------------------------------
 * queue.h
 *	  One exchange with an Azure storage queue
 *
 * Strings come from mem_alloc, trees from cJSON.
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_QUEUE_H
#define WEIR_QUEUE_H

#include "kind_int.h"

#define QUEUE_MAX_MESSAGES	32	/* of one answer */

typedef struct QueueMessage
{
	char	   *id;
	char	   *receipt;		/* for delete */
	char	   *text;			/* as sent */
	int64		dequeued;		/* times it was received, this one included */
} QueueMessage;

extern bool queue_name_is_valid(const char *name);

/*
 * The messages of a queue.  Where the queues are: the connection's option
 * queue_url, else its base URL; where that is the blob or data lake service of
 * an account in Azure, the account's queue service.
 */
extern char *queue_url(const KindCall *call, const char *queue);

extern void queue_get(const KindCall *call, const char *queue, int64 hidden_s, KindRequest *request);
extern void queue_peek(const KindCall *call, const char *queue, KindRequest *request);	/* changes nothing */
extern void queue_delete(const KindCall *call, const char *queue, const char *id, const char *receipt, KindRequest *request);
extern void queue_put(const KindCall *call, const char *queue, const char *text, KindRequest *request);

/* webhook_spec.c */
extern bool webhook_check_spec(const cJSON *spec, KindProblem *problem);

/* Messages of an answer to queue_get; -1 if it is none */
extern int	queue_read(const KindResponse *response, QueueMessage messages[QUEUE_MAX_MESSAGES]);
extern void queue_free(QueueMessage *messages, int n);	/* what queue_read gave */
/* JSON as it is, or in base64; NULL if it is neither */
extern cJSON *queue_payload(const char *text);

#endif							/* WEIR_QUEUE_H */
