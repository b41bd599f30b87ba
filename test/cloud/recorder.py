"""Writes down every request as it came, one JSON object a line, for those who compare them with published descriptions.

With it goes the answer, unless a fault had a hand in it.  Of the Authorization header only the scheme is kept.  Nothing is held
in memory: a line is in the file before the answer goes out.
"""

import base64
import json


class Recorder:
    def __init__(self, path):
        self.stream = open(path, "a", encoding="utf-8") if path else None

    def write(self, operation, request, response):
        """response: None when what the service answers is not what the client gets."""
        if self.stream is None:
            return
        headers = dict(request.headers)
        if "authorization" in headers:
            headers["authorization"] = headers["authorization"].partition(" ")[0]
        line = {"operation": operation, "method": request.method, "target": request.target, "headers": headers, **text(request.body)}
        if response is not None:
            line["answer"] = {"status": response.status, "headers": response.headers, **text(response.body)}
        json.dump(line, self.stream)
        self.stream.write("\n")
        self.stream.flush()


def text(body):
    try:
        return {"body": body.decode("utf-8-sig")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}
