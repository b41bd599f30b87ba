"""Airflow: tasks of DAG runs, each a process of its LocalExecutor, found by a scheduler that looks by the clock.

Commands and answers as in adapter.mjs.  The scheduler and the API server (through which tasks of version 3 report,
and runs are triggered) live while something is measured; the DAG processor until it has read the DAGs once, which do
not change.  They are stopped when a command ends, also when it fails or when nobody sends commands any more.
Times are those of Airflow's own log (task_instance), but for the latency: there the task notes its own time.
"""

import importlib.metadata
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psycopg2

LIMIT = 120                 # seconds until a wait gives up
FLAT = {"python": 100, "empty": 500}    # tasks of a run that do not depend on each other, for the throughput
BATCH = 20                  # the same for a rate
HOME = os.path.join(os.getcwd(), "airflow_home")
STARTED = os.path.join(HOME, "started")
DAG = '''
import time
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator


def noop():
    pass


def note():
    with open({started!r}, "a", encoding="utf-8") as file:
        file.write(f"{{time.time()}}\\n")


def task(name):
    return EmptyOperator(task_id=name) if {kind!r} == "empty" else PythonOperator(task_id=name, python_callable={call})


with DAG({name!r}, schedule=None, catchup=False):
    {body}
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(port):
    setting = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__DAGS_FOLDER": os.path.join(HOME, "dags"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "DATABASE__SQL_ALCHEMY_CONN":
            f"postgresql+psycopg2://{os.environ['PGUSER']}@/{os.environ['PGDATABASE']}?host={os.environ['PGHOST']}",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",     # what it waits, in vain, for some of the tasks that have ended
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "AIRFLOW_HOME": HOME, "SCARF_ANALYTICS": "false", "NO_PROXY": "127.0.0.1",
            **{f"AIRFLOW__{name}": value for name, value in setting.items()}}


PORT = free_port()
ENVIRONMENT = environment(PORT)
LOG = psycopg2.connect("")  # where Airflow keeps its log, and all else
LOG.autocommit = True
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def airflow(*arguments):
    return [sys.executable, "-m", "airflow", *arguments]


class Processes:
    """Started when entered, each the leader of a group; all of them are gone when left."""

    def __init__(self, *commands):
        self.commands, self.running = commands, []

    def __enter__(self):
        for command in self.commands:
            with open(os.path.join(HOME, f"{command[0]}.log"), "a", encoding="utf-8") as log:
                self.running.append(subprocess.Popen(airflow(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                     env=ENVIRONMENT, start_new_session=True))
        return self

    def __exit__(self, *problem):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)      # what is left of its group
            except ProcessLookupError:
                pass
            process.wait()

    def alive(self):
        for command, process in zip(self.commands, self.running):
            if process.poll() is not None:
                raise RuntimeError(f"airflow {command[0]} left with {process.returncode}, see {command[0]}.log")


def rows(sql, *parameters):
    with LOG.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def until(found, processes, pause=0.05, limit=LIMIT):
    give_up = time.monotonic() + limit
    while not (answer := found()):
        processes.alive()
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {limit} s in vain")
        time.sleep(pause)
    return answer


class Working(Processes):
    """A scheduler with its executor, and the API server."""
    token = None

    def __init__(self):
        super().__init__(("api-server", "--host", "127.0.0.1", "--port", str(PORT)), ("scheduler", "--skip-serve-logs"))

    def __enter__(self):
        begin = rows("SELECT clock_timestamp()")[0][0]
        super().__enter__()
        try:
            self.token = until(self.log_in, self)
            until(lambda: rows("SELECT FROM job WHERE job_type = 'SchedulerJob' AND state = 'running' "
                               "AND start_date > %s", begin), self)
        except BaseException:
            self.__exit__()
            raise
        return self

    def ask(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers={
            "Content-Type": "application/json", **({"Authorization": f"Bearer {self.token}"} if self.token else {})},
            data=None if body is None else json.dumps(body).encode())
        with LOCAL.open(request, timeout=LIMIT) as answer:
            return json.load(answer)

    def log_in(self):
        try:
            return self.ask("/auth/token")["access_token"]
        except urllib.error.HTTPError:
            raise
        except OSError:                             # it does not listen yet
            return None

    def trigger(self, dag):
        return self.ask(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"]

    def run(self, dag):
        return self.ended(dag, self.trigger(dag))

    def ended(self, dag, run):
        """Task -> (start, end) in seconds, when the run has ended well; the run itself is the task None."""
        state, *times = until(lambda: rows(
            "SELECT state, extract(epoch FROM start_date)::float8, extract(epoch FROM end_date)::float8 FROM dag_run "
            "WHERE dag_id = %s AND run_id = %s AND end_date IS NOT NULL", dag, run), self)[0]
        if state != "success":
            raise RuntimeError(f"a run of {dag} ended as {state}")
        return {None: times, **{task: (start, end) for task, start, end in rows(
            "SELECT task_id, extract(epoch FROM start_date)::float8, extract(epoch FROM end_date)::float8 "
            "FROM task_instance WHERE dag_id = %s AND run_id = %s", dag, run)}}


def write_dags(steps, width):
    body = {
        "flat": None,
        "batch": f"[task(f't{{n}}') for n in range({BATCH})]",
        "chain": f"steps = [task(f't{{n}}') for n in range({steps})]\n"
                 "    for one, next_one in zip(steps, steps[1:]):\n        one >> next_one",
        "fan": f"task('start') >> [task(f'm{{n}}') for n in range({width})] >> task('join')",
        "latency": "task('only')",
    }
    names = []
    for kind in ("python", "empty"):
        for shape, lines in body.items():
            names.append(f"{kind}_{shape}")
            lines = lines or f"[task(f't{{n}}') for n in range({FLAT[kind]})]"
            with open(os.path.join(HOME, "dags", f"{names[-1]}.py"), "w", encoding="utf-8") as file:
                file.write(DAG.format(name=names[-1], kind=kind, body=lines, started=STARTED,
                                      call="note" if shape == "latency" else "noop"))
    return names


def setup(steps, width):
    os.makedirs(os.path.join(HOME, "dags"))
    names = write_dags(steps, width)
    with open(os.path.join(HOME, "migrate.log"), "w", encoding="utf-8") as log:
        subprocess.run(airflow("db", "migrate"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT,
                       check=True, timeout=300)
    with Processes(("dag-processor",)) as reading:
        until(lambda: rows("SELECT count(*) FROM serialized_dag")[0][0] == len(names), reading)
    return {"version": importlib.metadata.version("apache-airflow")}


def throughput(kind):
    """EmptyOperators start and end many at one time, so with them it is the time of the run."""
    with Working() as working:
        working.run(f"{kind}_latency")              # to warm up
        tasks = working.run(f"{kind}_flat")
    run = tasks.pop(None)
    times = [run] if kind == "empty" else tasks.values()
    return {"jobs": len(tasks), "seconds": max(end for _, end in times) - min(start for start, _ in times)}


def rate(kind, seconds):
    with Working() as working:
        begin, done = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            working.run(f"{kind}_batch")
            done += BATCH
        return {"rate": done / (time.monotonic() - begin)}


def latency(kind, samples, limit, **how):
    ms = []
    with Working() as working:
        begin = time.monotonic()
        for sample in range(-3, samples):           # three to warm up
            if ms and time.monotonic() - begin > limit:
                break
            time.sleep((50 if sample < 0 else random.uniform(how["from"], how["to"])) / 1000)
            sent = time.time()
            working.run(f"{kind}_latency")
            with open(STARTED, encoding="utf-8") as file:
                started = float(file.read().split()[-1])
            if sample >= 0:
                ms.append((started - sent) * 1000)
    return {"ms": ms}


def between(dag, first, last):
    with Working() as working:
        tasks = working.run(dag)
    return {"seconds": tasks[last][0] - tasks[first][0]}


def chain(kind, steps):
    return between(f"{kind}_chain", "t0", f"t{steps - 1}")


def fan(kind):
    return between(f"{kind}_fan", "start", "join")


def main():
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    operations = {function.__name__: function for function in (setup, throughput, rate, latency, chain, fan)}
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = operations[command.pop("op")](**command)
        except Exception as problem:                # whatever it is, it is the answer
            answer = {"error": repr(problem)}
        print(json.dumps(answer), flush=True)


main()
