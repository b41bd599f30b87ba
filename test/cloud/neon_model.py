"""What Neon's API is about: projects with branches, computes and the operations that change them.  No HTTP here.

A branch is a timeline.  Its log sequence number grows evenly with the time, from where and when it left its parent, so that every
moment of its history has an LSN and every LSN a moment.  `line` says whose data it shows and up to where, oldest first.

An answer of the API comes at once and what it promises is done by a chain of operations, one after the other:

    scheduling -> running -> finished           a fault "task_fails": running -> failed -> running, until it no longer strikes

As long as a chain of a project is not at its end, no other begins there: busy().
"""

import asyncio
import datetime
import itertools
import random
import secrets
import time
import uuid

LSN_START = 0x14EE160
LSN_RATE = 65536                # bytes of log a second
# seconds at speed 1
DURATIONS = {"create_branch": 0.3, "create_timeline": 0.5, "apply_schema_from_branch": 0.5, "start_compute": 0.4, "suspend_compute": 0.2,
             "apply_config": 0.3, "delete_timeline": 0.2}
RETRY_AFTER = 1.0
PENDING = {"scheduling", "running", "failed", "cancelling"}
REGIONS = {f"{cloud}-{place}": f"{place}.{cloud}.neon.tech" for cloud, places in (
    ("aws", ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-2", "ap-southeast-1", "ap-southeast-2", "sa-east-1")),
    ("azure", ("eastus2", "westus3", "gwc"))) for place in places}
ADJECTIVES = "aged autumn bitter bold cool damp divine falling flat floral holy lively misty nameless proud quiet raspy rough shiny still".split()
NOUNS = "base bird bush cell cloud credit darkness field fire flower hall heart king lab leaf meadow mode moon pond river".split()
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(prefix=""):
    words = f"{random.choice(ADJECTIVES)}-{random.choice(NOUNS)}-"
    return prefix + words + ("a" + "".join(random.choices(LETTERS, k=7)) if prefix else f"{random.randrange(10 ** 8):08d}")


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def present(**values):
    """An object without the fields that have no value: the API leaves those out."""
    return {name: value for name, value in values.items() if value is not None}


class Stated:
    """Something with current_state and pending_state."""

    def set_state(self, state, pending=None):
        if state != self.state:
            self.changed = time.time()
        self.state, self.pending, self.updated = state, pending, time.time()

    def settle(self):
        self.set_state(self.pending or self.state)


class Operation:
    numbers = itertools.count(1)

    def __init__(self, project, action, branch=None, endpoint=None):
        self.id = str(uuid.uuid4())
        self.number = next(self.numbers)
        self.project_id = project.id
        self.branch_id = branch.id if branch else endpoint.branch_id if endpoint else None
        self.endpoint_id = endpoint.id if endpoint else None
        self.action = action
        self.status = "scheduling"
        self.error = self.retry_at = self.started = None
        self.failures = 0
        self.created = self.updated = time.time()

    def set_status(self, status):
        self.status, self.updated = status, time.time()
        if status == "running":
            self.retry_at = None
            self.started = self.started or self.updated

    def facts(self):
        return {"project_id": self.project_id, "branch_id": self.branch_id, "endpoint_id": self.endpoint_id, "action": self.action}

    def describe(self):
        return present(id=self.id, project_id=self.project_id, branch_id=self.branch_id, endpoint_id=self.endpoint_id, action=self.action,
                       status=self.status, error=self.error, failures_count=self.failures, retry_at=self.retry_at and stamp(self.retry_at),
                       created_at=stamp(self.created), updated_at=stamp(self.updated),
                       total_duration_ms=int((self.updated - self.started) * 1000) if self.started else 0)


class Endpoint(Stated):
    def __init__(self, project, branch, kind, wanted):
        self.id = new_id("ep-")
        self.project = project
        self.branch_id = branch.id
        self.kind = kind
        self.state, self.pending = "init", None
        self.created = self.updated = self.changed = time.time()
        self.started = self.suspended = None
        defaults = project.endpoint_settings
        self.wanted = {"autoscaling_limit_min_cu": defaults.get("autoscaling_limit_min_cu", 0.25),
                       "autoscaling_limit_max_cu": defaults.get("autoscaling_limit_max_cu", 0.25),
                       "suspend_timeout_seconds": defaults.get("suspend_timeout_seconds", 0), "provisioner": "k8s-neonvm",
                       "disabled": False, "passwordless_access": True, "pooler_enabled": False, "settings": {"pg_settings": {}}, **wanted}

    def settle(self):
        if self.pending == "active" and self.state != "active":
            self.started = time.time()
        elif self.pending == "idle" and self.state == "active":
            self.suspended = time.time()
        super().settle()

    def host(self, pooled=False):
        return f"{self.id}{'-pooler' if pooled else ''}.{self.project.proxy_host}"

    def describe(self):
        wanted = {**self.wanted, "settings": {"pg_settings": {}, **self.wanted["settings"]}}
        return present(host=self.host(), id=self.id, project_id=self.project.id, branch_id=self.branch_id, region_id=self.project.region,
                       type=self.kind, current_state=self.state, pending_state=self.pending, pooler_mode="transaction",
                       last_active=self.started and stamp(self.started), creation_source="console",
                       created_at=stamp(self.created), updated_at=stamp(self.updated), started_at=self.started and stamp(self.started),
                       suspended_at=self.suspended and stamp(self.suspended), proxy_host=self.project.proxy_host, **wanted)


class Part:
    """A database or a role of a branch; it remains known after it was dropped, for who asks for an earlier time."""

    numbers = itertools.count(1_000_001)

    def __init__(self, branch, name, **more):
        self.branch_id = branch.id
        self.number = next(self.numbers)
        self.name = name
        self.more = more
        self.created = self.updated = time.time()
        self.dropped = None

    def copy(self, branch):
        found = type(self)(branch, self.name, **self.more)
        found.created, found.updated = self.created, self.updated
        return found

    def describe(self):
        return {"branch_id": self.branch_id, "name": self.name, "created_at": stamp(self.created), "updated_at": stamp(self.updated)}


class Database(Part):
    def describe(self):
        return {"id": self.number, **super().describe(), "owner_name": self.more["owner_name"]}


class Role(Part):
    def describe(self, with_password=False):
        return {**super().describe(), **({"password": self.password} if with_password else {}), "protected": False,
                "authentication_method": "password"}

    @property
    def password(self):
        return self.more["password"]


def new_password():
    return "npg_" + secrets.token_urlsafe(9).replace("-", "x").replace("_", "y")


class Branch(Stated):
    def __init__(self, project, name, parent=None, moment=None, **wanted):
        """parent: whose data it begins with, as of `moment`."""
        now = time.time()
        self.id = new_id("br-")
        self.project = project
        self.name = name or self.id
        self.is_root = False                # the one a project begins with
        self.protected = wanted.get("protected", False)
        self.init_source = wanted.get("init_source", "parent-data")
        self.expires = self.ttl = self.last_reset = None
        self.annotation = wanted.get("annotation", {})
        self.created = self.updated = self.changed = now
        self.state, self.pending = "init", "archived" if wanted.get("archived") else "ready"
        self.databases, self.roles = [], []
        self.parent_id = self.parent_lsn = self.parent_time = None
        self.line = []
        self.begin(LSN_START, now)
        if parent:
            self.take(parent, moment)
            if self.init_source == "schema-only":
                self.parent_id = self.parent_lsn = self.parent_time = None

    # -- history -----------------------------------------------------------------

    def begin(self, lsn, now):
        self.base_lsn, self.base_time = lsn, now

    def lsn_at(self, moment):
        return self.base_lsn + int((moment - self.base_time) * LSN_RATE)

    def moment_of(self, lsn):
        return self.base_time + (lsn - self.base_lsn) / LSN_RATE

    def reaches(self, moment):
        """Whether that moment is in this branch's history; what it says of times has no fractions of a second."""
        now = time.time()
        return int(max(self.base_time, now - self.project.history_retention)) <= moment <= now

    def take(self, source, moment, parent_id=None):
        """Show the data of `source` as of `moment` from now on."""
        moment = max(moment, source.base_time)
        lsn = source.lsn_at(moment)
        self.parent_id, self.parent_lsn, self.parent_time = parent_id or source.id, lsn, moment
        self.line = [*source.line, (source.id, lsn_text(lsn))]
        self.databases = [one.copy(self) for one in source.existing(source.databases, moment)]
        self.roles = [one.copy(self) for one in source.existing(source.roles, moment)]
        if source.protected:
            for role in self.roles:
                role.more = {**role.more, "password": new_password()}
        self.begin(lsn, time.time())

    def existing(self, parts, moment=None):
        return [one for one in parts if (one.dropped is None if moment is None else
                                         one.created <= moment and (one.dropped is None or one.dropped > moment))]

    def find(self, parts, name):
        return next((one for one in self.existing(parts) if one.name == name), None)

    def children(self):
        return [one for one in self.project.branches.values() if one.parent_id == self.id]

    def endpoints(self):
        return [one for one in self.project.endpoints.values() if one.branch_id == self.id]

    def read_write(self):
        return next((one for one in self.endpoints() if one.kind == "read_write"), None)

    def expire_at(self, moment):
        self.expires = moment
        self.ttl = None if moment is None else int(moment - time.time())

    def describe(self):
        is_default = self.project.default_id == self.id
        return present(id=self.id, project_id=self.project.id, parent_id=self.parent_id,
                       parent_lsn=self.parent_lsn and lsn_text(self.parent_lsn),
                       parent_timestamp=self.parent_time and stamp(self.parent_time), name=self.name, current_state=self.state,
                       pending_state=self.pending, state_changed_at=stamp(self.changed),
                       logical_size=None if self.state == "init" else 30_785_536, creation_source="console", primary=is_default,
                       default=is_default, protected=self.protected, cpu_used_sec=0, compute_time_seconds=0, active_time_seconds=0,
                       written_data_bytes=0, data_transfer_bytes=0, created_at=stamp(self.created), updated_at=stamp(self.updated),
                       expires_at=self.expires and stamp(self.expires), ttl_interval_seconds=self.ttl,
                       last_reset_at=self.last_reset and stamp(self.last_reset), created_by={"name": "Local Cloud", "image": ""},
                       init_source=self.init_source)


class Project:
    numbers = itertools.count(1)

    def __init__(self, settings, faults, org_id, wanted):
        self.settings = settings
        self.faults = faults
        self.id = new_id()
        self.number = next(self.numbers)
        self.org_id = org_id
        self.name = wanted.get("name") or self.id
        self.region = wanted.get("region_id", "aws-us-east-2")
        self.proxy_host = REGIONS[self.region]
        self.pg_version = wanted.get("pg_version", 17)
        self.store_passwords = wanted.get("store_passwords", True)
        self.created = self.updated = time.time()
        self.endpoint_settings, self.more = {}, {}
        self.history_retention = 86400
        self.change(wanted)
        self.branches, self.endpoints, self.operations = {}, {}, []
        self.default_id = None
        self.task = None

    def change(self, wanted):
        self.name = wanted.get("name") or self.name
        self.history_retention = wanted.get("history_retention_seconds", self.history_retention)
        limits = {name: wanted[name] for name in ("autoscaling_limit_min_cu", "autoscaling_limit_max_cu") if name in wanted}
        self.endpoint_settings = {**self.endpoint_settings, **limits, **wanted.get("default_endpoint_settings", {})}
        self.more = {**self.more, **wanted.get("settings", {})}
        self.updated = time.time()

    # -- operations --------------------------------------------------------------

    def busy(self):
        return any(one.status in PENDING for one in self.operations)

    def schedule(self, steps):
        """Operations for (action, branch, endpoint, what it does at its end), carried out one after the other from now on."""
        chain = [(Operation(self, action, branch, endpoint), effect) for action, branch, endpoint, effect in steps]
        self.operations += [operation for operation, _ in chain]
        if chain:
            chain[0][0].set_status("running")
            self.task = asyncio.create_task(self._carry_out(chain))
        return [operation for operation, _ in chain]

    async def _last(self, seconds):
        """That long at speed 1; unlike other latencies it heeds a change of the speed at once, so that a test can make it stand still."""
        while seconds > 0:
            await asyncio.sleep(0.005)
            seconds -= 0.005 * self.settings.speed

    async def _carry_out(self, chain):
        for operation, effect in chain:
            operation.set_status("running")
            while True:
                fault = self.faults.for_work({"task_fails", "never_ends"}, operation.facts())
                if fault and fault.kind == "never_ends":
                    await asyncio.Event().wait()
                await self._last(DURATIONS[operation.action])
                if not fault:
                    break
                operation.error = str(fault.spec.get("message", "internal error"))
                operation.failures += 1
                operation.set_status("failed")
                operation.retry_at = time.time() + self.settings.scaled(RETRY_AFTER)
                await self._last(RETRY_AFTER)
                operation.set_status("running")
            operation.error = None
            effect()
            operation.set_status("finished")

    def start(self, endpoint):
        """Steps."""
        endpoint.set_state(endpoint.state, "active")
        return [("start_compute", None, endpoint, endpoint.settle)]

    def suspend(self, endpoint):
        if endpoint.state != "active":
            return []
        endpoint.set_state("active", "idle")
        return [("suspend_compute", None, endpoint, endpoint.settle)]

    def apply(self, endpoint):
        """A compute takes over a change; one that was idle is woken for that and goes back to sleep."""
        if endpoint is None:
            return []
        if endpoint.state == "active":
            return [("apply_config", None, endpoint, lambda: None)]
        endpoint.set_state(endpoint.state, "active")

        def awake():
            endpoint.settle()
            endpoint.set_state("active", "idle")
        return [("apply_config", None, endpoint, awake), ("suspend_compute", None, endpoint, endpoint.settle)]

    # -- branches and computes ---------------------------------------------------

    def add_branch(self, branch):
        self.branches[branch.id] = branch
        return branch

    def add_endpoint(self, branch, kind, wanted):
        endpoint = Endpoint(self, branch, kind, wanted)
        self.endpoints[endpoint.id] = endpoint
        return endpoint

    def remove_branch(self, branch):
        """Steps: its computes are stopped, then its timeline goes."""
        def gone():
            for endpoint in branch.endpoints():
                del self.endpoints[endpoint.id]
            del self.branches[branch.id]
        return [step for one in branch.endpoints() for step in self.suspend(one)] + [("delete_timeline", branch, None, gone)]

    def restore(self, branch, source, moment, name):
        """Steps that make `branch` show what `source` showed; under `name` goes what it was before, with its children."""
        now = time.time()
        if name:
            backup = self.add_branch(Branch(self, name))
            backup.state, backup.pending = "ready", None
            for field in ("parent_id", "parent_lsn", "parent_time", "base_lsn", "base_time", "line"):
                setattr(backup, field, getattr(branch, field))
            backup.databases = [one.copy(backup) for one in branch.existing(branch.databases)]
            backup.roles = [one.copy(backup) for one in branch.existing(branch.roles)]
            for other in self.branches.values():
                if other.parent_id == branch.id:
                    other.parent_id = backup.id
                other.line = [(backup.id if one == branch.id else one, lsn) for one, lsn in other.line]
        computes = [one for one in branch.endpoints() if one.state == "active"]
        stop = [step for one in computes for step in self.suspend(one)]
        was_root = branch.parent_id is None
        branch.set_state("resetting", "ready")
        branch.parent_id, branch.parent_lsn, branch.parent_time = None, None, None
        if source is not branch or not was_root:
            branch.parent_id = backup.id if source is branch else source.id

        def reset():
            parent_id = branch.parent_id
            branch.take(source, moment)
            if source is branch:
                branch.line[-1] = (backup.id, branch.line[-1][1])
            branch.parent_id = parent_id
            if parent_id is None:
                branch.parent_lsn = branch.parent_time = None
            branch.last_reset = now
            branch.settle()
        steps = [*stop, ("create_branch", branch, None, reset)]
        for one in computes:
            def wake(one=one):
                one.set_state("idle", "active")
                one.settle()
            steps.append(("start_compute", None, one, wake))
        return steps

    def expire(self):
        """Branches whose time has come are deleted, when nothing else is going on."""
        due = [one for one in self.branches.values() if one.expires and one.expires <= time.time() and not one.children()]
        if due and not self.busy():
            self.schedule([step for one in due for step in self.remove_branch(one)])

    async def stop(self):
        if self.task:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    # -- what the API says -------------------------------------------------------

    def list_item(self):
        return present(id=self.id, platform_id=self.region.partition("-")[0], region_id=self.region, name=self.name, provisioner="k8s-neonvm",
                       default_endpoint_settings={"autoscaling_limit_min_cu": 0.25, "autoscaling_limit_max_cu": 0.25,
                                                  "suspend_timeout_seconds": 0, **self.endpoint_settings},
                       settings={"allowed_ips": {"ips": [], "protected_branches_only": False}, "enable_logical_replication": False, **self.more},
                       pg_version=self.pg_version, proxy_host=self.proxy_host, branch_logical_size_limit=0,
                       branch_logical_size_limit_bytes=0, store_passwords=self.store_passwords, active_time=0, cpu_used_sec=0,
                       creation_source="console", created_at=stamp(self.created), updated_at=stamp(self.updated),
                       synthetic_storage_size=0, owner_id=self.org_id, org_id=self.org_id, history_retention_seconds=self.history_retention)

    def describe(self):
        found = self.list_item()
        del found["active_time"]
        month = datetime.datetime.fromtimestamp(self.created, datetime.timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = (month + datetime.timedelta(days=32)).replace(day=1)
        return {**found, "data_storage_bytes_hour": 0, "data_transfer_bytes": 0, "written_data_bytes": 0, "compute_time_seconds": 0,
                "active_time_seconds": 0, "consumption_period_start": stamp(month.timestamp()),
                "consumption_period_end": stamp(following.timestamp()),
                "owner": {"email": "local@example.com", "name": "Local Cloud", "branches_limit": self.settings.neon_branches_limit,
                          "subscription_type": "launch"}}

    def uri(self, endpoint, role, database, pooled=False):
        return f"postgresql://{role.name}:{role.password}@{endpoint.host(pooled)}/{database.name}?sslmode=require&channel_binding=require"

    def connections(self, branch):
        """Of every database, as its owner, through the branch's own compute."""
        endpoint = branch.read_write()
        found = []
        for database in branch.existing(branch.databases) if endpoint else []:
            role = branch.find(branch.roles, database.more["owner_name"])
            if role:
                found.append({"connection_uri": self.uri(endpoint, role, database),
                              "connection_parameters": {"database": database.name, "password": role.password, "role": role.name,
                                                        "host": endpoint.host(), "pooler_host": endpoint.host(pooled=True)}})
        return found
