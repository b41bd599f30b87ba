"""Passes connections to an address on to a port of the loopback, byte by byte.

    python3 test/cloud/relay.py ADDRESS PORT TARGET-PORT READY-FILE

For tests that give the local cloud an address of its own, in a network of their own.
"""

import asyncio
import pathlib
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main(address, port, target, ready):
    async def serve(reader, writer):
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", int(target))
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    server = await asyncio.start_server(serve, address, int(port))
    pathlib.Path(ready).touch()
    await server.serve_forever()

asyncio.run(main(*sys.argv[1:]))
