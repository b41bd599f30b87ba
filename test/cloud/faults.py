"""Scripted faults: what goes wrong, for whom, how often.

A fault is one flat JSON object.  `fault` names its kind; `operation` (a glob such as
"adf.*") and the selectors of ledger.FACTS say which requests it is for; `after` skips that
many matches first and `times` (default 1, null = always) limits how often it strikes.
Faults are tried in the order they were added; the first that strikes wins and the later
ones do not see that request.

Faults of the answer damage one HTTP exchange.  Those that carry out the work first are
the ones that find missing idempotency.  Faults of the work make a task or copy fail.
"""

import asyncio
import fnmatch
import itertools
import json
import time

from ledger import FACTS
from server import Response, http_date, json_response

# kind -> whether the work is carried out before the answer is damaged
ANSWER = {"status": False, "html": False, "reset_before": False, "delay": True, "reset_after": True,
          "hold": True, "half_body": True, "not_json": True, "huge": True, "slow_drip": True}
WORK = {"task_fails", "copy_fails", "never_ends"}
OPTIONS = {"fault", "operation", "times", "after", "status", "body", "headers", "retry_after",
           "retry_after_date", "delay_ms", "delay_before_ms", "do_work", "mb", "chunked", "drip_ms",
           "message", "errorCode", "after_rows"}

HTML_PAGE = (b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center>"
             b"<h1>502 Bad Gateway</h1></center>\r\n<hr><center>gateway</center>\r\n</body>\r\n</html>\r\n")


class Fault:
    def __init__(self, number, spec):
        if not isinstance(spec, dict):
            raise ValueError("a fault is an object")
        spec = dict(spec)
        if "fault" not in spec and "status" in spec:
            spec["fault"] = "status"
        elif "fault" not in spec and ("delay_ms" in spec or "delay_before_ms" in spec):
            spec["fault"] = "delay"
        unknown = set(spec) - OPTIONS - set(FACTS)
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r} in a fault")
        self.kind = spec.get("fault")
        if self.kind not in ANSWER and self.kind not in WORK:
            raise ValueError(f"unknown fault {self.kind!r}")
        if self.kind == "status" and not isinstance(spec.get("status"), int):
            raise ValueError("the fault \"status\" needs an integer status")
        self.number = number
        self.spec = spec
        self.operation = spec.get("operation", "*")
        self.selectors = {name: str(spec[name]) for name in FACTS if name in spec}
        self.times = spec.get("times", 1)
        self.after = spec.get("after", 0)
        self.seen = 0
        self.struck = 0
        self.removed = asyncio.Event()

    def strikes(self, facts):
        """Count the match and say whether this one is hit."""
        if self.times is not None and self.struck >= self.times:
            return False
        if any(str(facts.get(name)) != value for name, value in self.selectors.items()):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        self.struck += 1
        return True

    async def before(self):
        """What happens to the request before it is looked at."""
        await asyncio.sleep(self.spec.get("delay_before_ms", 0) / 1000)
        if self.kind == "hold":
            await self.removed.wait()

    @property
    def carries_out(self):
        return self.kind == "delay" or bool(self.spec.get("do_work", ANSWER[self.kind]))

    def damage(self, response, operation):
        """What the client gets instead of `response` (None when no work was carried out)."""
        kind, spec = self.kind, self.spec
        if kind == "delay" or (kind == "hold" and response is not None):
            return response
        if kind in ("reset_before", "reset_after", "hold"):
            return Response(0, effect={"kind": "reset"})
        if kind == "status":
            return self._status(spec, operation)
        if kind == "html":
            return Response(spec.get("status", 502), HTML_PAGE, {"Content-Type": "text/html"})
        if kind == "not_json":
            body = spec.get("body", '{"truncated": [1, 2')
            return Response(spec.get("status", 200), raw(str(body)),
                            {"Content-Type": "application/json"})
        if response is None:
            response = json_response(200, {})
        if kind == "half_body":
            response.effect = {"kind": "half"}
        elif kind == "slow_drip":
            response.effect = {"kind": "drip", "drip_ms": spec.get("drip_ms", 100)}
        elif kind == "huge":
            response = Response(200, b"", {"Content-Type": "application/json"},
                                {"kind": "huge", "mb": int(spec.get("mb", 64)),
                                 "chunked": bool(spec.get("chunked"))})
        return response

    def _status(self, spec, operation):
        headers = {"Content-Type": "application/json", **(spec.get("headers") or {})}
        if "retry_after" in spec:
            headers["Retry-After"] = str(spec["retry_after"])
        if "retry_after_date" in spec:
            headers["Retry-After"] = http_date(time.time() + spec["retry_after_date"])
        body = spec.get("body")
        if body is None:
            body = usual_body(spec["status"], operation)
        text = body if isinstance(body, str) else json.dumps(body)
        return Response(spec["status"], raw(text), headers)

    def describe(self):
        return {"id": self.number, **self.spec, "seen": self.seen, "struck": self.struck}


def raw(text):
    """Bytes of a body; \\udc80 to \\udcff stand for the bytes 80 to ff, so that it need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def usual_body(status, operation):
    """The error body that service would send with this status."""
    if operation.startswith("databricks."):
        code = {429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE", 401: 401, 403: 403,
                500: "INTERNAL_ERROR"}.get(status, "UNKNOWN")
        message = {429: "Current request has been rejected because it exceeds the rate limit.",
                   401: "Credential was not sent or was of an unsupported type for this API.",
                   403: "Invalid access token."}.get(status, "The service could not answer the request.")
        return {"error_code": code, "message": message}
    if operation.startswith("entra."):
        return {"error": "temporarily_unavailable",
                "error_description": "AADSTS90033: A transient error has occurred. Please try again.",
                "error_codes": [90033]}
    if operation.startswith("fabric."):
        return {"requestId": "0", "errorCode": {429: "RequestBlocked", 401: "TokenExpired"}.get(status, "UnknownError"),
                "message": f"The request was refused with status {status}.", "isRetriable": status >= 429}
    if operation.startswith("neon."):
        return {"request_id": "00000000-0000-0000-0000-000000000000", "code": "",
                "message": {429: "rate limit exceeded", 423: "resource is locked"}.get(status, "something went wrong")}
    code = {429: "SubscriptionRequestsThrottled", 503: "ServiceUnavailable", 500: "InternalServerError",
            401: "ExpiredAuthenticationToken", 403: "AuthorizationFailed"}.get(status, "Error")
    return {"error": {"code": code, "message": f"The request was refused with status {status}."}}


class Faults:
    def __init__(self):
        self.list = []
        self.numbers = itertools.count(1)

    def add(self, specs):
        """All of them or, with a ValueError, none."""
        added = [Fault(next(self.numbers), spec)
                 for spec in (specs if isinstance(specs, list) else [specs])]
        self.list.extend(added)
        return added

    def remove(self, number):
        self._remove([fault for fault in self.list if fault.number == number])

    def clear(self):
        self._remove(list(self.list))

    def _remove(self, faults):
        for fault in faults:
            self.list.remove(fault)
            fault.removed.set()

    def for_request(self, operation, facts):
        for fault in self.list:
            if fault.kind in ANSWER and fnmatch.fnmatchcase(operation, fault.operation) \
                    and fault.strikes(facts):
                return fault
        return None

    def for_work(self, kinds, facts):
        """The fault striking a task or activity that is about to begin."""
        for fault in self.list:
            if fault.kind in kinds and fault.strikes(facts):
                return fault
        return None
