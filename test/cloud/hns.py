"""A storage account with a hierarchical namespace: its blob endpoint under /hns/blob, its data lake endpoint under /hns/dfs.
/hns-blob and /hns-dfs are the same, for clients who want one segment that is the account.

Bearer tokens for https://storage.azure.com, Shared Key and SAS (see storage_auth.py; `auth` of the ledger says which).  Blobs: list, HEAD, GET (also of a range), PUT (BlockBlob), DELETE, Copy Blob (see
copies.py); data lake: rename, directories, list, properties, delete.  A rename needs the folder it goes to.
"""

import itertools
import json
import re
import time
import urllib.parse
import uuid
from xml.sax.saxutils import escape

from copies import Copies
from entra import bearer
from files import File, json_error, md5, xml_error
from server import Response, http_date
from storage_auth import Keys

RESOURCE = "https://storage.azure.com"


class Hierarchical:
    def __init__(self, settings, ledger, entra):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.files = {}                 # (filesystem, path) -> File; None for a directory
        self.numbers = itertools.count(1)
        self.copies = Copies(settings, ledger, self)

    def route(self, request, path):
        parts = path.strip("/-").split("/", 2)          # blob or dfs, filesystem, path
        is_account = parts[0] == "blob" and len(parts) == 1 and request.query.get("comp") == "list"
        if parts[0] not in ("blob", "dfs") or not (is_account or len(parts) > 1):
            return None
        if is_account:
            parts.append("")
        name = urllib.parse.unquote(parts[2]).rstrip("/") if len(parts) == 3 else ""
        operation = "containers" if is_account else lake_operation(request, name) if parts[0] == "dfs" else blob_operation(request, name)

        async def handler(request, entry):
            refusal = self.refuse(request, entry, operation, parts[1], name, xml_error if parts[0] == "blob" else json_error)
            if refusal:
                return refusal
            if "x-ms-version" not in request.headers:
                return xml_error(400, "MissingRequiredHeader", "x-ms-version is required.")
            response = getattr(self, operation)(request, entry, parts[1], name)
            response.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
            response.headers.setdefault("x-ms-version", request.headers["x-ms-version"])
            return response
        return "hns." + operation, {}, handler

    def refuse(self, request, entry, operation, system, name, error):
        """The answer to who may not, or None."""
        if "sig=" in request.target.partition("?")[2]:
            entry["auth"] = "sas"
        elif request.headers.get("authorization", "").startswith("SharedKey "):
            entry["auth"] = "shared_key"
        else:
            entry["auth"] = "bearer"
            problem = self.entra.check(bearer(request) or "", RESOURCE)
            return xml_error(401, "InvalidAuthenticationInfo", f"The token is not good: {problem}.") if problem else None
        problem = Keys(self.settings.storage_account, self.settings.storage_key).check(request, operation, system, name)
        return error(403, *problem) if problem else None

    def unknown(self, request, entry, system, name):
        return xml_error(400, "InvalidUri", "The request is not understood.")

    def container(self, request, entry, system, name):
        return Response(200)

    def containers(self, request, entry, system, name):
        """Those that have something in them: nothing else is known of a container here."""
        names = sorted({one for one, _ in self.files})
        items = "".join(f"<Container><Name>{one}</Name><Properties><Last-Modified>{http_date(0)}</Last-Modified><Etag>0x0</Etag>"
                        "</Properties></Container>" for one in names)
        return Response(200, (f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{request.origin}/hns/blob/">'
                              f"<Containers>{items}</Containers><NextMarker/></EnumerationResults>").encode(),
                        {"Content-Type": "application/xml"})

    # -- blobs -----------------------------------------------------------------

    def list(self, request, entry, system, name):
        """Pages of blobs and, with a delimiter, of the folders that hold the others."""
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        delimiter = request.query.get("delimiter", "")
        found = {}
        for one, path in sorted(self.files):
            if one == system and path.startswith(prefix):
                rest = path[len(prefix):]
                folder = prefix + rest[:rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else None
                if folder or not (delimiter and self.files[one, path] is None):
                    found[folder or path] = folder is None
        names = [name for name in sorted(found) if name >= marker]
        size = min(int(request.query.get("maxresults", 5000)), self.settings.page_size)
        items = [self._blob(system, path) if found[path] else f"<BlobPrefix><Name>{escape(path)}</Name></BlobPrefix>"
                 for path in names[:size]]
        following = escape(names[size]) if len(names) > size else ""
        return Response(200, (f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{request.origin}/hns/blob/" '
                              f'ContainerName="{system}"><Prefix>{escape(prefix)}</Prefix><Blobs>{"".join(items)}</Blobs>'
                              f'<NextMarker>{following}</NextMarker></EnumerationResults>').encode(),
                        {"Content-Type": "application/xml"})

    def _blob(self, system, path):
        file = self.files[system, path]
        kind = "directory" if file is None else "file"
        file = file or File(b"", "0x0")
        return (f"<Blob><Name>{escape(path)}</Name><Properties><Last-Modified>{http_date(file.modified)}</Last-Modified>"
                f"<Etag>{file.etag}</Etag><ResourceType>{kind}</ResourceType><Content-Length>{len(file.data)}</Content-Length>"
                f"<Content-Type>{escape(file.type)}</Content-Type>"
                + (f"<Content-MD5>{md5(file.data)}</Content-MD5>" if file.has_md5 else "") + "<BlobType>BlockBlob</BlobType></Properties></Blob>")

    def get(self, request, entry, system, name):
        if (system, name) not in self.files:
            return xml_error(404, "BlobNotFound", "The specified blob does not exist.")
        file = self.files[system, name]
        if file is None:                # a directory is an empty blob that says what it is
            file = File(b"", "0x0", {"x-ms-meta-hdi_isfolder": "true"})
        headers = {**file.headers(), "Content-Type": file.type, "Accept-Ranges": "bytes", "x-ms-blob-type": "BlockBlob",
                   "x-ms-lease-state": "available", "x-ms-lease-status": "unlocked", "x-ms-server-encrypted": "true",
                   "x-ms-resource-type": "file" if self.files[system, name] else "directory", **file.metadata,
                   **(file.copy.headers() if file.copy else {})}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("x-ms-range") or request.headers.get("range", ""))
        if request.method == "HEAD" or not wanted:
            return Response(200, file.data, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(file.data)), len(file.data) - 1)
        if first > last:
            return xml_error(416, "InvalidRange", "The range specified is invalid for the current size of the resource.",
                             {"Content-Range": f"bytes */{len(file.data)}"})
        if "Content-MD5" in headers:
            headers["x-ms-blob-content-md5"] = headers.pop("Content-MD5")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(file.data)}"
        return Response(206, file.data[first:last + 1], headers)

    head = get

    def put(self, request, entry, system, name):
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            return xml_error(400, "MissingRequiredHeader", "x-ms-blob-type is required, and BlockBlob is what there is.")
        if request.headers.get("if-none-match") == "*" and (system, name) in self.files:
            return xml_error(409, "BlobAlreadyExists", "The specified blob already exists.")
        if self.copies.is_pending(system, name):
            return xml_error(409, "PendingCopyOperation", "There is currently a pending copy operation.")
        self.make_folders(system, name.rpartition("/")[0])
        file = self.files[system, name] = File(request.body, self.next_etag(), request.headers)
        self.ledger.mark_started(entry)
        return Response(201, b"", {**file.headers(), "x-ms-request-server-encrypted": "true"})

    def delete(self, request, entry, system, name):
        file = self.files.get((system, name))
        if file is None:
            return xml_error(404, "BlobNotFound", "The specified blob does not exist.")
        if request.headers.get("if-match", f'"{file.etag}"').strip('"') != file.etag:
            return xml_error(412, "ConditionNotMet", "The condition is not met.")
        if self.copies.is_pending(system, name):
            return xml_error(409, "PendingCopyOperation", "There is currently a pending copy operation.")
        del self.files[system, name]
        self.ledger.mark_started(entry)
        return Response(202)

    def copy(self, request, entry, system, name):
        return self.copies.begin(request, entry, system, name)

    def abort(self, request, entry, system, name):
        return self.copies.abort(request, entry, system, name)

    def next_etag(self):
        return f"0x{next(self.numbers):X}"

    def make_folders(self, system, name):
        while name:
            self.files.setdefault((system, name), None)
            name = name.rpartition("/")[0]

    # -- the data lake ---------------------------------------------------------

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
        if self.copies.is_pending(*key) or self.copies.is_pending(system, name):
            return json_error(409, "PendingCopyOperation", "There is currently a pending copy operation.")
        self.files[system, name] = self.files.pop(key)
        self.ledger.mark_started(entry)
        return Response(201)

    def mkdir(self, request, entry, system, name):
        """A folder that is there is made again, unless the request says that it must be new."""
        there = (system, name) in self.files
        if there and (request.headers.get("if-none-match") == "*" or self.files[system, name] is not None):
            return json_error(409, "PathAlreadyExists", "The specified path already exists.")
        self.make_folders(system, name)
        self.ledger.mark_started(entry)
        return Response(201, b"", {"ETag": '"0x0"', "Last-Modified": http_date(time.time())})

    def paths(self, request, entry, system, name):
        folder = request.query.get("directory", "").strip("/")
        start = folder + "/" if folder else ""
        deep = request.query.get("recursive", "").lower() == "true"
        names = sorted(path for one, path in self.files if one == system and path.startswith(start)
                       and (deep or "/" not in path[len(start):]) and path >= request.query.get("continuation", ""))
        if folder and (system, folder) not in self.files:
            return json_error(404, "PathNotFound", "The specified path does not exist.")
        size = min(int(request.query.get("maxResults", 5000)), self.settings.page_size)
        found = []
        for path in names[:size]:
            file = self.files[system, path]
            one = {"name": path, "lastModified": http_date(file.modified if file else time.time()), "etag": file.etag if file else "0x0",
                   "contentLength": str(len(file.data) if file else 0)}
            found.append(one if file else {**one, "isDirectory": "true"})
        headers = {"x-ms-continuation": names[size]} if len(names) > size else {}
        return Response(200, json.dumps({"paths": found}).encode(), {"Content-Type": "application/json;charset=utf-8", **headers})

    def remove(self, request, entry, system, name):
        if (system, name) not in self.files:
            return json_error(404, "PathNotFound", "The specified path does not exist.")
        below = [key for key in self.files if key[0] == system and key[1].startswith(name + "/")]
        if below and request.query.get("recursive", "").lower() != "true":
            return json_error(409, "DirectoryNotEmpty", "The recursive query parameter value must be true to delete a non-empty directory.")
        for key in [*below, (system, name)]:
            del self.files[key]
        self.ledger.mark_started(entry)
        return Response(200)


def blob_operation(request, name):
    if not name:
        return "list" if request.query.get("comp") == "list" else "container"
    if request.method == "PUT" and "x-ms-copy-source" in request.headers:
        return "copy"
    if request.method == "PUT" and request.query.get("comp") == "copy":
        return "abort"
    return request.method.lower() if request.method in ("GET", "HEAD", "PUT", "DELETE") and "comp" not in request.query else "unknown"


def lake_operation(request, name):
    if "x-ms-rename-source" in request.headers:
        return "rename"
    resource = request.query.get("resource")
    if (request.method, resource) == ("PUT", "directory"):
        return "mkdir"
    if not name:
        return "paths" if (request.method, resource) == ("GET", "filesystem") else "container"
    return {"GET": "get", "HEAD": "head", "DELETE": "remove"}.get(request.method, "unknown")
