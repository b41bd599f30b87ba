"""Stands between a client and the local cloud and cuts exchanges at a chosen byte.

    python3 test/cloud/cutter.py --target PORT --address-file FILE

Every client that is to be cut has a name, by the first segment of its paths: /as-NAME/... (the
cloud takes it off and puts it into its ledger as the caller).  A plan says what to cut:

    POST /_cutter/plan {"rules": [{"name": "start", "method": "POST", "path": "/jobs/runs/submit"}, ...],
                        "cuts": {"NAME": {"start": ["request", 17, "reset"], ...}}}

A rule is for exchanges of that method (any, if it names none) whose path (without /as-NAME) matches
the regular expression, of callers whose names begin with "callers"; of one that says "nth": N only the
caller's Nth exchange (from 0) is cut, which is 0 unless said otherwise.  A storage server that is real
knows no such paths: there a caller's name is the first part of its blobs' names.  A cut is where,
after how many bytes, and how:

    request     so many bytes of the request reach the cloud (all of them: it is carried out,
                and no byte of the answer comes back)
    response    the cloud has answered, and so many bytes of the answer come back

    reset       both sides get a TCP reset
    close       both sides see an orderly end
    freeze      nothing more passes until the client has gone; what was on its way is lost
    late        the same, but the rest of the request then arrives, as a network may do

    POST /_cutter/hold-no-more          what was not frozen so far passes; other cuts stay

    GET /_cutter/state {"done": [{"caller", "rule", "where", "position", "length", "manner", "held", "seconds"}], "frozen": N,
                        "lengths": {"RULE": [of the longest request, of the longest answer]}}

Of what freezes "held" says whether it still is, and "seconds" for how long it was.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import socket
import struct
import time

HEAD_END = b"\r\n\r\n"
CALLER = re.compile(r"/as-([0-9A-Za-z_.-]+)(/.*)$")
HOLDS = ("freeze", "late")
BLOBS_OF = re.compile(r"/devstoreaccount1/[a-z0-9-]+/([0-9A-Za-z_.-]+)/")


class Rule:
    def __init__(self, spec):
        self.name = spec["name"]
        self.method = spec.get("method")
        self.callers = spec.get("callers", "")
        self.path = re.compile(spec["path"])
        self.nth = int(spec.get("nth", 0))
        self.exact = self.method is None    # lengths of the Nth exchange alone
        self.seen = {}                      # caller -> exchanges
        self.lengths = [0, 0]

    def matches(self, caller, method, path):
        return caller.startswith(self.callers) and self.method in (None, method) and self.path.search(path)


class Cutter:
    def __init__(self, target):
        self.target = target
        self.rules = []
        self.cuts = {}
        self.done = []
        self.frozen = 0

    def plan(self, wanted):
        self.rules = [Rule(spec) for spec in wanted["rules"]]
        self.cuts = wanted["cuts"]
        self.done = []

    def hold_no_more(self):
        self.cuts = {caller: {rule: cut for rule, cut in cuts.items() if cut[2] not in HOLDS} for caller, cuts in self.cuts.items()}

    def state(self):
        return {"done": self.done, "frozen": self.frozen, "lengths": {rule.name: rule.lengths for rule in self.rules}}

    def find(self, method, path):
        """(caller, rules that measure the exchange, the first cut that is due or None)"""
        found = CALLER.match(path) or BLOBS_OF.match(path)
        if not found:
            return None, [], None
        caller, path = found[1], found[2] if found.re is CALLER else path
        rules = [rule for rule in self.rules if rule.matches(caller, method, path)]
        due, measured = None, []
        for rule in rules:
            number = rule.seen.get(caller, 0)
            rule.seen[caller] = number + 1
            if number == rule.nth or not rule.exact:
                measured.append(rule)
            if due is None and number == rule.nth and rule.name in self.cuts.get(caller, {}):
                due = (rule, *self.cuts[caller].pop(rule.name))
        return caller, measured, due

    async def serve(self, reader, writer):
        upstream = None
        try:
            while True:
                request = await message(reader)
                if request is None:
                    break
                method, path = request.split(b" ", 2)[:2]
                method, path = method.decode("latin-1"), path.decode("latin-1")
                if path.startswith("/_cutter/"):
                    await self.control(method, path, request, writer)
                    continue
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self.target)
                if not await self.exchange(method, path, request, reader, writer, upstream):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()

    async def exchange(self, method, path, request, reader, writer, upstream):
        """False: that was the connection's last."""
        caller, rules, due = self.find(method, path)
        if due is not None:
            rule, where, position, manner = due
            entry = {"caller": caller, "rule": rule.name, "where": where, "position": position, "manner": manner}
            self.done.append(entry)
            if where == "request":
                entry["length"] = len(request)
                await self.cut(entry, request, position, reader, writer, upstream, upstream[1], manner)
                return False
        upstream[1].write(request)
        await upstream[1].drain()
        answer = await message(upstream[0], method == "HEAD")
        if answer is None:
            return False
        for rule in rules:
            rule.lengths = [max(rule.lengths[0], len(request)), max(rule.lengths[1], len(answer))]
        if due is not None:
            entry["length"] = len(answer)
            await self.cut(entry, answer, min(position, len(answer) - 1), reader, writer, upstream, writer, manner)
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def cut(self, entry, data, position, reader, writer, upstream, to, manner):
        """Pass the first bytes on, and no more."""
        to.write(data[:position])
        await to.drain()
        if manner in HOLDS:
            self.frozen += 1
            entry["held"], begun = True, time.monotonic()
            while await gone(reader):
                pass
            self.frozen -= 1
            entry["held"], entry["seconds"] = False, round(time.monotonic() - begun, 1)
            if manner == "late" and to is not writer:
                to.write(data[position:])
                await message(upstream[0])
        elif to is writer:
            await asyncio.sleep(0.01)       # what was passed on arrives before the reset
        elif position == len(data):
            await message(upstream[0])      # carried out
        if manner == "reset":
            reset(writer)
            reset(upstream[1])

    async def control(self, method, path, request, writer):
        status, answer = 200, {}
        if (method, path) == ("POST", "/_cutter/plan"):
            self.plan(json.loads(request.split(HEAD_END, 1)[1]))
        elif (method, path) == ("POST", "/_cutter/hold-no-more"):
            self.hold_no_more()
        elif (method, path) == ("GET", "/_cutter/state"):
            answer = self.state()
        else:
            status = 404
        body = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


async def gone(reader):
    """One read of a client that has nothing more to say: b"" when it has gone."""
    try:
        return await reader.read(65536)
    except OSError:
        return b""


async def message(reader, bodiless=False):
    """The bytes of one request or answer, as they came; None at a clean end."""
    try:
        head = await reader.readuntil(HEAD_END)
    except asyncio.IncompleteReadError:
        return None
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
    first = head.split(b" ", 2)[1]
    if bodiless or first in (b"204", b"304"):
        return head
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        pieces = [head]
        while True:
            line = await reader.readuntil(b"\r\n")
            pieces += [line, await reader.readexactly(int(line, 16) + 2)]
            if int(line, 16) == 0:
                return b"".join(pieces)
    return head + await reader.readexactly(int(headers.get(b"content-length", b"0")))


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main():
    parser = argparse.ArgumentParser(description="Cuts exchanges with the local cloud at a chosen byte.")
    parser.add_argument("--target", type=int, required=True, help="port of the local cloud")
    parser.add_argument("--address-file", required=True, help="where to write http://127.0.0.1:PORT once it is ready")
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    cutter = Cutter(arguments.target)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0, limit=16 * 1024 * 1024, backlog=4096)
    temporary = f"{arguments.address_file}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as stream:
        stream.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    os.replace(temporary, arguments.address_file)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
