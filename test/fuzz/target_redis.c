/*-------------------------------------------------------------------------
 * target_redis.c
 *	  What a Redis server says while something is published
 *
 * The first line: letters for what is asked of it, and the sizes of the
 * pieces its answers come in, one digit each.  The rest is what it says, in
 * all its connections one after the other; at the end the connection is lost.
 *
 *	  a  sign in		d  choose a database	f, s  compare all, or a sample
 *	  k  keep the old version for a while		t  of a prefix with braces
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "redispublish.h"
#include "json.h"
#include "urlpolicy.h"
#include "server.h"

#define PASSWORD	"a password of Redis"

void		fuzz_redis(const char *text, size_t len);

static struct
{
	const char *letters;
	const char *said;
	size_t		left;
	int			pieces;
	int			connections;
	bool		has_sent;
}			far;

/* --- the way there --------------------------------------------------------- */

struct NetLink
{
	int			number;
};

NetLink *
netlink_connect(const char *url, const HttpOptions *options)
{
	NetLink    *link = palloc0(sizeof(NetLink));

	far.connections++;
	FUZZ_CHECK(far.connections < 10);
	return link;
}

void
netlink_close(NetLink *link)
{
	if (link != NULL)
		pfree(link);
}

NetStep
netlink_step(const NetLink *link)
{
	return NET_CONNECTED;
}

bool
netlink_timed_out(const NetLink *link)
{
	return false;
}

char *
netlink_error(const NetLink *link)
{
	return pstrdup("lost");
}

const char *
netlink_hint(const NetLink *link)
{
	return NULL;
}

ssize_t
netlink_send(NetLink *link, const char *data, size_t len, char **error)
{
	far.has_sent = true;
	return len;
}

ssize_t
netlink_read(NetLink *link, char *data, size_t size, char **error)
{
	size_t		n = strlen(far.letters);
	int			digit = n == 0 ? 0 : far.letters[far.pieces++ % n] - '0';

	/* nobody asked it, so it says nothing */
	FUZZ_CHECK(far.has_sent);
	if (far.left == 0)
	{
		*error = pstrdup("end of file");
		return -1;
	}
	n = digit <= 0 || digit > 9 ? far.left : (size_t) digit * digit;
	n = Min(Min(n, far.left), size);
	memcpy(data, far.said, n);
	far.said += n;
	far.left -= n;
	return n;
}

void
netlink_wait(NetLink *link, bool for_writing, int64 timeout_ms)
{
}

int64		transfer_clock_us(void);

int64
transfer_clock_us(void)
{
	return 0;
}

/* --- the rows -------------------------------------------------------------- */

static const char *const names[] = {"id", "text", "none"};
static const char *const rows[][3] = {
	{"1", "a", NULL},
	{"2", "", "x"},
	{"\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4"
		"\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4"
		"\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4"
		"\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4"
		"z\xC3\xA4\xC3\xA4", "b", NULL},
};
static int	row;

int
rowspool_ncolumns(const RowSpool *spool)
{
	return lengthof(names);
}

const char *
rowspool_column(const RowSpool *spool, int n)
{
	return names[n];
}

int64
rowspool_nrows(const RowSpool *spool)
{
	return lengthof(rows);
}

void
rowspool_rewind(RowSpool *spool)
{
	row = 0;
}

SpoolValue *
rowspool_next(RowSpool *spool, size_t *bytes)
{
	SpoolValue *values;

	if (row == lengthof(rows))
		return NULL;
	values = palloc0(sizeof(SpoolValue) * lengthof(names));
	for (int i = 0; i < lengthof(names); i++)
	{
		if (rows[row][i] != NULL)
			values[i] = (SpoolValue) {rows[row][i], strlen(rows[row][i])};
	}
	*bytes = 100;
	row++;
	return values;
}

/* --- the database ---------------------------------------------------------- */

void
redistask_begin(void *scope)
{
}

void
redistask_end(void *scope)
{
}

/* Attempts with an odd number are live. */
uint64
weir_spi(const char *sql, int nargs, const Oid *types, const Datum *values, const char *nulls)
{
	return values[0] & 1;
}

/* --- a publication --------------------------------------------------------- */

static bool
has(char letter)
{
	return strchr(far.letters, letter) != NULL;
}

static void
check_text(const char *text)
{
	FUZZ_CHECK_OF(text == NULL || fuzz_is_utf8(text), text);
}

/* If it was sent, it is not said again. */
static void
check_password(const char *text)
{
	FUZZ_CHECK_OF(!has('a') || strstr(text, PASSWORD) == NULL, text);
}

void
fuzz_redis(const char *text, size_t len)
{
	const char *at = text;
	char	   *letters = fuzz_line(&at);
	RedisPublish *publish = palloc0(sizeof(RedisPublish));
	cJSON	   *output;
	char	   *printed;
	char	   *error;

	if (letters == NULL)
		return;
	server_reset();
	memset(&far, 0, sizeof(far));
	far.letters = letters;
	far.said = at;
	far.left = len - (at - text);
	publish->prefix = has('t') ? "{p}" : "p";
	publish->key = "id";
	publish->ttl_ms = 86400000;
	publish->ttl_jitter = 0.1;
	publish->keep_old_ms = has('k') ? 1000 : 0;
	publish->verify = has('f') ? REDIS_VERIFY_FULL : has('s') ? REDIS_VERIFY_SAMPLE : REDIS_VERIFY_COUNT;
	publish->batch_rows = 2;
	publish->version = "weir-a-10-1";
	publish->options = (RedisOptions) {.base_url = "redis://127.0.0.1", .database = has('d') ? 3 : 0, .connect_timeout_ms = 1, .command_timeout_ms = 1};
	if (has('a'))
	{
		publish->options.username = "u";
		publish->options.password = PASSWORD;
	}
	publish->current_key = psprintf("%s:current", publish->prefix);
	publish->versions_key = psprintf("%s:versions", publish->prefix);
	publish->index_key = psprintf("%s:index:%s", publish->prefix, publish->version);

	if (redispublish_run(publish))
		FUZZ_CHECK(publish->is_switched);
	else
	{
		FUZZ_CHECK(publish->error.code != NULL && publish->error.message != NULL);
		check_password(publish->error.message);
	}
	check_text(publish->error.message);
	check_text(publish->error.hint);
	FUZZ_CHECK(publish->error.message == NULL || strlen(publish->error.message) < 2000);
	if (publish->is_switched)
	{
		output = redispublish_output(publish, NULL);
		printed = json_text(output);
		check_text(printed);
		check_password(printed);
		FUZZ_CHECK_OF(json_parse(printed, strlen(printed), 1024 * 1024, &error) != NULL, printed);
	}
	redis_close(publish->client);
}
