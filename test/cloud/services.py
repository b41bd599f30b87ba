"""Plain services that take their time or give their answers in pages, for the kinds http and webhook.

    POST /http/jobs                starts a job: 202, Location, {"id", "state", "links": {"status"}}.  Body, all optional:
                                   {"seconds", "fail", "result", "callback": {"queue", "token", "encoded", "list"}}
    GET  /http/jobs/{id}           {"id", "state": queued | running | stopping | done | failed | stopped, "result", "error"}
    GET  /http/jobs?key=K          {"jobs": [...]}: those started with that Idempotency-Key
    GET  /http/jobs/{id}/result    the result; 404 before
    POST /http/jobs/{id}/stop      asks it to stop; it takes "stop_seconds" to
    GET  /http/lro/{id}            the same job, the other way: 202 until it has ended, then 303 to its result, or 500
    GET  /http/pages/{way}         way: next, absolute, cursor, link or number; ?count=N&size=M: items {"n": 1}, ...
                                   &elsewhere=URL: the next link points there

An Idempotency-Key (or X-Request-Key) that was seen gives the same job again.
"""

import asyncio
import json
import re
import uuid

from server import Response, json_response

JOB = re.compile(r"/http/(jobs|lro)(?:/([0-9a-f-]{36})(/result|/stop)?)?$")
PAGES = re.compile(r"/http/pages/(next|absolute|cursor|link|number)$")


class Services:
    def __init__(self, settings, ledger, queues, faults):
        self.settings = settings
        self.ledger = ledger
        self.queues = queues
        self.faults = faults
        self.jobs = {}
        self.keys = {}
        self.tasks = set()

    def route(self, request, path):
        """(operation, facts, handler) or None."""
        found = JOB.match(path)
        if found:
            facts = {"run_id": found[2], "idempotency_token": key_of(request), "weir_token": token_of(request)}
            operation = "start" if request.method == "POST" and not found[2] else \
                (found[3] or "/get")[1:] if found[2] else "find"

            async def job(request, entry):
                return await self.job(request, entry, operation, found[1], found[2])
            return "http.job-" + operation, {name: value for name, value in facts.items() if value}, job
        found = PAGES.match(path)
        if found:
            async def pages(request, entry):
                return self.pages(request, found[1])
            return "http.pages", {}, pages
        return None

    async def stop(self):
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.jobs.clear()
        self.keys.clear()

    # -- jobs ------------------------------------------------------------------

    async def job(self, request, entry, operation, way, number):
        if operation == "start":
            return self.start(request, entry, way)
        if operation == "find":
            known = self.keys.get(request.query.get("key"))
            return json_response(200, {"jobs": [public(self.jobs[known])] if known else []})
        one = self.jobs.get(number)
        if one is None:
            return json_response(404, {"fault": {"kind": "NoSuchJob", "text": "there is no such job"}})
        if operation == "stop":
            if one["state"] in ("queued", "running"):
                one["task"].cancel()
                one["state"] = "stopping"
                one["task"] = asyncio.create_task(self.halt(one))
                self.tasks.add(one["task"])
                one["task"].add_done_callback(self.tasks.discard)
                if "stop_seconds" not in one["wanted"]:
                    await one["task"]
            return json_response(202, {"state": one["state"]})
        if operation == "result":
            return json_response(200 if one["state"] == "done" else 404, one.get("result"))
        if way == "jobs":
            return json_response(200, public(one), retry_after(self.settings))
        if one["state"] in ("queued", "running", "stopping"):
            return Response(202, b"", retry_after(self.settings))
        if one["state"] == "failed":
            return json_response(500, {"fault": {"kind": "JobFailed", "text": one["error"]}})
        return Response(303, b"", {"Location": f"../../http/jobs/{number}/result" if request.query.get("up")
                                   else f"/http/jobs/{number}/result"})

    def start(self, request, entry, way):
        wanted = request.json_or_none() or {}
        key = key_of(request)
        number = self.keys.get(key) if key else None
        if number is None:
            number = str(uuid.uuid4())
            self.jobs[number] = one = {"id": number, "state": "queued", "error": None, "wanted": wanted}
            if key:
                self.keys[key] = number
            entry["run_id"] = number
            self.ledger.mark_started(entry)
            one["task"] = asyncio.create_task(self.drive(one))
            self.tasks.add(one["task"])
            one["task"].add_done_callback(self.tasks.discard)
        return json_response(202, {**public(self.jobs[number]), "links": {"status": f"/http/jobs/{number}"}},
                             {"Location": f"/http/{way}/{number}", **retry_after(self.settings)})

    async def drive(self, one):
        wanted = one["wanted"]
        await self.settings.pause(0.1)
        one["state"] = "running"
        if self.faults.for_work({"never_ends"}, {"run_id": one["id"]}):
            await asyncio.Event().wait()
        await self.settings.pause(float(wanted.get("seconds", 0.5)))
        one["error"] = wanted.get("fail")
        one["result"] = wanted.get("result", {"rows": 42})
        one["state"] = "failed" if one["error"] else "done"
        callback = wanted.get("callback")
        if callback:
            answer = {"token": callback["token"], "state": one["state"], "error": one["error"], "result": one["result"],
                      "job": one["id"]}
            text = json.dumps([answer] if callback.get("list") else answer)
            for _ in range(int(callback.get("times", 1))):
                self.queues.put(callback["queue"], text, bool(callback.get("encoded")))

    async def halt(self, one):
        await self.settings.pause(float(one["wanted"].get("stop_seconds", 0)))
        one["state"] = "stopped"

    # -- pages -----------------------------------------------------------------

    def pages(self, request, way):
        query = request.query
        count, size = int(query.get("count", "25")), int(query.get("size", "10"))
        number = int(query.get("page", "1")) if way == "number" else int(query.get("from", query.get("cursor", "0"))) // size + 1
        first = (number - 1) * size
        answer = {"items": [{"n": n + 1, "name": f"item {n + 1}"} for n in range(first, min(first + size, count))]}
        headers = {}
        if first + size < count:
            base = f"/http/pages/{way}?count={count}&size={size}&from={first + size}"
            absolute = request.origin + base
            if way == "cursor":
                answer["cursor"] = str(first + size)
            elif way == "link":
                headers["Link"] = f'<{absolute}&last=1>; rel="last", <{query.get("elsewhere", absolute)}>; rel="next"'
            elif way != "number":
                answer["@next"] = query.get("elsewhere", absolute if way == "absolute" else base)
        return json_response(200, answer, headers)


def token_of(request):
    """What a callback is to bring back."""
    wanted = request.json_or_none()
    callback = wanted.get("callback") if isinstance(wanted, dict) else None
    return callback.get("token") if isinstance(callback, dict) else None


def key_of(request):
    return request.headers.get("idempotency-key") or request.headers.get("x-request-key")


def public(one):
    return {name: one.get(name) for name in ("id", "state", "error", "result")}


def retry_after(settings):
    return {"Retry-After": str(settings.job_retry_after)} if settings.job_retry_after else {}
