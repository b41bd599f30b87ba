"""What the sessions of the vendors' SDKs share: a local cloud of their own, also over TLS, and counting.

    with LocalCloud() as cloud:
        check("it answers", control(cloud.address, "echo")["ok"])
    sys.exit(summary())
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

CLOUD = pathlib.Path(__file__).resolve().parent.parent / "cloud.py"
counts = {"passed": 0, "failed": 0}


def check(name, condition, detail=None):
    counts["passed" if condition else "failed"] += 1
    if not condition:
        print(f"not ok: {name}" + ("" if detail is None else f": {detail}"[:900]))


def refused(action, kind):
    """The error of `kind` that action raises, or None."""
    try:
        action()
    except kind as error:
        return error
    return None


def until(read, satisfied, seconds=60):
    """What read() returns once it satisfies; the limit only ends a hang."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if satisfied(value) or time.monotonic() > deadline:
            return value
        time.sleep(0.005)


def summary():
    """Says how it went, in one line; the exit status."""
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return 1 if counts["failed"] or not counts["passed"] else 0


def post(address, path, body, form=False, headers=None):
    data = urllib.parse.urlencode(body) if form else json.dumps(body)
    with urllib.request.urlopen(urllib.request.Request(address + path, data.encode(), headers or {})) as answer:
        return json.load(answer)


def control(address, path):
    with urllib.request.urlopen(f"{address}/_cloud/{path}") as answer:
        return json.load(answer)


def openssl(*arguments, text=None):
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True).stdout


def make_certificate(directory, name, *more):
    """A key and a certificate of its own, NAME.key and NAME.crt; returns the path without the suffix."""
    base = str(pathlib.Path(directory) / name)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", base + ".key", "-out", base + ".crt",
            "-days", "2", "-subj", f"/CN={name}", *more)
    return base


class LocalCloud:
    def __enter__(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.directory = self.scratch.name
        base = make_certificate(self.directory, "cloud", "-addext", "subjectAltName=IP:127.0.0.1")
        self.certificate = base + ".crt"
        plain, secure = (pathlib.Path(self.directory) / name for name in ("address", "tls"))
        self.process = subprocess.Popen(
            [sys.executable, str(CLOUD), "--dir", self.directory, "--speed", "10", "--address-file", str(plain),
             "--certificate", self.certificate, "--key", base + ".key", "--tls-address-file", str(secure),
             *(["--record", os.environ["WEIR_RECORD_FILE"]] if "WEIR_RECORD_FILE" in os.environ else [])],
            stdout=subprocess.DEVNULL)
        until(lambda: plain.exists() or self.process.poll() is not None, bool)
        self.address, self.secure = plain.read_text(), secure.read_text()
        # requests, which most SDKs are built on, and OpenSSL
        os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = self.certificate
        return self

    def __exit__(self, *what):
        self.process.terminate()
        self.process.wait(timeout=10)
        self.scratch.cleanup()
