"""A small HTTP/1.1 server on asyncio streams.

It knows nothing about clouds: it reads a request, hands it to one coroutine and
writes what that returns.  Connections are kept alive.  A request whose client has
gone away is still carried out, because that is what a real service does and
what a client must be ready for.

A Response can ask for a damaged delivery through its `effect` (see deliver());
everything else about scripted faults lives in faults.py.
"""

import asyncio
import http
import json
import socket
import struct
import sys
import time
import traceback
import urllib.parse

MAX_HEAD = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class BadRequest(Exception):
    """The bytes are not an acceptable HTTP request; status is what to answer."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Refusal(Exception):
    """Raised by a service to answer with an error response."""

    def __init__(self, response):
        super().__init__(response.status)
        self.response = response


class Request:
    __slots__ = ("method", "target", "path", "query", "headers", "body",
                 "connection", "keep_alive", "scheme", "_json")

    def __init__(self, method, target, headers, body, connection, keep_alive, scheme="http"):
        self.method = method
        self.target = target
        path, _, query = target.partition("?")
        self.path = path
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True)) if query else {}
        self.headers = headers
        self.body = body
        self.connection = connection
        self.keep_alive = keep_alive
        self.scheme = scheme
        self._json = None

    def json(self):
        """The body as JSON ({} when empty). Raises ValueError."""
        if self._json is None:
            self._json = json.loads(self.body) if self.body.strip() else {}
        return self._json

    def json_or_none(self):
        try:
            return self.json()
        except ValueError:
            return None

    @property
    def origin(self):
        """How the client calls us: what links in answers begin with."""
        return f"{self.scheme}://{self.headers.get('host', '127.0.0.1')}"

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode("utf-8", "replace"),
                                           keep_blank_values=True))


class Response:
    """status, headers and body; effect is None or a dict {"kind": ...}, see deliver()."""

    __slots__ = ("status", "headers", "body", "effect")

    def __init__(self, status, body=b"", headers=None, effect=None):
        self.status = status
        self.body = body
        self.headers = headers or {}
        self.effect = effect


def json_response(status, value, headers=None):
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(status, body, {"Content-Type": "application/json; charset=utf-8",
                                   **(headers or {})})


class Server:
    def __init__(self, handler):
        self.handler = handler
        self.connections = set()
        self.accepted = 0
        self.listeners = []
        self._date = (0, "")

    async def start(self, host, port, tls=None):
        """Listen, over TLS when a context is given; returns the port.  May be called more than once."""
        listener = await asyncio.start_server(
            self._connection, host, port, limit=MAX_HEAD, backlog=4096, reuse_address=True, ssl=tls)
        self.listeners.append(listener)
        return listener.sockets[0].getsockname()[1]

    async def stop(self):
        for listener in self.listeners:
            listener.close()
        for task in list(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)
        for listener in self.listeners:
            await listener.wait_closed()

    async def _connection(self, reader, writer):
        task = asyncio.current_task()
        self.connections.add(task)
        self.accepted += 1
        number = self.accepted
        try:
            while True:
                try:
                    request = await self._read(reader, writer, number)
                except BadRequest as problem:
                    response = json_response(problem.status, {"error": str(problem)})
                    await self._write(writer, response, "GET", False)
                    break
                if request is None:
                    break
                try:
                    response = await self.handler(request)
                except Exception:
                    traceback.print_exc(file=sys.stderr)
                    response = json_response(500, {"error": "the local cloud failed, see its stderr"})
                if not await self.deliver(writer, response, request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError):
            pass
        except asyncio.CancelledError:
            pass                    # only stop() cancels connections
        finally:
            self.connections.discard(task)
            writer.close()

    # -- reading ---------------------------------------------------------------

    async def _read(self, reader, writer, number):
        """The next request, or None at a clean end of the connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial.strip():
                raise BadRequest(400, "the request ended inside its headers") from None
            return None
        except asyncio.LimitOverrunError:
            raise BadRequest(431, "headers too long") from None
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequest(400, "malformed request line")
        method, target, version = parts
        if not target.startswith("/"):
            split = urllib.parse.urlsplit(target)        # absolute form
            target = (split.path or "/") + ("?" + split.query if split.query else "")
        headers = {}
        for line in lines[1:-2]:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise BadRequest(400, "malformed header line")
            name = name.lower()
            value = value.strip()
            headers[name] = headers[name] + ", " + value if name in headers else value
        connection = headers.get("connection", "").lower()
        keep_alive = "close" not in connection if version != "HTTP/1.0" else "keep-alive" in connection
        body = await self._read_body(reader, writer, headers)
        scheme = "https" if writer.get_extra_info("ssl_object") else "http"
        return Request(method, target, headers, body, number, keep_alive, scheme)

    async def _read_body(self, reader, writer, headers):
        coding = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if not coding and length is None:
            return b""
        if coding and coding != "chunked":
            raise BadRequest(501, "unknown transfer-encoding")
        if coding and length is not None:
            raise BadRequest(400, "both transfer-encoding and content-length")
        if not coding:
            if not length.isdigit():
                raise BadRequest(400, "malformed content-length")
            if int(length) > MAX_BODY:
                raise BadRequest(413, "body too large")
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not coding:
            return await reader.readexactly(int(length))
        pieces, total = [], 0
        while True:
            size_line = (await reader.readuntil(b"\r\n")).split(b";")[0].strip()
            try:
                size = int(size_line, 16)
            except ValueError:
                raise BadRequest(400, "malformed chunk") from None
            total += size
            if size < 0 or total > MAX_BODY:
                raise BadRequest(413, "body too large")
            if size == 0:
                while (await reader.readuntil(b"\r\n")) != b"\r\n":
                    pass            # trailers
                return b"".join(pieces)
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)

    # -- writing ---------------------------------------------------------------

    def _head(self, response, length, keep_alive):
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, http_date(now))
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}",
                 f"Date: {self._date[1]}"]
        for name, value in response.headers.items():
            lines.append(f"{name}: {value}")
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif response.status != 204 and response.status != 304 and response.status >= 200 \
                and not any(name.lower() == "content-length" for name in response.headers):
            lines.append(f"Content-Length: {length}")
        if not keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    async def _write(self, writer, response, method, keep_alive):
        bodiless = method == "HEAD" or response.status in (204, 304)
        head = self._head(response, len(response.body), keep_alive)
        writer.write(head if bodiless else head + response.body)
        await writer.drain()
        return keep_alive

    async def deliver(self, writer, response, request):
        """Write the response; false when the connection is to be closed."""
        effect = response.effect
        if effect is None:
            return await self._write(writer, response, request.method, request.keep_alive)
        kind = effect["kind"]
        if kind == "reset":
            reset(writer)
            return False
        if kind == "half":
            head = self._head(response, len(response.body), True)
            writer.write(head + response.body[:max(1, len(response.body) // 2)])
            await writer.drain()
            await asyncio.sleep(0.02)       # let the half arrive before the reset overtakes it
            reset(writer)
            return False
        if kind == "drip":
            writer.write(self._head(response, len(response.body), request.keep_alive))
            for byte in response.body:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(effect["drip_ms"] / 1000)
            return request.keep_alive
        if kind == "huge":
            return await self._huge(writer, response, request, effect)
        raise AssertionError(kind)

    async def _huge(self, writer, response, request, effect):
        """A JSON string of effect["mb"] megabytes, with a length or in chunks."""
        piece = b"x" * 65536
        count = effect["mb"] * 16
        opening, ending = b'{"padding":"', b'"}'
        chunked = effect.get("chunked", False)
        length = None if chunked else len(opening) + len(ending) + count * len(piece)
        writer.write(self._head(response, length, request.keep_alive))
        for index in range(count + 2):
            data = opening if index == 0 else ending if index == count + 1 else piece
            writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        return request.keep_alive


def reset(writer):
    """Close with a TCP reset, as a crashed peer or a broken balancer does."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def http_date(seconds):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
