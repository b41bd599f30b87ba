"""The ledger: one entry for every request that reached a service.

An entry is opened when the request arrives and completed when its answer is decided,
whether or not that answer is ever delivered.  So a test can ask "how many runs were
really started?" and get an answer no client-side bookkeeping can spoil.  All ids are
strings here, whatever type they have on the wire.
"""

import asyncio
import collections
import fnmatch
import time

KEEP = 100_000              # entries; the counts below never forget

# What a request can be recognised by.  Services put these into the entry, faults select on them.
FACTS = ("pipeline", "activity", "job_id", "task_key", "run_id", "repair_id", "idempotency_token",
         "weir_token", "row_audit_id", "client_id", "scope", "method", "path",
         "statement_id", "warehouse_id", "pipeline_id", "update_id", "endpoint", "caller",
         "project_id", "branch_id", "endpoint_id", "action")


class Ledger:
    def __init__(self):
        self.entries = collections.deque(maxlen=KEEP)
        self.totals = {}
        self.seq = 0

    def open(self, service, operation, request, facts):
        self.seq += 1
        entry = {"seq": self.seq, "time": time.time(), "service": service,
                 "operation": operation, "method": request.method, "path": request.path,
                 "connection": request.connection, "status": None, "answered": False,
                 "started": False, "fault": None}
        entry.update(facts)
        self.entries.append(entry)
        self.totals.setdefault(operation, {"requests": 0, "started": 0})["requests"] += 1
        return entry

    def mark_started(self, entry):
        """The request began new work: a run, a repair, an effect that did not exist before."""
        if not entry["started"]:
            entry["started"] = True
            self.totals[entry["operation"]]["started"] += 1

    def clear(self):
        self.entries.clear()
        self.totals.clear()         # seq goes on, so "since" stays meaningful

    def select(self, wanted):
        """Entries matching the query: operation (glob), since (seq), started, any other field."""
        wanted = dict(wanted)
        for name in ("limit", "count", "timeout_ms"):
            wanted.pop(name, None)
        operation = wanted.pop("operation", "*")
        since = int(wanted.pop("since", 0))
        return [entry for entry in self.entries
                if entry["seq"] > since
                and fnmatch.fnmatchcase(entry["operation"], operation)
                and all(as_text(entry.get(name)) == value for name, value in wanted.items())]

    def counts(self, wanted):
        if not wanted:
            return self.totals
        counts = {}
        for entry in self.select(wanted):
            line = counts.setdefault(entry["operation"], {"requests": 0, "started": 0})
            line["requests"] += 1
            line["started"] += entry["started"]
        return counts

    async def wait(self, wanted):
        """Until at least `count` entries match, or `timeout_ms` have passed. Returns the entries."""
        count = int(wanted.get("count", 1))
        deadline = time.monotonic() + int(wanted.get("timeout_ms", 10_000)) / 1000
        while True:
            found = self.select(wanted)
            if len(found) >= count or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(0.01)


def as_text(value):
    if value is True or value is False:
        return "true" if value else "false"
    return "" if value is None else str(value)
