"""Writes down every request as it came, one JSON object a line, for those who compare them with published descriptions.

Of the Authorization header only the scheme is kept.  Nothing is held in memory: a line is in the file
before the request is answered.
"""

import base64
import json


class Recorder:
    def __init__(self, path):
        self.stream = open(path, "a", encoding="utf-8") if path else None

    def write(self, operation, request):
        if self.stream is None:
            return
        headers = dict(request.headers)
        if "authorization" in headers:
            headers["authorization"] = headers["authorization"].partition(" ")[0]
        try:
            body = {"body": request.body.decode("utf-8")}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(request.body).decode("ascii")}
        json.dump({"operation": operation, "method": request.method, "target": request.target, "headers": headers, **body},
                  self.stream)
        self.stream.write("\n")
        self.stream.flush()
