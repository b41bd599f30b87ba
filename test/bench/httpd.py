"""A server that answers 200 to everything, as fast as Python can, but /slow after 2 seconds; for the bench.

Prints its port.  Several processes share the port, so that the server is not what is measured.
"""

import asyncio
import os
import socket
import sys

SLOW = 2.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"


class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.pending = b""

    def data_received(self, data):
        """Requests without a body, or with a Content-Length that fits one read."""
        self.pending += data
        while True:
            head, found, rest = self.pending.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(rest) < length:
                return
            self.pending = rest[length:]
            if head.split(b" ", 2)[1] == b"/slow":
                asyncio.get_running_loop().call_later(SLOW, self.transport.write, ANSWER)
            else:
                self.transport.write(ANSWER)


async def serve(listener):
    server = await asyncio.get_running_loop().create_server(Answer, sock=listener, backlog=4096)
    await server.serve_forever()


def main(processes):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    asyncio.run(serve(listener))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
