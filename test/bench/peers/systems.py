"""The systems that are measured beside each other: weir and pg_cron here, the others through their adapters.

Each measurement has one definition for all; see doc/benchmarks.md.  A system that cannot take part in one
raises Missing with the reason.
"""

import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import bench  # noqa: E402  (its folder is not a package)

LIMIT = 300                 # seconds until a wait gives up


class Missing(Exception):
    """Why something cannot be measured."""


class Session:
    """A psql that stays, so that starting one is not what is measured."""

    def __init__(self, database):
        self.process = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", database], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)

    def __call__(self, sql):
        self.process.stdin.write(sql + ";\n\\echo .\n")
        self.process.stdin.flush()
        lines = []
        while (found := self.process.stdout.readline()) != ".\n":
            if not found:
                raise bench.BenchError("psql left: " + " ".join(lines))
            lines.append(found.rstrip("\n"))
        if any(line.startswith(("ERROR:", "FATAL:")) for line in lines):
            raise bench.BenchError("\n".join(lines))
        return "\n".join(lines)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def until(question, pause=0.02):
    give_up = time.monotonic() + LIMIT
    while not question():
        if time.monotonic() > give_up:
            raise bench.BenchError(f"waited {LIMIT} s in vain")
        time.sleep(pause)


class System:
    """`unit` is what this system calls one job; `tuned` marks a second configuration of a peer.  A system that takes
    minutes for what the others do in seconds says how much of it there is time for."""
    tuned = None
    only_round = None           # so many jobs in one round of throughput
    steps = width = None        # of the chain and the fan-out
    alone = False               # it is busy while it waits: nobody else is measured at that time
    grain = None                # why it cannot say what is lost under a held transaction
    batched = True
    reference = False

    def __init__(self, name, unit, database):
        self.name, self.unit, self.database = name, unit, database
        self.rate_found = None

    def missing(self, what):
        raise Missing(what)

    def fan_note(self):
        return ""


class Weir(System):
    """Jobs of one kind, each in a run of its own or in runs of 100 that do not depend on each other."""

    def __init__(self, kind, per_run):
        named = {"sql": "SQL task", "noop": "no-op task"}[kind]
        super().__init__("weir", f"a run of one {named}" if per_run == 1 else f"a {named} in a run of {per_run}",
                         os.environ["PGDATABASE"])
        self.kind, self.per_run = kind, per_run
        self.reference = kind == "sql" and per_run == 1
        self.prefix = f"peers_{kind}_{per_run}"

    def setup(self, sizes):
        self.session = Session(self.database)
        bench.pipeline(self.prefix, [bench.task(f"t{number}", kind=self.kind) for number in range(self.per_run)],
                       concurrent=1000)
        if self.per_run == 1:
            middle = [f"m{number}" for number in range(sizes.width)]
            bench.pipeline(f"{self.prefix}_fan", [
                bench.task("start", kind=self.kind), *(bench.task(name, "start", kind=self.kind) for name in middle),
                bench.task("join", *middle, kind=self.kind)])
            bench.pipeline(f"{self.prefix}_chain", [
                bench.task(f"t{number}", *([f"t{number - 1}"] if number else []), kind=self.kind)
                for number in range(sizes.steps)])
        if self.reference:
            self.session("CREATE TABLE started (at timestamptz)")
            bench.pipeline("peers_latency", [bench.task("only", spec={
                "sql": "INSERT INTO public.started VALUES (clock_timestamp())"})])
        return self.session("SELECT extversion FROM pg_extension WHERE extname = 'weir'")

    def run(self, pipeline, runs=1):
        """One transaction; first and last run, when all have ended well."""
        first, last = self.session(f"SELECT min(r), max(r) FROM (SELECT weir.trigger('{pipeline}') AS r "
                                   f"FROM generate_series(1, {runs})) AS x").split("|")
        until(lambda: self.session(f"SELECT ended_at IS NOT NULL FROM weir.run WHERE run_id = {last}") == "t" and
              self.session(f"SELECT NOT EXISTS (SELECT FROM weir.run WHERE run_id BETWEEN {first} AND {last} "
                           "AND ended_at IS NULL)") == "t")
        if self.session(f"SELECT count(*) FROM weir.run WHERE run_id BETWEEN {first} AND {last} "
                        "AND status <> 'succeeded'") != "0":
            raise bench.BenchError("a run did not succeed")
        return f"run_id BETWEEN {first} AND {last}"

    def throughput(self, jobs, workers):
        mine = self.run(self.prefix, max(jobs // self.per_run, 1))
        return float(self.session(
            f"SELECT extract(epoch FROM (SELECT max(ended_at) FROM weir.run WHERE {mine}) "
            f"- (SELECT min(started_at) FROM weir.task_run WHERE {mine}))"))

    def rate(self, seconds, batch, workers):
        begin, done = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            self.run(self.prefix, max(batch // self.per_run, 1))
            done += max(batch // self.per_run, 1) * self.per_run
        return done / (time.monotonic() - begin)

    def latency(self, samples, limit, low, high, workers):
        if not self.reference:
            return None
        ms, begin = [], time.monotonic()
        for sample in range(-3, samples):           # three to warm up
            if ms and time.monotonic() - begin > limit:
                break
            time.sleep((50 if sample < 0 else random.uniform(low, high)) / 1000)
            sent = time.time()
            run = self.session("SELECT weir.trigger('peers_latency')")
            self.session(f"SELECT weir.wait({run}, '60 seconds')")
            if sample >= 0:
                ms.append((float(self.session("SELECT extract(epoch FROM max(at)) FROM started")) - sent) * 1000)
        return ms

    def chain(self, steps, workers):
        if self.per_run != 1:
            return None
        mine = self.run(f"{self.prefix}_chain")
        return float(self.session(f"SELECT extract(epoch FROM max(started_at) - min(started_at)) "
                                  f"FROM weir.task_run WHERE {mine}"))

    def fan(self, width, workers):
        if self.per_run != 1:
            return None
        mine = self.run(f"{self.prefix}_fan")
        return float(self.session(f"SELECT extract(epoch FROM max(started_at) - min(started_at)) "
                                  f"FROM weir.task_run WHERE {mine}"))

    def fan_note(self):
        return "dependencies"

    def holds(self):
        return self.reference or (self.kind, self.per_run) == ("noop", 100)

    def close(self):
        self.session.close()


class PgCron(System):
    """Jobs that are due at the same minute; nothing else of it compares."""
    grain = "starts jobs by the clock, in this version each minute"

    def __init__(self):
        super().__init__("pg_cron", "one execution of SELECT 1", "peers_pg_cron")

    def setup(self, sizes):
        self.only_round = sizes.cron_jobs
        self.session = Session(self.database)
        self.session("CREATE EXTENSION pg_cron")
        return self.session("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")

    def throughput(self, jobs, workers):
        """All jobs of one minute, by its own log."""
        if time.time() % 60 > 50:                   # so that all are known before the minute is full
            time.sleep(61 - time.time() % 60)
        before = self.session("SELECT coalesce(max(runid), 0) FROM cron.job_run_details")
        self.session(f"SELECT count(cron.schedule('job' || n, '* * * * *', 'SELECT 1')) FROM generate_series(1, {jobs}) AS n")
        mine = f"runid > {before}"
        until(lambda: self.session(f"SELECT count(*) >= {jobs} FROM cron.job_run_details WHERE {mine} "
                                   "AND end_time IS NOT NULL") == "t", pause=0.2)
        self.session("SELECT count(cron.unschedule(jobid)) FROM cron.job")
        if self.session(f"SELECT count(*) FROM cron.job_run_details WHERE {mine} AND status = 'failed'") != "0":
            raise bench.BenchError("a job failed: " + self.session(
                f"SELECT return_message FROM cron.job_run_details WHERE {mine} AND status = 'failed' LIMIT 1"))
        done, seconds = self.session("SELECT count(*), extract(epoch FROM max(end_time) - min(start_time)) "
                                     f"FROM cron.job_run_details WHERE {mine} AND end_time IS NOT NULL").split("|")
        return float(seconds) * jobs / int(done)

    def latency(self, *how):
        self.missing(self.grain)

    def chain(self, *how):
        self.missing("a job cannot start another one")

    def fan(self, *how):
        self.missing("no dependencies")

    def holds(self):
        return False

    def close(self):
        self.session.close()


class Peer(System):
    """A peer in a process of its own, that speaks as adapter.mjs says."""
    processes = {}

    def __init__(self, name, unit, command, file, join, tuned=None):
        super().__init__(name, unit, "peers_" + re.sub("[^a-z]", "_", name))
        self.command, self.file, self.join, self.tuned = command, file, join, tuned

    def sizes(self, sizes):
        return {}

    def ask(self, op, **how):
        process = Peer.processes[self.name]
        process.stdin.write(json.dumps({"op": op, **how}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise bench.BenchError(f"{self.name} left, see {self.name}.log")
        answer = json.loads(answer)
        if "error" in answer:
            raise bench.BenchError(answer["error"].splitlines()[0])
        return answer

    def setup(self, sizes):
        if self.name not in Peer.processes:
            with open(f"{self.name}.log", "w", encoding="utf-8") as log:
                Peer.processes[self.name] = subprocess.Popen(
                    [*self.command, self.file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    env={**os.environ, "PGDATABASE": self.database})
            Peer.version = {**getattr(Peer, "version", {}), self.name: self.ask("setup", **self.sizes(sizes))["version"]}
        return Peer.version[self.name]

    def throughput(self, jobs, workers):
        return self.ask("throughput", jobs=jobs, workers=workers, batched=self.tuned or True)["seconds"]

    def rate(self, seconds, batch, workers):
        return self.ask("rate", seconds=seconds, batch=batch, workers=workers, batched=self.tuned or True)["rate"]

    def latency(self, samples, limit, low, high, workers):
        if self.tuned:
            return None
        return self.ask("latency", samples=samples, limit=limit, workers=workers, **{"from": low, "to": high})["ms"]

    def chain(self, steps, workers):
        return None if self.tuned else self.ask("chain", steps=steps, workers=workers)["seconds"]

    def fan(self, width, workers):
        return None if self.tuned else self.ask("fan", width=width, workers=workers)["seconds"]

    def fan_note(self):
        return self.join

    def holds(self):
        return not self.tuned

    def close(self):
        process = Peer.processes.pop(self.name, None)
        if process:
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


class Airflow(Peer):
    """Tasks of DAG runs, of one kind of operator; scheduler, executor and API server live while they are measured."""
    alone = True

    def __init__(self, kind, unit, command, steps, width):
        super().__init__("airflow", unit, command, "airflow_peer.py", None)
        self.kind, self.steps, self.width = kind, steps, width
        self.only_round = 500 if kind == "empty" else 100

    def sizes(self, sizes):
        return {"steps": self.steps, "width": self.width}

    def throughput(self, jobs, workers):
        found = self.ask("throughput", kind=self.kind)
        return found["seconds"] * jobs / found["jobs"]

    def rate(self, seconds, batch, workers):
        return self.ask("rate", kind=self.kind, seconds=seconds)["rate"]

    def latency(self, samples, limit, low, high, workers):
        if self.kind == "empty":                    # nothing of it is carried out
            return None
        return self.ask("latency", kind=self.kind, samples=samples, limit=limit, **{"from": low, "to": high})["ms"]

    def chain(self, steps, workers):
        return self.ask("chain", kind=self.kind, steps=steps)["seconds"]

    def fan(self, width, workers):
        return self.ask("fan", kind=self.kind)["seconds"]

    def fan_note(self):
        return f"dependencies; {self.width} wide"

    def holds(self):
        return self.kind == "python"


def all_systems(packages):
    node = [os.path.join(packages, "node_modules", ".bin", "node")]
    python = [os.path.join(packages, "venv", "bin", "python3")]
    airflow = [os.path.join(packages, "airflow", "bin", "python3")]
    counting = "a counter in a row; the last job puts in the join"
    return [
        Weir("noop", 1), Weir("sql", 1), Weir("noop", 100), Weir("sql", 100),
        Peer("graphile-worker", "a row, deleted when done", node, "graphile_worker.mjs", counting),
        Peer("graphile-worker", "the same, 24 at once, fetched by 500, completed in batches", node, "graphile_worker.mjs",
             counting, tuned="tuned"),
        Peer("pg-boss", "a row, kept; fetched and completed by 100", node, "pg_boss.mjs", "its flow, looked at every second"),
        Peer("procrastinate", "a row, kept, with rows for its events", python, "procrastinate_peer.py", counting),
        PgCron(),
        Airflow("python", "a PythonOperator task, a process of its own", airflow, 30, 100),
        Airflow("empty", "an EmptyOperator task, ended by the scheduler", airflow, 30, 100),
    ]
