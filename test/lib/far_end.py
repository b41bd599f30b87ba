"""What is at the other end of a connection, as the tests of routes need it: a
TLS server that counts its connections and answers strangely when asked to, and
a proxy, with and without TLS, that says yes, no or nothing.

    far_end.py DIR      reads DIR/server.crt and server.key, writes DIR/ports.json

Everything listens on 127.0.0.1; the TLS server also on ::1 if there is one.
The port "control" answers GET /ledger, POST /reset, POST /proxy/MODE and POST
/value/TEXT, which becomes the value of secrets in a vault (/secrets/NAME/v1).
"""

import base64
import http.server
import json
import os
import socket
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cloud"))
from parent import end_with_parent

directory = sys.argv[1]
end_with_parent()
lock = threading.Lock()
state = {}
MB = 1024 * 1024
pause = threading.Event().wait       # how slow the other end is, not what a test waits for


def reset():
    with lock:
        state.update(mode="open", value="", tls=[], requests=[], connects=[], proxied=0)


reset()


def note(what, entry):
    with lock:
        state[what].append(entry)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context = None
    what = None

    def handle_error(self, request, client_address):
        pass

    def finish_request(self, request, client_address):
        if self.context is not None:
            request.settimeout(30)
            request = self.context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        if self.what is not None:
            note(self.what, client_address[1])
        self.RequestHandlerClass(request, client_address, self)
        try:
            request.close()
        except OSError:
            pass


class V6(Server):
    address_family = socket.AF_INET6


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "far"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"{}", **headers):
        self.send_response(status)
        headers.setdefault("Content-Type", "application/json")
        headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Far(Quiet):
    """Paths say what is wanted; whatever is unknown is fine."""

    def handle_any(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        url = urllib.parse.urlsplit(self.path)
        note("requests", {"method": self.command, "path": url.path, "headers": dict(self.headers.items()),
                          "body": body.decode("latin-1"), "port": self.client_address[1], "at": time.time()})
        query = dict(urllib.parse.parse_qsl(url.query))
        name = "do_" + url.path.rsplit("/", 1)[-1].replace("-", "_")
        if name in ("do_GET", "do_POST") or not hasattr(self, name):
            self.answer(200, json.dumps({"ok": True, "path": url.path}).encode())
            return
        try:
            getattr(self, name)(query)
        except (OSError, ValueError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

    def begin(self, *lines, length=None):
        head = ["HTTP/1.1 200 OK", "Content-Type: application/json", *lines]
        head.append("Content-Length: %d" % length if length is not None else "Connection: close")
        self.wfile.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        self.wfile.flush()
        self.close_connection = True

    def do_bomb(self, query):
        """Megabytes of blanks in a thousandth of the space"""
        self.begin("Content-Encoding: gzip")
        pack = zlib.compressobj(9, zlib.DEFLATED, 31)
        for _ in range(int(query.get("mb", "1024"))):
            self.wfile.write(pack.compress(b" " * MB))
        self.wfile.write(pack.flush())

    def do_packed(self, query):
        pack = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = pack.compress(json.dumps({"packed": "x" * 100000}).encode()) + pack.flush()
        self.answer(200, body, Content_Encoding="gzip")

    def do_broken(self, query):
        self.answer(200, b"this is not gzip at all", Content_Encoding="gzip")

    def do_layers(self, query):
        body = b" " * MB
        for _ in range(10):
            pack = zlib.compressobj(9, zlib.DEFLATED, 31)
            body = pack.compress(body) + pack.flush()
        self.answer(200, body, Content_Encoding=", ".join(["gzip"] * 10))

    def do_stall(self, query):
        """Begins, and then nothing"""
        self.begin(length=1000)
        self.wfile.write(b"{")
        self.wfile.flush()
        self.connection.recv(1)

    def do_trickle(self, query):
        self.begin(length=1000)
        for _ in range(1000):
            self.wfile.write(b" ")
            self.wfile.flush()
            pause(0.1)

    def do_steady(self, query):
        """Slow, but it goes on"""
        self.begin(length=6000)
        for n in range(20):
            self.wfile.write(b" " * 298 + (b"{}" if n == 0 else b"  "))
            self.wfile.flush()
            pause(0.2)

    def do_thinks(self, query):
        pause(float(query.get("seconds", "4")))
        self.answer(200)

    def do_hints(self, query):
        """Says early that it will answer, and thinks"""
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        self.wfile.flush()
        self.do_thinks(query)

    def do_many_headers(self, query):
        self.begin(*["X-Filler-%d: %s" % (n, "x" * 1000) for n in range(200)], length=2)
        self.wfile.write(b"{}")

    def do_lines(self, query):
        """As many lines as asked for, of changing length, and behind them where the next page is"""
        body = b'{"value": [1]}'
        self.begin(*["X-Filler-%d: %s" % (n, "x" * (n * 7 % 150)) for n in range(int(query["count"]))],
                   'Link: </last/page>; rel="next"', length=len(body))
        self.wfile.write(body)

    def do_page(self, query):
        self.answer(200, b'{"value": [2]}')

    def do_huge_header(self, query):
        self.begin("X-Filler: " + "x" * 500000, length=2)
        self.wfile.write(b"{}")

    def do_odd_headers(self, query):
        """A NUL, control characters, a lone CR, a folded line, bytes that are no text"""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Bell: a\x07b\rc\r\nX-Folded: one\r\n two\r\nX-Bytes: \xff\xfe\r\n"
                         b"Retry-After: \x01\r\nContent-Type: application/json\x0b\r\nContent-Length: 2\r\n\r\n{}")

    def do_nul_header(self, query):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Nul: a\x00b\r\nContent-Length: 2\r\n\r\n{}")
        self.close_connection = True

    def do_redirect(self, query):
        self.answer(int(query.get("status", "302")), Location=query["to"])

    def do_accepted(self, query):
        self.answer(202, Location=query["to"])

    def do_issue(self, query):
        """A token, whoever asks"""
        self.answer(200, b'{"access_token": "issued-by-the-far-end", "token_type": "Bearer", "expires_in": 3600}')

    def do_v1(self, query):
        """A secret of a key vault"""
        self.answer(200, json.dumps({"value": state["value"], "id": "https://far/secrets/x/v1"}).encode())

    def do_status(self, query):
        headers = {"Retry_After": query["after"]} if "after" in query else {}
        times = int(query.get("times", "1000"))
        path = urllib.parse.urlsplit(self.path).path
        with lock:
            seen = sum(1 for r in state["requests"] if r["path"] == path)
        if seen > times:
            self.answer(200)
        else:
            self.answer(int(query["status"]), b'{"error": {"code": "Busy", "message": "come back"}}', **headers)


class Proxy(Quiet):
    """CONNECT, and what the mode says"""

    def do_CONNECT(self):
        note("connects", {"target": self.path, "headers": dict(self.headers.items())})
        mode = state["mode"]
        self.close_connection = True
        if mode.isdigit():
            self.answer(int(mode), b"<html>no</html>", Proxy_Authenticate="Basic realm=\"x\"")
            return
        if mode.startswith("ways="):
            self.refuse(*mode[len("ways="):].split(","))
            return
        if mode.startswith(("user=", "third=")) and not self.is_signed_in(mode):
            self.refuse('Basic realm="x"')
            return
        if mode == "close":
            return
        if mode == "silent":
            self.connection.recv(1)
            return
        host, _, port = self.path.rpartition(":")
        try:
            far = socket.create_connection((host.strip("[]"), int(port)), timeout=20)
        except OSError:
            self.answer(502, b"unreachable")
            return
        self.send_response_only(200, "go on")
        self.send_header("X-From-Proxy", "yes")
        self.end_headers()
        self.wfile.flush()
        far.settimeout(None)
        back = threading.Thread(target=pump, args=(far, self.connection), daemon=True)
        back.start()
        pump(self.connection, far)
        back.join()

    def is_signed_in(self, mode):
        """user=USER:PASSWORD; third= knows nobody before the third time"""
        kind, _, expected = mode.partition("=")
        if kind == "third" and len(state["connects"]) < 3:
            return False
        return self.headers.get("Proxy-Authorization") == "Basic " + base64.b64encode(expected.encode()).decode()

    def refuse(self, *ways):
        body = b"<html>who are you?</html>"
        self.send_response(407)
        for way in ways:
            self.send_header("Proxy-Authenticate", way)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            state["proxied"] += 1
        self.answer(200, b'{"from": "proxy"}')

    do_POST = do_GET


def pump(source, target):
    try:
        while True:
            data = source.recv(65536)
            if not data:
                break
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Control(Quiet):
    def do_GET(self):
        with lock:
            body = json.dumps(state).encode()
        self.answer(200, body)

    def do_POST(self):
        if self.path == "/reset":
            reset()
        elif self.path.startswith("/proxy/"):
            with lock:
                state["mode"] = urllib.parse.unquote(self.path[len("/proxy/"):])
        elif self.path.startswith("/value/"):
            with lock:
                state["value"] = urllib.parse.unquote(self.path[len("/value/"):])
        self.answer(200)


def serve(handler, family=Server, tls=False, what=None, port=0):
    server = family(("::1" if family is V6 else "127.0.0.1", port), handler)
    if tls:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(os.path.join(directory, "server.crt"), os.path.join(directory, "server.key"))
        server.context.set_alpn_protocols(["http/1.1"])
    server.what = what
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


ports = {
    "tls": serve(Far, tls=True, what="tls"),
    "plain": serve(Far),
    "proxy": serve(Proxy),
    "tls_proxy": serve(Proxy, tls=True),
    "control": serve(Control),
}
try:
    ports["tls6"] = serve(Far, family=V6, tls=True, what="tls")
except OSError:
    pass

temporary = os.path.join(directory, "ports.new")
with open(temporary, "w") as file:
    json.dump(ports, file)
os.rename(temporary, os.path.join(directory, "ports.json"))
threading.Event().wait()
