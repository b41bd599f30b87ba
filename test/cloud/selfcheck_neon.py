"""The group of selfcheck.py for Neon: life cycles, what is refused and in which order, faults."""

import time

from client import lost, until
from neon_input import moment
from neon_model import stamp


def neon(c, check):
    def call(method, path, body=None, key="napi_local"):
        return c.call(method, "/neon/api/v2" + path, body, {"Authorization": f"Bearer {key}"})

    def quiet():
        return until(lambda: call("GET", f"{project}/operations")[1]["operations"],
                     lambda all: all and all[0]["status"] == "finished")

    def refused(answer, status, text):
        return answer[0] == status and set(answer[1]) == {"request_id", "code", "message"} and text in answer[1]["message"]

    check("neon: no key", refused(c.call("GET", "/neon/api/v2/projects"), 401, "supplied credentials"))
    check("neon: without its prefix", c.call("GET", "/api/v2/projects", None, {"Authorization": "Bearer napi_local"})[0] == 200)
    check("neon: unknown way", refused(call("GET", "/none"), 404, "route"))
    check("neon: wrong method", refused(call("PUT", "/projects"), 405, "method"))
    check("neon: not JSON", refused(call("POST", "/projects", "{"), 400, "not JSON"))
    check("neon: not an object", refused(call("POST", "/projects", "[]"), 400, "must be an object"))
    for wanted in ({"project": {"pg_version": True}}, {"project": {"name": ""}}, {"project": {"settings": {"maintenance_window": {}}}},
                   {"project": {"default_endpoint_settings": {"autoscaling_limit_min_cu": 4, "autoscaling_limit_max_cu": 1}}}, {}):
        check(f"neon: refused {wanted}", call("POST", "/projects", wanted)[0] == 400)
    check("neon: nothing was made", call("GET", "/projects")[1] == {"projects": [], "applications": {}, "integrations": {}})
    c.control("POST", "config", {"speed": 1e-6})            # operations stand still
    status, made = call("POST", "/projects", {"project": {"name": "lake"}})
    project = f"/projects/{made['project']['id']}"
    main = made["branch"]["id"]
    check("neon: a project", status == 201 and [(one["action"], one["status"]) for one in made["operations"]]
          == [("create_timeline", "running"), ("start_compute", "scheduling")], made)
    check("neon: its answer is not the database's", made["endpoints"][0]["current_state"] == "init" and made["branch"]["current_state"] == "init")
    check("neon: locked", refused(call("DELETE", project), 423, "conflicting operations"))
    check("neon: rename while locked", call("PATCH", project, {"project": {"name": "sea"}})[0] == 200)
    check("neon: of another organization", [c.control("POST", "config", {"neon_keys": {
        "napi_local": "org-local-lake-00000001", "napi_personal": None, "napi_other": "org-other"}}),
        refused(call("GET", project, key="napi_other"), 404, "project not found")][1])
    c.control("POST", "config", {"speed": 20})
    operations = quiet()
    check("neon: in turn", [one["action"] for one in operations] == ["start_compute", "create_timeline"]
          and operations[0]["created_at"] <= operations[0]["updated_at"] and all(one["total_duration_ms"] > 0 for one in operations), operations)
    branches(c, check, call, quiet, refused, project, main)
    faults(c, check, call, quiet, project)
    c.control("POST", "reset")
    check("neon: reset", call("GET", "/projects")[1]["projects"] == [] and c.control("GET", "neon") == [])


def branches(c, check, call, quiet, refused, project, main):
    def create(**branch):
        answer = call("POST", f"{project}/branches", {"branch": branch})
        quiet()
        return answer[1].get("branch")

    then = time.time()
    dev = create(name="dev")
    check("neon: begun", dev["pending_state"] == "ready" and "logical_size" not in dev and abs(moment(dev["parent_timestamp"]) - then) < 20, dev)
    one = call("GET", f"{project}/branches/{dev['id']}")[1]["branch"]
    check("neon: ready", one["current_state"] == "ready" and "pending_state" not in one and one["logical_size"] > 0, one)
    past = create(name="past", parent_id=main, parent_lsn=dev["parent_lsn"])
    check("neon: the same LSN, the same time", past["parent_timestamp"] == dev["parent_timestamp"], past)
    check("neon: before it began", refused(call("POST", f"{project}/branches", {"branch": {
        "parent_id": dev["id"], "parent_timestamp": stamp(then - 60)}}), 400, "outside of the history"))
    call("PATCH", project, {"project": {"history_retention_seconds": 0}})
    check("neon: no history is kept", refused(call("POST", f"{project}/branches", {"branch": {
        "parent_timestamp": stamp(then - 1)}}), 400, "outside of the history"))
    call("PATCH", project, {"project": {"history_retention_seconds": 86400}})
    kept = create(name="kept", parent_id=dev["id"])
    check("neon: two of one name", refused(call("PATCH", f"{project}/branches/{dev['id']}", {"branch": {"name": "kept"}}), 409, 'branch_name:"kept"'))
    check("neon: children", refused(call("DELETE", f"{project}/branches/{dev['id']}"), 422, kept["id"]))
    path = f"{project}/branches/{dev['id']}/restore"
    c.control("POST", "config", {"speed": 1e-6})
    check("neon: restored", call("POST", path, {"source_branch_id": main, "preserve_under_name": "old"})[0] == 200)
    check("neon: resetting", call("GET", f"{project}/branches/{dev['id']}")[1]["branch"]["current_state"] == "resetting")
    c.control("POST", "config", {"speed": 20})
    quiet()
    lines = {one["name"]: [name for name, _ in one["line"]] for one in c.control("GET", "neon")[0]["branches"]}
    old = next(one["id"] for one in c.control("GET", "neon")[0]["branches"] if one["name"] == "old")
    check("neon: whose data", lines["dev"] == [main] and lines["old"] == [main] and lines["kept"] == [main, old], lines)
    c.control("POST", "config", {"neon_branches_limit": 5})
    check("neon: full", call("POST", f"{project}/branches")[1]["code"] == "BRANCHES_LIMIT_EXCEEDED")
    check("neon: full for a restore that keeps", call("POST", path, {"source_branch_id": main, "preserve_under_name": "x"})[0] == 422)
    c.control("POST", "config", {"neon_branches_limit": 500})


def faults(c, check, call, quiet, project):
    c.control("POST", "faults", {"operation": "neon.branch-create", "status": 429, "retry_after": 2})
    status, answer = call("POST", f"{project}/branches")
    check("neon: 429", status == 429 and c.headers["retry-after"] == "2" and set(answer) == {"request_id", "code", "message"}, answer)
    c.control("POST", "faults", {"operation": "neon.branch-create", "fault": "reset_after", "project_id": project.split("/")[-1]})
    check("neon: a lost answer", lost(lambda: call("POST", f"{project}/branches", {"branch": {"name": "lost"}})))
    quiet()
    found = c.control("GET", "ledger?operation=neon.branch-create&started=true")[-1]
    check("neon: what began", found["fault"] == "reset_after" and not found["answered"]
          and call("GET", f"{project}/branches/{found['branch_id']}")[1]["branch"]["name"] == "lost", found)
    c.control("POST", "faults", {"fault": "never_ends", "action": "delete_timeline"})
    status, answer = call("DELETE", f"{project}/branches/{found['branch_id']}")
    check("neon: never ends", status == 200 and call("DELETE", f"{project}/branches/{found['branch_id']}")[0] == 423
          and c.control("GET", "faults")["faults"][-1]["struck"] == 1, answer)
