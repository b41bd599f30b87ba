"""Requests to Databricks compared with the SDK that Databricks generates from its own description, which is not published alone.

What must fit: method and path; the names of parameters are those of the SDK's method; whatever the SDK has a class for goes through it
and comes back as it was, so names of fields, values of enumerations and types are known; parameters the method needs are there.
"""

import dataclasses
import enum
import inspect
import json
import re
import typing
import urllib.parse

from databricks.sdk.service import jobs, pipelines, serving, sql

ID = r"([^/]+)"
# path -> class and method; what the path itself says are the method's parameters of these names
METHODS = [(method, re.compile(pattern + "$"), owner, name, names) for method, pattern, owner, name, names in (
    ("POST", r"/api/2\.2/jobs/run-now", jobs.JobsAPI, "run_now", ()),
    ("POST", r"/api/2\.2/jobs/runs/submit", jobs.JobsAPI, "submit", ()),
    ("GET", r"/api/2\.2/jobs/get", jobs.JobsAPI, "get", ()),
    ("GET", r"/api/2\.2/jobs/list", jobs.JobsAPI, "list", ()),
    ("GET", r"/api/2\.2/jobs/runs/get", jobs.JobsAPI, "get_run", ()),
    ("GET", r"/api/2\.2/jobs/runs/get-output", jobs.JobsAPI, "get_run_output", ()),
    ("GET", r"/api/2\.2/jobs/runs/list", jobs.JobsAPI, "list_runs", ()),
    ("POST", r"/api/2\.2/jobs/runs/cancel", jobs.JobsAPI, "cancel_run", ()),
    ("POST", r"/api/2\.2/jobs/runs/repair", jobs.JobsAPI, "repair_run", ()),
    ("POST", r"/api/2\.0/sql/statements/?", sql.StatementExecutionAPI, "execute_statement", ()),
    ("GET", rf"/api/2\.0/sql/statements/{ID}", sql.StatementExecutionAPI, "get_statement", ("statement_id",)),
    ("GET", rf"/api/2\.0/sql/statements/{ID}/result/chunks/(\d+)", sql.StatementExecutionAPI, "get_statement_result_chunk_n",
     ("statement_id", "chunk_index")),
    ("POST", rf"/api/2\.0/sql/statements/{ID}/cancel", sql.StatementExecutionAPI, "cancel_execution", ("statement_id",)),
    ("GET", r"/api/2\.0/sql/history/queries", sql.QueryHistoryAPI, "list", ()),
    ("GET", rf"/api/2\.0/pipelines/{ID}", pipelines.PipelinesAPI, "get", ("pipeline_id",)),
    ("POST", rf"/api/2\.0/pipelines/{ID}/updates", pipelines.PipelinesAPI, "start_update", ("pipeline_id",)),
    ("GET", rf"/api/2\.0/pipelines/{ID}/updates", pipelines.PipelinesAPI, "list_updates", ("pipeline_id",)),
    ("GET", rf"/api/2\.0/pipelines/{ID}/updates/{ID}", pipelines.PipelinesAPI, "get_update", ("pipeline_id", "update_id")),
    ("GET", rf"/api/2\.0/pipelines/{ID}/events", pipelines.PipelinesAPI, "list_pipeline_events", ("pipeline_id",)),
    ("POST", rf"/api/2\.0/pipelines/{ID}/stop", pipelines.PipelinesAPI, "stop", ("pipeline_id",)),
    ("POST", rf"/serving-endpoints/{ID}/invocations", serving.ServingEndpointsAPI, "query", ("name",)))]
CONVERT = {"true": True, "false": False}


def judge(request, path):
    """(class.method, findings, none of the answer), or None when there is no such method."""
    for method, pattern, owner, name, names in METHODS:
        match = pattern.match(path)
        if match and method == request["method"]:
            return f"{owner.__name__}.{name}", findings(getattr(owner, name), dict(zip(names, match.groups())), request), []
    return None


def findings(function, in_path, request):
    parameters = inspect.signature(function).parameters
    kinds = typing.get_type_hints(function)
    values = dict(in_path)
    query = urllib.parse.parse_qsl(request["target"].partition("?")[2], keep_blank_values=True)
    found = []
    if function.__name__ == "get_statement_result_chunk_n":     # the link to the next chunk, as the service gave it, has one more
        query = [one for one in query if one[0] != "row_offset"]
    if request["method"] == "POST":
        if query:
            found.append(f"query {query[0][0]} is not known")
        try:
            body = json.loads(request.get("body") or "{}")
        except ValueError as error:
            return [f"the body is not JSON: {error}"]
        if not isinstance(body, dict):
            return ["the body is no object"]
        values.update(body)
        if request.get("body") and "application/json" not in request["headers"].get("content-type", ""):
            found.append("Content-Type is not JSON")
    else:
        if request.get("body"):
            found.append("a body with GET")
        values.update(nested(query))
    for key, value in values.items():
        if key not in parameters:
            found.append(f"{key} is not known")
        elif key not in in_path:
            found += unfit(kinds[key], value, key, request["method"] == "GET")
    return found + [f"{key} is required" for key, one in parameters.items()
                    if one.default is inspect.Parameter.empty and key not in ("self",) and key not in values]


def nested(query):
    """a.b=1 is {"a": {"b": "1"}}; a name that comes again is a list."""
    values = {}
    for name, text in query:
        *path, last = name.split(".")
        place = values
        for part in path:
            place = place.setdefault(part, {})
        if last in place:
            place[last] = [*(place[last] if isinstance(place[last], list) else [place[last]]), text]
        else:
            place[last] = text
    return values


def unfit(kind, value, place, is_text):
    """What is wrong with a value of this type; is_text: numbers and the like are spelled as in a query string."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        return unfit(next(one for one in arguments if one is not type(None)), value, place, is_text)
    if origin is list:
        if not isinstance(value, list):
            return unfit(arguments[0], value, place, is_text) if is_text else [f"{place} is no list"]
        return [text for number, one in enumerate(value) for text in unfit(arguments[0], one, f"{place}[{number}]", is_text)]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{place} is no object"]
        return [text for key, one in value.items() for text in unfit(arguments[1], one, f"{place}.{key}", is_text)]
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            return [f"{place} is no object"]
        kinds = typing.get_type_hints(kind)
        return [text for key, one in value.items()
                for text in (unfit(kinds[key], one, f"{place}.{key}", is_text) if key in kinds else [f"{place}.{key} is not known"])] + \
            [f"{place}.{one.name} is required" for one in dataclasses.fields(kind)
             if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING and one.name not in value]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [] if value in [one.value for one in kind] else [f"{place}: {value!r} is not one of {[one.value for one in kind]}"]
    if is_text and isinstance(value, str):
        good = {bool: value in CONVERT, int: re.fullmatch(r"-?\d+", value), float: re.fullmatch(r"-?[\d.eE+-]+", value)}.get(kind, True)
    else:
        good = {bool: isinstance(value, bool), int: isinstance(value, int) and not isinstance(value, bool), str: isinstance(value, str),
                float: isinstance(value, (int, float)) and not isinstance(value, bool)}.get(kind, True)
    return [] if good else [f"{place}: {value!r} is not {getattr(kind, '__name__', kind)}"]
