"""Stands between a client and a server of any protocol over TCP and cuts at a chosen byte.

    python3 test/cloud/streamcutter.py --target PORT --address-file FILE

Clients connect to the first port in the file, the test to the second, and says one JSON object a line:

    {"do": "plan", "direction": "to", "after": 170, "manner": "reset"}
                        from now on so many bytes of all connections go to (or come from) the server; then
                        reset       both sides get a TCP reset
                        close       both sides see an orderly end
                        freeze      nothing more passes, on this connection, until the client or the server has gone
    {"do": "state"}     {"to": bytes, "from": bytes, "frozen": connections, "done": whether it was cut}
"""

import argparse
import asyncio
import json
import os

from cutter import reset


class Cutter:
    def __init__(self, target):
        self.target = target
        self.start()

    def start(self, direction=None, after=0, manner=None):
        self.direction, self.after, self.manner = direction, after, manner
        self.passed = {"to": 0, "from": 0}
        self.frozen = 0
        self.done = False

    def state(self):
        return {**self.passed, "frozen": self.frozen, "done": self.done}

    async def serve(self, reader, writer):
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        link = {"writers": (writer, upstream[1]), "held": asyncio.Event(), "gone": asyncio.Event()}
        await asyncio.gather(self.pump("to", reader, upstream[1], link), self.pump("from", upstream[0], writer, link))
        for one in link["writers"]:
            one.close()

    async def pump(self, direction, reader, writer, link):
        try:
            while data := await reader.read(65536):
                if link["held"].is_set():
                    continue
                left = self.after - self.passed[direction]
                if not self.done and self.direction == direction and len(data) > left:
                    self.done = True
                    if self.manner == "freeze":
                        link["held"].set()
                        self.frozen += 1
                    writer.write(data[:left])
                    await writer.drain()
                    self.passed[direction] += left
                    if self.manner == "freeze":
                        continue
                    await asyncio.sleep(0.005)      # what was passed on arrives before the end
                    if self.manner == "reset":
                        for one in link["writers"]:
                            reset(one)
                    break
                writer.write(data)
                await writer.drain()
                self.passed[direction] += len(data)
        except OSError:
            pass
        if link["held"].is_set() and not link["gone"].is_set():
            link["gone"].set()
            self.frozen -= 1
        for one in link["writers"]:
            one.close()

    async def control(self, reader, writer):
        while line := await reader.readline():
            wanted = json.loads(line)
            if wanted.pop("do") == "plan":
                self.start(**wanted)
            writer.write(json.dumps(self.state()).encode() + b"\n")
            await writer.drain()
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description="Cuts connections at a chosen byte.")
    parser.add_argument("--target", type=int, required=True)
    parser.add_argument("--address-file", required=True, help="where to write both ports once it is ready")
    arguments = parser.parse_args()
    cutter = Cutter(arguments.target)
    servers = [await asyncio.start_server(one, "127.0.0.1", 0) for one in (cutter.serve, cutter.control)]
    temporary = f"{arguments.address_file}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as stream:
        stream.write(" ".join(str(one.sockets[0].getsockname()[1]) for one in servers))
    os.replace(temporary, arguments.address_file)
    await asyncio.gather(*(one.serve_forever() for one in servers))


asyncio.run(main())
