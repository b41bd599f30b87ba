"""A service that answers what no service would: the answers of test/fuzz/seeds with
bytes, headers or the frame of HTTP damaged.

    garbler.py --dir DIR --seeds test/fuzz/seeds --seed N

Which answers it begins with is said by the first part of the path: the name of a kind of
task, or "token" and "secret" for what sign-in asks; "pages" gets list after list, each with
a link to the next; anything else gets any.
DIR/garbler.address holds http://127.0.0.1:PORT when it answers, and a second line with the
port at which it answers as Redis.  GET /_count says how many requests were answered, then
how many commands.  One process, loopback only; SIGTERM ends it.
"""

import argparse
import asyncio
import gzip
import os
import pathlib
import random
import re

import garbler_redis

TOKENS = [
    b'{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"eyJ0eXAiOiJKV1QifQ.e30.c2ln","refresh_in":1800}',
    b'{"token_type":"Bearer","expires_in":"86399","expires_on":"1795312799","access_token":"abc","resource":"https://x/"}',
    b'{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 1","error_codes":[7000215]}',
    b'{"error":"temporarily_unavailable","error_description":"AADSTS90033: A transient error has occurred. Current time: 2026-11-21T02:00:30Z"}',
]
SECRETS = [
    b'{"value":"abc","id":"https://vault/secrets/a/0123456789abcdef0123456789abcdef","attributes":{"enabled":true,"exp":4102444800}}',
    b'{"error":{"code":"SecretNotFound","message":"A secret with (name/id) a was not found in this key vault."}}',
]
WORDS = [b'"', b"\\", b"{", b"}", b"[", b"]", b"null", b"-1", b"9223372036854775807", b"1e999", b"\\u0000", b"\\ud800", b"\xff", b"\xc3",
         b"\xf4\x90\x80\x80", b"\r\n", b"\0", b"<", b"</", b"&amp", b"<!DOCTYPE a>", b"]]>", b"://", b"%00", b"{{ run.id }}"]
HEADERS = [b"Retry-After: 1", b"Retry-After: Sat, 21 Nov 2026 02:00:00 GMT", b"retry-after:\t", b"Location: /x",
           b"Location: http://127.0.0.1:1/", b"Location: //evil.example/", b"Location: ://", b"Link: <>; rel=next", b"Link: <<", b"ETag", b": x", b" folded",
           b"X: " + b"a" * 5000, b"Set-Cookie: a=b", b"Content-Type: text/html; charset=\xff", b"Date: never", b"Content-Length: -1",
           b"Content-Length: 99999999999999999999", b"Transfer-Encoding: gzip", b"Content-Encoding: br", b"Connection: upgrade\r\nUpgrade: h2c", b"X-\0: y"]
BOMB = gzip.compress(b'{"a":"' + b"a" * 3000000 + b'"}')


def read_seeds(folder):
    """{kind: [(status, headers, body)]} of the answers in the seeds of target "kind"."""
    answers = {"token": [(200, b"", body) for body in TOKENS], "secret": [(200, b"", body) for body in SECRETS]}
    for file in sorted(pathlib.Path(folder, "kind").iterdir()):
        text = file.read_bytes()
        kind = re.match(rb"=== kind (\w+)", text)
        if kind is None:
            continue
        for part in re.split(rb"\n=== ", text):
            found = re.match(rb"answer (\d{3})[^\n]*\n", part)
            if found:
                headers, _, body = part[found.end():].partition(b"\n") if part[found.end():].startswith(b"\n") \
                    else part[found.end():].partition(b"\n\n")
                answers.setdefault(kind[1].decode(), []).append((int(found[1]), headers, body))
    return answers


class Garbler:
    def __init__(self, answers, seed):
        self.answers = answers
        self.everything = [answer for some in answers.values() for answer in some]
        self.random = random.Random(seed)
        self.count = 0
        self.redis_count = 0
        self.address = b""

    def damage(self, data):
        choose = self.random
        data = bytearray(data)
        for _ in range(choose.choice([0, 1, 1, 2, 4])):
            at = choose.randrange(len(data) + 1)
            how = choose.randrange(5)
            if how == 0 and at < len(data):
                data[at] = choose.randrange(256)
            elif how == 1:
                del data[at:at + choose.choice([1, 2, 8, 100])]
            elif how == 2 and choose.randrange(4) == 0:
                del data[at:]
            elif how == 3:
                body = choose.choice(self.everything)[2]
                start = choose.randrange(len(body) + 1)
                data[at:at] = body[start:start + choose.randrange(100)]
            else:
                data[at:at] = choose.choice(WORDS)
        return bytes(data)

    def page(self, path):
        """One of a list's pages, hardly ever such that the list cannot go on."""
        choose = self.random
        items = b",".join(b'{"id":%d,"text":"%s"}' % (choose.randrange(10**9), re.sub(rb"[^ -!#-[\]-~]", b"\xc3\xa4", self.damage(b"abc" * choose.randrange(9))))
                          for _ in range(10))
        body = b'{"items":[%s],"next":"%s/%d"}' % (items, self.address + path.rsplit("/", 1)[0].encode("latin-1"), choose.randrange(10**9))
        return self.frame(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", body, choose.randrange(84))

    def answer_for(self, path):
        """The whole answer, and whether the connection is cut behind it."""
        choose = self.random
        if path.startswith("/pages/") and choose.randrange(80):
            return self.page(path)
        status, headers, body = choose.choice(self.answers.get(path.split("/")[1], self.everything))
        if choose.randrange(5) == 0:
            status = choose.choice([200, 201, 202, 204, 301, 307, 400, 401, 403, 404, 409, 412, 429, 500, 503])
        body = self.damage(body).replace(b"https://base", self.address)
        lines = [line for line in headers.replace(b"https://base", self.address).split(b"\n") if line]
        for _ in range(choose.choice([0, 0, 1, 3])):
            lines.insert(choose.randrange(len(lines) + 1), choose.choice(HEADERS[:11] if choose.randrange(4) else HEADERS))
        # what means "come back later" is said seldom, or nothing else would be heard
        if choose.randrange(8):
            lines = [line for line in lines if not line.lower().startswith(b"retry-after")]
        head = b"HTTP/1.1 %d Whatever\r\n" % status + b"".join(line + b"\r\n" for line in lines)
        return self.frame(head, body, choose.randrange(1000) / 10)

    def frame(self, head, body, how):
        choose = self.random
        if how < 70:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, False
        if how < 76:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: 1\r\n\r\n", False
        if how < 82:
            packed = gzip.compress(body)
            return head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed, False
        if how < 84:
            packed = self.damage(gzip.compress(body * 3))
            return head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed, False
        if how < 86:
            return self.damage(head + b"Content-Length: %d\r\n\r\n" % len(body) + body), True
        if how < 88:
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + self.damage(b"5\r\nabcde\r\nffffffffffffffff\r\n0\r\n\r\n"), True
        if how < 90:
            return head + b"Content-Length: %d\r\n\r\n" % (len(body) + 10) + body, True
        if how < 92:
            return head + b"Content-Length: %d\r\n\r\n" % max(0, len(body) - 5) + body, True
        if how < 94:
            return b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head + b"Content-Length: 2\r\n\r\n{}", False
        if how < 94.2:          # what is big is said seldom: it takes long
            return head + b"X-Many: 1\r\n" * 9000 + b"\r\n", True
        if how < 94.4:
            packed = BOMB
            return head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed, False
        if how < 96:
            return body, True
        if how < 97.5:
            return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(choose.randrange(256) for _ in range(40)), True
        return b"", True

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("latin-1")
                length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
                if length:
                    await reader.readexactly(int(length[1]))
                if path == "/_count":
                    text = b"%d %d" % (self.count, self.redis_count)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
                    continue
                self.count += 1
                answer, cut = self.answer_for(path)
                if answer and self.random.randrange(50) == 0:
                    half = self.random.randrange(len(answer))
                    writer.write(answer[:half])
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    answer = answer[half:]
                writer.write(answer)
                await writer.drain()
                if cut:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, IndexError):
            pass
        finally:
            writer.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--seeds", required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    garbler = Garbler(read_seeds(options.seeds), options.seed)
    redis = await asyncio.start_server(garbler_redis.make_server(garbler), "127.0.0.1", 0)
    server = await asyncio.start_server(garbler.serve, "127.0.0.1", 0, backlog=1000)
    garbler.address = b"http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    file = os.path.join(options.dir, "garbler.address")
    with open(file + ".new", "wb") as stream:
        stream.write(b"%s\n%d\n" % (garbler.address, redis.sockets[0].getsockname()[1]))
    os.rename(file + ".new", file)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
