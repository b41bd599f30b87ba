#!/usr/bin/env python3
"""The local cloud: Data Factory, Databricks Jobs and Entra ID as far as weir calls them, and a part of Neon.

    python3 test/cloud/cloud.py --dir DIR [--port 0] [--address-file FILE] [--speed X]
                                [--database CONNINFO] [--psql PATH] [--record FILE]
                                [--certificate FILE --key FILE --tls-address-file FILE]

One process, one event loop, 127.0.0.1 only, nothing but the standard library.  See README.md.
This file reads the arguments, puts the services together and routes each request:

    request -> service and operation -> ledger -> fault -> the work -> damaged answer, if so scripted
"""

import argparse
import asyncio
import os
import pathlib
import re
import resource
import signal
import ssl
import sys
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from adf import DataFactory
from adf_runs import PipelineRuns
from control import Control
from databricks import Databricks
from entra import Entra
from fabric import Fabric
from faults import Faults
from forward import PREFIX, Forward
from generic import Generic
from identity import Identity
from hns import Hierarchical
from job_runs import JobRuns
from lake import Lake
from ledger import Ledger
from neon import Neon
from parent import end_with_parent
from queues import Queues
from recorder import Recorder
from server import Refusal, Server, json_response
from services import Services
from settings import Settings
from vault import Vault


CALLER = re.compile(r"/as-([0-9A-Za-z_.-]+)(?=/)")


class Cloud:
    def __init__(self, settings, record=None):
        self.recorder = Recorder(record)
        self.settings = settings
        self.ledger = Ledger()
        self.faults = Faults()
        self.lake = Lake(settings)
        self.entra = Entra(settings, self.ledger)
        self.identity = Identity(settings, self.entra)
        self.pipeline_runs = PipelineRuns(settings, self.lake, self.faults)
        self.job_runs = JobRuns(settings, self.lake, self.faults)
        self.adf = DataFactory(settings, self.ledger, self.entra, self.pipeline_runs)
        self.databricks = Databricks(settings, self.ledger, self.entra, self.job_runs)
        self.generic = Generic(self.ledger)
        self.fabric = Fabric(settings, self.ledger, self.entra, self.faults)
        self.queues = Queues(settings, self.ledger, self.entra)
        self.services = Services(settings, self.ledger, self.queues, self.faults)
        self.forward = Forward(settings, self.ledger)
        self.hns = Hierarchical(settings, self.ledger, self.entra)
        self.vault = Vault(settings, self.ledger, self.entra)
        self.neon = Neon(settings, self.ledger, self.faults)
        self.control = Control(self)
        # prefix -> service; those without a prefix are found by the shape of their path
        self.prefixes = {"/dbx": self.databricks, "/adf": self.adf, "/entra": self.entra,
                         "/identity": self.identity, "/fabric": self.fabric, "/vault": self.vault,
                         "/neon": self.neon}

    def find(self, request):
        """(service name, operation, facts, handler)"""
        path = request.path
        if path.startswith("/http/"):
            return ("http", *(self.services.route(request, path) or self.generic.route(request, path)))
        if path.startswith(PREFIX):
            return ("storage", *self.forward.route(request, path))
        if path == "/queue" or path.startswith("/queue/"):
            return ("queue", *self.queues.route(request, path.removeprefix("/queue")))
        found = self.hns.route(request, path[len("/hns"):]) if path.startswith(("/hns/", "/hns-")) else None
        if found:
            return ("hns", *found)
        for prefix, service in self.prefixes.items():
            if path.startswith(prefix + "/"):
                path, services = path[len(prefix):], (service,)
                break
        else:
            services = self.prefixes.values()
        for service in services:
            found = service.route(request, path)
            if found:
                return (found[0].split(".")[0], *found)
        return "unknown", "unknown", {}, self.unknown

    async def unknown(self, request, entry):
        return json_response(404, {"error": "the local cloud has nothing at this path"})

    async def __call__(self, request):
        if request.path.startswith("/_cloud/"):
            return await self.control.handle(request, urllib.parse.unquote(request.path))
        caller = CALLER.match(request.path)
        if caller:
            request.path = request.path[caller.end():]
            request.target = request.target[caller.end():]
        service, operation, facts, handler = self.find(request)
        if caller:
            facts = {**facts, "caller": caller[1]}
        response = None
        try:
            response, is_true = await self._answer(service, operation, facts, handler, request)
        finally:
            self.recorder.write(operation, request, response if response and is_true else None)
        return response

    async def _answer(self, service, operation, facts, handler, request):
        """The response, and whether it is what the service itself says."""
        entry = self.ledger.open(service, operation, request, facts)
        fault = self.faults.for_request(operation, {**facts, "method": request.method, "path": request.path})
        if fault is None:
            response = await self._work(handler, request, entry)
            entry["status"], entry["answered"] = response.status, True
            return response, True
        entry["fault"] = fault.kind
        await fault.before()
        response = await self._work(handler, request, entry) if fault.carries_out else None
        response = fault.damage(response, operation)
        entry["status"] = response.status or None
        await asyncio.sleep(fault.spec.get("delay_ms", 0) / 1000)
        entry["answered"] = response.effect is None or response.effect["kind"] not in ("reset", "half")
        return response, False

    async def _work(self, handler, request, entry):
        try:
            return await handler(request, entry)
        except Refusal as refusal:
            return refusal.response

    async def close(self):
        await self.pipeline_runs.stop()
        await self.databricks.stop()
        await self.fabric.stop()
        await self.services.stop()
        await self.neon.stop()


def tell(file, address):
    """Write the address by rename: whoever finds the file finds all of it."""
    if file:
        temporary = f"{file}.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as stream:
            stream.write(address)
        os.replace(temporary, file)


async def run(arguments):
    settings = Settings(arguments.dir, arguments.speed, arguments.database, arguments.psql)
    settings.lake.mkdir(parents=True, exist_ok=True)
    cloud = Cloud(settings, arguments.record)
    server = Server(cloud)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if arguments.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.certificate, arguments.key)
        tell(arguments.tls_address_file, f"https://127.0.0.1:{await server.start('127.0.0.1', 0, tls)}")
    address = f"http://127.0.0.1:{await server.start('127.0.0.1', arguments.port)}"
    tell(arguments.address_file, address)
    print(f"the local cloud listens on {address}", flush=True)
    await stopped.wait()
    await server.stop()
    await cloud.close()


def main():
    parser = argparse.ArgumentParser(description="The local cloud: stand-ins for ADF, Databricks and Entra ID.")
    parser.add_argument("--dir", required=True, help="directory for the lake")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--address-file", help="where to write http://127.0.0.1:PORT once it is ready")
    parser.add_argument("--speed", type=float, default=1.0, help="10 makes simulated latencies ten times shorter")
    parser.add_argument("--database", help="libpq connection string of the database job 101 loads")
    parser.add_argument("--psql", default="psql", help="the psql program")
    parser.add_argument("--record", help="file to write every request to, one JSON object a line")
    parser.add_argument("--certificate", help="file with a certificate: listen over TLS as well, on another port")
    parser.add_argument("--key", help="file with its key")
    parser.add_argument("--tls-address-file", help="where to write https://127.0.0.1:PORT")
    parser.add_argument("--end-with-parent", action="store_true", help="end when standard input does")
    arguments = parser.parse_args()
    if arguments.end_with_parent:
        end_with_parent()
    if arguments.speed <= 0:
        parser.error("--speed must be positive")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
