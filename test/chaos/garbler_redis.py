"""The part of garbler.py that pretends to be Redis: it knows the commands that weir
sends, remembers what it was told, and answers some of them with damage."""

import asyncio

# one of how many answers is damaged
ONE_OF = 60

ERRORS = [b"-ERR \xff\xfe unknown", b"-LOADING Redis is loading the dataset in memory", b"-MOVED 1 127.0.0.1:1", b"-MOVED 1 ", b"-MOVED",
          b"-OOM command not allowed", b"-READONLY", b"-NOAUTH Authentication required.", b"-WRONGPASS " + b"a" * 3000, b"-", b"-EXECABORT x"]
REPLIES = [b"$-1", b"*-1", b"*0", b":-1", b":9223372036854775807", b":-9223372036854775808", b"+", b"+OK", b"$0\r\n", b"$3\r\n\xff\xfe\x80",
           b"*1000000", b"*9223372036854775807", b"$67108864", b"$99999999999", b"*1\r\n*1\r\n*1\r\n*1\r\n*1", b"*2\r\n:1\r\n:2", b"*2\r\n$-1\r\n$-1",
           b"*2\r\n*0\r\n$-1", b"%1\r\n+a\r\n+b", b"_", b"#t", b",1.5", b"HTTP/1.1 400 Bad Request", b"*2\r\n$19\r\n9223372036854775807\r\n$1\r\n0"]


def bulk(text):
    return b"$-1" if text is None else b"$%d\r\n%s" % (len(text), text)


def array(items):
    return b"\r\n".join([b"*%d" % len(items), *items])


class Memory:
    """What one connection has told: hashes, lists and strings in one place."""

    def __init__(self, choose):
        self.choose = choose
        self.keys = {}
        self.queued = None

    def run(self, command):
        name, rest = command[0].upper(), command[1:]
        if name == b"MULTI":
            self.queued = []
            return b"+OK"
        if name == b"EXEC":
            queued, self.queued = self.queued or [], None
            return array([self.answer(queued_name, queued_rest) for queued_name, queued_rest in queued])
        if self.queued is not None:
            self.queued.append((name, rest))
            return b"+QUEUED"
        return self.answer(name, rest)

    def answer(self, name, rest):
        keys = self.keys
        if name == b"HSET":
            fields = keys.setdefault(rest[0], {})
            fields.update(zip(rest[1::2], rest[2::2]))
            return b":%d" % (len(rest) // 2)
        if name == b"RPUSH":
            keys.setdefault(rest[0], []).extend(rest[1:])
            return b":%d" % len(keys[rest[0]])
        if name == b"SET":
            keys[rest[0]] = rest[1]
            return b"+OK"
        if name == b"GET":
            kept = keys.get(rest[0])
            return bulk(kept if isinstance(kept, bytes) else self.choose.choice([None, b"weir-a-1-1", b"\xff\xfe", b"a" * 5000]))
        if name == b"HGETALL":
            kept = keys.get(rest[0], {})
            if not kept:
                kept = self.choose.choice([{}, {b"weir-a-1-1": b"writing", b"\xff": b"x"}])
            return array([bulk(text) for pair in kept.items() for text in pair])
        if name == b"LRANGE":
            kept = keys.get(rest[0], [])
            return array([bulk(text) for text in kept[int(rest[1]):int(rest[2]) + 1]])
        if name == b"LLEN":
            return b":%d" % len(keys.get(rest[0], []))
        if name == b"EXISTS":
            return b":%d" % sum(key in keys for key in rest)
        if name == b"TIME":
            return array([bulk(b"1795226400"), bulk(b"0")])
        if name in (b"UNLINK", b"HDEL", b"PEXPIRE", b"PEXPIREAT", b"HEXISTS"):
            return b":1"
        return b"+PONG" if name == b"PING" else b"+OK"


async def read_command(reader):
    head = await reader.readline()
    if not head.startswith(b"*"):
        raise ConnectionError
    parts = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        parts.append((await reader.readexactly(length + 2))[:-2])
    return parts


def make_server(garbler):
    """For asyncio.start_server()."""
    choose = garbler.random

    def damaged(reply):
        how = choose.randrange(4)
        if how == 0:
            return choose.choice(ERRORS) + b"\r\n"
        if how == 1:
            return choose.choice(REPLIES) + b"\r\n"
        return garbler.damage(reply)

    async def serve(reader, writer):
        memory = Memory(choose)
        try:
            while True:
                reply = memory.run(await read_command(reader)) + b"\r\n"
                garbler.redis_count += 1
                if choose.randrange(ONE_OF) == 0:
                    reply = damaged(reply)
                    if choose.randrange(3) == 0:
                        writer.write(reply[:choose.randrange(len(reply) + 1)])
                        break
                if choose.randrange(50) == 0:
                    half = choose.randrange(len(reply) + 1)
                    writer.write(reply[:half])
                    await writer.drain()
                    await asyncio.sleep(0.005)
                    reply = reply[half:]
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, IndexError):
            pass
        finally:
            writer.close()

    return serve
