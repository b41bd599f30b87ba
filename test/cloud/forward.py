"""Requests for a real storage server, passed on as they are, with faults and a ledger on the way.

A test starts the server (an emulator of storage accounts, whose accounts are the first segment of
the path) and names it in the setting "storage"; every request below /devstoreaccount1/ then goes
there, byte for byte, so signatures stay good.  `started` is true for a change that was accepted.
"""

import asyncio
import urllib.parse

from server import Response, json_response

PREFIX = "/devstoreaccount1/"
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}


class Forward:
    def __init__(self, settings, ledger):
        self.settings = settings
        self.ledger = ledger

    def route(self, request, path):
        parts = path.strip("/").split("/", 2)
        query = request.query
        if query.get("comp") == "list":
            name = "list"
        elif len(parts) < 3:
            name = "container"
        elif "x-ms-copy-source" in request.headers:
            name = "copy"
        else:
            name = request.method.lower()
        return "storage." + name, {}, self.handle

    async def handle(self, request, entry):
        if self.settings.storage is None:
            return json_response(404, {"error": "no storage server is configured"})
        target = urllib.parse.urlsplit(self.settings.storage)
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            lines = [f"{request.method} {request.target} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in request.headers.items() if name not in ("connection", "transfer-encoding")]
            writer.write(("\r\n".join(lines) + "\r\nconnection: close\r\n\r\n").encode("latin-1") + request.body)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            body = b"" if request.method == "HEAD" else await reader.read()
        finally:
            writer.close()
        status = int(head[0].split(" ")[1])
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            headers[name.strip()] = value.strip()
        lower = {name.lower(): value for name, value in headers.items()}
        if lower.get("transfer-encoding", "").lower() == "chunked":
            body = unchunk(body)
        kept = {name: value for name, value in headers.items()
                if name.lower() not in HOP or (name.lower() == "content-length" and request.method == "HEAD")}
        if status < 300 and request.method in ("PUT", "DELETE", "POST"):
            self.ledger.mark_started(entry)
        return Response(status, body, kept)


def unchunk(body):
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        size = int(size.split(b";")[0], 16)
        if size == 0:
            break
        pieces.append(body[:size])
        body = body[size + 2:]
    return b"".join(pieces)
