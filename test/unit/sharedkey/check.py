"""Signatures of src/net/sharedkey.c against an independent signer, written from the description of Shared Key.

The last line is "N passed, N failed".
"""

import base64
import hashlib
import hmac
import random
import subprocess
import sys
import urllib.parse

PROGRAM = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
SIGNED = ["content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
          "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"]
passed = failed = 0


def ask(what, headers=(), **values):
    lines = [f"what {what}"] + [f"{name} {value}" for name, value in values.items()] + [f"header {header}" for header in headers]
    PROGRAM.stdin.write("\n".join(lines) + "\n\n")
    PROGRAM.stdin.flush()
    return PROGRAM.stdout.readline().rstrip("\n")


def check(name, got, expected):
    global passed, failed
    if got == expected:
        passed += 1
    else:
        failed += 1
        print(f"{name}:\n    got      {got}\n    expected {expected}")


def expected_text(account, method, url, headers, body_len):
    fields = {}
    for header in headers:
        name, _, value = header.partition(":")
        fields[name.strip().lower()] = value.strip()
    fields["content-length"] = str(body_len) if body_len else ""
    if "x-ms-date" in fields:
        fields["date"] = ""
    parts = urllib.parse.urlsplit(url)
    text = method + "\n" + "".join(fields.get(name, "") + "\n" for name in SIGNED)
    text += "".join(f"{name}:{fields[name]}\n" for name in sorted(fields) if name.startswith("x-ms-"))
    text += f"/{account}{parts.path or '/'}"
    query = {}
    for pair in parts.query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            query.setdefault(urllib.parse.unquote(name).lower(), []).append(urllib.parse.unquote(value))
    return text + "".join(f"\n{name}:{','.join(sorted(query[name]))}" for name in sorted(query))


def expected_header(account, key, *request):
    digest = hmac.new(base64.b64decode(key), expected_text(account, *request).encode(), hashlib.sha256).digest()
    return f"Authorization: SharedKey {account}:{base64.b64encode(digest).decode()}"


def both(name, account, key, method, url, headers, body_len):
    check(name + ", text", ask("text", headers, account=account, method=method, url=url, body_len=body_len),
          expected_text(account, method, url, headers, body_len).replace("\n", "\\n"))
    check(name, ask("header", headers, account=account, key=key, method=method, url=url, body_len=body_len),
          expected_header(account, key, method, url, headers, body_len))


def fixed():
    key = base64.b64encode(bytes(range(64))).decode()
    date = "x-ms-date: Sun, 06 Nov 1994 08:49:37 GMT"
    both("list", "acct", key, "GET", "https://acct.blob.core.windows.net/lake?restype=container&comp=list&prefix=a%2Fb%20c&marker=x%2By",
         [date, "x-ms-version: 2021-12-02", "Accept: application/xml"], 0)
    both("emulator", "devstoreaccount1", key, "GET", "http://127.0.0.1:10000/devstoreaccount1/lake/a%20b.csv", [date, "x-ms-version: 1"], 0)
    both("put", "acct", key, "PUT", "https://h/c/b", [date, "Content-Type: text/plain", "If-None-Match: *", "x-ms-blob-type: BlockBlob"], 5)
    both("no path", "acct", key, "GET", "https://acct.queue.core.windows.net", [date], 0)
    both("date without x-ms-date", "acct", key, "GET", "https://h/c", ["Date: now"], 0)
    both("both dates", "acct", key, "GET", "https://h/c", ["Date: now", date], 0)
    both("names that begin alike", "acct", key, "GET", "https://h/c", ["x-ms-meta-a-b: 1", "x-ms-meta-a: 2", "X-MS-Meta-B: 3", date], 0)
    both("one parameter twice", "acct", key, "GET", "https://h/c?include=metadata&include=copy&A=1&flag&b=", [date], 0)
    both("utf-8", "acct", key, "GET", "https://h/c/%C3%BC?prefix=%C3%BC", [date, "x-ms-meta-n: \u00fc"], 0)
    # a vector worked out by hand once, so that the two signers cannot be wrong together
    check("constant", ask("text", ["x-ms-date: D", "x-ms-version: V", "If-Match: \"0x1\""], account="a", method="DELETE", url="https://h/c/n?comp=x"),
          "DELETE\\n\\n\\n\\n\\n\\n\\n\\n\"0x1\"\\n\\n\\n\\nx-ms-date:D\\nx-ms-version:V\\n/a/c/n\\ncomp:x")
    for name, bad in (("empty key", "="), ("a key of five", "abcde"), ("not base64", "####"), ("too long", "A" * 600)):
        got = ask("header", [date], account="a", key=bad, method="GET", url="https://h/c")
        check(name, got.startswith("error: ") and bad not in got, True)
    check("no URL", ask("text", [date], account="a", method="GET", url="nonsense"), "error: none")
    check("many parameters", ask("header", [date], account="a", key=key, method="GET", url="https://h/c?" + "&".join(f"p{i}=1" for i in range(101))),
          "error: the request cannot be signed")


def accounts():
    for url, account in (("https://acct.blob.core.windows.net", "acct"), ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1"),
                         ("https://acct.z1.blob.storage.azure.net", "acct"), ("http://localhost:1", "localhost"), ("nonsense", "error: none")):
        check(url, ask("account", url=url), account)


def sas():
    good = "sv=2020-08-04&ss=b&sig=a%2Bb%2Fc%3D"
    check("query", ask("sas", url="https://h/c?comp=list", key=good), "https://h/c?comp=list&" + good)
    check("question mark", ask("sas", url="https://h/c", key="?" + good), "https://h/c?" + good)
    check("header", ask("sas", url="x-ms-copy-source: https://h/c/b", key=good), "x-ms-copy-source: https://h/c/b?" + good)
    check("signature", ask("plain", key=good), "a%2Bb%2Fc%3D")
    check("decoded", ask("decoded", key="?sig=a%2Bb%2Fc%3d&x=1"), "a+b/c=")
    for text, scope in ((good, "account"), ("?sr=c&sig=x", "service"), ("sv=1&sp=rap&sig=ss=", "service"), ("sv=1&sp=rl&sr=c&sig=x", "service"), ("sv=1&ss=b&srt=sco&sig=sr=", "account")):
        check("scope of " + text, ask("scope", key=text), scope)
    for bad in ("sv=1", "sig=a b", "sig=a#b", "xsig=1", "sig=" + "a" * 5000, "sig=\u00fc"):
        got = ask("sas", url="https://h/c", key=bad)
        check("bad SAS", got.startswith("error: the secret is") and "sv=1" not in got, True)


def at_random():
    rnd = random.Random(7)
    letters = "abcXYZ019-._~%/+ =\u00fc"
    for number in range(300):
        key = base64.b64encode(rnd.randbytes(rnd.choice((1, 32, 64, 100)))).decode()

        def word(n=12):
            return "".join(rnd.choice(letters) for _ in range(rnd.randint(0, n)))
        path = "/".join(urllib.parse.quote(word()) for _ in range(rnd.randint(1, 4)))
        query = "&".join(f"{urllib.parse.quote(rnd.choice(('comp', 'Prefix', 'marker', 'x' + word(3))), safe='')}={urllib.parse.quote(word(), safe='')}"
                         for _ in range(rnd.randint(0, 5)))
        headers = ["x-ms-date: " + str(number)] + [f"{rnd.choice(('x-ms-meta-', 'X-Ms-'))}{rnd.randint(0, 10 ** 9)}: {word().strip()}"
                                                   for _ in range(rnd.randint(0, 6))]
        headers += [f"{name}: {word().strip()}" for name in ("If-Match", "Range", "Content-Type", "Content-MD5") if rnd.random() < 0.4]
        both(f"random {number}", "acct" + str(number), key, rnd.choice(("GET", "PUT", "DELETE", "HEAD")),
             f"https://host:1/{path}" + ("?" + query if query else ""), headers, rnd.choice((0, 0, 7, 123456)))


fixed()
accounts()
sas()
at_random()
PROGRAM.stdin.close()
if PROGRAM.wait() != 0:
    failed += 1
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
