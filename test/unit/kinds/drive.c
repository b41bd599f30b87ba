/*-------------------------------------------------------------------------
 * drive.c
 *	  Whole attempts against a server, one exchange after the other
 *
 * Does with an attempt what the conductor does, one at a time and without a
 * database: request, exchange, response, commit, pause.
 *-------------------------------------------------------------------------
 */
#include "drive.h"

#include <curl/curl.h>
#include <time.h>
#include <unistd.h>

#include "pollpace.h"

#define MAX_BODY	(16 * 1024 * 1024)

/* Where the made clock and the real one were the same: when the latest attempt began */
static int64 begin_ms;
static int64 begin_epoch_ms;

int64
drive_now_ms(void)
{
	struct timespec now;
	int64		ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
	if (begin_ms == 0)
	{
		begin_ms = ms;
		begin_epoch_ms = (int64) time(NULL) * 1000;
	}
	return begin_epoch_ms + (ms - begin_ms) * TIME_SCALE;
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	StrBuf	   *body = arg;

	if (body->len + size * n > MAX_BODY)
		return 0;
	strbuf_add(body, data, size * n);
	return size * n;
}

static struct curl_slist *
build_headers(const KindRequest *request, const char *token)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	const cJSON *item;

	list = curl_slist_append(list, request->content_type ?
							 mem_printf("Content-Type: %s", request->content_type) : "Content-Type:");
	if (token != NULL && !request->without_auth)
		list = curl_slist_append(list, mem_printf("Authorization: Bearer %s", token));
	if (request->idempotency_key != NULL)
		list = curl_slist_append(list, mem_printf("Idempotency-Key: %s", request->idempotency_key));
	cJSON_ArrayForEach(item, request->headers)
		list = curl_slist_append(list, mem_printf("%s: %s", item->string, item->valuestring));
	return list;
}

static void
exchange(const KindRequest *request, const char *token, KindResponse *response)
{
	CURL	   *curl = curl_easy_init();
	struct curl_slist *headers = build_headers(request, token);
	StrBuf		body;
	CURLcode	code;
	long		status = 0;
	curl_off_t	retry_after = 0;
	char	   *type = NULL;

	strbuf_init(&body);
	memset(response, 0, sizeof(*response));
	curl_easy_setopt(curl, CURLOPT_URL, request->url);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->body != NULL || strcmp(request->method, "GET") != 0)
		curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, request->body ? request->body : "");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 10000L);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	response->http_status = (int) status;
	response->body = body.data;
	response->body_len = body.len;
	response->retry_after_ms = retry_after > 0 ? (int64) retry_after * 1000 : -1;
	response->content_type = type ? mem_strdup(type) : NULL;
	response->request_sent = code != CURLE_COULDNT_CONNECT && code != CURLE_COULDNT_RESOLVE_HOST;
	if (code != CURLE_OK)
		response->transport_error = curl_easy_strerror(code);
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
}

cJSON *
cloud_call(const char *address, const char *method, const char *path, const char *body)
{
	KindRequest request = {0};
	KindResponse response;
	char	   *error;

	request.method = method;
	request.url = mem_printf("%s%s", address, path);
	request.body = body;
	request.content_type = body && *body == '{' ? "application/json" : body && *body == '[' ? "application/json" :
		"application/x-www-form-urlencoded";
	exchange(&request, NULL, &response);
	if (response.transport_error != NULL || response.http_status != 200)
	{
		printf("%s %s: status %d, %s: %s\n", method, request.url, response.http_status,
			   response.transport_error ? response.transport_error : "", response.body);
		return NULL;
	}
	return kind_parse_body(&response, &error);
}

/* The rules of kind.h for cancelling; true if the attempt is over */
static bool
cancel(Drive *drive, Attempt *attempt, KindStep from, bool *asked)
{
	if (attempt->call.external_run_id != NULL)
	{
		if (!*asked)
		{
			*asked = true;
			attempt->call.step = KIND_STEP_CANCEL;
			attempt->call.step_tries = 0;
		}
		return false;
	}
	if (attempt->call.step == KIND_STEP_START && (from == KIND_STEP_LOOKUP || from == KIND_STEP_PREPARE))
		drive->cancelled = true;
	return drive->cancelled;
}

bool
drive_attempt(Drive *drive, Attempt *attempt)
{
	bool		cancelling = false;
	bool		asked = false;
	bool		fresh = false;
	int64		started_ms;

	begin_ms = 0;
	started_ms = drive_now_ms();
	attempt->call.intended_at_ms = attempt->call.now_ms = started_ms;
	attempt_begin(attempt);
	for (drive->exchanges = 0; drive->exchanges < MAX_EXCHANGES; drive->exchanges++)
	{
		KindStep	step = attempt->call.step;
		bool		strikes = drive->exchanges == drive->mishap_at;
		KindResponse response;
		int64		pause;

		attempt->call.now_ms = drive_now_ms();
		if (strikes && drive->mishap == MISHAP_CANCEL && attempt->call.external_run_id != NULL)
			(void) cancel(drive, attempt, step, &asked);
		cancelling |= strikes && drive->mishap == MISHAP_CANCEL;
		if (strikes && drive->mishap == MISHAP_CRASH_BEFORE)
			attempt_crash(attempt);
		step = attempt->call.step;
		snprintf(drive->trace + strlen(drive->trace), sizeof(drive->trace) - strlen(drive->trace), "%s ", kind_step_name(step));
		if (!attempt_request(attempt))
		{
			kind_fail(&attempt->verdict, !attempt->problem.is_system_error, false,
					  attempt->problem.code ? attempt->problem.code : "invalid_spec", attempt->problem.message);
			return true;
		}
		exchange(&attempt->request, drive->token ? drive->token(fresh) : NULL, &response);
		fresh = false;
		attempt->call.now_ms = drive_now_ms();
		if (strikes && drive->mishap == MISHAP_CRASH_AFTER)
		{
			attempt_crash(attempt);
			continue;
		}
		attempt_response(attempt, &response);
		if (attempt->verdict.outcome != KIND_CONTINUE)
			return true;
		fresh = attempt->verdict.forget_token;
		if (cancelling && cancel(drive, attempt, step, &asked))
			return true;
		pause = attempt->verdict.delay_ms;
		if (pause < 0)
			pause = poll_delay_ms(drive_now_ms() - started_ms);
		usleep((useconds_t) (Min(pause, 60000) * 1000 / TIME_SCALE));
	}
	return false;
}
