"""weir beside its peers, on one server, in one run; called by test/bench/peers/run.

Prints a table and writes it as Markdown to the file TABLE.  SECONDS, ROUNDS and HELD make it shorter or longer.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
import types

from systems import Missing, Peer, Session, all_systems, bench

HELD = int(os.environ.get("HELD") or (600 if "--soak" in sys.argv else 60))
SECONDS = float(os.environ.get("SECONDS") or 5)
ROUNDS = int(os.environ.get("ROUNDS") or 3)
WORKERS = 4
ONLY = os.environ.get("TESTS", "").split()
PACKAGES = os.environ["PACKAGES"]
SIZES = types.SimpleNamespace(steps=200 if SECONDS >= 3 else 30, width=500, cron_jobs=100 if SECONDS >= 3 else 20,
                              samples=200 if SECONDS >= 3 else 20)
ROWS = []                   # (what, system, unit, value, ratio)


def percentile(values, part):
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def why(problem):
    return str(problem).splitlines()[0][:110] if str(problem) else type(problem).__name__


def per_second(rate):
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def times_as_fast(ratio):
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def section(title):
    load = " ".join(f"{number:.1f}" for number in os.getloadavg())
    ROWS.append((title, None, None, None, None))
    print(f"\n{title}   (load average {load})", flush=True)


def row(system, value, ratio=""):
    ROWS.append((None, system.name, system.unit, value, ratio))
    print(f"    {system.name:<16} {system.unit:<60} {value:<46} {ratio}", flush=True)


def report(systems, found, show, faster, smaller=()):
    """`found`: per system what was found, or the reason why not, or None for nothing to say; `faster`: how many
    times as fast as weir, from its and this system's, but for those that had less to do."""
    reference = next((found[system] for system in systems if system.reference), None)
    for system in systems:
        value = found[system]
        if isinstance(value, Exception):
            row(system, f"no: {why(value)}" if isinstance(value, Missing) else f"error: {why(value)}")
        elif value is not None:
            known = reference is not None and not isinstance(reference, Exception) and system not in smaller
            row(system, show(system, value), "1" if system.reference else times_as_fast(faster(reference, value))
                if known else "")


def guarded(function, *arguments):
    try:
        return function(*arguments)
    except (Missing, bench.BenchError, subprocess.SubprocessError, OSError) as problem:
        return problem


# --- the measurements -----------------------------------------------------------

def throughput(systems):
    """Jobs enqueued beforehand, from the first one's start until the last is recorded as done; the median of
    rounds that take turns.  Each is given as many as keep it busy for SECONDS, as a warm-up found out."""
    section(f"no-op jobs enqueued beforehand, {WORKERS} at once: jobs/s")
    rates = {}
    for system in systems:
        begin = system.only_round or 1000
        seconds = guarded(system.throughput, begin, WORKERS) if not system.only_round else None
        if isinstance(seconds, float):
            begin = min(max(int(begin / seconds * SECONDS), 300), 100000) // 100 * 100
        rates[system] = seconds if isinstance(seconds, Exception) else []
        system.jobs = begin
    for turn in range(ROUNDS):
        for system in systems:
            if isinstance(rates[system], Exception) or (system.only_round and turn > 0):
                continue
            seconds = guarded(system.throughput, system.jobs, WORKERS)
            if isinstance(seconds, Exception):
                rates[system] = seconds
            else:
                rates[system].append(system.jobs / seconds)
    found = {system: rate if isinstance(rate, Exception) else statistics.median(rate) for system, rate in rates.items()}
    for system in systems:
        system.rate_found = found[system]
    report(systems, found, lambda system, rate: f"{per_second(rate)}/s" + (
        f" ({per_second(min(rates[system]))} to {per_second(max(rates[system]))})" if len(rates[system]) > 1 else ""),
        lambda weir, other: other / weir)


def latency(systems):
    """From the call that enqueues, in a transaction of its own, to the job's first statement."""
    section("enqueue with its commit to the job's start, nothing else to do: ms")
    found = {system: guarded(system.latency, SIZES.samples, 30, 5, 50, WORKERS) for system in systems}
    report(systems, found, lambda system, ms: f"p50 {percentile(ms, 0.5):.2f}, p99 {percentile(ms, 0.99):.2f} ({len(ms)} jobs)",
           lambda weir, other: percentile(weir, 0.5) / percentile(other, 0.5))


def idle_latency(systems):
    """The same after 12 seconds in which nobody did anything: all systems idle at once, two seconds apart, but for
    those that are busy while they idle."""
    section("the same after 12 s of rest: ms")
    found = {}

    def one(system, after):
        time.sleep(after)
        found[system] = guarded(system.latency, 5, 300, 12000, 12000, WORKERS)
    taking_part = [system for system in systems if not system.tuned and (system.name != "weir" or system.reference)]
    together = [system for system in taking_part if not system.alone]
    threads = [threading.Thread(target=one, args=(system, after * 2)) for after, system in enumerate(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for system in taking_part:
        if system.alone:
            one(system, 0)
    report(systems, {system: found.get(system) for system in systems},
           lambda system, ms: f"median {statistics.median(ms):.2f}, worst {max(ms):.2f} ({len(ms)} jobs)",
           lambda weir, other: statistics.median(weir) / statistics.median(other))


def chain(systems):
    """From the first step's start to the last one's; the better of two."""
    section(f"chain of {SIZES.steps} steps, each after the one before: ms per step")
    times = {system: [] for system in systems}
    for turn in range(2):
        for system in systems:
            steps = system.steps or SIZES.steps
            if not isinstance(times[system], list) or sum(times[system]) * steps > 10000:
                continue
            seconds = guarded(system.chain, steps, WORKERS)
            if isinstance(seconds, float):
                times[system].append(seconds * 1000 / (steps - 1))
            else:
                times[system] = seconds
    found = {system: min(value) if isinstance(value, list) else value for system, value in times.items()}
    report(systems, found, lambda system, ms: f"{ms:.2f} ms" + (f" ({system.steps} steps)" if system.steps else ""),
           lambda weir, other: weir / other)


def fan(systems):
    """From the start of the first job to the start of the join; the median of three, or of fewer that take long."""
    section(f"fan-out of {SIZES.width} and join: seconds")
    times = {system: [] for system in systems}
    for turn in range(3):
        for system in systems:
            if not isinstance(times[system], list) or (system.width and sum(times[system]) > 10):
                continue
            seconds = guarded(system.fan, SIZES.width, WORKERS)
            if isinstance(seconds, (int, float)):
                times[system].append(seconds)
            else:
                times[system] = seconds
    found = {system: statistics.median(value) if isinstance(value, list) else value for system, value in times.items()}
    report(systems, found, lambda system, seconds: f"{seconds:.3f} s ({system.fan_note()})",
           lambda weir, other: weir / other, [system for system in systems if system.width])


def held(systems):
    """Batch after batch, enqueueing included; before, and at the end of the time a snapshot was held open in the
    same database."""
    section(f"jobs/s with a transaction held open for {HELD} s, its snapshot in use")
    window = max(min(HELD / 4, 60), 1)
    for system in systems:
        if not system.holds():
            if system.grain:
                row(system, f"no: {system.grain}")
            continue
        if not isinstance(system.rate_found, float):
            row(system, "no: its rate is not known")
            continue
        batch = min(max(int(system.rate_found / 2), 100), 20000) // 100 * 100
        holder = None
        try:
            system.rate(window / 3, batch, WORKERS)
            before = system.rate(window, batch, WORKERS)
            holder = Session(system.database)
            holder("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) > 0 FROM pg_class")
            system.rate(max(HELD - window, 0.1), batch, WORKERS)
            after = system.rate(window, batch, WORKERS)
        except (bench.BenchError, OSError) as problem:
            row(system, f"error: {why(problem)}")
        else:
            lost = f"{(1 - after / before) * 100:.0f} % lost" if after < before else "nothing lost"
            row(system, f"{lost} ({per_second(before)}/s, then {per_second(after)}/s)")
        finally:
            if holder:
                holder.close()


MEASUREMENTS = [throughput, latency, idle_latency, chain, fan, held]


# --- table ----------------------------------------------------------------------

def markdown(file, versions, conditions):
    file.write(f"{conditions}\n\n| system | version |\n|---|---|\n")
    for name, version in versions.items():
        file.write(f"| {name} | {version} |\n")
    for what, system, unit, value, ratio in ROWS:
        if what:
            file.write(f"\n**{what}**\n\n| system | a job is | found | times as fast as weir |\n|---|---|---|---|\n")
        else:
            file.write(f"| {system} | {unit} | {value} | {ratio} |\n")


def main():
    bench.settled()
    begin = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    load = " ".join(f"{number:.2f}" for number in os.getloadavg())
    sync = bench.fdatasync_ms()
    systems, versions = [], {}
    for system in all_systems(PACKAGES):
        if versions.get(system.name, "").startswith("not measured"):
            continue
        reason = os.path.join(PACKAGES, f"{system.name}.missing")
        if os.path.exists(reason):
            with open(reason, encoding="utf-8") as file:
                versions[system.name] = "not measured: " + file.read().strip()
            continue
        if system.name != "weir" and system.database not in bench.psql("SELECT datname FROM pg_database").split():
            bench.psql(f"CREATE DATABASE {system.database}")
        version = guarded(system.setup, SIZES)
        if isinstance(version, Exception):
            versions[system.name] = f"not measured: {why(version)}"
        else:
            versions[system.name] = version
            systems.append(system)
    for name, version in versions.items():
        print(f"{name:<20} {version}")
    for measurement in MEASUREMENTS:
        if not ONLY or measurement.__name__ in ONLY:
            measurement(systems)
    for system in systems:
        system.close()
    conditions = (f"{begin}; {bench.conditions()}; {WORKERS} workers each; "
                  f"fdatasync of 8 kB {sync:.2f} ms before, {bench.fdatasync_ms():.2f} ms after; load average before {load}, "
                  f"after {' '.join(f'{number:.2f}' for number in os.getloadavg())}")
    print(f"\n{conditions}")
    if os.environ.get("TABLE"):
        with open(os.environ["TABLE"], "w", encoding="utf-8") as file:
            markdown(file, versions, conditions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
