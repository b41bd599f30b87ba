"""A client of the local cloud for tests written in Python: one call per request, and waiting for states.

    c = Client(address)
    c.sign_in()
    run_id = c.create_run("copy_flights", row_audit_id=7)
    c.adf_until(run_id, "Succeeded", "Failed")
"""

import http.client
import json
import time
import urllib.parse

FACTORY = "/adf/subscriptions/s1/resourceGroups/rg/providers/Microsoft.DataFactory/factories/df"


class Client:
    """One answer per call on a new connection; .headers and .raw of the last one are kept."""

    def __init__(self, address):
        self.host, self.port = address.removeprefix("http://").split(":")
        self.headers = {}
        self.raw = b""
        self.arm = self.databricks = None       # tokens, set by sign_in()

    def call(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            self.raw = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(self.raw) if self.raw else None
        except ValueError:
            return answer.status, self.raw

    def token(self, form, tenant="t1", version="/v2.0"):
        return self.call("POST", f"/{tenant}/oauth2{version}/token", urllib.parse.urlencode(form),
                         {"Content-Type": "application/x-www-form-urlencoded"})

    def sign_in(self):
        good = {"grant_type": "client_credentials", "client_id": "weir-client", "client_secret": "weir-secret"}
        self.arm = self.token({**good, "scope": "https://management.azure.com/.default"})[1]["access_token"]
        self.databricks = self.token({**good, "scope": "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"})[1]["access_token"]

    def adf(self, method, path, body=None, query="api-version=2018-06-01"):
        return self.call(method, f"{FACTORY}/{path}?{query}", body, {"Authorization": f"Bearer {self.arm}"})

    def dbx(self, method, path, body=None):
        return self.call(method, f"/dbx/api/2.2/jobs/{path}", body,
                         {"Authorization": f"Bearer {self.databricks}"})

    def control(self, method, path, body=None):
        return self.call(method, f"/_cloud/{path}", body)[1]

    def create_run(self, pipeline, **parameters):
        return self.adf("POST", f"pipelines/{pipeline}/createRun", parameters)[1]["runId"]

    def run_now(self, job_id, token=None, **parameters):
        body = {"job_id": job_id, "job_parameters": parameters}
        if token:
            body["idempotency_token"] = token
        return self.dbx("POST", "run-now", body)[1]["run_id"]

    def adf_until(self, run_id, *statuses):
        return until(lambda: self.adf("GET", f"pipelineruns/{run_id}")[1],
                     lambda run: run.get("status") in statuses)

    def dbx_until(self, run_id, *states):
        return until(lambda: self.dbx("GET", f"runs/get?run_id={run_id}&include_history=true")[1],
                     lambda run: run["status"]["state"] in states)


def until(read, satisfied, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if satisfied(value) or time.monotonic() > deadline:
            return value
        time.sleep(0.01)


def lost(action):
    """True when the connection breaks instead of answering."""
    try:
        action()
    except (ConnectionError, http.client.HTTPException):
        return True
    return False
