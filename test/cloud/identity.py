"""Managed identity, in the three places a machine may find one.

The metadata service of virtual machines (header Metadata), the endpoint of App Service
(header X-IDENTITY-HEADER) and the Azure Arc agent, whose first answer names a file that
only those may read who may use the identity.
"""

import json
import os
import pathlib
import secrets

from server import json_response

NOT_FOUND = "Identity not found"


class Identity:
    def __init__(self, settings, entra):
        self.settings = settings
        self.entra = entra
        self.keys = {}          # content of a key file -> its path

    def route(self, request, path):
        path = path.rstrip("/")         # MSAL for JavaScript writes one more
        facts = {"scope": request.query.get("resource"), "client_id": request.query.get("client_id")}
        if path == "/metadata/identity/oauth2/token":
            if request.query.get("api-version") == "2020-06-01":
                return "entra.arc", facts, self.arc
            return "entra.identity", facts, self.machine
        if path == "/msi/token":
            return "entra.app-service", facts, self.app_service
        return None

    def _token(self, request, entry, names):
        """Of the identity asked for, or a refusal; names: parameters that say which."""
        given = [request.query[name] for name in names if name in request.query]
        if len(given) > 1 or (given and given[0] not in self.settings.identities):
            return json_response(400, {"error": "invalid_request", "error_description": NOT_FOUND})
        resource = request.query.get("resource", "").rstrip("/")
        if not self.entra.knows(resource):
            return json_response(400, {"error": "invalid_resource",
                                       "error_description": f"AADSTS500011: The resource principal named "
                                                            f"{resource[:200]} was not found in the tenant."})
        token = self.entra.issue(resource, given[0] if given else "managed-identity")
        self.entra.ledger.mark_started(entry)
        lifetime = int(self.settings.token_lifetime)
        return json_response(200, {"access_token": token.text, "expires_in": str(lifetime),
                                   "expires_on": str(int(token.expires)),
                                   "not_before": str(int(token.expires) - lifetime),
                                   "resource": resource, "token_type": "Bearer"})

    async def machine(self, request, entry):
        if request.headers.get("metadata") != "true" or "x-forwarded-for" in request.headers:
            return json_response(400, {"error": "bad_request_102",
                                       "error_description": "Required metadata header not specified"})
        if request.query.get("api-version") != "2018-02-01":
            return json_response(400, {"error": "bad_request", "error_description": "unknown api-version"})
        return self._token(request, entry, ("client_id", "object_id", "msi_res_id"))

    async def app_service(self, request, entry):
        if request.headers.get("x-identity-header") != self.settings.identity_header:
            return json_response(401, {"statusCode": 401, "message": "X-IDENTITY-HEADER is not right: "
                                       + request.headers.get("x-identity-header", "")})
        if request.query.get("api-version") != "2019-08-01":
            return json_response(400, {"error": "bad_request", "error_description": "unknown api-version"})
        answer = self._token(request, entry, ("client_id", "principal_id", "mi_res_id"))
        if answer.status == 200 and self.settings.identity_expires == "on":
            fields = json.loads(answer.body)
            del fields["expires_in"]
            return json_response(200, fields)
        return answer

    async def arc(self, request, entry):
        if request.headers.get("metadata") != "true":
            return json_response(400, {"error": "bad_request_102",
                                       "error_description": "Required metadata header not specified"})
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind == "Basic" and key in self.keys:
            pathlib.Path(self.keys.pop(key)).unlink(missing_ok=True)
            return self._token(request, entry, ("client_id", "object_id", "msi_res_id"))
        path = self._key_file()
        return json_response(401, {"error": "unauthorized_client", "error_description": "authentication is required"},
                             {"WWW-Authenticate": f"Basic realm={path}"})

    def _key_file(self):
        """As configured for a test of a bad agent, else a fresh one."""
        if self.settings.arc_realm:
            return self.settings.arc_realm
        directory = pathlib.Path(self.settings.arc_directory)
        directory.mkdir(parents=True, exist_ok=True)
        key = secrets.token_urlsafe(32)
        path = directory / f"{secrets.token_hex(8)}.key"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o640), "w", encoding="ascii") as stream:
            stream.write(key)
        self.keys[key] = path
        return path
