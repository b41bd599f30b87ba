"""/_cloud: how tests steer the cloud and look into it. Nothing here is in the ledger."""

import json
import re

from server import Response, json_response


class Control:
    def __init__(self, cloud):
        self.cloud = cloud

    async def handle(self, request, path):
        key = (request.method, re.sub(r"/[0-9]+$", "/N", path))
        handler = getattr(self, HANDLERS.get(key, "unknown"))
        try:
            answer = await handler(request, path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return json_response(400, {"error": str(error) or type(error).__name__})
        return answer if isinstance(answer, Response) else json_response(200, answer)

    async def unknown(self, request, path):
        return json_response(404, {"error": f"no such control: {request.method} {path}"})

    async def echo(self, request, path):
        return {"ok": True, "method": request.method, "body": request.body.decode("utf-8", "replace")}

    async def ledger(self, request, path):
        found = self.cloud.ledger.select(request.query)
        limit = int(request.query.get("limit", len(found)))
        return found[-limit:] if limit else []

    async def counts(self, request, path):
        return self.cloud.ledger.counts(request.query)

    async def wait(self, request, path):
        return await self.cloud.ledger.wait(request.query)

    async def list_faults(self, request, path):
        return {"faults": [fault.describe() for fault in self.cloud.faults.list]}

    async def add_faults(self, request, path):
        return {"faults": [fault.describe() for fault in self.cloud.faults.add(request.json())]}

    async def clear_faults(self, request, path):
        self.cloud.faults.clear()
        return {}

    async def remove_fault(self, request, path):
        self.cloud.faults.remove(int(path.rsplit("/", 1)[1]))
        return {}

    async def reset(self, request, path):
        """Runs, ledger, faults and lake are gone. Tokens, settings, jobs and pipelines stay."""
        cloud = self.cloud
        cloud.faults.clear()
        await cloud.pipeline_runs.stop()
        await cloud.databricks.stop()
        await cloud.fabric.stop()
        await cloud.services.stop()
        await cloud.neon.stop()
        cloud.queues.queues.clear()
        cloud.lake.clear()
        cloud.generic.answers.clear()
        cloud.ledger.clear()
        return {}

    async def get_config(self, request, path):
        return self.cloud.settings.describe()

    async def set_config(self, request, path):
        wanted = request.json()
        self.cloud.settings.change(wanted)
        if wanted.get("revoke_tokens"):
            self.cloud.entra.revoke_all()
        if "first_run_id" in wanted:
            self.cloud.job_runs.count_from(int(wanted["first_run_id"]))
        return self.cloud.settings.describe()

    async def add_job(self, request, path):
        self.cloud.job_runs.define(request.json())
        return {}

    async def add_notebook(self, request, path):
        self.cloud.databricks.define_notebook(request.json())
        return {}

    async def add_declarative_pipeline(self, request, path):
        self.cloud.databricks.pipelines.define(request.json())
        return {}

    async def updates(self, request, path):
        """Every update of every declarative pipeline, oldest first."""
        return {name: [one.describe() for one in pipeline.updates]
                for name, pipeline in self.cloud.databricks.pipelines.pipelines.items()}

    async def add_pipeline(self, request, path):
        self.cloud.pipeline_runs.define(request.json())
        return {}

    async def lake(self, request, path):
        return {"directory": str(self.cloud.settings.lake), "files": self.cloud.lake.files()}

    async def runs(self, request, path):
        """Every run with its state, and its tasks or activities; ids are strings."""
        adf = [{**run.facts(), "status": run.status, "message": run.message, "parameters": run.parameters,
                "activities": [{"activity": one.name, "status": one.status, "error": one.error["message"]}
                               for one in run.activities]}
               for run in self.cloud.pipeline_runs.runs.values()]
        databricks = [{**run.facts(), "life_cycle_state": run.life, "result_state": run.result,
                       "message": run.message, "parameters": run.parameters, "repairs": len(run.history) - 1,
                       "tasks": [{"task_key": one.key, "run_id": str(one.run_id), "attempt": one.attempt,
                                  "life_cycle_state": one.life, "result_state": one.result,
                                  "error": one.error, "output": one.output, "partial": one.partial,
                                  **{name: one.task[name] for name in ("submitted",) if name in one.task}}
                                 for one in run.task_runs]}
                      for run in self.cloud.job_runs.runs.values()]
        return {"adf": adf, "databricks": databricks, "fabric": self.cloud.fabric.describe()}

    async def get_neon(self, request, path):
        """Every project, with its branches, whose data they show (line), computes and operations."""
        return self.cloud.neon.describe()

    async def get_queues(self, request, path):
        return self.cloud.queues.describe()

    async def put_message(self, request, path):
        """{"queue", "text" or "json", "encoded", "create"}: a message from somewhere else; create: none, the queue only."""
        wanted = request.json()
        if wanted.get("create"):
            self.cloud.queues.queues.setdefault(wanted["queue"], [])
            return {}
        text = wanted["text"] if "text" in wanted else json.dumps(wanted["json"])
        return {"id": self.cloud.queues.put(wanted["queue"], text, bool(wanted.get("encoded"))).id}


HANDLERS = {("GET", "/_cloud/echo"): "echo", ("POST", "/_cloud/echo"): "echo",
            ("GET", "/_cloud/ledger"): "ledger", ("GET", "/_cloud/counts"): "counts",
            ("GET", "/_cloud/wait"): "wait", ("GET", "/_cloud/runs"): "runs", ("GET", "/_cloud/lake"): "lake",
            ("GET", "/_cloud/faults"): "list_faults", ("POST", "/_cloud/faults"): "add_faults",
            ("DELETE", "/_cloud/faults"): "clear_faults", ("DELETE", "/_cloud/faults/N"): "remove_fault",
            ("POST", "/_cloud/reset"): "reset", ("GET", "/_cloud/config"): "get_config",
            ("POST", "/_cloud/config"): "set_config", ("POST", "/_cloud/jobs"): "add_job",
            ("POST", "/_cloud/pipelines"): "add_pipeline", ("POST", "/_cloud/notebooks"): "add_notebook",
            ("POST", "/_cloud/declarative"): "add_declarative_pipeline", ("GET", "/_cloud/declarative"): "updates",
            ("GET", "/_cloud/neon"): "get_neon",
            ("GET", "/_cloud/queues"): "get_queues", ("POST", "/_cloud/queues"): "put_message"}
