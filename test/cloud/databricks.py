"""The HTTP face of Databricks: Jobs here (2.0, 2.1 and 2.2 paths, 2.2 shapes), the rest in databricks_*.py."""

import re
import time

from assertions import BadToken, Jwt
from databricks_pipelines import Pipelines
from databricks_serving import Serving
from databricks_sql import Warehouses
from entra import ARM, DATABRICKS, basic, bearer
from job_runs import ACTIONS, dependencies, notebook_result
from one_time import one_time_job, task_kind
from server import Refusal, json_response

API = re.compile(r"/api/2\.[0-2]/(.*)$")
ROUTES = {("POST", "jobs/run-now"): ("databricks.run-now", "run_now"),
          ("POST", "jobs/runs/submit"): ("databricks.submit", "submit"),
          ("GET", "jobs/get"): ("databricks.jobs-get", "get_job"),
          ("GET", "jobs/list"): ("databricks.jobs-list", "list_jobs"),
          ("GET", "jobs/runs/get"): ("databricks.get", "get_run"),
          ("GET", "jobs/runs/get-output"): ("databricks.get-output", "get_output"),
          ("GET", "jobs/runs/list"): ("databricks.list", "list_runs"),
          ("POST", "jobs/runs/cancel"): ("databricks.cancel", "cancel"),
          ("POST", "jobs/runs/repair"): ("databricks.repair", "repair")}
PAGE = 100                  # tasks[] of runs/get
REPAIRABLE = ("FAILED", "TIMEDOUT", "CANCELED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED",
              "MAXIMUM_CONCURRENT_RUNS_REACHED")


class Databricks:
    def __init__(self, settings, ledger, entra, runs):
        self.settings, self.ledger, self.entra, self.runs = settings, ledger, entra, runs
        self.notebooks = {}
        self.warehouses = Warehouses(settings, ledger, runs.faults, self)
        self.pipelines = Pipelines(settings, ledger, runs.faults, self)
        self.parts = (self.warehouses, self.pipelines, Serving(settings, ledger, self))

    async def stop(self):
        """Forget all runs, statements and updates."""
        await self.runs.stop()
        await self.warehouses.stop()
        await self.pipelines.stop()

    def define_notebook(self, spec):
        if not isinstance(spec.get("path"), str) or spec.get("action") not in ACTIONS:
            raise ValueError("a notebook needs a path and an action")
        self.notebooks[spec["path"]] = {name: spec[name] for name in ("action", "seconds", "message", "result", "text")
                                        if name in spec}

    @staticmethod
    def refusal(status, code, message):
        return refusal(status, code, message)

    def route(self, request, path):
        if path == "/oidc/v1/token":
            client = basic(request)[0] or request.form().get("client_id")
            return "databricks.token", {"client_id": client, "scope": request.form().get("scope")}, self.token
        if path == "/oidc/.well-known/oauth-authorization-server":
            return "databricks.well-known", {}, self.well_known
        if path == "/.well-known/databricks-config":
            return "databricks.well-known", {}, self.host_metadata
        for part in self.parts:
            found = part.route(request, path)
            if found:
                return found
        match = API.match(path)
        if not match:
            return None
        operation, handler = ROUTES.get((request.method, match[1]), ("databricks.unknown", "unknown"))
        body = request.query if request.method == "GET" else request.json_or_none()
        facts = {}
        if isinstance(body, dict):
            facts = {name: str(body[name]) for name in ("job_id", "run_id", "idempotency_token") if name in body}
            parameters = body.get("job_parameters")
            if isinstance(parameters, dict):
                facts.update((name, str(parameters[name])) for name in ("row_audit_id", "weir_token")
                             if name in parameters)
        run = self.runs.runs.get(as_int(facts.get("run_id")))
        if run is not None:
            facts = {**{name: value for name, value in run.facts().items()
                        if name != "idempotency_token"}, **facts}
        return operation, facts, self.guarded(getattr(self, handler))

    def guarded(self, handler):
        async def call(request, entry):
            self._authorise(request)
            body = request.query
            if request.method == "POST":
                body = request.json_or_none()
                if not isinstance(body, dict):
                    raise refusal(400, "MALFORMED_REQUEST", "Could not parse request object: invalid JSON given "
                                  "in the body of the request - expected a map")
            answer = await handler(request, entry, body)
            return json_response(200, answer, {"x-databricks-org-id": "1234567890123456",
                                               "Server": "databricks"})
        return call

    def _authorise(self, request):
        text = bearer(request)
        if not text:
            raise refusal(401, 401, "Credential was not sent or was of an unsupported type for this API.")
        if text in self.settings.pats:
            return
        problem = self.entra.check(text, DATABRICKS)
        if problem == "unknown":
            raise refusal(403, 403, "Invalid access token.")
        if problem == "expired":
            raise refusal(401, "UNAUTHENTICATED", "Access token is expired.")
        if problem is None and self.entra.tokens[text].client in self.settings.outsiders:
            self._check_outsider(request)
        if problem == "audience":
            raise refusal(401, "UNAUTHENTICATED", f"Expected aud claim to be: {DATABRICKS}, but was: another resource.")

    def _check_outsider(self, request):
        """Not in the workspace: Azure says whether it may, if it is asked with a token of its own and about this workspace."""
        management = request.headers.get("x-databricks-azure-sp-management-token", "")
        resource = request.headers.get("x-databricks-azure-workspace-resource-id", "")
        problem = self.entra.check(management, ARM)
        if not management or not resource:
            raise refusal(403, "PERMISSION_DENIED", "User not authorized.")
        if problem == "expired":
            raise refusal(401, "UNAUTHENTICATED", "Management token is expired.")
        if problem is not None:
            raise refusal(403, "PERMISSION_DENIED", f"Invalid management token: {problem}.")
        if resource.lower() != self.settings.workspace_resource_id.lower():
            raise refusal(403, "PERMISSION_DENIED", "The workspace resource ID does not belong to this workspace.")

    async def unknown(self, request, entry, body):
        raise refusal(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path[:100]}'")

    # -- OAuth of the workspace ------------------------------------------------

    async def well_known(self, request, entry):
        root = base_url(request) + "/oidc/v1"
        return json_response(200, {"authorization_endpoint": root + "/authorize", "token_endpoint": root + "/token"})

    async def host_metadata(self, request, entry):
        return json_response(200, {"oidc_endpoint": base_url(request) + "/oidc", "workspace_id": "1234567890123456",
                                   "cloud": "Azure"})

    def _exchanged(self, form):
        """Whose token a JWT is exchanged for; RFC 8693."""
        def refuse(text):
            return Refusal(json_response(400, {"error": "invalid_request", "error_description": text}))
        if form.get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt":
            raise refuse("Unsupported subject_token_type")
        if form.get("scope") != "all-apis":
            raise refuse("Invalid scope")
        try:
            jwt = Jwt(form.get("subject_token", ""))
        except BadToken as problem:
            raise refuse(f"Invalid JWT token: {problem}") from None
        wanted = form.get("client_id")
        for policy in self.settings.policies:
            if policy.get("client") == wanted and jwt.verifies(policy) and \
                    all(jwt.claims.get(claim) == policy[name] for claim, name in (("iss", "issuer"), ("aud", "audience"), ("sub", "subject"))):
                if jwt.claims.get("exp", 0) < time.time():
                    raise refuse("Token has expired")
                return wanted or f"user of {jwt.claims['sub']}"
        raise refuse("No federation policy matches the issuer, audience and subject of the token")

    async def token(self, request, entry):
        if request.form().get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange":
            return self._granted(entry, self._exchanged(request.form()))
        client, secret = basic(request)
        if client is None or self.settings.clients.get(client) != secret:
            raise Refusal(json_response(401, {"error": "invalid_client",
                                              "error_description": "Client authentication failed"}))
        if request.form().get("grant_type") != "client_credentials":
            raise Refusal(json_response(400, {"error": "unsupported_grant_type",
                                              "error_description": "Unsupported grant type"}))
        return self._granted(entry, client)

    def _granted(self, entry, client):
        token = self.entra.issue(DATABRICKS, client)
        self.ledger.mark_started(entry)
        return json_response(200, {"access_token": token.text, "token_type": "Bearer", "scope": "all-apis",
                                   "expires_in": int(self.settings.token_lifetime)})

    # -- jobs ------------------------------------------------------------------

    def _job(self, body):
        job_id = required_id(body, "job_id")
        if job_id not in self.runs.jobs:
            raise refusal(400, "INVALID_PARAMETER_VALUE", f"Job {job_id} does not exist.")
        return self.runs.jobs[job_id]

    async def get_job(self, request, entry, body):
        return self._job(body).describe()

    async def list_jobs(self, request, entry, body):
        name = body.get("name", "").lower()
        jobs = [job.describe() for job in self.runs.jobs.values() if name in ("", job.name.lower())]
        return {**({"jobs": jobs} if jobs else {}), "has_more": False}

    async def run_now(self, request, entry, body):
        job = self._job(body)
        token = body.get("idempotency_token")
        if token is not None and (not isinstance(token, str) or len(token) > 64):
            raise refusal(400, "INVALID_PARAMETER_VALUE", "idempotency_token must be a string of at most 64 characters.")
        parameters = string_map(body, "job_parameters")
        only = body.get("only") or []
        for key in only:
            if key not in job.tasks:
                raise refusal(400, "INVALID_PARAMETER_VALUE", f"Task key '{key}' does not exist in the job.")
        run = self.runs.tokens.get(token) if token else None
        if run is None:
            queue = (body.get("queue") or {}).get("enabled") is True
            run = self.runs.start(job, parameters, token, only, queue)
            if run.life != "SKIPPED":
                self.ledger.mark_started(entry)
        entry["run_id"] = str(run.run_id)
        return {"run_id": run.run_id, "number_in_job": run.run_id}

    async def submit(self, request, entry, body):
        token = body.get("idempotency_token")
        if token is not None and (not isinstance(token, str) or len(token) > 64):
            raise refusal(400, "INVALID_PARAMETER_VALUE", "idempotency_token must be a string of at most 64 characters.")
        run = self.runs.tokens.get(token) if token else None
        if run is None:
            try:
                job = one_time_job(body, next(self.runs.ids), self.notebooks)
            except (ValueError, AttributeError, KeyError, TypeError) as error:
                raise refusal(400, "INVALID_PARAMETER_VALUE", str(error)) from None
            run = self.runs.start(job, job.given, token, None, True)
            self.ledger.mark_started(entry)
        entry["run_id"] = str(run.run_id)
        return {"run_id": run.run_id}

    # -- runs ------------------------------------------------------------------

    def _run(self, body):
        run_id = required_id(body, "run_id")
        if run_id not in self.runs.runs:
            raise refusal(400, "INVALID_PARAMETER_VALUE", f"Run {run_id} does not exist.")
        return self.runs.runs[run_id]

    async def get_run(self, request, entry, body):
        one = self.runs.task_runs.get(as_int(body.get("run_id")))
        if one is not None:
            return {**describe_task(one, request), "job_id": one.run.job.job_id, "run_type": run_type(one.run)}
        run = self._run(body)
        answer = describe_run(run, request)
        if body.get("include_history") == "true":
            answer["repair_history"] = [describe_repair(item) for item in run.history]
        first = page_start(body)
        answer["tasks"] = [describe_task(one, request) for one in run.task_runs[first:first + PAGE]]
        if len(run.task_runs) > first + PAGE:
            answer["next_page_token"] = f"offset:{first + PAGE}"
        return answer

    async def get_output(self, request, entry, body):
        run_id = required_id(body, "run_id")
        one = self.runs.task_runs.get(run_id)
        if one is None:
            self._run(body)
            raise refusal(400, "INVALID_PARAMETER_VALUE", "Retrieving the output of runs with multiple tasks is not "
                          "supported. Please retrieve the output of each individual task run instead.")
        entry["task_key"] = one.key
        answer = {"metadata": {**describe_task(one, request), "job_id": one.run.job.job_id}}
        kind = task_kind(one.task["submitted"]) if "submitted" in one.task else "notebook_task"
        if kind == "notebook_task":
            answer["notebook_output"] = {}
            if one.terminal and one.result == "SUCCESS":
                answer["notebook_output"] = {"result": notebook_result(one.output), "truncated": False}
        elif kind == "sql_task":
            warehouse = one.task["submitted"][kind]["warehouse_id"]
            answer["sql_output"] = {"query_output": {
                "warehouse_id": warehouse, "endpoint_id": warehouse, "output_link": f"{base_url(request)}/sql/queries/{one.run_id}",
                "sql_statements": [{"lookup_key": str(one.run_id)}]}}
        elif one.terminal:
            answer.update(logs=f"begins\n{notebook_result(one.output) or ''}\n", logs_truncated=False)
        if one.terminal and one.error is not None:
            answer.update(error=one.error, error_trace=one.trace)
        return answer

    async def list_runs(self, request, entry, body):
        active, completed = (body.get(name) == "true" for name in ("active_only", "completed_only"))
        if active and completed:
            raise refusal(400, "INVALID_PARAMETER_VALUE", "active_only and completed_only cannot both be true.")
        limit = as_int(body.get("limit", "20"))
        if limit is None or not 1 <= limit <= 25:
            raise refusal(400, "INVALID_PARAMETER_VALUE", "limit must be between 1 and 25.")
        job_id = as_int(body.get("job_id"))
        earliest, latest = as_int(body.get("start_time_from", "0")), as_int(body.get("start_time_to", str(2 ** 62)))
        runs = [run for run in reversed(self.runs.runs.values())
                if (job_id is None or run.job.job_id == job_id) and earliest <= run.start <= latest
                and not (active and run.terminal) and not (completed and not run.terminal)
                and body.get("run_type", run_type(run)) == run_type(run)]
        first = page_start(body, runs)
        page = runs[first:first + limit]
        answer = {"has_more": len(runs) > first + limit}
        if page:
            answer["runs"] = [describe_run(run, request) for run in page]
        if body.get("expand_tasks") == "true":
            for run, shown in zip(page, answer.get("runs", [])):
                shown["tasks"] = [describe_task(one, request) for one in run.task_runs[:PAGE]]
        if answer["has_more"]:
            answer["next_page_token"] = f"before:{page[-1].run_id}"
        if first:
            answer["prev_page_token"] = f"offset:{max(0, first - limit)}"
        return answer

    async def cancel(self, request, entry, body):
        self.runs.cancel(self._run(body))
        return {}

    async def repair(self, request, entry, body):
        run = self._run(body)
        if run.job.one_time:
            raise refusal(400, "INVALID_PARAMETER_VALUE", f"Run {run.run_id} is a one-time run and cannot be repaired.")
        if not run.terminal:
            raise refusal(400, "INVALID_STATE", f"Run {run.run_id} is still active and cannot be repaired.")
        last = run.history[-1].repair_id
        given = as_int(body.get("latest_repair_id"))
        if given != last:
            raise refusal(400, "INVALID_PARAMETER_VALUE", "latest_repair_id must be the id of the latest repair"
                          + (f", which is {last}." if last else ", and this run has not been repaired yet."))
        keys = self._to_repair(run, body)
        repair_id = self.runs.repair(run, keys, string_map(body, "job_parameters"))
        entry["repair_id"] = str(repair_id)
        self.ledger.mark_started(entry)
        return {"repair_id": repair_id}

    def _to_repair(self, run, body):
        """The task keys a repair runs again."""
        if body.get("rerun_all_failed_tasks") is True:
            if body.get("rerun_tasks"):
                raise refusal(400, "INVALID_PARAMETER_VALUE",
                              "rerun_tasks and rerun_all_failed_tasks cannot be used together.")
            keys = {key for key in run.job.tasks if run.latest(key).result in REPAIRABLE}
        else:
            keys = set(body.get("rerun_tasks") or [])
            for key in keys - set(run.job.tasks):
                raise refusal(400, "INVALID_PARAMETER_VALUE", f"Task key '{key}' does not exist in the run.")
        if not keys:
            raise refusal(400, "INVALID_PARAMETER_VALUE", "There are no tasks to rerun in this run.")
        if body.get("rerun_dependent_tasks") is True:
            for key, task in run.job.tasks.items():         # tasks come after what they depend on
                if keys & set(task.get("depends_on", [])):
                    keys.add(key)
        return keys


# -- shapes ------------------------------------------------------------------------

def run_type(run):
    return "SUBMIT_RUN" if run.job.one_time else "JOB_RUN"


def describe_run(run, request):
    took = (run.end - run.start) if run.end else 0
    return {"job_id": run.job.job_id, "run_id": run.run_id, "number_in_job": run.run_id,
            "original_attempt_run_id": run.run_id, "creator_user_name": "weir@example.com",
            "run_name": run.job.name, "run_type": run_type(run), "format": "MULTI_TASK", "trigger": "ONE_TIME",
            "run_page_url": page_url(run, run.run_id, request), **run.state(),
            "start_time": run.start, "end_time": run.end, "run_duration": took,
            "setup_duration": 0, "execution_duration": 0, "cleanup_duration": 0, "queue_duration": 0,
            "has_more": False, "overriding_parameters": {},
            "job_parameters": [{"name": name, **({"default": run.job.parameters[name]}
                                                 if name in run.job.parameters else {}),
                                **({"value": run.overriding[name]} if name in run.overriding else {})}
                               for name in run.parameters]}


def describe_task(one, request):
    ran = (one.end - one.start) if one.end and one.result not in ("UPSTREAM_FAILED", "EXCLUDED") else 0
    setup = min(ran, 200)
    return {"run_id": one.run_id, "task_key": one.key, "attempt_number": one.attempt,
            "depends_on": dependencies(one.task), "run_if": "ALL_SUCCESS",
            **what_runs(one),
            "run_page_url": page_url(one.run, one.run_id, request), **one.state(),
            "start_time": one.start, "end_time": one.end, "setup_duration": setup,
            "execution_duration": ran - setup, "cleanup_duration": 0}


def what_runs(one):
    if "submitted" not in one.task:
        return {"notebook_task": {"notebook_path": f"/Shared/{one.key}", "source": "WORKSPACE"}}
    kind = task_kind(one.task["submitted"])
    return {kind: one.task["submitted"][kind]}


def describe_repair(item):
    return {"type": "ORIGINAL" if item.repair_id is None else "REPAIR",
            **({} if item.repair_id is None else {"id": item.repair_id}),
            "start_time": item.start, "end_time": item.end, **item.state(),
            "task_run_ids": [one.run_id for one in item.task_runs]}


def base_url(request):
    prefix = "/dbx" if request.path.startswith("/dbx/") else ""
    return request.origin + prefix


def page_url(run, run_id, request):
    return f"{base_url(request)}/?o=1234567890123456#job/{run.job.job_id}/run/{run_id}"


# -- arguments ---------------------------------------------------------------------

def refusal(status, code, message):
    return Refusal(json_response(status, {"error_code": code, "message": message}))


def as_int(value):
    """An int64 given as a number or as text; None when it is neither."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value) if not isinstance(value, float) else None
    except ValueError:
        return None


def required_id(body, name):
    value = as_int(body.get(name))
    if value is None:
        raise refusal(400, "INVALID_PARAMETER_VALUE", f"Missing required field: {name}" if name not in body
                      else f"The field {name} must be an integer.")
    return value


def string_map(body, name):
    value = body.get(name) or {}
    if not isinstance(value, dict) or any(not isinstance(text, str) for text in value.values()):
        raise refusal(400, "MALFORMED_REQUEST", f"Could not parse request object: {name} must map names to strings.")
    if sum(len(key) + len(text) for key, text in value.items()) > 10_000:
        raise refusal(400, "INVALID_PARAMETER_VALUE", f"{name} is longer than 10000 bytes.")
    return value


def page_start(body, runs=()):
    """Where the page begins: "offset:N", or "before:RUN_ID", which new runs do not shift."""
    kind, _, value = (body.get("page_token") or "offset:0").partition(":")
    number = as_int(value)
    if kind == "offset" and number is not None and number >= 0:
        return number
    if kind == "before" and number is not None:
        return next((at for at, run in enumerate(runs) if run.run_id < number), len(runs))
    raise refusal(400, "INVALID_PARAMETER_VALUE", "The page token is not valid.")
