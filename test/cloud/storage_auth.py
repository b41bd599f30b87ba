"""Who asks a storage account, when it is not a token that says so: Shared Key and shared access signatures (SAS).

Written from "Authorize with Shared Key", "Create an account SAS" and "Create a service SAS" of the service's reference, for both
endpoints, blob and dfs.  Of the versions of a SAS those since 2018-11-09; no stored access policies, no user delegation.

    problem = Keys(account, key).check(request, operation, system, name)

None: the request is good.  Else (code, message) of the service's answer, which is 403.
"""

import base64
import hashlib
import hmac
import re
import time
import urllib.parse

SIGNED = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
          "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")
# what an operation needs, one of; and of the source of a rename or copy
RIGHTS = {"containers": "l", "list": "l", "paths": "l", "container": "rl", "head": "r", "get": "r", "put": "cw", "copy": "cw", "abort": "cw",
          "rename": "cw", "mkdir": "cw", "delete": "d", "remove": "d"}
SOURCES = {"x-ms-copy-source": "r", "x-ms-rename-source": "dm"}
BLOB = re.compile(r"://[^/]+/(?:as-[^/]+/)?hns[-/]blob/([^/]+)/(.+)$")
FILE = re.compile(r"/([^/]+)/(.+)$")
DIFFERENT = ("AuthenticationFailed", "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
             "correctly including the signature.")


def pairs(query):
    """Of a query, decoded; a plus is a plus."""
    found = (pair.partition("=") for pair in query.split("&") if pair)
    return [(urllib.parse.unquote(name), urllib.parse.unquote(value)) for name, _, value in found]


class Keys:
    def __init__(self, account, key):
        self.account = account
        self.key = base64.b64decode(key)

    def sign(self, text):
        return base64.b64encode(hmac.new(self.key, text.encode(), hashlib.sha256).digest()).decode()

    def check(self, request, operation, system, name):
        """Of a request with one or the other; and for the source that it names."""
        path, _, query = request.target.partition("?")
        sas = dict(pairs(query))
        if "sig" not in sas:
            return self.check_shared_key(request, path, query)
        problem = self.check_sas(sas, operation, RIGHTS.get(operation, ""), system, name)
        for header, rights in SOURCES.items():
            if header in request.headers and problem is None:
                source, _, query = request.headers[header].partition("?")
                found = BLOB.search(source) or FILE.match(source)
                problem = self.check_sas(dict(pairs(query)), "source", rights, *map(urllib.parse.unquote, found.groups())) if found else DIFFERENT
        return problem

    # -- Shared Key ------------------------------------------------------------

    def check_shared_key(self, request, path, query):
        account, _, signature = request.headers.get("authorization", "").removeprefix("SharedKey ").partition(":")
        if account != self.account or not hmac.compare_digest(signature.encode(), self.sign(self.shared_key_text(request, path, query)).encode()):
            return DIFFERENT
        return None

    def shared_key_text(self, request, path, query):
        headers = dict(request.headers)
        if headers.get("content-length") == "0":
            headers["content-length"] = ""
        if "x-ms-date" in headers:
            headers["date"] = ""
        values = {}
        for name, value in pairs(query):
            values.setdefault(name.lower(), []).append(value)
        lines = [request.method, *(headers.get(name, "") for name in SIGNED)]
        lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        lines += [f"/{self.account}{path}", *(f"{name}:{','.join(sorted(values[name]))}" for name in sorted(values))]
        return "\n".join(lines)

    # -- SAS -------------------------------------------------------------------

    def check_sas(self, sas, operation, rights, system, name):
        """rights: letters, one of which will do."""
        if not hmac.compare_digest(sas.get("sig", "").encode(), self.sign(self.sas_text(sas, system, name)).encode()):
            return DIFFERENT
        if not sas.get("st", "") <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) < sas.get("se", ""):
            return DIFFERENT
        if "ss" in sas:
            level = "s" if operation == "containers" else "o" if name else "c"
            if "b" not in sas["ss"]:
                return "AuthorizationServiceMismatch", "This request is not authorized to perform this operation using this service."
            if level not in sas.get("srt", ""):
                return "AuthorizationResourceTypeMismatch", "This request is not authorized to perform this operation using this resource type."
        elif operation == "containers":
            return DIFFERENT            # it signs no such resource
        if not set(rights) & set(sas.get("sp", "")):
            return "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation using this permission."
        return None

    def sas_text(self, sas, system, name):
        def of(*names):
            return [sas.get(one, "") for one in names]
        scope = of("ses") if sas.get("sv", "") >= "2020-12-06" else []
        if "ss" in sas:
            return "\n".join([self.account, *of("sp", "ss", "srt", "st", "se", "sip", "spr", "sv"), *scope, ""])
        return "\n".join([*of("sp", "st", "se"), f"/blob/{self.account}/{self.resource(sas, system, name)}", *of("si", "sip", "spr", "sv", "sr"),
                          "", *scope, *of("rscc", "rscd", "rsce", "rscl", "rsct")])

    def resource(self, sas, system, name):
        """What this SAS must have been made for: the container, the file, or the folder so many levels down."""
        if sas.get("sr") == "c":
            return system
        if sas.get("sr") == "d":
            return "/".join([system, *name.split("/")[:int(sas.get("sdd", "0"))]])
        return f"{system}/{name}"
