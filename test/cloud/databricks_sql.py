"""SQL warehouses: the Statement Execution API and the query history.

    PENDING -> RUNNING -> SUCCEEDED | FAILED | CANCELED

Statements are really executed, by SQLite, which knows the same :name markers; its one database
in memory is what all warehouses see.  There is no idempotency token: whoever sends a statement
twice has it executed twice.  A statement shows up in the history a little late, with its tags.
"""

import asyncio
import itertools
import re
import sqlite3
import time

STATEMENTS = re.compile(r"/api/2\.0/sql/statements(?:/([^/]+)(/cancel|/result/chunks/(\d+))?)?$")
HISTORY = "/api/2.0/sql/history/queries"
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELED", "CLOSED"}
HISTORY_STATUS = {"PENDING": "QUEUED", "SUCCEEDED": "FINISHED"}
NUMBERS = {"BIGINT": int, "LONG": int, "INT": int, "INTEGER": int, "SMALLINT": int, "TINYINT": int,
           "DOUBLE": float, "FLOAT": float, "BOOLEAN": lambda text: int({"true": 1, "false": 0}[text.lower()])}
TEXTS = {int: ("LONG", "BIGINT"), float: ("DOUBLE", "DOUBLE")}


class SqlError(Exception):
    def __init__(self, state, message):
        super().__init__(message)
        self.state = state


class Statement:
    def __init__(self, number, body):
        self.id = f"01f0a{number:03x}-0000-1000-8000-{number:012x}"
        self.body = body
        self.tags = body.get("query_tags") or []
        self.start = now()
        self.end = None
        self.state = "PENDING"
        self.error = None
        self.columns = []               # (name, type_name, type_text)
        self.rows = []
        self.truncated = False
        self.driver = None

    def token(self):
        return next((tag.get("value") for tag in self.tags if tag.get("key") == "weir_token"), None)

    def facts(self):
        return {"statement_id": self.id, "warehouse_id": self.body["warehouse_id"], "weir_token": self.token()}


class Warehouses:
    def __init__(self, settings, ledger, faults, databricks):
        self.settings, self.ledger, self.faults, self.databricks = settings, ledger, faults, databricks
        self.names = {"wh1", "wh2"}
        self.numbers = itertools.count(1)
        self.statements = {}
        self.connection = None
        self.clear()

    def clear(self):
        self.statements.clear()
        if self.connection is not None:
            self.connection.close()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)

    async def stop(self):
        drivers = [one.driver for one in self.statements.values() if one.driver is not None]
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
        self.clear()

    # -- routes ----------------------------------------------------------------

    def route(self, request, path):
        if path == HISTORY and request.method == "GET":
            facts = {"warehouse_id": request.query.get("filter_by.warehouse_ids")}
            return "databricks.history", facts, self.databricks.guarded(self.history)
        match = STATEMENTS.match(path)
        if not match:
            return None
        one = self.statements.get(match[1])
        facts = one.facts() if one else {}
        if match[1] is None and request.method == "POST":
            return "databricks.execute", self._asked(request), self.databricks.guarded(self.execute)
        if match[1] is None:
            return None
        if match[2] == "/cancel" and request.method == "POST":
            return "databricks.cancel-statement", facts, self.databricks.guarded(self._of(match[1], self.cancel))
        if match[3] is not None and request.method == "GET":
            return "databricks.chunk", facts, self.databricks.guarded(self._of(match[1], self.chunk, int(match[3])))
        if match[2] is None and request.method == "GET":
            return "databricks.statement", facts, self.databricks.guarded(self._of(match[1], self.get))
        return None

    def _asked(self, request):
        body = request.json_or_none()
        if not isinstance(body, dict) or not isinstance(body.get("query_tags", []), list):
            return {}
        token = next((tag.get("value") for tag in body.get("query_tags", [])
                      if isinstance(tag, dict) and tag.get("key") == "weir_token"), None)
        return {"warehouse_id": body.get("warehouse_id"), "weir_token": token}

    def _of(self, identity, handler, *arguments):
        async def call(request, entry, body):
            one = self.statements.get(identity)
            if one is None:
                raise self.databricks.refusal(404, "RESOURCE_DOES_NOT_EXIST", f"The statement {identity} was not found.")
            return await handler(one, request, *arguments)
        return call

    # -- statements ------------------------------------------------------------

    async def execute(self, request, entry, body):
        wait, on_wait = self._check(body)
        one = Statement(next(self.numbers), body)
        self.statements[one.id] = one
        entry["statement_id"] = one.id
        self.ledger.mark_started(entry)
        one.driver = asyncio.create_task(self._drive(one))
        if wait > 0:
            done, _ = await asyncio.wait([one.driver], timeout=self.settings.scaled(wait))
            if not done and on_wait == "CANCEL":
                await self.cancel(one, request)
        return self._describe(one)

    def _check(self, body):
        def bad(message):
            return self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", message)
        for name in ("statement", "warehouse_id"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise bad(f"Missing required field: {name}")
        if body["warehouse_id"] not in self.names:
            raise self.databricks.refusal(404, "RESOURCE_DOES_NOT_EXIST", f"SQL warehouse {body['warehouse_id']} was not found.")
        match = re.fullmatch(r"(\d+)s", body.get("wait_timeout", "10s"))
        wait = int(match[1]) if match else -1
        if wait != 0 and not 5 <= wait <= 50:
            raise bad("wait_timeout must be 0s, or between 5s and 50s.")
        on_wait = body.get("on_wait_timeout", "CONTINUE")
        if on_wait not in ("CONTINUE", "CANCEL") or (wait == 0 and on_wait == "CANCEL"):
            raise bad("on_wait_timeout must be CONTINUE or, with a wait_timeout, CANCEL.")
        if body.get("disposition", "INLINE") != "INLINE" or body.get("format", "JSON_ARRAY") != "JSON_ARRAY":
            raise bad("The local cloud has the disposition INLINE and the format JSON_ARRAY only.")
        for name in ("row_limit", "byte_limit"):
            if name in body and (not isinstance(body[name], int) or body[name] < 1):
                raise bad(f"{name} must be a positive integer.")
        for parameter in body.get("parameters") or []:
            value = parameter.get("value") if isinstance(parameter, dict) else 0
            if not isinstance(parameter, dict) or not isinstance(parameter.get("name"), str) \
                    or not (value is None or isinstance(value, str)):
                raise bad("A parameter has a name, and a value that is a string or null.")
        return wait, on_wait

    async def get(self, one, request):
        return self._describe(one)

    async def cancel(self, one, request):
        if one.state not in TERMINAL:
            one.driver.cancel()
            one.state, one.end = "CANCELED", now()
        return {}

    async def chunk(self, one, request, number):
        if one.state != "SUCCEEDED" or number >= max(1, len(self._chunks(one))):
            raise self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", f"There is no chunk {number} of the result.")
        return self._chunk(one, number)

    # -- the life of a statement -----------------------------------------------

    async def _drive(self, one):
        await self.settings.pause(0.1)
        one.state = "RUNNING"
        facts = one.facts()
        if self.faults.for_work({"never_ends"}, facts):
            await asyncio.Event().wait()
        match = re.search(r"/\* wait (\d+) \*/", one.body["statement"])
        await self.settings.pause(float(match[1]) if match else 0.2)
        try:
            fault = self.faults.for_work({"task_fails"}, facts)
            if fault:
                raise SqlError("XX000", fault.spec.get("message", "The query was lost"))
            self._run(one)
            one.state = "SUCCEEDED"
        except SqlError as error:
            one.error = error
            one.state = "FAILED"
        one.end = now()

    def _run(self, one):
        values = {}
        for parameter in one.body.get("parameters") or []:
            convert = NUMBERS.get((parameter.get("type") or "STRING").upper(), str)
            try:
                values[parameter["name"]] = None if parameter.get("value") is None else convert(parameter["value"])
            except (ValueError, KeyError):
                raise SqlError("22018", f"[CAST_INVALID_INPUT] The value '{parameter['value']}' cannot be cast to "
                               f"{parameter['type']} because it is malformed.") from None
        try:
            cursor = self.connection.execute(one.body["statement"], values)
            rows = cursor.fetchall() if cursor.description else None
        except sqlite3.Error as error:
            raise translated(str(error)) from None
        if rows is None:
            changed = cursor.rowcount
            if changed >= 0:
                one.columns = [("num_affected_rows", "LONG", "BIGINT"), ("num_inserted_rows", "LONG", "BIGINT")]
                one.rows = [(changed, changed)]
            return
        limit = one.body.get("row_limit", len(rows))
        one.truncated = len(rows) > limit
        one.rows = rows[:limit]
        for index, column in enumerate(cursor.description):
            known = next((type(row[index]) for row in rows if row[index] is not None), str)
            one.columns.append((column[0], *TEXTS.get(known, ("STRING", "STRING"))))

    # -- answers ---------------------------------------------------------------

    def _chunks(self, one):
        size = self.settings.chunk_rows
        return [one.rows[at:at + size] for at in range(0, len(one.rows), size)]

    def _chunk(self, one, number):
        chunks = self._chunks(one)
        rows = chunks[number] if chunks else []
        answer = {"chunk_index": number, "row_offset": number * self.settings.chunk_rows, "row_count": len(rows)}
        if number + 1 < len(chunks):
            answer["next_chunk_index"] = number + 1
            answer["next_chunk_internal_link"] = (f"/api/2.0/sql/statements/{one.id}/result/chunks/{number + 1}"
                                                  f"?row_offset={(number + 1) * self.settings.chunk_rows}")
        answer["data_array"] = [[as_text(value) for value in row] for row in rows]
        return answer

    def _describe(self, one):
        answer = {"statement_id": one.id, "status": {"state": one.state}}
        if one.error is not None:
            answer["status"]["error"] = {"error_code": "BAD_REQUEST", "message": str(one.error)}
            answer["status"]["sql_state"] = one.error.state
        if one.state == "SUCCEEDED":
            chunks = self._chunks(one)
            columns = [{"name": name, "type_name": kind, "type_text": text, "position": at}
                       for at, (name, kind, text) in enumerate(one.columns)]
            answer["manifest"] = {"format": "JSON_ARRAY", "schema": {"column_count": len(columns), "columns": columns},
                                  "total_chunk_count": len(chunks), "total_row_count": len(one.rows),
                                  "truncated": one.truncated}
            answer["result"] = self._chunk(one, 0)
        return answer

    async def history(self, request, entry, body):
        wanted = body.get("filter_by.warehouse_ids")
        since = int(body.get("filter_by.query_start_time_range.start_time_ms", 0))
        limit = int(body.get("max_results", 100))
        if not 1 <= limit <= 1000:
            raise self.databricks.refusal(400, "INVALID_PARAMETER_VALUE", "max_results must be between 1 and 1000.")
        limit = min(limit, self.settings.page_size)
        shown = now() - int(self.settings.scaled(self.settings.history_delay_ms))
        found = [one for one in reversed(self.statements.values())
                 if (wanted is None or one.body["warehouse_id"] == wanted) and since <= one.start <= shown]
        first = int((body.get("page_token") or "offset:0").partition(":")[2])
        page = found[first:first + limit]
        answer = {"has_next_page": len(found) > first + limit, "res": [self._line(one) for one in page]}
        if answer["has_next_page"]:
            answer["next_page_token"] = f"offset:{first + limit}"
        return answer

    def _line(self, one):
        line = {"query_id": one.id, "status": HISTORY_STATUS.get(one.state, one.state), "query_text": one.body["statement"],
                "query_start_time_ms": one.start, "warehouse_id": one.body["warehouse_id"],
                "endpoint_id": one.body["warehouse_id"], "user_name": "weir@example.com", "is_final": one.state in TERMINAL,
                "query_tags": one.tags}
        if one.end is not None:
            line.update(query_end_time_ms=one.end, duration=one.end - one.start)
        if one.error is not None:
            line["error_message"] = str(one.error)
        return line


def translated(text):
    """SQLite's error as Databricks words it."""
    match = re.match(r"no such table: (\S+)", text)
    if match:
        return SqlError("42P01", f"[TABLE_OR_VIEW_NOT_FOUND] The table or view `{match[1]}` cannot be found. "
                        "Verify the spelling and correctness of the schema and catalog. SQLSTATE: 42P01")
    match = re.match(r"You did not supply a value for binding (?:parameter )?:?(\w+)", text)
    if match:
        return SqlError("42P02", f"[UNBOUND_SQL_PARAMETER] Found the unbound parameter: {match[1]}. SQLSTATE: 42P02")
    return SqlError("42601", f"[PARSE_SYNTAX_ERROR] {text}. SQLSTATE: 42601")


def as_text(value):
    return None if value is None else str(value)


def now():
    return int(time.time() * 1000)
