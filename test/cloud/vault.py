"""Key Vault: secrets and their versions, under /vault.  Bearer tokens for https://vault.azure.net only.

PUT secrets/{name} makes a version and says its value back, as the real one does; GET secrets, GET secrets/{name}/versions list
without values, page by page (maxresults, or the setting page_size).
"""

import re
import time
import uuid

from entra import bearer
from server import json_response

RESOURCE = "https://vault.azure.net"
TENANT = "11111111-2222-3333-4444-555555555555"         # whose vault this is, in the challenge
NAME = re.compile(r"[0-9a-zA-Z-]{1,127}$")


class Vault:
    def __init__(self, settings, ledger, entra):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.secrets = {}               # name -> versions, oldest first

    def route(self, request, path):
        parts = path.strip("/").split("/")
        if parts[0] != "secrets" or len(parts) > 3:
            return None
        name = parts[1] if len(parts) > 1 else ""
        if not name:
            operation = "list"
        elif request.method == "PUT":
            operation = "set"
        else:
            operation = "versions" if parts[2:] == ["versions"] else "get"
        version = parts[2] if len(parts) == 3 else ""

        async def handler(request, entry):
            problem = self.entra.check(bearer(request) or "", RESOURCE)
            if problem:
                return error(401, "Unauthorized", f"AKV10000: Request is missing a Bearer or PoP token: {problem}.",
                             challenge=request.origin)
            if "api-version" not in request.query:
                return error(400, "BadParameter", "api-version must be specified")
            if name and not NAME.match(name):
                return error(400, "BadParameter", "The request URI contains an invalid name")
            return getattr(self, operation)(request, entry, name, version)
        return "keyvault." + operation, {"api_version": request.query.get("api-version")}, handler

    def base(self, request):
        return request.origin + request.path.split('/secrets')[0]

    def bundle(self, request, name, one, with_value=False):
        found = {"id": f"{self.base(request)}/secrets/{name}/{one['version']}", "attributes": one["attributes"], "tags": one["tags"]}
        if one["contentType"]:
            found["contentType"] = one["contentType"]
        return {"value": one["value"], **found} if with_value else found

    def page(self, request, items):
        size = min(int(request.query.get("maxresults", 25)), self.settings.page_size)
        start = int(request.query.get("$skiptoken", 0))
        link = None
        if start + size < len(items):
            link = (f"{self.base(request)}/secrets{request.path.split('/secrets', 1)[1]}?api-version={request.query['api-version']}"
                    f"&maxresults={size}&$skiptoken={start + size}")
        return json_response(200, {"value": items[start:start + size], "nextLink": link})

    def list(self, request, entry, name, version):
        return self.page(request, [{**self.bundle(request, name, versions[-1]), "id": f"{self.base(request)}/secrets/{name}"}
                                   for name, versions in sorted(self.secrets.items())])

    def versions(self, request, entry, name, version):
        return self.page(request, [self.bundle(request, name, one) for one in self.secrets.get(name, [])])

    def get(self, request, entry, name, version):
        found = [one for one in self.secrets.get(name, []) if version in ("", one["version"])]
        if not found:
            return error(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        if not found[-1]["attributes"]["enabled"]:
            return error(403, "Forbidden", "Operation get is not allowed on a disabled secret.", inner="SecretDisabled")
        return json_response(200, self.bundle(request, name, found[-1], True))

    def set(self, request, entry, name, version):
        body = request.json_or_none() or {}
        if not isinstance(body.get("value"), str):
            return error(400, "BadParameter", "The value is missing")
        now = int(time.time())
        attributes = {"enabled": True, **(body.get("attributes") or {}), "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable"}
        one = {"version": uuid.uuid4().hex, "value": body["value"], "attributes": attributes, "tags": body.get("tags") or {},
               "contentType": body.get("contentType")}
        self.secrets.setdefault(name, []).append(one)
        self.ledger.mark_started(entry)
        return json_response(200, self.bundle(request, name, one, True))


def error(status, code, message, inner=None, challenge=None):
    """challenge: where to sign in, which a client that brought no token reads in the header."""
    found = {"code": code, "message": message, **({"innererror": {"code": inner}} if inner else {})}
    headers = {"WWW-Authenticate": f'Bearer authorization="{challenge}/{TENANT}", resource="{RESOURCE}"'} if challenge else {}
    return json_response(status, {"error": found}, headers)
