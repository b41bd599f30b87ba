"""Plain HTTP endpoints for the generic http kind: /http/status/N, /http/delay/MS, /http/json[/...].

A request that changes something (any method but GET and HEAD, answered below 400) counts as
started work, unless its Idempotency-Key was seen before: then the first answer is repeated.
"""

import asyncio
import re

from server import Response, json_response

ROUTE = re.compile(r"/http/(?:(status|delay)/([0-9]{1,9})|(json)(?:/.*)?)$")
KEYS = 50_000               # Idempotency-Keys remembered


class Generic:
    def __init__(self, ledger):
        self.ledger = ledger
        self.answers = {}           # Idempotency-Key -> the first answer

    def route(self, request, path):
        match = ROUTE.match(path)
        facts = {}
        if "idempotency-key" in request.headers:
            facts["idempotency_token"] = request.headers["idempotency-key"]
        if "weir-token" in request.headers:
            facts["weir_token"] = request.headers["weir-token"]
        if not match:
            return "http.unknown", facts, self.unknown
        kind, argument = match[1] or match[3], match[2]

        async def handler(request, entry):
            return await self.answer(request, entry, kind, int(argument) if argument else 0)
        return "http." + kind, facts, handler

    async def unknown(self, request, entry):
        return json_response(404, {"error": "there is nothing here"})

    async def answer(self, request, entry, kind, argument):
        key = entry.get("idempotency_token")
        if key is not None and key in self.answers:
            status, body, headers = self.answers[key]
            return Response(status, body, dict(headers))
        if kind == "delay":
            await asyncio.sleep(min(argument, 600_000) / 1000)
            response = json_response(200, {"delayed_ms": argument})
        elif kind == "status":
            response = self._status(request, argument)
        else:
            response = json_response(200, {"method": request.method, "path": request.path, "query": request.query,
                                           "headers": request.headers, "body": request.body.decode("utf-8", "replace"),
                                           "json": request.json_or_none()})
        if response.status < 400 and request.method not in ("GET", "HEAD", "OPTIONS"):
            self.ledger.mark_started(entry)
            if key is not None:
                if len(self.answers) >= KEYS:
                    self.answers.pop(next(iter(self.answers)))
                self.answers[key] = (response.status, response.body, dict(response.headers))
        return response

    def _status(self, request, status):
        if not 200 <= status <= 599:
            return json_response(400, {"error": "the status must be between 200 and 599"})
        headers = {}
        if "to" in request.query:
            headers["Location"] = clean(request.query["to"])
        if "retry_after" in request.query:
            headers["Retry-After"] = clean(request.query["retry_after"])
        if status in (204, 304):
            return Response(status, b"", headers)
        return json_response(status, {"status": status}, headers)


def clean(text):
    return "".join(letter for letter in text if letter.isprintable())
