"""Data Factory pipelines and their runs: what happens after createRun has answered.

    Queued -> InProgress -> Succeeded | Failed
                  \\-> Canceling -> Cancelled        (two l, as the service spells it)

Each run is one asyncio task going through the pipeline's activities in order.
"""

import asyncio
import copy
import datetime
import json
import uuid

from lake import LakeError

TERMINAL = {"Succeeded", "Failed", "Cancelled"}
RUNTIME = "AutoResolveIntegrationRuntime (West Europe)"

# seconds are at speed 1
PIPELINES = {
    "copy_flights": {
        "parameters": {"row_audit_id": {"type": "Int"}, "limit": {"type": "Int"}},
        "activities": [{"name": "Lookup", "type": "Lookup", "seconds": 0.3},
                       {"name": "Copy", "type": "Copy", "seconds": 1.0}]},
    "wait": {
        "parameters": {"seconds": {"type": "Int", "defaultValue": 1}},
        "activities": [{"name": "Wait", "type": "Wait"}]},
    "answer": {
        "parameters": {"seconds": {"type": "Int", "defaultValue": 0}},
        "activities": [{"name": "Wait", "type": "Wait"}],
        "returns": {"day": "2026-01-02", "rows": 7}},
    "fail": {
        "parameters": {"errorCode": {"type": "String", "defaultValue": "2200"},
                       "message": {"type": "String", "defaultValue":
                                   "ErrorCode=UserErrorFileNotFound,The source file does not exist. "
                                   "Check the path in the dataset."}},
        "activities": [{"name": "Fail", "type": "Fail", "seconds": 0.2}]},
}


class ActivityError(Exception):
    def __init__(self, code, message, failure_type="UserError", output=None):
        super().__init__(message)
        self.code = str(code)
        self.failure_type = failure_type
        self.output = output or {}


def check_definition(definition):
    """ValueError unless it is a pipeline we can run: name, activities, optional parameters."""
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        raise ValueError("a pipeline needs a name")
    activities = definition.get("activities")
    if not isinstance(activities, list) or not activities:
        raise ValueError("a pipeline needs a list of activities")
    names = set()
    for activity in activities:
        if not isinstance(activity, dict) or activity.get("type") not in ("Lookup", "Copy", "Wait", "Fail") \
                or not isinstance(activity.get("name"), str) or activity["name"] in names:
            raise ValueError("an activity needs a distinct name and a type of Lookup, Copy, Wait or Fail")
        names.add(activity["name"])
    return {"parameters": definition.get("parameters", {}), "activities": activities}


class ActivityRun:
    def __init__(self, run, activity):
        self.run = run
        self.name = activity["name"]
        self.type = activity["type"]
        self.run_id = str(uuid.uuid4())
        self.status = "Queued"
        self.start = utcnow()
        self.end = None
        self.input = {}
        self.output = {}
        self.error = {"errorCode": "", "message": "", "failureType": "", "target": self.name}

    def describe(self):
        return {"activityRunEnd": iso(self.end), "activityName": self.name,
                "activityRunStart": iso(self.start), "activityType": self.type,
                "durationInMs": milliseconds(self.start, self.end), "retryAttempt": None,
                "error": self.error, "activityRunId": self.run_id, "iterationHash": "",
                "input": self.input, "linkedServiceName": "", "output": self.output,
                "userProperties": {}, "pipelineName": self.run.pipeline,
                "pipelineRunId": self.run.run_id, "status": self.status,
                "recoveryStatus": "None", "integrationRuntimeNames": ["AutoResolveIntegrationRuntime"]
                if self.type == "Copy" else None, "executionDetails": {}}


class PipelineRun:
    def __init__(self, factory, pipeline, definition, parameters, group=None):
        self.factory = factory
        self.pipeline = pipeline
        self.definition = definition
        self.parameters = parameters
        self.run_id = str(uuid.uuid4())
        self.group = group or self.run_id
        self.is_latest = True
        self.invoked_by = uuid.uuid4().hex
        self.status = "Queued"
        self.message = ""
        self.start = utcnow()
        self.end = None
        self.updated = self.start
        self.visible_at = 0.0           # loop time
        self.activities = []
        self.task = None

    def enter(self, status, message=""):
        self.status = status
        self.message = message
        self.updated = utcnow()
        if status in ("Succeeded", "Failed"):
            self.end = self.updated     # a cancelled run often shows neither end nor duration

    def facts(self):
        return {"pipeline": self.pipeline, "run_id": self.run_id,
                "row_audit_id": self.parameters.get("row_audit_id"),
                "weir_token": self.parameters.get("weir_token")}

    def describe(self):
        return {"id": None, "runId": self.run_id, "debugRunId": None, "runGroupId": self.group,
                "pipelineName": self.pipeline,
                "parameters": {name: stringified(value) for name, value in self.parameters.items()},
                "invokedBy": {"id": self.invoked_by, "name": "Manual", "invokedByType": "Manual"},
                "runStart": iso(self.start), "runEnd": iso(self.end),
                "durationInMs": milliseconds(self.start, self.end), "status": self.status,
                "message": self.message, "pipelineReturnValue": self.definition.get("returns", {}) if self.status == "Succeeded" else {}, "lastUpdated": iso(self.updated),
                "annotations": [], "runDimension": {}, "isLatest": self.is_latest}


class PipelineRuns:
    """All pipelines and runs of all factories."""

    def __init__(self, settings, lake, faults):
        self.settings = settings
        self.lake = lake
        self.faults = faults
        self.pipelines = copy.deepcopy(PIPELINES)
        self.runs = {}
        self.background = set()

    def define(self, definition):
        self.pipelines[definition["name"]] = check_definition(definition)

    def start(self, factory, pipeline, parameters, reference=None, first=0):
        """Begin a run at activity number `first`; `reference` is the run it recovers."""
        definition = self.pipelines[pipeline]
        values = {name: value["defaultValue"] for name, value in definition["parameters"].items()
                  if "defaultValue" in value}
        values.update(parameters)
        run = PipelineRun(factory, pipeline, definition, values, reference.group if reference else None)
        if reference:
            for other in self.runs.values():
                if other.group == run.group:
                    other.is_latest = False
        loop = asyncio.get_running_loop()
        run.visible_at = loop.time() + self.settings.scaled(self.settings.consistency_delay_ms / 1000)
        self.runs[run.run_id] = run
        run.task = self._keep(self._drive(run, first))
        return run

    def find(self, factory, run_id):
        """The run, unless it is not (or not yet) to be seen."""
        run = self.runs.get(run_id.lower())
        if run is None or run.factory != factory or not self.visible(run):
            return None
        return run

    def visible(self, run):
        return asyncio.get_running_loop().time() >= run.visible_at

    def cancel(self, run):
        if run.status == "Canceling":
            return
        run.enter("Canceling")
        self._keep(self._cancel(run))

    async def stop(self):
        """Forget every run; nothing of them goes on afterwards."""
        tasks = list(self.background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.runs.clear()

    # -- the life of a run -----------------------------------------------------

    def _keep(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    async def _cancel(self, run):
        run.task.cancel()
        await asyncio.wait([run.task])
        await self.settings.pause(0.2)
        for activity in run.activities:
            if activity.end is None:
                activity.status, activity.end = "Cancelled", utcnow()
        run.enter("Cancelled")

    async def _drive(self, run, first):
        await self.settings.pause(0.1)
        run.enter("InProgress")
        for activity in run.definition["activities"][first:]:
            one = ActivityRun(run, activity)
            run.activities.append(one)
            try:
                await self._perform(run, one, activity)
            except Exception as error:
                await self._failed(run, one, error)
                return
            one.status, one.end = "Succeeded", utcnow()
            run.updated = one.end
        run.enter("Succeeded")

    async def _failed(self, run, one, error):
        if not isinstance(error, (ActivityError, LakeError)):
            error = ActivityError("2100", f"Internal error: {error!r}", "SystemError")
        code = getattr(error, "code", "2200")
        one.status, one.end = "Failed", utcnow()
        one.error = {"errorCode": code, "message": str(error), "details": [], "target": one.name,
                     "failureType": getattr(error, "failure_type", "UserError")}
        partial = getattr(error, "output", None) or getattr(error, "partial", {})
        if one.type == "Copy":
            one.output = copy_output(partial, one, [{"Code": int(code) if code.isdigit() else 0,
                                                     "Message": str(error), "EventType": 0,
                                                     "Category": 5, "Data": {}, "MsgId": None,
                                                     "ExceptionType": None, "Source": None,
                                                     "StackTrace": None, "InnerEventInfos": []}])
        run.enter("Failed", f"Operation on target {one.name} failed: {error}")

    async def _perform(self, run, one, activity):
        await self.settings.pause(0.05)
        one.status = "InProgress"
        run.updated = utcnow()
        facts = {**run.facts(), "activity": one.name}
        if self.faults.for_work({"never_ends"}, facts):
            await asyncio.Event().wait()
        seconds = activity.get("seconds", 1.0)
        if one.type == "Wait":
            wanted = number(run.parameters.get("seconds", seconds), "seconds")
            one.input = {"waitTimeInSeconds": wanted}
            await self.settings.pause(wanted)
        elif one.type == "Fail":
            await self.settings.pause(seconds)
            raise ActivityError(run.parameters.get("errorCode", activity.get("errorCode", "2200")),
                                str(run.parameters.get("message", activity.get("message", "Failed on demand."))))
        elif one.type == "Lookup":
            one.input = {"source": {"type": "DelimitedTextSource"}, "firstRowOnly": True}
            await self.settings.pause(seconds)
            one.output = {"firstRow": self.lake.describe_source(), "effectiveIntegrationRuntime": RUNTIME,
                          "durationInQueue": {"integrationRuntimeQueue": 0}}
        else:
            await self._copy(run, one, seconds, facts)

    async def _copy(self, run, one, seconds, facts):
        one.input = {"source": {"type": "DelimitedTextSource"}, "sink": {"type": "DelimitedTextSink"},
                     "enableStaging": False, "dataIntegrationUnits": 4}
        limit = run.parameters.get("limit")
        limit = None if limit in (None, "") else int(number(limit, "limit"))
        fault = self.faults.for_work({"copy_fails"}, facts)
        if fault is None:
            counts = await self.lake.copy(run.parameters.get("row_audit_id"), limit, seconds)
            one.output = copy_output(counts, one, [])
            return
        partial = {}
        if "after_rows" in fault.spec:
            try:
                await self.lake.copy(run.parameters.get("row_audit_id"), limit, seconds,
                                     int(fault.spec["after_rows"]))
            except LakeError as error:
                partial = error.partial
        else:
            await self.settings.pause(seconds / 2)
        raise ActivityError(fault.spec.get("errorCode", "2200"), fault.spec.get(
            "message", "ErrorCode=UserErrorSourceBlobNotReachable,The source could not be read."),
            output=partial)


def copy_output(counts, one, errors):
    """The output of a Copy activity, also of a failed one."""
    seconds = max((utcnow() - one.start).total_seconds(), 0.001)
    whole = max(1, round(seconds))
    read = counts.get("dataRead", 0)
    return {"dataRead": read, "dataWritten": counts.get("dataWritten", 0),
            "filesRead": counts.get("filesRead", 0), "filesWritten": counts.get("filesWritten", 0),
            "sourcePeakConnections": 1, "sinkPeakConnections": 1,
            "rowsRead": counts.get("rowsRead", 0), "rowsCopied": counts.get("rowsCopied", 0),
            "copyDuration": whole, "throughput": round(read / 1024 / seconds, 3), "errors": errors,
            "effectiveIntegrationRuntime": RUNTIME, "usedDataIntegrationUnits": 4,
            "usedParallelCopies": 1,
            "executionDetails": [{
                "source": {"type": "AzureBlobStorage"}, "sink": {"type": "AzureBlobFS"},
                "status": "Failed" if errors else "Succeeded", "start": iso(one.start), "duration": whole,
                "usedDataIntegrationUnits": 4, "usedParallelCopies": 1,
                "profile": {"queue": {"status": "Completed", "duration": 0},
                            "transfer": {"status": "Completed", "duration": whole}},
                "detailedDurations": {"queuingDuration": 0, "transferDuration": whole}}],
            "dataConsistencyVerification": {"VerificationResult": "NotVerified"},
            "durationInQueue": {"integrationRuntimeQueue": 0}}


def number(value, name):
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise ActivityError("2200", f"The parameter {name} must be a number.") from None
    if not 0 <= result < 1e9:
        raise ActivityError("2200", f"The parameter {name} is out of range.")
    return result


def stringified(value):
    """Parameter values come back as text: strings bare, everything else as compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "True" if value else "False"
    return json.dumps(value, separators=(",", ":"))


def utcnow():
    return datetime.datetime.now(datetime.timezone.utc)


def iso(moment):
    """Seven digits of a second, as the service writes them."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def milliseconds(start, end):
    return None if end is None else int((end - start).total_seconds() * 1000)
