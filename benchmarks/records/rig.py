"""Stock Envoy and Envoy with the module, running concurrently with one worker each; only the one under load uses CPU.

There is nothing behind them: bodies come from a direct response, and end in Envoy's buffer filter. So the contenders
differ in the transport socket alone, and it is as large a part of the whole as it can be.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records.loads import DOWN, MEGABYTE, SMALL, UP, Load, Report, parse
from deploy.load.usage import Usage, usage
from deploy.node import daemon, envoy
from deploy.node.certificates import Authority
from deploy.node.envoy import Config, Envoy
from deploy.node.processes import NodeError, Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings

STOCK, MODULE = "stock", "module"
LISTENER = "https"
SLICE_LIMIT_S = 60


@dataclass(frozen=True)
class Slice:
    """One load on one contender, once."""

    report: Report
    usage: Usage
    client_cpu_s: float


class Rig:
    """Starts everything at construction; `processes` ends it. `others`: further builds of the module, by name."""

    def __init__(self, processes: Processes, folder: Path, others: Mapping[str, Path] | None = None) -> None:
        program = shutil.which("h2load")
        if program is None:
            raise NodeError("h2load is not installed: apt-get install nghttp2-client   (or: make setup)")
        self._h2load = program
        self._processes = processes
        self._body = folder / "body"
        self._body.write_bytes(bytes(MEGABYTE))
        leaf = Authority(folder / "ca").issue("records", "p256", folder / "keys")
        keys = daemon.start(processes, "daemon", [leaf], folder / "run")
        tls = TlsSettings(identities=(leaf.name,), daemon_socket=keys.socket, alpn=("h2", "http/1.1"))
        self.contenders: dict[str, Envoy] = {
            STOCK: self._start(STOCK, {"transport_socket": envoy.stock_tls(leaf), "filters": [_manager()]}),
            MODULE: self._start(MODULE, render.filter_chain(tls, [_manager()])),
        }
        for name, library in (others or {}).items():
            self.contenders[name] = self._start(name, render.filter_chain(tls, [_manager()], library=library))

    def _start(self, name: str, chain: Config) -> Envoy:
        listener = render.listener(LISTENER, 0, [chain], host="127.0.0.1")
        config = render.bootstrap([listener], admin_port=0)
        return envoy.start(self._processes, name, config, module=name == MODULE)

    def run(self, name: str, load: Load) -> Slice:
        """Runs one slice. NodeError if requests failed or a part ended: such figures would be meaningless."""
        contender = self.contenders[name]
        line = [self._h2load, *load.arguments(contender.address(LISTENER), self._body)]
        before, client = usage(contender.pid), _children_cpu_s()
        done = subprocess.run(line, capture_output=True, text=True, timeout=SLICE_LIMIT_S, check=False)
        spent, client = usage(contender.pid) - before, _children_cpu_s() - client
        self._processes.check()
        try:
            report = parse(done.stdout)
        except ValueError as error:
            raise NodeError(f"{name}, {load.name}: {error} {done.stderr.strip()}") from error
        if report.failed:
            raise NodeError(f"{name}, {load.name}: {report.failed} of {load.count} requests failed")
        return Slice(report, spent, client)


def _manager() -> Config:
    """Serves the paths of loads.py."""
    routes = [
        render.direct_response("0" * MEGABYTE, prefix=DOWN),
        render.direct_response("ok\n", prefix=UP),
        render.direct_response("ok\n", prefix=SMALL),
    ]
    package = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3."
    buffer = {
        "name": "envoy.filters.http.buffer",
        "typed_config": {"@type": package + "Buffer", "max_request_bytes": 2 * MEGABYTE},
    }
    manager = render.http_connection_manager(routes, stat_prefix=LISTENER, http_filters=[buffer])
    manager["typed_config"]["route_config"]["max_direct_response_body_size_bytes"] = MEGABYTE
    return manager


def _children_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
