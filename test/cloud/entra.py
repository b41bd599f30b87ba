"""Entra ID: client credentials for access tokens, v2.0 and v1 endpoints: secrets, certificates, federation.

A token is random text bound to one resource; the other services ask check() whether it is
theirs.  It is as long as real ones are, so that clients with small buffers are found out.
"""

import base64
import binascii
import secrets
import time
import urllib.parse
import uuid

from assertions import BadToken, Jwt
from server import Refusal, json_response
from settings import ARM_SCOPE, DATABRICKS_SCOPE

RESOURCES = {"2ff814a6-3304-4ab8-85cb-cd0e6f879c1d", "https://management.azure.com",
             "https://management.core.windows.net", "https://vault.azure.net",
             "https://storage.azure.com", "https://api.fabric.microsoft.com",
             "https://ossrdbms-aad.database.windows.net"}
SAME = {"https://management.core.windows.net": "https://management.azure.com"}
ARM = ARM_SCOPE.removesuffix("/.default")
DATABRICKS = DATABRICKS_SCOPE.removesuffix("/.default")


class Token:
    def __init__(self, resource, client, lifetime):
        self.text = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9." + secrets.token_urlsafe(800) \
            + "." + secrets.token_urlsafe(256)
        self.resource = resource
        self.client = client
        self.expires = time.time() + lifetime


class Entra:
    def __init__(self, settings, ledger):
        self.settings = settings
        self.ledger = ledger
        self.tokens = {}
        self.seen = set()               # ids of assertions

    def route(self, request, path):
        """(operation, facts, handler) or None."""
        parts = path.strip("/").split("/")
        if len(parts) >= 3 and parts[1] == "oauth2" and parts[-1] == "token":
            form = request.form()
            facts = {"client_id": basic(request)[0] or form.get("client_id"),
                     "scope": form.get("scope") or form.get("resource")}
            return "entra.token", facts, self.token
        if path.endswith("/v2.0/.well-known/openid-configuration") and request.method == "GET":
            return "entra.discovery", {}, self.discovery
        return None

    def check(self, text, resource):
        """None when the token is good for the resource, else "unknown", "expired" or "audience"."""
        token = self.tokens.get(text)
        if token is None:
            return "unknown"
        if token.expires <= time.time():
            return "expired"
        return None if token.resource == resource else "audience"

    def issue(self, resource, client):
        now = time.time()
        if len(self.tokens) > 10_000:
            self.tokens = {text: token for text, token in self.tokens.items() if token.expires > now}
        token = Token(SAME.get(resource, resource), client, self.settings.token_lifetime)
        self.tokens[token.text] = token
        return token

    def knows(self, resource):
        return resource in RESOURCES

    def revoke_all(self):
        self.tokens.clear()

    async def discovery(self, request, entry):
        """Where this tenant's endpoints are; what SDKs ask before anything else."""
        self._tenant(request, "/v2.0/")
        root = request.origin + request.path.split("/v2.0/")[0]
        return json_response(200, {"token_endpoint": root + "/oauth2/v2.0/token", "issuer": root + "/v2.0",
                                   "authorization_endpoint": root + "/oauth2/v2.0/authorize",
                                   "jwks_uri": root + "/discovery/v2.0/keys", "response_types_supported": ["code", "id_token"],
                                   "subject_types_supported": ["pairwise"], "tenant_region_scope": "EU",
                                   "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt",
                                                                             "client_secret_basic"]})

    async def token(self, request, entry):
        v2 = "/v2.0/" in request.path
        if request.method != "POST":
            raise refusal(400, "invalid_request", 900561,
                          "The endpoint only accepts POST requests. Received a GET request.")
        form = request.form()
        grant = form.get("grant_type")
        if not grant:
            raise refusal(400, "invalid_request", 900144,
                          "The request body must contain the following parameter: 'grant_type'.")
        if grant != "client_credentials":
            raise refusal(400, "unsupported_grant_type", 70003,
                          f"The app requested an unsupported grant type '{grant[:60]}'.")
        self._tenant(request)
        if form.get("client_id") in self.settings.talkative:
            raise refusal(401, "invalid_client", 90014, f"The request was not understood: {request.body.decode()}")
        client = self._asserted(request, form) if "client_assertion" in form else self._client(request, form)
        resource = self._scope(form) if v2 else self._resource(form.get("resource", ""))
        token = self.issue(resource, client)
        self.ledger.mark_started(entry)
        lifetime = int(self.settings.token_lifetime)
        if v2:
            answer = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime,
                      "access_token": token.text}
        else:
            answer = v1_answer(token, lifetime, form["resource"])
        return json_response(200, answer, {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"})

    def _client(self, request, form):
        client, secret = basic(request)
        if client is None:
            client, secret = form.get("client_id"), form.get("client_secret")
        if not client:
            raise refusal(400, "invalid_request", 900144,
                          "The request body must contain the following parameter: 'client_id'.")
        if client not in self.settings.clients:
            raise refusal(400, "unauthorized_client", 700016,
                          f"Application with identifier '{client[:100]}' was not found in the directory.")
        if secret is None:
            raise refusal(401, "invalid_client", 7000216,
                          "'client_assertion', 'client_secret' or 'request' is required for the "
                          "'client_credentials' grant type.")
        if not secrets.compare_digest(secret.encode(), str(self.settings.clients[client]).encode()):
            raise refusal(401, "invalid_client", 7000215,
                          "Invalid client secret provided. Ensure the secret being sent in the request is "
                          f"the client secret value, not the client secret ID, for app '{client[:100]}'.")
        if client in self.settings.expired_clients:
            raise refusal(401, "invalid_client", 7000222,
                          f"The provided client secret keys for app '{client[:100]}' are expired.")
        return client

    def _tenant(self, request, mark="/oauth2/"):
        parts = request.path.split(mark)[0].split("/")
        if self.settings.tenants is not None and parts[-1] not in self.settings.tenants:
            raise refusal(400, "invalid_request", 90002,
                          f"Tenant '{parts[-1][:100]}' not found. Check to make sure you have the correct tenant ID.")

    def _asserted(self, request, form):
        """The client of an assertion: signed with its certificate, or by an issuer it trusts."""
        client = form.get("client_id", "")
        if form.get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            raise refusal(400, "invalid_request", 900144, "client_assertion_type is not right.")
        try:
            jwt = Jwt(form["client_assertion"])
        except BadToken as problem:
            raise refusal(400, "invalid_request", 50027, f"JWT token is invalid or malformed: {problem}.") from None
        federated = self.settings.federated.get(client)
        if federated is not None and jwt.claims.get("iss") != client:
            self._check_federated(jwt, federated)
        else:
            self._check_certificate(jwt, client)
        self._check_time(jwt.claims)
        if jwt.claims.get("iss") == client:
            self._check_audience(request, jwt.claims)
        return client

    def _check_federated(self, jwt, trusted):
        for number, claim, name in ((700211, "iss", "issuer"), (700213, "sub", "subject"), (700212, "aud", "audience")):
            if jwt.claims.get(claim) != trusted[name]:
                raise refusal(401, "invalid_client", number,
                              f"No matching federated identity record found for presented assertion {name} "
                              f"'{str(jwt.claims.get(claim))[:100]}'.")
        if not jwt.verifies(trusted):
            raise refusal(401, "invalid_client", 5002738, "Invalid JWT token: the signature does not verify.")

    def _check_certificate(self, jwt, client):
        known = self.settings.certificates.get(client, [])
        if client not in self.settings.clients and not known:
            raise refusal(400, "unauthorized_client", 700016,
                          f"Application with identifier '{client[:100]}' was not found in the directory.")
        if jwt.claims.get("iss") != client or jwt.claims.get("sub") != client:
            raise refusal(401, "invalid_client", 700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
        name = "x5t#S256" if "x5t#S256" in jwt.header else "x5t"      # the older one is of SHA-1
        thumbprint = str(jwt.header.get(name, "")).rstrip("=").replace("+", "-").replace("/", "_")
        key = next((one for one in known if one.get(name) == thumbprint), None) if thumbprint else None
        if key is None or not jwt.verifies(key):
            raise refusal(401, "invalid_client", 700027,
                          "The certificate with identifier used to sign the client assertion is not registered on "
                          f"application. [Reason - The key was not found., Thumbprint of key used by client: '{str(thumbprint)[:60]}']")

    def _check_time(self, claims):
        now = time.time() + self.settings.clock_offset
        begin, end = claims.get("nbf", 0), claims.get("exp", 0)
        if not begin - 300 <= now <= end + 300:
            raise refusal(401, "invalid_client", 700024,
                          f"Client assertion is not within its valid time range. Current time: {stamp(now)}, "
                          f"assertion valid from {stamp(begin)}, expiry time of assertion {stamp(end)}.")

    def _check_audience(self, request, claims):
        wanted = request.path.removeprefix("/entra")
        if not str(claims.get("aud", "")).endswith(wanted):
            raise refusal(401, "invalid_client", 700023, "Client assertion audience claim does not match Realm issuer.")
        if not isinstance(claims.get("jti"), str) or claims["jti"] in self.seen:
            raise refusal(401, "invalid_client", 50013, "Assertion failed signature validation: it was used before.")
        self.seen.add(claims["jti"])

    def _scope(self, form):
        scope = form.get("scope", "")
        if not scope:
            raise refusal(400, "invalid_request", 900144,
                          "The request body must contain the following parameter: 'scope'.")
        if " " in scope.strip():
            raise refusal(400, "invalid_scope", 70011,
                          f"The provided value for the input parameter 'scope' is not valid: {scope[:200]}")
        if not scope.endswith("/.default"):
            raise refusal(400, "invalid_scope", 1002012,
                          f"The provided value for scope {scope[:200]} is not valid. Client credential flows "
                          "must have a scope value with /.default suffixed to the resource identifier.")
        return self._resource(scope.removesuffix("/.default"))

    def _resource(self, resource):
        if resource.rstrip("/") not in RESOURCES:
            raise refusal(400, "invalid_resource", 500011,
                          f"The resource principal named {resource[:200]} was not found in the tenant.")
        return resource.rstrip("/")


def basic(request):
    """(client, secret) of a Basic Authorization header, or (None, None)."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None, None
    try:
        client, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, None
    return urllib.parse.unquote(client), urllib.parse.unquote(secret)


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S.1234567Z", time.gmtime(seconds))


def bearer(request):
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def v1_answer(token, lifetime, resource):
    return {"token_type": "Bearer", "expires_in": str(lifetime), "ext_expires_in": str(lifetime),
            "expires_on": str(int(token.expires)), "not_before": str(int(token.expires) - lifetime),
            "resource": resource, "access_token": token.text}


def refusal(status, error, number, text):
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return Refusal(json_response(status, {
        "error": error,
        "error_description": f"AADSTS{number}: {text} Trace ID: {trace} "
                             f"Correlation ID: {correlation} Timestamp: {now}",
        "error_codes": [number], "timestamp": now, "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={number}"}))
