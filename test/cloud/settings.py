"""What can be turned while the cloud runs, and the one clock its latencies use."""

import asyncio
import base64
import pathlib

DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"
ARM_SCOPE = "https://management.azure.com/.default"
# settings that are taken as they come, and lists that become sets
PLAIN = ("certificates", "federated", "clock_offset", "identity_header", "arc_directory", "arc_realm",
         "policies", "workspace_resource_id", "neon_keys", "storage_account", "storage_key")
SETS = ("pats", "tenants", "expired_clients", "talkative", "identities", "outsiders")


class Settings:
    def __init__(self, directory, speed=1.0, database=None, psql="psql"):
        self.lake = pathlib.Path(directory).resolve() / "lake"
        self.speed = speed
        self.database = database
        self.psql = psql
        self.token_lifetime = 3600          # seconds, not scaled: expires_in promises them
        self.consistency_delay_ms = 100     # scaled; how long createRun stays invisible
        self.page_size = 100                # queryPipelineRuns, queryActivityruns, query history, events
        self.chunk_rows = 100               # of the result of a SQL statement
        self.history_delay_ms = 300         # scaled; how late the query history shows a statement
        self.fabric_retry_after = 1         # seconds, not scaled
        self.fabric_location = "id"         # id, none or header: how a start names its instance
        self.fabric_listed = True           # False: what begins meanwhile is in no list until this is True again
        self.queue_auth = "none"            # or bearer
        self.job_retry_after = 0            # seconds, not scaled; 0: none is said
        self.clients = {"weir-client": "weir-secret"}
        self.pats = {"dapi-local"}
        # Entra ID
        self.tenants = None                 # None: any
        self.expired_clients = set()        # their secret is right but has expired
        self.talkative = set()              # clients that are refused with all that they sent
        self.certificates = {}              # client -> [{"x5t#S256", "n", "e"}]
        self.federated = {}                 # client -> {"issuer", "subject", "audience", "n", "e"}
        self.clock_offset = 0               # seconds that Entra's clock is ahead
        # Databricks
        self.outsiders = set()              # clients of Entra ID that are not in the workspace
        self.workspace_resource_id = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Databricks/workspaces/w1"
        self.policies = []                  # of federation: {"issuer", "audience", "subject", "n", "e", "client": of a service principal or None}
        # Neon
        self.neon_keys = {"napi_local": "org-local-lake-00000001", "napi_personal": None}       # None: of nobody's organization
        self.neon_branches_limit = 500
        # managed identity
        self.identities = set()             # ids of user-assigned ones
        self.identity_header = "local-identity-header"
        self.identity_expires = "both"      # or on: App Service says when a token expires, and not in how many seconds
        self.arc_directory = str(self.lake.parent / "arc")
        self.arc_realm = None               # a path to name instead of a real key file
        self.copy_seconds = 0               # scaled; how long Copy Blob is pending, 0: never
        self.storage_account = "weirlake"   # of hns.py, and its key
        self.storage_key = base64.b64encode(bytes(range(64))).decode()
        self.storage = None                 # address of a real storage server, see forward.py

    def scaled(self, seconds):
        return seconds / self.speed

    async def pause(self, seconds):
        """A simulated latency: `seconds` at speed 1."""
        await asyncio.sleep(seconds / self.speed)

    def change(self, wanted):
        """Apply a configuration object; ValueError (and no change) when it is wrong."""
        unknown = set(wanted) - {"speed", "database", "token_lifetime", "consistency_delay_ms",
                                 "page_size", "chunk_rows", "history_delay_ms", "clients", "revoke_tokens", "first_run_id", "fabric_retry_after",
                                 "copy_seconds", "fabric_location", "fabric_listed", "queue_auth", "job_retry_after", "storage",
                                 "identity_expires",
                                 "neon_branches_limit", *PLAIN, *SETS}
        if unknown:
            raise ValueError(f"unknown setting {sorted(unknown)[0]!r}")
        for name, least in (("speed", 1e-6), ("token_lifetime", 0),
                            ("consistency_delay_ms", 0), ("page_size", 1), ("chunk_rows", 1),
                            ("history_delay_ms", 0), ("copy_seconds", 0), ("fabric_retry_after", 0), ("job_retry_after", 0), ("first_run_id", 1),
                            ("neon_branches_limit", 1)):
            value = wanted.get(name, least)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise ValueError(f"{name} must be a number, at least {least}")
        if not isinstance(wanted.get("clients", {}), dict) or not isinstance(wanted.get("pats", []), list):
            raise ValueError("clients is an object of id and secret, pats a list")
        for name, words in (("fabric_location", ("id", "none", "header")), ("fabric_listed", (True, False)),
                            ("queue_auth", ("none", "bearer")), ("identity_expires", ("both", "on"))):
            if wanted.get(name, words[0]) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}")
        for name in ("speed", "database", "token_lifetime", "consistency_delay_ms", "history_delay_ms", "copy_seconds",
                     "fabric_retry_after", "fabric_location", "fabric_listed", "queue_auth", "job_retry_after", "neon_branches_limit", "identity_expires"):
            if name in wanted:
                setattr(self, name, wanted[name])
        for name in ("page_size", "chunk_rows"):
            if name in wanted:
                setattr(self, name, int(wanted[name]))
        if "storage" in wanted:
            self.storage = wanted["storage"]
        if "clients" in wanted:
            self.clients.update(wanted["clients"])
        for name in SETS:
            if name in wanted:
                setattr(self, name, wanted[name] if wanted[name] is None else set(wanted[name]))
        for name in PLAIN:
            if name in wanted:
                setattr(self, name, wanted[name])

    def describe(self):
        return {"speed": self.speed, "token_lifetime": self.token_lifetime,
                "consistency_delay_ms": self.consistency_delay_ms, "page_size": self.page_size,
                "chunk_rows": self.chunk_rows, "history_delay_ms": self.history_delay_ms,
                "clients": sorted(self.clients), "pats": len(self.pats),
                "database": self.database is not None, "lake": str(self.lake)}
