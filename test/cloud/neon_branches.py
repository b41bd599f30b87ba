"""Neon's calls about branches, their databases and roles, and computes: the handlers of neon.py that have to do with one branch."""

import time

import neon_input as take
from neon_input import refusal
from neon_model import Branch, Database, Role, new_password
from server import Response, json_response

SORTS = ("updated_at", "created_at", "name")


def nothing():
    """What is not there need not be deleted."""
    return Response(204)


class Branches:
    def limits(self, wanted):
        least, most = (wanted.get(f"autoscaling_limit_{end}_cu", 0.25) for end in ("min", "max"))
        if least > most and "autoscaling_limit_max_cu" in wanted:
            raise refusal(400, "autoscaling_limit_min_cu must not be greater than autoscaling_limit_max_cu")

    def free_name(self, project, name, but=None):
        if name and any(one.name == name and one is not but for one in project.branches.values()):
            raise refusal(409, f'branch already exists; branch_name:"{name}"', "BRANCH_ALREADY_EXISTS")

    def room(self, project):
        if len(project.branches) >= self.settings.neon_branches_limit:
            raise refusal(422, "branches limit exceeded", "BRANCHES_LIMIT_EXCEEDED")

    def moment(self, branch, lsn, moment):
        """Where in the history of the branch; its head when neither is given."""
        if lsn is not None and moment is not None:
            raise refusal(400, "an LSN and a timestamp cannot be specified together")
        if lsn is not None:
            moment = branch.moment_of(lsn)
        if moment is None:
            return time.time()
        if not branch.reaches(moment):
            raise refusal(400, f"the {'timestamp' if lsn is None else 'LSN'} is outside of the history of branch {branch.id}")
        return moment

    # -- branches ------------------------------------------------------------------

    async def branch_list(self, request, entry, project):
        limit = take.whole(request, "limit", 1, 10000, 10000)
        by = take.choice(request, "sort_by", SORTS)
        order = take.choice(request, "sort_order", ("desc", "asc"))
        take.flag(request, "include_deleted")
        search = request.query.get("search", "")
        rows = [one for one in project.branches.values() if search in one.name or search in one.id]
        values = {"name": lambda one: one.name, "created_at": lambda one: one.created, "updated_at": lambda one: one.updated}[by]
        rows, cursor = self.page(request, rows, lambda one: [values(one), one.id], limit, order == "desc", with_last=False)
        return json_response(200, {"branches": [one.describe() for one in rows],
                                   "annotations": {one.id: self.annotation(one) for one in rows if one.annotation},
                                   "pagination": {**({"next": cursor} if cursor else {}), "sort_by": by, "sort_order": order}})

    def annotation(self, branch):
        return {"object": {"type": "console/branch", "id": branch.id}, "value": branch.annotation}

    async def branch_count(self, request, entry, project):
        search = request.query.get("search", "")
        return json_response(200, {"count": sum(search in one.name for one in project.branches.values())})

    async def branch_get(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        return json_response(200, {"branch": branch.describe(), "annotation": self.annotation(branch)})

    async def branch_create(self, request, entry, project):
        wanted = take.body(request, "branch_create", optional=True)
        options = wanted.get("branch", {})
        parent = self.branch_of(project, options.get("parent_id") or project.default_id)
        computes = wanted.get("endpoints", [])
        if sum(one["type"] == "read_write" for one in computes) > 1:
            raise refusal(422, "read_write endpoint already exists", "ENDPOINTS_LIMIT_EXCEEDED")
        for one in computes:
            self.limits(one)
        moment = self.moment(parent, options.get("parent_lsn"), options.get("parent_timestamp"))
        self.free_name(project, options.get("name"))
        self.room(project)
        if parent.pending:
            raise refusal(422, "branch not ready yet")
        self.free(project)
        branch = project.add_branch(Branch(project, options.get("name"), parent, moment, annotation=wanted.get("annotation_value", {}),
                                           **{key: options[key] for key in ("protected", "archived", "init_source") if key in options}))
        branch.expire_at(options.get("expires_at"))
        entry["branch_id"] = branch.id
        endpoints = [project.add_endpoint(branch, one["type"], {key: value for key, value in one.items() if key != "type"})
                     for one in computes]
        if branch.init_source == "schema-only":
            steps = [("create_timeline", branch, None, lambda: None), ("apply_schema_from_branch", branch, None, branch.settle)]
        else:
            steps = [("create_branch", branch, None, branch.settle)]
        for one in endpoints:
            steps += project.start(one)
        connections = project.connections(branch)
        return self.changed(entry, project, steps, 201, branch=branch, endpoints=[one.describe() for one in endpoints],
                            roles=[one.describe() for one in branch.existing(branch.roles)],
                            databases=[one.describe() for one in branch.existing(branch.databases)],
                            **({"connection_uris": connections} if connections else {}))

    async def branch_update(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        wanted = take.body(request, "branch_update")["branch"]
        self.free_name(project, wanted.get("name"), branch)
        branch.name = wanted.get("name", branch.name)
        branch.protected = wanted.get("protected", branch.protected)
        if "expires_at" in wanted:
            branch.expire_at(wanted["expires_at"])
        branch.updated = time.time()
        return self.changed(entry, project, [], branch=branch)

    async def branch_delete(self, request, entry, project, branch_id):
        take.flag(request, "hard_delete")
        branch = project.branches.get(branch_id)
        if branch is None:
            return nothing()
        if branch.is_root:
            raise refusal(422, "cannot delete the root branch")
        if branch.id == project.default_id:
            raise refusal(422, "cannot delete the default branch")
        if branch.protected:
            raise refusal(422, "cannot delete protected branch")
        children = branch.children()
        if children:
            raise refusal(422, f"cannot delete branch that has children: {', '.join(one.id for one in children)}")
        self.free(project)
        return self.changed(entry, project, project.remove_branch(branch), branch=branch)

    async def branch_restore(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        wanted = take.body(request, "branch_restore")
        source = self.branch_of(project, wanted["source_branch_id"])
        lsn, moment, name = (wanted.get(key) for key in ("source_lsn", "source_timestamp", "preserve_under_name"))
        if source is branch and lsn is None and moment is None:
            raise refusal(400, "source_timestamp or source_lsn is required to restore a branch to its own history")
        moment = self.moment(source, lsn, moment)
        if branch.protected:
            raise refusal(422, "cannot restore protected branch")
        if not name and branch.children():
            raise refusal(422, "Branch has children, preserve_under_name is required")
        if not name and source is branch:
            raise refusal(422, "preserve_under_name is required to restore a branch to its own history")
        self.free_name(project, name)
        if name:
            self.room(project)
        if branch.pending or source.pending:
            raise refusal(422, "branch not ready yet")
        self.free(project)
        return self.changed(entry, project, project.restore(branch, source, moment, name), branch=branch)

    async def branch_default(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        project.default_id = branch.id
        branch.updated = time.time()
        return self.changed(entry, project, [], branch=branch)

    async def branch_endpoints(self, request, entry, project, branch_id):
        return json_response(200, {"endpoints": [one.describe() for one in self.branch_of(project, branch_id).endpoints()]})

    # -- computes ------------------------------------------------------------------

    async def endpoint_list(self, request, entry, project):
        return json_response(200, {"endpoints": [one.describe() for one in project.endpoints.values()]})

    async def endpoint_get(self, request, entry, project, endpoint_id):
        return json_response(200, {"endpoint": self.endpoint_of(project, endpoint_id).describe()})

    async def endpoint_create(self, request, entry, project):
        wanted = take.body(request, "endpoint_create")["endpoint"]
        branch = self.branch_of(project, wanted.pop("branch_id"))
        kind, region, _ = wanted.pop("type"), wanted.pop("region_id", project.region), wanted.pop("pooler_mode", None)
        self.limits(wanted)
        if region != project.region:
            raise refusal(400, "the endpoint must be in the region of its project")
        if kind == "read_write" and branch.read_write():
            raise refusal(422, "read_write endpoint already exists", "ENDPOINTS_LIMIT_EXCEEDED")
        if branch.pending:
            raise refusal(422, "branch not ready yet")
        self.free(project)
        endpoint = project.add_endpoint(branch, kind, wanted)
        entry["branch_id"], entry["endpoint_id"] = branch.id, endpoint.id
        return self.changed(entry, project, project.start(endpoint), 201, endpoint=endpoint)

    async def endpoint_update(self, request, entry, project, endpoint_id):
        endpoint = self.endpoint_of(project, endpoint_id)
        wanted = take.body(request, "endpoint_update")["endpoint"]
        if wanted.pop("branch_id", endpoint.branch_id) != endpoint.branch_id:
            raise refusal(400, "an endpoint stays with its branch")
        wanted.pop("pooler_mode", None)
        self.limits({**endpoint.wanted, **wanted})
        self.free(project)
        endpoint.wanted.update(wanted)
        steps = project.suspend(endpoint) if wanted.get("disabled") else project.apply(endpoint)
        return self.changed(entry, project, steps, endpoint=endpoint)

    async def endpoint_delete(self, request, entry, project, endpoint_id):
        endpoint = project.endpoints.get(endpoint_id)
        if endpoint is None:
            return nothing()
        self.free(project)
        steps = project.suspend(endpoint)
        if not steps:
            del project.endpoints[endpoint.id]
        else:
            steps[-1] = (*steps[-1][:3], lambda: project.endpoints.pop(endpoint.id))
        return self.changed(entry, project, steps, endpoint=endpoint)

    async def endpoint_start(self, request, entry, project, endpoint_id):
        endpoint = self.endpoint_of(project, endpoint_id)
        if endpoint.wanted["disabled"]:
            raise refusal(422, "endpoint is disabled")
        self.free(project)
        return self.changed(entry, project, project.start(endpoint) if endpoint.state != "active" else [], endpoint=endpoint)

    async def endpoint_suspend(self, request, entry, project, endpoint_id):
        endpoint = self.endpoint_of(project, endpoint_id)
        if endpoint.pending:
            raise refusal(423, "endpoint is in some transitive state, could not suspend")
        self.free(project)
        return self.changed(entry, project, project.suspend(endpoint), endpoint=endpoint)

    async def endpoint_restart(self, request, entry, project, endpoint_id):
        endpoint = self.endpoint_of(project, endpoint_id)
        self.free(project)
        steps = project.suspend(endpoint)

        def wake():
            endpoint.set_state("idle", "active")
            endpoint.settle()
        steps = [*steps, ("start_compute", None, endpoint, wake)] if steps else project.start(endpoint)
        return self.changed(entry, project, steps, endpoint=endpoint)

    # -- databases and roles -------------------------------------------------------

    def part(self, branch, kind, name):
        """That database or role."""
        found = branch.find(getattr(branch, kind), name)
        if found is None:
            raise refusal(404, f"{kind[:-1]} not found")
        return found

    def parts(self, project, branch_id, kind):
        branch = self.branch_of(project, branch_id)
        return json_response(200, {kind: [one.describe() for one in branch.existing(getattr(branch, kind))]})

    def new_part(self, entry, project, branch, kind, part, **more):
        if branch.find(getattr(branch, kind), part.name):
            raise refusal(409, f'{kind[:-1]} already exists; {kind[:-1]}_name:"{part.name}"')
        if branch.pending:
            raise refusal(422, "branch not ready yet")
        self.free(project)
        getattr(branch, kind).append(part)
        return self.changed(entry, project, project.apply(branch.read_write()), 201, **{kind[:-1]: part.describe(**more)})

    def drop_part(self, entry, project, branch_id, kind, name):
        branch = self.branch_of(project, branch_id)
        found = branch.find(getattr(branch, kind), name)
        if found is None:
            return nothing()
        if kind == "roles" and any(one.more["owner_name"] == name for one in branch.existing(branch.databases)):
            raise refusal(422, f'role owns databases; role_name:"{name}"')
        self.free(project)
        found.dropped = time.time()
        return self.changed(entry, project, project.apply(branch.read_write()), **{kind[:-1]: found})

    def owner(self, branch, name):
        if not branch.find(branch.roles, name):
            raise refusal(404, f'database owner not found; role_name:"{name}"')

    async def database_list(self, request, entry, project, branch_id):
        return self.parts(project, branch_id, "databases")

    async def database_get(self, request, entry, project, branch_id, name):
        return json_response(200, {"database": self.part(self.branch_of(project, branch_id), "databases", name).describe()})

    async def database_create(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        wanted = take.body(request, "database_create")["database"]
        self.owner(branch, wanted["owner_name"])
        return self.new_part(entry, project, branch, "databases", Database(branch, wanted["name"], owner_name=wanted["owner_name"]))

    async def database_update(self, request, entry, project, branch_id, name):
        branch = self.branch_of(project, branch_id)
        database = self.part(branch, "databases", name)
        wanted = take.body(request, "database_update")["database"]
        if "owner_name" in wanted:
            self.owner(branch, wanted["owner_name"])
        if wanted.get("name", name) != name and branch.find(branch.databases, wanted["name"]):
            raise refusal(409, f'database already exists; database_name:"{wanted["name"]}"')
        self.free(project)
        database.name = wanted.get("name", name)
        database.more = {"owner_name": wanted.get("owner_name", database.more["owner_name"])}
        database.updated = time.time()
        return self.changed(entry, project, project.apply(branch.read_write()), database=database)

    async def database_delete(self, request, entry, project, branch_id, name):
        return self.drop_part(entry, project, branch_id, "databases", name)

    async def role_list(self, request, entry, project, branch_id):
        return self.parts(project, branch_id, "roles")

    async def role_get(self, request, entry, project, branch_id, name):
        return json_response(200, {"role": self.part(self.branch_of(project, branch_id), "roles", name).describe()})

    async def role_create(self, request, entry, project, branch_id):
        branch = self.branch_of(project, branch_id)
        wanted = take.body(request, "role_create")["role"]
        return self.new_part(entry, project, branch, "roles", Role(branch, wanted["name"], password=new_password()), with_password=True)

    async def role_delete(self, request, entry, project, branch_id, name):
        return self.drop_part(entry, project, branch_id, "roles", name)

    async def role_reveal(self, request, entry, project, branch_id, name):
        role = self.part(self.branch_of(project, branch_id), "roles", name)
        if not project.store_passwords:
            raise refusal(412, "storing passwords is disabled")
        return json_response(200, {"password": role.password})

    async def role_reset(self, request, entry, project, branch_id, name):
        branch = self.branch_of(project, branch_id)
        role = self.part(branch, "roles", name)
        self.free(project)
        role.more = {**role.more, "password": new_password()}
        role.updated = time.time()
        return self.changed(entry, project, project.apply(branch.read_write()), role=role.describe(with_password=True))
