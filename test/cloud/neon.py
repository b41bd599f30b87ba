"""Neon: the part of API v2 that a tool calls which branches and restores databases, under /neon/api/v2.  State is in neon_model.py.

Whoever has a key of an organization sees that organization's projects; a personal key sees all and has to name one.  A call that
schedules operations is refused with 423 while others of the project are not at their end.
"""

import base64
import json
import re
import secrets
import time
import urllib.parse

import neon_input as take
from entra import bearer
from neon_branches import Branches
from neon_input import refusal
from neon_model import REGIONS, Branch, Database, Project, Role, new_password, stamp
from server import Refusal, json_response

BASE = "/api/v2"
PROJECT = "/projects/(?P<project_id>[^/]+)"
BRANCH = PROJECT + "/branches/(?P<branch_id>[^/]+)"
ENDPOINT = PROJECT + "/endpoints/(?P<endpoint_id>[^/]+)"
DATABASE = BRANCH + "/databases/(?P<name>[^/]+)"
ROLE = BRANCH + "/roles/(?P<name>[^/]+)"
# method, path and name of the operation, which is the handler's, too
ROUTES = [(method, re.compile(BASE + pattern + "$"), name) for method, pattern, name in (
    ("GET", "/users/me", "me"), ("GET", "/api_keys", "key_list"), ("POST", "/api_keys", "key_create"),
    ("DELETE", "/api_keys/(?P<key_id>[^/]+)", "key_revoke"),
    ("GET", "/projects", "project_list"), ("POST", "/projects", "project_create"), ("GET", PROJECT, "project_get"),
    ("PATCH", PROJECT, "project_update"), ("DELETE", PROJECT, "project_delete"), ("GET", PROJECT + "/connection_uri", "connection_uri"),
    ("GET", PROJECT + "/operations", "operation_list"), ("GET", PROJECT + "/operations/(?P<operation_id>[^/]+)", "operation_get"),
    ("GET", PROJECT + "/branches", "branch_list"), ("POST", PROJECT + "/branches", "branch_create"),
    ("GET", PROJECT + "/branches/count", "branch_count"), ("GET", BRANCH, "branch_get"), ("PATCH", BRANCH, "branch_update"),
    ("DELETE", BRANCH, "branch_delete"), ("POST", BRANCH + "/restore", "branch_restore"),
    ("POST", BRANCH + "/set_as_default", "branch_default"), ("GET", BRANCH + "/endpoints", "branch_endpoints"),
    ("GET", BRANCH + "/databases", "database_list"), ("POST", BRANCH + "/databases", "database_create"),
    ("GET", DATABASE, "database_get"), ("PATCH", DATABASE, "database_update"), ("DELETE", DATABASE, "database_delete"),
    ("GET", BRANCH + "/roles", "role_list"), ("POST", BRANCH + "/roles", "role_create"), ("GET", ROLE, "role_get"),
    ("DELETE", ROLE, "role_delete"), ("GET", ROLE + "/reveal_password", "role_reveal"), ("POST", ROLE + "/reset_password", "role_reset"),
    ("GET", PROJECT + "/endpoints", "endpoint_list"), ("POST", PROJECT + "/endpoints", "endpoint_create"),
    ("GET", ENDPOINT, "endpoint_get"), ("PATCH", ENDPOINT, "endpoint_update"), ("DELETE", ENDPOINT, "endpoint_delete"),
    ("POST", ENDPOINT + "/start", "endpoint_start"), ("POST", ENDPOINT + "/suspend", "endpoint_suspend"),
    ("POST", ENDPOINT + "/restart", "endpoint_restart"))]
BUSY = "project already has running conflicting operations, scheduling of new ones is prohibited"
NOBODY = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"         # who owns the keys


class Neon(Branches):
    def __init__(self, settings, ledger, faults):
        self.settings = settings
        self.ledger = ledger
        self.faults = faults
        self.projects = {}
        self.keys = []                  # made through the API: {"id", "name", "key", "created", "used"}

    def route(self, request, path):
        if not path.startswith(BASE + "/"):
            return None
        known = False
        for method, pattern, name in ROUTES:
            found = pattern.match(path)
            if found:
                known = True
                if method == request.method:
                    names = {key: urllib.parse.unquote(value) for key, value in found.groupdict().items()}
                    facts = {key: value for key, value in names.items() if key in ("project_id", "branch_id", "endpoint_id")}
                    return "neon." + name.replace("_", "-"), facts, self._guarded(getattr(self, name), names)
        return "neon.unknown", {}, self._guarded(self.wrong_method if known else self.unknown, {})

    def _guarded(self, handler, names):
        async def call(request, entry):
            try:
                org_id = self.organization(bearer(request))
                project = self.find_project(names["project_id"], org_id) if "project_id" in names else None
                if project:
                    project.expire()
                answer = await handler(request, entry, *([project] if project else [org_id]), **{
                    key: value for key, value in names.items() if key != "project_id"})
            except Refusal as problem:
                answer = problem.response
                wanted = request.headers.get("x-request-id")
                if wanted:              # the caller's own name of the request
                    answer = json_response(answer.status, {**json.loads(answer.body), "request_id": wanted}, answer.headers)
            return answer
        return call

    def organization(self, key):
        """Of the key; None: a personal one."""
        if key in self.settings.neon_keys:
            return self.settings.neon_keys[key]
        for one in self.keys:
            if secrets.compare_digest(one["key"].encode(), (key or "").encode()):
                one["used"] = time.time()
                return None
        raise refusal(401, "supplied credentials do not pass authentication")

    def find_project(self, project_id, org_id):
        project = self.projects.get(project_id)
        if project is None or org_id not in (None, project.org_id):
            raise refusal(404, "project not found")
        return project

    async def unknown(self, request, entry, org_id):
        raise refusal(404, "this route does not exist")

    async def wrong_method(self, request, entry, org_id):
        raise refusal(405, "method not allowed")

    async def stop(self):
        for project in self.projects.values():
            await project.stop()
        self.projects.clear()

    def describe(self):
        return [{**project.list_item(), "branches": [{**one.describe(), "line": one.line} for one in project.branches.values()],
                 "endpoints": [one.describe() for one in project.endpoints.values()],
                 "operations": [one.describe() for one in project.operations]} for project in self.projects.values()]

    # -- what many do --------------------------------------------------------------

    def branch_of(self, project, branch_id):
        branch = project.branches.get(branch_id)
        if branch is None:
            raise refusal(404, "branch not found")
        return branch

    def endpoint_of(self, project, endpoint_id):
        endpoint = project.endpoints.get(endpoint_id)
        if endpoint is None:
            raise refusal(404, "endpoint not found")
        return endpoint

    def free(self, project, message=BUSY):
        if project.busy():
            raise refusal(423, message)

    def changed(self, entry, project, steps, status=200, /, **answer):
        """The answer of what schedules operations."""
        self.ledger.mark_started(entry)
        operations = project.schedule(steps)
        return json_response(status, {**{key: value.describe() if hasattr(value, "describe") else value for key, value in answer.items()},
                                      "operations": [one.describe() for one in operations]})

    def page(self, request, rows, key, limit, falling=False, with_last=True):
        """Those of the rows after the cursor, in the order of key(row), and the next cursor; with_last: the last page has one, too."""
        rows = sorted(rows, key=key, reverse=falling)
        cursor = request.query.get("cursor")
        if cursor:
            try:
                after = json.loads(base64.urlsafe_b64decode(cursor))
                rows = [one for one in rows if (key(one) < after if falling else key(one) > after)]
            except (ValueError, TypeError):
                raise refusal(400, "invalid cursor") from None
        page = rows[:limit]
        if not page or (len(page) == len(rows) and not with_last):
            return page, None
        return page, base64.urlsafe_b64encode(json.dumps(key(page[-1])).encode()).decode()

    # -- keys ----------------------------------------------------------------------

    async def me(self, request, entry, org_id):
        bill = {"state": "active", "payment_source": {"type": ""}, "subscription_type": "launch", "payment_method": "none",
                "quota_reset_at_last": stamp(0), "name": "Local Cloud", "email": "local@example.com",
                **{f"address_{part}": "" for part in ("city", "country", "line1", "line2", "postal_code", "state")}}
        return json_response(200, {"active_seconds_limit": 0, "billing_account": bill, "auth_accounts": [
            {"provider": "github", "email": "local@example.com", "name": "Local Cloud", "login": "local", "image": ""}],
            "email": "local@example.com", "id": NOBODY, "image": "", "login": "local", "name": "Local", "last_name": "Cloud",
            "projects_limit": 100, "branches_limit": self.settings.neon_branches_limit, "max_autoscaling_limit": 8, "plan": "launch"})

    def key_facts(self, one):
        return {"id": one["id"], "name": one["name"], "created_at": stamp(one["created"]),
                "last_used_at": one["used"] and stamp(one["used"]), "last_used_from_addr": "127.0.0.1" if one["used"] else ""}

    async def key_list(self, request, entry, org_id):
        return json_response(200, [{**self.key_facts(one), "created_by": {"id": NOBODY, "name": "Local Cloud", "image": ""}}
                                   for one in self.keys])

    async def key_create(self, request, entry, org_id):
        wanted = take.body(request, "key_create")
        one = {"id": max((one["id"] for one in self.keys), default=165433) + 1, "name": wanted["key_name"],
               "key": "napi_" + secrets.token_hex(32), "created": time.time(), "used": None}
        self.keys.append(one)
        self.ledger.mark_started(entry)
        return json_response(200, {"id": one["id"], "key": one["key"], "name": one["name"], "created_at": stamp(one["created"]),
                                   "created_by": NOBODY})

    async def key_revoke(self, request, entry, org_id, key_id):
        one = next((one for one in self.keys if str(one["id"]) == key_id), None)
        if one is None:
            raise refusal(404, "api key not found")
        self.keys.remove(one)
        self.ledger.mark_started(entry)
        return json_response(200, {**self.key_facts(one), "created_by": NOBODY, "revoked": True})

    # -- projects --------------------------------------------------------------------

    def wanted_organization(self, org_id, wanted):
        if wanted is None and org_id is None:
            raise refusal(400, "org_id is required, you can find it on your organization settings page")
        if org_id is not None and wanted not in (None, org_id):
            raise refusal(404, "organization not found")
        return org_id or wanted

    async def project_list(self, request, entry, org_id):
        org_id = self.wanted_organization(org_id, request.query.get("org_id"))
        limit = take.whole(request, "limit", 1, 400, 10)
        take.whole(request, "timeout", 100, 30000, None)
        search = request.query.get("search", "")
        rows = [one for one in self.projects.values() if one.org_id == org_id and (search in one.name or search in one.id)]
        rows, cursor = self.page(request, rows, lambda one: [one.number], limit)
        return json_response(200, {"projects": [one.list_item() for one in rows], **({"pagination": {"cursor": cursor}} if cursor else {}),
                                   "applications": {}, "integrations": {}})

    async def project_create(self, request, entry, org_id):
        wanted = take.body(request, "project_create")["project"]
        org_id = self.wanted_organization(org_id, wanted.get("org_id"))
        if wanted.get("region_id", "aws-us-east-2") not in REGIONS:
            raise refusal(400, f"region {wanted['region_id']} not found")
        project = Project(self.settings, self.faults, org_id, wanted)
        self.limits(project.endpoint_settings)
        self.projects[project.id] = project
        of_branch = wanted.get("branch", {})
        branch = project.add_branch(Branch(project, of_branch.get("name", "main"), annotation=of_branch.get("annotations", {})))
        branch.is_root, project.default_id = True, branch.id
        database = of_branch.get("database_name", "neondb")
        branch.roles.append(Role(branch, of_branch.get("role_name", database + "_owner"), password=new_password()))
        branch.databases.append(Database(branch, database, owner_name=branch.roles[0].name))
        endpoint = project.add_endpoint(branch, "read_write", {})
        entry["project_id"], entry["branch_id"], entry["endpoint_id"] = project.id, branch.id, endpoint.id
        steps = [("create_timeline", branch, None, branch.settle), *project.start(endpoint)]
        return self.changed(entry, project, steps, 201, project=project, connection_uris=project.connections(branch), branch=branch,
                            roles=[one.describe(with_password=True) for one in branch.roles],
                            databases=[one.describe() for one in branch.databases], endpoints=[endpoint.describe()])

    async def project_get(self, request, entry, project):
        return json_response(200, {"project": project.describe()})

    async def project_update(self, request, entry, project):
        wanted = take.body(request, "project_update")["project"]
        self.limits({**project.endpoint_settings, **wanted.get("default_endpoint_settings", {})})
        project.change(wanted)
        return self.changed(entry, project, [], project=project)

    async def project_delete(self, request, entry, project):
        self.free(project)
        if any(one.protected for one in project.branches.values()):
            raise refusal(422, "cannot delete project with protected branches")
        del self.projects[project.id]
        self.ledger.mark_started(entry)
        return json_response(200, {"project": project.describe()})

    async def connection_uri(self, request, entry, project):
        query = request.query
        for name in ("database_name", "role_name"):
            if not query.get(name):
                raise refusal(400, f"parameter {name} is required")
        pooled = take.flag(request, "pooled")
        endpoint = self.endpoint_of(project, query["endpoint_id"]) if query.get("endpoint_id") else None
        branch = self.branch_of(project, query.get("branch_id") or (endpoint.branch_id if endpoint else project.default_id))
        endpoint = endpoint or branch.read_write()
        if endpoint is None or endpoint.branch_id != branch.id:
            raise refusal(404, "endpoint not found")
        database = self.part(branch, "databases", query["database_name"])
        return json_response(200, {"uri": project.uri(endpoint, self.part(branch, "roles", query["role_name"]), database, pooled)})

    # -- operations ------------------------------------------------------------------

    async def operation_list(self, request, entry, project):
        limit = take.whole(request, "limit", 1, 1000, 1000)
        rows, cursor = self.page(request, project.operations, lambda one: [one.number], limit, falling=True)
        return json_response(200, {"operations": [one.describe() for one in rows], **({"pagination": {"cursor": cursor}} if cursor else {})})

    async def operation_get(self, request, entry, project, operation_id):
        for one in project.operations:
            if one.id == operation_id:
                return json_response(200, {"operation": one.describe()})
        raise refusal(404, "operation not found")
