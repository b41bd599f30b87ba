"""The HTTP face of Azure Data Factory (ARM, api-version 2018-06-01)."""

import base64
import binascii
import datetime
import re
import secrets
import urllib.parse
import uuid

from adf_runs import TERMINAL
from entra import ARM, bearer
from server import Refusal, Response, json_response

FACTORY = re.compile(r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.DataFactory"
                     r"/factories/([^/]+)(?:/(.*))?$", re.IGNORECASE)
ROUTES = [(method, re.compile(pattern + "$", re.IGNORECASE), operation, handler)
          for method, pattern, operation, handler in (
              ("GET", r"", "adf.getFactory", "get_factory"),
              ("GET", r"pipelines", "adf.listPipelines", "list_pipelines"),
              ("GET", r"pipelines/(?P<pipeline>[^/]+)", "adf.getPipeline", "get_pipeline"),
              ("POST", r"pipelines/(?P<pipeline>[^/]+)/createRun", "adf.createRun", "create_run"),
              ("GET", r"pipelineruns/(?P<run_id>[^/]+)", "adf.getRun", "get_run"),
              ("POST", r"queryPipelineRuns", "adf.queryRuns", "query_runs"),
              ("POST", r"pipelineruns/(?P<run_id>[^/]+)/queryActivityruns", "adf.queryActivityRuns",
               "query_activities"),
              ("POST", r"pipelineruns/(?P<run_id>[^/]+)/cancel", "adf.cancel", "cancel_run"))]

RUN_FIELDS = {"PipelineName": "pipelineName", "Status": "status", "RunStart": "runStart",
              "RunEnd": "runEnd", "RunGroupId": "runGroupId", "LatestOnly": "isLatest"}
ACTIVITY_FIELDS = {"ActivityName": "activityName", "ActivityRunStart": "activityRunStart",
                   "ActivityRunEnd": "activityRunEnd", "ActivityType": "activityType", "Status": "status"}


class DataFactory:
    def __init__(self, settings, ledger, entra, runs):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.runs = runs
        self.snapshots = {}         # continuation token -> what is still to be delivered

    def route(self, request, path):
        match = FACTORY.match(path)
        if not match:
            return None
        for method, pattern, operation, handler in ROUTES:
            found = pattern.match(match[4] or "")
            if found and method == request.method:
                facts = {name: urllib.parse.unquote(value) for name, value in found.groupdict().items()}
                if operation == "adf.createRun":
                    body = request.json_or_none()
                    if isinstance(body, dict):
                        facts.update((name, as_fact(body[name])) for name in ("row_audit_id", "weir_token")
                                     if name in body)
                return operation, facts, self._guarded(getattr(self, handler), match, facts)
        return "adf.unknown", {}, self.unknown

    def _guarded(self, handler, match, facts):
        factory = tuple(urllib.parse.unquote(match[i]).lower() for i in (1, 2, 3))

        async def call(request, entry):
            self._authorise(request)
            version = request.query.get("api-version")
            if version is None:
                raise refusal(400, "MissingApiVersionParameter", "The api-version query parameter "
                              "(?api-version=) is required for all requests.")
            if version != "2018-06-01":
                raise refusal(400, "NoRegisteredProviderFound", f"No registered resource provider found "
                              f"for API version '{version[:40]}'. The supported api-versions are '2018-06-01'.")
            response = await handler(request, entry, factory, facts)
            response.headers.update({"x-ms-request-id": str(uuid.uuid4()),
                                     "x-ms-correlation-request-id": str(uuid.uuid4()),
                                     "x-ms-ratelimit-remaining-subscription-reads": "11999"
                                     if request.method == "GET" else "1199",
                                     "X-Content-Type-Options": "nosniff"})
            return response
        return call

    def _authorise(self, request):
        text = bearer(request)
        if not text:
            raise refusal(401, "AuthenticationFailed",
                          "Authentication failed. The 'Authorization' header is missing.",
                          {"WWW-Authenticate": "Bearer authorization_uri=\"https://login.windows.net/common\", "
                           "error=\"invalid_token\", error_description=\"The access token is missing.\""})
        problem = self.entra.check(text, ARM)
        if problem == "unknown":
            raise refusal(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if problem == "expired":
            raise refusal(401, "ExpiredAuthenticationToken",
                          "The access token expiry UTC time is earlier than current UTC time.")
        if problem == "audience":
            raise refusal(401, "InvalidAuthenticationTokenAudience",
                          "The access token has been obtained for wrong audience or resource. It should "
                          "exactly match with one of the allowed audiences 'https://management.azure.com/'.")

    async def unknown(self, request, entry):
        raise refusal(404, "InvalidResourceType", "The resource type could not be found in the namespace "
                      "'Microsoft.DataFactory' for api version '2018-06-01'.")

    # -- factory and pipelines -------------------------------------------------

    async def get_factory(self, request, entry, factory, facts):
        return json_response(200, {"name": factory[2], "id": resource_id(factory),
                                   "type": "Microsoft.DataFactory/factories", "location": "westeurope",
                                   "properties": {"provisioningState": "Succeeded", "version": "2018-06-01"}})

    async def list_pipelines(self, request, entry, factory, facts):
        return json_response(200, {"value": [self._pipeline(factory, name) for name in self.runs.pipelines]})

    async def get_pipeline(self, request, entry, factory, facts):
        self._known(factory, facts["pipeline"])
        return json_response(200, self._pipeline(factory, facts["pipeline"]))

    def _pipeline(self, factory, name):
        definition = self.runs.pipelines[name]
        return {"id": f"{resource_id(factory)}/pipelines/{name}", "name": name,
                "type": "Microsoft.DataFactory/factories/pipelines", "etag": "0a0062d4-0000-0000-0000-000000000000",
                "properties": {"parameters": definition["parameters"],
                               "activities": [{"name": a["name"], "type": a["type"], "typeProperties": {}}
                                              for a in definition["activities"]]}}

    def _known(self, factory, pipeline):
        if pipeline not in self.runs.pipelines:
            raise Refusal(json_response(404, {"error": {
                "code": "PipelineNotFound",
                "message": "The document could not be retrieved because it was not found.",
                "target": f"{resource_id(factory)}/pipelines/{pipeline}", "details": None}}))

    # -- runs ------------------------------------------------------------------

    async def create_run(self, request, entry, factory, facts):
        self._known(factory, facts["pipeline"])
        reference_id = request.query.get("referencePipelineRunId")
        if reference_id:
            run = self._recover(request, factory, facts["pipeline"], reference_id)
        else:
            run = self.runs.start(factory, facts["pipeline"], body_object(request))
        entry["run_id"] = run.run_id
        self.ledger.mark_started(entry)
        return json_response(200, {"runId": run.run_id})

    def _recover(self, request, factory, pipeline, reference_id):
        """A new run with the old one's parameters, from the start, an activity, or the failure."""
        reference = self.runs.find(factory, reference_id)
        if reference is None or reference.pipeline != pipeline:
            raise refusal(400, "ReferencedPipelineRunNotValid",
                          f"Referenced pipeline run id {reference_id[:60]} is not a valid run id.")
        names = [activity["name"] for activity in reference.definition["activities"]]
        first = 0
        wanted = request.query.get("startActivityName")
        if wanted:
            if wanted not in names:
                raise refusal(400, "BadRequest", f"The activity {wanted[:100]} does not exist.")
            first = names.index(wanted)
        elif request.query.get("startFromFailure", "").lower() == "true":
            failed = [one.name for one in reference.activities if one.status != "Succeeded"]
            first = names.index(failed[0]) if failed else 0
        return self.runs.start(factory, pipeline, reference.parameters, reference, first)

    def _run(self, factory, run_id):
        run = self.runs.find(factory, run_id)
        if run is None:
            raise refusal(404, "PipelineRunNotFound",
                          f"The pipeline run with run id '{run_id[:60]}' was not found.")
        return run

    async def get_run(self, request, entry, factory, facts):
        run = self._run(factory, facts["run_id"])
        entry["pipeline"] = run.pipeline
        return json_response(200, run.describe())

    async def cancel_run(self, request, entry, factory, facts):
        run = self._run(factory, facts["run_id"])
        entry["pipeline"] = run.pipeline
        if run.status in TERMINAL:
            raise refusal(400, "PipelineRunNotInProgress", f"The pipeline run '{run.run_id}' cannot be "
                          f"cancelled because its status is {run.status}.")
        self.runs.cancel(run)
        return Response(200)

    async def query_runs(self, request, entry, factory, facts):
        body = body_object(request)
        rows = self._continued(body)
        if rows is None:
            after, before = window(body)
            rows = [run.describe() for run in self.runs.runs.values()
                    if run.factory == factory and self.runs.visible(run) and after <= run.updated <= before]
            rows = arranged(rows, body, RUN_FIELDS)
        return self._page(rows)

    async def query_activities(self, request, entry, factory, facts):
        run = self._run(factory, facts["run_id"])
        body = body_object(request)
        rows = self._continued(body)
        if rows is None:
            after, before = window(body)
            rows = [one.describe() for one in run.activities
                    if after <= (one.end or one.start) <= before]
            rows = arranged(rows, body, ACTIVITY_FIELDS)
        return self._page(rows)

    # -- paging ----------------------------------------------------------------

    def _continued(self, body):
        token = body.get("continuationToken")
        if token is None:
            return None
        try:
            return self.snapshots[base64.b64decode(token, validate=True)]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise refusal(400, "BadRequest", "The continuation token is not valid.") from None

    def _page(self, rows):
        size = self.settings.page_size
        answer = {"value": rows[:size]}
        if len(rows) > size:
            key = secrets.token_bytes(24)
            if len(self.snapshots) > 1000:
                self.snapshots.pop(next(iter(self.snapshots)))
            self.snapshots[key] = rows[size:]
            answer["continuationToken"] = base64.b64encode(key).decode()
        return json_response(200, answer)


def refusal(status, code, message, headers=None):
    return Refusal(json_response(status, {"error": {"code": code, "message": message}}, headers))


def resource_id(factory):
    return (f"/subscriptions/{factory[0]}/resourceGroups/{factory[1]}"
            f"/providers/Microsoft.DataFactory/factories/{factory[2]}")


def body_object(request):
    try:
        body = request.json()
    except ValueError:
        raise refusal(400, "InvalidRequestContent", "The request content was invalid and could not be "
                      "deserialized: it is not JSON.") from None
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise refusal(400, "InvalidRequestContent", "The request content was invalid and could not be "
                      "deserialized: an object was expected.")
    return body


def window(body):
    """(after, before); both ends are required."""
    ends = []
    for name in ("lastUpdatedAfter", "lastUpdatedBefore"):
        value = body.get(name)
        try:
            moment = datetime.datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise refusal(400, "BadRequest", f"The property '{name}' is required and must be a time "
                          "in ISO 8601 format.") from None
        ends.append(moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc))
    return ends


def arranged(rows, body, fields):
    """rows filtered and ordered as the body asks."""
    for wanted in body.get("filters") or []:
        try:
            field = fields[wanted["operand"]]
            operator, values = wanted["operator"], [str(value) for value in wanted["values"]]
        except (KeyError, TypeError):
            raise refusal(400, "BadRequest", "The filter is not valid.") from None
        if operator not in ("Equals", "NotEquals", "In", "NotIn") or not values:
            raise refusal(400, "BadRequest", "The filter is not valid.")
        values = {value.lower() for value in values}
        positive = operator in ("Equals", "In")
        rows = [row for row in rows if (str(row[field]).lower() in values) is positive]
    for wanted in reversed(body.get("orderBy") or []):
        try:
            field, order = fields[wanted["orderBy"]], wanted["order"]
        except (KeyError, TypeError):
            raise refusal(400, "BadRequest", "The orderBy option is not valid.") from None
        if order not in ("ASC", "DESC"):
            raise refusal(400, "BadRequest", "The orderBy option is not valid.")
        rows = sorted(rows, key=lambda row: str(row[field] or ""), reverse=order == "DESC")
    return rows


def as_fact(value):
    return value if isinstance(value, str) else str(value)
