"""Microsoft Fabric: jobs of items, long-running operations, activities of data pipelines.

    start: 202, no body, Location and Retry-After        NotStarted | InProgress | Completed | Failed
                                                                           \\-> Cancelled      | Deduped

Times have seven decimals and no zone, as the service writes them.  Which instance a start
made is said by Location (settings: fabric_location "id", "none" as in older examples, or
"header" for x-ms-job-id).  A list may be late: with fabric_listed false, what begins is in
none until it is true again.
"""

import asyncio
import datetime
import re
import uuid

from entra import bearer
from server import Refusal, Response, json_response

RESOURCE = "https://api.fabric.microsoft.com"
TERMINAL = {"Completed", "Failed", "Cancelled", "Deduped"}
GUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
ITEM = rf"/v1/workspaces/(?P<workspace>{GUID})/items/(?P<item>{GUID})"
ROUTES = [(method, re.compile(pattern + "$"), "fabric." + operation, handler)
          for method, pattern, operation, handler in (
              ("GET", r"/v1/workspaces", "workspaces", "workspaces"),
              ("POST", ITEM + r"/jobs/(?P<job_type>[A-Za-z]+)/instances", "run", "run"),
              ("POST", ITEM + r"/jobs/instances", "run", "run"),
              ("GET", ITEM + r"/jobs/instances", "list", "list"),
              ("GET", ITEM + rf"/jobs/instances/(?P<run_id>{GUID})", "get", "get"),
              ("POST", ITEM + rf"/jobs/instances/(?P<run_id>{GUID})/cancel", "cancel", "cancel"),
              ("POST", rf"/v1/workspaces/(?P<workspace>{GUID})/datapipelines/pipelineruns/(?P<run_id>{GUID})/queryactivityruns",
               "activities", "activities"),
              ("POST", rf"/v1/workspaces/(?P<workspace>{GUID})/sqlEndpoints/(?P<item>{GUID})/refreshMetadata",
               "refresh", "refresh"),
              ("GET", rf"/v1/operations/(?P<run_id>{GUID})", "operation", "operation"),
              ("GET", rf"/v1/operations/(?P<run_id>{GUID})/result", "result", "result"))]


def item_id(number):
    return f"00000000-0000-4000-8000-{number:012d}"


WORKSPACE = item_id(1)
# what there is: item -> its job types
ITEMS = {item_id(10): ("DataPipeline", {"Pipeline"}), item_id(11): ("Notebook", {"RunNotebook"}),
         item_id(12): ("SparkJobDefinition", {"sparkjob"}), item_id(13): ("Lakehouse", {"TableMaintenance"}),
         item_id(14): ("Dataflow", {"Refresh"})}
# and one that can do what a notebook, a pipeline and a lakehouse do, for whoever wants one of its own
OWN = re.compile("00000000-0000-4000-9000-[0-9]{12}$")
OWN_TYPES = {"RunNotebook", "Pipeline", "TableMaintenance"}
PARAMETER_TYPES = {"VariableReference", "Integer", "Number", "Text", "Boolean", "DateTime", "Guid", "Automatic"}


class Instance:
    def __init__(self, item, job_type, wanted, listed):
        self.id = str(uuid.uuid4())
        self.item = item
        self.job_type = job_type
        self.wanted = wanted            # seconds, fail: what the run is to do
        self.listed = listed            # from its start on
        self.status = "NotStarted"
        self.start = None
        self.end = None
        self.reason = None
        self.activities = []
        self.task = None

    def describe(self):
        return {"id": self.id, "itemId": self.item, "jobType": self.job_type, "invokeType": "Manual",
                "status": self.status, "rootActivityId": str(uuid.uuid5(uuid.NAMESPACE_OID, self.id)),
                "startTimeUtc": stamp(self.start) or "0001-01-01T00:00:00.0000000", "endTimeUtc": stamp(self.end),
                "failureReason": self.reason}


class Fabric:
    def __init__(self, settings, ledger, entra, faults):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.faults = faults
        self.instances = {}
        self.operations = {}
        self.tasks = set()

    def route(self, request, path):
        if not path.startswith("/v1/"):
            return None
        for method, pattern, operation, handler in ROUTES:
            found = pattern.match(path)
            if found and method == request.method:
                facts = {name: value.lower() for name, value in found.groupdict().items() if name in ("run_id",)}
                facts["job_id"] = (found.groupdict().get("item") or "").lower() or None
                facts["task_key"] = found.groupdict().get("job_type") or request.query.get("jobType")
                return operation, facts, self._guarded(getattr(self, handler), found.groupdict())
        return "fabric.unknown", {}, self.unknown

    def _guarded(self, handler, names):
        async def call(request, entry):
            problem = self.entra.check(bearer(request) or "", RESOURCE)
            if problem == "expired":
                raise refusal(401, "TokenExpired", "Access token has expired, resubmit with a new access token")
            if problem is not None:
                raise refusal(401, "Unauthorized", "The access token is missing or not for this audience")
            response = await handler(request, entry, names)
            response.headers["RequestId"] = str(uuid.uuid4())
            return response
        return call

    async def unknown(self, request, entry):
        raise refusal(404, "EntityNotFound", "The requested resource could not be found")

    async def stop(self):
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.instances.clear()
        self.operations.clear()

    def describe(self):
        return [{**one.describe(), "activities": len(one.activities)} for one in self.instances.values()]

    async def workspaces(self, request, entry, names):
        return json_response(200, {"value": [{"id": WORKSPACE, "displayName": "local", "description": "", "type": "Workspace"}]})

    # -- jobs ------------------------------------------------------------------

    def _item(self, names):
        item = names["item"].lower()
        if names["workspace"].lower() != WORKSPACE or not (item in ITEMS or OWN.match(item)):
            raise refusal(404, "ItemNotFound", "The requested item could not be found")
        return item

    def _accepted(self, request, location, headers=None):
        prefix = request.path[:request.path.index("/v1/")]
        return Response(202, b"", {"Location": f"{request.origin}{prefix}{location}",
                                   "Retry-After": str(self.settings.fabric_retry_after), **(headers or {})})

    async def run(self, request, entry, names):
        item = self._item(names)
        job_type = names.get("job_type") or request.query.get("jobType", "")
        wanted = wanted_of(request, job_type)
        if job_type not in (ITEMS[item][1] if item in ITEMS else OWN_TYPES):
            raise refusal(400, "InvalidJobType", "The requested job type is invalid")
        instance = Instance(item, job_type, wanted, self.settings.fabric_listed)
        busy = any(one.item == item and one.status in ("NotStarted", "InProgress") for one in self.instances.values())
        self.instances[instance.id] = instance
        entry["run_id"] = instance.id
        self.ledger.mark_started(entry)
        self._keep(instance, self._deduped(instance) if busy and job_type in ("TableMaintenance", "Refresh")
                   else self._drive(instance))
        base = f"/v1/workspaces/{names['workspace']}/items/{item}/jobs/instances"
        if self.settings.fabric_location == "id":
            return self._accepted(request, f"{base}/{instance.id}")
        more = {"x-ms-job-id": instance.id} if self.settings.fabric_location == "header" else {}
        return self._accepted(request, f"{base}?jobType={job_type}", more)

    def _keep(self, instance, coroutine):
        instance.task = asyncio.create_task(coroutine)
        self.tasks.add(instance.task)
        instance.task.add_done_callback(self.tasks.discard)

    async def _deduped(self, instance):
        await self.settings.pause(0.3)
        instance.start = instance.end = utcnow()
        instance.status = "Deduped"

    async def _drive(self, instance):
        await self.settings.pause(0.3)
        instance.status, instance.start = "InProgress", utcnow()
        facts = {"job_id": instance.item, "run_id": instance.id, "task_key": instance.job_type}
        if self.faults.for_work({"never_ends"}, facts):
            await asyncio.Event().wait()
        fault = self.faults.for_work({"task_fails"}, facts)
        await self.settings.pause(float(instance.wanted.get("seconds", 1)))
        if instance.job_type == "Pipeline":
            instance.activities = [activity(instance, "Lookup", "Lookup", {"count": 1}),
                                   activity(instance, "Copy flights", "Copy", {"rowsRead": 4334, "rowsCopied": 4330,
                                            "dataRead": 100, "dataWritten": 90, "filesWritten": 1})]
        message = fault.spec.get("message", "The job failed.") if fault else instance.wanted.get("fail")
        if message:
            instance.reason = {"requestId": str(uuid.uuid4()), "errorCode": "JobInstanceStatusFailed",
                               "message": str(message)}
            if instance.activities:
                instance.activities[-1].update(status="Failed", output={}, error={
                    "errorCode": "2200", "message": str(message), "failureType": "UserError", "target": "Copy flights"})
        instance.end = utcnow()
        instance.status = "Failed" if message else "Completed"

    def _instance(self, names):
        instance = self.instances.get(names["run_id"].lower())
        if instance is None or ("item" in names and instance.item != names["item"].lower()):
            raise refusal(404, "JobInstanceNotFound", "The job instance could not be found")
        return instance

    async def get(self, request, entry, names):
        self._item(names)
        instance = self._instance(names)
        headers = {} if instance.status in TERMINAL else {"Retry-After": str(self.settings.fabric_retry_after)}
        return json_response(200, instance.describe(), headers)

    async def list(self, request, entry, names):
        item = self._item(names)
        rows = [one.describe() for one in reversed(self.instances.values())
                if one.item == item and (one.listed or self.settings.fabric_listed)]
        first = int(request.query.get("continuationToken", "0"))
        size = self.settings.page_size
        answer = {"value": rows[first:first + size]}
        if first + size < len(rows):
            answer["continuationToken"] = str(first + size)
            answer["continuationUri"] = f"{request.origin}{request.path}?continuationToken={first + size}"
        return json_response(200, answer)

    async def cancel(self, request, entry, names):
        self._item(names)
        instance = self._instance(names)
        if instance.status in TERMINAL:
            raise refusal(400, "JobAlreadyCompleted", "The job instance has already completed")
        instance.task.cancel()
        await asyncio.wait([instance.task])
        self._keep(instance, self._cancelled(instance))
        return self._accepted(request, request.path[request.path.index("/v1/"):].removesuffix("/cancel"))

    async def _cancelled(self, instance):
        await self.settings.pause(0.5)
        instance.status, instance.end = "Cancelled", utcnow()

    async def activities(self, request, entry, names):
        body = request.json_or_none()
        if not isinstance(body, dict) or "lastUpdatedAfter" not in body or "lastUpdatedBefore" not in body:
            raise refusal(400, "InvalidInput", "The request has an invalid input")
        rows = self._instance(names).activities
        first = int(body.get("continuationToken", "0"))
        size = self.settings.page_size
        answer = {"value": rows[first:first + size]}
        if first + size < len(rows):
            answer["continuationToken"] = str(first + size)
        elif first == 0:
            answer = rows               # a bare list has been seen, too
        return json_response(200, answer)

    # -- long-running operations -----------------------------------------------

    async def refresh(self, request, entry, names):
        number = str(uuid.uuid4())
        wanted = request.json_or_none() or {}
        self.operations[number] = one = {"status": "NotStarted", "createdTimeUtc": stamp(utcnow()), "error": None}
        entry["run_id"] = number
        self.ledger.mark_started(entry)
        task = asyncio.create_task(self._operate(one, wanted))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return self._accepted(request, f"/v1/operations/{number}", {"x-ms-operation-id": number})

    async def _operate(self, one, wanted):
        await self.settings.pause(0.3)
        one["status"] = "Running"
        await self.settings.pause(float(wanted.get("seconds", 0.5)))
        if wanted.get("fail"):
            one["error"] = {"errorCode": "RefreshFailed", "message": str(wanted["fail"]), "isRetriable": False}
        one["status"] = "Failed" if wanted.get("fail") else "Succeeded"

    async def operation(self, request, entry, names):
        one = self.operations.get(names["run_id"].lower())
        if one is None:
            raise refusal(404, "OperationNotFound", "The operation could not be found")
        return json_response(200, {**one, "lastUpdatedTimeUtc": stamp(utcnow()),
                                   "percentComplete": 100 if one["status"] == "Succeeded" else 10},
                             {"Retry-After": str(self.settings.fabric_retry_after)})

    async def result(self, request, entry, names):
        one = self.operations.get(names["run_id"].lower())
        if one is None or one["status"] != "Succeeded":
            raise refusal(400, "OperationHasNoResult", "The operation has no result")
        return json_response(200, {"value": [{"tableName": "flights", "status": "Success"}]})


def wanted_of(request, job_type):
    """What a start asks for; a refusal where the published description allows no such body."""
    body = request.json_or_none() if request.body else {}
    if not isinstance(body, dict) or set(body) - {"executionData", "parameters"} \
            or not isinstance(body.get("executionData", {}), dict):
        raise refusal(400, "InvalidInput", "The request has an invalid input")
    wanted = {}
    for one in body.get("parameters", []):
        if not isinstance(one, dict) or set(one) != {"name", "type", "value"} or one["type"] not in PARAMETER_TYPES:
            raise refusal(400, "InvalidParameter", "A parameter needs a name, a type and a value")
        wanted[one["name"]] = one["value"]
    for name, value in body.get("executionData", {}).get("parameters", {}).items():
        if job_type == "RunNotebook":
            if not isinstance(value, dict) or set(value) != {"value", "type"} \
                    or value["type"] not in ("string", "int", "float", "bool"):
                raise refusal(400, "InvalidInput", "A notebook's parameter needs a value and a type")
            value = value["value"]
        wanted[name] = value
    return wanted


def activity(instance, name, kind, output):
    now = utcnow()
    return {"pipelineId": instance.item, "pipelineRunId": instance.id, "activityName": name, "activityType": kind,
            "activityRunId": str(uuid.uuid4()), "activityRunStart": stamp(instance.start) + "Z",
            "activityRunEnd": stamp(now) + "Z", "durationInMs": 10, "status": "Succeeded", "input": {}, "output": output,
            "error": {"errorCode": "", "message": "", "failureType": "", "target": name}, "retryAttempt": None}


def refusal(status, code, message):
    return Refusal(json_response(status, {"requestId": str(uuid.uuid4()), "errorCode": code, "message": message,
                                          "moreDetails": []}))


def utcnow():
    return datetime.datetime.now(datetime.timezone.utc)


def stamp(moment):
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0"
