"""The numbers weir must hold, measured on a running server (PGHOST, PGUSER, PGDATABASE, PGDATA).

Called by test/bench/run.  Times come from the run log, which the conductor writes with
clock_timestamp(), so that the client is not in them; ratios are measured in one run.
A measurement is a function below that returns (what was found, whether it holds).
"""

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 300                 # seconds until a wait gives up
HELD = int(os.environ.get("HELD") or 600)   # seconds that the soak holds its transaction
MEASUREMENTS = []


class BenchError(Exception):
    pass


def measurement(what, bar, when="always"):
    def register(function):
        MEASUREMENTS.append((function.__name__, what, bar, when, function))
        return function
    return register


def psql(sql, check=True):
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"], input=sql,
                          capture_output=True, text=True, timeout=LIMIT * 2)
    if check and done.returncode != 0:
        raise BenchError(done.stderr.strip() or "psql failed")
    return done.stdout.strip()


def pipeline(name, tasks, concurrent=1):
    definition = {"max_concurrent_runs": concurrent, "tasks": tasks}
    psql(f"SELECT weir.create_pipeline('{name}', $json${json.dumps(definition)}$json$::jsonb, 'bench')")


def task(name, *depends_on, kind="sql", spec=None, **more):
    if spec is None:
        spec = {"sql": "SELECT 1"} if kind == "sql" else {}
    return {"name": name, "kind": kind, "depends_on": list(depends_on), "spec": spec, **more}


def trigger(name, runs=1):
    """One transaction; the ids of the runs."""
    return [int(line) for line in
            psql(f"SELECT weir.trigger('{name}') FROM generate_series(1, {runs})").split()]


def until(sql, seconds=LIMIT, pause=0.05):
    """Look again and again until the query says t."""
    give_up = time.monotonic() + seconds
    while psql(sql, check=False) != "t":
        if time.monotonic() > give_up:
            raise BenchError(f"waited {seconds} s in vain for: {sql}")
        time.sleep(pause)


def ended(ids, pause=0.05):
    until(f"SELECT bool_and(ended_at IS NOT NULL) FROM weir.run WHERE run_id BETWEEN {ids[0]} AND {ids[-1]}",
          pause=pause)
    bad = psql(f"SELECT status || ': ' || coalesce(error_message, '') FROM weir.run "
               f"WHERE run_id BETWEEN {ids[0]} AND {ids[-1]} AND status <> 'succeeded' LIMIT 1")
    if bad:
        raise BenchError(f"a run did not succeed: {bad}")


def seconds_of(ids, start="queued_at"):
    """From the first start to the last end."""
    return float(psql(f"SELECT extract(epoch FROM max(ended_at) - min({start})) FROM weir.run "
                      f"WHERE run_id BETWEEN {ids[0]} AND {ids[-1]}"))


def pgbench(script, seconds=5, transactions=None, clients=1):
    """Transactions (scripts) per second."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        how = ["-T", str(seconds)] if transactions is None else ["-t", str(transactions)]
        done = subprocess.run(["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(clients), *how,
                               "-f", file.name], capture_output=True, text=True)
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not found:
        raise BenchError(done.stderr.strip() or done.stdout)
    return float(found[1])


def processes(kind):
    return [int(pid) for pid in psql(f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}' "
                                     "AND coalesce(datname, current_database()) = current_database()").split()]


def own_memory(pid):
    """Megabytes a process has for itself: without the shared buffers it happened to touch."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid):
    """How often a process went to sleep so far: each wakeup is followed by one."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


# --- the measurements -----------------------------------------------------------

@measurement("trigger commit to first task started, warm", "p50 <= 5 ms, p99 <= 20 ms")
def trigger_latency():
    pipeline("bench_one", [task("only")])
    script = "SELECT weir.trigger('bench_one') AS run \\gset\nSELECT weir.wait(:run, '10 seconds');\n"
    pgbench(script, transactions=30)
    psql("SELECT 1")
    first = int(psql("SELECT max(run_id) + 1 FROM weir.run"))
    pgbench(script, transactions=500)
    p50, p99 = map(float, psql(f"""
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
        FROM (SELECT extract(epoch FROM a.started_at - r.queued_at) * 1000 AS ms
              FROM weir.run AS r JOIN weir.attempt AS a USING (run_id) WHERE r.run_id >= {first}) AS x
        """).split("|"))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", p50 <= 5 and p99 <= 20


@measurement("step to next step in a chain of 1,000 SQL tasks", "<= 2 ms")
def chain():
    tasks = [task("t0")] + [task(f"t{number}", f"t{number - 1}") for number in range(1, 1000)]
    pipeline("bench_chain", tasks)
    ids = trigger("bench_chain")
    ended(ids, pause=0.5)
    step = seconds_of(ids, "started_at")
    return f"{step:.2f} ms", step <= 2


@measurement("no-op DAG tasks, every transition logged, fsync on", ">= 5,000 tasks/s")
def noop_dag():
    layers, width, runs = 10, 10, 200
    tasks = [task(f"t{layer}_{number}", *([f"t{layer - 1}_{number}", f"t{layer - 1}_{(number + 1) % width}"]
                                          if layer else []), kind="noop")
             for layer in range(layers) for number in range(width)]
    pipeline("bench_noop", tasks, concurrent=runs)
    ended(trigger("bench_noop", 5))
    ids = trigger("bench_noop", runs)
    ended(ids, pause=0.5)
    rate = runs * layers * width / seconds_of(ids)
    return f"{rate:,.0f} tasks/s", rate >= 5000


@measurement("500-way fan-out and join, SQL tasks", "< 1 s")
def fan_out():
    middle = [f"m{number}" for number in range(500)]
    pipeline("bench_fan", [task("start"), *(task(name, "start") for name in middle), task("join", *middle)])
    ended(trigger("bench_fan"))
    ids = trigger("bench_fan")
    ended(ids)
    taken = seconds_of(ids, "started_at")
    return f"{taken:.2f} s", taken < 1


@measurement("the same while 10,000 task runs wait for a full pool", "p50 <= 5 ms, p99 <= 20 ms")
def full_pool():
    psql("SELECT weir.create_pool('bench_pool', 1)")
    pipeline("bench_crowd", [task("first", spec={"sql": "SELECT pg_sleep(3600)"}, pool="bench_pool", priority=1),
                             *(task(f"t{number}", pool="bench_pool") for number in range(9999))])
    crowd = trigger("bench_crowd")
    until("SELECT used = 1 AND waiting = 9999 FROM weir.pools WHERE name = 'bench_pool'")
    pipeline("bench_beside", [task("only")])
    script = "SELECT weir.trigger('bench_beside') AS run \\gset\nSELECT weir.wait(:run, '10 seconds');\n"
    pgbench(script, transactions=30)
    first = int(psql("SELECT max(run_id) + 1 FROM weir.run"))
    pgbench(script, transactions=500)
    p50, p99 = map(float, psql(f"""
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
        FROM (SELECT extract(epoch FROM a.started_at - r.queued_at) * 1000 AS ms
              FROM weir.run AS r JOIN weir.attempt AS a USING (run_id) WHERE r.run_id >= {first}) AS x
        """).split("|"))
    psql(f"SELECT weir.cancel({crowd[0]})")
    until(f"SELECT ended_at IS NOT NULL FROM weir.run WHERE run_id = {crowd[0]}")
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", p50 <= 5 and p99 <= 20


@contextlib.contextmanager
def http_server(connection):
    """A server of ours and a connection to it."""
    server = subprocess.Popen([sys.executable, os.path.join(HERE, "httpd.py"), "2"],
                              stdout=subprocess.PIPE, start_new_session=True)
    try:
        port = int(server.stdout.readline())
        psql(f"SELECT weir.create_connection('{connection}', 'http', 'http://127.0.0.1:{port}', "
             "'{\"type\": \"none\"}'::jsonb, '{}'::jsonb, 'bench')")
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


NGINX_CONF = """
daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ default_type application/json; return 200 '{{"ok":true}}'; }} }}
}}
"""


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def nginx(connection):
    """nginx, a connection to it, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        conf = os.path.join(folder, "conf")
        with open(conf, "w", encoding="ascii") as file:
            file.write(NGINX_CONF.format(folder=folder, port=port))
        server = subprocess.Popen([os.environ["BENCH_NGINX"], "-e", "stderr", "-c", conf], start_new_session=True)
        try:
            for _ in range(100):
                if answers(port):
                    break
                time.sleep(0.05)
            psql(f"SELECT weir.create_connection('{connection}', 'http', 'http://127.0.0.1:{port}', "
                 "'{\"type\": \"none\"}'::jsonb, '{}'::jsonb, 'bench')")
            yield port
        finally:
            server.terminate()
            server.wait()


def as_fast_as_it_goes(port):
    """What a program does that does nothing else with the answers, with as many connections; None without one."""
    if not os.access(os.environ.get("BENCH_HEY", ""), os.X_OK):
        return None
    done = subprocess.run([os.environ["BENCH_HEY"], "-z", "3s", "-c", "50", f"http://127.0.0.1:{port}/"],
                          capture_output=True, text=True, check=True)
    return float(re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)[1])


@measurement("HTTP tasks against a local nginx, one conductor", ">= 3,000/s")
def http_tasks():
    per_run, runs = 500, 20
    if not os.access(os.environ.get("BENCH_NGINX", ""), os.X_OK):
        raise BenchError("there is no nginx to measure with")
    with nginx("bench_http") as port:
        pipeline("bench_http", [task(f"t{number}", kind="http", connection="bench_http",
                                     spec={"method": "GET", "path": "/"}) for number in range(per_run)],
                 concurrent=runs)
        ended(trigger("bench_http"))
        ids = trigger("bench_http", runs)
        ended(ids, pause=0.5)
        rate = per_run * runs / seconds_of(ids)
        limit = as_fast_as_it_goes(port)
    return f"{rate:,.0f} tasks/s" + (f"; hey alone {limit:,.0f}/s" if limit else ""), rate >= 3000


@measurement("1,000 HTTP exchanges of 2 s in flight, conductor's memory", "flat, < 3 s")
def http_in_flight():
    """Four times a thousand: what the first thousand took must do for the others, and be given back."""
    peaks, rests, taken = [], [], 0.0
    with http_server("bench_in_flight"):
        pipeline("bench_in_flight", [task(f"t{number}", kind="http", connection="bench_in_flight",
                                          spec={"method": "GET", "path": "/slow"}) for number in range(1000)])
        conductor = processes("weir conductor")[0]
        before = own_memory(conductor)
        for _ in range(4):
            ids = trigger("bench_in_flight")
            until(f"SELECT count(*) = 1000 FROM weir.attempt WHERE run_id = {ids[0]} AND status IN ('intended', 'started')",
                  seconds=10, pause=0.02)
            peaks.append(own_memory(conductor))
            ended(ids)
            peaks[-1] = max(peaks[-1], own_memory(conductor))
            rests.append(own_memory(conductor))
            taken = max(taken, seconds_of(ids))
    if processes("weir conductor") != [conductor]:
        raise BenchError("the conductor was started again in between")
    flat = max(peaks[1:]) <= peaks[0] * 1.1 and rests[-1] <= rests[0] * 1.1
    return (f"{before:.0f} MB, {max(peaks):.0f} MB, {rests[-1]:.0f} MB; {taken:.2f} s", flat and taken < 3)


@contextlib.contextmanager
def local_cloud(connection, kind, path, options):
    """The local cloud, and a connection of this kind to what is below the path; its control API."""
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "address")
        with open(os.path.join(directory, "log"), "w", encoding="ascii") as log:
            cloud = subprocess.Popen([sys.executable, os.path.join(HERE, "..", "cloud", "cloud.py"), "--dir", directory,
                                      "--speed", "1", "--address-file", file], stdout=log, stderr=log)
        try:
            while not os.path.exists(file):
                if cloud.poll() is not None:
                    raise BenchError("the local cloud did not start")
                time.sleep(0.05)
            with open(file, encoding="ascii") as stream:
                address = stream.read()
            psql(f"SELECT weir.create_secret('{connection}', 'weir-secret'); "
                 f"SELECT weir.create_connection('{connection}', '{kind}', '{address}{path}', "
                 "jsonb_build_object('type', 'entra_client_secret', 'tenant_id', 'local', 'client_id', 'weir-client', "
                 f"'client_secret', '{connection}', 'authority', '{address}'), '{json.dumps(options)}'::jsonb, 'bench')")

            def control(call):
                with urllib.request.urlopen(f"{address}/_cloud/{call}") as answer:
                    return json.load(answer)
            yield control
        finally:
            cloud.terminate()
            cloud.wait()


def requests_of(counts):
    return sum(operation["requests"] for operation in counts.values())


def in_flight(service, kind, spec, listing, pages, count):
    """A thousand runs of one service that do not end, over so many full rounds of lists of them, which follow one another whenever they are due.

    service: what local_cloud takes; listing: the operation, and pages how many of them a round takes.  The answer of a measurement.
    """
    name = service[0]
    with local_cloud(*service) as control:
        pipeline(name, [task(f"t{number}", kind=kind, connection=name, spec=spec) for number in range(1000)])
        ids = trigger(name)
        until(f"SELECT count(*) = 1000 FROM weir.attempt WHERE run_id = {ids[0]} AND external_run_id IS NOT NULL")

        def rounds(count):
            """Wait for so many lists from their first page to their last."""
            seen = requests_of(control(f"counts?operation={listing}"))
            give_up = time.monotonic() + LIMIT
            while requests_of(control(f"counts?operation={listing}")) < seen + pages * count:
                if time.monotonic() > give_up:
                    raise BenchError("no lists of runs are asked for")
                time.sleep(0.2)
        rounds(count)
        conductor = processes("weir conductor")[0]
        before, memory, cpu, began = requests_of(control("counts")), own_memory(conductor), cpu_seconds(conductor), time.monotonic()
        rounds(count)
        seconds = time.monotonic() - began
        rate = (requests_of(control("counts")) - before) / seconds
        load = (cpu_seconds(conductor) - cpu) / seconds * 100
        grown = own_memory(conductor) - memory
        tokens = control("counts")["entra.token"]["requests"]
        psql(f"SELECT weir.cancel({ids[0]})")
        until(f"SELECT ended_at IS NOT NULL FROM weir.run WHERE run_id = {ids[0]}")
    return (f"{rate:.1f}/s, {load:.2f} %, {grown:+.1f} MB, {tokens} token{'s' if tokens > 1 else ''}",
            rate <= 5 and load <= 1 and grown < 1 and tokens == 1)


@measurement("1,000 Databricks runs in flight: requests, conductor's CPU", "<= 5/s, <= 1 %, flat")
def runs_in_flight():
    return in_flight(("bench_runs", "databricks", "/dbx", {}), "databricks_job", {"job_id": 102, "job_parameters": {"seconds": 86400}},
                     "databricks.list", pages=42, count=2)


@measurement("1,000 Data Factory runs in flight: requests, conductor's CPU", "<= 5/s, <= 1 %, flat")
def adf_runs_in_flight():
    # starting a thousand within what Azure lets a principal write would take over a minute, and is not what is measured
    options = {"subscription_id": "s1", "resource_group": "rg", "factory": "bench", "request_limits": {"writes": None}}
    return in_flight(("bench_adf_runs", "adf", "/adf", options), "adf_pipeline", {"pipeline": "wait", "parameters": {"seconds": "86400"}},
                     "adf.queryRuns", pages=10, count=8)


@measurement("log_execution_start + log_execution_end, of two bare inserts", ">= 0.7")
def log_execution():
    psql("CREATE TABLE IF NOT EXISTS bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
         "name text, at timestamptz DEFAULT clock_timestamp())")
    bare = "INSERT INTO bare (name) VALUES ('start');\nINSERT INTO bare (name) VALUES ('end');\n"
    pair = ("SELECT \"ExecutionID\" AS run FROM weir.log_execution_start('bench_outside') \\gset\n"
            "SELECT weir.log_execution_end(:run);\n")
    pgbench(pair, seconds=1)
    rates = {bare: [], pair: []}
    for _ in range(9):                      # alternating, and the median: a slow moment of the disk counts for neither
        for script, found in rates.items():
            found.append(pgbench(script, seconds=2))
    pairs, bares = statistics.median(rates[pair]), statistics.median(rates[bare])
    return f"{pairs / bares:.2f} ({pairs:,.0f} of {bares:,.0f} pairs/s)", pairs / bares >= 0.7


@measurement("wakeups while idle, 10,000 paused pipelines, no schedules yet", "0 per second")
def idle():
    psql("""SELECT weir.create_pipeline('bench_idle_' || n,
                '{"tasks": [{"name": "only", "kind": "noop", "spec": {}}]}'::jsonb, 'bench')
            FROM generate_series(1, 10000) AS n""")
    psql("UPDATE weir.pipeline SET is_paused = true WHERE name LIKE 'bench_idle_%'")
    pids = processes("weir conductor") + processes("weir launcher")
    if len(pids) < 2:
        raise BenchError("conductor or launcher not found")
    before = None
    for _ in range(20):                     # until what the statements above caused is over
        now = [switches(pid) for pid in pids]
        if now == before:
            break
        before = now
        time.sleep(1)
    start = sum(switches(pid) for pid in pids)
    time.sleep(20)
    rate = (sum(switches(pid) for pid in pids) - start) / 20
    return f"{rate:.2f} per second", rate == 0


@measurement("kill -9 of the conductor to first resumed task", "< 1 s")
def restart():
    """The postmaster then restarts the whole server.  How much log it has to redo is the age of the
    last checkpoint and nothing of weir's, hence the checkpoint; the second number is weir alone."""
    pipeline("bench_restart", [task("slow", spec={"sql": "SELECT pg_sleep(2)"})])
    psql("CHECKPOINT")
    run = trigger("bench_restart")[0]
    until(f"SELECT EXISTS (SELECT FROM weir.attempt WHERE run_id = {run} AND status = 'started')")
    killed = time.time()
    os.kill(processes("weir conductor")[0], signal.SIGKILL)
    # The mark of the first time may be lost with the server, then it is the same attempt.
    again = f"FROM weir.attempt WHERE run_id = {run} AND started_at > to_timestamp({killed})"
    until(f"SELECT EXISTS (SELECT {again})")
    resumed, server_up = map(float, psql(
        f"SELECT extract(epoch FROM started_at), extract(epoch FROM (SELECT since FROM weir.status WHERE component = 'launcher')) "
        f"{again} ORDER BY started_at LIMIT 1").split("|"))
    ended([run])
    return f"{resumed - killed:.2f} s, {resumed - server_up:.2f} s of it weir", resumed - killed < 1


@measurement(f"throughput lost under a transaction held open for {HELD} s", "<= 5 %", "--soak")
def held_transaction():
    """SQL tasks, as people have them: each is committed by a worker of its own and leaves rows in five tables."""
    names = [f"bench_held_{number}" for number in range(20)]
    for name in names:
        pipeline(name, [task(f"t{number}") for number in range(50)], concurrent=10)

    def rate(seconds):
        start = time.monotonic()
        done = 0
        while time.monotonic() < start + seconds:
            ids = []
            for name in names:
                ids += trigger(name)
            ended(ids)
            done += 50 * len(names)
        return done / (time.monotonic() - start)
    # The same work for as long, with nobody holding anything: tables that grow cost something by themselves.  The second
    # half of either time is compared: over a minute alone the machine itself differs by more than the bar.
    rate(max(HELD / 2, 10))
    before = rate(HELD / 2)
    holder = subprocess.Popen(["psql", "-X", "-q"], stdin=subprocess.PIPE, text=True)
    holder.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM weir.run \\g /dev/null\n")
    holder.stdin.flush()
    try:
        rate(HELD / 2)
        lost = 1 - rate(HELD / 2) / before
    finally:
        holder.stdin.close()
        holder.wait()
    return f"{lost * 100:.1f} %", lost <= 0.05


def load_log(runs):
    """A log of so many runs of 100 pipelines, 2,880 a day up to now, with 5 tasks each; set-based, no trigger fires."""
    if psql("SELECT count(*) FROM weir.pipeline WHERE name LIKE 'bench_log_%'") != "0":
        return
    psql(f"""
        SET session_replication_role = replica;
        INSERT INTO weir.pipeline (name, owner) SELECT 'bench_log_' || n, current_user::regrole
        FROM generate_series(1, 100) AS n;
        INSERT INTO weir.pipeline_state (pipeline_id) SELECT pipeline_id FROM weir.pipeline WHERE name LIKE 'bench_log_%';
        INSERT INTO weir.run (pipeline_id, pipeline_name, status, start_status, next_load_status, triggered_by,
                              owner, queued_at, started_at, ended_at, error_message)
        SELECT p.pipeline_id, p.name, o.status, 'E', o.next, 'bench', p.owner, at, at, at + interval '1 minute', o.error
        FROM generate_series({runs}, 1, -1) AS n
            CROSS JOIN LATERAL (SELECT now() - n * interval '30 seconds' AS at) AS t
            CROSS JOIN LATERAL (SELECT CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END AS status,
                                       CASE WHEN n % 50 = 0 THEN 'R' ELSE 'P' END::"char" AS next,
                                       CASE WHEN n % 50 = 0 THEN 'it failed' END AS error) AS o
            JOIN weir.pipeline AS p ON p.name = 'bench_log_' || n % 100 + 1
        ORDER BY n DESC;
        CREATE TEMP TABLE mine AS SELECT run_id, started_at, ended_at, status FROM weir.run
        WHERE pipeline_name LIKE 'bench_log_%';
        INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status, attempt_no, ready_at,
                                   started_at, ended_at)
        SELECT run_id, n, 'task ' || n, 'sql', 'transform', CASE WHEN n = 5 THEN status ELSE 'succeeded' END, 1,
            started_at, started_at, ended_at
        FROM mine, generate_series(1, 5) AS n ORDER BY run_id, n;
        INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status, intended_at, started_at, ended_at)
        SELECT task_run_id, 1, run_id, 'weir-bench-' || task_run_id, t.status, t.started_at, t.started_at, t.ended_at
        FROM weir.task_run AS t JOIN mine USING (run_id) ORDER BY task_run_id;
        INSERT INTO weir.error (run_id, activity, message, occurred_at)
        SELECT run_id, 'task 5', 'it failed', ended_at FROM mine WHERE status = 'failed' ORDER BY run_id;
        INSERT INTO weir.activity (run_id, activity, phase, status, rows_read, started_at, ended_at, logged_at)
        SELECT run_id, 'copy', 'land', 'succeeded', 1000, started_at, ended_at, ended_at FROM mine ORDER BY run_id;
        INSERT INTO weir.row_count (run_id, component, object_name, count_type, row_count, logged_at)
        SELECT run_id, 'copy', 'orders', 'Insert', 1000, ended_at FROM mine ORDER BY run_id;
        UPDATE weir.pipeline_state AS s SET last_run_id = r.run_id
        FROM (SELECT pipeline_id, max(run_id) AS run_id FROM weir.run GROUP BY pipeline_id) AS r
        WHERE s.pipeline_id = r.pipeline_id;
        """)
    psql("VACUUM ANALYZE weir.run, weir.task_run, weir.attempt, weir.error, weir.activity, weir.row_count, "
         "weir.pipeline, weir.pipeline_state")


def slowest(queries):
    """(statement, milliseconds) of the slowest, each the second time, rows and all, as a role that sees everything."""
    worst = ("", 0.0)
    for sql in queries:
        found = psql(f"SET jit = off; SET ROLE bench_reader; EXPLAIN (ANALYZE, TIMING OFF) {sql}; "
                     f"EXPLAIN (ANALYZE, TIMING OFF) {sql}")
        taken = float(re.findall(r"Execution Time: ([0-9.]+)", found)[-1])
        if os.environ.get("EXPLAIN"):
            print(f"--- {taken:.1f} ms: {sql}\n{found if taken > 10 else ''}", file=sys.stderr)
        if taken > worst[1]:
            worst = (sql, taken)
    return worst


def reader():
    if psql("SELECT to_regrole('bench_reader') IS NULL") == "t":
        psql("CREATE ROLE bench_reader; GRANT weir_reader TO bench_reader")


STATUS_VIEWS = ["weir.status",
                "weir.runs WHERE status = 'running'",
                "weir.runs ORDER BY run_id DESC LIMIT 20",
                "weir.task_runs WHERE run_id = {run}",
                "weir.attempts WHERE run_id = {run}",
                "weir.errors ORDER BY error_id DESC LIMIT 20",
                "weir.activities WHERE run_id = {run}",
                "weir.row_counts WHERE run_id = {run}",
                "weir.pipelines",
                "weir.config_variables"]

# The column of each view by which a report asks for a period.
BI_VIEWS = [("runs", "queued_at"), ("task_runs", "started_at"), ("attempts", "intended_at"),
            ("errors", "occurred_at"), ("activities", "logged_at"), ("row_counts", "logged_at")]


def status_views(runs):
    load_log(runs)
    reader()
    run = psql("SELECT max(run_id) FROM weir.run WHERE pipeline_name LIKE 'bench_log_%'")
    sql, taken = slowest(f"SELECT * FROM {view.format(run=run)}" for view in STATUS_VIEWS)
    return f"{taken:.1f} ms ({sql.removeprefix('SELECT * FROM ')})", taken < 20


def bi_views(runs):
    """Two days of the log: the last 24 hours also have what was measured before, after SOAK=1 more than any day of it."""
    load_log(runs)
    reader()
    sql, taken = slowest(f"SELECT * FROM weir.{view} WHERE {column} >= now() - interval '{ago} days' "
                         f"AND {column} < now() - interval '{ago - 1} days'"
                         for view, column in BI_VIEWS for ago in (2, 20))
    return f"{taken:.1f} ms ({' '.join(sql.split()[3:6])})", taken < 200


@measurement("status views with 100,000 runs x 5 tasks in the log", "< 20 ms", "small log")
def small_log_status():
    return status_views(100_000)


@measurement("BI views for one day with 100,000 runs x 5 tasks in the log", "< 200 ms", "small log")
def small_log_bi():
    return bi_views(100_000)


@measurement("status views with 1,000,000 runs x 5 tasks in the log", "< 20 ms", "--full")
def big_log_status():
    return status_views(1_000_000)


@measurement("BI views for one day with 1,000,000 runs x 5 tasks in the log", "< 200 ms", "--full")
def big_log_bi():
    return bi_views(1_000_000)


# --- the table ------------------------------------------------------------------

def fdatasync_ms(seconds=1.0):
    """What every durable commit of every system waits for, on the disk of the server."""
    name = os.path.join(os.environ["PGDATA"], "fdatasync")
    file = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.write(file, bytes(1 << 20))
        os.fsync(file)
        taken = []
        while sum(taken) < seconds:
            os.pwrite(file, os.urandom(8192), 0)
            begin = time.monotonic()
            os.fdatasync(file)
            taken.append(time.monotonic() - begin)
    finally:
        os.close(file)
        os.unlink(name)
    return statistics.median(taken) * 1000


def settled():
    """The conductor is there, and the time is over in which SQL workers are careful, see src/engine/sqlworker.c."""
    until("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor' "
          "AND datname = current_database()", seconds=30)
    until("SELECT since < clock_timestamp() - interval '90 seconds' FROM weir.status WHERE component = 'launcher'", seconds=120)


def conditions():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")
    return (f"{len(os.sched_getaffinity(0))} x {model}, {psql('SHOW server_version')}, fsync {psql('SHOW fsync')}, "
            f"synchronous_commit {psql('SHOW synchronous_commit')}, shared_buffers {psql('SHOW shared_buffers')}, "
            f"weir {psql('''SELECT extversion FROM pg_extension WHERE extname = 'weir' ''')}")


TABLE = []


def line(what, bar, found, verdict):
    TABLE.append((what, bar, found, verdict))
    print(f"{what:<64} {bar:<26} {found:<34} {verdict}", flush=True)


def record(name, begin):
    """What was printed, as Markdown."""
    load = " ".join(f"{number:.2f}" for number in os.getloadavg())
    with open(name, "w", encoding="utf-8") as file:
        file.write(f"{begin}, {fdatasync_ms():.2f} ms after; load average after {load}; {conditions()}\n\n")
        for row in TABLE:
            file.write("|" + "|".join("---" if cell.startswith("--") and cell.strip("-") == "" else f" {cell} " for cell in row) + "|\n")


def main():
    begin = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + "; load average before "
             + " ".join(f"{number:.2f}" for number in os.getloadavg()) + f"; fdatasync of 8 kB {fdatasync_ms():.2f} ms before")
    only = os.environ.get("TESTS", "").split()
    modes = {"always", *sys.argv[1:]}
    if "--full" not in modes:
        modes.add("small log")
    failed = 0
    print(conditions())
    line("what", "bar", "found", "holds")
    line("-" * 64, "-" * 26, "-" * 34, "-----")
    settled()
    for name, what, bar, when, function in MEASUREMENTS:
        if only and name not in only:
            continue
        if when not in modes and not only:
            if when.startswith("--"):
                line(what, bar, f"not measured, see {when.strip('-').upper()}=1", "")
            continue
        try:
            found, holds = function()
        except (BenchError, subprocess.TimeoutExpired) as problem:
            line(what, bar, "error", "no")
            print(f"    {problem}", flush=True)
            holds = False
        else:
            line(what, bar, found, "yes" if holds else "NO")
        failed += not holds
    if not only:
        line("wakeups while idle, 1,000 future schedules", "0 per second", "no schedules in this version", "")
    if os.environ.get("TABLE"):
        record(os.environ["TABLE"], begin)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
