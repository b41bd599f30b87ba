"""procrastinate: jobs are rows kept after they are done, with a log of events; LISTEN/NOTIFY wakes the worker.

Commands and answers as in adapter.mjs.
"""

import asyncio
import importlib.metadata
import json
import logging
import random
import sys
import time

import procrastinate
import psycopg

logging.getLogger("procrastinate").setLevel(logging.ERROR)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo="", min_size=2, max_size=12))
HANDLERS = {}


async def handle(kind):
    result = HANDLERS[kind]()
    if result is not None:
        await result


@app.task(name="noop")
async def noop():
    await handle("noop")


@app.task(name="chain")
async def chain_step():
    await handle("chain")


@app.task(name="start")
async def start(width):
    await handle("start")
    await app.connector.execute_query_async(
        "INSERT INTO fan VALUES (1, %(width)s) ON CONFLICT (id) DO UPDATE SET missing = %(width)s", width=width)
    await middle.batch_defer_async(*({} for _ in range(width)))


@app.task(name="middle")
async def middle():
    """There is no join: the jobs count down in a row, and who comes to zero puts in the last job."""
    row = await app.connector.execute_query_one_async(
        "UPDATE fan SET missing = missing - 1 WHERE id = 1 RETURNING missing")
    if row["missing"] == 0:
        await join.defer_async()


@app.task(name="join")
async def join():
    await handle("join")


class Counter:
    def __init__(self, calls):
        self.left = calls
        self.first = self.last = None
        self.all = asyncio.Event()

    def count(self):
        if self.first is None:
            self.first = time.monotonic()
        self.left -= 1
        if self.left == 0:
            self.last = time.monotonic()
            self.all.set()


async def unfinished():
    row = await app.connector.execute_query_one_async(
        "SELECT count(*) AS jobs FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
    return row["jobs"]


async def nothing_left():
    while await unfinished() > 0:
        await asyncio.sleep(0.002)


async def enqueue(jobs):
    for done in range(0, jobs, 5000):
        await noop.batch_defer_async(*({} for _ in range(min(5000, jobs - done))))


class working:
    def __init__(self, workers, **handlers):
        self.workers = workers
        HANDLERS.clear()
        HANDLERS.update(handlers)

    async def __aenter__(self):
        self.worker = asyncio.create_task(
            app.run_worker_async(concurrency=self.workers, install_signal_handlers=False))

    async def __aexit__(self, *problem):
        self.worker.cancel()
        await asyncio.gather(self.worker, return_exceptions=True)


async def setup():
    async with await psycopg.AsyncConnection.connect("", autocommit=True) as connection:
        await connection.execute("CREATE TABLE fan (id int PRIMARY KEY, missing int NOT NULL)")
    await app.schema_manager.apply_schema_async()
    return {"version": importlib.metadata.version("procrastinate")}


async def throughput(jobs, workers, batched=None):
    counter = Counter(jobs)
    await enqueue(jobs)
    async with working(workers, noop=counter.count):
        await counter.all.wait()
        await nothing_left()
        return {"seconds": time.monotonic() - counter.first}


async def rate(seconds, batch, workers, batched=None):
    counter = None
    async with working(workers, noop=lambda: counter.count()):
        begin = time.monotonic()
        done = 0
        while time.monotonic() - begin < seconds:
            counter = Counter(batch)
            await enqueue(batch)
            await counter.all.wait()
            await nothing_left()
            done += batch
        return {"rate": done / (time.monotonic() - begin)}


async def latency(samples, limit, **how):
    ms = []
    started = None
    async with working(how["workers"], noop=lambda: started.set_result(time.monotonic())):
        begin = time.monotonic()
        for sample in range(-3, samples):           # three to warm up
            if ms and time.monotonic() - begin > limit:
                break
            await asyncio.sleep((50 if sample < 0 else random.uniform(how["from"], how["to"])) / 1000)
            started = asyncio.get_running_loop().create_future()
            sent = time.monotonic()
            await noop.defer_async()
            taken = await started - sent
            if sample >= 0:
                ms.append(taken * 1000)
        await nothing_left()
    return {"ms": ms}


async def chain(steps, workers):
    counter = Counter(steps)

    async def step():
        counter.count()
        if counter.left > 0:
            await chain_step.defer_async()
    async with working(workers, chain=step):
        await chain_step.defer_async()
        await counter.all.wait()
        await nothing_left()
    return {"seconds": counter.last - counter.first}


async def fan(width, workers):
    times = {}
    joined = asyncio.Event()

    def ended():
        times["join"] = time.monotonic()
        joined.set()
    async with working(workers, start=lambda: times.update(start=time.monotonic()), join=ended):
        await start.defer_async(width=width)
        await joined.wait()
        await nothing_left()
    return {"seconds": times["join"] - times["start"]}


async def main():
    operations = {function.__name__: function for function in (setup, throughput, rate, latency, chain, fan)}
    async with app.open_async():
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            try:
                answer = await operations[command.pop("op")](**command)
            except Exception as problem:            # whatever it is, it is the answer
                answer = {"error": repr(problem)}
            print(json.dumps(answer), flush=True)


asyncio.run(main())
