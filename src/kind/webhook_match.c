/*-------------------------------------------------------------------------
 * webhook_match.c
 *	  Which attempt an event is for
 *
 * Runs in the conductor; pure.  A thousand attempts may wait at one queue, and
 * a message may hold a thousand events.  So those who wait are put into a hash
 * table once for an answer, under what an event has to say to be theirs: the
 * token, or type, container, beginning and end of the path.  Where in an event
 * these are differs from task to task, but few ways are in use at a time: such
 * a way is a WaiterWay, and an event is looked up once for each.
 *-------------------------------------------------------------------------
 */
#include "mem.h"

#include <strings.h>

#include "jsonpath.h"
#include "webhook_int.h"

#define BLOB_CREATED	"Microsoft.Storage.BlobCreated"

/* How those who wait find their key in an event. */
typedef struct WaiterWay
{
	const char *token_path;		/* NULL: of events */
	bool		has_subject;	/* of events: container and path matter */
	bool		has_container;
	size_t		prefix_len;
	size_t		suffix_len;
} WaiterWay;

typedef struct Waiter
{
	int			way;
	char	   *key;
	uint32		hash;
	int			next;			/* with the same hash value, in their order; -1 the end */
} Waiter;

struct Waiters
{
	int			n;
	Waiter	   *all;			/* as call->others */
	int			n_ways;
	WaiterWay  *ways;
	int			n_buckets;		/* a power of two */
	int		   *buckets;		/* first waiter, or -1 */
};

/* ---- what events say ---- */

bool
webhook_waits_for_event(const cJSON *spec)
{
	return cJSON_IsObject(kind_member(spec, "event"));
}

static const char *
token_path(const cJSON *spec)
{
	const char *path = kind_string(spec, "token");

	return path ? path : "$.token";
}

static const char *
token_of(const KindCall *call, const cJSON *event)
{
	return json_string(jsonpath_find(event, token_path(call->spec)));
}

/* weir-KEY- of a token weir-KEY-TASKRUN-ATTEMPT: its length, or 0 */
static size_t
token_prefix(const char *token)
{
	size_t		len = strlen(token);

	for (int i = 0; i < 2; i++)
	{
		while (len > 0 && token[len - 1] >= '0' && token[len - 1] <= '9')
			len--;
		if (len == 0 || token[len - 1] != '-')
			return 0;
		len -= i == 0;
	}
	return len;
}

bool
webhook_is_stale(const KindCall *call, const cJSON *event)
{
	const char *token = token_of(call, event);
	size_t		len = token_prefix(call->token);

	return !webhook_waits_for_event(call->spec) && token != NULL && len > 0 &&
		token_prefix(token) == len && strncmp(token, call->token, len) == 0;
}

/* /blobServices/default/containers/CONTAINER/blobs/PATH */
bool
webhook_subject(const cJSON *event, char **container, const char **path)
{
	static const char before[] = "/containers/";
	const char *subject = kind_string(event, "subject");
	const char *start = subject ? strstr(subject, before) : NULL;
	const char *end = start ? strstr(start + strlen(before), "/blobs/") : NULL;

	if (end == NULL)
		return false;
	start += strlen(before);
	*container = mem_strndup(start, end - start);
	*path = end + strlen("/blobs/");
	return true;
}

/* With a hierarchical namespace a file is created empty, and whole when it is flushed */
static bool
is_whole(const cJSON *event)
{
	const char *api = kind_string(kind_member(event, "data"), "api");

	return api == NULL || strcasecmp(api, "CreateFile") != 0;
}

/* NULL: of no type, or not yet what it is going to be */
static const char *
type_of(const cJSON *event)
{
	const char *type = kind_string(event, "eventType") ? kind_string(event, "eventType") : kind_string(event, "type");

	return type != NULL && strcmp(type, BLOB_CREATED) == 0 && !is_whole(event) ? NULL : type;
}

static size_t
length(const char *text)
{
	return text ? strlen(text) : 0;
}

/* ---- keys ---- */

static WaiterWay
way_of(const cJSON *spec)
{
	const cJSON *wanted = kind_member(spec, "event");
	WaiterWay	way = {NULL, false, false, 0, 0};

	if (!webhook_waits_for_event(spec))
	{
		way.token_path = token_path(spec);
		return way;
	}
	way.has_container = kind_string(wanted, "container") != NULL;
	way.prefix_len = length(kind_string(wanted, "prefix"));
	way.suffix_len = length(kind_string(wanted, "suffix"));
	way.has_subject = way.has_container || way.prefix_len > 0 || way.suffix_len > 0;
	return way;
}

static bool
same_way(const WaiterWay *one, const WaiterWay *other)
{
	if (one->token_path != NULL || other->token_path != NULL)
		return one->token_path != NULL && other->token_path != NULL && strcmp(one->token_path, other->token_path) == 0;
	return one->has_subject == other->has_subject && one->has_container == other->has_container &&
		one->prefix_len == other->prefix_len && one->suffix_len == other->suffix_len;
}

/* Lengths are those of the way, so nothing has to stand between prefix and suffix. */
static char *
event_key(const char *type, const char *container, const char *prefix, size_t prefix_len, const char *suffix, size_t suffix_len)
{
	return mem_printf("%s\n%s\n%.*s%.*s", type, container, (int) prefix_len, prefix, (int) suffix_len, suffix);
}

/* What an event must say to be for the owner of this spec */
static char *
wanted_key(const KindCall *call, const WaiterWay *way)
{
	const cJSON *wanted = kind_member(call->spec, "event");
	const char *type = kind_string(wanted, "type");
	const char *container = kind_string(wanted, "container");
	const char *prefix = kind_string(wanted, "prefix");
	const char *suffix = kind_string(wanted, "suffix");

	if (way->token_path != NULL)
		return mem_strdup(call->token);
	return event_key(type ? type : BLOB_CREATED, container ? container : "", prefix ? prefix : "", way->prefix_len,
					 suffix ? suffix : "", way->suffix_len);
}

/* What an event says to those of this way; NULL: nothing */
static char *
said_key(const WaiterWay *way, const cJSON *event)
{
	const char *type;
	char	   *container = NULL;
	char	   *key;
	const char *path;
	size_t		len;

	if (way->token_path != NULL)
	{
		const char *token = json_string(jsonpath_find(event, way->token_path));

		return token ? mem_strdup(token) : NULL;
	}
	type = type_of(event);
	if (type == NULL)
		return NULL;
	if (!way->has_subject)
		return event_key(type, "", "", 0, "", 0);
	if (!webhook_subject(event, &container, &path))
		return NULL;
	len = strlen(path);
	key = way->prefix_len > len || way->suffix_len > len ? NULL :
		event_key(type, way->has_container ? container : "", path, way->prefix_len, path + len - way->suffix_len, way->suffix_len);
	mem_free(container);
	return key;
}

bool
webhook_awaits(const KindCall *call, const cJSON *event)
{
	WaiterWay	way = way_of(call->spec);
	char	   *wanted = wanted_key(call, &way);
	char	   *said = said_key(&way, event);
	bool		awaits = said != NULL && strcmp(wanted, said) == 0;

	mem_free(wanted);
	if (said != NULL)
		mem_free(said);
	return awaits;
}

/* ---- those who wait ---- */

/* FNV-1a.  Who waits is of this database, so nobody outside can choose keys that collide. */
static uint32
hash_of(int way, const char *key)
{
	uint32		hash = 2166136261u ^ (uint32) way;

	for (; *key != '\0'; key++)
		hash = (hash ^ (unsigned char) *key) * 16777619u;
	return hash;
}

static int
find_way(Waiters *waiters, const WaiterWay *way)
{
	for (int i = 0; i < waiters->n_ways; i++)
	{
		if (same_way(&waiters->ways[i], way))
			return i;
	}
	waiters->ways[waiters->n_ways] = *way;
	return waiters->n_ways++;
}

Waiters *
waiters_create(const KindCall *call)
{
	Waiters    *waiters = mem_alloc(sizeof(Waiters));

	waiters->n = call->n_others;
	waiters->n_ways = 0;
	waiters->n_buckets = 16;
	while (waiters->n_buckets < waiters->n)
		waiters->n_buckets *= 2;
	waiters->all = mem_alloc(sizeof(Waiter) * Max(waiters->n, 1));
	waiters->ways = mem_alloc(sizeof(WaiterWay) * Max(waiters->n, 1));
	waiters->buckets = mem_alloc(sizeof(int) * waiters->n_buckets);
	for (int i = 0; i < waiters->n_buckets; i++)
		waiters->buckets[i] = -1;
	/* from the last, so that a chain begins with the first */
	for (int i = waiters->n - 1; i >= 0; i--)
	{
		const KindCall *other = call->others[i].call;
		Waiter	   *waiter = &waiters->all[i];
		WaiterWay	way = way_of(other->spec);
		int		   *bucket;

		waiter->key = NULL;
		/* a token is of one attempt wherever it waits; events at other places are no affair of this one */
		if (call->others[i].is_elsewhere && way.token_path == NULL)
			continue;
		waiter->way = find_way(waiters, &way);
		waiter->key = wanted_key(other, &way);
		waiter->hash = hash_of(waiter->way, waiter->key);
		bucket = &waiters->buckets[waiter->hash & (uint32) (waiters->n_buckets - 1)];
		waiter->next = *bucket;
		*bucket = i;
	}
	return waiters;
}

int
waiters_find(const Waiters *waiters, const cJSON *event)
{
	int			found = -1;

	for (int way = 0; way < waiters->n_ways; way++)
	{
		char	   *key = said_key(&waiters->ways[way], event);
		uint32		hash;

		if (key == NULL)
			continue;
		hash = hash_of(way, key);
		for (int i = waiters->buckets[hash & (uint32) (waiters->n_buckets - 1)]; i >= 0; i = waiters->all[i].next)
		{
			const Waiter *waiter = &waiters->all[i];

			if (waiter->hash != hash || waiter->way != way || strcmp(waiter->key, key) != 0)
				continue;
			if (found < 0 || i < found)
				found = i;
			break;
		}
		mem_free(key);
	}
	return found;
}

void
waiters_give(Waiters *waiters, int other)
{
	int		   *link = &waiters->buckets[waiters->all[other].hash & (uint32) (waiters->n_buckets - 1)];

	while (*link != other)
		link = &waiters->all[*link].next;
	*link = waiters->all[other].next;
}

void
waiters_free(Waiters *waiters)
{
	for (int i = 0; i < waiters->n; i++)
		if (waiters->all[i].key != NULL)
			mem_free(waiters->all[i].key);
	mem_free(waiters->all);
	mem_free(waiters->ways);
	mem_free(waiters->buckets);
	mem_free(waiters);
}
