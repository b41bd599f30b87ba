"""What can be turned while the cloud runs, and the one clock its latencies use."""

import asyncio
import pathlib

DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"
ARM_SCOPE = "https://management.azure.com/.default"


class Settings:
    def __init__(self, directory, speed=1.0, database=None, psql="psql"):
        self.lake = pathlib.Path(directory).resolve() / "lake"
        self.speed = speed
        self.database = database
        self.psql = psql
        self.token_lifetime = 3600          # seconds, not scaled: expires_in promises them
        self.consistency_delay_ms = 100     # scaled; how long createRun stays invisible
        self.page_size = 100                # queryPipelineRuns, queryActivityruns
        self.clients = {"weir-client": "weir-secret"}
        self.pats = {"dapi-local"}
        self.storage = None                 # address of a real storage server, see forward.py

    def scaled(self, seconds):
        return seconds / self.speed

    async def pause(self, seconds):
        """A simulated latency: `seconds` at speed 1."""
        await asyncio.sleep(seconds / self.speed)

    def change(self, wanted):
        """Apply a configuration object; ValueError (and no change) when it is wrong."""
        unknown = set(wanted) - {"speed", "database", "token_lifetime", "consistency_delay_ms",
                                 "page_size", "clients", "pats", "revoke_tokens", "storage"}
        if unknown:
            raise ValueError(f"unknown setting {sorted(unknown)[0]!r}")
        for name, least in (("speed", 1e-6), ("token_lifetime", 0),
                            ("consistency_delay_ms", 0), ("page_size", 1)):
            value = wanted.get(name, least)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise ValueError(f"{name} must be a number, at least {least}")
        if not isinstance(wanted.get("clients", {}), dict) or not isinstance(wanted.get("pats", []), list):
            raise ValueError("clients is an object of id and secret, pats a list")
        for name in ("speed", "database", "token_lifetime", "consistency_delay_ms"):
            if name in wanted:
                setattr(self, name, wanted[name])
        if "page_size" in wanted:
            self.page_size = int(wanted["page_size"])
        if "storage" in wanted:
            self.storage = wanted["storage"]
        if "clients" in wanted:
            self.clients.update(wanted["clients"])
        if "pats" in wanted:
            self.pats = set(wanted["pats"])

    def describe(self):
        return {"speed": self.speed, "token_lifetime": self.token_lifetime,
                "consistency_delay_ms": self.consistency_delay_ms, "page_size": self.page_size,
                "clients": sorted(self.clients), "pats": len(self.pats),
                "database": self.database is not None, "lake": str(self.lake)}
