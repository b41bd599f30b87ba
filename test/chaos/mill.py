"""Services whose work takes very many requests: lists of many pages, jobs, runs and statements that
go on for many looks, results of many chunks, queues that hardly ever hold anything.  One task asks
hundreds of times, and nothing has to be written down meanwhile.

    mill.py --dir DIR --seeds test/fuzz/seeds --seed N [--length 1000] [--certificate FILE --key FILE]

About how many requests a task makes is --length.  What an answer says is right; how it is said
changes from one to the next (chunked, compressed, interim answers, pieces, headers, members nobody
asked for), one of some is bad weather after which the same is asked again (5xx, 429, 401, web
pages, JSON that is none, answers that are cut, too short, too long or packed badly), and few are
damaged so that the task fails, which is what garbler.py is for.

DIR/mill.address holds http://127.0.0.1:PORT when it answers, and with a certificate a second line,
https://localhost:PORT.  GET /_count says how many requests were answered, of what kind, as JSON;
POST /_end brings everything to its end at the next look.  A request counts when an answer, whole
or not, was written, or the connection was cut instead.  One process, loopback only; SIGTERM ends it.
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import re
import ssl
import urllib.parse
import uuid
import zlib

from garbler import HEADERS, Garbler, read_seeds

# one of how many answers is bad weather, refuses the sign-in, or is damaged for good
WEATHER = 16
REFUSED = 3000
DAMAGED = 700
# of how many connections one is closed behind an answer
CLOSED = 40
JSON_TYPES = [b"application/json", b"application/json; charset=utf-8", b"application/problem+json", b"text/plain"]
REASONS = {200: b"OK", 202: b"Accepted", 204: b"No Content"}
PAGE = b"<!DOCTYPE html><html><head><title>Sign in &amp; go on</title></head><body>\xe2\x82\xac</body></html>"


def dump(value, ascii=True):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=ascii).encode()


class Mill:
    def __init__(self, garbler, length):
        self.garbler = garbler
        self.random = garbler.random
        self.length = length
        self.ending = False
        self.looks = {}             # of each service: how often a run is looked at before it has ended
        self.counts = {}
        self.number = 0
        self.noises = [dump(self.noise(4), n % 2 == 0) for n in range(300)]
        self.routes = [(re.compile(pattern.encode()), name, handler) for pattern, name, handler in (
            (r"/pages/(\w+)", "pages", self.pages), (r"/jobs(?:/(\d+))?$", "jobs", self.jobs), (r"/lro(?:/(\d+))?$", "lro", self.lro),
            (r"/api/2\.\d/jobs/(runs/)?([\w-]+)$", "databricks", self.databricks),
            (r"/api/2\.0/sql/statements(?:/([^/]+))?(?:/result/chunks/(\d+))?", "statements", self.statements),
            (r".*/factories/[^/]+/(\w+)(?:/([^/]+))?(?:/(\w+))?$", "adf", self.adf),
            (r".*/jobs/(?:\w+/)?instances(?:/([^/]+))?$", "fabric", self.fabric),
            (r"/lake", "storage", self.storage), (r"/secrets", "keyvault", self.vault),
            (r"/queues/([^/]+)/messages", "queue", self.queue), (r".*/token$", "token", self.token))]

    # -- what is said ------------------------------------------------------------

    def noise(self, depth):
        """A value of any shape, with what parsers stumble over."""
        choose = self.random
        how = choose.randrange(9 if depth > 0 else 6)
        if how < 2:
            return "".join(choose.choice(["a", "\u00e4", "\u20ac", "\U0001f600", "\n", "\"", "\\", "/", "\u007f", "\u0001", " " * 9]) for _ in range(choose.randrange(30)))
        if how < 4:
            return choose.choice([0, -1, 1.5, 2**53, -2**63, 10**20, 1e300, -0.0, 1e-300, choose.random()])
        if how < 6:
            return choose.choice([True, False, None, "", [], {}])
        if how < 8:
            return {f"{self.noise(0)}"[:20] + str(n): self.noise(depth - 1) for n in range(choose.randrange(5))}
        return [self.noise(depth - 1) for _ in range(choose.randrange(6))]

    def json(self, members, status=200, headers=b""):
        """An object with these members, in any order, and others."""
        choose = self.random
        parts = [b'"%s":%s' % (name.encode(), value if isinstance(value, bytes) else dump(value)) for name, value in members.items() if value is not None]
        for n in range(choose.choice([0, 0, 1, 2])):
            parts.insert(choose.randrange(len(parts) + 1), b'"noise%d":%s' % (n, choose.choice(self.noises)))
        space = choose.choice([b"", b"", b" ", b"\r\n\t"])
        return status, b"Content-Type: %s\r\n" % choose.choice(JSON_TYPES) + headers, space + b"{" + space + (b"," + space).join(parts) + space + b"}" + space

    def xml(self, text):
        return 200, b"Content-Type: application/xml\r\n", self.random.choice([b"\xef\xbb\xbf", b""]) + b'<?xml version="1.0" encoding="utf-8"?>' + text

    def begin(self, service, length):
        """A new run and its number."""
        length = max(length, 2)
        self.number += 1
        self.looks.setdefault(service, {})[self.number] = self.random.randrange(length // 2, length + length // 2 + 1)
        return self.number

    def goes_on(self, service, number):
        """Whether it does; whoever is not known (any more) has ended."""
        going = self.looks.setdefault(service, {})
        left = going.get(number, 0) - 1
        if left <= 0 or self.ending:
            going.pop(number, None)
            return False
        going[number] = left
        return True

    def going(self, service):
        """Those that go on, looked at once more."""
        return [number for number in list(self.looks.get(service, ())) if self.goes_on(service, number)]

    # -- services: (path's parts, method, query, body) -> (status, header lines, body) --

    def pages(self, parts, method, query, body):
        way, at = parts[0].decode(), int(query.get("at", ["0"])[0])
        if way == "body" and body:
            at = int((json.loads(body) or {}).get("at", 0))
        count = int(query.get("count", [str(self.length)])[0])
        more = at + 1 < count and not self.ending
        items = b'[{"n":%d}]' % at if more and self.random.randrange(4) else b"[]"
        if way == "number":
            return self.json({"items": b'[{"n":%d}]' % at if more else b"[]"})
        url = f"/pages/{way}?at={at + 1}&count={count}&text=%C3%A4{at % 7}"
        if way == "absolute":
            url = self.garbler.address.decode() + url
        if way == "link":
            return self.json({"items": items}, headers=b'Link: </x>; rel="prev", <%s>; rel="next"; title="a, b"\r\n' % url.encode() if more else b"")
        if way in ("cursor", "body"):
            return self.json({"items": items, "meta": {"next": at + 1 if more else None, "of": count}})
        return self.json({"items": items, "next": url if more else self.random.choice([None, b"null", b'""'])})

    def jobs(self, parts, method, query, body):
        if method == "POST":
            number = self.begin("jobs", self.length)
            return self.json({"id": str(number), "state": "queued", "links": {"status": f"/jobs/{number}"}}, 202, b"Location: /jobs/%d\r\n" % number)
        return self.json({"id": parts[0].decode(), "state": "running" if self.goes_on("jobs", int(parts[0])) else "done", "percent": self.random.randrange(100)})

    def lro(self, parts, method, query, body):
        if method == "POST":
            return 202, b"Location: /lro/%d\r\n" % self.begin("lro", self.length), b""
        number = int(parts[0])
        if self.goes_on("lro", number):
            return 202, b"Location: /lro/%d\r\n" % number, self.random.choice([b"", b"{}", self.json({"status": "Running"})[2]])
        return self.json({"rows": 7})

    def run(self, number, goes_on):
        state = {"life_cycle_state": "RUNNING"} if goes_on else {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}
        status = {"state": "RUNNING"} if goes_on else {"state": "TERMINATED", "termination_details": {"code": "SUCCESS", "type": "SUCCESS", "message": ""}}
        return {"run_id": number, "job_id": 102, "number_in_job": number, "state": state, "status": status if self.random.randrange(2) else None,
                "run_page_url": self.garbler.address.decode() + f"/?o=1#job/102/run/{number}", "start_time": 1795226400000,
                "tasks": [{"run_id": number + 10**9, "task_key": "wait", "state": state, "attempt_number": 0, "notebook_task": {"notebook_path": "/a"}}]}

    def databricks(self, parts, method, query, body):
        what = parts[1].decode()
        if what in ("run-now", "submit"):
            return self.json({"run_id": self.begin("databricks", self.length // 20), "number_in_job": 1})
        if what == "get":
            number = int(query.get("run_id", ["0"])[0])
            return self.json(self.run(number, self.goes_on("databricks", number)))
        if what == "list":
            going = self.going("databricks")
            first = int(query.get("page_token", ["0"])[0])
            runs = [self.run(number, True) for number in going[first:first + 5]]
            more = first + 5 < len(going)
            return self.json({"runs": runs if runs else None, "has_more": more, "next_page_token": str(first + 5) if more else None})
        if what == "get-output":
            return self.json({"metadata": {"run_id": 1}, "notebook_output": {"result": "{\"rows_read\":1}", "truncated": False}})
        return self.json({})

    def statements(self, parts, method, query, body):
        if method == "POST":
            return self.json({"statement_id": f"s-{self.begin('statements', 20)}", "status": {"state": "PENDING"}})
        name = parts[0].decode()
        if parts[1] is None and self.goes_on("statements", int(name[2:])):
            return self.json({"statement_id": name, "status": {"state": "RUNNING"}})
        index = int(parts[1] or 0)
        rows = [[str(index), None, "\u00e4" * (index % 9)]]
        following = index + 1 if index < 60 and not self.ending else None
        chunk = {"chunk_index": index, "row_offset": index, "row_count": 1, "data_array": rows, "next_chunk_index": following,
                 "next_chunk_internal_link": following and f"/api/2.0/sql/statements/{name}/result/chunks/{following}"}
        if parts[1] is not None:
            return self.json(chunk)
        columns = [{"name": name, "type_text": "STRING", "type_name": "STRING", "position": n} for n, name in enumerate("abc")]
        return self.json({"statement_id": name, "status": {"state": "SUCCEEDED"}, "result": chunk,
                          "manifest": {"format": "JSON_ARRAY", "schema": {"column_count": 3, "columns": columns}, "total_row_count": 61, "truncated": False}})

    def adf(self, parts, method, query, body):
        what, name, more = (part and part.decode() for part in parts)
        if what == "pipelines":
            return self.json({"runId": str(uuid.UUID(int=self.begin("adf", self.length // 20)))})
        if more == "queryActivityruns":
            return self.json({"value": [{"activityName": "w", "activityType": "Wait", "status": "Succeeded", "activityRunStart": "2026-01-01T00:00:00Z", "output": {"rowsRead": 3}}]})
        if what == "pipelineruns" and more is None:
            number = uuid.UUID(name).int
            return self.json({"runId": name, "pipelineName": "wait", "status": "InProgress" if self.goes_on("adf", number) else "Succeeded", "runStart": "2026-01-01T00:00:00.1234567Z",
                              "message": "", "pipelineReturnValue": {}})
        if what == "queryPipelineRuns":
            going = self.going("adf")
            first = int((json.loads(body) or {}).get("continuationToken") or 0)
            value = [{"runId": str(uuid.UUID(int=number)), "pipelineName": "wait", "status": "InProgress", "parameters": {"a": "b"}} for number in going[first:first + 5]]
            return self.json({"value": value, "continuationToken": str(first + 5) if first + 5 < len(going) else None})
        return self.json({})

    def fabric(self, parts, method, query, body):
        if method == "POST" and parts[0] is None:
            return 202, b"Location: %s/v1/workspaces/w/items/i/jobs/instances/%s\r\n" % (
                self.garbler.address, str(uuid.UUID(int=self.begin("fabric", self.length // 20))).encode()), b""
        if parts[0] is None:
            return self.json({"value": []})
        name = parts[0].decode()
        return self.json({"id": name, "itemId": str(uuid.UUID(int=10)), "jobType": "Pipeline", "invokeType": "Manual", "failureReason": b"null",
                          "status": "InProgress" if self.goes_on("fabric", uuid.UUID(name).int) else "Completed", "startTimeUtc": "2026-01-01T00:00:00"})

    def storage(self, parts, method, query, body):
        at = int(query.get("marker", ["0"])[0])
        count = 0 if self.ending else int(query.get("prefix", [str(self.length)])[0] or self.length)
        blobs = b"".join(
            b"<Blob><Name%s>%d/%d%s</Name><Properties><Last-Modified>Sat, 21 Nov 2026 02:00:00 GMT</Last-Modified><Etag>0x8D%d</Etag>"
            b"<Content-Length>%d</Content-Length><Content-MD5>AAAAAAAAAAAAAAAAAAAAAA==</Content-MD5></Properties>%s</Blob>" % (
                (b' Encoded="true"', count, at, b"/%C3%A4%EF%BF%BE", at, at, b"<Metadata><a>b</a></Metadata>") if self.random.randrange(9) == 0
                else (b"", count, at, b"/a&amp;&#228;&lt;\xc3\xa4", at, n, self.random.choice([b"", b"<!-- - --><x/>", b"<![CDATA[<a>]]>"])))
            for n in range(self.random.randrange(3)))
        marker = b"<NextMarker>%d</NextMarker>" % (at + 1) if at + 1 < count else b"<NextMarker />"
        return self.xml(b'<EnumerationResults ServiceEndpoint="x" ContainerName="lake"><Blobs>' + blobs + b"</Blobs>" + marker + b"</EnumerationResults>")

    def vault(self, parts, method, query, body):
        at = int(query.get("$skiptoken", ["0"])[0])
        value = [{"id": f"{self.garbler.address.decode()}/secrets/s{at}", "attributes": {"enabled": True, "created": 1, "updated": 2, "exp": 4102444800}, "tags": {"a": "\u00e4"}}]
        return self.json({"value": value, "nextLink": self.garbler.address.decode() + f"/secrets?api-version=7.4&$skiptoken={at + 1}" if at < self.length and not self.ending else b"null"})

    def queue(self, parts, method, query, body):
        if method != "GET":
            return 204 if method == "DELETE" else 201, b"", b""
        choose = self.random
        texts = [choose.choice([b"{}", b'{"token":"weir-a-1-1"}', b"nothing", b"&lt;a&gt;", b"eyJhIjoxfQ==", b"[" * 50, b"\xc3\xa4"]) for _ in range(32 if choose.randrange(2) else choose.choice([0, 0, 1, 5]))]
        if self.ending:
            texts = []
        return self.xml(b"<QueueMessagesList>" + b"".join(
            b"<QueueMessage><MessageId>%d</MessageId><InsertionTime>Sat, 21 Nov 2026 02:00:00 GMT</InsertionTime><PopReceipt>r%d</PopReceipt><DequeueCount>%d</DequeueCount>"
            b"<MessageText>%s</MessageText></QueueMessage>" % (n, n, choose.choice([1, 1, 1, 9]), text) for n, text in enumerate(texts)) + b"</QueueMessagesList>")

    def token(self, parts, method, query, body):
        self.number += 1
        return self.json({"token_type": "Bearer", "expires_in": self.random.choice([5, "60", 3599]), "access_token": "eyJ0eXAiOiJKV1QifQ.e30." + str(self.number)})

    # -- how it is said ----------------------------------------------------------

    def weather(self, name, status, headers, body):
        """Bytes after which the same is asked again, and whether the connection is cut behind them."""
        choose, garbler = self.random, self.garbler
        how = choose.randrange(13)
        code = choose.choice([500, 500, 502, 503, 504, 408])
        if how < 3:
            status, headers, body = code, b"Content-Type: application/json\r\n", choose.choice(garbler.everything)[2]
        elif how < 4 and choose.randrange(6):
            status, headers = 500, headers + b"Retry-After: 0\r\n"
        elif how < 4:
            status, headers, body = 429, b"Retry-After: %s\r\n" % choose.choice([b"0", b"0", b"1", b"-1", b"soon"]), b'{"error":{"code":"TooManyRequests","message":"slow"}}'
        elif how < 5:
            status, headers, body = code, b"Content-Type: text/html\r\n", garbler.damage(PAGE)
        elif how < 6:
            return b"", True
        packed = gzip.compress(body or b"{}", 1) if choose.randrange(2) else zlib.compress(body or b"{}", 1)
        lines = b"HTTP/1.1 %d Weather\r\n" % status + headers
        if how < 7:
            return lines + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(packed) // 2) + packed[:len(packed) // 2], True
        if how < 8:
            return lines + b"Content-Length: %d\r\n\r\n" % (len(body) + 10) + body, True
        if how < 9:
            whole = lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
            return whole[:choose.randrange(len(lines))], True
        if how < 10:
            return lines + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", True
        if how < 11:
            return choose.choice([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\xff", b"HTTP/9.9 -1\r\n\r\n", b"\0" * 40, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12000 + b"\r\n"]), True
        if how < 12 and name in ("databricks", "adf", "fabric", "storage", "keyvault", "queue", "statements"):
            body = choose.choice([PAGE, body[:len(body) // 2], garbler.damage(body[:-3]) + b"x", b"\xff\xfe{\0}\0", b""])
            return lines + b"Content-Length: %d\r\n\r\n" % len(body) + body, False
        return lines + b"Content-Length: %d\r\n\r\n" % len(body) + body, False

    def frame(self, status, headers, body):
        """The answer in one of many ways, and whether the connection is closed behind it."""
        choose = self.random
        how = choose.randrange(20)
        closes = choose.randrange(CLOSED) == 0
        head = b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, b"Whatever")) + headers
        if how == 0:
            head += choose.choice(HEADERS[13:15]) + b"\r\n"
        if how == 1:
            head = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * choose.randrange(3) + head
        if closes:
            head += b"Connection: close\r\n"
        if status == 204:
            return head + b"\r\n", closes
        if how < 6:
            at = choose.randrange(len(body) + 1)
            chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(part), choose.choice([b"", b";a=b"]), part) for part in (body[:at], body[at:]) if part)
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + choose.choice([b"", b"X-Trailer: 1\r\n"]) + b"\r\n", closes
        if how < 10 and body:
            packed, name = (gzip.compress(body, 1), b"gzip") if how < 8 else (zlib.compress(body, 1), b"deflate")
            return head + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (name, len(packed)) + packed, closes
        if closes and how < 15:
            return head + b"\r\n" + body, True
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, closes

    def answer(self, method, target, body):
        """(bytes, whether the connection is closed behind them)"""
        choose = self.random
        path, _, query = target.partition(b"?")
        for pattern, name, handler in self.routes:
            found = pattern.match(path)
            if found:
                break
        else:
            return self.frame(404, b"", b"{}")
        said = handler(found.groups(), method.decode(), urllib.parse.parse_qs(query.decode("latin-1"), keep_blank_values=True), body)
        kinds = self.counts.setdefault(name, [0, 0])
        kinds[0] += 1
        # what begins something is answered well: it is garbler.py that is for the others
        if self.ending or name == "token" or (method == b"POST" and b"query" not in path and b"/pages" not in path):
            return self.frame(*said)
        if choose.randrange(WEATHER) == 0:
            kinds[1] += 1
            return self.weather(name, *said)
        if choose.randrange(DAMAGED) == 0:
            kinds[1] += 1
            return self.garbler.answer_for("/x")
        if choose.randrange(REFUSED) == 0:
            kinds[1] += 1
            return self.frame(401, b'WWW-Authenticate: Bearer realm="x"\r\n', b'{"error":{"code":"ExpiredToken","message":"token expired"}}')
        return self.frame(*said)


class Connection(asyncio.Protocol):
    def __init__(self, mill):
        self.mill = mill
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        while not self.transport.is_closing():
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.data[:end + 4]
            length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.data) < whole:
                return
            body, self.data = self.data[end + 4:whole], self.data[whole:]
            self.answer(head, body)

    def answer(self, head, body):
        mill = self.mill
        method, target, _ = head.split(b" ", 2)
        if target == b"/_count":
            text = dump(mill.counts)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            return
        if target == b"/_end":
            mill.ending = True
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        said, closes = mill.answer(method, target, body)
        if len(said) > 1 and mill.random.randrange(60) == 0:
            # in two pieces; nothing else is asked on this connection meanwhile
            at = mill.random.randrange(1, len(said))
            self.transport.write(said[:at])
            asyncio.get_running_loop().call_later(0.003, self.rest, said[at:], closes)
            return
        self.rest(said, closes)

    def rest(self, said, closes):
        self.transport.write(said)
        if closes:
            self.transport.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--seeds", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    garbler = Garbler(read_seeds(options.seeds), options.seed)
    mill = Mill(garbler, max(options.length, 4))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(mill), "127.0.0.1", 0, backlog=1000)
    garbler.address = b"http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    text = garbler.address + b"\n"
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        secure = await loop.create_server(lambda: Connection(mill), "127.0.0.1", 0, ssl=context, backlog=1000)
        text += b"https://localhost:%d\n" % secure.sockets[0].getsockname()[1]
    file = os.path.join(options.dir, "mill.address")
    with open(file + ".new", "wb") as stream:
        stream.write(text)
    os.rename(file + ".new", file)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
