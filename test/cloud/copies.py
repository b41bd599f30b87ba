"""Copy Blob, as a storage account does it in its own time, and Abort Copy Blob.

With the setting copy_seconds a copy is "pending" for so long (0: it has ended when it is answered).  Its
destination is an empty file until it is whole.  The source is the one of the moment it began: when it is
changed or gone before the copy is whole, the copy fails, and the empty file stays, as it does when the copy
is aborted.  Whoever writes to the destination meanwhile, or begins another copy to it, gets
409 PendingCopyOperation; reading is allowed.

An entry of the ledger of operation hns.copy that began a copy has "copy_id" and, as it goes on, "copy_status".
Metadata no_md5 of a file says that nobody knows its MD5, as of one written in blocks; its copies have it too.
"""

import asyncio
import re
import time
import urllib.parse
import uuid

from files import File, xml_error
from server import Response, http_date

STEP = 0.02                     # seconds between two looks at the source, and changes of x-ms-copy-progress
SOURCE = re.compile(r"/(?:as-[0-9A-Za-z_.-]+/)?hns[-/]blob/([^/]+)/(.+)$")


class Copy:
    """What the destination says of the last copy to it."""

    def __init__(self, source, total, entry):
        self.entry = entry              # of the ledger
        self.id = str(uuid.uuid4())
        self.source = source
        self.total = total
        self.done = 0
        self.status = "pending"
        self.description = None
        self.ended = None

    def headers(self):
        headers = {"x-ms-copy-id": self.id, "x-ms-copy-source": self.source, "x-ms-copy-status": self.status,
                   "x-ms-copy-progress": f"{self.done}/{self.total}"}
        if self.ended:
            headers["x-ms-copy-completion-time"] = http_date(self.ended)
        if self.description:
            headers["x-ms-copy-status-description"] = self.description
        return headers


class Copies:
    def __init__(self, settings, ledger, account):
        self.settings = settings
        self.ledger = ledger
        self.account = account          # files, next_etag(), make_folders()
        self.tasks = set()

    def is_pending(self, system, name):
        file = self.account.files.get((system, name))
        return file is not None and file.copy is not None and file.copy.status == "pending"

    def begin(self, request, entry, system, name):
        address = urllib.parse.urlsplit(request.headers["x-ms-copy-source"])
        found = SOURCE.match(address.path)
        key = (found[1], urllib.parse.unquote(found[2])) if found else None
        source = self.account.files.get(key)
        there = self.account.files.get((system, name))
        if address.scheme not in ("http", "https"):
            return xml_error(400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.")
        if source is None:
            return xml_error(404, *(("BlobNotFound", "The specified blob does not exist.") if found else
                                    ("CannotVerifyCopySource", "The specified resource does not exist.")))
        if (system, name) in self.account.files and request.headers.get("if-none-match") == "*":
            return xml_error(409, "BlobAlreadyExists", "The specified blob already exists.")
        if "if-match" in request.headers and (there is None or request.headers["if-match"].strip('"') != there.etag):
            return xml_error(412, "TargetConditionNotMet", "The target condition specified using HTTP conditional header(s) is not met.")
        if request.headers.get("x-ms-source-if-match", source.etag).strip('"') != source.etag:
            return xml_error(412, "SourceConditionNotMet", "The source condition specified using HTTP conditional header(s) is not met.")
        if self.is_pending(system, name):
            return xml_error(409, "PendingCopyOperation", "There is currently a pending copy operation.")
        self.account.make_folders(system, name.rpartition("/")[0])
        file = File(b"", self.account.next_etag(), source.metadata)
        file.type = source.type
        file.copy = Copy(urllib.parse.urlunsplit(address._replace(query="")), len(source.data), entry)
        self.account.files[system, name] = file
        self.ledger.mark_started(entry)
        entry.update(copy_id=file.copy.id, copy_status="pending")
        if self.settings.copy_seconds:
            task = asyncio.get_running_loop().create_task(self._go_on(key, source, file))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            self._succeed(source, file)
        return Response(202, b"", {"ETag": f'"{file.etag}"', "Last-Modified": http_date(file.modified),
                                   "x-ms-copy-id": file.copy.id, "x-ms-copy-status": file.copy.status})

    async def _go_on(self, key, source, file):
        etag, done = source.etag, 0.0
        while done < 1:
            await asyncio.sleep(STEP)
            if file.copy.status != "pending":
                return                  # aborted
            now = self.account.files.get(key)
            if now is None or now.etag != etag:
                reason = "404 BlobNotFound" if now is None else "412 ConditionNotMet"
                self._end(file, "failed", reason + ' "Copy failed when reading the source."')
                return
            seconds = self.settings.scaled(self.settings.copy_seconds)
            done += STEP / seconds if seconds else 1
            file.copy.done = int(file.copy.total * min(done, 1))
        self._succeed(source, file)

    def _succeed(self, source, file):
        file.data = source.data
        file.copy.done = file.copy.total
        self._end(file, "success")

    def _end(self, file, status, description=None):
        file.etag = self.account.next_etag()
        file.modified = file.copy.ended = time.time()
        file.copy.status = file.copy.entry["copy_status"] = status
        file.copy.description = description

    def abort(self, request, entry, system, name):
        file = self.account.files.get((system, name))
        if request.headers.get("x-ms-copy-action") != "abort":
            return xml_error(400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is not specified.")
        if file is None:
            return xml_error(404, "BlobNotFound", "The specified blob does not exist.")
        if not self.is_pending(system, name):
            return xml_error(409, "NoPendingCopyOperation", "There is currently no pending copy operation.")
        if request.query.get("copyid") != file.copy.id:
            return xml_error(409, "CopyIdMismatch", "The specified copy ID did not match the copy ID for the pending copy operation.")
        self._end(file, "aborted")
        self.ledger.mark_started(entry)
        return Response(204)
