"""A file of a storage account, and the account's error answers, as its two endpoints write them."""

import base64
import hashlib
import time

from server import Response, http_date


class File:
    def __init__(self, data, etag, headers=None):
        self.data = data
        self.etag = etag
        self.modified = time.time()
        self.type = (headers or {}).get("x-ms-blob-content-type") or (headers or {}).get("content-type") or "application/octet-stream"
        self.metadata = {name: value for name, value in (headers or {}).items() if name.startswith("x-ms-meta-")}
        self.has_md5 = "x-ms-meta-no_md5" not in self.metadata      # as of a file that was written in blocks
        self.copy = None                # what it was the destination of, see copies.py

    def headers(self):
        headers = {"ETag": f'"{self.etag}"', "Last-Modified": http_date(self.modified)}
        return {**headers, "Content-MD5": md5(self.data)} if self.has_md5 else headers


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def xml_error(status, code, message, headers=None):
    return Response(status, f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode(),
                    {"Content-Type": "application/xml", "x-ms-error-code": code, **(headers or {})})


def json_error(status, code, message):
    return Response(status, f'{{"error":{{"code":"{code}","message":"{message}"}}}}'.encode(),
                    {"Content-Type": "application/json", "x-ms-error-code": code})
