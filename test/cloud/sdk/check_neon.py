#!/usr/bin/env python3
"""A session of neon-api, the client for Python, with the local cloud: it must understand every answer.

    python3 test/cloud/sdk/check_neon.py

Its classes are made from Neon's description of January 2025.  It has no method that restores a branch and no parameters of branches'
lists, so those calls go through its _request(); it sends POST where a password is revealed, which the service has long not taken.
"""

import datetime
import sys
import time

import requests
from neon_api import NeonAPI
from neon_api import schema
from neon_api.exceptions import NeonAPIError
from neon_api.schema import EndpointState, EndpointType, OperationAction, OperationStatus

from localcloud import LocalCloud, check, control, post, refused, summary, until

ORGANIZATION = "org-local-lake-00000001"
ENDED = {OperationStatus.finished, OperationStatus.skipped, OperationStatus.cancelled}


def client(cloud, key="napi_local"):
    return NeonAPI(key, base_url=cloud.secure + "/neon/api/v2/")


def error(action):
    """(status, code, message) of what action is refused with."""
    try:
        action()
    except NeonAPIError as problem:
        body = problem.__context__.response.json()
        found = schema.GeneralError(**body)
        check("errors have a request id", len(found.request_id) == 36, body)
        return problem.__context__.response.status_code, found.code, found.message
    return None


def settled(api, answer):
    """After all operations of the answer have ended; their states as they were seen."""
    seen = {}
    for operation in answer.operations:
        states = seen.setdefault(operation.action, [operation.status])

        def look():
            found = api.operation(operation.project_id, operation.id).operation
            if found.status != states[-1]:
                states.append(found.status)
            return found
        found = until(look, lambda one: one.status in ENDED)
        check(f"{found.action} ended", found.status == OperationStatus.finished, found)
    return seen


def make(api, **project):
    """A project that is ready.  The client's class for this answer has the project only; the rest is asked for."""
    found = api.project_create(project=project).project
    until(lambda: api.operations(found.id).operations, lambda all: all and all[0].status == OperationStatus.finished)
    return found


def speed(cloud, factor):
    """As slow as can be, operations stand still."""
    post(cloud.address, "/_cloud/config", {"speed": factor})


def utc(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def keys(cloud):
    api = client(cloud)
    refusal = (401, "", "supplied credentials do not pass authentication")
    check("keys: a wrong one", error(lambda: client(cloud, "napi_wrong").projects()) == refusal)
    check("keys: none", requests.get(cloud.secure + "/neon/api/v2/projects", timeout=20).status_code == 401)
    check("keys: who am I", api.me().billing_account.subscription_type == schema.BillingSubscriptionType.launch)
    made = api.api_key_create(key_name="mine")
    own = client(cloud, made.key)
    check("keys: a new one works", own.me().email == "local@example.com")
    check("keys: listed", [(one.id, one.name, one.last_used_from_addr) for one in own.api_keys()] == [(made.id, "mine", "127.0.0.1")])
    check("keys: revoked", api.api_key_revoke(made.id).revoked is True and error(own.me) == refusal)
    check("keys: revoked once", error(lambda: api.api_key_revoke(made.id))[0] == 404)
    personal = client(cloud, "napi_personal")
    check("keys: a personal one has to name an organization", error(personal.projects)[:2] == (400, "")
          and "org_id is required" in error(personal.projects)[2])


def projects(cloud):
    api = client(cloud)
    made = [make(api, name=f"p{number}") for number in range(5)]
    one = api.project(made[0].id).project
    check("projects: one", one.name == "p0" and one.region_id == "aws-us-east-2" and one.pg_version == 17 and one.org_id == ORGANIZATION
          and one.owner.subscription_type == schema.BillingSubscriptionType.launch and one.history_retention_seconds > 0
          and one.consumption_period_end > one.consumption_period_start, one)
    found, cursor, pages = [], None, 0
    while True:
        answer = api._request("GET", "projects", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        page = schema.ProjectsResponse(**{name: answer[name] for name in ("projects",)}).projects
        if not page:
            break
        pages += 1
        found += [item.id for item in page]
        cursor = schema.PaginationResponse(pagination=answer["pagination"]).pagination.cursor
    check("projects: pages, the last cursor leads to an empty one", found == [one.id for one in made] and pages == 3, (found, pages))
    check("projects: the client's own list", [one.id for one in api.projects(limit=3).projects] == found[:3])
    check("projects: a cursor that is none", error(lambda: api.projects(cursor="&"))[0] == 400)
    check("projects: too many at once", error(lambda: api.projects(limit=401))[0] == 400)
    check("projects: found", [one["name"] for one in api._request("GET", "projects", params={"search": "p3"})["projects"]] == ["p3"])
    check("projects: renamed", api.project_update(made[4].id, project={"name": "other"}).project.name == "other")
    check("projects: unknown", error(lambda: api.project("none")) == (404, "", "project not found"))
    check("projects: no such region", error(lambda: api.project_create(project={"region_id": "moon"}))[0] == 400)
    check("projects: not a number", error(lambda: api.project_create(project={"pg_version": "17"}))[0] == 400)
    check("projects: nothing wanted", error(lambda: api.project_create(name="x"))[0] == 400)
    gone = api.project_delete(made[4].id).project
    check("projects: deleted", gone.id == made[4].id and error(lambda: api.project(gone.id))[0] == 404)


def branches(cloud):
    api = client(cloud)
    project = make(api, name="branches").id
    main = api.branches(project).branches[0]
    check("branches: the first", main.name == "main" and main.default and main.current_state == "ready" and main.parent_id is None, main)
    began = time.time()
    speed(cloud, 1e-6)
    answer = api.branch_create(project, branch={"name": "dev"}, endpoints=[{"type": "read_write"}])
    dev = answer.branch
    check("branches: begun", dev.current_state == "init" and dev.pending_state == "ready" and dev.parent_id == main.id and dev.parent_lsn
          and dev.created_by.name, dev)
    check("branches: what has to be done", [(one.action, one.status) for one in answer.operations] == [
        (OperationAction.create_branch, OperationStatus.running), (OperationAction.start_compute, OperationStatus.scheduling)], answer)
    locked = error(lambda: api.branch_create(project, branch={"name": "other"}))
    check("branches: locked meanwhile", locked[0] == 423 and "conflicting operations" in locked[2], locked)
    check("branches: not ready for children", error(lambda: api.branch_create(project, branch={"parent_id": dev.id}))
          == (422, "", "branch not ready yet"))
    speed(cloud, 10)
    seen = settled(api, answer)
    for action, states in seen.items():             # one that is short may not be seen
        check(f"branches: states of {action}", [one for one in (OperationStatus.scheduling, OperationStatus.running, OperationStatus.finished)
                                                if one in states] == states, seen)
    dev = api.branch(project, dev.id).branch
    check("branches: ready", dev.current_state == "ready" and dev.pending_state is None and dev.logical_size > 0, dev)
    check("branches: the name is taken", error(lambda: api.branch_create(project, branch={"name": "dev"}))
          == (409, "BRANCH_ALREADY_EXISTS", 'branch already exists; branch_name:"dev"'))
    past = api.branch_create(project, branch={"name": "past", "parent_id": main.id, "parent_timestamp": utc(began)})
    settled(api, past)
    by_lsn = api.branch_create(project, branch={"parent_id": main.id, "parent_lsn": past.branch.parent_lsn})
    settled(api, by_lsn)
    check("branches: as of a time, and of its LSN", by_lsn.branch.parent_lsn == past.branch.parent_lsn != dev.parent_lsn
          and by_lsn.branch.parent_timestamp == past.branch.parent_timestamp and by_lsn.branch.name == by_lsn.branch.id, by_lsn.branch)
    for what, options in (("before there was anything", {"parent_timestamp": "2020-01-01T00:00:00Z"}),
                          ("in the future", {"parent_timestamp": "2999-01-01T00:00:00Z"}), ("of an LSN of the future", {"parent_lsn": "FFFF/0"}),
                          ("an LSN that is none", {"parent_lsn": "x"}), ("both", {"parent_lsn": "0/1", "parent_timestamp": utc(began)}),
                          ("a long name", {"name": "x" * 257}), ("an unknown field", {"colour": "red"}),
                          ("expired already", {"expires_at": "2020-01-01T00:00:00Z"})):
        check(f"branches: {what}", error(lambda: api.branch_create(project, branch=options))[0] == 400, options)
    check("branches: unknown", error(lambda: api.branch(project, "br-none")) == (404, "", "branch not found"))
    updated = api.branch_update(project, dev.id, branch={"name": "develop", "protected": True})
    check("branches: updated", updated.branch.name == "develop" and updated.branch.protected and updated.operations == [], updated)
    check("branches: protected", error(lambda: api.branch_delete(project, dev.id))[0] == 422)
    api.branch_update(project, dev.id, branch={"protected": False})
    names, cursor = [], None
    while True:
        answer = api._request("GET", f"projects/{project}/branches", params={
            "limit": 2, "sort_by": "name", "sort_order": "asc", **({"cursor": cursor} if cursor else {})})
        names += [one.name for one in schema.BranchesResponse(branches=answer["branches"]).branches]
        cursor = schema.CursorPaginationResponse(pagination=answer["pagination"]).pagination.next
        if not cursor:
            break
    check("branches: pages", names == sorted(["main", "develop", "past", by_lsn.branch.name]), names)
    check("branches: the root", error(lambda: api.branch_delete(project, main.id)) == (422, "", "cannot delete the root branch"))
    deleted = api.branch_delete(project, dev.id)
    check("branches: delete", [one.action for one in deleted.operations] == [OperationAction.suspend_compute, OperationAction.delete_timeline])
    settled(api, deleted)
    check("branches: gone, with its compute", error(lambda: api.branch(project, dev.id))[0] == 404
          and [one.branch_id for one in api.endpoints(project).endpoints] == [main.id])
    # 204 and no body: the client cannot read that
    check("branches: gone before", refused(lambda: api.branch_delete(project, dev.id), requests.exceptions.JSONDecodeError))
    check("branches: a way that is no more", error(lambda: api.branch_set_as_primary(project, past.branch.id))[0] == 404)
    made = schema.BranchOperations(**api._request("POST", f"projects/{project}/branches/{past.branch.id}/set_as_default"))
    check("branches: another default", made.branch.default and not api.branch(project, main.id).branch.default)


def restores(cloud):
    api = client(cloud)
    project = make(api, name="restores").id
    main = api.branches(project).branches[0]
    api.branch_update(project, main.id, branch={"name": "production"})

    def restore(branch, **wanted):
        return schema.BranchOperations(**api._request("POST", f"projects/{project}/branches/{branch}/restore", json=wanted))

    def create(name, parent):
        answer = api.branch_create(project, branch={"name": name, "parent_id": parent})
        settled(api, answer)
        return answer.branch.id
    dev = create("dev", main.id)
    child = create("child", dev)
    check("restore: children need a name", error(lambda: restore(dev, source_branch_id=main.id))
          == (422, "", "Branch has children, preserve_under_name is required"))
    check("restore: to itself needs a time", error(lambda: restore(child, source_branch_id=child))[0] == 400)
    check("restore: and a name", error(lambda: restore(child, source_branch_id=child, source_timestamp=utc(time.time())))[0] == 422)
    check("restore: from nowhere", error(lambda: restore(child, source_branch_id="br-none"))[0] == 404)
    check("restore: a source is required", error(lambda: restore(child, preserve_under_name="x"))[0] == 400)
    speed(cloud, 1e-6)
    answer = restore(dev, source_branch_id=child, preserve_under_name="dev-before")
    check("restore: begun", answer.branch.id == dev and answer.branch.current_state == "resetting" and answer.branch.pending_state == "ready"
          and answer.operations[0].action == OperationAction.create_branch, answer)
    check("restore: locked meanwhile", error(lambda: restore(dev, source_branch_id=main.id, preserve_under_name="y"))
          == (422, "", "branch not ready yet"))
    check("restore: nor anything else", error(lambda: api.branch_create(project))[0] == 423)
    speed(cloud, 10)
    settled(api, answer)
    found = {one.name: one for one in api.branches(project).branches}
    check("restore: the line of parents", found["dev"].parent_id == child and found["child"].parent_id == found["dev-before"].id
          and found["dev-before"].parent_id == main.id and found["dev"].last_reset_at and found["dev"].parent_lsn, found)
    check("restore: parents stay", "children" in error(lambda: api.branch_delete(project, found["dev-before"].id))[2])
    at = utc(time.time())
    answer = restore(main.id, source_branch_id=main.id, source_timestamp=at, preserve_under_name="production-before")
    check("restore: a compute that works is stopped and started", [one.action for one in answer.operations] == [
        OperationAction.suspend_compute, OperationAction.create_branch, OperationAction.start_compute], answer.operations)
    settled(api, answer)
    root = api.branch(project, main.id).branch
    backup = next(one for one in api.branches(project).branches if one.name == "production-before")
    check("restore: a root stays one", root.parent_id is None and root.default and backup.parent_id is None
          and api.branch(project, found["dev-before"].id).branch.parent_id == backup.id, (root, backup))
    lines = {one["name"]: one["line"] for one in next(one for one in control(cloud.address, "neon") if one["id"] == project)["branches"]}
    check("restore: whose data is shown", [one for one, _ in lines["production"]] == [backup.id]
          and [one for one, _ in lines["dev"]] == [backup.id, found["dev-before"].id, child], lines)


def computes(cloud):
    api = client(cloud)
    project = make(api, name="computes").id
    main = api.branches(project).branches[0].id
    one = api.endpoints(project).endpoints[0]
    check("computes: the first", one.branch_id == main and one.type == EndpointType.read_write and one.current_state == EndpointState.active
          and one.host.startswith(one.id) and one.host.endswith(one.proxy_host), one)
    second = {"branch_id": main, "type": "read_write"}
    check("computes: one that writes", error(lambda: api.endpoint_create(project, endpoint=second))
          == (422, "ENDPOINTS_LIMIT_EXCEEDED", "read_write endpoint already exists"))
    speed(cloud, 1e-6)
    answer = api.endpoint_create(project, endpoint={**second, "type": "read_only", "autoscaling_limit_max_cu": 2, "settings": {
        "pg_settings": {"work_mem": "64MB"}}})
    reader = answer.endpoint
    check("computes: begun", reader.current_state == EndpointState.init and reader.pending_state == EndpointState.active
          and reader.settings.pg_settings == {"work_mem": "64MB"} and answer.operations[0].action == OperationAction.start_compute, answer)
    check("computes: not yet", error(lambda: api.endpoint_suspend(project, reader.id))
          == (423, "", "endpoint is in some transitive state, could not suspend"))
    speed(cloud, 10)
    settled(api, answer)
    settled(api, api.endpoint_suspend(project, reader.id))
    check("computes: suspended", api.endpoint(project, reader.id).endpoint.current_state == EndpointState.idle)
    check("computes: suspended before", api.endpoint_suspend(project, reader.id).operations == [])
    settled(api, api.endpoint_start(project, reader.id))
    check("computes: started", api.endpoint(project, reader.id).endpoint.current_state == EndpointState.active)
    settled(api, api.endpoint_update(project, reader.id, endpoint={"suspend_timeout_seconds": 600}))
    check("computes: updated", api.endpoint(project, reader.id).endpoint.suspend_timeout_seconds == 600)
    check("computes: too small", error(lambda: api.endpoint_update(project, reader.id, endpoint={"autoscaling_limit_min_cu": 0.1}))[0] == 400)
    settled(api, api.endpoint_delete(project, reader.id))
    check("computes: deleted", error(lambda: api.endpoint(project, reader.id)) == (404, "", "endpoint not found"))


def databases(cloud):
    api = client(cloud)
    project = make(api, name="databases").id
    main = api.branches(project).branches[0].id
    quiet = lambda: until(lambda: api.operations(project).operations, lambda all: all[0].status == OperationStatus.finished)
    settled(api, api.role_create(project, main, "sally"))
    check("roles: listed", [one.name for one in api.roles(project, main).roles] == ["neondb_owner", "sally"])
    made = api.role_password_reset(project, main, "sally")
    check("roles: a new password", made.role.password.startswith("npg_"), made)
    settled(api, made)
    revealed = schema.RolePasswordResponse(**api._request("GET", f"projects/{project}/branches/{main}/roles/sally/reveal_password"))
    check("roles: revealed", revealed.password == made.role.password and api.role(project, main, "sally").role.password is None)
    check("roles: a way that is no more", error(lambda: api.role_password_reveal(project, main, "sally"))[0] == 405)
    check("databases: an owner", "owner not found" in error(lambda: api.database_create(project, main, database={
        "name": "lake", "owner_name": "nobody"}))[2])
    lake = api.database_create(project, main, database={"name": "lake", "owner_name": "sally"}).database
    quiet()
    check("databases: listed", [one.name for one in api.databases(project, main).databases] == ["neondb", "lake"]
          and api.database(project, main, "lake").database.id == lake.id)
    uri = api.connection_uri(project, "lake", "sally", pooled=True).uri
    host = api.endpoints(project).endpoints[0]
    check("databases: where", uri.startswith(f"postgresql://sally:{revealed.password}@{host.id}-pooler.") and "/lake?sslmode=require" in uri, uri)
    check("databases: without a role", error(lambda: api.connection_uri(project, "lake"))[0] == 400)
    check("databases: of nobody", error(lambda: api.connection_uri(project, "lake", "nobody")) == (404, "", "role not found"))
    check("roles: an owner stays", error(lambda: api.role_delete(project, main, "sally"))[0] == 422)
    api.database_update(project, main, "lake", database={"owner_name": "neondb_owner"})
    quiet()
    settled(api, api.endpoint_suspend(project, host.id))
    dropped = api.role_delete(project, main, "sally")
    check("roles: a compute that sleeps is woken for it", [one.action for one in dropped.operations] == [
        OperationAction.apply_config, OperationAction.suspend_compute], dropped)
    settled(api, dropped)
    check("databases: deleted", api.database_delete(project, main, "lake").database.name == "lake")
    quiet()
    check("databases: gone", error(lambda: api.database(project, main, "lake"))[0] == 404)


def faults(cloud):
    api = client(cloud)
    project = make(api, name="faults").id
    post(cloud.address, "/_cloud/faults", {"operation": "neon.branch-create", "status": 429, "retry_after": 3})
    try:
        api.branch_create(project)
    except NeonAPIError as problem:
        answer = problem.__context__.response
        check("faults: 429", answer.status_code == 429 and answer.headers["Retry-After"] == "3" and schema.GeneralError(**answer.json()))
    post(cloud.address, "/_cloud/faults", {"operation": "neon.*", "status": 503, "project_id": project})
    check("faults: 503", refused(lambda: api.project(project), NeonAPIError))
    post(cloud.address, "/_cloud/faults", {"operation": "neon.branch-create", "fault": "reset_after"})
    check("faults: an answer is lost", refused(lambda: api.branch_create(project, branch={"name": "lost"}), requests.exceptions.ConnectionError))
    check("faults: what was asked is done", "lost" in [one.name for one in api.branches(project).branches])
    until(lambda: api.operations(project).operations, lambda all: all[0].status == OperationStatus.finished)
    fault = {"fault": "task_fails", "action": "create_branch", "project_id": project, "message": "no room", "times": None}
    fault = post(cloud.address, "/_cloud/faults", fault)["faults"][0]["id"]
    answer = api.branch_create(project, branch={"name": "late"})
    number = answer.operations[0].id
    failed = until(lambda: api.operation(project, number).operation, lambda one: one.status == OperationStatus.failed)
    check("faults: an operation fails", failed.error == "no room" and failed.failures_count > 0 and failed.retry_at, failed)
    check("faults: and keeps the project", error(lambda: api.branch_create(project))[0] == 423)
    requests.delete(f"{cloud.address}/_cloud/faults/{fault}", timeout=20)
    ended = until(lambda: api.operation(project, number).operation, lambda one: one.status == OperationStatus.finished)
    check("faults: until it succeeds", ended.failures_count >= failed.failures_count and ended.error is None and ended.retry_at is None
          and ended.total_duration_ms > 0, ended)
    check("operations: the newest first", api.operations(project, limit=1).operations[0].id == number)
    check("operations: unknown", error(lambda: api.operation(project, "a07f8772-1877-4da9-a939-3a3ae62d1d8d"))[0] == 404)
    started = control(cloud.address, f"counts?operation=neon.branch-create&project_id={project}")["neon.branch-create"]
    check("the ledger counts what began", started == {"requests": 4, "started": 2}, started)


def main():
    with LocalCloud() as cloud:
        for session in (keys, projects, branches, restores, computes, databases, faults):
            session(cloud)
    return summary()


if __name__ == "__main__":
    sys.exit(main())
