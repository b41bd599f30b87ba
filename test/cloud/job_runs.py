"""Databricks jobs and their runs: what happens after run-now or repair has answered.

    QUEUED -> PENDING -> RUNNING -> TERMINATING -> TERMINATED        (a run, and each of its tasks;
    BLOCKED: a task waiting for another                               INTERNAL_ERROR: a run whose task failed)

Each run (and each repair of it) is driven by one asyncio task with one child per job task.
A repair leaves the run its id, makes new task runs and takes the run out of its terminal
state again.  All ids come from one counter that starts above 2**53.
"""

import asyncio
import copy
import itertools
import json
import time

from lake import LakeError

FIRST_ID = 9_007_199_254_740_993
TERMINAL = {"TERMINATED", "SKIPPED", "INTERNAL_ERROR"}
NEW_STATE = {"SKIPPED": "TERMINATED", "INTERNAL_ERROR": "TERMINATED", "WAITING_FOR_RETRY": "WAITING"}
# result_state -> code and type of status.termination_details
TERMINATION = {"SUCCESS": ("SUCCESS", "SUCCESS"), "FAILED": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
               "CANCELED": ("USER_CANCELED", "SUCCESS"), "TIMEDOUT": ("CANCELED", "CLIENT_ERROR"),
               "UPSTREAM_FAILED": ("SKIPPED", "CLIENT_ERROR"), "UPSTREAM_CANCELED": ("SKIPPED", "CLIENT_ERROR"),
               "EXCLUDED": ("SKIPPED", "SUCCESS"),
               "MAXIMUM_CONCURRENT_RUNS_REACHED": ("MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR")}
FAILED_WORKLOAD = "Workload failed, see run output for details"

JOBS = [
    {"job_id": 101, "name": "transform_flights", "parameters": {"row_audit_id": ""}, "tasks": [
        {"task_key": "clean_flights", "action": "clean_flights", "seconds": 1.0},
        {"task_key": "load_flights", "action": "load_flights", "seconds": 1.0,
         "depends_on": ["clean_flights"]}]},
    {"job_id": 102, "name": "wait", "parameters": {"seconds": "1"},
     "tasks": [{"task_key": "wait", "action": "wait"}]},
    {"job_id": 103, "name": "fail", "tasks": [
        {"task_key": "fail", "action": "fail", "seconds": 0.3,
         "message": "ValueError: this notebook always fails"}]},
    {"job_id": 104, "name": "answer", "parameters": {"day": ""}, "tasks": [
        {"task_key": "look", "action": "echo", "seconds": 0.1},
        {"task_key": "count", "action": "echo", "seconds": 0.1, "result": {"rows": 5}, "depends_on": ["look"]}]},
]
ACTIONS = ("clean_flights", "load_flights", "wait", "fail", "echo", "text")


class Job:
    one_time = False            # of a submitted run, see one_time.py

    def __init__(self, spec):
        """ValueError when spec is not a job we can run."""
        if not isinstance(spec, dict) or not isinstance(spec.get("job_id"), int):
            raise ValueError("a job needs an integer job_id")
        self.job_id = spec["job_id"]
        self.name = spec.get("name", f"job {self.job_id}")
        self.parameters = {name: str(value) for name, value in spec.get("parameters", {}).items()}
        self.timeout = spec.get("timeout_seconds", 0)
        self.limit = spec.get("max_concurrent_runs", 100_000)
        self.slots = asyncio.Semaphore(self.limit)
        self.created = now()
        self.tasks = {}
        for task in spec.get("tasks") or []:
            key = task.get("task_key")
            if not isinstance(key, str) or key in self.tasks or task.get("action") not in ACTIONS:
                raise ValueError(f"a task needs a distinct task_key and an action out of {', '.join(ACTIONS)}")
            upstream = task.get("depends_on", [])
            if any(other not in self.tasks for other in upstream):
                raise ValueError(f"task {key!r} depends on a task that does not come before it")
            self.tasks[key] = task
        if not self.tasks:
            raise ValueError("a job needs tasks")

    def describe(self):
        return {"job_id": self.job_id, "creator_user_name": "weir@example.com", "created_time": self.created,
                "settings": {"name": self.name, "format": "MULTI_TASK", "timeout_seconds": self.timeout,
                             "max_concurrent_runs": self.limit,
                             "parameters": [{"name": name, "default": value}
                                            for name, value in self.parameters.items()],
                             "tasks": [{"task_key": key, "depends_on": dependencies(task),
                                        "notebook_task": {"notebook_path": f"/Shared/{key}"}}
                                       for key, task in self.tasks.items()]}}


class Stateful:
    """What runs, task runs and repairs have in common."""

    def __init__(self):
        self.life = "PENDING"
        self.result = None
        self.message = ""
        self.start = now()
        self.end = 0

    @property
    def terminal(self):
        return self.life in TERMINAL

    def enter(self, life, result=None, message=""):
        self.life, self.result, self.message = life, result, message
        self.end = now() if life in TERMINAL else 0

    def state(self):
        old = {"life_cycle_state": self.life, "state_message": self.message,
               "user_cancelled_or_timedout": self.result in ("CANCELED", "TIMEDOUT")}
        if self.result and self.terminal:
            old["result_state"] = self.result
        if self.life == "QUEUED":
            old["queue_reason"] = "Queued due to reaching maximum concurrent runs of 1."
        new = {"state": NEW_STATE.get(self.life, self.life)}
        if self.result:
            code, kind = TERMINATION[self.result]
            new["termination_details"] = {"code": code, "type": kind, "message": self.message}
        if self.life == "QUEUED":
            new["queue_details"] = {"code": "MAX_CONCURRENT_RUNS_REACHED", "message": old["queue_reason"]}
        return {"state": old, "status": new}


class TaskRun(Stateful):
    def __init__(self, run, task, run_id, attempt):
        super().__init__()
        self.run, self.task, self.run_id, self.attempt = run, task, run_id, attempt
        self.key = task["task_key"]
        self.life = "BLOCKED" if task.get("depends_on") else "PENDING"
        self.output = None          # what the notebook returned
        self.partial = None         # what a failed one had done before it failed
        self.error = None
        self.trace = None


class Repair(Stateful):
    """One entry of repair_history; the first is the original run and has no id."""

    def __init__(self, repair_id, task_runs):
        super().__init__()
        self.repair_id, self.task_runs = repair_id, task_runs


class JobRun(Stateful):
    def __init__(self, job, run_id, parameters, token):
        super().__init__()
        self.job, self.run_id, self.token = job, run_id, token
        self.overriding = parameters
        self.parameters = {**job.parameters, **parameters}
        self.task_runs = []
        self.history = []
        self.driver = None
        self.stopping = False

    def latest(self, key):
        """The newest task run of a task."""
        return next(one for one in reversed(self.task_runs) if one.key == key)

    def facts(self):
        return {"job_id": str(self.job.job_id), "run_id": str(self.run_id), "idempotency_token": self.token,
                "row_audit_id": self.parameters.get("row_audit_id"),
                "weir_token": self.parameters.get("weir_token")}


class JobRuns:
    def __init__(self, settings, lake, faults):
        self.settings, self.lake, self.faults = settings, lake, faults
        self.ids = itertools.count(FIRST_ID)
        self.jobs = {spec["job_id"]: Job(spec) for spec in copy.deepcopy(JOBS)}
        self.runs = {}
        self.task_runs = {}
        self.tokens = {}
        self.background = set()

    def count_from(self, first):
        """Ids of runs go on from here: for clients that cannot hold those above 2^53."""
        self.ids = itertools.count(first)

    def define(self, spec):
        job = Job(spec)
        self.jobs[job.job_id] = job

    def start(self, job, parameters, token=None, only=None, queue=False):
        run = JobRun(job, next(self.ids), parameters, token)
        self.runs[run.run_id] = run
        if token:
            self.tokens[token] = run
        keys = [key for key in job.tasks if not only or key in only]
        batch = self._new_task_runs(run, job.tasks)
        for one in batch:
            if one.key not in keys:
                one.enter("SKIPPED", "EXCLUDED", "The task was not selected to run.")
        run.history.append(Repair(None, batch))
        if job.slots.locked() and not queue:
            text = "An active run for the same job already exists and the maximum of concurrent runs is reached."
            for one in batch:
                one.enter("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED", text)
            run.enter("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED", text)
            run.history[-1].enter(run.life, run.result, run.message)
            return run
        if job.slots.locked():
            run.life = "QUEUED"
        run.driver = self._keep(self._drive(run, [one for one in batch if one.key in keys]))
        return run

    def repair(self, run, keys, parameters):
        """Run the named tasks of a finished run again. Returns the repair's id."""
        run.overriding = {**run.overriding, **parameters}
        run.parameters.update(parameters)
        batch = self._new_task_runs(run, keys)
        repair = Repair(next(self.ids), batch)
        run.history.append(repair)
        run.stopping = False
        run.enter("PENDING")
        run.driver = self._keep(self._drive(run, batch))
        return repair.repair_id

    def cancel(self, run, result="CANCELED", message="Run cancelled."):
        """Asynchronous, and nothing for a run that is over or being stopped."""
        if run.terminal or run.stopping:
            return
        run.stopping = True
        run.enter("TERMINATING", result, message)
        self._keep(self._stop(run, result, message))

    async def stop(self):
        """Forget every run; nothing of them goes on afterwards."""
        tasks = list(self.background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.runs.clear()
        self.task_runs.clear()
        self.tokens.clear()

    # -- the life of a run -----------------------------------------------------

    def _keep(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    def _new_task_runs(self, run, keys):
        batch = []
        for key in run.job.tasks:
            if key in keys:
                attempt = sum(one.key == key for one in run.task_runs)
                one = TaskRun(run, run.job.tasks[key], next(self.ids), attempt)
                self.task_runs[one.run_id] = one
                run.task_runs.append(one)
                batch.append(one)
        return batch

    async def _stop(self, run, result, message):
        for one in run.task_runs:
            if one.life in ("PENDING", "RUNNING"):
                one.enter("TERMINATING", result, message)
        run.driver.cancel()
        await asyncio.wait([run.driver])
        await self.settings.pause(0.2)
        for one in run.task_runs:
            if not one.terminal:
                one.enter("TERMINATED", result, message)
        self._finish(run, "TERMINATED", result, message)

    def _finish(self, run, life, result, message):
        run.enter(life, result, message)
        run.history[-1].enter(life, result, message)

    async def _drive(self, run, batch):
        async with run.job.slots:
            run.enter("PENDING")
            await self.settings.pause(0.1)
            run.enter("RUNNING")
            run.history[-1].life = "RUNNING"
            children = {}
            for one in batch:
                children[one.key] = asyncio.create_task(self._task(run, one, dict(children)))
            try:
                limit = self.settings.scaled(run.job.timeout) if run.job.timeout else None
                _, late = await asyncio.wait(children.values(), timeout=limit)
            finally:
                for child in children.values():
                    child.cancel()
                await asyncio.gather(*children.values(), return_exceptions=True)
            if late:
                self.cancel(run, "TIMEDOUT", f"Run exceeded the timeout of {run.job.timeout} seconds.")
                return
            await self._end(run)

    async def _end(self, run):
        latest = [run.latest(key) for key in run.job.tasks]
        failed = [one for one in latest if one.result == "FAILED"]
        if failed:
            message = (f"Task {failed[0].key} failed with message: {failed[0].message}. "
                       "This caused all downstream tasks to get skipped.")
            # a run of several tasks ends as INTERNAL_ERROR in the old field, of one as TERMINATED
            life = "INTERNAL_ERROR" if len(latest) > 1 else "TERMINATED"
            outcome = (life, "FAILED", message)
        elif any(one.result in ("CANCELED", "UPSTREAM_CANCELED") for one in latest):
            outcome = ("TERMINATED", "CANCELED", "Run cancelled.")
        else:
            outcome = ("TERMINATED", "SUCCESS", "")
        run.enter("TERMINATING", *outcome[1:])
        await self.settings.pause(0.1)
        self._finish(run, *outcome)

    async def _task(self, run, one, before):
        upstream = one.task.get("depends_on", [])
        waiting = [before[key] for key in upstream if key in before]
        if waiting:
            await asyncio.wait(waiting)
        for key in upstream:
            other = run.latest(key).result
            if other not in ("SUCCESS", "EXCLUDED"):
                kind = "UPSTREAM_CANCELED" if other in ("CANCELED", "UPSTREAM_CANCELED") else "UPSTREAM_FAILED"
                one.enter("SKIPPED", kind, "An upstream task failed." if kind == "UPSTREAM_FAILED"
                          else "An upstream task was canceled.")
                return
        one.start = now()
        one.enter("PENDING")
        await self.settings.pause(0.2)
        one.enter("RUNNING")
        try:
            one.output = await self._work(run, one)
            outcome = ("SUCCESS", "")
        except Exception as error:
            one.error = str(error) if isinstance(error, LakeError) else f"Internal error: {error!r}"
            one.partial = getattr(error, "partial", None)
            one.trace = ("Traceback (most recent call last):\n"
                         f"  File \"/Workspace/Shared/{one.key}\", line 7, in <module>\n"
                         f"    {one.task['action']}(dbutils.widgets)\n{one.error}")
            outcome = ("FAILED", FAILED_WORKLOAD)
        one.enter("TERMINATING", *outcome)
        await self.settings.pause(0.1)
        one.enter("TERMINATED", *outcome)

    async def _work(self, run, one):
        facts = {**run.facts(), "task_key": one.key}
        if self.faults.for_work({"never_ends"}, facts):
            await asyncio.Event().wait()
        fault = self.faults.for_work({"task_fails"}, facts)
        seconds, action = one.task.get("seconds", 1.0), one.task["action"]
        if action == "wait":
            seconds = whole_seconds(run.parameters.get("seconds", seconds))
        await self.settings.pause(seconds if fault is None else seconds / 2)
        message = fault.spec.get("message", "Py4JJavaError: the executor was lost") if fault else None
        rows = fault.spec.get("after_rows") if fault else None
        if fault and (rows is None or action not in ("clean_flights", "load_flights")):
            raise LakeError(message)
        if action == "fail":
            raise LakeError(one.task.get("message", "ValueError: failed on demand"))
        if action == "wait":
            return {"slept": seconds}
        if action == "echo":
            return one.task.get("result", dict(run.parameters))
        if action == "text":
            return one.task.get("text", "all is well")
        step = self.lake.clean if action == "clean_flights" else self.lake.load
        try:
            return await step(run.parameters.get("row_audit_id"), rows)
        except LakeError as error:
            if fault and error.partial:
                raise LakeError(f"{message} (after {rows} rows)", error.partial) from None
            raise


def whole_seconds(value):
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise LakeError("ValueError: the parameter seconds must be a number")
    return seconds


def dependencies(task):
    return [{"task_key": key} for key in task.get("depends_on", [])]


def notebook_result(output):
    return output if output is None or isinstance(output, str) else json.dumps(output, separators=(",", ":"))


def now():
    return int(time.time() * 1000)
