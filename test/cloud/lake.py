"""The data work: what the copy and the job's tasks really do.

    data/flights.csv.gz --copy--> landing --clean--> clean --load--> staging.flights
                                  (files under DIR/lake)             (or lake/warehouse)

Every step belongs to one row_audit_id and replaces whatever an earlier try of that step
left behind, so each can be repeated.  A step that is told to fail after some rows leaves
those rows behind, as a crashed cluster would: a partial file, or rows committed in the
table.  Files appear under their name only when they are complete or deliberately partial.

Errors meant for the user are LakeError; the services put their text into the run.
"""

import asyncio
import contextlib
import csv
import gzip
import io
import os
import pathlib
import re
import shutil
import tempfile
import time
import uuid

SOURCE = pathlib.Path(__file__).resolve().parent / "data" / "flights.csv.gz"
TABLE = "staging.flights"
CHUNKS = 5                      # a copy advances in this many steps, so a cancel finds it half-way
LOADERS = 4                     # psql processes at once
RESTART_LIMIT = 120             # seconds that a database may take to come back from a crash
RESTARTING = re.compile("the database system is (starting up|in recovery mode|not yet accepting connections)"
                        "|terminating connection because of crash|server closed the connection unexpectedly")

SOURCE_COLUMNS = ("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time",
                  "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest",
                  "air_time", "distance", "hour", "minute", "time_hour")
CLEAN_COLUMNS = SOURCE_COLUMNS + ("row_audit_id", "flight_date", "departure_delayed", "cancelled")
DELAYED_AFTER = 15              # minutes


class LakeError(Exception):
    """A failure with a cause the user can read. partial: what was done before it."""

    def __init__(self, message, partial=None):
        super().__init__(message)
        self.partial = partial or {}


def audit_id(value):
    """The row_audit_id as text of a whole number; it becomes part of a path and of SQL."""
    if value is None or value == "":
        raise LakeError("the parameter row_audit_id is missing")
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > 2 ** 63 - 1:
        raise LakeError(f"the parameter row_audit_id must be a whole number, not \"{text[:100]}\"")
    return str(int(text))


class Lake:
    def __init__(self, settings):
        self.settings = settings
        self.loaders = asyncio.Semaphore(LOADERS)
        self._source = None

    def file(self, layer, row_audit_id):
        return (self.settings.lake / layer / "flights" / f"row_audit_id={row_audit_id}"
                / "part-00000.csv")

    def source(self):
        """(header, rows as lines, compressed size); read once."""
        if self._source is None:
            with gzip.open(SOURCE, "rt", encoding="utf-8", newline="") as stream:
                lines = stream.read().splitlines()
            self._source = (lines[0], lines[1:], SOURCE.stat().st_size)
        return self._source

    def describe_source(self):
        """The first row a Lookup returns: how much there is and for which days."""
        _, rows, size = self.source()
        days = sorted({"-".join(part.zfill(2) for part in row.split(",", 3)[:3]) for row in rows})
        return {"rows": len(rows), "bytes": size, "first_day": days[0], "last_day": days[-1]}

    # -- copy: source -> landing ----------------------------------------------

    async def copy(self, value, limit=None, seconds=1.0, fail_after=None):
        row_audit_id = audit_id(value)
        header, rows, size = self.source()
        if limit is not None:
            rows = rows[:limit]
        if fail_after is not None:
            rows = rows[:fail_after]
        target = self.file("landing", row_audit_id)
        with replacing(target) as stream:
            written = stream.write(header + ",row_audit_id\n")
            step = max(1, -(-len(rows) // CHUNKS))
            for start in range(0, CHUNKS * step, step):
                await self.settings.pause(seconds / CHUNKS)
                piece = "".join(f"{row},{row_audit_id}\n" for row in rows[start:start + step])
                written += stream.write(piece)
        counts = {"rowsRead": len(rows), "rowsCopied": len(rows), "dataRead": size,
                  "dataWritten": written, "filesRead": 1, "filesWritten": 1}
        if fail_after is not None:
            raise LakeError("stopped half-way", counts)
        return counts

    # -- clean: landing -> clean ----------------------------------------------

    async def clean(self, value, fail_after=None):
        row_audit_id = audit_id(value)
        return await asyncio.to_thread(self._clean, row_audit_id, fail_after)

    def _clean(self, row_audit_id, fail_after):
        landing = self.file("landing", row_audit_id)
        try:
            stream = open(landing, encoding="utf-8", newline="")
        except FileNotFoundError:
            raise LakeError(f"AnalysisException: [PATH_NOT_FOUND] Path does not exist: "
                            f"{landing.relative_to(self.settings.lake)}. Nothing was landed for "
                            f"row_audit_id {row_audit_id}.") from None
        read = 0
        with stream, replacing(self.file("clean", row_audit_id)) as output:
            reader = csv.DictReader(stream)
            writer = csv.writer(output, lineterminator="\n")
            writer.writerow(CLEAN_COLUMNS)
            for row in reader:
                if fail_after is not None and read >= fail_after:
                    break
                writer.writerow(clean_row(row))
                read += 1
        counts = {"rows_read": read, "rows_written": read}
        if fail_after is not None:
            raise LakeError("stopped half-way", counts)
        return counts

    # -- load: clean -> table --------------------------------------------------

    async def load(self, value, fail_after=None):
        row_audit_id = audit_id(value)
        clean = self.file("clean", row_audit_id)
        try:
            data = await asyncio.to_thread(clean.read_bytes)
        except FileNotFoundError:
            raise LakeError(f"AnalysisException: [PATH_NOT_FOUND] Path does not exist: "
                            f"{clean.relative_to(self.settings.lake)}. clean_flights has not "
                            f"written row_audit_id {row_audit_id}.") from None
        if fail_after is not None:
            data = b"".join(io.BytesIO(data).readlines()[:fail_after + 1])
        if self.settings.database is None:
            counts = await asyncio.to_thread(self._load_file, row_audit_id, data)
        else:
            counts = await self._load_table(row_audit_id, data)
        if fail_after is not None:
            raise LakeError("stopped half-way", counts)
        return counts

    def _load_file(self, row_audit_id, data):
        target = self.file("warehouse", row_audit_id)
        before = target.read_bytes().count(b"\n") - 1 if target.exists() else 0
        with replacing(target) as stream:
            stream.write(data.decode())
        return {"rows_deleted": before, "rows_inserted": data.count(b"\n") - 1}

    async def _load_table(self, row_audit_id, data):
        """Again while the database restarts, which is safe: the rows are replaced."""
        give_up = time.monotonic() + RESTART_LIMIT
        while True:
            try:
                return await self._load_table_once(row_audit_id, data)
            except LakeError as error:
                if not RESTARTING.search(str(error)) or time.monotonic() > give_up:
                    raise
            await asyncio.sleep(0.2)

    async def _load_table_once(self, row_audit_id, data):
        """One transaction through psql: the rows of this row_audit_id are replaced."""
        delete = (f"WITH gone AS (DELETE FROM {TABLE} WHERE row_audit_id = {row_audit_id} "
                  f"RETURNING 1) SELECT count(*) FROM gone")
        copy = f"\\copy {TABLE} ({', '.join(CLEAN_COLUMNS)}) from pstdin with (format csv, header true)"
        command = [self.settings.psql, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
                   "--no-password", "--set=ON_ERROR_STOP=1", "--single-transaction",
                   f"--dbname={self.settings.database}", f"--command={delete}", f"--command={copy}"]
        async with self.loaders:
            rows = tempfile.TemporaryFile()         # a file, because psql may end without reading it
            rows.write(data)
            rows.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=rows, stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**os.environ, "PGAPPNAME": "load_flights", "LC_MESSAGES": "C"})
            except OSError as error:
                raise LakeError(f"psql could not be started: {error}") from None
            finally:
                rows.close()
            try:
                output, errors = await process.communicate()
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                raise
        if process.returncode != 0:
            raise LakeError("SQLException: " + errors.decode("utf-8", "replace").strip()[:2000])
        return {"rows_deleted": int(output.split()[0]), "rows_inserted": data.count(b"\n") - 1}

    # -- for the control API ---------------------------------------------------

    def files(self):
        """Every complete file with its number of data rows."""
        root = self.settings.lake
        return [{"path": str(path.relative_to(root)), "bytes": path.stat().st_size,
                 "rows": max(0, path.read_bytes().count(b"\n") - 1)}
                for path in sorted(root.rglob("part-*.csv"))]

    def clear(self):
        shutil.rmtree(self.settings.lake, ignore_errors=True)
        self.settings.lake.mkdir(parents=True, exist_ok=True)


def clean_row(row):
    """NA becomes empty; the date, the delay and the cancellation are worked out. No row is dropped."""
    values = {name: "" if row[name] == "NA" else row[name] for name in SOURCE_COLUMNS}
    values["row_audit_id"] = row["row_audit_id"]
    values["flight_date"] = f"{int(row['year']):04d}-{int(row['month']):02d}-{int(row['day']):02d}"
    values["cancelled"] = "f" if values["dep_time"] else "t"
    values["departure_delayed"] = ("" if not values["dep_delay"]
                                   else "t" if float(values["dep_delay"]) > DELAYED_AFTER else "f")
    return [values[name] for name in CLEAN_COLUMNS]


@contextlib.contextmanager
def replacing(target):
    """Write a neighbour of target and rename it; a cancelled or broken step leaves target alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
