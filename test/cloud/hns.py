"""A storage account with a hierarchical namespace: its blob endpoint under /hns/blob, its data lake endpoint under /hns/dfs.

Bearer tokens for https://storage.azure.com only.  Blobs: list, HEAD, GET, PUT (BlockBlob), DELETE; data lake: rename, directories.
A rename keeps the ETag and needs the folder it goes to.
"""

import base64
import hashlib
import itertools
import time
import urllib.parse
from xml.sax.saxutils import escape

from entra import bearer
from server import Response, http_date

RESOURCE = "https://storage.azure.com"


class File:
    def __init__(self, data, etag):
        self.data = data
        self.etag = etag
        self.modified = time.time()


class Hierarchical:
    def __init__(self, settings, ledger, entra):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.files = {}                 # (filesystem, path) -> File; None for a directory
        self.numbers = itertools.count(1)

    def route(self, request, path):
        parts = path.strip("/").split("/", 2)           # blob or dfs, filesystem, path
        if len(parts) < 2 or parts[0] not in ("blob", "dfs"):
            return None
        name = urllib.parse.unquote(parts[2]) if len(parts) == 3 else ""
        if parts[0] == "dfs":
            operation = ("rename" if "x-ms-rename-source" in request.headers else
                         "mkdir" if request.query.get("resource") == "directory" else "unknown")
        elif not name:
            operation = "list" if request.query.get("comp") == "list" else "container"
        else:
            operation = request.method.lower()

        async def handler(request, entry):
            problem = self.entra.check(bearer(request) or "", RESOURCE)
            if problem:
                return xml_error(401, "InvalidAuthenticationInfo", f"The token is not good: {problem}.")
            if "x-ms-version" not in request.headers or "x-ms-date" not in request.headers:
                return xml_error(400, "MissingRequiredHeader", "x-ms-version and x-ms-date are required.")
            return getattr(self, operation)(request, entry, parts[1], name)
        return "hns." + operation, {}, handler

    def unknown(self, request, entry, system, name):
        return xml_error(400, "InvalidUri", "The request is not understood.")

    def container(self, request, entry, system, name):
        return Response(200)

    def list(self, request, entry, system, name):
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        size = min(int(request.query.get("maxresults", 5000)), self.settings.page_size)
        names = sorted(path for one, path in self.files if one == system and path.startswith(prefix) and path >= marker)
        blobs = []
        for path in names[:size]:
            file = self.files[system, path]
            kind = "directory" if file is None else "file"
            file = file or File(b"", "0x0")
            blobs.append(f"<Blob><Name>{escape(path)}</Name><Properties><Last-Modified>{http_date(file.modified)}</Last-Modified>"
                         f"<Etag>{file.etag}</Etag><ResourceType>{kind}</ResourceType><Content-Length>{len(file.data)}</Content-Length>"
                         f"<Content-MD5>{md5(file.data)}</Content-MD5></Properties></Blob>")
        following = escape(names[size]) if len(names) > size else ""
        return Response(200, (f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{system}"><Blobs>'
                              f'{"".join(blobs)}</Blobs><NextMarker>{following}</NextMarker></EnumerationResults>').encode(),
                        {"Content-Type": "application/xml"})

    def head(self, request, entry, system, name):
        file = self.files.get((system, name))
        if file is None:
            return xml_error(404, "BlobNotFound", "The specified blob does not exist.")
        return Response(200, file.data, {"ETag": f'"{file.etag}"', "Last-Modified": http_date(file.modified), "Content-MD5": md5(file.data)})

    get = head

    def put(self, request, entry, system, name):
        if request.headers.get("if-none-match") == "*" and (system, name) in self.files:
            return xml_error(409, "BlobAlreadyExists", "The specified blob already exists.")
        parent = name
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            self.files.setdefault((system, parent), None)
        self.files[system, name] = File(request.body, f"0x{next(self.numbers):X}")
        self.ledger.mark_started(entry)
        return Response(201, b"", {"ETag": f'"{self.files[system, name].etag}"'})

    def delete(self, request, entry, system, name):
        file = self.files.get((system, name))
        if file is None:
            return xml_error(404, "BlobNotFound", "The specified blob does not exist.")
        if request.headers.get("if-match", f'"{file.etag}"').strip('"') != file.etag:
            return xml_error(412, "ConditionNotMet", "The condition is not met.")
        del self.files[system, name]
        self.ledger.mark_started(entry)
        return Response(202)

    def rename(self, request, entry, system, name):
        source = request.headers["x-ms-rename-source"].split("?")[0].strip("/").split("/", 1)
        key = (source[0], urllib.parse.unquote(source[1]))
        file = self.files.get(key)
        if file is None:
            return json_error(404, "SourcePathNotFound", "The source path for a rename operation does not exist.")
        if request.headers.get("x-ms-source-if-match", f'"{file.etag}"').strip('"') != file.etag:
            return json_error(412, "SourceConditionNotMet", "The source condition specified using HTTP conditional header(s) is not met.")
        parent = name.rpartition("/")[0]
        if parent and self.files.get((system, parent), self) is not None:
            return json_error(404, "RenameDestinationParentPathNotFound", "The parent directory of the destination path does not exist.")
        if request.headers.get("if-none-match") == "*" and (system, name) in self.files:
            return json_error(409, "PathAlreadyExists", "The specified path already exists.")
        self.files[system, name] = self.files.pop(key)
        self.ledger.mark_started(entry)
        return Response(201)

    def mkdir(self, request, entry, system, name):
        if (system, name) in self.files:
            return json_error(409, "PathAlreadyExists", "The specified path already exists.")
        while name:
            self.files.setdefault((system, name), None)
            name = name.rpartition("/")[0]
        self.ledger.mark_started(entry)
        return Response(201)


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def xml_error(status, code, message):
    return Response(status, f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode(),
                    {"Content-Type": "application/xml", "x-ms-error-code": code})


def json_error(status, code, message):
    return Response(status, f'{{"error":{{"code":"{code}","message":"{message}"}}}}'.encode(),
                    {"Content-Type": "application/json", "x-ms-error-code": code})
