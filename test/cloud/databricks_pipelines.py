"""Lakeflow declarative pipelines: updates, events, stop.

    CREATED -> WAITING_FOR_RESOURCES -> INITIALIZING -> [RESETTING] -> SETTING_UP_TABLES -> RUNNING
            -> COMPLETED | FAILED | STOPPING -> CANCELED

One active update per pipeline; a second start is refused.  A failed update of a pipeline in
production mode is tried again as a new update, whose cause is RETRY_ON_FAILURE.
"""

import asyncio
import datetime
import itertools
import re
import time
import uuid

PATH = re.compile(r"/api/2\.0/pipelines/([^/]+)(?:/(updates|events|stop)(?:/([^/]+))?)?$")
TERMINAL = {"COMPLETED", "FAILED", "CANCELED"}
SELECTIONS = ("refresh_selection", "full_refresh_selection")
PIPELINES = [
    {"pipeline_id": "flights", "flows": [
        {"name": "main.lake.flights", "rows": 4334, "dropped": 6,
         "expectations": [{"name": "has_tail_number", "dataset": "flights", "passed_records": 4328, "failed_records": 6}]},
        {"name": "main.lake.airports", "rows": 1458}]},
    {"pipeline_id": "broken", "flows": [{"name": "main.lake.broken"}], "fails": 1,
     "class_name": "org.apache.spark.sql.AnalysisException",
     "message": "[TABLE_OR_VIEW_NOT_FOUND] The table or view `nowhere` cannot be found."},
    {"pipeline_id": "shaky", "flows": [{"name": "main.lake.shaky", "rows": 10}], "fails": 1, "retries": 2,
     "class_name": "java.io.IOException", "message": "Connection reset by peer"},
]


class Update:
    def __init__(self, pipeline, body, cause):
        self.id = str(uuid.uuid4())
        self.pipeline, self.body, self.cause = pipeline, body, cause
        self.created = now()
        self.state = "CREATED"
        self.driver = None

    @property
    def terminal(self):
        return self.state in TERMINAL

    def describe(self):
        answer = {"pipeline_id": self.pipeline.id, "update_id": self.id, "cause": self.cause, "state": self.state,
                  "creation_time": self.created, "full_refresh": self.body.get("full_refresh", False),
                  "validate_only": self.body.get("validate_only", False)}
        answer.update({name: self.body[name] for name in SELECTIONS if self.body.get(name)})
        if self.body.get("parameters"):
            answer["parameters"] = self.body["parameters"]
        return answer


class Pipeline:
    def __init__(self, spec):
        if not isinstance(spec, dict) or not isinstance(spec.get("pipeline_id"), str) or not spec.get("flows"):
            raise ValueError("a pipeline needs a pipeline_id and flows")
        self.id, self.spec = spec["pipeline_id"], spec
        self.updates, self.events = [], []      # oldest first
        self.failures = 0                       # that are still to come
        self.stopping = False

    @property
    def active(self):
        return self.updates[-1] if self.updates and not self.updates[-1].terminal else None


class Pipelines:
    def __init__(self, settings, ledger, faults, databricks):
        self.settings, self.ledger, self.faults, self.databricks = settings, ledger, faults, databricks
        self.numbers = itertools.count(1)
        self.pipelines = {}
        self.background = set()
        for spec in PIPELINES:
            self.define(spec)

    def define(self, spec):
        pipeline = Pipeline(spec)
        self.pipelines[pipeline.id] = pipeline

    async def stop(self):
        for task in list(self.background):
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        for name, pipeline in list(self.pipelines.items()):
            self.pipelines[name] = Pipeline(pipeline.spec)

    def route(self, request, path):
        match = PATH.match(path)
        if not match:
            return None
        identity, what, update = match.groups()
        name = {("GET", None, False): "get", ("POST", "updates", False): "start", ("GET", "updates", False): "list",
                ("GET", "updates", True): "update", ("GET", "events", False): "events",
                ("POST", "stop", False): "stop"}.get((request.method, what, update is not None))
        if name is None:
            return None
        facts = {"pipeline_id": identity, **({"update_id": update} if update else {})}

        async def call(request, entry, body):
            if identity not in self.pipelines:
                raise self.databricks.refusal(404, "RESOURCE_DOES_NOT_EXIST", f"The specified pipeline {identity} was not found.")
            return await getattr(self, f"_{name}")(self.pipelines[identity], request, entry, body, update)
        return f"databricks.pipeline-{name}", facts, self.databricks.guarded(call)

    # -- answers ---------------------------------------------------------------

    async def _get(self, pipeline, request, entry, body, update):
        latest = [{"update_id": one.id, "state": one.state, "creation_time": iso(one.created)}
                  for one in reversed(pipeline.updates[-5:])]
        state = "RUNNING" if pipeline.active else "RECOVERING" if pipeline.failures < 0 else "IDLE"
        return {"pipeline_id": pipeline.id, "name": pipeline.id, "state": state, "latest_updates": latest,
                "creator_user_name": "weir@example.com", "spec": {"id": pipeline.id, "name": pipeline.id}}

    async def _start(self, pipeline, request, entry, body, update):
        for name in SELECTIONS:
            if not isinstance(body.get(name, []), list):
                raise self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", f"{name} must be a list of tables.")
        if pipeline.active or pipeline.failures < 0:
            raise self.databricks.refusal(409, "CONFLICT", f"An active update {pipeline.updates[-1].id} already exists "
                                          f"for pipeline {pipeline.id}.")
        one = self._begin(pipeline, body, body.get("cause", "API_CALL"))
        pipeline.failures = pipeline.spec.get("fails", 0)
        entry["update_id"] = one.id
        self.ledger.mark_started(entry)
        return {"update_id": one.id, "request_id": str(uuid.uuid4())}

    async def _list(self, pipeline, request, entry, body, update):
        limit = min(int(body.get("max_results", 25)), 100)
        found = [one.describe() for one in reversed(pipeline.updates)]
        first = int((body.get("page_token") or "offset:0").partition(":")[2])
        answer = {"updates": found[first:first + limit]} if found[first:first + limit] else {}
        if len(found) > first + limit:
            answer["next_page_token"] = f"offset:{first + limit}"
        return answer

    async def _update(self, pipeline, request, entry, body, update):
        for one in pipeline.updates:
            if one.id == update:
                return {"update": one.describe()}
        raise self.databricks.refusal(404, "RESOURCE_DOES_NOT_EXIST", f"The specified update {update} was not found.")

    async def _events(self, pipeline, request, entry, body, update):
        limit = min(int(body.get("max_results", 25)), self.settings.page_size)
        token = body.get("page_token")
        if token and {"filter", "order_by"} & set(body):
            raise self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", "page_token excludes filter and order_by.")
        if token:
            first, ascending, since = token.split("|")
        else:
            match = re.fullmatch(r"timestamp >= '([^']+)'", body.get("filter", "timestamp >= '0'"))
            if not match:
                raise self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", "The local cloud filters by timestamp >= only.")
            first, ascending, since = "0", str(body.get("order_by") == "timestamp asc"), match[1]
        found = [event for event in pipeline.events if event["timestamp"] >= since]
        if ascending != "True":
            found.reverse()
        first = int(first)
        answer = {"events": found[first:first + limit]}
        if len(found) > first + limit:
            answer["next_page_token"] = f"{first + limit}|{ascending}|{since}"
        return answer

    async def _stop(self, pipeline, request, entry, body, update):
        if pipeline.active and pipeline.active.state != "STOPPING":
            self._keep(self._cancel(pipeline, pipeline.active))
        pipeline.failures = max(pipeline.failures, 0)
        return {}

    # -- the life of an update -------------------------------------------------

    def _keep(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    def _begin(self, pipeline, body, cause):
        one = Update(pipeline, body, cause)
        pipeline.updates.append(one)
        self._event(one, "create_update", "INFO", f"Update {one.id[:6]} started by {cause}.")
        one.driver = self._keep(self._drive(pipeline, one))
        return one

    def _event(self, one, kind, level, message, flow=None, details=None, error=None):
        event = {"id": str(next(self.numbers)), "event_type": kind, "level": level, "message": message,
                 "timestamp": iso(now()), "maturity_level": "STABLE",
                 "origin": {"pipeline_id": one.pipeline.id, "update_id": one.id}}
        if flow:
            event["origin"].update(flow_name=flow["name"], dataset_name=flow["name"].rpartition(".")[2])
        if details:
            event["details"] = {kind: details}
        if error:
            event["error"] = error
        one.pipeline.events.append(event)

    def _progress(self, one, flow, level, status, **details):
        self._event(one, "flow_progress", level, f"Flow '{flow['name']}' is {status}.", flow, {"status": status, **details})

    async def _enter(self, one, state, seconds):
        one.state = state
        self._event(one, "update_progress", "INFO", f"Update {one.id[:6]} is {state}.", details={"state": state})
        await self.settings.pause(seconds)

    async def _drive(self, pipeline, one):
        await self._enter(one, "WAITING_FOR_RESOURCES", 0.1)
        await self._enter(one, "INITIALIZING", 0.1)
        if one.body.get("full_refresh") or one.body.get("full_refresh_selection"):
            await self._enter(one, "RESETTING", 0.1)
        await self._enter(one, "SETTING_UP_TABLES", 0.1)
        try:
            if not one.body.get("validate_only"):
                await self._enter(one, "RUNNING", 0.1)
                await self._flows(pipeline, one)
            await self._enter(one, "COMPLETED", 0)
        except RuntimeError as problem:
            self._event(one, "update_progress", "ERROR", f"Update {one.id[:6]} is FAILED.", details={"state": "FAILED"})
            retries = sum(other.cause == "RETRY_ON_FAILURE" for other in pipeline.updates[-5:])
            again = retries < pipeline.spec.get("retries", 0)
            pipeline.failures = -1 if again else 0          # -1: between a failure and its retry
            await self._enter(one, "FAILED", 0)
            if again:
                self._keep(self._retry(pipeline, one, str(problem)))

    async def _flows(self, pipeline, one):
        wanted = {name for selection in SELECTIONS for name in one.body.get(selection) or []}
        for flow in pipeline.spec["flows"]:
            if wanted and not wanted & {flow["name"], flow["name"].rpartition(".")[2]}:
                self._progress(one, flow, "INFO", "EXCLUDED")
                continue
            self._progress(one, flow, "INFO", "RUNNING")
            facts = {"pipeline_id": pipeline.id, "update_id": one.id, "activity": flow["name"]}
            if self.faults.for_work({"never_ends"}, facts):
                await asyncio.Event().wait()
            await self.settings.pause(flow.get("seconds", 0.3))
            if pipeline.failures > 0:
                pipeline.failures -= 1
                self._fail(one, flow, pipeline.spec)
            rows = flow.get("rows", 0)
            # a streaming flow counts in two pieces
            for part in (rows // 2, rows - rows // 2):
                self._progress(one, flow, "METRICS", "RUNNING", metrics={"num_output_rows": part})
            quality = {"dropped_records": flow.get("dropped", 0), "expectations": flow.get("expectations", [])}
            self._progress(one, flow, "METRICS", "COMPLETED", data_quality=quality)

    def _fail(self, one, flow, spec):
        error = {"fatal": True, "exceptions": [{"class_name": spec.get("class_name", "java.lang.RuntimeException"),
                                                "message": spec.get("message", "failed"), "stack": []}]}
        self._event(one, "flow_progress", "ERROR", f"Flow '{flow['name']}' has FAILED fatally.", flow, {"status": "FAILED"}, error)
        raise RuntimeError(flow["name"])

    async def _retry(self, pipeline, one, flow):
        await self.settings.pause(0.2)
        if pipeline.failures >= 0:
            return                                          # stopped meanwhile
        pipeline.failures = 0
        self._begin(pipeline, one.body, "RETRY_ON_FAILURE")

    async def _cancel(self, pipeline, one):
        one.state = "STOPPING"
        one.driver.cancel()
        await asyncio.wait([one.driver])
        await self.settings.pause(0.2)
        await self._enter(one, "CANCELED", 0)


def iso(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now():
    return int(time.time() * 1000)
