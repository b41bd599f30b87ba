"""Groups of selfcheck.py for Fabric, the queues and the plain services that take their time."""

import urllib.parse
import xml.etree.ElementTree as xml

from client import until

SPACE = "00000000-0000-4000-8000-000000000001"


def item(number):
    return f"/fabric/v1/workspaces/{SPACE}/items/00000000-0000-4000-8000-{number:012d}"


def fabric(c, check):
    token = c.token({"grant_type": "client_credentials", "client_id": "weir-client", "client_secret": "weir-secret",
                     "scope": "https://api.fabric.microsoft.com/.default"})[1]["access_token"]
    headers = {"Authorization": f"Bearer {token}"}

    def call(method, path, body=None):
        return c.call(method, path, body, headers)

    def ended(path):
        return until(lambda: call("GET", path)[1]["status"], lambda status: status not in ("NotStarted", "InProgress", "Running"))

    check("fabric: another audience", c.call("GET", item(10) + "/jobs/instances", None, {"Authorization": f"Bearer {c.arm}"})[0] == 401)
    status, answer = call("POST", item(10) + "/jobs/Pipeline/instances", {"executionData": {"parameters": {"seconds": 1}}})
    check("fabric: a start has no body", status == 202 and answer is None and c.headers["retry-after"] == "1", c.headers)
    path = urllib.parse.urlsplit(c.headers["location"]).path
    check("fabric: completed", ended(path) == "Completed")
    one = call("GET", path)[1]
    check("fabric: an instance", one["invokeType"] == "Manual" and one["failureReason"] is None
          and len(one["startTimeUtc"]) == 27 and not one["startTimeUtc"].endswith("Z"), one)
    check("fabric: the list", call("GET", item(10) + "/jobs/instances")[1]["value"][0]["id"] == one["id"])
    rows = call("POST", f"/fabric/v1/workspaces/{SPACE}/datapipelines/pipelineruns/{one['id']}/queryactivityruns",
                {"lastUpdatedAfter": "2018-06-16T00:00:00Z", "lastUpdatedBefore": "2999-01-01T00:00:00Z"})[1]
    check("fabric: activities", isinstance(rows, list) and rows[1]["output"]["rowsCopied"] == 4330, rows)
    check("fabric: cancelled too late", call("POST", path + "/cancel")[1]["errorCode"] == "JobAlreadyCompleted")
    check("fabric: the old form", call("POST", item(11) + "/jobs/instances?jobType=RunNotebook")[0] == 202)
    check("fabric: wrong job type", call("POST", item(11) + "/jobs/Pipeline/instances")[1]["errorCode"] == "InvalidJobType")
    check("fabric: wrong body", call("POST", item(11) + "/jobs/RunNotebook/instances", {"parameters": [{"name": "x"}]})[0] == 400)
    check("fabric: no such item", call("POST", item(99) + "/jobs/Pipeline/instances")[0] == 404)
    call("POST", item(13) + "/jobs/TableMaintenance/instances", {"executionData": {"parameters": {"seconds": 100000}}})
    first = urllib.parse.urlsplit(c.headers["location"]).path
    call("POST", item(13) + "/jobs/TableMaintenance/instances")
    check("fabric: deduped", ended(urllib.parse.urlsplit(c.headers["location"]).path) == "Deduped")
    check("fabric: cancel", call("POST", first + "/cancel")[0] == 202 and ended(first) == "Cancelled")
    call("POST", f"/fabric/v1/workspaces/{SPACE}/sqlEndpoints/{SPACE}/refreshMetadata", {})
    path = urllib.parse.urlsplit(c.headers["location"]).path
    check("fabric: operation", path.endswith(c.headers["x-ms-operation-id"]) and ended(path) == "Succeeded")
    check("fabric: its result", call("GET", path + "/result")[0] == 200)


def queues(c, check):
    def read(query=""):
        c.call("GET", "/queue/some-queue/messages" + query)
        return xml.fromstring(c.raw.decode("utf-8-sig"))

    check("queue: not there", c.call("GET", "/queue/some-queue/messages")[0] == 404)
    body = "<QueueMessage><MessageText>&lt;a&gt; &amp; b</MessageText></QueueMessage>"
    c.control("POST", "queues", {"queue": "some-queue", "create": True})
    check("queue: put", c.call("POST", "/queue/some-queue/messages", body)[0] == 201)
    check("queue: peek", read("?peekonly=true").find("QueueMessage/DequeueCount").text == "0")
    got = read("?numofmessages=32&visibilitytimeout=100")
    check("queue: get", got.find("QueueMessage/MessageText").text == "<a> & b" and got.find("QueueMessage/DequeueCount").text == "1")
    check("queue: hidden", read().find("QueueMessage") is None)
    path = "/queue/some-queue/messages/" + got.find("QueueMessage/MessageId").text
    receipt = urllib.parse.quote(got.find("QueueMessage/PopReceipt").text, safe="")
    check("queue: wrong receipt", c.call("DELETE", path + "?popreceipt=x")[0] == 400)
    check("queue: update", c.call("PUT", f"{path}?popreceipt={receipt}&visibilitytimeout=0")[0] == 204)
    check("queue: a new receipt", c.call("DELETE", f"{path}?popreceipt={receipt}")[0] == 400)
    receipt = urllib.parse.quote(c.headers.get("x-ms-popreceipt", ""), safe="")
    got = read()
    receipt = urllib.parse.quote(got.find("QueueMessage/PopReceipt").text, safe="")
    check("queue: delete", c.call("DELETE", f"{path}?popreceipt={receipt}")[0] == 204)
    check("queue: gone", c.call("DELETE", f"{path}?popreceipt={receipt}")[0] == 404)


def services(c, check):
    key = {"Idempotency-Key": "k1"}
    status, one = c.call("POST", "/http/jobs", {"seconds": 0.1, "result": 7, "callback": {"queue": "calls", "token": "t"}}, key)
    check("a job", status == 202 and c.headers["location"] == one["links"]["status"], one)
    check("the same key, the same job", c.call("POST", "/http/jobs", {}, key)[1]["id"] == one["id"])
    check("found by its key", c.call("GET", "/http/jobs?key=k1")[1]["jobs"][0]["id"] == one["id"])
    check("done", until(lambda: c.call("GET", one["links"]["status"])[1]["state"], lambda state: state == "done") == "done")
    check("its result", c.call("GET", f"/http/jobs/{one['id']}/result")[1] == 7)
    check("its callback", '"token": "t"' in c.control("GET", "queues")["calls"][0]["text"])
    one = c.call("POST", "/http/jobs", {"seconds": 100000})[1]
    c.call("POST", f"/http/jobs/{one['id']}/stop")
    check("stopped", c.call("GET", f"/http/jobs/{one['id']}")[1]["state"] == "stopped")
    for way in ("next", "cursor", "number", "link"):
        page = c.call("GET", f"/http/pages/{way}?count=15&size=10")[1]
        more = {"next": "@next" in page, "cursor": page.get("cursor") == "10", "number": True,
                "link": 'rel="next"' in c.headers.get("link", "")}[way]
        check(f"pages by {way}", len(page["items"]) == 10 and more, page)
