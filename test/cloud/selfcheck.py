#!/usr/bin/env python3
"""Checks the local cloud: starts one and goes through life cycles, errors, faults and the ledger.

    python3 test/cloud/selfcheck.py [--database CONNINFO] [--psql PATH]

With --database the table of staging.sql is created there first (an empty database is expected)
and job 101 loads it; without, job 101 writes lake/warehouse.  Prints "N passed, 0 failed".
"""

import argparse
import asyncio
import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import selfcheck_neon
import selfcheck_services
from client import FACTORY, Client, lost, until

ROWS = 4334
passed = failed = 0


def check(name, condition, detail=None):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"not ok: {name}" + ("" if detail is None else f": {detail!r}"[:600]))


# -- groups of checks --------------------------------------------------------------

def entra(c):
    good = {"grant_type": "client_credentials", "client_id": "weir-client", "client_secret": "weir-secret",
            "scope": "https://management.azure.com/.default"}
    status, answer = c.token(good)
    check("token", status == 200 and answer["token_type"] == "Bearer" and answer["expires_in"] == 3600, answer)
    c.arm = answer["access_token"]
    scope = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"
    c.databricks = c.token({**good, "scope": scope})[1]["access_token"]
    check("tokens differ", c.arm != c.databricks and len(c.arm) > 1000)
    for change, status, error, code in (
            ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
            ({"client_id": "nobody"}, 400, "unauthorized_client", 700016),
            ({"scope": "https://management.azure.com/read"}, 400, "invalid_scope", 1002012),
            ({"scope": "https://nowhere.example/.default"}, 400, "invalid_resource", 500011),
            ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003)):
        got, answer = c.token({**good, **change})
        check(f"refused {change}", (got, answer["error"], answer["error_codes"]) == (status, error, [code]), answer)
    c.control("POST", "config", {"clients": {"odd": "a+b/c=~ &"}})
    check("secret with odd characters", c.token({**good, "client_id": "odd", "client_secret": "a+b/c=~ &"})[0] == 200)
    v1 = c.token({**good, "resource": "https://management.azure.com"}, version="")[1]
    check("v1 endpoint gives strings", v1["expires_in"] == "3600", v1)
    path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com"
    check("managed identity", c.call("GET", path, headers={"Metadata": "true"})[1].get("expires_on", "").isdigit())
    check("managed identity needs its header", c.call("GET", path)[1]["error"] == "bad_request_102")
    keep, c.arm = c.arm, c.databricks
    check("wrong audience", c.adf("GET", "pipelines")[1]["error"]["code"] == "InvalidAuthenticationTokenAudience")
    c.arm = "nonsense"
    check("invalid token", c.adf("GET", "pipelines")[0] == 401)
    c.control("POST", "config", {"token_lifetime": 0})
    c.arm = c.token(good)[1]["access_token"]
    check("expired token", c.adf("GET", "pipelines")[1]["error"]["code"] == "ExpiredAuthenticationToken")
    c.control("POST", "config", {"token_lifetime": 3600})
    c.arm = keep
    pat, c.databricks = c.databricks, "dapi-local"
    check("personal access token", c.dbx("GET", "list")[0] == 200)
    c.databricks = "dapi-wrong"
    check("wrong personal access token", c.dbx("GET", "list") == (403, {"error_code": 403, "message": "Invalid access token."}))
    c.databricks = pat
    basic = base64.b64encode(b"weir-client:weir-secret").decode()
    check("workspace OAuth", c.call("POST", "/dbx/oidc/v1/token", "grant_type=client_credentials&scope=all-apis",
                                    {"Authorization": f"Basic {basic}"})[1]["scope"] == "all-apis")


def adf(c):
    check("factory", c.call("GET", f"{FACTORY}?api-version=2018-06-01",
                            headers={"Authorization": f"Bearer {c.arm}"})[1]["name"] == "df")
    check("api-version required", c.adf("GET", "pipelines", query="")[1]["error"]["code"] == "MissingApiVersionParameter")
    status, answer = c.adf("POST", "pipelines/nothing/createRun", {})
    check("unknown pipeline", status == 404 and answer["error"]["code"] == "PipelineNotFound", answer)
    c.control("POST", "config", {"consistency_delay_ms": 4000})     # 200 ms at speed 20
    run_id = c.create_run("copy_flights", row_audit_id=77, weir_token="tok-77", list=[1, "a"])
    check("a new run is not seen at once", c.adf("GET", f"pipelineruns/{run_id}")[0] == 404)
    c.control("POST", "config", {"consistency_delay_ms": 0})
    until(lambda: c.adf("GET", f"pipelineruns/{run_id}")[0], lambda status: status == 200)
    run = c.adf_until(run_id, "Succeeded", "Failed")
    check("copy succeeded", run["status"] == "Succeeded", run)
    check("parameters are text", run["parameters"] == {"row_audit_id": "77", "weir_token": "tok-77", "list": '[1,"a"]'}, run)
    check("times", run["runEnd"] > run["runStart"] and run["durationInMs"] > 0, run)
    everything = {"lastUpdatedAfter": "2018-06-16T00:36:44.3345758Z", "lastUpdatedBefore": "2999-01-01T00:00:00Z"}
    activities = c.adf("POST", f"pipelineruns/{run_id}/queryActivityruns", everything)[1]["value"]
    output = activities[1]["output"]
    check("activities", [a["activityName"] for a in activities] == ["Lookup", "Copy"])
    check("copy counts", output["rowsRead"] == output["rowsCopied"] == ROWS and output["filesWritten"] == 1, output)
    landed = [f for f in c.control("GET", "lake")["files"] if "landing" in f["path"]]
    check("landed file", landed[0]["rows"] == ROWS and landed[0]["path"]
          == "landing/flights/row_audit_id=77/part-00000.csv" and landed[0]["bytes"] == output["dataWritten"], landed)
    limited = c.create_run("copy_flights", row_audit_id=78, limit=10)
    c.adf_until(limited, "Succeeded", "Failed")
    bad = c.adf_until(c.create_run("copy_flights", row_audit_id="../x"), "Failed", "Succeeded")
    check("a row_audit_id is a number", bad["status"] == "Failed" and "whole number" in bad["message"], bad)
    failing = c.adf_until(c.create_run("fail"), "Failed", "Succeeded")
    activities = c.adf("POST", f"pipelineruns/{failing['runId']}/queryActivityruns", everything)[1]["value"]
    check("fail", failing["status"] == "Failed" and activities[0]["error"]["errorCode"] == "2200", failing)
    waiting = c.create_run("wait", seconds=100000)
    c.adf_until(waiting, "InProgress")
    check("cancel", c.adf("POST", f"pipelineruns/{waiting}/cancel", query="isRecursive=true&api-version=2018-06-01")[0] == 200)
    check("cancelling", c.adf("GET", f"pipelineruns/{waiting}")[1]["status"] in ("Canceling", "Cancelled"))
    check("cancelled", c.adf_until(waiting, "Cancelled")["status"] == "Cancelled")
    check("cancel of a finished run", c.adf("POST", f"pipelineruns/{waiting}/cancel")[0] == 400)
    adf_queries(c, run_id, everything)
    status, again = c.adf("POST", "pipelines/fail/createRun", query="api-version=2018-06-01&isRecovery=true"
                          f"&referencePipelineRunId={failing['runId']}&startFromFailure=true")
    recovered = c.adf_until(again["runId"], "Failed")
    check("recovery", recovered["runGroupId"] == failing["runId"] and recovered["isLatest"]
          and not c.adf("GET", f"pipelineruns/{failing['runId']}")[1]["isLatest"], recovered)


def adf_queries(c, run_id, everything):
    check("the window is required", c.adf("POST", "queryPipelineRuns", {"lastUpdatedAfter": "2018-01-01"})[0] == 400)
    c.control("POST", "config", {"page_size": 2})
    body, found, pages = dict(everything, orderBy=[{"orderBy": "RunStart", "order": "DESC"}]), [], 0
    while True:
        answer = c.adf("POST", "queryPipelineRuns", body)[1]
        found += answer["value"]
        pages += 1
        if not answer.get("continuationToken"):
            break
        body["continuationToken"] = answer["continuationToken"]
    starts = [run["runStart"] for run in found]
    check("paged, ordered", len(found) == 5 and pages == 3 and starts == sorted(starts, reverse=True), (len(found), pages))
    c.control("POST", "config", {"page_size": 100})
    wanted = [{"operand": "PipelineName", "operator": "In", "values": ["copy_flights"]},
              {"operand": "Status", "operator": "Equals", "values": ["Succeeded"]}]
    found = c.adf("POST", "queryPipelineRuns", dict(everything, filters=wanted))[1]["value"]
    check("filters", len(found) == 2 and "tok-77" in [run["parameters"].get("weir_token") for run in found], found)
    check("other factories see nothing", c.call("GET", FACTORY.replace("/df", "/other") +
          f"/pipelineruns/{run_id}?api-version=2018-06-01", headers={"Authorization": f"Bearer {c.arm}"})[0] == 404)


def databricks(c, query):
    status, answer = c.dbx("POST", "run-now", {"job_id": 9})
    check("unknown job", status == 400 and answer == {"error_code": "INVALID_PARAMETER_VALUE",
                                                      "message": "Job 9 does not exist."}, answer)
    check("unknown run", c.dbx("GET", "runs/get?run_id=5")[1]["message"] == "Run 5 does not exist.")
    check("a long token", c.dbx("POST", "run-now", {"job_id": 102, "idempotency_token": "x" * 65})[0] == 400)
    check("parameters are strings", c.dbx("POST", "run-now", {"job_id": 101, "job_parameters": {"a": 1}})[0] == 400)
    run_id = c.run_now(101, "tok-1", row_audit_id="500", weir_token="w1")
    check("ids above 2^53", run_id > 2 ** 53)
    check("same token, same run", c.run_now(101, "tok-1", row_audit_id="500") == run_id)
    run = c.dbx_until(run_id, "TERMINATED")
    errors = {t["task_key"]: t for t in run["tasks"]}
    check("nothing landed", run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
          and run["state"]["result_state"] == "FAILED"
          and run["status"]["termination_details"]["code"] == "RUN_EXECUTION_ERROR", run["state"])
    check("downstream skipped", errors["load_flights"]["state"]["result_state"] == "UPSTREAM_FAILED")
    output = c.dbx("GET", f"runs/get-output?run_id={errors['clean_flights']['run_id']}")[1]
    check("readable error", "Path does not exist: landing/flights/row_audit_id=500" in output["error"]
          and "Traceback" in output["error_trace"], output)
    check("no output of a whole run", c.dbx("GET", f"runs/get-output?run_id={run_id}")[0] == 400)
    c.adf_until(c.create_run("copy_flights", row_audit_id=500), "Succeeded")
    status, repair = c.dbx("POST", "runs/repair", {"run_id": run_id, "rerun_all_failed_tasks": True})
    check("repair", status == 200 and repair["repair_id"] > 2 ** 53, repair)
    during = c.dbx("GET", f"runs/get?run_id={run_id}")[1]
    check("running again", during["status"]["state"] in ("PENDING", "RUNNING") and during["end_time"] == 0, during["status"])
    check("no repair meanwhile", c.dbx("POST", "runs/repair", {"run_id": run_id, "rerun_tasks": ["load_flights"],
                                       "latest_repair_id": repair["repair_id"]})[1]["error_code"] == "INVALID_STATE")
    run = c.dbx_until(run_id, "TERMINATED")
    check("repaired", run["state"]["result_state"] == "SUCCESS" and len(run["tasks"]) == 4, run["state"])
    check("history", [h["type"] for h in run["repair_history"]] == ["ORIGINAL", "REPAIR"]
          and run["repair_history"][1]["id"] == repair["repair_id"]
          and "id" not in run["repair_history"][0], run["repair_history"])
    newest = {t["task_key"]: t for t in run["tasks"]}
    result = json.loads(c.dbx("GET", f"runs/get-output?run_id={newest['load_flights']['run_id']}")[1]["notebook_output"]["result"])
    check("load counts", result == {"rows_deleted": 0, "rows_inserted": ROWS}, result)
    check("loaded", query("500") == ROWS, query("500"))
    stale = {"run_id": run_id, "rerun_tasks": ["load_flights"]}
    check("repair compares the last repair", c.dbx("POST", "runs/repair", stale)[0] == 400)
    stale["latest_repair_id"] = repair["repair_id"]
    check("second repair", c.dbx("POST", "runs/repair", stale)[0] == 200)
    c.dbx_until(run_id, "TERMINATED")
    check("loaded once", query("500") == ROWS, query("500"))
    databricks_states(c)


def databricks_states(c):
    missing = c.dbx_until(c.run_now(101), "TERMINATED")
    check("row_audit_id is required", missing["state"]["result_state"] == "FAILED")
    failing = c.dbx_until(c.run_now(103), "TERMINATED")
    check("a single failing task", failing["state"]["life_cycle_state"] == "TERMINATED"
          and failing["state"]["result_state"] == "FAILED", failing["state"])
    waiting = c.run_now(102, seconds="100000")
    c.dbx_until(waiting, "RUNNING")
    check("active list", [r["run_id"] for r in c.dbx("GET", "runs/list?active_only=true")[1]["runs"]] == [waiting])
    check("cancel", c.dbx("POST", "runs/cancel", {"run_id": waiting}) == (200, {}))
    run = c.dbx_until(waiting, "TERMINATED")
    check("cancelled", run["state"]["result_state"] == "CANCELED" and run["state"]["user_cancelled_or_timedout"]
          and run["status"]["termination_details"]["code"] == "USER_CANCELED", run["state"])
    check("no runs, no key", "runs" not in c.dbx("GET", "runs/list?active_only=true")[1])
    ids, token = [], ""
    while token is not None:
        answer = c.dbx("GET", f"runs/list?limit=1&page_token={token}")[1]
        ids += [r["run_id"] for r in answer["runs"]]
        token = answer.get("next_page_token")
    check("paged list, newest first", len(ids) == 4 and ids == sorted(ids, reverse=True), ids)
    c.control("POST", "jobs", {"job_id": 201, "max_concurrent_runs": 1, "timeout_seconds": 30, "tasks": [
        {"task_key": "a", "action": "wait", "seconds": 10}, {"task_key": "b", "action": "wait", "seconds": 99,
                                                             "depends_on": ["a"]}]})
    first = c.run_now(201)
    c.dbx_until(first, "RUNNING")
    skipped = c.dbx("GET", f"runs/get?run_id={c.run_now(201)}")[1]
    check("too many runs", skipped["state"]["result_state"] == "MAXIMUM_CONCURRENT_RUNS_REACHED", skipped["state"])
    queued = c.dbx("POST", "run-now", {"job_id": 201, "queue": {"enabled": True}})[1]["run_id"]
    check("queued", c.dbx("GET", f"runs/get?run_id={queued}")[1]["status"]["state"] == "QUEUED")
    run = c.dbx_until(first, "TERMINATED")
    check("timed out", run["state"]["result_state"] == "TIMEDOUT", run["state"])
    check("queue moves on", c.dbx_until(queued, "RUNNING")["status"]["state"] == "RUNNING")
    many = [{"task_key": f"t{i}", "action": "wait", "seconds": 0} for i in range(250)]
    c.control("POST", "jobs", {"job_id": 202, "tasks": many})
    big, tasks, page = c.run_now(202), [], ""
    while page is not None:
        answer = c.dbx("GET", f"runs/get?run_id={big}&page_token={page}")[1]
        tasks += answer["tasks"]
        page = answer.get("next_page_token")
    check("tasks are paged", len({t["task_key"] for t in tasks}) == 250)


def faults(c, query):
    def fault(**spec):
        return c.control("POST", "faults", spec)

    def create():
        return c.adf("POST", "pipelines/wait/createRun", {"weir_token": "f"})

    def counts():
        return c.control("GET", "counts?operation=adf.createRun").get("adf.createRun", {"requests": 0, "started": 0})

    fault(operation="adf.createRun", status=429, retry_after=7)
    status, answer = create()
    check("429", status == 429 and c.headers["retry-after"] == "7" and "error" in answer and counts()["started"] == 0)
    fault(operation="adf.*", status=503, retry_after_date=60)
    create()
    check("503 with a date", c.headers["retry-after"].endswith("GMT"))
    fault(operation="adf.createRun", fault="reset_before")
    check("reset before", lost(create) and counts()["started"] == 0)
    fault(operation="adf.createRun", fault="reset_after")
    check("reset after", lost(create) and counts()["started"] == 1)
    fault(operation="adf.createRun", fault="half_body")
    check("half a body", lost(create) and counts() == {"requests": 5, "started": 2}, counts())
    fault(operation="adf.createRun", fault="html")
    check("HTML", create()[0] == 502 and c.raw.startswith(b"<html>"))
    fault(operation="adf.createRun", fault="not_json")
    check("not JSON", isinstance(create()[1], bytes))
    fault(operation="adf.createRun", fault="huge", mb=3)
    create()
    check("huge", len(c.raw) > 3 << 20)
    fault(operation="adf.createRun", fault="huge", mb=1, chunked=True)
    create()
    check("huge in chunks", len(c.raw) > 1 << 20)
    fault(operation="adf.createRun", fault="slow_drip", drip_ms=1)
    check("drip", "runId" in create()[1])
    fault(operation="adf.createRun", delay_ms=300)
    began = time.monotonic()
    create()
    check("delay", time.monotonic() - began > 0.29)
    fault(operation="adf.createRun", fault="hold")
    began = counts()["started"]
    held = threading.Thread(target=create)
    held.start()
    c.control("GET", "wait?operation=adf.createRun&fault=hold")
    check("a held request has begun nothing", counts()["started"] == began, counts())
    number = next(f["id"] for f in c.control("GET", "faults")["faults"] if f["fault"] == "hold")
    c.control("DELETE", f"faults/{number}")
    held.join()
    check("released, it is carried out", counts()["started"] == began + 1, counts())
    fault(operation="databricks.run-now", status=500, times=2, after=1, job_id=102)
    statuses = [c.dbx("POST", "run-now", {"job_id": job})[0] for job in (103, 102, 102, 102, 102)]
    check("after, times and selectors", statuses == [200, 200, 500, 500, 200], statuses)
    check("unknown fields are refused", "error" in fault(operation="x", fault="status", status=500, tims=1))
    # a number of its own: runs of the checks before this one may not have looked at their faults yet
    fault(fault="never_ends", pipeline="wait", row_audit_id=899)
    run_id = c.create_run("wait", seconds=0, row_audit_id=899)
    c.adf_until(run_id, "InProgress")
    c.adf("POST", f"pipelineruns/{run_id}/cancel")
    check("never ends, but cancels", c.adf_until(run_id, "Cancelled")["status"] == "Cancelled")
    fault(fault="copy_fails", errorCode="2200", message="the source went away", after_rows=5)
    run = c.adf_until(c.create_run("copy_flights", row_audit_id=900), "Failed", "Succeeded")
    check("copy fails", run["message"] == "Operation on target Copy failed: the source went away", run)
    check("partial landing", c.control("GET", "lake")["files"][0]["rows"] == 5, c.control("GET", "lake"))
    c.adf_until(c.create_run("copy_flights", row_audit_id=900), "Succeeded")
    fault(fault="task_fails", job_id=101, task_key="load_flights", message="executor lost", after_rows=1000)
    run_id = c.run_now(101, row_audit_id="900")
    run = c.dbx_until(run_id, "TERMINATED")
    check("half a load", run["state"]["result_state"] == "FAILED" and query("900") == 1000, query("900"))
    c.dbx("POST", "runs/repair", {"run_id": run_id, "rerun_all_failed_tasks": True})
    run = c.dbx_until(run_id, "TERMINATED")
    check("only the failed task is repaired", [t["task_key"] for t in run["tasks"]]
          == ["clean_flights", "load_flights", "load_flights"])
    check("mended", run["state"]["result_state"] == "SUCCESS" and query("900") == ROWS, query("900"))
    listed = c.control("GET", "faults")["faults"]
    check("faults tell what they did", all(f["struck"] == f.get("times", 1) for f in listed), listed)
    c.control("DELETE", "faults")
    check("faults cleared", c.control("GET", "faults") == {"faults": []})


def generic(c):
    check("status", c.call("GET", "/http/status/418")[0] == 418)
    check("no content", c.call("POST", "/http/status/204", {"a": 1}) == (204, None))
    status, answer = c.call("POST", "/http/json?x=1", {"a": 1}, {"Idempotency-Key": "k1"})
    again = c.call("POST", "/http/json?x=2", {"a": 2}, {"Idempotency-Key": "k1"})[1]
    check("json", answer["json"] == {"a": 1} and answer["query"] == {"x": "1"}, answer)
    check("a key repeats the answer", again == answer)
    check("counted once", c.control("GET", "counts")["http.json"] == {"requests": 2, "started": 1})
    check("echo is not counted", c.call("GET", "/_cloud/echo")[0] == 200 and "echo" not in str(c.control("GET", "counts")))
    body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (b'{"a":', b"[1,2]}")) + b"0\r\n\r\n"
    answer = c.call("POST", "/http/json", body, {"Transfer-Encoding": "chunked"})[1]
    check("chunked request", answer["json"] == {"a": [1, 2]}, answer)
    check("body too large", c.call("POST", "/http/json", b"", {"Content-Length": str(1 << 30)})[0] == 413)
    check("nothing there", c.call("GET", "/nothing")[0] == 404)


def ledger(c):
    c.run_now(102, "tok-l", weir_token="w-l", seconds="0")
    c.run_now(102, "tok-l", weir_token="w-l", seconds="0")
    entries = c.control("GET", "ledger?operation=databricks.run-now&idempotency_token=tok-l")
    check("started once", [e["started"] for e in entries] == [True, False], entries)
    check("what was asked", entries[0]["weir_token"] == "w-l" and entries[0]["job_id"] == "102"
          and entries[0]["run_id"] == entries[1]["run_id"] and entries[0]["status"] == 200, entries)
    check("filters", len(c.control("GET", "ledger?operation=databricks.*&started=true")) == 1)
    check("since", c.control("GET", f"ledger?since={entries[1]['seq']}") == [])
    check("wait returns what is there", len(c.control("GET", "wait?operation=databricks.run-now&count=2")) == 2)
    check("wait gives up", c.control("GET", "wait?operation=adf.createRun&timeout_ms=50") == [])
    check("no secrets", "weir-secret" not in json.dumps(c.control("GET", "ledger")))
    c.control("POST", "reset")
    check("reset", c.control("GET", "ledger") == [] and c.control("GET", "runs") == {"adf": [], "databricks": [], "fabric": []}
          and c.control("GET", "lake")["files"] == [])


async def crowd(c, number):
    """number requests of 300 ms at once, then another on each connection."""
    async def one():
        reader, writer = await asyncio.open_connection(c.host, int(c.port))
        for _ in range(2):
            writer.write(b"GET /http/delay/300 HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            await reader.readexactly(length)
        writer.close()
        return head.startswith(b"HTTP/1.1 200")
    return sum(await asyncio.gather(*(one() for _ in range(number))))


def everything(c, query):
    for group, needs in ((entra, ()), (adf, ()), (databricks, (query,)), (faults, (query,)), (generic, ()),
                         (ledger, ()), (selfcheck_services.fabric, (check,)), (selfcheck_services.queues, (check,)),
                         (selfcheck_services.services, (check,)), (selfcheck_neon.neon, (check,))):
        c.control("POST", "reset")
        group(c, *needs)
    began = time.monotonic()
    answered = asyncio.run(crowd(c, 900))
    took = time.monotonic() - began
    check("900 at once", answered == 900 and took < 10, (answered, took))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database")
    parser.add_argument("--psql", default="psql")
    arguments = parser.parse_args()

    def psql(*options):
        return subprocess.run([arguments.psql, "-XqtA", "-v", "ON_ERROR_STOP=1", "-d", arguments.database, *options],
                              check=True, capture_output=True, text=True).stdout

    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        address = directory / "address"
        command = [sys.executable, str(HERE / "cloud.py"), "--dir", str(directory / "cloud"), "--speed", "20",
                   "--address-file", str(address), "--psql", arguments.psql]
        if arguments.database:
            psql("-f", str(HERE / "staging.sql"))
            command += ["--database", arguments.database]

        def query(row_audit_id):
            if arguments.database:
                return int(psql("-c", f"SELECT count(*) FROM staging.flights WHERE row_audit_id = {row_audit_id}"))
            file = directory / f"cloud/lake/warehouse/flights/row_audit_id={row_audit_id}/part-00000.csv"
            return file.read_bytes().count(b"\n") - 1

        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until(lambda: process.poll() is None and not address.exists(), lambda waiting: not waiting)
            everything(Client(address.read_text()), query)
        finally:
            process.terminate()
            status = process.wait(timeout=10)
        check("ends cleanly", status == 0, status)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
